/**
 * Many deadlines, the next one first: a binary heap that knows where each key stands, so that
 * setting, moving and cancelling cost O(log n) and looking costs O(1).
 *
 * A key whose deadline is over stays known for a while, out of the heap: a timer is mostly set
 * again, and V8's maps keep what was deleted in the bucket until they are rehashed, so that a key
 * deleted and set over and over beside many others would cost O(n).
 *
 * @module
 */
import type { DebugTimeout, Instant } from "./machine.ts";

interface Entry<K> {
  readonly key: K;
  at: Instant;
  reason: string;
  /** Where it stands in the heap, or `IDLE`. */
  place: number;
}

const IDLE = -1;
/** So many idle keys, and as many as there are deadlines, may stay known. */
const MAX_IDLE = 64;

/**
 * Deadlines by key; each key has one.
 */
export class Timers<K> {
  #heap: Entry<K>[] = [];
  #entries = new Map<K, Entry<K>>();

  /** How many deadlines are set. */
  get size(): number {
    return this.#heap.length;
  }

  /** Sets or moves the deadline of `key`. Keep `reason` a constant: it is stored for each key. */
  set(key: K, at: Instant, reason: string): void {
    let entry = this.#entries.get(key);
    if (entry) {
      entry.at = at;
      entry.reason = reason;
    } else {
      entry = { key, at, reason, place: IDLE };
      this.#entries.set(key, entry);
    }
    if (entry.place === IDLE) {
      entry.place = this.#heap.length;
      this.#heap.push(entry);
    }
    this.#settle(entry);
  }

  /** Cancels the deadline of `key`, if it has one. */
  delete(key: K): void {
    const entry = this.#entries.get(key);
    if (!entry || entry.place === IDLE) return;
    const last = this.#heap.pop()!;
    if (last !== entry) {
      last.place = entry.place;
      this.#heap[last.place] = last;
      this.#settle(last);
    }
    entry.place = IDLE;
    if (this.#entries.size > 2 * this.#heap.length + MAX_IDLE) this.#forgetIdle();
  }

  /** Cancels all. */
  clear(): void {
    this.#heap.length = 0;
    this.#entries.clear();
  }

  /** When `key` is due, or undefined. */
  at(key: K): Instant | undefined {
    const entry = this.#entries.get(key);
    return entry && entry.place !== IDLE ? entry.at : undefined;
  }

  /** The earliest deadline. */
  nextAt(): Instant | undefined {
    return this.#heap[0]?.at;
  }

  /** The key of the earliest deadline. */
  nextKey(): K | undefined {
    return this.#heap[0]?.key;
  }

  /** The earliest deadline with its reason. */
  next(): (DebugTimeout & { readonly key: K }) | undefined {
    const first = this.#heap[0];
    return first && { key: first.key, at: first.at, reason: first.reason };
  }

  /** Removes and returns the key of the earliest deadline that is due at `now`. */
  popDue(now: Instant): K | undefined {
    const first = this.#heap[0];
    if (!first || first.at > now) return undefined;
    this.delete(first.key);
    return first.key;
  }

  #forgetIdle(): void {
    for (const [key, { place }] of this.#entries) if (place === IDLE) this.#entries.delete(key);
  }

  #settle(entry: Entry<K>): void {
    const heap = this.#heap;
    let place = entry.place;
    while (place > 0) {
      const parent = heap[(place - 1) >> 1]!;
      if (parent.at <= entry.at) break;
      heap[place] = parent;
      parent.place = place;
      place = (place - 1) >> 1;
    }
    for (;;) {
      let child = 2 * place + 1;
      if (child >= heap.length) break;
      if (child + 1 < heap.length && heap[child + 1]!.at < heap[child]!.at) child++;
      const smaller = heap[child]!;
      if (smaller.at >= entry.at) break;
      heap[place] = smaller;
      smaller.place = place;
      place = child;
    }
    heap[place] = entry;
    entry.place = place;
  }
}
