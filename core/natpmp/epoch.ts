/**
 * Seconds Since Start of Epoch: how a client notices that the gateway lost its mappings
 * (RFC 6886 §3.6; PMP-C-16, PMP-C-28).
 *
 * @module
 */

/**
 * Whether the table of a gateway is the one known: its age must have grown by at least 7/8 of the
 * time passed here, less 2 seconds. Growing faster is no error in NAT-PMP.
 *
 * @param elapsedMs What has passed here between the two packets, milliseconds.
 * @param previous The epoch in the earlier packet, seconds.
 * @param current The epoch in the later packet, seconds.
 */
export function isSameTable(elapsedMs: number, previous: number, current: number): boolean {
  return current >= previous + 7 / 8 * elapsedMs / 1000 - 2;
}
