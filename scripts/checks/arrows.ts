/**
 * Imports point one way: the faces → adapters → core, and inside core portmap, gateway and ice →
 * protocols → foundations, sim → foundations. A protocol imports no other protocol, so that
 * importing one pulls in nothing of the others. No import leads back to where it came from, be it
 * of types alone.
 *
 * @module
 */
import { type Finding, type SourceFile, strip } from "./source.ts";

/** Folders of `core/` that hold a protocol. */
const PROTOCOLS = ["natpmp", "pcp", "upnp", "stun"];
/** Folders of `core/` that every other one may build on; so are the files right below `core/`. */
const FOUNDATIONS = ["table", "lease", "hash"];

/** What each folder of `core/` may import beside itself and the foundations. */
const MAY_IMPORT: Record<string, readonly string[]> = {
  ...Object.fromEntries([...PROTOCOLS, ...FOUNDATIONS].map((name) => [name, []])),
  sim: [],
  portmap: PROTOCOLS,
  gateway: PROTOCOLS,
  ice: PROTOCOLS,
};

/** Packages that shipped code may import, by the folder or file that may. */
export const PACKAGES: readonly { readonly under: string; readonly name: string }[] = [
  ...["hmac.js", "legacy.js", "sha2.js"].map((module) => ({
    under: "core/stun/integrity.ts",
    name: `@noble/hashes/${module}`,
  })),
  { under: "core/upnp/xml.ts", name: "sax" },
];

/** The modules at the root that entry points name: they gather, nothing imports them. */
const FACES = ["mod.ts", "testing.ts"];

const IMPORT =
  /(?:\bfrom\s*|\bimport\s*\(\s*|\bimport\s+(?=["']))(["'])([^"'\n]+)\1|\bimport\s*\(\s*[^"'\s]/g;

/** Finds imports that point the wrong way, or lead back, in the shipped files. */
export function checkArrows(files: readonly SourceFile[]): Finding[] {
  const shipped = files.filter(({ path }) => isShipped(path))
    .map(({ path, text }) => ({ path, specifiers: importsOf(text) }));
  const wrong = shipped.flatMap(({ path, specifiers }) =>
    specifiers.flatMap((specifier) => {
      const why = judge(path, specifier);
      return why === undefined ? [] : [`${path}: imports ${specifier}: ${why}`];
    })
  );
  const targets = new Map(shipped.map(({ path, specifiers }) => [
    path,
    specifiers.filter((specifier) => specifier.startsWith("."))
      .map((specifier) => resolve(path, specifier)),
  ]));
  return [...wrong, ...findCircles(targets)];
}

/** One circle for each import that leads back to a file on the way to it. */
function findCircles(targets: ReadonlyMap<string, readonly string[]>): Finding[] {
  const circles: Finding[] = [];
  const done = new Set<string>();
  const way: string[] = [];
  const follow = (path: string): void => {
    const place = way.indexOf(path);
    if (place >= 0) circles.push(`a circle: ${[...way.slice(place), path].join(" → ")}`);
    if (place >= 0 || done.has(path)) return;
    way.push(path);
    for (const target of targets.get(path) ?? []) follow(target);
    way.pop();
    done.add(path);
  };
  for (const path of targets.keys()) follow(path);
  return circles;
}

/** The specifiers a module imports, static, dynamic and in types; a computed one is `?`. */
export function importsOf(text: string): string[] {
  return [...strip(text, { strings: true }).matchAll(IMPORT)].map((match) => match[2] ?? "?");
}

function judge(path: string, specifier: string): string | undefined {
  if (specifier === "?") return inCore(path) ? "core imports nothing that is computed" : undefined;
  if (!specifier.startsWith(".")) return judgePackage(path, specifier);
  const target = resolve(path, specifier);
  if (!isShipped(target)) return "what is shipped does not import what is not";
  if (FACES.includes(target)) return "nothing imports a face";
  if (!inCore(path)) return undefined;
  if (!inCore(target)) return "core imports only core";
  return judgeInCore(path, target);
}

function judgePackage(path: string, specifier: string): string | undefined {
  if (PACKAGES.some(({ under, name }) => path.startsWith(under) && specifier === name)) return;
  if (inCore(path)) return "core imports only core";
  return specifier.startsWith("node:") ? undefined : "not among the packages it may use";
}

function judgeInCore(path: string, target: string): string | undefined {
  if (path === "core/mod.ts") return undefined;
  if (target === "core/mod.ts") return "nothing in core imports its face";
  const from = folder(path);
  const to = folder(target);
  if (from === to || to === undefined || FOUNDATIONS.includes(to)) {
    return from === undefined && to !== undefined && path !== "core/mod.ts"
      ? "a foundation imports no folder"
      : undefined;
  }
  if (from === undefined) return "a foundation imports no folder";
  const allowed = MAY_IMPORT[from];
  if (allowed === undefined) return `core/${from}/ has no place in scripts/checks/arrows.ts`;
  return allowed.includes(to) ? undefined : `core/${from}/ may not build on core/${to}/`;
}

function isShipped(path: string): boolean {
  return inCore(path) || path.startsWith("adapters/") || FACES.includes(path);
}

function inCore(path: string): boolean {
  return path.startsWith("core/");
}

/** The folder of `core/` a file is in; undefined right below it. */
function folder(path: string): string | undefined {
  const parts = path.split("/");
  return parts.length > 2 ? parts[1] : undefined;
}

/** The path of what a module of another path imports. */
export function resolve(path: string, specifier: string): string {
  const parts = path.split("/").slice(0, -1);
  for (const part of specifier.split("/")) {
    if (part === "..") parts.pop();
    else if (part !== ".") parts.push(part);
  }
  return parts.join("/");
}
