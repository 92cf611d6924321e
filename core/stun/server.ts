/**
 * The STUN server machine: Binding (RFC 8489 §6.3.1) over UDP and TCP, NAT behaviour discovery
 * (RFC 5780 §6) where it has two addresses and two ports, and RFC 3489's form for old clients.
 *
 * It keeps nothing of a request: an answer is made anew each time. What it sends goes to the address
 * that asked, and is little longer than what came; how often one address is answered is bounded,
 * because over UDP anybody can ask in another's name.
 *
 * @module
 */
import { checkAddress, checkInteger, checkPort } from "../check.ts";
import { isWildcard } from "../cidr.ts";
import { familyOf } from "../ip.ts";
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
import { earliest, Timers } from "../timers.ts";
import {
  decodeStun,
  encodeStun,
  STUN_ERROR,
  STUN_METHOD,
  STUN_PORT,
  type StunAttributes,
  type StunMessage,
  unknownRequired,
} from "./codec.ts";
import { StunFramer } from "./framing.ts";

/** How many addresses are counted at once; of more none is answered until the second is over. */
const MAX_SOURCES = 65_536;
/** The most padding of an answer: an Ethernet's MTU (RFC 5780 §6.1). */
const MAX_PADDING = 1500;
/** A connection on which nothing comes is closed after this, milliseconds. */
const STREAM_IDLE_MS = 600_000;
/** How many connections there are at most. */
const MAX_STREAMS = 256;
/** How many of those one address has at most: nobody is to keep all others out. */
const MAX_STREAMS_OF_HOST = 32;

/** What {@linkcode StunServer} takes. */
export interface StunServerOptions {
  /** Where it listens; port 0 takes a free one. Default any IPv4 address, port 3478. */
  readonly listen?: Endpoint;
  /**
   * Its other address and its other port, both different from the first, for RFC 5780: it then
   * listens at all four pairs of them. Neither may be a wildcard.
   */
  readonly alternate?: Endpoint;
  /** Whether it takes TCP connections. Default true. */
  readonly tcp?: boolean;
  /** How many requests of one address it answers in a second, 1…10⁹. Default 200. */
  readonly maxPerSecond?: number;
  /** What SOFTWARE says. Default `"natkit"`; an empty one leaves it out. */
  readonly software?: string;
}

/** What a server tells. */
export type StunServerEvent =
  /** It listens: once, when what it wants is open or could not be. */
  | {
    readonly type: "listening";
    /** Where it listens. */
    readonly local: Endpoint;
    /** Its other address and port; undefined where they are not wanted or could not be had. */
    readonly alternate: Endpoint | undefined;
    /** Whether it takes TCP connections there. */
    readonly tcp: boolean;
  }
  /** It cannot listen. */
  | { readonly type: "failed"; readonly code: "permission" | "network"; readonly message: string };

/** One of the four pairs of address and port, by which bits differ from the first one. */
type Place = 0 | 1 | 2 | 3;
const OTHER_PORT = 1, OTHER_ADDRESS = 2, OTHER_BOTH = 3;

const UDP_KEYS: readonly string[] = ["server", "other-port", "other-address", "other-both"];
const TCP_KEYS: readonly string[] = UDP_KEYS.map((key) => `tcp ${key}`);

interface Stream {
  readonly peer: Endpoint;
  readonly place: Place;
  readonly framer: StunFramer;
}

/** The machine; see the head of this file. */
export class StunServer implements Machine<StunServerEvent> {
  /** Counters. */
  readonly stats = {
    requests: 0,
    answers: 0,
    errors: 0,
    dropped: { malformed: 0, "no-request": 0, "too-many": 0, "no-socket": 0 },
  };
  readonly #listen: Endpoint;
  readonly #alternate: Endpoint | undefined;
  readonly #tcp: boolean;
  readonly #isWildcard: boolean;
  readonly #maxPerSecond: number;
  readonly #software: { readonly software?: string };
  readonly #outbox = new Outbox<StunServerEvent>();
  readonly #idle = new Timers<number>();
  readonly #streams = new Map<number, Stream>();
  readonly #open = new Map<string, Endpoint>();
  readonly #failed = new Set<string>();
  readonly #counts = new Map<string, number>();
  #countedFrom: Instant = 0;
  /** The four pairs of address and port, or the first alone; none before it is open. */
  #places: readonly Endpoint[] = [];
  /** Whether it has both addresses with both ports (RFC 5780 §6). */
  #isWhole = false;
  #sockets: readonly SocketSpec[];
  #isTold = false;
  #isClosed = false;

