/**
 * `natkit demo`: a gateway on loopback and a mapping through it by each protocol, from start to
 * end.
 *
 * The clients are those of `natkit map`, unchanged. To make the story short their jitter is drawn from
 * the short end of its range, since after a restart each waits a random time of up to 5 s before it
 * asks again.
 *
 * @module
 */
import { NatError, type Via } from "../../../core/errors.ts";
import type { Endpoint } from "../../../core/machine.ts";
import type { Transport } from "../../../core/mapping.ts";
import { Nat, type PortMappingTable } from "../../api/nat.ts";
import type { PortEvent, PortMapping } from "../../api/port_mapping.ts";
import { startGateway } from "../../gateway_server.ts";
import type { Runtime } from "../../runtime.ts";
import type { Context } from "../command.ts";
import { obey, tellListening } from "./gateway.ts";
import { fieldsOf } from "./hold.ts";
import { tellTable } from "./list.ts";

const FIRST_EXTERNAL = "203.0.113.7";
const SECOND_EXTERNAL = "198.51.100.9";
/** Jitter of up to 5 s becomes one of up to 0.6 s. */
const JITTER_SHIFT = 3;
/** How long to wait for what the gateway announces; where multicast fails it is asked instead. */
const PATIENCE_MS = 900;

/** Runs the command; answers the exit status. */
export async function run(context: Context): Promise<number> {
  const { output, runtime } = context;
  output.story("A gateway, simulated, on this host's loopback:");
  const server = await startGateway({
    external: FIRST_EXTERNAL,
    protocols: ["pcp", "nat-pmp", "upnp"],
    runtime,
  });
  const clients = new Clients(context, server.endpoint, hurried(runtime));
  try {
    tellListening(context, server);

    output.story("\nOne client opens a port by PCP, one by NAT-PMP, one by UPnP:");
    await clients.map("pcp", 8080, "tcp");
    await clients.map("nat-pmp", 27015, "udp");
    await clients.map("upnp", 25565, "tcp");

    output.story("\nThe gateway has one table, whichever protocol is spoken. UPnP lists it:");
    await clients.list();

    output.story("\nThe gateway reboots and forgets them. The clients notice and ask again:");
    await obey(context, server, runtime, "reboot");
    await clients.each(["renewed", "recovered", "moved"]);

    output.story("\nThe provider gives the gateway another address:");
    await obey(context, server, runtime, `external ${SECOND_EXTERNAL}`);
    await clients.each(["moved"]);

    output.story("\nThe clients are done and close their ports:");
    await clients.close();
    const left = server.entries().length;
    output.story(`\nThe gateway's table has ${left} entries. That is all.`);
    return left === 0 ? 0 : 1;
  } finally {
    await clients.close();
    await server.close();
  }
}

/** The runtime, its jitter drawn from the short end. Nonces are as random as ever. */
function hurried(runtime: Runtime): Runtime {
  const { random } = runtime;
  return {
    ...runtime,
    random: { u32: () => random.u32() >>> JITTER_SHIFT, fill: (bytes) => random.fill(bytes) },
  };
}

/** The clients of the story, each with a context of its own, as two programs would have. */
class Clients {
  readonly #context: Context;
  readonly #gateway: Endpoint;
  readonly #runtime: Runtime;
  readonly #all: Client[] = [];

  constructor(context: Context, gateway: Endpoint, runtime: Runtime) {
    this.#context = context;
    this.#gateway = gateway;
    this.#runtime = runtime;
  }

  async map(via: Via, port: number, protocol: Transport): Promise<void> {
    const { stop: signal } = this.#context;
    const nat = await Nat.open({
      gateway: this.#gateway,
      protocols: [via],
      runtime: this.#runtime,
    });
    try {
      const mapping = await nat.map(port, { protocol, signal });
      this.#all.push(new Client(this.#context, nat, mapping));
    } catch (error) {
      await nat.close();
      throw error;
    }
  }

  /** Tells the gateway's table, by who may ask for it. */
  async list(): Promise<void> {
    const client = this.#all.find(({ via }) => via === "upnp")!;
    tellTable(this.#context, await client.list());
  }

  /** Waits until each was told one of these. */
  async each(types: readonly PortEvent["type"][]): Promise<void> {
    await Promise.all(this.#all.map((client) => client.until(types)));
  }

  async close(): Promise<void> {
    await Promise.all(this.#all.splice(0).map((client) => client.close()));
  }
}

/** One client with its mapping. */
class Client {
  readonly #context: Context;
  readonly #nat: Nat;
  readonly #mapping: PortMapping;
  readonly #telling: Promise<void>;
  readonly #waiting: Set<(type: PortEvent["type"]) => void> = new Set();

  constructor(context: Context, nat: Nat, mapping: PortMapping) {
    this.#context = context;
    this.#nat = nat;
    this.#mapping = mapping;
    this.#tell("mapped");
    this.#telling = this.#follow();
  }

  get via(): Via {
    return this.#mapping.via;
  }

  list(): Promise<PortMappingTable> {
    return this.#nat.list({ signal: this.#context.stop });
  }

  #tell(event: "mapped" | "renewed" | "moved"): void {
    const elapsedMs = this.#context.elapsedMs();
    this.#context.output.event({ event, ...fieldsOf(this.#mapping.mapping), elapsedMs });
  }

  async #follow(): Promise<void> {
    const { output } = this.#context;
    for await (const event of this.#mapping) {
      const elapsedMs = this.#context.elapsedMs();
      const fields = fieldsOf(this.#mapping.mapping);
      if (event.type === "lost") {
        output.event({ event: "lost", reason: event.reason, ...fields, elapsedMs });
      } else if (event.type === "unmapped") {
        const { lifetimeSeconds: _, remote: __, ...rest } = fields;
        output.event({ event: "unmapped", ...rest, reason: event.reason, elapsedMs });
      } else if (event.type !== "renewal-failed") {
        this.#tell(event.type === "recovered" ? "mapped" : event.type);
      }
      for (const waiting of this.#waiting) waiting(event.type);
    }
  }

  /** Waits for an event of these types; where nothing is heard the gateway is asked. */
  async until(types: readonly PortEvent["type"][]): Promise<void> {
    const { stop } = this.#context;
    let wake = () => {};
    const heard = new Promise<void>((resolve) => wake = resolve);
    const listen = (type: PortEvent["type"]) => {
      if (types.includes(type)) wake();
    };
    this.#waiting.add(listen);
    stop.addEventListener("abort", wake);
    const asking = setTimeout(() => void this.#ask(), PATIENCE_MS);
    const giveUp = setTimeout(wake, 2 * PATIENCE_MS);
    await heard;
    clearTimeout(asking);
    clearTimeout(giveUp);
    stop.removeEventListener("abort", wake);
    this.#waiting.delete(listen);
    stop.throwIfAborted();
  }

  /** Asks the gateway, whose answer tells what its announcement would have. */
  async #ask(): Promise<void> {
    this.#context.output.progress("No announcement came (no multicast here?): asking.");
    const options = { timeoutMs: PATIENCE_MS };
    try {
      if (this.#mapping.via === "nat-pmp") await this.#nat.externalAddresses(options);
      else await this.#mapping.renew(undefined, options);
    } catch (error) {
      if (!(error instanceof NatError)) throw error;
    }
  }

  async close(): Promise<void> {
    await this.#mapping.close();
    await this.#telling;
    await this.#nat.close();
  }
}
