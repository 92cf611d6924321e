/**
 * Routes, in the form into which the parsers of every system bring them, and which of them comes
 * first.
 *
 * A parser gives those routes that lead to one address, whatever their width: beside the default
 * route a host may have two halves of it (`0.0.0.0/1` and `128.0.0.0/1`, OpenVPN's way around the
 * route that it found) or the numbers of IPv6 in a few parts.
 *
 * @module
 */
import { contains, parseCidr } from "../../core/cidr.ts";
import { canonicalAddress, type Family, familyOf } from "../../core/ip.ts";

/** A route that leads to the address that was asked for. */
export interface Route {
  /** The family of its destination. */
  readonly family: Family;
  /** The length of its destination's prefix: 0 is a default route. */
  readonly prefixLength: number;
  /**
   * The gateway: canonical, with its zone where it is link-local. Undefined where the interface
   * itself leads there: a tunnel, or the peer's own network.
   */
  readonly gateway: string | undefined;
  /** The interface's name, where the system tells it. */
  readonly interface: string | undefined;
  /** Lower comes first; only comparable within a family. */
  readonly metric: number;
  /** The host's address on that interface, where the routing table tells it. */
  readonly localAddress?: string;
}

/** A route through a gateway. */
export type GatewayRoute = Route & { readonly gateway: string };

/**
 * Addresses that stand for the internet as a whole: a root name server's, since nobody has a route
 * of its own to it. Nothing is ever sent there.
 */
export const PUBLIC_ADDRESS: Readonly<Record<Family, string>> = {
  4: "198.41.0.4",
  6: "2001:503:ba3e::2:30",
};

/** How many lines of a routing table are looked at: a router may carry a million. */
export const MAX_ROUTE_LINES = 100_000;

/** The lines of a routing table, without those past the bound. */
export function* routeLines(text: string): Generator<string> {
  let start = 0;
  for (let count = 0; start < text.length && count < MAX_ROUTE_LINES; count++) {
    const end = text.indexOf("\n", start);
    yield text.slice(start, end < 0 ? text.length : end).trimEnd();
    if (end < 0) return;
    start = end + 1;
  }
}

/** The length of a prefix (`10.0.0.0/8`, a bare address) that holds the address, or undefined. */
export function prefixToward(prefix: string, toward: string): number | undefined {
  const cidr = parseCidr(prefix);
  return cidr && contains(cidr, toward) ? cidr.prefixLength : undefined;
}

/**
 * A gateway's canonical address, or undefined for what is none that one can send to (`On-link`,
 * `link#4`, the wildcard, a tunnel's `fe80::`).
 *
 * @param zone What a link-local gateway without a zone gets for one.
 */
export function gatewayAddress(text: string, zone: string | undefined): string | undefined {
  const withZone = text.includes("%") || zone === undefined ? text : `${text}%${zone}`;
  const address = canonicalAddress(text.includes(":") ? withZone : text);
  return address === undefined || address === "0.0.0.0" || /^(fe80)?::(%|$)/.test(address)
    ? undefined
    : address;
}

/**
 * A route as a parser found it.
 *
 * @param gateway As the system spells it.
 * @param zone What a link-local gateway without a zone gets for one.
 */
export function makeRoute(
  family: Family,
  prefixLength: number,
  gateway: string,
  name: string | undefined,
  metric: number,
  zone: string | undefined = name,
): Route {
  return {
    family,
    prefixLength,
    gateway: gatewayAddress(gateway, zone),
    interface: name,
    metric: Number.isFinite(metric) ? metric : 0,
  };
}

/** The route that the system takes by its table: the longest prefix, of those the lowest metric. */
export function bestRoute<R extends Route>(routes: readonly R[]): R | undefined {
  let best: R | undefined;
  for (const route of routes) if (!best || comparePrecedence(route, best) < 0) best = route;
  return best;
}

function comparePrecedence(a: Route, b: Route): number {
  return b.prefixLength - a.prefixLength || a.metric - b.metric;
}

/**
 * Names of interfaces that lead into a tunnel or to containers and virtual machines of this very
 * host. `br-` alone is no sign: OpenWrt's LAN is `br-lan`, Docker's are `br-` and twelve digits.
 */
const VIRTUAL_NAMES: readonly RegExp[] = [
  /^(u?tun|tap|wg|ppp|ipsec|vti|gre|sit|zt|feth|nordlynx|proton|mullvad|gpd|cscotun)\d*/i,
  /^(docker|podman|veth|virbr|vmnet|vboxnet|lxc|lxd|incusbr|cni|flannel|cali|kube|dummy)/i,
  /^(awdl|llw|bridge1\d\d|br-[0-9a-f]{12}$)/,
  /tailscale|wireguard|zerotier|openvpn|\bvpn\b|\bTAP-|vEthernet|virtualbox|vmware|hyper-v/i,
];

/** Whether an interface by its name is a tunnel or a virtual one, and so hardly the way out. */
export function isVirtualInterface(name: string): boolean {
  return VIRTUAL_NAMES.some((pattern) => pattern.test(name));
}

/**
 * The routes that have a gateway, in the order in which these deserve a try: real interfaces before
 * virtual ones (those stay: on some hosts there is no other), IPv4 before IPv6, then as the system
 * would take them; each gateway once.
 */
export function rankRoutes<R extends Route>(routes: readonly R[]): (R & GatewayRoute)[] {
  const isVirtual = ({ interface: name }: Route) =>
    Number(name !== undefined && isVirtualInterface(name));
  const seen = new Set<string>();
  return routes.filter((route): route is R & GatewayRoute => route.gateway !== undefined)
    .sort((a, b) =>
      isVirtual(a) - isVirtual(b) || familyOf(a.gateway) - familyOf(b.gateway) ||
      comparePrecedence(a, b)
    )
    .filter(({ gateway }) => !seen.has(gateway) && seen.add(gateway));
}
