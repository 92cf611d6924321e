/**
 * What the promise API takes, and its translation into the core's requests.
 *
 * @module
 */
import { parseCidr } from "../../core/cidr.ts";
import { pickDefined } from "../../core/defined.ts";
import type { Via } from "../../core/errors.ts";
import { canonicalAddress, type Family, parseEndpoint } from "../../core/ip.ts";
import type { Endpoint } from "../../core/machine.ts";
import type { MappingMode, RemoteFilter, Transport } from "../../core/mapping.ts";
import type { PeerRequest, PortRequest } from "../../core/portmap/request.ts";
import { checkSavedMapping, type SavedMapping } from "../../core/portmap/saved.ts";
import { PCP_PORT } from "../../core/pcp/constants.ts";
import type { Runtime } from "../runtime.ts";
import type { WaitOptions } from "./wait.ts";

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
  /** Whether to listen for the gateway's announcements. Default true. */
  readonly announcements?: boolean;
  /** Retransmits first requests after 250 and 750 ms rather than 3 s (D-17). Default true. */
  readonly fastStart?: boolean;
  /** Ends the opening. */
  readonly signal?: AbortSignal;
}

/** What a later run needs to adopt or delete the mappings of this one. JSON-safe. */
export interface NatState {
  /** The form of this object. */
  readonly version: 1;
  /** The mappings. */
  readonly mappings: readonly SavedMapping[];
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
 * @throws {TypeError} Where it is no prefix with an optional port.
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

/**
 * Reads a gateway.
 *
 * @throws {TypeError} Where it is no address with an optional port.
 */
export function parseGateway(gateway: string | Endpoint): Endpoint {
  if (typeof gateway === "string") {
    const endpoint = parseEndpoint(gateway, PCP_PORT);
    if (endpoint && endpoint.port > 0) return endpoint;
  } else {
    const address = canonicalAddress(gateway.address);
    if (address !== undefined) return { address, port: gateway.port };
  }
  const shown = typeof gateway === "string" ? `"${gateway}"` : `"${gateway.address}"`;
  throw new TypeError(
    `'gateway' must be ADDRESS, ADDRESS:PORT or [IPV6%zone]:PORT: current value is ${shown}`,
  );
}

/**
 * Checks a state.
 *
 * @throws {TypeError} Where it is not what `exportState` gives.
 */
export function checkState(state: NatState | undefined): readonly SavedMapping[] {
  if (state === undefined) return [];
  if (state.version !== 1 || !Array.isArray(state.mappings)) {
    throw new TypeError(`'state' must be of version 1: current value is ${state.version}`);
  }
  for (const mapping of state.mappings) checkSavedMapping(mapping);
  return state.mappings;
}

function toCommon(port: number, options: MappingOptions): PortRequest {
  return {
    protocol: options.protocol ?? "tcp",
    internalPort: port,
    externalPort: options.externalPort ?? port,
    ...pickDefined(options, "externalAddress", "lifetimeSeconds", "mode", "thirdParty"),
    ...pickDefined(options, "description"),
  };
}

/** The core's request for an inbound mapping. */
export function toPortRequest(port: number, options: MapOptions): PortRequest {
  return {
    ...toCommon(port, options),
    ...pickDefined(options, "preferFailure", "portSetSize"),
    ...(options.filters ? { filters: options.filters.map(parseFilter) } : {}),
  };
}

/** The core's request for an outbound mapping. */
export function toPeerRequest(port: number, remote: Endpoint, options: PeerOptions): PeerRequest {
  // A first PEER names no external port of its own accord (RFC 6887 §12.1, PCP-C-45).
  return { ...toCommon(port, { externalPort: 0, ...options }), remote };
}
