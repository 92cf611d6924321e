/**
 * `natkit map`: opens ports.
 *
 * @module
 */
import { dropUndefined } from "../../../core/defined.ts";
import type { Via } from "../../../core/errors.ts";
import type { Nat } from "../../api/nat.ts";
import type { MappingOptions } from "../../api/options.ts";
import type { Context } from "../command.ts";
import { checkFlags } from "../flags.ts";
import { viaName } from "../text.ts";
import { PROTOCOLS, UsageError } from "../values.ts";
import { inUse, openToMap, withRemedy } from "./earlier_runs.ts";
import { hold } from "./hold.ts";
import { Hook } from "./hook.ts";
import { Keeper } from "./keeper.ts";
import { Notes } from "./notes.ts";
import { forEachPort, readPorts } from "./ports.ts";

/** Runs the command; answers the exit status. */
export async function run(context: Context): Promise<number> {
  const { flags } = context;
  const ports = readPorts(context.positionals);
  checkFlags(flags);
  if (ports.length > 1 && flags["external-port"]) {
    throw new UsageError(
      `--external-port is for one PORT, and there are ${ports.length}: current value is ` +
        `"${flags["external-port"]}"`,
    );
  }
  if (flags["prefer-failure"] && !flags["external-port"]) {
    throw new UsageError(
      "--prefer-failure needs an --external-port to insist on: current value is " +
        (flags["external-port"] ?? "none"),
    );
  }
  const thirdParty = flags["third-party"];
  const wishes = ports.map(({ port, protocol }) => {
    const wanted = { protocol, internalPort: port, ...dropUndefined({ thirdParty }) };
    return { port, protocol, wanted, kept: new Keeper(context, wanted) };
  });
  const hook = new Hook(context);
  const { nat, heldBy } = await openToMap(context, wishes.map(({ wanted }) => wanted), {
    onState: async (state) => {
      await Promise.all(wishes.map(({ kept }) => kept.asked(state)));
    },
  });
  try {
    return await forEachPort(context, wishes, async ({ port, protocol, wanted, kept }) => {
      try {
        const held = await heldBy(wanted) ?? await kept.claim(nat.gateways);
        if (held) throw inUse(held);
        const asking = nat.map(port, {
          protocol,
          ...mappingOptions(context),
          ...dropUndefined({ preferFailure: flags["prefer-failure"], filters: flags.filter }),
        });
        const mapping = await context.waitingFor(answerOf(nat, flags.via), asking);
        const wishedPort = flags["external-port"] ?? port;
        const notes = new Notes(context, wishedPort === 0 ? undefined : wishedPort);
        return await hold(context, nat, mapping, { kept, notes, hook });
      } catch (error) {
        await kept.forgetAsked();
        throw await withRemedy(error, context, wanted);
      }
    });
  } finally {
    await nat.close();
    await Promise.all(wishes.map(({ kept }) => kept.forgetAsked()));
    await hook.end();
  }
}

/** What is waited for where a gateway is asked, by these protocols, for a person. */
export function answerOf({ gateways }: Nat, via: readonly Via[] = PROTOCOLS): string {
  // NAT-PMP is of IPv4 alone.
  const isIpv6 = gateways.length > 0 && gateways.every((text) => /^\[|:.*:/.test(text));
  const names = via.filter((one) => !isIpv6 || one !== "nat-pmp").map(viaName);
  const by = names.join(", ").replace(/, ([^,]*)$/, " or $1");
  return `${gateways.join(" and ") || "a gateway"} to answer by ${by}`;
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
