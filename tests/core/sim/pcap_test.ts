import { describe, it } from "node:test";
import { assertEquals, assertMatch, assertThrows } from "@std/assert";
import { fromHex, toHex, u16 } from "../../../core/bytes.ts";
import { encodePcap, type Packet, World } from "../../../core/sim/mod.ts";
import { encodeIpPacket } from "../../../core/sim/pcap.ts";
import { Trace } from "../../../core/sim/trace.ts";

const DATA = fromHex("0000");
const V4: Packet = {
  protocol: "udp",
  from: { address: "192.168.1.100", port: 40000 },
  to: { address: "192.168.1.1", port: 5351 },
  data: DATA,
  hops: 64,
};

/** The Internet checksum of all 16-bit words, which is 0 over a correct header (RFC 1071). */
function verify(...parts: Uint8Array[]): number {
  let sum = 0;
  for (const part of parts) {
    const even = part.length % 2 === 0 ? part : new Uint8Array([...part, 0]);
    for (let i = 0; i < even.length; i += 2) sum += u16(even, i);
  }
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16);
  return ~sum & 0xffff;
}

describe("encodeIpPacket()", () => {
  it("writes IPv4 and UDP with checksums that verify", () => {
    const bytes = encodeIpPacket(V4);
    assertEquals(toHex(bytes.subarray(0, 10)), "4500001e000040004011");
    assertEquals(verify(bytes.subarray(0, 20)), 0);
    assertEquals(toHex(bytes.subarray(20, 26)), "9c4014e7000a");
    const pseudo = new Uint8Array([...bytes.subarray(12, 20), 0, 17, 0, 10]);
    assertEquals(verify(pseudo, bytes.subarray(20)), 0);
  });

  it("carries the checksum's last carry over, whose sum is a power of two then", () => {
    const checksumOf = (word: number) =>
      u16(encodeIpPacket({ ...V4, data: Uint8Array.of(word >> 8, word & 255) }), 26);
    const sum = ~checksumOf(0) & 0xffff;
    assertEquals(checksumOf(0x10000 - sum), 0xfffe);
    assertEquals(checksumOf(0xffff - sum - 1), 1);
  });

  it("writes IPv6 and UDP of odd length", () => {
    const bytes = encodeIpPacket({
      ...V4,
      from: { address: "fe80::2", port: 1 },
      to: { address: "ff02::1", port: 5350 },
      data: fromHex("010203"),
    });
    assertEquals(toHex(bytes.subarray(0, 8)), "60000000000b1140");
    const pseudo = new Uint8Array([...bytes.subarray(8, 40), 0, 0, 0, 11, 0, 0, 0, 17]);
    assertEquals(verify(pseudo, bytes.subarray(40)), 0);
  });

  it("writes TCP with a header of five words, and checksums that verify", () => {
    const bytes = encodeIpPacket({ ...V4, protocol: "tcp", data: fromHex("010203") });
    assertEquals(toHex(bytes.subarray(0, 10)), "4500002b000040004006");
    assertEquals(verify(bytes.subarray(0, 20)), 0);
    assertEquals(toHex(bytes.subarray(20, 36)), "9c4014e7000000000000000050000000");
    const pseudo = new Uint8Array([...bytes.subarray(12, 20), 0, 6, 0, 23]);
    assertEquals(verify(pseudo, bytes.subarray(20)), 0);
    assertEquals(toHex(bytes.subarray(40)), "010203");
  });

  it("writes ICMP port unreachable of both families, the offending packet's headers quoted", () => {
    // What is quoted arrived: with a hop left, the port that was asked for, and no data.
    for (
      const [from, to, type, headers] of [
        ["10.0.0.1", "10.0.0.2", "0303", {
          udp: "4500001c000040000111",
          tcp: "4500001c000040000106",
        }],
        ["2001:db8::1", "2001:db8::2", "0104", {
          udp: "6000000000081101",
          tcp: "6000000000080601",
        }],
      ] as const
    ) {
      for (const protocol of ["udp", "tcp"] as const) {
        const bytes = encodeIpPacket({
          protocol: "icmp",
          from: { address: from, port: 0 },
          to: { address: to, port: 0 },
          data: new Uint8Array(0),
          hops: 64,
          quoted: {
            protocol,
            from: { address: to, port: 40000 },
            to: { address: from, port: 5351 },
          },
        });
        const isIPv4 = type === "0303", header = isIPv4 ? 20 : 40;
        const message = bytes.subarray(header), quoted = message.subarray(8);
        assertEquals(toHex(message.subarray(0, 2)), type);
        assertEquals(toHex(message.subarray(4, 8)), "00000000");
        assertEquals(toHex(quoted.subarray(0, headers[protocol].length / 2)), headers[protocol]);
        assertEquals(toHex(quoted.subarray(header)), "9c4014e700080000");
        const sums = isIPv4
          ? [verify(bytes.subarray(0, 20)), verify(quoted.subarray(0, 20)), verify(message)]
          : [verify(
            new Uint8Array([...bytes.subarray(8, 40), 0, 0, 0, message.length, 0, 0, 0, 58]),
            message,
          )];
        assertEquals(sums, isIPv4 ? [0, 0, 0] : [0]);
      }
    }
  });
});

