import { describe, it } from "node:test";
import { assertEquals, assertThrows } from "@std/assert";
import { fromHex } from "../../../core/bytes.ts";
import {
  decodeRequest,
  decodeRequestHeader,
  decodeResponse,
  encodeErrorResponse,
  encodeRequest,
  encodeResponse,
  PCP_RESULT,
  pcpResultName,
} from "../../../core/pcp/codec.ts";
import { seededRandom } from "../../../core/random.ts";
import { claim } from "./support.ts";
import { NONCE, type Vector, VECTORS } from "./vectors.ts";

function decode(vector: Vector, bytes: Uint8Array): unknown {
  return vector.request ? decodeRequest(bytes) : decodeResponse(bytes);
}

function named(name: string): Vector {
  return VECTORS.find((vector) => vector.name.startsWith(name + " "))!;
}

describe("codec", () => {
  for (const vector of VECTORS) {
    it(`${vector.name} decodes to its value and encodes to its bytes`, () => {
      assertEquals(decode(vector, vector.bytes), vector.request ?? vector.response);
      const encoded = vector.request
        ? encodeRequest(vector.request)
        : encodeResponse(vector.response!);
      assertEquals(encoded, vector.bytes);
    });

    it(`${vector.name}: every truncation is a fault or a shorter message, none throws`, () => {
      const body = { announce: 24, map: 60, peer: 80, other: 24, "unsupported-version": 4 };
      for (let length = 0; length < vector.bytes.length; length++) {
        const decoded = decode(vector, vector.bytes.subarray(0, length));
        const shortest = body[(vector.request ?? vector.response)!.kind];
        if (length < shortest) assertEquals(typeof decoded, "string", `at ${length}`);
      }
    });

    it(`${vector.name}: trailing bytes past a multiple of 4 or past 1100 are a fault`, () => {
      for (const extra of [1, 2, 3, 1104 - vector.bytes.length]) {
        const longer = new Uint8Array(vector.bytes.length + extra);
        longer.set(vector.bytes);
        const decoded = decode(vector, longer);
        if (vector.response?.kind === "unsupported-version") assertEquals(decoded, vector.response);
        else assertEquals(decoded, "bad-length");
      }
    });

    it(`${vector.name}: no bit flip throws, in either decoder`, () => {
      const bytes = vector.bytes.slice();
      for (let bit = 0; bit < bytes.length * 8; bit++) {
        bytes[bit >> 3]! ^= 1 << (bit & 7);
        decodeRequest(bytes);
        decodeResponse(bytes);
        bytes[bit >> 3]! ^= 1 << (bit & 7);
      }
    });
  }
});

describe("decodeRequest()", () => {
  const request = named("V-PCP-3").bytes;

  it('takes faults in the order of RFC 6887 §8.2: "too-short", R bit, version, length', () => {
    assertEquals(decodeRequest(fromHex("02")), "too-short");
    assertEquals(decodeRequest(fromHex("0381")), "not-a-request");
    assertEquals(decodeRequest(fromHex("0301")), "wrong-version");
    assertEquals(decodeRequest(request.subarray(0, 23)), "too-short");
    assertEquals(decodeRequest(request.subarray(0, 56)), "bad-length");
  });

  it('tells "bad-options" where an option reaches past the end, and the header still reads', () => {
    const bytes = new Uint8Array(64);
    bytes.set(request);
    bytes.set(fromHex("80000004"), 60);
    assertEquals(decodeRequest(bytes), "bad-options");
    assertEquals(decodeRequestHeader(bytes), {
      opcode: 1,
      lifetimeSeconds: 7200,
      clientAddress: "192.168.1.100",
    });
  });

  it("ignores reserved bytes", () => {
    const bytes = request.slice();
    bytes.set([0xff, 0xff], 2);
    bytes.set([0xff, 0xff, 0xff], 37);
    assertEquals(decodeRequest(bytes), named("V-PCP-3").request);
  });

  it("returns an unknown opcode with its payload", () => {
    const bytes = new Uint8Array(32);
    bytes.set(request.subarray(0, 24));
    bytes[1] = 96;
    bytes[31] = 7;
    const decoded = decodeRequest(bytes);
    assertEquals(decoded, {
      kind: "other",
      opcode: 96,
      lifetimeSeconds: 7200,
      clientAddress: "192.168.1.100",
      payload: fromHex("0000000000000007"),
    });
    claim(typeof decoded === "object");
    assertEquals(encodeRequest(decoded), bytes);
  });

  it("keeps the two all-zeros apart", () => {
    const v4 = decodeRequest(named("V-PCP-3").bytes), v6 = decodeRequest(named("V-PCP-14").bytes);
    claim(typeof v4 === "object" && v4.kind === "map" && v4.suggestedAddress === "0.0.0.0");
    claim(typeof v6 === "object" && v6.kind === "map" && v6.suggestedAddress === "::");
  });
});

