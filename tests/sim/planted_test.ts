/**
 * Whether the list of planted bugs is true of the sources as they are. That the simulation finds each
 * is `deno task sim --planted`'s business.
 */
import { describe, it } from "node:test";
import { readFileSync } from "node:fs";
import process from "node:process";
import { assert, assertEquals } from "@std/assert";
import { PLANTED } from "./planted.ts";

describe("planted bugs", () => {
  const root = process.env.NATKIT_ROOT ?? process.cwd();

  it("stand where they are to be planted exactly once", () => {
    const stale = PLANTED.filter(({ file, find }) =>
      readFileSync(`${root}/${file}`, "utf8").split(find).length !== 2
    );
    assertEquals(stale.map(({ name }) => name), []);
  });

  it("change something, and have names of their own", () => {
    assert(PLANTED.every(({ find, replace }) => find !== replace));
    assertEquals(new Set(PLANTED.map(({ name }) => name)).size, PLANTED.length);
    assert(PLANTED.length >= 25);
  });
});
