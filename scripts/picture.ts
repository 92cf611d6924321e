/**
 * `deno task picture`: runs the demo and draws what it prints as a terminal, `scripts/demo.svg`, which
 * the README shows. What differs from run to run, the port that the gateway found free, is written as
 * the one it would have at home.
 *
 * @module
 */
// deno-lint-ignore-file no-console
import { ROOT } from "./lib/files.ts";
import { must } from "./lib/process.ts";

/** Where the picture is. */
export const PICTURE = "scripts/demo.svg";

const FONT_SIZE = 13;
const LINE_HEIGHT = 19;
/** Of a character in the fonts below, at this size. */
const CHARACTER_WIDTH = 7.85;
const MARGIN = 20;
/** The bar at the top, with the title. */
const BAR_HEIGHT = 32;
const FONTS = "ui-monospace, 'SF Mono', Menlo, Consolas, 'DejaVu Sans Mono', monospace";

/** A space that stays one of many. */
const NO_BREAK = "\u00a0";

/** Colours on the terminal's dark ground, whatever the page's is. */
const COLOURS = {
  ground: "#15181e",
  bar: "#232833",
  text: "#c8d0da",
  story: "#ffffff",
  good: "#7ddc8b",
  changed: "#f2c14e",
  dim: "#8b97a6",
} as const;

/** The first words of lines that tell an event. */
const EVENTS: Readonly<Record<string, keyof typeof COLOURS>> = {
  mapped: "good",
  renewed: "good",
  moved: "changed",
  unmapped: "dim",
  listening: "dim",
  scenario: "dim",
};

/** Runs the demo; answers its lines. */
export async function demoLines(): Promise<string[]> {
  const argv = [Deno.execPath(), "run", "-A", `${ROOT}/adapters/cli/bin.ts`, "demo"];
  const { stdout } = await must(argv, { cwd: ROOT, env: { NO_COLOR: "1" } });
  return stdout.trimEnd().replace(/127\.0\.0\.1:\d+/g, homePort).split("\n");
}

/** The gateway's endpoint with the port of PCP; clients' ports are the demo's own. */
function homePort(endpoint: string): string {
  return /:(8080|27015)$/.test(endpoint) ? endpoint : "127.0.0.1:5351";
}

/** Draws lines as a terminal. */
export function pictureOf(command: string, lines: readonly string[]): string {
  const all = [`$ ${command}`, ...lines];
  const columns = Math.max(...all.map((line) => line.length));
  const width = Math.ceil(columns * CHARACTER_WIDTH) + 2 * MARGIN;
  const height = BAR_HEIGHT + all.length * LINE_HEIGHT + 2 * MARGIN;
  const texts = all.map((line, row) => {
    const y = BAR_HEIGHT + MARGIN + row * LINE_HEIGHT + FONT_SIZE;
    return line === "" ? "" : `  <text x="${MARGIN}" y="${y}">${spansOf(line)}</text>\n`;
  });
  const dots = ["#ff5f57", "#febc2e", "#28c840"].map((fill, n) =>
    `<circle cx="${MARGIN + n * 18}" cy="${BAR_HEIGHT / 2}" r="6" fill="${fill}"/>`
  );
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" ` +
    `width="${width}" height="${height}" role="img" aria-label="${escaped(command)}">\n` +
    `  <style>text { font: ${FONT_SIZE}px ${FONTS}; fill: ${COLOURS.text}; }` +
    `</style>\n` +
    `  <rect width="${width}" height="${height}" rx="8" fill="${COLOURS.ground}"/>\n` +
    `  <path d="M0 ${BAR_HEIGHT}V8a8 8 0 0 1 8-8h${width - 16}a8 8 0 0 1 8 8v${BAR_HEIGHT - 8}z" ` +
    `fill="${COLOURS.bar}"/>\n  ${dots.join("")}\n${texts.join("")}</svg>\n`;
}

/** The text of a picture's lines. */
export function linesOf(picture: string): string[] {
  return [...picture.matchAll(/<text [^>]*>(.*)<\/text>/g)].map(([, content]) =>
    content!.replace(/<[^>]*>/g, "").replaceAll(NO_BREAK, " ").replaceAll("&lt;", "<").replaceAll(
      "&gt;",
      ">",
    )
      .replaceAll("&quot;", '"').replaceAll("&amp;", "&")
  );
}

/** A line, its first word in its colour. */
function spansOf(line: string): string {
  const [word = ""] = /^\S+/.exec(line) ?? [];
  const colour = EVENTS[word];
  if (colour === undefined) return span(line, line.startsWith("$") ? "dim" : "story");
  return span(word, colour) + escaped(line.slice(word.length));
}

function span(text: string, colour: keyof typeof COLOURS): string {
  return `<tspan fill="${COLOURS[colour]}">${escaped(text)}</tspan>`;
}

function escaped(text: string): string {
  return text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;")
    .replaceAll('"', "&quot;").replaceAll("  ", NO_BREAK.repeat(2));
}

if (import.meta.main) {
  await Deno.writeTextFile(`${ROOT}/${PICTURE}`, pictureOf("npx natkit demo", await demoLines()));
  console.log(PICTURE);
}
