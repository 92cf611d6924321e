/**
 * A mapping in the words that all protocols share: what is asked for, with its checks, and how its
 * state, its failure and its life are told.
 *
 * @module
 */
import {
  checkAddress,
  checkBoolean,
  checkChoice,
  checkInteger,
  checkLifetime,
  checkList,
  checkPort,
  checkString,
  show,
} from "./check.ts";
import { type Cidr, formatCidr } from "./cidr.ts";
import type { NatErrorCode } from "./errors.ts";
import { type Family, familyOf, formatEndpoint, withoutZone } from "./ip.ts";
import type { Endpoint, Instant } from "./machine.ts";

/** The transport protocols that every gateway can map. */
export type Transport = "tcp" | "udp";

/** IANA's numbers of the transports. */
export const PROTOCOL_NUMBER = { tcp: 6, udp: 17 } as const;

/** Names a mapping within one machine; never used twice there. */
export type MappingId = number;

/**
 * How long a mapping is wanted: `"once"` requests it and lets it end with its lifetime,
 * `"keep-alive"` renews it until revoked, a number N ≥ 1 holds it through N lifetimes.
 */
export type MappingMode = "once" | "keep-alive" | number;

/** Lets in only what comes from `prefix`, and from `port` where that is not 0 (PCP FILTER). */
export interface RemoteFilter {
  /** Remote addresses let in. */
  readonly prefix: Cidr;
  /** Remote port let in, 0 for all. */
  readonly port: number;
}

/** An external endpoint as far as one is named. */
export interface SuggestedExternal {
  /** The address; without one any of the client's own family. */
  readonly address?: string;
  /** 1…65535; 0 or absent: any. */
  readonly port?: number;
}

/** Several ports in one mapping (PCP, RFC 7753). */
export interface PortSetRequest {
  /** How many, 2…65535; 65535 asks for as many as there are. */
  readonly size: number;
  /** Whether the first external port is to have the parity of the internal one. @default {false} */
  readonly parity?: boolean;
}

/** A mapping to ask for. What a protocol cannot do it says, and no packet leaves. */
export interface MappingRequest {
  /** The transport, or IANA's number 0…255 of any protocol (PCP); 0 means all. */
  readonly protocol: Transport | number;
  /** The port on which the application listens, 1…65535; 0 means all (PCP). */
  readonly internalPort: number;
  /** Makes it an outbound mapping: the one peer that it leads to (PCP PEER, RFC 6887 §12). */
  readonly remote?: Endpoint;
  /** A hint that the gateway is free not to follow (PCP-C-37), unless with `preferFailure`. */
  readonly suggestedExternal?: SuggestedExternal;
  /** What was granted before: suggested first, and given up where the gateway cannot (PCP). */
  readonly remembered?: Endpoint;
  /** The lifetime to ask for, 1…2³²−1 seconds; the gateway may grant another. @default {7200} */
  readonly lifetimeSeconds?: number;
  /** How long it is wanted. @default {"keep-alive"} */
  readonly mode?: MappingMode;
  /** The suggested external endpoint or none (PCP PREFER_FAILURE, PCP-C-48). @default {false} */
  readonly preferFailure?: boolean;
  /**
   * Only these peers may come in; none: everybody (PCP FILTER). With a nonce of an earlier run an
   * empty list takes away the filters that the mapping had then.
   */
  readonly filters?: readonly RemoteFilter[];
  /** The host that it is for, where it is not this one (PCP THIRD_PARTY, PCP-C-47). */
  readonly thirdParty?: string;
  /** A text for the gateway's list, at most 1016 bytes of UTF-8 (RFC 7220). */
  readonly description?: string;
  /** Several ports at once. */
  readonly portSet?: PortSetRequest;
  /** 12 bytes: takes up the mapping that was made with this nonce (PCP). */
  readonly nonce?: Uint8Array;
}

/** The ports of a granted set. */
export interface GrantedPortSet {
  /** How many the gateway mapped, at most as many as were asked for. */
  readonly size: number;
  /** The first internal port; external ports run from the mapping's external port on. */
  readonly firstInternalPort: number;
  /** Whether parity is kept. */
  readonly parity: boolean;
}

