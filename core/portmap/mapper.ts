/**
 * The port mapper: mappings of this host at its gateways, by whatever protocol they speak, kept
 * through restarts of gateways and changes of the network. The one machine that the promise API
 * drives.
 *
 * Theory of operation
 *
 * *Paths.* The caller tells which gateways there are and from where they are reached, and tells it
 * again where that changes. Each is a path (`path.ts`) with a socket and a client of each protocol.
 * A gateway that is no more among them is left: what is held there is deleted as far as it can be
 * reached, and made anew at another gateway, whenever there is one.
 *
 * *Mappings.* Each wish is a managed mapping (`managed.ts`). Who makes it a race decides
 * (`race.ts`); then the winner's client holds it, and its events pass through:
 *
 *   racing ──granted──▶ held ──renewed, moved──▶ held
 *     │ ▲                 │ its client lost it, or its gateway was left
 *     │ └─────────────────┘ (told `lost`; the client goes on asking, the others join in)
 *     └──all are out──▶ failed
 *   any ──revoked──▶ revoking ──all that may hold it have answered──▶ unmapped
 *   removing ──each protocol in turn──▶ unmapped            (`removal.ts`)
 *
 * *External addresses* are told by each protocol as it answers (`addresses.ts`).
 *
 * *Two NATs in a row*: what is held at a private address is mapped on by the gateway above
 * (`outer.ts`), and told with its endpoint (`nested.ts`).
 *
 * *Watches* are ports that are mapped at every gateway at once, and told as a set (`watch.ts`);
 * whether the gateways still hold them is looked at (`checks.ts`).
 * *Pairs* are TCP and UDP on the same external port (`pair.ts`).
 *
 * A renewal stays with the protocol that made the mapping: over one table, a lease taken over by
 * another protocol can no longer be deleted by the first.
 *
 * @module
 */
import { mayBeOf } from "../cidr.ts";
import { checkAddress, checkChoice, checkLifetime, checkPort } from "../check.ts";
import { type Attempt, type NatErrorCode, PREFERENCE, type Via } from "../errors.ts";
import { type Family, familyOf, isSameEndpoint } from "../ip.ts";
import { mergeMappingEvents } from "../lease/events.ts";
import { readSaved, savedKey, wantedKey } from "../lease/saved.ts";
import type {
  Action,
  DebugTimeout,
  Endpoint,
  HttpRequest,
  HttpResult,
  Instant,
  Machine,
  SocketResult,
  SocketSpec,
} from "../machine.ts";
import {
  checkMappingRequest,
  codeOf,
  describeInternal,
  type Failure,
  type MappingEvent,
  type MappingId,
  type MappingKey,
  retryAfter,
  sharePorts,
  type Transport,
  type Wanted,
} from "../mapping.ts";
import { Outbox } from "../outbox.ts";
import type { RandomSource } from "../random.ts";
import { earliest, Timers } from "../timers.ts";
import { type AddressHost, AddressQuestions } from "./addresses.ts";
import type { ClientEvent, ClientMapping, MakeClient } from "./client.ts";
import { PROTOCOLS } from "./protocols.ts";
import {
  type Assignment,
  type Contender,
  type GrantedMapping,
  ManagedMapping,
  type MapperEvent,
  type PortRequest,
  type SavedPort,
  type WatchRequest,
} from "./managed.ts";
import { Nested, type NestedHost } from "./nested.ts";
import { type OuterHost, Outers } from "./outer.ts";
import { type NetworkPath, Path, type PathOptions, type Speaker } from "./path.ts";
import { contenderOf, Race, type RaceHost, refusedUntil } from "./race.ts";
import { noteRemoval, type RemovalHost, Removals } from "./removal.ts";
import { SavedPorts } from "./saved_ports.ts";
import { type TableHost, TableQuestions } from "./tables.ts";
import { type CheckHost, CHECKS, Checks } from "./checks.ts";
import { type PairHost, type PairRequest, Pairs } from "./pair.ts";
import { Watches, type WatchHost } from "./watch.ts";

/** How a mapper is made. */
export interface PortMapperOptions {
  /** Nonces and jitter; on a real network it must be unguessable (PCP-C-38). */
  readonly random: RandomSource;
  /**
   * What may be spoken. Default: PCP; over IPv4 from a non-global address NAT-PMP, too; and UPnP
   * there and over IPv6, where `upnp` is given.
   */
  readonly protocols?: readonly Via[];
  /**
   * What makes UPnP's client, without which UPnP is not spoken: `makeIgdClient`; or `"late"` where
   * that is loaded no earlier than `upnp-needed` is told.
   */
  readonly upnp?: MakeClient | "late";
  /** Mappings of an earlier run; a request for the same port adopts the one that is here. */
  readonly saved?: readonly SavedPort[];
  /** Whether to listen for the gateways' announcements. @default {true} */
  readonly announcements?: boolean;
  /** Whether first requests are sent again after 250 and 750 ms. @default {true} */
  readonly fastStart?: boolean;
}

/** Counters of a mapper. */
export interface PortMapperStats {
  /** Datagrams that came from somewhere else than a gateway. */
  wrongSource: number;
  /** Gateways that were found. */
  paths: number;
  /** Gateways that were left. */
  left: number;
  /** Races that were won by each protocol. */
  readonly won: Record<Via, number>;
  /** The counters of each gateway's clients. */
  readonly clients: Record<string, object>;
}

/** How long a gateway that was left is waited for, to confirm deletions. */
const LEAVING_MS = 2000;
/** The lifetime of the mapping by which an external address is told, seconds. */
const ADDRESS_LIFETIME_SECONDS = 120;
const UNREACHABLE: Failure = { kind: "unreachable" };

/**
 * A port mapper as a machine (see `core/machine.ts`).
 *
 * @example
 * ```ts
 * import { PortMapper, seededRandom } from "@natkit/natkit/core";
 * const mapper = new PortMapper({ random: seededRandom(1) });
 * const gateway = { address: "192.168.1.1", port: 5351 };
 * mapper.networkChanged([{ gateway, localAddress: "192.168.1.100" }], 0);
 * const [socket] = mapper.sockets(); // the driver opens it…
 * mapper.handleSocket(socket!.key, { ok: true, local: { address: "192.168.1.100", port: 4 } }, 0);
 * mapper.map({ protocol: "tcp", internalPort: 8080 }, 0);
 * const pcpMap = mapper.poll(), natPmpProbe = mapper.poll();
 * console.assert(pcpMap?.type === "send" && pcpMap.data.length === 60);
 * console.assert(natPmpProbe?.type === "send" && natPmpProbe.data.length === 2);
 * ```
 */
