/**
 * A client that is made when it is first asked something, since who is granted by another protocol
 * never needs it; and whose code, the largest part, may be loaded no earlier.
 *
 * Until then it stands in: it says what the protocol cannot do, takes questions and requests under
 * ids of its own, and with the first it begins the search that the client would begin with, and tells
 * `code-needed`. Once the code is there they are put to the client, in their order, and after them
 * what the search has heard; where it could not be had they have failed, and the next one asks for it
 * again.
 *
 * @module
 */
import type { Via } from "../errors.ts";
import type {
  Action,
  DebugTimeout,
  Endpoint,
  HttpRequest,
  HttpResult,
  Instant,
  SocketResult,
  SocketSpec,
} from "../machine.ts";
import {
  checkMappingRequest,
  type Failure,
  type MappingId,
  type MappingRequest,
  type Wanted,
} from "../mapping.ts";
import { Outbox } from "../outbox.ts";
import type { ClientEvent, ClientOptions, MakeClient, MappingClient } from "./client.ts";

/** The first id that is given out before there is a client; its own count from 1. */
const FIRST_EARLY_ID = 2 ** 40;

const NO_SOCKETS: readonly SocketSpec[] = [];
/** How many datagrams are kept for the client, of how many bytes each at most. */
const MAX_HEARD = 16, MAX_HEARD_BYTES = 8192;

/** How a client begins to search. */
export interface Search {
  /** The socket that it wants for that. */
  socket(options: ClientOptions, key: string): SocketSpec;
  /** Sends the first step. */
  begin(
    options: ClientOptions,
    send: (to: Endpoint, data: Uint8Array) => void,
    now: Instant,
  ): void;
}

/** A search that was begun for the client. */
interface Begun {
  readonly sockets: readonly [SocketSpec];
  /** What became of its socket. */
  result: SocketResult | undefined;
  /** When the first step left. */
  at: Instant | undefined;
  /** What came, in order: what the client is to hear. */
  readonly heard: ((client: MappingClient, key: string, now: Instant) => void)[];
}

/** A request that waits for the client. */
interface Waiting {
  /** Puts it to the client. */
  put(client: MappingClient, now: Instant): MappingId;
  /** What is told where there is to be no client. */
  failed(id: MappingId, failure: Failure): ClientEvent;
}

/** A client that is made late; of a protocol without nonces, and that deletes nothing of others. */
export class LateClient implements MappingClient {
  readonly via: Via;
  readonly #misfit: (wanted: Wanted) => string | undefined;
  #options: ClientOptions;
  #make: MakeClient | undefined;
  readonly #search: Search;
  #begun: Begun | undefined;
  #searches = 0;
  #client: MappingClient | undefined;
  readonly #outbox: Outbox<ClientEvent> = new Outbox<ClientEvent>();
  #isProbed = false;
  /** Whether its code has been asked for. */
  #isAwaited = false;
  readonly #waiting: Map<MappingId, Waiting> = new Map();
  #nextEarlyId = FIRST_EARLY_ID;
  /** The client's ids of what was asked before it was there, and back. */
  readonly #ownIds: Map<MappingId, MappingId> = new Map();
  readonly #earlyIds: Map<MappingId, MappingId> = new Map();

  /**
   * @param misfit What the protocol cannot do, in words.
   * @param make Makes the client; undefined where its code is not there yet.
   * @param search How that would begin.
   */
  constructor(
    via: Via,
    misfit: (wanted: Wanted) => string | undefined,
    options: ClientOptions,
    make: MakeClient | undefined,
    search: Search,
  ) {
    this.via = via;
    this.#misfit = misfit;
    this.#options = options;
    this.#make = make;
    this.#search = search;
  }

  /** The client's counters, once there is one. */
  get stats(): object {
    return this.#client?.stats ?? {};
  }

