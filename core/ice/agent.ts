/**
 * A full ICE agent for one UDP flow (RFC 8445; trickle, RFC 8838; consent, RFC 7675) as a machine:
 * it gathers candidates over its own sockets, checks pairs with the peer, agrees on one and keeps it
 * alive. Any ICE stack can be at the other end. Two natkits start faster, and get through a NAT that
 * gives each destination another port (`probing.ts`).
 *
 * Only STUN that is authenticated by the password of a ticket is believed. Whatever else arrives is
 * not this machine's: `handleDatagram` answers false, and the application gets it.
 *
 * @module
 */
import { copyBytes } from "../bytes.ts";
import { checkAddress, checkInteger } from "../check.ts";
import { classify, isPrivate } from "../cidr.ts";
import { familyOf, formatEndpoint, isSameEndpoint } from "../ip.ts";
import type {
  Action,
  DebugTimeout,
  Endpoint,
  Instant,
  Machine,
  SocketResult,
  SocketSpec,
} from "../machine.ts";
import { Outbox } from "../outbox.ts";
import { type RandomSource, uniform } from "../random.ts";
import {
  decodeStun,
  encodeStun,
  hasIntegrity,
  isStun,
  STUN_ERROR,
  STUN_METHOD,
  type StunAttributes,
  type StunMessage,
  transactionKey,
  unknownRequired,
} from "../stun/codec.ts";
import { shortTermKey } from "../stun/integrity.ts";
import type { TurnEvent } from "../stun/turn.ts";
import { earliest, Timers } from "../timers.ts";
import {
  type Candidate,
  candidatePriority,
  canPair,
  Foundations,
  isSameCandidate,
  NAT_ASSISTED_PREFERENCE,
  typePreference,
  whyUnreachable,
} from "./candidate.ts";
import { type Base, CheckList, type Pair } from "./check_list.ts";
import { isRelayKey, Relays, type RelayServer } from "./relays.ts";
import {
  AHEAD,
  behaviourOf,
  isHard,
  type Observation,
  planProbing,
  PortSequence,
  type ProbingPlan,
  stepOf,
  wrap,
} from "./probing.ts";
import {
  checkPublic,
  createRendezvous,
  MAX_CANDIDATES,
  type NatHint,
  type PublicRendezvous,
  randomTieBreaker,
  type Rendezvous,
} from "./ticket.ts";

/** Who decides which pair is used (RFC 8445 §6.1.1). */
export type IceRole = "controlling" | "controlled";

/** A socket that is open already; the agent lists it no more. */
export interface OwnSocket {
  /** Names it in `send` actions and in `handleDatagram`. */
  readonly key: string;
  /** Where it is bound: an address of this host, not the wildcard. */
  readonly local: Endpoint;
}

/** How an {@linkcode IceAgent} works. */
export interface IceAgentOptions {
  /** Unguessable: it makes the password and the transaction ids. */
  readonly random: RandomSource;
  /** The addresses of this host to listen at, best first. */
  readonly hosts?: readonly string[];
  /** The port to listen at; 0 (the default) takes a free one at each address. */
  readonly port?: number;
  /** Sockets that are open already. */
  readonly sockets?: readonly OwnSocket[];
  /** STUN servers that tell what this host looks like from outside. */
  readonly servers?: readonly Endpoint[];
  /** TURN servers: what goes by them reaches every peer, and is the last that is tried. */
  readonly relays?: readonly RelayServer[];
  /** The role to begin with; by default the two tickets decide, or it is controlling. */
  readonly role?: IceRole;
  /**
   * From one check to the next, milliseconds, 5 or more (RFC 8445 §14.2). Default 5; with a peer
   * that asks for none 50.
   */
  readonly pacingMs?: number;
  /** How long servers are waited for, milliseconds. Default 3000. */
  readonly gatherTimeoutMs?: number;
  /** How long the peer is tried, milliseconds. Default 30,000. */
  readonly timeoutMs?: number;
  /** The most that is spent on guessing ports. */
  readonly budget?: ProbingBudget;
}

/** The most that is spent on guessing ports; `sockets` and `probes` of 0 switch it off. */
export interface ProbingBudget {
  /** Packets in a second, checks and answers included. Default 80. */
  readonly packetsPerSecond?: number;
  /** Packets in all. Default 2400. */
  readonly probes?: number;
  /** Sockets that are open at once beside the others. Default 256. */
  readonly sockets?: number;
}

/** What an {@linkcode IceAgent} tells. */
export type IceEvent =
  /** A candidate was found: for a peer that takes them one by one (trickle). */
  | { readonly type: "candidate"; readonly candidate: Candidate }
  /** All are found: this goes to the peer. */
  | { readonly type: "gathered"; readonly rendezvous: PublicRendezvous }
  /** A pair is agreed on: from here on data can flow both ways. */
  | {
    readonly type: "connected";
    /** The key of the socket; one of no socket where a relay is between. */
    readonly socket: string;
    /** Where it is bound, or the relayed address. */
    readonly local: Endpoint;
    /** Whether it goes by a relay: use `send`, and hear `relayed`. */
    readonly isRelayed: boolean;
    /** The peer, as this host reaches it. */
    readonly remote: Endpoint;
    /** This host, as the peer sees it. */
    readonly mapped: Endpoint;
    /** From the peer's ticket to here, milliseconds. */
    readonly elapsedMs: number;
  }
  /** It did not come to that; nothing goes on, save the pair that was agreed on before a restart. */
  | { readonly type: "failed"; readonly reason: IceFailure; readonly message: string }
  /** A datagram of the application came by a relay. */
  | {
    readonly type: "relayed";
    /** The key under which `connected` told it. */
    readonly socket: string;
    /** Who sent it, as the relay saw it. */
    readonly from: Endpoint;
    /** The datagram. */
    readonly data: Uint8Array;
  }
  /** The peer, a natkit, will send no more datagrams; it may still take some. */
  | { readonly type: "ended" }
  /** The peer answers no more (RFC 7675 §5.1): nothing may be sent to it. */
  | { readonly type: "lost"; readonly remote: Endpoint };

/** Why two peers did not meet. */
export type IceFailure =
  /** No socket could be opened. */
  | "network"
  /** None may be opened: the runtime or the system forbids it. */
  | "permission"
  /** Nothing of the peer arrived. */
  | "no-answer"
  /** Both NATs give each destination another port, which cannot be foreseen. */
  | "hard-nat"
  /** Something arrived, but no pair worked both ways. */
  | "one-way";

/** Counters of an {@linkcode IceAgent}. */
export interface IceStats {
  /** Checks sent, retransmissions included. */
  checks: number;
  /** Packets sent to guess ports. */
  probes: number;
  /** Requests of the peer that were answered. */
  answered: number;
  /** Answers of the peer that were believed. */
  confirmed: number;
  /** STUN with our names in it that its sender could not authenticate. */
  forged: number;
  /** STUN that is nobody's: a strange transaction, a strange user. */
  strange: number;
  /** What begins like STUN and is none. */
  malformed: number;
  /** Datagrams of the application. */
  data: number;
  /** ICMP errors. */
  unreachable: number;
  /** Conflicts about roles. */
  conflicts: number;
  /** Packets that were kept back because an endpoint had got its share. */
  withheld: number;
}

