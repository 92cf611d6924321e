/**
 * HTTP between the machines of a simulation: what TCP would make of it, not TCP itself.
 *
 * Each exchange has a connection of its own: one round trip to connect, one or more to ask and be
 * answered, in packets no larger than a link's usual MTU that cross the same links and NATs as
 * everything else. What gets lost is sent again after a second, and after twice as long each time,
 * so that loss shows as delay and, where it lasts, as a timeout. A port where nobody listens
 * refuses, unless its host is silent about closed ports.
 *
 *   asked: connecting ──syn-ack──▶ asking ──all parts of the answer──▶ over
 *   taken: taking ──all parts of the request──▶ answering ──all parts acknowledged──▶ over
 *
 * @module
 */
import { concatBytes } from "../bytes.ts";
import { formatEndpoint, isSameEndpoint, withoutZone } from "../ip.ts";
import type {
  Endpoint,
  HttpHeaders,
  HttpRequest,
  HttpResponse,
  HttpResult,
  Instant,
  RequestAction,
} from "../machine.ts";
import { Timers } from "../timers.ts";
import {
  FIRST_RETRY_MS,
  type HttpSegment,
  INITIAL_HOPS,
  type Packet,
  PART_BYTES,
  resetOf,
} from "./packet.ts";
import type { SimContext, Sleeper } from "./segment.ts";

/** A TCP port of a host. */
export interface TcpPort {
  /** The port. */
  readonly port: number;
  /** Frees it. */
  close(): void;
}

/** What gets what comes to a TCP port. */
export interface TcpReceiver {
  /** A packet came. */
  receive(packet: Packet): void;
  /** ICMP says that nobody listens at `to`. */
  unreachable(to: Endpoint): void;
}

/** What HTTP needs of its host. */
export interface HttpHost {
  /** Takes a TCP port, 0 for a free one; undefined where it is taken. */
  bindTcp(address: string | undefined, port: number, receiver: TcpReceiver): TcpPort | undefined;
  /** The address from which packets to there leave: `local`, or the way's; where it has it. */
  addressToward(address: string, local?: string): string | undefined;
  /** Whether it sleeps. */
  readonly isSuspended: boolean;
  /** Sends a packet that is complete. */
  sendPacket(packet: Packet): void;
}

/** What HTTP tells its process. */
export interface HttpListener {
  /** The one result of a request. */
  onResult(id: number, result: HttpResult): void;
  /** A request came. */
  onRequest(id: number, request: HttpRequest, from: Endpoint): void;
}

/** As the adapters have it: how long a machine may take to answer. */
const ANSWER_MS = 30_000;
/** How long an answer is offered. */
const LINGER_MS = 60_000;
/** As the adapters have it: how many requests may be coming in or unanswered. */
const MAX_TAKEN = 64;
const EMPTY = new Uint8Array(0);

/** One connection, seen from one end. */
interface Exchange {
  readonly local: Endpoint;
  readonly peer: Endpoint;
  /** What this end says, in parts that are not acknowledged. */
  unsent: Map<number, Uint8Array>;
  said: number;
  /** What came. */
  readonly heard: Map<number, Uint8Array>;
  /** `connecting` and `asking` are the asking end's, the others the taking end's. */
  phase: "connecting" | "asking" | "taking" | "answering";
  /** The request's id at this end; undefined until it is complete. */
  id: number | undefined;
  readonly action: RequestAction | undefined;
  readonly port: TcpPort | undefined;
  retryMs: number;
  retryAt: Instant;
  endAt: Instant;
}

/** The HTTP of one process. */
export class SimHttp implements Sleeper {
  readonly #context: SimContext;
  readonly #host: HttpHost;
  readonly #listener: HttpListener;
  readonly #exchanges = new Set<Exchange>();
  readonly #ports = new Map<string, TcpPort>();
  readonly #timers = new Timers<Exchange>();
  #wakeAt: Instant | undefined;
  #lastId = 0;

  /** Tells what happens through the listener. */
  constructor(context: SimContext, host: HttpHost, listener: HttpListener) {
    this.#context = context;
    this.#host = host;
    this.#listener = listener;
  }

