/**
 * The age of a gateway's mapping table as a hint at lost state: each answer carries it, and what it
 * should be by now says whether the table is still the one that was known.
 *
 * @module
 */
import type { Instant } from "../machine.ts";

/**
 * Whether an epoch fits the one before it.
 *
 * @param elapsedMs What has passed here between the two answers, milliseconds.
 * @param previous The epoch in the earlier answer, seconds.
 * @param current The epoch in the later answer, seconds.
 */
export type EpochRule = (elapsedMs: number, previous: number, current: number) => boolean;

/** The last epoch of one gateway. */
export class EpochRecord {
  readonly #fits: EpochRule;
  #seconds = 0;
  #at: Instant | undefined;

  /** Knows none; `fits` is the protocol's rule. */
  constructor(fits: EpochRule) {
    this.#fits = fits;
  }

  /** Whether `epochSeconds`, heard at `now`, fits; it is recorded either way. */
  check(epochSeconds: number, now: Instant): boolean {
    const before = this.#at;
    const isValid = before === undefined || this.#fits(now - before, this.#seconds, epochSeconds);
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
