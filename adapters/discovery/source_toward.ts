/**
 * The address of this host that packets to a peer should leave from.
 *
 * @module
 */
import { isLoopback } from "../../core/cidr.ts";
import { familyOf, zoneOf } from "../../core/ip.ts";
import type { InterfaceAddress } from "../runtime.ts";
import {
  bestInterfaceAddress,
  farReaching,
  interfaceOfZone,
  pickLocalAddress,
} from "./local_address.ts";
import { bestRoute, type Route } from "./route.ts";
import {
  askSystem,
  type DiscoveryRuntime,
  interfacesOrNone,
  readFleeting,
  readRoutes,
  refusalError,
  type WayOut,
} from "./system_view.ts";

/**
 * The address to bind so that packets to a peer leave from it, and a mapping that is asked for
 * lasts. IPv4: the one that the system would send from. IPv6: on the interface toward the peer a
 * global one that stays, though the system would rather send from a temporary one (RFC 6724 §5
 * rule 7); a unique local one only where there is no global one.
 *
 * @param peer Canonical, with its zone where it is link-local.
 * @returns Undefined where no address of this host leads there.
 * @throws {NatError} `permission` where the runtime forbids every way to find out.
 *
 * @example
 * ```ts
 * import { sourceToward } from "./source_toward.ts";
 * import { nodeRuntime } from "../node.ts";
 * console.assert(await sourceToward(nodeRuntime(), "127.0.0.53") === "127.0.0.1");
 * ```
 */
export async function sourceToward(
  runtime: DiscoveryRuntime,
  peer: string,
): Promise<string | undefined> {
  if (isLoopback(peer)) return familyOf(peer) === 4 ? "127.0.0.1" : "::1";
  // A socket's word is enough where the system does not tell them (Android).
  const interfaces = runtime.addressToward ? interfacesOrNone(runtime) : runtime.interfaces();
  if (interfaces.some(({ address }) => address === peer)) return peer;
  return familyOf(peer) === 4
    ? (await wayToward(runtime, interfaces, peer))?.localAddress
    : await lastingToward(runtime, interfaces, peer);
}

async function lastingToward(
  runtime: DiscoveryRuntime,
  interfaces: readonly InterfaceAddress[],
  peer: string,
): Promise<string | undefined> {
  const zone = zoneOf(peer);
  const way = zone === undefined ? await wayToward(runtime, interfaces, peer) : undefined;
  const name = zone === undefined ? way?.interface : interfaceOfZone(interfaces, zone);
  if (name === undefined) return way?.localAddress;
  const { addresses: avoid } = await readFleeting(runtime, interfaces);
  return pickLocalAddress(interfaces, 6, { interface: name, avoid }) ?? way?.localAddress;
}

/**
 * The way to a peer: the system's word; where it cannot be asked, or was asked by a program that
 * may not run, the network that the peer is in, then the routing table.
 */
async function wayToward(
  runtime: DiscoveryRuntime,
  interfaces: readonly InterfaceAddress[],
  peer: string,
): Promise<WayOut | undefined> {
  const near = bestInterfaceAddress(interfaces, peer);
  const nearby = near &&
    { interface: near.name, gateway: undefined, localAddress: near.address };
  // A program is not run for a peer in one of this host's own networks.
  if (nearby && !runtime.addressToward) return nearby;
  const asked = await askSystem(runtime, peer, interfaces);
  if (asked !== "unknown") return asked ?? nearby;
  const { routes, refusal } = await readRoutes(runtime, [peer]);
  if (refusal) {
    const [only, second] = farReaching(interfaces, familyOf(peer));
    if (only && !second) {
      return { interface: only.name, gateway: undefined, localAddress: only.address };
    }
    throw refusalError(`Cannot tell from which address to reach ${peer}`, refusal);
  }
  const route = bestRoute(routes);
  if (!route) return undefined;
  return { ...wayOf(route, interfaces), gateway: route.gateway };
}

/** Where packets go by a route, and from which address, as far as that can be told. */
export function wayOf(
  route: Route,
  interfaces: readonly InterfaceAddress[],
  avoid: ReadonlySet<string> = new Set(),
): Pick<WayOut, "interface" | "localAddress"> {
  const { gateway, localAddress } = route;
  const { interface: name } = nameInterface(route, interfaces);
  if (localAddress !== undefined) return { interface: name, localAddress };
  if (gateway === undefined && name === undefined) {
    return { interface: undefined, localAddress: undefined };
  }
  const family = gateway === undefined ? route.family : familyOf(gateway);
  const own = name === undefined ? interfaces : interfaces.filter((one) => one.name === name);
  const near = gateway === undefined ? undefined : bestInterfaceAddress(own, gateway)?.address;
  if (family === 4 && near !== undefined) return { interface: name, localAddress: near };
  return { interface: name, localAddress: pickLocalAddress(own, family, { avoid }) ?? near };
}

/** The name of a route's interface; where none is told, by the host's address or by the zone. */
export function nameInterface(
  { interface: name, gateway, localAddress }: Route,
  interfaces: readonly InterfaceAddress[],
): Pick<Route, "interface"> {
  if (name !== undefined) return { interface: name };
  const own = interfaces.find(({ address }) => address === localAddress)?.name;
  const zone = gateway === undefined ? undefined : zoneOf(gateway);
  const ofZone = zone === undefined ? undefined : interfaceOfZone(interfaces, zone);
  return { interface: own ?? ofZone };
}
