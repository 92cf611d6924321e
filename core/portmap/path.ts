/**
 * One gateway, as this host sends to it: its socket, the clients of the protocols spoken there, and
 * which of them a datagram is for.
 *
 * A version-0 answer to a PCP request is a "no" to PCP, a version-2 answer to a NAT-PMP
 * request one to NAT-PMP. Each client knows what it has asked; the preferred one looks first.
 *
 * @module
 */
import type { Via } from "../errors.ts";
import type {
  Action,
  DebugTimeout,
  Endpoint,
  Instant,
  SocketResult,
  SocketSpec,
} from "../machine.ts";
import type { Failure, MappingId, MappingKey, Transport } from "../mapping.ts";
import type { RandomSource } from "../random.ts";
import type { ClientEvent, MakeClient, MappingClient } from "./client.ts";
import { defaultProtocols, isAnnouncement, PROTOCOLS } from "./protocols.ts";
import { earliest } from "../timers.ts";
import { announcementSocket } from "./gateway.ts";

/** For how long the "no" to a request may be under way. */
const LATE_NO_MS = 10_000;
/** How long one client's word that the gateway restarted is not passed on to the same other one. */
const CHECK_EVERY_MS = 5000;
/** How long a socket that failed is left alone. */
const SOCKET_REST_MS = 5000;

/** A way to a gateway, as discovery found it. */
export interface NetworkPath {
  /** The gateway. */
  readonly gateway: Endpoint;
  /** The address to send from. Default: the system's choice. */
  readonly localAddress?: string;
  /**
   * What tells this way from another one to the same gateway, such as the address that the system
   * would choose: where it changes, the socket is opened anew. Where it was not told at first it is
   * the address from which the socket turned out to send.
   */
  readonly way?: string;
  /** The name of the interface towards it, which announcements over IPv6 need. */
  readonly interface?: string;
  /** Whether the application named this gateway: then nobody else is taken for it. */
  readonly isNamed?: boolean;
}

/** Where a path leads to a gateway beyond another one, which translates on the way. */
export interface Behind {
  /** The way to the inner gateway. */
  readonly path: Path;
  /** The address under which the outer one knows this host: the inner one's external address. */
  readonly address: string;
}

/** What the paths of one mapper have in common. */
export interface PathOptions {
  /** Nonces and jitter. */
  readonly random: RandomSource;
  /** What may be spoken. Default: by the local address. */
  readonly protocols?: readonly Via[] | undefined;
  /** Whether to listen for announcements. */
  readonly announcements: boolean;
  /** Whether first requests are sent again early. */
  readonly fastStart: boolean;
  /** Whether an address is one of this host's gateways. */
  readonly isGateway: (address: string) => boolean;
  /** Makes UPnP's client; `"late"` where it is not loaded yet, undefined where it is not spoken. */
  upnp: MakeClient | "late" | undefined;
}

/** What clients list that have no sockets of their own. */
const NONE: readonly SocketSpec[] = [];

