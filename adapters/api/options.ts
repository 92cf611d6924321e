/**
 * What the promise API takes, its checks by the names that it has here, and its translation into
 * the core's requests.
 *
 * @module
 */
import { checkChoice, checkFamily, checkList, checkPort, show } from "../../core/check.ts";
import { parseCidr } from "../../core/cidr.ts";
import { pickDefined } from "../../core/defined.ts";
import { PREFERENCE, type Via } from "../../core/errors.ts";
import { canonicalAddress, type Family, parseEndpoint } from "../../core/ip.ts";
import { readState } from "../../core/lease/saved.ts";
import type { Endpoint } from "../../core/machine.ts";
import type { MappingMode, RemoteFilter, Transport } from "../../core/mapping.ts";
import type { PortRequest, SavedPort } from "../../core/portmap/managed.ts";
import { PCP_PORT } from "../../core/pcp/constants.ts";
import type { Runtime } from "../runtime.ts";
import { checkOptions, type WaitOptions } from "./wait.ts";

/** How to open a {@linkcode Nat}. */
export interface NatOptions {
  /** The runtime's adapter. Default: the one that is running. */
  readonly runtime?: Runtime;
  /**
   * The gateway, which then is not looked for: `"192.168.1.1"`, `"192.168.1.1:5351"`,
   * `"[fe80::1%eth0]:5351"` or an endpoint.
   */
  readonly gateway?: string | Endpoint;
  /** The address of this host from which the gateway is asked, and to which it maps. */
  readonly internalAddress?: string;
  /** What may be spoken. Default: all that suits the address family. */
  readonly protocols?: readonly Via[];
  /** What {@linkcode Nat.exportState} gave in an earlier run. */
  readonly state?: NatState;
  /**
   * Called with the state whenever it has changed, so that a run that ends without notice leaves
   * what the next one needs to take its mappings up. Before a request leaves that only its nonce
   * can take back it is called, too; where it returns a promise, the request waits for that.
   */
  readonly onState?: (state: NatState) => unknown;
  /** Whether to listen for the gateway's announcements. Default true. */
  readonly announcements?: boolean;
  /** Retransmits first requests after 250 and 750 ms rather than 3 s. Default true. */
  readonly fastStart?: boolean;
  /**
   * STUN servers, `"HOST"`, `"HOST:PORT"`, `"[IPV6]:PORT"` or endpoints, eight at most: the sockets of
   * {@linkcode Nat.bindUdp} are told with how they see them. Default: none.
   */
  readonly stunServers?: readonly (string | Endpoint)[];
  /** Ends the opening. */
  readonly signal?: AbortSignal;
}

/** What a later run needs to adopt or delete the mappings of this one. JSON-safe. */
export interface NatState {
  /** The format. */
  readonly version: 1;
  /** The mappings. */
  readonly mappings: readonly SavedPort[];
}

/** What inbound and outbound mappings can both be asked for. */
export interface MappingOptions extends WaitOptions {
  /** The transport protocol. Default `"tcp"`. */
  readonly protocol?: Transport;
  /** The external port wished for, 0…65535; 0: the gateway chooses. Default: the internal port. */
  readonly externalPort?: number;
  /** The external address wished for (PCP). */
  readonly externalAddress?: string;
  /** Lifetime asked for, seconds. The gateway may grant another. Default 7200. */
  readonly lifetimeSeconds?: number;
  /** `"keep-alive"` (default) renews until closed, `"once"` does not, N holds N lifetimes. */
  readonly mode?: MappingMode;
  /** Maps for another host of the internal network (PCP; most gateways refuse). */
  readonly thirdParty?: string;
  /** A text for the gateway's list (PCP). */
  readonly description?: string;
  /** The address family, where the host has gateways of both. Default: IPv4 if there is one. */
  readonly family?: Family;
}

/** What an inbound mapping can be asked for. */
export interface MapOptions extends MappingOptions {
  /** Fails rather than take another external port than `externalPort` (PCP). */
  readonly preferFailure?: boolean;
  /** Who may send: `"ADDR/PREFIX"`, `"ADDR/PREFIX:PORT"`, `"[ADDR6/PREFIX]:PORT"` (PCP). */
  readonly filters?: readonly (string | RemoteFilter)[];
  /** Maps this many consecutive ports, 2…65535 (PCP). */
  readonly portSetSize?: number;
}

/** What an outbound mapping can be asked for. */
export type PeerOptions = MappingOptions;

/** What TCP and UDP on one port can be asked for. */
export type MapBothOptions = Omit<MapOptions, "protocol" | "portSetSize">;

/** What a watched port can be asked for. */
export type WatchOptions = Omit<MapOptions, "mode" | "portSetSize" | "timeoutMs" | "signal">;

/** Where to bind a socket whose port is mapped. */
export interface BindOptions extends Omit<WatchOptions, "protocol" | "thirdParty"> {
  /** The port to bind, 0…65535; 0, the default: one that is free. */
  readonly port?: number;
  /**
   * The address to bind. Default: every one; a UDP socket then hears IPv4 alone, and both families
   * where this is `"::"`.
   */
  readonly address?: string;
}

/** What identifies a mapping to delete. */
export interface UnmapOptions extends WaitOptions {
  /** The transport protocol. Default `"tcp"`. */
  readonly protocol?: Transport;
  /** The host it was made for, where that is another one (PCP). */
  readonly thirdParty?: string;
  /** The address family, where the host has gateways of both. */
  readonly family?: Family;
}

/**
 * Reads a filter.
 *
 * @throws {TypeError} Where it is not a prefix with an optional port.
 */
