/**
 * A UDP socket of the application by which STUN servers are asked, too, how they see it. What they
 * answer is taken out of what comes there; the rest is the application's.
 *
 * @module
 */
import { type Family, familyOf } from "../../core/ip.ts";
import type { Endpoint } from "../../core/machine.ts";
import type { ReflexiveEvent, ReflexiveKeeper } from "../../core/stun/reflexive.ts";
import { Driver } from "../driver.ts";
import type { ServerName } from "../host_name.ts";
import type { Runtime, UdpHandlers, UdpSocket } from "../runtime.ts";

/** The socket, and how it is seen. */
export class SeenSocket {
  /** Is called with all reflexive endpoints at each change. */
  onSeen: ((endpoints: readonly Endpoint[]) => void) | undefined;
  readonly #runtime: Runtime;
  readonly #socket: UdpSocket;
  /** Who hears what comes. */
  #hears: UdpHandlers;
  #driver: Promise<Driver<ReflexiveEvent, ReflexiveKeeper>> | undefined;
  #names: readonly ServerName[] = [];
  #isClosed = false;

  private constructor(runtime: Runtime, socket: UdpSocket, handlers: UdpHandlers) {
    this.#runtime = runtime;
    this.#socket = socket;
    this.#hears = handlers;
  }

  /**
   * Binds it.
   *
   * @throws {NatError} `permission` or `network`.
   */
  static async open(runtime: Runtime, local: Endpoint, handlers: UdpHandlers): Promise<SeenSocket> {
    let seen: SeenSocket | undefined;
    const hears = () => seen ? seen.#hears : handlers;
    const socket = await runtime.openUdp({ local }, {
      onDatagram: (data, from) => hears().onDatagram(data, from),
      onUnreachable: (to) => handlers.onUnreachable(to),
      onError: (error, to) => handlers.onError(error, to),
    });
    return seen = new SeenSocket(runtime, socket, handlers);
  }

  /** Where it is bound. */
  get local(): Endpoint {
    return this.#socket.local;
  }

  /** Sends one datagram. */
  send(data: Uint8Array, to: Endpoint): void {
    this.#socket.send(data, to);
  }

  /** Closes it: servers are asked no more. */
  close(): void {
    this.#isClosed = true;
    void this.#driver?.then((driver) => driver.close());
    this.#socket.close();
  }

  /** These servers are asked, too. A name that cannot be looked up waits for the next call. */
  async ask(names: readonly ServerName[]): Promise<void> {
    this.#names = [...this.#names, ...names];
    if (this.#names.length === 0) return;
    const { resolveServer } = await import("../names.ts");
    const family: Family = familyOf(this.local.address);
    const found = await Promise.all(
      this.#names.map((name) => resolveServer(name, family).catch(() => [])),
    );
    if (this.#isClosed) return;
    const driver = await (this.#driver ??= this.#drive());
    if (this.#isClosed) return;
    driver.do((keeper, now) => keeper.setServers(found.flatMap(([first]) => first ?? []), now));
  }

  /** The network is another one, and so is how it is seen. */
  async networkChanged(): Promise<void> {
    const driver = await this.#driver;
    if (this.#isClosed) return;
    driver?.do((keeper, now) => keeper.ask(now));
    await this.ask([]);
  }

  /** The machine shares the socket, which is open. */
  async #drive(): Promise<Driver<ReflexiveEvent, ReflexiveKeeper>> {
    const { ReflexiveKeeper } = await import("../../core/stun/reflexive.ts");
    const application = this.#hears, socket = this.#socket, runtime = this.#runtime;
    const driver = new Driver<ReflexiveEvent, ReflexiveKeeper>(
      {
        now: () => runtime.now(),
        setTimer: (...args) => runtime.setTimer(...args),
        openUdp: (_, machine) => {
          this.#hears = machine;
          const send = (data: Uint8Array, to: Endpoint) => socket.send(data, to);
          return Promise.resolve({ local: socket.local, send, close: () => {} });
        },
      },
      ({ endpoints }) => this.onSeen?.(endpoints),
      undefined,
      undefined,
      (data, from) => application.onDatagram(data, from),
    );
    await driver.open({ key: "client", local: socket.local });
    driver.start(new ReflexiveKeeper({ random: runtime.random }));
    return driver;
  }
}
