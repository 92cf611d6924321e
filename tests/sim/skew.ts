/**
 * A gateway whose clock runs at another rate than the world's: fast and slow quartz, within and
 * beyond what the epoch rules forgive.
 *
 * @module
 */
import type { Action, DebugTimeout, Endpoint, Instant, Machine } from "../../core/machine.ts";

/** So that rounding never calls a machine before its time. */
const SLACK_MS = 0.001;

/** Runs a machine by a clock of `rate` seconds a second. */
export class Skewed<E> implements Machine<E> {
  readonly #inner: Machine<E>;
  readonly #rate: number;

  constructor(inner: Machine<E>, rate: number) {
    this.#inner = inner;
    this.#rate = rate;
  }

  get stats(): object {
    return this.#inner.stats;
  }

  handleDatagram(data: Uint8Array, from: Endpoint, socket: string, now: Instant): boolean {
    return this.#inner.handleDatagram(data, from, socket, now * this.#rate);
  }

  handleUnreachable(to: Endpoint, socket: string, now: Instant): void {
    this.#inner.handleUnreachable(to, socket, now * this.#rate);
  }

  handleTimeout(now: Instant): void {
    this.#inner.handleTimeout(now * this.#rate);
  }

  nextTimeout(): Instant | undefined {
    const next = this.#inner.nextTimeout();
    return next === undefined ? undefined : next / this.#rate + SLACK_MS;
  }

  debugTimeout(): DebugTimeout | undefined {
    const next = this.#inner.debugTimeout();
    return next && { at: next.at / this.#rate + SLACK_MS, reason: next.reason };
  }

  poll(): Action<E> | undefined {
    return this.#inner.poll();
  }
}
