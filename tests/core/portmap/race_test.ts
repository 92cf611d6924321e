/**
 * Who makes a mapping, and when: protocols and gateways race, each answered when the test says.
 *
 * @module
 */
import { describe, it } from "node:test";
import { assert, assertEquals } from "@std/assert";
import type { Endpoint, SendAction } from "../../../core/machine.ts";
import { codeOf, retryAfter } from "../../../core/mapping.ts";
import { toHex } from "../../../core/bytes.ts";
import { decodeRequest } from "../../../core/pcp/codec.ts";
import { A, B, Net, SIX, web } from "./net.ts";
import { openMapper, told } from "./rig.ts";

/** A net whose requests wait until they are let through. */
class Held extends Net {
  readonly #waiting: (SendAction & { at: number })[] = [];

  override deliver(sent: SendAction): void {
    this.#waiting.push({ ...sent, at: this.now });
  }

  /** What waits, in short: `"pcp 192.168.1.1"`. */
  get waiting(): string[] {
    return this.#waiting.map(({ to, data }) => `${nameOf(data)} ${to.address}`);
  }

  /** Lets through what waits of a kind; the rest of it is lost where `once`. */
  answer(name: string): void {
    const chosen = this.#waiting.filter(({ to, data }) =>
      `${nameOf(data)} ${to.address}`.startsWith(name)
    );
    for (const one of chosen) this.#waiting.splice(this.#waiting.indexOf(one), 1);
    for (const sent of chosen) super.deliver(sent);
    this.settle();
  }

  lose(): void {
    this.#waiting.length = 0;
  }
}

const nameOf = (data: Uint8Array): string =>
  data[0] === 2 ? data[1] === 0 ? "announce" : "pcp" : data.length === 2 ? "probe" : "map";

function race(options: ConstructorParameters<typeof Net>[0] = {}, gateways = [A]): Held {
  const net = new Held(options);
  net.add(A, "203.0.113.7");
  net.add(B, "198.51.100.7");
  net.connect(gateways);
  return net;
}

const local = ({ address }: Endpoint): string =>
  address.includes(":") ? "2001:db8::100" : A.localAddress!;

const begin = (net: Net, request: object = {}): number =>
  net.do((mapper, now) => mapper.map({ ...web, ...request }, now));

