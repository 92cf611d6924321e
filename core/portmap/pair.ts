/**
 * TCP and UDP on the same external port, both or neither: what games, BitTorrent and VPN gateways
 * need.
 *
 * No protocol grants two at once. So one is asked for first, then the other with the port that the
 * first was given; where that is not to be had, both are given back and another port is tried:
 *
 *   asking ──both, one port──▶ held ──lost, another port──▶ (told `lost`) ──▶ asking
 *     │ ▲                       │
 *     │ └──another port─────────┘
 *     └──refused, or no port is free for both──▶ failed; where it was held before it rests, then
 *        is asked for anew
 *   any ──revoked──▶ both deleted ──▶ unmapped
 *
 * Each half is a managed mapping like any other.
 *
 * @module
 */
import type { Attempt } from "../errors.ts";
import { type Family, isSameEndpoint } from "../ip.ts";
import type { Instant } from "../machine.ts";
import type { Failure, MappingId, Transport } from "../mapping.ts";
import { below, type RandomSource } from "../random.ts";
import type { Timers } from "../timers.ts";
import type {
  GrantedMapping,
  ManagedMapping,
  MapperEvent,
  Nonces,
  PortRequest,
} from "./managed.ts";

/** What both halves are asked for. */
export type PairRequest = Omit<PortRequest, "protocol">;

const TRANSPORTS = ["tcp", "udp"] as const;
/** So many ports are tried. */
const MAX_ROUNDS = 6;
/** Ports that are tried at random: IANA's dynamic ones, which nobody owns. */
const FIRST_DYNAMIC_PORT = 49_152;
/** How long a pair that was held rests where it is not to be had. */
const REST_MS = 60_000;

/** What pairs need of the mapper. */
export interface PairHost {
  /** When each pair that rests is asked for anew. */
  readonly timers: Timers<MappingId>;
  /** Asks for a half; `nonces` are those of an earlier one of the same pair. */
  begin(pair: MappingId, request: PortRequest, nonces: Nonces, now: Instant): ManagedMapping;
  /** Deletes a half; {@linkcode Pairs.halfOver} follows. */
  end(half: ManagedMapping, now: Instant): void;
  /** Forgets a half, and leaves it at the gateway. */
  abandon(half: ManagedMapping, now: Instant): void;
  /** Renews a half; the number that its answer carries. */
  renew(half: ManagedMapping, lifetimeSeconds: number | undefined, now: Instant): number;
  /** Tells the application. */
  tell(event: MapperEvent, key: MappingId): void;
}

type FailedEvent = MapperEvent & { readonly type: "failed" };

/** What is told where every port that was tried was free for one of both alone. */
const NONE_FREE = {
  code: "refused",
  message: "the gateway gave no external port for both TCP and UDP",
} as const;

interface Half {
  readonly managed: ManagedMapping;
  /** The number of the renewal that is answered. */
  answered: number;
  /** The number that answers the application's renewal. */
  awaited: number;
  /** It has ended by itself. */
  isOver: boolean;
  failure: Failure | undefined;
}

interface Pair {
  readonly id: MappingId;
  readonly request: PairRequest;
  /** `wanted`: asked for, or held. */
  state: "wanted" | "ending" | "resting" | "revoking";
  halves: { readonly [half in Transport]?: Half };
  /** A gateway may keep what was given back for who can name its nonce. */
  nonces: { readonly [half in Transport]: Nonces };
  round: number;
  /** The port to ask for next. */
  candidate: number;
  /** What was told to be held. */
  told: GrantedMapping | undefined;
  isLost: boolean;
  isRenewed: boolean;
  /** For which it is asked, where that was said. */
  lifetimeSeconds: number | undefined;
  revision: number;
  renewalFailure: Failure | undefined;
  /** Of halves that are over. */
  attempts: readonly Attempt[];
  /** Why a half was not to be had. */
  failed: FailedEvent | undefined;
  isExpired: boolean;
}

/** The pairs of one mapper. */
export class Pairs {
  readonly #random: RandomSource;
  readonly #host: PairHost;
  readonly #open: Map<MappingId, Pair> = new Map();
  /** Those whose halves have changed since that was looked at. */
  readonly #dirty: Set<MappingId> = new Set();
  /** A half that was over before its beginning had returned. */
  #overAtOnce: ManagedMapping | undefined;

