/**
 * Which tests are asked whether a bug is planted in a file. The tests of its area are, for
 * `core/pcp/lease.ts`:
 *
 * 1. `tests/core/pcp/`, the mirror of its folder or of the nearest one above that has tests (for a
 *    file right in `core/` or `adapters/` only what lies right in the mirror), the file's own
 *    namesake first; `tests/runtime/` too is a mirror of `adapters/`;
 * 2. `tests/conformance/pcp_*`, what the standard says of it;
 * 3. `tests/core/contract_test.ts`, where the mirror holds a case for it;
 * 4. any other test that imports the file itself, what loads the file at need, by `import()`, or what
 *    extends a class of it.
 *
 * Of these only those that reach the file, through whatever they import or load. A test that starts
 * the command in processes is slow, and asked about what no other test reaches. Clients stand before
 * the simulation as well, a few seeds of it: {@linkcode isSimulated}.
 *
 * @module
 */
import ts from "typescript";

/** A test of these folders runs other programs, or judges the tree as it lies there. */
const NO_TESTS_OF_CODE = /^tests\/(?:examples_|readme_|lab|npm|scripts|sim)/;
/** Whoever imports it may run code where nobody sees what it passes. */
const ELSEWHERE = /\bfrom "node:(?:child_process|worker_threads)"/;
/** It starts the command in processes of its own. */
const STARTS_PROCESSES = "tests/adapters/cli/process_test.ts";
const CONTRACT = "tests/core/contract_test.ts";
/** Folders whose machines the simulation plays. */
const SIMULATED = /^core\/(?:lease|natpmp|pcp|portmap)\//;
/** What only Deno or Bun loads, while the tests run on Node. */
const OTHER_RUNTIMES = /^adapters\/(?:bun|deno|deno_datagram)\.ts$/;

/** Whether bugs are planted in it at all. */
export function isSource(path: string): boolean {
  return /^(?:core|adapters)\/.*\.ts$/.test(path) && !OTHER_RUNTIMES.test(path);
}

/** Whether the simulation plays it. */
export function isSimulated(path: string): boolean {
  return SIMULATED.test(path);
}

/** Classes that extend another, and what is imported by name. */
const EXTENDS = /\bclass\s+\w+\s+extends\s+(\w+)/g;
const NAMED = /\bimport\s*\{([^}]*)\}\s*from\s*"(\.[^"]*)"/g;

/** The path of what a file imports. */
function resolve(specifier: string, from: string): string {
  return new URL(specifier, `file:///${from}`).pathname.slice(1).replace(/\.js$/, ".ts");
}

/** The folder of a path. */
export function folderOf(path: string): string {
  return path.slice(0, path.lastIndexOf("/"));
}

/** What imports what, of a tree. */
export class Imports {
  readonly #direct = new Map<string, ReadonlySet<string>>();
  /** What each loads at need. */
  readonly #late = new Map<string, ReadonlySet<string>>();
  /** The files of what each extends. */
  readonly #bases = new Map<string, ReadonlySet<string>>();
  /** Tests' files that start processes or threads. */
  readonly #starters = new Set<string>();
  readonly #reached = new Map<string, ReadonlySet<string>>();

  /** @param scriptOf The JavaScript of each path: what only types need is not in there. */
  constructor(paths: readonly string[], scriptOf: (path: string) => string) {
    for (const path of paths) {
      const script = scriptOf(path);
      const imported = ts.preProcessFile(script, true, true).importedFiles
        .filter(({ fileName }) => fileName.startsWith("."))
        .map(({ fileName, pos }) => {
          return {
            name: resolve(fileName, path),
            isLate: /\bimport\s*\(\s*["'`]?$/.test(script.slice(0, pos)),
          };
        });
      if (path.startsWith("tests/") && ELSEWHERE.test(script)) this.#starters.add(path);
      this.#direct.set(path, new Set(imported.map(({ name }) => name)));
      const late = imported.filter(({ isLate }) => isLate);
      this.#late.set(path, new Set(late.map(({ name }) => name)));
      const bases = new Set([...script.matchAll(EXTENDS)].map(([, name]) => name!));
      const named = [...script.matchAll(NAMED)].filter(([, names]) =>
        names!.split(",").some((name) => bases.has(name.trim()))
      );
      this.#bases.set(path, new Set(named.map(([, , from]) => resolve(from!, path))));
    }
  }

  /** All test files, sorted. */
  get tests(): string[] {
    return [...this.#direct.keys()].filter((path) => /^tests\/.*_test\.ts$/.test(path)).sort();
  }

  /** All files, sorted. */
  get paths(): string[] {
    return [...this.#direct.keys()].sort();
  }

  /** What a file imports itself. */
  of(path: string): ReadonlySet<string> {
    return this.#direct.get(path) ?? new Set();
  }

  /** What loads a file at need. */
  loadersOf(path: string): string[] {
    return [...this.#late].filter(([, late]) => late.has(path)).map(([loader]) => loader);
  }

  /** What extends a class of a file. */
  heirsOf(path: string): string[] {
    return [...this.#bases].filter(([, bases]) => bases.has(path)).map(([heir]) => heir);
  }

  /** Whether a test may run code in another process. */
  startsProcesses(test: string): boolean {
    const reached = this.reachedFrom(test);
    return [...this.#starters].some((path) => reached.has(path));
  }

  /** What is loaded with a file, now or at need, itself included. */
  reachedFrom(path: string): ReadonlySet<string> {
    const known = this.#reached.get(path);
    if (known) return known;
    const reached = new Set([path]);
    // A set is walked in the order of insertion, what is added on the way included.
    for (const at of reached) for (const next of this.of(at)) reached.add(next);
    this.#reached.set(path, reached);
    return reached;
  }
}

/** The tests of a file's area that reach it, in the order in which they are to run. */
export function testsOf(path: string, imports: Imports): string[] {
  const folder = folderOf(path);
  const isDeep = folder.includes("/");
  let mirror = `tests/${folder}`;
  const hasTests = (folder: string) => imports.tests.some((test) => test.startsWith(`${folder}/`));
  while (mirror.split("/").length > 3 && !hasTests(mirror)) mirror = folderOf(mirror);
  const namesake = `tests/${path.replace(/\.ts$/, "_test.ts")}`;
  const inMirror = (test: string) =>
    isDeep ? test.startsWith(`${mirror}/`) : folderOf(test) === mirror;
  const standard = `tests/conformance/${folder.slice(folder.lastIndexOf("/") + 1)}_`;
  const hasContract = imports.paths.some((other) =>
    other.startsWith(`${mirror}/`) && other.endsWith("contract_case.ts")
  );
  const doors = [path, ...imports.loadersOf(path), ...imports.heirsOf(path)];
  const ranks: readonly ((test: string) => boolean)[] = [
    (test) => test === namesake,
    inMirror,
    (test) => folder === "adapters" && folderOf(test) === "tests/runtime",
    (test) => test.startsWith(standard),
    (test) => test === CONTRACT && hasContract,
    (test) => doors.some((door) => imports.of(test).has(door)),
  ];
  const rankOf = (test: string) => ranks.findIndex((fits) => fits(test));
  const own = imports.tests
    .filter((test) => !NO_TESTS_OF_CODE.test(test))
    .filter((test) => rankOf(test) >= 0 && imports.reachedFrom(test).has(path))
    .map((test) => [rankOf(test), test] as const)
    .sort(([a, x], [b, y]) => a - b || (x < y ? -1 : 1))
    .map(([, test]) => test);
  const quick = own.filter((test) => test !== STARTS_PROCESSES);
  return quick.length > 0 ? quick : own;
}
