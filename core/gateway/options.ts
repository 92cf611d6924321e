/**
 * How a simulated gateway is set up.
 *
 * @module
 */
import { checkAddress, checkLifetime, checkList, checkPort, show } from "../check.ts";
import { type Cidr, contains, isWildcard, parseCidr } from "../cidr.ts";
import { familyOf } from "../ip.ts";
import type { Endpoint } from "../machine.ts";
import { PCP_ANNOUNCE_PORT } from "../pcp/constants.ts";
import type { RandomSource } from "../random.ts";
import type { MappingTableOptions } from "../table/mod.ts";
import type { Policy } from "../table/server_request.ts";
import type { IgdServerOptions } from "../upnp/server_options.ts";
import type { GatewayDecision } from "./policy.ts";
import type { GatewayProtocol, Profile } from "./profile.ts";
import { profileNamed } from "./profiles.ts";

/** How a simulated gateway is set up. */
export interface SimulatedGatewayOptions {
  /** Where its randomness comes from: ports, loss, reordering. */
  readonly random: RandomSource;
  /**
   * Its external IPv4 addresses; the first is preferred, an empty list is a WAN that is down.
   * Left out it is an IPv6 firewall that translates nothing, for PCP alone.
   */
  readonly externalAddresses?: readonly string[];
  /** What it speaks; the profile's choice, else PCP and (over IPv4) NAT-PMP, where left out. */
  readonly protocols?: readonly GatewayProtocol[];
  /**
   * Its Internet gateway device: where it is, where `listen` does not say that, and what the
   * profile's is not to be. Given, it can be switched on though `protocols` leaves it out.
   */
  readonly upnp?: UpnpOptions;
  /** Peculiarities: a name from `PROFILES`, or a profile; none where left out. */
  readonly profile?: string | Profile;
  /**
   * Where it listens: then it lists its sockets, for a driver to open. Where left out, its caller
   * opens them by role.
   */
  readonly listen?: Endpoint;
  /** Prefixes of the inside, such as `"192.168.1.0/24"`; requests from elsewhere are dropped. */
  readonly internalPrefixes?: readonly string[];
  /** The longest lifetime granted, seconds; the profile's, else 86,400, where left out. */
  readonly maxLifetimeSeconds?: number;
  /** The shortest lifetime PCP grants, seconds; the profile's, else 120, where left out. */
  readonly minLifetimeSeconds?: number;
  /**
   * How long its epochs have run when it first boots, 0…4,294,967,295 seconds; 0 where left out. The
   * restart of one that is only seconds old cannot be noticed by its epoch (RFC 6887 §8.5).
   */
  readonly epochSeconds?: number;
  /** Port ranges, quotas and bounds of the mapping table. */
  readonly table?: Omit<MappingTableOptions, "externalAddresses" | "firewallFamilies" | "random">;
  /** The port to which announcements go; 5350 where left out. */
  readonly announcePort?: number;
  /** Where announcements go instead of 224.0.0.1 or ff02::1; nowhere where empty. */
  readonly announceTo?: readonly Endpoint[];
  /**
   * This host's IPv4 addresses on the links where announcements are made, where it listens at any
   * address; the link that the system chooses where left out.
   */
  readonly announceBy?: readonly string[];
  /** Who may use THIRD_PARTY; nobody where left out. */
  readonly allowThirdParty?: boolean | ((client: string, internal: string) => boolean);
  /** The policy: is asked about every valid request. Scenarios and profile go first. */
  readonly decide?: Policy<GatewayDecision>;
  /** Tells requests, responses and changes of the table as events; false where left out. */
  readonly trace?: boolean;
}

/** How a simulated gateway's Internet gateway device is set up. */
export type UpnpOptions = Partial<
  Omit<
    IgdServerOptions,
    "table" | "random" | "decide" | "trace" | "isInside" | "maxLeaseSeconds"
  >
>;

/** Options checked and filled in. */
export interface GatewaySettings {
  readonly random: RandomSource;
  readonly family: 4 | 6;
  readonly externalAddresses: readonly string[];
  readonly protocols: readonly GatewayProtocol[];
  readonly profile: Profile | undefined;
  readonly listen: Endpoint | undefined;
  readonly upnp: UpnpOptions & Pick<IgdServerOptions, "interfaces"> | undefined;
  readonly isInside: (address: string) => boolean;
  /** Whether that was told, and is not all that its family has. */
  readonly knowsInside: boolean;
  readonly maxLifetimeSeconds: number | undefined;
  readonly minLifetimeSeconds: number | undefined;
  readonly epochSeconds: number;
  readonly table: SimulatedGatewayOptions["table"];
  readonly announceTo: readonly Endpoint[];
  readonly announceBy: readonly string[] | undefined;
  /** NAT-PMP's announcements go there, too. */
  readonly extraAnnounceTo: readonly Endpoint[];
  readonly allowThirdParty: boolean | ((client: string, internal: string) => boolean);
  readonly decide: Policy<GatewayDecision> | undefined;
  readonly trace: boolean;
}

const PROTOCOLS: readonly GatewayProtocol[] = ["pcp", "nat-pmp", "upnp"];