  /** {@inheritDoc MappingClient.isIdle} */
  get isIdle(): boolean {
    return this.#outbox.size === 0 && this.#waiting.size === 0 && !this.#isProbed &&
      (this.#client?.isIdle ?? true);
  }

  /** {@inheritDoc MappingClient.callbackPath} */
  get callbackPath(): string | undefined {
    return this.#client?.callbackPath;
  }

  /** The code is there, or could not be had: what waits goes on, or has failed. */
  codeTold(code: MakeClient | Failure, now: Instant): void {
    this.#outbox.touch(now);
    this.#isAwaited = false;
    if (typeof code === "function") {
      this.#make = code;
      if (this.#isWanted) this.#made(now);
      return;
    }
    this.#begun = undefined;
    if (this.#isProbed) this.#outbox.emit({ type: "external-address-failed", failure: code });
    this.#isProbed = false;
    for (const [id, one] of this.#waiting) this.#outbox.emit(one.failed(id, code));
    this.#waiting.clear();
  }

  // ---- Commands ----------------------------------------------------------------------------

  /** {@inheritDoc MappingClient.unfit} */
  unfit(request: MappingRequest): string | undefined {
    return this.#misfit(checkMappingRequest(request));
  }

  /** {@inheritDoc MappingClient.probe} */
  probe(now: Instant): void {
    const client = this.#made(now);
    if (client) client.probe(now);
    else this.#isProbed = true;
  }

  /** {@inheritDoc MappingClient.endProbe} */
  endProbe(now: Instant): void {
    this.#isProbed = false;
    this.#client?.endProbe(now);
    this.#endSearch();
  }

  /** {@inheritDoc MappingClient.map} */
  map(request: MappingRequest, now: Instant): MappingId {
    return this.#ask({
      put: (client, now) => client.map(request, now),
      failed: (id, failure) => ({ type: "failed", id, failure }),
    }, now);
  }

  /** {@inheritDoc MappingClient.unmap} */
  unmap(request: MappingRequest, now: Instant): MappingId {
    return this.#ask({
      put: (client, now) => client.unmap(request, now),
      failed: (id, failure) => ({ type: "unmapped", id, reason: "revoked", failure }),
    }, now);
  }

