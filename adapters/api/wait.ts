/**
 * A promise that ends by an answer, by the caller's timeout or by the caller's signal, and leaves
 * neither a timer nor a listener behind.
 *
 * @module
 */
import { show } from "../../core/check.ts";
import type { Runtime } from "../runtime.ts";

/** How long to wait for a request. */
export interface WaitOptions {
  /** Milliseconds until the request is given up, 0 to Infinity. Default 10,000. */
  readonly timeoutMs?: number;
  /** Ends the request; it rejects with the signal's reason. */
  readonly signal?: AbortSignal;
}

/** The default of {@linkcode WaitOptions.timeoutMs}. */
const DEFAULT_TIMEOUT_MS = 10_000;

/** How a wait ends; only the first call counts. */
export interface Settle<R> {
  resolve(value: R): void;
  reject(reason: unknown): void;
}

/**
 * Waits until `begin`'s `settle` is called.
 *
 * @param timeoutReason Makes the reason with which it rejects when the time is up.
 * @param begin Starts what is waited for, and returns what cleans up after it: `done` where it
 *   resolved, `given up` where it rejected, whoever did.
 */
export function waitFor<R>(
  runtime: Runtime,
  options: WaitOptions,
  timeoutReason: () => unknown,
  begin: (settle: Settle<R>) => (outcome: "done" | "given up") => void,
): Promise<R> {
  const { timeoutMs = DEFAULT_TIMEOUT_MS, signal } = options;
  if (typeof timeoutMs !== "number" || !(timeoutMs >= 0)) {
    const text = `'timeoutMs' must be a number from 0 on: current value is ${show(timeoutMs)}`;
    return Promise.reject(new TypeError(text));
  }
  if (signal?.aborted) return Promise.reject(signal.reason);
  return new Promise<R>((resolve, reject) => {
    let isOver = false;
    let outcome: "done" | "given up" = "done";
    let cleanUp: ((outcome: "done" | "given up") => void) | undefined;
    const end = (how: typeof outcome, finish: () => void) => {
      if (isOver) return;
      isOver = true;
      outcome = how;
      cancelTimer();
      signal?.removeEventListener("abort", onAbort);
      finish();
      cleanUp?.(outcome);
    };
    const onAbort = () => end("given up", () => reject(signal!.reason));
    const cancelTimer = timeoutMs === Infinity ? () => {} : runtime.setTimer(
      timeoutMs,
      () => end("given up", () => reject(timeoutReason())),
      true,
    );
    signal?.addEventListener("abort", onAbort);
    const settle: Settle<R> = {
      resolve: (value) => end("done", () => resolve(value)),
      reject: (reason) => end("given up", () => reject(reason)),
    };
    try {
      cleanUp = begin(settle);
      if (isOver) cleanUp(outcome);
    } catch (error) {
      settle.reject(error);
    }
  });
}
