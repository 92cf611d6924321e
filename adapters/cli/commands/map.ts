/**
 * `natkit map`: opens a port.
 *
 * @module
 */
import { dropUndefined } from "../../../core/defined.ts";
import type { MappingOptions } from "../../api/options.ts";
import type { Context } from "../command.ts";
import type { FlagName, FlagValues } from "../flags.ts";
import { checkOneFamily, readPortAndProtocol, UsageError } from "../values.ts";
import { openToMap } from "./earlier_runs.ts";
import { hold } from "./hold.ts";

const NEED_PCP: readonly FlagName[] = [
  "external-address",
  "prefer-failure",
  "filter",
  "third-party",
];

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
  const nat = await openToMap(context, wanted);
  try {
    const mapping = await nat.map(port, {
      protocol,
      ...mappingOptions(context),
      ...dropUndefined({ preferFailure: flags["prefer-failure"], filters: flags.filter }),
    });
    return await hold(context, nat, mapping, wanted);
  } finally {
    await nat.close();
  }
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

/** Throws where two flags contradict each other; for `peer` too. */
export function checkFlags(flags: FlagValues): void {
  const addresses: (readonly [string, string])[] = [];
  if (flags.gateway) addresses.push(["--gateway", flags.gateway.address]);
  for (const name of ["internal-address", "external-address", "third-party"] as const) {
    const address = flags[name];
    if (address !== undefined) addresses.push([`--${name}`, address]);
  }
  for (const { prefix } of flags.filter ?? []) addresses.push(["--filter", prefix.address]);
  checkOneFamily(addresses);
  if (!flags.via || flags.via.includes("pcp")) return;
  const needy = NEED_PCP.find((name) => flags[name] !== undefined);
  if (needy) throw new UsageError(`--${needy} needs PCP, but --via is "${flags.via}"`);
  const ipv6 = addresses.find(([, address]) => address.includes(":"));
  if (ipv6) {
    throw new UsageError(
      `${ipv6[0]} "${ipv6[1]}" needs PCP, but --via is "${flags.via}", which is IPv4 only`,
    );
  }
}
