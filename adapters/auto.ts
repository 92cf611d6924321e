/**
 * The runtime that this program runs on.
 *
 * @module
 */
import { bunRuntime } from "./bun.ts";
import { denoRuntime } from "./deno.ts";
import { nodeRuntime } from "./node.ts";
import type { Runtime } from "./runtime.ts";

/**
 * Deno's, Bun's or else Node's adapter. Deno and Bun are told by their globals, and asked for
 * first: both pose as Node too.
 */
export function systemRuntime(): Runtime {
  if ("Deno" in globalThis) return denoRuntime();
  if ("Bun" in globalThis) return bunRuntime();
  return nodeRuntime();
}
