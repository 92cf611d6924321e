/**
 * The way out of a simulated gateway: the profile's reply rules, then the disturbances, then the
 * queue in which a datagram may wait.
 *
 * @module
 */
import type { DebugTimeout, Endpoint, Instant } from "../machine.ts";
import type { RandomSource } from "../random.ts";
import { type Disturbance, type Outgoing, ReplyQueue, UNDISTURBED } from "./reply_queue.ts";
import { type ReplyChange, type ReplyRule, reshapeReply } from "./reshape.ts";

/** What is known about a reply while its request is served. */
export interface Exchange {
  /** The request. */
  readonly request: Uint8Array;
  /** Who asked. */
  readonly from: Endpoint;
  /** The reply is this late, milliseconds. */
  readonly delayMs: number;
  /** What becomes of the reply after the rules. */
  readonly changes: readonly ReplyChange[];
}

/** The way out. */
export class Outlet {
  readonly #rules: readonly ReplyRule[];
  readonly #queue: ReplyQueue;
  #sent = 0;
  /** What happens to datagrams from now on. */
  disturbance: Disturbance = UNDISTURBED;

  /** @param deliver Is called for each datagram when it leaves. */
  constructor(
    rules: readonly ReplyRule[],
    random: RandomSource,
    deliver: (datagram: Outgoing) => void,
  ) {
    this.#rules = rules;
    this.#queue = new ReplyQueue(random, (datagram) => {
      this.#sent++;
      deliver(datagram);
    });
  }

  /** What became of the datagrams. */
  get stats(): { sent: number; lost: number; overflowed: number; waiting: number } {
    const { lost, overflowed, size: waiting } = this.#queue;
    return { sent: this.#sent, lost, overflowed, waiting };
  }

  /** Sends what a server said; where it answers the exchange's request, as that one wants it. */
  send(to: Endpoint, data: Uint8Array, exchange: Exchange | undefined, now: Instant): void {
    const reply = exchange && to.port === exchange.from.port && to.address === exchange.from.address
      ? exchange
      : undefined;
    let bytes = reshapeReply(data, reply?.request, this.#rules);
    if (reply && reply.changes.length > 0) {
      bytes = reshapeReply(bytes, reply.request, [{ when: {}, then: reply.changes }]);
    }
    this.sendAsIs(to, bytes, now, reply?.delayMs);
  }

  /** Sends past the rules. */
  sendAsIs(to: Endpoint, data: Uint8Array, now: Instant, delayMs: number = 0): void {
    this.#queue.push({ socket: "server", to, data }, this.disturbance, delayMs, now);
  }

  /** Lets leave what is due. */
  handleTimeout(now: Instant): void {
    this.#queue.handleTimeout(now);
  }

  /** When the next one leaves. */
  next(): DebugTimeout | undefined {
    return this.#queue.next();
  }

  /** Forgets what is on its way. */
  clear(): void {
    this.#queue.clear();
  }
}
