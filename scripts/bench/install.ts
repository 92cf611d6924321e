/**
 * natkit's npm package, and those that it is compared with, in a temporary folder.
 *
 * @module
 */
import { buildPackage } from "../build_npm.ts";
import { ROOT } from "../lib/files.ts";
import { beforeLeaving, must } from "../lib/process.ts";

/** Packages, pinned to what the figures are about. */
export const PEERS: Readonly<Record<string, string>> = {
  "port-mapper": "0.1.3",
  "@silentbot1/nat-api": "0.4.9",
  "@achingbrain/nat-port-mapper": "4.0.5",
};

/** Packages with a STUN codec. */
export const STUN_PEERS: Readonly<Record<string, string>> = {
  "stun": "2.1.0",
  "werift": "0.25.2",
};

const INSTALL_GUARD_MS = 120_000;
let installed: Promise<string> | undefined;

/**
 * Installs packages, once a run; the folder is removed by {@linkcode removePeers}.
 *
 * @param peers Name and version of each: by default all that natkit is compared with.
 */
export function installPeers(peers: Readonly<Record<string, string>> = PEERS): Promise<string> {
  return installed ??= (async () => {
    const folder = await Deno.makeTempDir({ prefix: "natkit-bench-" });
    beforeLeaving(() => Deno.remove(folder, { recursive: true }));
    await Deno.writeTextFile(`${folder}/package.json`, '{ "type": "module", "private": true }\n');
    const packages = Object.entries(peers).map(([name, version]) => `${name}@${version}`);
    const flags = ["--ignore-scripts", "--no-audit", "--no-fund", "--prefer-offline"];
    await must(["npm", "install", ...flags, ...packages], {
      cwd: folder,
      guardMs: INSTALL_GUARD_MS,
    });
    for (const file of ["client.js", "server.js", "stun.js"]) {
      await Deno.copyFile(`${ROOT}/scripts/bench/peers/${file}`, `${folder}/${file}`);
    }
    return folder;
  })();
}

/** Removes the folder, if there is one. */
export async function removePeers(): Promise<void> {
  const folder = await installed?.catch(() => undefined);
  installed = undefined;
  if (folder !== undefined) await Deno.remove(folder, { recursive: true });
}

const PACKED = `${ROOT}/.build/bench/npm`;
let packed: Promise<string> | undefined;

/** Builds natkit's npm package, once a run: its folder, and the tarball of it. */
export async function packNatkit(): Promise<{ folder: string; tarball: string }> {
  return {
    tarball: await (packed ??= buildPackage("deno pack", PACKED)),
    folder: `${PACKED}/package`,
  };
}

/** Installs natkit's package beside the others in a folder. */
export async function installNatkit(folder: string): Promise<void> {
  const { tarball } = await packNatkit();
  await must(["npm", "install", "--prefer-offline", "--no-audit", "--no-fund", tarball], {
    cwd: folder,
  });
}
