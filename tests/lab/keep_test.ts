/**
 * Keeping a port: signals, renewals, a gateway that restarts, an address that changes.
 *
 * @module
 */
import { assert, assertEquals } from "@std/assert";
import type { LabContext, LabTest } from "../../scripts/lab/main.ts";
import { ADDRESS } from "../../scripts/lab/topology.ts";
import { assertStatus, field, only, pause, table, until } from "./support.ts";

/** What users are promised after a restart of the gateway. */
const BACK_WITHIN_MS = 15_000;
/** A gateway that is younger cannot be told from one that did not restart (RFC 6887 §8.5). */
const OLD_ENOUGH_MS = 12_000;
/** A process's output takes this long to be seen on a busy machine. */
const SEEN_LATE_MS = 900;

async function signalled(
  { lab, natkit }: LabContext,
  signal: Deno.Signal,
  code: number,
): Promise<void> {
  const running = natkit.start("map", "6100/tcp", "--lifetime", "600");
  await running.event("mapped");
  assertEquals(await table(lab), [`TCP 6100->${ADDRESS.host}:6100`]);

  const done = await running.end(signal);

  assertStatus(done, code);
  only(done, "unmapped");
  assertEquals(await table(lab), []);
}

async function renewed({ natkit }: LabContext, via: "pcp" | "nat-pmp"): Promise<void> {
  const lifetimeMs = 12_000;
  const flags = ["--lifetime", String(lifetimeMs / 1000), "--via", via];
  const running = natkit.start("map", "6110/udp", ...flags);
  const mapped = await running.event("mapped");
  const startedAt = performance.now();
  assertEquals(field(mapped, "lifetimeSeconds"), lifetimeMs / 1000);

  const renewal = await running.event("renewed", lifetimeMs);

  const elapsedMs = performance.now() - startedAt;
  assertEquals(field(renewal, "external"), field(mapped, "external"));
  assert(elapsedMs >= lifetimeMs / 2 - SEEN_LATE_MS, `renewed after ${elapsedMs} ms`);
  assert(elapsedMs <= lifetimeMs * 5 / 8 + SEEN_LATE_MS, `renewed after ${elapsedMs} ms`);
  assertStatus(await running.end("SIGTERM"), 143);
}

export const tests: Record<string, LabTest> = {
  "SIGINT deletes the mapping and exits 130": (context) => signalled(context, "SIGINT", 130),
  "SIGTERM deletes the mapping and exits 143": (context) => signalled(context, "SIGTERM", 143),

  "a mapping is renewed at 1/2 to 5/8 of its lifetime by PCP": (context) => renewed(context, "pcp"),
  "a mapping is renewed at 1/2 to 5/8 of its lifetime by NAT-PMP": (context) =>
    renewed(context, "nat-pmp"),

  "a changed address is told, and the mapping kept": async ({ lab, natkit }) => {
    const running = natkit.start("map", "6120/tcp", "--lifetime", "600");
    await running.event("mapped");
    await pause(Math.max(0, OLD_ENOUGH_MS - lab.epochMs));
    try {
      await lab.setWanAddress(ADDRESS.otherWan);

      const moved = await running.event("moved");

      assertEquals(field(moved, "external"), { address: ADDRESS.otherWan, port: 6120 });
      assertEquals(await table(lab), [`TCP 6120->${ADDRESS.host}:6120`]);
    } finally {
      await lab.setWanAddress(ADDRESS.wan);
    }
    assertStatus(await running.end("SIGTERM"), 143);
    assertEquals(await table(lab), []);
  },

  "a restarted gateway gets every mapping back": async ({ lab, natkit }) => {
    const held = [
      natkit.start("map", "6130/tcp", "--lifetime", "3600", "--via", "pcp"),
      natkit.start("map", "6131/udp", "--lifetime", "3600"),
      natkit.start("map", "6132/tcp", "--lifetime", "3600"),
    ];
    for (const running of held) await running.event("mapped");
    const before = (await table(lab)).sort();
    assertEquals(before.length, 3);
    await pause(Math.max(0, OLD_ENOUGH_MS - lab.epochMs));

    await lab.restartMiniupnpd();

    const isBack = async () => (await table(lab)).sort().join() === before.join();
    await until(`${before} in the table`, isBack, BACK_WITHIN_MS);
    for (const running of held) assertStatus(await running.end("SIGTERM"), 143);
    assertEquals(await table(lab), []);
  },

  "a restarted gateway gets a NAT-PMP mapping back": async ({ lab, natkit }) => {
    const running = natkit.start("map", "6140/udp", "--lifetime", "3600", "--via", "nat-pmp");
    await running.event("mapped");
    const before = await table(lab);
    await pause(Math.max(0, OLD_ENOUGH_MS - lab.epochMs));

    await lab.restartMiniupnpd();

    const isBack = async () => (await table(lab)).join() === before.join();
    await until(`${before} in the table`, isBack, BACK_WITHIN_MS);
    assertStatus(await running.end("SIGTERM"), 143);
    assertEquals(await table(lab), []);
  },
};
