/**
 * The inside of the table: hosts, their bindings of internal to external endpoints, and the entries
 * that a binding carries. A host is there for as long as it has a binding, so sources that only ask
 * leave nothing.
 *
 * @module
 */
import { copyBytes } from "../bytes.ts";
import type { RemoteFilter } from "../mapping.ts";
import type { Endpoint, Instant } from "../machine.ts";
import type { Place, PortHolder } from "./allocator.ts";
import type {
  CreateRequest,
  MappingKind,
  MappingOrigin,
  ProtocolLease,
  TableEntry,
  TableFault,
} from "./entry.ts";

const NO_FILTERS: readonly RemoteFilter[] = Object.freeze([]);

/** An internal address, for as long as it has something in the table. */
export interface Host {
  /** In canonical text. */
  readonly address: string;
  /** The first of each internal endpoint, by protocol · 65536 + internal port. */
  readonly bindings: Map<number, Binding>;
  /** Further external ports of an internal endpoint, likewise: few hosts have any. */
  more: Map<number, Binding[]> | undefined;
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
  /** The outbound entries, by {@linkcode flowKey}. */
  outbound: Map<string, Entry> | undefined;
  /** Until when outbound traffic keeps it alive. */
  idleUntil: Instant;
  /** That of its last inbound entry, which it has outlived. */
  endedNonce: Uint8Array | undefined;
}

/** One mapping. */
export class Entry implements TableEntry {
  readonly id: number;
  readonly kind: MappingKind;
  origin: MappingOrigin;
  /** Another one once the port set that it belonged to has gone. */
  binding: Binding;
  readonly remote: Endpoint | undefined;
  /** How far into the binding's ports it is: an outbound mapping may use any port of a set. */
  offset: number;
  requester: Endpoint | undefined;
  isExact: boolean;
  namesAddress: boolean;
  nonce: Uint8Array | undefined;
  description: string | undefined;
  filters: readonly RemoteFilter[];
  expiresAt: Instant;
  /** Each protocol's lease, where several have had one. */
  #leases: Map<MappingOrigin, ProtocolLease> | undefined;
  /** Whether it has left the table. */
  isGone = false;
  /** The deadline that is set for it: never later than `expiresAt`, `Infinity` for none. */
  wakeAt: Instant = Infinity;

  constructor(
    id: number,
    kind: MappingKind,
    binding: Binding,
    request: CreateRequest,
    remote: Endpoint | undefined,
    offset: number,
  ) {
    this.id = id;
    this.kind = kind;
    this.origin = request.origin;
    this.binding = binding;
    this.remote = remote && copyOf(remote);
    this.offset = offset;
    this.requester = request.requester && copyOf(request.requester);
    this.isExact = request.isExact ?? false;
    this.namesAddress = request.namesAddress ?? request.suggestedAddress !== undefined;
    this.nonce = request.nonce && copyBytes(request.nonce);
    this.description = request.description || undefined;
    this.filters = request.filters ?? NO_FILTERS;
    this.expiresAt = kind === "static" ? Infinity : request.expiresAt;
  }

  /** Lets that protocol's lease end at `expiresAt`, with these filters or, left out, those it had. */
  lease(
    by: MappingOrigin,
    expiresAt: Instant,
    filters: readonly RemoteFilter[] = this.leaseOf(by)?.filters ?? NO_FILTERS,
  ): void {
    if (!this.#leases && by === this.origin) {
      this.expiresAt = expiresAt;
      this.filters = filters;
      return;
    }
    this.#leases ??= new Map([[this.origin, { expiresAt: this.expiresAt, filters: this.filters }]]);
    this.#leases.set(by, { expiresAt, filters });
    this.#sum();
  }

