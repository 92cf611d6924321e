/**
 * Linux's routing tables as text: `/proc/net/route`, `/proc/net/ipv6_route`, `ip route`, and the
 * flags of IPv6 addresses.
 *
 * The files know nothing of policy rules, by which wg-quick sends everything to a table of its own:
 * there `ip route get` tells what the system would do.
 *
 * @module
 */
import { canonicalAddress, familyOf, formatIPv4, getAddress16, parseIp } from "../../core/ip.ts";
import { gatewayAddress, makeRoute, prefixToward, type Route, routeLines } from "./route.ts";

const RTF_UP = 0x1, RTF_REJECT = 0x200;

/** Whether the route is up and is none that refuses. */
function isUsable(flags: number): boolean {
  return (flags & (RTF_UP | RTF_REJECT)) === RTF_UP;
}

function hexBytes(text: string): Uint8Array {
  return Uint8Array.from(text.match(/../g) ?? [], (pair) => parseInt(pair, 16));
}

function toHex(bytes: Uint8Array): string {
  return [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

function countBits(mask: number): number {
  let bits = 0;
  for (let rest = mask; rest !== 0; rest &= rest - 1) bits++;
  return bits;
}

/**
 * The routes of `/proc/net/route` that lead to an address.
 *
 * @param littleEndian The host's byte order: the kernel prints addresses as numbers in it.
 */
export function parseProcRoute(
  text: string,
  toward: string,
  littleEndian: boolean = true,
): Route[] {
  const ordered = (bytes: Uint8Array) => littleEndian ? bytes.reverse() : bytes;
  const target = parseInt(toHex(ordered(parseIp(toward)!)), 16);
  const routes: Route[] = [];
  for (const line of routeLines(text)) {
    const [name, destination, gateway, flags, , , metric, mask] = line.split(/\s+/);
    if (![destination, gateway, mask].every((number) => /^[0-9A-F]{8}$/i.test(number ?? ""))) {
      continue;
    }
    const bits = parseInt(mask!, 16);
    if ((target & bits) !== (parseInt(destination!, 16) | 0)) continue;
    if (!isUsable(parseInt(flags!, 16))) continue;
    const address = formatIPv4(ordered(hexBytes(gateway!)));
    routes.push(makeRoute(4, countBits(bits), address, name, Number(metric)));
  }
  return routes;
}

/** The routes of `/proc/net/ipv6_route` that lead to an address. */
export function parseProcIpv6Route(text: string, toward: string): Route[] {
  const target = toHex(parseIp(toward)!);
  const routes: Route[] = [];
  for (const line of routeLines(text)) {
    const [destination, length, , sourceLength, gateway, metric, , , flags, name] = line.split(
      /\s+/,
    );
    if (sourceLength !== "00" || name === undefined) continue;
    if (!/^[0-9a-f]{32}$/i.test(destination!) || !/^[0-9a-f]{32}$/i.test(gateway!)) continue;
    const bits = parseInt(length!, 16);
    if (!holds(destination!, bits, target) || !isUsable(parseInt(flags!, 16))) continue;
    const address = getAddress16(hexBytes(gateway!), 0);
    routes.push(makeRoute(6, bits, address, name, parseInt(metric!, 16)));
  }
  return routes;
}

/** Whether the first bits of two addresses in hexadecimal are the same. */
function holds(prefix: string, bits: number, address: string): boolean {
  const whole = bits >> 2, rest = bits & 3;
  if (prefix.slice(0, whole) !== address.slice(0, whole)) return false;
  const differing = parseInt(prefix[whole] ?? "0", 16) ^ parseInt(address[whole] ?? "0", 16);
  return rest === 0 || differing >> (4 - rest) === 0;
}

/** The routes of `ip route` and `ip -6 route` that lead to an address, multipath ones included. */
export function parseIpRoute(text: string, toward: string): Route[] {
  const family = familyOf(toward);
  const routes: Route[] = [];
  let prefixLength: number | undefined;
  let metric = 0;
  for (const line of routeLines(text)) {
    const isNextHop = /^\s+nexthop\s/.test(line);
    if (!isNextHop) {
      const destination = line.split(" ", 1)[0]!;
      prefixLength = destination === "default" ? 0 : prefixToward(destination, toward);
      metric = Number(word(line, "metric") ?? 0);
    }
    const name = word(line, "dev");
    if (prefixLength === undefined || name === undefined) continue;
    if (/\b(dead|linkdown)\b/.test(line)) continue;
    const gateway = word(line, "via(?: inet6?)?") ?? "";
    routes.push(makeRoute(family, prefixLength, gateway, name, metric));
  }
  return routes;
}

/** Where the system would send, and from where. */
export interface RouteAnswer {
  /** The interface's name. */
  readonly interface: string;
  /** The gateway on the way, where there is one. */
  readonly gateway: string | undefined;
  /** This host's address that packets leave from. */
  readonly localAddress: string | undefined;
}

/** The answer of `ip route get`. */
export function parseIpRouteGet(text: string): RouteAnswer | undefined {
  const line = text.split("\n", 1)[0]!;
  const name = word(line, "dev");
  if (name === undefined) return undefined;
  const source = word(line, "src");
  return {
    interface: name,
    gateway: gatewayAddress(word(line, "via(?: inet6?)?") ?? "", name),
    localAddress: source === undefined
      ? undefined
      : canonicalAddress(source.startsWith("fe80:") ? `${source}%${name}` : source),
  };
}

/** The word after `key`. */
function word(line: string, key: string): string | undefined {
  return new RegExp(`\\s${key} (\\S+)`).exec(line)?.[1];
}

const IFA_F_TEMPORARY = 0x01, IFA_F_DADFAILED = 0x08;
const IFA_F_DEPRECATED = 0x20, IFA_F_TENTATIVE = 0x40;
const IFA_F_FLEETING = IFA_F_TEMPORARY | IFA_F_DADFAILED | IFA_F_DEPRECATED | IFA_F_TENTATIVE;

/**
 * The addresses in `/proc/net/if_inet6` that are a poor choice for a mapping that shall last:
 * temporary (RFC 8981), deprecated, tentative and duplicate ones.
 */
export function parseFleetingAddresses(text: string): Set<string> {
  const fleeting = new Set<string>();
  for (const line of routeLines(text)) {
    const [address, , , , flags] = line.trim().split(/\s+/);
    if (!/^[0-9a-f]{32}$/i.test(address!)) continue;
    if (parseInt(flags!, 16) & IFA_F_FLEETING) fleeting.add(getAddress16(hexBytes(address!), 0));
  }
  return fleeting;
}

/** The same of `ip -6 addr`. */
export function parseFleetingIpAddr(text: string): Set<string> {
  const fleeting = new Set<string>();
  for (const line of routeLines(text)) {
    const flags = /^\s+inet6 ([^/\s]+)\S* .*\b(temporary|deprecated|tentative|dadfailed)\b/;
    const address = canonicalAddress(flags.exec(line)?.[1] ?? "");
    if (address !== undefined) fleeting.add(address);
  }
  return fleeting;
}
