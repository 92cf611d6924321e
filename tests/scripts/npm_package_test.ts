import { describe, it } from "node:test";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { assert, assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import { withScript } from "./on_deno.ts";

type Dnt = typeof import("../../scripts/npm/dnt.ts");
type Finish = typeof import("../../scripts/npm/finish.ts");
type Manifests = typeof import("../../scripts/npm/manifest.ts");

const STAND_IN = new URL("./dnt_stand_in.ts", import.meta.url).href;

/** A module of these words. */
const moduleOf = (text: string) => `data:text/javascript,${encodeURIComponent(text)}`;

async function withFolder(test: (folder: string) => Promise<void>): Promise<void> {
  const folder = await mkdtemp(join(tmpdir(), "natkit-dnt-"));
  try {
    await test(folder);
  } finally {
    await rm(folder, { recursive: true });
  }
}

const withDnt = (test: (dnt: Dnt, manifests: Manifests, folder: string) => Promise<void>) => () =>
  withScript<Dnt>(
    "npm/dnt.ts",
    (dnt) =>
      withScript<Manifests>(
        "npm/manifest.ts",
        (manifests) => withFolder((folder) => test(dnt, manifests, `${folder}/package`)),
      ),
  );

describe("the npm package by dnt", () => {
  it(
    "is what the package is by deno pack, from modules as dnt lays them",
    withDnt(async ({ buildByDnt }, { readManifest, packageJson }, folder) => {
      const manifest = readManifest();

      await buildByDnt(manifest, folder, STAND_IN);
      await withScript<Finish>(
        "npm/finish.ts",
        ({ finishPackage }) => finishPackage(manifest, folder),
      );

      const written = JSON.parse(await readFile(`${folder}/package.json`, "utf8"));
      assertEquals(written, packageJson(manifest));
      assertStringIncludes(await readFile(`${folder}/README.md`, "utf8"), 'from "natkit"');
      const { openPort } = await import(`file://${folder}/mod.js`);
      await assertRejects(() => openPort(0), RangeError, "'port' must be");
    }),
  );

  it(
    "is refused where a module imports a polyfill for its side effects",
    withDnt(async ({ buildByDnt }, { readManifest }, folder) => {
      const old = moduleOf(
        `import { build as all, emptyDir } from ${JSON.stringify(STAND_IN)};
         export { emptyDir };
         export const build = (options) => all({
           ...options,
           entryPoints: [{ path: "./core/ice/check_list.ts" }],
           compilerOptions: { ...options.compilerOptions, target: "ES2022" },
         });`,
      );
      await buildByDnt(readManifest(), folder, old);

      await withScript<Finish>("npm/finish.ts", async ({ finishPackage }) => {
        const error = await assertRejects(() => finishPackage(readManifest(), folder), Error);
        assertStringIncludes(error.message, "core/ice/check_list.js: imports");
        assertStringIncludes(error.message, "_dnt.polyfills.js for its side effects");
      });
    }),
  );

  it(
    "fails with dnt's own error, unless the registry does not answer",
    withDnt(async ({ buildByDnt, JsrUnreachable }, { readManifest }, folder) => {
      const manifest = readManifest();
      const failures: Readonly<Record<string, string>> = {
        "Had 3 diagnostics.":
          'export const emptyDir = () => {}, build = () => { throw new Error("Had 3 diagnostics."); };',
        "it is broken": 'throw new Error("it is broken");',
        "is not a function": "export const nothing = 1;",
      };
      for (const [message, text] of Object.entries(failures)) {
        const error = await assertRejects(
          () => buildByDnt(manifest, folder, moduleOf(text)),
          Error,
        );
        assertStringIncludes(error.message, message);
        assert(!(error instanceof JsrUnreachable), message);
      }
      const missing = `file://${folder}/nowhere.ts`;
      const error = await assertRejects(() => buildByDnt(manifest, folder, missing), Error);
      assert(!(error instanceof JsrUnreachable), error.message);

      const silent = "http://127.0.0.1:1/mod.ts"; // nobody listens
      await assertRejects(() => buildByDnt(manifest, folder, silent), JsrUnreachable, silent);
      // As Deno 2.9 says it of JSR.
      const words = "JSR package manifest for '@deno/dnt' failed to load. " +
        "Import 'https://jsr.invalid/@deno/dnt/meta.json' failed.";
      const unreachable = moduleOf(`throw new TypeError(${JSON.stringify(words)});`);
      await assertRejects(() => buildByDnt(manifest, folder, unreachable), JsrUnreachable, words);
    }),
  );
});

describe("what the npm package calls itself", () => {
  it("is natkit, where JSR is not named", () =>
    withScript<Manifests>("npm/manifest.ts", ({ renamed }) => {
      const manifest = { name: "@natkit/natkit" } as ReturnType<Manifests["readManifest"]>;
      const text = 'from "@natkit/natkit/pcp"; deno add jsr:@natkit/natkit; @natkit/natkitten';
      assertEquals(
        renamed(text, manifest),
        'from "natkit/pcp"; deno add jsr:@natkit/natkit; @natkit/natkitten',
      );
    }));

  it("is found out where a file has the name on JSR", () =>
    withScript<typeof import("../../scripts/npm/inspect.ts")>(
      "npm/inspect.ts",
      ({ inspectPackage }) =>
        withFolder(async (folder) => {
          await writeFile(`${folder}/package.json`, '{ "exports": { ".": "./mod.js" } }');
          await writeFile(`${folder}/mod.js`, "export const a = 1;\n");
          await writeFile(`${folder}/README.md`, 'import "@natkit/natkit";\n');
          assertEquals(await inspectPackage(folder), [
            "README.md: calls the package @natkit/natkit",
          ]);
        }),
    ));
});
