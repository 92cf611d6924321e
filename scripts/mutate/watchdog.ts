/**
 * A thread beside the tests that ends the process where one test uses far more of the processor
 * than its whole file does without a bug: the test's own thread, in a loop without end, cannot.
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
  /** What one test of each file may use, milliseconds of the processor. */
  readonly limitsMs: readonly number[];
}

/** Where in the shared numbers stands the running test's file, and when it began. */
export const BEAT = { file: 0, startedMs: 1 } as const;

const LOOK_EVERY_MS = 250;

/** What the process has used of the processor, all threads together, milliseconds. */
export function usedMs(): number {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1000;
}

const watched = workerData as Watched | null;
if (watched) {
  const beat = new Float64Array(watched.beat);
  setInterval(() => {
    const limit = watched.limitsMs[beat[BEAT.file]!] ?? Infinity;
    if (usedMs() - beat[BEAT.startedMs]! <= limit) return;
    writeSync(1, "\nFAILED the time limit\n");
    process.kill(process.pid, "SIGKILL");
  }, LOOK_EVERY_MS);
}
