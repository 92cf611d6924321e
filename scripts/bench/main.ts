/**
 * `deno task bench [name…] [--quick] [--json FILE]`: measures what natkit promises of its speed
 * and size, beside bare sockets and other packages in the same run. Without names, all topics.
 *
 * `--quick` only shows that everything runs: its figures mean nothing. A target that is missed
 * does not change the exit status (figures depend on the machine); a bench that breaks does.
 *
 * @module
 */
// deno-lint-ignore-file no-console
import { codec } from "./codec.ts";
import type { TopicRun } from "./context.ts";
import { removePeers } from "./install.ts";
import { loss } from "./loss.ts";
import { openPort } from "./open_port.ts";
import { packets } from "./packets.ts";
import { peers } from "./peers.ts";
import { type Row, table, type Topic } from "./report.ts";
import { scale } from "./scale.ts";
import { server } from "./server.ts";
import { sim } from "./sim.ts";
import { size } from "./size.ts";
import { start } from "./start.ts";
import { stun } from "./stun.ts";
import { upnp } from "./upnp.ts";

const TOPICS: Readonly<Record<string, TopicRun>> = {
  "open-port": openPort,
  "loss": loss,
  "codec": codec,
  "scale": scale,
  "packets": packets,
  "start": start,
  "upnp": upnp,
  "size": size,
  "peers": peers,
  "server": server,
  "sim": sim,
  "stun": stun,
};

const USAGE = `usage: deno task bench [name…] [--quick] [--json FILE]
names: ${Object.keys(TOPICS).join(", ")}`;

interface Options {
  readonly names: readonly string[];
  readonly isQuick: boolean;
  readonly json: string | undefined;
}

function readOptions(args: readonly string[]): Options | string {
  const names: string[] = [];
  let isQuick = false;
  let json: string | undefined;
  for (let i = 0; i < args.length; i++) {
    const arg = args[i]!;
    if (arg === "--quick") isQuick = true;
    else if (arg === "--json") {
      json = args[++i];
      if (json === undefined) return "--json: takes a file";
    } else if (arg in TOPICS) names.push(arg);
    else return `unknown ${arg.startsWith("-") ? "flag" : "bench"} "${arg}"`;
  }
  return { names: names.length > 0 ? names : Object.keys(TOPICS), isQuick, json };
}

async function runTopic(name: string, isQuick: boolean): Promise<Topic> {
  const from = performance.now();
  const rows: Row[] = [];
  const seconds = () => (performance.now() - from) / 1000;
  try {
    for await (const row of TOPICS[name]!({ isQuick })) rows.push(row);
    return { name, rows, seconds: seconds() };
  } catch (error) {
    const text = error instanceof Error ? error.message : String(error);
    return { name, rows, seconds: seconds(), error: text };
  }
}

async function main(args: readonly string[]): Promise<number> {
  if (args.includes("--help") || args.includes("-h")) {
    console.log(USAGE);
    return 0;
  }
  const options = readOptions(args);
  if (typeof options === "string") {
    console.error(`${options}\n${USAGE}`);
    return 2;
  }
  const topics: Topic[] = [];
  for (const name of options.names) {
    const topic = await runTopic(name, options.isQuick);
    console.log(`${table(topic)}\n`);
    topics.push(topic);
  }
  await removePeers();
  if (options.json !== undefined) {
    const machine = { processors: navigator.hardwareConcurrency, deno: Deno.version.deno };
    const report = { machine, isQuick: options.isQuick, topics };
    await Deno.writeTextFile(options.json, `${JSON.stringify(report, undefined, 2)}\n`);
  }
  const targets = topics.flatMap(({ rows }) => rows.flatMap(({ target }) => target ?? []));
  const met = targets.filter(({ isMet }) => isMet).length;
  const broken = topics.filter(({ error }) => error !== undefined).length;
  if (options.isQuick) console.log(`${topics.length - broken} benches run, ${broken} broken`);
  else console.log(`${met} of ${targets.length} targets met, ${broken} benches broken`);
  return broken === 0 ? 0 : 1;
}

if (import.meta.main) Deno.exit(await main(Deno.args));
