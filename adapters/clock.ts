/**
 * Time for the machines: monotonic milliseconds that count sleep, and timers of any length.
 *
 * A runtime's monotonic clock may stand still while the computer sleeps, yet a lease at the gateway
 * runs on. The wall clock does count sleep, but people and NTP set it: a device without a battery
 * boots years back and is set right minutes later. So three clocks are read together. Where the
 * wall clock and the monotonic one move apart by more than two seconds between two readings,
 * something happened; what it was the system's uptime tells, which counts sleep and which nobody
 * sets (Linux: CLOCK_BOOTTIME; Windows: GetTickCount64; macOS: the time since `kern.boottime`,
 * which is moved along when the clock is set). What it is ahead of the monotonic clock was slept
 * through and is added. Its readings are whole seconds on some runtimes, so where the wall clock
 * agrees to within two seconds its exact figure is taken.
 *
 * Where the uptime cannot be read (Deno without `--allow-sys=osUptime`) the wall clock's word is
 * taken: a clock set forward then looks like sleep, and leases are asked for again too early. The
 * other error, a sleep that is not seen, would leave a port closed for half a lifetime. A virtual
 * machine that is paused has no sleep on any clock of its own but the wall's, and is not seen.
 *
 * Smaller drifts and steps backward are NTP's and change nothing. A jump is noticed at the next
 * reading, so whoever waits on this clock wakes up at least every {@linkcode LONGEST_WAIT_MS}.
 *
 * @module
 */
import type { Instant } from "../core/machine.ts";
import { readUptimeMs } from "./system.ts";

/** The longest a driver waits without looking at the clock, milliseconds. */
export const LONGEST_WAIT_MS = 15_000;

/** How far clocks may move apart between two readings before it counts for something. */
const SLEEP_THRESHOLD_MS = 2_000;

/** The longest delay that every runtime's `setTimeout` takes: 2³¹ − 1 ms. */
const LONGEST_TIMEOUT_MS = 0x7fff_ffff;

/**
 * Makes a clock of the three.
 *
 * @param monotonic Milliseconds that never go back.
 * @param wall Milliseconds since any fixed date.
 * @param uptime Milliseconds since the start of the system, sleep included, to the second or
 *   better; undefined where that is not known.
 * @returns The reading: milliseconds that never go back and count sleep.
 *
 * @example
 * ```ts
 * import { makeClock } from "./clock.ts";
 * let awake = 0, wall = 1e12, up = 5000;
 * const now = makeClock(() => awake, () => wall, () => up);
 * wall += 3_600_000; // Set forward by an hour.
 * console.assert(now() === 0);
 * wall += 3_600_000; // An hour asleep.
 * up += 3_600_000;
 * awake += 5;
 * console.assert(now() > 3_599_000);
 * ```
 */
export function makeClock(
  monotonic: () => number,
  wall: () => number,
  uptime: () => number | undefined = () => undefined,
): () => Instant {
  const uptimeLead = () => {
    const up = uptime();
    return up === undefined ? undefined : up - monotonic();
  };
  let wallLead = wall() - monotonic();
  let knownLead = uptimeLead();
  let slept = 0;
  let last = 0;

  /** How much of it was sleep that the wall clock moved `ahead`. */
  const sleptOf = (ahead: number): number => {
    const lead = uptimeLead();
    if (lead === undefined || knownLead === undefined) return Math.max(0, ahead);
    const gained = lead - knownLead;
    if (gained <= SLEEP_THRESHOLD_MS) return 0;
    knownLead = lead;
    return Math.abs(ahead - gained) <= SLEEP_THRESHOLD_MS ? ahead : gained;
  };

  return () => {
    const awake = monotonic();
    const ahead = wall() - awake - wallLead;
    wallLead += ahead;
    if (Math.abs(ahead) > SLEEP_THRESHOLD_MS) slept += sleptOf(ahead);
    last = Math.max(last, awake + slept);
    return last;
  };
}

/**
 * Milliseconds that never go back. On Node not `performance`, which takes it milliseconds to load:
 * the same clock is a call of its process away.
 */
const monotonic: () => number = (() => {
  const { process } = globalThis as {
    readonly process?: { hrtime?(): readonly [seconds: number, nanoseconds: number] };
  };
  if (!process?.hrtime || "Deno" in globalThis || "Bun" in globalThis) {
    return () => performance.now();
  }
  return () => {
    const [seconds, nanoseconds] = process.hrtime!();
    return seconds * 1e3 + nanoseconds / 1e6;
  };
})();

/** The clock of this process; one for all, so that instants can be compared. */
export const systemNow: () => Instant = makeClock(
  monotonic,
  () => Date.now(),
  readUptimeMs,
);

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
