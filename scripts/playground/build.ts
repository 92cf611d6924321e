/**
 * Makes the playground one HTML file: script and style are in it, and nothing is fetched.
 *
 * @module
 */
import { read, ROOT } from "../lib/files.ts";
import { must } from "../lib/process.ts";

const FOLDER = "scripts/playground";

/**
 * The page as text.
 *
 * @throws If it cannot be bundled.
 */
export async function buildPage(): Promise<string> {
  const argv = ["bundle", "--quiet", "--platform=browser", "--minify", `${FOLDER}/view.ts`];
  const { stdout } = await must([Deno.execPath(), ...argv], { cwd: ROOT });
  // Nothing in the script may end its element, or begin a comment in it.
  const script = stdout.replaceAll("</script", "<\\/script").replaceAll("<!--", "<\\!--");
  return read(`${FOLDER}/page.html`)
    .replace("/*STYLE*/", () => read(`${FOLDER}/page.css`))
    .replace("/*SCRIPT*/", () => script);
}
