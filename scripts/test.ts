/**
 * `deno task test [filter…]`: every `tests/**\/*_test.ts` on Deno, Node and Bun from one source.
 *
 * Deno runs each file by itself. Node and Bun get the same files bundled and run them in one
 * process, which is ten times faster; where that process ends without a report (a file that
 * throws while it is loaded, a hang), the files are run one by one to name the culprit.
 *
 * A filter is a part of a path; with filters only the files that contain one of them run.
 * `--deno`, `--node`, `--bun` choose runtimes. `tests/lab/` belongs to `deno task lab`.
 *
 * @module
 */
// deno-lint-ignore-file no-console
import { buildPackage, installPackage } from "./build_npm.ts";
import { read, ROOT, walk } from "./lib/files.ts";
import { readReport, type TestCase } from "./lib/junit.ts";
import { beforeLeaving, must, run, type RunResult } from "./lib/process.ts";
import { bunPath, type Runtime, RUNTIMES } from "./lib/runtimes.ts";

/** Of this run alone, so that two runs do not meet; it is below the root for source maps' sake. */
const BUILD = `${ROOT}/.build/test-${Deno.pid}`;
/** No run takes this long, and no test: something waits for what never comes. */
const GUARD_MS = 10 * 60_000;
const SILENCE_MS = 2 * 60_000;
/** The same for one file alone, and how many of them may hang before the rest is given up. */
const FILE_SILENCE_MS = 60_000;
const MOST_HUNG_FILES = 3;
const LINES_OF_A_HUNG_RUN = 60;
/** Bun ends a test after 5 s by default; tests with a million packets need longer. */
const BUN_TEST_TIMEOUT_MS = 120_000;

/** What a runtime did with the files it was given. */
interface Outcome {
  readonly cases: TestCase[];
  /** What went wrong beside failing tests: each counts as a failure. */
  readonly problems: string[];
}

/** One file, as its runtime runs it. */
interface Unit {
  /** The path in the repository. */
  readonly source: string;
  /** The path that is handed to the runtime. */
  readonly file: string;
}

/** What tests read; `tests/npm/` finds the project with the installed package in it. */
const env: Record<string, string> = { NO_COLOR: "1" };

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
  const selected = walk("tests", (path) => path.endsWith("_test.ts"))
    .filter((path) => !path.startsWith("tests/lab/") && matches(path));
  const documented = walk("", (path) => path.endsWith(".ts") && !path.startsWith("tests/"))
    .filter((path) => /^(core|adapters)\/|^\w+\.ts$/.test(path))
    .filter((path) => matches(path) && read(path).includes("* ```ts"));

  const outcomes = new Map<Runtime, Outcome>();
  await Deno.mkdir(BUILD, { recursive: true });
  const leave = () => Deno.remove(BUILD, { recursive: true });
  beforeLeaving(leave);
  const [files, problems] = await withPackage(selected);
  const bundling = runs("Node") || runs("Bun") ? bundle(files) : undefined;
  // Where the bundle fails while Deno runs, its error is told when it is awaited.
  bundling?.catch(() => {});
  if (runs("Deno")) outcomes.set("Deno", tell("Deno", await onDeno(files, documented)));
  for (const runtime of ["Node", "Bun"] as const) {
    if (!runs(runtime)) continue;
    const outcome = await bundling!.then((units) => onBundles(runtime, units), (error) => ({
      cases: [],
      problems: [`the tests could not be bundled\n${error.message}`],
    }));
    outcomes.set(runtime, tell(runtime, outcome));
  }
  compare(outcomes);
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

// Deno: the sources, each file in its own isolate.

async function onDeno(files: readonly string[], documented: readonly string[]): Promise<Outcome> {
  const test = async (label: string, flags: string[], paths: readonly string[]) => {
    if (paths.length === 0) return { cases: [], problems: [] };
    const report = `${BUILD}/deno-${label}.xml`;
    const argv = [Deno.execPath(), "test", "-A", "--no-check", ...flags];
    const result = await ended(
      [...argv, "--reporter=dot", `--junit-path=${report}`, ...paths],
      report,
      SILENCE_MS,
    );
    if (result.usable) return result.outcome;
    return await oneByOne(paths.map((path) => ({ source: path, file: path })), (file, out) => [
      ...argv,
      "--reporter=dot",
      `--junit-path=${out}`,
      file,
    ], result);
  };
  const suites = await test("tests", [], files);
  const examples = await test("docs", ["--doc"], documented);
  return {
    cases: [...suites.cases, ...examples.cases],
    problems: [...suites.problems, ...examples.problems],
  };
}

