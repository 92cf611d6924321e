import { assertEquals } from "@std/assert";
import { describe, it } from "node:test";
import {
  bestInterfaceAddress,
  pickLocalAddress,
} from "../../../adapters/discovery/local_address.ts";

const at = (name: string, address: string, prefixLength: number) => ({
  name,
  address,
  prefixLength,
  internal: name === "lo",
});

const HOST = [
  at("lo", "127.0.0.1", 8),
  at("lo", "::1", 128),
  at("eth0", "10.1.2.3", 8),
  at("eth1", "10.9.0.7", 24),
  at("eth0", "fe80::3%eth0", 64),
  at("eth0", "fd00::3", 64),
  at("eth0", "2001:db8:1::aaaa", 64),
  at("eth0", "2001:db8:1::3", 64),
  at("eth1", "fe80::7%eth1", 64),
];

describe("bestInterfaceAddress()", () => {
  it("takes the longest prefix that holds the gateway", () => {
    assertEquals(bestInterfaceAddress(HOST, "10.9.0.1")?.name, "eth1");
    assertEquals(bestInterfaceAddress(HOST, "10.9.1.1")?.name, "eth0");
    assertEquals(bestInterfaceAddress(HOST, "fd00::1")?.address, "fd00::3");
    assertEquals(bestInterfaceAddress(HOST, "127.0.0.53")?.address, "127.0.0.1");
  });

  it("looks for a link-local gateway on the interface of its zone", () => {
    assertEquals(bestInterfaceAddress(HOST, "fe80::1%eth1")?.address, "fe80::7%eth1");
    assertEquals(bestInterfaceAddress(HOST, "fe80::1%eth9"), undefined);
  });

  it("knows zones that are indexes, as Windows has them", () => {
    const windows = [at("Ethernet", "fe80::5%12", 64), at("Wi-Fi", "fe80::6%14", 64)];

    assertEquals(bestInterfaceAddress(windows, "fe80::1%14")?.name, "Wi-Fi");
  });

  it("knows no address toward a gateway in no network of this host", () => {
    assertEquals(bestInterfaceAddress(HOST, "192.168.1.1"), undefined);
    assertEquals(bestInterfaceAddress([], "10.0.0.1"), undefined);
  });
});

describe("pickLocalAddress()", () => {
  it("prefers a global IPv6 address, and of those one that stays", () => {
    const avoid = new Set(["2001:db8:1::aaaa"]);

    assertEquals(pickLocalAddress(HOST, 6), "2001:db8:1::aaaa");
    assertEquals(pickLocalAddress(HOST, 6, { avoid }), "2001:db8:1::3");
  });

  it("takes a temporary address where there is no other global one", () => {
    const interfaces = HOST.filter(({ address }) => address !== "2001:db8:1::3");

    const picked = pickLocalAddress(interfaces, 6, { avoid: new Set(["2001:db8:1::aaaa"]) });

    assertEquals(picked, "2001:db8:1::aaaa");
  });

  it("takes a unique local before a link-local address, and that before none", () => {
    const without = (start: string) => HOST.filter(({ address }) => !address.startsWith(start));

    assertEquals(pickLocalAddress(without("2001"), 6), "fd00::3");
    assertEquals(pickLocalAddress(HOST, 6, { interface: "eth1" }), "fe80::7%eth1");
    assertEquals(pickLocalAddress(HOST, 6, { interface: "eth9" }), undefined);
  });

  it("takes what is reserved after a unique local address, and before a link-local one", () => {
    const host = [at("eth0", "fe80::5%eth0", 64), at("eth0", "fec0::5", 64)];

    assertEquals(pickLocalAddress(host, 6), "fec0::5");
    const temporary = [at("eth0", "fd00::a", 64)];
    assertEquals(pickLocalAddress([...host, ...temporary], 6), "fd00::a");
  });

  it("knows zones that are indexes, as Windows has them", () => {
    const windows = [
      at("Ethernet", "2001:db8::5", 64),
      at("Wi-Fi", "2001:db8::6", 64),
      at("Wi-Fi", "fe80::6%14", 64),
    ];

    assertEquals(pickLocalAddress(windows, 6, { interface: "14" }), "2001:db8::6");
    assertEquals(pickLocalAddress(windows, 6, { interface: "15" }), undefined);
  });

  it("rather takes a deprecated global address than a unique local one", () => {
    const interfaces = [at("eth0", "fd00::3", 64), at("eth0", "2001:db8::3", 64)];

    const picked = pickLocalAddress(interfaces, 6, { avoid: new Set(["2001:db8::3"]) });

    assertEquals(picked, "2001:db8::3");
  });

  it("of unique local and of link-local addresses rather takes one that stays", () => {
    for (const net of ["fd00::", "fe80::"]) {
      const zone = net === "fe80::" ? "%eth0" : "";
      const host = [at("eth0", `${net}a${zone}`, 64), at("eth0", `${net}b${zone}`, 64)];
      const avoid = new Set([`${net}a`]);
      assertEquals(pickLocalAddress(host, 6, { avoid }), `${net}b${zone}`);
      // One that goes is better than none, and than one of a smaller scope.
      const small = [at("eth0", "fe80::c%eth0", 64), host[0]!];
      if (zone === "") assertEquals(pickLocalAddress(small, 6, { avoid }), "fd00::a");
    }
  });

  it("takes IPv4's first, rather no link-local one, never loopback", () => {
    const interfaces = [at("lo", "127.0.0.1", 8), at("eth0", "169.254.3.4", 16)];

    assertEquals(pickLocalAddress(interfaces, 4), "169.254.3.4");
    assertEquals(pickLocalAddress([...interfaces, ...HOST], 4), "10.1.2.3");
    assertEquals(pickLocalAddress([...HOST, at("eth2", "203.0.113.9", 24)], 4), "10.1.2.3");
  });
});
