/**
 * One mapping of a client from the request to its end: what is wanted, what was granted, and where
 * its request stands. Plain bookkeeping; what moves it is in `keeper.ts`.
 *
 * @module
 */
import { MAX_SCHEDULED_LIFETIME_SECONDS, MIN_RENEWAL_GAP_MS } from "../backoff.ts";
import type { Endpoint, Instant } from "../machine.ts";
import {
  type Failure,
  type GrantedPortSet,
  type MappingId,
  type MappingKey,
  type MappingState,
  secondsUntil,
  type Wanted,
} from "../mapping.ts";
import { Deadline } from "../timers.ts";

/**
 * Where a lease stands:
 *
 * - `waiting`: not sent yet (adopted, or a predecessor is still being deleted)
 * - `asking`: the request that makes it, or makes it again, is on its way
 * - `granted`: nothing is on its way
 * - `renewing`: a renewal is on its way
 * - `recovering`: the gateway lost it, or is back; asking begins within 5 s
 * - `resting`: refused or unanswered; asked for again when its time has come
 * - `deleting`: the deletion is on its way
 */
export type Phase =
  | "waiting"
  | "asking"
  | "granted"
  | "renewing"
  | "recovering"
  | "resting"
  | "deleting";

const DAY_MS = MAX_SCHEDULED_LIFETIME_SECONDS * 1000;
/** Past 2⁻³⁰ of a day nothing is left of it. */
const POINTS_A_DAY = 30;

/** What a gateway granted. */
export interface Grant {
  /** Where others send to. */
  readonly external: Endpoint;
  /** At least 1. */
  readonly lifetimeSeconds: number;
  /** Whether the gateway keeps it until it is deleted: then it lasts as long as was asked for. */
  readonly isPermanent?: boolean;
  /** The text as the gateway stored it. */
  readonly description?: string | undefined;
  /** The set of ports that it mapped. */
  readonly portSet?: GrantedPortSet | undefined;
}

/** A mapping of a client; `R` is what its protocol keeps of a request on its way. */
export class Lease<R> extends Deadline {
  readonly id: MappingId;
  readonly key: MappingKey;
  /** What the application wants. */
  wanted: Wanted;
  /** PCP's key to it, in hexadecimal digits: as bytes it would weigh five times as much. */
  readonly nonce: string | undefined;
  phase: Phase = "waiting";
  /** The lifetime to ask for, seconds. */
  lifetimeSeconds: number;
  /** What is yes or no, a bit each: as fields they would weigh eight bytes apiece. */
  #facts = 0;
  // Times that most have none of are undefined then: as numbers they would weigh twice as much.
  /** When it is wanted no longer; undefined: never, or unknown before it is granted (again). */
  wantedUntil: Instant | undefined;
  /** The number of what is wanted: each change makes another. */
  revision = 0;
  /** The number that the request sent last was made with. */
  sentRevision = 0;

  /** What the gateway granted last; it outlives the grant. */
  grant: Grant | undefined;
  grantedAt: Instant = 0;
  /** When the grant ends; undefined while the gateway holds nothing. */
  expiresAt: Instant | undefined;
  /** What to suggest beyond what the application named: learnt, and given up at a refusal. */
  remembered: Endpoint | undefined;
  /** The endpoint that the application was told last. */
  reported: Endpoint | undefined;
  /** Until when the gateway may hold it, by the requests that it may have got. */
  mayExistUntil: Instant = -Infinity;
  /** Why the last request came to nothing; undefined once one was granted. */
  failure: Failure | undefined;
  /** How often it has rested since the last grant. */
  rests = 0;

  /** How many points of the renewal schedule have passed since the last grant; 30 make a day. */
  renewalAttempt = 0;
  renewedAt: Instant | undefined;
  /** When what is wanted anew is asked for, out of schedule; past that, when it is asked again. */
  updateAt: Instant | undefined;
  /** No request before that: the gateway asked to be left alone. */
  notBefore: Instant | undefined;
  /** When its next step is due; the end of the grant is not in it. */
  dueAt: Instant | undefined;
  /** What the protocol keeps of the request on its way. */
  request: R | undefined;

  /** Makes one that is wanted and not asked for yet. */
  constructor(id: MappingId, key: MappingKey, wanted: Wanted, nonce: string | undefined) {
    super();
    this.id = id;
    this.key = key;
    this.wanted = wanted;
    this.nonce = nonce;
    this.lifetimeSeconds = wanted.lifetimeSeconds;
  }

  // ---- Yes or no ----------------------------------------------------------------------------

