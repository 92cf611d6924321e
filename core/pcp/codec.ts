/**
 * PCP messages, both directions (RFC 6887 §7, §11.1, §12.1, §14.1). Decoders return a value or a
 * {@linkcode PcpFault} and never throw; a payload, or an option's data, is a view into the packet,
 * to be copied by who keeps it. Encoders throw on what does not fit the wire.
 *
 * @module
 */
import { putU16, putU32, u16, u32 } from "../bytes.ts";
import { getAddress16, putAddress16 } from "../ip.ts";
import {
  PCP_HEADER_LENGTH,
  PCP_MAX_LENGTH,
  PCP_NONCE_LENGTH,
  PCP_NONCE_OFFSET,
  PCP_OPCODE,
  PCP_RESULT,
  PCP_VERSION,
} from "./constants.ts";
import type {
  PcpErrorFields,
  PcpFault,
  PcpMappingFields,
  PcpRequest,
  PcpRequestHeader,
  PcpResponse,
  PcpUnsupportedVersion,
} from "./messages.ts";
import { decodeOptions, decodeOptionsLeniently, optionsLength, putOptions } from "./options.ts";

export * from "./constants.ts";
export * from "./messages.ts";

const MAP_LENGTH = 60;
const PEER_LENGTH = 80;

/** The shortest message of an opcode. */
export function minimumLength(opcode: number): number {
  if (opcode === PCP_OPCODE.MAP) return MAP_LENGTH;
  return opcode === PCP_OPCODE.PEER ? PEER_LENGTH : PCP_HEADER_LENGTH;
}

function checkLength(bytes: Uint8Array): "too-short" | "bad-length" | undefined {
  const length = bytes.length;
  if (length < PCP_HEADER_LENGTH) return "too-short";
  if (length > PCP_MAX_LENGTH || (length & 3) !== 0 || length < minimumLength(bytes[1]! & 0x7f)) {
    return "bad-length";
  }
  return undefined;
}

/** A copy: a view of so few bytes costs more, on Bun as much as all the rest of a request. */
function nonceOf(bytes: Uint8Array): Uint8Array {
  const nonce = new Uint8Array(PCP_NONCE_LENGTH);
  for (let i = 0; i < PCP_NONCE_LENGTH; i++) nonce[i] = bytes[PCP_NONCE_OFFSET + i]!;
  return nonce;
}

function checkRequest(bytes: Uint8Array): PcpFault | undefined {
  if (bytes.length < 2) return "too-short";
  if (bytes[1]! & 0x80) return "not-a-request";
  if (bytes[0] !== PCP_VERSION) return "wrong-version";
  return checkLength(bytes);
}

/**
 * The header of a request, with the faults of PCP-S-02…07 in their order; options are not looked
 * at, so that a server can judge the address and the opcode first (PCP-S-08…10).
 */
export function decodeRequestHeader(bytes: Uint8Array): PcpRequestHeader | PcpFault {
  return checkRequest(bytes) ?? {
    opcode: bytes[1]!,
    lifetimeSeconds: u32(bytes, 4),
    clientAddress: getAddress16(bytes, 8),
  };
}

/**
 * Reads a request. Faults come in the order of PCP-S-02…10: `"too-short"` and `"not-a-request"`
 * are to be dropped, `"wrong-version"` is UNSUPP_VERSION, `"bad-length"` MALFORMED_REQUEST, and
 * `"bad-options"` MALFORMED_OPTION, once {@linkcode decodeRequestHeader} has passed.
 *
 * @example
 * ```ts
 * import { decodeRequest, encodeRequest } from "@natkit/natkit/pcp";
 * const bytes = encodeRequest({
 *   kind: "announce", lifetimeSeconds: 0, clientAddress: "192.168.1.100", options: [],
 * });
 * const request = decodeRequest(bytes);
 * console.assert(typeof request === "object" && request.kind === "announce");
 * ```
 */