/** Where a mapping stands. */
export type MappingState =
  /** Asked for by the application, nothing sent yet. */
  | "requested"
  /** First requests are on their way. */
  | "starting"
  /** The gateway holds it; a renewal or change is on its way. */
  | "updating"
  /** The gateway holds it. */
  | "running"
  /** Refused, failed or lost; asked for again at the time that was told with it. */
  | "error"
  /** Being deleted at the application's wish. */
  | "revoked";

/** Why a request came to nothing. */
export type Failure =
  /** As many requests as the schedule allows, no answer. */
  | { readonly kind: "no-answer" }
  /** ICMP: nothing listens there. */
  | { readonly kind: "unreachable" }
  /** The gateway answered in, or asked for, a version that this protocol is not. */
  | { readonly kind: "unsupported-version"; readonly version: number }
  /** The gateway said no; not to be asked again before `retryAt`. */
  | {
    readonly kind: "refused";
    readonly code: number;
    /** The RFC's name of the code: `"NOT_AUTHORIZED"`. */
    readonly name: string;
    readonly retryAt: Instant;
  }
  /** A success that cannot be one; `clause` says which rule it breaks. */
  | { readonly kind: "protocol-violation"; readonly clause: string }
  /** The lifetime ran out before a renewal was answered. */
  | { readonly kind: "expired" }
  /** The protocol's client could not be loaded; why, in words. */
  | { readonly kind: "not-loaded"; readonly message: string };

/** Broken rules in words, where they have a number. */
const VIOLATIONS: { readonly [clause: string]: string } = {
  "D-08": "a success without an address or a port",
  "PCP-C-48": "another port than the one insisted on",
};

/** The outcome in words, as attempts list it. */
export function describeFailure(failure: Failure): string {
  switch (failure.kind) {
    case "no-answer":
      return "no answer";
    case "unreachable":
      return "unreachable";
    case "unsupported-version":
      return `unsupported version (speaks ${failure.version})`;
    case "refused":
      return failure.name;
    case "protocol-violation":
      return `protocol violation (${VIOLATIONS[failure.clause] ?? failure.clause})`;
    case "expired":
      return "expired";
    case "not-loaded":
      return `not loaded (${failure.message})`;
  }
}

/** The stable code of a request that ended with `failure`. */
export function codeOf(failure: Failure): NatErrorCode {
  switch (failure.kind) {
    case "refused":
      return "refused";
    case "protocol-violation":
      return "protocol-violation";
    case "unreachable":
    case "unsupported-version":
    case "not-loaded":
      return "unsupported";
    case "no-answer":
    case "expired":
      return "no-answer";
  }
}

/** What a failure in words is, where it is no refusal: the gateway's own name for that. */
const NO_REFUSAL =
  /^(no answer|unreachable|unsupported version|protocol violation|expired|not loaded|mapped|unmapped)/;

/**
 * The stable code of a request whose time is over: a refusal says more than one that is silent.
 *
 * @param attempts The outcomes until then, in {@linkcode describeFailure}'s words.
 */
export function codeInTime(attempts: readonly { readonly outcome: string }[]): NatErrorCode {
  return attempts.every(({ outcome }) => NO_REFUSAL.test(outcome)) ? "no-answer" : "refused";
}

/** For how many seconds the gateway asks to be left alone, where `failure` is such a refusal. */
export function retryAfter(
  failure: Failure | undefined,
  now: Instant,
): { readonly retryAfterSeconds?: number } {
  if (failure?.kind !== "refused") return {};
  return { retryAfterSeconds: secondsUntil(failure.retryAt, now) };
}

/**
 * What a client tells of one mapping; `T` is a mapping in its protocol's words. The last event of
 * an id is `unmapped`, or `failed` without `retryAt`.
 *
 * `revision` tells which request is answered: `renew` returns the number of what it asks for, and a
 * grant, or `renewal-failed`, of at least that number answers it.
 */
