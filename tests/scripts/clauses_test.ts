import { describe, it } from "node:test";
import { assert, assertEquals } from "@std/assert";
import {
  checkClauses,
  checkClausesRun,
  CLAUSES,
  clausesInReport,
  clausesInSources,
  type ClauseTest,
} from "../../scripts/checks/clauses.ts";
import type { TestCase } from "../../scripts/lib/junit.ts";

const ALL = Object.entries(CLAUSES).flatMap(([family, count]) =>
  Array.from({ length: count }, (_, index) => `${family}-${String(index + 1).padStart(2, "0")}`)
);

const testing = (ids: readonly string[]): ClauseTest[] =>
  ids.map((id) => ({ id, where: "tests/conformance/a_test.ts" }));

const ran = (outcome: TestCase["outcome"], ...names: string[]): TestCase[] =>
  names.map((name) => ({ name, outcome, detail: "" }));

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

describe("clausesInSources()", () => {
  it("takes a registered test, and no comment, string or other call, for one", () => {
    const text = `
      it("PCP-C-01: does it", () => {});
      // it("PCP-C-02: later", () => {});
      const name = 'it("PCP-C-03: quoted", () => {})';
      rig.it("PCP-C-04: another's", () => {});
      explain("PCP-C-05: a string");
      it("no clause", () => {});`;

    assertEquals(clausesInSources([{ path: "a_test.ts", text }]), [
      { id: "PCP-C-01", where: "a_test.ts" },
    ]);
  });
});

describe("clausesInReport()", () => {
  it("finds what passed without a counted assertion", () => {
    const cases = ran("passed", "a > PCP-C-01: x", "PCP-C-02: y", "a > PCP-C-03: z", "a > other");

    const { tests, findings } = clausesInReport(cases, "PCP-C-01 3\nPCP-C-03 0\nPCP-C-10 2\n");

    assertEquals(tests.map(({ id }) => id), ["PCP-C-01", "PCP-C-02", "PCP-C-03"]);
    assertEquals(findings.map((text) => text.slice(0, 15)), ["PCP-C-02 passed", "PCP-C-03 passed"]);
  });

  it("leaves a failed test to its failure", () => {
    assertEquals(clausesInReport(ran("failed", "PCP-C-01: x"), "").findings, []);
  });
});

describe("checkClausesRun()", () => {
  const cases = ran("passed", ...ALL.slice(1).map((id) => `a > ${id}: does it`));
  const record = ALL.map((id) => `${id} 1\n`).join("");

  it("finds a clause whose test did not run, whatever was recorded", () => {
    assertEquals(checkClausesRun(cases, record, [], true), [
      `no test and no waiver: ${ALL[0]}`,
    ]);
  });

  it("wants no more of a part of the tests than that they assert", () => {
    assertEquals(checkClausesRun(cases, record, [], false), []);
    assertEquals(checkClausesRun(cases, "", [], false).length, ALL.length - 1);
  });
});
