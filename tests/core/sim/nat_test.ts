import { describe, it } from "node:test";
import { assert, assertEquals, assertThrows } from "@std/assert";
import { parseCidr } from "../../../core/cidr.ts";
import { formatEndpoint } from "../../../core/ip.ts";
import type { Endpoint } from "../../../core/machine.ts";
import {
  type Host,
  type NatHairpin,
  type NatPortAssignment,
  type PortForwarder,
  type SimSocket,
  World,
} from "../../../core/sim/mod.ts";
import { NAT_DEPENDENCES } from "../../../core/sim/nat_options.ts";

const EXTERNAL = "203.0.113.7";
const S1 = "198.51.100.1";
const S2 = "198.51.100.2";

interface Heard {
  readonly from: string;
  readonly tag: number;
}

interface Party {
  readonly socket: SimSocket;
  readonly heard: Heard[];
  readonly unreachable: string[];
}

function listen(host: Host, port: number): Party {
  const socket = host.bind({ port });
  const party: Party = { socket, heard: [], unreachable: [] };
  socket.onDatagram = (data, from) =>
    party.heard.push({ from: formatEndpoint(from), tag: data[0]! });
  socket.onUnreachable = (to) => party.unreachable.push(formatEndpoint(to));
  return party;
}

function say(party: Party, to: string, tag: number): void {
  const colon = to.lastIndexOf(":");
  party.socket.send(
    { address: to.slice(0, colon), port: Number(to.slice(colon + 1)) },
    new Uint8Array([tag]),
  );
}

/** Two servers with two ports each outside, two clients inside. */
function home(behaviour: Parameters<World["nat"]>[1] extends infer O ? Partial<O> : never = {}) {
  const world = new World({ seed: 3, trace: { size: 200 } });
  const internet = world.segment("internet"), lan = world.segment("lan");
  const nat = world.nat("nat", {
    inside: [lan, "192.168.1.1"],
    outside: [internet, EXTERNAL],
    ...behaviour,
  });
  const s1 = world.host("s1"), s2 = world.host("s2");
  s1.attach(internet, S1);
  s2.attach(internet, S2);
  const a = world.host("a"), b = world.host("b");
  a.attach(lan, "192.168.1.2", { gateway: "192.168.1.1" });
  b.attach(lan, "192.168.1.3", { gateway: "192.168.1.1" });
  return {
    world,
    nat,
    internet,
    lan,
    hosts: { a, b, s1, s2 },
    a: listen(a, 5000),
    b: listen(b, 5000),
    s1a: listen(s1, 1001),
    s1b: listen(s1, 1002),
    s2a: listen(s2, 1001),
  };
}

const PORTS: readonly NatPortAssignment[] = ["preserving", "random", "contiguous"];

