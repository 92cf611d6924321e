/**
 * `deno task build:npm`: the npm package `natkit` by dnt, in `npm/package/`, with its tarball
 * `npm/natkit-VERSION.tgz`. `deno task pack` (`--fallback`) makes the same from `deno pack`, for
 * machines that do not reach JSR.
 *
 * @module
 */
// deno-lint-ignore-file no-console
import { ROOT } from "./lib/files.ts";
import { must } from "./lib/process.ts";
import { buildByDnt, JsrUnreachable } from "./npm/dnt.ts";
import { finishPackage } from "./npm/finish.ts";
import { PACKAGE, readManifest } from "./npm/manifest.ts";
import { buildByDenoPack } from "./npm/pack.ts";

/** Where products go. */
const PRODUCTS = `${ROOT}/npm`;

/**
 * Builds the package and its tarball, and answers the tarball's path.
 *
 * @param by The tool.
 * @param products Where they go.
 * @throws If a step fails, or what comes out is not whole.
 */
export async function buildPackage(by: "dnt" | "deno pack", products: string): Promise<string> {
  const manifest = readManifest();
  const folder = `${products}/package`;
  await Deno.mkdir(products, { recursive: true });
  await (by === "dnt" ? buildByDnt : buildByDenoPack)(manifest, folder);
  await finishPackage(manifest, folder);
  await must(["npm", "pack", "--silent", "--ignore-scripts", "--pack-destination", products], {
    cwd: folder,
  });
  return `${products}/${PACKAGE}-${manifest.version}.tgz`;
}

/** Installs a tarball in an empty project, and other packages where they are named. */
export async function installPackage(
  tarball: string,
  project: string,
  others: readonly string[] = [],
): Promise<void> {
  await Deno.mkdir(project, { recursive: true });
  await Deno.writeTextFile(`${project}/package.json`, '{ "type": "module", "private": true }\n');
  const flags = ["--prefer-offline", "--no-audit", "--no-fund"];
  await must(["npm", "install", ...flags, tarball, ...others], { cwd: project });
}

async function main(args: readonly string[]): Promise<number> {
  const unknown = args.find((arg) => arg !== "--fallback");
  if (unknown !== undefined) {
    console.error(`Unknown argument ${unknown}: there is --fallback`);
    return 2;
  }
  const by = args.includes("--fallback") ? "deno pack" : "dnt";
  try {
    const tarball = await buildPackage(by, PRODUCTS);
    const { size } = await Deno.stat(tarball);
    console.log(`${tarball.slice(ROOT.length + 1)}, ${(size / 1024).toFixed(0)} KiB, by ${by}`);
    return 0;
  } catch (error) {
    console.error(error instanceof Error ? error.message : String(error));
    if (error instanceof JsrUnreachable) {
      console.error(
        "dnt comes from JSR, which this machine does not reach; `deno task pack` makes the " +
          "same package by `deno pack` instead.",
      );
    }
    return 1;
  }
}

if (import.meta.main) Deno.exit(await main(Deno.args));