export type MappingEvent<T> =
  /** Granted for the first time. */
  | GrantEvent<"mapped", T>
  /** Granted again, the same external endpoint. */
  | GrantEvent<"renewed", T>
  /** Another external endpoint than told last. */
  | GrantEvent<"moved", T>
  /** Granted again after `lost`. */
  | GrantEvent<"recovered", T>
  /** Not granted. With `retryAt` it is asked for again then; without, the id is over. */
  | {
    readonly type: "failed";
    readonly id: MappingId;
    readonly failure: Failure;
    readonly retryAt?: Instant;
  }
  /** Not renewed; it lasts to its end, and is asked for again at `retryAt` where that comes first. */
  | {
    readonly type: "renewal-failed";
    readonly id: MappingId;
    readonly failure: Failure;
    readonly revision: number;
    readonly retryAt?: Instant;
  }
  /** Was granted and is no more. It is asked for again, at `retryAt` or at once. */
  | {
    readonly type: "lost";
    readonly id: MappingId;
    readonly failure: Failure;
    readonly retryAt?: Instant;
  }
  /**
   * Over by our own wish: deleted (`failure` says where the gateway refused to, or did not answer),
   * or its wanted time has passed (`failure`: it was lost before that).
   */
  | {
    readonly type: "unmapped";
    readonly id: MappingId;
    readonly reason: "revoked" | "expired";
    readonly failure?: Failure;
  };

/** The gateway granted something. */
export interface GrantEvent<Type extends string, T> {
  /** What it is to the application. */
  readonly type: Type;
  /** Which mapping. */
  readonly id: MappingId;
  /** The mapping as it stands. */
  readonly mapping: T;
  /** The number of the request that is answered. */
  readonly revision: number;
}

/** The lifetime asked for where none is named, seconds (RFC 6886 §3.3). */
export const DEFAULT_LIFETIME_SECONDS = 7200;

/** A request, checked and filled in. */
export interface Wanted {
  /** Inbound or outbound. */
  readonly kind: "map" | "peer";
  /** IANA's number. */
  readonly protocol: number;
  readonly internalPort: number;
  readonly remote: Endpoint | undefined;
  readonly suggestedAddress: string | undefined;
  /** 0: none. */
  readonly suggestedPort: number;
  readonly lifetimeSeconds: number;
  /** Through how many granted lifetimes; undefined: until revoked. */
  readonly lifetimes: number | undefined;
  readonly preferFailure: boolean;
  readonly filters: readonly RemoteFilter[];
  readonly thirdParty: string | undefined;
  readonly description: string | undefined;
  readonly portSet: PortSetRequest | undefined;
}

/** The longest mode, in lifetimes. */
const MAX_LIFETIMES = 0xffff_ffff;
/** RFC 7220 §3: the text's length, octets. */
const MAX_DESCRIPTION_BYTES = 1016;
/** Protocols whose headers have ports: TCP, UDP, DCCP, SCTP, UDP-Lite. */
const WITH_PORTS: readonly number[] = [6, 17, 33, 132, 136];
/** What requests that say nothing of filters share. */
export const NO_FILTERS: readonly RemoteFilter[] = Object.freeze([]);

/**
 * Checks a request and fills in the defaults.
 *
 * @param localAddress This host's address towards the gateway, where the client knows it.
 * @throws {TypeError | RangeError} At the first field that contradicts itself, another one or the
 * RFC, with its name and value.
 */
