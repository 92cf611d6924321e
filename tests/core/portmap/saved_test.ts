/**
 * What outlives a mapper: mappings of an earlier run, each at the gateway that granted it.
 *
 * @module
 */
import { describe, it } from "node:test";
import { assert, assertEquals } from "@std/assert";
import { toHex, u16 } from "../../../core/bytes.ts";
import type { SavedPort } from "../../../core/portmap/managed.ts";
import type { NetworkPath } from "../../../core/portmap/path.ts";
import { A, B, BETWEEN, Net, OUTER, SIX, web } from "./net.ts";

describe("what was saved of one that another protocol holds", () => {
  it("has the nonce with which PCP was asked: only that deletes what PCP grants late", () => {
    const net = new Net({ protocols: ["pcp", "nat-pmp"] });
    const gateway = net.add(A, "203.0.113.7"), handle = gateway.handleDatagram.bind(gateway);
    gateway.handleDatagram = (data, ...rest) => data[0] !== 2 && handle(data, ...rest);
    net.connect([A]);
    net.do((mapper, now) => mapper.map(web, now));
    net.run(1000);
    const [saved] = net.mapper.exportSaved();
    const asked = net.sent.find(({ data }) => data[0] === 2)!;
    assertEquals([saved?.via, saved?.nonce], ["nat-pmp", toHex(asked.data.subarray(24, 36))]);
  });
});

describe("what is asked and not granted yet", () => {
  it("is kept with the whole wish: the gateway may have granted it by the next run", () => {
    const net = new Net({ protocols: ["pcp", "nat-pmp"] });
    net.silent.add(A.gateway.address);
    net.connect([A]);
    const wish = {
      ...web,
      suggestedExternal: { port: 9000 },
      lifetimeSeconds: 1234,
      mode: "once",
      description: "web",
    } as const;
    net.do((mapper, now) => mapper.map({ ...wish, family: 4, gateway: A.gateway }, now));
    net.do((mapper, now) => mapper.map({ ...web, internalPort: 9, protocols: ["pcp"] }, now));
    const nonces = net.sent.filter(({ data }) => data[0] === 2 && data[1] === 1)
      .map(({ data }) => toHex(data.subarray(24, 36)));
    const at = { via: "pcp", gateway: A.gateway.address } as const;
    assertEquals(net.mapper.exportSaved(), [
      { ...wish, ...at, nonce: nonces[0]! },
      {
        ...web,
        internalPort: 9,
        ...at,
        lifetimeSeconds: 7200,
        mode: "keep-alive",
        nonce: nonces.at(-1)!,
      },
    ]);
  });

  it("is of both protocols one, PCP's before NAT-PMP's", () => {
    const net = new Net({ protocols: ["nat-pmp", "pcp"] });
    const gateway = net.add(A, "203.0.113.7"), handle = gateway.handleDatagram.bind(gateway);
    // NAT-PMP's question is answered; no request is.
    gateway.handleDatagram = (data, ...rest) => data.length === 2 && handle(data, ...rest);
    net.connect([A]);
    net.do((mapper, now) => mapper.map(web, now));
    net.run(1000);
    assert(net.sent.some(({ data }) => data[0] === 0 && data.length === 12));
    assertEquals(net.mapper.exportSaved().map(({ via }) => via), ["pcp"]);
  });
});

describe("the nonce of a request that waits until its gateway has room", () => {
  // It was held at A, which the host has left; B is full for half a minute.
  const atFullGateway = () => {
    const net = new Net({ protocols: ["pcp"] });
    net.add(A, "203.0.113.7");
    const b = net.add(B, "198.51.100.7");
    net.connect([A, B]);
    net.do((mapper, now) => mapper.map(web, now));
    b.setRefusal(8, 0);
    moveToB(net);
    net.sent.length = 0;
    return { net, b };
  };
  const moveToB = (net: Net) => {
    net.connect([A, B]);
    net.do((mapper, now) => mapper.map({ ...web, internalPort: 1, gateway: B.gateway }, now));
    net.connect([B]);
  };
  const savedAtB = ({ mapper }: Net) =>
    mapper.exportSaved().find(({ gateway, internalPort }) =>
      gateway === B.gateway.address && internalPort === web.internalPort
    )?.nonce;

  it("is saved when it leaves, and the application is told by the count", () => {
    const { net, b } = atFullGateway();
    const { nonces } = net.mapper;
    assertEquals([net.sent, savedAtB(net)], [[], undefined]);
    b.setRefusal(undefined, 0);
    net.run(30_000);
    const [asked] = net.sent;
    assertEquals(savedAtB(net), toHex(asked!.data.subarray(24, 36)));
    assertEquals(net.mapper.nonces, nonces + 1);
  });

  it("deletes nothing, however often it was wanted there in vain", () => {
    const { net } = atFullGateway();
    net.connect([A]);
    moveToB(net);
    net.connect([A, B]);
    net.run(1000);
    const toB = net.sent.filter(({ to, data }) =>
      to.address === B.gateway.address && data[1] === 1
    );
    // The one that found out that there is no room.
    assertEquals(toB.map(({ data }) => data.subarray(4, 8).some((byte) => byte > 0)), [true]);
  });
});

