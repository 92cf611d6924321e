import { describe, it } from "node:test";
import { hmac } from "@noble/hashes/hmac.js";
import { sha256 } from "@noble/hashes/sha2.js";
import { assert, assertEquals, assertThrows } from "@std/assert";
import { fromHex, putU16, putU32, toHex } from "../../../core/bytes.ts";
import {
  decodeStun,
  encodeStun,
  hasIntegrity,
  isChannelData,
  isStun,
  STUN_ATTRIBUTE,
  type StunAttributes,
  type StunMessage,
  type StunMessageFields,
  type StunSeal,
  transactionKey,
  unknownRequired,
} from "../../../core/stun/codec.ts";
import {
  fingerprintOf,
  integrityOf,
  longTermKey,
  shortTermKey,
} from "../../../core/stun/integrity.ts";
import { RFC8489_B1, type Vector, VECTORS } from "./vectors.ts";

const id = fromHex("000102030405060708090a0b");
const cookie = "2112a442";

function read(bytes: Uint8Array, options?: { classic: boolean }): StunMessage {
  const message = decodeStun(bytes, options);
  if (typeof message === "string") throw new Error(message);
  return message;
}

function request(attributes: StunAttributes, seal?: StunSeal): Uint8Array {
  return encodeStun({ class: "request", method: 1, transactionId: id, attributes }, seal);
}

/** A message of attributes written by hand: `hex` of types, lengths, values and padding. */
function raw(hex: string, type = "0001"): Uint8Array {
  const body = fromHex(hex);
  const bytes = new Uint8Array(20 + body.length);
  bytes.set(fromHex(`${type}0000${cookie}${toHex(id)}`));
  bytes.set(body, 20);
  putU16(bytes, 2, body.length);
  return bytes;
}

const sealOf = ({ key, hash, hasFingerprint }: Vector): StunSeal => ({
  key,
  integrity: hash,
  fingerprint: hasFingerprint,
});

/** RFC 5769 pads with spaces; what is made here pads with zero and is signed anew. */
function withPaddingOf(vector: Vector, bytes: Uint8Array): Uint8Array {
  let at = 20;
  const signed = bytes.slice();
  for (; at < bytes.length;) {
    const type = vector.bytes[at]! << 8 | vector.bytes[at + 1]!;
    const size = vector.bytes[at + 2]! << 8 | vector.bytes[at + 3]!;
    const end = at + 4 + size, next = at + 4 + ((size + 3) & ~3);
    if (type === STUN_ATTRIBUTE.MESSAGE_INTEGRITY) {
      signed.set(integrityOf(signed, at, vector.key, vector.hash), at + 4);
    } else if (type === STUN_ATTRIBUTE.FINGERPRINT) {
      putU32(signed, at + 4, fingerprintOf(signed, at));
    }
    signed.set(vector.bytes.subarray(end, next), end);
    at = next;
  }
  return signed;
}

describe("the vectors of RFC 5769", () => {
  for (const vector of VECTORS) {
    it(`${vector.name}: is read, with its integrity and fingerprint`, () => {
      const message = read(vector.bytes);
      const { bytes: _b, integrityAt: _i, integritySha256At: _s, hasFingerprint, ...rest } =
        message;
      assertEquals(rest as StunMessageFields, { ...vector.message, unknown: [] });
      assertEquals(hasFingerprint, vector.hasFingerprint);
      assert(hasIntegrity(message, vector.key));
      assert(hasIntegrity(message, vector.key, vector.hash));
      assert(!hasIntegrity(message, vector.key, "sha256"));
      assert(!hasIntegrity(message, shortTermKey("another")));
    });

    it(`${vector.name}: is written`, () => {
      const bytes = encodeStun(vector.message, sealOf(vector));
      assertEquals(toHex(withPaddingOf(vector, bytes)), toHex(vector.bytes));
    });
  }
});

