/**
 * PCP's messages as values (RFC 6887 §7, §11.1, §12.1, §14.1). Addresses are canonical text;
 * `0.0.0.0` and `::` are the two all-zeros that mean "any external address of that family"
 * (PCP-C-03).
 *
 * @module
 */
import type { PcpOption } from "./options.ts";

/** Why bytes are no message. */
export type PcpFault =
  /** Shorter than a header. */
  | "too-short"
  /** The R bit is set where it must not be. */
  | "not-a-request"
  /** The R bit is clear where it must be set. */
  | "not-a-response"
  /** Version other than 2. */
  | "wrong-version"
  /** Over 1100 bytes, no multiple of 4, or too short for the opcode. */
  | "bad-length"
  /** An option reaches past the end. */
  | "bad-options";

/** What MAP and PEER messages share. */
export interface PcpMappingFields {
  /** 12 bytes. */
  readonly nonce: Uint8Array;
  /** IANA's number of the protocol, 0…255; 0 means all. */
  readonly protocol: number;
  /** 0…65535; 0 means all ports. */
  readonly internalPort: number;
}

/** What every request carries. */
export interface PcpRequestFields {
  /** Requested lifetime, seconds, 0…2³²−1; 0 deletes. */
  readonly lifetimeSeconds: number;
  /** The client's own address (PCP-C-06). */
  readonly clientAddress: string;
  /** In the order of the packet. */
  readonly options: readonly PcpOption[];
}

/** An ANNOUNCE request. */
export interface PcpAnnounceRequest extends PcpRequestFields {
  /** Names the opcode. */
  readonly kind: "announce";
}

/** A MAP request. */
export interface PcpMapRequestMessage extends PcpRequestFields, PcpMappingFields {
  /** Names the opcode. */
  readonly kind: "map";
  /** 0: no preference. */
  readonly suggestedPort: number;
  /** All zeros of a family: no preference. */
  readonly suggestedAddress: string;
}

/** A PEER request. */
export interface PcpPeerRequestMessage extends PcpRequestFields, PcpMappingFields {
  /** Names the opcode. */
  readonly kind: "peer";
  /** 0: no preference. */
  readonly suggestedPort: number;
  /** All zeros of a family: no preference. */
  readonly suggestedAddress: string;
  /** The remote peer's port. */
  readonly remotePort: number;
  /** The remote peer's address, as the client sees it. */
  readonly remoteAddress: string;
}

/** A request of an opcode that is not known here. */
export interface PcpOtherRequest {
  /** Names the opcode. */
  readonly kind: "other";
  /** 0…127. */
  readonly opcode: number;
  /** Requested lifetime, seconds. */
  readonly lifetimeSeconds: number;
  /** The client's own address. */
  readonly clientAddress: string;
  /** What follows the header, a multiple of 4 bytes; where it was decoded, a view. */
  readonly payload: Uint8Array;
}

/** A request. */
export type PcpRequest =
  | PcpAnnounceRequest
  | PcpMapRequestMessage
  | PcpPeerRequestMessage
  | PcpOtherRequest;

/** What every response of version 2 carries. */
export interface PcpResponseFields {
  /** One of {@linkcode PCP_RESULT}, 0…255. */
  readonly resultCode: number;
  /** How long the mapping, or the error, is to last; seconds. */
  readonly lifetimeSeconds: number;
  /** Seconds since the server's table was reset. */
  readonly epochSeconds: number;
  /** In the order of the packet. */
  readonly options: readonly PcpOption[];
}

/** An ANNOUNCE response, solicited or not. */
export interface PcpAnnounceResponse extends PcpResponseFields {
  /** Names the opcode. */
  readonly kind: "announce";
}

/** A MAP response. */
export interface PcpMapResponseMessage extends PcpResponseFields, PcpMappingFields {
  /** Names the opcode. */
  readonly kind: "map";
  /** Assigned; in an error the suggested one comes back. */
  readonly externalPort: number;
  /** Assigned; in an error the suggested one comes back. */
  readonly externalAddress: string;
}

/** A PEER response. */
export interface PcpPeerResponseMessage extends PcpResponseFields, PcpMappingFields {
  /** Names the opcode. */
  readonly kind: "peer";
  /** Assigned; in an error the suggested one comes back. */
  readonly externalPort: number;
  /** Assigned; in an error the suggested one comes back. */
  readonly externalAddress: string;
  /** The remote peer's port. */
  readonly remotePort: number;
  /** The remote peer's address. */
  readonly remoteAddress: string;
}

/** A response of an opcode that is not known here. */
export interface PcpOtherResponse {
  /** Names the opcode. */
  readonly kind: "other";
  /** 0…127. */
  readonly opcode: number;
  /** One of {@linkcode PCP_RESULT}, 0…255. */
  readonly resultCode: number;
  /** Seconds. */
  readonly lifetimeSeconds: number;
  /** Seconds since the server's table was reset. */
  readonly epochSeconds: number;
  /** What follows the header, a multiple of 4 bytes; where it was decoded, a view. */
  readonly payload: Uint8Array;
}

/**
 * UNSUPP_VERSION. Recognised before anything else is looked at, length and version included
 * (PCP-C-13), and in NAT-PMP's form too, whatever its second byte says.
 */
export interface PcpUnsupportedVersion {
  /** Names the answer. */
  readonly kind: "unsupported-version";
  /** What the server speaks; 0: NAT-PMP. */
  readonly version: number;
  /** The opcode it answers, 0…127; of little meaning where `version` is 0. */
  readonly opcode: number;
  /** Seconds; undefined where the answer is too short or not in PCP's form. */
  readonly lifetimeSeconds: number | undefined;
  /** Seconds; undefined where the answer is too short or not in PCP's form. */
  readonly epochSeconds: number | undefined;
}

/** A response. */
export type PcpResponse =
  | PcpAnnounceResponse
  | PcpMapResponseMessage
  | PcpPeerResponseMessage
  | PcpOtherResponse
  | PcpUnsupportedVersion;

/** The header of a request: what a server looks at before the opcode. */
export interface PcpRequestHeader {
  /** 0…127. */
  readonly opcode: number;
  /** Requested lifetime, seconds. */
  readonly lifetimeSeconds: number;
  /** The client's own address. */
  readonly clientAddress: string;
}

/** What an error reply sets in the copy of its request. */
export interface PcpErrorFields {
  /** One of {@linkcode PCP_RESULT}. */
  readonly resultCode: number;
  /** How long the error is to last, seconds. */
  readonly lifetimeSeconds: number;
  /** Seconds since the server's table was reset. */
  readonly epochSeconds: number;
  /** The version to answer in. @default {2} */
  readonly version?: number;
  /**
   * Whether the request could be parsed: then the 12 reserved bytes are zero, else they keep what
   * stood there (RFC 6887 §7.2). @default {true}
   */
  readonly parsed?: boolean;
}