  /** @param random Which ports are tried. */
  constructor(random: RandomSource, host: PairHost) {
    this.#random = random;
    this.#host = host;
  }

  /** How many there are. */
  get size(): number {
    return this.#open.size;
  }

  /** Whether this is the id of one. */
  owns(id: MappingId): boolean {
    return this.#open.has(id);
  }

  /** Whether a half over this family is so. */
  some(family: Family, isSo: (request: PortRequest) => boolean): boolean {
    for (const { state, request } of this.#open.values()) {
      if (state === "revoking" || request.family !== family) continue;
      if (TRANSPORTS.some((protocol) => isSo({ ...request, protocol }))) return true;
    }
    return false;
  }

  /** What is held under an id. */
  mapping(id: MappingId): GrantedMapping | undefined {
    const pair = this.#open.get(id);
    return pair?.isLost ? undefined : pair?.told;
  }

  /** What each protocol has come to, for the half that counts. */
  attempts(id: MappingId, now: Instant): readonly Attempt[] | undefined {
    const pair = this.#open.get(id);
    if (!pair) return undefined;
    const half = pair.halves.udp ?? pair.halves.tcp;
    return half?.managed.attemptsAt(now) ?? pair.attempts;
  }

  /** Asks for one. */
  open(id: MappingId, request: PairRequest, now: Instant): void {
    const pair: Pair = {
      id,
      request,
      state: "wanted",
      halves: {},
      nonces: { tcp: {}, udp: {} },
      round: 0,
      candidate: request.suggestedExternal?.port ?? 0,
      told: undefined,
      isLost: false,
      isRenewed: false,
      lifetimeSeconds: request.lifetimeSeconds,
      revision: 0,
      renewalFailure: undefined,
      attempts: [],
      failed: undefined,
      isExpired: false,
    };
    this.#open.set(id, pair);
    this.#ask(pair, "tcp", now);
  }

  /** Renews both; undefined where there is no such pair. */
  renew(id: MappingId, lifetimeSeconds: number | undefined, now: Instant): number | undefined {
    const pair = this.#open.get(id);
    if (!pair) return undefined;
    pair.revision++;
    pair.lifetimeSeconds = lifetimeSeconds ?? pair.lifetimeSeconds;
    pair.renewalFailure = undefined;
    for (const half of Object.values(pair.halves)) {
      half.awaited = this.#host.renew(half.managed, lifetimeSeconds, now);
    }
    return pair.revision;
  }

  /** Deletes both. */
  revoke(id: MappingId, now: Instant): void {
    const pair = this.#open.get(id);
    if (!pair || pair.state === "revoking") return;
    this.#host.timers.delete(id);
    pair.state = "revoking";
    this.#endHalves(pair, now);
  }

