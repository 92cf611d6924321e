/**
 * When mappings are asked for again although their time has not come: the gateway lost its table
 * (PMP-C-28), or is back after a silence (PMP-C-09), or this host has another address (PMP-C-26).
 * Those concerned become stale; after a random delay, one for all of them (PMP-C-29), they are
 * queued and go out one by one (PMP-C-30).
 *
 * @module
 */
import { RECREATION_DELAY_MS } from "../backoff.ts";
import type { Instant } from "../machine.ts";
import { type RandomSource, uniform } from "../random.ts";
import type { Timers } from "../timers.ts";
import type { ExternalAddress } from "./address.ts";
import type { Job } from "./exchange.ts";
import type { Leases } from "./leases.ts";
import type { RequestQueue } from "./queue.ts";
import { TRANSPORTS } from "./wish.ts";

/** The timer of the random delay; mapping ids start at 1. */
export const RECREATE_TIMER = -1;

/** Recreates the mappings of one client. */
export class Recovery {
  readonly #queue: RequestQueue;
  readonly #leases: Leases;
  readonly #address: ExternalAddress;
  readonly #timers: Timers<number>;
  readonly #random: RandomSource;

  /** Nothing is to be recreated yet. */
  constructor(
    queue: RequestQueue,
    leases: Leases,
    address: ExternalAddress,
    timers: Timers<number>,
    random: RandomSource,
  ) {
    this.#queue = queue;
    this.#leases = leases;
    this.#address = address;
    this.#timers = timers;
    this.#random = random;
  }

  /**
   * The gateway lost its table: nothing is sent for the mappings until the delay is over.
   * `answering` is the job whose answer told it, which is of the new table.
   */
  gatewayRestarted(answering: Job | undefined, now: Instant): void {
    for (const lease of this.#leases.wanted()) {
      // One that was never granted or refused is on its first way: nothing of it is lost.
      if (!lease.wasMapped && lease.state !== "error") continue;
      lease.isStale = true;
      if (lease.job && lease.job !== answering) this.#queue.takeBack(lease.job);
    }
    this.#planRecreation(now);
  }

  /**
   * The gateway announces itself: what its silence has put on hold, or has made wait for long, is
   * worth asking for again soon.
   */
  gatewayIsThere(now: Instant): void {
    this.#queue.hasten(now, RECREATION_DELAY_MS, this.#random);
    let isAnyStale = false;
    for (const lease of this.#leases.wanted()) {
      if (lease.state !== "error" || lease.failure?.kind === "refused") continue;
      lease.isStale = isAnyStale = true;
    }
    if (isAnyStale) this.#planRecreation(now);
  }

  /** This host has another address; what the address's last owner may have left there goes. */
  hostMoved(now: Instant): void {
    for (const lease of this.#leases.all()) {
      // What the old address had cannot be reached from the new one.
      lease.mayExistUntil = 0;
      lease.isStale = true;
      if (lease.state === "revoked") this.#leases.unmapped(lease, "revoked");
      else if (lease.job) this.#queue.takeBack(lease.job);
    }
    for (const protocol of TRANSPORTS) {
      this.#queue.add({ kind: "delete-all", protocol, quiet: true, leases: [], queuedAt: now });
    }
    this.recreate(now);
  }

  /** Asks for all stale mappings again; for the external address first, so that they carry it. */
  recreate(now: Instant): void {
    this.#timers.delete(RECREATE_TIMER);
    this.#address.refresh(RECREATION_DELAY_MS, now);
    for (const lease of this.#leases.wanted()) {
      if (lease.isStale) this.#leases.ask(lease, now);
    }
  }

  #planRecreation(now: Instant): void {
    if (this.#timers.at(RECREATE_TIMER) !== undefined) return;
    const at = now + uniform(this.#random, 0, RECREATION_DELAY_MS);
    this.#timers.set(RECREATE_TIMER, at, "recreate mappings");
  }
}
