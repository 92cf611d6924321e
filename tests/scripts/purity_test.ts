import { describe, it } from "node:test";
import { assertEquals } from "@std/assert";
import { checkPurity } from "../../scripts/checks/purity.ts";

const core = (text: string) => checkPurity([{ path: "core/a.ts", text }]);

/** A planted violation, and what is told of it. */
const IMPURE: Record<string, string> = {
  "const t = Date.now();": "Date",
  "const t = performance.now();": "performance",
  "setTimeout(() => {}, 1);": "setTimeout",
  "setInterval(f, 1);": "setInterval",
  "const r = Math.random();": "Math.random",
  "crypto.getRandomValues(b);": "crypto",
  "const r = fetch(url);": "fetch",
  'console.log("x");': "console",
  "async function f() {}": "async",
  "let p: Promise<void>;": "Promise",
  'import { x } from "node:dgram";': '"node:dgram"',
  "Deno.exit();": "Deno",
  "Bun.serve({});": "Bun",
  "process.exit();": "process.exit",
  "globalThis.x = 1;": "globalThis",
  "f(`${Date.now()}`);": "Date",
};

describe("checkPurity()", () => {
  for (const [source, told] of Object.entries(IMPURE)) {
    it(`catches ${source}`, () => {
      assertEquals(core(`const a = 1;\n${source}\n`), [`core/a.ts:2: ${told}`]);
    });
  }

  it("lets comments, strings and members of those names be", () => {
    const source = [
      "// Date.now() is not called here, nor Promise",
      "/** async, fetch and `node:dgram` */",
      'const text = "Deno and Bun and process.exit()";',
      "packet.fetch(); this.#async(); class A { process(now: number) {} }; process.start(now);",
      "const candidate = updateDate + Dated;",
    ].join("\n");

    assertEquals(core(source), []);
  });

  it("lets adapters use them", () => {
    assertEquals(checkPurity([{ path: "adapters/a.ts", text: "Date.now();" }]), []);
  });
});
