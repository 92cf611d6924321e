/**
 * The one event loop: it stands between a runtime's sockets and timers and a machine.
 *
 *   feed one input → drain `poll()` → arm one timer at `nextTimeout()`
 *
 * Inputs are a datagram, an ICMP error, the timer, or a command through {@linkcode Driver.do}.
 * Each is followed by a complete drain. A command given from within an event handler is run at
 * once; what it queues is drained by the drain that is under way, so events stay in order.
 *
 * An exception out of the application's event handler does not disturb the loop (`callback.ts`).
 *
 * The timer keeps no process alive; open sockets do, unless they are not to. It fires at least every 15 s while a deadline
 * is pending, so that the clock notices that the computer slept.
 *
 * @module
 */
import { NatError } from "../core/errors.ts";
import { familyOf, formatEndpoint } from "../core/ip.ts";
import type {
  Endpoint,
  Instant,
  Machine,
  SendAction,
  SocketResult,
  SocketSpec,
} from "../core/machine.ts";
import { openAnnouncements } from "./announcements.ts";
import { callBack } from "./callback.ts";
import { LONGEST_WAIT_MS } from "./clock.ts";
import type { Runtime, UdpHandlers, UdpOptions, UdpSocket } from "./runtime.ts";

/** Sockets are kept by role and, where connected, by peer. */
function socketKey(role: string, peer: Endpoint | undefined): string {
  return peer ? `${role} ${formatEndpoint(peer)}` : role;
}

/** A socket that the machine has listed; without `socket` it is being opened, or could not be. */
interface ListedSocket {
  readonly spec: SocketSpec;
  socket: UdpSocket | undefined;
}

function isSameSocket(a: SocketSpec, b: SocketSpec): boolean {
  return a.key === b.key && a.group === b.group && a.interface === b.interface &&
    a.reuse === b.reuse && isSameEndpoint(a.local, b.local) && isSameEndpoint(a.connect, b.connect);
}

function isSameEndpoint(a: Endpoint | undefined, b: Endpoint | undefined): boolean {
  return a?.address === b?.address && a?.port === b?.port;
}

function failureOf(error: unknown, isOpen: boolean): SocketResult {
  const { code, message } = error as NatError;
  return { ok: false, code: code === "permission" ? code : "network", message, isOpen };
}

/**
 * Runs one machine on a runtime.
 *
 * @example
 * ```ts ignore
 * const driver = new Driver<NatPmpEvent, NatPmpClient>(runtime, (event) => console.log(event));
 * const socket = await driver.open("client", { connect: gateway });
 * driver.start(new NatPmpClient({ gateway, random: runtime.random }));
 * driver.do((client, now) => client.map({ protocol: "tcp", internalPort: 8080 }, now));
 * ```
 */
export class Driver<E, M extends Machine<E> = Machine<E>> {
  readonly #runtime: Runtime;
  readonly #onEvent: (event: E) => void;
  readonly #onSocketError: ((error: unknown) => void) | undefined;
  readonly #beforeSend: (() => void) | undefined;
  readonly #sockets = new Map<string, UdpSocket>();
  readonly #listeners = new Set<UdpSocket>();
  /** The sockets that the machine has listed, by key. */
  readonly #listed = new Map<string, ListedSocket>();
  /** Whether any socket has a peer: a server's have none, and need no key made for each reply. */
  #hasPeers = false;
  #machine: M | undefined;
  #cancelTimer: (() => void) | undefined;
  #armedAt: Instant = Infinity;
  #isDraining = false;
  #isRef = true;
  #isClosed = false;

  /**
   * @param onEvent Gets the machine's events, in order.
   * @param onSocketError Gets what goes wrong with sockets beside ICMP's "nobody there", which
   *   the machine is told. By default it is dropped: the machine notices the silence.
   * @param beforeSend Is called before each datagram is handed to its socket.
   */
  constructor(
    runtime: Runtime,
    onEvent: (event: E) => void,
    onSocketError?: (error: unknown) => void,
    beforeSend?: () => void,
  ) {
    this.#runtime = runtime;
    this.#onEvent = onEvent;
    this.#onSocketError = onSocketError;
    this.#beforeSend = beforeSend;
  }

