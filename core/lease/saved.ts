/**
 * What outlives a program: enough of a mapping to take it up or delete it after a restart, PCP's
 * nonce above all, without which a gateway refuses both (PCP-S-28). JSON-safe; times are relative,
 * since nobody knows how the next program's clock will count.
 *
 * @module
 */
import { checkAddress, checkChoice, checkInteger, checkList, checkPort, show } from "../check.ts";
import { PREFERENCE, type Via } from "../errors.ts";
import type { Endpoint, Instant } from "../machine.ts";
import {
  checkMappingRequest,
  type MappingKey,
  mappingKey,
  type MappingMode,
  type MappingRequest,
  PROTOCOL_NUMBER,
  secondsUntil,
  type Transport,
  type Wanted,
} from "../mapping.ts";
import type { Lease } from "./lease.ts";

/** What a mapping of a gateway above another one maps on. */
export interface InnerMapping {
  /** The address of the gateway below, which holds it. */
  readonly gateway: string;
  /** The external address that it has there: from that one the gateway above is asked. */
  readonly address: string;
  /** The port on this host, or on `thirdParty`. */
  readonly internalPort: number;
  /** The host that it is for, where it is not this one. */
  readonly thirdParty?: string;
}

/** A mapping as it is kept between runs: the request that asks for it again, and what it got. */
export interface SavedMapping extends Omit<MappingRequest, "nonce"> {
  /** The protocol that made it. */
  readonly via: Via;
  /** The gateway's address. */
  readonly gateway: string;
  /** What the gateway assigned last; absent where it granted nothing, or refused it since. */
  readonly external?: { readonly address?: string; readonly port: number };
  /** PCP's nonce, 24 hexadecimal digits. */
  readonly nonce?: string;
  /** What to ask for, seconds. */
  readonly lifetimeSeconds: number;
  /** For how long it is wanted from here on. */
  readonly mode: MappingMode;
  /** What it maps on, where its gateway stands above another one. */
  readonly inner?: InnerMapping;
}

/** What a restarted program needs to keep its mappings. */
export interface SavedState {
  /** The format. */
  readonly version: 1;
  /** In the order in which they were asked for. */
  readonly mappings: readonly SavedMapping[];
}

/** The name of a protocol that has one, or its number. */
export function protocolName(protocol: number): Transport | number {
  if (protocol === PROTOCOL_NUMBER.tcp) return "tcp";
  return protocol === PROTOCOL_NUMBER.udp ? "udp" : protocol;
}

/** A lease as it can be handed to another client. */
export function saveLease<R>(
  lease: Lease<R>,
  via: Via,
  gateway: string,
  now: Instant,
): SavedMapping {
  const { wanted, nonce, remembered: external } = lease;
  return {
    via,
    gateway,
    ...requestOf(wanted),
    ...(external && { external: external.address === "" ? { port: external.port } : external }),
    ...(nonce && { nonce }),
    ...wantedFrom(lease, now),
  };
}

/** What is wanted, as a request. */
function requestOf(wanted: Wanted): Omit<MappingRequest, "nonce"> {
  const { suggestedAddress: address, suggestedPort: port } = wanted;
  return {
    protocol: protocolName(wanted.protocol),
    internalPort: wanted.internalPort,
    ...(wanted.remote && { remote: wanted.remote }),
    ...((address !== undefined || port !== 0) && {
      suggestedExternal: { ...(address !== undefined && { address }), ...(port !== 0 && { port }) },
    }),
    ...(wanted.preferFailure && { preferFailure: true }),
    ...(wanted.filters.length > 0 && { filters: wanted.filters }),
    ...(wanted.thirdParty !== undefined && { thirdParty: wanted.thirdParty }),
    ...(wanted.description !== undefined && { description: wanted.description }),
    ...(wanted.portSet && { portSet: wanted.portSet }),
  };
}

/** What to ask for, and how often, so that it makes up the time for which it is still wanted. */
function wantedFrom<R>(
  { wantedUntil, lifetimeSeconds, wanted: { lifetimes } }: Lease<R>,
  now: Instant,
): { readonly mode: MappingMode; readonly lifetimeSeconds: number } {
  if (lifetimes === undefined) return { mode: "keep-alive", lifetimeSeconds };
  if (wantedUntil === undefined) return { mode: modeOf(lifetimes), lifetimeSeconds };
  const leftSeconds = Math.max(1, secondsUntil(wantedUntil, now));
  const left = Math.ceil(leftSeconds / lifetimeSeconds);
  return { mode: modeOf(left), lifetimeSeconds: Math.ceil(leftSeconds / left) };
}

function modeOf(lifetimes: number): MappingMode {
  return lifetimes === 1 ? "once" : lifetimes;
}

/** A saved mapping, checked. */
export interface ReadMapping {
  readonly wanted: Wanted;
  readonly nonce: string | undefined;
  readonly external: Endpoint | undefined;
}

/**
 * Reads a saved mapping.
 *
 * @param localAddress This host's address, where the reader knows it.
 * @throws {TypeError | RangeError} At the first field that is wrong, with its name and value.
 */
export function readSaved(saved: SavedMapping, localAddress?: string): ReadMapping {
  if (typeof saved !== "object" || saved === null) {
    throw new TypeError(`'state.mappings' must hold objects: current value is ${show(saved)}`);
  }
  checkChoice("via", saved.via, PREFERENCE);
  checkAddress("gateway", saved.gateway);
  const { nonce, external, inner, ...request } = saved;
  if (nonce !== undefined && (typeof nonce !== "string" || !/^[0-9a-f]{24}$/.test(nonce))) {
    throw new TypeError(`'nonce' must be 24 hexadecimal digits: current value is ${show(nonce)}`);
  }
  if (external !== undefined && (typeof external !== "object" || external === null)) {
    throw new TypeError(`'external' must be an object: current value is ${show(external)}`);
  }
  if (inner !== undefined) checkInner(inner);
  return {
    wanted: checkMappingRequest(request, localAddress),
    nonce,
    external: external === undefined ? undefined : {
      address: external.address === undefined
        ? ""
        : checkAddress("external.address", external.address),
      port: checkPort("external.port", external.port, 0),
    },
  };
}

function checkInner(inner: InnerMapping): void {
  checkAddress("inner.gateway", inner?.gateway);
  checkAddress("inner.address", inner.address);
  checkPort("inner.internalPort", inner.internalPort);
  if (inner.thirdParty !== undefined) checkAddress("inner.thirdParty", inner.thirdParty);
}

/**
 * Reads a state.
 *
 * @returns The saved mappings, each checked.
 * @throws {TypeError | RangeError} Where it is not a state.
 */
export function readState(state: SavedState, localAddress?: string): ReadMapping[] {
  if (typeof state !== "object" || state === null) {
    throw new TypeError(`'state' must be an object: current value is ${show(state)}`);
  }
  checkInteger("state.version", state.version, 1, 1);
  return checkList("state.mappings", state.mappings).map((saved: SavedMapping) =>
    readSaved(saved, localAddress)
  );
}

/** The key of what is wanted, by which a gateway above another one has a mapping of its own. */
export function wantedKey({ inner, ...mapping }: SavedMapping): MappingKey {
  return savedKey(inner ? { protocol: mapping.protocol, ...inner } : mapping);
}

/** What makes two saved mappings of one gateway the same one. */
export function savedKey(mapping: Omit<MappingRequest, "nonce">): MappingKey {
  const { protocol, remote } = mapping;
  return mappingKey({
    ...mapping,
    kind: remote ? "peer" : "map",
    protocol: typeof protocol === "number" ? protocol : PROTOCOL_NUMBER[protocol],
  });
}
