import { describe, it } from "node:test";
import { assert, assertEquals, assertThrows } from "@std/assert";
import {
  natPmpWaitMs,
  PCP_MRT_MS,
  pcpRetransmissionTimeMs,
  renewalFraction,
} from "../../core/backoff.ts";
import { equalBytes, fromHex, putU16, putU32, toHex, u16, u32 } from "../../core/bytes.ts";
import {
  checkAddress,
  checkChoice,
  checkInteger,
  checkLifetime,
  checkPort,
} from "../../core/check.ts";
import { pickDefined } from "../../core/defined.ts";
import { NatError } from "../../core/errors.ts";
import { describeFailure } from "../../core/mapping.ts";
import { below, seededRandom, uniform } from "../../core/random.ts";

describe("bytes", () => {
  it("are read and written big-endian and unsigned", () => {
    const bytes = new Uint8Array(8);
    putU16(bytes, 1, 0xfedc);
    putU32(bytes, 3, 0xfffefdfc);
    assertEquals(toHex(bytes), "00fedcfffefdfc00");
    assertEquals(u16(bytes, 1), 0xfedc);
    assertEquals(u32(bytes, 3), 0xfffefdfc);
  });
  it("are equal only at equal length", () => {
    assert(equalBytes(fromHex("0102"), fromHex("01 02")));
    assert(!equalBytes(fromHex("0102"), fromHex("010203")));
    assert(!equalBytes(fromHex("0102"), fromHex("0103")));
    assert(equalBytes(fromHex("00010203"), fromHex("0102"), 1, 0, 2));
  });
  it("come from an even number of hexadecimal digits only", () => {
    assertThrows(() => fromHex("012"), SyntaxError, '"012"');
    assertThrows(() => fromHex("0g"), SyntaxError);
  });
});

describe("checks of the caller's values", () => {
  it("name the field and the value", () => {
    assertThrows(() => checkPort("internalPort", 0), RangeError, "'internalPort'");
    assertThrows(() => checkPort("internalPort", 65536), RangeError, "65536");
    assertThrows(() => checkPort("internalPort", 1.5), RangeError, "1.5");
    assertThrows(() => checkPort("internalPort", "80"), TypeError, '"80"');
    assertThrows(() => checkInteger("n", NaN, 0, 1), RangeError, "NaN");
    assertThrows(() => checkLifetime("lifetimeSeconds", 2 ** 32), RangeError, "4294967296");
    assertThrows(() => checkAddress("a", "1.2.3"), TypeError, '"1.2.3"');
    assertThrows(() => checkAddress("a", "1.2.3.4", 6), TypeError, "IPv6");
    assertThrows(() => checkChoice("protocol", "icmp", ["tcp", "udp"]), TypeError, "tcp, udp");
  });
  it("return what they let through, addresses in canonical form", () => {
    assertEquals(checkPort("p", 0, 0), 0);
    assertEquals(checkLifetime("l", 0xffffffff), 0xffffffff);
    assertEquals(checkAddress("a", "::FFFF:1.2.3.4"), "1.2.3.4");
    assertEquals(checkChoice("c", "tcp", ["tcp", "udp"]), "tcp");
  });
});

describe("randomness from a seed", () => {
  it("is the same for the same seed and another for another", () => {
    const draw = (seed: number) => {
      const random = seededRandom(seed);
      return Array.from({ length: 8 }, () => random.u32()).join();
    };
    assertEquals(draw(1), draw(1));
    assert(draw(1) !== draw(2));
    assert(draw(0) !== draw(2 ** 32));
  });
  it("is spread over the whole range", () => {
    const random = seededRandom(3);
    const counts = new Array<number>(16).fill(0);
    for (let i = 0; i < 16_000; i++) counts[below(random, 16)]!++;
    for (const count of counts) assert(count > 850 && count < 1150, `${count}`);
    for (let i = 0; i < 1000; i++) {
      const value = uniform(random, -2, 3);
      assert(value >= -2 && value < 3);
    }
  });
});

describe("schedules", () => {
  it("NAT-PMP attempts leave at the RFC's times (RFC 6886 §3.1)", () => {
    let at = 0;
    const times = [];
    for (let attempt = 1; attempt <= 9; attempt++) {
      times.push(at);
      at += natPmpWaitMs(attempt);
    }
    assertEquals(times, [0, 250, 750, 1750, 3750, 7750, 15_750, 31_750, 63_750]);
    assertEquals(at, 127_750);
  });
  it("PCP retransmission times double from 3 s to 1024 s, each within a tenth", () => {
    const random = seededRandom(9);
    let previous: number | undefined;
    for (let i = 0; i < 200; i++) {
      const next = pcpRetransmissionTimeMs(previous, random);
      const base = previous === undefined ? 3000 : Math.min(2 * previous, PCP_MRT_MS);
      assert(next >= 0.9 * base && next <= 1.1 * base);
      previous = next;
    }
    assert(previous! > 900_000);
    const drawn = (number: number) =>
      pcpRetransmissionTimeMs(undefined, { u32: () => number, fill: () => {} });
    assertEquals([drawn(0), drawn(2 ** 31), Math.round(drawn(2 ** 32 - 1))], [2700, 3000, 3300]);
  });
  it("renewals fall into the RFC's brackets (RFC 6887 §11.2.1)", () => {
    const random = seededRandom(9);
    const brackets = [[1 / 2, 5 / 8], [3 / 4, 13 / 16], [7 / 8, 29 / 32], [15 / 16, 61 / 64]];
    for (let i = 0; i < 1000; i++) {
      for (const [index, [low, high]] of brackets.entries()) {
        const fraction = renewalFraction(index + 1, random);
        assert(fraction >= low! && fraction <= high!);
      }
    }
  });
});

describe("outcomes", () => {
  it("carry a code, the attempts and the cause", () => {
    const attempts = [{
      via: "pcp",
      gateway: "10.0.0.1",
      outcome: "no answer",
      elapsedMs: 9,
    }] as const;
    const error = new NatError("no-answer", "Cannot open", { attempts, cause: "x" });
    assertEquals([error.name, error.code, error.cause], ["NatError", "no-answer", "x"]);
    assertEquals(error.attempts, attempts);
    assertEquals(error.retryAfterSeconds, undefined);
  });
  it("are told in stable words", () => {
    const words = ([
      { kind: "no-answer" },
      { kind: "unreachable" },
      { kind: "unsupported-version", version: 0 },
      { kind: "refused", code: 2, name: "NOT_AUTHORIZED", retryAt: 0 },
      { kind: "protocol-violation", clause: "D-08" },
      { kind: "expired" },
    ] as const).map(describeFailure);
    assertEquals(words, [
      "no answer",
      "unreachable",
      "unsupported version (speaks 0)",
      "NOT_AUTHORIZED",
      "protocol violation (a success without an address or a port)",
      "expired",
    ]);
  });
});

describe("pickDefined()", () => {
  it("leaves out what is undefined or not named", () => {
    const from: { a?: number | undefined; b?: number; c?: number } = { a: undefined, b: 0, c: 1 };
    assertEquals(pickDefined(from, "a", "b"), { b: 0 });
  });
});
