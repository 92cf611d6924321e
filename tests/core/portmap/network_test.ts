/**
 * What the mapper makes of the network: gateways that come, go and fail, and several at once. Each
 * gateway is answered for by a simulated one, by hand.
 *
 * @module
 */
import { describe, it } from "node:test";
import { assert, assertEquals, assertThrows } from "@std/assert";
import type { SimulatedGateway } from "../../../core/gateway/gateway.ts";
import type { Instant, SendAction } from "../../../core/machine.ts";
import type { PortMapper } from "../../../core/portmap/mapper.ts";
import { A, B, Net, SIX, web } from "./net.ts";
import { told } from "./rig.ts";

describe("a gateway's socket", () => {
  const spec = {
    key: "gateway 1",
    connect: A.gateway,
    local: { address: A.localAddress!, port: 0 },
  };

  it("is wanted at this host's address and at any port, and again after five seconds in vain", () => {
    const net = new Net();
    net.connect([A], []);
    assertEquals(net.mapper.sockets(), [spec]);
    const failure = { ok: false, code: "network", message: "no", isOpen: false } as const;
    net.do((mapper, now) => mapper.handleSocket(spec.key, failure, now));
    assertEquals([net.mapper.sockets(), net.mapper.nextTimeout()], [[], 5000]);
    net.run(2000);
    net.do((mapper, now) => mapper.handleTimeout(now));
    net.run(2999);
    assertEquals(net.mapper.sockets(), []);
    net.run(1);
    assertEquals(net.mapper.sockets(), [spec]);
  });

  it("that could not be had is wanted at once where this host has another address, or another way", () => {
    const failure = { ok: false, code: "network", message: "no", isOpen: false } as const;
    for (const change of [{ localAddress: "192.168.1.101" }, { way: "wlan0" }]) {
      const net = new Net();
      const before = { ...A, way: "eth0" };
      net.do((mapper, now) => mapper.networkChanged([before], now));
      net.do((mapper, now) => mapper.handleSocket(spec.key, failure, now));
      // The same network is no news.
      net.do((mapper, now) => mapper.networkChanged([before], now));
      assertEquals(net.mapper.sockets(), []);
      const id = net.do((mapper, now) => mapper.askAddresses(undefined, now));
      assertEquals(net.takeTypes(), ["external-addresses-told"]);
      net.do((mapper, now) => mapper.networkChanged([{ ...before, ...change }], now));
      const address = change.localAddress ?? A.localAddress!;
      assertEquals(net.mapper.sockets().map(({ local }) => local), [{ address, port: 0 }]);
      assertEquals(net.mapper.nextTimeout(), undefined);
      // What is asked now waits for that one.
      assert(net.do((mapper, now) => mapper.askAddresses(undefined, now)) > id);
      assertEquals(net.takeTypes(), []);
    }
  });

  it("is kept where the gateway is left, until it has heard of all that is deleted", () => {
    const net = new Net({ protocols: ["pcp"] });
    net.add(A, "203.0.113.7");
    net.connect([A]);
    net.do((mapper, now) => mapper.map(web, now));
    net.silent.add(A.gateway.address);
    net.sent.length = 0;
    net.connect([]);
    net.run(1500);
    assertEquals(net.mapper.sockets(), [spec]);
    assert(net.sent.length > 1 && net.sent.every(({ data }) => data[7] === 0), "deletions");
    net.run(60_000);
    assertEquals(net.mapper.sockets(), []);
  });

  /** A gateway that is left while a mapping there is being deleted, and silent. */
  const left = () => {
    const net = new Net({ protocols: ["pcp"] });
    net.add(A, "203.0.113.7");
    net.connect([{ ...A, way: "eth0" }]);
    net.do((mapper, now) => mapper.map(web, now));
    net.silent.add(A.gateway.address);
    return net;
  };

  for (const isOpen of [true, false]) {
    const what = isOpen ? "is wanted all the same" : "is wanted no more, and not waited for longer";
    it(`${what} where a deletion to a gateway that was left has not left`, () => {
      const net = left();
      net.connect([]);
      net.do((mapper, now) =>
        mapper.handleSocket(
          spec.key,
          { ok: false, code: "network", message: "no", isOpen },
          now,
        )
      );
      assertEquals(net.mapper.sockets(), isOpen ? [spec] : []);
      net.run(1999);
      assertEquals(Object.keys(net.mapper.stats.clients).length, 1);
      net.run(1);
      assertEquals([net.mapper.sockets(), Object.keys(net.mapper.stats.clients)], [[], []]);
    });
  }

  it("that opens only after its gateway was left keeps nothing waiting for that gateway", () => {
    const net = left();
    net.connect([{ ...A, way: "wlan0" }], []);
    const [{ key }] = net.mapper.sockets() as [{ key: string }];
    net.connect([]);
    net.do((mapper, now) =>
      mapper.handleSocket(key, { ok: true, local: { address: A.localAddress!, port: 9 } }, now)
    );
    net.run(1999);
    assertEquals(net.mapper.sockets().length, 1);
    net.run(1);
    assertEquals(net.mapper.sockets(), []);
  });

  it("is wanted, but not that for announcements, where its gateway is left", () => {
    const net = new Net({ announcements: true });
    net.add(A, "203.0.113.7");
    net.connect([A]);
    net.do((mapper, now) => mapper.map(web, now));
    assertEquals(net.mapper.sockets().length, 2);
    net.silent.add(A.gateway.address);
    net.connect([]);
    assertEquals(net.mapper.sockets(), [spec]);
  });

  it("is kept where something does not leave once its gateway is back", () => {
    const net = left();
    net.connect([]);
    net.connect([A], []);
    net.do((mapper, now) =>
      mapper.handleSocket(
        mapper.sockets()[0]!.key,
        { ok: false, code: "network", message: "no", isOpen: true },
        now,
      )
    );
    assertEquals(net.mapper.sockets().length, 1);
  });
});