for (const via of ["pcp", "nat-pmp"] as const) {
  describe(`what was saved of ${via}`, () => {
    const protocols = [via];
    const savedAtHome = (): SavedPort[] => {
      const home = new Net({ protocols });
      home.add(A, "203.0.113.7");
      home.connect([A]);
      home.do((mapper, now) => mapper.map(web, now));
      return home.mapper.exportSaved();
    };

    it("is kept where the mapping is given up without any gateway", () => {
      const saved = savedAtHome();
      const net = new Net({ protocols, saved });
      const id = net.do((mapper, now) => mapper.map(web, now));
      net.do((mapper, now) => mapper.revoke(id, now));
      assertEquals(net.takeTypes(), ["unmapped"]);
      assertEquals(net.mapper.exportSaved(), saved);
    });

    it("is kept where another gateway refuses the mapping, or deletes its own", () => {
      const saved = savedAtHome();
      const net = new Net({ protocols, saved });
      const other = net.add(B, "198.51.100.7");
      other.setRefusal(2, 0);
      net.connect([B]);
      net.do((mapper, now) => mapper.map(web, now));
      assertEquals(net.takeTypes(), ["failed"]);
      assertEquals(net.mapper.exportSaved(), saved);
      other.setRefusal(undefined, 0);
      const id = net.do((mapper, now) => mapper.map(web, now));
      assertEquals(net.mapper.exportSaved().map(({ gateway }) => gateway), [
        A.gateway.address,
        B.gateway.address,
      ]);
      net.do((mapper, now) => mapper.revoke(id, now));
      assertEquals(net.takeTypes(), ["mapped", "unmapped"]);
      assertEquals(net.mapper.exportSaved(), saved);
    });

    it("is forgotten where its gateway has deleted it, and kept where that is silent", () => {
      const saved = savedAtHome();
      const net = new Net({ protocols, saved });
      net.add(A, "203.0.113.7");
      net.silent.add(A.gateway.address);
      net.connect([A]);
      net.do((mapper, now) => mapper.unmap(web, now));
      net.run(300_000);
      assertEquals(net.takeTypes(), ["unmapped"]);
      assertEquals(net.mapper.exportSaved(), saved);
      net.silent.clear();
      net.do((mapper, now) => mapper.unmap(web, now));
      net.run(1000);
      assertEquals(net.takeTypes(), ["unmapped"]);
      assertEquals(net.mapper.exportSaved(), []);
    });

    for (const elsewhere of [[], [B]]) {
      const where = elsewhere.length === 0 ? "without a gateway" : "at a silent one";
      it(`is what was held at a gateway out of reach, where the program ends ${where}`, () => {
        const net = new Net({ protocols });
        net.add(A, "203.0.113.7");
        net.connect([A]);
        net.do((mapper, now) => mapper.map(web, now));
        const saved = net.mapper.exportSaved();
        net.silent.add(A.gateway.address);
        net.connect(elsewhere);
        net.run(60_000);
        net.do((mapper, now) => mapper.close(now));
        net.run(60_000);
        assertEquals(net.takeTypes(), ["mapped", "lost", "unmapped"]);
        assertEquals(net.mapper.exportSaved(), saved);
      });
    }

    it("is what a gateway may hold that had fallen silent before it was left", () => {
      const net = new Net({ protocols });
      net.add(A, "203.0.113.7");
      net.connect([A]);
      const id = net.do((mapper, now) => mapper.map({ ...web, lifetimeSeconds: 600 }, now));
      const saved = net.mapper.exportSaved();
      net.silent.add(A.gateway.address);
      net.run(600_000);
      net.connect([]);
      net.run(5000);
      net.do((mapper, now) => mapper.revoke(id, now));
      assertEquals(net.takeTypes(), ["mapped", "lost", "unmapped"]);
      assertEquals(net.mapper.exportSaved(), saved);
    });

    it("is nothing of what a gateway deleted as it was left, once it is not wanted any more", () => {
      const net = new Net({ protocols });
      net.add(A, "203.0.113.7");
      net.connect([A]);
      const id = net.do((mapper, now) => mapper.map(web, now));
      const [saved] = net.mapper.exportSaved();
      net.connect([]);
      net.run(5000);
      // As long as it is wanted, its port is.
      assertEquals([net.ports(A), net.mapper.exportSaved()], [[], [saved]]);
      net.do((mapper, now) => mapper.revoke(id, now));
      assertEquals(net.takeTypes(), ["mapped", "lost", "unmapped"]);
      assertEquals(net.mapper.exportSaved(), []);
    });

    it("is what a gateway that was left may hold, until it has confirmed the deletion", () => {
      for (const isSilent of [true, false]) {
        const net = new Net({ protocols });
        net.add(A, "203.0.113.7");
        net.add(B, "198.51.100.7");
        net.connect([A]);
        net.do((mapper, now) => mapper.map(web, now));
        const [saved] = net.mapper.exportSaved();
        if (isSilent) net.silent.add(A.gateway.address);
        net.connect([B]);
        net.run(5000);
        const [first, second] = net.mapper.exportSaved();
        assertEquals((isSilent ? second : first)?.gateway, B.gateway.address);
        assertEquals(isSilent ? first : second, isSilent ? saved : undefined);
        assertEquals(net.ports(A).length, isSilent ? 1 : 0);
      }
    });

    it("keeps what the gateway assigned while it is asked for again", () => {
      const saved = savedAtHome();
      const net = new Net({ protocols, saved });
      net.add(A, "203.0.113.7");
      net.silent.add(A.gateway.address);
      net.connect([A]);
      net.do((mapper, now) => mapper.map({ ...web, description: "web" }, now));
      assertEquals(net.mapper.exportSaved().map(({ external }) => external), [
        saved[0]!.external,
      ]);
    });

    it("is what was assigned, too, where it is lost as the program ends: that is suggested", () => {
      const net = new Net({ protocols });
      const external = { port: 18_080 };
      net.add(A, "203.0.113.7");
      net.connect([A]);
      net.do((mapper, now) => mapper.map({ ...web, suggestedExternal: external }, now));
      net.silent.add(A.gateway.address);
      net.connect([B]);
      const later = new Net({ protocols, saved: net.mapper.exportSaved() });
      later.add(B, "198.51.100.7");
      later.connect([B]);
      later.do((mapper, now) => mapper.map(web, now));
      assertEquals(later.ports(B), [18_080]);
    });

    it("is suggested to the gateway: the port, and by PCP the address", () => {
      const [{ external: _, ...saved }] = savedAtHome() as [SavedPort];
      const external = { address: "203.0.113.99", port: 18_080 };
      const net = new Net({ protocols, saved: [{ ...saved, external }] });
      net.add(A, "203.0.113.7");
      net.connect([A]);
      net.do((mapper, now) => mapper.map(web, now));
      const { data } = net.sent.findLast(({ data }) => data.length > 2)!;
      if (via === "nat-pmp") assertEquals(u16(data, 6), 18_080);
      else assertEquals([...data.subarray(56, 60), u16(data, 42)], [203, 0, 113, 99, 18_080]);
    });

    it("is nothing of what has ended with its time", () => {
      const net = new Net({ protocols });
      net.add(A, "203.0.113.7");
      net.connect([A]);
      net.do((mapper, now) => mapper.map({ ...web, mode: "once", lifetimeSeconds: 600 }, now));
      assertEquals(net.mapper.exportSaved().length, 1);
      net.run(600_000);
      assertEquals(net.takeTypes(), ["mapped", "unmapped"]);
      assertEquals(net.mapper.exportSaved(), []);
    });
  });
}