export function decodeRequest(bytes: Uint8Array): PcpRequest | PcpFault {
  const fault = checkRequest(bytes);
  if (fault !== undefined) return fault;
  const opcode = bytes[1]!;
  const lifetimeSeconds = u32(bytes, 4);
  const clientAddress = getAddress16(bytes, 8);
  if (opcode > PCP_OPCODE.PEER) {
    const payload = bytes.subarray(PCP_HEADER_LENGTH);
    return { kind: "other", opcode, lifetimeSeconds, clientAddress, payload };
  }
  const options = decodeOptions(bytes, minimumLength(opcode));
  if (options === "bad-options") return options;
  if (opcode === PCP_OPCODE.ANNOUNCE) {
    return { kind: "announce", lifetimeSeconds, clientAddress, options };
  }
  const nonce = nonceOf(bytes);
  const protocol = bytes[36]!;
  const internalPort = u16(bytes, 40);
  const suggestedPort = u16(bytes, 42);
  const suggestedAddress = getAddress16(bytes, 44);
  if (opcode === PCP_OPCODE.MAP) {
    return {
      kind: "map",
      lifetimeSeconds,
      clientAddress,
      nonce,
      protocol,
      internalPort,
      suggestedPort,
      suggestedAddress,
      options,
    };
  }
  return {
    kind: "peer",
    lifetimeSeconds,
    clientAddress,
    nonce,
    protocol,
    internalPort,
    suggestedPort,
    suggestedAddress,
    remotePort: u16(bytes, 60),
    remoteAddress: getAddress16(bytes, 64),
    options,
  };
}

/**
 * Reads a response, in the order of RFC 6887 §8.3: length of four, R bit, UNSUPP_VERSION, then
 * version and lengths. Options that cannot be read are left out, the rest of the answer stands.
 */
export function decodeResponse(bytes: Uint8Array): PcpResponse | PcpFault {
  if (bytes.length < 4) return "too-short";
  const version = bytes[0]!;
  if (version === 0 && u16(bytes, 2) === 1) return unsupportedVersion(bytes);
  if ((bytes[1]! & 0x80) === 0) return "not-a-response";
  const resultCode = bytes[3]!;
  if (resultCode === PCP_RESULT.UNSUPP_VERSION) return unsupportedVersion(bytes);
  if (version !== PCP_VERSION) return "wrong-version";
  const fault = checkLength(bytes);
  if (fault !== undefined) return fault;
  const opcode = bytes[1]! & 0x7f;
  const lifetimeSeconds = u32(bytes, 4);
  const epochSeconds = u32(bytes, 8);
  if (opcode > PCP_OPCODE.PEER) {
    const payload = bytes.subarray(PCP_HEADER_LENGTH);
    return { kind: "other", opcode, resultCode, lifetimeSeconds, epochSeconds, payload };
  }
  const options = decodeOptionsLeniently(bytes, minimumLength(opcode));
  if (opcode === PCP_OPCODE.ANNOUNCE) {
    return { kind: "announce", resultCode, lifetimeSeconds, epochSeconds, options };
  }
  if (opcode === PCP_OPCODE.MAP) {
    return {
      kind: "map",
      resultCode,
      lifetimeSeconds,
      epochSeconds,
      nonce: nonceOf(bytes),
      protocol: bytes[36]!,
      internalPort: u16(bytes, 40),
      externalPort: u16(bytes, 42),
      externalAddress: getAddress16(bytes, 44),
      options,
    };
  }
  return {
    kind: "peer",
    resultCode,
    lifetimeSeconds,
    epochSeconds,
    nonce: nonceOf(bytes),
    protocol: bytes[36]!,
    internalPort: u16(bytes, 40),
    externalPort: u16(bytes, 42),
    externalAddress: getAddress16(bytes, 44),
    remotePort: u16(bytes, 60),
    remoteAddress: getAddress16(bytes, 64),
    options,
  };
}

function unsupportedVersion(bytes: Uint8Array): PcpUnsupportedVersion {
  const isPcpForm = bytes[0] !== 0 && bytes.length >= 12;
  return {
    kind: "unsupported-version",
    version: bytes[0]!,
    opcode: bytes[1]! & 0x7f,
    lifetimeSeconds: isPcpForm ? u32(bytes, 4) : undefined,
    epochSeconds: isPcpForm ? u32(bytes, 8) : undefined,
  };
}

/** A zeroed message with its first two bytes set. */
function message(version: number, second: number, length: number): Uint8Array {
  if (length > PCP_MAX_LENGTH) {
    throw new RangeError(
      `Cannot encode PCP message as it must fit ${PCP_MAX_LENGTH} bytes: current length is ${length}`,
    );
  }
  const bytes = new Uint8Array(length);
  bytes[0] = version;
  bytes[1] = second;
  return bytes;
}

