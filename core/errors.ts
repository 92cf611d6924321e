/**
 * What an operation that failed tells. A caller's mistake is no such error: it is a TypeError or
 * RangeError, thrown at once. `code` is the contract (`instanceof` only works within one copy of
 * the library).
 *
 * @module
 */

/** The protocols by which a port can be opened. */
export type Via = "pcp" | "nat-pmp" | "upnp";

/** All of them, the preferred one first (PMP-C-32, PCP-C-57). */
export const PREFERENCE: readonly Via[] = ["pcp", "nat-pmp", "upnp"];

/** Their names for a person. */
export const VIA_NAME: Readonly<Record<Via, string>> = {
  "pcp": "PCP",
  "nat-pmp": "NAT-PMP",
  "upnp": "UPnP",
};

/** The stable code of a {@linkcode NatError}. */
export type NatErrorCode =
  /** No default route, and none was named. */
  | "gateway-not-found"
  /** A gateway is there, but none of the protocols tried got an answer in time. */
  | "no-answer"
  /** The gateway speaks none of the protocols tried: it said so, or ICMP did. */
  | "unsupported"
  /** The gateway answered and refused. */
  | "refused"
  /** The gateway's answer breaks its protocol's rules. */
  | "protocol-violation"
  /** The runtime or the operating system does not let us: the message names what is missing. */
  | "permission"
  /** The network itself failed (no route, interface gone). */
  | "network"
  /** The context was closed while the operation ran. */
  | "closed"
  /** Two peers are behind NATs between which no hole can be punched. */
  | "hard-nat";

/** What one protocol came to at one gateway. */
export interface Attempt {
  /** The protocol. */
  readonly via: Via;
  /** The gateway, as text that starts with its address. */
  readonly gateway: string;
  /** In words, stable: `"mapped"`, `"no answer"`, `"unreachable"`, `"NOT_AUTHORIZED"`… */
  readonly outcome: string;
  /** From the start of the attempt to its outcome, milliseconds. */
  readonly elapsedMs: number;
}

/** What {@linkcode NatError} takes beside code and message. */
export interface NatErrorOptions {
  /** What was tried, per protocol and gateway. */
  readonly attempts?: readonly Attempt[];
  /** Seconds for which the gateway asks not to be bothered with this again. */
  readonly retryAfterSeconds?: number;
  /** What lies beneath. */
  readonly cause?: unknown;
}

/**
 * An operation failed.
 *
 * @example
 * ```ts
 * import { NatError } from "@natkit/natkit/core";
 * const error = new NatError("no-answer", "Cannot open port 6000/tcp: no gateway answered");
 * console.assert(error.code === "no-answer" && error.attempts.length === 0);
 * ```
 */
export class NatError extends Error {
  /** The stable code. */
  readonly code: NatErrorCode;
  /** What was tried, per protocol and gateway. */
  readonly attempts: readonly Attempt[];
  /** Seconds for which the gateway asks not to be bothered with this again, where it said so. */
  readonly retryAfterSeconds: number | undefined;

  /** Makes the error. */
  constructor(code: NatErrorCode, message: string, options: NatErrorOptions = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.name = "NatError";
    this.code = code;
    this.attempts = options.attempts ?? [];
    this.retryAfterSeconds = options.retryAfterSeconds;
  }
}
