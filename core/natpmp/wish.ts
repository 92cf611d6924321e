/**
 * What the application wants, read and checked; and the state in which wishes survive a restart.
 *
 * @module
 */
import { checkChoice, checkInteger, checkLifetime, checkPort } from "../check.ts";
import type { Instant } from "../machine.ts";
import type { MappingMode, Transport } from "../mapping.ts";
import { NATPMP_LIFETIME_SECONDS } from "./codec.ts";
import type { Lease } from "./lease.ts";
import type { NatPmpClientState, NatPmpMapRequest } from "./types.ts";

/** The transports that NAT-PMP maps. */
export const TRANSPORTS = ["udp", "tcp"] as const;

/** A mapping as it is wanted. */
export interface Wish {
  readonly protocol: Transport;
  readonly internalPort: number;
  /** The port to suggest, 0 for any. */
  readonly externalPort: number;
  readonly lifetimeSeconds: number;
  /** Through how many granted lifetimes; Infinity: until revoked. */
  readonly lifetimes: number;
}

/**
 * Reads a request.
 *
 * @throws {TypeError | RangeError} Where it is malformed.
 */
export function readRequest(request: NatPmpMapRequest): Wish {
  const lifetimeSeconds = request.lifetimeSeconds ?? NATPMP_LIFETIME_SECONDS;
  return {
    protocol: checkChoice("protocol", request.protocol, TRANSPORTS),
    internalPort: checkPort("internalPort", request.internalPort),
    externalPort: checkPort("suggestedExternalPort", request.suggestedExternalPort ?? 0, 0),
    lifetimeSeconds: checkLifetime("lifetimeSeconds", lifetimeSeconds),
    lifetimes: readMode(request.mode ?? "keep-alive"),
  };
}

function readMode(mode: MappingMode): number {
  if (typeof mode === "number") return checkInteger("mode", mode, 1, 0xffff_ffff);
  return checkChoice("mode", mode, ["once", "keep-alive"]) === "once" ? 1 : Infinity;
}

/** Writes what is wanted beyond `now`. */
export function writeState(leases: readonly Lease[], now: Instant): NatPmpClientState {
  const mappings = leases.map((lease) => {
    const wantedMs = lease.wantedUntil === Infinity
      ? lease.lifetimes * lease.lifetimeSeconds * 1000
      : Math.max(0, lease.wantedUntil - now);
    return {
      protocol: lease.protocol,
      internalPort: lease.internalPort,
      externalPort: lease.externalPort,
      lifetimeSeconds: lease.lifetimeSeconds,
      wantedSeconds: wantedMs === Infinity ? null : Math.ceil(wantedMs / 1000),
    };
  });
  return { version: 1, mappings };
}

/**
 * Reads what {@linkcode writeState} wrote; what is wanted no longer is left out.
 *
 * @throws {TypeError | RangeError} Where it is no state.
 */
export function readState(state: NatPmpClientState): Wish[] {
  checkInteger("state.version", state.version, 1, 1);
  const wishes: Wish[] = [];
  for (const { protocol, internalPort, externalPort, ...wanted } of state.mappings) {
    const longest = checkLifetime("state.lifetimeSeconds", wanted.lifetimeSeconds);
    const left = wanted.wantedSeconds === null
      ? Infinity
      : checkInteger("state.wantedSeconds", wanted.wantedSeconds, 0, Number.MAX_SAFE_INTEGER);
    const lifetimeSeconds = Math.min(longest, left);
    const wish = {
      protocol: checkChoice("state.protocol", protocol, TRANSPORTS),
      internalPort: checkPort("state.internalPort", internalPort),
      externalPort: checkPort("state.externalPort", externalPort, 0),
      lifetimeSeconds,
      lifetimes: left / lifetimeSeconds,
    };
    if (left > 0) wishes.push(wish);
  }
  return wishes;
}
