import { describe, it } from "node:test";
import { assertEquals } from "@std/assert";
import { EpochRecord } from "../../../core/lease/epoch.ts";

/** An epoch may not fall behind. */
const record = () =>
  new EpochRecord((elapsedMs, previous, current) => 1000 * current >= 1000 * previous + elapsedMs);

describe("EpochRecord", () => {
  it("takes the first epoch as it is, and again after forget()", () => {
    const one = record();
    assertEquals([one.isKnown, one.check(7, 0), one.isKnown], [false, true, true]);
    assertEquals(one.check(7, 1000), false);
    one.forget();
    assertEquals([one.isKnown, one.check(7, 2000)], [false, true]);
  });

  it("records an epoch that does not fit, so that it is told once", () => {
    const one = record();
    one.check(5000, 0);
    assertEquals([one.check(0, 1000), one.check(1, 2000), one.check(1, 2000)], [false, true, true]);
  });

  it("judges by the time that has passed since the last one", () => {
    const one = record();
    one.check(1000, 5000);
    assertEquals(one.check(1003, 8000), true);
    assertEquals(one.check(1005, 10_001), false);
  });
});
