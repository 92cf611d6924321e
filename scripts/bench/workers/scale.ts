/**
 * Client machines that hold many mappings: what a timer costs, and what a mapping weighs.
 *
 * The machines run in virtual time; every request is answered at once and in full.
 *
 * @module
 */
import type { Action, Endpoint, Machine } from "../../../core/machine.ts";
import { PROTOCOL_NUMBER, type Transport } from "../../../core/mapping.ts";
import { NatPmpClient } from "../../../core/natpmp/client.ts";
import * as natPmp from "../../../core/natpmp/codec.ts";
import * as pcp from "../../../core/pcp/codec.ts";
import { PcpClient } from "../../../core/pcp/client.ts";
import { PortMapper } from "../../../core/portmap/mapper.ts";
import { seededRandom } from "../../../core/random.ts";
import { heapAfterCollection } from "./heap.ts";

/** What `scale` takes. */
export interface ScaleOptions {
  readonly client: "pcp" | "nat-pmp" | "mapper";
  readonly mappings: number;
  /** How many timers are measured. */
  readonly wakes: number;
}

/** What `scale` measures. */
export interface ScaleResult {
  /** One `handleTimeout` with something due, and `nextTimeout`; nanoseconds. */
  readonly dueNs: number;
  /** The same with nothing due. */
  readonly idleNs: number;
  /** The answer to what was sent. */
  readonly answerNs: number;
  /** For each mapping, after garbage collection. */
  readonly bytes: number;
}

const GATEWAY: Endpoint = { address: "192.168.1.1", port: 5351 };
const LOCAL = "192.168.1.100";
const LIFETIME_SECONDS = 7200;

/** A client under load. */
interface Client extends Machine<unknown> {
  /** Asks for a mapping. */
  ask(protocol: Transport, internalPort: number, now: number): void;
}

function makeClient(kind: ScaleOptions["client"]): Client {
  const random = seededRandom(1);
  switch (kind) {
    case "pcp": {
      const client = new PcpClient({ servers: [GATEWAY], localAddress: LOCAL, random });
      const ask: Client["ask"] = (protocol, internalPort, now) =>
        client.map({ protocol: PROTOCOL_NUMBER[protocol], internalPort }, now);
      return Object.assign(client, { ask });
    }
    case "nat-pmp": {
      const client = new NatPmpClient({ gateway: GATEWAY, random });
      const ask: Client["ask"] = (protocol, internalPort, now) =>
        client.map({ protocol, internalPort }, now);
      return Object.assign(client, { ask });
    }
    case "mapper": {
      const client = new PortMapper({ random, protocols: ["pcp", "nat-pmp"] });
      client.networkChanged([{ gateway: GATEWAY, localAddress: LOCAL }], 0);
      const local = { address: LOCAL, port: 40_000 };
      client.handleSocket(client.sockets()[0]!.key, { ok: true, local }, 0);
      const ask: Client["ask"] = (protocol, internalPort, now) =>
        client.map({ protocol, internalPort }, now);
      return Object.assign(client, { ask });
    }
  }
}

/** The gateway's answer, or none. */
function answer(data: Uint8Array, now: number): Uint8Array | undefined {
  const epochSeconds = Math.floor(now / 1000);
  if (data[0] === 2) {
    const request = pcp.decodeRequest(data);
    if (typeof request === "string" || request.kind !== "map") return undefined;
    const { nonce, protocol, internalPort } = request;
    return pcp.encodeResponse({
      kind: "map",
      resultCode: 0,
      lifetimeSeconds: LIFETIME_SECONDS,
      epochSeconds,
      nonce,
      protocol,
      internalPort,
      externalPort: internalPort,
      externalAddress: "203.0.113.7",
      options: [],
    });
  }
  const request = natPmp.decodeRequest(data);
  if (typeof request === "string") return undefined;
  const resultCode = 0;
  if (request.kind === "address") {
    return natPmp.encodeAddressResponse({
      resultCode,
      epochSeconds,
      externalAddress: "203.0.113.7",
    });
  }
  if (request.kind !== "map") return undefined;
  const { protocol, internalPort } = request;
  return natPmp.encodeMapResponse({
    protocol,
    resultCode,
    epochSeconds,
    internalPort,
    externalPort: internalPort,
    lifetimeSeconds: LIFETIME_SECONDS,
  });
}

/** Drains the client and answers what it sends, until it has nothing more to say. */
function settle(client: Machine<unknown>, now: number): void {
  let action: Action<unknown> | undefined;
  while ((action = client.poll())) {
    if (action.type !== "send") continue;
    const reply = answer(action.data, now);
    if (reply) client.handleDatagram(reply, GATEWAY, action.socket, now);
  }
}

/** The task. */
export function scale({ client: kind, mappings, wakes }: ScaleOptions): Promise<ScaleResult> {
  // What is loaded and compiled at first use is not a mapping's.
  fill(makeClient(kind), 2000);
  const before = heapAfterCollection();
  const client = makeClient(kind);
  fill(client, mappings);
  const bytes = (heapAfterCollection() - before) / mappings;

  runTimers(client, Math.min(wakes, 20_000));
  const { dueNs, answerNs } = runTimers(client, wakes);
  const now = client.nextTimeout()! - 0.001;
  const from = performance.now();
  for (let i = 0; i < 10 * wakes; i++) {
    client.handleTimeout(now);
    client.nextTimeout();
  }
  const idleNs = (performance.now() - from) * 1e6 / (10 * wakes);
  return Promise.resolve({ dueNs, idleNs, answerNs, bytes });
}

function fill(client: Client, mappings: number): void {
  let now = 0;
  for (let i = 0; i < mappings; i++) {
    now += 0.01;
    client.ask(i % 2 ? "tcp" : "udp", 1 + (i >> 1), now);
    settle(client, now);
  }
}

function runTimers(client: Machine<unknown>, wakes: number): { dueNs: number; answerNs: number } {
  let due = 0, answering = 0;
  for (let i = 0; i < wakes; i++) {
    const now = client.nextTimeout()!;
    const from = performance.now();
    client.handleTimeout(now);
    client.nextTimeout();
    const handled = performance.now();
    settle(client, now);
    answering += performance.now() - handled;
    due += handled - from;
  }
  return { dueNs: due * 1e6 / wakes, answerNs: answering * 1e6 / wakes };
}
