/**
 * Server machines alone, without sockets: MAP requests in, answers out, at a number of live
 * mappings.
 *
 * @module
 */
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

interface Asked {
  readonly data: Uint8Array;
  readonly from: Endpoint;
}

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

function ask(name: MachineName, number: number, lifetimeSeconds: number): Asked {
  const address = `10.0.${number / PORTS_PER_CLIENT >> 8}.${(number / PORTS_PER_CLIENT) & 255 | 0}`;
  const internalPort = 1024 + number % PORTS_PER_CLIENT;
  const from = { address, port: 40_000 };
  const suggested = 1024 + number;
  if (/pmp/i.test(name)) {
    const request = { protocol: "tcp", internalPort, lifetimeSeconds } as const;
    return { data: encodeMapRequest({ ...request, suggestedExternalPort: suggested }), from };
  }
  const data = encodeRequest({
    kind: "map",
    lifetimeSeconds,
    clientAddress: address,
    nonce: Uint8Array.from({ length: 12 }, (_, i) => number >> i),
    protocol: 6,
    internalPort,
    suggestedPort: suggested,
    suggestedAddress: "0.0.0.0",
    options: [],
  });
  return { data, from };
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
  const held = Array.from({ length: live }, (_, i) => ask(name, i, 7200));
  const extra = Array.from({ length: BATCH / 2 }, (_, i) => [
    ask(name, live + i, 7200),
    ask(name, live + i, 0),
  ]).flat();
  let now = 1000;
  const serve = ({ data, from }: Asked): Uint8Array => {
    machine.handleDatagram(data, from, now);
    const reply = machine.poll();
    if (reply?.type !== "send" || machine.poll()) throw new Error("not answered once");
    return reply.data;
  };
  for (const request of held) {
    const reply = serve(request);
    if (reply[3] !== 0) throw new Error(`refused: ${reply}`);
  }
  let next = 0;
  const timings = await measure({
    "renew": () => {
      now += 1;
      for (let i = 0; i < BATCH; i++) {
        serve(held[next]!);
        next = next + 1 === live ? 0 : next + 1;
      }
    },
    "make and delete": () => {
      now += 1;
      for (const request of extra) serve(request);
    },
  }, { timeMs, rounds: 3 });
  return (["renew", "make and delete"] as const).map((what) => ({
    machine: name,
    what,
    live,
    perSecond: BATCH * 1000 / timings[what].p50,
  }));
}
