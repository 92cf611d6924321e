/**
 * Reads the JUnit reports of the three test runners, which differ in how they nest: Deno writes
 * steps side by side with their path in the name, Node and Bun write groups inside groups.
 *
 * @module
 */

/** One test that ran, or did not. */
export interface TestCase {
  /** The path from the outermost group, joined by ` > `. */
  readonly name: string;
  readonly outcome: "passed" | "failed" | "skipped";
  /** The failure in full, or the reason for the skip. */
  readonly detail: string;
}

interface Open {
  tag: "testsuite" | "testcase";
  name: string;
  outcome: TestCase["outcome"];
  detail: string;
}

const TAG =
  /<(\/?)(testsuites|testsuite|testcase|failure|error|skipped)\b((?:[^>"]|"[^"]*")*?)(\/?)>/g;

/** Lists the tests of a report; groups that contain tests are not counted as tests. */
export function readReport(xml: string): TestCase[] {
  const cases: TestCase[] = [];
  const stack: Open[] = [];
  let failureFrom = -1;
  for (const match of xml.matchAll(TAG)) {
    const [whole, slash, tag, attributes = "", selfClosing] = match;
    const top = stack.at(-1);
    if (tag === "testsuites") continue;
    if (tag === "testsuite" || tag === "testcase") {
      if (slash === "") {
        stack.push({ tag, name: attribute(attributes, "name"), outcome: "passed", detail: "" });
      }
      if (slash === "/" || selfClosing === "/") {
        const closed = stack.pop();
        if (closed?.tag === "testcase") cases.push(asCase(closed, stack));
      }
      continue;
    }
    if (top === undefined) continue;
    if (slash === "/") {
      if (failureFrom >= 0 && tag !== "skipped") {
        top.detail ||= unescape(xml.slice(failureFrom, match.index)).trim();
      }
      failureFrom = -1;
      continue;
    }
    top.outcome = tag === "skipped" ? "skipped" : "failed";
    const message = attribute(attributes, "message");
    if (selfClosing === "/" || tag === "skipped") top.detail = message;
    else failureFrom = match.index + whole.length;
  }
  return withoutGroups(cases);
}

function asCase(open: Open, parents: readonly Open[]): TestCase {
  const path = parents.filter((parent) => !isFile(parent.name)).map((parent) => parent.name);
  // Node 20 escapes quotes twice.
  const name = [...path, open.name].join(" > ").replaceAll("&quot;", '"');
  return { name, outcome: open.outcome, detail: open.detail };
}

/** Runners name the outermost suite after the file. */
function isFile(name: string): boolean {
  return /\.[jt]s(#\S*)?$/.test(name);
}

/** Drops Deno's entries for groups, but keeps a group that failed though none of its tests did. */
function withoutGroups(cases: readonly TestCase[]): TestCase[] {
  const groups = new Set<string>();
  const failing = new Set<string>();
  for (const { name, outcome } of cases) {
    for (let at = name.indexOf(" > "); at >= 0; at = name.indexOf(" > ", at + 1)) {
      groups.add(name.slice(0, at));
      if (outcome === "failed") failing.add(name.slice(0, at));
    }
  }
  return cases.filter(({ name, outcome }) =>
    !groups.has(name) || (outcome === "failed" && !failing.has(name))
  );
}

function attribute(attributes: string, name: string): string {
  const match = new RegExp(`\\b${name}="([^"]*)"`).exec(attributes);
  return unescape(match?.[1] ?? "");
}

const ENTITIES: Record<string, string> = { lt: "<", gt: ">", quot: '"', apos: "'", amp: "&" };

function unescape(text: string): string {
  return text.replace(/&(?:#(\d+)|#x([0-9a-f]+)|(\w+));/gi, (whole, decimal, hex, name) => {
    if (decimal !== undefined) return String.fromCodePoint(Number(decimal));
    if (hex !== undefined) return String.fromCodePoint(parseInt(hex, 16));
    return ENTITIES[name] ?? whole;
  });
}
