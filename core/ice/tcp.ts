/**
 * TCP between two peers behind NATs, as a machine: candidates of RFC 6544, dialled from one local
 * port to all of the peer's at once, and an ICE check as the first words on every stream that comes
 * up. The controlling peer chooses one; that is handed over at the byte after the last answer, the
 * others are closed.
 *
 * One port dials and listens, by turns: no system lets a program dial from a port on which it
 * listens, and every system lets one listen on a port from which it dials. So what is to be dialled
 * is dialled in rounds, and between them the port listens. A first SYN opens the hole in one's own
 * NAT; where the peer's crosses it, both systems make one connection of the two (RFC 9293 §3.5,
 * simultaneous open). A NAT that answers a stranger's SYN with a reset ends the attempt: it is made
 * again.
 *
 * @module
 */
import { putU16, u16 } from "../bytes.ts";
import { checkAddress, checkInteger } from "../check.ts";
import { familyOf, formatEndpoint, isSameEndpoint } from "../ip.ts";
import type {
  Action,
  DebugTimeout,
  Endpoint,
  Instant,
  Machine,
  SocketResult,
  SocketSpec,
  StreamResult,
} from "../machine.ts";
import { Outbox } from "../outbox.ts";
import { type RandomSource, uniform } from "../random.ts";
import {
  decodeStun,
  encodeStun,
  hasIntegrity,
  STUN_ERROR,
  STUN_METHOD,
  type StunAttributes,
  type StunMessage,
  transactionKey,
  unknownRequired,
} from "../stun/codec.ts";
import { StunFramer } from "../stun/framing.ts";
import { shortTermKey } from "../stun/integrity.ts";
import { earliest, Timers } from "../timers.ts";
import type { IceFailure, IceRole } from "./agent.ts";
import {
  type Candidate,
  candidatePriority,
  canMeet,
  canPair,
  Foundations,
  NAT_ASSISTED_PREFERENCE,
  tcpLocalPreference,
  typePreference,
  whyUnreachable,
} from "./candidate.ts";
import { behaviourOf, isHard, type Observation } from "./probing.ts";
import {
  checkPublic,
  createRendezvous,
  MAX_CANDIDATES,
  type NatHint,
  type PublicRendezvous,
  randomTieBreaker,
  type Rendezvous,
} from "./ticket.ts";

/** How a {@linkcode TcpPunch} works. */
export interface TcpPunchOptions {
  /** Unguessable: it makes the password and the transaction ids. */
  readonly random: RandomSource;
  /** The addresses of this host to use, best first. */
  readonly hosts: readonly string[];
  /** The port to dial from and to listen on; 0 (the default) takes a free one at each address. */
  readonly port?: number;
  /** STUN servers that speak TCP. */
  readonly servers?: readonly Endpoint[];
  /** The role to begin with; by default the two tickets decide, or it is controlling. */
  readonly role?: IceRole;
  /** How long servers are waited for, milliseconds. Default 3000. */
  readonly gatherTimeoutMs?: number;
  /** How long the peer is tried, milliseconds. Default 30,000. */
  readonly timeoutMs?: number;
}

/** What a {@linkcode TcpPunch} tells. */
export type TcpPunchEvent =
  /** All candidates are found: this goes to the peer. */
  | { readonly type: "gathered"; readonly rendezvous: PublicRendezvous }
  /** One stream is agreed on, and handed over. */
  | {
    readonly type: "connected";
    /** The stream's id, by which the driver gives it to the application. */
    readonly stream: number;
    /** This end of it. */
    readonly local: Endpoint;
    /** The other end, as this host reaches it. */
    readonly remote: Endpoint;
    /** This host, as the peer sees it. */
    readonly mapped: Endpoint;
    /** From the peer's ticket to here, milliseconds. */
    readonly elapsedMs: number;
  }
  /** It did not come to that; nothing goes on. */
  | { readonly type: "failed"; readonly reason: IceFailure; readonly message: string };

