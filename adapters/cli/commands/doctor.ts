/**
 * `natkit doctor`: what stands between this host and the internet, and what to do about it.
 *
 * @module
 */
import { dropUndefined } from "../../../core/defined.ts";
import { NatError } from "../../../core/errors.ts";
import type { Diagnosis } from "../../../core/portmap/diagnosis.ts";
import { examineWithoutGateway } from "../../api/diagnose.ts";
import type { Context } from "../command.ts";
import { checkFlags } from "../flags.ts";
import { openNat } from "../open_nat.ts";
import { tenths } from "../output.ts";
import { answerOf } from "./map.ts";

/** Runs the command; answers the exit status. */
export async function run(context: Context): Promise<number> {
  checkFlags(context.flags);
  const { gateways, detours, localAddresses, reflexive, nat, findings } = await examine(context);
  const inTenths = <R extends { readonly elapsedMs: number }>(report: R): R => ({
    ...report,
    elapsedMs: tenths(report.elapsedMs),
  });
  context.output.event({
    event: "report",
    gateways: gateways.map(({ protocols, ...gateway }) => (
      { ...gateway, protocols: protocols.map(inTenths) }
    )),
    detours,
    localAddresses,
    reflexive: reflexive.map(inTenths),
    ...dropUndefined({ nat }),
    findings,
  });
  return 0;
}

async function examine(context: Context): Promise<Diagnosis> {
  const { runtime, stop, timeoutMs } = context;
  const options = {
    ...dropUndefined({ timeoutMs, stunServers: context.flags.stun }),
    signal: stop,
  };
  const opening = openNat(context, []);
  const nat = await opening.catch((error) => {
    if (error instanceof NatError && error.code === "gateway-not-found") return undefined;
    throw error;
  });
  if (!nat) return await examineWithoutGateway(runtime, options);
  try {
    const asking = nat.diagnose(options);
    return await context.waitingFor(answerOf(nat, context.flags.via), asking);
  } finally {
    await nat.close();
  }
}
