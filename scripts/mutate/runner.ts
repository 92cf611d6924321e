/**
 * Runs test files in one process of Node and leaves at the first test that fails, with its name in
 * the last line of standard output: `FAILED group > test`. Node's own reporters hear of a failure
 * only after everything that runs without a pause. Where all pass, the last line is what each file
 * took of the processor, milliseconds: `TOOK [12.5,…]`.
 *
 * Before the files: `--limits=[100,…]` says what a single test of each may take at most,
 * `--only=PCP-C-05` that only the tests of that clause are to run, `--all` that the others are to
 * run on after one that fails.
 *
 * @module
 */
import { writeSync } from "node:fs";
import { createRequire, syncBuiltinESMExports } from "node:module";
import process from "node:process";
import { pathToFileURL } from "node:url";
import { Worker } from "node:worker_threads";
import { BEAT, usedMs, type Watched } from "./watchdog.ts";

type Body = (this: unknown, ...args: unknown[]) => unknown;
type Register = (...args: unknown[]) => unknown;

const given = process.argv.slice(2);
const files = given.filter((arg) => !arg.startsWith("--"));
const flagOf = (name: string): string | undefined =>
  given.find((arg) => arg.startsWith(`--${name}=`))?.slice(name.length + 3);
const limits = flagOf("limits"), only = flagOf("only");
const isEach = given.includes("--all");
const took = files.map(() => 0);
const groups: string[] = [];
let loading = -1;
/** Tests that have been registered and are not over. */
let open = 0;

const beat = new Float64Array(new SharedArrayBuffer(16));

/** Tells the watchdog that a test of the file begins, or its loading. */
function tick(file: number, from: number): void {
  beat[BEAT.file] = file;
  beat[BEAT.startedMs] = from;
}

function watch(limitsMs: readonly number[]): void {
  const workerData: Watched = { beat: beat.buffer as SharedArrayBuffer, limitsMs };
  new Worker(new URL("./watchdog.js", import.meta.url), { workerData }).unref();
}

function charge(file: number, from: number): void {
  took[file] = (took[file] ?? 0) + usedMs() - from;
}

/** The function among the arguments of a registration, wrapped. */
function wrapping(register: Register, wrap: (name: string, body: Body) => Body): Register {
  return (...args) => {
    const name = typeof args[0] === "string" ? args[0] : "(a test without a name)";
    if (wrap === leavingAtFailure && only !== undefined && !name.startsWith(`${only}: `)) return;
    if (args.some((arg) => (arg as { skip?: unknown } | undefined)?.skip)) return register(...args);
    return register(
      ...args.map((arg) => typeof arg === "function" ? wrap(name, arg as Body) : arg),
    );
  };
}

function leavingAtFailure(name: string, body: Body): Body {
  const path = [...groups, name].join(" > ");
  const file = loading;
  open++;
  return async function (this: unknown, ...args) {
    const from = usedMs();
    tick(file, from);
    try {
      const result = await body.apply(this, args);
      charge(file, from);
      open--;
      return result;
    } catch (error) {
      const said = error instanceof Error ? error.stack ?? error.message : String(error);
      writeSync(1, `${said}\nFAILED ${path.replace(/\s+/g, " ")}\n`);
      if (!isEach) process.exit(1);
      process.exitCode = 1;
      open--;
      return undefined;
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
process.on("exit", (code) => {
  if (code === 0 && open > 0) {
    writeSync(1, `FAILED the process left before ${open} tests were over\n`);
    process.exitCode = 1;
  }
  writeSync(1, `\nTOOK ${JSON.stringify(took)}\n`);
});
if (limits !== undefined) watch(JSON.parse(limits) as number[]);
for (loading = 0; loading < files.length; loading++) {
  const from = usedMs();
  tick(loading, from);
  await import(pathToFileURL(files[loading]!).href);
  charge(loading, from);
}
