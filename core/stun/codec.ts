/**
 * STUN on the wire: the messages of RFC 8489 with its attributes and those of RFC 5780 (NAT
 * behaviour), RFC 8445 (ICE) and RFC 8656 (TURN, as far as a client needs them), and the form of
 * RFC 3489, which old clients still speak.
 *
 * The decoder takes any bytes and returns a message or a fault. What it returns lies in the bytes
 * that it was given: keep no more of it than a copy.
 *
 * @module
 */
import { putU16, putU32, u16, u32 } from "../bytes.ts";
import { checkAddress, checkInteger, checkPort } from "../check.ts";
import { formatIPv4, getAddress16, isMapped, putAddress16 } from "../ip.ts";
import type { Family } from "../ip.ts";
import type { Endpoint } from "../machine.ts";
import {
  fingerprintOf,
  INTEGRITY_LENGTH,
  type IntegrityHash,
  integrityOf,
  isIntact,
} from "./integrity.ts";

/** The port of STUN and TURN servers over UDP and TCP (RFC 8489 §18.6). */
export const STUN_PORT = 3478;

/** What tells STUN from RFC 3489 and from other protocols: bytes 4…7. */
const COOKIE = 0x2112a442;
/** Bytes before the attributes. */
export const STUN_HEADER_LENGTH = 20;
/** The most bytes of a text as it is read; one that is sent has 508 (RFC 8489 §14.3). */
const MAX_TEXT_BYTES = 763;
/** The most bytes of a text as it is sent. */
const MAX_SENT_TEXT_BYTES = 508;
/** Messages up to this are cut from blocks of that length, bytes. */
const LONGEST_CUT = 256, BLOCK_LENGTH = 8192;
/** The most attributes of unknown types that are told of, and of peer addresses. */
const MAX_LISTED = 32;

/** What a message is for. */
export type StunClass = "request" | "indication" | "success" | "error";

const CLASSES: readonly StunClass[] = ["request", "indication", "success", "error"];

/** Methods, 0…4095 (RFC 8489 §18.2, RFC 8656 §17). */
export const STUN_METHOD = {
  /** What is my address? Checks and keeps a path alive too. */
  BINDING: 1,
  /** TURN: a relayed address is asked for. */
  ALLOCATE: 3,
  /** TURN: an allocation is renewed, or given back with lifetime 0. */
  REFRESH: 4,
  /** TURN: data to a peer; an indication. */
  SEND: 6,
  /** TURN: data from a peer; an indication. */
  DATA: 7,
  /** TURN: a peer's address may send. */
  CREATE_PERMISSION: 8,
  /** TURN: a number stands for a peer. */
  CHANNEL_BIND: 9,
} as const;

/** Attribute types. Those below 0x8000 must be understood (RFC 8489 §14). */
export const STUN_ATTRIBUTE = {
  MAPPED_ADDRESS: 0x0001,
  RESPONSE_ADDRESS: 0x0002,
  CHANGE_REQUEST: 0x0003,
  SOURCE_ADDRESS: 0x0004,
  CHANGED_ADDRESS: 0x0005,
  USERNAME: 0x0006,
  PASSWORD: 0x0007,
  MESSAGE_INTEGRITY: 0x0008,
  ERROR_CODE: 0x0009,
  UNKNOWN_ATTRIBUTES: 0x000a,
  REFLECTED_FROM: 0x000b,
  CHANNEL_NUMBER: 0x000c,
  LIFETIME: 0x000d,
  XOR_PEER_ADDRESS: 0x0012,
  DATA: 0x0013,
  REALM: 0x0014,
  NONCE: 0x0015,
  XOR_RELAYED_ADDRESS: 0x0016,
  REQUESTED_ADDRESS_FAMILY: 0x0017,
  REQUESTED_TRANSPORT: 0x0019,
  DONT_FRAGMENT: 0x001a,
  MESSAGE_INTEGRITY_SHA256: 0x001c,
  PASSWORD_ALGORITHM: 0x001d,
  USERHASH: 0x001e,
  XOR_MAPPED_ADDRESS: 0x0020,
  PRIORITY: 0x0024,
  USE_CANDIDATE: 0x0025,
  PADDING: 0x0026,
  RESPONSE_PORT: 0x0027,
  PASSWORD_ALGORITHMS: 0x8002,
  ALTERNATE_DOMAIN: 0x8003,
  /** XOR-MAPPED-ADDRESS in drafts before RFC 5389; read, never sent. */
  XOR_MAPPED_ADDRESS_DRAFT: 0x8020,
  SOFTWARE: 0x8022,
  ALTERNATE_SERVER: 0x8023,
  CACHE_TIMEOUT: 0x8027,
  FINGERPRINT: 0x8028,
  ICE_CONTROLLED: 0x8029,
  ICE_CONTROLLING: 0x802a,
  RESPONSE_ORIGIN: 0x802b,
  OTHER_ADDRESS: 0x802c,
} as const;

