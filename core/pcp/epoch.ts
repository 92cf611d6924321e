/**
 * The server's epoch as a hint at lost state (RFC 6887 §8.5, PCP-C-18, PCP-C-25, PCP-C-26).
 *
 * @module
 */
/**
 * Whether an epoch fits the one before it, by the client's time in whole seconds.
 *
 * The server's difference is signed: after an epoch one second lower (which reordering makes, and
 * which is allowed) the RFC's unsigned reading would take −1 for four thousand million.
 *
 * @param elapsedMs What has passed here between the two answers, milliseconds.
 * @param previous The server's epoch in the earlier answer, seconds.
 * @param current The server's epoch in the later answer, seconds.
 */
export function isEpochValid(elapsedMs: number, previous: number, current: number): boolean {
  const clientDelta = Math.floor(elapsedMs / 1000);
  const serverDelta = current - previous;
  if (serverDelta < -1) return false;
  if (clientDelta + 2 < serverDelta - Math.floor(serverDelta / 16)) return false;
  return serverDelta + 2 >= clientDelta - Math.floor(clientDelta / 16);
}
