/**
 * Which external endpoint a mapping gets: the gateway's external addresses, a pool of ports for
 * each protocol on each, the quarantine of freed ports, and the ports kept for a companion.
 *
 * @module
 */
import { equalBytes } from "../bytes.ts";
import { familyOf } from "../ip.ts";
import type { Endpoint, Instant } from "../machine.ts";
import { below } from "../random.ts";
import { Timers } from "../timers.ts";
import type { CreateRequest, TableFault } from "./entry.ts";
import type { TableSettings } from "./options.ts";
import { PortPool, type PortSearch, type PortSet } from "./port_pool.ts";

const TCP = 6;
const UDP = 17;

/** What holds external ports. */
export interface PortHolder {
  /** IANA's protocol number. */
  readonly protocol: number;
  /** The inside. */
  readonly internal: Endpoint;
  /** How many adjoining ports. */
  readonly size: number;
  /** The outside. */
  external: Endpoint;
  /** Undefined behind a firewall that does not translate. */
  pool: PortPool<PortHolder> | undefined;
  /** Whether the companion protocol's port is kept for the same inside. */
  reserves: boolean;
}

type Pool = PortPool<PortHolder>;

/** What is looked for. */
export interface PlaceRequest extends CreateRequest {
  /** How many adjoining ports, 1 where left out; there may come fewer. */
  readonly size?: number;
  /** The first external port shall be odd or even as the first internal one is. */
  readonly keepParity?: boolean;
  /** Whose ports are as good as free, since it goes for what is looked for. */
  readonly instead?: PortHolder | undefined;
}

/** An external endpoint that can be had. */
export interface Place {
  /** The first external port. */
  readonly external: Endpoint;
  /** Where it is from. */
  readonly pool: Pool | undefined;
  /** How many adjoining ports, at most as many as asked for. */
  readonly size: number;
}

/** Gives external endpoints out and takes them back. */
export class PortAllocator {
  #addresses: readonly string[];
  #byFamily: Readonly<Record<4 | 6, readonly string[]>>;
  #settings: TableSettings;
  #pools = new Map<string, Map<number, Pool>>();
  #quarantine: Quarantine<Pool>;
  #lastPort: number;

  /** Takes options that have been checked. */
  constructor(settings: TableSettings) {
    this.#settings = settings;
    this.#addresses = settings.externalAddresses;
    this.#byFamily = splitFamilies(this.#addresses);
    this.#quarantine = new Quarantine(settings.maxQuarantined);
    this.#lastPort = settings.firstChosenPort - 1;
  }

  /** The external addresses, the preferred one first. */
  get addresses(): readonly string[] {
    return this.#addresses;
  }

  /** Those of one family. */
  addressesOf(family: 4 | 6): readonly string[] {
    return this.#byFamily[family];
  }

  /** How many freed ports are in quarantine. */
  get quarantined(): number {
    return this.#quarantine.size;
  }

  /** Whether addresses of that family are not translated. */
  isFirewall(family: 4 | 6): boolean {
    return this.#settings.firewallFamilies.includes(family);
  }

  /** Who holds exactly that translated external endpoint. */
  holder(protocol: number, address: string, port: number): PortHolder | undefined {
    return this.#pools.get(address)?.get(protocol)?.owners.get(port);
  }

  /** Whether that external endpoint is in quarantine. */
  isFreed(protocol: number, { address, port }: Endpoint): boolean {
    const pool = this.#pools.get(address)?.get(protocol);
    return pool !== undefined && this.#quarantine.get(pool, port) !== undefined;
  }

  /** Finds an external endpoint; `paired` is the address on which the host is already. */
  place(request: PlaceRequest, paired: string | undefined, now: Instant): Place | TableFault {
    const { internal, suggestedAddress, isExact } = request;
    const family = familyOf(internal.address);
    if (this.isFirewall(family)) return placeSame(request);
    this.endQuarantine(now);
    const own = this.#byFamily[family];
    const isOwn = suggestedAddress !== undefined && own.includes(suggestedAddress);
    if (isExact && suggestedAddress !== undefined && !isOwn) return "external-unavailable";
    const first = isOwn ? suggestedAddress : paired;
    // An exact address is wanted alone; an exact port may be on any.
    const tried = isExact && isOwn
      ? [suggestedAddress]
      : first === undefined || first === own[0]
      ? own
      : [first, ...own.filter((other) => other !== first)];
    return internal.port === 0 ? this.#placeAll(request, tried) : this.#placePorts(request, tried);
  }