  /** {@inheritDoc MappingClient.list} */
  list(now: Instant): MappingId {
    return this.#ask({
      put: (client, now) => client.list!(now),
      failed: (id, failure) => ({ type: "table-told", id, entries: [], isCut: false, failure }),
    }, now);
  }

  /** {@inheritDoc MappingClient.renew} */
  renew(id: MappingId, lifetimeSeconds: number | undefined, now: Instant): number {
    return this.#client?.renew(this.#ownId(id), lifetimeSeconds, now) ?? 0;
  }

  /** {@inheritDoc MappingClient.revoke} */
  revoke(id: MappingId, now: Instant): void {
    // Nobody has been asked for it.
    if (this.#waiting.delete(id)) {
      this.#outbox.touch(now);
      this.#outbox.emit({ type: "unmapped", id, reason: "revoked" }, id);
      this.#endSearch();
    } else this.#client?.revoke(this.#ownId(id), now);
  }

  /** {@inheritDoc MappingClient.withdraw} */
  withdraw(id: MappingId, now: Instant): void {
    if (!this.#waiting.delete(id)) this.#client?.withdraw(this.#ownId(id), now);
    this.#endSearch();
  }

  /** {@inheritDoc MappingClient.abandon} */
  abandon(id: MappingId, now: Instant): void {
    this.#outbox.unemit(id);
    if (!this.#waiting.delete(id)) this.#client?.abandon(this.#ownId(id), now);
    this.#endSearch();
  }

  /** {@inheritDoc MappingClient.check} */
  check(now: Instant): void {
    this.#client?.check?.(now);
  }

  /** {@inheritDoc MappingClient.networkChanged} */
  networkChanged(localAddress: string, now: Instant): void {
    this.#options = { ...this.#options, localAddress };
    this.#client?.networkChanged(localAddress, now);
    // It was from where this host is no more.
    if (this.#begun) this.#begin();
  }

  // ---- Input and output --------------------------------------------------------------------

  /** {@inheritDoc Machine.sockets} */
  sockets(): readonly SocketSpec[] {
    return this.#client?.sockets?.() ?? this.#begun?.sockets ?? NO_SOCKETS;
  }

  /** {@inheritDoc Machine.handleSocket} */
  handleSocket(key: string, result: SocketResult, now: Instant): void {
    if (this.#client) return this.#client.handleSocket?.(key, result, now);
    const begun = this.#begun;
    const isInPassing = !result.ok && result.isOpen;
    if (!begun || key !== begun.sockets[0].key || isInPassing) return;
    this.#outbox.touch(now);
    begun.result = result;
    if (result.ok && begun.at === undefined) {
      begun.at = now;
      this.#search.begin(this.#options, (to, data) => this.#outbox.send(key, to, data), now);
    }
    // First things first: what takes longer to load than to send.
    this.#askForCode();
  }

  /** {@inheritDoc Machine.handleDatagram} */
  handleDatagram(data: Uint8Array, from: Endpoint, socket: string, now: Instant): boolean {
    if (this.#client) return this.#client.handleDatagram(data, from, socket, now);
    const isMine = this.#isSearch(socket) && data.length <= MAX_HEARD_BYTES &&
      this.#begun!.heard.length < MAX_HEARD;
    if (!isMine) return false;
    const copy = data.slice();
    this.#begun!.heard.push((client, key, now) => client.handleDatagram(copy, from, key, now));
    return true;
  }

  /** {@inheritDoc Machine.handleUnreachable} */
  handleUnreachable(to: Endpoint, socket: string, now: Instant): void {
    if (this.#client) return this.#client.handleUnreachable(to, socket, now);
    if (!this.#isSearch(socket) || this.#begun!.heard.length >= MAX_HEARD) return;
    this.#begun!.heard.push((client, key, now) => client.handleUnreachable(to, key, now));
  }

  /** {@inheritDoc Machine.handleResponse} */
  handleResponse(id: number, result: HttpResult, now: Instant): void {
    this.#client?.handleResponse?.(id, result, now);
  }

  /** {@inheritDoc Machine.handleRequest} */
  handleRequest(id: number, request: HttpRequest, from: Endpoint, now: Instant): void {
    this.#client?.handleRequest?.(id, request, from, now);
  }

  /** {@inheritDoc Machine.handleTimeout} */
  handleTimeout(now: Instant): void {
    this.#outbox.touch(now);
    this.#client?.handleTimeout(now);
  }

  /** {@inheritDoc Machine.nextTimeout} */
  nextTimeout(): Instant | undefined {
    return this.debugTimeout()?.at;
  }

  /** {@inheritDoc Machine.debugTimeout} */
  debugTimeout(): DebugTimeout | undefined {
    const wakeAt = this.#outbox.wakeAt();
    if (wakeAt !== undefined) return { at: wakeAt, reason: "output waits" };
    return this.#client?.debugTimeout();
  }

  /** {@inheritDoc Machine.poll} */
  poll(): Action<ClientEvent> | undefined {
    const action = this.#outbox.poll() ?? this.#client?.poll();
    if (action?.type !== "event" || !("id" in action.event)) return action;
    const id = this.#earlyIds.get(action.event.id);
    return id === undefined ? action : { type: "event", event: { ...action.event, id } };
  }

  // ---- Small things ------------------------------------------------------------------------

  /** The client, made now where it can be; else its code is asked for. */
  #made(now: Instant): MappingClient | undefined {
    if (this.#client) return this.#client;
    const begun = this.#begun;
    const search = begun && { socket: begun.sockets[0], at: begun.at };
    const client = this.#make?.({ ...this.#options, search });
    if (!client) {
      this.#outbox.touch(now);
      if (!this.#begun && !this.#isAwaited) this.#begin();
      return undefined;
    }
    this.#client = client;
    this.#begun = undefined;
    if (this.#isProbed) client.probe(now);
    this.#isProbed = false;
    for (const [id, one] of this.#waiting) {
      const own = one.put(client, now);
      this.#ownIds.set(id, own);
      this.#earlyIds.set(own, id);
    }
    this.#waiting.clear();
    if (begun?.result) {
      const [{ key }] = begun.sockets;
      client.handleSocket?.(key, begun.result, now);
      for (const hear of begun.heard) hear(client, key, now);
    }
    return client;
  }

  get #isWanted(): boolean {
    return this.#isProbed || this.#waiting.size > 0;
  }

  /** Begins the search from where this host is. */
  #begin(): void {
    const key = `early search ${++this.#searches}`;
    const sockets = [this.#search.socket(this.#options, key)] as const;
    this.#begun = { sockets, result: undefined, at: undefined, heard: [] };
  }

  /** Ends the search where nothing waits for it. */
  #endSearch(): void {
    if (!this.#isWanted) this.#begun = undefined;
  }

  #isSearch(socket: string): boolean {
    return this.#begun?.sockets[0].key === socket;
  }

  #askForCode(): void {
    if (!this.#isAwaited) this.#outbox.emit({ type: "code-needed" });
    this.#isAwaited = true;
  }

  #ask(one: Waiting, now: Instant): MappingId {
    const client = this.#made(now);
    if (client) return one.put(client, now);
    const id = this.#nextEarlyId++;
    this.#waiting.set(id, one);
    return id;
  }

  #ownId(id: MappingId): MappingId {
    return this.#ownIds.get(id) ?? id;
  }
}
