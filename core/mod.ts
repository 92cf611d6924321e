/**
 * The sans-IO core: state machines that are fed bytes and time and drained of actions. Embed them
 * in an event loop of your own; the promise API and the command line run the same ones.
 *
 * @example The canonical loop
 * ```ts
 * import { GatewaySession, seededRandom } from "@natkit/natkit/core";
 *
 * const session = new GatewaySession({
 *   gateway: { address: "192.168.1.1", port: 5351 },
 *   localAddress: "192.168.1.100",
 *   random: seededRandom(1), // In earnest: a source over Web Crypto.
 * });
 * let now = 0;
 * session.map({ protocol: "tcp", internalPort: 8080 }, now); // Feed one input,
 * for (let action = session.poll(); action; action = session.poll()) { // drain,
 *   if (action.type === "send") console.log(`${action.data.length} bytes to the gateway`);
 * }
 * now = session.nextTimeout()!; // sleep until then,
 * session.handleTimeout(now); // and feed the next one.
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
export type { SavedState } from "./lease/saved.ts";
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
