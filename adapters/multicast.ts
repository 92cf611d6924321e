/**
 * A socket in a multicast group, such as the one that hears gateways announce themselves.
 *
 * @module
 */
import { NatError } from "../core/errors.ts";
import { anyAddress, familyOf } from "../core/ip.ts";
import type { UdpOptions, UdpSocket } from "./runtime.ts";

/** What to listen to. */
export interface GroupOptions {
  /** The group's address. */
  readonly group: string;
  /**
   * IPv4: this host's address on the interface. IPv6: the name of the interface (Windows: its
   * index); without it nothing is heard.
   */
  readonly interface?: string;
  /** The group's port. */
  readonly port: number;
}

/** The group bound first, so that unicast to the port stays another's; Windows cannot do that. */
function attempts({ group, interface: name, port }: GroupOptions): UdpOptions[] {
  const multicast = name === undefined ? { group } : { group, interface: name };
  return [group, anyAddress(familyOf(group))].map((address) => ({
    local: { address, port },
    reuseAddress: true,
    multicast,
  }));
}

/**
 * Opens it, with other processes listening too.
 *
 * @param open Opens a socket: a runtime's `openUdp` with handlers.
 * @throws {NatError} `permission`, `network`: why the last attempt failed.
 */
export async function openGroup(
  open: (options: UdpOptions) => Promise<UdpSocket>,
  options: GroupOptions,
): Promise<UdpSocket> {
  let failure: unknown;
  for (const attempt of attempts(options)) {
    try {
      return await open(attempt);
    } catch (error) {
      if (!(error instanceof NatError)) throw error;
      failure = error;
    }
  }
  throw failure;
}
