import { describe, it } from "node:test";
import { assert, assertEquals, assertThrows } from "@std/assert";
import { fromHex, toHex } from "../../../core/bytes.ts";
import {
  decodeRequest,
  decodeResponse,
  encodeAddressRequest,
  encodeAddressResponse,
  encodeErrorResponse,
  encodeMapRequest,
  encodeMapResponse,
  encodeUnsupportedVersionResponse,
  type NatPmpFault,
  natPmpResultName,
} from "../../../core/natpmp/codec.ts";
import { seededRandom } from "../../../core/random.ts";

interface Vector {
  readonly name: string;
  readonly hex: string;
  readonly decode: (bytes: Uint8Array) => unknown;
  readonly value: object;
  readonly encode: () => Uint8Array;
  /** The fewest bytes that still decode, and to what they may decode when some are cut off. */
  readonly needs: number;
}

const map8080 = {
  protocol: "tcp",
  internalPort: 8080,
  suggestedExternalPort: 8080,
  lifetimeSeconds: 7200,
} as const;
const delete8080 = { ...map8080, suggestedExternalPort: 0, lifetimeSeconds: 0 };
const granted = {
  protocol: "tcp",
  resultCode: 0,
  epochSeconds: 3601,
  internalPort: 8080,
  externalPort: 40123,
  lifetimeSeconds: 3600,
} as const;
const deleted = { ...granted, epochSeconds: 3700, externalPort: 0, lifetimeSeconds: 0 };
const refused = {
  protocol: "udp",
  resultCode: 2,
  epochSeconds: 3601,
  internalPort: 5000,
  externalPort: 0,
  lifetimeSeconds: 0,
} as const;
const address = { resultCode: 0, epochSeconds: 3600, externalAddress: "203.0.113.7" };

const VECTORS: readonly Vector[] = [
  {
    name: "V-PMP-1 address request",
    hex: "0000",
    decode: decodeRequest,
    value: { kind: "address" },
    encode: encodeAddressRequest,
    needs: 2,
  },
  {
    name: "V-PMP-2 address response",
    hex: "00800000 00000e10 cb007107",
    decode: decodeResponse,
    value: { kind: "address", ...address },
    encode: () => encodeAddressResponse(address),
    needs: 12,
  },
  {
    name: "V-PMP-3 map request",
    hex: "00020000 1f901f90 00001c20",
    decode: decodeRequest,
    value: { kind: "map", ...map8080 },
    encode: () => encodeMapRequest(map8080),
    needs: 12,
  },
  {
    name: "V-PMP-4 map response",
    hex: "00820000 00000e11 1f909cbb 00000e10",
    decode: decodeResponse,
    value: { kind: "map", ...granted },
    encode: () => encodeMapResponse(granted),
    needs: 16,
  },
  {
    name: "V-PMP-5 delete request",
    hex: "00020000 1f900000 00000000",
    decode: decodeRequest,
    value: { kind: "map", ...delete8080 },
    encode: () => encodeMapRequest(delete8080),
    needs: 12,
  },
  {
    name: "V-PMP-6 delete response",
    hex: "00820000 00000e74 1f900000 00000000",
    decode: decodeResponse,
    value: { kind: "map", ...deleted },
    encode: () => encodeMapResponse(deleted),
    needs: 16,
  },
  {
    name: "V-PMP-7 unsupported version as the RFC draws it",
    hex: "00000001 00000e10",
    decode: decodeResponse,
    value: { kind: "unsupported-version", version: 0, opcode: undefined, epochSeconds: 3600 },
    encode: () => encodeUnsupportedVersionResponse({ epochSeconds: 3600 }),
    needs: 4,
  },
  {
    name: "V-PMP-8 unsupported version as gateways send it",
    hex: "00810001 00000e10",
    decode: decodeResponse,
    value: { kind: "unsupported-version", version: 0, opcode: 1, epochSeconds: 3600 },
    encode: () => encodeUnsupportedVersionResponse({ epochSeconds: 3600, opcode: 1 }),
    needs: 4,
  },
  {
    name: "V-PMP-9 map refused",
    hex: "00810002 00000e11 13880000 00000000",
    decode: decodeResponse,
    value: { kind: "map", ...refused },
    encode: () => encodeMapResponse(refused),
    needs: 4,
  },
];

