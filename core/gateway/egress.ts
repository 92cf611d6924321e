/**
 * The way out of a simulated gateway: the profile's reply rules, then the disturbances: datagrams
 * are lost, late, overtake each other, are doubled, come from a wrong source. The queue in which
 * they wait is bounded: where it is full, a datagram is lost and counted, as a router's own queue
 * would have it.
 *
 * @module
 */
import { isSameEndpoint } from "../ip.ts";
import type { DebugTimeout, Endpoint, Instant } from "../machine.ts";
import { type RandomSource, uniform } from "../random.ts";
import { earliest, Timers } from "../timers.ts";
import { type ReplyChange, type ReplyRule, reshapeReply } from "./reshape.ts";

/** What is done to datagrams; all off by default. */
export interface Disturbance {
  /** Each is this late, milliseconds. */
  readonly delayMs: number;
  /** Each is late by its own uniform random time up to this, milliseconds: they overtake. */
  readonly reorderMs: number;
  /** Each is lost with this probability, 0…1. */
  readonly lossRate: number;
  /** Each is sent twice. */
  readonly duplicate: boolean;
  /** They leave by the socket role `"other"`. */
  readonly wrongSource: boolean;
}

/** No disturbance. */
export const UNDISTURBED: Disturbance = {
  delayMs: 0,
  reorderMs: 0,
  lossRate: 0,
  duplicate: false,
  wrongSource: false,
};

/**
 * Returns the disturbance where its times and its rate are in range.
 *
 * @throws {RangeError} Where one is not.
 */
export function readDisturbance(disturbance: Disturbance): Disturbance {
  checkRange("delayMs", disturbance.delayMs, 86_400_000);
  checkRange("reorderMs", disturbance.reorderMs, 86_400_000);
  checkRange("lossRate", disturbance.lossRate, 1);
  return disturbance;
}

function checkRange(name: string, value: number, high: number): void {
  if (typeof value !== "number" || !(value >= 0 && value <= high)) {
    throw new RangeError(`'${name}' must be a number in 0..${high}: current value is ${value}`);
  }
}

/** What is known about a reply while its request is served. */
export interface Exchange {
  /** The request. */
  readonly request: Uint8Array;
  /** Who asked. */
  readonly from: Endpoint;
  /** The reply is this late, milliseconds. */
  delayMs: number;
  /** What becomes of the reply after the rules. */
  changes: readonly ReplyChange[];
}

/** A datagram that leaves. */
interface Outgoing {
  readonly socket: string;
  readonly to: Endpoint;
  readonly data: Uint8Array;
}

/** How many datagrams may be on their way. */
const MAX_WAITING = 4096;

/** The way out. */
export class Egress {
  readonly #rules: readonly ReplyRule[];
  readonly #random: RandomSource;
  readonly #deliver: (datagram: Outgoing) => void;
  readonly #waiting = new Map<number, Outgoing & { readonly at: Instant }>();
  readonly #due = new Timers<number>();
  #lastId = 0;
  #sent = 0;
  #lost = 0;
  #overflowed = 0;
  /** What happens to datagrams from now on. */
  disturbance: Disturbance = UNDISTURBED;

  /** @param deliver Is called for each datagram when it leaves. */
  constructor(
    rules: readonly ReplyRule[],
    random: RandomSource,
    deliver: (datagram: Outgoing) => void,
  ) {
    this.#rules = rules;
    this.#random = random;
    this.#deliver = deliver;
  }

  /** What became of the datagrams. */
  get stats(): { sent: number; lost: number; overflowed: number; waiting: number } {
    return {
      sent: this.#sent,
      lost: this.#lost,
      overflowed: this.#overflowed,
      waiting: this.#waiting.size,
    };
  }

  /** Sends what a server said; where it answers the exchange's request, as that one wants it. */
  send(to: Endpoint, data: Uint8Array, exchange: Exchange | undefined, now: Instant): void {
    const reply = exchange && isSameEndpoint(to, exchange.from) ? exchange : undefined;
    let bytes = reshapeReply(data, reply?.request, this.#rules);
    if (reply && reply.changes.length > 0) {
      bytes = reshapeReply(bytes, reply.request, [{ when: {}, then: reply.changes }]);
    }
    this.sendAsIs(to, bytes, now, reply?.delayMs);
  }

  /** Sends past the rules, `extraDelayMs` later than the disturbance says. */
  sendAsIs(
    to: Endpoint,
    data: Uint8Array,
    now: Instant,
    extraDelayMs: number = 0,
    socket: string = "server",
  ): void {
    const { wrongSource, duplicate, lossRate, reorderMs, delayMs } = this.disturbance;
    const datagram: Outgoing = { socket: wrongSource ? "other" : socket, to, data };
    for (let copies = duplicate ? 2 : 1; copies > 0; copies--) {
      if (lossRate > 0 && uniform(this.#random, 0, 1) < lossRate) {
        this.#lost++;
        continue;
      }
      const spread = reorderMs > 0 ? uniform(this.#random, 0, reorderMs) : 0;
      this.#leaveAt(datagram, now + delayMs + extraDelayMs + spread, now);
    }
  }

  /** Lets leave what is due, in order; of those due together the one sent first. */
  handleTimeout(now: Instant): void {
    const ids = this.#due.takeDue(now).sort((a, b) =>
      this.#waiting.get(a)!.at - this.#waiting.get(b)!.at || a - b
    );
    for (const id of ids) {
      const { socket, to, data } = this.#waiting.get(id)!;
      this.#waiting.delete(id);
      this.#leave({ socket, to, data });
    }
  }

  /** When the next one leaves. */
  nextAt(): Instant | undefined {
    return this.#due.nextAt();
  }

  /** {@linkcode Egress.nextAt} with its reason. */
  next(): DebugTimeout | undefined {
    return earliest(this.#due.next());
  }

  /** Forgets what is on its way. */
  clear(): void {
    this.#waiting.clear();
    this.#due.clear();
  }

  #leaveAt(datagram: Outgoing, at: Instant, now: Instant): void {
    if (at <= now) return this.#leave(datagram);
    if (this.#waiting.size >= MAX_WAITING) {
      this.#overflowed++;
      return;
    }
    const id = ++this.#lastId;
    this.#waiting.set(id, { ...datagram, at });
    this.#due.set(id, at, "send a delayed reply");
  }

  #leave(datagram: Outgoing): void {
    this.#sent++;
    this.#deliver(datagram);
  }
}
