/**
 * The NAT-PMP client machine (RFC 6886): the external address and any number of mappings at one
 * gateway, kept alive over expiry, lost packets and restarts of the gateway.
 *
 * Theory of operation
 *
 * *Requests* wait in one queue (`queue.ts`), one is on its way at a time. It is sent again after
 * 250 ms, doubling, nine times; 64 s after the ninth the gateway is taken for silent, and all that
 * has waited since the first send fails with it (PMP-C-06, -07). ICMP unreachable fails everything
 * at once (PMP-C-08). Deletes are sent three times and not past the mapping's natural end
 * (PMP-C-10, -11). No failure is held against the gateway: the next request goes out normally
 * (PMP-C-09, -33).
 *
 * *A packet* goes through `handleDatagram`: from the gateway's address? → decode → epoch → is it
 * the answer to the request on its way (exact port too; PMP-C-14, -35; what it comes to:
 * `outcome.ts`)? → else an announcement, if it is an address packet (PMP-C-15, -16; `address.ts`)
 * → else dropped.
 *
 * *A mapping* (`leases.ts`) moves so:
 *
 *   requested → starting → running ⇄ updating      granted; renewed at 1/2, 3/4, 7/8… (PMP-C-22)
 *                  │          │
 *                  │          └→ lost: error ⇄ starting   its lifetime ran out, or the restarted
 *                  │                                      gateway refuses; keep-alive goes on
 *                  └→ failed: error ⇄ starting, or gone   a refusal ends only when its hold does
 *   any → revoked → gone                           delete on its way
 *
 * *A restart of the gateway* (its epoch fell behind, PMP-C-28; `recovery.ts`): all mappings become
 * stale, their requests are taken from the queue, and after one uniform delay of 0…5 s (PMP-C-29)
 * they are asked for again one by one, with the ports they had.
 *
 * Timers: one a mapping (its renewal, then its end; or the end of a hold), one for the exchange,
 * one for the recreation delay. Once the application has asked for the external address, it is
 * asked for again along with renewals, since an announcement of its change may get lost.
 *
 * @module
 */
import { checkAddress, checkChoice, checkLifetime, checkPort } from "../check.ts";
import type { Action, DebugTimeout, Endpoint, Instant, Machine } from "../machine.ts";
import type { Failure, MappingId, Transport } from "../mapping.ts";
import { mergeMappingEvents } from "../merge.ts";
import { Outbox } from "../outbox.ts";
import { Timers } from "../timers.ts";
import { ExternalAddress } from "./address.ts";
import { decodeResponse } from "./codec.ts";
import { NatPmpEpoch } from "./epoch.ts";
import { isAnswer, isStaleAnswer } from "./exchange.ts";
import { Leases } from "./leases.ts";
import { Outcome } from "./outcome.ts";
import { EXCHANGE_TIMER, RequestQueue } from "./queue.ts";
import { Recovery, RECREATE_TIMER } from "./recovery.ts";
import {
  type NatPmpClientOptions,
  type NatPmpClientState,
  type NatPmpClientStats,
  type NatPmpEvent,
  type NatPmpMapping,
  type NatPmpMapRequest,
  newStats,
} from "./types.ts";
import { readRequest, readState, TRANSPORTS, writeState } from "./wish.ts";

/** The external address is not asked for again, unasked, while it is younger than this. */
const ADDRESS_AGE_MS = 60_000;

/** The timer of adopted mappings that nobody has asked for yet. */
const ADOPT_TIMER = -2;

const UNREACHABLE: Failure = { kind: "unreachable" };
const NO_ANSWER: Failure = { kind: "no-answer" };

