/**
 * Who makes a mapping: the protocols at a gateway race, and so do gateways where there are several
 * (RFC 8305's idea).
 *
 * What a protocol begins with, and which refusals say "not this way", stands in the table of
 * `client.ts`. One table may stand behind all protocols, so that only probes race, which change
 * nothing at the gateway; and a mapping is asked for by one alone at a time, the preferred one first:
 *
 *   the preferred one grants          → it holds, after one round trip
 *   it says that it is not spoken     → the next one maps as soon as its probe is answered
 *   only a less preferred one answers → that one maps after a grace of two round trips, 30…40 ms,
 *                                       at once where the others had their start of it
 *   a gateway refuses                 → no other way around at that gateway
 *   a gateway is out, or slow (1 s)   → the next gateway is asked, too
 *   a protocol costs the network more → it begins when the preferred ones have had two round trips,
 *                                       30 ms, without a grant, or are out
 *   all are out                       → failed; or, for what was held once, tried anew a minute later,
 *                                       those that were refused when the refusal's lifetime is over,
 *                                       those that cost the network more after 1, 2, 4… 16 minutes,
 *                                       and all when the network changes
 *
 * One that was asked and beaten is asked no more, but what it was asked may be granted yet. At the
 * gateway of the winner it is left alone, and deleted with it at the end: where one table stands
 * behind both it may be the same mapping. At another gateway, or with another port, it is not the
 * same, and is deleted at once.
 *
 * A silent gateway is asked until the owner revokes the mapping: the timeout is the caller's.
 * Nothing is remembered from one race to the next (PMP-C-33).
 *
 * @module
 */
import type { Instant } from "../machine.ts";
import { describeFailure, type Failure, type MappingId } from "../mapping.ts";
import type { Timers } from "../timers.ts";
import {
  clientRequest,
  type Contender,
  isUnused,
  type ManagedMapping,
  newContender,
} from "./managed.ts";
import type { Path, Speaker } from "./path.ts";
import { PROTOCOLS } from "./protocols.ts";

/** A round trip at home, where none has been measured. */
const ROUND_TRIP_MS = 15;
const GRACE_ROUND_TRIPS = 2;
const MIN_GRACE_MS = 30;
const MAX_GRACE_MS = 40;
/** First retransmissions of all protocols leave in step for this long; then their pace differs. */
const IN_STEP_MS = 1000;
/** How long the next gateway waits for the one before it. */
const STAGGER_MS = 1000;
/** How long those that are out rest before they are tried again. */
const RERACE_MS = 60_000;
/** Who costs the network more is left out of races to this number but for powers of two. */
const LONGEST_PAUSE_RACES = 16;

/** What a race needs of the mapper. */
export interface RaceHost {
  /** The next step of each managed mapping. */
  readonly timers: Timers<MappingId>;
  /** A managed mapping, or undefined where it is over. */
  find(id: MappingId): ManagedMapping | undefined;
  /** The ways that a mapping could be made by, the best first. */
  pathsFor(managed: ManagedMapping): readonly Path[];
  /** Why a speaker cannot do it, or undefined. */
  misfit(managed: ManagedMapping, speaker: Speaker): string | undefined;
  /** A speaker is about to be asked for it: what the mapper has there for itself gives way. */
  makeWay(managed: ManagedMapping, speaker: Speaker, now: Instant): void;
  /** Whether a gateway may join that is not open yet. */
  mayBeJoined(managed: ManagedMapping): boolean;
  /** Nobody can, and it was never held. */
  fail(managed: ManagedMapping, failure: Failure, now: Instant): void;
}

/** The races of one mapper. */
export class Race {
  readonly #host: RaceHost;
  /** How often one was raced anew since the grant, or a change of the network or the gateway. */
  readonly #vain: WeakMap<ManagedMapping, number> = new WeakMap();

  constructor(host: RaceHost) {
    this.#host = host;
  }

