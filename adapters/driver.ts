/**
 * The one event loop: it stands between a runtime's sockets and timers and a machine.
 *
 *   feed one input → drain `poll()` → open and close sockets → arm one timer at `nextTimeout()`
 *
 * Inputs are what comes by sockets, HTTP and streams, the timer, or a command through
 * {@linkcode Driver.do}.
 * Each is followed by a complete drain. A command given from within an event handler is run at
 * once; what it queues is drained by the drain that is under way, so events stay in order.
 *
 * An exception out of the application's event handler does not disturb the loop (`callback.ts`).
 *
 * The timer keeps no process alive; open sockets do, unless they are not to. It fires at least every
 * 15 s while a deadline is pending, so that the clock notices that the computer slept.
 *
 * @module
 */
import { NatError } from "../core/errors.ts";
import { anyAddress, formatEndpoint } from "../core/ip.ts";
import type {
  Endpoint,
  Instant,
  Machine,
  RequestAction,
  SendAction,
  SocketResult,
  SocketSpec,
  StreamAction,
} from "../core/machine.ts";
import { isSameSocket } from "../core/sockets.ts";
import { callBack } from "./callback.ts";
import { LONGEST_WAIT_MS } from "./clock.ts";
import { countDropped, reasonSince } from "./dropped.ts";
import { openGroup } from "./multicast.ts";
import type {
  HandedStream,
  Http,
  Listener,
  Runtime,
  Streams,
  UdpHandlers,
  UdpOptions,
  UdpSocket,
} from "./runtime.ts";
import { callError } from "./udp.ts";

/** What a driver needs of a runtime. */
export type DriverRuntime = Pick<
  Runtime,
  "now" | "setTimer" | "openUdp" | "openHttp" | "openStreams" | "tap"
>;

/** What is open under a key; listeners send nothing. */
type OpenSocket = Listener & Partial<UdpSocket>;

/** A socket that is wanted; without `socket` it is being opened, or could not be. */
interface ListedSocket {
  readonly spec: SocketSpec;
  socket: OpenSocket | undefined;
  /** Ends with its failure, or with undefined once it is open. */
  opening: Promise<NatError | undefined>;
}

function failureOf({ code, message }: NatError, isOpen: boolean): SocketResult {
  return { ok: false, code: code === "permission" ? code : "network", message, isOpen };
}

/** How many datagrams wait at most until they may leave. */
const MAX_WAITING = 4096;

/** Something of the runtime that is loaded when first needed; uses keep their order. */
class OnDemand<T extends { close(): void }> {
  readonly #load: () => Promise<T>;
  #loading: Promise<T> | undefined;
  #loaded: T | undefined;
  #isClosed = false;

  constructor(load: () => Promise<T>) {
    this.#load = load;
  }

  get loaded(): T | undefined {
    return this.#loaded;
  }

  /** Whether something has had a use for it. */
  get isUsed(): boolean {
    return this.#loading !== undefined;
  }

