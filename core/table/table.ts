/**
 * The one mapping table below every server: PCP's, NAT-PMP's and UPnP's mappings meet here, as
 * they do in a gateway. It knows no wire and sends nothing.
 *
 * Theory of operation. A *binding* ties one internal endpoint (protocol, address, port or run of
 * ports) to one external endpoint. It carries at most one inbound entry (explicit or static) and
 * any number of outbound entries, one a remote peer; all of them share the external endpoint, as
 * they do behind a NAT with endpoint-independent mapping (PCP-S-34). When its last entry goes, the
 * binding goes, and its external port stays in quarantine for a while (PCP-S-54).
 *
 *   (none) ──create──▶ live ──renew──▶ live ──remove / lease over / clear──▶ gone
 *                        └─setExternalAddresses──▶ moved, or gone where no port is left
 *
 * Leases end when `advance` is called at or after `nextTimeout()`. An outbound entry that traffic
 * keeps alive outlives its lease, without its nonce. Quarantine ends unnoticed: it is looked at
 * when a port is wanted, and in each `advance`.
 *
 * Serves PMP-S-12…16, PMP-S-19, PMP-S-34 and PCP-S-15, 23, 27, 33…39, 53…57.
 *
 * @module
 */
import { copyBytes, equalBytes } from "../bytes.ts";
import { checkInteger, checkPort } from "../check.ts";
import { familyOf, isSameEndpoint } from "../ip.ts";
import type { DebugTimeout, Endpoint, Instant } from "../machine.ts";
import { Timers } from "../timers.ts";
import { type Place, type PlaceRequest, PortAllocator } from "./allocator.ts";
import {
  type Binding,
  copyOf,
  entriesIn,
  Entry,
  firstId,
  flowKey,
  Hosts,
  isCharged,
} from "./bindings.ts";
import {
  checkRequest,
  type CreateRequest,
  type InboundRequest,
  isAdmitted,
  type MappingKind,
  type MappingOrigin,
  type MovedEntry,
  type OutboundRequest,
  type ProtocolLease,
  type RenewRequest,
  snapshotEntry,
  suits,
  type TableEntry,
  type TableFault,
} from "./entry.ts";
import {
  type MappingTableOptions,
  readExternalAddresses,
  readTableOptions,
  type TableSettings,
} from "./options.ts";
import { type TableWatch, Watches } from "./watch.ts";

export type { MovedEntry } from "./entry.ts";

/**
 * The mapping table.
 *
 * @example
 * ```ts
 * import { MappingTable } from "@natkit/natkit/testing";
 * const table = new MappingTable({ externalAddresses: ["203.0.113.7"] });
 * const entry = table.mapInbound({
 *   origin: "nat-pmp",
 *   protocol: 6,
 *   internal: { address: "192.168.1.100", port: 8080 },
 *   expiresAt: 7_200_000,
 * }, 0);
 * console.assert(typeof entry !== "string" && entry.external.port === 8080);
 * ```
 */
export class MappingTable {
  /** While true no new mapping is made: `"no-resources"`. Renewals go on. */
  isExhausted = false;
  #settings: TableSettings;
  #ports: PortAllocator;
  #hosts = new Hosts();
  #entries = new Map<number, Entry>();
  #leases = new Leases();
  #watches = new Watches();
  #lastId = 0;
  /** How many mappings traffic has made. */
  #flows = 0;

  /**
   * Makes an empty table.
   *
   * @throws {TypeError | RangeError} Where an option cannot be, with its name and value.
   */
  constructor(options: MappingTableOptions = {}) {
    this.#settings = readTableOptions(options);
    this.#ports = new PortAllocator(this.#settings);
  }

  /** How many mappings there are. */
  get size(): number {
    return this.#entries.size;
  }

  /** How many freed ports are in quarantine. */
  get quarantined(): number {
    return this.#ports.quarantined;
  }

  /** The external addresses in the order in which they are preferred. */
  get externalAddresses(): readonly string[] {
    return this.#ports.addresses;
  }

