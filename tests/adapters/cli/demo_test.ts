/** The demonstration, on loopback, with its patience by hand. */
import { afterEach, describe, it } from "node:test";
import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { systemRuntime } from "../../../adapters/auto.ts";
import { runCommandLine } from "../../../adapters/cli/command_line.ts";
import type { Runtime } from "../../../adapters/runtime.ts";
import { type HandTimers, takeTimers } from "../../runtime/support.ts";
import { FakeIo } from "./fakes.ts";

/** How long the story waits for an announcement, milliseconds. */
const PATIENCE_MS = 900;

const STORY = [
  "A gateway, simulated, on this host's loopback:",
  "listening on ",
  "One client opens a port by PCP, one by NAT-PMP, one by UPnP:",
  "mapped   203.0.113.7:8080 -> 127.0.0.1:8080/tcp by PCP ",
  "mapped   203.0.113.7:27015 -> 127.0.0.1:27015/udp by NAT-PMP ",
  "mapped   203.0.113.7:25565 -> 127.0.0.1:25565/tcp by UPnP ",
  "The gateway has one table, whichever protocol is spoken. UPnP lists it:",
  "The gateway reboots and forgets them. The clients notice and ask again:",
  "scenario reboot: ",
  "The provider gives the gateway another address:",
  "scenario external: ",
  "moved    198.51.100.9:",
  "The clients are done and close their ports:",
  "unmapped ",
  "The gateway's table has 0 entries. That is all.",
];

/** This runtime, where nothing that is told to a group is heard. */
function deaf(): Runtime {
  const runtime = systemRuntime();
  return {
    ...runtime,
    openUdp: (options, handlers) =>
      options.multicast
        ? runtime.openUdp({}, { ...handlers, onDatagram() {} })
        : runtime.openUdp(options, handlers),
  };
}

describe("natkit demo", () => {
  let timers: HandTimers | undefined;

  afterEach(() => {
    timers?.giveBack();
    timers = undefined;
  });

  function run(io: FakeIo, runtime: Runtime, ...flags: string[]): Promise<number> {
    return runCommandLine(["demo", ...flags], io, { runtime });
  }

  it("tells a person the whole story, in its order, and ends with 0", async () => {
    const io = new FakeIo();
    timers = takeTimers(PATIENCE_MS);
    assertEquals(await run(io, systemRuntime()), 0, io.out + io.err);

    let at = 0;
    for (const part of STORY) {
      const found = io.out.indexOf(part, at);
      assert(found >= 0, `There is no "${part}" in what comes next:\n${io.out.slice(at)}`);
      at = found + part.length;
    }
    for (const entry of ["8080/tcp", "27015/udp", "25565/tcp"]) {
      assertStringIncludes(io.out, `\n${entry} -> 127.0.0.1:${entry.split("/")[0]} `);
    }
    assertEquals([io.err, timers.waiting], ["", 0]);
  });

  it("asks where no announcement comes, and says so", async () => {
    const io = new FakeIo();
    timers = takeTimers(PATIENCE_MS, 2 * PATIENCE_MS);
    const running = run(io, deaf());
    // Each client waits twice, until it asks and for as long again.
    for (const count of [6, 12]) {
      await timers.armed(count);
      timers.fire();
    }
    assertEquals(await running, 0, io.out + io.err);

    assertStringIncludes(io.err, "No announcement came (no multicast here?): asking.\n");
    assertStringIncludes(io.out, STORY.at(-1)!);
  });

  it("closes what it opened where it is interrupted", async () => {
    const io = new FakeIo();
    timers = takeTimers(PATIENCE_MS);
    const running = run(io, deaf(), "--json");
    await timers.armed(3);
    io.signal("SIGINT");

    assertEquals(await running, 130);
    assertEquals(io.events.at(-1)?.code, "interrupted");
    const vias = io.events.filter(({ event }) => event === "unmapped").map(({ via }) => via);
    assertEquals(vias.sort(), ["nat-pmp", "pcp", "upnp"]);
    assertEquals([timers.waiting, io.listeners], [0, 0]);
  });
});
