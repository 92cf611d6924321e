/**
 * A machine's output queue: rules 1, 3 and 5 of the contract in one place.
 *
 * Output that belongs to a key (a mapping) is coalesced: a newer datagram under the same key
 * takes the place of the older one, a newer event is merged into it. So the queue holds at most
 * two entries a key, however long nobody drains it. Output without a key is bounded by `limit`;
 * past that it is dropped and counted.
 *
 * @module
 */
import type {
  Action,
  Endpoint,
  Instant,
  RequestAction,
  RespondAction,
  StreamAction,
} from "./machine.ts";

interface Slot<E> {
  readonly key: string | undefined;
  action: Action<E>;
}

/** The output queue of one machine. */
export class Outbox<E> {
  #slots: (Slot<E> | undefined)[] = [];
  #head = 0;
  #byKey = new Map<string, Slot<E>>();
  #lastNow: Instant = 0;
  #merge: (older: E, newer: E) => E;
  #limit: number;
  /** Keyless output dropped because nobody drained the queue. */
  overflowed = 0;

  /**
   * Makes an empty queue.
   *
   * @param merge Makes one event of two that belong to the same key; by default the newer one.
   * @param limit How many entries may wait, before output without a key is dropped.
   */
  constructor(merge: (older: E, newer: E) => E = (_, newer) => newer, limit: number = 4096) {
    this.#merge = merge;
    this.#limit = limit;
  }

  /** How many actions wait. */
  get size(): number {
    return this.#slots.length - this.#head;
  }

  /** Records `now`; call it first in every `handle*` and command. */
  touch(now: Instant): void {
    this.#lastNow = now;
  }

  /** The last `now` while output waits, else undefined (rule 3). */
  wakeAt(): Instant | undefined {
    return this.size > 0 ? this.#lastNow : undefined;
  }

  /** Queues a datagram; under a `key` it takes the place of one still waiting there. */
  send(socket: string, to: Endpoint, data: Uint8Array, key?: string | number): void {
    const action: Action<E> = { type: "send", socket, to, data };
    if (key === undefined) return this.#append(undefined, action);
    const name = `s${key}`;
    const waiting = this.#byKey.get(name);
    if (waiting) waiting.action = action;
    else this.#append(name, action);
  }

  /** Queues an HTTP or stream action. None is dropped: each has an id, which bounds them. */
  act(action: RequestAction | RespondAction | StreamAction): void {
    this.#slots.push({ key: undefined, action });
  }

  /** Takes back a datagram that waits under `key`; false where none does: it has left. */
  unsend(key: string | number): boolean {
    return this.#takeBack(`s${key}`);
  }

  /** Queues an event; under a `key` it is merged with one still waiting there. */
  emit(event: E, key?: string | number): void {
    if (key === undefined) return this.#append(undefined, { type: "event", event });
    const name = `e${key}`;
    const waiting = this.#byKey.get(name);
    if (waiting?.action.type === "event") {
      waiting.action = { type: "event", event: this.#merge(waiting.action.event, event) };
    } else {
      this.#append(name, { type: "event", event });
    }
  }

  /** Takes back an event that waits under `key`. */
  unemit(key: string | number): void {
    this.#takeBack(`e${key}`);
  }

  /** The event that waits under `key`: nobody has heard of it. */
  pendingEvent(key: string | number): E | undefined {
    const action = this.#byKey.get(`e${key}`)?.action;
    return action?.type === "event" ? action.event : undefined;
  }

  /** The oldest action, or undefined. */
  poll(): Action<E> | undefined {
    const slot = this.#slots[this.#head];
    if (!slot) return undefined;
    this.#slots[this.#head++] = undefined;
    if (slot.key !== undefined) this.#byKey.delete(slot.key);
    this.#skipGaps();
    return slot.action;
  }

  #takeBack(name: string): boolean {
    const waiting = this.#byKey.get(name);
    if (!waiting) return false;
    this.#byKey.delete(name);
    this.#slots[this.#slots.indexOf(waiting, this.#head)] = undefined;
    this.#skipGaps();
    return true;
  }

  #append(key: string | undefined, action: Action<E>): void {
    if (key === undefined && this.size >= this.#limit) {
      this.overflowed++;
      return;
    }
    const slot: Slot<E> = { key, action };
    this.#slots.push(slot);
    if (key !== undefined) this.#byKey.set(key, slot);
  }

  #skipGaps(): void {
    while (this.#head < this.#slots.length && this.#slots[this.#head] === undefined) this.#head++;
    // Cutting an array costs more than an action: not for each one.
    if (this.#head < 64) return;
    if (this.#head === this.#slots.length) {
      this.#slots.length = 0;
      this.#head = 0;
    } else if (this.#head * 2 > this.#slots.length) {
      this.#slots.splice(0, this.#head);
      this.#head = 0;
    }
  }
}
