/**
 * What the mapper makes of the network: gateways that come, go and fail, and several at once. Each
 * gateway is answered for by a simulated one, by hand.
 *
 * @module
 */
import { describe, it } from "node:test";
import { assert, assertEquals } from "@std/assert";
import { SimulatedGateway } from "../../../core/gateway/gateway.ts";
import type { Endpoint, Instant } from "../../../core/machine.ts";
import type { MapperEvent } from "../../../core/portmap/managed.ts";
import { PortMapper, type PortMapperOptions } from "../../../core/portmap/mapper.ts";
import type { NetworkPath } from "../../../core/portmap/path.ts";
import { seededRandom } from "../../../core/random.ts";
import { told } from "./rig.ts";

const web = { protocol: "tcp", internalPort: 8080 } as const;
const A: NetworkPath = {
  gateway: { address: "192.168.1.1", port: 5351 },
  localAddress: "192.168.1.100",
};
const B: NetworkPath = {
  gateway: { address: "192.168.2.1", port: 5351 },
  localAddress: "192.168.2.100",
};
const SIX: NetworkPath = {
  gateway: { address: "fe80::1%eth0", port: 5351 },
  localAddress: "2001:db8::100",
};

/** A mapper and the gateways that answer it, by their addresses. */
class Net {
  readonly mapper: PortMapper;
  readonly gateways: Map<string, SimulatedGateway> = new Map();
  readonly events: MapperEvent[] = [];
  readonly sent: { readonly to: Endpoint; readonly data: Uint8Array }[] = [];
  /** Gateways of which nothing comes back. */
  readonly silent: Set<string> = new Set();
  now: Instant = 0;
  /** From where each gateway sees the mapper. */
  readonly #locals: Map<string, Endpoint> = new Map();
  readonly #open: Map<string, string> = new Map();

  constructor(options: Partial<PortMapperOptions> = {}) {
    this.mapper = new PortMapper({ random: seededRandom(1), announcements: false, ...options });
  }

  /** Puts a gateway there that booted well before. */
  add(path: NetworkPath, external: string, options: object = {}): SimulatedGateway {
    const gateway = new SimulatedGateway({
      ...(path === SIX ? {} : { externalAddresses: [external] }),
      random: seededRandom(2),
      announceTo: [],
      ...options,
    });
    gateway.start(-100_000);
    this.gateways.set(path.gateway.address, gateway);
    return gateway;
  }

