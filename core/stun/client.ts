/**
 * The STUN client machine (RFC 8489 §6, §9, §10): requests of any method over UDP, with
 * retransmission, and over TCP; credentials, redirection, errors. Each request ends with one event.
 *
 * It lists no sockets: a request names the one by which it leaves. Of what comes by a socket it takes
 * answers to its own requests alone; the rest is for others on that socket.
 *
 * @module
 */
import { checkAddress, checkChoice, checkInteger, checkPort, checkString } from "../check.ts";
import { classify, isLoopback } from "../cidr.ts";
import { familyOf, formatEndpoint, isSameEndpoint } from "../ip.ts";
import type { Action, DebugTimeout, Endpoint, Instant, Machine, StreamResult } from "../machine.ts";
import { Outbox } from "../outbox.ts";
import type { RandomSource } from "../random.ts";
import { earliest, Timers } from "../timers.ts";
import {
  decodeStun,
  encodeStun,
  hasIntegrity,
  STUN_ERROR,
  STUN_METHOD,
  STUN_PASSWORD_ALGORITHM,
  type StunAttributes,
  type StunMessage,
  type StunPasswordAlgorithm,
  type StunSeal,
  transactionKey,
  unknownRequired,
} from "./codec.ts";
import { StunFramer } from "./framing.ts";
import { type IntegrityHash, longTermKey, shortTermKey, userhash } from "./integrity.ts";

/** How often a request is sent before silence means failure (RFC 8489 §6.2.1, Rc). */
export const STUN_MAX_SENDS = 7;
/** How many RTOs after the last one (Rm). */
export const STUN_LAST_WAIT = 16;
/** The first retransmission time where nothing is known of the server, milliseconds. */
export const STUN_INITIAL_RTO_MS = 500;
/** How long an answer over TCP may take, milliseconds (Ti, RFC 8489 §6.2.2). */
export const STUN_TCP_TIMEOUT_MS = 39_500;
/**
 * The least retransmission time, milliseconds: a server on the next desk answers within one, and
 * would be given up after a pause of a tenth of a second.
 */
const MIN_RTO_MS = 100;
/** What was measured of a server is forgotten after this, milliseconds (RFC 8489 §6.2.1). */
const RTO_LIFETIME_MS = 600_000;
/** How many servers' times and credentials are remembered. */
const MAX_SERVERS = 64;
/** How many requests to one server may be under way at once (RFC 8489 §6.2). */
const MAX_OUTSTANDING = 10;
/** How often a request is sent anew after a 5xx (RFC 8489 §6.3.4). */
const MAX_RESENDS = 4;
/** How often a new nonce is taken up for one request. */
const MAX_STALE = 3;
/** How often one request follows a redirection. */
const MAX_REDIRECTS = 4;

/** With what a request is authenticated (RFC 8489 §9). */
export interface StunCredentials {
  /** Short-term ones go with the first request; long-term ones wait to be asked for. */
  readonly type: "short-term" | "long-term";
  /** The user's name. */
  readonly username: string;
  /** The user's password. */
  readonly password: string;
}

/** A request to make. */
export interface StunRequest {
  /** Whom to ask. */
  readonly server: Endpoint;
  /** Default `"udp"`. */
  readonly transport?: "udp" | "tcp";
  /** UDP: the key of the socket to send by. Default `"client"`. */
  readonly socket?: string;
  /** 0…4095. Default Binding. */
  readonly method?: number;
  /** What it says, save what authenticates it. */
  readonly attributes?: StunAttributes;
  /** With what it is authenticated. */
  readonly credentials?: StunCredentials;
  /** Whether it carries a FINGERPRINT. Default false. */
  readonly fingerprint?: boolean;
  /** UDP: how often it is sent, 1…16. Default 7. */
  readonly maxSends?: number;
  /** UDP: how many RTOs to wait after the last one, 1…64. Default 16. */
  readonly lastWait?: number;
  /** Whether a 300 is followed to the server that it names. Default true. */
  readonly followsRedirects?: boolean;
}

