import { describe, it } from "node:test";
import { assert, assertEquals } from "@std/assert";
import { below, seededRandom } from "../../core/random.ts";
import { earliest, Timers } from "../../core/timers.ts";

describe("Timers", () => {
  it("tells the earliest deadline with its reason", () => {
    const timers = new Timers<string>();
    assertEquals(timers.nextAt(), undefined);
    timers.set("late", 20, "renew");
    timers.set("early", 10, "retransmit");
    assertEquals(timers.next(), { key: "early", at: 10, reason: "retransmit" });
    timers.set("early", 30, "retransmit");
    assertEquals(timers.nextAt(), 20);
    timers.delete("late");
    assertEquals([timers.nextAt(), timers.at("early"), timers.size], [30, 30, 1]);
    timers.clear();
    assertEquals([timers.nextAt(), timers.at("early"), timers.size], [undefined, undefined, 0]);
  });

  it("forgets keys that are not set again", () => {
    const timers = new Timers<object>();
    timers.set({}, 1e9, "stays");
    for (let i = 0; i < 10_000; i++) {
      timers.set({}, i, "x");
      assert(timers.popDue(i) !== undefined && timers.size === 1);
    }
    assertEquals(timers.nextAt(), 1e9);
  });

  it("agrees with a sorted list, whatever is set, moved, cancelled and popped", () => {
    const random = seededRandom(77);
    const timers = new Timers<number>();
    const model = new Map<number, number>();
    for (let step = 0; step < 50_000; step++) {
      const key = below(random, 200);
      switch (below(random, 4)) {
        case 0:
        case 1: {
          const at = below(random, 1000);
          timers.set(key, at, "x");
          model.set(key, at);
          break;
        }
        case 2:
          timers.delete(key);
          model.delete(key);
          break;
        default: {
          const now = below(random, 1000);
          const earliest = Math.min(...model.values());
          const popped = timers.popDue(now);
          if (popped === undefined) assert(model.size === 0 || earliest > now);
          else {
            assertEquals(model.get(popped), earliest);
            assert(earliest <= now);
            model.delete(popped);
          }
        }
      }
      assertEquals(timers.size, model.size);
      const expected = model.size === 0 ? undefined : Math.min(...model.values());
      assertEquals(timers.nextAt(), expected);
    }
  });
});

describe("Timers.takeDue()", () => {
  it("takes all that are due, the earliest first, and leaves the others", () => {
    const timers = new Timers<string>();
    for (const [key, at] of [["c", 30], ["a", 10], ["d", 31], ["b", 20]] as const) {
      timers.set(key, at, "x");
    }
    assertEquals(timers.takeDue(9), []);
    assertEquals(timers.takeDue(30), ["a", "b", "c"]);
    assertEquals([timers.takeDue(30), timers.size, timers.nextAt()], [[], 1, 31]);
  });
});

describe("earliest()", () => {
  it("tells the first that is due, at one time the one that stands first, and no key", () => {
    const timers = new Timers<string>();
    timers.set("a", 20, "mine");
    const [early, late] = [{ at: 10, reason: "early" }, { at: 30, reason: "late" }];
    assertEquals(earliest(late, timers.next(), early, undefined), early);
    assertEquals(earliest(undefined, timers.next(), late), { at: 20, reason: "mine" });
    assertEquals(earliest({ at: 20, reason: "yours" }, timers.next())?.reason, "yours");
    assertEquals([earliest(), earliest(undefined)], [undefined, undefined]);
  });
});
