/**
 * The simulated gateway in the real one's place, asked by other people's clients: Debian's natpmpc,
 * upnpc, gssdp-discover, transmission-cli and libtorrent.
 *
 * @module
 */
import { assert, assertEquals } from "@std/assert";
import type { LabContext, LabTest } from "../../scripts/lab/main.ts";
import type { RunningNatkit } from "../../scripts/lab/natkit.ts";
import { ADDRESS, type Place } from "../../scripts/lab/topology.ts";
import { assertStatus, field } from "./support.ts";

const ON_LAN = ["--listen", ADDRESS.gateway];

/** Runs a test against `natkit gateway`; miniupnpd is back afterwards. */
async function inPlace(
  { lab, natkit }: LabContext,
  test: (gateway: RunningNatkit, descriptions: readonly string[]) => Promise<void>,
  flags: readonly string[] = ON_LAN,
): Promise<void> {
  await lab.stopMiniupnpd();
  const gateway = natkit.at("gw").start("gateway", "--external", ADDRESS.wan, ...flags);
  try {
    const { descriptions } = await gateway.event("listening");
    await test(gateway, descriptions as readonly string[]);
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

/** What upnpc says, and whether it is content. */
async function upnpc(
  { lab }: LabContext,
  place: Place,
  ...args: string[]
): Promise<{ code: number; said: string }> {
  const { code, stdout, stderr } = await lab.exec(place, ["upnpc", ...args]);
  return { code, said: stdout + stderr };
}

function assertSays({ said }: { readonly said: string }, ...texts: readonly string[]): void {
  for (const text of texts) assert(said.includes(text), `"${text}" in:\n${said}`);
}

/** Both mappings of a port, TCP and UDP, as the gateway tells of them. */
async function bothMapped(gateway: RunningNatkit, via: string, port: number): Promise<void> {
  const protocols = new Set<unknown>();
  while (protocols.size < 2) {
    const mapping = await gateway.event("mapping", 30_000);
    assertEquals([mapping["via"], field(mapping, "internal")], [
      via,
      { address: ADDRESS.host, port },
    ]);
    assertEquals(field(mapping, "external.address"), ADDRESS.wan);
    if (mapping["change"] === "added") protocols.add(mapping["protocol"]);
  }
}

/** Maps its port by one protocol, and ends. */
const LIBTORRENT = `
import sys, time
import libtorrent
via, address, port = sys.argv[1:]
session = libtorrent.session({
    "listen_interfaces": address + ":" + port,
    "enable_upnp": via == "upnp",
    "enable_natpmp": via == "nat-pmp",
    "enable_dht": False,
    "enable_lsd": False,
    "alert_mask": libtorrent.alert.category_t.port_mapping_notification,
})
mapped = 0
end = time.time() + 30
while mapped < 2 and time.time() < end:
    session.wait_for_alert(200)
    for alert in session.pop_alerts():
        if isinstance(alert, libtorrent.portmap_alert):
            mapped += 1
            print(alert.message(), flush=True)
`;

export const tests: Record<string, LabTest> = {
  "upnpc finds it, maps, lists and deletes as it does at miniupnpd": (context) =>
    inPlace(context, async (_gateway, [description]) => {
      const status = await upnpc(context, "host", "-s");
      assertSays(
        status,
        `desc: ${description}`,
        "Found valid IGD",
        "Status : Connected",
        `ExternalIPAddress = ${ADDRESS.wan}`,
      );
      const ask = (...args: string[]) => upnpc(context, "host", "-u", description!, ...args);

      assertSays(
        await ask("-a", ADDRESS.host, "6000", "6001", "TCP", "600"),
        `external ${ADDRESS.wan}:6001 TCP is redirected to internal ${ADDRESS.host}:6000 (duration=600)`,
      );
      assertSays(
        await ask("-r", "6002", "TCP", "6003", "6004", "UDP"),
        `external ${ADDRESS.wan}:6002 TCP is redirected to internal ${ADDRESS.host}:6002`,
        `external ${ADDRESS.wan}:6004 UDP is redirected to internal ${ADDRESS.host}:6003`,
      );
      const rows = [
        `TCP  6001->${ADDRESS.host}:6000`,
        `TCP  6002->${ADDRESS.host}:6002`,
        `UDP  6004->${ADDRESS.host}:6003`,
      ];
      assertSays(await ask("-l"), ...rows);
      assertSays(await ask("-L"), ...rows);

      const theirs = (...args: string[]) => upnpc(context, "host2", "-u", description!, ...args);
      const map = [ADDRESS.host2, "6000", "6001", "TCP", "600"];
      assertSays(await theirs("-a", ...map), "failed with code 718");
      assertSays(await theirs("-n", ...map), `TCP is redirected to internal ${ADDRESS.host2}:6000`);
      assertSays(await theirs("-d", "6001", "TCP"), "failed with code : 606");
      assertSays(
        await ask("-a", ADDRESS.host2, "6000", "6010", "TCP", "600"),
        "failed with code 606",
      );

      assertSays(await ask("-d", "6001", "TCP"), "UPNP_DeletePortMapping() returned : 0");
      assertSays(await ask("-d", "6001", "TCP"), "714");
      assertSays(await ask("-N", "6000", "7000", "UDP"), "returned : 0");
      const { said } = await ask("-l");
      assert(!said.includes("6001->") && !said.includes("6004->"), said);
      assertSays({ said }, rows[1]!);
      assertSays(await ask("-P"), description!.replace("rootDesc.xml", ""));
    }),

  "upnpc opens, renews, counts and closes a pinhole": (context) =>
    inPlace(context, async (gateway, descriptions) => {
      const description = descriptions.find((url) => url.includes("[2001:"))!;
      const ask = (...args: string[]) => upnpc(context, "host", "-6", "-u", description, ...args);

      assertSays(await ask("-S"), "Firewall Enabled: Yes", "Inbound Pinhole Allowed: Yes");
      const opened = await ask("-A", "::", "0", ADDRESS.host6, "8080", "tcp", "600");
      const [, id = ""] = /Pinhole ID = (\d+)/.exec(opened.said) ?? [];
      assert(id !== "", opened.said);
      const mapping = await gateway.event("mapping");
      assertEquals([mapping["via"], mapping["internal"], mapping["lifetimeSeconds"]], [
        "upnp",
        { address: ADDRESS.host6, port: 8080 },
        600,
      ]);
      assertSays(await ask("-U", id, "700"), "with Lease Time: 700");
      assertSays(await ask("-K", id), "PinholePackets = 0");
      assertSays(await ask("-C", id), "709");
      assertSays(await ask("-D", id), "UPNP_DeletePinhole() returned : 0");
      assertSays(await ask("-K", id), "704");
      const foreign = await ask("-A", "::", "0", "2001:db8:a::11", "8080", "tcp", "600");
      assertSays(foreign, "606");
    }, []),

  "a reboot is heard on the LAN, though no route of the gateway leads to the Internet": (context) =>
    inPlace(context, async (gateway) => {
      const mapping = context.natkit.start("map", "6000", "--gateway", ADDRESS.gateway);
      try {
        await mapping.event("mapped");
        await gateway.write("reboot");
        await mapping.event("renewed");
        assertStatus(await mapping.end("SIGINT"), 130);
      } finally {
        await mapping.end("SIGKILL");
      }
    }, []),

  "gssdp-discover finds each device and service of it": (context) =>
    inPlace(context, async (_gateway, [description]) => {
      const search = ["gssdp-discover", "-i", "eth0", "-n", "3", "-m", "available"];
      const { stdout } = await context.lab.exec("host", search);
      assertSays(
        { said: stdout },
        "::upnp:rootdevice",
        "::urn:schemas-upnp-org:device:InternetGatewayDevice:2",
        "::urn:schemas-upnp-org:service:WANIPConnection:2",
        "::urn:schemas-upnp-org:service:WANIPv6FirewallControl:1",
        `Location: ${description}`,
      );
    }),

  "transmission-cli maps its port by UPnP, and by NAT-PMP": async (context) => {
    for (const via of ["upnp", "nat-pmp"]) {
      await inPlace(context, async (gateway) => {
        const folder = `${context.lab.folder}/transmission-${via}`;
        await Deno.mkdir(folder, { recursive: true });
        const torrent = "magnet:?xt=urn:btih:0123456789abcdef0123456789abcdef01234567";
        const flags = ["-m", "-p", "51413", "-w", folder, "-g", `${folder}/settings`, torrent];
        const client = context.lab.spawn("host", ["transmission-cli", ...flags]);
        try {
          // It asks for TCP alone by NAT-PMP.
          const mapping = await gateway.event("mapping", 30_000);
          assertEquals([mapping["via"], field(mapping, "internal"), field(mapping, "external")], [
            via,
            { address: ADDRESS.host, port: 51413 },
            { address: ADDRESS.wan, port: 51413 },
          ]);
        } finally {
          client.signal("SIGKILL");
          await client.status;
        }
      }, [...ON_LAN, "--protocols", via]);
    }
  },

  "libtorrent maps its port by UPnP, and by NAT-PMP": async (context) => {
    for (const via of ["upnp", "nat-pmp"]) {
      await inPlace(context, async (gateway) => {
        // Debian's own Python has Debian's modules.
        const python = ["/usr/bin/python3", "-c", LIBTORRENT, via, ADDRESS.host, "6881"];
        const client = context.lab.spawn("host", python);
        try {
          await bothMapped(gateway, via, 6881);
          for (const protocol of ["TCP", "UDP"]) {
            await client.line((line) => line.includes(`external port: ${protocol}/6881`), 30_000);
          }
          assertEquals((await client.status).code, 0, client.said());
        } finally {
          client.signal("SIGKILL");
          await client.status;
        }
      }, [...ON_LAN, "--protocols", via]);
    }
  },

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
