/**
 * `deno task test [filter…]`: every `tests/**\/*_test.ts` on Deno, Node and Bun from one source.
 *
 * What fails, beside a test: a file that did not run to its end or registers no test, a test that
 * ran on one runtime only, a clause that was not tested or not by an assertion, in CI a skip.
 *
 * A filter is a part of a path; with filters only the files that contain one of them run.
 * `--deno`, `--node`, `--bun` choose runtimes. `tests/lab/` belongs to `deno task lab`.
 *
 * @module
 */
// deno-lint-ignore-file no-console
import { buildPackage, installPackage } from "./build_npm.ts";
import { checkClausesRun } from "./checks/clauses.ts";
import { type Failure, failureList } from "./lib/failures.ts";
import { read, readWaivers, ROOT, walk } from "./lib/files.ts";
import { beforeLeaving } from "./lib/process.ts";
import { type Outcome, runFiles, type Setting } from "./lib/runner.ts";
import { type Runtime, RUNTIMES } from "./lib/runtimes.ts";
import { checkSameTests, mayLackTests } from "./lib/same_tests.ts";

/** Of this run alone, so that two runs do not meet; it is below the root for source maps' sake. */
const BUILD = `${ROOT}/.build/test-${Deno.pid}`;
/** Of a long list of findings. */
const MOST_SHOWN = 20;

/** What tests read; `tests/npm/` finds the project with the installed package in it. */
const env: Record<string, string> = { NO_COLOR: "1" };
const setting: Setting = { build: BUILD, env };

async function main(args: readonly string[]): Promise<number> {
  const chosen = args.filter((arg) => arg.startsWith("--")).map((arg) => arg.slice(2));
  const filters = args.filter((arg) => !arg.startsWith("--"));
  const unknown = chosen.find((name) => !RUNTIMES.some((known) => known.toLowerCase() === name));
  if (unknown !== undefined) {
    console.error(`Unknown flag --${unknown}: there are --deno, --node, --bun`);
    return 2;
  }
  const runs = (runtime: Runtime) => chosen.length === 0 || chosen.includes(runtime.toLowerCase());
  const matches = (path: string) =>
    filters.length === 0 || filters.some((filter) => path.includes(filter));
  const isConformance = (path: string) => path.startsWith("tests/conformance/");
  const all = walk("tests", (path) => path.endsWith("_test.ts"))
    .filter((path) => !path.startsWith("tests/lab/"));
  const selected = all.filter(matches);
  const documented = walk("", (path) => path.endsWith(".ts") && !path.startsWith("tests/"))
    .filter((path) => /^(core|adapters)\/|^\w+\.ts$/.test(path))
    .filter((path) => read(path).includes("* ```ts"))
    .concat("README.md").filter(matches);
  if (selected.length === 0 && documented.length === 0) {
    console.error(`No test's path contains ${filters.join(" or ")}`);
    return 2;
  }

  await Deno.mkdir(BUILD, { recursive: true });
  const leave = () => Deno.remove(BUILD, { recursive: true });
  beforeLeaving(leave);
  const [files, problems] = await withPackage(selected);
  const isWhole = filters.length === 0 && files.length === all.length;
  const outcomes = new Map<Runtime, Outcome>();
  const running = runFiles(files, documented, RUNTIMES.filter(runs), setting, mayLackTests);
  for await (const [runtime, outcome] of running) {
    const hasAllClauses = all.every((path) => !isConformance(path) || files.includes(path));
    const clauses = checkClausesRun(outcome.cases, outcome.record, readWaivers(), hasAllClauses);
    outcome.problems.push(...clauses);
    tell(runtime, outcome);
    outcomes.set(runtime, outcome);
  }
  const ran = [...outcomes].filter(([, { cases }]) => cases.length > 0)
    .map(([runtime, { cases }]) => [runtime, cases] as const);
  const differences = checkSameTests(new Map(ran), isWhole);
  if (differences.length > 0) console.log("\nFAILED: the runtimes did not run the same tests");
  for (const difference of differences.slice(0, MOST_SHOWN)) console.log(indent(difference));
  if (differences.length > MOST_SHOWN) console.log(`  and ${differences.length - MOST_SHOWN} more`);
  problems.push(...differences);
  const project = env["NATKIT_NPM_PROJECT"];
  if (project !== undefined) await Deno.remove(project, { recursive: true });
  await leave();
  return close(outcomes, problems);
}

