/**
 * SSDP on the wire (UPnP Device Architecture 1.1 §1): searches, their answers and announcements, each
 * a datagram of header lines. Readers take what devices really send: names in any case, spaces
 * anywhere, line feeds alone, no blank line at the end. Writers write what the pickiest device
 * wants: upper-case names, CRLF, quotes around `ssdp:discover`.
 *
 * @module
 */
import { checkInteger } from "../check.ts";
import { classify } from "../cidr.ts";
import { dropUndefined } from "../defined.ts";
import { type Family, formatEndpoint, withoutZone } from "../ip.ts";
import type { Endpoint } from "../machine.ts";
import { checkFieldValue, readNumber } from "./header.ts";

/** SSDP's port, of devices and of their groups. */
export const SSDP_PORT = 1900;
/** The IPv4 group. */
export const SSDP_GROUP_V4 = "239.255.255.250";
/** The IPv6 group of the link. */
export const SSDP_GROUP_V6 = "ff02::c";
/** The IPv6 group of the site. */
export const SSDP_GROUP_V6_SITE = "ff05::c";

/** Where SSDP's multicast goes on a link. */
export function ssdpGroup(family: Family): string {
  return family === 4 ? SSDP_GROUP_V4 : SSDP_GROUP_V6;
}
/** Every device answers, once for itself and once for each service of it. */
export const SSDP_ALL = "ssdp:all";
/** Every device answers once. */
export const SSDP_ROOT_DEVICE = "upnp:rootdevice";
/** The longest delay that may be asked for, seconds; a device takes more for this. */
export const SSDP_MAX_MX = 5;

const MAX_BYTES = 8192;
const MAX_LINES = 64;
/** Of a value so many characters are kept. */
const MAX_VALUE = 2049;
const MAX_U31 = 0x7fff_ffff;

/** A message that was received. */
export interface SsdpMessage {
  /** A search, the answer to one, or an announcement: of a device there, gone, or about to change. */
  readonly kind: "search" | "response" | "alive" | "byebye" | "update";
  /** What is searched for or announced (ST or NT): a device or service type, `upnp:rootdevice`… */
  readonly target: string;
  /** Unique service name, `uuid:…::target`; `""` in a search, and where it was left out. */
  readonly usn: string;
  /** The URL of the description. */
  readonly location?: string;
  /** For how long the announcement counts, seconds. */
  readonly maxAgeSeconds?: number;
  /** Grows each time the device joins the network: its mappings may be gone (UDA 1.1). */
  readonly bootId?: number;
  /** What `bootId` is about to become. */
  readonly nextBootId?: number;
  /** Changes with the description. */
  readonly configId?: number;
  /** Where unicast searches are to go instead of 1900. */
  readonly searchPort?: number;
  /** The longest delay of an answer, seconds; a unicast search has none. */
  readonly mx?: number;
  /** Operating system, UPnP version and product of the sender. */
  readonly server?: string;
}

/** Why a datagram is no message. */
export type SsdpFault =
  /** Another protocol's, or of a method that SSDP does not have. */
  | "not-ssdp"
  /** More bytes or lines than any device has a reason to send. */
  | "too-long"
  /** An answer with another status than 200. */
  | "status"
  /** A search without `MAN: "ssdp:discover"`, quotes included. */
  | "man"
  /** Without ST or NT. */
  | "no-target"
  /** An announcement with another NTS than the three. */
  | "nts";

/** A search. */
export interface SsdpSearch {
  /** Where it goes, a group or a device. */
  readonly host: Endpoint;
  /** What is searched for. */
  readonly target: string;
  /** The longest delay of answers, 1…5 seconds; left out of a unicast search. */
  readonly mx?: number;
}

/** What a device says of itself, in answers and announcements. */
export interface SsdpAdvert {
  /** What it is: ST or NT. */
  readonly target: string;
  /** `uuid:…::target`. */
  readonly usn: string;
  /** The URL of its description; needed unless it goes. */
  readonly location?: string;
  /** Seconds; default 1800. */
  readonly maxAgeSeconds?: number;
  /** See {@linkcode SsdpMessage}. */
  readonly bootId?: number;
  /** In an update. */
  readonly nextBootId?: number;
  /** See {@linkcode SsdpMessage}. */
  readonly configId?: number;
  /** See {@linkcode SsdpMessage}. */
  readonly searchPort?: number;
  /** Operating system, UPnP version and product. */
  readonly server?: string;
}

type Field = readonly [name: string, value: string | number | undefined];

function encode(start: string, fields: readonly Field[]): Uint8Array {
  const lines = fields.filter(([, value]) => value !== undefined).map(([name, value]) => {
    // A field without a value has no space behind its colon (EXT).
    const text = checkFieldValue(name, String(value));
    return text === "" ? `${name}:` : `${name}: ${text}`;
  });
  return new TextEncoder().encode([start, ...lines, "", ""].join("\r\n"));
}

function hostField({ address, port }: Endpoint): string {
  return formatEndpoint({ address: withoutZone(address).toUpperCase(), port });
}

/**
 * A search (M-SEARCH).
 *
 * @throws {TypeError | RangeError} Where `target` is not one line, or `mx` not in 1…5.
 *
 * @example
 * ```ts
 * import { decodeSsdp, encodeSearch, SSDP_GROUP_V4, SSDP_PORT } from "@natkit/natkit/upnp";
 * const host = { address: SSDP_GROUP_V4, port: SSDP_PORT };
 * const message = decodeSsdp(encodeSearch({ host, target: "upnp:rootdevice", mx: 2 }));
 * console.assert(typeof message === "object" && message.kind === "search");
 * ```
 */
