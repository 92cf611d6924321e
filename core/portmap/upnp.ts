/**
 * UPnP's part of the mapper, which is larger than all others: the mapper is given it, so that who
 * has no use for it need not load it.
 *
 * @module
 */
import { IgdClient } from "../upnp/client.ts";
import type { ClientOptions, MappingClient } from "./client.ts";
import { igdPlaceOf } from "./upnp_search.ts";

/** Makes UPnP's client for a {@linkcode PortMapper}. */
export function makeIgdClient(options: ClientOptions): MappingClient {
  return new IgdClient(igdPlaceOf(options));
}