describe("NAT matrix (RFC 4787)", () => {
  for (const mapping of NAT_DEPENDENCES) {
    for (const filtering of NAT_DEPENDENCES) {
      for (const ports of PORTS) {
        const name = `${mapping} mapping, ${filtering} filtering, ${ports} ports`;

        it(`${name}: an outgoing flow gets as many external ports as the mapping says`, () => {
          const { world, a, s1a, s1b, s2a } = home({ mapping, filtering, ports });
          say(a, `${S1}:1001`, 1);
          say(a, `${S1}:1002`, 2);
          say(a, `${S2}:1001`, 3);
          say(a, `${S1}:1001`, 4);
          world.runFor(100);
          assertEquals(s1a.heard.map(({ tag }) => tag), [1, 4]);
          const seen = [s1a, s1b, s2a].map(({ heard }) => heard[0]!.from);
          assert(seen.every((from) => from.startsWith(`${EXTERNAL}:`)));
          assertEquals(s1a.heard[1]!.from, seen[0], "a mapping is used again");
          const expected = { [NAT_DEPENDENCES[0]!]: 1, [NAT_DEPENDENCES[1]!]: 2 }[mapping] ?? 3;
          assertEquals(new Set(seen).size, expected);
          assertEquals(seen[0] === seen[1], expected < 3);
        });

        it(`${name}: the filter lets in whom it should, unasked`, () => {
          const { world, a, s1a, s1b, s2a } = home({ mapping, filtering, ports });
          say(a, `${S1}:1001`, 1);
          world.runFor(100);
          const external = s1a.heard[0]!.from;
          say(s1a, external, 10);
          say(s1b, external, 11);
          say(s2a, external, 12);
          world.runFor(100);
          const allowed = { [NAT_DEPENDENCES[0]!]: [10, 11, 12], [NAT_DEPENDENCES[1]!]: [10, 11] };
          assertEquals(a.heard.map(({ tag }) => tag), allowed[filtering] ?? [10]);
        });

        for (const hairpin of ["none", "internal-source", "external-source"] as NatHairpin[]) {
          it(`${name}: hairpin ${hairpin}`, () => {
            const { world, nat, a, b, s1a } = home({ mapping, filtering, ports, hairpin });
            say(a, `${S1}:1001`, 1);
            world.runFor(10);
            say(b, `${S1}:1001`, 2);
            world.runFor(10);
            const [outsideA, outsideB] = s1a.heard.map(({ from }) => from);
            say(b, outsideA!, 20); // opens b's filter towards a, where the mapping is the same
            world.runFor(10);
            say(a, outsideB!, 21);
            world.runFor(10);
            const arrives = hairpin !== "none" &&
              (mapping === "endpoint-independent" || filtering === "endpoint-independent");
            assertEquals(b.heard.map(({ tag }) => tag), arrives ? [21] : []);
            const firstArrives = hairpin !== "none" && filtering === "endpoint-independent";
            assertEquals(a.heard.map(({ tag }) => tag), firstArrives ? [20] : []);
            if (!arrives) return;
            const from = b.heard[0]!.from;
            if (hairpin === "internal-source") assertEquals(from, "192.168.1.2:5000");
            else if (mapping === "endpoint-independent") assertEquals(from, outsideA);
            else assert(from.startsWith(`${EXTERNAL}:`) && from !== outsideA);
            assertEquals(nat.stats.hairpinned, firstArrives ? 2 : 1);
          });
        }
      }
    }
  }
});

describe("NAT ports", () => {
  it("preserving keeps the port, and takes another for the second who wants it", () => {
    const { world, a, b, s1a } = home();
    say(a, `${S1}:1001`, 1);
    world.runFor(10);
    say(b, `${S1}:1001`, 2);
    world.runFor(10);
    assertEquals(s1a.heard.map(({ from }) => from), [`${EXTERNAL}:5000`, `${EXTERNAL}:5001`]);
  });

  it("overloading gives both the same port and tells answers apart by who was talked to", () => {
    const { world, a, b, s1a, s2a } = home({
      ports: "overloading",
      mapping: "address-and-port-dependent",
      filtering: "address-and-port-dependent",
    });
    say(a, `${S1}:1001`, 1);
    say(b, `${S2}:1001`, 2);
    world.runFor(10);
    assertEquals([s1a.heard[0]!.from, s2a.heard[0]!.from], [
      `${EXTERNAL}:5000`,
      `${EXTERNAL}:5000`,
    ]);
    say(s1a, `${EXTERNAL}:5000`, 3);
    say(s2a, `${EXTERNAL}:5000`, 4);
    world.runFor(10);
    assertEquals([a.heard[0]!.tag, b.heard[0]!.tag], [3, 4]);
  });

  it("contiguous counts up", () => {
    const { world, a, b, s1a } = home({ ports: "contiguous" });
    say(a, `${S1}:1001`, 1);
    world.runFor(10);
    say(b, `${S1}:1001`, 2);
    world.runFor(10);
    const [first, second] = s1a.heard.map(({ from }) => Number(from.split(":")[1]));
    assertEquals(second, first! + 1);
  });

  it("a port that the NAT's own socket has is not given away", () => {
    const { world, nat, a, s1a } = home();
    nat.host.bind({ address: EXTERNAL, port: 5000 });
    say(a, `${S1}:1001`, 1);
    world.runFor(10);
    assertEquals(s1a.heard[0]!.from, `${EXTERNAL}:5001`);
  });

  it("past maxMappings new flows are dropped, old ones go on; what died makes room", () => {
    const { world, a, b, s1a } = home({ maxMappings: 1, timeoutMs: 1000 });
    say(a, `${S1}:1001`, 1);
    world.runFor(10);
    say(b, `${S1}:1001`, 2);
    say(a, `${S1}:1001`, 3);
    world.runFor(10);
    assertEquals(s1a.heard.map(({ tag }) => tag), [1, 3]);
    assert(world.trace.text().includes("no-ports"));
    world.runFor(1000);
    say(b, `${S1}:1001`, 4);
    world.runFor(10);
    assertEquals(s1a.heard.map(({ tag }) => tag), [1, 3, 4]);
  });

  it("paired pooling gives a client one external address, arbitrary gives any", () => {
    for (const pooling of ["paired", "arbitrary"] as const) {
      const { world, nat, internet, a, s1a, s2a, hosts } = home({
        external: [EXTERNAL, "203.0.113.8"],
        mapping: "address-and-port-dependent",
        pooling,
      });
      nat.outside.addAddress("203.0.113.8");
      assert(internet.lookup("203.0.113.8") === nat.outside);
      const seen = new Set<string>();
      for (let i = 0; i < 20; i++) say(listen(hosts.a, 6000 + i), `${S1}:1001`, i);
      say(a, `${S2}:1001`, 99);
      world.runFor(10);
      for (const { from } of [...s1a.heard, ...s2a.heard]) seen.add(from.split(":")[0]!);
      assertEquals(s1a.heard.length + s2a.heard.length, 21);
      assertEquals(seen.size, pooling === "paired" ? 1 : 2);
    }
  });
});

