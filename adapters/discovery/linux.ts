/**
 * Linux's routing tables as text: `/proc/net/route`, `/proc/net/ipv6_route`, `ip route`, and the
 * flags of IPv6 addresses.
 *
 * @module
 */
import { formatIPv4, getAddress16 } from "../../core/ip.ts";
import { type DefaultRoute, makeRoute, routeLines } from "./route.ts";

const RTF_UP = 0x1, RTF_GATEWAY = 0x2, RTF_REJECT = 0x200;

/** Whether the route is up, has a gateway, and is none that refuses. */
function isUsable(flags: number): boolean {
  return (flags & (RTF_UP | RTF_GATEWAY | RTF_REJECT)) === (RTF_UP | RTF_GATEWAY);
}

function hexBytes(text: string): Uint8Array {
  return Uint8Array.from(text.match(/../g) ?? [], (pair) => parseInt(pair, 16));
}

/**
 * The default routes of `/proc/net/route`.
 *
 * @param littleEndian The host's byte order: the kernel prints addresses as numbers in it.
 */
export function parseProcRoute(text: string, littleEndian: boolean = true): DefaultRoute[] {
  const routes: DefaultRoute[] = [];
  for (const line of routeLines(text)) {
    const [name, destination, gateway, flags, , , metric, mask] = line.split(/\s+/);
    if (destination !== "00000000" || mask !== "00000000") continue;
    if (!/^[0-9A-F]{8}$/i.test(gateway!) || !isUsable(parseInt(flags!, 16))) continue;
    const bytes = hexBytes(gateway!);
    if (littleEndian) bytes.reverse();
    const route = makeRoute(formatIPv4(bytes), name, Number(metric));
    if (route) routes.push(route);
  }
  return routes;
}

/** The default routes of `/proc/net/ipv6_route`. */
export function parseProcIpv6Route(text: string): DefaultRoute[] {
  const routes: DefaultRoute[] = [];
  for (const line of routeLines(text)) {
    const [destination, length, , sourceLength, gateway, metric, , , flags, name] = line.split(
      /\s+/,
    );
    if (length !== "00" || sourceLength !== "00" || !/^0{32}$/.test(destination!)) continue;
    if (!/^[0-9a-f]{32}$/i.test(gateway!) || !isUsable(parseInt(flags!, 16))) continue;
    const route = makeRoute(getAddress16(hexBytes(gateway!), 0), name, parseInt(metric!, 16));
    if (route) routes.push(route);
  }
  return routes;
}

/** The default routes of `ip route` and `ip -6 route`, multipath ones included. */
export function parseIpRoute(text: string): DefaultRoute[] {
  const routes: DefaultRoute[] = [];
  let metric = NaN;
  for (const line of routeLines(text)) {
    const isNextHop = /^\s+nexthop\s/.test(line);
    if (!isNextHop) metric = /^default\b/.test(line) ? Number(word(line, "metric") ?? 0) : NaN;
    const gateway = word(line, "via(?: inet6?)?");
    if (Number.isNaN(metric) || gateway === undefined || /\b(dead|linkdown)\b/.test(line)) continue;
    const route = makeRoute(gateway, word(line, "dev"), metric);
    if (route) routes.push(route);
  }
  return routes;
}

/** The word after `key`. */
function word(line: string, key: string): string | undefined {
  return new RegExp(`\\s${key} (\\S+)`).exec(line)?.[1];
}

const IFA_F_TEMPORARY = 0x01, IFA_F_DEPRECATED = 0x20, IFA_F_TENTATIVE = 0x40;

/**
 * The addresses in `/proc/net/if_inet6` that are a poor choice for a mapping that shall last:
 * temporary (RFC 8981), deprecated and tentative ones.
 */
export function parseFleetingAddresses(text: string): Set<string> {
  const fleeting = new Set<string>();
  for (const line of routeLines(text)) {
    const [address, , , , flags] = line.trim().split(/\s+/);
    if (!/^[0-9a-f]{32}$/i.test(address!)) continue;
    if (parseInt(flags!, 16) & (IFA_F_TEMPORARY | IFA_F_DEPRECATED | IFA_F_TENTATIVE)) {
      fleeting.add(getAddress16(hexBytes(address!), 0));
    }
  }
  return fleeting;
}
