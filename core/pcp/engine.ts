/**
 * What moves the leases of a client.
 *
 *   waiting ─start─▶ asking ─success─▶ granted ─plan─▶ renewing ─success─▶ granted
 *                      │ ▲                │ │              │
 *               refused│ │hold over       │ └─epoch broken─┴─▶ recovering ─0…5 s─▶ asking
 *                      ▼ │                └─end of lifetime─▶ lost: asking, or gone
 *                     held
 *   any ─revoke─▶ deleting ─answer, four attempts or the end of the lifetime─▶ gone
 *
 * A grant that is still running stays with its lease through renewing, recovering, asking and
 * held: it is lost when its lifetime ends, or when the server refuses to go on with it. Refusals
 * that speak of the server's own trouble (NETWORK_FAILURE, NO_RESOURCES, USER_EX_QUOTA) leave a
 * running grant in place; so OPNsense's NO_RESOURCES to every renewal of an IPv6 pinhole costs a
 * gap at its end and not at once.
 *
 * Clauses: PCP-C-08…10, 19, 21, 22, 26, 28, 39…43, 45, 48, 52…55; RFC 7488; D-06…D-08, D-17.
 *
 * @module
 */
import { RECREATION_DELAY_MS } from "../backoff.ts";
import type { Endpoint, Instant } from "../machine.ts";
import type { Failure, MappingId } from "../mapping.ts";
import { mergeMappingEvents } from "../merge.ts";
import { Outbox } from "../outbox.ts";
import { type RandomSource, uniform } from "../random.ts";
import { Timers } from "../timers.ts";
import { Blockade } from "./blockade.ts";
import { LeaseBook } from "./book.ts";
import type { PcpClientSettings } from "./client_options.ts";
import { PCP_RESULT } from "./codec.ts";
import { refusal } from "./judge.ts";
import { type Lease, requestOf } from "./lease.ts";
import { Retransmission } from "./retransmit.ts";
import { EXHAUSTED_WAIT_MS, ServerList } from "./servers.ts";
import { newStats } from "./stats.ts";
import type { DropReason, PcpClientStats, PcpEvent } from "./types.ts";

/** How many deletions are sent before the lease is left to its end. */
const DELETE_ATTEMPTS = 4;

/** The leases of one client. */
export class Engine {
  readonly outbox: Outbox<PcpEvent> = new Outbox(mergeMappingEvents);
  readonly timers: Timers<MappingId> = new Timers();
  readonly book: LeaseBook = new LeaseBook();
  readonly blockade: Blockade = new Blockade();
  readonly servers: ServerList;
  readonly stats: PcpClientStats = newStats();
  localAddress: string;
  readonly random: RandomSource;
  readonly fastStart: boolean;
  readonly maxAttempts: number;
  /** Told after the leases have moved to the next address, or found that there is none. */
  onExhausted: (hasNext: boolean, failure: Failure, now: Instant) => void = () => {};
  /** The external address of the last grant. */
  #lastAddress = "";

  /** Makes an engine without leases. */
  constructor(settings: PcpClientSettings) {
    this.servers = new ServerList(settings.servers);
    this.localAddress = settings.localAddress;
    this.random = settings.random;
    this.fastStart = settings.fastStart;
    this.maxAttempts = settings.maxAttempts;
  }

  /** Counts a datagram that is not taken. */
  drop(reason: DropReason): false {
    this.stats.dropped[reason]++;
    return false;
  }

  /** Takes a lease in and starts it. */
  add(lease: Lease, now: Instant): void {
    this.adopt(lease);
    this.#start(lease, now);
  }

  /** Takes a lease in; the next timeout starts it. */
  adopt(lease: Lease): void {
    this.book.add(lease);
    lease.dueAt = 0;
    this.arm(lease);
  }

  /** Sets the lease's deadline: its next step or the end of its grant, what comes first. */
  arm(lease: Lease): void {
    const at = Math.min(lease.dueAt ?? Infinity, lease.expiresAt ?? Infinity);
    if (at === Infinity) return this.timers.delete(lease.id);
    this.timers.set(lease.id, at, at === lease.expiresAt ? "end of lifetime" : lease.phase);
  }

