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
import { equalBytes } from "../bytes.ts";
import type { Endpoint, Instant } from "../machine.ts";
import type { Failure, MappingId } from "../mapping.ts";
import { Outbox } from "../outbox.ts";
import { type RandomSource, uniform } from "../random.ts";
import { Timers } from "../timers.ts";
import {
  PCP_NONCE_LENGTH,
  PCP_NONCE_OFFSET,
  PCP_RESULT,
  type PcpMapResponseMessage,
  type PcpPeerResponseMessage,
  pcpResultName,
} from "./codec.ts";
import { mergeEvents } from "./events.ts";
import { grantedExternal, holdMs, isTransient, keepsPromise } from "./judge.ts";
import type { Lease } from "./lease.ts";
import { buildRequest, hasPaddedOptions, type Wish } from "./request.ts";
import { Retransmission } from "./retransmit.ts";
import { EXHAUSTED_WAIT_MS, ServerList } from "./servers.ts";
import { newStats } from "./stats.ts";
import type { DropReason, GrantedPortSet, PcpClientStats, PcpEvent } from "./types.ts";

/** How many deletions are sent before the lease is left to its end. */
const DELETE_ATTEMPTS = 4;
/** How long a server whose success cannot be one is left alone, milliseconds. */
const VIOLATION_WAIT_MS = 30_000;
/** An unsolicited success that changes less than this is a duplicate, milliseconds. */
const DUPLICATE_MS = 2000;

/** A MAP or PEER response. */
export type MappingResponse = PcpMapResponseMessage | PcpPeerResponseMessage;

/** The leases of one client. */
export class Engine {
  readonly outbox: Outbox<PcpEvent> = new Outbox(mergeEvents);
  readonly timers: Timers<MappingId> = new Timers();
  readonly leases: Map<MappingId, Lease> = new Map();
  readonly servers: ServerList;
  readonly stats: PcpClientStats = newStats();
  localAddress: string;
  readonly random: RandomSource;
  readonly fastStart: boolean;
  readonly maxAttempts: number;
  /** Those that are wanted, and those that are being deleted; either has one a key. */
  readonly #active = new Map<string, Lease>();
  readonly #leaving = new Map<string, Lease>();
  /** Those of the wanted ones that are for several ports. */
  readonly #sets = new Set<Lease>();
  /** Told after the leases have moved to the next address, or found that there is none. */
  onExhausted: (hasNext: boolean, failure: Failure, now: Instant) => void = () => {};
  #createBlockedUntil: Instant = -Infinity;
  #allBlockedUntil: Instant = -Infinity;

  constructor(
    servers: readonly Endpoint[],
    localAddress: string,
    random: RandomSource,
    fastStart: boolean,
    maxAttempts: number,
  ) {
    this.servers = new ServerList(servers);
    this.localAddress = localAddress;
    this.random = random;
    this.fastStart = fastStart;
    this.maxAttempts = maxAttempts;
  }

  /** The lease that is wanted under a key. */
  active(key: string): Lease | undefined {
    return this.#active.get(key);
  }

  /** The leases that are wanted. */
  wanted(): Iterable<Lease> {
    return this.#active.values();
  }

  /** The wanted leases that could overlap with a wish. */
  neighbours(wish: Wish): Iterable<Lease> {
    return wish.portSet ? this.#active.values() : this.#sets;
  }

  /** The lease of that key whose nonce stands in the packet, compared in place. */
  match(key: string, data: Uint8Array): Lease | "unmatched" | "wrong-nonce" {
    const active = this.#active.get(key), leaving = this.#leaving.get(key);
    // One that waits for its predecessor's deletion has asked for nothing, nonce or not.
    if (leaving && hasNonce(leaving, data)) return leaving;
    if (active && hasNonce(active, data)) return active;
    return active || leaving ? "wrong-nonce" : "unmatched";
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
    this.leases.set(lease.id, lease);
    this.#active.set(lease.key, lease);
    if (lease.wish.portSet) this.#sets.add(lease);
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
          return this.#unmapped(lease, "revoked", now, { kind: "no-answer" });
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
    if (this.#leaving.has(lease.key)) {
      // The deletion under way and this request could meet in the wrong order.
      lease.dueAt = undefined;
      return this.arm(lease);
    }
    const retryAt = this.#blockedUntil(lease);
    if (retryAt <= now) return this.ask(lease, true, now);
    const code = PCP_RESULT.NO_RESOURCES;
    this.#fail(lease, { kind: "refused", code, name: pcpResultName(code), retryAt }, retryAt, now);
  }

