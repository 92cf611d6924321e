/**
 * What happens to a gateway's datagrams on their way to the client: lost, late, overtaking each
 * other, doubled, from a wrong source. The queue is bounded: where it is full, a datagram is lost
 * and counted, as a router's own queue would have it.
 *
 * @module
 */
import type { DebugTimeout, Endpoint, Instant, SocketRole } from "../machine.ts";
import { type RandomSource, uniform } from "../random.ts";
import { Timers } from "../timers.ts";

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

/** A datagram on its way. */
export interface Outgoing {
  /** The socket it leaves by. */
  readonly socket: SocketRole;
  /** Where to. */
  readonly to: Endpoint;
  /** The bytes. */
  readonly data: Uint8Array;
}

/** The datagrams that have not left yet. */
export class ReplyQueue {
  #random: RandomSource;
  #limit: number;
  #deliver: (datagram: Outgoing) => void;
  #waiting = new Map<number, Outgoing & { readonly at: Instant }>();
  #due = new Timers<number>();
  #lastId = 0;
  /** Datagrams lost on purpose. */
  lost = 0;
  /** Datagrams lost because the queue was full. */
  overflowed = 0;

  /**
   * @param deliver Is called for each datagram when it leaves, out of `push` or `handleTimeout`.
   * @param limit How many may be on their way.
   */
  constructor(random: RandomSource, deliver: (datagram: Outgoing) => void, limit: number = 4096) {
    this.#random = random;
    this.#deliver = deliver;
    this.#limit = limit;
  }

  /** How many are on their way. */
  get size(): number {
    return this.#waiting.size;
  }

  /** Sends a datagram through the disturbance, `extraDelayMs` later than it says. */
  push(datagram: Outgoing, how: Disturbance, extraDelayMs: number, now: Instant): void {
    const socket = how.wrongSource ? "other" : datagram.socket;
    const changed = socket === datagram.socket ? datagram : { ...datagram, socket };
    for (let copies = how.duplicate ? 2 : 1; copies > 0; copies--) {
      if (how.lossRate > 0 && uniform(this.#random, 0, 1) < how.lossRate) {
        this.lost++;
        continue;
      }
      const spread = how.reorderMs > 0 ? uniform(this.#random, 0, how.reorderMs) : 0;
      this.#leaveAt(changed, now + how.delayMs + extraDelayMs + spread, now);
    }
  }

  #leaveAt(datagram: Outgoing, at: Instant, now: Instant): void {
    if (at <= now) return this.#deliver(datagram);
    if (this.#waiting.size >= this.#limit) {
      this.overflowed++;
      return;
    }
    const id = ++this.#lastId;
    this.#waiting.set(id, { ...datagram, at });
    this.#due.set(id, at, "send a delayed reply");
  }

  /** Lets leave what is due, in order; of those due together the one pushed first. */
  handleTimeout(now: Instant): void {
    const ids: number[] = [];
    for (let id = this.#due.popDue(now); id !== undefined; id = this.#due.popDue(now)) ids.push(id);
    ids.sort((a, b) => this.#waiting.get(a)!.at - this.#waiting.get(b)!.at || a - b);
    for (const id of ids) {
      const { socket, to, data } = this.#waiting.get(id)!;
      this.#waiting.delete(id);
      this.#deliver({ socket, to, data });
    }
  }

  /** When the next one leaves, with the reason. */
  next(): DebugTimeout | undefined {
    const next = this.#due.next();
    return next && { at: next.at, reason: next.reason };
  }

  /** Forgets what is on its way. */
  clear(): void {
    this.#waiting.clear();
    this.#due.clear();
  }
}
