/**
 * STUN (RFC 8489) and NAT behaviour discovery (RFC 5780): the wire format, with the attributes of ICE
 * and TURN, and the machines of a client, a
 * server, a discovery and a TURN client (RFC 8656).
 *
 * @example What a server saw of us, driven by hand
 * ```ts
 * import { StunClient } from "@natkit/natkit/stun";
 * import { seededRandom } from "@natkit/natkit/core";
 * const client = new StunClient({ random: seededRandom(1) }); // In earnest: an unguessable source.
 * client.request({ server: { address: "198.51.100.1", port: 3478 } }, 0);
 * for (let action = client.poll(); action; action = client.poll()) {
 *   if (action.type === "send") console.log(action.to, action.data.length);
 * }
 * console.assert(client.nextTimeout() === 500);
 * ```
 *
 * @module
 */
export * from "./behaviour.ts";
export * from "./client.ts";
export * from "./codec.ts";
export {
  type IntegrityHash,
  longTermKey,
  type PasswordAlgorithm,
  shortTermKey,
  userhash,
} from "./integrity.ts";
export * from "./reflexive.ts";
export * from "./server.ts";
export * from "./turn.ts";
export type * from "../machine.ts";
export type { Family } from "../ip.ts";
export type { RandomSource } from "../random.ts";
