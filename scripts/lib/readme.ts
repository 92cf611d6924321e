/**
 * The fenced blocks of a Markdown text.
 *
 * @module
 */

/** One block. */
export interface Block {
  /** What stands behind the fence: `"ts"`, `"sh lab"`. */
  readonly info: string;
  /** What stands in it. */
  readonly text: string;
}

/** All blocks, in order. */
export function blocksOf(markdown: string): Block[] {
  return [...markdown.matchAll(/^```(.*)\n([^]*?)^```$/gm)].map(([, info = "", text = ""]) => ({
    info,
    text,
  }));
}
