/** The README's picture. It comes from a run of the demo, which has sockets: not beside other tests'. */
import { describe, it } from "node:test";
import { readFile } from "node:fs/promises";
import { assertEquals } from "@std/assert";
import { withScript } from "./scripts/on_deno.ts";

/** Where a picture's lines stand; empty ones are not drawn. */
function rowsOf(picture: string, lines: readonly string[]): string[] {
  const heights = [...picture.matchAll(/<text [^>]*y="(\d+)"/g)].map(([, y]) => Number(y));
  const [first, second] = heights as [number, number];
  const rows: string[] = [];
  for (const [i, line] of lines.entries()) {
    const row = (heights[i]! - first) / (second - first);
    while (rows.length < row) rows.push("");
    rows.push(line);
  }
  return rows;
}

describe("the README's picture", () => {
  it("is what the demo prints, but for the order of the clients", () =>
    withScript<typeof import("../scripts/picture.ts")>("picture.ts", async (script) => {
      const { demoLines, linesOf, PICTURE, pictureOf } = script;
      const kept = linesOf(await readFile(PICTURE, "utf8"));
      const drawn = linesOf(pictureOf("npx natkit demo", await demoLines()));
      // A client that heard nothing for a while asks, and tells the same again.
      const once = drawn.filter((line, i) => drawn.indexOf(line) === i);
      assertEquals(kept.sort(), once.sort());
    }));

  it("is drawn as it would be drawn today", () =>
    withScript<typeof import("../scripts/picture.ts")>("picture.ts", async (script) => {
      const { linesOf, PICTURE, pictureOf } = script;
      const kept = await readFile(PICTURE, "utf8");
      const [, ...lines] = rowsOf(kept, linesOf(kept));
      assertEquals(pictureOf("npx natkit demo", lines), kept);
    }));
});
