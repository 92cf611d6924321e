/**
 * What becomes of compiled modules, whichever tool made them: the package `natkit` as its users get
 * it.
 *
 * @module
 */
import { filesBelow, read, ROOT } from "../lib/files.ts";
import { bundlePackage } from "./bundle.ts";
import { findSideEffects, inspectPackage } from "./inspect.ts";
import { type Manifest, packageJson, renamed } from "./manifest.ts";
import { npmReadme } from "./readme.ts";

/**
 * Finishes the package in a folder, in place: the modules lie in it as they do in the repository,
 * each with its types beside it.
 *
 * @throws If what comes out is not whole.
 */
export async function finishPackage(manifest: Manifest, folder: string): Promise<void> {
  for await (const path of filesBelow(folder)) {
    if (path.endsWith(".ts") && !path.endsWith(".d.ts")) await Deno.remove(path);
    else if (/\.(js|d\.ts)$/.test(path)) {
      await Deno.writeTextFile(path, renamed(await Deno.readTextFile(path), manifest));
    }
  }
  await Deno.writeTextFile(`${folder}/README.md`, npmReadme(read("README.md"), manifest));
  await Deno.copyFile(`${ROOT}/LICENSE`, `${folder}/LICENSE`);
  const fields = JSON.stringify(packageJson(manifest), null, 2);
  await Deno.writeTextFile(`${folder}/package.json`, `${fields}\n`);
  refuse(await findSideEffects(folder));
  await bundlePackage(folder);
  refuse(await inspectPackage(folder));
}

function refuse(faults: readonly string[]): void {
  if (faults.length > 0) throw new Error(`The package is not whole:\n${faults.join("\n")}`);
}
