/**
 * What natkit adds to a program that is bundled: one name out of the npm package, minified and
 * gzipped, with all that it may load later.
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
    const { code } = await bundled(name, `${folder}/${built}`);
    const { modules } = await bundled(name, `${ROOT}/${source}`);
    const heaviest = Object.entries(modules).sort(([, a], [, b]) => b - a).slice(0, HEAVIEST)
      .map(([path, share]) => `${path.slice(ROOT.length + 1)} ${Math.round(share * 100)} %`);
    yield atMost(most, {
      what: `${name} bundled, minified, gzipped`,
      on: entry,
      value: gzipSync(code, { level: 9 }).length / 1000,
      unit: "KB",
      note: `${(code.length / 1000).toFixed(0)} KB minified, of ${
        Object.keys(modules).length
      } modules: ${heaviest.join(", ")}`,
    });
  }
}

/** One name and what it needs as one minified file, and each module's share of it. */
async function bundled(
  name: string,
  path: string,
): Promise<{ code: string; modules: Record<string, number> }> {
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
  const { output: [chunk] } = await bundle.generate({
    format: "es",
    minify: true,
    codeSplitting: false,
    polyfillRequire: false,
  });
  await bundle.close();
  const lengths = Object.entries(chunk.modules).map(([id, { renderedLength }]) =>
    [id, renderedLength] as const
  );
  const total = lengths.reduce((sum, [, length]) => sum + length, 0);
  return {
    code: chunk.code,
    modules: Object.fromEntries(lengths.map(([id, length]) => [id, length / total])),
  };
}