export function encodeSearch({ host, target, mx }: SsdpSearch): Uint8Array {
  return encode("M-SEARCH * HTTP/1.1", [
    ["HOST", hostField(host)],
    ["MAN", '"ssdp:discover"'],
    ["MX", mx === undefined ? undefined : checkInteger("mx", mx, 1, SSDP_MAX_MX)],
    ["ST", checkFieldValue("target", target)],
  ]);
}

function cacheControl({ maxAgeSeconds = 1800 }: SsdpAdvert): Field {
  return ["CACHE-CONTROL", `max-age=${checkInteger("maxAgeSeconds", maxAgeSeconds, 0, MAX_U31)}`];
}

function versionFields({ bootId, configId, searchPort }: SsdpAdvert): readonly Field[] {
  return [
    ["BOOTID.UPNP.ORG", bootId],
    ["CONFIGID.UPNP.ORG", configId],
    ["SEARCHPORT.UPNP.ORG", searchPort],
  ];
}

/**
 * The answer to a search.
 *
 * @param date The time of day as HTTP writes it, where the device knows it.
 * @throws {TypeError | RangeError} Where a field does not fit on its line.
 */
export function encodeSearchResponse(advert: SsdpAdvert, date?: string): Uint8Array {
  return encode("HTTP/1.1 200 OK", [
    cacheControl(advert),
    ["DATE", date],
    ["EXT", ""],
    ["LOCATION", advert.location],
    ["SERVER", advert.server],
    ["ST", advert.target],
    ["USN", advert.usn],
    ...versionFields(advert),
  ]);
}

/**
 * An announcement (NOTIFY).
 *
 * @param host The group it goes to.
 * @throws {TypeError | RangeError} Where a field does not fit on its line.
 */
export function encodeAdvert(
  kind: "alive" | "byebye" | "update",
  host: Endpoint,
  advert: SsdpAdvert,
): Uint8Array {
  const isGone = kind === "byebye";
  return encode("NOTIFY * HTTP/1.1", [
    ["HOST", hostField(host)],
    ...(kind === "alive" ? [cacheControl(advert)] : []),
    ["LOCATION", isGone ? undefined : advert.location],
    ["NT", advert.target],
    ["NTS", `ssdp:${kind}`],
    ["SERVER", kind === "alive" ? advert.server : undefined],
    ["USN", advert.usn],
    ...versionFields(advert),
    ["NEXTBOOTID.UPNP.ORG", kind === "update" ? advert.nextBootId : undefined],
  ]);
}

/**
 * Reads a datagram.
 *
 * @returns The message, or why it is none.
 */
export function decodeSsdp(data: Uint8Array): SsdpMessage | SsdpFault {
  if (data.length > MAX_BYTES) return "too-long";
  const text = new TextDecoder().decode(data).replace(/^\s+/, "");
  const lines = text.split(/\r?\n/, MAX_LINES + 1);
  if (lines.length > MAX_LINES) return "too-long";
  const start = lines[0]!.trim();
  const fields = new Map<string, string>();
  for (const line of lines.slice(1)) {
    const colon = line.indexOf(":");
    const name = line.slice(0, Math.max(0, colon)).trim().toUpperCase();
    const value = line.slice(colon + 1).trim();
    // A URL that is cut off is too long for one, see url.ts.
    if (name !== "" && !fields.has(name)) fields.set(name, value.slice(0, MAX_VALUE));
  }
  if (/^M-SEARCH\s+\*\s+HTTP\/1\.\d/i.test(start)) {
    if (fields.get("MAN") !== '"ssdp:discover"') return "man";
    return messageOf("search", fields, fields.get("ST"));
  }
  if (/^NOTIFY\s+\*\s+HTTP\/1\.\d/i.test(start)) {
    const nts = fields.get("NTS")?.toLowerCase();
    if (nts === "ssdp:alive") return messageOf("alive", fields, fields.get("NT"));
    if (nts === "ssdp:byebye") return messageOf("byebye", fields, fields.get("NT"));
    return nts === "ssdp:update" ? messageOf("update", fields, fields.get("NT")) : "nts";
  }
  const status = /^HTTP\/1\.\d\s+(\d{3})\b/i.exec(start)?.[1];
  if (status === undefined) return "not-ssdp";
  return status === "200" ? messageOf("response", fields, fields.get("ST")) : "status";
}

function messageOf(
  kind: SsdpMessage["kind"],
  fields: ReadonlyMap<string, string>,
  target: string | undefined,
): SsdpMessage | SsdpFault {
  if (!target) return "no-target";
  const number = (name: string, high: number = MAX_U31) => readNumber(fields.get(name), high);
  const maxAge = /max-age\s*=\s*"?(\d{1,10})/i.exec(fields.get("CACHE-CONTROL") ?? "")?.[1];
  const all = {
    location: fields.get("LOCATION") || undefined,
    maxAgeSeconds: readNumber(maxAge, MAX_U31),
    bootId: number("BOOTID.UPNP.ORG"),
    nextBootId: number("NEXTBOOTID.UPNP.ORG"),
    configId: number("CONFIGID.UPNP.ORG"),
    searchPort: number("SEARCHPORT.UPNP.ORG", 65535),
    mx: kind === "search" ? number("MX") : undefined,
    server: fields.get("SERVER") || undefined,
  };
  return { kind, target, usn: fields.get("USN") ?? "", ...dropUndefined(all) };
}

/** The device's part of a USN, `uuid:…`: all that it announces has it in common. */
export function deviceOf(usn: string): string {
  const end = usn.indexOf("::");
  return (end < 0 ? usn : usn.slice(0, end)).toLowerCase();
}

/** Whether the endpoint is one of a group: a search to it needs an MX. */
export function isGroup({ address }: Endpoint): boolean {
  return classify(address) === "multicast";
}
