import { assert, assertEquals, assertRejects } from "@std/assert";
import { describe, it } from "node:test";
import process from "node:process";
import { findGateways } from "../../adapters/discovery/mod.ts";
import { readUptimeMs, systemRandom } from "../../adapters/system.ts";
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

  it("runs programs without a shell, and rejects for what fails", async () => {
    const isWindows = runtime.platform === "win32";
    const [command, ...args] = isWindows ? ["hostname.exe"] : ["echo", "$HOME", "a b"];

    const printed = await runtime.run(command!, args);

    if (!isWindows) assertEquals(printed, "$HOME a b\n");
    await assertRejects(() => runtime.run("no-such-program", []));
    if (!isWindows) await assertRejects(() => runtime.run("false", []));
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

  it("fills randomness of any length, and draws 32-bit integers", () => {
    const bytes = new Uint8Array(200_000);

    runtime.random.fill(bytes);
    const drawn = runtime.random.u32();

    assert(bytes.subarray(-100).some((byte) => byte !== 0));
    assert(Number.isInteger(drawn) && drawn >= 0 && drawn < 2 ** 32);
  });

  it("tells for how long the system runs, as the clock needs it", () => {
    const up = readUptimeMs();

    assert(up !== undefined && up > 0 && readUptimeMs()! - up < 60_000);
  });

  it("finds gateways, or none, but does not fail", async () => {
    for (const { address, family } of await findGateways(runtime)) {
      assertEquals(canonicalAddress(address), address);
      assertEquals(family, address.includes(":") ? 6 : 4);
    }
  });
});
