/**
 * One mapping of a client: what is wanted, what was granted, and where its request stands. Plain
 * bookkeeping; what moves it is in `engine.ts`.
 *
 * @module
 */
import { copyBytes } from "../bytes.ts";
import { MAX_SCHEDULED_LIFETIME_SECONDS } from "../backoff.ts";
import type { Endpoint, Instant } from "../machine.ts";
import type { MappingId, MappingState } from "../mapping.ts";
import { buildRequest, type Wish } from "./request.ts";
import { RenewalPlan, type Retransmission } from "./retransmit.ts";
import type { GrantedPortSet, PcpMapping } from "./types.ts";

/**
 * Where the request of a lease stands:
 *
 * - `waiting`: not sent yet (adopted, or a predecessor is still being deleted)
 * - `asking`: on its way at the pace of `Retransmission`, for a lease to be made or made again
 * - `granted`: nothing on its way
 * - `renewing`: a renewal is on its way, at the pace of `RenewalPlan`
 * - `recovering`: the server lost its state; asking begins within 5 s
 * - `held`: refused or unanswered; asked again when the hold time is over
 * - `deleting`: the deletion is on its way
 */
export type Phase =
  | "waiting"
  | "asking"
  | "granted"
  | "renewing"
  | "recovering"
  | "held"
  | "deleting";

/** A mapping of a client. */
export class Lease {
  readonly id: MappingId;
  readonly key: string;
  wish: Wish;
  readonly nonce: Uint8Array;
  /** Comes from exported state, and the application has not asked for it yet. */
  isAdopted = false;
  /** What to ask for, seconds. */
  lifetimeSeconds: number;
  phase: Phase = "waiting";
  /** Whether the server may hold it: then a revocation has something to delete. */
  mayExist: boolean;
  /** When it is wanted no longer; Infinity: never, or unknown before it is granted (again). */
  wantedUntil: Instant = Infinity;

  /** What the server assigned last; it outlives the grant, as the suggestion of the next. */
  external: Endpoint | undefined;
  /** What the application was told last. */
  told: Endpoint | undefined;
  grantedAt: Instant = 0;
  grantedSeconds = 0;
  /** Undefined while the server holds nothing. */
  expiresAt: Instant | undefined;
  /** Whether the application was told that it is lost, and not yet that it is back. */
  isLost = false;
  /** Whether the application was told of the failure that the present asking is about. */
  isFailed = false;
  description: string | undefined;
  portSet: GrantedPortSet | undefined;

  /** The request in flight: kept, since a retransmission is the same bytes. */
  packet: Uint8Array | undefined;
  retransmission: Retransmission | undefined;
  readonly plan: RenewalPlan = new RenewalPlan();
  renewalAttempt = 0;
  /** Whether it is held because nobody answered, not because it was refused. */
  isUnanswered = false;
  /** Whether options that need padding are left out, since the server could not read them. */
  leavesOutPadded = false;
  /** When the request has to do something next; the end of the grant is not in it. */
  dueAt: Instant | undefined;

  constructor(
    id: MappingId,
    key: string,
    wish: Wish,
    nonce: Uint8Array,
    lifetimeSeconds: number,
    adopted: { external: Endpoint | undefined } | undefined,
  ) {
    this.id = id;
    this.key = key;
    this.wish = wish;
    this.nonce = nonce;
    this.lifetimeSeconds = lifetimeSeconds;
    this.mayExist = adopted !== undefined;
    this.external = adopted?.external;
  }

  /** Whether the server holds it, for all we know. */
  get isGranted(): boolean {
    return this.expiresAt !== undefined;
  }

  /** Whether a request or deletion has been sent and not been answered. */
  get isInFlight(): boolean {
    return this.phase === "asking" || this.phase === "renewing" || this.phase === "deleting";
  }

  /** Whether it is to be held without end. */
  get isKeptAlive(): boolean {
    return this.wish.mode === "keep-alive";
  }

  /** Through how many granted lifetimes it is wanted. */
  get lifetimes(): number {
    const { mode } = this.wish;
    return mode === "keep-alive" ? Infinity : mode === "once" ? 1 : mode;
  }

  /** Whether it is to outlive its present lifetime. */
  get wantsRenewal(): boolean {
    return (this.expiresAt ?? -Infinity) < this.wantedUntil;
  }

