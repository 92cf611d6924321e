/**
 * Every clause of the two protocols has one conformance test, or a waiver that says why not.
 *
 * @module
 */
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

/** Compares test names (`"PCP-C-40: …"`) and waivers with the clauses there are. */
export function checkClauses(
  tests: readonly SourceFile[],
  waivers: readonly SourceFile[],
): Coverage {
  const findings: Finding[] = [];
  const ids = new Set(
    Object.entries(CLAUSES).flatMap(([family, count]) =>
      Array.from({ length: count }, (_, index) => `${family}-${String(index + 1).padStart(2, "0")}`)
    ),
  );
  const tested = new Map<string, string>();
  for (const { path, text } of tests) {
    for (const [, , id] of strip(text, { strings: true }).matchAll(/(["'`])([A-Z]+-[CS]-\d+): /g)) {
      if (id === undefined) continue;
      if (!ids.has(id)) findings.push(`${path}: ${id} is no clause`);
      else if (tested.has(id)) findings.push(`${id} is tested twice: ${tested.get(id)}, ${path}`);
      else tested.set(id, path);
    }
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
