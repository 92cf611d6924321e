/**
 * Candidates: priorities by RFC 8445's and RFC 6544's formulas, lines of SDP both ways, and where no
 * check may go.
 *
 * @module
 */
import { describe, it } from "node:test";
import { assert, assertEquals, assertNotEquals } from "@std/assert";
import {
  candidatePriority,
  canMeet,
  canPair,
  formatCandidate,
  Foundations,
  isSameCandidate,
  pairPriority,
  parseCandidate,
  tcpLocalPreference,
  typePreference,
  whyUnreachable,
} from "../../../core/ice/candidate.ts";

describe("priorities", () => {
  it("of candidates are RFC 8445 §5.1.2.1's", () => {
    assertEquals(candidatePriority(typePreference("host"), 65535), 2130706431);
    assertEquals(candidatePriority(typePreference("srflx"), 65535), 1694498815);
    assertEquals(candidatePriority(typePreference("prflx"), 65535), 1862270975);
    assertEquals(candidatePriority(typePreference("relay"), 0), 255);
  });

  it("of pairs are RFC 8445 §6.1.2.3's, exact beyond 2^53, and the same on both sides", () => {
    const [g, d] = [2130706431, 1694498815];
    assertEquals(pairPriority(g, d), (1694498815n << 32n) + 2n * 2130706431n + 1n);
    assertEquals(pairPriority(d, g), (1694498815n << 32n) + 2n * 2130706431n);
    assertEquals(pairPriority(g, g), (2130706431n << 32n) + 2n * 2130706431n);
  });

  it("of TCP candidates prefer by direction (RFC 6544 §4.2)", () => {
    assertEquals(tcpLocalPreference("host", "active", 8191), 6 * 8192 + 8191);
    assertEquals(tcpLocalPreference("host", "passive", 0), 4 * 8192);
    assertEquals(tcpLocalPreference("host", "so", 0), 2 * 8192);
    assertEquals(tcpLocalPreference("srflx", "so", 0), 6 * 8192);
    assertEquals(tcpLocalPreference("srflx", "active", 0), 4 * 8192);
    assertEquals(tcpLocalPreference("srflx", "passive", 0), 2 * 8192);
  });
});

describe("foundations", () => {
  it("are one for each type, base and server, and no two of those share one", () => {
    const foundations = new Foundations();
    const first = foundations.of("host", "udp", "192.0.2.1");
    assertEquals(foundations.of("host", "udp", "192.0.2.1"), first);
    const others = [
      foundations.of("host", "udp", "192.0.2.2"),
      foundations.of("host", "tcp", "192.0.2.1"),
      foundations.of("srflx", "udp", "192.0.2.1", "198.51.100.1"),
      foundations.of("srflx", "udp", "192.0.2.1", "198.51.100.2"),
    ];
    assertEquals(new Set([first, ...others]).size, 5);
    assert(others.every((one) => /^[A-Za-z0-9+/]{1,32}$/.test(one)));
  });
});

