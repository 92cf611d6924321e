/**
 * When a request that got no answer leaves again (RFC 6887 §8.1.1, PCP-C-09), and when a lease is
 * renewed (§11.2.1, PCP-C-40).
 *
 * Requests follow the RFC's schedule, drawn from the first sending on: 0, 3, 9, 21, 45 s… each
 * with its jitter. With a fast start two more are put into the first gap, at 250 and 750 ms
 * (decision D-17), so that one lost datagram costs a quarter of a second and not three.
 *
 * @module
 */
import { MIN_RENEWAL_GAP_MS, pcpRetransmissionTimeMs, renewalFraction } from "../backoff.ts";
import type { Instant } from "../machine.ts";
import type { RandomSource } from "../random.ts";

/** When the two extra requests of a fast start leave, milliseconds after the first. */
export const FAST_START_MS: readonly [number, number] = [250, 750];

/** The schedule of one request in flight. */
export class Retransmission {
  /** How many times it was sent. */
  attempt = 0;
  #startedAt: Instant = 0;
  #intervalMs: number | undefined;
  #regularAt: Instant = 0;
  #isFast: boolean;

  /** @param isFast Whether it starts fast. */
  constructor(isFast: boolean) {
    this.#isFast = isFast;
  }

  /** Counts a sending at `now` and returns when the next is due. */
  next(random: RandomSource, now: Instant): Instant {
    this.attempt++;
    if (this.attempt === 1) this.#startedAt = now;
    if (this.attempt === 1 || now >= this.#regularAt) {
      this.#intervalMs = pcpRetransmissionTimeMs(this.#intervalMs, random);
      this.#regularAt = now + this.#intervalMs;
    }
    const early = this.#isFast ? FAST_START_MS[this.attempt - 1] : undefined;
    // A caller that comes late has missed the extra ones: they are not made up for.
    if (early !== undefined && this.#startedAt + early > now) return this.#startedAt + early;
    return this.#regularAt;
  }

  /** Goes on at the RFC's pace only. */
  slowDown(): void {
    this.#isFast = false;
  }

  /** When the RFC's schedule sends next. */
  get regularAt(): Instant {
    return this.#regularAt;
  }
}

/** The renewals of one lease, from one grant to the next. */
export class RenewalPlan {
  #k = 0;
  #lastSentAt = -Infinity;

  /** Starts over: the lease was granted. */
  restart(): void {
    this.#k = 0;
  }

  /** Notes that a renewal leaves at `now`. */
  sent(now: Instant): void {
    this.#lastSentAt = now;
  }

  /** Before this, no renewal may leave. */
  get earliestAt(): Instant {
    return this.#lastSentAt + MIN_RENEWAL_GAP_MS;
  }

  /**
   * When the next renewal is due, or undefined where the lease ends first.
   *
   * @param grantedAt When the lease was granted.
   * @param durationMs Its length, as far as it is scheduled by.
   */
  next(
    grantedAt: Instant,
    durationMs: number,
    random: RandomSource,
    now: Instant,
  ): Instant | undefined {
    // After a sleep those that were missed are skipped. Past 2⁻³⁰ of a day nothing is left.
    for (this.#k++; this.#k < 30; this.#k++) {
      const at = grantedAt + renewalFraction(this.#k, random) * durationMs;
      if (at < now) continue;
      const due = Math.max(at, this.earliestAt);
      return due < grantedAt + durationMs ? due : undefined;
    }
    return undefined;
  }
}
