/**
 * What a client does by NAT-PMP, judged packet by packet (RFC 6886). The protocol knows no
 * transaction ids: one request is on its way at a time, what has to be asked for waits in line, and
 * an answer is for what is on its way.
 *
 * @module
 */
import { equalBytes } from "../../core/bytes.ts";
import type { Endpoint, Instant } from "../../core/machine.ts";
import type { Transport } from "../../core/mapping.ts";
import * as natPmp from "../../core/natpmp/codec.ts";
import { EpochReference } from "./epoch_reference.ts";
import { NatPmpMapping } from "./natpmp_mapping.ts";
import {
  breach,
  type External,
  isPcpOnly,
  isSame,
  isSameMapping,
  lifetimesOf,
  owe,
  type Watch,
  type Wish,
} from "./wish.ts";
import {
  at,
  between,
  misses,
  NATPMP_DELETIONS,
  NATPMP_SENDS,
  natPmpHoldMs,
  natPmpRenewal,
  natPmpWaitMs,
  RECREATION_MS,
  RENEWAL_GAP_MS,
  restMs,
  SLACK_MS,
  type Window,
  YOUNG_TABLE_SECONDS,
} from "./windows.ts";

/** For how long the answer to a deletion may be mistaken for another's. */
const STALE_MS = 10_000;
/** For how long a request may wait in line. */
const IN_LINE_MS = 200_000;
const PORT = 5351;

/** The request on its way. */
interface Exchange {
  readonly data: Uint8Array;
  readonly mapping: NatPmpMapping | undefined;
  readonly isDeletion: boolean;
  readonly startedAt: Instant;
  sends: number;
  next: Window;
  /** It may be answered, or not. */
  isUnclear?: boolean;
}

/** The deeds of one client towards one NAT-PMP gateway. */
export class NatPmpDeeds {
  readonly epoch: EpochReference = new EpochReference("nat-pmp");
  /** A loss of state is to be told. */
  owesRestart = false;
  /** The external address that was heard last. */
  address: string | undefined;
  /** When something was sent last. */
  sentAt: Instant = -Infinity;
  readonly #watch: Watch;
  readonly #gateway: string;
  readonly #wishes: readonly Wish[];
  #all: NatPmpMapping[] = [];
  #exchange: Exchange | undefined;
  #mayAskAddress = false;
  #mustAskAddressBy: Instant = Infinity;
  #isSilent = false;
  #answeredLast: NatPmpMapping | undefined;
  readonly #confirmed = new Set<string>();
  /** What was ever asked for. */
  readonly #asked = new Set<Wish>();
  readonly #deletedAt = new Map<string, Instant>();

  constructor(watch: Watch, gateway: string, wishes: readonly Wish[]) {
    this.#watch = watch;
    this.#wishes = wishes;
    this.#gateway = gateway;
  }

  /** The mapping of a wish that is not over, the one that is wanted before one that is leaving. */
  of(wish: Wish): NatPmpMapping | undefined {
    const alive = this.#all.filter((other) => other.wish === wish && other.phase !== "over");
    return alive.find(({ phase }) => phase !== "deleting") ?? alive[0];
  }

  /** Whether the gateway has ever said so. */
  hasConfirmed({ protocol, internalPort }: Wish, { port }: External): boolean {
    return this.#confirmed.has(`${protocol} ${internalPort} ${port}`);
  }

  // ---- Commands ----------------------------------------------------------------------------