/** One of {@linkcode STUN_ATTRIBUTE}'s numbers by a short name, for the switches below. */
const T = STUN_ATTRIBUTE;

/** Error codes (RFC 8489 §14.8, RFC 8445 §16.1, RFC 8656 §19). */
export const STUN_ERROR = {
  TRY_ALTERNATE: 300,
  BAD_REQUEST: 400,
  UNAUTHENTICATED: 401,
  FORBIDDEN: 403,
  UNKNOWN_ATTRIBUTE: 420,
  ALLOCATION_MISMATCH: 437,
  STALE_NONCE: 438,
  ADDRESS_FAMILY_NOT_SUPPORTED: 440,
  WRONG_CREDENTIALS: 441,
  UNSUPPORTED_TRANSPORT: 442,
  PEER_ADDRESS_FAMILY_MISMATCH: 443,
  ALLOCATION_QUOTA_REACHED: 486,
  ROLE_CONFLICT: 487,
  SERVER_ERROR: 500,
  INSUFFICIENT_CAPACITY: 508,
} as const;

/** What an error response says. */
export interface StunError {
  /** 300…699. */
  readonly code: number;
  /** For people. */
  readonly reason: string;
}

/** A way to make a long-term key from a password (RFC 8489 §14.11). */
export interface StunPasswordAlgorithm {
  /** 1 MD5, 2 SHA-256; others exist perhaps. */
  readonly number: number;
  /** Empty for those two. */
  readonly parameters: Uint8Array;
}

/** The numbers of password algorithms (RFC 8489 §18.5). */
export const STUN_PASSWORD_ALGORITHM = { MD5: 1, SHA_256: 2 } as const;

/**
 * The attributes of a message, save those that protect it. They are sent in the order in which the
 * object has them.
 */
export interface StunAttributes {
  /** MAPPED-ADDRESS: the source that the server saw, in clear. */
  readonly mappedAddress?: Endpoint;
  /** XOR-MAPPED-ADDRESS: the same, out of reach of gateways that rewrite addresses in packets. */
  readonly xorMappedAddress?: Endpoint;
  /** USERNAME, up to 508 bytes. */
  readonly username?: string;
  /** USERHASH, 32 bytes. */
  readonly userhash?: Uint8Array;
  /** REALM, up to 508 bytes. */
  readonly realm?: string;
  /** NONCE, up to 508 bytes. */
  readonly nonce?: string;
  /** PASSWORD-ALGORITHM: the one that made the key. */
  readonly passwordAlgorithm?: StunPasswordAlgorithm;
  /** PASSWORD-ALGORITHMS: what the server takes, the best first. */
  readonly passwordAlgorithms?: readonly StunPasswordAlgorithm[];
  /** ERROR-CODE. */
  readonly errorCode?: StunError;
  /** UNKNOWN-ATTRIBUTES: types that the server does not know. */
  readonly unknownAttributes?: readonly number[];
  /** SOFTWARE, up to 508 bytes. */
  readonly software?: string;
  /** ALTERNATE-SERVER: ask there. */
  readonly alternateServer?: Endpoint;
  /** ALTERNATE-DOMAIN: the name in that server's certificate. */
  readonly alternateDomain?: string;

  /** PRIORITY, 0…2³²−1 (RFC 8445 §16.1). */
  readonly priority?: number;
  /** USE-CANDIDATE: this pair is nominated. */
  readonly useCandidate?: true;
  /** ICE-CONTROLLED with its tiebreaker, 64 bits. */
  readonly iceControlled?: bigint;
  /** ICE-CONTROLLING with its tiebreaker, 64 bits. */
  readonly iceControlling?: bigint;

  /** CHANGE-REQUEST: answer from the other address, the other port (RFC 5780 §7.2). */
  readonly changeRequest?: { readonly address: boolean; readonly port: boolean };
  /** RESPONSE-ORIGIN: where the response was sent from. */
  readonly responseOrigin?: Endpoint;
  /** OTHER-ADDRESS: the other address and port of the server. */
  readonly otherAddress?: Endpoint;
  /** RESPONSE-PORT: answer to this port, 0…65535. */
  readonly responsePort?: number;
  /** PADDING: bytes that make the message long. */
  readonly padding?: Uint8Array;
  /** CACHE-TIMEOUT, seconds. */
  readonly cacheTimeoutSeconds?: number;

  /** CHANNEL-NUMBER, 0x4000…0x4FFF in requests (RFC 8656 §12). */
  readonly channelNumber?: number;
  /** LIFETIME, seconds. */
  readonly lifetimeSeconds?: number;
  /** XOR-PEER-ADDRESS, of which a request may have several. */
  readonly xorPeerAddresses?: readonly Endpoint[];
  /** DATA, to or from a peer. */
  readonly data?: Uint8Array;
  /** XOR-RELAYED-ADDRESS: what the server allocated. */
  readonly xorRelayedAddress?: Endpoint;
  /** REQUESTED-ADDRESS-FAMILY. */
  readonly requestedAddressFamily?: Family;
  /** REQUESTED-TRANSPORT: an IP protocol number, 17 for UDP. */
  readonly requestedTransport?: number;
  /** DONT-FRAGMENT. */
  readonly dontFragment?: true;

