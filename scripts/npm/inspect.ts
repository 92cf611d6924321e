/**
 * Whether a built package is whole: everything that is imported is there, nothing that only Deno
 * understands, and it calls itself as it is called on npm.
 *
 * @module
 */
import { importsOf } from "../checks/arrows.ts";
import { filesBelow } from "../lib/files.ts";
import { filesNamed, isModuleOf, readManifest, scopedName } from "./manifest.ts";

/** Imports nothing by name. */
const FOR_EFFECT = /^import\s*["'](\.[^"']+)["']/gm;

/** Lists what is wrong with the package in a folder. */
export async function inspectPackage(folder: string): Promise<string[]> {
  const faults: string[] = [];
  const files = new Set<string>();
  for await (const path of filesBelow(folder)) files.add(path);
  const named = await filesNamed(folder);
  for (const path of named.files) {
    if (!files.has(`${folder}/${path}`)) faults.push(`package.json: no ${path}`);
  }
  const scoped = scopedName(readManifest());
  for (const path of files) {
    if (!/\.(js|d\.ts|md)$/.test(path)) continue;
    const short = path.slice(folder.length + 1);
    const text = await Deno.readTextFile(path);
    const [name] = text.match(scoped) ?? [];
    if (name !== undefined) faults.push(`${short}: calls the package ${name}`);
    if (path.endsWith(".md")) continue;
    for (const specifier of importsOf(text)) {
      const fault = judge(path, specifier, path.endsWith(".d.ts"), files, named.dependencies);
      if (fault !== undefined) faults.push(`${short}: ${fault}`);
    }
  }
  return faults;
}

/**
 * Lists the modules in a folder that import others for their side effects, shims and polyfills of
 * a tool's: `package.json` says that there are none, so bundlers leave them out.
 */
export async function findSideEffects(folder: string): Promise<string[]> {
  const faults: string[] = [];
  for await (const path of filesBelow(folder)) {
    if (!path.endsWith(".js")) continue;
    for (const [, specifier] of (await Deno.readTextFile(path)).matchAll(FOR_EFFECT)) {
      faults.push(`${path.slice(folder.length + 1)}: imports ${specifier} for its side effects`);
    }
  }
  return faults;
}

function judge(
  path: string,
  specifier: string,
  isTypes: boolean,
  files: ReadonlySet<string>,
  dependencies: readonly string[],
): string | undefined {
  if (specifier.startsWith("node:") || specifier === "?") return undefined;
  if (isModuleOf(dependencies, specifier)) return undefined;
  if (!specifier.startsWith(".")) return `imports ${specifier}, which is no dependency`;
  const target = normal(path.replace(/[^/]+$/, "") + specifier);
  const wanted = isTypes ? target.replace(/\.js$/, ".d.ts") : target;
  return files.has(wanted) ? undefined : `imports ${specifier}, which is not there`;
}

/** Takes `.` and `..` out of a path. */
function normal(path: string): string {
  const parts: string[] = [];
  for (const part of path.split("/")) {
    if (part === "..") parts.pop();
    else if (part !== ".") parts.push(part);
  }
  return parts.join("/");
}
