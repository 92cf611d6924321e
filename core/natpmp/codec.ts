/**
 * NAT-PMP on the wire (RFC 6886 §3), both directions. Decoders take any bytes and return a value
 * or a fault; trailing bytes are ignored, because the messages carry no length of their own.
 *
 * @module
 */
import { putU16, putU32, u16, u32 } from "../bytes.ts";
import { checkAddress, checkInteger, checkLifetime, checkPort } from "../check.ts";
import { classify } from "../cidr.ts";
import { formatIPv4, parseIp } from "../ip.ts";
import type { Endpoint } from "../machine.ts";
import type { Transport } from "../mapping.ts";

/** The port on which gateways take requests (RFC 6886 §3.1). */
export const NATPMP_PORT = 5351;
/** The port on which clients listen for announcements (RFC 6886 §3.2.1). */
export const ANNOUNCE_PORT = 5350;
/** Where gateways send announcements, and what a listener binds to (PMP-C-17, PMP-S-07). */
export const NATPMP_ANNOUNCE_ENDPOINT: Endpoint = { address: "224.0.0.1", port: ANNOUNCE_PORT };
/** The lifetime that the RFC recommends to ask for, seconds (RFC 6886 §3.3, PMP-C-20). */
export const NATPMP_LIFETIME_SECONDS = 7200;

/**
 * Whether a host with this address should use NAT-PMP at all: its primary IPv4 address is one of
 * RFC 1918's (RFC 6886 §3, PMP-C-02).
 *
 * @param localAddress Canonical address of this host towards the gateway.
 */
export function isNatPmpNetwork(localAddress: string): boolean {
  return classify(localAddress) === "private";
}

/** Result codes (RFC 6886 §3.5). */
export const NATPMP_RESULT = {
  /** Done. */
  SUCCESS: 0,
  /** The server does not speak this version. */
  UNSUPP_VERSION: 1,
  /** Not authorized or refused: the feature is off, or the mapping is not the client's. */
  NOT_AUTHORIZED: 2,
  /** The gateway itself has no network. */
  NETWORK_FAILURE: 3,
  /** No more mappings at this time. */
  OUT_OF_RESOURCES: 4,
  /** The server does not know this opcode. */
  UNSUPP_OPCODE: 5,
} as const;

const RESULT_NAMES: readonly string[] = Object.keys(NATPMP_RESULT);

/** The name of a result code; `"RESULT_n"` where the RFC has none. */
export function natPmpResultName(code: number): string {
  return RESULT_NAMES[code] ?? `RESULT_${code}`;
}

/** Opcodes of requests; a response has 128 more. */
export const NATPMP_OPCODE = {
  /** What is the external address? */
  ADDRESS: 0,
  /** Map a UDP port. */
  MAP_UDP: 1,
  /** Map a TCP port. */
  MAP_TCP: 2,
} as const;

/** Why bytes are no message of the wanted kind. */
export type NatPmpFault =
  /** Shorter than what its first bytes announce. */
  | "too-short"
  /** A response where a request is wanted; servers ignore it (PMP-S-02). */
  | "not-a-request"
  /** A request where a response is wanted. */
  | "not-a-response"
  /** A message of another version with a meaning of its own there: a PCP response. */
  | "other-version";

/** A mapping request's fields; a delete has lifetime 0. */
export interface NatPmpMapFields {
  /** Which transport; it is the opcode on the wire. */
  readonly protocol: Transport;
  /** 0…65535; 0 with lifetime 0 means all of the client's mappings of this protocol. */
  readonly internalPort: number;
  /** 0…65535; 0 leaves the choice to the gateway. */
  readonly suggestedExternalPort: number;
  /** 0…2³²−1 seconds. */
  readonly lifetimeSeconds: number;
}

/** A request as a server reads it. */
export type NatPmpRequest =
  /** The external address is asked for. */
  | { readonly kind: "address" }
  /** A mapping is asked for, renewed or deleted. */
  | { readonly kind: "map" } & NatPmpMapFields
  /** A version that is not NAT-PMP's: to be answered UNSUPP_VERSION, or by PCP (PMP-S-01). */
  | { readonly kind: "unsupported-version"; readonly version: number; readonly opcode: number }
  /** An opcode that NAT-PMP does not have: to be answered UNSUPP_OPCODE (PMP-S-03). */
  | { readonly kind: "unsupported-opcode"; readonly opcode: number };