  /** Begins, or begins anew with those that are out: a request on its way goes on. */
  begin(managed: ManagedMapping, now: Instant): void {
    managed.retryAt = managed.nextGatewayAt = undefined;
    const known = managed.contenders;
    const contenders: Contender[] = [];
    for (const path of this.#host.pathsFor(managed)) {
      for (const speaker of path.speakers) {
        if (this.#host.misfit(managed, speaker) !== undefined) continue;
        const contender = known.find((one) => one.speaker === speaker) ?? newContender(speaker);
        const isDone = contender.state === "out" || contender.state === "beaten";
        if (isDone) this.#leave(managed, contender, "abandon", now);
        contenders.push(contender);
      }
    }
    // Of another family than is meant where there is a gateway of this one.
    for (const one of known) {
      if (!contenders.includes(one)) this.#leave(managed, one, "delete", now);
    }
    managed.contenders = contenders;
    for (const contender of contenders) {
      const { state, refusedUntil = -Infinity } = contender;
      if (state !== "out") continue;
      const isItsTurn = headStartMs(contender) === 0 || isForAll(this.#vain.get(managed) ?? 0);
      if (isItsTurn && refusedUntil <= now) contender.state = "waiting";
      // Those who begin may be silent for ever: nobody else would come back to who is left out.
      else if (managed.isLost) managed.retryAt = now + RERACE_MS;
    }
    this.#startNextGateway(managed, now);
  }

  /** A gateway has begun anew, or sees another host: what it refused counts no more. */
  forgive(managed: ManagedMapping, path: Path): void {
    this.#vain.delete(managed);
    for (const contender of managed.contenders) {
      if (contender.speaker.path === path) contender.refusedUntil = undefined;
    }
  }

  /** A gateway can be asked from now on. */
  join(managed: ManagedMapping, path: Path, now: Instant): void {
    const before = managed.contenders;
    if (before.some(({ speaker }) => speaker.path === path)) return;
    const joining = path.speakers.filter((speaker) =>
      this.#host.misfit(managed, speaker) === undefined
    ).map(newContender);
    if (joining.length === 0) return;
    managed.contenders = [...before, ...joining];
    if (!before.some(isInPlay)) this.#startNextGateway(managed, now);
    else managed.nextGatewayAt ??= now + STAGGER_MS;
    this.arm(managed);
  }

  /** A gateway is not this host's any more: what was asked there is taken back. */
  leave(managed: ManagedMapping, path: Path, now: Instant): void {
    for (const contender of managed.contenders) {
      if (contender.speaker.path === path) this.#leave(managed, contender, "delete", now);
    }
    managed.contenders = managed.contenders.filter(({ speaker }) => speaker.path !== path);
  }

  /** Where nobody is in play any more, the next gateway is asked, or it has failed. */
  check(managed: ManagedMapping, failure: Failure, now: Instant): void {
    this.#advance(managed, undefined, failure, now);
  }

  /** What is due for a mapping. */
  due(managed: ManagedMapping, now: Instant): void {
    if (managed.retryAt !== undefined && managed.retryAt <= now) {
      this.#vain.set(managed, (this.#vain.get(managed) ?? 0) + 1);
      return this.begin(managed, now);
    }
    if (managed.nextGatewayAt !== undefined && managed.nextGatewayAt <= now) {
      this.#startNextGateway(managed, now);
    }
    for (const contender of managed.contenders) {
      if (contender.at === undefined || contender.at > now) continue;
      if (contender.state === "ready") this.#take(managed, contender, now);
      else if (contender.state === "held-back") this.#startLate(managed, contender, now);
    }
    this.arm(managed);
  }

  /** Its holder is there no more, and does not know: it is forgotten there, without a packet. */
  dropHolder(managed: ManagedMapping, now: Instant): void {
    const { holder } = managed;
    if (holder) this.#leave(managed, holder, "abandon", now);
  }

  /** Nobody can, and it is wanted all the same: tried again in a while. */
  rest(managed: ManagedMapping, failure: Failure, now: Instant): void {
    const allowedAt = failure.kind === "refused" ? failure.retryAt : now;
    managed.retryAt = Math.max(allowedAt, now + RERACE_MS);
    this.arm(managed);
  }

  /** The network is another one, or may be: what was tried in vain is tried at once. */
  networkChanged(managed: ManagedMapping, now: Instant): void {
    if (!this.#vain.delete(managed)) return;
    this.begin(managed, now);
  }

  /**
   * Its gateway may have begun anew, or `by` has answered there: who rests tries at once. An answer is
   * no news of what that one has refused, nor of whom the network is spared.
   */
  wake(managed: ManagedMapping, by: Speaker | undefined, now: Instant): void {
    if (managed.contenders.some(isInPlay)) return;
    if (by === undefined) this.#vain.delete(managed);
    else {
      const answered = contenderOf(managed, by);
      if (!answered || (answered.refusedUntil ?? -Infinity) > now) return;
    }
    this.begin(managed, now);
  }

  /** Sets the mapping's timer. */
  arm(managed: ManagedMapping): void {
    let at = Math.min(managed.nextGatewayAt ?? Infinity, managed.retryAt ?? Infinity);
    for (const one of managed.contenders) {
      if (one.state === "ready" || one.state === "held-back") at = Math.min(at, one.at!);
    }
    if (at === Infinity) this.#host.timers.delete(managed.id);
    else this.#host.timers.set(managed.id, at, "race");
  }

  // ---- Answers -----------------------------------------------------------------------------

  /** The gateway speaks a protocol: it may map, at once or after a grace for better ones. */
  probeAnswered(speaker: Speaker, now: Instant): void {
    const roundTrips = GRACE_ROUND_TRIPS * (now - (speaker.probedAt ?? now));
    const grace = Math.min(MAX_GRACE_MS, Math.max(MIN_GRACE_MS, roundTrips));
    for (const { managed, contender } of this.#endProbe(speaker)) {
      contender.state = "ready";
      const better = betterOnes(managed, contender);
      // The answer belongs to a later probe: give the better ones the same chance.
      const late = better.filter(({ state, at }) =>
        state === "asking" && now - at! > IN_STEP_MS && !managed.isLost
      );
      for (const one of late) this.#ask(managed, one, now);
      // Who had a head start had all the round trips of this probe besides, which are several.
      const hadTheirs = headStartMs(contender) > 0 && late.length === 0;
      contender.at = now + (hadTheirs ? 0 : grace);
      // Whose own probe was answered is worth its retransmissions.
      for (const one of better) {
        if (hasAnswered(one)) contender.at = Math.max(contender.at, one.at! + IN_STEP_MS);
      }
      if (contender.at === now || !better.some(isInPlay)) this.#take(managed, contender, now);
      else this.arm(managed);
    }
  }

  /** The gateway does not speak a protocol. */
  probeFailed(speaker: Speaker, failure: Failure, now: Instant): void {
    for (const { managed, contender } of this.#endProbe(speaker)) {
      this.#dropOut(managed, contender, failure, now);
    }
  }

  /** A probe is over: who waited for it, one by one, since each may end what the next waited for. */
  *#endProbe(speaker: Speaker): Generator<{ managed: ManagedMapping; contender: Contender }> {
    speaker.probedAt = undefined;
    const waiting = [...speaker.probing];
    speaker.probing.clear();
    for (const id of waiting) {
      const managed = this.#host.find(id);
      const contender = managed && contenderOf(managed, speaker);
      if (managed && contender?.state === "probing") yield { managed, contender };
    }
  }

  /** A client has not been granted what it asked; without `retryAt` it asks for it no more. */
  failed(
    managed: ManagedMapping,
    contender: Contender,
    failure: Failure,
    retryAt: Instant | undefined,
    now: Instant,
  ): void {
    managed.note(contender.speaker, describeFailure(failure), now);
    contender.refusedUntil = refusedUntil(failure, retryAt);
    if (contender.state === "beaten") return this.#leave(managed, contender, "abandon", now);
    const ways = PROTOCOLS[contender.speaker.via]!.waysAround;
    if (failure.kind !== "refused" || ways.includes(failure.code)) {
      return this.#dropOut(managed, contender, failure, now);
    }
    if (managed.isLost) {
      if (retryAt === undefined) this.#leave(managed, contender, "abandon", now);
      return this.refusedWhileLost(managed, contender, failure.retryAt);
    }
    managed.refusal = failure;
    for (const one of managed.contenders) {
      if (one.speaker.path === contender.speaker.path) this.#leave(managed, one, "delete", now);
    }
    this.#advance(managed, undefined, failure, now);
  }

  /**
   * Who was refused waits where it is: its client asks again when its time has come. Where that is
   * met with silence, the gateway may have changed its protocol.
   */
  refusedWhileLost(managed: ManagedMapping, contender: Contender, retryAt: Instant): void {
    for (const one of managed.contenders) {
      if (one === contender) continue;
      const isAsked = one.state === "probing" || one.state === "ready";
      if (isAsked || one.state === "held-back") this.#stopProbing(managed, one);
    }
    managed.nextGatewayAt = undefined;
    managed.retryAt = retryAt + RERACE_MS;
    this.arm(managed);
  }

  /** One has been granted the mapping: the others are beaten. */
  won(managed: ManagedMapping, winner: Contender, now: Instant): void {
    managed.nextGatewayAt = managed.retryAt = undefined;
    managed.refusal = undefined;
    this.#vain.delete(managed);
    for (const one of managed.contenders) {
      if (one === winner) continue;
      if (one.state === "asking") this.#beat(one, winner, now);
      else if (one.state !== "beaten") this.#stopProbing(managed, one);
    }
    winner.state = "holding";
    winner.at = undefined;
    this.arm(managed);
  }

  /** What beaten ones were granted after all is deleted where it is not what the winner holds. */
  endLate(managed: ManagedMapping, now: Instant): void {
    const { holder, granted } = managed;
    if (!holder || !granted) return;
    for (const { state, speaker, id, latePort } of managed.contenders) {
      if (state !== "beaten" || id === undefined || latePort === undefined) continue;
      const mayBeTheSame = holder.speaker.path === speaker.path &&
        granted.external.port === latePort;
      if (!mayBeTheSame) speaker.client.revoke(id, now);
    }
  }

  /** Ends all that was asked: what the gateways may hold is deleted, and each tells. */
  revoke(managed: ManagedMapping, now: Instant): void {
    managed.nextGatewayAt = managed.retryAt = undefined;
    for (const contender of managed.contenders) {
      forgetUnused(contender);
      if (contender.id !== undefined) contender.speaker.client.revoke(contender.id, now);
      else this.#stopProbing(managed, contender);
    }
    this.arm(managed);
  }

  /** Nobody can: what beaten ones may have been granted unheard is no use. */
  giveBack(managed: ManagedMapping, now: Instant): void {
    for (const one of managed.contenders) {
      if (one.state === "beaten") this.#leave(managed, one, "delete", now);
    }
  }

  /** Forgets all that was asked: no packet. */
  forget(managed: ManagedMapping, now: Instant): void {
    this.#host.timers.delete(managed.id);
    for (const contender of managed.contenders) this.#leave(managed, contender, "abandon", now);
    managed.contenders = [];
  }

  // ---- Steps -------------------------------------------------------------------------------

  #startNextGateway(managed: ManagedMapping, now: Instant): void {
    managed.nextGatewayAt = undefined;
    const next = managed.contenders.find(({ state }) => state === "waiting")?.speaker.path;
    if (!next) return this.#advance(managed, undefined, { kind: "no-answer" }, now);
    const starting = managed.contenders.filter(({ speaker, state }) =>
      speaker.path === next && state === "waiting"
    );
    for (const contender of starting) this.#startInTurn(managed, contender, now);
    const hasMore = managed.contenders.some(({ state }) => state === "waiting");
    if (hasMore) managed.nextGatewayAt = now + STAGGER_MS;
    this.arm(managed);
  }

  /** Starts one, or holds it back as long as preferred ones may be granted. */
  #startInTurn(managed: ManagedMapping, contender: Contender, now: Instant): void {
    const headStart = headStartMs(contender);
    if (headStart === 0 || !betterOnes(managed, contender).some(isInPlay)) {
      return this.#start(managed, contender, now);
    }
    contender.state = "held-back";
    contender.at = now + headStart;
  }

