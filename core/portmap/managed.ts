/**
 * One wish of the application on its way through the mapper: what is wanted, who has been asked for
 * it at which gateway, and what the application was told. Plain bookkeeping; what moves it is in
 * `race.ts` and `mapper.ts`.
 *
 * @module
 */
import type { Attempt, NatErrorCode, Via } from "../errors.ts";
import { fromHex } from "../bytes.ts";
import { type InnerMapping, savedKey, type SavedMapping } from "../lease/saved.ts";
import type { Family } from "../ip.ts";
import type { Endpoint, Instant } from "../machine.ts";
import {
  DEFAULT_LIFETIME_SECONDS,
  type Failure,
  type MappingEvent,
  type MappingId,
  type MappingKey,
  type MappingRequest,
  type Transport,
} from "../mapping.ts";
import { gatewayText } from "./gateway.ts";
import type { PortMappingEntry } from "../upnp/client.ts";
import type { ClientMapping } from "./client.ts";
import { PROTOCOLS } from "./protocols.ts";
import type { Speaker } from "./path.ts";

/** What is asked of the mapper: a mapping of TCP or UDP, and who may make it. */
export interface PortRequest extends MappingRequest {
  /** The transport protocol. */
  readonly protocol: Transport;
  /** Which protocols may do it. Default: all that the mapper speaks. */
  readonly protocols?: readonly Via[];
  /** The address family, where this host has gateways of both. Default: IPv4 where there is one. */
  readonly family?: 4 | 6;
  /** The gateway that it is for, where it is one alone. */
  readonly gateway?: Endpoint;
  /** @internal What it maps on, where that gateway stands above another one. */
  readonly inner?: InnerMapping;
}

/** What is asked of the mapper: a port that is mapped at every gateway. */
export interface WatchRequest extends PortRequest {
  /** The address of this host at which alone the port is open. Default: all. */
  readonly boundTo?: string;
}

/** A mapping as a gateway granted it. Plain data. */
export interface GrantedMapping {
  /** Inbound (`"map"`) or outbound (`"peer"`). */
  readonly kind: "map" | "peer";
  /** The protocol that made it. */
  readonly via: Via;
  /** The transport protocol. */
  readonly protocol: Transport;
  /** The gateway. */
  readonly gateway: Endpoint;
  /** Where packets arrive on the internal side. */
  readonly internal: Endpoint;
  /** Where others send to. */
  readonly external: Endpoint;
  /**
   * What `gateway` gave, where a NAT stands above it whose gateway maps that on: then `external` is
   * of that one.
   */
  readonly gatewayExternal?: Endpoint;
  /** The peer of an outbound mapping. */
  readonly remote?: Endpoint;
  /** Granted lifetime, seconds. */
  readonly lifetimeSeconds: number;
  /** The description as the gateway stored it. */
  readonly description?: string;
  /** How many consecutive ports it covers, where a set was asked for. */
  readonly portSetSize?: number;
}

/** A mapping of TCP or UDP as it is kept between runs. JSON-safe. */
export interface SavedPort extends SavedMapping {
  /** The transport protocol. */
  readonly protocol: Transport;
}

/** One way to reach a port. Plain data. */
export interface Assignment {
  /** The transport protocol. */
  readonly protocol: Transport;
  /** Where others send to. */
  readonly address: string;
  /** And to which port there. */
  readonly port: number;
  /**
   * The protocol that made it. `"local"`: the host's own address, for whoever gets there. `"stun"`: how
   * servers see the socket, which a NAT that filters lets those in to whom it has sent.
   */
  readonly via: Via | "local" | "stun";
  /** The address's family. */
  readonly family: Family;
}

