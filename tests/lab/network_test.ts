/**
 * Networks as hosts really have them: tunnels over the default route, firewalls that refuse, IPv6
 * addresses to choose from, routes that move. Asked of each runtime's adapter in a host's namespace.
 *
 * @module
 */
import { assert, assertEquals, assertMatch } from "@std/assert";
import type { LabProcess } from "../../scripts/lab/process.ts";
import type { LabContext, LabTest } from "../../scripts/lab/main.ts";
import { ADDRESS, HOST_INTERFACE } from "../../scripts/lab/topology.ts";
import { assertStatus, field, only } from "./support.ts";

/** The tunnel's ends: the host's, and the gateway's at the provider. */
const TUNNEL = { name: "wg0", host: "10.2.0.2", gateway: "10.2.0.1" } as const;

/** A change is noticed within seconds: the fingerprint is read again after at most five. */
const NOTICED_WITHIN_MS = 8_000;

/** Runs commands of `ip` inside the second host. */
async function ip(context: LabContext, ...commands: string[]): Promise<void> {
  await inPlace(context, "host2", commands);
}

async function inPlace(
  { lab }: LabContext,
  place: "host2" | "inet",
  commands: readonly string[],
): Promise<void> {
  for (const command of commands) {
    const { code, stderr } = await lab.exec(place, ["ip", ...command.split(" ")]);
    assertEquals(code, 0, `ip ${command}: ${stderr}`);
  }
}

/** Asks the probe in every way in which the runtime may run. */
async function ask(
  { lab, probes }: LabContext,
  args: readonly string[],
  // deno-lint-ignore no-explicit-any
  check: (answer: any, way: string) => void,
): Promise<void> {
  for (const [way, command] of Object.entries(probes)) {
    const { stdout, stderr } = await lab.exec("host2", [...command, ...args]);
    let answer: unknown;
    try {
      answer = JSON.parse(stdout);
    } catch {
      throw new Error(`${way}: ${stdout}${stderr}`);
    }
    check(answer, way);
  }
}

/** The second host with a tunnel to a provider's gateway; each test adds its own routes. */
async function withTunnel(
  context: LabContext,
  commands: readonly string[],
  test: () => Promise<void>,
): Promise<void> {
  const { lab } = context;
  await ip(
    context,
    `link add ${TUNNEL.name} type veth peer name to-vpn netns ${lab.name("inet")}`,
    `addr add ${TUNNEL.host}/32 dev ${TUNNEL.name}`,
    `link set ${TUNNEL.name} up`,
  );
  try {
    await inPlace(context, "inet", [
      `addr add ${TUNNEL.gateway}/32 dev to-vpn`,
      "link set to-vpn up",
      `route add ${TUNNEL.host}/32 dev to-vpn`,
    ]);
    await ip(context, ...commands);
    await test();
  } finally {
    await ip(context, `link del ${TUNNEL.name}`);
  }
}

/** What discovery is to say where the tunnel takes IPv4's traffic. */
function detourBy(tunnel: { gateway: string | undefined }, passes: string | undefined) {
  const { name, host } = TUNNEL;
  return {
    family: 4,
    interface: name,
    localAddress: host,
    ...(tunnel.gateway !== undefined && { gateway: tunnel.gateway }),
    ...(passes !== undefined && { passes }),
  };
}

const addressesOf = ({ gateways }: { gateways: { address: string; family: number }[] }) =>
  gateways.filter(({ family }) => family === 4).map(({ address }) => address);

/** Commands that make the LAN the way out again. */
const LAN_ROUTE = `route replace default via ${ADDRESS.gateway}`;

