/**
 * Which bugs are planted: a sample of all that could be, the same for the same seed and tree.
 *
 * @module
 */
import { below, seededRandom } from "../../core/random.ts";
import { read } from "../lib/files.ts";
import { NodeTree, transpiled } from "../lib/node_tree.ts";
import { Imports, isSimulated, isSource, testsOf } from "./area.ts";
import { equivalentOf } from "./equivalents.ts";
import { type Mutant, mutantsOf, mutated } from "./operators.ts";

/** Files of tests that take long, as a whole. */
const LONG = /fuzz_test\.ts$/;

/** A bug that is to be tried. */
export interface Planned {
  readonly mutant: Mutant;
  /** The file without it, and with it. */
  readonly original: string;
  readonly text: string;
  /** The files of tests to run, in order. */
  readonly tests: readonly string[];
  /** Whether the simulation comes after them. */
  readonly isSimulated: boolean;
  /** All sources, by path. */
  readonly sources: ReadonlyMap<string, string>;
}

/** What is to be done. */
export interface Plan {
  readonly tree: NodeTree;
  readonly mutants: readonly Planned[];
  /** Whether tests that take long are left out. */
  readonly isQuick: boolean;
  /** Those of the tests that run code in other processes. */
  readonly starters: ReadonlySet<string>;
  /** How many could be planted. */
  readonly total: number;
  /** How many more change nothing (`equivalents.ts`). */
  readonly equivalents: number;
}

/** What is asked for. */
export interface Choice {
  readonly seed: number;
  readonly count: number;
  /** Beginnings of paths; none: everything. */
  readonly prefixes: readonly string[];
  /** Leaves out the tests that take long. */
  readonly isQuick?: boolean;
}

/**
 * A sample of `count` items, in the order of the items; all of them where there are no more.
 * `accepts` is asked in the order of the draw until there are enough.
 */
export function sample<T>(
  items: readonly T[],
  count: number,
  seed: number,
  accepts: (item: T) => boolean = () => true,
): T[] {
  const random = seededRandom(seed);
  const indices = items.map((_, index) => index);
  const drawn: number[] = [];
  for (let left = indices.length; left > 0 && drawn.length < count; left--) {
    const at = below(random, left);
    const index = indices[at]!;
    indices[at] = indices[left - 1]!;
    if (accepts(items[index]!)) drawn.push(index);
  }
  return drawn.sort((a, b) => a - b).map((index) => items[index]!);
}

/** What imports what in a tree. */
export function importsOf(tree: NodeTree): Imports {
  return new Imports(tree.paths, (path) => tree.script(path)!);
}

/**
 * Draws the bugs of the repository as it is.
 *
 * @throws {RangeError} If no source lies under one of the prefixes.
 */
export async function makePlan({ seed, count, prefixes, isQuick = false }: Choice): Promise<Plan> {
  const tree = await NodeTree.build();
  const imports = importsOf(tree);
  const paths = imports.paths.filter(isSource);
  const sources = new Map(
    tree.paths.filter((path) => /^(?:core|adapters)\//.test(path)).map((
      path,
    ) => [path, read(path)]),
  );
  const isUnder = (path: string, prefix: string) =>
    path === prefix || path.startsWith(prefix.endsWith("/") ? prefix : `${prefix}/`) ||
    path === `${prefix}.ts`;
  for (const prefix of prefixes) {
    if (!paths.some((path) => isUnder(path, prefix))) {
      tree.remove();
      throw new RangeError(`No source that bugs are planted in lies under "${prefix}"`);
    }
  }
  const possible = paths
    .filter((path) => prefixes.length === 0 || prefixes.some((prefix) => isUnder(path, prefix)))
    .flatMap((path) => mutantsOf(path, sources.get(path)!));
  const all = possible.filter((mutant) => !equivalentOf(mutant, sources.get(mutant.path)!));
  // Two edits may come to one program, or to the one that was there: only types differ then.
  const seen = new Set<string>();
  const isNew = (mutant: Mutant): boolean => {
    const script = transpiled(mutant.path, mutated(sources.get(mutant.path)!, mutant));
    if (script === tree.script(mutant.path) || seen.has(script)) return false;
    seen.add(script);
    return true;
  };
  const mutants = sample(all, count, seed, isNew).map((mutant): Planned => {
    const original = sources.get(mutant.path)!;
    return {
      mutant,
      original,
      text: mutated(original, mutant),
      tests: testsOf(mutant.path, imports).filter((test) => !isQuick || !LONG.test(test)),
      isSimulated: isSimulated(mutant.path),
      sources,
    };
  });
  const tests = new Set(mutants.flatMap(({ tests }) => tests));
  return {
    tree,
    mutants,
    isQuick,
    starters: new Set([...tests].filter((test) => imports.startsProcesses(test))),
    total: all.length,
    equivalents: possible.length - all.length,
  };
}
