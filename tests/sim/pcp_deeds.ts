/**
 * What a client does by PCP, judged packet by packet (RFC 6887): the model hears what is sent and
 * received and what the application commands, and knows for each mapping when its next packet is
 * due, what it has to say and which answer may be believed.
 *
 * @module
 */
import { toHex } from "../../core/bytes.ts";
import { anyAddress, familyOf } from "../../core/ip.ts";
import type { Endpoint, Instant } from "../../core/machine.ts";
import { PROTOCOL_NUMBER } from "../../core/mapping.ts";
import * as pcp from "../../core/pcp/codec.ts";
import { EpochReference } from "./epoch_reference.ts";
import { deletionFault, faultOf, isFor, type MappingRequest, thirdPartyOf } from "./pcp_fields.ts";
import { PcpMapping } from "./pcp_mapping.ts";
import {
  breach,
  type External,
  isPcpOnly,
  isSame,
  isSameMapping,
  newWish,
  owe,
  type Watch,
  type Wish,
} from "./wish.ts";
import {
  at,
  between,
  isWithin,
  misses,
  PCP_DELETIONS,
  pcpHoldMs,
  PcpSeries,
  RECREATION_MS,
  RENEWAL_GAP_MS,
  restMs,
  SLACK_MS,
  versionHoldMs,
  type Window,
  YOUNG_TABLE_SECONDS,
} from "./windows.ts";

type MappingResponse = pcp.PcpMapResponseMessage | pcp.PcpPeerResponseMessage;

const { NO_RESOURCES, MALFORMED_OPTION, CANNOT_PROVIDE_EXTERNAL } = pcp.PCP_RESULT;
/** RFC 6887 §7.4's short lifetime, for a success that cannot be one. */
const VIOLATION_MS = 30_000;
/** An unasked answer that changes less is a duplicate. */
const DUPLICATE_MS = 2000;
/** An ANNOUNCE is no wish for a mapping: so many, then its answer is not to come. */
const PROBES = 4;
/** How long a session rests between two races for what it lost. */
const RERACE_MS = 60_000;
/** The lifetime of a mapping that is made to learn the external address. */
const LONGEST_QUESTION_SECONDS = 120;
/** No two requests are closer, whatever the reason. */
const LEAST_GAP_MS = 248;

/** The deeds of one client towards one PCP server. */
export class PcpDeeds {
  readonly epoch: EpochReference = new EpochReference("pcp");
  localAddress: string;
  /** A loss of state is to be told. */
  owesRestart = false;
  readonly #watch: Watch;
  readonly #server: Endpoint;
  readonly #wishes: readonly Wish[];
  #all: PcpMapping[] = [];
  /** What was ever asked for. */
  readonly #mine = new Set<Wish>();
  readonly #byNonce = new Map<string, PcpMapping>();
  /** NO_RESOURCES: nothing new before then (PCP-C-42). */
  #noNewUntil: Instant = -Infinity;
  /** When there may be room again. */
  #roomAt: readonly Instant[] = [];
  /** Whether the server has answered since the program began, or the network changed. */
  #hasAnswered = false;
  #probe: PcpSeries | undefined;
  #mayProbe = false;
  #answeredLast: PcpMapping | undefined;

  constructor(watch: Watch, server: Endpoint, localAddress: string, wishes: readonly Wish[]) {
    this.#watch = watch;
    this.#wishes = wishes;
    this.#server = server;
    this.localAddress = localAddress;
  }

  /** The mapping of a wish that is not over, the one that is wanted before one that is leaving. */
  of(wish: Wish): PcpMapping | undefined {
    let leaving: PcpMapping | undefined;
    for (const mapping of this.#all) {
      if (mapping.wish !== wish || mapping.phase === "over") continue;
      if (mapping.phase !== "deleting") return mapping;
      leaving = mapping;
    }
    return leaving;
  }

  // ---- Commands ----------------------------------------------------------------------------

