/**
 * What a NAT-PMP client asks the gateway, one thing at a time (PMP-C-04, PMP-C-05, PMP-C-30): the
 * kinds of request and their bytes, which response answers which, and when one is sent again: after
 * 250 ms, doubling, until its sends are used up (PMP-C-06, PMP-C-07).
 *
 * There are no transaction ids: opcode and internal port say whose answer it is (PMP-C-35). So a
 * request on its way is never replaced by another one for the same port, whose answer would look
 * the same; and what may be a late answer to a deletion is told from a grant by its zeros.
 *
 * What becomes of a job is not decided here: jobs that ended without an answer are handed back.
 *
 * @module
 */
import { NATPMP_MAX_ATTEMPTS, natPmpWaitMs } from "../backoff.ts";
import type { Lease } from "../lease/lease.ts";
import type { Instant } from "../machine.ts";
import { type MappingKey, PROTOCOL_NUMBER, type Transport } from "../mapping.ts";
import { type RandomSource, uniform } from "../random.ts";
import type { Timers } from "../timers.ts";
import {
  encodeAddressRequest,
  encodeMapRequest,
  NATPMP_OPCODE,
  NATPMP_RESULT,
  type NatPmpResponse,
} from "./codec.ts";

/** Something to ask. */
export type Job =
  /** The external address; a `quiet` question tells only of a change. */
  | { readonly kind: "address"; quiet: boolean; queuedAt: Instant }
  /** A mapping to create, renew or recreate. */
  | { readonly kind: "map"; readonly lease: NatPmpLease; queuedAt: Instant }
  /** A mapping to delete. */
  | { readonly kind: "delete"; readonly lease: NatPmpLease; queuedAt: Instant }
  /** All mappings of a protocol to delete, other programs' among them. */
  | { readonly kind: "delete-all"; readonly protocol: Transport; queuedAt: Instant };

/** A lease whose request is a job. */
export type NatPmpLease = Lease<Job>;

/** The request on its way. */
interface Exchange {
  readonly job: Job;
  /** A retransmission is the same bytes. */
  readonly data: Uint8Array;
  readonly startedAt: Instant;
  sends: number;
  /** Until when the gateway may have held the mapping before it was sent last. */
  mayHaveExistedUntil: Instant;
}

/** The timer of the request on its way. */
export const EXCHANGE_TIMER = "exchange";

/** Deletes are advisory: sends before giving up (PMP-C-10). */
const DELETE_ATTEMPTS = 3;
/** For how long the late answer to a deletion may still be under way. */
const STALE_ANSWER_MS = 10_000;
/** How many deletions are remembered for that. */
const MAX_REMEMBERED_DELETES = 256;

/** Sends a request of this client. */
export type SendRequest = (data: Uint8Array, isRetransmission: boolean) => void;

/** The serial queue. */
export class RequestQueue {
  readonly #timers: Timers<string>;
  readonly #send: SendRequest;
  readonly #unsend: () => boolean;
  readonly #waiting = new Set<Job>();
  readonly #deletedAt = new Map<MappingKey, Instant>();
  #current: Exchange | undefined;

  /** Whether the last request was left unanswered, and nothing has come since. */
  isGatewaySilent = false;

  /**
   * Makes an empty queue.
   *
   * @param unsend Takes back a request that nobody has fetched yet; false where it has left.
   */
  constructor(timers: Timers<string>, send: SendRequest, unsend: () => boolean) {
    this.#timers = timers;
    this.#send = send;
    this.#unsend = unsend;
  }

  /** The job on its way. */
  get current(): Job | undefined {
    return this.#current?.job;
  }

  /** Whether nothing waits or is on its way. */
  get isEmpty(): boolean {
    return !this.#current && this.#waiting.size === 0;
  }

  /** How often a job has been sent, where it is the one on its way; else 0. */
  sendsOf(job: Job | undefined): number {
    return job && this.#current?.job === job ? this.#current.sends : 0;
  }

