/**
 * natkit beside other npm packages, each in a fresh Node process, at the same simulated gateway.
 * They know port 5351 and the default gateway only, so all of it runs in the lab's namespaces.
 *
 * @module
 */
import type { Lab } from "../lab/lab.ts";
import { ADDRESS } from "../lab/topology.ts";
import type { Context } from "./context.ts";
import { homeOrWhyNot, startGatewayIn, stop } from "./home.ts";
import { installPeers, PEERS, removePeers } from "./install.ts";
import { median } from "./measure.ts";
import type { Row } from "./report.ts";
import { taskCommand } from "./workers.ts";
import type { GatewayTaskOptions } from "./workers/servers.ts";

/** No attempt takes longer. */
const GUARD_MS = 12_000;
/** A slow attempt is repeated less often, one that is slower still not at all. */
const SLOW_MS = 1000;
const SLOWEST_MS = 3000;
const TRIES = 7;
const SLOW_TRIES = 2;

/** What the gateway is, and what is done to it before each attempt. */
const SCENARIOS: readonly {
  readonly text: string;
  readonly gateway: GatewayTaskOptions;
  readonly command?: string;
}[] = [
  { text: "PCP and NAT-PMP", gateway: {} },
  { text: "NAT-PMP only", gateway: { protocols: ["nat-pmp"] } },
  { text: "NAT-PMP, silent to PCP", gateway: { profile: "pcp-silent" } },
  { text: "PCP and NAT-PMP, first datagram lost", gateway: {}, command: "deaf 1" },
  { text: "PCP and NAT-PMP, two datagrams lost", gateway: {}, command: "deaf 2" },
];

interface Attempt {
  readonly elapsedMs: number;
  readonly ok: boolean;
  readonly detail: string;
}

/** Runs the topic. */
export async function* peers({ isQuick }: Context): AsyncGenerator<Row> {
  const lab = await homeOrWhyNot();
  if (typeof lab === "string") {
    return yield { what: "time to map", on: "", value: undefined, unit: "", note: lab };
  }
  await using _home = lab;
  await lab.stopMiniupnpd();
  const folder = isQuick ? undefined : await installPeers();
  const names = isQuick ? [] : [...Object.keys(PEERS), "port-mapper, default options"];
  const natkit = await taskCommand("Node", "open-once", { timeoutMs: GUARD_MS - 2000 });
  for (const { text, gateway, command } of isQuick ? SCENARIOS.slice(0, 1) : SCENARIOS) {
    const server = await startGatewayIn(lab, "Node", gateway);
    for (const name of ["natkit", ...names]) {
      const argv = name === "natkit"
        ? natkit
        : ["node", `${folder}/client.js`, name, ADDRESS.gateway, ADDRESS.host];
      const attempts: Attempt[] = [];
      while (attempts.length < wantedTries(attempts, isQuick)) {
        // PCP protects mappings by nonces, and whoever comes next has another one. What the last
        // one left of the datagrams to be lost is not for the next one either.
        for (const line of ["reboot", "deaf 0", ...command ? [command] : []]) {
          await server.write(line);
          await server.line((line) => line.startsWith("{"));
        }
        attempts.push(await attempt(lab, argv));
      }
      yield rowOf(text, name, attempts);
    }
    await stop(server);
  }
  await removePeers();
}

function wantedTries(attempts: readonly Attempt[], isQuick: boolean): number {
  if (isQuick || attempts.some(({ elapsedMs }) => elapsedMs > SLOWEST_MS)) return 1;
  return attempts.some(({ elapsedMs }) => elapsedMs > SLOW_MS) ? SLOW_TRIES : TRIES;
}

async function attempt(lab: Lab, argv: string[]): Promise<Attempt> {
  const { stdout, stderr, hung } = await lab.exec("host", argv, { guardMs: GUARD_MS });
  const line = stdout.trim().split("\n").at(-1) ?? "";
  if (line.startsWith("{")) return JSON.parse(line);
  const why = hung ? `no end within ${GUARD_MS / 1000} s` : stderr.trim().split("\n")[0] ?? "";
  return { elapsedMs: GUARD_MS, ok: false, detail: why };
}

function rowOf(text: string, name: string, attempts: readonly Attempt[]): Row {
  const what = `time to map: ${text}`;
  const on = PEERS[name] === undefined ? name : `${name} ${PEERS[name]}`;
  const good = attempts.filter(({ ok }) => ok);
  const failed = attempts.length - good.length;
  if (good.length === 0) {
    const after = Math.round(median(attempts.map(({ elapsedMs }) => elapsedMs)));
    const note = `FAILS after ${after} ms: ${attempts[0]!.detail}`;
    return { what, on, value: undefined, unit: "ms", note };
  }
  const value = median(good.map(({ elapsedMs }) => elapsedMs));
  const note = `by ${good[0]!.detail}` +
    (failed > 0 ? `; ${failed} of ${attempts.length} attempts failed` : "");
  return { what, on, value, unit: "ms", note };
}
