import { describe, it } from "node:test";
import { assert, assertEquals } from "@std/assert";
import { checkClauses, CLAUSES } from "../../scripts/checks/clauses.ts";

const ALL = Object.entries(CLAUSES).flatMap(([family, count]) =>
  Array.from({ length: count }, (_, index) => `${family}-${String(index + 1).padStart(2, "0")}`)
);

const testing = (ids: readonly string[]) => [{
  path: "tests/conformance/a_test.ts",
  text: ids.map((id) => `it("${id}: does it", () => {});`).join("\n"),
}];

const waiving = (waivers: Record<string, unknown>) => [{
  path: "tests/conformance/waivers_a.json",
  text: JSON.stringify(waivers),
}];

const REASON = "needs hardware that nobody has at hand";

describe("checkClauses()", () => {
  it("is content when every clause is tested or waived", () => {
    const result = checkClauses(testing(ALL.slice(1)), waiving({ [ALL[0]!]: REASON }));

    assertEquals(result, { findings: [], tested: ALL.length - 1, waived: 1 });
  });

  it("names the clauses without a test", () => {
    const { findings } = checkClauses(testing(ALL.filter((id) => id !== "PCP-S-59")), []);

    assertEquals(findings, ["no test and no waiver: PCP-S-59"]);
  });

  it("does not take a comment for a test", () => {
    const [tests] = testing(ALL.slice(1));
    const text = `${tests!.text}\n// it("${ALL[0]}: later", () => {});`;

    assertEquals(checkClauses([{ ...tests!, text }], []).findings.length, 1);
  });

  const wrong: Record<string, [string[], Record<string, unknown>]> = {
    "a clause tested twice": [[...ALL, "PMP-C-01"], {}],
    "a test for no clause": [[...ALL, "PMP-C-99"], {}],
    "a waiver for no clause": [ALL, { "PMP-C-99": REASON }],
    "a waiver for a tested clause": [ALL, { "PMP-C-01": REASON }],
    "a waiver without a reason": [ALL.slice(1), { [ALL[0]!]: "no" }],
  };
  for (const [name, [ids, waivers]] of Object.entries(wrong)) {
    it(`catches ${name}`, () => {
      const { findings } = checkClauses(testing(ids), waiving(waivers));

      assertEquals(findings.length, 1);
      assert(findings[0]!.includes(name.includes("no clause") ? "PMP-C-99" : "PMP-C-01"));
    });
  }
});