  /** Asks; the result comes once. */
  request(action: RequestAction): void {
    const { to, local, timeoutMs } = action;
    const address = this.#host.addressToward(to.address, local);
    const { now } = this.#context;
    const receiver: TcpReceiver = {
      receive: (packet) => this.#hear(exchange, packet),
      unreachable: (peer) => {
        if (isSameEndpoint(peer, to)) this.#fail(exchange);
      },
    };
    const port = address === undefined ? undefined : this.#host.bindTcp(address, 0, receiver);
    if (address === undefined || !port) {
      return this.#listener.onResult(action.id, { ok: false, reason: "failed" });
    }
    const exchange: Exchange = {
      local: { address, port: port.port },
      peer: to,
      unsent: new Map(),
      said: 0,
      heard: new Map(),
      phase: "connecting",
      id: action.id,
      action,
      port,
      retryMs: FIRST_RETRY_MS,
      retryAt: now + FIRST_RETRY_MS,
      endAt: now + timeoutMs,
    };
    this.#exchanges.add(exchange);
    this.#send(exchange, "syn");
    this.#arm(exchange);
  }

  /** Answers a request that came. */
  respond(id: number, response: HttpResponse): void {
    for (const exchange of this.#exchanges) {
      if (exchange.phase !== "taking" || exchange.id !== id) continue;
      exchange.phase = "answering";
      exchange.endAt = this.#context.now + LINGER_MS;
      this.#say(exchange, encodeResponse(response));
      return;
    }
  }

  /** Listens under a key; undefined where the port is taken. */
  listen(key: string, address: string | undefined, port: number): number | undefined {
    const receiver: TcpReceiver = {
      receive: (packet) => this.#take(packet),
      unreachable: () => {},
    };
    const bound = this.#host.bindTcp(address, port, receiver);
    if (bound) this.#ports.set(key, bound);
    return bound?.port;
  }

  /** Listens no longer; what came is still answered. */
  unlisten(key: string): void {
    this.#ports.get(key)?.close();
    this.#ports.delete(key);
  }

  /** Ends it as a killed program would. */
  stop(): void {
    for (const exchange of [...this.#exchanges]) this.#forget(exchange);
    for (const key of [...this.#ports.keys()]) this.unlisten(key);
    this.#context.wake(this, undefined);
  }

  /** What is due; called by the world. */
  wake(): void {
    this.#wakeAt = undefined;
    if (this.#host.isSuspended) return;
    const { now } = this.#context;
    for (let due = this.#timers.popDue(now); due; due = this.#timers.popDue(now)) {
      if (due.endAt <= now) this.#expire(due);
      else this.#retry(due);
    }
    this.schedule();
  }

  /** Sets the alarm anew; called when the host resumes. */
  schedule(): void {
    const next = this.#timers.nextAt();
    if (next === this.#wakeAt) return;
    this.#wakeAt = next;
    this.#context.wake(this, next === undefined ? next : Math.max(next, this.#context.now));
  }

  #arm(exchange: Exchange): void {
    const waits = exchange.unsent.size > 0 || exchange.phase === "connecting";
    const at = waits ? Math.min(exchange.retryAt, exchange.endAt) : exchange.endAt;
    this.#timers.set(exchange, at, "http");
    this.schedule();
  }

  #retry(exchange: Exchange): void {
    exchange.retryMs *= 2;
    exchange.retryAt = this.#context.now + exchange.retryMs;
    if (exchange.phase === "connecting") this.#send(exchange, "syn");
    for (const [part, data] of exchange.unsent) this.#send(exchange, "data", part, data);
    this.#arm(exchange);
  }

  #expire(exchange: Exchange): void {
    const { phase, action, id } = exchange;
    if (action) return this.#finish(exchange, { ok: false, reason: "timeout" });
    if (phase === "taking" && id !== undefined) {
      this.respond(id, { status: 503, headers: [], body: EMPTY });
    } else this.#forget(exchange);
  }

  /** The asking end is told that nobody is there. */
  #fail(exchange: Exchange): void {
    const reason = exchange.phase === "connecting" ? "refused" : "failed";
    this.#finish(exchange, { ok: false, reason });
  }

  #finish(exchange: Exchange, result: HttpResult): void {
    if (!this.#exchanges.has(exchange)) return;
    this.#forget(exchange);
    this.#listener.onResult(exchange.action!.id, result);
  }

  #forget(exchange: Exchange): void {
    this.#exchanges.delete(exchange);
    this.#timers.delete(exchange);
    exchange.port?.close();
    this.schedule();
  }

  /** What comes to the asking end. */
  #hear(exchange: Exchange, packet: Packet): void {
    const { segment, from, data } = packet;
    if (!segment || !isSameEndpoint(from, exchange.peer)) return;
    switch (segment.kind) {
      case "rst":
        return this.#fail(exchange);
      case "syn-ack":
        if (exchange.phase !== "connecting") return;
        exchange.phase = "asking";
        return this.#say(exchange, encodeRequest(exchange.action!));
      case "ack":
        return this.#acknowledge(exchange, segment.part);
      case "data": {
        exchange.unsent.clear();
        const whole = this.#collect(exchange, segment, data);
        if (whole) this.#finish(exchange, decodeResponse(whole, exchange.action!));
      }
    }
  }

