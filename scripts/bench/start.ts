/**
 * A program's first mapping: a fresh Node process from its start to the mapping granted, imports
 * included, for natkit's npm package and for others, all told the gateway where they can be. The
 * subjects take turns, so that what else the machine does hits them alike.
 *
 * @module
 */
import type { Lab } from "../lab/lab.ts";
import { ADDRESS } from "../lab/topology.ts";
import { run, type RunResult } from "../lib/process.ts";
import type { Context } from "./context.ts";
import { homeOrWhyNot, startGatewayIn, stop } from "./home.ts";
import { installNatkit, installPeers, PEERS, removePeers } from "./install.ts";
import { median } from "./measure.ts";
import { atMost, type Row, show } from "./report.ts";

const ROUNDS = 15;
/** What waits for timers is tried less often. */
const SLOW_MS = 1000;
const SLOW_ROUNDS = 2;
const GUARD_MS = 12_000;

const BARE = "bare Node";
const NATKIT = "natkit, told the gateway";
/** Names as `peers/client.js` takes them. */
const OTHERS = [
  "port-mapper, default options",
  "port-mapper, told the gateway",
  "@silentbot1/nat-api, told the gateway",
  "@achingbrain/nat-port-mapper, told the gateway",
] as const;

/** Elapsed milliseconds of each subject, and what went wrong with it. */
export interface Times {
  readonly ok: number[];
  why?: string;
}

/** Runs the topic. */
export async function* start({ isQuick }: Context): AsyncGenerator<Row> {
  const folder = await installPeers(isQuick ? {} : PEERS);
  await installNatkit(folder);
  const rounds = isQuick ? 1 : ROUNDS;
  await Deno.writeTextFile(`${folder}/bare.mjs`, "");
  await Deno.writeTextFile(`${folder}/import.mjs`, 'import "natkit";');
  const alone = await inTurns(["bare", "import"], rounds, (subject) => {
    return run(["node", `${folder}/${subject}.mjs`]);
  });
  const bare = alone.get("bare")!.ok;
  const imported = alone.get("import")!.ok;
  yield { what: "process of an empty module", on: BARE, value: median(bare), unit: "ms" };
  yield atMost(1.3, {
    what: "process of a module that imports natkit, against it",
    on: "natkit",
    value: median(imported.map((ms, round) => ms / bare[round]!)),
    unit: "×",
    note: `${median(imported).toFixed(0)} ms; the median of each round's`,
  });
  yield* toMapping(folder, rounds, isQuick);
  await removePeers();
}

async function* toMapping(folder: string, rounds: number, isQuick: boolean): AsyncGenerator<Row> {
  const what = "process start to mapping";
  const lab = await homeOrWhyNot();
  if (typeof lab === "string") {
    return yield { what, on: "", value: undefined, unit: "", note: lab };
  }
  await using _home = lab;
  await lab.stopMiniupnpd();
  const server = await startGatewayIn(lab, "Node", {});
  const subjects = isQuick ? [BARE, NATKIT] : [BARE, NATKIT, ...OTHERS];
  const times = await inTurns(subjects, rounds, async (subject) => {
    // PCP protects mappings by nonces, and whoever comes next has another one.
    await server.write("reboot");
    await server.line((line) => line.startsWith("{"));
    const argv = subject === BARE
      ? ["node", `${folder}/bare.mjs`]
      : ["node", `${folder}/client.js`, subject, ADDRESS.gateway, ADDRESS.host];
    return await lab.exec("host", argv, { guardMs: GUARD_MS });
  });
  await stop(server);
  yield* rowsOf(what, times, NATKIT, OTHERS);
  yield* atMiniupnpd(lab, folder, rounds, isQuick);
}

/** The first mapping of a process without what came before it, at a real gateway. */
async function* atMiniupnpd(
  lab: Lab,
  folder: string,
  rounds: number,
  isQuick: boolean,
): AsyncGenerator<Row> {
  await lab.startMiniupnpd();
  let port = 6000;
  const times = await inTurns(
    isQuick ? [NATKIT] : ["bare request", NATKIT, ...OTHERS],
    rounds,
    // It protects mappings as well, and cannot be made to forget them.
    (subject) => timeClient(lab, folder, subject, port++),
  );
  yield* rowsOf("miniupnpd, in process: first mapping", times, NATKIT, OTHERS);
}

/** One mapping in a fresh process, without what came before it. */
export async function timeClient(
  lab: Lab,
  folder: string,
  subject: string,
  port: number,
): Promise<RunResult> {
  const argv = [`${folder}/client.js`, subject, ADDRESS.gateway, ADDRESS.host, `${port}`];
  const result = await lab.exec("host", ["node", ...argv], { guardMs: GUARD_MS });
  const { elapsedMs = result.elapsedMs } = JSON.parse(result.stdout || "{}");
  return { ...result, elapsedMs };
}

/** A row for each subject; natkit's is to be the smallest but for what is bare. */
export function rowsOf(
  what: string,
  times: ReadonlyMap<string, Times>,
  natkit: string,
  rivals: readonly string[],
): Row[] {
  const others = rivals.flatMap((subject) => {
    const { ok = [] } = times.get(subject) ?? {};
    return ok.length === 0 ? [] : median(ok);
  });
  return [...times].map(([subject, { ok, why }]): Row => {
    const peer = subject.split(", ")[0]!;
    const version = PEERS[peer] === undefined ? "" : ` ${PEERS[peer]}`;
    const row = { what, on: subject.replace(peer, `${peer}${version}`), unit: "ms" };
    if (ok.length === 0) return { ...row, value: undefined, note: why ?? "" };
    const failures = why === undefined ? "" : `; ${why}`;
    const note = `fastest ${show(Math.min(...ok), "ms")} of ${ok.length}${failures}`;
    const value = median(ok);
    const isAim = subject === natkit && others.length > 0;
    return isAim ? atMost(Math.min(...others), { ...row, value, note }) : { ...row, value, note };
  });
}

/** Runs each subject once a round. */
export async function inTurns(
  subjects: readonly string[],
  rounds: number,
  runOne: (subject: string) => Promise<RunResult>,
): Promise<ReadonlyMap<string, Times>> {
  const times = new Map<string, Times>(subjects.map((subject) => [subject, { ok: [] }]));
  for (let round = 0; round < rounds; round++) {
    for (const [subject, own] of times) {
      const isSlow = own.why !== undefined || own.ok.some((ms) => ms > SLOW_MS);
      if (isSlow && round >= SLOW_ROUNDS) continue;
      const { code, stdout, stderr, hung, elapsedMs } = await runOne(subject);
      const failed = code !== 0 || hung || stdout.includes('"ok":false');
      if (failed) own.why = `FAILS after ${elapsedMs.toFixed(0)} ms: ${stdout}${stderr}`.trim();
      else own.ok.push(elapsedMs);
    }
  }
  return times;
}
