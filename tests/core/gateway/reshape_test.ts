import { describe, it } from "node:test";
import { assertEquals, assertStrictEquals } from "@std/assert";
import { fromHex, toHex } from "../../../core/bytes.ts";
import { type ReplyRule, reshapeReply } from "../../../core/gateway/reshape.ts";
import { seededRandom } from "../../../core/random.ts";

// V-PMP-3 and -4, V-PCP-3 and -4.
const PMP_REQUEST = fromHex("00020000 1f901f90 00001c20");
const PMP_REPLY = fromHex("00820000 00000e11 1f909cbb 00000e10");
const PMP_ADDRESS = fromHex("00800000 00000e10 cb007107");
const PCP_REQUEST = fromHex(
  "02010000 00001c20 00000000 00000000 0000ffff c0a80164 00010203 04050607 08090a0b 06000000 1f900000 00000000 00000000 0000ffff 00000000",
);
const PCP_REPLY = fromHex(
  "02810000 00000e10 00003039 00000000 00000000 00000000 00010203 04050607 08090a0b 06000000 1f909cbb 00000000 00000000 0000ffff cb007107",
);

function shaped(reply: Uint8Array, request: Uint8Array | undefined, rule: ReplyRule): string {
  return toHex(reshapeReply(reply, request, [rule]));
}

describe("reshapeReply()", () => {
  it("hands back the very reply where no rule fits, and never writes to it", () => {
    const rule: ReplyRule = { when: { protocol: "pcp" }, then: [{ kind: "result", code: 9 }] };
    assertStrictEquals(reshapeReply(PMP_REPLY, PMP_REQUEST, [rule]), PMP_REPLY);
    const before = toHex(PCP_REPLY);
    reshapeReply(PCP_REPLY, PCP_REQUEST, [rule]);
    assertEquals(toHex(PCP_REPLY), before);
  });

  it("cuts", () => {
    const rule: ReplyRule = { when: {}, then: [{ kind: "cut", length: 2 }] };
    assertEquals(shaped(PMP_REPLY, PMP_REQUEST, rule), "0082");
  });

  it("masks the ports where each protocol has them", () => {
    const rule: ReplyRule = { when: {}, then: [{ kind: "mask-ports", mask: 0xff }] };
    assertEquals(shaped(PMP_REPLY, PMP_REQUEST, rule), "0082000000000e11009000bb00000e10");
    assertEquals(shaped(PCP_REPLY, PCP_REQUEST, rule).slice(80, 88), "009000bb");
    assertEquals(shaped(PMP_ADDRESS, fromHex("0000"), rule), toHex(PMP_ADDRESS));
  });

  it("replaces address, port, lifetime, result and version", () => {
    const rule: ReplyRule = {
      when: {},
      then: [
        { kind: "external-address", address: "10.0.0.9" },
        { kind: "external-port", port: 0 },
        { kind: "lifetime", seconds: 0 },
        { kind: "result", code: 8 },
      ],
    };
    assertEquals(shaped(PMP_ADDRESS, fromHex("0000"), rule), "0080000800000e100a000009");
    assertEquals(shaped(PMP_REPLY, PMP_REQUEST, rule), "0082000800000e111f90000000000000");
    assertEquals(
      shaped(PCP_REPLY, PCP_REQUEST, rule),
      "02810008000000000000303900000000000000000000000000010203040506070" +
        "8090a0b060000001f90000000000000000000000000ffff0a000009",
    );
    const version: ReplyRule = { when: {}, then: [{ kind: "version", version: 0 }] };
    assertEquals(shaped(PCP_REPLY, PCP_REQUEST, version).slice(0, 4), "0081");
  });

  it("copies the request's opcode where asked", () => {
    const rule: ReplyRule = { when: { results: [1] }, then: [{ kind: "echo-opcode" }] };
    assertEquals(shaped(fromHex("0000000100000e10"), PCP_REQUEST, rule), "0081000100000e10");
  });

  it("tells replies from announcements, errors from successes, opcodes apart", () => {
    const cut = [{ kind: "cut", length: 0 }] as const;
    const lengths = (rule: ReplyRule): number[] => [
      reshapeReply(PMP_ADDRESS, fromHex("0000"), [rule]).length,
      reshapeReply(PMP_ADDRESS, undefined, [rule]).length,
      reshapeReply(PMP_REPLY, PMP_REQUEST, [rule]).length,
    ];
    assertEquals(lengths({ when: { isReply: true }, then: cut }), [0, 12, 0]);
    assertEquals(lengths({ when: { isReply: false }, then: cut }), [12, 0, 16]);
    assertEquals(lengths({ when: { opcodes: [2] }, then: cut }), [12, 12, 0]);
    assertEquals(lengths({ when: { isError: true }, then: cut }), [12, 12, 16]);
    assertEquals(lengths({ when: { isError: false }, then: cut }), [0, 0, 0]);
  });

  it("never throws, whatever the bytes", () => {
    const random = seededRandom(5);
    const rule: ReplyRule = {
      when: {},
      then: [
        { kind: "echo-opcode" },
        { kind: "result", code: 3 },
        { kind: "mask-ports", mask: 0xff },
        { kind: "external-port", port: 1 },
        { kind: "external-address", address: "0.0.0.0" },
        { kind: "lifetime", seconds: 1 },
        { kind: "version", version: 2 },
        { kind: "external-address", address: "::" },
      ],
    };
    for (let length = 0; length < 100; length++) {
      const bytes = new Uint8Array(length);
      random.fill(bytes);
      assertEquals(reshapeReply(bytes, bytes.slice(0, length % 5), [rule]).length, length);
    }
  });
});
