/**
 * The npm package in an empty project, called as its users do: npx, bunx, and Deno on its program.
 *
 * @module
 */
import { assertEquals } from "@std/assert";
import { buildPackage, installPackage } from "../../scripts/build_npm.ts";
import type { Lab } from "../../scripts/lab/lab.ts";
import type { LabTest } from "../../scripts/lab/main.ts";
import { GATEWAY } from "../../scripts/lab/miniupnpd.ts";
import { Natkit } from "../../scripts/lab/natkit.ts";
import { ADDRESS } from "../../scripts/lab/topology.ts";
import { ROOT } from "../../scripts/lib/files.ts";
import { blocksOf } from "../../scripts/lib/readme.ts";
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

/** How each runtime starts a module of the project. */
const RUN: Readonly<Record<Runtime, () => Promise<string[]>>> = {
  Node: () => Promise.resolve(["node"]),
  Bun: async () => [await bunPath()],
  Deno: () => Promise.resolve([Deno.execPath(), "run", "-A"]),
};

/** The tarball, one for all labs; and each lab's project, with the package in it. */
let tarball: Promise<string> | undefined;
const projects = new Map<Lab, Promise<string>>();

function projectOf(lab: Lab): Promise<string> {
  const project = projects.get(lab) ?? makeProject(lab);
  projects.set(lab, project);
  return project;
}

async function makeProject(lab: Lab): Promise<string> {
  const project = `${lab.folder}/project`;
  tarball ??= buildPackage("deno pack", `${ROOT}/.build/lab/npm`);
  await installPackage(await tarball, project);
  return project;
}

/** Opens a TCP port of the gateway itself, where a program of its own listens; answers the closing. */
async function openGatewayPort(lab: Lab, port: number): Promise<() => Promise<void>> {
  const rule = ["insert", "rule", "inet", "filter", "input", "tcp", "dport", `${port}`, "accept"];
  const { stdout } = await lab.exec("gw", ["nft", "-ea", ...rule]);
  const handle = /# handle (\d+)/.exec(stdout)![1]!;
  return async () => {
    await lab.exec("gw", ["nft", "delete", "rule", "inet", "filter", "input", "handle", handle]);
  };
}

export const tests: Record<string, LabTest> = {
  "the installed package maps and unmaps": async ({ lab, runtime }) => {
    const project = await projectOf(lab);
    const natkit = new Natkit(lab, await COMMANDS[runtime](), "host", project);

    const done = await natkit.run("map", "6400/tcp", "--lifetime", "600", "--mode", "once");

    assertStatus(done, 0);
    assertEquals(field(only(done, "mapped"), "external"), { address: ADDRESS.wan, port: 6400 });
    assertEquals(await table(lab), [`TCP 6400->${ADDRESS.host}:6400`]);
    assertStatus(await natkit.run("unmap", "6400/tcp"), 0);
    assertEquals(await table(lab), []);
  },

  "the installed README's first lines are reached through the installed gateway": async (
    { lab, runtime },
  ) => {
    const project = await projectOf(lab);
    const readme = await Deno.readTextFile(`${project}/node_modules/natkit/README.md`);
    await Deno.writeTextFile(`${project}/first-block.mjs`, blocksOf(readme)[0]!.text);
    await lab.stopMiniupnpd();
    const closeGatewayPort = await openGatewayPort(lab, 8080);
    try {
      const command = new Natkit(lab, await COMMANDS[runtime](), "gw", project);
      const flags = ["--listen", ADDRESS.gateway, "--external", ADDRESS.wan, "--forward"];
      const gateway = command.start("gateway", ...flags);
      await gateway.event("listening");

      const argv = [...await RUN[runtime](), "first-block.mjs"];
      const program = lab.spawn("host", argv, { cwd: project });
      await program.line((line) => line === `http://${ADDRESS.wan}:8080 via pcp`);
      await gateway.event("mapping");
      const { stdout } = await lab.exec("pub", ["curl", "-s", `http://${ADDRESS.wan}:8080`]);
      assertEquals(stdout, "hello\n");

      program.signal("SIGINT");
      await program.status;
      while ((await gateway.event("mapping"))["change"] !== "removed");
      // Not by a signal: npx keeps it to itself.
      await gateway.write("quit");
      await gateway.end();
    } finally {
      await closeGatewayPort();
      await lab.startMiniupnpd(GATEWAY);
    }
  },
};
