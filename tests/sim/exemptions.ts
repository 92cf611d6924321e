/**
 * Faults of the clients that are known and not mended yet. The model tolerates each by its name,
 * here and nowhere else; who mends one strikes it out, and the model watches over it.
 *
 * @module
 */

const KNOWN = {
  /**
   * A session that PCP has refused in a way that NAT-PMP may get around (UNSUPP_OPCODE,
   * MALFORMED_REQUEST…) asks PCP again in its next race, a minute later, whatever lifetime the
   * refusal has (PCP-C-22).
   */
  "ways-around-are-asked-again": true,
  /**
   * A session that lost a mapping with PREFER_FAILURE asks for it again with the external address
   * that it had, which the gateway may have no more, and which the application never named.
   */
  "sessions-insist-on-learnt-addresses": true,
} as const;

/** A known fault. */
export type Exemption = keyof typeof KNOWN;

/** Whether the fault is tolerated. */
export function isExempt(name: Exemption): boolean {
  return KNOWN[name];
}
