/**
 * The virtual network's speed.
 *
 * @module
 */
import { type Context, runtimes } from "./context.ts";
import { atLeast, type Row } from "./report.ts";
import { runTask } from "./workers.ts";

const LIMIT = 200_000;

const WORLDS = {
  link: "echoes on one link",
  nat: "echoes through a NAT",
  lossy: "jitter, loss, duplicates, reordering",
  traced: "echoes on one link, traced",
} as const;

/** Runs the topic. */
export async function* sim(context: Context): AsyncGenerator<Row> {
  const { isQuick } = context;
  for (const on of runtimes(context)) {
    const { perSecond } = await runTask(on, "sim", { timeMs: isQuick ? 50 : 1000 });
    for (const [name, text] of Object.entries(WORLDS)) {
      yield atLeast(LIMIT, {
        what: `packets delivered: ${text}`,
        on,
        value: perSecond[name as keyof typeof WORLDS],
        unit: "/s",
      });
    }
  }
}
