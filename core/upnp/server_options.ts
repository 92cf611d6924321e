/**
 * How a simulated Internet gateway device is set up.
 *
 * @module
 */
import { checkAddress, checkChoice, checkInteger, checkLifetime, checkPort } from "../check.ts";
import { type Cidr, parseCidr } from "../cidr.ts";
import { withoutZone } from "../ip.ts";
import type { RandomSource } from "../random.ts";
import type { Policy } from "../table/server_request.ts";
import { MappingTable } from "../table/table.ts";
import { IGD_SERVICE } from "./igd.ts";
import { randomUuid } from "./publisher.ts";
import type { SsdpHabits, SsdpInterface } from "./responder.ts";
import { SSDP_PORT } from "./ssdp.ts";

/** Where a device is on the network. */
export interface IgdInterface {
  /** Its address there; with `%zone` where it is link-local. */
  readonly address: string;
  /** Who else is there: 0…32 or 0…128; everybody where left out. */
  readonly prefixLength?: number;
  /** IPv6: the interface's name, by which a group is joined. Default: the address's zone. */
  readonly name?: string;
}

/** One of the connections that a gateway describes. */
export interface IgdConnection {
  /** The type of its service; the version's WANIPConnection where left out. */
  readonly service?: string;
  /** Its ConnectionStatus; `"Connected"` where there is an external address, where left out. */
  readonly status?: string;
  /** The external address that it tells; the table's where left out. */
  readonly address?: string;
}

/** What makes a gateway peculiar; by default it does what the specifications ask for. */
export interface IgdHabits {
  /** How it is found. */
  readonly ssdp?: SsdpHabits;
  /** `"permanent"`: another lease than 0 gets {@linkcode leaseFault}. `"limited"`: so does 0. */
  readonly leases?: "permanent" | "limited";
  /** The code of a lease that is refused; 725 for permanent ones, 402 for limited ones. */
  readonly leaseFault?: number;
  /** The shortest lease granted, seconds. */
  readonly minLeaseSeconds?: number;
  /** The longest lease granted, seconds; in version 2 a week where left out. */
  readonly maxLeaseSeconds?: number;
  /** Every lease is this, seconds. */
  readonly fixedLeaseSeconds?: number;
  /** It tells 0 for every lease. */
  readonly hidesLease?: boolean;
  /** A mapping added again keeps the end of its first lease. */
  readonly ignoresRenewal?: boolean;
  /** A mapping added again is refused with this code. */
  readonly repeatFault?: number;
  /** Another host's mapping is overwritten without a word. */
  readonly overwrites?: boolean;
  /** The code of a mapping for another host; 606, in version 1 718. */
  readonly foreignFault?: number;
  /** The code where another has the port; 718, and in version 2 729 for another mechanism. */
  readonly conflictFault?: number;
  /** From so many mappings on it says that it made one and makes none. */
  readonly silentlyFullAt?: number;
  /** The code where no port or no room is left; 728, in version 1 501. */
  readonly fullFault?: number;
  /** The lowest external and internal port that it maps. */
  readonly minPort?: number;
  /** The code of a lower one; 606 where left out. `"drop"`: no answer at all. */
  readonly minPortFault?: number | "drop";
  /** `"required"`: the external port has to be the internal one, else 724; `"assumed"`: it becomes it. */
  readonly samePort?: "required" | "assumed";
  /** A remote host is refused with 726. */
  readonly isRemoteHostWildcard?: boolean;
  /** A protocol in lower case is refused with 402. */
  readonly wantsUpperCase?: boolean;
  /** Actions that it does not have: 401. */
  readonly lacks?: readonly string[];
  /** What actions come to, whatever they ask for: a code each. */
  readonly faults?: Readonly<Record<string, number>>;
  /** GetListOfPortMappings wants a start of 1 at least, else 402. */
  readonly listsFromOne?: boolean;
  /** A deletion of what is there is refused with 714, too, once it was added twice. */
  readonly losesRepeated?: boolean;
  /** Before what a description's own URLs stand; `"/"` where left out. */
  readonly pathPrefix?: string;
  /** Its URLs are others after each boot. */
  readonly hasRandomPaths?: boolean;
  /** Service descriptions are not there: 404. */
  readonly lacksScpd?: boolean;
  /** A deletion that finds nothing is said to have worked. */
  readonly deletesNothing?: boolean;
  /** A control URL takes actions of whatever service type. */
  readonly mixesServices?: boolean;
  /** A subscription is refused with this status. */
  readonly subscribeFault?: number;
}

/** How a simulated Internet gateway device is set up. */
export interface IgdServerOptions {
  /** The mapping table, which may be shared with other servers. */
  readonly table: MappingTable;
  /** Where its randomness comes from: the UUID, ids of subscriptions, delays of answers. */
  readonly random: RandomSource;
  /** Where it is on the network: it has its sockets at these addresses. */
  readonly interfaces: readonly IgdInterface[];
  /** The port of descriptions and actions, 0…65535; 0, a free one, where left out. */
  readonly httpPort?: number;
  /** SSDP's port, 0…65535; 1900 where left out. 0 takes a free one, for groups as well. */
  readonly ssdpPort?: number;
  /** Internet gateway device 1 or 2; 2 where left out. */
  readonly version?: 1 | 2;
  /** Its connections, the one that works first where left out: one. */
  readonly connections?: readonly IgdConnection[];
  /** Whether it has WANIPv6FirewallControl; version 2 where left out. */
  readonly hasFirewall?: boolean;
  /** What becomes of pinholes: 702 where the firewall is `"off"`, 703 where it is `"closed"`. */
  readonly pinholes?: "allowed" | "off" | "closed";
  /** The UUID of its devices, without `uuid:`; a random one where left out. */
  readonly uuid?: string;
  /** Its name for people. */
  readonly friendlyName?: string;
  /** Who made it. */
  readonly manufacturer?: string;
  /** What it is called by who made it. */
  readonly modelName?: string;
  /**
   * A host maps for itself alone (606, in version 1 718); true where left out.
   */
  readonly isSecure?: boolean;
  /** The longest lease granted, seconds; the habits', else by version, where left out. */
  readonly maxLeaseSeconds?: number;
  /** For how long an announcement counts, seconds; 1800 where left out. */
  readonly maxAgeSeconds?: number;
  /** Whether a request is taken from that address; by the interfaces' prefixes where left out. */
  readonly isInside?: (address: string) => boolean;
  /** Peculiarities. */
  readonly habits?: IgdHabits;
  /** The policy: is asked before an action is done. */
  readonly decide?: Policy;
  /** As the other servers have it. */
  readonly trace?: boolean | "packets";
}

