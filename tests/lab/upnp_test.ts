/**
 * UPnP IGD against miniupnpd, which is an IGD:2, or where it is told so an IGD:1.
 *
 * @module
 */
import { assert, assertEquals } from "@std/assert";
import type { MiniupnpdOptions } from "../../scripts/lab/miniupnpd.ts";
import type { LabContext, LabTest } from "../../scripts/lab/main.ts";
import { reach, serve } from "../../scripts/lab/traffic.ts";
import { ADDRESS } from "../../scripts/lab/topology.ts";
import { assertStatus, field, only, table, until, untilReached6 } from "./support.ts";

const ONCE = ["--mode", "once", "--lifetime", "600"];

/** Runs with the gateway as these say, then as it was. */
async function withGateway(
  { lab }: LabContext,
  options: MiniupnpdOptions,
  test: () => Promise<void>,
): Promise<void> {
  await lab.restartMiniupnpd({ minLifetimeSeconds: 1, ...options });
  try {
    await test();
  } finally {
    await lab.restartMiniupnpd({ minLifetimeSeconds: 1 });
  }
}

/** Maps, is reached, is listed, unmaps, is reached no more. */
async function mapListUnmap(
  { lab, natkit }: LabContext,
  protocol: "tcp" | "udp",
  flags: readonly string[],
): Promise<void> {
  const port = 6000;
  const outside = { address: ADDRESS.wan, port };
  const server = await serve(lab, "host", protocol, port);
  try {
    assertEquals(await reach(lab, "pub", protocol, outside), "silence");

    const done = await natkit.run("map", `${port}/${protocol}`, ...ONCE, ...flags);

    assertStatus(done, 0);
    const mapped = only(done, "mapped");
    assertEquals(field(mapped, "via"), "upnp");
    assertEquals(field(mapped, "internal"), { address: ADDRESS.host, port });
    assertEquals(field(mapped, "external"), outside);
    assertEquals(field(mapped, "lifetimeSeconds"), 600);
    assertEquals(await table(lab), [`${protocol.toUpperCase()} ${port}->${ADDRESS.host}:${port}`]);
    assertEquals(await reach(lab, "pub", protocol, outside), ADDRESS.pub);

    const listed = await natkit.run("list");

    assertStatus(listed, 0);
    const entry = only(listed, "mapping");
    assertEquals([entry["protocol"], field(entry, "external.port"), entry["internal"]], [
      protocol,
      port,
      { address: ADDRESS.host, port },
    ]);

    const undone = await natkit.run("unmap", `${port}/${protocol}`, ...flags);

    assertStatus(undone, 0);
    assertEquals(field(only(undone, "unmapped"), "via"), "upnp");
    assertEquals(await table(lab), []);
  } finally {
    server.signal("SIGKILL");
  }
}

/** Opens a pinhole, is reached, renews it, closes it, is reached no more. */
async function pinhole({ lab, natkit }: LabContext, protocol: "tcp" | "udp"): Promise<void> {
  const port = 6210;
  const target = { address: ADDRESS.host6, port };
  const flags = ["--via", "upnp", "--internal-address", ADDRESS.host6];
  const isReached = () => untilReached6(lab, protocol, target, "being reached");
  const server = await serve(lab, "host", protocol, port);
  try {
    assertEquals(await reach(lab, "pub", protocol, target), "silence");

    const holding = natkit.start("map", `${port}/${protocol}`, "--lifetime", "9", ...flags);
    const mapped = await holding.event("mapped");
    assertEquals([field(mapped, "via"), mapped["internal"], mapped["external"]], [
      "upnp",
      target,
      target,
    ]);
    await isReached();
    await holding.event("renewed", 10_000);
    const { code } = await holding.end("SIGTERM");

    assertEquals(code, 143);
    assertEquals(await reach(lab, "pub", protocol, target), "silence");

    assertStatus(await natkit.run("map", `${port}/${protocol}`, ...ONCE, ...flags), 0);
    await isReached();
    assertStatus(await natkit.run("unmap", `${port}/${protocol}`, ...flags), 0);
    assertEquals(await reach(lab, "pub", protocol, target), "silence");
  } finally {
    server.signal("SIGKILL");
  }
}