/**
 * A NAT-PMP client for one gateway, as a machine (see `core/machine.ts`).
 *
 * @example
 * ```ts
 * import { NatPmpClient } from "@natkit/natkit/nat-pmp";
 * import { seededRandom } from "@natkit/natkit/core";
 * const gateway = { address: "192.168.1.1", port: 5351 };
 * const client = new NatPmpClient({ gateway, random: seededRandom(1) });
 * const id = client.map({ protocol: "tcp", internalPort: 8080 }, 0);
 * const action = client.poll();
 * console.assert(action?.type === "send" && action.data.length === 12);
 * const answer = Uint8Array.of(0, 130, 0, 0, 0, 0, 0, 9, 0x1f, 0x90, 0x9c, 0xbb, 0, 0, 14, 16);
 * client.handleDatagram(answer, gateway, 3);
 * console.assert(client.mapping(id)?.externalPort === 40123);
 * console.assert(client.poll()?.type === "event" && client.nextTimeout() === 3 + 1_800_000);
 * ```
 */
export class NatPmpClient implements Machine<NatPmpEvent> {
  readonly #gateway: Endpoint;
  readonly #outbox = new Outbox<NatPmpEvent>(mergeMappingEvents);
  readonly #timers = new Timers<number>();
  readonly #epoch = new NatPmpEpoch();
  readonly #queue: RequestQueue;
  readonly #leases: Leases;
  readonly #address: ExternalAddress;
  readonly #recovery: Recovery;
  readonly #outcome: Outcome;
  #now: Instant = -Infinity;
  #isClosed = false;

  /** Counters. */
  readonly stats: NatPmpClientStats = newStats();

