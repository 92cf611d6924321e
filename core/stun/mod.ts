/**
 * STUN (RFC 8489), NAT behaviour discovery (RFC 5780): the wire format with the attributes of ICE
 * and TURN.
 *
 * @example What a server saw of us, driven by hand
 * ```ts
 * import { decodeStun, encodeStun, STUN_METHOD } from "@natkit/natkit/stun";
 * const transactionId = crypto.getRandomValues(new Uint8Array(12));
 * const request = encodeStun({ class: "request", method: STUN_METHOD.BINDING, transactionId });
 * console.assert(request.length === 20);
 * const answer = decodeStun(encodeStun({
 *   class: "success",
 *   method: STUN_METHOD.BINDING,
 *   transactionId,
 *   attributes: { xorMappedAddress: { address: "203.0.113.7", port: 40123 } },
 * }));
 * if (typeof answer !== "string") console.log(answer.attributes.xorMappedAddress);
 * ```
 *
 * @module
 */
export * from "./codec.ts";
export {
  type IntegrityHash,
  longTermKey,
  type PasswordAlgorithm,
  shortTermKey,
  userhash,
} from "./integrity.ts";
export type { Family } from "../ip.ts";
export type { Endpoint } from "../machine.ts";
