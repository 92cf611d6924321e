/**
 * The mappings of one client from wish to end: what an answer, a failure or the passing of time
 * makes of each, and what the application is told. The states are drawn at the head of
 * `client.ts`.
 *
 * @module
 */
import type { Instant } from "../machine.ts";
import type { Failure, MappingId } from "../mapping.ts";
import type { Outbox } from "../outbox.ts";
import type { Timers } from "../timers.ts";
import { isCovered, type Lease, newLease, nextRenewal, portKey } from "./lease.ts";
import type { RequestQueue } from "./queue.ts";
import type { NatPmpEvent, NatPmpMapping } from "./types.ts";
import type { Wish } from "./wish.ts";

/** How long a mapping that failed without a refusal rests before it is asked for again. */
const RETRY_MS = 60_000;

/** What the gateway gave. */
interface Grant {
  readonly externalPort: number;
  readonly lifetimeSeconds: number;
}

/** All leases of a client. */
export class Leases {
  readonly #queue: RequestQueue;
  readonly #timers: Timers<number>;
  readonly #outbox: Outbox<NatPmpEvent>;
  readonly #all = new Map<MappingId, Lease>();
  /** Those that are wanted; one that is being deleted may have a successor on its port. */
  readonly #byPort = new Map<string, Lease>();
  #lastId: MappingId = 0;
  #address: string | undefined;

  /** Makes an empty book. */
  constructor(queue: RequestQueue, timers: Timers<number>, outbox: Outbox<NatPmpEvent>) {
    this.#queue = queue;
    this.#timers = timers;
    this.#outbox = outbox;
  }

  /** How many there are, those being deleted among them. */
  get size(): number {
    return this.#all.size;
  }

  /** The lease with this id. */
  get(id: MappingId): Lease | undefined {
    return this.#all.get(id);
  }

