/**
 * The README's ten lines and its commands, against a real gateway.
 *
 * @module
 */
import { assert, assertEquals } from "@std/assert";
import type { LabTest } from "../../scripts/lab/main.ts";
import { read, ROOT } from "../../scripts/lib/files.ts";
import { must } from "../../scripts/lib/process.ts";
import { bunPath } from "../../scripts/lib/runtimes.ts";
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

export const tests: Record<string, LabTest> = {
  "the README's first lines open a port": async ({ lab, runtime }) => {
    const block = BLOCKS.find(({ info }) => info === "ts ignore");
    const folder = `${ROOT}/.build/lab/readme-${runtime.toLowerCase()}`;
    await Deno.mkdir(folder, { recursive: true });
    await Deno.writeTextFile(`${folder}/first.ts`, block!.text);
    // Bun reads `await using`, Node 20 does not: its users write try and finally, or compile.
    const argv = runtime === "Deno"
      ? [
        Deno.execPath(),
        "run",
        "-A",
        "--cached-only",
        `--config=${ROOT}/deno.json`,
        `${folder}/first.ts`,
      ]
      : [runtime === "Bun" ? await bunPath() : "node", `${folder}/first.js`];
    if (runtime !== "Deno") {
      const bundle = ["bundle", "--quiet", "--platform=deno", `${folder}/first.ts`];
      await must([Deno.execPath(), ...bundle, "--output", `${folder}/first.js`], { cwd: ROOT });
      const script = await Deno.readTextFile(`${folder}/first.js`);
      await Deno.writeTextFile(
        `${folder}/first.js`,
        script.replace("await using port", "const port"),
      );
    }
    const process = lab.spawn("host", argv);

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
