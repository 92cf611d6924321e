/**
 * Processes that write one state file at once and are killed while they do. This file (or its
 * bundle) is started again, and then is a writer.
 */
import { afterEach, beforeEach, describe, it } from "node:test";
import { type ChildProcessWithoutNullStreams, spawn } from "node:child_process";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";
import { assertEquals } from "@std/assert";
import { ownProcess } from "../../../adapters/cli/processes.ts";
import { StateFile } from "../../../adapters/cli/state_file.ts";

const SELF = fileURLToPath(import.meta.url);
const AS_WRITER = "NATKIT_TEST_WRITER";
const FLAGS = "Deno" in globalThis ? ["run", "-A", "--no-check", "--unstable-net"] : [];
const WRITERS = 8;
const PORTS_EACH = 25;

/** Keeps ports one after the other, and says each once it is kept. */
async function write(path: string, firstPort: number): Promise<void> {
  const state = new StateFile(path, (text) => void process.stderr.write(`${text}\n`));
  const owner = await ownProcess();
  for (let port = firstPort; port < firstPort + PORTS_EACH; port++) {
    await state.keep({
      mapping: {
        via: "pcp",
        gateway: "192.168.1.1",
        lifetimeSeconds: 600,
        mode: "keep-alive",
        protocol: "tcp",
        internalPort: port,
        external: { address: "203.0.113.7", port },
        nonce: "000102030405060708090a0b",
      },
      expiresAt: Date.now() + 60_000,
      owner,
    });
    process.stdout.write(`${port}\n`);
  }
}

/** A writer that runs. */
class Writer {
  err = "";
  #out = "";
  readonly #child: ChildProcessWithoutNullStreams;
  readonly #ended: Promise<void>;

  constructor(path: string, firstPort: number) {
    this.#child = spawn(process.execPath, [...FLAGS, SELF, path, `${firstPort}`], {
      env: { ...process.env, [AS_WRITER]: "1" },
    });
    this.#child.stdout.on("data", (data) => this.#out += data);
    this.#child.stderr.on("data", (data) => this.err += data);
    this.#ended = new Promise((resolve) => this.#child.on("close", () => resolve()));
  }

  /** The ports that it has kept. */
  get kept(): number[] {
    return this.#out.split("\n").slice(0, -1).map(Number);
  }

  kill(): void {
    this.#child.kill("SIGKILL");
  }

  end(): Promise<void> {
    return this.#ended;
  }
}

if (process.env[AS_WRITER]) {
  const [path, firstPort] = process.argv.slice(2);
  void write(path!, Number(firstPort));
} else {
  describe("StateFile of several processes", () => {
    let folder = "";
    beforeEach(async () => {
      folder = await mkdtemp(join(tmpdir(), "natkit-"));
    });
    afterEach(() => rm(folder, { recursive: true, force: true }));

    it("loses no entry of any writer, also where half of them are killed on the way", async () => {
      const path = join(folder, "state.json");
      const writers = Array.from(
        { length: WRITERS },
        (_, i) => new Writer(path, 1 + i * PORTS_EACH),
      );
      const isOver = Promise.all(writers.map((writer) => writer.end()));
      // Each at a time of its own while all of them write.
      for (const [i, writer] of writers.entries()) {
        if (i % 2 === 0) continue;
        while (writer.kept.length < i) await new Promise((resolve) => setTimeout(resolve, 1));
        await new Promise((resolve) => setTimeout(resolve, 10 * Math.random()));
        writer.kill();
      }
      await isOver;

      const warnings: string[] = [];
      const entries = await new StateFile(path, (text) => warnings.push(text)).load();
      const found = new Set(entries.map(({ mapping }) => mapping.internalPort));
      const kept = writers.flatMap((writer) => writer.kept);
      assertEquals(kept.filter((port) => !found.has(port)), []);
      for (const i of [0, 2, 4, 6]) assertEquals(writers[i]!.kept.length, PORTS_EACH);
      assertEquals([warnings, writers.map(({ err }) => err).join("")], [[], ""]);
    });
  });
}
