/**
 * The npm package as its users get it: scripts/test.ts builds the tarball, installs it in an empty
 * project and names that in NATKIT_NPM_PROJECT. Each runtime tries its own way in.
 */
import { execFile } from "node:child_process";
import { readFileSync, writeFileSync } from "node:fs";
import { describe, it } from "node:test";
import process from "node:process";
import { assert, assertEquals } from "@std/assert";

const PROJECT = process.env["NATKIT_NPM_PROJECT"] ?? "";
const RUNTIME = "Deno" in globalThis ? "Deno" : "Bun" in globalThis ? "Bun" : "Node";
const TYPESCRIPT = "typescript@5.9.3";

const manifest = (): { version: string; exports: object; bin: { natkit: string } } =>
  JSON.parse(readFileSync(`${PROJECT}/node_modules/natkit/package.json`, "utf8"));

/** Runs a program in the project; a failure rejects with what it said. */
function run(program: string, ...args: string[]): Promise<string> {
  return new Promise((resolve, reject) => {
    execFile(program, args, { cwd: PROJECT }, (error, stdout, stderr) => {
      if (error) reject(new Error(`${program} ${args.join(" ")}\n${stdout}${stderr}`));
      else resolve(stdout);
    });
  });
}

/** Runs a module in the project on the runtime this test runs on. */
function runModule(name: string, text: string): Promise<string> {
  const file = `${PROJECT}/${RUNTIME.toLowerCase()}_${name}`;
  writeFileSync(file, text);
  return run(process.execPath, ...(RUNTIME === "Deno" ? ["run", "-A", file] : [file]));
}

/** Runs the command as one does on the runtime: npx, bunx. */
function natkit(...args: string[]): Promise<string> {
  if (RUNTIME === "Node") return run("npx", "--no-install", "natkit", ...args);
  if (RUNTIME === "Bun") {
    return run(process.execPath, "x", "--bun", "--no-install", "natkit", ...args);
  }
  const program = `${PROJECT}/node_modules/natkit/${manifest().bin.natkit}`;
  return run(process.execPath, "run", "-A", program, ...args);
}

describe("the npm package", () => {
  it("has every entry point, each importable", async () => {
    const names = Object.keys(manifest().exports).map((name) => name.replace(/^\./, "natkit"));

    const output = await runModule(
      "imports.mjs",
      `for (const name of ${JSON.stringify(names)}) {
         const module = await import(name);
         console.log(name, Object.keys(module).length > 0);
       }`,
    );

    assertEquals(output.trim().split("\n"), names.map((name) => `${name} true`));
  });

  it("has no dependencies and names Node 20", () => {
    const { dependencies, engines } = manifest() as unknown as Record<string, unknown>;

    assertEquals([dependencies, engines], [undefined, { node: ">=20" }]);
  });

  it("brings the command", async () => {
    assert((await natkit("--version")).includes(manifest().version));
  });

  // The compiler runs once, it does not depend on the runtime.
  if (RUNTIME === "Node") {
    it("has types that TypeScript resolves and finds consistent", async () => {
      const names = Object.keys(manifest().exports).map((name) => name.replace(/^\./, "natkit"));
      writeFileSync(
        `${PROJECT}/types.mts`,
        names.map((name, index) => `import * as m${index} from "${name}";\nvoid m${index};\n`)
          .join("") +
          `import { openPort } from "natkit";\nconst wrong: number = openPort;\nvoid wrong;\n`,
      );
      const flags = "--noEmit --strict --target es2022 --module nodenext --skipLibCheck false";
      const libraries = "--lib es2022,esnext.disposable,dom";

      const output = await run(
        "npx",
        "--yes",
        "-p",
        TYPESCRIPT,
        "tsc",
        ...flags.split(" "),
        ...libraries.split(" "),
        "types.mts",
      ).catch((error) => String(error.message));

      // The one mistake that was made on purpose: with unresolved types it would go unseen.
      const errors = output.split("\n").filter((line) => line.includes(": error TS"));
      assertEquals(errors.length, 1, output);
      assert(errors[0]!.startsWith("types.mts") && errors[0]!.includes("TS2322"), output);
    });
  }
});
