/**
 * Gateways as they were met in the field: named data, each with the device and who told of it.
 * "peers.md row N" counts the quirks of the survey that this list was made from.
 *
 * @module
 */
import { NATPMP_RESULT } from "../natpmp/codec.ts";
import { PCP_RESULT } from "../pcp/constants.ts";
import { IGD_PROFILES } from "./igd_profiles.ts";
import type { Profile } from "./profile.ts";

const DAY_SECONDS = 86_400;
const WEEK_SECONDS = 604_800;
const LONGEST_SECONDS = 0xffff_ffff;

/** In NAT-PMP's UNSUPP_VERSION the field has 128 + opcode where RFC 6886's figure has 0. */
const ECHO_OPCODE = {
  when: { protocol: "nat-pmp", results: [NATPMP_RESULT.UNSUPP_VERSION], isReply: true },
  then: [{ kind: "echo-opcode" }],
} as const;

const LIST: readonly Profile[] = [
  {
    name: "fritzbox-6360",
    device: "AVM Fritz!Box 6360 Cable",
    source: "syncthing#10618 (peers.md row 1)",
    summary: "speaks PCP; a NAT-PMP request gets the first 12 bytes of PCP's UNSUPP_VERSION",
    protocols: ["pcp"],
    replies: [{
      when: { protocol: "pcp", results: [PCP_RESULT.UNSUPP_VERSION] },
      then: [{ kind: "cut", length: 12 }],
    }],
  },
  {
    name: "archer-a7",
    device: "TP-Link Archer A7",
    source: "libplum#49 (peers.md row 2)",
    summary: "speaks NAT-PMP; every error, to PCP too, is 8 bytes long",
    protocols: ["nat-pmp"],
    replies: [
      ECHO_OPCODE,
      { when: { protocol: "nat-pmp", isError: true }, then: [{ kind: "cut", length: 8 }] },
    ],
  },
  {
    name: "two-byte-replies",
    device: "unnamed router",
    source: "lnd#2008 (peers.md row 3)",
    summary: "NAT-PMP replies are 2 bytes long: version and opcode, nothing else",
    protocols: ["nat-pmp"],
    replies: [{
      when: { protocol: "nat-pmp", isReply: true },
      then: [{ kind: "cut", length: 2 }],
    }],
  },
  {
    name: "verizon-cr1000a",
    device: "Verizon CR1000A",
    source: "bitcoin#31663 (peers.md row 4)",
    summary: "PCP gets UNSUPP_VERSION, NAT-PMP works",
    protocols: ["nat-pmp"],
    replies: [ECHO_OPCODE],
  },
  {
    name: "huawei-hg8145v5",
    device: "Huawei HG8145V5",
    source: "bitcoin#31663 (peers.md row 5)",
    summary: "nothing listens on port 5351: ICMP port unreachable",
    isUnreachable: true,
  },
  {
    name: "routeros",
    device: "MikroTik RouterOS 7",
    source: "tailscale#13785, tailscale#11403 (peers.md row 6); its result code is not told there",
    summary: "NAT-PMP refuses the suggested external port 0",
    protocols: ["nat-pmp"],
    requests: [{
      when: { via: "nat-pmp", operations: ["map"], suggestsPort: false },
      then: { kind: "refuse", code: NATPMP_RESULT.OUT_OF_RESOURCES },
    }],
  },
  {
    name: "address-mismatch",
    device: "gateways behind a NAT of their own, unnamed",
    source: "a comment in Tailscale's portmapper (peers.md row 7)",
    summary: "PCP MAP and PEER get ADDRESS_MISMATCH, NAT-PMP works",
    requests: [{
      when: { via: "pcp", operations: ["map", "peer", "delete"] },
      then: { kind: "refuse", code: PCP_RESULT.ADDRESS_MISMATCH },
    }],
  },
  {
    name: "not-authorized",
    device: "gateways with mapping switched off, unnamed",
    source: "tailscale#1525 (peers.md row 7)",
    summary: "every mapping request gets NOT_AUTHORIZED, by both protocols",
    requests: [{
      when: { operations: ["map", "peer", "delete", "delete-all"] },
      then: { kind: "refuse", code: PCP_RESULT.NOT_AUTHORIZED },
    }],
  },
  {
    name: "opnsense",
    device: "OPNsense with miniupnpd over pf",
    source: "opnsense/plugins#4010, bitcoin#30043 (peers.md row 8)",
    summary: "renewing an IPv6 PCP mapping gets NO_RESOURCES",
    requests: [{
      when: { via: "pcp", operations: ["map"], family: 6, exists: true },
      then: { kind: "refuse", code: PCP_RESULT.NO_RESOURCES },
    }],
  },
  {
    name: "miniupnpd",
    device: "miniupnpd 2.3.11",
    source: "its source (peers.md row 9)",
    summary:
      "PCP lifetimes from 120 s to 7 days; NAT-PMP announcements to ports 5350 and 5351; the " +
      "opcode is echoed in UNSUPP_VERSION",
    natPmp: { maxLifetimeSeconds: LONGEST_SECONDS },
    pcp: {
      minLifetimeSeconds: 120,
      minPeerLifetimeSeconds: 120,
      maxLifetimeSeconds: WEEK_SECONDS,
    },
    extraAnnouncePorts: [5351],
    replies: [ECHO_OPCODE],
  },
  {
    name: "miniupnpd-2.3.1",
    device: "miniupnpd 2.3.1 as in Debian 12",
    source: "seen in the lab (lab.md), its source (specs.md §1.7)",
    summary:
      "PCP: 120…86400 s, no PORT_SET or DESCRIPTION padding, any nonce renews, deleting nothing " +
      "is NO_RESOURCES, ill-sized requests get a version-0 header. NAT-PMP: 8-byte errors, ports " +
      "searched upwards, delete-all takes both protocols, takes over what PCP mapped. UPnP: 718 for " +
      "another host's address, deleting nothing works",
    natPmp: {
      maxLifetimeSeconds: LONGEST_SECONDS,
      portChoice: "upwards",
      deletes: "own",
      deleteAll: "both",
      takesOver: true,
      announceCopies: 1,
      announcesStart: false,
    },
    pcp: {
      minLifetimeSeconds: 120,
      minPeerLifetimeSeconds: 120,
      maxLifetimeSeconds: DAY_SECONDS,
      announceCopies: 1,
    },
    upnp: { version: 2, habits: { foreignFault: 718, deletesNothing: true } },
    resetsEpochOnNewAddress: true,
    illSizedReply: [0x00, 0x80, 0x00, 0x03],
    requests: [
      {
        when: { via: "pcp", hasPadding: true },
        then: { kind: "refuse", code: PCP_RESULT.MALFORMED_OPTION },
      },
      {
        when: { via: "pcp", isPeer: true, family: 6 },
        then: { kind: "refuse", code: PCP_RESULT.UNSUPP_OPCODE },
      },
      {
        when: { via: "pcp", isPeer: true, operations: ["delete"] },
        then: { kind: "refuse", code: PCP_RESULT.NO_RESOURCES },
      },
      {
        // What NAT-PMP took over is NAT-PMP's.
        when: { via: "pcp", operations: ["delete"], isForeign: true },
        then: { kind: "refuse", code: PCP_RESULT.NOT_AUTHORIZED },
      },
      {
        when: { via: "pcp", operations: ["delete"], exists: false },
        then: { kind: "refuse", code: PCP_RESULT.NO_RESOURCES },
      },
      {
        when: { via: "pcp", operations: ["map"], family: 6, exists: true },
        then: { kind: "reshape", changes: [{ kind: "external-port", port: 0 }], adoptsNonce: true },
      },
      {
        // PREFER_FAILURE is honoured for a wrong address, not for a port in use.
        when: { via: "pcp", operations: ["map"], exists: false, isPortTaken: true },
        then: { kind: "ignore-prefer-failure" },
      },
      {
        when: { via: "pcp", operations: ["map"], exists: true, isNonceRight: false },
        then: { kind: "reshape", changes: [], adoptsNonce: true },
      },
    ],
    replies: [
      ECHO_OPCODE,
      {
        when: { protocol: "nat-pmp", results: [NATPMP_RESULT.UNSUPP_OPCODE] },
        then: [{ kind: "cut", length: 8 }],
      },
      {
        when: {
          protocol: "nat-pmp",
          opcodes: [1, 2],
          results: [NATPMP_RESULT.OUT_OF_RESOURCES],
        },
        then: [{ kind: "result", code: NATPMP_RESULT.NETWORK_FAILURE }],
      },
      {
        when: { protocol: "pcp", results: [PCP_RESULT.UNSUPP_VERSION] },
        then: [{ kind: "lifetime", seconds: 0 }],
      },
    ],
  },
  {
    name: "miniupnpd-1.8",
    device: "miniupnpd 1.8.20140523 as in Ubuntu 16.04",
    source: "miniupnp#196, miniupnp#89 (peers.md row 10)",
    summary: "both ports of a NAT-PMP mapping reply lose their upper 8 bits; the mapping is right",
    replies: [
      ECHO_OPCODE,
      { when: { protocol: "nat-pmp" }, then: [{ kind: "mask-ports", mask: 0xff }] },
    ],
  },
  {
    name: "no-external-address",
    device: "unnamed gateways",
    source: "libnatpmp#16 (peers.md row 11)",
    summary: "NAT-PMP and UPnP succeed and tell 0.0.0.0 for the external address",
    upnp: { connections: [{ address: "0.0.0.0" }] },
    replies: [{
      when: { protocol: "nat-pmp", opcodes: [0] },
      then: [{ kind: "external-address", address: "0.0.0.0" }],
    }],
  },
  {
    name: "private-external-address",
    device: "unnamed gateways",
    source: "libnatpmp#16 (peers.md row 11)",
    summary: "all protocols tell a private external address: another NAT stands above",
    upnp: { connections: [{ address: "10.64.0.2" }] },
    replies: [{
      when: { isError: false },
      then: [{ kind: "external-address", address: "10.64.0.2" }],
    }],
  },
  {
    name: "asus",
    device: "ASUS routers",
    source: "tailscale#10597 (peers.md row 12)",
    summary: "loses its table in silence every 600 s while it has more than 20 mappings",
    forgets: { everySeconds: 600, above: 20 },
  },
  {
    name: "protonvpn",
    device: "ProtonVPN's gateways",
    source: "its users' guides (peers.md row 13)",
    summary: "NAT-PMP alone, with a lifetime of at most 60 s",
    protocols: ["nat-pmp"],
    natPmp: { maxLifetimeSeconds: 60 },
  },
  {
    name: "strict-nonce",
    device: "miniupnpd since 2024 and every server that keeps to RFC 6887",
    source: "tailscale#21277, libpcpnatpmp#40 (peers.md row 14)",
    summary: "PCP alone; another nonce neither renews nor deletes a mapping: NOT_AUTHORIZED",
    protocols: ["pcp"],
    requests: [{
      when: { via: "pcp", exists: true, isNonceRight: false },
      then: { kind: "refuse", code: PCP_RESULT.NOT_AUTHORIZED },
    }],
  },
  {
    name: "vpn-tunnel",
    device: "VPN providers' gateways at the far end of a tunnel",
    source: "gluetun#1697, Start9#3410, Start9#3417 (peers.md row 15)",
    summary: "answers NAT-PMP although it is not the default route of the host's own network",
    protocols: ["nat-pmp"],
    natPmp: { maxLifetimeSeconds: 60 },
    tunnelAddress: "10.2.0.1",
  },
  {
    name: "pcp-silent",
    device: "gateways that know NAT-PMP alone, unnamed",
    source: "nobody by name: what does not know version 2 may drop it",
    summary: "drops PCP in silence, NAT-PMP works",
    protocols: ["nat-pmp"],
    isDeafToPcp: true,
  },
];

/** Every profile by name. */
export const PROFILES: Readonly<Record<string, Profile>> = Object.freeze(
  Object.fromEntries([...LIST, ...IGD_PROFILES].map((profile) => [profile.name, profile])),
);

/**
 * The profile of that name.
 *
 * @throws {TypeError} Where no profile has that name; the message lists those that do.
 */
export function profileNamed(name: string): Profile {
  const profile = Object.hasOwn(PROFILES, name) ? PROFILES[name] : undefined;
  if (profile) return profile;
  const names = Object.keys(PROFILES).join(", ");
  throw new TypeError(`'profile' must be one of ${names}: current value is "${name}"`);
}
