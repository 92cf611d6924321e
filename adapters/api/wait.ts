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

/** How a wait ends; only the first of `resolve` and `reject` counts. */
export interface Settle<R> {
  resolve(value: R): void;
  reject(reason: unknown): void;
  /**
   * Cleans up once the wait is over, whoever ended it; at once where it is.
   *
   * @param cleanUp Gets whether it resolved.
   */
  onEnd(cleanUp: (isResolved: boolean) => void): void;
  /** Begins the time anew: an answer goes on. */
  goesOn(): void;
}

/**
 * Waits until `begin`'s `settle` is called. What `begin` throws rejects, too.
 *
 * @param timeoutReason Makes the reason with which it rejects when the time is up.
 */
export function waitFor<R>(
  runtime: Runtime,
  options: WaitOptions,
  timeoutReason: () => unknown,
  begin: (settle: Settle<R>) => void,
): Promise<R> {
  return new Promise<R>((resolve, reject) => {
    const { timeoutMs, signal } = checkWait(options);
    if (signal?.aborted) throw signal.reason;
    let isResolved: boolean | undefined;
    const cleanUps: ((isResolved: boolean) => void)[] = [];
    const end = (isDone: boolean, finish: () => void) => {
      if (isResolved !== undefined) return;
      isResolved = isDone;
      finish();
      for (const cleanUp of cleanUps) cleanUp(isDone);
    };
    let cancelTimer = () => {};
    const startTimer = () => {
      if (timeoutMs === Infinity) return;
      cancelTimer = runtime.setTimer(timeoutMs, () => settle.reject(timeoutReason()), true);
    };
    const settle: Settle<R> = {
      resolve: (value) => end(true, () => resolve(value)),
      reject: (reason) => end(false, () => reject(reason)),
      onEnd: (cleanUp) => {
        if (isResolved === undefined) cleanUps.push(cleanUp);
        else cleanUp(isResolved);
      },
      goesOn() {
        if (isResolved !== undefined) return;
        cancelTimer();
        startTimer();
      },
    };
    startTimer();
    settle.onEnd(() => cancelTimer());
    if (signal) {
      const onAbort = () => settle.reject(signal.reason);
      signal.addEventListener("abort", onAbort);
      settle.onEnd(() => signal.removeEventListener("abort", onAbort));
    }
    try {
      begin(settle);
    } catch (error) {
      settle.reject(error);
    }
  });
}

/**
 * Checks how long to wait.
 *
 * @throws {TypeError} On a time or a signal that is none.
 */
export function checkWait(
  options: WaitOptions,
): { readonly timeoutMs: number; readonly signal: AbortSignal | undefined } {
  const { timeoutMs = DEFAULT_TIMEOUT_MS, signal } = checkOptions(options);
  if (typeof timeoutMs !== "number" || !(timeoutMs >= 0)) {
    throw new TypeError(
      `'timeoutMs' must be a number from 0 on: current value is ${show(timeoutMs)}`,
    );
  }
  return { timeoutMs, signal: checkSignal(signal) };
}

/**
 * Returns `signal` where it is one, or is left out.
 *
 * @throws {TypeError} Where it is neither.
 */
export function checkSignal(signal: AbortSignal | undefined): AbortSignal | undefined {
  if (signal === undefined || typeof signal?.addEventListener === "function") return signal;
  throw new TypeError(`'signal' must be an AbortSignal: current value is ${show(signal)}`);
}

/**
 * Returns `options` where it is an object.
 *
 * @throws {TypeError} Where it is not.
 */
export function checkOptions<T extends object>(options: T): T {
  if (typeof options === "object" && options !== null) return options;
  throw new TypeError(`'options' must be an object: current value is ${show(options)}`);
}
