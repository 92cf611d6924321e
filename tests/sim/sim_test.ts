import { describe, it } from "node:test";
import { assert, assertEquals, assertThrows } from "@std/assert";
import { type RunReport, runSeed } from "./run.ts";
import { keptSeeds } from "./seeds.ts";
import { Spread } from "./spread.ts";

/** Enough to notice that a runtime goes its own way; `deno task sim` is for all other mistakes. */
const SEEDS = 40;
const BATCH = 20;

describe("simulation", () => {
  const told: Record<string, number> = {};
  const spread = new Spread();

  for (let from = 1; from <= SEEDS; from += BATCH) {
    it(`clients keep to what the gateway confirms, seeds ${from} to ${from + BATCH - 1}`, () => {
      for (let seed = from; seed < from + BATCH; seed++) {
        const { events, recreations } = runSeed(seed);
        for (const [name, count] of Object.entries(events)) {
          told[name] = (told[name] ?? 0) + count;
        }
        spread.add(recreations);
        spread.judge(seed);
      }
    });
  }

  it("the seeds went everywhere: every event was told many times", () => {
    const least = {
      mapped: 150,
      renewed: 5000,
      moved: 20,
      recovered: 100,
      failed: 1000,
      lost: 100,
      unmapped: 150,
      "gateway-restarted": 500,
      "external-address": 15,
    };
    for (const [name, count] of Object.entries(least)) {
      assert((told[name] ?? 0) >= count, `${name}: ${told[name]}`);
    }
  });

  it("the same seed is the same run", () => {
    const runs: RunReport[] = [], traces: string[] = [];
    for (let i = 0; i < 2; i++) {
      runs.push(runSeed(4, {
        traceSize: 100_000,
        onWorld: (world) => world.at(1e7, () => traces.push(world.trace.text())),
      }));
    }
    assertEquals(runs[0], runs[1]);
    const [home, journey, home2, journey2] = traces;
    assert(home!.length > 1000 && home === home2);
    assert(journey!.length > 1000 && journey === journey2);
  });
});

describe("random delays", () => {
  const delays = (ms: (i: number) => number) =>
    Array.from({ length: 200 }, (_, i) => ({ via: "pcp" as const, delayMs: ms(i) }));

  it("spread over 0…5 s are taken for such", () => {
    const spread = new Spread();
    spread.add(delays((i) => i * 25));
    spread.judge(1);
  });

  it("that leave out a second are found", () => {
    const spread = new Spread();
    spread.add(delays((i) => i * 19));
    assertThrows(() => spread.judge(7), Error, "Seed 7: the delays of pcp");
  });
});

describe("seeds that found a bug", () => {
  for (const { seed, cause } of keptSeeds()) {
    it(`${seed}: ${cause}`, () => {
      runSeed(seed);
    });
  }
});