  /** RFC 3489's SOURCE-ADDRESS, which RESPONSE-ORIGIN took over from. */
  readonly sourceAddress?: Endpoint;
  /** RFC 3489's CHANGED-ADDRESS, which OTHER-ADDRESS took over from. */
  readonly changedAddress?: Endpoint;
}

/** An attribute of a type that this codec does not know. */
export interface UnknownAttribute {
  /** Below 0x8000 it must be understood, else it may be left aside. */
  readonly type: number;
  /** Its bytes, without padding. */
  readonly value: Uint8Array;
}

/** A message to encode. */
export interface StunMessageFields {
  /** What it is for. */
  readonly class: StunClass;
  /** 0…4095, mostly of {@linkcode STUN_METHOD}. */
  readonly method: number;
  /**
   * 12 bytes, of an unguessable source in requests; an answer has its request's. 16 bytes make a
   * message of RFC 3489, without a cookie.
   */
  readonly transactionId: Uint8Array;
  /** Its attributes. */
  readonly attributes?: StunAttributes;
  /** Attributes that this codec does not know; they are sent after the others. */
  readonly unknown?: readonly UnknownAttribute[];
}

/** How a message is protected; none of it by default. */
export interface StunSeal {
  /** The key of MESSAGE-INTEGRITY or MESSAGE-INTEGRITY-SHA256. */
  readonly key?: Uint8Array | undefined;
  /** With a key: which of the two, or both (RFC 8489 §9.1.2). Default `"sha1"`. */
  readonly integrity?: IntegrityHash | "both" | undefined;
  /** Whether a FINGERPRINT ends it. */
  readonly fingerprint?: boolean | undefined;
}

/** A message as it is read. */
export interface StunMessage extends Required<StunMessageFields> {
  /** The bytes it was read from. */
  readonly bytes: Uint8Array;
  /** Where MESSAGE-INTEGRITY stands in them; 0 where there is none. */
  readonly integrityAt: number;
  /** Where MESSAGE-INTEGRITY-SHA256 stands in them; 0 where there is none. */
  readonly integritySha256At: number;
  /** Whether there is a FINGERPRINT; one that is wrong is a fault. */
  readonly hasFingerprint: boolean;
}

/** Why bytes are no STUN message. */
export type StunFault =
  /** Fewer than 20 bytes. */
  | "too-short"
  /** The first two bits are not zero. */
  | "not-stun"
  /** Without the cookie: RFC 3489's form, or no STUN at all. */
  | "no-cookie"
  /** The length field does not say what is there, or an attribute leads past the end. */
  | "bad-length"
  /** An attribute that must be understood has a form that cannot be. */
  | "bad-attribute"
  /** FINGERPRINT is wrong, or not the last attribute. */
  | "bad-fingerprint";

/**
 * Whether a datagram is STUN, on a socket that carries other protocols too: by the first byte
 * (RFC 7983: 0…3) and, so that no application's bytes are taken for it, by length and cookie.
 */
export function isStun(data: Uint8Array): boolean {
  return data.length >= STUN_HEADER_LENGTH && isStunHeader(data, 0) &&
    u16(data, 2) === data.length - STUN_HEADER_LENGTH;
}

/** Whether the 20 bytes at `at`, which the caller has checked to be there, begin a message. */
export function isStunHeader(data: Uint8Array, at: number): boolean {
  return data[at]! < 4 && (data[at + 3]! & 3) === 0 && u32(data, at + 4) === COOKIE;
}

/**
 * Whether a datagram from a TURN server is ChannelData: its first byte is 64…79 (RFC 7983; RFC 8656
 * §12 has no other channels).
 */
export function isChannelData(data: Uint8Array): boolean {
  return data.length >= 4 && data[0]! >> 4 === 4;
}

/** A transaction id as a key for maps. */
export function transactionKey(id: Uint8Array): string {
  return id.length === 12
    ? String.fromCharCode(u16(id, 0), u16(id, 2), u16(id, 4), u16(id, 6), u16(id, 8), u16(id, 10))
    : String.fromCharCode(...id);
}

/** A message type by its class and method (RFC 8489 §5). */
function typeOf(of: StunClass, method: number): number {
  const c = CLASSES.indexOf(of);
  return (method & 0xf80) << 2 | (method & 0x70) << 1 | (method & 0xf) | (c & 2) << 7 |
    (c & 1) << 4;
}

const utf8 = new TextEncoder();
/** Wrong bytes become U+FFFD: such a text is nobody's name, and software is only shown. */
const fromUtf8 = new TextDecoder("utf-8", { ignoreBOM: true });