  /** Gives the holder its external endpoint. */
  occupy(holder: PortHolder): void {
    const { pool, external, size } = holder;
    if (!pool) return;
    for (let port = external.port; port < external.port + size; port++) {
      const freed = this.#quarantine.get(pool, port);
      if (freed) this.#quarantine.delete(freed);
      pool.owners.set(port, holder);
      pool.busy.add(port);
    }
    if (holder.reserves) this.#keepCompanion(holder, true);
  }

  /** Keeps the companion's ports for the holder's inside, unless another has one of them. */
  reserve(holder: PortHolder): void {
    const { pool, protocol, external, internal, size } = holder;
    if (!pool || holder.reserves) return;
    const companion = this.#companion(external.address, protocol);
    if (!companion) return;
    for (let port = external.port; port < external.port + size; port++) {
      if (companion.busy.has(port) && this.#insideOf(companion, port) !== internal.address) return;
    }
    holder.reserves = true;
    this.#keepCompanion(holder, true);
  }

  #keepCompanion({ external, protocol, size }: PortHolder, isKept: boolean): void {
    const companion = this.#companion(external.address, protocol);
    for (let port = external.port; port < external.port + size; port++) {
      if (isKept) companion?.reserved.add(port);
      else companion?.reserved.delete(port);
    }
  }

