/**
 * The mapping table below every server.
 *
 * @module
 */
export * from "./entry.ts";
export type { MappingTableOptions, PortRange, QuarantineTimes } from "./options.ts";
export { MappingTable, type MovedEntry } from "./table.ts";
export { type TableChange, type TableChangeKind, type TableWatch } from "./watch.ts";
