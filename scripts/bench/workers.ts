/**
 * Runs the bench's workers on the three runtimes, from one bundle.
 *
 * @module
 */
import { ROOT } from "../lib/files.ts";
import { must, run } from "../lib/process.ts";
import { bunPath, type Runtime } from "../lib/runtimes.ts";
import type { Task, Tasks } from "./workers/main.ts";

const FOLDER = `${ROOT}/.build/bench`;
const BUNDLE = `${FOLDER}/worker.js`;
let bundled: Promise<unknown> | undefined;

/** Bundles the workers, once. */
export function bundleWorkers(): Promise<unknown> {
  return bundled ??= (async () => {
    await Deno.mkdir(FOLDER, { recursive: true });
    await Deno.writeTextFile(`${FOLDER}/package.json`, '{ "type": "module" }\n');
    const source = `${ROOT}/scripts/bench/workers/main.ts`;
    const argv = ["bundle", "--quiet", "--platform=deno", source, "--output", BUNDLE];
    await must([Deno.execPath(), ...argv], { cwd: ROOT });
  })();
}

/** The words that start a task on a runtime. */
export async function taskCommand<T extends Task>(
  runtime: Runtime,
  task: T,
  options: Tasks[T][0],
): Promise<string[]> {
  await bundleWorkers();
  const words = [BUNDLE, task, JSON.stringify(options)];
  // A garbage collection on demand is what memory is measured after.
  if (runtime === "Node") return ["node", "--expose-gc", ...words];
  if (runtime === "Bun") return [await bunPath(), ...words];
  const flags = ["-A", "--unstable-net", "--no-check", "--v8-flags=--expose-gc"];
  return [Deno.execPath(), "run", ...flags, ...words];
}

/**
 * Runs a task to its end.
 *
 * @throws Where it fails, or takes longer than `guardMs`.
 */
export async function runTask<T extends Task>(
  runtime: Runtime,
  task: T,
  options: Tasks[T][0],
  guardMs = 120_000,
): Promise<Tasks[T][1]> {
  const argv = await taskCommand(runtime, task, options);
  const { code, stdout, stderr, hung } = await run(argv, { cwd: ROOT, guardMs });
  const result = stdout.trim().split("\n").at(-1) ?? "";
  if (code !== 0 || hung || !result.startsWith("{")) {
    const how = hung ? `no end within ${guardMs / 1000} s` : `exit status ${code}`;
    throw new Error(`${task} on ${runtime}: ${how}\n${stdout}${stderr}`);
  }
  return JSON.parse(result);
}
