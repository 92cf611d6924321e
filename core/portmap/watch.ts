/**
 * The change listener: one port, asked for at every gateway of this host, and the set of all the
 * addresses by which it can be reached.
 *
 * A watch has a part for each gateway in use, which is a managed mapping like any other, but that
 * it never fails: where nobody maps it rests and is tried again. With what they hold, and the local
 * addresses, goes the set. It is told whole, at once when the watch begins and then at each change:
 * what is new within a tenth of a second, so that two gateways that answer together make one change;
 * what is gone after a second, so that a restarted gateway that gives the same back makes none.
 *
 * Where a gateway's external address is a private one, another NAT stands above it. What that one
 * gives where it is asked through the inner one (`outer.ts`) belongs to the set. So does how STUN
 * servers see the port's socket, where the caller has that asked.
 *
 * @module
 */
import type { Attempt } from "../errors.ts";
import { type Family, familyOf, isSameEndpoint } from "../ip.ts";
import type { Endpoint, Instant } from "../machine.ts";
import type { Failure, MappingId } from "../mapping.ts";
import type { Timers } from "../timers.ts";
import type {
  Assignment,
  ManagedMapping,
  MapperEvent,
  PortRequest,
  WatchRequest,
} from "./managed.ts";
import type { Outers } from "./outer.ts";
import type { Path } from "./path.ts";

/** How long what is new may wait for more of its kind. */
const SETTLE_MS = 100;
/** How long what is gone may take to come back. */
const LOSS_MS = 1000;

/** What watches need of the mapper. */
export interface WatchHost {
  /** When each watch is to be told. */
  readonly timers: Timers<MappingId>;
  /** The gateways in use, the best first. */
  paths(): readonly Path[];
  /** Makes a part. */
  begin(watch: MappingId, request: PortRequest, now: Instant): ManagedMapping;
  /** Ends a part; {@linkcode Watches.partOver} follows. */
  end(part: ManagedMapping, now: Instant): void;
  /** Tells the application. */
  tell(event: MapperEvent, key: string): void;
}

interface Watch {
  readonly id: MappingId;
  readonly request: PortRequest;
  readonly boundTo: string | undefined;
  /** At most one for each gateway in use, beside those that are ending. */
  parts: readonly ManagedMapping[];
  /** How STUN servers see its socket. */
  reflexive: readonly Endpoint[];
  /** What the application knows, in an order that says nothing. */
  told: ReadonlySet<string>;
  isClosing: boolean;
  attempts: readonly Attempt[];
  failure: Failure | undefined;
}

/** The watches of one mapper. */
export class Watches {
  readonly #outers: Outers;
  readonly #host: WatchHost;
  readonly #open: Map<MappingId, Watch> = new Map();
  #localAddresses: readonly string[] = [];

  /** @param outers What is made at gateways above those in use. */
  constructor(outers: Outers, host: WatchHost) {
    this.#outers = outers;
    this.#host = host;
  }

  /** How many there are. */
  get size(): number {
    return this.#open.size;
  }

  /** Whether this is the id of one. */
  owns(id: MappingId): boolean {
    return this.#open.has(id);
  }

  /** Whether what is watched over this family is so. */
  some(family: Family, isSo: (request: PortRequest) => boolean): boolean {
    for (const watch of this.#open.values()) {
      if (!watch.isClosing && isMeant(watch, family) && isSo(watch.request)) return true;
    }
    return false;
  }

  /** Begins one; the set as it stands is told at once. */
  open(id: MappingId, { boundTo, ...request }: WatchRequest, now: Instant): void {
    const watch: Watch = {
      id,
      request,
      boundTo,
      parts: [],
      reflexive: [],
      told: new Set(),
      isClosing: false,
      attempts: [],
      failure: undefined,
    };
    this.#open.set(id, watch);
    this.#tell(watch);
    this.#join(watch, now);
  }

  /** The set as it stands; undefined where there is no such watch. */
  assignments(id: MappingId): readonly Assignment[] | undefined {
    const watch = this.#open.get(id);
    return watch && this.#setOf(watch);
  }

