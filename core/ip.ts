/**
 * IP addresses: canonical text (RFC 5952) and the 16 bytes in which PCP carries them. Text is what
 * runtimes hand us and what applications read, so text is what travels inside natkit; it is
 * canonicalised once at the door and compared with `===` from then on.
 *
 * Canonical: IPv4 and IPv4-mapped IPv6 as a dotted quad, IPv6 lower case with the longest run of
 * zeros shortened, a `%zone` only on a link-local address.
 *
 * @module
 */
import { putU16, putU32, u16, u32 } from "./bytes.ts";

const DOT = 0x2e;
const ZERO = 0x30;

/** 4 or 6. */
export type Family = 4 | 6;

/** Which family a canonical address belongs to. */
export function familyOf(address: string): Family {
  return address.includes(":") ? 6 : 4;
}

/** The canonical text of the family's "any" address: `0.0.0.0` or `::`. */
export function anyAddress(family: Family): string {
  return family === 4 ? "0.0.0.0" : "::";
}

/**
 * The 4 or 16 bytes of an address in any textual form (a zone is left out), or undefined where it
 * is not one. IPv4-mapped addresses give 16 bytes.
 */
export function parseIp(text: string): Uint8Array | undefined {
  return text.includes(":") ? parseIPv6(text) : parseIPv4(text);
}

function parseIPv4(text: string): Uint8Array | undefined {
  const bytes = new Uint8Array(4);
  return putIPv4(bytes, 0, text) ? bytes : undefined;
}

/** The dotted quad read last: servers write the same external address into every answer. */
let lastQuad = { text: "0.0.0.0", number: 0 };

/** Writes the 4 bytes of a dotted quad; false where it is not one. */
function putIPv4(bytes: Uint8Array, offset: number, text: string): boolean {
  if (text !== lastQuad.text) {
    const number = parseQuad(text);
    if (number === undefined) return false;
    lastQuad = { text, number };
  }
  putU32(bytes, offset, lastQuad.number);
  return true;
}

/** The 32 bits of a dotted quad. By hand: a pattern costs ten times as much. */
function parseQuad(text: string): number | undefined {
  let parts = 0, digits = 0, value = 0, number = 0;
  for (let i = 0; i <= text.length; i++) {
    const code = i < text.length ? text.charCodeAt(i) : DOT;
    if (code === DOT) {
      if (digits === 0 || ++parts > 4) return undefined;
      number = (number << 8) | value;
      digits = value = 0;
    } else {
      // A leading zero is octal to some parsers and decimal to others: refuse it.
      if (code < ZERO || code > ZERO + 9 || (digits > 0 && value === 0)) return undefined;
      value = value * 10 + code - ZERO;
      digits++;
      if (value > 255) return undefined;
    }
  }
  return parts === 4 ? number : undefined;
}

function parseIPv6(text: string): Uint8Array | undefined {
  const percent = text.indexOf("%");
  if (percent === text.length - 1) return undefined;
  let body = percent < 0 ? text : text.slice(0, percent);
  if (body.includes(".")) {
    const at = body.lastIndexOf(":") + 1;
    const quad = parseQuad(body.slice(at));
    if (quad === undefined) return undefined;
    body = `${body.slice(0, at)}${(quad >>> 16).toString(16)}:${(quad & 0xffff).toString(16)}`;
  }
  const [head, rest, ...more] = body.split("::").map((half) => half === "" ? [] : half.split(":"));
  const missing = 8 - head!.length - (rest?.length ?? 0);
  if (more.length > 0 || (rest ? missing < 1 : missing !== 0)) return undefined;
  const groups = [...head!, ...new Array<string>(missing).fill("0"), ...rest ?? []];
  if (!groups.every((group) => /^[0-9a-f]{1,4}$/i.test(group))) return undefined;
  const bytes = new Uint8Array(16);
  groups.forEach((group, i) => putU16(bytes, 2 * i, parseInt(group, 16)));
  return bytes;
}

/** Whether the 16 bytes at `offset` are `::ffff:0:0/96`; all 96 bits are looked at (PCP-C-03). */
export function isMapped(bytes: Uint8Array, offset: number = 0): boolean {
  for (let i = 0; i < 10; i++) if (bytes[offset + i] !== 0) return false;
  return bytes[offset + 10] === 0xff && bytes[offset + 11] === 0xff;
}

/** Texts written last, by a hash of the address. */
const quads: { readonly number: number; readonly text: string }[] = [];

/**
 * Dotted quad of the 4 bytes at `offset`. Packets carry the same few addresses over and over, so
 * texts are remembered: equal ones are then one string, which is compared at a glance.
 */
