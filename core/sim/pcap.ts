/**
 * Classic pcap files with raw IP packets (LINKTYPE_RAW, 101): the IPv4, IPv6, UDP and ICMP headers
 * that a virtual packet lacks are made up here, checksums included, so that analysers find nothing
 * to complain about.
 *
 * @module
 */
import { putU16, putU32, u16 } from "../bytes.ts";
import { parseIp } from "../ip.ts";
import type { Endpoint, Instant } from "../machine.ts";
import { type Packet, protocolNumber } from "./packet.ts";

/** A packet with its time. */
export interface PcapRecord {
  /** Virtual time, milliseconds; shows as seconds since 1970. */
  readonly at: Instant;
  /** The packet. */
  readonly packet: Packet;
}

const LINKTYPE_RAW = 101;
const SNAP_LENGTH = 65535;

/**
 * A pcap file (little-endian, microseconds).
 *
 * @example
 * ```ts
 * import { encodePcap } from "@natkit/natkit/testing";
 * console.assert(encodePcap([]).length === 24);
 * ```
 */
export function encodePcap(records: readonly PcapRecord[]): Uint8Array {
  const packets = records.map((record) => encodeIpPacket(record.packet));
  const size = packets.reduce((sum, packet) => sum + 16 + packet.length, 24);
  const file = new Uint8Array(size);
  const view = new DataView(file.buffer);
  view.setUint32(0, 0xa1b2c3d4, true);
  view.setUint16(4, 2, true);
  view.setUint16(6, 4, true);
  view.setUint32(16, SNAP_LENGTH, true);
  view.setUint32(20, LINKTYPE_RAW, true);
  let offset = 24;
  records.forEach(({ at }, i) => {
    const packet = packets[i]!;
    const micros = Math.round(at * 1000);
    view.setUint32(offset, Math.floor(micros / 1_000_000), true);
    view.setUint32(offset + 4, micros % 1_000_000, true);
    view.setUint32(offset + 8, packet.length, true);
    view.setUint32(offset + 12, packet.length, true);
    file.set(packet, offset + 16);
    offset += 16 + packet.length;
  });
  return file;
}

/** A packet as the bytes of an IP packet, headers and checksums included. */
export function encodeIpPacket(packet: Packet): Uint8Array {
  const from = parseIp(packet.from.address)!, to = parseIp(packet.to.address)!;
  const protocol = protocolNumber(packet);
  const body = encodeTransport(packet, from, to, protocol);
  return ip(from, to, protocol, packet.hops, body);
}

function ip(
  from: Uint8Array,
  to: Uint8Array,
  protocol: number,
  hops: number,
  body: Uint8Array,
): Uint8Array {
  const isIPv4 = from.length === 4;
  const header = isIPv4 ? 20 : 40;
  const bytes = new Uint8Array(header + body.length);
  if (isIPv4) {
    bytes[0] = 0x45;
    putU16(bytes, 2, bytes.length);
    bytes[6] = 0x40; // don't fragment
    bytes[8] = hops;
    bytes[9] = protocol;
    bytes.set(from, 12);
    bytes.set(to, 16);
    putU16(bytes, 10, checksum(bytes.subarray(0, 20), 0));
  } else {
    bytes[0] = 0x60;
    putU16(bytes, 4, body.length);
    bytes[6] = protocol;
    bytes[7] = hops;
    bytes.set(from, 8);
    bytes.set(to, 24);
  }
  bytes.set(body, header);
  return bytes;
}

function encodeTransport(
  packet: Packet,
  from: Uint8Array,
  to: Uint8Array,
  protocol: number,
): Uint8Array {
  if (packet.protocol === "udp") {
    const body = udp(packet.from, packet.to, packet.data);
    const sum = checksum(body, pseudoHeader(from, to, protocol, body.length));
    putU16(body, 6, sum === 0 ? 0xffff : sum);
    return body;
  }
  if (packet.protocol === "tcp") {
    const body = new Uint8Array(20 + packet.data.length);
    putU16(body, 0, packet.from.port);
    putU16(body, 2, packet.to.port);
    body[12] = 0x50;
    body.set(packet.data, 20);
    putU16(body, 16, checksum(body, pseudoHeader(from, to, protocol, body.length)));
    return body;
  }
  const isIPv4 = from.length === 4;
  const quoted = packet.quoted
    ? ip(
      parseIp(packet.quoted.from.address)!,
      parseIp(packet.quoted.to.address)!,
      packet.quoted.protocol === "udp" ? 17 : 6,
      1,
      udp(packet.quoted.from, packet.quoted.to, new Uint8Array(0)),
    )
    : new Uint8Array(0);
  const body = new Uint8Array(8 + quoted.length);
  body[0] = isIPv4 ? 3 : 1;
  body[1] = isIPv4 ? 3 : 4;
  body.set(quoted, 8);
  // ICMP has no pseudo header, ICMPv6 has (RFC 792, RFC 4443 §2.3).
  const start = isIPv4 ? 0 : pseudoHeader(from, to, protocol, body.length);
  putU16(body, 2, checksum(body, start));
  return body;
}

function udp(from: Endpoint, to: Endpoint, data: Uint8Array): Uint8Array {
  const bytes = new Uint8Array(8 + data.length);
  putU16(bytes, 0, from.port);
  putU16(bytes, 2, to.port);
  putU16(bytes, 4, bytes.length);
  bytes.set(data, 8);
  return bytes;
}

/** The unfolded sum of the pseudo header of RFC 768 and RFC 8200 §8.1. */
function pseudoHeader(
  from: Uint8Array,
  to: Uint8Array,
  protocol: number,
  length: number,
): number {
  const bytes = new Uint8Array(2 * from.length + 8);
  bytes.set(from, 0);
  bytes.set(to, from.length);
  putU32(bytes, 2 * from.length, length);
  bytes[bytes.length - 1] = protocol;
  return sum16(bytes);
}

function sum16(bytes: Uint8Array): number {
  let sum = 0;
  for (let i = 0; i + 1 < bytes.length; i += 2) sum += u16(bytes, i);
  if (bytes.length % 2 === 1) sum += bytes[bytes.length - 1]! << 8;
  return sum;
}

/** The Internet checksum (RFC 1071). */
function checksum(bytes: Uint8Array, start: number): number {
  let sum = start + sum16(bytes);
  while (sum > 0xffff) sum = (sum & 0xffff) + Math.floor(sum / 0x1_0000);
  return ~sum & 0xffff;
}
