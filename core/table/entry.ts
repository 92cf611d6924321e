/**
 * What the mapping table holds and what it is asked for, in words that belong to no protocol.
 *
 * @module
 */
import { copyBytes } from "../bytes.ts";
import { checkAddress, checkInteger, checkPort } from "../check.ts";
import { contains } from "../cidr.ts";
import type { Endpoint, Instant } from "../machine.ts";
import type { RemoteFilter } from "../mapping.ts";

/**
 * `"explicit"`: inbound, with a lease, made for a client. `"static"`: inbound, made by the
 * administrator, for good. `"outbound"`: made by a packet that went out or by PCP's PEER; it
 * belongs to one remote peer.
 */
export type MappingKind = "explicit" | "static" | "outbound";

/** Who made an entry; `"traffic"` is a packet that went out. */
export type MappingOrigin = "pcp" | "nat-pmp" | "upnp" | "admin" | "traffic";

/** One mapping. What the table hands out is live: copy it with {@linkcode snapshotEntry} to keep it. */
export interface TableEntry {
  /** Names the entry; never used twice in one table. */
  readonly id: number;
  /** What kind of mapping it is. */
  readonly kind: MappingKind;
  /** Who made it. */
  readonly origin: MappingOrigin;
  /** IANA's protocol number, 0 for all protocols. */
  readonly protocol: number;
  /** The inside; port 0 for all ports. */
  readonly internal: Endpoint;
  /** The outside; equals `internal` behind a firewall that does not translate. */
  readonly external: Endpoint;
  /** How many ports from the first on, 1 but for a port set. */
  readonly size: number;
  /** The remote peer of an outbound mapping. */
  readonly remote: Endpoint | undefined;
  /** Where the last request for it came from. */
  readonly requester: Endpoint | undefined;
  /** Whether it was asked for with "this external endpoint or none". */
  readonly isExact: boolean;
  /** Whether the external address was suggested, too, and not the port alone. */
  readonly namesAddress: boolean;
  /** The nonce that protects it, where its protocol has one. */
  readonly nonce: Uint8Array | undefined;
  /** What its maker calls it. */
  readonly description: string | undefined;
  /** Who may use it by any of its leases; empty for everybody. */
  readonly filters: readonly RemoteFilter[];
  /** When its lease ends, the last of several protocols' leases; `Infinity` for a static one. */
  readonly expiresAt: Instant;
}

/** What one protocol's client counts on. */
export interface ProtocolLease {
  /** When it ends. */
  readonly expiresAt: Instant;
  /** Whom it lets in; empty for everybody. */
  readonly filters: readonly RemoteFilter[];
}

/** What may be changed when a mapping is renewed; what is left out stays. */
export interface RenewRequest {
  /** When the lease ends from now on. */
  readonly expiresAt: Instant;
  /** Where the request came from. */
  readonly requester?: Endpoint | undefined;
  /** The nonce that protects it from now on. */
  readonly nonce?: Uint8Array | undefined;
  /** The new description, `""` to erase it. */
  readonly description?: string | undefined;
  /** The new filters of the lease that is renewed; none for one that begins, where left out. */
  readonly filters?: readonly RemoteFilter[] | undefined;
  /** Whether this external endpoint or none is wanted. */
  readonly isExact?: boolean | undefined;
  /** Whether the external address is suggested now, too. */
  readonly namesAddress?: boolean | undefined;
  /** Who takes it over from whoever made it; then its nonce goes, and other protocols' leases. */
  readonly origin?: MappingOrigin | undefined;
  /**
   * Which protocol's lease is renewed, or begun; its maker's where left out. Each protocol that
   * asked for the mapping has its own: the mapping lasts until the last of them ends, and lets in
   * whom any of them lets in.
   */
  readonly by?: MappingOrigin | undefined;
  /**
   * Keep the same external port of the companion protocol (TCP for UDP, UDP for TCP) from every
   * other internal address, where none has it, while the lease lasts (PMP-S-13).
   */
  readonly reserveCompanion?: boolean | undefined;
}

