import { assert, assertEquals, assertThrows } from "@std/assert";
import { describe, it } from "node:test";
import type { SimulatedGateway } from "../../../core/gateway/gateway.ts";
import type { Transport } from "../../../core/mapping.ts";
import type { MapperEvent } from "../../../core/portmap/managed.ts";
import type { PortMapperOptions } from "../../../core/portmap/mapper.ts";
import { seededRandom } from "../../../core/random.ts";
import { A, B, Net } from "./net.ts";
import { told } from "./rig.ts";

const game = { internalPort: 27_015, suggestedExternal: { port: 27_015 } } as const;

function make(options: Partial<PortMapperOptions> = {}): { net: Net; gateway: SimulatedGateway } {
  const net = new Net(options);
  const gateway = net.add(A, "203.0.113.7");
  net.connect([A]);
  return { net, gateway };
}

/** What the gateway maps to the pair's host: `tcp 27015`. */
const table = (net: Net, gateway: SimulatedGateway) =>
  gateway.list(net.now).filter(({ internal }) => internal.address === A.localAddress)
    .map(({ protocol, external }) => `${protocol === 6 ? "tcp" : "udp"} ${external.port}`).sort();

/** Another host has this port of one transport. */
const take = (gateway: SimulatedGateway, protocol: Transport, port: number) =>
  gateway.addStatic(protocol, port, { address: "192.168.1.9", port }, 0);

const takeEvents = (net: Net): MapperEvent[] => net.events.splice(0);

