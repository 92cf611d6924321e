/**
 * Seconds Since Start of Epoch: how a client notices that the gateway lost its mappings
 * (RFC 6886 §3.6; PMP-C-16, PMP-C-28). Each packet from the gateway carries the age of its mapping
 * table. It must have grown by at least 7/8 of the time passed here, less 2 seconds; a table
 * younger than that is another one. Growing faster is no error in NAT-PMP.
 *
 * @module
 */
import type { Instant } from "../machine.ts";

/** The verdict on one packet's epoch. */
export type EpochVerdict =
  /** Nothing to compare it with. */
  | "first"
  /** The table is the one known. */
  | "same"
  /** The gateway lost its table since. */
  | "lost";

/**
 * The epoch of one gateway.
 */
export class NatPmpEpoch {
  #seconds = 0;
  #at: Instant | undefined;

  /** The last epoch seen, seconds; undefined before the first packet. */
  get seconds(): number | undefined {
    return this.#at === undefined ? undefined : this.#seconds;
  }

  /** Judges the epoch of a packet that came at `now`, and remembers it. */
  check(epochSeconds: number, now: Instant): EpochVerdict {
    const before = this.#at;
    const estimate = before === undefined ? 0 : this.#seconds + 7 / 8 * (now - before) / 1000;
    this.#seconds = epochSeconds;
    this.#at = now;
    if (before === undefined) return "first";
    return epochSeconds < estimate - 2 ? "lost" : "same";
  }
}
