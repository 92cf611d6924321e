/**
 * What real gateways do to their replies on the way out, as data: a rule says which replies and
 * what becomes of them. The servers stay as the RFCs have them; the bytes are changed behind them.
 *
 * @module
 */
import { copyBytes, putU16, putU32, u16 } from "../bytes.ts";
import { parseIp, putAddress16 } from "../ip.ts";

/** Which replies a {@linkcode ReplyRule} is for. Everything named has to be so. */
export interface ReplyMatch {
  /** The protocol of the reply, by its version byte. */
  readonly protocol?: "pcp" | "nat-pmp";
  /** Opcodes of the request, without the reply bit. */
  readonly opcodes?: readonly number[];
  /** Result codes; left out: any. */
  readonly results?: readonly number[];
  /** Errors of any code (true), successes (false). */
  readonly isError?: boolean;
  /** Whether it answers a request (true) or announces (false). */
  readonly isReply?: boolean;
}

/** What becomes of a reply. */
export type ReplyChange =
  /** Only its first bytes leave. */
  | { readonly kind: "cut"; readonly length: number }
  /** Its opcode is the request's with the reply bit set, where the RFC has another. */
  | { readonly kind: "echo-opcode" }
  /** Another result code. */
  | { readonly kind: "result"; readonly code: number }
  /** Ports, internal and external, lose the bits that are not in the mask. */
  | { readonly kind: "mask-ports"; readonly mask: number }
  /** Another external port. */
  | { readonly kind: "external-port"; readonly port: number }
  /** Another external address. */
  | { readonly kind: "external-address"; readonly address: string }
  /** Another lifetime, seconds. */
  | { readonly kind: "lifetime"; readonly seconds: number }
  /** Another version byte. */
  | { readonly kind: "version"; readonly version: number };

/** A rule: which replies, and what becomes of them. */
export interface ReplyRule {
  /** Which replies. */
  readonly when: ReplyMatch;
  /** The changes, in order. */
  readonly then: readonly ReplyChange[];
}

/**
 * The bytes that leave. `request` is what is answered, undefined for an announcement. Where no
 * rule fits, it is `reply` itself; `reply` is never written to.
 */
export function reshapeReply(
  reply: Uint8Array,
  request: Uint8Array | undefined,
  rules: readonly ReplyRule[],
): Uint8Array {
  let bytes = reply;
  for (const { when, then } of rules) {
    if (!matches(reply, request, when)) continue;
    if (bytes === reply) bytes = copyBytes(reply);
    for (const change of then) bytes = applyChange(bytes, request, change);
  }
  return bytes;
}

function matches(
  reply: Uint8Array,
  request: Uint8Array | undefined,
  when: ReplyMatch,
): boolean {
  const isPcp = reply[0] === 2;
  if (when.protocol !== undefined && (when.protocol === "pcp") !== isPcp) return false;
  if (when.isReply !== undefined && when.isReply !== (request !== undefined)) return false;
  const opcode = (request?.[1] ?? reply[1] ?? 0) & 0x7f;
  if (when.opcodes && !when.opcodes.includes(opcode)) return false;
  const result = resultOf(reply);
  if (when.results && !when.results.includes(result)) return false;
  return when.isError === undefined || when.isError === (result !== 0);
}

function resultOf(reply: Uint8Array): number {
  if (reply.length < 4) return 0;
  return reply[0] === 2 ? reply[3]! : u16(reply, 2);
}

/** Where a field stands in a reply, by protocol; undefined where that reply has none. */
function fieldAt(
  bytes: Uint8Array,
  field: "lifetime" | "internal-port" | "external-port" | "external-address",
): number | undefined {
  const opcode = bytes[1]! & 0x7f;
  const isPcp = bytes[0] === 2, isMapping = opcode === 1 || opcode === 2;
  const at = {
    lifetime: isPcp ? 4 : isMapping ? 12 : undefined,
    "internal-port": isMapping ? (isPcp ? 40 : 8) : undefined,
    "external-port": isMapping ? (isPcp ? 42 : 10) : undefined,
    "external-address": isPcp ? (isMapping ? 44 : undefined) : opcode === 0 ? 8 : undefined,
  }[field];
  const length = field.endsWith("port") ? 2 : field === "external-address" && isPcp ? 16 : 4;
  return at !== undefined && at + length <= bytes.length ? at : undefined;
}

function applyChange(
  bytes: Uint8Array,
  request: Uint8Array | undefined,
  change: ReplyChange,
): Uint8Array {
  switch (change.kind) {
    case "cut":
      return bytes.slice(0, change.length);
    case "echo-opcode":
      if (request && request.length > 1) bytes[1] = request[1]! | 0x80;
      return bytes;
    case "result":
      if (bytes[0] === 2) bytes[3] = change.code;
      else if (bytes.length >= 4) putU16(bytes, 2, change.code);
      return bytes;
    case "mask-ports":
      for (const field of ["internal-port", "external-port"] as const) {
        const at = fieldAt(bytes, field);
        if (at !== undefined) putU16(bytes, at, u16(bytes, at) & change.mask);
      }
      return bytes;
    case "external-port": {
      const at = fieldAt(bytes, "external-port");
      if (at !== undefined) putU16(bytes, at, change.port);
      return bytes;
    }
    case "external-address": {
      const at = fieldAt(bytes, "external-address");
      if (at === undefined) return bytes;
      if (bytes[0] === 2) putAddress16(bytes, at, change.address);
      else bytes.set(parseIp(change.address)!, at);
      return bytes;
    }
    case "lifetime": {
      const at = fieldAt(bytes, "lifetime");
      if (at !== undefined) putU32(bytes, at, change.seconds);
      return bytes;
    }
    case "version":
      bytes[0] = change.version;
      return bytes;
  }
}
