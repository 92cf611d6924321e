/**
 * A second home beside the lab's own, behind another NAT, and what both NATs can be made to do:
 *
 * ```text
 *   host 192.168.77.10 ── gw 11.0.113.2 ─┐
 *                                        inet ── pub 11.0.113.100, .101: STUN
 *   peer 192.168.88.10 ── gw2 11.0.113.4 ┘
 * ```
 *
 * Its namespaces carry the lab's prefix, so that they are removed with the lab.
 *
 * @module
 */
import { must } from "../lib/process.ts";
import type { Lab } from "./lab.ts";
import { ADDRESS, FORWARDING, HOST_INTERFACE, RULES } from "./topology.ts";

/** The addresses of the second home, and the public host's second one. */
export const SECOND = {
  gateway: "192.168.88.1",
  peer: "192.168.88.10",
  wan: "11.0.113.4",
  pubOther: "11.0.113.101",
} as const;

/** What a NAT does with what leaves and with what comes unasked. */
export type NatMode =
  /** Ports are kept; in comes what answers. */
  | "keeping"
  /** The same, but a stranger's TCP is refused aloud. */
  | "resetting"
  /** Ports are kept, and everybody is let in. */
  | "full cone"
  /** Ports are kept, and whoever was sent to is let in, from any port. */
  | "restricted"
  /** Each destination gets another port, at random. */
  | "symmetric";

/** Brings the second home up; a second call does nothing. */
export async function upSecondHome(lab: Lab): Promise<void> {
  const { stdout } = await must(["ip", "netns", "list"]);
  const [gw2, peer, inet] = [lab.name("gw2"), lab.name("peer"), lab.name("inet")];
  if (stdout.includes(`${peer}`)) return;
  const make = [
    `netns add ${gw2}`,
    `netns add ${peer}`,
    `link add name wan netns ${gw2} type veth peer name to-gw2 netns ${inet}`,
    `link add name ${HOST_INTERFACE} netns ${peer} type veth peer name lan netns ${gw2}`,
  ];
  const up = (link: string) => [`link set ${link} addrgenmode none`, `link set ${link} up`];
  const inside: Readonly<Record<string, readonly string[]>> = {
    [inet]: ["link set to-gw2 addrgenmode none", "link set to-gw2 master br0 up"],
    [gw2]: [
      "link set lo up",
      ...up("lan"),
      ...up("wan"),
      `addr add ${SECOND.gateway}/24 dev lan`,
      `addr add ${SECOND.wan}/24 dev wan`,
    ],
    [peer]: [
      "link set lo up",
      ...up(HOST_INTERFACE),
      `addr add ${SECOND.peer}/24 dev ${HOST_INTERFACE}`,
      `route add default via ${SECOND.gateway}`,
    ],
    [lab.name("pub")]: [`addr replace ${SECOND.pubOther}/24 dev ${HOST_INTERFACE}`],
  };
  const batch = (commands: readonly string[], ...more: string[]) =>
    must(["ip", ...more, "-batch", "-"], { stdin: commands.join("\n") });
  await batch(make);
  for (const [name, commands] of Object.entries(inside)) await batch(commands, "-n", name);
  const rules = RULES.replaceAll("192.168.77.", "192.168.88.");
  await lab.exec("gw2", ["sh", "-c", FORWARDING]);
  await must(["ip", "netns", "exec", gw2, "nft", "-f", "-"], { stdin: rules });
}

/** Makes the NAT of the first home (`gw`) or of the second behave so. */
export async function setNatMode(lab: Lab, gateway: "gw" | "gw2", mode: NatMode): Promise<void> {
  const inside = gateway === "gw" ? ADDRESS.host : SECOND.peer;
  const both = ["udp", "tcp"] as const;
  const letIn = both.map((protocol) =>
    `add rule inet filter miniupnpd iifname "wan" ${protocol} dport 1024-65535 accept`
  );
  const forward = (from: string) =>
    both.map((protocol) => `iifname "wan" ${from} ${protocol} dport 1024-65535 dnat to ${inside}`)
      .join("\n    ");
  const tables: Readonly<Record<NatMode, string>> = {
    keeping: "",
    resetting: `table ip natmode {
  chain in {
    type filter hook input priority -1
    iifname "wan" ip protocol tcp ct state new reject with tcp reset
  }
}`,
    "full cone": `table ip natmode {
  chain pre {
    type nat hook prerouting priority -101
    ${forward("")}
  }
}
${letIn.join("\n")}`,
    restricted: `table ip natmode {
  set met {
    type ipv4_addr
    flags dynamic,timeout
    timeout 60s
    size 1000
  }
  chain out {
    type filter hook forward priority -1
    iifname "lan" oifname "wan" update @met { ip daddr }
  }
  chain pre {
    type nat hook prerouting priority -101
    ${forward("ip saddr @met")}
  }
}
${letIn.join("\n")}`,
    symmetric: `table ip natmode {
  chain post {
    type nat hook postrouting priority 99
    oifname "wan" meta l4proto { tcp, udp } masquerade random,fully-random
  }
}`,
  };
  const stdin = `add table ip natmode
delete table ip natmode
flush chain inet filter miniupnpd
${tables[mode]}`;
  await must(["ip", "netns", "exec", lab.name(gateway), "nft", "-f", "-"], { stdin });
}
