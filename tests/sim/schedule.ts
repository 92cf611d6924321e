/**
 * Whether a client keeps to the retransmission schedules of RFC 6886 §3.1 and RFC 6887 §8.1.1,
 * judged by its packets alone.
 *
 * The same bytes sent again are a retransmission; its distance from the one before has a minimum
 * that grows. An answer, a command, a restart of the gateway and ICMP start the count over, for
 * they give the client a reason to ask anew.
 *
 * @module
 */
import { natPmpWaitMs, PCP_IRT_MS } from "../../core/backoff.ts";
import { equalBytes, toHex, u16, u32 } from "../../core/bytes.ts";
import type { Instant } from "../../core/machine.ts";
import { SimulationError } from "../../core/sim/mod.ts";

interface Series {
  data: Uint8Array;
  sends: number;
  lastAt: Instant;
}

/** Rounding of milliseconds. */
const SLACK_MS = 2;
/** NAT-PMP: attempts, and the wait after the last. */
const NATPMP_ATTEMPTS = 9;
/** How long a session rests between two races for a lost mapping. */
const RERACE_MS = 60_000;
/** Nothing is sent twice within this but what a late wake-up and a duplicate explain. */
const MIN_GAP_MS = 248;

/** Watches the requests of one client. */
export class ScheduleGuard {
  readonly #name: string;
  readonly #isDual: boolean;
  readonly #series = new Map<string, Series>();
  readonly #racedAt = new Map<string, Instant>();
  #restsUntil: Instant = -Infinity;
  #pending: { readonly data: Uint8Array; readonly now: Instant }[] = [];
  /** Requests seen. */
  sent = 0;

  /** @param isDual Speaks both protocols: an answer by one may be a reason to ask by the other. */
  constructor(name: string, isDual: boolean) {
    this.#name = name;
    this.#isDual = isDual;
  }

  /** The client had a reason to ask anew. */
  reset(): void {
    this.#series.clear();
  }

  /** Nothing is judged before that. */
  rest(until: Instant): void {
    this.#restsUntil = until;
  }

  /** An answer came: what it answers may be asked again. */
  answered(data: Uint8Array): void {
    if (data.length < 2) return;
    if (this.#isDual) {
      // The race is decided, or has taken another turn.
      this.reset();
    } else if (data[0] === 0) {
      const opcode = data[1]! & 0x7f;
      // The address comes as an announcement, too, and that is a reason for everything.
      if (opcode === 0) this.reset();
      for (const key of this.#series.keys()) {
        // A short error names no port.
        if (key.startsWith(`0/${opcode}/`) || data.length < 12) this.#series.delete(key);
      }
      // UNSUPP_VERSION in NAT-PMP's form is an answer to PCP, too.
      if (data[3] === 1) this.reset();
    } else if (data[0] === 2 && data.length >= 36) {
      this.#series.delete(key(data));
    } else {
      // An announcement, or UNSUPP_VERSION.
      this.reset();
    }
  }

  /** A request leaves; it is judged in `settle`, when what was told along with it is known. */
  sends(data: Uint8Array, now: Instant): void {
    this.sent++;
    this.#pending.push({ data, now });
  }

  /** The client has been drained. */
  settle(): void {
    const pending = this.#pending;
    if (pending.length === 0) return;
    this.#pending = [];
    for (const { data, now } of pending) this.#judge(data, now);
  }

  #judge(data: Uint8Array, now: Instant): void {
    const name = key(data);
    const series = this.#series.get(name);
    if (!series || !equalBytes(series.data, data) || now < this.#restsUntil) {
      this.#series.set(name, { data, sends: 1, lastAt: now });
      return;
    }
    const gap = now - series.lastAt;
    // A session may race for what it lost at any moment, fast start included, but not often.
    if (this.#isDual && gap >= MIN_GAP_MS && gap + SLACK_MS < leastMs(data, series.sends)) {
      const racedAt = this.#racedAt.get(name) ?? -Infinity;
      if (now - racedAt + SLACK_MS >= RERACE_MS) {
        this.#racedAt.set(name, now);
        series.sends = 1;
      }
    }
    const least = leastMs(data, series.sends);
    if (gap + SLACK_MS < least) {
      throw new SimulationError(
        `${this.#name} sends ${toHex(data)} for the ${series.sends + 1}th time after ${
          gap.toFixed(0)
        } ms,` +
          ` the schedule allows no sooner than ${least} ms`,
      );
    }
    series.lastAt = now;
    // After the wait that follows the last attempt it is a new request.
    const isOver = data[0] === 0 && gap + SLACK_MS >= natPmpLeastMs(NATPMP_ATTEMPTS);
    series.sends = isOver ? 1 : series.sends + 1;
  }
}

/** What a request is about: version, opcode, and nonce or internal port. */
function key(data: Uint8Array): string {
  const opcode = data[1]! & 0x7f;
  if (data[0] === 2) {
    if (data.length < 36) return `2/${opcode}/`;
    return `2/${opcode}/${u32(data, 24)}/${u32(data, 28)}/${u32(data, 32)}`;
  }
  return `0/${opcode}/${data.length < 6 ? "" : u16(data, 4)}`;
}

function leastMs(data: Uint8Array, sends: number): number {
  return data[0] === 0 ? natPmpLeastMs(sends) : pcpLeastMs(sends);
}

function natPmpLeastMs(sends: number): number {
  return natPmpWaitMs(sends);
}

/**
 * A first request may start fast (250, 750 ms; D-17), then 3 s and doubling, all but the jitter;
 * renewals are at least 4 s apart and halve their distance, so no more than that holds for all.
 */
function pcpLeastMs(sends: number): number {
  if (sends === 1) return 250;
  if (sends === 2) return 500;
  return sends === 3 ? PCP_IRT_MS * 0.9 - 750 : 4000;
}
