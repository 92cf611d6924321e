/**
 * Many deadlines, the next one first: a binary heap of things that know where they stand, so that
 * setting, moving and cancelling cost O(log n) and looking costs O(1); and the same by keys.
 *
 * @module
 */
import type { DebugTimeout, Instant } from "./machine.ts";

const IDLE = -1;
/** So many idle keys, and as many as there are deadlines, may stay known. */
const MAX_IDLE = 64;

/** What has a deadline in a {@linkcode DeadlineHeap}, which alone changes these fields. */
export class Deadline {
  /** When it is due, where it stands in a heap. */
  armedAt: Instant = 0;
  /** Where it stands in the heap, or `IDLE`. */
  heapPlace: number = IDLE;
}

/** Things by their deadlines. */
export class DeadlineHeap<D extends Deadline> {
  readonly #heap: D[] = [];

  /** How many there are. */
  get size(): number {
    return this.#heap.length;
  }

  /** The one that is due first. */
  get first(): D | undefined {
    return this.#heap[0];
  }

  /** Sets or moves a deadline. */
  set(deadline: D, at: Instant): void {
    deadline.armedAt = at;
    if (deadline.heapPlace === IDLE) {
      deadline.heapPlace = this.#heap.length;
      this.#heap.push(deadline);
    }
    this.#settle(deadline);
  }

  /** Cancels a deadline, if it is set. */
  delete(deadline: D): void {
    if (deadline.heapPlace === IDLE) return;
    const last = this.#heap.pop()!;
    if (last !== deadline) {
      last.heapPlace = deadline.heapPlace;
      this.#heap[last.heapPlace] = last;
      this.#settle(last);
    }
    deadline.heapPlace = IDLE;
  }

  /** Takes out the one that is due first, where that is at `now` or before. */
  popDue(now: Instant): D | undefined {
    const [first] = this.#heap;
    if (!first || first.armedAt > now) return undefined;
    this.delete(first);
    return first;
  }

  #settle(deadline: D): void {
    const heap = this.#heap;
    let place = deadline.heapPlace;
    while (place > 0) {
      const parent = heap[(place - 1) >> 1]!;
      if (parent.armedAt <= deadline.armedAt) break;
      heap[place] = parent;
      parent.heapPlace = place;
      place = (place - 1) >> 1;
    }
    for (;;) {
      let child = 2 * place + 1;
      if (child >= heap.length) break;
      if (child + 1 < heap.length && heap[child + 1]!.armedAt < heap[child]!.armedAt) child++;
      const smaller = heap[child]!;
      if (smaller.armedAt >= deadline.armedAt) break;
      heap[place] = smaller;
      smaller.heapPlace = place;
      place = child;
    }
    heap[place] = deadline;
    deadline.heapPlace = place;
  }
}

class Keyed<K> extends Deadline {
  readonly key: K;
  reason = "";

  constructor(key: K) {
    super();
    this.key = key;
  }
}

/**
 * Deadlines by key; each key has one.
 *
 * A key whose deadline is over stays known for a while, out of the heap: a timer is mostly set
 * again, and V8's maps keep what was deleted in the bucket until they are rehashed, so that a key
 * deleted and set over and over beside many others would cost O(n).
 */
export class Timers<K> {
  #heap = new DeadlineHeap<Keyed<K>>();
  #entries = new Map<K, Keyed<K>>();

  /** How many deadlines are set. */
  get size(): number {
    return this.#heap.size;
  }

  /** Sets or moves the deadline of `key`. Keep `reason` a constant: it is stored for each key. */
  set(key: K, at: Instant, reason: string): void {
    let entry = this.#entries.get(key);
    if (!entry) {
      entry = new Keyed(key);
      this.#entries.set(key, entry);
    }
    entry.reason = reason;
    this.#heap.set(entry, at);
  }

  /** Cancels the deadline of `key`, if it has one. */
  delete(key: K): void {
    const entry = this.#entries.get(key);
    if (!entry || entry.heapPlace === IDLE) return;
    this.#heap.delete(entry);
    if (this.#entries.size > 2 * this.#heap.size + MAX_IDLE) this.#forgetIdle();
  }

  /** Cancels all. */
  clear(): void {
    this.#heap = new DeadlineHeap();
    this.#entries.clear();
  }

  /** When `key` is due, or undefined. */
  at(key: K): Instant | undefined {
    const entry = this.#entries.get(key);
    return entry && entry.heapPlace !== IDLE ? entry.armedAt : undefined;
  }

  /** The earliest deadline. */
  nextAt(): Instant | undefined {
    return this.#heap.first?.armedAt;
  }

  /** The earliest deadline with its reason. */
  next(): (DebugTimeout & { readonly key: K }) | undefined {
    const { first } = this.#heap;
    return first && { key: first.key, at: first.armedAt, reason: first.reason };
  }

  /** Removes and returns the key of the earliest deadline that is due at `now`. */
  popDue(now: Instant): K | undefined {
    const { first } = this.#heap;
    if (!first || first.armedAt > now) return undefined;
    this.delete(first.key);
    return first.key;
  }

  /** Removes and returns the keys of all that are due at `now`, before any of them is acted on. */
  takeDue(now: Instant): K[] {
    const keys: K[] = [];
    for (let key = this.popDue(now); key !== undefined; key = this.popDue(now)) keys.push(key);
    return keys;
  }

  #forgetIdle(): void {
    for (const [key, { heapPlace }] of this.#entries) {
      if (heapPlace === IDLE) this.#entries.delete(key);
    }
  }
}

/** Of several deadlines the one that is due first, of two at one time the one that stands first. */
export function earliest(
  ...deadlines: readonly (DebugTimeout | undefined)[]
): DebugTimeout | undefined {
  let first: DebugTimeout | undefined;
  for (const one of deadlines) if (one && !(first && first.at <= one.at)) first = one;
  // What has a key to its table keeps that to itself.
  return first && { at: first.at, reason: first.reason };
}
