/**
 * UDP between two peers behind NATs: the socket that was punched, with the peer at its other end.
 *
 * @module
 */
import { NatError } from "../../core/errors.ts";
import { IceAgent, type IceEvent } from "../../core/ice/agent.ts";
import type { PublicRendezvous } from "../../core/ice/ticket.ts";
import { copyBytes } from "../../core/bytes.ts";
import type { Endpoint } from "../../core/machine.ts";
import { callBack } from "../callback.ts";
import { Driver } from "../driver.ts";
import type { Runtime } from "../runtime.ts";
import {
  agentOptions,
  type MappedPort,
  prepare,
  type PunchOptions,
  type RendezvousOptions,
  RendezvousSide,
  Side,
} from "./rendezvous.ts";

/** So many datagrams wait for a reader; of more the oldest are lost, as UDP may. */
const MAX_WAITING = 1024;

type Connected = IceEvent & { readonly type: "connected" };

/** What a channel needs of its rendezvous. */
interface Link {
  send(data: Uint8Array): boolean;
  end(): void;
  close(): void | Promise<void>;
  detach(): Pick<DetachedSocket, "socket" | "mapping">;
}

/** The socket that was punched, which is the application's. */
export interface DetachedSocket {
  /** A `Socket` of `node:dgram` on all three runtimes, bound and not connected. */
  readonly socket: unknown;
  /** Where it is bound. */
  readonly local: Endpoint;
  /** The peer as this host reaches it. */
  readonly peer: Endpoint;
  /** Datagrams of the peer that nobody has read. */
  readonly waiting: readonly Uint8Array[];
  /** The port that a gateway maps to it, where one does: kept until it is closed. */
  readonly mapping?: MappedPort;
}

/** A UDP path to the peer. Datagrams may be lost or come in another order, as with UDP anywhere. */
export class UdpChannel implements AsyncDisposable, AsyncIterable<Uint8Array> {
  /** Where the socket is bound. */
  readonly local: Endpoint;
  /** How the peer sees this host. */
  readonly mapped: Endpoint;
  /** Whether a relay of this side is between. */
  readonly isRelayed: boolean;
  /** From the peer's ticket to the agreement on a path, milliseconds. */
  readonly elapsedMs: number;
  /** How it ended: `"closed"` here, or `"lost"`: the peer has not answered for 30 s. */
  readonly ended: Promise<"closed" | "lost">;
  readonly #link: Link;
  readonly #waiting: Uint8Array[] = [];
  #peer: Endpoint;
  #onDatagram: ((data: Uint8Array) => void) | undefined;
  readonly #waiters: (() => void)[] = [];
  #isEnded = false;
  #hasPeerEnded = false;
  #end: (how: "closed" | "lost") => void = () => {};
  /** Datagrams that came while nobody read, and were too many. */
  dropped = 0;

