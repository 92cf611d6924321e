/**
 * The npm package as its users get it: scripts/test.ts builds the tarball, installs it in an empty
 * project and names that in NATKIT_NPM_PROJECT. Each runtime tries its own way in. Versions of Node,
 * compilers and bundlers are `deno task test:package`'s.
 */
import { execFile, spawn } from "node:child_process";
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { posix } from "node:path";
import { createInterface } from "node:readline";
import { describe, it } from "node:test";
import process from "node:process";
import { assert, assertEquals } from "@std/assert";
import { blocksOf } from "../../scripts/lib/readme.ts";

const PROJECT = process.env["NATKIT_NPM_PROJECT"] ?? "";
const PACKAGE = `${PROJECT}/node_modules/natkit`;
const RUNTIME = "Deno" in globalThis ? "Deno" : "Bun" in globalThis ? "Bun" : "Node";

const manifest = (): { version: string; exports: object; bin: { natkit: string } } =>
  JSON.parse(readFileSync(`${PACKAGE}/package.json`, "utf8"));

/** A program pays for each file that it opens: `natkit` is a hundred modules in these. */
const MOST_FILES = 6;

/** The package's files that importing one of them loads, by `import` and `export … from`. */
function filesLoaded(entry: string): string[] {
  const loaded = new Set([entry]);
  for (const path of loaded) {
    const text = readFileSync(`${PACKAGE}/${path}`, "utf8");
    for (const [, specifier] of text.matchAll(/^(?:import|export)\b[^;]*?"(\.[^"]+)";$/gm)) {
      loaded.add(posix.join(posix.dirname(path), specifier!));
    }
  }
  return [...loaded];
}

/** The repository's files that a file of the package was made of. */
function sourcesOf(path: string): string[] {
  const map = `${PACKAGE}/${path}.map`;
  if (!existsSync(map)) return [];
  const { sources }: { sources: string[] } = JSON.parse(readFileSync(map, "utf8"));
  return sources.map((source) => posix.join(posix.dirname(path), source));
}

