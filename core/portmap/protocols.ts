/**
 * The protocols there are, as a table that the mapper and its races go by.
 *
 * @module
 */
import { classify } from "../cidr.ts";
import { PREFERENCE, type Via } from "../errors.ts";
import { familyOf } from "../ip.ts";
import type { Wanted } from "../mapping.ts";
import { NatPmpClient } from "../natpmp/client.ts";
import { PcpClient } from "../pcp/client.ts";
import { misfitOfIgd } from "../upnp/misfit.ts";
import type { Protocol } from "./client.ts";
import { LateClient } from "./late.ts";
import { IGD_SEARCH } from "./upnp_search.ts";

/** PCP's result codes 1, 2, 3 and 4: of version, authorization, request and opcode. */
const PCP_WAYS_AROUND: readonly number[] = [1, 2, 3, 4];

/** UPnP's codes of actions that the device does not have, or does not let us have. */
const UPNP_WAYS_AROUND: readonly number[] = [0, 401, 402, 501, 602, 606];

/**
 * The protocols.
 *
 * NOT_AUTHORIZED is a way around: to a program that lost its nonce the gateway refuses what it
 * mapped itself before, by PCP alone.
 */
export const PROTOCOLS: { readonly [via in Via]?: Protocol } = {
  pcp: {
    make: ({ gateway, localAddress, random, fastStart }) =>
      new PcpClient({ servers: [gateway], localAddress, random, fastStart }),
    begins: "map",
    crossesNat: true,
    headStartRoundTrips: 0,
    waysAround: PCP_WAYS_AROUND,
    suggests: "endpoint",
    tellsAddressBy: "mapping",
    // miniupnpd announces by PCP alone, whatever it holds.
    isAnnouncement: (data) => data[0] === 2 && data[1] === 0x80,
  },
  "nat-pmp": {
    make: ({ gateway, random }) =>
      familyOf(gateway.address) === 4 ? new NatPmpClient({ gateway, random }) : undefined,
    begins: "probe",
    crossesNat: true,
    headStartRoundTrips: 0,
    waysAround: [],
    suggests: "port",
    tellsAddressBy: "probe",
  },
  upnp: {
    make: (options, code) => {
      const family = familyOf(options.gateway.address);
      const misfit = (wanted: Wanted) => misfitOfIgd(wanted, family);
      return new LateClient("upnp", misfit, options, code, IGD_SEARCH);
    },
    begins: "probe",
    checksItself: true,
    // PCP is granted after one; the other is for a packet that was slow.
    headStartRoundTrips: 2,
    waysAround: UPNP_WAYS_AROUND,
    suggests: "port",
    tellsAddressBy: "probe",
  },
};

/** Whether a datagram may be a gateway's word, by any protocol, that it has begun anew. */
export function isAnnouncement(data: Uint8Array): boolean {
  return Object.values(PROTOCOLS).some((one) => one.isAnnouncement?.(data));
}

/**
 * What is spoken from an address where nothing is said. NAT-PMP and UPnP's port mappings are for
 * IPv4 addresses behind a NAT (PMP-C-02); over IPv6 UPnP has pinholes. The RFC names its three
 * private ranges; here all but global addresses count, since shared (100.64/10) and loopback ones
 * have gateways, too: a carrier's, and the simulated one.
 */
export function defaultProtocols(localAddress: string): Via[] {
  if (familyOf(localAddress) === 6) return PREFERENCE.filter((via) => via !== "nat-pmp");
  return classify(localAddress) === "global" ? ["pcp"] : [...PREFERENCE];
}
