/**
 * `deno task test:package [--all] [filter…]`: the npm package's tarball, installed in empty projects
 * as its users would have it: on every runtime, by every way of importing, under old, current and
 * coming TypeScript, through bundlers, and past npm's linters. Each value of each axis is tried with
 * some of the others; `--all` tries each with each. A filter is a part of a trial's name.
 *
 * `tests/npm/` tries what the package does on the runtimes of the other tests; this, where it works.
 *
 * @module
 */
// deno-lint-ignore-file no-console
import { buildPackage, installPackage } from "./build_npm.ts";
import { type Failure, failureList } from "./lib/failures.ts";
import { beforeLeaving, must, run } from "./lib/process.ts";
import { bunPath, programIn } from "./lib/runtimes.ts";
import { readManifest } from "./npm/manifest.ts";

/** Node's versions: the lowest that `require` works on, and the newest of each line. */
const NODES = ["20.19.0", "22.23.3", "24.21.0", "26.10.0"] as const;
/** The lowest that the package names; `import` alone. */
const LOWEST_NODE = "20.0.0";

/** The compilers, with the types of Node that they read. */
const TYPESCRIPTS = [
  { version: "5.4.5", typesNode: "20.19.43" },
  { version: "7.0.2", typesNode: "26.6.7" },
  { version: "7.1.0-dev.20261021.1", typesNode: "26.6.7" },
] as const;

const MODULES = {
  node16: ["--module", "node16"],
  nodenext: ["--module", "nodenext"],
  bundler: ["--module", "esnext", "--moduleResolution", "bundler"],
} as const;

/** What the types stand on, in a compiler's words, the README's: Node's types have an AbortSignal. */
const LIBRARIES = "es2022,esnext.disposable";
const WITH_TYPES = ["--lib", LIBRARIES, "--types", "node"];
const WITHOUT_TYPES = ["--lib", `${LIBRARIES},dom`];

const BUNDLERS = ["esbuild", "rollup", "vite"] as const;

/** What the trials are made with, in a folder of their own. */
const TOOLS: Readonly<Record<string, string>> = {
  "publint": "0.3.25",
  "@arethetypeswrong/cli": "0.18.5",
  "esbuild": "0.28.2",
  "rollup": "4.68.8",
  "@rollup/plugin-node-resolve": "16.0.3",
  "vite": "8.4.0",
  ...Object.fromEntries(
    TYPESCRIPTS.map(({ version }) => [`typescript-${version}`, `npm:typescript@${version}`]),
  ),
};

/** How many trials run side by side. */
const AT_ONCE = 2;

const ENTRIES = Object.keys(readManifest().exports)
  .map((name) => name.replace(/^\./, "natkit"));

/** Maps a port at a simulated gateway, and says so. Other gateways on loopback are not listened to. */
const MAPS = `
const gateway = await startGateway({ external: "198.51.100.1" });
const port = await openPort(8080, { gateway: gateway.endpoint, announcements: false });
console.log("mapped", port.external.address);
await port.close();
await gateway.close();
`;
const MAPPED = "mapped 198.51.100.1\n";

const PROGRAMS: Readonly<Record<string, string>> = {
  "imports.mjs": `const names = ${JSON.stringify(ENTRIES)};
for (const name of names) {
  if (Object.keys(await import(name)).length === 0) throw new Error(name + " is empty");
}
const { openPort } = await import("natkit");
const { startGateway } = await import("natkit/testing");
${MAPS}`,
  "requires.cjs": `const names = ${JSON.stringify(ENTRIES)};
for (const name of names) {
  if (Object.keys(require(name)).length === 0) throw new Error(name + " is empty");
}
require("natkit/package.json");
const { openPort } = require("natkit");
const { startGateway } = require("natkit/testing");
(async () => {${MAPS}})();`,
  "using.mjs": `import { openPort } from "natkit";
import { startGateway } from "natkit/testing";
await using gateway = await startGateway({ external: "198.51.100.1" });
await using port = await openPort(8080, { gateway: gateway.endpoint, announcements: false });
console.log("mapped", port.external.address);\n`,
  "bundled.mjs": `import { openPort } from "natkit";
import { startGateway } from "natkit/testing";
${MAPS}`,
  "vite.config.mjs": `export default {
  logLevel: "warn",
  ssr: { noExternal: true },
  build: { ssr: "bundled.mjs", outDir: "out-vite", rolldownOptions: { output: { format: "es" } } },
};\n`,
  // One mistake on purpose: where types are not found, everything fits.
  "types.mts":
    ENTRIES.map((name, n) => `import * as m${n} from "${name}";\nvoid m${n};\n`).join("") +
    `import { openPort } from "natkit";
async function use(): Promise<string> {
  await using port = await openPort(8080);
  for await (const event of port) return event.type;
  return port.external.address;
}
void use;
const wrong: number = openPort;
void wrong;\n`,
};