  /** Deletes all. */
  revokeAll(now: Instant): void {
    for (const id of [...this.#open.keys()]) this.revoke(id, now);
  }

  /** Forgets one, and leaves it at the gateway. */
  abandon(id: MappingId, now: Instant): void {
    const pair = this.#open.get(id);
    if (!pair) return;
    this.#host.timers.delete(id);
    this.#open.delete(id);
    for (const { managed, isOver } of Object.values(pair.halves)) {
      if (!isOver) this.#host.abandon(managed, now);
    }
  }

  /** One that rests is due. */
  due(id: MappingId, now: Instant): void {
    const pair = this.#open.get(id);
    if (pair?.state !== "resting") return;
    pair.round = 0;
    pair.candidate = pair.told!.external.port;
    pair.state = "wanted";
    this.#ask(pair, "tcp", now);
  }

  /** Something happened to a half. */
  changed(managed: ManagedMapping, event: MapperEvent): void {
    const pair = this.#open.get(managed.partOf!);
    const half = pair && halfOf(pair, managed);
    if (!pair || !half) return;
    if ("revision" in event) {
      half.answered = Math.max(half.answered, event.revision);
      if (event.type === "renewal-failed") pair.renewalFailure = event.failure;
      else if (event.type === "renewed") pair.isRenewed = true;
    }
    this.#dirty.add(pair.id);
  }

  /** A half was not to be had. */
  halfFailed(managed: ManagedMapping, event: FailedEvent): void {
    const pair = this.#open.get(managed.partOf!);
    if (pair) pair.failed = event;
    this.#over(managed, undefined, event.attempts);
  }

  /** A half is over; `failure` says why its gateway may hold it all the same. */
  halfOver(
    managed: ManagedMapping,
    reason: "revoked" | "expired",
    failure: Failure | undefined,
  ): void {
    const pair = this.#open.get(managed.partOf!);
    if (pair && reason === "expired") pair.isExpired = true;
    this.#over(managed, failure, managed.attempts);
  }

  /** Does what follows; true where something did. */
  settle(now: Instant): boolean {
    const dirty = [...this.#dirty];
    this.#dirty.clear();
    for (const id of dirty) {
      const pair = this.#open.get(id);
      if (pair) this.#settle(pair, now);
    }
    return dirty.length > 0;
  }

  #over(managed: ManagedMapping, failure: Failure | undefined, attempts: readonly Attempt[]): void {
    const pair = this.#open.get(managed.partOf!);
    if (!pair) return;
    const half = halfOf(pair, managed);
    if (half) {
      half.isOver = true;
      half.failure = failure;
    } else this.#overAtOnce = managed;
    pair.attempts = pair.attempts.concat(attempts);
    this.#dirty.add(pair.id);
  }

  #settle(pair: Pair, now: Instant): void {
    const halves = Object.values(pair.halves);
    const isAllOver = halves.every(({ isOver }) => isOver);
    switch (pair.state) {
      case "revoking":
        return isAllOver ? this.#finish(pair) : undefined;
      case "ending":
        return isAllOver ? this.#askAnew(pair, now) : undefined;
      case "resting":
        return;
    }
    const over = halves.find(({ isOver }) => isOver);
    if (over && pair.isExpired) return isAllOver ? this.#finish(pair) : undefined;
    // Deleted with all of its transport, at the application's wish: the other one is no use alone.
    if (over && !pair.failed) return this.revoke(pair.id, now);
    if (over) {
      // Asked for in vain: the other one is no use.
      pair.round = MAX_ROUNDS;
      return this.#end(pair, now);
    }
    const { tcp, udp } = pair.halves;
    const [a, b] = [tcp, udp].map((half) =>
      half?.managed.phase === "held" ? half.managed.granted : undefined
    );
    if (a && udp && !isSameEndpoint(udp.managed.request.gateway!, a.gateway)) {
      // The first has moved to another gateway, where the second is not asked for.
      pair.candidate = a.external.port;
      return this.#end(pair, now);
    }
    if (!a || (udp && !b)) return this.#lost(pair);
    if (!udp) return this.#ask(pair, "udp", now);
    if (a.external.port !== b!.external.port) {
      // The first other port is one that the gateway chose itself: it may be free for both.
      pair.candidate = pair.round <= 1 ? b!.external.port : FIRST_DYNAMIC_PORT +
        below(this.#random, 65_536 - FIRST_DYNAMIC_PORT);
      return this.#end(pair, now);
    }
    this.#held(pair, a, b!);
  }

  /** Both have one port. */
  #held(pair: Pair, tcp: GrantedMapping, udp: GrantedMapping): void {
    const { id, told, isLost } = pair;
    const lifetimeSeconds = Math.min(tcp.lifetimeSeconds, udp.lifetimeSeconds);
    const mapping = { ...tcp, lifetimeSeconds };
    const isAnswered = Object.values(pair.halves).every((half) => half.answered >= half.awaited);
    const revision = isAnswered ? pair.revision : pair.revision - 1;
    const failure = pair.renewalFailure;
    const hasMoved = told !== undefined && !isSameEndpoint(told.external, mapping.external);
    const isNews = told === undefined || isLost || hasMoved || pair.isRenewed;
    pair.round = 0;
    pair.told = mapping;
    pair.isLost = false;
    if (failure && isAnswered) {
      pair.renewalFailure = undefined;
      return this.#host.tell({ type: "renewal-failed", id, failure, revision }, id);
    }
    if (!isNews) return;
    const type = told === undefined
      ? "mapped"
      : isLost
      ? "recovered"
      : hasMoved
      ? "moved"
      : "renewed";
    if (type === "renewed" && !isAnswered) return;
    // The half that has not answered yet is owed an answer of its own.
    pair.isRenewed = !isAnswered;
    this.#host.tell({ type, id, mapping, revision }, id);
  }

  /** It is not held, or only half of it. */
  #lost(pair: Pair): void {
    const { id, told, isLost } = pair;
    if (told === undefined || isLost) return;
    pair.isLost = true;
    this.#host.tell({ type: "lost", id, failure: { kind: "no-answer" } }, id);
  }