/** Why a request came to nothing. */
export type StunFailure =
  /** Nobody answered in time. */
  | { readonly kind: "no-answer" }
  /** ICMP or TCP says that nobody listens there. */
  | { readonly kind: "unreachable" }
  /** The connection failed or ended. */
  | { readonly kind: "network" }
  /** The server refused. */
  | {
    readonly kind: "refused";
    /** 300…699. */
    readonly code: number;
    /** In the server's words. */
    readonly reason: string;
    /** With 420: what it does not know. */
    readonly unknownAttributes: readonly number[];
  }
  /** All that came was not made with our password (RFC 8489 §9.1.4, §9.2.5). */
  | { readonly kind: "integrity" }
  /** Somebody on the way took out the better way to make keys (RFC 8489 §9.2.1). */
  | { readonly kind: "bid-down" }
  /** The answer lacks what it must have, or has what nobody knows. */
  | { readonly kind: "protocol-violation" }
  /** It was given up. */
  | { readonly kind: "closed" };

/** What a request came to; the last that is told of it. */
export type StunClientEvent =
  /** It was answered. */
  | {
    readonly type: "answered";
    readonly id: number;
    /** Who answered; the source of the datagram. */
    readonly from: Endpoint;
    /** Whom it was asked in the end: after a redirection another server. */
    readonly server: Endpoint;
    /** UDP: the key of the socket by which it came. TCP: `"tcp"`. */
    readonly socket: string;
    /** TCP: this host's end of the connection. */
    readonly local: Endpoint | undefined;
    /** Copies of what it says. */
    readonly attributes: StunAttributes;
    /** From the request to the answer, milliseconds; undefined where it was sent twice. */
    readonly roundTripMs: number | undefined;
  }
  /** It failed. */
  | { readonly type: "failed"; readonly id: number; readonly failure: StunFailure };

/** What {@linkcode StunClient} takes. */
export interface StunClientOptions {
  /** Unguessable in earnest: transaction ids come of it. */
  readonly random: RandomSource;
  /** What SOFTWARE says. Default `"natkit"`; an empty one leaves it out. */
  readonly software?: string;
  /** The first RTO where nothing is known of a server, milliseconds. Default 500. */
  readonly initialRtoMs?: number;
}

/** What authenticates requests to one server (RFC 8489 §9.2.3.2). */
interface Session {
  readonly realm: string;
  nonce: string;
  algorithms: readonly StunPasswordAlgorithm[] | undefined;
  algorithm: StunPasswordAlgorithm | undefined;
  key: Uint8Array;
  isAnonymous: boolean;
  readonly username: string;
  readonly password: string;
}

interface Stream {
  readonly id: number;
  readonly server: Endpoint;
  readonly framer: StunFramer;
  readonly transactions: Set<Transaction>;
  local: Endpoint | undefined;
}

interface Transaction {
  readonly id: number;
  readonly request: StunRequest;
  readonly socket: string;
  server: Endpoint;
  /** Of the transaction id on the wire; undefined while it waits for its turn. */
  key: string | undefined;
  bytes: Uint8Array;
  seal: StunSeal;
  sends: number;
  rtoMs: number;
  sentAt: Instant;
  stream: Stream | undefined;
  /** Something came that was not made with our password. */
  isViolated: boolean;
  challenges: number;
  stale: number;
  resends: number;
  readonly tried: Endpoint[];
}

interface Measured {
  smoothedMs: number;
  varianceMs: number;
  at: Instant;
}

/** What RFC 8489 §18.1's bits at the head of a nonce say. */
function featuresOf(nonce: string): { hasAlgorithms: boolean; isAnonymous: boolean } {
  const match = /^obMatJos2([A-Za-z0-9+/])/.exec(nonce);
  // Bits 0 and 1 are the first two of the first of four base64 characters.
  const first = match ? BASE64.indexOf(match[1]!) : 0;
  return { hasAlgorithms: (first & 32) !== 0, isAnonymous: (first & 16) !== 0 };
}

