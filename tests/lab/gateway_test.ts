/**
 * The simulated gateway in the real one's place, asked by somebody else's client: Debian's natpmpc.
 *
 * @module
 */
import { assert, assertEquals } from "@std/assert";
import type { LabContext, LabTest } from "../../scripts/lab/main.ts";
import type { RunningNatkit } from "../../scripts/lab/natkit.ts";
import { ADDRESS, type Place } from "../../scripts/lab/topology.ts";
import { assertStatus } from "./support.ts";

/** Runs a test against `natkit gateway`; miniupnpd is back afterwards. */
async function inPlace(
  { lab, natkit }: LabContext,
  test: (gateway: RunningNatkit) => Promise<void>,
): Promise<void> {
  await lab.stopMiniupnpd();
  const flags = ["--listen", ADDRESS.gateway, "--external", ADDRESS.wan];
  const gateway = natkit.at("gw").start("gateway", ...flags);
  try {
    await gateway.event("listening");
    await test(gateway);
    await gateway.write("quit");
    assertStatus(await gateway.end(), 0);
  } finally {
    await gateway.end("SIGKILL");
    await lab.startMiniupnpd({ minLifetimeSeconds: 1 });
  }
}

/** What natpmpc says it got: the port and the lifetime. */
async function natpmpc(
  { lab }: LabContext,
  place: Place,
  ...args: string[]
): Promise<{ port: number; lifetime: number; said: string }> {
  const { stdout, stderr } = await lab.exec(place, ["natpmpc", ...args]);
  const granted = /Mapped public port (\d+) protocol \w+ to local port \d+ liftime (\d+)/;
  const [, port, lifetime] = granted.exec(stdout) ?? [];
  return { port: Number(port), lifetime: Number(lifetime), said: stdout + stderr };
}

export const tests: Record<string, LabTest> = {
  "natpmpc gets address, mapping, renewal, conflict, reboot and delete": (context) =>
    inPlace(context, async (gateway) => {
      const map = ["-a", "6300", "6300", "tcp", "600"];

      const address = await natpmpc(context, "host");
      assert(address.said.includes(`Public IP address : ${ADDRESS.wan}`), address.said);

      for (const what of ["mapped", "renewed"]) {
        const { port, lifetime, said } = await natpmpc(context, "host", ...map);
        assertEquals([port, lifetime], [6300, 600], `${what}: ${said}`);
      }

      const conflict = await natpmpc(context, "host2", ...map);
      assert(conflict.port > 0 && conflict.port !== 6300, conflict.said);

      await gateway.write("reboot");
      await gateway.event("scenario");
      const afterwards = await natpmpc(context, "host2", ...map);
      assertEquals(afterwards.port, 6300, afterwards.said);
      assert(/epoch = [0-2]\n/.test(afterwards.said), afterwards.said);

      const deleted = await natpmpc(context, "host2", "-a", "0", "6300", "tcp", "0");
      assertEquals([deleted.port, deleted.lifetime], [0, 0], deleted.said);
      await gateway.write("list");
      const { mappings } = await gateway.event("scenario");
      assertEquals(mappings, []);
    }),
};