  /** That protocol's lease; undefined where it has none. */
  leaseOf(by: MappingOrigin): ProtocolLease | undefined {
    if (!this.#leases) return by === this.origin ? this : undefined;
    return this.#leases.get(by);
  }

  /** Whether another protocol's client counts on it as well. */
  isSharedBeside(by: MappingOrigin): boolean {
    for (const other of this.#leases?.keys() ?? [this.origin]) if (other !== by) return true;
    return false;
  }

  /** Ends that protocol's lease, where it is not the only one. */
  endLease(by: MappingOrigin): void {
    if (!this.#leases || !this.isSharedBeside(by) || !this.#leases.delete(by)) return;
    if (by === this.origin) this.origin = this.#leases.keys().next().value!;
    if (by === "pcp") {
      this.nonce = undefined;
      this.isExact = false;
    }
    this.#sum();
  }

  /** Ends the leases that are over but for the last; whether that lets in others than before. */
  endLeases(now: Instant): boolean {
    const before = this.filters;
    if (this.kind === "outbound") return false;
    for (const [by, { expiresAt }] of this.#leases ?? []) if (expiresAt <= now) this.endLease(by);
    return this.filters !== before;
  }

  /** When the first lease ends; a flow has no other than the last. */
  get firstEnd(): Instant {
    if (!this.#leases || this.kind === "outbound") return this.expiresAt;
    return Math.min(...[...this.#leases.values()].map(({ expiresAt }) => expiresAt));
  }

  /** Forgets all leases but the one that is told next. */
  forgetLeases(): void {
    this.#leases = undefined;
    this.filters = NO_FILTERS;
  }

  /** It lasts until the last lease ends, and lets in whom any of them lets in. */
  #sum(): void {
    const all = [...this.#leases!.values()];
    this.expiresAt = Math.max(...all.map(({ expiresAt }) => expiresAt));
    this.filters = all.some(({ filters }) => filters.length === 0)
      ? NO_FILTERS
      : all.flatMap(({ filters }) => filters);
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
export function firstId({ inbound, outbound }: Binding): number {
  const oldest = outbound?.values().next().value;
  return Math.min(inbound?.id ?? Infinity, oldest?.id ?? Infinity);
}

/** Whether the entry counts against a quota: what its client asked for does. */
export function isCharged(entry: Entry): boolean {
  return entry.kind !== "static" && entry.origin !== "traffic";
}

/** The key of an outbound entry in its binding: which of the ports, and to whom. */
export function flowKey(offset: number, remote: Endpoint): string {
  return offset + " " + remote.address + " " + remote.port;
}

const NO_BINDINGS: readonly Binding[] = [];

/** The hosts of a table. */
export class Hosts {
  #hosts = new Map<string, Host>();

  /** The host of that address, where it has something. */
  get(address: string): Host | undefined {
    return this.#hosts.get(address);
  }

  /** All of them. */
  all(): IterableIterator<Host> {
    return this.#hosts.values();
  }

  /** The first binding of exactly that internal endpoint. */
  find(protocol: number, address: string, port: number): Binding | undefined {
    return this.#hosts.get(address)?.bindings.get(protocol * 65536 + port);
  }

  /** All of them. */
  findAll(protocol: number, address: string, port: number): readonly Binding[] {
    const host = this.#hosts.get(address), key = protocol * 65536 + port;
    const first = host?.bindings.get(key);
    return first ? [first, ...host!.more?.get(key) ?? NO_BINDINGS] : NO_BINDINGS;
  }

  /** The inbound entry of exactly that internal endpoint; a static one before an explicit one. */
  inbound(protocol: number, address: string, port: number): Entry | undefined {
    const host = this.#hosts.get(address), key = protocol * 65536 + port;
    let found = host?.bindings.get(key)?.inbound;
    for (const { inbound } of host?.more?.get(key) ?? NO_BINDINGS) {
      if (!found || (inbound?.kind === "static" && found.kind !== "static")) found = inbound;
    }
    return found;
  }

  /** The outbound entry of that internal endpoint to that remote peer. */
  outbound(protocol: number, address: string, port: number, remote: Endpoint): Entry | undefined {
    for (const at of this.findAll(protocol, address, port)) {
      const entry = at.outbound?.get(flowKey(port - at.internal.port, remote));
      if (entry) return entry;
    }
    return undefined;
  }

  /** The outbound entries of that internal endpoint. */
  outbounds(protocol: number, address: string, port: number): Entry[] {
    const found: Entry[] = [];
    for (const at of this.findAll(protocol, address, port)) {
      const offset = port - at.internal.port;
      for (const entry of at.outbound?.values() ?? []) {
        if (entry.offset === offset) found.push(entry);
      }
    }
    return found;
  }

  /** All entries whose inside is that address, the oldest first. */
  entriesOf(address: string): Entry[] {
    const found = new Set<Entry>();
    const { bindings, more } = this.#hosts.get(address) ?? {};
    for (const at of [...bindings?.values() ?? [], ...[...more?.values() ?? []].flat()]) {
      for (const entry of entriesIn(at)) found.add(entry);
    }
    return [...found].sort((a, b) => a.id - b.id);
  }

  /** The binding that a new inbound mapping joins: one that has outbound entries alone. */
  joinable(
    protocol: number,
    { address, port }: Endpoint,
    isAdditional: boolean,
  ): Binding | TableFault | undefined {
    let joinable: Binding | undefined;
    for (const at of this.findAll(protocol, address, port)) {
      // What is left of a port set cannot carry one of its ports alone.
      if (!at.inbound && at.size === 1) joinable ??= at;
      else if (!isAdditional) return "already-mapped";
    }
    return joinable;
  }

  /**
   * Makes a binding of the request's internal endpoint to that place.
   *
   * @param known The host, where it may have lost its last binding just now.
   */
  bind(
    { protocol, internal, reserveCompanion }: CreateRequest,
    place: Place,
    known?: Host,
  ): Binding {
    const { address } = internal;
    const host = this.#hosts.get(address) ?? known ??
      { address, bindings: new Map(), more: undefined, used: 0, paired: undefined };
    this.#hosts.set(address, host);
    const binding: Binding = {
      host,
      protocol,
      internal: { address: internal.address, port: internal.port },
      size: place.size,
      external: place.external,
      pool: place.pool,
      reserves: place.pool !== undefined && (reserveCompanion ?? false),
      inbound: undefined,
      outbound: undefined,
      idleUntil: -Infinity,
      endedNonce: undefined,
    };
    for (let i = 0; i < binding.size; i++) {
      const key = protocol * 65536 + internal.port + i;
      if (!host.bindings.has(key)) {
        host.bindings.set(key, binding);
        continue;
      }
      host.more ??= new Map();
      const further = host.more.get(key);
      if (further) further.push(binding);
      else host.more.set(key, [binding]);
    }
    return binding;
  }

  /** Takes a binding out. */
  unbind(binding: Binding): void {
    const { host, internal, protocol, size } = binding;
    for (let i = 0; i < size; i++) {
      const key = protocol * 65536 + internal.port + i;
      const left = (host.more?.get(key) ?? []).filter((other) => other !== binding);
      if (host.bindings.get(key) === binding) {
        const next = left.shift();
        if (next) host.bindings.set(key, next);
        else host.bindings.delete(key);
      }
      if (left.length > 0) host.more!.set(key, left);
      else host.more?.delete(key);
    }
    if (host.bindings.size === 0) this.#hosts.delete(host.address);
  }
}