/** Something to try; it throws where it fails. */
interface Trial {
  readonly name: string;
  run(place: Place): Promise<void>;
}

/** Where trials find what they need. */
interface Place {
  readonly tarball: string;
  /** A project with the package and nothing else. */
  readonly bare: string;
  /** A project with the package and a version of `@types/node`. */
  withTypes(version: string): string;
  /** A file of the tools'. */
  tool(path: string): string;
}

/** Every combination of two lists' items, or each item once with some of the other list. */
function paired<A, B>(left: readonly A[], right: readonly B[], all: boolean): [A, B][] {
  if (all) return left.flatMap((a) => right.map((b): [A, B] => [a, b]));
  const longest = Math.max(left.length, right.length);
  return Array.from({ length: longest }, (_, n) => [
    left[n % left.length]!,
    right[n % right.length]!,
  ]);
}

function lintTrials(): Trial[] {
  return [
    {
      name: "publint finds nothing",
      run: async ({ tarball, tool, bare }) => {
        await must(["node", tool("publint/src/cli.js"), "--strict", tarball], { cwd: bare });
      },
    },
    {
      name: "are-the-types-wrong finds nothing",
      run: async ({ tarball, tool, bare }) => {
        // Types from CommonJS are ECMAScript modules' on purpose: Node can require them.
        const flags = ["--profile", "node16", "--ignore-rules", "cjs-resolves-to-esm", "--quiet"];
        const cli = tool("@arethetypeswrong/cli/dist/index.js");
        await must(["node", cli, tarball, ...flags], { cwd: bare });
      },
    },
  ];
}

/** The runtimes, and how each is started. */
const RUNTIMES: readonly { readonly name: string; argv(): Promise<string[]> }[] = [
  ...NODES.map((version) => ({
    name: `Node ${version}`,
    argv: async () => [await nodePath(version)],
  })),
  { name: "Bun", argv: async () => [await bunPath()] },
  { name: "Deno", argv: () => Promise.resolve([Deno.execPath(), "run", "-A"]) },
];

const nodePath = (version: string): Promise<string> => programIn("node", version);

/** What a program shows. */
const VERBS = {
  "imports.mjs": "imports it",
  "requires.cjs": "requires it",
  "using.mjs": "closes a port with its block",
} as const;

/** All, but where `await using` is not known. */
function programsOn(runtime: string): (keyof typeof VERBS)[] {
  const isOld = /^Node 2[02]\./.test(runtime);
  return isOld ? ["imports.mjs", "requires.cjs"] : ["imports.mjs", "requires.cjs", "using.mjs"];
}

function runtimeTrials(): Trial[] {
  return [
    {
      name: `Node ${LOWEST_NODE} imports it`,
      run: async ({ bare }) => await mustMap([await nodePath(LOWEST_NODE)], bare, "imports.mjs"),
    },
    ...RUNTIMES.flatMap(({ name, argv }) =>
      programsOn(name).map((program) => ({
        name: `${name} ${VERBS[program]}`,
        run: async ({ bare }: Place) => await mustMap(await argv(), bare, program),
      }))
    ),
  ];
}

function compilerTrials(all: boolean): Trial[] {
  const settings = paired(Object.entries(MODULES), [true, false], true);
  return paired(settings, TYPESCRIPTS, all).map(([[[kind, flags], typed], compiler]) => ({
    name: `TypeScript ${compiler.version}, ${kind}, ${typed ? "with" : "without"} @types/node`,
    run: async ({ bare, tool, withTypes }) => {
      const tsc = tool(`typescript-${compiler.version}/bin/tsc`);
      const strict = ["--noEmit", "--strict", "--skipLibCheck", "false", "--target", "es2022"];
      const { stdout } = await run(
        ["node", tsc, ...strict, ...(typed ? WITH_TYPES : WITHOUT_TYPES), ...flags, "types.mts"],
        { cwd: typed ? withTypes(compiler.typesNode) : bare },
      );
      const errors = stdout.split("\n").filter((line) => line.includes("error TS"));
      if (errors.length !== 1 || !/^types\.mts.*TS2322/.test(errors[0]!)) throw new Error(stdout);
    },
  }));
}