  /** The external address of a client's mappings: the one it has some on, else the first. */
  externalAddressFor(client: string): string | undefined {
    const paired = this.#hosts.get(client)?.paired;
    if (paired !== undefined) return paired;
    const family = familyOf(client);
    if (this.#ports.isFirewall(family)) return client;
    return this.#ports.addressesOf(family)[0];
  }

  /** All mappings, the oldest first; live, as all entries are. */
  *entries(): IterableIterator<TableEntry> {
    yield* this.#entries.values();
  }

  /** The entry of that id. */
  get(id: number): TableEntry | undefined {
    return this.#entries.get(id);
  }

  /** How many ports count against the client's quota. */
  portsOf(client: string): number {
    return this.#hosts.get(client)?.used ?? 0;
  }

  /** All mappings whose inside is that address. */
  entriesOf(internalAddress: string): TableEntry[] {
    return this.#hosts.entriesOf(internalAddress);
  }

  /** The inbound mapping of exactly that internal endpoint; a static one before an explicit one. */
  inbound(protocol: number, address: string, port: number): TableEntry | undefined {
    return this.#hosts.inbound(protocol, address, port);
  }

  /** The outbound mapping of that internal endpoint to that remote peer. */
  outbound(
    protocol: number,
    address: string,
    port: number,
    remote: Endpoint,
  ): TableEntry | undefined {
    return this.#hosts.outbound(protocol, address, port, remote);
  }

  /** Whether that nonce's inbound mapping of the internal endpoint has gone, and flows are left of it. */
  hasEnded(protocol: number, address: string, port: number, nonce: Uint8Array): boolean {
    return this.#hosts.findAll(protocol, address, port)
      .some(({ endedNonce }) => endedNonce !== undefined && equalBytes(endedNonce, nonce));
  }

  /** The outbound mappings of that internal endpoint, to whichever peer. */
  outbounds(protocol: number, address: string, port: number): TableEntry[] {
    return this.#hosts.outbounds(protocol, address, port);
  }

  /** Some mapping that holds exactly that external endpoint; an inbound one where there is one. */
  external(protocol: number, address: string, port: number): TableEntry | undefined {
    const binding = this.#ports.isFirewall(familyOf(address))
      ? this.#hosts.find(protocol, address, port)
      : this.#ports.holder(protocol, address, port) as Binding | undefined;
    return binding && (binding.inbound ?? binding.outbound?.values().next().value);
  }

  /**
   * The inbound mapping that a packet from `remote` to that external endpoint takes: the port's
   * own, else the protocol's all-ports one, else the DMZ host's; undefined where there is none or
   * its filters do not admit the peer. What comes for a port in quarantine is its last holder's.
   */
  admit(protocol: number, external: Endpoint, remote: Endpoint): TableEntry | undefined {
    const { address, port } = external;
    for (const [p, n] of [[protocol, port], [protocol, 0], [0, 0]] as const) {
      const entry = this.external(p, address, n);
      // A port that carries a flow is that flow's, and one in quarantine its last holder's.
      const isFlows = entry?.kind === "outbound" || this.#ports.isFreed(protocol, external);
      if (n === port && isFlows) return undefined;
      if (!entry || entry.kind === "outbound") continue;
      return isAdmitted(entry.filters, remote) ? entry : undefined;
    }
    return undefined;
  }

  /**
   * Makes an inbound mapping. One whose internal endpoint has an outbound mapping takes that one's
   * external endpoint (PCP-S-34); else the endpoint suggested, where it can be had; else, unless
   * `isExact`, another. Of several ports there may come fewer, from the first on.
   */
  mapInbound(request: InboundRequest, now: Instant): TableEntry | TableFault {
    const kind = request.kind ?? "explicit";
    const { protocol, internal } = request;
    checkRequest(request, this.#hosts.get(request.internal.address) !== undefined);
    const most = internal.port === 0 ? 1 : 65536 - internal.port;
    const wanted = checkInteger("size", request.size ?? 1, 1, most);
    const shared = this.#hosts.joinable(protocol, internal, request.isAdditional ?? false);
    if (typeof shared === "string") return shared;
    let size = 1;
    while (size < wanted && !this.#hosts.find(protocol, internal.address, internal.port + size)) {
      size++;
    }
    if (shared) size = 1;
    if (kind === "explicit") size = Math.min(size, Math.max(1, this.#quotaLeft(request)));
    const fault = this.#full(request, kind === "explicit");
    if (fault) return fault;
    if (shared && (!request.isAdditional || suits(shared, request))) {
      return request.isExact && !suits(shared, request)
        ? "external-unavailable"
        : this.#add(kind, shared, request);
    }
    const place = this.#place(size === wanted ? request : { ...request, size }, now);
    if (typeof place === "string") return place;
    return this.#add(kind, this.#bind(request, place), request);
  }

  /**
   * Makes an inbound mapping in the place of another one, which stays where the new one cannot be
   * had.
   */
  replaceInbound(
    entry: TableEntry,
    request: InboundRequest & { readonly suggestedPort: number },
    now: Instant,
  ): TableEntry | TableFault {
    const own = this.#own(entry);
    if (!own) return this.mapInbound(request, now);
    const { binding } = own;
    if (this.isExhausted) return "no-resources";
    const isOthers = binding.internal.address !== request.internal.address;
    if (isOthers && this.#quotaLeft(request) < 1) return "over-quota";
    if (binding.outbound?.size) {
      // The port stays with the flows that use it, and with their inside.
      const isSame = binding.size === 1 && isSameEndpoint(binding.internal, request.internal);
      if (!isSame || !suits(binding, request)) return "external-unavailable";
    } else {
      const place = this.#place({ ...request, instead: binding }, now);
      if (typeof place === "string") return place;
    }
    this.#drop(own, "removed", now, false);
    return this.mapInbound(request, now);
  }

  /**
   * Makes an outbound mapping. Where the internal endpoint is mapped already, it takes that
   * mapping's external endpoint, unless `isExact` and another is suggested.
   */
  mapOutbound(request: OutboundRequest, now: Instant): TableEntry | TableFault {
    const entry = this.#mapOutbound(request, now);
    const isFlow = typeof entry !== "string" && entry.origin === "traffic";
    if (isFlow) this.noteTraffic(entry.protocol, entry.internal, now);
    return entry;
  }

  #mapOutbound(request: OutboundRequest, now: Instant): TableEntry | TableFault {
    const { protocol, internal, remote } = request;
    checkRequest(request, this.#hosts.get(request.internal.address) !== undefined);
    checkPort("internal.port", internal.port);
    checkPort("remote.port", remote.port);
    if (this.outbound(protocol, internal.address, internal.port, remote)) return "already-mapped";
    const fault = this.#full(request, request.origin !== "traffic");
    if (fault) return fault;
    const shared = this.#hosts.find(protocol, internal.address, internal.port);
    if (shared && (!request.isExact || suits(shared, request))) {
      return this.#add("outbound", shared, request, remote);
    }
    // A NAT that gives one inside several outsides has done so already.
    if (shared && request.origin !== "traffic") return "external-unavailable";
    const place = this.#place(request, now);
    if (typeof place === "string") return place;
    return this.#add("outbound", this.#bind(request, place), request, remote);
  }

  /** Renews a mapping; a static one keeps its lease without end. */
  renew(entry: TableEntry, request: RenewRequest): void {
    const own = this.#own(entry);
    if (!own) return;
    const { requester, nonce, origin } = request;
    if (origin && origin !== own.origin) {
      own.origin = origin;
      own.nonce = undefined;
      own.forgetLeases();
    }
    if (requester && !isSameEndpoint(requester, own.requester)) own.requester = copyOf(requester);
    // Most renewals repeat the nonce: that is no reason to copy it.
    if (nonce && !(own.nonce && equalBytes(nonce, own.nonce))) own.nonce = copyBytes(nonce);
    if (request.description !== undefined) own.description = request.description || undefined;
    if (request.isExact !== undefined) own.isExact = request.isExact;
    if (request.namesAddress !== undefined) own.namesAddress = request.namesAddress;
    if (own.kind !== "static") {
      own.lease(request.by ?? own.origin, request.expiresAt, request.filters);
      this.#leases.set(own);
    }
    if (request.reserveCompanion) this.#ports.reserve(own.binding);
    if (this.#watches.size > 0) this.#watches.tell("renewed", own);
  }

  /**
   * Ends one protocol's lease: the mapping goes where no other one's client counts on it, and stays
   * with what is left otherwise.
   */
  release(entry: TableEntry, by: MappingOrigin, now: Instant): void {
    const own = this.#own(entry);
    if (!own?.leaseOf(by)) return;
    if (!own.isSharedBeside(by)) return this.remove(own, now);
    own.endLease(by);
    this.#leases.set(own);
    if (this.#watches.size > 0) this.#watches.tell("renewed", own);
  }

  /** That protocol's lease of the mapping; undefined where it has none. */
  leaseOf(entry: TableEntry, by: MappingOrigin): ProtocolLease | undefined {
    return this.#own(entry)?.leaseOf(by);
  }

  /** Whether another protocol's client counts on the mapping as well. */
  isSharedBeside(entry: TableEntry, by: MappingOrigin): boolean {
    return this.#own(entry)?.isSharedBeside(by) ?? false;
  }

  /** Deletes a mapping; its external port goes into quarantine where nothing else holds it. */
  remove(entry: TableEntry, now: Instant): void {
    const own = this.#own(entry);
    if (own) this.#drop(own, "removed", now);
  }

  /**
   * Deletes all mappings but static ones whose inside is that address: its own lease of the
   * address is over (PMP-S-20, PCP-S-57). Returns how many.
   */
  removeAllOf(internalAddress: string, now: Instant): number {
    const doomed = this.entriesOf(internalAddress).filter((entry) => entry.kind !== "static");
    for (const entry of doomed) this.remove(entry, now);
    return doomed.length;
  }

  /**
   * Notes that a packet went out, as the NAT sent it: who wants its external port hears that it is
   * taken, and its inside gets mappings at that port (PCP-S-34, 42, 53). Flows take half of the
   * table's entries at most; the NAT carries those that have no room here all the same.
   *
   * @param idleMs For how long the NAT keeps its mapping for that packet, milliseconds.
   */
  noteFlow(
    protocol: number,
    internal: Endpoint,
    external: Endpoint,
    remote: Endpoint,
    idleMs: number,
    now: Instant,
  ): void {
    const { address, port } = internal;
    const isKnown = this.outbound(protocol, address, port, remote) !== undefined ||
      this.#hosts.inbound(protocol, address, port) !== undefined;
    if (!isKnown && this.#flows < this.#settings.maxEntries / 2) {
      this.#mapOutbound({
        origin: "traffic",
        protocol,
        internal,
        remote,
        suggestedAddress: external.address,
        suggestedPort: external.port,
        isExact: true,
        expiresAt: now,
      }, now);
    }
    this.#keepAlive(protocol, internal, now + idleMs);
  }

  /** Notes that a packet went out by the mapping of that internal endpoint (PCP-S-53). */
  noteTraffic(protocol: number, internal: Endpoint, now: Instant): void {
    this.#keepAlive(protocol, internal, now + this.#settings.idleTimeoutMs(protocol));
  }

  #keepAlive(protocol: number, internal: Endpoint, until: Instant): void {
    for (const binding of this.#hosts.findAll(protocol, internal.address, internal.port)) {
      binding.idleUntil = Math.max(binding.idleUntil, until);
    }
  }

  /** Until when outbound traffic keeps the mapping alive; −Infinity where there was none. */
  idleUntil(entry: TableEntry): Instant {
    return this.#own(entry)?.binding.idleUntil ?? -Infinity;
  }

  /**
   * Sets the external addresses. Mappings on an address that is gone move to another one, with
   * the same port where it is free, and are returned; where no port is left they are gone.
   *
   * @throws {TypeError} Where one is not an IP address.
   */
  setExternalAddresses(addresses: readonly string[], now: Instant): MovedEntry[] {
    const uprooted = this.#ports.setAddresses(readExternalAddresses(addresses)) as Set<Binding>;
    for (const host of this.#hosts.all()) {
      if (host.paired !== undefined && !this.#ports.addresses.includes(host.paired)) {
        host.paired = undefined;
      }
    }
    const moved: MovedEntry[] = [];
    for (const binding of [...uprooted].sort((a, b) => firstId(a) - firstId(b))) {
      this.#move(binding, moved, now);
    }
    return moved;
  }

  /** Loses its mappings, as a reboot does; `"dynamic"` keeps the static ones. */
  clear(what: "all" | "dynamic", now: Instant): void {
    for (const entry of [...this.#entries.values()]) {
      if (what === "dynamic" && entry.kind === "static") continue;
      this.#drop(entry, "removed", now, false);
    }
    this.#ports.freeAll();
  }

  /** Ends the leases that are over at `now`. Returns how many mappings went. */
  advance(now: Instant): number {
    this.#ports.endQuarantine(now);
    let gone = 0;
    for (let entry = this.#leases.popDue(now); entry; entry = this.#leases.popDue(now)) {
      if (entry.expiresAt > now) {
        const isChanged = entry.endLeases(now);
        this.#leases.set(entry);
        if (isChanged && this.#watches.size > 0) this.#watches.tell("renewed", entry);
        continue;
      }
      const { idleUntil } = entry.binding;
      if (entry.kind === "outbound" && idleUntil > now) {
        // Traffic keeps it, and it is as any implicit mapping again (RFC 6887 §12.3).
        entry.nonce = undefined;
        entry.expiresAt = idleUntil;
        this.#leases.set(entry);
      } else {
        this.#drop(entry, "expired", now);
        gone++;
      }
    }
    return gone;
  }

  /**
   * When to call `advance` next: when a lease ends, or before that, when it would have ended had it
   * not been renewed; then nothing ends.
   */
  nextTimeout(): Instant | undefined {
    return this.#leases.nextAt();
  }

  /** {@linkcode MappingTable.nextTimeout} with its reason. */
  debugTimeout(): DebugTimeout | undefined {
    return this.#leases.next();
  }

  /** Watches the table from now on; at most `limit` changes wait. */
  watch(limit: number = 4096): TableWatch {
    return this.#watches.add(checkInteger("limit", limit, 1, 2 ** 24));
  }

  /** Ends a watch. */
  unwatch(watch: TableWatch): void {
    this.#watches.delete(watch);
  }

  #full(request: CreateRequest, isCharged: boolean): TableFault | undefined {
    if (this.isExhausted || this.#entries.size >= this.#settings.maxEntries) return "no-resources";
    return isCharged && this.#quotaLeft(request) < 1 ? "over-quota" : undefined;
  }

  #quotaLeft(request: CreateRequest): number {
    const used = this.portsOf(request.internal.address);
    return this.#settings.maxPortsPerClient - used;
  }

  #place(request: PlaceRequest, now: Instant): Place | TableFault {
    return this.#ports.place(request, this.#hosts.get(request.internal.address)?.paired, now);
  }

  #bind(request: CreateRequest, place: Place): Binding {
    const binding = this.#hosts.bind(request, place);
    this.#occupy(binding);
    return binding;
  }

  #occupy(binding: Binding): void {
    // It stays: NAT-PMP's client has been told it.
    if (binding.pool) binding.host.paired ??= binding.external.address;
    this.#ports.occupy(binding);
  }

  #add(
    kind: MappingKind,
    binding: Binding,
    request: CreateRequest,
    remote?: Endpoint,
  ): Entry {
    const offset = request.internal.port - binding.internal.port;
    const entry = new Entry(++this.#lastId, kind, binding, request, remote, offset);
    if (remote) (binding.outbound ??= new Map()).set(flowKey(offset, remote), entry);
    else binding.inbound = entry;
    if (isCharged(entry)) binding.host.used += entry.size;
    if (entry.origin === "traffic") this.#flows++;
    this.#entries.set(entry.id, entry);
    this.#leases.set(entry);
    if (request.reserveCompanion) this.#ports.reserve(binding);
    if (this.#watches.size > 0) this.#watches.tell("added", entry);
    return entry;
  }

  /** The entry behind one that was handed out, or behind a copy of it. */
  #own(entry: TableEntry): Entry | undefined {
    if (!(entry instanceof Entry)) return this.#entries.get(entry.id);
    return entry.isGone ? undefined : entry;
  }

  #drop(entry: Entry, change: "removed" | "expired", now: Instant, isQuarantined = true): void {
    const { binding } = entry;
    entry.isGone = true;
    this.#entries.delete(entry.id);
    this.#leases.delete(entry);
    if (entry.remote) binding.outbound!.delete(flowKey(entry.offset, entry.remote));
    else {
      binding.inbound = undefined;
      binding.endedNonce = entry.nonce;
    }
    if (isCharged(entry)) binding.host.used -= entry.size;
    if (entry.origin === "traffic") this.#flows--;
    if (!binding.inbound && (binding.size > 1 || !binding.outbound?.size)) {
      // A UPnP client deletes a mapping to have the port for another inside at once.
      const isOurs = isQuarantined && entry.kind !== "static" && entry.origin !== "traffic" &&
        entry.origin !== "upnp";
      this.#ports.vacate(binding, isOurs, isOurs ? entry.nonce : undefined, now);
      this.#hosts.unbind(binding);
      if (binding.outbound?.size) this.#keepFlows(binding);
    }
    if (this.#watches.size > 0) this.#watches.tell(change, entry);
  }

  /** Of a port set that has gone the ports stay that outbound mappings use, each on its own. */
  #keepFlows(set: Binding): void {
    const { outbound, protocol, internal, external, pool, host, endedNonce } = set;
    for (const entry of outbound!.values()) {
      const { offset } = entry;
      const inside = { address: internal.address, port: internal.port + offset };
      let binding = this.#hosts.findAll(protocol, inside.address, inside.port)
        .find((other) => other.external.port === external.port + offset);
      if (!binding) {
        const place = { external: entry.external, pool, size: 1 };
        binding = this.#hosts.bind(
          { origin: entry.origin, protocol, internal: inside, expiresAt: 0 },
          place,
          host,
        );
        binding.endedNonce = endedNonce;
        this.#occupy(binding);
      }
      entry.binding = binding;
      entry.offset = 0;
      (binding.outbound ??= new Map()).set(flowKey(0, entry.remote!), entry);
    }
  }

