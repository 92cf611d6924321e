/**
 * How a NAT-PMP server is set up.
 *
 * @module
 */
import { checkAddress, checkChoice, checkInteger, checkLifetime, checkPort } from "../check.ts";
import type { Endpoint } from "../machine.ts";
import { ANNOUNCE_COPIES } from "../table/repeats.ts";
import type { Policy } from "../table/server_request.ts";
import { MappingTable } from "../table/table.ts";
import { NATPMP_ANNOUNCE_ENDPOINT } from "./codec.ts";

/** How a NAT-PMP server is set up. */
export interface NatPmpServerOptions {
  /** The mapping table, which may be shared with other servers. */
  readonly table: MappingTable;
  /** The longest lifetime granted, seconds; 86,400 where left out. */
  readonly maxLifetimeSeconds?: number;
  /** Where announcements go; 224.0.0.1:5350 where left out, nowhere where empty. */
  readonly announceTo?: readonly Endpoint[];
  /** Copies of an announcement, 0…10; 10 where left out (PMP-S-08). */
  readonly announceCopies?: number;
  /** Whether a start is announced, too; true where left out (PMP-S-07). */
  readonly announcesStart?: boolean;
  /**
   * Whether a request is taken from that address: it has to be one from which the gateway's
   * inside sends (PMP-S-17). All but the external addresses are where left out.
   */
  readonly isInside?: (address: string) => boolean;
  /**
   * How another port is found where the one suggested cannot be had: `"any"` as the table
   * chooses, `"upwards"` the next free one above it (or above the internal port).
   */
  readonly portChoice?: "any" | "upwards";
  /**
   * Which mappings of a client a request may change: `"all"`, or `"own"`, those that NAT-PMP
   * made; deleting another one then does nothing and says that it worked.
   */
  readonly deletes?: "all" | "own";
  /** A request for a port that another protocol mapped takes the mapping over; not by default. */
  readonly takesOver?: boolean;
  /** Delete-all deletes `"one"` protocol's mappings, as the RFC has it, or those of `"both"`. */
  readonly deleteAll?: "one" | "both";
  /** The policy: is asked before a request is served (PMP-S-36). */
  readonly decide?: Policy;
  /**
   * Tells requests, responses and the table's changes as events; `"packets"` leaves the table's
   * changes out. Nothing by default.
   */
  readonly trace?: boolean | "packets";
}

/** Options checked and filled in. */
export interface NatPmpServerSettings {
  readonly table: MappingTable;
  readonly maxLifetimeSeconds: number;
  readonly announceTo: readonly Endpoint[];
  readonly announceCopies: number;
  readonly announcesStart: boolean;
  readonly isInside: ((address: string) => boolean) | undefined;
  readonly portChoice: "any" | "upwards";
  readonly deletes: "all" | "own";
  readonly takesOver: boolean;
  readonly deleteAll: "one" | "both";
  readonly decide: Policy | undefined;
  readonly trace: boolean | "packets";
}

/**
 * Checks the options and fills in the defaults.
 *
 * @throws {TypeError | RangeError} Where an option cannot be, with its name and value.
 */
export function readServerOptions(options: NatPmpServerOptions): NatPmpServerSettings {
  if (!(options.table instanceof MappingTable)) {
    throw new TypeError(`'table' must be a MappingTable: current value is ${options.table}`);
  }
  return {
    table: options.table,
    maxLifetimeSeconds: checkLifetime("maxLifetimeSeconds", options.maxLifetimeSeconds ?? 86_400),
    announceTo: readEndpoints("announceTo", options.announceTo ?? [NATPMP_ANNOUNCE_ENDPOINT]),
    announceCopies: checkInteger(
      "announceCopies",
      options.announceCopies ?? ANNOUNCE_COPIES,
      0,
      ANNOUNCE_COPIES,
    ),
    announcesStart: options.announcesStart ?? true,
    isInside: options.isInside,
    portChoice: checkChoice("portChoice", options.portChoice ?? "any", ["any", "upwards"]),
    deletes: checkChoice("deletes", options.deletes ?? "all", ["all", "own"]),
    takesOver: options.takesOver ?? false,
    deleteAll: checkChoice("deleteAll", options.deleteAll ?? "one", ["one", "both"]),
    decide: options.decide,
    trace: options.trace ?? false,
  };
}

function readEndpoints(name: string, endpoints: readonly Endpoint[]): readonly Endpoint[] {
  return endpoints.map(({ address, port }, i) => ({
    address: checkAddress(`${name}[${i}].address`, address, 4),
    port: checkPort(`${name}[${i}].port`, port),
  }));
}
