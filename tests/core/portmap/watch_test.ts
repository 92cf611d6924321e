import { assert, assertEquals, assertThrows } from "@std/assert";
import { describe, it } from "node:test";
import type { Via } from "../../../core/errors.ts";
import type { SimulatedGateway } from "../../../core/gateway/gateway.ts";
import type { MapperEvent } from "../../../core/portmap/managed.ts";
import type { PortMapperOptions } from "../../../core/portmap/mapper.ts";
import type { NetworkPath } from "../../../core/portmap/path.ts";
import { A, B, BETWEEN, Net, OUTER, SIX, web } from "./net.ts";
import { told } from "./rig.ts";

const LOCAL = ["192.168.1.100", "192.168.2.100"];

/** A set as text, one way a word. */
const textOf = ({ assignments }: MapperEvent & { type: "assignments" }) =>
  assignments.map(({ address, port, via }) => `${via}:${address}:${port}`).join(" ");

const refuse = () => ({ kind: "refuse", code: 2 });

/** The sets that were told since the last call. */
function sets(net: Net): string[] {
  return net.events.splice(0).flatMap((event) => event.type === "assignments" ? textOf(event) : []);
}

/** A watch of 8080/tcp at A, which is told and at rest. */
function watched(options: Partial<PortMapperOptions> = {}): { net: Net; id: number } {
  const net = new Net(options);
  net.add(A, "203.0.113.7");
  net.connect([A]);
  const id = net.do((mapper, now) => mapper.watch(web, now));
  net.run(5000);
  assertEquals(sets(net).at(-1)?.split(" ").at(-1)?.split(":")[1], "203.0.113.7");
  return { net, id };
}

