/**
 * What every client of a mapping protocol is, whichever the protocol: the application's commands for
 * leases, what is held, and when something is due. A protocol's client adds its packets and its
 * answers, and what it asks beside mappings.
 *
 * @module
 */
import { checkAddress, checkInteger, checkLifetime } from "../check.ts";
import { type Via, VIA_NAME } from "../errors.ts";
import type { Action, DebugTimeout, Instant } from "../machine.ts";
import {
  checkMappingRequest,
  type MappingEvent,
  type MappingId,
  type MappingRequest,
  PROTOCOL_NUMBER,
  type Wanted,
} from "../mapping.ts";
import { Outbox } from "../outbox.ts";
import { earliest } from "../timers.ts";
import { mergeMappingEvents } from "./events.ts";
import type { LeaseKeeper, LeaseWire } from "./keeper.ts";
import type { Lease } from "./lease.ts";
import { readState, type SavedState, saveLease } from "./saved.ts";

/** What every client tells; `T` is a mapping in its protocol's words. */
export type LeaseEvent<T> =
  /** What becomes of a mapping. */
  | MappingEvent<T>
  /** The gateway lost its mappings; they are about to be made anew. */
  | { readonly type: "gateway-restarted" };

/** What a protocol's client fills in. */
export interface ClientWire<R, T> extends LeaseWire<R, T> {
  /** The gateway's address. */
  gatewayAddress(): string;
  /** This host's address, where requests have to agree with it. */
  localAddress?(): string;
  /** What the protocol cannot do of it, in words. */
  misfit(wanted: Wanted): string | undefined;
  /** Reads the nonce that a request names, and makes new ones. */
  readonly nonces?: { read(nonce: Uint8Array): string; make(): string };
  /** Whether it asks something beside mappings. */
  isAsking(): boolean;
  /** Takes that back. */
  endQuestions(): void;
  /** Does what is due beside leases. */
  handleTimeout(now: Instant): void;
  /** When that is. */
  deadlines(): readonly (DebugTimeout | undefined)[];
  /** Goes on with what can go on: after each command and timeout. */
  advance?(): void;
}

/** The client of one protocol at one gateway. `T` is a mapping in its words, `E` what it tells. */
export abstract class LeaseClient<T, E extends { readonly type: string }> {
  /** The protocol. */
  abstract readonly via: Via;
  /** Counters. */
  abstract readonly stats: { restarts: number };
  /** @internal */
  protected abstract readonly wire: ClientWire<unknown, T>;
  /** @internal */
  protected abstract readonly keeper: LeaseKeeper<unknown, T>;
  /** @internal */
  protected readonly outbox: Outbox<LeaseEvent<T> | E> = new Outbox<LeaseEvent<T> | E>(
    mergeMappingEvents,
  );
  /** @internal The time, as it was told last. */
  protected now: Instant = -Infinity;
  #isClosed = false;

  // ---- Commands ----------------------------------------------------------------------------

  /** Why the protocol cannot do this, or undefined where it can. */
  unfit(request: MappingRequest): string | undefined {
    return this.wire.misfit(checkMappingRequest(request));
  }

