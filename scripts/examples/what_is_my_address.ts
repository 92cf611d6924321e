/**
 * The gateway's external address, by each protocol that tells it.
 *
 *   deno run -A scripts/examples/what_is_my_address.ts [GATEWAY[:PORT]]
 */
// deno-lint-ignore-file no-console
import { Nat } from "@natkit/natkit";

const gateway = process.argv[2];
const nat = await Nat.open(gateway ? { gateway } : {});
for (const { via, address } of await nat.externalAddresses()) console.log(`${address} by ${via}`);
await nat.close();
