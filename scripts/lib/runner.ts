/**
 * Runs test files on a runtime, and sees to it that each was run to its end: a process that exits
 * early is as content as one that has passed.
 *
 * What only computes runs beside what waits for sockets and other programs, runtime after runtime
 * each: no two runtimes' sockets meet, and the processor has always something to do.
 *
 * Each file runs through a stub that imports it and then registers one more test, the file's end.
 * Deno runs each stub by itself. Node and Bun get them bundled and run them in one process, which
 * is ten times faster; where that process ends before all files have, or without saying why, the
 * files are run one by one to name the culprit. A file that awaits at its top level would come
 * after its end there, and is said to register no test.
 *
 * @module
 */
// deno-lint-ignore-file no-console
import { read, ROOT } from "./files.ts";
import { END_OF, readReport, type TestCase } from "./junit.ts";
import { must, run, type RunResult } from "./process.ts";
import { bunPath, type Runtime } from "./runtimes.ts";

/** No run takes this long, and no test: something waits for what never comes. */
const GUARD_MS = 10 * 60_000;
const SILENCE_MS = 2 * 60_000;
/** The same for one file alone, and how many of them may hang before the rest is given up. */
const FILE_SILENCE_MS = 60_000;
const MOST_HUNG_FILES = 3;
const LINES_OF_A_HUNG_RUN = 60;
/** Bun ends a test after 5 s by default; tests with a million packets need longer. */
const BUN_TEST_TIMEOUT_MS = 120_000;

/** Where a run keeps its files, and what its tests read from the environment. */
export interface Setting {
  /** Below the root, for source maps' sake. */
  readonly build: string;
  readonly env: Readonly<Record<string, string>>;
}

/** What a runtime did with the files it was given. */
export interface Outcome {
  readonly cases: TestCase[];
  /** What went wrong beside failing tests: each counts as a failure. */
  readonly problems: string[];
  /** What the conformance tests wrote down: an id and its number of assertions a line. */
  readonly record: string;
}

type Part = Omit<Outcome, "record">;

/** The tests of these folders open no sockets. */
const COMPUTES = /^tests\/(?:core|conformance|scripts|sim)\//;
/** One after the other in each, the two beside each other. */
const LANES = ["computing", "waiting"] as const;
type Lane = typeof LANES[number];

/** One file, as its runtime runs it. */
interface Unit {
  /** The path in the repository, or an absolute one. */
  readonly source: string;
  /** The path that is handed to the runtime. */
  readonly file: string;
  /** How many tests it has at least. */
  readonly atLeast: number;
}

type Command = (file: string, report: string) => string[];

/**
 * Runs test files on each runtime, and the examples in the docs of others on Deno.
 *
 * @param mayLack Whether a file may register no test on a runtime.
 */
export async function* runFiles(
  files: readonly string[],
  documented: readonly string[],
  runtimes: readonly Runtime[],
  { build, env }: Setting,
  mayLack: (source: string, runtime: Runtime) => boolean = () => false,
): AsyncGenerator<[Runtime, Outcome]> {
  const stubs = await stub(files, build);
  const needsBundle = runtimes.includes("Node") || runtimes.includes("Bun");
  const bundling = needsBundle ? bundle(stubs, { build, env }) : undefined;
  // Where the bundle fails while Deno runs, its error is told when it is awaited.
  bundling?.catch(() => {});
  const records = (runtime: Runtime) => `${build}/clauses-${runtime}.txt`;
  const runLane = async (lane: Lane, runtime: Runtime): Promise<Part[]> => {
    const NATKIT_CLAUSES = records(runtime);
    const setting = { build, env: { ...env, NATKIT_CLAUSES, NATKIT_TESTED_BY: "" } };
    const asked = (units: readonly Unit[]) =>
      units.filter(({ source }) => COMPUTES.test(source) === (lane === "computing"))
        .map((unit) => mayLack(unit.source, runtime) ? { ...unit, atLeast: 0 } : unit);
    if (runtime !== "Deno") {
      return [
        await bundling!.then(
          (units) => onBundles(runtime, lane, asked(units), setting),
          (error) => ({
            cases: [],
            problems: lane === "waiting"
              ? [`the tests could not be bundled\n${error.message}`]
              : [],
          }),
        ),
      ];
    }
    const parts = [await onDeno(lane, asked(stubs), setting)];
    if (lane === "waiting") parts.push(await onExamples(documented, setting));
    return parts;
  };
  const lanes = LANES.map((lane) => {
    let last: Promise<unknown> = Promise.resolve();
    return runtimes.map((runtime) => {
      const running = last.then(() => runLane(lane, runtime));
      last = running.catch(() => {});
      return running;
    });
  });
  for (const [i, runtime] of runtimes.entries()) {
    const parts = (await Promise.all(lanes.map((lane) => lane[i]!))).flat();
    yield [runtime, {
      cases: parts.flatMap(({ cases }) => cases),
      problems: parts.flatMap(({ problems }) => problems),
      record: await Deno.readTextFile(records(runtime)).catch(() => ""),
    }];
  }
}

