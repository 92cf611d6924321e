/**
 * `natkit map`: opens a port.
 *
 * @module
 */
import { dropUndefined } from "../../../core/defined.ts";
import type { Nat } from "../../api/nat.ts";
import type { MappingOptions } from "../../api/options.ts";
import type { Context } from "../command.ts";
import { checkFlags } from "../flags.ts";
import { readPortAndProtocol, UsageError } from "../values.ts";
import { openToMap, withRemedy } from "./earlier_runs.ts";
import { hold } from "./hold.ts";
import { Keeper } from "./keeper.ts";

/** Runs the command; answers the exit status. */
export async function run(context: Context): Promise<number> {
  const { flags, positionals } = context;
  const { port, protocol } = readPortAndProtocol("PORT", positionals[0]!, "tcp");
  checkFlags(flags);
  if (flags["prefer-failure"] && !flags["external-port"]) {
    throw new UsageError(
      "--prefer-failure needs an --external-port to insist on: current value is " +
        (flags["external-port"] ?? "none"),
    );
  }
  const thirdParty = flags["third-party"];
  const wanted = { protocol, internalPort: port, ...dropUndefined({ thirdParty }) };
  const kept = new Keeper(context, wanted);
  const nat = await openToMap(context, wanted, kept.asked);
  try {
    const asking = nat.map(port, {
      protocol,
      ...mappingOptions(context),
      ...dropUndefined({ preferFailure: flags["prefer-failure"], filters: flags.filter }),
    });
    const mapping = await context.waitingFor(answerOf(nat), asking);
    return await hold(context, nat, mapping, kept);
  } catch (error) {
    await kept.forgetAsked();
    throw await withRemedy(error, context, wanted);
  } finally {
    await nat.close();
    await kept.forgetAsked();
  }
}

/** What is waited for where a gateway is asked, for a person. */
export function answerOf({ gateways }: Nat): string {
  return `${gateways.join(" and ") || "a gateway"} to answer`;
}

/** What the flags that `peer` has, too, ask of a mapping. */
export function mappingOptions({ flags, timeoutMs, stop }: Context): MappingOptions {
  return {
    ...dropUndefined({
      externalPort: flags["external-port"],
      externalAddress: flags["external-address"],
      lifetimeSeconds: flags.lifetime,
      mode: flags.mode,
      thirdParty: flags["third-party"],
      description: flags.description,
      timeoutMs,
    }),
    signal: stop,
  };
}