describe("protocols at one gateway", () => {
  it("begin with PCP's request and NAT-PMP's question, which maps nothing", () => {
    const net = race();
    begin(net);
    assertEquals(net.waiting, ["pcp 192.168.1.1", "probe 192.168.1.1"]);
    assertEquals(net.mapper.nonces, 1);
  });

  for (const [roundTrip, grace] of [[1, 30], [17, 34], [200, 40]] as const) {
    it(`NAT-PMP, there after ${roundTrip} ms, maps ${grace} ms later where PCP is silent`, () => {
      const net = race();
      begin(net);
      net.run(roundTrip);
      net.answer("probe");
      net.lose();
      net.run(grace - 1);
      assertEquals(net.waiting.filter((one) => one.startsWith("map")), []);
      net.run(1);
      assertEquals(net.waiting.filter((one) => one.startsWith("map")), ["map 192.168.1.1"]);
      net.answer("map");
      const mapped = told(net.events[0], "mapped");
      assertEquals([mapped.mapping.via, net.mapper.stats.won], [
        "nat-pmp",
        { "pcp": 0, "nat-pmp": 1, "upnp": 0 },
      ]);
    });
  }

  it("NAT-PMP is asked once for all, and the grace is that of its question's round trip", () => {
    const net = race();
    begin(net);
    net.run(10);
    begin(net, { internalPort: 9090 });
    net.run(7);
    net.answer("probe");
    net.lose();
    const maps = () => net.waiting.filter((one) => one.startsWith("map")).length;
    net.run(33);
    assertEquals(maps(), 0);
    net.run(1);
    assertEquals([maps(), net.sent.filter(({ data }) => data.length === 2).length], [1, 1]);
    net.answer("map");
    assertEquals(net.ports(A).length > 0, true);
  });

  it("PCP that answers in that time has the mapping, and NAT-PMP does not map", () => {
    const net = race();
    begin(net);
    net.run(1);
    net.answer("probe");
    net.run(29);
    net.answer("pcp");
    assertEquals(told(net.events[0], "mapped").mapping.via, "pcp");
    // Nothing of the race is waited for, but the renewal.
    assert(net.mapper.nextTimeout()! > 3_600_000);
    net.run(60_000);
    assertEquals(net.waiting, []);
    // Who has lost is nothing to what is held.
    assertEquals(net.mapper.attempts(1, net.now).map(({ via }) => via), ["pcp"]);
  });

  it("PCP that says it is not spoken makes way at once", () => {
    const net = race();
    net.gateways.get(A.gateway.address)!.setProtocol("pcp", false, 0);
    begin(net);
    net.answer("probe");
    assertEquals(net.waiting, ["pcp 192.168.1.1"]);
    net.answer("pcp");
    assertEquals(net.waiting, ["map 192.168.1.1"]);
    net.answer("map");
    assertEquals(told(net.events[0], "mapped").mapping.via, "nat-pmp");
  });

  it("NAT-PMP that is not spoken is asked again a minute later, where PCP is silent all along", () => {
    const net = race();
    net.gateways.get(A.gateway.address)!.setProtocol("nat-pmp", false, 0);
    begin(net);
    net.answer("probe");
    net.lose();
    net.run(59_999);
    assertEquals(net.waiting.filter((one) => !one.startsWith("pcp")), []);
    net.run(1);
    assertEquals(net.waiting.filter((one) => !one.startsWith("pcp")), ["probe 192.168.1.1"]);
  });

  it("PCP's request is sent again soon, unless that is not wanted", () => {
    for (const [fastStart, sends] of [[true, 3], [false, 1], [undefined, 3]] as const) {
      const net = race({ protocols: ["pcp"], ...(fastStart !== undefined && { fastStart }) });
      begin(net);
      net.run(1000);
      assertEquals(net.waiting.length, sends);
    }
  });

  it("NAT-PMP is asked no more once PCP has the mapping", () => {
    const net = race();
    begin(net);
    net.answer("pcp");
    assertEquals(net.takeTypes(), ["mapped"]);
    net.lose();
    net.run(60_000);
    assertEquals(net.waiting, []);
  });

  it("PCP has its chance again where NAT-PMP's answer comes to a later question", () => {
    const net = race();
    begin(net);
    net.lose();
    net.run(1900);
    net.lose();
    // The gateway wakes up: it hears the next question, and the request beside it.
    while (!net.waiting.includes("probe 192.168.1.1")) net.run(100);
    net.lose();
    net.run(100);
    while (!net.waiting.includes("probe 192.168.1.1")) net.run(100);
    net.answer("probe");
    assert(net.waiting.includes("pcp 192.168.1.1"));
    net.answer("pcp");
    assertEquals(told(net.events[0], "mapped").mapping.via, "pcp");
  });

  it("a refusal that says no is no by both; one that says not this way is the next one's turn", () => {
    const no = race();
    no.gateways.get(A.gateway.address)!.setRefusal(8, 0);
    begin(no);
    no.answer("pcp");
    const failed = told(no.events[0], "failed");
    assertEquals([failed.code, failed.attempts[0]?.outcome], ["refused", "NO_RESOURCES"]);
    no.answer("pcp");
    no.lose();
    no.run(60_000);
    assertEquals([no.waiting, no.mapper.isIdle], [[], true]);
    const way = race();
    begin(way);
    way.answer("probe");
    way.gateways.get(A.gateway.address)!.setRefusal(2, 0);
    way.answer("pcp");
    assertEquals(way.waiting, ["map 192.168.1.1"]);
    way.answer("map");
    assertEquals(
      told(way.events[0], "failed").attempts.map(({ via, outcome }) => `${via} ${outcome}`),
      ["pcp NOT_AUTHORIZED", "nat-pmp NOT_AUTHORIZED"],
    );
    assert(way.mapper.isIdle);
  });

  /** A gateway says that it does not speak the version that it was asked in. */
  const sayNo = (net: Net, opcode: number): boolean =>
    net.do((mapper, now) => {
      const no = Uint8Array.of(0, 0x80 | opcode, 0, 1, 0, 0, 0, 100 + now / 1000);
      return mapper.handleDatagram(no, A.gateway, mapper.sockets()[0]!.key, now);
    });

  for (const [ms, isLate] of [[1, true], [9999, true], [10_000, false]] as const) {
    it(`a "no" that comes ${ms} ms after PCP asked is ${isLate ? "about that" : "NAT-PMP's"}`, () => {
      const net = race();
      net.run(50_000);
      begin(net, { protocol: "udp" });
      net.answer("probe");
      assert(sayNo(net, 1));
      // To NAT-PMP's request, whose opcode for UDP is PCP's for MAP.
      assert(net.waiting.includes("map 192.168.1.1"));
      net.run(ms);
      assert(sayNo(net, 1));
      assertEquals(net.takeTypes(), isLate ? [] : ["failed"]);
      if (!isLate) return;
      net.answer("map");
      assertEquals(told(net.events[0], "mapped").mapping.via, "nat-pmp");
    });
  }

  it('a "no" to opcode 0 is about NAT-PMP\'s question, however soon it comes', () => {
    const net = race();
    begin(net);
    assert(sayNo(net, 1) && sayNo(net, 0));
    const attempts = told(net.events[0], "failed").attempts;
    assertEquals(attempts.map(({ via }) => via), ["pcp", "nat-pmp"]);
  });

  it("NAT-PMP that is about to map leaves it, where PCP is refused what it lost", () => {
    const net = race();
    const id = begin(net, { lifetimeSeconds: 120 });
    net.answer("pcp");
    net.lose();
    while (net.mapper.mapping(id)) net.run(500);
    net.lose();
    while (new Set(net.waiting).size < 2) net.run(10);
    net.answer("probe");
    net.gateways.get(A.gateway.address)!.setRefusal(8, net.now);
    net.answer("pcp");
    assertEquals(net.waiting, []);
    // It is asked by the refusal's end, and the other one a minute after that.
    net.run(30_000);
    assertEquals([...new Set(net.waiting)], ["pcp 192.168.1.1"]);
    net.run(59_999);
    assert(!net.waiting.includes("probe 192.168.1.1"));
    net.run(1);
    assert(net.waiting.includes("probe 192.168.1.1"));
  });

  it("asks for nothing while what it asked for is being deleted, and waits for that alone", () => {
    const net = race({ protocols: ["pcp"], fastStart: false }, [A, B]);
    const id = begin(net);
    assertEquals(net.mapper.debugTimeout(), { at: 1000, reason: "race" });
    net.do((mapper, now) => mapper.revoke(id, now));
    assert(net.mapper.nextTimeout()! > 1000, JSON.stringify(net.mapper.debugTimeout()));
    net.run(60_000);
    assert(!net.waiting.includes("pcp 192.168.2.1"));
  });

  it("a late grant with the port of the winner is left to the winner", () => {
    const net = race();
    begin(net);
    net.run(1);
    net.answer("probe");
    net.run(30);
    net.answer("map");
    assertEquals(net.takeTypes(), ["mapped"]);
    net.answer("pcp");
    assertEquals([net.takeTypes(), net.waiting], [[], []]);
    assertEquals(net.ports(A), [8080]);
  });
});

