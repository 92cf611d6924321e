import { describe, it } from "node:test";
import { assertEquals } from "@std/assert";
import { mergeMappingEvents } from "../../../core/lease/events.ts";

const NEWER = ["mapped", "renewed", "moved", "recovered", "lost", "failed", "unmapped"];
const TABLE: Record<string, string> = {
  mapped: "mapped mapped mapped mapped lost failed unmapped",
  renewed: "mapped renewed moved recovered lost failed unmapped",
  moved: "mapped moved moved recovered lost failed unmapped",
  recovered: "mapped recovered recovered recovered lost failed unmapped",
  lost: "mapped renewed moved recovered lost lost unmapped",
  failed: "mapped renewed moved recovered lost failed unmapped",
  "renewal-failed": "mapped renewed moved recovered lost failed unmapped",
};

describe("mergeMappingEvents()", () => {
  for (const [older, row] of Object.entries(TABLE)) {
    it(`tells what follows ${older} in one event, with the newer one's data`, () => {
      const merged = NEWER.map((type) =>
        mergeMappingEvents({ type: older, data: 1 }, { type, data: 2 })
      );
      assertEquals(merged, row.split(" ").map((type) => ({ type, data: 2 })));
    });
  }

  it("tells of a refused renewal only where nothing else waits", () => {
    const newer = { type: "renewal-failed", data: 2 };
    for (const type of NEWER) {
      assertEquals(mergeMappingEvents({ type, data: 1 }, newer), { type, data: 1 });
    }
    assertEquals(mergeMappingEvents({ type: "renewal-failed", data: 1 }, newer), newer);
  });

  it("tells the newer one of two that are of no mapping", () => {
    const merged = mergeMappingEvents({ type: "announced" }, { type: "announce-failed" });
    assertEquals(merged, { type: "announce-failed" });
  });
});