describe("several gateways", () => {
  it("of two families IPv4 is asked, whichever socket is open first", () => {
    const net = new Net();
    net.add(A, "203.0.113.7");
    net.add(SIX, "");
    net.do((mapper, now) => mapper.networkChanged([A, SIX], now));
    net.do((mapper, now) => mapper.map(web, now));
    net.connect([A, SIX], [SIX, A]);
    const mapped = told(net.events[0], "mapped");
    assertEquals(mapped.mapping.gateway, A.gateway);
    assertEquals([net.ports(A), net.ports(SIX)], [[8080], []]);
    net.do((mapper, now) => mapper.map({ ...web, family: 6 }, now));
    assertEquals(told(net.events[1], "mapped").mapping.gateway, SIX.gateway);
  });

  it("the next one is asked a second later, and what the loser grants late is deleted", () => {
    const net = new Net({ protocols: ["pcp"] });
    net.add(A, "203.0.113.7");
    net.add(B, "198.51.100.7");
    net.silent.add(A.gateway.address);
    net.connect([A, B]);
    net.do((mapper, now) => mapper.map(web, now));
    net.run(999);
    assertEquals(net.takeTypes(), []);
    net.run(1);
    assertEquals(told(net.events[0], "mapped").mapping.gateway, B.gateway);
    // What A had been asked it grants only now; the deletion is on its way behind it.
    net.silent.clear();
    for (const sent of net.sent.filter(({ to }) => to.address === A.gateway.address)) {
      net.deliver(sent);
    }
    net.run(5000);
    assertEquals([net.ports(A), net.ports(B)], [[], [8080]]);
  });

  it("two that grant in one turn leave one mapping", () => {
    const net = new Net({ protocols: ["pcp"] });
    net.add(A, "203.0.113.7");
    net.add(B, "198.51.100.7");
    net.silent.add(A.gateway.address).add(B.gateway.address);
    net.connect([A, B]);
    net.do((mapper, now) => mapper.map(web, now));
    net.run(1500);
    net.silent.clear();
    const requests = ["192.168.1.1", "192.168.2.1"].map((address) =>
      net.sent.find(({ to }) => to.address === address)!
    );
    for (const request of requests) net.deliver(request);
    net.settle();
    net.run(5000);
    assertEquals(net.takeTypes(), ["mapped"]);
    assertEquals([...net.ports(A), ...net.ports(B)], [8080]);
    net.do((mapper, now) => mapper.close(now));
    assertEquals([net.ports(A), net.ports(B), net.mapper.isIdle], [[], [], true]);
  });

  it("where the one that held a mapping has fallen silent, the next is asked a second later", () => {
    const net = new Net();
    net.add(A, "203.0.113.7");
    net.add(B, "198.51.100.7");
    net.connect([A, B]);
    net.do((mapper, now) => mapper.map({ ...web, lifetimeSeconds: 120 }, now));
    net.silent.add(A.gateway.address);
    net.run(120_999);
    assertEquals(net.takeTypes(), ["mapped", "lost"]);
    net.run(1);
    assertEquals(told(net.events[0], "recovered").mapping.gateway, B.gateway);
  });

  it("a protocol that was refused is not tried anew before its time, though it may be got around", () => {
    const net = new Net({ protocols: ["pcp", "nat-pmp"] });
    const gateway = net.add(A, "203.0.113.7");
    net.connect([A]);
    const id = net.do((mapper, now) => mapper.map({ ...web, lifetimeSeconds: 120 }, now));
    net.silent.add(A.gateway.address);
    for (let i = 0; i < 1000 && net.mapper.mapping(id); i++) net.run(500);
    net.silent.clear();
    // UNSUPP_OPCODE, for half an hour.
    gateway.setRefusal(4, net.now);
    net.sent.length = 0;
    const asked = () => net.sent.filter(({ data }) => data[0] === 2).length;
    net.run(1_700_000);
    assertEquals(asked(), 1);
    net.run(200_000);
    assertEquals(asked(), 2);
    // A gateway that has begun anew has refused nothing.
    gateway.reboot(net.now);
    net.run(120_000);
    assertEquals(asked(), 3);
  });

  it("one that refuses does not keep the next from being asked at once", () => {
    const net = new Net();
    net.add(A, "203.0.113.7").setRefusal(8, 0);
    net.add(B, "198.51.100.7");
    net.connect([A, B]);
    net.do((mapper, now) => mapper.map(web, now));
    assertEquals(told(net.events[0], "mapped").mapping.gateway, B.gateway);
    assertEquals(net.now, 0);
  });
});

