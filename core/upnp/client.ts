/**
 * The UPnP IGD client machine: the external address and any number of port mappings at one gateway's
 * Internet gateway device (IGD:1 and :2), or pinholes in its IPv6 firewall, kept alive over expiry,
 * restarts and routers that do otherwise than they say.
 *
 * Theory of operation
 *
 * *The device* is looked for (`finder.ts`) when there is something to ask, and again where its
 * address no longer answers. Requests to it leave one at a time (`calls.ts`).
 *
 * *A mapping* is a lease, and lives as `core/lease/keeper.ts` says: renewed at 1/2, 3/4… of its
 * lifetime by the same AddPortMapping (UPNP-C-01, -03). One that is new takes this way:
 *
 *   who has the port?──another──▶ the next port ──…
 *              │ nobody, or we
 *              ├─IGD:2──▶ AddAnyPortMapping ──granted──▶ told, maybe with another port
 *              ▼
 *         AddPortMapping ──granted──▶ told; then read back: are we in the table, and for how long?
 *              ├─718, 729──▶ the next port, unless the caller insists on this one
 *              ├─725, 402, 501──▶ the same without an end, which this client ends itself
 *              └─724──▶ the external port that the internal one is
 *
 * AddPortMapping replaces what another host has at some routers, though it should not (UPNP-C-02),
 * and what another program of this host has at those that keep to the letter: so
 * the table is looked at before, and what is another's is left alone. What the table says afterwards
 * is believed: a mapping that is not in it is lost, a shorter lease is renewed by its own length. A
 * router that does not show its table is taken at its word.
 *
 * *Deleting* looks first, too: what another host, or another program of this one, has by now at that
 * port stays (UPNP-C-08, -09).
 *
 * *Restarts* are heard of by SSDP (another BOOTID, an announcement after a byebye), changes of the
 * external address by events (`subscription.ts`), after which it is asked for once more. What nobody
 * tells is found by asking: for the address where no events come, and for one mapping in turn, once a
 * minute.
 *
 * @module
 */
import { LONG_REFUSAL_MS, PCP_MRT_MS, SHORT_REFUSAL_MS } from "../backoff.ts";
import { checkAddress, checkPort, MAX_LIFETIME_SECONDS } from "../check.ts";
import { isLoopback } from "../cidr.ts";
import { canonicalAddress, familyOf, withoutZone } from "../ip.ts";
import { type ClientWire, LeaseClient, type LeaseEvent } from "../lease/client.ts";
import { type Ask, LeaseKeeper } from "../lease/keeper.ts";
import type { Lease } from "../lease/lease.ts";
import { protocolName, type SavedState } from "../lease/saved.ts";
import type {
  Endpoint,
  HttpRequest,
  HttpResult,
  Instant,
  Machine,
  SocketResult,
  SocketSpec,
} from "../machine.ts";
import {
  type Failure,
  type MappingId,
  type MappingState,
  PROTOCOL_NUMBER,
  type Transport,
  type Wanted,
} from "../mapping.ts";
import { below, type RandomSource } from "../random.ts";
import { Timers } from "../timers.ts";
import {
  callAction,
  CallQueue,
  type Ending,
  type Job,
  type Outcome,
  type ServiceAt,
  type Steps,
  unanswered,
} from "./calls.ts";
import {
  externalAddressOf,
  type FinderOptions,
  type Igd,
  IgdFinder,
  notConnected,
} from "./finder.ts";
import {
  FIREWALL_ERROR,
  IGD2_MAX_LEASE_SECONDS,
  IGD_ERROR,
  igdService,
  PINHOLE_MAX_LEASE_SECONDS,
  UPNP_ERROR,
  upnpErrorName,
} from "./igd.ts";
import { type BegunSearch, igdSearchSocket } from "./igd_search.ts";
import { misfitOfIgd } from "./misfit.ts";
import { decodeSsdp, deviceOf, SSDP_PORT, ssdpGroup } from "./ssdp.ts";
import { Subscription } from "./subscription.ts";

/** How an IGD client is made. */
export interface IgdClientOptions {
  /** The gateway, and the port where it answers searches: 1900 on a real one. */
  readonly gateway: Endpoint;
  /** This host's address towards it: requests leave from there, and mappings lead there. */
  readonly localAddress: string;
  /** Chooses ports where the wished one is taken, and spreads recreations. */
  readonly random: RandomSource;
  /** The name of the interface towards it, which multicast over IPv6 needs. */
  readonly interface?: string | undefined;
  /** Whether the gateway was named: then no other device is taken for it. @default {false} */
  readonly isNamed?: boolean;
  /**
   * Whether an address is another gateway's of this host: a device that answers there is not taken
   * for this gateway's.
   */
  readonly isOtherGateway?: ((address: string) => boolean) | undefined;
  /** Whether to listen for what devices announce. @default {true} */
  readonly announcements?: boolean;
  /** A search that was begun already: it goes on with that. */
  readonly search?: BegunSearch | undefined;
  /** What an earlier client exported: its mappings are asked for again, with their ports. */
  readonly state?: SavedState;
}

/** A mapping as it stands. */
export interface IgdMapping {
  /** Names it within its client. */
  readonly id: MappingId;
  /** Which transport. */
  readonly protocol: Transport;
  /** The port on this host. */
  readonly internalPort: number;
  /** Where others send to, where the device holds the mapping. */
  readonly external: Endpoint | undefined;
  /** Granted lifetime, seconds; 2³²−1: until it is deleted. Before a grant the one asked for. */
  readonly lifetimeSeconds: number;
  /** When the last grant ends; undefined where there is none. */
  readonly expiresAt: Instant | undefined;
  /** Where it stands. */
  readonly state: MappingState;
}

/** An entry of the device's table. */
export interface PortMappingEntry {
  /** Which transport. */
  readonly protocol: Transport;
  /** The external port. */
  readonly externalPort: number;
  /** Who may send; `""`: everybody. */
  readonly remoteHost: string;
  /** The host it leads to, as the device tells it. */
  readonly internalClient: string;
  /** The port there. */
  readonly internalPort: number;
  /** Whether it is in force. */
  readonly isEnabled: boolean;
  /** The text that it was made with. */
  readonly description: string;
  /** For how long it lasts, seconds; 0: without an end, or unknown. */
  readonly leaseSeconds: number;
}

/** What an IGD client tells. */
export type IgdEvent =
  /** What becomes of a mapping, and that the device lost its table. */
  | LeaseEvent<IgdMapping>
  /** The external address: the answer to a probe, or a change that was noticed. */
  | { readonly type: "external-address"; readonly address: string }
  /** The probe came to nothing. */
  | { readonly type: "external-address-failed"; readonly failure: Failure }
  /** So many entries of the device's table were read; it goes on. */
  | { readonly type: "table-read"; readonly id: MappingId; readonly count: number }
  /** The device's table; or why it is not told. */
  | {
    readonly type: "table-told";
    readonly id: MappingId;
    readonly entries: readonly PortMappingEntry[];
    /** Whether it is longer than what was read. */
    readonly isCut: boolean;
    readonly failure?: Failure;
  };

/** What a client counted. */
export interface IgdClientStats {
  /** Searches begun. */
  searches: number;
  /** HTTP requests sent. */
  requests: number;
  /** HTTP requests that were answered, with whatever status. */
  answers: number;
  /** How often the device was noticed to have lost its table. */
  restarts: number;
  /** What was dropped, by reason. */
  readonly dropped: {
    /** No SSDP, or a broken one. */
    malformed: number;
    /** From who is no neighbour. */
    "off-link": number;
    /** More answers than are looked at. */
    "too-many": number;
    /** A URL that leads elsewhere. */
    "bad-url": number;
    /** A description that is none. */
    "bad-description": number;
    /** What nobody asked for. */
    unsolicited: number;
  };
}

type IgdLease = Lease<Job>;

/** What was asked for a lease, as far as the device may hold it. */
interface Made {
  /** External ports, by every AddPortMapping that was not refused. */
  readonly ports: Set<number>;
  /** The id of its pinhole. */
  pinhole: number | undefined;
}

