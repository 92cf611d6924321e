/**
 * `natkit list`: the gateway's table of port mappings, everybody's, as UPnP tells it.
 *
 * @module
 */
import { dropUndefined } from "../../../core/defined.ts";
import type { PortMappingTable } from "../../api/nat.ts";
import type { Context } from "../command.ts";
import { checkFlags } from "../flags.ts";
import { openNat } from "../open_nat.ts";
import { answerOf } from "./map.ts";

/** Runs the command; answers the exit status. */
export async function run(context: Context): Promise<number> {
  const { flags, output, stop } = context;
  checkFlags(flags);
  const nat = await openNat(context, [], { protocols: ["upnp"] });
  try {
    const options = { ...dropUndefined({ timeoutMs: context.timeoutMs }), signal: stop };
    const table = await context.waitingFor(answerOf(nat, ["upnp"]), nat.list(options));
    tellTable(context, table);
    if (table.isCut) output.warn(`The table is longer than these ${table.entries.length} entries`);
    if (table.entries.length === 0) output.progress("The table is empty.");
    return 0;
  } finally {
    await nat.close();
  }
}

/** Tells a gateway's table; for `demo` too. */
export function tellTable({ output }: Context, { gateway, entries }: PortMappingTable): void {
  for (const entry of entries) {
    const { protocol, externalPort, internalClient, internalPort, remoteHost } = entry;
    output.event({
      event: "mapping",
      via: "upnp",
      gateway,
      protocol,
      external: { port: externalPort },
      internal: { address: internalClient, port: internalPort },
      ...(remoteHost !== "" && { remote: { address: remoteHost } }),
      ...(entry.isEnabled ? {} : { enabled: false }),
      lifetimeSeconds: entry.leaseSeconds,
      description: entry.description,
    });
  }
}