/**
 * Checks the options and fills in the defaults.
 *
 * @throws {TypeError | RangeError} Where an option cannot be, with its name and value.
 */
export function readGatewayOptions(options: SimulatedGatewayOptions): GatewaySettings {
  if (typeof options.random?.u32 !== "function") {
    throw new TypeError(`'random' must be a RandomSource: current value is ${options.random}`);
  }
  const family = options.externalAddresses === undefined ? 6 : 4;
  const profile = readProfile(options.profile);
  const { maxLifetimeSeconds: max, minLifetimeSeconds: min } = options;
  const protocols = readProtocols(options, profile, family);
  return {
    random: options.random,
    family,
    externalAddresses: checkList("externalAddresses", options.externalAddresses ?? [])
      .map((address, i) => checkAddress(`externalAddresses[${i}]`, address, 4)),
    protocols,
    profile,
    listen: options.listen,
    upnp: readUpnp(options, profile, protocols.includes("upnp"), family),
    isInside: readInside(options.internalPrefixes, family),
    knowsInside: options.internalPrefixes !== undefined,
    maxLifetimeSeconds: max === undefined ? max : checkLifetime("maxLifetimeSeconds", max),
    minLifetimeSeconds: min === undefined ? min : checkLifetime("minLifetimeSeconds", min),
    epochSeconds: checkLifetime("epochSeconds", options.epochSeconds ?? 0, 0),
    table: options.table,
    announceTo: readAnnounceTo(options, family),
    extraAnnounceTo: (options.announceTo ? [] : profile?.extraAnnouncePorts ?? [])
      .map((port) => ({ address: "224.0.0.1", port })),
    announceBy: options.announceBy && checkList("announceBy", options.announceBy)
      .map((address, i) => checkAddress(`announceBy[${i}]`, address, 4)),
    allowThirdParty: options.allowThirdParty ?? false,
    decide: options.decide,
    trace: options.trace ?? false,
  };
}

function readProfile(profile: string | Profile | undefined): Profile | undefined {
  if (typeof profile === "string") return profileNamed(profile);
  if (profile === undefined || (typeof profile === "object" && profile !== null)) return profile;
  throw new TypeError(`'profile' must be a name or a profile: current value is ${show(profile)}`);
}

function readProtocols(
  options: SimulatedGatewayOptions,
  profile: Profile | undefined,
  family: 4 | 6,
): readonly GatewayProtocol[] {
  const known = family === 4 ? PROTOCOLS : PROTOCOLS.filter((one) => one !== "nat-pmp");
  for (const protocol of checkList("protocols", options.protocols ?? [])) {
    if (known.includes(protocol)) continue;
    const allowed = known.join(", ");
    throw new TypeError(
      family === 6 && protocol === "nat-pmp"
        ? `'protocols' must be ${allowed} without 'externalAddresses': current value is "${protocol}"`
        : `'protocols' must hold ${allowed}: current value is "${protocol}"`,
    );
  }
  const wanted = options.protocols ?? profile?.protocols ?? ["pcp", "nat-pmp"];
  return known.filter((protocol) => wanted.includes(protocol));
}

function readUpnp(
  { upnp, listen }: SimulatedGatewayOptions,
  profile: Profile | undefined,
  isOn: boolean,
  family: 4 | 6,
): GatewaySettings["upnp"] {
  if (!upnp && !isOn) return undefined;
  const own = listen && !isWildcard(listen.address) ? [{ address: listen.address }] : undefined;
  const interfaces = upnp?.interfaces ?? own;
  if (interfaces) {
    const habits = { ...profile?.upnp?.habits, ...upnp?.habits };
    // A firewall has its connection without having an address of its own to tell.
    const connections = family === 6 ? { connections: [{ status: "Connected", address: "" }] } : {};
    return { ...connections, ...profile?.upnp, ...upnp, habits, interfaces };
  }
  throw new TypeError(
    "'upnp.interfaces' must be given where 'listen' names no address: current value is undefined",
  );
}

function readInside(
  prefixes: readonly string[] | undefined,
  family: 4 | 6,
): (address: string) => boolean {
  if (!prefixes) return (address) => familyOf(address) === family;
  const inside: Cidr[] = prefixes.map((text, i) => {
    const prefix = parseCidr(text);
    if (prefix) return prefix;
    throw new TypeError(`'internalPrefixes[${i}]' must be a prefix: current value is "${text}"`);
  });
  return (address) =>
    familyOf(address) === family && inside.some((prefix) => contains(prefix, address));
}

function readAnnounceTo(
  options: SimulatedGatewayOptions,
  family: 4 | 6,
): readonly Endpoint[] {
  if (options.announceTo) {
    return checkList("announceTo", options.announceTo).map((to, i) => ({
      address: checkAddress(`announceTo[${i}].address`, to?.address, family),
      port: checkPort(`announceTo[${i}].port`, to.port),
    }));
  }
  const port = checkPort("announcePort", options.announcePort ?? PCP_ANNOUNCE_PORT);
  return [{ address: family === 4 ? "224.0.0.1" : "ff02::1", port }];
}