/** What the table says of a port. */
interface Look {
  readonly holder: "nobody" | "we" | "other" | "unknown";
  /** What is left of its lease; 0: unknown, or without end. */
  readonly leaseSeconds: number;
}

/** What was learnt of the device: each is asked in vain once. */
interface Habits {
  /** It gives no leases but those without an end. */
  onlyPermanent: boolean;
  /** It does not have AddAnyPortMapping. */
  lacksAny: boolean;
  /** Whether it shows what it holds by GetSpecificPortMappingEntry; undefined: not known. */
  showsTable: boolean | undefined;
  /** Whether the same AddPortMapping again extends the lease (quirk 62). */
  extendsLeases: boolean | undefined;
}

/** How many requests for one mapping are refused before that is told. */
const MAX_ADDS = 12;
/** So many searches in a row find no device before those for what was lost pause, this long… */
const EAGER_SEARCHES = 8;
/** …which doubles, up to PCP's longest wait: to search costs the network thirty times a request. */
const SEARCH_PAUSE_MS = 120_000;
/** External ports chosen by us: those that routers let everybody have. */
const FIRST_CHOSEN_PORT = 1024;
/** The address is asked for again before a mapping is made where it is older than this. */
const ADDRESS_AGE_MS = 60_000;
/** How often the device is asked whether all is as it was. */
const CHECK_MS = 60_000;
/** And where it had no address when it was last heard of. */
const ADDRESS_CHECK_MS = 3000;
/** The lease of a pinhole that is asked for only to hear its id, seconds. */
const SHORT_PINHOLE_SECONDS = 60;
/** A lease this much shorter than asked for is another one, seconds. */
const LEASE_SLACK_SECONDS = 10;
/** Of a longer table so many entries are read. */
const MAX_ENTRIES = 4096;
/** Routers cut descriptions, or choke on long ones (UPNP-C-06). */
const MAX_DESCRIPTION = 60;
const DEFAULT_DESCRIPTION = "natkit";

/** Another host has the port, or the router itself. */
const CONFLICTS: readonly number[] = [
  IGD_ERROR.ConflictInMappingEntry,
  IGD_ERROR.ConflictWithOtherMechanisms,
];
/** What devices say to a lease that they do not give, whatever it should mean (quirks 42, 43). */
const NO_LEASES: readonly number[] = [
  IGD_ERROR.OnlyPermanentLeasesSupported,
  UPNP_ERROR.InvalidArgs,
  UPNP_ERROR.ActionFailed,
];
/** What may be otherwise in a while. */
const SHORT_CODES: readonly number[] = [
  UPNP_ERROR.ActionFailed,
  UPNP_ERROR.OutOfMemory,
  IGD_ERROR.NoPortMapsAvailable,
  FIREWALL_ERROR.PinholeSpaceExhausted,
];

/**
 * An IGD client for one gateway, as a machine (see `core/machine.ts`).
 *
 * @example
 * ```ts
 * import { IgdClient } from "@natkit/natkit/upnp";
 * import { seededRandom } from "@natkit/natkit/core";
 * const client = new IgdClient({
 *   gateway: { address: "192.168.1.1", port: 1900 },
 *   localAddress: "192.168.1.100",
 *   random: seededRandom(1),
 * });
 * client.map({ protocol: "tcp", internalPort: 8080 }, 0);
 * const [socket] = client.sockets(); // the driver opens it…
 * client.handleSocket(socket!.key, { ok: true, local: { address: "192.168.1.100", port: 4 } }, 0);
 * const search = client.poll();
 * console.assert(search?.type === "send" && search.to.port === 1900);
 * ```
 */
export class IgdClient extends LeaseClient<IgdMapping, IgdEvent> implements Machine<IgdEvent> {
  /** The name of the protocol. */
  readonly via = "upnp" as const;
  /** Counters. */
  readonly stats: IgdClientStats = {
    searches: 0,
    requests: 0,
    answers: 0,
    restarts: 0,
    dropped: {
      "malformed": 0,
      "off-link": 0,
      "too-many": 0,
      "bad-url": 0,
      "bad-description": 0,
      "unsolicited": 0,
    },
  };
  readonly #gateway: Endpoint;
  readonly #random: RandomSource;
  readonly #interface: string | undefined;
  readonly #isOtherGateway: ((address: string) => boolean) | undefined;
  readonly #announcements: boolean;
  readonly #timers = new Timers<"check">();
  /** @internal */
  protected override readonly keeper: LeaseKeeper<Job, IgdMapping>;
  readonly #queue: CallQueue;
  readonly #made: WeakMap<IgdLease, Made> = new WeakMap();
  readonly #subscription: Subscription;
  readonly #isNamed: boolean;
  #local: string;
  #finder: IgdFinder;
  #igd: Igd | undefined;
  #habits: Habits = newHabits();
  /** The external address, and when it was told. */
  #address: string | undefined;
  #addressAt: Instant = -Infinity;
  #hasAddress = true;
  #isProbed = false;
  /** The device said byebye. */
  #saidBye = false;
  /** When somebody said last that the device may have begun anew. */
  #doubtedAt: Instant = -Infinity;
  /** Asks whether all is as it was. */
  #checking: Job | undefined;
  /** Which lease is looked at in turn. */
  #turn = 0;
  /** Questions for the table. */
  readonly #lists: Map<MappingId, Job> = new Map();
  #nextListId = -1;
  #searches = 0;
  /** How many searches in a row found no device, and before when none is made for what was lost. */
  #misses = 0;
  #searchAgainAt: Instant = -Infinity;
  /** The search's socket, while one is wanted. */
  #searchSocket: SocketSpec | undefined;
  #begun: BegunSearch | undefined;
  #sockets: readonly SocketSpec[] = [];
  /** Whether something was granted, and read back where it can be. */
  #hasSettled = false;
  #isClosing = false;

