import { assert, assertEquals, assertRejects } from "@std/assert";
import { describe, it } from "node:test";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir, uptime } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { findGateways } from "../../adapters/discovery/mod.ts";
import { type DenoCommand, runCommand, runProgram } from "../../adapters/program.ts";
import { readTextFile, readUptimeMs, systemRandom } from "../../adapters/system.ts";
import { canonicalAddress } from "../../core/ip.ts";
import { runtime } from "./support.ts";

describe("the system of this runtime", () => {
  it("has interfaces with canonical addresses, loopback among them", () => {
    const interfaces = runtime.interfaces();

    const loopback = interfaces.find(({ address }) => address === "127.0.0.1");
    assertEquals([loopback?.internal, loopback?.prefixLength], [true, 8]);
    for (const { address } of interfaces) assertEquals(canonicalAddress(address), address);
    for (const { address } of interfaces) {
      assertEquals(address.startsWith("fe80:"), address.includes("%"));
    }
  });

  it("reads text files, and rejects for one that is not there", async () => {
    const path = runtime.platform === "linux" ? "/proc/self/status" : process.execPath;

    assert((await runtime.readTextFile(path)).length > 0);
    await assertRejects(() => runtime.readTextFile("/no/such/file"));
  });

  it("reads a text file whole that is read in pieces, and of a longer one the first 16 MiB", async () => {
    const folder = await mkdtemp(join(tmpdir(), "natkit-"));
    try {
      const path = join(folder, "text");
      // The letter of two bytes lies across the end of a piece.
      const text = `${"a".repeat(65_535)}\u00e9${"b".repeat(65_536)}`;
      await writeFile(path, text);
      assert(await readTextFile(path) === text);
      await writeFile(path, new Uint8Array((1 << 24) + 1).fill(97));
      assertEquals((await readTextFile(path)).length, 1 << 24);
    } finally {
      await rm(folder, { recursive: true });
    }
  });

  it("runs programs without a shell, and rejects for what fails", async () => {
    const isWindows = runtime.platform === "win32";
    const [command, ...args] = isWindows ? ["hostname.exe"] : ["echo", "$HOME", "a b"];

    const printed = await runtime.run(command!, args);

    if (!isWindows) assertEquals(printed, "$HOME a b\n");
    if (!isWindows) {
      assertEquals(
        (await runtime.run("sh", ["-c", "head -c 3000000 /dev/zero"])).length,
        3_000_000,
      );
    }
    await assertRejects(() => runtime.run("no-such-program", []));
    if (!isWindows) await assertRejects(() => runtime.run("false", []));
  });

  it("waits no longer for a program that hears no signal, nor for what it has started", {
    skip: process.platform === "win32",
  }, async () => {
    const folder = await mkdtemp(join(tmpdir(), "natkit-"));
    const loop = `while [ -d ${folder} ]; do sleep 0.1; done`;
    const { Deno } = globalThis as { Deno?: { Command: DenoCommand } };
    const run = (script: string) =>
      Deno
        ? runCommand(Deno.Command, "sh", ["-c", script], 200)
        : runProgram("sh", ["-c", script], 200);
    try {
      const message = "'sh' did not end within 200 ms";
      await Promise.all([
        assertRejects(() => run(`trap "" TERM; ${loop}`), Error, message),
        assertRejects(() => run(`(${loop}) & wait`), Error, message),
        assertRejects(() => run(`(${loop}) &`), Error, message),
      ]);
    } finally {
      // What was started ends by this.
      await rm(folder, { recursive: true });
    }
  });

  it("gives no byte of the kernel's randomness twice, and goes elsewhere where it has none", () => {
    const fallback = { fill: (bytes: Uint8Array) => void bytes.fill(7), u32: () => 7 };
    const none = new Uint8Array(3);
    systemRandom(fallback, "/no/such/file").fill(none);
    assertEquals([...none], [7, 7, 7]);
    if (runtime.platform !== "linux") return;

    const random = systemRandom(fallback);
    const seen = new Set<string>();
    for (let i = 0; i < 2000; i++) {
      const nonce = new Uint8Array(12);
      random.fill(nonce);
      seen.add(nonce.join());
    }
    assertEquals(seen.size, 2000);
    const long = new Uint8Array(10_000);
    random.fill(long);
    const counts = new Array(256).fill(0);
    for (const byte of long) counts[byte]++;
    assert(counts.every((count) => count > 5 && count < 100), counts.join());
    assert(new Set(Array.from({ length: 100 }, () => random.u32())).size > 90);
  });

  it("reads 256 bytes of randomness at a time, gives out each of them in turn, and takes no less", async () => {
    const fallback = { fill: (bytes: Uint8Array) => void bytes.fill(7), u32: () => 7 };
    const folder = await mkdtemp(join(tmpdir(), "natkit-"));
    try {
      const path = join(folder, "random");
      await writeFile(path, Uint8Array.from({ length: 300 }, (_, i) => i & 0xff));
      const random = systemRandom(fallback, path);
      const drawn = (length: number) => {
        const bytes = new Uint8Array(length);
        random.fill(bytes);
        return [...bytes];
      };
      assertEquals([drawn(2), random.u32(), drawn(1)], [[0, 1], 0x02030405, [6]]);
      const rest = drawn(252);
      assertEquals([rest[0], rest[248], rest.slice(249)], [7, 255, [0, 1, 2]]);

      await writeFile(path, new Uint8Array(255));
      const short = systemRandom(fallback, path);
      const bytes = new Uint8Array(2);
      short.fill(bytes);
      assertEquals([...bytes], [7, 7]);
    } finally {
      await rm(folder, { recursive: true });
    }
  });

  it("fills randomness of any length, and draws 32-bit integers", () => {
    const bytes = new Uint8Array(200_000);

    runtime.random.fill(bytes);
    const drawn = runtime.random.u32();

    assert(bytes.subarray(-100).some((byte) => byte !== 0));
    assert(Number.isInteger(drawn) && drawn >= 0 && drawn < 2 ** 32);
  });

  it("tells for how long the system runs, as the clock needs it", () => {
    const up = readUptimeMs();

    assert(up !== undefined && Math.abs(up - uptime() * 1000) < 60_000);
  });

  it("finds gateways, or none, but does not fail", async () => {
    for (const { address, family } of await findGateways(runtime)) {
      assertEquals(canonicalAddress(address), address);
      assertEquals(family, address.includes(":") ? 6 : 4);
    }
  });
});
