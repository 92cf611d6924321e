/**
 * How two events of one mapping become one where nobody has drained the queue between them (rule 5
 * of the machine contract). The one told is true of the end, and hides no change that the
 * application has not heard of:
 *
 * | waiting ↓ newer → | mapped | renewed   | moved     | recovered | lost | failed | unmapped |
 * |-------------------|--------|-----------|-----------|-----------|------|--------|----------|
 * | mapped            | mapped | mapped    | mapped    | mapped    | lost | failed | unmapped |
 * | renewed           | mapped | renewed   | moved     | recovered | lost | failed | unmapped |
 * | moved             | mapped | moved     | moved     | recovered | lost | failed | unmapped |
 * | recovered         | mapped | recovered | recovered | recovered | lost | failed | unmapped |
 * | lost              | mapped | renewed   | moved     | recovered | lost | lost   | unmapped |
 * | failed            | mapped | renewed   | moved     | recovered | lost | failed | unmapped |
 * | renewal-failed    | mapped | renewed   | moved     | recovered | lost | failed | unmapped |
 *
 * The rest of the event is always the newer one's; of two events that are of no mapping the newer
 * one is told. A `renewal-failed` changes nothing about the mapping, so whatever waits stays as it
 * is. Whose `mapped` was taken away by a `lost` has not heard of any grant: the machine tells the
 * next one as `mapped`, so that `recovered` never comes before it (`Outbox.pendingEvent`).
 *
 * @module
 */

/** One event of two under the same key. */
export function mergeMappingEvents<E extends { readonly type: string }>(older: E, newer: E): E {
  if (newer.type === "renewal-failed" && older.type !== newer.type) return older;
  const keepsType = keepsOlderType(older.type, newer.type);
  return keepsType && older.type !== newer.type ? { ...newer, type: older.type } : newer;
}

function keepsOlderType(older: string, newer: string): boolean {
  switch (newer) {
    case "renewed":
      return older === "mapped" || older === "moved" || older === "recovered";
    case "moved":
      return older === "mapped" || older === "recovered";
    case "recovered":
      return older === "mapped";
    case "failed":
      return older === "lost";
    default:
      return false;
  }
}
