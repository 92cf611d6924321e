import { assertEquals } from "@std/assert";
import { describe, it } from "node:test";
import {
  parseFleetingAddresses,
  parseIpRoute,
  parseProcIpv6Route,
  parseProcRoute,
} from "../../../adapters/discovery/linux.ts";
import { MAX_ROUTE_LINES } from "../../../adapters/discovery/route.ts";

const PROC_ROUTE =
  `Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT
wlp3s0\t00000000\t0101A8C0\t0003\t0\t0\t600\t00000000\t0\t0\t0
enp0s31f6\t00000000\tFE00000A\t0003\t0\t0\t100\t00000000\t0\t0\t0
tun0\t00000000\t00000000\t0001\t0\t0\t50\t00000000\t0\t0\t0
wlp3s0\t0000FEA9\t00000000\t0001\t0\t0\t1000\t0000FFFF\t0\t0\t0
docker0\t000011AC\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0
enp0s31f6\t00000000\t01010101\t0203\t0\t0\t1\t00000000\t0\t0\t0
tun0\t00000000\t0100080A\t0003\t0\t0\t0\t00000080\t0\t0\t0
`;

describe("parseProcRoute()", () => {
  it("finds default routes with a gateway, whatever their order", () => {
    const routes = parseProcRoute(PROC_ROUTE);

    assertEquals(routes, [
      { gateway: "192.168.1.1", interface: "wlp3s0", metric: 600 },
      { gateway: "10.0.0.254", interface: "enp0s31f6", metric: 100 },
    ]);
  });

  it("reads the numbers of a big-endian host", () => {
    const text = "eth0 00000000 C0A80101 0003 0 0 0 00000000 0 0 0";

    assertEquals(parseProcRoute(text, false)[0]?.gateway, "192.168.1.1");
  });

  it("finds nothing in an empty, cut off or foreign file", () => {
    for (
      const text of [
        "",
        "\n",
        "eth0",
        "eth0 00000000",
        "no such file",
        "{}",
        PROC_ROUTE.slice(0, 100),
      ]
    ) {
      assertEquals(parseProcRoute(text), []);
    }
    for (let end = 0; end < PROC_ROUTE.length; end++) parseProcRoute(PROC_ROUTE.slice(0, end));
  });

  it("looks at a bounded number of lines", () => {
    const other = "eth0 000200C0 00000000 0001 0 0 0 00FFFFFF 0 0 0\n";
    const route = "eth0 00000000 0101A8C0 0003 0 0 0 00000000 0 0 0\n";

    assertEquals(parseProcRoute(other.repeat(MAX_ROUTE_LINES - 1) + route).length, 1);
    assertEquals(parseProcRoute(other.repeat(MAX_ROUTE_LINES) + route).length, 0);
  });
});

const ZERO = "0".repeat(32);

describe("parseProcIpv6Route()", () => {
  it("finds default routes and gives a link-local gateway its zone", () => {
    const text = [
      `fd000000000000000000000000000000 40 ${ZERO} 00 ${ZERO} 00000100 00000001 00000000 00000001     eth0`,
      `${ZERO} 00 ${ZERO} 00 fe800000000000000000000000000001 00000064 00000005 00000000 00450003   wlp3s0`,
      `${ZERO} 00 ${ZERO} 00 fd000000000000000000000000000001 00000400 00000003 00000000 00000003     eth0`,
      `${ZERO} 00 ${ZERO} 00 ${ZERO} ffffffff 00000001 00000000 00200200       lo`,
      `${ZERO} 00 ${ZERO} 00 ${ZERO} 00000032 00000001 00000000 00000001      wg0`,
      "",
    ].join("\n");

    const routes = parseProcIpv6Route(text);

    assertEquals(routes, [
      { gateway: "fe80::1%wlp3s0", interface: "wlp3s0", metric: 100 },
      { gateway: "fd00::1", interface: "eth0", metric: 1024 },
    ]);
  });

  it("does not take a route for some sources only for a default route", () => {
    const source = "20010db8000000000000000000000000";
    const text =
      `${ZERO} 00 ${source} 40 fe80000000000000000000000000000a 00000064 1 0 00000003 eth0`;

    assertEquals(parseProcIpv6Route(text), []);
  });

  it("finds nothing in cut off lines", () => {
    const line =
      `${ZERO} 00 ${ZERO} 00 fe800000000000000000000000000001 00000064 5 0 00000003 eth0`;

    for (let end = 0; end < line.length - 5; end++) {
      assertEquals(parseProcIpv6Route(line.slice(0, end)), []);
    }
  });
});

describe("parseIpRoute()", () => {
  it("finds default routes with their metrics", () => {
    const text = `default via 192.168.1.1 dev wlp3s0 proto dhcp src 192.168.1.23 metric 600
default via 10.0.0.254 dev enp0s31f6 proto dhcp metric 100
default dev wg0 proto static scope link metric 50
10.0.0.0/24 dev enp0s31f6 proto kernel scope link src 10.0.0.7 metric 100
172.17.0.0/16 dev docker0 proto kernel scope link src 172.17.0.1 linkdown
`;

    assertEquals(parseIpRoute(text), [
      { gateway: "192.168.1.1", interface: "wlp3s0", metric: 600 },
      { gateway: "10.0.0.254", interface: "enp0s31f6", metric: 100 },
    ]);
  });

  it("finds IPv6 gateways, and an IPv6 gateway of IPv4", () => {
    const text =
      `default via fe80::1 dev eth0 proto ra metric 100 expires 1799sec hoplimit 64 pref medium
default via inet6 fe80::2 dev eth1
`;

    assertEquals(parseIpRoute(text), [
      { gateway: "fe80::1%eth0", interface: "eth0", metric: 100 },
      { gateway: "fe80::2%eth1", interface: "eth1", metric: 0 },
    ]);
  });

  it("finds the hops of a multipath route, without the dead ones", () => {
    const text = `default proto ra metric 1024 expires 1700sec pref medium
\tnexthop via fe80::1 dev eth0 weight 1
\tnexthop via fe80::2 dev eth1 weight 1
\tnexthop via fe80::3 dev eth2 weight 1 dead linkdown
10.9.0.0/16 proto static
\tnexthop via 10.0.0.3 dev eth0 weight 1
`;

    assertEquals(parseIpRoute(text), [
      { gateway: "fe80::1%eth0", interface: "eth0", metric: 1024 },
      { gateway: "fe80::2%eth1", interface: "eth1", metric: 1024 },
    ]);
  });

  it("finds nothing in an error message or nothing at all", () => {
    for (
      const text of ["", "RTNETLINK answers: Operation not permitted", "default", "default via"]
    ) {
      assertEquals(parseIpRoute(text), []);
    }
  });
});

describe("parseFleetingAddresses()", () => {
  it("finds temporary, deprecated and tentative addresses", () => {
    const text = `20010db8000000000000000000000001 02 40 00 00     eth0
20010db800000000a1b2c3d4e5f60718 02 40 00 01     eth0
20010db8000000000000000000000003 02 40 00 20     eth0
20010db8000000000000000000000004 02 40 00 40     eth0
fe8000000000000000fc00fffe000001 02 40 20 80     eth0
00000000000000000000000000000001 01 80 10 80       lo
`;

    const fleeting = parseFleetingAddresses(text);

    assertEquals([...fleeting], ["2001:db8::a1b2:c3d4:e5f6:718", "2001:db8::3", "2001:db8::4"]);
  });
});
