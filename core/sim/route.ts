/**
 * By which interface a host sends, and to which neighbour: one of its own addresses, then whoever
 * has the address on one of its segments, then the gateway of the first interface that has one.
 *
 * @module
 */
import { withoutZone } from "../ip.ts";
import { isLinkLocal6, isMulticast } from "./packet.ts";
import type { Interface } from "./segment.ts";

/** A way out. */
export interface Route {
  /** The interface to send by. */
  readonly by: Interface;
  /** The neighbour to send to; undefined for multicasts and the host itself. */
  readonly to: Interface | undefined;
  /** The address to send from, where the socket has none. */
  readonly source: string | undefined;
}

/** The route to an address, which may carry a zone, from `source` where that is given. */
export function findRoute(
  interfaces: readonly Interface[],
  zoned: string,
  source: string | undefined,
): Route | undefined {
  const address = withoutZone(zoned);
  const zone = zoned === address ? undefined : zoned.slice(address.length + 1);
  const usable = interfaces.filter((by) => zone === undefined || by.zone === zone);
  const route = (by: Interface, to?: Interface): Route => ({
    by,
    to,
    source: sourceAddress(by, address),
  });
  if (isMulticast(address)) {
    const by = usable.find(({ addresses }) => source !== undefined && addresses.includes(source)) ??
      usable.find((candidate) => sourceAddress(candidate, address) !== undefined);
    return by && route(by);
  }
  const own = usable.find(({ addresses }) => addresses.includes(address));
  if (own) return route(own);
  for (const by of usable) {
    const neighbour = by.segment.lookup(address);
    if (neighbour) return route(by, neighbour);
  }
  for (const by of usable) {
    const gateway = gatewayOf(by, address);
    if (gateway) return route(by, gateway);
  }
  return undefined;
}

/** Who forwards, for that interface, what goes to an address that is not on its segment. */
export function gatewayOf(by: Interface, address: string): Interface | undefined {
  const gateway = by.gateways[address.includes(":") ? 1 : 0];
  return gateway === undefined ? undefined : by.segment.lookup(gateway);
}

function sourceAddress(by: Interface, to: string): string | undefined {
  const isIPv6 = to.includes(":");
  const same = by.addresses.filter((address) => address.includes(":") === isIPv6);
  if (!isIPv6) return same[0];
  const wantsLinkLocal = isLinkLocal6(to) || to.startsWith("ff02:");
  return same.find((address) => isLinkLocal6(address) === wantsLinkLocal) ?? same[0];
}
