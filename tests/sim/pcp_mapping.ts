/**
 * One PCP mapping as it shows on the wire: which request is on its way, what was granted, and when
 * its next packet is due.
 *
 * @module
 */
import type { Instant } from "../../core/machine.ts";
import { type External, lifetimesOf, nameOf, type Wish } from "./wish.ts";
import {
  at,
  DAY_MS,
  pcpRenewal,
  PcpSeries,
  RENEWAL_GAP_MS,
  SLACK_MS,
  type Window,
} from "./windows.ts";

/** What its next packet is, or why there is none. */
export type PcpPhase =
  /** A first request waits: for its predecessor's deletion, or for a server with room. */
  | "waiting"
  /** A request for what is not granted, or is made again, is on its way. */
  | "asking"
  | "granted"
  | "renewing"
  /** The server lost its state, or is back: asked again after the random delay. */
  | "recovering"
  /** Refused: asked again when the refusal's lifetime is over. */
  | "held"
  | "deleting"
  | "over";

/** One mapping. */
export class PcpMapping {
  readonly wish: Wish;
  /** In hexadecimal digits; undefined before its first request. */
  nonce: string | undefined;
  phase: PcpPhase = "waiting";
  /** When its next packet leaves; undefined: not before something happens. */
  next: Window | undefined;
  /** The bytes on their way, and what series of sendings they may belong to. */
  data: Uint8Array | undefined;
  series: readonly PcpSeries[] = [];
  /** The first request of a program for it, which may start fast. */
  isFirst = true;
  grantedAt: Instant = 0;
  /** Undefined where the server holds nothing. */
  until: Instant | undefined;
  wantedUntil: Instant = Infinity;
  lifetimeSeconds: number;
  /** Until when the server may hold it, by the requests that it may have got. */
  mayExistUntil: Instant = -Infinity;
  /** What was granted is of a table that was lost, or of an address that the host had. */
  isStale = false;
  /** The last request came to nothing: by a refusal, or otherwise. */
  failure: "refused" | "other" | undefined;
  /** How often it has rested since the last grant. */
  rests = 0;
  wasGranted = false;
  /** Commands that change what is asked for, and those that the last request knew of. */
  revision = 0;
  sentRevision = 0;
  renewedAt: Instant = -Infinity;
  /** When its request was first sent, of those on their way. */
  startedAt: Instant = -Infinity;
  sentAt: Instant = -Infinity;
  /** The bytes may change: the application has changed its mind. */
  mayChange = false;
  /** Whether its last request was for a set of ports. */
  asksForSet = false;
  /** Whether its last request suggested what was granted before, beyond what is wished. */
  suggestsLearnt = false;
  /** Options were refused as malformed: those that need padding may be left out. */
  mayLeaveOut = false;
  /** Whether its next request starts fast does not show. */
  mayStartEither = false;
  /** PREFER_FAILURE was not kept at that moment: the mapping is given back once. */
  brokenAt: Instant = -Infinity;
  /** The server said no, and not before then. */
  refusedUntil: Instant = -Infinity;
  /** A session has told of a loss of state, which may be this server's or not. */
  mayRecreateUntil: Instant = -Infinity;
  /** A session deletes what it was granted after it had left it: how often does not show. */
  isLate = false;
  /** When a session sent what may be a renewal or a request for what was lost. */
  doubtfulAt: Instant = -Infinity;
  /** A grant of which it is not known yet whether the client takes it. */
  pending:
    | { readonly external: External; readonly lifetimeSeconds: number; readonly at: Instant }
    | undefined;
  /** A refusal of which it is not known yet whether the client takes it. */
  pendingRefusal: { readonly until: Instant; readonly why: string } | undefined;
  /** When the loss of state was heard that it is made again for. */
  lostStateAt: Instant | undefined;
  /** What renewals out of schedule have on their way: they are sent again until answered. */
  repeats: readonly PcpSeries[] = [];
  /** Which attempts the next renewal may be. */
  #first = 1;
  #last = 1;

  constructor(wish: Wish) {
    this.wish = wish;
    this.lifetimeSeconds = wish.lifetimeSeconds;
  }

  /** `"5003/udp"` */
  get name(): string {
    return nameOf(this.wish);
  }

  get isGranted(): boolean {
    return this.until !== undefined;
  }

  get isKeptAlive(): boolean {
    return this.wish.mode === "keep-alive";
  }

  get wantsRenewal(): boolean {
    return (this.until ?? -Infinity) < this.wantedUntil;
  }

  get isInFlight(): boolean {
    return this.phase === "asking" || this.phase === "renewing" || this.phase === "deleting";
  }

  /** What to ask for, seconds. */
  wantedSeconds(now: Instant): number {
    const left = Math.ceil((this.wantedUntil - now) / 1000);
    return Math.max(1, Math.min(this.lifetimeSeconds, left));
  }

  /** The length by which it is renewed, milliseconds. */
  get scheduledMs(): number {
    return Math.min((this.until ?? this.grantedAt) - this.grantedAt, DAY_MS);
  }

  /** It was granted. */
  grant(lifetimeSeconds: number, now: Instant): void {
    const believed = Math.max(DAY_MS / 1000, this.lifetimeSeconds);
    const lifetimeMs = Math.min(lifetimeSeconds, believed) * 1000;
    this.grantedAt = now;
    this.until = now + lifetimeMs;
    if (this.wantedUntil === Infinity) this.wantedUntil = now + lifetimesOf(this.wish) * lifetimeMs;
    this.phase = "granted";
    this.mayExistUntil = now + lifetimeSeconds * 1000;
    this.wasGranted = true;
    this.isStale = false;
    this.failure = undefined;
    this.rests = 0;
    this.refusedUntil = -Infinity;
    this.series = this.repeats = [];
    this.mayChange = false;
    this.lostStateAt = undefined;
    this.#first = this.#last = 1;
    this.planRenewal(now);
  }

