/**
 * A wrapper that holds a machine to the contract of `core/machine.ts` while it works: it calls too
 * often and too early, scribbles over what it lent, and looks whether what was sent changes. It
 * passes everything on, so it can stand wherever the machine can.
 *
 * What it checks, by rule: that extra and repeated calls do nothing (2), that waiting output shows
 * in `nextTimeout` (3), that lent data is not kept and sent data does not change (4), that polling
 * an empty machine changes nothing (1), and that counters are numbers.
 *
 * @module
 */
import { equalBytes } from "../bytes.ts";
import type {
  Action,
  DebugTimeout,
  Endpoint,
  HttpRequest,
  HttpResult,
  Instant,
  Machine,
  SocketResult,
  SocketSpec,
  StreamResult,
} from "../machine.ts";
import { SimulationError } from "./process.ts";

/** How many datagrams are watched for changes. */
const WATCHED = 16;
/** The counters are looked at every so many calls. */
const STATS_EVERY = 64;

/** Bytes as Node lends them: a Buffer's `slice` is no copy but a view. */
class LentBytes extends Uint8Array {
  override slice(start?: number, end?: number): Uint8Array<ArrayBuffer> {
    return this.subarray(start, end) as Uint8Array<ArrayBuffer>;
  }
}

/**
 * Holds `inner` to the contract; a breach throws.
 *
 * @example
 * ```ts
 * import { StrictMachine } from "@natkit/natkit/testing";
 * import { NatPmpClient } from "@natkit/natkit/nat-pmp";
 * import { seededRandom } from "@natkit/natkit/core";
 * const gateway = { address: "192.168.1.1", port: 5351 };
 * const strict = new StrictMachine(new NatPmpClient({ gateway, random: seededRandom(1) }));
 * strict.command((client, now) => client.probe(now), 0);
 * console.assert(strict.poll()?.type === "send");
 * ```
 */
export class StrictMachine<E, M extends Machine<E>> implements Machine<E> {
  /** The machine. */
  readonly inner: M;
  #lastNow: Instant = -Infinity;
  #isDraining = false;
  #lent: Uint8Array[] = [];
  #sent: { readonly data: Uint8Array; readonly copy: Uint8Array }[] = [];
  #calls = 0;

  /** Wraps a machine. */
  constructor(inner: M) {
    this.inner = inner;
  }

  /** Counters, the machine's own. */
  get stats(): object {
    return this.inner.stats;
  }

  /** Gives the machine a command. */
  command<T>(command: (inner: M, now: Instant) => T, now: Instant): T {
    this.#enter(now);
    return command(this.inner, now);
  }

  /** Passes a datagram on, in a buffer that is overwritten afterwards. */
  handleDatagram(data: Uint8Array, from: Endpoint, socket: string, now: Instant): boolean {
    this.#enter(now);
    return this.#lend(data, (lent) => this.inner.handleDatagram(lent, from, socket, now));
  }

  /** The sockets that the machine wants, where it lists any. */
  get sockets(): (() => readonly SocketSpec[]) | undefined {
    return this.inner.sockets && (() => this.inner.sockets!());
  }

  /** Passes on what became of a socket. */
  handleSocket(key: string, result: SocketResult, now: Instant): void {
    this.#enter(now);
    this.inner.handleSocket?.(key, result, now);
  }

  /** Passes an HTTP result on, its body as {@linkcode handleDatagram} does. */
  handleResponse(id: number, result: HttpResult, now: Instant): void {
    this.#enter(now);
    if (!result.ok) return this.inner.handleResponse?.(id, result, now);
    this.#lend(result.body, (body) => this.inner.handleResponse?.(id, { ...result, body }, now));
  }

