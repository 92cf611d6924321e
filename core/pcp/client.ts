/**
 * The PCP client (RFC 6887): inbound and outbound mappings of one host at one server, held for as
 * long as they are wanted.
 *
 * Theory of operation
 *
 * *A request* leaves at once and again on the schedule of `transport.ts`, the same bytes each time;
 * a renewal is one datagram, sent again at the next point of its lease's schedule: in [1/2, 5/8],
 * [3/4, 13/16]… of the lifetime (PCP-C-40); one out of schedule, at the application's wish, is sent
 * again after 4, 8, 16… s as well. Deletions are sent four times, and only once to a
 * server that has never answered. With several addresses of a server the next is asked where one
 * is silent (RFC 7488).
 *
 * *A packet* goes through `handleDatagram` in the order of §8.3: source → length, R bit → version
 * (PCP-C-13) → opcode, fields and nonce (PCP-C-16, -17) → epoch (PCP-C-18) → result. What a success
 * or a refusal says is judged in `answers.ts`.
 *
 * *A mapping* is a lease, and lives as `core/lease/keeper.ts` says; where the server's epoch breaks
 * each is asked for again at a moment of its own within 5 s (PCP-C-26, PCP-C-52).
 *
 * Clauses: PCP-C-01…58, where they are a client's and not its caller's.
 *
 * @module
 */
import { isSameEndpoint } from "../ip.ts";
import {
  MIN_RENEWAL_GAP_MS,
  pcpRetransmissionTimeMs,
  RECREATION_DELAY_MS,
  renewalFraction,
} from "../backoff.ts";
import { fromHex, toHex } from "../bytes.ts";
import { checkAddress, checkBoolean, checkInteger, checkPort } from "../check.ts";
import { type ClientWire, LeaseClient, type LeaseEvent } from "../lease/client.ts";
import { type Ask, LeaseKeeper } from "../lease/keeper.ts";
import type { SavedState } from "../lease/saved.ts";
import type { Endpoint, Instant, Machine } from "../machine.ts";
import type {
  Failure,
  GrantedPortSet,
  MappingId,
  MappingKey,
  MappingRequest,
  MappingState,
} from "../mapping.ts";
import type { RandomSource } from "../random.ts";
import { DeadlineHeap } from "../timers.ts";
import { ANNOUNCE, Announce } from "./announce.ts";
import {
  answeredKey,
  confirmsDeletion,
  grantOf,
  isMappingResponse,
  keepsPromise,
  type MappingResponse,
  refusal,
  refusalMs,
  versionRefusalMs,
} from "./answers.ts";
import {
  decodeResponse,
  PCP_NONCE_LENGTH,
  PCP_NONCE_OFFSET,
  PCP_OPCODE,
  PCP_RESULT,
  type PcpAnnounceResponse,
  type PcpUnsupportedVersion,
} from "./codec.ts";
import {
  checkNonce,
  deletionOf,
  hasPaddedOptions,
  misfitOf,
  type PcpLease,
  requestOf,
} from "./request.ts";
import { EXHAUSTED_WAIT_MS, Request, Retransmission, ServerList } from "./transport.ts";

/** How a {@linkcode PcpClient} is made. */
export interface PcpClientOptions {
  /** The addresses of one server, the preferred one first; at least one (RFC 7488). */
  readonly servers: readonly Endpoint[];
  /** The address from which the requests leave: it is written into them (PCP-C-06). */
  readonly localAddress: string;
  /** Nonces and jitter; on a real network it must be unguessable (PCP-C-38). */
  readonly random: RandomSource;
  /**
   * Whether first requests and deletions are repeated after 250 and 750 ms, before the RFC's
   * schedule of 3 s and more takes over. A deviation from PCP-C-09 for people who wait; renewals
   * and recreations never do it. @default {true}
   */
  readonly fastStart?: boolean;
  /**
   * How many requests an address gets without an answer (RFC 6887's MRC), 0 for no limit.
   * @default {0} with one address, 4 with several
   */
  readonly maxAttempts?: number;
  /** What an earlier client's `exportState` gave: its mappings are adopted. */
  readonly state?: SavedState;
}

