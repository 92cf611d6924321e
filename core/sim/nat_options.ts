/**
 * How a NAT behaves: the axes of RFC 4787, and the mapping table that forwards beside it.
 *
 * @module
 */
import type { Cidr } from "../cidr.ts";
import type { Endpoint, Instant } from "../machine.ts";
import type { NatDependence, NatPortAssignment } from "./nat_table.ts";
import type { Interface } from "./segment.ts";

/**
 * The mapping table of a gateway, as its NAT sees it. Protocols are IANA's numbers; what is asked
 * changes nothing.
 */
export interface PortForwarder {
  /** Where what `remote` sends to `external` goes; undefined where the table says nothing. */
  lookupInbound(
    protocol: number,
    external: Endpoint,
    remote: Endpoint,
    now: Instant,
  ): Endpoint | undefined;
  /** As whom `internal` talks to `remote`; undefined where the table says nothing. */
  lookupOutbound(
    protocol: number,
    internal: Endpoint,
    remote: Endpoint,
    now: Instant,
  ): Endpoint | undefined;
  /** Whether a mapping of the table has that external port, which no flow may take then. */
  holds(protocol: number, external: Endpoint, now: Instant): boolean;
  /** Is told of each packet that goes out, as whom, and how long the NAT keeps it in mind. */
  noteOutbound?(
    protocol: number,
    internal: Endpoint,
    external: Endpoint,
    remote: Endpoint,
    idleMs: number,
    now: Instant,
  ): void;
}

/** The values of {@linkcode NatDependence}, the most open one first. */
export const NAT_DEPENDENCES: readonly NatDependence[] = [
  "endpoint-independent",
  "address-dependent",
  "address-and-port-dependent",
];

/** The values of {@linkcode NatPortAssignment}. */
export const NAT_PORT_ASSIGNMENTS: readonly NatPortAssignment[] = [
  "preserving",
  "random",
  "contiguous",
  "overloading",
  "untranslated",
];

/**
 * What becomes of packets from the inside to the NAT's own outside (RFC 4787 §6): dropped, or
 * delivered with the sender's internal or (REQ-9) external endpoint as their source.
 */
export type NatHairpin = "none" | "internal-source" | "external-source";

/** How a NAT behaves. The defaults are what RFC 4787 asks for. */
export interface NatOptions {
  /** The interface to its clients. */
  readonly inside: Interface;
  /** The interface to the world. */
  readonly outside: Interface;
  /** Its external addresses. Default: those of the outside interface, of its first one's family. */
  readonly external?: readonly string[];
  /** Which remotes share a mapping. Default endpoint-independent. */
  readonly mapping?: NatDependence;
  /** Which remotes a mapping lets in. Default address-dependent. */
  readonly filtering?: NatDependence;
  /** Which port a mapping gets. Default preserving. */
  readonly ports?: NatPortAssignment;
  /** What becomes of packets from inside to its own outside. Default external source. */
  readonly hairpin?: NatHairpin;
  /** How a client gets one of several external addresses (REQ-2). Default paired. */
  readonly pooling?: "paired" | "arbitrary";
  /** How long an unused mapping lives, milliseconds. Default 5 minutes (REQ-5). */
  readonly timeoutMs?: number;
  /** Whether what comes in keeps a mapping alive. Default false. */
  readonly inboundRefresh?: boolean;
  /** Whether what is blocked is answered with ICMP port unreachable. Default false. */
  readonly rejects?: boolean;
  /** The most mappings there may be. Default 65536. */
  readonly maxMappings?: number;
  /** The prefix inside, of a firewall (`ports: "untranslated"`). */
  readonly prefix?: Cidr;
  /** The table that says what else is forwarded. */
  readonly forwarder?: PortForwarder;
}
