/**
 * `deno task sim [--seeds N] [--from N] [--seed N]`: the simulation of tests/sim over many seeds.
 *
 * `--seeds N` runs N of them (1000 by default) from `--from` (1 by default) on, in `--jobs` threads
 * (one a processor), and ends at the first that fails, with the command that replays it. `--seed N` runs one and shows its traces, at
 * home and on its journey; with `--pcap FILE` the last one is written there for Wireshark. `--planted [--only NAME]` plants the bugs of
 * tests/sim/planted.ts, one at a time, and looks whether the seeds find each.
 *
 * @module
 */
// deno-lint-ignore-file no-console
import { writeFileSync } from "node:fs";
import { once } from "node:events";
import { availableParallelism } from "node:os";
import process from "node:process";
import { isMainThread, parentPort, Worker, workerData } from "node:worker_threads";
import type { World } from "../core/sim/mod.ts";
import { replayCommand, type RunReport, runSeed } from "../tests/sim/run.ts";
import { Spread } from "../tests/sim/spread.ts";

const USAGE =
  "usage: deno task sim [--seeds N] [--from N] [--jobs N] [--keep-going] | --seed N [--pcap FILE] " +
  "| --planted [--seeds N] [--only NAME]";

interface Options {
  seeds: number;
  from: number;
  seed: number | undefined;
  pcap: string | undefined;
  keepGoing: boolean;
  planted: boolean;
  only: string | undefined;
  /** How many threads. */
  jobs: number;
}

function readOptions(args: readonly string[]): Options | string {
  const options: Options = {
    seeds: 1000,
    from: 1,
    seed: undefined,
    pcap: undefined,
    keepGoing: false,
    planted: false,
    only: undefined,
    jobs: Math.min(8, availableParallelism()),
  };
  for (let i = 0; i < args.length; i++) {
    const flag = args[i]!;
    if (flag === "--keep-going" || flag === "--planted") {
      options[flag === "--planted" ? "planted" : "keepGoing"] = true;
      continue;
    }
    const value = args[++i];
    if (value === undefined) return `${flag}: takes a value`;
    if (flag === "--pcap" || flag === "--only") {
      options[flag === "--pcap" ? "pcap" : "only"] = value;
      continue;
    }
    if (!["--seeds", "--from", "--seed", "--jobs"].includes(flag)) return `unknown flag ${flag}`;
    if (!/^[0-9]{1,12}$/.test(value)) return `${flag}: "${value}" is no number`;
    options[flag.slice(2) as "seeds" | "from" | "seed" | "jobs"] = Number(value);
  }
  if (options.jobs < 1 || options.jobs > 64) return "--jobs: must be in 1..64";
  return options;
}

function runOne(seed: number, pcap: string | undefined): number {
  const worlds: World[] = [];
  let failure: unknown;
  try {
    runSeed(seed, { traceSize: 200_000, onWorld: (made) => worlds.push(made) });
  } catch (error) {
    failure = error;
  }
  for (const { trace } of worlds) console.log(trace.text());
  if (pcap !== undefined) writeFileSync(pcap, worlds.at(-1)!.trace.pcap());
  if (failure === undefined) {
    console.log(`seed ${seed}: passed`);
    return 0;
  }
  console.error(failure instanceof Error ? failure.stack : failure);
  console.error(`seed ${seed}: failed`);
  return 1;
}

/** What a batch of seeds came to; sent between threads. */
interface Batch {
  readonly from: number;
  readonly packets: number;
  readonly hours: number;
  readonly events: Readonly<Record<string, number>>;
  readonly recreations: RunReport["recreations"];
  readonly failures: readonly { readonly seed: number; readonly message: string }[];
}

/** So many seeds at a time are given to a thread. */
const BATCH = 20;

