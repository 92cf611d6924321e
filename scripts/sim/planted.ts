/**
 * Whether the simulation finds the planted bugs: each is planted in a tree of its own, and the
 * simulation is run over it on Node, seed by seed, until one fails. A seed that is known to find it is
 * tried first: that it is among the seeds asked for, and found by one, is all that is claimed.
 *
 * @module
 */
// deno-lint-ignore-file no-console
import { PLANTED, type PlantedBug } from "../../tests/sim/planted.ts";
import { read } from "../lib/files.ts";
import { edited, NodeTree } from "../lib/node_tree.ts";

/** A planted simulation takes no longer: a client that sends without end is found by its packets. */
const CPU_SECONDS = 300;

/** What became of a planted bug. */
export interface PlantedResult {
  readonly bug: PlantedBug;
  /** The seed that found it. */
  readonly seed: number | undefined;
  /** The model's words, or what went wrong otherwise. */
  readonly words: string;
  readonly seconds: number;
}

/** How to look for the bugs. */
export interface PlantedOptions {
  readonly seeds: number;
  readonly from: number;
  /** How many at a time. */
  readonly workers: number;
  /** Only those whose name contains this. */
  readonly only?: string | undefined;
  readonly onResult: (result: PlantedResult) => void;
}

/** Plants each bug and runs the simulation until it is found. */
export async function findPlanted(options: PlantedOptions): Promise<PlantedResult[]> {
  const queue = PLANTED.filter(({ name }) => name.includes(options.only ?? ""));
  const results: PlantedResult[] = [];
  const tree = await NodeTree.build();
  const work = async (own: NodeTree): Promise<void> => {
    for (let bug = queue.shift(); bug; bug = queue.shift()) {
      const result = await findOne(own, bug, options);
      results.push(result);
      options.onResult(result);
    }
    own.remove();
  };
  const trees = Array.from({ length: options.workers }, (_, i) => i === 0 ? tree : tree.copy());
  await Promise.all(trees.map(work));
  return results;
}

async function findOne(
  tree: NodeTree,
  bug: PlantedBug,
  { seeds, from }: PlantedOptions,
): Promise<PlantedResult> {
  tree.plant(bug.file, edited(read(bug.file), bug));
  const { seed: known = Infinity } = bug;
  const isAmong = known >= from && known < from + seeds;
  let result = isAmong ? await runSeeds(tree, bug, known, 1) : undefined;
  if (result?.seed === undefined) {
    const missedSeconds = result?.seconds ?? 0;
    result = await runSeeds(tree, bug, from, seeds);
    result = { ...result, seconds: result.seconds + missedSeconds };
  }
  tree.restore();
  return result;
}

async function runSeeds(
  tree: NodeTree,
  bug: PlantedBug,
  from: number,
  seeds: number,
): Promise<PlantedResult> {
  const args = ["--seeds", String(seeds), "--from", String(from), "--jobs", "1"];
  const { stdout, stderr, hung, elapsedMs } = await tree.run("scripts/sim.ts", args, {
    cpuSeconds: CPU_SECONDS,
  });
  const found = /^Seed ([0-9]+): (.*)$/m.exec(stderr);
  const said = hung ? "it did not come to an end" : (stderr || stdout).trim().slice(0, 500);
  return {
    bug,
    seed: found ? Number(found[1]) : undefined,
    words: found?.[2] ?? said,
    seconds: elapsedMs / 1000,
  };
}

/** Looks for all of them and prints what becomes of each; 1 where any lives. */
export async function runPlanted(
  seeds: number,
  from: number,
  only: string | undefined,
): Promise<number> {
  const startedAt = performance.now();
  const results = await findPlanted({
    seeds,
    from,
    only,
    workers: Math.max(1, Math.min(4, navigator.hardwareConcurrency)),
    onResult: ({ bug, seed, words, seconds }) => {
      const verdict = seed === undefined ? "LIVES" : `seed ${seed}`;
      console.log(`${bug.name}\n  ${verdict}, ${seconds.toFixed(1)} s: ${words}`);
    },
  });
  const living = results.filter(({ seed }) => seed === undefined);
  const seconds = ((performance.now() - startedAt) / 1000).toFixed(0);
  console.log(`${results.length - living.length} of ${results.length} found in ${seconds} s`);
  for (const { bug } of living) console.error(`lives: ${bug.name}`);
  return living.length === 0 ? 0 : 1;
}
