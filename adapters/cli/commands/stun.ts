/**
 * `natkit stun`: how a STUN server sees this host, over each family that its name has.
 *
 * @module
 */
import { dropUndefined } from "../../../core/defined.ts";
import { formatEndpoint } from "../../../core/ip.ts";
import { reflexiveAddress } from "../../api/stun.ts";
import type { Context } from "../command.ts";
import { tenths } from "../output.ts";
import { readStunServer } from "../values.ts";

/** Runs the command; answers the exit status. */
export async function run(context: Context): Promise<number> {
  const { flags, output, runtime, stop, timeoutMs } = context;
  const name = readStunServer("HOST[:PORT]", context.positionals[0]!);
  const ask = async (family: 4 | 6): Promise<void> => {
    const { address, port, local, server } = await reflexiveAddress(name, {
      family,
      runtime,
      transport: flags.tcp ? "tcp" : "udp",
      ...dropUndefined({ timeoutMs }),
      signal: stop,
    });
    output.event({
      event: "address",
      via: "stun",
      address,
      port,
      local,
      server: formatEndpoint(server),
      elapsedMs: tenths(context.elapsedMs()),
    });
  };
  const [first, second] = await context.waitingFor(
    `the STUN server ${name}`,
    Promise.allSettled([ask(4), ask(6)]),
  );
  if (first.status === "fulfilled" || second.status === "fulfilled") return 0;
  // That it has no address of a family says less than what came of the other.
  throw second.reason?.code === "network" ? first.reason : second.reason;
}