  /** The machine, once started. */
  get machine(): M | undefined {
    return this.#machine;
  }

  /**
   * Opens the socket for a role. Datagrams that come before {@linkcode start} are dropped. Several
   * sockets connected to different peers may serve one role: the one to the destination is taken.
   * Opening a socket for the same role and peer again takes the place of the older one.
   *
   * @throws {NatError} `permission`, `network`, or `closed` where the driver was closed meanwhile.
   */
  async open(role: string, options: UdpOptions): Promise<UdpSocket> {
    const socket = await this.#openOwn(options);
    const key = socketKey(role, options.connect);
    this.#sockets.get(key)?.close();
    this.#sockets.set(key, socket);
    this.#hasPeers ||= options.connect !== undefined;
    return socket;
  }

  /**
   * Opens one more socket that only receives (announcements). Closing it is enough to be rid of it.
   *
   * @throws {NatError} As {@linkcode open}.
   */
  async listen(options: UdpOptions): Promise<UdpSocket> {
    const socket = await this.#openOwn(options);
    this.#listeners.add(socket);
    return socket;
  }

  /**
   * Takes the machine; from then on it is fed.
   *
   * @throws {TypeError} Where the driver has one.
   */
  start(machine: M): void {
    if (this.#machine) throw new TypeError("Cannot start a machine: this driver runs one already");
    this.#machine = machine;
    this.#settle();
  }

  /**
   * Runs a command on the machine and drains it.
   *
   * @returns What the command returns.
   * @throws {TypeError} Where no machine was started. What the command throws comes through.
   */
  do<T>(command: (machine: M, now: Instant) => T): T {
    if (!this.#machine) throw new TypeError("Cannot run a command: no machine was started");
    try {
      return command(this.#machine, this.#runtime.now());
    } finally {
      this.#settle();
    }
  }

  /** Lets the process end though sockets are open, those that will be among them. */
  unref(): void {
    this.#isRef = false;
    for (const socket of this.#open()) socket.unref?.();
  }

  /** Keeps the process alive while a socket is open, as at first. */
  ref(): void {
    this.#isRef = true;
    for (const socket of this.#open()) socket.ref?.();
  }

  /** Closes the sockets and stops the timer; the machine is fed no more. */
  close(): void {
    this.#isClosed = true;
    this.#disarm();
    for (const socket of this.#open()) socket.close();
    this.#listed.clear();
    this.#sockets.clear();
    this.#listeners.clear();
  }

  /** The sockets that are open. */
  #open(): UdpSocket[] {
    const listed = [...this.#listed.values()].flatMap(({ socket }) => socket ?? []);
    return [...this.#sockets.values(), ...this.#listeners, ...listed];
  }

  /** Opens what the machine has listed anew, and closes what it lists no more or otherwise. */
  #reconcile(): void {
    const specs = this.#machine?.sockets?.();
    if (!specs || this.#isClosed) return;
    for (const [key, { spec, socket }] of this.#listed) {
      if (specs.some((wanted) => isSameSocket(wanted, spec))) continue;
      this.#listed.delete(key);
      socket?.close();
    }
    for (const spec of specs) if (!this.#listed.has(spec.key)) void this.#openListed(spec);
  }

  async #openListed(spec: SocketSpec): Promise<void> {
    const { key } = spec;
    const listed: ListedSocket = { spec, socket: undefined };
    this.#listed.set(key, listed);
    const handlers: UdpHandlers = {
      ...this.#handlers,
      onError: (error, to) => {
        this.#handlers.onError(error, to);
        if (this.#listed.get(key) === listed) this.#tellSocket(key, failureOf(error, true));
      },
    };
    let result: SocketResult;
    try {
      const socket = await this.#openSpec(spec, handlers);
      // Meanwhile it may be another one that is wanted, or none.
      if (this.#isClosed || this.#listed.get(key) !== listed) return socket?.close();
      listed.socket = socket;
      if (!socket) return;
      result = { ok: true, local: socket.local };
    } catch (error) {
      if (this.#isClosed || this.#listed.get(key) !== listed) return;
      result = failureOf(error, false);
    }
    this.#tellSocket(key, result);
  }

  async #openSpec(spec: SocketSpec, handlers: UdpHandlers): Promise<UdpSocket | undefined> {
    const open = (options: UdpOptions) => this.#openUdp(options, handlers);
    const { local, connect, group, interface: name, reuse } = spec;
    if (group === undefined) {
      return await open({
        ...(local && { local }),
        ...(connect && { connect }),
        ...(reuse && { reuseAddress: true }),
      });
    }
    return await openAnnouncements(open, {
      family: familyOf(group),
      ...(name === undefined ? {} : { interface: name }),
      ...(local && { port: local.port }),
    });
  }

  #tellSocket(key: string, result: SocketResult): void {
    this.#feed((machine, now) => machine.handleSocket?.(key, result, now));
  }

  async #openOwn(options: UdpOptions): Promise<UdpSocket> {
    if (this.#isClosed) throw new NatError("closed", "Cannot open a socket: closed");
    const socket = await this.#openUdp(options, this.#handlers);
    if (!this.#isClosed) return socket;
    socket.close();
    throw new NatError("closed", "Cannot open a socket: closed meanwhile");
  }

  async #openUdp(options: UdpOptions, handlers: UdpHandlers): Promise<UdpSocket> {
    const socket = await this.#runtime.openUdp(options, handlers);
    if (!this.#isRef) socket.unref?.();
    return socket;
  }

  readonly #handlers: UdpHandlers = {
    onDatagram: (data, from) =>
      this.#feed((machine, now) => machine.handleDatagram(data, from, now)),
    onUnreachable: (to) => this.#feed((machine, now) => machine.handleUnreachable(to, now)),
    onError: (error) => callBack(() => this.#onSocketError?.(error)),
  };

  #feed(input: (machine: M, now: Instant) => unknown): void {
    if (!this.#machine || this.#isClosed) return;
    input(this.#machine, this.#runtime.now());
    this.#settle();
  }

  #settle(): void {
    if (this.#isDraining) return;
    this.#isDraining = true;
    this.#drain(this.#machine!);
    this.#isDraining = false;
    this.#reconcile();
    this.#arm();
  }

  #drain(machine: M): void {
    for (let action = machine.poll(); action; action = machine.poll()) {
      switch (action.type) {
        case "send":
          if (this.#beforeSend) callBack(this.#beforeSend);
          this.#send(action);
          break;
        case "request":
          machine.handleResponse?.(action.id, { ok: false, reason: "failed" }, this.#runtime.now());
          break;
        case "event": {
          const { event } = action;
          callBack(() => this.#onEvent(event));
        }
      }
    }
  }

  #send({ socket: role, to, data }: SendAction): void {
    // What a listed socket that is not open yet should have sent is sent again by its machine.
    const listed = this.#listed.get(role);
    if (listed) return listed.socket?.send(data, to);
    const connected = this.#hasPeers ? this.#sockets.get(socketKey(role, to)) : undefined;
    const socket = connected ?? this.#sockets.get(role);
    if (socket) socket.send(data, to);
    else if (!this.#isClosed) {
      const text = `Cannot send to ${formatEndpoint(to)}: no ${role} socket goes there`;
      callBack(() => this.#onSocketError?.(new NatError("network", text)));
    }
  }

  #arm(): void {
    const next = this.#isClosed ? undefined : this.#machine?.nextTimeout();
    if (next === undefined) return this.#disarm();
    // A timer that fires too early only looks at the clock, so moving it later can wait for that.
    if (this.#armedAt <= next) return;
    this.#disarm();
    const now = this.#runtime.now();
    const delayMs = Math.min(next - now, LONGEST_WAIT_MS);
    this.#armedAt = now + delayMs;
    this.#cancelTimer = this.#runtime.setTimer(Math.max(0, delayMs), () => this.#wake(), false);
  }

  #disarm(): void {
    this.#cancelTimer?.();
    this.#cancelTimer = undefined;
    this.#armedAt = Infinity;
  }

  #wake(): void {
    this.#disarm();
    const now = this.#runtime.now();
    const next = this.#machine?.nextTimeout();
    if (next !== undefined && next <= now) this.#machine!.handleTimeout(now);
    this.#settle();
  }
}
