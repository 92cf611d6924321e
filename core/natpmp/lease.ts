/**
 * One mapping of a NAT-PMP client: what is wanted, what was granted, and when to renew.
 *
 * @module
 */
import { MAX_SCHEDULED_LIFETIME_SECONDS, MIN_RENEWAL_GAP_MS } from "../backoff.ts";
import type { Instant } from "../machine.ts";
import type { Failure, MappingId, MappingState, Transport } from "../mapping.ts";
import type { Job } from "./exchange.ts";
import type { Wish } from "./wish.ts";

/** A mapping's record. */
export interface Lease {
  readonly id: MappingId;
  readonly protocol: Transport;
  readonly internalPort: number;
  /** What to suggest: the port granted last, before that the application's wish. */
  externalPort: number;
  /** What to ask for. */
  lifetimeSeconds: number;
  /** Through how many granted lifetimes it is wanted; Infinity: until revoked. */
  lifetimes: number;
  /** When a mapping wanted for a time is wanted no longer; Infinity: unknown yet, or never. */
  wantedUntil: Instant;
  state: MappingState;
  /** The gateway has granted it, and that holds as far as we know. */
  isGranted: boolean;
  /** The gateway has granted it at least once. */
  wasMapped: boolean;
  /** The application has been told `mapped`, or is about to be. */
  isTold: boolean;
  /** The gateway lost its table, or comes back: to be asked for again after the random delay. */
  isStale: boolean;
  /** Comes from exported state and no `map` has asked for it yet. */
  isAdopted: boolean;
  grantedSeconds: number;
  expiresAt: Instant;
  /** Until when the gateway may hold it, by the requests that it may have got. */
  mayExistUntil: Instant;
  /** The last point of the renewal series: the grant, then 1/2, 3/4, 7/8… */
  renewedAt: Instant;
  /** When its last request left. */
  sentAt: Instant;
  /** Why the last request came to nothing. */
  failure: Failure | undefined;
  /** The external address that the application was told with it. */
  toldAddress: string | undefined;
  /** Its request that waits or is on its way. */
  job: Job | undefined;
}

/** What names a mapping at the gateway, as a key. */
export function portKey(port: { protocol: Transport; internalPort: number }): string {
  return `${port.protocol} ${port.internalPort}`;
}

/** A mapping that is wanted and not asked for yet. */
export function newLease(
  id: MappingId,
  wish: Wish,
): Lease {
  return {
    id,
    ...wish,
    wantedUntil: Infinity,
    state: "requested",
    isGranted: false,
    wasMapped: false,
    isTold: false,
    isStale: false,
    isAdopted: false,
    grantedSeconds: 0,
    expiresAt: 0,
    mayExistUntil: 0,
    renewedAt: 0,
    sentAt: -Infinity,
    failure: undefined,
    toldAddress: undefined,
    job: undefined,
  };
}

/** The lifetime to ask for: the wish, or what is left of the wanted time. */
export function lifetimeToAsk(lease: Lease, now: Instant): number {
  const leftSeconds = Math.ceil((lease.wantedUntil - now) / 1000);
  return Math.max(1, Math.min(lease.lifetimeSeconds, leftSeconds));
}

/** Whether the last grant already covers the time for which the mapping is wanted. */
export function isCovered(lease: Lease): boolean {
  return lease.expiresAt >= lease.wantedUntil;
}

/**
 * When to renew next: half way from the last point of the series to expiry, so at 1/2, 3/4, 7/8…
 * of the lifetime (PMP-C-22, decision D-12), the lifetime taken as no longer than a day. After a
 * failure not before `notBefore` and never within 4 s of the last request. Undefined: not any
 * more before expiry. Remembers the point it answers with.
 */
export function nextRenewal(
  lease: Lease,
  now: Instant,
  notBefore: Instant = -Infinity,
): Instant | undefined {
  const isRetry = lease.failure !== undefined;
  const earliest = Math.max(now, notBefore, isRetry ? lease.sentAt + MIN_RENEWAL_GAP_MS : 0);
  const longestStep = MAX_SCHEDULED_LIFETIME_SECONDS * 1000 / 2;
  let at = lease.renewedAt;
  do {
    const step = Math.min((lease.expiresAt - at) / 2, longestStep);
    if (step < 1) return undefined;
    at += step;
  } while (at < earliest);
  lease.renewedAt = at;
  return at;
}