  /** Comes from saved state, and the application has not asked for it yet. */
  get isAdopted(): boolean {
    return (this.#facts & 1) !== 0;
  }

  set isAdopted(is: boolean) {
    this.#note(1, is);
  }

  /** Asked for no more: another protocol made the mapping. It may yet be granted. */
  get isWithdrawn(): boolean {
    return (this.#facts & 2) !== 0;
  }

  set isWithdrawn(is: boolean) {
    this.#note(2, is);
  }

  /** The grant, if any, is of a table that the gateway lost, or of an address that this host had. */
  get isStale(): boolean {
    return (this.#facts & 4) !== 0;
  }

  set isStale(is: boolean) {
    this.#note(4, is);
  }

  /** Whether the application was told that it is lost, and not yet that it is back. */
  get isLost(): boolean {
    return (this.#facts & 8) !== 0;
  }

  set isLost(is: boolean) {
    this.#note(8, is);
  }

  /** The gateway may keep filters of it, which only a request to replace them takes away. */
  get mayHaveFilters(): boolean {
    return (this.#facts & 16) !== 0;
  }

  set mayHaveFilters(is: boolean) {
    this.#note(16, is);
  }

  /** The gateway may know its nonce: it is an earlier request's, or one with it has left. */
  get isNonceKnown(): boolean {
    return (this.#facts & 32) !== 0;
  }

  set isNonceKnown(is: boolean) {
    this.#note(32, is);
  }

  #note(fact: number, is: boolean): void {
    this.#facts = is ? this.#facts | fact : this.#facts & ~fact;
  }

  /** Whether the gateway holds it, for all we know. */
  get isGranted(): boolean {
    return this.expiresAt !== undefined;
  }

  /** Whether it is wanted without end. */
  get isKeptAlive(): boolean {
    return !this.isWithdrawn && this.wanted.lifetimes === undefined;
  }

  /** Whether the present grant does not cover the time for which it is wanted. */
  get wantsRenewal(): boolean {
    return !this.isWithdrawn && (this.expiresAt ?? -Infinity) < (this.wantedUntil ?? Infinity);
  }

  /** Before this no renewal may leave: 4 s after the last one (PCP-C-40). */
  get mayRenewAt(): Instant {
    const { notBefore = -Infinity, renewedAt = -Infinity } = this;
    return Math.max(notBefore, renewedAt + MIN_RENEWAL_GAP_MS);
  }

  /** The lifetime to ask for, seconds: as wanted, or what is left of the wanted time. */
  lifetimeToAsk(now: Instant): number {
    const leftSeconds = secondsUntil(this.wantedUntil ?? Infinity, now);
    return Math.max(1, Math.min(this.lifetimeSeconds, leftSeconds));
  }

  /**
   * Takes a grant. Absurd lifetimes count as a day (PCP-C-21), unless more was asked for: then what
   * is granted is believed as far as it was asked.
   */
  take(grant: Grant, now: Instant): void {
    const believed = Math.max(MAX_SCHEDULED_LIFETIME_SECONDS, this.lifetimeSeconds);
    const lasts = grant.isPermanent ? this.lifetimeToAsk(now) : grant.lifetimeSeconds;
    const lifetimeMs = Math.min(lasts, believed) * 1000;
    this.grant = grant;
    this.grantedAt = now;
    this.expiresAt = now + lifetimeMs;
    this.mayExistUntil = grant.isPermanent ? Infinity : now + grant.lifetimeSeconds * 1000;
    const { lifetimes } = this.wanted;
    if (lifetimes !== undefined) this.wantedUntil ??= now + lifetimes * lifetimeMs;
    this.remembered = grant.external;
    this.renewalAttempt = 0;
    this.rests = 0;
    this.isStale = this.isLost = false;
    this.failure = this.updateAt = this.notBefore = undefined;
    this.phase = "granted";
  }

  /**
   * When to renew next, or undefined where it ends first: at the fractions of the lifetime, taken as
   * no longer than a day, that `fraction` gives for attempt 1, 2, 3… (PCP-C-40, PMP-C-22). Points
   * that were slept through are skipped.
   */
  nextRenewal(fraction: (attempt: number) => number, now: Instant): Instant | undefined {
    const end = this.expiresAt!;
    for (;;) {
      const passed = this.renewalAttempt++;
      const attempt = passed % POINTS_A_DAY + 1, day = Math.floor(passed / POINTS_A_DAY);
      const origin = this.grantedAt + day * DAY_MS;
      if (origin >= end) return undefined;
      const lengthMs = Math.min(end - origin, DAY_MS);
      const at = origin + fraction(attempt) * lengthMs;
      if (at < now) continue;
      const due = Math.max(at, this.mayRenewAt);
      if (due < origin + lengthMs) return due;
      this.renewalAttempt = (day + 1) * POINTS_A_DAY;
    }
  }

  /**
   * The state that applications see.
   *
   * @param sends How often the request on its way was sent; 0: none is.
   */
  state(sends: number): MappingState {
    const { isGranted } = this;
    switch (this.phase) {
      case "waiting":
        return "requested";
      case "deleting":
        return "revoked";
      case "granted":
        return "running";
      case "renewing":
        return "updating";
      case "resting":
      case "recovering":
        return isGranted ? "running" : "error";
      case "asking":
        if (isGranted) return "updating";
        if (sends > 0) return "starting";
        return this.failure ? "error" : "requested";
    }
  }
}
