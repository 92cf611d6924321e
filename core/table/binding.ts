/**
 * What the table is made of: hosts, their bindings of internal to external endpoints, and the
 * entries that a binding carries.
 *
 * @module
 */
import { copyBytes } from "../bytes.ts";
import type { RemoteFilter } from "../mapping.ts";
import type { Endpoint, Instant } from "../machine.ts";
import type { PortHolder } from "./allocator.ts";
import type { CreateRequest, MappingKind, MappingOrigin, TableEntry } from "./entry.ts";

const NO_FILTERS: readonly RemoteFilter[] = Object.freeze([]);

/** An internal address, or a client, for as long as it has something in the table. */
export interface Host {
  /** In canonical text. */
  readonly address: string;
  /** By protocol · 65536 + internal port. */
  readonly bindings: Map<number, Binding>;
  /** Ports that count against its quota. */
  used: number;
  /** The external address of its mappings. */
  paired: string | undefined;
}

/** An internal endpoint tied to an external one. */
export interface Binding extends PortHolder {
  /** Whose inside it is. */
  readonly host: Host;
  /** The explicit or static entry. */
  inbound: Entry | undefined;
  /** The outbound entries by remote peer. */
  outbound: Map<string, Entry> | undefined;
  /** Until when outbound traffic keeps it alive. */
  idleUntil: Instant;
  /** A further external port of the same internal endpoint. */
  sibling: Binding | undefined;
}

/** One mapping. */
export class Entry implements TableEntry {
  readonly id: number;
  readonly kind: MappingKind;
  readonly origin: MappingOrigin;
  readonly binding: Binding;
  readonly owner: Host;
  readonly remote: Endpoint | undefined;
  /** How far into the binding's ports it is: an outbound mapping may use any port of a set. */
  readonly offset: number;
  requester: Endpoint | undefined;
  isExact: boolean;
  nonce: Uint8Array | undefined;
  description: string | undefined;
  filters: readonly RemoteFilter[];
  expiresAt: Instant;
  /** Whether it has left the table. */
  isGone = false;
  /** The deadline that is set for it: never later than `expiresAt`, `Infinity` for none. */
  wakeAt: Instant = Infinity;

  constructor(
    id: number,
    kind: MappingKind,
    binding: Binding,
    owner: Host,
    request: CreateRequest,
    remote: Endpoint | undefined,
    offset: number,
  ) {
    this.id = id;
    this.kind = kind;
    this.origin = request.origin;
    this.binding = binding;
    this.owner = owner;
    this.remote = remote && copyOf(remote);
    this.offset = offset;
    this.requester = request.requester && copyOf(request.requester);
    this.isExact = request.isExact ?? false;
    this.nonce = request.nonce && copyBytes(request.nonce);
    this.description = request.description || undefined;
    this.filters = request.filters ?? NO_FILTERS;
    this.expiresAt = kind === "static" ? Infinity : request.expiresAt;
  }

  get protocol(): number {
    return this.binding.protocol;
  }
  get internal(): Endpoint {
    return shift(this.binding.internal, this.offset);
  }
  get external(): Endpoint {
    return shift(this.binding.external, this.offset);
  }
  get size(): number {
    return this.remote ? 1 : this.binding.size;
  }
  get client(): string {
    return this.owner.address;
  }
}

/** An endpoint of one's own. */
export function copyOf({ address, port }: Endpoint): Endpoint {
  return { address, port };
}

function shift(endpoint: Endpoint, offset: number): Endpoint {
  return offset === 0 ? endpoint : { address: endpoint.address, port: endpoint.port + offset };
}

/** All entries of a binding, the inbound one first. */
export function entriesIn(binding: Binding): Entry[] {
  const entries = binding.outbound ? [...binding.outbound.values()] : [];
  if (binding.inbound) entries.unshift(binding.inbound);
  return entries;
}

/** The id of a binding's oldest entry. */
export function firstId(binding: Binding): number {
  return Math.min(...entriesIn(binding).map((entry) => entry.id));
}

/** The last of a binding's siblings. */
export function lastOf(binding: Binding | undefined): Binding | undefined {
  while (binding?.sibling) binding = binding.sibling;
  return binding;
}

/** Whether the entry counts against a quota: what its client asked for does. */
export function isCharged(entry: Entry): boolean {
  return entry.kind !== "static" && entry.origin !== "traffic";
}

/** The key of a remote peer. */
export function remoteKey(remote: Endpoint): string {
  return remote.address + " " + remote.port;
}
