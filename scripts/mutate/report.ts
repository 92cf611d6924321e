/**
 * What is printed of planted bugs.
 *
 * @module
 */
import { folderOf } from "./area.ts";
import type { Mutant } from "./operators.ts";
import type { Verdict } from "./trial.ts";

/** Lines around a change in a diff. */
const CONTEXT = 3;

/** A unified diff of a file's text and the text with the bug in it, as `git apply` takes it. */
export function diffOf(path: string, before: string, after: string): string {
  const old = before.split("\n"), changed = after.split("\n");
  let from = 0;
  while (from < old.length && old[from] === changed[from]) from++;
  let oldEnd = old.length, newEnd = changed.length;
  while (oldEnd > from && newEnd > from && old[oldEnd - 1] === changed[newEnd - 1]) {
    oldEnd--;
    newEnd--;
  }
  const first = Math.max(0, from - CONTEXT);
  // A text ends in a line break: what comes after it is no line.
  const last = Math.min(old.length - 1, oldEnd + CONTEXT);
  const trailing = old.slice(oldEnd, last);
  const lines = [
    ...old.slice(first, from).map((line) => ` ${line}`),
    ...old.slice(from, oldEnd).map((line) => `-${line}`),
    ...changed.slice(from, newEnd).map((line) => `+${line}`),
    ...trailing.map((line) => ` ${line}`),
  ];
  const oldCount = last - first;
  const newCount = oldCount - (oldEnd - from) + (newEnd - from);
  return [
    `--- a/${path}`,
    `+++ b/${path}`,
    `@@ -${first + 1},${oldCount} +${first + 1},${newCount} @@`,
    ...lines,
  ].join("\n");
}

/** Where a bug is and of which kind: `core/ip.ts:12 boundary`. */
export function placeOf({ path, start, operator }: Mutant, text: string): string {
  return `${path}:${text.slice(0, start).split("\n").length} ${operator}`;
}

/** The kill rate of each folder and of all; what the types refuse does not count. */
export function rates(verdicts: readonly Verdict[]): string[] {
  const folders = [...new Set(verdicts.map(({ mutant }) => folderOf(mutant.path)))].sort();
  const rows: (readonly [string, readonly Verdict[]])[] = folders.map((
    folder,
  ) => [folder, verdicts.filter(({ mutant }) => folderOf(mutant.path) === folder)]);
  if (rows.length !== 1) rows.push(["all", verdicts]);
  const width = Math.max(...rows.map(([name]) => name.length));
  return rows.map(([name, own]) => {
    const counted = own.filter(({ outcome }) => outcome !== "refused by the types");
    const killed = counted.filter(({ outcome }) => outcome === "killed").length;
    const untested = counted.filter(({ outcome }) => outcome === "untested").length;
    const rate = counted.length === 0 ? "–" : `${Math.round(100 * killed / counted.length)} %`;
    const refused = own.length - counted.length;
    const notes = [
      untested > 0 ? `${untested} that no test reaches` : "",
      refused > 0 ? `${refused} more the types refuse` : "",
    ].filter((note) => note !== "").map((note) => `; ${note}`).join("");
    return `${name.padEnd(width)}  ${
      rate.padStart(5)
    }  ${killed} of ${counted.length} killed${notes}`;
  });
}
