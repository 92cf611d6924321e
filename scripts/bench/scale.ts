/**
 * Many mappings in one client machine, on Node.
 *
 * @module
 */
import type { Context } from "./context.ts";
import { atMost, type Row, show } from "./report.ts";
import { runTask } from "./workers.ts";
import type { ScaleOptions, ScaleResult } from "./workers/scale.ts";

const CLIENTS: Readonly<Record<ScaleOptions["client"], string>> = {
  "pcp": "PcpClient",
  "nat-pmp": "NatPmpClient",
  "mapper": "PortMapper",
};
const SIZES = [100, 1000, 10_000, 100_000];
/** At this size a mapping is weighed. */
const WEIGHED = 10_000;
/** log₂ 100,000 / log₂ 100 is 2.5, and caches of the processor take their share: linear is 1000. */
const GROWTH = 10;
const on = "Node";

/** Runs the topic. */
export async function* scale({ isQuick }: Context): AsyncGenerator<Row> {
  const sizes = isQuick ? [100, WEIGHED] : SIZES;
  const wakes = isQuick ? 1000 : 20_000;
  for (const [client, name] of Object.entries(CLIENTS) as [keyof typeof CLIENTS, string][]) {
    const results = new Map<number, ScaleResult>();
    for (const mappings of sizes) {
      const result = await runTask(on, "scale", { client, mappings, wakes });
      results.set(mappings, result);
      const count = mappings.toLocaleString("en-US");
      yield {
        what: `${name}, ${count} mappings: timer due`,
        on,
        value: result.dueNs / 1000,
        unit: "µs",
        note: `nothing due: ${show(result.idleNs, "ns")}; answer taken: ${
          show(result.answerNs / 1000, "µs")
        }`,
      };
      if (mappings !== WEIGHED) continue;
      yield atMost(1024, {
        what: `${name}, ${count} mappings: memory each`,
        on,
        value: result.bytes,
        unit: "B",
      });
    }
    const [few, many] = [sizes[0]!, sizes.at(-1)!];
    yield atMost(GROWTH, {
      what: `${name}: timer due, ${many.toLocaleString("en-US")} against ${few}`,
      on,
      value: results.get(many)!.dueNs / results.get(few)!.dueNs,
      unit: "×",
      note: `linear would be ${many / few} ×`,
    });
  }
}
