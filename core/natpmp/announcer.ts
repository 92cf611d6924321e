/**
 * When a gateway announces itself: at once, then after 250 ms, each next gap doubled, ten times
 * in all (RFC 6886 §3.2.1, PMP-S-08; RFC 6887 §14.1.3 allows the same for PCP).
 *
 * @module
 */
import type { DebugTimeout, Instant } from "../machine.ts";

/** How often an event is announced. */
export const ANNOUNCEMENTS = 10;
/** The first gap, milliseconds. */
export const FIRST_ANNOUNCE_GAP_MS = 250;

/** The schedule of one event's announcements. */
export class Announcer {
  #left = 0;
  #gapMs = 0;
  #at: Instant = 0;

  /** Starts over: the first announcement is due at `now`. */
  start(now: Instant, times: number = ANNOUNCEMENTS): void {
    this.#left = times;
    this.#gapMs = FIRST_ANNOUNCE_GAP_MS;
    this.#at = now;
  }

  /** Announces no more. */
  stop(): void {
    this.#left = 0;
  }

  /** Whether an announcement is due; where one is, the next one is scheduled a gap after `now`. */
  isDue(now: Instant): boolean {
    if (this.#left === 0 || this.#at > now) return false;
    this.#left--;
    this.#at = now + this.#gapMs;
    this.#gapMs *= 2;
    return true;
  }

  /** When the next one is due. */
  next(): DebugTimeout | undefined {
    return this.#left === 0 ? undefined : { at: this.#at, reason: "announce" };
  }
}