  /** The job for the external address, where there is one. */
  get addressJob(): Job & { kind: "address" } | undefined {
    if (this.current?.kind === "address") return this.current;
    for (const job of this.#waiting) if (job.kind === "address") return job;
    return undefined;
  }

  /** Queues a job behind the others. */
  add(job: Job): void {
    this.#waiting.add(job);
  }

  /** Takes a job from the queue, or from its way. */
  takeBack(job: Job): void {
    this.#waiting.delete(job);
    if (this.current === job) this.end();
  }

  /** Ends the exchange without a successor. */
  end(): void {
    const exchange = this.#current;
    this.#current = undefined;
    this.#timers.delete(EXCHANGE_TIMER);
    const hasLeft = !this.#unsend();
    if (hasLeft || exchange?.job.kind !== "map") return;
    // What has not left has made nothing: there is nothing to delete.
    exchange.job.lease.mayExistUntil = exchange.mayHaveExistedUntil;
  }

  /** Empties the queue; returns what was in it, the job on its way first. */
  endAll(): Job[] {
    const jobs = [...this.#waiting];
    if (this.#current) jobs.unshift(this.#current.job);
    this.end();
    this.#waiting.clear();
    return jobs;
  }

  /** Sends the next request, where none is on its way. */
  advance(now: Instant): void {
    if (this.#current) return;
    const job = this.#waiting.values().next().value;
    if (!job) return;
    this.#waiting.delete(job);
    const data = encodeJob(job, now);
    const exchange = { job, data, startedAt: now, sends: 0, mayHaveExistedUntil: -Infinity };
    this.#current = exchange;
    this.#transmit(exchange, now);
  }

  /** The wait is over: sends again, or returns the jobs that end unanswered. */
  waitOver(now: Instant): Job[] {
    const exchange = this.#current!;
    const { job } = exchange;
    if (exchange.sends < this.#maxSends(job)) {
      this.#transmit(exchange, now);
      return [];
    }
    this.end();
    this.isGatewaySilent = true;
    const unanswered = [job];
    if (isDelete(job)) return unanswered;
    // The verdict holds for all that waited through it; but a delete is to be sent at least once.
    for (const other of this.#waiting) {
      if (other.queuedAt > exchange.startedAt || isDelete(other)) continue;
      this.#waiting.delete(other);
      unanswered.push(other);
    }
    return unanswered;
  }

  /** Sends again within `delayMs` where that is sooner; the last wait stays as it is. */
  hasten(now: Instant, delayMs: number, random: RandomSource): void {
    const at = this.#timers.at(EXCHANGE_TIMER);
    if (!this.#current || at === undefined || at <= now + delayMs) return;
    if (this.#current.sends >= this.#maxSends(this.#current.job)) return;
    this.#timers.set(EXCHANGE_TIMER, now + uniform(random, 0, delayMs), "retransmit");
  }

  /**
   * Whether an answer that matches the job on its way may still be a late one to an earlier request
   * for the same port: a grant where a deletion was asked for, or the answer to a deletion of a
   * moment ago.
   */
  isStaleAnswer(response: NatPmpResponse, job: Job, now: Instant): boolean {
    if (response.kind !== "map" || response.resultCode !== NATPMP_RESULT.SUCCESS) return false;
    if (job.kind !== "map") return response.lifetimeSeconds !== 0;
    const deletedAt = this.#deletedAt.get(job.lease.key) ?? -Infinity;
    return now - deletedAt < STALE_ANSWER_MS && response.externalPort === 0 &&
      response.lifetimeSeconds === 0;
  }

  #transmit(exchange: Exchange, now: Instant): void {
    const { job } = exchange;
    exchange.sends++;
    if (job.kind === "map") {
      const { lease } = job;
      exchange.mayHaveExistedUntil = lease.mayExistUntil;
      lease.mayExistUntil = Math.max(lease.mayExistUntil, now + lease.lifetimeSeconds * 1000);
    } else if (job.kind === "delete") this.#rememberDelete(job.lease.key, now);
    this.#send(exchange.data, exchange.sends > 1);
    const reason = exchange.sends >= this.#maxSends(job) ? "give up" : "retransmit";
    this.#timers.set(EXCHANGE_TIMER, now + natPmpWaitMs(exchange.sends), reason);
  }

  /** 9 times, deletes 3 times, and once where the last request was left unanswered. */
  #maxSends(job: Job): number {
    if (!isDelete(job)) return NATPMP_MAX_ATTEMPTS;
    return this.isGatewaySilent ? 1 : DELETE_ATTEMPTS;
  }

  #rememberDelete(key: MappingKey, now: Instant): void {
    this.#deletedAt.delete(key);
    this.#deletedAt.set(key, now);
    if (this.#deletedAt.size > MAX_REMEMBERED_DELETES) {
      this.#deletedAt.delete(this.#deletedAt.keys().next().value!);
    }
  }
}

/** Whether it takes something away. */
function isDelete(job: Job): job is Job & { kind: "delete" | "delete-all" } {
  return job.kind === "delete" || job.kind === "delete-all";
}

function encodeJob(job: Job, now: Instant): Uint8Array {
  switch (job.kind) {
    case "address":
      return encodeAddressRequest();
    case "map": {
      const { lease } = job;
      lease.sentRevision = lease.revision;
      return encodeMapRequest({
        protocol: transportOf(job),
        internalPort: lease.wanted.internalPort,
        suggestedExternalPort: lease.remembered?.port || lease.wanted.suggestedPort,
        lifetimeSeconds: lease.lifetimeToAsk(now),
      });
    }
    case "delete":
    case "delete-all":
      // PMP-C-24: a delete suggests port 0.
      return encodeMapRequest({
        protocol: transportOf(job),
        internalPort: internalPortOf(job),
        suggestedExternalPort: 0,
        lifetimeSeconds: 0,
      });
  }
}

function transportOf(job: Exclude<Job, { kind: "address" }>): Transport {
  if (job.kind === "delete-all") return job.protocol;
  return job.lease.wanted.protocol === PROTOCOL_NUMBER.udp ? "udp" : "tcp";
}

function internalPortOf(job: Exclude<Job, { kind: "address" }>): number {
  return job.kind === "delete-all" ? 0 : job.lease.wanted.internalPort;
}

function opcodeOf(job: Job): number {
  if (job.kind === "address") return NATPMP_OPCODE.ADDRESS;
  return transportOf(job) === "udp" ? NATPMP_OPCODE.MAP_UDP : NATPMP_OPCODE.MAP_TCP;
}

/**
 * Whether `response` answers `job`: the opcode and the internal port have to match. A short error
 * names no port and answers what is on its way.
 */
export function isAnswer(response: NatPmpResponse, job: Job): boolean {
  switch (response.kind) {
    case "address":
      return job.kind === "address";
    case "map":
      if (job.kind === "address" || response.protocol !== transportOf(job)) return false;
      return (response.internalPort ?? internalPortOf(job)) === internalPortOf(job);
    case "unsupported-version":
      // A response bit with another opcode: the answer to a PCP request from the same socket.
      return response.version !== 0 || response.opcode === undefined ||
        response.opcode === opcodeOf(job);
    case "other":
      return false;
  }
}
