/**
 * The whole tree as JavaScript that Node runs without a build, in a temporary folder, with the text
 * of single files replaced: how planted bugs are run without touching a source.
 *
 * ```ts ignore
 * const tree = await NodeTree.build(); // about 3 s: every .ts of the repository, transpiled
 * const path = "core/natpmp/lease.ts";
 * tree.plant(path, edited(read(path), { find: "* 0.5", replace: "* 0.75" })); // 10 ms
 * const result = await tree.run("scripts/sim.ts", ["--seeds", "500"], { guardMs: 60_000 });
 * tree.restore(); // every planted file is what it was
 * const second = tree.copy(); // for another worker: planting in one is not seen in the other
 * second.remove();
 * tree.remove();
 * ```
 *
 * Folders and names are the repository's, `.ts` is `.js`. Types are dropped unchecked. Children run
 * in the repository's root, so that fixtures are found where they are.
 *
 * @module
 */
import ts from "typescript";
import { read, ROOT, walk } from "./files.ts";
import { bundledPackage } from "./package.ts";
import { beforeLeaving, run, type RunOptions, type RunResult } from "./process.ts";

/** Where what runs in the tree is. */
const RUN = /^(core|adapters|tests)\/|^[^/]+$/;
/** What they import by a package's name, when it is not one of Node's or Bun's own. */
const BARE = /^import\b[^;]*? from "((?!node:|bun:|file:)[^./"$][^"$]*)";$/gm;

/** The status of a process that has used up its processor time: 128 and the signal's number. */
const ENDED_BY_SIGXCPU = 128 + 24;

/** A change of a file's text, by hand. */
export interface Edit {
  /** What stands there, exactly once. */
  readonly find: string;
  /** What is to stand there. */
  readonly replace: string;
}

/**
 * The text with the edit made.
 *
 * @throws If what it looks for is not there, or more than once: the edit has gone stale.
 */
export function edited(text: string, { find, replace }: Edit): string {
  const at = text.indexOf(find);
  if (find === "" || at < 0 || text.indexOf(find, at + 1) >= 0) {
    const times = find === "" || at >= 0 ? "more than once" : "nowhere";
    throw new RangeError(`Cannot edit as 'find' stands ${times}: current value is "${find}"`);
  }
  return text.slice(0, at) + replace + text.slice(at + find.length);
}

/**
 * What a TypeScript text is as JavaScript, with imports of `.ts` files turned to `.js`.
 *
 * @throws {SyntaxError} If it is not TypeScript.
 */
export function transpiled(path: string, text: string): string {
  const { outputText, diagnostics = [] } = ts.transpileModule(text, {
    fileName: path,
    reportDiagnostics: true,
    compilerOptions: {
      target: ts.ScriptTarget.ES2022,
      module: ts.ModuleKind.ESNext,
      verbatimModuleSyntax: true,
      rewriteRelativeImportExtensions: true,
    },
  });
  const [first] = diagnostics;
  if (first !== undefined) {
    throw new SyntaxError(`${path}: ${ts.flattenDiagnosticMessageText(first.messageText, "\n")}`);
  }
  return outputText;
}

/** The tree, as Node runs it. */
export class NodeTree {
  /** The folder it is in. */
  readonly folder: string;
  readonly #scripts: ReadonlyMap<string, string>;
  readonly #packages: ReadonlyMap<string, string>;
  readonly #planted = new Set<string>();

  private constructor(
    scripts: ReadonlyMap<string, string>,
    packages: ReadonlyMap<string, string>,
  ) {
    this.folder = Deno.makeTempDirSync({ prefix: "natkit-tree-" });
    beforeLeaving(() => this.remove());
    this.#scripts = scripts;
    this.#packages = packages;
    const folders = [...scripts.keys(), ...packages.keys()].map((path) => parent(path));
    for (const folder of new Set(folders)) {
      Deno.mkdirSync(`${this.folder}/${folder}`, { recursive: true });
    }
    for (const [path, text] of [...scripts, ...packages]) this.#write(path, text);
    this.#write("package.json", '{ "type": "module" }\n');
  }

  /**
   * Transpiles the repository as it is.
   *
   * @throws If a file is not TypeScript, or a package cannot be bundled.
   */
  static async build(): Promise<NodeTree> {
    const paths = walk("", (path) => path.endsWith(".ts"));
    const packages = new Map<string, string>();
    const scripts = new Map(paths.map((path) => [scriptOf(path), transpiled(path, read(path))]));
    for (const name of packagesOf(scripts)) {
      const isFile = name.endsWith(".js");
      packages.set(
        `node_modules/${name}${isFile ? "" : "/index.js"}`,
        await bundledPackage(name, "deno"),
      );
      const folder = `node_modules/${isFile ? parent(name) : name}`;
      packages.set(`${folder}/package.json`, '{ "type": "module", "main": "index.js" }\n');
    }
    return new NodeTree(scripts, packages);
  }

  /** Every source's path, sorted. */
  get paths(): string[] {
    return [...this.#scripts.keys()].map((path) => path.replace(/\.js$/, ".ts")).sort();
  }

  /** Another one of the same sources, with nothing planted. */
  copy(): NodeTree {
    return new NodeTree(this.#scripts, this.#packages);
  }

  /** The JavaScript of a file, without what is planted; undefined where there is no such file. */
  script(path: string): string | undefined {
    return this.#scripts.get(scriptOf(path));
  }

  /**
   * Replaces the text of a file, TypeScript like the file itself, until {@linkcode restore}.
   *
   * @throws {SyntaxError} If it is not TypeScript.
   * @throws {RangeError} If there is no such file.
   */
  plant(path: string, text: string): void {
    const script = scriptOf(path);
    if (!this.#scripts.has(script)) {
      throw new RangeError(`Cannot plant as 'path' is no source: current value is "${path}"`);
    }
    this.#write(script, transpiled(path, text));
    this.#planted.add(script);
  }

  /** Puts every planted file back. */
  restore(): void {
    for (const script of this.#planted) this.#write(script, this.#scripts.get(script)!);
    this.#planted.clear();
  }

  /** Where Node finds a file of the repository. */
  file(path: string): string {
    return `${this.folder}/${scriptOf(path)}`;
  }

  /**
   * Runs a script of the tree on Node, to its end or its guard's, or until it has used up
   * `cpuSeconds` of processor time: that is the same on a busy machine.
   */
  async run(
    path: string,
    args: readonly string[] = [],
    { cpuSeconds, ...options }: RunOptions & { readonly cpuSeconds?: number } = {},
  ): Promise<RunResult> {
    const limited = cpuSeconds === undefined
      ? []
      : ["sh", "-c", `ulimit -S -t ${Math.ceil(cpuSeconds)} && exec "$@"`, "sh"];
    const result = await run([...limited, "node", this.file(path), ...args], {
      cwd: ROOT,
      ...options,
      env: { NO_COLOR: "1", ...options.env },
    });
    return { ...result, hung: result.hung || result.code === ENDED_BY_SIGXCPU };
  }

  /** Deletes the folder. */
  remove(): void {
    try {
      Deno.removeSync(this.folder, { recursive: true });
    } catch (error) {
      if (!(error instanceof Deno.errors.NotFound)) throw error;
    }
  }

  #write(path: string, text: string): void {
    Deno.writeTextFileSync(`${this.folder}/${path}`, text);
  }
}

function scriptOf(path: string): string {
  return path.replace(/\.ts$/, ".js");
}

function parent(path: string): string {
  return path.includes("/") ? path.slice(0, path.lastIndexOf("/")) : "";
}

/** The packages that sources and tests import, or files of such; each is bundled once. */
function packagesOf(scripts: ReadonlyMap<string, string>): Set<string> {
  const names = new Set<string>();
  for (const [path, text] of scripts) {
    if (!RUN.test(path)) continue;
    for (const [, name] of text.matchAll(BARE)) if (!isOurs(name!)) names.add(name!);
  }
  return names;
}

/** Examples within tests import natkit itself; those run in the package. */
function isOurs(name: string): boolean {
  return name === "natkit" || name.startsWith("natkit/") || name.startsWith("@natkit/") ||
    name === "typescript";
}
