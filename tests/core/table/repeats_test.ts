import { describe, it } from "node:test";
import { assertEquals } from "@std/assert";
import { Repeats } from "../../../core/table/repeats.ts";

/** When each copy of all that is said leaves, for a caller that comes at each deadline. */
function times(repeats: Repeats<string>): [number, string][] {
  const said: [number, string][] = [];
  for (let at = repeats.nextAt(); at !== undefined; at = repeats.nextAt()) {
    assertEquals(repeats.popDue(at - 1), undefined);
    said.push([at, repeats.popDue(at)!]);
  }
  return said;
}

describe("Repeats", () => {
  it("says each thing so often, at gaps that double from 250 ms", () => {
    const repeats = new Repeats<string>();
    repeats.start("a", "A", 4, "announce", 100);
    assertEquals([repeats.size, repeats.next()], [1, { at: 100, reason: "announce" }]);
    assertEquals(times(repeats), [[100, "A"], [350, "A"], [850, "A"], [1850, "A"]]);
    assertEquals([repeats.size, repeats.next(), repeats.popDue(1e9)], [0, undefined, undefined]);
  });

  it("says a late one once, and the rest at their distance", () => {
    const repeats = new Repeats<string>();
    repeats.start("a", "A", 3, "announce", 0);
    assertEquals([repeats.popDue(60_000), repeats.popDue(60_000)], ["A", undefined]);
    assertEquals(times(repeats), [[60_250, "A"], [60_750, "A"]]);
  });

  it("begins anew for a key that is being said, and keeps others", () => {
    const repeats = new Repeats<string>();
    repeats.start("a", "old", 2, "announce", 0);
    repeats.start("b", "B", 1, "update", 10);
    repeats.popDue(0);
    repeats.start("a", "new", 2, "announce", 20);
    assertEquals(times(repeats), [[10, "B"], [20, "new"], [270, "new"]]);
  });

  it("ends one, or all, or says nothing at all", () => {
    const repeats = new Repeats<string>();
    repeats.start("a", "A", 0, "announce", 0);
    assertEquals([repeats.size, repeats.nextAt()], [0, undefined]);
    repeats.start("a", "A", 2, "announce", 0);
    repeats.start("b", "B", 2, "announce", 0);
    repeats.stop("a");
    repeats.stop("a");
    assertEquals([repeats.size, repeats.popDue(0), repeats.popDue(0)], [1, "B", undefined]);
    repeats.clear();
    assertEquals([repeats.size, repeats.nextAt()], [0, undefined]);
  });
});
