import { execFile } from "node:child_process";
import { chmod, copyFile, mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { it } from "node:test";
import { assertEquals } from "@std/assert";
import { failureList } from "../../scripts/lib/failures.ts";

/** What the tasks say, and their status; the others say nothing and are content. */
const SAID: Readonly<Record<string, readonly [text: string, status: number]>> = {
  check: ["core/a.ts: is wrong\n\nFound 1 error.\n", 1],
  test: [
    `Node: FAILED early\nFailed:\n- Node: not the last list\n${
      failureList([
        { name: "Node: a group > a test", detail: "[Diff] Actual / Expected\n  [\n-   1\n+   2" },
        { name: "Bun: no end within 60 s", detail: "" },
      ])
    }\nNode: 9 passed, 1 failed\nBun: 4 passed, 1 failed\n13 passed, 2 failed\n`,
    1,
  ],
  "test:package": ["npm was not reached\n", 1],
  lab: ["\nLab: 7 passed, 0 failed\n", 0],
};

const TASKS = Object.entries(SAID)
  .map(([task, [text, status]]) => `"task ${task}") printf '%s' '${text}'; exit ${status};;`);

/** Programs that `.ci/run` finds instead of the real ones. */
const PROGRAMS: Readonly<Record<string, string>> = {
  npx: `case "$3 $4" in\n${TASKS.join("\n")}\nesac`,
  "dpkg-query": `printf 'install ok installed'`,
};

async function runCi(): Promise<{ status: number; lines: string[] }> {
  const folder = await mkdtemp(join(tmpdir(), "natkit-ci-"));
  try {
    await mkdir(join(folder, ".ci"));
    await copyFile(".ci/run", join(folder, ".ci/run"));
    for (const [name, text] of Object.entries(PROGRAMS)) {
      await writeFile(join(folder, name), `#!/bin/sh\n${text}\n`);
      await chmod(join(folder, name), 0o755);
    }
    const env = { ...process.env, PATH: `${folder}:${process.env.PATH}` };
    return await new Promise((resolve) => {
      const child = execFile("bash", [join(folder, ".ci/run")], { env }, (_error, stdout) => {
        resolve({ status: child.exitCode ?? -1, lines: stdout.split("\n") });
      });
    });
  } finally {
    await rm(folder, { recursive: true });
  }
}

it("CI names at its end all that failed, before the sum", {
  skip: process.platform === "win32",
}, async () => {
  const { status, lines } = await runCi();

  assertEquals(status, 1);
  assertEquals(lines.slice(lines.lastIndexOf("Failed:")), [
    "Failed:",
    "- check",
    "  core/a.ts: is wrong",
    "  Found 1 error.",
    "- test: Node: a group > a test",
    "  -   1",
    "  +   2",
    "- test: Bun: no end within 60 s",
    "- package: exit status 1, no counts",
    "  npm was not reached",
    "",
    "20 passed, 4 failed",
    "",
  ]);
});

it("a list of failures is short, and an item of it one line", () => {
  const long = { name: `a\n${"n".repeat(500)}`, detail: "line\n".repeat(50) };
  const lines = failureList(Array.from({ length: 100 }, () => long)).split("\n");

  assertEquals(lines.length, 244);
  assertEquals(lines.filter((line) => line.startsWith("- ")).length, 41);
  assertEquals(Math.max(...lines.map((line) => line.length)), 163);
  assertEquals(failureList([]), "");
});
