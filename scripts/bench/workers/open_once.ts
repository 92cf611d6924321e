/**
 * One `openPort` as a program's first: at the default gateway, found by itself.
 *
 * @module
 */
import { openPort } from "../../../mod.ts";

/** What `open-once` takes. */
export interface OpenOnceOptions {
  readonly timeoutMs: number;
}

/** What `open-once` measures. */
export interface OpenOnceResult {
  readonly elapsedMs: number;
  readonly ok: boolean;
  /** The protocol, or what went wrong. */
  readonly detail: string;
}

/** The task. */
export async function openOnce({ timeoutMs }: OpenOnceOptions): Promise<OpenOnceResult> {
  const from = performance.now();
  const [ok, detail] = await openPort(6000, { timeoutMs }).then(
    ({ via }) => [true, via] as const,
    (error: Error) => [false, error.message] as const,
  );
  return { elapsedMs: performance.now() - from, ok, detail };
}
