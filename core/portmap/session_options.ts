/**
 * How a gateway session is made, and what it counts.
 *
 * @module
 */
import { classify } from "../cidr.ts";
import type { Via } from "../errors.ts";
import { familyOf } from "../ip.ts";
import type { Endpoint } from "../machine.ts";
import type { NatPmpClientStats } from "../natpmp/client.ts";
import type { PcpClientStats } from "../pcp/client.ts";
import type { RandomSource } from "../random.ts";
import type { SavedMapping } from "./saved.ts";

/** How to speak to one gateway. */
export interface GatewaySessionOptions {
  /** The gateway; port 5351 unless it is told otherwise. */
  readonly gateway: Endpoint;
  /** The address from which packets to the gateway leave. */
  readonly localAddress: string;
  /** Nonces and jitter come from here. */
  readonly random: RandomSource;
  /** What may be spoken. Default: PCP and, over IPv4 from a non-global address, NAT-PMP. */
  readonly protocols?: readonly Via[];
  /** Mappings of an earlier run; a request for the same port adopts the one that is here. */
  readonly saved?: readonly SavedMapping[];
  /** Retransmits first requests after 250 and 750 ms (D-17). Default true. */
  readonly fastStart?: boolean;
}

/** Counters of a session and its two clients. */
export interface GatewaySessionStats {
  /** Datagrams that came from somewhere else than the gateway. */
  wrongSource: number;
  /** Claims settled by each protocol. */
  readonly settled: { pcp: number; natPmp: number };
  /** The PCP client's. */
  readonly pcp: PcpClientStats;
  /** The NAT-PMP client's; over IPv6 there is none. */
  readonly natPmp: NatPmpClientStats | undefined;
}

/**
 * NAT-PMP is for IPv4 addresses behind a NAT (PMP-C-02). The RFC names its three private ranges;
 * here all but global addresses count, since shared (100.64/10) and loopback ones have gateways,
 * too: a carrier's, and the simulated one.
 */
export function defaultProtocols(localAddress: string): Via[] {
  const isRouted = familyOf(localAddress) === 6 || classify(localAddress) === "global";
  return isRouted ? ["pcp"] : ["pcp", "nat-pmp"];
}
