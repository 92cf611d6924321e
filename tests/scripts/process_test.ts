import { it } from "node:test";
import { assertEquals, assertMatch } from "@std/assert";
import process from "node:process";
import { withScript } from "./on_deno.ts";

type Processes = typeof import("../../scripts/lib/process.ts");

function isRunning(pid: number): boolean {
  try {
    return process.kill(pid, 0);
  } catch {
    return false;
  }
}

it("a group ends with its child, also where the guard ends that", {
  skip: process.platform === "win32",
}, () =>
  withScript<Processes>("lib/process.ts", async ({ run }) => {
    // A grandchild that goes on would hold the output open as well: the run would not end.
    for (const [rest, code, guardMs] of [["exit 3", 3, 60_000], ["wait", 137, 1000]] as const) {
      const script = `sleep 600 & echo $!; ${rest}`;
      const result = await run(["sh", "-c", script], { isGroup: true, guardMs });
      assertEquals([result.code, result.hung], [code, rest === "wait"]);
      assertMatch(result.stdout, /^\d+\n$/);
      while (isRunning(Number(result.stdout))) {
        await new Promise((resolve) => setTimeout(resolve, 5));
      }
    }
  }));
