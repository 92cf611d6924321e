/**
 * What outlives a client: its mappings with nonce and assigned endpoint, as JSON-safe data. Times
 * are relative, since nobody knows how the next program's clock will count.
 *
 * @module
 */
import { fromHex, toHex } from "../bytes.ts";
import { checkInteger } from "../check.ts";
import type { Instant } from "../machine.ts";
import type { MappingMode } from "../mapping.ts";
import type { Lease } from "./lease.ts";
import { checkNonce, checkRequest, checkWantedLifetime } from "./request.ts";
import type { PcpClientState, PcpSavedMapping } from "./types.ts";

/** The leases as they can be handed to another client. */
export function saveLeases(leases: Iterable<Lease>, now: Instant): PcpClientState {
  const mappings: PcpSavedMapping[] = [];
  for (const lease of leases) mappings.push(saveLease(lease, now));
  return { version: 1, mappings };
}

function saveLease(lease: Lease, now: Instant): PcpSavedMapping {
  const { wish } = lease;
  const remainingSeconds = lease.isGranted ? lease.remainingSeconds(now) : undefined;
  const external = lease.external;
  const { mode, lifetimeSeconds } = wantedFrom(lease, now);
  const address = external?.address ?? wish.suggestedAddress;
  const port = external?.port ?? wish.suggestedPort;
  return {
    kind: wish.kind,
    protocol: wish.protocol,
    internalPort: wish.internalPort,
    nonce: toHex(lease.nonce),
    lifetimeSeconds,
    ...(remainingSeconds !== undefined && { remainingSeconds }),
    mode,
    suggestedExternal: { ...(address !== undefined && { address }), ...(port !== 0 && { port }) },
    ...(wish.remote && { remote: wish.remote }),
    ...(wish.preferFailure && { preferFailure: true }),
    ...(wish.filters.length > 0 && { filters: wish.filters }),
    ...(wish.thirdParty !== undefined && { thirdParty: wish.thirdParty }),
    ...(wish.description !== undefined && { description: wish.description }),
    ...(wish.portSet && { portSet: wish.portSet }),
  };
}

/** What to ask for, and how often, so that it makes up the time for which it is still wanted. */
function wantedFrom(
  lease: Lease,
  now: Instant,
): { readonly mode: MappingMode; readonly lifetimeSeconds: number } {
  const { wantedUntil, lifetimeSeconds, wish: { mode } } = lease;
  if (wantedUntil === Infinity) return { mode, lifetimeSeconds };
  const leftSeconds = Math.max(1, Math.ceil((wantedUntil - now) / 1000));
  const lifetimes = Math.ceil(leftSeconds / lifetimeSeconds);
  return {
    mode: mode === "once" && lifetimes === 1 ? mode : lifetimes,
    lifetimeSeconds: Math.ceil(leftSeconds / lifetimes),
  };
}

/** What {@linkcode readState} gives: the arguments of a lease. */
export interface AdoptedMapping {
  readonly wish: ReturnType<typeof checkRequest>;
  readonly nonce: Uint8Array;
  readonly lifetimeSeconds: number;
  readonly external: { readonly address: string; readonly port: number } | undefined;
}

/**
 * Reads what {@linkcode saveLeases} wrote.
 *
 * @throws {TypeError | RangeError | SyntaxError} Where it is no state.
 */
export function readState(state: PcpClientState, localAddress: string): AdoptedMapping[] {
  checkInteger("state.version", state.version, 1, 1);
  return state.mappings.map((saved) => readSaved(saved, localAddress));
}

function readSaved(saved: PcpSavedMapping, localAddress: string): AdoptedMapping {
  const { kind, nonce, lifetimeSeconds, remainingSeconds, ...rest } = saved;
  if (kind !== "map" && kind !== "peer") {
    throw new TypeError(
      `'state.mappings.kind' must be "map" or "peer": current value is "${kind}"`,
    );
  }
  const request = kind === "peer" ? { ...rest, remote: rest.remote! } : rest;
  const wish = checkRequest(kind, request, localAddress);
  const { suggestedAddress: address, suggestedPort: port } = wish;
  return {
    wish,
    nonce: checkNonce(fromHex(nonce)),
    lifetimeSeconds: checkWantedLifetime(lifetimeSeconds),
    // Only what was granted is known; what was suggested stays a suggestion.
    external: remainingSeconds !== undefined && address !== undefined
      ? { address, port }
      : undefined,
  };
}