  /** These are this host's addresses for others. */
  localAddressesChanged(addresses: readonly string[], now: Instant): void {
    this.#localAddresses = addresses;
    for (const watch of this.#open.values()) this.#note(watch, now);
  }

  /** STUN servers see the socket of one by these. */
  reflexiveChanged(id: MappingId, endpoints: readonly Endpoint[], now: Instant): void {
    const watch = this.#open.get(id);
    if (!watch) return;
    watch.reflexive = endpoints;
    this.#note(watch, now);
  }

  /** Other gateways are in use. */
  pathsChanged(now: Instant): void {
    for (const watch of [...this.#open.values()]) this.#join(watch, now);
  }

  /** Something happened to a part. */
  changed(id: MappingId, now: Instant): void {
    const watch = this.#open.get(id);
    if (!watch) return;
    this.#reachBeyond(watch, now);
    this.#note(watch, now);
  }

  /** A part has ended; `failure` says why its gateway may hold it all the same. */
  partOver(part: ManagedMapping, failure: Failure | undefined, now: Instant): void {
    const watch = this.#open.get(part.partOf!);
    if (!watch) return;
    watch.parts = watch.parts.filter((one) => one !== part);
    if (!watch.isClosing) return this.#reachBeyond(watch, now);
    watch.attempts = [...watch.attempts, ...part.attempts];
    watch.failure ??= failure;
    this.#endIfDone(watch);
  }

  /** What is due for a watch. */
  due(id: MappingId): void {
    const watch = this.#open.get(id);
    if (watch) this.#tell(watch);
  }

  /** Ends one: what was made is deleted, then `unmapped` tells. */
  close(id: MappingId, now: Instant): void {
    const watch = this.#open.get(id);
    if (!watch || watch.isClosing) return;
    watch.isClosing = true;
    this.#host.timers.delete(id);
    this.#outers.end(id, now);
    for (const part of watch.parts) this.#host.end(part, now);
    this.#endIfDone(watch);
  }

  /** Ends all. */
  closeAll(now: Instant): void {
    for (const id of [...this.#open.keys()]) this.close(id, now);
  }

  #endIfDone(watch: Watch): void {
    const { id, isClosing, parts, attempts, failure } = watch;
    const isDone = isClosing && parts.length === 0 && !this.#outers.mayBeHeld(id);
    if (!isDone || !this.#open.delete(id)) return;
    this.#outers.forget(id);
    const told = { reason: "revoked", attempts, ...(failure && { failure }) } as const;
    this.#host.tell({ type: "unmapped", id, ...told }, `watch ${id} over`);
  }

  /** A part for each gateway in use, and for no other. */
  #join(watch: Watch, now: Instant): void {
    if (watch.isClosing) return;
    const { gateway: only } = watch.request;
    const paths = this.#host.paths().filter(({ gateway }) =>
      only === undefined ? isMeant(watch, familyOf(gateway.address)) : isSameEndpoint(gateway, only)
    );
    const isAt = (part: ManagedMapping, { gateway }: Path) =>
      part.request.gateway === gateway && part.phase !== "revoking";
    for (const part of watch.parts) {
      const isUsed = paths.some((path) => isAt(part, path));
      if (!isUsed && part.phase !== "revoking") this.#host.end(part, now);
    }
    for (const path of paths) {
      if (watch.parts.some((part) => isAt(part, path))) continue;
      const request = { ...watch.request, gateway: path.gateway };
      watch.parts = [...watch.parts, this.#host.begin(watch.id, request, now)];
    }
    this.#reachBeyond(watch, now);
    this.#note(watch, now);
  }

  /** What parts hold at private addresses is mapped by the gateways above, and nothing else is. */
  #reachBeyond({ id, request, parts, isClosing }: Watch, now: Instant): void {
    if (!isClosing) this.#outers.reach(id, request, parts, now);
  }

  #setOf({ id, request, boundTo, parts, reflexive }: Watch): Assignment[] {
    const { protocol, internalPort, thirdParty } = request;
    const local = thirdParty !== undefined
      ? []
      : (boundTo === undefined ? this.#localAddresses : [boundTo]).map((address): Assignment => ({
        protocol,
        address,
        port: internalPort,
        via: "local",
        family: familyOf(address),
      }));
    const external = [...parts, ...this.#outers.of(id)].flatMap(
      ({ granted, phase }): Assignment[] => {
        if (phase !== "held" || !granted) return [];
        const { external: { address, port }, via } = granted;
        return [{ protocol, address, port, via, family: familyOf(address) }];
      },
    );
    const seen = reflexive.map(({ address, port }): Assignment => (
      { protocol, address, port, via: "stun", family: familyOf(address) }
    ));
    return [
      ...local.filter(({ family }) => request.family === undefined || request.family === family),
      ...external,
      ...seen,
    ];
  }

  /** The set may have changed: says when that is to be told. */
  #note(watch: Watch, now: Instant): void {
    const { id, told, isClosing } = watch;
    if (isClosing) return;
    const { timers } = this.#host;
    const set = new Set(this.#setOf(watch).map(keyOf));
    const hasNew = [...set].some((key) => !told.has(key));
    if (!hasNew && set.size === told.size) return timers.delete(id);
    const at = now + (hasNew ? SETTLE_MS : LOSS_MS);
    if ((timers.at(id) ?? Infinity) > at) timers.set(id, at, "assignments");
  }

  #tell(watch: Watch): void {
    const { id } = watch;
    const assignments = this.#setOf(watch);
    watch.told = new Set(assignments.map(keyOf));
    this.#host.tell({ type: "assignments", id, assignments }, `watch ${id}`);
  }
}

function isMeant({ request: { family, gateway } }: Watch, of: Family): boolean {
  if (gateway !== undefined) return familyOf(gateway.address) === of;
  return family === undefined || family === of;
}

function keyOf({ protocol, address, port, via }: Assignment): string {
  return `${protocol} ${address} ${port} ${via}`;
}
