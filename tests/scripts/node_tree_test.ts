import { describe, it } from "node:test";
import { assert, assertEquals, assertStringIncludes, assertThrows } from "@std/assert";
import { withScript } from "./on_deno.ts";

/** The address family decides whether a prefix contains an address: the other way round. */
const FLIPPED = { find: "!== cidr.family", replace: "=== cidr.family" };

const withTree = (test: (tree: typeof import("../../scripts/lib/node_tree.ts")) => unknown) => () =>
  withScript<typeof import("../../scripts/lib/node_tree.ts")>("lib/node_tree.ts", async (tree) => {
    await test(tree);
  });

describe("the tree with a planted bug", () => {
  it(
    "is what Node runs, in one copy and not in the other, until it is restored",
    withTree(async ({ NodeTree, edited }) => {
      const { readFile } = await import("node:fs/promises");
      const path = "core/cidr.ts";
      const test = "tests/core/cidr_test.ts";
      const text = await readFile(path, "utf8");
      const tree = await NodeTree.build();
      const other = tree.copy();
      try {
        assertEquals((await tree.run(test)).code, 0);
        tree.plant(path, edited(text, FLIPPED));
        assertEquals((await tree.run(test)).code, 1);
        assertEquals((await other.run(test)).code, 0);
        tree.restore();
        assertEquals((await tree.run(test)).code, 0);
        assertThrows(() => tree.plant(path, "const = 1;"), SyntaxError, path);
        assertThrows(() => tree.plant("core/nowhere.ts", ""), RangeError, "core/nowhere.ts");
      } finally {
        tree.remove();
        other.remove();
      }
    }),
  );

  it(
    "is edited where the text stands once, and nowhere else",
    withTree(({ edited }) => {
      assertEquals(edited("a < b", { find: "<", replace: "<=" }), "a <= b");
      assertEquals(edited("a", { find: "a", replace: "$&" }), "$&");
      for (const find of ["", "x", "a"]) {
        assertThrows(() => edited("a a", { find, replace: "b" }), RangeError, `"${find}"`);
      }
    }),
  );

  it(
    "imports the JavaScript of its neighbours",
    withTree(({ transpiled }) => {
      const script = transpiled("a.ts", 'import { b, type C } from "../b.ts";\nb satisfies C;\n');
      assertStringIncludes(script, 'from "../b.js"');
      assert(!script.includes("satisfies"));
    }),
  );
});