describe("a watched port", () => {
  it("tells the local addresses at once, then all gateways' as one change", () => {
    const net = new Net();
    for (const [path, external] of [[A, "203.0.113.7"], [B, "198.51.100.7"], [SIX, ""]] as const) {
      net.add(path, external);
    }
    net.connect([A, B, SIX]);
    net.mapper.localAddressesChanged([...LOCAL, "2001:db8::100"], 0);
    const local = "local:192.168.1.100:8080 local:192.168.2.100:8080 local:2001:db8::100:8080";

    const id = net.do((mapper, now) => mapper.watch(web, now));
    assertEquals(sets(net), [local]);
    net.run(5000);

    const whole = `${local} pcp:203.0.113.7:8080 pcp:198.51.100.7:8080 pcp:2001:db8::100:8080`;
    assertEquals(sets(net), [whole]);
    assertEquals(net.mapper.assignments(id)?.map(({ family }) => family), [4, 4, 6, 4, 4, 6]);
    assertEquals([net.ports(A), net.ports(B), net.ports(SIX)], [[8080], [8080], [8080]]);
  });

  it("takes PCP's answer to the check for no announcement: what NAT-PMP holds is left alone", () => {
    const net = new Net();
    net.add(A, "203.0.113.7");
    net.connect([A]);
    const other = { protocol: "udp", internalPort: 9090, protocols: ["nat-pmp"] } as const;
    net.do((mapper, now) => mapper.map(other, now));
    net.do((mapper, now) => mapper.watch({ ...web, protocols: ["pcp"] }, now));
    net.run(9000);
    net.sent.length = 0;
    net.run(2000);
    assertEquals(net.sent.map(({ data }) => [data[0], data[1]]), [[2, 0]]);
  });

  it("tells each change with the whole new set, and nothing where nothing has changed", () => {
    const { net } = watched();
    net.gateways.get(A.gateway.address)!.setExternalAddresses(["203.0.113.8"], net.now);
    net.run(7_200_000);
    assertEquals(sets(net), ["pcp:203.0.113.8:8080"]);
    net.run(86_400_000);
    assertEquals(sets(net), []);
  });

  it("tells what is new after 100 ms, with what has come meanwhile, and what is gone after 1 s", () => {
    const { net } = watched();
    const addresses = (...list: string[]) => net.mapper.localAddressesChanged(list, net.now);
    const [a, b] = LOCAL as [string, string];
    addresses(a);
    net.run(99);
    addresses(a, b);
    assertEquals(sets(net), []);
    net.run(1);
    const pcp = "pcp:203.0.113.7:8080";
    assertEquals(sets(net), [`local:${a}:8080 local:${b}:8080 ${pcp}`]);
    addresses(a);
    net.run(999);
    assertEquals(sets(net), []);
    net.run(1);
    assertEquals(sets(net), [`local:${a}:8080 ${pcp}`]);
    addresses(b);
    net.run(100);
    assertEquals(sets(net), [`local:${b}:8080 ${pcp}`]);
  });

  it("follows the network: gateways that come and go, and addresses", () => {
    const { net } = watched();
    net.add(B, "198.51.100.7");
    net.connect([A, B]);
    net.run(500);
    assertEquals(sets(net), ["pcp:203.0.113.7:8080 pcp:198.51.100.7:8080"]);
    net.connect([B]);
    net.run(500);
    assertEquals(sets(net), []);
    net.run(5000);
    assertEquals(sets(net), ["pcp:198.51.100.7:8080"]);
    assertEquals(net.ports(A), []);
    net.mapper.localAddressesChanged(["192.168.2.100"], net.now);
    net.run(500);
    assertEquals(sets(net), ["local:192.168.2.100:8080 pcp:198.51.100.7:8080"]);
    net.connect([]);
    net.run(5000);
    assertEquals(sets(net), ["local:192.168.2.100:8080"]);
    net.connect([A]);
    net.run(5000);
    assertEquals(sets(net), ["local:192.168.2.100:8080 pcp:203.0.113.7:8080"]);
  });

  it("is not told of a loss that is made good within a second", () => {
    const { net } = watched();
    const gateway = net.gateways.get(A.gateway.address)!;
    net.run(60_000);
    net.connect([]);
    net.run(900);
    net.connect([A]);
    net.run(5000);
    assertEquals(sets(net), []);
    assertEquals(gateway.list(net.now).length, 1);
  });

  it("goes on trying where nobody can, and tells it when somebody does", () => {
    const net = new Net();
    const gateway = net.add(A, "203.0.113.7");
    gateway.setRefusal(2, 0);
    net.connect([A]);
    net.do((mapper, now) => mapper.watch(web, now));
    net.run(600_000);
    assertEquals(sets(net), [""]);
    gateway.setRefusal(undefined, net.now);
    net.run(3_600_000);
    assertEquals(sets(net), ["pcp:203.0.113.7:8080"]);
  });

  for (const via of ["pcp", "nat-pmp"] as const) {
    it(`asks at once where a gateway that was silent announces itself by ${via}`, () => {
      const net = new Net({ protocols: [via] });
      const gateway = net.add(A, "203.0.113.7", {
        announceTo: [{ address: "224.0.0.1", port: 5350 }],
      });
      net.silent.add(A.gateway.address);
      net.connect([A]);
      net.do((mapper, now) => mapper.watch(web, now));
      net.run(300_000);
      net.silent.clear();
      gateway.reboot(net.now);
      for (let action = gateway.poll(); action; action = gateway.poll()) {
        if (action.type !== "send" || action.to.port !== 5350) continue;
        if (action.data[0] !== (via === "pcp" ? 2 : 0)) continue;
        net.mapper.handleDatagram(action.data, A.gateway, "announcements 1", net.now);
      }
      net.settle();
      net.run(1000);
      assertEquals(sets(net), ["", `${via}:203.0.113.7:8080`]);
    });
  }

  it("asks at once by what was not there, where that has answered another wish", () => {
    const net = new Net({ protocols: ["nat-pmp"] });
    net.add(A, "203.0.113.7");
    net.connect([A]);
    net.silent.add(A.gateway.address);
    net.do((mapper, now) => mapper.watch(web, now));
    const { key } = net.mapper.sockets()[0]!;
    net.do((mapper, now) => mapper.handleUnreachable(A.gateway, key, now));
    net.run(5000);
    net.silent.clear();
    net.do((mapper, now) => mapper.map({ ...web, internalPort: 9090 }, now));
    net.run(200);
    assertEquals(sets(net), ["", "nat-pmp:203.0.113.7:8080"]);
  });

  /** Whether UPnP's search is on, for which no socket was opened. */
  const searches = ({ mapper }: Net) => mapper.sockets().some(({ key }) => key.includes("upnp"));

  it("asks nobody anew because one that refused it, or is not asked, has answered another wish", () => {
    for (const protocols of [["nat-pmp", "upnp"], ["upnp"]] as const) {
      const net = new Net({ protocols: ["nat-pmp", "upnp"] });
      let isRefusing = true;
      const gateway = net.add(A, "203.0.113.7"), handle = gateway.handleDatagram.bind(gateway);
      // The question is answered, the request is not granted.
      gateway.handleDatagram = (data, ...rest) => {
        gateway.setRefusal(isRefusing && data.length > 2 ? 2 : undefined, net.now);
        return handle(data, ...rest);
      };
      net.connect([A]);
      net.do((mapper, now) => mapper.watch({ ...web, protocols }, now));
      if (searches(net)) {
        const { key } = net.mapper.sockets().find(({ key }) => key.includes("upnp"))!;
        const failure = { ok: false, code: "permission", message: "no", isOpen: false } as const;
        net.do((mapper, now) => mapper.handleSocket(key, failure, now));
      }
      net.run(5000);
      assert(!searches(net));
      isRefusing = false;
      net.do((mapper, now) => mapper.map({ ...web, internalPort: 9090 }, now));
      net.run(1000);
      assertEquals([net.ports(A), searches(net)], [[9090], false]);
    }
  });

  it("asks nobody anew because its gateway answers the look at another one", () => {
    const { net } = watched({ protocols: ["pcp"] });
    net.silent.add(A.gateway.address);
    net.do((mapper, now) => mapper.watch({ ...web, internalPort: 9090 }, now));
    const { key } = net.mapper.sockets()[0]!;
    net.do((mapper, now) => mapper.handleUnreachable(A.gateway, key, now));
    net.silent.clear();
    net.sent.length = 0;
    net.run(59_999);
    assertEquals(net.sent.map(({ data }) => data[1]), [0, 0, 0, 0, 0, 0]);
    net.run(1);
    assertEquals(net.ports(A), [8080, 9090]);
  });

  for (const isAsking of [false, true]) {
    const by = isAsking ? "to all, while a question is on its way" : "to this host alone";
    it(`asks at once where a gateway that was not there gives its word, ${by}`, () => {
      const net = new Net({ announcements: true });
      net.add(A, "203.0.113.7", { protocols: ["pcp"] });
      net.connect([A]);
      net.silent.add(A.gateway.address);
      net.do((mapper, now) => mapper.watch({ ...web, protocols: ["pcp"] }, now));
      net.do((mapper, now) => mapper.handleUnreachable(A.gateway, "gateway 1", now));
      net.run(20_000);
      if (isAsking) net.do((mapper, now) => mapper.askAddresses(["nat-pmp"], now));
      net.silent.clear();
      const announcement = Uint8Array.from({ length: 24 }, (_, i) => [2, 0x80][i] ?? 0);
      const socket = isAsking ? "announcements 1" : "gateway 1";
      net.do((mapper, now) => mapper.handleDatagram(announcement, A.gateway, socket, now));
      net.run(100);
      assertEquals(sets(net), ["", "pcp:203.0.113.7:8080"]);
    });
  }

  it("looks every ten seconds whether its gateway is there", () => {
    const { net } = watched();
    net.sent.length = 0;
    net.run(100_000);
    assertEquals(net.sent.map(({ data }) => data.length), new Array(10).fill(24));
  });

  it("moves where its gateway is not there any more", () => {
    const { net } = watched();
    const gateway = net.gateways.get(A.gateway.address)!;
    gateway.setProtocol("pcp", false, net.now);
    gateway.forget(net.now);
    net.run(15_000);
    assertEquals(sets(net).at(-1), "nat-pmp:203.0.113.7:8080");
    net.silent.add(A.gateway.address);
    net.run(15_000);
    assertEquals(sets(net), [""]);
    net.silent.clear();
    net.run(120_000);
    assertEquals(sets(net), ["nat-pmp:203.0.113.7:8080"]);
  });

  /** For some time ICMP says of all that is sent that nobody listens: when it did, milliseconds. */
  function refused(net: Net, ms: number): number[] {
    const from = net.now;
    const at: number[] = [];
    net.silent.add(A.gateway.address);
    net.sent.length = 0;
    while (net.now < from + ms) {
      net.run(100);
      const { key, connect } = net.mapper.sockets()[0]!;
      if (net.sent.length > 0) {
        at.push(net.now - from);
        net.mapper.handleUnreachable(connect!, key, net.now);
      }
      net.sent.length = 0;
      net.settle();
    }
    net.silent.clear();
    return at;
  }

  it("stays through a restart in which one look meets a closed port", () => {
    const { net } = watched();
    assertEquals(refused(net, 5900), [5000]);
    net.run(120_000);
    // The next restart is met for the first time, too.
    while (refused(net, 1000).length === 0);
    net.run(120_000);
    assertEquals(sets(net), []);
  });

  it("is lost where two looks, a second apart, meet a closed port", () => {
    const { net } = watched();
    assertEquals(refused(net, 7500).slice(0, 2), [5000, 6000]);
    assertEquals(sets(net), [""]);
  });

  /** PCP's requests to a gateway by their opcodes; 0 is ANNOUNCE, the look. */
  const opcodes = (net: Net, { gateway }: NetworkPath) =>
    net.sent.filter(({ to }) => to.address === gateway.address).map(({ data }) => data[1]);

  it("is looked at in the same rounds where nobody holds it at first", () => {
    const net = new Net({ protocols: ["pcp"] });
    net.add(A, "203.0.113.7");
    net.do((mapper, now) => mapper.watch(web, now));
    assertEquals(net.mapper.debugTimeout(), { at: 10_000, reason: "check" });
    net.run(12_000);
    net.connect([A]);
    for (const at of [20_000, 30_000]) {
      net.sent.length = 0;
      net.run(at - 1 - net.now);
      assertEquals(opcodes(net, A), []);
      net.run(1);
      assertEquals(opcodes(net, A), [0]);
    }
  });

  it("is looked at ten seconds after the second look that a closed port made", () => {
    const { net } = watched({ protocols: ["pcp"] });
    assertEquals(refused(net, 5900), [5000]);
    net.run(100);
    assertEquals(opcodes(net, A), [0], "the second look");
    net.sent.length = 0;
    net.run(20_999 - net.now);
    assertEquals(opcodes(net, A), []);
    net.run(1);
    assertEquals(opcodes(net, A), [0]);
  });

  it("is not asked after any more once its gateway has been silent for two seconds", () => {
    const { net } = watched({ protocols: ["pcp"] });
    net.silent.add(A.gateway.address);
    net.sent.length = 0;
    net.run(6999);
    assertEquals([...new Set(opcodes(net, A))], [0]);
    net.run(1);
    assertEquals(opcodes(net, A).at(-1), 1, "it is asked for anew");
    net.sent.length = 0;
    net.run(120_000);
    assert(opcodes(net, A).length > 0 && !opcodes(net, A).includes(0), String(opcodes(net, A)));
  });

  it("has two seconds to be answered for at each gateway, whatever another one says", () => {
    const { net } = watched({ protocols: ["pcp"] });
    net.add(B, "198.51.100.7");
    net.connect([A, B]);
    net.silent.add(A.gateway.address).add(B.gateway.address);
    net.sent.length = 0;
    net.run(5000);
    const [{ key }] = net.mapper.sockets() as [{ key: string }];
    net.do((mapper, now) => mapper.handleUnreachable(A.gateway, key, now));
    net.run(1900);
    assertEquals([...new Set(opcodes(net, B))], [0]);
    net.silent.clear();
    // The second look at A is answered, and so is a late one at B.
    for (const sent of net.sent.filter(({ to }) => to.address === B.gateway.address)) {
      net.deliver(sent);
    }
    net.settle();
    net.run(60_000);
    assertEquals(sets(net), ["pcp:203.0.113.7:8080 pcp:198.51.100.7:8080"]);
    assert(!opcodes(net, A).includes(1) && !opcodes(net, B).includes(1));
  });

  it("that was held nowhere when the second look came has met no closed port before", () => {
    const { net } = watched({ protocols: ["pcp"] });
    net.silent.add(A.gateway.address);
    net.run(5000);
    const [{ key }] = net.mapper.sockets() as [{ key: string }];
    net.do((mapper, now) => mapper.handleUnreachable(A.gateway, key, now));
    net.connect([]);
    net.run(1500);
    net.silent.clear();
    net.connect([A]);
    net.run(3000);
    sets(net);
    net.silent.add(A.gateway.address);
    while (net.sent.at(-1)!.data[1] !== 0) net.run(100);
    net.sent.length = 0;
    net.do((mapper, now) => mapper.handleUnreachable(A.gateway, key, now));
    net.silent.clear();
    net.run(60_000);
    assertEquals([sets(net), [...new Set(opcodes(net, A))]], [[], [0]]);
  });

  it("is there where its gateway answers the look, be it with a refusal or with nonsense", () => {
    for (
      const [via, spoil] of [
        ["pcp", (gateway: SimulatedGateway, now: number) => gateway.setRefusal(2, now)],
        ["nat-pmp", (gateway: SimulatedGateway, now: number) => gateway.setRefusal(3, now)],
        [
          "nat-pmp",
          (gateway: SimulatedGateway, now: number) =>
            gateway.setExternalAddresses(["0.0.0.0"], now),
        ],
      ] as const
    ) {
      const { net } = watched({ protocols: [via] });
      spoil(net.gateways.get(A.gateway.address)!, net.now);
      net.sent.length = 0;
      net.run(40_000);
      assertEquals([sets(net), net.sent.length], [[], 4], via);
    }
  });

  it("asks no more by what its gateway ignores while it grants", () => {
    const { net } = watched({ protocols: ["pcp"] });
    const ignoring = net.deliver.bind(net);
    // PCP's opcode 0 is ANNOUNCE.
    net.deliver = (sent) => sent.data[1] === 0 ? undefined : ignoring(sent);
    net.sent.length = 0;
    net.run(3_000_000);
    const opcodes = net.sent.map(({ data }) => data[1]);
    assertEquals([opcodes.filter((code) => code === 1).length, sets(net)], [1, []]);
    assert(opcodes.filter((code) => code === 0).length < 5, String(opcodes));
  });

  describe("behind two gateways", () => {
    /** A watch at A, above which another gateway stands, or not. */
    function nested(options: object | undefined, protocols?: readonly Via[]) {
      const net = new Net(protocols && { protocols });
      net.add(A, BETWEEN);
      const outer = options && net.add(OUTER, "203.0.113.7", options);
      net.connect([A]);
      const id = net.do((mapper, now) => mapper.watch(web, now));
      net.openAbove();
      net.run(5000);
      return { net, id, outer };
    }

    for (const via of ["pcp", "nat-pmp"] as const) {
      it(`is mapped at both by ${via}, the outer one to the inner one's external endpoint`, () => {
        const { net, id, outer } = nested({}, [via]);
        assertEquals(sets(net).at(-1), `${via}:10.0.0.2:8080 ${via}:203.0.113.7:8080`);
        const [entry] = outer!.list(net.now);
        assertEquals(entry?.internal, { address: "10.0.0.2", port: 8080 });
        assertEquals(net.mapper.gateways, [A.gateway]);
        net.run(86_400_000);
        assertEquals([sets(net), net.ports(A), net.ports(OUTER)], [[], [8080], [8080]]);
        net.do((mapper, now) => mapper.revoke(id, now));
        net.run(5000);
        assertEquals(net.takeTypes(), ["unmapped"]);
        assertEquals([net.ports(A), net.ports(OUTER), net.mapper.isIdle], [[], [], true]);
      });
    }

    it("ends without waiting for where nobody was found above", () => {
      const net = new Net({ protocols: ["pcp"] });
      net.add(A, BETWEEN);
      net.add(OUTER, "203.0.113.7");
      net.connect([A]);
      const id = net.do((mapper, now) => mapper.watch(web, now));
      net.openAbove();
      assertEquals(net.ports(OUTER), [8080]);
      net.do((mapper, now) => mapper.revoke(id, now));
      assertEquals(net.takeTypes(), ["assignments", "unmapped"]);
      assertEquals([net.ports(A), net.ports(OUTER)], [[], []]);
      // What may have been granted there unheard is deleted all the same.
      const [last] = net.sent.filter(({ to }) => to.address.endsWith(".254")).slice(-1);
      assertEquals(last!.data.subarray(4, 8), new Uint8Array(4));
      net.run(10_000);
      assertEquals([net.events, net.mapper.isIdle, net.mapper.sockets().length], [[], true, 1]);
    });

    it("follows the inner one", () => {
      const { net } = nested({});
      sets(net);
      net.gateways.get(A.gateway.address)!.setExternalAddresses(["203.0.113.8"], net.now);
      net.run(4 * 3_600_000);
      assertEquals(sets(net), ["pcp:203.0.113.8:8080"]);
      assertEquals([net.ports(A), net.ports(OUTER)], [[8080], []]);
      assertEquals(net.mapper.sockets().length, 1);
    });

    it("is back at both where both were silent to a look, and ends", () => {
      const { net, id } = nested({}, ["pcp"]);
      for (const { gateway } of [A, OUTER]) net.silent.add(gateway.address);
      net.run(14_000);
      assertEquals(sets(net).at(-1), "");
      net.silent.clear();
      net.run(120_000);
      assertEquals(sets(net).at(-1), "pcp:10.0.0.2:8080 pcp:203.0.113.7:8080");
      net.do((mapper, now) => mapper.revoke(id, now));
      net.run(10_000);
      assertEquals(net.takeTypes(), ["unmapped"]);
      assertEquals([net.ports(A), net.ports(OUTER), net.mapper.isIdle], [[], [], true]);
    });

    it("is left with it", () => {
      const { net } = nested({});
      sets(net);
      net.connect([]);
      net.run(10_000);
      assertEquals([sets(net), net.ports(A), net.ports(OUTER)], [[""], [], []]);
      assertEquals(net.mapper.sockets(), []);
    });

    it("is told as gone a second after its network is, though nobody confirms that", () => {
      const { net } = nested({});
      sets(net);
      for (const { gateway } of [A, OUTER]) net.silent.add(gateway.address);
      net.connect([]);
      net.run(999);
      assertEquals(sets(net), []);
      net.run(1);
      assertEquals(sets(net), [""]);
    });

    it("does not go on asking where nobody is, or maps", () => {
      for (const options of [undefined, { protocols: ["pcp"], decide: refuse }]) {
        const { net } = nested(options);
        net.run(3_600_000);
        net.sent.length = 0;
        net.run(86_400_000);
        assertEquals(sets(net).at(-1), "pcp:10.0.0.2:8080");
        const asked = net.sent.filter(({ to }) => to.address !== A.gateway.address);
        assertEquals([asked, net.mapper.sockets().length], [[], 1]);
      }
    });

    it("nobody is asked above a carrier's NAT, or a public address", () => {
      for (const external of ["100.64.0.2", "198.51.100.2"]) {
        const net = new Net();
        net.add(A, external);
        net.connect([A]);
        net.do((mapper, now) => mapper.watch(web, now));
        net.run(5000);
        assertEquals(net.mapper.sockets().length, 1);
      }
    });
  });

  it("takes the look that is on its way with it, whatever else its gateway holds", () => {
    const { net, id } = watched({ protocols: ["pcp"] });
    net.do((mapper, now) => mapper.map({ protocol: "udp", internalPort: 9090 }, now));
    const looks = () => net.sent.filter(({ data }) => data[1] === 0).length;
    const answering = net.deliver.bind(net);
    net.deliver = (sent) => sent.data[1] === 0 ? undefined : answering(sent);
    const before = looks();
    net.run(5000);
    assertEquals(looks() - before, 1);
    net.do((mapper, now) => mapper.revoke(id, now));
    net.run(30_000);
    assertEquals([looks() - before, net.ports(A)], [1, [9090]]);

    // The next one begins with a look of its own, ten seconds on.
    net.deliver = answering;
    net.do((mapper, now) => mapper.watch(web, now));
    net.run(9999);
    assertEquals(looks() - before, 1);
    net.run(1);
    assertEquals(looks() - before, 2);
    sets(net);
    net.run(20_000);
    assertEquals(sets(net), []);
  });

  it("is not looked at later where another one is watched, too", () => {
    const { net } = watched();
    net.run(4000);
    net.sent.length = 0;
    net.do((mapper, now) => mapper.watch({ protocol: "udp", internalPort: 9090 }, now));
    const looks = () => net.sent.filter(({ data }) => data[0] === 2 && data[1] === 0).length;
    net.run(999);
    assertEquals(looks(), 0);
    net.run(1);
    assertEquals(looks(), 1);
  });

  it("that met a closed port once, and ended, has told the next one nothing", () => {
    const { net, id } = watched();
    assertEquals(refused(net, 5900), [5000]);
    net.do((mapper, now) => mapper.revoke(id, now));
    net.do((mapper, now) => mapper.watch(web, now));
    net.run(5000);
    sets(net);
    assertEquals(refused(net, 5900), [5000]);
    net.run(60_000);
    assertEquals(sets(net), []);
  });

  it("is told with how STUN servers see its socket, by itself and beside what is mapped", () => {
    const { net, id } = watched();
    const seen = [{ address: "203.0.113.7", port: 40_000 }];
    net.do((mapper, now) => mapper.reflexiveChanged(id, seen, now));
    net.run(100);
    assertEquals(sets(net), ["pcp:203.0.113.7:8080 stun:203.0.113.7:40000"]);
    assertEquals(net.mapper.assignments(id)?.at(-1)?.family, 4);
    // What is gone may come back within a second.
    net.do((mapper, now) => mapper.reflexiveChanged(id, [], now));
    net.run(900);
    net.do((mapper, now) => mapper.reflexiveChanged(id, seen, now));
    net.run(5000);
    assertEquals(sets(net), []);
    net.do((mapper, now) => mapper.reflexiveChanged(id, [], now));
    net.run(1000);
    assertEquals(sets(net), ["pcp:203.0.113.7:8080"]);
    net.mapper.reflexiveChanged(id + 1, seen, net.now);
    const wrong = [{ address: "x", port: 1 }];
    assertThrows(() => net.mapper.reflexiveChanged(id, wrong, net.now), TypeError, "endpoints");
  });

  it("ends with one event when all it made is deleted", () => {
    const { net, id } = watched();
    net.do((mapper, now) => mapper.revoke(id, now));
    net.do((mapper, now) => mapper.revoke(id, now));
    const [event, ...more] = net.events.splice(0);
    assertEquals(more, []);
    const over = told(event, "unmapped");
    assert(over.id === id && !over.failure);
    assertEquals(over.attempts.map(({ outcome }) => outcome), ["unmapped"]);
    assertEquals([net.ports(A), net.mapper.isIdle], [[], true]);
    assertEquals(net.mapper.nextTimeout(), undefined);
    net.run(86_400_000);
    assertEquals([net.events, net.mapper.assignments(id)], [[], undefined]);
  });

  it("tells no set any more once it is ended, though its deletion is waited for", () => {
    const { net, id } = watched();
    net.silent.add(A.gateway.address);
    net.mapper.localAddressesChanged(LOCAL, net.now);
    net.do((mapper, now) => mapper.revoke(id, now));
    net.run(1000);
    assertEquals(net.events, []);
    net.run(60_000);
    assertEquals(net.takeTypes(), ["unmapped"]);
  });

  it("ends with the mapper, also while nothing answers", () => {
    const net = new Net();
    net.add(A, "203.0.113.7");
    net.silent.add(A.gateway.address);
    net.connect([A]);
    net.do((mapper, now) => mapper.watch(web, now));
    net.do((mapper, now) => mapper.close(now));
    net.run(3_600_000);
    assertEquals(net.takeTypes(), ["assignments", "unmapped"]);
    assert(net.mapper.isIdle);
  });

  it("says at the end which gateway keeps it", () => {
    const { net, id } = watched();
    net.gateways.get(A.gateway.address)!.setRefusal(8, net.now);
    net.do((mapper, now) => mapper.revoke(id, now));
    net.run(60_000);
    const [event] = net.events;
    assert(event?.type === "unmapped" && event.failure?.kind === "refused", JSON.stringify(event));
    assertEquals(net.mapper.exportSaved().length, 1);
  });

  it("is kept for a later run, which has it again with the same nonce and port", () => {
    const { net } = watched();
    const saved = net.mapper.exportSaved();
    assertEquals(saved.map(({ via, external }) => [via, external?.port]), [["pcp", 8080]]);
    const later = new Net({ saved });
    later.gateways.set(A.gateway.address, net.gateways.get(A.gateway.address)!);
    later.now = net.now;
    later.connect([A]);
    later.do((mapper, now) => mapper.watch(web, now));
    later.run(500);
    assertEquals(sets(later), ["", "pcp:203.0.113.7:8080"]);
  });

  it("is wanted once: by one watch, or by one mapping", () => {
    const { net } = watched();
    assertThrows(() => net.mapper.watch(web, net.now), TypeError, "mapped already");
    assertThrows(() => net.mapper.map(web, net.now), TypeError, "mapped already");
    assertThrows(() => net.mapper.unmap(web, net.now), TypeError, "held");
    const other = { protocol: "tcp", internalPort: 9000 } as const;
    net.do((mapper, now) => mapper.map({ ...other, portSet: { size: 10 } }, now));
    const inSet = { ...other, internalPort: 9005 };
    assertThrows(() => net.mapper.watch(inSet, net.now), TypeError, "mapped already");
    assertThrows(() => net.mapper.watch({ ...other, internalPort: 0 }, 0), RangeError, "current");
    assertThrows(
      () => net.mapper.watch({ ...other, internalPort: 7, mode: "once" }, 0),
      TypeError,
      "'mode'",
    );
  });

  it("can be of one family, or at one gateway", () => {
    const net = new Net();
    for (const path of [A, B, SIX]) net.add(path, "203.0.113.7");
    net.connect([A, B, SIX]);
    net.mapper.localAddressesChanged([...LOCAL, "2001:db8::100"], 0);
    const id = net.do((mapper, now) => {
      mapper.watch({ ...web, internalPort: 1081, gateway: B.gateway }, now);
      return mapper.watch({ ...web, family: 6 }, now);
    });
    assertEquals([net.ports(A), net.ports(B), net.ports(SIX)], [[], [1081], [8080]]);
    assertEquals(net.mapper.assignments(id)?.map(({ via, family }) => [via, family]), [
      ["local", 6],
      ["pcp", 6],
    ]);
    const beside = { ...web, internalPort: 1081 };
    assertThrows(() => net.mapper.map(beside, net.now), TypeError, "mapped already");
    net.do((mapper, now) => mapper.map({ ...beside, family: 6 }, now));
    net.do((mapper, now) => mapper.map(web, now));
    assertEquals([net.ports(A), net.ports(SIX)], [[8080], [8080, 1081]]);
  });
});
