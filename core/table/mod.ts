/**
 * The mapping table below every server.
 *
 * @module
 */
export {
  type CreateRequest,
  type InboundRequest,
  type MappingKind,
  type MappingOrigin,
  type MovedEntry,
  type OutboundRequest,
  type ProtocolLease,
  type RenewRequest,
  type TableEntry,
  type TableFault,
} from "./entry.ts";
export type { MappingTableOptions, PortRange, QuarantineTimes } from "./options.ts";
export type { Decision, Policy, ServerEvent, ServerRequest } from "./server_request.ts";
export { MappingTable } from "./table.ts";
export { type TableChange, type TableChangeKind, type TableWatch } from "./watch.ts";