  /** Whose a port is, or was until a short time ago. */
  #insideOf(pool: Pool, port: number): string | undefined {
    return pool.owners.get(port)?.internal.address ??
      this.#quarantine.get(pool, port)?.internalAddress;
  }

  /** Takes the holder's external endpoint back; what is `isProtected` goes into quarantine. */
  vacate(
    holder: PortHolder,
    isProtected: boolean,
    nonce: Uint8Array | undefined,
    now: Instant,
  ): void {
    const { pool, external, internal, size, protocol } = holder;
    if (!pool) return;
    const quarantineMs = isProtected ? this.#settings.quarantineMs(protocol) : 0;
    if (holder.reserves) this.#keepCompanion(holder, false);
    for (let i = 0; i < size; i++) {
      const port = external.port + i;
      pool.owners.delete(port);
      if (quarantineMs === 0 || port === 0 || pool.isRetired) {
        pool.busy.delete(port);
        continue;
      }
      const freed = {
        pool,
        port,
        internalAddress: internal.address,
        internalPort: internal.port + i,
        nonce,
      };
      const evicted = this.#quarantine.add(freed, now + quarantineMs);
      evicted?.pool.busy.delete(evicted.port);
    }
  }

  /** Ends the quarantine of the ports whose time is over. */
  endQuarantine(now: Instant): void {
    for (let freed = this.#quarantine.popDue(now); freed; freed = this.#quarantine.popDue(now)) {
      freed.pool.busy.delete(freed.port);
    }
  }

  /** Ends all quarantine. */
  freeAll(): void {
    for (const freed of this.#quarantine.all()) freed.pool.busy.delete(freed.port);
    this.#quarantine.clear();
  }

  /** Sets the external addresses; returns who has none any more. */
  setAddresses(addresses: readonly string[]): Set<PortHolder> {
    this.#addresses = addresses;
    this.#byFamily = splitFamilies(addresses);
    const uprooted = new Set<PortHolder>();
    for (const [address, pools] of this.#pools) {
      if (addresses.includes(address)) continue;
      this.#pools.delete(address);
      for (const pool of pools.values()) {
        pool.isRetired = true;
        for (const holder of pool.owners.values()) uprooted.add(holder);
      }
    }
    // An address that is gone takes its quarantine with it: nobody sends there any more.
    for (const freed of this.#quarantine.all()) {
      if (freed.pool.isRetired) this.#quarantine.delete(freed);
    }
    return uprooted;
  }

  #pool(address: string, protocol: number): Pool {
    let pools = this.#pools.get(address);
    if (!pools) this.#pools.set(address, pools = new Map());
    let pool = pools.get(protocol);
    if (!pool) pools.set(protocol, pool = new PortPool<PortHolder>());
    return pool;
  }

  #companion(address: string, protocol: number): Pool | undefined {
    if (protocol !== TCP && protocol !== UDP) return undefined;
    return this.#pool(address, protocol === TCP ? UDP : TCP);
  }

  #portsOf(sets: TableSettings["allowed"], protocol: number): PortSet {
    return protocol === TCP ? sets.tcp : protocol === UDP ? sets.udp : sets.other;
  }

  #placePorts(request: PlaceRequest, addresses: readonly string[]): Place | TableFault {
    const { protocol, internal, size = 1 } = request;
    const keepsPort = this.#settings.samePortProtocols.has(protocol);
    if (
      keepsPort && request.isExact && (request.suggestedPort || internal.port) !== internal.port
    ) {
      return "external-unavailable";
    }
    const isExact = keepsPort || (request.isExact ?? false);
    const suggestedPort = keepsPort ? internal.port : request.suggestedPort ?? 0;
    const { random, prefersSamePort } = this.#settings;
    const parity = request.keepParity ? (internal.port & 1) as 0 | 1 : undefined;
    const isUnfit = parity !== undefined && (suggestedPort & 1) !== parity;
    const allowed = this.#portsOf(this.#settings.chosen, protocol);
    let fallback: Place | undefined;
    for (const address of addresses) {
      const whole = this.holder(protocol, address, 0) ?? this.holder(0, address, 0);
      const isOthers = whole !== undefined && whole.internal.address !== internal.address;
      // What goes out has its port, whoever takes the rest of what comes in.
      if (isOthers && request.origin !== "traffic") continue;
      const pool = this.#pool(address, protocol);
      if (suggestedPort !== 0 && !isUnfit && this.#isFree(address, pool, suggestedPort, request)) {
        return { external: { address, port: suggestedPort }, pool, size };
      }
      if (isExact && suggestedPort !== 0) continue;
      if (prefersSamePort && allowed.has(internal.port)) {
        if (this.#isFree(address, pool, internal.port, request)) {
          return { external: { address, port: internal.port }, pool, size };
        }
      }
      const start = random ? below(random, 65536) : (this.#lastPort + 1) & 0xffff;
      const companion = request.reserveCompanion ? this.#companion(address, protocol) : undefined;
      const search: PortSearch = { start, allowed, parity, companion };
      const run = size === 1
        ? { first: pool.findOne(search) || this.#ownPort(address, pool, request, allowed), size }
        : pool.findRun(search, size);
      if (!run || run.first === 0) continue;
      const place = { external: { address, port: run.first }, pool, size: run.size };
      if (run.size === size) {
        if (!random) this.#lastPort = run.first + size - 1;
        return place;
      }
      if (run.size > (fallback?.size ?? 0)) fallback = place;
    }
    return fallback ?? (isExact && suggestedPort !== 0 ? "external-unavailable" : "no-resources");
  }

  /**
   * A port that nobody but who asks may have: kept for its other protocol's mapping, or its own
   * until a short time ago; 0 where there is none.
   */
  #ownPort(address: string, pool: Pool, request: PlaceRequest, allowed: PortSet): number {
    const { protocol, internal } = request;
    const own: number[] = [];
    for (
      const [port, { reserves, internal: of }] of this.#companion(address, protocol)?.owners ?? []
    ) {
      if (reserves && of.address === internal.address) own.push(port);
    }
    for (const { port, internalAddress } of this.#quarantine.of(pool)) {
      if (internalAddress === internal.address) own.push(port);
    }
    return own.find((port) => allowed.has(port) && this.#isFree(address, pool, port, request)) ?? 0;
  }

  /** A place for all ports of a protocol, or of all protocols: nothing of it may be another's. */
  #placeAll(
    { protocol, internal, isExact, suggestedPort }: PlaceRequest,
    addresses: readonly string[],
  ): Place | TableFault {
    // All ports keep their numbers: there is no external port to insist on.
    if (isExact && suggestedPort) return "external-unavailable";
    const isOthers = (pool: Pool | undefined, isCompanion = false): boolean => {
      for (const { internal: { address }, reserves } of pool?.owners.values() ?? []) {
        if (address !== internal.address && (reserves || !isCompanion)) return true;
      }
      return false;
    };
    for (const address of addresses) {
      const pools = this.#pools.get(address);
      const isTaken = protocol === 0
        ? [...pools?.values() ?? []].some((pool) => isOthers(pool))
        : isOthers(pools?.get(protocol)) || isOthers(pools?.get(0)) ||
          isOthers(this.#companion(address, protocol), true);
      const pool = this.#pool(address, protocol);
      if (!isTaken && !pool.owners.has(0)) return { external: { address, port: 0 }, pool, size: 1 };
    }
    return "not-entirely-available";
  }

  /** Whether all ports from `first` on can be had by whoever asks. */
  #isFree(address: string, pool: Pool, first: number, request: PlaceRequest): boolean {
    const { protocol, internal, nonce, size = 1, instead } = request;
    const allowed = this.#portsOf(this.#settings.allowed, protocol);
    for (let i = 0; i < size; i++) {
      const port = first + i;
      if (port > 65535 || !allowed.has(port)) return false;
      const inside = { address: internal.address, port: internal.port + i };
      if (this.#settings.isUsable?.(protocol, port, inside) === false) return false;
      if (pool.busy.has(port) && !(instead && pool.owners.get(port) === instead)) {
        const freed = this.#quarantine.get(pool, port);
        if (!freed || !isLastHolder(freed, internal.address, internal.port + i, nonce)) {
          return false;
        }
      }
      if (!pool.reserved.has(port) && !request.reserveCompanion) continue;
      const companion = this.#companion(address, protocol);
      if (!companion?.busy.has(port)) continue;
      if (this.#insideOf(companion, port) !== internal.address) return false;
    }
    return true;
  }
}

function splitFamilies(
  addresses: readonly string[],
): Readonly<Record<4 | 6, readonly string[]>> {
  const of = (family: 4 | 6) => addresses.filter((address) => familyOf(address) === family);
  return { 4: of(4), 6: of(6) };
}

/** Behind a firewall the outside is the inside. */
function placeSame(request: PlaceRequest): Place | TableFault {
  const { internal: { address, port }, suggestedAddress, suggestedPort, isExact, size = 1 } =
    request;
  const isSame = (suggestedAddress ?? address) === address && (suggestedPort || port) === port;
  if (isExact && !isSame) return "external-unavailable";
  return { external: { address, port }, pool: undefined, size };
}

/** A freed port. */
interface FreedPort<P> {
  /** The pool it belongs to. */
  readonly pool: P;
  /** The external port. */
  readonly port: number;
  /** Its last holder's internal address. */
  readonly internalAddress: string;
  /** Its last holder's internal port. */
  readonly internalPort: number;
  /** Its last holder's nonce, where there was one. */
  readonly nonce: Uint8Array | undefined;
}

/**
 * Freed ports that nobody but their last holder may have for a while, so that nobody takes over
 * another host's traffic by having its mapping deleted (RFC 6887 §15, PCP-S-54); at most `limit`.
 * The last holder is known by internal address, internal port and nonce.
 */
class Quarantine<P> {
  #byPool = new Map<P, Map<number, FreedPort<P>>>();
  #ends = new Timers<FreedPort<P>>();
  #limit: number;

  /** @param limit Where there are more, those go first whose time is over first. */
  constructor(limit: number) {
    this.#limit = limit;
  }

  /** How many ports are in it. */
  get size(): number {
    return this.#ends.size;
  }

  /** Puts a port in, and returns the one that had to leave for it, if any. */
  add(freed: FreedPort<P>, until: Instant): FreedPort<P> | undefined {
    let ports = this.#byPool.get(freed.pool);
    if (!ports) this.#byPool.set(freed.pool, ports = new Map());
    ports.set(freed.port, freed);
    this.#ends.set(freed, until, "free an external port");
    return this.#ends.size > this.#limit ? this.#pop(Infinity) : undefined;
  }

  /** The port, where it is in quarantine. */
  get(pool: P, port: number): FreedPort<P> | undefined {
    return this.#byPool.get(pool)?.get(port);
  }

  /** Takes a port out. */
  delete(freed: FreedPort<P>): void {
    this.#ends.delete(freed);
    const ports = this.#byPool.get(freed.pool);
    ports?.delete(freed.port);
    if (ports?.size === 0) this.#byPool.delete(freed.pool);
  }

  /** Takes out a port whose time is over at `now`; call until undefined. */
  popDue(now: Instant): FreedPort<P> | undefined {
    return this.#pop(now);
  }

  /** Those of one pool. */
  of(pool: P): Iterable<FreedPort<P>> {
    return this.#byPool.get(pool)?.values() ?? [];
  }

  /** All freed ports. */
  all(): FreedPort<P>[] {
    return [...this.#byPool.values()].flatMap((ports) => [...ports.values()]);
  }

  /** Forgets all. */
  clear(): void {
    this.#byPool.clear();
    this.#ends.clear();
  }

  #pop(now: Instant): FreedPort<P> | undefined {
    const freed = this.#ends.popDue(now);
    if (freed) this.delete(freed);
    return freed;
  }
}

/**
 * Whether whoever asks is the last holder. A protocol without nonces has only the internal
 * endpoint to show.
 */
function isLastHolder<P>(
  freed: FreedPort<P>,
  internalAddress: string,
  internalPort: number,
  nonce: Uint8Array | undefined,
): boolean {
  return freed.internalAddress === internalAddress && freed.internalPort === internalPort &&
    (nonce === undefined || freed.nonce === undefined || equalBytes(nonce, freed.nonce));
}
