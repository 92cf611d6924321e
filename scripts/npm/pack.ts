/**
 * The npm package by `deno pack`, which is built into Deno: each module stays a module, with its
 * types beside it. What comes out is for a scoped package without programs, and carries the sources
 * along: `finish.ts` makes it `natkit`.
 *
 * @module
 */
import { ROOT } from "../lib/files.ts";
import { must } from "../lib/process.ts";
import { type Manifest, PROGRAM } from "./manifest.ts";

/** A subpath for the program, so that it is compiled; it does not stay an export. */
const PROGRAM_EXPORT = "./bin";

/**
 * Puts the modules and their types into a folder.
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
