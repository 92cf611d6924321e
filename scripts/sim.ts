/**
 * `deno task sim [--seeds N] [--from N] [--seed N]`: the simulation of tests/sim over many seeds.
 *
 * `--seeds N` runs N of them (1000 by default) from `--from` (1 by default) on and ends at the
 * first that fails, with the command that replays it. `--seed N` runs one and shows its trace;
 * with `--pcap FILE` it is written there for Wireshark. `--planted [--only NAME]` plants the bugs of
 * tests/sim/planted.ts, one at a time, and looks whether the seeds find each.
 *
 * @module
 */
// deno-lint-ignore-file no-console
import { writeFileSync } from "node:fs";
import process from "node:process";
import type { Home } from "../tests/sim/home.ts";
import { replayCommand, runSeed } from "../tests/sim/run.ts";
import { Spread } from "../tests/sim/spread.ts";

const USAGE =
  "usage: deno task sim [--seeds N] [--from N] [--keep-going] | --seed N [--pcap FILE] " +
  "| --planted [--seeds N] [--only NAME]";

interface Options {
  seeds: number;
  from: number;
  seed: number | undefined;
  pcap: string | undefined;
  keepGoing: boolean;
  planted: boolean;
  only: string | undefined;
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
    if (flag !== "--seeds" && flag !== "--from" && flag !== "--seed") return `unknown flag ${flag}`;
    if (!/^[0-9]{1,12}$/.test(value)) return `${flag}: "${value}" is no number`;
    options[flag.slice(2) as "seeds" | "from" | "seed"] = Number(value);
  }
  return options;
}

function runOne(seed: number, pcap: string | undefined): number {
  let home: Home | undefined;
  let failure: unknown;
  try {
    runSeed(seed, { traceSize: 200_000, onHome: (made) => home = made });
  } catch (error) {
    failure = error;
  }
  console.log(home?.world.trace.text() ?? "");
  if (pcap !== undefined && home) writeFileSync(pcap, home.world.trace.pcap());
  if (failure === undefined) {
    console.log(`seed ${seed}: passed`);
    return 0;
  }
  console.error(failure instanceof Error ? failure.stack : failure);
  console.error(`seed ${seed}: failed`);
  return 1;
}

function runMany({ seeds, from, keepGoing }: Options): number {
  const startedAt = performance.now();
  const events: Record<string, number> = {};
  let packets = 0, hours = 0, failed = 0;
  const spread = new Spread();
  for (let seed = from; seed < from + seeds; seed++) {
    try {
      const report = runSeed(seed);
      packets += report.packets;
      spread.add(report.recreations);
      spread.judge(seed);
      hours += report.virtualHours;
      for (const [name, count] of Object.entries(report.events)) {
        events[name] = (events[name] ?? 0) + count;
      }
    } catch (error) {
      failed++;
      const message = error instanceof Error ? error.message : String(error);
      if (!keepGoing) {
        console.error(message);
        return 1;
      }
      console.error(`${message.split("\n")[0]}  # ${replayCommand(seed)}`);
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

const options = readOptions(process.argv.slice(2));
if (typeof options === "string") {
  console.error(`${options}\n${USAGE}`);
  process.exitCode = 2;
} else {
  process.exitCode = await run(options);
}
