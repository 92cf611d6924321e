/**
 * The local address toward a peer, for runtimes that cannot connect a UDP socket.
 *
 * @module
 */
import { isLoopback, isWildcard } from "../../core/cidr.ts";
import { NatError } from "../../core/errors.ts";
import { familyOf, formatEndpoint } from "../../core/ip.ts";
import type { Endpoint } from "../../core/machine.ts";
import type { UdpOptions } from "../runtime.ts";
import { bindEndpoint } from "../udp.ts";
import { sourceToward } from "./local_address.ts";
import { type DiscoveryRuntime, findGateways } from "./mod.ts";

/**
 * Where to bind so that packets to the peer leave from the address that is reported: where the
 * options name none, the one in the peer's network, else the default route's.
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
  const family = familyOf(peer.address);
  if (isLoopback(peer.address)) return { address: family === 4 ? "127.0.0.1" : "::1", port };
  const near = sourceToward(runtime.interfaces(), peer.address);
  if (near !== undefined) return { address: near, port };
  const gateway = (await findGateways(runtime)).find((candidate) => candidate.family === family);
  if (gateway?.localAddress !== undefined) return { address: gateway.localAddress, port };
  throw new NatError(
    "network",
    `Cannot reach ${formatEndpoint(peer)}: no local address leads there`,
  );
}
