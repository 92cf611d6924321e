/**
 * What to make of an answer: pure judgements, each with the clause or the device that it is made
 * for (RFC 6887 §8.3, §11.4, §12.4, §13.2).
 *
 * @module
 */
import { MAX_SCHEDULED_LIFETIME_SECONDS } from "../backoff.ts";
import { familyOf } from "../ip.ts";
import type { Grant } from "../lease/lease.ts";
import type { Endpoint, Instant } from "../machine.ts";
import { type Failure, type MappingKey, mappingKey, type Wanted } from "../mapping.ts";
import {
  type PcpMapResponseMessage,
  type PcpPeerResponseMessage,
  type PcpResponse,
  pcpResultName,
} from "./codec.ts";
import type { PcpLease } from "./request.ts";

/** A MAP or PEER response. */
export type MappingResponse = PcpMapResponseMessage | PcpPeerResponseMessage;

/** Whether a response is to a MAP or PEER. */
export function isMappingResponse(response: PcpResponse): response is MappingResponse {
  return response.kind === "map" || response.kind === "peer";
}

/** An error that says for how long, but says 0, counts as one of the short ones, seconds. */
const UNSAID_REFUSAL_SECONDS = 30;
/** No request is repeated sooner than this, whatever an error's lifetime says, seconds. */
const SHORTEST_REFUSAL_SECONDS = 4;
/** How soon a server that lacks our version is asked again at the latest (RFC 6887 §9). */
const VERSION_REFUSAL_SECONDS = 1800;

/** How long a refused request may not be made again, milliseconds: at most a day (PCP-C-21, -22). */
export function refusalMs(lifetimeSeconds: number): number {
  const said = lifetimeSeconds === 0 ? UNSAID_REFUSAL_SECONDS : lifetimeSeconds;
  const kept = Math.max(SHORTEST_REFUSAL_SECONDS, said);
  return 1000 * Math.min(MAX_SCHEDULED_LIFETIME_SECONDS, kept);
}

/** How long after UNSUPP_VERSION, milliseconds: at most half an hour (PCP-C-28). */
export function versionRefusalMs(lifetimeSeconds: number | undefined): number {
  const said = lifetimeSeconds || VERSION_REFUSAL_SECONDS;
  return 1000 * Math.min(VERSION_REFUSAL_SECONDS, Math.max(SHORTEST_REFUSAL_SECONDS, said));
}

/** The server said no, and does not want to be asked again before then. */
export function refusal(code: number, retryAt: Instant): Failure & { kind: "refused" } {
  return { kind: "refused", code, name: pcpResultName(code), retryAt };
}

/** The key of what a response answers (PCP-C-16, PCP-C-17). */
export function answeredKey(response: MappingResponse): MappingKey {
  let thirdParty: string | undefined;
  for (const option of response.options) {
    if (option.type === "third-party") thirdParty = option.internalAddress;
  }
  const { kind, protocol, internalPort } = response;
  const remote = kind === "peer"
    ? { address: response.remoteAddress, port: response.remotePort }
    : undefined;
  return mappingKey({ kind, protocol, internalPort, thirdParty, remote });
}

/** Whether a success is the answer to a deletion, and not a late one to what was asked before. */
export function confirmsDeletion(response: MappingResponse, wanted: Wanted): boolean {
  return response.lifetimeSeconds === 0 ||
    (response.externalPort === 0 && wanted.internalPort !== 0);
}

/** What a success grants, or undefined where it cannot be one. */
export function grantOf(
  response: MappingResponse,
  lease: PcpLease,
  localAddress: string,
): Grant | undefined {
  const external = externalOf(response, lease, localAddress);
  if (!external) return undefined;
  let description: string | undefined, portSet: Grant["portSet"];
  for (const option of response.options) {
    if (option.type === "description") description = option.text;
    if (option.type === "port-set") {
      const { size, firstInternalPort, parity } = option;
      portSet = { size, firstInternalPort, parity };
    }
  }
  const { lifetimeSeconds } = response;
  return description === undefined && !portSet
    ? { external, lifetimeSeconds }
    : { external, lifetimeSeconds, description, portSet };
}

/**
 * The external endpoint that a success assigns, or undefined where it assigns none.
 *
 * miniupnpd 2.3.1 answers the renewal of an IPv6 pinhole with the suggested port, so with port 0
 * where none was suggested: to a client that asks for a pinhole it does not know it has (its
 * nonce is lost), that is its first answer. The pinhole is there. What it was granted with
 * stands; and where the external address is the host's own, nothing translates, so that the
 * port outside is the port inside. Port 0 is never published.
 */
function externalOf(
  response: MappingResponse,
  lease: PcpLease,
  localAddress: string,
): Endpoint | undefined {
  const { externalAddress: address, externalPort: port } = response;
  const { internalPort, thirdParty } = lease.wanted;
  if (address === "0.0.0.0" || address === "::") return undefined;
  // A mapping of all ports has none of its own.
  if (port !== 0 || internalPort === 0) return { address, port };
  if (familyOf(address) === 4) return undefined;
  if (lease.remembered) return { address, port: lease.remembered.port };
  return address === (thirdParty ?? localAddress) ? { address, port: internalPort } : undefined;
}

/** Whether a grant is what PREFER_FAILURE asked for (PCP-C-48). */
export function keepsPromise(wanted: Wanted, external: Endpoint): boolean {
  const { preferFailure, suggestedAddress, suggestedPort } = wanted;
  if (!preferFailure) return true;
  if (external.port !== suggestedPort) return false;
  return suggestedAddress === undefined || suggestedAddress === "0.0.0.0" ||
    suggestedAddress === "::" || suggestedAddress === external.address;
}
