/**
 * What dnt leaves in a folder, made by the compiler that it runs as well: dnt itself comes from a
 * registry that many machines do not reach. `build` takes the options that the package is built by,
 * and reads of them what decides where files lie; what it did not do it would be no stand-in for
 * fails here.
 *
 * @module
 */
import ts from "typescript";

/** The options that are read. */
interface Options {
  readonly entryPoints: readonly { readonly path: string }[];
  readonly outDir: string;
  readonly scriptModule: boolean;
  readonly declaration: string;
  readonly compilerOptions: { readonly target: string; readonly sourceMap: boolean };
  readonly package: Readonly<Record<string, unknown>>;
}

const RELATIVE = /(\bfrom\s*|\bimport\s*\(?\s*)"(\.[^"]+)\.ts"/g;
/** What dnt has a polyfill for that every target but `"Latest"` gets. */
const POLYFILLED = /\.findLast(Index)?\(/;

/** Makes a folder empty. */
export async function emptyDir(path: string): Promise<void> {
  await Deno.remove(path, { recursive: true }).catch(() => {});
  await Deno.mkdir(path, { recursive: true });
}

/** Compiles the entry points and what they import, each module to one of its own. */
export async function build(options: Options): Promise<void> {
  const { outDir, scriptModule, declaration } = options;
  if (scriptModule || declaration !== "inline") throw new Error("There is no stand-in for that");
  const found = new Set(options.entryPoints.map(({ path }) => path.replace(/^\.\//, "")));
  for (const path of found) {
    const text = await Deno.readTextFile(path);
    for (const [, , specifier] of text.matchAll(RELATIVE)) {
      found.add(new URL(`${specifier}.ts`, `file:///${path}`).pathname.slice(1));
    }
    await emit(path, text, options);
  }
  const { name, version } = options.package;
  const entry = { import: { types: "./types/mod.d.ts", default: "./esm/mod.js" } };
  const fields = { name, version, exports: { ".": entry }, _generatedBy: "dnt@dev" };
  await Deno.writeTextFile(`${outDir}/package.json`, JSON.stringify(fields));
  await Deno.writeTextFile(`${outDir}/esm/package.json`, '{\n  "type": "module"\n}\n');
}

async function emit(path: string, text: string, options: Options): Promise<void> {
  const { target } = options.compilerOptions;
  let source = text.replace(RELATIVE, '$1"$2.js"');
  const up = "../".repeat(path.split("/").length - 1) || "./";
  if (target !== "Latest" && POLYFILLED.test(text)) {
    source = `import "${up}_dnt.polyfills.js";\n${source}`;
  }
  const compilerOptions: ts.CompilerOptions = {
    target: ts.ScriptTarget.ESNext,
    module: ts.ModuleKind.ESNext,
    sourceMap: true,
    inlineSources: true,
    isolatedDeclarations: true,
    declaration: true,
  };
  const fileName = `${up}src/${path}`;
  const { outputText, sourceMapText } = ts.transpileModule(source, { fileName, compilerOptions });
  const types = ts.transpileDeclaration(source, { fileName, compilerOptions });
  const out = `${options.outDir}/esm/${path.replace(/\.ts$/, "")}`;
  await Deno.mkdir(out.slice(0, out.lastIndexOf("/")), { recursive: true });
  await Deno.writeTextFile(`${out}.js`, outputText);
  await Deno.writeTextFile(`${out}.js.map`, sourceMapText ?? "");
  await Deno.writeTextFile(`${out}.d.ts`, types.outputText);
}
