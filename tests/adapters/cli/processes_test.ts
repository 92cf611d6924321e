import { afterEach, describe, it } from "node:test";
import { spawn } from "node:child_process";
import { existsSync } from "node:fs";
import process from "node:process";
import { assert, assertEquals } from "@std/assert";
import { hasPid, isRunning, ownProcess } from "../../../adapters/cli/processes.ts";

/** The pid of a process that is gone. */
async function gone(): Promise<number> {
  const child = spawn(process.execPath, ["--version"], { stdio: "ignore" });
  await new Promise((resolve) => child.on("close", resolve));
  return child.pid!;
}

describe("a process", () => {
  const platform = Object.getOwnPropertyDescriptor(process, "platform")!;
  const { TZ } = process.env;

  afterEach(() => {
    Object.defineProperty(process, "platform", platform);
    if (TZ === undefined) delete process.env.TZ;
    else process.env.TZ = TZ;
  });

  it("runs, and is not another one that had its pid before", async () => {
    const own = await ownProcess();
    assertEquals([own.pid, hasPid(own.pid)], [process.pid, true]);
    assertEquals([await isRunning(own), await isRunning({ pid: own.pid })], [true, true]);
    if (own.start !== undefined) assertEquals(await isRunning({ ...own, start: "before" }), false);
    const pid = await gone();
    assertEquals([hasPid(pid), await isRunning({ pid })], [false, false]);
  });

  const hasPs = process.platform !== "win32" && ["/bin/ps", "/usr/bin/ps"].some(existsSync);
  it("is told by ps where there is no /proc, in no zone and no language", {
    skip: !hasPs,
  }, async () => {
    Object.defineProperty(process, "platform", { value: "freebsd", configurable: true });
    process.env.TZ = "Asia/Tokyo";
    const own = await ownProcess();
    assert(/^\w{3} \w{3} [ \d]\d \d\d:\d\d:\d\d \d{4}$/.test(own.start!), own.start);
    assert(Math.abs(Date.parse(`${own.start} UTC`) - Date.now()) < 4 * 3_600_000, own.start);
    assertEquals([await isRunning(own), await isRunning({ ...own, start: "x" })], [true, false]);
  });

  it("is known by its pid alone where the system does not tell more", async () => {
    Object.defineProperty(process, "platform", { value: "win32", configurable: true });
    assertEquals(await ownProcess(), { pid: process.pid });
    assertEquals(await isRunning({ pid: process.pid, start: "before" }), true);
  });
});
