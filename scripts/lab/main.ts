/**
 * `deno task lab [filter…]`: brings a home network with a real gateway up for each runtime, runs
 * `tests/lab/` in it with the `natkit` command on that runtime, and takes it down. The labs run side
 * by side, two for each runtime, which share its tests: those mostly wait. A filter is a part of a test's name; `--deno`, `--node`,
 * `--bun` choose runtimes; `--hold` brings one lab up and leaves it until Ctrl-C.
 *
 * @module
 */
// deno-lint-ignore-file no-console
import { type Failure, failureList } from "../lib/failures.ts";
import { ROOT, walk } from "../lib/files.ts";
import { type Runtime, RUNTIMES } from "../lib/runtimes.ts";
import { Lab, whatLabLacks } from "./lab.ts";
import { GATEWAY } from "./miniupnpd.ts";
import { buildPrograms, Natkit, natkitCommand, probeCommands } from "./natkit.ts";
import { ADDRESS, PLACES } from "./topology.ts";

/** What a lab test is given. */
export interface LabContext {
  readonly lab: Lab;
  readonly runtime: Runtime;
  /** The command, in the namespace `host`. */
  readonly natkit: Natkit;
  /** The words that start `probe.ts`, by the name of the way in which the runtime runs. */
  readonly probes: Readonly<Record<string, readonly string[]>>;
}

/** A lab test throws where it fails. It leaves the gateway's table as it found it. */
export type LabTest = (context: LabContext) => Promise<void>;

/** So many labs share the tests of a runtime. */
const LABS_EACH = 2;

/** No test takes this long. */
const GUARD_MS = 120_000;

type LabTests = readonly (readonly [name: string, test: LabTest])[];

async function main(args: readonly string[]): Promise<number> {
  const lacks = await whatLabLacks();
  if (lacks.length > 0) {
    console.error(`The lab cannot run here. It needs:\n${lacks.map((it) => `- ${it}`).join("\n")}`);
    return 1;
  }
  if (args.includes("--hold")) return await hold();
  const flags = args.filter((arg) => arg.startsWith("--")).map((arg) => arg.slice(2));
  const filters = args.filter((arg) => !arg.startsWith("--"));
  const unknown = flags.find((flag) => !RUNTIMES.some((name) => name.toLowerCase() === flag));
  if (unknown !== undefined) {
    console.error(`Unknown flag --${unknown}: there are --deno, --node, --bun, --hold`);
    return 2;
  }
  const runtimes = RUNTIMES.filter((name) =>
    flags.length === 0 || flags.includes(name.toLowerCase())
  );
  failOnEarlyExit();
  const tests = (await allTests()).filter(([name]) =>
    filters.length === 0 || filters.some((filter) => name.includes(filter))
  );
  await buildPrograms();
  const counts = await Promise.all(runtimes.flatMap((runtime) => {
    const left = tests.values();
    const labs = Math.min(LABS_EACH, tests.length);
    return Array.from({ length: labs }, () => runOn(runtime, left));
  }));
  const passed = counts.reduce((sum, count) => sum + count.passed, 0);
  const failures = counts.flatMap((count) => count.failures);
  hasEnded = true;
  console.log(`${failureList(failures)}\nLab: ${passed} passed, ${failures.length} failed`);
  return failures.length === 0 && passed > 0 ? 0 : 1;
}

/**
 * Reads every file's tests.
 *
 * @throws If one has none, or one name is there twice.
 */
async function allTests(): Promise<LabTests> {
  const tests = new Map<string, LabTest>();
  for (const path of walk("tests/lab", (path) => path.endsWith("_test.ts"))) {
    const module: { tests?: Record<string, LabTest> } = await import(`file://${ROOT}/${path}`);
    const own = Object.entries(module.tests ?? {});
    if (own.length === 0) throw new Error(`${path}: has no tests`);
    for (const [name, test] of own) {
      if (tests.has(name)) throw new Error(`${path}: there is another test called "${name}"`);
      tests.set(name, test);
    }
  }
  return [...tests];
}

/** The tests that run just then, for {@linkcode failOnEarlyExit}. */
const running = new Set<string>();
let hasEnded = false;

/** Tests run in this process: one that ends it, with whatever status, has not passed. */
function failOnEarlyExit(): void {
  globalThis.addEventListener("unload", () => {
    if (hasEnded) return;
    const during = running.size === 0 ? "" : ` during ${[...running].join(", ")}`;
    console.log(`\nFAILED: the lab ended early${during}`);
    if (Deno.exitCode === 0) Deno.exitCode = 1;
  });
}

/** Runs tests one after the other, as long as there are some, in a lab of their own. */
async function runOn(
  runtime: Runtime,
  tests: Iterable<LabTests[number]>,
): Promise<{ passed: number; failures: Failure[] }> {
  let passed = 0;
  const failures: Failure[] = [];
  const command = await natkitCommand(runtime);
  const probes = await probeCommands(runtime);
  await using lab = await Lab.up(GATEWAY);
  for (const [name, test] of tests) {
    const startedAt = performance.now();
    const natkit = new Natkit(lab, command);
    running.add(`${runtime}: ${name}`);
    const failure = await guarded(test({ lab, runtime, natkit, probes }));
    running.delete(`${runtime}: ${name}`);
    const seconds = ((performance.now() - startedAt) / 1000).toFixed(1);
    if (failure === undefined) {
      passed++;
      console.log(`${runtime}: ok ${name} (${seconds} s)`);
    } else {
      failures.push({ name: `${runtime}: ${name}`, detail: failure });
      const log = (await lab.miniupnpdLog()).split("\n").filter(isTelling).slice(-20).join("\n");
      const said = `${failure}\n\nThe end of miniupnpd's log:\n${log}`.replace(/^/gm, "  ");
      console.log(`\n${runtime}: FAILED ${name} (${seconds} s)\n${said}`);
      await lab.clean(GATEWAY);
    }
  }
  return { passed, failures };
}

/** SSDP fills the log, and asking for the table does. */
function isTelling(line: string): boolean {
  return !/finalize_sendto|HTTP|SOAPAction|Host:|PortMappingEntry|SSDP|M-SEARCH|UPnPError 713|IGD pinhole/
    .test(line);
}

/** What went wrong, as text; undefined where nothing did. */
async function guarded(test: Promise<void>): Promise<string | undefined> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const guard = new Promise<string>((resolve) => {
    timer = setTimeout(() => resolve(`no end within ${GUARD_MS / 1000} s`), GUARD_MS);
  });
  const outcome = test.then(
    () => undefined,
    (error) => error instanceof Error ? error.stack ?? error.message : String(error),
  );
  const failure = await Promise.race([outcome, guard]);
  clearTimeout(timer);
  return failure;
}

async function hold(): Promise<number> {
  await using lab = await Lab.up(GATEWAY);
  console.log(`Up, with miniupnpd at ${ADDRESS.gateway}, until Ctrl-C. Commands in it:`);
  for (const place of PLACES) console.log(`  ip netns exec ${lab.name(place)} …`);
  await new Promise((resolve) => setTimeout(resolve, 2 ** 31 - 1));
  return 0;
}

if (import.meta.main) Deno.exit(await main(Deno.args));