const BASE64 = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/** The machine; see the head of this file. */
export class StunClient implements Machine<StunClientEvent> {
  /** Counters. */
  readonly stats = {
    requests: 0,
    sent: 0,
    answers: 0,
    errors: 0,
    dropped: { malformed: 0, "no-answer": 0, unknown: 0, "wrong-source": 0, integrity: 0 },
  };
  readonly #random: RandomSource;
  readonly #software: string;
  readonly #initialRtoMs: number;
  readonly #outbox = new Outbox<StunClientEvent>();
  readonly #timers = new Timers<number>();
  readonly #transactions = new Map<number, Transaction>();
  readonly #byKey = new Map<string, Transaction>();
  readonly #waiting: Transaction[] = [];
  readonly #outstanding = new Map<string, number>();
  readonly #measured = new Map<string, Measured>();
  readonly #sessions = new Map<string, Session>();
  /** Which integrity attribute a server answered short-term users with, by endpoint. */
  readonly #shortTerm = new Map<string, IntegrityHash>();
  readonly #streams = new Map<number, Stream>();
  #lastId = 0;
  #lastStream = -1;

  /**
   * Makes the client.
   *
   * @throws {RangeError} Where an option cannot be.
   */
  constructor(options: StunClientOptions) {
    this.#random = options.random;
    this.#software = options.software ?? "natkit";
    this.#initialRtoMs = checkInteger(
      "initialRtoMs",
      options.initialRtoMs ?? STUN_INITIAL_RTO_MS,
      1,
      60_000,
    );
  }

  /**
   * Asks; the answer is an event with the id that this returns.
   *
   * @throws {TypeError | RangeError} Where the request cannot be made.
   */
  request(request: StunRequest, now: Instant): number {
    const { credentials } = request;
    const server = {
      address: checkAddress("server.address", request.server.address),
      port: checkPort("server.port", request.server.port),
    };
    checkInteger("maxSends", request.maxSends ?? STUN_MAX_SENDS, 1, 16);
    checkInteger("lastWait", request.lastWait ?? STUN_LAST_WAIT, 1, 64);
    if (credentials !== undefined) checkCredentials(credentials);
    const transaction: Transaction = {
      id: this.#lastId + 1,
      request,
      socket: request.socket ?? "client",
      server,
      key: undefined,
      bytes: new Uint8Array(0),
      seal: {},
      sends: 0,
      rtoMs: 0,
      sentAt: now,
      stream: undefined,
      isViolated: false,
      challenges: 0,
      stale: 0,
      resends: 0,
      tried: [],
    };
    // What cannot be encoded throws here, before anything is kept.
    this.#encode(transaction, new Uint8Array(12));
    this.#outbox.touch(now);
    this.#lastId++;
    this.stats.requests++;
    this.#transactions.set(transaction.id, transaction);
    this.#begin(transaction, now);
    return transaction.id;
  }

  /** Gives a request up: it ends as `closed`, unless it is over. */
  cancel(id: number, now: Instant): void {
    this.#outbox.touch(now);
    const transaction = this.#transactions.get(id);
    if (transaction) this.#fail(transaction, { kind: "closed" }, now);
  }

  /** Gives all requests up. */
  close(now: Instant): void {
    this.#outbox.touch(now);
    for (const transaction of [...this.#transactions.values()]) {
      this.#fail(transaction, { kind: "closed" }, now);
    }
  }

  /** Takes a datagram; false where it is no answer to a request of this machine. */
  handleDatagram(data: Uint8Array, from: Endpoint, socket: string, now: Instant): boolean {
    this.#outbox.touch(now);
    const message = this.#decode(data);
    if (!message) return false;
    const transaction = this.#byKey.get(transactionKey(message.transactionId));
    if (!transaction || transaction.stream) {
      this.stats.dropped.unknown++;
      return false;
    }
    // Who was asked to answer from or to somewhere else may; the transaction id vouches for it.
    const { changeRequest, responsePort } = transaction.request.attributes ?? {};
    const isFromServer = isSameEndpoint(from, transaction.server);
    if (
      (!isFromServer && !changeRequest) ||
      (socket !== transaction.socket && responsePort === undefined)
    ) {
      this.stats.dropped["wrong-source"]++;
      return true;
    }
    this.#answer(transaction, message, from, socket, now);
    return true;
  }

  /** Ends what was asked of `to` by that socket (a hard ICMP error, RFC 8489 §6.2.1). */
  handleUnreachable(to: Endpoint, socket: string, now: Instant): void {
    this.#outbox.touch(now);
    for (const transaction of [...this.#byKey.values()]) {
      if (transaction.stream || transaction.socket !== socket) continue;
      if (isSameEndpoint(transaction.server, to)) {
        this.#fail(transaction, { kind: "unreachable" }, now);
      }
    }
  }

  /** Takes what happens to its connections. */
  handleStream(id: number, happened: StreamResult, now: Instant): void {
    this.#outbox.touch(now);
    const stream = this.#streams.get(id);
    if (!stream) return;
    switch (happened.type) {
      case "open":
        stream.local = happened.local;
        for (const { bytes } of stream.transactions) {
          this.#outbox.act({ type: "stream", id, do: "write", data: bytes });
          this.stats.sent++;
        }
        break;
      case "data":
        this.#read(stream, happened.data, now);
        break;
      case "closed":
        this.#streams.delete(id);
        for (const transaction of [...stream.transactions]) {
          const kind = happened.reason === "refused" ? "unreachable" : "network";
          this.#fail(transaction, { kind }, now);
        }
    }
  }

  /** Retransmits, and gives up what is over. */
  handleTimeout(now: Instant): void {
    this.#outbox.touch(now);
    for (const id of this.#timers.takeDue(now)) {
      const transaction = this.#transactions.get(id);
      if (transaction) this.#timeout(transaction, now);
    }
  }

  /** When {@linkcode StunClient.handleTimeout} is due. */
  nextTimeout(): Instant | undefined {
    return this.#outbox.wakeAt() ?? this.#timers.nextAt();
  }

  /** The same with its reason. */
  debugTimeout(): DebugTimeout | undefined {
    const at = this.#outbox.wakeAt();
    if (at !== undefined) return { at, reason: "output waits" };
    return earliest(this.#timers.next());
  }

  /** The next action. */
  poll(): Action<StunClientEvent> | undefined {
    return this.#outbox.poll();
  }

  // ----------------------------------------------------------------------------- transactions ---

  /** Starts it, or has it wait until fewer are under way to that server. */
  #begin(transaction: Transaction, now: Instant): void {
    const { address } = transaction.server;
    const count = this.#outstanding.get(address) ?? 0;
    if (count >= MAX_OUTSTANDING) {
      this.#waiting.push(transaction);
      return;
    }
    this.#outstanding.set(address, count + 1);
    this.#start(transaction, now);
  }

  /** A new transaction on the wire for the same request. */
  #start(transaction: Transaction, now: Instant): void {
    if (transaction.key !== undefined) this.#byKey.delete(transaction.key);
    const id = new Uint8Array(12);
    this.#random.fill(id);
    transaction.key = transactionKey(id);
    this.#byKey.set(transaction.key, transaction);
    this.#encode(transaction, id);
    transaction.sends = 0;
    transaction.sentAt = now;
    if (transaction.request.transport === "tcp") return this.#startOnStream(transaction, now);
    transaction.rtoMs = this.#rtoMs(transaction.server.address, now);
    this.#send(transaction, now);
  }

  #encode(transaction: Transaction, transactionId: Uint8Array): void {
    const { request, server } = transaction;
    const { credentials, fingerprint } = request;
    const place = formatEndpoint(server);
    let attributes: StunAttributes = {
      ...(this.#software !== "" && { software: this.#software }),
      ...request.attributes,
    };
    let seal: StunSeal = { fingerprint };
    if (credentials?.type === "short-term") {
      const { username, password } = credentials;
      attributes = { ...attributes, username };
      const integrity = this.#shortTerm.get(place) ?? "both";
      seal = { fingerprint, key: shortTermKey(password), integrity };
    } else if (credentials) {
      const session = this.#sessions.get(place);
      if (session?.username === credentials.username && session.password === credentials.password) {
        const { realm, nonce, algorithms, algorithm, key } = session;
        attributes = {
          ...attributes,
          ...(session.isAnonymous
            ? { userhash: userhash(session.username, realm) }
            : { username: session.username }),
          realm,
          nonce,
          ...(algorithms && { passwordAlgorithms: algorithms }),
          ...(algorithm && { passwordAlgorithm: algorithm }),
        };
        seal = { fingerprint, key, integrity: algorithms ? "sha256" : "sha1" };
      }
    }
    transaction.seal = seal;
    transaction.bytes = encodeStun({
      class: "request",
      method: request.method ?? STUN_METHOD.BINDING,
      transactionId,
      attributes,
    }, seal);
  }

  #send(transaction: Transaction, now: Instant): void {
    const { id, socket, server, bytes, request } = transaction;
    transaction.sends++;
    this.stats.sent++;
    this.#outbox.send(socket, server, bytes, id);
    // RFC 8489 §6.2.1: the wait doubles; after the last one it is Rm times the first.
    const isLast = transaction.sends >= (request.maxSends ?? STUN_MAX_SENDS);
    const waitMs = isLast
      ? transaction.rtoMs * (request.lastWait ?? STUN_LAST_WAIT)
      : transaction.rtoMs * 2 ** (transaction.sends - 1);
    this.#timers.set(id, now + waitMs, isLast ? "give a request up" : "retransmit a request");
  }

  #timeout(transaction: Transaction, now: Instant): void {
    // A pause after a 5xx is over.
    if (transaction.key === undefined) return this.#start(transaction, now);
    const isOver = transaction.stream !== undefined ||
      transaction.sends >= (transaction.request.maxSends ?? STUN_MAX_SENDS);
    if (!isOver) return this.#send(transaction, now);
    this.#fail(transaction, { kind: transaction.isViolated ? "integrity" : "no-answer" }, now);
  }

  #fail(transaction: Transaction, failure: StunFailure, now: Instant): void {
    this.#finish(transaction, now);
    const { id } = transaction;
    this.#outbox.emit({ type: "failed", id, failure }, id);
  }

  #finish(transaction: Transaction, now: Instant): void {
    const { id, server } = transaction;
    this.#transactions.delete(id);
    this.#timers.delete(id);
    this.#outbox.unsend(id);
    this.#leaveStream(transaction);
    if (transaction.key !== undefined) this.#byKey.delete(transaction.key);
    const place = this.#waiting.indexOf(transaction);
    if (place >= 0) this.#waiting.splice(place, 1);
    else this.#release(server.address, now);
  }

  /** One fewer is under way to that server: another may start. */
  #release(address: string, now: Instant): void {
    const count = this.#outstanding.get(address)! - 1;
    if (count === 0) this.#outstanding.delete(address);
    else this.#outstanding.set(address, count);
    const next = this.#waiting.findIndex(({ server }) => server.address === address);
    if (next >= 0) this.#begin(this.#waiting.splice(next, 1)[0]!, now);
  }

  // ---------------------------------------------------------------------------------- answers ---

  #decode(data: Uint8Array): StunMessage | undefined {
    const message = decodeStun(data);
    if (typeof message === "string") {
      this.stats.dropped.malformed++;
      return undefined;
    }
    if (message.class === "success" || message.class === "error") return message;
    this.stats.dropped["no-answer"]++;
    return undefined;
  }

  #answer(
    transaction: Transaction,
    message: StunMessage,
    from: Endpoint,
    socket: string,
    now: Instant,
  ): void {
    if (message.method !== (transaction.request.method ?? STUN_METHOD.BINDING)) {
      this.stats.dropped.unknown++;
      return;
    }
    if (!this.#isBelieved(transaction, message)) {
      this.stats.dropped.integrity++;
      transaction.isViolated = true;
      // RFC 8489 §9.1.4: over TCP nobody else could have answered.
      if (transaction.stream) this.#fail(transaction, { kind: "integrity" }, now);
      return;
    }
    if (transaction.sends === 1) this.#measure(transaction, now);
    if (unknownRequired(message).length > 0) {
      return this.#fail(transaction, { kind: "protocol-violation" }, now);
    }
    if (message.class === "error") return this.#refused(transaction, message, now);
    const { attributes } = message;
    const isBinding = message.method === STUN_METHOD.BINDING;
    if (isBinding && !attributes.xorMappedAddress && !attributes.mappedAddress) {
      return this.#fail(transaction, { kind: "protocol-violation" }, now);
    }
    this.stats.answers++;
    const { id, server, stream } = transaction;
    const roundTripMs = transaction.sends === 1 ? now - transaction.sentAt : undefined;
    this.#finish(transaction, now);
    this.#outbox.emit({
      type: "answered",
      id,
      from,
      server,
      socket,
      local: stream?.local,
      attributes: copied(attributes),
      roundTripMs,
    }, id);
  }

  /** Whether an answer was made by who knows the password, where one was used (RFC 8489 §9). */
  #isBelieved(transaction: Transaction, message: StunMessage): boolean {
    const { seal, request } = transaction;
    const { attributes } = message;
    const code = attributes.errorCode?.code;
    if (request.credentials?.type === "long-term") {
      const isChallenge = code === STUN_ERROR.UNAUTHENTICATED || code === STUN_ERROR.STALE_NONCE;
      // It is looked at more closely where it is answered.
      if (message.class === "error" && isChallenge) return true;
      const { nonce, passwordAlgorithms } = attributes;
      if (nonce !== undefined && featuresOf(nonce).hasAlgorithms && !passwordAlgorithms) {
        return false;
      }
    }
    if (!seal.key) return true;
    const hash = seal.integrity === "both" ? undefined : seal.integrity;
    if (!hasIntegrity(message, seal.key, hash)) return false;
    if (seal.integrity === "both") {
      const place = formatEndpoint(transaction.server);
      remember(this.#shortTerm, place, message.integritySha256At > 0 ? "sha256" : "sha1");
    }
    return true;
  }

  #refused(transaction: Transaction, message: StunMessage, now: Instant): void {
    this.stats.errors++;
    const { errorCode, alternateServer, unknownAttributes = [] } = message.attributes;
    if (!errorCode) return this.#fail(transaction, { kind: "protocol-violation" }, now);
    const { code, reason } = errorCode;
    const failure: StunFailure = { kind: "refused", code, reason, unknownAttributes };
    if (code === STUN_ERROR.TRY_ALTERNATE && alternateServer) {
      if (this.#redirect(transaction, alternateServer, now)) return;
    } else if (transaction.request.credentials?.type === "long-term") {
      if (code === STUN_ERROR.UNAUTHENTICATED && transaction.challenges++ < 1) {
        return this.#authenticate(transaction, message, failure, now);
      }
      if (code === STUN_ERROR.STALE_NONCE && transaction.stale++ < MAX_STALE) {
        return this.#authenticate(transaction, message, failure, now);
      }
    }
    if (code >= 500 && code < 600 && transaction.resends < MAX_RESENDS) {
      return this.#pause(transaction, now);
    }
    this.#fail(transaction, failure, now);
  }

  /** Makes a session of a 401 or 438, and asks again with it (RFC 8489 §9.2.5). */
  #authenticate(
    transaction: Transaction,
    { attributes }: StunMessage,
    failure: StunFailure,
    now: Instant,
  ): void {
    const { username, password } = transaction.request.credentials!;
    const place = formatEndpoint(transaction.server);
    const { nonce, passwordAlgorithms } = attributes;
    const realm = attributes.realm ?? this.#sessions.get(place)?.realm;
    if (nonce === undefined || realm === undefined) return this.#fail(transaction, failure, now);
    const { hasAlgorithms, isAnonymous } = featuresOf(nonce);
    if (hasAlgorithms && !passwordAlgorithms) {
      return this.#fail(transaction, { kind: "bid-down" }, now);
    }
    const algorithm = passwordAlgorithms?.find(({ number }) =>
      number === STUN_PASSWORD_ALGORITHM.MD5 || number === STUN_PASSWORD_ALGORITHM.SHA_256
    );
    if (passwordAlgorithms && !algorithm) return this.#fail(transaction, failure, now);
    let key: Uint8Array;
    try {
      const name = algorithm?.number === STUN_PASSWORD_ALGORITHM.SHA_256 ? "SHA-256" : "MD5";
      key = longTermKey(username, realm, password, name);
    } catch {
      // A realm that no text can be.
      return this.#fail(transaction, { kind: "protocol-violation" }, now);
    }
    remember(this.#sessions, place, {
      realm,
      nonce,
      algorithms: passwordAlgorithms?.map(copiedAlgorithm),
      algorithm: algorithm && copiedAlgorithm(algorithm),
      key,
      isAnonymous,
      username,
      password,
    });
    this.#restart(transaction, now);
  }

  /** Asks another server (RFC 8489 §10); false where it was asked before, or too many were. */
  #redirect(transaction: Transaction, alternate: Endpoint, now: Instant): boolean {
    const { server, tried, request } = transaction;
    if (request.followsRedirects === false || !isWithinReach(server, alternate)) return false;
    tried.push(server);
    const isKnown = tried.some((each) => isSameEndpoint(each, alternate));
    if (isKnown || tried.length > MAX_REDIRECTS) return false;
    this.#leaveStream(transaction);
    if (transaction.key !== undefined) this.#byKey.delete(transaction.key);
    transaction.key = undefined;
    this.#timers.delete(transaction.id);
    this.#outbox.unsend(transaction.id);
    transaction.server = alternate;
    transaction.challenges = transaction.stale = 0;
    this.#release(server.address, now);
    this.#begin(transaction, now);
    return true;
  }

  /** Asks again in a while: the server has a fault that may pass. */
  #pause(transaction: Transaction, now: Instant): void {
    this.#leaveStream(transaction);
    this.#byKey.delete(transaction.key!);
    this.#outbox.unsend(transaction.id);
    transaction.key = undefined;
    const waitMs = this.#initialRtoMs * 2 ** transaction.resends++;
    this.#timers.set(transaction.id, now + waitMs, "ask again after an error of the server");
  }

  /** The same server again, with other words. */
  #restart(transaction: Transaction, now: Instant): void {
    this.#timers.delete(transaction.id);
    this.#outbox.unsend(transaction.id);
    this.#start(transaction, now);
  }

  // -------------------------------------------------------------------------------------- time ---

  /** RFC 6298 with RFC 8489's exceptions; only what was sent once tells (Karn). */
  #measure(transaction: Transaction, now: Instant): void {
    if (transaction.stream) return;
    const sample = now - transaction.sentAt;
    const { address } = transaction.server;
    const before = this.#measured.get(address);
    const isKnown = before && now - before.at < RTO_LIFETIME_MS;
    remember(this.#measured, address, {
      smoothedMs: isKnown ? before.smoothedMs * 7 / 8 + sample / 8 : sample,
      varianceMs: isKnown
        ? before.varianceMs * 3 / 4 + Math.abs(before.smoothedMs - sample) / 4
        : sample / 2,
      at: now,
    });
  }

  #rtoMs(address: string, now: Instant): number {
    const measured = this.#measured.get(address);
    if (!measured || now - measured.at >= RTO_LIFETIME_MS) return this.#initialRtoMs;
    const { smoothedMs, varianceMs } = measured;
    return Math.max(MIN_RTO_MS, Math.ceil(smoothedMs + Math.max(1, 4 * varianceMs)));
  }

  // --------------------------------------------------------------------------------------- TCP ---

  #startOnStream(transaction: Transaction, now: Instant): void {
    const { id, server, bytes } = transaction;
    let stream = transaction.stream ??
      [...this.#streams.values()].find((each) => isSameEndpoint(each.server, server));
    transaction.sends = 1;
    this.#timers.set(id, now + STUN_TCP_TIMEOUT_MS, "give a request up");
    if (stream?.local) {
      this.#outbox.act({ type: "stream", id: stream.id, do: "write", data: bytes });
      this.stats.sent++;
    }
    if (!stream) {
      stream = {
        id: ++this.#lastStream,
        server,
        framer: new StunFramer(),
        transactions: new Set(),
        local: undefined,
      };
      this.#streams.set(stream.id, stream);
      this.#outbox.act({
        type: "stream",
        id: stream.id,
        do: "connect",
        to: server,
        timeoutMs: STUN_TCP_TIMEOUT_MS,
      });
    }
    stream.transactions.add(transaction);
    transaction.stream = stream;
  }

  #read(stream: Stream, data: Uint8Array, now: Instant): void {
    for (const bytes of stream.framer.push(data)) {
      const message = this.#decode(bytes);
      if (!message) continue;
      const transaction = this.#byKey.get(transactionKey(message.transactionId));
      if (transaction?.stream === stream) {
        this.#answer(transaction, message, stream.server, "tcp", now);
      } else {
        this.stats.dropped.unknown++;
      }
    }
    if (!stream.framer.isBroken || !this.#streams.has(stream.id)) return;
    this.stats.dropped.malformed++;
    for (const transaction of [...stream.transactions]) {
      this.#fail(transaction, { kind: "protocol-violation" }, now);
    }
  }

  /** A connection that nobody waits on is closed. */
  #leaveStream(transaction: Transaction): void {
    const { stream } = transaction;
    if (!stream) return;
    transaction.stream = undefined;
    stream.transactions.delete(transaction);
    if (stream.transactions.size > 0 || !this.#streams.delete(stream.id)) return;
    this.#outbox.act({ type: "stream", id: stream.id, do: "close" });
  }
}