/** The 16 bytes by which addresses of a message are XORed: cookie and transaction id. */
const mask = new Uint8Array(16);
const address = new Uint8Array(16);

// ---------------------------------------------------------------------------------- encoding ---

/** What a message is written into before it is copied out; it grows. */
let out = new Uint8Array(1024);
let end = 0;

function reserve(length: number): void {
  if (end + length <= out.length) return;
  const grown = new Uint8Array(Math.max(2 * out.length, end + length));
  grown.set(out.subarray(0, end));
  out = grown;
}

/**
 * Writes an attribute's head and returns where its value goes; its padding is zero. To be called
 * before `out` is named: it may make another one.
 */
function open(type: number, length: number): number {
  const padded = (length + 3) & ~3;
  reserve(4 + padded);
  putU16(out, end, type);
  putU16(out, end + 2, length);
  const at = end + 4;
  end = at + padded;
  for (let i = at + length; i < end; i++) out[i] = 0;
  return at;
}

function putBytes(type: number, name: string, value: Uint8Array, length?: number): void {
  checkInteger(`${name}.length`, value.length, length ?? 0, length ?? 0xffff);
  const at = open(type, value.length);
  out.set(value, at);
}

function encodeText(name: string, text: string, limit: number): Uint8Array {
  const bytes = utf8.encode(text);
  if (bytes.length > limit) {
    throw new RangeError(
      `'${name}' must be no longer than ${limit} bytes: current value has ${bytes.length}`,
    );
  }
  return bytes;
}

function putText(type: number, name: string, text: string, limit = MAX_SENT_TEXT_BYTES): void {
  const bytes = encodeText(name, text, limit);
  const at = open(type, bytes.length);
  out.set(bytes, at);
}

function putNumber(type: number, name: string, value: number): void {
  checkInteger(name, value, 0, 0xffff_ffff);
  const at = open(type, 4);
  putU32(out, at, value);
}

function putTiebreaker(type: number, name: string, value: bigint): void {
  if (typeof value !== "bigint" || value < 0n || value > 0xffff_ffff_ffff_ffffn) {
    throw new RangeError(`'${name}' must be a bigint in 0..2^64-1: current value is ${value}`);
  }
  const at = open(type, 8);
  putU32(out, at, Number(value >> 32n));
  putU32(out, at + 4, Number(value & 0xffff_ffffn));
}

function putEndpoint(type: number, name: string, endpoint: Endpoint, isXored: boolean): void {
  const { port } = endpoint;
  if (!(port >= 0 && port <= 0xffff && Number.isInteger(port))) checkPort(`${name}.port`, port, 0);
  try {
    putAddress16(address, 0, endpoint.address);
  } catch {
    checkAddress(`${name}.address`, endpoint.address);
  }
  const isShort = isMapped(address);
  const at = open(type, isShort ? 8 : 20);
  putU16(out, at, isShort ? 1 : 2);
  putU16(out, at + 2, isXored ? port ^ (COOKIE >>> 16) : port);
  const skip = isShort ? 12 : 0;
  for (let i = skip; i < 16; i++) {
    out[at + 4 + i - skip] = address[i]! ^ (isXored ? mask[i - skip]! : 0);
  }
}

function putAlgorithms(type: number, algorithms: readonly StunPasswordAlgorithm[]): void {
  const sizeOf = ({ parameters }: StunPasswordAlgorithm) => 4 + ((parameters.length + 3) & ~3);
  let at = open(type, algorithms.reduce((sum, each) => sum + sizeOf(each), 0));
  for (const algorithm of algorithms) {
    const { number, parameters } = algorithm;
    putU16(out, at, checkInteger("passwordAlgorithm.number", number, 0, 0xffff));
    putU16(out, at + 2, parameters.length);
    out.fill(0, at + 4, at + sizeOf(algorithm));
    out.set(parameters, at + 4);
    at += sizeOf(algorithm);
  }
}

