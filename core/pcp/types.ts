/**
 * What a {@linkcode PcpClient} takes and tells, as plain data.
 *
 * @module
 */
import type { Cidr } from "../cidr.ts";
import type { Endpoint, Instant } from "../machine.ts";
import type { Failure, MappingEvent, MappingId, MappingMode, MappingState } from "../mapping.ts";
import type { RandomSource } from "../random.ts";

/** How a {@linkcode PcpClient} is made. */
export interface PcpClientOptions {
  /** The addresses of one server, the preferred one first; at least one (RFC 7488). */
  readonly servers: readonly Endpoint[];
  /** The address from which the requests leave: it is written into them (PCP-C-06). */
  readonly localAddress: string;
  /** Nonces and jitter; on a real network it must be unguessable (PCP-C-38). */
  readonly random: RandomSource;
  /**
   * Whether first requests and deletions are repeated after 250 and 750 ms, before the RFC's
   * schedule of 3 s and more takes over. A deviation from PCP-C-09 for people who wait; renewals
   * and recreations never do it. @default {true}
   */
  readonly fastStart?: boolean;
  /**
   * How many requests an address gets without an answer (RFC 6887's MRC), 0 for no limit.
   * @default {0} with one address, 4 with several
   */
  readonly maxAttempts?: number;
  /** What an earlier client's `exportState` gave: its mappings are adopted. */
  readonly state?: PcpClientState;
}

/** An external endpoint as far as one is wished for. */
export interface SuggestedExternal {
  /** The address; without one any of the client's own family. */
  readonly address?: string;
  /** 1…65535; without one any. */
  readonly port?: number;
}

/** A filter: which remote peers may come in. */
export interface PcpFilter {
  /** The peers' prefix. */
  readonly prefix: Cidr;
  /** The peers' port, 0 for all. */
  readonly port: number;
}

/** A wish for a run of ports in one mapping (RFC 7753). */
export interface PortSetRequest {
  /** How many, 2…65535; 65535 asks for as many as there are. */
  readonly size: number;
  /** Whether the first external port is to have the parity of the internal one. @default {false} */
  readonly parity?: boolean;
}

/** What MAP and PEER requests share. */
export interface PcpCommonRequest {
  /** IANA's number: 6 TCP, 17 UDP. */
  readonly protocol: number;
  /** The port on this host (or on `thirdParty`). */
  readonly internalPort: number;
  /** A hint that the server is free not to follow (PCP-C-37). */
  readonly suggestedExternal?: SuggestedExternal;
  /** Seconds, 1…2³²−1. @default {7200} */
  readonly lifetimeSeconds?: number;
  /** How long it is wanted. @default {"keep-alive"} */
  readonly mode?: MappingMode;
  /** The host the mapping is for, where it is not this one; trusted networks only (PCP-C-47). */
  readonly thirdParty?: string;
  /** A text for the server to keep, at most 1016 bytes of UTF-8 (RFC 7220). */
  readonly description?: string;
  /** 12 bytes: adopts the mapping that was made with this nonce. */
  readonly nonce?: Uint8Array;
}

/** An inbound mapping (MAP). */
export interface PcpMapRequest extends PcpCommonRequest {
  /** The suggested external endpoint or none; for interworking only (PCP-C-48). @default {false} */
  readonly preferFailure?: boolean;
  /** Only these peers may come in; none: everybody. */
  readonly filters?: readonly PcpFilter[];
  /** Several ports at once. */
  readonly portSet?: PortSetRequest;
}

/** An outbound mapping (PEER). */
export interface PcpPeerRequest extends PcpCommonRequest {
  /** The peer that the mapping leads to. */
  readonly remote: Endpoint;
}

/** The ports of a granted set. */
export interface GrantedPortSet {
  /** How many the server mapped, at most as many as were asked for. */
  readonly size: number;
  /** The first internal port; external ports run from the mapping's external port on. */
  readonly firstInternalPort: number;
  /** Whether parity is kept. */
  readonly parity: boolean;
}

