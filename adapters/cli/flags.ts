/**
 * Every flag of the command line: how it is written, what it means, how its value is read. The
 * help text and the parser are both made from this table.
 *
 * @module
 */
import { MAX_LIFETIME_SECONDS } from "../../core/check.ts";
import type { Via } from "../../core/errors.ts";
import type { Endpoint } from "../../core/machine.ts";
import type { MappingMode } from "../../core/mapping.ts";
import type { RemoteFilter } from "../../core/mapping.ts";
import {
  checkOneFamily,
  integerIn,
  type ListenAddress,
  PROTOCOLS,
  readDescription,
  readEndpoint,
  type Reader,
  readFilter,
  readGateway,
  readHostAddress,
  readLifetime,
  readListen,
  readMode,
  readPort,
  readStunServer,
  readText,
  readTurnServer,
  readVia,
  type TurnServer,
  UsageError,
} from "./values.ts";
import { viaName } from "./text.ts";

/** The values of the flags that were given. */
export interface FlagValues {
  readonly json?: true;
  readonly verbose?: true;
  readonly help?: true;
  readonly version?: true;
  readonly all?: true;
  readonly "prefer-failure"?: true;
  readonly "external-port"?: number;
  readonly "external-address"?: string;
  readonly lifetime?: number;
  readonly via?: readonly Via[];
  readonly gateway?: Endpoint;
  readonly "internal-address"?: string;
  readonly mode?: MappingMode;
  readonly filter?: readonly RemoteFilter[];
  readonly "third-party"?: string;
  readonly description?: string;
  readonly exec?: string;
  readonly state?: string;
  readonly timeout?: number;
  readonly listen?: ListenAddress;
  readonly alternate?: Endpoint;
  readonly stun?: readonly string[];
  readonly tcp?: true;
  readonly "max-lifetime"?: number;
  readonly port?: number;
  readonly external?: string;
  readonly protocols?: readonly Via[];
  readonly profile?: string;
  readonly "announce-port"?: number;
  readonly "http-port"?: number;
  readonly epoch?: number;
  readonly forward?: true;
  readonly scan?: number;
  readonly target?: readonly string[];
  readonly device?: string;
  readonly turn?: readonly TurnServer[];
  readonly udp?: true;
  readonly sdp?: true;
  readonly controlling?: true;
  readonly controlled?: true;
}

/** A flag's name, without the dashes. */
export type FlagName = keyof FlagValues;

/** One flag. */
export interface Flag {
  /** What stands for the value in the help text; absent for a flag without one. */
  readonly placeholder?: string;
  /** One line for the help text. */
  readonly summary: string;
  /** What the value may be, where that is a handful of words. */
  readonly words?: readonly string[];
  /** Whether several of these words may stand there, with commas between. */
  readonly isList?: boolean;
  /** Whether it may be given several times. */
  readonly isRepeatable?: boolean;
  /** Reads the value. */
  readonly read?: Reader<unknown>;
}

/** A repeatable flag reads one element at a time. */
type ReaderOf<T> = [T] extends [readonly (infer Each)[]] ? Reader<Each> | Reader<T> : Reader<T>;
type Table = {
  readonly [Name in FlagName]-?: NonNullable<FlagValues[Name]> extends true ? Flag
    : Flag & {
      readonly placeholder: string;
      readonly read: ReaderOf<NonNullable<FlagValues[Name]>>;
    };
};

