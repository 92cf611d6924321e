/**
 * `natkit watch`: maps a port at every gateway, and tells all the addresses by which it can be
 * reached, whole, at each change.
 *
 * @module
 */
import { dropUndefined } from "../../../core/defined.ts";
import type { Assignment } from "../../../core/portmap/managed.ts";
import type { Nat } from "../../api/nat.ts";
import type { NatState } from "../../api/options.ts";
import type { PortWatch } from "../../api/port_watch.ts";
import type { Context } from "../command.ts";
import { checkFlags } from "../flags.ts";
import { viaName } from "../text.ts";
import { readPortAndProtocol } from "../values.ts";
import { inUse, openToMapOne } from "./earlier_runs.ts";
import { Keeper } from "./keeper.ts";
import { answerOf } from "./map.ts";

/** The state file's entries are to outlive a run that is killed, however long it ran. */
const REFRESH_SECONDS = 1800;

/** Runs the command; answers the exit status. */
export async function run(context: Context): Promise<number> {
  const { flags, positionals, output, stop } = context;
  const { port, protocol } = readPortAndProtocol("PORT", positionals[0]!, "tcp");
  checkFlags(flags);
  const kept = new Keeper(context, { protocol, internalPort: port });
  const opened: { nat?: Nat } = {};
  // Nothing is asked for, and so nothing kept, before it is open.
  const onState = (state: NatState) => opened.nat && kept.all(state, opened.nat.gateways);
  const nat = opened.nat = await openToMapOne(context, { protocol, internalPort: port }, onState);
  try {
    for (const warning of nat.warnings) output.warn(warning);
    const watch = await nat.watch(port, {
      protocol,
      ...dropUndefined({
        externalPort: flags["external-port"],
        lifetimeSeconds: flags.lifetime,
        description: flags.description,
      }),
    });
    const first = new Promise<void>((resolve) => {
      watch.onChange((assignments) => {
        if (assignments.some(({ via }) => via !== "local")) resolve();
      });
      stop.addEventListener("abort", () => resolve());
      void kept.lost.then(resolve);
    });
    void context.waitingFor(answerOf(nat, flags.via), first);
    await tellAll(context, watch, kept);
    if (kept.other) throw inUse(kept.other);
    // A signal has a status of its own.
    return 1;
  } finally {
    await nat.close();
    await kept.forgetAsked();
  }
}

/** Tells each set, until the command is to end. */
async function tellAll(context: Context, watch: PortWatch, kept: Keeper): Promise<void> {
  const { flags, io, output, runtime, stop } = context;
  const tell = (assignments: readonly Assignment[]) =>
    output.event({
      event: "assignments",
      assignments: assignments.map(({ protocol, address, port, via }) => (
        { protocol, address, port, via }
      )),
    });
  output.progress("Mapping it at every gateway; Ctrl-C deletes what was made.");
  let closing: Promise<void> | undefined;
  const close = () =>
    closing ??= context.waitingFor("the gateways to delete what was made", watch.close());
  stop.addEventListener("abort", close);
  if (stop.aborted) void close();
  void kept.lost.then(close);
  const refreshMs = 1000 * Math.min(REFRESH_SECONDS, Math.ceil((flags.lifetime ?? Infinity) / 2));
  let cancel = () => {};
  const refresh = () => {
    cancel = runtime.setTimer(refreshMs, () => void kept.again().then(refresh), false);
  };
  refresh();
  // Who reads the sets may ask for the present one by a line. A terminal shows the last set anyway,
  // and one that is read would stop a natkit in its background.
  const offLine = io.isTerminal.stdin ? () => {} : io.onLine(() => tell(watch.assignments));
  let last: readonly Assignment[] = [];
  try {
    for await (const assignments of watch) tell(last = assignments);
  } finally {
    offLine();
    cancel();
    stop.removeEventListener("abort", close);
  }
  await closing;
  await kept.settled();
  if (kept.other) return;
  const left = kept.left();
  const own = last.filter(({ via }) => via === "local");
  // That all is cleaned up is the last change.
  if (left.length === 0 && own.length < last.length) tell(own);
  for (const { mapping: { gateway, via } } of left) {
    output.warn(`${gateway} did not close the port by ${viaName(via)}: it ends with its lifetime`);
  }
}
