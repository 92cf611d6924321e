/**
 * `natkit peer`: an outbound mapping, by which one remote peer sees this host.
 *
 * @module
 */
import { dropUndefined } from "../../../core/defined.ts";
import type { Context } from "../command.ts";
import { checkFlags } from "../flags.ts";
import {
  checkOneFamily,
  readHostAddress,
  readPort,
  readPortAndProtocol,
  UsageError,
} from "../values.ts";
import { inUse, openToMapOne, withRemedy } from "./earlier_runs.ts";
import { hold } from "./hold.ts";
import { Hook } from "./hook.ts";
import { Keeper } from "./keeper.ts";
import { Notes } from "./notes.ts";
import { answerOf, mappingOptions } from "./map.ts";

/** Runs the command; answers the exit status. */
export async function run(context: Context): Promise<number> {
  const { flags, positionals } = context;
  const { port, protocol } = readPortAndProtocol("PORT", positionals[0]!, undefined);
  const remote = {
    address: readHostAddress("REMOTE_ADDRESS", positionals[1]!),
    port: readPort("REMOTE_PORT", positionals[2]!),
  };
  if (flags.via && !flags.via.includes("pcp")) {
    throw new UsageError(`natkit peer needs PCP, but --via is "${flags.via}"`);
  }
  checkFlags(flags);
  const other = flags.gateway?.address ?? flags["internal-address"];
  if (other !== undefined) {
    const name = flags.gateway ? "--gateway" : "--internal-address";
    checkOneFamily([["REMOTE_ADDRESS", remote.address], [name, other]]);
  }
  const thirdParty = flags["third-party"];
  const wanted = { protocol, internalPort: port, remote, ...dropUndefined({ thirdParty }) };
  const kept = new Keeper(context, wanted);
  const hook = new Hook(context);
  const nat = await openToMapOne(context, wanted, kept.asked);
  try {
    const first = await kept.claim(nat.gateways);
    if (first) throw inUse(first);
    const asking = nat.peer(port, remote, { protocol, ...mappingOptions(context) });
    const mapping = await context.waitingFor(answerOf(nat, ["pcp"]), asking);
    const notes = new Notes(context, flags["external-port"] || undefined);
    return await hold(context, nat, mapping, { kept, notes, hook });
  } catch (error) {
    await kept.forgetAsked();
    throw await withRemedy(error, context, wanted);
  } finally {
    await nat.close();
    await kept.forgetAsked();
    await hook.end();
  }
}