/** A response as a client reads it. */
export type NatPmpResponse =
  /** The external address, asked for or announced. */
  | {
    readonly kind: "address";
    readonly resultCode: number;
    /** Absent only in an error of less than 8 bytes. */
    readonly epochSeconds: number | undefined;
    /** Absent where the result is an error: the field means nothing then (PMP-C-13). */
    readonly externalAddress: string | undefined;
  }
  /** What became of a mapping request. */
  | {
    readonly kind: "map";
    readonly protocol: Transport;
    readonly resultCode: number;
    /** Absent only in an error of less than 8 bytes. */
    readonly epochSeconds: number | undefined;
    /** Absent in an error shorter than 16 bytes: some gateways leave the rest out. */
    readonly internalPort: number | undefined;
    /** 0 in errors and after a delete. */
    readonly externalPort: number;
    /** 0 in errors and after a delete. */
    readonly lifetimeSeconds: number;
  }
  /** The server does not speak NAT-PMP, or not to this request. */
  | {
    readonly kind: "unsupported-version";
    /** What the server speaks: its version byte. */
    readonly version: number;
    /** The opcode of the request that it answers; absent without a response bit (RFC 6886's figure). */
    readonly opcode: number | undefined;
    /** NAT-PMP's form only; in PCP's form bytes 4–7 are no epoch. */
    readonly epochSeconds: number | undefined;
  }
  /** An opcode that NAT-PMP does not define; its epoch still counts. */
  | {
    readonly kind: "other";
    /** The request's opcode, 3…127. */
    readonly opcode: number;
    readonly resultCode: number;
    readonly epochSeconds: number | undefined;
  };

function mapOpcode(protocol: Transport): number {
  return protocol === "udp" ? NATPMP_OPCODE.MAP_UDP : NATPMP_OPCODE.MAP_TCP;
}

/** The 2 bytes that ask for the external address (PMP-C-12). */
export function encodeAddressRequest(): Uint8Array {
  return new Uint8Array(2);
}

/**
 * The 12 bytes of a mapping request (RFC 6886 §3.3). Fields go out as they are: that a delete
 * carries external port 0 (PMP-C-24) is its maker's business.
 *
 * @throws {TypeError | RangeError} Where a field does not fit.
 *
 * @example
 * ```ts
 * import { encodeMapRequest } from "@natkit/natkit/nat-pmp";
 * const bytes = encodeMapRequest({
 *   protocol: "tcp",
 *   internalPort: 8080,
 *   suggestedExternalPort: 8080,
 *   lifetimeSeconds: 7200,
 * });
 * console.assert(bytes.length === 12 && bytes[1] === 2);
 * ```
 */
export function encodeMapRequest(fields: NatPmpMapFields): Uint8Array {
  const bytes = new Uint8Array(12);
  bytes[1] = mapOpcode(fields.protocol);
  putU16(bytes, 4, checkPort("internalPort", fields.internalPort, 0));
  putU16(bytes, 6, checkPort("suggestedExternalPort", fields.suggestedExternalPort, 0));
  putU32(bytes, 8, checkLifetime("lifetimeSeconds", fields.lifetimeSeconds, 0));
  return bytes;
}

/**
 * Reads a request. Versions and opcodes that NAT-PMP does not have are values, not faults: a
 * server has to answer them.
 */
export function decodeRequest(
  bytes: Uint8Array,
): NatPmpRequest | Extract<NatPmpFault, "too-short" | "not-a-request"> {
  if (bytes.length < 2) return "too-short";
  const version = bytes[0]!, opcode = bytes[1]!;
  if (opcode >= 128) return "not-a-request";
  if (version !== 0) return { kind: "unsupported-version", version, opcode };
  if (opcode === NATPMP_OPCODE.ADDRESS) return { kind: "address" };
  if (opcode > NATPMP_OPCODE.MAP_TCP) return { kind: "unsupported-opcode", opcode };
  if (bytes.length < 12) return "too-short";
  return {
    kind: "map",
    protocol: opcode === NATPMP_OPCODE.MAP_UDP ? "udp" : "tcp",
    internalPort: u16(bytes, 4),
    suggestedExternalPort: u16(bytes, 6),
    lifetimeSeconds: u32(bytes, 8),
  };
}

function header(length: number, opcode: number, resultCode: number, epoch: number): Uint8Array {
  const bytes = new Uint8Array(length);
  bytes[1] = opcode;
  putU16(bytes, 2, checkInteger("resultCode", resultCode, 0, 0xffff));
  putU32(bytes, 4, checkInteger("epochSeconds", epoch, 0, 0xffff_ffff));
  return bytes;
}

/**
 * The 12 bytes of an address response or announcement; the address goes out as zero where the
 * result is an error (PMP-S-05).
 *
 * @throws {TypeError | RangeError} Where a field does not fit.
 */
export function encodeAddressResponse(fields: {
  readonly resultCode: number;
  readonly epochSeconds: number;
  /** IPv4; looked at only where the result is a success. */
  readonly externalAddress: string;
}): Uint8Array {
  const bytes = header(12, 128, fields.resultCode, fields.epochSeconds);
  if (fields.resultCode === NATPMP_RESULT.SUCCESS) {
    bytes.set(parseIp(checkAddress("externalAddress", fields.externalAddress, 4))!, 8);
  }
  return bytes;
}

/**
 * The 16 bytes of a mapping response (RFC 6886 §3.3).
 *
 * @throws {TypeError | RangeError} Where a field does not fit.
 */