/** What a mapper tells. */
export type MapperEvent =
  /** What becomes of a mapping; after `lost` the mapper goes on trying. */
  | Exclude<MappingEvent<GrantedMapping>, { readonly type: "failed" | "unmapped" }>
  /** It was never granted; the request is over. */
  | {
    readonly type: "failed";
    readonly id: MappingId;
    readonly code: NatErrorCode;
    readonly attempts: readonly Attempt[];
    /** More than the attempts say: what the system refused. */
    readonly message?: string;
    readonly retryAfterSeconds?: number;
  }
  /** It was deleted at our wish, or its time is over. */
  | {
    readonly type: "unmapped";
    readonly id: MappingId;
    readonly reason: "revoked" | "expired";
    /** What each protocol that was asked to delete it said. */
    readonly attempts: readonly Attempt[];
    /** Why the gateway keeps it all the same, where it said so. */
    readonly failure?: Failure;
  }
  /** An external address; `id` names the question that it answers, where it answers one. */
  | {
    readonly type: "external-address";
    readonly id: MappingId;
    readonly via: Via;
    readonly gateway: Endpoint;
    readonly address: string;
  }
  /** The question for external addresses has no more answers to come. */
  | {
    readonly type: "external-addresses-told";
    readonly id: MappingId;
    readonly attempts: readonly Attempt[];
    readonly code: NatErrorCode;
    /** More than the attempts say. */
    readonly message?: string;
  }
  /** By these addresses a watched port can be reached now; all of them. */
  | {
    readonly type: "assignments";
    readonly id: MappingId;
    readonly assignments: readonly Assignment[];
  }
  /** So many entries of a table were read; it goes on. */
  | { readonly type: "table-read"; readonly id: MappingId; readonly count: number }
  /** A gateway's table of port mappings, everybody's; `message` says why it is not told. */
  | {
    readonly type: "table-told";
    readonly id: MappingId;
    readonly gateway: Endpoint | undefined;
    readonly entries: readonly PortMappingEntry[];
    /** Whether it is longer than what was read. */
    readonly isCut: boolean;
    readonly code?: NatErrorCode;
    readonly message?: string;
    readonly attempts: readonly Attempt[];
  }
  /** UPnP's turn has come, and its client is to be loaded: {@linkcode PortMapper.takeUpnp}. */
  | { readonly type: "upnp-needed" }
  /** A gateway lost its state; mappings are being made anew. */
  | { readonly type: "gateway-restarted"; readonly gateway: Endpoint };

/** One protocol at one gateway, asked for one managed mapping. */
export interface Contender {
  readonly speaker: Speaker;
  /**
   * - `waiting`: its gateway's turn has not come
   * - `held-back`: it leaves the preferred ones a head start
   * - `probing`: asked whether it is there
   * - `ready`: it is; to map when its time has come
   * - `asking`: asked to map
   * - `holding`: its gateway holds it
   * - `beaten`: another one holds it; what this one was asked may be granted yet
   * - `out`: it cannot, or will not
   */
  state: "waiting" | "held-back" | "probing" | "ready" | "asking" | "holding" | "beaten" | "out";
  /** Its mapping in the client. */
  id: MappingId | undefined;
  /**
   * `asking`: since when, undefined where it held the mapping, lost it and asks on; before: when it
   * may begin, or map although better ones are silent.
   */
  at: Instant | undefined;
  /** The nonce with which it was asked. */
  nonce: string | undefined;
  /** The external port of what a beaten one was granted after all. */
  latePort: number | undefined;
  /** Its gateway said no by this protocol, and not to be asked so before then. */
  refusedUntil: Instant | undefined;
}

/** Nonces in hexadecimal digits, by a gateway's address. */
export type Nonces = Readonly<Record<string, string>>;

/** One that has not been asked. */
export function newContender(speaker: Speaker): Contender {
  return {
    speaker,
    state: "waiting",
    id: undefined,
    at: undefined,
    nonce: undefined,
    latePort: undefined,
    refusedUntil: undefined,
  };
}

/** Whether its nonce has never left, since its request waits until its gateway has room. */
export function isUnused({ speaker: { client }, id }: Contender): boolean {
  return id !== undefined && client.hasAsked?.(id) === false;
}

// What those share that have nothing of it: there may be many thousands.
const NO_NONCES: Nonces = Object.freeze({});
const NO_ATTEMPTS: readonly Attempt[] = Object.freeze([]);
const NO_CONTENDERS: readonly Contender[] = Object.freeze([]);

