/**
 * What a lost datagram, a gateway that is silent to PCP, and nobody at all cost `openPort`.
 *
 * @module
 */
import { NatError, openPort } from "../../../mod.ts";
import { measure, median, type Timing } from "../measure.ts";
import { bareSocket } from "./bare_udp.ts";
import { timeToOpen } from "./open_port.ts";
import { type Passed, startProxy } from "./proxy.ts";
import { spawnServer } from "./servers.ts";

/** What `loss` takes. */
export interface LossOptions {
  readonly timeMs: number;
  /** How often each loss is tried. */
  readonly times: number;
  /** For nobody there. */
  readonly timeoutMs: number;
}

/** What one lost datagram costs. */
export interface LostDatagram {
  /** The datagram, with its direction and number. */
  readonly what: string;
  /** More than without loss, milliseconds. */
  readonly extraMs: number;
}

/** An attempt to map where nobody answers. */
export interface Nobody {
  readonly elapsedMs: number;
  readonly code: string;
}

/** What `loss` measures. */
export interface LossResult {
  readonly lost: Record<"both" | "pcp" | "natPmp", LostDatagram[]>;
  readonly silent: Record<"saysNo" | "isSilent", Timing>;
  readonly nobody: Record<"closed" | "silent", Nobody>;
}

/** The task. */
export async function loss({ timeMs, times, timeoutMs }: LossOptions): Promise<LossResult> {
  const [both, pcp, natPmp, silent] = await Promise.all([
    spawnServer("gateway"),
    spawnServer("gateway", { protocols: ["pcp"] }),
    spawnServer("gateway", { protocols: ["nat-pmp"] }),
    spawnServer("gateway", { profile: "pcp-silent" }),
  ]);
  const lost = {
    both: await loseEach(both.port, times),
    pcp: await loseEach(pcp.port, times),
    natPmp: await loseEach(natPmp.port, times),
  };
  const timings = await measure({
    saysNo: () => timeToOpen(natPmp.port),
    isSilent: () => timeToOpen(silent.port),
  }, { timeMs, isAsync: true });
  for (const server of [both, pcp, natPmp, silent]) server.end();
  const deaf = await bareSocket(() => {});
  const nobody = {
    silent: await askNobody(deaf.port, timeoutMs),
    closed: { elapsedMs: 0, code: "" } as Nobody,
  };
  deaf.close();
  nobody.closed = await askNobody(deaf.port, timeoutMs);
  return { lost, silent: timings, nobody };
}

/** Loses each datagram of the exchange in turn, first to last. */
async function loseEach(gatewayPort: number, times: number): Promise<LostDatagram[]> {
  const proxy = await startProxy(gatewayPort);
  const time = async (lose?: number): Promise<[ms: number, log: Passed[]]> => {
    proxy.reset(lose);
    const from = performance.now();
    const mapping = await openPort(6000, { gateway: `127.0.0.1:${proxy.port}` });
    const elapsed = performance.now() - from;
    const log = [...proxy.log];
    await mapping.close();
    return [elapsed, log];
  };
  const often = async (lose?: number): Promise<[ms: number, log: Passed[]]> => {
    const runs: [number, Passed[]][] = [];
    for (let i = 0; i < times; i++) runs.push(await time(lose));
    return [median(runs.map(([ms]) => ms)), runs[0]![1]];
  };
  await time();
  const [usualMs, usual] = await often();
  const lost: LostDatagram[] = [];
  for (let number = 0; number < usual.length; number++) {
    const [ms, log] = await often(number);
    // The exchange may be over before the last datagrams of it have come.
    const { direction, what } = log[number] ?? usual[number]!;
    const arrow = direction === "up" ? "→" : "←";
    lost.push({ what: `${number + 1}. ${arrow}${what}`, extraMs: Math.max(0, ms - usualMs) });
  }
  proxy.close();
  return lost;
}

async function askNobody(port: number, timeoutMs: number): Promise<Nobody> {
  const from = performance.now();
  try {
    await openPort(6000, { gateway: `127.0.0.1:${port}`, timeoutMs });
  } catch (error) {
    const code = error instanceof NatError ? error.code : String(error);
    return { elapsedMs: performance.now() - from, code };
  }
  throw new Error("a mapping came from nowhere");
}
