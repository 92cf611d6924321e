/**
 * TCP over `node:net`, which dials from a port of one's choice on all three runtimes.
 *
 * @module
 */
import { connect, createServer, type Server, type Socket } from "node:net";
import { NatError } from "../core/errors.ts";
import { canonicalAddress, familyOf, formatEndpoint } from "../core/ip.ts";
import type { Endpoint, StreamAction, StreamResult } from "../core/machine.ts";
import { startTimer } from "./clock.ts";
import type { HandedStream, Listener, Streams } from "./runtime.ts";
import { callError, errorCode } from "./udp.ts";

/** How many bytes of a stream may wait to be sent. */
const MAX_UNSENT_BYTES = 1 << 20;
/** How many streams of others a machine has at most. */
const MAX_ACCEPTED = 256;
/** How long a stream that was closed may take to send what was written, milliseconds. */
const LINGER_MS = 10_000;

type Reason = Extract<StreamResult, { readonly type: "closed" }>["reason"];

/** A stream that its machine knows. */
interface Stream {
  readonly socket: Socket;
  /** Where it is connected, both ends. */
  ends: { readonly local: Endpoint; readonly peer: Endpoint } | undefined;
  /** Ends its part here; nothing is told afterwards. */
  release(): void;
  /** Ends it and tells so. */
  finish(reason: Reason): void;
}

/** The TCP streams of one machine. */
export class NodeStreams implements Streams {
  readonly #tell: (id: number, happened: StreamResult) => void;
  readonly #streams = new Map<number, Stream>();
  readonly #handed = new Map<number, HandedStream & { readonly socket: Socket }>();
  readonly #listeners = new Set<Listener>();
  #accepted = 0;
  #lastId = 0;

  /** Tells what happens to a stream. */
  constructor(tell: (id: number, happened: StreamResult) => void) {
    this.#tell = tell;
  }

  /** {@inheritDoc Streams.act} */
  act(action: StreamAction): void {
    if (action.do === "connect") return this.#connect(action);
    const { id } = action;
    const stream = this.#streams.get(id);
    if (!stream) return;
    const { socket, ends } = stream;
    switch (action.do) {
      case "write":
        if (socket.writableLength + action.data.length > MAX_UNSENT_BYTES) stream.finish("failed");
        else socket.write(action.data);
        break;
      case "close":
        stream.release();
        linger(socket);
        break;
      case "hand-over":
        // There is nothing to hand over yet.
        if (!ends) return stream.finish("failed");
        socket.pause();
        stream.release();
        if (action.unread?.length) socket.unshift(action.unread);
        this.#handed.set(id, { ...ends, socket });
    }
  }

