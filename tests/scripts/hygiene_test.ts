import { describe, it } from "node:test";
import { assertEquals } from "@std/assert";
import {
  checkEmptyTests,
  checkMachinePaths,
  checkSwitchedTests,
  checkTestNames,
  checkUndone,
  checkUsing,
} from "../../scripts/checks/hygiene.ts";

describe("the house rules", () => {
  it("catch marks of unfinished work", () => {
    const text = `a\n// ${"TO" + "DO"} later\n`;

    assertEquals(checkUndone([{ path: "core/a.ts", text }]), [`core/a.ts:2: ${"TO" + "DO"}`]);
  });

  it("catch tests that are switched off or on alone", () => {
    const plant = (text: string) => checkSwitchedTests([{ path: "tests/a_test.ts", text }]).length;

    assertEquals(plant('it.only("x", f);'), 1);
    assertEquals(plant('describe.skip("x", f);'), 1);
    assertEquals(plant('test("x", { skip: true }, f);'), 1);
    assertEquals(plant('test("x", (t) => t.skip("y"));'), 1);
    assertEquals(plant('test("x", { skip: platform === "win32" }, f);'), 0);
    assertEquals(plant('it("does not skip: or it.only", () => only(skipped));'), 0);
  });

  it("catch tests without a body, or with an empty one", () => {
    const plant = (text: string) => checkEmptyTests([{ path: "tests/a_test.ts", text }]);

    assertEquals(plant('a();\n  it("x (y), z");'), ['tests/a_test.ts:2: it("x (y), z")']);
    assertEquals(plant("it(`of ${JSON.stringify(a)}`);").length, 1);
    assertEquals(plant('test(\n  "x",\n  async () => {\n    // Later.\n  },\n);').length, 1);
    assertEquals(plant('it("x", () => {});').length, 1);
    assertEquals(plant('it("x", () => claim(a()));\nit("y", body);').length, 0);
    assertEquals(plant('it("x", () => { assert({}); });').length, 0);
    assertEquals(plant("await test(`${a}`); /^a/.test(b); rig.it(c);").length, 0);
  });

  it("catch a file of tests that would never be run", () => {
    const text = 'import { it } from "node:test";\nit("x", body);';
    const named = (path: string) => checkTestNames([{ path, text }]).length;

    assertEquals(named("tests/core/ip_tests.ts"), 1);
    assertEquals(named("tests/core/ip_test.ts"), 0);
  });

  it("catch paths of one machine, not addresses or patterns", () => {
    const plant = (text: string) => checkMachinePaths([{ path: "core/a.ts", text }]).length;

    assertEquals(plant(`const file = "${"/ro" + "ot"}/x";`), 1);
    assertEquals(plant(`"${"/ho" + "me"}/someone/x"`), 1);
    assertEquals(plant(`https://example.org/${"work"}/x, ./${"root"}/x, /proc/net/route`), 0);
  });

  it("catch using declarations where Node 20 reads them, not in examples", () => {
    const plant = (path: string, text: string) => checkUsing([{ path, text }]).length;

    assertEquals(plant("adapters/a.ts", "await using nat = await Nat.open();"), 1);
    assertEquals(plant("tests/a_test.ts", "using file = open();"), 1);
    assertEquals(plant("adapters/a.ts", "/** ```ts\n * await using nat = open();\n */"), 0);
    assertEquals(plant("tests/lab/a_test.ts", "using file = open();"), 0);
  });
});
