/**
 * The bugs that can be planted in a source text: small edits that a tired programmer could have
 * made, found on TypeScript's syntax tree.
 *
 * Left alone is what no test should hold: types, imports, comments, templates, what is said in an
 * error, strings with a blank in them. Left out, since nothing would change: the last statement of
 * a path dropped where it is a bare `return` or `continue`, the only statement of an `if` dropped
 * (the condition turned false is the same), `await` in `return await` outside of `try`, the counter
 * of a `for` turned round (it never ends).
 *
 * @module
 */
import ts from "typescript";

/** The kinds of bugs. */
export type Operator =
  | "boundary"
  | "comparison"
  | "constant"
  | "arithmetic"
  | "logic"
  | "negation"
  | "condition"
  | "branches"
  | "statement"
  | "exit"
  | "await"
  | "string"
  | "property"
  | "call";

/** These leave every type as it was; each other kind may make a program that no compiler takes. */
export const TYPE_SAFE: ReadonlySet<Operator> = new Set([
  "boundary",
  "arithmetic",
  "call",
]);

/** One bug: the text from `start` up to `end` replaced. */
export interface Mutant {
  /** The path of the file from the repository's root. */
  readonly path: string;
  readonly operator: Operator;
  readonly start: number;
  readonly end: number;
  readonly replacement: string;
}

/** The file's text with the bug in it. */
export function mutated(text: string, { start, end, replacement }: Mutant): string {
  return text.slice(0, start) + replacement + text.slice(end);
}

const Kind = ts.SyntaxKind;

/** What a binary operator is mistaken for. */
const BINARY: ReadonlyMap<ts.SyntaxKind, readonly (readonly [Operator, string])[]> = new Map([
  [Kind.LessThanToken, [["boundary", "<="], ["comparison", ">="]]],
  [Kind.LessThanEqualsToken, [["boundary", "<"], ["comparison", ">"]]],
  [Kind.GreaterThanToken, [["boundary", ">="], ["comparison", "<="]]],
  [Kind.GreaterThanEqualsToken, [["boundary", ">"], ["comparison", "<"]]],
  [Kind.EqualsEqualsEqualsToken, [["comparison", "!=="]]],
  [Kind.ExclamationEqualsEqualsToken, [["comparison", "==="]]],
  [Kind.AmpersandAmpersandToken, [["logic", "||"]]],
  [Kind.BarBarToken, [["logic", "&&"]]],
  [Kind.PlusToken, [["arithmetic", "-"]]],
  [Kind.MinusToken, [["arithmetic", "+"]]],
  [Kind.AsteriskToken, [["arithmetic", "/"]]],
  [Kind.SlashToken, [["arithmetic", "*"]]],
  [Kind.PercentToken, [["arithmetic", "*"]]],
  [Kind.AmpersandToken, [["arithmetic", "|"]]],
  [Kind.BarToken, [["arithmetic", "&"]]],
  [Kind.CaretToken, [["arithmetic", "|"]]],
  [Kind.LessThanLessThanToken, [["arithmetic", ">>>"]]],
  [Kind.GreaterThanGreaterThanToken, [["arithmetic", "<<"]]],
  [Kind.GreaterThanGreaterThanGreaterThanToken, [["arithmetic", "<<"]]],
  [Kind.PlusEqualsToken, [["arithmetic", "-="]]],
  [Kind.MinusEqualsToken, [["arithmetic", "+="]]],
]);

/** What a method is mistaken for. */
const CALLS: ReadonlyMap<string, string> = new Map([
  ["min", "max"],
  ["max", "min"],
  ["floor", "ceil"],
  ["ceil", "floor"],
  ["some", "every"],
  ["every", "some"],
]);

