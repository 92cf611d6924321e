/**
 * The TURN client machine (RFC 8656), over UDP: an address at a relay that a host behind any NAT can be
 * reached at. It allocates and refreshes it, permits peers, binds channels, and carries data both
 * ways until it is closed.
 *
 * It lists no sockets: all goes by one of its caller's, which others may use as well.
 *
 * @module
 */
import { copyBytes, putU16, u16 } from "../bytes.ts";
import { checkAddress, checkInteger, checkPort } from "../check.ts";
import { formatEndpoint, isSameEndpoint } from "../ip.ts";
import type { Action, DebugTimeout, Endpoint, Instant, Machine } from "../machine.ts";
import { Outbox } from "../outbox.ts";
import type { RandomSource } from "../random.ts";
import { earliest, Timers } from "../timers.ts";
import { StunClient, type StunClientEvent, type StunFailure, type StunRequest } from "./client.ts";
import {
  decodeStun,
  encodeStun,
  isChannelData,
  STUN_ERROR,
  STUN_METHOD,
  type StunAttributes,
} from "./codec.ts";

/** The lifetime that is asked for, seconds (RFC 8656 §3.2). */
export const TURN_LIFETIME_SECONDS = 600;
/** The transport of relayed data: UDP (RFC 8656 §18.8). */
const UDP = 17;
/** A permission lives five minutes (RFC 8656 §9), a channel ten (§12); both are renewed before. */
const PERMISSION_MS = 300_000, PERMISSION_RENEWAL_MS = 240_000;
const CHANNEL_RENEWAL_MS = 540_000;
/** An allocation is refreshed a minute before its end, or half-way where it is short. */
const REFRESH_AHEAD_MS = 60_000;
/** After silence a renewal is tried again, milliseconds. */
const RETRY_MS = 10_000;
/** Channel numbers (RFC 8656 §12). */
const FIRST_CHANNEL = 0x4000, LAST_CHANNEL = 0x4fff;
/** So many peers are permitted at most. */
const MAX_PEERS = 256;
/** A request renews so many permissions. */
const PEERS_A_REQUEST = 8;
/** The most bytes of one datagram. */
const MAX_DATA = 65_000;

/** What {@linkcode TurnClient} takes. */
export interface TurnClientOptions {
  /** The TURN server. */
  readonly server: Endpoint;
  /** Who we are there. */
  readonly username: string;
  /** The password of that. */
  readonly password: string;
  /** Unguessable in earnest. */
  readonly random: RandomSource;
  /** The key of the socket by which all goes. Default `"client"`. */
  readonly socket?: string;
  /** The family of the relayed address. Default: the server's choice, IPv4 mostly. */
  readonly family?: 4 | 6;
  /** The lifetime to ask for, 60…3600 seconds. Default 600. */
  readonly lifetimeSeconds?: number;
}

/** What a TURN client tells. */
export type TurnEvent =
  /** There is an address; told once. */
  | {
    readonly type: "allocated";
    /** Where peers send to. */
    readonly relayed: Endpoint;
    /** How the server sees this host. */
    readonly reflexive: Endpoint | undefined;
    /** Granted at first, seconds; it is refreshed. */
    readonly lifetimeSeconds: number;
  }
  /** What comes from this address is let in from now on, and {@linkcode TurnClient.send} works. */
  | { readonly type: "permitted"; readonly address: string }
  /** The server does not let this address in, or not any more. */
  | { readonly type: "refused"; readonly address: string; readonly failure: StunFailure }
  /** Data from a peer. */
  | { readonly type: "data"; readonly from: Endpoint; readonly data: Uint8Array }
  /** There is no address, or not any more; nothing is told afterwards. */
  | { readonly type: "failed"; readonly failure: StunFailure };

/** A peer's address that may send. */
interface Permission {
  readonly address: string;
  /** When it is over at the server; undefined before it was granted. */
  expiresAt: Instant | undefined;
}

interface Channel {
  readonly number: number;
  readonly peer: Endpoint;
  isBound: boolean;
}

