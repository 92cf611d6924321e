import { describe, it } from "node:test";
import { assertEquals } from "@std/assert";
import type { TestCase } from "../../scripts/lib/junit.ts";
import type { Runtime } from "../../scripts/lib/runtimes.ts";
import { checkSameTests, type Exception } from "../../scripts/lib/same_tests.ts";

const ran = (names: Partial<Record<Runtime, string[]>>): Map<Runtime, TestCase[]> =>
  new Map(
    Object.entries(names).map(([runtime, own]) => [
      runtime as Runtime,
      own.map((name) => ({ name, outcome: "passed" as const, detail: "" })),
    ]),
  );

const ON_NODE: Exception = { name: /^types/, on: ["Node"], reason: "once is enough" };

describe("checkSameTests()", () => {
  it("is content where each runtime ran the same, in whatever order", () => {
    const cases = ran({ Deno: ["a", "b"], Node: ["b", "a"], Bun: ["a", "b"] });

    assertEquals(checkSameTests(cases, true, []), []);
  });

  it("finds a test that one runtime lost, and one that it has alone", () => {
    const cases = ran({ Deno: ["a", "b"], Node: ["b"], Bun: ["a", "b", "c"] });

    assertEquals(checkSameTests(cases, true, []), [
      "not the same on each runtime (Deno 1, Node 0, Bun 1): a",
      "not the same on each runtime (Deno 0, Node 0, Bun 1): c",
    ]);
  });

  it("finds one of two tests of the same name lost", () => {
    const cases = ran({ Deno: ["a", "a"], Bun: ["a"] });

    assertEquals(checkSameTests(cases, true, []), [
      "not the same on each runtime (Deno 2, Bun 1): a",
    ]);
  });

  it("takes an exception where it is listed, and nowhere else", () => {
    const right = ran({ Deno: ["a"], Node: ["a", "types"] });
    const wrong = ran({ Deno: ["a", "types"], Node: ["a", "types"] });

    assertEquals(checkSameTests(right, true, [ON_NODE]), []);
    assertEquals(checkSameTests(wrong, true, [ON_NODE]), [
      "not the same on each runtime (Deno 1, Node 1): types",
    ]);
  });

  it("finds an exception that did not come up, where all was to be run on its runtime", () => {
    const cases = ran({ Deno: ["a"], Node: ["a"] });

    assertEquals(checkSameTests(cases, true, [ON_NODE]), [
      "an exception that no test needs: ^types",
    ]);
    assertEquals(checkSameTests(cases, false, [ON_NODE]), []);
    assertEquals(checkSameTests(ran({ Deno: ["a"] }), true, [ON_NODE]), []);
  });
});