  /** Does what is due for a lease. */
  due(lease: Lease, now: Instant): void {
    if (lease.expiresAt !== undefined && now >= lease.expiresAt) return this.#expire(lease, now);
    switch (lease.phase) {
      case "waiting":
        return this.#start(lease, now);
      case "asking":
        if (this.#isExhausted(lease.attempt)) return this.exhaust({ kind: "no-answer" }, now);
        return this.#transmit(lease, now);
      case "deleting":
        if (lease.attempt >= DELETE_ATTEMPTS) {
          return this.unmapped(lease, "revoked", now, { kind: "no-answer" });
        }
        return this.#transmit(lease, now);
      case "granted":
      case "renewing":
        return this.renew(lease, now);
      case "held":
        if (lease.isGranted) return this.renew(lease, now);
        return this.ask(lease, false, now);
      case "recovering":
        return this.ask(lease, false, now);
    }
  }

  #start(lease: Lease, now: Instant): void {
    if (this.book.isLeaving(lease.key)) {
      // The deletion under way and this request could meet in the wrong order.
      lease.dueAt = undefined;
      return this.arm(lease);
    }
    const retryAt = this.#blockedUntil(lease);
    if (retryAt <= now) return this.ask(lease, true, now);
    this.fail(lease, refusal(PCP_RESULT.NO_RESOURCES, retryAt), retryAt, now);
  }

  /** Begins a request at the pace of a first one (`isFirst`) or of a recreation. */
  ask(lease: Lease, isFirst: boolean, now: Instant): void {
    const blockedUntil = this.#blockedUntil(lease);
    if (blockedUntil > now) return this.hold(lease, blockedUntil);
    lease.clearRequest();
    lease.phase = "asking";
    lease.isUnanswered = false;
    lease.retransmission = new Retransmission(isFirst && this.fastStart);
    this.#transmit(lease, now);
  }

  /** Sends a renewal and plans the next. */
  renew(lease: Lease, now: Instant): void {
    if (this.blockade.allUntil > now) {
      lease.dueAt = this.blockade.allUntil;
      return this.arm(lease);
    }
    if (lease.phase !== "renewing") {
      lease.clearRequest();
      lease.isUnanswered = false;
      lease.phase = "renewing";
    } else if (this.#isExhausted(lease.renewalAttempt)) {
      return this.exhaust({ kind: "no-answer" }, now);
    }
    lease.renewalAttempt++;
    lease.plan.sent(now);
    this.#send(lease, now);
    lease.dueAt = lease.plan.next(lease.grantedAt, lease.scheduledMs, this.random, now);
    this.arm(lease);
  }

  /** Begins the deletion; where the server cannot hold anything, the lease is gone at once. */
  revoke(lease: Lease, now: Instant): void {
    if (lease.phase === "deleting") return;
    // PCP-C-45: a PEER cannot delete; what it made ends by itself, like any outbound mapping.
    if (lease.wish.kind === "peer" || !lease.mayExist || this.book.isLeaving(lease.key)) {
      return this.unmapped(lease, "revoked", now);
    }
    this.book.retire(lease);
    lease.phase = "deleting";
    this.revokeAnew(lease, now);
  }

  /** Begins the deletion from its first packet. */
  revokeAnew(lease: Lease, now: Instant): void {
    lease.clearRequest();
    lease.retransmission = new Retransmission(this.fastStart);
    if (this.blockade.allUntil > now) {
      this.outbox.unsend(lease.id);
      lease.dueAt = this.blockade.allUntil;
      return this.arm(lease);
    }
    this.#transmit(lease, now);
  }

  /** Forgets the lease: no packet, no event. */
  remove(lease: Lease, now: Instant): void {
    this.timers.delete(lease.id);
    this.outbox.unsend(lease.id);
    const successor = this.book.remove(lease);
    if (successor) this.#start(successor, now);
  }

