/**
 * How much memory a process holds, after what nobody holds any more is gone.
 *
 * @module
 */
import process from "node:process";

interface Collectors {
  gc?(): void;
  Bun?: { gc(isSync: boolean): void };
}

/** Collects garbage where the runtime was started so that it can be asked to. */
export function collect(): void {
  const { gc, Bun } = globalThis as Collectors;
  for (let i = 0; i < 3; i++) Bun ? Bun.gc(true) : gc?.();
}

/** Bytes on the heap and in buffers, after a collection. */
export function heapAfterCollection(): number {
  collect();
  const { heapUsed, external } = process.memoryUsage();
  return heapUsed + external;
}

/** Bytes on the heap as it stands. */
export function heapUsed(): number {
  return process.memoryUsage().heapUsed;
}
