/**
 * Several ways to one goal, the best first: the next one starts when the one before has taken too
 * long or failed, the first success wins and ends the others (the idea of RFC 8305).
 *
 * @module
 */
import type { Runtime } from "../runtime.ts";

/** One way; it is to end with a rejection when its signal is aborted. */
export type Way<R> = (signal: AbortSignal) => Promise<R>;

/**
 * The first success.
 *
 * @param staggerMs How long a way runs alone before the next one starts, milliseconds.
 * @throws {unknown[]} The reason of each way, where all fail; the signal's reason where it aborts.
 */
export async function firstSuccess<R>(
  runtime: Runtime,
  ways: readonly Way<R>[],
  staggerMs: number,
  signal: AbortSignal | undefined,
): Promise<R> {
  const ending = new AbortController();
  const onAbort = () => ending.abort(signal!.reason);
  signal?.addEventListener("abort", onAbort);
  const running: Promise<R>[] = [];
  try {
    for (const way of ways) {
      const latest = way(ending.signal);
      running.push(latest);
      if (running.length === ways.length) break;
      const winner = await soon(runtime, running, staggerMs);
      if (winner) return winner.value;
      signal?.throwIfAborted();
    }
    return await Promise.any(running);
  } catch (error) {
    signal?.throwIfAborted();
    throw error instanceof AggregateError ? error.errors : error;
  } finally {
    signal?.removeEventListener("abort", onAbort);
    ending.abort(new Error("another way was faster"));
    for (const loser of running) loser.catch(() => undefined);
  }
}

/** The first success within `ms`; undefined when the time is up or all have failed before. */
async function soon<R>(
  runtime: Runtime,
  running: readonly Promise<R>[],
  ms: number,
): Promise<{ value: R } | undefined> {
  let cancel = (): void => {};
  const timeout = new Promise<undefined>((resolve) => {
    cancel = runtime.setTimer(ms, () => resolve(undefined), true);
  });
  const first = Promise.any(running).then((value) => ({ value }), () => undefined);
  const winner = await Promise.race([first, timeout]);
  cancel();
  return winner;
}