export class PortMapper implements Machine<MapperEvent> {
  /** Counters. */
  readonly stats: PortMapperStats = {
    wrongSource: 0,
    paths: 0,
    left: 0,
    won: { "pcp": 0, "nat-pmp": 0, "upnp": 0 },
    clients: {},
  };
  readonly #pathOptions: PathOptions;
  readonly #outbox: Outbox<MapperEvent> = new Outbox<MapperEvent>(mergeMappingEvents, 65_536);
  readonly #timers: Timers<MappingId> = new Timers();
  readonly #managed: Map<MappingId, ManagedMapping> = new Map();
  /** Those that are wanted, by family and key: each port has one. */
  readonly #wanted: Readonly<Record<Family, Map<MappingKey, ManagedMapping>>> = {
    4: new Map(),
    6: new Map(),
  };
  /** Those of the wanted ones that are for several ports. */
  readonly #sets: Set<ManagedMapping> = new Set();
  readonly #saved: SavedPorts = new SavedPorts();
  readonly #addresses: AddressQuestions;
  readonly #tables: TableQuestions;
  readonly #outers: Outers;
  readonly #removals: Removals;
  readonly #nested: Nested;
  readonly #watches: Watches;
  readonly #pairs: Pairs;
  readonly #checks: Checks;
  readonly #race: Race;
  #paths: Path[] = [];
  /** What each path wants of sockets, and all of it in one list. */
  #socketLists: readonly (readonly SocketSpec[])[] = [];
  #sockets: readonly SocketSpec[] = [];
  #nextId: MappingId = 1;
  #nextPathId = 1;
  /** HTTP requests on their way, and whose they are. */
  readonly #requests: Map<number, { readonly speaker: Speaker; readonly id: number }> = new Map();
  #nextRequestId = 0;
  #nonces = 0;
  #isClosed = false;

  /**
   * Makes a mapper that knows no gateway yet.
   *
   * @throws {TypeError | RangeError} At the first option that is wrong, with its name and value.
   */
  constructor(options: PortMapperOptions) {
    const { random, protocols, saved = [], announcements = true, fastStart = true, upnp } = options;
    for (const via of protocols ?? []) checkChoice("protocols", via, PREFERENCE);
    if (protocols?.includes("upnp") && !upnp) {
      throw new TypeError(
        "'protocols' has upnp, which needs the option 'upnp': current value is undefined",
      );
    }
    for (const given of saved) {
      this.#saved.add(withHosts(given, readSaved(given).wanted));
    }
    const isGateway = (address: string) =>
      this.#paths.some(({ gateway }) => gateway.address === address);
    this.#pathOptions = { random, protocols, announcements, fastStart, isGateway, upnp };
    this.#race = new Race(this.#host);
    this.#addresses = new AddressQuestions(this.#addressHost);
    this.#tables = new TableQuestions(this.#tableHost);
    this.#outers = new Outers(this.#outerHost);
    this.#removals = new Removals(this.#saved, this.#outers, this.#removalHost);
    this.#nested = new Nested(this.#outers, this.#nestedHost);
    this.#watches = new Watches(this.#outers, this.#watchHost);
    this.#pairs = new Pairs(random, this.#pairHost);
    this.#checks = new Checks(this.#checkHost);
  }

  // ---- The network -------------------------------------------------------------------------

  /** The gateways in use, the best first. */
  get gateways(): readonly Endpoint[] {
    return this.#own().map(({ gateway }) => gateway);
  }

  /**
   * These are the ways to this host's gateways now, the best first. What is held at others is made
   * anew at these; where there are none, as soon as there is one.
   *
   * @throws {TypeError | RangeError} Where an address or a port is not one.
   */
  networkChanged(paths: readonly NetworkPath[], now: Instant): void {
    // Two ways to one gateway are one path: the first is the better.
    const specs = paths.map(checkPath).filter(({ gateway }, i, all) =>
      all.findIndex((one) => isSameEndpoint(one.gateway, gateway)) === i
    );
    this.#outbox.touch(now);
    const before = this.#paths;
    const next = specs.map((spec) => {
      const known = before.find(({ gateway, behind }) =>
        !behind && isSameEndpoint(gateway, spec.gateway)
      );
      if (!known) {
        this.stats.paths++;
        return new Path(this.#nextPathId++, spec, this.#pathOptions);
      }
      known.update(spec);
      return known;
    });
    const others = before.filter((path) => !next.includes(path));
    this.#paths = [...next, ...others];
    const isGone = (path: Path): boolean =>
      path.behind ? isGone(path.behind.path) : !next.includes(path);
    const leaving = others.filter((path) => !path.isLeft && isGone(path));
    if (leaving.length > 0) this.#leave(leaving, now);
    // What a client took for its gateway's may be that of a new one. Those that are about to hear of
    // another address of this host would ask for mappings to the old one.
    if (next.some((path) => !before.includes(path))) {
      for (const path of next) if (!path.isMoving) path.handleTimeout(now);
    }
    // One that a better gateway could hold stays where it is as long as it is held there.
    for (const managed of this.#managed.values()) {
      if (managed.phase !== "racing") continue;
      this.#joinAll(managed, now);
      this.#raceAnew(managed, now);
    }
    this.#watches.pathsChanged(now);
    this.#addresses.pathChanged(now);
    this.#tables.pathChanged(now);
    this.#drain(now);
  }

  /** The network is another one: races at once, or when the sockets are open there. */
  #raceAnew(managed: ManagedMapping, now: Instant): void {
    if (!this.#paths.some(({ isMoving }) => isMoving)) this.#race.networkChanged(managed, now);
  }

  /**
   * These are the addresses by which others reach this host, for the sets of
   * {@linkcode PortMapper.watch}.
   *
   * @throws {TypeError} Where one is not an address.
   */
  localAddressesChanged(addresses: readonly string[], now: Instant): void {
    const checked = addresses.map((address) => checkAddress("addresses", address));
    this.#outbox.touch(now);
    this.#watches.localAddressesChanged(checked, now);
  }

  /**
   * By these endpoints STUN servers see the socket whose port is watched, for its set. Unknown ids are
   * ignored.
   *
   * @throws {TypeError | RangeError} Where one is no endpoint.
   */
  reflexiveChanged(id: MappingId, endpoints: readonly Endpoint[], now: Instant): void {
    const checked = endpoints.map(({ address, port }) => ({
      address: checkAddress("endpoints", address),
      port: checkPort("endpoints", port),
    }));
    this.#outbox.touch(now);
    this.#watches.reflexiveChanged(id, checked, now);
  }

  /** {@inheritDoc Machine.sockets} The same list as long as the same is wanted. */
  sockets(): readonly SocketSpec[] {
    const paths = this.#paths, lists = this.#socketLists;
    const isSame = paths.length === lists.length &&
      paths.every((path, i) => path.sockets() === lists[i]);
    if (!isSame) {
      this.#socketLists = paths.map((path) => path.sockets());
      this.#sockets = this.#socketLists.flat();
    }
    return this.#sockets;
  }

  /** {@inheritDoc Machine.handleSocket} */
  handleSocket(key: string, result: SocketResult, now: Instant): void {
    this.#outbox.touch(now);
    const owner = this.#ownerOf(key);
    if (owner) {
      owner.speaker.client.handleSocket?.(owner.key, result, now);
      return this.#drain(now);
    }
    const path = this.#paths.find((one) => one.key === key);
    if (!path) return;
    if (result.ok) {
      const isMoved = path.opened(result.local, now);
      for (const managed of this.#managed.values()) {
        if (managed.phase === "racing") this.#raceAnew(managed, now);
      }
      if (isMoved) this.#forgive(path);
      for (const { via, client } of path.speakers) {
        const stats = { enumerable: true, configurable: true, get: () => client.stats };
        Object.defineProperty(this.stats.clients, `${path.name} ${via}`, stats);
      }
      for (const managed of [...this.#managed.values()]) {
        if (managed.phase === "racing") {
          this.#joinAll(managed, now);
          // Nobody can, it turns out.
          if (managed.contenders.length === 0) this.#race.check(managed, UNREACHABLE, now);
        } else if (managed.phase === "removing") this.#removals.opened(managed, now);
      }
    } else {
      path.failed(result, now);
      for (const managed of [...this.#managed.values()]) {
        const isNew = !managed.granted && managed.phase === "racing";
        if (isNew || managed.phase === "removing") this.#failWhereNothingLeaves(managed, now);
      }
    }
    this.#addresses.pathChanged(now);
    this.#tables.pathChanged(now);
    this.#drain(now);
  }

  /** UPnP's client is loaded, as `upnp-needed` asked; or why it could not be. */
  takeUpnp(upnp: MakeClient | Failure, now: Instant): void {
    this.#outbox.touch(now);
    if (typeof upnp === "function") this.#pathOptions.upnp = upnp;
    for (const path of this.#paths) path.codeTold(upnp, now);
    this.#drain(now);
  }

  // ---- Commands ----------------------------------------------------------------------------

  /** Whether nothing is held, asked for or about to be told to a gateway. */
  get isIdle(): boolean {
    return this.#managed.size === 0 && this.#addresses.size === 0 && this.#watches.size === 0 &&
      this.#pairs.size === 0 && this.#tables.size === 0 && this.#outbox.size === 0 &&
      this.#paths.every((path) => path.isIdle);
  }

  /** What a gateway holds under `id`, or undefined. */
  mapping(id: MappingId): GrantedMapping | undefined {
    const managed = this.#managed.get(id);
    if (!managed) return this.#pairs.mapping(id);
    return managed.isLost ? undefined : this.#nested.mapping(managed);
  }

  /**
   * Asks for a mapping: `mapped` or `failed` tells what came of it. Where no gateway is known or open
   * yet, it waits. A removal of the same mapping that has not been answered ends with that.
   *
   * @throws {TypeError | RangeError} On a request that no gateway could grant, or whose port is held.
   */
  map(wish: PortRequest, now: Instant): MappingId {
    const [request, family] = this.#read(wish);
    const key = savedKey(request);
    if (this.#isClosed) throw new TypeError("Cannot map a port: the mapper is closed");
    this.#checkFree(request, key, [family]);
    this.#outbox.touch(now);
    this.#tryAgain();
    this.#removals.end(key, family, now);
    const managed = this.#create(request, key, now);
    this.#wanted[family].set(key, managed);
    if (request.portSet) this.#sets.add(managed);
    try {
      this.#begin(managed, now);
    } catch (error) {
      this.#forget(managed, now); // A set of ports may overlap with another one.
      throw error;
    } finally {
      this.#drain(now);
    }
    return managed.id;
  }

  /**
   * Deletes a mapping that this mapper does not hold: one of an earlier run by the protocol and
   * nonce saved of it, any other by each protocol. Answered by `unmapped` with the attempts, or by
   * `failed` where nothing can be sent. The same one asked for twice is one.
   *
   * @throws {TypeError | RangeError} On a request that no gateway could have granted.
   */
  unmap(wish: PortRequest, now: Instant): MappingId {
    const [request, family] = this.#read(wish);
    const key = savedKey(request);
    if (this.#isTaken(request, key, family)) {
      const internal = describeInternal(checkMappingRequest(request));
      throw new TypeError(`Cannot unmap ${internal}: it is held`);
    }
    this.#outbox.touch(now);
    const underWay = this.#removals.underWay(key, family, request.gateway);
    if (underWay) return underWay.id;
    // Later it might be another family's, where another wish has the port.
    const isKnown = this.#own().length > 0;
    return this.#remove(isKnown ? { ...request, family } : request, now);
  }

  /**
   * The inbound mappings of earlier runs that these protocols made, which delete each by itself, and
   * those that gateways above hold, whoever made them: once, however many gateways have one, of each
   * family that there is a gateway of.
   */
  savedBy(protocols: readonly Via[], protocol: Transport): PortRequest[] {
    const first = this.#familyOf({ protocol, internalPort: 0 });
    const families = ([4, 6] as const).filter((one) => one === first || this.#pathOf(one));
    return families.flatMap((family) => {
      const wishes = new Map<MappingKey, PortRequest>();
      for (const saved of this.#saved.all()) {
        const { inner, remote, via } = saved, key = wantedKey(saved);
        const { gateway, internalPort, thirdParty } = inner ?? saved;
        const isMeant = saved.protocol === protocol && familyOf(gateway) === family && !remote &&
          (inner !== undefined || protocols.includes(via));
        const wish = { protocol, internalPort, family, ...(thirdParty && { thirdParty }) };
        if (isMeant && !this.#isTaken(inner ? wish : saved, key, family)) wishes.set(key, wish);
      }
      return [...wishes.values()];
    });
  }

  /**
   * Deletes all mappings of a transport that this host has, other programs' among them, by the
   * protocol that can (NAT-PMP, RFC 6886 §3.4). Answered as {@linkcode PortMapper.unmap}.
   *
   * @throws {TypeError} Where it is neither "tcp" nor "udp".
   */
  unmapAll(protocol: Transport, now: Instant): MappingId {
    checkChoice("protocol", protocol, ["tcp", "udp"]);
    this.#outbox.touch(now);
    return this.#remove({ protocol, internalPort: 0 }, now);
  }

  /**
   * Asks for TCP and UDP on the same external port, both or neither: told as one mapping, which is
   * the TCP one's, and true of the other.
   *
   * @throws {TypeError | RangeError} On a request that no gateway could grant, or whose port is held.
   */
  mapBoth(wish: PairRequest, now: Instant): MappingId {
    const [request, family] = this.#read<PortRequest>({ ...wish, protocol: "tcp" });
    const requests = (["tcp", "udp"] as const).map((protocol) => ({ ...request, protocol }));
    for (const name of ["remote", "portSet"] as const) {
      if (request[name] !== undefined) throw new TypeError(`'${name}' cannot be for TCP and UDP`);
    }
    if (this.#isClosed) throw new TypeError("Cannot map a port: the mapper is closed");
    for (const one of requests) this.#checkFree(one, savedKey(one), [family]);
    this.#outbox.touch(now);
    this.#tryAgain();
    const id = this.#nextId++;
    this.#pairs.open(id, { ...request, family }, now);
    this.#drain(now);
    return id;
  }

  /**
   * Maps a port at every gateway, and goes on trying where that fails. `assignments` tells all the
   * addresses by which it can be reached, at once and at each change; `unmapped` that it is over.
   *
   * @param wish Of `family` or at `gateway` alone, where it names one.
   * @throws {TypeError | RangeError} On a request that no gateway could grant, or whose port is held.
   */
  watch(wish: WatchRequest, now: Instant): MappingId {
    if (wish.boundTo !== undefined) checkAddress("boundTo", wish.boundTo);
    const [request] = this.#read(wish);
    for (const name of ["remote", "portSet", "mode"] as const) {
      if (request[name] !== undefined) throw new TypeError(`'${name}' cannot be watched`);
    }
    if (this.#isClosed) throw new TypeError("Cannot watch a port: the mapper is closed");
    const { gateway, family = gateway && familyOf(gateway.address) } = request;
    this.#checkFree(request, savedKey(request), family === undefined ? [4, 6] : [family]);
    this.#outbox.touch(now);
    this.#tryAgain();
    const id = this.#nextId++;
    this.#watches.open(id, request, now);
    this.#checks.begin(now);
    this.#drain(now);
    return id;
  }

  /** The addresses by which a watched port can be reached now; undefined where it is not watched. */
  assignments(id: MappingId): readonly Assignment[] | undefined {
    return this.#watches.assignments(id);
  }

  /**
   * Renews a held mapping early, for `lifetimeSeconds` where given. Unknown ids are ignored.
   *
   * @returns The number that its answer carries as `revision`.
   * @throws {RangeError} Where the lifetime does not fit.
   */
  renew(id: MappingId, lifetimeSeconds: number | undefined, now: Instant): number {
    if (lifetimeSeconds !== undefined) checkLifetime("lifetimeSeconds", lifetimeSeconds);
    this.#outbox.touch(now);
    const managed = this.#managed.get(id);
    const revision = managed
      ? this.#renew(managed, lifetimeSeconds, now)
      : this.#pairs.renew(id, lifetimeSeconds, now) ?? 0;
    this.#drain(now);
    return revision;
  }

  /**
   * Deletes the mapping, or all that a watch has made; `unmapped` tells when all who may hold it
   * did, or are past asking.
   */
  revoke(id: MappingId, now: Instant): void {
    this.#outbox.touch(now);
    this.#watches.close(id, now);
    this.#pairs.revoke(id, now);
    const managed = this.#managed.get(id);
    if (managed?.isWanted) this.#revoke(managed, now);
    this.#drain(now);
  }

  /** Ends a mapping here, in silence, but leaves it at the gateway until its lifetime is over. */
  abandon(id: MappingId, now: Instant): void {
    this.#outbox.touch(now);
    const managed = this.#managed.get(id);
    if (managed) {
      this.#abandon(managed, now);
      this.#nested.abandon(managed, now);
    } else this.#pairs.abandon(id, now);
    this.#outbox.unemit(id);
    this.#drain(now);
  }

  /**
   * Asks for the external addresses: `external-address` tells each as it is answered, then
   * `external-addresses-told` that no more is to come.
   *
   * @param protocols Whom to ask. Default: all that are spoken.
   */
  askAddresses(protocols: readonly Via[] | undefined, now: Instant): MappingId {
    const family = this.#familyOf({ protocol: "tcp", internalPort: 0 });
    return this.#ask(family, undefined, protocols, now);
  }

  /** Asks one gateway by each protocol; what each comes to is told likewise. */
  askAddressesAt(gateway: Endpoint, now: Instant): MappingId {
    return this.#ask(familyOf(gateway.address), gateway, undefined, now);
  }

  /**
   * Asks for the best gateway's table of port mappings, everybody's, where a protocol tells it (UPnP):
   * `table-told` follows.
   */
  list(now: Instant): MappingId {
    this.#outbox.touch(now);
    this.#tryAgain();
    const id = this.#nextId++;
    this.#tables.ask(id, now);
    this.#drain(now);
    return id;
  }

  /** Takes a question for the external addresses back: nothing more is told of it. */
  endQuestion(id: MappingId, now: Instant): void {
    this.#outbox.touch(now);
    this.#addresses.end(id, now);
    this.#drain(now);
  }

  /** Which protocols have neither answered a question for addresses nor come to nothing. */
  waitsFor(id: MappingId): readonly Via[] {
    return this.#addresses.waitsFor(id);
  }

  /** What each protocol has come to for `id`; the silent ones are listed as `"no answer"`. */
  attempts(id: MappingId, now: Instant): readonly Attempt[] {
    return this.#addresses.attempts(id, now) ?? this.#pairs.attempts(id, now) ??
      this.#managed.get(id)?.attemptsAt(now) ?? [];
  }

  /**
   * Whoever waits for `id` waits no longer: what is granted, and held back for the gateway above to map
   * it on, is told as it is.
   */
  tellNow(id: MappingId, now: Instant): void {
    this.#outbox.touch(now);
    const managed = this.#managed.get(id);
    if (managed) this.#nested.flush(managed, now);
  }

  /** Deletes everything; `isIdle` tells when that is done. */
  close(now: Instant): void {
    this.#outbox.touch(now);
    this.#isClosed = true;
    this.#addresses.endAll(now);
    this.#tables.endAll();
    this.#watches.closeAll(now);
    this.#pairs.revokeAll(now);
    for (const managed of [...this.#managed.values()]) {
      if (managed.isWanted) this.#revoke(managed, now);
      else if (managed.phase === "removing") this.#removals.endWaiting(managed, now);
    }
    for (const { speakers } of this.#paths) {
      for (const speaker of speakers) this.#endIdleProbe(speaker, now);
    }
    this.#drain(now);
  }

  /**
   * How many nonces have left. Where it has grown, a request is about to leave whose nonce a
   * later run needs: `exportSaved` has it already.
   */
  get nonces(): number {
    return this.#nonces;
  }

  /**
   * What a later run needs to adopt or delete these mappings, those that are only asked for among
   * them (without `external`). JSON-safe.
   */
  exportSaved(): SavedPort[] {
    return this.#saved.with(this.#managed.values());
  }

  // ---- Input -------------------------------------------------------------------------------

  /** {@inheritDoc Machine.handleDatagram} */
  handleDatagram(data: Uint8Array, from: Endpoint, socket: string, now: Instant): boolean {
    this.#outbox.touch(now);
    const owner = this.#ownerOf(socket);
    if (owner) {
      const isTaken = owner.speaker.client.handleDatagram(data, from, owner.key, now);
      this.#drain(now);
      return isTaken;
    }
    const path = this.#paths.find((one) => one.hasSocket(socket));
    if (!path || !mayBeOf(path.gateway, from)) {
      this.stats.wrongSource++;
      return false;
    }
    const isWord = path.isWord(data, socket);
    const isTaken = path.handleDatagram(data, from, socket, now);
    if (isWord) this.#wake(path, undefined, now);
    this.#drain(now);
    return isTaken;
  }

  /** {@inheritDoc Machine.handleUnreachable} */
  handleUnreachable(to: Endpoint, socket: string, now: Instant): void {
    this.#outbox.touch(now);
    const owner = this.#ownerOf(socket);
    owner?.speaker.client.handleUnreachable(to, owner.key, now);
    const path = this.#paths.find((one) => one.hasSocket(socket));
    if (path && isSameEndpoint(path.gateway, to)) path.handleUnreachable(to, socket, now);
    this.#drain(now);
  }

  /** {@inheritDoc Machine.handleResponse} */
  handleResponse(id: number, result: HttpResult, now: Instant): void {
    this.#outbox.touch(now);
    const asked = this.#requests.get(id);
    if (!asked) return;
    this.#requests.delete(id);
    asked.speaker.client.handleResponse?.(asked.id, result, now);
    this.#drain(now);
  }

  /** {@inheritDoc Machine.handleRequest} */
  handleRequest(id: number, request: HttpRequest, from: Endpoint, now: Instant): void {
    this.#outbox.touch(now);
    const speakers = this.#paths.flatMap((path) => path.speakers);
    const owner = speakers.find(({ client }) => client.callbackPath === request.path);
    if (owner) owner.client.handleRequest?.(id, request, from, now);
    else {
      const response = { status: 404, headers: [], body: new Uint8Array(0) };
      this.#outbox.act({ type: "respond", id, response });
    }
    this.#drain(now);
  }

  /** {@inheritDoc Machine.handleTimeout} */
  handleTimeout(now: Instant): void {
    this.#outbox.touch(now);
    for (const path of [...this.#paths]) {
      path.handleTimeout(now);
      if ((path.leavingUntil ?? Infinity) <= now) this.#drop(path, now);
    }
    for (let id = this.#timers.popDue(now); id !== undefined; id = this.#timers.popDue(now)) {
      const managed = this.#managed.get(id);
      if (managed?.phase === "racing") this.#race.due(managed, now);
      else if (id === CHECKS) {
        this.#outers.giveUp(now);
        this.#checks.due(now);
      } else if (this.#watches.owns(id)) this.#watches.due(id);
      else if (this.#nested.owns(id)) this.#nested.due(id, now);
      else this.#pairs.due(id, now);
    }
    this.#drain(now);
  }

  /** {@inheritDoc Machine.nextTimeout} */
  nextTimeout(): Instant | undefined {
    return this.debugTimeout()?.at;
  }

  /** {@inheritDoc Machine.debugTimeout} */
  debugTimeout(): DebugTimeout | undefined {
    const wakeAt = this.#outbox.wakeAt();
    if (wakeAt !== undefined) return { at: wakeAt, reason: "output waits" };
    return earliest(this.#timers.next(), ...this.#paths.map((path) => path.debugTimeout()));
  }

  /** {@inheritDoc Machine.poll} */
  poll(): Action<MapperEvent> | undefined {
    return this.#outbox.poll();
  }

  // ---- What clients tell -------------------------------------------------------------------

  #drain(now: Instant): void {
    for (const path of [...this.#paths]) {
      path.drain(
        (speaker, action) => this.#act(speaker, action),
        (speaker, event) => this.#onEvent(speaker, event, now),
        now,
      );
      if (path.isLeft && path.isIdle) this.#drop(path, now);
    }
    if (this.#watches.size === 0) this.#checks.end(now);
    // What both halves of a pair have come to leads on once all has been heard.
    if (this.#pairs.settle(now)) this.#drain(now);
  }

  /** Passes on what a client wants done, under keys and ids that no other client has. */
  #act(
    speaker: Speaker,
    action: Exclude<Action<ClientEvent>, { readonly type: "event" }>,
  ): void {
    if (action.type === "send") {
      const { nonces = 0 } = speaker.client;
      this.#nonces += nonces - speaker.nonces;
      speaker.nonces = nonces;
      this.#outbox.send(speaker.worldKey(action.socket), action.to, action.data);
    } else if (action.type === "request") {
      const id = this.#nextRequestId++;
      this.#requests.set(id, { speaker, id: action.id });
      this.#outbox.act({ ...action, id });
    } else this.#outbox.act(action);
  }

  #ownerOf(key: string): { readonly speaker: Speaker; readonly key: string } | undefined {
    for (const path of this.#paths) {
      const owner = path.ownerOf(key);
      if (owner) return owner;
    }
    return undefined;
  }

  #onEvent(speaker: Speaker, event: ClientEvent, now: Instant): void {
    switch (event.type) {
      case "gateway-restarted": {
        speaker.path.restarted(speaker, now);
        this.#forgive(speaker.path);
        const { gateway } = speaker.path;
        this.#wake(speaker.path, undefined, now);
        return this.#outbox.emit({ type: event.type, gateway }, `restart ${speaker.path.key}`);
      }
      case "external-address":
      case "announced": {
        const wasLook = this.#checks.answered(speaker);
        if (event.type === "external-address") this.#addresses.told(speaker, event.address, now);
        this.#race.probeAnswered(speaker, now);
        this.#endIdleProbe(speaker, now);
        // Who is looked at has been there all along.
        if (!wasLook) this.#wake(speaker.path, speaker, now);
        return;
      }
      case "external-address-failed":
      case "announce-failed":
        this.#addresses.notTold(speaker, event.failure, now);
        this.#race.probeFailed(speaker, event.failure, now);
        return this.#checks.failed(speaker, event.failure, now);
      case "all-unmapped":
        return this.#removals.allAnswered(speaker, event.protocol, event.failure, now);
      case "server-changed":
        return;
      case "code-needed":
        return this.#outbox.emit({ type: "upnp-needed" }, "upnp");
      case "table-read":
        return this.#tables.read(speaker, event);
      case "table-told":
        return this.#tables.told(speaker, event, now);
    }
    const parting = speaker.parting.get(event.id);
    if (parting !== undefined && event.type === "unmapped") {
      speaker.parting.delete(event.id);
      if (!event.failure) this.#saved.forget(parting, [speaker.path.gateway.address]);
    }
    const managed = this.#managed.get(speaker.managed.get(event.id) ?? -1);
    const contender = managed && contenderOf(managed, speaker);
    if (managed && contender) this.#onMapping(managed, contender, event, now);
  }

  #onMapping(
    managed: ManagedMapping,
    contender: Contender,
    event: MappingEvent<ClientMapping>,
    now: Instant,
  ): void {
    switch (event.type) {
      case "mapped":
      case "renewed":
      case "moved":
      case "recovered":
        return this.#granted(managed, contender, event.mapping, event.revision, now);
      case "failed":
        if (hasOwnPort(managed, contender.speaker)) {
          this.#addresses.notTold(contender.speaker, event.failure, now);
        }
        return this.#race.failed(managed, contender, event.failure, event.retryAt, now);
      case "renewal-failed": {
        if (contender.state !== "holding") return;
        const revision = event.revision + managed.revisionOffset;
        return this.#tell(managed, { ...event, id: managed.id, revision }, now);
      }
      case "lost":
        if (contender.state === "holding") this.#lost(managed, event.failure, event.retryAt, now);
        return;
      case "unmapped":
        return this.#partUnmapped(managed, contender, event.reason, event.failure, now);
    }
  }

  #granted(
    managed: ManagedMapping,
    contender: Contender,
    mapping: ClientMapping,
    revision: number,
    now: Instant,
  ): void {
    const { speaker } = contender;
    const { external } = mapping;
    // By NAT-PMP the address may be unknown yet.
    if (!external || managed.phase === "revoking") return;
    if (contender.state === "beaten") {
      contender.latePort = external.port;
      return this.#race.endLate(managed, now);
    }
    if (managed.isForAddress) return this.#addresses.told(speaker, external.address, now);
    if (hasOwnPort(managed, speaker)) this.#addresses.told(speaker, external.address, now);
    this.#checks.granted(speaker);
    const hasWon = contender.state !== "holding";
    if (hasWon) {
      this.stats.won[speaker.via]++;
      managed.revisionOffset = managed.revision - revision;
      this.#race.won(managed, contender, now);
    }
    const before = managed.granted;
    const type = !before || !managed.isReported
      ? "mapped"
      : managed.isLost
      ? "recovered"
      : isSameEndpoint(before.external, external)
      ? "renewed"
      : "moved";
    managed.phase = "held";
    managed.take(speaker, external, mapping);
    managed.isLost = false;
    managed.isReported = true;
    this.#outers.granted(managed, now);
    const { id, revisionOffset } = managed;
    const told = { id, mapping: managed.granted!, revision: revision + revisionOffset };
    this.#tell(managed, { type, ...told }, now);
    this.#race.endLate(managed, now);
    if (!hasWon) return;
    for (const { speaker: one } of managed.contenders) this.#endIdleProbe(one, now);
    managed.settle(now);
  }

  /** The gateway holds it no more: its client goes on asking, and the others join in. */
  #lost(
    managed: ManagedMapping,
    failure: Failure,
    retryAt: Instant | undefined,
    now: Instant,
  ): void {
    this.#nested.flush(managed, now);
    const { holder } = managed;
    if (holder) {
      holder.state = "asking";
      holder.refusedUntil = refusedUntil(failure, retryAt);
    }
    managed.isLost = true;
    managed.phase = "racing";
    managed.since = now;
    managed.attempts = [];
    // Who has not heard of the grant will hear of the next one as the first.
    if (this.#outbox.pendingEvent(managed.id)?.type === "mapped") managed.isReported = false;
    const lost = { type: "lost", id: managed.id, failure } as const;
    this.#tell(managed, retryAt === undefined ? lost : { ...lost, retryAt }, now);
    if (failure.kind === "refused" && holder) {
      this.#race.refusedWhileLost(managed, holder, failure.retryAt);
    } else this.#race.begin(managed, now);
  }

  /** One that may have held it has deleted it, or is past asking; or its time is over. */
  #partUnmapped(
    managed: ManagedMapping,
    contender: Contender,
    reason: "revoked" | "expired",
    failure: Failure | undefined,
    now: Instant,
  ): void {
    const { speaker, state } = contender;
    speaker.managed.delete(contender.id!);
    contender.id = undefined;
    contender.state = "out";
    if (managed.phase === "removing") {
      return this.#removals.answered(managed, speaker, failure, now);
    }
    // What a beaten one says of what it may have made is not the application's matter.
    if (state === "beaten" && managed.phase !== "revoking") return;
    if (state !== "beaten") noteRemoval(managed, speaker, failure, now);
    if (managed.phase === "revoking") {
      if (state !== "beaten") managed.refusal ??= failure;
      if (managed.contenders.some(({ id }) => id !== undefined)) return;
      return this.#unmapped(managed, reason, managed.refusal, now);
    }
    this.#unmapped(managed, reason, failure, now);
  }

  #unmapped(
    managed: ManagedMapping,
    reason: "revoked" | "expired",
    failure: Failure | undefined,
    now: Instant,
  ): void {
    const { attempts } = managed;
    const isRemoved = managed.phase === "removing" && failure?.kind !== "refused" &&
      attempts.some(({ outcome }) => outcome === "unmapped");
    const isDone = !failure || isRemoved;
    const whyNot = isDone ? undefined : failure;
    if (managed.phase === "removing" && this.#removals.goesOn(managed, whyNot, now)) return;
    if (reason !== "expired" && !isDone) this.#saved.keep(managed);
    else this.#saved.forget(managed.key, managed.deletedAt(reason));
    const elsewhere = this.#removals.outcomeElsewhere(managed);
    this.#forget(managed, now);
    this.#removals.goOn(now);
    if (managed.isForAddress) return;
    const left = whyNot ?? elsewhere.refusal;
    const all = [...attempts, ...elsewhere.attempts];
    const { partOf } = managed;
    if (partOf !== undefined) {
      if (managed.phase === "removing") return this.#removals.partOver(managed, all, left, now);
      this.#outers.over(managed, now);
      if (this.#pairs.owns(partOf)) this.#pairs.halfOver(managed, reason, left);
      else if (this.#nested.owns(partOf)) this.#nested.partOver(managed, left, now);
      return this.#watches.partOver(managed, left, now);
    }
    const told = { reason, attempts: all, ...(left && { failure: left }) };
    this.#nested.over(managed, { type: "unmapped", id: managed.id, ...told }, now);
  }

  /** Tells the application what became of a mapping; of parts it hears as a whole. */
  #tell(managed: ManagedMapping, event: MapperEvent, now: Instant): void {
    const { partOf } = managed;
    if (partOf === undefined) this.#nested.tell(managed, event, now);
    else if (this.#pairs.owns(partOf)) this.#pairs.changed(managed, event);
    else if (this.#nested.owns(partOf)) this.#nested.changed(partOf, now);
    else this.#watches.changed(partOf, now);
  }

  // ---- Paths -------------------------------------------------------------------------------

  /** These gateways are not this host's any more: nothing is asked of one because of another. */
  #leave(paths: readonly Path[], now: Instant): void {
    for (const path of paths) {
      this.stats.left++;
      path.leavingUntil = now + LEAVING_MS;
    }
    for (const managed of [...this.#managed.values()]) {
      if (!managed.isWanted) continue;
      const { contenders, holder } = managed;
      const left = paths.filter((path) => contenders.some(({ speaker }) => speaker.path === path));
      if (left.length === 0) continue;
      // It is for what that gateway tells, and no other does.
      if (managed.isForAddress) {
        this.#revoke(managed, now);
        continue;
      }
      // Whether it hears of the deletion is not known.
      if (left.some(({ gateway }) => gateway === managed.granted?.gateway)) {
        this.#saved.keep(managed);
      }
      const isHeldThere = holder !== undefined && left.includes(holder.speaker.path);
      if (isHeldThere) {
        // A watch has the same port there again, when that gateway is back.
        const isWatched = managed.partOf !== undefined && this.#watches.owns(managed.partOf);
        if (!isWatched) holder.speaker.parting.set(holder.id!, managed.key);
      }
      for (const path of left) this.#race.leave(managed, path, now);
      if (isHeldThere) this.#lost(managed, UNREACHABLE, undefined, now);
      else if (managed.phase === "racing") this.#race.check(managed, UNREACHABLE, now);
    }
    for (const path of paths) this.#addresses.left(path, now);
  }

  /** A gateway that was left is waited for no more: what it was to delete is told as unanswered. */
  #drop(path: Path, now: Instant): void {
    this.#paths = this.#paths.filter((one) => one !== path);
    const failure: Failure = { kind: "no-answer" };
    for (const { via } of path.speakers) delete this.stats.clients[`${path.name} ${via}`];
    this.#tables.left(path, now);
    this.#removals.left(path, now);
    for (const managed of [...this.#managed.values()]) {
      const there = managed.contenders.filter(({ speaker }) => speaker.path === path);
      for (const one of there) if (one.state === "waiting") one.state = "out";
      for (const one of there) {
        if (one.id !== undefined) this.#partUnmapped(managed, one, "revoked", failure, now);
      }
      const { partOf, phase, contenders, request } = managed;
      const isNotAsked = phase === "removing" && partOf !== undefined && contenders.length === 0 &&
        isSameEndpoint(request.gateway, path.gateway);
      if (isNotAsked) this.#unmapped(managed, "revoked", failure, now);
    }
  }

  #forgive(path: Path): void {
    for (const managed of this.#managed.values()) this.#race.forgive(managed, path);
  }

  /** A racing mapping joins the gateways that are new to it. */
  #joinAll(managed: ManagedMapping, now: Instant): void {
    for (const path of this.#host.pathsFor(managed)) this.#race.join(managed, path, now);
  }

  /** The best way of a family. */
  #pathOf(family: Family): Path | undefined {
    return this.#own().find(({ gateway }) => familyOf(gateway.address) === family);
  }

  /** The ways in use, without those that lead beyond another gateway. */
  #own(): Path[] {
    return this.#paths.filter(({ isLeft, behind }) => !isLeft && !behind);
  }

  /** What could not be sent before may leave by now: where it does not, the socket tells it again. */
  #tryAgain(): void {
    for (const path of this.#paths) path.tryAgain();
  }

  /** Where nothing can be sent, who has never been granted anything is told at once. */
  #failWhereNothingLeaves(managed: ManagedMapping, now: Instant): void {
    const paths = this.#host.pathsFor(managed);
    if (paths.length === 0 || paths.some(({ failure }) => !failure)) return;
    // Where it began it is done.
    if (this.#removals.isElsewhere(managed)) return;
    this.#host.fail(managed, UNREACHABLE, now);
  }

  readonly #host: RaceHost = {
    timers: this.#timers,
    find: (id) => this.#managed.get(id),
    pathsFor: (managed) => {
      const { request } = managed;
      const family = this.#familyOf(request);
      if (this.#isOutOfFamily(managed, family)) return [];
      return this.#paths.filter(({ gateway, isLeft, behind }) =>
        !isLeft && familyOf(gateway.address) === family &&
        (request.gateway === undefined ? !behind : isSameEndpoint(gateway, request.gateway))
      );
    },
    misfit: ({ request }, { via, client }) => {
      if (request.protocols && !request.protocols.includes(via)) return "it is not wanted";
      return client.unfit(request);
    },
    mayBeJoined: (managed) => {
      const paths = this.#host.pathsFor(managed);
      return paths.length === 0 ||
        paths.some(({ local, failure }) => !local && !failure);
    },
    makeWay: (managed, speaker, now) => {
      if (hasOwnPort(managed, speaker)) this.#addressHost.stopTelling(speaker, now);
    },
    fail: (managed, failure, now) => {
      const { partOf } = managed;
      this.#race.giveBack(managed, now);
      if (partOf !== undefined && managed.phase === "removing") {
        const attempts = managed.attemptsAt(now);
        this.#forget(managed, now);
        return this.#removals.partOver(managed, attempts, undefined, now);
      }
      if (partOf !== undefined && (this.#outers.has(managed) || this.#nested.owns(partOf))) {
        this.#forget(managed, now);
        this.#outers.failed(managed, now);
        return this.#nested.changed(partOf, now);
      }
      if (partOf !== undefined && this.#watches.owns(partOf)) {
        return this.#race.rest(managed, failure, now);
      }
      if (managed.isForAddress) {
        const speakers = managed.contenders.map(({ speaker }) => speaker);
        this.#forget(managed, now);
        for (const speaker of speakers) this.#addresses.notTold(speaker, failure, now);
        return;
      }
      const attempts = managed.attemptsAt(now);
      const paths = this.#host.pathsFor(managed);
      const blocked = paths.find((path) => path.failure)?.failure;
      this.#forget(managed, now);
      const family = this.#familyOf(managed.request);
      const told: { code: NatErrorCode; message?: string } = blocked
        ? { code: blocked.code, message: blocked.message }
        : paths.length === 0
        ? { code: "gateway-not-found", message: `this host has no gateway for IPv${family}` }
        : attempts.length === 0
        ? { code: "unsupported", ...this.#whyNobodyCan(managed, paths) }
        : { code: codeOf(failure) };
      const { id } = managed;
      const event = { type: "failed", id, attempts, ...told, ...retryAfter(failure, now) } as const;
      if (partOf === undefined) this.#outbox.emit(event, id);
      else this.#pairs.halfFailed(managed, event);
    },
  };

  /** What the preferred protocol cannot do of it. */
  #whyNobodyCan(managed: ManagedMapping, paths: readonly Path[]): { readonly message?: string } {
    const speakers = paths.flatMap((path) => path.speakers);
    const message = speakers.map((one) => this.#host.misfit(managed, one)).find(Boolean);
    return message === undefined ? {} : { message };
  }

  readonly #addressHost: AddressHost = {
    pathOf: (family, gateway) =>
      gateway
        ? this.#paths.find((path) => !path.isLeft && isSameEndpoint(path.gateway, gateway))
        : this.#pathOf(family),
    mapForAddress: (speaker, now) => {
      const known = this.#find(speaker, (one) => one.isForAddress || hasOwnPort(one, speaker));
      if (known?.holder?.speaker === speaker) {
        this.#addresses.told(speaker, known.granted!.external.address, now);
      }
      if (known) return;
      const request: PortRequest = {
        protocol: "udp",
        internalPort: speaker.path.local!.port,
        lifetimeSeconds: ADDRESS_LIFETIME_SECONDS,
        protocols: [speaker.via],
        gateway: speaker.path.gateway,
      };
      const managed = this.#create(request, savedKey(request), now);
      managed.madeFor = "address";
      this.#race.begin(managed, now);
    },
    stopTelling: (speaker, now) => {
      const managed = this.#find(speaker, ({ isForAddress }) => isForAddress);
      if (managed) this.#revoke(managed, now);
      this.#endIdleProbe(speaker, now);
    },
    tell: (event, key) => this.#outbox.emit(event, key),
  };

  readonly #outerHost: OuterHost = {
    pathBeyond: (inner, address, gateway) => {
      const known = this.#paths.find((path) => path.gateway.address === gateway.address);
      if (known) {
        if (known.behind?.path !== inner || known.behind.address !== address) return undefined;
        if (known.isLeft) known.update({ gateway });
        return known;
      }
      const { protocols = PREFERENCE, ...options } = this.#pathOptions;
      const crossing = protocols.filter((via) => PROTOCOLS[via]!.crossesNat);
      const own = { ...options, announcements: false, protocols: crossing };
      this.stats.paths++;
      const path = new Path(this.#nextPathId++, { gateway }, own, { path: inner, address });
      this.#paths = [...this.#paths, path];
      return path;
    },
    leave: (path, now) => {
      if (!path.isLeft && !this.#removals.isAsked(path.gateway)) this.#leave([path], now);
    },
    begin: (owner, request, now) => {
      const managed = this.#create(request, savedKey(request), now);
      managed.madeFor = owner;
      this.#race.begin(managed, now);
      return this.#managed.has(managed.id) ? managed : undefined;
    },
    end: (outer, now) => this.#revoke(outer, now),
  };

  readonly #tableHost: TableHost = {
    bestPath: () => this.#pathOf(4) ?? this.#pathOf(6),
    tell: (event, key) => this.#outbox.emit(event, key),
  };

  readonly #removalHost: RemovalHost = {
    isClosed: () => this.#isClosed,
    find: (id) => this.#managed.get(id),
    paths: () => this.#paths,
    own: () => this.#own(),
    pathOf: (family) => this.#pathOf(family),
    pathBeyond: this.#outerHost.pathBeyond,
    familyOf: (request) => this.#familyOf(request),
    misfit: this.#host.misfit,
    create: (request, now) => this.#create(request, savedKey(request), now),
    failWhereNothingLeaves: (managed, now) => this.#failWhereNothingLeaves(managed, now),
    unmapped: (managed, failure, now) => this.#unmapped(managed, "revoked", failure, now),
  };

  readonly #nestedHost: NestedHost = {
    timers: this.#timers,
    newId: () => this.#nextId++,
    abandon: (outer, now) => this.#abandon(outer, now),
    tell: (event, key) => this.#outbox.emit(event, key),
  };

  readonly #watchHost: WatchHost = {
    timers: this.#timers,
    paths: () => this.#own(),
    begin: (watch, request, now) => {
      const key = savedKey(request);
      this.#removals.end(key, this.#familyOf(request), now);
      const managed = this.#create(request, key, now);
      managed.madeFor = watch;
      this.#race.begin(managed, now);
      return managed;
    },
    end: (part, now) => this.#revoke(part, now),
    tell: (event, key) => this.#outbox.emit(event, key),
  };

  readonly #pairHost: PairHost = {
    timers: this.#timers,
    begin: (pair, request, nonces, now) => {
      const key = savedKey(request);
      this.#removals.end(key, this.#familyOf(request), now);
      const managed = this.#create(request, key, now);
      managed.madeFor = pair;
      managed.keepNonces(nonces);
      try {
        this.#begin(managed, now);
      } catch (error) {
        this.#forget(managed, now);
        throw error;
      }
      return managed;
    },
    end: (half, now) => this.#revoke(half, now),
    abandon: (half, now) => this.#abandon(half, now),
    renew: (half, lifetimeSeconds, now) => this.#renew(half, lifetimeSeconds, now),
    tell: (event, key) => this.#outbox.emit(event, key),
  };

  readonly #checkHost: CheckHost = {
    timers: this.#timers,
    holders: () => {
      const held = [...this.#managed.values()].flatMap(({ partOf, phase, holder }) =>
        partOf !== undefined && phase === "held" && holder && this.#watches.owns(partOf)
          ? holder.speaker
          : []
      );
      return new Set(held);
    },
    lost: (speaker, now) => {
      for (const id of [...speaker.managed.values()]) {
        const managed = this.#managed.get(id);
        const isWatched = managed?.partOf !== undefined && this.#watches.owns(managed.partOf);
        // What one before it maps on, or is mapped on by, may be on its way out by now.
        const isHeld = managed?.phase === "held" && managed.holder?.speaker === speaker;
        if (!isWatched || !isHeld) continue;
        this.#race.dropHolder(managed, now);
        this.#lost(managed, UNREACHABLE, undefined, now);
      }
    },
  };

  /**
   * A gateway may have begun anew, or `by` has answered there: what rests, since nobody there could do
   * it, is tried again.
   */
  #wake(path: Path, by: Speaker | undefined, now: Instant): void {
    for (const managed of [...this.#managed.values()]) {
      const isResting = managed.partOf !== undefined && managed.phase === "racing";
      if (isResting && managed.request.gateway === path.gateway) this.#race.wake(managed, by, now);
    }
  }

  /** A mapping that a speaker holds or is asked for which is so: one on its way out is none. */
  #find(speaker: Speaker, isSo: (one: ManagedMapping) => boolean): ManagedMapping | undefined {
    for (const id of speaker.managed.values()) {
      const managed = this.#managed.get(id);
      if (managed?.isWanted && isSo(managed)) return managed;
    }
    return undefined;
  }

  // ---- Small things ------------------------------------------------------------------------

  #ask(
    family: Family,
    gateway: Endpoint | undefined,
    protocols: readonly Via[] | undefined,
    now: Instant,
  ): MappingId {
    this.#outbox.touch(now);
    this.#tryAgain();
    const id = this.#nextId++;
    this.#addresses.ask(id, family, gateway, protocols, now);
    this.#drain(now);
    return id;
  }

  /** The request, checked, with hosts in canonical text, by which they are told apart; its family. */
  #read<R extends PortRequest>(wish: R): [R, Family] {
    const request = withHosts(wish, checkMappingRequest(wish));
    checkPort("internalPort", request.internalPort);
    checkChoice("protocol", request.protocol, ["tcp", "udp"]);
    for (const via of request.protocols ?? []) checkChoice("protocols", via, PREFERENCE);
    const family = this.#familyOf(request);
    const { remote, suggestedExternal, thirdParty, filters = [] } = request;
    if (remote) checkAddress("remote.address", remote.address, family);
    if (thirdParty !== undefined) checkAddress("thirdParty", thirdParty, family);
    if (suggestedExternal?.address !== undefined) {
      checkAddress("suggestedExternal.address", suggestedExternal.address, family);
    }
    for (const { prefix } of filters) {
      if (prefix.family === family) continue;
      const { address, prefixLength } = prefix;
      throw new TypeError(
        `'filters.prefix' must be an IPv${family} prefix: current value is ${address}/${prefixLength}`,
      );
    }
    return [request, family];
  }

  /** Whether one of its ports is wanted by another one, of this family. */
  #isTaken(
    request: PortRequest | SavedPort,
    key: MappingKey,
    family: Family,
    self?: ManagedMapping,
  ): boolean {
    for (const wanted of Object.values(this.#wanted)) {
      const same = wanted.get(key);
      if (same && same !== self && this.#isOf(same, family)) return true;
      // A single port can overlap with a set only.
      for (const one of request.portSet ? wanted.values() : []) {
        if (one !== self && sharePorts(request, one.request) && this.#isOf(one, family)) {
          return true;
        }
      }
    }
    for (const one of this.#sets) {
      if (one !== self && sharePorts(request, one.request) && this.#isOf(one, family)) return true;
    }
    return this.#watches.some(family, (one) => sharePorts(request, one)) ||
      this.#pairs.some(family, (one) => sharePorts(request, one));
  }

  /** Whether it was asked for of this family, goes there as gateways are now, or is there. */
  #isOf(managed: ManagedMapping, family: Family): boolean {
    const { request, key, contenders } = managed;
    return this.#familyOf(request) === family || this.#wanted[family].get(key) === managed ||
      contenders.some(({ id, speaker: { path } }) =>
        id !== undefined && familyOf(path.gateway.address) === family
      );
  }

  /**
   * Whether it would go where no gateway of its family is left, though its port is mapped there by
   * another wish.
   */
  #isOutOfFamily(managed: ManagedMapping, family: Family): boolean {
    const { request, isWanted, madeFor } = managed;
    const isFixed = request.family !== undefined || request.gateway !== undefined ||
      request.remote !== undefined || madeFor !== undefined;
    if (isFixed || !isWanted) return false;
    return this.#isTaken(request, managed.key, family, managed);
  }

  /** Each port is wanted once. */
  #checkFree(request: PortRequest, key: MappingKey, families: readonly Family[]): void {
    if (families.every((family) => !this.#isTaken(request, key, family))) return;
    const internal = describeInternal(checkMappingRequest(request));
    throw new TypeError(`Cannot map ${internal}: it is mapped already`);
  }

  /** The family of a request: as it says, as its gateway or peer has it, or IPv4 before IPv6. */
  #familyOf({ family, gateway, remote }: PortRequest): Family {
    if (family !== undefined) return family;
    const address = gateway?.address ?? remote?.address;
    if (address !== undefined) return familyOf(address);
    return this.#pathOf(4) || !this.#pathOf(6) ? 4 : 6;
  }

  #create(request: PortRequest, key: MappingKey, now: Instant): ManagedMapping {
    const saved = this.#saved.of(key);
    // What the earlier run let in only is to be taken away, where this one does not say so, too.
    const hadFilters = saved.some(({ filters }) => filters);
    const managed = new ManagedMapping(
      this.#nextId++,
      hadFilters ? { ...request, filters: request.filters ?? [] } : request,
      now,
    );
    for (const { gateway, nonce } of saved) {
      if (nonce !== undefined) managed.keepNonces({ [gateway]: nonce });
    }
    const family = this.#familyOf(request);
    const granted = this.#saved.ofRequest(key, family, request).filter(({ external }) => external);
    const external =
      (granted.find(({ gateway }) => gateway === request.gateway?.address) ?? granted[0])?.external;
    if (external?.address !== undefined) {
      managed.remembered = { address: external.address, port: external.port };
    }
    this.#managed.set(managed.id, managed);
    return managed;
  }

  #begin(managed: ManagedMapping, now: Instant): void {
    const paths = this.#host.pathsFor(managed);
    const speakers = paths.flatMap((path) => path.speakers);
    const isKnown = paths.length > 0 && paths.every(({ local }) => local !== undefined);
    if (isKnown && speakers.every((one) => this.#host.misfit(managed, one) !== undefined)) {
      const spoken = managed.request.protocols ?? this.#pathOptions.protocols ??
        speakers.map(({ via }) => via);
      throw new TypeError(
        `'protocols' excludes all that could do this: current value is ${spoken.join(",")}`,
      );
    }
    if (paths.length === 0 && this.#paths.some(({ isLeft }) => !isLeft)) {
      return this.#host.fail(managed, UNREACHABLE, now);
    }
    this.#race.begin(managed, now);
    if (this.#managed.has(managed.id)) this.#failWhereNothingLeaves(managed, now);
  }

  #remove(request: PortRequest, now: Instant): MappingId {
    this.#tryAgain();
    const { id } = this.#removals.begin(request, now);
    this.#drain(now);
    return id;
  }

  #renew(
    managed: ManagedMapping,
    lifetimeSeconds: number | undefined,
    now: Instant,
  ): number {
    managed.revision++;
    managed.askedSeconds = lifetimeSeconds ?? managed.askedSeconds;
    for (const { id, state, speaker } of managed.contenders) {
      if (id === undefined || (state !== "holding" && state !== "asking")) continue;
      const revision = speaker.client.renew(id, lifetimeSeconds, now);
      if (state === "holding") managed.revisionOffset = managed.revision - revision;
    }
    return managed.revision;
  }

  #abandon(managed: ManagedMapping, now: Instant): void {
    this.#saved.keep(managed);
    this.#forget(managed, now);
  }

  #revoke(managed: ManagedMapping, now: Instant): void {
    this.#unwant(managed);
    this.#removals.revoking(managed);
    managed.phase = "revoking";
    managed.since = now;
    managed.refusal = undefined;
    this.#nested.revoke(managed, now);
    this.#race.revoke(managed, now);
    if (managed.contenders.every(({ id }) => id === undefined)) {
      this.#unmapped(managed, "revoked", undefined, now);
    }
  }

  /** The port is free for another wish, though this one may still be deleted at the gateway. */
  #unwant(managed: ManagedMapping): void {
    this.#sets.delete(managed);
    for (const wanted of Object.values(this.#wanted)) {
      if (wanted.get(managed.key) === managed) wanted.delete(managed.key);
    }
  }

  /** Ends it without a word. */
  #forget(managed: ManagedMapping, now: Instant): void {
    const speakers = managed.contenders.map(({ speaker }) => speaker);
    this.#unwant(managed);
    this.#race.forget(managed, now);
    this.#managed.delete(managed.id);
    this.#removals.forget(managed);
    for (const speaker of speakers) this.#endIdleProbe(speaker, now);
  }

  /** Stops asking where nobody waits for the answer. */
  #endIdleProbe(speaker: Speaker, now: Instant): void {
    if (speaker.probing.size > 0) return;
    // What it holds is told with the address: the question goes on being asked with renewals.
    if (!this.#isClosed && speaker.managed.size > 0) return;
    if (this.#addresses.isWanted(speaker)) return;
    speaker.endProbe(now);
  }
}

