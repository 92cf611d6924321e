import { assert, assertEquals, assertThrows } from "@std/assert";
import { describe, it } from "node:test";
import { toHex, u16, u32 } from "../../../core/bytes.ts";
import type { SimulatedGateway, SimulatedGatewayOptions } from "../../../core/gateway/gateway.ts";
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

/** PCP's requests for one transport that ask for a mapping, as they were sent. */
const asksFor = (net: Net, protocol: Transport): Uint8Array[] =>
  net.sent.filter(({ data }) =>
    data[1] === 1 && data[36] === (protocol === "tcp" ? 6 : 17) && u32(data, 4) > 0
  ).map(({ data }) => data);

/** The external port that a request of PCP's suggests. */
const wish = (data: Uint8Array) => u16(data, 42);

/** Loses PCP's requests for one transport while that is said. */
function lossy(net: Net): { lost: Transport | undefined } {
  const loss: { lost: Transport | undefined } = { lost: undefined };
  const deliver = net.deliver.bind(net);
  net.deliver = (sent) => {
    const isLost = loss.lost !== undefined && sent.data[36] === (loss.lost === "tcp" ? 6 : 17);
    if (!isLost) deliver(sent);
  };
  return loss;
}

const takeEvents = (net: Net): MapperEvent[] => net.events.splice(0);

