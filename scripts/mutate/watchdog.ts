/**
 * A thread beside the tests that ends the process where one test uses far more of the processor
 * than it may, or where nothing happens any more: the test's own thread, in a loop without end or
 * waiting for what never comes, cannot.
 *
 * @module
 */
import { readFileSync, writeSync } from "node:fs";
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
/** Whoever does less than this does nothing. */
const NOTHING_MS = 50;

/** What the process has used of the processor, all threads together, milliseconds. */
export function usedMs(): number {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1000;
}

/**
 * How long the tests' thread has run, or waited for its turn where the system tells: on a busy
 * machine that is no idleness.
 */
function stirredMs(): number {
  try {
    const [ranNs, waitedNs] = readFileSync(`/proc/${process.pid}/schedstat`, "utf8").split(" ");
    return (Number(ranNs) + Number(waitedNs)) / 1e6;
  } catch {
    return usedMs();
  }
}

const watched = workerData as Watched | null;
if (watched) {
  const beat = new Float64Array(watched.beat);
  let busyAt = performance.now(), busyMs = stirredMs();
  setInterval(() => {
    const now = performance.now(), stirred = stirredMs();
    if (stirred - busyMs > NOTHING_MS) {
      busyAt = now;
      busyMs = stirred;
    }
    const isLong = usedMs() - beat[BEAT.startedMs]! > beat[BEAT.limitMs]!;
    if (!isLong && now - busyAt <= watched.idleMs) return;
    writeSync(1, "\nFAILED the time limit\n");
    process.kill(process.pid, "SIGKILL");
  }, LOOK_EVERY_MS);
}
