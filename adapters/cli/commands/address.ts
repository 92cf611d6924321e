/**
 * `natkit address`: the external address, by each protocol that knows it, each as it answers.
 *
 * @module
 */
import { isBehindAnotherNat } from "../../../core/cidr.ts";
import { dropUndefined } from "../../../core/defined.ts";
import type { Context } from "../command.ts";
import { checkFlags } from "../flags.ts";
import { openNat } from "../open_nat.ts";
import { answerOf } from "./map.ts";

/** Runs the command; answers the exit status. */
export async function run(context: Context): Promise<number> {
  const { flags, output, stop } = context;
  checkFlags(flags);
  const nat = await openNat(context, []);
  try {
    const asking = nat.externalAddresses({
      ...dropUndefined({ timeoutMs: context.timeoutMs }),
      signal: stop,
      onAddress: ({ via, address, gateway }) => {
        output.event({ event: "address", via, address, gateway });
      },
    });
    const found = await context.waitingFor(answerOf(nat, flags.via), asking);
    const nested = found.find(({ address }) => isBehindAnotherNat(address))?.address;
    if (nested !== undefined) {
      output.warn(`${nested} is no address of the Internet: another NAT stands above this gateway`);
    }
    return 0;
  } finally {
    await nat.close();
  }
}