describe("what was saved at several gateways", () => {
  it("is suggested to each as it granted it, and to another one as the first did", () => {
    const C: NetworkPath = { gateway: { address: "192.168.3.1", port: 5351 } };
    const of = (path: NetworkPath, port: number): SavedPort => ({
      ...web,
      via: "pcp",
      gateway: path.gateway.address,
      external: { address: "203.0.113.7", port },
      lifetimeSeconds: 600,
      mode: "keep-alive",
    });
    for (const [path, port] of [[A, 7001], [B, 7002], [C, 7001]] as const) {
      const net = new Net({ protocols: ["pcp"], saved: [of(A, 7001), of(B, 7002)] });
      net.connect([A, B, { ...C, localAddress: "192.168.3.100" }]);
      net.do((mapper, now) => mapper.map({ ...web, gateway: path.gateway }, now));
      const asked = net.sent.filter(({ data }) => data[1] === 1);
      assertEquals(
        asked.map(({ to, data }) => [to, data[42]! << 8 | data[43]!]),
        [[path.gateway, port]],
      );
    }
  });
});

describe("what was saved over IPv4", () => {
  it("is suggested to no gateway over IPv6", () => {
    const home = new Net({ protocols: ["pcp"] });
    home.add(A, "203.0.113.7");
    home.connect([A]);
    home.do((mapper, now) => mapper.map(web, now));
    const net = new Net({ protocols: ["pcp"], saved: home.mapper.exportSaved() });
    net.add(SIX, "");
    net.connect([SIX]);
    net.do((mapper, now) => mapper.map({ ...web, family: 6 }, now));
    // PCP-C-36: no preference.
    assertEquals(net.sent[0]!.data.subarray(42, 60), new Uint8Array(18));
  });
});