/** The flags by name. */
export const FLAGS: Table = {
  "external-port": {
    placeholder: "N",
    summary: "the external port wished for (map: default PORT; 0: the gateway chooses)",
    read: integerIn(0, 65535),
  },
  "external-address": {
    placeholder: "A",
    summary: "the external address wished for (PCP)",
    read: readHostAddress,
  },
  lifetime: {
    placeholder: "S",
    summary: "the lifetime asked for, seconds (default 7200)",
    read: readLifetime,
  },
  via: {
    placeholder: "LIST",
    summary: "the protocols to use, of pcp, nat-pmp and upnp (default: all)",
    words: PROTOCOLS,
    isList: true,
    read: readVia,
  },
  gateway: {
    placeholder: "G",
    summary: "the gateway: ADDRESS, ADDRESS:PORT or [IPV6%zone]:PORT",
    read: readGateway,
  },
  "internal-address": {
    placeholder: "A",
    summary: "this host's address to send from and to map",
    read: readHostAddress,
  },
  mode: {
    placeholder: "M",
    summary: "keep-alive (default): hold it until SIGINT or SIGTERM, then delete it; " +
      "once: leave it and exit; N: hold it through N lifetimes",
    words: ["keep-alive", "once"],
    read: readMode,
  },
  "prefer-failure": {
    summary: "fail rather than take another external port (PCP, UPnP; needs --external-port)",
  },
  filter: {
    placeholder: "F",
    summary: "let in only ADDRESS/PREFIX[:PORT] or [IPV6/PREFIX]:PORT (PCP; UPnP: one host; " +
      "may be repeated)",
    isRepeatable: true,
    read: readFilter,
  },
  "third-party": {
    placeholder: "A",
    summary: "map for another host of this network (PCP; most gateways refuse)",
    read: readHostAddress,
  },
  description: {
    placeholder: "T",
    summary: "a text for the gateway's list (PCP, UPnP)",
    read: readDescription,
  },
  exec: {
    placeholder: "CMD",
    summary: "run this in the shell at each change (mapped, moved, lost, unmapped), with " +
      "NATKIT_EVENT, NATKIT_EXTERNAL_ADDRESS, NATKIT_EXTERNAL_PORT and more in its environment",
    read: readText,
  },
  all: { summary: "every mapping of this host, as far as the gateway lets us" },
  listen: {
    placeholder: "A",
    summary: "the address to listen on (default 0.0.0.0); stun-server: ADDRESS:PORT too",
    read: readListen,
  },
  alternate: {
    placeholder: "A:P",
    summary: "this host's other address, and another port, for NAT behaviour discovery",
    read: readEndpoint,
  },
  stun: {
    placeholder: "HOST:PORT",
    summary: "a STUN server to ask (may be repeated)",
    isRepeatable: true,
    read: readStunServer,
  },
  tcp: { summary: "over TCP" },
  "max-lifetime": {
    placeholder: "S",
    summary: "look for the life of an unused binding up to this, 4..3600 seconds; takes as long",
    read: integerIn(4, 3600),
  },
  port: {
    placeholder: "N",
    summary: "the port to listen on (default 5351; 0: a free one)",
    read: integerIn(0, 65535),
  },
  external: {
    placeholder: "A",
    summary: "the external address (default 203.0.113.7; an IPv6 firewall has none)",
    read: readHostAddress,
  },
  protocols: {
    placeholder: "LIST",
    summary: "the protocols to speak: some of pcp, nat-pmp and upnp (default all that there are)",
    words: PROTOCOLS,
    isList: true,
    read: readVia,
  },
  "http-port": {
    placeholder: "P",
    summary: "the port of UPnP's descriptions and actions (default: a free one)",
    read: integerIn(0, 65535),
  },
  epoch: {
    placeholder: "N",
    summary: "for how many seconds the gateway claims to be up (default 86400: a day)",
    read: integerIn(0, MAX_LIFETIME_SECONDS),
  },
  forward: { summary: "relay what arrives at a mapped port, TCP and UDP, to see it open" },
  profile: {
    placeholder: "NAME",
    summary: "the quirks of a real gateway",
    read: readText,
  },
  "announce-port": {
    placeholder: "P",
    summary: "the port to which announcements go (default 5350)",
    read: readPort,
  },
  scan: {
    placeholder: "SECONDS",
    summary: "how long to search for devices, 1..600 (default 3)",
    read: integerIn(1, 600),
  },
  target: {
    placeholder: "TYPE",
    summary: "search for this device or service type only (may be repeated; default: everything)",
    isRepeatable: true,
    read: readText,
  },
  device: {
    placeholder: "TEXT",
    summary: "of this device only: its UDN, address or name",
    read: readText,
  },
  turn: {
    placeholder: "USER:PASSWORD@HOST:PORT",
    summary: "a TURN server, the last way to the peer (UDP; may be repeated)",
    isRepeatable: true,
    read: readTurnServer,
  },
  udp: { summary: "over UDP (the default)" },
  sdp: { summary: "tickets as lines of SDP up to an empty line, for any ICE stack" },
  controlling: { summary: "begin in the role that decides which path is used" },
  controlled: { summary: "begin in the other role" },
  state: {
    placeholder: "FILE",
    summary: "where mappings are kept for a later unmap " +
      "(default $XDG_STATE_HOME/natkit/state.json)",
    read: readText,
  },
  timeout: {
    placeholder: "SECONDS",
    summary: "how long to wait for an answer (default 10)",
    read: integerIn(1, 86_400),
  },
  json: { summary: "one JSON object a line on standard output" },
  verbose: {
    summary: "each packet in a line on standard error: what it says, and why it was dropped " +
      "(NATKIT_DEBUG=1 likewise)",
  },
  help: { summary: "show this text" },
  version: { summary: "show the version" },
};

/** Flags that not every protocol can do something with, and who can. */
const NEEDS: { readonly [Name in FlagName]?: readonly Via[] } = {
  "external-address": ["pcp"],
  "prefer-failure": ["pcp", "upnp"],
  filter: ["pcp", "upnp"],
  "third-party": ["pcp"],
};

/** Throws where two flags contradict each other. */
export function checkFlags(flags: FlagValues): void {
  const addresses: (readonly [string, string])[] = [];
  if (flags.gateway) addresses.push(["--gateway", flags.gateway.address]);
  for (const name of ["internal-address", "external-address", "third-party"] as const) {
    const address = flags[name];
    if (address !== undefined) addresses.push([`--${name}`, address]);
  }
  for (const { prefix } of flags.filter ?? []) addresses.push(["--filter", prefix.address]);
  checkOneFamily(addresses);
  const { via } = flags;
  if (!via) return;
  for (const [name, able] of Object.entries(NEEDS) as [FlagName, readonly Via[]][]) {
    if (flags[name] === undefined || able.some((one) => via.includes(one))) continue;
    throw new UsageError(
      `--${name} needs ${able.map(viaName).join(" or ")}, but --via is "${via}"`,
    );
  }
  const ipv6 = addresses.find(([, address]) => address.includes(":"));
  if (ipv6 && via.every((one) => one === "nat-pmp")) {
    throw new UsageError(
      `${ipv6[0]} "${ipv6[1]}" needs PCP or UPnP, but --via is "${via}", which is IPv4 only`,
    );
  }
}
