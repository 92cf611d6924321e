/**
 * The change listener: `natkit watch` tells the whole set of a port's addresses at each change.
 *
 * @module
 */
import { assert, assertEquals, assertNotEquals } from "@std/assert";
import type { LabContext, LabTest } from "../../scripts/lab/main.ts";
import type { Event, RunningNatkit } from "../../scripts/lab/natkit.ts";
import { reach, serve } from "../../scripts/lab/traffic.ts";
import { ADDRESS } from "../../scripts/lab/topology.ts";
import { behindTwoNats } from "./doctor_test.ts";
import { assertStatus, pause, table, until, untilReached6 } from "./support.ts";

/** What users are promised after a change. */
const TOLD_WITHIN_MS = 15_000;
/** A gateway that is younger cannot be told from one that did not restart (RFC 6887 §8.5). */
const OLD_ENOUGH_MS = 12_000;
/** Within this what a change leads to has been told. */
const SETTLED_MS = 3000;

/** A set as words: `local 192.168.77.10:6000`. */
function wordsOf({ assignments }: Event): string[] {
  return (assignments as { address: string; port: number; via: string }[])
    .map(({ address, port, via }) => `${via} ${address}:${port}`);
}

/**
 * Whether a pinhole is left, since miniupnpd keeps those that were renewed. Else the last change that
 * is told is that nothing is mapped any more.
 */
function isKept({ said }: { readonly said: string }): boolean {
  return said.includes("did not close the port");
}

const LOCAL = [`local ${ADDRESS.host}:6200`, `local ${ADDRESS.host6}:6200`];
/** PCP opens the firewall for the host's own IPv6 address. */
const PINHOLE = `pcp ${ADDRESS.host6}:6200`;

/** Runs a command that opens 6230/tcp behind two NATs, and ends it once `isTold` has seen that. */
function throughBoth(
  context: LabContext,
  command: readonly string[],
  isTold: (running: RunningNatkit) => Promise<void>,
): Promise<void> {
  return behindTwoNats(context, async () => {
    const { lab, natkit } = context;
    const flags = ["--listen", "10.9.0.1", "--external", ADDRESS.host2, "--forward"];
    const inner = natkit.at("host2").start("gateway", ...flags);
    const server = await serve(lab, "host", "tcp", 6230);
    try {
      await inner.event("listening");
      const running = natkit.start(...command);
      await isTold(running);
      assertEquals(await table(lab), [`TCP 6230->${ADDRESS.host2}:6230`]);
      const to = { address: ADDRESS.wan, port: 6230 };
      // The inner gateway opens what it relays a moment after it has granted it.
      const isReached = async () => (await reach(lab, "pub", "tcp", to)) !== "silence";
      await until("the port being reached through both", isReached, TOLD_WITHIN_MS);
      assertStatus(await running.end("SIGTERM"), 143);
      assertEquals(await table(lab), []);
      assertEquals(await reach(lab, "pub", "tcp", to), "silence");
    } finally {
      server.signal("SIGKILL");
      await inner.end("SIGKILL");
    }
  });
}

