/**
 * How much memory a test's process holds.
 *
 * @module
 */
import process from "node:process";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";

/** Bytes in use once what nobody holds any more is gone: what has not been collected is no leak. */
export function heapAfterCollection(): number {
  const { Bun } = globalThis as { readonly Bun?: { gc(isSync: boolean): void } };
  if (Bun) Bun.gc(true);
  else {
    setFlagsFromString("--expose-gc");
    runInNewContext("gc")();
  }
  return process.memoryUsage().heapUsed;
}
