/**
 * What servers over a mapping table have in common, whichever protocol they speak: how a policy
 * sees a request, what it may decide, and what a trace tells.
 *
 * @module
 */
import { copyBytes } from "../bytes.ts";
import type { Via } from "../errors.ts";
import type { Endpoint, Instant } from "../machine.ts";
import { snapshotEntry, type TableEntry } from "./entry.ts";
import type { TableChangeKind } from "./watch.ts";

/** A request as a server's policy sees it: read and found valid, nothing done yet. */
export interface ServerRequest {
  /** The protocol. */
  readonly via: Via;
  /**
   * What is asked. PCP's delete-all is a delete with internal port 0. The last four are UPnP's: a
   * search, a description, a subscription, an action that neither maps nor tells the address.
   */
  readonly operation:
    | "address"
    | "announce"
    | "map"
    | "peer"
    | "delete"
    | "delete-all"
    | "search"
    | "describe"
    | "subscribe"
    | "read";
  /** UPnP: the action's name; the target of a search, the path of a description. */
  readonly action?: string;
  /** Who asks. */
  readonly from: Endpoint;
  /** IANA's protocol number; 0 for all protocols, or where nothing is mapped. */
  readonly protocol: number;
  /**
   * The inside that it is about: the client's own address, or the one it names (THIRD_PARTY).
   * Port 0 for all ports, or where nothing is mapped.
   */
  readonly internal: Endpoint;
  /** The external endpoint suggested; all zeros for nothing. */
  readonly suggested: Endpoint;
  /** The remote peer, where it is about an outbound mapping (PCP's PEER). */
  readonly remote: Endpoint | undefined;
  /** The lifetime asked for, seconds; 0 deletes. */
  readonly lifetimeSeconds: number;
  /** PCP: the mapping nonce, borrowed until the policy returns. */
  readonly nonce: Uint8Array | undefined;
  /** The mapping that is there already, live. */
  readonly existing: TableEntry | undefined;
}

/** What becomes of a request; undefined: it is served. */
export type Decision =
  | undefined
  /** No answer. */
  | { readonly kind: "drop" }
  /** An error, any code but 0. PCP tells for how many seconds, by default what is usual for it. */
  | { readonly kind: "refuse"; readonly code: number; readonly lifetimeSeconds?: number }
  /** PCP: it is served as if it did not have the option PREFER_FAILURE. */
  | { readonly kind: "ignore-prefer-failure" };

/** A policy: is asked about each request that is valid, before anything changes. */
export type Policy<D = Decision> = (request: ServerRequest, now: Instant) => D;

/** What a server tells when it traces. */
export type ServerEvent =
  /** A valid request came; it and what is in it are copies. */
  | { readonly type: "request"; readonly request: ServerRequest }
  /** An answer leaves; or, unsolicited, an announcement or a mapping update. */
  | {
    readonly type: "response";
    /** The protocol. */
    readonly via: "pcp" | "nat-pmp";
    /** Where it goes. */
    readonly to: Endpoint;
    /** The request's, 0…127. */
    readonly opcode: number;
    /** As the protocol numbers them. */
    readonly resultCode: number;
    /** The RFC's name of the result code. */
    readonly result: string;
    /** The epoch in it. */
    readonly epochSeconds: number;
    /** Of the mapping, or of PCP's error; undefined in NAT-PMP's other answers. */
    readonly lifetimeSeconds: number | undefined;
    /** What was assigned; port 0 where the address is all that is told. */
    readonly external: Endpoint | undefined;
    /** Whether nobody asked for it. */
    readonly isUnsolicited: boolean;
  }
  /** An answer of UPnP leaves. */
  | {
    readonly type: "response";
    /** The protocol. */
    readonly via: "upnp";
    /** Where it goes. */
    readonly to: Endpoint;
    /** What was asked. */
    readonly operation: ServerRequest["operation"];
    /** As the request has it. */
    readonly action: string;
    /** 0 where it is done, else UPnP's error code, or HTTP's status where it is no action's. */
    readonly resultCode: number;
    /** `SUCCESS`, or the name of the code. */
    readonly result: string;
    /** Of the mapping, 0 for one without end; undefined where it is about none. */
    readonly lifetimeSeconds: number | undefined;
    /** What was assigned; port 0 where the address is all that is told. */
    readonly external: Endpoint | undefined;
    /** Nothing of this comes unasked. */
    readonly isUnsolicited: false;
  }
  /** The table changed, whoever changed it. */
  | {
    readonly type: "mapping";
    /** How. */
    readonly change: TableChangeKind;
    /** The entry after the change, or as it was when it went; a copy. */
    readonly entry: TableEntry;
  };

/** A copy of a request: plain data that does not change. */
export function snapshotRequest(request: ServerRequest): ServerRequest {
  const { nonce, existing } = request;
  return {
    ...request,
    nonce: nonce && copyBytes(nonce),
    existing: existing && snapshotEntry(existing),
  };
}
