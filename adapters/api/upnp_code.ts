/**
 * UPnP's client, a third of what opens a port: loaded once a program has a use for it.
 *
 * @module
 */
import type { Failure } from "../../core/mapping.ts";
import type { MakeClient } from "../../core/portmap/client.ts";

let loaded: MakeClient | undefined;
let hasRehearsed = false;

/** What makes UPnP's client, where it is loaded. */
export function loadedUpnp(): MakeClient | undefined {
  return loaded;
}

/**
 * Makes ready for a device's answer, which a search for one leaves the time for: loads what it is
 * asked by, and rehearses. Never rejects: what cannot be had, who needs it hears of.
 *
 * @param isAnswered Whether there is no time left.
 */
export async function prepareForAnswer(isAnswered: () => boolean): Promise<void> {
  try {
    const { rehearseHttp } = await import("../http.ts");
    if (isAnswered() || hasRehearsed) return;
    hasRehearsed = true;
    await rehearseHttp();
    const { rehearse } = await import("../../core/upnp/rehearsal.ts");
    if (!isAnswered()) rehearse();
  } catch {
    // It is for speed alone.
  }
}

/** Loads it, or tells why that could not be. Never rejects. */
export async function loadUpnp(): Promise<MakeClient | Failure> {
  try {
    return loaded ??= (await import("../../core/portmap/upnp.ts")).makeIgdClient;
  } catch (error) {
    return { kind: "not-loaded", message: error instanceof Error ? error.message : String(error) };
  }
}