  /** Begins a request at the pace of a first one (`isFirst`) or of a recreation. */
  ask(lease: Lease, isFirst: boolean, now: Instant): void {
    const blockedUntil = this.#blockedUntil(lease);
    if (blockedUntil > now) return this.#hold(lease, blockedUntil);
    lease.clearRequest();
    lease.phase = "asking";
    lease.isUnanswered = false;
    lease.retransmission = new Retransmission(isFirst && this.fastStart);
    this.#transmit(lease, now);
  }

  /** Sends a renewal and plans the next. */
  renew(lease: Lease, now: Instant): void {
    if (this.#allBlockedUntil > now) {
      lease.dueAt = this.#allBlockedUntil;
      return this.arm(lease);
    }
    if (lease.phase !== "renewing") {
      const { isExtra } = lease;
      lease.clearRequest();
      lease.isExtra = isExtra;
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
    if (lease.wish.kind === "peer" || !lease.mayExist || this.#leaving.has(lease.key)) {
      return this.#unmapped(lease, "revoked", now);
    }
    this.#active.delete(lease.key);
    this.#sets.delete(lease);
    this.#leaving.set(lease.key, lease);
    lease.clearRequest();
    lease.phase = "deleting";
    lease.retransmission = new Retransmission(this.fastStart);
    if (this.#allBlockedUntil > now) {
      this.outbox.unsend(lease.id);
      lease.dueAt = this.#allBlockedUntil;
      return this.arm(lease);
    }
    this.#transmit(lease, now);
  }

  /** Forgets the lease: no packet, no event. */
  remove(lease: Lease, now: Instant): void {
    this.leases.delete(lease.id);
    this.timers.delete(lease.id);
    this.outbox.unsend(lease.id);
    this.#sets.delete(lease);
    if (this.#active.get(lease.key) === lease) this.#active.delete(lease.key);
    if (this.#leaving.get(lease.key) !== lease) return;
    this.#leaving.delete(lease.key);
    const successor = this.#active.get(lease.key);
    if (successor?.phase === "waiting") this.#start(successor, now);
  }

  /** Takes a success. False where it says nothing about the lease as it stands. */
  succeed(lease: Lease, response: MappingResponse, now: Instant): boolean {
    if (lease.phase === "deleting") {
      // What is no answer to the deletion is a late one to what was asked before.
      const isAnswer = response.lifetimeSeconds === 0 ||
        (response.externalPort === 0 && lease.wish.internalPort !== 0);
      if (!isAnswer) return this.drop("stale");
      this.#unmapped(lease, "revoked", now);
      return true;
    }
    if (response.lifetimeSeconds === 0) return this.#isGone(lease, now);
    const external = grantedExternal(lease, response);
    if (!external) return this.#violates(lease, "D-08", now);
    if (!keepsPromise(lease, external)) {
      if (lease.phase !== "asking" && !lease.isGranted) return this.drop("stale");
      this.#sendDelete(lease);
      if (!lease.isGranted) return this.#violates(lease, "PCP-C-48", now);
      this.#lose(lease, { kind: "protocol-violation", clause: "PCP-C-48" }, now);
      return true;
    }
    this.#grant(lease, external, response, now);
    return true;
  }

  #grant(lease: Lease, external: Endpoint, response: MappingResponse, now: Instant): void {
    const isSolicited = lease.isInFlight;
    const oldEnd = lease.expiresAt ?? -Infinity;
    if (lease.grants === 0) lease.grants = 1;
    else if (lease.phase === "renewing" && !lease.isExtra) lease.grants++;
    const told = lease.told;
    const type = lease.isLost
      ? "recovered"
      : !told
      ? "mapped"
      : told.address !== external.address || told.port !== external.port
      ? "moved"
      : "renewed";
    this.outbox.unsend(lease.id);
    lease.external = external;
    lease.description = undefined;
    lease.portSet = undefined;
    for (const option of response.options) {
      if (option.type === "description") lease.description = option.text;
      if (option.type === "port-set") lease.portSet = portSetOf(option);
    }
    lease.grant(response.lifetimeSeconds, now);
    if (lease.wantsRenewal) {
      lease.dueAt = lease.plan.next(now, lease.scheduledMs, this.random, now);
    }
    this.arm(lease);
    this.stats.granted++;
    if (type === "renewed" && !isSolicited && Math.abs(lease.expiresAt! - oldEnd) <= DUPLICATE_MS) {
      return;
    }
    lease.isLost = false;
    lease.isFailed = false;
    lease.told = external;
    const mapping = lease.snapshot(this.localAddress, this.servers.current);
    this.outbox.emit({ type, id: lease.id, mapping }, lease.id);
  }

  /** D-07: a success of no lifetime that answers no deletion. */
  #isGone(lease: Lease, now: Instant): boolean {
    if (lease.isGranted) {
      this.#lose(lease, { kind: "expired" }, now);
      return true;
    }
    return this.#violates(lease, "D-07", now);
  }

  /** A success that cannot be one: nothing where a grant is running, else the request failed. */
  #violates(lease: Lease, clause: string, now: Instant): boolean {
    if (lease.isGranted) return this.drop("violation");
    if (lease.phase !== "asking") return this.drop("stale");
    this.#fail(lease, { kind: "protocol-violation", clause }, now + VIOLATION_WAIT_MS, now);
    return true;
  }

