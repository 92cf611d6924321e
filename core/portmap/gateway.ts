/**
 * A gateway of PCP and NAT-PMP, whichever of them it speaks: how it is named, and where it is heard.
 *
 * @module
 */
import { familyOf } from "../ip.ts";
import type { Endpoint, SocketSpec } from "../machine.ts";
import { PCP_PORT } from "../pcp/constants.ts";

/** Where gateways announce themselves (RFC 6886 §3.2.1, RFC 6887 §14.1.1). */
const ANNOUNCE_GROUP = { 4: "224.0.0.1", 6: "ff02::1" } as const;
const ANNOUNCE_PORT = 5350;
/**
 * The socket that hears a gateway announce itself.
 *
 * @param localAddress This host's address towards it.
 * @param name The interface's name, without which nothing is heard over IPv6.
 */
export function announcementSocket(
  key: string,
  gateway: Endpoint,
  localAddress: string,
  name: string | undefined,
): SocketSpec {
  const family = familyOf(gateway.address);
  const group = ANNOUNCE_GROUP[family];
  const via = family === 4 ? localAddress : name;
  return {
    key,
    local: { address: group, port: ANNOUNCE_PORT },
    group,
    reuse: true,
    ...(via === undefined ? {} : { interface: via }),
  };
}

/** The gateway as attempts name it: its address, and its port where that is not PCP's. */
export function gatewayText(gateway: Endpoint): string {
  if (gateway.port === PCP_PORT) return gateway.address;
  return gateway.address.includes(":")
    ? `${gateway.address} port ${gateway.port}`
    : `${gateway.address}:${gateway.port}`;
}