/** One protocol's client at one gateway, and what the mapper has asked of it. */
export class Speaker {
  readonly path: Path;
  readonly client: MappingClient;
  /** What the mapper's ids of the client's mappings are. */
  readonly managed: Map<MappingId, MappingId> = new Map();
  /** What was held when its gateway was left: nobody waits for its deletion. */
  readonly parting: Map<MappingId, MappingKey> = new Map();
  /** Who waits for all mappings of a transport to be deleted. */
  readonly removingAll: Map<Transport, Set<MappingId>> = new Map();
  /** Who waits for the answer to its probe. */
  readonly probing: Set<MappingId> = new Set();
  /** Since when its probe is on its way. */
  probedAt: Instant | undefined;
  /** When its last request left. */
  sentAt: Instant = -Infinity;
  /** How many of its client's nonces have left. */
  nonces = 0;
  /** When it was last asked whether its mappings are there still. */
  checkedAt: Instant = -Infinity;
  /** What the client listed last, and what that is to the world. */
  #own: {
    readonly listed: readonly SocketSpec[];
    readonly prefix: string;
    readonly sockets: readonly SocketSpec[];
  } | undefined;

  constructor(path: Path, client: MappingClient) {
    this.path = path;
    this.client = client;
  }

  /** The protocol. */
  get via(): Via {
    return this.client.via;
  }

  /** The sockets that are the client's own, by keys that are no other's: the same list of the same. */
  sockets(): readonly SocketSpec[] {
    const own = this.client.sockets?.() ?? NONE;
    const prefix = this.#keyPrefix;
    if (this.#own?.listed !== own || this.#own.prefix !== prefix) {
      const sockets = own.map((spec) => ({ ...spec, key: `${prefix}${spec.key}` }));
      this.#own = { listed: own, prefix, sockets };
    }
    return this.#own.sockets;
  }

  /** The client's own key of one of its sockets; undefined where it is another's. */
  ownKey(key: string): string | undefined {
    const prefix = this.#keyPrefix;
    return key.startsWith(prefix) ? key.slice(prefix.length) : undefined;
  }

  /** The key by which the world knows a socket that the client sends by. */
  worldKey(own: string): string {
    return own === "client" ? this.path.key : `${this.#keyPrefix}${own}`;
  }

  get #keyPrefix(): string {
    return `${this.path.key}, ${this.via} `;
  }

  /** Asks something that changes nothing, unless that is on its way. */
  probe(now: Instant): void {
    if (this.probedAt !== undefined) return;
    this.probedAt = now;
    this.client.probe(now);
  }

  /** Takes the question back. */
  endProbe(now: Instant): void {
    if (this.probedAt === undefined) return;
    this.probedAt = undefined;
    this.client.endProbe(now);
  }
}

/** Why nothing can be sent by a path. */
export interface PathFailure {
  readonly code: "permission" | "network";
  readonly message: string;
}

