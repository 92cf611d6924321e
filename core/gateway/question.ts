/**
 * Reads what a policy has to know out of a request. What cannot be read is no question: the
 * servers judge it.
 *
 * @module
 */
import { equalBytes, u16 } from "../bytes.ts";
import type { Endpoint } from "../machine.ts";
import { PROTOCOL_NUMBER } from "../mapping.ts";
import { decodeRequest as decodeNatPmp } from "../natpmp/codec.ts";
import {
  decodeRequest as decodePcp,
  type PcpMapRequestMessage,
  type PcpPeerRequestMessage,
} from "../pcp/codec.ts";
import type { TableEntry } from "../table/entry.ts";
import type { MappingTable } from "../table/table.ts";
import type { GatewayQuestion } from "./policy.ts";

/** The request as a policy sees it; undefined where it is none that a server would serve. */
export function readQuestion(
  data: Uint8Array,
  from: Endpoint,
  table: MappingTable,
): GatewayQuestion | undefined {
  return data[0] === 0 ? readNatPmp(data, from, table) : readPcp(data, from, table);
}

const NOTHING_MAPPED = {
  protocol: undefined,
  internalPort: 0,
  suggestedPort: 0,
  lifetimeSeconds: 0,
  existing: undefined,
  isForeign: false,
  isNonceRight: true,
  isPeer: false,
  isPortTaken: false,
  hasPadding: false,
} as const;

function readNatPmp(
  data: Uint8Array,
  from: Endpoint,
  table: MappingTable,
): GatewayQuestion | undefined {
  const request = decodeNatPmp(data);
  if (typeof request === "string") return undefined;
  const common = {
    ...NOTHING_MAPPED,
    via: "nat-pmp",
    from,
    internalAddress: from.address,
  } as const;
  if (request.kind === "address") return { ...common, operation: "address" };
  if (request.kind !== "map") return undefined;
  const protocol = PROTOCOL_NUMBER[request.protocol];
  const { internalPort, lifetimeSeconds } = request;
  const existing = table.inbound(protocol, from.address, internalPort);
  return {
    ...common,
    operation: lifetimeSeconds > 0 ? "map" : internalPort > 0 ? "delete" : "delete-all",
    protocol,
    internalPort,
    suggestedPort: request.suggestedExternalPort,
    lifetimeSeconds,
    existing,
    isForeign: existing !== undefined && existing.origin !== "nat-pmp",
    isPortTaken: isTaken(
      protocol,
      request.suggestedExternalPort,
      from.address,
      internalPort,
      table,
    ),
  };
}

function readPcp(
  data: Uint8Array,
  from: Endpoint,
  table: MappingTable,
): GatewayQuestion | undefined {
  const request = decodePcp(data);
  if (typeof request === "string" || request.kind === "other") return undefined;
  const hasPadding = hasPaddedOption(data);
  const common = { ...NOTHING_MAPPED, via: "pcp", from, hasPadding } as const;
  if (request.kind === "announce") {
    return { ...common, operation: "announce", internalAddress: from.address };
  }
  const thirdParty = request.options.find((option) => option.type === "third-party");
  const internalAddress = thirdParty?.type === "third-party"
    ? thirdParty.internalAddress
    : request.clientAddress;
  const existing = findExisting(request, internalAddress, table);
  const { protocol, internalPort, suggestedPort, lifetimeSeconds, nonce } = request;
  return {
    ...common,
    operation: lifetimeSeconds === 0 ? "delete" : request.kind,
    isPeer: request.kind === "peer",
    internalAddress,
    protocol,
    internalPort,
    suggestedPort,
    lifetimeSeconds,
    existing,
    isForeign: existing !== undefined && existing.origin !== "pcp",
    isPortTaken: isTaken(protocol, suggestedPort, internalAddress, internalPort, table),
    isNonceRight: existing?.nonce === undefined || equalBytes(existing.nonce, nonce),
  };
}

function findExisting(
  request: PcpMapRequestMessage | PcpPeerRequestMessage,
  address: string,
  table: MappingTable,
): TableEntry | undefined {
  const { protocol, internalPort } = request;
  if (request.kind === "map") return table.inbound(protocol, address, internalPort);
  const remote = { address: request.remoteAddress, port: request.remotePort };
  return table.outbound(protocol, address, internalPort, remote);
}

function isTaken(
  protocol: number,
  suggestedPort: number,
  address: string,
  port: number,
  table: MappingTable,
): boolean {
  const external = suggestedPort === 0 ? undefined : table.externalAddressFor(address);
  const holder = external === undefined
    ? undefined
    : table.external(protocol, external, suggestedPort);
  return holder !== undefined &&
    (holder.internal.address !== address || holder.internal.port !== port);
}

/** The request without one of its options. */
export function withoutOption(data: Uint8Array, code: number): Uint8Array {
  let at = optionsAt(data);
  while (at + 4 <= data.length) {
    const end = at + 4 + ((u16(data, at + 2) + 3) & ~3);
    if (data[at] === code) {
      const rest = new Uint8Array(data.length - (end - at));
      rest.set(data.subarray(0, at));
      rest.set(data.subarray(end), at);
      return rest;
    }
    at = end;
  }
  return data;
}

function optionsAt(data: Uint8Array): number {
  const opcode = data[1]! & 0x7f;
  return opcode === 1 ? 60 : opcode === 2 ? 80 : 24;
}

/** Whether some option's length is no multiple of 4. */
function hasPaddedOption(data: Uint8Array): boolean {
  let at = optionsAt(data);
  while (at + 4 <= data.length) {
    const length = u16(data, at + 2);
    if (length % 4 !== 0) return true;
    at += 4 + length;
  }
  return false;
}
