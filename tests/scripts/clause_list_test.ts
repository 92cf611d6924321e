import { describe, it } from "node:test";
import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { withScript } from "./on_deno.ts";

type Lists = typeof import("../../scripts/mutate/clause_list.ts");
type Operators = typeof import("../../scripts/mutate/operators.ts");

const PATH = "core/a.ts";
const SOURCE = `function f(a: number): number {
  if (a < 3) return 1;
  g();
  g();
  h(
    a,
  );
  return a < 3 ? 1 : 2;
}
`;
const REASON = "its words forbid what no single line does";

function withList(test: (list: Lists, operators: Operators) => void): Promise<void> {
  return withScript<Lists>(
    "mutate/clause_list.ts",
    (list) => withScript<Operators>("mutate/operators.ts", (operators) => test(list, operators)),
  );
}

describe("the list of the clauses' bugs", () => {
  it("tells every bug of a text from each other, and finds it again where lines have moved", () =>
    withList(({ entryOf, mutantOf, readList, written }, { mutantsOf, mutated }) => {
      const mutants = mutantsOf(PATH, SOURCE);
      const moved = `// A word before.\n\n${SOURCE}`;
      const seen = new Set<string>();
      for (const mutant of mutants) {
        const text = written(entryOf("PCP-C-01", mutant, SOURCE));
        seen.add(text);
        const { entries: [entry], findings } = readList(`# A word.\n\n${text}\n`);
        assertEquals(findings, []);
        assertEquals(mutantOf(entry!, SOURCE), mutant);
        const found = mutantOf(entry!, moved)!;
        assertEquals(mutated(moved, found), moved.replace(SOURCE, () => mutated(SOURCE, mutant)));
      }
      assertEquals(seen.size, mutants.length);
      assert(mutants.length > 10);
    }));

  const first = "PCP-C-01 core/a.ts boundary\n- if (a < 3) return 1;\n+ if (a <= 3) return 1;\n";
  const second = "PCP-C-02 core/a.ts statement 2\n- g();\n";
  const checked = (lists: Lists, ...blocks: readonly string[]) =>
    lists.checkList(
      blocks.join("\n"),
      ["PCP-C-01", "PCP-C-02"],
      (path) => path === PATH ? SOURCE : undefined,
    );

  it("is good where each tested clause has a bug of its own, or a reason", () =>
    withList((lists) => {
      assertEquals(checked(lists, first, second), { findings: [], told: 2, without: 0 });
      const reasoned = checked(lists, first, `PCP-C-02 none: ${REASON}\n`);
      assertEquals(reasoned, { findings: [], told: 1, without: 1 });
    }));

  const WRONG: readonly (readonly [what: string, blocks: readonly string[], said: string])[] = [
    ["a clause without a bug", [first], "no bug named for PCP-C-02"],
    ["a bug that is gone", [first, second.replace("g()", "k()")], "PCP-C-02: there is no such bug"],
    ["one too many of a kind", [first, second.replace("2\n", "3\n")], "PCP-C-02: there is no such"],
    ["a file that is gone", [first, second.replace("core/a", "core/b")], "in core/b.ts"],
    ["another edit of the line", [first.replace("<=", ">="), second], "PCP-C-01: there is no such"],
    [
      "one bug for two",
      [first, first.replace("C-01", "C-02")],
      "PCP-C-02 names the bug of PCP-C-01",
    ],
    ["a clause twice", [first, second, second], "PCP-C-02 stands there twice"],
    ["a clause without a test", [first, second, second.replace("C-02", "C-03")], "PCP-C-03 has no"],
    ["no reason", [first, "PCP-C-02 none: so\n"], "PCP-C-02 names no bug and gives no reason"],
    ["what is no entry", [first, second, "PCP-C-02\n"], "no entry: PCP-C-02"],
  ];
  for (const [what, blocks, said] of WRONG) {
    it(`is red for ${what}`, () =>
      withList((lists) => {
        const { findings } = checked(lists, ...blocks);
        assertStringIncludes(findings.join("\n"), said);
      }));
  }
});
