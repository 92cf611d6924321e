/**
 * Which tests pass the place of a bug, learnt from a run of all of them on sources with probes
 * (`probes.ts`), and in which order they are asked: first the quickest ones, up to a small sum, then
 * the others. A test that passes the place of no bug need not be asked about it.
 *
 * A place passed while a test's file is loaded, or between its tests, counts for all of that file;
 * so does every place for a file that starts processes, in which nobody looks.
 *
 * @module
 */
import { readFileSync } from "node:fs";
import type { NodeTree } from "../lib/node_tree.ts";
import type { Passed } from "./marks.ts";
import { Probes } from "./probes.ts";
import type { Plan, Planned } from "./plan.ts";

/** The first tests asked take this long together, milliseconds, where it is more than one. */
const QUICK_MS = 300;

/** A single test that takes longer takes long, milliseconds. */
const LONG_MS = 1_000;

/** What is known of a file of tests. */
export interface KnownTests extends Passed {
  /** What the file uses of the processor, milliseconds. */
  readonly usedMs: number;
}

/** A file of tests, and which of them are asked. */
export interface Asked {
  readonly test: string;
  /** Their places in the file; null: all of them. */
  readonly chosen: readonly number[] | null;
  /** What they use of the processor without a bug, milliseconds. */
  readonly usedMs: number;
}

/** The places of a plan's bugs, and who passes them. */
export class Reach {
  readonly #plan: Plan;
  readonly #numbers = new Map<Planned, { readonly place: number; readonly file: number }>();
  readonly #marked = new Map<string, string>();
  readonly #known = new Map<string, KnownTests & { readonly isWhole: boolean }>();

  constructor(plan: Plan) {
    this.#plan = plan;
    const probes = new Probes();
    const files = Map.groupBy(plan.mutants, ({ mutant }) => mutant.path);
    const probed = [...files].map(([path, bugs]) => {
      const mutants = bugs.map(({ mutant }) => mutant);
      const { ofMutants, ofFile, mark } = probes.place(path, bugs[0]!.original, mutants);
      bugs.forEach((bug, index) => {
        this.#numbers.set(bug, { place: ofMutants[index]!, file: ofFile });
      });
      return [path, mark] as const;
    });
    for (const [path, mark] of probed) this.#marked.set(path, mark());
  }

  /** Puts probes into a tree's sources, until they are restored. */
  plant(tree: NodeTree): void {
    for (const [path, text] of this.#marked) tree.plant(path, text);
  }

  /** Takes what the tests of a file said. */
  learn(test: string, known: KnownTests): void {
    const tests = known.tests.filter(({ usedMs }) => !this.#plan.isQuick || usedMs <= LONG_MS);
    this.#known.set(test, { ...known, tests, isWhole: tests.length === known.tests.length });
  }

  /** The rounds in which a bug is tried; none: no test passes its place. */
  roundsOf(bug: Planned): readonly (readonly Asked[])[] {
    const { place, file } = this.#numbers.get(bug)!;
    const single: { test: string; place: number; usedMs: number }[] = [];
    const whole = new Set<string>();
    for (const test of bug.tests) {
      const known = this.#known.get(test)!;
      const isWhole = this.#plan.starters.has(test) || known.aside.includes(place);
      if (isWhole) whole.add(test);
      const passing = (mark: number) =>
        known.tests.filter(({ marks }) => marks.includes(mark))
          .map(({ place, usedMs }) => ({ test, place, usedMs }));
      const own = passing(place);
      single.push(...(isWhole && own.length === 0 ? passing(file) : own));
    }
    single.sort((a, b) => a.usedMs - b.usedMs);
    let sumMs = 0;
    const isQuick = single.map(({ usedMs }, index) => (sumMs += usedMs) <= QUICK_MS || index === 0);
    const quick = single.filter((_, index) => isQuick[index]);
    const rest = single.filter(({ test }, index) => !isQuick[index] && !whole.has(test));
    const all = [...whole].flatMap((test): Asked[] => {
      const { isWhole, tests, usedMs } = this.#known.get(test)!;
      if (isWhole) return [{ test, chosen: null, usedMs }];
      return gathered(tests.map(({ place, usedMs }) => ({ test, place, usedMs })));
    });
    return [gathered(quick), [...gathered(rest), ...all].sort(byTime)]
      .filter((round) => round.length > 0);
  }
}

function byTime(a: Asked, b: Asked): number {
  return a.usedMs - b.usedMs;
}

/** Single tests by their files, the quickest file first. */
function gathered(tests: readonly { test: string; place: number; usedMs: number }[]): Asked[] {
  return [...Map.groupBy(tests, ({ test }) => test)].map(([test, own]) => ({
    test,
    chosen: own.map(({ place }) => place),
    usedMs: own.reduce((sum, { usedMs }) => sum + usedMs, 0),
  })).sort(byTime);
}

/** Reads what a runner wrote of one file. */
export function readPassed(file: string): Passed {
  return (JSON.parse(readFileSync(file, "utf8")) as Passed[])[0]!;
}
