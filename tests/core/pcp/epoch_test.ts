import { describe, it } from "node:test";
import { assertEquals } from "@std/assert";
import { isEpochValid } from "../../../core/pcp/epoch.ts";
import { seededRandom } from "../../../core/random.ts";
import { claim } from "./support.ts";

// Seconds on the client's clock since the earlier answer, its epoch, the later epoch, the verdict.
const TRUTH: readonly (readonly [number, number, number, boolean])[] = [
  [0, 1000, 1000, true],
  [10, 1000, 1010, true],
  [1, 1000, 999, true],
  [2, 1000, 999, false],
  [10, 1000, 998, false],
  [100, 1000, 1092, true],
  [100, 1000, 1091, false],
  [100, 1000, 1108, true],
  [100, 1000, 1109, false],
  [3600, 1000, 0, false],
  [3600, 1000, 4373, true],
  [3600, 1000, 4372, false],
  [2, 10, 10, true],
  [3, 10, 10, false],
];

describe("isEpochValid()", () => {
  for (const [elapsed, previous, current, verdict] of TRUTH) {
    it(`${previous} then ${current} after ${elapsed} s is ${verdict ? "valid" : "invalid"}`, () => {
      assertEquals(isEpochValid(1000 * elapsed, previous, current), verdict);
    });
  }

  it("counts the client's time in whole seconds", () => {
    assertEquals(isEpochValid(2999, 1000, 1000), true);
    assertEquals(isEpochValid(3000, 1000, 1000), false);
  });

  it("takes a server whose clock is up to 3 % off, and a restart for none", () => {
    const random = seededRandom(5);
    for (let i = 0; i < 10_000; i++) {
      const elapsed = random.u32() % 100_000, previous = random.u32() % 1_000_000;
      const drift = ((random.u32() % 601) - 300) / 10_000;
      const current = previous + Math.floor(elapsed * (1 + drift));
      claim(isEpochValid(1000 * elapsed, previous, current), `${elapsed} ${drift}`);
      // Back from a restart `uptime` seconds ago, with more behind it than the tolerance.
      const uptime = random.u32() % 60;
      if (previous > uptime + 1) claim(!isEpochValid(1000 * elapsed, previous, uptime));
    }
  });
});
