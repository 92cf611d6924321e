/**
 * `natkit nat-type`: what kind of NAT this host is behind.
 *
 * @module
 */
import { dropUndefined } from "../../../core/defined.ts";
import { natBehaviour } from "../../api/stun.ts";
import type { Context } from "../command.ts";
import { CommandError, tenths } from "../output.ts";
import { UsageError } from "../values.ts";

/** Runs the command; answers the exit status. */
export async function run(context: Context): Promise<number> {
  const { flags, output, runtime, stop } = context;
  const { stun: servers } = flags;
  if (!servers) throw new UsageError("natkit nat-type needs --stun HOST:PORT");
  const result = await context.waitingFor(
    "STUN servers",
    natBehaviour(servers, {
      runtime,
      signal: stop,
      ...dropUndefined({
        localAddress: flags["internal-address"],
        maxLifetimeSeconds: flags["max-lifetime"],
      }),
    }),
  );
  output.event({ event: "nat-type", ...result, elapsedMs: tenths(context.elapsedMs()) });
  if (result.type !== "blocked") return 0;
  throw new CommandError("no-answer", `No STUN server answered over UDP: ${servers.join(", ")}`);
}
