/**
 * TCP streams between the machines of a simulation: what punching needs of TCP, not all of it.
 *
 * - Several streams leave from one port, to different peers; a port on which somebody listens is
 *   dialled from by nobody, and the other way round it may be listened on (as systems have it).
 * - A SYN that meets a SYN makes one stream (simultaneous open); one that meets nobody is reset.
 * - What gets lost is sent again after a second, and after twice as long each time.
 * - Bytes arrive whole and in order; an end that was closed says so to the other.
 *
 * @module
 */
import { concatBytes } from "../bytes.ts";
import { withoutZone } from "../ip.ts";
import type { Endpoint, Instant, StreamAction, StreamResult } from "../machine.ts";
import { Timers } from "../timers.ts";
import type { HttpHost, TcpPort } from "./http.ts";
import {
  FIRST_RETRY_MS,
  type HttpSegment,
  INITIAL_HOPS,
  type Packet,
  PART_BYTES,
  resetOf,
} from "./packet.ts";
import type { SimContext, Sleeper } from "./segment.ts";

/** So many times; then the other end is gone. */
const MAX_RETRIES = 6;
const EMPTY = new Uint8Array(0);

/** A local port with all that leads through it. */
interface Port {
  readonly local: Endpoint;
  readonly bound: TcpPort;
  /** The key of the socket that listens. */
  listener: string | undefined;
  readonly connections: Map<string, Connection>;
}

interface Connection {
  readonly id: number;
  readonly port: Port;
  readonly peer: Endpoint;
  state: "syn-sent" | "syn-received" | "established";
  /** The key of the socket that accepted it. */
  readonly socket: string | undefined;
  /** Parts that are not acknowledged; the one of no bytes is the end. */
  readonly unacked: Map<number, Uint8Array>;
  sent: number;
  /** Parts that came before their turn. */
  readonly early: Map<number, Uint8Array>;
  taken: number;
  hasEnded: boolean;
  hasPeerEnded: boolean;
  retries: number;
  timeoutAt: Instant;
  /** Gets the bytes once it was handed over. */
  handed: SimStream | undefined;
}

/** A stream that was handed over to the application. */
export class SimStream {
  /** This end. */
  readonly local: Endpoint;
  /** The other end. */
  readonly peer: Endpoint;
  /** Everything that has come so far. */
  received: Uint8Array = EMPTY;
  /** Whether the other end has been closed. */
  hasEnded = false;
  readonly #send: (data: Uint8Array) => void;

  /** Made by a process when its machine hands a stream over. */
  constructor(local: Endpoint, peer: Endpoint, send: (data: Uint8Array) => void) {
    this.local = local;
    this.peer = peer;
    this.#send = send;
  }

  /** Sends bytes. */
  send(data: Uint8Array): void {
    this.#send(data);
  }

  /** Takes bytes; called by the streams. */
  receive(data: Uint8Array): void {
    this.received = concatBytes([this.received, data]);
  }
}

/** The streams of one process. */
export class SimStreams implements Sleeper {
  readonly #context: SimContext;
  readonly #host: HttpHost;
  readonly #tell: (id: number, happened: StreamResult) => void;
  readonly #ports = new Map<string, Port>();
  readonly #connections = new Map<number, Connection>();
  readonly #handed = new Map<number, SimStream>();
  readonly #timers = new Timers<Connection>();
  #wakeAt: Instant | undefined;
  #lastId = 0;

  /** Tells what happens to streams. */
  constructor(
    context: SimContext,
    host: HttpHost,
    tell: (id: number, happened: StreamResult) => void,
  ) {
    this.#context = context;
    this.#host = host;
    this.#tell = tell;
  }

  /** Does what the machine wants. */
  act(action: StreamAction): void {
    if (action.do === "connect") return this.#connect(action);
    const connection = this.#connections.get(action.id);
    if (!connection) return;
    switch (action.do) {
      case "write":
        return this.#write(connection, action.data);
      case "close":
        this.#connections.delete(action.id);
        return this.#end(connection);
      case "hand-over": {
        const stream = new SimStream(
          connection.port.local,
          connection.peer,
          (data) => this.#write(connection, data),
        );
        if (action.unread) stream.receive(action.unread);
        connection.handed = stream;
        this.#handed.set(action.id, stream);
      }
    }
  }

