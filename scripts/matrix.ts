/**
 * `deno task matrix`: UDP punched between every two kinds of NAT in the virtual network, with loss
 * and with one peer late; a table of how often it succeeds and in what time.
 *
 * A kind is mapping/filtering/ports: EI endpoint-independent, AD address-dependent, APD address- and
 * port-dependent; ports in steps or at random, where that matters. A cell is the share that
 * succeeded and the median time in milliseconds after both have the other's ticket. What can
 * succeed must, in 98 of 100 runs and within 20 s (40 s where nobody knows which side must open);
 * what cannot must tell the reason. `--seeds N` (default 10).
 *
 * @module
 */
// deno-lint-ignore-file no-console
import type { NatDependence } from "../core/sim/nat_table.ts";
import { type NatBehaviour, Rig, type RigOptions } from "../tests/core/ice/rig.ts";

const DEPENDENCES: Readonly<Record<string, NatDependence>> = {
  EI: "endpoint-independent",
  AD: "address-dependent",
  APD: "address-and-port-dependent",
};

/** One way and back, milliseconds. */
const RTT_MS = 40;
const SHARE = 0.98;

interface Kind {
  readonly name: string;
  readonly nat: NatBehaviour | undefined;
  readonly mapping: string;
  readonly filtering: string;
  /** Whether the ports of a hard NAT follow each other. */
  readonly isSteady: boolean;
}

function kinds(): Kind[] {
  const open: Kind = {
    name: "none",
    nat: undefined,
    mapping: "EI",
    filtering: "EI",
    isSteady: true,
  };
  const nats = Object.keys(DEPENDENCES).flatMap((mapping) =>
    (mapping === "EI" ? ["random"] : ["contiguous", "random"]).flatMap((ports) =>
      Object.keys(DEPENDENCES).map((filtering): Kind => ({
        name: `${mapping}/${filtering}${mapping === "EI" ? "" : ports === "random" ? "/r" : "/s"}`,
        nat: {
          mapping: DEPENDENCES[mapping]!,
          filtering: DEPENDENCES[filtering]!,
          ports: ports as "random" | "contiguous",
        },
        mapping,
        filtering,
        isSteady: ports !== "random",
      }))
    )
  );
  return [open, ...nats];
}

/** Whether there is a pair of ports that both can come to. */
function isPossible(a: Kind, b: Kind): boolean {
  const isHard = ({ mapping }: Kind) => mapping !== "EI";
  if (!isHard(a) || !isHard(b) || (a.isSteady && b.isSteady)) return true;
  // One side's port is the same for all of the other's, and it lets all of those in or is found.
  const opens = (one: Kind) => one.mapping === "AD" && one.filtering !== "APD";
  const isFound = (one: Kind, other: Kind) =>
    one.mapping === "AD" &&
    (other.filtering === "EI" || (other.isSteady && other.filtering === "AD"));
  return opens(a) || opens(b) || isFound(a, b) || isFound(b, a);
}

/** Pairs of easy NATs, for which nothing is guessed. */
function isEasy(a: Kind, b: Kind): boolean {
  return a.mapping === "EI" && b.mapping === "EI";
}

interface Cell {
  readonly runs: number;
  readonly times: readonly number[];
  readonly reasons: readonly string[];
  /** The most packets a second that one peer sent on average. */
  readonly rate: number;
}

function measure(setting: RigOptions, seeds: number, skewMs = 0): Cell {
  const times: number[] = [];
  const reasons: string[] = [];
  let rate = 0;
  for (let seed = 1; seed <= seeds; seed++) {
    const agents = [{ timeoutMs: 40_000 }, { timeoutMs: 40_000 }] as const;
    const rig = new Rig({ delayMs: RTT_MS / 2, agents, ...setting, seed });
    rig.exchange(skewMs);
    const since = rig.world.now;
    rig.settle();
    const time = rig.connectedAfter(since);
    if (time !== undefined) times.push(time);
    else reasons.push(...rig.last("failed").map((event) => event?.reason ?? "none"));
    const seconds = Math.max(1, (rig.world.now - since + skewMs) / 1000);
    for (const { process } of rig.peers) {
      const { checks, probes } = process.machine.stats;
      rate = Math.max(rate, (checks + probes) / seconds);
    }
  }
  return { runs: seeds, times: times.sort((a, b) => a - b), reasons, rate };
}

function median(times: readonly number[]): number {
  return times[times.length >> 1] ?? Infinity;
}