  /** {@inheritDoc Streams.listen} */
  async listen(key: string, local: Endpoint): Promise<Listener> {
    const server = createServer((socket) => this.#accept(key, socket));
    const listener = await listenAt(server, local, "TCP");
    this.#listeners.add(listener);
    return {
      ...listener,
      close: () => {
        this.#listeners.delete(listener);
        listener.close();
      },
    };
  }

  /** {@inheritDoc Streams.take} */
  take(id: number): HandedStream | undefined {
    const handed = this.#handed.get(id);
    this.#handed.delete(id);
    return handed;
  }

  /** {@inheritDoc Streams.close} */
  close(): void {
    for (const listener of [...this.#listeners]) listener.close();
    this.#listeners.clear();
    for (const { socket, release } of [...this.#streams.values()]) {
      release();
      linger(socket);
    }
    for (const { socket } of [...this.#handed.values()]) socket.destroy();
    this.#handed.clear();
  }

  #connect({ id, to, local, timeoutMs }: StreamAction & { readonly do: "connect" }): void {
    const address = canonicalAddress(to.address);
    // A name would be looked up; an id that is in use names another stream.
    if (address === undefined || this.#streams.has(id)) {
      return this.#tell(id, { type: "closed", reason: "failed" });
    }
    let socket: Socket;
    try {
      socket = connect({
        host: address,
        port: to.port,
        family: familyOf(address),
        ...(local && { localAddress: local.address, localPort: local.port }),
      });
    } catch (error) {
      return this.#tell(id, { type: "closed", reason: failureReason(error) });
    }
    const stream = this.#add(id, socket);
    const stop = startTimer(timeoutMs, () => stream.ends || stream.finish("timeout"), false);
    socket.once("connect", () => this.#opened(id, stream));
    socket.once("connect", stop);
    socket.once("close", stop);
  }

  #accept(key: string, socket: Socket): void {
    if (this.#accepted >= MAX_ACCEPTED) return void socket.destroy();
    this.#accepted++;
    socket.once("close", () => this.#accepted--);
    const id = --this.#lastId;
    this.#opened(id, this.#add(id, socket), key);
  }

  #add(id: number, socket: Socket): Stream {
    let reason: Reason = "ended";
    const onData = (data: Uint8Array) => this.#tell(id, { type: "data", data });
    const onError = (error: unknown) => reason = failureReason(error);
    const onClose = () => stream.finish(reason);
    const stream: Stream = {
      socket,
      ends: undefined,
      release: () => {
        this.#streams.delete(id);
        socket.off("data", onData);
        socket.off("close", onClose);
      },
      finish: (why) => {
        if (this.#streams.get(id) !== stream) return;
        stream.release();
        socket.destroy();
        this.#tell(id, { type: "closed", reason: why });
      },
    };
    this.#streams.set(id, stream);
    socket.on("data", onData);
    // It stays for good: an error event without a listener is an uncaught exception.
    socket.on("error", onError);
    socket.on("close", onClose);
    return stream;
  }

  #opened(id: number, stream: Stream, key?: string): void {
    const { socket } = stream;
    if (this.#streams.get(id) !== stream) return;
    const local = socketEndpoint(socket.localAddress, socket.localPort);
    const peer = socketEndpoint(socket.remoteAddress, socket.remotePort);
    // It may have been reset already.
    if (!local || !peer) return stream.finish("failed");
    stream.ends = { local, peer };
    const socketKey = key === undefined ? {} : { socket: key };
    this.#tell(id, { type: "open", local, peer, ...socketKey });
  }
}

/** Ends a stream once what was written has left, and does not wait for the other side for ever. */
function linger(socket: Socket): void {
  socket.resume();
  socket.end();
  const stop = startTimer(LINGER_MS, () => socket.destroy(), false);
  socket.once("close", stop);
}

/** An end of a stream as the runtime tells it; undefined where it is not connected any more. */
export function socketEndpoint(
  address: string | undefined,
  port: number | undefined,
): Endpoint | undefined {
  const canonical = address === undefined ? undefined : canonicalAddress(address);
  return canonical === undefined || port === undefined ? undefined : { address: canonical, port };
}

/** Why a connection failed. */
export function failureReason(
  error: unknown,
): Exclude<Reason, "ended"> {
  const { code } = callError("", error);
  if (code === "permission") return "permission";
  switch (errorCode(error)) {
    case "ECONNREFUSED":
    case "ConnectionRefused":
      return "refused";
    case "ETIMEDOUT":
      return "timeout";
    default:
      return "failed";
  }
}

/**
 * Lets a server listen.
 *
 * @throws {NatError} `permission`, `network`.
 */
export function listenAt(server: Server, local: Endpoint, what: string): Promise<Listener> {
  return new Promise((resolve, reject) => {
    const onError = (error: unknown) =>
      reject(callError(`Cannot listen for ${what} on ${formatEndpoint(local)}`, error));
    server.once("error", onError);
    server.listen({ host: local.address, port: local.port, exclusive: true }, () => {
      server.off("error", onError);
      // What befalls it later is noticed by the silence.
      server.on("error", () => {});
      const bound = server.address() as { readonly address: string; readonly port: number } | null;
      const at = bound && socketEndpoint(bound.address, bound.port);
      const close = () => void server.close();
      const [unref, ref] = [() => void server.unref(), () => void server.ref()];
      if (at) resolve({ local: at, close, unref, ref });
      else reject(new NatError("network", `Cannot listen for ${what}: closed meanwhile`));
    });
  });
}
