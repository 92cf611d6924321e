/**
 * The server's epoch as a hint at lost state (RFC 6887 §8.5, PCP-C-18, PCP-C-25, PCP-C-26).
 *
 * @module
 */
import type { Instant } from "../machine.ts";

/**
 * Whether an epoch fits the one before it. All in whole seconds.
 *
 * The server's difference is signed: after an epoch one second lower (which reordering makes, and
 * which is allowed) the RFC's unsigned reading would take −1 for four thousand million.
 *
 * @param clientDelta Seconds on the client's clock between the two answers.
 * @param previous The server's epoch in the earlier answer.
 * @param current The server's epoch in the later answer.
 */
export function isEpochValid(clientDelta: number, previous: number, current: number): boolean {
  const serverDelta = current - previous;
  if (serverDelta < -1) return false;
  if (clientDelta + 2 < serverDelta - Math.floor(serverDelta / 16)) return false;
  return serverDelta + 2 >= clientDelta - Math.floor(clientDelta / 16);
}

/**
 * The last epoch of one server.
 */
export class EpochRecord {
  #seconds = 0;
  #at: Instant | undefined;

  /** Whether `epochSeconds`, heard at `now`, fits; it is recorded either way. */
  check(epochSeconds: number, now: Instant): boolean {
    const before = this.#at;
    const isValid = before === undefined ||
      isEpochValid(Math.floor((now - before) / 1000), this.#seconds, epochSeconds);
    this.#seconds = epochSeconds;
    this.#at = now;
    return isValid;
  }

  /** Whether an epoch was heard. */
  get isKnown(): boolean {
    return this.#at !== undefined;
  }

  /** Forgets: the next epoch is a first one. */
  forget(): void {
    this.#at = undefined;
  }
}
