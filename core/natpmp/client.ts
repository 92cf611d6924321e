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
 * the answer to the request on its way (exact port too; PMP-C-14, -35)? → what it comes to for that
 * job → else an announcement, if it is an address packet (PMP-C-15, -16; `address.ts`) → else
 * dropped.
 *
 * *A mapping* is a lease, and lives as `core/lease/keeper.ts` says: renewed at 1/2, 3/4, 7/8… of its
 * lifetime (PMP-C-22), recreated after one uniform delay of 0…5 s where the gateway's epoch
 * fell behind (PMP-C-28, -29), one by one and with the port that it had (PMP-C-23, -30).
 *
 * Once the application has asked for the external address, it is asked for again along with
 * renewals, since an announcement of its change may get lost.
 *
 * @module
 */
import { isSameEndpoint } from "../ip.ts";
import { LONG_REFUSAL_MS, RECREATION_DELAY_MS, SHORT_REFUSAL_MS } from "../backoff.ts";
import { checkAddress, checkChoice, checkPort } from "../check.ts";
import { mayBeOf } from "../cidr.ts";
import { type ClientWire, LeaseClient, type LeaseEvent, misfitOfPort } from "../lease/client.ts";
import { EpochRecord } from "../lease/epoch.ts";
import { type Ask, LeaseKeeper } from "../lease/keeper.ts";
import { protocolName, type SavedState } from "../lease/saved.ts";
import type { Endpoint, Instant, Machine } from "../machine.ts";
import type { Failure, MappingId, MappingState, Transport } from "../mapping.ts";
import type { RandomSource } from "../random.ts";
import { Timers } from "../timers.ts";
import { type AddressEvent, ExternalAddress } from "./address.ts";
import { decodeResponse, NATPMP_RESULT, type NatPmpResponse, natPmpResultName } from "./codec.ts";
import { isSameTable } from "./epoch.ts";
import { EXCHANGE_TIMER, isAnswer, type Job, type NatPmpLease, RequestQueue } from "./queue.ts";

/** How a NAT-PMP client is made. */
export interface NatPmpClientOptions {
  /** The gateway: IPv4, port 5351 on a real one. */
  readonly gateway: Endpoint;
  /** Spreads recreations after a gateway's restart. */
  readonly random: RandomSource;
  /** What an earlier client exported: its mappings are asked for again, with their ports. */
  readonly state?: SavedState;
}

/** A mapping as it stands. */
export interface NatPmpMapping {
  /** Names it within its client. */
  readonly id: MappingId;
  /** Which transport. */
  readonly protocol: Transport;
  /** The port on this host. */
  readonly internalPort: number;
  /** The port that the gateway gave; 0 before. */
  readonly externalPort: number;
  /** The gateway's external address, where the client has learnt it. */
  readonly externalAddress: string | undefined;
  /** Both of them, where the gateway holds the mapping and its address is known. */
  readonly external: Endpoint | undefined;
  /** The lifetime granted last; before a grant the one asked for. Seconds. */
  readonly lifetimeSeconds: number;
  /** When the last grant ends; undefined where there is none. */
  readonly expiresAt: Instant | undefined;
  /** Where it stands. */
  readonly state: MappingState;
  /** How often the request on its way was sent; 0: none is. */
  readonly attempt: number;
}

/** What a NAT-PMP client tells. */
export type NatPmpEvent =
  /** What becomes of a mapping, and that the gateway lost them all. */
  | LeaseEvent<NatPmpMapping>
  /** The external address, or why there is none. */
  | AddressEvent
  /** The deletion of all mappings of a protocol was answered, or given up. */
  | { readonly type: "all-unmapped"; readonly protocol: Transport; readonly failure?: Failure };

/** What a client counted. */
export interface NatPmpClientStats {
  /** Requests sent, retransmissions not among them. */
  requests: number;
  /** Requests sent again. */
  retransmissions: number;
  /** Answers to our requests. */
  answers: number;
  /** Address packets that nobody here had asked for. */
  announcements: number;
  /** How often the gateway's epoch told that it lost its mappings. */
  restarts: number;
  /** What was dropped, by reason. */
  readonly dropped: {
    "wrong-source": number;
    "too-short": number;
    "not-a-response": number;
    "other-version": number;
    "unsolicited": number;
    "stale": number;
  };
}