function putAttribute(name: keyof StunAttributes, all: StunAttributes): void {
  // One that is undefined is not there.
  if (all[name] === undefined) return;
  switch (name) {
    case "mappedAddress":
      return putEndpoint(T.MAPPED_ADDRESS, name, all[name]!, false);
    case "xorMappedAddress":
      return putEndpoint(T.XOR_MAPPED_ADDRESS, name, all[name]!, true);
    case "username":
      return putText(T.USERNAME, name, all[name]!);
    case "userhash":
      return putBytes(T.USERHASH, name, all[name]!, 32);
    case "realm":
      return putText(T.REALM, name, all[name]!);
    case "nonce":
      return putText(T.NONCE, name, all[name]!);
    case "passwordAlgorithm":
      return putAlgorithms(T.PASSWORD_ALGORITHM, [all[name]!]);
    case "passwordAlgorithms":
      return putAlgorithms(T.PASSWORD_ALGORITHMS, all[name]!);
    case "errorCode": {
      const code = checkInteger("errorCode.code", all[name]!.code, 300, 699);
      const reason = encodeText("errorCode.reason", all[name]!.reason, MAX_SENT_TEXT_BYTES);
      const at = open(T.ERROR_CODE, 4 + reason.length);
      putU32(out, at, Math.floor(code / 100) << 8 | code % 100);
      out.set(reason, at + 4);
      return;
    }
    case "unknownAttributes": {
      const types = all[name]!;
      let at = open(T.UNKNOWN_ATTRIBUTES, 2 * types.length);
      for (const type of types) {
        putU16(out, at, checkInteger(name, type, 0, 0xffff));
        at += 2;
      }
      return;
    }
    case "software":
      return putText(T.SOFTWARE, name, all[name]!);
    case "alternateServer":
      return putEndpoint(T.ALTERNATE_SERVER, name, all[name]!, false);
    case "alternateDomain":
      return putText(T.ALTERNATE_DOMAIN, name, all[name]!, 255);
    case "priority":
      return putNumber(T.PRIORITY, name, all[name]!);
    case "useCandidate":
      open(T.USE_CANDIDATE, 0);
      return;
    case "iceControlled":
      return putTiebreaker(T.ICE_CONTROLLED, name, all[name]!);
    case "iceControlling":
      return putTiebreaker(T.ICE_CONTROLLING, name, all[name]!);
    case "changeRequest": {
      const { address, port } = all[name]!;
      return putNumber(T.CHANGE_REQUEST, name, (address ? 4 : 0) | (port ? 2 : 0));
    }
    case "responseOrigin":
      return putEndpoint(T.RESPONSE_ORIGIN, name, all[name]!, false);
    case "otherAddress":
      return putEndpoint(T.OTHER_ADDRESS, name, all[name]!, false);
    case "responsePort":
      return putNumber(T.RESPONSE_PORT, name, checkPort(name, all[name]!, 0) * 0x1_0000);
    case "padding":
      return putBytes(T.PADDING, name, all[name]!);
    case "cacheTimeoutSeconds":
      return putNumber(T.CACHE_TIMEOUT, name, all[name]!);
    case "channelNumber":
      return putNumber(
        T.CHANNEL_NUMBER,
        name,
        checkInteger(name, all[name]!, 0, 0xffff) * 0x1_0000,
      );
    case "lifetimeSeconds":
      return putNumber(T.LIFETIME, name, all[name]!);
    case "xorPeerAddresses":
      for (const each of all[name]!) putEndpoint(T.XOR_PEER_ADDRESS, name, each, true);
      return;
    case "data":
      return putBytes(T.DATA, name, all[name]!);
    case "xorRelayedAddress":
      return putEndpoint(T.XOR_RELAYED_ADDRESS, name, all[name]!, true);
    case "requestedAddressFamily":
      return putNumber(T.REQUESTED_ADDRESS_FAMILY, name, (all[name] === 6 ? 2 : 1) * 0x100_0000);
    case "requestedTransport":
      return putNumber(
        T.REQUESTED_TRANSPORT,
        name,
        checkInteger(name, all[name]!, 0, 255) * 0x100_0000,
      );
    case "dontFragment":
      open(T.DONT_FRAGMENT, 0);
      return;
    case "sourceAddress":
      return putEndpoint(T.SOURCE_ADDRESS, name, all[name]!, false);
    case "changedAddress":
      return putEndpoint(T.CHANGED_ADDRESS, name, all[name]!, false);
    default:
      throw new TypeError(`'attributes' must hold known names: current value is "${name}"`);
  }
}

/**
 * The bytes of a message.
 *
 * @throws {TypeError | RangeError} Where a field does not fit.
 *
 * @example
 * ```ts
 * import { decodeStun, encodeStun, STUN_METHOD } from "@natkit/natkit/stun";
 * const bytes = encodeStun({
 *   class: "request",
 *   method: STUN_METHOD.BINDING,
 *   transactionId: crypto.getRandomValues(new Uint8Array(12)),
 *   attributes: { software: "mine 1.0" },
 * }, { fingerprint: true });
 * const message = decodeStun(bytes);
 * console.assert(typeof message !== "string" && message.attributes.software === "mine 1.0");
 * ```
 */
