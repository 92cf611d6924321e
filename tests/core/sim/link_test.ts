import { describe, it } from "node:test";
import { assert, assertEquals, assertThrows } from "@std/assert";
import { seededRandom } from "../../../core/random.ts";
import { Link, type LinkOptions } from "../../../core/sim/mod.ts";

/** Arrival times of `count` packets, one sent each millisecond; lost ones are left out. */
function send(options: LinkOptions, count: number, size = 100): { arrivals: number[]; link: Link } {
  const link = new Link(options), random = seededRandom(9), out = [0, 0], arrivals: number[] = [];
  for (let i = 0; i < count; i++) {
    const copies = link.cross(size, i, random, out);
    for (let copy = 0; copy < copies; copy++) arrivals.push(out[copy]!);
  }
  return { arrivals, link };
}

const isSorted = (times: number[]) => times.every((at, i) => i === 0 || at >= times[i - 1]!);

describe("Link", () => {
  it("delays by a millisecond where nothing is said", () => {
    const { arrivals, link } = send({}, 3, 1500);
    assertEquals(arrivals, [1, 2, 3]);
    assertEquals(link.conditions, {
      delayMs: 1,
      jitterMs: 0,
      loss: 0,
      duplicate: 0,
      reorder: 0,
      reorderMs: 5,
      mtu: 1500,
    });
    assertEquals(link.stats, { offered: 3, lost: 0, duplicated: 0, reordered: 0, tooBig: 0 });
  });

  it("holds back by four times its slowest way and a millisecond, unless told by how much", () => {
    const hold = (options: LinkOptions) => new Link(options).conditions.reorderMs;
    assertEquals(hold({ delayMs: 10, jitterMs: 5 }), 61);
    assertEquals(hold({ delayMs: 10, jitterMs: 5, reorderMs: 7 }), 7);
    const never = new Link({ reorderMs: 0 });
    never.set({ delayMs: 20 });
    assertEquals(never.conditions.reorderMs, 0);
  });

  it("jitter spreads arrivals and keeps the order", () => {
    const { arrivals } = send({ delayMs: 10, jitterMs: 50 }, 500);
    assert(isSorted(arrivals));
    const late = arrivals.map((at, i) => at - i);
    assert(Math.min(...late) >= 10 && Math.max(...late) > 50);
  });

  it("only what is held back is overtaken", () => {
    const { arrivals, link } = send({ delayMs: 10, jitterMs: 5, reorder: 0.1 }, 1000);
    assert(!isSorted(arrivals));
    assertEquals(arrivals.length, 1000);
    assert(link.stats.reordered > 60 && link.stats.reordered < 140);
    assert(arrivals.every((at, i) => at - i >= 10 && at - i <= 15 + 61 + 10));
  });

  it("loses and doubles about as many as it should", () => {
    const { arrivals, link } = send({ loss: 0.2, duplicate: 0.1 }, 10_000);
    assert(Math.abs(link.stats.lost - 2000) < 200, String(link.stats.lost));
    assert(Math.abs(link.stats.duplicated - 800) < 120, String(link.stats.duplicated));
    assertEquals(arrivals.length, 10_000 - link.stats.lost + link.stats.duplicated);
  });

  it("drops what is larger than the MTU", () => {
    const { arrivals, link } = send({ mtu: 99 }, 5);
    assertEquals([arrivals.length, link.stats.tooBig, link.stats.offered], [0, 5, 5]);
    assertEquals(link.cross(100, 0, seededRandom(1), [0, 0]), -1);
    assertEquals(send({ mtu: 100 }, 5).arrivals.length, 5);
  });

  it("changes while in use", () => {
    const { link } = send({ delayMs: 7 }, 1);
    link.set({ loss: 1 });
    assertEquals(link.cross(100, 0, seededRandom(1), [0, 0]), 0);
    link.set({ loss: 0 });
    assertEquals(link.cross(100, 0, seededRandom(1), [0, 0]), 1);
    assertEquals(link.conditions.delayMs, 7);
  });

  it("refuses conditions out of range", () => {
    assertThrows(() => new Link({ loss: 1.5 }), RangeError, "'loss' must be a number in 0..1");
    assertThrows(() => new Link({ delayMs: -1 }), RangeError, "'delayMs'");
    assertThrows(() => new Link({ delayMs: NaN }), RangeError, "'delayMs'");
    assertThrows(() => new Link({ mtu: 1.5 }), RangeError, "'mtu'");
    for (const name of ["loss", "duplicate", "reorder"] as const) {
      for (const share of [0, 1]) assertEquals(new Link({ [name]: share }).conditions[name], share);
      for (const share of [-0.001, 1.001]) {
        assertThrows(() => new Link({ [name]: share }), RangeError, `'${name}'`);
      }
    }
    for (const name of ["delayMs", "jitterMs", "reorderMs"] as const) {
      for (const ms of [0, 1e9]) assertEquals(new Link({ [name]: ms }).conditions[name], ms);
      for (const ms of [-0.001, 1e9 + 1]) {
        assertThrows(() => new Link({ [name]: ms }), RangeError, `'${name}'`);
      }
    }
    for (const mtu of [0, 65535]) assertEquals(new Link({ mtu }).conditions.mtu, mtu);
    for (const mtu of [-1, 65536]) assertThrows(() => new Link({ mtu }), RangeError, "'mtu'");
    const link = new Link();
    assertThrows(() => link.set({ delayMs: 7, loss: 2 }), RangeError);
    assertEquals(link.conditions.delayMs, 1, "nothing changes where one is refused");
  });
});
