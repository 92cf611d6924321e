/**
 * What follows once a mapping is granted, inbound or outbound: it is told, kept in the state file,
 * and held as long as it is wanted.
 *
 * @module
 */
import { pickDefined } from "../../../core/defined.ts";
import { describeFailure } from "../../../core/mapping.ts";
import type { GrantedMapping } from "../../../core/portmap/managed.ts";
import { gatewayText } from "../../../core/portmap/gateway.ts";
import type { Nat } from "../../api/nat.ts";
import type { PortEvent, PortMapping } from "../../api/port_mapping.ts";
import type { Context } from "../command.ts";
import type { CliEvent, MappingFields } from "../events.ts";
import { tenths } from "../output.ts";
import { inUse } from "./earlier_runs.ts";
import type { Hook } from "./hook.ts";
import type { Keeper } from "./keeper.ts";
import type { Notes } from "./notes.ts";

/** What a deletion comes to that nobody answers. */
const SILENCE: readonly string[] = ([{ kind: "no-answer" }, { kind: "unreachable" }] as const)
  .map(describeFailure);

/** What goes along with a mapping. */
export interface Beside {
  readonly kept: Keeper;
  readonly notes: Notes;
  readonly hook: Hook;
}

/** Tells and holds `mapping`; answers with the exit status when it is over. */
export async function hold(
  context: Context,
  nat: Nat,
  mapping: PortMapping,
  { kept, notes, hook }: Beside,
): Promise<number> {
  const { flags, output, stop } = context;
  const put = (event: CliEvent) => {
    output.event(event);
    hook.told(event);
  };
  const isOnce = flags.mode === "once" && !stop.aborted;
  const tell = async (event: "mapped" | "renewed" | "moved", granted: GrantedMapping) => {
    put({ event, ...fieldsOf(granted), elapsedMs: context.elapsedMs() });
    notes.granted(granted);
    kept.keep(granted, await nat.exportState(), !isOnce);
  };
  await tell("mapped", mapping.mapping);
  const noting = notes.listening(mapping.mapping).catch(() => {});
  if (isOnce) {
    await noting;
    await kept.settled();
    await mapping.release();
    if (kept.other) throw inUse(kept.other);
    return 0;
  }
  context.progressOnce("Holding what is mapped; Ctrl-C deletes it.");
  const closing = closeAt(context, mapping);
  // Not ours after all: left to the other one, whose end deletes it.
  void kept.lost.then(() => mapping.release());
  let end: PortEvent & { type: "unmapped" } | undefined;
  for await (const event of mapping) {
    if (event.type === "unmapped") end = event;
    else if (event.type === "renewal-failed") {
      output.progress(`The gateway did not renew it: ${event.reason}. It is asked again.`);
    } else if (event.type === "lost") {
      const { reason } = event;
      const fields = fieldsOf(mapping.mapping);
      put({ event: "lost", reason, ...fields, elapsedMs: context.elapsedMs() });
    } else await tell(event.type === "recovered" ? "mapped" : event.type, event.mapping);
  }
  const closedMs = await closing();
  await kept.settled();
  if (kept.other) throw inUse(kept.other);
  const { protocol, via, gateway, internal, external } = fieldsOf(mapping.mapping);
  if (!end || end.failure) {
    const outcome = end?.failure ?? SILENCE[0]!;
    const what = `port ${internal.port}/${protocol}`;
    const message = `The gateway did not close ${what}, it ends with its lifetime: ${outcome}`;
    const attempts = [{ via, gateway, outcome, elapsedMs: closedMs }];
    const code = SILENCE.includes(outcome) ? "no-answer" : "refused";
    output.fail({ code, message, attempts, protocol, internal });
    return 1;
  }
  put({
    event: "unmapped",
    ...{ protocol, via, gateway, internal, external, reason: end.reason },
    elapsedMs: context.elapsedMs(),
  });
  await kept.forget();
  return 0;
}

/** Closes the mapping when the command is to end; what it returns waits, and tells how long it took. */
function closeAt(context: Context, mapping: PortMapping): () => Promise<number> {
  const { stop } = context;
  let closing: { readonly since: number; readonly done: Promise<void> } | undefined;
  const close = () => {
    const since = context.elapsedMs();
    const what = `${mapping.gateway} to delete the mapping`;
    closing ??= { since, done: context.waitingFor(what, mapping.close()) };
  };
  stop.addEventListener("abort", close);
  if (stop.aborted) close();
  return async () => {
    stop.removeEventListener("abort", close);
    if (!closing) return 0;
    await closing.done;
    return tenths(context.elapsedMs() - closing.since);
  };
}

/** The fields of `mapped`, in the order in which they are told. */
export function fieldsOf(granted: GrantedMapping): Omit<MappingFields, "elapsedMs"> {
  const { protocol, via, gateway, internal, external, lifetimeSeconds } = granted;
  return {
    protocol,
    via,
    gateway: gatewayText(gateway),
    internal,
    external,
    ...pickDefined(granted, "gatewayExternal", "remote"),
    lifetimeSeconds,
  };
}