describe("networks", () => {
  it("home, café without any protocol, home: the mapping is back", () => {
    const net = new Net();
    net.add(A, "203.0.113.7");
    net.connect([A]);
    const id = net.do((mapper, now) => mapper.map(web, now));
    assertEquals(net.takeTypes(), ["mapped"]);
    net.connect([B]);
    net.run(3 * 60_000);
    assertEquals(net.takeTypes(), ["lost"]);
    assertEquals(net.mapper.mapping(id), undefined);
    net.connect([A]);
    assertEquals(net.takeTypes(), ["recovered"]);
    assertEquals(net.ports(A), [8080]);
  });

  it("what was due in a sleep is not asked for from the address that the host had before it", () => {
    const net = new Net({ protocols: ["pcp"] });
    net.add(A, "203.0.113.7");
    net.connect([A]);
    net.do((mapper, now) => mapper.map(web, now));
    net.sent.length = 0;
    net.now = 5_000_000;
    // Carried to a network whose first gateway has the same address.
    net.connect([{ ...A, localAddress: "192.168.1.101" }, B]);
    assertEquals(net.sent.map(({ data }) => data[23]), [101]);
  });

  it("nor while its socket is not open at the new one, though the network changes again", () => {
    const net = new Net({ protocols: ["pcp"] });
    const { gateway } = net.add(A, "203.0.113.7") && A;
    const open = (address: string) =>
      net.do((mapper, now) => {
        const [{ key }] = mapper.sockets() as [{ key: string }];
        mapper.handleSocket(key, { ok: true, local: { address, port: 40_000 } }, now);
      });
    net.do((mapper, now) => mapper.networkChanged([{ gateway, way: "eth0" }], now));
    net.silent.add(gateway.address);
    open(A.localAddress!);
    net.do((mapper, now) => mapper.map(web, now));
    net.do((mapper, now) => mapper.networkChanged([{ gateway, way: "wlan0" }], now));
    net.sent.length = 0;
    net.now = 5_000_000;
    net.do((mapper, now) => mapper.networkChanged([{ gateway, way: "wlan0" }, B], now));
    assertEquals(net.sent, []);
    open("192.168.1.101");
    assertEquals([...new Set(net.sent.map(({ data }) => data[23]))], [101]);
  });

  for (const protocols of [["pcp"], ["nat-pmp"]] as const) {
    it(`a gateway that is back before it was done with is asked at once, by ${protocols[0]}`, () => {
      const net = new Net({ protocols });
      net.add(A, "203.0.113.7");
      net.connect([A]);
      net.do((mapper, now) => mapper.map(web, now));
      net.silent.add(A.gateway.address);
      net.connect([]);
      net.run(200);
      net.silent.clear();
      net.connect([A]);
      // First what was to be deleted is; then it is made anew.
      net.run(2000);
      assertEquals(net.takeTypes(), ["mapped", "lost", "recovered"]);
      assertEquals([net.ports(A), net.mapper.gateways], [[8080], [A.gateway]]);
      net.run(10_000);
      assertEquals(net.mapper.sockets().length, 1);
    });
  }

  it("no gateway at all for a while: the mapping waits and comes back", () => {
    const net = new Net();
    net.add(A, "203.0.113.7");
    net.connect([A]);
    net.do((mapper, now) => mapper.map(web, now));
    net.connect([]);
    net.run(60_000);
    net.connect([A]);
    assertEquals(net.takeTypes(), ["mapped", "lost", "recovered"]);
  });

  it("a mapping that is asked for before there is a gateway is made when there is one", () => {
    const net = new Net();
    net.add(A, "203.0.113.7");
    net.do((mapper, now) => mapper.map(web, now));
    assertEquals(net.takeTypes(), []);
    net.connect([A]);
    assertEquals(net.takeTypes(), ["mapped"]);
  });

  it("a gateway that is left holds nothing afterwards, where it can be reached", () => {
    const net = new Net();
    net.add(A, "203.0.113.7");
    net.add(B, "198.51.100.7");
    net.connect([A, B]);
    net.do((mapper, now) => mapper.map(web, now));
    net.connect([B]);
    net.run(5000);
    assertEquals(net.takeTypes(), ["mapped", "lost", "recovered"]);
    assertEquals([net.ports(A), net.ports(B)], [[], [8080]]);
    assertEquals(net.mapper.sockets().length, 1);
  });

  it("of gateways that are left at once, none is asked because of another", () => {
    const net = new Net({ protocols: ["pcp", "nat-pmp"] });
    const C = { gateway: { address: "192.168.3.1", port: 5351 }, localAddress: "192.168.3.100" };
    net.add(A, "203.0.113.7");
    net.add(B, "198.51.100.7");
    net.add(C, "198.51.100.8");
    net.connect([A, B]);
    const id = net.do((mapper, now) => mapper.map({ ...web, lifetimeSeconds: 120 }, now));
    const askedOfB = () => net.sent.filter(({ to }) => to.address === B.gateway.address).length;
    net.connect([C]);
    assertEquals([net.takeTypes(), askedOfB()], [["mapped", "lost", "recovered"], 0]);
    // Nor where the first has lost it before, and the second is next in line.
    net.connect([A, B]);
    net.silent.add(A.gateway.address);
    for (let i = 0; i < 1000 && net.mapper.mapping(id); i++) net.run(500);
    assertEquals([net.takeTypes(), askedOfB()], [["lost", "recovered", "lost"], 0]);
    net.connect([C]);
    assertEquals([net.takeTypes(), askedOfB()], [["recovered"], 0]);
  });

  it("a way that is told after its socket is open is the same one where it is that socket's", () => {
    const net = new Net();
    net.add(A, "203.0.113.7");
    net.connect([A]);
    net.do((mapper, now) => mapper.map(web, now));
    const [before] = net.mapper.sockets();
    net.connect([{ ...A, way: A.localAddress! }]);
    assertEquals(net.mapper.sockets()[0]!.key, before!.key);
    net.connect([{ ...A, way: "192.168.1.101" }]);
    assert(net.mapper.sockets()[0]!.key !== before!.key);
  });

  it("another way to the same gateway opens the socket anew, and asks from there", () => {
    const net = new Net();
    net.add(A, "203.0.113.7");
    net.connect([{ ...A, way: "eth0" }]);
    net.do((mapper, now) => mapper.map(web, now));
    const before = net.mapper.sockets();
    assert(net.mapper.sockets() === before);
    net.connect([{ ...A, way: "wlan0" }]);
    assert(net.mapper.sockets()[0]!.key !== before[0]!.key);
    assertEquals(net.takeTypes(), ["mapped"]);
    // To the gateway it is another host, to which the port of the first is not free.
    net.connect([{ ...A, way: "wlan0", localAddress: "192.168.1.101" }]);
    assertEquals(net.takeTypes(), ["moved"]);
  });

  it("announcements over IPv6 are listened for on the interface towards the gateway", () => {
    const net = new Net({ announcements: true });
    net.connect([{ ...SIX, interface: "eth0" }]);
    const [, group] = net.mapper.sockets();
    assertEquals([group?.group, group?.interface], ["ff02::1", "eth0"]);
  });

  it("announcements over IPv4 are listened for on this host's address, beside other programs", () => {
    const net = new Net({ announcements: true });
    net.connect([A]);
    assertEquals(net.mapper.sockets()[1], {
      key: "announcements 1",
      local: { address: "224.0.0.1", port: 5350 },
      group: "224.0.0.1",
      reuse: true,
      interface: A.localAddress!,
    });
  });

  it("a socket that opens after all is used, whatever was said of it before", () => {
    const net = new Net();
    net.add(A, "203.0.113.7");
    net.do((mapper, now) => mapper.networkChanged([A], now));
    const { key } = net.mapper.sockets()[0]!;
    const failure = { ok: false, code: "permission", message: "no", isOpen: false } as const;
    net.do((mapper, now) => mapper.handleSocket(key, failure, now));
    assertEquals(net.mapper.sockets(), []);
    net.do((mapper, now) =>
      mapper.handleSocket(key, { ok: true, local: { address: A.localAddress!, port: 4 } }, now)
    );
    assertEquals(net.mapper.sockets().map((spec) => spec.key), [key]);
    assertEquals(net.mapper.nextTimeout(), undefined);
  });

  it("of two families what is mapped by both stays so where IPv4 is gone, and comes back with it", () => {
    const net = new Net({ protocols: ["pcp"] });
    net.add(A, "203.0.113.7");
    net.add(SIX, "");
    net.connect([A, SIX]);
    const id = net.do((mapper, now) => mapper.map(web, now));
    for (
      const over of [
        (mapper: PortMapper, now: Instant) => mapper.map({ ...web, family: 6 }, now),
        (mapper: PortMapper, now: Instant) => mapper.watch({ ...web, family: 6 }, now),
      ]
    ) {
      const other = net.do(over);
      net.connect([SIX]);
      net.run(120_000);
      assertEquals([net.mapper.mapping(id), net.ports(A), net.ports(SIX)], [undefined, [], [8080]]);
      net.connect([A, SIX]);
      net.run(10_000);
      assertEquals([net.mapper.mapping(id)?.gateway, net.ports(A)], [A.gateway, [8080]]);
      net.do((mapper, now) => mapper.revoke(other, now));
      net.run(1000);
      assertEquals(net.ports(SIX), []);
    }
  });

  it("of two families what has gone to IPv6 has its port there, also when IPv4 is back", () => {
    const net = new Net({ protocols: ["pcp"] });
    net.add(A, "203.0.113.7");
    net.add(SIX, "");
    net.connect([A]);
    net.do((mapper, now) => mapper.map(web, now));
    net.connect([SIX]);
    net.connect([A, SIX]);
    assertEquals(net.ports(SIX), [8080]);
    for (const ask of ["map", "watch"] as const) {
      const again = () => net.mapper[ask]({ ...web, family: 6 }, net.now);
      assertThrows(again, TypeError, "it is mapped already");
    }
    net.run(60_000);
    assertEquals(net.takeTypes(), ["mapped", "lost", "recovered"]);
  });

  it("a host that gets the address for which it maps as another's goes on, and tells it is lost", () => {
    const net = new Net({ protocols: ["pcp"] });
    net.add(A, "203.0.113.7", { allowThirdParty: true });
    net.connect([A]);
    const thirdParty = "192.168.1.50";
    net.do((mapper, now) => mapper.map({ ...web, thirdParty, lifetimeSeconds: 600 }, now));
    net.connect([{ ...A, localAddress: thirdParty }]);
    net.run(86_400_000);
    assertEquals(net.takeTypes(), ["mapped", "lost"]);
    net.connect([A]);
    net.run(120_000);
    assertEquals(net.takeTypes(), ["recovered"]);
  });

  it("counters are listed by gateway, whichever way leads there", () => {
    const net = new Net({ protocols: ["pcp"] });
    net.add(A, "203.0.113.7");
    for (const way of ["one", "two"]) net.connect([{ ...A, way }]);
    assertEquals(Object.keys(net.mapper.stats.clients), ["gateway 1 pcp"]);
    net.connect([]);
    assertEquals(Object.keys(net.mapper.stats.clients), []);
  });

  it("a gateway that is left is left once, however often the network changes", () => {
    const net = new Net();
    net.add(A, "203.0.113.7");
    net.connect([A]);
    net.do((mapper, now) => mapper.map(web, now));
    net.silent.add(A.gateway.address);
    net.connect([B]);
    net.connect([B, SIX]);
    assertEquals(net.mapper.stats.left, 1);
  });

  it("another gateway's announcement on loopback, whose address they share, is dropped", () => {
    const gateway = { address: "127.0.0.1", port: 40_000 };
    const net = new Net({ protocols: ["nat-pmp"] });
    net.connect([{ gateway, localAddress: gateway.address }]);
    const announcement = Uint8Array.from({ length: 24 }, (_, i) => [2, 0x80][i] ?? 0);
    const { key } = net.mapper.sockets()[0]!;
    const hear = (port: number) =>
      net.mapper.handleDatagram(announcement, { ...gateway, port }, key, net.now);
    assertEquals([hear(40_001), net.mapper.stats.wrongSource], [false, 1]);
    assertEquals([hear(40_000), net.mapper.stats.wrongSource], [true, 1]);
  });

  it("a gateway where nothing is held any more is not asked whether that is there still", () => {
    const net = new Net({ protocols: ["nat-pmp"] });
    net.add(A, "203.0.113.7");
    net.connect([A]);
    const announcement = Uint8Array.from({ length: 24 }, (_, i) => [2, 0x80][i] ?? 0);
    const { key } = net.mapper.sockets()[0]!;
    const hear = () =>
      net.do((mapper, now) => mapper.handleDatagram(announcement, A.gateway, key, now));
    const id = net.do((mapper, now) => mapper.map(web, now));
    net.run(10_000);
    net.sent.length = 0;
    hear();
    assertEquals(net.sent.length, 1);
    // Not more often than every five seconds.
    net.run(4999);
    hear();
    assertEquals(net.sent.length, 1);
    net.run(1);
    hear();
    assertEquals(net.sent.length, 2);
    net.do((mapper, now) => mapper.revoke(id, now));
    net.run(10_000);
    net.sent.length = 0;
    hear();
    assertEquals([net.sent, net.mapper.isIdle], [[], true]);
  });

  it("a gateway that is left with nothing there is done with at once", () => {
    const net = new Net();
    net.add(A, "203.0.113.7");
    net.connect([A]);
    net.connect([B]);
    assertEquals(net.mapper.sockets().map(({ local }) => local?.address), [B.localAddress]);
    assertEquals([net.mapper.stats.paths, net.mapper.stats.left], [2, 1]);
  });

  it("one gateway whose socket cannot be had leaves the other one to map", () => {
    const net = new Net();
    net.add(B, "198.51.100.7");
    net.do((mapper, now) => mapper.networkChanged([A, B], now));
    const id = net.do((mapper, now) => mapper.map(web, now));
    const failure = { ok: false, code: "permission", message: "no", isOpen: false } as const;
    net.do((mapper, now) => mapper.handleSocket(mapper.sockets()[0]!.key, failure, now));
    assertEquals(net.takeTypes(), []);
    net.connect([A, B], [B]);
    net.run(2000);
    assertEquals([net.takeTypes(), net.mapper.mapping(id)?.gateway], [["mapped"], B.gateway]);
  });

  it("two ways to one gateway are one path, the first", () => {
    const net = new Net();
    net.add(A, "203.0.113.7");
    const other = { ...A, way: "wlan0", localAddress: "192.168.1.101" };
    for (let i = 0; i < 2; i++) {
      net.connect([{ ...A, way: "eth0" }, other]);
      assertEquals(net.mapper.sockets().map(({ local }) => local?.address), [A.localAddress]);
      assertEquals(net.mapper.gateways, [A.gateway]);
    }
    net.do((mapper, now) => mapper.map(web, now));
    assertEquals(net.takeTypes(), ["mapped"]);
  });

  it("a socket that could not be opened is tried again; who waits is told why at once", () => {
    const net = new Net();
    net.add(A, "203.0.113.7");
    net.do((mapper, now) => mapper.networkChanged([A], now));
    net.do((mapper, now) => mapper.map(web, now));
    const { key } = net.mapper.sockets()[0]!;
    const failure = { ok: false, code: "permission", message: "no", isOpen: false } as const;
    net.do((mapper, now) => mapper.handleSocket(key, failure, now));
    const failed = told(net.events[0], "failed");
    assertEquals([failed.code, failed.message], ["permission", "no"]);
    assertEquals(net.mapper.sockets(), []);
    net.run(5000);
    net.connect([A]);
    net.do((mapper, now) => mapper.map(web, now));
    assertEquals(net.takeTypes(), ["failed", "mapped"]);
  });

  it("what does not leave fails a first request at once, and takes no held mapping away", () => {
    const net = new Net();
    net.add(A, "203.0.113.7");
    net.connect([A]);
    const held = net.do((mapper, now) => mapper.map(web, now));
    net.silent.add(A.gateway.address);
    net.do((mapper, now) => mapper.map({ protocol: "udp", internalPort: 9 }, now));
    const { key } = net.mapper.sockets()[0]!;
    const failure = { ok: false, code: "network", message: "EPERM", isOpen: true } as const;
    net.do((mapper, now) => mapper.handleSocket(key, failure, now));
    assertEquals(net.takeTypes(), ["mapped", "failed"]);
    assert(net.mapper.mapping(held) !== undefined);
    net.silent.clear();
    net.run(2 * 3_600_000);
    assertEquals([...new Set(net.takeTypes())], ["renewed"]);
  });

  it("closing in the middle of a move ends", () => {
    const net = new Net();
    net.add(A, "203.0.113.7");
    net.connect([A]);
    net.do((mapper, now) => mapper.map(web, now));
    net.do((mapper, now) => mapper.networkChanged([B], now));
    net.do((mapper, now) => mapper.close(now));
    net.run(5000);
    assertEquals(net.mapper.isIdle, true);
    assertEquals(net.takeTypes(), ["mapped", "lost", "unmapped"]);
    assertEquals(net.ports(A), []);
  });
});