  /**
   * Makes the server.
   *
   * @throws {TypeError | RangeError} Where an option cannot be.
   */
  constructor(options: StunServerOptions = {}) {
    const { listen = { address: "0.0.0.0", port: STUN_PORT }, alternate } = options;
    this.#listen = {
      address: checkAddress("listen.address", listen.address),
      port: checkPort("listen.port", listen.port, 0),
    };
    if (alternate) this.#alternate = checkAlternate(this.#listen, alternate);
    this.#tcp = options.tcp ?? true;
    this.#isWildcard = isWildcard(this.#listen.address);
    this.#maxPerSecond = checkInteger("maxPerSecond", options.maxPerSecond ?? 200, 1, 1e9);
    const software = options.software ?? "natkit";
    this.#software = software === "" ? {} : { software };
    this.#sockets = this.#wanted();
  }

  /** The sockets that it wants: first one, then, when its port is known, the others. */
  readonly sockets = (): readonly SocketSpec[] => this.#sockets;

  /** Closes its sockets and connections. */
  close(now: Instant): void {
    this.#outbox.touch(now);
    for (const id of [...this.#streams.keys()]) this.#end(id);
    this.#isClosed = true;
    this.#sockets = [];
  }

  /** Tells that a socket is open, or failed. */
  handleSocket(key: string, result: SocketResult, now: Instant): void {
    this.#outbox.touch(now);
    if (this.#isClosed || !this.#sockets.some((spec) => spec.key === key)) return;
    if (result.ok) {
      this.#open.set(key, result.local);
    } else {
      // What was sent by an open one and did not leave is lost, as over UDP anything may be.
      if (result.isOpen) return;
      this.#open.delete(key);
      this.#failed.add(key);
      if (key === UDP_KEYS[0] && !this.#isTold) {
        const { code, message } = result;
        this.#isTold = true;
        this.#isClosed = true;
        this.#outbox.emit({ type: "failed", code, message });
      }
    }
    this.#settle();
    this.#tell();
  }

  /** Answers a request; false for anything else. */
  handleDatagram(data: Uint8Array, from: Endpoint, socket: string, now: Instant): boolean {
    this.#outbox.touch(now);
    const place = UDP_KEYS.indexOf(socket);
    const message = decodeStun(data, { classic: true });
    if (typeof message === "string") {
      this.stats.dropped.malformed++;
      return false;
    }
    if (message.class !== "request" || message.method !== STUN_METHOD.BINDING || place < 0) {
      this.stats.dropped["no-request"]++;
      return false;
    }
    if (!this.#isWelcome(from.address, now)) {
      this.stats.dropped["too-many"]++;
      return true;
    }
    this.stats.requests++;
    const { changeRequest, responsePort } = message.attributes;
    const origin = place ^
      (this.#isWhole && changeRequest
        ? (changeRequest.address ? OTHER_ADDRESS : 0) | (changeRequest.port ? OTHER_PORT : 0)
        : 0);
    const answer = this.#answer(message, from, place as Place, origin as Place, true);
    const isError = answer.errorCode !== undefined;
    const to = responsePort === undefined || isError
      ? from
      : { address: from.address, port: responsePort };
    // There is no port 0 to send to.
    if (to.port === 0) return true;
    const key = UDP_KEYS[isError ? place : origin]!;
    this.#outbox.send(key, to, this.#encode(message, answer));
    return true;
  }

  /** Nothing: a client that is gone is gone. */
  handleUnreachable(_to: Endpoint, _socket: string, now: Instant): void {
    this.#outbox.touch(now);
  }

  /** Takes what happens to connections. */
  handleStream(id: number, happened: StreamResult, now: Instant): void {
    this.#outbox.touch(now);
    switch (happened.type) {
      case "open": {
        const place = TCP_KEYS.indexOf(happened.socket ?? "");
        if (place < 0 || this.#streams.has(id)) return;
        this.#streams.set(id, {
          peer: happened.peer,
          place: place as Place,
          framer: new StunFramer(),
        });
        const { address } = happened.peer;
        const ofHost = [...this.#streams.values()].filter(({ peer }) => peer.address === address);
        if (this.#streams.size > MAX_STREAMS || ofHost.length > MAX_STREAMS_OF_HOST) {
          return this.#end(id);
        }
        this.#idle.set(id, now + STREAM_IDLE_MS, "close an idle connection");
        return;
      }
      case "data":
        return this.#read(id, happened.data, now);
      case "closed":
        this.#streams.delete(id);
        this.#idle.delete(id);
    }
  }

  /** Closes connections on which nothing comes. */
  handleTimeout(now: Instant): void {
    this.#outbox.touch(now);
    for (let id = this.#idle.popDue(now); id !== undefined; id = this.#idle.popDue(now)) {
      this.#end(id);
    }
  }

  /** When {@linkcode StunServer.handleTimeout} is due. */
  nextTimeout(): Instant | undefined {
    return this.#outbox.wakeAt() ?? this.#idle.nextAt();
  }

  /** The same with its reason. */
  debugTimeout(): DebugTimeout | undefined {
    const at = this.#outbox.wakeAt();
    if (at !== undefined) return { at, reason: "output waits" };
    return earliest(this.#idle.next());
  }

  /** The next action. */
  poll(): Action<StunServerEvent> | undefined {
    return this.#outbox.poll();
  }

  // ---------------------------------------------------------------------------------- sockets ---

  /** What is known once a socket is open or failed: the ports follow what the first one got. */
  #settle(): void {
    const first = this.#open.get(UDP_KEYS[0]!);
    const other = this.#alternate;
    const { address } = this.#listen;
    this.#places = !first ? [] : !other ? [{ address, port: first.port }] : [
      { address, port: first.port },
      { address, port: other.port },
      { address: other.address, port: first.port },
      other,
    ];
    this.#isWhole = other !== undefined && UDP_KEYS.every((key) => this.#open.has(key));
    this.#sockets = this.#wanted();
  }

  #wanted(): readonly SocketSpec[] {
    if (this.#isClosed) return [];
    if (this.#places.length === 0) return [{ key: UDP_KEYS[0]!, local: this.#listen }];
    return this.#places.flatMap((local, place) => [
      { key: UDP_KEYS[place]!, local },
      ...(this.#tcp ? [{ key: TCP_KEYS[place]!, kind: "tcp" as const, local }] : []),
    ]);
  }

  #tell(): void {
    if (this.#isTold || this.#places.length === 0) return;
    if (!this.#sockets.every(({ key }) => this.#open.has(key) || this.#failed.has(key))) return;
    this.#isTold = true;
    this.#outbox.emit({
      type: "listening",
      local: this.#places[0]!,
      alternate: this.#isWhole ? this.#places[OTHER_BOTH] : undefined,
      tcp: this.#open.has(TCP_KEYS[0]!),
    });
  }

  // ---------------------------------------------------------------------------------- answers ---

  /** Counts by whole seconds: simple, and bounded. */
  #isWelcome(address: string, now: Instant): boolean {
    if (now - this.#countedFrom >= 1000 || now < this.#countedFrom) {
      this.#counts.clear();
      this.#countedFrom = now;
    }
    const count = this.#counts.get(address) ?? 0;
    if (count >= this.#maxPerSecond) return false;
    if (count === 0 && this.#counts.size >= MAX_SOURCES) return false;
    this.#counts.set(address, count + 1);
    return true;
  }

  /** What to say to a request that came at `place` and is answered from `origin`. */
  #answer(
    message: StunMessage,
    from: Endpoint,
    place: Place,
    origin: Place,
    isDatagram: boolean,
  ): StunAttributes {
    const { changeRequest, padding, responsePort } = message.attributes;
    const unknown = unknownRequired(message);
    // RFC 5780 §6: whoever has one address does not know this one; a connection cannot move.
    if (changeRequest && !(isDatagram && this.#isWhole)) unknown.push(0x0003);
    if (responsePort !== undefined && !isDatagram) unknown.push(0x0027);
    if (unknown.length > 0) {
      return {
        errorCode: { code: STUN_ERROR.UNKNOWN_ATTRIBUTE, reason: "Unknown Attribute" },
        unknownAttributes: unknown,
      };
    }
    if (padding && responsePort !== undefined) {
      return { errorCode: { code: STUN_ERROR.BAD_REQUEST, reason: "Bad Request" } };
    }
    const other = this.#isWhole ? this.#places[place ^ OTHER_BOTH] : undefined;
    const source = this.#isWildcard ? undefined : this.#places[origin];
    if (message.transactionId.length === 16) {
      return {
        mappedAddress: from,
        ...(source && { sourceAddress: source }),
        ...(other && { changedAddress: other }),
      };
    }
    return {
      xorMappedAddress: from,
      mappedAddress: from,
      ...(source && { responseOrigin: source }),
      ...(other && { otherAddress: other }),
      // No more of it than came: it is no use as an amplifier.
      ...(padding && { padding: new Uint8Array(Math.min(padding.length, MAX_PADDING)) }),
    };
  }

  #encode({ transactionId, hasFingerprint }: StunMessage, attributes: StunAttributes): Uint8Array {
    const isError = attributes.errorCode !== undefined;
    if (isError) this.stats.errors++;
    else this.stats.answers++;
    return encodeStun({
      class: isError ? "error" : "success",
      method: STUN_METHOD.BINDING,
      transactionId,
      attributes: { ...attributes, ...this.#software },
    }, { fingerprint: hasFingerprint });
  }

  // --------------------------------------------------------------------------------------- TCP ---

  #read(id: number, data: Uint8Array, now: Instant): void {
    const stream = this.#streams.get(id);
    if (!stream) return;
    this.#idle.set(id, now + STREAM_IDLE_MS, "close an idle connection");
    for (const bytes of stream.framer.push(data)) {
      const message = decodeStun(bytes);
      if (typeof message === "string") {
        this.stats.dropped.malformed++;
      } else if (message.class !== "request" || message.method !== STUN_METHOD.BINDING) {
        this.stats.dropped["no-request"]++;
      } else if (!this.#isWelcome(stream.peer.address, now)) {
        this.stats.dropped["too-many"]++;
      } else {
        this.stats.requests++;
        const { peer, place } = stream;
        const answer = this.#answer(message, peer, place, place, false);
        const bytes = this.#encode(message, answer);
        this.#outbox.act({ type: "stream", id, do: "write", data: bytes });
      }
    }
    if (!stream.framer.isBroken) return;
    this.stats.dropped.malformed++;
    this.#end(id);
  }

  #end(id: number): void {
    this.#idle.delete(id);
    if (this.#streams.delete(id)) this.#outbox.act({ type: "stream", id, do: "close" });
  }
}

function checkAlternate(listen: Endpoint, alternate: Endpoint): Endpoint {
  const checked = {
    address: checkAddress("alternate.address", alternate.address, familyOf(listen.address)),
    port: checkPort("alternate.port", alternate.port),
  };
  for (const [name, { address }] of Object.entries({ listen, alternate: checked })) {
    if (!isWildcard(address)) continue;
    throw new TypeError(
      `'${name}.address' must be one address of this host where there is an alternate: ` +
        `current value is ${address}`,
    );
  }
  if (checked.address === listen.address || checked.port === listen.port) {
    throw new TypeError(
      `'alternate' must have another address and another port than 'listen': current value is ` +
        `${checked.address}, port ${checked.port}`,
    );
  }
  return checked;
}
