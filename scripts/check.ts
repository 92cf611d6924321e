/**
 * `deno task check`: everything about the sources that needs no test to run. One line a check,
 * exit status 1 if any fails.
 *
 * @module
 */
// deno-lint-ignore-file no-console
import { checkArrows } from "./checks/arrows.ts";
import { checkClauses, clausesInSources } from "./checks/clauses.ts";
import {
  checkEmptyTests,
  checkMachinePaths,
  checkSwitchedTests,
  checkTestNames,
  checkUndone,
  checkUsing,
} from "./checks/hygiene.ts";
import { checkPurity } from "./checks/purity.ts";
import { checkReach, reachedFrom } from "./checks/reach.ts";
import { checkWorkflows } from "./checks/workflows.ts";
import type { Finding, SourceFile } from "./checks/source.ts";
import { checkList, LIST } from "./mutate/clause_list.ts";
import { exists, read, readWaivers, ROOT, walk } from "./lib/files.ts";
import { run } from "./lib/process.ts";

/** A check: what it found, and what the line says where it found nothing. */
interface Verdict {
  readonly findings: Finding[];
  readonly note?: string;
}

const files: SourceFile[] = walk("", (path) => path.endsWith(".ts"))
  .map((path) => ({ path, text: read(path) }));
const sources = files.map(({ path }) => path);
const exported: Record<string, string> = JSON.parse(read("deno.json")).exports;
const entryPoints = [...new Set(Object.values(exported).map((path) => path.replace(/^\.\//, "")))];
const present = entryPoints.filter(exists);

/** What runs in a page has the browser's globals, which would hide mistakes in all else. */
const isPage = ({ text }: SourceFile) => text.startsWith('/// <reference lib="dom" />');
const pages = files.filter(isPage).map(({ path }) => path);
const others = sources.filter((path) => !pages.includes(path));
const conformance = files.filter(({ path }) => /^tests\/conformance\/.*_test\.ts$/.test(path));

const CHECKS: Record<string, () => Verdict | Promise<Verdict>> = {
  "types": () => deno("check", "--quiet", "--doc", ...others, "README.md"),
  "types of pages": () => deno("check", "--quiet", ...pages),
  "format": () => deno("fmt", "--check"),
  "lint": () => deno("lint"),
  "doc lint": () => deno("doc", "--lint", ...present),
  "publishing": () => deno("publish", "--dry-run", "--allow-dirty", "--no-check"),
  "entry points": () => ({
    findings: entryPoints.filter((path) => !exists(path)).map((path) => `${path} does not exist`),
    note: `${present.length}`,
  }),
  "arrows": () => ({ findings: checkArrows(files) }),
  "what mod.ts loads": () => ({
    findings: checkReach(files),
    note: `${reachedFrom("mod.ts", files).size} modules`,
  }),
  "purity of core/": () => ({ findings: checkPurity(files) }),
  "clauses": () => {
    const { findings, tested, waived } = checkClauses(clausesInSources(conformance), readWaivers());
    return { findings, note: `${tested} tested, ${waived} waived` };
  },
  "workflows": async () => {
    const found = walk(".github", (path) => /\.ya?ml$/.test(path));
    const texts = found.map((path) => ({ path, text: read(path) }));
    const tasks = Object.keys(JSON.parse(read("deno.json")).tasks);
    return { findings: await checkWorkflows(texts, { tasks, exists }), note: `${found.length}` };
  },
  "the clauses' bugs": () => {
    const { findings, told, without } = checkList(
      read(LIST),
      clausesInSources(conformance).map(({ id }) => id),
      (path) => files.find((file) => file.path === path)?.text,
    );
    return { findings, note: `${told} named, ${without} without` };
  },
  "nothing undone": () => ({ findings: checkUndone(files) }),
  "no switched test": () => ({ findings: checkSwitchedTests(files) }),
  "no empty test": () => ({ findings: checkEmptyTests(files) }),
  "names of tests": () => ({ findings: checkTestNames(files) }),
  "Node 20 reads it": () => ({ findings: checkUsing(files) }),
  "no machine paths": () => ({ findings: checkMachinePaths(files) }),
};

/** Runs one of Deno's own checks; what it says is the finding. */
async function deno(...args: string[]): Promise<Verdict> {
  const result = await run([Deno.execPath(), ...args], { cwd: ROOT, env: { NO_COLOR: "1" } });
  return { findings: result.code === 0 ? [] : [`${result.stdout}${result.stderr}`.trim()] };
}

async function main(chosen: readonly string[]): Promise<number> {
  const names = Object.keys(CHECKS).filter((name) =>
    chosen.length === 0 || chosen.some((part) => name.includes(part))
  );
  if (names.length === 0) {
    console.error(`No check is called ${chosen.join(" ")}: ${Object.keys(CHECKS).join(", ")}`);
    return 2;
  }
  let failed = 0;
  const started = names.map((name) => {
    const startedAt = performance.now();
    return Promise.resolve(CHECKS[name]!()).then((verdict) => ({
      ...verdict,
      name,
      seconds: (performance.now() - startedAt) / 1000,
    }));
  });
  for (const pending of started) {
    const { name, findings, note, seconds } = await pending;
    const details = [note, seconds >= 0.1 ? `${seconds.toFixed(1)} s` : undefined]
      .filter((part) => part !== undefined).join(", ");
    const line = details === "" ? name : `${name} (${details})`;
    console.log(findings.length === 0 ? `ok    ${line}` : `FAIL  ${line}`);
    for (const finding of findings) console.log(finding.replace(/^/gm, "      "));
    if (findings.length > 0) failed++;
  }
  return failed === 0 ? 0 : 1;
}

if (import.meta.main) Deno.exit(await main(Deno.args));