  /** What comes to a port that takes requests. */
  #take(packet: Packet): void {
    const { segment, from, to, data } = packet;
    if (!segment) return;
    let exchange = this.#find(to, from);
    if (segment.kind === "rst") return exchange && this.#forget(exchange);
    if (segment.kind === "syn") {
      exchange ??= this.#accept(to, from);
      return exchange ? this.#send(exchange, "syn-ack") : this.#host.sendPacket(resetOf(packet)!);
    }
    if (!exchange) return this.#host.sendPacket(resetOf(packet)!);
    if (segment.kind === "ack") {
      this.#acknowledge(exchange, segment.part);
      if (exchange.phase === "answering" && exchange.unsent.size === 0) this.#forget(exchange);
    } else if (segment.kind === "data") {
      const whole = this.#collect(exchange, segment, data);
      if (!whole || exchange.id !== undefined) return;
      const request = decodeRequest(whole);
      if (!request) return this.#forget(exchange);
      exchange.id = ++this.#lastId;
      exchange.endAt = this.#context.now + ANSWER_MS;
      this.#arm(exchange);
      this.#listener.onRequest(exchange.id, request, from);
    }
  }

  #find(local: Endpoint, peer: Endpoint): Exchange | undefined {
    for (const exchange of this.#exchanges) {
      const isTaken = exchange.action === undefined && exchange.local.port === local.port;
      if (isTaken && isSameEndpoint(exchange.peer, peer)) return exchange;
    }
    return undefined;
  }

  #accept(local: Endpoint, peer: Endpoint): Exchange | undefined {
    const taken = [...this.#exchanges].filter((exchange) => !exchange.action).length;
    if (taken >= MAX_TAKEN) return undefined;
    const { now } = this.#context;
    const exchange: Exchange = {
      local,
      peer,
      unsent: new Map(),
      said: 0,
      heard: new Map(),
      phase: "taking",
      id: undefined,
      action: undefined,
      port: undefined,
      retryMs: FIRST_RETRY_MS,
      retryAt: Infinity,
      endAt: now + ANSWER_MS,
    };
    this.#exchanges.add(exchange);
    this.#arm(exchange);
    return exchange;
  }

  /** Takes a part, says so, and returns the whole once it is there. */
  #collect(exchange: Exchange, segment: HttpSegment, data: Uint8Array): Uint8Array | undefined {
    this.#send(exchange, "ack", segment.part);
    const isNew = !exchange.heard.has(segment.part);
    exchange.heard.set(segment.part, data);
    if (!isNew || exchange.heard.size < segment.parts) return undefined;
    const parts: Uint8Array[] = [];
    for (let i = 0; i < segment.parts; i++) parts.push(exchange.heard.get(i)!);
    return concatBytes(parts);
  }

  #acknowledge(exchange: Exchange, part: number): void {
    exchange.unsent.delete(part);
    this.#arm(exchange);
  }

  #say(exchange: Exchange, bytes: Uint8Array): void {
    const parts = exchange.said = Math.max(1, Math.ceil(bytes.length / PART_BYTES));
    for (let i = 0; i < parts; i++) {
      exchange.unsent.set(i, bytes.subarray(i * PART_BYTES, (i + 1) * PART_BYTES));
    }
    exchange.retryMs = FIRST_RETRY_MS;
    exchange.retryAt = this.#context.now + FIRST_RETRY_MS;
    for (const [part, data] of exchange.unsent) this.#send(exchange, "data", part, data);
    this.#arm(exchange);
  }

  #send(
    { local, peer, said }: Exchange,
    kind: HttpSegment["kind"],
    part: number = 0,
    data: Uint8Array = EMPTY,
  ): void {
    const segment: HttpSegment = { kind, part, parts: said };
    const from = { address: withoutZone(local.address), port: local.port };
    const to = { address: withoutZone(peer.address), port: peer.port };
    this.#host.sendPacket({ protocol: "tcp", from, to, data, hops: INITIAL_HOPS, segment });
  }
}