  /**
   * Makes a client; with `state` the mappings of an earlier one are asked for at the first timeout.
   *
   * @throws {TypeError | RangeError} Where an address is none, the two are not of one family, or the
   * state is not one.
   */
  constructor(options: IgdClientOptions) {
    super();
    const { random, announcements = true, isNamed = false, state } = options;
    this.#gateway = {
      address: checkAddress("gateway.address", options.gateway?.address),
      port: checkPort("gateway.port", options.gateway?.port),
    };
    const family = familyOf(this.#gateway.address);
    this.#local = checkAddress("localAddress", options.localAddress, family);
    this.#random = random;
    this.#interface = options.interface;
    this.#isNamed = isNamed;
    this.#isOtherGateway = options.isOtherGateway;
    this.#announcements = announcements;
    this.#begun = options.search;
    this.#queue = new CallQueue((id, { to, request, maxBytes, timeoutMs }) => {
      this.stats.requests++;
      // What a device maps it maps for who asks.
      const local = withoutZone(this.#local);
      this.outbox.act({ type: "request", id, to, local, request, maxBytes, timeoutMs });
    });
    this.keeper = new LeaseKeeper(this.wire, random, this.outbox);
    this.#finder = this.#newFinder();
    this.#subscription = new Subscription(random, this.#queue, {
      now: () => this.now,
      changed: (properties) => this.#onChange(properties),
      missed: () => this.#addCheck(),
      doubted: () => this.#doubtAddress(),
      respond: (id, response) => this.outbox.act({ type: "respond", id, response }),
      dropped: () => this.#dropped("unsolicited"),
    });
    this.adopt(state);
  }

  // ---- Commands ----------------------------------------------------------------------------

  /**
   * Asks for the external address, which changes nothing at the gateway: `external-address` or
   * `external-address-failed` follows. Over IPv6 it is this host's own, where there is a firewall
   * that can be asked.
   */
  probe(now: Instant): void {
    this.begin(now);
    this.#isProbed = true;
    if (this.#igd) this.#askAddress();
    this.#advance();
  }

  /** Takes the question for the external address back. */
  endProbe(now: Instant): void {
    this.begin(now);
    this.#isProbed = false;
    this.#advance();
  }

  /**
   * Something says that the device may have begun anew: looks at once whether the address and what is
   * held are as they were, as is done once a minute.
   */
  check(now: Instant): void {
    this.begin(now);
    this.#doubtedAt = this.now;
    this.#expectDevice();
    for (const lease of this.keeper.wanted()) {
      if (!lease.isGranted && hasVanished(lease)) this.keeper.hasten(lease, this.now);
    }
    this.#addCheck();
    this.#advance();
  }

  /**
   * Asks for the device's whole table of port mappings, everybody's: `table-told` follows.
   *
   * @returns The id that it carries; below 0, so that it is no mapping's.
   */
  list(now: Instant): MappingId {
    this.begin(now);
    const id = this.#nextListId--;
    const tell = (entries: readonly PortMappingEntry[], failure?: Failure) => {
      if (!this.#lists.delete(id)) return;
      const isCut = entries.length >= MAX_ENTRIES;
      this.outbox.emit({ type: "table-told", id, entries, isCut, ...(failure && { failure }) }, id);
    };
    const tellCount = (count: number) =>
      this.#lists.has(id) && this.outbox.emit({ type: "table-read", id, count }, id);
    const job: Job = {
      name: "list",
      run: () => this.#list(tell, tellCount),
      fail: (failure) => tell([], failure),
    };
    this.#lists.set(id, job);
    this.#queue.add(job);
    this.#advance();
    return id;
  }

  /** This host has another address towards the gateway: all mappings are asked for from there. */
  networkChanged(localAddress: string, now: Instant): void {
    this.begin(now);
    this.#local = checkAddress("localAddress", localAddress, familyOf(this.#gateway.address));
    this.#hostMoved();
    this.#advance();
  }

  #hostMoved(): void {
    this.#expectDevice();
    this.#loseDevice();
    this.#finder.stop();
    this.#finder = this.#newFinder();
    this.#searchSocket = this.#begun = undefined;
    // Their ids are those of pinholes to the old address, which not every firewall refuses to change.
    for (const lease of this.keeper.all()) this.#madeOf(lease).pinhole = undefined;
    this.keeper.hostMoved(this.now);
  }

  // ---- Input -------------------------------------------------------------------------------

  /** {@inheritDoc Machine.sockets} */
  sockets(): readonly SocketSpec[] {
    const search = this.#searchSocket ? [this.#searchSocket] : [];
    const specs = [...search, ...this.#noticeSocket(), ...this.#eventSocket()];
    const isSame = specs.length === this.#sockets.length &&
      specs.every(({ key }, i) => key === this.#sockets[i]!.key);
    return isSame ? this.#sockets : this.#sockets = specs;
  }

  #noticeSocket(): SocketSpec[] {
    // On loopback nothing is announced at that port but by others.
    if (!this.#isWatching() || isLoopback(this.#local)) return [];
    const family = familyOf(this.#local);
    const group = ssdpGroup(family);
    const via = family === 4 ? this.#local : this.#interface;
    const key = `notices ${this.#local}`;
    const local = { address: group, port: SSDP_PORT };
    return [{ key, local, group, reuse: true, ...(via !== undefined && { interface: via }) }];
  }

  #eventSocket(): SocketSpec[] {
    const key = this.#subscription.socketKey;
    if (key === undefined) return [];
    return [{ key, kind: "http", local: { address: this.#local, port: 0 } }];
  }

  /** Where this client takes requests: the path of its event callbacks. */
  get callbackPath(): string {
    return this.#subscription.path;
  }

  /** {@inheritDoc Machine.handleSocket} */
  handleSocket(key: string, result: SocketResult, now: Instant): void {
    this.begin(now);
    if (key === this.#subscription.socketKey) {
      this.#subscription.listens(result.ok ? result.local : undefined);
    }
    if (key === this.#searchSocket?.key) {
      if (result.ok) {
        if (!this.#finder.isSearching) this.stats.searches++;
        this.#finder.start(this.#begun?.at);
      } else if (!result.isOpen) {
        this.#finder.stop();
        this.#notFound({ kind: "unreachable" });
      }
      this.#begun = undefined;
    }
    this.#advance();
  }

  /** Feeds one datagram; true where it is an answer or an announcement of a device. */
  handleDatagram(data: Uint8Array, from: Endpoint, socket: string, now: Instant): boolean {
    this.begin(now);
    const isMine = socket === this.#searchSocket?.key
      ? this.#finder.handleDatagram(data, from)
      : socket.startsWith("notices ")
      ? this.#hearNotice(data, from)
      : this.#dropped("unsolicited");
    this.#advance();
    return isMine;
  }

  /** ICMP says that nobody answers searches there. */
  handleUnreachable(_to: Endpoint, socket: string, now: Instant): void {
    this.begin(now);
    if (socket === this.#searchSocket?.key) this.#finder.handleUnreachable();
    this.#advance();
  }

  /** Feeds the result of a request. */
  handleResponse(id: number, result: HttpResult, now: Instant): void {
    this.begin(now);
    if (result.ok) this.stats.answers++;
    if (!this.#queue.handleResponse(id, result)) this.#dropped("unsolicited");
    this.#advance();
  }

  /** Takes an event of the device's. */
  handleRequest(id: number, request: HttpRequest, from: Endpoint, now: Instant): void {
    this.begin(now);
    this.#subscription.handleRequest(id, request, from);
    this.#advance();
  }

  // ---- The device --------------------------------------------------------------------------

  get #place(): FinderOptions {
    return {
      gateway: this.#gateway,
      localAddress: this.#local,
      interface: this.#interface,
      isNamed: this.#isNamed,
      isOtherGateway: this.#isOtherGateway,
    };
  }

  #newFinder(): IgdFinder {
    return new IgdFinder(this.#place, this.#queue, {
      send: (to, data) => {
        if (this.#searchSocket) this.outbox.send(this.#searchSocket.key, to, data);
      },
      now: () => this.now,
      found: (igd, address) => this.#found(igd, address),
      failed: (failure) => this.#notFound(failure),
      refusal: (code) => this.#refusal(code),
      doesWithoutAddress: () => this.#held().length > 0,
      dropped: (reason) => this.#dropped(reason),
    });
  }

  /** Goes on with what can go on, and begins or ends the search as it is wanted. */
  #advance(): void {
    // What was the only device here may turn out to be another gateway's: it is that one's to map.
    if (this.#igd && this.#isOtherGateway?.(this.#igd.address)) this.#hostMoved();
    this.#queue.advance();
    const isWanted = !this.#igd && (this.#isProbed || this.#queue.needsDevice);
    if (isWanted && !this.#searchSocket) {
      const key = `search ${++this.#searches}`;
      this.#searchSocket = this.#begun?.socket ?? igdSearchSocket(this.#place, key);
    } else if (!isWanted && this.#searchSocket) {
      this.#searchSocket = undefined;
      this.#finder.stop();
    }
    // Who waits for the first grant goes first.
    const isListening = this.#hasSettled && this.#isWatching();
    this.#subscription.want(isListening ? this.#igd?.connection : undefined);
    this.#armCheck();
    this.#queue.advance();
  }

  /**
   * Whether the device may hold something, or has held, that is to be held on: it may begin anew as
   * soon as it has granted.
   */
  #isWatching(): boolean {
    return this.#announcements &&
      this.keeper.some(({ grant, mayExistUntil, phase, isWithdrawn, wanted }) => {
        const mayBeGranted = phase !== "deleting" && mayExistUntil > this.now;
        return (grant !== undefined || mayBeGranted) && !isWithdrawn && wanted.lifetimes !== 1;
      });
  }

  /** The device tells what has changed. */
  #onChange(properties: Readonly<Record<string, string>>): void {
    const { ExternalIPAddress, PortMappingNumberOfEntries } = properties;
    if (ExternalIPAddress !== undefined) {
      const address = externalAddressOf({ NewExternalIPAddress: ExternalIPAddress });
      if (address !== undefined) this.#heardAddress(address, false);
      else this.#lostAddress();
    }
    const entries = readNumber(PortMappingNumberOfEntries);
    if (entries !== undefined && entries < this.#held().length) this.#addCheck();
  }

  #found(igd: Igd, told: string | Failure): void {
    const isKnown = this.#address !== undefined;
    this.#expectDevice();
    this.#igd = igd;
    this.#queue.setOpen(true);
    const hasBootedAnew = this.#bootId !== undefined && igd.bootId !== undefined &&
      this.#bootId !== igd.bootId && this.#udn === igd.udn;
    if (this.#udn !== igd.udn || hasBootedAnew) this.#habits = newHabits();
    this.#udn = igd.udn;
    this.#bootId = igd.bootId;
    if (typeof told === "string") this.#heardAddress(told, !isKnown || this.#isProbed);
    else {
      this.#addressFailed(told);
      this.#lostAddress();
    }
    if (hasBootedAnew) this.restarted(undefined);
  }

  #udn: string | undefined;
  #bootId: number | undefined;

  /** No device was found: what waits for one fails. */
  #notFound(failure: Failure): void {
    this.#searchSocket = undefined;
    const doublings = ++this.#misses - EAGER_SEARCHES;
    const pauseMs = doublings < 0 ? 0 : Math.min(PCP_MRT_MS, SEARCH_PAUSE_MS * 2 ** doublings);
    this.#searchAgainAt = this.now + pauseMs;
    for (const job of this.#queue.takeWaiting(this.#searches)) job.fail(failure);
    if (!this.#isProbed) return;
    this.#isProbed = false;
    this.outbox.emit({ type: "external-address-failed", failure }, "address");
  }

  /** It may be there again: it is looked for whenever it is needed. */
  #expectDevice(): void {
    this.#misses = 0;
    this.#searchAgainAt = -Infinity;
  }

  /** It is not where it was, or not what it was: it is looked for when it is needed. */
  #loseDevice(): void {
    this.#igd = undefined;
    this.#queue.setOpen(false);
    this.#subscription.lost();
  }

  /** Takes an announcement; false where it is none of our device's. */
  #hearNotice(data: Uint8Array, from: Endpoint): boolean {
    const message = decodeSsdp(data);
    if (typeof message === "string") return this.#dropped("malformed");
    if (!this.#finder.isOnLink(from.address)) return this.#dropped("off-link");
    const { kind, usn, bootId, nextBootId } = message;
    if (kind === "search" || kind === "response" || usn === "") return false;
    if (deviceOf(usn) !== this.#udn || this.#udn === "") return false;
    if (kind === "byebye") {
      this.#saidBye = true;
      return true;
    }
    if (kind === "update") {
      this.#bootId = nextBootId ?? this.#bootId;
      return true;
    }
    this.#expectDevice();
    const isOther = bootId !== undefined && this.#bootId !== undefined && bootId !== this.#bootId;
    this.#bootId = bootId ?? this.#bootId;
    if (isOther || this.#saidBye) {
      this.#saidBye = false;
      this.#loseDevice();
      this.restarted(undefined);
    } else this.keeper.gatewayAnswers(undefined, this.now);
    return true;
  }

  /** Calls an action of the connection; a device that is gone is lost. */
  *#call(service: ServiceAt, action: string, args: Record<string, string>): Steps<Outcome> {
    const outcome = yield* callAction(service, action, args);
    if (outcome.type === "gone") this.#loseDevice();
    return outcome;
  }

  // ---- The external address ----------------------------------------------------------------

  #askAddress(): void {
    this.#queue.add({
      name: "external address",
      run: () => this.#learnAddress(),
      fail: (failure) => this.#addressFailed(failure),
    });
  }

  *#learnAddress(): Steps<Ending> {
    const connection = this.#igd!.connection;
    if (!connection) {
      this.#heardAddress(this.#local, true);
      return "done";
    }
    const outcome = yield* this.#call(connection, "GetExternalIPAddress", {});
    if (outcome.type === "gone") return "again";
    const address = outcome.type === "done" ? externalAddressOf(outcome.args) : undefined;
    if (address !== undefined) this.#heardAddress(address, true);
    else this.#addressFailed(this.#failureOf(outcome) ?? notConnected(this.now));
    return "done";
  }

  #addressFailed(failure: Failure): void {
    if (!this.#isProbed) return;
    this.#isProbed = false;
    this.outbox.emit({ type: "external-address-failed", failure }, "address");
  }

  /** It has no address at present: the next one may not be told (miniupnpd says it when it has time). */
  #lostAddress(): void {
    this.#hasAddress = false;
    this.#timers.set("check", this.now + ADDRESS_CHECK_MS, "check");
  }

  #heardAddress(address: string, isAsked: boolean): void {
    this.#hasAddress = true;
    const isOther = address !== this.#address;
    this.#address = address;
    this.#addressAt = this.now;
    if (isOther) this.keeper.externalAddressChanged(address);
    if (!isOther && !(isAsked && this.#isProbed)) return;
    this.#isProbed = false;
    this.outbox.emit({ type: "external-address", address }, "address");
  }

  // ---- Is all as it was? -------------------------------------------------------------------

  #held(): IgdLease[] {
    return this.keeper.wanted().filter(({ isGranted, isStale }) => isGranted && !isStale);
  }

  #armCheck(): void {
    if (this.#isClosing || this.keeper.size === 0) this.#timers.delete("check");
    else if (this.#timers.at("check") === undefined) {
      this.#timers.set("check", this.now + CHECK_MS, "check");
    }
  }

  #addCheck(): void {
    if (this.#checking || this.#held().length === 0) return;
    const end = () => {
      this.#checking = undefined;
    };
    this.#checking = { name: "check", run: () => this.#lookAround(end), fail: end };
    this.#queue.add(this.#checking);
  }

  /** Asks whether the address is what events said: nobody waits for that. */
  #doubtAddress(): void {
    if (this.#held().length === 0) return;
    this.#queue.add({
      name: "external address again",
      isOptional: true,
      run: () => this.#lookAtAddress(),
      fail: () => {},
    });
  }

  *#lookAtAddress(): Steps<Ending> {
    const { connection } = this.#igd!;
    if (!connection) return "done";
    const outcome = yield* this.#call(connection, "GetExternalIPAddress", {});
    if (outcome.type === "gone") return "again";
    const address = outcome.type === "done" ? externalAddressOf(outcome.args) : undefined;
    if (address !== undefined) this.#heardAddress(address, false);
    else if (outcome.type !== "silent") this.#lostAddress();
    return "done";
  }

  /** Asks what nobody tells: the address, and whether the mapping whose turn it is is there. */
  *#lookAround(end: () => void): Steps<Ending> {
    const ending = yield* this.#lookAtAll();
    if (ending === "done") end();
    return ending;
  }

  *#lookAtAll(): Steps<Ending> {
    const { connection, firewall } = this.#igd!;
    if (connection && !(this.#subscription.works && this.#hasAddress)) {
      const ending = yield* this.#lookAtAddress();
      if (ending === "again") return ending;
    }
    const held = this.#held().filter(({ request }) => !request);
    const lease = held[this.#turn++ % held.length];
    if (!lease) return "done";
    let isMissing = false;
    if (connection) {
      const look = yield* this.#look(connection, lease, lease.grant!.external.port);
      if (look === "gone") return "again";
      if (look === "silent") return "done";
      isMissing = look.holder === "nobody" && this.#habits.showsTable === true;
      const isReplaced = look.holder === "other" && lease.isGranted && !lease.request;
      if (isReplaced) this.#replaced(lease);
    } else {
      const UniqueID = this.#madeOf(lease).pinhole;
      if (UniqueID === undefined) return "done";
      const args = { UniqueID: String(UniqueID) };
      const outcome = yield* this.#call(firewall!, "GetPinholePackets", args);
      if (outcome.type === "gone") return "again";
      isMissing = outcome.type === "error" && outcome.code === FIREWALL_ERROR.NoSuchEntry;
    }
    // What one mapping is missing from, all may be missing from (quirk 12), subscriptions too.
    if (isMissing && lease.isGranted && !lease.request) {
      this.#subscription.verify();
      this.restarted(undefined);
    }
    return "done";
  }

  // ---- What the keeper asks for, and what it is told ---------------------------------------

  /** @internal */
  protected override readonly wire: ClientWire<Job, IgdMapping> = {
    gatewayAddress: () => this.#gateway.address,
    misfit: (wanted) => misfitOfIgd(wanted, familyOf(this.#local)),
    isAsking: () => !this.#queue.isEmpty,
    endQuestions: () => {
      this.#isClosing = true;
      this.#isProbed = false;
      for (const job of this.#lists.values()) this.#queue.cancel(job);
      this.#lists.clear();
      if (this.#checking) this.#queue.cancel(this.#checking);
      this.#queue.dropOptional();
    },
    handleTimeout: (now) => {
      this.#subscription.handleTimeout();
      if ((this.#finder.nextAt() ?? Infinity) <= now) this.#finder.handleTimeout();
      if (this.#timers.popDue(now) === "check") this.#addCheck();
    },
    deadlines: () => {
      const searchAt = this.#finder.nextAt(), renewAt = this.#subscription.nextAt();
      return [
        searchAt === undefined ? undefined : { at: searchAt, reason: "search" },
        renewAt === undefined ? undefined : { at: renewAt, reason: "subscription" },
        this.#timers.next(),
      ];
    },
    advance: () => this.#advance(),
    recreation: "together",
    canDelete: () => true,
    renewalFraction: (attempt) => 1 - 2 ** -attempt,
    send: (lease, ask) => this.#enqueue(lease, ask),
    cancel: (lease) => {
      if (lease.request) this.#queue.cancel(lease.request);
      lease.request = undefined;
    },
    snapshot: (lease) => {
      const { grant, isGranted } = lease;
      return {
        id: lease.id,
        protocol: protocolName(lease.wanted.protocol) as Transport,
        internalPort: lease.wanted.internalPort,
        external: isGranted ? grant!.external : undefined,
        lifetimeSeconds: grant?.lifetimeSeconds ?? lease.lifetimeSeconds,
        expiresAt: lease.expiresAt,
        state: lease.state(lease.request ? 1 : 0),
      };
    },
  };

  #enqueue(lease: IgdLease, ask: Ask): void {
    // What is on its way goes on: who changed the wish meanwhile asks again after its answer.
    if (lease.request) return;
    const isAgain = ask === "renew" || ask === "recreate";
    if (isAgain && !this.#igd && !this.#finder.isSearching && this.now < this.#searchAgainAt) {
      this.keeper.failed(lease, { kind: "no-answer" }, undefined, this.now);
      return;
    }
    const job: Job = {
      name: `${ask} ${lease.key}`,
      run: () => ask === "delete" ? this.#delete(job, lease) : this.#make(job, lease, ask),
      fail: (failure) => this.#failed(job, lease, failure),
    };
    lease.request = job;
    this.#queue.add(job, this.#finder.isSearching ? this.#searches : undefined);
  }

  #madeOf(lease: IgdLease): Made {
    const known = this.#made.get(lease);
    if (known) return known;
    const made: Made = { ports: new Set(), pinhole: undefined };
    this.#made.set(lease, made);
    return made;
  }

  #failed(job: Job, lease: IgdLease, failure: Failure): void {
    if (job.isCancelled) return;
    lease.request = undefined;
    const retryAt = failure.kind === "refused" ? failure.retryAt : undefined;
    const { mayExistUntil } = lease;
    this.keeper.failed(lease, failure, retryAt, this.now);
    // What was not answered may have been done, and a no to this request is none to an earlier one.
    if (this.keeper.get(lease.id) !== lease) this.#sweep(lease, undefined);
    else if (this.#madeOf(lease).ports.size > 0) lease.mayExistUntil = mayExistUntil;
  }

  /** Deletes what the device may have made of a lease beside what it holds. */
  #sweep(lease: IgdLease, held: number | undefined): void {
    const { ports } = this.#madeOf(lease);
    const strays = [...ports].filter((port) => port !== held);
    if (strays.length === 0) return;
    for (const port of strays) ports.delete(port);
    this.#queue.add({
      name: `sweep ${lease.key}`,
      run: () => this.#deleteStrays(lease, strays),
      fail: () => {},
    });
  }

  *#deleteStrays(lease: IgdLease, strays: number[]): Steps<Ending> {
    const { connection } = this.#igd!;
    if (!connection) return "done";
    for (let port = strays.at(-1); port !== undefined; port = strays.at(-1)) {
      const successor = this.keeper.find(lease.key);
      if (!(successor && this.#madeOf(successor).ports.has(port))) {
        const look = yield* this.#look(connection, lease, port);
        if (look === "gone") return "again";
        if (typeof look === "object" && look.holder === "we") {
          const outcome = yield* this.#remove(connection, lease, port);
          if (outcome.type === "gone") return "again";
        }
      }
      strays.pop();
    }
    return "done";
  }

  // ---- Making a mapping --------------------------------------------------------------------

  *#make(job: Job, lease: IgdLease, ask: Ask): Steps<Ending> {
    const { connection, firewall } = this.#igd!;
    if (!connection) return yield* this.#makePinhole(job, lease, firewall!);
    const isHeld = ask === "renew";
    const isTold = isHeld && this.#subscription.works && this.#hasAddress;
    if (!isTold && this.now - this.#addressAt > ADDRESS_AGE_MS) {
      const outcome = yield* this.#call(connection, "GetExternalIPAddress", {});
      if (outcome.type === "gone") return "again";
      const address = outcome.type === "done" ? externalAddressOf(outcome.args) : undefined;
      if (address !== undefined) this.#heardAddress(address, false);
      if (job.isCancelled) return "done";
    }
    const version = versionOf(connection);
    const { wanted } = lease;
    const ports = this.#wishes(lease);
    let port = ports.next().value;
    let look: Look = { holder: "unknown", leaseSeconds: 0 };
    let lookedAt: number | undefined;
    let seconds = this.#leaseSeconds(lease, version);
    let failure: Failure = this.#refusal(IGD_ERROR.ConflictInMappingEntry);
    let hasReplaced = false;
    const mayChange = !wanted.preferFailure;
    // Version 2 gives no host what another has: there a renewal need not look first whose it is.
    let isSure = isHeld && version >= 2 && this.#habits.extendsLeases === true;
    let mayAskAny = version >= 2 && mayChange && !isHeld;

    for (let adds = 0; adds < MAX_ADDS && port !== undefined;) {
      if (!isSure && lookedAt !== port) {
        const seen = this.#isTaken(lease, port)
          ? { holder: "other", leaseSeconds: 0 } as const
          : yield* this.#look(connection, lease, port);
        if (job.isCancelled) return "done";
        if (seen === "gone") return "again";
        if (seen === "silent") {
          failure = { kind: "no-answer" };
          break;
        }
        look = seen;
        lookedAt = port;
      }
      if (look.holder === "other") {
        failure = this.#refusal(IGD_ERROR.ConflictInMappingEntry);
        port = mayChange ? ports.next().value : undefined;
        adds++;
        continue;
      }
      if (mayAskAny && !this.#habits.lacksAny) {
        mayAskAny = false;
        const outcome = yield* this.#add(connection, "AddAnyPortMapping", lease, port, seconds);
        const given = outcome.type === "done" ? reservedPort(outcome.args, port) : undefined;
        if (given !== undefined) {
          if (given !== port) this.#madeOf(lease).ports.delete(port);
          return this.#granted(job, lease, ask, given, seconds, 0, version);
        }
        if (job.isCancelled) return "done";
        if (outcome.type === "gone") return "again";
        // Some take their time with it, or for ever (quirk 51).
        if (outcome.type !== "error" || isMissingAction(outcome.code)) this.#habits.lacksAny = true;
        if (outcome.type === "silent") {
          this.#failed(job, lease, { kind: "no-answer" });
          return "done";
        }
      }
      if (isHeld && look.holder === "we" && this.#habits.extendsLeases === false && !hasReplaced) {
        hasReplaced = true;
        const outcome = yield* this.#remove(connection, lease, port);
        if (job.isCancelled) return "done";
        if (outcome.type === "gone") return "again";
      }
      const outcome = yield* this.#add(connection, "AddPortMapping", lease, port, seconds);
      adds++;
      if (outcome.type === "done") {
        return this.#granted(job, lease, ask, port, seconds, look.leaseSeconds, version);
      }
      if (job.isCancelled) return "done";
      if (outcome.type === "gone") return "again";
      if (outcome.type === "silent") {
        failure = { kind: "no-answer" };
        break;
      }
      if (outcome.type === "nonsense") {
        // The table tells what came of it.
        const seen = yield* this.#look(connection, lease, port);
        if (typeof seen === "object" && seen.holder === "we") {
          return this.#granted(job, lease, ask, port, seconds, look.leaseSeconds, version);
        }
        if (job.isCancelled) return "done";
        failure = unanswered(outcome);
        // Some hang up on who asks for a port that they keep (quirk 58).
        if (port >= FIRST_CHOSEN_PORT) break;
        port = mayChange ? ports.next().value : undefined;
        continue;
      }
      const { code } = outcome;
      failure = this.#refusal(code);
      const isConflict = CONFLICTS.includes(code);
      if (isSure && isConflict) {
        isSure = false;
        continue;
      }
      if (look.holder === "we" && isConflict && !hasReplaced) {
        // It is ours, and yet in our way (quirk 47).
        hasReplaced = true;
        const removed = yield* this.#remove(connection, lease, port);
        if (job.isCancelled) return "done";
        if (removed.type === "gone") return "again";
      } else if (seconds > 0 && NO_LEASES.includes(code)) seconds = 0;
      else if (code === IGD_ERROR.SamePortValuesRequired) {
        const same = wanted.internalPort;
        port = mayChange && port !== same ? same : undefined;
      } else if (
        isConflict || code === UPNP_ERROR.ActionFailed ||
        (code === UPNP_ERROR.ActionNotAuthorized && port < FIRST_CHOSEN_PORT)
      ) {
        port = mayChange ? ports.next().value : undefined;
        seconds = this.#leaseSeconds(lease, version);
      } else break;
    }
    this.#failed(job, lease, failure);
    return "done";
  }

  /** Whether another mapping of this client may have an external port: a device would replace it. */
  #isTaken(lease: IgdLease, port: number): boolean {
    return this.keeper.all().some((other) =>
      other !== lease && other.wanted.protocol === lease.wanted.protocol &&
      this.#made.get(other)?.ports.has(port) === true
    );
  }

  /** The external ports to try: what it had, what is wished, what the internal one is, any. */
  *#wishes({ wanted, remembered }: IgdLease): Generator<number, undefined> {
    const { suggestedPort, internalPort, preferFailure } = wanted;
    if (preferFailure) {
      yield suggestedPort;
      return undefined;
    }
    const tried = new Set<number>([0]);
    for (const port of [remembered?.port ?? 0, suggestedPort, internalPort]) {
      if (tried.has(port)) continue;
      tried.add(port);
      yield port;
    }
    for (;;) {
      const port = FIRST_CHOSEN_PORT + below(this.#random, 65_536 - FIRST_CHOSEN_PORT);
      if (!tried.has(port)) yield port;
      tried.add(port);
    }
  }

  /** The lease to ask for: 0 for one without an end. */
  #leaseSeconds(lease: IgdLease, version: number): number {
    if (this.#habits.onlyPermanent) return 0;
    const seconds = lease.lifetimeToAsk(this.now);
    return version >= 2 ? Math.min(seconds, IGD2_MAX_LEASE_SECONDS) : seconds;
  }

  *#add(
    connection: ServiceAt,
    action: "AddPortMapping" | "AddAnyPortMapping",
    lease: IgdLease,
    port: number,
    seconds: number,
  ): Steps<Outcome> {
    const { wanted } = lease;
    const { ports } = this.#madeOf(lease);
    const wasThere = ports.has(port);
    ports.add(port);
    lease.sentRevision = lease.revision;
    const until = seconds === 0 ? Infinity : this.now + seconds * 1000;
    lease.mayExistUntil = Math.max(lease.mayExistUntil, until);
    const outcome = yield* this.#call(connection, action, {
      ...subjectOf(wanted, port),
      NewInternalPort: String(wanted.internalPort),
      NewInternalClient: withoutZone(this.#local),
      NewEnabled: "1",
      NewPortMappingDescription: descriptionOf(wanted.description),
      NewLeaseDuration: String(seconds),
    });
    if (outcome.type === "error" && !wasThere) ports.delete(port);
    return outcome;
  }

  *#remove(connection: ServiceAt, { wanted }: IgdLease, port: number): Steps<Outcome> {
    return yield* this.#call(connection, "DeletePortMapping", subjectOf(wanted, port));
  }

  #granted(
    job: Job,
    lease: IgdLease,
    ask: Ask,
    port: number,
    seconds: number,
    leftBefore: number,
    version: number,
  ): Ending {
    this.#madeOf(lease).ports.add(port);
    // One that was withdrawn is told all the same; one that was revoked is deleted by its own job.
    const isTold = !job.isCancelled || (lease.isWithdrawn && this.keeper.get(lease.id) === lease);
    if (!isTold || lease.phase === "deleting") return "done";
    const isPermanent = seconds === 0 && version < 2;
    if (seconds === 0) this.#habits.onlyPermanent = true;
    const lifetimeSeconds = isPermanent
      ? MAX_LIFETIME_SECONDS
      : seconds === 0
      ? IGD2_MAX_LEASE_SECONDS
      : seconds;
    const external = { address: this.#address!, port };
    this.keeper.granted(lease, { external, lifetimeSeconds, isPermanent }, this.now);
    this.#sweep(lease, port);
    const isKnown = ask === "renew" && this.#habits.extendsLeases !== undefined;
    if (this.#habits.showsTable !== false && !isKnown && !lease.request) {
      this.#verify(lease, ask, port, seconds, leftBefore);
    } else this.#hasSettled = true;
    return "done";
  }

  // ---- Reading back ------------------------------------------------------------------------

  /** Looks whether what was granted is in the table, and for how long. */
  #verify(
    lease: IgdLease,
    ask: Ask,
    port: number,
    seconds: number,
    leftBefore: number,
  ): void {
    const isStill = () =>
      this.keeper.get(lease.id) === lease && lease.isGranted && lease.phase !== "deleting" &&
      lease.grant!.external.port === port;
    const readBack = () => this.#readBack(lease, ask, port, seconds, leftBefore, isStill);
    this.#queue.add({
      name: `verify ${lease.key}`,
      isOptional: true,
      run: () => this.#settling(readBack()),
      fail: () => {
        this.#hasSettled = true;
      },
    });
  }

  *#settling(steps: Steps<Ending>): Steps<Ending> {
    const ending = yield* steps;
    this.#hasSettled ||= ending === "done";
    return ending;
  }

  *#readBack(
    lease: IgdLease,
    ask: Ask,
    port: number,
    seconds: number,
    leftBefore: number,
    isStill: () => boolean,
  ): Steps<Ending> {
    const { connection } = this.#igd!;
    if (!isStill() || !connection) return "done";
    const grantedAt = lease.grantedAt;
    let look = yield* this.#look(connection, lease, port);
    // Where GetSpecificPortMappingEntry does not know it, the whole table may.
    if (typeof look === "object" && look.holder === "nobody" && !this.#habits.showsTable) {
      const entries = yield* this.#entries(connection);
      if (entries === "gone") return "again";
      const isListed = typeof entries === "object" &&
        entries.some((entry) => entry.externalPort === port && this.#isOurs(entry, lease.wanted));
      if (isListed || typeof entries === "string") look = { holder: "unknown", leaseSeconds: 0 };
    }
    if (!isStill() || lease.grantedAt !== grantedAt || typeof look === "string") return "done";
    switch (look.holder) {
      case "unknown":
        this.#habits.showsTable = false;
        break;
      case "we":
        this.#habits.showsTable = true;
        this.#believe(lease, ask, seconds, look.leaseSeconds, leftBefore);
        break;
      case "other":
        this.#replaced(lease);
        break;
      case "nobody": {
        // It said yes and did nothing (quirk 48: the table is full).
        const failure = this.#refusal(IGD_ERROR.NoSuchEntryInArray, SHORT_REFUSAL_MS);
        const retryAt = this.now + SHORT_REFUSAL_MS;
        this.keeper.gone(lease, failure, retryAt, this.now);
        // Or it has begun anew since then.
        if (grantedAt <= this.#doubtedAt) this.keeper.hasten(lease, this.now);
      }
    }
    return "done";
  }

  /** Another host, or another program of this one, has its port by now. */
  #replaced(lease: IgdLease): void {
    this.#madeOf(lease).ports.delete(lease.grant!.external.port);
    const failure = this.#refusal(IGD_ERROR.ConflictInMappingEntry);
    this.keeper.gone(lease, failure, undefined, this.now);
  }

  /** Takes what the table says of the lease. */
  #believe(
    lease: IgdLease,
    ask: Ask,
    asked: number,
    left: number,
    leftBefore: number,
  ): void {
    // 0 means no end, or that the router does not tell (quirk 45).
    if (left === 0 || asked === 0) return;
    lease.mayExistUntil = Math.max(lease.mayExistUntil, this.now + left * 1000);
    if (left >= asked - LEASE_SLACK_SECONDS) {
      if (ask === "renew") this.#habits.extendsLeases = true;
      return;
    }
    const { grant } = lease;
    if (ask === "renew" && left <= leftBefore) {
      this.#habits.extendsLeases = false;
      this.keeper.granted(lease, { ...grant!, lifetimeSeconds: left }, this.now);
      this.keeper.askAgain(lease, this.now);
      return;
    }
    this.keeper.granted(lease, { ...grant!, lifetimeSeconds: left }, this.now);
  }

  /** Who has an external port, as the table tells. */
  *#look(
    connection: ServiceAt,
    { wanted }: IgdLease,
    port: number,
  ): Steps<Look | "gone" | "silent"> {
    if (this.#habits.showsTable === false) return { holder: "unknown", leaseSeconds: 0 };
    const subject = subjectOf(wanted, port);
    const outcome = yield* this.#call(connection, "GetSpecificPortMappingEntry", subject);
    if (outcome.type === "gone" || outcome.type === "silent") return outcome.type;
    if (outcome.type === "done") {
      const entry = entryOf({ ...subject, ...outcome.args });
      if (!entry) return { holder: "unknown", leaseSeconds: 0 };
      const { leaseSeconds } = entry;
      return { holder: this.#isOurs(entry, wanted) ? "we" : "other", leaseSeconds };
    }
    const isFree = outcome.type === "error" && outcome.code === IGD_ERROR.NoSuchEntryInArray;
    return { holder: isFree ? "nobody" : "unknown", leaseSeconds: 0 };
  }

  #isOurs({ internalClient, internalPort, protocol }: PortMappingEntry, wanted: Wanted): boolean {
    return canonicalAddress(internalClient) === withoutZone(this.#local) &&
      internalPort === wanted.internalPort && PROTOCOL_NUMBER[protocol] === wanted.protocol;
  }

  // ---- Deleting ----------------------------------------------------------------------------

  *#delete(job: Job, lease: IgdLease): Steps<Ending> {
    const { connection, firewall } = this.#igd!;
    if (!connection) return yield* this.#deletePinhole(job, lease, firewall!);
    const { ports } = this.#madeOf(lease);
    const isMade = ports.size > 0;
    const { suggestedPort, internalPort } = lease.wanted;
    const known = [...ports, ...(isMade ? [] : [lease.remembered?.port ?? suggestedPort])];
    let hasDeleted = false;
    let failure: Failure | undefined;
    let candidates = known.filter((port) => port > 0);
    const isNamed = candidates.length > 0;
    if (!isNamed) candidates = [internalPort];
    for (const port of candidates) {
      const look = yield* this.#look(connection, lease, port);
      if (look === "gone") return "again";
      if (look === "silent") {
        failure = { kind: "no-answer" };
        break;
      }
      // What a router does not show is deleted where this client, or an earlier one, made it.
      if (look.holder === "unknown" && !isNamed) {
        failure = this.#refusal(UPNP_ERROR.OptionalActionNotImplemented);
      }
      if (look.holder !== "we" && !(look.holder === "unknown" && isNamed)) continue;
      const outcome = yield* this.#remove(connection, lease, port);
      if (outcome.type === "gone") return "again";
      if (isDeleted(outcome)) {
        ports.delete(port);
        hasDeleted = true;
      } else failure = this.#failureOf(outcome);
    }
    if (!isMade && !hasDeleted && failure?.kind !== "no-answer") {
      const listed = yield* this.#deleteListed(connection, lease);
      if (listed === "gone") return "again";
      if (listed.hasDeleted || listed.failure) failure = listed.failure;
    }
    if (job.isCancelled) return "done";
    lease.request = undefined;
    this.keeper.deleted(lease, failure, this.now);
    return "done";
  }

  /** Deletes what the table has of this host's port, at whatever external one. */
  *#deleteListed(
    connection: ServiceAt,
    lease: IgdLease,
  ): Steps<{ readonly hasDeleted: boolean; readonly failure: Failure | undefined } | "gone"> {
    let hasDeleted = false;
    let failure: Failure | undefined;
    const entries = yield* this.#entries(connection);
    if (entries === "gone") return "gone";
    if (entries === "silent") failure = { kind: "no-answer" };
    for (const entry of typeof entries === "object" ? entries : []) {
      if (!this.#isOurs(entry, lease.wanted)) continue;
      const args = {
        NewRemoteHost: entry.remoteHost,
        NewExternalPort: String(entry.externalPort),
        NewProtocol: entry.protocol.toUpperCase(),
      };
      const outcome = yield* this.#call(connection, "DeletePortMapping", args);
      if (outcome.type === "gone") return "gone";
      if (isDeleted(outcome)) hasDeleted = true;
      else failure ??= this.#failureOf(outcome);
    }
    return { hasDeleted, failure };
  }

  // ---- The table ---------------------------------------------------------------------------

  *#list(
    tell: (entries: readonly PortMappingEntry[], failure?: Failure) => void,
    tellCount: (count: number) => void,
  ): Steps<Ending> {
    const { connection } = this.#igd!;
    if (!connection) {
      tell([], this.#refusal(UPNP_ERROR.OptionalActionNotImplemented));
      return "done";
    }
    const entries = yield* this.#entries(connection, tellCount);
    if (entries === "gone") return "again";
    if (entries === "silent") tell([], { kind: "no-answer" });
    else if (entries === "hidden") tell([], this.#refusal(UPNP_ERROR.ActionFailed));
    else tell(entries);
    return "done";
  }

  /**
   * The table, entry by entry. Not by GetListOfPortMappings, which an IGD:2 has for it: miniupnpd
   * 2.3.1 writes past its memory and dies where more than 128 ports of one transport are in the range
   * that is asked for, and nobody knows beforehand how many there are.
   */
  *#entries(
    connection: ServiceAt,
    tellCount?: (count: number) => void,
  ): Steps<readonly PortMappingEntry[] | "gone" | "silent" | "hidden"> {
    const entries: PortMappingEntry[] = [];
    for (let index = 0; index < MAX_ENTRIES; index++) {
      const args = { NewPortMappingIndex: String(index) };
      const outcome = yield* this.#call(connection, "GetGenericPortMappingEntry", args);
      if (outcome.type === "gone" || outcome.type === "silent") return outcome.type;
      if (outcome.type !== "done") {
        const isEmpty = outcome.type === "error" &&
          (outcome.code === IGD_ERROR.SpecifiedArrayIndexInvalid ||
            outcome.code === IGD_ERROR.NoSuchEntryInArray);
        // Whatever it says after the first one is its word for the end.
        return isEmpty || index > 0 ? entries : "hidden";
      }
      const entry = entryOf(outcome.args);
      if (entry) entries.push(entry);
      tellCount?.(index + 1);
    }
    return entries;
  }

  // ---- Pinholes ----------------------------------------------------------------------------

  *#makePinhole(job: Job, lease: IgdLease, firewall: ServiceAt): Steps<Ending> {
    const made = this.#madeOf(lease);
    const seconds = Math.min(lease.lifetimeToAsk(this.now), PINHOLE_MAX_LEASE_SECONDS);
    lease.sentRevision = lease.revision;
    lease.mayExistUntil = Math.max(lease.mayExistUntil, this.now + seconds * 1000);
    let outcome: Outcome | undefined;
    if (made.pinhole !== undefined) {
      const args = { UniqueID: String(made.pinhole), NewLeaseTime: String(seconds) };
      outcome = yield* this.#call(firewall, "UpdatePinhole", args);
      // Ids do not outlive a restart.
      if (outcome.type === "error") {
        made.pinhole = undefined;
        outcome = undefined;
      }
    }
    outcome ??= yield* this.#addPinhole(firewall, lease, seconds);
    if (outcome.type === "gone") return "again";
    const isOff = outcome.type === "error" && outcome.code === FIREWALL_ERROR.FirewallDisabled;
    // Where there is no firewall there is nothing to open.
    if (outcome.type === "done" || isOff) {
      const id = outcome.type === "done" ? readNumber(outcome.args["UniqueID"]) : undefined;
      made.pinhole = id ?? made.pinhole;
      const isTold = !job.isCancelled ||
        (lease.isWithdrawn && this.keeper.get(lease.id) === lease);
      if (!isTold || lease.phase === "deleting") return "done";
      const external = { address: this.#local, port: lease.wanted.internalPort };
      this.keeper.granted(lease, { external, lifetimeSeconds: seconds }, this.now);
      this.#hasSettled = true;
      return "done";
    }
    this.#failed(job, lease, this.#failureOf(outcome)!);
    return "done";
  }

  *#addPinhole(firewall: ServiceAt, { wanted }: IgdLease, seconds: number): Steps<Outcome> {
    const [filter] = wanted.filters;
    return yield* this.#call(firewall, "AddPinhole", {
      RemoteHost: filter?.prefix.address ?? "",
      RemotePort: String(filter?.port ?? 0),
      InternalClient: this.#local,
      InternalPort: String(wanted.internalPort),
      Protocol: String(wanted.protocol),
      LeaseTime: String(seconds),
    });
  }

  *#deletePinhole(job: Job, lease: IgdLease, firewall: ServiceAt): Steps<Ending> {
    const made = this.#madeOf(lease);
    let outcome: Outcome = { type: "done", args: {} };
    if (made.pinhole === undefined) {
      // The same request again answers with the id that it has.
      outcome = yield* this.#addPinhole(firewall, lease, SHORT_PINHOLE_SECONDS);
      if (outcome.type === "gone") return "again";
      if (outcome.type === "done") made.pinhole = readNumber(outcome.args["UniqueID"]);
    }
    if (made.pinhole !== undefined) {
      const UniqueID = String(made.pinhole);
      outcome = yield* this.#call(firewall, "DeletePinhole", { UniqueID });
      if (outcome.type === "gone") return "again";
    }
    if (job.isCancelled) return "done";
    const isGone = outcome.type === "error" &&
      (outcome.code === FIREWALL_ERROR.NoSuchEntry ||
        outcome.code === FIREWALL_ERROR.FirewallDisabled);
    if (outcome.type === "done" || isGone) made.pinhole = undefined;
    lease.request = undefined;
    this.keeper.deleted(lease, isGone ? undefined : this.#failureOf(outcome), this.now);
    return "done";
  }

  // ---- Small things ------------------------------------------------------------------------

  #refusal(code: number, restMs?: number): Failure {
    const rest = restMs ?? (SHORT_CODES.includes(code) ? SHORT_REFUSAL_MS : LONG_REFUSAL_MS);
    return { kind: "refused", code, name: upnpErrorName(code), retryAt: this.now + rest };
  }

  /** What an outcome says went wrong; undefined where nothing did. */
  #failureOf(outcome: Outcome): Failure | undefined {
    switch (outcome.type) {
      case "done":
        return undefined;
      case "error":
        return this.#refusal(outcome.code);
      default:
        return unanswered(outcome);
    }
  }

  #dropped(reason: keyof IgdClientStats["dropped"]): false {
    this.stats.dropped[reason]++;
    return false;
  }
}