/** Counters of a {@linkcode TcpPunch}. */
export interface TcpPunchStats {
  /** Connections begun. */
  dials: number;
  /** Of those, how many were refused. */
  refused: number;
  /** Streams that came up, others' included. */
  opened: number;
  /** Streams of others beyond what is listened to at once. */
  turnedAway: number;
  /** STUN that its sender could not authenticate, and what was no STUN at all. */
  forged: number;
  /** Dials that were kept back because an endpoint had got its share. */
  withheld: number;
}

/** How long one SYN with its retransmissions is given, milliseconds: they go at 0, 1 and 3 s. */
const DIAL_MS = 4000;
/**
 * The least and the most between two attempts at an endpoint that refuses, milliseconds: where both
 * NATs reset what is unasked, two SYNs must be on their way at once.
 */
const RETRY_MS = 60;
const MAX_RETRY_MS = 240;
/** No endpoint of a ticket is dialled more often: who wrote it chose whom that meets. */
const MAX_DIALS_PER_ENDPOINT = 120;
/** So many of those go as soon as they may; the others last until the time is over. */
const EAGER_DIALS = 60;
/** From the end of listening to the dials, and from those to listening again, milliseconds. */
const TURN_MS = 4;
/** How long the controlled peer listens before it dials, where it is asked to meet, milliseconds. */
const YIELD_MS = 30;
/** How long a stream may take to say who it is, and the one that is chosen to agree, milliseconds. */
const HELLO_MS = 5000;
/** The most streams of strangers that are listened to at once. */
const MAX_STRANGERS = 32;
/** No check is longer. */
const MAX_FRAME = 1024;
/** How long a server's stream may take to come up, milliseconds. */
const SERVER_MS = 10_000;
/** How many servers are asked; a ticket's hint has room for as many ports. */
const MAX_SERVERS = 8;

/** An address of this host with the one port. */
interface Base {
  readonly key: string;
  local: Endpoint;
  isOpen: boolean;
  readonly observations: Observation[];
}

/** An endpoint of the peer that is dialled from a base until it answers. */
interface Target {
  readonly base: Base;
  readonly to: Endpoint;
  dueAt: Instant | undefined;
}

/** A stream to a server, which keeps the port's mapping alive as long as it is open. */
interface ServerStream {
  readonly kind: "server";
  readonly base: Base;
  readonly server: Endpoint;
  readonly framer: StunFramer;
  readonly key: string;
  readonly request: Uint8Array;
}

/** A stream that may lead to the peer. */
interface PeerStream {
  readonly kind: "peer";
  readonly id: number;
  readonly target: Target | undefined;
  local: Endpoint | undefined;
  peer: Endpoint | undefined;
  /** What came and is no whole frame yet. */
  unread: Uint8Array;
  /** Our checks that wait for their answers. */
  readonly asked: Map<string, { readonly useCandidate: boolean; readonly isControlling: boolean }>;
  mapped: Endpoint | undefined;
  /** Whether the peer has shown who it is. */
  isPeer: boolean;
  /** Whether it is the one, as the controlling peer says. */
  isNominated: boolean;
}

type Stream = ServerStream | PeerStream;
type Pulse = "ask servers" | "gather" | "overall" | "dial" | "dial now" | "listen";

/**
 * The machine; see the head of this file.
 *
 * @example
 * ```ts
 * import { TcpPunch } from "@natkit/natkit/ice";
 * import { seededRandom } from "@natkit/natkit/core";
 *
 * const punch = new TcpPunch({ random: seededRandom(1), hosts: ["192.168.1.2"] });
 * punch.gather(0);
 * console.assert(punch.sockets()[0]?.kind === "tcp"); // It asks for a port that is free.
 * ```
 */
