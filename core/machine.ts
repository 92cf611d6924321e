/**
 * The machine contract: every protocol here is a state machine that never touches a socket, a
 * clock or a random source. It is fed bytes and time, and drained of actions:
 *
 *   feed one input → drain `poll()` until undefined → open and close sockets as `sockets()` lists
 *   them → sleep until `nextTimeout()`
 *
 * 1. `handle*` and commands queue output and never return it; `poll` changes no protocol state.
 * 2. Early, repeated and extra calls do nothing. A late call handles what is due once, no burst.
 * 3. While output is queued, `nextTimeout()` answers the last `now`, so a lazy loop still drains.
 * 4. `data` handed in is borrowed until return. `send.data` is the machine's own and does not
 *    change afterwards; a retransmission is the same bytes.
 * 5. Queues are bounded; events are coalesced per mapping, not dropped.
 * 6. A parent drains its children inside `handle*`.
 * 7. Same seed and same inputs give the same outputs, byte for byte. Randomness comes in through
 *    the constructor.
 * 8. Nothing from the network throws: bad bytes are counted in `stats`. Only the caller's mistake
 *    throws, from the command, before anything is sent.
 * 9. An id, once handed out, ends with exactly one final event (`failed` without `retryAt`, or
 *    `unmapped`); nothing is told of it afterwards, and nothing goes on for it. So it is with what
 *    the machine asks of its driver: each HTTP request gets one result, each stream one `closed`.
 *
 * What waits for others is a socket, listed by key in `sockets()`: UDP, TCP that accepts streams,
 * HTTP that takes requests. What the machine begins itself is an action with an id of its choice.
 * How protocols stand on that:
 *
 * - *A UPnP client* lists a UDP socket for SSDP, asks for descriptions and SOAP actions by `request`
 *   at the address from which the description was announced, and gets each answer by its id.
 * - *GENA callbacks:* it lists an `http` socket at a free port of its address towards the gateway,
 *   hears the port in `handleSocket`, names it in SUBSCRIBE, and answers each NOTIFY by `respond`.
 * - *A simulated IGD* lists an `http` socket and answers what `handleRequest` brings; that may
 *   take a while, as with real ones.
 * - *TCP hole punching:* `connect` from `local` with port 0 to a STUN server tells the port in `open`;
 *   then one `connect` a candidate, all with that `local`; then a `tcp` socket is listed there. In
 *   this order: no system lets a program dial from a port on which it listens. Which stream is kept
 *   is told by the first bytes on each; the others are closed, the kept one is handed over.
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
 * A socket that a machine wants. The driver looks at the list after each drain: it opens what is
 * new, replaces what changed and closes what is gone. One that failed is tried again once it has
 * been off the list.
 */
