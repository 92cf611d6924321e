import { assertEquals } from "@std/assert";
import { describe, it } from "node:test";
import {
  bestRoute,
  isVirtualInterface,
  makeRoute,
  rankRoutes,
  routeLines,
} from "../../../adapters/discovery/route.ts";

const via = (gateway: string, name: string, metric: number, prefixLength: number = 0) =>
  makeRoute(gateway.includes(":") ? 6 : 4, prefixLength, gateway, name, metric);

describe("isVirtualInterface()", () => {
  it("knows tunnels, and bridges to containers and virtual machines", () => {
    const names =
      "tun0 tap1 wg0 wg-home tailscale0 utun4 ppp0 ipsec0 zt5u4y6ej7 nordlynx proton0 docker0 " +
      "br-1a2b3c4d5e6f vethf00 virbr0 vmnet8 vboxnet0 lxcbr0 cni0 podman1 bridge100 awdl0";
    const windows = ["Tailscale", "WireGuard Tunnel", "OpenVPN TAP-Windows6", "vEthernet (WSL)"];

    const missed = [...names.split(" "), ...windows].filter((name) => !isVirtualInterface(name));

    assertEquals(missed, []);
  });

  it("takes no real interface, and no bridge that is a LAN, for one", () => {
    const names = "eth0 enp0s31f6 wlan0 wlp3s0 en0 en7 em0 vtnet0 bond0 br0 br-lan bridge0 end0";
    const windows = ["Ethernet", "Ethernet 2", "Wi-Fi", "WLAN", "Local Area Connection"];

    assertEquals([...names.split(" "), ...windows].filter(isVirtualInterface), []);
  });
});

describe("routeLines()", () => {
  it("are a text's, empty ones too, without what stands at their ends", () => {
    assertEquals([...routeLines("\na \r\n\n b")], ["", "a", "", " b"]);
    assertEquals([...routeLines("a\n")], ["a"]);
    assertEquals([...routeLines("")], []);
    assertEquals([...routeLines("a\n".repeat(100_001))].length, 100_000);
  });
});

describe("rankRoutes()", () => {
  it("puts real interfaces first, then IPv4, then the lower metric; keeps the others", () => {
    const routes = [
      via("10.8.0.1", "tun0", 0),
      via("fe80::1", "eth0", 1),
      via("192.168.1.1", "wlan0", 600),
      via("192.168.0.1", "eth0", 100),
    ];

    const ranked = rankRoutes(routes).map(({ gateway }) => gateway);

    assertEquals(ranked, ["192.168.0.1", "192.168.1.1", "fe80::1%eth0", "10.8.0.1"]);
  });

  it("puts the halves of the default route before it, as the system does", () => {
    const routes = [via("192.168.1.1", "eth0", 0), via("192.168.1.254", "eth0", 600, 1)];

    assertEquals(rankRoutes(routes).map(({ gateway }) => gateway), [
      "192.168.1.254",
      "192.168.1.1",
    ]);
  });

  it("names each gateway once, by its best route, and no route without one", () => {
    const routes = [
      via("192.168.1.1", "wlan0", 600),
      via("0.0.0.0", "wg0", 0),
      via("192.168.1.1", "eth0", 100),
    ];

    assertEquals<unknown>(rankRoutes(routes), [routes[2]]);
  });
});

describe("bestRoute()", () => {
  it("is the longest prefix, of those the lowest metric, of those the first", () => {
    const routes = [
      via("192.168.1.1", "eth0", 0),
      via("10.8.0.1", "tun0", 50, 1),
      via("10.9.0.1", "tun1", 20, 1),
    ];

    assertEquals(bestRoute(routes)?.gateway, "10.9.0.1");
    assertEquals(bestRoute([]), undefined);
    const [one, other] = [via("192.168.1.1", "eth0", 5), via("192.168.1.2", "eth1", 5)];
    assertEquals([bestRoute([one, other]), bestRoute([other, one])], [one, other]);
  });
});

describe("makeRoute()", () => {
  it("knows what is no gateway", () => {
    for (const gateway of ["0.0.0.0", "::", "fe80::", "fe80::%utun0", "link#4", "On-link", ""]) {
      assertEquals(via(gateway, "en0", 0).gateway, undefined);
    }
  });

  it("gives a zone to link-local gateways only", () => {
    assertEquals(via("FE80::A", "eth0", 1).gateway, "fe80::a%eth0");
    assertEquals(via("fe80::a%en1", "eth0", 1).gateway, "fe80::a%en1");
    assertEquals(via("fd00::a", "eth0", 1).gateway, "fd00::a");
    assertEquals(makeRoute(6, 0, "fe80::a", undefined, NaN), {
      family: 6,
      prefixLength: 0,
      gateway: "fe80::a",
      interface: undefined,
      metric: 0,
    });
  });
});