describe("NAT timer", () => {
  const replyAfter = (waitMs: number, options: { inboundRefresh?: boolean }, keepMs?: number) => {
    const { world, a, s1a } = home({ timeoutMs: 120_000, ...options });
    say(a, `${S1}:1001`, 1);
    world.runFor(10);
    const external = s1a.heard[0]!.from;
    if (keepMs) world.after(keepMs, () => say(s1a, external, 7));
    world.runFor(waitMs);
    say(s1a, external, 8);
    world.runFor(10);
    return a.heard.map(({ tag }) => tag);
  };

  it("a mapping dies when nothing went out for its time", () => {
    assertEquals(replyAfter(119_000, {}), [8]);
    assertEquals(replyAfter(121_000, {}), []);
  });

  it("what comes in keeps it alive only with inbound refresh", () => {
    assertEquals(replyAfter(200_000, { inboundRefresh: false }, 100_000), [7]);
    assertEquals(replyAfter(200_000, { inboundRefresh: true }, 100_000), [7, 8]);
  });
});

describe("NAT life", () => {
  it("a reboot forgets mappings", () => {
    const { world, nat, a, s1a } = home();
    say(a, `${S1}:1001`, 1);
    world.runFor(10);
    assertEquals(nat.mappings().length, 1);
    nat.reboot();
    assertEquals(nat.mappings().length, 0);
    say(s1a, s1a.heard[0]!.from, 2);
    world.runFor(10);
    assertEquals(a.heard, []);
  });

  it("a changed external address is what servers see from then on; the old one leads nowhere", () => {
    const { world, nat, a, s1a } = home();
    say(a, `${S1}:1001`, 1);
    world.runFor(10);
    nat.changeExternal(EXTERNAL, "203.0.113.99");
    say(a, `${S1}:1001`, 2);
    say(s1a, `${EXTERNAL}:5000`, 3);
    world.runFor(10);
    assertEquals(s1a.heard.map(({ from }) => from), [`${EXTERNAL}:5000`, "203.0.113.99:5000"]);
    assertEquals(a.heard, []);
    assert(world.trace.text().includes("no-route"));
  });

  it("cascaded NATs translate twice", () => {
    const world = new World();
    const internet = world.segment("internet"), isp = world.segment("isp");
    const lan = world.segment("lan");
    world.nat("cgn", {
      inside: [isp, "100.64.0.1"],
      outside: [internet, EXTERNAL],
      ports: "contiguous",
    });
    world.nat("home", {
      inside: [lan, "192.168.1.1"],
      outside: [isp, "100.64.0.2"],
      gateway: "100.64.0.1",
    });
    const s1 = world.host("s1"), a = world.host("a");
    s1.attach(internet, S1);
    a.attach(lan, "192.168.1.2", { gateway: "192.168.1.1" });
    const server = listen(s1, 1001), client = listen(a, 5000);
    say(client, `${S1}:1001`, 1);
    world.runFor(10);
    say(server, server.heard[0]!.from, 2);
    world.runFor(10);
    assert(server.heard[0]!.from.startsWith(`${EXTERNAL}:`));
    assertEquals(client.heard, [{ from: `${S1}:1001`, tag: 2 }]);
  });

  it("packets that go round in circles end", () => {
    const world = new World({ trace: { size: 200 } });
    const left = world.segment("left"), right = world.segment("right");
    world.nat("one", {
      inside: [left, "10.0.0.1"],
      outside: [right, "10.1.0.1"],
      gateway: "10.1.0.2",
    });
    world.nat("two", {
      inside: [right, "10.1.0.2"],
      outside: [left, "10.0.0.2"],
      gateway: "10.0.0.1",
    });
    const a = world.host("a");
    a.attach(left, "10.0.0.9", { gateway: "10.0.0.1" });
    say(listen(a, 5000), `${S1}:1`, 1);
    world.driveBounded(1000);
    assert(world.trace.text().includes("hops-exceeded"));
  });
});