/**
 * Whether the application maps the port of a client's own socket, of which alone that client would ask
 * for a mapping to be told the external address.
 */
function hasOwnPort(
  { request, isForAddress }: ManagedMapping,
  { via, path: { local } }: Speaker,
): boolean {
  return !isForAddress && PROTOCOLS[via]!.tellsAddressBy === "mapping" &&
    sharePorts(request, { protocol: "udp", internalPort: local!.port });
}

/** A request with hosts in the text that its check has made canonical. */
function withHosts<R>(request: R, { thirdParty, remote }: Wanted): R {
  if (thirdParty === undefined && remote === undefined) return request;
  return {
    ...request,
    ...(thirdParty !== undefined && { thirdParty }),
    ...(remote && { remote }),
  };
}

function checkPath(
  { gateway, localAddress, interface: name, way, isNamed }: NetworkPath,
): NetworkPath {
  const address = checkAddress("gateway.address", gateway?.address);
  return {
    gateway: { address, port: checkPort("gateway.port", gateway.port) },
    ...(localAddress !== undefined && {
      localAddress: checkAddress("localAddress", localAddress, familyOf(address)),
    }),
    ...(name !== undefined && { interface: name }),
    ...(way !== undefined && { way }),
    ...(isNamed && { isNamed }),
  };
}