describe("gateways", () => {
  it("the next one is asked when the one before it is a second late, and loses by then", () => {
    const net = race({ protocols: ["pcp"] }, [A, B]);
    begin(net);
    net.run(999);
    assert(!net.waiting.includes("pcp 192.168.2.1"));
    net.run(1);
    assert(net.waiting.includes("pcp 192.168.2.1"));
    net.answer("pcp 192.168.1.1");
    assertEquals(told(net.events[0], "mapped").mapping.gateway, A.gateway);
    // The other one is asked to delete what it may have made.
    net.answer("pcp 192.168.2.1");
    net.run(5000);
    net.answer("pcp 192.168.2.1");
    assertEquals([net.ports(A), net.ports(B)], [[8080], []]);
  });

  it("a third one that joins does not put off the second one's turn", () => {
    const net = race({ protocols: ["pcp"] }, [A]);
    begin(net);
    net.connect([A, B]);
    net.run(500);
    net.connect([A, B, {
      gateway: { address: "192.168.3.1", port: 5351 },
      localAddress: "192.168.3.9",
    }]);
    net.run(500);
    assert(net.waiting.includes("pcp 192.168.2.1"));
    assert(!net.waiting.includes("pcp 192.168.3.1"));
    net.run(1000);
    assert(net.waiting.includes("pcp 192.168.3.1"));
  });

  it("that has said no leaves the other one to go on, and is asked again a minute later", () => {
    const net = race({ protocols: ["pcp"] }, [A, B]);
    const gateway = net.gateways.get(A.gateway.address)!;
    gateway.setRefusal(10, 0);
    begin(net);
    net.answer("pcp 192.168.1.1");
    assert(net.waiting.includes("pcp 192.168.2.1"));
    net.answer("pcp 192.168.1.1");
    gateway.setRefusal(undefined, 0);
    net.run(59_999);
    assert(!net.waiting.includes("pcp 192.168.1.1"));
    net.run(1);
    net.answer("pcp 192.168.1.1");
    assertEquals(told(net.events[0], "mapped").mapping.gateway, A.gateway);
  });

  it("that said no count where the next one is not there: that says more", () => {
    const net = race({ protocols: ["pcp"] }, [A, B]);
    net.gateways.get(A.gateway.address)!.setRefusal(8, 0);
    begin(net);
    net.answer("pcp 192.168.1.1");
    const [, { key }] = net.mapper.sockets() as [unknown, { key: string }];
    net.do((mapper, now) => mapper.handleUnreachable(B.gateway, key, now));
    assertEquals(told(net.events[0], "failed").code, "refused");
  });

  it("that are left and come back see the nonce that they saw", () => {
    const net = race({ protocols: ["pcp"] }, [A, B]);
    begin(net);
    net.run(1500);
    net.connect([B]);
    net.run(3000);
    net.lose();
    net.connect([A, B]);
    net.run(2000);
    assert(net.waiting.includes("pcp 192.168.1.1"));
    const nonces = net.sent.filter(({ to }) => to.address === A.gateway.address)
      .map(({ data }) => toHex(data.subarray(24, 36)));
    assertEquals(new Set(nonces).size, 1);
  });

  it("that all say no fail it, with what each said", () => {
    const net = race({ protocols: ["pcp"] }, [A, B]);
    for (const gateway of net.gateways.values()) gateway.setRefusal(8, 0);
    begin(net);
    net.answer("pcp 192.168.1.1");
    net.answer("pcp");
    net.answer("pcp");
    const failed = told(net.events[0], "failed");
    assertEquals(failed.attempts.map(({ gateway, outcome }) => `${gateway} ${outcome}`), [
      "192.168.1.1 NO_RESOURCES",
      "192.168.2.1 NO_RESOURCES",
    ]);
    assert(net.mapper.isIdle);
  });

  it("that join late are asked when their second is over, and at once where nobody is in play", () => {
    const net = race({ protocols: ["pcp"] });
    begin(net);
    net.run(400);
    net.connect([A, B]);
    net.run(999);
    assert(!net.waiting.includes("pcp 192.168.2.1"));
    net.run(1);
    assert(net.waiting.includes("pcp 192.168.2.1"));
    const none = race({ protocols: ["pcp"] }, []);
    begin(none);
    none.connect([B]);
    assertEquals(none.waiting, ["pcp 192.168.2.1"]);
  });

  it("that are left take nothing from the others: a request that is under way goes on", () => {
    const net = race({ protocols: ["pcp"] }, [A, B]);
    begin(net);
    net.run(1500);
    assert(net.waiting.includes("pcp 192.168.2.1"));
    net.lose();
    net.connect([B]);
    assertEquals(net.waiting.filter((one) => one.endsWith("192.168.2.1")), []);
    net.run(5000);
    net.answer("pcp 192.168.2.1");
    assertEquals(net.takeTypes(), ["mapped"]);
    const nonces = net.sent.filter(({ to }) => to.address === B.gateway.address)
      .map(({ data }) => toHex(data.subarray(24, 36)));
    assertEquals([new Set(nonces).size, nonces.length > 2], [1, true]);
  });

  it("one alone is asked where one is named", () => {
    const net = race({ protocols: ["pcp"] }, [A, B]);
    begin(net, { gateway: B.gateway });
    net.run(5000);
    assert(net.waiting.length > 0 && net.waiting.every((one) => one === "pcp 192.168.2.1"));
    const port = { ...B.gateway, port: 1 };
    begin(net, { gateway: port, internalPort: 9 });
    assertEquals(told(net.events[0], "failed").code, "gateway-not-found");
  });

  it("of a lost mapping: who is refused waits, and the others are asked a minute after that", () => {
    const net = race({}, [A]);
    begin(net);
    net.answer("pcp");
    net.lose();
    const gateway = net.gateways.get(A.gateway.address)!;
    net.connect([]);
    net.lose();
    net.run(5000);
    gateway.setRefusal(8, net.now);
    net.connect([A]);
    net.answer("pcp");
    net.lose();
    assertEquals(net.takeTypes(), ["mapped", "lost"]);
    net.run(20_000);
    assertEquals(net.waiting.filter((one) => !one.startsWith("probe")), []);
    gateway.setRefusal(undefined, net.now);
    net.run(3_600_000);
    net.answer("pcp");
    net.answer("probe");
    net.answer("map");
    assertEquals(net.takeTypes(), ["recovered"]);
  });
});

