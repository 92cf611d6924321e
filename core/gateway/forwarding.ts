/**
 * Where the mapping table sends packets, for a NAT that forwards by it. Both ways give the same
 * pair of endpoints, so that what comes in by a mapping is answered by it (PMP-S-33).
 *
 * @module
 */
import type { Endpoint, Instant } from "../machine.ts";
import type { TableEntry } from "../table/entry.ts";
import type { MappingTable } from "../table/table.ts";

/** The inside of what `remote` sends to `external`, or undefined where no mapping takes it. */
export function forwardInbound(
  table: MappingTable,
  protocol: number,
  external: Endpoint,
  remote: Endpoint,
  now: Instant,
): Endpoint | undefined {
  const entry = table.admit(protocol, external, remote);
  if (entry) {
    return isLive(entry, now) ? across(external, entry.external, entry.internal) : undefined;
  }
  const flow = table.external(protocol, external.address, external.port);
  if (flow?.kind !== "outbound") return undefined;
  const { address, port } = flow.internal;
  const own = table.outbound(protocol, address, port, remote);
  return own && isLive(own, now) && !isImplicit(own) ? own.internal : undefined;
}

/** The outside of what `internal` sends to `remote`, or undefined where no mapping has it. */
export function forwardOutbound(
  table: MappingTable,
  protocol: number,
  internal: Endpoint,
  remote: Endpoint,
  now: Instant,
): Endpoint | undefined {
  const { address, port } = internal;
  const flow = table.outbound(protocol, address, port, remote);
  if (flow && isLive(flow, now) && !isImplicit(flow)) return flow.external;
  const entry = table.inbound(protocol, address, port) ?? table.inbound(protocol, address, 0) ??
    table.inbound(0, address, 0);
  return entry && isLive(entry, now) ? across(internal, entry.internal, entry.external) : undefined;
}

/** Whether a mapping has exactly that external port, and not just all that is left. */
export function holdsPort(
  table: MappingTable,
  protocol: number,
  { address, port }: Endpoint,
  now: Instant,
): boolean {
  const entry = table.external(protocol, address, port);
  return entry !== undefined && isLive(entry, now) && !isImplicit(entry);
}

/** Whether it is the NAT's own, which knows best whom it lets in; a PEER makes it the table's. */
function isImplicit({ origin, nonce }: TableEntry): boolean {
  return origin === "traffic" && nonce === undefined;
}

function isLive(entry: TableEntry, now: Instant): boolean {
  return entry.expiresAt > now;
}

/** The endpoint on the other side: all ports keep their number, a set keeps the distance. */
function across(at: Endpoint, near: Endpoint, far: Endpoint): Endpoint {
  const port = near.port === 0 ? at.port : far.port + at.port - near.port;
  return { address: far.address, port };
}