/** Retransmission (RFC 8489 §6.2.1, RFC 8445 §14.3): milliseconds, requests, times the RTO. */
const RTO_MS = 500;
const MAX_SENDS = 7;
const LAST_WAIT = 16;
/** RFC 8445 §14.2: the least and the default pace. */
const MIN_PACING_MS = 5;
const DEFAULT_PACING_MS = 50;
/** No endpoint of a ticket gets more checks than this: who wrote it chose whom they meet. */
export const MAX_PROBES_PER_ENDPOINT = 40;
/** The most endpoints beyond its ticket that a peer may check from. */
const MAX_REFLEXIVE = 32;
/** The most requests that are remembered until the peer's ticket is there. */
const MAX_EARLY = 16;
/** How many servers are asked, those that servers name included. */
const MAX_SERVERS = 8;
/** A pair is checked at the peer's wish no more often than this, milliseconds. */
const TRIGGER_MS = 200;
/** So many checks of a pair may wait for an answer. */
const MAX_ASKED = 4;
/** How long a better pair is waited for where both are behind one NAT, milliseconds. */
const BETTER_PAIR_MS = 100;
/** A nomination that is not answered for so long may go to another pair, milliseconds. */
const NOMINATION_MS = 1000;
/** How long other pairs are still answered once one is chosen (RFC 8445 §8.3), milliseconds. */
const LINGER_MS = 3000;
/** Keepalives of a server's binding, milliseconds (RFC 8445 §11). */
const KEEPALIVE_MS = 15_000;
/** RFC 7675 §5.1, milliseconds. */
const CONSENT_MS = 5000;
const CONSENT_EXPIRES_MS = 30_000;
/** A natkit's own attribute, which others leave aside: no more datagrams will come. */
const END_ATTRIBUTE = 0xc0a7;
/** That is said so often at this distance, and again with each question for consent. */
const END_AGAIN = 2;
const END_AGAIN_MS = 100;
/** How long a direct path is waited for before a relay is used, milliseconds; or while guessing. */
const DIRECT_MS = 1000;
const DIRECT_BY_GUESS_MS = 10_000;
/** How long checks alone are given before ports are guessed, milliseconds. */
const GRACE_MS = 500;
/** How long predicted ports are given before many sockets are opened, milliseconds. */
const PREDICTION_MS = 1500;
/** The most of those sockets. */
const MAX_GUESTS = 1024;
/** Begins the keys of those sockets. */
const GUEST = "guess";
/** So many sockets are opened at a time. */
const SOCKETS_AT_ONCE = 16;

interface Credentials {
  readonly own: Rendezvous;
  readonly ownKey: Uint8Array;
  peer: PublicRendezvous | undefined;
  peerKey: Uint8Array | undefined;
}

/** By what names a pair was agreed on, and who controls it: that stays, whatever a restart brings. */
interface Agreement {
  readonly credentials: Credentials;
  readonly role: IceRole;
  readonly tieBreaker: bigint;
}

/** A request that waits for its answer. */
interface Transaction {
  readonly kind: "gather" | "check" | "consent" | "probe";
  readonly key: string;
  readonly socket: string;
  readonly to: Endpoint;
  readonly data: Uint8Array;
  readonly rtoMs: number;
  sends: number;
  readonly pair?: Pair;
  readonly useCandidate?: boolean;
  readonly isControlling?: boolean;
  readonly credentials?: Credentials;
}

type Pulse =
  | "gather"
  | "pace"
  | "overall"
  | "nominate"
  | "probe"
  | "linger"
  | "consent"
  | "keep alive";

interface OpenBase extends Base {
  readonly observations: Observation[];
  /** Endpoints sent to, by their turn: each may have got a port of its own. */
  readonly destinations: Map<string, number>;
}

interface Early {
  readonly from: Endpoint;
  readonly socket: string;
  readonly username: string;
  readonly priority: number;
  readonly useCandidate: boolean;
}

/**
 * The agent.
 *
 * @example Two agents, driven by hand
 * ```ts
 * import { IceAgent } from "@natkit/natkit/ice";
 * import { seededRandom, World } from "@natkit/natkit/testing";
 *
 * const world = new World();
 * const lan = world.segment("lan");
 * const peers = ["192.168.1.2", "192.168.1.3"].map((address, i) => {
 *   const host = world.host(address);
 *   host.attach(lan, address);
 *   return host.run(new IceAgent({ random: seededRandom(i), hosts: [address] }));
 * });
 * for (const peer of peers) peer.do((agent, now) => agent.gather(now));
 * const [a, b] = peers.map(({ machine }) => machine.rendezvous!);
 * peers[0]!.do((agent, now) => agent.setRemote(b!, now));
 * peers[1]!.do((agent, now) => agent.setRemote(a!, now));
 * world.runFor(1000);
 * console.assert(peers.every(({ machine }) => machine.selected !== undefined));
 * ```
 */
export class IceAgent implements Machine<IceEvent> {
  /** {@inheritDoc Machine.stats} */
  readonly stats: IceStats = {
    checks: 0,
    probes: 0,
    answered: 0,
    confirmed: 0,
    forged: 0,
    strange: 0,
    malformed: 0,
    data: 0,
    unreachable: 0,
    conflicts: 0,
    withheld: 0,
  };
  readonly #random: RandomSource;
  readonly #options: Required<
    Omit<IceAgentOptions, "role" | "random" | "hosts" | "budget" | "relays">
  >;
  readonly #relays: Relays;
  readonly #hasRelays: boolean;
  readonly #hosts: readonly string[];
  readonly #budget: Required<ProbingBudget>;
  readonly #outbox = new Outbox<IceEvent>();
  readonly #timers = new Timers<Transaction | Pulse>();
  readonly #transactions = new Map<string, Transaction>();
  readonly #foundations = new Foundations();
  readonly #list = new CheckList();
  readonly #bases = new Map<string, OpenBase>();
  readonly #local: Candidate[] = [];
  readonly #remote: Candidate[] = [];
  readonly #servers: Endpoint[] = [];
  readonly #probesTo = new Map<string, number>();
  #early: Early[] = [];
  #reflexives: [main: number, guests: number] = [0, 0];
  /** Sockets that wait to be hit by chance; one that was chosen is none any more. */
  readonly #guests = new Set<string>();
  #guestsMade = 0;
  #sockets: readonly SocketSpec[] = [];
  #phase: "new" | "open" | "closed" = "new";
  #isGathered = false;
  #role: IceRole;
  readonly #isRoleGiven: boolean;
  #tieBreaker = 0n;
  #credentials: Credentials | undefined;
  #previous: Credentials | undefined;
  #startedAt: Instant | undefined;
  #lastCheckAt: Instant = -Infinity;
  #nominated: { readonly pair: Pair; readonly at: Instant } | undefined;
  #firstValidAt: Instant | undefined;
  #selected: Pair | undefined;
  #isAgreed = false;
  #consentAt: Instant = 0;
  #agreement: Agreement | undefined;
  #hasHeardPeer = false;
  /** Whether we, and whether the peer, will send no more. */
  #hasEnded = false;
  #hasPeerEnded = false;
  #endsSaid = 0;
  #plan: ProbingPlan | undefined;
  #ports: PortSequence | undefined;
  #probeRound = 0;
  /** When packets left in the last second, while ports are guessed. */
  readonly #sentAt: Instant[] = [];

