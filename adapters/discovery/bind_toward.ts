/**
 * Where to bind toward a peer, for runtimes that cannot connect a UDP socket.
 *
 * @module
 */
import { isWildcard } from "../../core/cidr.ts";
import { NatError } from "../../core/errors.ts";
import { formatEndpoint } from "../../core/ip.ts";
import type { Endpoint } from "../../core/machine.ts";
import type { UdpOptions } from "../runtime.ts";
import { bindEndpoint } from "../udp.ts";
import { sourceToward } from "./source_toward.ts";
import type { DiscoveryRuntime } from "./system_view.ts";

/**
 * Where to bind so that packets to the peer leave from the address that is reported: where the
 * options name none, the one that {@linkcode sourceToward} finds.
 *
 * @throws {NatError} `permission` where interfaces may not be read, `network` where no address of
 *   this host leads to the peer.
 */
export async function bindToward(
  runtime: DiscoveryRuntime,
  options: UdpOptions,
): Promise<Endpoint> {
  const { connect: peer } = options;
  const { address, port } = bindEndpoint(options);
  if (!peer || !isWildcard(address)) return { address, port };
  const source = await sourceToward(runtime, peer.address);
  if (source !== undefined) return { address: source, port };
  throw new NatError(
    "network",
    `Cannot reach ${formatEndpoint(peer)}: no local address leads there`,
  );
}
