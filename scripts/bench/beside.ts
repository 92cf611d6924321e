/**
 * Servers side by side in the lab's gateway: the simulated gateway, miniupnpd, port-mapper's.
 *
 * @module
 */
import type { Lab } from "../lab/lab.ts";
import { ADDRESS } from "../lab/topology.ts";
import { RUNTIMES } from "../lib/runtimes.ts";
import type { Context } from "./context.ts";
import { homeOrWhyNot, miniupnpdPid, PORT, startGatewayIn, startIn, stop } from "./home.ts";
import { installPeers, PEERS } from "./install.ts";
import { measureRate, middle, type Rate } from "./rate.ts";
import { type Row, show } from "./report.ts";
import type { LoadOptions } from "./workers/load.ts";

const QUESTIONS: readonly (readonly [LoadOptions["what"], string])[] = [
  ["address", "NAT-PMP address"],
  ["nat-pmp", "NAT-PMP MAP renewals"],
  ["pcp", "PCP MAP renewals"],
];

/** Runs this part of the topic. */
export async function* besideOthers({ isQuick }: Context): AsyncGenerator<Row> {
  const what = "beside others, in namespaces";
  const lab = await homeOrWhyNot();
  if (typeof lab === "string") return yield { what, on: "", value: undefined, unit: "", note: lab };
  await using _home = lab;
  const ms = isQuick ? 100 : 1500;
  const turns = isQuick ? 1 : 3;
  // It sets the kernel's rules with each grant, which the simulated gateways do not.
  yield* rows("miniupnpd (sets kernel rules)", lab, await miniupnpdPid(lab), ms, turns);
  await lab.stopMiniupnpd();
  for (const on of isQuick ? ["Node"] as const : RUNTIMES) {
    const server = await startGatewayIn(lab, on);
    yield* rows(`natkit, ${on}`, lab, server.pid, ms, turns);
    await stop(server);
  }
  if (isQuick) return;
  const folder = await installPeers();
  const argv = ["node", "server.js", ADDRESS.gateway, lab.wanAddress];
  const server = await startIn(lab, argv, folder);
  yield* rows(`port-mapper ${PEERS["port-mapper"]}`, lab, server.pid, ms, turns);
  await stop(server);
}

async function* rows(
  on: string,
  lab: Lab,
  pid: number,
  ms: number,
  turns: number,
): AsyncGenerator<Row> {
  const inside = (argv: string[]) => ["ip", "netns", "exec", lab.name("host"), ...argv];
  for (const [what, text] of QUESTIONS) {
    const asked = { address: ADDRESS.gateway, port: PORT, local: ADDRESS.host, what };
    const rates: Rate[] = [];
    await measureRate(asked, pid, Math.min(ms, 300), inside);
    for (let turn = 0; turn < turns; turn++) {
      rates.push(await measureRate(asked, pid, ms, inside));
    }
    const { perSecond, cpuMicroseconds, refused, lost } = middle(rates);
    const notes = [
      cpuMicroseconds === undefined ? "" : `${show(cpuMicroseconds, "µs")} of processor time each`,
      refused > 0 ? `${show(100 * refused, "%")} refused` : "",
      lost > 0 ? `${lost} without answer in 200 ms` : "",
    ];
    const note = notes.filter((text) => text !== "").join("; ");
    yield { what: `${text}, beside others`, on, value: perSecond, unit: "/s", note };
  }
}
