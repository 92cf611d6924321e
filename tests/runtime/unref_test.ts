/**
 * A process that holds an open port and ends by itself: this file (or its bundle) is started again,
 * and then is that process.
 */
import { spawn } from "node:child_process";
import { describe, it } from "node:test";
import process from "node:process";
import { fileURLToPath } from "node:url";
import { assertEquals } from "@std/assert";
import { openPort } from "../../adapters/api/open_port.ts";
import { startGateway } from "../../adapters/gateway_server.ts";

const SELF = fileURLToPath(import.meta.url);
const GATEWAY = "NATKIT_TEST_GATEWAY";
const HOW = "NATKIT_TEST_HOW";
/** A process that should end and does not is ended by this; nothing waits for it otherwise. */
const GUARD_MS = 20_000;

/** Deno's `node:dgram`, which it takes without this flag, keeps the process alive. */
const FLAGS = "Deno" in globalThis ? ["run", "-A", "--no-check", "--unstable-net"] : [];

/** Runs this file as a process of its own; answers what it said and how it ended. */
async function run(how: "ends" | "stays"): Promise<unknown[]> {
  const gateway = await startGateway();
  const { address, port } = gateway.endpoint;
  const { NODE_TEST_CONTEXT: _context, ...env } = process.env;
  const child = spawn(process.execPath, [...FLAGS, SELF], {
    env: { ...env, [GATEWAY]: `${address}:${port}`, [HOW]: how, NO_COLOR: "1" },
  });
  const guard = setTimeout(() => child.kill("SIGKILL"), GUARD_MS);
  let out = "";
  child.stdout.on("data", (data) => {
    out += data;
    // The one that stays is told to end once its own work is done.
    if (out.includes("I stay")) child.kill("SIGTERM");
  });
  child.stderr.on("data", (data) => void (out += data));
  const ended = await new Promise<unknown>((resolve) => {
    child.on("close", (code, signal) => resolve(code ?? signal));
  });
  clearTimeout(guard);
  const ports = gateway.entries().map(({ internal }) => internal.port);
  await gateway.close();
  return [out.match(/^I .*$/gm), ended, ports];
}

async function holdPort(): Promise<void> {
  const port = await openPort(8080, { gateway: process.env[GATEWAY]! });
  port.unref();
  // What is waited for is waited for, though nothing else keeps the process alive.
  await port.renew();
  process.stdout.write(`I am ${port.state}\n`);
  if (process.env[HOW] !== "stays") return;
  port.ref();
  // A timer that keeps nothing alive: without the port the process would be over before it.
  setTimeout(() => void process.stdout.write("I stay\n"), 200).unref();
}

if (process.env[GATEWAY] !== undefined) await holdPort();
else {
  describe("an open port", () => {
    it("that is unref'ed lets the process end, and stays at the gateway", async () => {
      assertEquals(await run("ends"), [["I am open"], 0, [8080]]);
    });

    it("that is ref'ed again keeps the process alive", async () => {
      assertEquals(await run("stays"), [["I am open", "I stay"], "SIGTERM", [8080]]);
    });
  });
}