export function formatIPv4(bytes: Uint8Array, offset: number = 0): string {
  const number = u32(bytes, offset) | 0;
  const slot = (number ^ (number >>> 8) ^ (number >>> 16)) & 63;
  const quad = quads[slot];
  if (quad?.number === number) return quad.text;
  const text = `${number >>> 24}.${(number >>> 16) & 255}.${(number >>> 8) & 255}.${number & 255}`;
  quads[slot] = { number, text };
  return text;
}

function formatIPv6(bytes: Uint8Array, offset: number): string {
  const words = Array.from({ length: 8 }, (_, i) => u16(bytes, offset + 2 * i));
  let longest = 0, length = 1;
  for (let i = 0; i < 8; i++) {
    let end = i;
    while (words[end] === 0) end++;
    if (end - i > length) [longest, length] = [i, end - i];
  }
  const text = (some: readonly number[]) => some.map((word) => word.toString(16)).join(":");
  if (length === 1) return text(words);
  return `${text(words.slice(0, longest))}::${text(words.slice(longest + length))}`;
}

/** Canonical text of the 16 bytes at `offset`; a v4-mapped address comes out as a dotted quad. */
export function getAddress16(bytes: Uint8Array, offset: number): string {
  return isMapped(bytes, offset) ? formatIPv4(bytes, offset + 12) : formatIPv6(bytes, offset);
}

/**
 * Writes a canonical address as 16 bytes, IPv4 as `::ffff:a.b.c.d` (so `0.0.0.0` and `::` stay
 * different values, PCP-C-03). A zone is left out.
 *
 * @throws {TypeError} Where `address` is no IP address.
 */
export function putAddress16(bytes: Uint8Array, offset: number, address: string): void {
  const long = address.includes(":") ? parseIPv6(address) : undefined;
  if (long) return bytes.set(long, offset);
  for (let i = 0; i < 10; i++) bytes[offset + i] = 0;
  bytes[offset + 10] = bytes[offset + 11] = 0xff;
  if (putIPv4(bytes, offset + 12, address)) return;
  throw new TypeError(`'address' must be an IP address: current value is "${address}"`);
}

/**
 * The canonical text of an address in any form, or undefined where it is not one.
 *
 * @example
 * ```ts
 * import { canonicalAddress } from "@natkit/natkit";
 * console.assert(canonicalAddress("2001:DB8:0:0:0:0:0:1") === "2001:db8::1");
 * console.assert(canonicalAddress("::ffff:192.0.2.1") === "192.0.2.1");
 * console.assert(canonicalAddress("192.0.2.256") === undefined);
 * ```
 */
export function canonicalAddress(text: string): string | undefined {
  const bytes = parseIp(text);
  if (!bytes) return undefined;
  if (bytes.length === 4) return formatIPv4(bytes);
  const canonical = getAddress16(bytes, 0);
  const percent = text.indexOf("%");
  const isLinkLocal = bytes[0] === 0xfe && (bytes[1]! & 0xc0) === 0x80;
  return percent >= 0 && isLinkLocal ? canonical + text.slice(percent) : canonical;
}

/** The address without its zone. */
export function withoutZone(address: string): string {
  const percent = address.indexOf("%");
  return percent < 0 ? address : address.slice(0, percent);
}

/** The zone of an address, or undefined. */
export function zoneOf(address: string): string | undefined {
  const percent = address.indexOf("%");
  return percent < 0 ? undefined : address.slice(percent + 1);
}

/** Whether two endpoints, in canonical text, are the same one, or both are undefined. */
export function isSameEndpoint(
  a: { readonly address: string; readonly port: number } | undefined,
  b: { readonly address: string; readonly port: number } | undefined,
): boolean {
  return a?.port === b?.port && a?.address === b?.address;
}

/** `address:port`, an IPv6 address in brackets. */
export function formatEndpoint(endpoint: { address: string; port: number }): string {
  return endpoint.address.includes(":")
    ? `[${endpoint.address}]:${endpoint.port}`
    : `${endpoint.address}:${endpoint.port}`;
}

/**
 * Reads `ADDRESS`, `ADDRESS:PORT`, `IPV6`, `[IPV6]` or `[IPV6%zone]:PORT` into canonical form;
 * undefined where it is not one of them or the port is not in 0..65535.
 */
export function parseEndpoint(
  text: string,
  defaultPort: number,
): { address: string; port: number } | undefined {
  const match = /^\[([^\]]*:[^\]]*)\](?::([0-9]{1,5}))?$/.exec(text) ??
    /^([^:[\]]+)(?::([0-9]{1,5}))?$/.exec(text) ??
    /^([^[\]]*:[^[\]]*:[^[\]]*)$/.exec(text);
  const address = match ? canonicalAddress(match[1]!) : undefined;
  const port = match?.[2] === undefined ? defaultPort : Number(match[2]);
  return address === undefined || port > 65535 ? undefined : { address, port };
}
