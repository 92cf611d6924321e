/**
 * The small interface that an adapter fills: UDP sockets, HTTP and TCP, a clock, timers, randomness
 * and what gateway discovery reads from the operating system.
 *
 * @module
 */
import type { NatError } from "../core/errors.ts";
import type {
  Endpoint,
  HttpRequest,
  HttpResponse,
  HttpResult,
  Instant,
  RequestAction,
  RespondAction,
  StreamAction,
  StreamResult,
} from "../core/machine.ts";
import type { RandomSource } from "../core/random.ts";

/** How to open a UDP socket. */
export interface UdpOptions {
  /** Local address and port; by default any address and a random port. */
  readonly local?: Endpoint;
  /**
   * The one peer to talk to. The adapter connects the socket where the runtime can, so that ICMP
   * errors come back and the local address is known; datagrams from others are not delivered.
   */
  readonly connect?: Endpoint;
  /** Shares the port with other processes (announcement listeners). */
  readonly reuseAddress?: boolean;
  /** A multicast group to join. */
  readonly multicast?: {
    /** The group's address. */
    readonly group: string;
    /** IPv4: an address of the interface; IPv6: the interface's name. Default: the system's choice. */
    readonly interface?: string;
  };
  /**
   * IPv4: this host's addresses on the interfaces by each of which what is sent to a group leaves.
   * Default: the system chooses one.
   */
  readonly multicastBy?: readonly string[];
  /** A socket of `node:dgram`, whatever else the runtime has: one that can be handed over. */
  readonly isDetachable?: boolean;
}

/** What a UDP socket tells. */
export interface UdpHandlers {
  /** A datagram came. `data` is borrowed until return; `from` is canonical. */
  onDatagram(data: Uint8Array, from: Endpoint): void;
  /** ICMP says that nothing listens at `to`. */
  onUnreachable(to: Endpoint): void;
  /**
   * The socket failed for another reason, or a datagram did not leave: `permission` where the
   * runtime or the system (a firewall) forbids it, `network` for the rest, such as no route. The
   * message names the call. The socket may or may not be usable afterwards.
   *
   * @param to Where the datagram was to go, where it is about one.
   */
  onError(error: NatError, to?: Endpoint): void;
}

/** An open UDP socket. */
export interface UdpSocket {
  /** Where it is bound; with `connect` the address that packets to the peer leave from. */
  readonly local: Endpoint;
  /**
   * Sends one datagram, after those of the calls before; what fails is told through the handlers.
   * `data` must not change afterwards.
   */
  send(data: Uint8Array, to: Endpoint): void;
  /** Closes it once what was sent has left; nothing is delivered afterwards. Twice is once. */
  close(): void;
  /** Lets the process end though it is open. Deno's `node:dgram` does not. */
  unref?(): void;
  /** Keeps the process alive while it is open, as at first. */
  ref?(): void;
  /**
   * Hands over the socket of `node:dgram` beneath, which this one then neither hears nor closes.
   * Left out where there is none.
   */
  detach?(): unknown;
}

/** A socket that waits for streams or requests. */
export interface Listener {
  /** Where it is bound. */
  readonly local: Endpoint;
  /** Closes it; what it has accepted stays. Twice is once. */
  close(): void;
  /** Lets the process end though it is open. */
  unref?(): void;
  /** Keeps the process alive while it is open, as at first. */
  ref?(): void;
}

/** What HTTP tells. */
export interface HttpHandlers {
  /** The one result of a request. */
  onResult(id: number, result: HttpResult): void;
  /** A request came, to be answered with this id. */
  onRequest(id: number, request: HttpRequest, from: Endpoint): void;
}

/** HTTP for one machine. */
export interface Http {
  /** Asks, without looking anything up and without following redirects. */
  request(action: RequestAction): void;
  /** Answers. */
  respond(action: RespondAction): void;
  /** Takes requests. Rejects with a NatError. */
  listen(local: Endpoint): Promise<Listener>;
  /** Ends all that is under way, without a word. */
  close(): void;
}

