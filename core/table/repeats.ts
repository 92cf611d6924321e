/**
 * What a server says unasked, and says again, since multicasts get lost: at once, 250 ms later, and
 * after twice as long each time (RFC 6886 §3.2.1, RFC 6887 §14.1.3 and §14.2). Each copy is made
 * when it leaves, so that what it tells is true then. One that is late is said once, and the rest
 * keep their distance.
 *
 * @module
 */
import type { DebugTimeout, Instant } from "../machine.ts";
import { earliest, Timers } from "../timers.ts";

/** How often an announcement is sent (PMP-S-08, PCP-S-50). */
export const ANNOUNCE_COPIES = 10;

const FIRST_GAP_MS = 250;

interface Series<T> {
  readonly what: T;
  left: number;
  gapMs: number;
}

/** What is being said; each thing has a key, and saying it anew starts its series over. */
export class Repeats<T> {
  #series = new Map<string, Series<T>>();
  #timers = new Timers<string>();

  /** How many things are being said. */
  get size(): number {
    return this.#series.size;
  }

  /** Starts a series: its first copy is due at `now`. Keep `reason` a constant. */
  start(key: string, what: T, copies: number, reason: string, now: Instant): void {
    if (copies === 0) return;
    this.#series.set(key, { what, left: copies, gapMs: FIRST_GAP_MS });
    this.#timers.set(key, now, reason);
  }

  /** Ends a series. */
  stop(key: string): void {
    if (this.#series.delete(key)) this.#timers.delete(key);
  }

  /** Ends all. */
  clear(): void {
    this.#series.clear();
    this.#timers.clear();
  }

  /** What is due at `now`; call until undefined. */
  popDue(now: Instant): T | undefined {
    const next = this.#timers.next();
    if (!next || next.at > now) return undefined;
    const series = this.#series.get(next.key)!;
    if (--series.left === 0) this.stop(next.key);
    else this.#timers.set(next.key, now + series.gapMs, next.reason);
    series.gapMs *= 2;
    return series.what;
  }

  /** When the next copy is due. */
  nextAt(): Instant | undefined {
    return this.#timers.nextAt();
  }

  /** {@linkcode Repeats.nextAt} with its reason. */
  next(): DebugTimeout | undefined {
    return earliest(this.#timers.next());
  }
}
