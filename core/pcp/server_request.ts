/**
 * A request's options, processed in the order in which they appear (PCP-S-11…14, 30, 40, 44…46,
 * RFC 7220, RFC 7225, RFC 7753), into what is to be done; or the error that they earn. Nothing is
 * changed here, so that an error leaves nothing behind (PCP-S-15).
 *
 * @module
 */
import { type Cidr, contains, parseCidr } from "../cidr.ts";
import { familyOf } from "../ip.ts";
import type { RemoteFilter } from "../mapping.ts";
import {
  PCP_MAX_LENGTH,
  PCP_RESULT,
  type PcpAnnounceRequest,
  type PcpMapRequestMessage,
  type PcpPeerRequestMessage,
} from "./codec.ts";
import {
  type FilterOption,
  NO_OPTIONS,
  optionCode,
  optionsLength,
  type PcpOption,
  type PortSetOption,
  utf8Length,
} from "./options.ts";
import type { PcpServerSettings } from "./server_options.ts";

/** A request with a known opcode. */
export type KnownRequest = PcpAnnounceRequest | PcpMapRequestMessage | PcpPeerRequestMessage;

/** What a request's options come to. */
export interface OptionPlan {
  /** The options to send back in a success, in the request's order. */
  readonly processed: readonly PcpOption[];
  /** Whose mapping it is about, where THIRD_PARTY says so. */
  readonly thirdParty: string | undefined;
  /** The suggested external endpoint or none. */
  readonly prefersFailure: boolean;
  /** Filters to add; undefined where FILTER does not appear. */
  readonly filters: readonly RemoteFilter[] | undefined;
  /** Whether the mapping's earlier filters go. */
  readonly clearsFilters: boolean;
  /** The text to keep, `""` to erase it; undefined where nothing is said about it. */
  readonly description: string | undefined;
  /** Ports wanted from the internal port on; undefined for a single one. */
  readonly portSet: PortSetOption | undefined;
}

/** What a request without options comes to. */
const NO_PLAN: OptionPlan = {
  processed: NO_OPTIONS,
  thirdParty: undefined,
  prefersFailure: false,
  filters: undefined,
  clearsFilters: false,
  description: undefined,
  portSet: undefined,
};

type Draft = { -readonly [K in keyof OptionPlan]: OptionPlan[K] } & { processed: PcpOption[] };

/** What the options come to, or the result code of the first error. */
export function planOptions(
  request: KnownRequest,
  settings: PcpServerSettings,
): OptionPlan | number {
  if (request.options.length === 0) return NO_PLAN;
  const draft: Draft = { ...NO_PLAN, processed: [] };
  const seen = new Set<number>();
  for (const option of request.options) {
    const code = optionCode(option);
    const error = seen.has(code) && option.type !== "filter" && isUnderstood(option)
      ? PCP_RESULT.MALFORMED_OPTION
      : processOption(option, request, settings, draft);
    if (error !== undefined) return error;
    seen.add(code);
  }
  if (draft.portSet && request.lifetimeSeconds !== 0 && draft.prefersFailure) {
    return PCP_RESULT.MALFORMED_OPTION;
  }
  const base = request.kind === "announce" ? 24 : request.kind === "map" ? 60 : 80;
  return base + optionsLength(draft.processed) > PCP_MAX_LENGTH
    ? PCP_RESULT.MALFORMED_REQUEST
    : draft;
}

function isUnderstood(option: PcpOption): boolean {
  return option.type !== "unknown";
}

