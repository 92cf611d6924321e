/**
 * From what the application asks for to a checked wish, and from there to the bytes of its
 * requests.
 *
 * @module
 */
import { copyBytes } from "../bytes.ts";
import { checkAddress, checkInteger, checkLifetime, checkPort } from "../check.ts";
import { cidrAs128 } from "../cidr.ts";
import { anyAddress, familyOf, withoutZone } from "../ip.ts";
import type { Endpoint } from "../machine.ts";
import type { MappingMode } from "../mapping.ts";
import { encodeRequest, PCP_MAX_LENGTH, PCP_NONCE_LENGTH, type PcpRequest } from "./codec.ts";
import { MAX_DESCRIPTION_BYTES, NO_OPTIONS, type PcpOption, utf8Length } from "./options.ts";
import type { PcpFilter, PcpMapRequest, PcpPeerRequest, PortSetRequest } from "./types.ts";

/** What is asked for when nothing is said, seconds. */
export const DEFAULT_LIFETIME_SECONDS = 7200;

/** A checked request of the application. */
export interface Wish {
  readonly kind: "map" | "peer";
  readonly protocol: number;
  readonly internalPort: number;
  readonly remote: Endpoint | undefined;
  readonly suggestedAddress: string | undefined;
  readonly suggestedPort: number;
  readonly mode: MappingMode;
  readonly preferFailure: boolean;
  readonly filters: readonly PcpFilter[];
  readonly thirdParty: string | undefined;
  readonly description: string | undefined;
  readonly portSet: PortSetRequest | undefined;
}

/** Protocols whose headers have ports: TCP, UDP, DCCP, SCTP, UDP-Lite. */
const WITH_PORTS: readonly number[] = [6, 17, 33, 132, 136];

/** What wishes without filters share. */
const NO_FILTERS: readonly PcpFilter[] = Object.freeze([]);

/** Room that a server needs beyond the request for options of its own (PCP-C-29). */
const ROOM_FOR_ANSWER = 24;

/**
 * Checks a MAP or PEER request.
 *
 * @throws {TypeError | RangeError} Where it contradicts itself or the RFC, with name and value.
 */
export function checkRequest(
  kind: "map" | "peer",
  request: PcpMapRequest | PcpPeerRequest,
  localAddress: string,
): Wish {
  const thirdParty = checkThirdParty(request.thirdParty, localAddress);
  const protocol = checkInteger("protocol", request.protocol, 0, 255);
  const internalPort = checkPort("internalPort", request.internalPort, 0);
  if (internalPort !== 0 && !WITH_PORTS.includes(protocol)) {
    throw new RangeError(
      `'internalPort' must be 0 as protocol ${protocol} has no ports: current value is ${internalPort}`,
    );
  }
  const inbound: PcpMapRequest | undefined = kind === "map" ? request : undefined;
  const suggested = request.suggestedExternal;
  const wish: Wish = {
    kind,
    protocol,
    internalPort,
    remote: kind === "peer"
      ? checkRemote(request as PcpPeerRequest, protocol, thirdParty ?? localAddress)
      : undefined,
    suggestedAddress: suggested?.address === undefined
      ? undefined
      : withoutZone(checkAddress("suggestedExternal.address", suggested.address)),
    suggestedPort: checkPort("suggestedExternal.port", suggested?.port ?? 0, 0),
    mode: checkMode(request.mode ?? "keep-alive"),
    preferFailure: inbound?.preferFailure ?? false,
    filters: inbound?.filters?.length ? inbound.filters.map(checkFilter) : NO_FILTERS,
    thirdParty,
    description: checkDescription(request.description),
    portSet: checkPortSet(inbound?.portSet, internalPort),
  };
  if ((request as PcpMapRequest).preferFailure) checkPreferFailure(wish);
  checkSize(wish, localAddress);
  return wish;
}

/**
 * Checks the lifetime of a request.
 *
 * @throws {TypeError | RangeError} As `checkLifetime`.
 */