  /** All, those being deleted among them. */
  all(): Lease[] {
    return [...this.#all.values()];
  }

  /** Those that are wanted. */
  wanted(): Lease[] {
    return [...this.#byPort.values()];
  }

  /** The wanted one of a port. */
  ofPort(port: Parameters<typeof portKey>[0]): Lease | undefined {
    return this.#byPort.get(portKey(port));
  }

  /**
   * Adds a wish; nothing is asked yet.
   *
   * @throws {TypeError} Where its port has a mapping that is wanted.
   */
  add(wish: Wish): Lease {
    const known = this.ofPort(wish);
    if (known) {
      const port = `${wish.internalPort}/${wish.protocol}`;
      throw new TypeError(`Cannot map ${port}: it is mapped already (id ${known.id})`);
    }
    const lease = newLease(++this.#lastId, wish);
    this.#all.set(lease.id, lease);
    this.#byPort.set(portKey(lease), lease);
    return lease;
  }

  /**
   * Adds a wish from exported state and asks for it.
   *
   * @throws {TypeError} As `add`.
   */
  adopt(wish: Wish, now: Instant): void {
    const lease = this.add(wish);
    lease.isAdopted = true;
    // The gateway may hold it still: revoking it takes a packet.
    lease.mayExistUntil = Infinity;
    this.ask(lease, now);
  }

  /**
   * The application asks by itself for what was adopted: its wish counts, but for the port. The
   * lifetime under way is the first of those that it wants.
   */
  claim(lease: Lease, wish: Wish, now: Instant): void {
    lease.isAdopted = false;
    lease.externalPort ||= wish.externalPort;
    lease.lifetimeSeconds = wish.lifetimeSeconds;
    lease.lifetimes = wish.lifetimes;
    lease.wantedUntil = Infinity;
    if (!lease.isGranted) return this.ask(lease, now);
    lease.wantedUntil = lease.expiresAt + (wish.lifetimes - 1) * lease.grantedSeconds * 1000;
    this.#schedule(lease, now);
    this.tell(lease, "mapped");
  }

  /** Queues the request for a mapping, where it does not wait already. */
  ask(lease: Lease, now: Instant): void {
    if (lease.job) return;
    if (!lease.isGranted) this.#timers.delete(lease.id);
    this.#queue.add({ kind: "map", lease, queuedAt: now });
  }

  // ---- Answers -----------------------------------------------------------------------------

  /** The gateway said yes. */
  granted(lease: Lease, grant: Grant, now: Instant): void {
    const { externalPort, lifetimeSeconds: grantedSeconds } = grant;
    // D-08: a success without a port is none.
    if (externalPort === 0) {
      return this.notGranted(lease, { kind: "protocol-violation", clause: "D-08" }, now);
    }
    // D-07: a lifetime of 0 means that the mapping is gone, never that it lasts for ever.
    if (grantedSeconds === 0) return this.#lost(lease, { kind: "expired" }, now);
    const isElsewhere = externalPort !== lease.externalPort || this.#hasOtherAddress(lease);
    const renewed = isElsewhere ? "moved" : "renewed";
    const type = !lease.isTold ? "mapped" : !lease.isGranted ? "recovered" : renewed;
    const lifetimeMs = grantedSeconds * 1000;
    lease.job = undefined;
    lease.externalPort = externalPort;
    lease.grantedSeconds = grantedSeconds;
    lease.expiresAt = lease.mayExistUntil = now + lifetimeMs;
    lease.renewedAt = now;
    lease.failure = undefined;
    lease.isStale = false;
    lease.isGranted = lease.wasMapped = lease.isTold = true;
    lease.state = "running";
    if (lease.wantedUntil === Infinity) lease.wantedUntil = now + lease.lifetimes * lifetimeMs;
    this.#schedule(lease, now);
    this.tell(lease, type);
  }

  /** The request for it came to nothing. */
  notGranted(lease: Lease, failure: Failure, now: Instant): void {
    lease.job = undefined;
    lease.failure = failure;
    if (lease.isGranted) {
      // A renewal that failed takes nothing away; what the restarted gateway refuses is gone.
      if (lease.isStale || now >= lease.expiresAt) return this.#lost(lease, failure, now);
      lease.state = "running";
      return this.#schedule(lease, now, failure);
    }
    const isRefused = failure.kind === "refused";
    if (isRefused && !lease.wasMapped && !lease.isAdopted) lease.mayExistUntil = 0;
    const isKept = lease.lifetimes === Infinity && (lease.wasMapped || isRefused);
    if (isKept) this.#hold(lease, failure, now);
    else this.drop(lease);
    this.#outbox.emit({ type: "failed", id: lease.id, failure }, lease.id);
  }

  /** The gateway does not hold it any more; a keep-alive mapping is asked for again later. */
  #lost(lease: Lease, failure: Failure, now: Instant): void {
    if (!lease.isGranted) return this.notGranted(lease, failure, now);
    lease.isGranted = false;
    lease.failure = failure;
    if (lease.lifetimes === Infinity) this.#hold(lease, failure, now);
    else this.drop(lease);
    // Who has not heard of the grant will hear of the next one as the first.
    if (this.#outbox.untold(lease.id)?.type === "mapped") lease.isTold = false;
    this.#outbox.emit({ type: "lost", id: lease.id, failure }, lease.id);
  }

  #hold(lease: Lease, failure: Failure, now: Instant): void {
    lease.job = undefined;
    lease.isStale = false;
    lease.state = "error";
    const until = failure.kind === "refused" ? failure.retryAt : now + RETRY_MS;
    this.#timers.set(lease.id, until, "ask again for mapping");
  }

  // ---- Time --------------------------------------------------------------------------------

  /** Sets the timer of a granted mapping: its next renewal, or else its end. */
  #schedule(lease: Lease, now: Instant, failure?: Failure): void {
    const notBefore = failure?.kind === "refused" ? failure.retryAt : undefined;
    const at = isCovered(lease) ? undefined : nextRenewal(lease, now, notBefore);
    if (at === undefined) this.#timers.set(lease.id, lease.expiresAt, "end of mapping");
    else this.#timers.set(lease.id, at, "renew mapping");
  }

  /** The mapping's timer has run out. */
  due(lease: Lease, now: Instant): void {
    if (!lease.isGranted) return this.ask(lease, now);
    if (now >= lease.expiresAt) return this.#ended(lease, now);
    this.#timers.set(lease.id, lease.expiresAt, "end of mapping");
    // A stale one is asked for when the recreation delay is over.
    if (!lease.isStale) this.ask(lease, now);
  }

  #ended(lease: Lease, now: Instant): void {
    if (isCovered(lease)) return this.unmapped(lease, "expired");
    const { job, isStale, failure = { kind: "expired" } } = lease;
    this.#lost(lease, failure, now);
    if (lease.state === "dropped") return;
    // A request that waits or is on its way goes on: from here on it is for a new mapping.
    lease.job = job;
    lease.isStale = isStale;
    const isOnHold = failure.kind === "refused" && failure.retryAt > now;
    if (!isStale && !isOnHold) {
      this.#timers.delete(lease.id);
      this.ask(lease, now);
    }
  }