describe("decodeResponse()", () => {
  it("recognises UNSUPP_VERSION before lengths and version", () => {
    for (const hex of ["02810001", "0181000100", "0381000100000708", "ff80000100000708000000"]) {
      const decoded = decodeResponse(fromHex(hex));
      claim(typeof decoded === "object" && decoded.kind === "unsupported-version", hex);
      assertEquals(decoded.lifetimeSeconds, undefined);
    }
  });

  it("recognises NAT-PMP's unsupported version with and without the R bit", () => {
    for (const hex of ["00000001", "0000000100000e10", "0081000100000e10", "008100010000"]) {
      const decoded = decodeResponse(fromHex(hex));
      claim(typeof decoded === "object" && decoded.kind === "unsupported-version", hex);
      assertEquals(decoded.version, 0);
    }
  });

  it("does not take other NAT-PMP answers for one", () => {
    assertEquals(decodeResponse(fromHex("0080000000000e10cb007107")), "wrong-version");
    assertEquals(decodeResponse(fromHex("0080000300000e1000000000")), "wrong-version");
  });

  it("ignores packets without the R bit, short ones and those of another version", () => {
    assertEquals(decodeResponse(fromHex("020100")), "too-short");
    assertEquals(decodeResponse(named("V-PCP-3").bytes), "not-a-response");
    assertEquals(decodeResponse(fromHex("0281000000000000")), "too-short");
    const other = named("V-PCP-4").bytes.slice();
    other[0] = 3;
    assertEquals(decodeResponse(other), "wrong-version");
  });

  it("keeps an answer whose options cannot be read", () => {
    const bytes = new Uint8Array(64);
    bytes.set(named("V-PCP-4").bytes);
    bytes.set(fromHex("ffffffff"), 60);
    assertEquals(decodeResponse(bytes), named("V-PCP-4").response);
  });

  it("returns an unknown opcode with its payload", () => {
    const bytes = fromHex(
      "0283000f 00000708 00000005 00000000 00000000 00000000 01020304 05060708",
    );
    const decoded = decodeResponse(bytes);
    claim(typeof decoded === "object" && decoded.kind === "other" && decoded.opcode === 3);
    assertEquals(encodeResponse(decoded), bytes);
  });

  it("never throws on 20,000 random packets, nor does decodeRequest()", () => {
    const random = seededRandom(3);
    for (let i = 0; i < 20_000; i++) {
      const bytes = new Uint8Array(random.u32() % 200);
      random.fill(bytes);
      if (i & 1) {
        bytes.set([2, (random.u32() & 1) * 0x80 + (random.u32() & 3)].slice(0, bytes.length));
      }
      decodeRequest(bytes);
      decodeResponse(bytes);
      decodeRequestHeader(bytes);
    }
  });
});

describe("encodeErrorResponse()", () => {
  const fields = {
    resultCode: PCP_RESULT.MALFORMED_OPTION,
    lifetimeSeconds: 1800,
    epochSeconds: 9,
  };

  it("copies the request, options included, and sets R, result, lifetime, epoch and reserved", () => {
    const request = named("V-PCP-10").bytes;
    const reply = encodeErrorResponse(request, fields);
    assertEquals(reply.subarray(24), request.subarray(24));
    assertEquals(
      reply.subarray(0, 24),
      fromHex("02810006 00000708 00000009 00000000 00000000 00000000"),
    );
  });

  it("pads to a multiple of 4, cuts to 1100 and is never shorter than a header", () => {
    assertEquals(encodeErrorResponse(new Uint8Array(61), fields).length, 64);
    assertEquals(encodeErrorResponse(new Uint8Array(1400), fields).length, 1100);
    assertEquals(encodeErrorResponse(fromHex("0000"), fields).length, 24);
  });

  it("leaves the reserved bytes of a request that could not be parsed, and answers the version told", () => {
    const request = named("V-PCP-3").bytes.slice();
    request[0] = 9;
    const reply = encodeErrorResponse(request, { ...fields, parsed: false, version: 2 });
    assertEquals(reply[0], 2);
    assertEquals(reply.subarray(12, 24), request.subarray(12, 24));
  });
});

describe("encodeRequest()", () => {
  const announce = {
    kind: "announce",
    lifetimeSeconds: 0,
    clientAddress: "192.168.1.100",
  } as const;

  it("throws where the message does not fit 1100 bytes", () => {
    const options = [{ type: "unknown", code: 200, data: new Uint8Array(1076) }] as const;
    assertThrows(() => encodeRequest({ ...announce, options }), RangeError, "1100");
  });

  it("throws on a nonce of the wrong length and on an address that is none", () => {
    const request = named("V-PCP-3").request!;
    claim(request.kind === "map");
    assertThrows(() => encodeRequest({ ...request, nonce: NONCE.subarray(1) }), RangeError, "11");
    assertThrows(() => encodeRequest({ ...request, suggestedAddress: "here" }), TypeError, "here");
  });
});

describe("pcpResultName()", () => {
  it("names every code of the table and numbers the rest", () => {
    for (const [name, code] of Object.entries(PCP_RESULT)) assertEquals(pcpResultName(code), name);
    assertEquals(pcpResultName(24), "RESULT_24");
  });
});