describe("encodePcap()", () => {
  it("writes the classic header with LINKTYPE_RAW and a record a packet", () => {
    const file = encodePcap([{ at: 1500.25, packet: V4 }]);
    assertEquals(
      toHex(file.subarray(0, 24)),
      "d4c3b2a1020004000000000000000000ffff000065000000",
    );
    assertEquals(toHex(file.subarray(24, 40)), "0100000" + "01aa207001e0000001e000000");
    assertEquals(toHex(file.subarray(40)), toHex(encodeIpPacket(V4)));
    const longer = { ...V4, data: new Uint8Array(9) };
    const records = [V4, longer].map((packet) => encodePcap([{ at: 7, packet }]).subarray(24));
    const both = encodePcap([{ at: 7, packet: V4 }, { at: 7, packet: longer }]);
    assertEquals(toHex(both.subarray(24)), records.map(toHex).join(""));
  });
});

describe("Trace", () => {
  function run(size: number) {
    const world = new World({
      trace: { size, decode: (data) => data.length === 1 ? `number ${data[0]}` : undefined },
    });
    const lan = world.segment("lan");
    const [a, b] = [world.host("a"), world.host("b")];
    a.attach(lan, "10.0.0.1");
    b.attach(lan, "10.0.0.2");
    b.bind({ port: 2 });
    const socket = a.bind({ port: 9 });
    for (let i = 0; i < 5; i++) socket.send({ address: "10.0.0.2", port: 2 }, Uint8Array.of(i));
    world.runFor(10);
    world.note("half time");
    socket.send({ address: "10.0.0.2", port: 3 }, new Uint8Array(30));
    world.runFor(10);
    return world.trace;
  }

  it("tells a line a packet, decoded where the decoder can, and notes", () => {
    const lines = run(100).text().split("\n");
    assertEquals(lines.length, 9);
    assertEquals(
      lines[0],
      "      0.000000 lan        10.0.0.1:9 → 10.0.0.2:2 udp number 0 : delivered",
    );
    assertEquals(lines[5], "      0.010000 world      -- half time");
    assertMatch(lines[6]!, /udp 30 B (00){24}… : delivered$/);
    assertMatch(lines[7]!, /0\.011000 b +10\.0\.0\.1:9 → 10\.0\.0\.2:3 udp .* : closed$/);
    assertMatch(lines[8]!, /icmp unreachable \(10\.0\.0\.1:9 → 10\.0\.0\.2:3\) : delivered$/);
  });

  it("keeps the last entries, bounded", () => {
    const trace = run(3);
    assertEquals([trace.entries().length, trace.forgotten], [3, 6]);
    assertMatch(trace.text(), /^.* 30 B .*\n.*closed\n.*icmp/);
    assertEquals(trace.text(1).split("\n").length, 1);
  });

  it("shows 24 bytes of what it does not decode, and that there are more", () => {
    const trace = new Trace({ size: 5 });
    const from = { address: "10.0.0.1", port: 9 }, to = { address: "10.0.0.2", port: 2 };
    const words = [24, 25].map((length) => {
      const packet = { protocol: "udp", from, to, data: new Uint8Array(length), hops: 1 } as const;
      return trace.format({ at: 1, where: "a", onLink: false, packet, verdict: "closed" });
    });
    const head = "      0.001000 a          10.0.0.1:9 → 10.0.0.2:2 udp ";
    const bytes = "00".repeat(24);
    assertEquals(words, [
      `${head}24 B ${bytes} : closed`,
      `${head}25 B ${bytes}… : closed`,
    ]);
  });

  it("tells events as JSON, with bytes in hexadecimal", () => {
    const trace = new Trace({ size: 1 });
    const event = { type: "told", data: Uint8Array.of(1, 255) };
    trace.event(2500, "client", event);
    assertEquals(trace.text(), '      2.500000 client     == {"type":"told","data":"01ff"}');
    assertEquals(trace.entries(), [{ at: 2500, where: "client", note: "event", event }]);
  });

  it("keeps none to ten million entries, oldest first, and counts those that it forgot", () => {
    for (const size of [-1, 10_000_001]) {
      assertThrows(() => new Trace({ size }), RangeError, "'size'");
    }
    for (const size of [0, 10_000_000]) assertEquals(new Trace({ size }).isOn, size > 0);
    const trace = new Trace({ size: 3 });
    const kept = [1, 2, 3, 4, 5].map((i) => {
      trace.note(i, "a", `${i}`);
      return [trace.entries().map(({ at }) => at).join(" "), trace.forgotten];
    });
    assertEquals(kept, [["1", 0], ["1 2", 0], ["1 2 3", 0], ["2 3 4", 1], ["3 4 5", 2]]);
    const lines = [0, 2, 3, 4].map((count) => trace.text(count).split("\n").at(0));
    const line = (i: number) => `      0.00${i}000 a          -- ${i}`;
    assertEquals(lines, ["", line(4), line(3), line(3)]);
  });

  it("is off unless asked for", () => {
    const trace = run(0);
    assertEquals([trace.isOn, trace.text(), trace.pcap().length], [false, "", 24]);
  });

  it("gives what crossed a segment as pcap", () => {
    const trace = run(100);
    const size = 24 + 5 * (16 + 29) + (16 + 58) + (16 + 56);
    assertEquals(trace.pcap().length, size);
    assertEquals(trace.pcap("lan").length, size);
    assertEquals(trace.pcap("elsewhere").length, 24);
  });
});
