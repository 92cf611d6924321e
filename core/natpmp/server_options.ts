/**
 * How a NAT-PMP server is set up, and what it tells.
 *
 * @module
 */
import { checkAddress, checkChoice, checkInteger, checkLifetime, checkPort } from "../check.ts";
import type { Endpoint, Instant } from "../machine.ts";
import type { TableEntry } from "../table/entry.ts";
import { MappingTable } from "../table/table.ts";
import type { TableChangeKind } from "../table/watch.ts";
import { ANNOUNCEMENTS } from "./announcer.ts";
import { NATPMP_ANNOUNCE_ENDPOINT, type NatPmpRequest } from "./codec.ts";
import type { NatPmpQuestion, NatPmpVerdict } from "./server_question.ts";

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
  /** Whether requests are served, else refused (PMP-S-36); true where left out. */
  readonly isAuthorized?: boolean;
  /**
   * How another port is found where the wish cannot be had: `"any"` as the table chooses,
   * `"upwards"` the next free one above the wish (or above the internal port).
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
  /** Is asked before a request is served. */
  readonly decide?: (question: NatPmpQuestion, now: Instant) => NatPmpVerdict;
  /**
   * Tells requests, responses and the table's changes as events; `"packets"` leaves the table's
   * changes out. Nothing by default.
   */
  readonly trace?: boolean | "packets";
}

/** What a server answered. */
export interface NatPmpReply {
  /** RFC 6886 §3.5. */
  readonly resultCode: number;
  /** The result code's name. */
  readonly resultName: string;
  /** Seconds since the table was made or reset. */
  readonly epochSeconds: number;
  /** In the answer to an address request; undefined in an error. */
  readonly externalAddress?: string;
  /** In the answer to a mapping request. */
  readonly externalPort?: number;
  /** In the answer to a mapping request. */
  readonly lifetimeSeconds?: number;
}

/** What a NAT-PMP server tells when it traces. */
export type NatPmpServerEvent =
  /** A request came. */
  | {
    readonly type: "request";
    readonly via: "nat-pmp";
    readonly from: Endpoint;
    readonly request: NatPmpRequest;
  }
  /** It was answered; or, unsolicited, the external address was announced. */
  | {
    readonly type: "response";
    readonly via: "nat-pmp";
    readonly to: Endpoint;
    readonly request: NatPmpRequest;
    readonly response: NatPmpReply;
    readonly isUnsolicited: boolean;
  }
  /** The table changed. */
  | { readonly type: "mapping"; readonly change: TableChangeKind; readonly entry: TableEntry };

/** Options checked and filled in. */
export interface NatPmpServerSettings {
  readonly table: MappingTable;
  readonly maxLifetimeSeconds: number;
  readonly announceTo: readonly Endpoint[];
  readonly announceCopies: number;
  readonly announcesStart: boolean;
  readonly isInside: ((address: string) => boolean) | undefined;
  readonly isAuthorized: boolean;
  readonly portChoice: "any" | "upwards";
  readonly deletes: "all" | "own";
  readonly takesOver: boolean;
  readonly deleteAll: "one" | "both";
  readonly decide: ((question: NatPmpQuestion, now: Instant) => NatPmpVerdict) | undefined;
  readonly trace: boolean | "packets";
}

/**
 * Checks the options and fills in the defaults.
 *
 * @throws {TypeError | RangeError} Where an option is none, with its name and value.
 */
export function readServerOptions(options: NatPmpServerOptions): NatPmpServerSettings {
  if (!(options.table instanceof MappingTable)) {
    throw new TypeError(`'table' must be a MappingTable: current value is ${options.table}`);
  }
  return {
    table: options.table,
    maxLifetimeSeconds: checkLifetime("maxLifetimeSeconds", options.maxLifetimeSeconds ?? 86_400),
    announceTo: readEndpoints("announceTo", options.announceTo ?? [NATPMP_ANNOUNCE_ENDPOINT]),
    announceCopies: checkInteger("announceCopies", options.announceCopies ?? 10, 0, ANNOUNCEMENTS),
    announcesStart: options.announcesStart ?? true,
    isInside: options.isInside,
    isAuthorized: options.isAuthorized ?? true,
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
