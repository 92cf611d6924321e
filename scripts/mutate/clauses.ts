/**
 * Plants the bug that the list names for each clause, and runs that clause's test alone, which has
 * to fail. Finds bugs to name, where a clause has none.
 *
 * @module
 */
import { clausesInSources, type ClauseTest } from "../checks/clauses.ts";
import { read, walk } from "../lib/files.ts";
import { NodeTree } from "../lib/node_tree.ts";
import { type Entry, entryOf, LIST, mutantOf, readList } from "./clause_list.ts";
import { type Mutant, mutated } from "./operators.ts";
import { type Choice, importsOf, makePlan, sample } from "./plan.ts";
import { withTrees } from "./trial.ts";

const RUNNER = "scripts/mutate/runner.ts";
/** No clause's test takes a tenth of it. */
const TEST_MS = 10_000;
const RUN = { cpuSeconds: 60, guardMs: 10 * 60_000 } as const;

/** A named bug, and whether the clause's own test found it. */
export interface ClauseVerdict {
  readonly entry: Entry;
  readonly mutant: Mutant;
  readonly original: string;
  readonly isKilled: boolean;
  /** The first failure, whosever. */
  readonly by: string;
}

/** Every clause that has a test, with the file it is in. */
export function testedClauses(): ClauseTest[] {
  const paths = walk("tests/conformance", (path) => path.endsWith("_test.ts"));
  return clausesInSources(paths.map((path) => ({ path, text: read(path) })));
}

/**
 * Tries a sample of the list, `count` of it.
 *
 * @throws If the list names a bug or a clause that is not there: `deno task check` says which.
 */
export async function tryClauses(
  { seed, count, prefixes }: Choice,
  { jobs, tell }: { jobs: number; tell: (verdict: ClauseVerdict) => void },
): Promise<ClauseVerdict[]> {
  const testOf = new Map(testedClauses().map(({ id, where }) => [id, where]));
  const named = readList(read(LIST)).entries.filter(({ path, reason }) =>
    reason === undefined &&
    (prefixes.length === 0 || prefixes.some((prefix) => path.startsWith(prefix)))
  );
  const chosen = sample(named, count, seed);
  const tree = await NodeTree.build();
  try {
    return await withTrees(tree, jobs, chosen, async (entry, tree) => {
      const original = read(entry.path), mutant = mutantOf(entry, original);
      const test = testOf.get(entry.id);
      if (!mutant || test === undefined) throw new RangeError(`${LIST} is stale at ${entry.id}`);
      tree.plant(mutant.path, mutated(original, mutant));
      const { failed } = await runClauses(tree, test, [`--only=${entry.id}`]);
      tree.restore();
      const isKilled = failed.some((name) => idOf(name) === entry.id || name === "the time limit");
      const verdict = { entry, mutant, original, isKilled, by: failed[0] ?? "" };
      tell(verdict);
      return verdict;
    });
  } finally {
    tree.remove();
  }
}

/**
 * Looks for bugs that can be named for the clauses that the list leaves out, among a sample of those
 * under the paths: of all that a clause's test finds the one that the fewest others find, and none
 * that is named already.
 */
export async function findBugs(
  choice: Choice,
  { jobs }: { jobs: number },
): Promise<{ readonly entry: Entry; readonly others: number }[]> {
  const { entries } = readList(read(LIST));
  const listed = new Set(entries.map(({ id }) => id));
  const open = testedClauses().filter(({ id }) => !listed.has(id));
  const files = [...new Set(open.map(({ where }) => where))];
  const named = new Set(
    entries.map((entry) => JSON.stringify(entry.reason ?? mutantOf(entry, read(entry.path)))),
  );
  const plan = await makePlan(choice), imports = importsOf(plan.tree);
  try {
    const finders = new Map<string, { mutant: Mutant; text: string; found: number }[]>();
    await withTrees(
      plan.tree,
      jobs,
      plan.mutants,
      async ({ mutant, text, original }, tree) => {
        if (named.has(JSON.stringify(mutant))) return;
        tree.plant(mutant.path, text);
        const found = new Set<string>();
        for (const file of files) {
          if (!imports.reachedFrom(file).has(mutant.path)) continue;
          const { failed } = await runClauses(tree, file, ["--all"]);
          for (const name of failed) found.add(idOf(name) ?? "");
        }
        tree.restore();
        for (const id of found) {
          const of = finders.get(id) ?? [];
          of.push({ mutant, text: original, found: found.size });
          finders.set(id, of);
        }
      },
    );
    return chooseBugs(open.map(({ id }) => id), finders);
  } finally {
    plan.tree.remove();
  }
}

/** A different bug for each, clauses with few to choose from first. */
function chooseBugs(
  ids: readonly string[],
  finders: ReadonlyMap<string, readonly { mutant: Mutant; text: string; found: number }[]>,
): { entry: Entry; others: number }[] {
  const taken = new Set<Mutant>();
  const chosen: { entry: Entry; others: number }[] = [];
  const bugsOf = (id: string) => finders.get(id) ?? [];
  for (const id of [...ids].sort((a, b) => bugsOf(a).length - bugsOf(b).length)) {
    const [best] = bugsOf(id)
      .filter(({ mutant }) => !taken.has(mutant))
      .sort((a, b) => a.found - b.found);
    if (!best) continue;
    taken.add(best.mutant);
    chosen.push({ entry: entryOf(id, best.mutant, best.text), others: best.found - 1 });
  }
  return chosen.sort((a, b) => ids.indexOf(a.entry.id) - ids.indexOf(b.entry.id));
}

/** Runs a file's tests, and names those that failed. */
async function runClauses(
  tree: NodeTree,
  test: string,
  flags: readonly string[],
): Promise<{ failed: string[] }> {
  const args = [`--limits=[${TEST_MS}]`, ...flags, tree.file(test)];
  const { stdout, code } = await tree.run(RUNNER, args, { ...RUN, isGroup: true });
  const failed = [...stdout.matchAll(/^FAILED (.*)$/gm)].map(([, name]) => name!);
  return { failed: failed.length === 0 && code !== 0 ? ["the process ended"] : failed };
}

/** The clause that a test's name tells. */
function idOf(name: string): string | undefined {
  return /(?:^| > )([A-Z]+-[CS]-\d+): /.exec(name)?.[1];
}