/** A wish and where it stands. */
export class ManagedMapping {
  readonly id: MappingId;
  readonly request: PortRequest;
  /** The nonces of contenders that are none any more, and of earlier runs. */
  #keptNonces: Nonces = NO_NONCES;
  /** `removing`: a mapping that this mapper does not hold is being deleted. */
  phase: "racing" | "held" | "revoking" | "removing" = "racing";
  /** When the operation began; undefined: none is under way. */
  since: Instant | undefined;
  /** What each protocol has come to, at most one entry a protocol and gateway. */
  attempts: readonly Attempt[] = NO_ATTEMPTS;
  #contenders: readonly Contender[] = NO_CONTENDERS;
  /** When the next gateway is asked, too. */
  nextGatewayAt: Instant | undefined;
  /** When those that are out are tried again. */
  retryAt: Instant | undefined;
  /** The refusal that tells the most of why it fails. */
  refusal: Failure | undefined;
  /** The external endpoint to suggest where the application names none: granted last, or saved. */
  remembered: Endpoint | undefined;
  // What was granted last, apart from that: as an object it would weigh twice as much.
  #maker: Speaker | undefined;
  #internalAddress = "";
  #lifetimeSeconds = 0;
  #more: Pick<GrantedMapping, "description" | "portSetSize"> | undefined;
  isLost = false;
  /** The watch or the pair that it is a part of, or `"address"`: it is for the address it tells. */
  madeFor: MappingId | "address" | undefined;
  /** Whether the application was told `mapped`, or is about to be. */
  isReported = false;
  /** How often it has been renewed by the application. */
  revision = 0;
  /** The lifetime for which it was renewed then, seconds. */
  askedSeconds: number | undefined;
  /** What its holder's numbers fall short of that. */
  revisionOffset = 0;

  /** What names it among the wishes of one mapper. */
  get key(): MappingKey {
    return savedKey(this.request);
  }

  /** Made for the external address that it tells, not for the application. */
  get isForAddress(): boolean {
    return this.madeFor === "address";
  }

  /** Whether it is held or asked for, and not on its way out. */
  get isWanted(): boolean {
    return this.phase === "racing" || this.phase === "held";
  }

  /** The watch or the pair that it is a part of. */
  get partOf(): MappingId | undefined {
    return this.madeFor === "address" ? undefined : this.madeFor;
  }

  constructor(id: MappingId, request: PortRequest, now: Instant) {
    this.id = id;
    this.request = request;
    this.since = now;
  }

  /** The one that holds it. */
  get holder(): Contender | undefined {
    return this.contenders.find(({ state }) => state === "holding");
  }

