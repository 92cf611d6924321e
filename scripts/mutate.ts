/**
 * `deno task mutate [--path PREFIX]… [--seed N] [--count N] [--jobs N] [--quick] [--list]
 * [--verbose] [--clauses [--find]]`: plants bugs in the sources, one at a time, runs the tests that pass its place
 * until one fails, and prints how many were killed in each folder, and those that survived as diffs
 * for `git apply`.
 *
 * 1. `plan.ts` draws the bugs, and names for each the files of tests of its area.
 * 2. Each of these files runs once without a bug, on sources with a probe at the place of every bug
 *    of the sample (`probes.ts`): so it is known which single tests pass where, and what they take.
 * 3. Each bug is planted in a tree of Node's files (`trial.ts`). A process of its own runs the
 *    quickest tests that pass its place, a second one the others, up to the first that fails
 *    (`reach.ts`, `runner.ts`); a thread beside them ends what never ends (`watchdog.ts`).
 * 4. What none of them finds is left to the simulation, where clients stand before it, and to the
 *    compiler, which may refuse it; the rest has survived.
 *
 * A process takes a tenth of a second to start: nothing that one bug leaves behind is seen by the
 * next one.
 *
 * The bugs are a sample of `--count` (100) drawn by `--seed` (1) from all under the paths; the same
 * seed draws the same ones from the same tree. `--list` shows them without running anything,
 * `--verbose` what killed the others. What an area is says `scripts/mutate/area.ts`, what a bug is
 * `scripts/mutate/operators.ts`, and which of them are none, `scripts/mutate/equivalents.ts`.
 * `--quick` leaves out the fuzz tests and single tests of more than a second: a survivor costs them
 * all, and they are seldom the only ones to find a bug.
 * Survivors do not change the exit status; tests that fail without a bug do.
 *
 * `--clauses` plants instead the bug that `tests/conformance/mutants.txt` names for each clause, all
 * of them or a sample of `--count`, and runs that clause's test: one that passes is a failure.
 * `--clauses --find` looks among a sample of all bugs for some to name where a clause has none.
 *
 * Not StrykerJS: over its TAP runner it drives `node:test` at the same speed (37 bugs of one file
 * of this tree in 62 s, here in 78 s with numbers among them), but it draws no sample of thousands,
 * plants nothing in numbers, single statements, early exits or `await`, speaks of transpiled lines,
 * wants Node 22 from its tenth version on, and brings 117 packages.
 *
 * @module
 */
// deno-lint-ignore-file no-console
import { makePlan } from "./mutate/plan.ts";
import { type ClauseVerdict, findBugs, tryClauses } from "./mutate/clauses.ts";
import { written } from "./mutate/clause_list.ts";
import { mutated } from "./mutate/operators.ts";
import { diffOf, placeOf, rates } from "./mutate/report.ts";
import { FailingBaseline, tryAll, type Verdict } from "./mutate/trial.ts";

const USAGE =
  "usage: deno task mutate [--path PREFIX]… [--seed N] [--count N] [--jobs N] [--quick] [--list] [--verbose] [--clauses [--find]]";

interface Options {
  seed: number;
  count: number | undefined;
  jobs: number;
  readonly paths: string[];
  isList: boolean;
  isVerbose: boolean;
  isQuick: boolean;
  isClauses: boolean;
  isFind: boolean;
}

