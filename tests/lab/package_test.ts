/**
 * The npm package in an empty project, called as its users do: npx, bunx, and Deno on its program.
 *
 * @module
 */
import { assertEquals } from "@std/assert";
import { buildPackage, installPackage } from "../../scripts/build_npm.ts";
import type { LabTest } from "../../scripts/lab/main.ts";
import { Natkit } from "../../scripts/lab/natkit.ts";
import { ADDRESS } from "../../scripts/lab/topology.ts";
import { bunPath, type Runtime } from "../../scripts/lib/runtimes.ts";
import { assertStatus, field, only, table } from "./support.ts";

/** Nothing may be fetched: the namespace reaches no registry. */
const COMMANDS: Readonly<Record<Runtime, () => Promise<string[]>>> = {
  Node: () => Promise.resolve(["npx", "--no-install", "natkit"]),
  Bun: async () => [await bunPath(), "x", "--bun", "--no-install", "natkit"],
  Deno: () =>
    Promise.resolve([
      Deno.execPath(),
      "run",
      "-A",
      "node_modules/natkit/adapters/cli/bin.js",
    ]),
};

export const tests: Record<string, LabTest> = {
  "the installed package maps and unmaps": async ({ lab, runtime }) => {
    const project = `${lab.folder}/project`;
    await installPackage(await buildPackage("deno pack", `${lab.folder}/npm`), project);
    const natkit = new Natkit(lab, await COMMANDS[runtime](), "host", project);

    const done = await natkit.run("map", "6400/tcp", "--lifetime", "600", "--mode", "once");

    assertStatus(done, 0);
    assertEquals(field(only(done, "mapped"), "external"), { address: ADDRESS.wan, port: 6400 });
    assertEquals(await table(lab), [`TCP 6400->${ADDRESS.host}:6400`]);
    assertStatus(await natkit.run("unmap", "6400/tcp"), 0);
    assertEquals(await table(lab), []);
  },
};