export class TcpPunch implements Machine<TcpPunchEvent> {
  /** {@inheritDoc Machine.stats} */
  readonly stats: TcpPunchStats = {
    dials: 0,
    refused: 0,
    opened: 0,
    turnedAway: 0,
    forged: 0,
    withheld: 0,
  };
  readonly #random: RandomSource;
  readonly #servers: readonly Endpoint[];
  readonly #port: number;
  readonly #timeoutMs: number;
  readonly #gatherTimeoutMs: number;
  readonly #isRoleGiven: boolean;
  readonly #outbox = new Outbox<TcpPunchEvent>();
  readonly #timers = new Timers<Pulse | number>();
  readonly #foundations = new Foundations();
  readonly #bases: Base[];
  readonly #local: Candidate[] = [];
  readonly #targets: Target[] = [];
  readonly #streams = new Map<number, Stream>();
  readonly #dialsTo = new Map<string, number>();
  readonly #own: Rendezvous;
  readonly #ownKey: Uint8Array;
  #peer: PublicRendezvous | undefined;
  #peerKey: Uint8Array | undefined;
  #role: IceRole;
  #tieBreaker: bigint;
  #phase: "new" | "ports" | "gathering" | "gathered" | "closed" = "new";
  #sockets: readonly SocketSpec[] = [];
  #startedAt: Instant = 0;
  #nominated: PeerStream | undefined;
  #hasHeardPeer = false;
  #lastId = 0;