describe("NAT by default", () => {
  it("lets in who has an address that was talked to, for five minutes", () => {
    const { world, nat, a, s1b, s2a } = home();
    say(a, `${S1}:1001`, 1);
    world.runUntil(299_999);
    for (const server of [s1b, s2a]) say(server, `${EXTERNAL}:5000`, 2);
    world.runUntil(300_000);
    assertEquals(nat.mappings().length, 1);
    world.runUntil(300_001);
    assertEquals([nat.mappings(), a.heard], [[], [{ from: `${S1}:1002`, tag: 2 }]]);
  });

  it("counts packets by what became of them", () => {
    const { world, nat, a, b, s1a, s2a } = home({ filtering: "endpoint-independent" });
    say(a, `${S1}:1001`, 1);
    say(a, `${S1}:4444`, 1);
    world.runFor(10);
    assertEquals(nat.stats, { out: 2, in: 0, hairpinned: 0, blocked: 0, icmp: 1 });
    say(s2a, `${EXTERNAL}:5000`, 2);
    say(s1a, `${EXTERNAL}:7777`, 2);
    say(b, `${EXTERNAL}:5000`, 3);
    say(b, `${EXTERNAL}:7777`, 3);
    world.runFor(10);
    assertEquals(nat.stats, { out: 2, in: 1, hairpinned: 1, blocked: 2, icmp: 1 });
    a.socket.close();
    say(s2a, `${EXTERNAL}:5000`, 4);
    world.runFor(10);
    assertEquals(nat.stats, { out: 2, in: 2, hairpinned: 1, blocked: 2, icmp: 2 });
    assertEquals(s2a.unreachable, [`${EXTERNAL}:5000`]);
  });

  it("forwards what may cross one more router, out, in and back, one hop less each time", () => {
    const { world, nat, a, s1a, hosts } = home({ filtering: "endpoint-independent" });
    say(a, `${S1}:1001`, 1);
    world.runFor(10);
    const inside = { address: "192.168.1.2", port: 5000 }, server = { address: S1, port: 1001 };
    const external = { address: EXTERNAL, port: 5000 };
    const cross = (
      by: "inside" | "outside",
      hops: number,
      [from, to] = by === "inside" ? [inside, server] : [server, external],
    ) => {
      const data = new Uint8Array([hops]);
      const isTaken = nat.handle(nat[by], { protocol: "udp", from, to, data, hops });
      assert(isTaken);
      world.runFor(10);
    };
    const hops: number[] = [];
    for (const host of [hosts.a, hosts.s1]) {
      const receive = host.receive.bind(host);
      host.receive = (by, packet) => (hops.push(packet.hops), receive(by, packet));
    }
    for (const by of ["inside", "outside"] as const) for (const left of [1, 2, 9]) cross(by, left);
    cross("inside", 9, [{ address: "192.168.1.3", port: 5000 }, external]);
    assertEquals(hops, [1, 8, 1, 8, 8]);
    assertEquals(s1a.heard.map(({ tag }) => tag), [1, 2, 9]);
    assertEquals(a.heard.map(({ tag }) => tag), [2, 9, 9]);
  });

  it("leaves multicasts and the other family to its host", () => {
    const { nat, lan, hosts } = home();
    nat.inside.addAddress("2001:db8:1::1");
    hosts.a.interfaces[0]!.addAddress("2001:db8:1::2");
    const handle = (from: string, to: string) =>
      nat.handle(nat.inside, {
        protocol: "udp",
        from: { address: from, port: 5000 },
        to: { address: to, port: 1 },
        data: new Uint8Array(1),
        hops: 9,
      });
    assertEquals(
      [
        handle("192.168.1.2", "239.255.255.250"),
        handle("2001:db8:1::2", "2001:db8:2::1"),
        handle("2001:db8:1::2", "ff02::1"),
        handle("192.168.1.2", S1),
      ],
      [false, false, false, true],
    );
    assertEquals([nat.stats.out, lan.lookup("2001:db8:1::1") === nat.inside], [1, true]);
  });

  it("refuses what it cannot be made of", () => {
    for (
      const [name, values] of Object.entries({
        mapping: ["full-cone"],
        filtering: ["full-cone"],
        ports: ["even"],
        hairpin: [""],
        pooling: ["both"],
        timeoutMs: [0, 1.5, 2 ** 40 + 1],
        maxMappings: [0, 2 ** 24 + 1],
        external: [["203.0.113"]],
      })
    ) {
      for (const value of values) assertThrows(() => home({ [name]: value }), Error, `'${name}`);
    }
    for (const fit of [{ timeoutMs: 1 }, { timeoutMs: 2 ** 40 }, { maxMappings: 2 ** 24 }]) {
      assertEquals(home(fit).nat.external, [EXTERNAL]);
    }
  });

  it("has those external addresses alone that are of one family, in their order", () => {
    const external = ["203.0.113.9", "2001:db8::1", EXTERNAL];
    assertEquals(home({ external }).nat.external, ["203.0.113.9", EXTERNAL]);
    const { world, nat, hosts, internet } = home({ external: ["203.0.113.9", EXTERNAL] });
    nat.outside.addAddress("203.0.113.9");
    // The first client gets the first address, the second the second, the third the first.
    const c = world.host("c");
    c.attach(hosts.a.interfaces[0]!.segment, "192.168.1.4", { gateway: "192.168.1.1" });
    for (const host of [hosts.b, hosts.a, c]) {
      say(listen(host, 6000), `${S1}:1001`, 1);
      world.runFor(10);
    }
    assertEquals(nat.mappings().map(({ external }) => external.address), [
      "203.0.113.9",
      EXTERNAL,
      "203.0.113.9",
    ]);
    assert(internet.lookup("203.0.113.9") === nat.outside);
  });
});

