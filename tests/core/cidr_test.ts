import { describe, it } from "node:test";
import { assertEquals } from "@std/assert";
import {
  type AddressKind,
  cidrAs128,
  classify,
  contains,
  formatCidr,
  hostPrefix,
  isBehindAnotherNat,
  isLoopback,
  isPrivate,
  isWildcard,
  parseCidr,
} from "../../core/cidr.ts";

describe("classify()", () => {
  const kinds: readonly (readonly [string, AddressKind])[] = [
    ["0.0.0.0", "wildcard"],
    ["0.1.2.3", "reserved"],
    ["10.255.255.255", "private"],
    ["11.0.0.0", "global"],
    ["100.63.255.255", "global"],
    ["100.64.0.0", "shared"],
    ["100.127.255.255", "shared"],
    ["100.128.0.0", "global"],
    ["127.0.0.1", "loopback"],
    ["169.254.1.1", "link-local"],
    ["172.15.255.255", "global"],
    ["172.16.0.0", "private"],
    ["172.31.255.255", "private"],
    ["172.32.0.0", "global"],
    ["192.0.0.1", "reserved"],
    ["192.0.0.9", "global"],
    ["192.0.2.1", "documentation"],
    ["192.168.0.1", "private"],
    ["198.18.0.1", "reserved"],
    ["224.0.0.1", "multicast"],
    ["240.0.0.1", "reserved"],
    ["255.255.255.255", "broadcast"],
    ["8.8.8.8", "global"],
    ["::", "wildcard"],
    ["::1", "loopback"],
    ["::2", "reserved"],
    ["fe80::1", "link-local"],
    ["febf::1", "link-local"],
    ["fc00::1", "unique-local"],
    ["fdff::1", "unique-local"],
    ["ff02::1", "multicast"],
    ["2001:db8::1", "documentation"],
    ["2001:4860::1", "global"],
    ["64:ff9b::1", "global"],
  ];
  for (const [address, kind] of kinds) {
    it(`calls ${address} ${kind}`, () => assertEquals(classify(address), kind));
  }
});

describe("the questions about an address", () => {
  it("have the answers of classify()", () => {
    assertEquals([isWildcard("::"), isWildcard("::1")], [true, false]);
    assertEquals([isLoopback("127.9.9.9"), isLoopback("128.0.0.1")], [true, false]);
    assertEquals([isPrivate("fd00::1"), isPrivate("100.64.0.1")], [true, false]);
  });
  it("tell a second NAT by an external address that is not global (D-15)", () => {
    for (const address of ["10.0.0.1", "100.64.0.1", "192.0.0.2", "169.254.0.1", "0.0.0.0"]) {
      assertEquals(isBehindAnotherNat(address), true);
    }
    for (const address of ["8.8.8.8", "203.0.113.7", "2001:db8::1"]) {
      assertEquals(isBehindAnotherNat(address), false);
    }
  });
});

describe("parseCidr()", () => {
  it("clears the bits after the prefix", () => {
    assertEquals(formatCidr(parseCidr("192.168.1.200/24")!), "192.168.1.0/24");
    assertEquals(formatCidr(parseCidr("192.168.1.200/25")!), "192.168.1.128/25");
    assertEquals(formatCidr(parseCidr("1.2.3.4/0")!), "0.0.0.0/0");
    assertEquals(formatCidr(parseCidr("2001:db8:ffff::1/33")!), "2001:db8:8000::/33");
    assertEquals(formatCidr(parseCidr("2001:db8::1")!), "2001:db8::1/128");
  });
  it("refuses what is no prefix", () => {
    for (const text of ["", "/8", "1.2.3.4/", "1.2.3.4/33", "::/129", "1.2.3.4/-1", "1.2.3.4/8x"]) {
      assertEquals(parseCidr(text), undefined);
    }
  });
  it("gives a prefix that contains exactly its own addresses", () => {
    const half = parseCidr("10.128.0.0/9")!;
    assertEquals(contains(half, "10.128.0.0"), true);
    assertEquals(contains(half, "10.255.255.255"), true);
    assertEquals(contains(half, "10.127.255.255"), false);
    assertEquals(contains(half, "::ffff"), false);
    assertEquals(contains(hostPrefix("::1"), "::1"), true);
    assertEquals(contains(hostPrefix("::1"), "::2"), false);
  });
  it("counts IPv4 prefixes on the scale of 128 bits (PCP-C-49)", () => {
    const { bytes, prefixLength } = cidrAs128(parseCidr("198.51.100.0/24")!);
    assertEquals([...bytes], [...new Array(10).fill(0), 255, 255, 198, 51, 100, 0]);
    assertEquals(prefixLength, 120);
    const six = cidrAs128(parseCidr("2001:db8::/32")!);
    assertEquals([...six.bytes], [0x20, 0x01, 0x0d, 0xb8, ...new Array(12).fill(0)]);
    assertEquals(six.prefixLength, 32);
  });
});
