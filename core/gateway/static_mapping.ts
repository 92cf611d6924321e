/**
 * The administrator's mappings.
 *
 * @module
 */
import { checkAddress, checkPort } from "../check.ts";
import type { Family } from "../ip.ts";
import type { Endpoint, Instant } from "../machine.ts";
import { PROTOCOL_NUMBER, type Transport } from "../mapping.ts";
import { snapshotEntry, type TableEntry, type TableFault } from "../table/entry.ts";
import type { MappingTable } from "../table/table.ts";

/**
 * Makes a static mapping, in place of a client's own of that internal endpoint.
 *
 * @returns A copy of the entry, or why there is none.
 * @throws {TypeError | RangeError} Where a port or the address is none.
 */
export function placeStatic(
  table: MappingTable,
  family: Family,
  protocol: Transport,
  externalPort: number,
  internal: Endpoint,
  now: Instant,
): TableEntry | TableFault {
  const suggestedPort = checkPort("externalPort", externalPort);
  const address = checkAddress("internal.address", internal.address, family);
  const port = checkPort("internal.port", internal.port);
  const number = PROTOCOL_NUMBER[protocol];
  const existing = table.inbound(number, address, port);
  if (existing?.kind === "explicit") table.remove(existing, now);
  const entry = table.mapInbound({
    kind: "static",
    origin: "admin",
    protocol: number,
    internal: { address, port },
    suggestedPort,
    isExact: true,
    expiresAt: Infinity,
  }, now);
  return typeof entry === "string" ? entry : snapshotEntry(entry);
}
