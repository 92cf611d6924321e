import { assertEquals } from "@std/assert";
import { describe, it } from "node:test";
import {
  parseFleetingAddresses,
  parseFleetingIpAddr,
  parseIpRoute as parseIpRouteToward,
  parseIpRouteGet,
  parseProcIpv6Route as parseProcIpv6RouteToward,
  parseProcRoute as parseProcRouteToward,
} from "../../../adapters/discovery/linux.ts";
import { MAX_ROUTE_LINES, PUBLIC_ADDRESS, type Route } from "../../../adapters/discovery/route.ts";

const parseProcRoute = (text: string, toward: string = PUBLIC_ADDRESS[4]) =>
  parseProcRouteToward(text, toward).map(brief);
const parseProcIpv6Route = (text: string, toward: string = PUBLIC_ADDRESS[6]) =>
  parseProcIpv6RouteToward(text, toward).map(brief);
const parseIpRoute = (text: string, toward: string = PUBLIC_ADDRESS[4]) =>
  parseIpRouteToward(text, toward).map(brief);

/** A route as `/length via gateway dev name metric`. */
function brief({ prefixLength, gateway, interface: name, metric }: Route): string {
  return `/${prefixLength} via ${gateway ?? "-"} dev ${name} ${metric}`;
}

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
  it("finds the routes to the internet, with a gateway or without, and no others", () => {
    assertEquals(parseProcRoute(PROC_ROUTE), [
      "/0 via 192.168.1.1 dev wlp3s0 600",
      "/0 via 10.0.0.254 dev enp0s31f6 100",
      "/0 via - dev tun0 50",
    ]);
  });

  it("finds the halves that a tunnel lays over the default route", () => {
    const text = `eth0\t00000000\t0101A8C0\t0003\t0\t0\t100\t00000000\t0\t0\t0
tun0\t00000000\t0100080A\t0003\t0\t0\t0\t00000080\t0\t0\t0
tun0\t00000080\t0100080A\t0003\t0\t0\t0\t00000080\t0\t0\t0
`;
    const [wide, half] = ["/0 via 192.168.1.1 dev eth0 100", "/1 via 10.8.0.1 dev tun0 0"];

    assertEquals(parseProcRoute(text), [wide, half]);
    assertEquals(parseProcRoute(text, "8.0.0.1"), [wide, half]);
  });

  it("finds the routes to one address: to a network, or to that host alone", () => {
    const text = `eth0 00000000 0101A8C0 0003 0 0 100 00000000 0 0 0
docker0 000011AC 00000000 0001 0 0 0 0000FFFF 0 0 0
wg0 0100020A 00000000 0005 0 0 0 FFFFFFFF 0 0 0
`;

    assertEquals(parseProcRoute(text, "10.2.0.1").slice(1), ["/32 via - dev wg0 0"]);
    assertEquals(parseProcRoute(text, "172.17.9.9").slice(1), ["/16 via - dev docker0 0"]);
    assertEquals(parseProcRoute(text, "10.2.0.2").slice(1), []);
  });

  it("reads the numbers of a big-endian host", () => {
    const text = "eth0 80000000 C0A80101 0003 0 0 0 80000000 0 0 0";

    const [route] = parseProcRouteToward(text, PUBLIC_ADDRESS[4], false);

    assertEquals([route?.gateway, route?.prefixLength], ["192.168.1.1", 1]);
  });

  it("finds nothing in an empty, cut off or foreign file", () => {
    for (
      const text of [
        "",
        "\n",
        "eth0",
        "eth0 00000000",
        "eth0 00000000 0101A8C0 0003 0 0 0 none 0 0 0",
        "eth0 00000000 gateway 0003 0 0 0 00000000 0 0 0",
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
  it("finds routes to the internet and gives a link-local gateway its zone", () => {
    const text = [
      `fd000000000000000000000000000000 40 ${ZERO} 00 ${ZERO} 00000100 00000001 00000000 00000001     eth0`,
      `${ZERO} 00 ${ZERO} 00 fe800000000000000000000000000001 00000064 00000005 00000000 00450003   wlp3s0`,
      `${ZERO} 00 ${ZERO} 00 fd000000000000000000000000000001 00000400 00000003 00000000 00000003     eth0`,
      `${ZERO} 00 ${ZERO} 00 ${ZERO} ffffffff 00000001 00000000 00200200       lo`,
      `${ZERO} 00 ${ZERO} 00 ${ZERO} 00000032 00000001 00000000 00000001      wg0`,
      "",
    ].join("\n");

    assertEquals(parseProcIpv6Route(text), [
      "/0 via fe80::1%wlp3s0 dev wlp3s0 100",
      "/0 via fd00::1 dev eth0 1024",
      "/0 via - dev wg0 50",
    ]);
    assertEquals(parseProcIpv6Route(text, "fd00::9")[0], "/64 via - dev eth0 256");
  });

  it("minds a prefix to the bit", () => {
    const route = (destination: string, length: string) =>
      `${destination.padEnd(32, "0")} ${length} ${ZERO} 00 ${ZERO} 00000400 1 0 00000001 tun0`;

    assertEquals(parseProcIpv6Route(route("2000", "03")), ["/3 via - dev tun0 1024"]);
    assertEquals(parseProcIpv6Route(route("8000", "01")), []);
    assertEquals(parseProcIpv6Route(route("2001050200", "1f")), ["/31 via - dev tun0 1024"]);
    assertEquals(parseProcIpv6Route(route("2001050200", "20")), []);
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
  it("finds routes to the internet with their metrics", () => {
    const text = `default via 192.168.1.1 dev wlp3s0 proto dhcp src 192.168.1.23 metric 600
default via 10.0.0.254 dev enp0s31f6 proto dhcp metric 100
default dev wg0 proto static scope link metric 50
10.0.0.0/24 dev enp0s31f6 proto kernel scope link src 10.0.0.7 metric 100
172.17.0.0/16 dev docker0 proto kernel scope link src 172.17.0.1 linkdown
`;

    assertEquals(parseIpRoute(text), [
      "/0 via 192.168.1.1 dev wlp3s0 600",
      "/0 via 10.0.0.254 dev enp0s31f6 100",
      "/0 via - dev wg0 50",
    ]);
  });

  it("finds halves, networks and single hosts, and none that refuse", () => {
    const text = `unreachable default metric 10
0.0.0.0/1 via 10.8.0.1 dev tun0
128.0.0.0/1 via 10.8.0.1 dev tun0
10.2.0.1 dev wg0 scope link
`;

    assertEquals(parseIpRoute(text), ["/1 via 10.8.0.1 dev tun0 0"]);
    assertEquals(parseIpRoute(text, "10.2.0.1")[1], "/32 via - dev wg0 0");
  });

  it("finds IPv6 gateways, and an IPv6 gateway of IPv4", () => {
    const text =
      `default via fe80::1 dev eth0 proto ra metric 100 expires 1799sec hoplimit 64 pref medium
default via inet6 fe80::2 dev eth1
`;

    assertEquals(parseIpRoute(text), [
      "/0 via fe80::1%eth0 dev eth0 100",
      "/0 via fe80::2%eth1 dev eth1 0",
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

    assertEquals(parseIpRoute(text, PUBLIC_ADDRESS[6]), [
      "/0 via fe80::1%eth0 dev eth0 1024",
      "/0 via fe80::2%eth1 dev eth1 1024",
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

describe("parseIpRouteGet()", () => {
  it("finds interface, gateway and source", () => {
    const v4 = "198.41.0.4 via 10.8.0.1 dev tun0 src 10.8.0.2 uid 0 \n    cache \n";
    const v6 = "2001:503:ba3e::2:30 from :: via fe80::1 dev eth0 proto ra src 2001:db8::23 " +
      "metric 1024 hoplimit 64 pref medium\n";

    assertEquals(parseIpRouteGet(v4), {
      interface: "tun0",
      gateway: "10.8.0.1",
      localAddress: "10.8.0.2",
    });
    assertEquals(parseIpRouteGet(v6), {
      interface: "eth0",
      gateway: "fe80::1%eth0",
      localAddress: "2001:db8::23",
    });
  });

  it("gives a link-local source its zone, and knows none that is not told", () => {
    const of = (text: string) => parseIpRouteGet(text)?.localAddress;
    assertEquals(of("fe80::1 dev eth0 src fe80::5 metric 9"), "fe80::5%eth0");
    assertEquals(of("2001:db8::1 dev eth0 src 2001:DB8::5 metric 9"), "2001:db8::5");
    assertEquals(of("192.0.2.1 dev eth0"), undefined);
  });

  it("finds no gateway where the interface itself leads there", () => {
    const text = "10.2.0.1 dev wg0 table 51820 src 10.2.0.2 uid 0 \n    cache \n";
    const linkLocal = "fe80::1 from :: dev eth0 proto kernel src fe80::23 metric 256\n";

    assertEquals(parseIpRouteGet(text), {
      interface: "wg0",
      gateway: undefined,
      localAddress: "10.2.0.2",
    });
    assertEquals(parseIpRouteGet(linkLocal)?.localAddress, "fe80::23%eth0");
  });

  it("finds nothing in an error message", () => {
    for (const text of ["", "RTNETLINK answers: Network is unreachable\n", "dev"]) {
      assertEquals(parseIpRouteGet(text), undefined);
    }
  });
});

describe("parseFleetingIpAddr()", () => {
  it("finds what 'ip -6 addr' marks as temporary, deprecated or tentative", () => {
    const text = `2: eth0: <BROADCAST,MULTICAST,UP,LOWER_UP> mtu 1500 state UP qlen 1000
    inet6 2001:db8::1/64 scope global dynamic mngtmpaddr noprefixroute
       valid_lft 86391sec preferred_lft 14391sec
    inet6 2001:db8::a1b2/64 scope global temporary dynamic
       valid_lft 604791sec preferred_lft 86391sec
    inet6 2001:db8:1::1/64 scope global deprecated dynamic mngtmpaddr
       valid_lft 3000sec preferred_lft 0sec
    inet6 2001:db8::3/64 scope global tentative
       valid_lft forever preferred_lft forever
    inet6 fe80::1/64 scope link
`;

    const fleeting = parseFleetingIpAddr(text);

    assertEquals([...fleeting], ["2001:db8::a1b2", "2001:db8:1::1", "2001:db8::3"]);
  });
});

describe("parseFleetingAddresses()", () => {
  it("goes by each of the four flags alone, and by no other", () => {
    const line = (flags: number) =>
      `20010db8${"0".repeat(20)}0005 02 40 00 ${flags.toString(16).padStart(2, "0")} eth0\n`;
    const fleeting = [0x01, 0x02, 0x04, 0x08, 0x10, 0x20, 0x40, 0x80, 0x100]
      .filter((flag) => parseFleetingAddresses(line(flag)).size > 0);
    assertEquals(fleeting, [0x01, 0x08, 0x20, 0x40]);
  });

  it("finds none in what is no such line", () => {
    for (const start of ["", "20010db8", "x".repeat(32), "0".repeat(33)]) {
      assertEquals([...parseFleetingAddresses(`${start} 02 40 00 01 eth0\n`)], []);
    }
  });

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
