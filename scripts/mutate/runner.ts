/**
 * Runs test files in one process of Node, one after the other, and leaves at the first test that
 * fails, with its name in the last line of standard output: `FAILED group > test`. Node's own
 * reporters hear of a failure only after everything that runs without a pause. Where all pass, the
 * last line is what each file took of the processor, milliseconds: `TOOK [12.5,…]`.
 *
 * Before the files:
 *
 * - `--limits=[100,…]` says what a single test of each may take at most;
 * - `--chosen=[null,[3,7]]` that of a file only some tests are to run, by their place in the file;
 *   null stands for all of them;
 * - `--only=PCP-C-05` that only the tests of that clause are to run;
 * - `--all` that the others are to run on after one that fails;
 * - `--idle=10000` ends the process where it does nothing at all for so long;
 * - `--passed=FILE` writes there which marks each test passes, where the tree bears some
 *   (`probes.ts`): a {@linkcode Passed} for each file.
 *
 * @module
 */
import { writeFileSync, writeSync } from "node:fs";
import { createRequire, syncBuiltinESMExports } from "node:module";
import process from "node:process";
import { pathToFileURL } from "node:url";
import { Worker } from "node:worker_threads";
import { MARKS, type Passed } from "./marks.ts";
import { BEAT, usedMs, type Watched } from "./watchdog.ts";

type Body = (this: unknown, ...args: unknown[]) => unknown;
type Register = (...args: unknown[]) => unknown;

const given = process.argv.slice(2);
const files = given.filter((arg) => !arg.startsWith("--"));
const flagOf = (name: string): string | undefined =>
  given.find((arg) => arg.startsWith(`--${name}=`))?.slice(name.length + 3);
const limits = flagOf("limits"), only = flagOf("only"), passedFile = flagOf("passed");
const limitsMs = limits === undefined ? undefined : JSON.parse(limits) as number[];
const chosen = JSON.parse(flagOf("chosen") ?? "[]") as (number[] | null)[];
const idleMs = Number(flagOf("idle") ?? Infinity);
const isEach = given.includes("--all");
const took = files.map(() => 0);
const passed = files.map((): Passed => ({ aside: [], tests: [] }));
const groups: string[] = [];
let loading = -1;
/** Tests of the file that have been registered, chosen or not. */
let registered = 0;
/** Those to run that are not over. */
let open = 0;
let isOver: (() => void) | undefined;
let hasFailed = false;

const beat = new Float64Array(new SharedArrayBuffer(16));

/** Tells the watchdog that a test of the file begins, or its loading. */
function tick(file: number, from: number): void {
  beat[BEAT.limitMs] = limitsMs?.[file] ?? Infinity;
  beat[BEAT.startedMs] = from;
}

function watch(): void {
  const workerData: Watched = { beat: beat.buffer as SharedArrayBuffer, idleMs };
  new Worker(new URL("./watchdog.js", import.meta.url), { workerData }).unref();
}

function charge(file: number, from: number): number {
  const used = usedMs() - from;
  took[file] = (took[file] ?? 0) + used;
  return used;
}

/** The marks passed since it was asked last. */
function marksPassed(): number[] {
  const marks = (globalThis as { [MARKS]?: Uint8Array })[MARKS];
  const found: number[] = [];
  marks?.forEach((mark, number) => mark === 1 && found.push(number));
  marks?.fill(0);
  return found;
}

/** What was passed between tests, by hooks or while loading, may be of use to any of the file. */
function setAside(file: number): void {
  passed[file]?.aside.push(...marksPassed());
}

/** Counts a test, and tells whether it is to run. */
function isAsked(name: string): boolean {
  const place = registered++;
  if (only !== undefined && !name.startsWith(`${only}: `)) return false;
  return chosen[loading]?.includes(place) ?? true;
}

/** The function among the arguments of a registration, wrapped. */
function wrapping(register: Register, wrap: (name: string, body: Body) => Body): Register {
  return (...args) => {
    const name = typeof args[0] === "string" ? args[0] : "(a test without a name)";
    if (wrap === leavingAtFailure && !isAsked(name)) return;
    if (args.some((arg) => (arg as { skip?: unknown } | undefined)?.skip)) return register(...args);
    return register(
      ...args.map((arg) => typeof arg === "function" ? wrap(name, arg as Body) : arg),
    );
  };
}

function leavingAtFailure(name: string, body: Body): Body {
  const path = [...groups, name].join(" > ");
  const file = loading, place = registered - 1;
  open++;
  return async function (this: unknown, ...args) {
    const from = usedMs();
    setAside(file);
    tick(file, from);
    try {
      const result = await body.apply(this, args);
      passed[file]!.tests.push({ place, usedMs: charge(file, from), marks: marksPassed() });
      return result;
    } catch (error) {
      const said = error instanceof Error ? error.stack ?? error.message : String(error);
      writeSync(1, `${said}\nFAILED ${path.replace(/\s+/g, " ")}\n`);
      hasFailed = true;
      if (!isEach) process.exit(1);
      process.exitCode = 1;
      return undefined;
    } finally {
      open--;
      if (open === 0) isOver?.();
    }
  };
}

function inGroup(name: string, body: Body): Body {
  return function (this: unknown, ...args) {
    groups.push(name);
    try {
      return body.apply(this, args);
    } finally {
      groups.pop();
    }
  };
}

const builtin = createRequire(import.meta.url)("node:test") as Record<string, Register>;
for (const name of ["it", "test"]) builtin[name] = wrapping(builtin[name]!, leavingAtFailure);
for (const name of ["describe", "suite"]) builtin[name] = wrapping(builtin[name]!, inGroup);
syncBuiltinESMExports();
process.on("exit", () => {
  if (!hasFailed && open > 0) {
    writeSync(1, `FAILED the process left before ${open} tests were over\n`);
    process.exitCode = 1;
  }
  setAside(files.length - 1);
  if (passedFile !== undefined) writeFileSync(passedFile, JSON.stringify(passed));
  writeSync(1, `\nTOOK ${JSON.stringify(took)}\n`);
});
if (limitsMs !== undefined || idleMs < Infinity) watch();
for (loading = 0; loading < files.length; loading++) {
  const from = usedMs();
  registered = 0;
  tick(loading, from);
  await import(pathToFileURL(files[loading]!).href);
  charge(loading, from);
  setAside(loading);
  if (open > 0) await new Promise<void>((resolve) => isOver = resolve);
  setAside(loading);
}
