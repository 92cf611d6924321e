/**
 * The sans-IO core: state machines that are fed bytes and time and drained of actions. Embed them
 * in an event loop of your own; the promise API and the command line run the same ones.
 *
 * @example The canonical loop
 * ```ts
 * import { PortMapper, seededRandom } from "@natkit/natkit/core";
 *
 * const gateway = { address: "192.168.1.1", port: 5351 };
 * const self = { address: "192.168.1.100", port: 40000 };
 * const mapper = new PortMapper({ random: seededRandom(1) }); // In earnest: an unguessable source.
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
export * from "./backoff.ts";
export * from "./bytes.ts";
export * from "./check.ts";
export * from "./cidr.ts";
export * from "./defined.ts";
export * from "./errors.ts";
export * from "./ip.ts";
export * from "./machine.ts";
export { describeFailure, PROTOCOL_NUMBER } from "./mapping.ts";
export type {
  Failure,
  GrantedPortSet,
  GrantEvent,
  MappingEvent,
  MappingId,
  MappingMode,
  MappingRequest,
  MappingState,
  PortSetRequest,
  RemoteFilter,
  SuggestedExternal,
  Transport,
} from "./mapping.ts";
export type { SavedMapping, SavedState } from "./lease/saved.ts";
export * from "./outbox.ts";
export * from "./random.ts";
export * from "./timers.ts";
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
export {
  type CreateRequest,
  type InboundRequest,
  type MappingKind,
  type MappingOrigin,
  MappingTable,
  type MappingTableOptions,
  type MovedEntry,
  type OutboundRequest,
  type PortRange,
  type QuarantineTimes,
  type RenewRequest,
  snapshotEntry,
  type TableChange,
  type TableChangeKind,
  type TableEntry,
  type TableFault,
  type TableWatch,
} from "./table/mod.ts";
