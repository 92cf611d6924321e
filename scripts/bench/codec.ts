/**
 * Decoding, against reading the same fields by hand.
 *
 * @module
 */
import { RUNTIMES } from "../lib/runtimes.ts";
import type { Context } from "./context.ts";
import { atMost, type Row, show } from "./report.ts";
import { runTask } from "./workers.ts";

/** Runs the topic. */
export async function* codec({ isQuick }: Context): AsyncGenerator<Row> {
  for (const on of RUNTIMES) {
    const { timings, batch, bytes } = await runTask(on, "codec", {
      timeMs: isQuick ? 50 : 2000,
    });
    const nanoseconds = (ms: number) => ms * 1e6 / batch;
    yield atMost(2, {
      what: "PCP MAP response decoded, against by hand",
      on,
      value: timings.natkit.p50 / timings.byHand.p50,
      unit: "×",
      note: `${show(nanoseconds(timings.natkit.p50), "ns")} and ${
        show(nanoseconds(timings.byHand.p50), "ns")
      }`,
    });
    if (!bytes) continue;
    yield atMost(bytes.byHand, {
      what: "heap for one decode, by hand as the limit",
      on,
      value: bytes.natkit,
      unit: "B",
      note: "the result object, its nonce view and its address text",
    });
  }
}
