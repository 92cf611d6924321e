/**
 * UPnP devices of any kind: a media server (Debian's minidlna) beside the gateway's miniupnpd, found
 * and asked by `natkit upnp`.
 *
 * @module
 */
import { assert, assertEquals } from "@std/assert";
import type { LabContext, LabTest } from "../../scripts/lab/main.ts";
import type { Lab } from "../../scripts/lab/lab.ts";
import type { LabProcess } from "../../scripts/lab/process.ts";
import { ADDRESS, HOST_INTERFACE } from "../../scripts/lab/topology.ts";
import { assertStatus, field, only, until } from "./support.ts";

const MEDIA_PORT = 8200;
const MEDIA_NAME = "Lab media";

/** Starts a media server without media on the second host. */
async function serveMedia(lab: Lab): Promise<LabProcess> {
  const folder = `${lab.folder}/media`;
  await Deno.mkdir(`${folder}/files`, { recursive: true });
  const config = [
    "network_interface=eth0",
    `port=${MEDIA_PORT}`,
    `media_dir=${folder}/files`,
    `db_dir=${folder}`,
    `log_dir=${folder}`,
    `friendly_name=${MEDIA_NAME}`,
    "inotify=no",
    "uuid=6e61746b-6974-4c61-b000-00000000000d",
    "user=root",
  ];
  await Deno.writeTextFile(`${folder}/minidlna.conf`, config.join("\n") + "\n");
  const argv = ["minidlnad", "-S", "-f", `${folder}/minidlna.conf`, "-P", `${folder}/pid`];
  const server = lab.spawn("host2", argv);
  const url = `http://${ADDRESS.host2}:${MEDIA_PORT}/rootDesc.xml`;
  const isThere = async () => (await lab.exec("host2", ["sh", "-c", probe(url)])).code === 0;
  await until("a media server", isThere, 10_000);
  return server;
}

/** A request with what every host has. */
function probe(url: string): string {
  const { hostname, port } = new URL(url);
  return `node -e 'require("node:net").connect(${port},"${hostname}")` +
    `.on("connect",()=>process.exit(0)).on("error",()=>process.exit(1))'`;
}

async function mustNft(lab: Lab, command: string): Promise<void> {
  const { code, stderr } = await lab.exec("gw", ["nft", ...command.split(" ")]);
  assertEquals(code, 0, stderr);
}

async function withMedia(
  { lab }: LabContext,
  run: () => Promise<void>,
): Promise<void> {
  const server = await serveMedia(lab);
  try {
    await run();
  } finally {
    server.signal("SIGKILL");
    await server.status;
  }
}