describe("NAT and ICMP", () => {
  it("port unreachable comes back to the sender inside, and the mapping stays", () => {
    const { world, nat, a } = home();
    say(a, `${S1}:4444`, 1);
    world.runFor(10);
    assertEquals(a.unreachable, [`${S1}:4444`]);
    assertEquals(nat.mappings().length, 1);
  });

  it("a server outside learns that a mapped port is closed", () => {
    const { world, a, s1a } = home();
    say(a, `${S1}:1001`, 1);
    world.runFor(10);
    a.socket.close();
    say(s1a, s1a.heard[0]!.from, 2);
    world.runFor(10);
    assertEquals(s1a.unreachable, [s1a.heard[0]!.from]);
  });

  it("what is blocked is silent, unless the NAT rejects", () => {
    for (const rejects of [false, true]) {
      const { world, s1a } = home({ rejects });
      say(s1a, `${EXTERNAL}:7777`, 1);
      world.runFor(10);
      assertEquals(s1a.unreachable, rejects ? [`${EXTERNAL}:7777`] : []);
    }
  });
});

describe("NAT with a mapping table", () => {
  const one: PortForwarder = {
    lookupInbound: (protocol, external, remote) =>
      protocol === 17 && external.address === EXTERNAL && external.port === 6000 &&
        remote.address !== S2
        ? { address: "192.168.1.2", port: 5000 }
        : undefined,
    lookupOutbound: (protocol, internal) =>
      protocol === 17 && internal.address === "192.168.1.2" && internal.port === 5000
        ? { address: EXTERNAL, port: 6000 }
        : undefined,
    holds: (protocol, external) => protocol === 17 && external.port === 6000,
  };

  it("forwards what the table says, both ways, and no more", () => {
    const { world, a, s1a, s2a } = home({ forwarder: one });
    say(s1a, `${EXTERNAL}:6000`, 1);
    say(s2a, `${EXTERNAL}:6000`, 2);
    world.runFor(10);
    assertEquals(a.heard, [{ from: `${S1}:1001`, tag: 1 }]);
    say(a, `${S1}:1001`, 3);
    world.runFor(10);
    assertEquals(s1a.heard, [{ from: `${EXTERNAL}:6000`, tag: 3 }]);
  });

  it("hairpins to a mapped port", () => {
    const { world, a, b } = home({ forwarder: one });
    say(b, `${EXTERNAL}:6000`, 1);
    world.runFor(10);
    assertEquals(a.heard, [{ from: `${EXTERNAL}:5000`, tag: 1 }]);
  });

  it("does not give a mapped port to somebody else", () => {
    const { world, nat, hosts, s1a } = home({ forwarder: one });
    say(listen(hosts.b, 6000), `${S1}:1001`, 1);
    world.runFor(10);
    assertEquals(s1a.heard[0]!.from, `${EXTERNAL}:6001`);
    assertEquals(nat.mappings().length, 1);
  });

  it("ICMP finds its way through the table", () => {
    const { world, a, s1a } = home({ forwarder: one });
    a.socket.close();
    say(s1a, `${EXTERNAL}:6000`, 1);
    world.runFor(10);
    assertEquals(s1a.unreachable, [`${EXTERNAL}:6000`]);
  });
});

