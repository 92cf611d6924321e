/**
 * What the port mapping protocols have in common: the words in which a mapping, its state and its
 * failure are told.
 *
 * @module
 */
import type { Cidr } from "./cidr.ts";
import type { Instant } from "./machine.ts";

/** The transport protocols that every gateway can map. */
export type Transport = "tcp" | "udp";

/** IANA's numbers of the transports. */
export const PROTOCOL_NUMBER = { tcp: 6, udp: 17 } as const;

/** Names a mapping within one machine; never used twice there. */
export type MappingId = number;

/**
 * How long a mapping is wanted: `"once"` requests it and lets it end with its lifetime,
 * `"keep-alive"` renews it until revoked, a number N ≥ 1 holds it through N lifetimes.
 */
export type MappingMode = "once" | "keep-alive" | number;

/** Lets in only what comes from `prefix`, and from `port` where that is not 0 (PCP FILTER). */
export interface RemoteFilter {
  /** Remote addresses let in. */
  readonly prefix: Cidr;
  /** Remote port let in, 0 for all. */
  readonly port: number;
}

/** Where a mapping stands. */
export type MappingState =
  /** Asked for by the application, nothing sent yet. */
  | "requested"
  /** First requests are on their way. */
  | "starting"
  /** The gateway holds it; a renewal or change is on its way. */
  | "updating"
  /** The gateway holds it. */
  | "running"
  /** Refused or failed; `"keep-alive"` tries again when the hold time is over. */
  | "error"
  /** Its lifetime is over and nobody wants it renewed. */
  | "expired"
  /** Deleted at the application's wish. */
  | "revoked"
  /** Forgotten without telling the gateway. */
  | "dropped";

/** Why a request came to nothing. */
export type Failure =
  /** As many requests as the schedule allows, no answer. */
  | { readonly kind: "no-answer" }
  /** ICMP: nothing listens there. */
  | { readonly kind: "unreachable" }
  /** The gateway answered in, or asked for, a version that this protocol is not. */
  | { readonly kind: "unsupported-version"; readonly version: number }
  /** The gateway said no; not to be asked again before `retryAt`. */
  | {
    readonly kind: "refused";
    readonly code: number;
    /** The RFC's name of the code: `"NOT_AUTHORIZED"`. */
    readonly name: string;
    readonly retryAt: Instant;
  }
  /** A success that cannot be one; `clause` says which rule it breaks. */
  | { readonly kind: "protocol-violation"; readonly clause: string }
  /** The lifetime ran out before a renewal was answered. */
  | { readonly kind: "expired" };

/** The outcome in words, as attempts list it. */
export function describeFailure(failure: Failure): string {
  switch (failure.kind) {
    case "no-answer":
      return "no answer";
    case "unreachable":
      return "unreachable";
    case "unsupported-version":
      return `unsupported version (speaks ${failure.version})`;
    case "refused":
      return failure.name;
    case "protocol-violation":
      return `protocol violation (${failure.clause})`;
    case "expired":
      return "expired";
  }
}

/** What a client tells of one mapping; `T` is a mapping in its protocol's words. */
export type MappingEvent<T> =
  /** Granted for the first time. */
  | { readonly type: "mapped"; readonly id: MappingId; readonly mapping: T }
  /** Granted again, the same external endpoint. */
  | { readonly type: "renewed"; readonly id: MappingId; readonly mapping: T }
  /** Another external endpoint than told last. */
  | { readonly type: "moved"; readonly id: MappingId; readonly mapping: T }
  /** Granted again after `lost`. */
  | { readonly type: "recovered"; readonly id: MappingId; readonly mapping: T }
  /** Not granted. A keep-alive mapping is asked for again when its hold is over. */
  | { readonly type: "failed"; readonly id: MappingId; readonly failure: Failure }
  /** Was granted and is no more. A keep-alive mapping is asked for again until `recovered`. */
  | { readonly type: "lost"; readonly id: MappingId; readonly failure: Failure }
  /**
   * Gone by our own wish: deleted (`failure` says where the gateway refused to, or did not answer),
   * or its wanted time is over.
   */
  | {
    readonly type: "unmapped";
    readonly id: MappingId;
    readonly reason: "revoked" | "expired";
    readonly failure?: Failure;
  };