export const tests: Record<string, LabTest> = {
  "upnp lists a media server's services beside the gateway's": (context) =>
    withMedia(context, async () => {
      const done = await context.natkit.run("upnp", "services");

      assertStatus(done, 0);
      const found = done.events.filter(({ event }) => event === "service")
        .map((event) => `${field(event, "device.friendlyName")} ${event.serviceType}`);
      const wanted = [
        `${MEDIA_NAME} urn:schemas-upnp-org:service:ContentDirectory:1`,
        `${MEDIA_NAME} urn:schemas-upnp-org:service:ConnectionManager:1`,
        "WANConnectionDevice urn:schemas-upnp-org:service:WANIPConnection:2",
        "WANConnectionDevice urn:schemas-upnp-org:service:WANIPv6FirewallControl:1",
      ];
      for (const one of wanted) {
        assertEquals(found.filter((other) => other === one), [one], done.said);
      }
    }),

  "upnp tells what a media server can be asked, and asks it": (context) =>
    withMedia(context, async () => {
      const { natkit } = context;
      const listed = await natkit.run("upnp", "actions", "ContentDirectory");
      assertStatus(listed, 0);
      const browse = listed.events.find(({ action }) => action === "Browse");
      assert(Array.isArray(browse?.arguments) && browse.arguments.length === 10, listed.said);

      // Not in the server's order: that is natkit's business.
      const args = ["RequestedCount=10", "StartingIndex=0", "SortCriteria=", "Filter=*"];
      const which = ["BrowseFlag=BrowseDirectChildren", "ObjectID=0"];
      const done = await natkit.run(
        "upnp",
        "call",
        "ContentDirectory",
        "Browse",
        ...args,
        ...which,
      );
      assertStatus(done, 0);
      const result = only(done, "result");
      assertEquals(field(result, "address"), ADDRESS.host2);
      assertEquals(field(result, "values.NumberReturned"), "4");
      assert(String(field(result, "values.Result")).startsWith("<DIDL-Lite"), done.said);

      const refused = await natkit.run(
        ...["upnp", "call", "ContentDirectory", "Browse", "ObjectID=nowhere"],
        ...["BrowseFlag=BrowseMetadata", "Filter=*", "StartingIndex=0", "RequestedCount=0"],
        "SortCriteria=",
      );
      assertStatus(refused, 1);
      const error = only(refused, "error");
      assertEquals(error.code, "refused");
      assert(String(error.message).includes("701"), refused.said);
    }),

  "upnp asks the gateway for its external address": async ({ natkit, lab }) => {
    const args = ["call", "WANIPConnection:2", "GetExternalIPAddress"];
    const done = await natkit.run(
      "upnp",
      ...args,
      "--target",
      "urn:schemas-upnp-org:device:InternetGatewayDevice:1",
    );

    assertStatus(done, 0);
    const values = { NewExternalIPAddress: lab.wanAddress };
    assertEquals(only(done, "result").values, values, done.said);
  },

  "upnp finds and asks the gateway over IPv6 alone": async ({ natkit, lab }) => {
    const rule = "inet filter input meta nfproto ipv4 udp dport 1900 drop";
    await mustNft(lab, `insert rule ${rule}`);
    try {
      const done = await natkit.run("upnp", "call", "WANIPConnection", "GetStatusInfo");

      assertStatus(done, 0);
      const result = only(done, "result");
      assertEquals(field(result, "address"), "2001:db8:a::1");
      assertEquals(field(result, "values.NewConnectionStatus"), "Connected");
    } finally {
      const { stdout } = await lab.exec("gw", [
        "nft",
        "-a",
        "list",
        "chain",
        "inet",
        "filter",
        "input",
      ]);
      const handle = /dport 1900 drop # handle (\d+)/.exec(stdout)?.[1];
      await mustNft(lab, `delete rule inet filter input handle ${handle}`);
    }
  },

  "a device is asked at its link-local address": async ({ probes, lab }) => {
    const args = ["get", `${ADDRESS.gateway6}%${HOST_INTERFACE}`, "49152", "/rootDesc.xml"];
    for (const [way, command] of Object.entries(probes)) {
      const { stdout, stderr } = await lab.exec("host", [...command, ...args]);
      const { status, length } = JSON.parse(stdout || "{}");
      assert(status === 200 && length > 1000, `${way}: ${stdout}${stderr}`);
    }
  },

  "the gateway tells its address, and of a mapping as it is made": async ({ probes, lab }) => {
    for (const [way, command] of Object.entries(probes)) {
      const following = lab.spawn("host", [...command, "follow", "WANIPConnection"]);
      const told = async (name: string, value: string) => {
        const isIt = (line: string) => JSON.parse(line)[name] === value;
        await following.line((line) => line.startsWith("{") && isIt(line)).catch((error) => {
          throw new Error(`${way}: ${name} ${value}: ${error.message}\n${following.said()}`);
        });
      };
      try {
        await told("ExternalIPAddress", ADDRESS.wan);
        const { code } = await lab.exec("host", [
          "upnpc",
          "-a",
          ADDRESS.host,
          "6300",
          "6300",
          "UDP",
        ]);
        assertEquals(code, 0);
        await told("PortMappingNumberOfEntries", "1");
      } finally {
        following.signal("SIGKILL");
        await following.status;
        await lab.exec("host", ["upnpc", "-d", "6300", "UDP"]);
      }
    }
  },
};
