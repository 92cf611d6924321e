/**
 * The seeds that found a bug: `seeds.txt`, one a line with its cause.
 *
 * @module
 */
import { readFileSync } from "node:fs";
import process from "node:process";

/** A seed that found a bug. */
export interface KeptSeed {
  readonly seed: number;
  readonly cause: string;
}

/** Reads `tests/sim/seeds.txt` of the checkout that the tests run in. */
export function keptSeeds(): KeptSeed[] {
  const root = process.env.NATKIT_ROOT ?? process.cwd();
  const kept: KeptSeed[] = [];
  for (const line of readFileSync(`${root}/tests/sim/seeds.txt`, "utf8").split("\n")) {
    const match = /^([0-9]+)\s+(.+)$/.exec(line);
    if (match) kept.push({ seed: Number(match[1]), cause: match[2]! });
  }
  return kept;
}
