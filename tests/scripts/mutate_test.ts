import { after, describe, it } from "node:test";
import { assert, assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import { readFile } from "node:fs/promises";
import type { Planned } from "../../scripts/mutate/plan.ts";
import { withScript } from "./on_deno.ts";

type Operators = typeof import("../../scripts/mutate/operators.ts");
type Equivalents = typeof import("../../scripts/mutate/equivalents.ts");
type Plans = typeof import("../../scripts/mutate/plan.ts");
type Areas = typeof import("../../scripts/mutate/area.ts");
type Reports = typeof import("../../scripts/mutate/report.ts");
type Prober = typeof import("../../scripts/mutate/probes.ts");
type Reaches = typeof import("../../scripts/mutate/reach.ts");
type Trials = typeof import("../../scripts/mutate/trial.ts");
type Trees = typeof import("../../scripts/lib/node_tree.ts");
type Tree = Awaited<ReturnType<Trees["NodeTree"]["build"]>>;

/** What a plan says beside its bugs. */
const NO_PLAN = { isQuick: false, starters: new Set<string>(), total: 0, equivalents: 0 } as const;

/** A text, and every bug that can be planted in it. */
const BUGS: readonly (readonly [what: string, text: string, bugs: readonly string[]])[] = [
  ["a comparison is turned round, or off by one", "a < b;", ["", "a <= b;", "a >= b;"]],
  ["an equality is turned round", "f = a === b;", ["", "f = a !== b;"]],
  ["a number is one more, or zero", "const a = 0x7f, b = 0, c = 1_000n;", [
    "const a = 0x80, b = 0, c = 1_000n;",
    "const a = 0, b = 0, c = 1_000n;",
    "const a = 0x7f, b = 1, c = 1_000n;",
    "const a = 0x7f, b = 0, c = 1001n;",
    "const a = 0x7f, b = 0, c = 0n;",
  ]],
  ["a boolean is the other one", "const a = true;", ["const a = false;"]],
  ["sums and bits are others", "const a = b + c & -d;", [
    "const a = b - c & -d;",
    "const a = b + c | -d;",
    "const a = b + c & d;",
  ]],
  ["texts are not subtracted", 'const a = "x" + b + "y", c = `${1 + 2}`;', []],
  ["and is or, a default is dropped", "const a = b && c, d = e ?? f;", [
    "const a = b || c, d = e ?? f;",
    "const a = b && c, d = e;",
  ]],
  ["a negation is dropped", "const a = !b;", ["const a = b;"]],
  ["a condition holds always or never, branches are swapped", "if (a) b(); else c();", [
    "if (true) b(); else c();",
    "if (false) b(); else c();",
    "if (!a) b(); else c();",
    "if (a) {} else c();",
    "if (a) b(); else {}",
  ]],
  ["a loop is not entered", "while (a) b();", ["while (false) b();", "while (a) {}"]],
  ["a statement is dropped with its line", "{\n  a();\n  b = c;\n}\n", [
    "{\n  b = c;\n}\n",
    "{\n  a();\n}\n",
  ]],
  [
    "an early exit is dropped",
    "function f() {\n  a: {\n    b();\n    return 7n;\n  }\n  c();\n}\n",
    [
      "function f() {\n  a: {\n    return 7n;\n  }\n  c();\n}\n",
      "function f() {\n  a: {\n    b();\n  }\n  c();\n}\n",
      "function f() {\n  a: {\n    b();\n    return 8n;\n  }\n  c();\n}\n",
      "function f() {\n  a: {\n    b();\n    return 0n;\n  }\n  c();\n}\n",
      "function f() {\n  a: {\n    b();\n    return 7n;\n  }\n}\n",
    ],
  ],
  ["the only statement of an if is its condition's", "if (a) {\n  throw b;\n}\n", [
    "if (true) {\n  throw b;\n}\n",
    "if (false) {\n  throw b;\n}\n",
  ]],
  ["an exit after which nothing comes is left", "function f() {\n  a();\n  return;\n}\n", [
    "function f() {\n  return;\n}\n",
  ]],
  [
    "await is dropped, but not where it is returned",
    "const f = async () => {\n  await a;\n  return await b;\n};\n",
    [
      "const f = async () => {\n  return await b;\n};\n",
      "const f = async () => {\n  a;\n  return await b;\n};\n",
    ],
  ],
  ["a string is empty, unless it is said to people", 'a("b"); throw new Error("c", { d: 1 });', [
    ' throw new Error("c", { d: 1 });',
    'a(""); throw new Error("c", { d: 1 });',
    'a("b"); ',
  ]],
  ["a property and a spread are dropped", "const a = { ...b, c, d: e };", [
    "const a = { c, d: e };",
    "const a = { ...b, d: e };",
    "const a = { ...b, c,  };",
  ]],
  ["a method is its opposite", "const a = Math.min(b, c.some(d));", [
    "const a = Math.max(b, c.some(d));",
    "const a = Math.min(b, c.every(d));",
  ]],
  [
    "types, imports and counters are left",
    'import "b";\ntype A = 1 | 2;\nlet a: 3 = b as 4;\n',
    [],
  ],
  ["the counter of a for is left", "for (; ; i++);", []],
];

describe("bugs that can be planted:", () => {
  for (const [what, text, bugs] of BUGS) {
    it(what, () =>
      withScript<Operators>("mutate/operators.ts", ({ mutantsOf, mutated }) => {
        const found = mutantsOf("a.ts", text).map((mutant) => mutated(text, mutant));
        assertEquals(found.sort(), [...bugs].sort());
      }));
  }
});

describe("bugs that change nothing", () => {
  it("are each told by a file, a line and an edit that are there, and with a reason", () =>
    withScript<Equivalents>(
      "mutate/equivalents.ts",
      ({ EQUIVALENTS, equivalentOf }) =>
        withScript<Operators>("mutate/operators.ts", async ({ mutantsOf }) => {
          const fitting = new Set<object>();
          for (const path of new Set(EQUIVALENTS.map(({ path }) => path))) {
            const text = await readFile(path, "utf8");
            for (const mutant of mutantsOf(path, text)) {
              const entry = equivalentOf(mutant, text);
              if (entry) fitting.add(entry);
            }
          }
          const stale = EQUIVALENTS.filter((one) => !fitting.has(one)).map(({ line }) => line);
          assertEquals(stale, []);
          assert(EQUIVALENTS.every(({ reason }) => reason.length > 10));
        }),
    ));

  it("are not taken for others on the same line, or the same on another", () =>
    withScript<Equivalents>("mutate/equivalents.ts", ({ EQUIVALENTS, equivalentOf }) => {
      const [one] = EQUIVALENTS, text = `${one!.line}\n  ${one!.line}\nother();\n`;
      const { path, operator, replacement = "" } = one!;
      const at = (start: number, more: object = {}) =>
        equivalentOf({ path, operator, start, end: start, replacement, ...more }, text);
      assertEquals([at(0), at(one!.line.length + 5)], [one, one]);
      assertEquals(at(text.length - 3), undefined);
      assertEquals(at(0, { operator: operator === "exit" ? "call" : "exit" }), undefined);
      assertEquals(at(0, { path: "core/other.ts" }), undefined);
      if (one!.replacement !== undefined) assertEquals(at(0, { replacement: "7" }), undefined);
    }));
});

describe("a sample of bugs", () => {
  const items = Array.from({ length: 1000 }, (_, index) => index);

  it("is the same for the same seed, in order, and another for another", () =>
    withScript<Plans>("mutate/plan.ts", ({ sample }) => {
      const first = sample(items, 50, 7);
      assertEquals(first.length, 50);
      assertEquals(first, sample(items, 50, 7));
      assertEquals(first, [...new Set(first)].sort((a, b) => a - b));
      assert(first.join() !== sample(items, 50, 8).join());
      assert(first.some((item) => item < 200) && first.some((item) => item > 800));
    }));

  it("draws on where a bug is none, and ends where there are no more", () =>
    withScript<Plans>("mutate/plan.ts", ({ sample }) => {
      const odd = sample(items, 50, 7, (item) => item % 2 === 1);
      assert(odd.length === 50 && odd.every((item) => item % 2 === 1));
      assertEquals(sample([1, 2, 3], 9, 1), [1, 2, 3]);
    }));
});

describe("the tests of an area", () => {
  const scripts: Record<string, string> = {
    "core/pcp/lease.ts": "",
    "core/pcp/client.ts": 'import "./lease.js";',
    "core/ip.ts": "",
    "tests/core/pcp/client_test.ts": 'import "../../../core/pcp/client.js";',
    "tests/core/pcp/lease_test.ts": 'import "../../../core/pcp/lease.js";',
    "tests/core/pcp/other_test.ts": 'import "../../../core/ip.js";',
    "tests/core/pcp/contract_case.ts": 'import "../../../core/pcp/client.js";',
    "tests/core/contract_test.ts": 'import "./pcp/contract_case.js";',
    "tests/conformance/pcp_client_test.ts": 'import "../../core/pcp/client.js";',
    "tests/core/portmap/session_test.ts": 'import "../../../core/pcp/client.js";',
    "tests/core/portmap/near_test.ts": 'import "../../../core/pcp/lease.js";',
    "tests/sim/sim_test.ts": 'import "../../core/pcp/lease.js";',
  };

  it("are its mirror's, the standard's, the contract's and who imports it, nearest first", () =>
    withScript<Areas>("mutate/area.ts", ({ Imports, testsOf }) => {
      const imports = new Imports(Object.keys(scripts), (path) => scripts[path]!);
      assertEquals(testsOf("core/pcp/lease.ts", imports), [
        "tests/core/pcp/lease_test.ts",
        "tests/core/pcp/client_test.ts",
        "tests/conformance/pcp_client_test.ts",
        "tests/core/contract_test.ts",
        "tests/core/portmap/near_test.ts",
      ]);
      assertEquals(testsOf("core/ip.ts", imports), ["tests/core/pcp/other_test.ts"]);
    }));
});

describe("the tests of what others extend", () => {
  const scripts: Record<string, string> = {
    "core/lease/client.ts": "export class Client {} export class Wire {}",
    "core/pcp/client.ts":
      'import { a, Client } from "../lease/client.js"; class P extends Client {}',
    "core/pcp/user.ts": 'import { Client } from "../lease/client.js";',
    "tests/core/lease/keeper_test.ts": "",
    "tests/core/pcp/client_test.ts": 'import "../../../core/pcp/client.js";',
    "tests/core/pcp/user_test.ts": 'import "../../../core/pcp/user.js";',
  };

  it("are those of the classes that do", () =>
    withScript<Areas>("mutate/area.ts", ({ Imports, testsOf }) => {
      const imports = new Imports(Object.keys(scripts), (path) => scripts[path]!);
      assertEquals(testsOf("core/lease/client.ts", imports), ["tests/core/pcp/client_test.ts"]);
    }));
});

describe("the tests of what is loaded at need", () => {
  const scripts: Record<string, string> = {
    "adapters/http.ts": "",
    "adapters/net.ts": 'export const open = () => import("./http.js");',
    "adapters/cli/io.ts": "",
    "adapters/cli/bin.ts": 'import "./io.js";',
    "adapters/cli/commands/map.ts": 'import "../io.js";',
    "adapters/cli/commands/mod.ts": "export const load = () => import('./map.js');",
    "tests/adapters/udp_test.ts": "",
    "tests/adapters/api/upnp_test.ts": 'import "../../../adapters/net.js";',
    "tests/adapters/api/other_test.ts": 'import "./upnp_test.js";',
    "tests/adapters/cli/line_test.ts": 'import "../../../adapters/cli/commands/mod.js";',
    "tests/adapters/cli/process_test.ts": 'void import("../../../adapters/cli/bin.js");',
    "tests/runtime/http_test.ts": 'import "../../adapters/net.js";',
  };

  it("are those that reach it so, and processes where no other test does", () =>
    withScript<Areas>("mutate/area.ts", ({ Imports, testsOf }) => {
      const imports = new Imports(Object.keys(scripts), (path) => scripts[path]!);
      const of = (path: string) => testsOf(`adapters/${path}`, imports);
      assertEquals(of("http.ts"), [
        "tests/runtime/http_test.ts",
        "tests/adapters/api/upnp_test.ts",
      ]);
      assertEquals(of("cli/commands/map.ts"), ["tests/adapters/cli/line_test.ts"]);
      assertEquals(of("cli/io.ts"), ["tests/adapters/cli/line_test.ts"]);
      assertEquals(of("cli/bin.ts"), ["tests/adapters/cli/process_test.ts"]);
    }));
});

describe("the place of a bug", () => {
  const text = `
    export const f = function (n, m = 10) {
      if (n === 11) return 12;
      switch (n) { case 13: return 14; }
      if (n < 15) h(16); else h(17);
      all: for (let i = 18; i < 21; i++) { continue all; }
      while (n > 22) { n -= 23; if (n < 24) break; }
      return n === 20 ? n + 26 : n === 19 && n * 28 || [n ?? 29];
    };
    const h = (n) => n + 30, i = 31;
    export class C { #a = 32; b() { return () => 33; } static c = 34; }
  `;

  it("is passed by whoever runs it, and by nobody else", () =>
    withScript<Operators>(
      "mutate/operators.ts",
      ({ mutantsOf }) =>
        withScript<Prober>("mutate/probes.ts", async ({ Probes }) => {
          const bugs = mutantsOf("a.ts", text).filter(({ operator, start, end, replacement }) =>
            operator === "constant" && Number(replacement) === Number(text.slice(start, end)) + 1
          );
          const { ofMutants, ofFile, mark } = new Probes().place("a.ts", text, bugs);
          const known = globalThis as { natkitPassed?: Uint8Array };
          const passedBy = (run: () => void): (number | "any")[] => {
            known.natkitPassed?.fill(0);
            run();
            const marks = known.natkitPassed!;
            const passed = bugs.filter((_, index) => marks[ofMutants[index]!] === 1)
              .map(({ start }) => Number.parseInt(text.slice(start)));
            return [...passed, ...marks[ofFile] === 1 ? ["any" as const] : []];
          };
          const { f, C } = await import(`data:text/javascript,${encodeURIComponent(mark())}`);
          const atLoad = bugs.filter((_, index) => known.natkitPassed![ofMutants[index]!] === 1);
          assertEquals(atLoad.map(({ start }) => text.slice(start, start + 2)), ["31", "34"]);
          assertEquals(passedBy(() => f(11)), [10, 11, 12, "any"]);
          assertEquals(passedBy(() => f(13)), [10, 11, 13, 14, "any"]);
          assertEquals(passedBy(() => f(1)), [10, 11, 13, 15, 16, 18, 21, 22, 20, 19, 30, "any"]);
          const later = [10, 11, 13, 15, 17, 18, 21, 22];
          assertEquals(passedBy(() => f(19)), [...later, 20, 19, 28, 30, "any"]);
          assertEquals(passedBy(() => f(30)), [...later, 23, 24, 20, 19, 30, "any"]);
          assertEquals(passedBy(() => f(20)), [...later, 20, 26, 30, "any"]);
          assertEquals(passedBy(() => f(NaN)), [...later, 20, 19, 30, "any"]);
          assertEquals(passedBy(() => new C()), [32]);
          assertEquals(passedBy(() => new C().b()), [32, "any"]);
          assertEquals(passedBy(() => new C().b()()), [32, 33, "any"]);
        }),
    ));
});

describe("the tests asked about a bug", () => {
  const bug = (start: number, tests: readonly string[]): Planned => ({
    mutant: { path: "core/a.ts", operator: "constant", start, end: start + 1, replacement: "" },
    original: "const a = 1; const f = () => { return 2; }; const g = () => 3;",
    text: "",
    tests,
    isSimulated: false,
    sources: new Map(),
  });
  const passing = (usedMs: number, ...tests: readonly (readonly [number, number[]])[]) => ({
    usedMs,
    aside: [0],
    tests: tests.map(([usedMs, marks], place) => ({ place, usedMs, marks })),
  });

  it("are those that pass its place, the quickest first", () =>
    withScript<Reaches>("mutate/reach.ts", ({ Reach }) => {
      const tests = ["x", "y", "z"];
      const constant = bug(10, tests), inBody = bug(38, tests), short = bug(61, tests);
      const mutants = [constant, inBody, short, bug(38, ["x"])];
      const starters = new Set(["z"]), tree = undefined as unknown as Tree;
      const reach = new Reach({ ...NO_PLAN, tree, mutants, starters });
      // The places: 0 the constant's, 1 the body's, 2 the short function's, 3 that of any function.
      reach.learn("x", passing(900, [800, [1, 3]], [50, [1, 3]], [20, [2]], [10, []]));
      reach.learn("y", passing(80, [30, [1, 3]], [40, []]));
      reach.learn("z", passing(500, [500, []]));
      const z = { test: "z", chosen: null, usedMs: 500 };
      const quick = [{ test: "y", chosen: [0], usedMs: 30 }, {
        test: "x",
        chosen: [1],
        usedMs: 50,
      }];
      assertEquals(reach.roundsOf(inBody), [quick, [z, { test: "x", chosen: [0], usedMs: 800 }]]);
      assertEquals(reach.roundsOf(short), [[{ test: "x", chosen: [2], usedMs: 20 }], [z]]);
      assertEquals(reach.roundsOf(constant), [quick, [
        { test: "y", chosen: null, usedMs: 80 },
        z,
        { test: "x", chosen: null, usedMs: 900 },
      ]]);
    }));

  it("are none that take more than a second, where it must be quick", () =>
    withScript<Reaches>("mutate/reach.ts", ({ Reach }) => {
      const inBody = bug(38, ["x"]), constant = bug(10, ["x", "y"]);
      const tree = undefined as unknown as Tree, mutants = [constant, inBody];
      const reach = new Reach({ ...NO_PLAN, isQuick: true, tree, mutants });
      reach.learn("x", passing(2000, [1001, [1, 2]], [1000, [1, 2]]));
      reach.learn("y", passing(20, [1, []]));
      const quick = [{ test: "x", chosen: [1], usedMs: 1000 }];
      assertEquals(reach.roundsOf(inBody), [quick]);
      assertEquals(reach.roundsOf(constant), [quick, [
        { test: "y", chosen: null, usedMs: 20 },
        { test: "x", chosen: [1], usedMs: 1000 },
      ]]);
    }));

  it("are none where none passes", () =>
    withScript<Reaches>("mutate/reach.ts", ({ Reach }) => {
      const one = bug(38, ["x"]), tree = undefined as unknown as Tree;
      const reach = new Reach({ ...NO_PLAN, tree, mutants: [one] });
      reach.learn("x", { usedMs: 5, aside: [], tests: [{ place: 0, usedMs: 5, marks: [] }] });
      assertEquals(reach.roundsOf(one), []);
    }));
});

describe("a bug that survived", () => {
  it("is printed as a diff with its place", () =>
    withScript<Reports>("mutate/report.ts", ({ diffOf, placeOf }) => {
      const text = "one\ntwo\nthree\nfour\nfive\nsix\n";
      const bug = text.replace("five", "5");
      assertEquals(
        diffOf("core/a.ts", text, bug),
        "--- a/core/a.ts\n+++ b/core/a.ts\n@@ -2,5 +2,5 @@\n two\n three\n four\n-five\n+5\n six",
      );
      assertEquals(
        diffOf("core/a.ts", text, text.replace("one\n", "")),
        "--- a/core/a.ts\n+++ b/core/a.ts\n@@ -1,4 +1,3 @@\n-one\n two\n three\n four",
      );
      const mutant = { path: "core/a.ts", start: 9, end: 9, replacement: "" };
      assertEquals(placeOf({ ...mutant, operator: "exit" }, text), "core/a.ts:3 exit");
    }));
});

describe("bugs that are tried", () => {
  const path = "core/cidr.ts";
  const tests = ["tests/core/cidr_test.ts"];
  let built: Tree | undefined;
  after(() => built?.remove());
  const withTrial = (
    test: (
      trials: Trials,
      tree: Tree,
      bug: (find: string, replace: string) => Planned,
    ) => Promise<void>,
  ) =>
    withScript<Trials>(
      "mutate/trial.ts",
      (trials) =>
        withScript<Trees>("lib/node_tree.ts", async ({ NodeTree, edited }) => {
          const original = await readFile(path, "utf8");
          built ??= await NodeTree.build();
          const tree = built.copy();
          const bug = (find: string, replace: string): Planned => ({
            mutant: { path, operator: "call", start: 0, end: 0, replacement: "" },
            original,
            text: edited(original, { find, replace }),
            tests,
            isSimulated: false,
            sources: new Map([[path, original]]),
          });
          try {
            await test(trials, tree, bug);
          } finally {
            tree.remove();
          }
        }),
    );
  const family = "if (familyOf(address) !== cidr.family) return false;";

  it("are killed by the test that fails, or survive", () =>
    withTrial(async ({ tryAll }, tree, bug) => {
      const mutants = [
        bug("!== cidr.family", "=== cidr.family"),
        bug(family, `${family};`),
        { ...bug(family, ""), tests: [] },
        bug("export function contains", "throw new Error();\nexport function contains"),
      ];
      const told: string[] = [];
      const verdicts = await tryAll({ ...NO_PLAN, tree, mutants }, {
        jobs: 2,
        tell: ({ outcome }) => told.push(outcome),
      });
      assertEquals(verdicts.map(({ outcome }) => outcome), [
        "killed",
        "survived",
        "untested",
        "killed",
      ]);
      assert(/^\S.* > \S/.test(verdicts[0]!.by), verdicts[0]!.by);
      assertEquals(told.length, 4);
    }));

  it("are no bugs where the compiler refuses them", () =>
    withTrial(async ({ tryAll }, tree, bug) => {
      const sources = new Map<string, string>();
      for (const name of ["cidr", "ip", "bytes", "machine"]) {
        sources.set(`core/${name}.ts`, await readFile(`core/${name}.ts`, "utf8"));
      }
      const planned = { ...bug(family, `${family}\n  const wrong: number = "a";`), sources };
      const mutants = [{ ...planned, mutant: { ...planned.mutant, operator: "string" as const } }];
      const [verdict] = await tryAll({ ...NO_PLAN, tree, mutants }, { jobs: 1 });
      assertEquals(verdict?.outcome, "refused by the types");
    }));

  it("are killed by the clock where they never end", () =>
    withTrial(async ({ tryAll }, tree, bug) => {
      const mutants = [bug(family, "while (true);")];
      const [verdict] = await tryAll({ ...NO_PLAN, tree, mutants }, {
        jobs: 1,
        patienceMs: 100,
      });
      assertEquals([verdict?.outcome, verdict?.by], ["killed", "the time limit"]);
    }));

  it("are killed as soon as one test takes far more than its file, whatever the others may", () =>
    withTrial(async (_, tree) => {
      const [test] = tests;
      const looping = 'it("a", () => {}); it("b", () => { while (true); });';
      tree.plant(test!, `import { it } from "node:test";\n${looping}\n`);
      const runner = (limits: readonly number[]) =>
        tree.run(
          "scripts/mutate/runner.ts",
          [`--limits=${JSON.stringify(limits)}`, tree.file(test!), tree.file("core/ip.ts")],
          { cpuSeconds: 5, guardMs: 60_000 },
        );
      const [early, late] = await Promise.all([runner([100, 1e6]), runner([1e6, 100])]);
      assertStringIncludes(early.stdout, "FAILED the time limit");
      assertEquals([early.hung, late.hung], [false, true]);
    }));

  it("of a clause are tried by that clause's test alone, or by all tests to their end", () =>
    withTrial(async (_, tree) => {
      const [test] = tests;
      const throwing = (name: string) => `it("${name}", () => { throw new Error(); });`;
      const bodies = [throwing("A-C-01: a"), throwing("A-C-02: b"), 'it("A-C-03: c", () => {});'];
      tree.plant(test!, `import { it } from "node:test";\n${bodies.join("\n")}\n`);
      const failures = async (...flags: readonly string[]) => {
        const args = [...flags, tree.file(test!)];
        const { stdout, code } = await tree.run("scripts/mutate/runner.ts", args);
        return [code, ...[...stdout.matchAll(/^FAILED (.*)$/gm)].map(([, name]) => name)];
      };
      assertEquals(await failures(), [1, "A-C-01: a"]);
      assertEquals(await failures("--only=A-C-02"), [1, "A-C-02: b"]);
      assertEquals(await failures("--only=A-C-03"), [0]);
      assertEquals(await failures("--all"), [1, "A-C-01: a", "A-C-02: b"]);
    }));

  it("are tried by chosen tests, of which is known what they pass, and by none that waits", () =>
    withTrial(async (_, tree) => {
      const [test] = tests, passedFile = `${tree.folder}/passed.json`;
      const bodies = [
        "const pass = (mark) => (globalThis.natkitPassed ??= new Uint8Array(9))[mark] = 1;",
        "beforeEach(() => { pass(1); });",
        'pass(0); it("a", () => { pass(2); });',
        'it("b", { skip: true }, () => { throw new Error(); });',
        'describe("c", () => { it("d", async () => { pass(3); await null; pass(4); }); });',
        'it("e", () => new Promise(() => setInterval(() => {}, 1e6)));',
      ];
      tree.plant(
        test!,
        `import { beforeEach, describe, it } from "node:test";\n${bodies.join("\n")}\n`,
      );
      const run = async (...flags: readonly string[]) => {
        const { stdout, code } = await tree.run("scripts/mutate/runner.ts", [
          ...flags,
          tree.file(test!),
        ]);
        return [code, /^FAILED (.*)$/m.exec(stdout)?.[1]];
      };
      assertEquals(await run("--chosen=[[0,1,2]]", `--passed=${passedFile}`), [0, undefined]);
      const [passed] = JSON.parse(await readFile(passedFile, "utf8"));
      const marksOf = ({ place, marks }: { place: number; marks: number[] }) => [place, ...marks];
      assertEquals(passed.tests.map(marksOf), [[0, 2], [2, 3, 4]]);
      assertEquals([...new Set(passed.aside)].sort(), [0, 1]);
      assertEquals(await run("--chosen=[[3]]", "--limits=[1e6]", "--idle=500"), [
        137,
        "the time limit",
      ]);
    }));

  it("are not tried where the tests fail, or leave, without them", () =>
    withTrial(async ({ tryAll, FailingBaseline }, tree, bug) => {
      const mutants = [bug(family, "")];
      const failing = 'describe("a", () => { it("b", () => { throw new Error("c"); }); });';
      const leaving = 'it("d", () => { process.exit(0); }); it("e", () => {});';
      for (
        const [body, said] of [[failing, "a > b"], [leaving, "left before 2 tests"]] as const
      ) {
        tree.plant(tests[0]!, `import { describe, it } from "node:test";\n${body}\n`);
        const error = await assertRejects(
          () => tryAll({ ...NO_PLAN, tree, mutants }, { jobs: 1 }),
          FailingBaseline,
        );
        assertStringIncludes(error.message, said);
      }
    }));
});
