/**
 * What MAP and PEER ask for and what they do to the mapping table: RFC 6887 §11.3, §12.3, §13 and
 * §15, RFC 7220, RFC 7225, RFC 7753.
 *
 * Theory of operation. First the options, in the order in which they appear (PCP-S-11…14, 30, 40,
 * 44…46), come to a plan or to the error that they earn. Then MAP (PCP-S-26…39, 45, 46, 52…55)
 * looks the internal endpoint up. It is mapped statically: that is answered, and nothing touched.
 * Explicitly: the nonce has to match, then the mapping is renewed. Not at all, or outbound only: a
 * mapping is made. A lifetime of 0 deletes. PEER (PCP-S-40…43) does likewise by five-tuple, and
 * never shortens. Everything is judged before the first change, so that a refusal leaves no trace
 * (PCP-S-15).
 *
 * @module
 */
import { equalBytes } from "../bytes.ts";
import { type Cidr, classify, contains, parseCidr } from "../cidr.ts";
import { familyOf } from "../ip.ts";
import type { Endpoint, Instant } from "../machine.ts";
import { type RemoteFilter, secondsUntil } from "../mapping.ts";
import type { MappingTable, RenewRequest, TableEntry, TableFault } from "../table/mod.ts";
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
import { isPrefix64, readPrefix64 } from "./prefix64.ts";
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
  return option.type !== "unknown" || isPrefix64(option);
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
    case "port-set":
      return processPortSet(option, request, settings, draft);
    case "malformed":
      // Only a mandatory option has to be well-formed; an invalid description is to be ignored.
      return option.code < 128 ? PCP_RESULT.MALFORMED_OPTION : undefined;
    case "unknown":
      if (settings.prefix64 && isPrefix64(option) && request.kind !== "peer") {
        if (readPrefix64(option)) draft.processed.push(settings.prefix64);
      }
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
function mergeFilters(
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

/** RFC 793's TIME_WAIT: twice the maximum segment lifetime. */
const TIME_WAIT_SECONDS = 240;

const FAULT_RESULT: Readonly<Record<TableFault, number>> = {
  "no-resources": PCP_RESULT.NO_RESOURCES,
  "already-mapped": PCP_RESULT.NO_RESOURCES,
  "over-quota": PCP_RESULT.USER_EX_QUOTA,
  "external-unavailable": PCP_RESULT.CANNOT_PROVIDE_EXTERNAL,
  "not-entirely-available": PCP_RESULT.UNSUPP_PROTOCOL,
};

/** A request whose options have been read. */
export interface Job<R extends KnownRequest> {
  /** What is asked. */
  readonly request: R;
  /** By whom. */
  readonly from: Endpoint;
  /** What the options come to. */
  readonly plan: OptionPlan;
  /** The inside that it is about. */
  readonly address: string;
  /** The mapping that is there already, of its first port. */
  readonly existing: TableEntry | undefined;
}

/** The error to answer with. */
export interface Refusal {
  /** One of `PCP_RESULT`. */
  readonly resultCode: number;
  /** For how long; the code's usual time where left out. */
  readonly lifetimeSeconds?: number | undefined;
  /** Of the mapping that it is about; the request's where left out. */
  readonly internalPort?: number;
}

/** A success to answer with. */
export interface Grant {
  /** The mapping it tells of, where there is one. */
  readonly entry: TableEntry | undefined;
  /** The request's, but for further mappings that a port set meets. */
  readonly internalPort: number;
  /** What was assigned. */
  readonly external: Endpoint;
  /** How long it lasts from now on. */
  readonly lifetimeSeconds: number;
  /** The options that were processed. */
  readonly options: readonly PcpOption[];
}

/** What is to be answered: several answers only where a port set meets several mappings. */
export type Outcome = readonly (Grant | Refusal)[];

/** MAP and PEER over a mapping table. */
export class MappingService {
  #table: MappingTable;
  #settings: PcpServerSettings;

  /** Takes options that have been checked. */
  constructor(table: MappingTable, settings: PcpServerSettings) {
    this.#table = table;
    this.#settings = settings;
  }

  /** The mapping that a request for that inside is about, of its first port. */
  existing(request: KnownRequest, address: string): TableEntry | undefined {
    if (request.kind === "announce") return undefined;
    const { protocol, internalPort } = request;
    if (request.kind === "map") return this.#table.inbound(protocol, address, internalPort);
    return this.#table.outbound(protocol, address, internalPort, remoteOf(request));
  }

  /** Processes a MAP request. */
  map(job: Job<PcpMapRequestMessage>, now: Instant): Outcome {
    const { protocol, internalPort, lifetimeSeconds } = job.request;
    if (protocol === 0 && internalPort !== 0) return [{ resultCode: PCP_RESULT.MALFORMED_REQUEST }];
    const entries = this.#mapped(job);
    if (lifetimeSeconds === 0) return this.#unmap(job, entries, now);
    if (!this.#canMap(protocol, internalPort)) return [{ resultCode: PCP_RESULT.UNSUPP_PROTOCOL }];
    if (entries.length === 0) return [this.#create(job, now)];
    // Each as if it alone had been asked for (RFC 7753 §4.4.1).
    return entries.map((entry) => {
      const error = this.#judgeRenewal(job, entry);
      if (error !== undefined) return { ...refusalBy(entry, error, now), ...portOf(job, entry) };
      this.#renew(job, entry, now);
      return this.#grant(job, entry, now);
    });
  }

  /** Processes a PEER request. */
  peer(job: Job<PcpPeerRequestMessage>, now: Instant): Outcome {
    const { request, address, existing: entry } = job;
    const { protocol, internalPort, nonce } = request;
    const remote = remoteOf(request);
    if (protocol === 0 || internalPort === 0 || !canBePeer(remote, address)) {
      return [{ resultCode: PCP_RESULT.MALFORMED_REQUEST }];
    }
    if (!this.#settings.protocols.has(protocol)) {
      return [{ resultCode: PCP_RESULT.UNSUPP_PROTOCOL }];
    }
    if (!entry) return [this.#createPeer(job, remote, now)];
    if (isGuarded(entry, nonce)) return [refusalBy(entry, PCP_RESULT.NOT_AUTHORIZED, now)];
    this.#table.renew(entry, this.#lease(job, this.#peerLeaseEnd(job, entry, now)));
    return [this.#grant(job, entry, now)];
  }

  /** The inbound mappings that a MAP request is about: several only where a port set meets them. */
  #mapped({ request, plan, address, existing }: Job<PcpMapRequestMessage>): TableEntry[] {
    const found = existing ? [existing] : [];
    if (!plan.portSet) return found;
    const { protocol, internalPort } = request;
    const last = Math.min(internalPort + this.#setSize(plan) - 1, 65535);
    for (let port = internalPort + 1; port <= last; port++) {
      const entry = this.#table.inbound(protocol, address, port);
      if (entry && entry !== found.at(-1)) found.push(entry);
    }
    return found;
  }

  #setSize({ portSet }: OptionPlan): number {
    return portSet ? Math.min(portSet.size, this.#settings.maxPortSetSize) : 1;
  }

  #canMap(protocol: number, internalPort: number): boolean {
    if (internalPort === 0 && !this.#settings.allowWildcards) return false;
    return protocol === 0 || this.#settings.protocols.has(protocol);
  }

  /** Why an existing mapping cannot be renewed as asked, or undefined. */
  #judgeRenewal(
    { request, plan }: Job<PcpMapRequestMessage>,
    entry: TableEntry,
  ): number | undefined {
    if (isGuarded(entry, request.nonce)) return PCP_RESULT.NOT_AUTHORIZED;
    if (plan.prefersFailure && !isAsSuggested(request, entry)) {
      return PCP_RESULT.CANNOT_PROVIDE_EXTERNAL;
    }
    if (!plan.filters) return undefined;
    // Who may use a static mapping the administrator has said, not the client.
    if (entry.kind === "static") return PCP_RESULT.NOT_AUTHORIZED;
    return mergeFilters(this.#filtersOf(entry), plan).length > this.#settings.maxFilters
      ? PCP_RESULT.EXCESSIVE_REMOTE_PEERS
      : undefined;
  }

  #renew(job: Job<PcpMapRequestMessage>, entry: TableEntry, now: Instant): void {
    if (entry.kind === "static") return;
    const end = this.#leaseEnd(job.request.lifetimeSeconds, now);
    const expiresAt = Math.max(end, this.#table.idleUntil(entry));
    const { plan } = job;
    const filters = plan.filters && mergeFilters(this.#filtersOf(entry), plan);
    this.#table.renew(entry, this.#lease(job, expiresAt, filters));
  }

  /** Those that PCP's clients asked for: another protocol's are none of theirs. */
  #filtersOf(entry: TableEntry): readonly RemoteFilter[] {
    return this.#table.leaseOf(entry, "pcp")?.filters ?? [];
  }

  #create(job: Job<PcpMapRequestMessage>, now: Instant): Grant | Refusal {
    const { request, plan, address } = job;
    const { protocol, internalPort, lifetimeSeconds } = request;
    if (this.#table.externalAddressFor(address) === undefined) {
      return { resultCode: PCP_RESULT.NETWORK_FAILURE };
    }
    const entry = this.#table.mapInbound({
      origin: "pcp",
      protocol,
      internal: { address, port: internalPort },
      suggestedAddress: suggestedAddress(request),
      suggestedPort: request.suggestedPort,
      expiresAt: this.#leaseEnd(lifetimeSeconds, now),
      requester: job.from,
      nonce: request.nonce,
      isExact: plan.prefersFailure,
      description: plan.description,
      filters: plan.filters && mergeFilters([], plan),
      size: Math.min(this.#setSize(plan), 65536 - internalPort),
      keepParity: plan.portSet?.parity ?? false,
    }, now);
    return typeof entry === "string"
      ? this.#refusalBy(entry, job, now)
      : this.#grant(job, entry, now);
  }

  #createPeer(job: Job<PcpPeerRequestMessage>, remote: Endpoint, now: Instant): Grant | Refusal {
    const { request, address } = job;
    const { protocol, internalPort, suggestedPort } = request;
    if (request.lifetimeSeconds === 0) return nothing(job);
    if (this.#table.externalAddressFor(address) === undefined) {
      return { resultCode: PCP_RESULT.NETWORK_FAILURE };
    }
    const suggested = suggestedAddress(request);
    const entry = this.#table.mapOutbound({
      expiresAt: this.#peerLeaseEnd(job, undefined, now),
      requester: job.from,
      nonce: request.nonce,
      description: job.plan.description,
      origin: "pcp",
      protocol,
      internal: { address, port: internalPort },
      remote,
      suggestedAddress: suggested,
      suggestedPort,
      isExact: suggested !== undefined || suggestedPort !== 0,
    }, now);
    return typeof entry === "string"
      ? this.#refusalBy(entry, job, now)
      : this.#grant(job, entry, now);
  }

  /** Deletes (PCP-S-55), but no sooner than outbound traffic lets it (PCP-S-53). */
  #unmap(job: Job<PcpMapRequestMessage>, entries: TableEntry[], now: Instant): Outcome {
    const { request, address } = job;
    const { protocol, internalPort, nonce } = request;
    if (entries.length === 0) {
      const hasFlows = this.#table.outbounds(protocol, address, internalPort).length > 0;
      // A deletion that comes again has the same answer, whatever flows the port has.
      const isRepeated = hasFlows &&
        this.#table.hasEnded(protocol, address, internalPort, nonce);
      return [
        hasFlows && !isRepeated ? { resultCode: PCP_RESULT.NOT_AUTHORIZED } : nothing(job),
      ];
    }
    return entries.map((entry) => {
      const at = portOf(job, entry);
      if (entry.kind === "static" || isGuarded(entry, nonce)) {
        return { ...refusalBy(entry, PCP_RESULT.NOT_AUTHORIZED, now), ...at };
      }
      const idleUntil = this.#table.idleUntil(entry);
      if (idleUntil <= now) {
        this.#table.remove(entry, now);
        return { ...nothing(job), ...at, entry };
      }
      this.#table.renew(entry, { by: "pcp", expiresAt: idleUntil });
      const lifetimeSeconds = remainingSeconds(this.#table, entry, now);
      return { ...nothing(job), ...at, entry, lifetimeSeconds };
    });
  }

  #lease(
    { request, plan, from }: Job<PcpMapRequestMessage | PcpPeerRequestMessage>,
    expiresAt: Instant,
    filters?: readonly RemoteFilter[],
  ): RenewRequest {
    const { nonce } = request;
    const { description, prefersFailure: isExact } = plan;
    const namesAddress = suggestedAddress(request) !== undefined;
    const told = { requester: from, nonce, isExact, namesAddress, description, filters };
    return { by: "pcp", expiresAt, ...told };
  }

  /** When a lease of that length ends, within the limits (PCP-S-52). */
  #leaseEnd(lifetimeSeconds: number, now: Instant): Instant {
    const { minLifetimeSeconds, maxLifetimeSeconds } = this.#settings;
    return now + 1000 * Math.min(Math.max(lifetimeSeconds, minLifetimeSeconds), maxLifetimeSeconds);
  }

  /** For PEER longer than an implicit mapping's (PCP-S-43), and never sooner than before. */
  #peerLeaseEnd(
    { request }: Job<PcpPeerRequestMessage>,
    entry: TableEntry | undefined,
    now: Instant,
  ): Instant {
    const { minPeerLifetimeSeconds } = this.#settings;
    // A lifetime of 0 asks how long the mapping lasts and changes nothing.
    if (entry && request.lifetimeSeconds === 0) return entry.expiresAt;
    const wanted = Math.max(request.lifetimeSeconds, minPeerLifetimeSeconds);
    const end = this.#leaseEnd(wanted, now);
    return entry ? Math.max(end, entry.expiresAt, this.#table.idleUntil(entry)) : end;
  }

  #grant(
    { request, plan }: Job<PcpMapRequestMessage | PcpPeerRequestMessage>,
    entry: TableEntry,
    now: Instant,
  ): Grant {
    const { internal } = entry;
    const isSet = request.kind === "map" && plan.portSet !== undefined;
    const { internalPort } = portOf({ request, plan }, entry);
    let { external } = entry;
    if (!isSet && internalPort !== internal.port) {
      // Who asks for one port of a set and knows nothing of sets is told that port's outside.
      external = { address: external.address, port: external.port + internalPort - internal.port };
    }
    const isPlain = !isSet && entry.kind !== "static";
    return {
      entry,
      internalPort,
      external,
      lifetimeSeconds: remainingSeconds(this.#table, entry, now),
      options: isPlain
        ? plan.processed
        : plan.processed.flatMap((option) => granted(option, entry)),
    };
  }

  /** Why the table could not; where a mapping is in the way, for as long as that lasts. */
  #refusalBy(
    fault: TableFault,
    { request, address }: Job<PcpMapRequestMessage | PcpPeerRequestMessage>,
    now: Instant,
  ): Refusal {
    const resultCode = FAULT_RESULT[fault];
    if (fault !== "external-unavailable") return { resultCode };
    const external = suggestedAddress(request) ?? this.#table.externalAddressFor(address)!;
    const other = this.#table.external(request.protocol, external, request.suggestedPort);
    return other ? refusalBy(other, resultCode, now) : { resultCode };
  }
}

