/**
 * STUN beside the programs of others: what kind of NAT there is by natkit and by coturn's and
 * Debian's clients, at coturn and at natkit's own server, in five modes of Linux's NAT.
 *
 * @module
 */
import { assertEquals, assertStringIncludes } from "@std/assert";
import type { Lab } from "../../scripts/lab/lab.ts";
import type { LabContext, LabTest } from "../../scripts/lab/main.ts";
import { must } from "../../scripts/lib/process.ts";
import { serve } from "../../scripts/lab/traffic.ts";
import { ADDRESS } from "../../scripts/lab/topology.ts";
import { assertStatus, field, only } from "./support.ts";

/** A mode of the gateway's NAT, and how each program calls it. */
interface Mode {
  /** Commands for nft, beside the lab's own rules. */
  readonly rules: string;
  readonly type: string;
  readonly mapping: string;
  readonly filtering: string;
  /** By `turnutils_natdiscovery -m` and `-f`. */
  readonly coturn: readonly [mapping: string, filtering: string];
  /** By Debian's `stun`. */
  readonly debian: string;
}

/** What comes in unasked, for the host. */
const LET_IN = `add rule inet filter miniupnpd iifname "wan" udp dport 1024-65535 accept`;

const MODES: Readonly<Record<string, Mode>> = {
  "keeping ports": {
    rules: "",
    type: "port-restricted-cone",
    mapping: "endpoint-independent",
    filtering: "address-and-port-dependent",
    coturn: ["Endpoint Independent Mapping", "Address and Port Dependent Filtering"],
    debian: "Independent Mapping, Port Dependent Filter",
  },
  "with random ports": {
    rules: `table ip natmode {
      chain post {
        type nat hook postrouting priority 99
        oifname "wan" ip protocol udp masquerade random,fully-random
      }
    }`,
    type: "symmetric",
    mapping: "address-and-port-dependent",
    filtering: "address-and-port-dependent",
    coturn: ["Address and Port Dependent Mapping", "Address and Port Dependent Filtering"],
    debian: "Dependent Mapping",
  },
  "letting everybody in": {
    rules: `table ip natmode {
      chain pre {
        type nat hook prerouting priority -101
        iifname "wan" udp dport 1024-65535 dnat to ${ADDRESS.host}
      }
    }
    ${LET_IN}`,
    type: "full-cone",
    mapping: "endpoint-independent",
    filtering: "endpoint-independent",
    coturn: ["Endpoint Independent Mapping", "Endpoint Independent Filtering"],
    debian: "Independent Mapping, Independent Filter",
  },
  "letting acquaintances in": {
    rules: `table ip natmode {
      set met {
        type inet_service . ipv4_addr
        flags dynamic,timeout
        timeout 60s
        size 1000
      }
      chain out {
        type filter hook forward priority -1
        iifname "lan" oifname "wan" update @met { udp sport . ip daddr }
      }
      chain pre {
        type nat hook prerouting priority -101
        iifname "wan" udp dport . ip saddr @met dnat to ${ADDRESS.host}
      }
    }
    ${LET_IN}`,
    type: "restricted-cone",
    mapping: "endpoint-independent",
    filtering: "address-dependent",
    coturn: ["Endpoint Independent Mapping", "Address Dependent Filtering"],
    debian: "Independent Mapping, Address Dependent Filter",
  },
  "not translating": {
    rules: `table ip natmode {
      chain post {
        type nat hook postrouting priority 99
        oifname "wan" ip saddr ${ADDRESS.host} snat to ${ADDRESS.host}
      }
    }`,
    type: "firewall",
    mapping: "endpoint-independent",
    filtering: "address-and-port-dependent",
    coturn: ["No NAT", "No NAT"],
    debian: "Firewall",
  },
};

/** Takes a mode's rules away. */
const RESET = `add table ip natmode
delete table ip natmode
flush chain inet filter miniupnpd`;

const nft = (lab: Lab, rules: string) =>
  must(["ip", "netns", "exec", lab.name("gw"), "nft", "-f", "-"], { stdin: rules });

/** Runs a test in each mode, and leaves the gateway as it was. */
async function inEachMode(lab: Lab, test: (mode: Mode) => Promise<void>): Promise<void> {
  const route = ["route", "replace", "192.168.77.0/24", "via", ADDRESS.wan];
  await must(["ip", "-n", lab.name("pub"), ...route]);
  try {
    for (const [name, mode] of Object.entries(MODES)) {
      await nft(lab, `${RESET}\n${mode.rules}`);
      await test(mode).catch((error) => {
        throw new Error(`A NAT ${name}: ${error.message}`, { cause: error });
      });
    }
  } finally {
    await nft(lab, RESET);
    await must(["ip", "-n", lab.name("pub"), "route", "del", "192.168.77.0/24"]);
  }
}

