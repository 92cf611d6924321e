/**
 * Small rules of the house: nothing left undone, no test switched off, no path of somebody's
 * machine, no syntax that Node 20 does not read.
 *
 * @module
 */
import { type Finding, linesMatching, type SourceFile, strip } from "./source.ts";

/** Written in two parts, since this file is checked as well. */
const UNDONE = new RegExp(
  `\\b(?:${["TO" + "DO", "FIX" + "ME", "X" + "XX", "HA" + "CK"].join("|")})\\b`,
  "g",
);

/** Finds marks of unfinished work. */
export function checkUndone(files: readonly SourceFile[]): Finding[] {
  return files.flatMap(({ path, text }) =>
    linesMatching(text, UNDONE).map(({ line, match }) => `${path}:${line}: ${match}`)
  );
}

const SWITCHED =
  /\b(?:it|test|describe|suite)\s*\.\s*(?:only|skip|todo)\b|\b(?:t|context)\.(?:skip|todo)\s*\(|\b(?:skip|only|todo)\s*:\s*(?:true\b|["'`])/g;

/**
 * Finds tests that are switched off, or on alone. Those that a platform cannot run may be skipped
 * there; the test command tells.
 */
export function checkSwitchedTests(files: readonly SourceFile[]): Finding[] {
  return files.filter(({ path }) => path.startsWith("tests/")).flatMap(({ path, text }) =>
    linesMatching(strip(text), SWITCHED).map(({ line, match }) => `${path}:${line}: ${match}`)
  );
}

/** A call with a title and no body, or `() => {}`. */
const EMPTY =
  /(?<![\w.]|\bawait\s)(?:it|test)\s*\((?:[^(),]|\([^()]*\))+(?:,\s*(?:async\s*)?\([^()]*\)\s*=>\s*\{\s*\})?,?\s*\)/g;

/** Finds tests that do nothing, which every runtime takes for passed. */
export function checkEmptyTests(files: readonly SourceFile[]): Finding[] {
  return files.filter(({ path }) => path.startsWith("tests/")).flatMap(({ path, text }) =>
    [...strip(text).matchAll(EMPTY)].map(({ 0: call, index }) => {
      const line = text.slice(0, index).split("\n").length;
      return `${path}:${line}: ${text.slice(index, index + call.length).split("\n")[0]}`;
    })
  );
}

/** What registers tests for the files that use it. */
const REGISTERS_FOR_OTHERS = new Set(["tests/conformance/clause.ts"]);

/** Finds files that register tests under a name that the test command does not look for. */
export function checkTestNames(files: readonly SourceFile[]): Finding[] {
  return files.filter(({ path, text }) =>
    path.startsWith("tests/") && !path.endsWith("_test.ts") && !REGISTERS_FOR_OTHERS.has(path) &&
    /\bfrom\s*"node:test"/.test(strip(text, { strings: true }))
  ).map(({ path }) => `${path}: registers tests, but is not named *_test.ts`);
}

const MACHINE_PATH = /(?<![\w.~*])\/(?:root|work|home\/\w+|Users\/\w+)\//g;

/** Finds absolute paths that exist on one machine only. */
export function checkMachinePaths(files: readonly SourceFile[]): Finding[] {
  return files.filter(({ path }) => path !== "scripts/checks/hygiene.ts").flatMap((
    { path, text },
  ) => linesMatching(text, MACHINE_PATH).map(({ line, match }) => `${path}:${line}: ${match}`));
}

const USING = /\b(?:await\s+)?using\s+\w+\s*=(?!=)/g;

/** Finds `using` declarations where Node 20 has to read them: bundling leaves them as they are. */
export function checkUsing(files: readonly SourceFile[]): Finding[] {
  return files.filter(({ path }) => !/^(scripts|tests\/lab)\//.test(path)).flatMap((
    { path, text },
  ) => linesMatching(strip(text), USING).map(({ line, match }) => `${path}:${line}: ${match}`));
}
