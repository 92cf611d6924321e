import { describe, it } from "node:test";
import { assertEquals } from "@std/assert";
import { isSameTable } from "../../../core/natpmp/epoch.ts";

const TRUTH: readonly [previous: number, elapsed: number, epoch: number, isSame: boolean][] = [
  [1000, 10, 1010, true],
  [1000, 0, 998, true],
  [1000, 0, 997, false],
  [1000, 80, 1068, true],
  [1000, 80, 1067, false],
  [1000, 3600, 0, false],
  [0, 7200, 6298, true],
  [0, 7200, 6297, false],
  // Forward jumps are never an error in NAT-PMP.
  [1000, 0, 5000, true],
  [1000, 10, 0xffff_ffff, true],
  [0, 0, 0, true],
  [0, 2, 0, true],
  // Parts of a second count: the least is 10 + 7/8 · 1.2 − 2 = 9.05.
  [10, 1.2, 9, false],
  [10, 1.1, 9, true],
];

describe("isSameTable()", () => {
  for (const [previous, elapsed, epoch, isSame] of TRUTH) {
    it(`${previous} s, ${elapsed} s later ${epoch} s: ${isSame ? "the same" : "lost"}`, () => {
      assertEquals(isSameTable(elapsed * 1000, previous, epoch), isSame);
    });
  }
});
