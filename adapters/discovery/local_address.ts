/**
 * Which of this host's addresses packets leave from.
 *
 * @module
 */
import { classify, contains, isLoopback, parseCidr } from "../../core/cidr.ts";
import { type Family, familyOf, withoutZone, zoneOf } from "../../core/ip.ts";
import type { InterfaceAddress } from "../runtime.ts";

/** The interface that a zone belongs to: its name, or on Windows the index in its addresses. */
export function interfaceOfZone(
  interfaces: readonly InterfaceAddress[],
  zone: string,
): string | undefined {
  return interfaces.find(({ name, address }) => name === zone || zoneOf(address) === zone)?.name;
}

/**
 * The address whose network the gateway is in: the longest prefix that holds it, and for a gateway
 * with a zone only on that interface.
 *
 * @example
 * ```ts
 * import { bestInterfaceAddress } from "./local_address.ts";
 * const lan = { name: "eth0", address: "192.168.1.7", prefixLength: 24, internal: false };
 * console.assert(bestInterfaceAddress([lan], "192.168.1.1") === lan);
 * console.assert(bestInterfaceAddress([lan], "10.0.0.1") === undefined);
 * ```
 */
export function bestInterfaceAddress(
  interfaces: readonly InterfaceAddress[],
  gateway: string,
): InterfaceAddress | undefined {
  const bare = withoutZone(gateway), zone = zoneOf(gateway);
  let best: InterfaceAddress | undefined;
  for (const candidate of interfaces) {
    const { address, name, prefixLength } = candidate;
    if (familyOf(address) !== familyOf(gateway)) continue;
    if (zone !== undefined && zone !== name && zone !== zoneOf(address)) continue;
    const network = parseCidr(`${withoutZone(address)}/${prefixLength}`);
    const fits = withoutZone(address) === bare || (network && contains(network, bare));
    if (fits && prefixLength > (best?.prefixLength ?? -1)) best = candidate;
  }
  return best;
}

/** The addresses from which something beyond this host's links can be sent. */
export function farReaching(
  interfaces: readonly InterfaceAddress[],
  family: Family,
): InterfaceAddress[] {
  return interfaces.filter(({ address, internal }) =>
    !internal && familyOf(address) === family && classify(address) !== "link-local"
  );
}

/** What {@linkcode pickLocalAddress} goes by. */
export interface PickOptions {
  /** Only on the interface of this name, or of this zone (Windows: its index). */
  readonly interface?: string;
  /** Addresses to take only where there is no other: temporary and deprecated ones. */
  readonly avoid?: ReadonlySet<string>;
}

/**
 * The address of a family that a mapping should be made for. IPv6: a global address, rather one
 * that stays, than a unique local, than a link-local one (PCP-C-24). IPv4: the first that is not
 * link-local.
 *
 * @returns The canonical address, or undefined where there is none but loopback.
 */
export function pickLocalAddress(
  interfaces: readonly InterfaceAddress[],
  family: Family,
  options: PickOptions = {},
): string | undefined {
  const only = options.interface === undefined
    ? undefined
    : interfaceOfZone(interfaces, options.interface) ?? options.interface;
  let best: string | undefined, bestRank = Infinity;
  for (const { address, name, internal } of interfaces) {
    if (internal || familyOf(address) !== family || isLoopback(address)) continue;
    if (only !== undefined && only !== name) continue;
    const rank = rankOf(address, options.avoid);
    if (rank < bestRank) [best, bestRank] = [address, rank];
  }
  return best;
}

function rankOf(address: string, avoid: ReadonlySet<string> | undefined): number {
  const penalty = avoid?.has(withoutZone(address)) ? 1 : 0;
  switch (classify(withoutZone(address))) {
    case "global":
    case "documentation":
      return penalty;
    case "unique-local":
      return 2 + penalty;
    case "link-local":
      return 4 + penalty;
    default:
      return familyOf(address) === 4 ? penalty : 3;
  }
}
