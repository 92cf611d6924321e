/**
 * What moves the claims of one gateway session; `session.ts` tells the theory.
 *
 * @module
 */
import type { Instant } from "../machine.ts";
import { describeFailure, type Failure, type MappingId, type Transport } from "../mapping.ts";
import type { NatPmpClient } from "../natpmp/client.ts";
import type { Outbox } from "../outbox.ts";
import type { PcpClient } from "../pcp/client.ts";
import { PCP_RESULT } from "../pcp/constants.ts";
import { Timers } from "../timers.ts";
import type { ClaimBook } from "./book.ts";
import {
  type Claim,
  codeOf,
  retryAfter,
  sameExternal,
  toNatPmpRequest,
  toPcpRequest,
} from "./claim.ts";
import type { GrantedMapping, SessionEvent } from "./events.ts";
import { savedKey, toSaved } from "./saved.ts";

const GRACE_ROUND_TRIPS = 2;
const MIN_GRACE_MS = 30;
const MAX_GRACE_MS = 40;
/** First retransmissions of both protocols leave in step for this long; then their pace differs. */
const IN_STEP_MS = 1000;
/** How long a lost mapping rests before it is tried again by all protocols, milliseconds. */
const RERACE_MS = 60_000;
/** The key of the probe, beside the ids of claims. */
export const PROBE = "probe";

/** PCP results that say "not this way" rather than "no": NAT-PMP may still do it. */
const WAYS_AROUND: readonly number[] = [
  PCP_RESULT.UNSUPP_VERSION,
  PCP_RESULT.MALFORMED_REQUEST,
  PCP_RESULT.UNSUPP_OPCODE,
];

/** What the claims work with. */
export interface ClaimsOptions {
  readonly pcp: PcpClient;
  /** Absent over IPv6, which NAT-PMP does not know. */
  readonly natPmp: NatPmpClient | undefined;
  readonly outbox: Outbox<SessionEvent>;
}

/** What moves the claims of one session. */
export class Claims {
  /** The claims themselves. */
  readonly book: ClaimBook;
  /** Claims settled by each protocol. */
  readonly settled: { pcp: number; natPmp: number } = { pcp: 0, natPmp: 0 };
  /** Graces, rests of lost claims, and the next probe. */
  readonly timers: Timers<MappingId | typeof PROBE> = new Timers();
  /** Whether the application asked for the external address. */
  isAddressWanted = false;
  readonly #options: ClaimsOptions;
  readonly #removingAll: Map<Transport, Claim> = new Map();
  /** Racing claims that NAT-PMP may still win. */
  readonly #mayNatPmp: Set<Claim> = new Set();
  #probeSentAt: Instant | undefined;

  constructor(book: ClaimBook, options: ClaimsOptions) {
    this.book = book;
    this.#options = options;
  }

  /** What is due of graces, rests and probes. */
  handleTimeout(now: Instant): void {
    for (let key = this.timers.popDue(now); key !== undefined; key = this.timers.popDue(now)) {
      const claim = key === PROBE ? undefined : this.book.get(key);
      if (key === PROBE) this.probe(now);
      else if (claim?.phase === "racing") {
        if (claim.isProbeAnswered) this.takeNatPmp(claim, now);
        else this.race(claim, now);
      } else if (claim?.isLost) this.#widen(claim, now);
    }
  }

  /** Ends the claim but leaves the mapping at the gateway until its lifetime is over. */
  abandon(claim: Claim, now: Instant): void {
    if (claim.granted) this.book.saved.set(savedKey(claim.request), toSaved(claim, claim.granted));
    this.#leavePcp(claim, now);
    this.#leaveNatPmp(claim, now);
    this.forget(claim, now);
  }

  /** Deletes all of this host's NAT-PMP mappings of one protocol. */
  removeAll(protocol: Transport, now: Instant): Claim {
    const claim = this.book.create({ protocol, internalPort: 0 }, "removing", now);
    this.#removingAll.set(protocol, claim);
    this.#options.natPmp?.revokeAll(protocol, now);
    return claim;
  }

  /** NAT-PMP deleted all mappings of a protocol, or is past asking. */
  allRemoved(protocol: Transport, failure: Failure | undefined, now: Instant): void {
    const claim = this.#removingAll.get(protocol);
    this.#removingAll.delete(protocol);
    if (claim) this.partUnmapped(claim, "nat-pmp", "revoked", failure, now);
  }