/** A mapping wanted. */
export interface CreateRequest extends RenewRequest {
  /** Who makes it. */
  readonly origin: MappingOrigin;
  /** IANA's protocol number, 0 for all protocols (then the internal port is 0, too). */
  readonly protocol: number;
  /** The inside, in canonical text; port 0 for all ports of the protocol. */
  readonly internal: Endpoint;
  /** The external address suggested; none where left out. */
  readonly suggestedAddress?: string | undefined;
  /** The external port suggested; 0 or left out for none. */
  readonly suggestedPort?: number;
}

/** An inbound mapping wanted. */
export interface InboundRequest extends CreateRequest {
  /** `"explicit"` where left out. A static one takes no quota and never expires. */
  readonly kind?: "explicit" | "static";
  /** How many adjoining ports, 1 where left out. */
  readonly size?: number;
  /** The first external port shall be odd or even as the first internal one is. */
  readonly keepParity?: boolean;
  /** Allow a further external port for an internal endpoint that has one already. */
  readonly isAdditional?: boolean;
}

/** An outbound mapping wanted. */
export interface OutboundRequest extends CreateRequest {
  /** The remote peer. */
  readonly remote: Endpoint;
}

/** Why the table made no mapping. */
export type TableFault =
  /** The table, or the port pool, is full. */
  | "no-resources"
  /** The client has as many as it may. */
  | "over-quota"
  /** The external endpoint demanded cannot be had. */
  | "external-unavailable"
  /** The internal endpoint has such a mapping already. */
  | "already-mapped"
  /** All ports of a protocol are wanted, and some belong to others. */
  | "not-entirely-available";

/** What became of a mapping when the external addresses changed. */
export interface MovedEntry {
  /** The entry: live and at its new place, or a copy of what it was where it is gone. */
  readonly entry: TableEntry;
  /** Where it was. */
  readonly previous: Endpoint;
  /** Whether no external endpoint was left for it. */
  readonly isGone: boolean;
}

/** A copy of an entry: plain data that does not change. */
export function snapshotEntry(entry: TableEntry): TableEntry {
  return {
    id: entry.id,
    kind: entry.kind,
    origin: entry.origin,
    protocol: entry.protocol,
    internal: entry.internal,
    external: entry.external,
    size: entry.size,
    remote: entry.remote,
    requester: entry.requester,
    isExact: entry.isExact,
    namesAddress: entry.namesAddress,
    nonce: entry.nonce && copyBytes(entry.nonce),
    description: entry.description,
    filters: entry.filters.slice(),
    expiresAt: entry.expiresAt,
  };
}

/** Whether a remote peer may use the mapping: it matches a filter, or there is none (PCP-S-46). */
export function isAdmitted(filters: readonly RemoteFilter[], remote: Endpoint): boolean {
  if (filters.length === 0) return true;
  for (const filter of filters) {
    if (filter.port !== 0 && filter.port !== remote.port) continue;
    if (contains(filter.prefix, remote.address)) return true;
  }
  return false;
}

/** Whether what a request suggests, if anything, is what there is. */
export function suits(
  { external }: { readonly external: Endpoint },
  { suggestedAddress, suggestedPort }: CreateRequest,
): boolean {
  return (suggestedAddress === undefined || suggestedAddress === external.address) &&
    (!suggestedPort || suggestedPort === external.port);
}

/**
 * Checks what every request has; an address that is in the table already has been checked before.
 *
 * @throws {TypeError | RangeError} Where something cannot be, with its name and value.
 */
export function checkRequest(request: CreateRequest, isKnown: boolean): void {
  const { protocol, internal: { address, port }, suggestedPort, expiresAt } = request;
  checkInteger("protocol", protocol, 0, 255);
  checkInteger("internal.port", port, 0, protocol === 0 ? 0 : 65535);
  checkPort("suggestedPort", suggestedPort ?? 0, 0);
  if (Number.isNaN(expiresAt)) {
    throw new RangeError(`'expiresAt' must be a number: current value is ${expiresAt}`);
  }
  if (!isKnown && checkAddress("internal.address", address) !== address) {
    throw new TypeError(
      `'internal.address' must be in canonical text: current value is "${address}"`,
    );
  }
}
