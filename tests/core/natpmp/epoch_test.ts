import { describe, it } from "node:test";
import { assertEquals } from "@std/assert";
import { type EpochVerdict, NatPmpEpoch } from "../../../core/natpmp/epoch.ts";

const TRUTH: readonly [previous: number, elapsed: number, epoch: number, EpochVerdict][] = [
  [1000, 10, 1010, "same"],
  [1000, 0, 998, "same"],
  [1000, 0, 997, "lost"],
  [1000, 80, 1068, "same"],
  [1000, 80, 1067, "lost"],
  [1000, 3600, 0, "lost"],
  [0, 7200, 6298, "same"],
  [0, 7200, 6297, "lost"],
  // Forward jumps are never an error in NAT-PMP.
  [1000, 0, 5000, "same"],
  [1000, 10, 0xffff_ffff, "same"],
  [0, 0, 0, "same"],
  [0, 2, 0, "same"],
];

describe("NatPmpEpoch", () => {
  for (const [previous, elapsed, epoch, verdict] of TRUTH) {
    it(`${previous} s, ${elapsed} s later ${epoch} s: ${verdict}`, () => {
      const epochs = new NatPmpEpoch();
      epochs.check(previous, 5_000_000);
      assertEquals(epochs.check(epoch, 5_000_000 + elapsed * 1000), verdict);
    });
  }

  it("has nothing to compare the first packet with", () => {
    const epochs = new NatPmpEpoch();
    assertEquals(epochs.seconds, undefined);
    assertEquals(epochs.check(0, 1e9), "first");
    assertEquals(epochs.seconds, 0);
  });

  it("records after each verdict, so that one loss is told once", () => {
    const epochs = new NatPmpEpoch();
    epochs.check(1000, 0);
    assertEquals(epochs.check(1, 60_000), "lost");
    assertEquals(epochs.check(2, 61_000), "same");
    assertEquals(epochs.seconds, 2);
  });

  it("counts parts of a second", () => {
    const epochs = new NatPmpEpoch();
    epochs.check(10, 0);
    // The estimate is 10 + 7/8 · 1.2 − 2 = 9.05.
    assertEquals(epochs.check(9, 1200), "lost");
  });
});
