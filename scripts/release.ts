/**
 * `deno task release TAG`: whether a tag may be released, and what is said of it: the section of
 * CHANGELOG.md, on standard output.
 *
 * @module
 */
// deno-lint-ignore-file no-console
import { read } from "./lib/files.ts";
import { readManifest } from "./npm/manifest.ts";

/**
 * The section of a version.
 *
 * @throws If the tag is of another version than the sources', or nothing is said of it.
 */
export function releaseNotes(tag: string, version: string, changelog: string): string {
  if (tag !== `v${version}`) {
    throw new Error(`Cannot release ${tag}: deno.json is of version ${version}`);
  }
  const [, ...sections] = changelog.split(/^## /m);
  const section = sections.find((one) => one.split("\n", 1)[0]!.trim() === version);
  const notes = section?.slice(section.indexOf("\n")).trim() ?? "";
  if (notes === "") {
    throw new Error(`Cannot release ${tag}: CHANGELOG.md has nothing of ${version}`);
  }
  return notes;
}

function main([tag]: readonly string[]): number {
  if (tag === undefined) {
    console.error("Usage: deno task release TAG");
    return 2;
  }
  try {
    console.log(releaseNotes(tag, readManifest().version, read("CHANGELOG.md")));
    return 0;
  } catch (error) {
    console.error((error as Error).message);
    return 1;
  }
}

if (import.meta.main) Deno.exit(main(Deno.args));