describe("TCP and UDP on one port", () => {
  for (const via of ["pcp", "nat-pmp"] as const) {
    it(`are both there, and told as one mapping, by ${via}`, () => {
      const { net, gateway } = make({ protocols: [via] });
      const id = net.do((mapper, now) => mapper.mapBoth(game, now));
      const [event, ...more] = takeEvents(net);
      const { mapping, revision } = told(event, "mapped");
      assertEquals([revision, mapping.external.port, mapping.via, more], [0, 27_015, via, []]);
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
      const id = net.do((mapper, now) => mapper.mapBoth(game, now));
      net.run(60_000);
      const [event, ...more] = takeEvents(net);
      const failed = told(event, "failed");
      assertEquals([failed.id, failed.code, more], [id, "refused", []]);
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

  it("are both asked for with the external address that is wished", () => {
    const { net } = make({ protocols: ["pcp"] });
    const suggestedExternal = { address: "203.0.113.9", port: 27_015 };
    net.do((mapper, now) => mapper.mapBoth({ ...game, suggestedExternal }, now));
    for (const protocol of ["tcp", "udp"] as const) {
      const wished = asksFor(net, protocol).map((data) => [...data.subarray(56, 60), wish(data)]);
      assertEquals(wished, [[203, 0, 113, 9, 27_015]]);
    }
  });

  it("have failed at once where there is no socket to the gateway", () => {
    const net = new Net();
    net.do((mapper, now) => mapper.networkChanged([A], now));
    const failure = { ok: false, code: "permission", message: "no", isOpen: false } as const;
    net.do((mapper, now) => mapper.handleSocket(mapper.sockets()[0]!.key, failure, now));
    const id = net.do((mapper, now) => mapper.mapBoth(game, now));
    const { code, message } = failure;
    assertEquals(takeEvents(net), [{ type: "failed", id, attempts: [], code, message }]);
    assert(net.mapper.isIdle);
  });

  it("try all dynamic ports at random, from 49152 to the last", () => {
    for (const [drawn, port] of [[0, 49_152], [2 ** 32 - 1, 65_535]] as const) {
      const { net } = crowded({ random: { ...seededRandom(1), u32: () => drawn } });
      const wished = asksFor(net, "tcp").map(wish);
      assertEquals(wished.slice(2), [port, port, port, port]);
      // The first other one is what the gateway had for UDP.
      assert(wished[1] !== port);
    }
  });

  it("fail where no port is free for both, and leave nothing", () => {
    const { net, gateway } = crowded();
    // Six ports were tried: the wished one, that which UDP was given, and four that nobody owns.
    const wished = asksFor(net, "tcp").map(wish);
    assertEquals([wished.length, wished[0]], [6, 27_015]);
    assert(wished.slice(2).every((port) => port >= 49_152), wished.join());
    const [event, ...more] = takeEvents(net);
    const end = { type: "failed", id: told(event, "failed").id, code: "refused" };
    const message = "the gateway gave no external port for both TCP and UDP";
    const at = { via: "pcp", gateway: A.gateway.address };
    const attempts = [{ ...at, outcome: "unmapped", elapsedMs: 0 }];
    assertEquals([event, more], [{ ...end, message, attempts }, []]);
    // What was given back may be kept for the nonce that it was asked with.
    for (const protocol of ["tcp", "udp"] as const) {
      const nonces = asksFor(net, protocol).map((data) => toHex(data.subarray(24, 36)));
      assertEquals([nonces.length, new Set(nonces).size], [6, 1]);
    }
    assertEquals([table(net, gateway), net.mapper.isIdle], [[], true]);
  });

  /** A pair that was held, at a gateway that has a port for one of both alone: it rests at 10 s. */
  const resting = (decide?: SimulatedGatewayOptions["decide"]) => {
    const net = new Net({ protocols: ["pcp"] });
    const ports = [{ first: 5000, last: 5001 }];
    const table = { ports, quarantine: false } as const;
    const gateway = net.add(A, "203.0.113.7", { table, ...decide && { decide } });
    net.connect([A]);
    const id = net.do((mapper, now) => mapper.mapBoth(game, now));
    const { port } = net.mapper.mapping(id)!.external;
    net.run(10_000);
    gateway.reboot(net.now);
    take(gateway, "udp", port);
    take(gateway, "tcp", port === 5000 ? 5001 : 5000);
    net.sent.length = 0;
    net.do((mapper, now) => mapper.renew(id, undefined, now));
    assertEquals(net.takeTypes(), ["mapped", "gateway-restarted", "lost"]);
    return { net, gateway, id, port };
  };

  it("rest a minute where no port is left for both any more, and are asked for anew", () => {
    let isRefusing = false;
    const { net, gateway, id, port } = resting(({ lifetimeSeconds }) =>
      isRefusing && lifetimeSeconds > 0 ? { kind: "refuse", code: 2 } : undefined
    );
    // What was lost is asked for again, then six ports are tried.
    assertEquals(asksFor(net, "tcp").length, 7);
    for (const isRefused of [false, false, true]) {
      net.sent.length = 0;
      isRefusing = isRefused;
      assertEquals(net.mapper.debugTimeout(), { at: net.now + 60_000, reason: "pair" });
      net.run(59_999);
      assertEquals([net.sent, net.mapper.mapping(id)], [[], undefined]);
      net.run(1);
      const asked = asksFor(net, "tcp");
      // What is refused is not tried with other ports.
      assertEquals([asked.length, wish(asked[0]!)], [isRefused ? 1 : 6, port]);
      assertEquals([net.events, table(net, gateway)], [[], []]);
    }
    isRefusing = false;
    const [udp] = gateway.list(net.now).filter(({ protocol }) => protocol === 17);
    gateway.table.remove(udp!, net.now);
    net.run(60_000);
    const [event, ...more] = takeEvents(net);
    assertEquals([told(event, "recovered").mapping.external.port, more], [port, []]);
    assertEquals(table(net, gateway), [`tcp ${port}`, `udp ${port}`]);
  });

  it("that rest are over at once where they are ended", () => {
    for (const end of ["revoke", "abandon", "close"] as const) {
      const { net, id } = resting();
      net.do((mapper, now) => end === "close" ? mapper.close(now) : mapper[end](id, now));
      assertEquals(net.takeTypes(), end === "abandon" ? [] : ["unmapped"]);
      assertEquals([net.mapper.isIdle, net.mapper.nextTimeout()], [true, undefined]);
    }
  });

  it("come back after a restart, on another port where one has been taken meanwhile", () => {
    const net = new Net({ protocols: ["pcp"] });
    const ports = [{ first: 5000, last: 5001 }];
    const gateway = net.add(A, "203.0.113.7", { table: { ports, quarantine: false } });
    net.connect([A]);
    const id = net.do((mapper, now) => mapper.mapBoth(game, now));
    const { port: before } = net.mapper.mapping(id)!.external;
    net.run(60_000);
    net.takeTypes();
    gateway.reboot(net.now);
    take(gateway, "udp", before);
    net.sent.length = 0;
    net.run(3 * 3_600_000);
    const types = net.events.map(({ type }) => type).filter((type) => type !== "gateway-restarted");
    assertEquals(types.slice(0, 2), ["lost", "recovered"]);
    const { port } = net.mapper.mapping(id)!.external;
    assert(port !== before);
    assertEquals(table(net, gateway), [`tcp ${port}`, `udp ${port}`]);
    // The one that the gateway chose for UDP was free for both.
    assertEquals(wish(asksFor(net, "tcp")[0]!), port);
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
    const [, lost, ...more] = takeEvents(net);
    assertEquals(lost, { type: "lost", id, failure: { kind: "no-answer" } });
    assertEquals(more.map(({ type }) => type), ["recovered"]);
  });

  it("move to the port that the other gateway gave the first of them", () => {
    const { net } = make({ protocols: ["pcp"] });
    const id = net.do((mapper, now) => mapper.mapBoth(game, now));
    take(net.add(B, "198.51.100.7"), "tcp", 27_015);
    net.sent.length = 0;
    net.connect([B]);
    net.run(60_000);
    const { port } = net.mapper.mapping(id)!.external;
    assert(port !== 27_015);
    assertEquals([asksFor(net, "tcp").map(wish), asksFor(net, "udp").map(wish)], [
      [27_015, port],
      [port],
    ]);
    assertEquals(net.takeTypes(), ["mapped", "lost", "recovered"]);
  });

  it("move with the lifetime for which they were renewed", () => {
    const { net } = make({ protocols: ["pcp"] });
    net.add(B, "198.51.100.7");
    const id = net.do((mapper, now) => mapper.mapBoth(game, now));
    net.do((mapper, now) => mapper.renew(id, 600, now));
    net.run(4000);
    net.do((mapper, now) => mapper.renew(id, undefined, now));
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

  it("are renewed when the slower one is, and are held for as long as the shorter one", () => {
    for (const slow of ["tcp", "udp"] as const) {
      const { net } = make({ protocols: ["pcp"] });
      const loss = lossy(net);
      const id = net.do((mapper, now) => mapper.mapBoth(game, now));
      net.run(10_000);
      takeEvents(net);
      loss.lost = slow;
      const revision = net.do((mapper, now) => mapper.renew(id, 600, now));
      net.run(1000);
      assertEquals([net.events, net.mapper.mapping(id)?.lifetimeSeconds], [[], 600]);
      loss.lost = undefined;
      net.run(5000);
      const [event, ...more] = takeEvents(net);
      assertEquals([told(event, "renewed").revision, more], [revision, []]);
    }
  });

  it("tell a new address as no answer to the renewal that is on its way", () => {
    const { net, gateway } = make({ protocols: ["pcp"] });
    const loss = lossy(net);
    const id = net.do((mapper, now) => mapper.mapBoth(game, now));
    net.run(10_000);
    takeEvents(net);
    gateway.setExternalAddresses(["203.0.113.8"], net.now);
    // Its own word of it is lost.
    while (gateway.poll());
    loss.lost = "udp";
    const revision = net.do((mapper, now) => mapper.renew(id, 600, now));
    const [restart, event, ...more] = takeEvents(net);
    assertEquals([restart?.type, more], ["gateway-restarted", []]);
    const { mapping, revision: before } = told(event, "moved");
    assertEquals([before, mapping.external.address], [revision - 1, "203.0.113.8"]);
    loss.lost = undefined;
    net.run(5000);
    const answers = takeEvents(net);
    assertEquals(answers.map(({ type }) => type), ["renewed"]);
    assertEquals(told(answers[0], "renewed").revision, revision);
  });

  /** A pair whose renewal is on its way: TCP's is refused, and UDP's is lost. */
  const halfRenewed = () => {
    const net = new Net({ protocols: ["pcp"] });
    const gateway = net.add(A, "203.0.113.7");
    net.connect([A]);
    const loss = lossy(net);
    const id = net.do((mapper, now) => mapper.mapBoth(game, now));
    net.run(10_000);
    takeEvents(net);
    gateway.setRefusal(8, net.now);
    loss.lost = "udp";
    const number = net.do((mapper, now) => mapper.renew(id, undefined, now));
    const heal = () => {
      gateway.setRefusal(undefined, net.now);
      loss.lost = undefined;
    };
    return { net, id, number, heal };
  };

  it("tell once that a renewal failed, when both are answered", () => {
    const { net, number, heal } = halfRenewed();
    net.run(1000);
    assertEquals(net.events, []);
    heal();
    net.run(5000);
    const [event, ...more] = takeEvents(net);
    const { revision, failure } = told(event, "renewal-failed");
    assertEquals([revision, failure.kind, more], [number, "refused", []]);
    // The next one of the schedule is granted.
    net.run(6_000_000);
    assertEquals([...new Set(net.takeTypes())], ["renewed"]);
  });

  it("tell nothing of a failure that a later renewal has made good", () => {
    const { net, id, heal } = halfRenewed();
    // NO_RESOURCES holds for half a minute.
    net.run(30_000);
    heal();
    const number = net.do((mapper, now) => mapper.renew(id, undefined, now));
    net.run(60_000);
    const [event, ...more] = takeEvents(net);
    assertEquals([told(event, "renewed").revision, more], [number, []]);
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

  it("end when the time of the longer one is over", () => {
    const { net, gateway } = make({ protocols: ["pcp"] });
    const loss = lossy(net);
    loss.lost = "udp";
    net.do((mapper, now) => mapper.mapBoth({ ...game, mode: "once", lifetimeSeconds: 600 }, now));
    net.run(1000);
    loss.lost = undefined;
    net.run(10_000);
    assertEquals(net.takeTypes(), ["mapped"]);
    net.run(600_500 - net.now);
    assertEquals([net.events, table(net, gateway)], [[], ["udp 27015"]]);
    net.run(10_000);
    const [event, ...more] = takeEvents(net);
    assertEquals([told(event, "unmapped").reason, more, net.mapper.isIdle], ["expired", [], true]);
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
    assertEquals(net.events, []);
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

  it("say what the one that is waited for has come to", () => {
    const { net } = make({ protocols: ["pcp"] });
    const loss = lossy(net);
    loss.lost = "tcp";
    const id = net.do((mapper, now) => mapper.mapBoth(game, now));
    const at = { via: "pcp", gateway: A.gateway.address } as const;
    const assertSilentFor = (ms: number) => {
      const [one, ...more] = net.mapper.attempts(id, net.now);
      assertEquals([{ ...one, elapsedMs: Math.floor(one!.elapsedMs) }, more], [
        { ...at, outcome: "no answer", elapsedMs: ms },
        [],
      ]);
    };
    net.run(1000);
    assertSilentFor(1000);
    loss.lost = "udp";
    while (asksFor(net, "udp").length === 0) net.run(1);
    net.run(1000);
    assertSilentFor(1000);
  });

  it("leave their port to another wish while they are given back", () => {
    const { net } = make();
    const both = net.do((mapper, now) => mapper.mapBoth({ ...game, family: 4 }, now));
    net.silent.add(A.gateway.address);
    net.do((mapper, now) => mapper.revoke(both, now));
    const half = { protocol: "udp", internalPort: 27_015 } as const;
    const id = net.do((mapper, now) => mapper.map(half, now));
    net.silent.clear();
    net.run(60_000);
    const ends = takeEvents(net).map((event) => [event.type, "id" in event && event.id]);
    assertEquals(ends, [["mapped", both], ["unmapped", both], ["mapped", id]]);
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