describe("the vector of RFC 8489 B.1", () => {
  /** Its length says what is there. */
  const mended = RFC8489_B1.bytes.slice();
  putU16(mended, 2, mended.length - 20);

  it("is no message as printed: its length counts the header", () => {
    assertEquals(decodeStun(RFC8489_B1.bytes), "bad-length");
  });

  it("is read with its length mended, USERHASH and all", () => {
    const { class: of, method, transactionId, attributes } = read(mended);
    assertEquals({ class: of, method, transactionId, attributes }, RFC8489_B1.message);
  });

  it("is written, up to the integrity value", () => {
    const bytes = encodeStun(RFC8489_B1.message, sealOf(RFC8489_B1));
    assertEquals(toHex(bytes.slice(0, -32)), toHex(mended.slice(0, -32)));
    assert(hasIntegrity(read(bytes), RFC8489_B1.key, "sha256"));
    assert(!hasIntegrity(read(bytes), RFC8489_B1.key, "sha1"));
  });

  it("has the integrity value of our SHA-256 key over the length as printed", () => {
    const { bytes, key } = RFC8489_B1;
    assertEquals(toHex(hmac(sha256, key, bytes.slice(0, -36))), toHex(bytes.slice(-32)));
  });
});

describe("the long-term key", () => {
  it("STUN-10 is RFC 8489's example for user, realm, pass", () => {
    assertEquals(toHex(longTermKey("user", "realm", "pass")), "8493fbc53ba582fb4c044c456bdc40eb");
  });

  it("is the same for a composed and a decomposed password, and for wide spaces", () => {
    assertEquals(shortTermKey("Zu\u0308g\u3000x"), shortTermKey("Züg x"));
    assertEquals(longTermKey("u\u0308", "r", "p"), longTermKey("ü", "r", "p"));
  });

  it("cannot be made of nothing or of control characters, which are not repeated", () => {
    assertThrows(() => shortTermKey(""), TypeError, "'password' must not be empty");
    const error = assertThrows(() => longTermKey("user", "realm", "secret\n"), TypeError);
    assert(!error.message.includes("secret"));
    assertThrows(() => longTermKey("user\0", "realm", "x"), TypeError, "'username'");
  });
});

const v4 = { address: "203.0.113.7", port: 40123 };
const v6 = { address: "2001:db8::7", port: 65535 };

/** Each attribute, with its bytes as specs and RFCs lay them out, under the id above. */
const ATTRIBUTES: readonly (readonly [StunAttributes, string])[] = [
  [{ mappedAddress: v4 }, "00010008 0001 9cbb cb007107"],
  [{ mappedAddress: v6 }, "00010014 0002 ffff 20010db8000000000000000000000007"],
  [{ xorMappedAddress: v4 }, "00200008 0001 bda9 ea12d545"],
  [{ xorMappedAddress: v6 }, "00200014 0002 deed 0113a9fa000102030405060708090a0c"],
  [{ username: "abc" }, "00060003 61626300"],
  [{ userhash: new Uint8Array(32).fill(7) }, `001e0020 ${"07".repeat(32)}`],
  [{ realm: "r" }, "00140001 72000000"],
  [{ nonce: "nonce" }, "00150005 6e6f6e6365000000"],
  [
    { passwordAlgorithm: { number: 2, parameters: new Uint8Array(0) } },
    "001d0004 00020000",
  ],
  [{
    passwordAlgorithms: [
      { number: 2, parameters: new Uint8Array(0) },
      { number: 9, parameters: Uint8Array.of(1) },
      { number: 1, parameters: new Uint8Array(0) },
    ],
  }, "80020010 00020000 0009000101000000 00010000"],
  [{ errorCode: { code: 420, reason: "no" } }, "00090006 00000414 6e6f0000"],
  [{ errorCode: { code: 300, reason: "" } }, "00090004 00000300"],
  [{ unknownAttributes: [0x1234, 0xff] }, "000a0004 1234 00ff"],
  [{ unknownAttributes: [0x1234] }, "000a0002 1234 0000"],
  [{ software: "sœur" }, "80220005 73c5937572000000"],
  [{ alternateServer: v4 }, "80230008 0001 9cbb cb007107"],
  [{ alternateDomain: "ab.c" }, "80030004 61622e63"],
  [{ priority: 0xffff_fffe }, "00240004 fffffffe"],
  [{ useCandidate: true }, "00250000"],
  [{ iceControlled: 0xffff_ffff_0000_0001n }, "80290008 ffffffff00000001"],
  [{ iceControlling: 1n << 32n }, "802a0008 0000000100000000"],
  [{ changeRequest: { address: true, port: true } }, "00030004 00000006"],
  [{ changeRequest: { address: true, port: false } }, "00030004 00000004"],
  [{ changeRequest: { address: false, port: true } }, "00030004 00000002"],
  [{ responseOrigin: v4 }, "802b0008 0001 9cbb cb007107"],
  [{ otherAddress: v6 }, "802c0014 0002 ffff 20010db8000000000000000000000007"],
  [{ responsePort: 40123 }, "00270004 9cbb0000"],
  [{ padding: new Uint8Array(5).fill(1) }, "00260005 0101010101000000"],
  [{ cacheTimeoutSeconds: 600 }, "80270004 00000258"],
  [{ channelNumber: 0x4fff }, "000c0004 4fff0000"],
  [{ lifetimeSeconds: 0xffff_ffff }, "000d0004 ffffffff"],
  [
    { xorPeerAddresses: [v4, v6] },
    "00120008 0001 bda9 ea12d545 " +
    "00120014 0002 deed 0113a9fa000102030405060708090a0c",
  ],
  [{ data: Uint8Array.of(1, 2, 3) }, "00130003 01020300"],
  [{ xorRelayedAddress: v4 }, "00160008 0001 bda9 ea12d545"],
  [{ requestedAddressFamily: 6 }, "00170004 02000000"],
  [{ requestedAddressFamily: 4 }, "00170004 01000000"],
  [{ requestedTransport: 17 }, "00190004 11000000"],
  [{ dontFragment: true }, "001a0000"],
  [{ sourceAddress: v4 }, "00040008 0001 9cbb cb007107"],
  [{ changedAddress: v4 }, "00050008 0001 9cbb cb007107"],
];

