/**
 * How long `openPort` takes, in round trips on the wire and against a bare UDP echo.
 *
 * @module
 */
import { RUNTIMES } from "../lib/runtimes.ts";
import type { Context } from "./context.ts";
import { atMost, type Row, show } from "./report.ts";
import { runTask } from "./workers.ts";

/** For finding the gateway, milliseconds. */
const DISCOVERY_MS = 5;

/** Runs the topic. */
export async function* openPort({ isQuick }: Context): AsyncGenerator<Row> {
  for (const on of RUNTIMES) {
    const { timings, firstMs, wire } = await runTask(on, "open-port", {
      timeMs: isQuick ? 50 : 2000,
    });
    for (const [name, { trips, log }] of Object.entries(wire)) {
      const [what, limit] = name === "pcp" ? ["PCP", 1] : ["NAT-PMP", 2];
      const row = { what: `round trips by ${what}`, on, value: trips, unit: "", note: log };
      yield atMost(limit as number, row);
    }
    const { echo, discovery, pcp, natPmp } = timings;
    yield { what: "bare UDP echo", on, value: echo.p50, unit: "ms" };
    yield { what: "finding the gateway", on, value: discovery.p50, unit: "ms" };
    const limit = 3 * echo.p50 + DISCOVERY_MS;
    for (const [what, { p50, p99 }] of [["PCP", pcp], ["NAT-PMP", natPmp]] as const) {
      yield atMost(limit, {
        what: `openPort by ${what}, with discovery`,
        on,
        value: p50 + discovery.p50,
        unit: "ms",
        note: `without: ${show(p50, "ms")}, ${show(p99, "ms")} at the 99th percentile`,
      });
    }
    yield { what: "first openPort of a process", on, value: firstMs, unit: "ms" };
  }
}
