/**
 * HTTP over `node:http`, asked and answered, with limits on bytes, time and number. All three runtimes
 * have it, with the same parser underneath, and it takes what routers send: HTTP/1.0, chunks, no
 * length, line feeds alone, a body that stops in the middle.
 *
 * Requests to one device go one at a time, by one connection that is kept for the next for a second:
 * many devices know no better, and a connection costs a round trip.
 *
 * @module
 */
import {
  Agent,
  type ClientRequest,
  createServer,
  type IncomingMessage,
  request as sendRequest,
  type Server,
  type ServerResponse,
} from "node:http";
import type { Socket } from "node:net";
import { Duplex } from "node:stream";
import { setImmediate } from "node:timers";
import { canonicalAddress, familyOf, formatEndpoint, withoutZone } from "../core/ip.ts";
import type {
  Endpoint,
  HttpHeaders,
  HttpResponse,
  HttpResult,
  RequestAction,
  RespondAction,
} from "../core/machine.ts";
import { startTimer } from "./clock.ts";
import type { Http, HttpHandlers, Listener } from "./runtime.ts";
import { failureReason, listenAt, socketEndpoint } from "./streams.ts";

/** The largest body of a request that is taken, bytes. */
const MAX_REQUEST_BYTES = 65_536;
/** How long a request may take to come in, milliseconds. */
const RECEIVE_MS = 10_000;
/** How long the machine may take to answer, milliseconds. */
const ANSWER_MS = 30_000;
/** How many requests may be coming in or unanswered. */
const MAX_REQUESTS = 64;
/** How many connections of others may be open. */
const MAX_CONNECTIONS = 128;
/** How long a connection is kept that nothing comes or goes by, milliseconds. */
const IDLE_MS = 1000;
/** HTTP's own port, which a Host field leaves out. */
const HTTP_PORT = 80;

/** What is used of Deno's own TCP. */
interface DenoTcp {
  connect(to: { hostname: string; port: number }): Promise<{
    readonly readable: ReadableStream<Uint8Array>;
    readonly writable: WritableStream<Uint8Array>;
  }>;
}

/** Connections; Deno's `node:net` dials no address with a zone, but its own API does. */
class Connections extends Agent {
  override createConnection(
    ...[options, done]: Parameters<Agent["createConnection"]>
  ): ReturnType<Agent["createConnection"]> {
    const { host: hostname, port } = options;
    const { Deno } = globalThis as { readonly Deno?: DenoTcp };
    if (!Deno || !done || !hostname?.includes("%")) return super.createConnection(options, done);
    Deno.connect({ hostname, port: Number(port) }).then(
      ({ readable, writable }) => done(null, Duplex.fromWeb({ readable, writable } as never)),
      (error) => done(error, undefined as never),
    );
    return undefined as never;
  }
}

/** A connection to nobody, who answers all the same. */
class InMemory extends Agent {
  override createConnection(): Duplex {
    const connection = new Duplex({
      read() {},
      write(_data, _encoding, done) {
        done();
        connection.push("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nConnection: close\r\n\r\n1");
      },
    });
    return connection;
  }
}

/**
 * Goes once through what requests are made by, which takes three times as long the first time.
 * Nothing leaves.
 *
 * @returns What came of it; undefined on Bun, which connects by itself, whatever the agent says.
 */
export function rehearseHttp(): Promise<HttpResult | undefined> {
  if ("Bun" in globalThis) return Promise.resolve(undefined);
  return new Promise((resolve) => {
    const handlers = { onResult: (_id: number, told: HttpResult) => resolve(told), onRequest() {} };
    const http = new NodeHttp(handlers, new InMemory());
    const request = { method: "POST", path: "/", headers: [], body: new Uint8Array(1) } as const;
    const to = { address: "127.0.0.1", port: 9 };
    http.request({ type: "request", id: 0, to, request, maxBytes: 1, timeoutMs: 1000 });
  });
}

/** HTTP for one machine. */
export class NodeHttp implements Http {
  readonly #handlers: HttpHandlers;
  readonly #agent: Agent;
  /** Stops the time after which connections that nobody needed are closed. */
  #stopIdle = (): void => {};
  /** What ends each request of ours that is under way. */
  readonly #asked = new Set<() => void>();
  readonly #servers = new Set<Server>();
  /** Connections of others, each with what stops the time for its first request. */
  readonly #connections = new Map<Socket, () => void>();
  /** Requests of others that are coming in or wait for their answer. */
  readonly #taken = new Set<ServerResponse>();
  readonly #answers = new Map<number, (response: HttpResponse) => void>();
  #lastId = 0;