  /** Plans the first renewal of a new grant, or of one that is newly wanted. */
  plan(lease: Lease, now: Instant): void {
    lease.plan.restart();
    lease.dueAt = lease.wantsRenewal
      ? lease.plan.next(lease.grantedAt, lease.scheduledMs, this.random, now)
      : undefined;
    this.arm(lease);
  }

  /** Tells where a granted lease stands. */
  tell(lease: Lease, type: "mapped" | "renewed" | "moved" | "recovered"): void {
    lease.isLost = lease.isFailed = false;
    lease.told = lease.external;
    const mapping = lease.snapshot(this.localAddress, this.servers.current);
    this.outbox.emit({ type, id: lease.id, mapping }, lease.id);
  }

  /** The endpoint with text that others hold already: ten thousand mappings have one address. */
  share(external: Endpoint, known: Endpoint | undefined): Endpoint {
    if (known && known.port === external.port && known.address === external.address) return known;
    if (this.#lastAddress !== external.address) this.#lastAddress = external.address;
    return { address: this.#lastAddress, port: external.port };
  }

  /** The address in use is given up: the next one, or, where none is left, a long wait. */
  exhaust(failure: Failure, now: Instant): void {
    const hasNext = this.servers.exhaust();
    for (const lease of this.book.all()) {
      if (!lease.isInFlight) continue;
      if (!hasNext) {
        this.#unanswered(lease, failure, now);
      } else if (lease.phase === "renewing") {
        lease.renewalAttempt = 0;
        this.renew(lease, now);
      } else {
        lease.retransmission = new Retransmission(this.fastStart && !lease.isGranted);
        this.#transmit(lease, now);
      }
    }
    this.onExhausted(hasNext, failure, now);
  }

  /** ICMP says that nothing listens at the only address. */
  unreachable(now: Instant): void {
    for (const lease of this.book.all()) {
      if (lease.phase === "deleting") {
        this.unmapped(lease, "revoked", now, { kind: "unreachable" });
      }
      // A running grant is renewed on schedule: the daemon may be restarting.
      if (lease.phase !== "asking" || lease.isGranted) continue;
      if (!lease.isKeptAlive) {
        this.fail(lease, { kind: "unreachable" }, now, now);
        continue;
      }
      if (!lease.isFailed && !lease.isLost) {
        const failure: Failure = { kind: "unreachable" };
        this.outbox.emit({ type: "failed", id: lease.id, failure }, lease.id);
      }
      lease.isFailed = true;
      lease.retransmission!.slowDown();
      lease.dueAt = lease.retransmission!.regularAt;
      this.arm(lease);
    }
  }

  #unanswered(lease: Lease, failure: Failure, now: Instant): void {
    if (lease.phase === "deleting") return this.unmapped(lease, "revoked", now, failure);
    const retryAt = now + EXHAUSTED_WAIT_MS;
    if (lease.isGranted) this.hold(lease, retryAt);
    else this.fail(lease, failure, retryAt, now);
    lease.isUnanswered = true;
  }

  /**
   * The server lost its state: every lease but `except` is asked for again, each within 5 s at a
   * moment of its own (PCP-C-52).
   */
  recover(except: Lease | undefined, now: Instant): void {
    this.wake(except, now);
    for (const lease of this.book.wanted()) {
      const isAsking = lease.phase === "asking" || lease.phase === "recovering";
      if (lease !== except && lease.isGranted && !isAsking) this.#recoverSoon(lease, now);
    }
  }

  /** The server is there: all but `except` that would wait for longer leave within 5 s. */
  wake(except: Lease | undefined, now: Instant): void {
    for (const lease of this.book.wanted()) {
      if (lease === except) continue;
      const isSlow = lease.phase === "asking" && lease.dueAt! > now + RECREATION_DELAY_MS;
      if (isSlow || lease.isUnanswered) this.#recoverSoon(lease, now);
    }
  }

  #recoverSoon(lease: Lease, now: Instant): void {
    const at = now + uniform(this.random, 0, RECREATION_DELAY_MS);
    this.outbox.unsend(lease.id);
    lease.clearRequest();
    lease.isUnanswered = false;
    lease.phase = "recovering";
    lease.dueAt = Math.max(at, lease.plan.earliestAt);
    this.arm(lease);
  }