  /** Takes a refusal. False where nothing was asked that it could answer. */
  refuse(lease: Lease, code: number, lifetimeSeconds: number, now: Instant): boolean {
    if (!lease.isInFlight && !lease.isGranted) return this.drop("stale");
    if (lease.phase === "held") return this.drop("stale");
    this.stats.refused++;
    const retryAt = now + holdMs(lifetimeSeconds);
    const isDelete = lease.phase === "deleting";
    if (code === PCP_RESULT.NO_RESOURCES) {
      this.#createBlockedUntil = Math.max(this.#createBlockedUntil, retryAt);
      if (isDelete) this.#allBlockedUntil = Math.max(this.#allBlockedUntil, retryAt);
    }
    if (code === PCP_RESULT.MALFORMED_OPTION && this.#leavesOutPadded(lease, now)) return true;
    const failure: Failure = { kind: "refused", code, name: pcpResultName(code), retryAt };
    // Whatever the reason, asking again would be the same request (PCP-C-22). miniupnpd answers
    // NO_RESOURCES where there is nothing to delete, which is what was wanted.
    if (isDelete) {
      const isNothing = code === PCP_RESULT.NO_RESOURCES;
      this.#unmapped(lease, "revoked", now, isNothing ? undefined : failure);
      return true;
    }
    if (!lease.isGranted) this.#fail(lease, failure, retryAt, now);
    else if (lease.phase === "renewing" && isTransient(code)) this.#hold(lease, retryAt);
    else this.#lose(lease, failure, now, retryAt);
    return true;
  }

  /** The server does not speak this version: ends a request in flight. */
  refuseVersion(lease: Lease, version: number, retryAt: Instant, now: Instant): void {
    const failure: Failure = { kind: "unsupported-version", version };
    if (lease.phase === "deleting") this.#unmapped(lease, "revoked", now, failure);
    else if (lease.isGranted) this.#lose(lease, failure, now, retryAt);
    else this.#fail(lease, failure, retryAt, now);
  }

  /** Asks once more without the options that miniupnpd 2.3.1 takes for malformed. */
  #leavesOutPadded(lease: Lease, now: Instant): boolean {
    if (!lease.isInFlight || lease.leavesOutPadded || !hasPaddedOptions(lease.wish)) return false;
    lease.leavesOutPadded = true;
    if (lease.phase !== "deleting") {
      this.ask(lease, !lease.isGranted, now);
      return true;
    }
    lease.packet = undefined;
    this.#transmit(lease, now);
    return true;
  }

