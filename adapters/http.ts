/**
 * HTTP over `node:http`, asked and answered, with limits on bytes, time and number.
 *
 * @module
 */
import {
  createServer,
  type IncomingMessage,
  request as sendRequest,
  type Server,
  type ServerResponse,
} from "node:http";
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
/** HTTP's own port, which a Host field leaves out. */
const HTTP_PORT = 80;

/** HTTP for one machine. */
export class NodeHttp implements Http {
  readonly #handlers: HttpHandlers;
  /** What ends each request of ours that is under way. */
  readonly #asked = new Set<() => void>();
  readonly #servers = new Set<Server>();
  /** Requests of others that are coming in or wait for their answer. */
  readonly #taken = new Set<ServerResponse>();
  readonly #answers = new Map<number, (response: HttpResponse) => void>();
  #lastId = 0;

  /** Tells what happens through the handlers. */
  constructor(handlers: HttpHandlers) {
    this.#handlers = handlers;
  }

  /** {@inheritDoc Http.request} */
  request({ id, to, request, maxBytes, timeoutMs }: RequestAction): void {
    let end = (): void => {};
    const finish = (result: HttpResult): void => {
      if (!this.#asked.delete(cancel)) return;
      end();
      this.#handlers.onResult(id, result);
    };
    const cancel = (): void => {
      this.#asked.delete(cancel);
      end();
    };
    this.#asked.add(cancel);
    try {
      // A name would be looked up, and might be another host's than the one that was checked.
      const address = canonicalAddress(to.address);
      if (address === undefined) return finish({ ok: false, reason: "failed" });
      const headers = headerRecord(request.headers);
      const names = new Set(Object.keys(headers).map((name) => name.toLowerCase()));
      if (!names.has("host")) headers["Host"] = hostField(to);
      const { body } = request;
      if (body && !names.has("content-length")) headers["Content-Length"] = `${body.length}`;
      const asked = sendRequest({
        host: address,
        port: to.port,
        family: familyOf(address),
        method: request.method,
        path: request.path,
        headers,
        agent: false,
      });
      const fail = (error: unknown) => finish({ ok: false, reason: failureReason(error) });
      const stop = startTimer(timeoutMs, () => finish({ ok: false, reason: "timeout" }), false);
      end = () => {
        stop();
        asked.destroy();
      };
      asked.on("error", fail);
      asked.on("response", (response) => {
        const { statusCode: status = 0 } = response;
        const headers = headerPairs(response);
        readBody(response, maxBytes, fail, (body) =>
          finish(
            body ? { ok: true, status, headers, body } : { ok: false, reason: "too-large" },
          ));
      });
      if (body) asked.end(body);
      else asked.end();
    } catch {
      finish({ ok: false, reason: "failed" });
    }
  }

  /** {@inheritDoc Http.respond} */
  respond({ id, response }: RespondAction): void {
    this.#answers.get(id)?.(response);
  }

  /** {@inheritDoc Http.listen} */
  async listen(local: Endpoint): Promise<Listener> {
    const limits = { requestTimeout: RECEIVE_MS, headersTimeout: RECEIVE_MS };
    const server = createServer(limits, (incoming, outgoing) => this.#take(incoming, outgoing));
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
    for (const server of this.#servers) server.close();
    for (const outgoing of this.#taken) outgoing.destroy();
    this.#servers.clear();
    this.#taken.clear();
    this.#answers.clear();
  }

  #take(incoming: IncomingMessage, outgoing: ServerResponse): void {
    if (this.#taken.size >= MAX_REQUESTS) return answer(outgoing, emptyResponse(503));
    const id = ++this.#lastId;
    let stop = startTimer(RECEIVE_MS, () => finish(emptyResponse(408)), false);
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
    readBody(incoming, MAX_REQUEST_BYTES, forget, (body) => {
      if (!this.#taken.has(outgoing)) return;
      const from = socketEndpoint(incoming.socket.remoteAddress, incoming.socket.remotePort);
      if (!body) return finish(emptyResponse(413));
      if (!from) return finish(emptyResponse(400));
      stop();
      stop = startTimer(ANSWER_MS, () => finish(emptyResponse(503)), false);
      this.#answers.set(id, finish);
      const { method = "", url: path = "" } = incoming;
      const headers = headerPairs(incoming);
      const request = { method, path, headers, ...(body.length > 0 && { body }) };
      this.#handlers.onRequest(id, request, from);
    });
  }
}

function emptyResponse(status: number): HttpResponse {
  return { status, headers: [], body: new Uint8Array(0) };
}

/** Sends a response, after which the connection ends: what comes next may come by another one. */
function answer(outgoing: ServerResponse, { status, headers, body }: HttpResponse): void {
  try {
    const fields = headerRecord([...headers, ["Connection", "close"]]);
    const hasLength = headers.some(([name]) => name.toLowerCase() === "content-length");
    if (!hasLength) fields["Content-Length"] = `${body.length}`;
    outgoing.writeHead(status, fields);
    outgoing.end(body);
  } catch {
    outgoing.destroy();
  }
}

/** Reads a body whole; `done` gets undefined where it is larger than `maxBytes`. */
function readBody(
  message: IncomingMessage,
  maxBytes: number,
  fail: (error: unknown) => void,
  done: (body: Uint8Array | undefined) => void,
): void {
  const parts: Uint8Array[] = [];
  let length = 0;
  let isOver = false;
  const end = (tell: () => void): void => {
    if (isOver) return;
    isOver = true;
    tell();
  };
  message.on("data", (part: Uint8Array) => {
    if (isOver) return;
    length += part.length;
    if (length > maxBytes) end(() => done(undefined));
    else parts.push(part);
  });
  message.on("end", () => end(() => done(concat(parts, length))));
  message.on("error", (error) => end(() => fail(error)));
  message.on("close", () => end(() => fail(undefined)));
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
