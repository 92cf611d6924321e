/**
 * Finding the repository's own files.
 *
 * @module
 */

/** The repository's root folder, without a slash at the end. */
export const ROOT: string = decodeURIComponent(new URL("../../", import.meta.url).pathname)
  .replace(/\/$/, "");

/** What {@linkcode walk} leaves out wherever it meets it. */
const SKIPPED = new Set(["node_modules", ".git", ".build", "npm", "coverage"]);

/**
 * Lists the files below a folder of the repository, sorted, as paths from the root. A folder that
 * does not exist has none.
 */
export function walk(folder: string, accepts: (path: string) => boolean): string[] {
  const found: string[] = [];
  const visit = (path: string): void => {
    let entries: Deno.DirEntry[];
    try {
      entries = [...Deno.readDirSync(`${ROOT}/${path}`)];
    } catch {
      return;
    }
    for (const entry of entries) {
      const child = path === "" ? entry.name : `${path}/${entry.name}`;
      if (entry.isDirectory) {
        // tests/npm is ours, npm/ at the root is a product.
        if (!SKIPPED.has(entry.name) || child === "tests/npm") visit(child);
      } else if (accepts(child)) found.push(child);
    }
  };
  visit(folder);
  return found.sort();
}

/** Reads a file of the repository. */
export function read(path: string): string {
  return Deno.readTextFileSync(`${ROOT}/${path}`);
}

/** Reads the conformance tests' waivers. */
export function readWaivers(): { path: string; text: string }[] {
  return walk("tests/conformance", (path) => /\/waivers\w*\.json$/.test(path))
    .map((path) => ({ path, text: read(path) }));
}

/** Whether a path of the repository exists. */
export function exists(path: string): boolean {
  try {
    Deno.statSync(`${ROOT}/${path}`);
    return true;
  } catch {
    return false;
  }
}

/** Every file below a folder, anywhere on the machine. */
export async function* filesBelow(folder: string): AsyncGenerator<string> {
  for await (const entry of Deno.readDir(folder)) {
    const path = `${folder}/${entry.name}`;
    if (entry.isDirectory) yield* filesBelow(path);
    else yield path;
  }
}
