import { assertEquals } from "@std/assert";
import { describe, it } from "node:test";
import { isVirtualInterface, makeRoute, rankRoutes } from "../../../adapters/discovery/route.ts";

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

describe("rankRoutes()", () => {
  it("puts real interfaces first, then IPv4, then the lower metric; keeps the others", () => {
    const routes = [
      { gateway: "10.8.0.1", interface: "tun0", metric: 0 },
      { gateway: "fe80::1%eth0", interface: "eth0", metric: 1 },
      { gateway: "192.168.1.1", interface: "wlan0", metric: 600 },
      { gateway: "192.168.0.1", interface: "eth0", metric: 100 },
    ];

    const ranked = rankRoutes(routes).map(({ gateway }) => gateway);

    assertEquals(ranked, ["192.168.0.1", "192.168.1.1", "fe80::1%eth0", "10.8.0.1"]);
  });

  it("names each gateway once, by its best route", () => {
    const routes = [
      { gateway: "192.168.1.1", interface: "wlan0", metric: 600 },
      { gateway: "192.168.1.1", interface: "eth0", metric: 100 },
    ];

    assertEquals(rankRoutes(routes), [routes[1]]);
  });
});

describe("makeRoute()", () => {
  it("refuses what is no gateway", () => {
    for (const gateway of ["0.0.0.0", "::", "fe80::", "fe80::%utun0", "link#4", "On-link", ""]) {
      assertEquals(makeRoute(gateway, "en0", 0), undefined);
    }
  });

  it("gives a zone to link-local gateways only", () => {
    assertEquals(makeRoute("FE80::A", "eth0", 1)?.gateway, "fe80::a%eth0");
    assertEquals(makeRoute("fe80::a%en1", "eth0", 1)?.gateway, "fe80::a%en1");
    assertEquals(makeRoute("fd00::a", "eth0", 1)?.gateway, "fd00::a");
    assertEquals(makeRoute("fe80::a", undefined, NaN), {
      gateway: "fe80::a",
      interface: undefined,
      metric: 0,
    });
  });
});
