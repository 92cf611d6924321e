/**
 * The PCP client (RFC 6887): inbound and outbound mappings of one host at one server, held for as
 * long as they are wanted.
 *
 * This file is the face of the machine: commands are checked and handed to the engine, datagrams
 * are decoded, matched and judged in the order of §8.3: source, length, R bit, UNSUPP_VERSION,
 * lengths, opcode, fields and nonce, epoch, result. What a lease goes through is in `engine.ts`,
 * when requests leave is in `retransmit.ts`, which address is asked in `servers.ts`, what an answer
 * does in `answers.ts`, and the ANNOUNCE of `announce()` in `probe.ts`.
 *
 * Clauses: PCP-C-01…58, where they are a client's and not its caller's.
 *
 * @module
 */
import { checkAddress, checkInteger } from "../check.ts";
import type { Action, DebugTimeout, Endpoint, Instant, Machine } from "../machine.ts";
import type { Failure, MappingId } from "../mapping.ts";
import { type MappingResponse, refuse, refuseVersion, succeed } from "./answers.ts";
import { canClaim, claim } from "./claim.ts";
import { readOptions } from "./client_options.ts";
import {
  decodeResponse,
  PCP_NONCE_LENGTH,
  PCP_OPCODE,
  PCP_RESULT,
  type PcpAnnounceResponse,
  type PcpUnsupportedVersion,
} from "./codec.ts";
import { Engine } from "./engine.ts";
import { holdMs, refusal } from "./judge.ts";
import { keyOf } from "./key.ts";
import { Lease } from "./lease.ts";
import { PROBE, Probe } from "./probe.ts";
import { checkNonce, checkRequest, checkWantedLifetime, type Wish } from "./request.ts";
import { readState, saveLeases } from "./saved.ts";
import type {
  PcpClientOptions,
  PcpClientState,
  PcpClientStats,
  PcpEvent,
  PcpMapping,
  PcpMapRequest,
  PcpPeerRequest,
} from "./types.ts";

/**
 * A PCP client as a machine: feed it datagrams and time, drain its actions.
 *
 * @example
 * ```ts
 * import { PcpClient } from "@natkit/natkit/pcp";
 * import { seededRandom } from "@natkit/natkit/core";
 * const client = new PcpClient({
 *   servers: [{ address: "192.168.1.1", port: 5351 }],
 *   localAddress: "192.168.1.100",
 *   random: seededRandom(1), // on a real network: an unguessable source
 * });
 * client.map({ protocol: 6, internalPort: 8080 }, 0);
 * const action = client.poll();
 * console.assert(action?.type === "send" && action.data.length === 60);
 * ```
 */
export class PcpClient implements Machine<PcpEvent> {
  readonly #engine: Engine;
  #nextId: MappingId = 1;
  readonly #probe: Probe;
  #isClosed = false;

