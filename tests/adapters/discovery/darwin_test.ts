import { assertEquals } from "@std/assert";
import { describe, it } from "node:test";
import { parseNetstat, parseRouteGet } from "../../../adapters/discovery/darwin.ts";

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
    const routes = parseNetstat(MACOS).sort((a, b) => a.metric - b.metric);

    assertEquals(routes.map(({ gateway, interface: name }) => `${gateway} ${name}`), [
      "192.168.178.1 en0",
      "fe80::3ea6:2fff:fe11:2233%en0 en0",
      "192.168.179.1 en7",
      "10.8.0.1 utun4",
    ]);
  });

  it("finds the interface where older systems count references first", () => {
    const text = `Internet:
Destination        Gateway            Flags        Refs      Use   Netif Expire
default            10.0.1.1           UGSc           42        0     en1
10.0.1/24          link#5             UCS             3        0     en1
`;

    assertEquals(parseNetstat(text), [{ gateway: "10.0.1.1", interface: "en1", metric: 0 }]);
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

    assertEquals(parseNetstat(openBsd)[0]?.interface, "em0");
    assertEquals(parseNetstat(freeBsd), [
      { gateway: "fe80::1%vtnet0", interface: "vtnet0", metric: 0 },
    ]);
  });

  it("finds nothing in other text", () => {
    for (const text of ["", "default", "default\ndefault  \n", "netstat: command not found"]) {
      assertEquals(parseNetstat(text), []);
    }
    for (let end = 0; end < 400; end++) parseNetstat(MACOS.slice(0, end));
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

    assertEquals(parseRouteGet(text), [
      { gateway: "192.168.178.1", interface: "en0", metric: 0 },
    ]);
  });

  it("gives an IPv6 gateway its zone", () => {
    const text = "   route to: default\n    gateway: fe80::1\n  interface: en0\n";

    assertEquals(parseRouteGet(text)[0]?.gateway, "fe80::1%en0");
  });

  it("finds nothing where the route leads into a tunnel without gateway, or there is none", () => {
    for (
      const text of [
        "   route to: default\n  interface: utun3\n      flags: <UP,DONE>\n",
        "    gateway: index: 24 utun3\n  interface: utun3\n",
        "route: writing to routing socket: not in table\n",
        "",
      ]
    ) assertEquals(parseRouteGet(text), []);
  });
});
