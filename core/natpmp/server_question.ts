/**
 * What a NAT-PMP server asks its policy before it serves a request, and what that may say.
 *
 * @module
 */
import type { Endpoint } from "../machine.ts";
import type { Transport } from "../mapping.ts";
import type { TableEntry } from "../table/entry.ts";
import type { NatPmpMapFields } from "./codec.ts";

/** A request as a policy sees it. */
export interface NatPmpQuestion {
  /** Who asks. */
  readonly from: Endpoint;
  /** What is asked. */
  readonly operation: "address" | "map" | "delete" | "delete-all";
  /** Of which transport; undefined for the address. */
  readonly protocol: Transport | undefined;
  /** The internal port, 0 for the address. */
  readonly internalPort: number;
  /** The external port wished for, 0 for none. */
  readonly suggestedExternalPort: number;
  /** The lifetime asked for, seconds. */
  readonly lifetimeSeconds: number;
  /** The mapping that is there already. */
  readonly existing: TableEntry | undefined;
}

/** What a policy says to a request: nothing where it is to be served. */
export type NatPmpVerdict =
  /** No answer. */
  | "drop"
  /** An error with this result code, 1…65535. */
  | { readonly refuse: number }
  | undefined;

/** A request that a policy is asked about. */
export type ServableRequest =
  | { readonly kind: "address" }
  | ({ readonly kind: "map" } & NatPmpMapFields);

/** The request as a policy sees it. */
export function questionOf(
  request: ServableRequest,
  from: Endpoint,
  existing: TableEntry | undefined,
): NatPmpQuestion {
  if (request.kind === "address") {
    return {
      from,
      operation: "address",
      protocol: undefined,
      internalPort: 0,
      suggestedExternalPort: 0,
      lifetimeSeconds: 0,
      existing,
    };
  }
  const { protocol, internalPort, suggestedExternalPort, lifetimeSeconds } = request;
  const operation = lifetimeSeconds > 0 ? "map" : internalPort > 0 ? "delete" : "delete-all";
  return {
    from,
    operation,
    protocol,
    internalPort,
    suggestedExternalPort,
    lifetimeSeconds,
    existing,
  };
}
