/**
 * Default routes, in the form into which the parsers of every system bring them, and which of
 * them comes first.
 *
 * @module
 */
import { canonicalAddress, type Family, familyOf } from "../../core/ip.ts";

/** A default route through a gateway. */
export interface DefaultRoute {
  /** The gateway: canonical, with its zone where it is link-local. */
  readonly gateway: string;
  /** The interface's name, where the system tells it. */
  readonly interface: string | undefined;
  /** Lower comes first; only comparable within a family. */
  readonly metric: number;
  /** The host's address on that interface, where the routing table tells it (Windows). */
  readonly localAddress?: string;
}

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

/**
 * A route, or undefined where the gateway is no address that one can send to (`On-link`,
 * `link#4`, the wildcard, a tunnel's `fe80::`).
 *
 * @param zone What a link-local gateway without a zone gets for one.
 */
export function makeRoute(
  gateway: string,
  name: string | undefined,
  metric: number,
  zone: string | undefined = name,
): DefaultRoute | undefined {
  const withZone = gateway.includes("%") || zone === undefined ? gateway : `${gateway}%${zone}`;
  const address = canonicalAddress(gateway.includes(":") ? withZone : gateway);
  if (address === undefined || address === "0.0.0.0" || /^(fe80)?::(%|$)/.test(address)) {
    return undefined;
  }
  return { gateway: address, interface: name, metric: Number.isFinite(metric) ? metric : 0 };
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
 * The routes in the order in which their gateways deserve a try: real interfaces before virtual
 * ones (those stay: on some hosts there is no other), IPv4 before IPv6, then by metric; each
 * gateway once.
 */
export function rankRoutes<R extends DefaultRoute>(routes: readonly R[]): R[] {
  const family = ({ gateway }: R): Family => familyOf(gateway);
  const isVirtual = ({ interface: name }: R) =>
    Number(name !== undefined && isVirtualInterface(name));
  const seen = new Set<string>();
  return [...routes]
    .sort((a, b) => isVirtual(a) - isVirtual(b) || family(a) - family(b) || a.metric - b.metric)
    .filter(({ gateway }) => !seen.has(gateway) && seen.add(gateway));
}
