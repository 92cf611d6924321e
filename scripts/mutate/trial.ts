/**
 * Bugs tried one at a time, each in a process of its own, on trees of which each worker has one.
 *
 * @module
 */
import { ROOT } from "../lib/files.ts";
import type { NodeTree } from "../lib/node_tree.ts";
import { beforeLeaving, run, type RunResult } from "../lib/process.ts";
import { folderOf } from "./area.ts";
import { TYPE_SAFE } from "./operators.ts";
import type { Plan, Planned } from "./plan.ts";

const RUNNER = "scripts/mutate/runner.ts";
/** The simulation's share in an area: every seed costs every surviving bug some 200 ms. */
const SEEDS = 8;
/**
 * A run may use this many times the processor time it uses without a bug, and this much more; so
 * may a single test of what its file uses. The clock on the wall, which tells of a busy machine as
 * well, only ends runs that wait for ever.
 */
const PATIENCE = 4;
const PATIENCE_MS = 3_000;
const WAITING_MS = 60_000;
const WAITING = 10;
/** Test files that take longer run after the others. */
const SLOW_MS = 1_000;
/** No run without a bug takes this long. */
const BASELINE: Limit = { cpuSeconds: 300, guardMs: 10 * 60_000 };
/** A bug may eat memory without end. */
const HEAP = "--max-old-space-size=1024";

/** What became of one bug. */
export interface Verdict extends Planned {
  readonly outcome: "killed" | "survived" | "untested" | "refused by the types";
  /** What killed it: a test, the simulation, the clock. */
  readonly by: string;
  readonly elapsedMs: number;
}

/** The tests fail without any bug: what they say. */
export class FailingBaseline extends Error {
  /** @param said The failure, with the name of the test. */
  constructor(said: string) {
    super(`The tests fail without a bug:\n${said}`);
    this.name = "FailingBaseline";
  }
}

/** What a run may take. */
interface Limit {
  readonly cpuSeconds: number;
  readonly guardMs: number;
  /** For one test of each file, milliseconds of the processor. */
  readonly eachMs?: readonly number[];
}

/** What everything takes without a bug, milliseconds; the simulation by its own name. */
type Times = Map<string, number>;

const SIMULATION = "the simulation";

/** What killed a bug, and what it said; undefined: nothing did. */
interface Killer {
  readonly by: string;
  readonly said: string;
}

/** Runs tests; where all pass, tells how long each file takes. */
async function tryTests(
  tree: NodeTree,
  tests: readonly string[],
  { eachMs, ...limit }: Limit,
  times?: Times,
): Promise<Killer | undefined> {
  if (tests.length === 0) return undefined;
  const files = tests.map((test) => tree.file(test));
  const limits = eachMs === undefined ? [] : [`--limits=${JSON.stringify(eachMs)}`];
  const result = await tree.run(RUNNER, [...limits, ...files], {
    ...limit,
    env: { NODE_OPTIONS: HEAP },
    isGroup: true,
  });
  const took = /^TOOK (.*)$/m.exec(result.stdout)?.[1];
  if (took !== undefined) {
    (JSON.parse(took) as number[]).forEach((ms, index) => times?.set(tests[index]!, ms));
  }
  return killerOf(result, nameOfFailed(result));
}

async function trySimulation(tree: NodeTree, limit: Limit): Promise<Killer | undefined> {
  const result = await tree.run("scripts/sim.ts", ["--seeds", String(SEEDS)], {
    ...limit,
    env: { NODE_OPTIONS: HEAP },
  });
  return killerOf(result, SIMULATION);
}

function killerOf({ code, hung, stdout, stderr }: RunResult, name: string): Killer | undefined {
  if (code === 0 && !hung) return undefined;
  const by = hung ? "the time limit" : name;
  return { by, said: `${by}\n${stdout}${stderr}` };
}

/** The test that failed; where none says so, the first that Node's own report names. */
function nameOfFailed({ stdout, stderr }: RunResult): string {
  return /^FAILED (.*)$/m.exec(stdout)?.[1] ?? /not ok \d+ - (.*)/.exec(stdout)?.[1] ??
    /^\w*Error\b.*/m.exec(stderr)?.[0] ?? "the process ended";
}

/** How bugs are tried. */
export interface TrialOptions {
  /** How many at a time. */
  readonly jobs: number;
  /** Called with each verdict as soon as it is known. */
  readonly tell?: (verdict: Verdict) => void;
  /** How much more processor time than a multiple of the usual tests may use, milliseconds. */
  readonly patienceMs?: number;
}

/**
 * Tries every bug of a plan.
 *
 * @throws {FailingBaseline} If the tests fail without any.
 */
export async function tryAll(
  plan: Plan,
  { jobs, tell, patienceMs = PATIENCE_MS }: TrialOptions,
): Promise<Verdict[]> {
  const mostMs = (ms: number): number => PATIENCE * ms + patienceMs;
  const limitOf = (...took: readonly number[]): Limit => {
    const ms = took.reduce((sum, one) => sum + one, 0);
    return {
      cpuSeconds: mostMs(ms) / 1000,
      guardMs: WAITING * ms + WAITING_MS,
      eachMs: took.map(mostMs),
    };
  };
  const trees = [plan.tree, ...Array.from({ length: jobs - 1 }, () => plan.tree.copy())];
  const compiler = new Compiler();
  try {
    const times = await baseline(plan, trees);
    const verdicts: Verdict[] = new Array(plan.mutants.length);
    await spread(plan.mutants, trees, async (planned, tree, index) => {
      const verdict = await tryOne(planned, tree, times, limitOf, compiler);
      verdicts[index] = verdict;
      tell?.(verdict);
    });
    return verdicts;
  } finally {
    compiler.remove();
    for (const tree of trees.slice(1)) tree.remove();
  }
}

