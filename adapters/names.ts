/**
 * Host names. The core knows addresses alone, so that it looks nothing up.
 *
 * @module
 */
import { lookup } from "node:dns/promises";
import { NatError } from "../core/errors.ts";
import { canonicalAddress, type Family, familyOf } from "../core/ip.ts";
import type { Endpoint } from "../core/machine.ts";
import type { ServerName } from "./host_name.ts";
import { callError } from "./udp.ts";

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
    throw callError(`Cannot look up ${host}`, error);
  }
  const addresses = [...new Set(found.flatMap((text) => canonicalAddress(text) ?? []))];
  const endpoints = addresses.filter(isWanted).map((address) => ({ address, port }));
  if (endpoints.length > 0) return endpoints;
  const what = family === undefined ? "address" : `IPv${family} address`;
  throw new NatError("network", `Cannot use ${host}: it has no ${what}`);
}
