/**
 * Marks in a source's text that tell, once it runs, which places were passed: a bug is found by no
 * test that does not pass its place.
 *
 * The place of a bug is the innermost piece of the program around it that runs as a whole once it is
 * entered: a statement, a branch, the right side of `&&`, what a short function or a field says. One
 * that runs while the module is loaded, like a constant of the file, is passed by whoever loads it.
 *
 * @module
 */
import ts from "typescript";
import { MARKS } from "./marks.ts";
import type { Mutant } from "./operators.ts";

/** A number for each place, over several files. */
export class Probes {
  #count = 0;

  /** How many there are. */
  get count(): number {
    return this.#count;
  }

  /**
   * Probes a file's text.
   *
   * @returns The number of each bug's place, in their order, and of every place that is in any of
   * the file's functions; `mark` writes the text once all files are numbered.
   */
  place(path: string, text: string, mutants: readonly Mutant[]): Probed {
    const file = ts.createSourceFile(path, text, ts.ScriptTarget.Latest, true);
    const numbers = new Map<ts.Node, number>();
    const edits: Edit[] = [];
    const ofMutants = mutants.map((mutant) => {
      const { node, kind } = placeAround(file, mutant);
      const known = numbers.get(node);
      if (known !== undefined) return known;
      const number = this.#count++;
      numbers.set(node, number);
      edits.push({ node, kind, number });
      return number;
    });
    const ofFile = this.#count++;
    const visit = (node: ts.Node): void => {
      if (
        ts.isFunctionLike(node) && "body" in node && node.body && ts.isBlock(node.body as ts.Node)
      ) {
        edits.push({ node: node.body as ts.Block, kind: "body", number: ofFile });
      }
      ts.forEachChild(node, visit);
    };
    visit(file);
    return { ofMutants, ofFile, mark: () => marked(file, text, edits, this.#count) };
  }
}

/** A file with its places numbered. */
export interface Probed {
  readonly ofMutants: readonly number[];
  readonly ofFile: number;
  readonly mark: () => string;
}

/** How a mark is put at a node: before it, around it, or at the beginning of what it encloses. */
type PlaceKind = "before" | "statement" | "expression" | "body" | "load";

interface Place {
  readonly node: ts.Node;
  readonly kind: PlaceKind;
}

interface Edit extends Place {
  readonly number: number;
}

const SHORT_CIRCUITS: ReadonlySet<ts.SyntaxKind> = new Set([
  ts.SyntaxKind.AmpersandAmpersandToken,
  ts.SyntaxKind.BarBarToken,
  ts.SyntaxKind.QuestionQuestionToken,
]);

function placeAround(file: ts.SourceFile, { start, end }: Mutant): Place {
  for (let node = innermost(file, start, end); node !== file; node = node.parent) {
    const kind = kindOf(node);
    if (kind !== undefined) return { node, kind };
    if (ts.isParameter(node)) {
      const { body } = node.parent as ts.FunctionLikeDeclaration;
      if (body) return { node: body, kind: ts.isBlock(body) ? "body" : "expression" };
    }
  }
  return { node: file, kind: "load" };
}

/** The smallest node around a range, whose ends may be blank. */
function innermost(file: ts.SourceFile, start: number, end: number): ts.Node {
  const { text } = file;
  while (start < end && /\s/.test(text[start]!)) start++;
  while (end > start && /\s/.test(text[end - 1]!)) end--;
  let found: ts.Node = file;
  const visit = (node: ts.Node): void => {
    if (node.getStart(file) > start || node.end < end) return;
    found = node;
    ts.forEachChild(node, visit);
  };
  ts.forEachChild(file, visit);
  return found;
}

function kindOf(node: ts.Node): PlaceKind | undefined {
  const { parent } = node;
  if (ts.isBlock(node)) return undefined;
  if (ts.isBlock(parent) || ts.isSourceFile(parent)) return "before";
  if (ts.isCaseOrDefaultClause(parent)) return ts.isStatement(node) ? "before" : undefined;
  if (ts.isIfStatement(parent)) return node === parent.expression ? undefined : "statement";
  if (ts.isIterationStatement(parent, false)) {
    return node === parent.statement ? "statement" : undefined;
  }
  if (ts.isConditionalExpression(parent)) {
    return node === parent.whenTrue || node === parent.whenFalse ? "expression" : undefined;
  }
  if (ts.isBinaryExpression(parent)) {
    const isLate = node === parent.right && SHORT_CIRCUITS.has(parent.operatorToken.kind);
    return isLate ? "expression" : undefined;
  }
  if (ts.isArrowFunction(parent)) return node === parent.body ? "expression" : undefined;
  if (ts.isPropertyDeclaration(parent)) {
    return node === parent.initializer ? "expression" : undefined;
  }
  return undefined;
}

/** The text with all marks in it. */
function marked(
  file: ts.SourceFile,
  text: string,
  edits: readonly Edit[],
  count: number,
): string {
  const insertions: { at: number; said: string; depth: number }[] = [];
  for (const { node, kind, number } of edits) {
    const mark = `marks_[${number}] = 1`, start = node.getStart(file);
    const insert = (at: number, said: string, depth: number) =>
      insertions.push({ at, said, depth });
    // Of two that open at one point the wider one opens first, and closes last.
    const width = node.end - start;
    if (kind === "before") insert(start, `${mark};`, -width);
    else if (kind === "body") insert(start + 1, `${mark};`, -width);
    else if (kind === "load") insert(0, `${mark};`, 0);
    else {
      const [open, close] = kind === "statement" ? [`{${mark};`, "}"] : [`(${mark},`, ")"];
      insert(start, open, -width);
      insert(node.end, close, width);
    }
  }
  insertions.sort((a, b) => a.at - b.at || a.depth - b.depth);
  let result = `const marks_ = globalThis.${MARKS} ??= new Uint8Array(${count});`, from = 0;
  for (const { at, said } of insertions) {
    result += text.slice(from, at) + said;
    from = at;
  }
  return result + text.slice(from);
}