  /** A renewal leaves at the application's wish, and again until it is answered. */
  renewedEarly(now: Instant): void {
    this.phase = "renewing";
    this.renewedAt = now;
    this.repeats = [repeat(now)];
    this.planRenewal(now);
  }

  /** It leaves again: false where it is not its time. */
  repeated(now: Instant): boolean {
    const fitting = this.repeats.filter((series) => series.isDue(now));
    if (fitting.length === 0) return false;
    this.repeats = fitting;
    for (const series of fitting) series.sent(now);
    this.renewedAt = now;
    this.planRenewal(now);
    return true;
  }

  /** A renewal leaves by the schedule, or what repeats in the midst of its window. */
  renewed(now: Instant, mayBeRepeat: boolean): void {
    this.phase = "renewing";
    this.renewedAt = now;
    // What repeats begins anew with the schedule.
    if (mayBeRepeat) this.repeats = [...this.repeats, repeat(now)];
    else if (this.repeats.length > 0) this.repeats = [repeat(now)];
    const fitting: number[] = [];
    for (let k = this.#first; k <= this.#last; k++) {
      const isIn = now >= this.#start(k) - SLACK_MS && now <= this.#end(k) + SLACK_MS;
      if (isIn) fitting.push(k);
    }
    this.#last = (fitting.at(-1) ?? this.#last) + 1;
    if (!mayBeRepeat) this.#first = (fitting[0] ?? this.#first) + 1;
    this.planRenewal(now);
  }

  /** Sets the window of the next renewal. */
  planRenewal(now: Instant): void {
    this.next = undefined;
    if (!this.wantsRenewal) return;
    // What was missed in a sleep is skipped; in the midst of a window it may have been missed.
    while (this.#end(this.#first) < now && this.#first < 30) this.#first++;
    const isInside = this.#start(this.#first) < now;
    this.#last = Math.max(this.#last, this.#first + (isInside ? 1 : 0));
    const earliest = this.renewedAt + RENEWAL_GAP_MS;
    const { grantedAt, scheduledMs } = this;
    const first = pcpRenewal(this.#first, grantedAt, scheduledMs, earliest);
    if (!first) return;
    const last = pcpRenewal(this.#last, grantedAt, scheduledMs, earliest);
    // Past the last one there is room for, none may come at all: the end comes first.
    const to = last === undefined || last.to >= this.until! ? Infinity : last.to;
    this.next = { ...first, to };
  }

  #start(k: number): Instant {
    return this.grantedAt + (1 - 2 ** -k) * this.scheduledMs;
  }

  #end(k: number): Instant {
    return this.grantedAt + (1 - 2 ** -k + 2 ** -(k + 2)) * this.scheduledMs;
  }

  /** One of the series goes on; those that had nothing to send now are out. */
  sent(now: Instant): void {
    this.sentAt = now;
    const fitting = this.series.filter((series) => series.isDue(now));
    if (fitting.length > 0) this.series = fitting;
    for (const series of this.series) series.sent(now);
    this.joinSeries();
  }

  /** The next packet may be any of theirs. */
  joinSeries(): void {
    let [first] = this.series;
    let to = -Infinity;
    for (const series of this.series) {
      if (series.next.from < first!.next.from) first = series;
      to = Math.max(to, series.next.to);
    }
    this.next = first && { ...first.next, to };
  }

  /** How often it was sent, at least. */
  get sends(): number {
    let least = Infinity;
    for (const { sends } of this.series) least = Math.min(least, sends);
    return least === Infinity ? 0 : least;
  }

  /** The renewal came to nothing: the next one in its time, but not before it may. */
  goOn(until: Instant, now: Instant): void {
    // What was no renewal has none planned: it is due as soon as it may be.
    const isPlanned = this.phase !== "asking";
    const next = isPlanned ? this.next : at(now, "a request that came to nothing", "its renewal");
    this.phase = "granted";
    this.series = this.repeats = [];
    this.next = undefined;
    if (!next || !this.wantsRenewal) return;
    const from = Math.max(next.from, until, this.renewedAt + RENEWAL_GAP_MS);
    this.next = from < this.until! ? { ...next, from, to: Math.max(next.to, from) } : undefined;
  }

  /** Whether what is on its way may begin anew. */
  get mayBegin(): boolean {
    return this.series.some(({ sends }) => sends === 0);
  }

  /** Whether its request waits for a random delay, or may do so. */
  get isDelayed(): boolean {
    return this.phase === "recovering" || this.mayBegin;
  }

  /** What is to begin may have been put off until then. */
  mayWaitUntil(when: Instant): void {
    const later = (next: Window): Window => ({ ...next, to: Math.max(next.to, when) });
    for (const series of this.series) if (series.sends === 0) series.next = later(series.next);
    if (this.series.length > 0) this.joinSeries();
    else if (this.next) this.next = later(this.next);
  }

  /** The server holds it no more. */
  clearGrant(): void {
    this.until = undefined;
  }

  /** Nothing is to be sent for it any more. */
  end(): void {
    this.phase = "over";
    this.next = undefined;
    this.series = [];
    this.until = undefined;
  }

  /** Refused: left alone until then. */
  hold(now: Instant, until: Instant, why: string): void {
    this.phase = "held";
    this.series = [];
    this.next = { ...at(until, why, "the end of what it said"), since: now };
  }
}

/** The sendings of a renewal out of schedule, the first of which leaves now. */
function repeat(now: Instant): PcpSeries {
  const series = new PcpSeries(at(now, "its renewal", "its renewal"), false, RENEWAL_GAP_MS);
  series.sent(now);
  return series;
}
