/**
 * Bugs tried one at a time, each in processes of its own, on trees of which each worker has one: in
 * a first one the quickest tests that pass its place, in a second one the others that do
 * (`reach.ts`), then the simulation.
 *
 * @module
 */
import { ROOT } from "../lib/files.ts";
import type { NodeTree } from "../lib/node_tree.ts";
import { beforeLeaving, run, type RunResult } from "../lib/process.ts";
import { TYPE_SAFE } from "./operators.ts";
import type { Plan, Planned } from "./plan.ts";
import { type Asked, Reach, readPassed } from "./reach.ts";

const RUNNER = "scripts/mutate/runner.ts";
/** The simulation's share in an area: every seed costs every surviving bug some 200 ms. */
const SEEDS = 8;
/**
 * A run may use this many times the processor time it uses without a bug, and this much more; so
 * may a single test of what those of its file use. The clock on the wall, which tells of a busy
 * machine as well, only ends runs that wait for ever: sooner where the process does nothing.
 */
const PATIENCE = 4;
const PATIENCE_MS = 3_000;
const WAITING_MS = 60_000;
const WAITING = 10;
const IDLE_MS = 10_000;
/** Node's own beginning, and loading, milliseconds of the processor. */
const START_MS = 500;
/** No run without a bug takes this long, and none does nothing for so long. */
const BASELINE: Limit = { cpuSeconds: 300, guardMs: 60 * 60_000 };
const BASELINE_IDLE_MS = 60_000;
/** A bug may eat memory without end. */
const HEAP = "--max-old-space-size=1024";

/** What became of one bug. */
export interface Verdict extends Planned {
  readonly outcome: "killed" | "survived" | "untested" | "refused by the types";
  /** How many files of tests were asked. */
  readonly asked: number;
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
}

/** What a run may take that usually takes so long. */
type LimitOf = (usedMs: number) => Limit & { readonly mostMs: number };

/** What killed a bug, and what it said; undefined: nothing did. */
interface Killer {
  readonly by: string;
  readonly said: string;
}

/** Asks tests about a bug. */
async function tryTests(
  tree: NodeTree,
  round: readonly Asked[],
  limitOf: LimitOf,
  starters: ReadonlySet<string>,
): Promise<Killer | undefined> {
  const limits = round.map(({ usedMs }) => limitOf(usedMs).mostMs);
  // A process that waits for another one is idle.
  const isIdle = round.every(({ test }) => !starters.has(test));
  const args = [
    `--limits=${JSON.stringify(limits)}`,
    `--chosen=${JSON.stringify(round.map(({ chosen }) => chosen))}`,
    ...(isIdle ? [`--idle=${IDLE_MS}`] : []),
    ...round.map(({ test }) => tree.file(test)),
  ];
  const usedMs = round.reduce((sum, { usedMs }) => sum + usedMs, START_MS);
  const { cpuSeconds, guardMs } = limitOf(usedMs);
  const result = await tree.run(RUNNER, args, {
    cpuSeconds,
    guardMs,
    env: { NODE_OPTIONS: HEAP },
    isGroup: true,
  });
  return killerOf(result, nameOfFailed(result));
}

/** Runs a file of tests on sources with probes. */
async function learn(tree: NodeTree, test: string, reach: Reach): Promise<Killer | undefined> {
  const passedFile = `${tree.folder}/passed.json`;
  const args = [`--idle=${BASELINE_IDLE_MS}`, `--passed=${passedFile}`, tree.file(test)];
  const result = await tree.run(RUNNER, args, {
    ...BASELINE,
    env: { NODE_OPTIONS: HEAP },
    isGroup: true,
  });
  const killer = killerOf(result, nameOfFailed(result));
  if (killer) return killer;
  const [usedMs = 0] = JSON.parse(/^TOOK (.*)$/m.exec(result.stdout)![1]!) as number[];
  reach.learn(test, { ...readPassed(passedFile), usedMs });
  return undefined;
}

async function trySimulation(tree: NodeTree, limit: Limit): Promise<Killer | undefined> {
  const result = await tree.run("scripts/sim.ts", ["--seeds", String(SEEDS)], {
    ...limit,
    env: { NODE_OPTIONS: HEAP },
  });
  return killerOf(result, "the simulation");
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
  const limitOf: LimitOf = (usedMs) => {
    const mostMs = PATIENCE * usedMs + patienceMs;
    return { mostMs, cpuSeconds: mostMs / 1000, guardMs: WAITING * usedMs + WAITING_MS };
  };
  const trees = [plan.tree, ...Array.from({ length: jobs - 1 }, () => plan.tree.copy())];
  const compiler = new Compiler();
  try {
    const reach = new Reach(plan);
    const simulationMs = await baseline(plan, trees, reach);
    const verdicts: Verdict[] = new Array(plan.mutants.length);
    await spread(plan.mutants, trees, async (planned, tree, index) => {
      const from = performance.now();
      const rounds = reach.roundsOf(planned);
      tree.plant(planned.mutant.path, planned.text);
      let killer: Killer | undefined;
      for (const round of rounds) {
        killer ??= await tryTests(tree, round, limitOf, plan.starters);
      }
      if (planned.isSimulated) killer ??= await trySimulation(tree, limitOf(simulationMs));
      tree.restore();
      const asked = new Set(rounds.flat().map(({ test }) => test)).size;
      const isAsked = asked > 0 || planned.isSimulated;
      const outcome = killer
        ? "killed"
        : !TYPE_SAFE.has(planned.mutant.operator) && !await compiler.takes(planned)
        ? "refused by the types"
        : isAsked
        ? "survived"
        : "untested";
      const elapsedMs = performance.now() - from;
      const verdict: Verdict = { ...planned, outcome, by: killer?.by ?? "", asked, elapsedMs };
      verdicts[index] = verdict;
      tell?.(verdict);
    });
    return verdicts;
  } finally {
    compiler.remove();
    for (const tree of trees.slice(1)) tree.remove();
  }
}

/**
 * Runs every test that is to be asked without a bug, on sources with probes.
 *
 * @returns What the simulation takes, milliseconds.
 */
async function baseline(
  { mutants }: Plan,
  trees: readonly NodeTree[],
  reach: Reach,
): Promise<number> {
  const tests = new Set(mutants.flatMap(({ tests }) => tests));
  const runs = [...tests].map((test) => (tree: NodeTree) => learn(tree, test, reach));
  let simulationMs = 0;
  if (mutants.some(({ isSimulated }) => isSimulated)) {
    runs.push(async (tree) => {
      const from = performance.now();
      const killer = await trySimulation(tree, BASELINE);
      simulationMs = performance.now() - from;
      return killer;
    });
  }
  for (const tree of trees) reach.plant(tree);
  await spread(runs, trees, async (tryRun, tree) => {
    const killer = await tryRun(tree);
    if (killer) throw new FailingBaseline(killer.said);
  });
  for (const tree of trees) tree.restore();
  return simulationMs;
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
