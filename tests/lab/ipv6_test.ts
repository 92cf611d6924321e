/**
 * IPv6: a pinhole in the gateway's firewall, by PCP over IPv6 from the host's global address.
 *
 * @module
 */
import { assertEquals } from "@std/assert";
import type { LabContext, LabTest } from "../../scripts/lab/main.ts";
import { reach, serve } from "../../scripts/lab/traffic.ts";
import { ADDRESS, HOST_INTERFACE } from "../../scripts/lab/topology.ts";
import { assertStatus, field, only } from "./support.ts";

async function pinhole({ lab, natkit }: LabContext, protocol: "tcp" | "udp"): Promise<void> {
  const port = 6200;
  const target = { address: ADDRESS.host6, port };
  const gateway = ["--via", "pcp", "--gateway", `[${ADDRESS.gateway6}%${HOST_INTERFACE}]:5351`];
  const server = await serve(lab, "host", protocol, port);
  try {
    assertEquals(await reach(lab, "pub", protocol, target), "silence");

    const once = ["--lifetime", "600", "--mode", "once"];
    const done = await natkit.run("map", `${port}/${protocol}`, ...once, ...gateway);

    assertStatus(done, 0);
    const mapped = only(done, "mapped");
    assertEquals(field(mapped, "internal"), target);
    assertEquals(field(mapped, "external"), target);
    assertEquals(await reach(lab, "pub", protocol, target), ADDRESS.pub6);

    assertStatus(await natkit.run("unmap", `${port}/${protocol}`, ...gateway), 0);
    assertEquals(await reach(lab, "pub", protocol, target), "silence");
  } finally {
    server.signal("SIGKILL");
  }
}

export const tests: Record<string, LabTest> = {
  "a TCP pinhole over IPv6": (context) => pinhole(context, "tcp"),
  "a UDP pinhole over IPv6": (context) => pinhole(context, "udp"),
};