export const tests: Record<string, LabTest> = {
  "behind two NATs a watched port is mapped at both, and reached from outside": (context) =>
    throughBoth(context, ["watch", "6230/tcp"], async (running) => {
      const outside = `${ADDRESS.wan}:6230`;
      let words: string[] = [];
      while (!words.some((word) => word.endsWith(outside))) {
        words = wordsOf(await running.event("assignments", TOLD_WITHIN_MS));
      }
      assert(words.some((word) => word.endsWith(`${ADDRESS.host2}:6230`)), words.join());
    }),

  "behind two NATs a port is mapped through both, and told as it is reached": (context) =>
    throughBoth(context, ["map", "6230/tcp"], async (running) => {
      const { internal, gateway, gatewayExternal, external } = await running.event("mapped");
      assertEquals({ internal, gatewayExternal, external }, {
        internal: { address: "10.9.0.10", port: 6230 },
        gatewayExternal: { address: ADDRESS.host2, port: 6230 },
        external: { address: ADDRESS.wan, port: 6230 },
      });
      assert(String(gateway).startsWith("10.9.0.1"), String(gateway));
    }),

  "a watched port follows the gateway from protocol to protocol": async ({ lab, natkit }) => {
    const running = natkit.start("watch", "6200/tcp", "--lifetime", "3600");
    const external = async () => {
      const event = await running.event("assignments", TOLD_WITHIN_MS);
      return wordsOf(event).filter((word) => !word.startsWith("local") && word !== PINHOLE);
    };
    const row = `TCP 6200->${ADDRESS.host}:6200`;
    try {
      assertEquals(await external(), []);
      assertEquals(await external(), [`pcp ${ADDRESS.wan}:6200`]);

      await pause(Math.max(0, OLD_ENOUGH_MS - lab.epochMs));
      await lab.restartMiniupnpd({ minLifetimeSeconds: 1, natPmp: false });
      assertEquals(await external(), [`upnp ${ADDRESS.wan}:6200`]);
      assertEquals(await table(lab), [row]);

      await pause(OLD_ENOUGH_MS);
      await lab.restartMiniupnpd({ minLifetimeSeconds: 1 });
      const isBack = async () => (await table(lab)).join() === row;
      await until("the mapping in the table", isBack, TOLD_WITHIN_MS);

      await pause(OLD_ENOUGH_MS);
      await lab.setWanAddress(ADDRESS.otherWan);
      const [moved] = await external();
      assertEquals(moved?.split(" ")[1], `${ADDRESS.otherWan}:6200`);
    } finally {
      await lab.setWanAddress(ADDRESS.wan);
    }
    const done = await running.end("SIGTERM");
    assertStatus(done, 143);
    assertEquals(done.events.slice(4).map(wordsOf), isKept(done) ? [] : [LOCAL], done.said);
    assertEquals(await table(lab), []);
  },

  "a mapped TCP server and UDP socket are reached from outside": async ({ lab, probes }) => {
    for (const [way, command] of Object.entries(probes)) {
      if (way === "Deno with few permissions") continue;
      const server = lab.spawn("host", [...command, "serve", "6210"]);
      try {
        await server.line((line) => line === '"ready"');
        for (const protocol of ["tcp", "udp"] as const) {
          const to = { address: lab.wanAddress, port: 6210 };
          const from = await reach(lab, "pub", protocol, to);
          assertEquals(from, ADDRESS.pub, `${way} ${protocol} ${to.address}:\n${server.said()}`);
          const what = `${way}'s ${protocol} being reached over IPv6`;
          await untilReached6(lab, protocol, { address: ADDRESS.host6, port: 6210 }, what);
        }
      } finally {
        server.signal("SIGKILL");
        await server.status;
        for (const protocol of ["TCP", "UDP"]) {
          await lab.exec("host", ["upnpc", "-d", "6210", protocol]);
        }
        await lab.restartMiniupnpd();
      }
    }
  },

  "a watched port: each change is one line with the whole new set": async ({ lab, natkit }) => {
    const running = natkit.start("watch", "6200/tcp", "--lifetime", "3600");
    const told: string[][] = [];
    /** Sets on the way there may be told as well: on a busy machine one gateway is slower. */
    const becomes = async (expected: readonly (string | undefined)[]) => {
      let set: string[];
      do {
        set = wordsOf(await running.event("assignments", TOLD_WITHIN_MS));
        told.push(set);
      } while (set.join() !== expected.join());
    };
    try {
      await becomes(LOCAL);
      await becomes([...LOCAL, `pcp ${ADDRESS.wan}:6200`, PINHOLE]);
      assertEquals(await table(lab), [`TCP 6200->${ADDRESS.host}:6200`]);

      await pause(Math.max(0, OLD_ENOUGH_MS - lab.epochMs));
      await lab.setWanAddress(ADDRESS.otherWan);
      await becomes([...LOCAL, `pcp ${ADDRESS.otherWan}:6200`, PINHOLE]);

      // A restart that gives all of it back changes nothing; one with another address does.
      await pause(OLD_ENOUGH_MS);
      await lab.restartMiniupnpd();
      await pause(SETTLED_MS);
      await lab.setWanAddress(ADDRESS.wan);
      await becomes([...LOCAL, `pcp ${ADDRESS.wan}:6200`, PINHOLE]);
      assertEquals(await table(lab), [`TCP 6200->${ADDRESS.host}:6200`]);

      const second = `192.168.77.99`;
      const ip = (what: string) =>
        lab.exec("host", ["ip", "addr", what, `${second}/24`, "dev", "eth0"]);
      await ip("add");
      const [first, ...others] = LOCAL;
      await becomes([
        first,
        `local ${second}:6200`,
        ...others,
        `pcp ${ADDRESS.wan}:6200`,
        PINHOLE,
      ]);
      await ip("del");
      await becomes([...LOCAL, `pcp ${ADDRESS.wan}:6200`, PINHOLE]);
    } finally {
      await lab.setWanAddress(ADDRESS.wan);
    }
    const done = await running.end("SIGTERM");
    assertStatus(done, 143);
    assertEquals(done.events.map(wordsOf), isKept(done) ? told : [...told, LOCAL], done.said);
    told.forEach((set, i) => assertNotEquals(set, told[i - 1]));
    assertEquals(await table(lab), []);
  },
};