/** The external address is not asked for again, unasked, while it is younger than this. */
const ADDRESS_AGE_MS = 60_000;

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
 * client.handleDatagram(answer, gateway, "client", 3);
 * console.assert(client.mapping(id)?.externalPort === 40123);
 * console.assert(client.poll()?.type === "event" && client.nextTimeout() === 3 + 1_800_000);
 * ```
 */
export class NatPmpClient extends LeaseClient<NatPmpMapping, NatPmpEvent>
  implements Machine<NatPmpEvent> {
  /** The name of the protocol. */
  readonly via = "nat-pmp" as const;
  /** Counters. */
  readonly stats: NatPmpClientStats = {
    requests: 0,
    retransmissions: 0,
    answers: 0,
    announcements: 0,
    restarts: 0,
    dropped: {
      "wrong-source": 0,
      "too-short": 0,
      "not-a-response": 0,
      "other-version": 0,
      "unsolicited": 0,
      "stale": 0,
    },
  };
  readonly #gateway: Endpoint;
  readonly #random: RandomSource;
  /** The exchange's own; those of mappings are the keeper's. */
  readonly #timers = new Timers<string>();
  readonly #epoch = new EpochRecord(isSameTable);
  readonly #queue: RequestQueue;
  /** @internal */
  protected override readonly keeper: LeaseKeeper<Job, NatPmpMapping>;
  readonly #address: ExternalAddress;

  /**
   * Makes a client; with `state` the mappings of an earlier one are asked for at the first timeout.
   *
   * @throws {TypeError | RangeError} Where the gateway is not an IPv4 endpoint (IPv6 is PCP's,
   * PMP-C-34), or the state is not one.
   */
  constructor(options: NatPmpClientOptions) {
    super();
    this.#gateway = {
      address: checkAddress("gateway.address", options.gateway?.address, 4),
      port: checkPort("gateway.port", options.gateway?.port),
    };
    this.#random = options.random;
    this.#queue = new RequestQueue(this.#timers, (data, isRetransmission) => {
      if (isRetransmission) this.stats.retransmissions++;
      else this.stats.requests++;
      this.outbox.send("client", this.#gateway, data, "request");
    }, () => this.outbox.unsend("request"));
    this.keeper = new LeaseKeeper(this.wire, options.random, this.outbox);
    this.#address = new ExternalAddress(
      this.#queue,
      (event) => this.outbox.emit(event, "address"),
    );
    this.adopt(options.state);
  }

  // ---- Commands ----------------------------------------------------------------------------

  /**
   * Asks for the external address, which changes nothing at the gateway: `external-address` or
   * `external-address-failed` follows. From then on the address is kept true.
   */
  probe(now: Instant): void {
    this.begin(now);
    this.#address.ask(this.now);
    this.#queue.advance(this.now);
  }

  /** Takes the question for the external address back, and repeats it no more. */
  endProbe(now: Instant): void {
    this.begin(now);
    this.#address.cancel();
    this.#queue.advance(this.now);
  }

  /**
   * Deletes all mappings of a protocol that this host has at the gateway, other programs' among
   * them; `all-unmapped` follows.
   *
   * @throws {TypeError} Where it is neither "tcp" nor "udp".
   */
  revokeAll(protocol: Transport, now: Instant): void {
    checkChoice("protocol", protocol, ["udp", "tcp"]);
    this.begin(now);
    for (const lease of this.keeper.wanted()) {
      if (protocolName(lease.wanted.protocol) === protocol) {
        this.keeper.revoke(lease, this.now, "with others");
      }
    }
    this.#queue.add({ kind: "delete-all", protocol, queuedAt: this.now });
    this.#queue.advance(this.now);
  }

  /** This host has another address towards the gateway: all mappings are asked for from there. */
  networkChanged(_localAddress: string, now: Instant): void {
    this.begin(now);
    // First the address, so that mappings carry it.
    this.#address.refresh(RECREATION_DELAY_MS, this.now);
    this.keeper.hostMoved(this.now);
    this.#queue.advance(this.now);
  }

  // ---- Input -------------------------------------------------------------------------------

  /** Feeds one datagram; true where it belongs to NAT-PMP and comes from the gateway. */
  handleDatagram(data: Uint8Array, from: Endpoint, _socket: string, now: Instant): boolean {
    if (!mayBeOf(this.#gateway, from)) return this.#dropped("wrong-source");
    const response = decodeResponse(data);
    if (typeof response === "string") return this.#dropped(response);
    // An announcement may come from any port (RFC 6886 checks its address alone), an answer not.
    const isFromServer = from.port === this.#gateway.port;
    if (!isFromServer && response.kind !== "address") return this.#dropped("wrong-source");

    this.begin(now);
    const job = this.#queue.current;
    const isOurs = job !== undefined && isFromServer && isAnswer(response, job);
    const isOtherVersion = response.kind === "unsupported-version" && response.version !== 0;
    if (isOtherVersion && !isOurs) return this.#dropped("unsolicited");
    this.#queue.isGatewaySilent = false;
    this.#hearEpoch(response, isOurs ? job : undefined);

    if (isOurs && this.#queue.isStaleAnswer(response, job, this.now)) {
      this.#dropped("stale");
    } else if (isOurs) {
      this.stats.answers++;
      this.#queue.end();
      this.#answered(job, response);
    } else if (response.kind === "address") {
      this.stats.announcements++;
      this.#hearAddress(response, false);
      this.#queue.hasten(this.now, RECREATION_DELAY_MS, this.#random);
      this.keeper.gatewayAnswers(undefined, this.now);
    } else {
      this.#dropped("unsolicited");
    }
    this.#queue.advance(this.now);
    return true;
  }

  /** ICMP says that nothing listens at the gateway's port: all that waits fails at once. */
  handleUnreachable(to: Endpoint, _socket: string, now: Instant): void {
    if (!isSameEndpoint(to, this.#gateway)) return;
    this.begin(now);
    for (const job of this.#queue.endAll()) this.#failed(job, { kind: "unreachable" });
    this.#queue.advance(this.now);
  }

  // ---- What the keeper asks for, and what it is told ---------------------------------------

  /** @internal */
  protected override readonly wire: ClientWire<Job, NatPmpMapping> = {
    gatewayAddress: () => this.#gateway.address,
    misfit: (wanted) => {
      const { preferFailure, filters } = wanted;
      const only = preferFailure ? "preferFailure" : filters.length > 0 ? "filters" : undefined;
      return misfitOfPort(wanted) ?? (only && `'${only}' is PCP's alone`);
    },
    isAsking: () => !this.#queue.isEmpty,
    endQuestions: () => this.#address.cancel(),
    handleTimeout: (now) => {
      if (this.#timers.popDue(now) !== EXCHANGE_TIMER) return;
      for (const job of this.#queue.waitOver(now)) this.#failed(job, { kind: "no-answer" });
    },
    deadlines: () => [this.#timers.next()],
    advance: () => this.#queue.advance(this.now),
    recreation: "together",
    canDelete: () => true,
    renewalFraction: (attempt) => 1 - 2 ** -attempt,
    send: (lease, ask, now) => this.#enqueue(lease, ask, now),
    cancel: (lease) => {
      if (lease.request) this.#queue.takeBack(lease.request);
      lease.request = undefined;
    },
    snapshot: (lease) => {
      const { grant, isGranted } = lease;
      // What a restarted gateway gives it is not known before it has.
      const address = (isGranted ? grant?.external.address : this.#address.known) || undefined;
      const port = grant?.external.port ?? 0;
      const attempt = this.#queue.sendsOf(lease.request);
      return {
        id: lease.id,
        protocol: protocolName(lease.wanted.protocol) as Transport,
        internalPort: lease.wanted.internalPort,
        externalPort: port,
        externalAddress: address,
        external: isGranted && address !== undefined ? { address, port } : undefined,
        lifetimeSeconds: grant?.lifetimeSeconds ?? lease.lifetimeSeconds,
        expiresAt: lease.expiresAt,
        state: lease.state(attempt),
        attempt,
      };
    },
  };

  #enqueue(lease: NatPmpLease, ask: Ask, now: Instant): void {
    const { request } = lease;
    // One that is on its way goes on: the answer to another would look the same.
    if (request?.kind === "map" && ask !== "delete") return;
    // First the address, so that what is recreated carries it.
    if (ask === "recreate") this.#address.refresh(RECREATION_DELAY_MS, now);
    const job: Job = { kind: ask === "delete" ? "delete" : "map", lease, queuedAt: now };
    lease.request = job;
    this.#queue.add(job);
    if (ask === "renew") this.#address.refresh(ADDRESS_AGE_MS, now);
  }

  #answered(job: Job, response: NatPmpResponse): void {
    const failure = failureOf(response, this.now);
    if (failure) return this.#failed(job, failure);
    if (job.kind === "address") {
      if (response.kind === "address") this.#hearAddress(response, !job.quiet);
    } else if (job.kind === "delete") {
      job.lease.request = undefined;
      this.keeper.deleted(job.lease, undefined, this.now);
    } else if (job.kind === "delete-all") this.#allUnmapped(job, undefined);
    else if (response.kind === "map") {
      job.lease.request = undefined;
      this.#granted(job.lease, response.externalPort, response.lifetimeSeconds);
    }
  }

  #granted(lease: NatPmpLease, port: number, lifetimeSeconds: number): void {
    const now = this.now;
    const violation: Failure = { kind: "protocol-violation", clause: "D-08" };
    // D-08: a success without a port is none.
    if (port === 0) this.keeper.failed(lease, violation, undefined, now);
    // D-07: a lifetime of 0 means that the mapping is gone, never that it lasts for ever.
    else if (lifetimeSeconds === 0) {
      this.keeper.gone(lease, { kind: "expired" }, undefined, now);
    } else {
      const external = { address: this.#address.known ?? "", port };
      this.keeper.granted(lease, { external, lifetimeSeconds }, now);
    }
  }

  /** A job came to nothing; that is fatal for it alone (PMP-C-27). */
  #failed(job: Job, failure: Failure): void {
    if (job.kind === "address") {
      if (!job.quiet) this.#address.failed(failure);
    } else if (job.kind === "delete-all") this.#allUnmapped(job, failure);
    else {
      job.lease.request = undefined;
      const retryAt = failure.kind === "refused" ? failure.retryAt : undefined;
      this.keeper.failed(job.lease, failure, retryAt, this.now);
    }
  }

  #allUnmapped({ protocol }: Job & { kind: "delete-all" }, failure: Failure | undefined): void {
    for (const lease of this.keeper.all()) {
      if (lease.phase !== "deleting" || lease.request) continue;
      if (protocolName(lease.wanted.protocol) === protocol) {
        this.keeper.deleted(lease, failure, this.now);
      }
    }
    const event = { type: "all-unmapped", protocol } as const;
    this.outbox.emit(failure ? { ...event, failure } : event, protocol);
  }

  #hearAddress(response: NatPmpResponse & { kind: "address" }, isAsked: boolean): void {
    if (!this.#address.heard(response, isAsked, this.now)) return;
    this.keeper.externalAddressChanged(this.#address.known!);
  }

  #hearEpoch(response: NatPmpResponse, answered: Job | undefined): void {
    const { epochSeconds } = response;
    if (epochSeconds === undefined) return;
    if (!this.#epoch.check(epochSeconds, this.now)) {
      this.restarted(answered?.kind === "map" ? answered.lease : undefined);
    } else if (!answered) this.keeper.epochAnnounced(epochSeconds, this.now);
  }

  // ---- Small things ------------------------------------------------------------------------

  #dropped(reason: keyof NatPmpClientStats["dropped"]): false {
    this.stats.dropped[reason]++;
    return false;
  }
}

/** What an answer says went wrong; undefined where it is a success. */
function failureOf(response: NatPmpResponse, now: Instant): Failure | undefined {
  if (response.kind === "unsupported-version") {
    return { kind: "unsupported-version", version: response.version };
  }
  const code = response.resultCode;
  if (code === NATPMP_RESULT.SUCCESS) return undefined;
  // RFC 6886 names no times.
  const isShort = code === NATPMP_RESULT.NETWORK_FAILURE || code === NATPMP_RESULT.OUT_OF_RESOURCES;
  const retryAt = now + (isShort ? SHORT_REFUSAL_MS : LONG_REFUSAL_MS);
  return { kind: "refused", code, name: natPmpResultName(code), retryAt };
}
