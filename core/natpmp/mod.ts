/**
 * NAT-PMP (RFC 6886): the wire format, the epoch rule, the client and the server machine.
 *
 * @example A mapping, driven by hand
 * ```ts
 * import { NatPmpClient } from "@natkit/natkit/nat-pmp";
 * import { seededRandom } from "@natkit/natkit/core";
 * const gateway = { address: "192.168.1.1", port: 5351 };
 * const client = new NatPmpClient({ gateway, random: seededRandom(1) });
 * client.map({ protocol: "udp", internalPort: 5000 }, 0);
 * for (let action = client.poll(); action; action = client.poll()) {
 *   if (action.type === "send") console.log(action.to, action.data.length);
 * }
 * console.assert(client.nextTimeout() === 250);
 * ```
 *
 * @module
 */
export * from "./codec.ts";
export * from "./client.ts";
export type { AddressEvent } from "./address.ts";
export type * from "../lease/types.ts";