describe("attributes", () => {
  for (const [attributes, hex] of ATTRIBUTES) {
    const name = hex.split(" ")[0]!;
    it(`${Object.keys(attributes)[0]} (${name}) is written and read`, () => {
      assertEquals(toHex(request(attributes)), toHex(raw(hex)));
      assertEquals(read(raw(hex)).attributes, attributes);
      assertEquals(read(raw(hex)).unknown, []);
    });
  }

  it("together, in the order of the object", () => {
    const all: StunAttributes = Object.assign({}, ...ATTRIBUTES.map(([each]) => each));
    const message = read(request(all));
    assertEquals(message.attributes, all);
    assertEquals(Object.keys(message.attributes), Object.keys(all));
  });

  it("of which the first of a kind counts", () => {
    const message = read(raw("00060003 61626300 00060003 78797a00 00250000 00250000"));
    assertEquals(message.attributes, { username: "abc", useCandidate: true });
  });

  it("with padding of any bytes", () => {
    assertEquals(read(raw("00060001 61202020")).attributes, { username: "a" });
  });

  it("STUN-01, STUN-02 after the integrity are left out, save a second integrity and the fingerprint", () => {
    const key = shortTermKey("x");
    const whole = request({ username: "a" }, { key, integrity: "both", fingerprint: true });
    const message = read(whole);
    assert(hasIntegrity(message, key, "sha1") && hasIntegrity(message, key, "sha256"));
    assert(message.hasFingerprint);

    const signed = request({ username: "a" }, { key });
    const late = new Uint8Array(signed.length + 8);
    late.set(signed);
    late.set(fromHex("0024000400000001"), signed.length);
    putU16(late, 2, late.length - 20);
    assertEquals(read(late).attributes, { username: "a" });
    assert(hasIntegrity(read(late), key));

    const sha256Only = request({ username: "a" }, { key, integrity: "sha256" });
    const then = new Uint8Array(sha256Only.length + 24);
    then.set(sha256Only);
    then.set(fromHex("00080014"), sha256Only.length);
    putU16(then, 2, then.length - 20);
    assertEquals(read(then).integrityAt, 0);
    assert(hasIntegrity(read(then), key));
  });

  it("that are undefined are not sent", () => {
    const attributes = { username: undefined, realm: "r" } as unknown as StunAttributes;
    assertEquals(request(attributes), request({ realm: "r" }));
  });

  it("of the drafts before RFC 5389 are read: XOR-MAPPED-ADDRESS 0x8020", () => {
    assertEquals(read(raw("80200008 0001 bda9 ea12d545")).attributes, { xorMappedAddress: v4 });
  });

  it("of RFC 3489 pass in an answer and are unknown in a request", () => {
    const hex = "00020008 0001 9cbb cb007107 00070004 61626364 000b0008 0001 9cbb cb007107";
    assertEquals(read(raw(hex, "0101")).unknown, []);
    assertEquals(unknownRequired(read(raw(hex))), [2, 7, 11]);
  });

  it("with an address family that nobody knows are left out (STUN-06)", () => {
    assertEquals(read(raw("00200008 0003 bda9 ea12d545")).attributes, {});
    assertEquals(read(raw("80230004 00000000")).attributes, {});
  });

  it("hold IPv4-mapped addresses as dotted quads", () => {
    assertEquals(read(raw("00010014 0002 0001 00000000000000000000ffff01020304")).attributes, {
      mappedAddress: { address: "1.2.3.4", port: 1 },
    });
  });

  it("of no more than 32 peers are told", () => {
    const peer = "00120008 0001 bda9 ea12d545";
    assertEquals(read(raw(peer.repeat(40))).attributes.xorPeerAddresses?.length, 32);
  });
});

