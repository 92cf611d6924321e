/**
 * The runtimes run the same tests: a group or a test that one of them lost goes unseen otherwise.
 *
 * @module
 */
import type { TestCase } from "./junit.ts";
import { type Runtime, RUNTIMES } from "./runtimes.ts";

/** Tests that not all runtimes run. */
export interface Exception {
  readonly name: RegExp;
  readonly on: readonly Runtime[];
  /** A file that has no others, and so registers nothing elsewhere. */
  readonly file?: string;
  readonly reason: string;
}

/** All of them. */
export const EXCEPTIONS: readonly Exception[] = [
  {
    name: /^example \S+#\d+-\d+\.ts/,
    on: ["Deno"],
    reason: "examples in docs are Deno's to run, with `deno test --doc`",
  },
  {
    name: /^natkit as a process > deletes the mapping at Ctrl-C under a task runner$/,
    on: ["Deno"],
    reason: "the task runner that passes the signal on a second time is Deno's",
  },
  {
    name: /^the test command > /,
    on: ["Deno"],
    file: "tests/scripts/test_command_test.ts",
    reason: "it is a program for Deno, and tries all three itself",
  },
  {
    name: /^the playground's page( > |$)/,
    on: ["Deno"],
    file: "tests/scripts/playground_page_test.ts",
    reason: "it runs in a browser, the same whoever drives it; Deno bundles it",
  },
];

/** Whether an exception lets a file register no test on a runtime. */
export function mayLackTests(file: string, runtime: Runtime): boolean {
  return EXCEPTIONS.some((one) => one.file === file && !one.on.includes(runtime));
}

/**
 * Finds tests that ran more often on one runtime than on another, and exceptions that are none.
 *
 * @param isWhole Whether all tests were to be run: then each exception has to come up.
 */
export function checkSameTests(
  ran: ReadonlyMap<Runtime, readonly TestCase[]>,
  isWhole: boolean,
  exceptions: readonly Exception[] = EXCEPTIONS,
): string[] {
  const runtimes = RUNTIMES.filter((runtime) => ran.has(runtime));
  const counts = new Map<string, Map<Runtime, number>>();
  for (const runtime of runtimes) {
    for (const { name } of ran.get(runtime)!) {
      const own = counts.get(name) ?? new Map<Runtime, number>();
      counts.set(name, own.set(runtime, (own.get(runtime) ?? 0) + 1));
    }
  }
  const findings: string[] = [];
  const seen = new Set<Exception>();
  for (const [name, count] of counts) {
    const exception = exceptions.find((one) => one.name.test(name));
    if (exception) seen.add(exception);
    const most = Math.max(...count.values());
    const wrong = runtimes.filter((runtime) => {
      const expected = exception === undefined || exception.on.includes(runtime) ? most : 0;
      return (count.get(runtime) ?? 0) !== expected;
    });
    if (wrong.length === 0) continue;
    const each = runtimes.map((runtime) => `${runtime} ${count.get(runtime) ?? 0}`).join(", ");
    findings.push(`not the same on each runtime (${each}): ${name}`);
  }
  for (const exception of exceptions) {
    if (!isWhole || seen.has(exception)) continue;
    if (!exception.on.some((runtime) => runtimes.includes(runtime))) continue;
    findings.push(`an exception that no test needs: ${exception.name.source}`);
  }
  return findings;
}