  /** What the gateway granted last. */
  get granted(): GrantedMapping | undefined {
    const { request: { protocol, internalPort, remote } } = this;
    const maker = this.#maker;
    if (!maker) return undefined;
    return {
      kind: remote ? "peer" : "map",
      via: maker.via,
      protocol,
      gateway: maker.path.gateway,
      internal: { address: this.#internalAddress, port: internalPort },
      external: this.remembered!,
      lifetimeSeconds: this.#lifetimeSeconds,
      ...(remote && { remote }),
      ...this.#more,
    };
  }

  /**
   * By a gateway's address, one nonce for its whole life there (PCP-C-38): a gateway that saw a
   * request refuses another, also after this host was elsewhere for a while.
   */
  get nonces(): Nonces {
    let nonces = this.#keptNonces;
    for (const contender of this.#contenders) {
      const { speaker, nonce } = contender;
      if (nonce === undefined || isUnused(contender)) continue;
      nonces = { ...nonces, [speaker.path.gateway.address]: nonce };
    }
    return nonces;
  }

  /** Keeps those of an earlier run. */
  keepNonces(nonces: Nonces): void {
    this.#keptNonces = { ...this.#keptNonces, ...nonces };
  }

  /** Who has been asked, or may be; only those with a mapping of it while it is held. */
  get contenders(): readonly Contender[] {
    return this.#contenders;
  }

  /** These and no others; what gateways know of the others is kept. */
  set contenders(contenders: readonly Contender[]) {
    const isLeft = (one: Contender) => one.nonce !== undefined && !contenders.includes(one);
    if (this.#contenders.some(isLeft)) this.#keptNonces = this.nonces;
    this.#contenders = contenders;
  }

  /** Takes what a client was granted, whose address is known. */
  take(maker: Speaker, external: Endpoint, mapping: ClientMapping): void {
    const { lifetimeSeconds, description, portSet } = mapping;
    this.remembered = external;
    this.#maker = maker;
    this.#internalAddress = this.request.thirdParty ?? maker.path.local!.address;
    this.#lifetimeSeconds = lifetimeSeconds;
    this.#more = description === undefined && !portSet ? undefined : {
      ...(description !== undefined && { description }),
      ...(portSet && { portSetSize: portSet.size }),
    };
  }

  /**
   * It is held: those that have no mapping of it are out, and what led to it is past, but for
   * refusals that last.
   */
  settle(now: Instant): void {
    // `slice` leaves an array without room to spare.
    this.contenders = this.contenders.filter(({ id, refusedUntil = -Infinity }) =>
      id !== undefined || refusedUntil > now
    ).slice();
    this.attempts = NO_ATTEMPTS;
    this.since = undefined;
  }

  /** Records what a protocol came to. */
  note(speaker: Speaker, outcome: string, now: Instant): void {
    const gateway = gatewayText(speaker.path.gateway);
    const { via } = speaker;
    const attempt = { via, gateway, outcome, elapsedMs: now - (this.since ?? now) };
    const at = this.attempts.findIndex((one) => one.via === via && one.gateway === gateway);
    // `concat` and `map` make arrays without room to spare: they are kept for each mapping.
    this.attempts = at < 0
      ? this.attempts.concat(attempt)
      : this.attempts.map((one, i) => i === at ? attempt : one);
  }

  /** The gateways that hold it no more: those that confirmed so, or where its time is over. */
  deletedAt(reason: "revoked" | "expired"): string[] {
    const at = this.contenders.filter(({ speaker: { via, path } }) => {
      const gateway = gatewayText(path.gateway);
      return this.attempts.some((one) =>
        one.via === via && one.gateway === gateway && one.outcome === "unmapped"
      );
    }).map(({ speaker }) => speaker.path.gateway.address);
    return reason === "expired" && this.granted ? [...at, this.granted.gateway.address] : at;
  }

  /** What each has come to; the silent ones are listed as `"no answer"`. */
  attemptsAt(now: Instant): readonly Attempt[] {
    for (const { speaker, state } of this.contenders) {
      if (state === "waiting" || state === "held-back") continue;
      const gateway = gatewayText(speaker.path.gateway);
      const isNoted = this.attempts.some((one) =>
        one.via === speaker.via && one.gateway === gateway && one.outcome !== "no answer"
      );
      if (!isNoted) this.note(speaker, "no answer", now);
    }
    return [...this.attempts];
  }
}

/** The request as a client is asked it; a nonce is named where one was used at that gateway. */
export function clientRequest(managed: ManagedMapping, { via, path }: Speaker): MappingRequest {
  const {
    protocols: _protocols,
    family: _family,
    gateway: _gateway,
    inner: _inner,
    ...request
  } = managed.request;
  const { remembered } = managed;
  const nonce = managed.nonces[path.gateway.address];
  // Only what the application named is a demand; what was learnt is no more than a suggestion.
  const named = request.suggestedExternal;
  let learnt: Pick<MappingRequest, "remembered" | "suggestedExternal"> = {};
  if (remembered && !request.preferFailure) {
    const address = named?.address ?? remembered.address;
    const port = named?.port || remembered.port;
    learnt = PROTOCOLS[via]!.suggests === "endpoint"
      ? { remembered: { address, port } }
      : { suggestedExternal: { ...named, port } };
  }
  return {
    ...request,
    ...learnt,
    ...(managed.askedSeconds !== undefined && { lifetimeSeconds: managed.askedSeconds }),
    ...(nonce !== undefined && { nonce: fromHex(nonce) }),
  };
}

/** A held mapping as it is kept for a later run. */
export function toSaved(managed: ManagedMapping): SavedPort | undefined {
  const { granted } = managed;
  if (!granted) return undefined;
  const { via, gateway, external } = granted;
  return { ...savedAt(managed, via, gateway.address), external };
}

/**
 * What gateways are asked at present, for a later run: they may have granted it by then. The
 * preferred protocol comes last.
 */
export function askedToSaved(managed: ManagedMapping): SavedPort[] {
  return managed.contenders.filter(({ id }) => id !== undefined).toReversed()
    .map(({ speaker: { via, path } }) => savedAt(managed, via, path.gateway.address));
}

function savedAt(
  managed: ManagedMapping,
  via: Via,
  address: string,
): SavedPort {
  const { request, granted } = managed, nonce = managed.nonces[address];
  const {
    nonce: _nonce,
    protocols: _protocols,
    family: _family,
    gateway: _gateway,
    ...rest
  } = request;
  return {
    ...rest,
    via,
    gateway: address,
    lifetimeSeconds: managed.askedSeconds ?? request.lifetimeSeconds ?? granted?.lifetimeSeconds ??
      DEFAULT_LIFETIME_SECONDS,
    mode: request.mode ?? "keep-alive",
    // By whichever protocol it is held: PCP, which was asked first, may yet have made it, too.
    ...(nonce && { nonce }),
  };
}