  /** Passes an HTTP request on, likewise. */
  handleRequest(id: number, request: HttpRequest, from: Endpoint, now: Instant): void {
    this.#enter(now);
    if (!request.body) return this.inner.handleRequest?.(id, request, from, now);
    this.#lend(request.body, (body) => {
      this.inner.handleRequest?.(id, { ...request, body }, from, now);
    });
  }

  /** Passes on what happened to a stream, likewise. */
  handleStream(id: number, happened: StreamResult, now: Instant): void {
    this.#enter(now);
    if (happened.type !== "data") return this.inner.handleStream?.(id, happened, now);
    this.#lend(happened.data, (data) => {
      this.inner.handleStream?.(id, { ...happened, data }, now);
    });
  }

  /** Passes an ICMP error on. */
  handleUnreachable(to: Endpoint, socket: string, now: Instant): void {
    this.#enter(now);
    this.inner.handleUnreachable(to, socket, now);
  }

  /** Passes the time on, several times over. */
  handleTimeout(now: Instant): void {
    this.#enter(now);
    this.inner.handleTimeout(now);
    const next = this.inner.nextTimeout();
    this.inner.handleTimeout(now);
    if (this.inner.nextTimeout() !== next) {
      this.#breach(2, `a repeated handleTimeout(${now}) moved the deadline from ${next}`);
    }
  }

  /** The machine's answer, which a waiting output must show in. */
  nextTimeout(): Instant | undefined {
    return this.inner.nextTimeout();
  }

  /** The machine's answer, which must agree with `nextTimeout`. */
  debugTimeout(): DebugTimeout | undefined {
    return this.inner.debugTimeout();
  }

  /** Takes the next action, and checks what can be checked around it. */
  poll(): Action<E> | undefined {
    const next = this.inner.nextTimeout(), debug = this.inner.debugTimeout()?.at;
    if (next !== debug) this.#breach(3, `nextTimeout() is ${next}, debugTimeout() is ${debug}`);
    const action = this.inner.poll();
    if (action) {
      this.#isDraining = true;
      if (next !== this.#lastNow) {
        this.#breach(3, `output waits, the last call was at ${this.#lastNow}, deadline ${next}`);
      }
      if (action.type === "send") this.#watch(action.data);
      if (action.type === "stream" && action.do === "write") this.#watch(action.data);
      return action;
    }
    if (this.#isDraining) this.#drained();
    return undefined;
  }

  /** Lends bytes for a call, and overwrites them afterwards. */
  #lend<T>(data: Uint8Array, call: (lent: Uint8Array) => T): T {
    const lent = new LentBytes(data.length);
    lent.set(data);
    const result = call(lent);
    lent.fill(this.#calls);
    this.#lent.push(lent);
    if (this.#lent.length > WATCHED) this.#lent.shift();
    return result;
  }

  #enter(now: Instant): void {
    if (now < this.#lastNow) this.#breach(2, `time went back from ${this.#lastNow} to ${now}`);
    // One a call, in turn, of those lent and those sent: each comes up before it is forgotten. Lent
    // bytes are other ones each time, so that whoever kept them is seen to change.
    this.#lent[this.#calls % this.#lent.length]?.fill(this.#calls);
    const watched = this.#sent[this.#calls % this.#sent.length];
    if (watched && !equalBytes(watched.data, watched.copy)) {
      this.#breach(4, "bytes changed after they were sent");
    }
    this.#lastNow = now;
    if (++this.#calls % STATS_EVERY === 0) this.#checkStats(this.inner.stats, "stats");
  }

  /** The queue has run empty: an early call must find nothing to do. */
  #drained(): void {
    this.#isDraining = false;
    const next = this.inner.nextTimeout();
    if (this.inner.poll() !== undefined) this.#breach(1, "poll() came back to life by itself");
    if (this.inner.nextTimeout() !== next) this.#breach(1, "poll() moved the deadline");
    if (next === undefined || next > this.#lastNow) {
      this.inner.handleTimeout(this.#lastNow);
      if (this.inner.nextTimeout() !== next || this.inner.poll() !== undefined) {
        this.#breach(2, `an early handleTimeout(${this.#lastNow}) did something, due was ${next}`);
      }
    }
  }

  #watch(data: Uint8Array): void {
    this.#sent.push({ data, copy: new Uint8Array(data) });
    if (this.#sent.length > WATCHED) this.#sent.shift();
  }

  #checkStats(value: unknown, path: string): void {
    if (typeof value === "object" && value !== null) {
      for (const [name, part] of Object.entries(value)) this.#checkStats(part, `${path}.${name}`);
    } else if (typeof value !== "number" || !Number.isFinite(value)) {
      this.#breach(8, `${path} is ${value}, no number`);
    }
  }

  #breach(rule: number, what: string): never {
    const name = this.inner.constructor.name;
    throw new SimulationError(`Rule ${rule} of the machine contract, ${name}: ${what}`);
  }
}
