import { describe, it } from "node:test";
import { assertEquals } from "@std/assert";
import { strip } from "../../scripts/checks/source.ts";

/** Source, and what is left of it with dots for blanks. */
const CASES: Record<string, [string, string]> = {
  "line comments": ["a(); // b\nc();", "a(); ....\nc();"],
  "block comments over lines": ["a/* b\n c */d", "a....\n.....d"],
  "the contents of strings": [`f("x // y", 'it\\'s');`, `f("......", '.....');`],
  "templates but not the code in them": ["`a ${f({ b: `c` })} d`", "`...{f({ b: `.` })}..`"],
  "regular expressions": ['x.match(/["/*]/g); y', "x.match(/...../g); y"],
};

describe("strip()", () => {
  for (const [name, [source, expected]] of Object.entries(CASES)) {
    it(`blanks out ${name}`, () => {
      const dotted = (text: string) => text.replaceAll(" ", ".");

      assertEquals(dotted(strip(source)), dotted(expected));
    });
  }

  it("takes a slash after a value for a division", () => {
    assertEquals(strip("a / b // c"), "a / b     ");
    assertEquals(strip("(a) / b + 'x' / c"), "(a) / b + ' ' / c");
  });

  it("takes a slash after a keyword for a regular expression", () => {
    assertEquals(strip('return /"/.test(a) // b'), "return / /.test(a)     ");
  });

  it("keeps strings when asked to", () => {
    assertEquals(strip(`import "./a.ts"; // b`, { strings: true }), `import "./a.ts";     `);
  });

  it("keeps every line where it is, whatever is left open", () => {
    for (const open of ["/*", '"', "`", "`${", "/a", "'\\"]) {
      const source = `a\n= ${open}\nb\n`;

      assertEquals(strip(source).split("\n").length, 4, open);
    }
  });
});