/** The password is not shown, whatever it is. */
function checkCredentials(credentials: StunCredentials): void {
  checkChoice("credentials.type", credentials?.type, ["short-term", "long-term"]);
  const username = checkString("credentials.username", credentials.username);
  if (typeof credentials.password !== "string") {
    throw new TypeError("'credentials.password' must be a string");
  }
  longTermKey(username, "realm", credentials.password);
}

/** Whether one server may send us to another: by the same socket, and to where a host may be. */
function isWithinReach(server: Endpoint, { address, port }: Endpoint): boolean {
  if (port === 0 || familyOf(address) !== familyOf(server.address)) return false;
  const kind = classify(address);
  if (kind === "loopback") return isLoopback(server.address);
  return kind !== "wildcard" && kind !== "multicast" && kind !== "broadcast";
}

/** Keeps a value among the newest. */
function remember<T>(kept: Map<string, T>, key: string, value: T): void {
  kept.delete(key);
  kept.set(key, value);
  if (kept.size > MAX_SERVERS) kept.delete(kept.keys().next().value!);
}

function copiedAlgorithm({ number, parameters }: StunPasswordAlgorithm): StunPasswordAlgorithm {
  return { number, parameters: new Uint8Array(parameters) };
}

/** What was read lies in what was lent: events outlive that. */
function copied(attributes: StunAttributes): StunAttributes {
  const copy: Record<string, unknown> = { ...attributes };
  for (const [name, value] of Object.entries(copy)) {
    if (value instanceof Uint8Array) copy[name] = new Uint8Array(value);
  }
  if (attributes.passwordAlgorithms) {
    copy["passwordAlgorithms"] = attributes.passwordAlgorithms.map(copiedAlgorithm);
  }
  if (attributes.passwordAlgorithm) {
    copy["passwordAlgorithm"] = copiedAlgorithm(attributes.passwordAlgorithm);
  }
  return copy;
}