/**
 * Installs the npm package in an empty project where it is to be tested. Where that fails its
 * tests are left out, and the failure is one of the whole run.
 */
async function withPackage(
  files: readonly string[],
): Promise<[files: readonly string[], problems: string[]]> {
  const isAboutIt = (path: string) => path.startsWith("tests/npm/");
  if (!files.some(isAboutIt)) return [files, []];
  const project = await Deno.makeTempDir({ prefix: "natkit-npm-" });
  env["NATKIT_NPM_PROJECT"] = project;
  beforeLeaving(() => Deno.remove(project, { recursive: true }));
  try {
    const tarball = await buildPackage("deno pack", `${BUILD}/npm`);
    console.log("The npm package under test is made by `deno pack` (dnt needs JSR).");
    await installPackage(tarball, project);
    return [files, []];
  } catch (error) {
    const problem = `the npm package cannot be tested\n${(error as Error).message}`;
    console.log(`\nFAILED ${indent(problem).trimStart()}`);
    return [files.filter((path) => !isAboutIt(path)), [problem]];
  }
}

/** Prints what failed and what was skipped; in CI a skipped test is a failure. */
function tell(runtime: Runtime, outcome: Outcome): void {
  const { cases, problems } = outcome;
  for (const { name, detail } of cases.filter((one) => one.outcome === "failed")) {
    console.log(`\n${runtime}: FAILED ${name}\n${indent(plain(detail))}`);
  }
  for (const { name, detail } of cases.filter((one) => one.outcome === "skipped")) {
    const reason = detail === "" || detail === "true" ? "" : `: ${detail}`;
    console.log(`${runtime}: skipped ${name}${reason}`);
    if (Deno.env.get("CI") === "true") problems.push(`skipped in CI: ${name}`);
  }
  for (const problem of problems) console.log(`\n${runtime}: FAILED\n${indent(problem)}`);
}

function close(outcomes: ReadonlyMap<Runtime, Outcome>, problems: readonly string[]): number {
  let passed = 0;
  let failed = problems.length;
  console.log(failureList([
    ...[...outcomes].flatMap(([runtime, outcome]) => failuresOf(runtime, outcome)),
    ...problems.map((problem) => asFailure(problem)),
  ]));
  for (const [runtime, { cases, problems }] of outcomes) {
    const ok = cases.filter(({ outcome }) => outcome === "passed").length;
    const bad = cases.filter(({ outcome }) => outcome === "failed").length + problems.length;
    console.log(`${runtime}: ${ok} passed, ${bad} failed`);
    passed += ok;
    failed += bad;
  }
  console.log(`${passed} passed, ${failed} failed`);
  return failed === 0 ? 0 : 1;
}

function failuresOf(runtime: Runtime, { cases, problems }: Outcome): Failure[] {
  return [
    ...cases.filter(({ outcome }) => outcome === "failed")
      .map(({ name, detail }) => ({ name: `${runtime}: ${name}`, detail: plain(detail) })),
    ...problems.map((problem) => asFailure(`${runtime}: ${problem}`)),
  ];
}

/** A problem's first line says which it is. */
function asFailure(problem: string): Failure {
  const [name = "", ...detail] = problem.split("\n");
  return { name, detail: detail.join("\n") };
}

/** Node keeps the colours of assertion messages in its report, whatever NO_COLOR says. */
function plain(text: string): string {
  // deno-lint-ignore no-control-regex
  return text.replace(/\x1b\[[\d;]*m/g, "");
}

function indent(text: string): string {
  return text.split("\n").map((line) => `  ${line}`).join("\n");
}

if (import.meta.main) Deno.exit(await main(Deno.args));
