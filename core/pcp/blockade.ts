/**
 * How long NO_RESOURCES keeps a client from asking (PCP-C-42): from asking for anything new, or,
 * where it answered a deletion, from asking at all.
 *
 * @module
 */
import type { Instant } from "../machine.ts";

/** What is not to be asked for at present. */
export class Blockade {
  #newUntil: Instant = -Infinity;
  #allUntil: Instant = -Infinity;

  /** Nothing new until then, or nothing at all; an earlier word that holds longer stands. */
  extend(until: Instant, isAll: boolean): void {
    this.#newUntil = Math.max(this.#newUntil, until);
    if (isAll) this.#allUntil = Math.max(this.#allUntil, until);
  }

  /** Until when something new is not to be asked for. */
  get newUntil(): Instant {
    return this.#newUntil;
  }

  /** Until when nothing is to be asked for, renewals and deletions neither. */
  get allUntil(): Instant {
    return this.#allUntil;
  }

  /** Another network has other resources (PCP-C-23). */
  lift(): void {
    this.#newUntil = this.#allUntil = -Infinity;
  }
}
