/**
 * The event queue of a simulation: a binary heap ordered by (time, sequence), so that what was put
 * in first comes out first among equals and a run depends on nothing but its seed.
 *
 * @module
 */
import type { Instant } from "../machine.ts";

interface Entry<T> {
  readonly at: Instant;
  readonly sequence: number;
  readonly item: T;
}

function isBefore<T>(a: Entry<T>, b: Entry<T>): boolean {
  return a.at < b.at || (a.at === b.at && a.sequence < b.sequence);
}

/**
 * Items by time; equal times come out in the order in which they went in.
 */
export class EventQueue<T> {
  #heap: Entry<T>[] = [];
  #sequence = 0;

  /** How many items wait. */
  get size(): number {
    return this.#heap.length;
  }

  /** When the earliest item is due, or undefined. */
  nextAt(): Instant | undefined {
    return this.#heap[0]?.at;
  }

  /** Puts an item in. */
  push(at: Instant, item: T): void {
    const heap = this.#heap;
    const entry: Entry<T> = { at, sequence: this.#sequence++, item };
    let place = heap.length;
    heap.push(entry);
    while (place > 0) {
      const parent = (place - 1) >> 1;
      if (!isBefore(entry, heap[parent]!)) break;
      heap[place] = heap[parent]!;
      place = parent;
    }
    heap[place] = entry;
  }

  /** Takes the earliest item out. */
  pop(): T | undefined {
    const heap = this.#heap;
    const first = heap[0];
    if (!first) return undefined;
    const last = heap.pop()!;
    if (last === first) return first.item;
    let place = 0;
    for (;;) {
      let child = 2 * place + 1;
      if (child >= heap.length) break;
      if (child + 1 < heap.length && isBefore(heap[child + 1]!, heap[child]!)) child++;
      if (!isBefore(heap[child]!, last)) break;
      heap[place] = heap[child]!;
      place = child;
    }
    heap[place] = last;
    return first.item;
  }
}