// Node and Bun: bundles of the same files.

/** Bundles the files, shared modules once, beside an entry that imports them all. */
async function bundle(files: readonly string[]): Promise<Unit[]> {
  if (files.length === 0) return [];
  const out = `${BUILD}/bundle`;
  // Bun takes a file for a test by its name, and bundles keep the names of their entries: so the
  // entries are stubs, which also fixes where each bundle lands.
  const stubs = `${BUILD}/stubs`;
  await Deno.mkdir(stubs, { recursive: true });
  await Deno.mkdir(out, { recursive: true });
  // A bundle without imports or exports would be taken for CommonJS.
  await Deno.writeTextFile(`${out}/package.json`, '{ "type": "module" }\n');
  const units: Unit[] = [];
  const entries: string[] = [];
  for (const source of files) {
    const name = source.slice("tests/".length).replaceAll("/", ".").replace(/_test\.ts$/, "");
    await Deno.writeTextFile(`${stubs}/${name}.test.ts`, `import "../../../${source}";\n`);
    entries.push(`${stubs}/${name}.test.ts`);
    units.push({ source, file: `${out}/${name}.test.js` });
  }
  await must([
    Deno.execPath(),
    "bundle",
    "--quiet",
    "--platform=deno",
    "--code-splitting",
    "--sourcemap=linked",
    "--outdir",
    out,
    ...entries,
  ], { cwd: ROOT, env });
  if (entries.length === 1) return units;
  const all = units.map(({ file }) => `import "./${file.slice(out.length + 1)}";\n`);
  await Deno.writeTextFile(`${out}/all.test.js`, all.join(""));
  return units;
}

async function onBundles(runtime: "Node" | "Bun", units: readonly Unit[]): Promise<Outcome> {
  const first = units[0];
  if (first === undefined) return { cases: [], problems: [] };
  const command = runtime === "Node" ? nodeCommand : await bunCommand();
  const together = units.length === 1 ? first.file : `${BUILD}/bundle/all.test.js`;
  const report = `${BUILD}/${runtime.toLowerCase()}.xml`;
  const result = await ended(command(together, report), report, SILENCE_MS);
  return result.usable ? result.outcome : await oneByOne(units, command, result);
}

type Command = (file: string, report: string) => string[];

const nodeCommand: Command = (file, report) => [
  "node",
  "--enable-source-maps",
  "--test",
  "--test-reporter=junit",
  `--test-reporter-destination=${report}`,
  "--test-reporter=spec",
  "--test-reporter-destination=stdout",
  file,
];

async function bunCommand(): Promise<Command> {
  const bun = await bunPath();
  return (file, report) => [
    bun,
    "test",
    `--timeout=${BUN_TEST_TIMEOUT_MS}`,
    "--reporter=junit",
    `--reporter-outfile=${report}`,
    file,
  ];
}

// What both have in common.

/** A run that has ended; its report is usable when it tells why the status is what it is. */
interface Ended {
  readonly result: RunResult;
  readonly outcome: Outcome;
  readonly usable: boolean;
}

async function ended(argv: readonly string[], report: string, silenceMs: number): Promise<Ended> {
  await Deno.remove(report).catch(() => {});
  const result = await run(argv, { cwd: ROOT, env, guardMs: GUARD_MS, silenceMs });
  const xml = await Deno.readTextFile(report).catch(() => "");
  const entries = readReport(xml);
  // Node takes a file that throws while it is loaded, or has no tests, for a test.
  const cases = entries.filter(({ name }) => !name.endsWith(".test.js"));
  const failed = cases.length === entries.length &&
    cases.some(({ outcome }) => outcome === "failed");
  const usable = !result.hung && cases.length > 0 && (result.code === 0 || failed);
  return { result, outcome: { cases, problems: [] }, usable };
}

