/**
 * How a PCP server is set up.
 *
 * @module
 */
import { checkAddress, checkInteger, checkPort } from "../check.ts";
import type { Endpoint, Instant } from "../machine.ts";
import type { MappingTable, Policy } from "../table/mod.ts";
import { ANNOUNCE_COPIES } from "../table/repeats.ts";
import { PCP_ANNOUNCE_PORT } from "./constants.ts";
import { MAX_DESCRIPTION_BYTES, type UnknownOption } from "./options.ts";
import { type Prefix64, prefix64Option } from "./prefix64.ts";

/** How a PCP server is set up. */
export interface PcpServerOptions {
  /** The table that it keeps its mappings in, shared with other protocols' servers. */
  readonly table: MappingTable;
  /** When its epoch begins; 0 where left out. `reset` sets it again. */
  readonly startedAt?: Instant;
  /** Whether MAP is served; true where left out (PCP-S-24). */
  readonly mapEnabled?: boolean;
  /** Whether PEER is served; true where left out (PCP-S-24). */
  readonly peerEnabled?: boolean;
  /**
   * Whether a request is taken from that address: it has to be one from which the gateway's
   * inside sends (PCP-S-01). All are where left out.
   */
  readonly isInside?: (address: string) => boolean;
  /**
   * Whether THIRD_PARTY is allowed, or to which client for which internal address; false where
   * left out (PCP-S-44).
   */
  readonly allowThirdParty?: boolean | ((client: string, internal: string) => boolean);
  /** Whether PREFER_FAILURE is known; true where left out. */
  readonly allowPreferFailure?: boolean;
  /** Whether all ports of a protocol, or of all, may be mapped; true where left out. */
  readonly allowWildcards?: boolean;
  /** Protocols that can be mapped; TCP, UDP, DCCP, SCTP and UDP-Lite where left out. */
  readonly protocols?: readonly number[];
  /** The shortest lifetime granted to a mapping, seconds, from 1 on; 120 where left out. */
  readonly minLifetimeSeconds?: number;
  /** The longest lifetime granted, seconds; 86,400 where left out. */
  readonly maxLifetimeSeconds?: number;
  /**
   * The shortest lifetime granted to PEER, seconds: longer than an implicit mapping's (PCP-S-43);
   * 300 where left out.
   */
  readonly minPeerLifetimeSeconds?: number;
  /** How long clients are to heed errors that pass soon, seconds; 30 where left out. */
  readonly shortErrorSeconds?: number;
  /** How long clients are to heed errors that stay, seconds; 1800 where left out. */
  readonly longErrorSeconds?: number;
  /** Filters that one mapping may have, 1…32; 8 where left out (PCP-S-46). */
  readonly maxFilters?: number;
  /** Bytes of a DESCRIPTION that are kept, 0…1016, 0 for not supported; 128 where left out. */
  readonly maxDescriptionBytes?: number;
  /** Ports in a PORT_SET, 1…4096, 1 for not supported; 64 where left out. */
  readonly maxPortSetSize?: number;
  /** What to tell those who ask for the NAT64's prefix (RFC 7225); nothing where left out. */
  readonly prefix64?: Prefix64;
  /** Copies of an announcement, 0…10; 10 where left out (PCP-S-50). */
  readonly announceCopies?: number;
  /** Where announcements go; 224.0.0.1 and ff02::1, port 5350, where left out. */
  readonly announceTo?: readonly Endpoint[];
  /** The policy: is asked once a request has been found valid, before anything changes. */
  readonly decide?: Policy;
  /**
   * Tell each request, response and mapping as an event; `"packets"` leaves the mappings to who
   * watches the table. False where left out: then nothing is spent on it.
   */
  readonly trace?: boolean | "packets";
}

/** Options checked and filled in. */
export interface PcpServerSettings {
  readonly mapEnabled: boolean;
  readonly peerEnabled: boolean;
  readonly isInside: ((address: string) => boolean) | undefined;
  readonly isThirdPartyAllowed: (client: string, internal: string) => boolean;
  readonly allowPreferFailure: boolean;
  readonly allowWildcards: boolean;
  readonly protocols: ReadonlySet<number>;
  readonly minLifetimeSeconds: number;
  readonly maxLifetimeSeconds: number;
  readonly minPeerLifetimeSeconds: number;
  readonly shortErrorSeconds: number;
  readonly longErrorSeconds: number;
  readonly maxFilters: number;
  readonly maxDescriptionBytes: number;
  readonly maxPortSetSize: number;
  readonly prefix64: UnknownOption | undefined;
  readonly announceCopies: number;
  readonly announceTo: readonly Endpoint[];
  readonly decide: Policy | undefined;
}

const DAY_SECONDS = 86_400;

/**
 * Checks the options and fills in the defaults.
 *
 * @throws {TypeError | RangeError} Where an option cannot be, with its name and value.
 */
export function readServerOptions(options: PcpServerOptions): PcpServerSettings {
  const allowed = options.allowThirdParty ?? false;
  const integer = (
    name: keyof PcpServerOptions,
    fallback: number,
    low: number,
    high: number,
  ): number => checkInteger(name, options[name] ?? fallback, low, high);
  const maxLifetimeSeconds = integer("maxLifetimeSeconds", DAY_SECONDS, 1, 0xffff_fffe);
  // A default gives way to a limit that was set; what was set is checked against it.
  const floor = (name: "minLifetimeSeconds" | "minPeerLifetimeSeconds", usual: number): number =>
    integer(name, Math.min(usual, maxLifetimeSeconds), 1, maxLifetimeSeconds);
  return {
    mapEnabled: options.mapEnabled ?? true,
    peerEnabled: options.peerEnabled ?? true,
    isInside: options.isInside,
    isThirdPartyAllowed: typeof allowed === "function" ? allowed : () => allowed,
    allowPreferFailure: options.allowPreferFailure ?? true,
    allowWildcards: options.allowWildcards ?? true,
    protocols: readProtocols("protocols", options.protocols ?? [6, 17, 33, 132, 136]),
    minLifetimeSeconds: floor("minLifetimeSeconds", 120),
    maxLifetimeSeconds,
    minPeerLifetimeSeconds: floor("minPeerLifetimeSeconds", 300),
    shortErrorSeconds: integer("shortErrorSeconds", 30, 0, 0xffff_ffff),
    longErrorSeconds: integer("longErrorSeconds", 1800, 0, 0xffff_ffff),
    maxFilters: integer("maxFilters", 8, 1, 32),
    maxDescriptionBytes: integer("maxDescriptionBytes", 128, 0, MAX_DESCRIPTION_BYTES),
    maxPortSetSize: integer("maxPortSetSize", 64, 1, 4096),
    prefix64: options.prefix64 && prefix64Option(options.prefix64),
    announceCopies: integer("announceCopies", ANNOUNCE_COPIES, 0, ANNOUNCE_COPIES),
    announceTo: (options.announceTo ?? [
      { address: "224.0.0.1", port: PCP_ANNOUNCE_PORT },
      { address: "ff02::1", port: PCP_ANNOUNCE_PORT },
    ]).map(({ address, port }, i) => ({
      address: checkAddress(`announceTo[${i}].address`, address),
      port: checkPort(`announceTo[${i}].port`, port),
    })),
    decide: options.decide,
  };
}

function readProtocols(name: string, protocols: readonly number[]): ReadonlySet<number> {
  return new Set(protocols.map((number, i) => checkInteger(`${name}[${i}]`, number, 1, 255)));
}
