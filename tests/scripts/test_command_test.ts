/**
 * The test command on a tree of tests that go wrong, each in a way that looks like success to its
 * runtime. On Deno only, as the command is.
 */
import { describe, it } from "node:test";
import { assertEquals } from "@std/assert";
import { checkClausesRun } from "../../scripts/checks/clauses.ts";
import type { TestCase } from "../../scripts/lib/junit.ts";
import { type Outcome, runFiles } from "../../scripts/lib/runner.ts";
import { type Runtime, RUNTIMES } from "../../scripts/lib/runtimes.ts";
import { checkSameTests } from "../../scripts/lib/same_tests.ts";
import { ROOT } from "../../scripts/lib/files.ts";

const IMPORTS =
  `import { describe, it, test } from "node:test";\nimport process from "node:process";`;

/** File by file, what stands in it. */
const TREE: Readonly<Record<string, string>> = {
  fine: `test("alone", () => {}); describe("group", () => { it("inside", () => {}); });`,
  "exits at the top": `test("lost", () => {}); process.exit(0);`,
  "exits before any": `process.reallyExit(0);`,
  "exits inside": `
    test("before", () => {});
    describe("exits", () => { it("early", () => process.exit(0)); it("lost", () => {}); });`,
  "exits later": `
    test("starts it", () => { setTimeout(() => process.exit(0), 1); });
    test("is cut off", () => new Promise((resolve) => setTimeout(resolve, 5_000)));`,
  "is killed": `test("is killed", () => { process.kill(process.pid, "SIGKILL"); });`,
  "registers nothing": `export {};`,
  "registers on node only": `
    if (!("Deno" in globalThis) && !("Bun" in globalThis)) test("on Node", () => {});`,
  differs: `
    test("everywhere", () => {});
    if ("Bun" in globalThis) test("on Bun", () => {});`,
  clauses: `
    import * as clause from "file://${ROOT}/tests/conformance/clause.ts";
    describe("clauses", () => {
      it("PCP-C-01: emptied, and written past the count", () => {});
      clause.it("PCP-C-02: emptied", () => {});
      clause.it("PCP-C-03: a loop without a turn", () => {
        for (const one of []) clause.assertEquals(one, 1);
      });
      clause.it("PCP-C-04: asserts", async () => { clause.assertEquals(await 1, 1); });
    });`,
};

interface Result {
  readonly outcomes: ReadonlyMap<Runtime, Outcome>;
  readonly folder: string;
}

async function runTree(): Promise<Result> {
  const folder = await Deno.makeTempDir({ prefix: "natkit-tree-" });
  const build = `${ROOT}/.build/tree-${Deno.pid}`;
  const files: string[] = [];
  for (const [name, text] of Object.entries(TREE)) {
    const file = `${folder}/${name.replaceAll(" ", "_")}_test.ts`;
    await Deno.writeTextFile(file, `${IMPORTS}\n${text}\n`);
    files.push(file);
  }
  const outcomes = new Map<Runtime, Outcome>();
  try {
    await Deno.mkdir(build, { recursive: true });
    for await (
      const [runtime, outcome] of runFiles(files, [], RUNTIMES, { build, env: { NO_COLOR: "1" } })
    ) outcomes.set(runtime, outcome);
  } finally {
    await Deno.remove(build, { recursive: true });
    await Deno.remove(folder, { recursive: true });
  }
  return { outcomes, folder };
}

const names = (cases: readonly TestCase[], outcome: TestCase["outcome"]): string[] =>
  cases.filter((one) => one.outcome === outcome).map(({ name }) => name);

if ("Deno" in globalThis) {
  describe("the test command", () => {
    let running: Promise<Result> | undefined;
    const ran = () => running ??= runTree();

    for (const runtime of RUNTIMES) {
      it(`names each file that ends early or registers nothing on ${runtime}`, async () => {
        const { outcomes, folder } = await ran();
        const { problems } = outcomes.get(runtime)!;

        const said = problems.map((text) => text.split("\n")[0]!.slice(folder.length + 1));
        const early = "exit status 0 before its tests had ended";
        assertEquals(said.map((text) => text.replace(/status (1|137) b/, "status N b")), [
          `exits_at_the_top_test.ts: ${early}`,
          `exits_before_any_test.ts: ${early}`,
          `exits_inside_test.ts: ${early}`,
          `exits_later_test.ts: ${early}`,
          "is_killed_test.ts: exit status N before its tests had ended",
          "registers_nothing_test.ts: registers no test",
          ...(runtime === "Node" ? [] : ["registers_on_node_only_test.ts: registers no test"]),
        ]);
      });

      it(`takes no clause for tested without an assertion on ${runtime}`, async () => {
        const { outcomes } = await ran();
        const { cases, record } = outcomes.get(runtime)!;

        const failed = names(cases, "failed").filter((name) => name.startsWith("clauses > "));
        assertEquals(failed, [
          "clauses > PCP-C-02: emptied",
          "clauses > PCP-C-03: a loop without a turn",
        ]);
        assertEquals(checkClausesRun(cases, record, [], false), [
          "PCP-C-01 passed, but its test made no assertion that was counted: " +
          "clauses > PCP-C-01: emptied, and written past the count",
        ]);
        assertEquals(record, "PCP-C-04 1\n");
      });

      it(`still runs what is fine on ${runtime}`, async () => {
        const passed = names((await ran()).outcomes.get(runtime)!.cases, "passed");

        assertEquals(passed.slice(0, 2), ["alone", "group > inside"]);
        assertEquals(passed.includes("clauses > PCP-C-04: asserts"), true);
      });
    }

    it("tells the tests that ran on one runtime only", async () => {
      const { outcomes } = await ran();
      const cases = new Map([...outcomes].map(([runtime, { cases }]) => [
        runtime,
        cases.filter(({ name }) => / on |^on |everywhere/.test(name)),
      ]));

      assertEquals(checkSameTests(cases, false, []).sort(), [
        "not the same on each runtime (Deno 0, Node 0, Bun 1): on Bun",
        "not the same on each runtime (Deno 0, Node 1, Bun 0): on Node",
      ]);
    });
  });
}
