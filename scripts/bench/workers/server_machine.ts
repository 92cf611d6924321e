/**
 * Server machines alone, without sockets: MAP requests in, answers out, at a number of live
 * mappings.
 *
 * @module
 */
import { putU16, putU32 } from "../../../core/bytes.ts";
import { SimulatedGateway } from "../../../core/gateway/gateway.ts";
import type { Endpoint, Machine } from "../../../core/machine.ts";
import { encodeMapRequest } from "../../../core/natpmp/codec.ts";
import { NatPmpServer } from "../../../core/natpmp/server.ts";
import { encodeRequest } from "../../../core/pcp/codec.ts";
import { PcpServer } from "../../../core/pcp/server.ts";
import { seededRandom } from "../../../core/random.ts";
import { MappingTable, type MappingTableOptions } from "../../../core/table/mod.ts";
import { measure } from "../measure.ts";

/** What `server-machine` takes. */
export interface ServerMachineOptions {
  readonly timeMs: number;
  readonly live: readonly number[];
}

/** Requests a second. */
export interface ServerRate {
  readonly machine: MachineName;
  /** Renewals of live mappings, or mappings made and deleted beside them. */
  readonly what: "renew" | "make and delete";
  readonly live: number;
  readonly perSecond: number;
}

/** What `server-machine` measures. */
export interface ServerMachineResult {
  readonly rates: ServerRate[];
}

/** The machines. */
export type MachineName = "PcpServer" | "NatPmpServer" | "gateway, PCP" | "gateway, NAT-PMP";

const MACHINES: readonly MachineName[] = [
  "PcpServer",
  "NatPmpServer",
  "gateway, PCP",
  "gateway, NAT-PMP",
];
const PORTS_PER_CLIENT = 1000;
const BATCH = 1000;
const TABLE: MappingTableOptions = { maxPortsPerClient: 65_535 };
const EXTERNAL = ["203.0.113.7"];

function makeMachine(name: MachineName): Machine<unknown> {
  const table = new MappingTable({ ...TABLE, externalAddresses: EXTERNAL });
  if (name === "PcpServer") return new PcpServer({ table, announceTo: [] });
  if (name === "NatPmpServer") return new NatPmpServer({ table, announceTo: [] });
  const gateway = new SimulatedGateway({
    externalAddresses: EXTERNAL,
    announceTo: [],
    table: TABLE,
    random: seededRandom(1),
  });
  gateway.start(0);
  return gateway;
}

/**
 * Requests for mapping after mapping, in one buffer, as a socket would hand them in: beside 50,000
 * buffers of the bench's own it would be these that the processor waits for.
 */
class Asker {
  readonly data: Uint8Array;
  readonly #isPcp: boolean;
  readonly #clients = new Map<number, Endpoint>();

  constructor(name: MachineName) {
    this.#isPcp = !/pmp/i.test(name);
    const ports = { internalPort: 1, lifetimeSeconds: 7200 };
    this.data = this.#isPcp
      ? encodeRequest({
        ...ports,
        kind: "map",
        clientAddress: "10.0.0.0",
        nonce: new Uint8Array(12),
        protocol: 6,
        suggestedPort: 0,
        suggestedAddress: "0.0.0.0",
        options: [],
      })
      : encodeMapRequest({ ...ports, protocol: "tcp", suggestedExternalPort: 0 });
  }

  /** Makes it the request for that mapping, and tells who asks. */
  ask(number: number, lifetimeSeconds: number): Endpoint {
    const { data } = this, client = Math.floor(number / PORTS_PER_CLIENT);
    const internalPort = 1024 + number % PORTS_PER_CLIENT, suggested = 1024 + number;
    if (this.#isPcp) {
      putU32(data, 4, lifetimeSeconds);
      putU16(data, 22, client);
      putU32(data, 24, number);
      putU16(data, 40, internalPort);
      putU16(data, 42, suggested);
    } else {
      putU16(data, 4, internalPort);
      putU16(data, 6, suggested);
      putU32(data, 8, lifetimeSeconds);
    }
    let from = this.#clients.get(client);
    if (!from) {
      from = { address: `10.0.${client >> 8}.${client & 255}`, port: 40_000 };
      this.#clients.set(client, from);
    }
    return from;
  }
}

/** The task. */
export async function serverMachine(options: ServerMachineOptions): Promise<ServerMachineResult> {
  const rates: ServerRate[] = [];
  for (const name of MACHINES) {
    for (const live of options.live) rates.push(...await measureAt(name, live, options.timeMs));
  }
  return { rates };
}

async function measureAt(name: MachineName, live: number, timeMs: number): Promise<ServerRate[]> {
  const machine = makeMachine(name);
  const asker = new Asker(name);
  let now = 1000;
  const serve = (number: number, lifetimeSeconds: number): Uint8Array => {
    const from = asker.ask(number, lifetimeSeconds);
    machine.handleDatagram(asker.data, from, "server", now);
    const reply = machine.poll();
    if (reply?.type !== "send" || machine.poll()) throw new Error("not answered once");
    return reply.data;
  };
  for (let i = 0; i < live; i++) {
    const reply = serve(i, 7200);
    if (reply[3] !== 0) throw new Error(`refused: ${reply}`);
  }
  let next = 0;
  const timings = await measure({
    "renew": () => {
      now += 1;
      for (let i = 0; i < BATCH; i++) {
        serve(next, 7200);
        next = next + 1 === live ? 0 : next + 1;
      }
    },
    "make and delete": () => {
      now += 1;
      for (let i = 0; i < BATCH / 2; i++) {
        serve(live + i, 7200);
        serve(live + i, 0);
      }
    },
  }, { timeMs, rounds: 3 });
  return (["renew", "make and delete"] as const).map((what) => ({
    machine: name,
    what,
    live,
    perSecond: BATCH * 1000 / timings[what].p50,
  }));
}