/** What a program said. */
interface Said {
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs a program in the project; a failure rejects with what it said. */
function tryProgram(program: string, ...args: string[]): Promise<Said> {
  return new Promise((resolve, reject) => {
    execFile(program, args, { cwd: PROJECT }, (error, stdout, stderr) => {
      if (error) reject(new Error(`${program} ${args.join(" ")}\n${stdout}${stderr}`));
      else resolve({ stdout, stderr });
    });
  });
}

/** The same for who asks for its standard output alone. */
const run = async (program: string, ...args: string[]): Promise<string> =>
  (await tryProgram(program, ...args)).stdout;

/** Runs a module in the project on the runtime this test runs on. */
function tryModule(name: string, text: string): Promise<Said> {
  const file = `${PROJECT}/${RUNTIME.toLowerCase()}_${name}`;
  writeFileSync(file, text);
  return tryProgram(process.execPath, ...(RUNTIME === "Deno" ? ["run", "-A", file] : [file]));
}

/** The same for who asks for its standard output alone. */
const runModule = async (name: string, text: string): Promise<string> =>
  (await tryModule(name, text)).stdout;

/** The command as one calls it on the runtime: npx, bunx. */
function natkitCommand(...args: string[]): [string, ...string[]] {
  if (RUNTIME === "Node") return ["npx", "--no-install", "natkit", ...args];
  if (RUNTIME === "Bun") return [process.execPath, "x", "--bun", "--no-install", "natkit", ...args];
  const program = `${PACKAGE}/${manifest().bin.natkit}`;
  return [process.execPath, "run", "-A", program, ...args];
}

const natkit = (...args: string[]): Promise<string> => run(...natkitCommand(...args));

/** Runs `natkit gateway` while a test asks it things. */
async function withGateway(test: (gateway: string) => Promise<void>): Promise<void> {
  const flags = ["--listen", "127.0.0.1", "--port", "0", "--external", "198.51.100.1"];
  const [program, ...args] = natkitCommand("gateway", "--json", ...flags);
  const child = spawn(program, args, { cwd: PROJECT, stdio: ["pipe", "pipe", "inherit"] });
  const ended = new Promise<number | null>((resolve) => child.on("close", resolve));
  try {
    const lines = createInterface({ input: child.stdout });
    const listening = await new Promise<string>((resolve, reject) => {
      lines.once("line", resolve);
      void ended.then((code) => reject(new Error(`natkit gateway ended with status ${code}`)));
    });
    const { address, port } = JSON.parse(listening);
    await test(`${address}:${port}`);
  } finally {
    child.stdin.end("quit\n");
  }
  assertEquals(await ended, 0);
}

describe("the npm package", () => {
  it("has every entry point, each importable", async () => {
    const names = Object.keys(manifest().exports).map((name) => name.replace(/^\./, "natkit"))
      .filter((name) => name !== "natkit/package.json");

    const output = await runModule(
      "imports.mjs",
      `for (const name of ${JSON.stringify(names)}) {
         const module = await import(name);
         console.log(name, Object.keys(module).length > 0);
       }`,
    );

    assertEquals(output.trim().split("\n"), names.map((name) => `${name} true`));
  });

  it("loads few files for a port, and no server's", () => {
    const loaded = filesLoaded("mod.js");
    const sources = loaded.flatMap(sourcesOf);

    assert(loaded.length <= MOST_FILES, `${loaded.length} files: ${loaded.join(" ")}`);
    assert(sources.includes("core/portmap/mapper.ts"), sources.join(" "));
    const unwanted = /^core\/(table|gateway|sim)\/|server|discovery\/(darwin|windows)/;
    assertEquals(sources.filter((path) => unwanted.test(path)), []);
  });

  it("leads from an error to the line in the source", async () => {
    const text = `import { openPort } from "natkit";
      openPort(0).catch((error) => console.log(error.stack));`;
    const file = `${PROJECT}/stack_${RUNTIME.toLowerCase()}.mjs`;
    writeFileSync(file, text);

    const stack = await run("node", "--enable-source-maps", file);

    const places = [...stack.matchAll(/natkit\/(\S+\.ts):(\d+)/g)].map(([, path, line]) => ({
      path,
      text: readFileSync(path!, "utf8").split("\n")[Number(line) - 1]!.trim(),
    }));
    assertEquals(places[0]?.path, "core/check.ts");
    assert(places[0]!.text.startsWith("throw new RangeError("), stack);
    assert(places.some(({ path }) => path === "adapters/api/open_port.ts"), stack);
  });

  it("depends on what its protocols need, pinned, and names Node 20", () => {
    const { dependencies, engines } = manifest() as unknown as Record<string, unknown>;

    assertEquals([dependencies, engines], [
      { "@noble/hashes": "2.4.0" },
      { node: ">=20" },
    ]);
  });

  it("says where it comes from, and what to find it by", () => {
    const { repository, homepage, bugs, author, license, keywords } = manifest() as unknown as {
      readonly [field: string]: unknown;
      readonly keywords: readonly string[];
    };

    const home = "https://github.com/natkit/natkit";
    assertEquals([repository, homepage, bugs, author, license], [
      { type: "git", url: `git+${home}.git` },
      `${home}#readme`,
      { url: `${home}/issues` },
      "the natkit authors",
      "MIT",
    ]);
    assertEquals(keywords.length, new Set(keywords).size);
    for (const word of ["nat", "upnp", "port-forwarding"]) assert(keywords.includes(word), word);
  });

  it("has a source map beside each file that has code of ours", () => {
    for (const path of filesLoaded("mod.js").concat("testing.js", "adapters/cli/main.js")) {
      const text = readFileSync(`${PACKAGE}/${path}`, "utf8");
      const isMade = /\n(?:function|class|const) /.test(text) && !path.includes("rolldown");
      assertEquals(existsSync(`${PACKAGE}/${path}.map`), isMade, path);
    }
  });

  it("loads no dependency for a port, nor for the command: what reads XML is in it, with its licence", () => {
    const { bin } = manifest();
    for (const entry of ["mod.js", posix.normalize(bin.natkit), "core/mod.js"]) {
      const packages = filesLoaded(entry).flatMap((path) =>
        [
          ...readFileSync(`${PACKAGE}/${path}`, "utf8").matchAll(
            /^import\b[^;]*?"(@?[a-z][^":]*)";$/gm,
          ),
        ].map(([, name]) => name)
      );
      assertEquals(packages, [], entry);
      const texts = filesLoaded(entry).map((path) => readFileSync(`${PACKAGE}/${path}`, "utf8"));
      const hasSax = texts.some((text) => /^\/\*! sax .*License/m.test(text));
      assertEquals(hasSax, entry !== "mod.js", entry);
    }
  });