/** Every bug that can be planted in a file, in the order of the text. */
export function mutantsOf(path: string, text: string): Mutant[] {
  const file = ts.createSourceFile(path, text, ts.ScriptTarget.Latest, true);
  const found = new Map<string, Mutant>();
  const add = (operator: Operator, start: number, end: number, replacement: string): void => {
    const key = `${start} ${end} ${replacement}`;
    if (text.slice(start, end) === replacement || found.has(key)) return;
    found.set(key, { path, operator, start, end, replacement });
  };
  const replace = (operator: Operator, node: ts.Node, replacement: string): void =>
    add(operator, node.getStart(file), node.end, replacement);

  const visit = (node: ts.Node): void => {
    if (isOutOfBounds(node)) return;
    if (ts.isStatement(node)) visitStatement(node);
    else if (ts.isExpression(node)) visitExpression(node);
    else if (ts.isPropertyAssignment(node) || ts.isShorthandPropertyAssignment(node)) {
      dropElement("property", node);
    } else if (ts.isSpreadAssignment(node)) dropElement("property", node);
    ts.forEachChild(node, visit);
  };

  const visitStatement = (node: ts.Statement): void => {
    if (ts.isIfStatement(node)) {
      condition(node.expression, ["true", "false"]);
      if (node.elseStatement) branches(node.expression);
    } else if (ts.isWhileStatement(node) || ts.isDoStatement(node)) {
      condition(node.expression, ["false"]);
    } else if (ts.isForStatement(node)) {
      if (node.condition) condition(node.condition, ["false"]);
    } else if (ts.isForOfStatement(node)) {
      dropStatement("statement", node);
    } else if (ts.isExpressionStatement(node)) {
      if (!isSuperCall(node.expression)) dropStatement("statement", node);
    } else if (ts.isThrowStatement(node)) {
      dropStatement("exit", node);
    } else if (ts.isReturnStatement(node)) {
      if (!isLast(node, ts.isFunctionLike)) dropStatement("exit", node);
      else if (node.expression && !isLastOfBody(node)) dropStatement("exit", node);
    } else if (ts.isContinueStatement(node)) {
      if (!isLast(node, isLoop)) dropStatement("exit", node);
    } else if (ts.isBreakStatement(node)) {
      if (!isLast(node, ts.isSwitchStatement)) dropStatement("exit", node);
    }
  };

  const visitExpression = (node: ts.Expression): void => {
    if (ts.isBinaryExpression(node)) binary(node);
    else if (ts.isConditionalExpression(node)) {
      condition(node.condition, ["true", "false"]);
      branches(node.condition);
    } else if (ts.isPrefixUnaryExpression(node)) prefix(node);
    else if (ts.isPostfixUnaryExpression(node)) {
      const isUp = node.operator === Kind.PlusPlusToken;
      if (!isCounter(node)) add("arithmetic", node.operand.end, node.end, isUp ? "--" : "++");
    } else if (ts.isAwaitExpression(node)) {
      if (!isReturnedOutsideTry(node)) {
        add("await", node.getStart(file), node.expression.getStart(file), "");
      }
    } else if (ts.isNumericLiteral(node) || ts.isBigIntLiteral(node)) number(node);
    else if (node.kind === Kind.TrueKeyword) replace("constant", node, "false");
    else if (node.kind === Kind.FalseKeyword) replace("constant", node, "true");
    else if (ts.isStringLiteral(node)) string(node);
    else if (ts.isCallExpression(node) && ts.isPropertyAccessExpression(node.expression)) {
      const { name } = node.expression;
      const other = CALLS.get(name.text);
      if (other !== undefined) replace("call", name, other);
    }
  };

  const binary = (node: ts.BinaryExpression): void => {
    const { left, operatorToken: token, right } = node;
    if (token.kind === Kind.QuestionQuestionToken) add("logic", left.end, right.end, "");
    if (token.kind === Kind.QuestionQuestionEqualsToken) replace("logic", token, "=");
    if (isText(left) || isText(right)) return;
    for (const [operator, replacement] of BINARY.get(token.kind) ?? []) {
      replace(operator, token, replacement);
    }
  };

  const prefix = (node: ts.PrefixUnaryExpression): void => {
    const start = node.getStart(file);
    const inner = node.operand.getStart(file);
    switch (node.operator) {
      case Kind.ExclamationToken:
        add("negation", start, inner, "");
        break;
      case Kind.MinusToken:
      case Kind.TildeToken:
        add("arithmetic", start, inner, "");
        break;
      case Kind.PlusPlusToken:
      case Kind.MinusMinusToken: {
        const other = node.operator === Kind.PlusPlusToken ? "--" : "++";
        if (!isCounter(node)) add("arithmetic", start, inner, other);
      }
    }
  };

  const number = (node: ts.NumericLiteral | ts.BigIntLiteral): void => {
    // A name, as in `{ 4: … }`.
    if (ts.isPropertyAssignment(node.parent) && node.parent.name === node) return;
    const written = node.getText(file);
    const isBig = ts.isBigIntLiteral(node);
    const digits = written.replaceAll("_", "").replace(/n$/, "");
    if (!isBig && !Number.isSafeInteger(Number(digits))) {
      replace("constant", node, String(Number(digits) + 1));
      replace("constant", node, "0");
      return;
    }
    const value = BigInt(Number.isNaN(Number(digits)) ? digits : isBig ? digits : Number(digits));
    const suffix = isBig ? "n" : "";
    const isHex = /^0x/i.test(digits);
    const next = isHex ? `0x${(value + 1n).toString(16)}` : String(value + 1n);
    replace("constant", node, next + suffix);
    if (value !== 0n) replace("constant", node, `0${suffix}`);
  };

  const string = (node: ts.StringLiteral): void => {
    const { parent } = node;
    const isValue = ts.isCallExpression(parent) || ts.isReturnStatement(parent) ||
      ts.isArrowFunction(parent) || ts.isArrayLiteralExpression(parent) ||
      ts.isVariableDeclaration(parent) || ts.isPropertyDeclaration(parent) ||
      (ts.isPropertyAssignment(parent) && parent.initializer === node) ||
      (ts.isBinaryExpression(parent) && parent.operatorToken.kind === Kind.EqualsToken);
    if (!isValue || /\s/.test(node.text)) return;
    replace("string", node, node.text === "" ? '"?"' : '""');
  };

  const condition = (node: ts.Expression, values: readonly string[]): void => {
    if (node.kind === Kind.TrueKeyword || node.kind === Kind.FalseKeyword) return;
    for (const value of values) replace("condition", node, value);
  };

  /** Where the condition is a comparison or a negation, turning that round swaps them already. */
  const branches = (node: ts.Expression): void => {
    const isTurned = ts.isPrefixUnaryExpression(node) ||
      (ts.isBinaryExpression(node) &&
        BINARY.get(node.operatorToken.kind)?.some(([operator]) => operator === "comparison"));
    const turned = ts.isBinaryExpression(node) || ts.isConditionalExpression(node)
      ? `!(${node.getText(file)})`
      : `!${node.getText(file)}`;
    if (!isTurned) replace("branches", node, turned);
  };

  const dropStatement = (operator: Operator, node: ts.Statement): void => {
    const { parent } = node;
    if (isWholeBranch(node)) return;
    if (!hasStatements(parent)) return replace(operator, node, "{}");
    drop(operator, node.getStart(file), node.end);
  };

  /** With its whole lines, where it has them for itself. */
  const drop = (operator: Operator, start: number, end: number): void => {
    const lineStart = text.lastIndexOf("\n", start - 1) + 1;
    const isAlone = text.slice(lineStart, start).trim() === "" && text[end] === "\n";
    if (isAlone) add(operator, lineStart, end + 1, "");
    else add(operator, start, end, "");
  };

  const dropElement = (operator: Operator, node: ts.ObjectLiteralElement): void => {
    let end = node.end;
    while (/\s/.test(text[end] ?? "")) end++;
    if (text[end] === ",") {
      end++;
      if (text[end] === " ") end++;
    } else end = node.end;
    drop(operator, node.getStart(file), end);
  };

  visit(file);
  return [...found.values()].sort((a, b) => a.start - b.start || a.end - b.end);
}

