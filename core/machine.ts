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

/** The keys of the sockets that a machine sends by which lists none: its caller opens them. */
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

/**
 * A UDP socket that a machine wants. The driver looks at the list after each drain: it opens what is
 * new, replaces what changed and closes what is gone.
 */
export interface SocketSpec {
  /** Names it in {@linkcode SendAction}; two sockets have two keys. */
  readonly key: string;
  /** Where to bind; by default any address and a free port. */
  readonly local?: Endpoint;
  /** The one peer to talk to: datagrams from others are not delivered, and ICMP errors are told. */
  readonly connect?: Endpoint;
  /** A multicast group to join, on the port of `local`. */
  readonly group?: string;
  /** Where to join it. IPv4: this host's address there; IPv6: the interface's name. */
  readonly interface?: string;
  /** Whether other programs may have the same port (announcements). */
  readonly reuse?: boolean;
}

/** What became of a {@linkcode SocketSpec}. */
export type SocketResult =
  /** It is open: where it is bound, as far as the runtime tells. */
  | { readonly ok: true; readonly local: Endpoint }
  /** It could not be opened, or what was sent by it did not leave. */
  | {
    readonly ok: false;
    /** `permission`: the runtime or the system does not let us. */
    readonly code: "permission" | "network";
    /** The call that failed, and why. */
    readonly message: string;
    /** Whether the socket is there still. */
    readonly isOpen: boolean;
  };

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
  /** The key of the socket to send it by. */
  readonly socket: string;
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
  /** The sockets it wants at present; absent where its caller opens what it needs by role. */
  readonly sockets?: (() => readonly SocketSpec[]) | undefined;
  /** Tells that a socket of its list is open, or failed. */
  handleSocket?(key: string, result: SocketResult, now: Instant): void;
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