  /** Gives a stream that was handed over. */
  take(id: number): SimStream | undefined {
    return this.#handed.get(id);
  }

  /** Accepts streams under a key; undefined where the port is taken. */
  listen(key: string, local: Endpoint): number | undefined {
    const port = this.#port(local);
    if (!port || port.listener !== undefined) return undefined;
    port.listener = key;
    return port.local.port;
  }

  /** Accepts no more; what was accepted stays. */
  unlisten(key: string): void {
    for (const port of this.#ports.values()) {
      if (port.listener !== key) continue;
      port.listener = undefined;
      this.#free(port);
    }
  }

  /** Ends it as a killed program would. */
  stop(): void {
    for (const port of this.#ports.values()) port.bound.close();
    this.#ports.clear();
    this.#timers.clear();
    this.#context.wake(this, undefined);
  }

  /** What is due; called by the world. */
  wake(): void {
    this.#wakeAt = undefined;
    if (this.#host.isSuspended) return;
    const { now } = this.#context;
    for (let due = this.#timers.popDue(now); due; due = this.#timers.popDue(now)) {
      if (now >= due.timeoutAt) this.#close(due, "timeout");
      else if (due.retries++ >= MAX_RETRIES) this.#close(due, "failed");
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

  #connect({ id, to, local, timeoutMs }: StreamAction & { readonly do: "connect" }): void {
    const address = this.#host.addressToward(to.address, local?.address);
    const port = address === undefined
      ? undefined
      : this.#port({ address, port: local?.port ?? 0 });
    const isTaken = port === undefined || port.listener !== undefined ||
      port.connections.has(peerKey(to));
    if (isTaken) return this.#tell(id, { type: "closed", reason: "failed" });
    const connection = this.#add(port, id, to, "syn-sent", undefined);
    connection.timeoutAt = this.#context.now + timeoutMs;
    this.#send(connection, "syn");
    this.#arm(connection);
  }

  /** The port, bound now where it was not. */
  #port(local: Endpoint): Port | undefined {
    const known = this.#ports.get(peerKey(local));
    if (known) return known;
    const bound = this.#host.bindTcp(local.address, local.port, {
      receive: (packet) => this.#receive(port, packet),
      unreachable: (to) => {
        const connection = port.connections.get(peerKey(to));
        if (connection?.state === "syn-sent") this.#close(connection, "refused");
      },
    });
    if (!bound) return undefined;
    const at = { address: local.address, port: bound.port };
    const port: Port = { local: at, bound, listener: undefined, connections: new Map() };
    this.#ports.set(peerKey(at), port);
    return port;
  }

