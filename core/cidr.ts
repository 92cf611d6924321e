/**
 * Address prefixes, and what kind of address an address is.
 *
 * @module
 */
import type { Endpoint } from "./machine.ts";
import { canonicalAddress, type Family, familyOf, parseIp, putAddress16 } from "./ip.ts";

/** An address prefix. */
export interface Cidr {
  /** Canonical text with the bits after the prefix cleared. */
  readonly address: string;
  /** 0…32 for IPv4, 0…128 for IPv6. */
  readonly prefixLength: number;
  /** The family of `address`. */
  readonly family: Family;
}

/**
 * Reads `address/length` (a bare address is a prefix of full length), or undefined where it is
 * neither.
 *
 * @example
 * ```ts
 * import { contains, parseCidr } from "@natkit/natkit";
 * const lan = parseCidr("192.168.1.7/24")!;
 * console.assert(lan.address === "192.168.1.0");
 * console.assert(contains(lan, "192.168.1.200") && !contains(lan, "192.168.2.1"));
 * ```
 */
export function parseCidr(text: string): Cidr | undefined {
  const slash = text.indexOf("/");
  const address = canonicalAddress(slash < 0 ? text : text.slice(0, slash));
  if (address === undefined) return undefined;
  const family = familyOf(address);
  const bits = family === 4 ? 32 : 128;
  const length = slash < 0 ? String(bits) : text.slice(slash + 1);
  if (!/^[0-9]{1,3}$/.test(length) || Number(length) > bits) return undefined;
  return { address: clearHostBits(address, Number(length)), prefixLength: Number(length), family };
}

/** `address` with all but its first `prefixLength` bits cleared. */
function clearHostBits(address: string, prefixLength: number): string {
  const bytes = parseIp(address)!;
  for (let i = 0; i < bytes.length; i++) {
    const kept = Math.min(8, Math.max(0, prefixLength - 8 * i));
    bytes[i]! &= (0xff << (8 - kept)) & 0xff;
  }
  return bytes.length === 4 ? bytes.join(".") : canonicalAddress(hexGroups(bytes))!;
}

function hexGroups(bytes: Uint8Array): string {
  const groups: string[] = [];
  for (let i = 0; i < 16; i += 2) groups.push(((bytes[i]! << 8) | bytes[i + 1]!).toString(16));
  return groups.join(":");
}

/** Whether a canonical address lies in the prefix; never true across families. */
export function contains(cidr: Cidr, address: string): boolean {
  if (familyOf(address) !== cidr.family) return false;
  const a = parseIp(cidr.address)!, b = parseIp(address);
  if (!b) return false;
  const whole = cidr.prefixLength >> 3, rest = cidr.prefixLength & 7;
  for (let i = 0; i < whole; i++) if (a[i] !== b[i]) return false;
  return rest === 0 || ((a[whole]! ^ b[whole]!) >>> (8 - rest)) === 0;
}

/** What kind of address it is, by the registries of RFC 6890 and RFC 4291. */
export type AddressKind =
  | "wildcard"
  | "loopback"
  | "link-local"
  | "private"
  | "shared"
  | "unique-local"
  | "multicast"
  | "broadcast"
  | "documentation"
  | "reserved"
  | "global";

// The first match counts, so the narrower prefix stands first. A bundle that needs none drops it.
const KINDS: readonly (readonly [Cidr, AddressKind])[] = /* @__PURE__ */ ([
  ["0.0.0.0/32", "wildcard"],
  ["0.0.0.0/8", "reserved"],
  ["10.0.0.0/8", "private"],
  ["100.64.0.0/10", "shared"],
  ["127.0.0.0/8", "loopback"],
  ["169.254.0.0/16", "link-local"],
  ["172.16.0.0/12", "private"],
  // PCP's anycast address (RFC 7723) is routable although its block is special.
  ["192.0.0.9/32", "global"],
  ["192.0.0.0/24", "reserved"],
  ["192.0.2.0/24", "documentation"],
  ["192.168.0.0/16", "private"],
  ["198.18.0.0/15", "reserved"],
  ["198.51.100.0/24", "documentation"],
  ["203.0.113.0/24", "documentation"],
  ["224.0.0.0/4", "multicast"],
  ["255.255.255.255/32", "broadcast"],
  ["240.0.0.0/4", "reserved"],
  ["::/128", "wildcard"],
  ["::1/128", "loopback"],
  ["fe80::/10", "link-local"],
  ["fc00::/7", "unique-local"],
  ["ff00::/8", "multicast"],
  ["2001:1::1/128", "global"],
  ["2001:db8::/32", "documentation"],
  ["64:ff9b::/96", "global"],
  ["2000::/3", "global"],
] as const).map(([text, kind]) => [parseCidr(text)!, kind]);

/**
 * What kind of address a canonical address is.
 *
 * @example
 * ```ts
 * import { classify } from "@natkit/natkit";
 * console.assert(classify("100.64.0.1") === "shared");
 * console.assert(classify("fd00::1") === "unique-local");
 * ```
 */
export function classify(address: string): AddressKind {
  for (const [cidr, kind] of KINDS) if (contains(cidr, address)) return kind;
  return familyOf(address) === 4 ? "global" : "reserved";
}

/** Whether the address is `0.0.0.0` or `::`. */
export function isWildcard(address: string): boolean {
  return classify(address) === "wildcard";
}

/** Whether the address is in 127/8 or is `::1`. */
export function isLoopback(address: string): boolean {
  return classify(address) === "loopback";
}

/**
 * Whether what comes from `from` may be a gateway's word. The address tells; on loopback, which all
 * simulated gateways of a host share, the port does, too.
 */
export function mayBeOf(gateway: Endpoint, from: Endpoint): boolean {
  return gateway.address === from.address &&
    (gateway.port === from.port || !isLoopback(from.address));
}

/** Whether the address is RFC 1918's or a unique local one (RFC 4193). */
export function isPrivate(address: string): boolean {
  const kind = classify(address);
  return kind === "private" || kind === "unique-local";
}

/**
 * Whether an external address tells of another NAT above the gateway. The
 * documentation prefixes pass: they stand for the public Internet in tests.
 */
export function isBehindAnotherNat(externalAddress: string): boolean {
  switch (classify(externalAddress)) {
    case "global":
    case "documentation":
      return false;
    default:
      return true;
  }
}

/** The prefix of one address: `/32` or `/128`. */
export function hostPrefix(address: string): Cidr {
  const family = familyOf(address);
  return { address, prefixLength: family === 4 ? 32 : 128, family };
}

/** The prefix as text. */
export function formatCidr(cidr: Cidr): string {
  return `${cidr.address}/${cidr.prefixLength}`;
}

/** The prefix's address as 16 bytes and its length on that scale (IPv4: + 96, PCP-C-49). */
export function cidrAs128(cidr: Cidr): { bytes: Uint8Array; prefixLength: number } {
  const bytes = new Uint8Array(16);
  putAddress16(bytes, 0, cidr.address);
  return { bytes, prefixLength: cidr.family === 4 ? cidr.prefixLength + 96 : cidr.prefixLength };
}