/** What no test should hold, with all that is in it. */
function isOutOfBounds(node: ts.Node): boolean {
  if (ts.isTypeNode(node) && !ts.isExpressionWithTypeArguments(node)) return true;
  if (ts.isImportDeclaration(node) || ts.isExportDeclaration(node)) return true;
  if (ts.isInterfaceDeclaration(node) || ts.isTypeAliasDeclaration(node)) return true;
  if (ts.isTypeParameterDeclaration(node) || ts.isTemplateExpression(node)) return true;
  if (ts.canHaveModifiers(node)) {
    const modifiers = ts.getModifiers(node) ?? [];
    if (modifiers.some(({ kind }) => kind === Kind.DeclareKeyword)) return true;
  }
  return ts.isNewExpression(node) && /Error$/.test(node.expression.getText());
}

/** Whether a `+` with it puts texts together. */
function isText(node: ts.Expression): boolean {
  if (ts.isStringLiteralLike(node)) return isJoined(node);
  if (ts.isTemplateExpression(node)) return true;
  return ts.isBinaryExpression(node) && node.operatorToken.kind === Kind.PlusToken &&
    (isText(node.left) || isText(node.right));
}

function isJoined(node: ts.Expression): boolean {
  return ts.isBinaryExpression(node.parent) && node.parent.operatorToken.kind === Kind.PlusToken;
}

