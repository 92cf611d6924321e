/**
 * A machine that lets others look at what goes in and out of the machine inside.
 *
 * @module
 */
import type {
  Action,
  DebugTimeout,
  Endpoint,
  HttpRequest,
  HttpResult,
  Instant,
  Machine,
  RequestAction,
  SocketResult,
  SocketSpec,
} from "../../core/machine.ts";

/** What a tap shows. */
export interface TapHooks {
  /** A datagram comes in. */
  onReceive(data: Uint8Array, from: Endpoint, now: Instant): void;
  /** A datagram goes out. */
  onSend(data: Uint8Array, to: Endpoint, now: Instant): void;
  /** ICMP comes in. */
  onUnreachable(to: Endpoint, now: Instant): void;
  /** An HTTP request goes out. */
  onRequest?(action: RequestAction, now: Instant): void;
  /** What came of it comes in. */
  onResult?(id: number, result: HttpResult, now: Instant): void;
  /** An HTTP request comes in. */
  onAsked?(request: HttpRequest, now: Instant): void;
}

/** Shows a machine's traffic. */
export class Tap<E> implements Machine<E> {
  readonly #inner: Machine<E>;
  readonly #hooks: TapHooks;
  #now: Instant = 0;

  constructor(inner: Machine<E>, hooks: TapHooks) {
    this.#inner = inner;
    this.#hooks = hooks;
  }

  get stats(): object {
    return this.#inner.stats;
  }

  /**
   * The sockets that the machine wants, where it lists any. They are not connected, as Deno's cannot
   * be: who sends is the machine's to judge.
   */
  get sockets(): Machine<E>["sockets"] {
    return this.#inner.sockets && (() => this.#inner.sockets!().map(withoutPeer));
  }

  handleSocket(key: string, result: SocketResult, now: Instant): void {
    this.#now = now;
    this.#inner.handleSocket?.(key, result, now);
  }

  /** Commands go around the tap; this tells it when. */
  touch(now: Instant): void {
    this.#now = now;
  }

  handleDatagram(data: Uint8Array, from: Endpoint, socket: string, now: Instant): boolean {
    this.#now = now;
    this.#hooks.onReceive(data, from, now);
    return this.#inner.handleDatagram(data, from, socket, now);
  }

  handleUnreachable(to: Endpoint, socket: string, now: Instant): void {
    this.#now = now;
    this.#hooks.onUnreachable(to, now);
    this.#inner.handleUnreachable(to, socket, now);
  }

  handleResponse(id: number, result: HttpResult, now: Instant): void {
    this.#now = now;
    this.#hooks.onResult?.(id, result, now);
    this.#inner.handleResponse?.(id, result, now);
  }

  handleRequest(id: number, request: HttpRequest, from: Endpoint, now: Instant): void {
    this.#now = now;
    this.#hooks.onAsked?.(request, now);
    this.#inner.handleRequest?.(id, request, from, now);
  }

  handleTimeout(now: Instant): void {
    this.#now = now;
    this.#inner.handleTimeout(now);
  }

  nextTimeout(): Instant | undefined {
    return this.#inner.nextTimeout();
  }

  debugTimeout(): DebugTimeout | undefined {
    return this.#inner.debugTimeout();
  }

  poll(): Action<E> | undefined {
    const action = this.#inner.poll();
    if (action?.type === "send") this.#hooks.onSend(action.data, action.to, this.#now);
    if (action?.type === "request") this.#hooks.onRequest?.(action, this.#now);
    return action;
  }
}

function withoutPeer({ connect, ...spec }: SocketSpec): SocketSpec {
  return connect && !spec.local ? { ...spec, connect } : spec;
}
