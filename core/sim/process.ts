/**
 * A machine running on a host: the canonical loop *feed → drain → nextTimeout*, over the host's
 * sockets and the world's clock.
 *
 * @module
 */
import { isWildcard } from "../cidr.ts";
import type {
  Endpoint,
  HttpResult,
  Instant,
  Machine,
  RequestAction,
  SocketResult,
  SocketRole,
  SocketSpec,
} from "../machine.ts";
import { anyAddress, familyOf } from "../ip.ts";
import { isSameSocket } from "../sockets.ts";
import { type HttpHost, SimHttp } from "./http.ts";
import type { SimContext, Sleeper } from "./segment.ts";
import { type SimStream, SimStreams } from "./streams.ts";
import type { SimSocket, SocketOptions } from "./socket.ts";

/** What a machine that runs needs of its host. */
export interface ProcessHost extends HttpHost {
  /** How the trace names it. */
  readonly name: string;
  /** Opens a socket. */
  bind(options?: SocketOptions): SimSocket;
  /** Whether a canonical address is its own. */
  hasAddress(address: string): boolean;
  /** Forgets a process that was stopped. */
  forget(process: Sleeper): void;
}

/** The sockets a machine gets, by role. */
export interface ProcessSockets {
  /** For what it sends as a client. */
  readonly client?: SocketOptions;
  /** For what it sends as a server. */
  readonly server?: SocketOptions;
  /** For replies that come from where nobody asked; without it they are dropped. */
  readonly other?: SocketOptions;
  /** Sockets on which it only listens (announcements). */
  readonly listen?: readonly SocketOptions[];
}

/** Something a machine told, with its time. */
export interface TimedEvent<E> {
  /** When, milliseconds of virtual time. */
  readonly at: Instant;
  /** What. */
  readonly event: E;
}

/** How a machine is run. */
export interface ProcessOptions<E> {
  /** How the trace names it. Default: the host's name. */
  readonly name?: string;
  /** Told every event; without it they are kept in `events`. */
  readonly onEvent?: (event: E, now: Instant) => void;
  /** Called each time the machine has been fed and drained. */
  readonly onDrained?: (now: Instant) => void;
  /** Makes the machine's HTTP requests; by default they go through the network. */
  readonly onRequest?: (
    action: RequestAction,
    respond: (result: HttpResult) => void,
    now: Instant,
  ) => void;
}

/** A machine that has filled a queue of this many actions at once does not end. */
const MAX_ACTIONS = 1_000_000;

/** A run that cannot go on: a livelock, a bound broken. */
export class SimulationError extends Error {
  /** Makes the error. */
  constructor(message: string) {
    super(message);
    this.name = "SimulationError";
  }
}

interface ListedSocket {
  readonly spec: SocketSpec;
  readonly socket: SimSocket | undefined;
  readonly local: Endpoint | undefined;
}

/** Made by `Host.run`. */
export class Process<E, M extends Machine<E> = Machine<E>> implements Sleeper {
  /** The machine. To give it a command, use `do`. */
  readonly machine: M;
  /** How the trace names it. */
  readonly name: string;
  /** The sockets, by role. */
  readonly sockets: { readonly [role in SocketRole]: SimSocket | undefined };
  /** What the machine told, unless `onEvent` was given. */
  readonly events: TimedEvent<E>[] = [];
  readonly #context: SimContext;
  readonly #host: ProcessHost;
  readonly #options: ProcessOptions<E>;
  readonly #all: SimSocket[] = [];
  /** The sockets that the machine has listed; those that could not be had have none. */
  readonly #listed = new Map<string, ListedSocket>();
  readonly #http: SimHttp;
  readonly #streams: SimStreams;
  /** What the machine has listed last; the same array says the same. */
  #lastList: readonly SocketSpec[] | undefined;
  #wakeAt: Instant | undefined;
  #isStopped = false;

