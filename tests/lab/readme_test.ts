/**
 * The README's first examples and its commands, against a real gateway.
 *
 * @module
 */
import { assert, assertEquals } from "@std/assert";
import type { LabTest } from "../../scripts/lab/main.ts";
import { read, ROOT } from "../../scripts/lib/files.ts";
import { must } from "../../scripts/lib/process.ts";
import { bunPath, type Runtime } from "../../scripts/lib/runtimes.ts";
import { blocksOf } from "../../scripts/lib/readme.ts";
import { ADDRESS } from "../../scripts/lab/topology.ts";
import { assertStatus, table } from "./support.ts";

const BLOCKS = blocksOf(read("README.md"));

/** The lines of the shell blocks with this mark, without the command's name. */
function commands(mark: string): string[][] {
  const lines = BLOCKS.filter((block) => block.info === `sh ${mark}`).flatMap(({ text }) =>
    text.trim().split("\n")
  );
  return lines.map((line) => {
    const [name, ...args] = line.split(" ");
    assertEquals(name, "natkit");
    return args;
  });
}

/** The words that start one of the first examples. */
async function example(runtime: Runtime, n: number): Promise<string[]> {
  const block = BLOCKS.filter(({ info }) => info === "ts ignore")[n]!;
  const file = `${ROOT}/.build/lab/readme-${runtime.toLowerCase()}-${n}`;
  await Deno.writeTextFile(`${file}.ts`, block.text);
  if (runtime === "Deno") {
    const config = `--config=${ROOT}/deno.json`;
    await must([Deno.execPath(), "check", "--quiet", config, `${file}.ts`]);
    return [Deno.execPath(), "run", "-A", "--cached-only", config, `${file}.ts`];
  }
  const bundle = ["bundle", "--quiet", "--platform=deno", `${file}.ts`, "--output", `${file}.js`];
  await must([Deno.execPath(), ...bundle], { cwd: ROOT });
  if (runtime === "Bun") return [await bunPath(), `${file}.js`];
  // Node 20 does not read `await using`.
  const script = await Deno.readTextFile(`${file}.js`);
  await Deno.writeTextFile(`${file}.js`, script.replace("await using port", "const port"));
  return ["node", `${file}.js`];
}

export const tests: Record<string, LabTest> = {
  "the README's first lines make a server public, and close": async ({ lab, runtime }) => {
    const process = lab.spawn("host", await example(runtime, 0));

    await process.line((line) => line === `http://${ADDRESS.wan}:8080 via pcp`);
    assertEquals(await table(lab), [`TCP 8080->${ADDRESS.host}:8080`]);
    const { stdout } = await lab.exec("pub", ["curl", "-s", `http://${ADDRESS.wan}:8080`]);
    assertEquals(stdout, "hello\n");

    process.signal("SIGINT");
    await process.status;
    assertEquals(await table(lab), []);
  },

  "the README's lines with `await using` open a port": async ({ lab, runtime }) => {
    const process = lab.spawn("host", await example(runtime, 1));

    await process.line((line) => line === `${ADDRESS.wan}:25565 via pcp`);
    assertEquals(await table(lab), [`TCP 25565->${ADDRESS.host}:25565`]);

    process.signal("SIGKILL");
    await process.status;
    await lab.exec("host", ["upnpc", "-d", "25565", "TCP"]);
  },

  "the README's commands do what they say": async ({ lab, natkit }) => {
    for (const args of commands("lab")) {
      assertStatus(await natkit.run(...args.filter((arg) => arg !== "--json")), 0);
    }
    assertEquals(await table(lab), []);
  },

  "the README's commands that hold a port do so until they are to end": async ({ lab, natkit }) => {
    const all = commands("held");
    assert(all.length > 0);
    for (const args of all) {
      const running = natkit.start(...args);
      await running.event("assignments");
      await running.event("assignments");
      assertEquals((await table(lab)).length, 1);
      assertStatus(await running.end("SIGTERM"), 143);
    }
    assertEquals(await table(lab), []);
  },

  "the README's gateway listens": async ({ natkit }) => {
    for (const args of commands("gateway")) {
      const gateway = natkit.start(...args);
      const { event } = await gateway.event("listening");
      assertEquals(event, "listening");
      const { code } = await gateway.end("SIGTERM");
      assert(code === 0 || code === 143, `exit status ${code}`);
    }
  },
};