export function encodeStun(message: StunMessageFields, seal: StunSeal = {}): Uint8Array {
  const { transactionId: id, attributes, unknown } = message;
  if (id.length !== 12 && id.length !== 16) {
    throw new TypeError(`'transactionId' must be 12 or 16 bytes: current value has ${id.length}`);
  }
  putU16(out, 0, typeOf(message.class, checkInteger("method", message.method, 0, 0xfff)));
  putU32(out, 4, COOKIE);
  out.set(id, STUN_HEADER_LENGTH - id.length);
  for (let i = 0; i < 16; i++) mask[i] = out[4 + i]!;
  end = STUN_HEADER_LENGTH;
  for (const name in attributes) putAttribute(name as keyof StunAttributes, attributes);
  if (unknown) { for (const { type, value } of unknown) putBytes(type, "unknown", value); }
  const { key, integrity = "sha1", fingerprint } = seal;
  if (key && integrity !== "sha256") putIntegrity(key, "sha1");
  if (key && integrity !== "sha1") putIntegrity(key, "sha256");
  checkInteger("length", end - STUN_HEADER_LENGTH, 0, 0xffff);
  if (fingerprint) {
    const at = open(T.FINGERPRINT, 4);
    putU16(out, 2, end - STUN_HEADER_LENGTH);
    putU32(out, at, fingerprintOf(out, at - 4));
  }
  putU16(out, 2, end - STUN_HEADER_LENGTH);
  return cutOff(end);
}

/** A block from which short messages are cut: some engines take a microsecond for each array. */
let block = new Uint8Array(0);
let cutAt = 0;

/** What was written, in bytes that nothing else is written into. */
function cutOff(length: number): Uint8Array {
  if (length > LONGEST_CUT) return out.slice(0, length);
  if (cutAt + length > block.length) {
    block = new Uint8Array(BLOCK_LENGTH);
    cutAt = 0;
  }
  const bytes = block.subarray(cutAt, cutAt + length);
  for (let i = 0; i < length; i++) bytes[i] = out[i]!;
  cutAt += length;
  return bytes;
}

function putIntegrity(key: Uint8Array, hash: IntegrityHash): void {
  const type = hash === "sha1" ? T.MESSAGE_INTEGRITY : T.MESSAGE_INTEGRITY_SHA256;
  const at = open(type, INTEGRITY_LENGTH[hash]);
  out.set(integrityOf(out, at - 4, key, hash), at);
}

// ---------------------------------------------------------------------------------- decoding ---

type Writable<T> = { -readonly [K in keyof T]: T[K] };

/** Marks an attribute that cannot be read. */
const BAD = Symbol("bad");

/** An address attribute; undefined for a family that nobody knows, which is left out (STUN-06). */
function getEndpoint(
  bytes: Uint8Array,
  at: number,
  length: number,
  isXored: boolean,
): Endpoint | undefined | typeof BAD {
  if (length < 4) return BAD;
  const family = bytes[at + 1]!;
  if (family !== 1 && family !== 2) return undefined;
  if (length !== (family === 1 ? 8 : 20)) return BAD;
  const port = u16(bytes, at + 2);
  if (!isXored) {
    return {
      address: family === 1 ? formatIPv4(bytes, at + 4) : getAddress16(bytes, at + 4),
      port,
    };
  }
  const count = length - 4;
  for (let i = 0; i < count; i++) address[i] = bytes[at + 4 + i]! ^ bytes[4 + i]!;
  return {
    address: family === 1 ? formatIPv4(address) : getAddress16(address, 0),
    port: port ^ u16(bytes, 4),
  };
}

function getText(bytes: Uint8Array, at: number, length: number): string | typeof BAD {
  return length > MAX_TEXT_BYTES ? BAD : fromUtf8.decode(bytes.subarray(at, at + length));
}

function getTiebreaker(bytes: Uint8Array, at: number, length: number): bigint | typeof BAD {
  return length !== 8 ? BAD : BigInt(u32(bytes, at)) << 32n | BigInt(u32(bytes, at + 4));
}

function getNumber(bytes: Uint8Array, at: number, length: number): number | typeof BAD {
  return length !== 4 ? BAD : u32(bytes, at);
}

function getError(bytes: Uint8Array, at: number, length: number): StunError | typeof BAD {
  if (length < 4) return BAD;
  const kind = bytes[at + 2]! & 7, number = bytes[at + 3]!;
  if (kind < 3 || kind > 6 || number > 99) return BAD;
  const reason = getText(bytes, at + 4, length - 4);
  return reason === BAD ? BAD : { code: 100 * kind + number, reason };
}

function getTypes(bytes: Uint8Array, at: number, length: number): number[] | typeof BAD {
  if (length % 2 !== 0) return BAD;
  const types: number[] = [];
  for (let i = 0; i < length && types.length < MAX_LISTED; i += 2) types.push(u16(bytes, at + i));
  return types;
}

function getAlgorithms(
  bytes: Uint8Array,
  at: number,
  length: number,
): StunPasswordAlgorithm[] | typeof BAD {
  const algorithms: StunPasswordAlgorithm[] = [];
  const stop = at + length;
  while (at < stop) {
    const size = u16(bytes, at + 2);
    const next = at + 4 + ((size + 3) & ~3);
    // The padding of the last one may be that of the attribute.
    if (at + 4 + size > stop || algorithms.length === MAX_LISTED) return BAD;
    algorithms.push({
      number: u16(bytes, at),
      parameters: bytes.subarray(at + 4, at + 4 + size),
    });
    at = next;
  }
  return algorithms.length === 0 ? BAD : algorithms;
}

