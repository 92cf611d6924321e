/**
 * The npm package by dnt, which lives on JSR alone.
 *
 * @module
 */
import { ROOT } from "../lib/files.ts";
import { type Manifest, packageFields, PROGRAM } from "./manifest.ts";

/** Imported when it is needed: an import that cannot be resolved would stop the whole script. */
const DNT = "jsr:@deno/dnt@^0.42.1";

/** What is used of dnt's interface. */
interface Dnt {
  emptyDir(path: string): Promise<void>;
  build(options: Record<string, unknown>): Promise<void>;
}

/** JSR gave no answer. */
export class JsrUnreachable extends Error {}

/**
 * Builds the package in a folder.
 *
 * @throws {JsrUnreachable} If dnt cannot be had.
 */
export async function buildByDnt(manifest: Manifest, folder: string): Promise<void> {
  const dnt: Dnt = await import(DNT).catch((cause) => {
    throw new JsrUnreachable(`${DNT} cannot be had: ${cause.message}`, { cause });
  });
  await dnt.emptyDir(folder);
  await dnt.build({
    entryPoints: [
      ...Object.entries(manifest.exports).map(([name, path]) => ({ name, path })),
      { kind: "bin", name: "natkit", path: `./${PROGRAM}` },
    ],
    outDir: folder,
    // No shim: what a runtime lacks is asked for by feature, not by the Deno global.
    shims: {},
    scriptModule: false,
    // The tests have run on Node from the sources; the package's own follow on the tarball.
    test: false,
    skipSourceOutput: true,
    compilerOptions: {
      target: "ES2022",
      lib: ["ESNext", "DOM", "DOM.Iterable"],
      sourceMap: true,
      inlineSources: true,
    },
    package: {
      ...packageFields(manifest),
      type: "module",
      devDependencies: { "@types/node": "^20" },
    },
    postBuild: async () => {
      for (const file of ["README.md", "LICENSE"]) {
        await Deno.copyFile(`${ROOT}/${file}`, `${folder}/${file}`);
      }
    },
  });
}
