/**
 * The gateways and addresses of this host, for applications.
 *
 * @module
 */
import { checkFamily } from "../../core/check.ts";
import type { Family } from "../../core/ip.ts";
import { systemRuntime } from "../auto.ts";
import { findGateways as find, type GatewayCandidate, pickLocalAddress } from "../discovery/mod.ts";
import type { InterfaceAddress, Runtime } from "../runtime.ts";

export type { GatewayCandidate, GatewaySource } from "../discovery/mod.ts";

/**
 * The gateways of this host's default routes, the most likely way out first: real interfaces
 * before tunnels and container bridges, IPv4 before IPv6.
 *
 * @param runtime The runtime's adapter. Default: the one that is running.
 * @returns An empty list where there is none or the system does not say.
 * @throws {NatError} `permission`.
 */
export function findGateways(runtime: Runtime = systemRuntime()): Promise<GatewayCandidate[]> {
  return find(runtime);
}

/**
 * The addresses of this host's interfaces.
 *
 * @param runtime The runtime's adapter. Default: the one that is running.
 * @throws {NatError} `permission`.
 */
export function interfaceAddresses(runtime: Runtime = systemRuntime()): InterfaceAddress[] {
  return runtime.interfaces();
}

/**
 * The address of this host that is best suited for others to reach it by: IPv6 a global one that
 * stays rather than a unique local or a link-local one (PCP-C-24), IPv4 the first that is not
 * link-local.
 *
 * @param runtime The runtime's adapter. Default: the one that is running.
 * @returns Undefined where there is none but loopback.
 * @throws {TypeError} On a family that is none.
 * @throws {NatError} `permission`.
 */
export function bestInterfaceAddress(
  family: Family = 4,
  runtime: Runtime = systemRuntime(),
): string | undefined {
  return pickLocalAddress(runtime.interfaces(), checkFamily("family", family));
}
