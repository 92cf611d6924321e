/**
 * What a NAT-PMP client takes and tells.
 *
 * @module
 */
import type { Endpoint, Instant } from "../machine.ts";
import type {
  Failure,
  MappingEvent,
  MappingId,
  MappingMode,
  MappingState,
  Transport,
} from "../mapping.ts";
import type { RandomSource } from "../random.ts";

/** How a NAT-PMP client is made. */
export interface NatPmpClientOptions {
  /** The gateway: IPv4, port 5351 on a real one. */
  readonly gateway: Endpoint;
  /** Spreads recreations after a gateway's restart. */
  readonly random: RandomSource;
  /** What an earlier client exported: its mappings are asked for again, with their ports. */
  readonly state?: NatPmpClientState;
}

/** A mapping to ask for. */
export interface NatPmpMapRequest {
  /** Which transport. */
  readonly protocol: Transport;
  /** The port on which the application listens, 1…65535. */
  readonly internalPort: number;
  /** The external port to ask for, 0…65535; by default 0: the gateway chooses. */
  readonly suggestedExternalPort?: number;
  /** The lifetime to ask for, 1…2³²−1 seconds; by default 7200. */
  readonly lifetimeSeconds?: number;
  /** How long the mapping is wanted; by default `"keep-alive"`. */
  readonly mode?: MappingMode;
}

/** A mapping as it stands. */
export interface NatPmpMapping {
  /** Names it within its client. */
  readonly id: MappingId;
  /** Which transport. */
  readonly protocol: Transport;
  /** The port on this host. */
  readonly internalPort: number;
  /** The port that the gateway gave; 0 before. */
  readonly externalPort: number;
  /** The gateway's external address, where the client has learnt it. */
  readonly externalAddress: string | undefined;
  /** The lifetime granted last; before a grant the one asked for. Seconds. */
  readonly lifetimeSeconds: number;
  /** When the last grant ends; undefined before one. */
  readonly expiresAt: Instant | undefined;
  /** Where it stands. */
  readonly state: MappingState;
  /** How often the request on its way was sent; 0: none is. */
  readonly attempt: number;
}

/** What a NAT-PMP client tells. */
export type NatPmpEvent =
  /** The external address: the answer to a question, or a change that was noticed. */
  | { readonly type: "external-address"; readonly address: string; readonly epochSeconds: number }
  /** The question for the external address came to nothing. */
  | { readonly type: "external-address-failed"; readonly failure: Failure }
  /** What becomes of a mapping. */
  | MappingEvent<NatPmpMapping>
  /** The deletion of all mappings of a protocol was answered, or given up. */
  | { readonly type: "all-unmapped"; readonly protocol: Transport; readonly failure?: Failure }
  /** The gateway lost its mappings; they are about to be recreated. */
  | { readonly type: "gateway-restarted" };

/** What survives a restart of the application; plain JSON. */
export interface NatPmpClientState {
  /** The layout's number. */
  readonly version: 1;
  /** The mappings that are wanted beyond this moment. */
  readonly mappings: readonly {
    /** Which transport. */
    readonly protocol: Transport;
    /** The port on this host. */
    readonly internalPort: number;
    /** The port that the gateway gave, or else the one wished for; 0: none. */
    readonly externalPort: number;
    /** The lifetime to ask for, seconds. */
    readonly lifetimeSeconds: number;
    /** For how many more seconds it is wanted; null: until revoked. */
    readonly wantedSeconds: number | null;
  }[];
}

/** What a client counted. */
export interface NatPmpClientStats {
  /** Requests sent, retransmissions not among them. */
  requests: number;
  /** Requests sent again. */
  retransmissions: number;
  /** Answers to our requests. */
  answers: number;
  /** Address packets that nobody here had asked for. */
  announcements: number;
  /** How often the gateway's epoch told that it lost its mappings. */
  restarts: number;
  /** What was dropped, by reason. */
  dropped: {
    "wrong-source": number;
    "too-short": number;
    "not-a-response": number;
    "other-version": number;
    "unsolicited": number;
    "stale": number;
  };
}

/** All counters at zero. */
export function newStats(): NatPmpClientStats {
  return {
    requests: 0,
    retransmissions: 0,
    answers: 0,
    announcements: 0,
    restarts: 0,
    dropped: {
      "wrong-source": 0,
      "too-short": 0,
      "not-a-response": 0,
      "other-version": 0,
      "unsolicited": 0,
      "stale": 0,
    },
  };
}
