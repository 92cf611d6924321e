/**
 * A client's counters, all zero.
 *
 * @module
 */
import type { PcpClientStats } from "./types.ts";

/** New counters. */
export function newStats(): PcpClientStats {
  return {
    sent: { map: 0, peer: 0, delete: 0, announce: 0 },
    retransmitted: 0,
    received: 0,
    granted: 0,
    refused: 0,
    restarts: 0,
    dropped: {
      "wrong-source": 0,
      "other-address": 0,
      "too-short": 0,
      "not-a-request": 0,
      "not-a-response": 0,
      "wrong-version": 0,
      "bad-length": 0,
      "bad-options": 0,
      "unmatched": 0,
      "wrong-nonce": 0,
      "stale": 0,
      "violation": 0,
    },
  };
}