  /** The application asks, or the client does for what was saved. */
  wanted(wish: Wish, now: Instant, isAdopted = false): PcpMapping {
    const mapping = new PcpMapping(wish);
    if (wish.savedNonce !== undefined) {
      mapping.nonce = wish.savedNonce;
      this.#byNonce.set(mapping.nonce, mapping);
      this.#watch.nonces.set(mapping.nonce, wish);
      // A session keeps what it saved; who adopts takes it up once.
      if (!this.#watch.isSession) wish.savedNonce = undefined;
    }
    if (isAdopted) mapping.mayExistUntil = Infinity;
    this.#all = this.#all.filter(({ phase }) => phase !== "over");
    this.#all.push(mapping);
    if (this.#predecessor(mapping)) return mapping;
    this.#start(mapping, now, isAdopted ? "its adoption" : "the application's wish");
    return mapping;
  }

  /** The application claims what was adopted: nothing is asked anew, but bytes may change. */
  claimed(mapping: PcpMapping): void {
    mapping.mayChange = true;
    mapping.revision++;
    if (mapping.isGranted) mapping.sentRevision = mapping.revision;
    mapping.wantedUntil = Infinity;
  }

  renewed(mapping: PcpMapping, now: Instant): void {
    this.#tick(now);
    const { phase } = mapping;
    mapping.mayChange = true;
    mapping.revision++;
    mapping.wantedUntil = Infinity;
    if (mapping.failure === "refused" && mapping.refusedUntil > now) return;
    if (phase === "granted" || phase === "renewing") this.#renewSoon(mapping, now);
  }

  #renewSoon(mapping: PcpMapping, now: Instant): void {
    const when = Math.max(now, mapping.renewedAt + RENEWAL_GAP_MS, mapping.refusedUntil);
    mapping.next = { ...at(when, "the application's wish", "its renewal"), since: now };
    mapping.phase = "granted";
    mapping.series = [];
  }

  revoked(mapping: PcpMapping, now: Instant): void {
    this.#tick(now);
    const isLenient = this.#isLenient(mapping);
    if (mapping.phase === "deleting" || mapping.phase === "over") return;
    const { wish } = mapping;
    const mayExist = now < mapping.mayExistUntil;
    if (wish.remote || !mayExist || this.#predecessor(mapping)) {
      mapping.end();
      this.#ended(mapping, now);
      return this.#owe(wish, "unmapped", false, "it was revoked");
    }
    mapping.phase = "deleting";
    mapping.series = [];
    mapping.next = at(now, "its revocation", "its deletion");
    // In a session it may have been left to another protocol.
    if (isLenient) mapping.next = { ...mapping.next, to: Infinity };
  }

  abandoned(mapping: PcpMapping, now: Instant): void {
    mapping.end();
    this.#ended(mapping, now);
  }

  /**
   * A session tells that it has lost it: what is asked from here on is no renewal. Which answers it
   * took for a new table's, or whether of a mapping that it had given up, does not show before that.
   */
  lost(wish: Wish, now: Instant): void {
    const mapping = this.of(wish);
    if (!mapping?.isGranted || mapping.phase === "deleting") return;
    mapping.clearGrant();
    mapping.isStale = false;
    const { refusedUntil } = mapping;
    if (refusedUntil > now) return mapping.hold(now, refusedUntil, "a refusal of what was lost");
    if (mapping.phase === "asking" || mapping.phase === "recovering") return;
    mapping.phase = "recovering";
    mapping.series = mapping.repeats = [];
    mapping.next = { ...at(now, "its loss", "its request"), to: Infinity };
  }

  /** The application asks for an announcement. */
  announce(now: Instant): void {
    this.#tick(now);
    // One that is on its way is asked already.
    if (!this.#probe) this.#mayProbe = true;
  }

  networkChanged(localAddress: string, now: Instant): void {
    this.#tick(now);
    this.localAddress = localAddress;
    this.epoch.reset();
    this.#hasAnswered = false;
    this.#noNewUntil = -Infinity;
    this.#roomAt = [];
    if (this.#probe) this.#mayProbe = true;
    for (const mapping of [...this.#all]) {
      if (mapping.phase === "over") continue;
      if (mapping.phase === "deleting") {
        this.#deleted(mapping, "its address is gone", now);
        continue;
      }
      mapping.phase = "waiting";
      mapping.isFirst = true;
      mapping.isStale = mapping.isGranted;
      mapping.failure = undefined;
      mapping.refusedUntil = mapping.mayExistUntil = -Infinity;
      mapping.series = [];
      mapping.next = at(now, "the change of the network", "its request from there");
    }
  }

  close(): void {
    this.#mayProbe = false;
    this.#probe = undefined;
  }

  // ---- What is sent ------------------------------------------------------------------------

  /** A datagram of version 2 leaves. */
  sends(data: Uint8Array, to: Endpoint, now: Instant): void {
    const watch = this.#watch;
    if (to.address !== this.#server.address || to.port !== this.#server.port) {
      breach(watch, `sends PCP to ${to.address}:${to.port}, its server is another`, now);
    }
    this.#tick(now, true);
    const request = pcp.decodeRequest(data);
    if (typeof request === "string") breach(watch, `sends PCP that is ${request}`, now);
    if (request.kind === "announce") return this.#sendsProbe(now);
    if (request.kind === "other") breach(watch, `sends PCP opcode ${request.opcode}`, now);
    const nonce = toHex(request.nonce);
    let mapping = this.#byNonce.get(nonce);
    // A session that left PCP may come back to it.
    const isLeft = mapping?.phase === "over" || (mapping?.phase === "deleting" && mapping.isLate);
    const isBack = isLeft && watch.isSession && request.lifetimeSeconds > 0;
    if (!mapping || isBack) mapping = this.#bind(request, nonce, now);
    // A session deletes also what it left to another protocol, or was granted too late.
    const isOver = mapping.phase === "over" || this.#isLenient(mapping);
    if (request.lifetimeSeconds === 0 && watch.isSession && isOver) {
      mapping.phase = "deleting";
      mapping.series = [];
      mapping.next = { ...at(now, "what it had asked for", "its deletion"), to: Infinity };
      mapping.isLate = true;
    }
    this.#expireAt(mapping, now);
    if (!isFor(mapping.wish, request)) {
      breach(watch, `sends the nonce of ${mapping.name} with another mapping's request`, now);
    }
    mapping.asksForSet = request.options.some(({ type }) => type === "port-set");
    mapping.suggestsLearnt = request.suggestedPort !== mapping.wish.suggestedPort ||
      request.suggestedAddress !== anyAddress(familyOf(request.suggestedAddress));
    if (request.lifetimeSeconds === 0) this.#judgeDeletion(mapping, request, data, now);
    else this.#judgeRequest(mapping, request, data, now);
  }

  #sendsProbe(now: Instant): void {
    const watch = this.#watch;
    const probe = this.#probe;
    const isNew = !probe || this.#mayProbe || (watch.isSession && !probe.isDue(now));
    if (isNew) {
      if (!this.#mayProbe && !watch.isSession) breach(watch, "sends ANNOUNCE unasked", now);
      this.#probe = new PcpSeries(at(now, "the application's wish", "ANNOUNCE"), true);
    } else if (!probe.isDue(now) && now >= watch.restUntil) {
      breach(watch, `sends ANNOUNCE ${misses(probe.next, now)}`, now);
    }
    this.#mayProbe = false;
    this.#probe!.sent(now);
    if (this.#probe!.sends > PROBES) {
      breach(watch, `sends ANNOUNCE for the ${this.#probe!.sends}th time`, now);
    }
  }

  /** The first request of a mapping: its nonce is its own from here on (PCP-C-38). */
  #bind(request: MappingRequest, nonce: string, now: Instant): PcpMapping {
    const watch = this.#watch;
    const known = watch.nonces.get(nonce);
    // A session keeps what it gave up: who asks for the same again gets it.
    const isOwn = watch.isSession && known !== undefined &&
      (this.#wishes.includes(known as Wish) || this.#mine.has(known as Wish)) &&
      isFor(known as Wish, request);
    if (known && !isOwn) breach(watch, `uses nonce ${nonce} again, for another mapping`, now);
    if (/^(..)\1*$/.test(nonce)) breach(watch, `uses nonce ${nonce}: anybody can guess it`, now);
    const alive = this.#all.filter(({ wish, phase }) => phase !== "over" && isFor(wish, request));
    let mapping = alive.find((mapping) =>
      mapping.nonce === undefined || (mapping.nonce === nonce && mapping.phase !== "deleting")
    );
    const saved = alive.find(({ wish }) => wish.savedNonce !== undefined)?.wish.savedNonce;
    if (!mapping && watch.isSession && (saved === undefined || saved === nonce)) {
      mapping = alive.find(({ phase, isGranted }) => phase !== "deleting" && !isGranted) ??
        this.#takesUp(request, now) ?? this.#asksForAddress(request, now);
    }
    if (!mapping) {
      const other = alive.find(({ phase }) => phase !== "deleting") ?? alive[0];
      breach(
        watch,
        other
          ? `asks for ${other.name} with nonce ${nonce}, its own is ${other.nonce}`
          : `asks for ${request.internalPort}, which nobody wants`,
        now,
      );
    }
    watch.nonces.set(nonce, mapping.wish);
    mapping.nonce = nonce;
    this.#mine.add(mapping.wish);
    this.#byNonce.set(nonce, mapping);
    return mapping;
  }

  /** In a session: a wish that the other protocol has, or had. */
  #takesUp(request: MappingRequest, now: Instant): PcpMapping | undefined {
    const wish = this.#wishes.find((wish) =>
      wish.id !== undefined && !wish.isRevoked && isFor(wish, request) &&
      (wish.told !== "held" || wish.via === "pcp")
    );
    return wish && this.wanted(wish, now);
  }

  /** By PCP the external address shows in a short mapping, which is deleted at once. */
  #asksForAddress(request: MappingRequest, now: Instant): PcpMapping | undefined {
    if (request.lifetimeSeconds > LONGEST_QUESTION_SECONDS) return undefined;
    const { internalPort, lifetimeSeconds } = request;
    const protocol = request.protocol === PROTOCOL_NUMBER.tcp ? "tcp" : "udp";
    const fields = { protocol, internalPort, lifetimeSeconds, suggestedPort: 0 } as const;
    return this.wanted(newWish({ ...fields, mode: "once" }), now);
  }

  #judgeDeletion(
    mapping: PcpMapping,
    request: MappingRequest,
    data: Uint8Array,
    now: Instant,
  ): void {
    const watch = this.#watch;
    const fault = deletionFault(mapping.wish, request, this.localAddress);
    if (fault) breach(watch, `deletes ${mapping.name} with a request that ${fault}`, now);
    if (mapping.brokenAt === now && mapping.phase !== "deleting") {
      mapping.brokenAt = -Infinity;
      return;
    }
    if (mapping.phase !== "deleting") {
      breach(watch, `deletes ${mapping.name}, which is ${mapping.phase}`, now);
    }
    if (mapping.isLate) return;
    this.#judgeTime(mapping, "deletes", now);
    if (mapping.sends > 0 && !sameBytes(mapping.data!, data)) {
      breach(watch, `deletes ${mapping.name} again with other bytes`, now);
    }
    if (mapping.sends === 0) mapping.series = [new PcpSeries(mapping.next!, true)];
    mapping.data = data;
    mapping.sent(now);
    if (mapping.sends > PCP_DELETIONS) {
      breach(watch, `deletes ${mapping.name} for the ${mapping.sends}th time`, now);
    }
  }