  /** Begins anew from another address, whatever was refused to the old one (PCP-C-23, C-24). */
  restart(localAddress: string, now: Instant): void {
    this.localAddress = localAddress;
    this.servers.reset();
    this.blockade.lift();
    // Deletions name the old address, and a server takes them from there only (PCP-S-08).
    for (const lease of this.book.leaving()) this.unmapped(lease, "revoked", now);
    for (const lease of this.book.wanted()) this.ask(lease, true, now);
  }

  #expire(lease: Lease, now: Instant): void {
    if (lease.phase === "deleting") return this.unmapped(lease, "revoked", now);
    // Of a few seconds there may be no room for another renewal: the last of N is over sooner.
    const isOver = lease.phase === "granted" && !lease.isKeptAlive;
    if (isOver || !lease.wantsRenewal) return this.unmapped(lease, "expired", now);
    this.lose(lease, { kind: "expired" }, now);
  }

  /** What was granted is no more. A lease kept alive is asked for again, at `retryAt` or at once. */
  lose(lease: Lease, failure: Failure, now: Instant, retryAt?: Instant): void {
    lease.clearGrant();
    // Who has not heard of the grant will hear of the next one as the first.
    if (this.outbox.untold(lease.id)?.type === "mapped") lease.told = undefined;
    this.outbox.emit({ type: "lost", id: lease.id, failure }, lease.id);
    if (!lease.isKeptAlive) return this.remove(lease, now);
    lease.isLost = true;
    if (retryAt !== undefined) {
      lease.mayExist = false;
      return this.hold(lease, retryAt);
    }
    // A request on its way, or one held back, goes on as it is.
    if (lease.phase === "asking" || lease.phase === "held") return this.arm(lease);
    if (lease.plan.earliestAt <= now) return this.ask(lease, false, now);
    this.outbox.unsend(lease.id);
    lease.clearRequest();
    lease.phase = "recovering";
    lease.dueAt = lease.plan.earliestAt;
    this.arm(lease);
  }

  /** What was asked for is not granted. A lease kept alive is asked for again at `retryAt`. */
  fail(lease: Lease, failure: Failure, retryAt: Instant, now: Instant): void {
    this.outbox.emit({ type: "failed", id: lease.id, failure }, lease.id);
    // Silence and nonsense leave it open what the server holds.
    if (failure.kind === "refused") lease.mayExist = false;
    lease.isFailed = true;
    if (!lease.isKeptAlive) return this.remove(lease, now);
    this.hold(lease, retryAt);
  }

  /** Leaves the lease alone until then. */
  hold(lease: Lease, until: Instant): void {
    this.outbox.unsend(lease.id);
    lease.clearRequest();
    lease.phase = "held";
    lease.isUnanswered = false;
    lease.dueAt = until;
    this.arm(lease);
  }

  /** The lease is gone as the application wished; with a failure where nobody confirmed it. */
  unmapped(
    lease: Lease,
    reason: "revoked" | "expired",
    now: Instant,
    failure?: Failure,
  ): void {
    const told = { type: "unmapped", id: lease.id, reason } as const;
    this.outbox.emit(failure ? { ...told, failure } : told, lease.id);
    this.remove(lease, now);
  }

  #isExhausted(attempt: number): boolean {
    return this.maxAttempts > 0 && attempt >= this.maxAttempts;
  }

  #blockedUntil({ isGranted }: Lease): Instant {
    return isGranted ? this.blockade.allUntil : this.blockade.newUntil;
  }

  #transmit(lease: Lease, now: Instant): void {
    this.#send(lease, now);
    lease.dueAt = lease.retransmission!.next(this.random, now);
    this.arm(lease);
  }

  #send(lease: Lease, now: Instant): void {
    const { sent } = this.stats;
    if (lease.packet) this.stats.retransmitted++;
    lease.packet ??= requestOf(lease, this.localAddress, now);
    if (lease.phase === "deleting") sent.delete++;
    else sent[lease.wish.kind]++;
    lease.mayExist = true;
    this.outbox.send("client", this.servers.current, lease.packet, lease.id);
  }
}
