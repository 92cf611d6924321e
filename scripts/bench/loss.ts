/**
 * What it costs when a datagram is lost, when a gateway is silent to PCP, and when nobody is there.
 *
 * @module
 */
import { type Context, runtimes } from "./context.ts";
import { atMost, type Row, show } from "./report.ts";
import { runTask } from "./workers.ts";
import type { LossResult } from "./workers/loss.ts";

const LOST_LIMIT_MS = 300;
const SILENT_LIMIT_MS = 50;
/** What timers and scheduling may add to a timeout, milliseconds. */
const SLACK_MS = 50;

const GATEWAYS: Readonly<Record<keyof LossResult["lost"], string>> = {
  both: "PCP and NAT-PMP",
  pcp: "PCP only",
  natPmp: "NAT-PMP only",
};

/** Runs the topic. */
export async function* loss(context: Context): AsyncGenerator<Row> {
  const { isQuick } = context;
  const timeoutMs = isQuick ? 300 : 1000;
  for (const on of runtimes(context)) {
    const options = { timeMs: isQuick ? 50 : 1000, times: isQuick ? 1 : 5, timeoutMs };
    const { lost, silent, nobody } = await runTask(on, "loss", options);
    for (const [name, text] of Object.entries(GATEWAYS)) {
      const each = lost[name as keyof typeof lost];
      yield atMost(LOST_LIMIT_MS, {
        what: `any one datagram lost, ${text}: at most`,
        on,
        value: Math.max(...each.map(({ extraMs }) => extraMs)),
        unit: "ms",
        note: each.map(({ what, extraMs }) => `${what} +${Math.round(extraMs)}`).join(", "),
      });
    }
    yield atMost(SILENT_LIMIT_MS, {
      what: "silent to PCP, against one that says no: extra",
      on,
      value: silent.isSilent.p50 - silent.saysNo.p50,
      unit: "ms",
      note: `${show(silent.isSilent.p50, "ms")} and ${show(silent.saysNo.p50, "ms")}`,
    });
    yield atMost(timeoutMs + SLACK_MS, {
      what: `nobody answers, timeout ${timeoutMs} ms`,
      on,
      value: nobody.silent.elapsedMs,
      unit: "ms",
      note: nobody.silent.code,
    });
    // Deno does not pass ICMP errors on.
    const hearsIcmp = on !== "Deno";
    yield atMost(hearsIcmp ? SLACK_MS : timeoutMs + SLACK_MS, {
      what: "port closed, ICMP says so",
      on,
      value: nobody.closed.elapsedMs,
      unit: "ms",
      note: nobody.closed.code + (hearsIcmp ? "" : "; Deno passes no ICMP on: the timeout ends it"),
    });
  }
}
