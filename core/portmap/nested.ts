/**
 * Mappings behind two NATs: one that is held at a private address is mapped on by the gateway above
 * (`outer.ts`), and told with the endpoint of that one, which is where others send to.
 *
 * The grant of the inner gateway is told with that of the outer one, if that comes within a second,
 * which leaves room for the first two retransmissions; else as it is, and as `moved` if the outer one
 * maps it later. What becomes of the outer mapping loses nothing of the inner one: where it is gone,
 * the inner one's endpoint is told, whose address says that it is behind another NAT. At the end both
 * are deleted, and then that is told.
 *
 * @module
 */
import type { Attempt } from "../errors.ts";
import { isSameEndpoint } from "../ip.ts";
import { mergeMappingEvents } from "../lease/events.ts";
import type { Endpoint, Instant } from "../machine.ts";
import type { Failure, MappingId } from "../mapping.ts";
import type { Timers } from "../timers.ts";
import type { GrantedMapping, ManagedMapping, MapperEvent } from "./managed.ts";
import { isAsked, nestedAt, type Outers } from "./outer.ts";

/** How long a grant waits for that of the gateway above. */
const OUTER_GRACE_MS = 1000;

type GrantedEvent = Extract<MapperEvent, { readonly mapping: GrantedMapping }>;
type UnmappedEvent = Extract<MapperEvent, { readonly type: "unmapped" }>;

/** What nested mappings need of the mapper. */
export interface NestedHost {
  /** When each is to be told, or its outer ones given up. */
  readonly timers: Timers<MappingId>;
  /** An id that nothing else has. */
  newId(): MappingId;
  /** Forgets an outer mapping, and leaves it at its gateway. */
  abandon(outer: ManagedMapping, now: Instant): void;
  /** Tells the application. */
  tell(event: MapperEvent, key: MappingId): void;
}

interface Nest {
  /** Of this its outer mappings are parts. */
  readonly id: MappingId;
  readonly inner: ManagedMapping;
  /** Its outer mappings are being ended and begun: what becomes of them is looked at after that. */
  isReaching: boolean;
  /** The endpoint that was told last. */
  told: Endpoint | undefined;
  /** A grant that waits for the outer one's, and until when. */
  held: GrantedEvent | undefined;
  heldUntil: Instant;
  /** The number of the last grant. */
  revision: number;
  /** What is told once the outer mappings are over, too. */
  over: UnmappedEvent | undefined;
  attempts: readonly Attempt[];
  failure: Failure | undefined;
}

/** The mappings of one mapper that have been behind two NATs. */
export class Nested {
  readonly #outers: Outers;
  readonly #host: NestedHost;
  readonly #byInner: Map<ManagedMapping, Nest> = new Map();
  readonly #byId: Map<MappingId, Nest> = new Map();

  /** @param outers Where it is mapped on. */
  constructor(outers: Outers, host: NestedHost) {
    this.#outers = outers;
    this.#host = host;
  }

  /** Whether outer mappings that are parts of this id are here. */
  owns(id: MappingId): boolean {
    return this.#byId.has(id);
  }

  /** A mapping as it is told: with the outermost endpoint. */
  mapping(inner: ManagedMapping): GrantedMapping | undefined {
    const { granted } = inner, nest = this.#byInner.get(inner);
    if (!granted || !nest) return granted;
    const outer = this.#outers.of(nest.id).find(isHeld);
    if (!outer) return granted;
    return { ...granted, external: outer.granted!.external, gatewayExternal: granted.external };
  }

  /** Something happened to a mapping that may be nested: tells it, as soon as it is whole. */
  tell(inner: ManagedMapping, event: MapperEvent, now: Instant): void {
    const nest = this.#byInner.get(inner) ?? this.#begin(inner);
    if (!nest) return this.#host.tell(event, inner.id);
    this.#reach(nest, now);
    if (!("mapping" in event)) return this.#host.tell(event, inner.id);
    const { held } = nest;
    // A renewal has nothing new to wait for.
    if (!held && event.type !== "renewed") nest.heldUntil = now + OUTER_GRACE_MS;
    nest.held = held ? mergeMappingEvents(held, event) : event;
    nest.revision = event.revision;
    this.#settle(nest, now);
  }

  /** What waits for an outer gateway is told as it is. */
  flush(inner: ManagedMapping, now: Instant): void {
    const nest = this.#byInner.get(inner);
    if (!nest?.held) return;
    nest.heldUntil = now;
    this.#settle(nest, now);
  }

  /** Something happened to an outer mapping. */
  changed(id: MappingId, now: Instant): void {
    const nest = this.#byId.get(id);
    if (nest) this.#settle(nest, now);
  }