/** A gateway and its clients. */
export class Path {
  /** What counters are listed by: the same for each way there. */
  readonly name: string;
  /** The key of its socket to the gateway: another one for each way there. */
  key: string;
  readonly gateway: Endpoint;
  /** The clients, the preferred one first; none until the socket is open. */
  speakers: Speaker[] = [];
  /** This host's end of the socket to the gateway. */
  local: Endpoint | undefined;
  /** Why its socket could not be had, or what was sent did not leave. */
  failure: PathFailure | undefined;
  /** Until when deletions are waited for, where the gateway is not this host's any more. */
  leavingUntil: Instant | undefined;
  /** When a socket that could not be had is wanted again. */
  #restsUntil: Instant | undefined;
  /** Set where another gateway stands before this one. */
  readonly behind: Behind | undefined;
  readonly #announcementsKey: string;
  readonly #options: PathOptions;
  /** Its socket is to be opened at another address: what is asked before that is from none. */
  isMoving = false;
  #spec: NetworkPath;
  #ways = 1;
  /** The sockets that were wanted last, and what they go by. */
  #wanted: {
    readonly spec: NetworkPath | undefined;
    readonly hearsAt: string | undefined;
    readonly own: readonly (readonly SocketSpec[])[];
    readonly sockets: readonly SocketSpec[];
  } | undefined;

  constructor(id: number, spec: NetworkPath, options: PathOptions, behind?: Behind) {
    this.behind = behind;
    this.name = this.key = `gateway ${id}`;
    this.#announcementsKey = `announcements ${id}`;
    this.gateway = spec.gateway;
    this.#spec = spec;
    this.#options = options;
  }

  /** Takes what discovery says of it now. */
  update(spec: NetworkPath): void {
    // Where nothing was said of the way before, the socket has said it.
    const before = this.#spec.way ?? (spec.way === undefined ? undefined : this.local?.address);
    const isOtherWay = before === undefined ? false : spec.way !== before;
    if (isOtherWay) this.key = `${this.name} way ${++this.#ways}`;
    const { localAddress } = spec;
    // What could not be had was another socket.
    if (isOtherWay || localAddress !== this.#spec.localAddress) {
      this.failure = this.#restsUntil = undefined;
    }
    const isElsewhere = this.local !== undefined && localAddress !== undefined &&
      localAddress !== this.local.address;
    // One that named no address waits on for its socket; one that came back has it.
    this.isMoving = isOtherWay || isElsewhere || (this.isMoving && localAddress === undefined);
    this.#spec = spec;
    this.leavingUntil = undefined;
  }

  /** Whether the gateway is not this host's any more: it is kept until deletions are done. */
  get isLeft(): boolean {
    return this.leavingUntil !== undefined;
  }

  /** The sockets that it wants: the same list as long as it wants the same. */
  sockets(): readonly SocketSpec[] {
    const spec = this.#restsUntil === undefined ? this.#spec : undefined;
    const hears = this.#options.announcements && !this.isLeft;
    const hearsAt = hears ? this.local?.address : undefined;
    const before = this.#wanted;
    const own = this.speakers.map((speaker) => speaker.sockets());
    const isSame = before?.spec === spec && before?.hearsAt === hearsAt &&
      before?.own.length === own.length && own.every((list, i) => list === before.own[i]);
    if (before && isSame) return before.sockets;
    const sockets = [
      ...spec ? this.#list(spec) : [],
      ...own.flat(),
      // First things first: nobody waits for announcements.
      ...spec && hearsAt !== undefined ? [this.#listening(spec, hearsAt)] : [],
    ];
    this.#wanted = { spec, hearsAt, own, sockets };
    return sockets;
  }

  #list({ localAddress }: NetworkPath): SocketSpec[] {
    const connect = this.gateway;
    const local = localAddress === undefined ? {} : { local: { address: localAddress, port: 0 } };
    return [{ key: this.key, connect, ...local }];
  }

  #listening({ interface: name }: NetworkPath, local: string): SocketSpec {
    return announcementSocket(this.#announcementsKey, this.gateway, local, name);
  }

  /** Its socket is open: makes the clients; or, true, tells them that this host has another address. */
  opened({ address, port }: Endpoint, now: Instant): boolean {
    const before = this.local?.address;
    // The source of a translated request is the translator's address: so PCP must say, too.
    const local = { address: this.behind?.address ?? address, port };
    this.local = local;
    this.failure = this.#restsUntil = undefined;
    this.isMoving = false;
    if (this.speakers.length === 0) {
      const { random, protocols, fastStart, announcements, isGateway, upnp } = this.#options;
      const spoken = protocols ?? defaultProtocols(local.address);
      for (const [via, protocol] of Object.entries(PROTOCOLS)) {
        if (!spoken.includes(via as Via) || (via === "upnp" && !upnp)) continue;
        const options = {
          gateway: this.gateway,
          localAddress: local.address,
          random,
          fastStart,
          interface: this.#spec.interface,
          isNamed: this.#spec.isNamed ?? false,
          announcements,
          isOtherGateway: (address: string) =>
            address !== this.gateway.address && isGateway(address),
        };
        const client = protocol.make(options, upnp === "late" ? undefined : upnp);
        if (client) this.speakers.push(new Speaker(this, client));
      }
      return false;
    }
    if (before === local.address) return false;
    for (const { client } of this.speakers) client.networkChanged(local.address, now);
    return true;
  }

  /** Its socket could not be had: it is wanted again in a while. */
  failed({ code, message, isOpen }: SocketResult & { ok: false }, now: Instant): void {
    this.failure = { code, message };
    if (!isOpen) this.#restsUntil = now + SOCKET_REST_MS;
  }

  /** Forgets that something did not leave; a socket that could not be had rests first. */
  tryAgain(): void {
    if (this.#restsUntil === undefined) this.failure = undefined;
  }

  /** Whether nothing of it is left to do. */
  get isIdle(): boolean {
    return this.speakers.every(({ client }) => client.isIdle);
  }

  /** Whose own socket it is, and its key there; undefined for those that all share. */
  ownerOf(key: string): { readonly speaker: Speaker; readonly key: string } | undefined {
    for (const speaker of this.speakers) {
      const own = speaker.ownKey(key);
      if (own !== undefined) return { speaker, key: own };
    }
    return undefined;
  }

  /** Whether a socket is one of those that it wants. */
  hasSocket(key: string): boolean {
    return key === this.key || key === this.#announcementsKey;
  }

  /** Whether a datagram may be its word that it has begun anew, and is no answer to a question. */
  isWord(data: Uint8Array, socket: string): boolean {
    return isAnnouncement(data) && (socket === this.#announcementsKey ||
      this.speakers.every(({ probedAt }) => probedAt === undefined));
  }

  /** Feeds a datagram of this gateway to the client whose it is. */
  handleDatagram(data: Uint8Array, from: Endpoint, socket: string, now: Instant): boolean {
    // It has got through: what failed before was in passing.
    this.failure = undefined;
    const isWord = this.isWord(data, socket);
    const index = this.speakers.findIndex((speaker, i) =>
      speaker.client.handleDatagram(data, from, socket, now) ||
      (i === 0 && this.#isLateNo(data, now))
    );
    const taker = this.speakers[index];
    // Who holds mappings by another protocol looks whether they are there still.
    if (isWord) this.#checkOthers(taker, now);
    return taker !== undefined || isAnnouncement(data);
  }

  /** The gateway lost its table, says one client: the others ask it. */
  restarted(by: Speaker, now: Instant): void {
    this.#checkOthers(by, now);
  }

  handleUnreachable(to: Endpoint, socket: string, now: Instant): void {
    for (const { client } of this.speakers) client.handleUnreachable(to, socket, now);
  }

  /** UPnP's client is loaded, or could not be. */
  codeTold(code: MakeClient | Failure, now: Instant): void {
    for (const { client } of this.speakers) client.codeTold?.(code, now);
  }

  handleTimeout(now: Instant): void {
    if ((this.#restsUntil ?? Infinity) <= now) this.#restsUntil = undefined;
    for (const { client } of this.speakers) client.handleTimeout(now);
  }

  debugTimeout(): DebugTimeout | undefined {
    const own = (at: Instant | undefined, what: string) =>
      at === undefined ? undefined : { at, reason: `${this.key}: ${what}` };
    return earliest(
      own(this.leavingUntil, "leave"),
      own(this.#restsUntil, "open anew"),
      ...this.speakers.map(({ client }) => client.debugTimeout()),
    );
  }

  /** Takes out what the clients have to send and to tell. */
  drain(
    act: (
      speaker: Speaker,
      action: Exclude<Action<ClientEvent>, { readonly type: "event" }>,
    ) => void,
    tell: (speaker: Speaker, event: ClientEvent) => void,
    now: Instant,
  ): void {
    for (let isDone = false; !isDone;) {
      isDone = true;
      for (const speaker of this.speakers) {
        const { client } = speaker;
        for (let action = client.poll(); action; action = client.poll()) {
          isDone = false;
          if (action.type === "event") tell(speaker, action.event);
          else {
            speaker.sentAt = now;
            act(speaker, action);
          }
        }
      }
    }
  }

  #checkOthers(taker: Speaker | undefined, now: Instant): void {
    for (const speaker of this.speakers) {
      if (speaker === taker || speaker.managed.size === 0) continue;
      // The answer may be another such word: two clients must not ask each other for ever.
      if (now - speaker.checkedAt < CHECK_EVERY_MS) continue;
      speaker.checkedAt = now;
      if (speaker.client.check) speaker.client.check(now);
      else speaker.probe(now);
    }
  }

  /**
   * One "no" to PCP ends all its requests, yet each of them is answered by one. Those that
   * come after it are not about NAT-PMP, which may have asked by then. With opcode 0 it is about
   * NAT-PMP's question for the address.
   */
  #isLateNo(data: Uint8Array, now: Instant): boolean {
    const isNo = data[0] === 0 && data[1] !== 0x80 && data[2] === 0 && data[3] === 1;
    const [first] = this.speakers;
    return isNo && first?.via === "pcp" && now - first.sentAt < LATE_NO_MS;
  }
}
