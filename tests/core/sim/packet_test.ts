import { describe, it } from "node:test";
import { assertEquals } from "@std/assert";
import {
  describePacket,
  INITIAL_HOPS,
  isLinkLocal6,
  isMulticast,
  type Packet,
  packetSize,
  portUnreachable,
  protocolNumber,
  resetOf,
} from "../../../core/sim/packet.ts";

const A = { address: "192.0.2.1", port: 1000 }, B = { address: "192.0.2.2", port: 2000 };
const A6 = { address: "2001:db8::1", port: 1000 }, B6 = { address: "2001:db8::2", port: 2000 };

function packetOf(protocol: "udp" | "tcp", isIPv6: boolean): Packet {
  const [from, to] = isIPv6 ? [A6, B6] : [A, B];
  return { protocol, from, to, data: new Uint8Array(100), hops: 7 };
}

describe("a packet", () => {
  it("has on the wire the headers of its protocol and family, ICMP those of what it is about", () => {
    const sizes = [false, true].map((isIPv6) => {
      const udp = packetOf("udp", isIPv6), tcp = packetOf("tcp", isIPv6);
      return [udp, tcp, portUnreachable(udp)!].map(packetSize);
    });
    assertEquals(sizes, [[128, 140, 56], [148, 160, 96]]);
  });

  it("has IANA's number of its protocol", () => {
    const numbers = [false, true].map((isIPv6) => {
      const udp = packetOf("udp", isIPv6);
      return [udp, packetOf("tcp", isIPv6), portUnreachable(udp)!].map(protocolNumber);
    });
    assertEquals(numbers, [[17, 6, 1], [17, 6, 58]]);
  });

  it("that nobody takes comes back as ICMP with what it was, ICMP itself as nothing", () => {
    const packet = packetOf("udp", false), message = portUnreachable(packet);
    assertEquals(message, {
      protocol: "icmp",
      from: { address: B.address, port: 0 },
      to: { address: A.address, port: 0 },
      data: new Uint8Array(0),
      hops: INITIAL_HOPS,
      quoted: { protocol: "udp", from: A, to: B },
    });
    assertEquals(portUnreachable(message!), undefined);
    assertEquals(
      [packet, message!].map(describePacket),
      [
        "192.0.2.1:1000 → 192.0.2.2:2000 udp",
        "192.0.2.2 → 192.0.2.1 icmp unreachable (192.0.2.1:1000 → 192.0.2.2:2000)",
      ],
    );
  });

  it("of a stream that nobody takes is reset, a reset is not", () => {
    const packet = packetOf("tcp", false);
    const reset = resetOf({ ...packet, segment: { kind: "data", part: 3, parts: 9 } });
    assertEquals(reset, {
      protocol: "tcp",
      from: B,
      to: A,
      data: new Uint8Array(0),
      hops: INITIAL_HOPS,
      segment: { kind: "rst", part: 0, parts: 0 },
    });
    assertEquals([resetOf(reset!), resetOf(packet)], [undefined, undefined]);
  });
});

describe("an address", () => {
  it("is a group's from 224 to 239, and from ff00:: on", () => {
    const groups = [
      "223.255.255.255",
      "224.0.0.0",
      "239.255.255.255",
      "240.0.0.0",
      "22.4.0.1",
      "2.240.0.1",
      "ff02::1",
      "fe80::1",
    ].filter(isMulticast);
    assertEquals(groups, ["224.0.0.0", "239.255.255.255", "ff02::1"]);
  });

  it("is link-local in fe80::/10", () => {
    const local = ["fe7f::1", "fe80::1", "fe9f::1", "febf::1", "fec0::1", "fe8::1", "2001:fe80::1"]
      .filter(isLinkLocal6);
    assertEquals(local, ["fe80::1", "fe9f::1", "febf::1"]);
  });
});
