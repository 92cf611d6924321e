import { assertEquals } from "@std/assert";
import { describe, it } from "node:test";
import { parseNetRoute, parseRoutePrint } from "../../../adapters/discovery/windows.ts";

describe("parseNetRoute()", () => {
  it("adds a route's metric to its interface's, and spells zones as indexes", () => {
    const text = JSON.stringify([
      {
        NextHop: "192.168.1.1",
        InterfaceAlias: "Wi-Fi",
        InterfaceIndex: 14,
        RouteMetric: 0,
        InterfaceMetric: 40,
      },
      {
        NextHop: "fe80::1",
        InterfaceAlias: "Ethernet",
        InterfaceIndex: 12,
        RouteMetric: 256,
        InterfaceMetric: 25,
      },
      {
        NextHop: "0.0.0.0",
        InterfaceAlias: "Mullvad",
        InterfaceIndex: 40,
        RouteMetric: 0,
        InterfaceMetric: 5,
      },
      {
        NextHop: "::",
        InterfaceAlias: "Mullvad",
        InterfaceIndex: 40,
        RouteMetric: 0,
        InterfaceMetric: 5,
      },
    ]);

    assertEquals(parseNetRoute(text), [
      { gateway: "192.168.1.1", interface: "Wi-Fi", metric: 40 },
      { gateway: "fe80::1%12", interface: "Ethernet", metric: 281 },
    ]);
  });

  it("takes a single route, which PowerShell prints without an array", () => {
    const text = "\uFEFF" +
      '{"NextHop":"10.0.0.1","InterfaceAlias":"Ethernet 2","InterfaceIndex":7,"RouteMetric":1,' +
      '"InterfaceMetric":null}\r\n';

    assertEquals(parseNetRoute(text), [
      { gateway: "10.0.0.1", interface: "Ethernet 2", metric: 1 },
    ]);
  });

  it("finds nothing in other text", () => {
    for (
      const text of ["", "null", "[]", "[null, 3]", '{"NextHop":4}', "Get-NetRoute : not found"]
    ) {
      assertEquals(parseNetRoute(text), []);
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
  it("finds active default routes with a gateway, and the host's address toward it", () => {
    assertEquals(parseRoutePrint(ROUTE_PRINT), [
      { gateway: "192.168.1.1", interface: undefined, metric: 50, localAddress: "192.168.1.100" },
      { gateway: "fe80::3ea6:2fff:fe11:2233%14", interface: undefined, metric: 306 },
      {
        gateway: "fd12:3456:789a:bcde:1234:5678:9abc:def0",
        interface: undefined,
        metric: 281,
      },
    ]);
  });

  it("needs no English titles", () => {
    const text = `IPv4-Routentabelle
Aktive Routen:
     Netzwerkziel    Netzwerkmaske          Gateway    Schnittstelle Metrik
          0.0.0.0          0.0.0.0    192.168.178.1   192.168.178.23     25
`;

    assertEquals(parseRoutePrint(text).map(({ gateway }) => gateway), ["192.168.178.1"]);
  });

  it("finds nothing in other or cut off text", () => {
    assertEquals(parseRoutePrint(""), []);
    assertEquals(parseRoutePrint("'route' is not recognized"), []);
    for (let end = 0; end < ROUTE_PRINT.length; end++) parseRoutePrint(ROUTE_PRINT.slice(0, end));
  });
});
