/**
 * From what is wanted to the bytes of its requests (RFC 6887 §11.1, §12.1, §13).
 *
 * @module
 */
import { fromHex, toHex } from "../bytes.ts";
import { cidrAs128 } from "../cidr.ts";
import { anyAddress, familyOf, withoutZone } from "../ip.ts";
import type { Lease } from "../lease/lease.ts";
import type { Endpoint, Instant } from "../machine.ts";
import type { Wanted } from "../mapping.ts";
import {
  encodeRequest,
  minimumLength,
  PCP_MAX_LENGTH,
  PCP_NONCE_LENGTH,
  PCP_OPCODE,
  type PcpRequest,
} from "./codec.ts";
import { NO_OPTIONS, optionsLength, type PcpOption, utf8Length } from "./options.ts";
import type { Request } from "./transport.ts";

/** A lease whose request is a datagram in flight. */
export type PcpLease = Lease<Request>;

/** Room that a server needs beyond the request for options of its own (PCP-C-29). */
const ROOM_FOR_ANSWER = 24;

/**
 * The nonce, as leases keep it.
 *
 * @throws {TypeError} Where it is not 12 bytes.
 */
export function checkNonce(nonce: Uint8Array): string {
  if (!(nonce instanceof Uint8Array) || nonce.length !== PCP_NONCE_LENGTH) {
    throw new TypeError(
      `'nonce' must be ${PCP_NONCE_LENGTH} bytes: current length is ${
        (nonce as
          | Uint8Array
          | undefined)?.length
      }`,
    );
  }
  return toHex(nonce);
}

/**
 * That a request is for the host from which it would be sent (PCP-C-47), as that may turn out to be,
 * or would not leave the server room for its answer; in words.
 */
export function misfitOf(wanted: Wanted, localAddress: string): string | undefined {
  if (wanted.thirdParty === withoutZone(localAddress)) {
    return `'thirdParty' must be another host's address: current value is ${wanted.thirdParty}`;
  }
  const replacesFilters = wanted.filters.length > 0;
  const details = { localAddress, replacesFilters, leavesOutPadded: false };
  const options = optionsLength(buildOptions(wanted, details, false));
  const length = minimumLength(PCP_OPCODE[wanted.kind === "map" ? "MAP" : "PEER"]) + options;
  return length > PCP_MAX_LENGTH - ROOM_FOR_ANSWER
    ? `the options take too much room: current length is ${length}`
    : undefined;
}

/** What one request says beyond what is wanted. */
interface RequestDetails {
  readonly nonce: Uint8Array;
  /** 0 deletes. */
  readonly lifetimeSeconds: number;
  readonly localAddress: string;
  /** What the server assigned before: the suggestion of renewals and recreations (PCP-C-39). */
  readonly suggested: Endpoint | undefined;
  /**
   * Whether filters take the place of those that the server may have: it adds what it is sent to
   * what it has (PCP-C-49).
   */
  readonly replacesFilters: boolean;
  /** Leave out what is optional and needs padding, which miniupnpd 2.3.1 cannot read. */
  readonly leavesOutPadded: boolean;
}

/** The bytes by which a lease is asked for. */
export function requestOf(
  lease: PcpLease,
  localAddress: string,
  leavesOutPadded: boolean,
  now: Instant,
): Uint8Array {
  const { wanted } = lease;
  // Only what the application named may be insisted on: a learnt address may be gone by now.
  const suggested = wanted.preferFailure ? undefined : lease.remembered;
  const data = buildRequest(wanted, {
    nonce: fromHex(lease.nonce!),
    lifetimeSeconds: lease.lifetimeToAsk(now),
    localAddress,
    suggested,
    replacesFilters: lease.mayHaveFilters,
    leavesOutPadded,
  });
  lease.sentRevision = lease.revision;
  lease.mayHaveFilters ||= wanted.filters.length > 0;
  return data;
}

/** The bytes of a lease's deletion. */
export function deletionOf(
  lease: PcpLease,
  localAddress: string,
  leavesOutPadded: boolean,
): Uint8Array {
  return buildRequest(lease.wanted, {
    nonce: fromHex(lease.nonce!),
    lifetimeSeconds: 0,
    localAddress,
    suggested: undefined,
    replacesFilters: false,
    leavesOutPadded,
  });
}

function buildRequest(wanted: Wanted, details: RequestDetails): Uint8Array {
  const { lifetimeSeconds, localAddress, nonce, suggested } = details;
  const isDelete = lifetimeSeconds === 0;
  const anyOfFamily = anyAddress(familyOf(wanted.thirdParty ?? localAddress));
  const named = wanted.suggestedAddress ?? anyOfFamily;
  const fields = {
    lifetimeSeconds,
    clientAddress: withoutZone(localAddress),
    nonce,
    protocol: wanted.protocol,
    internalPort: wanted.internalPort,
    // PCP-C-55: a deletion suggests nothing.
    suggestedPort: isDelete ? 0 : suggested?.port ?? wanted.suggestedPort,
    suggestedAddress: isDelete ? anyOfFamily : suggested?.address ?? named,
    options: buildOptions(wanted, details, isDelete),
  };
  const { remote } = wanted;
  const request: PcpRequest = remote
    ? { kind: "peer", ...fields, remotePort: remote.port, remoteAddress: remote.address }
    : { kind: "map", ...fields };
  return encodeRequest(request);
}

type OptionDetails = Pick<RequestDetails, "localAddress" | "replacesFilters" | "leavesOutPadded">;

function buildOptions(
  wanted: Wanted,
  details: OptionDetails,
  isDelete: boolean,
): readonly PcpOption[] {
  const options: PcpOption[] = [];
  if (wanted.thirdParty !== undefined) {
    options.push({ type: "third-party", internalAddress: wanted.thirdParty });
  }
  if (wanted.portSet && !details.leavesOutPadded) {
    // RFC 7753 §4.4: refreshing and deleting a set name the set.
    options.push({
      type: "port-set",
      size: wanted.portSet.size,
      firstInternalPort: wanted.internalPort,
      parity: wanted.portSet.parity ?? false,
    });
  }
  if (!isDelete) {
    // PCP-S-30, PCP-S-46: with lifetime 0 either of these is malformed.
    if (wanted.preferFailure) options.push({ type: "prefer-failure" });
    pushFilters(options, wanted, details);
    if (wanted.description !== undefined && !isLeftOut(wanted.description, details)) {
      options.push({ type: "description", text: wanted.description });
    }
  }
  return options.length === 0 ? NO_OPTIONS : options;
}

function pushFilters(options: PcpOption[], wanted: Wanted, details: OptionDetails): void {
  if (details.replacesFilters) {
    const family = wanted.filters[0]?.prefix.family ??
      familyOf(wanted.thirdParty ?? details.localAddress);
    const remoteAddress = anyAddress(family);
    options.push({ type: "filter", prefixLength: 0, remotePort: 0, remoteAddress });
  }
  for (const { prefix, port } of wanted.filters) {
    options.push({
      type: "filter",
      prefixLength: cidrAs128(prefix).prefixLength,
      remotePort: port,
      remoteAddress: prefix.address,
    });
  }
}

function isLeftOut(description: string, details: OptionDetails): boolean {
  return details.leavesOutPadded && utf8Length(description) % 4 !== 0;
}

/** Whether leaving out padded options makes another request of it. */
export function hasPaddedOptions(wanted: Wanted): boolean {
  return wanted.portSet !== undefined ||
    (wanted.description !== undefined && utf8Length(wanted.description) % 4 !== 0);
}
