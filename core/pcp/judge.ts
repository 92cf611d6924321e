/**
 * What to make of an answer: pure judgements, each with the clause or the device it is made for.
 *
 * @module
 */
import { MAX_SCHEDULED_LIFETIME_SECONDS } from "../backoff.ts";
import { familyOf } from "../ip.ts";
import type { Endpoint, Instant } from "../machine.ts";
import type { Failure } from "../mapping.ts";
import {
  PCP_RESULT,
  type PcpMapResponseMessage,
  type PcpPeerResponseMessage,
  pcpResultName,
} from "./codec.ts";
import type { Lease } from "./lease.ts";

/** An error that says for how long, but says 0, counts as one of the short ones, seconds. */
const UNSAID_HOLD_SECONDS = 30;
/** No request is repeated sooner than this, whatever an error's lifetime says, seconds. */
const SHORTEST_HOLD_SECONDS = 4;
/** How soon a server that lacks our version is asked again at the latest (RFC 6887 §9). */
const VERSION_HOLD_SECONDS = 1800;

/** How long a refused request is held back, milliseconds: at most a day (PCP-C-21, PCP-C-22). */
export function holdMs(lifetimeSeconds: number): number {
  const said = lifetimeSeconds === 0 ? UNSAID_HOLD_SECONDS : lifetimeSeconds;
  return 1000 * Math.min(MAX_SCHEDULED_LIFETIME_SECONDS, Math.max(SHORTEST_HOLD_SECONDS, said));
}

/** How long after UNSUPP_VERSION, milliseconds: at most half an hour (PCP-C-28). */
export function versionHoldMs(lifetimeSeconds: number | undefined): number {
  const said = lifetimeSeconds || VERSION_HOLD_SECONDS;
  return 1000 * Math.min(VERSION_HOLD_SECONDS, Math.max(SHORTEST_HOLD_SECONDS, said));
}

/** The server said no, and does not want to be asked again before then. */
export function refusal(code: number, retryAt: Instant): Failure {
  return { kind: "refused", code, name: pcpResultName(code), retryAt };
}

/** Whether a refusal speaks of the server's passing trouble and not of this mapping. */
export function isTransient(code: number): boolean {
  return code === PCP_RESULT.NETWORK_FAILURE || code === PCP_RESULT.NO_RESOURCES ||
    code === PCP_RESULT.USER_EX_QUOTA;
}

/**
 * The external endpoint that a success assigns, or undefined where it assigns none (D-08).
 *
 * miniupnpd 2.3.1 answers the renewal of an IPv6 pinhole with the suggested port, so with port 0
 * where none was suggested: to a client that asks for a pinhole it does not know it has (its
 * nonce is lost), that is its first answer. The pinhole is there. What it was granted with
 * stands; and where the external address is the host's own, nothing translates, so that the
 * port outside is the port inside. Port 0 is never published.
 */
export function grantedExternal(
  lease: Lease,
  response: PcpMapResponseMessage | PcpPeerResponseMessage,
  localAddress: string,
): Endpoint | undefined {
  const { externalAddress: address, externalPort: port } = response;
  const { internalPort, thirdParty } = lease.wish;
  if (address === "0.0.0.0" || address === "::") return undefined;
  // A mapping of all ports has none of its own.
  if (port !== 0 || internalPort === 0) return { address, port };
  if (familyOf(address) === 4) return undefined;
  if (lease.external) return { address, port: lease.external.port };
  return address === (thirdParty ?? localAddress) ? { address, port: internalPort } : undefined;
}

/** Whether a grant is what PREFER_FAILURE asked for (PCP-C-48). */
export function keepsPromise(lease: Lease, external: Endpoint): boolean {
  const { preferFailure, suggestedAddress, suggestedPort } = lease.wish;
  if (!preferFailure) return true;
  if (external.port !== suggestedPort) return false;
  return suggestedAddress === undefined || isAnyAddress(suggestedAddress) ||
    suggestedAddress === external.address;
}

function isAnyAddress(address: string): boolean {
  return address === "0.0.0.0" || address === "::";
}
