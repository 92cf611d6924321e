/**
 * One NAT-PMP mapping as it shows on the wire: what was granted, and when its next request is due,
 * were nothing else on its way.
 *
 * @module
 */
import type { Instant } from "../../core/machine.ts";
import { lifetimesOf, nameOf, type Wish } from "./wish.ts";
import { at, natPmpRenewal, RENEWAL_GAP_MS, SLACK_MS, type Window } from "./windows.ts";

/** What its next request is. */
export type NatPmpPhase =
  /** A request for what is not granted, or is made again, is in line or on its way. */
  | "asking"
  /** Granted; a renewal may be in line or on its way. */
  | "granted"
  /** The gateway lost its table, or is back: asked for again after the random delay. */
  | "recovering"
  /** Refused or unanswered: asked for again when it has rested. */
  | "resting"
  | "deleting"
  | "over";

/** One mapping. */
export class NatPmpMapping {
  readonly wish: Wish;
  phase: NatPmpPhase = "asking";
  /** When its next request gets in line; undefined: not before something happens. */
  next: Window | undefined;
  grantedAt: Instant = 0;
  /** Undefined where the gateway holds nothing. */
  until: Instant | undefined;
  wantedUntil: Instant = Infinity;
  lifetimeSeconds: number;
  wasGranted = false;
  /** Until when the gateway may hold it. */
  mayExistUntil: Instant = -Infinity;
  /** What was granted is of a table that was lost, or of an address that the host had. */
  isStale = false;
  /** The last request came to nothing: by a refusal, or otherwise. */
  failure: "refused" | "other" | undefined;
  refusedUntil: Instant = -Infinity;
  /** How often it has rested since the last grant. */
  rests = 0;
  /** When it was renewed last, and whether that was early. */
  renewedAt: Instant = -Infinity;
  wasEarly = false;
  /** Commands that change what is asked for, and those that the last request knew of. */
  revision = 0;
  sentRevision = 0;
  /** When the loss of state was heard that it is made again for. */
  lostStateAt: Instant | undefined;
  /** It may have failed just then with what it waited for. */
  mayFailAt: Instant = -Infinity;
  /** A session has told of a loss of state, which may be this gateway's or not. */
  mayRecreateUntil: Instant = -Infinity;

  constructor(wish: Wish) {
    this.wish = wish;
    this.lifetimeSeconds = wish.lifetimeSeconds;
  }

  get name(): string {
    return nameOf(this.wish);
  }

  get isKeptAlive(): boolean {
    return this.wish.mode === "keep-alive";
  }

  get wantsRenewal(): boolean {
    return (this.until ?? -Infinity) < this.wantedUntil;
  }

  /** Whether its request is surely in line, if not on its way. */
  isInLine(now: Instant): boolean {
    return this.next !== undefined && this.next.to <= now;
  }

  grant(lifetimeSeconds: number, now: Instant): void {
    this.phase = "granted";
    this.grantedAt = now;
    this.until = this.mayExistUntil = now + lifetimeSeconds * 1000;
    this.wasGranted = true;
    this.isStale = false;
    this.failure = undefined;
    this.refusedUntil = -Infinity;
    this.rests = 0;
    this.lostStateAt = undefined;
    this.wasEarly = false;
    if (this.wantedUntil === Infinity) {
      this.wantedUntil = now + lifetimesOf(this.wish) * lifetimeSeconds * 1000;
    }
    this.planRenewal(now);
  }

  /** The next point of its renewal series that may be taken. */
  planRenewal(now: Instant): void {
    this.next = undefined;
    if (!this.wantsRenewal) return;
    const { grantedAt, until } = this;
    const next = natPmpRenewal(grantedAt, until!, now);
    if (!next) return;
    let point = next.from;
    // One that came less than 4 s after a renewal is late.
    const pushed = this.renewedAt + RENEWAL_GAP_MS;
    const missed = natPmpRenewal(grantedAt, until!, this.renewedAt + 1);
    if (
      missed && missed.from < point && pushed >= now - 2 * SLACK_MS && this.renewedAt > grantedAt
    ) {
      point = pushed;
    }
    let earliest = Math.max(point, this.refusedUntil, pushed);
    // Near the end points are closer than 4 s: which of them was one does not show.
    if (until! - next.from < 2 * RENEWAL_GAP_MS) {
      earliest = Math.max(now, next.from - RENEWAL_GAP_MS, this.refusedUntil);
    }
    // The point before it may have been one, too, though it did not get out of line.
    let latest = Math.max(earliest, this.#pointBefore(next.from) + RENEWAL_GAP_MS);
    // One that was asked for early may have used up the next.
    const second = this.wasEarly ? natPmpRenewal(grantedAt, until!, next.from + 1) : next;
    latest = Math.max(latest, second ? second.from : Infinity);
    if (earliest >= until!) return;
    this.next = { ...next, from: earliest, to: latest < until! ? latest : Infinity };
  }

  #pointBefore(point: Instant): Instant {
    const before = 2 * point - this.until!;
    return before > this.grantedAt ? before : -Infinity;
  }

  /** Lets it rest. */
  rest(now: Instant, until: Instant, why: string): void {
    this.phase = "resting";
    this.next = { ...at(until, why, "the end of its rest"), since: now };
  }

  end(): void {
    this.phase = "over";
    this.next = undefined;
    this.until = undefined;
  }
}