  #judgeRequest(
    mapping: PcpMapping,
    request: MappingRequest,
    data: Uint8Array,
    now: Instant,
  ): void {
    const watch = this.#watch;
    if (mapping.phase === "deleting" || mapping.phase === "over") {
      breach(watch, `asks for ${mapping.name}, which is ${mapping.phase}`, now);
    }
    const isRepeat = mapping.phase === "asking" && mapping.data !== undefined &&
      sameBytes(mapping.data, data);
    const isRenewedAgain = mapping.phase === "renewing" && mapping.data !== undefined &&
      sameBytes(mapping.data, data);
    if (!isRepeat && !isRenewedAgain) this.#judgeFields(mapping, request, now);
    const end = now + mapping.lifetimeSeconds * 1000;
    mapping.mayExistUntil = Math.max(mapping.mayExistUntil, end);
    if (!isRepeat || watch.isSession) mapping.sentRevision = mapping.revision;
    const isRenewal = mapping.phase === "granted" || mapping.phase === "renewing";
    if (isRenewal && !this.#mayRecreate(mapping, now)) {
      mapping.data = data;
      return this.#judgeRenewal(mapping, now);
    }
    const isOnTime = this.#judgeTime(mapping, "asks for", now);
    if (mapping.phase === "asking" && isOnTime) {
      const mayChange = mapping.mayChange || this.#isLenient(mapping) ||
        mapping.mayBegin;
      if (!isRepeat && !mayChange) {
        breach(watch, `asks for ${mapping.name} again with other bytes`, now);
      }
      mapping.data = data;
      this.#extendStarts(mapping);
      mapping.sent(now);
      // What begins anew is made anew, though it may have the same bytes.
      if (mapping.sends === 1) mapping.sentRevision = mapping.revision;
      // In a session it may be the beginning of another race as well.
      if (this.#isLenient(mapping)) this.#mayBegin(mapping, now);
      return;
    }
    if (!mapping.isGranted && now < this.#noNewUntil - SLACK_MS) {
      breach(watch, `asks for ${mapping.name} although the server has no resources`, now);
    }
    this.#noteRecreation(mapping, now);
    // D-17: first requests start fast.
    mapping.series = [beginning(now, mapping.isFirst)];
    mapping.data = data;
    mapping.phase = "asking";
    mapping.isFirst = false;
    mapping.startedAt = mapping.sentAt = now;
    if (watch.isSession || mapping.mayStartEither) this.#mayBegin(mapping, now);
    mapping.mayStartEither = false;
    mapping.joinSeries();
  }

  #mayBegin(mapping: PcpMapping, now: Instant): void {
    mapping.series = [...mapping.series, beginning(now, true), beginning(now, false)];
    mapping.joinSeries();
  }

  /** A session has told of a loss of state, which may be this server's. */
  #mayRecreate(mapping: PcpMapping, now: Instant): boolean {
    if (now > mapping.mayRecreateUntil + SLACK_MS) return false;
    if (mapping.next && isWithin(mapping.next, now)) {
      mapping.doubtfulAt = now;
      return false;
    }
    mapping.phase = "recovering";
    mapping.next = at(now, "a loss of state", "its request");
    return true;
  }

  /** What was to begin anew has waited until the server has room. */
  #extendStarts(mapping: PcpMapping): void {
    const room = Math.max(-Infinity, ...(mapping.isGranted ? [] : this.#roomAt));
    for (const series of mapping.series) {
      const { next } = series;
      if (series.sends === 0 && next.to < room) series.next = { ...next, to: room };
    }
  }

  #judgeRenewal(mapping: PcpMapping, now: Instant): void {
    const isEarly = mapping.next?.rule === "its renewal";
    const isAgain = now - mapping.doubtfulAt < RENEWAL_GAP_MS && this.#watch.isSession;
    if (isAgain) {
      // It was no renewal but a request that is sent again.
      mapping.phase = "asking";
      mapping.mayChange = true;
      mapping.series = [beginning(mapping.doubtfulAt, false)];
      return mapping.sent(now);
    }
    if (now - mapping.renewedAt < RENEWAL_GAP_MS - SLACK_MS) {
      const gap = (now - mapping.renewedAt).toFixed(0);
      breach(this.#watch, `renews ${mapping.name} ${gap} ms after the renewal before`, now);
    }
    // What a session sends may be a request for what was lost as well.
    if (this.#watch.isSession) mapping.doubtfulAt = now;
    const isInWindow = mapping.next !== undefined && isWithin(mapping.next, now);
    if (!isInWindow && mapping.repeated(now)) return;
    this.#judgeTime(mapping, "renews", now);
    if (isEarly) mapping.renewedEarly(now);
    else mapping.renewed(now, mapping.repeated(now));
  }

  #judgeFields(mapping: PcpMapping, request: MappingRequest, now: Instant): void {
    const { wish } = mapping;
    const fault = faultOf(wish, request, {
      localAddress: this.localAddress,
      granted: wish.granted,
      isRunning: mapping.isGranted,
      lifetimeSeconds: mapping.wantedSeconds(now),
      // Each request that a session makes finds out anew what the server cannot read.
      padded: this.#watch.isSession ? "either" : mapping.mayLeaveOut ? "no" : "yes",
    });
    // What was asked for before the time it is wanted for was known goes on as it is.
    if (fault) breach(this.#watch, `asks for ${mapping.name} with a request that ${fault}`, now);
  }

  #noteRecreation(mapping: PcpMapping, now: Instant): void {
    const { lostStateAt } = mapping;
    mapping.lostStateAt = undefined;
    if (mapping.phase !== "recovering" || lostStateAt === undefined) return;
    if (this.#watch.isSession) return;
    const delayMs = now - lostStateAt;
    if (delayMs === 0) {
      breach(
        this.#watch,
        `makes ${mapping.name} again at once where the loss of state was heard: the delay is ` +
          "random, 0…5 s",
        now,
      );
    }
    this.#watch.recreations.push({ via: "pcp", delayMs });
  }

  /** Whether the packet leaves within its window; breaks off where it may not leave outside it. */
  #judgeTime(mapping: PcpMapping, deed: string, now: Instant): boolean {
    const next = this.#due(mapping);
    if (next && isWithin(next, now)) return true;
    const watch = this.#watch;
    if (now < watch.restUntil) return mapping.phase === "asking";
    if (now <= mapping.mayRecreateUntil + SLACK_MS) return false;
    // A session may begin anew what it asks for.
    const mayBegin = watch.isSession && now - mapping.sentAt >= LEAST_GAP_MS;
    if (mayBegin && mapping.phase === "asking") return false;
    if (this.#isLenient(mapping) && this.#mayRace(mapping, now)) return false;
    const when = next ? misses(next, now) : `although nothing is due: it is ${mapping.phase}`;
    breach(watch, `${deed} ${mapping.name} ${when}`, now);
  }

  /** When its next packet leaves: what begins waits until the server has room again. */
  #due(mapping: PcpMapping): Window | undefined {
    const { next, phase } = mapping;
    if (!next) return undefined;
    let to = next.to;
    if ((phase === "held" || mapping.isDelayed) && !mapping.isGranted) {
      to = Math.max(to, this.#noNewUntil, ...this.#roomAt);
    }
    return to === next.to ? next : { ...next, to };
  }

  /** In a session, what PCP does not hold may be left, or taken up again, for another protocol. */
  #isLenient(mapping: PcpMapping): boolean {
    if (!this.#watch.isSession || mapping.phase === "deleting") return false;
    return !mapping.isGranted || mapping.wish.via !== "pcp";
  }

  #mayRace(mapping: PcpMapping, now: Instant): boolean {
    if (now < mapping.refusedUntil - SLACK_MS) return false;
    if (this.#watch.reasonAt === now) return true;
    if (this.#roomAt.some((when) => Math.abs(now - when) <= SLACK_MS)) return true;
    const gap = now - mapping.startedAt;
    return gap >= RERACE_MS - SLACK_MS || (gap >= LEAST_GAP_MS && mapping.sends < 3);
  }

  // ---- What is received --------------------------------------------------------------------

  /** A datagram reaches the client. */
  receives(data: Uint8Array, from: Endpoint, now: Instant): void {
    // PCP-C-11: the address and the port of the server asked.
    if (from.address !== this.#server.address || from.port !== this.#server.port) return;
    this.#tick(now, true);
    const response = pcp.decodeResponse(data);
    if (typeof response === "string") return;
    switch (response.kind) {
      case "unsupported-version":
        return this.#refusesVersion(response, data, now);
      case "announce":
        return this.#announces(response, now);
      case "map":
      case "peer":
        return this.#answers(response, now);
    }
  }

  #announces(response: pcp.PcpAnnounceResponse, now: Instant): void {
    const isAsked = this.#probe !== undefined;
    if (response.resultCode !== 0 && !isAsked) return;
    const { epochSeconds } = response;
    const isFirst = !this.epoch.isKnown;
    this.#hasAnswered = true;
    // Whether a session sees a new table in it does not show.
    if (this.#watch.isSession) this.#mayRecover(now);
    const isLost = this.#hearEpoch(epochSeconds, undefined, now);
    if (isFirst) this.#wake(undefined, now);
    this.#probe = undefined;
    if (isAsked || isLost || epochSeconds >= YOUNG_TABLE_SECONDS) return;
    // A young table: what was granted before it began is not in it.
    const beganAt = now - 1000 * (epochSeconds + 1);
    for (const mapping of this.#all) {
      const isHeld = mapping.phase === "granted" || mapping.phase === "renewing";
      if (!isHeld || mapping.grantedAt >= beganAt) continue;
      mapping.isStale = true;
      this.#recover(mapping, now, true);
    }
  }

  #hearEpoch(epoch: number, answered: PcpMapping | undefined, now: Instant): boolean {
    if (!this.epoch.hear(epoch, now)) return false;
    this.owesRestart = true;
    this.#answeredLast = answered;
    // Its answer may be a refusal: then it is lost.
    if (answered) answered.isStale = answered.isGranted;
    // Which answers a session takes is not known from outside: it has to say that it took this one.
    if (!this.#watch.isSession) this.restarted(now);
    return true;
  }

  /** The server has lost its state, and the client knows. */
  restarted(now: Instant): void {
    const answered = this.#answeredLast;
    this.#answeredLast = undefined;
    if (!this.owesRestart) {
      // What it refused counts no more, whichever protocol says that the gateway has begun anew.
      for (const mapping of this.#all) mapping.refusedUntil = -Infinity;
      return this.#mayRecover(now);
    }
    const waiting = this.#all.filter((mapping) => this.#mayWaitForRoom(mapping, now));
    this.#noNewUntil = -Infinity;
    for (const mapping of waiting) {
      if (mapping !== answered) mapping.mayWaitUntil(now + RECREATION_MS);
    }
    for (const mapping of this.#all) {
      const { phase } = mapping;
      if (mapping === answered || phase === "over" || phase === "deleting") continue;
      mapping.isStale = mapping.isGranted;
      mapping.refusedUntil = -Infinity;
      const isQuiet = phase === "granted" || phase === "renewing" || phase === "held";
      if (isQuiet) this.#recover(mapping, now, true);
    }
    this.#wake(answered, now);
  }

  /** In a session the other protocol's word is a reason, too. */
  #mayRecover(now: Instant): void {
    for (const mapping of this.#all) mapping.mayRecreateUntil = now + RECREATION_MS;
  }

  /**
   * The server is there: what silence put off, or what would wait for more than 5 s, leaves soon, but
   * for what it answers.
   */
  #wake(answered: PcpMapping | undefined, now: Instant): void {
    for (const mapping of this.#all) {
      if (mapping === answered) continue;
      if (mapping.phase === "held" && mapping.failure !== "refused") {
        mapping.refusedUntil = -Infinity;
        this.#recover(mapping, now, false);
      }
      if (this.#mayWaitForRoom(mapping, now)) mapping.mayWaitUntil(now + RECREATION_MS);
      if (mapping.phase !== "asking" || !mapping.next) continue;
      const { from, to } = mapping.next;
      if (to <= now + RECREATION_MS) continue;
      if (from > now + RECREATION_MS) this.#recover(mapping, now, false);
      // It is not known from outside whether it goes on or begins anew.
      else {
        const anew = this.#recreation(mapping, now, false);
        mapping.series = [...mapping.series, new PcpSeries(anew, false)];
        mapping.joinSeries();
      }
    }
  }

  /** Its random delay may have come to an end where there was no room: it rests until there is. */
  #mayWaitForRoom({ isDelayed, isGranted }: PcpMapping, now: Instant): boolean {
    return isDelayed && !isGranted && Math.max(this.#noNewUntil, ...this.#roomAt) > now;
  }

  #recover(mapping: PcpMapping, now: Instant, isLost: boolean): void {
    mapping.phase = "recovering";
    mapping.series = [];
    mapping.next = this.#recreation(mapping, now, isLost);
    mapping.lostStateAt = isLost && mapping.next.from === now ? now : undefined;
  }

  #recreation(mapping: PcpMapping, now: Instant, isLost: boolean): Window {
    const earliest = Math.max(mapping.renewedAt + RENEWAL_GAP_MS, mapping.refusedUntil);
    const what = isLost ? "the loss of state was heard" : "the server's announcement";
    const from = Math.max(now, earliest);
    // Which of its protocols a session means by a loss of state is not known from outside.
    const to = this.#watch.isSession ? Infinity : Math.max(now + RECREATION_MS, earliest);
    return between(from, to, now, what, "the random delay");
  }

  #answers(response: MappingResponse, now: Instant): void {
    const mapping = this.#byNonce.get(toHex(response.nonce));
    // PCP-C-16, -17: what it is about, and the nonce.
    if (!mapping || mapping.phase === "over") return;
    if (!isAbout(mapping.wish, response)) return;
    this.#hasAnswered = true;
    this.#hearEpoch(response.epochSeconds, mapping, now);
    if (response.resultCode === 0) this.#succeeds(mapping, response, now);
    else this.#refuses(mapping, response.resultCode, response.lifetimeSeconds, now);
  }

  #succeeds(mapping: PcpMapping, response: MappingResponse, now: Instant): void {
    const { wish } = mapping;
    const { lifetimeSeconds } = response;
    if (mapping.phase === "deleting") {
      const isAnswer = lifetimeSeconds === 0 || response.externalPort === 0;
      if (isAnswer) this.#deleted(mapping, "it was deleted", now);
      return;
    }
    if (lifetimeSeconds === 0) {
      if (!mapping.isGranted) return this.#violates(mapping, "a lifetime of 0", now);
      return this.#lose(mapping, now, undefined, "a lifetime of 0");
    }
    const external = this.#externalOf(mapping, response);
    if (!external) return this.#violates(mapping, "no external endpoint", now);
    if (wish.preferFailure && external.port !== wish.suggestedPort) {
      if (mapping.phase !== "asking" && !mapping.isGranted) return;
      mapping.brokenAt = now;
      mapping.failure = "other";
      if (mapping.isGranted) this.#lose(mapping, now, now + VIOLATION_MS, "another port");
      else this.#violates(mapping, "another port", now);
      return;
    }
    const grant = { external, lifetimeSeconds, at: now };
    // A session may have left PCP for another protocol: its word tells whether it takes this.
    if (this.#watch.isSession) mapping.pending = grant;
    else this.#grants(mapping, external, lifetimeSeconds, now);
  }

  /** What a session has told, or holds by PCP already, is granted; else nobody has taken it. */
  #commit(mapping: PcpMapping): void {
    const { pending } = mapping;
    mapping.pending = undefined;
    if (!pending || mapping.phase === "over" || mapping.phase === "deleting") return;
    const { sentAt } = mapping;
    this.#grants(mapping, pending.external, pending.lifetimeSeconds, pending.at);
    // What has left since then for what was changed meanwhile is a renewal out of schedule.
    if (sentAt >= pending.at && mapping.revision > 0) mapping.renewedEarly(sentAt);
  }

  #grants(mapping: PcpMapping, external: External, lifetimeSeconds: number, now: Instant): void {
    const { wish } = mapping;
    const { phase } = mapping;
    const isAsked = phase === "asking" || phase === "renewing" || phase === "recovering";
    const oldEnd = mapping.until ?? -Infinity;
    const isLost = wish.told === "lost" || wish.owed?.types[0] === "lost";
    const isHeld = wish.told === "held";
    const type = isLost
      ? "recovered"
      : !isHeld
      ? "mapped"
      : isSame(wish.external!, external)
      ? "renewed"
      : "moved";
    mapping.grant(lifetimeSeconds, now);
    wish.granted = external;
    // What the application has changed meanwhile is asked for at once.
    if (mapping.sentRevision < mapping.revision) this.#renewSoon(mapping, now);
    const isOptional = type === "renewed" && !isAsked &&
      Math.abs(mapping.until! - oldEnd) <= DUPLICATE_MS + SLACK_MS;
    owe(wish, { types: [type], external, isOptional, why: "PCP has granted it" });
  }

  /** The endpoint that a success assigns; undefined where it assigns none (D-08). */
  #externalOf(
    { wish }: PcpMapping,
    { externalAddress: address, externalPort: port }: MappingResponse,
  ): External | undefined {
    if (address === "0.0.0.0" || address === "::") return undefined;
    if (port !== 0) return { address, port };
    if (familyOf(address) === 4) return undefined;
    // miniupnpd's pinholes: the port that is known, or the one inside where nothing translates.
    if (wish.granted) return { address, port: wish.granted.port };
    const own = wish.thirdParty ?? this.localAddress;
    return address === own ? { address, port: wish.internalPort } : undefined;
  }

  #violates(mapping: PcpMapping, what: string, now: Instant): void {
    if (mapping.isGranted || mapping.phase !== "asking") return;
    this.#fails(mapping, "other", now + VIOLATION_MS, `a success with ${what}`, now);
  }

  #refuses(mapping: PcpMapping, code: number, lifetimeSeconds: number, now: Instant): void {
    const until = now + pcpHoldMs(lifetimeSeconds);
    const why = `${pcp.pcpResultName(code)} for ${lifetimeSeconds} s`;
    const isDeletion = mapping.phase === "deleting";
    const mayHaveBegun = mapping.mayBegin;
    if (mapping.isInFlight && this.#isMended(mapping, code, why, now)) {
      if (mayHaveBegun) mapping.next = { ...mapping.next!, to: now + RECREATION_MS };
      return;
    }
    if (this.#mayHaveLeft(mapping)) {
      mapping.pendingRefusal = { until, why };
      this.#owe(mapping.wish, "failed", true, why);
      if (code === NO_RESOURCES) this.#mayLackRoomUntil(until);
      return;
    }
    const isLenient = this.#isLenient(mapping);
    const isTaken = this.#fails(mapping, "refused", until, why, now);
    if (code !== NO_RESOURCES || isDeletion) return;
    this.#mayLackRoomUntil(until);
    if (isTaken && !isLenient) this.#noNewUntil = Math.max(this.#noNewUntil, until);
  }

  /**
   * Whether it takes an answer does not show: it may have begun anew, and have nothing on its way, or
   * have taken back what it asked since NAT-PMP makes it.
   */
  #mayHaveLeft(mapping: PcpMapping): boolean {
    if (mapping.isGranted || mapping.phase === "deleting") return false;
    if (mapping.mayBegin) return true;
    return this.#watch.isSession && !isPcpOnly(mapping.wish) &&
      this.#watch.natPmpHeardAt >= mapping.startedAt;
  }

  /** Another request may do: without what was refused and is not needed. */
  #isMended(mapping: PcpMapping, code: number, why: string, now: Instant): boolean {
    const { wish, phase } = mapping;
    if (code === MALFORMED_OPTION && mapping.asksForSet) {
      mapping.mayLeaveOut = true;
    } else if (
      code === CANNOT_PROVIDE_EXTERNAL && mapping.suggestsLearnt && phase !== "deleting" &&
      !wish.preferFailure
    ) {
      // A session may wish for it again in another race.
      if (this.#watch.isSession) wish.remembered = wish.granted ?? wish.remembered;
      wish.granted = undefined;
    } else return false;
    mapping.mayChange = true;
    mapping.series = [];
    mapping.next = at(now, why, "the request without it");
    if (phase === "deleting") return true;
    const isRenewal = mapping.isGranted && !mapping.isStale;
    mapping.phase = isRenewal ? "granted" : "recovering";
    // At once it is a first request; where it waits for room, it is none.
    mapping.mayStartEither = true;
    mapping.lostStateAt = undefined;
    if (isRenewal) mapping.next = { ...mapping.next, rule: "its renewal" };
    mapping.renewedAt = -Infinity;
    mapping.isFirst = !mapping.isGranted;
    return true;
  }

  /**
   * A request came to nothing. A grant lasts to its end, unless it is of a table that was lost. False
   * where nothing was asked that this could answer.
   */
  #fails(
    mapping: PcpMapping,
    failure: "refused" | "other",
    until: Instant | undefined,
    why: string,
    now: Instant,
    isVersion = false,
  ): boolean {
    const { phase } = mapping;
    if (phase === "deleting") {
      this.#deleted(mapping, `${why} to its deletion`, now);
      return true;
    }
    const isInFlight = phase === "asking" || phase === "renewing";
    // §8.3: a refusal holds though nothing is on its way by now; that it comes twice changes nothing. A
    // session may have given up by then what it was asked for, and race anew.
    const isRefused = mapping.failure === "refused" && mapping.refusedUntil > now;
    const isNews = mapping.isGranted
      ? mapping.failure === undefined
      : failure === "refused" && phase !== "waiting" && !isRefused && !this.#watch.isSession;
    if (!isInFlight && !isNews) return false;
    mapping.failure = failure;
    mapping.refusedUntil = until ?? -Infinity;
    if (!mapping.isGranted) this.#notGranted(mapping, until, why, now);
    else if (mapping.isStale || isVersion) {
      this.#lose(mapping, now, until ?? this.#restUntil(mapping, now), why);
    } else {
      const wasAsking = phase === "asking";
      mapping.goOn(until ?? now, now);
      // A session may have sent a renewal, and have another one planned.
      const isDoubtful = wasAsking && this.#watch.isSession;
      if (isDoubtful && mapping.next) mapping.next = { ...mapping.next, to: Infinity };
    }
    return true;
  }

  #notGranted(mapping: PcpMapping, until: Instant | undefined, why: string, now: Instant): void {
    const isRefused = mapping.failure === "refused";
    if (isRefused && mapping.mayExistUntil < Infinity) mapping.mayExistUntil = -Infinity;
    this.#owe(mapping.wish, "failed", false, why);
    if (mapping.isKeptAlive) return mapping.hold(now, until ?? this.#restUntil(mapping, now), why);
    mapping.end();
    this.#ended(mapping, now);
  }

  #restUntil(mapping: PcpMapping, now: Instant): Instant {
    return now + restMs(mapping.rests++, mapping.wasGranted);
  }

  #mayLackRoomUntil(until: Instant): void {
    this.#roomAt = [...this.#roomAt, until].slice(-8);
  }

  #refusesVersion(
    response: pcp.PcpUnsupportedVersion,
    data: Uint8Array,
    now: Instant,
  ): void {
    const { version, lifetimeSeconds } = response;
    // D-01: the figure of RFC 6886 has no response bit and no opcode.
    const opcode = version !== 0 || (data[1]! & 0x80) !== 0 ? response.opcode : undefined;
    if (this.#probe && (opcode === undefined || opcode === pcp.PCP_OPCODE.ANNOUNCE)) {
      this.#probe = undefined;
    }
    const until = now + versionHoldMs(lifetimeSeconds);
    const nonce = version !== 0 && data.length >= 36 ? toHex(data.subarray(24, 36)) : undefined;
    for (const mapping of [...this.#all]) {
      if (!mapping.isInFlight) continue;
      const own = mapping.wish.remote ? pcp.PCP_OPCODE.PEER : pcp.PCP_OPCODE.MAP;
      if (opcode !== undefined && opcode !== own) continue;
      if (nonce !== undefined && nonce !== mapping.nonce) continue;
      const why = `UNSUPP_VERSION (it speaks ${version})`;
      if (this.#mayHaveLeft(mapping)) {
        mapping.pendingRefusal = { until, why };
        this.#owe(mapping.wish, "failed", true, why);
      } else this.#fails(mapping, "other", until, why, now, true);
    }
  }

  /** ICMP: nothing listens there. A renewal is one datagram: the next one leaves in its time. */
  unreachable(now: Instant): void {
    this.#tick(now, true);
    this.#probe = undefined;
    for (const mapping of [...this.#all]) {
      if (mapping.phase !== "asking" && mapping.phase !== "deleting") continue;
      if (mapping.sends === 0 && mapping.phase === "deleting") continue;
      this.#fails(mapping, "other", undefined, "ICMP unreachable", now);
    }
  }

  // ---- What comes of it --------------------------------------------------------------------

  #start(mapping: PcpMapping, now: Instant, what: string): void {
    if (now >= this.#noNewUntil) {
      mapping.next = at(now, what, "its first request");
      const room = Math.max(...this.#roomAt, -Infinity);
      if (room <= now) return;
      // Whether the client has taken it that there is no room does not show, until it says so.
      const why = "NO_RESOURCES of another mapping";
      mapping.pendingRefusal = { until: room, why };
      mapping.next = { ...mapping.next, to: room };
      return this.#owe(mapping.wish, "failed", true, why);
    }
    mapping.isFirst = false;
    mapping.failure = "refused";
    mapping.refusedUntil = this.#noNewUntil;
    this.#notGranted(mapping, this.#noNewUntil, "NO_RESOURCES of another mapping", now);
  }

  /** What was granted is no more; it is asked for again at `until`, or at once. */
  #lose(mapping: PcpMapping, now: Instant, until: Instant | undefined, why: string): void {
    mapping.clearGrant();
    mapping.isStale = false;
    if (!mapping.isKeptAlive) {
      mapping.end();
      this.#owe(mapping.wish, "unmapped", false, why);
      return this.#ended(mapping, now);
    }
    this.#owe(mapping.wish, "lost", false, why);
    if (until !== undefined) return mapping.hold(now, until, why);
    // A session races anew; a client goes on with what is on its way.
    const goesOn = mapping.phase === "asking" || mapping.phase === "recovering";
    if (goesOn && !this.#watch.isSession) return;
    mapping.phase = "recovering";
    mapping.series = [];
    mapping.lostStateAt = undefined;
    const gap = mapping.renewedAt + RENEWAL_GAP_MS;
    const earliest = this.#watch.isSession ? now : Math.max(now, gap);
    mapping.next = { ...at(earliest, why, "its request"), since: now };
  }

  #deleted(mapping: PcpMapping, why: string, now: Instant, isRefused = false): void {
    mapping.end();
    this.#owe(mapping.wish, "unmapped", false, isRefused ? `${why} to its deletion` : why);
    this.#ended(mapping, now);
  }

  /** Another one of the same port and peer that is being deleted. */
  #predecessor(mapping: PcpMapping): PcpMapping | undefined {
    return this.#all.find((other) =>
      other !== mapping && other.phase === "deleting" && isSameMapping(other.wish, mapping.wish)
    );
  }

  /** What waited for it to be gone is asked for. */
  #ended(mapping: PcpMapping, now: Instant): void {
    for (const other of this.#all) {
      if (other.phase !== "waiting" || other.next || !isSameMapping(other.wish, mapping.wish)) {
        continue;
      }
      if (!this.#predecessor(other)) this.#start(other, now, "the end of its predecessor");
    }
  }

  #owe(wish: Wish, type: "failed" | "lost" | "unmapped", isOptional: boolean, why: string): void {
    owe(wish, { types: [type], isOptional, why });
  }

  // ---- Time --------------------------------------------------------------------------------

  /** The host has woken up: what was due is due now. */
  woke(now: Instant): void {
    for (const mapping of this.#all) {
      for (const series of [...mapping.series, ...mapping.repeats]) series.woke(now);
      if (mapping.next && mapping.next.to < now) mapping.next = { ...mapping.next, to: now };
    }
  }

  /** Ends what has run out. `isBefore`: an answer that comes at the very end comes in time. */
  #tick(now: Instant, isBefore = false): void {
    // The last ANNOUNCE has waited for its answer in vain.
    const probe = this.#probe;
    if (probe && probe.sends >= PROBES && now >= probe.next.from) this.#probe = undefined;
    for (const mapping of [...this.#all]) {
      if (!isBefore || mapping.until !== now) this.#expireAt(mapping, now);
    }
  }

  #expireAt(mapping: PcpMapping, now: Instant): void {
    if (mapping.until !== undefined && mapping.until <= now) this.#expire(mapping, now);
  }

  #expire(mapping: PcpMapping, now: Instant): void {
    if (mapping.phase === "deleting") return mapping.clearGrant();
    const isOver = mapping.phase === "granted" && !mapping.isKeptAlive && !mapping.failure;
    if (isOver || !mapping.wantsRenewal) {
      mapping.end();
      this.#owe(mapping.wish, "unmapped", false, "its time was over");
      return this.#ended(mapping, now);
    }
    mapping.failure ??= "other";
    const until = mapping.refusedUntil > now ? mapping.refusedUntil : undefined;
    this.#lose(mapping, now, until, "the end of its lifetime");
  }

  /** The client rests: what is overdue was forgotten. */
  settle(now: Instant): void {
    this.#tick(now, true);
    for (const mapping of this.#all) {
      mapping.pendingRefusal = undefined;
      if (!mapping.pending) continue;
      if (mapping.wish.told === "held" && mapping.wish.via === "pcp") this.#commit(mapping);
      else mapping.pending = undefined;
    }
    if (now < this.#watch.restUntil) return;
    for (const mapping of this.#all) {
      const next = this.#due(mapping);
      if (!next || this.#isLenient(mapping) || now <= next.to + SLACK_MS) continue;
      // Whether a session asks for it by now, or renews it, is not known from outside.
      const isFresh = mapping.phase === "granted" && next.rule === "the window of renewal 1";
      const isSure = isFresh || mapping.phase === "deleting";
      if (this.#watch.isSession && !isSure) continue;
      const isDeletion = mapping.phase === "deleting";
      if (isDeletion && this.#isGivenUp(mapping, now)) {
        this.#deleted(mapping, "nobody answered its deletion", now);
        continue;
      }
      const deed = isDeletion ? "deletion" : "request";
      breach(this.#watch, `has not sent a ${deed} for ${mapping.name} ${misses(next, now)}`, now);
    }
  }

  /** The client tells that it has run out of deletions, or of time, at this very moment. */
  tells(wish: Wish, type: string, now: Instant): void {
    this.#tick(now, true);
    const mapping = this.of(wish);
    if (mapping) this.#expireAt(mapping, now);
    if (type === "granted") return mapping && this.#commit(mapping);
    const refusal = mapping?.pendingRefusal;
    if (type === "failed" && refusal) {
      mapping.pendingRefusal = undefined;
      if (mapping.phase !== "waiting") {
        this.#fails(mapping, "refused", refusal.until, refusal.why, now);
        return;
      }
      mapping.failure = "refused";
      mapping.isFirst = false;
      this.#notGranted(mapping, refusal.until, refusal.why, now);
      if (mapping.next) mapping.next = { ...mapping.next, from: now };
    }
    if (type !== "unmapped" || mapping?.phase !== "deleting") return;
    if (this.#isGivenUp(mapping, now)) this.#deleted(mapping, "nobody answered its deletion", now);
  }

  /** A deletion is given up after its last sending, and at the end of what it deletes. */
  #isGivenUp(mapping: PcpMapping, now: Instant): boolean {
    if (now >= mapping.mayExistUntil) return true;
    // Whom nobody has ever answered does not wait.
    const most = this.#hasAnswered ? PCP_DELETIONS : 1;
    const { next } = mapping;
    return mapping.sends >= most && next !== undefined && now >= next.from - SLACK_MS;
  }
}

/** The first sending of a request. */
function beginning(now: Instant, isFast: boolean): PcpSeries {
  const series = new PcpSeries(at(now, "its beginning", "its first request"), isFast);
  series.sent(now);
  return series;
}

function sameBytes(a: Uint8Array, b: Uint8Array): boolean {
  return a === b || (a.length === b.length && a.every((byte, i) => byte === b[i]));
}

function isAbout(wish: Wish, response: MappingResponse): boolean {
  if (response.protocol !== PROTOCOL_NUMBER[wish.protocol]) return false;
  if (response.internalPort !== wish.internalPort) return false;
  if (thirdPartyOf(response.options) !== wish.thirdParty) return false;
  if (response.kind === "map") return wish.remote === undefined;
  return wish.remote?.address === response.remoteAddress &&
    wish.remote.port === response.remotePort;
}
