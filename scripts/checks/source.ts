/**
 * Source text as the checks read it: without comments, and with or without the contents of
 * strings. Lines stay where they are.
 *
 * @module
 */

/** A file with its path from the repository's root. */
export interface SourceFile {
  readonly path: string;
  readonly text: string;
}

/** A violation, as it is printed. */
export type Finding = string;

/** After these a slash starts a regular expression, not a division. */
const BEFORE_REGEXP = /(?:^|[(,=:[!&|?{};+\-*%<>~^]|\b(?:return|typeof|case|in|of|void|delete))$/;

/**
 * Blanks comments out, and the contents of strings unless they are to be kept. Code inside `${}` of
 * a template stays; regular expressions are blanked with the strings.
 */
export function strip(text: string, keep: { strings: boolean } = { strings: false }): string {
  let out = "";
  let code = ""; // What was kept of the code so far without blanks at its end, for BEFORE_REGEXP.
  let at = 0;
  const templates: number[] = []; // Depth of braces in each open `${`.
  const blank = (upTo: number) => {
    out += text.slice(at, upTo).replace(/[^\n]/g, " ");
    at = upTo;
  };
  const literal = (upTo: number) => {
    if (keep.strings) {
      out += text.slice(at, upTo);
      at = upTo;
    } else {
      const start = text[at] ?? "";
      out += start;
      at++;
      blank(Math.max(at, upTo - 1));
      out += text.slice(at, upTo);
      at = upTo;
    }
    code = '"';
  };
  while (at < text.length) {
    const char = text[at]!;
    const next = text[at + 1];
    if (char === "/" && next === "/") {
      blank(endOf(text, "\n", at));
    } else if (char === "/" && next === "*") {
      const end = text.indexOf("*/", at + 2);
      blank(end < 0 ? text.length : end + 2);
    } else if (char === '"' || char === "'") {
      literal(endOfString(text, at));
    } else if (char === "`" || (char === "}" && templates.at(-1) === 0)) {
      if (char === "}") templates.pop();
      const end = endOfTemplatePart(text, at);
      literal(end);
      if (text[end - 1] === "{") templates.push(0), code = "{";
    } else if (char === "/" && BEFORE_REGEXP.test(code)) {
      literal(endOfRegExp(text, at));
    } else {
      if (templates.length > 0 && char === "{") templates[templates.length - 1]!++;
      if (templates.length > 0 && char === "}") templates[templates.length - 1]!--;
      out += char;
      if (!/\s/.test(char)) code = (code + char).slice(-12);
      else if (/\w$/.test(code)) code += " ";
      if (/\w $/.test(code) && !/\s/.test(next ?? "")) code = code.trimEnd();
      at++;
    }
  }
  return out;
}

/** Line numbers (from 1) and texts of everything a pattern matches. */
export function linesMatching(text: string, pattern: RegExp): { line: number; match: string }[] {
  const found: { line: number; match: string }[] = [];
  text.split("\n").forEach((content, index) => {
    for (const [match] of content.matchAll(pattern)) found.push({ line: index + 1, match });
  });
  return found;
}

function endOf(text: string, mark: string, from: number): number {
  const end = text.indexOf(mark, from);
  return end < 0 ? text.length : end;
}

function endOfString(text: string, start: number): number {
  const quote = text[start];
  for (let at = start + 1; at < text.length; at++) {
    if (text[at] === "\\") at++;
    else if (text[at] === quote) return at + 1;
    else if (text[at] === "\n") return at;
  }
  return text.length;
}

/** The end of a template or of its part up to and with `${`. */
function endOfTemplatePart(text: string, start: number): number {
  for (let at = start + 1; at < text.length; at++) {
    if (text[at] === "\\") at++;
    else if (text[at] === "`") return at + 1;
    else if (text[at] === "$" && text[at + 1] === "{") return at + 2;
  }
  return text.length;
}

function endOfRegExp(text: string, start: number): number {
  let inClass = false;
  for (let at = start + 1; at < text.length; at++) {
    const char = text[at];
    if (char === "\\") at++;
    else if (char === "[") inClass = true;
    else if (char === "]") inClass = false;
    else if (char === "\n") return at;
    else if (char === "/" && !inClass) return at + 1;
  }
  return text.length;
}