export function parseFilter(filter: string | RemoteFilter): RemoteFilter {
  if (typeof filter !== "string") return filter;
  const match = /^\[([^\]]+)\](?::([0-9]{1,5}))?$/.exec(filter) ??
    /^([0-9.]+(?:\/[0-9]+)?)(?::([0-9]{1,5}))?$/.exec(filter) ?? [filter, filter];
  const prefix = parseCidr(match[1]!);
  const port = match[2] === undefined ? 0 : Number(match[2]);
  if (!prefix || port > 65535) {
    throw new TypeError(
      `'filters' must hold ADDRESS/PREFIX or ADDRESS/PREFIX:PORT: current value is "${filter}"`,
    );
  }
  return { prefix, port };
}

function parseFilters(filters: readonly (string | RemoteFilter)[]): RemoteFilter[] {
  return checkList("filters", filters).map(parseFilter);
}

/**
 * Reads a gateway.
 *
 * @param name What the option is called.
 * @throws {TypeError} Where it is not an address with an optional port.
 */
export function parseGateway(gateway: string | Endpoint, name: string = "gateway"): Endpoint {
  if (typeof gateway === "string") {
    const endpoint = parseEndpoint(gateway, PCP_PORT);
    if (endpoint && endpoint.port > 0) return endpoint;
  } else if (typeof gateway === "object" && gateway !== null) {
    const address = typeof gateway.address === "string"
      ? canonicalAddress(gateway.address)
      : undefined;
    if (address !== undefined) return { address, port: checkPort(`${name}.port`, gateway.port) };
  }
  const shown = show(typeof gateway === "string" ? gateway : gateway?.address);
  throw new TypeError(
    `'${name}' must be ADDRESS, ADDRESS:PORT or [IPV6%zone]:PORT: current value is ${shown}`,
  );
}

/**
 * Checks a state.
 *
 * @throws {TypeError | RangeError} Where it is not what `exportState` gives.
 */
export function checkState(state: NatState | undefined): readonly SavedPort[] {
  if (state === undefined) return [];
  readState(state);
  for (const { protocol } of state.mappings) checkChoice("protocol", protocol, ["tcp", "udp"]);
  return state.mappings;
}

/**
 * Checks a choice of protocols.
 *
 * @throws {TypeError} Where it is not a list of them.
 */
export function checkProtocols(protocols: readonly Via[] | undefined): readonly Via[] | undefined {
  if (protocols === undefined) return undefined;
  for (const via of checkList("protocols", protocols)) checkChoice("protocols", via, PREFERENCE);
  return protocols;
}

function toCommon(port: number, options: MappingOptions, externalPort: number): PortRequest {
  checkOptions(options);
  // The checks of the core name the fields of its request; here they have other names.
  checkPort("port", port);
  const external = {
    port: checkPort("externalPort", options.externalPort ?? externalPort, 0),
    ...(options.externalAddress !== undefined && { address: options.externalAddress }),
  };
  const hasExternal = external.port !== 0 || external.address !== undefined;
  if (options.family !== undefined) checkFamily("family", options.family);
  return {
    protocol: checkChoice("protocol", options.protocol ?? "tcp", ["tcp", "udp"]),
    internalPort: port,
    ...(hasExternal && { suggestedExternal: external }),
    ...pickDefined(options, "lifetimeSeconds", "mode", "thirdParty", "description", "family"),
  };
}

/** What the core's requests call otherwise than the options here. */
const NAMES: Readonly<Record<string, string>> = {
  "suggestedExternal.address": "externalAddress",
  "portSet.size": "portSetSize",
  "portSet": "portSetSize",
};

/** Runs what checks a request; where it throws, by the names that the caller knows. */
export function withOptionNames<R>(check: () => R): R {
  try {
    return check();
  } catch (error) {
    if (error instanceof TypeError || error instanceof RangeError) {
      error.message = error.message.replace(
        /'([\w.]+)'/g,
        (whole, name: string) => name in NAMES ? `'${NAMES[name]}'` : whole,
      );
    }
    throw error;
  }
}

/** The core's request for an inbound mapping. */
export function toPortRequest(port: number, options: MapOptions): PortRequest {
  const request = toCommon(port, options, port);
  const { filters } = options;
  if (options.preferFailure && !request.suggestedExternal?.port) {
    throw new TypeError(
      `'preferFailure' needs an 'externalPort' to insist on: current value is ${options.externalPort}`,
    );
  }
  return {
    ...request,
    ...pickDefined(options, "preferFailure"),
    ...(filters !== undefined && { filters: parseFilters(filters) }),
    ...(options.portSetSize !== undefined && { portSet: { size: options.portSetSize } }),
  };
}

/** The core's request for a watched port. */
export function toWatchRequest(port: number, options: WatchOptions): PortRequest {
  return toPortRequest(port, without(options, ["mode", "portSetSize"], "a watch"));
}

/**
 * Checks what TCP and UDP on one port are asked for.
 *
 * @throws {TypeError} On an option that is not for both.
 */
export function checkMapBoth(options: MapBothOptions): MapBothOptions {
  return without(options, ["protocol", "portSetSize"], "TCP and UDP on one port");
}

function without<O extends object>(options: O, names: readonly string[], what: string): O {
  const name = names.find((one) => Object.hasOwn(checkOptions(options), one));
  if (name === undefined) return options;
  throw new TypeError(`'${name}' is no option of ${what}`);
}

/** The core's request for an outbound mapping. */
export function toPeerRequest(port: number, remote: Endpoint, options: PeerOptions): PortRequest {
  // A first PEER names no external port of its own accord (RFC 6887 §12.1, PCP-C-45).
  const request = toCommon(port, options, 0);
  if (typeof remote !== "object" || remote === null) {
    throw new TypeError(`'remote' must be an endpoint: current value is ${show(remote)}`);
  }
  return { ...request, remote };
}