  /** Made by {@linkcode UdpRendezvous.punch}. */
  constructor(link: Link, { local, mapped, remote, isRelayed, elapsedMs }: Connected) {
    this.#link = link;
    this.local = local;
    this.mapped = mapped;
    this.#peer = remote;
    this.isRelayed = isRelayed;
    this.elapsedMs = elapsedMs;
    this.ended = new Promise((resolve) => this.#end = resolve);
  }

  /** The peer as this host reaches it; it may move to a better path at first. */
  get peer(): Endpoint {
    return this.#peer;
  }

  /**
   * Sends one datagram to the peer.
   *
   * @throws {NatError} `closed` after the end.
   */
  send(data: Uint8Array): void {
    if (this.#isEnded || !this.#link.send(data)) {
      throw new NatError("closed", "Cannot send to the peer: the channel is closed");
    }
  }

  /** Gets each datagram from here on, those that wait first; then none goes to readers. */
  set onDatagram(callback: ((data: Uint8Array) => void) | undefined) {
    this.#onDatagram = callback;
    if (!callback) return;
    for (const data of this.#waiting.splice(0)) callBack(() => callback(data));
  }

  /** Tells the peer, if it is a natkit, that no more datagrams will come. */
  end(): void {
    if (!this.#isEnded) this.#link.end();
  }

  /** The datagrams, until the peer has said that no more will come, or the channel ends. */
  async *[Symbol.asyncIterator](): AsyncIterator<Uint8Array> {
    for (;;) {
      const data = this.#waiting.shift();
      if (data) yield data;
      else if (this.#isEnded || this.#hasPeerEnded) return;
      else await new Promise<void>((resolve) => this.#waiters.push(resolve));
    }
  }

  /**
   * Hands the socket over as it is. What keeps the hole open is the application's from then on:
   * NATs forget a path that is silent, some after 30 s. The peer has to do the same, or not to ask
   * for consent (RFC 7675): it ends after 30 s otherwise. What it asked until then may still arrive,
   * with a first byte below 4 (RFC 7983).
   *
   * @throws {TypeError} Where the path goes by a relay, or the rendezvous was not opened with
   *   `isDetachable`.
   * @throws {NatError} `closed` after the end.
   */
  detach(): DetachedSocket {
    if (this.#isEnded) {
      throw new NatError("closed", "Cannot hand the socket over: the channel is closed");
    }
    if (this.isRelayed) {
      throw new TypeError("Cannot hand the socket over: 'isRelayed' is true, a relay is between");
    }
    const detached = this.#link.detach();
    const waiting = this.#waiting.splice(0);
    this.finish("closed");
    return { ...detached, local: this.local, peer: this.#peer, waiting };
  }

  /** Closes the socket. */
  async close(): Promise<void> {
    const closing = this.#link.close();
    this.finish("closed");
    await closing;
  }

  /** {@linkcode UdpChannel.close}, for `await using`. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  /** Takes a datagram of the peer; called by the rendezvous. */
  receive(data: Uint8Array): void {
    const callback = this.#onDatagram;
    if (callback) {
      callBack(() => callback(data));
      return;
    }
    if (this.#waiting.length >= MAX_WAITING) {
      this.#waiting.shift();
      this.dropped++;
    }
    this.#waiting.push(data);
    this.#wake();
  }

  #wake(): void {
    for (const wake of this.#waiters.splice(0)) wake();
  }

  /** Moves to another path; called by the rendezvous. */
  move(peer: Endpoint): void {
    this.#peer = peer;
  }

  /** Ends the datagrams; called by the rendezvous. */
  finishReading(): void {
    this.#hasPeerEnded = true;
    this.#wake();
  }

  /** Ends it; called by the rendezvous. */
  finish(how: "closed" | "lost"): void {
    this.#isEnded = true;
    this.#end(how);
    this.#wake();
  }
}

/** One peer's side of a UDP rendezvous: its ticket, and what is punched with the other's. */
export class UdpRendezvous extends RendezvousSide {
  readonly #driver: Driver<IceEvent, IceAgent>;
  readonly #side: Side<IceEvent, IceAgent>;
  readonly #early: {
    readonly data: Uint8Array;
    readonly from: Endpoint;
    readonly socket: string;
  }[] = [];
  #channel: UdpChannel | undefined;

  private constructor(runtime: Runtime) {
    super();
    this.#driver = new Driver<IceEvent, IceAgent>(
      runtime,
      (event) => this.#handle(event),
      undefined,
      undefined,
      (data, from, socket) => this.#receive(data, from, socket),
    );
    this.#side = new Side(runtime, this.#driver);
  }

  /**
   * Opens sockets and finds out where they may be reached.
   *
   * @throws {TypeError | RangeError} On options that are none.
   * @throws {NatError} `permission`, or `network` where no socket can be opened.
   *
   * @example Both peers in one program
   * ```ts
   * import { UdpRendezvous } from "@natkit/natkit/ice";
   *
   * const options = { localAddresses: ["127.0.0.1"] }; // In earnest: { stunServers: ["HOST:PORT"] }
   * await using a = await UdpRendezvous.open(options);
   * await using b = await UdpRendezvous.open(options);
   * const [left, right] = await Promise.all([a.punch(b.ticket), b.punch(a.ticket)]);
   * left.send(new TextEncoder().encode("hello"));
   * for await (const data of right) {
   *   console.assert(new TextDecoder().decode(data) === "hello");
   *   break;
   * }
   * ```
   */
  static async open(options: RendezvousOptions = {}): Promise<UdpRendezvous> {
    const { runtime, servers, relays, addresses, port } = await prepare(options);
    const rendezvous = new UdpRendezvous(options.isDetachable ? detachable(runtime) : runtime);
    const agent = new IceAgent({
      random: runtime.random,
      hosts: addresses,
      port,
      servers,
      relays,
      ...agentOptions(options),
    });
    try {
      await rendezvous.#side.open(agent, "udp", options);
      return rendezvous;
    } catch (error) {
      await rendezvous.close();
      throw error;
    }
  }

  /** {@inheritDoc RendezvousSide.told} */
  override get told(): PublicRendezvous {
    return this.#side.told;
  }

  /**
   * Punches, with the peer's ticket: both must, at about the same time. The rendezvous is over with
   * a punch that failed or was given up.
   *
   * @param peer The peer's ticket, its lines of SDP, or the same as data.
   * @throws {TypeError} Where it has its peer already.
   * @throws {TicketError} Where the ticket cannot be used.
   * @throws {NatError} `no-answer`; `hard-nat` where both NATs are such that no hole can be
   *   punched; `closed`, before or meanwhile.
   */
  async punch(peer: string | PublicRendezvous, options: PunchOptions = {}): Promise<UdpChannel> {
    await this.#side.meet(peer, options);
    return this.#channel!;
  }

  /** Closes the sockets, the channel's too. */
  override async close(): Promise<void> {
    // So that the peer need not wait for its consent to run out.
    const closing = this.#side.close((agent, now) => agent.end(now));
    this.#channel?.finish("closed");
    await closing;
  }

  #open(connected: Connected): void {
    this.#channel = new UdpChannel({
      send: (data) =>
        !this.#side.isClosed && this.#driver.do((agent, now) => agent.send(data, now)),
      end: () => this.#driver.do((agent, now) => agent.end(now)),
      close: () => this.close(),
      detach: () => this.#detach(),
    }, connected);
    for (const { data, from, socket } of this.#early.splice(0)) this.#receive(data, from, socket);
  }

  #detach(): Pick<DetachedSocket, "socket" | "mapping"> {
    const key = this.#driver.machine?.selected?.socket;
    const socket = key === undefined ? undefined : this.#driver.detach(key);
    if (socket === undefined) {
      throw new TypeError("Cannot hand the socket over: open it with 'isDetachable'");
    }
    const mapping = this.#side.leave();
    return { socket, ...(mapping && { mapping }) };
  }

  #handle(event: IceEvent): void {
    // Before who waits for it hears of it, since the peer may say more at once.
    if (event.type === "connected") {
      if (this.#channel) this.#channel.move(event.remote);
      else this.#open(event);
    }
    this.#side.onEvent(event);
    if (event.type === "relayed") this.#receive(event.data, event.from, event.socket);
    if (event.type === "ended") this.#channel?.finishReading();
    if (event.type !== "lost") return;
    this.#channel?.finish("lost");
    this.close().catch(() => {});
  }

  /** What is not ICE's is the application's, where the peer sent it. */
  #receive(data: Uint8Array, from: Endpoint, socket: string): void {
    if (this.#channel) {
      if (!this.#driver.machine?.isPeer(from, socket)) return;
      this.#channel.receive(copyBytes(data));
    } else if (this.#early.length < 64) {
      // The peer may have agreed a moment before us.
      this.#early.push({ data: copyBytes(data), from, socket });
    }
  }
}

/** A runtime whose UDP sockets can be handed over. */
function detachable(runtime: Runtime): Runtime {
  return {
    ...runtime,
    openUdp: (options, handlers) => runtime.openUdp({ ...options, isDetachable: true }, handlers),
  };
}

/**
 * Reaches a peer by UDP through the NATs between.
 *
 * @param exchange Gets this side's ticket, takes it to the peer and resolves with the peer's.
 * @throws {TypeError | RangeError} On options that are none.
 * @throws {TicketError} Where the peer's ticket cannot be used.
 * @throws {NatError} As {@linkcode UdpRendezvous.open} and {@linkcode UdpRendezvous.punch}.
 */
export async function punchUdp(
  exchange: (ticket: string) => string | Promise<string>,
  options: RendezvousOptions & PunchOptions = {},
): Promise<UdpChannel> {
  const rendezvous = await UdpRendezvous.open(options);
  try {
    return await rendezvous.punch(await exchange(rendezvous.ticket), options);
  } catch (error) {
    await rendezvous.close();
    throw error;
  }
}