function bundlerTrials(all: boolean): Trial[] {
  const bundles: Record<typeof BUNDLERS[number], (place: Place) => string[]> = {
    esbuild: ({ tool }) => [
      ...[tool("esbuild/bin/esbuild"), "bundled.mjs", "--bundle", "--platform=node"],
      ...["--format=esm", "--splitting", "--outdir=out-esbuild", "--out-extension:.js=.mjs"],
      "--log-level=warning",
    ],
    rollup: ({ tool }) => [
      ...["node", tool("rollup/dist/bin/rollup"), "bundled.mjs", "--silent"],
      ...[
        "--plugin",
        `${tool("@rollup/plugin-node-resolve/dist/es/index.js")}={preferBuiltins:true}`,
      ],
      ...["--external", "/^node:/", "--dir", "out-rollup", "--entryFileNames", "[name].mjs"],
      ...["--chunkFileNames", "[name]-[hash].mjs"],
    ],
    vite: ({ tool }) => ["node", tool("vite/bin/vite.js"), "build"],
  };
  const onBundles = all ? RUNTIMES : RUNTIMES.slice(-BUNDLERS.length);
  return paired(BUNDLERS, onBundles, all).map(([bundler, runtime]) => ({
    name: `${bundler}'s bundle runs on ${runtime.name}`,
    run: async (place) => {
      const folder = `out-${bundler}`;
      await must(bundles[bundler](place), { cwd: place.bare });
      const [entry] = [...Deno.readDirSync(`${place.bare}/${folder}`)]
        .filter(({ name }) => /^bundled\.m?js$/.test(name));
      // Away from the installed package: everything is in the bundle.
      const alone = await Deno.makeTempDir({ dir: `${place.bare}/../`, prefix: `${bundler}-` });
      await must(["cp", "-R", `${place.bare}/${folder}/.`, alone]);
      await Deno.writeTextFile(`${alone}/package.json`, '{ "type": "module" }\n');
      await mustMap(await runtime.argv(), alone, entry!.name);
    },
  }));
}

async function mustMap(argv: readonly string[], cwd: string, program: string): Promise<void> {
  const { stdout, stderr } = await must([...argv, program], { cwd });
  if (stdout !== MAPPED) throw new Error(`${program} said:\n${stdout}${stderr}`);
}

/** Makes the tarball, the projects and the tools. */
async function prepare(work: string): Promise<Place> {
  const tarball = await buildPackage("deno pack", `${work}/npm`);
  const bare = `${work}/bare`;
  const typed = (version: string) => `${work}/types-node-${version}`;
  const write = async (project: string) => {
    for (const [name, text] of Object.entries(PROGRAMS)) {
      await Deno.writeTextFile(`${project}/${name}`, text);
    }
  };
  const install = async (project: string, ...packages: string[]) => {
    await installPackage(tarball, project, packages);
    await write(project);
  };
  await Promise.all([
    install(bare),
    installTools(`${work}/tools`),
    ...new Set(TYPESCRIPTS.map(({ typesNode }) => typesNode)).values().map((version) =>
      install(typed(version), `@types/node@${version}`)
    ),
  ]);
  return { tarball, bare, withTypes: typed, tool: (path) => `${work}/tools/node_modules/${path}` };
}

async function installTools(folder: string): Promise<void> {
  await Deno.mkdir(folder, { recursive: true });
  const fields = { private: true, dependencies: TOOLS };
  await Deno.writeTextFile(`${folder}/package.json`, JSON.stringify(fields));
  await must(["npm", "install", "--prefer-offline", "--no-audit", "--no-fund"], { cwd: folder });
}

async function main(args: readonly string[]): Promise<number> {
  const flags = args.filter((arg) => arg.startsWith("--"));
  const unknown = flags.find((flag) => flag !== "--all");
  if (unknown !== undefined) {
    console.error(`Unknown flag ${unknown}: there is --all`);
    return 2;
  }
  const filters = args.filter((arg) => !arg.startsWith("--"));
  const all = flags.includes("--all");
  const trials = [
    ...lintTrials(),
    ...runtimeTrials(),
    ...compilerTrials(all),
    ...bundlerTrials(all),
  ].filter(({ name }) => filters.length === 0 || filters.some((filter) => name.includes(filter)));
  const work = await Deno.makeTempDir({ prefix: "natkit-package-" });
  const leave = () => Deno.remove(work, { recursive: true });
  beforeLeaving(leave);
  let passed = 0;
  const failures: Failure[] = [];
  try {
    const place = await prepare(work);
    const waiting = [...trials];
    const takeTrials = async () => {
      for (let trial = waiting.shift(); trial !== undefined; trial = waiting.shift()) {
        const startedAt = performance.now();
        const failure = await trial.run(place).then(() => undefined, (error) => String(error));
        const seconds = ((performance.now() - startedAt) / 1000).toFixed(1);
        if (failure === undefined) passed++;
        else failures.push({ name: trial.name, detail: failure });
        const verdict = failure === undefined ? "ok" : "FAILED";
        console.log(`${verdict} ${trial.name} (${seconds} s)${failure ? `\n${failure}` : ""}`);
      }
    };
    await Promise.all(Array.from({ length: AT_ONCE }, takeTrials));
  } finally {
    await leave();
  }
  console.log(`${failureList(failures)}\nPackage: ${passed} passed, ${failures.length} failed`);
  return failures.length === 0 && passed > 0 ? 0 : 1;
}

if (import.meta.main) Deno.exit(await main(Deno.args));
