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

const BUN = "bun@1.4.4";
let bun: Promise<string> | undefined;

/**
 * Finds Bun itself, which npm keeps: a process started through npx would outlive a kill, and npx
 * asks the registry.
 */
export function bunPath(): Promise<string> {
  const script = "bun -e 'console.log(process.execPath)'";
  return bun ??= must(["npx", "--yes", `--package=${BUN}`, "-c", script], { cwd: ROOT })
    .then(({ stdout }) => stdout.trim().split("\n").at(-1) ?? "");
}
