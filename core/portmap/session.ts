/**
 * One gateway, spoken to by PCP and NAT-PMP over one socket (decisions D-09, D-10, D-18).
 *
 * ## Theory of operation
 *
 * Every request is a *claim*.
 *
 * **Racing.** The PCP MAP leaves at once, and with it NAT-PMP's two-byte address request, which
 * changes nothing at the gateway: probes race, mappings never do, because one table may stand
 * behind both protocols.
 *
 *   PCP grants                      → held by PCP, after one round trip
 *   PCP is not spoken (D-01, ICMP…) → NAT-PMP MAP as soon as its probe is answered
 *   only the probe is answered      → NAT-PMP MAP after a grace of two round trips, 30…40 ms
 *   PCP refuses                     → failed; the other protocol is no way around a refusal
 *   neither is spoken               → failed at once
 *
 * **Held.** The protocol's client machine keeps the lease and its events pass through. A lease
 * that is lost although nobody refused it (the gateway was silent, or is another one by now) races
 * again, with the old external endpoint as the wish, until it is recovered.
 *
 * **Removing.** A mapping of an earlier run is deleted by whatever protocol may know it.
 *
 * A silent gateway is asked until the owner revokes the claim: the timeout is the caller's.
 * Implements PMP-C-02, PMP-C-32, PMP-C-33 (PCP first for each new request, nothing remembered),
 * PCP-C-57. A renewal stays with the protocol that made the mapping: over one table, a lease taken
 * over by the other protocol can no longer be deleted by the first.
 *
 * @module
 */
import { checkAddress, checkChoice, checkPort } from "../check.ts";
import type { Attempt, Via } from "../errors.ts";
import { familyOf } from "../ip.ts";
import type { Action, DebugTimeout, Endpoint, Instant, Machine } from "../machine.ts";
import type { MappingId, Transport } from "../mapping.ts";
import { NatPmpClient, type NatPmpEvent } from "../natpmp/client.ts";
import { mergeMappingEvents } from "../lease/events.ts";
import { Outbox } from "../outbox.ts";
import { PcpClient, type PcpEvent } from "../pcp/client.ts";
import { type Claim, fromNatPmp, fromPcp } from "./claim.ts";
import { ClaimBook } from "./book.ts";
import { Claims, PROBE } from "./claims.ts";
import type { GrantedMapping, SessionEvent } from "./events.ts";
import { isPcpAnnouncement, isVersionNo } from "./packets.ts";
import {
  checkPeerRequest,
  checkPortRequest,
  type PeerRequest,
  type PortRequest,
} from "./request.ts";
import {
  defaultProtocols,
  type GatewaySessionOptions,
  type GatewaySessionStats,
} from "./session_options.ts";
import type { SavedMapping } from "./saved.ts";

/** For how long the answer to a PCP request may be under way. */
const LATE_NO_MS = 10_000;

/**
 * PCP and NAT-PMP to one gateway as one machine.
 *
 * @example
 * ```ts
 * import { GatewaySession, seededRandom } from "@natkit/natkit/core";
 * const session = new GatewaySession({
 *   gateway: { address: "192.168.1.1", port: 5351 },
 *   localAddress: "192.168.1.100",
 *   random: seededRandom(1),
 * });
 * session.map({ protocol: "tcp", internalPort: 8080 }, 0);
 * const pcpMap = session.poll(), natPmpProbe = session.poll();
 * console.assert(pcpMap?.type === "send" && pcpMap.data.length === 60);
 * console.assert(natPmpProbe?.type === "send" && natPmpProbe.data.length === 2);
 * ```
 */
export class GatewaySession implements Machine<SessionEvent> {
  /** The gateway. */
  readonly gateway: Endpoint;
  /** Counters, the two clients' included. */
  readonly stats: GatewaySessionStats;
  readonly #speaks: readonly Via[];
  readonly #pcp: PcpClient;
  readonly #natPmp: NatPmpClient | undefined;
  readonly #book: ClaimBook;
  readonly #claims: Claims;
  #pcpSentAt: Instant = -Infinity;
  readonly #outbox: Outbox<SessionEvent> = new Outbox<SessionEvent>(mergeMappingEvents, 65_536);