describe("modes", () => {
  for (const mode of ["once", 3] as const) {
    it(`${mode}: refused at the next gateway it is asked for again, and can be ended`, () => {
      const net = new Net({ protocols: ["pcp"] });
      net.add(A, "203.0.113.7");
      const next = net.add(B, "198.51.100.7");
      next.setRefusal(8, 0);
      net.connect([A]);
      const id = net.do((mapper, now) => mapper.map({ ...web, mode }, now));
      net.connect([B]);
      net.run(3_600_000);
      assertEquals(net.takeTypes(), ["mapped", "lost"]);
      next.setRefusal(undefined, net.now);
      net.run(3_600_000);
      assertEquals(net.takeTypes(), ["recovered"]);
      assertEquals(net.ports(B), [8080]);
      next.setRefusal(8, net.now);
      net.connect([A]);
      net.run(5000);
      net.connect([B]);
      net.run(5000);
      assertEquals(net.takeTypes(), ["lost", "recovered", "lost"]);
      net.do((mapper, now) => mapper.revoke(id, now));
      net.run(5000);
      assertEquals(net.takeTypes(), ["unmapped"]);
      assert(net.mapper.isIdle);
    });
  }
});

describe("protocols over tables of their own", () => {
  /** PCP answers late, NAT-PMP at once, and each has a table: two gateways at one address. */
  function twoTables(): { net: Net; pcp: SimulatedGateway; natPmp: SimulatedGateway } {
    const net = new Net();
    const natPmp = net.add(A, "203.0.113.7", { protocols: ["nat-pmp"] });
    const pcp = net.add(B, "203.0.113.7", { protocols: ["pcp"] });
    const deliver = net.deliver.bind(net);
    net.deliver = (sent) => {
      if (sent.data[0] === 0) deliver(sent);
    };
    return { net, pcp, natPmp };
  }

  /** NAT-PMP has the mapping, or is about to, and PCP answers only where that is said. */
  function lateAnswers(isGranted = true) {
    const { net, pcp, natPmp } = twoTables();
    const { deliver } = net;
    const isMap = ({ data }: SendAction) => data[0] === 0 && data.length > 2;
    /** NAT-PMP's request comes through. */
    const grant = () => deliver(net.sent.find(isMap)!);
    net.deliver = (sent) => isMap(sent) && !isGranted ? undefined : deliver(sent);
    net.connect([A]);
    net.do((mapper, now) => mapper.map(web, now));
    net.run(40);
    assertEquals(net.mapper.stats.won["nat-pmp"], isGranted ? 1 : 0);
    const from = { address: A.localAddress!, port: 40_000 };
    const { key } = net.mapper.sockets()[0]!;
    /** PCP's requests from the given one on, answered. */
    const answer = (first: number) => {
      for (const { data } of net.sent.slice(first).filter(({ data }) => data[0] === 2)) {
        pcp.handleDatagram(data, from, "server", net.now);
        const reply = pcp.poll();
        if (reply?.type !== "send") continue;
        net.mapper.handleDatagram(reply.data, A.gateway, key, net.now);
      }
      net.settle();
    };
    net.run(80);
    return { net, pcp, natPmp, answer, grant };
  }

  for (const isGranted of [true, false]) {
    it(`what PCP grants at another port ${isGranted ? "after" : "before"} NAT-PMP is deleted at once`, () => {
      const { net, pcp, natPmp, answer, grant } = lateAnswers(isGranted);
      pcp.addStatic("tcp", web.internalPort, { address: "192.168.1.9", port: 1 }, net.now);
      const before = net.sent.length;
      answer(0);
      if (!isGranted) {
        assertEquals(pcp.list(net.now).length, 2);
        grant();
        net.settle();
      }
      answer(before);
      assertEquals([pcp.list(net.now).length, natPmp.list(net.now).length], [1, 1]);
      assertEquals(net.takeTypes(), ["mapped"]);
    });
  }

  it("what PCP grants after NAT-PMP has won is deleted with it at the end", () => {
    const { net, pcp, natPmp, answer } = lateAnswers();
    answer(0);
    assertEquals([pcp.list(net.now).length, natPmp.list(net.now).length], [1, 1]);
    const before = net.sent.length;
    net.do((mapper, now) => mapper.close(now));
    answer(before);
    assertEquals([pcp.list(net.now).length, natPmp.list(net.now).length], [0, 0]);
    assertEquals(net.mapper.isIdle, true);
  });
});