export function checkMappingRequest(request: MappingRequest, localAddress?: string): Wanted {
  if (typeof request !== "object" || request === null) {
    throw new TypeError(`'request' must be an object: current value is ${show(request)}`);
  }
  const { remote } = request;
  const isPeer = remote !== undefined;
  const family = localAddress === undefined ? undefined : familyOf(localAddress);
  const protocol = checkProtocol(request.protocol, isPeer ? 1 : 0);
  const internalPort = checkPort("internalPort", request.internalPort, isPeer ? 1 : 0);
  if (internalPort !== 0 && !WITH_PORTS.includes(protocol)) {
    throw new RangeError(
      `'internalPort' must be 0 as protocol ${protocol} has no ports: current value is ${internalPort}`,
    );
  }
  const suggested = request.suggestedExternal;
  const wanted: Wanted = {
    kind: isPeer ? "peer" : "map",
    protocol,
    internalPort,
    remote: isPeer ? checkRemote(remote, family) : undefined,
    suggestedAddress: suggested?.address === undefined
      ? undefined
      : withoutZone(checkAddress("suggestedExternal.address", suggested.address)),
    suggestedPort: checkPort("suggestedExternal.port", suggested?.port ?? 0, 0),
    lifetimeSeconds: checkLifetime(
      "lifetimeSeconds",
      request.lifetimeSeconds ?? DEFAULT_LIFETIME_SECONDS,
    ),
    lifetimes: checkMode(request.mode),
    preferFailure: checkBoolean("preferFailure", request.preferFailure ?? false),
    filters: isPeer ? NO_FILTERS : checkFilters(request.filters),
    thirdParty: checkThirdParty(request.thirdParty, localAddress),
    description: checkDescription(request.description),
    portSet: isPeer ? undefined : checkPortSet(request.portSet, internalPort),
  };
  if (wanted.preferFailure) checkPreferFailure(wanted);
  return wanted;
}

/**
 * Checks a {@linkcode MappingMode}.
 *
 * @returns Through how many lifetimes it holds; undefined: until revoked.
 * @throws {TypeError | RangeError} Where it is not a mode.
 */
export function checkMode(mode: MappingMode | undefined): number | undefined {
  if (mode === undefined) return undefined;
  if (typeof mode === "number") return checkInteger("mode", mode, 1, MAX_LIFETIMES);
  return checkChoice("mode", mode, ["once", "keep-alive"]) === "once" ? 1 : undefined;
}

function checkProtocol(value: Transport | number, low: 0 | 1): number {
  if (typeof value === "number") return checkInteger("protocol", value, low, 255);
  return PROTOCOL_NUMBER[checkChoice("protocol", value, ["tcp", "udp"])];
}

function checkRemote(remote: Endpoint, family: Family | undefined): Endpoint {
  return {
    address: withoutZone(checkAddress("remote.address", remote?.address, family)),
    port: checkPort("remote.port", remote?.port),
  };
}

function checkThirdParty(
  value: string | undefined,
  localAddress: string | undefined,
): string | undefined {
  if (value === undefined) return undefined;
  const address = withoutZone(checkAddress("thirdParty", value));
  if (localAddress !== undefined && address === withoutZone(localAddress)) {
    throw new TypeError(`'thirdParty' must be another host's address: current value is ${address}`);
  }
  return address;
}

/** Refuses PREFER_FAILURE where it has nothing to insist on, or goes with what excludes it. */
function checkPreferFailure(wanted: Wanted): void {
  if (wanted.kind === "peer") {
    throw new TypeError("'preferFailure' must be false for a PEER: current value is true");
  }
  if (wanted.suggestedPort === 0) {
    throw new TypeError(
      "'preferFailure' needs a 'suggestedExternal.port' to insist on: current value is 0",
    );
  }
  if (wanted.portSet !== undefined) {
    throw new TypeError(
      `'portSet' and 'preferFailure' exclude each other (RFC 7753 §4.1): current value is ${wanted.portSet.size}`,
    );
  }
}

function checkFilters(filters: readonly RemoteFilter[] | undefined): readonly RemoteFilter[] {
  if (filters === undefined) return NO_FILTERS;
  return checkList("filters", filters).map(checkFilter);
}

function checkFilter(filter: RemoteFilter): RemoteFilter {
  const prefix = filter?.prefix;
  checkAddress("filters.prefix.address", prefix?.address, prefix?.family);
  const longest = prefix.family === 4 ? 32 : 128;
  checkInteger("filters.prefix.prefixLength", prefix.prefixLength, 0, longest);
  if (prefix.family === 6 && prefix.prefixLength === 0) {
    // On the wire a length of 0 takes all filters away, whatever address and port stand beside it.
    throw new RangeError(
      "'filters.prefix.prefixLength' must be 1..128 for IPv6: current value is 0",
    );
  }
  return { prefix, port: checkPort("filters.port", filter.port, 0) };
}

