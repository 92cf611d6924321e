/**
 * What an application wants of its client, and what it was told of it.
 *
 * @module
 */
import type { Endpoint, Instant } from "../../core/machine.ts";
import type { MappingMode, RemoteFilter, Transport } from "../../core/mapping.ts";
import { SimulationError } from "../../core/sim/mod.ts";

/** A protocol that makes mappings. */
export type Via = "pcp" | "nat-pmp";

/** An external endpoint as a client tells it; NAT-PMP may not know the address. */
export interface External {
  address: string | undefined;
  readonly port: number;
}

/** The events of all clients in one form. */
export type SubjectEvent =
  | {
    readonly type: "mapped" | "renewed" | "moved" | "recovered";
    readonly id: number;
    readonly external: External;
    readonly via: Via;
  }
  | {
    readonly type: "failed" | "lost" | "unmapped";
    readonly id: number;
    /** Whether a gateway's refusal is the cause. */
    readonly isRefused: boolean;
  }
  | { readonly type: "gateway-restarted" }
  | { readonly type: "external-address"; readonly address: string };

/** What is asked for. */
export interface WishFields {
  readonly protocol: Transport;
  readonly internalPort: number;
  /** 0: any. */
  readonly suggestedPort: number;
  readonly lifetimeSeconds: number;
  readonly mode: MappingMode;
  /** Of an outbound mapping (PEER). */
  readonly remote?: Endpoint;
  readonly thirdParty?: string;
  readonly filters?: readonly RemoteFilter[];
  readonly portSetSize?: number;
  readonly preferFailure?: boolean;
}

/** An event that is to be told before the client rests. */
export interface Owed {
  readonly types: readonly SubjectEvent["type"][];
  readonly external?: External;
  /** It may be left out. */
  readonly isOptional: boolean;
  readonly why: string;
}

/** A mapping that the application wants. */
export interface Wish extends WishFields {
  /** The client's id for it while it has one. */
  id: number | undefined;
  /** What the application was told. */
  told: "nothing" | "held" | "lost" | "over";
  /** By which protocol it is held. */
  via: Via | undefined;
  /** The endpoint told last. */
  external: External | undefined;
  /** Whether the application has taken it back. */
  isRevoked: boolean;
  owed: Owed | undefined;
  /** The nonce that was saved with it: it comes back. */
  savedNonce: string | undefined;
  /** What was granted last: it is suggested again. */
  granted: External | undefined;
  /** What was granted to an earlier wish for it, and may be suggested. */
  remembered: External | undefined;
  /** All that was ever granted: a session may come back to it. */
  readonly history: External[];
}

/** A wish of which nothing is known yet. */
export function newWish(fields: WishFields): Wish {
  return {
    ...fields,
    id: undefined,
    told: "nothing",
    via: undefined,
    external: undefined,
    isRevoked: false,
    owed: undefined,
    savedNonce: undefined,
    granted: undefined,
    remembered: undefined,
    history: [],
  };
}

/** The wish in a few words: `"5003/udp"`. */
export function nameOf(wish: WishFields): string {
  const tail = wish.remote ? ` to ${wish.remote.address}:${wish.remote.port}` : "";
  const owner = wish.thirdParty === undefined ? "" : ` of ${wish.thirdParty}`;
  return `${wish.internalPort}/${wish.protocol}${owner}${tail}`;
}

/** Whether two wishes are for the same mapping. */
export function isSameMapping(a: WishFields, b: WishFields): boolean {
  return nameOf(a) === nameOf(b);
}

/** Whether only PCP can do it. */
export function isPcpOnly(wish: WishFields): boolean {
  return wish.remote !== undefined || wish.thirdParty !== undefined ||
    wish.filters !== undefined || wish.portSetSize !== undefined || wish.preferFailure === true;
}

/** Through how many granted lifetimes it is wanted. */
export function lifetimesOf({ mode }: WishFields): number {
  return mode === "keep-alive" ? Infinity : mode === "once" ? 1 : mode;
}

/** Whether two endpoints are one; an address not known yet is no difference. */
export function isSame(a: External, b: External): boolean {
  if (a.port !== b.port) return false;
  return a.address === b.address || a.address === undefined || b.address === undefined;
}

/** An endpoint in words. */
export function show(external: External | undefined): string {
  return external ? `${external.address ?? "?"}:${external.port}` : "nothing";
}

/** What all deeds of one client share. */
export interface Watch {
  /** How complaints name the client. */
  readonly name: string;
  /** Both protocols are spoken by one machine, which may take a mapping from the one to the other. */
  readonly isSession: boolean;
  /** Every nonce that was ever seen in this world, and whose it is. */
  readonly nonces: Map<string, object>;
  /** When the client heard or was told something last: a reason to act at that moment. */
  reasonAt: Instant;
  /** When ICMP came last: what it ended, of what was due at that very moment, does not show. */
  unreachableAt: Instant;
  /**
   * When NAT-PMP told the external address last: from then on it may make what PCP is asked for, and
   * what PCP is asked is taken back.
   */
  natPmpHeardAt: Instant;
  /** Nothing is held against what is sent before this: it has just woken up. */
  restUntil: Instant;
  /** After a loss of state, how long the first request of it waited, milliseconds. */
  readonly recreations: { readonly via: Via; readonly delayMs: number }[];
}

/** Breaks off. */
export function breach(watch: Watch, what: string, now: Instant): never {
  throw new SimulationError(`${watch.name} ${what} (at ${(now / 1000).toFixed(3)} s)`);
}

/** Says what the client has to tell; in one drain a later word may take the place of an earlier. */
export function owe(wish: Wish, owed: Owed): void {
  const before = wish.owed;
  const isMerged = before && !before.isOptional;
  wish.owed = isMerged && before.types.includes("lost") && owed.types.includes("failed")
    ? before
    : owed;
}