function processOption(
  option: PcpOption,
  request: KnownRequest,
  settings: PcpServerSettings,
  draft: Draft,
): number | undefined {
  switch (option.type) {
    case "third-party":
      if (request.kind === "announce") return PCP_RESULT.MALFORMED_OPTION;
      if (option.internalAddress === request.clientAddress) return PCP_RESULT.MALFORMED_REQUEST;
      if (!settings.isThirdPartyAllowed(request.clientAddress, option.internalAddress)) {
        return PCP_RESULT.UNSUPP_OPTION;
      }
      draft.thirdParty = option.internalAddress;
      break;
    case "prefer-failure":
      if (request.kind === "peer") return PCP_RESULT.MALFORMED_REQUEST;
      if (request.kind === "announce") return PCP_RESULT.MALFORMED_OPTION;
      if (!settings.allowPreferFailure) return PCP_RESULT.UNSUPP_OPTION;
      if (request.suggestedPort === 0 || request.lifetimeSeconds === 0) {
        return PCP_RESULT.MALFORMED_OPTION;
      }
      draft.prefersFailure = true;
      break;
    case "filter":
      return processFilter(option, request, settings, draft);
    case "description": {
      // For a deletion, and where texts are not kept, the option is as good as absent.
      if (request.kind === "announce" || request.lifetimeSeconds === 0) return undefined;
      if (settings.maxDescriptionBytes === 0) return undefined;
      draft.description = truncate(option.text, settings.maxDescriptionBytes);
      draft.processed.push({ type: "description", text: draft.description });
      return undefined;
    }
    case "prefix64":
      if (request.kind !== "peer" && settings.prefix64) draft.processed.push(settings.prefix64);
      return undefined;
    case "port-set":
      return processPortSet(option, request, settings, draft);
    case "malformed":
      // Only a mandatory option has to be well-formed; an invalid description is to be ignored.
      return option.code < 128 ? PCP_RESULT.MALFORMED_OPTION : undefined;
    case "unknown":
      return option.code < 128 ? PCP_RESULT.UNSUPP_OPTION : undefined;
  }
  draft.processed.push(option);
  return undefined;
}

function processFilter(
  option: FilterOption,
  request: KnownRequest,
  settings: PcpServerSettings,
  draft: Draft,
): number | undefined {
  if (request.kind !== "map" || request.lifetimeSeconds === 0) return PCP_RESULT.MALFORMED_OPTION;
  if (option.prefixLength === 0) {
    draft.filters = [];
    draft.clearsFilters = true;
  } else {
    const prefix = filterPrefix(option);
    if (!prefix) return PCP_RESULT.MALFORMED_OPTION;
    draft.filters = [...draft.filters ?? [], { prefix, port: option.remotePort }];
    if (draft.filters.length > settings.maxFilters) return PCP_RESULT.EXCESSIVE_REMOTE_PEERS;
  }
  draft.processed.push(option);
  return undefined;
}

function filterPrefix({ remoteAddress, prefixLength }: FilterOption): Cidr | undefined {
  const length = familyOf(remoteAddress) === 4 ? prefixLength - 96 : prefixLength;
  return length < 0 ? undefined : parseCidr(`${remoteAddress}/${length}`);
}

function processPortSet(
  option: PortSetOption,
  request: KnownRequest,
  settings: PcpServerSettings,
  draft: Draft,
): number | undefined {
  if (request.kind !== "map") return undefined;
  if (option.size === 0 && request.lifetimeSeconds !== 0) return PCP_RESULT.MALFORMED_OPTION;
  // One port, or all of them, are no set; the answer then has no such option either.
  if (option.size <= 1 || request.internalPort === 0 || settings.maxPortSetSize === 1) {
    return undefined;
  }
  draft.portSet = option;
  // What is mapped in the end is filled in once it is known; here it only takes its room.
  draft.processed.push(option);
  return undefined;
}

/** As much of the text, in whole characters, as fits `limit` bytes of UTF-8. */
function truncate(text: string, limit: number): string {
  if (utf8Length(text) <= limit) return text;
  let length = 0, end = 0;
  for (const character of text) {
    length += utf8Length(character);
    if (length > limit) break;
    end += character.length;
  }
  return text.slice(0, end);
}

/** The filters that a mapping has once the plan's are added, those it has already left as they are. */
export function mergeFilters(
  before: readonly RemoteFilter[],
  plan: OptionPlan,
): readonly RemoteFilter[] {
  if (!plan.filters) return before;
  const merged = plan.clearsFilters ? [] : [...before];
  for (const filter of plan.filters) {
    const isKnown = merged.some(({ prefix, port }) =>
      port === filter.port && prefix.prefixLength === filter.prefix.prefixLength &&
      contains(prefix, filter.prefix.address)
    );
    // A renewal repeats its filters: they are not to use up the bound.
    if (!isKnown) merged.push(filter);
  }
  return merged;
}
