import { describe, it } from "node:test";
import { assertEquals, assertThrows } from "@std/assert";
import {
  canonicalAddress,
  familyOf,
  formatEndpoint,
  getAddress16,
  isMapped,
  parseEndpoint,
  parseIp,
  putAddress16,
  withoutZone,
} from "../../core/ip.ts";
import { fromHex, toHex } from "../../core/bytes.ts";
import { seededRandom } from "../../core/random.ts";

describe("canonicalAddress()", () => {
  const canonical: readonly (readonly [string, string])[] = [
    ["192.0.2.1", "192.0.2.1"],
    ["::ffff:192.0.2.1", "192.0.2.1"],
    ["::FFFF:c000:0201", "192.0.2.1"],
    ["2001:DB8::1", "2001:db8::1"],
    ["2001:0db8:0000:0000:0000:0000:0000:0001", "2001:db8::1"],
    // RFC 5952 §4.2.2: one 16-bit zero is not shortened; §4.2.3: the longest run is, the first
    // of two that are equally long.
    ["2001:db8:0:1:1:1:1:1", "2001:db8:0:1:1:1:1:1"],
    ["2001:0:0:1:0:0:0:1", "2001:0:0:1::1"],
    ["2001:db8:0:0:1:0:0:1", "2001:db8::1:0:0:1"],
    ["::", "::"],
    ["::ffff:0:0", "0.0.0.0"],
    ["64:ff9b::192.0.2.33", "64:ff9b::c000:221"],
    ["fe80::1%eth0", "fe80::1%eth0"],
    ["2001:db8::1%eth0", "2001:db8::1"],
  ];
  for (const [text, expected] of canonical) {
    it(`makes ${expected} of ${text}`, () => {
      assertEquals(canonicalAddress(text), expected);
      assertEquals(canonicalAddress(expected), expected);
    });
  }

  const malformed = [
    "",
    "1.2.3",
    "1.2.3.4.5",
    "1.2.3.256",
    "01.2.3.4",
    "1.2.3.-4",
    " 1.2.3.4",
    "0x7f.0.0.1",
    ":",
    ":1",
    "1:",
    ":::",
    "1::2::3",
    "12345::",
    "g::",
    "1:2:3:4:5:6:7",
    "1:2:3:4:5:6:7:8:9",
    "1:2:3:4:5:6:7:8::",
    "::1.2.3",
    "::1.2.3.4:5",
    "fe80::1%",
    "[::1]",
  ];
  for (const text of malformed) {
    it(`refuses "${text}"`, () => assertEquals(canonicalAddress(text), undefined));
  }

  it("is idempotent and keeps the bytes, for any address", () => {
    const random = seededRandom(5952);
    for (let i = 0; i < 5000; i++) {
      const bytes = new Uint8Array(16);
      random.fill(bytes);
      // Runs of zeros are what the shortening is about.
      for (let word = 0; word < 8; word++) {
        if (random.u32() % 2) bytes.fill(0, 2 * word, 2 * word + 2);
      }
      const text = getAddress16(bytes, 0);
      assertEquals(canonicalAddress(text), text);
      const back = new Uint8Array(16);
      putAddress16(back, 0, text);
      assertEquals(toHex(back), toHex(bytes));
    }
  });
});

describe("16-byte addresses", () => {
  it("keep the two all-zeros addresses apart (PCP-C-03)", () => {
    const bytes = new Uint8Array(32).fill(0xaa);
    putAddress16(bytes, 0, "::");
    putAddress16(bytes, 16, "0.0.0.0");
    assertEquals(toHex(bytes), "0".repeat(32) + "00000000000000000000ffff00000000");
    assertEquals(getAddress16(bytes, 0), "::");
    assertEquals(getAddress16(bytes, 16), "0.0.0.0");
  });

  it("are IPv4 only where all 96 bits say so", () => {
    const mapped = fromHex("00000000000000000000ffff c0000201");
    assertEquals(isMapped(mapped), true);
    for (let bit = 0; bit < 96; bit++) {
      const other = mapped.slice();
      other[bit >> 3]! ^= 0x80 >> (bit & 7);
      assertEquals(isMapped(other), false);
    }
  });

  it("refuse what is no address", () => {
    assertThrows(() => putAddress16(new Uint8Array(16), 0, "host"), TypeError, '"host"');
  });
});

describe("parseEndpoint()", () => {
  const readable: readonly (readonly [string, string])[] = [
    ["10.0.0.1", "10.0.0.1:5351"],
    ["10.0.0.1:53", "10.0.0.1:53"],
    ["::1", "[::1]:5351"],
    ["[::1]", "[::1]:5351"],
    ["[::1]:53", "[::1]:53"],
    ["[fe80::1%eth0]:5351", "[fe80::1%eth0]:5351"],
    ["fe80::1%eth0", "[fe80::1%eth0]:5351"],
  ];
  for (const [text, expected] of readable) {
    it(`reads ${text}`, () => assertEquals(formatEndpoint(parseEndpoint(text, 5351)!), expected));
  }
  for (
    const text of ["", "host", "10.0.0.1:", "10.0.0.1:65536", "[10.0.0.1]:1", "[::1", "::1]:1"]
  ) {
    it(`refuses "${text}"`, () => assertEquals(parseEndpoint(text, 5351), undefined));
  }
});

describe("address texts", () => {
  it("tell the family", () => {
    assertEquals(familyOf("192.0.2.1"), 4);
    assertEquals(familyOf("2001:db8::1"), 6);
  });
  it("lose their zone on request", () => {
    assertEquals(withoutZone("fe80::1%eth0"), "fe80::1");
    assertEquals(withoutZone("192.0.2.1"), "192.0.2.1");
  });
  it("give 4 or 16 bytes", () => {
    assertEquals(parseIp("192.0.2.1"), Uint8Array.of(192, 0, 2, 1));
    assertEquals(parseIp("::1")?.length, 16);
  });
});