describe("attributes with a form that cannot be", () => {
  for (
    const hex of [
      "00010003 00010000", // MAPPED-ADDRESS too short for a family
      "00010007 00019cbbcb007100", // and for its address
      "00200008 0002 bda9 ea12d545", // IPv6 of 4 bytes
      "00200014 0001 bda9 ea12d545ea12d545ea12d545ea12d545", // IPv4 of 16 bytes
      "001e001f " + "07".repeat(32), // USERHASH
      "00090003 00000414", // ERROR-CODE
      "00090004 00000200", // class 2
      "00090004 00000700", // class 7
      "00090004 00000464", // number 100
      "000a0003 12341200", // UNKNOWN-ATTRIBUTES of an odd length
      "001d0000", // PASSWORD-ALGORITHM of none
      "001d0002 00010000",
      "001d0004 00010001", // with a parameter that is not there
      "00240003 00000100", // PRIORITY
      "00250004 00000000", // USE-CANDIDATE
      "00030001 06000000", // CHANGE-REQUEST
      "00270002 9cbb0000", // RESPONSE-PORT
      "000c0002 40000000", // CHANNEL-NUMBER
      "000d0008 0000000000000000", // LIFETIME
      "00120004 00010000", // XOR-PEER-ADDRESS
      "00170004 03000000", // REQUESTED-ADDRESS-FAMILY
      "00190001 11000000", // REQUESTED-TRANSPORT
      "001a0001 00000000", // DONT-FRAGMENT
      "0008000c " + "00".repeat(12), // MESSAGE-INTEGRITY
      "001c0010 " + "00".repeat(16), // MESSAGE-INTEGRITY-SHA256, truncated
      "000602fc " + "61".repeat(764), // USERNAME of 764 bytes
    ]
  ) {
    it(hex.slice(0, 26), () => assertEquals(decodeStun(raw(hex)), "bad-attribute"));
  }

  it("are left out where they need not be understood", () => {
    for (
      const hex of [
        "80290004 00000000",
        "802a0000",
        "80220300 " + "61".repeat(768),
        "80030100 " + "61".repeat(256),
        "80270000",
        "80020001 00000000",
        "802b0005 0001000000000000",
      ]
    ) {
      assertEquals(read(raw(hex)).attributes, {});
    }
  });

  it("read a text of 763 bytes", () => {
    const text = "a".repeat(763);
    assertEquals(read(raw("000602fb " + "61".repeat(763) + "00")).attributes, { username: text });
  });
});

describe("unknown attributes", () => {
  it("are told with their values, and written", () => {
    const unknown = [
      { type: 0x7777, value: Uint8Array.of(1, 2, 3) },
      { type: 0xc001, value: new Uint8Array(0) },
    ];
    const bytes = encodeStun({ class: "request", method: 1, transactionId: id, unknown });
    assertEquals(toHex(bytes.slice(20)), "7777000301020300c0010000");
    assertEquals(read(bytes).unknown, unknown);
    assertEquals(unknownRequired(read(bytes)), [0x7777]);
  });

  it("that must be understood are told behind thousands that need not be", () => {
    const message = read(raw("c0010000".repeat(9000) + "77770000".repeat(9) + "77780000"));
    assertEquals(unknownRequired(message), [0x7777, 0x7778]);
    assertEquals(message.unknown.length, 42);
    assert(read(raw("77770000".repeat(9000))).unknown.length <= 64);
  });
});

describe("message types", () => {
  it("are those of the registries", () => {
    const types: [StunMessageFields["class"], number, string][] = [
      ["request", 1, "0001"],
      ["indication", 1, "0011"],
      ["success", 1, "0101"],
      ["error", 1, "0111"],
      ["request", 3, "0003"],
      ["error", 3, "0113"],
      ["indication", 6, "0016"],
      ["indication", 7, "0017"],
      ["success", 9, "0109"],
      ["request", 0xfff, "3eef"],
      ["error", 0xfff, "3fff"],
      ["request", 0x10, "0020"],
      ["request", 0x80, "0200"],
    ];
    for (const [of, method, hex] of types) {
      const bytes = encodeStun({ class: of, method, transactionId: id });
      assertEquals(toHex(bytes.slice(0, 2)), hex);
      if (bytes[0]! < 4) {
        assertEquals([read(bytes).class, read(bytes).method], [of, method]);
      }
    }
  });
});

