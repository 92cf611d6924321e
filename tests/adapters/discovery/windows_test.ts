import { assertEquals } from "@std/assert";
import { describe, it } from "node:test";
import { PUBLIC_ADDRESS } from "../../../adapters/discovery/route.ts";
import {
  parseFleetingNetAddresses,
  parseNetRoute,
  parseRoutePrint,
} from "../../../adapters/discovery/windows.ts";

const [V4, V6] = [PUBLIC_ADDRESS[4], PUBLIC_ADDRESS[6]];

describe("parseNetRoute()", () => {
  it("adds a route's metric to its interface's, and spells zones as indexes", () => {
    const text = JSON.stringify([
      {
        DestinationPrefix: "0.0.0.0/0",
        NextHop: "192.168.1.1",
        InterfaceAlias: "Wi-Fi",
        InterfaceIndex: 14,
        RouteMetric: 0,
        InterfaceMetric: 40,
      },
      {
        DestinationPrefix: "::/0",
        NextHop: "fe80::1",
        InterfaceAlias: "Ethernet",
        InterfaceIndex: 12,
        RouteMetric: 256,
        InterfaceMetric: 25,
      },
      {
        DestinationPrefix: "128.0.0.0/1",
        NextHop: "0.0.0.0",
        InterfaceAlias: "Mullvad",
        InterfaceIndex: 40,
        RouteMetric: 0,
        InterfaceMetric: 5,
      },
      {
        DestinationPrefix: "8000::/1",
        NextHop: "::",
        InterfaceAlias: "Mullvad",
        InterfaceIndex: 40,
        RouteMetric: 0,
        InterfaceMetric: 5,
      },
    ]);

    assertEquals(parseNetRoute(text, V4), [
      { family: 4, prefixLength: 0, gateway: "192.168.1.1", interface: "Wi-Fi", metric: 40 },
      { family: 4, prefixLength: 1, gateway: undefined, interface: "Mullvad", metric: 5 },
    ]);
    assertEquals(parseNetRoute(text, V6), [
      { family: 6, prefixLength: 0, gateway: "fe80::1%12", interface: "Ethernet", metric: 281 },
    ]);
  });

  it("finds nothing where the prefix or the next hop is none", () => {
    const route = { DestinationPrefix: "0.0.0.0/0", NextHop: "192.168.1.1", InterfaceIndex: 1 };
    const count = (over: object) =>
      parseNetRoute(JSON.stringify([{ ...route, ...over }]), V4).length;
    assertEquals([count({}), count({ NextHop: 5 }), count({ DestinationPrefix: null })], [1, 0, 0]);
  });

  it("takes a single route, which PowerShell prints without an array", () => {
    const text = "\uFEFF" +
      '{"DestinationPrefix":"0.0.0.0/0","NextHop":"10.0.0.1",' +
      '"InterfaceAlias":"Ethernet 2","InterfaceIndex":7,"RouteMetric":1,' +
      '"InterfaceMetric":null}\r\n';

    assertEquals(parseNetRoute(text, V4), [
      { family: 4, prefixLength: 0, gateway: "10.0.0.1", interface: "Ethernet 2", metric: 1 },
    ]);
  });

  it("finds nothing in other text", () => {
    for (
      const text of ["", "null", "[]", "[null, 3]", '{"NextHop":4}', "Get-NetRoute : not found"]
    ) {
      assertEquals(parseNetRoute(text, V4), []);
    }
  });
});