describe("what is told of a race", () => {
  it("counts each win once, renewals are none", () => {
    const net = race();
    const id = begin(net);
    net.answer("pcp");
    for (let i = 0; i < 3; i++) {
      net.run(5000);
      net.do((mapper, now) => mapper.renew(id, undefined, now));
      net.answer("pcp");
    }
    assertEquals(net.takeTypes(), ["mapped", "renewed", "renewed", "renewed"]);
    assertEquals(net.mapper.stats.won.pcp, 1);
  });

  it("each renewal carries its number, by whichever client holds the mapping", () => {
    const net = race();
    const id = begin(net);
    net.answer("pcp");
    assertEquals(net.do((mapper, now) => mapper.renew(id, 600, now)), 1);
    net.answer("pcp");
    net.connect([B]);
    net.answer("pcp 192.168.1.1");
    // Nobody holds it: the number is that of the grant to come.
    assertEquals(net.do((mapper, now) => mapper.renew(id, 600, now)), 2);
    net.run(1);
    net.connect([A]);
    net.answer("pcp 192.168.1.1");
    net.run(5000);
    assertEquals(net.do((mapper, now) => mapper.renew(id, 600, now)), 3);
    net.answer("pcp 192.168.1.1");
    const revisions = net.events.flatMap((event) => "mapping" in event ? event.revision : []);
    assertEquals(revisions, [0, 1, 2, 3]);
    assertEquals(net.do((mapper, now) => mapper.renew(99, undefined, now)), 0);
  });

  it("after a loss lists what came of it since", () => {
    const net = race({ protocols: ["pcp"] });
    const id = begin(net);
    net.answer("pcp");
    net.run(1000);
    net.connect([B]);
    net.lose();
    net.run(300);
    assertEquals(net.mapper.attempts(id, net.now), [
      { via: "pcp", gateway: "192.168.2.1", outcome: "no answer", elapsedMs: 300 },
    ]);
  });

  it("names the peer of an outbound mapping, and the host that one is for", () => {
    const net = race({ protocols: ["pcp"] });
    const remote = { address: "198.51.100.9", port: 9 };
    begin(net, { remote });
    net.answer("pcp");
    const { mapping } = told(net.events[0], "mapped");
    assertEquals([mapping.kind, mapping.remote], ["peer", remote]);
    begin(net, { internalPort: 9, description: "web" });
    net.answer("pcp");
    const other = told(net.events[1], "mapped").mapping;
    assertEquals([other.kind, other.remote, other.internal], ["map", undefined, {
      address: A.localAddress!,
      port: 9,
    }]);
  });

  it("names a gateway by its address, and by its port where that is another one", () => {
    for (
      const [gateway, text] of [
        [A.gateway, "192.168.1.1"],
        [{ ...A.gateway, port: 5352 }, "192.168.1.1:5352"],
        [{ address: "fe80::1", port: 5352 }, "fe80::1 port 5352"],
      ] as const
    ) {
      const mapper = openMapper({ protocols: ["pcp"] }, local(gateway), gateway);
      const id = mapper.map(web, 0);
      assertEquals(mapper.attempts(id, 0).map((one) => one.gateway), [text]);
    }
  });

  it("keeps the nonce of what failed before it was sent: other requests had met no resources", () => {
    const net = new Net({ protocols: ["pcp"] });
    for (const path of [A, B]) net.add(path, "203.0.113.7");
    net.connect([A]);
    net.do((mapper, now) => mapper.map({ ...web, mode: 3 }, now));
    net.gateways.get(B.gateway.address)!.setRefusal(8, net.now); // NO_RESOURCES, 30 s
    net.connect([B]);
    net.run(80_000);
    net.do((mapper, now) => mapper.map({ ...web, internalPort: 9000 }, now));
    net.run(300_000);
    const requests = net.sent.flatMap(({ to, data }) => {
      const request = to.address === B.gateway.address ? decodeRequest(data) : "wrong-version";
      return typeof request === "object" && request.kind === "map" ? request : [];
    }).filter(({ internalPort }) => internalPort === web.internalPort);
    assert(requests.length > 1);
    assertEquals(new Set(requests.map(({ nonce }) => toHex(nonce))).size, 1);
  });

  it("asks the silent gateway of IPv6 no more once one of IPv4 has the mapping", () => {
    const net = new Net();
    net.add(SIX, "");
    net.add(A, "203.0.113.7");
    net.connect([SIX]);
    net.do((mapper, now) => mapper.map({ ...web, lifetimeSeconds: 120 }, now));
    net.silent.add(SIX.gateway.address);
    net.connect([SIX, A]);
    net.run(150_000);
    assertEquals(net.takeTypes(), ["mapped", "lost", "recovered"]);
    net.sent.length = 0;
    net.run(3_600_000);
    assertEquals(net.sent.filter(({ to }) => to.address === SIX.gateway.address), []);
  });

  it("asks nothing from an address that the host has no more, until the socket is open there", () => {
    const net = new Net({ protocols: ["pcp"] });
    net.add(A, "203.0.113.7");
    net.connect([A]);
    net.do((mapper, now) => mapper.map({ ...web, lifetimeSeconds: 120 }, now));
    net.silent.add(A.gateway.address);
    const [{ key }] = net.mapper.sockets() as [{ key: string }];
    for (const ms of [130_000, 61_000]) {
      net.run(ms);
      net.do((mapper, now) => mapper.handleUnreachable(A.gateway, key, now));
    }
    assertEquals(net.takeTypes(), ["mapped", "lost"]);
    net.sent.length = 0;
    const moved = { ...A, localAddress: "192.168.1.101" };
    net.connect([moved], []);
    assertEquals(net.sent, []);
    net.connect([moved]);
    assertEquals(net.sent.map(({ data }) => data[23]), [101]);
  });

  it("asks whom a refusal left out when its time is over, though others are silent meanwhile", () => {
    const net = new Net({ protocols: ["pcp"] });
    for (const path of [A, B]) net.add(path, "203.0.113.7");
    net.gateways.get(A.gateway.address)!.setRefusal(2, net.now); // NOT_AUTHORIZED, half an hour
    net.connect([A, B]);
    const id = net.do((mapper, now) => mapper.map({ ...web, lifetimeSeconds: 120 }, now));
    net.run(2000);
    assertEquals(net.mapper.mapping(id)?.gateway, B.gateway);
    net.gateways.get(A.gateway.address)!.setRefusal(undefined, net.now);
    // What another one forgets is no news of what A has refused.
    net.gateways.get(B.gateway.address)!.reboot(net.now);
    net.do((mapper, now) => mapper.renew(id, undefined, now));
    net.run(10_000);
    net.silent.add(B.gateway.address);
    net.sent.length = 0;
    const nobody = { address: "192.168.3.1", port: 5351 };
    net.connect([A, B, { gateway: nobody, localAddress: "192.168.3.100" }]);
    net.run(1_600_000);
    assertEquals(net.sent.filter(({ to }) => to.address === A.gateway.address), []);
    net.run(400_000);
    assertEquals(net.mapper.mapping(id)?.gateway, A.gateway);
  });

  it("says in whole seconds how long a refusal holds, rounded up", () => {
    const until = (retryAt: number) =>
      retryAfter({ kind: "refused", code: 8, name: "NO_RESOURCES", retryAt }, 10_000);
    assertEquals(
      [40_000, 10_001, 10_000, 0].map(until),
      [30, 1, 0, 0].map((seconds) => ({
        retryAfterSeconds: seconds,
      })),
    );
    assertEquals(retryAfter({ kind: "no-answer" }, 0), {});
  });

  it("has one code for each way to fail", () => {
    const codes = ([
      { kind: "refused", code: 8, name: "NO_RESOURCES", retryAt: 0 },
      { kind: "protocol-violation", clause: "D-08" },
      { kind: "unreachable" },
      { kind: "unsupported-version", version: 0 },
      { kind: "no-answer" },
      { kind: "expired" },
    ] as const).map(codeOf);
    assertEquals(codes, [
      "refused",
      "protocol-violation",
      "unsupported",
      "unsupported",
      "no-answer",
      "no-answer",
    ]);
  });

  it("forgets the counters of a gateway that is left, and counts it", () => {
    const net = race();
    assertEquals(Object.keys(net.mapper.stats.clients).length, 2);
    net.connect([B]);
    assertEquals(Object.keys(net.mapper.stats.clients).length, 2);
    assertEquals([net.mapper.stats.paths, net.mapper.stats.left], [2, 1]);
  });
});