  #move(binding: Binding, moved: MovedEntry[], now: Instant): void {
    const entries = entriesIn(binding);
    const previous = binding.external;
    const { protocol, internal, size, reserves } = binding;
    const first = entries[0]!;
    const same: PlaceRequest = {
      origin: first.origin,
      protocol,
      internal,
      suggestedPort: previous.port,
      size,
      expiresAt: first.expiresAt,
      reserveCompanion: reserves,
      ...first.nonce ? { nonce: first.nonce } : {},
    };
    const place = this.#place(same, now);
    if (typeof place === "string" || place.size < size) {
      binding.pool = undefined;
      for (const entry of entries) {
        const copy = snapshotEntry(entry);
        this.#drop(entry, "removed", now);
        moved.push({ entry: copy, previous, isGone: true });
      }
      return;
    }
    binding.external = place.external;
    binding.pool = place.pool;
    this.#occupy(binding);
    for (const entry of entries) {
      if (this.#watches.size > 0) this.#watches.tell("moved", entry);
      moved.push({ entry, previous, isGone: false });
    }
  }
}

/**
 * When each lease ends. Deadlines are moved lazily: one that comes too early, because its lease was
 * renewed meanwhile, is moved when its turn comes. So renewals, which are most of a server's work,
 * cost nothing here.
 */
class Leases {
  #timers = new Timers<Entry>();

  /** Sees to it that the entry comes up when its first lease ends; `Infinity` for never. */
  set(entry: Entry): void {
    const { firstEnd } = entry;
    if (firstEnd >= entry.wakeAt || firstEnd === Infinity) return;
    entry.wakeAt = firstEnd;
    this.#timers.set(entry, firstEnd, "lease");
  }

  /** Forgets the entry. */
  delete(entry: Entry): void {
    this.#timers.delete(entry);
    entry.wakeAt = Infinity;
  }

  /** Takes out an entry whose lease may be over at `now`; call until undefined. */
  popDue(now: Instant): Entry | undefined {
    const entry = this.#timers.popDue(now);
    if (entry) entry.wakeAt = Infinity;
    return entry;
  }

  /** When a lease ends next, at the latest. */
  nextAt(): Instant | undefined {
    return this.#timers.nextAt();
  }

  /** {@linkcode Leases.nextAt} with its reason. */
  next(): DebugTimeout | undefined {
    const next = this.#timers.next();
    return next && { at: next.at, reason: `${next.reason} of mapping ${next.key.id}` };
  }
}