  /**
   * Makes a client; with `state` the mappings of an earlier one are asked for at the first call.
   *
   * @throws {TypeError | RangeError} Where the gateway is no IPv4 endpoint (IPv6 is PCP's,
   * PMP-C-34), or the state is not one.
   */
  constructor(options: NatPmpClientOptions) {
    this.#gateway = {
      address: checkAddress("gateway.address", options.gateway.address, 4),
      port: checkPort("gateway.port", options.gateway.port),
    };
    const outbox = this.#outbox, timers = this.#timers;
    const queue = this.#queue = new RequestQueue(this.#gateway, outbox, timers, this.stats);
    const leases = this.#leases = new Leases(queue, timers, outbox);
    const address = this.#address = new ExternalAddress(queue, leases, outbox);
    this.#recovery = new Recovery(queue, leases, address, timers, options.random);
    this.#outcome = new Outcome(leases, address, outbox);
    if (options.state) this.#adopt(options.state);
  }

  // ---- Commands ----------------------------------------------------------------------------

  /** Asks for the external address; the answer is an `external-address` event. */
  externalAddress(now: Instant): void {
    this.#begin(now);
    this.#address.ask(this.#now);
    this.#advance();
  }

  /** Takes the question for the external address back, and repeats it no more. */
  cancelExternalAddress(now: Instant): void {
    this.#begin(now);
    this.#address.cancel();
    this.#advance();
  }

  /**
   * Asks for a mapping. One from exported state is claimed: it keeps its id, and its port is
   * suggested rather than the wish; where it is granted already, `mapped` is told again.
   *
   * @returns Its id, which events carry.
   * @throws {TypeError | RangeError} Where the request is malformed, the port is mapped already,
   * or the client is closed.
   */
  map(request: NatPmpMapRequest, now: Instant): MappingId {
    if (this.#isClosed) throw new TypeError("Cannot map a port: the client is closed");
    const wish = readRequest(request);
    const known = this.#leases.ofPort(wish);
    const lease = known?.isAdopted ? known : this.#leases.add(wish);
    this.#begin(now);
    if (lease === known) this.#leases.claim(lease, wish, this.#now);
    else this.#leases.ask(lease, this.#now);
    this.#advance();
    return lease.id;
  }

  /**
   * Renews a mapping at once, from then on for `lifetimeSeconds`. One that is wanted for N
   * lifetimes starts counting again. Does nothing to a mapping that is gone.
   *
   * @throws {TypeError | RangeError} Where the lifetime does not fit.
   */
  renew(id: MappingId, lifetimeSeconds: number | undefined, now: Instant): void {
    if (lifetimeSeconds !== undefined) checkLifetime("lifetimeSeconds", lifetimeSeconds);
    this.#begin(now);
    const lease = this.#leases.get(id);
    if (lease && lease.state !== "revoked") {
      const isOther = (lifetimeSeconds ?? lease.lifetimeSeconds) !== lease.lifetimeSeconds;
      if (isOther && lease.job) this.#queue.takeBack(lease.job);
      lease.lifetimeSeconds = lifetimeSeconds ?? lease.lifetimeSeconds;
      lease.wantedUntil = Infinity;
      this.#leases.ask(lease, this.#now);
    }
    this.#advance();
  }

  /** Deletes a mapping; `unmapped` follows. Does nothing to one that is gone. */
  revoke(id: MappingId, now: Instant): void {
    this.#begin(now);
    const lease = this.#leases.get(id);
    if (lease) this.#leases.revoke(lease, this.#now);
    this.#advance();
  }

  /**
   * Deletes the mapping of a port although this client need not have made it; `unmapped` follows
   * under the id returned.
   *
   * @throws {TypeError | RangeError} Where an argument is malformed.
   */
  unmap(protocol: Transport, internalPort: number, now: Instant): MappingId {
    const wish = readRequest({ protocol, internalPort, mode: "once" });
    this.#begin(now);
    const lease = this.#leases.ofPort(wish) ?? this.#leases.add(wish);
    lease.mayExistUntil = Infinity;
    this.#leases.revoke(lease, this.#now);
    this.#advance();
    return lease.id;
  }

  /**
   * Deletes all mappings of a protocol that this host has at the gateway, other programs' among
   * them; `all-unmapped` follows.
   *
   * @throws {TypeError} Where the protocol is none.
   */
  revokeAll(protocol: Transport, now: Instant): void {
    checkChoice("protocol", protocol, TRANSPORTS);
    this.#begin(now);
    const leases = this.#leases.all().filter((lease) => lease.protocol === protocol);
    for (const lease of leases) this.#leases.unwant(lease);
    this.#queue.add({ kind: "delete-all", protocol, quiet: false, leases, queuedAt: this.#now });
    this.#advance();
  }

  /** Forgets a mapping: no packet, no event. */
  abandon(id: MappingId, now: Instant): void {
    this.#begin(now);
    const lease = this.#leases.get(id);
    if (lease) this.#leases.drop(lease);
    this.#advance();
  }

  /** Deletes all mappings of this client; none can be made afterwards. */
  close(now: Instant): void {
    this.#begin(now);
    this.#isClosed = true;
    this.#address.cancel();
    for (const lease of this.#leases.all()) this.#leases.revoke(lease, this.#now);
    this.#advance();
  }

  /**
   * This host has another address towards the gateway: deletes what the address's last owner may
   * have left there (PMP-C-26), then asks for all mappings again.
   */
  addressChanged(now: Instant): void {
    this.#begin(now);
    this.#recovery.hostMoved(this.#now);
    this.#advance();
  }

  // ---- What it holds -----------------------------------------------------------------------

  /** Whether nothing is held, wanted or on its way. */
  get isIdle(): boolean {
    return this.#leases.size === 0 && this.#queue.isEmpty;
  }

  /** A mapping as it stands, or undefined where it is gone. */
  mapping(id: MappingId): NatPmpMapping | undefined {
    const lease = this.#leases.get(id);
    return lease && this.#leases.snapshot(lease);
  }

  /** All mappings, those being deleted among them. */
  mappings(): NatPmpMapping[] {
    return this.#leases.all().map((lease) => this.#leases.snapshot(lease));
  }

  /** What a later client needs to take the mappings over, as plain JSON. */
  exportState(now: Instant): NatPmpClientState {
    return writeState(this.#leases.wanted(), now);
  }

  // ---- Input -------------------------------------------------------------------------------

  /** Feeds one datagram; true where it belongs to NAT-PMP and comes from the gateway. */
  handleDatagram(data: Uint8Array, from: Endpoint, now: Instant): boolean {
    if (from.address !== this.#gateway.address) return this.#dropped("wrong-source");
    const response = decodeResponse(data);
    if (typeof response === "string") return this.#dropped(response);
    // An announcement may come from any port (RFC 6886 checks its address alone), an answer not.
    const isFromServer = from.port === this.#gateway.port;
    if (!isFromServer && response.kind !== "address") return this.#dropped("wrong-source");

    this.#begin(now);
    const job = this.#queue.current;
    const isOurs = job !== undefined && isFromServer && isAnswer(response, job);
    const isOtherVersion = response.kind === "unsupported-version" && response.version !== 0;
    if (isOtherVersion && !isOurs) return this.#dropped("unsolicited");
    this.#queue.isGatewaySilent = false;
    const { epochSeconds } = response;
    if (epochSeconds !== undefined && this.#epoch.check(epochSeconds, this.#now) === "lost") {
      this.stats.restarts++;
      this.#outbox.emit({ type: "gateway-restarted" }, "restart");
      this.#recovery.gatewayRestarted(isOurs ? job : undefined, this.#now);
    }

    if (isOurs && isStaleAnswer(response, job, this.#queue.wasJustDeleted(job, this.#now))) {
      this.#dropped("stale");
    } else if (isOurs) {
      this.stats.answers++;
      this.#queue.end();
      this.#outcome.answered(job, response, this.#now);
    } else if (response.kind === "address") {
      this.stats.announcements++;
      this.#address.heard(response, false, this.#now);
      this.#recovery.gatewayIsThere(this.#now);
    } else {
      this.#dropped("unsolicited");
    }
    this.#advance();
    return true;
  }

  /** ICMP says that nothing listens at the gateway's port: all that waits fails at once. */
  handleUnreachable(to: Endpoint, now: Instant): void {
    if (to.address !== this.#gateway.address || to.port !== this.#gateway.port) return;
    if (!this.#queue.current) return;
    this.#begin(now);
    for (const job of this.#queue.endAll()) this.#outcome.failed(job, UNREACHABLE, this.#now);
    this.#advance();
  }

  /** Does what is due. */
  handleTimeout(now: Instant): void {
    this.#begin(now);
    for (;;) {
      const key = this.#timers.popDue(this.#now);
      if (key === undefined) break;
      if (key === EXCHANGE_TIMER) {
        for (const job of this.#queue.waitOver(this.#now)) {
          this.#outcome.failed(job, NO_ANSWER, this.#now);
        }
      } else if (key === RECREATE_TIMER) {
        this.#recovery.recreate(this.#now);
      } else {
        const lease = this.#leases.get(key)!;
        this.#leases.due(lease, this.#now);
        if (!lease.isStale) this.#address.refresh(ADDRESS_AGE_MS, this.#now);
      }
    }
    this.#advance();
  }

  /** When `handleTimeout` wants to be called next; the last `now` while output waits. */
  nextTimeout(): Instant | undefined {
    return this.#outbox.wakeAt() ?? this.#timers.nextAt();
  }

  /** The next action. */
  poll(): Action<NatPmpEvent> | undefined {
    return this.#outbox.poll();
  }

  /** `nextTimeout` with its reason. */
  debugTimeout(): DebugTimeout | undefined {
    const wakeAt = this.#outbox.wakeAt();
    if (wakeAt !== undefined) return { at: wakeAt, reason: "output waits" };
    const next = this.#timers.next();
    if (!next) return undefined;
    return { at: next.at, reason: next.key > 0 ? `${next.reason} ${next.key}` : next.reason };
  }

  // ---- Small things ------------------------------------------------------------------------

  #begin(now: Instant): void {
    this.#now = Math.max(this.#now, now);
    this.#outbox.touch(this.#now);
    this.#timers.delete(ADOPT_TIMER);
  }

  #advance(): void {
    for (const job of this.#queue.advance(this.#now)) {
      if (job.kind === "delete") this.#leases.unmapped(job.lease, "revoked");
    }
  }

  #dropped(reason: keyof NatPmpClientStats["dropped"]): false {
    this.stats.dropped[reason]++;
    return false;
  }

  #adopt(state: NatPmpClientState): void {
    for (const wish of readState(state)) this.#leases.adopt(wish, this.#now);
    // There is no `now` here: whichever call comes first sends.
    if (!this.#queue.isEmpty) this.#timers.set(ADOPT_TIMER, 0, "adopt mappings");
  }
}