async function refused(context: LabContext, rules: string, codes: readonly string[]) {
  const { lab } = context;
  const nft = (input: string) => lab.exec("host2", ["nft", "-f", "-"], { stdin: input });
  const { code, stderr } = await nft(rules);
  assertEquals(code, 0, stderr);
  try {
    for (const flags of [[], ["connect"]]) {
      await ask(context, ["send", ADDRESS.gateway, "5351", ...flags], ({ told }, way) => {
        assertEquals(told.length, 1, `${way}: ${JSON.stringify(told)}`);
        assert(told[0].isTyped && codes.includes(told[0].code), `${way}: ${told[0].message}`);
        assertMatch(told[0].message, /^Cannot send to 192\.168\.77\.1:5351: /);
        assertEquals(told[0].to, { address: ADDRESS.gateway, port: 5351 });
        // Node's API on Deno gives every failure the same code.
        if (!way.includes("dgram")) assertEquals(told[0].code, codes[0], way);
      });
    }
  } finally {
    await nft("flush ruleset\n");
  }
}

/** Starts a watching probe in every way; each step must be noticed by each of them. */
async function noticed(
  { lab, probes }: LabContext,
  steps: readonly (() => Promise<void>)[],
): Promise<void> {
  const watching: LabProcess[] = Object.values(probes)
    .map((command) => lab.spawn("host2", [...command, "watch"]));
  try {
    for (const process of watching) await process.line((line) => line === '"ready"');
    for (const step of steps) {
      await step();
      await Promise.all(
        watching.map((process) => process.line((line) => line === '"changed"', NOTICED_WITHIN_MS)),
      );
    }
  } finally {
    for (const process of watching) process.signal("SIGKILL");
    await Promise.all(watching.map(({ status }) => status));
  }
}

