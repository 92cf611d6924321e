import { describe, it } from "node:test";
import { assert, assertEquals, assertStringIncludes, assertThrows } from "@std/assert";
import { withScript } from "./on_deno.ts";

type Workflows = typeof import("../../scripts/checks/workflows.ts");

const REPOSITORY = {
  tasks: ["test"],
  exists: (path: string) => path === ".ci/run",
};

const workflow = (...commands: string[]) =>
  [
    "on: push",
    "jobs:",
    "  one:",
    "    runs-on: ubuntu-latest",
    "    steps:",
    ...commands.map((command) => `      - run: ${command}`),
    "",
  ].join("\n");

const FORM = `name: Bug
description: What is wrong.
body:
  - type: textarea
    id: doctor
    attributes:
      label: Doctor
      description: What natkit doctor --json says.
`;

const findingsIn = (path: string, text: string) => {
  let found: Promise<string[]> = Promise.resolve([]);
  return withScript<Workflows>("checks/workflows.ts", ({ checkWorkflows }) => {
    found = checkWorkflows([{ path: `.github/${path}`, text }], REPOSITORY);
  }).then(() => found);
};

/** Each is of one fault. */
const FAULTY: readonly (readonly [path: string, text: string, fault: string])[] = [
  ["workflows/a.yml", workflow("npx --yes deno@2.9.6 task tset"), "there is no task tset"],
  ["workflows/a.yml", workflow("bash .ci/rnu"), "there is no .ci/rnu"],
  ["workflows/a.yml", workflow("./install.sh"), "nobody knows whether this runs"],
  ["workflows/a.yml", workflow("npx --yes deno@2.9.6 pubilsh"), "nobody knows whether this runs"],
  ["workflows/a.yml", workflow("npm run ${{ matrix.what }}"), 'property "what" is not defined'],
  ["workflows/a.yml", workflow("npm test").replace("runs-on", "run-on"), "run-on"],
  [
    "workflows/a.yml",
    "on: push\njobs:\n  one:\n    uses: ./.github/workflows/none.yml\n",
    "there is no ./.github/workflows/none.yml",
  ],
  ["workflows/a.yml", "on: push\non: pull_request\n", "unique"],
  ["ISSUE_TEMPLATE/a.yml", FORM.replace("    id: doctor\n", ""), "an id of its own"],
  ["ISSUE_TEMPLATE/a.yml", FORM.replace("label", "labels"), "each field has a label"],
  ["ISSUE_TEMPLATE/a.yml", FORM.replace("--json", ""), "asks for natkit doctor --json"],
  ["ISSUE_TEMPLATE/a.yml", FORM.replace("textarea", "textaera"), "no field is a textaera"],
  ["ISSUE_TEMPLATE/a.yml", FORM.replace("name: Bug\n", ""), "a name and a description"],
];

describe("the check of workflows and forms", () => {
  it("finds nothing where everything is there", async () => {
    const fine = workflow("npx --yes deno@2.9.6 task test --deno", "bash .ci/run", "npm test");
    assertEquals(await findingsIn("workflows/a.yml", fine), []);
    assertEquals(await findingsIn("ISSUE_TEMPLATE/a.yml", FORM), []);
  });

  it("finds what is not there, and what the host would not take", () =>
    withScript<Workflows>("checks/workflows.ts", async () => {
      for (const [path, text, fault] of FAULTY) {
        const found = (await findingsIn(path, text)).join("\n");
        assertStringIncludes(found, fault, text);
        assert(found.startsWith(`.github/${path}`), found);
      }
    }));
});

describe("what is said of a release", () => {
  it("is the changelog's section of the version that the tag names", () =>
    withScript<typeof import("../../scripts/release.ts")>("release.ts", ({ releaseNotes }) => {
      const changelog = "# Changelog\n\n## 0.2.0\n\n- New.\n\n## 0.1.0\n\n- First.\n";
      assertEquals(releaseNotes("v0.2.0", "0.2.0", changelog), "- New.");
      assertEquals(releaseNotes("v0.1.0", "0.1.0", changelog), "- First.");
      assertThrows(() => releaseNotes("v0.1.0", "0.2.0", changelog), Error, "of version 0.2.0");
      assertThrows(() => releaseNotes("v0.3.0", "0.3.0", changelog), Error, "nothing of 0.3.0");
      assertThrows(() => releaseNotes("v0.2", "0.2", changelog), Error, "nothing of 0.2");
    }));
});
