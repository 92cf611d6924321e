import { describe, it } from "node:test";
import { assertEquals } from "@std/assert";
import { checkArrows, importsOf } from "../../scripts/checks/arrows.ts";

const finds = (path: string, specifier: string) =>
  checkArrows([{ path, text: `import { x } from "${specifier}";\n` }]).length > 0;

const ALLOWED: [from: string, to: string][] = [
  ["mod.ts", "./adapters/nat.ts"],
  ["testing.ts", "./core/gateway/mod.ts"],
  ["adapters/driver.ts", "../core/machine.ts"],
  ["adapters/cli/main.ts", "../nat.ts"],
  ["adapters/node.ts", "node:dgram"],
  ["core/ip.ts", "./bytes.ts"],
  ["core/mod.ts", "./portmap/session.ts"],
  ["core/pcp/client.ts", "../timers.ts"],
  ["core/pcp/client.ts", "./codec.ts"],
  ["core/pcp/server.ts", "../table/mod.ts"],
  ["core/portmap/session.ts", "../pcp/client.ts"],
  ["core/gateway/gateway.ts", "../natpmp/server.ts"],
  ["core/sim/world.ts", "../machine.ts"],
];

const WRONG: [from: string, to: string][] = [
  ["core/ip.ts", "../adapters/driver.ts"],
  ["core/ip.ts", "../mod.ts"],
  ["core/ip.ts", "./pcp/codec.ts"],
  ["core/ip.ts", "node:net"],
  ["core/ip.ts", "some-package"],
  ["core/ip.ts", "./table/mod.ts"],
  ["core/pcp/client.ts", "../natpmp/codec.ts"],
  ["core/pcp/client.ts", "../portmap/session.ts"],
  ["core/table/table.ts", "../pcp/codec.ts"],
  ["core/portmap/session.ts", "../gateway/gateway.ts"],
  ["core/gateway/gateway.ts", "../portmap/session.ts"],
  ["core/sim/world.ts", "../pcp/client.ts"],
  ["core/novel/thing.ts", "../pcp/codec.ts"],
  ["core/pcp/client.ts", "../mod.ts"],
  ["adapters/nat.ts", "../mod.ts"],
  ["adapters/nat.ts", "../tests/support.ts"],
  ["adapters/nat.ts", "some-package"],
  ["mod.ts", "./scripts/test.ts"],
];

describe("checkArrows()", () => {
  for (const [from, to] of ALLOWED) {
    it(`lets ${from} import ${to}`, () => assertEquals(finds(from, to), false));
  }
  for (const [from, to] of WRONG) {
    it(`catches ${from} importing ${to}`, () => assertEquals(finds(from, to), true));
  }

  it("catches a computed import in the core", () => {
    const findings = checkArrows([{ path: "core/ip.ts", text: "const m = import(name);" }]);

    assertEquals(findings.length, 1);
  });
});

describe("checkArrows() on circles", () => {
  const plant = (imports: Record<string, readonly string[]>) =>
    checkArrows(
      Object.entries(imports).map(([path, specifiers]) => ({
        path,
        text: specifiers.map((specifier) => `import type { X } from "${specifier}";\n`).join(""),
      })),
    );

  it("finds one through three files, types and folders alike, and names its way", () => {
    const findings = plant({
      "core/pcp/a.ts": ["../ip.ts", "./b.ts"],
      "core/pcp/b.ts": ["./parts/c.ts"],
      "core/pcp/parts/c.ts": ["../a.ts"],
      "core/ip.ts": [],
    });

    const way = "core/pcp/a.ts → core/pcp/b.ts → core/pcp/parts/c.ts → core/pcp/a.ts";
    assertEquals(findings, [`a circle: ${way}`]);
  });

  it("finds each of two, and a file that imports itself", () => {
    const findings = plant({
      "core/a.ts": ["./b.ts", "./c.ts"],
      "core/b.ts": ["./a.ts"],
      "core/c.ts": ["./a.ts"],
      "core/d.ts": ["./d.ts"],
    });

    assertEquals(findings, [
      "a circle: core/a.ts → core/b.ts → core/a.ts",
      "a circle: core/a.ts → core/c.ts → core/a.ts",
      "a circle: core/d.ts → core/d.ts",
    ]);
  });

  it("finds none where two ways lead to one file", () => {
    const findings = plant({
      "core/a.ts": ["./b.ts", "./c.ts"],
      "core/b.ts": ["./d.ts"],
      "core/c.ts": ["./d.ts"],
      "core/d.ts": [],
    });

    assertEquals(findings, []);
  });
});

describe("importsOf()", () => {
  it("finds every form of import and no text that looks like one", () => {
    const source = [
      'import { a } from "./a.ts";',
      'import type {\n  B,\n} from "./b.ts";',
      'export * from "./c.ts";',
      'import "./d.ts";',
      'const e = import("./e.ts");',
      'type F = import("./f.ts").F;',
      '// import { x } from "./comment.ts";',
      '/** import { y } from "./doc.ts"; */',
    ].join("\n");

    assertEquals(importsOf(source), [
      "./a.ts",
      "./b.ts",
      "./c.ts",
      "./d.ts",
      "./e.ts",
      "./f.ts",
    ]);
  });
});
