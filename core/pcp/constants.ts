/**
 * PCP's numbers and their names (RFC 6887 §19, RFC 7220, RFC 7225, RFC 7652, RFC 7753).
 *
 * @module
 */

/** The version this library speaks. */
export const PCP_VERSION = 2;
/** The port on which a server takes requests. */
export const PCP_PORT = 5351;
/** The port on which clients hear multicast announcements. */
export const PCP_ANNOUNCE_PORT = 5350;
/** The largest UDP payload, bytes (RFC 6887 §7). */
export const PCP_MAX_LENGTH = 1100;
/** Bytes of the common header, requests and responses alike. */
export const PCP_HEADER_LENGTH = 24;
/** Where the mapping nonce stands in MAP and PEER messages, requests and responses alike. */
export const PCP_NONCE_OFFSET = 24;
/** Bytes of a mapping nonce. */
export const PCP_NONCE_LENGTH = 12;

/** Opcodes. */
export const PCP_OPCODE = {
  ANNOUNCE: 0,
  MAP: 1,
  PEER: 2,
  AUTHENTICATION: 3,
} as const;

/** Option codes; 128 and above are optional to process. */
export const PCP_OPTION = {
  THIRD_PARTY: 1,
  PREFER_FAILURE: 2,
  FILTER: 3,
  DESCRIPTION: 128,
  PREFIX64: 129,
  PORT_SET: 130,
} as const;

/** Result codes: RFC 6887 §7.4 and, from 14 on, RFC 7652. */
export const PCP_RESULT = {
  SUCCESS: 0,
  UNSUPP_VERSION: 1,
  NOT_AUTHORIZED: 2,
  MALFORMED_REQUEST: 3,
  UNSUPP_OPCODE: 4,
  UNSUPP_OPTION: 5,
  MALFORMED_OPTION: 6,
  NETWORK_FAILURE: 7,
  NO_RESOURCES: 8,
  UNSUPP_PROTOCOL: 9,
  USER_EX_QUOTA: 10,
  CANNOT_PROVIDE_EXTERNAL: 11,
  ADDRESS_MISMATCH: 12,
  EXCESSIVE_REMOTE_PEERS: 13,
  INITIATION: 14,
  AUTHENTICATION_REQUIRED: 15,
  AUTHENTICATION_FAILED: 16,
  AUTHENTICATION_SUCCEEDED: 17,
  AUTHORIZATION_FAILED: 18,
  SESSION_TERMINATED: 19,
  UNKNOWN_SESSION_ID: 20,
  DOWNGRADE_ATTACK_DETECTED: 21,
  AUTHENTICATION_REQUEST: 22,
  AUTHENTICATION_REPLY: 23,
} as const;

const RESULT_NAMES: readonly string[] = Object.keys(PCP_RESULT);

/**
 * The RFC's name of a result code, or `"RESULT_n"` where it has none.
 *
 * @example
 * ```ts
 * import { pcpResultName } from "@natkit/natkit/pcp";
 * console.assert(pcpResultName(2) === "NOT_AUTHORIZED");
 * console.assert(pcpResultName(200) === "RESULT_200");
 * ```
 */
export function pcpResultName(code: number): string {
  // The codes run from 0 without a gap, in the order in which they are listed.
  return RESULT_NAMES[code] ?? `RESULT_${code}`;
}
