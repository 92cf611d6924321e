import { describe, it } from "node:test";
import { assertEquals } from "@std/assert";
import { checkReach, reachedFrom } from "../../scripts/checks/reach.ts";

const files = (texts: Record<string, string>) =>
  Object.entries(texts).map(([path, text]) => ({ path, text }));

const reached = (texts: Record<string, string>) => [...reachedFrom("mod.ts", files(texts)).keys()];

describe("reachedFrom()", () => {
  it("follows what is imported and exported anew, over several lines too", () => {
    const mod = [
      'import "./a.ts";',
      'import b from "./b.ts";',
      'import * as c from "./c.ts";',
      "export {",
      "  d,",
      "  type D,",
      '} from "./d.ts";',
      'export * from "./core/e.ts";',
      'import { x } from "node:os";',
    ].join("\n");

    const paths = reached({ "mod.ts": mod, "core/e.ts": 'export * from "../f.ts";' });

    assertEquals(paths, ["mod.ts", "a.ts", "b.ts", "c.ts", "d.ts", "core/e.ts", "f.ts"]);
  });

  it("leaves out types, what is loaded when it is needed, and what only looks like an import", () => {
    const mod = [
      'import type { A } from "./a.ts";',
      'export type * from "./b.ts";',
      'const c = await import("./c.ts");',
      '// import "./d.ts";',
      'type E = typeof import("./e.ts");',
    ].join("\n");

    assertEquals(reached({ "mod.ts": mod }), ["mod.ts"]);
  });
});

describe("checkReach()", () => {
  it("tells the way to what should not be loaded", () => {
    const findings = checkReach(files({
      "mod.ts": 'export * from "./adapters/api.ts";',
      "adapters/api.ts": 'import { a } from "../core/pcp/mod.ts";',
      "core/pcp/mod.ts": 'export * from "./client.ts";\nexport * from "./server_mapping.ts";',
    }));

    assertEquals(findings, [
      "mod.ts loads core/pcp/server_mapping.ts: " +
      "mod.ts → adapters/api.ts → core/pcp/mod.ts → core/pcp/server_mapping.ts",
    ]);
  });

  for (
    const path of [
      "core/table/table.ts",
      "core/gateway/mod.ts",
      "core/sim/world.ts",
      "core/natpmp/server.ts",
      "adapters/gateway_server.ts",
      "adapters/discovery/windows.ts",
      "adapters/cli/main.ts",
    ]
  ) {
    it(`catches ${path}`, () => {
      const findings = checkReach(files({ "mod.ts": `export * from "./${path}";` }));

      assertEquals(findings, [`mod.ts loads ${path}: mod.ts → ${path}`]);
    });
  }
});
