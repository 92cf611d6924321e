// The PCP packets that both the codec's and the client's tests are built on, each with its value.
import { fromHex } from "../../../core/bytes.ts";
import type { PcpRequest, PcpResponse } from "../../../core/pcp/codec.ts";

export interface Vector {
  readonly name: string;
  readonly bytes: Uint8Array;
  readonly request?: PcpRequest;
  readonly response?: PcpResponse;
}

export const NONCE: Uint8Array = fromHex("000102030405060708090a0b");

const CLIENT = "0000000000000000 0000ffff c0a80164";
const NONCE_HEX = "00010203 04050607 08090a0b";
const V4_ANY = "00000000 00000000 0000ffff 00000000";
const V4_EXTERNAL = "00000000 00000000 0000ffff cb007107";

const map = {
  kind: "map",
  lifetimeSeconds: 7200,
  clientAddress: "192.168.1.100",
  nonce: NONCE,
  protocol: 6,
  internalPort: 8080,
  suggestedPort: 0,
  suggestedAddress: "0.0.0.0",
  options: [],
} as const;

const udp5000 = { ...map, lifetimeSeconds: 600, protocol: 17, internalPort: 5000 } as const;

function mapHex(lifetime: string, protocol: string, ports: string, external: string): string {
  return `02010000 ${lifetime} ${CLIENT} ${NONCE_HEX} ${protocol}000000 ${ports} ${external}`;
}

export const VECTORS: readonly Vector[] = [
  {
    name: "V-PCP-1 ANNOUNCE request",
    bytes: fromHex(`02000000 00000000 ${CLIENT}`),
    request: { kind: "announce", lifetimeSeconds: 0, clientAddress: "192.168.1.100", options: [] },
  },
  {
    name: "V-PCP-2 ANNOUNCE restart",
    bytes: fromHex("02800000 00000000 00000000 00000000 00000000 00000000"),
    response: {
      kind: "announce",
      resultCode: 0,
      lifetimeSeconds: 0,
      epochSeconds: 0,
      options: [],
    },
  },
  {
    name: "V-PCP-3 MAP TCP 8080",
    bytes: fromHex(mapHex("00001c20", "06", "1f900000", V4_ANY)),
    request: map,
  },
  {
    name: "V-PCP-4 MAP success",
    bytes: fromHex(
      `02810000 00000e10 00003039 00000000 00000000 00000000 ${NONCE_HEX}
       06000000 1f909cbb ${V4_EXTERNAL}`,
    ),
    response: {
      kind: "map",
      resultCode: 0,
      lifetimeSeconds: 3600,
      epochSeconds: 12345,
      nonce: NONCE,
      protocol: 6,
      internalPort: 8080,
      externalPort: 40123,
      externalAddress: "203.0.113.7",
      options: [],
    },
  },
  {
    name: "V-PCP-5 renewal",
    bytes: fromHex(mapHex("00001c20", "06", "1f909cbb", V4_EXTERNAL)),
    request: { ...map, suggestedPort: 40123, suggestedAddress: "203.0.113.7" },
  },
  {
    name: "V-PCP-6 delete",
    bytes: fromHex(mapHex("00000000", "06", "1f900000", V4_ANY)),
    request: { ...map, lifetimeSeconds: 0 },
  },
  {
    name: "V-PCP-7 NOT_AUTHORIZED",
    bytes: fromHex(
      `02810002 00000708 0000303a 00000000 00000000 00000000 ${NONCE_HEX}
       06000000 1f900000 ${V4_ANY}`,
    ),
    response: {
      kind: "map",
      resultCode: 2,
      lifetimeSeconds: 1800,
      epochSeconds: 12346,
      nonce: NONCE,
      protocol: 6,
      internalPort: 8080,
      externalPort: 0,
      externalAddress: "0.0.0.0",
      options: [],
    },
  },
  {
    name: "V-PCP-8 PREFER_FAILURE",
    bytes: fromHex(mapHex("00001c20", "06", "00500050", V4_EXTERNAL) + "02000000"),
    request: {
      ...map,
      internalPort: 80,
      suggestedPort: 80,
      suggestedAddress: "203.0.113.7",
      options: [{ type: "prefer-failure" }],
    },
  },
  {
    name: "V-PCP-9 FILTER 198.51.100.0/24",
    bytes: fromHex(
      mapHex("00000258", "11", "13880000", V4_ANY) +
        "03000014 00780000 00000000 00000000 0000ffff c6336400",
    ),
    request: {
      ...udp5000,
      options: [{
        type: "filter",
        prefixLength: 120,
        remotePort: 0,
        remoteAddress: "198.51.100.0",
      }],
    },
  },
  {
    name: "V-PCP-10 THIRD_PARTY",
    bytes: fromHex(
      mapHex("00000258", "11", "13880000", V4_ANY) + "01000010 00000000 00000000 0000ffff c0a80132",
    ),
    request: {
      ...udp5000,
      options: [{ type: "third-party", internalAddress: "192.168.1.50" }],
    },
  },
  {
    name: "V-PCP-11 DESCRIPTION",
    bytes: fromHex(
      mapHex("00000258", "06", "63dd0000", V4_ANY) + "80000009 4d696e65 63726166 74000000",
    ),
    request: {
      ...map,
      lifetimeSeconds: 600,
      internalPort: 25565,
      options: [{ type: "description", text: "Minecraft" }],
    },
  },
  {
    name: "V-PCP-12 PORT_SET",
    bytes: fromHex(mapHex("00000258", "11", "17700000", V4_ANY) + "82000005 00101770 01000000"),
    request: {
      ...udp5000,
      internalPort: 6000,
      options: [{ type: "port-set", size: 16, firstInternalPort: 6000, parity: true }],
    },
  },
  {
    name: "V-PCP-13 PEER",
    bytes: fromHex(
      `02020000 00000258 ${CLIENT} ${NONCE_HEX} 06000000 c0000000 ${V4_ANY}
       01bb0000 00000000 00000000 0000ffff c6336414`,
    ),
    request: {
      ...map,
      kind: "peer",
      lifetimeSeconds: 600,
      internalPort: 49152,
      remotePort: 443,
      remoteAddress: "198.51.100.20",
    },
  },
  {
    name: "V-PCP-14 MAP IPv6",
    bytes: fromHex(
      `02010000 00001c20 20010db8 00000000 00000000 00000100 ${NONCE_HEX}
       06000000 00160000 00000000 00000000 00000000 00000000`,
    ),
    request: { ...map, clientAddress: "2001:db8::100", internalPort: 22, suggestedAddress: "::" },
  },
  {
    name: "V-PCP-15 UNSUPP_VERSION",
    bytes: fromHex("02800001 00000708 00000063 00000000 00000000 00000000"),
    response: {
      kind: "unsupported-version",
      version: 2,
      opcode: 0,
      lifetimeSeconds: 1800,
      epochSeconds: 99,
    },
  },
];
