/**
 * Questions for the external addresses, and what they leave at the gateway: nothing.
 *
 * @module
 */
import { describe, it } from "node:test";
import { assert, assertEquals } from "@std/assert";
import { u32 } from "../../../core/bytes.ts";
import type { MapperEvent, PortRequest } from "../../../core/portmap/managed.ts";
import { A, B, Net, SIX, web } from "./net.ts";
import { told } from "./rig.ts";

const EXTERNAL = "203.0.113.7";

function open(options: ConstructorParameters<typeof Net>[0] = {}, gateway: object = {}): Net {
  const net = new Net(options);
  net.add(A, EXTERNAL, gateway);
  net.connect([A]);
  return net;
}

const short = (event: MapperEvent): string =>
  event.type === "external-address"
    ? `#${event.id} ${event.via} ${event.gateway.address} ${event.address}`
    : event.type === "external-addresses-told"
    ? `#${event.id} told ${event.attempts.map(({ via, outcome }) => `${via} ${outcome}`)}`
    : event.type;

const takeShort = (net: Net) => net.events.splice(0).map(short);

describe("a question for the external addresses", () => {
  it("is answered by each protocol, and leaves nothing at the gateway", () => {
    const net = open();
    const id = net.do((mapper, now) => mapper.askAddresses(undefined, now));
    assertEquals(takeShort(net), [
      `#${id} pcp 192.168.1.1 ${EXTERNAL}`,
      `#${id} nat-pmp 192.168.1.1 ${EXTERNAL}`,
      `#${id} told `,
    ]);
    // By a mapping of the socket's own port, for a short time.
    const map = net.sent.find(({ data }) => data[0] === 2)!;
    const view = new DataView(map.data.buffer, map.data.byteOffset);
    assertEquals([view.getUint32(4), view.getUint16(40)], [120, 40_000]);
    assertEquals([net.ports(A), net.mapper.isIdle], [[], true]);
    assertEquals(net.mapper.exportSaved(), []);
    net.run(3_600_000);
    assertEquals([net.sent.length, net.events.length], [3, 0]);
  });

  it("is asked of the gateway that is named, and of no other", () => {
    const net = open();
    net.add(B, "198.51.100.7");
    net.connect([A, B]);
    const id = net.do((mapper, now) => mapper.askAddressesAt(B.gateway, now));
    assertEquals(takeShort(net), [
      `#${id} pcp 192.168.2.1 198.51.100.7`,
      `#${id} nat-pmp 192.168.2.1 198.51.100.7`,
      `#${id} told `,
    ]);
    assertEquals(net.sent.filter(({ to }) => to.address !== B.gateway.address), []);
    net.connect([A]);
    net.sent.length = 0;
    net.do((mapper, now) => mapper.askAddressesAt(B.gateway, now));
    const end = told(net.events[0], "external-addresses-told");
    assertEquals([end.code, end.message, end.attempts], [
      "gateway-not-found",
      "192.168.2.1 is no gateway of this host",
      [],
    ]);
    assertEquals([net.sent, net.mapper.isIdle], [[], true]);
  });

  it("ends where the gateway that is named is left, whether it was asked or not open yet", () => {
    for (const opens of [[A, B], [A]]) {
      const net = open();
      net.add(B, "198.51.100.7");
      net.silent.add(B.gateway.address);
      net.connect([A, B], opens);
      const id = net.do((mapper, now) => mapper.askAddressesAt(B.gateway, now));
      assertEquals(net.events, []);
      net.connect([A]);
      const end = told(net.events[0], "external-addresses-told");
      assertEquals([end.id, end.code], [id, "gateway-not-found"]);
      net.run(10_000);
      assertEquals([net.events.length, net.mapper.isIdle], [1, true]);
    }
  });

  it("that waits for a gateway to open is asked at another one that is better, or left, by then", () => {
    for (const next of [[B], [B, A]]) {
      const net = new Net({ protocols: ["nat-pmp"] });
      net.add(B, "198.51.100.7");
      net.connect([A, B], [B]);
      const id = net.do((mapper, now) => mapper.askAddresses(undefined, now));
      assertEquals(net.events, []);
      net.connect(next, [B]);
      assertEquals(takeShort(net), [`#${id} nat-pmp 192.168.2.1 198.51.100.7`, `#${id} told `]);
    }
  });

  it("is asked of those alone that are named", () => {
    for (const via of ["pcp", "nat-pmp"] as const) {
      const net = open();
      net.do((mapper, now) => mapper.askAddresses([via], now));
      assertEquals(net.sent.every(({ data }) => data[0] === (via === "pcp" ? 2 : 0)), true);
      const [first, last, ...more] = net.events;
      assertEquals([told(first, "external-address").via, more.length], [via, 0]);
      assertEquals(told(last, "external-addresses-told").attempts, []);
    }
  });

  it("is told as it comes, and the silent ones are listed meanwhile", () => {
    const net = open({}, { protocols: ["nat-pmp"] });
    const deliver = net.deliver.bind(net);
    net.deliver = (sent) => sent.data[0] === 0 ? deliver(sent) : undefined;
    const id = net.do((mapper, now) => mapper.askAddresses(undefined, now));
    assertEquals(takeShort(net), [`#${id} nat-pmp 192.168.1.1 ${EXTERNAL}`]);
    net.run(700);
    const attempts = net.mapper.attempts(id, net.now);
    assertEquals(attempts, [
      { via: "pcp", gateway: "192.168.1.1", outcome: "no answer", elapsedMs: 700 },
    ]);
    net.do((mapper, now) => mapper.endQuestion(id, now));
    net.run(60_000);
    assertEquals([takeShort(net), net.mapper.isIdle], [[], true]);
  });

  it("lists who does not tell it, with why", () => {
    const net = open({}, { protocols: ["nat-pmp"] });
    const id = net.do((mapper, now) => mapper.askAddresses(undefined, now));
    assertEquals(takeShort(net), [
      `#${id} nat-pmp 192.168.1.1 ${EXTERNAL}`,
      `#${id} told pcp unsupported version (speaks 0)`,
    ]);
    const other = open({}, { protocols: ["pcp"] });
    other.gateways.get(A.gateway.address)!.setRefusal(8, 0);
    other.do((mapper, now) => mapper.askAddresses(["pcp"], now));
    const end = told(other.events[0], "external-addresses-told");
    assertEquals([end.code, end.attempts[0]?.outcome], ["refused", "NO_RESOURCES"]);
    assert(other.mapper.isIdle);
  });

  it("is one at the gateway where two ask, and each is answered", () => {
    const net = open();
    net.silent.add(A.gateway.address);
    const first = net.do((mapper, now) => mapper.askAddresses(undefined, now));
    const second = net.do((mapper, now) => mapper.askAddresses(["pcp"], now));
    assertEquals(net.sent.length, 2);
    net.silent.clear();
    net.run(1000);
    const lines = takeShort(net);
    assertEquals(lines.filter((line) => line.startsWith(`#${first}`)).length, 3);
    assertEquals(lines.filter((line) => line.startsWith(`#${second}`)), [
      `#${second} pcp 192.168.1.1 ${EXTERNAL}`,
      `#${second} told `,
    ]);
    assertEquals([net.ports(A), net.mapper.isIdle], [[], true]);
  });

  it("taken back by one goes on for the other, and by both is over", () => {
    const net = open();
    net.silent.add(A.gateway.address);
    const first = net.do((mapper, now) => mapper.askAddresses(undefined, now));
    const second = net.do((mapper, now) => mapper.askAddresses(undefined, now));
    net.do((mapper, now) => mapper.endQuestion(first, now));
    net.silent.clear();
    net.run(1000);
    assertEquals(takeShort(net).length, 3);
    assertEquals(net.mapper.attempts(second, net.now), []);
    net.silent.add(A.gateway.address);
    const third = net.do((mapper, now) => mapper.askAddresses(undefined, now));
    net.do((mapper, now) => mapper.endQuestion(third, now));
    net.silent.clear();
    const before = net.sent.length;
    net.run(60_000);
    assertEquals([net.events.length, net.ports(A), net.mapper.isIdle], [0, [], true]);
    // What may have been granted is deleted, and nothing else is asked.
    const later = net.sent.slice(before).filter(({ data }) => data[0] === 2);
    assert(
      later.every(({ data }) => new DataView(data.buffer, data.byteOffset).getUint32(4) === 0),
    );
  });

  it("waits for a gateway, and is asked there", () => {
    const net = new Net();
    net.add(A, EXTERNAL);
    const id = net.do((mapper, now) => mapper.askAddresses(undefined, now));
    net.run(1000);
    assertEquals([net.events.length, net.mapper.attempts(id, net.now)], [0, []]);
    assertEquals(net.mapper.isIdle, false);
    net.connect([A]);
    assertEquals(takeShort(net).length, 3);
  });

  it("is asked at the next gateway where the one that was asked is left", () => {
    const net = new Net();
    net.add(A, EXTERNAL);
    net.add(B, "198.51.100.7");
    net.silent.add(A.gateway.address);
    net.connect([A]);
    const id = net.do((mapper, now) => mapper.askAddresses(undefined, now));
    net.connect([]);
    net.run(600_000);
    net.connect([B]);
    net.run(1000);
    assertEquals(takeShort(net), [
      `#${id} pcp 192.168.2.1 198.51.100.7`,
      `#${id} nat-pmp 192.168.2.1 198.51.100.7`,
      `#${id} told `,
    ]);
    assertEquals([net.ports(B), net.mapper.isIdle], [[], true]);
  });

  it("over IPv6 is asked of PCP alone", () => {
    const net = new Net();
    net.add(SIX, "");
    net.connect([SIX]);
    net.do((mapper, now) => mapper.askAddresses(undefined, now));
    const [address, end] = net.events;
    assertEquals(told(address, "external-address").via, "pcp");
    assertEquals(told(end, "external-addresses-told").attempts, []);
  });

  it("is told at once that nothing can be sent, or nothing named is spoken", () => {
    const net = new Net();
    net.do((mapper, now) => mapper.networkChanged([A], now));
    const waiting = net.do((mapper, now) => mapper.askAddresses(undefined, now));
    const { key } = net.mapper.sockets()[0]!;
    const failure = { ok: false, code: "permission", message: "no", isOpen: false } as const;
    net.do((mapper, now) => mapper.handleSocket(key, failure, now));
    const blocked = net.do((mapper, now) => mapper.askAddresses(undefined, now));
    for (const [i, id] of [waiting, blocked].entries()) {
      const why = { code: "permission", message: "no", attempts: [] } as const;
      assertEquals(net.events[i], { type: "external-addresses-told", id, ...why });
    }
    // What did not leave once may leave the next time.
    const later = open({ protocols: ["nat-pmp"] });
    const { key: openKey } = later.mapper.sockets()[0]!;
    later.do((mapper, now) => mapper.handleSocket(openKey, { ...failure, isOpen: true }, now));
    later.do((mapper, now) => mapper.askAddresses(undefined, now));
    assertEquals(later.takeTypes(), ["external-address", "external-addresses-told"]);
    const other = open({ protocols: ["pcp"] });
    other.do((mapper, now) => mapper.askAddresses(["nat-pmp"], now));
    const end = told(other.events[0], "external-addresses-told");
    assertEquals([end.code, end.message], [
      "unsupported",
      "none of the protocols is spoken at 192.168.1.1",
    ]);
    assert(other.mapper.isIdle);
  });

  it("ends with the mapper, without a word, and deletes what it made", () => {
    const net = open();
    const deliver = net.deliver.bind(net);
    // What is granted is not heard.
    net.deliver = ({ to, data }) => {
      const gateway = net.gateways.get(to.address)!;
      gateway.handleDatagram(data, { address: A.localAddress!, port: 40_000 }, "server", net.now);
      while (gateway.poll());
    };
    net.do((mapper, now) => mapper.askAddresses(undefined, now));
    assertEquals(net.ports(A), [40_000]);
    net.deliver = deliver;
    net.do((mapper, now) => mapper.close(now));
    net.run(1000);
    assertEquals([net.events.length, net.ports(A), net.mapper.isIdle], [0, [], true]);
  });

  it("deletes what it may have made at a gateway that is left before it has told", () => {
    const net = open({ protocols: ["pcp"] });
    net.silent.add(A.gateway.address);
    net.do((mapper, now) => mapper.askAddresses(undefined, now));
    net.sent.length = 0;
    net.connect([B]);
    net.run(500);
    const there = net.sent.filter(({ to }) => to.address === A.gateway.address);
    assert(there.length > 0 && there.every(({ data }) => u32(data, 4) === 0));
  });

  for (const portSet of [undefined, { size: 8 }]) {
    /** The port from which PCP asks is mapped by the application, alone or as one of a set. */
    const wish = { protocol: "udp", internalPort: portSet ? 39_996 : 40_000, portSet } as const;
    const ask = (net: Net) => net.do((mapper, now) => mapper.askAddresses(undefined, now));
    const kind = portSet ? "a set that has PCP's own port" : "PCP's own port";

    it(`is answered by ${kind}, which is held`, () => {
      const net = open({ protocols: ["pcp"] });
      const mapping = net.do((mapper, now) => mapper.map(wish as PortRequest, now));
      net.sent.length = 0;
      net.takeTypes();
      const id = ask(net);
      assertEquals(takeShort(net), [`#${id} pcp 192.168.1.1 ${EXTERNAL}`, `#${id} told `]);
      assertEquals(net.sent, []);
      assert(net.mapper.mapping(mapping));
      // Once that is on its way out it is asked for as ever.
      net.silent.add(A.gateway.address);
      net.do((mapper, now) => mapper.revoke(mapping, now));
      ask(net);
      net.silent.clear();
      net.run(60_000);
      assertEquals(net.takeTypes(), ["unmapped", "external-address", "external-addresses-told"]);
      assertEquals([net.ports(A), net.mapper.isIdle], [[], true]);
    });

    it(`makes way for ${kind}, and is answered by that`, () => {
      const net = open({ protocols: ["pcp"] });
      net.silent.add(A.gateway.address);
      const id = ask(net);
      const mapping = net.do((mapper, now) => mapper.map(wish as PortRequest, now));
      net.silent.clear();
      net.run(5000);
      const lines = takeShort(net).filter((line) => line.startsWith("#"));
      assertEquals(lines, [`#${id} pcp 192.168.1.1 ${EXTERNAL}`, `#${id} told `]);
      assert(net.mapper.mapping(mapping));
      net.run(3_600_000);
      assert(net.ports(A).length > 0);
      net.do((mapper, now) => mapper.revoke(mapping, now));
      assertEquals([net.ports(A), net.mapper.isIdle], [[], true]);
    });

    it(`is answered with what becomes of ${kind}, which is asked for`, () => {
      for (const code of [undefined, 8]) {
        const net = open({ protocols: ["pcp"] });
        net.silent.add(A.gateway.address);
        net.do((mapper, now) => mapper.map(wish as PortRequest, now));
        const id = ask(net);
        assertEquals(takeShort(net), []);
        net.silent.clear();
        net.gateways.get(A.gateway.address)!.setRefusal(code, net.now);
        net.run(1000);
        const lines = takeShort(net).filter((line) => line.startsWith("#"));
        assertEquals(
          lines,
          code
            ? [`#${id} told pcp NO_RESOURCES`]
            : [`#${id} pcp 192.168.1.1 ${EXTERNAL}`, `#${id} told `],
        );
      }
    });
  }

  it("leaves a mapping that is held as it is, and its renewals", () => {
    const net = open();
    net.do((mapper, now) => mapper.map(web, now));
    net.do((mapper, now) => mapper.askAddresses(undefined, now));
    assertEquals(takeShort(net).length, 4);
    assertEquals(net.ports(A), [8080]);
    net.run(2 * 3_600_000);
    assertEquals([...new Set(takeShort(net))], ["renewed"]);
    assertEquals(net.ports(A), [8080]);
  });

  it("is asked at the next gateway where the one that was asked is left, and of no other that is", () => {
    const net = open({ protocols: ["nat-pmp"] });
    net.add(B, "198.51.100.7");
    net.connect([A, B]);
    net.silent.add(A.gateway.address);
    const id = net.do((mapper, now) => mapper.askAddresses(undefined, now));
    net.connect([A]);
    assertEquals(net.mapper.waitsFor(id), ["nat-pmp"]);
    net.connect([B]);
    assertEquals(takeShort(net), [`#${id} nat-pmp 192.168.2.1 198.51.100.7`, `#${id} told `]);
  });

  it("is asked at the best gateway", () => {
    const net = new Net();
    net.add(A, EXTERNAL);
    net.add(B, "198.51.100.7");
    net.connect([B, A]);
    net.do((mapper, now) => mapper.askAddresses(["nat-pmp"], now));
    assertEquals(told(net.events[0], "external-address").address, "198.51.100.7");
  });
});
