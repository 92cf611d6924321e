/**
 * The core touches no clock, timer, random source, promise, network, console or runtime.
 *
 * @module
 */
import { type Finding, linesMatching, type SourceFile, strip } from "./source.ts";

const WORDS = [
  "Date",
  "performance",
  "setTimeout",
  "setInterval",
  "setImmediate",
  "queueMicrotask",
  "requestAnimationFrame",
  "crypto",
  "fetch",
  "XMLHttpRequest",
  "WebSocket",
  "console",
  "async",
  "await",
  "Promise",
  "Deno",
  "Bun",
  "globalThis",
  "navigator",
  "require",
];

/** `process` is a good name for other things as well: members tell. */
const PROCESS = "exit|env|argv|hrtime|nextTick|cwd|platform|on|once|off|stdout|stderr|stdin|uptime";

/** A member of another object may bear one of the names; the global may not be used. */
const IMPURE = new RegExp(
  `(?<![.#\\w$])(?:${
    WORDS.join("|")
  })(?![\\w$])|Math\\s*\\.\\s*random|(?<![.#\\w$])process\\.(?:${PROCESS})\\b`,
  "g",
);
const BUILTIN = /["']node:[\w/]+["']/g;

/** Finds impure names in the code (not in comments or strings) of files below `core/`. */
export function checkPurity(files: readonly SourceFile[]): Finding[] {
  return files.filter(({ path }) => path.startsWith("core/")).flatMap(({ path, text }) =>
    [
      ...linesMatching(strip(text), IMPURE),
      ...linesMatching(strip(text, { strings: true }), BUILTIN),
    ].map(({ line, match }) => `${path}:${line}: ${match}`)
  );
}