export interface SocketSpec {
  /**
   * What comes in by it. Default `"udp"`: datagrams. `"tcp"`: streams of others, in `handleStream`;
   * `"http"`: their requests, in `handleRequest`.
   */
  readonly kind?: "udp" | "tcp" | "http";
  /** Names it in {@linkcode SendAction}; two sockets have two keys. */
  readonly key: string;
  /**
   * Where to bind; by default any address and a free port. Once it is open, the list may name the
   * port that was free: that is the same socket.
   */
  readonly local?: Endpoint;
  /** UDP: the one peer to talk to. Datagrams from others are dropped, and ICMP errors are told. */
  readonly connect?: Endpoint;
  /** UDP: a multicast group to join, on the port of `local`. */
  readonly group?: string;
  /** Where to join it. IPv4: this host's address there; IPv6: the interface's name. */
  readonly interface?: string;
  /**
   * UDP over IPv4: this host's addresses on the interfaces by each of which what is sent to a group
   * leaves. By default the system chooses one, by its routes.
   */
  readonly multicastBy?: readonly string[];
  /** Whether other programs may have the same port (announcements). */
  readonly reuse?: boolean;
  /** Whether its machine does without it: nobody who waits for the sockets fails for want of it. */
  readonly optional?: boolean;
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

/** Header fields in their order, spelled as they are or were sent; names compare without case. */
export type HttpHeaders = readonly (readonly [name: string, value: string])[];

/** An HTTP request, asked or taken. */
export interface HttpRequest {
  /** GET, POST, SUBSCRIBE… */
  readonly method: string;
  /** Path and query, from the `/` on; `*` in OPTIONS. */
  readonly path: string;
  /** Its header. Whoever sends it adds Host and Content-Length where they are missing. */
  readonly headers: HttpHeaders;
  /** Body, absent for none. */
  readonly body?: Uint8Array;
}

/** An HTTP response, got or given. */
export interface HttpResponse {
  /** 200…599. */
  readonly status: number;
  /** Its header. Whoever sends it adds Content-Length where it is missing. */
  readonly headers: HttpHeaders;
  /** Body, empty for none. */
  readonly body: Uint8Array;
}

/** What became of a {@linkcode RequestAction}. */
export type HttpResult =
  /** Answered, with whatever status: redirects are the machine's to follow. */
  | { readonly ok: true } & HttpResponse
  /** `refused`: nobody listens; `permission`: the runtime or the system does not let us. */
  | {
    readonly ok: false;
    readonly reason: "refused" | "timeout" | "too-large" | "permission" | "failed";
  };

/** What happens to a TCP stream. */
export type StreamResult =
  /** It is connected. */
  | {
    readonly type: "open";
    /** This host's end. */
    readonly local: Endpoint;
    /** The other end. */
    readonly peer: Endpoint;
    /** The key of the socket that accepted it, and gave it its id; absent where we connected. */
    readonly socket?: string;
  }
  /** Bytes came; they are borrowed until return (rule 4). */
  | { readonly type: "data"; readonly data: Uint8Array }
  /**
   * It is over, or never was: the last that is told of it. `ended`: the other side closed it;
   * `refused`: nobody listens there.
   */
  | {
    readonly type: "closed";
    readonly reason: "ended" | "refused" | "timeout" | "permission" | "failed";
  };

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

/** An HTTP request to make. Its result comes back through `handleResponse`, once. */
export interface RequestAction {
  /** Tells it from other actions. */
  readonly type: "request";
  /** Names it in `handleResponse`: any number that is not in use. */
  readonly id: number;
  /** Where to: an address, not a name, so that nothing is looked up. */
  readonly to: Endpoint;
  /**
   * This host's address to ask from; by default the system's choice. A gateway opens its firewall
   * only to who asks, by the address that is asked from.
   */
  readonly local?: string;
  /** What to ask. */
  readonly request: HttpRequest;
  /** The largest answer body to take, bytes. */
  readonly maxBytes: number;
  /** From the connect to the last byte of the answer, milliseconds. */
  readonly timeoutMs: number;
}

/** The answer to a request that came by `handleRequest`; a second one does nothing. */
export interface RespondAction {
  /** Tells it from other actions. */
  readonly type: "respond";
  /** The request's id. */
  readonly id: number;
  /** What to answer. */
  readonly response: HttpResponse;
}

/** Something to do with a TCP stream. */
export type StreamAction =
  & {
    /** Tells it from other actions. */
    readonly type: "stream";
    /**
     * Names it in `handleStream`. The machine chooses it for `connect`, from 0 on; a stream that
     * was accepted comes with a negative one. What is done to one that is over does nothing.
     */
    readonly id: number;
  }
  & (
    /** Opens it. Several may leave from one `local` to different peers, where each names it. */
    | {
      readonly do: "connect";
      readonly to: Endpoint;
      /** Where from; by default the system's choice. */
      readonly local?: Endpoint;
      /** How long to wait for it, milliseconds. */
      readonly timeoutMs: number;
    }
    /** Sends bytes, which do not change afterwards; of those that wait 1 MiB is the most. */
    | { readonly do: "write"; readonly data: Uint8Array }
    /** Ends it once what was written has left; nothing is told of it afterwards. */
    | { readonly do: "close" }
    /**
     * Leaves it to the application, which takes it from the driver by its id; nothing is told of it
     * afterwards. `unread` is what came already and is the application's.
     */
    | { readonly do: "hand-over"; readonly unread?: Uint8Array }
  );

/** Something to tell the application. */
export interface EventAction<E> {
  /** Tells it from other actions. */
  readonly type: "event";
  /** What happened. */
  readonly event: E;
}

/** What `poll` hands out. */
export type Action<E> =
  | SendAction
  | RequestAction
  | RespondAction
  | StreamAction
  | EventAction<E>;

/** A deadline with its reason, for logs. */
export interface DebugTimeout {
  /** When. */
  readonly at: Instant;
  /** Why, in words: `"retransmit mapping 3"`. */
  readonly reason: string;
}

/** The contract at the head of this file. */
export interface Machine<E> {
  /**
   * Feeds one datagram. Returns false where it is not this machine's.
   *
   * @param socket The key of the socket that it came by.
   */
  handleDatagram(data: Uint8Array, from: Endpoint, socket: string, now: Instant): boolean;
  /**
   * The sockets it wants at present; the same array as before says that nothing has changed. Absent
   * where its caller opens what it needs by role.
   */
  readonly sockets?: (() => readonly SocketSpec[]) | undefined;
  /** Tells that a socket of its list is open, or failed. */
  handleSocket?(key: string, result: SocketResult, now: Instant): void;
  /** Feeds the result of a {@linkcode RequestAction}; only on machines that make requests. */
  handleResponse?(id: number, result: HttpResult, now: Instant): void;
  /**
   * Feeds a request that came by one of its `http` sockets, to be answered within 30 s by a
   * {@linkcode RespondAction} with the same id.
   */
  handleRequest?(id: number, request: HttpRequest, from: Endpoint, now: Instant): void;
  /** Tells what happens to a stream; only on machines that have any. */
  handleStream?(id: number, happened: StreamResult, now: Instant): void;
  /**
   * Tells that ICMP reported the destination unreachable, where the runtime can know.
   *
   * @param socket The key of the socket that it was sent by.
   */
  handleUnreachable(to: Endpoint, socket: string, now: Instant): void;
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