  /** Asks PCP, and NAT-PMP whether it is there. */
  race(claim: Claim, now: Instant): void {
    const vias = this.book.vias(claim.request);
    claim.phase = "racing";
    claim.since = now;
    claim.attempts = [];
    claim.isProbeAnswered = false;
    if (vias.includes("pcp")) this.#askPcp(claim, now);
    if (!vias.includes("nat-pmp")) return;
    this.#mayNatPmp.add(claim);
    this.probe(now);
  }

  #askPcp(claim: Claim, now: Instant): void {
    if (claim.pcp !== undefined) this.#leavePcp(claim, now);
    const { request } = claim;
    claim.pcp = "remote" in request
      ? this.#options.pcp.peer({ ...toPcpRequest(claim), remote: request.remote }, now)
      : this.#options.pcp.map(toPcpRequest(claim), now);
    claim.pcpSince = now;
    this.book.byPcp.set(claim.pcp, claim);
  }

  #leavePcp(claim: Claim, now: Instant): void {
    if (claim.pcp === undefined) return;
    this.#options.pcp.abandon(claim.pcp, now);
    this.book.byPcp.delete(claim.pcp);
    claim.pcp = undefined;
  }

  #leaveNatPmp(claim: Claim, now: Instant): void {
    if (claim.natPmp === undefined) return;
    this.#options.natPmp?.abandon(claim.natPmp, now);
    this.book.byNatPmp.delete(claim.natPmp);
    claim.natPmp = undefined;
  }

  /** Asks for NAT-PMP's external address, the probe that all racing claims share. */
  probe(now: Instant): void {
    if (this.#probeSentAt !== undefined) return;
    this.timers.delete(PROBE);
    this.#probeSentAt = now;
    this.#options.natPmp?.externalAddress(now);
  }

  /** Whether the application asked for the external address; it has its answer. */
  takeWish(): boolean {
    const isWanted = this.isAddressWanted;
    this.isAddressWanted = false;
    return isWanted;
  }

  /** The gateway spoke up by PCP: asks NAT-PMP for its epoch, if that one holds mappings. */
  checkNatPmp(now: Instant): void {
    if (this.book.byNatPmp.size === 0) return;
    this.probe(now);
  }

  /** The gateway restarted, says NAT-PMP: asks PCP for its epoch, if that one holds mappings. */
  checkPcp(now: Instant): void {
    if (this.book.byPcp.size > 0) this.#options.pcp.announce(now);
  }

  /** Stops asking for NAT-PMP when nobody waits for it. */
  endIdleProbe(now: Instant): void {
    if (this.isAddressWanted || this.#mayNatPmp.size > 0) return;
    // What NAT-PMP holds is told with the address: the question goes on being asked with renewals.
    if (this.book.byNatPmp.size > 0) return;
    this.timers.delete(PROBE);
    if (this.#probeSentAt === undefined) return;
    this.#probeSentAt = undefined;
    this.#options.natPmp?.cancelExternalAddress(now);
  }

  /** The gateway speaks NAT-PMP, which may take what PCP does not; PCP's silence after a grace. */
  probeAnswered(now: Instant): void {
    const roundTrips = GRACE_ROUND_TRIPS * (now - (this.#probeSentAt ?? now));
    const grace = Math.min(MAX_GRACE_MS, Math.max(MIN_GRACE_MS, roundTrips));
    this.#probeSentAt = undefined;
    for (const claim of [...this.#mayNatPmp]) {
      if (claim.isProbeAnswered) continue;
      claim.isProbeAnswered = true;
      if (claim.pcp === undefined) {
        this.takeNatPmp(claim, now);
        continue;
      }
      // The answer belongs to a later probe: give PCP the same chance.
      if (now - claim.pcpSince > IN_STEP_MS) this.#askPcp(claim, now);
      this.timers.set(claim.id, now + grace, "grace for PCP");
    }
  }

  /** The gateway does not speak NAT-PMP, or has no external address to tell. */
  probeFailed(failure: Failure, now: Instant): void {
    this.#probeSentAt = undefined;
    for (const claim of [...this.#mayNatPmp]) {
      // Where PCP goes on asking for a lost mapping, so does NAT-PMP; else both rest, then race.
      const goesOn = claim.isLost && claim.pcp !== undefined;
      if (goesOn) this.timers.set(PROBE, now + RERACE_MS, "NAT-PMP probe");
      else this.#dropOut(claim, "nat-pmp", failure, now);
    }
  }

  /** NAT-PMP makes the mapping. */
  takeNatPmp(claim: Claim, now: Instant): void {
    this.timers.delete(claim.id);
    this.#mayNatPmp.delete(claim);
    if (claim.pcp !== undefined) this.book.note(claim, "pcp", "no answer", now);
    this.#leavePcp(claim, now);
    claim.natPmp = this.#options.natPmp!.map(toNatPmpRequest(claim), now);
    this.book.byNatPmp.set(claim.natPmp, claim);
  }

  /** One protocol is out of the race; the last one out ends it. */
  #dropOut(claim: Claim, via: "pcp" | "nat-pmp", failure: Failure, now: Instant): void {
    this.book.note(claim, via, describeFailure(failure), now);
    if (via === "pcp") this.#leavePcp(claim, now);
    else {
      this.#leaveNatPmp(claim, now);
      this.#mayNatPmp.delete(claim);
    }
    if (claim.pcp !== undefined || claim.natPmp !== undefined) return;
    if (this.#mayNatPmp.has(claim)) {
      if (claim.isProbeAnswered) this.takeNatPmp(claim, now);
      else this.probe(now);
    } else if (claim.isLost) {
      // It may have been held by the protocol that is out: the timer is for racing claims.
      claim.phase = "racing";
      claim.isProbeAnswered = false;
      this.timers.set(claim.id, now + RERACE_MS, "try a lost mapping again");
    } else this.#fail(claim, failure, now);
  }

  #fail(claim: Claim, failure: Failure, now: Instant): void {
    const attempts = this.book.attempts(claim, now);
    this.forget(claim, now);
    const told = { code: codeOf(failure), attempts, ...retryAfter(failure, now) };
    this.#options.outbox.emit({ type: "failed", id: claim.id, ...told }, claim.id);
  }

  /** A protocol granted or renewed it. */
  hold(
    claim: Claim,
    via: "pcp" | "nat-pmp",
    granted: GrantedMapping,
    revision: number,
    now: Instant,
  ): void {
    this.timers.delete(claim.id);
    this.#mayNatPmp.delete(claim);
    if (claim.phase === "racing") {
      this.settled[via === "pcp" ? "pcp" : "natPmp"]++;
      this.book.note(claim, via, "mapped", now);
      claim.phase = "held";
    }
    const before = claim.granted;
    const type = !before || !claim.isTold
      ? "mapped"
      : claim.isLost
      ? "recovered"
      : sameExternal(before, granted)
      ? "renewed"
      : "moved";
    claim.granted = granted;
    claim.wish = granted.external;
    claim.isLost = false;
    claim.isTold = true;
    this.#options.outbox.emit({ type, id: claim.id, mapping: granted, revision }, claim.id);
    this.endIdleProbe(now);
  }

  /** The gateway holds it no more; races again unless it was refused. */
  lose(claim: Claim, failure: Failure, now: Instant): void {
    claim.isLost = true;
    // Who has not heard of the grant will hear of the next one as the first.
    if (this.#options.outbox.pendingEvent(claim.id)?.type === "mapped") claim.isTold = false;
    this.#options.outbox.emit({ type: "lost", id: claim.id, failure }, claim.id);
    if (failure.kind === "refused") this.#waitWhereItIs(claim, failure.retryAt);
    else this.#raceAnew(claim, now);
  }

  /**
   * Who was refused waits where it is: the client asks again when the hold time is over. Where that
   * is met with silence, the gateway may have changed its protocol.
   */
  #waitWhereItIs(claim: Claim, retryAt: Instant): void {
    this.timers.set(claim.id, retryAt + RERACE_MS, "try a refused mapping by all protocols");
  }

  /** Lets the other protocol join in asking for a lost mapping; PCP's request goes on as it is. */
  #widen(claim: Claim, now: Instant): void {
    if (claim.pcp === undefined) return this.#raceAnew(claim, now);
    if (!this.book.vias(claim.request).includes("nat-pmp")) return;
    claim.phase = "racing";
    claim.isProbeAnswered = false;
    this.#mayNatPmp.add(claim);
    this.probe(now);
  }

  #raceAnew(claim: Claim, now: Instant): void {
    this.#leavePcp(claim, now);
    this.#leaveNatPmp(claim, now);
    this.race(claim, now);
  }

  /**
   * Deletes what this session does not hold. Where nobody knows by which protocol it was made,
   * NAT-PMP goes first and PCP after it: miniupnpd's NAT-PMP confirms also what it does not do, and
   * PCP tells whether something is left.
   */
  remove(claim: Claim, now: Instant): void {
    const { protocol, internalPort } = claim.request;
    const saved = this.book.saved.get(savedKey(claim.request));
    const vias = this.book.vias(claim.request).filter((via) => !saved || via === saved.via);
    claim.isPcpNext = vias.includes("pcp");
    if (vias.includes("nat-pmp")) {
      claim.natPmp = this.#options.natPmp!.unmap({ protocol, internalPort }, now);
      this.book.byNatPmp.set(claim.natPmp, claim);
    } else if (claim.isPcpNext) this.#removeByPcp(claim, now);
    else this.#unmapped(claim, "revoked", undefined, now);
  }

  #removeByPcp(claim: Claim, now: Instant): void {
    claim.isPcpNext = false;
    claim.pcp = this.#options.pcp.unmap(toPcpRequest(claim), now);
    this.book.byPcp.set(claim.pcp, claim);
  }

  /** Deletes what is held or asked for. */
  revoke(claim: Claim, now: Instant): void {
    this.book.unwant(claim);
    this.#mayNatPmp.delete(claim);
    this.timers.delete(claim.id);
    if (claim.pcp !== undefined) this.#options.pcp.revoke(claim.pcp, now);
    if (claim.natPmp !== undefined) this.#options.natPmp?.revoke(claim.natPmp, now);
    if (claim.pcp === undefined && claim.natPmp === undefined) {
      this.#unmapped(claim, "revoked", undefined, now);
    }
    this.endIdleProbe(now);
  }

  /** One protocol deleted its part, or is past asking. */
  partUnmapped(
    claim: Claim,
    via: "pcp" | "nat-pmp",
    reason: "revoked" | "expired",
    failure: Failure | undefined,
    now: Instant,
  ): void {
    this.book.note(claim, via, failure ? describeFailure(failure) : "unmapped", now);
    if (via === "pcp") this.#leavePcp(claim, now);
    else this.#leaveNatPmp(claim, now);
    if (claim.isPcpNext) return this.#removeByPcp(claim, now);
    if (claim.pcp !== undefined || claim.natPmp !== undefined) return;
    this.#unmapped(claim, reason, failure, now);
  }

  #unmapped(
    claim: Claim,
    reason: "revoked" | "expired",
    failure: Failure | undefined,
    now: Instant,
  ): void {
    const { attempts } = claim;
    const isDone = failure?.kind !== "refused" &&
      attempts.some((attempt) => attempt.outcome === "unmapped");
    if (isDone || reason === "expired") this.book.saved.delete(savedKey(claim.request));
    this.forget(claim, now);
    const told = { reason, attempts, ...(failure && !isDone ? { failure } : {}) };
    this.#options.outbox.emit({ type: "unmapped", id: claim.id, ...told }, claim.id);
  }

  /** Ends the claim without a word. */
  forget(claim: Claim, now: Instant): void {
    this.timers.delete(claim.id);
    this.#mayNatPmp.delete(claim);
    this.book.delete(claim);
    this.endIdleProbe(now);
  }

  /** A protocol failed it: by a refusal, which ends the claim, or as one that is not spoken. */
  refusedOrOut(claim: Claim, via: "pcp" | "nat-pmp", failure: Failure, now: Instant): void {
    const isRefusal = failure.kind === "refused" &&
      !(via === "pcp" && WAYS_AROUND.includes(failure.code));
    if (!isRefusal) return this.#dropOut(claim, via, failure, now);
    this.book.note(claim, via, describeFailure(failure), now);
    if (claim.isLost) {
      claim.phase = "held";
      this.#mayNatPmp.delete(claim);
      this.#waitWhereItIs(claim, failure.retryAt);
      return this.endIdleProbe(now);
    }
    this.#leavePcp(claim, now);
    this.#leaveNatPmp(claim, now);
    this.#fail(claim, failure, now);
  }
}
