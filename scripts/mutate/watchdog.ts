/**
 * A thread beside the tests that ends the process where one test uses far more of the processor
 * than it may, or where nothing happens any more: the test's own thread, in a loop without end or
 * waiting for what never comes, cannot.
 *
 * @module
 */
import { writeSync } from "node:fs";
import process from "node:process";
import { workerData } from "node:worker_threads";

/** What the thread of the tests tells of the one that runs: {@linkcode BEAT}'s fields. */
export interface Watched {
  /** Shared; two numbers. */
  readonly beat: SharedArrayBuffer;
  /** How long on the wall the process may do nothing. */
  readonly idleMs: number;
}

/** Where in the shared numbers stands when the running test began, and what it may use. */
export const BEAT = { limitMs: 0, startedMs: 1 } as const;

const LOOK_EVERY_MS = 250;
/** Looking uses a part of it; a process that waits for the processor gets more, in seconds. */
const NOTHING_MS = 50;

/** What the process has used of the processor, all threads together, milliseconds. */
export function usedMs(): number {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1000;
}

const watched = workerData as Watched | null;
if (watched) {
  const beat = new Float64Array(watched.beat);
  let busyAt = performance.now(), busyMs = usedMs();
  setInterval(() => {
    const now = performance.now(), used = usedMs();
    if (used - busyMs > NOTHING_MS) {
      busyAt = now;
      busyMs = used;
    }
    const isLong = used - beat[BEAT.startedMs]! > beat[BEAT.limitMs]!;
    if (!isLong && now - busyAt <= watched.idleMs) return;
    writeSync(1, "\nFAILED the time limit\n");
    process.kill(process.pid, "SIGKILL");
  }, LOOK_EVERY_MS);
}
