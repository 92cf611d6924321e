/**
 * The machine contract: every protocol here is a state machine that never touches a socket, a
 * clock or a random source. It is fed bytes and time, and drained of actions:
 *
 *   feed one input → drain `poll()` until undefined → sleep until `nextTimeout()`
 *
 * 1. `handle*` and commands queue output and never return it; `poll` changes no protocol state.
 * 2. Early, repeated and extra calls do nothing. A late call handles what is due once, no burst.
 * 3. While output is queued, `nextTimeout()` answers the last `now`, so a lazy loop still drains.
 * 4. `data` handed in is borrowed until return. `send.data` is the machine's own and does not
 *    change afterwards; a retransmission is the same bytes.
 * 5. Queues are bounded; events are coalesced per mapping, not dropped.
 * 6. A parent drains its children inside `handle*`.
 * 7. Same seed and same inputs give the same outputs, byte for byte.
 * 8. Nothing from the network throws: bad bytes are counted in `stats`. Only the caller's mistake
 *    throws.
 *
 * @module
 */

/** Milliseconds on a monotonic clock that the caller keeps; always the last parameter. */
export type Instant = number;

/** An address in canonical text (RFC 5952; v4-mapped as a dotted quad) and a port, 0…65535. */
export interface Endpoint {
  /** Canonical text, with a `%zone` only where the address is link-local. */
  readonly address: string;
  /** 0…65535. */
  readonly port: number;
}

/** Which of the driver's sockets a datagram leaves by. */
export type SocketRole =
  /** A client's socket to its gateway. */
  | "client"
  /** The socket on which a server takes requests. */
  | "server"
  /**
   * A simulated gateway's second socket, at an address or port that no client asked: replies from
   * it try a client's source check. A driver that has none open drops what goes there.
   */
  | "other";

/** An HTTP request that a machine wants made (UPnP). */
export interface HttpRequest {
  /** GET, POST, SUBSCRIBE… */
  readonly method: string;
  /** Absolute URL. */
  readonly url: string;
  /** Header fields in the order in which they are to be sent. */
  readonly headers: readonly (readonly [name: string, value: string])[];
  /** Body, absent for none. */
  readonly body?: Uint8Array;
  /** The largest answer body to read, bytes. */
  readonly maxBytes: number;
}

/** What became of an {@linkcode HttpRequest}. */
export type HttpResult =
  | {
    readonly ok: true;
    readonly status: number;
    readonly headers: readonly (readonly [string, string])[];
    readonly body: Uint8Array;
  }
  | { readonly ok: false; readonly reason: "refused" | "timeout" | "too-large" | "failed" };

/** A datagram to send. */
export interface SendAction {
  /** Tells it from other actions. */
  readonly type: "send";
  /** The socket to send it by. */
  readonly socket: SocketRole;
  /** Where to. */
  readonly to: Endpoint;
  /** The payload; it does not change afterwards. */
  readonly data: Uint8Array;
}

/** An HTTP request to make; the answer comes back through `handleResponse` with the same id. */
export interface RequestAction {
  /** Tells it from other actions. */
  readonly type: "request";
  /** Names it in `handleResponse`. */
  readonly id: number;
  /** What to ask. */
  readonly request: HttpRequest;
}

/** Something to tell the application. */
export interface EventAction<E> {
  /** Tells it from other actions. */
  readonly type: "event";
  /** What happened. */
  readonly event: E;
}

/** What `poll` hands out. */
export type Action<E> = SendAction | RequestAction | EventAction<E>;

/** A deadline with its reason, for logs. */
export interface DebugTimeout {
  /** When. */
  readonly at: Instant;
  /** Why, in words: `"retransmit mapping 3"`. */
  readonly reason: string;
}

/** The contract at the head of this file. */
export interface Machine<E> {
  /** Feeds one datagram. Returns false where it is not this machine's. */
  handleDatagram(data: Uint8Array, from: Endpoint, now: Instant): boolean;
  /** Feeds the result of a {@linkcode RequestAction}; only on machines that make requests. */
  handleResponse?(id: number, result: HttpResult, now: Instant): void;
  /** Tells that ICMP reported the destination unreachable, where the runtime can know. */
  handleUnreachable(to: Endpoint, now: Instant): void;
  /** Does what is due at `now`. */
  handleTimeout(now: Instant): void;
  /** When `handleTimeout` wants to be called next; undefined: nothing pending. */
  nextTimeout(): Instant | undefined;
  /** The next action; drain until undefined. */
  poll(): Action<E> | undefined;
  /** `nextTimeout` with its reason. */
  debugTimeout(): DebugTimeout | undefined;
  /** Counters, plain numbers by name; tests compare them whole. */
  readonly stats: object;
}
