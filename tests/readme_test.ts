/**
 * Every block of the README is run: `ts` by `deno test --doc`, `ts ignore`, `sh lab`,
 * `sh held` and `sh gateway` in the lab (tests/lab/readme_test.ts), `sh` and `sh ci` by `.ci/run` itself.
 *
 * @module
 */
import { existsSync, readFileSync } from "node:fs";
import { describe, it } from "node:test";
import { assert, assertEquals } from "@std/assert";
import { blocksOf } from "../scripts/lib/readme.ts";

const README = readFileSync("README.md", "utf8");
const BLOCKS = blocksOf(README);

describe("README.md", () => {
  it("has only blocks that something runs", () => {
    const known = ["ts", "ts ignore", "sh", "sh ci", "sh lab", "sh held", "sh gateway"];
    for (const { info, text } of BLOCKS) assert(known.includes(info), `${info}\n${text}`);
    assertEquals(BLOCKS.filter(({ info }) => info === "ts ignore").length, 1);
  });

  it("names no command that .ci/run does not run", () => {
    const ci = readFileSync(".ci/run", "utf8");
    for (const { text } of BLOCKS.filter(({ info }) => info === "sh" || info === "sh ci")) {
      for (const line of text.trim().split("\n")) {
        const task = /^npx --yes deno@2\.9\.6 (task .+)$/.exec(line)?.[1];
        assert(task !== undefined, line);
        assert(ci.includes(`"\${DENO[@]}" ${task}`), `.ci/run does not run: ${task}`);
      }
    }
  });

  it("links to files that are there", () => {
    for (const [, path] of README.matchAll(/\]\(([^)#:]+)\)/g)) assert(existsSync(path!), path);
  });
});