  // ---- Ends --------------------------------------------------------------------------------

  /** Takes a mapping from what is wanted; it stays in sight until `unmapped` or `drop`. */
  unwant(lease: Lease): void {
    if (lease.job) this.#queue.takeBack(lease.job);
    this.#timers.delete(lease.id);
    if (this.ofPort(lease) === lease) this.#byPort.delete(portKey(lease));
    lease.isGranted = false;
    lease.state = "revoked";
  }

  /** Deletes a mapping, with a packet where the gateway may hold it. */
  revoke(lease: Lease, now: Instant): void {
    if (lease.state === "revoked") return;
    this.unwant(lease);
    if (now >= lease.mayExistUntil) this.unmapped(lease, "revoked");
    else this.#queue.add({ kind: "delete", lease, queuedAt: now });
  }

  /** Forgets a mapping. */
  drop(lease: Lease): void {
    this.unwant(lease);
    this.#all.delete(lease.id);
    lease.state = "dropped";
  }

  /** Forgets a mapping that ended as wished, and says so. */
  unmapped(lease: Lease, reason: "revoked" | "expired", failure?: Failure): void {
    this.drop(lease);
    const event = { type: "unmapped", id: lease.id, reason } as const;
    this.#outbox.emit(failure ? { ...event, failure } : event, lease.id);
  }

  // ---- What is told ------------------------------------------------------------------------

  /** The external address that the gateway told last. */
  get externalAddress(): string | undefined {
    return this.#address;
  }

  /** Takes a new external address; mappings told with another one have moved. */
  moveTo(address: string): void {
    this.#address = address;
    for (const lease of this.#byPort.values()) {
      // A stale one moves when the gateway has confirmed it.
      if (!lease.isGranted || lease.isStale) continue;
      if (this.#hasOtherAddress(lease)) this.tell(lease, "moved");
      else lease.toldAddress = address;
    }
  }

  #hasOtherAddress(lease: Lease): boolean {
    return lease.toldAddress !== undefined && lease.toldAddress !== this.#address;
  }

  /** Tells how a mapping stands. */
  tell(lease: Lease, type: "mapped" | "renewed" | "moved" | "recovered"): void {
    lease.toldAddress = this.#address;
    this.#outbox.emit({ type, id: lease.id, mapping: this.snapshot(lease) }, lease.id);
  }

  /** A mapping as plain data. */
  snapshot(lease: Lease): NatPmpMapping {
    const wasGranted = lease.grantedSeconds > 0;
    return {
      id: lease.id,
      protocol: lease.protocol,
      internalPort: lease.internalPort,
      externalPort: wasGranted ? lease.externalPort : 0,
      // What a restarted gateway gives it is not known before it has.
      externalAddress: lease.isStale ? lease.toldAddress : this.#address,
      lifetimeSeconds: wasGranted ? lease.grantedSeconds : lease.lifetimeSeconds,
      expiresAt: wasGranted ? lease.expiresAt : undefined,
      state: lease.state,
      attempt: this.#queue.sendsOf(lease.job),
    };
  }
}