function encodeRequest({ request, to }: RequestAction): Uint8Array {
  const { method, path, headers, body = EMPTY } = request;
  const host = formatEndpoint({ address: withoutZone(to.address), port: to.port });
  const fields = complete(headers, body, request.body !== undefined, ["Host", host]);
  return encode(`${method} ${path} HTTP/1.1`, fields, body);
}

function encodeResponse({ status, headers, body }: HttpResponse): Uint8Array {
  return encode(`HTTP/1.1 ${status}`, complete(headers, body, true), body);
}

/** Adds what whoever sends a message has to add. */
function complete(
  headers: HttpHeaders,
  body: Uint8Array,
  needsLength: boolean,
  extra?: readonly [string, string],
): HttpHeaders {
  const has = (name: string) => headers.some(([other]) => other.toLowerCase() === name);
  const added: [string, string][] = [];
  if (extra && !has(extra[0].toLowerCase())) added.push([...extra]);
  if (needsLength && !has("content-length") && !has("transfer-encoding")) {
    added.push(["Content-Length", `${body.length}`]);
  }
  return [...added, ...headers];
}

function encode(start: string, headers: HttpHeaders, body: Uint8Array): Uint8Array {
  const lines = [start, ...headers.map(([name, value]) => `${name}: ${value}`), "", ""];
  return concatBytes([new TextEncoder().encode(lines.join("\r\n")), body]);
}

interface Message {
  readonly start: readonly string[];
  readonly headers: HttpHeaders;
  readonly body: Uint8Array;
}

function decode(bytes: Uint8Array): Message | undefined {
  let end = 0;
  while (end + 4 <= bytes.length && !isBlankLine(bytes, end)) end++;
  if (end + 4 > bytes.length) return undefined;
  const [start = "", ...lines] = new TextDecoder().decode(bytes.subarray(0, end)).split("\r\n");
  const headers = lines.map((line): [string, string] => {
    const colon = line.indexOf(":");
    return [line.slice(0, colon), line.slice(colon + 1).trim()];
  });
  return { start: start.split(" "), headers, body: bytes.slice(end + 4) };
}

function isBlankLine(bytes: Uint8Array, at: number): boolean {
  return bytes[at] === 13 && bytes[at + 1] === 10 && bytes[at + 2] === 13 && bytes[at + 3] === 10;
}

function decodeRequest(bytes: Uint8Array): HttpRequest | undefined {
  const message = decode(bytes);
  if (!message) return undefined;
  const { start: [method = "", path = ""], headers, body } = message;
  return { method, path, headers, ...(body.length > 0 && { body }) };
}

/** An answer that is shorter than it says was cut off; one that is longer ends where it says. */
function decodeResponse(bytes: Uint8Array, { request, maxBytes }: RequestAction): HttpResult {
  const message = decode(bytes);
  if (!message) return { ok: false, reason: "failed" };
  const { start, headers, body: came } = message;
  // What is told of HEAD is the length that GET would get.
  const said = request.method === "HEAD"
    ? undefined
    : headers.find(([name]) => name.toLowerCase() === "content-length")?.[1];
  if (said !== undefined && Number(said) > came.length) return { ok: false, reason: "failed" };
  const body = said === undefined ? came : came.subarray(0, Number(said));
  if (body.length > maxBytes) return { ok: false, reason: "too-large" };
  return { ok: true, status: Number(start[1]), headers, body };
}
