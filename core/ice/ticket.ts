/**
 * What two peers tell each other before they can talk: the public half of a rendezvous. It travels
 * out of band, as a ticket of one line, as bytes, or as the `a=` lines of SDP that other ICE stacks
 * read and write (RFC 8839).
 *
 * Whoever writes a ticket decides where this host's checks go. So a ticket names few endpoints and
 * none that is not one host's, and no endpoint gets more than so many checks.
 *
 * @module
 */
import { copyBytes, putU16, putU32, toHex, u16, u32 } from "../bytes.ts";
import { show } from "../check.ts";
import { canonicalAddress, familyOf, formatEndpoint, parseIp, withoutZone } from "../ip.ts";
import type { Transport } from "../mapping.ts";
import type { RandomSource } from "../random.ts";
import { fingerprintOf } from "../stun/integrity.ts";
import {
  type Candidate,
  type CandidateType,
  formatCandidate,
  parseCandidate,
  type TcpType,
  whyUnreachable,
} from "./candidate.ts";

/**
 * What a NAT's mappings depend on (RFC 4787 §4.1), as far as several servers showed it; `"unknown"`
 * where one or none answered.
 */
export type MappingBehaviour =
  | "unknown"
  | "endpoint-independent"
  | "address-dependent"
  | "address-and-port-dependent";

/** What two natkits tell each other beyond ICE. */
export interface NatHint {
  /** What the NAT's mappings depend on. */
  readonly mapping: MappingBehaviour;
  /** The external ports that one socket got, in the order of time; the next one may follow. */
  readonly ports: readonly number[];
}

/** The public half: what the peer is given. */
export interface PublicRendezvous {
  /** User fragment, 4…256 characters of base64's alphabet. */
  readonly ufrag: string;
  /** Password, 22…256 characters of base64's alphabet. */
  readonly pwd: string;
  /** Where we may be reached, best first. */
  readonly candidates: readonly Candidate[];
  /** On the tickets of natkit. */
  readonly hint?: NatHint;
  /** The pace of checks that is wished for, milliseconds (`a=ice-pacing`). */
  readonly pacingMs?: number;
}

/** The private half: what decides a conflict about roles. */
export interface PrivateRendezvous {
  /** 64 bits as 16 hexadecimal digits. */
  readonly tieBreaker: string;
}

/** Both halves. */
export interface Rendezvous {
  /** For the peer. */
  readonly public: PublicRendezvous;
  /** For oneself. */
  readonly private: PrivateRendezvous;
}

/** The stable code of a {@linkcode TicketError}. */
export type TicketErrorCode =
  /** It is no ticket at all. */
  | "not-a-ticket"
  /** It is one of another version of the format. */
  | "other-version"
  /** Its end is missing. */
  | "truncated"
  /** Something in it was changed on the way. */
  | "damaged"
  /** It names more endpoints than anybody needs. */
  | "too-many-endpoints"
  /** It names an endpoint that is not one host's. */
  | "forbidden-endpoint"
  /** A field is not what it must be. */
  | "malformed"
  /** It is this side's own. */
  | "own"
  /** It is for the other transport, UDP or TCP. */
  | "other-transport";

/** A ticket cannot be used. */
export class TicketError extends Error {
  /** The stable code. */
  readonly code: TicketErrorCode;

  /** Makes the error. */
  constructor(code: TicketErrorCode, message: string) {
    super(`Cannot use the peer's ticket: ${message}`);
    this.name = "TicketError";
    this.code = code;
  }
}

/** The most endpoints that a ticket may name. */
export const MAX_CANDIDATES = 32;
/** The most characters that a ticket of one line may have, and SDP. */
const MAX_TEXT = 16_384;
/** The most ports that a hint may name. */
const MAX_HINT_PORTS = 8;
const VERSION = 1;
const PREFIX = `natkit${VERSION}:`;
const ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
/** 48 and 144 bits: RFC 8445 §5.3 asks for 24 and 128. */
const UFRAG_LENGTH = 8;
const PWD_LENGTH = 24;

function randomText(random: RandomSource, length: number): string {
  const bytes = new Uint8Array(length);
  random.fill(bytes);
  return Array.from(bytes, (byte) => ALPHABET[byte & 63]).join("");
}

/** A tie-breaker: 64 bits as 16 hexadecimal digits. */
export function randomTieBreaker(random: RandomSource): string {
  const bytes = new Uint8Array(8);
  random.fill(bytes);
  return toHex(bytes);
}

