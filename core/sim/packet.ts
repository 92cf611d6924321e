/**
 * What travels in the virtual network, and the words for what became of it.
 *
 * @module
 */
import { formatEndpoint } from "../ip.ts";
import type { Endpoint } from "../machine.ts";
import { PROTOCOL_NUMBER, type Transport } from "../mapping.ts";

/** What a packet carries. */
export type PacketProtocol = Transport | "icmp";

/** The header of the packet that an ICMP message is about. */
export interface QuotedPacket {
  /** Its transport. */
  readonly protocol: Transport;
  /** Its source. */
  readonly from: Endpoint;
  /** Its destination. */
  readonly to: Endpoint;
}

/** What a packet is to the HTTP exchange that it belongs to. */
export interface HttpSegment {
  /** Connect, connected, a part, a part that came, nobody listens. */
  readonly kind: "syn" | "syn-ack" | "data" | "ack" | "rst";
  /** Which part, from 0. */
  readonly part: number;
  /** Of how many. */
  readonly parts: number;
}

/** One packet; never changed once sent, a NAT makes another. Addresses carry no zone. */
export interface Packet {
  /** `"icmp"` stands for port unreachable, the only kind there is. */
  readonly protocol: PacketProtocol;
  /** Source; the port is 0 in ICMP. */
  readonly from: Endpoint;
  /** Destination; the port is 0 in ICMP. */
  readonly to: Endpoint;
  /** The datagram, empty in ICMP. */
  readonly data: Uint8Array;
  /** How many routers it may still cross. */
  readonly hops: number;
  /** What an ICMP message is about. */
  readonly quoted?: QuotedPacket;
  /** What it is to an HTTP exchange, where it belongs to one. */
  readonly segment?: HttpSegment;
}

/** What became of a packet at one place. */
export type Verdict =
  /** It reached the other end of the link. */
  | "delivered"
  /** It reached the other end twice. */
  | "duplicated"
  /** The link lost it. */
  | "lost"
  /** It is larger than the link's MTU. */
  | "too-big"
  /** Nobody on the segment has the address, and there is no router. */
  | "no-route"
  /** It crossed too many routers. */
  | "hops-exceeded"
  /** A NAT has no mapping for it, or its filter refuses it. */
  | "blocked"
  /** A NAT that does not hairpin. */
  | "no-hairpin"
  /** A NAT has no port left. */
  | "no-ports"
  /** The host is suspended. */
  | "asleep"
  /** No socket is bound there. */
  | "closed"
  /** The socket is connected to someone else. */
  | "not-peer"
  /** The host that got it neither has the address nor routes. */
  | "not-mine";

/** A part of a stream fits a link's usual MTU. */
export const PART_BYTES = 1400;
/** How long a stream hears nothing before it says a part again, at first (RFC 6298). */
export const FIRST_RETRY_MS = 1000;
/** How many routers a fresh packet may cross. */
export const INITIAL_HOPS = 64;

const EMPTY = new Uint8Array(0);

/** IANA's number of a packet's protocol. */
export function protocolNumber(packet: Packet): number {
  if (packet.protocol !== "icmp") return PROTOCOL_NUMBER[packet.protocol];
  return packet.from.address.includes(":") ? 58 : 1;
}

/** The size on the wire with IP header, bytes (TCP: without options). */
export function packetSize(packet: Packet): number {
  const isIPv6 = packet.to.address.includes(":");
  const ip = isIPv6 ? 40 : 20;
  switch (packet.protocol) {
    case "udp":
      return ip + 8 + packet.data.length;
    case "tcp":
      return ip + 20 + packet.data.length;
    case "icmp":
      return ip + 8 + ip + 8;
  }
}

/** Whether an address without zone is a multicast group's. */
export function isMulticast(address: string): boolean {
  if (address.includes(":")) return address.startsWith("ff");
  const dot = address.indexOf(".");
  if (dot !== 3) return false;
  const first = Number(address.slice(0, 3));
  return first >= 224 && first <= 239;
}

/** Whether an address is in fe80::/10. */
export function isLinkLocal6(address: string): boolean {
  return /^fe[89ab][0-9a-f]:/.test(address);
}

/** The ICMP message that says: nothing listens where `about` went. */
export function portUnreachable(about: Packet): Packet | undefined {
  if (about.protocol === "icmp") return undefined;
  return {
    protocol: "icmp",
    from: { address: about.to.address, port: 0 },
    to: { address: about.from.address, port: 0 },
    data: EMPTY,
    hops: INITIAL_HOPS,
    quoted: { protocol: about.protocol, from: about.from, to: about.to },
  };
}

/** What says that nobody listens where `packet` went; undefined where that needs no answer. */
export function resetOf({ from, to, segment }: Packet): Packet | undefined {
  if (!segment || segment.kind === "rst") return undefined;
  const reset: HttpSegment = { kind: "rst", part: 0, parts: 0 };
  return { protocol: "tcp", from: to, to: from, data: EMPTY, hops: INITIAL_HOPS, segment: reset };
}

/** `192.0.2.1:5351 → 192.0.2.2:40000 udp`, ICMP with what it is about. */
export function describePacket(packet: Packet): string {
  if (!packet.quoted) {
    return `${formatEndpoint(packet.from)} → ${formatEndpoint(packet.to)} ${packet.protocol}`;
  }
  const { from, to } = packet.quoted;
  return `${packet.from.address} → ${packet.to.address} icmp unreachable ` +
    `(${formatEndpoint(from)} → ${formatEndpoint(to)})`;
}