export function encodeMapResponse(fields: {
  readonly protocol: Transport;
  readonly resultCode: number;
  readonly epochSeconds: number;
  readonly internalPort: number;
  readonly externalPort: number;
  readonly lifetimeSeconds: number;
}): Uint8Array {
  const bytes = header(
    16,
    128 + mapOpcode(fields.protocol),
    fields.resultCode,
    fields.epochSeconds,
  );
  putU16(bytes, 8, checkPort("internalPort", fields.internalPort, 0));
  putU16(bytes, 10, checkPort("externalPort", fields.externalPort, 0));
  putU32(bytes, 12, checkLifetime("lifetimeSeconds", fields.lifetimeSeconds, 0));
  return bytes;
}

/**
 * An error without fields of its own: the whole `request` with the response bit, result code and
 * epoch written over it, zero-padded to 8 bytes (PMP-S-03). Without a request the
 * 8 bytes alone, as some gateways answer everything they refuse.
 *
 * @throws {RangeError} Where a field does not fit.
 */
export function encodeErrorResponse(fields: {
  /** The request's opcode, 0…127. */
  readonly opcode: number;
  readonly resultCode: number;
  readonly epochSeconds: number;
  /** The request, returned to its sender. */
  readonly request?: Uint8Array;
}): Uint8Array {
  const opcode = checkInteger("opcode", fields.opcode, 0, 127);
  const head = header(8, 128 + opcode, fields.resultCode, fields.epochSeconds);
  if (!fields.request) return head;
  const bytes = new Uint8Array(Math.max(8, fields.request.length));
  bytes.set(fields.request);
  bytes.set(head);
  return bytes;
}

/**
 * The 8 bytes of UNSUPP_VERSION (PMP-S-01). The RFC's figure has opcode 0 without the response
 * bit; gateways in the field set 128 + the request's opcode: given an `opcode`, so does this.
 *
 * @throws {RangeError} Where a field does not fit.
 */
export function encodeUnsupportedVersionResponse(fields: {
  readonly epochSeconds: number;
  /** The request's opcode, 0…127. */
  readonly opcode?: number;
}): Uint8Array {
  const opcode = fields.opcode === undefined
    ? 0
    : 128 + checkInteger("opcode", fields.opcode, 0, 127);
  return header(8, opcode, NATPMP_RESULT.UNSUPP_VERSION, fields.epochSeconds);
}

/**
 * Reads a response or an announcement.
 *
 * A success must be complete. An error may stop after its result code: gateways send 8 bytes
 * where the RFC wants 12 or 16. UNSUPP_VERSION counts whatever its opcode and
 * length. A response of another version is one too, unless it is a full PCP message with
 * another result: seen are 24 bytes, but also `02 80` alone and 12 bytes that echo ours.
 */
export function decodeResponse(
  bytes: Uint8Array,
): NatPmpResponse | Exclude<NatPmpFault, "not-a-request"> {
  const length = bytes.length;
  if (length < 2) return "too-short";
  const version = bytes[0]!, opcode = bytes[1]!;
  if (version !== 0) {
    if (opcode < 128) return "not-a-response";
    if (length >= 24 && bytes[3] !== NATPMP_RESULT.UNSUPP_VERSION) return "other-version";
    return {
      kind: "unsupported-version",
      version,
      opcode: opcode - 128,
      epochSeconds: undefined,
    };
  }
  if (length < 4) return "too-short";
  const resultCode = u16(bytes, 2);
  const epochSeconds = length < 8 ? undefined : u32(bytes, 4);
  if (resultCode === NATPMP_RESULT.UNSUPP_VERSION) {
    return {
      kind: "unsupported-version",
      version,
      opcode: opcode < 128 ? undefined : opcode - 128,
      epochSeconds,
    };
  }
  if (opcode < 128) return "not-a-response";
  const isError = resultCode !== NATPMP_RESULT.SUCCESS;
  switch (opcode - 128) {
    case NATPMP_OPCODE.ADDRESS: {
      if (isError) return { kind: "address", resultCode, epochSeconds, externalAddress: undefined };
      if (length < 12) return "too-short";
      return { kind: "address", resultCode, epochSeconds, externalAddress: formatIPv4(bytes, 8) };
    }
    case NATPMP_OPCODE.MAP_UDP:
    case NATPMP_OPCODE.MAP_TCP: {
      if (!isError && length < 16) return "too-short";
      const isWhole = length >= 16;
      return {
        kind: "map",
        protocol: opcode - 128 === NATPMP_OPCODE.MAP_UDP ? "udp" : "tcp",
        resultCode,
        epochSeconds,
        internalPort: isWhole ? u16(bytes, 8) : undefined,
        externalPort: isError ? 0 : u16(bytes, 10),
        lifetimeSeconds: isError ? 0 : u32(bytes, 12),
      };
    }
    default:
      return { kind: "other", opcode: opcode - 128, resultCode, epochSeconds };
  }
}
