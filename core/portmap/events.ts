/**
 * What a gateway session tells.
 *
 * @module
 */
import type { Attempt, NatErrorCode, Via } from "../errors.ts";
import type { Endpoint } from "../machine.ts";
import type { Failure, MappingEvent, MappingId, Transport } from "../mapping.ts";

/** A mapping as the gateway granted it. Plain data. */
export interface GrantedMapping {
  /** Inbound (`"map"`) or outbound (`"peer"`). */
  readonly kind: "map" | "peer";
  /** The protocol that made it. */
  readonly via: Via;
  /** The transport protocol. */
  readonly protocol: Transport;
  /** The gateway. */
  readonly gateway: Endpoint;
  /** Where packets arrive on the internal side. */
  readonly internal: Endpoint;
  /** Where others send to. */
  readonly external: Endpoint;
  /** The peer of an outbound mapping. */
  readonly remote?: Endpoint;
  /** Granted lifetime, seconds. */
  readonly lifetimeSeconds: number;
  /** The description as the gateway stored it. */
  readonly description?: string;
  /** How many consecutive ports it covers, where a set was asked for. */
  readonly portSetSize?: number;
}

/** What a {@linkcode GatewaySession} tells. */
export type SessionEvent =
  /** What becomes of a mapping; after `lost` natkit goes on trying. */
  | Exclude<MappingEvent<GrantedMapping>, { readonly type: "failed" | "unmapped" }>
  /** It was never granted; the request is over. */
  | {
    readonly type: "failed";
    readonly id: MappingId;
    readonly code: NatErrorCode;
    readonly attempts: readonly Attempt[];
    readonly retryAfterSeconds?: number;
  }
  /** It was deleted at our wish, or its time is over. */
  | {
    readonly type: "unmapped";
    readonly id: MappingId;
    readonly reason: "revoked" | "expired";
    /** What each protocol that was asked to delete it said. */
    readonly attempts: readonly Attempt[];
    /** Why the gateway kept it all the same, where it said so. */
    readonly failure?: Failure;
  }
  /** The gateway's external address, by NAT-PMP. */
  | { readonly type: "external-address"; readonly address: string }
  /** The gateway does not tell its external address by NAT-PMP. */
  | { readonly type: "external-address-failed"; readonly failure: Failure }
  /** The gateway lost its state; mappings are being made anew. */
  | { readonly type: "gateway-restarted" };