  /**
   * Tells what happens through the handlers.
   *
   * @param agent Makes the connections by which others are asked.
   */
  constructor(
    handlers: HttpHandlers,
    agent: Agent = new Connections({ keepAlive: true, maxSockets: 1 }),
  ) {
    this.#handlers = handlers;
    this.#agent = agent;
  }

  /** {@inheritDoc Http.request} */
  request(action: RequestAction): void {
    const { id, to, timeoutMs } = action;
    let abandon = (): void => {};
    const finish = (result: HttpResult): void => {
      if (!this.#asked.delete(cancel)) return;
      stop();
      if (this.#asked.size === 0) {
        this.#stopIdle = startTimer(IDLE_MS, () => this.#agent.destroy(), false);
      }
      this.#handlers.onResult(id, result);
    };
    const cancel = (): void => {
      this.#asked.delete(cancel);
      stop();
      abandon();
    };
    const fail = (reason: (HttpResult & { ok: false })["reason"]): void => {
      finish({ ok: false, reason });
      abandon();
    };
    this.#asked.add(cancel);
    this.#stopIdle();
    const stop = startTimer(timeoutMs, () => fail("timeout"), false);
    // A name would be looked up, and might be another host's than the one that was checked.
    const address = canonicalAddress(to.address);
    if (address === undefined) return fail("failed");
    const attempt = (agent: Agent): void => {
      try {
        const asked = send(action, address, agent);
        abandon = () => void asked.destroy();
        let isAnswered = false;
        asked.on("response", (response) => {
          isAnswered = true;
          take(response, action.maxBytes, (body, isWhole) => {
            if (!body) return fail("too-large");
            if (!isWhole && body.length === 0) return fail("failed");
            const { statusCode: status = 0 } = response;
            finish({ ok: true, status, headers: headerPairs(response), body });
          });
        });
        asked.on("error", (error) => {
          // What came of the answer until then is told by the answer itself.
          if (isAnswered || !this.#asked.has(cancel)) return;
          // A connection that was kept may have been closed there just now.
          if (asked.reusedSocket && agent === this.#agent) attempt(new Connections());
          else fail(failureReason(error));
        });
      } catch {
        fail("failed");
      }
    };
    // To connect takes a young process milliseconds, and who was told something just now goes first.
    setImmediate(() => this.#asked.has(cancel) && attempt(this.#agent));
  }

  /** {@inheritDoc Http.respond} */
  respond({ id, response }: RespondAction): void {
    this.#answers.get(id)?.(response);
  }

  /** {@inheritDoc Http.listen} */
  async listen(local: Endpoint): Promise<Listener> {
    const limits = {
      requestTimeout: RECEIVE_MS,
      headersTimeout: RECEIVE_MS,
      keepAliveTimeout: IDLE_MS,
    };
    const server = createServer(limits, (incoming, outgoing) => this.#take(incoming, outgoing));
    server.on("connection", (socket) => this.#accept(socket));
    const listener = await listenAt(server, local, "HTTP");
    this.#servers.add(server);
    return {
      ...listener,
      close: () => {
        this.#servers.delete(server);
        listener.close();
      },
    };
  }

  /** {@inheritDoc Http.close} */
  close(): void {
    for (const cancel of [...this.#asked]) cancel();
    this.#stopIdle();
    this.#agent.destroy();
    for (const server of this.#servers) server.close();
    for (const outgoing of this.#taken) outgoing.destroy();
    for (const socket of this.#connections.keys()) socket.destroy();
    this.#servers.clear();
    this.#taken.clear();
    this.#answers.clear();
  }

  #accept(socket: Socket): void {
    if (this.#connections.size >= MAX_CONNECTIONS) return void socket.destroy();
    // A header may dribble in for ever; with the request it is `#take` that waits.
    const stop = startTimer(RECEIVE_MS, () => void socket.destroy(), false);
    this.#connections.set(socket, stop);
    socket.on("close", () => {
      stop();
      this.#connections.delete(socket);
    });
  }

  #take(incoming: IncomingMessage, outgoing: ServerResponse): void {
    if (this.#taken.size >= MAX_REQUESTS) return answer(outgoing, lastResponse(503));
    this.#connections.get(incoming.socket)?.();
    const id = ++this.#lastId;
    let stop = startTimer(RECEIVE_MS, () => finish(lastResponse(408)), false);
    const forget = (): void => {
      stop();
      this.#taken.delete(outgoing);
      this.#answers.delete(id);
    };
    const finish = (response: HttpResponse): void => {
      forget();
      answer(outgoing, response);
    };
    this.#taken.add(outgoing);
    outgoing.on("close", forget);
    outgoing.on("error", forget);
    readBody(incoming, MAX_REQUEST_BYTES, (body, isWhole) => {
      if (!this.#taken.has(outgoing)) return;
      const from = socketEndpoint(incoming.socket.remoteAddress, incoming.socket.remotePort);
      if (!from || (body && !isWhole)) return forget();
      if (!body) return finish(lastResponse(413));
      stop();
      stop = startTimer(ANSWER_MS, () => finish(lastResponse(503)), false);
      this.#answers.set(id, finish);
      const { method = "", url: path = "" } = incoming;
      const headers = headerPairs(incoming);
      const request = { method, path, headers, ...(body.length > 0 && { body }) };
      this.#handlers.onRequest(id, request, from);
    });
  }
}

/** A response after which the connection ends: what is unread of the request is not the next one. */
function lastResponse(status: number): HttpResponse {
  return { status, headers: [["Connection", "close"]], body: new Uint8Array(0) };
}

function answer(outgoing: ServerResponse, { status, headers, body }: HttpResponse): void {
  try {
    const fields = headerRecord(headers);
    const hasLength = headers.some(([name]) => name.toLowerCase() === "content-length");
    if (!hasLength) fields["Content-Length"] = `${body.length}`;
    outgoing.writeHead(status, fields);
    outgoing.end(body);
  } catch {
    outgoing.destroy();
  }
}

/** Sends a request. */
function send(action: RequestAction, address: string, agent: Agent): ClientRequest {
  const { to, request, local } = action;
  const { method, path, body } = request;
  const names = new Set(request.headers.map(([name]) => name.toLowerCase()));
  const headers = headerRecord([
    ...(names.has("host") ? [] : [["Host", hostField(to)] as const]),
    ...request.headers,
    ...(body && !names.has("content-length")
      ? [["Content-Length", `${body.length}`] as const]
      : []),
  ]);
  const asked = sendRequest({
    host: address,
    port: to.port,
    family: familyOf(address),
    ...(local !== undefined && { localAddress: local }),
    method,
    path,
    headers,
    agent,
    insecureHTTPParser: true,
  });
  if (body) asked.end(body);
  else asked.end();
  return asked;
}

/**
 * Reads the body of an answer; `done` gets undefined where it is larger than `maxBytes`. It ends where
 * it ends: at its length, with the connection, or where the connection breaks; a device that tells
 * no length, and does not close either, is not waited for.
 */
function take(
  response: IncomingMessage,
  maxBytes: number,
  done: (body: Uint8Array | undefined, isWhole: boolean) => void,
): void {
  const { "content-length": length, "transfer-encoding": encoding } = response.headers;
  if (Number(length) > maxBytes) return done(undefined, false);
  const isEndless = length === undefined && encoding === undefined;
  let stop = (): void => {};
  readBody(response, maxBytes, (body, isWhole) => {
    stop();
    done(body, isWhole);
  });
  if (!isEndless) return;
  response.on("data", () => {
    stop();
    stop = startTimer(IDLE_MS, () => void response.destroy(), false);
  });
}

/**
 * Reads a body as far as it comes; `done` gets undefined where it is larger than `maxBytes`.
 *
 * @param done Gets whether the body is complete as well.
 */
function readBody(
  message: IncomingMessage,
  maxBytes: number,
  done: (body: Uint8Array | undefined, isWhole: boolean) => void,
): void {
  const parts: Uint8Array[] = [];
  let length = 0;
  let isOver = false;
  const end = (body: () => Uint8Array | undefined, isWhole: boolean): void => {
    if (isOver) return;
    isOver = true;
    done(body(), isWhole);
  };
  message.on("data", (part: Uint8Array) => {
    if (isOver) return;
    length += part.length;
    if (length > maxBytes) end(() => undefined, false);
    else parts.push(part);
  });
  const whole = () => concat(parts, length);
  message.on("end", () => end(whole, true));
  message.on("error", () => end(whole, false));
  message.on("close", () => end(whole, false));
}

function concat(parts: readonly Uint8Array[], length: number): Uint8Array {
  const whole = new Uint8Array(length);
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}

/** Fields as `node:http` takes them: spelling and order stay. */
function headerRecord(headers: HttpHeaders): Record<string, string | string[]> {
  const record: Record<string, string | string[]> = {};
  for (const [name, value] of headers) {
    const known = record[name];
    record[name] = known === undefined ? value : [...[known].flat(), value];
  }
  return record;
}

/** Fields as they came. */
function headerPairs({ rawHeaders }: IncomingMessage): [string, string][] {
  return rawHeaders.flatMap((name, i): [string, string][] =>
    i % 2 === 0 ? [[name, rawHeaders[i + 1] ?? ""]] : []
  );
}

function hostField({ address, port }: Endpoint): string {
  const text = formatEndpoint({ address: withoutZone(address), port });
  return port === HTTP_PORT ? text.slice(0, text.lastIndexOf(":")) : text;
}
