import { describe, it } from "node:test";
import { readFile } from "node:fs/promises";
import { assertEquals } from "@std/assert";
import { withScript } from "./on_deno.ts";

describe("the README's picture", () => {
  it("is what the demo prints, but for the order of two clients", () =>
    withScript<typeof import("../../scripts/picture.ts")>("picture.ts", async (script) => {
      const { demoLines, linesOf, PICTURE, pictureOf } = script;
      const drawn = pictureOf("npx natkit demo", await demoLines());
      const kept = await readFile(PICTURE, "utf8");

      assertEquals(linesOf(kept).sort(), linesOf(drawn).sort());
      const frameOf = (picture: string) => picture.replace(/(<text [^>]*>).*(<\/text>)/g, "$1$2");
      assertEquals(frameOf(kept), frameOf(drawn));
    }));
});
