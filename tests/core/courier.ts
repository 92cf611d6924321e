/**
 * A small machine that uses all of the contract beside datagrams: it asks by HTTP, answers HTTP,
 * dials and takes TCP streams, and hands them over.
 *
 * It answers each request with its method, path and body. On a stream that it dialled it says what it
 * was told to; on one that it took it sends back what it hears, but what follows `keep` is for the
 * application.
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
  SocketResult,
  SocketSpec,
  StreamResult,
} from "../../core/machine.ts";
import { Outbox } from "../../core/outbox.ts";
import { Timers } from "../../core/timers.ts";

export type CourierEvent =
  | { readonly type: "socket"; readonly key: string; readonly result: SocketResult }
  | {
    readonly type: "asked";
    readonly method: string;
    readonly path: string;
    readonly body: string;
  }
  | { readonly type: "connected"; readonly id: number; readonly local: Endpoint }
  | { readonly type: "heard"; readonly id: number; readonly text: string }
  /** The last of a request. */
  | {
    readonly type: "answered";
    readonly id: number;
    readonly status: number;
    readonly body: string;
  }
  /** The last of a request or a stream. */
  | { readonly type: "over"; readonly id: number; readonly reason: string };

/** How long a stream may be silent. */
const SILENCE_MS = 5000;
const LIMITS = { maxBytes: 1000, timeoutMs: 3000 };

export class Courier implements Machine<CourierEvent> {
  readonly stats = { dropped: 0 };
  readonly #address: string;
  #listens: readonly ("http" | "tcp")[] = [];
  #listenPort = 0;
  #nextId = 0;
  readonly #out = new Outbox<CourierEvent>();
  readonly #asked = new Set<number>();
  /** What to say on each stream once it is open; those that were accepted echo. */
  readonly #streams = new Map<number, string | "echo">();
  readonly #silence = new Timers<number>();

  constructor(address: string = "127.0.0.1") {
    this.#address = address;
  }

  sockets(): readonly SocketSpec[] {
    return this.#listens.map((kind) => {
      const port = kind === "tcp" ? this.#listenPort : 0;
      return { key: kind, kind, local: { address: this.#address, port } };
    });
  }

  /** Takes requests, streams, or both. */
  listen(kinds: readonly ("http" | "tcp")[], now: Instant, port: number = 0): void {
    this.#out.touch(now);
    this.#listens = kinds;
    this.#listenPort = port;
  }

  ask(to: Endpoint, method: string, path: string, body: string | undefined, now: Instant): number {
    this.#out.touch(now);
    const id = this.#nextId++;
    this.#asked.add(id);
    const headers = [["SOAPAction", '"urn:x#Test"']] as const;
    const request = { method, path, headers, ...(body !== undefined && { body: toBytes(body) }) };
    this.#out.act({ type: "request", id, to, request, ...LIMITS });
    return id;
  }

  dial(to: Endpoint, text: string, now: Instant, local?: Endpoint): number {
    this.#out.touch(now);
    const id = this.#nextId++;
    this.#streams.set(id, text);
    const from = local && { local };
    this.#out.act({ type: "stream", id, do: "connect", to, timeoutMs: 3000, ...from });
    return id;
  }

