/**
 * The beginning of UPnP's search, which is small: it leaves before UPnP's client is loaded.
 *
 * @module
 */
import { PCP_PORT } from "../pcp/constants.ts";
import { igdSearchAt, igdSearchSocket } from "../upnp/igd_search.ts";
import { SSDP_PORT } from "../upnp/ssdp.ts";
import type { ClientOptions } from "./client.ts";
import type { Search } from "./late.ts";

/** Where a client looks for its device. */
export function igdPlaceOf(options: ClientOptions): ClientOptions {
  const { address, port } = options.gateway;
  // A simulated gateway that shares its address with others answers searches where it answers PCP.
  return { ...options, gateway: { address, port: port === PCP_PORT ? SSDP_PORT : port } };
}

/** The search as UPnP's client begins it. */
export const IGD_SEARCH: Search = {
  socket: (options, key) => igdSearchSocket(igdPlaceOf(options), key),
  begin: (options, send, now) => igdSearchAt(igdPlaceOf(options), send).start(now),
};