  load(): Promise<T> {
    return this.#loading ??= this.#load().then((loaded) => {
      if (this.#isClosed) loaded.close();
      return this.#loaded = loaded;
    }, (error) => {
      // The next use may have it.
      this.#loading = undefined;
      throw error;
    });
  }

  /** @param onMissing It cannot be had. */
  use(act: (it: T) => void, onMissing: () => void): void {
    if (this.#loaded) act(this.#loaded);
    else this.load().then((it) => this.#isClosed || act(it), onMissing);
  }

  close(): void {
    this.#isClosed = true;
    this.#loaded?.close();
  }
}

/**
 * Runs one machine on a runtime.
 *
 * @example
 * ```ts ignore
 * const driver = new Driver<NatPmpEvent, NatPmpClient>(runtime, (event) => console.log(event));
 * await driver.open({ key: "client", connect: gateway });
 * driver.start(new NatPmpClient({ gateway, random: runtime.random }));
 * driver.do((client, now) => client.map({ protocol: "tcp", internalPort: 8080 }, now));
 * ```
 */
export class Driver<E, M extends Machine<E> = Machine<E>> {
  readonly #runtime: DriverRuntime;
  readonly #onEvent: (event: E) => void;
  readonly #onSocketError: ((error: unknown) => void) | undefined;
  readonly #beforeSend: (() => unknown) | undefined;
  readonly #onStray: ((data: Uint8Array, from: Endpoint, socket: string) => void) | undefined;
  /** Datagrams that are not to leave yet, in their order. */
  readonly #waiting: { readonly action: SendAction; readonly until: Promise<void> | undefined }[] =
    [];
  /** What is wanted for a machine that lists no sockets. */
  readonly #opened: SocketSpec[] = [];
  /** The sockets, by key. */
  readonly #listed = new Map<string, ListedSocket>();
  /** What the machine has listed last; the same array says the same. */
  #lastList: readonly SocketSpec[] | undefined;
  readonly #http: OnDemand<Http> | undefined;
  readonly #streams: OnDemand<Streams> | undefined;
  readonly #tap: Runtime["tap"];
  /** The other ends of HTTP requests under way, for the tap. */
  readonly #peers = new Map<string, Endpoint>();
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
   * @param beforeSend Is called before each datagram is handed to its socket. Where it returns a
   *   promise, the datagram and those after it wait for that.
   * @param onStray Gets the datagrams that are not the machine's, borrowed until return.
   */
  constructor(
    runtime: DriverRuntime,
    onEvent: (event: E) => void,
    onSocketError?: (error: unknown) => void,
    beforeSend?: () => unknown,
    onStray?: (data: Uint8Array, from: Endpoint, socket: string) => void,
  ) {
    this.#runtime = runtime;
    this.#tap = runtime.tap;
    this.#onEvent = onEvent;
    this.#onSocketError = onSocketError;
    this.#beforeSend = beforeSend;
    this.#onStray = onStray;
    this.#http = runtime.openHttp && new OnDemand(() =>
      runtime.openHttp!({
        onResult: (id, result) => {
          this.#tap?.({ type: "answered", result, peer: this.#peerOf("asked", id) });
          this.#feed((machine, now) => machine.handleResponse?.(id, result, now));
        },
        onRequest: (id, request, from) => {
          if (this.#tap) this.#peers.set(`taken ${id}`, from);
          this.#tap?.({ type: "was-asked", request, peer: from });
          this.#feed((machine, now) => machine.handleRequest?.(id, request, from, now));
        },
      })
    );
    this.#streams = runtime.openStreams &&
      new OnDemand(() =>
        runtime.openStreams!((id, happened) =>
          this.#feed((machine, now) => machine.handleStream?.(id, happened, now))
        )
      );
  }

  /** Is called each time the machine was fed and drained. */
  onSettled: (() => void) | undefined;

  /** The machine, once started. */
  get machine(): M | undefined {
    return this.#machine;
  }

  /**
   * Opens a socket for a machine that lists none, until the driver is closed. Datagrams that come
   * before {@linkcode start} are dropped.
   *
   * @returns Where it is bound.
   * @throws {NatError} `permission`, `network`, or `closed` where the driver was closed meanwhile.
   */
  async open(spec: SocketSpec): Promise<Endpoint> {
    this.#opened.push(spec);
    const listed = this.#list(spec);
    const error = await listed.opening;
    if (error) throw error;
    return listed.socket!.local;
  }

  /**
   * Waits until each socket that is listed at present is open.
   *
   * @throws {NatError} As {@linkcode open}, for the first that could not be opened.
   */
  async opened(): Promise<void> {
    for (const { opening, spec } of [...this.#listed.values()]) {
      const error = await opening;
      if (error && !spec.optional) throw error;
    }
  }

  /** Whether anybody was asked by HTTP, or listened to. */
  get usesHttp(): boolean {
    return this.#http?.isUsed === true;
  }

  /** Where the socket of that key is bound, once it is open. */
  local(key: string): Endpoint | undefined {
    return this.#listed.get(key)?.socket?.local;
  }

  /**
   * Hands a socket over to the application and keeps none of it; undefined where it was not opened
   * for that.
   */
  detach(key: string): unknown {
    const socket = this.#listed.get(key)?.socket?.detach?.();
    if (socket !== undefined) this.#listed.delete(key);
    return socket;
  }

  /** Takes a stream that the machine has handed over; undefined where there is none. */
  take(id: number): HandedStream | undefined {
    return this.#streams?.loaded?.take(id);
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
    this.#http?.close();
    this.#streams?.close();
  }

  /** The sockets that are open. */
  #open(): OpenSocket[] {
    return [...this.#listed.values()].flatMap(({ socket }) => socket ?? []);
  }

  /** Opens what the machine has listed anew, and closes what it lists no more or otherwise. */
  #reconcile(): void {
    const listed = this.#machine?.sockets?.();
    if (!listed || listed === this.#lastList || this.#isClosed) return;
    this.#lastList = listed;
    const specs = [...this.#opened, ...listed];
    for (const [key, { spec, socket }] of this.#listed) {
      if (specs.some((wanted) => isSameSocket(wanted, spec, socket?.local))) continue;
      this.#listed.delete(key);
      socket?.close();
    }
    for (const spec of specs) if (!this.#listed.has(spec.key)) this.#list(spec);
  }

  #list(spec: SocketSpec): ListedSocket {
    const listed: ListedSocket = { spec, socket: undefined, opening: Promise.resolve(undefined) };
    this.#listed.get(spec.key)?.socket?.close();
    this.#listed.set(spec.key, listed);
    listed.opening = this.#openListed(listed);
    return listed;
  }

  /** Opens it, and tells the machine; ends with the failure, if any. */
  async #openListed(listed: ListedSocket): Promise<NatError | undefined> {
    const { key } = listed.spec;
    // Meanwhile it may be another one that is wanted, or none.
    const isWanted = () => !this.#isClosed && this.#listed.get(key) === listed;
    const handlers: UdpHandlers = {
      onDatagram: (data, from) =>
        this.#feed((machine, now) => {
          const isTaken = this.#tap
            ? this.#tapDatagram(machine, data, from, listed, now)
            : machine.handleDatagram(data, from, key, now);
          if (!isTaken) callBack(() => this.#onStray?.(data, from, key));
        }),
      onUnreachable: (to) => {
        this.#tap?.({ type: "unreachable", peer: to });
        this.#feed((machine, now) => machine.handleUnreachable(to, key, now));
      },
      onError: (error) => {
        this.#tap?.({ type: "failed", message: error.message });
        callBack(() => this.#onSocketError?.(error));
        if (isWanted()) this.#tellSocket(key, failureOf(error, true));
      },
    };
    try {
      if (this.#isClosed) throw new NatError("closed", "Cannot open a socket: closed");
      const socket = await this.#openSpec(listed.spec, handlers);
      if (!isWanted()) {
        socket.close();
        throw new NatError("closed", "Cannot open a socket: closed meanwhile");
      }
      if (!this.#isRef) socket.unref?.();
      listed.socket = socket;
    } catch (error) {
      const failure = error instanceof NatError ? error : callError("Cannot open a socket", error);
      if (isWanted()) this.#tap?.({ type: "failed", message: failure.message });
      if (isWanted() && listed.spec.optional) callBack(() => this.#onSocketError?.(failure));
      if (isWanted()) this.#tellSocket(key, failureOf(failure, false));
      return failure;
    }
    this.#tellSocket(key, { ok: true, local: listed.socket.local });
    return undefined;
  }

  async #openSpec(spec: SocketSpec, handlers: UdpHandlers): Promise<OpenSocket> {
    const { key, kind = "udp", local, connect, group, interface: name, multicastBy, reuse } = spec;
    if (kind !== "udp") {
      const at = local ?? { address: anyAddress(4), port: 0 };
      const side = kind === "http" ? this.#http : this.#streams;
      if (!side) throw new NatError("network", `Cannot listen: this runtime has no ${kind}`);
      const it = await side.load();
      return await ("request" in it ? it.listen(at) : it.listen(key, at));
    }
    const open = (options: UdpOptions) => this.#runtime.openUdp(options, handlers);
    if (group === undefined) {
      return await open({
        ...(local && { local }),
        ...(connect && { connect }),
        ...(multicastBy && { multicastBy }),
        ...(reuse && { reuseAddress: true }),
      });
    }
    return await openGroup(open, {
      group,
      port: local?.port ?? 0,
      ...(name === undefined ? {} : { interface: name }),
    });
  }

  #tellSocket(key: string, result: SocketResult): void {
    this.#feed((machine, now) => machine.handleSocket?.(key, result, now));
  }

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
    this.onSettled?.();
  }

  #drain(machine: M): void {
    for (let action = machine.poll(); action; action = machine.poll()) {
      switch (action.type) {
        case "send":
          this.#post(action);
          break;
        case "request":
          this.#request(machine, action);
          break;
        case "respond":
          this.#tap?.({
            type: "responded",
            response: action.response,
            peer: this.#peerOf("taken", action.id),
          });
          this.#http?.use((http) => http.respond(action), () => {});
          break;
        case "stream":
          this.#stream(machine, action);
          break;
        case "event": {
          const { event } = action;
          callBack(() => this.#onEvent(event));
        }
      }
    }
  }

  #post(action: SendAction): void {
    const until = this.#beforeSend && callBack(this.#beforeSend);
    if (!until && this.#waiting.length === 0) return this.#send(action);
    // What is too much is sent again by its machine.
    if (this.#waiting.length >= MAX_WAITING) return;
    if (this.#waiting.push({ action, until }) === 1) void this.#sendWaiting();
  }

  async #sendWaiting(): Promise<void> {
    for (let next; (next = this.#waiting[0]); this.#waiting.shift()) {
      await next.until;
      if (this.#isClosed) return;
      this.#send(next.action);
    }
  }

  #send({ socket: key, to, data }: SendAction): void {
    const listed = this.#listed.get(key);
    this.#tap?.({
      type: "sent",
      data,
      local: listed?.socket?.local,
      peer: to,
      ...!listed?.socket && { dropped: "its socket is not open" },
    });
    // What a socket that is not open yet should have sent is sent again by its machine.
    if (listed) return listed.socket?.send?.(data, to);
    if (!this.#isClosed && !this.#machine?.sockets?.().some((spec) => spec.key === key)) {
      const text = `Cannot send to ${formatEndpoint(to)}: there is no socket "${key}"`;
      callBack(() => this.#onSocketError?.(new NatError("network", text)));
    }
  }

  /** Feeds a datagram, and tells what became of it before what follows from it. */
  #tapDatagram(
    machine: M,
    data: Uint8Array,
    peer: Endpoint,
    { spec, socket }: ListedSocket,
    now: Instant,
  ): boolean {
    const before = countDropped(machine.stats);
    const isTaken = machine.handleDatagram(data, peer, spec.key, now);
    this.#tap!({
      type: "received",
      data,
      local: socket?.local,
      peer,
      ...!isTaken && { dropped: reasonSince(before, machine.stats, data) },
    });
    return isTaken;
  }

  /** Who asked or was asked by HTTP, as it is over. */
  #peerOf(side: "asked" | "taken", id: number): Endpoint | undefined {
    const peer = this.#peers.get(`${side} ${id}`);
    this.#peers.delete(`${side} ${id}`);
    return peer;
  }

  #request(machine: M, action: RequestAction): void {
    if (this.#tap) {
      this.#tap({ type: "asked", request: action.request, peer: action.to });
      this.#peers.set(`asked ${action.id}`, action.to);
    }
    const result = { ok: false, reason: "failed" } as const;
    if (!this.#http) return machine.handleResponse?.(action.id, result, this.#runtime.now());
    this.#http.use((http) => http.request(action), () => {
      this.#tap?.({ type: "answered", result, peer: this.#peerOf("asked", action.id) });
      this.#feed((it, now) => it.handleResponse?.(action.id, result, now));
    });
  }

  #stream(machine: M, action: StreamAction): void {
    const { id } = action;
    const isAwaited = action.do === "connect";
    const closed = { type: "closed", reason: "failed" } as const;
    if (this.#streams) {
      return this.#streams.use((streams) => streams.act(action), () => {
        if (isAwaited) this.#feed((it, now) => it.handleStream?.(id, closed, now));
      });
    }
    if (isAwaited) machine.handleStream?.(id, closed, this.#runtime.now());
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