const ROUTE_PRINT = `===========================================================================
Interface List
 14...3c 6a a7 11 22 33 ......Intel(R) Wi-Fi 6 AX201 160MHz
 12...00 ff aa bb cc dd ......TAP-Windows Adapter V9
  1...........................Software Loopback Interface 1
===========================================================================

IPv4 Route Table
===========================================================================
Active Routes:
Network Destination        Netmask          Gateway       Interface  Metric
          0.0.0.0          0.0.0.0      192.168.1.1    192.168.1.100     50
          0.0.0.0          0.0.0.0         On-link         10.8.0.2     35
          0.0.0.0        128.0.0.0         10.8.0.1         10.8.0.2    281
      128.0.0.0        128.0.0.0         10.8.0.1         10.8.0.2    281
        127.0.0.0        255.0.0.0         On-link         127.0.0.1    331
===========================================================================
Persistent Routes:
  Network Address          Netmask  Gateway Address  Metric
          0.0.0.0          0.0.0.0      192.168.1.9  Default
          0.0.0.0          0.0.0.0      192.168.1.8       1
===========================================================================

IPv6 Route Table
===========================================================================
Active Routes:
 If Metric Network Destination      Gateway
 14    306 ::/0                     fe80::3ea6:2fff:fe11:2233
 12    281 ::/0
                                    fd12:3456:789a:bcde:1234:5678:9abc:def0
  1    331 ::1/128                  On-link
 14    306 fe80::/64                On-link
===========================================================================
Persistent Routes:
  None
`.replaceAll("\n", "\r\n");

describe("parseRoutePrint()", () => {
  it("finds active routes to the internet, and the host's address toward them", () => {
    const found = parseRoutePrint(ROUTE_PRINT, V4)
      .map(({ prefixLength, gateway, metric, localAddress }) =>
        `/${prefixLength} via ${gateway ?? "-"} from ${localAddress} ${metric}`
      );

    assertEquals(found, [
      "/0 via 192.168.1.1 from 192.168.1.100 50",
      "/0 via - from 10.8.0.2 35",
      "/1 via 10.8.0.1 from 10.8.0.2 281",
    ]);
    assertEquals(parseRoutePrint(ROUTE_PRINT, V6).map(({ gateway, metric }) => [gateway, metric]), [
      ["fe80::3ea6:2fff:fe11:2233%14", 306],
      ["fd12:3456:789a:bcde:1234:5678:9abc:def0", 281],
    ]);
  });

  it("needs no English titles", () => {
    const text = `IPv4-Routentabelle
Aktive Routen:
     Netzwerkziel    Netzwerkmaske          Gateway    Schnittstelle Metrik
          0.0.0.0          0.0.0.0    192.168.178.1   192.168.178.23     25
          0.0.0.0          0.0.0.0   Auf Verbindung         10.8.0.2      5
`;

    assertEquals(
      parseRoutePrint(text, V4).map(({ gateway, localAddress }) => [
        gateway,
        localAddress,
      ]),
      [["192.168.178.1", "192.168.178.23"], [undefined, "10.8.0.2"]],
    );
  });

  it("finds nothing in other or cut off text", () => {
    for (const toward of [V4, V6]) {
      assertEquals(parseRoutePrint("", toward), []);
      assertEquals(parseRoutePrint("'route' is not recognized", toward), []);
      for (let end = 0; end < ROUTE_PRINT.length; end++) {
        parseRoutePrint(ROUTE_PRINT.slice(0, end), toward);
      }
    }
  });
});

describe("parseFleetingNetAddresses()", () => {
  it("finds addresses that are not preferred, and those with a random suffix", () => {
    const text = JSON.stringify([
      { IPAddress: "fe80::1%12", State: "Preferred", Suffix: "Link" },
      { IPAddress: "2001:db8::1", State: "Preferred", Suffix: "Link" },
      { IPAddress: "2001:db8::a1b2", State: "Preferred", Suffix: "Random" },
      { IPAddress: "2001:db8:1::1", State: "Deprecated", Suffix: "Link" },
      { IPAddress: "2001:db8::3", State: "Tentative", Suffix: "Manual" },
    ]);

    const fleeting = parseFleetingNetAddresses(text);

    assertEquals([...fleeting], ["2001:db8::a1b2", "2001:db8:1::1", "2001:db8::3"]);
    for (const other of ["", "null", "[3]"]) assertEquals(parseFleetingNetAddresses(other).size, 0);
  });
});
