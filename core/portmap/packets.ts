/**
 * What a session reads in a datagram before either protocol's client has looked at it.
 *
 * @module
 */
import { u16 } from "../bytes.ts";
import { NATPMP_RESULT } from "../natpmp/codec.ts";
import { PCP_OPCODE, PCP_VERSION } from "../pcp/constants.ts";

/** Whether PCP tells of a restart. miniupnpd does so by PCP alone, whatever it holds. */
export function isPcpAnnouncement(data: Uint8Array): boolean {
  return data[0] === PCP_VERSION && data[1] === (0x80 | PCP_OPCODE.ANNOUNCE);
}

/** Whether it is NAT-PMP's way to say that PCP's version is not spoken (decision D-01). */
export function isVersionNo(data: Uint8Array): boolean {
  return data.length >= 4 && data[0] === 0 && u16(data, 2) === NATPMP_RESULT.UNSUPP_VERSION;
}