  it("loads UPnP's client, and what reads its XML, for a port where its turn comes", () => {
    const opening = filesLoaded("mod.js");
    const sources = opening.flatMap(sourcesOf).filter((path) => path.startsWith("core/upnp/"));
    // Its search, which is small, leaves while the client is loaded.
    const searching = ["igd", "header", "ssdp", "place_search", "igd_search"];
    assertEquals(sources, ["misfit", ...searching].map((name) => `core/upnp/${name}.ts`));
    const later = opening.filter((path) =>
      readFileSync(`${PACKAGE}/${path}`, "utf8").includes('import("./upnp.js")')
    );
    assertEquals(later, ["shared/port.js"]);
    assert(sourcesOf("shared/upnp.js").includes("core/upnp/client.ts"));
    for (const path of filesLoaded("shared/upnp.js")) {
      assert(path === "shared/upnp.js" || opening.includes(path), path);
    }
  });

  it("leaves UPnP, and what reads its XML, out of the other protocols", () => {
    for (const entry of ["core/pcp/mod.js", "core/natpmp/mod.js", "core/stun/mod.js"]) {
      const loaded = filesLoaded(entry);
      const sources = loaded.flatMap(sourcesOf);
      assertEquals(sources.filter((path) => path.startsWith("core/upnp/")), [], entry);
      assert(sources.length > 3, entry);
      for (const path of loaded) {
        assert(!readFileSync(`${PACKAGE}/${path}`, "utf8").includes("/*! sax"), path);
      }
    }
  });

  it("has a README whose blocks run as they stand, and whose links lead to the repository", async () => {
    const readme = readFileSync(`${PACKAGE}/README.md`, "utf8");
    const examples = blocksOf(readme).filter(({ info }) => info === "ts");
    assert(examples.length >= 6, `${examples.length} examples`);

    for (const [n, { text }] of examples.entries()) {
      // What `console.assert` finds goes to standard error, and leaves the status as it is.
      assertEquals((await tryModule(`readme_${n}.mjs`, text)).stderr, "", text);
    }

    const commands = blocksOf(readme).filter(({ info }) => info === "sh");
    assertEquals(commands.map(({ text }) => text), ["npx natkit demo\n"]);
    assert((await natkit("demo")).endsWith("That is all.\n"));
    assert(readme.includes('import { openPort } from "natkit";'));
    for (const [, target] of readme.matchAll(/\]\(([^)]+)\)/g)) {
      assert(/^https:\/\/github\.com\/natkit\/natkit\/|^LICENSE$/.test(target!), target);
    }
    const images = [...readme.matchAll(/!\[[^\]]*\]\(([^)]+)\)/g)].map(([, target]) => target);
    assertEquals(images, [
      `https://github.com/natkit/natkit/raw/v${manifest().version}/scripts/demo.svg`,
    ]);
  });

  it("brings the command", async () => {
    assert((await natkit("--version")).includes(manifest().version));
  });

  it("maps a port through the simulated gateway", async () => {
    const output = await runModule(
      "map.mjs",
      `import { openPort } from "natkit";
       import { startGateway } from "natkit/testing";
       const gateway = await startGateway({ external: "198.51.100.1" });
       const port = await openPort(8080, { gateway: gateway.endpoint, announcements: false });
       console.log(port.via, port.external.address, gateway.entries().length);
       await port.close();
       console.log(gateway.entries().length);
       await gateway.close();`,
    );

    assertEquals(output.trim().split("\n"), ["pcp 198.51.100.1 1", "0"]);
  });

  it("maps and unmaps a port by the command, through its own gateway", async () => {
    await withGateway(async (gateway) => {
      const state = `${PROJECT}/${RUNTIME}.json`;
      const flags = ["--json", "--gateway", gateway, "--via", "pcp", "--state", state];

      const mapped = JSON.parse(await natkit("map", "8080/udp", "--mode", "once", ...flags));
      const unmapped = JSON.parse(await natkit("unmap", "8080/udp", ...flags));

      assertEquals([mapped.event, mapped.via, mapped.external.address], [
        "mapped",
        "pcp",
        "198.51.100.1",
      ]);
      assertEquals(unmapped.event, "unmapped");
    });
  });
});