/**
 * Makes both halves of a rendezvous at these endpoints.
 *
 * @param random Unguessable: who knows the password can pose as this host.
 * @throws {TicketError} Where the endpoints are too many, or none of one host's.
 *
 * @example
 * ```ts
 * import { createRendezvous, formatTicket, parseTicket } from "@natkit/natkit/ice";
 * import { seededRandom } from "@natkit/natkit/core";
 *
 * const { public: told } = createRendezvous([], seededRandom(1)); // In earnest: unguessable.
 * const ticket = formatTicket(told);
 * console.assert(ticket.startsWith("natkit1:"));
 * console.assert(parseTicket(ticket).ufrag === told.ufrag);
 * ```
 */
export function createRendezvous(
  candidates: readonly Candidate[],
  random: RandomSource,
  more: Pick<PublicRendezvous, "hint" | "pacingMs"> = {},
): Rendezvous {
  const told = {
    ufrag: randomText(random, UFRAG_LENGTH),
    pwd: randomText(random, PWD_LENGTH),
    candidates,
    ...more,
  };
  checkPublic(told);
  return { public: told, private: { tieBreaker: randomTieBreaker(random) } };
}

/**
 * Checks a public half, from wherever it comes.
 *
 * @throws {TicketError} Where it cannot be used.
 */
export function checkPublic(told: PublicRendezvous): void {
  if (!isObject(told)) throw new TicketError("malformed", `${show(told)} is none`);
  const { ufrag, pwd, candidates, hint, pacingMs } = told;
  checkText("user fragment", ufrag, 4);
  checkText("password", pwd, 22);
  if (!Array.isArray(candidates)) throw new TicketError("malformed", "it names no candidates");
  checkCount(candidates.length);
  for (const candidate of candidates as readonly Candidate[]) {
    if (!isObject(candidate)) {
      throw new TicketError("malformed", `a candidate ${show(candidate)} is none`);
    }
    const isActive = candidate.tcpType === "active";
    const { address, port, foundation, priority, type, transport, tcpType } = candidate;
    if (typeof foundation !== "string" || !/^[A-Za-z0-9+/]{1,32}$/.test(foundation)) {
      throw new TicketError("malformed", "a foundation must be 1 to 32 letters, digits, + and /");
    }
    if (!isWithin(priority, 1, 0x7fff_ffff)) {
      throw new TicketError("malformed", `a priority of ${show(priority)} is none`);
    }
    if (!TYPES.includes(type) || !TRANSPORTS.includes(transport) || !TCP_TYPES.includes(tcpType)) {
      const kind = [transport, type, ...(tcpType === undefined ? [] : [tcpType])].map(show);
      throw new TicketError("malformed", `a candidate of ${kind.join(" ")} is none`);
    }
    if (typeof address !== "string" || canonicalAddress(address) !== address) {
      throw new TicketError("malformed", `${show(address)} is no address in canonical text`);
    }
    if (!isWithin(port, 0, 65_535)) {
      throw new TicketError("forbidden-endpoint", `port ${show(port)} is none`);
    }
    const why = whyUnreachable({ address, port: isActive ? 9 : port });
    if (why !== undefined) {
      throw new TicketError(
        "forbidden-endpoint",
        `no check may go to ${formatEndpoint({ address, port })}: ${why}`,
      );
    }
  }
  if (hint !== undefined) checkHint(hint);
  if (
    pacingMs !== undefined && !(typeof pacingMs === "number" && pacingMs >= 0 && pacingMs <= 10_000)
  ) {
    throw new TicketError("malformed", `its pacing is ${show(pacingMs)}`);
  }
}

function checkHint(hint: NatHint): void {
  const { mapping, ports } = isObject(hint) ? hint : {} as Partial<NatHint>;
  if (!MAPPINGS.includes(mapping!)) {
    throw new TicketError("malformed", `it tells of a mapping behaviour ${show(mapping)}`);
  }
  if (!Array.isArray(ports) || ports.length > MAX_HINT_PORTS) {
    const count = Array.isArray(ports) ? ports.length : "no";
    throw new TicketError("malformed", `its hint names ${count} ports`);
  }
  const wrong = ports.find((port) => !isWithin(port, 0, 65_535));
  if (wrong !== undefined) {
    throw new TicketError("malformed", `its hint names a port ${show(wrong)}`);
  }
}

function isObject(value: unknown): boolean {
  return typeof value === "object" && value !== null;
}

function isWithin(value: number, low: number, high: number): boolean {
  return Number.isInteger(value) && value >= low && value <= high;
}

function checkText(what: string, text: string, shortest: number): void {
  if (typeof text === "string" && new RegExp(`^[A-Za-z0-9+/]{${shortest},256}$`).test(text)) return;
  throw new TicketError(
    "malformed",
    `its ${what} must be ${shortest} to 256 letters, digits, + and /`,
  );
}