  /**
   * Makes a session that has asked for nothing yet.
   *
   * @throws {TypeError} On an address that is none, or protocols that its family excludes.
   */
  constructor(options: GatewaySessionOptions) {
    const address = checkAddress("gateway.address", options.gateway.address);
    const family = familyOf(address);
    const localAddress = checkAddress("localAddress", options.localAddress, family);
    this.gateway = { address, port: checkPort("gateway.port", options.gateway.port) };
    this.#speaks = options.protocols ?? defaultProtocols(localAddress);
    if (family === 6 && !this.#speaks.includes("pcp")) {
      throw new TypeError(
        `'protocols' must include pcp over IPv6: current value is ${this.#speaks.join(",")}`,
      );
    }
    const { random, fastStart = true, saved = [] } = options;
    const { gateway } = this;
    this.#pcp = new PcpClient({ servers: [gateway], localAddress, random, fastStart });
    this.#natPmp = family === 4 ? new NatPmpClient({ gateway, random }) : undefined;
    this.#book = new ClaimBook(localAddress, { gateway, speaks: this.#speaks, random, saved });
    this.#claims = new Claims(this.#book, {
      pcp: this.#pcp,
      natPmp: this.#natPmp,
      outbox: this.#outbox,
    });
    this.stats = {
      wrongSource: 0,
      settled: this.#claims.settled,
      pcp: this.#pcp.stats,
      natPmp: this.#natPmp?.stats,
    };
  }

  /** Whether nothing is held, asked for or about to be told to the gateway. */
  get isIdle(): boolean {
    return this.#book.size === 0 && this.#pcp.isIdle && (this.#natPmp?.isIdle ?? true);
  }

  /** What the gateway holds under `id`, or undefined. */
  mapping(id: MappingId): GrantedMapping | undefined {
    const claim = this.#book.get(id);
    return claim?.isLost ? undefined : claim?.granted;
  }

  /**
   * Asks for an inbound mapping; `mapped` or `failed` tells what came of it.
   *
   * @throws {TypeError | RangeError} On a request that no gateway could grant.
   */
  map(request: PortRequest, now: Instant): MappingId {
    checkPortRequest(request, familyOf(this.#book.localAddress));
    return this.#start(request, "racing", now);
  }

  /**
   * Asks for an outbound mapping by PCP PEER (RFC 6887 §12).
   *
   * @throws {TypeError | RangeError} On a request that no gateway could grant.
   */
  peer(request: PeerRequest, now: Instant): MappingId {
    checkPeerRequest(request, familyOf(this.#book.localAddress));
    return this.#start(request, "racing", now);
  }

  /**
   * Deletes a mapping that this session does not hold: one of an earlier run by the protocol and
   * nonce saved of it, any other by each protocol. Answered by `unmapped` with the attempts.
   *
   * @throws {TypeError | RangeError} On a request that no gateway could have granted.
   */
  unmap(request: PortRequest, now: Instant): MappingId {
    checkPortRequest(request, familyOf(this.#book.localAddress));
    return this.#start(request, "removing", now);
  }

  /**
   * Deletes all NAT-PMP mappings of this host and one transport protocol (RFC 6886 §3.4, PMP-C-26).
   * Answered by `unmapped`.
   *
   * @throws {TypeError} Where the protocol is none, or NAT-PMP is not spoken here.
   */
  unmapAll(protocol: Transport, now: Instant): MappingId {
    checkChoice("protocol", protocol, ["tcp", "udp"]);
    if (!this.#natPmp) throw new TypeError("Cannot unmap all ports: NAT-PMP is for IPv4");
    this.#outbox.touch(now);
    const claim = this.#claims.removeAll(protocol, now);
    this.#drain(now);
    return claim.id;
  }

  /** Asks for the external address by NAT-PMP; `external-address` or its failure tells it. */
  externalAddress(now: Instant): void {
    this.#outbox.touch(now);
    this.#claims.isAddressWanted = true;
    this.#claims.probe(now);
    this.#drain(now);
  }

  /** Renews a held mapping early, for `lifetimeSeconds` where given. Unknown ids are ignored. */
  renew(id: MappingId, lifetimeSeconds: number | undefined, now: Instant): number {
    this.#outbox.touch(now);
    const claim = this.#book.get(id);
    let revision = 0;
    if (claim?.phase === "held") {
      if (claim.pcp !== undefined) revision = this.#pcp.renew(claim.pcp, lifetimeSeconds, now);
      else if (claim.natPmp !== undefined) {
        revision = this.#natPmp?.renew(claim.natPmp, lifetimeSeconds, now) ?? 0;
      }
    }
    this.#drain(now);
    return revision;
  }

  /** Deletes the mapping; `unmapped` tells when the gateway did, or is past asking. */
  revoke(id: MappingId, now: Instant): void {
    this.#outbox.touch(now);
    const claim = this.#book.get(id);
    if (claim) this.#claims.revoke(claim, now);
    this.#drain(now);
  }

  /** Ends a claim but leaves the mapping at the gateway until its lifetime is over. */
  abandon(id: MappingId, now: Instant): void {
    this.#outbox.touch(now);
    const claim = this.#book.get(id);
    if (claim) this.#claims.abandon(claim, now);
    this.#drain(now);
  }

  /** What each protocol has come to for `id`; the silent ones are listed as `"no answer"`. */
  attempts(id: MappingId, now: Instant): Attempt[] {
    const claim = this.#book.get(id);
    return claim ? this.#book.attempts(claim, now) : [];
  }

  /** This host's address towards the gateway changed: mappings are asked for again from there. */
  networkChanged(localAddress: string, now: Instant): void {
    this.#outbox.touch(now);
    const address = checkAddress("localAddress", localAddress, familyOf(this.gateway.address));
    this.#book.localAddress = address;
    this.#pcp.networkChanged(address, now);
    this.#natPmp?.networkChanged(address, now);
    this.#drain(now);
  }

  /** Deletes everything; `isIdle` tells when that is done. */
  close(now: Instant): void {
    this.#outbox.touch(now);
    this.#claims.isAddressWanted = false;
    for (const claim of this.#book.all()) this.#claims.revoke(claim, now);
    this.#claims.endIdleProbe(now);
    this.#drain(now);
  }

  /** What a later run needs to adopt or delete these mappings. JSON-safe. */
  exportSaved(): SavedMapping[] {
    return this.#book.exportSaved();
  }

  /** {@inheritDoc Machine.handleDatagram} */
  handleDatagram(data: Uint8Array, from: Endpoint, now: Instant): boolean {
    this.#outbox.touch(now);
    if (from.address !== this.gateway.address) {
      this.stats.wrongSource++;
      return false;
    }
    // A version-0 answer to a PCP request is a "no" to PCP (D-01), a version-2 answer to a NAT-PMP
    // request one to NAT-PMP (D-02). Each client knows what it has asked; PCP looks first.
    const isTaken = this.#pcp.handleDatagram(data, from, now) || this.#isLateNo(data, now) ||
      (this.#natPmp?.handleDatagram(data, from, now) ?? false);
    if (isTaken && isPcpAnnouncement(data)) this.#claims.checkNatPmp(now);
    this.#drain(now);
    return isTaken;
  }

  /** {@inheritDoc Machine.handleUnreachable} */
  handleUnreachable(to: Endpoint, now: Instant): void {
    this.#outbox.touch(now);
    this.#pcp.handleUnreachable(to, now);
    this.#natPmp?.handleUnreachable(to, now);
    this.#drain(now);
  }

  /** {@inheritDoc Machine.handleTimeout} */
  handleTimeout(now: Instant): void {
    this.#outbox.touch(now);
    this.#pcp.handleTimeout(now);
    this.#natPmp?.handleTimeout(now);
    this.#drain(now);
    this.#claims.handleTimeout(now);
    this.#drain(now);
  }

  /** {@inheritDoc Machine.nextTimeout} */
  nextTimeout(): Instant | undefined {
    return this.debugTimeout()?.at;
  }

  /** {@inheritDoc Machine.debugTimeout} */
  debugTimeout(): DebugTimeout | undefined {
    const wakeAt = this.#outbox.wakeAt();
    if (wakeAt !== undefined) return { at: wakeAt, reason: "output waits" };
    let first: DebugTimeout | undefined;
    const parts = [
      this.#pcp.debugTimeout(),
      this.#natPmp?.debugTimeout(),
      this.#claims.timers.next(),
    ];
    for (const part of parts) if (part && (!first || part.at < first.at)) first = part;
    return first && { at: first.at, reason: first.reason };
  }

  /** {@inheritDoc Machine.poll} */
  poll(): Action<SessionEvent> | undefined {
    return this.#outbox.poll();
  }

  #start(request: PortRequest | PeerRequest, phase: Claim["phase"], now: Instant): MappingId {
    if (this.#book.vias(request).length === 0) {
      throw new TypeError(
        `'protocols' excludes all that could do this: current value is ${this.#speaks.join(",")}`,
      );
    }
    this.#outbox.touch(now);
    const claim = this.#book.create(request, phase, now);
    try {
      if (phase === "racing") this.#claims.race(claim, now);
      else this.#claims.remove(claim, now);
    } catch (error) {
      this.#claims.forget(claim, now); // A set of ports may overlap with another one.
      throw error;
    } finally {
      this.#drain(now);
    }
    return claim.id;
  }

  /**
   * One "no" to PCP ends all its requests (D-01), yet each of them is answered by one. Those that
   * come after it are not about NAT-PMP, which may have asked by then.
   */
  #isLateNo(data: Uint8Array, now: Instant): boolean {
    return isVersionNo(data) && now - this.#pcpSentAt < LATE_NO_MS;
  }

  #drain(now: Instant): void {
    for (;;) {
      const fromPcp = this.#pcp.poll();
      const action = fromPcp ?? this.#natPmp?.poll();
      if (!action) return;
      if (action.type === "send") {
        if (fromPcp) this.#pcpSentAt = now;
        this.#outbox.send(action.socket, action.to, action.data);
      } else if (action.type === "event") {
        if (fromPcp) this.#onPcp(action.event as PcpEvent, now);
        else this.#onNatPmp(action.event as NatPmpEvent, now);
      }
    }
  }

  #onPcp(event: PcpEvent, now: Instant): void {
    if (event.type === "gateway-restarted") return this.#outbox.emit(event, "restart");
    const claim = "id" in event ? this.#book.byPcp.get(event.id) : undefined;
    if (!claim) return;
    if ("mapping" in event) {
      const granted = fromPcp(claim, event.mapping, this.gateway);
      if (granted) this.#claims.hold(claim, "pcp", granted, event.revision, now);
    } else if ("id" in event) this.#onEnd(claim, "pcp", event, now);
  }

  #onNatPmp(event: NatPmpEvent, now: Instant): void {
    switch (event.type) {
      case "gateway-restarted":
        this.#claims.checkPcp(now);
        return this.#outbox.emit(event, "restart");
      case "external-address":
        if (this.#claims.takeWish()) {
          this.#outbox.emit({ type: event.type, address: event.address }, PROBE);
        }
        return this.#claims.probeAnswered(now);
      case "external-address-failed":
        if (this.#claims.takeWish()) this.#outbox.emit(event, PROBE);
        return this.#claims.probeFailed(event.failure, now);
      case "all-unmapped":
        return this.#claims.allRemoved(event.protocol, event.failure, now);
    }
    const claim = this.#book.byNatPmp.get(event.id);
    if (!claim) return;
    if ("mapping" in event) {
      const { localAddress } = this.#book;
      const granted = fromNatPmp(claim, event.mapping, this.gateway, localAddress);
      if (granted) this.#claims.hold(claim, "nat-pmp", granted, event.revision, now);
    } else this.#onEnd(claim, "nat-pmp", event, now);
  }

  #onEnd(
    claim: Claim,
    via: "pcp" | "nat-pmp",
    event: Exclude<Extract<PcpEvent | NatPmpEvent, { id: MappingId }>, { mapping: unknown }>,
    now: Instant,
  ): void {
    switch (event.type) {
      case "failed":
        return this.#claims.refusedOrOut(claim, via, event.failure, now);
      case "renewal-failed":
        return this.#outbox.emit({ ...event, id: claim.id }, claim.id);
      case "lost":
        return this.#claims.lose(claim, event.failure, now);
      case "unmapped":
        return this.#claims.partUnmapped(claim, via, event.reason, event.failure, now);
    }
  }
}
