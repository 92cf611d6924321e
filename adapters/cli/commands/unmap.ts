/**
 * `natkit unmap`: deletes a mapping that an earlier run made, or all of them.
 *
 * @module
 */
import { dropUndefined } from "../../../core/defined.ts";
import { parseEndpoint } from "../../../core/ip.ts";
import type { Transport } from "../../../core/mapping.ts";
import type { SavedMapping } from "../../../core/portmap/saved.ts";
import type { Nat, UnmapResult } from "../../api/nat.ts";
import type { WaitOptions } from "../../api/wait.ts";
import type { Context } from "../command.ts";
import type { StateFile } from "../state_file.ts";
import { readPortAndProtocol, UsageError } from "../values.ts";

/** Runs the command; answers the exit status. */
export async function run(context: Context): Promise<number> {
  const { flags, positionals, stop } = context;
  const [text] = positionals;
  if (flags.all && text !== undefined) {
    throw new UsageError(`--all and PORT exclude each other: current value is "${text}"`);
  }
  if (!flags.all && text === undefined) throw new UsageError("natkit unmap needs PORT or --all");
  const wanted = text === undefined ? undefined : readPortAndProtocol("PORT", text, "tcp");
  const state = context.stateFile();
  const saved = await state.load();
  const nat = await context.openNat(saved);
  const options = { ...dropUndefined({ timeoutMs: context.timeoutMs }), signal: stop };
  try {
    if (!wanted) return await unmapAll(context, nat, state, saved, options);
    const { port, protocol } = wanted;
    const results = await nat.unmap(port, { protocol, ...options });
    for (const result of results) tell(context, result, protocol, port);
    const gateways = results.map(addressOf);
    await state.forget((one) =>
      one.kind === "map" && one.internalPort === port && one.protocol === protocol &&
      one.thirdParty === undefined && gateways.includes(one.gateway)
    );
    return 0;
  } finally {
    await nat.close();
  }
}

async function unmapAll(
  context: Context,
  nat: Nat,
  state: StateFile,
  saved: readonly SavedMapping[],
  options: WaitOptions,
): Promise<number> {
  const isGone: ((one: SavedMapping) => boolean)[] = [];
  const outcomes = await Promise.allSettled((["tcp", "udp"] as const).map(async (protocol) => {
    const results = await nat.unmapAll(protocol, options);
    for (const result of results) tell(context, result, protocol);
    for (const { via, gateway } of results) {
      const is = (one: SavedMapping) =>
        one.kind === "map" && one.protocol === protocol && one.via === via &&
        one.gateway === addressOf({ gateway });
      // PCP confirms one by one: where one is missing, nobody says which, and all are kept.
      const confirmed = results.filter((one) => one.via === via && one.gateway === gateway);
      if (via === "nat-pmp" || confirmed.length >= saved.filter(is).length) isGone.push(is);
    }
    return results.length;
  }));
  await state.forget((one) => isGone.some((is) => is(one)));
  const done = outcomes.filter((outcome) => outcome.status === "fulfilled");
  const failed = outcomes.find((outcome) => outcome.status === "rejected");
  if (failed && done.every(({ value }) => value === 0)) throw failed.reason;
  if (done.every(({ value }) => value === 0)) context.output.progress("There is nothing to unmap.");
  return 0;
}

function addressOf({ gateway }: { readonly gateway: string }): string {
  return parseEndpoint(gateway.split(" ")[0]!, 0)?.address ?? gateway;
}

function tell(
  context: Context,
  { via, gateway }: UnmapResult,
  protocol: Transport,
  port?: number,
): void {
  context.output.event({
    event: "unmapped",
    protocol,
    via,
    gateway,
    ...(port === undefined ? {} : { internal: { port } }),
    reason: "revoked",
    elapsedMs: context.elapsedMs(),
  });
}
