/**
 * What a NAT-PMP client wants to ask the gateway, one thing at a time (PMP-C-04): the kinds of
 * request, their bytes, and which response answers which.
 *
 * @module
 */
import { NATPMP_MAX_ATTEMPTS } from "../backoff.ts";
import type { Instant } from "../machine.ts";
import type { Failure, Transport } from "../mapping.ts";
import {
  encodeAddressRequest,
  encodeMapRequest,
  NATPMP_OPCODE,
  NATPMP_RESULT,
  type NatPmpResponse,
  natPmpResultName,
} from "./codec.ts";
import { type Lease, lifetimeToAsk } from "./lease.ts";

/** Something to ask. */
export type Job =
  /** The external address; a `quiet` question tells only of a change. */
  | { readonly kind: "address"; quiet: boolean; queuedAt: Instant }
  /** A mapping to create, renew or recreate. */
  | { readonly kind: "map"; readonly lease: Lease; queuedAt: Instant }
  /** A mapping to delete. */
  | { readonly kind: "delete"; readonly lease: Lease; queuedAt: Instant }
  /** All mappings of a protocol to delete, these of ours among them. */
  | {
    readonly kind: "delete-all";
    readonly protocol: Transport;
    readonly quiet: boolean;
    readonly leases: Lease[];
    queuedAt: Instant;
  };

/** The request on its way. */
export interface Exchange {
  readonly job: Job;
  /** A retransmission is the same bytes. */
  readonly data: Uint8Array;
  readonly startedAt: Instant;
  sends: number;
}

/** The gateway itself has no network, or no room: RFC 6887's recommendation for short errors. */
const SHORT_HOLD_MS = 30_000;
/** All other refusals: RFC 6887's recommendation for long errors; RFC 6886 has none. */
const LONG_HOLD_MS = 1_800_000;
/** Deletes are advisory: sends before giving up (PMP-C-10). */
const DELETE_ATTEMPTS = 3;

/** Whether it takes something away. */
export function isDelete(job: Job): job is Job & { kind: "delete" | "delete-all" } {
  return job.kind === "delete" || job.kind === "delete-all";
}

/** The request's bytes. */
export function encodeJob(job: Job, now: Instant): Uint8Array {
  switch (job.kind) {
    case "address":
      return encodeAddressRequest();
    case "map":
      return encodeMapRequest({
        protocol: job.lease.protocol,
        internalPort: job.lease.internalPort,
        suggestedExternalPort: job.lease.externalPort,
        lifetimeSeconds: lifetimeToAsk(job.lease, now),
      });
    case "delete":
    case "delete-all":
      // PMP-C-24: a delete suggests port 0.
      return encodeMapRequest({
        protocol: protocolOf(job),
        internalPort: job.kind === "delete" ? job.lease.internalPort : 0,
        suggestedExternalPort: 0,
        lifetimeSeconds: 0,
      });
  }
}

/**
 * How often a job is sent at most: 9 times, deletes 3 times, and once where the gateway has left
 * the request before unanswered.
 */
export function maxSends(job: Job, isGatewaySilent: boolean): number {
  if (!isDelete(job)) return NATPMP_MAX_ATTEMPTS;
  return isGatewaySilent ? 1 : DELETE_ATTEMPTS;
}

function protocolOf(job: Exclude<Job, { kind: "address" }>): Transport {
  return job.kind === "delete-all" ? job.protocol : job.lease.protocol;
}

function opcodeOf(job: Job): number {
  if (job.kind === "address") return NATPMP_OPCODE.ADDRESS;
  return protocolOf(job) === "udp" ? NATPMP_OPCODE.MAP_UDP : NATPMP_OPCODE.MAP_TCP;
}

/**
 * Whether `response` answers `job` (PMP-C-35). There are no transaction ids: the opcode and the
 * internal port have to match. A short error names no port and answers what is on its way.
 */
export function isAnswer(response: NatPmpResponse, job: Job): boolean {
  switch (response.kind) {
    case "address":
      return job.kind === "address";
    case "map": {
      if (job.kind === "address" || response.protocol !== protocolOf(job)) return false;
      const port = job.kind === "delete-all" ? 0 : job.lease.internalPort;
      return (response.internalPort ?? port) === port;
    }
    case "unsupported-version":
      // A response bit with another opcode: the answer to a PCP request from the same socket.
      return response.version !== 0 || response.opcode === undefined ||
        response.opcode === opcodeOf(job);
    case "other":
      return false;
  }
}

/**
 * Whether an answer that matches may still be a late one to an earlier request for the same port:
 * a grant where a deletion was asked for, or the answer to a deletion of a moment ago.
 */
export function isStaleAnswer(
  response: NatPmpResponse,
  job: Job,
  wasJustDeleted: boolean,
): boolean {
  if (response.kind !== "map" || response.resultCode !== NATPMP_RESULT.SUCCESS) return false;
  if (job.kind === "map") {
    return wasJustDeleted && response.externalPort === 0 && response.lifetimeSeconds === 0;
  }
  return response.lifetimeSeconds !== 0;
}

/** What an answer says went wrong; undefined where it is a success. */
export function failureOf(response: NatPmpResponse, now: Instant): Failure | undefined {
  if (response.kind === "unsupported-version") {
    return { kind: "unsupported-version", version: response.version };
  }
  const code = response.resultCode;
  if (code === NATPMP_RESULT.SUCCESS) return undefined;
  const isShort = code === NATPMP_RESULT.NETWORK_FAILURE || code === NATPMP_RESULT.OUT_OF_RESOURCES;
  const retryAt = now + (isShort ? SHORT_HOLD_MS : LONG_HOLD_MS);
  return { kind: "refused", code, name: natPmpResultName(code), retryAt };
}
