/**
 * The README as npm's users read it: the package by its name there, commands as they are called
 * there, links that lead to the repository, and nothing that needs a checkout.
 *
 * @module
 */
import { type Manifest, renamed, REPOSITORY } from "./manifest.ts";

/** What only a checkout has stands between these. */
const OF_A_CHECKOUT = /<!-- checkout -->[^]*?<!-- \/checkout -->\n+/g;
const TASK = /npx --yes deno@\S+ task (?:natkit\b|(?=demo\b))/g;
/** `[text](path)` and `![text](path)`, not of another site nor of this page. */
const LINK = /(!?)\[([^\]]*)\]\((?!https?:|#)([^)]+)\)/g;
/** What the package has as well. */
const PACKED = ["LICENSE"];

/**
 * Turns the repository's README into the package's.
 *
 * @throws If a command or a mark is left that only a checkout has.
 */
export function npmReadme(text: string, manifest: Manifest): string {
  const at = (kind: "blob" | "raw") => `${REPOSITORY}/${kind}/v${manifest.version}`;
  const readme = renamed(text.replace(OF_A_CHECKOUT, ""), manifest)
    .replace(TASK, (command) => command.endsWith("natkit") ? "npx natkit" : "npx natkit ")
    .replace(
      LINK,
      (link, mark: string, label: string, path: string) =>
        PACKED.includes(path)
          ? link
          : `${mark}[${label}](${at(mark === "!" ? "raw" : "blob")}/${path})`,
    );
  const left = /<!-- \/?checkout|deno@\S+ task|\bdeno task\b/.exec(readme);
  if (left) throw new Error(`Cannot make npm's README: "${left[0]}" is for a checkout`);
  return readme;
}