/** Whether an entry is in the table no more. */
function isDeleted(outcome: Outcome): boolean {
  return outcome.type === "done" ||
    (outcome.type === "error" && outcome.code === IGD_ERROR.NoSuchEntryInArray);
}

/** Which version of its service a connection is: 1 or 2. */
function versionOf({ serviceType }: ServiceAt): number {
  return igdService(serviceType)!.version;
}

function newHabits(): Habits {
  return {
    onlyPermanent: false,
    lacksAny: false,
    showsTable: undefined,
    extendsLeases: undefined,
  };
}

/** Whether what was granted was not in the table. */
function hasVanished({ failure }: IgdLease): boolean {
  return failure?.kind === "refused" && failure.code === IGD_ERROR.NoSuchEntryInArray;
}

function isMissingAction(code: number): boolean {
  return code === UPNP_ERROR.InvalidAction || code === UPNP_ERROR.OptionalActionNotImplemented;
}

/** What names an entry of the table, in the order in which devices want it. */
function subjectOf({ protocol, filters }: Wanted, port: number): Record<string, string> {
  return {
    NewRemoteHost: filters[0]?.prefix.address ?? "",
    NewExternalPort: String(port),
    NewProtocol: protocol === PROTOCOL_NUMBER.tcp ? "TCP" : "UDP",
  };
}

