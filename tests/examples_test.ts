/**
 * Runs every example of scripts/examples/ against a simulated gateway, and reads what it prints.
 * They are what a reader starts from, so they stay short.
 *
 * @module
 */
import { spawn } from "node:child_process";
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, it } from "node:test";
import { assert, assertEquals } from "@std/assert";
import { startGateway } from "../adapters/gateway_server.ts";

const FOLDER = "scripts/examples";

/** What each example prints, as a pattern; `stop` ends one that would go on. */
const EXPECTED: Readonly<Record<string, { readonly output: RegExp; readonly stop?: boolean }>> = {
  "custom_loop.ts": { output: /"type":"mapped"[^]*"type":"unmapped"/ },
  "keep_open.ts": { output: /reachable at 203\.0\.113\.7:\d+ via pcp[^]*unmapped/, stop: true },
  "what_is_my_address.ts": { output: /203\.0\.113\.7 by pcp\n203\.0\.113\.7 by nat-pmp\n/ },
  "gateway_in_tests.ts": { output: /(1 passed|pass 1|1 pass)/ },
};

/** Bundles once for Node and Bun, which do not read deno.json. */
function commandFor(example: string, out: string): string[] {
  const isTest = example === "gateway_in_tests.ts";
  const { versions } = process as { versions: Record<string, string | undefined> };
  const deno = versions["deno"] ? [process.execPath] : ["npx", "--yes", "deno@2.9.6"];
  if (versions["deno"]) return [...deno, isTest ? "test" : "run", "-A", `${FOLDER}/${example}`];
  const bundle = join(out, example.replace(/\.ts$/, ".test.mjs"));
  const script = [...deno, "bundle", "--quiet", "--platform=deno", `${FOLDER}/${example}`, "-o"];
  const run = versions["bun"]
    ? [process.execPath, ...(isTest ? ["test"] : []), bundle]
    : [process.execPath, ...(isTest ? ["--test"] : []), bundle];
  return ["sh", "-c", `${quote([...script, bundle])} && exec ${quote(run)} "$@"`, "sh"];
}

const quote = (argv: readonly string[]) => argv.map((arg) => `'${arg}'`).join(" ");

function run(argv: readonly string[], stopAt: RegExp | undefined): Promise<string> {
  return new Promise((resolve, reject) => {
    // Node's runner refuses to start inside another one's test.
    const { NODE_TEST_CONTEXT: _, ...env } = process.env;
    const child = spawn(argv[0]!, argv.slice(1), { env: { ...env, NO_COLOR: "1" } });
    let output = "";
    const take = (chunk: unknown) => {
      output += chunk;
      if (stopAt?.test(output)) {
        stopAt = undefined;
        child.kill("SIGINT");
      }
    };
    child.stdout.on("data", take);
    child.stderr.on("data", take);
    child.on("error", reject);
    child.on("close", () => resolve(output));
  });
}

describe("examples", () => {
  it("are all run here, and each fits on a screen", () => {
    // The lab runs those in a folder.
    const files = readdirSync(FOLDER).filter((file) => file.endsWith(".ts")).sort();
    assertEquals(files, Object.keys(EXPECTED).sort());
    for (const file of files) {
      const lines = readFileSync(`${FOLDER}/${file}`, "utf8").trimEnd().split("\n").length;
      assert(lines <= 45, `${file} has ${lines} lines`);
    }
  });

  for (const [example, { output, stop }] of Object.entries(EXPECTED)) {
    it(`${example} does what it says`, async () => {
      // PCP is the first to answer where nothing is announced by NAT-PMP in between.
      const gateway = await startGateway({ announceTo: [] });
      const { address, port } = gateway.endpoint;
      const out = mkdtempSync(join(tmpdir(), "natkit-examples-"));
      try {
        const argv = [...commandFor(example, out)];
        if (example !== "gateway_in_tests.ts") argv.push(`${address}:${port}`, "127.0.0.1");
        const printed = await run(argv, stop ? /reachable at/ : undefined);
        assert(output.test(printed), printed);
        assertEquals(gateway.entries().length, 0);
      } finally {
        rmSync(out, { recursive: true });
        await gateway.close();
      }
    });
  }
});
