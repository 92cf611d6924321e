/**
 * The lab's network as commands for `ip -batch` and `nft -f`: a home with two hosts behind a
 * gateway, and the internet, a link with a public host on it.
 *
 * ```text
 *   host  192.168.77.10  ─┐
 *         2001:db8:a::10  ├─ lan  gw  wan ──── inet ──── pub 11.0.113.100
 *   host2 192.168.77.11  ─┘ .1       11.0.113.2            2001:db8:1::100
 *         2001:db8:a::11   fe80::1   2001:db8:1::2
 * ```
 *
 * The gateway translates IPv4 and keeps ports where it can; it forwards IPv6 untranslated. It drops
 * what comes unasked from outside: a gateway that answers it would bind the 4-tuple and move the
 * host's own later flow to another port. The outside is in 11.0.0.0/8, since miniupnpd takes the
 * documentation's networks for reserved ones and refuses to map.
 *
 * @module
 */

/** The namespaces of the lab's own. */
export type HomePlace = "host" | "host2" | "gw" | "inet" | "pub";

/** The namespaces of the lab, those of the second home included (`second_home.ts`). */
export type Place = HomePlace | "gw2" | "peer";

/** Those of its own. */
export const PLACES: readonly HomePlace[] = ["inet", "gw", "host", "host2", "pub"];

/** The addresses of the lab. */
export const ADDRESS = {
  gateway: "192.168.77.1",
  host: "192.168.77.10",
  host2: "192.168.77.11",
  wan: "11.0.113.2",
  otherWan: "11.0.113.3",
  pub: "11.0.113.100",
  /** The second address of the public host, where STUN servers answer too. */
  pubOther: "11.0.113.101",
  /** The gateway's link-local address on the LAN; the hosts' default route leads there. */
  gateway6: "fe80::1",
  host6: "2001:db8:a::10",
  wan6: "2001:db8:1::2",
  pub6: "2001:db8:1::100",
} as const;

/** The interface of every host, as seen inside its namespace. */
export const HOST_INTERFACE = "eth0";

/** Commands for `ip -batch` outside of the namespaces. */
export function makeNamespaces(name: (place: HomePlace) => string): string {
  const veth = (place: HomePlace, link: string, peerPlace: HomePlace, peer: string) =>
    `link add name ${link} netns ${name(place)} type veth ` +
    `peer name ${peer} netns ${name(peerPlace)}`;
  return [
    ...PLACES.map((place) => `netns add ${name(place)}`),
    veth("gw", "wan", "inet", "to-gw"),
    veth("pub", HOST_INTERFACE, "inet", "to-pub"),
    veth("host", HOST_INTERFACE, "gw", "to-host"),
    veth("host2", HOST_INTERFACE, "gw", "to-host2"),
  ].join("\n");
}

/** Commands for `ip -batch` inside each namespace. */
export const INSIDE: Readonly<Record<HomePlace, string>> = {
  inet: bridge("br0", ["to-gw", "to-pub"]),
  gw: [
    bridge("lan", ["to-host", "to-host2"]),
    ...up("wan"),
    `addr add ${ADDRESS.gateway}/24 dev lan`,
    `addr add ${ADDRESS.gateway6}/64 dev lan nodad`,
    "addr add 2001:db8:a::1/64 dev lan nodad",
    `addr add ${ADDRESS.wan}/24 dev wan`,
    `addr add ${ADDRESS.wan6}/64 dev wan nodad`,
  ].join("\n"),
  host: host(ADDRESS.host, ADDRESS.host6, "fe80::10"),
  host2: host(ADDRESS.host2, "2001:db8:a::11", "fe80::11"),
  pub: [
    ...up(HOST_INTERFACE),
    `addr add ${ADDRESS.pub}/24 dev ${HOST_INTERFACE}`,
    `addr add ${ADDRESS.pubOther}/24 dev ${HOST_INTERFACE}`,
    `addr add ${ADDRESS.pub6}/64 dev ${HOST_INTERFACE} nodad`,
    `route add 2001:db8:a::/48 via ${ADDRESS.wan6}`,
  ].join("\n"),
};

/** What makes the gateway a router. */
export const FORWARDING =
  "echo 1 > /proc/sys/net/ipv4/ip_forward; echo 1 > /proc/sys/net/ipv6/conf/all/forwarding";

/**
 * The gateway's rules, with the three chains that miniupnpd fills, for `nft -f`. Where br_netfilter
 * is loaded what one host sends to the other passes them as well.
 */
export const RULES = `
table inet filter {
  chain miniupnpd { }
  chain prerouting_miniupnpd { }
  chain postrouting_miniupnpd { }
  chain input {
    type filter hook input priority 0; policy drop;
    iifname { "lo", "lan" } accept
    ct state established,related accept
    icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert, nd-router-advert } accept
  }
  chain forward {
    type filter hook forward priority 0; policy drop;
    ct state established,related accept
    iifname "lan" oifname { "lan", "wan" } accept
    jump miniupnpd
  }
  chain prerouting {
    type nat hook prerouting priority -100; policy accept;
    jump prerouting_miniupnpd
  }
  chain postrouting {
    type nat hook postrouting priority 100; policy accept;
    jump postrouting_miniupnpd
    oifname "wan" ip saddr 192.168.77.0/24 masquerade
  }
}
`;

/** Empties the chains a stopped miniupnpd leaves behind, for `nft -f`. */
export const FLUSH = `
flush chain inet filter miniupnpd
flush chain inet filter prerouting_miniupnpd
flush chain inet filter postrouting_miniupnpd
`;

/** Addresses are set by hand and used at once, without the second of duplicate detection. */
function up(link: string): string[] {
  return ["link set lo up", `link set ${link} addrgenmode none`, `link set ${link} up`];
}

function bridge(name: string, ports: readonly string[]): string {
  return [
    `link add ${name} type bridge mcast_snooping 0`,
    ...up(name),
    ...ports.flatMap((port) => [
      `link set ${port} addrgenmode none`,
      `link set ${port} master ${name} up`,
    ]),
  ].join("\n");
}

function host(address: string, address6: string, linkLocal: string): string {
  return [
    ...up(HOST_INTERFACE),
    `addr add ${address}/24 dev ${HOST_INTERFACE}`,
    `addr add ${address6}/64 dev ${HOST_INTERFACE} nodad`,
    `addr add ${linkLocal}/64 dev ${HOST_INTERFACE} nodad`,
    `route add default via ${ADDRESS.gateway}`,
    `route add default via ${ADDRESS.gateway6} dev ${HOST_INTERFACE}`,
  ].join("\n");
}