  /** Made by `Host.run`. */
  constructor(
    context: SimContext,
    host: ProcessHost,
    machine: M,
    sockets: ProcessSockets,
    options: ProcessOptions<E>,
  ) {
    this.#context = context;
    this.#host = host;
    this.machine = machine;
    this.#options = options;
    this.name = options.name ?? host.name;
    this.#http = new SimHttp(context, host, {
      onResult: (id, result) => this.#feedResult(id, result),
      onRequest: (id, request, from) => {
        if (!this.machine.handleRequest) return;
        this.machine.handleRequest(id, request, from, this.#context.now);
        this.#drain();
      },
    });
    this.#streams = new SimStreams(context, host, (id, happened) => {
      if (this.#isStopped) return;
      this.machine.handleStream?.(id, happened, this.#context.now);
      this.#drain();
    });
    this.sockets = {
      client: sockets.client && this.#open("client", sockets.client),
      server: sockets.server && this.#open("server", sockets.server),
      other: sockets.other && this.#open("other", sockets.other),
    };
    for (const listen of sockets.listen ?? []) this.#open("server", listen);
    this.#drain();
  }

  /** Gives the machine a command (or looks at it), then drains it. */
  do<T>(command: (machine: M, now: Instant) => T): T {
    const result = command(this.machine, this.#context.now);
    this.#drain();
    return result;
  }

  /** Takes the events kept so far. */
  takeEvents(): TimedEvent<E>[] {
    return this.events.splice(0);
  }

  /** Ends it as a killed program would: sockets closed, nothing said. */
  stop(): void {
    if (this.#isStopped) return;
    this.#isStopped = true;
    for (const socket of this.#all) socket.close();
    this.#http.stop();
    this.#streams.stop();
    this.#context.wake(this, undefined);
    this.#host.forget(this);
  }

  /** Calls the machine at its deadline; called by the world. */
  wake(): void {
    this.#wakeAt = undefined;
    if (this.#isStopped || this.#host.isSuspended) return;
    this.machine.handleTimeout(this.#context.now);
    this.#drain();
  }

  /** Sets the alarm anew; called by the host when it resumes. */
  schedule(): void {
    if (this.#isStopped) return;
    this.#http.schedule();
    this.#streams.schedule();
    const next = this.machine.nextTimeout();
    if (next === this.#wakeAt) return;
    this.#wakeAt = next;
    const { now } = this.#context;
    const at = next === undefined ? undefined : Math.max(next, now);
    this.#context.wake(this, at);
  }

  #open(key: string, options: SocketOptions): SimSocket {
    const socket = this.#host.bind(options);
    socket.onDatagram = (data, from) => {
      this.machine.handleDatagram(data, from, key, this.#context.now);
      this.#drain();
    };
    socket.onUnreachable = (to: Endpoint) => {
      this.machine.handleUnreachable(to, key, this.#context.now);
      this.#drain();
    };
    this.#all.push(socket);
    return socket;
  }

  /** The socket that the machine has listed under a key. */
  listed(key: string): SimSocket | undefined {
    return this.#listed.get(key)?.socket;
  }

  /**
   * Opens what the list says, and closes what it says otherwise; whether any was opened, which may
   * change the list. What is on it no more is closed by `#closeUnlisted`, once all has left.
   */
  #reconcile(): boolean {
    const specs = this.machine.sockets?.();
    if (!specs || specs === this.#lastList) return false;
    this.#lastList = specs;
    for (const [key, { spec, local }] of this.#listed) {
      const wanted = specs.find((one) => one.key === key);
      if (wanted && !isSameSocket(wanted, spec, local)) this.#closeListed(key);
    }
    const wanted = specs.filter(({ key }) => !this.#listed.has(key));
    for (const spec of wanted) this.#openListed(spec);
    return wanted.length > 0;
  }

  #closeUnlisted(): void {
    const specs = this.#lastList;
    if (!specs || this.#listed.size === specs.length) return;
    for (const key of [...this.#listed.keys()]) {
      if (!specs.some((wanted) => wanted.key === key)) this.#closeListed(key);
    }
  }

  #closeListed(key: string): void {
    const { spec, socket } = this.#listed.get(key)!;
    this.#listed.delete(key);
    if (spec.kind === "http") this.#http.unlisten(key);
    if (spec.kind === "tcp") this.#streams.unlisten(key);
    if (!socket) return;
    socket.close();
    this.#all.splice(this.#all.indexOf(socket), 1);
  }

  #openListed(spec: SocketSpec): void {
    const { key, kind = "udp", local: wanted, connect, group } = spec;
    if (kind === "http") return this.#listenHttp(spec);
    if (kind === "tcp") return this.#listenTcp(spec);
    const isAny = wanted === undefined || wanted.address === anyAddress(familyOf(wanted.address));
    const source = isAny ? this.#host.addressToward(connect?.address ?? "0.0.0.0") : wanted.address;
    const isOwn = group !== undefined || source === undefined || this.#host.hasAddress(source);
    if ((connect && !source) || !isOwn) {
      this.#listed.set(key, { spec, socket: undefined, local: undefined });
      const message = source
        ? `Cannot bind to ${source}`
        : `There is no way to ${connect!.address}`;
      return this.#tellSocket(key, { ok: false, code: "network", message, isOpen: false });
    }
    const socket = this.#open(key, {
      ...(!isAny && { address: group ?? wanted.address }),
      ...(wanted && { port: wanted.port }),
      ...(connect && { connect }),
      ...(group !== undefined && { groups: [group] }),
    });
    const local = source === undefined ? undefined : { address: source, port: socket.port };
    this.#listed.set(key, { spec, socket, local });
    if (local) this.#tellSocket(key, { ok: true, local });
  }

  #listenHttp(spec: SocketSpec): void {
    const { key, local: wanted } = spec;
    const isAny = wanted === undefined || isWildcard(wanted.address);
    const source = isAny ? this.#host.addressToward("0.0.0.0") : wanted.address;
    const isOwn = isAny || this.#host.hasAddress(wanted.address);
    const port = isOwn
      ? this.#http.listen(key, isAny ? undefined : source, wanted?.port ?? 0)
      : undefined;
    const local = port === undefined ? undefined : { address: source ?? "0.0.0.0", port };
    this.#listed.set(key, { spec, socket: undefined, local });
    if (local) return this.#tellSocket(key, { ok: true, local });
    const message = `Cannot listen for HTTP on ${source}, port ${wanted?.port}`;
    this.#tellSocket(key, { ok: false, code: "network", message, isOpen: false });
  }

  #listenTcp(spec: SocketSpec): void {
    const { key, local: wanted } = spec;
    const isAny = wanted === undefined || isWildcard(wanted.address);
    const address = isAny ? this.#host.addressToward("0.0.0.0") : wanted.address;
    const port = address !== undefined && this.#host.hasAddress(address)
      ? this.#streams.listen(key, { address, port: wanted?.port ?? 0 })
      : undefined;
    const local = port === undefined ? undefined : { address: address!, port };
    this.#listed.set(key, { spec, socket: undefined, local });
    if (local) return this.#tellSocket(key, { ok: true, local });
    const message = `Cannot listen on ${address}, port ${wanted?.port}`;
    this.#tellSocket(key, { ok: false, code: "network", message, isOpen: false });
  }

  /** Gives a stream that the machine has handed over. */
  take(id: number): SimStream | undefined {
    return this.#streams.take(id);
  }

  #tellSocket(key: string, result: SocketResult): void {
    this.machine.handleSocket?.(key, result, this.#context.now);
  }

  #drain(): void {
    if (this.#isStopped) return;
    while (this.#reconcile());
    let left = MAX_ACTIONS;
    for (let action = this.machine.poll(); action; action = this.machine.poll()) {
      if (left-- === 0) throw new SimulationError(`${this.name}: poll() does not come to an end`);
      switch (action.type) {
        case "send":
          this.#send(action.socket, action.to, action.data);
          break;
        case "event":
          this.#tell(action.event);
          break;
        case "request":
          this.#request(action);
          break;
        case "respond":
          this.#http.respond(action.id, action.response);
          break;
        case "stream":
          this.#streams.act(action);
          break;
      }
      if (this.#isStopped) return;
    }
    this.#closeUnlisted();
    this.schedule();
    this.#options.onDrained?.(this.#context.now);
  }

  #send(key: string, to: Endpoint, data: Uint8Array): void {
    const socket = this.#listed.get(key)?.socket ?? this.sockets[key as SocketRole];
    if (socket) socket.send(to, data);
    else if (key !== "other" && !this.machine.sockets) {
      throw new SimulationError(`${this.name}: no socket for role "${key}"`);
    }
  }

  #tell(event: E): void {
    const { now, trace } = this.#context;
    if (trace.isOn) trace.event(now, this.name, event);
    if (this.#options.onEvent) this.#options.onEvent(event, now);
    else this.events.push({ at: now, event });
  }

  #request(action: RequestAction): void {
    const { onRequest } = this.#options;
    if (!onRequest) return this.#http.request(action);
    onRequest(action, (result) => this.#feedResult(action.id, result), this.#context.now);
  }

  #feedResult(id: number, result: HttpResult): void {
    if (this.#isStopped) return;
    this.machine.handleResponse?.(id, result, this.#context.now);
    this.#drain();
  }
}