  #free(port: Port): void {
    if (port.listener !== undefined || port.connections.size > 0) return;
    port.bound.close();
    this.#ports.delete(peerKey(port.local));
  }

  #add(
    port: Port,
    id: number,
    peer: Endpoint,
    state: Connection["state"],
    socket: string | undefined,
  ): Connection {
    const connection: Connection = {
      id,
      port,
      peer,
      state,
      socket,
      unacked: new Map(),
      sent: 0,
      early: new Map(),
      taken: 0,
      hasEnded: false,
      hasPeerEnded: false,
      retries: 0,
      timeoutAt: Infinity,
      handed: undefined,
    };
    port.connections.set(peerKey(peer), connection);
    this.#connections.set(id, connection);
    return connection;
  }

  #receive(port: Port, packet: Packet): void {
    const { segment, from } = packet;
    if (!segment) return;
    const connection = port.connections.get(peerKey(from));
    if (!connection) {
      if (segment.kind === "syn" && port.listener !== undefined) {
        const accepted = this.#add(port, --this.#lastId, from, "syn-received", port.listener);
        this.#send(accepted, "syn-ack");
        return this.#arm(accepted);
      }
      const reset = resetOf(packet);
      if (reset) this.#host.sendPacket(reset);
      return;
    }
    switch (segment.kind) {
      case "rst":
        return this.#close(connection, connection.state === "syn-sent" ? "refused" : "failed");
      case "syn":
        // Both have begun: it is one connection (RFC 9293 §3.5).
        if (connection.state === "syn-sent") connection.state = "syn-received";
        return this.#send(connection, "syn-ack");
      case "syn-ack":
        if (connection.state !== "established") this.#establish(connection);
        return this.#send(connection, "ack", -1);
      case "ack":
        if (connection.state === "syn-received") this.#establish(connection);
        connection.unacked.delete(segment.part);
        connection.retries = 0;
        this.#arm(connection);
        return this.#maybeForget(connection);
      case "data":
        if (connection.state === "syn-sent") return;
        if (connection.state === "syn-received") this.#establish(connection);
        connection.early.set(segment.part, packet.data);
        this.#send(connection, "ack", segment.part);
        return this.#takeInTurn(connection);
    }
  }

  #establish(connection: Connection): void {
    const { id, port, peer, socket } = connection;
    connection.state = "established";
    // What the dial might take is no bound for what is said afterwards.
    connection.timeoutAt = Infinity;
    connection.retries = 0;
    this.#arm(connection);
    const key = socket === undefined ? {} : { socket };
    this.#tell(id, { type: "open", local: port.local, peer, ...key });
  }

  #takeInTurn(connection: Connection): void {
    for (;;) {
      const data = connection.early.get(connection.taken);
      if (!data) return;
      connection.early.delete(connection.taken++);
      if (data.length === 0) {
        connection.hasPeerEnded = true;
        if (connection.handed) connection.handed.hasEnded = true;
        else if (this.#connections.delete(connection.id)) {
          this.#end(connection);
          this.#tell(connection.id, { type: "closed", reason: "ended" });
        }
        return this.#maybeForget(connection);
      }
      if (connection.handed) connection.handed.receive(data);
      else if (this.#connections.has(connection.id)) {
        this.#tell(connection.id, { type: "data", data });
      }
    }
  }

  #write(connection: Connection, data: Uint8Array): void {
    for (let at = 0; at < data.length; at += PART_BYTES) {
      this.#sendPart(connection, data.subarray(at, at + PART_BYTES));
    }
  }

  #end(connection: Connection): void {
    if (connection.hasEnded) return;
    connection.hasEnded = true;
    if (connection.state === "established") this.#sendPart(connection, EMPTY);
    else this.#forget(connection);
  }

  #sendPart(connection: Connection, data: Uint8Array): void {
    const part = connection.sent++;
    connection.unacked.set(part, data);
    this.#send(connection, "data", part, data);
    this.#arm(connection);
  }

  #retry(connection: Connection): void {
    if (connection.state === "syn-sent") this.#send(connection, "syn");
    else if (connection.state === "syn-received") this.#send(connection, "syn-ack");
    for (const [part, data] of connection.unacked) this.#send(connection, "data", part, data);
    this.#arm(connection);
  }

  #arm(connection: Connection): void {
    const waits = connection.state !== "established" || connection.unacked.size > 0;
    const retryAt = this.#context.now + FIRST_RETRY_MS * 2 ** connection.retries;
    if (waits) this.#timers.set(connection, Math.min(retryAt, connection.timeoutAt), "tcp");
    else this.#timers.delete(connection);
    this.schedule();
  }

  #close(connection: Connection, reason: "refused" | "timeout" | "failed"): void {
    this.#forget(connection);
    if (connection.handed) connection.handed.hasEnded = true;
    else if (this.#connections.delete(connection.id)) {
      this.#tell(connection.id, { type: "closed", reason });
    }
  }

  #maybeForget(connection: Connection): void {
    const { hasEnded, hasPeerEnded, unacked } = connection;
    if (hasEnded && hasPeerEnded && unacked.size === 0) this.#forget(connection);
  }

  #forget(connection: Connection): void {
    const { port, peer } = connection;
    this.#timers.delete(connection);
    if (port.connections.get(peerKey(peer)) === connection) port.connections.delete(peerKey(peer));
    this.#free(port);
    this.schedule();
  }

  #send(
    { port, peer }: Connection,
    kind: HttpSegment["kind"],
    part: number = 0,
    data: Uint8Array = EMPTY,
  ): void {
    const from = { address: withoutZone(port.local.address), port: port.local.port };
    const to = { address: withoutZone(peer.address), port: peer.port };
    const segment: HttpSegment = { kind, part, parts: 1 };
    this.#host.sendPacket({ protocol: "tcp", from, to, data, hops: INITIAL_HOPS, segment });
  }
}

function peerKey({ address, port }: Endpoint): string {
  return `${address} ${port}`;
}