  wanted(wish: Wish, now: Instant, isAdopted = false): NatPmpMapping {
    const mapping = new NatPmpMapping(wish);
    if (isAdopted) mapping.mayExistUntil = Infinity;
    const before = this.#all.find((other) =>
      other.phase === "deleting" && isSameMapping(other.wish, wish)
    );
    // One that is being deleted is waited for.
    if (!before) mapping.next = at(now, "the application's wish", "its first request");
    this.#all = this.#all.filter(({ phase }) => phase !== "over");
    this.#all.push(mapping);
    return mapping;
  }

  claimed(wish: Wish, now: Instant): void {
    const mapping = this.of(wish);
    if (!mapping) return;
    mapping.wantedUntil = Infinity;
    mapping.revision++;
    if (mapping.until === undefined) {
      if (mapping.phase === "asking") {
        mapping.next ??= this.#isOnItsWay(mapping)
          ? undefined
          : at(now, "the application's wish", "its request");
      }
      return;
    }
    mapping.sentRevision = mapping.revision;
    mapping.wantedUntil = mapping.grantedAt +
      lifetimesOf(wish) * (mapping.until - mapping.grantedAt);
  }

  renewed(wish: Wish, now: Instant): void {
    this.#tick(now, true);
    const mapping = this.of(wish);
    if (!mapping || mapping.phase === "deleting") return;
    mapping.wantedUntil = Infinity;
    mapping.revision++;
    if (mapping.failure === "refused" && mapping.refusedUntil > now) return;
    if (mapping.phase === "granted") this.#renewSoon(mapping, now);
  }

  #renewSoon(mapping: NatPmpMapping, now: Instant): void {
    if (this.#isOnItsWay(mapping) || mapping.isInLine(now)) return;
    const when = Math.max(now, mapping.renewedAt + RENEWAL_GAP_MS, mapping.refusedUntil);
    // A renewal of the schedule may be less than 4 s ago.
    const to = Math.max(when, now + RENEWAL_GAP_MS);
    mapping.next = between(when, to, now, "the application's wish", "its renewal");
    mapping.renewedAt = when;
    mapping.wasEarly = true;
  }

  #isOnItsWay(mapping: NatPmpMapping): boolean {
    return this.#exchange?.mapping === mapping;
  }

  revoked(wish: Wish, now: Instant): void {
    this.#tick(now, true);
    const mapping = this.of(wish);
    if (!mapping || mapping.phase === "deleting") return;
    this.#takeBack(mapping);
    const isLeaving = this.#all.some((other) =>
      other !== mapping && other.phase === "deleting" && isSameMapping(other.wish, wish)
    );
    if (now >= mapping.mayExistUntil || isLeaving) {
      mapping.end();
      return this.#owe(wish, "unmapped", "it was revoked");
    }
    const isHeld = this.#isStrict(mapping);
    mapping.phase = "deleting";
    mapping.until = undefined;
    mapping.next = at(now, "its revocation", "its deletion");
    // In a session it may have been left to another protocol.
    if (!isHeld) mapping.next = { ...mapping.next, to: Infinity };
  }

  abandoned(wish: Wish): void {
    const mapping = this.of(wish);
    if (!mapping) return;
    this.#takeBack(mapping);
    mapping.end();
  }

  askAddress(now: Instant): void {
    this.#mayAskAddress = true;
    // One that is on its way answers this one, too.
    if (this.#exchange?.data.length !== 2) this.#mustAskAddressBy = now;
  }

  networkChanged(now: Instant): void {
    this.#tick(now, true);
    for (const mapping of [...this.#all]) {
      if (mapping.phase === "over") continue;
      this.#takeBack(mapping);
      if (mapping.phase === "deleting") {
        this.#ends(mapping, "unmapped", "its address is gone", now);
        continue;
      }
      mapping.mayExistUntil = mapping.refusedUntil = -Infinity;
      mapping.isStale = mapping.until !== undefined;
      mapping.failure = undefined;
      mapping.phase = "asking";
      mapping.next = at(now, "the change of the network", "its request from there");
    }
  }

  /** A session has heard of a loss of state: what it holds may be made again, one by one. */
  restarted(now: Instant): void {
    if (this.owesRestart) this.#gatewayLostState(now);
    this.#mayRecreate(now);
  }

  #mayRecreate(now: Instant): void {
    for (const mapping of this.#all) mapping.mayRecreateUntil = now + RECREATION_MS + IN_LINE_MS;
  }

  // ---- What is sent ------------------------------------------------------------------------

  /** A datagram of version 0 leaves. */
  sends(data: Uint8Array, to: Endpoint, now: Instant): void {
    const watch = this.#watch;
    if (to.address !== this.#gateway || to.port !== PORT) {
      breach(watch, `sends NAT-PMP to ${to.address}:${to.port}, its gateway is another`, now);
    }
    this.#tick(now, true);
    this.sentAt = now;
    const exchange = this.#exchange;
    if (exchange && equalBytes(exchange.data, data)) return this.#sendsAgain(exchange, now);
    if (exchange && !this.#mayLeave(exchange, now)) {
      breach(
        watch,
        "sends another NAT-PMP request while one is on its way (sent " +
          `${exchange.sends} times, ${(now - exchange.startedAt).toFixed(0)} ms ago)`,
        now,
      );
    }
    this.#begin(data, now);
  }

  #sendsAgain(exchange: Exchange, now: Instant): void {
    const { next, mapping, isDeletion } = exchange;
    const isRested = now < this.#watch.restUntil;
    if (!isOnTime(next, now) && !isRested) {
      // A new request for the same may have the same bytes.
      if (this.#mayLeave(exchange, now)) return this.#begin(exchange.data, now);
      breach(this.#watch, `sends ${nameOfExchange(exchange)} again ${misses(next, now)}`, now);
    }
    const most = isDeletion ? NATPMP_DELETIONS : NATPMP_SENDS;
    if (exchange.sends >= most) {
      if (isRested || this.#mayLeave(exchange, now)) return this.#begin(exchange.data, now);
      breach(this.#watch, `sends ${nameOfExchange(exchange)} for the ${most + 1}th time`, now);
    }
    exchange.sends++;
    exchange.next = waitAfter(exchange.sends, now);
    if (!mapping) return;
    if (isDeletion) this.#deletedAt.set(portKey(mapping.wish), now);
    else this.#mayExist(mapping, now);
  }

  /** Whether the request on its way may be left for another one: taken back, or unanswered. */
  #mayLeave(exchange: Exchange, now: Instant): boolean {
    const { mapping } = exchange;
    const isUsedUp = exchange.sends >= (exchange.isDeletion ? 1 : NATPMP_SENDS);
    if (isUsedUp && now >= exchange.next.from - SLACK_MS) {
      this.#unanswered(exchange, now);
      return true;
    }
    if (exchange.isUnclear) return true;
    if (mapping && now <= mapping.mayRecreateUntil) return true;
    // In a session another protocol may have taken the mapping over.
    if (!this.#watch.isSession || (mapping && this.#isHeld(mapping))) return false;
    return mapping ? !exchange.isDeletion : true;
  }

  #begin(data: Uint8Array, now: Instant): void {
    const watch = this.#watch;
    const request = natPmp.decodeRequest(data);
    if (typeof request === "string") breach(watch, `sends NAT-PMP that is ${request}`, now);
    const next = waitAfter(1, now);
    const started = { data, startedAt: now, sends: 1, next };
    if (request.kind === "address") {
      this.#judgeAddress(now);
      this.#exchange = { ...started, mapping: undefined, isDeletion: false };
      return;
    }
    if (request.kind !== "map") breach(watch, `sends NAT-PMP's ${request.kind}`, now);
    const { protocol, internalPort, suggestedExternalPort, lifetimeSeconds } = request;
    if (data[2] !== 0 || data[3] !== 0) breach(watch, "does not zero what is reserved", now);
    const isDeletion = lifetimeSeconds === 0;
    if (isDeletion && suggestedExternalPort !== 0) {
      breach(watch, `deletes with the suggested port ${suggestedExternalPort}`, now);
    }
    if (internalPort === 0) {
      breach(watch, `deletes all ${protocol} mappings of this host, others' among them`, now);
    }
    const mapping = this.#find(protocol, internalPort, isDeletion, now);
    if (mapping.until !== now) this.#expireAt(mapping, now);
    this.#exchange = { ...started, mapping, isDeletion };
    if (isDeletion) {
      this.#judgeTime(mapping, "deletes", now);
      this.#deletedAt.set(portKey(mapping.wish), now);
    } else {
      this.#judgeMap(mapping, request, now);
      this.#mayExist(mapping, now);
      this.#asked.add(mapping.wish);
    }
    mapping.sentRevision = mapping.revision;
    mapping.next = undefined;
  }

  #judgeAddress(now: Instant): void {
    // Asked for at the application's wish; then along with what is asked for mappings.
    if (!this.#mayAskAddress && this.address === undefined && !this.#watch.isSession) {
      breach(this.#watch, "asks for the external address, which nobody wants to know", now);
    }
    this.#mustAskAddressBy = Infinity;
  }

  #find(protocol: Transport, port: number, isDeletion: boolean, now: Instant): NatPmpMapping {
    const fitting = this.#all.filter(({ wish, phase }) =>
      phase !== "over" && wish.protocol === protocol && wish.internalPort === port &&
      (phase === "deleting") === isDeletion
    );
    const [first] = fitting;
    if (first) return first;
    // A session takes up what PCP has, or had, and deletes what it may have made.
    if (this.#watch.isSession && isDeletion) {
      const made = this.#wishes.find((wish) =>
        wish.protocol === protocol && wish.internalPort === port &&
        this.#asked.has(wish)
      );
      if (made) {
        const mapping = this.wanted(made, now);
        mapping.phase = "deleting";
        mapping.next = { ...at(now, "what it had asked for", "its deletion"), to: Infinity };
        return mapping;
      }
    }
    const other = this.#watch.isSession && !isDeletion &&
      this.#wishes.find((wish) =>
        wish.protocol === protocol && wish.internalPort === port && wish.id !== undefined &&
        !wish.isRevoked && (wish.told !== "held" || wish.via === "nat-pmp") && !isPcpOnly(wish)
      );
    if (other) return this.wanted(other, now);
    const deed = isDeletion ? "deletes" : "asks for";
    breach(this.#watch, `${deed} ${port}/${protocol}, which nobody wants`, now);
  }

  #judgeMap(
    mapping: NatPmpMapping,
    request: natPmp.NatPmpMapFields,
    now: Instant,
  ): void {
    const watch = this.#watch;
    const { wish } = mapping;
    const ports = wish.granted ? [wish.granted.port] : [wish.suggestedPort];
    if (wish.granted && watch.isSession && wish.suggestedPort !== 0) ports.push(wish.suggestedPort);
    if (wish.remembered) ports.push(wish.remembered.port);
    if (mapping.until === undefined) { for (const { port } of wish.history) ports.push(port); }
    if (!ports.includes(request.suggestedExternalPort)) {
      breach(
        watch,
        `asks for ${mapping.name} with the suggested port ${request.suggestedExternalPort}, ` +
          `not ${ports.join(" or ")}`,
        now,
      );
    }
    const left = Math.max(1, Math.ceil((mapping.wantedUntil - now) / 1000));
    const wanted = Math.min(mapping.lifetimeSeconds, left);
    if (Math.abs(request.lifetimeSeconds - wanted) > 1) {
      const asked = `asks for ${mapping.name} for ${request.lifetimeSeconds} s`;
      breach(watch, `${asked}, wanted are ${wanted} s`, now);
    }
    this.#judgeTime(mapping, mapping.until === undefined ? "asks for" : "renews", now);
    this.#noteRecreation(mapping, now);
    const isRenewal = mapping.until !== undefined && !mapping.isStale;
    if (isRenewal) mapping.renewedAt = Math.min(now, mapping.next?.from ?? now);
    if (mapping.until === undefined || mapping.isStale) mapping.phase = "asking";
  }

  #noteRecreation(mapping: NatPmpMapping, now: Instant): void {
    const { lostStateAt, phase } = mapping;
    // All that were lost at once are made again at once.
    for (const other of this.#all) {
      if (other.lostStateAt === lostStateAt) other.lostStateAt = undefined;
    }
    if (phase !== "recovering" || lostStateAt === undefined || this.#watch.isSession) return;
    const delayMs = now - lostStateAt;
    if (delayMs === 0) {
      breach(
        this.#watch,
        "makes mappings again at once where the loss of state was heard: the delay is random, 0…5 s",
        now,
      );
    }
    this.#watch.recreations.push({ via: "nat-pmp", delayMs });
  }

  /** Whatever waits in line leaves late, but nothing leaves early. */
  #judgeTime(mapping: NatPmpMapping, deed: string, now: Instant): void {
    // What has its turn has not waited in vain.
    mapping.mayFailAt = -Infinity;
    const { next } = mapping;
    if (now < this.#watch.restUntil) return;
    // What a session has lost, and makes again, is not known from outside.
    if (this.#watch.isSession && mapping.until !== undefined) return;
    if (next && now >= next.from - SLACK_MS) return;
    if (!next && !this.#isStrict(mapping)) return;
    if (this.#watch.isSession && !this.#isHeld(mapping) && now >= mapping.refusedUntil - SLACK_MS) {
      return;
    }
    const when = next ? misses(next, now) : "although nothing is due";
    breach(this.#watch, `${deed} ${mapping.name} ${when}`, now);
  }

  #isHeld(mapping: NatPmpMapping): boolean {
    return mapping.until !== undefined && mapping.wish.via === "nat-pmp";
  }

  #isStrict(mapping: NatPmpMapping): boolean {
    return !this.#watch.isSession || mapping.phase === "deleting" || this.#isHeld(mapping);
  }

  #mayExist(mapping: NatPmpMapping, now: Instant): void {
    const end = now + mapping.lifetimeSeconds * 1000;
    mapping.mayExistUntil = Math.max(mapping.mayExistUntil, end);
  }

  // ---- What is received --------------------------------------------------------------------

  /** A datagram reaches the client. */
  receives(data: Uint8Array, from: Endpoint, now: Instant): void {
    // PMP-C-14, -15: the gateway's address; an answer from its port, too.
    if (from.address !== this.#gateway) return;
    const response = natPmp.decodeResponse(data);
    if (typeof response === "string") return;
    const isFromServer = from.port === PORT;
    if (!isFromServer && response.kind !== "address") return;
    if (response.kind === "map" && response.resultCode === 0) {
      const { protocol, internalPort, externalPort } = response;
      this.#confirmed.add(`${protocol} ${internalPort} ${externalPort}`);
    }
    this.#tick(now, true);
    const exchange = this.#exchange;
    const isOurs = exchange !== undefined && isFromServer && answers(response, exchange);
    if (response.kind === "unsupported-version") {
      // A session takes the answer to a PCP request for that.
      if (this.#watch.isSession) return this.#unclear(now);
      if (response.version !== 0 && !isOurs) return;
    }
    this.#isSilent = false;
    const { epochSeconds } = response;
    if (epochSeconds !== undefined && this.epoch.hear(epochSeconds, now)) {
      this.owesRestart = true;
      this.#answeredLast = isOurs ? exchange.mapping : undefined;
      // Its answer may be a refusal: then it is lost.
      if (this.#answeredLast) this.#answeredLast.isStale = this.#answeredLast.until !== undefined;
      // Which answers a session takes is not known from outside: it says that it took this one.
      if (!this.#watch.isSession) this.#gatewayLostState(now);
    } else if (epochSeconds !== undefined && !isOurs && epochSeconds < YOUNG_TABLE_SECONDS) {
      this.#tableBegan(epochSeconds, now);
    }
    if (isOurs && this.#isStale(response, exchange, now)) return;
    // A mapping that was taken back just now has no request on its way.
    if (isOurs && this.#exchange === exchange) this.#answered(exchange, response, now);
    else if (response.kind === "address" && !isOurs) this.#announced(response, now);
    else if (isOurs && response.kind === "address") this.#hears(response, now);
  }

  /** In a session nobody outside knows whose answer it is. */
  #unclear(now: Instant): void {
    const exchange = this.#exchange;
    if (!exchange) return;
    exchange.isUnclear = true;
    const { mapping } = exchange;
    if (mapping) mapping.next ??= { ...at(now, "a no", "a request"), to: Infinity };
  }

  #isStale(response: natPmp.NatPmpResponse, exchange: Exchange, now: Instant): boolean {
    if (response.kind !== "map" || response.resultCode !== 0) return false;
    if (exchange.isDeletion) return response.lifetimeSeconds !== 0;
    const deletedAt = exchange.mapping && this.#deletedAt.get(portKey(exchange.mapping.wish));
    const isDeletion = response.externalPort === 0 && response.lifetimeSeconds === 0;
    return isDeletion && deletedAt !== undefined && now - deletedAt < STALE_MS;
  }

  #gatewayLostState(now: Instant): void {
    const answered = this.#answeredLast;
    for (const mapping of this.#all) {
      const { phase } = mapping;
      if (mapping === answered || phase === "over" || phase === "deleting") continue;
      mapping.isStale = mapping.until !== undefined;
      mapping.refusedUntil = -Infinity;
      // What has rested until this very moment is not in line yet.
      const isAsking = phase === "resting" && mapping.next !== undefined && mapping.next.to < now;
      if ((phase === "granted" || phase === "resting") && !isAsking) {
        this.#recover(mapping, now, true);
      }
    }
  }

  /** A young table: what was granted before it began is not in it. */
  #tableBegan(epochSeconds: number, now: Instant): void {
    const beganAt = now - 1000 * (epochSeconds + 1);
    for (const mapping of this.#all) {
      if (mapping.phase !== "granted" || mapping.grantedAt >= beganAt) continue;
      mapping.isStale = true;
      this.#recover(mapping, now, true);
    }
  }

  #recover(mapping: NatPmpMapping, now: Instant, isLost: boolean): void {
    const what = isLost ? "the loss of state was heard" : "the gateway's announcement";
    // What is in line may have been renewed less than 4 s ago.
    const isRenewing = mapping.phase === "granted" &&
      (this.#isOnItsWay(mapping) || mapping.isInLine(now));
    // A session's may be another protocol's loss of state: a request on its way goes on then.
    if (this.#watch.isSession && this.#isOnItsWay(mapping)) this.#exchange!.isUnclear = true;
    else this.#takeBack(mapping);
    const earliest = Math.max(now, mapping.renewedAt + RENEWAL_GAP_MS, mapping.refusedUntil);
    // Which of its protocols a session means by a loss of state is not known from outside.
    const latest = this.#watch.isSession ? Infinity : Math.max(earliest, now + RECREATION_MS);
    const wasQuiet = mapping.phase === "granted" && !isRenewing;
    mapping.phase = "recovering";
    mapping.lostStateAt = isLost && wasQuiet ? now : undefined;
    mapping.next = between(earliest, latest, now, what, "the random delay");
  }

  #announced(response: natPmp.NatPmpResponse & { kind: "address" }, now: Instant): void {
    // Whether a session sees a new table in it does not show.
    if (this.#watch.isSession) this.#mayRecreate(now);
    this.#hears(response, now);
    const exchange = this.#exchange;
    const most = exchange?.isDeletion ? NATPMP_DELETIONS : NATPMP_SENDS;
    if (exchange && exchange.sends < most && exchange.next.to > now + RECREATION_MS) {
      const what = "the gateway's announcement";
      exchange.next = between(now, now + RECREATION_MS, now, what, "the random delay");
    }
    for (const mapping of this.#all) {
      if (mapping.phase !== "resting" || mapping.failure === "refused") continue;
      if (!mapping.isInLine(now)) this.#recover(mapping, now, false);
    }
  }

  #hears(response: natPmp.NatPmpResponse & { kind: "address" }, now: Instant): void {
    const { externalAddress } = response;
    if (externalAddress === undefined || externalAddress === "0.0.0.0") return;
    this.address = externalAddress;
    this.#watch.natPmpHeardAt = now;
  }

  #answered(exchange: Exchange, response: natPmp.NatPmpResponse, now: Instant): void {
    this.#exchange = undefined;
    const { mapping, isDeletion } = exchange;
    if (!mapping) {
      if (response.kind === "address") this.#hears(response, now);
      return;
    }
    const failure = failureOf(response);
    if (isDeletion) return this.#ends(mapping, "unmapped", "it was deleted", now);
    if (failure !== undefined) {
      // What a session should have sent again by now it has taken back; else it does not show. Even what
      // it holds it takes back, and asks for anew, where it hears of a loss of state meanwhile.
      const isBack = now > exchange.next.to + SLACK_MS && !this.#isStrict(mapping);
      if (!isBack && !exchange.isUnclear) return this.#failed(mapping, failure, now);
      mapping.next = { ...at(now, failure.why, "its request"), to: Infinity };
      return;
    }
    if (response.kind !== "map") return;
    if (response.externalPort === 0) {
      return this.#failed(mapping, { why: "a grant of port 0", holdMs: undefined }, now);
    }
    if (response.lifetimeSeconds === 0) {
      mapping.failure = "other";
      return this.#lose(mapping, "a lifetime of 0", undefined, now);
    }
    const grant = {
      external: { address: this.address, port: response.externalPort },
      lifetimeSeconds: response.lifetimeSeconds,
    };
    this.#granted(mapping, grant, now);
  }

  #granted(
    mapping: NatPmpMapping,
    { external, lifetimeSeconds }: { external: External; lifetimeSeconds: number },
    now: Instant,
  ): void {
    const { wish } = mapping;
    const isLost = wish.told === "lost" || wish.owed?.types[0] === "lost";
    const type = isLost
      ? "recovered"
      : wish.told !== "held"
      ? "mapped"
      : isSame(wish.external!, external)
      ? "renewed"
      : "moved";
    mapping.grant(lifetimeSeconds, now);
    wish.granted = external;
    if (mapping.sentRevision < mapping.revision) this.#renewSoon(mapping, now);
    // Until it knows the external address a session tells nothing of a mapping.
    const isOptional = this.#watch.isSession;
    owe(wish, { types: [type], external, isOptional, why: "NAT-PMP has granted it" });
  }

  /**
   * A request came to nothing: refused for `holdMs`, or something else where that is undefined. A
   * grant lasts to its end, unless it is of a table that was lost.
   */
  #failed(mapping: NatPmpMapping, { why, holdMs, isVersion }: Failure, now: Instant): void {
    mapping.failure = holdMs === undefined ? "other" : "refused";
    mapping.refusedUntil = holdMs === undefined ? -Infinity : now + holdMs;
    if (mapping.until === undefined) return this.#notGranted(mapping, why, holdMs, now);
    if (mapping.isStale || isVersion) {
      const until = now + (holdMs ?? restMs(mapping.rests++, mapping.wasGranted));
      return this.#lose(mapping, why, until, now);
    }
    mapping.phase = "granted";
    mapping.planRenewal(now + SLACK_MS);
    // A point at this very moment may be the one that failed, or the next.
    const near = natPmpRenewal(mapping.grantedAt, mapping.until, now - SLACK_MS);
    const isNow = near !== undefined && near.from <= now + SLACK_MS;
    if (isNow && mapping.next) mapping.next = { ...mapping.next, from: near.from };
  }

  #notGranted(mapping: NatPmpMapping, why: string, holdMs: number | undefined, now: Instant): void {
    const { wish } = mapping;
    if (holdMs !== undefined && mapping.mayExistUntil < Infinity) mapping.mayExistUntil = -Infinity;
    if (!mapping.isKeptAlive) return this.#ends(mapping, "failed", why, now);
    mapping.rest(now, now + (holdMs ?? restMs(mapping.rests++, mapping.wasGranted)), why);
    this.#owe(wish, "failed", why);
  }

  #lose(mapping: NatPmpMapping, why: string, until: Instant | undefined, now: Instant): void {
    if (mapping.until === undefined) return this.#notGranted(mapping, why, undefined, now);
    const { next } = mapping;
    const wasRenewing = mapping.phase === "granted";
    mapping.until = undefined;
    mapping.isStale = false;
    if (!mapping.isKeptAlive) {
      this.#takeBack(mapping);
      return this.#ends(mapping, "unmapped", why, now);
    }
    this.#owe(mapping.wish, "lost", why);
    if (until !== undefined) {
      this.#takeBack(mapping);
      return mapping.rest(now, until, why);
    }
    if (!wasRenewing) return;
    mapping.phase = "asking";
    if (now < this.#watch.restUntil) {
      // After a sleep what is on its way may go on.
      if (this.#isOnItsWay(mapping)) this.#exchange!.isUnclear = true;
      mapping.next = { ...at(now, why, "its request"), to: Infinity };
      return;
    }
    // What was to be renewed is asked for anew, within 4 s of its last renewal.
    this.#takeBack(mapping);
    const to = next === undefined && mapping.grantedAt === now ? now : now + RENEWAL_GAP_MS;
    mapping.next = between(now, to, now, why, "its request");
  }

  /** It is over; what waited for that is asked for. */
  #ends(mapping: NatPmpMapping, type: "failed" | "unmapped", why: string, now: Instant): void {
    mapping.end();
    this.#owe(mapping.wish, type, why);
    this.#startSuccessor(mapping, now);
  }

  #startSuccessor(mapping: NatPmpMapping, now: Instant): void {
    for (const other of this.#all) {
      const isNext = other.phase === "asking" && !other.next && !this.#isOnItsWay(other);
      if (isNext && isSameMapping(other.wish, mapping.wish)) {
        other.next = at(now, "the end of its predecessor", "its first request");
      }
    }
  }

  #unanswered(exchange: Exchange, now: Instant): void {
    this.#exchange = undefined;
    this.#isSilent = true;
    now = Math.min(now, exchange.next.to);
    const { mapping, isDeletion } = exchange;
    if (isDeletion) {
      return mapping && this.#ends(mapping, "unmapped", "nobody answered its deletion", now);
    }
    this.#mustAskAddressBy = Infinity;
    // The verdict is on all that waited for as long.
    const silence = { why: "silence", holdMs: undefined };
    const waited = this.#all.filter(({ phase, next }) =>
      phase !== "deleting" && phase !== "over" && next !== undefined &&
      next.from <= exchange.startedAt
    );
    if (mapping) this.#failed(mapping, silence, now);
    for (const other of waited) {
      if (other === mapping) continue;
      if (other.next!.to <= exchange.startedAt) this.#failed(other, silence, now);
      else this.#mayHaveWaited(other, now);
    }
  }

  /** It is not known from outside whether it was in line: what is told of it says so. */
  #mayHaveWaited(mapping: NatPmpMapping, now: Instant): void {
    mapping.mayFailAt = now;
    // A renewal that fails is not told of.
    const isTold = mapping.isStale || mapping.until === undefined;
    if (!isTold) mapping.next = { ...mapping.next!, to: Infinity };
    const types = ["failed", "lost", "unmapped"] as const;
    owe(mapping.wish, { types, isOptional: true, why: "it may have waited in vain" });
  }

  /** ICMP: nothing listens there. */
  unreachable(now: Instant): void {
    const exchange = this.#exchange;
    if (!exchange) return;
    this.#exchange = undefined;
    this.#mustAskAddressBy = Infinity;
    for (const mapping of [...this.#all]) {
      const { phase, next } = mapping;
      const isWaiting = exchange.mapping === mapping || (next !== undefined && next.from <= now);
      if (phase === "over" || !isWaiting) continue;
      // What waits for the random delay may not be in line yet.
      if (exchange.mapping !== mapping && next && next.to >= now) {
        this.#mayHaveWaited(mapping, now);
      } else if (phase === "deleting") {
        this.#ends(mapping, "unmapped", "ICMP unreachable", now);
      } else this.#failed(mapping, { why: "ICMP unreachable", holdMs: undefined }, now);
    }
  }

  #takeBack(mapping: NatPmpMapping): void {
    if (this.#exchange?.mapping === mapping) this.#exchange = undefined;
  }

  #owe(wish: Wish, type: "failed" | "lost" | "unmapped", why: string): void {
    owe(wish, { types: [type], isOptional: false, why });
  }

  // ---- Time --------------------------------------------------------------------------------

  /** The host has woken up: what was to be sent again is due now. */
  woke(now: Instant): void {
    const exchange = this.#exchange;
    if (exchange && exchange.next.to < now) exchange.next = { ...exchange.next, to: now };
  }

  #tick(now: Instant, isBefore = false): void {
    const exchange = this.#exchange;
    const isOver = exchange && exchange.next.to + SLACK_MS < now && !exchange.isUnclear;
    if (isOver && this.#isUsedUp(exchange, now)) this.#unanswered(exchange, exchange.next.to);
    for (const mapping of [...this.#all]) {
      if (!isBefore || mapping.until !== now) this.#expireAt(mapping, now);
    }
  }

  #expireAt(mapping: NatPmpMapping, now: Instant): void {
    const { until, phase } = mapping;
    if (until !== undefined && until <= now && phase !== "deleting") this.#expire(mapping, now);
  }

  #expire(mapping: NatPmpMapping, now: Instant): void {
    const isQuiet = mapping.phase === "granted" && !this.#isOnItsWay(mapping) &&
      !mapping.isInLine(now);
    const isOver = isQuiet && !mapping.isKeptAlive && !mapping.failure;
    if (isOver || !mapping.wantsRenewal) {
      this.#takeBack(mapping);
      return this.#ends(mapping, "unmapped", "its time was over", now);
    }
    const isRefused = mapping.refusedUntil > now;
    const until = isRefused ? mapping.refusedUntil : undefined;
    mapping.failure ??= "other";
    this.#lose(mapping, "the end of its lifetime", until, now);
  }

  /** The client rests: what is overdue was forgotten. */
  settle(now: Instant): void {
    this.#tick(now, true);
    if (now < this.#watch.restUntil) return;
    const exchange = this.#exchange;
    if (exchange) return this.#settleExchange(exchange, now);
    // Nothing is on its way: what is due has left.
    for (const mapping of this.#all) {
      const { next } = mapping;
      if (!next || now <= next.to + SLACK_MS || !this.#isStrict(mapping)) continue;
      // Whether a session took the grant, or has another one by now, does not show.
      if (this.#watch.isSession && mapping.phase !== "deleting") continue;
      if (mapping.phase === "deleting" && now >= mapping.mayExistUntil) {
        this.#ends(mapping, "unmapped", "its time was over", now);
        continue;
      }
      const deed = mapping.phase === "deleting" ? "deletion" : "request";
      breach(this.#watch, `has not sent a ${deed} for ${mapping.name} ${misses(next, now)}`, now);
    }
    if (now > this.#mustAskAddressBy + SLACK_MS && !this.#watch.isSession) {
      breach(this.#watch, "has not asked for the external address", now);
    }
  }

  /** Whether it is not sent again: as often as it may be, or past the end of what it deletes. */
  #isUsedUp({ mapping, isDeletion, sends }: Exchange, now: Instant): boolean {
    if (!isDeletion) return sends >= NATPMP_SENDS;
    if (mapping && now >= mapping.mayExistUntil) return true;
    return sends >= (this.#isSilent ? 1 : NATPMP_DELETIONS);
  }

  #settleExchange(exchange: Exchange, now: Instant): void {
    const { mapping, next } = exchange;
    if (now <= next.to + SLACK_MS || exchange.isUnclear) return;
    if (mapping && !this.#isStrict(mapping)) return;
    if (!mapping && this.#watch.isSession) return;
    if (this.#isUsedUp(exchange, now)) return this.#unanswered(exchange, now);
    const what = nameOfExchange(exchange);
    breach(this.#watch, `has not sent ${what} again ${misses(next, now)}`, now);
  }

  /** The client tells something of a mapping: its time, or its requests, may be over just now. */
  tells(wish: Wish, type: string, now: Instant): void {
    const exchange = this.#exchange;
    const isWaitOver = exchange !== undefined && now >= exchange.next.from - SLACK_MS;
    if (isWaitOver && this.#isUsedUp(exchange, now)) this.#unanswered(exchange, now);
    this.#tick(now, true);
    const told = this.of(wish);
    const until = told?.until;
    if (told) this.#expireAt(told, now);
    // What ends at this very moment is told of as that.
    const hasExpired = told?.until !== until;
    if (hasExpired) told!.mayFailAt = -Infinity;
    if (told?.mayFailAt === now && ["failed", "lost", "unmapped"].includes(type)) {
      told.mayFailAt = -Infinity;
      this.#failed(told, { why: "silence", holdMs: undefined }, now);
    }
    const isOver = type === "unmapped" && told?.phase === "deleting" &&
      now >= told.mayExistUntil - SLACK_MS;
    if (isOver) {
      this.#takeBack(told);
      this.#ends(told, "unmapped", "its time was over", now);
    }
  }
}

function isOnTime({ from, to }: Window, now: Instant): boolean {
  return now >= from - SLACK_MS && now <= to + SLACK_MS;
}

function waitAfter(sends: number, now: Instant): Window {
  const rule = "the wait of RFC 6886";
  return { ...at(now + natPmpWaitMs(sends), `sending ${sends}`, rule), since: now };
}

function nameOfExchange({ mapping, isDeletion, data }: Exchange): string {
  if (!mapping) return data.length === 2 ? "the question for the address" : "a deletion of all";
  return `the ${isDeletion ? "deletion of" : "request for"} ${mapping.name}`;
}

function portKey(wish: Wish): string {
  return `${wish.protocol} ${wish.internalPort}`;
}

/** PMP-C-35: an answer is told by its opcode and internal port; short errors name none. */
function answers(response: natPmp.NatPmpResponse, exchange: Exchange): boolean {
  const opcode = exchange.data[1]!;
  switch (response.kind) {
    case "address":
      return opcode === 0;
    case "map": {
      if (opcode !== (response.protocol === "udp" ? 1 : 2)) return false;
      const port = exchange.data[4]! << 8 | exchange.data[5]!;
      return (response.internalPort ?? port) === port;
    }
    case "unsupported-version":
      return response.version !== 0 || response.opcode === undefined || response.opcode === opcode;
    case "other":
      return false;
  }
}

interface Failure {
  readonly why: string;
  readonly holdMs: number | undefined;
  readonly isVersion?: boolean;
}

function failureOf(response: natPmp.NatPmpResponse): Failure | undefined {
  if (response.kind === "unsupported-version") {
    return { why: "UNSUPP_VERSION", holdMs: undefined, isVersion: true };
  }
  const { resultCode } = response;
  if (resultCode === 0) return undefined;
  return { why: natPmp.natPmpResultName(resultCode), holdMs: natPmpHoldMs(resultCode) };
}
