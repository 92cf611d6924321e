/**
 * Opens the library for the commands that ask a gateway. It stands apart so that the others, and the
 * help texts, do not load the library.
 *
 * @module
 */
import { dropUndefined } from "../../core/defined.ts";
import type { SavedPort } from "../../core/portmap/managed.ts";
import { Nat } from "../api/nat.ts";
import type { NatOptions } from "../api/options.ts";
import type { Context } from "./command.ts";

/** Opens what the flags name, but for what `over` says. */
export function openNat(
  context: Context,
  saved: readonly SavedPort[],
  over: Pick<NatOptions, "gateway" | "protocols" | "internalAddress" | "onState"> = {},
): Promise<Nat> {
  const { flags, runtime, stop, parts } = context;
  const { gateway, via } = flags;
  const options: NatOptions = {
    ...dropUndefined({ gateway, protocols: via, internalAddress: flags["internal-address"] }),
    ...over,
    runtime,
    state: { version: 1, mappings: saved },
    signal: stop,
  };
  const opening = (parts.openNat ?? Nat.open)(options);
  return context.waitingFor("the system to tell which gateway this host has", opening);
}