/** A refusal because of a mapping: for as long as it lasts (PCP-S-28, 45). */
function refusalBy(entry: TableEntry, resultCode: number, now: Instant): Refusal {
  if (entry.expiresAt === Infinity) return { resultCode };
  const lifetimeSeconds = secondsUntil(entry.expiresAt, now);
  switch (resultCode) {
    case PCP_RESULT.NOT_AUTHORIZED:
      return { resultCode, lifetimeSeconds };
    case PCP_RESULT.CANNOT_PROVIDE_EXTERNAL:
      return {
        resultCode,
        lifetimeSeconds: Math.min(lifetimeSeconds + TIME_WAIT_SECONDS, FOREVER_SECONDS),
      };
    default:
      return { resultCode };
  }
}

/** A mapping that begins within the set asked for is told by its own first port. */
function portOf(
  { request, plan }: Pick<Job<PcpMapRequestMessage | PcpPeerRequestMessage>, "request" | "plan">,
  { internal }: TableEntry,
): { readonly internalPort: number } {
  const { internalPort } = request;
  return { internalPort: plan.portSet ? Math.max(internalPort, internal.port) : internalPort };
}

/** Success with nothing there: the suggestion comes back as it came (PCP-S-55). */
function nothing(
  { request, plan }: Job<PcpMapRequestMessage | PcpPeerRequestMessage>,
): Grant {
  const { internalPort, suggestedAddress: address, suggestedPort: port } = request;
  const options = plan.processed.filter((option) => option.type !== "port-set");
  return {
    entry: undefined,
    internalPort,
    external: { address, port },
    lifetimeSeconds: 0,
    options,
  };
}

