/**
 * What a bench has to say: rows, as an aligned table and as JSON.
 *
 * @module
 */

/** One line of the table. */
export interface Row {
  /** What was measured. */
  readonly what: string;
  /** On which runtime or with which program. */
  readonly on: string;
  /** The figure; undefined where there is none, and `note` says why. */
  readonly value: number | undefined;
  /** Its unit: `"ms"`, `"/s"`, `"×"`, `"B"`… */
  readonly unit: string;
  /** What was asked for, and whether it is met. */
  readonly target?: { readonly text: string; readonly isMet: boolean };
  /** What else there is to know. */
  readonly note?: string;
}

/** The rows of one topic. */
export interface Topic {
  readonly name: string;
  readonly rows: readonly Row[];
  readonly seconds: number;
  /** Why there are no, or not all, rows; undefined where nothing broke. */
  readonly error?: string;
}

/** A row with a value that has to be at most so much. */
export function atMost(
  limit: number,
  row: Omit<Row, "target" | "value"> & { readonly value: number },
): Row {
  const text = `≤ ${show(limit, row.unit)}`;
  return { ...row, target: { text, isMet: row.value <= limit } };
}

/** A row with a value that has to be at least so much. */
export function atLeast(
  limit: number,
  row: Omit<Row, "target" | "value"> & { readonly value: number },
): Row {
  const text = `≥ ${show(limit, row.unit)}`;
  return { ...row, target: { text, isMet: row.value >= limit } };
}

/** A figure with its unit, to three digits. */
export function show(value: number, unit: string): string {
  return `${digits(value)}${unit === "" || unit === "/s" ? unit : ` ${unit}`}`;
}

function digits(value: number): string {
  const size = Math.abs(value);
  if (size >= 100 || Number.isInteger(value)) return Math.round(value).toLocaleString("en-US");
  return value.toFixed(size >= 10 ? 1 : size >= 1 ? 2 : 3);
}

const HEAD = ["what", "on", "measured", "target", "met", "note"];

/** The topic as aligned text. */
export function table({ name, rows, seconds, error }: Topic): string {
  const cells = [HEAD, ...rows.map(cellsOf)];
  const widths = HEAD.map((_, i) => Math.max(...cells.map((row) => row[i]!.length)));
  const lines = cells.map((row) =>
    row.map((cell, i) => i === 2 ? cell.padStart(widths[i]!) : cell.padEnd(widths[i]!))
      .join("  ").trimEnd()
  );
  const rule = widths.map((width) => "─".repeat(width)).join("  ");
  const failure = error === undefined ? [] : [`FAILED: ${error}`];
  return [`${name} (${seconds.toFixed(0)} s)`, lines[0], rule, ...lines.slice(1), ...failure]
    .map((line) => `  ${line}`).join("\n").trimStart();
}

function cellsOf({ what, on, value, unit, target, note }: Row): string[] {
  const measured = value === undefined ? "–" : show(value, unit);
  const met = target === undefined ? "" : target.isMet ? "yes" : "NO";
  return [what, on, measured, target?.text ?? "", met, note ?? ""];
}