export function checkWantedLifetime(lifetimeSeconds: number | undefined): number {
  return checkLifetime("lifetimeSeconds", lifetimeSeconds ?? DEFAULT_LIFETIME_SECONDS);
}

/**
 * A copy of the nonce.
 *
 * @throws {TypeError} Where it is not 12 bytes.
 */
export function checkNonce(nonce: Uint8Array): Uint8Array {
  if (!(nonce instanceof Uint8Array) || nonce.length !== PCP_NONCE_LENGTH) {
    throw new TypeError(
      `'nonce' must be ${PCP_NONCE_LENGTH} bytes: current length is ${nonce?.length}`,
    );
  }
  return copyBytes(nonce);
}

function checkThirdParty(value: string | undefined, localAddress: string): string | undefined {
  if (value === undefined) return undefined;
  const address = withoutZone(checkAddress("thirdParty", value));
  if (address === withoutZone(localAddress)) {
    throw new TypeError(`'thirdParty' must be another host's address: current value is ${address}`);
  }
  return address;
}

function checkRemote(request: PcpPeerRequest, protocol: number, internal: string): Endpoint {
  // PCP-C-44: a PEER names one flow, so nothing of it may be "all".
  checkInteger("protocol", protocol, 1, 255);
  checkPort("internalPort", request.internalPort);
  return {
    address: withoutZone(
      checkAddress("remote.address", request.remote?.address, familyOf(internal)),
    ),
    port: checkPort("remote.port", request.remote?.port),
  };
}

function checkMode(mode: MappingMode): MappingMode {
  if (mode === "once" || mode === "keep-alive") return mode;
  if (typeof mode === "number") return checkInteger("mode", mode, 1, Number.MAX_SAFE_INTEGER);
  throw new TypeError(
    `'mode' must be "once", "keep-alive" or a number: current value is "${mode}"`,
  );
}

function checkFilter(filter: PcpFilter): PcpFilter {
  const { prefix, port } = filter;
  checkAddress("filters.prefix.address", prefix.address, prefix.family);
  checkInteger(
    "filters.prefix.prefixLength",
    prefix.prefixLength,
    0,
    prefix.family === 4 ? 32 : 128,
  );
  if (prefix.family === 6 && prefix.prefixLength === 0) {
    // On the wire a length of 0 takes all filters away, whatever address and port stand beside it.
    throw new RangeError(
      "'filters.prefix.prefixLength' must be 1..128 for IPv6: current value is 0",
    );
  }
  return { prefix, port: checkPort("filters.port", port, 0) };
}

