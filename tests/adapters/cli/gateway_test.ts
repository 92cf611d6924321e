/** `natkit gateway` on a system of which a test sees all sockets and timers. */
import { describe, it } from "node:test";
import { assertEquals, assertStringIncludes } from "@std/assert";
import type {
  Http,
  Listener,
  UdpHandlers,
  UdpOptions,
  UdpSocket,
} from "../../../adapters/runtime.ts";
import { PROFILES } from "../../../core/gateway/profiles.ts";
import { COMMANDS } from "../../../core/gateway/scenario.ts";
import { NatError } from "../../../core/errors.ts";
import type { Endpoint } from "../../../core/machine.ts";
import { encodeMapRequest } from "../../../core/natpmp/codec.ts";
import { FakeRuntime } from "../fake_runtime.ts";
import { turn } from "../api/fake_network.ts";
import { FakeRun } from "./fakes.ts";

const CLIENT: Endpoint = { address: "192.0.2.9", port: 50_000 };

/** A system with HTTP, where whatever listens does so where it was asked to. */
class Host extends FakeRuntime {
  readonly pages: Endpoint[] = [];
  /** Why no socket can be had. */
  fault: NatError | undefined;

  constructor() {
    super();
    this.addresses = [{ name: "eth0", address: "192.0.2.7", prefixLength: 24, internal: false }];
  }

  override async openUdp(options: UdpOptions, handlers: UdpHandlers): Promise<UdpSocket> {
    if (this.fault) throw this.fault;
    const socket = await super.openUdp(options, handlers);
    return Object.assign(socket, { local: options.local ?? socket.local });
  }

  openHttp(): Promise<Http> {
    const listen = (local: Endpoint): Promise<Listener> => {
      this.pages.push(local);
      return Promise.resolve({ local, close() {} });
    };
    return Promise.resolve({ request() {}, respond() {}, listen, close() {} });
  }
}

/** A gateway that runs. */
class Run extends FakeRun {
  isOver = false;
  readonly host: Host;

  constructor(flags: string, host: Host = new Host()) {
    super(["gateway", ...flags.split(" ")], {}, { runtime: host });
    this.host = host;
    void this.status.then(() => this.isOver = true);
  }

  /** A client asks for a port. */
  ask(internalPort: number): void {
    const request = encodeMapRequest({
      protocol: "udp",
      internalPort,
      suggestedExternalPort: internalPort,
      lifetimeSeconds: 600,
    });
    this.host.sockets[0]!.handlers.onDatagram(request, CLIENT);
  }

  /** Waits until it waits for the next turn of the runtime, when what it closed is free. */
  async closing(): Promise<void> {
    const isClosing = () => [...this.host.timers].some(({ delayMs }) => delayMs === 0);
    while (!isClosing() && !this.isOver) await turn();
    await turn();
    assertEquals(this.isOver, false, "nobody waited for the sockets");
  }

  /** Ends it, by a line or a signal that came before. */
  async quit(line: string = "quit"): Promise<number> {
    if (line !== "") this.type(line);
    await this.closing();
    this.host.advance(0);
    const status = await this.status;
    assertEquals([this.host.timers.size, this.listeners], [0, 0]);
    return status;
  }
}