export const tests: Record<string, LabTest> = {
  "UPnP: map, list and unmap a TCP port at an IGD:2": (context) =>
    mapListUnmap(context, "tcp", ["--via", "upnp"]),
  "UPnP: map, list and unmap a UDP port at an IGD:2": (context) =>
    mapListUnmap(context, "udp", ["--via", "upnp"]),
  "UPnP: map, list and unmap at an IGD:1": (context) =>
    withGateway(context, { isIgd1: true }, () => mapListUnmap(context, "udp", ["--via", "upnp"])),
  "UPnP: it is taken by itself where nothing else is spoken": (context) =>
    withGateway(context, { natPmp: false }, () => mapListUnmap(context, "tcp", [])),

  "UPnP: a port that another host holds is left to it": async ({ lab, natkit }) => {
    await lab.exec("host2", ["natpmpc", "-a", "6001", "6001", "tcp", "600"]);

    const done = await natkit.run("map", "6001/tcp", "--via", "upnp", ...ONCE);

    assertStatus(done, 0);
    const external = Number(field(only(done, "mapped"), "external.port"));
    assert(external !== 6001, done.said);
    assertEquals(
      (await table(lab)).sort(),
      [`TCP ${external}->${ADDRESS.host}:6001`, `TCP 6001->${ADDRESS.host2}:6001`].sort(),
    );
    const flags = ["--external-port", "6001", "--prefer-failure"];
    const insisting = await natkit.run("map", "6003/tcp", "--via", "upnp", ...ONCE, ...flags);
    assertStatus(insisting, 1);
    assertEquals(only(insisting, "error")["code"], "refused", insisting.said);
    assertStatus(await natkit.run("unmap", "6001/tcp"), 0);
    await lab.exec("host2", ["natpmpc", "-a", "6001", "6001", "tcp", "0"]);
    assertEquals(await table(lab), []);
  },

  "UPnP: without a state file the table tells which port to unmap": async ({ lab, natkit }) => {
    const flags = ["--external-port", "16004", "--via", "upnp"];
    assertStatus(await natkit.run("map", "6004/tcp", ...ONCE, ...flags), 0);
    assertEquals(await table(lab), [`TCP 16004->${ADDRESS.host}:6004`]);

    const state = ["--state", `${lab.folder}/another.json`];
    assertStatus(await natkit.run("unmap", "6004/tcp", "--via", "upnp", ...state), 0);

    assertEquals(await table(lab), []);
    await natkit.run("unmap", "6004/tcp", "--via", "upnp");
  },

  "UPnP: a mapping stays through a restart, and tells another address": async (context) => {
    const { lab, natkit } = context;
    await withGateway(context, { natPmp: false }, async () => {
      const holding = natkit.start("map", "6007/tcp", "--lifetime", "3600");
      assertEquals(field(await holding.event("mapped"), "via"), "upnp");
      const row = `TCP 6007->${ADDRESS.host}:6007`;

      await lab.restartMiniupnpd();
      assertEquals(await table(lab), []);
      await until("the mapping again", async () => (await table(lab)).includes(row), 15_000);

      await lab.setWanAddress(ADDRESS.otherWan);
      try {
        const moved = await holding.event("moved", 15_000);
        assertEquals(moved["external"], { address: ADDRESS.otherWan, port: 6007 });
      } finally {
        await lab.setWanAddress(ADDRESS.wan);
      }
      const { code } = await holding.end("SIGTERM");
      assertEquals(code, 143);
      assertEquals(await table(lab), []);
    });
  },

  "UPnP: a UDP pinhole over IPv6": (context) => pinhole(context, "udp"),
  "UPnP: a TCP pinhole over IPv6": (context) => pinhole(context, "tcp"),

  "UPnP: the external address": async ({ natkit }) => {
    const done = await natkit.run("address", "--via", "upnp");

    assertStatus(done, 0);
    const address = only(done, "address");
    assertEquals([address["via"], address["address"]], ["upnp", ADDRESS.wan]);
  },
};
