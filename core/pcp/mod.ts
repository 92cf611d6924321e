/**
 * PCP, the Port Control Protocol (RFC 6887): the codec and the state machines. They touch no
 * socket and no clock; the promise API of `@natkit/natkit` is built on them.
 *
 * @example A MAP request's bytes
 * ```ts
 * import { encodeRequest } from "@natkit/natkit/pcp";
 * const bytes = encodeRequest({
 *   kind: "map",
 *   lifetimeSeconds: 7200,
 *   clientAddress: "192.168.1.100",
 *   nonce: crypto.getRandomValues(new Uint8Array(12)),
 *   protocol: 6,
 *   internalPort: 8080,
 *   suggestedPort: 0,
 *   suggestedAddress: "0.0.0.0",
 *   options: [],
 * });
 * console.assert(bytes.length === 60);
 * ```
 *
 * @module
 */
export {
  decodeRequest,
  decodeResponse,
  encodeErrorResponse,
  encodeRequest,
  encodeResponse,
} from "./codec.ts";
export type {
  PcpAnnounceRequest,
  PcpAnnounceResponse,
  PcpErrorFields,
  PcpFault,
  PcpMappingFields,
  PcpMapRequestMessage,
  PcpMapResponseMessage,
  PcpOtherRequest,
  PcpOtherResponse,
  PcpPeerRequestMessage,
  PcpPeerResponseMessage,
  PcpRequest,
  PcpRequestFields,
  PcpResponse,
  PcpResponseFields,
  PcpUnsupportedVersion,
} from "./messages.ts";
export {
  PCP_ANNOUNCE_PORT,
  PCP_MAX_LENGTH,
  PCP_OPCODE,
  PCP_OPTION,
  PCP_PORT,
  PCP_RESULT,
  PCP_VERSION,
  pcpResultName,
} from "./constants.ts";
export type {
  DescriptionOption,
  FilterOption,
  MalformedOption,
  PcpOption,
  PortSetOption,
  PreferFailureOption,
  ThirdPartyOption,
  UnknownOption,
} from "./options.ts";
export { isPrefix64, type Prefix64, prefix64Option, readPrefix64 } from "./prefix64.ts";
export * from "./client.ts";
export type { Cidr } from "../cidr.ts";
export type { Family } from "../ip.ts";
export type * from "../lease/types.ts";