describe("NAT's own host", () => {
  it("is reached from inside by both its addresses, from outside by the outer one alone", () => {
    const { world, nat, a, s1a } = home();
    const own = listen(nat.host, 9000);
    say(a, "192.168.1.1:9000", 1);
    say(a, `${EXTERNAL}:9000`, 2);
    say(s1a, `${EXTERNAL}:9000`, 3);
    say(s1a, "192.168.1.1:9000", 4);
    world.runFor(10);
    assertEquals(own.heard.map(({ tag }) => tag).sort(), [1, 2, 3]);
    assertEquals(nat.mappings().length, 0);
  });

  it("sends announcements to the segment of the address it sends from", () => {
    const { world, nat, hosts } = home();
    const ear = hosts.a.bind({ address: "224.0.0.1", port: 5350 });
    const outer = hosts.s1.bind({ port: 5350 });
    const heard: Endpoint[] = [];
    ear.onDatagram = (_, from) => heard.push(from);
    outer.onDatagram = (_, from) => heard.push(from);
    const group = { address: "224.0.0.1", port: 5350 };
    nat.host.bind({ address: "192.168.1.1", port: 5351 }).send(group, new Uint8Array(1));
    nat.host.bind({ port: 5352 }).send(group, new Uint8Array(1));
    nat.host.bind({ address: EXTERNAL, port: 5353 }).send(group, new Uint8Array(1));
    world.runFor(10);
    assertEquals(heard.map(formatEndpoint), [
      "192.168.1.1:5351",
      "192.168.1.1:5352",
      `${EXTERNAL}:5353`,
    ]);
  });
});

