/**
 * The life of a lease, once for all protocols: what a grant, a refusal, silence, the passing of
 * time and the application's commands make of it, and what the application is told.
 *
 *   waiting ─▶ asking ──granted──▶ granted ──1/2, 3/4…──▶ renewing ──granted──▶ granted
 *              │    ▲               │   │ the gateway's table is another one       │
 *       refused│    │its time       │   └──▶ recovering ──0…5 s──▶ asking ◀────────┘
 *              ▼    │has come       └──the end──▶ lost: asking again, or over
 *              resting
 *   any ──revoked──▶ deleting ──answered, given up, or the lease's own end──▶ over
 *
 * A grant lasts to its end, whatever is said or not said to its renewal: an error changes nothing
 * at the gateway (PCP-S-15, PMP-S-29). It is lost before that only where the gateway's table is
 * another one and what was in it is refused now, where the gateway says itself that it is gone, or
 * where it no longer speaks the protocol. A lease that is kept alive goes on from a loss, a refusal
 * and silence; one that is wanted for a time ends with `failed` or `unmapped`.
 *
 * A protocol fills in {@linkcode LeaseWire}: it sends and sends again, decides whose answer a
 * datagram is and what it means, and calls `granted`, `failed`, `gone` or `deleted`.
 *
 * Clauses: PCP-C-21, 22, 26, 39…41, 45, 52…54; PMP-C-10, 11, 21…23, 28…30.
 *
 * @module
 */
import { PCP_MRT_MS, RECREATION_DELAY_MS } from "../backoff.ts";
import type { DebugTimeout, Endpoint, Instant } from "../machine.ts";
import {
  describeInternal,
  type Failure,
  type MappingEvent,
  type MappingId,
  type MappingKey,
  mappingKey,
  NO_FILTERS,
  sameFilters,
  sharePorts,
  type Wanted,
} from "../mapping.ts";
import { type RandomSource, uniform } from "../random.ts";
import { DeadlineHeap } from "../timers.ts";
import { type Grant, Lease } from "./lease.ts";

/** What is sent for a lease. */
export type Ask =
  /** The first request, or the first from another address. */
  | "create"
  /** Another request of the same series of renewals. */
  | "renew"
  /** A request for what was lost. */
  | "recreate"
  | "delete";

/** What a protocol fills in. */
export interface LeaseWire<R, T> {
  /** Whether recreations are spread one by one or leave together (PCP-C-52, PMP-C-29). */
  readonly recreation: "each" | "together";
  /** Whether the protocol has a deletion for it (PCP-C-45). */
  canDelete(wanted: Wanted): boolean;
  /** When renewal attempt 1, 2, 3… is due, as a fraction of the lifetime. */
  renewalFraction(attempt: number): number;
  /**
   * How long a renewal out of schedule waits for its answer after it has waited for `previousMs`,
   * milliseconds. Absent: the protocol itself sends it again.
   */
  patienceMs?(previousMs: number | undefined): number;
  /** Sends a request, and again as the protocol wants it; notes `sentRevision` where it encodes. */
  send(lease: Lease<R>, ask: Ask, now: Instant): void;
  /** Forgets the request on its way. */
  cancel(lease: Lease<R>): void;
  /** Until when nothing new may be asked for (PCP-C-42). */
  blockedUntil?(): { readonly until: Instant; readonly failure: Failure } | undefined;
  /** The mapping as applications see it. */
  snapshot(lease: Lease<R>): T;
}

/** Where a keeper tells what happens; an `Outbox` is one. */
export interface EventSink<T> {
  /** Queues an event; under a key it is merged with one still waiting there. */
  emit(event: MappingEvent<T>, key: MappingId): void;
  /** The event that waits under a key: nobody has heard of it. */
  pendingEvent(key: MappingId): { readonly type: string } | undefined;
}

