/**
 * What a program with probes (`probes.ts`) and those who run it say to each other.
 *
 * @module
 */

/** The global array where it marks what was passed: a byte for each number. */
export const MARKS = "natkitPassed";

/** Which marks the tests of a file pass. */
export interface Passed {
  /** Passed while the file was loaded, or between its tests. */
  readonly aside: number[];
  /** In the order in which they ran. */
  readonly tests: PassedByTest[];
}

/** Which marks a test passes. */
export interface PassedByTest {
  /** Which one of the file's tests it is, from 0. */
  readonly place: number;
  /** What it used of the processor, milliseconds. */
  readonly usedMs: number;
  readonly marks: readonly number[];
}