function checkCount(count: number): void {
  if (count <= MAX_CANDIDATES) return;
  throw new TicketError(
    "too-many-endpoints",
    `it names ${count} endpoints, and at most ${MAX_CANDIDATES} are probed`,
  );
}

const TRANSPORTS: readonly Transport[] = ["udp", "tcp"];
const TYPES: readonly CandidateType[] = ["host", "srflx", "prflx", "relay"];
const TCP_TYPES: readonly (TcpType | undefined)[] = [undefined, "active", "passive", "so"];
const MAPPINGS: readonly MappingBehaviour[] = [
  "unknown",
  "endpoint-independent",
  "address-dependent",
  "address-and-port-dependent",
];
/** In a candidate's first byte, above its type and TCP type. */
const IS_IPV6 = 0x10;

/**
 * A public half as bytes:
 *
 * ```text
 *  u8 version 1 · u8 mapping behaviour, 0xff without a hint · u16 pacing in ms, 0xffff without one
 *  u8 length, user fragment · u8 length, password · u8 count, hint's ports of 16 bits
 *  u8 count, candidates: u8 type | TCP type << 2 | IPv6 << 4 · u8 foundation's length, foundation
 *                        u32 priority · u16 port · address, 4 or 16 bytes
 *  u32 the FINGERPRINT of all before it (RFC 8489 §14.7)
 * ```
 * What an address is based on is left out: it is nobody's business.
 *
 * @throws {TicketError} Where it could not be read again.
 */
export function encodePublic(told: PublicRendezvous): Uint8Array {
  checkPublic(told);
  const { hint, pacingMs, candidates } = told;
  const bytes: number[] = [VERSION, hint ? MAPPINGS.indexOf(hint.mapping) : 0xff];
  const put16 = (value: number) => bytes.push(value >>> 8, value & 255);
  const putText = (text: string) => bytes.push(text.length, ...new TextEncoder().encode(text));
  put16(pacingMs === undefined ? 0xffff : Math.round(pacingMs));
  if (Math.max(told.ufrag.length, told.pwd.length) > 255) {
    throw new TicketError(
      "malformed",
      "its names are too long for a ticket: SDP has room for them",
    );
  }
  putText(told.ufrag);
  putText(told.pwd);
  const ports = hint?.ports ?? [];
  bytes.push(ports.length);
  ports.forEach(put16);
  bytes.push(candidates.length);
  for (const { type, tcpType, address, port, priority, foundation } of candidates) {
    const family = familyOf(address);
    bytes.push(
      TYPES.indexOf(type) | (TCP_TYPES.indexOf(tcpType) << 2) | (family === 6 ? IS_IPV6 : 0),
    );
    putText(foundation);
    const fixed = new Uint8Array(6);
    putU32(fixed, 0, priority);
    putU16(fixed, 4, port);
    bytes.push(...fixed, ...parseIp(withoutZone(address))!);
  }
  const whole = new Uint8Array(bytes.length + 4);
  whole.set(bytes);
  putU32(whole, bytes.length, fingerprintOf(whole, bytes.length));
  return whole;
}

/**
 * Reads what {@linkcode encodePublic} wrote.
 *
 * @throws {TicketError} Where it cannot be used.
 */
export function decodePublic(bytes: Uint8Array): PublicRendezvous {
  if (bytes.length === 0) throw new TicketError("truncated", "it is empty");
  if (bytes[0] !== VERSION) {
    const message = `it is of version ${bytes[0]}, this natkit reads version ${VERSION}`;
    throw new TicketError("other-version", message);
  }
  let at = 1;
  const end = bytes.length - 4;
  const take = (count: number): Uint8Array => {
    if (at + count > end) throw new TicketError("truncated", `${bytes.length} bytes are too few`);
    at += count;
    return bytes.subarray(at - count, at);
  };
  const take8 = () => take(1)[0]!;
  const take16 = () => u16(take(2), 0);
  const takeText = () => String.fromCharCode(...take(take8()));
  const mapping = take8();
  const pacing = take16();
  const ufrag = takeText();
  const pwd = takeText();
  const ports = Array.from({ length: take8() }, take16);
  const count = take8();
  checkCount(count);
  const candidates = Array.from({ length: count }, () => takeCandidate(take));
  if (at !== end || fingerprintOf(bytes, end) !== u32(bytes, end)) {
    throw new TicketError("damaged", "its checksum is wrong");
  }
  const told: PublicRendezvous = {
    ufrag,
    pwd,
    candidates,
    ...(mapping !== 0xff && { hint: { mapping: MAPPINGS[mapping]!, ports } }),
    ...(pacing !== 0xffff && { pacingMs: pacing }),
  };
  checkPublic(told);
  return told;
}