/** Writes the stubs of test files. */
async function stub(files: readonly string[], build: string): Promise<Unit[]> {
  await Deno.mkdir(`${build}/stubs`, { recursive: true });
  const units: Unit[] = [];
  for (const source of files) {
    const name = source.replace(/^\/|^tests\//, "").replaceAll("/", ".").replace(/_test\.ts$/, "");
    // Bun takes a file for a test by its name, and bundles keep the names of their entries.
    const file = `${build}/stubs/${name}.test.ts`;
    const url = new URL(source, `file://${ROOT}/`);
    const lines = [
      `import process from "node:process";`,
      `import { test } from "node:test";`,
      `import ${JSON.stringify(url.href)};`,
      // A test may start its own file again as a program, which has no tests to end.
      `process.env.NATKIT_TESTED_BY ||= String(process.pid);`,
      `if (process.env.NATKIT_TESTED_BY === String(process.pid)) {`,
      `  test(${JSON.stringify(END_OF + source)}, () => {});`,
      `}`,
    ];
    await Deno.writeTextFile(file, `${lines.join("\n")}\n`);
    units.push({ source, file, atLeast: 1 });
  }
  return units;
}

/** Deno: the stubs, each in its own isolate; those that compute several at a time. */
function onDeno(lane: Lane, units: readonly Unit[], setting: Setting): Promise<Part> {
  return denoTest(lane, lane === "computing" ? ["--parallel"] : [], units, setting);
}

/** Deno: the examples in the docs of these files, each of which stands alone. */
function onExamples(documented: readonly string[], setting: Setting): Promise<Part> {
  const units = documented.map((path) => ({
    source: path,
    file: path,
    atLeast: read(path).match(/^(?:\s*\* )?```ts$/gm)?.length ?? 0,
  })).filter(({ atLeast }) => atLeast > 0);
  return denoTest("docs", ["--doc"], units, setting);
}

function denoTest(
  label: string,
  flags: readonly string[],
  units: readonly Unit[],
  setting: Setting,
): Promise<Part> {
  const argv = [Deno.execPath(), "test", "-A", "--no-check", ...flags, "--reporter=dot"];
  const command = (files: readonly string[], report: string) => [
    ...argv,
    `--junit-path=${report}`,
    ...files,
  ];
  return runUnits(
    label,
    units,
    (report) => command(units.map(({ file }) => file), report),
    (file, report) => command([file], report),
    setting,
  );
}

/** Bundles the stubs, shared modules once. */
async function bundle(stubs: readonly Unit[], { build, env }: Setting): Promise<Unit[]> {
  if (stubs.length === 0) return [];
  const out = `${build}/bundle`;
  await Deno.mkdir(out, { recursive: true });
  // A bundle without imports or exports would be taken for CommonJS.
  await Deno.writeTextFile(`${out}/package.json`, '{ "type": "module" }\n');
  await must([
    Deno.execPath(),
    "bundle",
    "--quiet",
    "--platform=deno",
    "--code-splitting",
    "--sourcemap=linked",
    "--outdir",
    out,
    ...stubs.map(({ file }) => file),
  ], { cwd: ROOT, env });
  return stubs.map((unit) => {
    const name = unit.file.slice(unit.file.lastIndexOf("/") + 1).replace(/\.ts$/, ".js");
    return { ...unit, file: `${out}/${name}` };
  });
}

/** Node and Bun: the bundles, in one process. */
async function onBundles(
  runtime: "Node" | "Bun",
  lane: Lane,
  units: readonly Unit[],
  setting: Setting,
): Promise<Part> {
  const command = runtime === "Node" ? nodeCommand : await bunCommand();
  let together = units[0]?.file ?? "";
  if (units.length > 1) {
    const folder = parentOf(together);
    const imports = units.map(({ file }) => `import ".${file.slice(folder.length)}";\n`);
    together = `${folder}/${lane}.test.js`;
    await Deno.writeTextFile(together, imports.join(""));
  }
  const all = (report: string) => command(together, report);
  return await runUnits(`${runtime.toLowerCase()}-${lane}`, units, all, command, setting);
}

function parentOf(path: string): string {
  return path.slice(0, path.lastIndexOf("/"));
}

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

// What the runtimes have in common.

/** A run that has ended. */
interface Ended {
  readonly result: RunResult;
  readonly cases: TestCase[];
  /** The files that did not run to their end. */
  readonly lost: Unit[];
  /** Those that did, with fewer tests than they have. */
  readonly short: Unit[];
  /** Whether its report has all files, and tells why the status is what it is. */
  readonly usable: boolean;
}

async function runUnits(
  label: string,
  units: readonly Unit[],
  all: (report: string) => string[],
  one: Command,
  setting: Setting,
): Promise<Part> {
  if (units.length === 0) return { cases: [], problems: [] };
  const report = `${setting.build}/${label}.xml`;
  const whole = await ended(units, all(report), report, SILENCE_MS, setting);
  if (whole.usable) return { cases: whole.cases, problems: whole.short.map(tooFew) };
  return await oneByOne(label, units, one, whole, setting);
}

async function ended(
  units: readonly Unit[],
  argv: readonly string[],
  report: string,
  silenceMs: number,
  { env }: Setting,
): Promise<Ended> {
  await Deno.remove(report).catch(() => {});
  // `node --test` runs the files in a child, which would hang on.
  const result = await run(argv, { cwd: ROOT, env, guardMs: GUARD_MS, silenceMs, isGroup: true });
  const read = readReport(await Deno.readTextFile(report).catch(() => ""));
  const counts = new Map([...read.ended, ...countExamples(read.cases)]);
  const lost = units.filter(({ source }) => !counts.has(source));
  const short = units.filter(({ source, atLeast }) => (counts.get(source) ?? Infinity) < atLeast);
  const explained = read.cases.some(({ outcome }) => outcome === "failed") &&
    !read.takesFileForTest;
  const usable = !result.hung && lost.length === 0 && (result.code === 0 || explained);
  return { result, cases: read.cases, lost, short, usable };
}

/** Examples are named after their place: `example core/ip.ts#16-22.ts`. */
function countExamples(cases: readonly TestCase[]): Map<string, number> {
  const counts = new Map<string, number>();
  for (const { name } of cases) {
    const source = /^example (\S+)#\d+-\d+\.ts/.exec(name)?.[1];
    if (source !== undefined) counts.set(source, (counts.get(source) ?? 0) + 1);
  }
  return counts;
}

/** Runs files alone after a run of all of them ended badly, to tell which one it was. */
async function oneByOne(
  label: string,
  units: readonly Unit[],
  command: Command,
  whole: Ended,
  setting: Setting,
): Promise<Part> {
  if (units.length > 1) console.log(`${ending(whole)} of all files; file by file:`);
  const cases: TestCase[] = [];
  const problems: string[] = [];
  let hung = 0;
  for (const unit of units) {
    if (hung >= MOST_HUNG_FILES) {
      problems.push(`${unit.source} and what follows it were not run, as ${hung} files hung`);
      break;
    }
    const report = `${setting.build}/${label}-one.xml`;
    const alone = units.length === 1
      ? whole
      : await ended([unit], command(unit.file, report), report, FILE_SILENCE_MS, setting);
    if (alone.result.hung) hung++;
    cases.push(...alone.cases);
    if (!alone.usable) {
      problems.push(`${unit.source}: ${ending(alone)}\n${saidBy(alone.result)}`.trimEnd());
    } else {
      problems.push(...alone.short.map(tooFew));
    }
  }
  // Alone every file is fine: then what happened to all of them is the failure.
  if (problems.length === 0 && !cases.some(({ outcome }) => outcome === "failed")) {
    const first = whole.lost[0] === undefined ? "" : `; the first lost is ${whole.lost[0].source}`;
    problems.push(
      `${ending(whole)}, although each file passes alone${first}\n${saidBy(whole.result)}`,
    );
  }
  return { cases, problems };
}

function tooFew({ source, atLeast }: Unit): string {
  return `${source}: registers ${atLeast === 1 ? "no test" : `fewer than ${atLeast} tests`}`;
}

function ending({ result, lost }: Ended): string {
  if (result.hung) {
    return `no end within ${
      Math.round(result.elapsedMs / 1000)
    } s (a test waits for ever, or leaves a socket or timer open, as a failed one may)`;
  }
  return lost.length > 0
    ? `exit status ${result.code} before its tests had ended`
    : `exit status ${result.code} without a report of what failed`;
}

/** Everything it wrote; of a run that hung the end, which shows where. */
function saidBy({ stdout, stderr, hung }: RunResult): string {
  const said = [stdout, stderr].map((text) => text.trim()).filter((text) => text !== "");
  const lines = said.join("\n").split("\n");
  return lines.slice(hung ? -LINES_OF_A_HUNG_RUN : 0).join("\n");
}
