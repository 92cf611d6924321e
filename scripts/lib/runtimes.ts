/**
 * The runtimes everything is tried on.
 *
 * @module
 */
import { ROOT } from "./files.ts";
import { must } from "./process.ts";

/** A runtime's name, as it is printed. */
export type Runtime = "Deno" | "Node" | "Bun";

/** All of them. */
export const RUNTIMES: readonly Runtime[] = ["Deno", "Node", "Bun"];

/** The one that everything is tried on. */
const BUN_VERSION = "1.4.4";

const found = new Map<string, Promise<string>>();

/**
 * Finds the program of a package of npm's that is a runtime, `"node"` or `"bun"`: a process started
 * through npx would outlive a kill, and npx asks the registry.
 */
export function programIn(name: "node" | "bun", version: string): Promise<string> {
  const script = `${name} -e 'console.log(process.execPath)'`;
  const specifier = `${name}@${version}`;
  const known = found.get(specifier);
  if (known) return known;
  const finding = must(["npx", "--yes", `--package=${specifier}`, "-c", script], { cwd: ROOT })
    .then(({ stdout }) => stdout.trim().split("\n").at(-1) ?? "");
  found.set(specifier, finding);
  return finding;
}

/** Finds Bun itself, which npm keeps. */
export function bunPath(): Promise<string> {
  return programIn("bun", BUN_VERSION);
}
