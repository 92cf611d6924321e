/**
 * One request of the application on its way through a {@linkcode GatewaySession}, and its
 * translation into the words of each protocol.
 *
 * @module
 */
import { fromHex } from "../bytes.ts";
import { pickDefined } from "../defined.ts";
import type { Attempt, NatErrorCode } from "../errors.ts";
import type { Endpoint, Instant } from "../machine.ts";
import type { Failure, MappingId, MappingRequest } from "../mapping.ts";
import type { NatPmpMapping } from "../natpmp/client.ts";
import { PCP_PORT } from "../pcp/constants.ts";
import type { PcpMapping } from "../pcp/client.ts";
import type { GrantedMapping } from "./events.ts";
import type { PeerRequest, PortRequest } from "./request.ts";

/** A request and where it stands. */
export interface Claim {
  readonly id: MappingId;
  readonly request: PortRequest | PeerRequest;
  /**
   * One nonce for the claim's whole life: a gateway that saw the first MAP refuses another. In
   * hexadecimal digits, which weigh a fifth of a byte array and are what is saved.
   */
  readonly nonce: string;
  /** `"removing"`: a mapping of an earlier run is being deleted. */
  phase: "racing" | "held" | "removing";
  since: Instant;
  /** What each protocol has come to, at most one entry a protocol. */
  attempts: readonly Attempt[];
  /** Its mapping in the PCP client, while that one takes part. */
  pcp: MappingId | undefined;
  /** When the PCP request was made. */
  pcpSince: Instant;
  /** Whether PCP is to delete it once NAT-PMP has. */
  isPcpNext: boolean;
  /** Its mapping in the NAT-PMP client, while that one takes part. */
  natPmp: MappingId | undefined;
  /** Whether the gateway answered NAT-PMP's probe in this race. */
  isProbeAnswered: boolean;
  /** The external endpoint to wish for where the application names none. */
  wish: Endpoint | undefined;
  /** What the application was told last. */
  granted: GrantedMapping | undefined;
  /** Whether the application was told that it is lost. */
  isLost: boolean;
  /** Whether the application was told `mapped`, or is about to be. */
  isTold: boolean;
}

/** The claim as a PCP MAP (a PEER adds the remote endpoint). */
export function toPcpRequest(claim: Claim): MappingRequest {
  const { request, wish } = claim;
  const port = request.externalPort || wish?.port;
  const address = request.externalAddress ?? wish?.address;
  const common = {
    protocol: request.protocol,
    internalPort: request.internalPort,
    nonce: fromHex(claim.nonce),
    ...(port || address
      ? { suggestedExternal: { ...(port ? { port } : {}), ...(address ? { address } : {}) } }
      : {}),
    ...pickDefined(request, "lifetimeSeconds", "mode", "thirdParty", "description"),
  };
  if ("remote" in request) return common;
  return {
    ...common,
    ...pickDefined(request, "preferFailure"),
    ...(request.filters?.length ? { filters: request.filters } : {}),
    ...(request.portSetSize === undefined ? {} : { portSet: { size: request.portSetSize } }),
  };
}

/** The claim as a NAT-PMP mapping request. */
export function toNatPmpRequest(claim: Claim): MappingRequest {
  const { request, wish } = claim;
  const port = request.externalPort || wish?.port;
  return {
    protocol: request.protocol,
    internalPort: request.internalPort,
    ...(port ? { suggestedExternal: { port } } : {}),
    ...pickDefined(request, "lifetimeSeconds", "mode"),
  };
}

/** What PCP granted, in the application's words; undefined where it has no external endpoint. */
export function fromPcp(
  claim: Claim,
  mapping: PcpMapping,
  gateway: Endpoint,
): GrantedMapping | undefined {
  if (!mapping.external) return undefined;
  return {
    kind: mapping.kind,
    via: "pcp",
    protocol: claim.request.protocol,
    gateway,
    internal: mapping.internal,
    external: mapping.external,
    lifetimeSeconds: mapping.lifetimeSeconds,
    ...pickDefined(mapping, "remote", "description"),
    ...(mapping.portSet ? { portSetSize: mapping.portSet.size } : {}),
  };
}

/** What NAT-PMP granted; undefined while the external address is unknown. */
export function fromNatPmp(
  claim: Claim,
  mapping: NatPmpMapping,
  gateway: Endpoint,
  localAddress: string,
): GrantedMapping | undefined {
  if (mapping.externalAddress === undefined) return undefined;
  return {
    kind: "map",
    via: "nat-pmp",
    protocol: claim.request.protocol,
    gateway,
    internal: { address: localAddress, port: mapping.internalPort },
    external: { address: mapping.externalAddress, port: mapping.externalPort },
    lifetimeSeconds: mapping.lifetimeSeconds,
  };
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
      return "unsupported";
    case "no-answer":
    case "expired":
      return "no-answer";
  }
}

/** For how many seconds the gateway asks to be left alone, where `failure` is such a refusal. */
export function retryAfter(failure: Failure, now: Instant): { retryAfterSeconds?: number } {
  if (failure.kind !== "refused") return {};
  return { retryAfterSeconds: Math.max(0, Math.ceil((failure.retryAt - now) / 1000)) };
}

/** The gateway as attempts name it: its address, and its port where that is not PCP's. */
export function gatewayText(gateway: Endpoint): string {
  if (gateway.port === PCP_PORT) return gateway.address;
  return gateway.address.includes(":")
    ? `${gateway.address} port ${gateway.port}`
    : `${gateway.address}:${gateway.port}`;
}

/** Whether two grants have the same external endpoint. */
export function sameExternal(a: GrantedMapping, b: GrantedMapping): boolean {
  return a.external.port === b.external.port && a.external.address === b.external.address;
}
