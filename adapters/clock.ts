/**
 * Time for the machines: monotonic milliseconds that count sleep, and timers of any length.
 *
 * A runtime's monotonic clock may stand still while the computer sleeps, yet a lease at the gateway
 * runs on. The wall clock does count sleep, but people and NTP set it. So the two are read
 * together: where the wall clock runs ahead of the monotonic one by more than two seconds between
 * two readings, that much was slept through and is added. (A wall clock set forward by hand looks
 * the same; leases are then renewed early, which harms nobody.) Smaller drifts and steps backward
 * are NTP's and change nothing. A jump is noticed at the next reading, so whoever waits on this
 * clock wakes up at least every {@linkcode LONGEST_WAIT_MS}.
 *
 * @module
 */
import type { Instant } from "../core/machine.ts";

/** The longest a driver waits without looking at the clock, milliseconds. */
export const LONGEST_WAIT_MS = 15_000;

/** How far the wall clock may run ahead between two readings before it counts as sleep. */
const SLEEP_THRESHOLD_MS = 2_000;

/** The longest delay that every runtime's `setTimeout` takes: 2³¹ − 1 ms (decision D-11). */
const LONGEST_TIMEOUT_MS = 0x7fff_ffff;

/**
 * Makes a clock of the two.
 *
 * @param monotonic Milliseconds that never go back.
 * @param wall Milliseconds since any fixed date.
 * @returns The reading: milliseconds that never go back and count sleep.
 *
 * @example
 * ```ts
 * import { makeClock } from "./clock.ts";
 * let awake = 0, wall = 1e12;
 * const now = makeClock(() => awake, () => wall);
 * wall += 3_600_000; // An hour asleep.
 * awake += 5;
 * console.assert(now() > 3_599_000);
 * ```
 */
export function makeClock(monotonic: () => number, wall: () => number): () => Instant {
  let drift = wall() - monotonic();
  let slept = 0;
  let last = 0;
  return () => {
    const awake = monotonic();
    const ahead = wall() - awake - drift;
    drift += ahead;
    if (ahead > SLEEP_THRESHOLD_MS) slept += ahead;
    last = Math.max(last, awake + slept);
    return last;
  };
}

/** The clock of this process; one for all, so that instants can be compared. */
export const systemNow: () => Instant = makeClock(() => performance.now(), () => Date.now());

/** What differs between runtimes: Node and Bun give an object, Deno a number. */
interface Unref {
  unref?(): void;
}

/**
 * Calls back after `delayMs`, however large; a delay beyond 2³¹ − 1 ms, at which runtimes fire at
 * once, is split.
 *
 * @param delayMs Milliseconds; `Infinity` never fires, a negative delay counts as 0.
 * @param keepAlive Whether the timer alone keeps the process alive.
 * @returns Cancels it; a second call does nothing.
 */
export function startTimer(delayMs: number, callback: () => void, keepAlive: boolean): () => void {
  let timer: ReturnType<typeof setTimeout>;
  let left = Math.max(0, Math.ceil(delayMs));
  const arm = () => {
    const part = Math.min(left, LONGEST_TIMEOUT_MS);
    left -= part;
    timer = setTimeout(() => left > 0 ? arm() : callback(), part);
    if (!keepAlive) unref(timer);
  };
  arm();
  return () => clearTimeout(timer);
}

function unref(timer: unknown): void {
  if (typeof timer === "object") return (timer as Unref).unref?.();
  const { Deno } = globalThis as { Deno?: { unrefTimer?(id: number): void } };
  Deno?.unrefTimer?.(timer as number);
}