describe("TCP and UDP on one port", () => {
  for (const via of ["pcp", "nat-pmp"] as const) {
    it(`are both there, and told as one mapping, by ${via}`, () => {
      const { net, gateway } = make({ protocols: [via] });
      const id = net.do((mapper, now) => mapper.mapBoth(game, now));
      const [event, ...more] = takeEvents(net);
      const { mapping } = told(event, "mapped");
      assertEquals([event, mapping.external.port, mapping.via, more], [event, 27_015, via, []]);
      assertEquals(net.mapper.mapping(id), mapping);
      assertEquals(table(net, gateway), ["tcp 27015", "udp 27015"]);
      net.run(86_400_000);
      assertEquals([...new Set(net.takeTypes())], ["renewed"]);
      net.do((mapper, now) => mapper.revoke(id, now));
      net.run(5000);
      assertEquals(net.takeTypes(), ["unmapped"]);
      assertEquals([table(net, gateway), net.mapper.isIdle], [[], true]);
    });

    for (const [name, taken] of [["TCP", "tcp"], ["UDP", "udp"]] as const) {
      it(`take another port where this one's ${name} is another host's, by ${via}`, () => {
        const { net, gateway } = make({ protocols: [via] });
        take(gateway, taken, 27_015);
        net.do((mapper, now) => mapper.mapBoth(game, now));
        net.run(60_000);
        const [event, ...more] = takeEvents(net);
        const { port } = told(event, "mapped").mapping.external;
        assert(port !== 27_015);
        assertEquals([table(net, gateway), more], [[`tcp ${port}`, `udp ${port}`], []]);
      });
    }
  }

  it("are not had by halves: what is refused for one is given back for both", () => {
    for (const refused of [6, 17]) {
      const net = new Net();
      const gateway = net.add(A, "203.0.113.7", {
        decide: ({ protocol, lifetimeSeconds }: { protocol: number; lifetimeSeconds: number }) =>
          protocol === refused && lifetimeSeconds > 0 ? { kind: "refuse", code: 8 } : undefined,
      });
      net.connect([A]);
      net.do((mapper, now) => mapper.mapBoth(game, now));
      net.run(60_000);
      const [event, ...more] = takeEvents(net);
      assertEquals([told(event, "failed").code, more], ["refused", []]);
      assertEquals([table(net, gateway), net.mapper.isIdle], [[], true]);
    }
  });

  /** A pair at a gateway that has no port for both. */
  const crowded = (options: Partial<PortMapperOptions> = {}) => {
    const { net, gateway } = make(options);
    for (let port = 1024; port < 65_536; port++) if (port !== 2000) take(gateway, "tcp", port);
    take(gateway, "udp", 2000);
    net.do((mapper, now) => mapper.mapBoth(game, now));
    net.run(600_000);
    return { net, gateway };
  };

  it("try all dynamic ports at random, from 49152 to the last", () => {
    for (const [drawn, port] of [[0, 49_152], [2 ** 32 - 1, 65_535]] as const) {
      const { net } = crowded({ random: { ...seededRandom(1), u32: () => drawn } });
      const tcp = net.sent.filter(({ data }) => data[1] === 1 && data[36] === 6 && data[7] !== 0);
      const wished = tcp.map(({ data }) => data[42]! << 8 | data[43]!);
      assertEquals(wished.slice(2), [port, port, port, port]);
    }
  });

  it("fail where no port is free for both, and leave nothing", () => {
    const { net, gateway } = crowded();
    // Six ports were tried: the wished one, that which UDP was given, and four that nobody owns.
    const tcp = net.sent.filter(({ data }) => data[1] === 1 && data[36] === 6 && data[7] !== 0);
    const wished = tcp.map(({ data }) => data[42]! << 8 | data[43]!);
    assertEquals([wished.length, wished[0]], [6, 27_015]);
    assert(wished.slice(2).every((port) => port >= 49_152), wished.join());
    const [event, ...more] = takeEvents(net);
    const end = { type: "failed", id: told(event, "failed").id, code: "refused" };
    const message = "the gateway gave no external port for both TCP and UDP";
    const at = { via: "pcp", gateway: A.gateway.address };
    const attempts = [{ ...at, outcome: "unmapped", elapsedMs: 0 }];
    assertEquals([event, more], [{ ...end, message, attempts }, []]);
    assertEquals([table(net, gateway), net.mapper.isIdle], [[], true]);
  });

  it("rest a minute where no port is left for both any more, and are asked for anew", () => {
    const net = new Net({ protocols: ["pcp"] });
    const ports = [{ first: 5000, last: 5001 }];
    const gateway = net.add(A, "203.0.113.7", { table: { ports, quarantine: false } });
    net.connect([A]);
    const id = net.do((mapper, now) => mapper.mapBoth(game, now));
    const { port } = net.mapper.mapping(id)!.external;
    net.run(10_000);
    gateway.reboot(net.now);
    const other = port === 5000 ? 5001 : 5000;
    take(gateway, "udp", port);
    take(gateway, "tcp", other);
    net.do((mapper, now) => mapper.renew(id, undefined, now));
    assertEquals(net.takeTypes(), ["mapped", "gateway-restarted", "lost"]);
    for (let minute = 1; minute <= 2; minute++) {
      net.sent.length = 0;
      assertEquals(net.mapper.debugTimeout(), { at: net.now + 60_000, reason: "pair" });
      net.run(59_999);
      assertEquals([net.sent, net.mapper.mapping(id)], [[], undefined]);
      net.run(1);
      assertEquals([net.sent.length > 0, net.events, table(net, gateway)], [true, [], []]);
    }
    const [udp] = gateway.list(net.now).filter(({ protocol }) => protocol === 17);
    gateway.table.remove(udp!, net.now);
    net.run(60_000);
    const [event, ...more] = takeEvents(net);
    assertEquals([told(event, "recovered").mapping.external.port, more], [port, []]);
    assertEquals(table(net, gateway), [`tcp ${port}`, `udp ${port}`]);
  });

  it("come back after a restart, on another port where one has been taken meanwhile", () => {
    const { net, gateway } = make();
    const id = net.do((mapper, now) => mapper.mapBoth(game, now));
    net.run(60_000);
    net.takeTypes();
    gateway.reboot(net.now);
    take(gateway, "udp", 27_015);
    net.run(3 * 3_600_000);
    const types = net.events.map(({ type }) => type).filter((type) => type !== "gateway-restarted");
    assertEquals(types.slice(0, 2), ["lost", "recovered"]);
    const { port } = net.mapper.mapping(id)!.external;
    assert(port !== 27_015);
    assertEquals(table(net, gateway), [`tcp ${port}`, `udp ${port}`]);
  });

  it("tell a new address once", () => {
    const { net, gateway } = make();
    net.do((mapper, now) => mapper.mapBoth(game, now));
    net.run(60_000);
    net.takeTypes();
    gateway.setExternalAddresses(["203.0.113.8"], net.now);
    net.run(2 * 3_600_000);
    assertEquals(net.takeTypes().filter((type) => type === "moved"), ["moved"]);
  });

  it("move together to another gateway", () => {
    const { net } = make();
    const id = net.do((mapper, now) => mapper.mapBoth(game, now));
    net.add(B, "198.51.100.7");
    net.connect([B]);
    net.run(300_000);
    assertEquals(net.mapper.mapping(id)?.external, { address: "198.51.100.7", port: 27_015 });
    assertEquals([net.ports(A), net.ports(B)], [[], [27_015, 27_015]]);
    assertEquals(net.takeTypes(), ["mapped", "lost", "recovered"]);
  });

  it("move with the lifetime for which they were renewed", () => {
    const { net } = make({ protocols: ["pcp"] });
    net.add(B, "198.51.100.7");
    const id = net.do((mapper, now) => mapper.mapBoth(game, now));
    net.do((mapper, now) => mapper.renew(id, 600, now));
    net.run(4000);
    net.connect([B]);
    net.run(120_000);
    assertEquals(net.mapper.mapping(id)?.lifetimeSeconds, 600);
  });

  it("are renewed together, and told when both are", () => {
    const { net } = make();
    const id = net.do((mapper, now) => mapper.mapBoth(game, now));
    net.run(60_000);
    net.takeTypes();
    const revision = net.do((mapper, now) => mapper.renew(id, 600, now));
    net.run(1000);
    const [event, ...more] = takeEvents(net);
    assertEquals([told(event, "renewed").revision, more], [revision, []]);
    assertEquals(net.mapper.mapping(id)?.lifetimeSeconds, 600);
  });

  it("can be ended at any moment, and are left at the gateway where they are abandoned", () => {
    const { net, gateway } = make();
    for (const ms of [0, 1, 100]) {
      net.silent.add(A.gateway.address);
      const id = net.do((mapper, now) => mapper.mapBoth(game, now));
      net.run(ms);
      net.silent.clear();
      net.do((mapper, now) => mapper.revoke(id, now));
      net.run(60_000);
      assertEquals(net.takeTypes(), ["unmapped"]);
      assertEquals([table(net, gateway), net.mapper.isIdle], [[], true]);
    }
    const id = net.do((mapper, now) => mapper.mapBoth(game, now));
    net.do((mapper, now) => mapper.abandon(id, now));
    assertEquals([table(net, gateway), net.mapper.isIdle], [["tcp 27015", "udp 27015"], true]);
    assertEquals(net.mapper.exportSaved().map(({ protocol }) => protocol), ["tcp", "udp"]);
  });

  it("end with the mapper, and with their time", () => {
    const { net, gateway } = make();
    net.do((mapper, now) => mapper.mapBoth({ ...game, mode: "once", lifetimeSeconds: 600 }, now));
    net.run(700_000);
    const [, over] = takeEvents(net);
    assertEquals(told(over, "unmapped").reason, "expired");
    net.do((mapper, now) => mapper.mapBoth(game, now));
    net.do((mapper, now) => mapper.close(now));
    net.run(5000);
    assertEquals(net.takeTypes(), ["mapped", "unmapped"]);
    assertEquals([table(net, gateway), net.mapper.isIdle], [[], true]);
  });

  it("are over where one is deleted with all of its transport", () => {
    const { net, gateway } = make({ protocols: ["nat-pmp"] });
    const id = net.do((mapper, now) => mapper.mapBoth(game, now));
    net.do((mapper, now) => mapper.unmapAll("tcp", now));
    const removed = net.events.map((event) => [event.type, "id" in event && event.id]);
    assertEquals(removed.filter(([, of]) => of === id), [["mapped", id], ["unmapped", id]]);
    assertEquals([table(net, gateway), net.mapper.isIdle], [[], true]);
  });

  it("say which one the gateway keeps, though they are ended while the other one is given back", () => {
    const net = new Net({ protocols: ["pcp"] });
    const gateway = net.add(A, "203.0.113.7", {
      decide: ({ protocol, lifetimeSeconds }: { protocol: number; lifetimeSeconds: number }) =>
        protocol === 6 && lifetimeSeconds === 0 ? { kind: "refuse", code: 8 } : undefined,
    });
    take(gateway, "udp", 27_015);
    const handle = gateway.handleDatagram.bind(gateway);
    // UDP's deletion is lost at first.
    let isDeaf = true;
    gateway.handleDatagram = (data, ...rest) =>
      !(isDeaf && data[36] === 17 && data[7] === 0) && handle(data, ...rest);
    net.connect([A]);
    const id = net.do((mapper, now) => mapper.mapBoth(game, now));
    assertEquals(net.events, []);
    net.do((mapper, now) => mapper.revoke(id, now));
    isDeaf = false;
    net.run(60_000);
    assertEquals(told(net.events[0], "unmapped").failure?.kind, "refused");
  });

  it("number their renewals upwards, and each is told with its number", () => {
    const { net } = make({ protocols: ["pcp"] });
    const id = net.do((mapper, now) => mapper.mapBoth(game, now));
    takeEvents(net);
    const numbers = [1, 2].map(() => {
      net.run(10_000);
      return net.do((mapper, now) => mapper.renew(id, undefined, now));
    });
    assert(numbers[0]! > 0 && numbers[1]! > numbers[0]!);
    assertEquals(takeEvents(net).map((event) => told(event, "renewed").revision), numbers);
  });

  it("end a removal of one of them that is on its way", () => {
    const { net } = make({ protocols: ["pcp"] });
    net.silent.add(A.gateway.address);
    const tcp = { ...game, protocol: "tcp" } as const;
    const removal = net.do((mapper, now) => mapper.unmap(tcp, now));
    net.do((mapper, now) => mapper.mapBoth(game, now));
    const end = told(net.events[0], "unmapped");
    assertEquals([end.id, end.failure?.kind], [removal, "no-answer"]);
  });

  it("are wanted once", () => {
    const { net } = make();
    net.do((mapper, now) => mapper.map({ protocol: "udp", internalPort: 27_015 }, now));
    assertThrows(() => net.mapper.mapBoth(game, net.now), TypeError, "27015/udp");
    net.do((mapper, now) => mapper.mapBoth({ internalPort: 1234 }, now));
    for (const protocol of ["tcp", "udp"] as const) {
      const half = { protocol, internalPort: 1234 };
      assertThrows(() => net.mapper.map(half, net.now), TypeError, `1234/${protocol}`);
    }
    assertThrows(
      () => net.mapper.mapBoth({ internalPort: 5, protocols: [] }, net.now),
      TypeError,
      "'protocols'",
    );
    net.do((mapper, now) => mapper.close(now));
    assert(net.mapper.isIdle);
  });
});
