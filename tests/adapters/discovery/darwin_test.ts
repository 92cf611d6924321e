import { assertEquals } from "@std/assert";
import { describe, it } from "node:test";
import {
  parseFleetingIfconfig,
  parseNetstat,
  parseRouteGet,
} from "../../../adapters/discovery/darwin.ts";
import { PUBLIC_ADDRESS } from "../../../adapters/discovery/route.ts";

const [V4, V6] = [PUBLIC_ADDRESS[4], PUBLIC_ADDRESS[6]];

const MACOS = `Routing tables

Internet:
Destination        Gateway            Flags               Netif Expire
default            192.168.178.1      UGScg                 en0
default            link#23            UCSIg         bridge100      !
default            192.168.179.1      UGScIg                en7
default            10.8.0.1           UGScIg              utun4
127                127.0.0.1          UCS                   lo0
127.0.0.1          127.0.0.1          UH                    lo0
169.254            link#14            UCS                   en0      !
192.168.178        link#14            UCS                   en0      !
192.168.178.1      3c:a6:2f:11:22:33  UHLWIir               en0   1185

Internet6:
Destination                             Gateway                                 Flags               Netif Expire
default                                 fe80::3ea6:2fff:fe11:2233%en0           UGcg                  en0
default                                 fe80::%utun0                            UGcIg               utun0
::1                                     ::1                                     UHL                   lo0
fe80::%lo0/64                           fe80::1%lo0                             UcI                   lo0
`;

describe("parseNetstat()", () => {
  it("finds macOS' default routes, the one in use first", () => {
    const found = [V4, V6].map((toward) =>
      parseNetstat(MACOS, toward).sort((a, b) => a.metric - b.metric)
        .map(({ gateway, interface: name }) => `${gateway ?? "-"} ${name}`)
    );

    assertEquals(found, [
      ["192.168.178.1 en0", "- bridge100", "192.168.179.1 en7", "10.8.0.1 utun4"],
      ["fe80::3ea6:2fff:fe11:2233%en0 en0", "- utun0"],
    ]);
  });

  it("finds the halves that a tunnel lays over the default route", () => {
    const text = `Internet:
Destination        Gateway            Flags               Netif Expire
0/1                10.8.0.5           UGScg               utun4
default            192.168.178.1      UGScg                 en0
127                127.0.0.1          UCS                   lo0
128.0/1            10.8.0.5           UGSc                utun4
192.168.178        link#14            UCS                   en0      !
198.41.0.4         10.8.0.5           UGHW3I              utun4

Internet6:
Destination                             Gateway                                 Flags               Netif Expire
2000::/3                                utun4                                   USc                 utun4
`;

    assertEquals(
      parseNetstat(text, V4).map(({ prefixLength, gateway }) => [prefixLength, gateway]),
      [[0, "192.168.178.1"], [1, "10.8.0.5"]],
    );
    assertEquals(parseNetstat(text, V6), [
      { family: 6, prefixLength: 3, gateway: undefined, interface: "utun4", metric: 0 },
    ]);
  });

  it("takes no address of the host's own for a gateway, which a route by interface may show", () => {
    const text = "Internet:\nDestination Gateway Flags Netif\ndefault 10.2.0.2 UScg utun4\n";

    assertEquals(parseNetstat(text, V4)[0]?.gateway, undefined);
  });

  it("finds the interface where older systems count references first", () => {
    const text = `Internet:
Destination        Gateway            Flags        Refs      Use   Netif Expire
default            10.0.1.1           UGSc           42        0     en1
10.0.1/24          link#5             UCS             3        0     en1
`;

    assertEquals(parseNetstat(text, V4), [
      { family: 4, prefixLength: 0, gateway: "10.0.1.1", interface: "en1", metric: 0 },
    ]);
  });

  it("takes no route that refuses, or drops, for a way out", () => {
    const text = (flags: string) =>
      `Internet:
Destination        Gateway            Flags               Netif Expire
default            192.168.178.1      ${flags}            en0
`;
    const found = ["UGSc", "UGScR", "UGScB", "GSc", "UGHSc"].map((flags) =>
      parseNetstat(text(flags), V4).length
    );
    assertEquals(found, [1, 0, 0, 0, 0]);
  });

  it("finds OpenBSD's and FreeBSD's", () => {
    const openBsd = `Internet:
Destination        Gateway            Flags   Refs      Use   Mtu  Prio Iface
default            192.168.2.1        UGS        5      119     -     8 em0
`;
    const freeBsd = `Internet6:
Destination                       Gateway                       Flags     Netif Expire
::/96                             ::1                           UGRS        lo0
default                           fe80::1%vtnet0                UGS      vtnet0
`;

    assertEquals(parseNetstat(openBsd, V4)[0]?.interface, "em0");
    assertEquals(parseNetstat(freeBsd, V6), [
      { family: 6, prefixLength: 0, gateway: "fe80::1%vtnet0", interface: "vtnet0", metric: 0 },
    ]);
  });

  it("finds nothing in other text", () => {
    for (const text of ["", "default", "default\ndefault  \n", "netstat: command not found"]) {
      assertEquals(parseNetstat(text, V4), []);
    }
    for (let end = 0; end < 400; end++) parseNetstat(MACOS.slice(0, end), V4);
  });
});

describe("parseRouteGet()", () => {
  it("finds the gateway and its interface", () => {
    const text = `   route to: default
destination: default
       mask: default
    gateway: 192.168.178.1
  interface: en0
      flags: <UP,GATEWAY,DONE,STATIC,PRCLONING,GLOBAL>
 recvpipe  sendpipe  ssthresh  rtt,msec    rttvar  hopcount      mtu     expire
       0         0         0         0         0         0      1500         0
`;

    assertEquals(parseRouteGet(text, 4), [
      { family: 4, prefixLength: 0, gateway: "192.168.178.1", interface: "en0", metric: 0 },
    ]);
  });

  it("gives an IPv6 gateway its zone", () => {
    const text = "   route to: default\n    gateway: fe80::1\n  interface: en0\n";

    assertEquals(parseRouteGet(text, 6)[0]?.gateway, "fe80::1%en0");
  });

  it("finds the interface of a tunnel without gateway", () => {
    for (
      const text of [
        "   route to: default\n  interface: utun3\n      flags: <UP,DONE>\n",
        "    gateway: index: 24 utun3\n  interface: utun3\n",
      ]
    ) {
      const [route] = parseRouteGet(text, 4);

      assertEquals([route?.interface, route?.gateway], ["utun3", undefined]);
    }
  });

  it("finds nothing where there is no route", () => {
    for (const text of ["route: writing to routing socket: not in table\n", ""]) {
      assertEquals(parseRouteGet(text, 4), []);
    }
  });
});

describe("parseFleetingIfconfig()", () => {
  it("finds what is marked as temporary, deprecated or tentative", () => {
    const text = `en0: flags=8863<UP,BROADCAST,SMART,RUNNING,SIMPLEX,MULTICAST> mtu 1500
	inet6 fe80::1c2d:3e4f:5a6b:7c8d%en0 prefixlen 64 secured scopeid 0xe
	inet6 2001:db8::1 prefixlen 64 autoconf secured
	inet6 2001:db8::a1b2 prefixlen 64 autoconf temporary
	inet6 2001:db8:1::1 prefixlen 64 deprecated autoconf secured
	inet 192.168.178.23 netmask 0xffffff00 broadcast 192.168.178.255
`;

    assertEquals([...parseFleetingIfconfig(text)], ["2001:db8::a1b2", "2001:db8:1::1"]);
  });
});