  /** Ends a stream, or asks no more for an answer. */
  end(id: number, now: Instant): void {
    this.#out.touch(now);
    if (this.#streams.has(id)) this.#out.act({ type: "stream", id, do: "close" });
    this.#over(id, "closed");
  }

  /** Leaves a stream to the application. */
  keep(id: number, now: Instant): void {
    this.#out.touch(now);
    if (!this.#streams.has(id)) return;
    this.#out.act({ type: "stream", id, do: "hand-over" });
    this.#over(id, "handed over");
  }

  close(now: Instant): void {
    this.#out.touch(now);
    this.#listens = [];
    for (const id of [...this.#asked, ...this.#streams.keys()]) this.end(id, now);
  }

  handleSocket(key: string, result: SocketResult, now: Instant): void {
    this.#out.touch(now);
    this.#out.emit({ type: "socket", key, result }, key);
  }

  handleResponse(id: number, result: HttpResult, now: Instant): void {
    this.#out.touch(now);
    if (!this.#asked.has(id)) return void this.stats.dropped++;
    if (!result.ok) return this.#over(id, result.reason);
    this.#asked.delete(id);
    const { status, body } = result;
    this.#out.emit({ type: "answered", id, status, body: toText(body) }, id);
  }

  handleRequest(
    id: number,
    { method, path, headers, body }: HttpRequest,
    _: Endpoint,
    now: Instant,
  ): void {
    this.#out.touch(now);
    const text = toText(body ?? new Uint8Array(0));
    this.#out.emit({ type: "asked", method, path, body: text }, `request ${id}`);
    const name = headers.find(([name]) => name.toLowerCase() === "soapaction")?.[1] ?? "";
    const answer = toBytes(`${method} ${path} ${name} ${text}`);
    this.#out.act({
      type: "respond",
      id,
      response: { status: 200, headers: [["X-Courier", "1"]], body: answer },
    });
  }

  handleStream(id: number, happened: StreamResult, now: Instant): void {
    this.#out.touch(now);
    if (happened.type === "open" && happened.socket !== undefined && !this.#streams.has(id)) {
      this.#streams.set(id, "echo");
    }
    const says = this.#streams.get(id);
    if (says === undefined) return void this.stats.dropped++;
    if (happened.type === "closed") return this.#over(id, happened.reason);
    this.#silence.set(id, now + SILENCE_MS, "end a silent stream");
    if (happened.type === "open") {
      this.#out.emit({ type: "connected", id, local: happened.local }, id);
      if (says !== "echo") this.#write(id, toBytes(says));
      return;
    }
    const text = toText(happened.data);
    if (says === "echo" && text.startsWith("keep")) {
      const unread = happened.data.slice("keep".length);
      this.#out.act({ type: "stream", id, do: "hand-over", unread: new Uint8Array(unread) });
      return this.#over(id, "handed over");
    }
    this.#out.emit({ type: "heard", id, text }, id);
    if (says === "echo") this.#write(id, new Uint8Array(happened.data));
  }

  handleDatagram(_data: Uint8Array, _from: Endpoint, _socket: string, now: Instant): boolean {
    this.#out.touch(now);
    this.stats.dropped++;
    return false;
  }

  handleUnreachable(_to: Endpoint, _socket: string, now: Instant): void {
    this.#out.touch(now);
  }

  handleTimeout(now: Instant): void {
    this.#out.touch(now);
    for (let id = this.#silence.popDue(now); id !== undefined; id = this.#silence.popDue(now)) {
      this.#out.act({ type: "stream", id, do: "close" });
      this.#over(id, "silence");
    }
  }

  nextTimeout(): Instant | undefined {
    return this.#out.wakeAt() ?? this.#silence.nextAt();
  }

  debugTimeout(): DebugTimeout | undefined {
    const at = this.#out.wakeAt();
    return at === undefined ? this.#silence.next() : { at, reason: "drain" };
  }

  poll(): Action<CourierEvent> | undefined {
    return this.#out.poll();
  }

  #write(id: number, data: Uint8Array): void {
    if (data.length > 0) this.#out.act({ type: "stream", id, do: "write", data });
  }

  #over(id: number, reason: string): void {
    const wasAsked = this.#asked.delete(id);
    const wasStream = this.#streams.delete(id);
    this.#silence.delete(id);
    if (wasAsked || wasStream) this.#out.emit({ type: "over", id, reason }, id);
  }
}

function toBytes(text: string): Uint8Array {
  return new TextEncoder().encode(text);
}

function toText(bytes: Uint8Array): string {
  return new TextDecoder().decode(bytes);
}
