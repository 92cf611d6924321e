/**
 * The built package with its modules put together: one file for each entry point, over a few that
 * they share. To open a file costs more than to read it, and `natkit` alone is seventy modules.
 *
 * Left to itself a bundler cuts wherever two entry points differ, which leaves `natkit` twenty-seven
 * files. So what it loads is three (and a helper of the bundler), of which the other entry points take
 * what they need: the protocols apart, so that who bundles one of them anew gets nothing of the sockets,
 * and what opens a port apart from what does more. UPnP's client, with what reads its XML, is one that
 * is loaded when its turn comes.
 *
 * @module
 */
import { pathToFileURL } from "node:url";
import { filesBelow } from "../lib/files.ts";
import { bundledPackage } from "../lib/package.ts";
import { filesNamed, INLINED, isModuleOf, readManifest, versionOf } from "./manifest.ts";

/** The modules of the command that share a file; what runs a gateway, punches or logs where it is asked. */
const COMMAND =
  /^adapters\/cli\/(?!bin|main|packet_log|commands\/(gateway|demo|stun_server|punch))/;

/** Protocols and what they stand on; what a port has of UPnP apart. */
const PROTOCOLS = /^core\/(?!portmap|upnp)/;

/** What a port loads where UPnP's turn has come: nobody else is to load what reads XML. */
const UPNP = "core/portmap/upnp.js";

/** What opens a port, and does no more. */
const OPENER = "adapters/api/open_port.js";

/**
 * What a port loads where it is asked for more, and the command as well: else it all would be the
 * command's, and who bundles a port get that.
 */
const HOLES = /^core\/(stun|ice|hash)\/(?!.*server)/;
const ON_DEMAND = /^adapters\/api\/(\w+)\.js$/;

/** Where the shared files go. */
const FOLDER = "shared";

/** Marks the ids of packages that are bundled in. */
const INLINED_PREFIX = "\0package:";

/** The first line of a program. */
const SHEBANG = "#!/usr/bin/env node";

/**
 * Bundles the package in a folder in place. Types stay as they are; source maps hold the sources.
 *
 * @throws If a module imports what is not there, or the bundler warns.
 */
export async function bundlePackage(folder: string): Promise<void> {
  // Only who builds the package needs it.
  const { rolldown } = await import("rolldown");
  const { files, programs, dependencies } = await filesNamed(folder);
  const entries = files.filter((path) => path.endsWith(".js"));
  const root = `${await Deno.realPath(folder)}/`;
  const pathOf = (id: string) => id.replace(root, "");
  /** What `natkit` loads, what of it opens a port, and what does so by UPnP alone. */
  const loaded = new Set<string>(), opening = new Set<string>(), upnp = new Set<string>();
  const bundle = await rolldown({
    input: Object.fromEntries(entries.map((path) => [path, `${folder}/${path}`])),
    external: (id) => id.startsWith("node:") || isModuleOf(dependencies, id),
    platform: "node",
    plugins: [{
      name: "natkit",
      resolveId: (id) => id in INLINED ? INLINED_PREFIX + id : undefined,
      load: (id) => id.startsWith(INLINED_PREFIX) ? loadInlined(id) : loadWithMap(id),
      buildEnd() {
        const infoOf = (id: string) => this.getModuleInfo(id);
        for (const id of imported(`${root}mod.js`, infoOf)) loaded.add(id);
        const opener = `${root}${OPENER}`;
        for (const id of [opener, ...imported(opener, infoOf)]) opening.add(id);
        const late = `${root}${UPNP}`;
        for (const id of [late, ...imported(late, infoOf)]) if (!loaded.has(id)) upnp.add(id);
      },
    }],
    experimental: { attachDebugInfo: "none" },
    // What one entry point loads when it is needed another one may import; and a busy machine is slow.
    checks: { ineffectiveDynamicImport: false, pluginTimings: false },
    onLog(_, { message }) {
      throw new Error(`Cannot bundle the package: ${message}`);
    },
  });
  const { output } = await bundle.generate({
    dir: folder,
    format: "es",
    sourcemap: true,
    banner: ({ fileName }) => programs.includes(fileName) ? SHEBANG : "",
    entryFileNames: "[name]",
    chunkFileNames: `${FOLDER}/[name].js`,
    comments: { legal: true, annotation: true, jsdoc: false },
    polyfillRequire: false,
    codeSplitting: {
      groups: [
        {
          name: "protocols",
          test: (id) => loaded.has(id) && PROTOCOLS.test(pathOf(id)),
          priority: 5,
        },
        { name: "port", test: (id) => opening.has(id), priority: 4 },
        { name: "upnp", test: (id) => upnp.has(id), priority: 3 },
        { name: "natkit", test: (id) => loaded.has(id), priority: 2 },
        { name: "holes", test: (id) => HOLES.test(pathOf(id)), priority: 1 },
        {
          name: (id) => ON_DEMAND.exec(pathOf(id))?.[1] ?? null,
          test: (id) => ON_DEMAND.test(pathOf(id)),
          debugName: "on demand",
          priority: 1,
        },
        { name: "command", test: (id) => COMMAND.test(pathOf(id)) },
      ],
    },
  });
  await bundle.close();
  for await (const path of filesBelow(folder)) {
    if (/\.js(\.map)?$/.test(path)) await Deno.remove(path);
  }
  await Deno.mkdir(`${folder}/${FOLDER}`);
  for (const file of output) {
    const text = file.type === "chunk" ? file.code : file.source;
    await Deno.writeTextFile(`${folder}/${file.fileName}`, String(text));
  }
  for (const path of programs) await Deno.chmod(`${folder}/${path}`, 0o755);
}

/** A package's code, beneath its name and licence. */
async function loadInlined(id: string): Promise<string> {
  const name = id.slice(INLINED_PREFIX.length);
  const notice = `/*! ${name} ${versionOf(readManifest().imports, name)}, ${INLINED[name]} */`;
  return `${notice}\n${await bundledPackage(name, "browser")}`;
}

/** The modules that importing one loads, without it. */
function imported(
  entry: string,
  infoOf: (id: string) => { readonly importedIds: readonly string[] } | null,
): string[] {
  const found = new Set([entry]);
  for (const id of found) for (const other of infoOf(id)?.importedIds ?? []) found.add(other);
  return [...found].slice(1);
}

/** A built module, and the map from it to its source, which stands in it or beside it. */
async function loadWithMap(id: string): Promise<{ code: string; map: string } | undefined> {
  if (!id.endsWith(".js") || id.startsWith("\0")) return undefined;
  const code = await Deno.readTextFile(id);
  const place = /^\/\/# sourceMappingURL=(\S+)\s*$/m.exec(code)?.[1];
  if (place === undefined) throw new Error(`Cannot bundle ${id}: it has no source map`);
  const map = await (await fetch(new URL(place, pathToFileURL(id)))).json();
  // The source lay beside it, wherever it was built.
  const sources = [id.replace(/\.js$/, ".ts")];
  return { code: code.replace(/^#!.*/, ""), map: JSON.stringify({ ...map, sources }) };
}