  /** An outer mapping is over; `failure` says why its gateway may hold it all the same. */
  partOver(part: ManagedMapping, failure: Failure | undefined, now: Instant): void {
    const nest = this.#byId.get(part.partOf!);
    if (!nest) return;
    if (part.granted) {
      nest.attempts = [...nest.attempts, ...part.attempts];
      nest.failure = failure ?? nest.failure;
    }
    if (nest.over) return this.#endIfDone(nest);
    // What was not wanted when its end began may be wanted by now.
    this.#reach(nest, now);
    this.#settle(nest, now);
  }

  /** A mapping is being deleted: so are its outer ones. */
  revoke(inner: ManagedMapping, now: Instant): void {
    const nest = this.#byInner.get(inner);
    if (!nest) return;
    nest.held = undefined;
    nest.attempts = [];
    nest.failure = undefined;
    this.#outers.end(nest.id, now);
  }

  /** A mapping is over; it is told when its outer ones are, too. */
  over(inner: ManagedMapping, event: UnmappedEvent, now: Instant): void {
    const nest = this.#byInner.get(inner);
    if (!nest) return this.#host.tell(event, inner.id);
    nest.over = event;
    this.#outers.end(nest.id, now);
    this.#endIfDone(nest);
  }

  /** Forgets a mapping's outer ones, and leaves them at their gateways. */
  abandon(inner: ManagedMapping, now: Instant): void {
    const nest = this.#byInner.get(inner);
    if (!nest) return;
    for (const outer of this.#outers.of(nest.id)) {
      this.#host.abandon(outer, now);
      this.#outers.over(outer, now);
    }
    this.#forget(nest);
  }

  /** What is due for one. */
  due(id: MappingId, now: Instant): void {
    const nest = this.#byId.get(id);
    if (!nest) return;
    this.#outers.giveUp(now);
    this.#settle(nest, now);
  }

  #begin(inner: ManagedMapping): Nest | undefined {
    const { remote, portSet } = inner.request;
    if (!nestedAt(inner) || remote || portSet) return undefined;
    const nest: Nest = {
      id: this.#host.newId(),
      inner,
      isReaching: false,
      told: undefined,
      held: undefined,
      heldUntil: -Infinity,
      revision: 0,
      over: undefined,
      attempts: [],
      failure: undefined,
    };
    this.#byInner.set(inner, nest);
    this.#byId.set(nest.id, nest);
    return nest;
  }

  #reach(nest: Nest, now: Instant): void {
    const { id, inner } = nest;
    nest.isReaching = true;
    this.#outers.reach(id, inner.request, [inner], now);
    nest.isReaching = false;
  }

  #settle(nest: Nest, now: Instant): void {
    if (nest.isReaching) return;
    if (!nest.over) this.#tellSettled(nest, now);
    this.#arm(nest);
  }

  /** Tells what waits, where it need not wait any more, and what has changed. */
  #tellSettled(nest: Nest, now: Instant): void {
    const { inner, told, held, heldUntil, revision } = nest;
    const isKnown = held !== undefined || told !== undefined;
    if (!isKnown || inner.phase !== "held") return;
    const mapping = this.mapping(inner)!;
    const { external, gatewayExternal } = mapping;
    const mayCome = !gatewayExternal && this.#outers.of(nest.id).some(isAsked);
    if (held && mayCome && now < heldUntil) return;
    nest.held = undefined;
    nest.told = external;
    const isSame = told !== undefined && isSameEndpoint(told, external);
    if (!held && isSame) return;
    const isNews = held?.type === "mapped" || held?.type === "recovered";
    const type = isNews ? held.type : isSame ? "renewed" : "moved";
    this.#host.tell({ type, id: inner.id, mapping, revision }, inner.id);
  }

  #arm({ id, held, heldUntil, over }: Nest): void {
    const giveUpAt = this.#outers.giveUpAt(id) ?? Infinity;
    const at = over ? Infinity : Math.min(held ? heldUntil : Infinity, giveUpAt);
    if (at === Infinity) this.#host.timers.delete(id);
    else this.#host.timers.set(id, at, "outer gateway");
  }

  #endIfDone(nest: Nest): void {
    const { id, inner, over, attempts, failure } = nest;
    if (!over || this.#outers.mayBeHeld(id) || !this.#byId.has(id)) return;
    this.#forget(nest);
    const all = { ...over, attempts: [...over.attempts, ...attempts] };
    this.#host.tell(failure && !over.failure ? { ...all, failure } : all, inner.id);
  }

  #forget(nest: Nest): void {
    this.#host.timers.delete(nest.id);
    this.#outers.forget(nest.id);
    this.#byInner.delete(nest.inner);
    this.#byId.delete(nest.id);
  }
}

/** Whether a gateway holds a mapping, for all that is known. */
function isHeld({ phase }: ManagedMapping): boolean {
  return phase === "held";
}