/** How long a lease rests after a failure that names no time: doubling from here… */
const FIRST_REST_MS = 3000;
/** …to this, where the gateway held it once… */
const LONGEST_REST_MS = 60_000;
/** …and to PCP's longest wait where it never did (RFC 6887 §8.1.1). */
const LONGEST_FIRST_REST_MS = PCP_MRT_MS;
/** An announced epoch of less says when the table began, whatever the gateway's clock's rate. */
const YOUNG_TABLE_SECONDS = 64;
/** A success nobody asked for that changes the end by less is a duplicate, milliseconds. */
const DUPLICATE_MS = 2000;

/** The leases of one client. Under one key one may be wanted and one be on its way out. */
export class LeaseKeeper<R, T> {
  /** The next step of each. */
  readonly #deadlines: DeadlineHeap<Lease<R>> = new DeadlineHeap();
  readonly #wire: LeaseWire<R, T>;
  readonly #random: RandomSource;
  readonly #outbox: EventSink<T>;
  readonly #byId = new Map<MappingId, Lease<R>>();
  readonly #wanted = new Map<MappingKey, Lease<R>>();
  readonly #leaving = new Map<MappingKey, Lease<R>>();
  /** Those of the wanted ones that are for several ports. */
  readonly #sets = new Set<Lease<R>>();
  #lastId: MappingId = 0;

  /** Makes a keeper without leases, which tells by way of `outbox`. */
  constructor(wire: LeaseWire<R, T>, random: RandomSource, outbox: EventSink<T>) {
    this.#wire = wire;
    this.#random = random;
    this.#outbox = outbox;
  }

  // ---- What there is -----------------------------------------------------------------------

  /** How many there are, those being deleted among them. */
  get size(): number {
    return this.#byId.size;
  }

  /** The id given out last. */
  get lastId(): MappingId {
    return this.#lastId;
  }

  /** The next step of all. */
  next(): DebugTimeout | undefined {
    const { first } = this.#deadlines;
    if (!first) return undefined;
    const { id, armedAt: at, phase, expiresAt } = first;
    const what = at === expiresAt && phase !== "deleting" ? "end of lifetime" : phase;
    return { at, reason: `${what}, mapping ${id}` };
  }

  /** The lease of an id, or undefined where it is over. */
  get(id: MappingId): Lease<R> | undefined {
    return this.#byId.get(id);
  }

  /** The mapping of an id as applications see it, or undefined where it is over. */
  mapping(id: MappingId): T | undefined {
    const lease = this.#byId.get(id);
    return lease && this.#wire.snapshot(lease);
  }

