import { describe, it } from "node:test";
import { assertEquals } from "@std/assert";
import { below, seededRandom } from "../../../core/random.ts";
import { EventQueue } from "../../../core/sim/queue.ts";

describe("EventQueue", () => {
  it("hands out by time, equal times in the order in which they went in", () => {
    const random = seededRandom(5);
    const queue = new EventQueue<{ at: number; i: number }>();
    const expected: { at: number; i: number }[] = [];
    for (let i = 0; i < 2000; i++) {
      const item = { at: below(random, 50), i };
      queue.push(item.at, item);
      expected.push(item);
    }
    expected.sort((a, b) => a.at - b.at || a.i - b.i);
    assertEquals(queue.size, 2000);
    assertEquals(expected.map(() => queue.pop()), expected);
    assertEquals(queue.pop(), undefined);
    assertEquals(queue.nextAt(), undefined);
  });

  it("keeps its order when pushing and popping mix", () => {
    const random = seededRandom(6);
    const queue = new EventQueue<number>();
    let now = 0;
    for (let i = 0; i < 5000; i++) {
      if (below(random, 3) < 2) {
        const at = now + below(random, 100);
        queue.push(at, at);
      } else {
        const at = queue.pop();
        if (at === undefined) continue;
        assertEquals(at >= now, true);
        now = at;
      }
    }
  });
});
