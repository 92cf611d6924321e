/**
 * The npm package by dnt, which lives on JSR alone.
 *
 * @module
 */
import { type Manifest, PACKAGE, PROGRAM } from "./manifest.ts";

/** Imported when it is needed: an import that cannot be resolved would stop the whole script. */
const DNT = "jsr:@deno/dnt@^0.42.1";

/** What Deno says where a registry, or one of its files, gives no answer. */
const NO_ANSWER = /\bfailed to load\. Import '[^']+' failed|\berror sending request\b/;

/** What is used of dnt's interface. */
interface Dnt {
  emptyDir(path: string): Promise<void>;
  build(options: Record<string, unknown>): Promise<void>;
}

/** JSR gave no answer. */
export class JsrUnreachable extends Error {}

/**
 * Puts the modules and their types into a folder.
 *
 * @param specifier Where dnt is.
 * @throws {JsrUnreachable} If JSR does not answer.
 * @throws What dnt throws, and what its import does for another reason.
 */
export async function buildByDnt(
  manifest: Manifest,
  folder: string,
  specifier: string = DNT,
): Promise<void> {
  const work = await Deno.makeTempDir({ prefix: "natkit-dnt-" });
  try {
    const { emptyDir, build } = await load(specifier);
    await emptyDir(work);
    await build(optionsFor(manifest, work));
    await Deno.remove(folder, { recursive: true }).catch(() => {});
    await Deno.rename(`${work}/esm`, folder);
    await Deno.remove(`${folder}/package.json`);
  } finally {
    await Deno.remove(work, { recursive: true });
  }
}

/** Imports dnt. */
async function load(specifier: string): Promise<Dnt> {
  try {
    return await import(specifier);
  } catch (error) {
    if (!(error instanceof Error) || !NO_ANSWER.test(error.message)) throw error;
    throw new JsrUnreachable(`${specifier} cannot be had: ${error.message}`, { cause: error });
  }
}

function optionsFor(manifest: Manifest, outDir: string): Record<string, unknown> {
  return {
    entryPoints: [
      ...Object.entries(manifest.exports).map(([name, path]) => ({ name, path })),
      { kind: "bin", name: PACKAGE, path: `./${PROGRAM}` },
    ],
    outDir,
    // What a runtime lacks is asked for by feature, not by the Deno global; and what every Node from
    // 20 on has needs no polyfill, whose import for its side effect no bundler would keep.
    shims: {},
    polyfills: false,
    scriptModule: false,
    declaration: "inline",
    // The tests have run on Node from the sources; the package's own follow on the tarball.
    test: false,
    skipSourceOutput: true,
    compilerOptions: {
      // Any older one brings polyfills where `polyfills` is not known.
      target: "Latest",
      lib: ["ESNext", "DOM", "DOM.Iterable"],
      sourceMap: true,
      inlineSources: true,
    },
    // `finish.ts` writes the package's own; this one is for the type check.
    package: {
      name: PACKAGE,
      version: manifest.version,
      devDependencies: { "@types/node": "^20" },
    },
  };
}