function checkDescription(text: string | undefined): string | undefined {
  if (text === undefined) return undefined;
  const { length } = new TextEncoder().encode(checkString("description", text));
  if (length > MAX_DESCRIPTION_BYTES) {
    throw new RangeError(
      `'description' must take at most ${MAX_DESCRIPTION_BYTES} bytes of UTF-8: current length is ${length}`,
    );
  }
  return text;
}

function checkPortSet(
  set: PortSetRequest | undefined,
  internalPort: number,
): PortSetRequest | undefined {
  if (set === undefined) return undefined;
  // RFC 7753 §4.1: a single port is no set, and a set has a first port.
  const size = checkInteger("portSet.size", set?.size, 2, 65535);
  checkPort("internalPort", internalPort);
  if (size !== 65535 && internalPort + size > 65536) {
    throw new RangeError(
      `'portSet.size' must end at port 65535 from ${internalPort} on: current value is ${size}`,
    );
  }
  return { size, parity: checkBoolean("portSet.parity", set.parity ?? false) };
}

/** What a mapping stands for at a gateway, as far as its key goes. */
export interface MappingSubject {
  /** Inbound or outbound. */
  readonly kind: "map" | "peer";
  /** IANA's number. */
  readonly protocol: number;
  /** The port on this host, or on `thirdParty`. */
  readonly internalPort: number;
  /** The peer of an outbound mapping. */
  readonly remote?: Endpoint | undefined;
  /** The host that it is for, where it is not this one. */
  readonly thirdParty?: string | undefined;
}

/** What tells mappings apart: a number where it can be one, which weighs nothing. */
export type MappingKey = string | number;

/** The key of a mapping: two with the same are the same to a gateway (PCP-C-16, PCP-C-17). */
export function mappingKey(
  { kind, protocol, internalPort, thirdParty, remote }: MappingSubject,
): MappingKey {
  const isPlain = thirdParty === undefined && remote === undefined;
  if (isPlain) return protocol * 0x1_0000 + internalPort;
  return `${kind} ${protocol}/${internalPort} ${thirdParty ?? ""} ${remote?.address ?? ""} ${
    remote?.port ?? ""
  }`;
}

/** Which ports of which host a mapping is for. */
type MappedPorts =
  & Pick<MappingRequest, "protocol" | "internalPort">
  & {
    readonly [field in "portSet" | "thirdParty" | "remote"]?: MappingRequest[field] | undefined;
  };

/** Whether two inbound mappings share an internal port (RFC 7753 §6.4 forbids it for sets). */
export function sharePorts(a: MappedPorts, b: MappedPorts): boolean {
  if (a.protocol !== b.protocol || a.thirdParty !== b.thirdParty) return false;
  if (a.remote !== undefined || b.remote !== undefined) return false;
  const last = ({ internalPort, portSet }: MappedPorts) =>
    Math.min(65535, internalPort + (portSet?.size ?? 1) - 1);
  return a.internalPort <= last(b) && b.internalPort <= last(a);
}

/** The internal side of a mapping for people: `8080/tcp`, `internal port 0 of protocol 47`… */
export function describeInternal(subject: MappingSubject): string {
  const { protocol, internalPort, thirdParty, remote } = subject;
  const port = protocol === PROTOCOL_NUMBER.tcp
    ? `${internalPort}/tcp`
    : protocol === PROTOCOL_NUMBER.udp
    ? `${internalPort}/udp`
    : `internal port ${internalPort} of protocol ${protocol}`;
  const owner = thirdParty === undefined ? "" : ` of ${thirdParty}`;
  return remote ? `${port}${owner} to ${formatEndpoint(remote)}` : `${port}${owner}`;
}

/** Whether two lists of filters let in the same. */
export function sameFilters(a: readonly RemoteFilter[], b: readonly RemoteFilter[]): boolean {
  const text = (filters: readonly RemoteFilter[]) =>
    filters.map(({ prefix, port }) => `${formatCidr(prefix)} ${port}`).sort().join();
  return text(a) === text(b);
}

/**
 * Whole seconds up to an instant, begun ones too, 0 where it has passed. Half a millisecond is what
 * sums of a clock's fractions may come to: it begins none.
 */
export function secondsUntil(at: Instant, now: Instant): number {
  return Math.max(0, Math.ceil((at - now - 0.5) / 1000));
}
