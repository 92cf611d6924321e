/** The demonstration on a clock that runs ahead, on loopback. */
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

/** This runtime, on which ten seconds are one. */
function hurried(): Runtime {
  const system = systemRuntime();
  return {
    ...system,
    now: () => 10 * system.now(),
    setTimer: (ms, callback, keepAlive) => system.setTimer(ms / 10, callback, keepAlive),
  };
}

/** The same, where nothing that is told to a group is heard. */
function deaf(): Runtime {
  const runtime = hurried();
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
    assertEquals(await run(io, hurried()), 0, io.out + io.err);

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

  it("tells readers of JSON each event with its fields", async () => {
    const io = new FakeIo();
    timers = takeTimers(PATIENCE_MS);
    assertEquals(await run(io, hurried(), "--json"), 0, io.out + io.err);

    const of = (name: string) => io.events.filter(({ event }) => event === name);
    const [{ address, port }] = of("listening") as [Record<string, unknown>];
    const [mapped] = of("mapped");
    assertEquals(mapped, {
      event: "mapped",
      protocol: "tcp",
      via: "pcp",
      gateway: `${address}:${port}`,
      internal: { address: "127.0.0.1", port: 8080 },
      external: { address: "203.0.113.7", port: 8080 },
      lifetimeSeconds: 7200,
      elapsedMs: mapped!.elapsedMs,
    });
    const unmapped = of("unmapped");
    assertEquals(unmapped.map(({ via }) => via).sort(), ["nat-pmp", "pcp", "upnp"]);
    const own = unmapped.find(({ via }) => via === "pcp")!;
    assertEquals(own, {
      event: "unmapped",
      protocol: "tcp",
      via: "pcp",
      gateway: `${address}:${port}`,
      internal: { address: "127.0.0.1", port: 8080 },
      external: { address: "198.51.100.9", port: 8080 },
      reason: "revoked",
      elapsedMs: own.elapsedMs,
    });
    assertEquals(of("mapping").length, 3);
  });

  it("asks where no announcement comes, and says so", async () => {
    const io = new FakeIo();
    timers = takeTimers(PATIENCE_MS);
    const running = run(io, deaf());
    // Each client waits twice.
    for (const count of [3, 6]) {
      await timers.armed(count);
      timers.fire();
    }
    assertEquals(await running, 0, io.out + io.err);

    assertStringIncludes(io.err, "No announcement came (no multicast here?): asking.\n");
    assertEquals(io.out.split("moved    198.51.100.9:").length, 4);
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
