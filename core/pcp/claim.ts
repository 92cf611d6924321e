/**
 * How an application takes up what its earlier run left: a mapping from exported state is asked for
 * by itself, and who asks for the same one claims it.
 *
 * @module
 */
import { equalBytes } from "../bytes.ts";
import type { Instant } from "../machine.ts";
import type { Engine } from "./engine.ts";
import type { Lease } from "./lease.ts";
import type { Wish } from "./request.ts";

/** Whether the wish is for this very mapping; a nonce that is given has to be the mapping's. */
export function canClaim(lease: Lease, wish: Wish, nonce: Uint8Array | undefined): boolean {
  return lease.isAdopted && lease.wish.portSet?.size === wish.portSet?.size &&
    lease.wish.portSet?.parity === wish.portSet?.parity &&
    (nonce === undefined || equalBytes(nonce, lease.nonce));
}

/**
 * The wish counts from here on, but for the endpoint, which stays the one that was assigned. The
 * lifetime under way is the first of those that are wanted.
 */
export function claim(
  engine: Engine,
  lease: Lease,
  wish: Wish,
  lifetimeSeconds: number,
  now: Instant,
): void {
  lease.isAdopted = false;
  lease.wish = wish;
  lease.lifetimeSeconds = lifetimeSeconds;
  lease.wantedUntil = Infinity;
  lease.packet = undefined;
  if (lease.phase === "waiting") return engine.due(lease, now);
  if (lease.expiresAt === undefined) return;
  lease.wantedUntil = lease.grantedAt + lease.lifetimes * (lease.expiresAt - lease.grantedAt);
  if (lease.phase === "granted") engine.plan(lease, now);
  engine.tell(lease, "mapped");
}