for (const { name, hex, decode, value, encode, needs } of VECTORS) {
  describe(name, () => {
    const bytes = fromHex(hex);

    it("decodes", () => assertEquals(decode(bytes), value));

    it("encodes", () => assertEquals(toHex(encode()), toHex(bytes)));

    it("is too short wherever bytes are missing that it needs", () => {
      for (let length = 0; length < bytes.length; length++) {
        const decoded = decode(bytes.subarray(0, length));
        assertEquals(decoded === "too-short", length < needs, `${length} bytes`);
      }
    });

    it("means the same with trailing bytes", () => {
      for (const extra of [1, 2, 3, 4, 1100]) {
        const longer = new Uint8Array(bytes.length + extra).fill(0xa5);
        longer.set(bytes);
        const decoded = decode(longer);
        // An error's own fields are told by its length: those of a short one are filled up here.
        if (needs === bytes.length || bytes.length === 16) assertEquals(decoded, value);
        else assert(typeof decoded === "object");
      }
    });

    it("decodes at an offset of a larger buffer", () => {
      const buffer = new Uint8Array(bytes.length + 7).fill(0xff);
      buffer.set(bytes, 3);
      assertEquals(decode(buffer.subarray(3, 3 + bytes.length)), value);
    });

    it("throws for no flipped bit", () => {
      for (let bit = 0; bit < 8 * bytes.length; bit++) {
        const flipped = bytes.slice();
        flipped[bit >> 3]! ^= 1 << (bit & 7);
        assert(decodeRequest(flipped) !== undefined && decodeResponse(flipped) !== undefined);
      }
    });
  });
}

describe("decodeRequest()", () => {
  const cases: readonly [name: string, hex: string, expected: object | NatPmpFault][] = [
    ["ignores responses", "00800000", "not-a-request"],
    ["ignores responses of other versions", "02810000", "not-a-request"],
    [
      "hands a PCP request on",
      "0201",
      { kind: "unsupported-version", version: 2, opcode: 1 },
    ],
    [
      "hands version 1 on",
      "0100",
      { kind: "unsupported-version", version: 1, opcode: 0 },
    ],
    ["names an opcode it does not know", "0003", { kind: "unsupported-opcode", opcode: 3 }],
    ["names the last opcode", "007f", { kind: "unsupported-opcode", opcode: 127 }],
    [
      "ignores the reserved field (PMP-S-10)",
      "0002ffff 1f901f90 00001c20",
      { kind: "map", ...map8080 },
    ],
  ];
  for (const [name, hex, expected] of cases) {
    it(name, () => assertEquals(decodeRequest(fromHex(hex)), expected));
  }
});

describe("decodeResponse()", () => {
  const unsupported = (version: number, opcode: number, epochSeconds?: number) => ({
    kind: "unsupported-version",
    version,
    opcode,
    epochSeconds,
  });
  const cases: readonly [name: string, hex: string, expected: object | NatPmpFault][] = [
    ["takes no requests", "0000", "too-short"],
    ["takes no mapping requests", "00020000 1f901f90 00001c20", "not-a-response"],
    ["takes no requests of other versions", "02010000 00001c20", "not-a-response"],
    [
      "reads D-02's 24 bytes of PCP without an epoch (V-PCP-15)",
      "02800001 00000708 00000063 00000000 00000000 00000000",
      unsupported(2, 0),
    ],
    ["reads two bytes of another version", "0280", unsupported(2, 0)],
    ["reads 12 bytes that look like PCP", "02810002 a2a90000 004f8fd2", unsupported(2, 1)],
    ["reads unsupported version with 4 bytes only", "00820001", unsupported(0, 2)],
    [
      "reads unsupported version in a whole mapping response",
      "00810001 00000005 13880000 00000000",
      unsupported(0, 1, 5),
    ],
    [
      "leaves a PCP announcement to PCP",
      "02800000 00000000 00000000 00000000 00000000 00000000",
      "other-version",
    ],
    [
      "ignores the address of an error (PMP-C-13)",
      "00800003 00000e10 cb007107",
      { kind: "address", resultCode: 3, epochSeconds: 3600, externalAddress: undefined },
    ],
    [
      "reads an 8-byte error to an address request",
      "00800002 00000e10",
      { kind: "address", resultCode: 2, epochSeconds: 3600, externalAddress: undefined },
    ],
    [
      "reads an 8-byte error to a mapping request",
      "00820004 00000e10",
      {
        kind: "map",
        protocol: "tcp",
        resultCode: 4,
        epochSeconds: 3600,
        internalPort: undefined,
        externalPort: 0,
        lifetimeSeconds: 0,
      },
    ],
    [
      "finds no internal port in a request that was returned (D-03)",
      "00820005 00000e10 00001c20",
      {
        kind: "map",
        protocol: "tcp",
        resultCode: 5,
        epochSeconds: 3600,
        internalPort: undefined,
        externalPort: 0,
        lifetimeSeconds: 0,
      },
    ],
    [
      "keeps the epoch of opcodes it does not know",
      "00830000 00000e10",
      { kind: "other", opcode: 3, resultCode: 0, epochSeconds: 3600 },
    ],
    [
      "reads a static mapping's lifetime",
      "00820000 ffffffff 1f909cbb ffffffff",
      { kind: "map", ...granted, epochSeconds: 0xffff_ffff, lifetimeSeconds: 0xffff_ffff },
    ],
  ];
  for (const [name, hex, expected] of cases) {
    it(name, () => assertEquals<unknown>(decodeResponse(fromHex(hex)), expected));
  }
});

