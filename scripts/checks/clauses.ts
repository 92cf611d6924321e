/**
 * Every clause of the two protocols has one conformance test, or a waiver that says why not. The
 * sources tell what is meant to be tested; what was tested a run's report tells, with the record of
 * the assertions that each test made.
 *
 * @module
 */
import type { TestCase } from "../lib/junit.ts";
import { type Finding, type SourceFile, strip } from "./source.ts";

/** How many clauses each family has; they are numbered from 01. */
export const CLAUSES: Readonly<Record<string, number>> = {
  "PMP-C": 35,
  "PMP-S": 37,
  "PCP-C": 58,
  "PCP-S": 59,
};

/** A waiver of fewer letters gives no reason. */
const SHORTEST_REASON = 20;

/** How far the conformance tests go. */
export interface Coverage {
  readonly findings: Finding[];
  readonly tested: number;
  readonly waived: number;
}

/** A clause's test, and where it stands. */
export interface ClauseTest {
  readonly id: string;
  readonly where: string;
}

/** Lists the tests that sources register: `it("PCP-C-40: …", …)`. */
export function clausesInSources(files: readonly SourceFile[]): ClauseTest[] {
  return files.flatMap(({ path, text }) => {
    const code = strip(text);
    return [...code.matchAll(/(?<![\w.])it\(\s*["'`]/g)].flatMap(({ 0: call, index }) => {
      const id = /^([A-Z]+-[CS]-\d+): /.exec(text.slice(index + call.length))?.[1];
      return id === undefined ? [] : [{ id, where: path }];
    });
  });
}

/**
 * Lists the tests that ran, and finds those that passed without an assertion.
 *
 * @param record Lines of an id and the number of assertions that its test made before it passed.
 */
export function clausesInReport(
  cases: readonly TestCase[],
  record: string,
): { tests: ClauseTest[]; findings: Finding[] } {
  const asserted = new Set([...record.matchAll(/^(\S+) [1-9]\d*$/gm)].map(([, id]) => id));
  const tests: ClauseTest[] = [];
  const findings: Finding[] = [];
  for (const { name, outcome } of cases) {
    const id = /(?:^| > )([A-Z]+-[CS]-\d+): /.exec(name)?.[1];
    if (id === undefined) continue;
    tests.push({ id, where: name });
    if (outcome === "passed" && !asserted.has(id)) {
      findings.push(`${id} passed, but its test made no assertion that was counted: ${name}`);
    }
  }
  return { tests, findings };
}

/** Compares tests and waivers with the clauses there are. */
export function checkClauses(
  tests: readonly ClauseTest[],
  waivers: readonly SourceFile[],
): Coverage {
  const findings: Finding[] = [];
  const ids = new Set(
    Object.entries(CLAUSES).flatMap(([family, count]) =>
      Array.from({ length: count }, (_, index) => `${family}-${String(index + 1).padStart(2, "0")}`)
    ),
  );
  const tested = new Map<string, string>();
  for (const { id, where } of tests) {
    if (!ids.has(id)) findings.push(`${where}: ${id} is no clause`);
    else if (tested.has(id)) findings.push(`${id} is tested twice: ${tested.get(id)}, ${where}`);
    else tested.set(id, where);
  }
  const waived = new Set<string>();
  for (const { path, text } of waivers) {
    for (const [id, reason] of Object.entries(JSON.parse(text) as Record<string, unknown>)) {
      if (!ids.has(id)) findings.push(`${path}: ${id} is no clause`);
      if (tested.has(id)) findings.push(`${path}: ${id} is waived, but ${tested.get(id)} tests it`);
      if (waived.has(id)) findings.push(`${path}: ${id} is waived twice`);
      if (typeof reason !== "string" || reason.trim().length < SHORTEST_REASON) {
        findings.push(`${path}: ${id} is waived without a reason`);
      }
      waived.add(id);
    }
  }
  for (const family of Object.keys(CLAUSES)) {
    const missing = [...ids].filter((id) =>
      id.startsWith(family) && !tested.has(id) && !waived.has(id)
    );
    if (missing.length > 0) findings.push(`no test and no waiver: ${missing.join(" ")}`);
  }
  return { findings, tested: tested.size, waived: waived.size };
}

/** Finds what is wrong with the clauses of a run; a part of the tests cannot lack any. */
export function checkClausesRun(
  cases: readonly TestCase[],
  record: string,
  waivers: readonly SourceFile[],
  isWhole: boolean,
): Finding[] {
  const { tests, findings } = clausesInReport(cases, record);
  return isWhole ? [...findings, ...checkClauses(tests, waivers).findings] : findings;
}
