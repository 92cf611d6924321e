/**
 * Mapping a port for good: `map --mode once` and `unmap` against a real gateway, seen by the
 * gateway's own table and by packets from a public host.
 *
 * @module
 */
import { assert, assertEquals } from "@std/assert";
import type { LabContext, LabTest } from "../../scripts/lab/main.ts";
import { reach, serve } from "../../scripts/lab/traffic.ts";
import { ADDRESS } from "../../scripts/lab/topology.ts";
import { assertStatus, field, only, table } from "./support.ts";

/** Maps, is reached, unmaps, is reached no more. */
async function mapOnce(
  { lab, natkit }: LabContext,
  protocol: "tcp" | "udp",
  via: "pcp" | "nat-pmp" | undefined,
): Promise<void> {
  const port = 6000;
  const flags = via === undefined ? [] : ["--via", via];
  const row = `${protocol.toUpperCase()} ${port}->${ADDRESS.host}:${port}`;
  const outside = { address: ADDRESS.wan, port };
  const server = await serve(lab, "host", protocol, port);
  try {
    assertEquals(await reach(lab, "pub", protocol, outside), "silence");

    const once = ["--lifetime", "600", "--mode", "once"];
    const done = await natkit.run("map", `${port}/${protocol}`, ...once, ...flags);

    assertStatus(done, 0);
    const mapped = only(done, "mapped");
    assertEquals(field(mapped, "protocol"), protocol);
    assertEquals(field(mapped, "via"), via ?? "pcp");
    assert(String(field(mapped, "gateway")).startsWith(ADDRESS.gateway), done.said);
    assertEquals(field(mapped, "internal"), { address: ADDRESS.host, port });
    assertEquals(field(mapped, "external"), outside);
    assertEquals(field(mapped, "lifetimeSeconds"), 600);
    assert(Number(field(mapped, "elapsedMs")) > 0, done.said);
    assertEquals(await table(lab), [row]);
    assertEquals(await reach(lab, "pub", protocol, outside), ADDRESS.pub);

    const undone = await natkit.run("unmap", `${port}/${protocol}`, ...flags);

    assertStatus(undone, 0);
    only(undone, "unmapped");
    assertEquals(await table(lab), []);
  } finally {
    server.signal("SIGKILL");
  }
}

export const tests: Record<string, LabTest> = {
  "map and unmap a TCP port": (context) => mapOnce(context, "tcp", undefined),
  "map and unmap a UDP port": (context) => mapOnce(context, "udp", undefined),
  "map and unmap a TCP port by PCP": (context) => mapOnce(context, "tcp", "pcp"),
  "map and unmap a UDP port by PCP": (context) => mapOnce(context, "udp", "pcp"),
  "map and unmap a TCP port by NAT-PMP": (context) => mapOnce(context, "tcp", "nat-pmp"),
  "map and unmap a UDP port by NAT-PMP": (context) => mapOnce(context, "udp", "nat-pmp"),

  "a port that another host holds is mapped to another one": async ({ lab, natkit }) => {
    await lab.exec("host2", ["natpmpc", "-a", "6001", "6001", "tcp", "600"]);

    const done = await natkit.run("map", "6001/tcp", "--mode", "once", "--lifetime", "600");

    assertStatus(done, 0);
    const external = Number(field(only(done, "mapped"), "external.port"));
    assert(external !== 6001, done.said);
    assertEquals(
      (await table(lab)).sort(),
      [`TCP ${external}->${ADDRESS.host}:6001`, "TCP 6001->192.168.77.11:6001"].sort(),
    );
    assertStatus(await natkit.run("unmap", "6001/tcp"), 0);
    await lab.exec("host2", ["natpmpc", "-a", "6001", "6001", "tcp", "0"]);
    assertEquals(await table(lab), []);
  },

  "the external port that was asked for is given": async ({ lab, natkit }) => {
    const flags = ["--external-port", "16002", "--mode", "once", "--lifetime", "600"];

    const done = await natkit.run("map", "6002/udp", ...flags);

    assertStatus(done, 0);
    assertEquals(field(only(done, "mapped"), "external.port"), 16002);
    assertEquals(await table(lab), [`UDP 16002->${ADDRESS.host}:6002`]);
    assertStatus(await natkit.run("unmap", "6002/udp"), 0);
    assertEquals(await table(lab), []);
  },

  "a port the gateway does not give is refused with its words": async ({ lab, natkit }) => {
    const flags = ["--external-port", "80", "--prefer-failure", "--mode", "once"];

    const done = await natkit.run("map", "6005/tcp", "--via", "pcp", ...flags);

    assertStatus(done, 1);
    const error = only(done, "error");
    assertEquals(error["code"], "refused", done.said);
    assert(/CANNOT_PROVIDE_EXTERNAL|NOT_AUTHORIZED/.test(String(error["message"])), done.said);
    assertEquals(await table(lab), []);
  },

  "the external address, by each protocol": async ({ natkit }) => {
    for (const via of ["pcp", "nat-pmp"]) {
      const done = await natkit.run("address", "--via", via);

      assertStatus(done, 0);
      const address = only(done, "address");
      assertEquals([address["via"], address["address"]], [via, ADDRESS.wan]);
    }
  },

  "an outbound mapping by PCP's PEER": async ({ natkit }) => {
    const remote = [ADDRESS.pub, "7777"];

    const done = await natkit.run("peer", "6003/udp", ...remote, "--mode", "once");

    assertStatus(done, 0);
    const mapped = only(done, "mapped");
    assertEquals(field(mapped, "remote"), { address: ADDRESS.pub, port: 7777 });
    assertEquals(field(mapped, "external.address"), ADDRESS.wan);
  },

  "a gateway that is not there fails with what was tried": async ({ runtime, natkit }) => {
    const done = await natkit.run("map", "6004/tcp", "--gateway", ADDRESS.host2);

    assertStatus(done, 1);
    const error = done.events.at(-1);
    assertEquals(error?.event, "error", done.said);
    const attempts = (error?.["attempts"] ?? []) as { via: string; outcome: string }[];
    const outcomes = attempts.filter(({ via }) => via !== "upnp").map(({ outcome }) => outcome);
    // The host says that nobody listens; Deno does not hand that on, and waits.
    const said = runtime === "Deno" ? "no answer" : "unreachable";
    assertEquals(outcomes, [said, said], done.said);
  },
};
