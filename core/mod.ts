/**
 * The sans-IO core: state machines that are fed bytes and time and drained of actions. Embed them
 * in an event loop of your own; the promise API and the command line run the same ones.
 *
 * ## One PCP grant, from the socket to `PortMapping`
 *
 * Where to look when a packet comes to something else than it should, file by file:
 *
 * 1. `adapters/node.ts` (`deno.ts`, `bun.ts`): a datagram is in the socket; its bytes and source go to
 * 2. `adapters/driver.ts`, which owns a machine's sockets and its one timer. It calls the machine's
 *    `handleDatagram`, then polls it until it has no more to do.
 * 3. `core/portmap/mapper.ts`: the {@linkcode PortMapper} finds the gateway by the source address,
 * 4. `core/portmap/path.ts` offers the datagram to that gateway's clients, the preferred one first.
 * 5. `core/pcp/client.ts`: the {@linkcode PcpClient} decodes it
 * 6. (`core/pcp/codec.ts`), compares source, opcode, fields and nonce with what it asked, hears the
 *    epoch, and has
 * 7. `core/pcp/answers.ts` say what it grants. The grant goes to
 * 8. `core/lease/keeper.ts`: what it makes of the lease, when the next request is due, and whether the
 *    application hears `mapped`, `renewed`, `moved` or `recovered`. What a lease is stands in
 * 9. `core/lease/lease.ts`.
 * 10. `core/outbox.ts` keeps the event until the mapper polls it from the client;
 * 11. `core/portmap/race.ts` ends the other protocols' attempts,
 * 12. `core/portmap/managed.ts` remembers who granted what, and the mapper emits its own event.
 * 13. `adapters/api/connection.ts` gets it from the driver and settles the promise that waits for it;
 * 14. `adapters/api/port_context.ts` resolves `map()` with
 * 15. `adapters/api/port_mapping.ts`, a `PortMapping`, to which all later events of the mapping go.
 *
 * @example The canonical loop
 * ```ts
 * import { makeIgdClient, PortMapper, seededRandom } from "@natkit/natkit/core";
 *
 * const gateway = { address: "192.168.1.1", port: 5351 };
 * const self = { address: "192.168.1.100", port: 40000 };
 * const random = seededRandom(1); // In earnest: an unguessable source.
 * const mapper = new PortMapper({ random, upnp: makeIgdClient });
 * let now = 0;
 * mapper.networkChanged([{ gateway, localAddress: self.address }], now);
 * mapper.handleSocket(mapper.sockets()[0]!.key, { ok: true, local: self }, now); // You opened it.
 * mapper.map({ protocol: "tcp", internalPort: 8080 }, now); // Feed one input,
 * for (let action = mapper.poll(); action; action = mapper.poll()) { // drain,
 *   if (action.type === "send") console.log(`${action.data.length} bytes to the gateway`);
 * }
 * now = mapper.nextTimeout()!; // sleep until then,
 * mapper.handleTimeout(now); // and feed the next one.
 * ```
 *
 * @module
 */
export { type Cidr, parseCidr } from "./cidr.ts";
export {
  type Attempt,
  NatError,
  type NatErrorCode,
  type NatErrorOptions,
  type Via,
} from "./errors.ts";
export { type Family, familyOf, formatEndpoint, parseEndpoint } from "./ip.ts";
export { describeFailure } from "./mapping.ts";
export { seededRandom } from "./random.ts";
export type * from "./lease/types.ts";
export { NatPmpClient } from "./natpmp/client.ts";
export type { AddressEvent } from "./natpmp/address.ts";
export type {
  NatPmpClientOptions,
  NatPmpClientStats,
  NatPmpEvent,
  NatPmpMapping,
} from "./natpmp/client.ts";
export * from "./pcp/client.ts";
export * from "./portmap/mod.ts";
