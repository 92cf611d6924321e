/**
 * A package of npm's as one file of ECMAScript, whatever it is made of.
 *
 * @module
 */
import { ROOT } from "./files.ts";
import { must } from "./process.ts";

/**
 * Bundles what a specifier of `deno.json`'s imports leads to; the default export is there even where
 * there is none.
 *
 * @param platform `"deno"` finds Node's modules; in a `"browser"` there are none, and a package that
 * can do without them does.
 * @throws If it cannot be bundled.
 */
export async function bundledPackage(name: string, platform: "deno" | "browser"): Promise<string> {
  const folder = await Deno.makeTempDir({ prefix: "natkit-package-" });
  try {
    const entry = `${folder}/entry.ts`;
    const from = JSON.stringify(name);
    const text = `import * as all from ${from};\nexport * from ${from};\n` +
      "export default (all as { default?: unknown }).default;\n";
    await Deno.writeTextFile(entry, text);
    const config = `--config=${ROOT}/deno.json`;
    const { stdout } = await must(
      [Deno.execPath(), "bundle", "--quiet", config, `--platform=${platform}`, entry],
      { cwd: ROOT },
    );
    return stdout;
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}