/** An interface with its sockets. */
export interface IgdPlace extends SsdpInterface {
  /** The address with its zone, to bind to. */
  readonly bindTo: string;
  /** What the group is joined by. */
  readonly joinBy: string;
  /** The key of the socket that takes requests. */
  readonly httpSocket: string;
  /** Its port; undefined until it is open. */
  httpPort: number | undefined;
}

/** A connection, filled in. */
export interface ConnectionSettings {
  readonly service: string;
  readonly status: string | undefined;
  readonly address: string | undefined;
}

/** Options checked and filled in. */
export interface IgdSettings {
  readonly table: MappingTable;
  readonly random: RandomSource;
  readonly places: readonly IgdPlace[];
  readonly httpPort: number;
  readonly ssdpPort: number;
  readonly version: 1 | 2;
  readonly connections: readonly ConnectionSettings[];
  readonly hasFirewall: boolean;
  readonly pinholes: "allowed" | "off" | "closed";
  readonly uuid: string;
  readonly friendlyName: string;
  readonly manufacturer: string;
  readonly modelName: string;
  readonly isSecure: boolean;
  readonly maxLeaseSeconds: number | undefined;
  readonly maxAgeSeconds: number;
  readonly isInside: ((address: string) => boolean) | undefined;
  readonly habits: IgdHabits;
  readonly decide: Policy | undefined;
  readonly trace: boolean | "packets";
}

/**
 * Checks the options and fills in the defaults.
 *
 * @throws {TypeError | RangeError} Where an option cannot be, with its name and value.
 */
export function readIgdOptions(options: IgdServerOptions): IgdSettings {
  if (!(options.table instanceof MappingTable)) {
    throw new TypeError(`'table' must be a MappingTable: current value is ${options.table}`);
  }
  const { habits = {}, random } = options;
  const version = checkInteger("version", options.version ?? 2, 1, 2) as 1 | 2;
  const ssdpPort = checkPort("ssdpPort", options.ssdpPort ?? SSDP_PORT, 0);
  const maxLease = options.maxLeaseSeconds ?? habits.maxLeaseSeconds;
  const service = version === 2 ? IGD_SERVICE.WAN_IP_2 : IGD_SERVICE.WAN_IP_1;
  return {
    table: options.table,
    random,
    places: readPlaces(options.interfaces, ssdpPort),
    httpPort: checkPort("httpPort", options.httpPort ?? 0, 0),
    ssdpPort,
    version,
    connections: (options.connections ?? [{}])
      .map((one) => ({ service, status: undefined, address: undefined, ...one })),
    hasFirewall: options.hasFirewall ?? version === 2,
    pinholes: checkChoice("pinholes", options.pinholes ?? "allowed", ["allowed", "off", "closed"]),
    uuid: options.uuid ?? randomUuid(random),
    friendlyName: options.friendlyName ?? "Simulated gateway",
    manufacturer: options.manufacturer ?? "natkit",
    modelName: options.modelName ?? "Simulated gateway",
    isSecure: options.isSecure ?? true,
    maxLeaseSeconds: maxLease === undefined
      ? undefined
      : checkLifetime("maxLeaseSeconds", maxLease),
    maxAgeSeconds: checkInteger("maxAgeSeconds", options.maxAgeSeconds ?? 1800, 60, 86_400),
    isInside: options.isInside,
    habits,
    decide: options.decide,
    trace: options.trace ?? false,
  };
}

function readPlaces(interfaces: readonly IgdInterface[], port: number): readonly IgdPlace[] {
  const places = interfaces.map(({ address: text, prefixLength, name }, i): IgdPlace => {
    const bindTo = checkAddress(`interfaces[${i}].address`, text);
    const address = withoutZone(bindTo);
    const prefix = readPrefix(address, prefixLength, i);
    return {
      address,
      prefix,
      bindTo,
      joinBy: prefix.family === 4 ? address : name ?? bindTo.slice(address.length + 1),
      socket: `ssdp ${bindTo}`,
      groupSocket: `ssdp-group ${bindTo}`,
      httpSocket: `http ${bindTo}`,
      httpPort: undefined,
      port,
    };
  });
  if (places.length > 0) return places;
  throw new TypeError("'interfaces' must hold an address: current value is empty");
}

function readPrefix(address: string, length: number | undefined, i: number): Cidr {
  const bits = address.includes(":") ? 128 : 32;
  checkInteger(`interfaces[${i}].prefixLength`, length ?? 0, 0, bits);
  return parseCidr(`${address}/${length ?? 0}`)!;
}