  /** The address in use is given up: the next one, or, where none is left, a long wait. */
  exhaust(failure: Failure, now: Instant): void {
    const hasNext = this.servers.exhaust();
    for (const lease of this.leases.values()) {
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
    for (const lease of this.leases.values()) {
      if (lease.phase === "deleting") {
        this.#unmapped(lease, "revoked", now, { kind: "unreachable" });
      }
      // A running grant is renewed on schedule: the daemon may be restarting.
      if (lease.phase !== "asking" || lease.isGranted) continue;
      if (!lease.isKeptAlive) {
        this.#fail(lease, { kind: "unreachable" }, now, now);
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
    if (lease.phase === "deleting") return this.#unmapped(lease, "revoked", now, failure);
    const retryAt = now + EXHAUSTED_WAIT_MS;
    if (lease.isGranted) this.#hold(lease, retryAt);
    else this.#fail(lease, failure, retryAt, now);
    lease.isUnanswered = true;
  }

  /**
   * The server lost its state: every lease but `except` is asked for again, each within 5 s at a
   * moment of its own (PCP-C-52).
   */
  recover(except: Lease | undefined, now: Instant): void {
    this.wake(except, now);
    for (const lease of this.#active.values()) {
      const isAsking = lease.phase === "asking" || lease.phase === "recovering";
      if (lease !== except && lease.isGranted && !isAsking) this.#recoverSoon(lease, now);
    }
  }

  /** The server is there: all but `except` that would wait for longer leave within 5 s. */
  wake(except: Lease | undefined, now: Instant): void {
    for (const lease of this.#active.values()) {
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
    this.#createBlockedUntil = this.#allBlockedUntil = -Infinity;
    // Deletions name the old address, and a server takes them from there only (PCP-S-08).
    for (const lease of this.#leaving.values()) this.#unmapped(lease, "revoked", now);
    for (const lease of this.#active.values()) this.ask(lease, true, now);
  }

  #expire(lease: Lease, now: Instant): void {
    if (lease.phase === "deleting") return this.#unmapped(lease, "revoked", now);
    if (!lease.wantsRenewal) return this.#unmapped(lease, "expired", now);
    this.#lose(lease, { kind: "expired" }, now);
  }

  /** What was granted is no more. A lease kept alive is asked for again, at `retryAt` or at once. */
  #lose(lease: Lease, failure: Failure, now: Instant, retryAt?: Instant): void {
    lease.clearGrant();
    this.outbox.emit({ type: "lost", id: lease.id, failure }, lease.id);
    if (!lease.isKeptAlive) return this.remove(lease, now);
    lease.isLost = true;
    if (retryAt !== undefined) {
      lease.mayExist = false;
      return this.#hold(lease, retryAt);
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
  #fail(lease: Lease, failure: Failure, retryAt: Instant, now: Instant): void {
    this.outbox.emit({ type: "failed", id: lease.id, failure }, lease.id);
    // Silence and nonsense leave it open what the server holds.
    if (failure.kind === "refused") lease.mayExist = false;
    lease.isFailed = true;
    if (!lease.isKeptAlive) return this.remove(lease, now);
    this.#hold(lease, retryAt);
  }

  #hold(lease: Lease, until: Instant): void {
    this.outbox.unsend(lease.id);
    lease.clearRequest();
    lease.phase = "held";
    lease.isUnanswered = false;
    lease.dueAt = until;
    this.arm(lease);
  }

  #unmapped(
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

  #blockedUntil(lease: Lease): Instant {
    return lease.isGranted ? this.#allBlockedUntil : Math.max(
      this.#createBlockedUntil,
      this.#allBlockedUntil,
    );
  }

  #transmit(lease: Lease, now: Instant): void {
    this.#send(lease, now);
    lease.dueAt = lease.retransmission!.next(this.random, now);
    this.arm(lease);
  }

  #send(lease: Lease, now: Instant): void {
    const { sent } = this.stats;
    if (lease.packet) this.stats.retransmitted++;
    lease.packet ??= this.#build(lease, now);
    if (lease.phase === "deleting") sent.delete++;
    else sent[lease.wish.kind]++;
    lease.mayExist = true;
    this.outbox.send("client", this.servers.current, lease.packet, lease.id);
  }

  #build(lease: Lease, now: Instant): Uint8Array {
    const isWhole = lease.isExtra || lease.wantsRenewal || !lease.isGranted;
    return buildRequest(lease.wish, {
      nonce: lease.nonce,
      lifetimeSeconds: lease.phase === "deleting"
        ? 0
        : isWhole
        ? lease.lifetimeSeconds
        : lease.remainingSeconds(now),
      localAddress: this.localAddress,
      external: lease.external,
      replacesFilters: lease.external !== undefined,
      leavesOutPadded: lease.leavesOutPadded,
    });
  }

  /** Takes back, once and without waiting for an answer, what the server made against the wish. */
  #sendDelete(lease: Lease): void {
    this.stats.sent.delete++;
    const packet = buildRequest(lease.wish, {
      nonce: lease.nonce,
      lifetimeSeconds: 0,
      localAddress: this.localAddress,
      external: undefined,
      replacesFilters: false,
      leavesOutPadded: lease.leavesOutPadded,
    });
    this.outbox.send("client", this.servers.current, packet);
  }
}

function hasNonce(lease: Lease, data: Uint8Array): boolean {
  return equalBytes(lease.nonce, data, 0, PCP_NONCE_OFFSET, PCP_NONCE_LENGTH);
}

function portSetOf(option: GrantedPortSet): GrantedPortSet {
  const { size, firstInternalPort, parity } = option;
  return { size, firstInternalPort, parity };
}
