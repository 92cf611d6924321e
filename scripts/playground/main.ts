/**
 * `deno task playground [--port N]` serves the playground on this machine alone;
 * `deno task playground build [FILE]` makes one HTML file of it that needs nothing else.
 *
 * @module
 */
// deno-lint-ignore-file no-console
import { buildPage } from "./build.ts";

const USAGE = "use: deno task playground [--port N] | deno task playground build [FILE]";
const DEFAULT_FILE = ".build/playground.html";
const DEFAULT_PORT = 8321;

async function main(args: readonly string[]): Promise<number> {
  const [first, second, ...rest] = args;
  if (rest.length > 0) return misused();
  if (first === "build") {
    const file = second ?? DEFAULT_FILE;
    const page = await buildPage();
    if (file === DEFAULT_FILE) await Deno.mkdir(".build", { recursive: true });
    await Deno.writeTextFile(file, page);
    console.log(`${file}: ${Math.round(page.length / 1000)} KB`);
    return 0;
  }
  const port = first === undefined ? DEFAULT_PORT : first === "--port" ? Number(second) : NaN;
  if (!Number.isInteger(port) || port < 0 || port > 65535) return misused();
  // Built anew for each visit: whoever changes it reloads.
  const serve = async (request: Request) =>
    new URL(request.url).pathname === "/"
      ? new Response(await buildPage(), { headers: { "content-type": "text/html; charset=utf-8" } })
      : new Response("There is only one page.", { status: 404 });
  const onListen = (at: Deno.NetAddr) => console.log(`http://${at.hostname}:${at.port}/`);
  await Deno.serve({ hostname: "127.0.0.1", port, onListen }, serve).finished;
  return 0;
}

function misused(): number {
  console.error(USAGE);
  return 2;
}

if (import.meta.main) Deno.exit(await main(Deno.args));