  /**
   * Makes it; nothing happens before {@linkcode gather}.
   *
   * @throws {TypeError | RangeError} On options that are out of range.
   */
  constructor(options: TcpPunchOptions) {
    const { random, hosts, servers = [], role } = options;
    if (hosts.length === 0) throw new TypeError("'hosts' must name an address of this host");
    this.#random = random;
    this.#servers = servers.slice(0, MAX_SERVERS).map(({ address, port }) => ({
      address: checkAddress("servers", address),
      port: checkInteger("servers", port, 1, 65535),
    }));
    this.#port = checkInteger("port", options.port ?? 0, 0, 65535);
    this.#timeoutMs = checkInteger("timeoutMs", options.timeoutMs ?? 30_000, 1, 86_400_000);
    this.#gatherTimeoutMs = checkInteger(
      "gatherTimeoutMs",
      options.gatherTimeoutMs ?? 3000,
      1,
      120_000,
    );
    this.#bases = hosts.map((host, i) => ({
      key: `tcp${i}`,
      local: { address: checkAddress("hosts", host), port: this.#port },
      isOpen: false,
      observations: [],
    }));
    this.#role = role ?? "controlling";
    this.#isRoleGiven = role !== undefined;
    this.#own = createRendezvous([], random);
    this.#ownKey = shortTermKey(this.#own.public.pwd);
    this.#tieBreaker = BigInt(`0x${this.#own.private.tieBreaker}`);
  }

  /** What goes to the peer, once it is gathered; what is known so far before that. */
  get rendezvous(): PublicRendezvous {
    const { ufrag, pwd } = this.#own.public;
    const candidates = this.#local.toSorted((a, b) => b.priority - a.priority)
      .slice(0, MAX_CANDIDATES);
    return { ufrag, pwd, candidates, hint: this.#hint() };
  }

  /** The role at present. */
  get role(): IceRole {
    return this.#role;
  }

  /** Finds a port and asks the servers. */
  gather(now: Instant): void {
    this.#outbox.touch(now);
    if (this.#phase !== "new") return;
    this.#phase = "ports";
    this.#listen();
  }

  /**
   * Adds an endpoint at which a gateway sends to our port.
   *
   * @param local Which address of this host it sends to.
   */
  addMapped(external: Endpoint, local: string, now: Instant): void {
    this.#outbox.touch(now);
    const why = whyUnreachable(external);
    if (why !== undefined) throw new TypeError(`'external' must be an endpoint of a host: ${why}`);
    const base = this.#bases.find((one) => one.local.address === local);
    if (base) this.#addLocal("srflx", external, base, "gateway", NAT_ASSISTED_PREFERENCE);
  }

  /**
   * Dials the peer and listens for it.
   *
   * @param told The peer's public half.
   * @param more `delayMs`: how long to wait, where the peer gets our ticket later than we its one.
   * @throws {TicketError} Where it cannot be used.
   */
  setRemote(
    told: PublicRendezvous,
    now: Instant,
    { delayMs = 0 }: { readonly delayMs?: number } = {},
  ): void {
    checkPublic(told);
    checkInteger("delayMs", delayMs, 0, 3_600_000);
    this.#outbox.touch(now);
    if (this.#phase !== "gathered" || this.#peer) return;
    this.#peer = told;
    this.#peerKey = shortTermKey(told.pwd);
    const { ufrag, pwd } = this.#own.public;
    if (!this.#isRoleGiven) {
      const isLarger = `${ufrag} ${pwd}` > `${told.ufrag} ${told.pwd}`;
      this.#role = isLarger ? "controlling" : "controlled";
    }
    this.#startedAt = now + delayMs;
    this.#timers.set("overall", this.#startedAt + this.#timeoutMs, "the peer is not reached");
    // Where nothing stands between, who dials finds the other one listening.
    const dialAt = this.#startedAt + (this.#isControlling ? 0 : YIELD_MS);
    for (const candidate of told.candidates) this.#addTarget(candidate, dialAt);
    if (dialAt <= now) return this.#dial(now);
    this.#listen();
    this.#planDial(now);
  }

  /** Ends it: nothing is listed any more, and nothing is told. */
  close(now: Instant): void {
    this.#outbox.touch(now);
    this.#end(undefined);
  }

  /** {@inheritDoc Machine.sockets} */
  readonly sockets = (): readonly SocketSpec[] => this.#sockets;

  /** {@inheritDoc Machine.handleSocket} */
  handleSocket(key: string, result: SocketResult, now: Instant): void {
    this.#outbox.touch(now);
    const base = this.#bases.find((one) => one.key === key);
    if (!base || this.#phase !== "ports" || base.isOpen) return;
    if (result.ok) {
      base.local = { address: base.local.address, port: result.local.port };
      base.isOpen = true;
      this.#addLocal("host", base.local, base, "");
    } else {
      this.#bases.splice(this.#bases.indexOf(base), 1);
      if (this.#bases.length === 0) return this.#fail(result.code, result.message);
      this.#listen();
    }
    if (!this.#bases.every(({ isOpen }) => isOpen)) return;
    this.#phase = "gathering";
    this.#listenNoMore();
    this.#timers.set("ask servers", now + TURN_MS, "ask the servers");
  }

  /** {@inheritDoc Machine.handleStream} */
  handleStream(id: number, happened: StreamResult, now: Instant): void {
    this.#outbox.touch(now);
    if (this.#phase === "closed") return;
    const known = this.#streams.get(id);
    switch (happened.type) {
      case "open":
        if (happened.socket !== undefined && !known) return this.#accept(id, happened, now);
        if (known) this.#opened(id, known, happened, now);
        return;
      case "data":
        if (known?.kind === "server") this.#hearServer(id, known, happened.data);
        else if (known) this.#hear(known, happened.data, now);
        return;
      case "closed":
        if (!known) return;
        this.#streams.delete(id);
        this.#timers.delete(id);
        if (known.kind === "server") return this.#checkGathered();
        if (happened.reason === "refused") this.stats.refused++;
        this.#over(known, now);
    }
  }

  /** {@inheritDoc Machine.handleDatagram} */
  handleDatagram(_data: Uint8Array, _from: Endpoint, _socket: string, now: Instant): boolean {
    this.#outbox.touch(now);
    this.stats.forged++;
    return false;
  }

  /** {@inheritDoc Machine.handleUnreachable} */
  handleUnreachable(_to: Endpoint, _socket: string, now: Instant): void {
    this.#outbox.touch(now);
  }

  /** {@inheritDoc Machine.handleTimeout} */
  handleTimeout(now: Instant): void {
    this.#outbox.touch(now);
    for (let due = this.#timers.popDue(now); due !== undefined; due = this.#timers.popDue(now)) {
      if (typeof due === "string") this.#pulse(due, now);
      else this.#drop(due, now);
    }
  }

  /** {@inheritDoc Machine.nextTimeout} */
  nextTimeout(): Instant | undefined {
    return this.#outbox.wakeAt() ?? this.#timers.nextAt();
  }

  /** {@inheritDoc Machine.debugTimeout} */
  debugTimeout(): DebugTimeout | undefined {
    const at = this.#outbox.wakeAt();
    return at === undefined ? earliest(this.#timers.next()) : { at, reason: "output waits" };
  }

  /** {@inheritDoc Machine.poll} */
  poll(): Action<TcpPunchEvent> | undefined {
    return this.#outbox.poll();
  }

  get #isControlling(): boolean {
    return this.#role === "controlling";
  }

  #pulse(pulse: Pulse, now: Instant): void {
    switch (pulse) {
      case "ask servers":
        return this.#askServers(now);
      case "gather":
        for (const [id, stream] of [...this.#streams]) {
          // One that has answered stays, to keep the mapping.
          if (stream.kind === "server" && !hasAnswered(stream)) this.#closeStream(id);
        }
        return this.#checkGathered();
      case "dial":
        this.#listenNoMore();
        return this.#timers.set("dial now", now + TURN_MS, "dial");
      case "dial now":
        return this.#dial(now);
      case "listen":
        return this.#listen();
      case "overall":
        return this.#giveUp();
    }
  }

  // The one port, listening or dialling

  #listen(): void {
    this.#sockets = this.#bases.map(({ key, local }) => ({ kind: "tcp", key, local }));
  }

  #listenNoMore(): void {
    this.#sockets = [];
  }

  #askServers(now: Instant): void {
    for (const base of this.#bases) {
      for (const server of this.#servers) {
        if (!canPair(base.local.address, server.address)) continue;
        const { key, data } = this.#request({}, undefined);
        const id = this.#lastId++;
        const framer = new StunFramer();
        this.#streams.set(id, { kind: "server", base, server, framer, key, request: data });
        this.#outbox.act({
          type: "stream",
          id,
          do: "connect",
          to: server,
          local: base.local,
          timeoutMs: SERVER_MS,
        });
      }
    }
    this.#timers.set("gather", now + this.#gatherTimeoutMs, "servers are silent");
    this.#checkGathered();
  }

  #hearServer(id: number, stream: ServerStream, data: Uint8Array): void {
    const { base, server, framer, key } = stream;
    for (const bytes of framer.push(data)) {
      const message = decodeStun(bytes);
      if (typeof message === "string" || transactionKey(message.transactionId) !== key) continue;
      const { xorMappedAddress, mappedAddress } = message.attributes;
      const mapped = xorMappedAddress ?? mappedAddress;
      if (message.class !== "success" || !mapped || hasAnswered(stream)) continue;
      if (familyOf(mapped.address) !== familyOf(server.address)) continue;
      const isFirst = base.observations.length === 0;
      base.observations.push({ server, mapped });
      if (isFirst) this.#addLocal("srflx", mapped, base, server.address);
    }
    if (framer.isBroken) this.#closeStream(id);
    this.#checkGathered();
  }

  #checkGathered(): void {
    if (this.#phase !== "gathering") return;
    const isAsking = [...this.#streams.values()].some((stream) =>
      stream.kind === "server" && !hasAnswered(stream)
    );
    if (isAsking && this.#timers.at("gather") !== undefined) return;
    this.#timers.delete("gather");
    this.#phase = "gathered";
    this.#outbox.emit({ type: "gathered", rendezvous: this.rendezvous });
  }

  #addLocal(
    type: "host" | "srflx",
    endpoint: Endpoint,
    base: Base,
    server: string,
    preference: number = typePreference(type),
  ): void {
    if (whyUnreachable(endpoint) !== undefined) return;
    if (this.#local.some((known) => isSameEndpoint(known, endpoint))) return;
    const place = this.#local.filter((known) => known.type === type).length;
    this.#local.push({
      foundation: this.#foundations.of(type, "tcp", base.local.address, server),
      transport: "tcp",
      priority: candidatePriority(preference, tcpLocalPreference(type, "so", 8191 - place)),
      address: endpoint.address,
      port: endpoint.port,
      type,
      tcpType: "so",
      ...(type === "srflx" && { related: base.local }),
    });
  }

  #hint(): NatHint {
    const base = this.#bases.find(({ observations }) => observations.length > 0);
    const seen = base?.observations ?? [];
    return {
      mapping: behaviourOf(seen, base?.local),
      ports: [...new Set(seen.map(({ mapped }) => mapped.port))],
    };
  }

  // Dialling

  #addTarget(candidate: Candidate, dueAt: Instant): void {
    const { transport, tcpType, address, port } = candidate;
    if (transport !== "tcp" || tcpType === undefined) return;
    // We open at the same time as the peer, or are the one who does.
    if (!canMeet("so", tcpType) && !canMeet("active", tcpType)) return;
    for (const base of this.#bases) {
      if (!canPair(base.local.address, address)) continue;
      const to = { address, port };
      const isKnown = this.#targets.some((one) => one.base === base && isSameEndpoint(one.to, to));
      if (!isKnown) this.#targets.push({ base, to, dueAt });
    }
  }

  #dial(now: Instant): void {
    this.#timers.delete("dial now");
    if (this.#phase !== "gathered") return;
    if (this.#nominated) return this.#listen();
    for (const target of this.#targets) {
      if (target.dueAt === undefined || target.dueAt > now + TURN_MS) continue;
      target.dueAt = undefined;
      if (!this.#mayDial(target.to)) continue;
      this.stats.dials++;
      const id = this.#lastId++;
      this.#streams.set(id, peerStream(id, target));
      this.#outbox.act({
        type: "stream",
        id,
        do: "connect",
        to: target.to,
        local: target.base.local,
        timeoutMs: DIAL_MS,
      });
    }
    this.#timers.set("listen", now + TURN_MS, "listen again");
    this.#planDial(now);
  }

  #mayDial(to: Endpoint): boolean {
    const key = formatEndpoint(to);
    const count = this.#dialsTo.get(key) ?? 0;
    if (count < MAX_DIALS_PER_ENDPOINT) {
      this.#dialsTo.set(key, count + 1);
      return true;
    }
    this.stats.withheld++;
    return false;
  }

  /** The next round, when the first of those that wait is due. */
  #planDial(now: Instant): void {
    const due = this.#targets.flatMap(({ dueAt }) => dueAt ?? []);
    if (due.length === 0 || this.#nominated) return this.#timers.delete("dial");
    const at = Math.max(now + 2 * TURN_MS, Math.min(...due) - TURN_MS);
    this.#timers.set("dial", at, "dial again");
  }

  /** A stream is over; what was dialled is dialled again, sooner at first. */
  #over(stream: PeerStream, now: Instant): void {
    if (this.#nominated === stream) this.#nominated = undefined;
    const { target } = stream;
    if (target) {
      const soonMs = uniform(this.#random, RETRY_MS, MAX_RETRY_MS);
      target.dueAt = now + Math.max(soonMs, this.#pauseMs(target.to, now));
    }
    if (this.#nominated) return;
    this.#planDial(now);
    this.#chooseAmongOpen(now);
  }

  /** What makes the dials that an endpoint is left last: the peer may come late. */
  #pauseMs(to: Endpoint, now: Instant): number {
    const count = this.#dialsTo.get(formatEndpoint(to)) ?? 0;
    const leftMs = this.#startedAt + this.#timeoutMs - now;
    return count < EAGER_DIALS ? 0 : leftMs / (MAX_DIALS_PER_ENDPOINT - count + 1);
  }

  // What comes up

  #accept(
    id: number,
    { local, peer }: StreamResult & { readonly type: "open" },
    now: Instant,
  ): void {
    const strangers = [...this.#streams.values()].filter((stream) =>
      stream.kind === "peer" && !stream.isPeer && stream.target === undefined
    );
    if (this.#phase !== "gathered" || !this.#peer || strangers.length >= MAX_STRANGERS) {
      this.stats.turnedAway++;
      return this.#outbox.act({ type: "stream", id, do: "close" });
    }
    const stream = peerStream(id, undefined);
    this.#streams.set(id, stream);
    this.#opened(id, stream, { type: "open", local, peer }, now);
  }

  #opened(
    id: number,
    stream: Stream,
    { local, peer }: StreamResult & { readonly type: "open" },
    now: Instant,
  ): void {
    if (stream.kind === "server") {
      return this.#outbox.act({ type: "stream", id, do: "write", data: stream.request });
    }
    this.stats.opened++;
    stream.local = local;
    stream.peer = peer;
    this.#timers.set(id, now + HELLO_MS, "a stream says nothing");
    this.#check(stream, false);
  }

  #check(stream: PeerStream, useCandidate: boolean): void {
    const isControlling = this.#isControlling;
    const { key, data } = this.#request({
      username: `${this.#peer!.ufrag}:${this.#own.public.ufrag}`,
      priority: candidatePriority(typePreference("prflx"), tcpLocalPreference("prflx", "so", 0)),
      ...(isControlling
        ? { iceControlling: this.#tieBreaker }
        : { iceControlled: this.#tieBreaker }),
      ...(useCandidate && { useCandidate: true as const }),
    }, this.#peerKey);
    stream.asked.set(key, { useCandidate, isControlling });
    this.#write(stream, data);
  }

  #request(attributes: StunAttributes, key: Uint8Array | undefined): {
    readonly key: string;
    readonly data: Uint8Array;
  } {
    const transactionId = new Uint8Array(12);
    this.#random.fill(transactionId);
    const fields = {
      class: "request",
      method: STUN_METHOD.BINDING,
      transactionId,
      attributes,
    } as const;
    return {
      key: transactionKey(transactionId),
      data: encodeStun(fields, { key, fingerprint: key !== undefined }),
    };
  }

  /** Frames as RFC 4571 §2 does: 16 bits of length, and the message. */
  #write({ id }: PeerStream, message: Uint8Array): void {
    const data = new Uint8Array(2 + message.length);
    putU16(data, 0, message.length);
    data.set(message, 2);
    this.#outbox.act({ type: "stream", id, do: "write", data });
  }

  #hear(stream: PeerStream, data: Uint8Array, now: Instant): void {
    const unread = new Uint8Array(stream.unread.length + data.length);
    unread.set(stream.unread);
    unread.set(data, stream.unread.length);
    stream.unread = unread;
    while (this.#streams.get(stream.id) === stream && stream.unread.length >= 2) {
      const length = u16(stream.unread, 0);
      if (length > MAX_FRAME) return this.#drop(stream.id, now);
      if (stream.unread.length < 2 + length) return;
      const message = decodeStun(stream.unread.slice(2, 2 + length));
      stream.unread = stream.unread.subarray(2 + length);
      if (typeof message === "string" || !this.#take(stream, message, now)) {
        this.stats.forged++;
        return this.#drop(stream.id, now);
      }
    }
  }

  /** False where the peer has not said it. */
  #take(stream: PeerStream, message: StunMessage, now: Instant): boolean {
    if (message.method !== STUN_METHOD.BINDING) return false;
    if (message.class === "request") return this.#takeRequest(stream, message, now);
    const asked = stream.asked.get(transactionKey(message.transactionId));
    if (!asked || !hasIntegrity(message, this.#peerKey!, "sha1")) return false;
    stream.asked.delete(transactionKey(message.transactionId));
    this.#trust(stream);
    const { errorCode, xorMappedAddress } = message.attributes;
    if (message.class === "success") {
      stream.mapped ??= xorMappedAddress;
      if (asked.useCandidate) stream.isNominated = true;
      this.#settle(stream, now);
      return true;
    }
    if (errorCode?.code !== STUN_ERROR.ROLE_CONFLICT) return false;
    // Roles may have been switched already, by a check of the peer (RFC 8445 §7.2.5.1).
    if (asked.isControlling === this.#isControlling) {
      this.#role = this.#isControlling ? "controlled" : "controlling";
      this.#tieBreaker = BigInt(`0x${randomTieBreaker(this.#random)}`);
    }
    if (this.#nominated === stream) this.#nominated = undefined;
    this.#check(stream, false);
    return true;
  }

  #takeRequest(stream: PeerStream, message: StunMessage, now: Instant): boolean {
    const { username, priority, useCandidate, iceControlled, iceControlling } = message.attributes;
    const wanted = `${this.#own.public.ufrag}:${this.#peer!.ufrag}`;
    const isIntact = hasIntegrity(message, this.#ownKey, "sha1");
    if (username !== wanted || priority === undefined || !isIntact) return false;
    const answer = (attributes: StunAttributes, isError = false) =>
      this.#write(
        stream,
        encodeStun({
          class: isError ? "error" : "success",
          method: STUN_METHOD.BINDING,
          transactionId: message.transactionId,
          attributes,
        }, { key: this.#ownKey, fingerprint: true }),
      );
    this.#trust(stream);
    const unknown = unknownRequired(message);
    if (unknown.length > 0) {
      const errorCode = { code: STUN_ERROR.UNKNOWN_ATTRIBUTE, reason: "Unknown attribute" };
      answer({ errorCode, unknownAttributes: unknown }, true);
      return true;
    }
    const theirs = this.#isControlling ? iceControlling : iceControlled;
    if (theirs !== undefined) {
      // The larger one controls (RFC 8445 §7.3.1.1).
      if ((this.#tieBreaker >= theirs) === this.#isControlling) {
        answer({ errorCode: { code: STUN_ERROR.ROLE_CONFLICT, reason: "Role conflict" } }, true);
        return true;
      }
      this.#role = this.#isControlling ? "controlled" : "controlling";
      this.#nominated = undefined;
    }
    answer({ xorMappedAddress: stream.peer! });
    if (useCandidate && !this.#isControlling) stream.isNominated = true;
    this.#settle(stream, now);
    return true;
  }

  #trust(stream: PeerStream): void {
    stream.isPeer = this.#hasHeardPeer = true;
    if (this.#nominated !== stream) this.#timers.delete(stream.id);
  }

  /** Chooses, where that is ours; and hands over what is chosen, once nothing more is to come. */
  #settle(stream: PeerStream, now: Instant): void {
    if (this.#isControlling && !this.#nominated && stream.mapped) {
      this.#nominated = stream;
      this.#timers.set(stream.id, now + HELLO_MS, "the chosen stream does not agree");
      return this.#check(stream, true);
    }
    // What the peer answers comes before what its application sends: nothing may be on its way.
    if (!stream.isNominated || stream.asked.size > 0) return;
    const { id, local, peer, mapped, unread } = stream;
    this.#streams.delete(id);
    this.#outbox.act({ type: "stream", id, do: "hand-over", unread: unread.slice() });
    this.#end({
      type: "connected",
      stream: id,
      local: local!,
      remote: peer!,
      mapped: mapped ?? local!,
      elapsedMs: now - this.#startedAt,
    });
  }

  /** The stream that was chosen is gone: another one that is up may do. */
  #chooseAmongOpen(now: Instant): void {
    for (const stream of this.#streams.values()) {
      if (stream.kind === "peer" && stream.mapped) return this.#settle(stream, now);
    }
  }

  /** Closes a stream that is not what it should be. */
  #drop(id: number, now: Instant): void {
    const stream = this.#streams.get(id);
    this.#closeStream(id);
    if (stream?.kind === "peer") this.#over(stream, now);
  }

  #closeStream(id: number): void {
    this.#timers.delete(id);
    if (this.#streams.delete(id)) this.#outbox.act({ type: "stream", id, do: "close" });
  }

  #giveUp(): void {
    if (this.#hasHeardPeer) {
      return this.#fail("one-way", "A connection came up, but the peer did not agree to it");
    }
    if (isHard(this.#hint()) && isHard(this.#peer?.hint)) {
      return this.#fail(
        "hard-nat",
        "Both NATs give each destination another port: a port that the gateway maps is needed",
      );
    }
    this.#fail("no-answer", "No connection came up");
  }

  #fail(reason: IceFailure, message: string): void {
    this.#end({ type: "failed", reason, message });
  }

  #end(event: TcpPunchEvent | undefined): void {
    this.#phase = "closed";
    this.#timers.clear();
    for (const id of [...this.#streams.keys()]) this.#closeStream(id);
    this.#listenNoMore();
    if (event) this.#outbox.emit(event);
  }
}

function hasAnswered({ base, server }: ServerStream): boolean {
  return base.observations.some((one) => isSameEndpoint(one.server, server));
}

function peerStream(id: number, target: Target | undefined): PeerStream {
  return {
    kind: "peer",
    id,
    target,
    local: undefined,
    peer: undefined,
    unread: new Uint8Array(0),
    asked: new Map(),
    mapped: undefined,
    isPeer: false,
    isNominated: false,
  };
}
