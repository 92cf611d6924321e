/**
 * How two events of one mapping become one, where nobody has drained the queue between them
 * (rule 5 of the machine contract). The one told is true of the end, and says no less than what
 * the application has not heard yet.
 *
 * | waiting \ newer   | renewed   | moved     | recovered | failed | lost   | unmapped |
 * |-------------------|-----------|-----------|-----------|--------|--------|----------|
 * | mapped            | mapped    | mapped    | mapped    | failed | failed | unmapped |
 * | renewed           | renewed   | moved     | recovered | failed | lost   | unmapped |
 * | moved             | moved     | moved     | recovered | failed | lost   | unmapped |
 * | recovered         | recovered | recovered | recovered | failed | lost   | unmapped |
 * | failed            | (newer)   | (newer)   | (newer)   | failed | lost   | unmapped |
 * | lost              | (newer)   | (newer)   | recovered | lost   | lost   | unmapped |
 *
 * Events of the whole client (a restart, an announcement, another address) take the place of one
 * of their own type.
 *
 * @module
 */
import type { PcpEvent } from "./types.ts";

/** One event of two under the same key. */
export function mergeEvents(older: PcpEvent, newer: PcpEvent): PcpEvent {
  switch (newer.type) {
    case "renewed":
      return isGrant(older) ? { ...newer, type: older.type } : newer;
    case "moved":
      return older.type === "mapped" || older.type === "recovered"
        ? { ...newer, type: older.type }
        : newer;
    case "recovered":
      return older.type === "mapped" ? { ...newer, type: "mapped" } : newer;
    case "lost":
      return older.type === "mapped" ? { ...newer, type: "failed" } : newer;
    case "failed":
      return older.type === "lost" ? { ...newer, type: "lost" } : newer;
    default:
      return newer;
  }
}

function isGrant(
  event: PcpEvent,
): event is PcpEvent & { type: "mapped" | "renewed" | "moved" | "recovered" } {
  return event.type === "mapped" || event.type === "renewed" || event.type === "moved" ||
    event.type === "recovered";
}
