/**
 * `natkit address`: the external address, by each protocol that knows it.
 *
 * @module
 */
import { isBehindAnotherNat } from "../../../core/cidr.ts";
import { dropUndefined } from "../../../core/defined.ts";
import type { Context } from "../command.ts";

/** Runs the command; answers the exit status. */
export async function run(context: Context): Promise<number> {
  const { output, stop } = context;
  const nat = await context.openNat([]);
  try {
    const found = await nat.externalAddresses({
      ...dropUndefined({ timeoutMs: context.timeoutMs }),
      signal: stop,
    });
    for (const { via, address, gateway } of found) {
      output.event({ event: "address", via, address, gateway });
    }
    const nested = found.find(({ address }) => isBehindAnotherNat(address));
    if (nested) {
      output.warn(
        `${nested.address} is no address of the Internet: another NAT stands above this gateway`,
      );
    }
    return 0;
  } finally {
    await nat.close();
  }
}