type Answered = Extract<StunClientEvent, { type: "answered" }>;
type Then = (answer: Answered | StunFailure, now: Instant) => void;

/** The machine; see the head of this file. */
export class TurnClient implements Machine<TurnEvent> {
  /** Counters. */
  readonly stats: {
    readonly relayed: { sent: number; received: number };
    readonly dropped: { "not-permitted": number; malformed: number };
    readonly client: StunClient["stats"];
  };
  readonly #options: TurnClientOptions;
  readonly #socket: string;
  readonly #client: StunClient;
  readonly #random: RandomSource;
  readonly #outbox = new Outbox<TurnEvent>();
  readonly #timers = new Timers<string>();
  readonly #asked = new Map<number, Then>();
  readonly #permissions = new Map<string, Permission>();
  readonly #channels = new Map<string, Channel>();
  readonly #byNumber = new Map<number, Channel>();
  #server: Endpoint;
  #state: "new" | "allocating" | "allocated" | "over" = "new";
  #expiresAt: Instant = 0;

  /**
   * Makes the machine; {@linkcode TurnClient.allocate} sets it to work.
   *
   * @throws {TypeError | RangeError} Where an option cannot be.
   */
  constructor(options: TurnClientOptions) {
    const { server, random } = options;
    this.#server = {
      address: checkAddress("server.address", server.address),
      port: checkPort("server.port", server.port),
    };
    checkInteger("lifetimeSeconds", options.lifetimeSeconds ?? TURN_LIFETIME_SECONDS, 60, 3600);
    this.#options = options;
    this.#socket = options.socket ?? "client";
    this.#random = random;
    this.#client = new StunClient({ random });
    this.stats = {
      relayed: { sent: 0, received: 0 },
      dropped: { "not-permitted": 0, malformed: 0 },
      client: this.#client.stats,
    };
  }

  /** Asks for an address (RFC 8656 §7). A second call does nothing. */
  allocate(now: Instant): void {
    this.#outbox.touch(now);
    if (this.#state !== "new") return;
    this.#state = "allocating";
    const { family, lifetimeSeconds = TURN_LIFETIME_SECONDS } = this.#options;
    this.#ask(
      STUN_METHOD.ALLOCATE,
      {
        requestedTransport: UDP,
        lifetimeSeconds,
        ...(family !== undefined && { requestedAddressFamily: family }),
      },
      (answer, at) => this.#allocated(answer, at),
      now,
    );
    this.#drainClient(now);
  }

  /**
   * Lets what comes from an address in (RFC 8656 §9), and keeps it so. Before there is an allocation
   * it is remembered.
   *
   * @returns False where there are 256 already, or all is over.
   * @throws {TypeError} Where it is no address.
   */
  permit(address: string, now: Instant): boolean {
    const canonical = checkAddress("address", address);
    this.#outbox.touch(now);
    if (this.#permissions.has(canonical)) return true;
    if (this.#state === "over" || this.#permissions.size >= MAX_PEERS) return false;
    const permission: Permission = { address: canonical, expiresAt: undefined };
    this.#permissions.set(canonical, permission);
    if (this.#state === "allocated") this.#permitAll([permission], now);
    this.#drainClient(now);
    return true;
  }

  /**
   * Has a number stand for a peer, so that its data costs 4 bytes more and not 36 (RFC 8656 §12). It
   * permits its address too.
   *
   * @returns False where there is no allocation, or no number left.
   * @throws {TypeError | RangeError} Where it is no endpoint.
   */
  bindChannel(peer: Endpoint, now: Instant): boolean {
    const checked = checkPeer(peer);
    this.#outbox.touch(now);
    const key = formatEndpoint(checked);
    if (this.#channels.has(key)) return true;
    const number = FIRST_CHANNEL + this.#channels.size;
    if (this.#state !== "allocated" || number > LAST_CHANNEL) return false;
    if (!this.permit(checked.address, now)) return false;
    const channel: Channel = { number, peer: checked, isBound: false };
    this.#channels.set(key, channel);
    this.#bind(channel, now);
    this.#drainClient(now);
    return true;
  }

  /**
   * Sends data to a peer by the relay: by its channel where it has one, else in an indication.
   *
   * @returns False where its address is not permitted: nothing was sent.
   * @throws {TypeError | RangeError} Where it is no endpoint, or too much.
   */
  send(peer: Endpoint, data: Uint8Array, now: Instant): boolean {
    const checked = checkPeer(peer);
    checkInteger("data.length", data.length, 0, MAX_DATA);
    this.#outbox.touch(now);
    const permission = this.#permissions.get(checked.address);
    if (this.#state !== "allocated" || permission?.expiresAt === undefined) return false;
    const channel = this.#channels.get(formatEndpoint(checked));
    this.#outbox.send(
      this.#socket,
      this.#server,
      channel?.isBound ? channelData(channel.number, data) : this.#indication(checked, data),
    );
    this.stats.relayed.sent++;
    return true;
  }

  /** Gives the address back (RFC 8656 §8), and ends without a word. */
  close(now: Instant): void {
    this.#outbox.touch(now);
    if (this.#state === "allocated") {
      // One datagram: where it is lost, the lifetime ends it.
      const id = this.#request(STUN_METHOD.REFRESH, { lifetimeSeconds: 0 }, now);
      this.#drainClient(now);
      this.#client.cancel(id, now);
    }
    this.#end(now);
  }

  /** Takes a datagram; false where it is not from the server, or not by the socket. */
  handleDatagram(data: Uint8Array, from: Endpoint, socket: string, now: Instant): boolean {
    this.#outbox.touch(now);
    if (socket !== this.#socket || this.#state === "over") return false;
    const isMine = isSameEndpoint(from, this.#server) && this.#take(data, now) ||
      this.#client.handleDatagram(data, from, socket, now);
    this.#drainClient(now);
    return isMine;
  }

  /** Takes what ICMP says of the server. */
  handleUnreachable(to: Endpoint, socket: string, now: Instant): void {
    this.#outbox.touch(now);
    if (socket === this.#socket) this.#client.handleUnreachable(to, socket, now);
    this.#drainClient(now);
  }

  /** Renews what is due. */
  handleTimeout(now: Instant): void {
    this.#outbox.touch(now);
    this.#client.handleTimeout(now);
    for (const key of this.#timers.takeDue(now)) {
      if (key === "refresh") this.#refresh(now);
      else if (key === "permissions") this.#permitAll([...this.#permissions.values()], now);
      else {
        const channel = this.#channels.get(key);
        if (channel) this.#bind(channel, now);
      }
    }
    this.#drainClient(now);
  }

  /** When {@linkcode TurnClient.handleTimeout} is due. */
  nextTimeout(): Instant | undefined {
    return this.debugTimeout()?.at;
  }

  /** The same with its reason. */
  debugTimeout(): DebugTimeout | undefined {
    const at = this.#outbox.wakeAt();
    if (at !== undefined) return { at, reason: "output waits" };
    return earliest(this.#client.debugTimeout(), this.#timers.next());
  }

  /** The next action. */
  poll(): Action<TurnEvent> | undefined {
    return this.#outbox.poll();
  }

  // --------------------------------------------------------------------------------- requests ---

  #request(method: number, attributes: StunAttributes, now: Instant): number {
    const { username, password } = this.#options;
    const request: StunRequest = {
      server: this.#server,
      socket: this.#socket,
      method,
      attributes,
      credentials: { type: "long-term", username, password },
      // Only the allocation may move: all that follows belongs to the server that made it.
      followsRedirects: method === STUN_METHOD.ALLOCATE,
    };
    return this.#client.request(request, now);
  }

  #ask(method: number, attributes: StunAttributes, then: Then, now: Instant): void {
    this.#asked.set(this.#request(method, attributes, now), then);
  }

  #drainClient(now: Instant): void {
    for (let action = this.#client.poll(); action; action = this.#client.poll()) {
      if (action.type === "send") {
        this.#outbox.send(action.socket, action.to, action.data);
      } else if (action.type === "event") {
        const { event } = action;
        const then = this.#asked.get(event.id);
        this.#asked.delete(event.id);
        then?.(event.type === "answered" ? event : event.failure, now);
      }
    }
  }

  // ------------------------------------------------------------------------------- allocation ---

  #allocated(answer: Answered | StunFailure, now: Instant): void {
    if (!("attributes" in answer)) return this.#fail(answer, now);
    const { xorRelayedAddress: relayed, xorMappedAddress, lifetimeSeconds } = answer.attributes;
    if (!relayed || lifetimeSeconds === undefined || lifetimeSeconds === 0) {
      return this.#fail({ kind: "protocol-violation" }, now);
    }
    this.#state = "allocated";
    this.#server = answer.server;
    this.#lives(lifetimeSeconds, now);
    this.#outbox.emit({
      type: "allocated",
      relayed,
      reflexive: xorMappedAddress,
      lifetimeSeconds,
    }, "allocated");
    this.#permitAll([...this.#permissions.values()], now);
  }

  #lives(lifetimeSeconds: number, now: Instant): void {
    const lifetimeMs = 1000 * lifetimeSeconds;
    this.#expiresAt = now + lifetimeMs;
    const ahead = Math.min(REFRESH_AHEAD_MS, lifetimeMs / 2);
    this.#timers.set("refresh", now + lifetimeMs - ahead, "refresh the allocation");
  }

  #refresh(now: Instant): void {
    if (now >= this.#expiresAt) return this.#fail({ kind: "no-answer" }, now);
    const { lifetimeSeconds = TURN_LIFETIME_SECONDS } = this.#options;
    this.#ask(STUN_METHOD.REFRESH, { lifetimeSeconds }, (answer, at) => {
      if ("attributes" in answer) {
        const granted = answer.attributes.lifetimeSeconds ?? lifetimeSeconds;
        if (granted > 0) return this.#lives(granted, at);
        return this.#fail({ kind: "protocol-violation" }, at);
      }
      // Silence may pass; a refusal says that there is nothing to refresh.
      if (answer.kind === "refused") return this.#fail(answer, at);
      const next = Math.min(at + RETRY_MS, Math.max(at, this.#expiresAt));
      this.#timers.set("refresh", next, "refresh the allocation");
    }, now);
  }

  // ------------------------------------------------------------------ permissions, channels ---

  #permitAll(permissions: readonly Permission[], now: Instant): void {
    for (let i = 0; i < permissions.length; i += PEERS_A_REQUEST) {
      const some = permissions.slice(i, i + PEERS_A_REQUEST);
      const peers = some.map(({ address }) => ({ address, port: 0 }));
      const attributes = { xorPeerAddresses: peers };
      this.#ask(STUN_METHOD.CREATE_PERMISSION, attributes, (answer, at) => {
        if ("attributes" in answer) {
          for (const permission of some) this.#permitted(permission, at);
        } else this.#notPermitted(some, answer, at);
      }, now);
    }
    if (permissions.length > 0) this.#renewPermissions(now + PERMISSION_RENEWAL_MS);
  }

  #renewPermissions(at: Instant): void {
    const set = this.#timers.at("permissions");
    if (set === undefined || set > at) this.#timers.set("permissions", at, "renew permissions");
  }

  #permitted(permission: Permission, now: Instant): void {
    const isNew = permission.expiresAt === undefined;
    permission.expiresAt = now + PERMISSION_MS;
    if (!isNew) return;
    const { address } = permission;
    this.#outbox.emit({ type: "permitted", address }, `permission ${address}`);
  }

  #notPermitted(some: readonly Permission[], failure: StunFailure, now: Instant): void {
    if (failure.kind === "refused" && failure.code === STUN_ERROR.ALLOCATION_MISMATCH) {
      return this.#fail(failure, now);
    }
    // One address of several may be what is refused: each is asked for alone.
    if (failure.kind === "refused" && some.length > 1) {
      for (const permission of some) this.#permitAll([permission], now);
      return;
    }
    for (const permission of some) {
      const { address, expiresAt } = permission;
      if (failure.kind === "no-answer" && expiresAt !== undefined && now < expiresAt) {
        this.#renewPermissions(now + RETRY_MS);
        continue;
      }
      this.#permissions.delete(address);
      for (const [key, channel] of this.#channels) {
        if (channel.peer.address !== address) continue;
        channel.isBound = false;
        this.#timers.delete(key);
      }
      this.#outbox.emit({ type: "refused", address, failure }, `permission ${address}`);
    }
  }

  #bind(channel: Channel, now: Instant): void {
    const { number, peer } = channel;
    const key = formatEndpoint(peer);
    const attributes = { channelNumber: number, xorPeerAddresses: [peer] };
    this.#ask(STUN_METHOD.CHANNEL_BIND, attributes, (answer, at) => {
      if ("attributes" in answer) {
        channel.isBound = true;
        this.#byNumber.set(number, channel);
        this.#timers.set(key, at + CHANNEL_RENEWAL_MS, "renew a channel");
        return;
      }
      if (answer.kind === "refused" && answer.code === STUN_ERROR.ALLOCATION_MISMATCH) {
        return this.#fail(answer, at);
      }
      // Indications do as well.
      channel.isBound = false;
      if (answer.kind === "no-answer") this.#timers.set(key, at + RETRY_MS, "renew a channel");
    }, now);
  }

  // ------------------------------------------------------------------------------------- data ---

  #indication(peer: Endpoint, data: Uint8Array): Uint8Array {
    const transactionId = new Uint8Array(12);
    this.#random.fill(transactionId);
    return encodeStun({
      class: "indication",
      method: STUN_METHOD.SEND,
      transactionId,
      attributes: { xorPeerAddresses: [peer], data },
    });
  }

  /** Takes what the server relays; false for anything else. */
  #take(data: Uint8Array, now: Instant): boolean {
    if (isChannelData(data)) {
      const channel = this.#byNumber.get(u16(data, 0));
      const length = u16(data, 2);
      if (!channel || length > data.length - 4) this.stats.dropped.malformed++;
      else this.#receive(channel.peer, data.subarray(4, 4 + length), now);
      return true;
    }
    const message = decodeStun(data);
    if (typeof message === "string" || message.class !== "indication") return false;
    if (message.method !== STUN_METHOD.DATA) return false;
    const { xorPeerAddresses: [peer] = [], data: inner } = message.attributes;
    if (!peer || !inner) this.stats.dropped.malformed++;
    else this.#receive(peer, inner, now);
    return true;
  }

  #receive(from: Endpoint, data: Uint8Array, now: Instant): void {
    const expiresAt = this.#permissions.get(from.address)?.expiresAt;
    if (expiresAt === undefined || now >= expiresAt) {
      this.stats.dropped["not-permitted"]++;
      return;
    }
    this.stats.relayed.received++;
    this.#outbox.emit({ type: "data", from, data: copyBytes(data) });
  }

  // -------------------------------------------------------------------------------------- end ---

  #fail(failure: StunFailure, now: Instant): void {
    if (this.#state === "over") return;
    this.#end(now);
    this.#outbox.emit({ type: "failed", failure }, "failed");
  }

  #end(now: Instant): void {
    this.#state = "over";
    this.#timers.clear();
    this.#permissions.clear();
    this.#channels.clear();
    this.#client.close(now);
    while (this.#client.poll());
  }
}

function channelData(number: number, data: Uint8Array): Uint8Array {
  const bytes = new Uint8Array(4 + data.length);
  putU16(bytes, 0, number);
  putU16(bytes, 2, data.length);
  bytes.set(data, 4);
  return bytes;
}

function checkPeer({ address, port }: Endpoint): Endpoint {
  const canonical = checkAddress("peer.address", address);
  return { address: canonical, port: checkPort("peer.port", port) };
}