export const tests: Record<string, LabTest> = {
  "a gateway at the end of a /32 tunnel is asked from the tunnel's address": (context) =>
    withTunnel(context, [`route add ${TUNNEL.gateway}/32 dev ${TUNNEL.name}`], async () => {
      const { natkit } = context;
      await ask(context, ["source", TUNNEL.gateway], (source, way) => {
        assertEquals(source, TUNNEL.host, way);
      });
      await ask(context, ["send", TUNNEL.gateway, "5351", "connect"], ({ local }, way) => {
        assertEquals(local, TUNNEL.host, way);
      });

      const flags = ["--listen", TUNNEL.gateway, "--external", "203.0.113.7"];
      const gateway = natkit.at("inet").start("gateway", ...flags);
      try {
        await gateway.event("listening");
        const at = ["--gateway", TUNNEL.gateway];
        const done = await natkit.at("host2").run("map", "6400/tcp", "--mode", "once", ...at);

        assertStatus(done, 0);
        assertEquals(field(only(done, "mapped"), "internal.address"), TUNNEL.host);
        assertStatus(await natkit.at("host2").run("unmap", "6400/tcp", ...at), 0);
      } finally {
        await gateway.end("SIGKILL");
      }
    }),

  "the halves that OpenVPN lays over the default route": (context) =>
    withTunnel(context, [
      `route add ${TUNNEL.gateway}/32 dev ${TUNNEL.name}`,
      `route add 0.0.0.0/1 via ${TUNNEL.gateway} dev ${TUNNEL.name}`,
      `route add 128.0.0.0/1 via ${TUNNEL.gateway} dev ${TUNNEL.name}`,
    ], () =>
      ask(context, ["network"], (network, way) => {
        assertEquals(addressesOf(network), [ADDRESS.gateway, TUNNEL.gateway], way);
        assertEquals(network.detours, [detourBy(TUNNEL, ADDRESS.gateway)], way);
      })),

  "wg-quick's own table, which rules lead to": async (context) => {
    const rules = ["not fwmark 51820 table 51820", "table main suppress_prefixlength 0"];
    const changed = rules.map((rule) => `rule add ${rule}`);
    await withTunnel(context, [`route add default dev wg0 table 51820`, ...changed], async () => {
      try {
        await ask(context, ["network"], (network, way) => {
          assertEquals(addressesOf(network), [ADDRESS.gateway], way);
          assertEquals(network.detours, [detourBy({ gateway: undefined }, ADDRESS.gateway)], way);
        });
        await ask(context, ["source", TUNNEL.gateway], (source, way) => {
          assertEquals(source, TUNNEL.host, way);
        });
      } finally {
        await ip(context, ...rules.map((rule) => `rule del ${rule}`));
      }
    });
  },

  "a default route into a tunnel without gateway": (context) =>
    withTunnel(context, [`route replace default dev ${TUNNEL.name}`], async () => {
      try {
        await ip(context, "-6 route del default");
        await ask(context, ["network"], (network, way) => {
          assertEquals(network.gateways, [], way);
          assertEquals(network.detours, [detourBy({ gateway: undefined }, undefined)], way);
          assertMatch(network.error, /wg0.*--gateway/, way);
        });
      } finally {
        await ip(
          context,
          LAN_ROUTE,
          `-6 route add default via ${ADDRESS.gateway6} dev ${HOST_INTERFACE}`,
        );
      }
    }),

  "a firewall that refuses to send": (context) =>
    refused(
      context,
      "table inet lab { chain out { type filter hook output priority 0; udp dport 5351 drop; }; }\n",
      ["permission", "network"],
    ),

  "a network that cannot be reached": async (context) => {
    await ip(context, "route del default");
    try {
      for (const flags of [[], ["connect"]]) {
        await ask(context, ["send", ADDRESS.pub, "5351", ...flags], ({ told }, way) => {
          const said = `${way}: ${JSON.stringify(told)}`;
          assertEquals(told.map(({ code }: { code: string }) => code), ["network"], said);
          assertMatch(told[0].message, /11\.0\.113\.100:5351/, said);
          assert(told[0].isTyped, said);
        });
      }
    } finally {
      await ip(context, LAN_ROUTE);
    }
  },

  "of IPv6 addresses the stable global one is the source": async (context) => {
    const { lab } = context;
    const own = "2001:db8:a::11";
    const tempaddr = `/proc/sys/net/ipv6/conf/${HOST_INTERFACE}/use_tempaddr`;
    await lab.exec("host2", ["sh", "-c", `echo 2 > ${tempaddr}`]);
    await ip(
      context,
      `addr add 2001:db8:dead::11/64 dev ${HOST_INTERFACE} preferred_lft 0 nodad`,
      `addr add fd00:a::11/64 dev ${HOST_INTERFACE} nodad`,
      `addr change ${own}/64 dev ${HOST_INTERFACE} mngtmpaddr valid_lft 2000 preferred_lft 1000`,
    );
    try {
      const { stdout } = await lab.exec("host2", ["ip", "-6", "addr", "show", "scope", "global"]);
      assertMatch(stdout, /deprecated/);
      assertMatch(stdout, /temporary/);
      for (const gateway of [`${ADDRESS.gateway6}%${HOST_INTERFACE}`, "2001:db8:a::1"]) {
        await ask(context, ["source", gateway], (source, way) => {
          assertEquals(source, own, `${way}:\n${stdout}`);
        });
      }
    } finally {
      await lab.exec("host2", ["sh", "-c", `echo 0 > ${tempaddr}`]);
      await ip(
        context,
        `-6 addr flush dev ${HOST_INTERFACE} scope global`,
        `addr add ${own}/64 dev ${HOST_INTERFACE} nodad`,
      );
    }
  },

  "every change of the network is noticed within seconds": async (context) => {
    const [gateway, late, prefix] = ["192.168.77.254", "192.168.77.99", "2001:db8:b::11"];
    const dev = `dev ${HOST_INTERFACE}`;
    try {
      await noticed(context, [
        () => ip(context, `route replace default via ${gateway}`),
        () => ip(context, "route del default"),
        () => ip(context, `addr add ${late}/24 ${dev}`),
        () => ip(context, LAN_ROUTE),
        () => ip(context, `addr add ${prefix}/64 ${dev} nodad`),
        () => ip(context, `addr change ${prefix}/64 ${dev} preferred_lft 0`),
      ]);
    } finally {
      await ip(context, LAN_ROUTE, `addr del ${prefix}/64 ${dev}`, `addr del ${late}/24 ${dev}`);
    }
  },
};