/** An inbound mapping (MAP) or, with `remote`, an outbound one (PEER). */
export type PcpMapRequest = MappingRequest;

/** An outbound mapping (PEER). */
export interface PcpPeerRequest extends MappingRequest {
  /** The peer that the mapping leads to. */
  readonly remote: Endpoint;
}

/** A mapping as it stands. */
export interface PcpMapping {
  /** Its id within the client. */
  readonly id: MappingId;
  /** Inbound or outbound. */
  readonly kind: "map" | "peer";
  /** IANA's number. */
  readonly protocol: number;
  /** The host's own side. */
  readonly internal: Endpoint;
  /** What the server assigned; undefined while it holds nothing. */
  readonly external: Endpoint | undefined;
  /** The peer of an outbound mapping. */
  readonly remote?: Endpoint;
  /** What the server granted, seconds; what is asked for while it holds nothing. */
  readonly lifetimeSeconds: number;
  /** When it ends unless renewed. */
  readonly expiresAt: Instant | undefined;
  /** The server's address in use. */
  readonly server: Endpoint;
  /** The key to renewing and deleting it; a copy. */
  readonly nonce: Uint8Array;
  /** Where it stands. */
  readonly state: MappingState;
  /** How many times the request in flight was sent. */
  readonly attempt: number;
  /** The text as the server stored it; absent where it stored none. */
  readonly description?: string;
  /** The set the server mapped; absent for a single port. */
  readonly portSet?: GrantedPortSet;
}

/** What a {@linkcode PcpClient} tells. */
export type PcpEvent =
  /** What becomes of a mapping, and that the server's epoch tells of lost state. */
  | LeaseEvent<PcpMapping>
  /** The answer to `announce`. */
  | { readonly type: "announced"; readonly epochSeconds: number }
  /** `announce` came to nothing. */
  | { readonly type: "announce-failed"; readonly failure: Failure }
  /** Another of the server's addresses answered. */
  | { readonly type: "server-changed"; readonly server: Endpoint };

/** Why a datagram was not taken. */
export type DropReason =
  | "wrong-source"
  | "other-address"
  | "too-short"
  | "not-a-request"
  | "not-a-response"
  | "wrong-version"
  | "bad-length"
  | "bad-options"
  | "unmatched"
  | "wrong-nonce"
  | "stale"
  | "violation";

/** Counters of a {@linkcode PcpClient}. */
export interface PcpClientStats {
  /** Requests queued, by kind; retransmissions included. */
  readonly sent: { map: number; peer: number; delete: number; announce: number };
  /** How many of `sent` were the same bytes again. */
  retransmitted: number;
  /** Answers taken. */
  received: number;
  /** Successes that granted something. */
  granted: number;
  /** Refusals by result code. */
  refused: number;
  /** Epochs that told of lost state. */
  restarts: number;
  /** Datagrams not taken, by reason. */
  readonly dropped: Record<DropReason, number>;
}

/** RFC 7488's maximum of requests to each of several addresses. */
const ATTEMPTS_PER_ADDRESS = 4;
/** How many deletions are sent before the lease is left to its end. */
const DELETE_ATTEMPTS = 4;
/** Likewise to a server that may not be there: within 3 s, one lost datagram or two do no harm. */
const FIRST_DELETE_ATTEMPTS = 3;
/** How long a server whose success cannot be one is left alone, milliseconds. */
const VIOLATION_WAIT_MS = 30_000;

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
export class PcpClient extends LeaseClient<PcpMapping, PcpEvent> implements Machine<PcpEvent> {
  /** The name of the protocol. */
  readonly via = "pcp" as const;
  /** Counters. */
  readonly stats: PcpClientStats = newStats();
  readonly #random: RandomSource;
  readonly #fastStart: boolean;
  readonly #maxAttempts: number;
  readonly #servers: ServerList;
  /** @internal */
  protected override readonly keeper: LeaseKeeper<Request, PcpMapping>;
  readonly #announce: Announce;
  /** When requests are sent again; those of leases without one in flight are the keeper's. */
  readonly #requests: DeadlineHeap<Request> = new DeadlineHeap();
  /** Leases whose options that need padding are left out, since the server could not read them. */
  readonly #leavesOutPadded: Set<MappingId> = new Set();
  #localAddress: string;
  /** Whose refusal keeps anything new from being asked for (PCP-C-42). */
  #noResources: (Failure & { kind: "refused" }) | undefined;
  /** The external address of the last grant. */
  #lastAddress = "";
  #nonces = 0;