type Into = Writable<StunAttributes>;

/** Takes the value of one attribute, unless one of its type came before; false where it is bad. */
function put<K extends keyof StunAttributes>(
  into: Into,
  name: K,
  value: Into[K] | undefined | typeof BAD,
): boolean {
  if (value === BAD) return false;
  if (value !== undefined && into[name] === undefined) into[name] = value as Into[K];
  return true;
}

/**
 * Reads one attribute into `into`. False: its form is wrong; undefined: its type is unknown.
 */
function getAttribute(
  bytes: Uint8Array,
  type: number,
  at: number,
  length: number,
  of: StunClass,
  into: Into,
): boolean | undefined {
  switch (type) {
    case T.MAPPED_ADDRESS:
      return put(into, "mappedAddress", getEndpoint(bytes, at, length, false));
    case T.XOR_MAPPED_ADDRESS:
    case T.XOR_MAPPED_ADDRESS_DRAFT:
      return put(into, "xorMappedAddress", getEndpoint(bytes, at, length, true));
    case T.USERNAME:
      return put(into, "username", getText(bytes, at, length));
    case T.USERHASH:
      return put(into, "userhash", length === 32 ? bytes.subarray(at, at + 32) : BAD);
    case T.REALM:
      return put(into, "realm", getText(bytes, at, length));
    case T.NONCE:
      return put(into, "nonce", getText(bytes, at, length));
    case T.PASSWORD_ALGORITHM: {
      const algorithms = getAlgorithms(bytes, at, length);
      return put(into, "passwordAlgorithm", algorithms === BAD ? BAD : algorithms[0]);
    }
    case T.PASSWORD_ALGORITHMS:
      return put(into, "passwordAlgorithms", getAlgorithms(bytes, at, length));
    case T.ERROR_CODE:
      return put(into, "errorCode", getError(bytes, at, length));
    case T.UNKNOWN_ATTRIBUTES:
      return put(into, "unknownAttributes", getTypes(bytes, at, length));
    case T.SOFTWARE:
      return put(into, "software", getText(bytes, at, length));
    case T.ALTERNATE_SERVER:
      return put(into, "alternateServer", getEndpoint(bytes, at, length, false));
    case T.ALTERNATE_DOMAIN:
      return put(into, "alternateDomain", length > 255 ? BAD : getText(bytes, at, length));
    case T.PRIORITY:
      return put(into, "priority", getNumber(bytes, at, length));
    case T.USE_CANDIDATE:
      return put(into, "useCandidate", length === 0 ? true : BAD);
    case T.ICE_CONTROLLED:
      return put(into, "iceControlled", getTiebreaker(bytes, at, length));
    case T.ICE_CONTROLLING:
      return put(into, "iceControlling", getTiebreaker(bytes, at, length));
    case T.CHANGE_REQUEST:
      return put(
        into,
        "changeRequest",
        length !== 4
          ? BAD
          : { address: (bytes[at + 3]! & 4) !== 0, port: (bytes[at + 3]! & 2) !== 0 },
      );
    case T.RESPONSE_ORIGIN:
      return put(into, "responseOrigin", getEndpoint(bytes, at, length, false));
    case T.OTHER_ADDRESS:
      return put(into, "otherAddress", getEndpoint(bytes, at, length, false));
    case T.RESPONSE_PORT:
      return put(into, "responsePort", length === 4 ? u16(bytes, at) : BAD);
    case T.PADDING:
      return put(into, "padding", bytes.subarray(at, at + length));
    case T.CACHE_TIMEOUT:
      return put(into, "cacheTimeoutSeconds", getNumber(bytes, at, length));
    case T.CHANNEL_NUMBER:
      return put(into, "channelNumber", length === 4 ? u16(bytes, at) : BAD);
    case T.LIFETIME:
      return put(into, "lifetimeSeconds", getNumber(bytes, at, length));
    case T.XOR_PEER_ADDRESS: {
      const peer = getEndpoint(bytes, at, length, true);
      if (peer === BAD) return false;
      const peers = (into.xorPeerAddresses ??= []) as Endpoint[];
      if (peer && peers.length < MAX_LISTED) peers.push(peer);
      return true;
    }
    case T.DATA:
      return put(into, "data", bytes.subarray(at, at + length));
    case T.XOR_RELAYED_ADDRESS:
      return put(into, "xorRelayedAddress", getEndpoint(bytes, at, length, true));
    case T.REQUESTED_ADDRESS_FAMILY: {
      const family = bytes[at]!;
      return put(
        into,
        "requestedAddressFamily",
        length !== 4 || (family !== 1 && family !== 2) ? BAD : family === 1 ? 4 : 6,
      );
    }
    case T.REQUESTED_TRANSPORT:
      return put(into, "requestedTransport", length === 4 ? bytes[at]! : BAD);
    case T.DONT_FRAGMENT:
      return put(into, "dontFragment", length === 0 ? true : BAD);
    case T.SOURCE_ADDRESS:
      return put(into, "sourceAddress", getEndpoint(bytes, at, length, false));
    case T.CHANGED_ADDRESS:
      return put(into, "changedAddress", getEndpoint(bytes, at, length, false));
    case T.RESPONSE_ADDRESS:
    case T.PASSWORD:
    case T.REFLECTED_FROM:
      // Old servers put them into answers, where they tell nothing that is needed. In a request
      // they want what no server should do any more, and must not be taken for understood.
      return of === "success" ? true : undefined;
    default:
      return undefined;
  }
}