describe("many saved mappings", () => {
  it("are not looked through for each that is asked for", () => {
    let looks = 0;
    const saved = Array.from({ length: 50 }, (_, i): SavedPort => ({
      protocol: "tcp",
      get internalPort() {
        looks++;
        return 1000 + i;
      },
      via: "pcp",
      gateway: A.gateway.address,
      lifetimeSeconds: 600,
      mode: "keep-alive",
    }));
    const net = new Net({ saved });
    net.add(A, "203.0.113.7");
    net.connect([A]);
    looks = 0;
    net.do((mapper, now) => mapper.map(web, now));
    net.do((mapper, now) => mapper.unmap({ ...web, internalPort: 9 }, now));
    assertEquals(looks, 0);
  });
});

describe("PortMapper.savedBy()", () => {
  it("names what these protocols made of a transport by family, once, and what is not held", () => {
    const one = { protocol: "tcp", gateway: A.gateway.address, lifetimeSeconds: 600 } as const;
    const of = (internalPort: number, more: Partial<SavedPort> = {}): SavedPort => ({
      ...one,
      via: "pcp",
      internalPort,
      mode: "keep-alive",
      ...more,
    });
    const saved = [
      of(1),
      of(2, { thirdParty: "192.168.1.9" }),
      of(3, { via: "nat-pmp" }),
      of(4, { protocol: "udp" }),
      of(5, { remote: { address: "198.51.100.1", port: 9 } }),
      of(6, { gateway: "fe80::1" }),
      of(7),
      of(1, { gateway: B.gateway.address, via: "upnp" }),
    ];
    const net = new Net({ saved });
    net.add(A, "203.0.113.7");
    net.connect([A]);
    net.do((mapper, now) => mapper.map({ protocol: "tcp", internalPort: 7 }, now));
    const byPcp = [
      { protocol: "tcp", internalPort: 1, family: 4 },
      { protocol: "tcp", internalPort: 2, family: 4, thirdParty: "192.168.1.9" },
    ] as const;
    assertEquals(net.mapper.savedBy(["pcp", "upnp"], "tcp"), byPcp);
    assertEquals(net.mapper.savedBy(["nat-pmp"], "tcp").length, 1);
    assertEquals(net.mapper.savedBy(["pcp"], "udp").length, 1);
    net.add(SIX, "");
    net.connect([A, SIX]);
    const overIpv6 = { protocol: "tcp", internalPort: 6, family: 6 } as const;
    assertEquals(net.mapper.savedBy(["pcp", "upnp"], "tcp"), [...byPcp, overIpv6]);
  });

  it("names what gateways above hold, whoever made it, once, though nobody knows of what it maps on", () => {
    for (const isWhole of [true, false]) {
      const first = new Net({ protocols: ["nat-pmp"] });
      first.add(A, BETWEEN);
      first.add(OUTER, "203.0.113.7");
      first.connect([A]);
      first.do((mapper, now) => mapper.map(web, now));
      first.openAbove();
      first.run(5000);
      const all = first.mapper.exportSaved();
      assertEquals([all.length, first.ports(OUTER)], [2, [8080]]);
      const net = new Net({ saved: all.filter(({ inner }) => isWhole || inner) });
      for (const [address, gateway] of first.gateways) net.gateways.set(address, gateway);
      net.now = first.now;
      net.connect([A]);
      const wanted = net.mapper.savedBy(["pcp", "upnp"], "tcp");
      assertEquals(wanted, [{ protocol: "tcp", internalPort: 8080, family: 4 }]);
      assertEquals(net.mapper.savedBy(["pcp"], "udp"), []);
      net.do((mapper, now) => mapper.unmap(wanted[0]!, now));
      net.run(5000);
      net.open(OUTER.gateway, BETWEEN);
      net.run(5000);
      assertEquals([net.ports(A), net.ports(OUTER), net.mapper.exportSaved()], [[], [], []]);
    }
  });
});