/** What `turnutils_natdiscovery` says of mapping and filtering. */
async function coturnSays(lab: Lab): Promise<readonly string[]> {
  return await Promise.all(["-m", "-f"].map(async (test) => {
    // Without address and port of its own it cannot tell that there is no NAT.
    const port = 20_000 + Math.floor(10_000 * Math.random());
    const words = [test, "-L", ADDRESS.host, "-l", `${port}`, ADDRESS.pub];
    const { stdout } = await lab.exec("host", ["turnutils_natdiscovery", ...words]);
    return /^(?:NAT with )?(.*)!/m.exec(stdout)?.[1] ?? stdout;
  }));
}

async function debianSays(lab: Lab): Promise<string> {
  const { stdout } = await lab.exec("host", ["stun", ADDRESS.pub]);
  return stdout;
}

async function natkitSays({ natkit }: LabContext): Promise<readonly unknown[]> {
  const done = await natkit.run("nat-type", "--stun", `${ADDRESS.pub}:3478`);
  assertStatus(done, 0);
  const found = only(done, "nat-type");
  assertEquals(field(found, "servers.0.other"), { address: ADDRESS.pubOther, port: 3479 });
  return [found.type, found.mapping, found.filtering];
}

async function withCoturn(
  lab: Lab,
  test: () => Promise<void>,
  how: readonly string[] = ["--stun-only"],
): Promise<void> {
  const server = lab.spawn("pub", [
    "turnserver",
    ...["-n", "--no-cli", "--no-tls", "--no-dtls", "--log-file", "stdout", ...how],
    ...["-L", ADDRESS.pub, "-L", ADDRESS.pubOther, "-p", "3478", "--alt-listening-port", "3479"],
    ...["--pidfile", `${lab.folder}/turnserver.pid`, "--userdb", `${lab.folder}/turndb`],
  ]);
  try {
    await server.line((line) => line.includes("IO method (admin thread)"));
    await test();
  } finally {
    server.signal("SIGKILL");
    await server.status;
  }
}

export const tests: Record<string, LabTest> = {
  "nat-type and turnutils_natdiscovery agree at coturn in five NAT modes": async (context) => {
    const { lab } = context;
    await withCoturn(lab, () =>
      inEachMode(lab, async ({ type, mapping, filtering, coturn }) => {
        assertEquals(await natkitSays(context), [type, mapping, filtering]);
        assertEquals(await coturnSays(lab), coturn);
      }));
  },

  "nat-type, turnutils_natdiscovery and stun agree at natkit's server": async (context) => {
    const { lab, natkit } = context;
    const server = natkit.at("pub").start(
      "stun-server",
      ...["--listen", `${ADDRESS.pub}:3478`, "--alternate", `${ADDRESS.pubOther}:3479`],
    );
    await server.event("listening");
    await inEachMode(lab, async ({ type, mapping, filtering, coturn, debian }) => {
      assertEquals(await natkitSays(context), [type, mapping, filtering]);
      assertEquals(await coturnSays(lab), coturn);
      assertStringIncludes(await debianSays(lab), `Primary: ${debian}`);
    });
    assertEquals((await server.end("SIGTERM")).code, 143);
  },

  "a TURN client has an address at coturn, and talks by it both ways": async (context) => {
    const { lab, probes } = context;
    const users = ["--lt-cred-mech", "--user", "user:pass", "--realm", "example.org"];
    const relay = ["--relay-ip", ADDRESS.pub];
    const peer = await serve(lab, "pub", "udp", 7000);
    await withCoturn(lab, async () => {
      for (const words of Object.values(probes)) {
        const argv = [...words, "relay", ADDRESS.pub, "3478", "7000"];
        const { stdout, stderr } = await lab.exec("host", argv);
        const lines = stdout.trim().split("\n");
        assertEquals(lines.length, 5, stdout + stderr);
        const [allocated, permitted, first, second, stats] = lines.map((line) => JSON.parse(line));
        assertEquals(allocated.reflexive.address, ADDRESS.wan);
        assertEquals([allocated.relayed.address, permitted.type], [ADDRESS.pub, "permitted"]);
        for (const { data, from } of [first, second]) {
          // The peer takes us for the relay.
          assertEquals([data, from], [
            `::ffff:${ADDRESS.pub}`,
            { address: ADDRESS.pub, port: 7000 },
          ]);
        }
        assertEquals(stats, { sent: 2, received: 2 });
      }
    }, [...users, ...relay]);
    peer.signal("SIGKILL");
  },

  "stun tells the gateway's address at coturn, over UDP and TCP": async ({ lab, natkit }) => {
    await withCoturn(lab, async () => {
      for (const more of [[], ["--tcp"]]) {
        const done = await natkit.run("stun", `${ADDRESS.pub}:3478`, ...more);
        assertStatus(done, 0);
        const found = only(done, "address");
        assertEquals([found.address, found.via], [ADDRESS.wan, "stun"]);
        assertEquals(field(found, "local.address"), ADDRESS.host);
      }
    });
  },
};
