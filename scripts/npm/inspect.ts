/**
 * Whether a built package is whole: everything that is imported is there, and nothing that only
 * Deno understands.
 *
 * @module
 */
import { importsOf } from "../checks/arrows.ts";
import { filesBelow } from "../lib/files.ts";
import { filesNamed, isModuleOf } from "./manifest.ts";

/** Lists what is wrong with the package in a folder. */
export async function inspectPackage(folder: string): Promise<string[]> {
  const faults: string[] = [];
  const files = new Set<string>();
  for await (const path of filesBelow(folder)) files.add(path);
  const named = await filesNamed(folder);
  for (const path of named.files) {
    if (!files.has(`${folder}/${path}`)) faults.push(`package.json: no ${path}`);
  }
  for (const path of files) {
    const isTypes = path.endsWith(".d.ts");
    if (!isTypes && !path.endsWith(".js")) continue;
    for (const specifier of importsOf(await Deno.readTextFile(path))) {
      const fault = judge(path, specifier, isTypes, files, named.dependencies);
      if (fault !== undefined) faults.push(`${path.slice(folder.length + 1)}: ${fault}`);
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