describe("RFC 3489's form", () => {
  const classicId = fromHex("000102030405060708090a0b0c0d0e0f");

  it("has 16 bytes of transaction id, and is read where it is asked for", () => {
    const bytes = encodeStun({
      class: "request",
      method: 1,
      transactionId: classicId,
      attributes: { changeRequest: { address: true, port: false } },
    });
    assertEquals(toHex(bytes.slice(0, 20)), `00010008${toHex(classicId)}`);
    assertEquals(decodeStun(bytes), "no-cookie");
    const message = read(bytes, { classic: true });
    assertEquals(message.transactionId, classicId);
    assertEquals(message.attributes, { changeRequest: { address: true, port: false } });
    assert(!isStun(bytes));
  });

  it("leaves a message with a cookie what it is", () => {
    assertEquals(read(raw(""), { classic: true }).transactionId, id);
  });
});

describe("telling STUN from the rest of a socket's traffic (RFC 7983)", () => {
  it("takes whole messages with a cookie", () => {
    for (const { bytes } of VECTORS) assert(isStun(bytes));
  });

  it("takes nothing else for STUN", () => {
    const good = raw("00060003 61626300");
    assert(isStun(good));
    for (let first = 4; first < 256; first++) {
      const bytes = good.slice();
      bytes[0] = first;
      assert(!isStun(bytes), String(first));
    }
    for (let length = 0; length < good.length; length++) assert(!isStun(good.subarray(0, length)));
    for (const at of [2, 3, 4, 5, 6, 7]) {
      const bytes = good.slice();
      bytes[at]! ^= 1;
      assert(!isStun(bytes), String(at));
    }
    assert(!isStun(fromHex("00")));
  });

  it("knows ChannelData by its first byte, 64 to 79", () => {
    for (let first = 0; first < 256; first++) {
      assertEquals(isChannelData(Uint8Array.of(first, 0, 0, 0)), first >= 64 && first <= 79);
    }
    assert(!isChannelData(Uint8Array.of(0x40, 0, 0)));
  });
});

describe("bad bytes", () => {
  it("are no message at any truncation, with and without the length mended", () => {
    for (const { bytes } of VECTORS) {
      for (let length = 0; length < bytes.length; length++) {
        const cut = bytes.slice(0, length);
        assertEquals(decodeStun(cut), length < 20 ? "too-short" : "bad-length");
        if (length < 20) continue;
        putU16(cut, 2, length - 20);
        const message = decodeStun(cut);
        // Without its last attributes it may be a message, without their protection.
        if (typeof message !== "string") assert(!message.hasFingerprint);
        else assertEquals(message, "bad-length");
      }
    }
  });

  it("differ in one bit: the fingerprint or the integrity tells, if nothing else does", () => {
    for (const { bytes, key } of VECTORS) {
      for (let bit = 0; bit < 8 * bytes.length; bit++) {
        const flipped = bytes.slice();
        flipped[bit >> 3]! ^= 1 << (bit & 7);
        const message = decodeStun(flipped);
        if (typeof message === "string") continue;
        assert(!hasIntegrity(message, key) || !message.hasFingerprint, `bit ${bit}`);
      }
    }
  });

  it("differ in one byte of an integrity's value: that is none, and the other holds", () => {
    const key = shortTermKey("x");
    const whole = request({ username: "a" }, { key, integrity: "both" });
    const both = ["sha1", "sha256"] as const;
    const { integrityAt, integritySha256At } = read(whole);
    for (
      const [hash, from, size] of [["sha1", integrityAt, 20], [
        "sha256",
        integritySha256At,
        32,
      ]] as const
    ) {
      for (let at = from + 4; at < from + 4 + size; at++) {
        const changed = whole.slice();
        changed[at]! ^= 1;
        const message = read(changed);
        // SHA-256 is over SHA-1's value, too.
        const holds = both.map((one) => hasIntegrity(message, key, one));
        assertEquals(holds, [hash === "sha256", false], `${hash}, byte ${at - from - 4}`);
      }
    }
  });

  it("STUN-04 are named by what is wrong", () => {
    const good = request({ username: "abc" }, { fingerprint: true });
    const change = (at: number, value: number) => {
      const bytes = good.slice();
      bytes[at] = value;
      return decodeStun(bytes);
    };
    assertEquals(change(0, 0x40), "not-stun");
    assertEquals(change(0, 0x04), "not-stun");
    assertEquals(change(4, 0), "no-cookie");
    assertEquals(change(3, 0), "bad-length");
    assertEquals(change(23, 200), "bad-length");
    assertEquals(change(24, 0x62), "bad-fingerprint");
    assertEquals(change(good.length - 1, good.at(-1)! ^ 1), "bad-fingerprint");
    assertEquals(decodeStun(new Uint8Array(19)), "too-short");
    assertEquals(decodeStun(new Uint8Array(0)), "too-short");
  });

  it("STUN-03 after a fingerprint make it none", () => {
    const good = request({}, { fingerprint: true });
    const longer = new Uint8Array(good.length + 4);
    longer.set(good);
    longer.set(fromHex("80220000"), good.length);
    putU16(longer, 2, longer.length - 20);
    putU32(longer, 24, fingerprintOf(longer, 20));
    assertEquals(decodeStun(longer), "bad-fingerprint");
  });
});

