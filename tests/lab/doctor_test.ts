/**
 * `natkit doctor` in the set-ups in which users ask why a port cannot be reached.
 *
 * @module
 */
import { assert, assertEquals, assertMatch } from "@std/assert";
import type { LabContext, LabTest } from "../../scripts/lab/main.ts";
import type { Place } from "../../scripts/lab/topology.ts";
import { ADDRESS, HOST_INTERFACE } from "../../scripts/lab/topology.ts";
import { assertStatus, only } from "./support.ts";

interface Report {
  readonly reflexive: readonly { readonly address?: string }[];
  readonly gateways: readonly {
    readonly gateway: string;
    readonly protocols: readonly { via: string; outcome: string; external?: string }[];
  }[];
  readonly findings: readonly { code: string; severity: string; message: string }[];
}

/** Asks the doctor, in a place. */
async function ask({ natkit }: LabContext, place: Place, ...flags: string[]): Promise<Report> {
  const done = await natkit.at(place).run("doctor", ...flags);
  assertStatus(done, 0);
  return only(done, "report") as unknown as Report;
}

const codes = ({ findings }: Report) => findings.map(({ code }) => code);

/** What each protocol of the first IPv4 gateway came to. */
const outcomes = ({ gateways }: Report) =>
  gateways.find(({ gateway }) => !gateway.includes("::"))?.protocols
    .map(({ via, outcome, external }) => `${via} ${external ?? outcome}`);

/** Runs commands of `ip`, or others whole, in a place. */
async function inPlace({ lab }: LabContext, place: Place, ...commands: string[]): Promise<void> {
  for (const command of commands) {
    const { code, stderr } = await lab.exec(place, ["sh", "-c", command]);
    assertEquals(code, 0, `${command}: ${stderr}`);
  }
}

/** The host behind a second NAT, which is the lab's second host, in a network of their own. */
export async function behindTwoNats(context: LabContext, test: () => Promise<void>): Promise<void> {
  const { lab } = context;
  const dev = `dev ${HOST_INTERFACE}`;
  const nat = `table ip inner {
    chain post { type nat hook postrouting priority 100; oifname "${HOST_INTERFACE}" ip saddr 10.9.0.0/24 ip daddr != 10.9.0.0/24 masquerade; };
    chain pre { type nat hook prerouting priority -100; };
  }`;
  try {
    await inPlace(
      context,
      "host2",
      `ip addr add 10.9.0.1/24 ${dev}`,
      "echo 1 > /proc/sys/net/ipv4/ip_forward",
    );
    assertEquals((await lab.exec("host2", ["nft", "-f", "-"], { stdin: nat })).code, 0);
    await inPlace(
      context,
      "host",
      `ip addr del ${ADDRESS.host}/24 ${dev}`,
      `ip addr add 10.9.0.10/24 ${dev}`,
      "ip route replace default via 10.9.0.1",
    );
    await test();
  } finally {
    await lab.exec("host2", ["nft", "delete", "table", "ip", "inner"]);
    await inPlace(context, "host2", `ip addr del 10.9.0.1/24 ${dev}`);
    await inPlace(
      context,
      "host",
      `ip addr del 10.9.0.10/24 ${dev}`,
      `ip addr add ${ADDRESS.host}/24 ${dev}`,
      `ip route replace default via ${ADDRESS.gateway}`,
    );
  }
}

export const tests: Record<string, LabTest> = {
  "the doctor where all is well": async (context) => {
    const report = await ask(context, "host");
    assertEquals(codes(report), ["unverified", "open", "ipv6-open"]);
    assertEquals(outcomes(report)?.slice(0, 2), [`pcp ${ADDRESS.wan}`, `nat-pmp ${ADDRESS.wan}`]);
  },

  "the doctor with a server outside that tells what it sees": async (context) => {
    const server = context.natkit.at("pub").start("stun-server", "--listen", `${ADDRESS.pub}:3478`);
    try {
      await server.event("listening");
      const report = await ask(context, "host", "--stun", `${ADDRESS.pub}:3478`);
      assertEquals(codes(report), ["open", "ipv6-open"]);
      assertEquals(report.reflexive.map(({ address }) => address), [ADDRESS.wan]);
    } finally {
      await server.end("SIGKILL");
    }
  },

  "the doctor where everything is switched off": async (context) => {
    await context.lab.stopMiniupnpd();
    try {
      const report = await ask(context, "host");
      assertEquals(codes(report), ["all-silent", "ipv6-firewall"]);
      assertMatch(report.findings[0]!.message, /^192\.168\.77\.1 speaks none of the protocols/);
    } finally {
      await context.lab.startMiniupnpd({ minLifetimeSeconds: 1 });
    }
  },

  "the doctor where UPnP alone is switched on": async (context) => {
    const { lab } = context;
    await lab.restartMiniupnpd({ minLifetimeSeconds: 1, natPmp: false });
    try {
      const report = await ask(context, "host");
      assertEquals(codes(report).slice(0, 2), ["unverified", "upnp-only"]);
      assert(codes(report).includes("open"));
      assertEquals(outcomes(report)?.at(-1), `upnp ${ADDRESS.wan}`);
    } finally {
      await lab.restartMiniupnpd({ minLifetimeSeconds: 1 });
    }
  },

  "the doctor where the gateway's own address is a reserved one": async (context) => {
    const { lab } = context;
    try {
      for (const reserved of ["100.64.7.2", "192.168.5.2"]) {
        await lab.setWanAddress(reserved);
        const report = await ask(context, "host");
        // miniupnpd says what it cannot do, and not which address it has.
        assertEquals(codes(report)[0], "no-external-address");
        assert(outcomes(report)?.includes("nat-pmp NETWORK_FAILURE"));
      }
    } finally {
      await lab.setWanAddress(ADDRESS.wan);
    }
  },

  "the doctor behind two NATs in a row": (context) =>
    behindTwoNats(context, async () => {
      const flags = ["--listen", "10.9.0.1", "--external", ADDRESS.host2];
      const inner = context.natkit.at("host2").start("gateway", ...flags);
      try {
        await inner.event("listening");
        const report = await ask(context, "host");
        assertEquals(codes(report)[0], "double-nat");
        assertEquals(outcomes(report)?.slice(0, 2), [
          `pcp ${ADDRESS.host2}`,
          `nat-pmp ${ADDRESS.host2}`,
        ]);
      } finally {
        await inner.end("SIGKILL");
      }
    }),

  "the doctor where a tunnel is the default route": async (context) => {
    const { lab } = context;
    const peer = lab.name("inet");
    await inPlace(
      context,
      "host2",
      `ip link add wg0 type veth peer name to-vpn netns ${peer}`,
      "ip addr add 10.2.0.2/32 dev wg0",
      "ip link set wg0 up",
      "ip route replace default dev wg0",
    );
    try {
      const report = await ask(context, "host2");
      assertEquals(codes(report)[0], "tunnel");
      assert(report.findings[0]!.message.includes("wg0"), report.findings[0]!.message);
    } finally {
      await inPlace(
        context,
        "host2",
        "ip link del wg0",
        `ip route replace default via ${ADDRESS.gateway}`,
      );
    }
  },
};