/** Whether the mapping is protected by another nonce (PCP-S-28, the Simple Threat Model). */
function isGuarded(entry: TableEntry, nonce: Uint8Array): boolean {
  return entry.kind !== "static" && entry.nonce !== undefined && !equalBytes(entry.nonce, nonce);
}

/** Whether the suggestion, all of it that says anything, is what the mapping has. */
function isAsSuggested(request: PcpMapRequestMessage, { external }: TableEntry): boolean {
  const address = suggestedAddress(request);
  return request.suggestedPort === external.port &&
    (address === undefined || address === external.address);
}

function remoteOf({ remoteAddress, remotePort }: PcpPeerRequestMessage): Endpoint {
  return { address: remoteAddress, port: remotePort };
}

/** The address suggested, undefined for an all-zeros one. */
function suggestedAddress(
  { suggestedAddress: address }: PcpMapRequestMessage | PcpPeerRequestMessage,
): string | undefined {
  return address === "0.0.0.0" || address === "::" ? undefined : address;
}

/** Whether a remote peer can be one: of the same family and reachable from outside (PCP-S-41). */
function canBePeer(remote: Endpoint, internalAddress: string): boolean {
  if (remote.port === 0 || familyOf(remote.address) !== familyOf(internalAddress)) return false;
  switch (classify(remote.address)) {
    case "wildcard":
    case "loopback":
    case "link-local":
    case "multicast":
    case "broadcast":
      return false;
    default:
      return true;
  }
}

/** The lifetime that stands for "without end" in an answer (PCP-S-29). */
const FOREVER_SECONDS = 0xffff_ffff;

/**
 * Whole seconds until PCP's lease ends, whatever other protocols have granted: those may take it
 * back. A static mapping has none that ends.
 */
export function remainingSeconds(table: MappingTable, entry: TableEntry, now: Instant): number {
  if (entry.kind === "static") return FOREVER_SECONDS;
  const lease = entry.kind === "outbound" ? entry : table.leaseOf(entry, "pcp");
  return secondsUntil((lease ?? entry).expiresAt, now);
}

/** What an option says in the answer about that mapping: nothing, where it was not granted. */
function granted(option: PcpOption, entry: TableEntry): PcpOption[] {
  if (option.type === "port-set") {
    if (entry.size === 1) return [];
    return [{
      type: "port-set",
      size: entry.size,
      firstInternalPort: entry.internal.port,
      parity: option.parity,
    }];
  }
  return option.type === "description" && entry.kind === "static" ? [] : [option];
}