/** A text that routers take: short, and of ASCII. */
function descriptionOf(text: string | undefined): string {
  const plain = (text ?? "").replace(/[^\x20-\x7e]+/g, "?").slice(0, MAX_DESCRIPTION).trim();
  return plain === "" ? DEFAULT_DESCRIPTION : plain;
}

/** The port in the answer to AddAnyPortMapping, whatever it is called there (quirk 51). */
function reservedPort(args: Readonly<Record<string, string>>, asked: number): number | undefined {
  const text = args["NewReservedPort"] ?? args["NewExternalPort"];
  if (text === undefined) return asked;
  const port = readNumber(text);
  return port !== undefined && port >= 1 && port <= 65_535 ? port : undefined;
}

function readNumber(text: string | undefined): number | undefined {
  return text !== undefined && /^\s*\d{1,10}\s*$/.test(text) ? Number(text) : undefined;
}

/** An entry of the table; undefined where it is none. */
function entryOf(args: Readonly<Record<string, string>>): PortMappingEntry | undefined {
  const externalPort = readNumber(args["NewExternalPort"]);
  const internalPort = readNumber(args["NewInternalPort"]);
  const protocol = (args["NewProtocol"] ?? "").trim().toLowerCase();
  if (externalPort === undefined || internalPort === undefined) return undefined;
  if (protocol !== "tcp" && protocol !== "udp") return undefined;
  return {
    protocol,
    externalPort,
    remoteHost: args["NewRemoteHost"] ?? "",
    internalClient: args["NewInternalClient"] ?? "",
    internalPort,
    isEnabled: args["NewEnabled"] !== "0",
    description: args["NewPortMappingDescription"] ?? "",
    leaseSeconds: readNumber(args["NewLeaseDuration"]) ?? 0,
  };
}
