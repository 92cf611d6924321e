/**
 * Randomness comes into a machine through its constructor, so that the same seed gives the same
 * packets. Nonces need an unguessable source: adapters pass one over Web Crypto.
 *
 * @module
 */

/** Where a machine's randomness comes from. */
export interface RandomSource {
  /** A uniform integer in 0…2³²−1. */
  u32(): number;
  /** Fills all of `bytes`. */
  fill(bytes: Uint8Array): void;
}

/** A uniform number in [`low`, `high`). */
export function uniform(random: RandomSource, low: number, high: number): number {
  return low + (high - low) * (random.u32() / 0x1_0000_0000);
}

/** A uniform integer in 0…`bound` − 1, for bounds far below 2³². */
export function below(random: RandomSource, bound: number): number {
  return Math.floor(uniform(random, 0, bound));
}

/**
 * A deterministic source for tests and simulations (sfc32). Never for nonces on a real network.
 *
 * @example
 * ```ts
 * import { seededRandom } from "@natkit/natkit/core";
 * const a = seededRandom(7), b = seededRandom(7);
 * console.assert(a.u32() === b.u32());
 * ```
 */
export function seededRandom(seed: number): RandomSource {
  let a = 0x9e3779b9,
    b = 0x243f6a88,
    c = seed | 0,
    counter = (Math.floor(seed / 0x1_0000_0000) + 1) | 0;
  const u32 = (): number => {
    const sum = (a + b + counter) | 0;
    counter = (counter + 1) | 0;
    a = b ^ (b >>> 9);
    b = (c + (c << 3)) | 0;
    c = (((c << 21) | (c >>> 11)) + sum) | 0;
    return sum >>> 0;
  };
  for (let i = 0; i < 12; i++) u32();
  return {
    u32,
    fill(bytes) {
      for (let i = 0; i < bytes.length; i++) bytes[i] = u32() >>> 24;
    },
  };
}