function isSuperCall(node: ts.Expression): boolean {
  return ts.isCallExpression(node) && node.expression.kind === Kind.SuperKeyword;
}

/** Whether it moves a `for` on. */
function isCounter(node: ts.Expression): boolean {
  return ts.isForStatement(node.parent) && node.parent.incrementor === node;
}

function isLoop(node: ts.Node): boolean {
  return ts.isIterationStatement(node, false);
}

type WithStatements = ts.Block | ts.SourceFile | ts.CaseOrDefaultClause;

function hasStatements(node: ts.Node): node is WithStatements {
  return ts.isBlock(node) || ts.isSourceFile(node) || ts.isCaseOrDefaultClause(node);
}

/** Whether it is all that an `if` without `else` does. */
function isWholeBranch(node: ts.Statement): boolean {
  let at: ts.Node = node;
  if (ts.isBlock(at.parent) && at.parent.statements.length === 1) at = at.parent;
  const { parent } = at;
  return ts.isIfStatement(parent) && parent.thenStatement === at && !parent.elseStatement;
}

/** Whether nothing of the boundary runs after it: a bare exit there changes nothing. */
function isLast(node: ts.Statement, isBoundary: (node: ts.Node) => boolean): boolean {
  for (let at: ts.Node = node; !isBoundary(at); at = at.parent) {
    const { parent } = at;
    if (parent === undefined) return false;
    if (hasStatements(parent) && parent.statements.at(-1) !== at) return false;
    if (ts.isCaseOrDefaultClause(parent) && parent.parent.clauses.at(-1) !== parent) return false;
    if (isLoop(parent) && !isBoundary(parent)) return false;
    if (ts.isTryStatement(parent)) return false;
  }
  return true;
}

/** Whether it stands at the end of the function itself, where types ask for it. */
function isLastOfBody(node: ts.Statement): boolean {
  const { parent } = node;
  return ts.isBlock(parent) && ts.isFunctionLike(parent.parent) &&
    parent.statements.at(-1) === node;
}

function isReturnedOutsideTry(node: ts.AwaitExpression): boolean {
  if (!ts.isReturnStatement(node.parent)) return false;
  for (let at: ts.Node = node; at && !ts.isFunctionLike(at); at = at.parent) {
    if (ts.isTryStatement(at)) return false;
  }
  return true;
}
