/**
 * What every topic gets.
 *
 * @module
 */
import { type Runtime, RUNTIMES } from "../lib/runtimes.ts";
import type { Row } from "./report.ts";

/** How thoroughly to measure. */
export interface Context {
  /** Whether it is only to be seen that everything runs. */
  readonly isQuick: boolean;
}

/** A topic: measures, and tells it in rows. */
export type TopicRun = (context: Context) => AsyncGenerator<Row>;

/** On what to measure: where it takes long, a quick run is content with one runtime. */
export function runtimes({ isQuick }: Context): readonly Runtime[] {
  return isQuick ? ["Node"] : RUNTIMES;
}
