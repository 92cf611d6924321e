import { describe, it } from "node:test";
import { assertEquals, assertThrows } from "@std/assert";
import { fromHex } from "../../../core/bytes.ts";
import {
  decodeOptions,
  decodeOptionsLeniently,
  NO_OPTIONS,
  optionCode,
  optionsLength,
  type PcpOption,
  putOptions,
  utf8Length,
} from "../../../core/pcp/options.ts";
import {
  isPrefix64,
  type Prefix64,
  prefix64Option,
  readPrefix64,
} from "../../../core/pcp/prefix64.ts";

const CASES: readonly { name: string; hex: string; option: PcpOption }[] = [
  {
    name: "THIRD_PARTY of IPv6",
    hex: "01000010 20010db8 00000000 00000000 00000001",
    option: { type: "third-party", internalAddress: "2001:db8::1" },
  },
  { name: "PREFER_FAILURE", hex: "02000000", option: { type: "prefer-failure" } },
  {
    name: "FILTER that clears",
    hex: "03000014 00000000 00000000 00000000 0000ffff 00000000",
    option: { type: "filter", prefixLength: 0, remotePort: 0, remoteAddress: "0.0.0.0" },
  },
  {
    name: "FILTER of one IPv6 host and port",
    hex: "03000014 00800050 20010db8 00000000 00000000 00000001",
    option: { type: "filter", prefixLength: 128, remotePort: 80, remoteAddress: "2001:db8::1" },
  },
  {
    name: "DESCRIPTION of two-byte characters",
    hex: "80000005 c3a962c3 a9000000",
    option: { type: "description", text: "ébé" },
  },
  {
    name: "DESCRIPTION that erases",
    hex: "80000000",
    option: { type: "description", text: "" },
  },
  {
    name: "PORT_SET without parity",
    hex: "82000005 ffff1388 00000000",
    option: { type: "port-set", size: 65535, firstInternalPort: 5000, parity: false },
  },
  {
    name: "an unknown option",
    hex: "f0000003 01020300",
    option: { type: "unknown", code: 240, data: fromHex("010203") },
  },
];

function encode(options: readonly PcpOption[]): Uint8Array {
  const bytes = new Uint8Array(optionsLength(options));
  assertEquals(putOptions(bytes, 0, options), bytes.length);
  return bytes;
}

describe("options", () => {
  for (const { name, hex, option } of CASES) {
    it(`${name} decodes to its value and encodes to its bytes`, () => {
      assertEquals(decodeOptions(fromHex(hex), 0), [option]);
      assertEquals(encode([option]), fromHex(hex));
      assertEquals(optionCode(option), fromHex(hex)[0]);
    });
  }

  it("come back in the order of the packet", () => {
    const options = CASES.map(({ option }) => option);
    assertEquals(decodeOptions(encode(options), 0), options);
  });
});

describe("PREFIX64", () => {
  const read = (hex: string) => {
    const [option] = decodeOptions(fromHex(hex), 0);
    if (typeof option !== "object" || !isPrefix64(option)) throw new Error("not PREFIX64");
    return readPrefix64(option);
  };

  it("is an unknown option that can be read, and made again", () => {
    const cases: readonly [string, Prefix64][] = [
      ["8100000e 000c0000 00000000 00000000 00000000", {
        prefix: new Uint8Array(12),
        suffix: new Uint8Array(0),
        ipv4Prefixes: [],
      }],
      ["8100000e 00082001 0db80000 00000a0b 0c0d0000", {
        prefix: fromHex("20010db800000000"),
        suffix: fromHex("0a0b0c0d"),
        ipv4Prefixes: [],
      }],
      ["8100001c 00082001 0db80000 00000000 00000002 0018c000 02000008 0a000000", {
        prefix: fromHex("20010db800000000"),
        suffix: fromHex("00000000"),
        ipv4Prefixes: [
          { address: "192.0.2.0", prefixLength: 24, family: 4 },
          { address: "10.0.0.0", prefixLength: 8, family: 4 },
        ],
      }],
    ];
    for (const [hex, prefix64] of cases) {
      assertEquals(read(hex), prefix64);
      assertEquals(encode([prefix64Option(prefix64)]), fromHex(hex));
    }
    assertEquals(isPrefix64({ type: "unknown", code: 130, data: new Uint8Array(14) }), false);
  });

  it("is not read where it cannot be", () => {
    for (
      const hex of [
        "8100000d 000c0000 00000000 00000000 00000000",
        "8100000e 00090000 00000000 00000000 00000000",
        "8100000f 000c0000 00000000 00000000 00000000",
        "81000010 000c0000 00000000 00000000 00000001",
        "81000016 000c0000 00000000 00000000 00000001 00210a00 00000000",
      ]
    ) assertEquals(read(hex), undefined, hex);
    const empty = "81000010 000c0000 00000000 00000000 00000000";
    assertEquals(read(empty)?.ipv4Prefixes, []);
    const host = "81000016 000c0000 00000000 00000000 00000001 00200a00 00010000";
    assertEquals(read(host)?.ipv4Prefixes[0]?.prefixLength, 32);
  });
});

describe("decodeOptions()", () => {
  it("shares one list where there are none", () => {
    assertEquals(decodeOptions(new Uint8Array(60), 60) === NO_OPTIONS, true);
    assertThrows(() => (NO_OPTIONS as PcpOption[]).push({ type: "prefer-failure" }), TypeError);
  });

  it('tells "bad-options" where the length reaches past the end', () => {
    assertEquals(decodeOptions(fromHex("80000005 00000000"), 0), "bad-options");
    assertEquals(decodeOptions(fromHex("0200"), 0), "bad-options");
  });

  it("hands back as malformed what cannot be", () => {
    const impossible = [
      ["01", "01000004 c0a80132"],
      ["02", "02000004 00000000"],
      ["03", "03000004 00780000"],
      ["80", "80000002 c3280000"],
      ["82", "82000004 00101770"],
    ] as const;
    for (const [code, hex] of impossible) {
      const bytes = fromHex(hex);
      const decoded = decodeOptions(bytes, 0);
      const length = (bytes[2]! << 8) | bytes[3]!;
      assertEquals(decoded, [{
        type: "malformed",
        code: parseInt(code, 16),
        data: bytes.subarray(4, 4 + length),
      }], hex);
    }
  });

  it("ignores the reserved bytes of options", () => {
    assertEquals(decodeOptions(fromHex("02ff0000"), 0), [{ type: "prefer-failure" }]);
    assertEquals(decodeOptions(fromHex("82000005 00101770 fe000000"), 0), [
      { type: "port-set", size: 16, firstInternalPort: 6000, parity: false },
    ]);
  });
});

describe("decodeOptionsLeniently()", () => {
  it("keeps what stands before the break", () => {
    assertEquals(decodeOptionsLeniently(fromHex("02000000 80000009 4d696e65"), 0), [
      { type: "prefer-failure" },
    ]);
  });
});

describe("utf8Length()", () => {
  it("counts what an encoder writes", () => {
    for (const text of ["", "a\x7f", "\x80é\u07ff", "\u0800€\uffff", "\u{10000}😀", "a\ud800b"]) {
      assertEquals(utf8Length(text), new TextEncoder().encode(text).length);
    }
  });
});
