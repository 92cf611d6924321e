/**
 * What an entry point loads before its first line runs: `mod.ts` is for programs that want a port,
 * so it brings no server, table or simulation, and no words of another operating system.
 *
 * @module
 */
import { resolve } from "./arrows.ts";
import { type Finding, type SourceFile, strip } from "./source.ts";

/** Imports and re-exports of values at the top; `import()` is for when it is needed. */
const STATIC =
  /^(?:import|export)\s*(?!type\b)(?:(?:\*(?:\s*as\s+\w+)?|\{[^}]*\}|\w+(?:\s*,\s*\{[^}]*\})?)\s*from\s*)?(["'])([^"'\n]+)\1/gm;

/** What each entry point does without. */
const WITHOUT: Readonly<Record<string, RegExp>> = {
  "mod.ts":
    /^core\/(table|gateway|sim)\/|\/(\w+_)?server\w*\.ts$|^adapters\/(cli\/|discovery\/(darwin|windows)\.ts)/,
};

/**
 * The modules that importing one loads, itself included, each with the one that imports it first;
 * packages are left out.
 */
export function reachedFrom(
  entry: string,
  files: readonly SourceFile[],
): ReadonlyMap<string, string> {
  const texts = new Map(files.map(({ path, text }) => [path, text]));
  const reached = new Map([[entry, ""]]);
  for (const path of reached.keys()) {
    for (
      const [, , specifier] of strip(texts.get(path) ?? "", { strings: true }).matchAll(STATIC)
    ) {
      const target = specifier!.startsWith(".") ? resolve(path, specifier!) : undefined;
      if (target !== undefined && !reached.has(target)) reached.set(target, path);
    }
  }
  return reached;
}

/** Finds modules that an entry point loads and should do without, and the way that leads there. */
export function checkReach(files: readonly SourceFile[]): Finding[] {
  return Object.entries(WITHOUT).flatMap(([entry, unwanted]) => {
    const reached = reachedFrom(entry, files);
    return [...reached.keys()].filter((path) => unwanted.test(path)).map((path) => {
      const way = [path];
      while (way[0] !== entry) way.unshift(reached.get(way[0]!)!);
      return `${entry} loads ${path}: ${way.join(" → ")}`;
    });
  });
}
