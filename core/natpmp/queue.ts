/**
 * The requests of one client, one on its way at a time (PMP-C-04, PMP-C-05, PMP-C-30): sent again
 * after 250 ms, doubling, until the job's sends are used up (PMP-C-06, PMP-C-07). What becomes of a
 * job is not decided here: jobs that ended without an answer are handed back.
 *
 * @module
 */
import { natPmpWaitMs } from "../backoff.ts";
import type { Endpoint, Instant } from "../machine.ts";
import type { Outbox } from "../outbox.ts";
import { type RandomSource, uniform } from "../random.ts";
import type { Timers } from "../timers.ts";
import { encodeJob, type Exchange, isDelete, type Job, maxSends } from "./exchange.ts";
import { portKey } from "./lease.ts";
import type { NatPmpClientStats, NatPmpEvent } from "./types.ts";

/** The timer of the request on its way; mapping ids start at 1. */
export const EXCHANGE_TIMER = 0;

/** For how long the late answer to a deletion may still be under way. */
const STALE_ANSWER_MS = 10_000;
/** How many deletions are remembered for that. */
const MAX_REMEMBERED_DELETES = 256;

/** The serial queue. */
export class RequestQueue {
  readonly #gateway: Endpoint;
  readonly #outbox: Outbox<NatPmpEvent>;
  readonly #timers: Timers<number>;
  readonly #stats: NatPmpClientStats;
  readonly #waiting = new Set<Job>();
  readonly #deletedAt = new Map<string, Instant>();
  #current: Exchange | undefined;

  /** Whether the last request was left unanswered, and nothing has come since. */
  isGatewaySilent = false;

  /** Makes an empty queue. */
  constructor(
    gateway: Endpoint,
    outbox: Outbox<NatPmpEvent>,
    timers: Timers<number>,
    stats: NatPmpClientStats,
  ) {
    this.#gateway = gateway;
    this.#outbox = outbox;
    this.#timers = timers;
    this.#stats = stats;
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
    if (job.kind === "map" || job.kind === "delete") job.lease.job = job;
  }

  /** Takes a job from the queue, or from its way. */
  takeBack(job: Job): void {
    this.#waiting.delete(job);
    if (this.current === job) this.end();
    if (job.kind !== "map" && job.kind !== "delete") return;
    job.lease.job = undefined;
    if (job.lease.isGranted) job.lease.state = "running";
  }

  /** Ends the exchange without a successor; a request that nobody fetched yet is taken back. */
  end(): void {
    this.#current = undefined;
    this.#timers.delete(EXCHANGE_TIMER);
    this.#outbox.unsend("request");
  }

  /** Empties the queue; returns what was in it, the job on its way first. */
  endAll(): Job[] {
    const jobs = [...this.#waiting];
    if (this.#current) jobs.unshift(this.#current.job);
    this.end();
    this.#waiting.clear();
    return jobs;
  }

  /**
   * Sends the next request, where none is on its way. Returns the deletes that needed none,
   * because the mapping's time was over (PMP-C-11).
   */
  advance(now: Instant): Job[] {
    const needless: Job[] = [];
    while (!this.#current) {
      const job = this.#waiting.values().next().value;
      if (!job) break;
      this.#waiting.delete(job);
      if (job.kind === "delete" && now >= job.lease.mayExistUntil) {
        needless.push(job);
        continue;
      }
      this.#current = { job, data: encodeJob(job, now), startedAt: now, sends: 0 };
      this.#stats.requests++;
      this.#send(this.#current, now);
    }
    return needless;
  }

  /** The wait is over: sends again, or returns the jobs that end unanswered. */
  waitOver(now: Instant): Job[] {
    const exchange = this.#current!;
    const { job } = exchange;
    const isTooLate = job.kind === "delete" && now >= job.lease.mayExistUntil;
    if (exchange.sends < maxSends(job, this.isGatewaySilent) && !isTooLate) {
      this.#stats.retransmissions++;
      this.#send(exchange, now);
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
    if (this.#current.sends >= maxSends(this.#current.job, this.isGatewaySilent)) return;
    this.#timers.set(EXCHANGE_TIMER, now + uniform(random, 0, delayMs), "retransmit");
  }

  /** Whether a deletion for the job's port was sent a moment ago. */
  wasJustDeleted(job: Job, now: Instant): boolean {
    const at = job.kind === "map" ? this.#deletedAt.get(portKey(job.lease)) : undefined;
    return at !== undefined && now - at < STALE_ANSWER_MS;
  }

  #send(exchange: Exchange, now: Instant): void {
    const { job } = exchange;
    exchange.sends++;
    if (job.kind === "map") {
      const { lease } = job;
      lease.state = lease.isGranted ? "updating" : "starting";
      lease.sentAt = now;
      lease.mayExistUntil = Math.max(lease.mayExistUntil, now + lease.lifetimeSeconds * 1000);
    } else if (job.kind === "delete") {
      this.#rememberDelete(portKey(job.lease), now);
    }
    this.#outbox.send("client", this.#gateway, exchange.data, "request");
    const isLast = exchange.sends >= maxSends(job, this.isGatewaySilent);
    const reason = isLast ? "give up" : "retransmit";
    this.#timers.set(EXCHANGE_TIMER, now + natPmpWaitMs(exchange.sends), reason);
  }

  #rememberDelete(key: string, now: Instant): void {
    this.#deletedAt.delete(key);
    this.#deletedAt.set(key, now);
    if (this.#deletedAt.size > MAX_REMEMBERED_DELETES) {
      this.#deletedAt.delete(this.#deletedAt.keys().next().value!);
    }
  }
}
