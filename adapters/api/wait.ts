/**
 * A promise that ends by an answer, by the caller's timeout or by the caller's signal, and leaves
 * neither a timer nor a listener behind.
 *
 * @module
 */
import type { Runtime } from "../runtime.ts";

/** How long to wait for a request. */
export interface WaitOptions {
  /** Milliseconds until the request is given up. Default 10,000. */
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
 * @param begin Starts what is waited for, and returns what cleans up after it, however it ended.
 */
export function waitFor<R>(
  runtime: Runtime,
  options: WaitOptions,
  timeoutReason: () => unknown,
  begin: (settle: Settle<R>) => (outcome: "settled" | "given up") => void,
): Promise<R> {
  const { timeoutMs = DEFAULT_TIMEOUT_MS, signal } = options;
  if (signal?.aborted) return Promise.reject(signal.reason);
  return new Promise<R>((resolve, reject) => {
    let isOver = false;
    let cleanUp: ((outcome: "settled" | "given up") => void) | undefined;
    const end = (outcome: "settled" | "given up", finish: () => void) => {
      if (isOver) return;
      isOver = true;
      cancelTimer();
      signal?.removeEventListener("abort", onAbort);
      finish();
      cleanUp?.(outcome);
    };
    const onAbort = () => end("given up", () => reject(signal!.reason));
    const cancelTimer = runtime.setTimer(
      timeoutMs,
      () => end("given up", () => reject(timeoutReason())),
      true,
    );
    signal?.addEventListener("abort", onAbort);
    const settle: Settle<R> = {
      resolve: (value) => end("settled", () => resolve(value)),
      reject: (reason) => end("settled", () => reject(reason)),
    };
    try {
      cleanUp = begin(settle);
      if (isOver) cleanUp("settled");
    } catch (error) {
      settle.reject(error);
    }
  });
}