  /** What to ask for, seconds: the wish, or what is left of the time for which it is wanted. */
  lifetimeToAsk(now: Instant): number {
    const leftSeconds = Math.ceil((this.wantedUntil - now) / 1000);
    return Math.max(1, Math.min(this.lifetimeSeconds, leftSeconds));
  }

  /** How many times the request in flight was sent. */
  get attempt(): number {
    return this.phase === "renewing" ? this.renewalAttempt : this.retransmission?.attempt ?? 0;
  }

  /**
   * Notes a grant. Absurd lifetimes count as a day (PCP-C-21), unless more was asked for: then
   * what is granted is believed as far as it was asked.
   */
  grant(lifetimeSeconds: number, now: Instant): void {
    const believed = Math.max(MAX_SCHEDULED_LIFETIME_SECONDS, this.lifetimeSeconds);
    this.grantedAt = now;
    this.grantedSeconds = lifetimeSeconds;
    const lifetimeMs = Math.min(lifetimeSeconds, believed) * 1000;
    this.expiresAt = now + lifetimeMs;
    if (this.wantedUntil === Infinity) this.wantedUntil = now + this.lifetimes * lifetimeMs;
    this.phase = "granted";
    this.mayExist = true;
    this.clearRequest();
  }

  /** The length by which renewals are scheduled, milliseconds: never over a day. */
  get scheduledMs(): number {
    return Math.min(
      (this.expiresAt ?? this.grantedAt) - this.grantedAt,
      MAX_SCHEDULED_LIFETIME_SECONDS * 1000,
    );
  }

  /** Whole seconds that are left of the grant, at least 1. */
  remainingSeconds(now: Instant): number {
    return Math.max(1, Math.ceil(((this.expiresAt ?? now) - now) / 1000));
  }

  /** Forgets the request in flight. */
  clearRequest(): void {
    this.packet = undefined;
    this.retransmission = undefined;
    this.renewalAttempt = 0;
    this.dueAt = undefined;
  }

  /** Forgets the grant; what was assigned stays, as a suggestion. */
  clearGrant(): void {
    this.expiresAt = undefined;
    this.grantedSeconds = 0;
    this.description = undefined;
    this.portSet = undefined;
  }

  #state(): MappingState {
    switch (this.phase) {
      case "waiting":
        return "requested";
      case "deleting":
        return "revoked";
      case "held":
        return this.isGranted ? "running" : "error";
      case "asking":
        return this.isGranted ? "updating" : this.isFailed ? "error" : "starting";
      case "renewing":
        return "updating";
      case "recovering":
        return this.isGranted ? "updating" : "starting";
      case "granted":
        return "running";
    }
  }

  /** The mapping as it stands, as plain data. */
  snapshot(localAddress: string, server: Endpoint): PcpMapping {
    const { wish } = this;
    return {
      id: this.id,
      kind: wish.kind,
      protocol: wish.protocol,
      internal: { address: wish.thirdParty ?? localAddress, port: wish.internalPort },
      external: this.isGranted ? this.external : undefined,
      ...(wish.remote && { remote: wish.remote }),
      lifetimeSeconds: this.isGranted ? this.grantedSeconds : this.lifetimeSeconds,
      expiresAt: this.expiresAt,
      server,
      nonce: copyBytes(this.nonce),
      state: this.#state(),
      attempt: this.attempt,
      ...(this.description !== undefined && { description: this.description }),
      ...(this.portSet && { portSet: this.portSet }),
    };
  }
}

/** The bytes of what the lease asks for in its present phase. */
export function requestOf(lease: Lease, localAddress: string, now: Instant): Uint8Array {
  if (lease.phase === "deleting") return deletionOf(lease, localAddress);
  return buildRequest(lease.wish, {
    nonce: lease.nonce,
    lifetimeSeconds: lease.lifetimeToAsk(now),
    localAddress,
    external: lease.external,
    replacesFilters: lease.external !== undefined,
    leavesOutPadded: lease.leavesOutPadded,
  });
}

/** The bytes of the lease's deletion. */
export function deletionOf(lease: Lease, localAddress: string): Uint8Array {
  return buildRequest(lease.wish, {
    nonce: lease.nonce,
    lifetimeSeconds: 0,
    localAddress,
    external: undefined,
    replacesFilters: false,
    leavesOutPadded: lease.leavesOutPadded,
  });
}
