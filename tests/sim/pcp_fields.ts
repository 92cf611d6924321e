/**
 * What a PCP request has to say: what the application asked for, or what was last granted.
 *
 * @module
 */
import { formatCidr, parseCidr } from "../../core/cidr.ts";
import { anyAddress, familyOf } from "../../core/ip.ts";
import { PROTOCOL_NUMBER } from "../../core/mapping.ts";
import type { PcpMapRequestMessage, PcpPeerRequestMessage } from "../../core/pcp/codec.ts";
import type { PcpOption } from "../../core/pcp/options.ts";
import type { External, Wish } from "./wish.ts";

/** A MAP or PEER request. */
export type MappingRequest = PcpMapRequestMessage | PcpPeerRequestMessage;

/** What is known when the request leaves. */
export interface FieldContext {
  readonly localAddress: string;
  /** What was granted last, under this nonce or, as far as it was saved, before. */
  readonly granted: External | undefined;
  /** The grant runs, as far as the client can know. */
  readonly isRunning: boolean;
  /** Whole seconds to ask for. */
  readonly lifetimeSeconds: number;
  /** Whether options that need padding go along: they do until they were refused as malformed. */
  readonly padded: "yes" | "no" | "either";
}

/** Whether the request is for the wish. */
export function isFor(wish: Wish, request: MappingRequest): boolean {
  if (request.protocol !== PROTOCOL_NUMBER[wish.protocol]) return false;
  if (request.internalPort !== wish.internalPort) return false;
  if (thirdPartyOf(request.options) !== wish.thirdParty) return false;
  if (request.kind === "map") return wish.remote === undefined;
  return wish.remote?.address === request.remoteAddress && wish.remote.port === request.remotePort;
}

/** The internal address that a THIRD_PARTY option names. */
export function thirdPartyOf(options: readonly PcpOption[]): string | undefined {
  for (const option of options) {
    if (option.type === "third-party") return option.internalAddress;
  }
  return undefined;
}

/** What is wrong with a request for the wish, or undefined. */
export function faultOf(
  wish: Wish,
  request: MappingRequest,
  context: FieldContext,
): string | undefined {
  if (request.clientAddress !== context.localAddress) {
    return `names ${request.clientAddress} as its own address, is ${context.localAddress}`;
  }
  const { lifetimeSeconds } = request;
  if (Math.abs(lifetimeSeconds - context.lifetimeSeconds) > 1) {
    return `asks for ${lifetimeSeconds} s, wanted are ${context.lifetimeSeconds} s`;
  }
  return suggestionFault(wish, request, context) ?? optionFault(wish, request, context);
}

/** What is wrong with a deletion, or undefined (PCP-C-55). */
export function deletionFault(
  wish: Wish,
  request: MappingRequest,
  localAddress: string,
): string | undefined {
  const any = anyAddress(familyOf(wish.thirdParty ?? localAddress));
  if (request.clientAddress !== localAddress) return `names ${request.clientAddress} as its own`;
  if (request.suggestedPort !== 0) return `suggests port ${request.suggestedPort}`;
  if (request.suggestedAddress !== any) return `suggests address ${request.suggestedAddress}`;
  const wrong = request.options.find(({ type }) => type === "prefer-failure" || type === "filter");
  return wrong && `carries the option ${wrong.type}`;
}

function suggestionFault(
  wish: Wish,
  request: MappingRequest,
  { localAddress, granted, isRunning }: FieldContext,
): string | undefined {
  const any = anyAddress(familyOf(wish.thirdParty ?? localAddress));
  if (wish.preferFailure) {
    // Only what the application named is insisted on.
    const { suggestedPort: port, suggestedAddress: address } = request;
    const isRight = port === wish.suggestedPort && address === any;
    return isRight ? undefined : `insists on ${address}:${port}`;
  }
  const ports = granted ? [granted.port] : [wish.suggestedPort];
  // What is lost may be asked for as the application did at first.
  if (granted && !isRunning && wish.suggestedPort !== 0) ports.push(wish.suggestedPort);
  if (wish.remembered && !isRunning) ports.push(wish.remembered.port);
  for (const { port } of wish.history) ports.push(port);
  if (!ports.includes(request.suggestedPort)) {
    return `suggests port ${request.suggestedPort}, not ${ports.join(" or ")}`;
  }
  const addresses = [granted?.address ?? any];
  if (wish.remembered?.address !== undefined) addresses.push(wish.remembered.address);
  for (const { address } of wish.history) if (address) addresses.push(address);
  if (!addresses.includes(request.suggestedAddress)) {
    return `suggests address ${request.suggestedAddress}, not ${addresses.join(" or ")}`;
  }
  return undefined;
}

function optionFault(
  wish: Wish,
  { options }: MappingRequest,
  { granted, padded }: FieldContext,
): string | undefined {
  const set = options.find((option) => option.type === "port-set");
  const isSetRight = set === undefined
    ? wish.portSetSize === undefined || padded !== "yes"
    : padded !== "no" && set.size === wish.portSetSize &&
      set.firstInternalPort === wish.internalPort;
  if (!isSetRight) return `asks for a set of ${set?.size ?? 1} ports, not ${wish.portSetSize ?? 1}`;
  const prefers = options.some(({ type }) => type === "prefer-failure");
  if (prefers !== (wish.preferFailure ?? false)) {
    return prefers ? "prefers failure" : "does not prefer failure";
  }
  return filterFault(wish, options, granted !== undefined);
}

/** RFC 6887 §13.3: what a server has is replaced by a prefix of length 0 before the new filters. */
function filterFault(
  wish: Wish,
  options: readonly PcpOption[],
  isAgain: boolean,
): string | undefined {
  const sent: string[] = [];
  let replaces = false;
  for (const option of options) {
    if (option.type !== "filter") continue;
    if (option.prefixLength === 0) {
      replaces = true;
      sent.length = 0;
      continue;
    }
    const length = option.prefixLength - (option.remoteAddress.includes(":") ? 0 : 96);
    const prefix = parseCidr(`${option.remoteAddress}/${length}`);
    sent.push(`${prefix ? formatCidr(prefix) : "?"}:${option.remotePort}`);
  }
  const wanted = (wish.filters ?? []).map(({ prefix, port }) => `${formatCidr(prefix)}:${port}`);
  if (sent.join() !== wanted.join()) {
    return `lets in ${sent.join(", ") || "all"}, wanted is ${wanted.join(", ") || "all"}`;
  }
  if (isAgain && wanted.length > 0 && !replaces) return "adds filters to those that are there";
  return undefined;
}
