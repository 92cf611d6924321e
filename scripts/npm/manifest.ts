/**
 * What the npm package says about itself, whichever tool builds it.
 *
 * @module
 */
import { PACKAGES } from "../checks/arrows.ts";
import { exists, read } from "../lib/files.ts";

/** The name on npm; on JSR it has a scope. */
export const PACKAGE = "natkit";

/** Where the sources are. */
export const REPOSITORY = "https://github.com/natkit/natkit";

const AUTHOR = "the natkit authors";

/** What npm's search finds the package by. */
const KEYWORDS: readonly string[] = [
  ...["nat", "nat-traversal", "port-forwarding", "port-mapping", "hole-punching", "p2p"],
  ...["pcp", "nat-pmp", "upnp", "upnp-igd", "ssdp", "stun", "ice", "turn"],
  ...["cgnat", "ipv6", "natpmp", "node", "deno", "bun"],
];

/** The module behind the `natkit` command. */
export const PROGRAM = "adapters/cli/bin.ts";

/** The part of `deno.json` that concerns packages. */
export interface Manifest {
  readonly name: string;
  readonly version: string;
  readonly license: string;
  readonly description: string;
  /** By subpath: `"./pcp": "./core/pcp/mod.ts"`. */
  readonly exports: Readonly<Record<string, string>>;
  readonly imports: Readonly<Record<string, string>>;
  readonly compilerOptions: Readonly<Record<string, unknown>>;
  readonly publish: { readonly include: readonly string[] };
}

/**
 * Reads `deno.json`.
 *
 * @throws If an entry point does not exist.
 */
export function readManifest(): Manifest {
  const manifest: Manifest = JSON.parse(read("deno.json"));
  const missing = [...Object.values(manifest.exports), PROGRAM].filter((path) => !exists(path));
  if (missing.length > 0) throw new Error(`Entry points that do not exist: ${missing.join(", ")}`);
  return manifest;
}

/**
 * Packages that are bundled into ours, with their licences. To load sax as it is costs half as much
 * as Node's own start: it is CommonJS, and opens Node's streams for nothing.
 */
export const INLINED: Readonly<Record<string, string>> = {
  sax: "Blue Oak Model License 1.0.0, https://blueoakcouncil.org/license/1.0.0",
};

/**
 * What the package depends on, with the versions that `deno.json` pins: of its imports those that
 * shipped code may use.
 */
export function dependenciesOf({ imports }: Manifest): Readonly<Record<string, string>> {
  const isShipped = (name: string) =>
    !(name in INLINED) &&
    PACKAGES.some((each) => each.name === name || each.name.startsWith(`${name}/`));
  const names = Object.keys(imports).filter(isShipped);
  return Object.fromEntries(names.map((name) => [name, versionOf(imports, name)]));
}

/** The version that `deno.json` pins. */
export function versionOf(imports: Manifest["imports"], name: string): string {
  const specifier = imports[name]!;
  return specifier.slice(specifier.lastIndexOf("@") + 1);
}

/** The path of a module's JavaScript or types in the package: `./core/mod.ts` → `./core/mod.js`. */
function compiled(path: string, extension: ".js" | ".d.ts" = ".js"): string {
  return `./${path.replace(/^\.\//, "").replace(/\.ts$/, extension)}`;
}

/**
 * The package's `package.json`. `default` rather than `import`: Node ≥ 20.19 can `require` what it
 * leads to, as it is ECMAScript modules without `await` at their top level.
 */
export function packageJson(manifest: Manifest): Record<string, unknown> {
  const entry = (path: string) => ({
    types: compiled(path, ".d.ts"),
    default: compiled(path),
  });
  const main = manifest.exports["."] ?? "";
  return {
    name: PACKAGE,
    version: manifest.version,
    description: manifest.description,
    keywords: KEYWORDS,
    homepage: `${REPOSITORY}#readme`,
    bugs: { url: `${REPOSITORY}/issues` },
    repository: { type: "git", url: `git+${REPOSITORY}.git` },
    license: manifest.license,
    author: AUTHOR,
    type: "module",
    main: compiled(main),
    types: compiled(main, ".d.ts"),
    bin: { [PACKAGE]: compiled(PROGRAM) },
    exports: {
      ...Object.fromEntries(
        Object.entries(manifest.exports).map(([name, path]) => [name, entry(path)]),
      ),
      "./package.json": "./package.json",
    },
    sideEffects: false,
    engines: { node: ">=20" },
    dependencies: dependenciesOf(manifest),
  };
}

/** A text with the package called as it is on npm; what names JSR stays. */
export function renamed(text: string, manifest: Manifest): string {
  return text.replace(scopedName(manifest), PACKAGE);
}

/** Finds the name on JSR where JSR is not named. */
export function scopedName({ name }: Pick<Manifest, "name">): RegExp {
  return new RegExp(`(?<!jsr:)${name}\\b`, "g");
}

/**
 * The files that the `package.json` in a folder names, `"core/mod.js"`, the programs of them, and
 * the packages that it depends on.
 */
export async function filesNamed(folder: string): Promise<{
  files: readonly string[];
  programs: readonly string[];
  dependencies: readonly string[];
}> {
  const { exports, bin, dependencies = {} } = JSON.parse(
    await Deno.readTextFile(`${folder}/package.json`),
  );
  const programs = pathsIn(bin);
  return {
    files: [...new Set([...pathsIn(exports), ...programs])],
    programs,
    dependencies: Object.keys(dependencies),
  };
}

/** Whether a specifier names one of the packages, or a module of it. */
export function isModuleOf(packages: readonly string[], specifier: string): boolean {
  return packages.some((name) => specifier === name || specifier.startsWith(`${name}/`));
}

/** The paths in a field, however deep its conditions nest. */
function pathsIn(field: unknown): string[] {
  if (typeof field === "string") return [field.replace(/^\.\//, "")];
  return Object.values(Object(field)).flatMap(pathsIn);
}