/** A mapping as it stands. */
export interface PcpMapping {
  /** Its id within the client. */
  readonly id: MappingId;
  /** Inbound or outbound. */
  readonly kind: "map" | "peer";
  /** IANA's number. */
  readonly protocol: number;
  /** The host's own side. */
  readonly internal: Endpoint;
  /** What the server assigned; undefined while it holds nothing. */
  readonly external: Endpoint | undefined;
  /** The peer of an outbound mapping. */
  readonly remote?: Endpoint;
  /** What the server granted, seconds; what is asked for while it holds nothing. */
  readonly lifetimeSeconds: number;
  /** When it ends unless renewed. */
  readonly expiresAt: Instant | undefined;
  /** The server's address in use. */
  readonly server: Endpoint;
  /** The key to renewing and deleting it; a copy. */
  readonly nonce: Uint8Array;
  /** Where it stands. */
  readonly state: MappingState;
  /** How many times the request in flight was sent. */
  readonly attempt: number;
  /** The text as the server stored it; absent where it stored none. */
  readonly description?: string;
  /** The set the server mapped; absent for a single port. */
  readonly portSet?: GrantedPortSet;
}

/** What a {@linkcode PcpClient} tells. */
export type PcpEvent =
  /** What becomes of a mapping. */
  | MappingEvent<PcpMapping>
  /** The server's epoch tells of lost state; every mapping is being asked for again. */
  | { readonly type: "gateway-restarted" }
  /** The answer to `announce`. */
  | { readonly type: "announced"; readonly epochSeconds: number }
  /** `announce` came to nothing. */
  | { readonly type: "announce-failed"; readonly failure: Failure }
  /** Another of the server's addresses answered. */
  | { readonly type: "server-changed"; readonly server: Endpoint };

/** One mapping in a {@linkcode PcpClientState}. */
export interface PcpSavedMapping {
  /** Inbound or outbound. */
  readonly kind: "map" | "peer";
  /** IANA's number. */
  readonly protocol: number;
  /** The internal port. */
  readonly internalPort: number;
  /** 24 hexadecimal digits. */
  readonly nonce: string;
  /** What to ask for, seconds. */
  readonly lifetimeSeconds: number;
  /** What was left when it was saved, seconds; absent where the server held nothing. */
  readonly remainingSeconds?: number;
  /** How long it is wanted; a mapping wanted for a time: in how many lifetimes what is left of it. */
  readonly mode: MappingMode;
  /** What the server assigned last, or what was suggested. */
  readonly suggestedExternal?: SuggestedExternal;
  /** As in {@linkcode PcpPeerRequest}. */
  readonly remote?: Endpoint;
  /** As in {@linkcode PcpMapRequest}. */
  readonly preferFailure?: boolean;
  /** As in {@linkcode PcpMapRequest}. */
  readonly filters?: readonly PcpFilter[];
  /** As in {@linkcode PcpCommonRequest}. */
  readonly thirdParty?: string;
  /** As in {@linkcode PcpCommonRequest}. */
  readonly description?: string;
  /** As in {@linkcode PcpMapRequest}. */
  readonly portSet?: PortSetRequest;
}

/** What a restarted program needs to keep its mappings; safe for JSON. */
export interface PcpClientState {
  /** The format. */
  readonly version: 1;
  /** In the order in which they were asked for. */
  readonly mappings: readonly PcpSavedMapping[];
}

/** Counters of a {@linkcode PcpClient}. */
export interface PcpClientStats {
  /** Requests queued, by kind; retransmissions included. */
  readonly sent: { map: number; peer: number; delete: number; announce: number };
  /** How many of `sent` were the same bytes again. */
  retransmitted: number;
  /** Answers taken. */
  received: number;
  /** Successes that granted something. */
  granted: number;
  /** Refusals by result code. */
  refused: number;
  /** Epochs that told of lost state. */
  restarts: number;
  /** Datagrams not taken, by reason. */
  readonly dropped: Record<DropReason, number>;
}

/** Why a datagram was not taken. */
export type DropReason =
  | "wrong-source"
  | "other-address"
  | "too-short"
  | "not-a-request"
  | "not-a-response"
  | "wrong-version"
  | "bad-length"
  | "bad-options"
  | "unmatched"
  | "wrong-nonce"
  | "stale"
  | "violation";