  /** All of them as applications see them. */
  mappings(): T[] {
    return this.all().map((lease) => this.#wire.snapshot(lease));
  }

  /** All of them, safe against changes while they are walked. */
  all(): Lease<R>[] {
    return [...this.#byId.values()];
  }

  /** Whether one of those that are wanted is so. */
  some(isSo: (lease: Lease<R>) => boolean): boolean {
    for (const lease of this.#wanted.values()) if (isSo(lease)) return true;
    return false;
  }

  /** Those that are wanted, safe as `all`. */
  wanted(): Lease<R>[] {
    return [...this.#wanted.values()];
  }

  /** The one that is wanted under a key. */
  find(key: MappingKey): Lease<R> | undefined {
    return this.#wanted.get(key);
  }

  /** The one under a key that is being deleted. */
  findLeaving(key: MappingKey): Lease<R> | undefined {
    return this.#leaving.get(key);
  }

  // ---- Commands ----------------------------------------------------------------------------

  /**
   * Asks for a mapping. An adopted one of the same key is claimed: what is wanted counts from here
   * on, but for the endpoint; where the gateway holds it as it is wanted, `mapped` is told at once.
   *
   * @param nonce Makes the nonce of a new one; `given` is that of an earlier request.
   * @param remembered What a gateway had assigned to an earlier one.
   * @throws {TypeError} Where the same mapping, or one of its ports, is wanted already.
   */
  map(
    wanted: Wanted,
    given: string | undefined,
    nonce: (() => string) | undefined,
    remembered: Endpoint | undefined,
    now: Instant,
  ): Lease<R> {
    const known = this.#wanted.get(mappingKey(wanted));
    if (known && canClaim(known, wanted, given)) {
      this.#claim(known, wanted, now);
      return known;
    }
    this.#refuseTwice(wanted);
    const lease = this.#make(wanted, given ?? nonce?.());
    lease.remembered = remembered;
    // What was asked for with it before the gateway may hold already.
    if (given) this.#mayExistAlready(lease);
    this.#start(lease, now);
    return lease;
  }

  /**
   * Takes up a mapping of an earlier run; the next timeout asks for it.
   *
   * @param remembered What the gateway had assigned.
   * @throws {TypeError} Where the same mapping, or one of its ports, is there already.
   */
  adopt(
    wanted: Wanted,
    nonce: string | undefined,
    remembered: Endpoint | undefined,
  ): Lease<R> {
    this.#refuseTwice(wanted);
    const lease = this.#make(wanted, nonce);
    lease.isAdopted = true;
    lease.remembered = remembered;
    this.#mayExistAlready(lease);
    lease.dueAt = 0;
    this.#arm(lease);
    return lease;
  }

  /**
   * Renews early, for `lifetimeSeconds` where given, as soon as 4 s have passed since the last
   * renewal; one that is wanted for N lifetimes counts anew. What the gateway refuses at present is
   * told at once.
   *
   * @returns The number that its answer carries.
   */
  renew(lease: Lease<R>, lifetimeSeconds: number | undefined, now: Instant): number {
    lease.revision++;
    lease.lifetimeSeconds = lifetimeSeconds ?? lease.lifetimeSeconds;
    lease.wantedUntil = undefined;
    const { failure, notBefore = -Infinity } = lease;
    if (failure?.kind === "refused" && notBefore > now) {
      this.#tellNotRenewed(lease, failure, notBefore);
    } else if (lease.phase === "granted" || lease.phase === "renewing") {
      this.#renewAgain(lease, now);
    }
    return lease.revision;
  }

  /**
   * Asks no more: another protocol has made the mapping. What was sent may yet be granted, and lasts
   * to its end then; that is told, so that who wants can delete it.
   */
  withdraw(lease: Lease<R>, now: Instant): void {
    if (lease.phase === "deleting") return;
    this.#wire.cancel(lease);
    lease.isWithdrawn = true;
    // What the gateway cannot have is not waited for.
    if (!lease.isGranted && lease.mayExistUntil <= now) {
      return this.#end(lease, "expired", undefined, now);
    }
    if (!lease.isGranted) lease.phase = "resting";
    lease.dueAt = lease.isGranted ? undefined : lease.mayExistUntil;
    this.#arm(lease);
  }

  /**
   * Deletes a mapping; `unmapped` tells when that is done. What the gateway cannot hold, and what
   * the protocol cannot delete, is over at once.
   *
   * @param by Whether a request of its own deletes it, or one for all, which is the caller's.
   */
  revoke(lease: Lease<R>, now: Instant, by: "itself" | "with others" = "itself"): void {
    if (lease.phase === "deleting") return;
    this.#wire.cancel(lease);
    const mayExist = now < lease.mayExistUntil && !this.#leaving.has(lease.key);
    if (!mayExist || !this.#wire.canDelete(lease.wanted)) {
      return this.deleted(lease, undefined, now);
    }
    this.#wanted.delete(lease.key);
    this.#sets.delete(lease);
    this.#leaving.set(lease.key, lease);
    lease.phase = "deleting";
    // PMP-C-11: past its end there is nothing to delete.
    lease.dueAt = lease.mayExistUntil;
    this.#arm(lease);
    if (by === "itself") this.#wire.send(lease, "delete", now);
  }

  /**
   * Deletes a mapping that need not be one of these; `unmapped` follows.
   *
   * @param nonce Its nonce, where it is not one of these.
   */
  unmap(wanted: Wanted, nonce: string | undefined, now: Instant): Lease<R> {
    let lease = this.#wanted.get(mappingKey(wanted));
    if (!lease) {
      // One that is on its way out already tells for both.
      const leaving = this.#leaving.get(mappingKey(wanted));
      if (leaving) return leaving;
      lease = this.#make(wanted, nonce);
      this.#mayExistAlready(lease);
    }
    this.revoke(lease, now);
    return lease;
  }

  /** Forgets a mapping: no packet, no event. */
  abandon(lease: Lease<R>, now: Instant): void {
    this.#byId.delete(lease.id);
    this.#wire.cancel(lease);
    this.#deadlines.delete(lease);
    this.#sets.delete(lease);
    if (this.#wanted.get(lease.key) === lease) this.#wanted.delete(lease.key);
    if (this.#leaving.get(lease.key) !== lease) return;
    this.#leaving.delete(lease.key);
    const successor = this.#wanted.get(lease.key);
    if (successor?.phase === "waiting") this.#start(successor, now);
  }

  /** Does what is due. */
  handleTimeout(now: Instant): void {
    const deadlines = this.#deadlines;
    for (let lease = deadlines.popDue(now); lease; lease = deadlines.popDue(now)) {
      this.#due(lease, now);
    }
  }

  // ---- Answers -----------------------------------------------------------------------------

  /** The gateway granted it, asked or unasked (PCP-C-19, PCP-C-53). */
  granted(lease: Lease<R>, grant: Grant, now: Instant): void {
    const isAsked = lease.phase === "asking" || lease.phase === "renewing" ||
      lease.phase === "recovering";
    const type = this.#grantType(lease, grant.external);
    const before = lease.expiresAt ?? -Infinity;
    this.#wire.cancel(lease);
    lease.take(grant, now);
    // What is asked next is not what this answers.
    const answered = lease.sentRevision;
    this.#plan(lease, now);
    if (answered < lease.revision && !lease.isWithdrawn) this.#renewAgain(lease, now);
    else this.#arm(lease);
    if (type === "renewed" && !isAsked && Math.abs(lease.expiresAt! - before) <= DUPLICATE_MS) {
      return;
    }
    this.#tell(lease, type, answered);
  }

  /**
   * A request came to nothing.
   *
   * @param retryAt When it may be made again; undefined: the failure names no time.
   * @returns False where nothing was asked that this could answer.
   */
  failed(lease: Lease<R>, failure: Failure, retryAt: Instant | undefined, now: Instant): boolean {
    if (lease.phase === "deleting") {
      this.deleted(lease, failure, now);
      return true;
    }
    const isInFlight = lease.phase === "asking" || lease.phase === "renewing";
    if (!isInFlight && !this.#isNews(lease, failure, now)) return false;
    lease.failure = failure;
    lease.notBefore = retryAt;
    this.#wire.cancel(lease);
    if (!lease.isGranted) this.#notGranted(lease, retryAt, now);
    else if (lease.isStale || failure.kind === "unsupported-version") {
      this.#lose(lease, failure, retryAt ?? this.#restUntil(lease, now), now);
    } else {
      this.#goOn(lease, now);
      if (failure.kind !== "no-answer") this.#tellNotRenewed(lease, failure, lease.dueAt);
    }
    return true;
  }

  /**
   * The gateway says that it holds it no more, or has shown so.
   *
   * @param retryAt When it may be asked for again; undefined: at once, as renewals may.
   */
  gone(lease: Lease<R>, failure: Failure, retryAt: Instant | undefined, now: Instant): void {
    lease.failure = failure;
    if (lease.isGranted) this.#lose(lease, failure, retryAt, now);
    else this.#notGranted(lease, retryAt, now);
  }

  /** A deletion is done, or, with a failure, given up or refused. */
  deleted(lease: Lease<R>, failure: Failure | undefined, now: Instant): void {
    this.#end(lease, "revoked", failure, now);
  }

  /** The request of a lease was answered in a way that another request may mend: asks at once. */
  askAgain(lease: Lease<R>, now: Instant): void {
    this.#wire.cancel(lease);
    if (lease.phase === "deleting") this.#wire.send(lease, "delete", now);
    else if (lease.isGranted && !lease.isStale) this.#renew(lease, now);
    else this.#ask(lease, lease.isGranted ? "recreate" : "create", now);
  }

  // ---- The gateway and the network ---------------------------------------------------------

  /**
   * The gateway lost its table: all but `except`, whose answer told it and is of the new table, are
   * asked for again within 5 s, whatever was refused before.
   */
  gatewayRestarted(except: Lease<R> | undefined, now: Instant): void {
    const together = this.#recoveryAt(now);
    for (const lease of this.#wanted.values()) {
      if (lease.isWithdrawn) continue;
      // The answer that told it may be a refusal.
      lease.isStale = lease.isGranted;
      if (lease === except) continue;
      lease.notBefore = undefined;
      const isHeld = lease.phase === "granted" || lease.phase === "renewing";
      if (isHeld || lease.phase === "resting") this.#recover(lease, together, now);
    }
  }

  /**
   * The gateway announces its table's age, and the epoch fits: what was granted before a young table
   * began is not in it all the same, where two restarts follow each other closely.
   */
  epochAnnounced(epochSeconds: number, now: Instant): void {
    if (epochSeconds >= YOUNG_TABLE_SECONDS) return;
    const since = now - 1000 * (epochSeconds + 1);
    const together = this.#recoveryAt(now);
    for (const lease of this.#wanted.values()) {
      const isHeld = lease.phase === "granted" || lease.phase === "renewing";
      if (!isHeld || lease.isWithdrawn || lease.grantedAt >= since) continue;
      lease.isStale = true;
      this.#recover(lease, together, now);
    }
  }

  /** The gateway is there: all but `except` that silence has put off are asked for within 5 s. */
  gatewayAnswers(except: Lease<R> | undefined, now: Instant): void {
    const together = this.#recoveryAt(now);
    for (const lease of this.#wanted.values()) {
      if (lease === except || lease.isWithdrawn || lease.phase !== "resting") continue;
      if (lease.failure?.kind === "refused") continue;
      lease.notBefore = undefined;
      this.#recover(lease, together, now);
    }
  }

  /** A request on its way would wait for long: it begins anew within 5 s. */
  hasten(lease: Lease<R>, now: Instant): void {
    this.#recover(lease, this.#recoveryAt(now), now);
  }

  /**
   * This host has another address: all is asked for from there, at once and whatever was refused
   * before (PCP-C-23, PCP-C-24). What the old address had cannot be deleted from the new one, so it
   * ends with its lifetime.
   */
  hostMoved(now: Instant): void {
    for (const lease of [...this.#leaving.values()]) this.deleted(lease, undefined, now);
    for (const lease of this.wanted()) {
      if (lease.isWithdrawn) {
        this.#end(lease, "expired", undefined, now);
        continue;
      }
      this.#wire.cancel(lease);
      lease.mayExistUntil = -Infinity;
      lease.isStale = lease.isGranted;
      lease.failure = lease.notBefore = undefined;
      this.#ask(lease, "create", now);
    }
  }

  /** The gateway's external address is another one: what it holds has moved. */
  externalAddressChanged(address: string): void {
    for (const lease of this.#wanted.values()) {
      // A stale one moves when the gateway has confirmed it.
      if (!lease.grant || !lease.isGranted || lease.isStale) continue;
      const { external } = lease.grant;
      if (external.address === address) continue;
      const wasKnown = external.address !== "";
      lease.grant = { ...lease.grant, external: { address, port: external.port } };
      lease.remembered = lease.grant.external;
      // Who has not heard of it hears of the next grant as the first.
      if (!lease.reported) continue;
      if (wasKnown) this.#tell(lease, "moved", lease.sentRevision);
      else lease.reported = lease.remembered;
    }
  }

  // ---- Steps -------------------------------------------------------------------------------

  #make(wanted: Wanted, nonce: string | undefined): Lease<R> {
    const lease = new Lease<R>(++this.#lastId, mappingKey(wanted), wanted, nonce);
    this.#byId.set(lease.id, lease);
    this.#wanted.set(lease.key, lease);
    if (wanted.portSet) this.#sets.add(lease);
    return lease;
  }

  #mayExistAlready(lease: Lease<R>): void {
    lease.mayExistUntil = Infinity;
    lease.isNonceKnown = true;
    lease.mayHaveFilters = lease.wanted.filters !== NO_FILTERS;
  }

  /** What a mapping stands for has one owner (PCP-C-34, RFC 7753 §6). */
  #refuseTwice(wanted: Wanted): void {
    const known = this.#wanted.get(mappingKey(wanted));
    if (known) {
      throw new TypeError(
        `Cannot map ${describeInternal(wanted)}: it is mapped already (id ${known.id})`,
      );
    }
    // A single port can overlap with a set only.
    for (const { wanted: other } of wanted.portSet ? this.#wanted.values() : this.#sets) {
      if (!sharePorts(wanted, other)) continue;
      throw new TypeError(
        `Cannot map ${describeInternal(wanted)}: the ports overlap those of ${
          describeInternal(other)
        }`,
      );
    }
  }

  #claim(lease: Lease<R>, wanted: Wanted, now: Instant): void {
    const isAsWanted = sameFilters(lease.wanted.filters, wanted.filters) &&
      lease.wanted.description === wanted.description &&
      lease.wanted.preferFailure === wanted.preferFailure;
    lease.isAdopted = false;
    lease.wanted = wanted;
    lease.lifetimeSeconds = wanted.lifetimeSeconds;
    lease.wantedUntil = undefined;
    lease.revision++;
    if (lease.phase === "waiting") return this.#start(lease, now);
    if (lease.phase === "asking" && !isAsWanted) return this.askAgain(lease, now);
    if (lease.expiresAt === undefined) return;
    // The lifetime under way is the first of those that are wanted.
    const { grantedAt, expiresAt } = lease;
    if (wanted.lifetimes !== undefined) {
      lease.wantedUntil = grantedAt + wanted.lifetimes * (expiresAt - grantedAt);
    }
    if (!isAsWanted) {
      // Nobody has heard of the grant under way: the next one is told as the first.
      lease.reported = undefined;
      return this.#renewAgain(lease, now);
    }
    lease.sentRevision = lease.revision;
    if (lease.phase === "granted") {
      // Points of the schedule that are yet to come are not used up by planning again.
      lease.renewalAttempt = 0;
      this.#plan(lease, now);
      this.#arm(lease);
    }
    this.#tell(lease, "mapped", lease.revision);
  }

  #start(lease: Lease<R>, now: Instant): void {
    // The deletion under way and this request could meet in the wrong order.
    if (this.#leaving.has(lease.key)) {
      lease.dueAt = undefined;
      return this.#arm(lease);
    }
    const blocked = this.#wire.blockedUntil?.();
    if (!blocked || blocked.until <= now) return this.#ask(lease, "create", now);
    lease.failure = blocked.failure;
    lease.notBefore = blocked.until;
    this.#notGranted(lease, blocked.until, now);
  }

  #due(lease: Lease<R>, now: Instant): void {
    if (lease.phase === "deleting") return this.deleted(lease, undefined, now);
    if (lease.expiresAt !== undefined && now >= lease.expiresAt) return this.#expire(lease, now);
    switch (lease.phase) {
      case "waiting":
        return this.#start(lease, now);
      case "granted":
      case "renewing":
        return this.#renew(lease, now);
      case "resting":
        if (lease.isWithdrawn) return this.#end(lease, "expired", undefined, now);
        return this.#ask(lease, "recreate", now);
      case "recovering":
        return this.#ask(lease, "recreate", now);
    }
  }

  #ask(lease: Lease<R>, ask: "create" | "recreate", now: Instant): void {
    const blocked = lease.isGranted ? undefined : this.#wire.blockedUntil?.();
    if (blocked && blocked.until > now) return this.#rest(lease, blocked.until);
    lease.phase = "asking";
    lease.dueAt = undefined;
    this.#arm(lease);
    this.#wire.send(lease, ask, now);
  }

  /** Renews by the schedule, whose next point this uses up where that has come, or out of it. */
  #renew(lease: Lease<R>, now: Instant): void {
    const { updateAt, renewedAt = now, dueAt = -Infinity } = lease;
    const isPlanned = dueAt <= now;
    lease.phase = "renewing";
    lease.renewedAt = now;
    if (isPlanned) this.#plan(lease, now);
    if (updateAt !== undefined) {
      const isFirst = isPlanned || lease.sentRevision < lease.revision;
      const patienceMs = this.#wire.patienceMs?.(isFirst ? undefined : updateAt - renewedAt);
      lease.updateAt = patienceMs === undefined ? undefined : now + patienceMs;
    }
    this.#arm(lease);
    this.#wire.send(lease, "renew", now);
  }

  /** What is wanted has changed: asks as soon as it may, with a request of its own. */
  #renewAgain(lease: Lease<R>, now: Instant): void {
    lease.updateAt = now;
    if (lease.mayRenewAt <= now) this.#renew(lease, now);
    else this.#arm(lease);
  }

  /** The next point of the schedule. */
  #plan(lease: Lease<R>, now: Instant): void {
    lease.dueAt = lease.wantsRenewal
      ? lease.nextRenewal((attempt) => this.#wire.renewalFraction(attempt), now)
      : undefined;
  }

  /**
   * Whether a failure is worth hearing where no request is on its way. Of what is held the first is. Of
   * what is not, a refusal is that holds: a request may be answered at any later time (PCP-C-19), and is
   * not to be repeated then (PCP-C-22). One that comes twice is neither told twice nor waited for longer.
   */
  #isNews(lease: Lease<R>, failure: Failure, now: Instant): boolean {
    const { phase, failure: before, notBefore = -Infinity } = lease;
    if (lease.isGranted) return !before;
    if (failure.kind !== "refused" || phase === "waiting" || lease.isWithdrawn) return false;
    return before?.kind !== "refused" || notBefore <= now;
  }