describe("natkit gateway", () => {
  it("listens and announces where the flags say, or where a router would", async () => {
    const plain = new Run("--protocols nat-pmp --json");
    await plain.event("listening");
    const [server] = plain.host.sockets;
    assertEquals(server!.options.local, { address: "0.0.0.0", port: 5351 });
    assertEquals(server!.sent.map(({ to }) => to), [{ address: "224.0.0.1", port: 5350 }]);
    assertEquals(await plain.quit(), 0);

    const told = new Run(
      "--listen 192.0.2.7 --port 5 --announce-port 6 --epoch 700 --external 198.51.100.1 " +
        "--protocols nat-pmp,upnp --http-port 8 --json",
    );
    assertEquals(await told.event("listening"), {
      event: "listening",
      address: "192.0.2.7",
      port: 5,
      external: ["198.51.100.1"],
      protocols: ["nat-pmp", "upnp"],
      descriptions: ["http://192.0.2.7:8/rootDesc.xml"],
      ssdpPort: 1900,
    });
    assertEquals(told.host.sockets[0]!.options.local, { address: "192.0.2.7", port: 5 });
    assertEquals(told.host.pages, [{ address: "192.0.2.7", port: 8 }]);
    const { to, epochSeconds } = await told.event("response");
    assertEquals([to, epochSeconds], [{ address: "224.0.0.1", port: 6 }, 700]);
    assertEquals(await told.quit(), 0);
  });

  it("tells where it listens before what it said meanwhile", async () => {
    const run = new Run("--profile archer-a7 --json");
    await run.event("response");
    const [listening, first] = run.events;
    assertEquals(listening, {
      event: "listening",
      address: "0.0.0.0",
      port: 5351,
      external: ["203.0.113.7"],
      protocols: ["nat-pmp"],
      profile: "archer-a7",
    });
    assertEquals([first!.operation, first!.isUnsolicited], ["announce", true]);
    assertEquals(await run.quit(), 0);
  });

  it("tells where it relays what arrives at a port, while it does", async () => {
    const run = new Run("--protocols nat-pmp --json --forward --listen 192.0.2.7");
    await run.event("listening");
    run.ask(6000);
    const { change, relayedAt } = await run.event("mapping");
    assertEquals([change, relayedAt], ["added", { address: "192.0.2.7", port: 6000 }]);
    run.host.advance(600_000);
    const gone = await run.event("mapping", 2);
    assertEquals([gone.change, gone.relayedAt], ["expired", undefined]);
    assertEquals(await run.quit(), 0);

    const plain = new Run("--protocols nat-pmp --json");
    await plain.event("listening");
    plain.ask(6000);
    assertEquals("relayedAt" in await plain.event("mapping"), false);
    assertEquals(await plain.quit(), 0);
  });

  it("obeys a line at a time, tells each, and says what it did not do", async () => {
    const run = new Run("--protocols nat-pmp --json");
    await run.event("listening");
    const before = run.events.length;
    for (const line of ["static tcp 80 10.0.0.1 8080", "static tcp 80 10.0.0.2 8080", "epoch x"]) {
      run.type(line);
    }
    await run.event("error", 2);
    const [added, done, taken, wrong] = run.events.slice(before);
    assertEquals(added!.event, "mapping");
    assertEquals(done, {
      event: "scenario",
      command: "static",
      protocol: "tcp",
      externalPort: 80,
      address: "10.0.0.1",
      internalPort: 8080,
      message: "port 80/tcp goes to 10.0.0.1, port 8080",
    });
    const [told, usage] = run.err.split("\n");
    assertEquals(taken, {
      event: "error",
      code: "refused",
      message: told!.replace("natkit: ", ""),
      attempts: [],
    });
    assertEquals(wrong, {
      event: "error",
      code: "usage",
      message: usage!.replace("natkit: ", ""),
      attempts: [],
    });
    for (const line of ["", " ", "list", "help"]) run.type(line);
    const { mappings, ...list } = await run.event("scenario", 2);
    assertEquals([list.command, (mappings as { external: unknown }[])[0]!.external], [
      "list",
      { address: "203.0.113.7", port: 80 },
    ]);
    const { commands, ...help } = await run.event("scenario", 3);
    assertEquals([help.command, commands], [
      "help",
      COMMANDS.map(({ usage, summary }) => ({ usage, summary })),
    ]);
    assertEquals(run.events.length, before + 6);
    assertEquals(await run.quit(), 0);
  });

  it("goes on without a socket, and warns of what befalls one", async () => {
    const run = new Run("--protocols nat-pmp");
    await run.until(({ out }) => out.startsWith("listening"));
    const [server] = run.host.sockets;
    server!.handlers.onError(new NatError("network", "no route"));
    assertEquals(run.err, "natkit: warning: no route\n");
    run.type("nat off");
    await run.closing();
    assertEquals(server!.isClosed, true);
    run.host.advance(0);
    await run.until(({ out }) => out.includes("scenario nat: "));
    // Nothing but a timer keeps the process there.
    assertEquals([...run.host.timers].map(({ keepAlive }) => keepAlive), [true]);
    run.type("nat on");
    await run.until(({ out }) => out.split("scenario nat: ").length === 3);
    assertEquals(await run.quit(), 0);
  });

  it("lists in its help what it obeys, and whom it can be like", async () => {
    const run = new Run("--help");
    assertEquals(await run.status, 0);
    const [, obeyed = "", profiles = ""] = run.out.split(
      /\nScenario commands on standard input, one a line:\n|\nProfiles:\n/,
    );
    for (const { usage } of COMMANDS) assertStringIncludes(`\n${obeyed}`, `\n  ${usage} `);
    for (const name of Object.keys(PROFILES)) assertStringIncludes(`\n${profiles}`, `\n  ${name} `);
  });

  it("names the address and the port that another program has", async () => {
    const host = new Host();
    const cause = Object.assign(new Error("taken"), { code: "EADDRINUSE" });
    for (
      const [said, at] of [
        ["Cannot open a socket on 192.0.2.7:1900: EADDRINUSE", "192.0.2.7:1900"],
        ["Cannot open a socket", "0.0.0.0:5"],
      ] as const
    ) {
      host.fault = new NatError("network", said, { cause });
      const run = new Run("--protocols nat-pmp --port 5 --json", host);
      assertEquals(await run.status, 1);
      const message = `Cannot listen on ${at}: the port is in use`;
      assertEquals(run.events, [{ event: "error", code: "address-in-use", message, attempts: [] }]);
    }
    host.fault = new NatError("permission", "Cannot open a socket: --allow-net is needed");
    const run = new Run("--protocols nat-pmp --json", host);
    assertEquals([await run.status, run.events.map(({ code }) => code)], [1, ["permission"]]);
    assertEquals(run.err, "natkit: Cannot open a socket: --allow-net is needed\n");
  });

  it("ends at a signal, also at one that came while it started", async () => {
    for (const isEarly of [true, false]) {
      const run = new Run("--protocols nat-pmp --json");
      if (!isEarly) await run.event("listening");
      run.signal("SIGTERM");
      await run.event("scenario");
      assertEquals(await run.quit(""), 143);
      assertEquals(run.events.at(-1), {
        event: "scenario",
        command: "quit",
        message: "Interrupted by SIGTERM",
      });
    }
  });
});
