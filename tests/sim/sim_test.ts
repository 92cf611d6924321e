import { describe, it } from "node:test";
import { assert, assertEquals } from "@std/assert";
import { type RunReport, runSeed } from "./run.ts";
import { keptSeeds } from "./seeds.ts";

/** Enough to notice most mistakes; `deno task sim --seeds 10000` is for the others. */
const SEEDS = 200;
const BATCH = 50;

describe("simulation", () => {
  const told: Record<string, number> = {};

  for (let from = 1; from <= SEEDS; from += BATCH) {
    it(`clients keep to what the gateway confirms, seeds ${from} to ${from + BATCH - 1}`, () => {
      for (let seed = from; seed < from + BATCH; seed++) {
        for (const [name, count] of Object.entries(runSeed(seed).events)) {
          told[name] = (told[name] ?? 0) + count;
        }
      }
    });
  }

  it("the seeds went everywhere: every event was told many times", () => {
    const least = {
      mapped: 500,
      renewed: 10_000,
      moved: 100,
      recovered: 500,
      failed: 5000,
      lost: 500,
      unmapped: 500,
      "gateway-restarted": 500,
      "external-address": 100,
    };
    for (const [name, count] of Object.entries(least)) {
      assert((told[name] ?? 0) >= count, `${name}: ${told[name]}`);
    }
  });

  it("the same seed is the same run", () => {
    const runs: RunReport[] = [], traces: string[] = [];
    for (let i = 0; i < 2; i++) {
      runs.push(runSeed(3, {
        traceSize: 100_000,
        onHome: (home) => home.world.at(1e7, () => traces.push(home.world.trace.text())),
      }));
    }
    assertEquals(runs[0], runs[1]);
    assert(traces[0]!.length > 1000 && traces[0] === traces[1]);
  });
});

describe("seeds that found a bug", () => {
  for (const { seed, cause } of keptSeeds()) {
    it(`${seed}: ${cause}`, () => {
      runSeed(seed);
    });
  }
});