function show({ runs, times }: Cell): string {
  if (times.length === 0) return "-";
  const share = Math.round((100 * times.length) / runs);
  const time = Math.round(median(times));
  return share === 100 ? `${time}` : `${time} ${share}%`;
}

/** What is not as it should be. */
const complaints: string[] = [];

function judge(what: string, a: Kind, b: Kind, cell: Cell, limitMs: number): void {
  const within = cell.times.filter((time) => time <= limitMs).length / cell.runs;
  if (isPossible(a, b)) {
    const failures = cell.runs - Math.round(within * cell.runs);
    // Runs are the same each time: one that misses by chance does so for ever.
    if (failures > Math.max(1, cell.runs * (1 - SHARE))) {
      complaints.push(`${what}: ${Math.round(100 * within)} % within ${limitMs} ms`);
    }
  } else if (!cell.reasons.every((reason) => reason === "hard-nat" || reason === "one-way")) {
    complaints.push(`${what}: fails with ${[...new Set(cell.reasons)]}`);
  }
  if (cell.rate > 100) complaints.push(`${what}: ${Math.round(cell.rate)} packets a second`);
}

function table(
  title: string,
  all: readonly Kind[],
  seeds: number,
  setting: RigOptions,
  skewMs: number,
): void {
  console.log(`\n${title}`);
  const width = 1 + Math.max(9, ...all.map(({ name }) => name.length));
  const line = (cells: readonly string[]) =>
    console.log(cells.map((cell) => cell.padStart(width)).join(""));
  line(["", ...all.map(({ name }) => name)]);
  for (const [i, a] of all.entries()) {
    const cells = all.map((b, j) => {
      if (j < i) return "";
      const cell = measure({ ...setting, nats: [a.nat, b.nat] }, seeds, skewMs);
      const isPlain = (setting.loss ?? 0) === 0 && skewMs === 0;
      const limitMs = isEasy(a, b) && isPlain
        ? 2 * RTT_MS
        : a.mapping === "EI" || b.mapping === "EI"
        ? 20_000
        : 40_000;
      judge(`${title}, ${a.name} × ${b.name}`, a, b, cell, limitMs);
      return show(cell);
    });
    line([a.name, ...cells]);
  }
}

function others(seeds: number): void {
  const row = (name: string, setting: RigOptions, limitMs: number) => {
    const cell = measure(setting, seeds);
    const easy = kinds()[1]!;
    judge(name, easy, easy, cell, limitMs);
    console.log(`  ${name.padEnd(60)} ${show(cell)}`);
  };
  const home = kinds().find(({ name }) => name === "EI/APD")!.nat!;
  const hard = kinds().find(({ name }) => name === "APD/APD/r")!.nat!;
  console.log("\nBoth behind one NAT");
  for (const hairpin of ["none", "internal-source", "external-source"] as const) {
    row(`EI/APD, hairpin ${hairpin}`, { shared: { ...home, hairpin } }, 1000);
    row(`APD/APD/r, hairpin ${hairpin}`, { shared: { ...hard, hairpin } }, 1000);
  }
  console.log("\nA provider's NAT before the home's");
  row("EI/APD behind EI/APD × EI/APD", { nats: [home, home], outer: [home, undefined] }, 1000);
  row("both EI/APD behind EI/APD", { nats: [home, home], outer: [home, home] }, 1000);
  row(
    "EI/APD behind APD/APD/r × EI/APD",
    { nats: [home, home], outer: [hard, undefined] },
    20_000,
  );
}

const seedsAt = Deno.args.indexOf("--seeds");
const seeds = seedsAt < 0 ? 10 : Number(Deno.args[seedsAt + 1]);
if (!Number.isInteger(seeds) || seeds < 1) {
  console.error("--seeds must be a whole number from 1 on");
  Deno.exit(2);
}
const startedAt = performance.now();
const all = kinds();
console.log(
  `Round trip ${RTT_MS} ms; a cell is the median in ms, with the share where it is not all;`,
);
console.log(
  "- where it cannot succeed. EI, AD, APD: what mapping and filter depend on; s: ports in",
);
console.log("steps, r: at random.");
table("No loss, both at once", all, seeds, {}, 0);
table("5 % loss, one peer 1 s late", all, seeds, { loss: 0.05 }, 1000);
others(seeds);
for (const complaint of complaints) console.log(`NOT AS IT SHOULD BE: ${complaint}`);
const seconds = Math.round((performance.now() - startedAt) / 1000);
console.log(`\n${complaints.length} not as they should be, ${seconds} s`);
Deno.exit(complaints.length > 0 ? 1 : 0);
