/**
 * What a link does to packets: delay, jitter, loss, duplication, reordering, MTU.
 *
 * Jitter alone keeps the order (a queue on the way varies, but packets do not overtake each
 * other); only what `reorder` picks is held back and overtaken.
 *
 * @module
 */
import { checkInteger } from "../check.ts";
import type { Instant } from "../machine.ts";
import { type RandomSource, uniform } from "../random.ts";

/** The conditions on a link; everything is optional and harmless by default. */
export interface LinkOptions {
  /** One-way delay, milliseconds. Default 1. */
  readonly delayMs?: number;
  /** A uniform addition up to this, milliseconds. Default 0. */
  readonly jitterMs?: number;
  /** The share of packets lost, 0…1. Default 0. */
  readonly loss?: number;
  /** The share of packets that arrive twice, 0…1. Default 0. */
  readonly duplicate?: number;
  /** The share of packets held back so that later ones overtake them, 0…1. Default 0. */
  readonly reorder?: number;
  /** The most by which a packet is held back, milliseconds. Default 4 × (delay + jitter) + 1. */
  readonly reorderMs?: number;
  /** The largest packet with IP header, bytes; larger ones vanish. Default 1500. */
  readonly mtu?: number;
}

const KNOWN = ["delayMs", "jitterMs", "loss", "duplicate", "reorder", "reorderMs", "mtu"] as const;

function checkAmount(name: string, value: unknown, high: number): number {
  if (typeof value !== "number" || !(value >= 0 && value <= high)) {
    throw new RangeError(`'${name}' must be a number in 0..${high}: current value is ${value}`);
  }
  return value;
}

/**
 * One link with its conditions, which may change during a run.
 */
export class Link {
  #conditions: Required<LinkOptions>;
  #lastArrival: Instant = -Infinity;
  /** Packets offered, lost and doubled. */
  readonly stats = { offered: 0, lost: 0, duplicated: 0, reordered: 0, tooBig: 0 };

  /**
   * Makes the link.
   *
   * @throws {RangeError} Where a condition is out of range.
   */
  constructor(options: LinkOptions = {}) {
    const { delayMs = 1, jitterMs = 0 } = options;
    this.#conditions = {
      delayMs,
      jitterMs,
      loss: 0,
      duplicate: 0,
      reorder: 0,
      reorderMs: 4 * (delayMs + jitterMs) + 1,
      mtu: 1500,
    };
    this.set(options);
  }

  /** The conditions in force. */
  get conditions(): Required<LinkOptions> {
    return this.#conditions;
  }

  /**
   * Changes the conditions named; the others stay.
   *
   * @throws {RangeError} Where a condition is out of range.
   */
  set(options: LinkOptions): void {
    const next = { ...this.#conditions };
    for (const name of KNOWN) {
      const value = options[name];
      if (value === undefined) continue;
      if (name === "mtu") next.mtu = checkInteger(name, value, 0, 65535);
      else next[name] = checkAmount(name, value, name.endsWith("Ms") ? 1e9 : 1);
    }
    this.#conditions = next;
  }

  /**
   * Decides a packet's fate: writes when its copies arrive to `arrivals` and returns their number,
   * 0 where it is lost, −1 where it is larger than the MTU.
   */
  cross(size: number, now: Instant, random: RandomSource, arrivals: Instant[]): number {
    const link = this.#conditions;
    this.stats.offered++;
    if (size > link.mtu) {
      this.stats.tooBig++;
      return -1;
    }
    if (link.loss > 0 && uniform(random, 0, 1) < link.loss) {
      this.stats.lost++;
      return 0;
    }
    arrivals[0] = this.#arrival(now, random);
    if (link.duplicate > 0 && uniform(random, 0, 1) < link.duplicate) {
      this.stats.duplicated++;
      arrivals[1] = this.#arrival(now, random);
      return 2;
    }
    return 1;
  }

  #arrival(now: Instant, random: RandomSource): Instant {
    const link = this.#conditions;
    let at = now + link.delayMs;
    if (link.jitterMs > 0) at += uniform(random, 0, link.jitterMs);
    if (link.reorder > 0 && uniform(random, 0, 1) < link.reorder) {
      this.stats.reordered++;
      return at + uniform(random, 0, link.reorderMs);
    }
    if (at < this.#lastArrival && link.jitterMs > 0) at = this.#lastArrival;
    this.#lastArrival = at;
    return at;
  }
}