  /**
   * Makes the client; mappings of `options.state` are asked for at the first timeout.
   *
   * @throws {TypeError | RangeError} Where an option is none.
   */
  constructor(options: PcpClientOptions) {
    this.#engine = new Engine(readOptions(options));
    this.#probe = new Probe(this.#engine);
    this.#engine.onExhausted = (hasNext, failure, now) => this.#probe.move(hasNext, failure, now);
    if (!options.state) return;
    for (const adopted of readState(options.state, this.#engine.localAddress)) {
      const { wish, nonce, lifetimeSeconds } = adopted;
      this.#engine.book.refuseTwice(wish);
      const lease = this.#newLease(wish, nonce, lifetimeSeconds, adopted);
      lease.isAdopted = true;
      this.#engine.adopt(lease);
    }
  }

  /**
   * Asks for an inbound mapping. One from exported state is claimed: it keeps its id, nonce and
   * endpoint; where it is granted already, `mapped` is told again.
   *
   * @returns The id by which events name it.
   * @throws {TypeError | RangeError} Where the request contradicts itself or the RFC, where the
   * same mapping is held already, or where the client is closed.
   */
  map(request: PcpMapRequest, now: Instant): MappingId {
    return this.#add("map", request, now);
  }

  /**
   * Asks for an outbound mapping: a flow to one peer, held open without traffic.
   *
   * @returns The id by which events name it.
   * @throws {TypeError | RangeError} As {@linkcode PcpClient.map}.
   */
  peer(request: PcpPeerRequest, now: Instant): MappingId {
    return this.#add("peer", request, now);
  }

  /**
   * Renews at once, or as soon as 4 s have passed since the last renewal; with a lifetime, that
   * one is asked for from here on. One that is wanted for N lifetimes starts counting again. A
   * mapping that is refused at present keeps its hold time. One that is gone is left alone.
   *
   * @throws {RangeError} Where the id was never given out, or the lifetime is none.
   */
  renew(id: MappingId, lifetimeSeconds: number | undefined, now: Instant): void {
    const lease = this.#find(id);
    const wanted = lifetimeSeconds === undefined ? undefined : checkWantedLifetime(lifetimeSeconds);
    if (!lease || lease.phase === "deleting") return;
    this.#engine.outbox.touch(now);
    const before = lease.lifetimeToAsk(now);
    lease.lifetimeSeconds = wanted ?? lease.lifetimeSeconds;
    lease.wantedUntil = Infinity;
    if (lease.lifetimeToAsk(now) !== before) lease.packet = undefined;
    if (lease.phase !== "granted" && lease.phase !== "renewing") return;
    if (lease.plan.earliestAt <= now) return this.#engine.renew(lease, now);
    lease.dueAt = lease.plan.earliestAt;
    this.#engine.arm(lease);
  }

  /**
   * Deletes the mapping; `unmapped` tells when that is done. What the server cannot hold, and what
   * PCP cannot delete (an outbound mapping, PCP-C-45), is gone at once.
   *
   * @throws {RangeError} Where the id was never given out.
   */
  revoke(id: MappingId, now: Instant): void {
    const lease = this.#find(id);
    if (!lease) return;
    this.#engine.outbox.touch(now);
    this.#engine.revoke(lease, now);
  }

  /**
   * Deletes an inbound mapping that this client need not hold: one of an earlier run, by its nonce;
   * `unmapped` follows under the id returned.
   *
   * @throws {TypeError | RangeError} As {@linkcode PcpClient.map}.
   */
  unmap(request: PcpMapRequest, now: Instant): MappingId {
    const engine = this.#engine;
    const wish = checkRequest("map", request, engine.localAddress);
    const nonce = new Uint8Array(PCP_NONCE_LENGTH);
    if (request.nonce === undefined) engine.random.fill(nonce);
    else nonce.set(checkNonce(request.nonce));
    engine.outbox.touch(now);
    let lease = engine.book.find(keyOf(wish));
    if (!lease) {
      const lifetimeSeconds = checkWantedLifetime(request.lifetimeSeconds);
      lease = this.#newLease(wish, nonce, lifetimeSeconds, { external: undefined });
      engine.adopt(lease);
    }
    engine.revoke(lease, now);
    return lease.id;
  }

  /**
   * Forgets the mapping: no packet, no event.
   *
   * @throws {RangeError} Where the id was never given out.
   */
  abandon(id: MappingId, now: Instant): void {
    const lease = this.#find(id);
    if (!lease) return;
    this.#engine.outbox.touch(now);
    this.#engine.remove(lease, now);
  }

  /** Asks the server for its epoch, which changes nothing there (PCP-C-50). */
  announce(now: Instant): void {
    this.#engine.outbox.touch(now);
    this.#probe.begin(now);
  }

  /** Revokes every mapping and takes no more. */
  close(now: Instant): void {
    this.#isClosed = true;
    this.#engine.outbox.touch(now);
    this.#probe.end();
    for (const lease of [...this.#engine.book.all()]) this.#engine.revoke(lease, now);
  }

  /** Whether nothing is held, asked for or left to say. */
  get isIdle(): boolean {
    return this.#engine.book.size === 0 && !this.#probe.isInFlight &&
      this.#engine.outbox.size === 0;
  }

  /** A mapping as it stands, or undefined where it is gone. */
  mapping(id: MappingId): PcpMapping | undefined {
    return this.#snapshot(this.#engine.book.get(id));
  }

  /** All mappings as they stand. */
  mappings(): PcpMapping[] {
    return [...this.#engine.book.all()].map((lease) => this.#snapshot(lease)!);
  }

  /**
   * The host has another address, or is in another network: every mapping is asked for from there,
   * at once and whatever was refused before (PCP-C-23, PCP-C-24). Deleting what the old address had
   * is RECOMMENDED, but a request must leave from the address it names, and that one is gone: what
   * it had ends with its lifetime. Who knows of the change beforehand revokes beforehand.
   *
   * @throws {TypeError} Where the address is none.
   */
  networkChanged(localAddress: string, now: Instant): void {
    const address = checkAddress("localAddress", localAddress);
    this.#engine.outbox.touch(now);
    this.#engine.restart(address, now);
    this.#probe.restart(now);
  }

  /** What a later client needs to adopt the mappings; safe for JSON. */
  exportState(now: Instant): PcpClientState {
    return saveLeases(this.#engine.book.wanted(), now);
  }

  /** Counters. */
  get stats(): PcpClientStats {
    return this.#engine.stats;
  }

  /** Feeds a datagram of the client's socket or of the one that hears announcements. */
  handleDatagram(data: Uint8Array, from: Endpoint, now: Instant): boolean {
    const engine = this.#engine;
    engine.outbox.touch(now);
    const source = engine.servers.match(from);
    if (source === undefined) return engine.drop("wrong-source");
    // RFC 7488 §3(4): late answers of an address that was given up are ignored.
    if (source === "other") return engine.drop("other-address");
    const response = decodeResponse(data);
    if (typeof response === "string") return engine.drop(response);
    switch (response.kind) {
      case "unsupported-version":
        return this.#handleVersion(response, data, now);
      case "announce":
        return this.#handleAnnounce(response, now);
      case "map":
      case "peer":
        return this.#handleMapping(response, data, now);
      case "other":
        // An opcode that was never asked; RFC 7652's server speaks up unasked.
        return engine.drop("unmatched");
    }
  }

  /** ICMP: nothing listens at `to`. With several addresses the next is tried at once. */
  handleUnreachable(to: Endpoint, now: Instant): void {
    const engine = this.#engine;
    engine.outbox.touch(now);
    if (engine.servers.match(to) !== "current") return;
    const failure: Failure = { kind: "unreachable" };
    if (engine.servers.size === 1) {
      this.#probe.fail(failure);
      engine.unreachable(now);
    } else if (this.#probe.isInFlight || [...engine.book.all()].some((lease) => lease.isInFlight)) {
      engine.exhaust(failure, now);
    }
  }

  /** Does what is due. */
  handleTimeout(now: Instant): void {
    const { timers, book, outbox } = this.#engine;
    outbox.touch(now);
    for (;;) {
      const id = timers.popDue(now);
      if (id === undefined) return;
      if (id === PROBE) this.#probe.due(now);
      else this.#engine.due(book.get(id)!, now);
    }
  }

  /** When {@linkcode PcpClient.handleTimeout} has something to do. */
  nextTimeout(): Instant | undefined {
    return this.#engine.outbox.wakeAt() ?? this.#engine.timers.nextAt();
  }

  /** The next action. */
  poll(): Action<PcpEvent> | undefined {
    return this.#engine.outbox.poll();
  }

  /** The next deadline and what it is for. */
  debugTimeout(): DebugTimeout | undefined {
    const at = this.#engine.outbox.wakeAt();
    if (at !== undefined) return { at, reason: "output is waiting" };
    const next = this.#engine.timers.next();
    if (!next) return undefined;
    const reason = next.key === PROBE ? next.reason : `${next.reason}, mapping ${next.key}`;
    return { at: next.at, reason };
  }

  #add(kind: "map" | "peer", request: PcpMapRequest | PcpPeerRequest, now: Instant): MappingId {
    if (this.#isClosed) throw new TypeError("Cannot request a mapping as the client is closed");
    const engine = this.#engine;
    const wish = checkRequest(kind, request, engine.localAddress);
    const lifetimeSeconds = checkWantedLifetime(request.lifetimeSeconds);
    const given = request.nonce === undefined ? undefined : checkNonce(request.nonce);
    const known = engine.book.find(keyOf(wish));
    if (known && canClaim(known, wish, given)) {
      engine.outbox.touch(now);
      claim(engine, known, wish, lifetimeSeconds, now);
      return known.id;
    }
    engine.book.refuseTwice(wish);
    const nonce = given ?? new Uint8Array(PCP_NONCE_LENGTH);
    if (!given) engine.random.fill(nonce);
    engine.outbox.touch(now);
    const adopted = given ? { external: undefined } : undefined;
    const lease = this.#newLease(wish, nonce, lifetimeSeconds, adopted);
    engine.add(lease, now);
    return lease.id;
  }

  #newLease(
    wish: Wish,
    nonce: Uint8Array,
    lifetimeSeconds: number,
    adopted: { external: Endpoint | undefined } | undefined,
  ): Lease {
    return new Lease(this.#nextId++, keyOf(wish), wish, nonce, lifetimeSeconds, adopted);
  }

  #find(id: MappingId): Lease | undefined {
    checkInteger("id", id, 1, this.#nextId - 1);
    return this.#engine.book.get(id);
  }

  #snapshot(lease: Lease | undefined): PcpMapping | undefined {
    return lease?.snapshot(this.#engine.localAddress, this.#engine.servers.current);
  }

  #handleVersion(response: PcpUnsupportedVersion, data: Uint8Array, now: Instant): boolean {
    const engine = this.#engine;
    const { version, opcode } = response;
    const endsProbe = this.#probe.isInFlight && (version === 0 || opcode === PCP_OPCODE.ANNOUNCE);
    if (endsProbe) this.#probe.fail({ kind: "unsupported-version", version });
    const endsLeases = refuseVersion(engine, response, data, now);
    if (!endsProbe && !endsLeases) return engine.drop("unmatched");
    engine.stats.received++;
    return true;
  }

  #handleAnnounce(response: PcpAnnounceResponse, now: Instant): boolean {
    const engine = this.#engine;
    const { resultCode, epochSeconds, lifetimeSeconds } = response;
    if (resultCode !== PCP_RESULT.SUCCESS && !this.#probe.isInFlight) {
      return engine.drop("unmatched");
    }
    const isFirst = !engine.servers.epoch.isKnown;
    this.#answered(epochSeconds, undefined, now);
    if (isFirst) engine.wake(undefined, now);
    if (!this.#probe.isInFlight) return true;
    if (resultCode !== PCP_RESULT.SUCCESS) {
      this.#probe.fail(refusal(resultCode, now + holdMs(lifetimeSeconds)));
      return true;
    }
    this.#probe.succeed(epochSeconds);
    return true;
  }

  #handleMapping(response: MappingResponse, data: Uint8Array, now: Instant): boolean {
    const engine = this.#engine;
    const lease = engine.book.match(keyOf(response), data);
    if (typeof lease === "string") return engine.drop(lease);
    this.#answered(response.epochSeconds, lease, now);
    // Nothing is kept of `data`: what a lease takes over are numbers and text.
    return response.resultCode === PCP_RESULT.SUCCESS
      ? succeed(engine, lease, response, now)
      : refuse(engine, lease, response.resultCode, response.lifetimeSeconds, now);
  }

  /** An answer that matched: the address works, and its epoch says whether state was lost. */
  #answered(epochSeconds: number, lease: Lease | undefined, now: Instant): void {
    const { servers, outbox, stats } = this.#engine;
    stats.received++;
    if (servers.answered()) {
      outbox.emit({ type: "server-changed", server: servers.current }, "server-changed");
    }
    if (servers.epoch.check(epochSeconds, now)) return;
    stats.restarts++;
    outbox.emit({ type: "gateway-restarted" }, "gateway-restarted");
    this.#engine.recover(lease, now);
  }
}
