/**
 * The ANNOUNCE of a client, in flight or not: it asks for the server's epoch and changes nothing
 * there (PCP-C-50). It ends with its answer or, a probe being no wish for a mapping, after four
 * attempts at each address.
 *
 * @module
 */
import { withoutZone } from "../ip.ts";
import type { Instant } from "../machine.ts";
import type { Failure } from "../mapping.ts";
import { encodeRequest } from "./codec.ts";
import type { Engine } from "./engine.ts";
import { NO_OPTIONS } from "./options.ts";
import { Retransmission } from "./retransmit.ts";

/** The key of the ANNOUNCE among the timers and in the outbox; mappings count from 1. */
export const PROBE = 0;

/** How often each address is asked where the client sets no limit. */
const ATTEMPTS = 4;

/** The ANNOUNCE of one client. */
export class Probe {
  readonly #engine: Engine;
  #packet: Uint8Array | undefined;
  #retransmission: Retransmission | undefined;

  /** @param engine Whose servers, timers and outbox it uses. */
  constructor(engine: Engine) {
    this.#engine = engine;
  }

  /** Whether it waits for its answer. */
  get isInFlight(): boolean {
    return this.#packet !== undefined;
  }

  /** Sends it, unless it is on its way. */
  begin(now: Instant): void {
    if (this.isInFlight) return;
    this.#packet = encodeRequest({
      kind: "announce",
      lifetimeSeconds: 0,
      clientAddress: withoutZone(this.#engine.localAddress),
      options: NO_OPTIONS,
    });
    this.#retransmission = new Retransmission(this.#engine.fastStart);
    this.#send(now);
  }

  /** Begins again, from another address, if it is on its way. */
  restart(now: Instant): void {
    if (!this.isInFlight) return;
    this.end();
    this.begin(now);
  }

  /** Sends it again, or gives the address in use up. */
  due(now: Instant): void {
    const limit = this.#engine.maxAttempts || ATTEMPTS;
    const failure: Failure = { kind: "no-answer" };
    if (this.#retransmission!.attempt < limit) this.#send(now);
    else if (this.#engine.servers.size > 1) this.#engine.exhaust(failure, now);
    else this.fail(failure);
  }

  /** The address in use was given up: on to the next, or the end. */
  move(hasNext: boolean, failure: Failure, now: Instant): void {
    if (!this.isInFlight) return;
    if (!hasNext) return this.fail(failure);
    this.#retransmission = new Retransmission(this.#engine.fastStart);
    this.#send(now);
  }

  /** Ends it with a failure, if it is on its way. */
  fail(failure: Failure): void {
    if (!this.isInFlight) return;
    this.end();
    this.#engine.outbox.emit({ type: "announce-failed", failure }, "announce-failed");
  }

  /** Ends it with its answer. */
  succeed(epochSeconds: number): void {
    this.end();
    this.#engine.outbox.emit({ type: "announced", epochSeconds }, "announced");
  }

  /** Ends it and says nothing. */
  end(): void {
    this.#packet = undefined;
    this.#retransmission = undefined;
    this.#engine.timers.delete(PROBE);
    this.#engine.outbox.unsend(PROBE);
  }

  #send(now: Instant): void {
    const { outbox, timers, servers, random, stats } = this.#engine;
    if (this.#retransmission!.attempt > 0) stats.retransmitted++;
    stats.sent.announce++;
    outbox.send("client", servers.current, this.#packet!, PROBE);
    timers.set(PROBE, this.#retransmission!.next(random, now), "announce");
  }
}
