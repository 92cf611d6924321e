/**
 * How a PCP client is set up: its options checked and filled in.
 *
 * @module
 */
import { checkAddress, checkInteger, checkPort } from "../check.ts";
import type { Endpoint } from "../machine.ts";
import type { RandomSource } from "../random.ts";
import type { PcpClientOptions } from "./types.ts";

/** RFC 7488's maximum of requests to each of several addresses. */
const ATTEMPTS_PER_ADDRESS = 4;

/** Options checked and filled in. */
export interface PcpClientSettings {
  readonly servers: readonly Endpoint[];
  readonly localAddress: string;
  readonly random: RandomSource;
  readonly fastStart: boolean;
  readonly maxAttempts: number;
}

/**
 * Checks the options and fills in the defaults.
 *
 * @throws {TypeError | RangeError} Where an option is none, with its name and value.
 */
export function readOptions(options: PcpClientOptions): PcpClientSettings {
  const { servers, random, fastStart = true } = options;
  if (!Array.isArray(servers) || servers.length === 0) {
    throw new TypeError(`'servers' must list at least one address: current value is ${servers}`);
  }
  return {
    servers: servers.map((server: Endpoint) => ({
      address: checkAddress("servers.address", server.address),
      port: checkPort("servers.port", server.port),
    })),
    localAddress: checkAddress("localAddress", options.localAddress),
    random,
    fastStart,
    maxAttempts: checkInteger(
      "maxAttempts",
      options.maxAttempts ?? (servers.length > 1 ? ATTEMPTS_PER_ADDRESS : 0),
      0,
      Number.MAX_SAFE_INTEGER,
    ),
  };
}
