/**
 * What natkit adds to a program that is bundled: one name out of the npm package, minified and
 * gzipped, with all that it may load later, and what of it is loaded first where the bundler splits.
 *
 * @module
 */
import { gzipSync } from "node:zlib";
import { ROOT } from "../lib/files.ts";
import type { Context } from "./context.ts";
import { packNatkit } from "./install.ts";
import { atMost, type Row } from "./report.ts";

/** Names, their entry points with the modules, built and as sources, and aims, KB. */
const SUBJECTS = [
  { name: "openPort", entry: "natkit", built: "mod.js", source: "mod.ts", most: 25 },
  {
    name: "PcpClient",
    entry: "natkit/pcp",
    built: "core/pcp/mod.js",
    source: "core/pcp/mod.ts",
    most: 15,
  },
  {
    name: "NatPmpClient",
    entry: "natkit/nat-pmp",
    built: "core/natpmp/mod.js",
    source: "core/natpmp/mod.ts",
    most: 15,
  },
] as const;

/** How many of the heaviest modules are told. */
const HEAVIEST = 6;

/** Runs the topic. */
export async function* size(_: Context): AsyncGenerator<Row> {
  const { folder } = await packNatkit();
  for (const { name, entry, built, source, most } of SUBJECTS) {
    const [code] = await bundled(name, `${folder}/${built}`, false);
    const first = await bundled(name, `${folder}/${built}`, true);
    const [{ modules }] = await bundled(name, `${ROOT}/${source}`, false);
    const heaviest = Object.entries(sharesOf(modules)).sort(([, a], [, b]) => b - a).slice(
      0,
      HEAVIEST,
    )
      .map(([path, share]) => `${path.slice(ROOT.length + 1)} ${Math.round(share * 100)} %`);
    yield atMost(most, {
      what: `${name} bundled, minified, gzipped`,
      on: entry,
      value: gzippedKb(code.code),
      unit: "KB",
      note: `${(code.code.length / 1000).toFixed(0)} KB minified, of ${
        Object.keys(modules).length
      } modules: ${heaviest.join(", ")}`,
    });
    yield {
      what: `${name} likewise, loaded first`,
      on: entry,
      value: first.reduce((sum, chunk) => sum + gzippedKb(chunk.code), 0),
      unit: "KB",
      note: `${first.length} of the files that it is split into`,
    };
  }
}

/** A file of a bundle. */
interface Chunk {
  readonly code: string;
  readonly modules: Readonly<Record<string, { readonly renderedLength: number }>>;
}

function gzippedKb(code: string): number {
  return gzipSync(code, { level: 9 }).length / 1000;
}

/** Each module's share of a file. */
function sharesOf(modules: Chunk["modules"]): Record<string, number> {
  const lengths = Object.entries(modules).map(([id, { renderedLength }]) =>
    [id, renderedLength] as const
  );
  const total = lengths.reduce((sum, [, length]) => sum + length, 0);
  return Object.fromEntries(lengths.map(([id, length]) => [id, length / total]));
}

/**
 * One name and what it needs, minified.
 *
 * @param isSplit Whether what is loaded later is apart, and left out; else it all is one file.
 */
async function bundled(name: string, path: string, isSplit: boolean): Promise<[Chunk, ...Chunk[]]> {
  // Only who measures sizes needs it.
  const { rolldown } = await import("rolldown");
  const entry = `export { ${name} } from ${JSON.stringify(path)};`;
  const bundle = await rolldown({
    input: "entry",
    external: /^node:/,
    platform: "node",
    plugins: [{
      name: "entry",
      resolveId: (id) => id === "entry" ? `${ROOT}/entry.js` : undefined,
      load: (id) => id === `${ROOT}/entry.js` ? entry : undefined,
    }],
    logLevel: "silent",
  });
  const { output } = await bundle.generate({
    format: "es",
    minify: true,
    codeSplitting: isSplit,
    polyfillRequire: false,
  });
  await bundle.close();
  const [main] = output;
  const loaded = new Set([main.fileName]);
  for (const fileName of loaded) {
    const chunk = output.find((one) => one.fileName === fileName);
    if (chunk?.type === "chunk") { for (const other of chunk.imports) loaded.add(other); }
  }
  const others = output.filter((one) => one !== main && loaded.has(one.fileName));
  return [main, ...others.filter((one) => one.type === "chunk")];
}
