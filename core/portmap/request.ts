/**
 * What an application asks of a gateway, whatever the protocol, and the checks on it.
 *
 * @module
 */
import { checkAddress, checkChoice, checkInteger, checkLifetime, checkPort } from "../check.ts";
import type { Via } from "../errors.ts";
import { type Family, familyOf } from "../ip.ts";
import type { Endpoint } from "../machine.ts";
import { checkMode, type MappingMode, type RemoteFilter, type Transport } from "../mapping.ts";

/** What inbound and outbound mappings have in common. */
export interface CommonRequest {
  /** The transport protocol. */
  readonly protocol: Transport;
  /** The port that the application listens on, 1…65535. */
  readonly internalPort: number;
  /** The external port wished for; 0 or absent: the gateway chooses. */
  readonly externalPort?: number;
  /** The external address wished for (PCP). */
  readonly externalAddress?: string;
  /** Lifetime asked for, seconds; the gateway may grant another. Default 7200. */
  readonly lifetimeSeconds?: number;
  /** How long the mapping is wanted. Default `"keep-alive"`. */
  readonly mode?: MappingMode;
  /** Maps for another host of the internal network (PCP THIRD_PARTY; most gateways refuse). */
  readonly thirdParty?: string;
  /** A text for the gateway's list, at most 1016 bytes of UTF-8 (PCP, RFC 7220). */
  readonly description?: string;
  /** Which protocols may do it. Default: all that the session speaks. */
  readonly protocols?: readonly Via[];
}

/** An inbound mapping: who sends to the external endpoint reaches the internal one. */
export interface PortRequest extends CommonRequest {
  /** Fails rather than take another external port than `externalPort` (PCP PREFER_FAILURE). */
  readonly preferFailure?: boolean;
  /** Who may send; nobody is shut out where absent (PCP FILTER). */
  readonly filters?: readonly RemoteFilter[];
  /** Maps this many consecutive ports from `internalPort` on, 2…65535 (PCP, RFC 7753). */
  readonly portSetSize?: number;
}

/** An outbound mapping: the external endpoint by which one remote peer sees us (PCP PEER). */
export interface PeerRequest extends CommonRequest {
  /** The peer. */
  readonly remote: Endpoint;
}

/** Whether the request asks for what only PCP can do. */
export function needsPcp(request: PortRequest | PeerRequest): boolean {
  return "remote" in request || request.externalAddress !== undefined ||
    request.thirdParty !== undefined || request.preferFailure === true ||
    request.portSetSize !== undefined || (request.filters?.length ?? 0) > 0;
}

function checkCommon(request: CommonRequest, family: Family): void {
  checkChoice("protocol", request.protocol, ["tcp", "udp"]);
  checkPort("internalPort", request.internalPort);
  if (request.externalPort !== undefined) checkPort("externalPort", request.externalPort, 0);
  if (request.externalAddress !== undefined) {
    checkAddress("externalAddress", request.externalAddress, family);
  }
  if (request.lifetimeSeconds !== undefined) {
    checkLifetime("lifetimeSeconds", request.lifetimeSeconds);
  }
  checkMode(request.mode);
  if (request.thirdParty !== undefined) checkAddress("thirdParty", request.thirdParty, family);
}

/**
 * Checks an inbound request for a host address of `family`.
 *
 * @throws {TypeError | RangeError} At the first field that is wrong, with its name and value.
 */
export function checkPortRequest(request: PortRequest, family: Family): void {
  checkCommon(request, family);
  if (request.preferFailure && !request.externalPort) {
    throw new TypeError(
      "'preferFailure' needs an 'externalPort' to insist on: current value is " +
        request.externalPort,
    );
  }
  if (request.portSetSize !== undefined) {
    checkInteger("portSetSize", request.portSetSize, 2, 65535);
    if (request.preferFailure) {
      throw new TypeError(
        `'portSetSize' and 'preferFailure' exclude each other (RFC 7753 §4.1): current value is ${request.portSetSize}`,
      );
    }
  }
  for (const filter of request.filters ?? []) {
    checkPort("filters.port", filter.port, 0);
    if (filter.prefix.family !== family) {
      throw new TypeError(
        `'filters.prefix' must be an IPv${family} prefix: current value is ${filter.prefix.address}/${filter.prefix.prefixLength}`,
      );
    }
  }
}

/**
 * Checks an outbound request for a host address of `family`.
 *
 * @throws {TypeError | RangeError} At the first field that is wrong, with its name and value.
 */
export function checkPeerRequest(request: PeerRequest, family: Family): void {
  checkCommon(request, family);
  const remote = checkAddress("remote.address", request.remote.address);
  checkPort("remote.port", request.remote.port);
  if (familyOf(remote) !== family) {
    throw new TypeError(
      `'remote.address' must be an IPv${family} address like the host's: current value is ${remote}`,
    );
  }
}
