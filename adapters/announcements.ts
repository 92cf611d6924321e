/**
 * The socket that hears gateways announce themselves: NAT-PMP and PCP on 224.0.0.1:5350, PCP on
 * [ff02::1]:5350 (RFC 6886 §3.2.1, RFC 6887 §14.1.1). Best effort: where it cannot
 * be had, restarts of the gateway are noticed at the next renewal.
 *
 * @module
 */
import { NatError } from "../core/errors.ts";
import { anyAddress, type Family } from "../core/ip.ts";
import { PCP_ANNOUNCE_PORT } from "../core/pcp/constants.ts";
import type { UdpOptions, UdpSocket } from "./runtime.ts";

/** What to listen to. */
export interface AnnouncementOptions {
  /** 4: 224.0.0.1, 6: ff02::1. */
  readonly family: Family;
  /**
   * IPv4: this host's address toward the gateway. IPv6: the name of the interface toward it
   * (Windows: its index); without it nothing is heard.
   */
  readonly interface?: string;
  /** By default 5350. Another one is for tests. */
  readonly port?: number;
}

/** The group bound first, so that unicast to the port stays another's; Windows cannot do that. */
function attempts({ family, interface: name, port = PCP_ANNOUNCE_PORT }: AnnouncementOptions) {
  const group = family === 4 ? "224.0.0.1" : "ff02::1";
  const multicast = name === undefined ? { group } : { group, interface: name };
  return [group, anyAddress(family)].map((address): UdpOptions => ({
    local: { address, port },
    reuseAddress: true,
    multicast,
  }));
}

/**
 * Opens it, with other processes listening too.
 *
 * @param open Opens a socket: `driver.listen`, or a runtime's `openUdp` with handlers.
 * @returns Undefined where the system does not let us.
 *
 * @example
 * ```ts ignore
 * await openAnnouncements((options) => driver.listen(options), { family: 4 });
 * ```
 */
export async function openAnnouncements(
  open: (options: UdpOptions) => Promise<UdpSocket>,
  options: AnnouncementOptions,
): Promise<UdpSocket | undefined> {
  for (const attempt of attempts(options)) {
    try {
      return await open(attempt);
    } catch (error) {
      if (!(error instanceof NatError)) throw error;
      if (error.code === "closed") return undefined;
    }
  }
  return undefined;
}