  /** Gives both back; what follows waits for that. */
  #end(pair: Pair, now: Instant): void {
    this.#lost(pair);
    pair.state = "ending";
    this.#endHalves(pair, now);
  }

  #endHalves(pair: Pair, now: Instant): void {
    for (const { managed, isOver } of Object.values(pair.halves)) {
      if (!isOver) this.#host.end(managed, now);
    }
    this.#dirty.add(pair.id);
  }

  /** Both are given back: asks for the next port, or gives up. */
  #askAnew(pair: Pair, now: Instant): void {
    const { id, told, attempts, failed, halves: { tcp, udp }, nonces } = pair;
    pair.nonces = {
      tcp: tcp?.managed.nonces ?? nonces.tcp,
      udp: udp?.managed.nonces ?? nonces.udp,
    };
    pair.halves = {};
    pair.failed = undefined;
    if (pair.round < MAX_ROUNDS) {
      pair.attempts = [];
      pair.state = "wanted";
      return this.#ask(pair, "tcp", now);
    }
    if (told === undefined) {
      this.#open.delete(id);
      const event = { type: "failed", id, attempts: latest(attempts), ...NONE_FREE } as const;
      return this.#host.tell(failed ? { ...failed, id } : event, id);
    }
    pair.attempts = [];
    pair.state = "resting";
    this.#host.timers.set(id, now + REST_MS, "pair");
  }

  #ask(pair: Pair, protocol: Transport, now: Instant): void {
    const { id, request, candidate, lifetimeSeconds, halves: { tcp } } = pair;
    const { suggestedExternal: named, gateway: only } = request;
    if (protocol === "tcp") pair.round++;
    const port = tcp?.managed.granted?.external.port ?? candidate;
    const gateway = tcp?.managed.granted?.gateway ?? only;
    const isFirst = pair.round === 1 && protocol === "tcp" && !pair.told;
    try {
      const managed = this.#host.begin(
        id,
        {
          ...request,
          protocol,
          suggestedExternal: { ...named, port },
          ...(lifetimeSeconds !== undefined && { lifetimeSeconds }),
          ...(gateway && { gateway }),
        },
        pair.nonces[protocol],
        now,
      );
      const isOver = this.#overAtOnce === managed;
      const half = { managed, answered: 0, awaited: 0, isOver, failure: undefined };
      pair.halves = { ...pair.halves, [protocol]: half };
    } catch (error) {
      if (isFirst) {
        this.#open.delete(id);
        throw error;
      }
      // What was fit to ask then no gateway can do now.
      pair.round = MAX_ROUNDS;
      return this.#end(pair, now);
    }
    this.#dirty.add(pair.id);
  }

  #finish(pair: Pair): void {
    const { id, attempts, isExpired, halves } = pair;
    this.#open.delete(id);
    const failure = Object.values(halves).find((half) => half.failure)?.failure;
    const reason = isExpired && pair.state !== "revoking" ? "expired" : "revoked";
    this.#host.tell({ type: "unmapped", id, reason, attempts, ...(failure && { failure }) }, id);
  }
}

/** What each protocol came to last at each gateway. */
function latest(attempts: readonly Attempt[]): Attempt[] {
  return attempts.filter(({ via, gateway }, i) =>
    !attempts.slice(i + 1).some((later) => later.via === via && later.gateway === gateway)
  );
}

function halfOf({ halves }: Pair, managed: ManagedMapping): Half | undefined {
  return Object.values(halves).find((half) => half.managed === managed);
}
