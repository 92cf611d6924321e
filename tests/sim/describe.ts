/**
 * PCP and NAT-PMP packets in words, for traces.
 *
 * @module
 */
import { toHex } from "../../core/bytes.ts";
import { formatEndpoint } from "../../core/ip.ts";
import * as natPmp from "../../core/natpmp/codec.ts";
import * as pcp from "../../core/pcp/codec.ts";
import type { Packet } from "../../core/sim/mod.ts";

/** The packet in words, or undefined where it is none of ours. */
export function describePacket(data: Uint8Array, packet: Packet): string | undefined {
  if (data.length < 2 || packet.protocol !== "udp") return undefined;
  const isResponse = (data[1]! & 0x80) !== 0 || packet.from.port === 5351;
  if (data[0] === 2) return isResponse ? pcpResponse(data) : pcpRequest(data);
  if (data[0] === 0) return isResponse ? natPmpResponse(data) : natPmpRequest(data);
  return undefined;
}

function natPmpRequest(data: Uint8Array): string | undefined {
  const request = natPmp.decodeRequest(data);
  if (typeof request === "string") return `nat-pmp? ${request}`;
  if (request.kind === "address") return "nat-pmp address?";
  if (request.kind !== "map") return `nat-pmp ${request.kind}`;
  const { protocol, internalPort, suggestedExternalPort, lifetimeSeconds } = request;
  return `nat-pmp map? ${protocol} ${internalPort}→${suggestedExternalPort} ${lifetimeSeconds} s`;
}

function natPmpResponse(data: Uint8Array): string | undefined {
  const response = natPmp.decodeResponse(data);
  if (typeof response === "string") return `nat-pmp? ${response}`;
  const epoch = `epoch ${response.epochSeconds}`;
  if (response.kind === "unsupported-version") return `nat-pmp UNSUPP_VERSION ${epoch}`;
  const result = natPmp.natPmpResultName(response.resultCode);
  if (response.kind === "address") {
    return `nat-pmp address ${response.externalAddress} ${result} ${epoch}`;
  }
  if (response.kind !== "map") return `nat-pmp opcode ${response.opcode} ${result} ${epoch}`;
  const { protocol, internalPort, externalPort, lifetimeSeconds } = response;
  return `nat-pmp map ${protocol} ${internalPort}→${externalPort} ${lifetimeSeconds} s ${result} ${epoch}`;
}

function pcpRequest(data: Uint8Array): string {
  const request = pcp.decodeRequest(data);
  if (typeof request === "string") return `pcp? ${request}`;
  if (request.kind === "announce" || request.kind === "other") return `pcp ${request.kind}?`;
  const wish = formatEndpoint({
    address: request.suggestedAddress,
    port: request.suggestedPort,
  });
  return `pcp ${request.kind}? ${request.protocol} ${request.internalPort}→${wish} ` +
    `${request.lifetimeSeconds} s nonce ${toHex(request.nonce.subarray(0, 4))}`;
}

function pcpResponse(data: Uint8Array): string {
  const response = pcp.decodeResponse(data);
  if (typeof response === "string") return `pcp? ${response}`;
  if (response.kind === "unsupported-version") return `pcp UNSUPP_VERSION ${response.version}`;
  const tail = `${response.lifetimeSeconds} s ${pcp.pcpResultName(response.resultCode)} ` +
    `epoch ${response.epochSeconds}`;
  if (response.kind === "announce" || response.kind === "other") {
    return `pcp ${response.kind} ${tail}`;
  }
  const external = formatEndpoint({
    address: response.externalAddress,
    port: response.externalPort,
  });
  return `pcp ${response.kind} ${response.protocol} ${response.internalPort}→${external} ${tail} ` +
    `nonce ${toHex(response.nonce.subarray(0, 4))}`;
}