  /** A renewal came to nothing: the next one in its time, where the gateway lets us. */
  #goOn(lease: Lease<R>, now: Instant): void {
    lease.phase = "granted";
    lease.updateAt = undefined;
    const at = Math.max(lease.dueAt ?? now, lease.mayRenewAt);
    lease.dueAt = lease.wantsRenewal && at < lease.expiresAt! ? at : undefined;
    this.#arm(lease);
  }

  #restUntil(lease: Lease<R>, now: Instant): Instant {
    const longest = lease.grant ? LONGEST_REST_MS : LONGEST_FIRST_REST_MS;
    return now + Math.min(longest, FIRST_REST_MS * 2 ** lease.rests++);
  }

  #expire(lease: Lease<R>, now: Instant): void {
    if (!lease.wantsRenewal) {
      // What the gateway would keep for good it is told to delete.
      if (lease.grant?.isPermanent && !lease.isWithdrawn) return this.revoke(lease, now);
      return this.#end(lease, "expired", undefined, now);
    }
    // Of a few seconds there may be no room for another renewal: the last of N is over sooner.
    const isOver = lease.phase === "granted" && !lease.isKeptAlive && !lease.failure;
    if (isOver) return this.#end(lease, "expired", undefined, now);
    const { failure = { kind: "expired" }, notBefore = -Infinity } = lease;
    this.#lose(lease, failure, notBefore > now ? notBefore : undefined, now);
  }

  /** What was granted is no more. Kept alive it is asked for again, at `retryAt` or at once. */
  #lose(lease: Lease<R>, failure: Failure, retryAt: Instant | undefined, now: Instant): void {
    lease.expiresAt = undefined;
    if (!lease.isKeptAlive) {
      this.#wire.cancel(lease);
      return this.#end(lease, "expired", failure, now);
    }
    // Who has not heard of the grant will hear of the next one as the first.
    if (this.#outbox.pendingEvent(lease.id)?.type === "mapped") lease.reported = undefined;
    lease.isLost = true;
    lease.failure = failure;
    const lost = { type: "lost", id: lease.id, failure } as const;
    this.#emit(retryAt === undefined ? lost : { ...lost, retryAt }, lease);
    if (retryAt !== undefined) return this.#rest(lease, retryAt);
    // A request on its way, or the delay before one, goes on as it is.
    if (lease.phase === "asking" || lease.phase === "recovering") return this.#arm(lease);
    if (lease.mayRenewAt <= now) return this.#ask(lease, "recreate", now);
    this.#recover(lease, lease.mayRenewAt, now);
  }

  #notGranted(lease: Lease<R>, retryAt: Instant | undefined, now: Instant): void {
    const failure = lease.failure!;
    // Silence and nonsense leave it open what the gateway holds.
    if (failure.kind === "refused" && lease.mayExistUntil < Infinity) {
      lease.mayExistUntil = -Infinity;
    }
    const { id } = lease;
    if (lease.isKeptAlive) {
      const until = retryAt ?? this.#restUntil(lease, now);
      this.#rest(lease, until);
      this.#emit({ type: "failed", id, failure, retryAt: until }, lease);
    } else {
      this.#emit({ type: "failed", id, failure }, lease);
      this.abandon(lease, now);
    }
  }

  #rest(lease: Lease<R>, until: Instant): void {
    this.#wire.cancel(lease);
    lease.phase = "resting";
    lease.dueAt = until;
    this.#arm(lease);
  }

  /** When recreations leave that leave together; each draws its own where they do not. */
  #recoveryAt(now: Instant): Instant | undefined {
    if (this.#wire.recreation === "each" || this.#wanted.size === 0) return undefined;
    return now + uniform(this.#random, 0, RECREATION_DELAY_MS);
  }

  #recover(lease: Lease<R>, together: Instant | undefined, now: Instant): void {
    const at = together ?? now + uniform(this.#random, 0, RECREATION_DELAY_MS);
    this.#wire.cancel(lease);
    lease.phase = "recovering";
    lease.dueAt = Math.max(at, lease.mayRenewAt);
    this.#arm(lease);
  }

  #end(
    lease: Lease<R>,
    reason: "revoked" | "expired",
    failure: Failure | undefined,
    now: Instant,
  ): void {
    const event = { type: "unmapped", id: lease.id, reason } as const;
    this.#emit(failure ? { ...event, failure } : event, lease);
    this.abandon(lease, now);
  }

  #arm(lease: Lease<R>): void {
    const { phase, dueAt = Infinity } = lease;
    const end = phase === "deleting" ? Infinity : lease.expiresAt ?? Infinity;
    const isHeld = phase === "granted" || phase === "renewing";
    // A renewal out of schedule and one of it keep the gap, too.
    const step = isHeld
      ? Math.max(lease.mayRenewAt, Math.min(dueAt, lease.updateAt ?? Infinity))
      : dueAt;
    const at = Math.min(step, end);
    if (at === Infinity) this.#deadlines.delete(lease);
    else this.#deadlines.set(lease, at);
  }

  // ---- What is told ------------------------------------------------------------------------

  #grantType(
    { reported, isLost }: Lease<R>,
    external: Endpoint,
  ): "mapped" | "renewed" | "moved" | "recovered" {
    if (!reported) return "mapped";
    if (isLost) return "recovered";
    const isSame = reported.port === external.port &&
      (reported.address === external.address || reported.address === "");
    return isSame ? "renewed" : "moved";
  }

  #tell(
    lease: Lease<R>,
    type: "mapped" | "renewed" | "moved" | "recovered",
    revision: number,
  ): void {
    lease.reported = lease.grant!.external;
    const mapping = this.#wire.snapshot(lease);
    this.#emit({ type, id: lease.id, mapping, revision }, lease);
  }

  #tellNotRenewed(lease: Lease<R>, failure: Failure, retryAt: Instant | undefined): void {
    const { id, revision } = lease;
    const event = { type: "renewal-failed", id, failure, revision } as const;
    this.#emit(retryAt === undefined ? event : { ...event, retryAt }, lease);
  }

  #emit(event: MappingEvent<T>, lease: Lease<R>): void {
    this.#outbox.emit(event, lease.id);
  }
}

/** Whether a request is for this very mapping; a nonce that is given has to be the mapping's. */
function canClaim<R>(lease: Lease<R>, wanted: Wanted, given: string | undefined): boolean {
  const { portSet } = lease.wanted;
  return lease.isAdopted && portSet?.size === wanted.portSet?.size &&
    portSet?.parity === wanted.portSet?.parity &&
    (given === undefined || given === lease.nonce);
}