  /**
   * Asks for a mapping. One from exported state is claimed: it keeps its id, its nonce and the
   * endpoint that it had; where it is granted already as it is wanted, `mapped` is told at once.
   *
   * @returns The id by which events name it.
   * @throws {TypeError | RangeError} Where the request contradicts itself or is not for this
   * protocol, where the same mapping is held already, or where the client is closed.
   */
  map(request: MappingRequest, now: Instant): MappingId {
    if (this.#isClosed) throw new TypeError("Cannot map a port: the client is closed");
    const wanted = this.#check(request);
    const given = this.#nonceOf(request);
    const { remembered } = request;
    if (remembered) checkAddress("remembered.address", remembered.address);
    this.begin(now);
    const { id } = this.keeper.map(wanted, given, this.wire.nonces?.make, remembered, this.now);
    this.wire.advance?.();
    return id;
  }

  /**
   * Renews a mapping early, or as soon as 4 s have passed since it was renewed last; with a
   * lifetime, that one is asked for from then on. One that is wanted for N lifetimes starts counting
   * again. A mapping that is refused at present is not asked for before its time. One that is over
   * is left alone.
   *
   * @returns The number that its answer carries as `revision`.
   * @throws {RangeError} Where the id was never given out, or the lifetime does not fit.
   */
  renew(id: MappingId, lifetimeSeconds: number | undefined, now: Instant): number {
    if (lifetimeSeconds !== undefined) checkLifetime("lifetimeSeconds", lifetimeSeconds);
    let revision = 0;
    this.#onLease(id, now, (lease) => {
      revision = this.keeper.renew(lease, lifetimeSeconds, this.now);
    });
    return revision;
  }

  /**
   * Deletes a mapping; `unmapped` tells when that is done. What the gateway cannot hold, and what the
   * protocol cannot delete, is over at once.
   *
   * @throws {RangeError} Where the id was never given out.
   */
  revoke(id: MappingId, now: Instant): void {
    this.#onLease(id, now, (lease) => this.keeper.revoke(lease, this.now));
  }

  /**
   * Deletes a mapping of this host that this client need not have made, such as one of an earlier
   * run; `unmapped` follows under the id returned.
   *
   * @throws {TypeError | RangeError} As {@linkcode LeaseClient.map}.
   */
  unmap(request: MappingRequest, now: Instant): MappingId {
    const wanted = this.#check(request);
    const nonce = this.#nonceOf(request) ?? this.wire.nonces?.make();
    this.begin(now);
    const { id } = this.keeper.unmap(wanted, nonce, this.now);
    this.wire.advance?.();
    return id;
  }

  /**
   * Asks no more for a mapping that need not be had; what was sent may yet be granted, which is told,
   * and is not renewed. {@linkcode LeaseClient.revoke} deletes it.
   *
   * @throws {RangeError} Where the id was never given out.
   */
  withdraw(id: MappingId, now: Instant): void {
    this.#onLease(id, now, (lease) => this.keeper.withdraw(lease, this.now));
  }

  /**
   * Forgets a mapping: no packet, no event.
   *
   * @throws {RangeError} Where the id was never given out.
   */
  abandon(id: MappingId, now: Instant): void {
    this.#onLease(id, now, (lease) => this.keeper.abandon(lease, this.now));
    this.outbox.unemit(id);
  }

  /** Deletes all mappings of this client; none can be made afterwards. */
  close(now: Instant): void {
    this.begin(now);
    this.#isClosed = true;
    this.wire.endQuestions();
    for (const lease of this.keeper.all()) this.keeper.revoke(lease, this.now);
    this.wire.advance?.();
  }

  // ---- What it holds -----------------------------------------------------------------------

  /** Whether nothing is held, asked for or left to say. */
  get isIdle(): boolean {
    return this.keeper.size === 0 && this.outbox.size === 0 && !this.wire.isAsking();
  }

  /** A mapping as it stands, or undefined where it is over. */
  mapping(id: MappingId): T | undefined {
    return this.keeper.mapping(id);
  }

  /** All mappings as they stand, those being deleted among them. */
  mappings(): T[] {
    return this.keeper.mappings();
  }

  /** What a later client needs to adopt the mappings; safe for JSON. */
  exportState(now: Instant): SavedState {
    const gateway = this.wire.gatewayAddress();
    const save = (lease: Lease<unknown>) => saveLease(lease, this.via, gateway, now);
    return { version: 1, mappings: this.keeper.wanted().map(save) };
  }

  // ---- Time and output ---------------------------------------------------------------------

  /** Does what is due. */
  handleTimeout(now: Instant): void {
    this.begin(now);
    this.wire.handleTimeout(this.now);
    this.keeper.handleTimeout(this.now);
    this.wire.advance?.();
  }

  /** When `handleTimeout` wants to be called next; the last `now` while output waits. */
  nextTimeout(): Instant | undefined {
    return this.debugTimeout()?.at;
  }

  /** `nextTimeout` with its reason. */
  debugTimeout(): DebugTimeout | undefined {
    const wakeAt = this.outbox.wakeAt();
    if (wakeAt !== undefined) return { at: wakeAt, reason: "output waits" };
    return earliest(...this.wire.deadlines(), this.keeper.next());
  }

  /** The next action. */
  poll(): Action<LeaseEvent<T> | E> | undefined {
    return this.outbox.poll();
  }

  // ---- For the protocol's own part ----------------------------------------------------------

  /** @internal Notes the time: first in each command and input. */
  protected begin(now: Instant): void {
    this.now = Math.max(this.now, now);
    this.outbox.touch(this.now);
  }

  /**
   * @internal
   * Takes up the mappings of an earlier run; the first timeout asks for them.
   *
   * @throws {TypeError | RangeError} Where it is not a state, or not one of this protocol.
   */
  protected adopt(state: SavedState | undefined): void {
    if (!state) return;
    for (const { wanted, nonce, external } of readState(state, this.wire.localAddress?.())) {
      const misfit = this.wire.misfit(wanted);
      if (misfit) {
        throw new TypeError(`'state' must hold mappings of ${VIA_NAME[this.via]}: ${misfit}`);
      }
      this.keeper.adopt(wanted, nonce ?? this.wire.nonces?.make(), external);
    }
  }

  /** @internal The gateway lost its table: all but `except`, whose answer showed it, are made anew. */
  protected restarted(except: Lease<unknown> | undefined): void {
    this.stats.restarts++;
    this.outbox.emit({ type: "gateway-restarted" }, "restart");
    this.keeper.gatewayRestarted(except, this.now);
  }

  #check(request: MappingRequest): Wanted {
    const wanted = checkMappingRequest(request, this.wire.localAddress?.());
    const misfit = this.wire.misfit(wanted);
    if (misfit) throw new TypeError(`Cannot map a port by ${VIA_NAME[this.via]}: ${misfit}`);
    return wanted;
  }

  #nonceOf({ nonce }: MappingRequest): string | undefined {
    return nonce && this.wire.nonces?.read(nonce);
  }

  #onLease(id: MappingId, now: Instant, act: (lease: Lease<unknown>) => void): void {
    checkInteger("id", id, 1, this.keeper.lastId);
    this.begin(now);
    const lease = this.keeper.get(id);
    if (lease) act(lease);
    this.wire.advance?.();
  }
}

/** What only PCP can do of it, or what is no port of TCP or UDP; in words. */
export function misfitOfPort(
  { kind, protocol, internalPort, thirdParty, portSet, suggestedAddress }: Wanted,
): string | undefined {
  if (protocol !== PROTOCOL_NUMBER.tcp && protocol !== PROTOCOL_NUMBER.udp) {
    return `'protocol' must be tcp or udp: current value is ${protocol}`;
  }
  if (internalPort === 0) return "'internalPort' must be 1..65535: current value is 0";
  const only = kind === "peer"
    ? "remote"
    : thirdParty !== undefined
    ? "thirdParty"
    : portSet
    ? "portSet"
    : suggestedAddress !== undefined
    ? "suggestedExternal.address"
    : undefined;
  return only && `'${only}' is PCP's alone`;
}
