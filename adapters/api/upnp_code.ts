/**
 * UPnP's client, a third of what opens a port: loaded once a program has a use for it.
 *
 * @module
 */
import type { Failure } from "../../core/mapping.ts";
import type { MakeClient } from "../../core/portmap/client.ts";

let loaded: MakeClient | undefined;

/** What makes UPnP's client, where it is loaded. */
export function loadedUpnp(): MakeClient | undefined {
  return loaded;
}

/** Loads what devices are asked by, which a search for them leaves the time for. */
export function loadHttp(): void {
  // Where it cannot be had, who needs it hears of it.
  void import("../http.ts").catch(() => {});
}

/** Loads it, or tells why that could not be. Never rejects. */
export async function loadUpnp(): Promise<MakeClient | Failure> {
  try {
    return loaded ??= (await import("../../core/portmap/upnp.ts")).makeIgdClient;
  } catch (error) {
    return { kind: "not-loaded", message: error instanceof Error ? error.message : String(error) };
  }
}
