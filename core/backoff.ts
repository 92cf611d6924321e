/**
 * Retransmission intervals of the two protocols, as pure functions: attempt number in, wait out.
 *
 * @module
 */
import { type RandomSource, uniform } from "./random.ts";

/** NAT-PMP's attempts before silence means "not there" (RFC 6886 §3.1). */
export const NATPMP_MAX_ATTEMPTS = 9;

/**
 * How long to wait after NAT-PMP attempt `attempt` (1…): 250 ms, doubling; after the ninth 64 s
 * (RFC 6886 §3.1, PMP-C-06, PMP-C-07). Milliseconds.
 */
export function natPmpWaitMs(attempt: number): number {
  return 250 * 2 ** (Math.min(attempt, NATPMP_MAX_ATTEMPTS) - 1);
}

/** RFC 6887 §8.1.1's parameters: initial and maximum retransmission time, milliseconds. */
export const PCP_IRT_MS = 3000;
/** The cap on the retransmission time before jitter, milliseconds. */
export const PCP_MRT_MS = 1_024_000;

/**
 * The next PCP retransmission time, milliseconds: `(1 + RAND) · min(2 · previous, MRT)` with RAND
 * uniform in ±0.1, the first `(1 + RAND) · IRT` (RFC 6887 §8.1.1, PCP-C-09).
 *
 * @param previousMs The one before, undefined for the first.
 */
export function pcpRetransmissionTimeMs(
  previousMs: number | undefined,
  random: RandomSource,
): number {
  const base = previousMs === undefined ? PCP_IRT_MS : Math.min(2 * previousMs, PCP_MRT_MS);
  return base * (1 + uniform(random, -0.1, 0.1));
}

/**
 * When the k-th renewal (1…) of a lease is due, as a fraction of its lifetime: uniform in
 * [1 − 2⁻ᵏ, 1 − 2⁻ᵏ + 2⁻⁽ᵏ⁺²⁾], so [1/2, 5/8], [3/4, 13/16]… (RFC 6887 §11.2.1, PCP-C-40).
 */
export function renewalFraction(k: number, random: RandomSource): number {
  const start = 1 - 2 ** -k;
  return uniform(random, start, start + 2 ** -(k + 2));
}

/** RFC 6887's recommendation for errors that pass soon, milliseconds (§7.4). */
export const SHORT_REFUSAL_MS = 30_000;
/** And for all others. */
export const LONG_REFUSAL_MS = 1_800_000;
/** Two renewals of one lease are never closer than this, milliseconds (RFC 6887 §11.2.1). */
export const MIN_RENEWAL_GAP_MS = 4000;
/** Lifetimes are scheduled as no longer than a day, whatever the gateway says (RFC 6887 §15). */
export const MAX_SCHEDULED_LIFETIME_SECONDS = 86_400;
/** After a loss of state the first recreation waits a uniform time up to this, milliseconds. */
export const RECREATION_DELAY_MS = 5000;
