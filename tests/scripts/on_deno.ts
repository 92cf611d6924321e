/**
 * Scripts that stand on Deno's own API or on the TypeScript compiler, which bundles for Node and
 * Bun cannot carry: their tests have something to try on Deno only.
 *
 * @module
 */
import process from "node:process";

const isDeno = "deno" in process.versions;

/** Runs the test with a script that is loaded by its path from `scripts/`; elsewhere nothing. */
export async function withScript<T>(
  path: string,
  test: (script: T) => void | Promise<void>,
): Promise<void> {
  if (!isDeno) return;
  const script = new URL(`../../scripts/${path}`, import.meta.url).href;
  await test(await import(script) as T);
}