  /**
   * Makes an agent; nothing happens before {@linkcode gather}.
   *
   * @throws {TypeError | RangeError} On options that are out of range.
   */
  constructor(options: IceAgentOptions) {
    const { random, hosts = [], sockets = [], servers = [], role, budget = {} } = options;
    this.#random = random;
    this.#hosts = hosts.map((host) => checkAddress("hosts", host));
    this.#options = {
      sockets,
      servers,
      port: checkInteger("port", options.port ?? 0, 0, 65535),
      pacingMs: checkInteger("pacingMs", options.pacingMs ?? MIN_PACING_MS, MIN_PACING_MS, 10_000),
      gatherTimeoutMs: checkInteger("gatherTimeoutMs", options.gatherTimeoutMs ?? 3000, 1, 120_000),
      timeoutMs: checkInteger("timeoutMs", options.timeoutMs ?? 30_000, 1, 86_400_000),
    };
    this.#budget = {
      packetsPerSecond: checkInteger("packetsPerSecond", budget.packetsPerSecond ?? 80, 1, 10_000),
      probes: checkInteger("probes", budget.probes ?? 2400, 0, 100_000),
      sockets: checkInteger("sockets", budget.sockets ?? 256, 0, MAX_GUESTS),
    };
    if (hosts.length + sockets.length === 0) {
      throw new TypeError("'hosts' or 'sockets' must name where to listen");
    }
    this.#relays = new Relays(options.relays ?? [], random);
    this.#hasRelays = (options.relays ?? []).length > 0;
    this.#role = role ?? "controlling";
    this.#isRoleGiven = role !== undefined;
    this.addServers(servers);
  }

  /** What goes to the peer, once it is gathered; what is known so far before that. */
  get rendezvous(): PublicRendezvous | undefined {
    const own = this.#credentials?.own;
    if (!own) return undefined;
    const { ufrag, pwd } = own.public;
    const candidates = this.#local.toSorted((a, b) => b.priority - a.priority)
      .slice(0, MAX_CANDIDATES);
    return { ufrag, pwd, candidates, hint: this.#hint(), pacingMs: this.#options.pacingMs };
  }

  /** The role at present. */
  get role(): IceRole {
    return this.#role;
  }

  /** The pair that was agreed on; after a restart that of before, until there is a new one. */
  get selected(): { readonly socket: string; readonly remote: Endpoint } | undefined {
    if (this.#phase !== "open" || !this.#selected) return undefined;
    const { base, remote: { address, port } } = this.#selected;
    return { socket: base.socket, remote: { address, port } };
  }

  /** Whether a datagram came from a peer's endpoint that a check has confirmed. */
  isPeer(from: Endpoint, socket: string): boolean {
    const selected = this.#selected;
    const isSelected = selected?.base.socket === socket && isSameEndpoint(selected.remote, from);
    return isSelected || this.#list.find(socket, from)?.state === "succeeded";
  }

  /**
   * Tells the peer, if it is a natkit, that no more datagrams will come: it hears `ended`. What it
   * still sends arrives.
   */
  end(now: Instant): void {
    this.#outbox.touch(now);
    if (this.#hasEnded || !this.#isAgreed) return;
    this.#hasEnded = true;
    this.#askConsent(now);
  }

  /**
   * Sends a datagram of the application to the peer; false where no pair is agreed on.
   *
   * @param data Is copied.
   */
  send(data: Uint8Array, now: Instant): boolean {
    this.#outbox.touch(now);
    const selected = this.selected;
    if (!selected) return false;
    const { socket, remote } = selected;
    if (isRelayKey(socket)) {
      this.#relays.send(socket, remote, data, now);
      this.#drainRelays(now);
    } else this.#outbox.send(socket, remote, copyBytes(data));
    return true;
  }

  /** Opens the sockets and asks the servers. */
  gather(now: Instant): void {
    this.#outbox.touch(now);
    if (this.#phase !== "new") return;
    this.#phase = "open";
    this.#newCredentials();
    this.#sockets = this.#hosts.map((address, i) => ({
      key: `ice${i}`,
      local: { address, port: this.#options.port },
    }));
    for (const { key, local } of this.#options.sockets) this.#opened(key, local, now);
    if (this.#servers.length > 0 || this.#hasRelays) {
      this.#timers.set("gather", now + this.#options.gatherTimeoutMs, "servers are silent");
      this.#timers.set("keep alive", now + KEEPALIVE_MS, "keep bindings alive");
    }
    this.#drainRelays(now);
    this.#checkGathered();
  }

  /** Asks more servers; those known already are not asked twice. */
  addServers(servers: readonly Endpoint[], now?: Instant): void {
    for (const { address, port } of servers) {
      const server = { address: checkAddress("servers", address), port };
      checkInteger("servers", port, 1, 65535);
      if (this.#servers.length >= MAX_SERVERS) return;
      if (this.#servers.some((known) => isSameEndpoint(known, server))) continue;
      this.#servers.push(server);
      if (now === undefined || this.#phase !== "open") continue;
      this.#outbox.touch(now);
      for (const base of this.#bases.values()) this.#ask(base, server, now);
    }
  }

  /**
   * Adds an endpoint at which a gateway sends to one of our sockets.
   *
   * @param local Which socket: its address, for the case of several.
   */
  addMapped(external: Endpoint, local: string | undefined, now: Instant): void {
    this.#outbox.touch(now);
    const why = whyUnreachable(external);
    if (why !== undefined) throw new TypeError(`'external' must be an endpoint of a host: ${why}`);
    const base = [...this.#bases.values()].find((one) =>
      local === undefined
        ? familyOf(one.local.address) === familyOf(external.address)
        : one.local.address === local
    );
    if (base) this.#addLocal("srflx", external, base, "gateway", NAT_ASSISTED_PREFERENCE);
  }

  /**
   * Begins the checks with what the peer told.
   *
   * @param told The peer's public half.
   * @param more `delayMs`: how long to wait, where the peer gets our ticket later than we its one
   *   (half a round trip of the way that tickets take).
   * @throws {TicketError} Where it cannot be used.
   */
  setRemote(
    told: PublicRendezvous,
    now: Instant,
    more: { readonly delayMs?: number } = {},
  ): void {
    checkPublic(told);
    const delayMs = checkInteger("delayMs", more.delayMs ?? 0, 0, 3_600_000);
    this.#outbox.touch(now);
    const credentials = this.#credentials;
    if (!credentials || this.#phase !== "open") return;
    if (credentials.peer) {
      throw new TypeError("Cannot set the peer: it is set; restart() begins anew");
    }
    credentials.peer = told;
    credentials.peerKey = shortTermKey(told.pwd);
    // With whom was heard already the roles are settled.
    if (!this.#isRoleGiven && told.hint && !this.#hasHeardPeer) {
      const own = `${credentials.own.public.ufrag} ${credentials.own.public.pwd}`;
      this.#setRole(own > `${told.ufrag} ${told.pwd}` ? "controlling" : "controlled");
    }
    this.#list.setRole(this.#isControlling);
    const startAt = now + delayMs;
    this.#startedAt = startAt;
    this.#timers.set("overall", startAt + this.#options.timeoutMs, "the peer is not reached");
    this.#timers.set("pace", startAt, "next check");
    for (const candidate of told.candidates) this.#addRemote(candidate, now);
    for (const early of this.#early.splice(0)) this.#hearCheck(early, now);
    if (startAt <= now) this.#pace(now);
    const plan = planProbing(this.#hint(), told.hint, this.#isControlling);
    this.#plan = plan;
    if (plan.role !== "none") this.#timers.set("probe", startAt + GRACE_MS, "guess ports");
  }

  /**
   * Adds a candidate of the peer that came later (trickle).
   *
   * @throws {TicketError} Where no check may go there.
   */
  addRemoteCandidate(candidate: Candidate, now: Instant): void {
    this.#outbox.touch(now);
    const peer = this.#credentials?.peer;
    if (!peer || this.#phase !== "open") return;
    checkPublic({ ...peer, candidates: [...this.#remote, candidate] });
    this.#addRemote(candidate, now);
    this.#work(now);
  }

  /**
   * Begins anew with other credentials (RFC 8445 §9): `gathered` tells them, and
   * {@linkcode setRemote} takes the peer's new ones. The pair agreed on serves until the next one is.
   */
  restart(now: Instant): void {
    this.#outbox.touch(now);
    if (this.#phase !== "open" || !this.#credentials?.peer) return;
    this.#previous = this.#agreement?.credentials ?? this.#credentials;
    this.#newCredentials();
    this.#stopChecks();
    this.#isAgreed = false;
    this.#isGathered = false;
    this.#checkGathered();
  }

  /** Ends it: no socket is listed any more, and nothing is told. */
  close(now: Instant): void {
    this.#outbox.touch(now);
    this.#shut(now);
    this.#isAgreed = false;
  }

  /** {@inheritDoc Machine.sockets} */
  readonly sockets = (): readonly SocketSpec[] => this.#sockets;

  /** {@inheritDoc Machine.handleSocket} */
  handleSocket(key: string, result: SocketResult, now: Instant): void {
    this.#outbox.touch(now);
    if (this.#phase !== "open" || !this.#sockets.some((spec) => spec.key === key)) return;
    if (result.ok) {
      this.#opened(key, result.local, now);
      this.#drainRelays(now);
    } else if (!result.isOpen) {
      this.#sockets = this.#sockets.filter((spec) => spec.key !== key);
      this.#guests.delete(key);
      const chosen = this.#selected?.base.socket;
      if (chosen && (this.#relays.carrierOf(chosen) ?? chosen) === key) return this.#lose(now);
      for (const gone of [key, ...this.#relays.leave(key, now)]) this.#leave(gone, now);
      if (this.#bases.size === 0 && this.#sockets.length === 0) {
        return this.#fail(result.code, result.message, now);
      }
    }
    this.#checkGathered();
  }

  /** {@inheritDoc Machine.handleDatagram} */
  handleDatagram(data: Uint8Array, from: Endpoint, socket: string, now: Instant): boolean {
    this.#outbox.touch(now);
    if (this.#phase === "open" && this.#relays.handleDatagram(data, from, socket, now)) {
      this.#drainRelays(now);
      return true;
    }
    return this.#hear(data, from, socket, now);
  }

  /** False where it is the application's. */
  #hear(data: Uint8Array, from: Endpoint, socket: string, now: Instant): boolean {
    if (!isStun(data)) {
      this.stats.data++;
      return false;
    }
    const message = decodeStun(data);
    if (typeof message === "string") {
      this.stats.malformed++;
      return false;
    }
    if (this.#phase !== "open") return false;
    switch (message.class) {
      case "request":
        return this.#handleRequest(message, from, socket, now);
      case "indication":
        // A keepalive asks for nothing (RFC 8445 §11).
        return this.isPeer(from, socket) && message.method === STUN_METHOD.BINDING;
      default:
        return this.#handleAnswer(message, from, socket, now);
    }
  }

  /** {@inheritDoc Machine.handleUnreachable} */
  handleUnreachable(_to: Endpoint, _socket: string, now: Instant): void {
    // Before the peer has opened its side, its NAT may well say so.
    this.#outbox.touch(now);
    this.stats.unreachable++;
  }

  /** {@inheritDoc Machine.handleTimeout} */
  handleTimeout(now: Instant): void {
    this.#outbox.touch(now);
    this.#relays.handleTimeout(now);
    this.#drainRelays(now);
    for (let due = this.#timers.popDue(now); due !== undefined; due = this.#timers.popDue(now)) {
      if (typeof due === "object") this.#retransmit(due, now);
      else this.#pulse(due, now);
    }
  }

  /** {@inheritDoc Machine.nextTimeout} */
  nextTimeout(): Instant | undefined {
    return this.debugTimeout()?.at;
  }

  /** {@inheritDoc Machine.debugTimeout} */
  debugTimeout(): DebugTimeout | undefined {
    const at = this.#outbox.wakeAt();
    if (at !== undefined) return { at, reason: "output waits" };
    return earliest(this.#timers.next(), this.#relays.debugTimeout());
  }

  /** {@inheritDoc Machine.poll} */
  poll(): Action<IceEvent> | undefined {
    return this.#outbox.poll();
  }

  get #isControlling(): boolean {
    return this.#role === "controlling";
  }

  get #pacingMs(): number {
    return Math.max(this.#options.pacingMs, this.#credentials?.peer?.pacingMs ?? DEFAULT_PACING_MS);
  }

  #newCredentials(): void {
    const own = createRendezvous([], this.#random);
    const { pwd } = own.public;
    this.#tieBreaker = BigInt(`0x${own.private.tieBreaker}`);
    this.#credentials = { own, ownKey: shortTermKey(pwd), peer: undefined, peerKey: undefined };
  }

  #setRole(role: IceRole): void {
    this.#role = role;
    this.#list.setRole(role === "controlling");
  }

  #pulse(pulse: Pulse, now: Instant): void {
    switch (pulse) {
      case "gather":
        for (const transaction of [...this.#transactions.values()]) {
          if (transaction.kind === "gather") this.#end(transaction);
        }
        return this.#checkGathered();
      case "keep alive":
        return this.#keepAlive(now);
      case "pace":
        return this.#pace(now);
      case "nominate":
        return this.#nominate(now);
      case "probe":
        return this.#guess(now);
      case "overall":
        return this.#giveUp(now);
      case "linger":
        return this.#closeOthers(now);
      case "consent":
        return this.#askConsent(now);
    }
  }

  // Gathering (RFC 8445 §5.1)

  #opened(key: string, local: Endpoint, now: Instant): void {
    if (this.#bases.has(key)) return;
    const isOneOfMany = this.#guests.has(key);
    const place = isOneOfMany ? MAX_GUESTS : this.#bases.size + 1;
    const base: OpenBase = {
      socket: key,
      local,
      // The sockets of a birthday are no candidates: the peer hears of one when it gets through.
      priority: candidatePriority(
        typePreference(isOneOfMany ? "prflx" : "host"),
        65536 - place - 1,
      ),
      foundation: this.#foundations.of("host", "udp", local.address),
      observations: [],
      destinations: new Map(),
    };
    this.#bases.set(key, base);
    if (isOneOfMany) return;
    this.#addLocal("host", local, base, "");
    this.#relays.begin(key, local, now);
    for (const server of this.#servers) this.#ask(base, server, now);
    for (const remote of this.#remote) this.#pair(base, remote, now);
    if (this.#credentials?.peer) this.#work(now);
  }

  // Relays (RFC 8445 §5.1.1.2)

  #drainRelays(now: Instant): void {
    for (let one = this.#relays.poll(); one; one = this.#relays.poll()) {
      if ("event" in one) this.#hearRelay(one.key, one.event, now);
      else this.#outbox.send(one.socket, one.to, one.data);
    }
  }

  #hearRelay(key: string, event: TurnEvent, now: Instant): void {
    const base = this.#bases.get(key);
    switch (event.type) {
      case "allocated": {
        const { relayed, reflexive } = event;
        const local = this.#bases.get(this.#relays.carrierOf(key)!)?.local;
        const made: OpenBase = {
          socket: key,
          local: relayed,
          priority: candidatePriority(typePreference("relay"), 65535 - this.#bases.size),
          foundation: this.#foundations.of("relay", "udp", relayed.address),
          observations: [],
          destinations: new Map(),
        };
        this.#bases.set(key, made);
        this.#local.push({
          foundation: made.foundation,
          transport: "udp",
          priority: made.priority,
          address: relayed.address,
          port: relayed.port,
          type: "relay",
          ...(reflexive ? { related: reflexive } : local && { related: local }),
        });
        this.#outbox.emit({ type: "candidate", candidate: this.#local.at(-1)! });
        for (const remote of this.#remote) this.#pair(made, remote, now);
        this.#work(now);
        return this.#checkGathered();
      }
      case "permitted":
        for (const pair of this.#list.pairs) {
          const isMeant = pair.base.socket === key && pair.remote.address === event.address;
          if (isMeant && pair.state === "in-progress") this.#list.trigger(pair);
        }
        return this.#work(now);
      case "data":
        if (!base) return;
        if (this.#hear(event.data, event.from, key, now)) return;
        return this.#outbox.emit({
          type: "relayed",
          socket: key,
          from: event.from,
          data: event.data,
        });
      case "failed":
        if (this.#selected?.base.socket === key) return this.#lose(now);
        this.#leave(key, now);
        this.#checkGathered();
    }
  }

  /** A socket or a relay is gone, and with it the ways by it. */
  #leave(key: string, now: Instant): void {
    const base = this.#bases.get(key);
    if (!base) return;
    this.#bases.delete(key);
    this.#list.leave(key);
    for (const transaction of [...this.#transactions.values()]) {
      if (transaction.socket === key) this.#end(transaction);
    }
    const isLeft = (one: Candidate) => !isSameEndpoint(baseOf(one), base.local);
    this.#local.splice(0, this.#local.length, ...this.#local.filter(isLeft));
    if (this.#nominated?.pair.base === base) this.#nominated = undefined;
    if (!this.#isAgreed) this.#nominate(now);
    this.#tryAgain(now);
  }

  #addLocal(
    type: "host" | "srflx",
    endpoint: Endpoint,
    base: OpenBase,
    server: string,
    preference: number = typePreference(type),
  ): void {
    if (whyUnreachable(endpoint) !== undefined) return;
    if (this.#local.some((known) => isSameEndpoint(known, endpoint))) return;
    let place = this.#local.filter((known) => known.type === type).length;
    const priorityAt = () => candidatePriority(preference, 65535 - place);
    while (this.#local.some(({ priority }) => priority === priorityAt())) place++;
    const candidate: Candidate = {
      foundation: this.#foundations.of(type, "udp", base.local.address, server),
      transport: "udp",
      priority: priorityAt(),
      address: endpoint.address,
      port: endpoint.port,
      type,
      ...(type === "srflx" && { related: base.local }),
    };
    this.#local.push(candidate);
    this.#outbox.emit({ type: "candidate", candidate });
  }

  #ask(base: OpenBase, server: Endpoint, now: Instant): void {
    if (!canPair(base.local.address, server.address)) return;
    this.#begin({ kind: "gather", socket: base.socket, to: server, rtoMs: RTO_MS }, {}, now);
  }

  #keepAlive(now: Instant): void {
    for (const base of this.#bases.values()) {
      if (this.#isGuest(base)) continue;
      for (const { server } of base.observations) this.#ask(base, server, now);
    }
    this.#timers.set("keep alive", now + KEEPALIVE_MS, "keep bindings alive");
  }

  #hearServer(
    message: StunMessage,
    base: OpenBase,
    server: Endpoint,
    now: Instant,
  ): void {
    const { mappedAddress, xorMappedAddress, otherAddress, changedAddress } = message.attributes;
    const mapped = xorMappedAddress ?? mappedAddress;
    if (
      message.class === "success" && mapped && familyOf(mapped.address) === familyOf(server.address)
    ) {
      const known = base.observations.find((one) => isSameEndpoint(one.server, server));
      const hasMoved = known !== undefined && !isSameEndpoint(known.mapped, mapped);
      const before = known?.mapped;
      if (known) known.mapped = mapped;
      else base.observations.push({ server, mapped });
      // Of a NAT that has a port for each server one is as good as the others.
      const isOneMore = base.observations.some((one) =>
        !isSameEndpoint(one.server, server) && one.mapped.address === mapped.address
      );
      if (before && !base.observations.some((one) => isSameEndpoint(one.mapped, before))) {
        const isStale = (one: Candidate) => one.type === "srflx" && isSameEndpoint(one, before);
        this.#local.splice(0, this.#local.length, ...this.#local.filter((one) => !isStale(one)));
      }
      if (hasMoved || !isOneMore) this.#addLocal("srflx", mapped, base, server.address);
      const other = otherAddress ?? changedAddress;
      if (!known && other && whyUnreachable(other) === undefined) {
        // Its other address and port show what mappings depend on (RFC 5780 §4.3).
        const more = [other, { address: server.address, port: other.port }];
        this.addServers(more.filter(({ address }) => canPair(server.address, address)), now);
      }
    }
    this.#checkGathered();
  }

  #checkGathered(): void {
    if (this.#isGathered || this.#phase !== "open") return;
    const isOpening = this.#sockets.some(({ key }) => !this.#bases.has(key));
    const isAsking = [...this.#transactions.values()].some(({ kind }) => kind === "gather");
    const isDue = this.#timers.at("gather") === undefined;
    if (isOpening || ((isAsking || this.#relays.isPending) && !isDue)) return;
    this.#isGathered = true;
    this.#timers.delete("gather");
    const rendezvous = this.rendezvous!;
    this.#outbox.emit({ type: "gathered", rendezvous }, "gathered");
  }

  /** What several servers saw of one socket. */
  #hint(): NatHint {
    const base = [...this.#bases.values()].find(({ observations }) => observations.length > 0);
    if (!base) return { mapping: "unknown", ports: [] };
    const seen = inTurn(base);
    return {
      mapping: behaviourOf(seen, base.local),
      ports: [...new Set(seen.map(({ mapped }) => mapped.port))],
    };
  }

  // Checks (RFC 8445 §6, §7)

  #addRemote(candidate: Candidate, now: Instant): void {
    if (candidate.transport !== "udp") return;
    const known = this.#remote.find((one) => isSameCandidate(one, candidate));
    if (known) return;
    this.#remote.push(candidate);
    for (const base of this.#bases.values()) this.#pair(base, candidate, now);
  }

  #pair(base: Base, remote: Candidate, now: Instant): void {
    if (!canPair(base.local.address, remote.address) || this.#isGuest(base)) return;
    if (isRelayKey(base.socket)) {
      // A relay on the internet knows nobody's home, and some end an allocation over the attempt.
      if (isInside(remote.address) && !isInside(base.local.address)) return;
      this.#relays.permit(base.socket, remote.address, now);
      this.#drainRelays(now);
    }
    this.#list.add(base, remote);
  }

  /** Sends what waits as soon as the pace lets it. */
  #work(now: Instant): void {
    if (this.#startedAt === undefined || !this.#list.hasWork) return;
    const at = Math.max(now, this.#startedAt, this.#lastCheckAt + this.#pacingMs);
    if (at <= now) this.#pace(now);
    else this.#timers.set("pace", at, "next check");
  }

  #pace(now: Instant): void {
    this.#timers.delete("pace");
    if (this.#isAgreed) return;
    if (this.#timers.at("probe") !== undefined && !this.#hasRoom(now)) {
      return this.#timers.set("pace", now + DEFAULT_PACING_MS, "no room for a check");
    }
    const next = this.#list.next();
    if (next) {
      this.#lastCheckAt = now;
      const { pair, isTriggered } = next;
      const isAgain = this.#nominated?.pair === pair;
      this.#check(pair, now, isTriggered && (isAgain || this.#mayNominateAtOnce(pair, now)));
    }
    // Where all have failed with this one, it is set for later.
    if (this.#timers.at("pace") !== undefined) return;
    if (this.#list.hasWork) this.#timers.set("pace", now + this.#pacingMs, "next check");
    else if (!next) this.#tryAgain(now);
  }

  #check(pair: Pair, now: Instant, useCandidate: boolean): void {
    const credentials = this.#credentials!;
    if (pair.state !== "succeeded") pair.state = "in-progress";
    if (useCandidate) {
      // What the peer hears last counts there: of another pair it is to hear no more.
      for (const one of this.#transactions.values()) {
        if (one.useCandidate && one.pair !== pair) this.#timers.delete(one);
      }
      this.#nominated = { pair, at: now };
    }
    const busy = this.#list.count("waiting") + this.#list.count("in-progress");
    const transaction = {
      kind: "check",
      socket: pair.base.socket,
      to: { address: pair.remote.address, port: pair.remote.port },
      rtoMs: Math.max(RTO_MS, this.#pacingMs * busy),
      pair,
      useCandidate,
      isControlling: this.#isControlling,
      credentials,
    } as const;
    this.#begin(transaction, this.#checkAttributes(pair.base, useCandidate), now);
  }

  #checkAttributes(base: Base, useCandidate: boolean): StunAttributes {
    const { own, peer } = this.#credentials!;
    const localPreference = Math.floor(base.priority / 256) % 65536;
    return {
      username: `${peer!.ufrag}:${own.public.ufrag}`,
      priority: candidatePriority(typePreference("prflx"), localPreference),
      ...(this.#isControlling
        ? { iceControlling: this.#tieBreaker }
        : { iceControlled: this.#tieBreaker }),
      ...(useCandidate && { useCandidate: true as const }),
    };
  }

  #begin(
    of: Omit<Transaction, "key" | "data" | "sends">,
    attributes: StunAttributes,
    now: Instant,
  ): void {
    const transactionId = new Uint8Array(12);
    this.#random.fill(transactionId);
    const key = of.credentials?.peerKey;
    const fields = {
      class: "request",
      method: STUN_METHOD.BINDING,
      transactionId,
      attributes,
      ...(of.kind === "consent" && this.#hasEnded && {
        unknown: [{ type: END_ATTRIBUTE, value: new Uint8Array(0) }],
      }),
    } as const;
    const data = encodeStun(fields, { key, fingerprint: true });
    const transaction: Transaction = { ...of, key: transactionKey(transactionId), data, sends: 0 };
    this.#transactions.set(transaction.key, transaction);
    this.#transmit(transaction, now);
  }

  #transmit(transaction: Transaction, now: Instant): void {
    const { socket, to, data, kind, rtoMs } = transaction;
    // A pair that has succeeded once is one that the peer's endpoint has agreed to.
    if (kind === "check" && transaction.pair!.state !== "succeeded" && !this.#mayProbe(to)) {
      this.stats.withheld++;
      this.#end(transaction);
      return this.#failPair(transaction.pair!, now);
    }
    transaction.sends++;
    const destinations = this.#bases.get(socket)?.destinations;
    const name = formatEndpoint(to);
    if (destinations && !destinations.has(name)) destinations.set(name, destinations.size);
    if (kind === "probe") {
      this.stats.probes++;
      return this.#sendBy(socket, to, data, now);
    }
    if (kind === "check") this.stats.checks++;
    const waitMs = transaction.sends < MAX_SENDS
      ? rtoMs * 2 ** (transaction.sends - 1)
      : rtoMs * LAST_WAIT;
    this.#timers.set(transaction, now + waitMs, `retransmit ${kind}`);
    this.#sendBy(socket, to, data, now, kind === "consent" ? "consent" : undefined);
  }

  #sendBy(socket: string, to: Endpoint, data: Uint8Array, now: Instant, key?: string): void {
    if (this.#timers.at("probe") !== undefined) this.#sentAt.push(now);
    if (!isRelayKey(socket)) return this.#outbox.send(socket, to, data, key);
    this.#relays.send(socket, to, data, now);
    this.#drainRelays(now);
  }

  /** Counts a packet to an endpoint that a ticket named; false where it has got its share. */
  #mayProbe(to: Endpoint): boolean {
    const key = formatEndpoint(to);
    const count = this.#probesTo.get(key) ?? 0;
    if (count >= MAX_PROBES_PER_ENDPOINT) return false;
    this.#probesTo.set(key, count + 1);
    return true;
  }

  #retransmit(transaction: Transaction, now: Instant): void {
    if (transaction.sends < MAX_SENDS && transaction.kind !== "consent") {
      return this.#transmit(transaction, now);
    }
    this.#end(transaction);
    if (transaction.kind === "gather") this.#checkGathered();
    else if (transaction.pair && transaction.kind === "check") {
      this.#failPair(transaction.pair, now);
    }
  }

  #end(transaction: Transaction): void {
    this.#timers.delete(transaction);
    this.#transactions.delete(transaction.key);
  }

  #failPair(pair: Pair, now: Instant): void {
    if (pair.state === "in-progress" || this.#nominated?.pair === pair) pair.state = "failed";
    if (this.#nominated?.pair === pair) this.#nominated = undefined;
    this.#nominate(now);
    this.#tryAgain(now);
  }

  /**
   * Where nothing is left to be tried: begins again, in peace. The peer may come later, from where
   * nobody knows, or its NAT forget; it is over when the time is.
   */
  #tryAgain(now: Instant): void {
    if (this.#isAgreed || this.#startedAt === undefined || this.#list.hasWork) return;
    const isBusy = this.#list.count("in-progress") > 0 || this.#list.count("succeeded") > 0;
    if (isBusy || this.#list.count("failed") === 0) return;
    this.#list.retry();
    const at = Math.max(now + this.#pacingMs, this.#lastCheckAt + KEEPALIVE_MS);
    this.#timers.set("pace", at, "try again");
  }

  #giveUp(now: Instant): void {
    const peer = this.#credentials?.peer;
    if (this.#hasHeardPeer) {
      return this.#fail("one-way", "What the peer sends arrives here, but no answer there", now);
    }
    if (isHard(this.#hint()) && isHard(peer?.hint)) {
      return this.#fail(
        "hard-nat",
        "Both NATs give each destination another port, and those cannot be foreseen: " +
          "a relay (TURN) or a port that the gateway maps is needed",
        now,
      );
    }
    this.#fail("no-answer", "Nothing of the peer has arrived", now);
  }

  #fail(reason: IceFailure, message: string, now: Instant): void {
    if (this.#agreement) this.#goBack(this.#agreement, now);
    else this.#shut(now);
    this.#outbox.emit({ type: "failed", reason, message });
  }

  /** A restart has failed: the pair of before serves on, by its own names. */
  #goBack({ credentials, role, tieBreaker }: Agreement, now: Instant): void {
    this.#stopChecks();
    this.#credentials = credentials;
    this.#previous = undefined;
    this.#setRole(role);
    this.#tieBreaker = tieBreaker;
    this.#isAgreed = true;
    this.#timers.set("linger", now + LINGER_MS, "close the other sockets");
  }

  /** Forgets the peer's endpoints, and what was to be tried there. */
  #stopChecks(): void {
    for (const transaction of [...this.#transactions.values()]) {
      const { kind } = transaction;
      if (kind === "check" || kind === "probe") this.#end(transaction);
    }
    for (const pulse of ["pace", "overall", "nominate", "linger"] as const) {
      this.#timers.delete(pulse);
    }
    this.#list.clear();
    this.#remote.length = 0;
    this.#reflexives = [0, 0];
    this.#probesTo.clear();
    this.#startedAt = this.#nominated = this.#firstValidAt = undefined;
    this.#hasHeardPeer = false;
    this.#stopProbing();
  }

  #shut(now: Instant): void {
    this.#relays.close(undefined, now);
    this.#drainRelays(now);
    this.#phase = "closed";
    this.#timers.clear();
    this.#list.clear();
    this.#sockets = [];
  }

  // What arrives

  #handleRequest(
    message: StunMessage,
    from: Endpoint,
    socket: string,
    now: Instant,
  ): boolean {
    const { username = "" } = message.attributes;
    const colon = username.indexOf(":");
    const ufrag = username.slice(0, Math.max(0, colon));
    const credentials = [this.#credentials, this.#previous].find((one) =>
      one?.own.public.ufrag === ufrag
    );
    if (!credentials || message.method !== STUN_METHOD.BINDING) {
      this.stats.strange++;
      return false;
    }
    const { priority, useCandidate, iceControlled, iceControlling } = message.attributes;
    const isPeer = credentials.peer === undefined ||
      username.slice(colon + 1) === credentials.peer.ufrag;
    if (!isPeer || priority === undefined || !hasIntegrity(message, credentials.ownKey, "sha1")) {
      this.stats.forged++;
      return true;
    }
    const answer = (attributes: StunAttributes, isError = false) => {
      const { transactionId } = message;
      const fields = { method: STUN_METHOD.BINDING, transactionId, attributes } as const;
      const bytes = encodeStun({ ...fields, class: isError ? "error" : "success" }, {
        key: credentials.ownKey,
        fingerprint: true,
      });
      this.stats.answered++;
      this.#sendBy(socket, from, bytes, now);
    };
    const unknown = unknownRequired(message);
    if (unknown.length > 0) {
      const errorCode = { code: STUN_ERROR.UNKNOWN_ATTRIBUTE, reason: "Unknown attribute" };
      answer({ errorCode, unknownAttributes: unknown }, true);
      return true;
    }
    if (credentials === this.#credentials) this.#hasHeardPeer = true;
    if (this.#isAgreed && !this.#hasPeerEnded && message.unknown.some(isEnd)) {
      this.#hasPeerEnded = true;
      this.#outbox.emit({ type: "ended" });
    }
    const theirs = this.#isControlling ? iceControlling : iceControlled;
    if (theirs !== undefined && credentials === this.#credentials) {
      this.stats.conflicts++;
      // The larger one controls (RFC 8445 §7.3.1.1); before there is a ticket our role is no more than
      // a beginning.
      const isOursLarger = this.#tieBreaker >= theirs;
      const isOpen = !this.#isRoleGiven && credentials.peer === undefined;
      if (!isOpen && isOursLarger === this.#isControlling) {
        answer({ errorCode: { code: STUN_ERROR.ROLE_CONFLICT, reason: "Role conflict" } }, true);
        return true;
      }
      this.#setRole(this.#isControlling ? "controlled" : "controlling");
      // What works already was left to the peer to choose from.
      if (!this.#isAgreed) this.#nominate(now);
    }
    answer({ xorMappedAddress: from });
    if (credentials !== this.#credentials) return true;
    const early: Early = {
      from: { address: from.address, port: from.port },
      socket,
      username,
      priority,
      useCandidate: useCandidate ?? false,
    };
    if (credentials.peer) this.#hearCheck(early, now);
    else if (this.#early.length < MAX_EARLY) this.#early.push(early);
    return true;
  }

  /** A check of the peer came through: its pair is checked from here too (RFC 8445 §7.3.1.4). */
  #hearCheck({ from, socket, username, priority, useCandidate }: Early, now: Instant): void {
    const base = this.#bases.get(socket);
    const peer = this.#credentials!.peer!;
    if (!base || !username.endsWith(`:${peer.ufrag}`)) return;
    let pair = this.#list.find(socket, from);
    if (!pair) {
      // What comes in by a guessed port is worth more than what comes by many ways to a known one.
      const place = this.#isGuest(base) ? 1 : 0;
      if (this.#reflexives[place]! >= MAX_REFLEXIVE || whyUnreachable(from) !== undefined) return;
      this.#reflexives[place]!++;
      pair = this.#list.add(base, this.#reflexive(from, priority), true);
      if (!pair) return;
    }
    if (useCandidate && !this.#isControlling) {
      pair.isNominated = true;
      if (pair.state === "succeeded") this.#select(pair, now);
    }
    // A pair may be nominated after another one was, whose answer has not arrived there.
    const isMoving = this.#isAgreed && pair.isNominated;
    if ((this.#isAgreed && !isMoving) || pair.state === "succeeded") return;
    // Many ways may lead to one socket; what comes by them asks for one check, not for as many.
    if (pair.state === "in-progress" && now - pair.triggeredAt < TRIGGER_MS) return;
    pair.triggeredAt = now;
    // The checks under way are answered perhaps, but not sent again; old ones are forgotten.
    const asked = [...this.#transactions.values()].filter((one) => one.pair === pair);
    for (const transaction of asked) this.#timers.delete(transaction);
    for (const transaction of asked.slice(0, -MAX_ASKED)) this.#end(transaction);
    // It has asked itself, so that one more may go there.
    const endpoint = formatEndpoint(from);
    if (this.#probesTo.get(endpoint) === MAX_PROBES_PER_ENDPOINT) {
      this.#probesTo.set(endpoint, MAX_PROBES_PER_ENDPOINT - 1);
    }
    if (isMoving) return this.#check(pair, now, false);
    this.#list.trigger(pair);
    this.#work(now);
  }

  #reflexive(from: Endpoint, priority: number): Candidate {
    const known = this.#remote.find((one) => isSameEndpoint(one, from));
    return known ?? {
      foundation: `r${this.#reflexives[0] + this.#reflexives[1]}`,
      transport: "udp",
      priority: Math.min(Math.max(priority, 1), 0x7fff_ffff),
      address: from.address,
      port: from.port,
      type: "prflx",
    };
  }

  #handleAnswer(
    message: StunMessage,
    from: Endpoint,
    socket: string,
    now: Instant,
  ): boolean {
    const key = transactionKey(message.transactionId);
    const transaction = this.#transactions.get(key);
    if (!transaction || transaction.socket !== socket) {
      this.stats.strange++;
      // The peer's answer to a check that is over is nobody else's either.
      return [this.#credentials, this.#previous].some((one) =>
        one?.peerKey !== undefined && hasIntegrity(message, one.peerKey, "sha1")
      );
    }
    const { kind, to, credentials } = transaction;
    if (kind === "gather") {
      if (!isSameEndpoint(from, to)) {
        this.stats.forged++;
        return true;
      }
      this.#end(transaction);
      const base = this.#bases.get(socket);
      if (base) this.#hearServer(message, base, to, now);
      return true;
    }
    if (!hasIntegrity(message, credentials!.peerKey!, "sha1")) {
      this.stats.forged++;
      return true;
    }
    this.stats.confirmed++;
    this.#end(transaction);
    if (kind === "consent") {
      if (message.class === "success" && isSameEndpoint(from, to)) this.#consentAt = now;
      return true;
    }
    if (credentials !== this.#credentials) return true;
    this.#hasHeardPeer = true;
    const pair = transaction.pair ?? this.#hit(transaction);
    if (!pair) return true;
    if (message.class === "error") this.#handleError(message, { ...transaction, pair }, now);
    // An answer from elsewhere than it was asked says that the path is not the same both ways; what
    // must be understood and is not may say anything (STUN-05).
    else if (!isSameEndpoint(from, to) || unknownRequired(message).length > 0) {
      this.#failPair(pair, now);
    } else this.#succeed(pair, message.attributes.xorMappedAddress, transaction, now);
    return true;
  }

  #handleError(message: StunMessage, transaction: Transaction, now: Instant): void {
    const pair = transaction.pair!;
    if (message.attributes.errorCode?.code !== STUN_ERROR.ROLE_CONFLICT) {
      return this.#failPair(pair, now);
    }
    this.stats.conflicts++;
    // Roles may have been switched already, by a check of the peer (RFC 8445 §7.2.5.1).
    if (transaction.isControlling === this.#isControlling) {
      this.#setRole(this.#isControlling ? "controlled" : "controlling");
      this.#tieBreaker = BigInt(`0x${randomTieBreaker(this.#random)}`);
    }
    this.#nominated = undefined;
    this.#list.trigger(pair);
    this.#work(now);
  }

  #succeed(
    pair: Pair,
    mapped: Endpoint | undefined,
    transaction: Pick<Transaction, "useCandidate">,
    now: Instant,
  ): void {
    pair.mapped = mapped;
    this.#list.succeed(pair);
    this.#firstValidAt ??= now;
    if (!this.#isControlling && pair.isNominated) return this.#select(pair, now);
    if (this.#isAgreed) return;
    if (transaction.useCandidate && this.#nominated?.pair === pair) return this.#select(pair, now);
    this.#nominate(now);
    this.#work(now);
  }

  // Nomination (RFC 8445 §8)

  /**
   * Between two natkits a check that answers one may nominate at once: the way there is known to
   * work, and its answer says that the way back does.
   */
  #mayNominateAtOnce(pair: Pair, now: Instant): boolean {
    return this.#isControlling && this.#credentials!.peer!.hint !== undefined &&
      this.#nominated === undefined && this.#betterUntil(pair, now) <= now;
  }

  /**
   * How long a better pair than this one is waited for: a direct one where it goes by a relay, one
   * inside where both are behind one NAT.
   */
  #betterUntil(pair: Pair, now: Instant): Instant {
    const startedAt = this.#startedAt ?? now;
    if (isByRelay(pair)) {
      const isGuessing = this.#plan !== undefined && this.#plan.role !== "none";
      return startedAt + (isGuessing ? DIRECT_BY_GUESS_MS : DIRECT_MS);
    }
    if (pair.remote.type === "host") return now;
    const isShared = this.#local.some(({ type, address }) =>
      type === "srflx" && address === pair.remote.address
    );
    const isOpen = ({ state }: Pair) => state === "in-progress" || state === "waiting";
    return isShared &&
        this.#list.pairs.some((other) => other.priority > pair.priority && isOpen(other))
      ? (this.#firstValidAt ?? startedAt) + BETTER_PAIR_MS
      : now;
  }

  #nominate(now: Instant): void {
    this.#timers.delete("nominate");
    if (!this.#isControlling) return;
    const best = this.#list.pairs.find(({ state }) => state === "succeeded");
    if (!best) return;
    if (this.#nominated && this.#isUnderWay(this.#nominated.pair)) {
      const answerBy = this.#nominated.at + NOMINATION_MS;
      if (this.#nominated.pair === best) return;
      if (now < answerBy) {
        return this.#timers.set("nominate", answerBy, "a nomination is not answered");
      }
    }
    const until = this.#betterUntil(best, now);
    if (until > now) return this.#timers.set("nominate", until, "a better pair may come up");
    this.#check(best, now, true);
  }

  /** Whether a check that nominates the pair will be sent again until it is answered. */
  #isUnderWay(pair: Pair): boolean {
    return [...this.#transactions.values()].some((one) =>
      one.pair === pair && one.useCandidate === true && this.#timers.at(one) !== undefined
    );
  }

  #select(pair: Pair, now: Instant): void {
    if (this.#isAgreed && this.#selected === pair) return;
    this.#selected = pair;
    this.#guests.delete(pair.base.socket);
    this.#isAgreed = true;
    this.#previous = undefined;
    for (const transaction of [...this.#transactions.values()]) this.#end(transaction);
    for (const pulse of ["pace", "overall", "nominate", "keep alive"] as const) {
      this.#timers.delete(pulse);
    }
    this.#stopProbing();
    this.#consentAt = now;
    this.#agreement = {
      credentials: this.#credentials!,
      role: this.#role,
      tieBreaker: this.#tieBreaker,
    };
    this.#timers.set("linger", now + LINGER_MS, "close the other sockets");
    this.#setConsentTimer(now);
    const { base, remote, mapped } = pair;
    this.#relays.bind(base.socket, { address: remote.address, port: remote.port }, now);
    this.#drainRelays(now);
    this.#outbox.emit({
      type: "connected",
      socket: base.socket,
      local: base.local,
      isRelayed: isRelayKey(base.socket),
      remote: { address: remote.address, port: remote.port },
      mapped: mapped ?? base.local,
      elapsedMs: now - (this.#startedAt ?? now),
    }, "connected");
  }

  #closeOthers(now: Instant): void {
    const { base } = this.#selected!;
    const carrier = this.#relays.carrierOf(base.socket) ?? base.socket;
    this.#relays.close(base.socket, now);
    this.#drainRelays(now);
    this.#sockets = this.#sockets.filter(({ key }) => key === carrier);
    this.#guests.clear();
    for (const key of this.#bases.keys()) {
      if (key !== base.socket && key !== carrier) this.#bases.delete(key);
    }
    // A restart tells what is there still.
    const isLeft = (one: Candidate) => isSameEndpoint(baseOf(one), base.local);
    this.#local.splice(0, this.#local.length, ...this.#local.filter(isLeft));
    const kept = this.#bases.get(base.socket);
    if (kept) this.#addLocal("host", base.local, kept, "");
  }

  // Consent (RFC 7675)

  #setConsentTimer(now: Instant): void {
    const waitMs = CONSENT_MS * uniform(this.#random, 0.8, 1.2);
    const expiresAt = this.#consentAt + CONSENT_EXPIRES_MS;
    this.#timers.set("consent", Math.min(now + waitMs, Math.max(now, expiresAt)), "consent");
  }

  #askConsent(now: Instant): void {
    const pair = this.#selected;
    if (!pair) return;
    const remote = { address: pair.remote.address, port: pair.remote.port };
    // As the timer has it: of instants that are no integers the difference may be another one.
    if (now >= this.#consentAt + CONSENT_EXPIRES_MS) return this.#lose(now);
    const { credentials, role, tieBreaker } = this.#agreement!;
    const { own, peer } = credentials;
    this.#begin(
      {
        kind: "consent",
        socket: pair.base.socket,
        to: remote,
        // The answers to all questions of that time count.
        rtoMs: CONSENT_EXPIRES_MS,
        credentials,
      },
      {
        username: `${peer!.ufrag}:${own.public.ufrag}`,
        priority: candidatePriority(typePreference("prflx"), 65535),
        ...(role === "controlling"
          ? { iceControlling: tieBreaker }
          : { iceControlled: tieBreaker }),
      },
      now,
    );
    this.#setConsentTimer(now);
    if (this.#hasEnded && this.#endsSaid++ < END_AGAIN) {
      this.#timers.set("consent", now + END_AGAIN_MS, "the end is told again");
    }
  }

  #lose(now: Instant): void {
    const { address, port } = this.#selected!.remote;
    this.#outbox.emit({ type: "lost", remote: { address, port } });
    this.close(now);
  }

  // Guessing ports between two natkits (probing.ts)

  #guess(now: Instant): void {
    const plan = this.#plan;
    const target = this.#target();
    if (!plan || !target || this.#isAgreed || this.stats.probes >= this.#budget.probes) return;
    // A way is found, and has a second to prove itself.
    if (this.#list.pairs.some((pair) => pair.state === "succeeded" && !isByRelay(pair))) {
      return this.#timers.set("probe", now + NOMINATION_MS, "guess ports");
    }
    this.#timers.set("probe", now + 1000 / this.#budget.packetsPerSecond, "guess ports");
    if (!this.#hasRoom(now)) return;
    const isSecondHalf = now - this.#startedAt! > this.#options.timeoutMs / 2 ||
      this.stats.probes >= this.#budget.probes / 2;
    switch (isSecondHalf ? plan.then : plan.role) {
      case "probe":
        return this.#probePort(plan, target, now);
      case "meet":
        return this.#meet(plan, target, now);
      case "open":
        return this.#openNext(target, now);
    }
  }

  /** Whether what was sent in the last second leaves room for one more. */
  #hasRoom(now: Instant): boolean {
    while (this.#sentAt.length > 0 && this.#sentAt[0]! <= now - 1000) this.#sentAt.shift();
    return this.#sentAt.length < this.#budget.packetsPerSecond;
  }

  /**
   * Where the internet sees the peer: where it was heard from, if it was; else where it says that
   * it is.
   */
  #target(): Endpoint | undefined {
    const of = (...types: Candidate["type"][]) =>
      this.#remote.filter(({ type, address }) =>
        types.includes(type) && this.#mainBase(address) !== undefined
      );
    const [reflexive] = of("srflx");
    // Where it was heard by a relay it may be of a family that none of our sockets has.
    const heard = this.#list.pairs.find(({ remote }) =>
      remote.type === "prflx" && this.#mainBase(remote.address) !== undefined &&
      (!reflexive || remote.address === reflexive.address)
    );
    return heard?.remote ?? reflexive ?? of("host")[0];
  }

  #isGuest({ socket }: Base): boolean {
    return this.#guests.has(socket);
  }

  #mainBase(remote: string): OpenBase | undefined {
    return [...this.#bases.values()].find((base) =>
      !this.#isGuest(base) && !isRelayKey(base.socket) && canPair(base.local.address, remote)
    );
  }

  #probePort(plan: ProbingPlan, { address }: Endpoint, now: Instant): void {
    this.#ports ??= new PortSequence(plan, this.#random);
    const port = this.#ports.next();
    if (port !== undefined) this.#probe(this.#mainBase(address)!, { address, port }, now);
  }

  #meet(plan: ProbingPlan, { address }: Endpoint, now: Instant): void {
    const base = this.#mainBase(address)!;
    if (this.#probeRound >= 2 * AHEAD) return this.#timers.delete("probe");
    const last = inTurn(base).at(-1);
    const place = last ? base.destinations.get(formatEndpoint(last.server)) ?? 0 : 0;
    this.#probeRound++;
    // Ours is the n-th port from the last one that the peer knows: so is theirs.
    const next = plan.isInTurn ? base.destinations.size - place : this.#probeRound;
    this.#probe(base, { address, port: wrap(plan.lastPort + next * plan.step) }, now);
  }

  /** Opens sockets a few at a time, and sends once from each; after the last begins again. */
  #openNext(target: Endpoint, now: Instant): void {
    const untilMs = this.#startedAt! + PREDICTION_MS;
    // The main socket's ports can be foreseen: the peer tries them first.
    if (now < untilMs && stepOf(this.#hint().ports) !== 0) {
      return this.#timers.set("probe", untilMs, "guess ports");
    }
    const guests = [...this.#bases.values()].filter((base) => this.#isGuest(base));
    const listed = this.#guests.size;
    const wanted = Math.min(this.#budget.sockets, SOCKETS_AT_ONCE + this.#probeRound);
    if (listed < wanted) {
      const { address } = this.#mainBase(target.address)!.local;
      const more = Array.from({ length: wanted - listed }, (): SocketSpec => ({
        key: `${GUEST}${this.#guestsMade++}`,
        local: { address, port: 0 },
      }));
      for (const { key } of more) this.#guests.add(key);
      this.#sockets = [...this.#sockets, ...more];
    }
    const guest = guests[this.#probeRound % Math.max(1, guests.length)];
    if (!guest) return;
    this.#probeRound++;
    this.#probe(guest, target, now);
  }

  #probe(base: OpenBase, { address, port }: Endpoint, now: Instant): void {
    const credentials = this.#credentials!;
    const { socket } = base;
    const to = { address, port };
    const isControlling = this.#isControlling;
    const of = { kind: "probe", socket, to, rtoMs: RTO_MS, isControlling, credentials } as const;
    this.#begin(of, this.#checkAttributes(base, false), now);
  }

  /** A port that was guessed is right: from here on its pair is like the others. */
  #hit({ socket, to }: Transaction): Pair | undefined {
    const base = this.#bases.get(socket);
    const priority = candidatePriority(typePreference("prflx"), 65535);
    return base && this.#list.add(base, this.#reflexive(to, priority), true);
  }

  #stopProbing(): void {
    this.#timers.delete("probe");
    this.#plan = undefined;
    this.#ports = undefined;
    this.#probeRound = 0;
  }
}

/** Where a candidate of ours is sent from. */
function baseOf(one: Candidate): Endpoint {
  return one.type === "srflx" ? one.related! : one;
}

function isEnd({ type }: { readonly type: number }): boolean {
  return type === END_ATTRIBUTE;
}

/** Whether an address means something within a network alone. */
function isInside(address: string): boolean {
  return isPrivate(address) || ["shared", "link-local", "loopback"].includes(classify(address));
}

/** Whether a relay is between, ours or the peer's. */
function isByRelay({ base, remote }: Pair): boolean {
  return isRelayKey(base.socket) || remote.type === "relay";
}

/** What servers saw of a socket, in the order in which they were asked first. */
function inTurn({ observations, destinations }: OpenBase): Observation[] {
  const turn = ({ server }: Observation) => destinations.get(formatEndpoint(server)) ?? 0;
  return observations.toSorted((a, b) => turn(a) - turn(b));
}
