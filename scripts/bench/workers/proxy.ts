/**
 * A wire between a client and a gateway: writes down what passes, in order, and loses what it is
 * told to lose.
 *
 * @module
 */
import { type BareSocket, bareSocket } from "./bare_udp.ts";

/** One datagram on the wire. */
export interface Passed {
  readonly direction: "up" | "down";
  /** `"pcp"` or `"nat-pmp"` by the version byte, and the opcode. */
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
  let outer: BareSocket | undefined;
  const passes = (direction: Passed["direction"], data: Uint8Array): boolean => {
    log.push({ direction, what: nameOf(data) });
    return log.length - 1 !== lose;
  };
  const inner = await bareSocket((data, port, address) => {
    client = { port, address };
    if (passes("up", data)) outer!.send(data.slice(), gatewayPort, "127.0.0.1");
  });
  outer = await bareSocket((data) => {
    if (client && passes("down", data)) inner.send(data.slice(), client.port, client.address);
  });
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
      inner.close();
      outer!.close();
    },
  };
}

function nameOf(data: Uint8Array): string {
  const protocol = data[0] === 2 ? "pcp" : data.length === 24 ? "pcp-no" : "nat-pmp";
  return `${protocol} ${data[1]! & 0x7f}`;
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
