/**
 * UPnP's part of the mapper, which is larger than all others: the mapper is given it, so that who
 * has no use for it need not load it.
 *
 * @module
 */
import { PCP_PORT } from "../pcp/constants.ts";
import { IgdClient } from "../upnp/client.ts";
import { SSDP_PORT } from "../upnp/ssdp.ts";
import type { ClientOptions, MappingClient } from "./client.ts";

/** Makes UPnP's client for a {@linkcode PortMapper}. */
export function makeIgdClient(
  { gateway: { address, port }, ...options }: ClientOptions,
): MappingClient {
  // A simulated gateway that shares its address with others answers searches where it answers PCP.
  const gateway = { address, port: port === PCP_PORT ? SSDP_PORT : port };
  return new IgdClient({ ...options, gateway });
}
