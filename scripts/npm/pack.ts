/**
 * The npm package by `deno pack`, which is built into Deno: each module stays a module, with its
 * types beside it. What comes out is for a scoped package without programs, and carries the sources
 * along; here it becomes `natkit`.
 *
 * @module
 */
import { filesBelow, ROOT } from "../lib/files.ts";
import { must } from "../lib/process.ts";
import { type Manifest, PACKAGE, packageFields, PROGRAM } from "./manifest.ts";

/** A subpath for the program, so that it is compiled; it does not stay an export. */
const PROGRAM_EXPORT = "./bin";

/** Where a module ends up: `./core/mod.ts` → `./core/mod.js`. */
const compiled = (path: string, extension = ".js"): string =>
  `./${path.replace(/^\.\//, "").replace(/\.ts$/, extension)}`;

/**
 * Builds the package in a folder.
 *
 * @throws If `deno pack` fails.
 */
export async function buildByDenoPack(manifest: Manifest, folder: string): Promise<void> {
  const work = await Deno.makeTempDir({ prefix: "natkit-pack-" });
  try {
    await stage(manifest, work);
    const raw = `${work}/raw.tgz`;
    await must(
      [Deno.execPath(), "pack", "--quiet", "--allow-dirty", "--output", raw],
      { cwd: `${work}/stage`, env: { NO_COLOR: "1" } },
    );
    await Deno.remove(folder, { recursive: true }).catch(() => {});
    await Deno.mkdir(folder, { recursive: true });
    await must(["tar", "-xzf", raw, "-C", folder, "--strip-components=1"]);
    await tidy(folder, manifest);
    await Deno.writeTextFile(
      `${folder}/package.json`,
      JSON.stringify(packageJson(manifest), null, 2) + "\n",
    );
  } finally {
    await Deno.remove(work, { recursive: true });
  }
}

/** Copies what is published, beside a `deno.json` that exports the program as well. */
async function stage(manifest: Manifest, work: string): Promise<void> {
  const to = `${work}/stage`;
  await Deno.mkdir(to);
  for (const name of manifest.publish.include) {
    if (name === "deno.json") continue;
    const from = `${ROOT}/${name}`.replace(/\/$/, "");
    const isThere = await Deno.stat(from).then(() => true, () => false);
    if (isThere) await must(["cp", "-R", from, to]);
  }
  const { name, version, license, imports, compilerOptions } = manifest;
  const exports = { ...manifest.exports, [PROGRAM_EXPORT]: `./${PROGRAM}` };
  await Deno.writeTextFile(
    `${to}/deno.json`,
    JSON.stringify({ name, version, license, imports, compilerOptions, exports }),
  );
}

/** Leaves out the sources, and names the package as it is called on npm. */
async function tidy(folder: string, manifest: Manifest): Promise<void> {
  for await (const path of filesBelow(folder)) {
    if (path.endsWith(".ts") && !path.endsWith(".d.ts")) {
      await Deno.remove(path);
    } else if (/\.(js|d\.ts)$/.test(path)) {
      const text = await Deno.readTextFile(path);
      await Deno.writeTextFile(path, text.replaceAll(manifest.name, PACKAGE));
    }
  }
}

function packageJson(manifest: Manifest): Record<string, unknown> {
  const entry = (path: string) => ({
    types: compiled(path, ".d.ts"),
    default: compiled(path),
  });
  const main = manifest.exports["."] ?? "";
  return {
    ...packageFields(manifest),
    type: "module",
    main: compiled(main),
    types: compiled(main, ".d.ts"),
    bin: { natkit: compiled(PROGRAM) },
    exports: Object.fromEntries(
      Object.entries(manifest.exports).map(([name, path]) => [name, entry(path)]),
    ),
  };
}
