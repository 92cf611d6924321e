import { describe, it } from "node:test";
import { assert, assertEquals } from "@std/assert";
import { withScript } from "./on_deno.ts";

type Files = typeof import("../../scripts/lib/files.ts");

describe("the walk through one PCP grant in the core's module docs", () => {
  it("leads through at most 15 files, which are there and name what they are said to do", () =>
    withScript<Files>("lib/files.ts", ({ read, exists }) => {
      const [, walk = ""] = read("core/mod.ts").split("One PCP grant");
      const steps = walk.split("@example")[0]!.match(/^ \* \d+\. .*/gm) ?? [];
      assert(steps.length > 0 && steps.length <= 15, `${steps.length} steps`);
      const paths = steps.map((step) =>
        /`((?:core|adapters)\/[\w/]+\.ts)`/.exec(step)?.[1] ?? step
      );
      assertEquals(paths.filter((path) => !exists(path)), []);
      assert(read("adapters/api/port_context.ts").includes("async map("));
    }));
});