/** A TCP stream that its machine has handed over. */
export interface HandedStream {
  /** This host's end. */
  readonly local: Endpoint;
  /** The other end. */
  readonly peer: Endpoint;
  /**
   * The stream: a `Socket` of `node:net` on all three runtimes, paused, with all bytes to be read
   * that its machine has not taken.
   */
  readonly socket: unknown;
}

/** The TCP streams of one machine. */
export interface Streams {
  /** Does what the machine wants. */
  act(action: StreamAction): void;
  /** Accepts streams, which tell the key. Rejects with a NatError. */
  listen(key: string, local: Endpoint): Promise<Listener>;
  /** Gives a stream that was handed over to the application; undefined where there is none. */
  take(id: number): HandedStream | undefined;
  /** Ends all but those that were taken, without a word. */
  close(): void;
}

/** An address of an interface of this host. */
export interface InterfaceAddress {
  /** The interface's name. */
  readonly name: string;
  /** Canonical address, with the zone where it is link-local. */
  readonly address: string;
  /** 0…32 or 0…128. */
  readonly prefixLength: number;
  /** Whether it is a loopback interface. */
  readonly internal: boolean;
}

/** What passes between a machine and the network. Bytes are borrowed until return. */
export type Passing =
  /** A datagram; `dropped` says why it did not leave, or was not believed. */
  | {
    readonly type: "sent" | "received";
    readonly data: Uint8Array;
    /** This host's end, where it is known. */
    readonly local: Endpoint | undefined;
    readonly peer: Endpoint;
    readonly dropped?: string;
  }
  /** ICMP says that nothing listens there. */
  | { readonly type: "unreachable"; readonly peer: Endpoint }
  /** A socket could not be had, or failed. */
  | { readonly type: "failed"; readonly message: string }
  /** An HTTP request that was asked or taken. */
  | {
    readonly type: "asked" | "was-asked";
    readonly request: HttpRequest;
    readonly peer: Endpoint;
  }
  /** What became of a request that was asked. */
  | { readonly type: "answered"; readonly result: HttpResult; readonly peer: Endpoint | undefined }
  /** What was answered to a request that was taken. */
  | {
    readonly type: "responded";
    readonly response: HttpResponse;
    readonly peer: Endpoint | undefined;
  };

/** What natkit needs from the system it runs on. */
export interface Runtime {
  /** Which runtime this is. */
  readonly name: "node" | "deno" | "bun";
  /** `process.platform`'s words: `"linux"`, `"darwin"`, `"win32"`… */
  readonly platform: string;
  /** Monotonic milliseconds that keep running through sleep (see `clock.ts`). */
  now(): Instant;
  /** Unguessable randomness. */
  readonly random: RandomSource;
  /**
   * Calls back after `delayMs`, however large; returns what cancels it. A timer alone keeps no
   * process alive where `keepAlive` is false.
   */
  setTimer(delayMs: number, callback: () => void, keepAlive: boolean): () => void;
  /** Opens a UDP socket. Rejects with a NatError `permission` that names what is missing. */
  openUdp(options: UdpOptions, handlers: UdpHandlers): Promise<UdpSocket>;
  /** HTTP for one machine, loaded when first needed; left out where there is none. */
  openHttp?(handlers: HttpHandlers): Promise<Http>;
  /** TCP for one machine, likewise. */
  openStreams?(tell: (id: number, happened: StreamResult) => void): Promise<Streams>;
  /** The addresses of this host's interfaces. */
  interfaces(): InterfaceAddress[];
  /**
   * The address from which the system would send to another, asked of it without sending anything;
   * undefined where nothing leads there. Left out where the runtime cannot ask (Deno).
   */
  addressToward?(address: string): Promise<string | undefined>;
  /** Reads a text file whole. */
  readTextFile(path: string): Promise<string>;
  /** Gets what passes, as it happens, for a log; must not throw. Left out it costs nothing. */
  readonly tap?: (passing: Passing) => void;
  /** Runs a program without a shell and returns what it printed. */
  run(command: string, args: readonly string[]): Promise<string>;
}
