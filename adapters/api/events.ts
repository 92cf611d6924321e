/**
 * A stream of events that any number of readers iterate, each from when it began.
 *
 * A slow reader costs bounded memory: two events that wait for the same reader are merged, so that
 * it always learns the last state.
 *
 * @module
 */

/** Where events are put, and from where readers take them. */
export class EventStream<E> {
  readonly #merge: (older: E, newer: E) => E;
  readonly #readers: Set<Reader<E>> = new Set();
  #isEnded = false;

  /** @param merge One event of two that a reader has not taken yet. */
  constructor(merge: (older: E, newer: E) => E) {
    this.#merge = merge;
  }

  /** Gives an event to every reader. */
  push(event: E): void {
    for (const reader of this.#readers) reader.push(event, this.#merge);
  }

  /** Ends every reader's iteration once it has taken what waits. */
  end(): void {
    this.#isEnded = true;
    for (const reader of this.#readers) reader.end();
    this.#readers.clear();
  }

  /** A reader of the events from here on. */
  read(): AsyncIterableIterator<E> {
    const reader = new Reader<E>((self) => this.#readers.delete(self));
    if (this.#isEnded) reader.end();
    else this.#readers.add(reader);
    return reader;
  }
}

class Reader<E> implements AsyncIterableIterator<E> {
  readonly #onReturn: (self: Reader<E>) => void;
  #waiting: E | undefined;
  #isEnded = false;
  #takers: ((result: IteratorResult<E>) => void)[] = [];

  constructor(onReturn: (self: Reader<E>) => void) {
    this.#onReturn = onReturn;
  }

  push(event: E, merge: (older: E, newer: E) => E): void {
    const taker = this.#takers.shift();
    if (taker) taker({ done: false, value: event });
    else this.#waiting = this.#waiting === undefined ? event : merge(this.#waiting, event);
  }

  end(): void {
    this.#isEnded = true;
    for (const taker of this.#takers) taker({ done: true, value: undefined });
    this.#takers = [];
  }

  next(): Promise<IteratorResult<E>> {
    const value = this.#waiting;
    if (value !== undefined) {
      this.#waiting = undefined;
      return Promise.resolve({ done: false, value });
    }
    if (this.#isEnded) return Promise.resolve({ done: true, value: undefined });
    return new Promise((resolve) => this.#takers.push(resolve));
  }

  return(): Promise<IteratorResult<E>> {
    this.#waiting = undefined;
    this.#onReturn(this);
    this.end();
    return Promise.resolve({ done: true, value: undefined });
  }

  [Symbol.asyncIterator](): AsyncIterableIterator<E> {
    return this;
  }
}
