/**
 * A small machine to run drivers with: it sends pings to a peer, again every 200 ms, and tells
 * pongs, silence and ICMP errors.
 */
import type { DebugTimeout, Endpoint, Instant, Machine } from "../../core/machine.ts";
import { Outbox } from "../../core/outbox.ts";
import { Timers } from "../../core/timers.ts";

export type PingEvent =
  | { readonly type: "pong"; readonly id: number; readonly sent: number }
  | { readonly type: "silence"; readonly id: number }
  | { readonly type: "unreachable"; readonly port: number };

export const PING_INTERVAL_MS = 200;

export class PingMachine implements Machine<PingEvent> {
  readonly stats = { timeouts: 0, foreign: 0 };
  readonly #peer: Endpoint;
  readonly #maxSent: number;
  readonly #outbox = new Outbox<PingEvent>();
  readonly #timers = new Timers<number>();
  readonly #sent = new Map<number, number>();

  constructor(peer: Endpoint, maxSent: number = 5) {
    this.#peer = peer;
    this.#maxSent = maxSent;
  }

  ping(id: number, now: Instant): void {
    this.#outbox.touch(now);
    this.#send(id, now);
  }

  handleDatagram(data: Uint8Array, from: Endpoint, _socket: string, now: Instant): boolean {
    this.#outbox.touch(now);
    const id = data[0]!;
    const sent = this.#sent.get(id);
    if (from.port !== this.#peer.port || sent === undefined) {
      this.stats.foreign++;
      return false;
    }
    this.#forget(id);
    this.#outbox.emit({ type: "pong", id, sent });
    return true;
  }

  handleUnreachable(to: Endpoint, _socket: string, now: Instant): void {
    this.#outbox.touch(now);
    for (const id of [...this.#sent.keys()]) this.#forget(id);
    this.#outbox.emit({ type: "unreachable", port: to.port });
  }

  handleTimeout(now: Instant): void {
    this.stats.timeouts++;
    this.#outbox.touch(now);
    for (let id = this.#timers.popDue(now); id !== undefined; id = this.#timers.popDue(now)) {
      if (this.#sent.get(id)! < this.#maxSent) this.#send(id, now);
      else {
        this.#forget(id);
        this.#outbox.emit({ type: "silence", id });
      }
    }
  }

  nextTimeout(): Instant | undefined {
    return this.#outbox.wakeAt() ?? this.#timers.nextAt();
  }

  poll(): ReturnType<Outbox<PingEvent>["poll"]> {
    return this.#outbox.poll();
  }

  debugTimeout(): DebugTimeout | undefined {
    return this.#timers.next();
  }

  #send(id: number, now: Instant): void {
    this.#sent.set(id, (this.#sent.get(id) ?? 0) + 1);
    this.#timers.set(id, now + PING_INTERVAL_MS, "ping again");
    this.#outbox.send("client", this.#peer, Uint8Array.of(id));
  }

  #forget(id: number): void {
    this.#sent.delete(id);
    this.#timers.delete(id);
  }
}
