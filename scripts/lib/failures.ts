/**
 * What failed, once more and in short where a command ends: `.ci/run` collects it by this form, so
 * that the end of a long log tells what to mend.
 *
 * @module
 */

/** Something that failed. */
export interface Failure {
  /** `Node: a group > a test`. */
  readonly name: string;
  /** What was said of it; its first telling lines are repeated. */
  readonly detail: string;
}

/** How much is repeated. */
const MOST_FAILURES = 40;
const LINES_EACH = 5;
const MOST_CHARACTERS = 160;

/** A heading, an item for each failure, an empty line; nothing where nothing failed. */
export function failureList(failures: readonly Failure[]): string {
  if (failures.length === 0) return "";
  const items = failures.slice(0, MOST_FAILURES).flatMap(({ name, detail }) => [
    `- ${shortened(name)}`,
    ...detail.split("\n").map((line) => line.trim()).filter(isTelling).slice(0, LINES_EACH)
      .map((line) => `  ${shortened(line)}`),
  ]);
  const left = failures.length - MOST_FAILURES;
  if (left > 0) items.push(`- and ${left} more`);
  return `\nFailed:\n${items.join("\n")}\n`;
}

/** Not the frame of a shown difference. */
function isTelling(line: string): boolean {
  return /\w/.test(line) && !line.startsWith("[Diff]");
}

function shortened(text: string): string {
  const line = text.replaceAll("\n", " ");
  return line.length <= MOST_CHARACTERS ? line : `${line.slice(0, MOST_CHARACTERS)}…`;
}
