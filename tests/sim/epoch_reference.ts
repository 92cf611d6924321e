/**
 * The epoch rules of RFC 6886 §3.6 and RFC 6887 §8.5, written down a second time, to judge what the
 * clients make of the packets that reach them.
 *
 * @module
 */
import type { Instant } from "../../core/machine.ts";

/** What the rules say about the epochs of one gateway. */
export class EpochReference {
  readonly #isLost: (epoch: number, previous: number, elapsedMs: number) => boolean;
  #last: { readonly epoch: number; readonly at: Instant } | undefined;

  /** @param via Whose rule it is. */
  constructor(via: "pcp" | "nat-pmp") {
    this.#isLost = via === "pcp" ? isPcpLost : isNatPmpLost;
  }

  /** Whether an epoch was heard. */
  get isKnown(): boolean {
    return this.#last !== undefined;
  }

  /** Who starts anew, or asks another server, has heard nothing. */
  reset(): void {
    this.#last = undefined;
  }

  /** Whether `epoch`, heard at `now`, tells that the gateway lost its mappings. */
  hear(epoch: number, now: Instant): boolean {
    const last = this.#last;
    this.#last = { epoch, at: now };
    return last !== undefined && this.#isLost(epoch, last.epoch, now - last.at);
  }
}

/**
 * "If the SSSOE in the newly received packet is less than the client's conservative estimate by
 * more than 2 seconds": the client's clock counts for 7/8.
 */
function isNatPmpLost(epoch: number, previous: number, elapsedMs: number): boolean {
  return epoch < previous + elapsedMs / 1000 * 0.875 - 2;
}

/** Steps 1 to 3 of §8.5, in whole seconds and signed (D-04). */
function isPcpLost(epoch: number, previous: number, elapsedMs: number): boolean {
  const client = Math.floor(elapsedMs / 1000), server = epoch - previous;
  const isBack = epoch < previous - 1;
  const isAhead = client + 2 < server - Math.floor(server / 16);
  const isBehind = server + 2 < client - Math.floor(client / 16);
  return isBack || isAhead || isBehind;
}