function putMapping(
  bytes: Uint8Array,
  fields: PcpMappingFields,
  externalPort: number,
  externalAddress: string,
): void {
  if (fields.nonce.length !== PCP_NONCE_LENGTH) {
    throw new RangeError(
      `'nonce' must be ${PCP_NONCE_LENGTH} bytes long: current length is ${fields.nonce.length}`,
    );
  }
  for (let i = 0; i < PCP_NONCE_LENGTH; i++) bytes[PCP_NONCE_OFFSET + i] = fields.nonce[i]!;
  bytes[36] = fields.protocol;
  putU16(bytes, 40, fields.internalPort);
  putU16(bytes, 42, externalPort);
  putAddress16(bytes, 44, externalAddress);
}

function putRemote(bytes: Uint8Array, port: number, address: string): void {
  putU16(bytes, 60, port);
  putAddress16(bytes, 64, address);
}

/**
 * Writes a request.
 *
 * @throws {RangeError} Where it does not fit 1100 bytes, or the nonce is not 12 bytes long.
 * @throws {TypeError} Where an address is none.
 */
export function encodeRequest(request: PcpRequest): Uint8Array {
  const opcode = opcodeOf(request);
  const bodyLength = minimumLength(opcode);
  const rest = request.kind === "other" ? request.payload.length : optionsLength(request.options);
  const bytes = message(PCP_VERSION, opcode, bodyLength + rest);
  putU32(bytes, 4, request.lifetimeSeconds);
  putAddress16(bytes, 8, request.clientAddress);
  if (request.kind === "other") {
    bytes.set(request.payload, PCP_HEADER_LENGTH);
    return bytes;
  }
  if (request.kind !== "announce") {
    putMapping(bytes, request, request.suggestedPort, request.suggestedAddress);
  }
  if (request.kind === "peer") putRemote(bytes, request.remotePort, request.remoteAddress);
  putOptions(bytes, bodyLength, request.options);
  return bytes;
}

function opcodeOf(message: PcpRequest | PcpResponse): number {
  switch (message.kind) {
    case "announce":
      return PCP_OPCODE.ANNOUNCE;
    case "map":
      return PCP_OPCODE.MAP;
    case "peer":
      return PCP_OPCODE.PEER;
    default:
      return message.opcode;
  }
}

/**
 * Writes a response field by field. An error reply is better made of its request, with
 * {@linkcode encodeErrorResponse}.
 *
 * @throws {RangeError} Where it does not fit 1100 bytes, or the nonce is not 12 bytes long.
 * @throws {TypeError} Where an address is none.
 */
export function encodeResponse(response: PcpResponse): Uint8Array {
  const opcode = opcodeOf(response);
  if (response.kind === "unsupported-version") {
    const bytes = message(response.version, 0x80 | opcode, PCP_HEADER_LENGTH);
    bytes[3] = PCP_RESULT.UNSUPP_VERSION;
    putU32(bytes, 4, response.lifetimeSeconds ?? 0);
    putU32(bytes, 8, response.epochSeconds ?? 0);
    return bytes;
  }
  const bodyLength = minimumLength(opcode);
  const rest = response.kind === "other"
    ? response.payload.length
    : optionsLength(response.options);
  const bytes = message(PCP_VERSION, 0x80 | opcode, bodyLength + rest);
  bytes[3] = response.resultCode;
  putU32(bytes, 4, response.lifetimeSeconds);
  putU32(bytes, 8, response.epochSeconds);
  if (response.kind === "other") {
    bytes.set(response.payload, PCP_HEADER_LENGTH);
    return bytes;
  }
  if (response.kind !== "announce") {
    putMapping(bytes, response, response.externalPort, response.externalAddress);
  }
  if (response.kind === "peer") putRemote(bytes, response.remotePort, response.remoteAddress);
  putOptions(bytes, bodyLength, response.options);
  return bytes;
}

/**
 * An error reply: the whole request, cut to 1100 bytes and padded with zeros to a multiple of 4,
 * at least a header long, with R, result, lifetime and epoch set (PCP-S-07, PCP-S-16).
 */
export function encodeErrorResponse(request: Uint8Array, fields: PcpErrorFields): Uint8Array {
  const copied = Math.min(request.length, PCP_MAX_LENGTH);
  const length = Math.max(PCP_HEADER_LENGTH, (copied + 3) & ~3);
  const bytes = new Uint8Array(length);
  bytes.set(copied === request.length ? request : request.subarray(0, copied));
  bytes[0] = fields.version ?? PCP_VERSION;
  bytes[1]! |= 0x80;
  bytes[2] = 0;
  bytes[3] = fields.resultCode;
  putU32(bytes, 4, fields.lifetimeSeconds);
  putU32(bytes, 8, fields.epochSeconds);
  if (fields.parsed ?? true) bytes.fill(0, 12, 24);
  return bytes;
}
