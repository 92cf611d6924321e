/**
 * Host names. The core knows addresses alone, so that it looks nothing up.
 *
 * @module
 */
import { lookup } from "node:dns/promises";
import { NatError } from "../core/errors.ts";
import { canonicalAddress, type Family, familyOf, parseEndpoint } from "../core/ip.ts";
import type { Endpoint } from "../core/machine.ts";
import { errorCode } from "./udp.ts";

/** A server as it is named: a host name or an address, and a port. */
export interface ServerName {
  /** A name, or an address in canonical text. */
  readonly host: string;
  /** 1…65535. */
  readonly port: number;
}

/** What RFC 1123 lets a host be called, an underscore here and there included. */
const NAME = /^(?=.{1,253}$)(?:[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?\.?)+$/i;

/**
 * Reads `HOST`, `HOST:PORT`, `ADDRESS`, `ADDRESS:PORT` or `[IPV6]:PORT`; undefined where it is none
 * of them.
 */
export function parseServer(text: string, defaultPort: number): ServerName | undefined {
  const endpoint = parseEndpoint(text, defaultPort);
  if (endpoint) {
    return endpoint.port === 0 ? undefined : { host: endpoint.address, port: endpoint.port };
  }
  const match = /^([^:]+)(?::([0-9]{1,5}))?$/.exec(text);
  const host = match?.[1] ?? "";
  const port = match?.[2] === undefined ? defaultPort : Number(match[2]);
  // All digits and dots is an address that was mistyped.
  if (!NAME.test(host) || /^[0-9.]+$/.test(host) || port < 1 || port > 65535) return undefined;
  return { host, port };
}

/**
 * The endpoints of a server, in the system's order of preference.
 *
 * @param family Of which family they are to be. Default: either.
 * @throws {NatError} `network` where the name has no such address, `permission`.
 */
export async function resolveServer(
  { host, port }: ServerName,
  family?: Family,
): Promise<readonly Endpoint[]> {
  const isWanted = (address: string) => family === undefined || familyOf(address) === family;
  const own = canonicalAddress(host);
  if (own !== undefined) {
    if (isWanted(own)) return [{ address: own, port }];
    throw new NatError("network", `Cannot use ${host}: it is no IPv${family} address`);
  }
  let found: readonly string[];
  try {
    found = (await lookup(host, { all: true })).map(({ address }) => address);
  } catch (error) {
    const isForbidden = /NotCapable|PermissionDenied|EACCES|EPERM/.test(errorCode(error));
    throw new NatError(
      isForbidden ? "permission" : "network",
      `Cannot look up ${host}: ${error instanceof Error ? error.message : error}`,
      { cause: error },
    );
  }
  const addresses = [...new Set(found.flatMap((text) => canonicalAddress(text) ?? []))];
  const endpoints = addresses.filter(isWanted).map((address) => ({ address, port }));
  if (endpoints.length > 0) return endpoints;
  const what = family === undefined ? "address" : `IPv${family} address`;
  throw new NatError("network", `Cannot use ${host}: it has no ${what}`);
}