  /**
   * Makes the client; mappings of `options.state` are asked for at the first timeout.
   *
   * @throws {TypeError | RangeError} At the first option that is wrong, with its name and value.
   */
  constructor(options: PcpClientOptions) {
    super();
    const { servers, random } = options;
    if (!Array.isArray(servers) || servers.length === 0) {
      throw new TypeError(`'servers' must list at least one address: current value is ${servers}`);
    }
    this.#servers = new ServerList(servers.map((server: Endpoint) => ({
      address: checkAddress("servers.address", server?.address),
      port: checkPort("servers.port", server?.port),
    })));
    this.#localAddress = checkAddress("localAddress", options.localAddress);
    this.#random = random;
    this.#fastStart = checkBoolean("fastStart", options.fastStart ?? true);
    this.#maxAttempts = checkInteger(
      "maxAttempts",
      options.maxAttempts ?? (servers.length > 1 ? ATTEMPTS_PER_ADDRESS : 0),
      0,
      Number.MAX_SAFE_INTEGER,
    );
    this.#announce = new Announce(random, this.#fastStart, this.#maxAttempts);
    this.keeper = new LeaseKeeper(this.wire, random, this.outbox);
    this.adopt(options.state);
  }

  // ---- Commands ----------------------------------------------------------------------------

  /**
   * Asks for an outbound mapping: a flow to one peer, held open without traffic.
   *
   * @returns The id by which events name it.
   * @throws {TypeError | RangeError} As {@linkcode PcpClient.map}.
   */
  peer(request: PcpPeerRequest, now: Instant): MappingId {
    // A peer that is not named is a mistake, not an inbound mapping.
    return this.map({ ...request, remote: request.remote ?? null as unknown as Endpoint }, now);
  }

  /**
   * Asks the server for its epoch by ANNOUNCE, which changes nothing there (PCP-C-50): `announced` or
   * `announce-failed` follows.
   */
  probe(now: Instant): void {
    this.begin(now);
    if (this.#announce.isInFlight) return;
    this.#announce.begin(this.#localAddress);
    this.#sendAnnounce(now);
  }

  /** Takes the ANNOUNCE back. */
  endProbe(now: Instant): void {
    this.begin(now);
    this.#endAnnounce();
  }

  /**
   * The host has another address, or is in another network: every mapping is asked for from there,
   * at once and whatever was refused before (PCP-C-23, PCP-C-24). Deleting what the old address had
   * is RECOMMENDED, but a request must leave from the address it names, and that one is gone: what
   * it had ends with its lifetime. Who knows of the change beforehand revokes beforehand.
   *
   * @throws {TypeError} Where it is not an address.
   */
  networkChanged(localAddress: string, now: Instant): void {
    const address = checkAddress("localAddress", localAddress);
    this.begin(now);
    this.#localAddress = address;
    this.#servers.reset();
    this.#noResources = undefined;
    this.keeper.hostMoved(now);
    if (!this.#announce.isInFlight) return;
    this.#forget(this.#announce.request);
    this.#announce.begin(address);
    this.#sendAnnounce(now);
  }

  // ---- What it holds -----------------------------------------------------------------------

  /** The nonce of a mapping, 24 hexadecimal digits; undefined where it is over. */
  nonceOf(id: MappingId): string | undefined {
    return this.keeper.get(id)?.nonce;
  }

  /**
   * False as long as the server cannot know a mapping's nonce: the request waits until there is room
   * (PCP-C-42), and has never left. Who asks for the mapping by another client needs another nonce.
   */
  hasAsked(id: MappingId): boolean {
    return this.keeper.get(id)?.isNonceKnown ?? true;
  }

  /** How many nonces of its own choice requests have left with, or are about to. */
  get nonces(): number {
    return this.#nonces;
  }

  // ---- Input -------------------------------------------------------------------------------

  /** Feeds a datagram of the client's socket or of the one that hears announcements. */
  handleDatagram(data: Uint8Array, from: Endpoint, _socket: string, now: Instant): boolean {
    this.begin(now);
    const source = this.#servers.match(from);
    if (source === undefined) return this.#drop("wrong-source");
    // RFC 7488 §3(4): late answers of an address that was given up are ignored.
    if (source === "other") return this.#drop("other-address");
    const response = decodeResponse(data);
    if (typeof response === "string") return this.#drop(response);
    if (response.kind === "unsupported-version") return this.#handleVersion(response, data, now);
    if (response.kind === "announce") return this.#handleAnnounce(response, now);
    if (isMappingResponse(response)) return this.#handleMapping(response, data, now);
    // An opcode that was never asked; RFC 7652's server speaks up unasked.
    return this.#drop("unmatched");
  }

  /** ICMP: nothing listens at `to`. With several addresses the next is tried at once. */
  handleUnreachable(to: Endpoint, _socket: string, now: Instant): void {
    this.begin(now);
    if (this.#servers.match(to) !== "current") return;
    const failure: Failure = { kind: "unreachable" };
    const inFlight = this.#inFlight();
    if (inFlight.length === 0 && !this.#announce.isInFlight) return;
    if (this.#servers.size > 1) return this.#exhaust(failure, now);
    this.#failAnnounce(failure);
    // A renewal is one datagram: the next one leaves in its time.
    for (const lease of inFlight) {
      if (lease.phase !== "renewing") this.keeper.failed(lease, failure, undefined, now);
    }
  }

  // ---- Answers -----------------------------------------------------------------------------

  /**
   * The server does not speak our version: what is in flight and what it can answer comes to nothing
   * (PCP-C-13, PCP-C-27, PCP-C-28).
   */
  #handleVersion(response: PcpUnsupportedVersion, data: Uint8Array, now: Instant): boolean {
    const { version } = response;
    const failure: Failure = { kind: "unsupported-version", version };
    const retryAt = now + versionRefusalMs(response.lifetimeSeconds);
    // RFC 6886's figure has no response bit and no opcode: it answers whatever was asked.
    const names = version !== 0 || (data[1]! & 0x80) !== 0 ? response.opcode : undefined;
    // A copy of the request brings its nonce back; only what is shorter speaks to all.
    const isCopy = version !== 0 && data.length >= PCP_NONCE_OFFSET + PCP_NONCE_LENGTH;
    const nonce = isCopy ? nonceOf(data) : undefined;
    let isTaken = false;
    if (this.#announce.isInFlight && (names === undefined || names === PCP_OPCODE.ANNOUNCE)) {
      this.#failAnnounce(failure);
      isTaken = true;
    }
    for (const lease of this.#inFlight()) {
      const opcode = PCP_OPCODE[lease.wanted.kind === "map" ? "MAP" : "PEER"];
      if (names !== undefined && names !== opcode) continue;
      if (nonce !== undefined && lease.nonce !== nonce) continue;
      isTaken = this.keeper.failed(lease, failure, retryAt, now) || isTaken;
    }
    if (!isTaken) return this.#drop("unmatched");
    this.stats.received++;
    return true;
  }

  #handleAnnounce(response: PcpAnnounceResponse, now: Instant): boolean {
    const { resultCode, epochSeconds, lifetimeSeconds } = response;
    const isAsked = this.#announce.isInFlight;
    if (resultCode !== PCP_RESULT.SUCCESS && !isAsked) return this.#drop("unmatched");
    const isFirst = !this.#servers.epoch.isKnown;
    const isNewTable = this.#answered(epochSeconds, undefined, now);
    if (isFirst) this.#wake(undefined, now);
    if (!isAsked) {
      if (!isNewTable) this.keeper.epochAnnounced(epochSeconds, now);
      return true;
    }
    if (resultCode !== PCP_RESULT.SUCCESS) {
      this.#failAnnounce(refusal(resultCode, now + refusalMs(lifetimeSeconds)));
    } else {
      this.#endAnnounce();
      this.outbox.emit({ type: "announced", epochSeconds }, "announced");
    }
    return true;
  }

  #handleMapping(response: MappingResponse, data: Uint8Array, now: Instant): boolean {
    const lease = this.#match(answeredKey(response), nonceOf(data));
    if (typeof lease === "string") return this.#drop(lease);
    this.#answered(response.epochSeconds, lease, now);
    // Nothing is kept of `data`: what a lease takes over are numbers and text.
    return response.resultCode === PCP_RESULT.SUCCESS
      ? this.#succeed(lease, response, now)
      : this.#refuse(lease, response.resultCode, response.lifetimeSeconds, now);
  }

  /** The lease of that key whose nonce stands in the packet. */
  #match(key: MappingKey, nonce: string): PcpLease | "unmatched" | "wrong-nonce" {
    const wanted = this.keeper.find(key), leaving = this.keeper.findLeaving(key);
    // One that waits for its predecessor's deletion has asked for nothing, nonce or not.
    if (leaving?.nonce === nonce) return leaving;
    if (wanted?.nonce === nonce) return wanted;
    return wanted || leaving ? "wrong-nonce" : "unmatched";
  }

  /** An answer that matched: the address works. True where its epoch tells of lost state. */
  #answered(epochSeconds: number, lease: PcpLease | undefined, now: Instant): boolean {
    this.stats.received++;
    if (this.#servers.answered()) {
      this.outbox.emit({ type: "server-changed", server: this.#servers.current }, "server");
    }
    if (this.#servers.epoch.check(epochSeconds, now)) return false;
    // What a server without its table had no room for, it may have room for.
    this.#noResources = undefined;
    this.restarted(lease);
    this.#wake(lease, now);
    return true;
  }

  /** The server is there: what would wait for long leaves within 5 s, but for what it answers. */
  #wake(answered: PcpLease | undefined, now: Instant): void {
    this.keeper.gatewayAnswers(answered, now);
    for (const lease of this.#inFlight()) {
      if (lease === answered) continue;
      if (lease.phase === "asking" && lease.request!.armedAt > now + RECREATION_DELAY_MS) {
        this.keeper.hasten(lease, now);
      }
    }
  }

  /** Takes a success. False where it says nothing about the lease as it stands. */
  #succeed(lease: PcpLease, response: MappingResponse, now: Instant): boolean {
    if (lease.phase === "deleting") {
      if (!confirmsDeletion(response, lease.wanted)) return this.#drop("stale");
      this.keeper.deleted(lease, undefined, now);
      return true;
    }
    if (response.lifetimeSeconds === 0) {
      if (!lease.isGranted) return this.#violates(lease, "D-07", now);
      this.keeper.gone(lease, { kind: "expired" }, undefined, now);
      return true;
    }
    const grant = grantOf(response, lease, this.#localAddress);
    if (!grant) return this.#violates(lease, "D-08", now);
    if (!keepsPromise(lease.wanted, grant.external)) return this.#breaksPromise(lease, now);
    this.stats.granted++;
    this.keeper.granted(lease, { ...grant, external: this.#share(grant.external, lease) }, now);
    return true;
  }

  /** The endpoint with text that others hold already: ten thousand mappings have one address. */
  #share(external: Endpoint, { remembered }: PcpLease): Endpoint {
    if (remembered && isSameEndpoint(remembered, external)) return remembered;
    if (this.#lastAddress !== external.address) this.#lastAddress = external.address;
    return { address: this.#lastAddress, port: external.port };
  }

  /** A success that cannot be one: nothing where a grant is running, else the request failed. */
  #violates(lease: PcpLease, clause: string, now: Instant): boolean {
    if (lease.isGranted) return this.#drop("violation");
    if (lease.phase !== "asking") return this.#drop("stale");
    const failure: Failure = { kind: "protocol-violation", clause };
    return this.keeper.failed(lease, failure, now + VIOLATION_WAIT_MS, now);
  }

  /**
   * A success with another endpoint than PREFER_FAILURE asked for. The RFC knows one reason, the
   * Mapping Update of a predecessor (§13.2), and a nonce of one's own rules that out; miniupnpd 2.3.1
   * knows another: it does so for a port in use. What it made is taken back.
   */
  #breaksPromise(lease: PcpLease, now: Instant): boolean {
    const clause = "PCP-C-48";
    if (lease.phase !== "asking" && !lease.isGranted) return this.#drop("stale");
    // Once, and without waiting for an answer.
    this.stats.sent.delete++;
    const data = deletionOf(lease, this.#localAddress, this.#leavesOutPadded.has(lease.id));
    this.outbox.send("client", this.#servers.current, data);
    if (!lease.isGranted) return this.#violates(lease, clause, now);
    const failure: Failure = { kind: "protocol-violation", clause };
    this.keeper.gone(lease, failure, now + VIOLATION_WAIT_MS, now);
    return true;
  }

  /** Takes a refusal. False where nothing was asked that it could answer. */
  #refuse(lease: PcpLease, code: number, lifetimeSeconds: number, now: Instant): boolean {
    const retryAt = now + refusalMs(lifetimeSeconds);
    const failure = refusal(code, retryAt);
    const isDeletion = lease.phase === "deleting";
    if (lease.request && this.#isMended(lease, code, now)) {
      this.stats.refused++;
      return true;
    }
    // miniupnpd 2.3.1 answers NO_RESOURCES where there is nothing to delete, which is what was
    // wanted; of what it granted, it says that it stays.
    const isNothing = isDeletion && code === PCP_RESULT.NO_RESOURCES && !lease.grant;
    if (isNothing) this.keeper.deleted(lease, undefined, now);
    else if (!this.keeper.failed(lease, failure, retryAt, now)) return this.#drop("stale");
    this.stats.refused++;
    // PCP-C-42. A deletion is no reason to leave the server alone: others' requests go on.
    if (code === PCP_RESULT.NO_RESOURCES && !isDeletion) {
      const until = this.#noResources?.retryAt ?? -Infinity;
      if (retryAt > until) this.#noResources = failure;
    }
    return true;
  }

  /** Asks once more where another request may do: without what was refused and is not needed. */
  #isMended(lease: PcpLease, code: number, now: Instant): boolean {
    if (code === PCP_RESULT.MALFORMED_OPTION) {
      // miniupnpd 2.3.1 takes options with padding for malformed.
      if (this.#leavesOutPadded.has(lease.id) || !hasPaddedOptions(lease.wanted)) return false;
      this.#leavesOutPadded.add(lease.id);
    } else if (code === PCP_RESULT.CANNOT_PROVIDE_EXTERNAL) {
      // What was learnt is a suggestion, and the server's address may be another one by now.
      if (!lease.remembered || lease.phase === "deleting" || lease.wanted.preferFailure) {
        return false;
      }
      lease.remembered = undefined;
    } else return false;
    this.keeper.askAgain(lease, now);
    return true;
  }

  // ---- Requests ----------------------------------------------------------------------------

  /** @internal */
  protected override readonly wire: ClientWire<Request, PcpMapping> = {
    gatewayAddress: () => this.#servers.current.address,
    localAddress: () => this.#localAddress,
    misfit: (wanted) => misfitOf(wanted, this.#localAddress),
    nonces: { read: checkNonce, make: () => this.#newNonce() },
    isAsking: () => this.#announce.isInFlight,
    endQuestions: () => this.#endAnnounce(),
    handleTimeout: (now) => {
      const requests = this.#requests;
      for (let due = requests.popDue(now); due; due = requests.popDue(now)) {
        if (due.owner === ANNOUNCE) this.#announceDue(now);
        else this.#requestDue(this.keeper.get(due.owner)!, now);
      }
    },
    deadlines: () => {
      const { first } = this.#requests;
      if (!first) return [];
      const what = first.owner === ANNOUNCE ? " ANNOUNCE" : `, mapping ${first.owner}`;
      return [{ at: first.armedAt, reason: `retransmit${what}` }];
    },
    recreation: "each",
    // PCP-C-45: what a PEER made ends by itself, like any outbound mapping.
    canDelete: (wanted) => wanted.kind === "map",
    renewalFraction: (attempt) => renewalFraction(attempt, this.#random),
    // The RFC's retransmission (PCP-C-09), but never within the gap that renewals keep (PCP-C-40).
    patienceMs: (previousMs = MIN_RENEWAL_GAP_MS / 2) =>
      Math.max(MIN_RENEWAL_GAP_MS, pcpRetransmissionTimeMs(previousMs, this.#random)),
    send: (lease, ask, now) => this.#send(lease, ask, now),
    cancel: (lease) => {
      const { request } = lease;
      this.#forget(request);
      // What has not left has made nothing: there is nothing to delete.
      const hasLeft = !this.outbox.unsend(lease.id);
      if (!hasLeft && request?.before) Object.assign(lease, request.before);
      lease.request = undefined;
      if (!this.keeper.get(lease.id)) this.#leavesOutPadded.delete(lease.id);
    },
    blockedUntil: () =>
      this.#noResources && { until: this.#noResources.retryAt, failure: this.#noResources },
    snapshot: (lease) => {
      const { wanted, grant, isGranted, request } = lease;
      const { description, portSet } = grant ?? {};
      return {
        id: lease.id,
        kind: wanted.kind,
        protocol: wanted.protocol,
        internal: {
          address: wanted.thirdParty ?? this.#localAddress,
          port: wanted.internalPort,
        },
        external: isGranted ? grant!.external : undefined,
        ...(wanted.remote && { remote: wanted.remote }),
        lifetimeSeconds: isGranted ? grant!.lifetimeSeconds : lease.lifetimeSeconds,
        expiresAt: lease.expiresAt,
        server: this.#servers.current,
        nonce: fromHex(lease.nonce!),
        state: lease.state(request?.sends ?? 0),
        attempt: request?.sends ?? 0,
        ...(isGranted && description !== undefined && { description }),
        ...(isGranted && portSet && { portSet }),
      };
    },
  };

  #send(lease: PcpLease, ask: Ask, now: Instant): void {
    const { request } = lease;
    const isSameSeries = ask === "renew" && request && !request.retransmission &&
      lease.sentRevision === lease.revision;
    if (!isSameSeries) {
      const leavesOutPadded = this.#leavesOutPadded.has(lease.id);
      this.#forget(request);
      lease.request = new Request(
        lease.id,
        ask === "delete"
          ? deletionOf(lease, this.#localAddress, leavesOutPadded)
          : requestOf(lease, this.#localAddress, leavesOutPadded, now),
        ask === "renew" ? undefined : this.#newSchedule(ask),
      );
    } else if (this.#isExhausted(request)) {
      return this.#exhaust({ kind: "no-answer" }, now);
    }
    this.#transmit(lease, now);
  }

  /** A request is over, or begins anew. */
  #forget(request: Request | undefined): void {
    if (request) this.#requests.delete(request);
  }

  #newSchedule(ask: Ask): Retransmission {
    return new Retransmission(this.#fastStart && ask !== "recreate");
  }

  #transmit(lease: PcpLease, now: Instant): void {
    const request = lease.request!;
    const { sent } = this.stats;
    if (request.sends++ > 0) this.stats.retransmitted++;
    if (lease.phase === "deleting") sent.delete++;
    else {
      sent[lease.wanted.kind]++;
      this.#servers.wasAsked = true;
      const { mayExistUntil, isNonceKnown } = lease;
      request.before = { mayExistUntil, isNonceKnown };
      lease.mayExistUntil = Math.max(mayExistUntil, now + lease.lifetimeSeconds * 1000);
      if (!isNonceKnown) this.#nonces++;
      lease.isNonceKnown = true;
    }
    this.outbox.send("client", this.#servers.current, request.packet, lease.id);
    const { retransmission } = request;
    if (retransmission) {
      this.#requests.set(request, retransmission.next(this.#random, now));
    }
  }

  #requestDue(lease: PcpLease, now: Instant): void {
    const request = lease.request!;
    if (lease.phase === "deleting") {
      if (request.sends < this.#deleteAttempts()) return this.#transmit(lease, now);
      this.#servers.wasAsked = true;
      this.keeper.deleted(lease, { kind: "no-answer" }, now);
    } else if (this.#isExhausted(request)) this.#exhaust({ kind: "no-answer" }, now);
    else this.#transmit(lease, now);
  }

  /** One that has left unanswered what it was asked for is told, and not waited for. */
  #deleteAttempts(): number {
    if (this.#servers.hasAnswered) return DELETE_ATTEMPTS;
    return this.#servers.wasAsked ? 1 : FIRST_DELETE_ATTEMPTS;
  }

  #isExhausted(request: Request): boolean {
    return this.#maxAttempts > 0 && request.sends >= this.#maxAttempts;
  }

  /** The address in use is given up: the next one, or, where none is left, the end. */
  #exhaust(failure: Failure, now: Instant): void {
    const hasNext = this.#servers.exhaust();
    for (const lease of this.#inFlight()) {
      if (!hasNext) {
        this.keeper.failed(lease, failure, now + EXHAUSTED_WAIT_MS, now);
        continue;
      }
      const request = lease.request!;
      request.sends = 0;
      if (request.retransmission) {
        request.retransmission = this.#newSchedule(lease.isGranted ? "recreate" : "create");
      }
      this.#transmit(lease, now);
    }
    if (!this.#announce.isInFlight) return;
    if (!hasNext) return this.#failAnnounce(failure);
    this.#announce.beginAnew();
    this.#sendAnnounce(now);
  }

  /** The leases that wait for an answer. */
  #inFlight(): PcpLease[] {
    return this.keeper.all().filter(({ request }) => request !== undefined);
  }

  // ---- ANNOUNCE ----------------------------------------------------------------------------

  #sendAnnounce(now: Instant): void {
    const request = this.#announce.request!;
    this.stats.sent.announce++;
    this.outbox.send("client", this.#servers.current, request.packet, ANNOUNCE);
    this.#requests.set(request, this.#announce.sent(now));
  }

  #announceDue(now: Instant): void {
    const failure: Failure = { kind: "no-answer" };
    if (!this.#announce.isExhausted) this.#sendAnnounce(now);
    else if (this.#servers.size > 1) this.#exhaust(failure, now);
    else this.#failAnnounce(failure);
  }

  #failAnnounce(failure: Failure): void {
    if (!this.#announce.isInFlight) return;
    this.#endAnnounce();
    this.outbox.emit({ type: "announce-failed", failure }, "announce-failed");
  }

  #endAnnounce(): void {
    this.#forget(this.#announce.request);
    this.#announce.end();
    this.outbox.unsend(ANNOUNCE);
  }

  // ---- Small things ------------------------------------------------------------------------

  #newNonce(): string {
    const nonce = new Uint8Array(PCP_NONCE_LENGTH);
    this.#random.fill(nonce);
    return toHex(nonce);
  }

  #drop(reason: DropReason): false {
    this.stats.dropped[reason]++;
    return false;
  }
}

/** The nonce of a MAP or PEER message, or of a copy of one. */
function nonceOf(data: Uint8Array): string {
  return toHex(data.subarray(PCP_NONCE_OFFSET, PCP_NONCE_OFFSET + PCP_NONCE_LENGTH));
}

function newStats(): PcpClientStats {
  return {
    sent: { map: 0, peer: 0, delete: 0, announce: 0 },
    retransmitted: 0,
    received: 0,
    granted: 0,
    refused: 0,
    restarts: 0,
    dropped: {
      "wrong-source": 0,
      "other-address": 0,
      "too-short": 0,
      "not-a-request": 0,
      "not-a-response": 0,
      "wrong-version": 0,
      "bad-length": 0,
      "bad-options": 0,
      "unmatched": 0,
      "wrong-nonce": 0,
      "stale": 0,
      "violation": 0,
    },
  };
}