describe("encodeErrorResponse()", () => {
  it("returns the entire request (PMP-S-03)", () => {
    const request = fromHex("00030000 11112222 33334444 5555");
    const bytes = encodeErrorResponse({ opcode: 3, resultCode: 5, epochSeconds: 16, request });
    assertEquals(toHex(bytes), "0083000500000010333344445555");
  });

  it("pads a short request to the epoch's end (D-03)", () => {
    const request = fromHex("0003");
    const bytes = encodeErrorResponse({ opcode: 3, resultCode: 5, epochSeconds: 16, request });
    assertEquals(toHex(bytes), "0083000500000010");
  });

  it("makes the 8 bytes alone", () => {
    const bytes = encodeErrorResponse({ opcode: 2, resultCode: 4, epochSeconds: 1 });
    assertEquals(toHex(bytes), "0082000400000001");
  });
});

describe("encoders", () => {
  it("write a zero address into an error (PMP-S-05)", () => {
    const bytes = encodeAddressResponse({ ...address, resultCode: 3 });
    assertEquals(toHex(bytes), "0080000300000e1000000000");
  });

  it("refuse what does not fit, by name and value", () => {
    assertThrows(() => encodeMapRequest({ ...map8080, internalPort: 65536 }), RangeError, "65536");
    assertThrows(() => encodeMapRequest({ ...map8080, internalPort: -1 }), RangeError, "internalP");
    assertThrows(() => encodeMapRequest({ ...map8080, lifetimeSeconds: 2 ** 32 }), RangeError);
    assertThrows(() => encodeMapResponse({ ...granted, epochSeconds: -1 }), RangeError, "epoch");
    assertThrows(() => encodeAddressResponse({ ...address, externalAddress: "::1" }), TypeError);
    assertThrows(() => encodeErrorResponse({ opcode: 128, resultCode: 5, epochSeconds: 0 }));
  });
});

describe("natPmpResultName()", () => {
  it("knows the RFC's names and makes up others", () => {
    assertEquals([0, 1, 2, 3, 4, 5, 6, 65535].map(natPmpResultName), [
      "SUCCESS",
      "UNSUPP_VERSION",
      "NOT_AUTHORIZED",
      "NETWORK_FAILURE",
      "OUT_OF_RESOURCES",
      "UNSUPP_OPCODE",
      "RESULT_6",
      "RESULT_65535",
    ]);
  });
});

describe("codec properties", () => {
  it("no bytes make a decoder throw", () => {
    const random = seededRandom(1);
    for (let i = 0; i < 50_000; i++) {
      const bytes = new Uint8Array(random.u32() % 40);
      random.fill(bytes);
      if (random.u32() & 1 && bytes.length > 1) {
        bytes[0] = 0;
        bytes[1] = (random.u32() & 0x80) | (random.u32() & 3);
      }
      decodeRequest(bytes);
      decodeResponse(bytes);
    }
  });

  it("what is encoded decodes to itself", () => {
    const random = seededRandom(2);
    for (let i = 0; i < 5_000; i++) {
      const protocol = random.u32() & 1 ? "tcp" : "udp";
      const internalPort = random.u32() & 0xffff;
      const lifetimeSeconds = random.u32();
      const request = {
        protocol,
        internalPort,
        suggestedExternalPort: random.u32() & 0xffff,
        lifetimeSeconds,
      } as const;
      const response = {
        protocol,
        resultCode: 0,
        epochSeconds: random.u32(),
        internalPort,
        externalPort: random.u32() & 0xffff,
        lifetimeSeconds,
      } as const;
      assertEquals<unknown>(decodeRequest(encodeMapRequest(request)), { kind: "map", ...request });
      assertEquals<unknown>(decodeResponse(encodeMapResponse(response)), {
        kind: "map",
        ...response,
      });
    }
  });
});
