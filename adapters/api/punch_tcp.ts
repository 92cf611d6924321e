/**
 * TCP between two peers behind NATs: a plain socket, with the peer at its other end.
 *
 * @module
 */
import type { Socket } from "node:net";
import { NatError } from "../../core/errors.ts";
import { TcpPunch, type TcpPunchEvent } from "../../core/ice/tcp.ts";
import type { PublicRendezvous } from "../../core/ice/ticket.ts";
import type { Endpoint } from "../../core/machine.ts";
import { Driver } from "../driver.ts";
import type { Runtime } from "../runtime.ts";
import type { TcpConnection } from "./bound_socket.ts";
import {
  agentOptions,
  prepare,
  type PunchOptions,
  type RendezvousOptions,
  RendezvousSide,
  Side,
} from "./rendezvous.ts";

/** A connection that was punched. */
export interface PunchedTcp {
  /**
   * The connection: a `Socket` of `node:net` on all three runtimes, paused. It is yours to close.
   * Typed by what it is sure to have, so that who uses it needs no types of Node's.
   */
  readonly socket: TcpConnection;
  /** This end of it. */
  readonly local: Endpoint;
  /** How the peer sees this host. */
  readonly mapped: Endpoint;
  /** The peer as this host reaches it. */
  readonly peer: Endpoint;
  /** From the peer's ticket to the connection, milliseconds. */
  readonly elapsedMs: number;
}

/** One peer's side of a TCP rendezvous: its ticket, and what is punched with the other's. */
export class TcpRendezvous extends RendezvousSide {
  readonly #driver: Driver<TcpPunchEvent, TcpPunch>;
  readonly #side: Side<TcpPunchEvent, TcpPunch>;
  /** Between dialling and listening no socket is open that would keep the process alive. */
  readonly #letGo: () => void;

  private constructor(runtime: Runtime) {
    super();
    this.#letGo = runtime.setTimer(Infinity, () => {}, true);
    this.#driver = new Driver<TcpPunchEvent, TcpPunch>(
      runtime,
      (event) => this.#side.onEvent(event),
    );
    this.#side = new Side(runtime, this.#driver);
  }

  /**
   * Finds a port, and out where it may be reached.
   *
   * @throws {TypeError | RangeError} On options that are none.
   * @throws {NatError} `permission`, or `network` where no port can be had.
   *
   * @example Both peers in one program
   * ```ts
   * import { TcpRendezvous } from "@natkit/natkit/ice";
   *
   * const options = { localAddresses: ["127.0.0.1"] }; // In earnest: { stunServers: ["HOST:PORT"] }
   * await using a = await TcpRendezvous.open(options);
   * await using b = await TcpRendezvous.open(options);
   * const [left, right] = await Promise.all([a.punch(b.ticket), b.punch(a.ticket)]);
   * left.socket.end("hello");
   * for await (const data of right.socket) console.assert(String(data) === "hello");
   * right.socket.destroy();
   * ```
   */
  static async open(options: RendezvousOptions = {}): Promise<TcpRendezvous> {
    const { runtime, servers, addresses, port } = await prepare(options);
    const punch = new TcpPunch({
      random: runtime.random,
      hosts: addresses,
      port,
      servers,
      ...agentOptions(options),
    });
    // It keeps the process alive, once nothing stands in its way.
    const rendezvous = new TcpRendezvous(runtime);
    try {
      await rendezvous.#side.open(punch, "tcp", options);
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
   * the connection, which stays, or with a punch that failed or was given up.
   *
   * @param peer The peer's ticket, its lines of SDP, or the same as data.
   * @throws {TypeError} Where it has its peer already.
   * @throws {TicketError} Where the ticket cannot be used.
   * @throws {NatError} `no-answer`; `hard-nat` where both NATs are such that no hole can be
   *   punched; `closed`, before or meanwhile.
   */
  async punch(peer: string | PublicRendezvous, options: PunchOptions = {}): Promise<PunchedTcp> {
    const { stream, mapped, elapsedMs } = await this.#side.meet(peer, options).catch((error) => {
      if (this.#side.isClosed) this.#letGo();
      throw error;
    });
    this.#letGo();
    const handed = this.#driver.take(stream);
    if (!handed) throw new NatError("network", "Cannot reach the peer: the connection was reset");
    const { local, peer: remote } = handed;
    const socket = handed.socket as Socket;
    // When the peer has no more to send, there may be something for it still.
    socket.allowHalfOpen = true;
    return { socket, local, mapped, peer: remote, elapsedMs };
  }

  /** Ends it; a connection that was punched stays. */
  override async close(): Promise<void> {
    this.#letGo();
    await this.#side.close();
  }
}

/**
 * Reaches a peer by TCP through the NATs between.
 *
 * @param exchange Gets this side's ticket, takes it to the peer and resolves with the peer's.
 * @throws {TypeError | RangeError} On options that are none.
 * @throws {TicketError} Where the peer's ticket cannot be used.
 * @throws {NatError} As {@linkcode TcpRendezvous.open} and {@linkcode TcpRendezvous.punch}.
 */
export async function punchTcp(
  exchange: (ticket: string) => string | Promise<string>,
  options: RendezvousOptions & PunchOptions = {},
): Promise<PunchedTcp> {
  const rendezvous = await TcpRendezvous.open(options);
  try {
    return await rendezvous.punch(await exchange(rendezvous.ticket), options);
  } finally {
    await rendezvous.close();
  }
}
