/**
 * When packets may and must leave, by RFC 6886 and RFC 6887: the model's own statement of the
 * schedules, as windows in time. Nothing here is taken from the clients.
 *
 * @module
 */
import type { Instant } from "../../core/machine.ts";

/** When something is to happen, and by which rule. */
export interface Window {
  readonly from: Instant;
  readonly to: Instant;
  /** The moment that the rule counts from. */
  readonly since: Instant;
  /** What happened at that moment: `"the grant of 120 s"`. */
  readonly what: string;
  /** The rule in words: `"the window of attempt 1"`. */
  readonly rule: string;
}

/** What floating point may cost, milliseconds. */
export const SLACK_MS = 2;

/** At that very moment. */
export function at(when: Instant, what: string, rule: string): Window {
  return { from: when, to: when, since: when, what, rule };
}

/** Whether a moment lies in the window. */
export function isWithin({ from, to }: Window, when: Instant): boolean {
  return when >= from - SLACK_MS && when <= to + SLACK_MS;
}

/** Between two moments. */
export function between(
  from: Instant,
  to: Instant,
  since: Instant,
  what: string,
  rule: string,
): Window {
  return { from, to: Math.max(from, to), since, what, rule };
}

/** The window in words, for what happened at `when`: `"…: 61003 ms after …, … is 60.0…75.0 s"`. */
export function misses(window: Window, when: Instant): string {
  const { since } = window;
  const low = ((window.from - since) / 1000).toFixed(2);
  const high = ((window.to - since) / 1000).toFixed(2);
  const range = low === high ? `after ${low} s` : `${low}…${high} s`;
  return `${(when - since).toFixed(0)} ms after ${window.what}: ${window.rule} is ${range}`;
}

// ---- PCP -------------------------------------------------------------------------------------

/** RFC 6887 §8.1.1: the initial retransmission time, and the cap before jitter. */
const IRT_MS = 3000, MRT_MS = 1_024_000, JITTER = 0.1;
/** Decision D-17: a first request is repeated at these moments, too. */
const FAST_MS: readonly number[] = [250, 750];
/** RFC 6887 §11.2.1: two renewals are never closer. */
export const RENEWAL_GAP_MS = 4000;
/** RFC 6887 §15: no lifetime is taken for longer, in schedules. */
export const DAY_MS = 86_400_000;
/** RFC 6887 §14.1.3 and RFC 6886 §3.7: the random delay before what was lost is made again. */
export const RECREATION_MS = 5000;
/** How often a PCP deletion is sent at most. */
export const PCP_DELETIONS = 4;

/** The sendings of one PCP request (RFC 6887 §8.1.1), as far as they can be known from outside. */
export class PcpSeries {
  sends = 0;
  /** When it is sent next. */
  next: Window;
  readonly #isFast: boolean;
  readonly #firstMs: number;
  #firstAt: Instant = 0;
  #regularAt: Instant = 0;
  #rt: readonly [number, number] = [0, 0];
  #due: readonly [Instant, Instant] = [0, 0];
  #hasSlept = false;

  /**
   * @param next When it begins.
   * @param isFast Whether it starts fast (D-17): a first request or a deletion.
   * @param firstMs The first retransmission time, before its jitter.
   */
  constructor(next: Window, isFast: boolean, firstMs: number = IRT_MS) {
    this.next = next;
    this.#isFast = isFast;
    this.#firstMs = firstMs;
  }

  /** Whether it may be sent at that moment. */
  isDue(now: Instant): boolean {
    return isWithin(this.next, now);
  }