describe("firewall without NAT", () => {
  it("keeps addresses, lets answers in and what its table names, and nothing else", () => {
    const world = new World();
    const internet = world.segment("internet"), lan = world.segment("lan");
    const box = world.host("box");
    const inside = box.attach(lan, ["2001:db8:1::1", "fe80::1"]);
    const outside = box.attach(internet, "2001:db8::7");
    const firewall = world.natOn(box, {
      inside,
      outside,
      ports: "untranslated",
      prefix: parseCidr("2001:db8:1::/64")!,
      forwarder: {
        lookupInbound: (_, external) => external.port === 6000 ? external : undefined,
        lookupOutbound: (_, internal) => internal.port === 6000 ? internal : undefined,
        holds: (_, external) => external.port === 6000,
      },
    });
    const s1 = world.host("s1"), a = world.host("a");
    s1.attach(internet, "2001:db8:ffff::1", { gateway6: "2001:db8::7" });
    a.attach(lan, ["2001:db8:1::2", "fe80::2"], { gateway6: "fe80::1" });
    const server = s1.bind({ port: 1001 }),
      open = a.bind({ port: 6000 }),
      shut = a.bind({ port: 6001 });
    const heard: string[] = [];
    server.onDatagram = (_, from) => heard.push(`s1 ${formatEndpoint(from)}`);
    open.onDatagram = () => heard.push("open");
    shut.onDatagram = () => heard.push("shut");
    const bytes = new Uint8Array(1);
    server.send({ address: "2001:db8:1::2", port: 6000 }, bytes);
    server.send({ address: "2001:db8:1::2", port: 6001 }, bytes);
    world.runFor(10);
    assertEquals(heard, ["open"]);
    shut.send({ address: "2001:db8:ffff::1", port: 1001 }, bytes);
    world.runFor(10);
    server.send({ address: "2001:db8:1::2", port: 6001 }, bytes);
    world.runFor(10);
    assertEquals(heard, ["open", "s1 [2001:db8:1::2]:6001", "shut"]);
    assertEquals(firewall.stats.blocked, 1);
  });

  it("is the way to its prefix for its neighbours, but not to what a neighbour has of it", () => {
    const world = new World();
    const internet = world.segment("internet"), lan = world.segment("lan");
    const box = world.host("box");
    const inside = box.attach(lan, "2001:db8:1::1"), outside = box.attach(internet, "2001:db8::7");
    world.natOn(box, {
      inside,
      outside,
      ports: "untranslated",
      prefix: parseCidr("2001:db8:1::/64")!,
      forwarder: {
        lookupInbound: (_, external) => external,
        lookupOutbound: (_, internal) => internal,
        holds: () => true,
      },
    });
    const near = world.host("near"), stray = world.host("stray"), a = world.host("a");
    near.attach(internet, "2001:db8::8");
    stray.attach(internet, "2001:db8:1::9");
    a.attach(lan, "2001:db8:1::2", { gateway6: "2001:db8:1::1" });
    const heard: string[] = [];
    for (const host of [stray, a]) {
      host.bind({ port: 6000 }).onDatagram = () => heard.push(host.name);
    }
    const socket = near.bind();
    for (const address of ["2001:db8:1::2", "2001:db8:1::9"]) {
      socket.send({ address, port: 6000 }, new Uint8Array(1));
    }
    world.runFor(10);
    assertEquals(heard.sort(), ["a", "stray"]);
  });

  it("needs its prefix, and only it", () => {
    const prefix = parseCidr("192.168.1.0/24")!;
    assertThrows(() => home({ prefix }), TypeError, "prefix");
    assertThrows(() => home({ ports: "untranslated" }), TypeError, "prefix");
    assertThrows(() => home({ hairpin: "maybe" as NatHairpin }), TypeError, "hairpin");
  });
});
