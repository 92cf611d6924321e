/**
 * STUN: the codec alone and beside other npm packages, and the server on sockets against a bare echo.
 *
 * @module
 */
import { must } from "../lib/process.ts";
import { type Context, runtimes } from "./context.ts";
import { installPeers, removePeers, STUN_PEERS } from "./install.ts";
import { besideEcho } from "./rate.ts";
import { atLeast, type Row, show } from "./report.ts";
import { runTask } from "./workers.ts";
import type { StunCodecSubject } from "./workers/stun_codec.ts";

const MESSAGES_PER_SECOND = 1_500_000;
const ECHO_SHARE = 0.8;

/** Runs the topic. */
export async function* stun(context: Context): AsyncGenerator<Row> {
  const { isQuick } = context;
  for (const on of runtimes(context)) {
    const { timings, batch } = await runTask(on, "stun-codec", { timeMs: isQuick ? 50 : 1000 });
    for (const [what, { p50 }] of Object.entries(timings)) {
      yield atLeast(MESSAGES_PER_SECOND, {
        what: `Binding ${what as StunCodecSubject}`,
        on,
        value: 1000 * batch / p50,
        unit: "/s",
        note: show(p50 * 1e6 / batch, "ns"),
      });
    }
  }
  if (!isQuick) yield* besidePackages();
  for (const on of runtimes(context)) {
    const { echo, it } = await besideEcho(
      on,
      "stun-server",
      "stun",
      isQuick ? 150 : 1500,
      isQuick ? 1 : 5,
    );
    yield atLeast(ECHO_SHARE, {
      what: "STUN server on sockets, against echo",
      on,
      value: it.perSecond / echo.perSecond,
      unit: "×",
      note: `${show(it.perSecond, "/s")} and ${show(echo.perSecond, "/s")}`,
    });
  }
}

/** The same on Node by other packages. */
async function* besidePackages(): AsyncGenerator<Row> {
  const folder = await installPeers(STUN_PEERS);
  for (const [name, version] of Object.entries(STUN_PEERS)) {
    const { stdout } = await must(["node", `${folder}/stun.js`, name, "1000"], { cwd: folder });
    const times: Record<"encode" | "decode", number> = JSON.parse(stdout.trim());
    for (const [what, time] of Object.entries(times)) {
      yield {
        what: `Binding ${what === "encode" ? "request encoded" : "response decoded"}`,
        on: `${name} ${version}`,
        value: 1e9 / time,
        unit: "/s",
        note: show(time, "ns"),
      };
    }
  }
  await removePeers();
}