  /** Its head start is over; where a preferred one is about to map it goes on. */
  #startLate(managed: ManagedMapping, contender: Contender, now: Instant): void {
    const isReady = betterOnes(managed, contender).some(({ state }) => state === "ready");
    if (isReady) contender.at = now + headStartMs(contender);
    else this.#start(managed, contender, now);
  }

  #start(managed: ManagedMapping, contender: Contender, now: Instant): void {
    const { speaker } = contender;
    if (PROTOCOLS[speaker.via]!.begins === "map") return this.#ask(managed, contender, now);
    contender.state = "probing";
    speaker.probing.add(managed.id);
    speaker.probe(now);
  }

  #ask(managed: ManagedMapping, contender: Contender, now: Instant): void {
    const { speaker } = contender;
    this.#leave(managed, contender, "abandon", now);
    this.#host.makeWay(managed, speaker, now);
    const request = clientRequest(managed, speaker);
    contender.id = speaker.client.map(request, now);
    // What has failed at once has none any more: the gateway may know it by the one before.
    contender.nonce = speaker.client.nonceOf?.(contender.id) ?? contender.nonce;
    contender.state = "asking";
    contender.at = now;
    speaker.managed.set(contender.id, managed.id);
  }

  /** Maps although better ones have not answered. */
  #take(managed: ManagedMapping, contender: Contender, now: Instant): void {
    for (const one of betterOnes(managed, contender)) {
      if (one.state === "asking") this.#beat(one, contender, now);
      else if (one.state === "probing" || one.state === "ready") this.#stopProbing(managed, one);
    }
    this.#ask(managed, contender, now);
    // Whose turn it is has a round trip before it: those that are held back wait for that, too.
    for (const one of managed.contenders) {
      if (one.state === "held-back") one.at = now + headStartMs(one);
    }
    this.arm(managed);
  }

  /** Asks one no more. At another gateway what it made is no use: it is deleted at once. */
  #beat(contender: Contender, by: Contender, now: Instant): void {
    contender.state = "beaten";
    forgetUnused(contender);
    const { client, path } = contender.speaker;
    if (path === by.speaker.path) client.withdraw(contender.id!, now);
    else client.revoke(contender.id!, now);
  }

  /** One is out; who has answered a probe and has no better one in play takes its turn. */
  #dropOut(managed: ManagedMapping, contender: Contender, failure: Failure, now: Instant): void {
    managed.note(contender.speaker, describeFailure(failure), now);
    if (failure.kind === "refused") managed.refusal = failure;
    // What was not answered may have been heard.
    const mayExist = failure.kind === "no-answer" || failure.kind === "protocol-violation";
    this.#leave(managed, contender, mayExist ? "delete" : "abandon", now);
    this.#advance(managed, contender.speaker.path, failure, now);
  }

  #advance(
    managed: ManagedMapping,
    path: Path | undefined,
    failure: Failure,
    now: Instant,
  ): void {
    const first = managed.contenders.find((one) => one.speaker.path === path && isInPlay(one));
    if (first?.state === "ready") return this.#take(managed, first, now);
    if (first?.state === "held-back") this.#start(managed, first, now);
    const hasWaiting = managed.contenders.some(({ state }) => state === "waiting");
    if (!first && hasWaiting) {
      // Where the next one goes on asking, those that are out are tried again.
      managed.retryAt ??= now + RERACE_MS;
      return this.#startNextGateway(managed, now);
    }
    if (managed.contenders.some(isInPlay)) managed.retryAt ??= now + RERACE_MS;
    else if (managed.isLost) managed.retryAt = now + RERACE_MS;
    else if (!this.#host.mayBeJoined(managed)) {
      return this.#host.fail(managed, managed.refusal ?? failure, now);
    }
    this.arm(managed);
  }

  #stopProbing(managed: ManagedMapping, contender: Contender): void {
    contender.speaker.probing.delete(managed.id);
    contender.state = "out";
  }

  /** Takes back what a contender asked; `delete` deletes what the gateway may have made of it. */
  #leave(
    managed: ManagedMapping,
    contender: Contender,
    how: "delete" | "abandon",
    now: Instant,
  ): void {
    const { speaker, id } = contender;
    speaker.probing.delete(managed.id);
    forgetUnused(contender);
    if (id !== undefined && speaker.managed.delete(id)) {
      if (how === "delete") speaker.client.revoke(id, now);
      else speaker.client.abandon(id, now);
    }
    contender.id = contender.latePort = undefined;
    contender.state = "out";
  }
}

