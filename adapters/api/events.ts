/**
 * A stream of events that any number of readers iterate. Nothing is missed from the moment the
 * stream is made: what nobody has read yet waits for the first reader, and later ones begin with
 * what happens next.
 *
 * A slow reader costs bounded memory: where more waits than {@linkcode MAX_WAITING}, the newest two
 * are merged, so that it always learns the last state. After the end a reader gets the last event,
 * and then the end.
 *
 * @module
 */
import { callBack } from "../callback.ts";

/** So many events may wait for a reader. */
const MAX_WAITING = 64;

interface Listener<E> {
  readonly onEvent: (event: E) => void;
  readonly onEnd: () => void;
}

/** Where events are put, and from where readers take them. */
export class EventStream<E> {
  readonly #merge: (older: E, newer: E) => E;
  readonly #readers: Set<Reader<E>> = new Set();
  readonly #listeners: Set<Listener<E>> = new Set();
  /** What happened before the first reader came. */
  #unread: E[] = [];
  #hasReader = false;
  #last: E | undefined;
  #isEnded = false;

  /** @param merge One event of two, where too many wait. */
  constructor(merge: (older: E, newer: E) => E) {
    this.#merge = merge;
  }

  /** Gives an event to every reader. */
  push(event: E): void {
    this.#last = event;
    if (!this.#hasReader) append(this.#unread, event, this.#merge);
    for (const reader of this.#readers) reader.push(event, this.#merge);
    for (const { onEvent } of [...this.#listeners]) callBack(() => onEvent(event));
  }

  /** Calls back with each event from here on, and at the end. Returns what ends that. */
  listen(onEvent: (event: E) => void, onEnd: () => void = () => {}): () => void {
    const listener = { onEvent, onEnd };
    if (!this.#isEnded) this.#listeners.add(listener);
    return () => void this.#listeners.delete(listener);
  }

  /** Ends every reader's iteration once it has taken what waits. */
  end(): void {
    this.#isEnded = true;
    for (const reader of this.#readers) reader.end();
    this.#readers.clear();
    const listeners = [...this.#listeners];
    this.#listeners.clear();
    for (const { onEnd } of listeners) onEnd();
  }

  /**
   * A reader; the first one begins with what has happened so far.
   *
   * @param begins With what later ones begin, where that is to be more than the end.
   */
  read(begins?: E): AsyncIterableIterator<E> {
    const first = this.#isEnded ? this.#last : begins;
    const reader = new Reader<E>(
      this.#hasReader && first !== undefined ? [first] : this.#unread,
      (self) => this.#readers.delete(self),
    );
    this.#unread = [];
    this.#hasReader = true;
    if (this.#isEnded) reader.end();
    else this.#readers.add(reader);
    return reader;
  }
}

function append<E>(events: E[], event: E, merge: (older: E, newer: E) => E): void {
  if (events.length < MAX_WAITING) events.push(event);
  else events.push(merge(events.pop()!, event));
}

class Reader<E> implements AsyncIterableIterator<E> {
  readonly #onReturn: (self: Reader<E>) => void;
  readonly #waiting: E[];
  #isEnded = false;
  readonly #takers: ((result: IteratorResult<E>) => void)[] = [];

  constructor(waiting: E[], onReturn: (self: Reader<E>) => void) {
    this.#waiting = waiting;
    this.#onReturn = onReturn;
  }

  push(event: E, merge: (older: E, newer: E) => E): void {
    const taker = this.#takers.shift();
    if (taker) taker({ done: false, value: event });
    else append(this.#waiting, event, merge);
  }

  end(): void {
    this.#isEnded = true;
    for (const taker of this.#takers) taker({ done: true, value: undefined });
  }

  next(): Promise<IteratorResult<E>> {
    if (this.#waiting.length > 0) {
      return Promise.resolve({ done: false, value: this.#waiting.shift()! });
    }
    if (this.#isEnded) return Promise.resolve({ done: true, value: undefined });
    return new Promise((resolve) => this.#takers.push(resolve));
  }

  return(): Promise<IteratorResult<E>> {
    this.#waiting.length = 0;
    this.#onReturn(this);
    this.end();
    return Promise.resolve({ done: true, value: undefined });
  }

  [Symbol.asyncIterator](): AsyncIterableIterator<E> {
    return this;
  }
}

/** An iterator of what `convert` makes of another one's values; undefined is left out. */
export function convertEvents<E, R>(
  events: AsyncIterableIterator<E>,
  convert: (event: E) => R | undefined,
): AsyncIterableIterator<R> {
  // Not a generator: its `return()` would wait for a `next()` that nothing may ever answer.
  return {
    async next() {
      for (;;) {
        const { done, value } = await events.next();
        if (done) return { done, value };
        const converted = convert(value);
        if (converted !== undefined) return { done: false, value: converted };
      }
    },
    async return() {
      await events.return!();
      return { done: true, value: undefined };
    },
    [Symbol.asyncIterator]() {
      return this;
    },
  };
}
