/**
 * A wire between a client and a gateway: writes down what passes, in order, and loses what it is
 * told to lose.
 *
 * @module
 */
import { NATPMP_RESULT } from "../../../core/natpmp/codec.ts";
import { type BareSocket, bareSocket } from "./bare_udp.ts";

/** One datagram on the wire. */
export interface Passed {
  readonly direction: "up" | "down";
  /** `"pcp-map"`, `"nat-pmp-address"`, `"nat-pmp-no"`… */
  readonly what: string;
}

/** A running proxy. */
export interface Proxy {
  readonly port: number;
  /** What has passed or was lost, in order. */
  readonly log: readonly Passed[];
  /** Forgets the log and the client, and loses the datagram with this number in the new log. */
  reset(lose?: number): void;
  close(): void;
}

/** Starts a proxy on loopback to a gateway's port there. */
export async function startProxy(gatewayPort: number): Promise<Proxy> {
  let log: Passed[] = [];
  let lose: number | undefined;
  let client: { port: number; address: string } | undefined;
  const sockets: BareSocket[] = [];
  const passes = (direction: Passed["direction"], data: Uint8Array): boolean => {
    log.push({ direction, what: nameOf(data) });
    return log.length - 1 !== lose;
  };
  const outer = await bareSocket((data) => {
    if (client && passes("down", data)) sockets[0]!.send(data.slice(), client.port, client.address);
  });
  const inner = await bareSocket((data, port, address) => {
    client = { port, address };
    if (passes("up", data)) outer.send(data.slice(), gatewayPort, "127.0.0.1");
  });
  sockets.push(inner, outer);
  return {
    port: inner.port,
    get log() {
      return log;
    },
    reset(number) {
      log = [];
      lose = number;
      client = undefined;
    },
    close() {
      for (const socket of sockets) socket.close();
    },
  };
}

function nameOf(data: Uint8Array): string {
  const protocol = data[0] === 2 ? "pcp" : "nat-pmp";
  const isNo = data.length >= 4 && data[0] === 0 && data[3] === NATPMP_RESULT.UNSUPP_VERSION;
  const opcodes = protocol === "pcp" ? ["announce", "map", "peer"] : ["address", "map", "map"];
  return `${protocol}-${isNo ? "no" : opcodes[data[1]! & 0x7f]}`;
}

/**
 * How many round trips an exchange takes: a client that sends after it has heard something begins
 * another one.
 */
export function roundTrips(log: readonly Passed[]): number {
  let trips = 0;
  let isListening = true;
  for (const { direction } of log) {
    if (direction === "up" && isListening) trips++;
    isListening = direction === "down";
  }
  return trips;
}
