/**
 * The first mapping of a process at a real gateway that speaks UPnP alone: natkit's npm package and
 * others, each in a fresh Node process, and miniupnpc's own command as a whole process. The
 * subjects take turns. miniupnpd lets every search wait for 50 ms, which is in all figures.
 *
 * @module
 */
import { Lab, whatLabLacks } from "../lab/lab.ts";
import { ADDRESS } from "../lab/topology.ts";
import type { Context } from "./context.ts";
import { installNatkit, installPeers, PEERS, removePeers } from "./install.ts";
import type { Row } from "./report.ts";
import { inTurns, rowsOf, timeClient } from "./start.ts";

const ROUNDS = 9;
const WHAT = "UPnP alone, at miniupnpd: first mapping";
const NATKIT = "natkit, UPnP alone";
const UPNPC = "upnpc, whole process";
/** Names as `peers/client.js` takes them. */
const OTHERS = [
  "port-mapper, UPnP alone",
  "@silentbot1/nat-api, UPnP alone",
  "@achingbrain/nat-port-mapper, UPnP alone",
] as const;
/** Told nothing, natkit tries all three at once. */
const ALL = "natkit, all protocols";

/** Runs the topic. */
export async function* upnp({ isQuick }: Context): AsyncGenerator<Row> {
  const lacks = await whatLabLacks();
  if (lacks.length > 0) {
    const note = `skipped; it needs: ${lacks.join(", ")}`;
    return yield { what: WHAT, on: "", value: undefined, unit: "", note };
  }
  const folder = await installPeers(isQuick ? {} : PEERS);
  await installNatkit(folder);
  await using lab = await Lab.up({ natPmp: false });
  let port = 6000;
  const subjects = isQuick ? [NATKIT] : [NATKIT, ALL, UPNPC, ...OTHERS];
  const times = await inTurns(subjects, isQuick ? 1 : ROUNDS, async (subject) => {
    port++;
    if (subject !== UPNPC) return await timeClient(lab, folder, subject, port);
    const argv = ["upnpc", "-a", ADDRESS.host, `${port}`, `${port}`, "TCP"];
    return await lab.exec("host", argv);
  });
  yield* rowsOf(WHAT, times, NATKIT, [UPNPC, ...OTHERS]);
  await removePeers();
}