const NONE: readonly UnknownAttribute[] = [];

/**
 * Reads a datagram, or one message of a stream.
 *
 * Of an attribute that comes twice the first counts; what follows MESSAGE-INTEGRITY is left out,
 * because nothing protects it (RFC 8489 §14, §14.5). Whether the integrity is right is
 * {@linkcode hasIntegrity}'s to tell; a FINGERPRINT is looked at here.
 *
 * @param options `classic`: read RFC 3489's form too, which has 16 bytes of transaction id and no
 * cookie.
 */
export function decodeStun(
  bytes: Uint8Array,
  options: { readonly classic?: boolean } = {},
): StunMessage | StunFault {
  const length = bytes.length;
  if (length < STUN_HEADER_LENGTH) return "too-short";
  if (bytes[0]! > 3) return "not-stun";
  const isClassic = u32(bytes, 4) !== COOKIE;
  if (isClassic && !options.classic) return "no-cookie";
  if ((length & 3) !== 0 || u16(bytes, 2) !== length - STUN_HEADER_LENGTH) return "bad-length";
  const type = u16(bytes, 0);
  const of = CLASSES[type >>> 7 & 2 | type >>> 4 & 1]!;
  const attributes: Into = {};
  let unknown = NONE as UnknownAttribute[];
  let integrityAt = 0, integritySha256At = 0, hasFingerprint = false;
  for (let at = STUN_HEADER_LENGTH; at < length;) {
    if (hasFingerprint) return "bad-fingerprint";
    const name = u16(bytes, at), size = u16(bytes, at + 2);
    const value = at + 4, next = value + ((size + 3) & ~3);
    if (next > length) return "bad-length";
    if (name === T.FINGERPRINT) {
      if (size !== 4 || u32(bytes, value) !== fingerprintOf(bytes, at)) return "bad-fingerprint";
      hasFingerprint = true;
    } else if (name === T.MESSAGE_INTEGRITY_SHA256) {
      if (integritySha256At === 0) {
        if (size !== INTEGRITY_LENGTH.sha256) return "bad-attribute";
        integritySha256At = at;
      }
    } else if (integritySha256At === 0 && integrityAt === 0) {
      if (name === T.MESSAGE_INTEGRITY) {
        if (size !== INTEGRITY_LENGTH.sha1) return "bad-attribute";
        integrityAt = at;
      } else {
        const taken = getAttribute(bytes, name, value, size, of, attributes);
        // One that may be left aside is, also where it cannot be read.
        if (taken === false && name < 0x8000) return "bad-attribute";
        // Those that may be left aside leave room for those that may not.
        const most = name < 0x8000 ? 2 * MAX_LISTED : MAX_LISTED;
        if (taken === undefined && unknown.length < most) {
          if (unknown.length === 0) unknown = [];
          unknown.push({ type: name, value: bytes.subarray(value, value + size) });
        }
      }
    }
    at = next;
  }
  return {
    class: of,
    method: type & 0xf | type >>> 1 & 0x70 | type >>> 2 & 0xf80,
    transactionId: bytes.subarray(isClassic ? 4 : 8, STUN_HEADER_LENGTH),
    attributes,
    unknown,
    bytes,
    integrityAt,
    integritySha256At,
    hasFingerprint,
  };
}

/**
 * Whether a message has the integrity attribute of this hash, by default the stronger that it has,
 * and was made with `key`.
 */
export function hasIntegrity(message: StunMessage, key: Uint8Array, hash?: IntegrityHash): boolean {
  const { bytes, integrityAt, integritySha256At } = message;
  if (integritySha256At > 0 && hash !== "sha1") {
    return isIntact(bytes, integritySha256At, key, "sha256");
  }
  return integrityAt > 0 && hash !== "sha256" && isIntact(bytes, integrityAt, key, "sha1");
}

/** Types of unknown attributes that must be understood: a request with one is refused (STUN-05). */
export function unknownRequired(message: StunMessage): number[] {
  const { unknown } = message;
  return unknown.length === 0
    ? []
    : [...new Set(unknown.map(({ type }) => type).filter((type) => type < 0x8000))];
}