  /** It is sent. */
  sent(now: Instant): void {
    const isFirst = ++this.sends === 1;
    if (isFirst) this.#firstAt = now;
    if (isFirst || now >= this.#due[0] - SLACK_MS) this.#drawNext(now, isFirst);
    this.#plan(now);
  }

  #drawNext(now: Instant, isFirst: boolean): void {
    let base: readonly [number, number] = [this.#firstMs, this.#firstMs];
    if (!isFirst) {
      // What was on time tells what was drawn.
      const isOnTime = now <= this.#due[1] + SLACK_MS && !this.#hasSlept;
      const drawn = now - this.#regularAt;
      const [low, high] = isOnTime ? [drawn, drawn] : this.#rt;
      this.#hasSlept = false;
      base = [Math.min(2 * low, MRT_MS), Math.min(2 * high, MRT_MS)];
    }
    this.#rt = [base[0] * (1 - JITTER), base[1] * (1 + JITTER)];
    this.#regularAt = now;
    this.#due = [now + this.#rt[0], now + this.#rt[1]];
  }

  #plan(now: Instant): void {
    const early = this.#isFast ? FAST_MS[this.sends - 1] : undefined;
    const what = `sending ${this.sends}`;
    if (early !== undefined && this.#firstAt + early > now) {
      const when = this.#firstAt + early;
      this.next = between(when, when, now, what, "the fast retransmission");
    } else {
      const [from, to] = this.#due;
      this.next = between(from, to, this.#regularAt, what, "the retransmission time");
    }
  }

  /** The host has woken up: what was due in its sleep is due now. */
  woke(now: Instant): void {
    if (this.next.to < now) this.next = { ...this.next, to: now };
    this.#hasSlept ||= this.#due[0] <= now;
  }
}

/** The window of renewal attempt `k` (RFC 6887 §11.2.1); undefined where the lease ends first. */
export function pcpRenewal(
  k: number,
  grantedAt: Instant,
  lifetimeMs: number,
  earliest: Instant,
): Window | undefined {
  const start = 1 - 2 ** -k, end = start + 2 ** -(k + 2);
  const from = Math.max(grantedAt + start * lifetimeMs, earliest);
  const to = Math.max(grantedAt + end * lifetimeMs, earliest);
  if (from >= grantedAt + lifetimeMs) return undefined;
  const what = `the grant of ${lifetimeMs / 1000} s`;
  return between(from, to, grantedAt, what, `the window of renewal ${k}`);
}

/** For how long a PCP refusal holds (RFC 6887 §8.3): 0 says nothing, a day is the most. */
export function pcpHoldMs(lifetimeSeconds: number): number {
  return Math.min(DAY_MS, Math.max(RENEWAL_GAP_MS, (lifetimeSeconds || 30) * 1000));
}

/** For how long UNSUPP_VERSION holds (RFC 6887 §9): half an hour at most. */
export function versionHoldMs(lifetimeSeconds: number | undefined): number {
  return Math.min(1_800_000, Math.max(RENEWAL_GAP_MS, (lifetimeSeconds || 1800) * 1000));
}

// ---- NAT-PMP ---------------------------------------------------------------------------------

/** RFC 6886 §3.1: attempts. */
export const NATPMP_SENDS = 9;
/** RFC 6886 §3.4 leaves it open; natkit sends a deletion three times. */
export const NATPMP_DELETIONS = 3;
/** The wait after sending `n` (RFC 6886 §3.1): 250 ms, doubling; 64 s after the ninth. */
export function natPmpWaitMs(n: number): number {
  return 250 * 2 ** (n - 1);
}

/**
 * When a NAT-PMP mapping is renewed after `after` (RFC 6886 §3.3; D-12): at 1/2, 3/4, 7/8… of its
 * lifetime, steps of no more than half a day. Undefined where the lease ends first.
 */
export function natPmpRenewal(
  grantedAt: Instant,
  until: Instant,
  after: Instant,
): Window | undefined {
  let when = grantedAt;
  for (;;) {
    const step = Math.min((until - when) / 2, DAY_MS / 2);
    if (step < 1) return undefined;
    when += step;
    if (when < after) continue;
    const what = `the grant of ${(until - grantedAt) / 1000} s`;
    return between(when, when, grantedAt, what, "the point of its renewal");
  }
}

/** For how long a NAT-PMP refusal holds; RFC 6886 is silent, so RFC 6887 §7.4's 30 s and 30 min. */
export function natPmpHoldMs(code: number): number {
  return code === 3 || code === 4 ? 30_000 : 1_800_000;
}

// ---- Both ------------------------------------------------------------------------------------

/** How young a table is that an announcement tells of as a new one, seconds. */
export const YOUNG_TABLE_SECONDS = 64;

/**
 * How long a mapping rests that met silence or nonsense, the `n`th time (0…): doubling from 3 s, to
 * a minute where the gateway held it once, else to PCP's longest wait.
 */
export function restMs(n: number, wasGranted: boolean): number {
  return Math.min(wasGranted ? 60_000 : MRT_MS, IRT_MS * 2 ** n);
}