describe("writing", () => {
  it("names what does not fit", () => {
    const cases: [StunAttributes, string][] = [
      [{ username: "a".repeat(509) }, "'username' must be no longer than 508 bytes"],
      [{ software: "é".repeat(255) }, "'software' must be no longer than 508 bytes"],
      [{ userhash: new Uint8Array(31) }, "'userhash.length' must be an integer in 32..32"],
      [{ priority: 2 ** 32 }, "'priority' must be an integer in 0..4294967295"],
      [{ iceControlled: 2n ** 64n }, "'iceControlled' must be a bigint in 0..2^64-1"],
      [{ iceControlling: -1n }, "'iceControlling' must be a bigint"],
      [{ mappedAddress: { address: "x", port: 1 } }, "'mappedAddress.address' must be an IP"],
      [{ mappedAddress: { address: "1.2.3.4", port: 65536 } }, "'mappedAddress.port'"],
      [{ errorCode: { code: 299, reason: "" } }, "'errorCode.code' must be an integer in 300..699"],
      [{ errorCode: { code: 700, reason: "" } }, "'errorCode.code'"],
      [{ responsePort: 65536 }, "'responsePort'"],
      [{ requestedTransport: 256 }, "'requestedTransport'"],
      [{ unknownAttributes: [65536] }, "'unknownAttributes'"],
      [{ data: new Uint8Array(65536) }, "'data.length'"],
      [
        { passwordAlgorithm: { number: 65536, parameters: new Uint8Array(0) } },
        "'passwordAlgorithm.number' must be an integer in 0..65535",
      ],
      [{ data: new Uint8Array(65535) }, "'length'"],
      [{ sofware: "x" } as StunAttributes, 'known names: current value is "sofware"'],
    ];
    for (const [attributes, message] of cases) {
      assertThrows(() => request(attributes), Error, message);
    }
    assertThrows(
      () => encodeStun({ class: "request", method: 0x1000, transactionId: id }),
      RangeError,
      "'method'",
    );
    assertThrows(
      () => encodeStun({ class: "request", method: 1, transactionId: id.slice(1) }),
      TypeError,
      "'transactionId' must be 12 or 16 bytes: current value has 11",
    );
  });

  it("is right again after a message that did not fit", () => {
    assertThrows(() => request({ data: new Uint8Array(65535).fill(9) }));
    assertEquals(toHex(request({ username: "abc" })), toHex(raw("00060003 61626300")));
    assertEquals(request({ data: new Uint8Array(60_000) }).length, 60_024);
  });

  it("gives bytes of their own", () => {
    const first = request({ username: "abc" });
    request({ username: "xyz" });
    assertEquals(first, raw("00060003 61626300"));
  });
});

describe("transaction keys", () => {
  it("differ where the ids do", () => {
    const keys = new Set<string>();
    for (let at = 0; at < 12; at++) {
      for (const value of [16, 255]) {
        const other = id.slice();
        other[at] = value;
        keys.add(transactionKey(other));
      }
    }
    keys.add(transactionKey(id));
    keys.add(transactionKey(fromHex("000102030405060708090a0b0c0d0e0f")));
    assertEquals(keys.size, 26);
    assertEquals(transactionKey(id), transactionKey(id.slice()));
  });
});