function runBatch(from: number, seeds: number, keepGoing: boolean): Batch {
  const events: Record<string, number> = {};
  const recreations: RunReport["recreations"][number][] = [];
  const failures: Batch["failures"][number][] = [];
  let packets = 0, hours = 0;
  for (let seed = from; seed < from + seeds; seed++) {
    try {
      const report = runSeed(seed);
      packets += report.packets;
      hours += report.virtualHours;
      recreations.push(...report.recreations);
      for (const [name, count] of Object.entries(report.events)) {
        events[name] = (events[name] ?? 0) + count;
      }
    } catch (error) {
      failures.push({ seed, message: error instanceof Error ? error.message : String(error) });
      if (!keepGoing) break;
    }
  }
  return { from, packets, hours, events, recreations, failures };
}

/** The batches of all seeds as they are done, by this thread or by others. */
async function* batches({ seeds, from, keepGoing, jobs }: Options): AsyncGenerator<Batch> {
  let next = from;
  const end = from + seeds;
  const take = (): readonly [number, number] => {
    const first = next;
    next = Math.min(next + BATCH, end);
    return [first, next - first];
  };
  if (jobs === 1) {
    while (next < end) yield runBatch(...take(), keepGoing);
    return;
  }
  const workers = Array.from(
    { length: Math.min(jobs, Math.ceil(seeds / BATCH)) },
    () => new Worker(new URL(import.meta.url), { workerData: { keepGoing } }),
  );
  try {
    const work = new Map(workers.map((worker) => [worker, ask(worker, take())]));
    while (work.size > 0) {
      const { worker, batch } = await Promise.race(work.values());
      if (next < end) work.set(worker, ask(worker, take()));
      else work.delete(worker);
      yield batch;
    }
  } finally {
    await Promise.all(workers.map((worker) => worker.terminate()));
  }
}

async function ask(
  worker: Worker,
  seeds: readonly [number, number],
): Promise<{ readonly worker: Worker; readonly batch: Batch }> {
  worker.postMessage(seeds);
  const [batch] = await once(worker, "message") as [Batch];
  return { worker, batch };
}

async function runMany(options: Options): Promise<number> {
  const { seeds, from, keepGoing } = options;
  const startedAt = performance.now();
  const events: Record<string, number> = {};
  let packets = 0, hours = 0, failed = 0;
  const spread = new Spread();
  for await (const batch of batches(options)) {
    packets += batch.packets;
    hours += batch.hours;
    for (const [name, count] of Object.entries(batch.events)) {
      events[name] = (events[name] ?? 0) + count;
    }
    for (const { seed, message } of batch.failures) {
      failed++;
      if (keepGoing) console.error(`${message.split("\n")[0]}  # ${replayCommand(seed)}`);
      else console.error(message);
    }
    if (failed > 0 && !keepGoing) return 1;
    spread.add(batch.recreations);
    try {
      spread.judge(batch.from);
    } catch (error) {
      console.error(error instanceof Error ? error.message : error);
      return 1;
    }
  }
  const seconds = (performance.now() - startedAt) / 1000;
  console.log(
    `${seeds} seeds from ${from}: ${failed} failed; ${packets} packets and ` +
      `${hours.toFixed(0)} virtual hours in ${seconds.toFixed(1)} s`,
  );
  console.log(JSON.stringify(events));
  return failed === 0 ? 0 : 1;
}

async function run(options: Options): Promise<number> {
  if (options.planted) {
    // What plants bugs is for Deno; this file is run on Node, with a bug in it.
    const { runPlanted } = await import("./sim/planted.ts");
    return runPlanted(options.seeds, options.from, options.only);
  }
  return options.seed === undefined ? runMany(options) : runOne(options.seed, options.pcap);
}

if (isMainThread) {
  const options = readOptions(process.argv.slice(2));
  if (typeof options === "string") {
    console.error(`${options}\n${USAGE}`);
    process.exitCode = 2;
  } else {
    process.exitCode = await run(options);
  }
} else {
  const { keepGoing } = workerData as { readonly keepGoing: boolean };
  parentPort!.on("message", ([from, seeds]: readonly [number, number]) => {
    parentPort!.postMessage(runBatch(from, seeds, keepGoing));
  });
}
