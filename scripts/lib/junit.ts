/**
 * Reads the JUnit reports of the three test runners, which differ in how they nest: Deno writes
 * steps side by side with their path in the name, Node and Bun write groups inside groups.
 *
 * @module
 */

/** What a test is called that follows all tests of a file: this, and the file's path. */
export const END_OF = "end of ";

/** One test that ran, or did not. */
export interface TestCase {
  /** The path from the outermost group, joined by ` > `. */
  readonly name: string;
  readonly outcome: "passed" | "failed" | "skipped";
  /** The failure in full, or the reason for the skip. */
  readonly detail: string;
}

/** What a report says. */
export interface Report {
  readonly cases: TestCase[];
  /** The files that ran to their end, by path, with how much was reported of each. */
  readonly ended: ReadonlyMap<string, number>;
  /** Node takes a file that throws while it is loaded, ends early or has no test for a test. */
  readonly takesFileForTest: boolean;
}

interface Open {
  tag: "testsuite" | "testcase";
  name: string;
  outcome: TestCase["outcome"];
  detail: string;
}

const TAG =
  /<(\/?)(testsuites|testsuite|testcase|failure|error|skipped)\b((?:[^>"]|"[^"]*")*?)(\/?)>/g;

/**
 * Reads a report; groups that contain tests are not counted as tests. Tests are a file's when they
 * stand before its {@linkcode END_OF}, which all three keep: Deno lists what a file registers with
 * the file, and only the insides of its groups elsewhere.
 */
export function readReport(xml: string): Report {
  const cases: TestCase[] = [];
  const ended = new Map<string, number>();
  let sinceEnd = 0;
  let takesFileForTest = false;
  const add = (one: TestCase) => {
    if (one.name.startsWith(END_OF)) {
      // Deno lists one that it did not come to as skipped.
      if (one.outcome === "passed") ended.set(one.name.slice(END_OF.length), sinceEnd);
      sinceEnd = 0;
    } else if (one.name.endsWith(".test.js")) {
      takesFileForTest = true;
    } else {
      cases.push(one);
      sinceEnd++;
    }
  };
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
        if (closed?.tag === "testcase") add(asCase(closed, stack));
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
  return { cases: withoutGroups(cases), ended, takesFileForTest };
}

function asCase(open: Open, parents: readonly Open[]): TestCase {
  const place = EXAMPLE.exec(parents[0]?.name ?? "")?.[1];
  if (place !== undefined) {
    // One that registers no test of its own is called after its place, by its address.
    const name = open.name.endsWith(place) ? "" : ` > ${open.name}`;
    return { name: `example ${place}${name}`, outcome: open.outcome, detail: open.detail };
  }
  const path = parents.filter((parent) => !isFile(parent.name)).map((parent) => parent.name);
  // Node 20 escapes quotes twice.
  const name = [...path, open.name].join(" > ").replaceAll("&quot;", '"');
  return { name, outcome: open.outcome, detail: open.detail };
}

/** Deno's suite of an example in docs, and its place: `core/ip.ts#16-22.ts`. */
const EXAMPLE = /^(?:\.\/)?(\S+#\d+-\d+\.ts)$/;

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
