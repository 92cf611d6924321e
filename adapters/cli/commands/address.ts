/**
 * `natkit address`: the external address, by each protocol that knows it, each as it answers.
 *
 * @module
 */
import { isBehindAnotherNat } from "../../../core/cidr.ts";
import { dropUndefined } from "../../../core/defined.ts";
import { NatError, type Via } from "../../../core/errors.ts";
import { mergeErrors } from "../../api/attempts_error.ts";
import type { Context } from "../command.ts";
import { checkFlags } from "../flags.ts";
import { openNat } from "../open_nat.ts";
import { viaName } from "../text.ts";

/**
 * How long the others are waited for once one has answered, milliseconds: enough for a request and
 * its retransmission.
 */
const GRACE_MS = 500;
/** A gateway that is slow with one protocol is as slow with another. */
const GRACE_FACTOR = 2;

/** Runs the command; answers the exit status. */
export async function run(context: Context): Promise<number> {
  const { flags, output, stop } = context;
  checkFlags(flags);
  const enough = new AbortController();
  const onStop = () => enough.abort(stop.reason);
  if (stop.aborted) onStop();
  stop.addEventListener("abort", onStop);
  const found: string[] = [];
  let graceTimer: ReturnType<typeof setTimeout> | undefined;
  const outcomes = await Promise.allSettled((flags.via ?? ["pcp", "nat-pmp"]).map(async (via) => {
    try {
      const { addresses, elapsedMs } = await askBy(via, context, enough.signal);
      found.push(...addresses);
      graceTimer ??= setTimeout(() => enough.abort(), GRACE_MS + GRACE_FACTOR * elapsedMs);
    } catch (error) {
      if (!enough.signal.aborted || stop.aborted) throw error;
      output.progress(`No answer by ${viaName(via)}.`);
    }
  }));
  clearTimeout(graceTimer);
  stop.removeEventListener("abort", onStop);
  stop.throwIfAborted();
  if (found.length === 0) {
    const errors = outcomes.map((each) => each.status === "rejected" ? each.reason : undefined);
    throw errors.length === 1 ? errors[0] : mergeErrors("tell the external address", errors);
  }
  const nested = found.find(isBehindAnotherNat);
  if (nested !== undefined) {
    output.warn(`${nested} is no address of the Internet: another NAT stands above this gateway`);
  }
  return 0;
}

/** Asks by one protocol and tells what comes; answers the addresses and how long they took. */
async function askBy(
  via: Via,
  context: Context,
  enough: AbortSignal,
): Promise<{ readonly addresses: readonly string[]; readonly elapsedMs: number }> {
  const nat = await openNat(context, [], { protocols: [via] });
  try {
    if (via === "nat-pmp" && nat.gateways.every((gateway) => /:.*:/.test(gateway))) {
      const message = `NAT-PMP is for IPv4, and the gateway is ${nat.gateways[0]}`;
      throw new NatError("unsupported", message);
    }
    const since = context.elapsedMs();
    const answers = await nat.externalAddresses({
      ...dropUndefined({ timeoutMs: context.timeoutMs }),
      signal: enough,
    });
    for (const { via, address, gateway } of answers) {
      context.output.event({ event: "address", via, address, gateway });
    }
    const elapsedMs = context.elapsedMs() - since;
    return { addresses: answers.map(({ address }) => address), elapsedMs };
  } finally {
    await nat.close();
  }
}