async function tryOne(
  planned: Planned,
  tree: NodeTree,
  times: Times,
  limitOf: (...took: readonly number[]) => Limit,
  compiler: Compiler,
): Promise<Verdict> {
  const { mutant, isSimulated, text } = planned;
  if (planned.tests.length === 0 && !isSimulated) {
    return { ...planned, outcome: "untested", by: "", elapsedMs: 0 };
  }
  const from = performance.now();
  const timeOf = (test: string) => times.get(test) ?? 0;
  const isSlow = (test: string) => timeOf(test) > SLOW_MS;
  const tests = [
    ...planned.tests.filter((test) => !isSlow(test)),
    ...planned.tests.filter(isSlow),
  ];
  tree.plant(mutant.path, text);
  const killer = await tryTests(tree, tests, limitOf(...tests.map(timeOf))) ??
    (isSimulated ? await trySimulation(tree, limitOf(timeOf(SIMULATION))) : undefined);
  tree.restore();
  const elapsedMs = performance.now() - from;
  if (killer) return { ...planned, outcome: "killed", by: killer.by, elapsedMs };
  const isRefused = !TYPE_SAFE.has(mutant.operator) && !await compiler.takes(planned);
  return {
    ...planned,
    outcome: isRefused ? "refused by the types" : "survived",
    by: "",
    elapsedMs,
  };
}

/** Runs all tests of each area without a bug. */
async function baseline({ mutants }: Plan, trees: readonly NodeTree[]): Promise<Times> {
  const times: Times = new Map();
  const areas = new Map<string, Set<string>>();
  for (const { mutant, tests } of mutants) {
    const folder = folderOf(mutant.path);
    const area = areas.get(folder) ?? new Set();
    for (const test of tests) area.add(test);
    areas.set(folder, area);
  }
  const runs: ((tree: NodeTree) => Promise<Killer | undefined>)[] = [...areas.values()].map(
    (area) => (tree) => tryTests(tree, [...area], BASELINE, times),
  );
  if (mutants.some(({ isSimulated }) => isSimulated)) {
    runs.push(async (tree) => {
      const from = performance.now();
      const killer = await trySimulation(tree, BASELINE);
      times.set(SIMULATION, performance.now() - from);
      return killer;
    });
  }
  await spread(runs, trees, async (tryRun, tree) => {
    const killer = await tryRun(tree);
    if (killer) throw new FailingBaseline(killer.said);
  });
  return times;
}

/** Works on each item in a tree of its own, `jobs` at a time; the results in the items' order. */
export async function withTrees<T, R>(
  tree: NodeTree,
  jobs: number,
  items: readonly T[],
  work: (item: T, tree: NodeTree) => Promise<R>,
): Promise<R[]> {
  const copies = Array.from({ length: jobs - 1 }, () => tree.copy());
  const results: R[] = new Array(items.length);
  try {
    await spread(items, [tree, ...copies], async (item, tree, index) => {
      results[index] = await work(item, tree);
    });
    return results;
  } finally {
    for (const copy of copies) copy.remove();
  }
}

/** Each item to the next worker that is free. */
async function spread<T, W>(
  items: readonly T[],
  workers: readonly W[],
  work: (item: T, worker: W, index: number) => Promise<void>,
): Promise<void> {
  let next = 0;
  let failure: unknown;
  await Promise.all(workers.map(async (worker) => {
    while (next < items.length && failure === undefined) {
      const index = next++;
      await work(items[index]!, worker, index).catch((error) => failure ??= error);
    }
  }));
  if (failure !== undefined) throw failure;
}

/**
 * Asks the compiler about bugs that no test found: what it refuses was never a program. One file is
 * enough, since exports bear explicit types.
 */
class Compiler {
  #queue: Promise<unknown> = Promise.resolve();
  #folder: string | undefined;
  /** Files that it takes without a bug. */
  readonly #sound = new Set<string>();

  takes(planned: Planned): Promise<boolean> {
    const answer = this.#queue.then(() => this.#ask(planned));
    this.#queue = answer.catch(() => {});
    return answer;
  }

  remove(): void {
    if (this.#folder !== undefined) Deno.removeSync(this.#folder, { recursive: true });
    this.#folder = undefined;
  }

  async #ask({ mutant: { path }, text, original, sources }: Planned): Promise<boolean> {
    if (this.#folder === undefined) beforeLeaving(() => this.remove());
    const folder = this.#folder ??= unfold(sources);
    const check = async (text: string) => {
      await Deno.writeTextFile(`${folder}/${path}`, text);
      const argv = [Deno.execPath(), "check", "--quiet", "--no-lock", `${folder}/${path}`];
      return await run(argv, { cwd: folder });
    };
    const isTaken = (await check(text)).code === 0;
    if (!isTaken && !this.#sound.has(path)) {
      const { code, stderr } = await check(original);
      if (code !== 0) throw new Error(`The compiler refuses ${path} without a bug:\n${stderr}`);
      this.#sound.add(path);
    }
    await Deno.writeTextFile(`${folder}/${path}`, original);
    return isTaken;
  }
}

/** The sources in a folder where they can be changed. */
function unfold(sources: ReadonlyMap<string, string>): string {
  const folder = Deno.makeTempDirSync({ prefix: "natkit-types-" });
  Deno.copyFileSync(`${ROOT}/deno.json`, `${folder}/deno.json`);
  for (const [path, text] of sources) {
    Deno.mkdirSync(`${folder}/${path.slice(0, path.lastIndexOf("/"))}`, { recursive: true });
    Deno.writeTextFileSync(`${folder}/${path}`, text);
  }
  return folder;
}
