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
/** How long a client waits for the answers to its last deletions. */
const CLOSING_MS = 1500;

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

/** This runtime, where nothing that is told to a group is heard, and nothing sent where `isMute`. */
function deaf(isMute: () => boolean = () => false): Runtime {
  const runtime = systemRuntime();
  return {
    ...runtime,
    openUdp: async (options, handlers) => {
      const socket = options.multicast
        ? await runtime.openUdp({}, { ...handlers, onDatagram() {} })
        : await runtime.openUdp(options, handlers);
      return { ...socket, send: (data, to) => isMute() || socket.send(data, to) };
    },
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
    timers = takeTimers(PATIENCE_MS, 2 * PATIENCE_MS);
    const system = systemRuntime();
    const delays: number[] = [];
    // Chance is as unkind as it can be, and nobody waits for the five seconds that this may take.
    const runtime: Runtime = {
      ...system,
      random: { u32: () => 0xffff_ffff, fill: (bytes) => system.random.fill(bytes) },
      setTimer: (ms, callback, keepAlive) => {
        delays.push(ms);
        return system.setTimer(ms, callback, keepAlive);
      },
    };
    assertEquals(await run(io, runtime), 0, io.out + io.err);
    assertEquals(delays.filter((ms) => ms > 3500 && ms < 5100), []);

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

  it("goes on where nobody answers either, and tells what is left", async () => {
    const io = new FakeIo();
    timers = takeTimers(PATIENCE_MS, 2 * PATIENCE_MS, CLOSING_MS);
    let isMute = false, status: number | undefined;
    void run(io, deaf(() => isMute)).then((it) => status = it);
    await timers.armed(6);
    timers.fire();
    // Once it is mapped again nothing gets through any more.
    await io.until(({ out }) => out.split(" by PCP at ").length > 2);
    isMute = true;
    while (status === undefined) {
      timers.fire();
      await new Promise((resolve) => setTimeout(resolve, 1));
    }
    assertEquals(status, 1, io.out + io.err);
    assert(/\nThe gateway's table has [123] entries\. That is all\.\n$/.test(io.out), io.out);
  });

  it("ends at once where it is interrupted while a port is asked for", async () => {
    const io = new FakeIo();
    // By the clock on the wall nobody gives up.
    timers = takeTimers(10_000);
    const running = run(io, deaf(() => true), "--json");
    await timers.armed(1);
    io.signal("SIGINT");

    assertEquals(await running, 130);
    assertEquals(io.events.map(({ event, code }) => code ?? event), ["listening", "interrupted"]);
    assertEquals([timers.waiting, io.listeners], [0, 0]);
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