function readOptions(args: readonly string[]): Options | string {
  const options: Options = {
    seed: 1,
    count: undefined,
    jobs: Math.max(1, navigator.hardwareConcurrency),
    paths: [],
    isList: false,
    isVerbose: false,
    isQuick: false,
    isClauses: false,
    isFind: false,
  };
  for (let i = 0; i < args.length; i++) {
    const flag = args[i]!;
    if (flag === "--list") options.isList = true;
    else if (flag === "--verbose") options.isVerbose = true;
    else if (flag === "--quick") options.isQuick = true;
    else if (flag === "--clauses") options.isClauses = true;
    else if (flag === "--find") options.isFind = true;
    else if (flag === "--path" || flag === "--seed" || flag === "--count" || flag === "--jobs") {
      const value = args[++i];
      if (value === undefined) return `${flag}: takes a value`;
      if (flag === "--path") options.paths.push(value.replace(/^\.\//, ""));
      else if (!/^[0-9]{1,12}$/.test(value)) return `${flag}: "${value}" is no number`;
      else options[flag.slice(2) as "seed" | "count" | "jobs"] = Number(value);
    } else return `unknown flag ${flag}`;
  }
  if (options.isFind && !options.isClauses) return "--find: goes with --clauses";
  if (options.jobs < 1 || options.jobs > 64) return `--jobs: must be in 1..64`;
  return options;
}

function tell(verdict: Verdict, isVerbose: boolean): void {
  const { mutant, original, text, outcome, by, elapsedMs, asked, isSimulated } = verdict;
  const place = placeOf(mutant, original);
  if (outcome === "killed" || outcome === "refused by the types") {
    const details = by === "" ? "" : `: ${by}`;
    if (isVerbose) console.log(`${outcome}  ${place}${details} (${Math.round(elapsedMs)} ms)`);
    return;
  }
  const passed = `${asked} test files${isSimulated ? " and the simulation" : ""} passed`;
  const note = outcome === "untested" ? "no test passes there" : passed;
  console.log(`\nsurvived  ${place} (${note})\n${diffOf(mutant.path, original, text)}`);
}

function tellClause({ entry, mutant, original, isKilled, by }: ClauseVerdict): void {
  if (isKilled) return;
  const diff = diffOf(mutant.path, original, mutated(original, mutant));
  console.log(`\n${entry.id} passes with its bug in place${by === "" ? "" : ` (${by})`}\n${diff}`);
}

async function clauses({ seed, count, paths, jobs, isFind }: Options): Promise<number> {
  const startedAt = performance.now();
  const since = () => ((performance.now() - startedAt) / 1000).toFixed(0);
  if (isFind) {
    const found = await findBugs({ seed, count: count ?? 100, prefixes: paths }, { jobs });
    for (const { entry, others } of found) {
      console.log(`# ${others} other clauses find it\n${written(entry)}`);
    }
    console.log(`# ${found.length} found, ${since()} s, seed ${seed}`);
    return 0;
  }
  const choice = { seed, count: count ?? Infinity, prefixes: paths };
  const verdicts = await tryClauses(choice, { jobs, tell: tellClause });
  const killed = verdicts.filter(({ isKilled }) => isKilled).length;
  console.log(
    `${killed} of ${verdicts.length} clauses' bugs found by the clause's own test; ${since()} s, seed ${seed}`,
  );
  return killed === verdicts.length ? 0 : 1;
}

async function main(options: Options): Promise<number> {
  if (options.isClauses) return await clauses(options);
  const startedAt = performance.now();
  const { seed, count = 100, paths, jobs, isQuick } = options;
  const plan = await makePlan({ seed, count, prefixes: paths, isQuick }).catch((error: unknown) => {
    if (error instanceof RangeError) return error.message;
    throw error;
  });
  if (typeof plan === "string") {
    console.error(plan);
    return 2;
  }
  try {
    if (options.isList) {
      for (const { mutant, original, text } of plan.mutants) {
        console.log(`${placeOf(mutant, original)}\n${diffOf(mutant.path, original, text)}\n`);
      }
      return 0;
    }
    const where = paths.length === 0 ? "everything" : paths.join(", ");
    const { mutants, total, equivalents } = plan;
    console.log(
      `${mutants.length} of ${total} bugs in ${where}, seed ${seed}; ${equivalents} change nothing`,
    );
    const verdicts = await tryAll(plan, {
      jobs,
      tell: (verdict) => tell(verdict, options.isVerbose),
    });
    const seconds = ((performance.now() - startedAt) / 1000).toFixed(0);
    console.log(`\n${rates(verdicts).join("\n")}\n${seconds} s, seed ${seed}`);
    return 0;
  } catch (error) {
    if (!(error instanceof FailingBaseline)) throw error;
    console.error(error.message);
    return 1;
  } finally {
    plan.tree.remove();
  }
}

const options = readOptions(Deno.args);
if (typeof options === "string") {
  console.error(`${options}\n${USAGE}`);
  Deno.exitCode = 2;
} else Deno.exitCode = await main(options);