/** Whether race `n` after the first is one for those, too, that cost the network more. */
function isForAll(n: number): boolean {
  return n < LONGEST_PAUSE_RACES ? (n & (n - 1)) === 0 : n % LONGEST_PAUSE_RACES === 0;
}

/** A nonce that has not left is no key to anything at its gateway: the next request has another one. */
function forgetUnused(contender: Contender): void {
  if (isUnused(contender)) contender.nonce = undefined;
}

/** Whether it may still win. */
function isInPlay({ state }: Contender): boolean {
  return state === "held-back" || state === "probing" || state === "ready" ||
    state === "asking" || state === "holding";
}

/** Whether its gateway has answered it in this race: it is about to map, or asking for that. */
function hasAnswered({ speaker, state, at }: Contender): boolean {
  // Who has lost it asks on, and has answered nothing.
  if (at === undefined) return false;
  return state === "ready" || (state === "asking" && PROTOCOLS[speaker.via]!.begins === "probe");
}

/** Until when a failure leaves its protocol alone, whoever races (PCP-C-22, PCP-C-28). */
export function refusedUntil(failure: Failure, retryAt: Instant | undefined): Instant | undefined {
  if (failure.kind === "refused") return failure.retryAt;
  return failure.kind === "unsupported-version" ? retryAt : undefined;
}

/** For how long it leaves the preferred ones alone. */
function headStartMs({ speaker }: Contender): number {
  return PROTOCOLS[speaker.via]!.headStartRoundTrips * ROUND_TRIP_MS;
}

/** The contender of a speaker. */
export function contenderOf(
  managed: ManagedMapping,
  speaker: Speaker,
): Contender | undefined {
  return managed.contenders.find((one) => one.speaker === speaker);
}

/** Those at the same gateway that are preferred. */
function betterOnes(managed: ManagedMapping, contender: Contender): readonly Contender[] {
  const own = managed.contenders.filter(({ speaker }) => speaker.path === contender.speaker.path);
  return own.slice(0, own.indexOf(contender));
}