/** Runs files alone after a run of all of them ended badly, to tell which one it was. */
async function oneByOne(units: readonly Unit[], command: Command, whole: Ended): Promise<Outcome> {
  if (units.length > 1) console.log(`${ending(whole.result)} of all files; file by file:`);
  const cases: TestCase[] = [];
  const problems: string[] = [];
  let hung = 0;
  for (const { source, file } of units) {
    if (hung >= MOST_HUNG_FILES) {
      problems.push(`${source} and what follows it were not run, as ${hung} files hung`);
      break;
    }
    const report = `${BUILD}/one.xml`;
    const alone = units.length === 1 ? whole : await ended(
      command(file, report),
      report,
      FILE_SILENCE_MS,
    );
    if (alone.result.hung) hung++;
    cases.push(...alone.outcome.cases);
    const failed = alone.result.code !== 0 || alone.result.hung;
    // A file may register no test on a runtime; failing without saying so is a failure.
    if (failed && !alone.usable) {
      problems.push(`${source}: ${ending(alone.result)}\n${saidBy(alone.result)}`);
    }
  }
  // Alone every file is fine: then what happened to all of them is the failure.
  const explained = problems.length > 0 || cases.some(({ outcome }) => outcome === "failed");
  if (!explained && (whole.result.code !== 0 || whole.result.hung)) {
    problems.push(
      `${ending(whole.result)}, although each file passes alone\n${saidBy(whole.result)}`,
    );
  }
  return { cases, problems };
}

function ending(result: RunResult): string {
  return result.hung
    ? `no end within ${
      Math.round(result.elapsedMs / 1000)
    } s (a test waits for ever, or leaves a ` +
      `socket or timer open, as a failed one may)`
    : `exit status ${result.code} without a report of what failed`;
}

/** Everything it wrote; of a run that hung the end, which shows where. */
function saidBy({ stdout, stderr, hung }: RunResult): string {
  const said = [stdout, stderr].map((text) => text.trim()).filter((text) => text !== "");
  const lines = said.join("\n").split("\n");
  return lines.slice(hung ? -LINES_OF_A_HUNG_RUN : 0).join("\n");
}

/** Prints what failed and what was skipped; in CI a skipped test is a failure. */
function tell(runtime: Runtime, outcome: Outcome): Outcome {
  const { cases, problems } = outcome;
  if (cases.length === 0) problems.push("no test ran");
  for (const { name, detail } of cases.filter((one) => one.outcome === "failed")) {
    console.log(`\n${runtime}: FAILED ${name}\n${indent(plain(detail))}`);
  }
  for (const { name, detail } of cases.filter((one) => one.outcome === "skipped")) {
    const reason = detail === "" || detail === "true" ? "" : `: ${detail}`;
    console.log(`${runtime}: skipped ${name}${reason}`);
    if (Deno.env.get("CI") === "true") problems.push(`skipped in CI: ${name}`);
  }
  for (const problem of problems) console.log(`\n${runtime}: FAILED\n${indent(problem)}`);
  return outcome;
}

/** Says where the runtimes did not run the same tests: a group lost on one would go unseen. */
function compare(outcomes: ReadonlyMap<Runtime, Outcome>): void {
  const names = [...outcomes].map(([runtime, { cases }]) =>
    [runtime, new Set(cases.map(({ name }) => name.replace(/\s+/g, " ")))] as const
  );
  for (const [runtime, own] of names) {
    if (runtime === "Deno") continue;
    for (const [other, theirs] of names) {
      if (other === runtime || other === "Bun") continue;
      const missing = [...theirs].filter((name) => !own.has(name) && !name.startsWith("file:"));
      if (missing.length === 0 || own.size === 0) continue;
      console.log(`Note: on ${other} but not on ${runtime}: ${missing.length} tests`);
      for (const name of missing.slice(0, 5)) console.log(`  ${name}`);
    }
  }
}

function close(outcomes: ReadonlyMap<Runtime, Outcome>, problems: readonly string[]): number {
  let passed = 0;
  let failed = problems.length;
  console.log("");
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

/** Node keeps the colours of assertion messages in its report, whatever NO_COLOR says. */
function plain(text: string): string {
  // deno-lint-ignore no-control-regex
  return text.replace(/\x1b\[[\d;]*m/g, "");
}

function indent(text: string): string {
  return text.split("\n").map((line) => `  ${line}`).join("\n");
}

if (import.meta.main) Deno.exit(await main(Deno.args));