  /** Tells the mapper its network; `opens` says in which order sockets open, or not. */
  connect(paths: readonly NetworkPath[], opens: readonly NetworkPath[] = paths): void {
    this.mapper.networkChanged(paths, this.now);
    for (const { gateway } of opens) {
      const spec = this.mapper.sockets().find(({ connect }) =>
        connect?.address === gateway.address
      );
      if (!spec) continue;
      const text = JSON.stringify(spec);
      if (this.#open.get(spec.key) === text) continue;
      this.#open.set(spec.key, text);
      const local = { address: spec.local!.address, port: 40_000 };
      this.#locals.set(gateway.address, local);
      this.mapper.handleSocket(spec.key, { ok: true, local }, this.now);
    }
    this.settle();
  }

  do<T>(command: (mapper: PortMapper, now: Instant) => T): T {
    const result = command(this.mapper, this.now);
    this.settle();
    return result;
  }

  /** Carries what is sent to the gateways and back, until all are silent. */
  settle(): void {
    for (let action = this.mapper.poll(); action; action = this.mapper.poll()) {
      if (action.type === "event") this.events.push(action.event);
      if (action.type !== "send") continue;
      this.sent.push({ to: action.to, data: action.data });
      this.deliver(action.to, action.data);
    }
  }

  /** Hands a request to its gateway, and the answer back. */
  deliver(to: Endpoint, data: Uint8Array): void {
    const gateway = this.gateways.get(to.address);
    if (!gateway || this.silent.has(to.address)) return;
    gateway.handleDatagram(data, this.#locals.get(to.address)!, this.now);
    for (let reply = gateway.poll(); reply; reply = gateway.poll()) {
      if (reply.type === "send") this.mapper.handleDatagram(reply.data, to, this.now);
    }
  }

  run(ms: number): void {
    const end = this.now + ms;
    for (;;) {
      const at = this.mapper.nextTimeout() ?? Infinity;
      if (at > end) break;
      this.now = Math.max(this.now, at);
      this.mapper.handleTimeout(this.now);
      this.settle();
    }
    this.now = end;
  }

  takeTypes(): string[] {
    return this.events.splice(0).map(({ type }) => type);
  }

  /** External ports in a gateway's table. */
  ports(path: NetworkPath): number[] {
    const entries = this.gateways.get(path.gateway.address)!.list(this.now);
    return entries.map(({ external }) => external.port);
  }
}

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
    for (const { to, data } of net.sent.filter(({ to }) => to.address === A.gateway.address)) {
      net.deliver(to, data);
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
    for (const { to, data } of requests) net.deliver(to, data);
    net.settle();
    net.run(5000);
    assertEquals(net.takeTypes(), ["mapped"]);
    assertEquals([...net.ports(A), ...net.ports(B)], [8080]);
    net.do((mapper, now) => mapper.close(now));
    assertEquals([net.ports(A), net.ports(B), net.mapper.isIdle], [[], [], true]);
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

  it("another way to the same gateway opens the socket anew, and asks from there", () => {
    const net = new Net();
    net.add(A, "203.0.113.7");
    net.connect([{ ...A, way: "eth0" }]);
    net.do((mapper, now) => mapper.map(web, now));
    const before = net.mapper.sockets();
    net.connect([{ ...A, way: "wlan0" }]);
    assert(net.mapper.sockets()[0]!.key !== before[0]!.key);
    assertEquals(net.takeTypes(), ["mapped"]);
    // To the gateway it is another host, to which the port of the first is not free.
    net.connect([{ ...A, way: "wlan0", localAddress: "192.168.1.101" }]);
    assertEquals(net.takeTypes(), ["moved"]);
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

describe("protocols over tables of their own", () => {
  /** PCP answers late, NAT-PMP at once, and each has a table: two gateways at one address. */
  function twoTables(): { net: Net; pcp: SimulatedGateway; natPmp: SimulatedGateway } {
    const net = new Net();
    const natPmp = net.add(A, "203.0.113.7", { protocols: ["nat-pmp"] });
    const pcp = net.add(B, "203.0.113.7", { protocols: ["pcp"] });
    const deliver = net.deliver.bind(net);
    net.deliver = (to, data) => {
      if (data[0] === 0) deliver(to, data);
    };
    return { net, pcp, natPmp };
  }

  it("what PCP grants after NAT-PMP has won is deleted with it at the end", () => {
    const { net, pcp, natPmp } = twoTables();
    net.connect([A]);
    net.do((mapper, now) => mapper.map(web, now));
    const request = net.sent.find(({ data }) => data[0] === 2)!;
    net.run(40);
    assertEquals(told(net.events[0], "mapped").mapping.via, "nat-pmp");
    const from = { address: A.localAddress!, port: 40_000 };
    const answer = (data: Uint8Array) => {
      pcp.handleDatagram(data, from, net.now);
      const reply = pcp.poll();
      if (reply?.type === "send") net.mapper.handleDatagram(reply.data, A.gateway, net.now);
    };
    net.run(80);
    answer(request.data);
    net.settle();
    assertEquals([pcp.list(net.now).length, natPmp.list(net.now).length], [1, 1]);
    const before = net.sent.length;
    net.do((mapper, now) => mapper.close(now));
    for (const { data } of net.sent.slice(before)) if (data[0] === 2) answer(data);
    net.settle();
    assertEquals([pcp.list(net.now).length, natPmp.list(net.now).length], [0, 0]);
    assertEquals(net.mapper.isIdle, true);
  });
});
