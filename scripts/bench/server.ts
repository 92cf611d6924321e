/**
 * The servers: as machines alone, on sockets against a bare UDP echo, and beside other people's.
 *
 * @module
 */
import { type Context, runtimes } from "./context.ts";
import { besideOthers } from "./beside.ts";
import { socketRate } from "./rate.ts";
import { atLeast, atMost, type Row, show } from "./report.ts";
import { runTask } from "./workers.ts";
import type { MachineName, ServerRate } from "./workers/server_machine.ts";

const MACHINE_LIMIT = 500_000;
/**
 * From one mapping to the most a request may take so much longer and the rate is flat: half of the
 * time that the limit leaves to a request. Caches of the processor have their part in it.
 */
const FLAT_MICROSECONDS = 1;
const ECHO_SHARE = 0.8;
const LIVE = [1, 1000, 50_000];

/** Runs the topic. */
export async function* server(context: Context): AsyncGenerator<Row> {
  yield* machines(context);
  yield* sockets(context);
  yield* besideOthers(context);
}

async function* machines(context: Context): AsyncGenerator<Row> {
  const { isQuick } = context;
  for (const on of runtimes(context)) {
    const { rates } = await runTask(on, "server-machine", {
      timeMs: isQuick ? 20 : 600,
      live: isQuick ? [1, 1000] : LIVE,
    });
    for (const name of new Set(rates.map(({ machine }) => machine))) {
      yield* machine(on, name, rates.filter((rate) => rate.machine === name));
    }
  }
}

function* machine(on: string, name: MachineName, rates: readonly ServerRate[]): Generator<Row> {
  const of = (what: ServerRate["what"]) => rates.filter((rate) => rate.what === what);
  const list = (some: readonly ServerRate[]) =>
    some.map(({ live, perSecond }) => `${show(perSecond, "/s")} at ${show(live, "")}`).join(", ");
  const renewals = of("renew");
  const speeds = renewals.map(({ perSecond }) => perSecond);
  yield atLeast(MACHINE_LIMIT, {
    what: `${name} alone: MAP requests, slowest`,
    on,
    value: Math.min(...speeds),
    unit: "/s",
    note: `live mappings: ${list(renewals)}`,
  });
  const times = speeds.map((perSecond) => 1e6 / perSecond);
  yield atMost(FLAT_MICROSECONDS, {
    what: `${name} alone: longer at most mappings by`,
    on,
    value: Math.max(0, times.at(-1)! - times[0]!),
    unit: "µs",
    note: `made and deleted in turn: ${list(of("make and delete"))}`,
  });
}

async function* sockets(context: Context): AsyncGenerator<Row> {
  const { isQuick } = context;
  for (const on of runtimes(context)) {
    const rates = await socketRate(on, isQuick ? 150 : 1500, isQuick ? 1 : 5);
    const { echo, pcp, natPmp } = rates;
    yield {
      what: "bare UDP echo on sockets",
      on,
      value: echo.perSecond,
      unit: "/s",
      note: cpuNote(echo.cpuMicroseconds),
    };
    for (const [what, rate] of [["PCP", pcp], ["NAT-PMP", natPmp]] as const) {
      yield atLeast(ECHO_SHARE, {
        what: `gateway on sockets, ${what} MAP, against echo`,
        on,
        value: rate.perSecond / echo.perSecond,
        unit: "×",
        note: `${show(rate.perSecond, "/s")}; ${cpuNote(rate.cpuMicroseconds)}`,
      });
    }
  }
}

function cpuNote(microseconds: number | undefined): string {
  return microseconds === undefined
    ? "processor time unknown"
    : `${show(microseconds, "µs")} of processor time each`;
}
