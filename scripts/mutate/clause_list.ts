/**
 * `tests/conformance/mutants.txt`: for each clause the bug that its test has to find, which is how
 * one sees that the test tests its clause. An entry tells a bug by the text of its line, so that it
 * stays where the lines around it move:
 *
 * ```text
 * PCP-S-05 core/pcp/server.ts boundary
 * - if (data.length < 24) return this.#drop("too-short");
 * + if (data.length <= 24) return this.#drop("too-short");
 * ```
 *
 * `-` is the line on which the bug begins, `+` the same with the bug in it; without `+` the
 * statement or property is dropped with its lines. A number after the operator tells which one where several read the
 * same. A clause whose test no single bug can stand for says `none: …` with the reason.
 *
 * @module
 */
import { type Mutant, mutantsOf, mutated } from "./operators.ts";

/** The file. */
export const LIST = "tests/conformance/mutants.txt";

/** A reason of fewer letters says nothing. */
const SHORTEST_REASON = 20;

/** What is said of one clause: a bug, or why there is none. */
export interface Entry {
  readonly id: string;
  readonly path: string;
  readonly operator: string;
  /** The line as it stands, and with the bug; undefined where it is dropped. */
  readonly before: string;
  readonly after: string | undefined;
  /** Which one of those that read the same, from 1. */
  readonly nth: number;
  /** Why no bug stands here; then the fields above are empty. */
  readonly reason?: string;
}

const NO_BUG = { path: "", operator: "", before: "", after: undefined, nth: 1 } as const;

/** Reads the list; what is no entry is told. */
export function readList(text: string): { entries: Entry[]; findings: string[] } {
  const entries: Entry[] = [];
  const findings: string[] = [];
  for (const block of text.split(/\n\s*\n/)) {
    const lines = block.split("\n").filter((line) => line.trim() !== "" && !line.startsWith("#"));
    if (lines.length === 0) continue;
    const entry = readEntry(lines);
    if (entry) entries.push(entry);
    else findings.push(`${LIST}: no entry: ${lines[0]}`);
  }
  return { entries, findings };
}

function readEntry([head = "", before, after, ...more]: readonly string[]): Entry | undefined {
  const none = /^([A-Z]+-[CS]-\d+) none: (.*)$/.exec(head);
  if (none && before === undefined) return { id: none[1]!, ...NO_BUG, reason: none[2]! };
  const told = /^([A-Z]+-[CS]-\d+) (\S+\.ts) ([a-z]+)(?: (\d+))?$/.exec(head);
  if (!told || more.length > 0 || !before?.startsWith("- ")) return undefined;
  if (after !== undefined && !after.startsWith("+ ")) return undefined;
  const [, id, path, operator, nth] = told;
  return {
    id: id!,
    path: path!,
    operator: operator!,
    before: before.slice(2),
    after: after?.slice(2),
    nth: Number(nth ?? 1),
  };
}

/** How an entry is written. */
export function written({ id, path, operator, before, after, nth }: Entry): string {
  const which = nth === 1 ? "" : ` ${nth}`;
  const changed = after === undefined ? "" : `\n+ ${after}`;
  return `${id} ${path} ${operator}${which}\n- ${before}${changed}\n`;
}

/** The lines that tell a bug. */
function linesOf(mutant: Mutant, text: string): Pick<Entry, "before" | "after"> {
  const lineAt = (text: string, at: number) => {
    const end = text.indexOf("\n", at);
    return text.slice(at, end < 0 ? undefined : end).trim();
  };
  const from = text.lastIndexOf("\n", mutant.start - 1) + 1;
  const isDropped = mutant.replacement === "" && mutant.start === from &&
    text[mutant.end - 1] === "\n";
  return {
    before: lineAt(text, from),
    after: isDropped ? undefined : lineAt(mutated(text, mutant), from),
  };
}

/** Every bug of a file with what tells it from the others; the clause is left open. */
function told(path: string, text: string): { mutant: Mutant; entry: Omit<Entry, "id"> }[] {
  const seen = new Map<string, number>();
  return mutantsOf(path, text).map((mutant) => {
    const { before, after } = linesOf(mutant, text);
    const key = JSON.stringify([mutant.operator, before, after]);
    const nth = (seen.get(key) ?? 0) + 1;
    seen.set(key, nth);
    return { mutant, entry: { path, operator: mutant.operator, before, after, nth } };
  });
}

/** The entry that tells a bug of a text for a clause. */
export function entryOf(id: string, mutant: Mutant, text: string): Entry {
  const found = told(mutant.path, text).find(({ mutant: { start, end, replacement } }) =>
    start === mutant.start && end === mutant.end && replacement === mutant.replacement
  );
  if (!found) throw new RangeError(`Cannot tell a bug as 'mutant' is none of "${mutant.path}"`);
  return { id, ...found.entry };
}

/** The bug that an entry tells, in the text of its file; undefined: it is not there any more. */
export function mutantOf(entry: Entry, text: string): Mutant | undefined {
  return told(entry.path, text).find(({ entry: { operator, before, after, nth } }) =>
    operator === entry.operator && before === entry.before && after === entry.after &&
    nth === entry.nth
  )?.mutant;
}

/**
 * Compares the list with the clauses that have a test and with the sources.
 *
 * @param tested The ids of the tests.
 * @param read The text of a source; undefined where there is none.
 */
export function checkList(
  list: string,
  tested: readonly string[],
  read: (path: string) => string | undefined,
): { findings: string[]; told: number; without: number } {
  const { entries, findings } = readList(list);
  const ids = new Set<string>(), bugs = new Map<string, string>();
  const texts = new Map<string, Map<string, Mutant>>();
  const keyOf = ({ operator, before, after, nth }: Omit<Entry, "id">) =>
    JSON.stringify([operator, before, after, nth]);
  const mutantsIn = (path: string) => {
    let known = texts.get(path);
    if (!known) {
      const text = read(path);
      known = new Map(
        text === undefined
          ? []
          : told(path, text).map(({ mutant, entry }) => [keyOf(entry), mutant]),
      );
      texts.set(path, known);
    }
    return known;
  };
  for (const entry of entries) {
    const { id, path, before, reason } = entry;
    if (ids.has(id)) findings.push(`${LIST}: ${id} stands there twice`);
    ids.add(id);
    if (!tested.includes(id)) findings.push(`${LIST}: ${id} has no test`);
    if (reason !== undefined) {
      if (reason.trim().length < SHORTEST_REASON) {
        findings.push(`${LIST}: ${id} names no bug and gives no reason`);
      }
      continue;
    }
    const key = `${path} ${keyOf(entry)}`, other = bugs.get(key);
    if (other !== undefined) findings.push(`${LIST}: ${id} names the bug of ${other}`);
    bugs.set(key, id);
    if (!mutantsIn(path).has(keyOf(entry))) {
      findings.push(`${LIST}: ${id}: there is no such bug any more in ${path}: ${before}`);
    }
  }
  const missing = tested.filter((id) => !ids.has(id));
  if (missing.length > 0) findings.push(`${LIST}: no bug named for ${missing.join(" ")}`);
  return { findings, told: bugs.size, without: entries.length - bugs.size };
}