describe("a line of SDP", () => {
  it("is written as RFC 8839 §5.1 has it, and read again", () => {
    const candidate = {
      foundation: "2",
      transport: "udp",
      priority: 1694498815,
      address: "203.0.113.7",
      port: 40123,
      type: "srflx",
      related: { address: "192.168.1.2", port: 5000 },
    } as const;
    const line = formatCandidate(candidate);
    assertEquals(
      line,
      "candidate:2 1 UDP 1694498815 203.0.113.7 40123 typ srflx raddr 192.168.1.2 rport 5000",
    );
    assertEquals(parseCandidate(line), candidate);
    assertEquals(parseCandidate(`a=${line}`), candidate);
  });

  it("hides a base that is not told behind the wildcard and port 9", () => {
    const [v4, v6] = ["203.0.113.7", "2001:db8::7"].map((address) =>
      formatCandidate({
        foundation: "1",
        transport: "udp",
        priority: 1,
        address,
        port: 1,
        type: "srflx",
      })
    );
    assert(v4!.endsWith("raddr 0.0.0.0 rport 9"), v4);
    assert(v6!.endsWith("raddr :: rport 9"), v6);
  });

  it("of TCP has a tcptype, and port 9 where it is active (RFC 6544 §4.5)", () => {
    const active = {
      foundation: "1",
      transport: "tcp",
      priority: 5,
      address: "192.0.2.1",
      port: 4000,
      type: "host",
      tcpType: "active",
    } as const;
    const line = formatCandidate(active);
    assertEquals(line, "candidate:1 1 TCP 5 192.0.2.1 9 typ host tcptype active");
    assertEquals(parseCandidate(line), { ...active, port: 9 });
  });

  it("of other stacks is read with what it has beside", () => {
    const line = "a=candidate:Hc0a80102 1 udp 2122260223 FE80:0:0::1%eth0 61764 typ host " +
      "generation 0 ufrag abcd network-id 1 network-cost 10";
    assertEquals(parseCandidate(line)?.address, "fe80::1%eth0");
    assertEquals(parseCandidate(line)?.related, undefined);
  });

  it("of the ends of its ranges is read, and a base that is told in halves is none", () => {
    for (const priority of [1, 2 ** 31 - 1]) {
      for (const port of [0, 65535]) {
        const line = `candidate:1 1 udp ${priority} 192.0.2.1 ${port} typ host`;
        const { priority: has, port: at } = parseCandidate(line)!;
        assertEquals([has, at], [priority, port]);
      }
    }
    const line = "candidate:1 1 udp 100 192.0.2.1 5000 typ srflx raddr 10.0.0.1";
    for (const rest of ["", " rport", " rport x", " rport 123456", " x 7"]) {
      assertEquals(parseCandidate(line + rest)?.related, undefined, rest);
    }
    const related = { address: "10.0.0.1", port: 65535 };
    assertEquals(parseCandidate(`${line} rport 65535`)?.related, related);
    assertEquals(parseCandidate(line.replace("10.0.0.1", "x") + " rport 7")?.related, undefined);
  });

  it("says the same as another one where endpoint, transport and tcptype are one", () => {
    const one = parseCandidate("candidate:1 1 tcp 100 192.0.2.1 5000 typ host tcptype so")!;
    assert(isSameCandidate(one, { ...one, foundation: "2", priority: 7, type: "srflx" }));
    for (
      const other of [
        { ...one, port: 5001 },
        { ...one, address: "192.0.2.2" },
        { ...one, transport: "udp" },
        { ...one, tcpType: "active" },
      ] as const
    ) assert(!isSameCandidate(one, other), JSON.stringify(other));
  });

  it("that is to be ignored gives nothing", () => {
    const good = "candidate:1 1 udp 100 192.0.2.1 5000 typ host";
    assertNotEquals(parseCandidate(good), undefined);
    for (
      const [from, to] of [
        ["1 1 udp", "1 2 udp"],
        ["udp", "sctp"],
        ["udp", "tcp"],
        ["192.0.2.1", "a1b2.local"],
        ["typ host", "typ new"],
        ["100", "0"],
        ["100", "2147483648"],
        ["5000", "65536"],
        ["candidate:1", "candidate:a,b"],
        ["candidate:", "candidat:"],
        [" typ host", ""],
      ] as const
    ) {
      const line = good.replace(from, to);
      assertEquals(parseCandidate(line), undefined, line);
    }
  });
});

describe("where a check may go", () => {
  it("is nowhere but to one host's endpoint", () => {
    for (
      const address of ["0.0.0.0", "::", "224.0.0.1", "ff02::1", "255.255.255.255", "240.0.0.1"]
    ) {
      assert(whyUnreachable({ address, port: 5000 })?.includes(address), address);
    }
    assert(whyUnreachable({ address: "192.0.2.1", port: 0 })?.includes("port 0"));
    assert(whyUnreachable({ address: "192.0.2.1", port: 65536 })?.includes("port 65536"));
    assertEquals(whyUnreachable({ address: "192.0.2.1", port: 1 }), undefined);
    assertEquals(whyUnreachable({ address: "fe80::1%eth0", port: 65535 }), undefined);
  });

  it("is within a family, and within a link or a host that nothing leads out of", () => {
    assert(canPair("192.168.1.2", "203.0.113.7"));
    assert(canPair("2001:db8::1", "2001:db8::2"));
    assert(canPair("fe80::1%eth0", "fe80::2"));
    assert(canPair("127.0.0.1", "127.0.0.2"));
    assert(!canPair("192.168.1.2", "2001:db8::1"));
    assert(!canPair("2001:db8::1", "fe80::2"));
    assert(!canPair("fe80::1%eth0", "2001:db8::2"));
    assert(!canPair("192.168.1.2", "127.0.0.1"));
    assert(!canPair("127.0.0.1", "192.168.1.2"));
    assert(canPair("169.254.1.1", "192.168.1.2"), "RFC 8445 ties IPv6 links alone");
    assert(canPair("0.0.0.0", "203.0.113.7"));
    assert(!canPair("0.0.0.0", "127.0.0.1"));
    assert(canPair("0.0.0.0", "169.254.1.1"));
    assert(!canPair("::", "fe80::1"));
    assert(canPair("::", "2001:db8::1"));
  });

  it("and over TCP where one side waits for the other, or both open (RFC 6544 §6.2)", () => {
    const types = ["active", "passive", "so"] as const;
    const meeting = types.flatMap((a) => types.filter((b) => canMeet(a, b)).map((b) => [a, b]));
    assertEquals(meeting, [["active", "passive"], ["passive", "active"], ["so", "so"]]);
  });
});
