/**
 * Packets in words, one line each: what a codec reads of them, for logs and traces.
 *
 * @module
 */
import { toHex } from "../core/bytes.ts";
import { formatEndpoint } from "../core/ip.ts";
import type { HttpRequest, HttpResponse } from "../core/machine.ts";
import { PROTOCOL_NUMBER } from "../core/mapping.ts";
import * as natPmp from "../core/natpmp/codec.ts";
import { PCP_PORT } from "../core/pcp/constants.ts";
import * as pcp from "../core/pcp/codec.ts";
import { decodeStun, isStun, STUN_METHOD } from "../core/stun/codec.ts";
import { decodeEvent } from "../core/upnp/gena.ts";
import { decodeCall, decodeResult, type SoapArguments } from "../core/upnp/soap.ts";
import { decodeSsdp } from "../core/upnp/ssdp.ts";

/**
 * A datagram in words, or undefined where it is of no protocol that is known here.
 *
 * @param fromPort The sender's: what comes from a server's is an answer, however broken.
 */
export function describeDatagram(data: Uint8Array, fromPort?: number): string | undefined {
  if (data.length < 2) return undefined;
  if (isStun(data)) return stun(data);
  const isResponse = (data[1]! & 0x80) !== 0 || fromPort === PCP_PORT;
  if (data[0] === 2) return isResponse ? pcpResponse(data) : pcpRequest(data);
  if (data[0] === 0) return isResponse ? natPmpResponse(data) : natPmpRequest(data);
  return ssdp(data);
}

/** An HTTP request in words: the action that it calls, or its first line. */
export function describeRequest(request: HttpRequest): string {
  const { method, path } = request;
  const call = decodeCall(request);
  if (typeof call === "object") return `upnp ${call.action}? ${argumentsText(call.args)}`.trimEnd();
  const event = method === "NOTIFY" ? decodeEvent(request) : undefined;
  if (typeof event === "object") {
    return `gena event ${event.sequence}: ${argumentsText(event.properties)}`;
  }
  return `http ${method} ${path}`;
}

/** An HTTP response in words: what a call came to, or its status and size. */
export function describeResponse({ status, headers, body }: HttpResponse): string {
  const line = `http ${status} ${body.length} bytes`;
  if (body.length === 0) return line;
  const result = decodeResult({ status, headers, body });
  if (typeof result === "string") return line;
  if (!result.ok) return `upnp fault ${result.code} ${result.description}`;
  return `upnp done ${argumentsText(result.args)}`.trimEnd();
}

function argumentsText(args: SoapArguments): string {
  return Object.entries(args).map(([name, value]) => `${name} ${value || "-"}`).join(", ");
}

function ssdp(data: Uint8Array): string | undefined {
  const message = decodeSsdp(data);
  if (typeof message === "string") return message === "not-ssdp" ? undefined : `ssdp? ${message}`;
  const { kind, target, location, bootId } = message;
  const boot = bootId === undefined ? "" : ` boot ${bootId}`;
  return `ssdp ${kind}${kind === "search" ? "?" : ""} ${target}${
    location ? ` ${location}` : ""
  }${boot}`;
}

function stun(data: Uint8Array): string {
  const message = decodeStun(data);
  if (typeof message === "string") return `stun? ${message}`;
  const { method, attributes, transactionId } = message;
  const known = Object.entries(STUN_METHOD).find(([, number]) => number === method)?.[0];
  const name = known?.toLowerCase().replaceAll("_", "-") ?? `method ${method}`;
  const { errorCode, username } = attributes;
  const mapped = attributes.xorMappedAddress ?? attributes.mappedAddress;
  const parts = [
    message.class === "request" ? `stun ${name}?` : `stun ${name} ${message.class}`,
    ...mapped ? [formatEndpoint(mapped)] : [],
    ...errorCode ? [`${errorCode.code} ${errorCode.reason}`] : [],
    ...username === undefined ? [] : [`user ${username}`],
    ...attributes.useCandidate ? ["nominates"] : [],
    `id ${toHex(transactionId.subarray(0, 4))}`,
  ];
  return parts.join(" ");
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
  return `pcp ${request.kind}? ${protocolName(request.protocol)} ${request.internalPort}→${wish} ` +
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
  return `pcp ${response.kind} ${
    protocolName(response.protocol)
  } ${response.internalPort}→${external} ${tail} ` +
    `nonce ${toHex(response.nonce.subarray(0, 4))}`;
}

function protocolName(protocol: number): string {
  if (protocol === PROTOCOL_NUMBER.tcp) return "tcp";
  return protocol === PROTOCOL_NUMBER.udp ? "udp" : `${protocol}`;
}