function checkDescription(text: string | undefined): string | undefined {
  if (text === undefined) return undefined;
  if (typeof text !== "string") {
    throw new TypeError(`'description' must be a string: current value is ${text}`);
  }
  if (utf8Length(text) > MAX_DESCRIPTION_BYTES) {
    throw new RangeError(
      `'description' must take at most ${MAX_DESCRIPTION_BYTES} bytes of UTF-8: current length is ${
        utf8Length(text)
      }`,
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
  const size = checkInteger("portSet.size", set.size, 2, 65535);
  checkPort("internalPort", internalPort);
  if (size !== 65535 && internalPort + size > 65536) {
    throw new RangeError(
      `'portSet.size' must end at port 65535 from ${internalPort} on: current value is ${size}`,
    );
  }
  return { size, parity: set.parity ?? false };
}

function checkPreferFailure(wish: Wish): void {
  if (wish.kind === "peer") {
    throw new TypeError("Cannot request an outbound mapping with 'preferFailure'");
  }
  if (wish.suggestedPort === 0) {
    throw new TypeError("Cannot use 'preferFailure' without 'suggestedExternal.port'");
  }
  if (wish.portSet) throw new TypeError("Cannot use 'preferFailure' with 'portSet'");
}

function checkSize(wish: Wish, localAddress: string): void {
  const nonce = new Uint8Array(PCP_NONCE_LENGTH);
  const longest = buildRequest(wish, {
    nonce,
    lifetimeSeconds: 1,
    localAddress,
    external: undefined,
    replacesFilters: true,
    leavesOutPadded: false,
  });
  if (longest.length > PCP_MAX_LENGTH - ROOM_FOR_ANSWER) {
    throw new RangeError(
      `Cannot request a mapping as its options take too much room: current length is ${longest.length}`,
    );
  }
}

/** What one request says beyond the wish. */
export interface RequestDetails {
  readonly nonce: Uint8Array;
  /** 0 deletes. */
  readonly lifetimeSeconds: number;
  readonly localAddress: string;
  /** What the server assigned before: the suggestion of renewals and recreations (PCP-C-39). */
  readonly external: Endpoint | undefined;
  /**
   * Whether filters take the place of those the server has: it adds what it is sent to what it
   * has, so that only a first request goes without (PCP-C-49).
   */
  readonly replacesFilters: boolean;
  /** Leave out what is optional and needs padding, which miniupnpd 2.3.1 cannot read. */
  readonly leavesOutPadded: boolean;
}

/** The bytes of a request. */
export function buildRequest(wish: Wish, details: RequestDetails): Uint8Array {
  const isDelete = details.lifetimeSeconds === 0;
  const anyOfFamily = anyAddress(familyOf(wish.thirdParty ?? details.localAddress));
  const wished = wish.suggestedAddress ?? anyOfFamily;
  // PCP-C-55: a deletion suggests nothing.
  const address = isDelete ? anyOfFamily : details.external?.address ?? wished;
  const port = isDelete ? 0 : details.external?.port ?? wish.suggestedPort;
  const fields = {
    lifetimeSeconds: details.lifetimeSeconds,
    clientAddress: withoutZone(details.localAddress),
    nonce: details.nonce,
    protocol: wish.protocol,
    internalPort: wish.internalPort,
    suggestedPort: port,
    suggestedAddress: address,
    options: buildOptions(wish, details, isDelete),
  };
  const request: PcpRequest = wish.remote
    ? { kind: "peer", ...fields, remotePort: wish.remote.port, remoteAddress: wish.remote.address }
    : { kind: "map", ...fields };
  return encodeRequest(request);
}

function buildOptions(
  wish: Wish,
  details: RequestDetails,
  isDelete: boolean,
): readonly PcpOption[] {
  const options: PcpOption[] = [];
  if (wish.thirdParty !== undefined) {
    options.push({ type: "third-party", internalAddress: wish.thirdParty });
  }
  if (wish.portSet && !details.leavesOutPadded) {
    // RFC 7753 §4.4: refreshing and deleting a set name the set.
    options.push({
      type: "port-set",
      size: wish.portSet.size,
      firstInternalPort: wish.internalPort,
      parity: wish.portSet.parity ?? false,
    });
  }
  if (!isDelete) {
    // PCP-S-30, PCP-S-46: with lifetime 0 either of these is malformed.
    if (wish.preferFailure) options.push({ type: "prefer-failure" });
    if (wish.filters.length > 0) options.push(...filterOptions(wish.filters, details));
    if (wish.description !== undefined && !isLeftOut(wish.description, details)) {
      options.push({ type: "description", text: wish.description });
    }
  }
  return options.length === 0 ? NO_OPTIONS : options;
}

function filterOptions(filters: readonly PcpFilter[], details: RequestDetails): PcpOption[] {
  const options: PcpOption[] = filters.map(({ prefix, port }) => ({
    type: "filter",
    prefixLength: cidrAs128(prefix).prefixLength,
    remotePort: port,
    remoteAddress: prefix.address,
  }));
  if (details.replacesFilters) {
    const remoteAddress = anyAddress(filters[0]!.prefix.family);
    options.unshift({ type: "filter", prefixLength: 0, remotePort: 0, remoteAddress });
  }
  return options;
}

function isLeftOut(description: string, details: RequestDetails): boolean {
  return details.leavesOutPadded && utf8Length(description) % 4 !== 0;
}

/** Whether leaving out padded options makes another request of it. */
export function hasPaddedOptions(wish: Wish): boolean {
  return wish.portSet !== undefined ||
    (wish.description !== undefined && utf8Length(wish.description) % 4 !== 0);
}