function takeCandidate(take: (count: number) => Uint8Array): Candidate {
  const kind = take(1)[0]!;
  const foundation = String.fromCharCode(...take(take(1)[0]!));
  const fixed = copyBytes(take(6));
  const address = canonicalAddress(textOf(take(kind & IS_IPV6 ? 16 : 4)))!;
  const tcpType = TCP_TYPES[(kind >> 2) & 3];
  return {
    foundation,
    transport: tcpType === undefined ? "udp" : "tcp",
    priority: u32(fixed, 0),
    address,
    port: u16(fixed, 4),
    type: TYPES[kind & 3]!,
    ...(tcpType !== undefined && { tcpType }),
  };
}

function textOf(bytes: Uint8Array): string {
  if (bytes.length === 4) return bytes.join(".");
  const groups = Array.from({ length: 8 }, (_, i) => u16(bytes, 2 * i).toString(16));
  return groups.join(":");
}

/**
 * A public half as a ticket: one line without spaces.
 *
 * @throws {TicketError} As {@linkcode encodePublic}.
 */
export function formatTicket(told: PublicRendezvous): string {
  const base64 = btoa(String.fromCharCode(...encodePublic(told)));
  return PREFIX + base64.replaceAll("+", "-").replaceAll("/", "_").replace(/=+$/, "");
}

/**
 * Reads a ticket; white space around it does not matter.
 *
 * @throws {TicketError} Where it cannot be used.
 */
export function parseTicket(text: string): PublicRendezvous {
  const line = text.trim();
  if (line.length > MAX_TEXT) {
    throw new TicketError("too-many-endpoints", `it has ${line.length} characters`);
  }
  if (!line.startsWith(PREFIX)) {
    const version = /^natkit([0-9]{1,9}):/.exec(line)?.[1];
    if (version === undefined) {
      throw new TicketError("not-a-ticket", `it must start with ${show(PREFIX)}`);
    }
    const message = `it is of version ${version}, this natkit reads version ${VERSION}`;
    throw new TicketError("other-version", message);
  }
  const body = line.slice(PREFIX.length);
  if (!/^[A-Za-z0-9_-]*$/.test(body)) {
    throw new TicketError("damaged", "it has characters that no ticket has");
  }
  if (body.length % 4 === 1) throw new TicketError("truncated", "its last characters are missing");
  const binary = atob(body.replaceAll("-", "+").replaceAll("_", "/"));
  return decodePublic(Uint8Array.from(binary, (character) => character.charCodeAt(0)));
}

/**
 * A public half as the lines of SDP that other ICE stacks read: `a=ice-ufrag`, `a=ice-pwd`,
 * `a=ice-options`, `a=candidate`… and `a=end-of-candidates`.
 */
export function formatSdp(told: PublicRendezvous): string[] {
  checkPublic(told);
  return [
    `a=ice-ufrag:${told.ufrag}`,
    `a=ice-pwd:${told.pwd}`,
    "a=ice-options:ice2 trickle",
    ...(told.pacingMs === undefined ? [] : [`a=ice-pacing:${Math.round(told.pacingMs)}`]),
    ...told.candidates.map((candidate) => `a=${formatCandidate(candidate)}`),
    "a=end-of-candidates",
  ];
}

/**
 * Reads the lines of SDP that are about ICE; others are passed over, and so are candidates that ICE
 * says to ignore.
 *
 * @throws {TicketError} Where it cannot be used.
 */
export function parseSdp(text: string): PublicRendezvous {
  const lines = text.split(/\r?\n/).map((line) => line.trim());
  const value = (name: string) =>
    lines.find((line) => line.startsWith(`a=${name}:`))?.slice(name.length + 3).trim();
  const ufrag = value("ice-ufrag"), pwd = value("ice-pwd"), pacing = value("ice-pacing");
  if (ufrag === undefined || pwd === undefined) {
    throw new TicketError("not-a-ticket", "there must be a=ice-ufrag and a=ice-pwd");
  }
  const told = lines.filter((line) => line.startsWith("a=candidate:"));
  checkCount(told.length);
  const candidates = told.flatMap((line) => parseCandidate(line) ?? []);
  const rendezvous: PublicRendezvous = {
    ufrag,
    pwd,
    candidates,
    ...(pacing !== undefined && /^[0-9]{1,5}$/.test(pacing) && { pacingMs: Number(pacing) }),
  };
  checkPublic(rendezvous);
  return rendezvous;
}
