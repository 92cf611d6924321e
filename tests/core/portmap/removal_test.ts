/**
 * Deleting what this run did not make, and who is told of it when gateways do not answer or go.
 *
 * @module
 */
import { describe, it } from "node:test";
import { u16 } from "../../../core/bytes.ts";
import { assert, assertEquals, assertThrows } from "@std/assert";
import type { Instant } from "../../../core/machine.ts";
import type { PortRequest } from "../../../core/portmap/managed.ts";
import type { PortMapper } from "../../../core/portmap/mapper.ts";
import { A, B, Net, SIX, web } from "./net.ts";
import { told } from "./rig.ts";

/** Closes a mapper on whose two removals no gateway has answered yet, which is waited for. */
function assertAnsweredAtTheEnd(net: Net): void {
  net.do((mapper, now) => mapper.close(now));
  assertEquals([net.events.length, net.mapper.isIdle], [0, false]);
  net.silent.clear();
  net.run(1000);
  assertEquals(net.events.map((event) => told(event, "unmapped").failure), [
    undefined,
    undefined,
  ]);
  assert(net.mapper.isIdle);
}

describe("a removal", () => {
  for (const via of ["pcp", "nat-pmp"] as const) {
    it(`of what is being deleted already is that deletion, by ${via}`, () => {
      const net = new Net({ protocols: [via] });
      net.add(A, "203.0.113.7");
      net.connect([A]);
      const id = net.do((mapper, now) => mapper.map(web, now));
      net.silent.add(A.gateway.address);
      net.do((mapper, now) => mapper.revoke(id, now));
      assertEquals(net.do((mapper, now) => mapper.unmap(web, now)), id);
      net.silent.clear();
      net.run(60_000);
      assertEquals(net.takeTypes(), ["mapped", "unmapped"]);
      assert(net.mapper.isIdle);
    });

    it(`asked for twice is one, and other ports have their own, by ${via}`, () => {
      const net = new Net({ protocols: [via] });
      net.add(A, "203.0.113.7");
      net.silent.add(A.gateway.address);
      net.connect([A]);
      const id = net.do((mapper, now) => mapper.unmap(web, now));
      assertEquals(net.do((mapper, now) => mapper.unmap(web, now)), id);
      const other = { protocol: "udp", internalPort: 9 } as const;
      const second = net.do((mapper, now) => mapper.unmap(other, now));
      assert(second !== id);
      net.silent.clear();
      net.run(60_000);
      assertEquals(net.events.map((event) => "id" in event && event.id), [id, second]);
    });

    it(`of what a watch or a pair is deleting has an answer of its own, by ${via}`, () => {
      const { protocol: _, ...both } = web;
      for (
        const begin of [
          (mapper: PortMapper, now: Instant) => mapper.watch(web, now),
          (mapper: PortMapper, now: Instant) => mapper.mapBoth(both, now),
        ]
      ) {
        const net = new Net({ protocols: [via] });
        net.add(A, "203.0.113.7");
        net.connect([A]);
        const whole = net.do(begin);
        net.run(1000);
        net.events.length = 0;
        net.silent.add(A.gateway.address);
        net.do((mapper, now) => mapper.revoke(whole, now));
        const id = net.do((mapper, now) => mapper.unmap(web, now));
        assertEquals(net.do((mapper, now) => mapper.unmap(web, now)), id);
        net.run(100);
        net.silent.clear();
        net.run(60_000);
        assertEquals(net.events.map((event) => told(event, "unmapped").id), [whole, id]);
        assertEquals([net.ports(A), net.mapper.isIdle], [[], true]);
      }
    });

    it(`tells whom it asked, while nobody answers, by ${via}`, () => {
      const net = new Net();
      net.add(A, "203.0.113.7");
      net.silent.add(A.gateway.address);
      net.connect([A]);
      const id = net.do((mapper, now) => mapper.unmap({ ...web, protocols: [via] }, now));
      net.run(100);
      assertEquals(net.mapper.attempts(id, net.now), [
        { via, gateway: "192.168.1.1", outcome: "no answer", elapsedMs: 100 },
      ]);
    });

    it(`at a gateway that is left and silent is told as unanswered, by ${via}`, () => {
      const net = new Net({ protocols: [via] });
      net.add(A, "203.0.113.7");
      net.connect([A]);
      net.silent.add(A.gateway.address);
      net.do((mapper, now) => mapper.unmap(web, now));
      if (via === "nat-pmp") net.do((mapper, now) => mapper.unmapAll("udp", now));
      net.connect([B]);
      net.run(2000);
      for (const event of net.events) {
        assertEquals(told(event, "unmapped").failure, { kind: "no-answer" });
      }
      assertEquals(net.takeTypes().length, via === "nat-pmp" ? 2 : 1);
      assert(net.mapper.isIdle);
    });
  }

  it("of all of a transport is told as unanswered, too, where its gateway is left before it answers", () => {
    const net = new Net({ protocols: ["nat-pmp"] });
    net.add(A, "203.0.113.7");
    net.connect([A]);
    const deliver = net.deliver.bind(net);
    // To what is for all ports it does not listen.
    net.deliver = (sent) => u16(sent.data, 4) === 0 ? undefined : deliver(sent);
    net.silent.add(A.gateway.address);
    const one = net.do((mapper, now) => mapper.unmap(web, now));
    const all = net.do((mapper, now) => mapper.unmapAll("udp", now));
    net.connect([B]);
    net.run(500);
    net.silent.clear();
    net.run(1499);
    assertEquals(net.events.splice(0).map((event) => told(event, "unmapped").id), [one]);
    // What was meant for one gateway's table empties no other one's.
    assertEquals(net.sent.filter(({ to }) => to.address !== A.gateway.address), []);
    net.run(1);
    const { id, failure } = told(net.events[0], "unmapped");
    assertEquals([id, failure, net.mapper.isIdle], [all, { kind: "no-answer" }, true]);
  });

  it("is of the family that there is a gateway of as it is asked for, and of no wish that goes there", () => {
    const net = new Net({ protocols: ["pcp"] });
    net.add(A, "203.0.113.7");
    net.add(SIX, "");
    net.do((mapper, now) => mapper.map(web, now));
    net.connect([SIX], []);
    assertThrows(() => net.mapper.unmap(web, net.now), TypeError, "it is held");
    const other = { ...web, internalPort: 9000 };
    const removal = net.do((mapper, now) => mapper.unmap(other, now));
    net.connect([A]);
    net.do((mapper, now) => mapper.map(other, now));
    assertEquals([net.takeTypes(), net.ports(A)], [["mapped", "mapped"], [8080, 9000]]);
    net.connect([A, SIX]);
    assertEquals([net.events.map((event) => told(event, "unmapped").id), net.ports(A)], [
      [removal],
      [8080, 9000],
    ]);
  });

  it("over one family, or at one gateway, is none over the other, or at another", () => {
    const net = new Net({ protocols: ["pcp"] });
    net.add(A, "203.0.113.7");
    net.add(B, "198.51.100.7");
    net.add(SIX, "");
    net.connect([A, B, SIX]);
    const held = net.do((mapper, now) => mapper.map(web, now));
    for (const { gateway } of [A, B, SIX]) net.silent.add(gateway.address);
    net.do((mapper, now) => mapper.revoke(held, now));
    const unmap = (where: Partial<PortRequest>) =>
      net.do((mapper, now) => mapper.unmap({ ...web, ...where }, now));
    const ids = [{}, { gateway: B.gateway }, { family: 6 } as const].map(unmap);
    assertEquals([ids[0], new Set(ids).size], [held, 3]);
    assertEquals(unmap({ gateway: A.gateway }), held);
    assertEquals(unmap({ family: 6 }), ids[2]);
    net.silent.clear();
    net.run(60_000);
    assertEquals(net.takeTypes(), ["mapped", "unmapped", "unmapped", "unmapped"]);
  });

  it("of what was saved at several gateways in use is one at each, and says who keeps it", () => {
    const paths = [A, B, SIX];
    const home = new Net({ protocols: ["pcp"] });
    for (const path of paths) home.add(path, "203.0.113.7");
    home.connect(paths);
    home.do((mapper, now) => mapper.watch(web, now));
    const saved = home.mapper.exportSaved();
    for (const silent of [undefined, A, B]) {
      const net = new Net({ protocols: ["pcp"], saved });
      for (const path of paths) net.add(path, "203.0.113.7");
      if (silent) net.silent.add(silent.gateway.address);
      net.connect(paths);
      net.do((mapper, now) => mapper.unmap(web, now));
      net.run(60_000);
      const { attempts, failure } = told(net.events[0], "unmapped");
      assertEquals(attempts.map(({ gateway, outcome }) => `${gateway} ${outcome}`), [
        `192.168.1.1 ${silent === A ? "no answer" : "unmapped"}`,
        `192.168.2.1 ${silent === B ? "no answer" : "unmapped"}`,
      ]);
      assertEquals(failure?.kind, silent && "no-answer");
      assertEquals([net.events.length, net.mapper.isIdle], [1, true]);
      const left = net.mapper.exportSaved().map(({ gateway }) => gateway);
      assertEquals(left, [...silent ? [silent.gateway.address] : [], SIX.gateway.address]);
    }
  });

  it("of what was saved at a gateway elsewhere is one of what nobody saved", () => {
    const home = new Net({ protocols: ["pcp"] });
    home.add(A, "203.0.113.7");
    home.connect([A]);
    home.do((mapper, now) => mapper.map(web, now));
    const net = new Net({ saved: home.mapper.exportSaved() });
    net.add(B, "198.51.100.7");
    net.connect([B]);
    net.do((mapper, now) => mapper.unmap(web, now));
    assertEquals(told(net.events[0], "unmapped").attempts.map(({ via }) => via), [
      "nat-pmp",
      "pcp",
    ]);
  });

  it("that meets a new wish for its port leaves the new mapping, and each is told", () => {
    const net = new Net();
    const gateway = net.add(A, "203.0.113.7");
    net.connect([A]);
    gateway.setDeaf(1, net.now);
    const removal = net.do((mapper, now) => mapper.unmap(web, now));
    const id = net.do((mapper, now) => mapper.map(web, now));
    net.run(60_000);
    assertEquals(net.events.map((event) => [event.type, "id" in event && event.id]).sort(), [
      ["mapped", id],
      ["unmapped", removal],
    ]);
    assertEquals(net.ports(A), [8080]);
  });

  it("that waits for a gateway ends with the mapper, and is told as unanswered", () => {
    const net = new Net();
    net.do((mapper, now) => mapper.unmap(web, now));
    net.do((mapper, now) => mapper.unmapAll("tcp", now));
    net.run(60_000);
    assertEquals(net.events, []);
    net.do((mapper, now) => mapper.close(now));
    for (const event of net.events) {
      assertEquals(told(event, "unmapped").failure, { kind: "no-answer" });
    }
    assertEquals(net.events.length, 2);
    assert(net.mapper.isIdle);
  });

  it("of all is asked for each time that it is wanted", () => {
    const net = new Net({ protocols: ["nat-pmp"] });
    net.add(A, "203.0.113.7");
    net.connect([A]);
    for (let i = 0; i < 2; i++) {
      const id = net.do((mapper, now) => mapper.map(web, now));
      net.do((mapper, now) => mapper.abandon(id, now));
      net.do((mapper, now) => mapper.unmapAll("tcp", now));
      assertEquals([net.takeTypes(), net.ports(A)], [["mapped", "unmapped"], []]);
    }
  });

  it("that waits for a gateway begins there", () => {
    const net = new Net();
    net.add(A, "203.0.113.7");
    net.do((mapper, now) => mapper.unmap(web, now));
    net.do((mapper, now) => mapper.unmapAll("tcp", now));
    net.connect([A]);
    assertEquals(net.events.map((event) => told(event, "unmapped").failure), [
      undefined,
      undefined,
    ]);
  });

  it("of all ends where the mapper closes on its way, once it is answered", () => {
    const net = new Net();
    net.add(A, "203.0.113.7");
    net.connect([A]);
    net.silent.add(A.gateway.address);
    net.do((mapper, now) => mapper.unmapAll("tcp", now));
    assertEquals(net.sent.map(({ data }) => data.length), [12]);
    net.do((mapper, now) => mapper.unmapAll("tcp", now));
    assertAnsweredAtTheEnd(net);
  });

  for (
    const [where, paths, protocols] of [
      ["beside another protocol and another gateway", [A, B], undefined],
      ["by the one protocol at the one gateway", [A], ["nat-pmp"]],
    ] as const
  ) {
    it(`of all, of each transport, is waited for ${where}`, () => {
      const net = new Net(protocols && { protocols });
      for (const path of paths) net.add(path, "203.0.113.7");
      net.connect(paths);
      net.silent.add(A.gateway.address);
      for (const transport of ["tcp", "udp"] as const) {
        net.do((mapper, now) => mapper.unmapAll(transport, now));
      }
      assertAnsweredAtTheEnd(net);
    });
  }

  for (const isOpen of [true, false]) {
    const when = isOpen ? "" : " before it is open";
    it(`at a gateway where none of the protocols is spoken is told at once${when}, as all is`, () => {
      const net = new Net({ protocols: ["nat-pmp"] });
      net.add(SIX, "");
      net.connect([SIX], isOpen ? [SIX] : []);
      net.do((mapper, now) => mapper.unmap(web, now));
      net.do((mapper, now) => mapper.unmapAll("tcp", now));
      net.do((mapper, now) => mapper.askAddresses(undefined, now));
      net.do((mapper, now) => mapper.list(now));
      if (!isOpen) net.do((mapper, now) => mapper.map({ ...web, internalPort: 9 }, now));
      net.connect([SIX]);
      const types = ["unmapped", "unmapped", "external-addresses-told", "table-told"];
      assertEquals(net.takeTypes().sort(), [...types, ...isOpen ? [] : ["failed"]].sort());
      assert(net.mapper.isIdle);
    });
  }

  it("of all is no protocol's where only PCP is spoken, which is told", () => {
    const net = new Net({ protocols: ["pcp"] });
    net.add(A, "203.0.113.7");
    net.connect([A]);
    net.do((mapper, now) => mapper.unmapAll("tcp", now));
    assertEquals(told(net.events[0], "unmapped").failure, { kind: "no-answer" });
    assertEquals(net.sent, []);
  });

  it("goes by the protocol and to the gateway that are saved of a mapping", () => {
    const home = new Net({ protocols: ["nat-pmp"] });
    home.add(A, "203.0.113.7");
    home.connect([A]);
    home.do((mapper, now) => mapper.map(web, now));
    const net = new Net({ saved: home.mapper.exportSaved() });
    net.add(A, "203.0.113.7");
    net.add(B, "198.51.100.7");
    net.connect([B, A]);
    net.do((mapper, now) => mapper.unmap(web, now));
    net.run(1000);
    assertEquals(net.sent.map(({ to, data }) => `${to.address} ${data[0]}`), ["192.168.1.1 0"]);
    assertEquals(told(net.events[0], "unmapped").attempts.map(({ outcome }) => outcome), [
      "unmapped",
    ]);
  });
});

describe("the end of a mapping", () => {
  it("is told without a failure where each gateway has confirmed it, gone since or not", () => {
    const net = new Net({ protocols: ["pcp"] });
    net.add(A, "203.0.113.7");
    net.add(B, "198.51.100.7");
    net.silent.add(A.gateway.address).add(B.gateway.address);
    net.connect([A, B]);
    const id = net.do((mapper, now) => mapper.map(web, now));
    net.run(1500);
    net.silent.delete(A.gateway.address);
    net.do((mapper, now) => mapper.revoke(id, now));
    net.connect([B]);
    net.silent.clear();
    assertEquals(net.events, []);
    net.deliver(net.sent.findLast(({ to }) => to.address === B.gateway.address)!);
    net.settle();
    const unmapped = told(net.events[0], "unmapped");
    assertEquals([unmapped.failure, unmapped.attempts.map(({ outcome }) => outcome)], [undefined, [
      "unmapped",
      "unmapped",
    ]]);
  });

  for (const via of ["pcp", "nat-pmp"] as const) {
    it(`at a gateway that is left and silent is told, and kept for later, by ${via}`, () => {
      const net = new Net({ protocols: [via] });
      net.add(A, "203.0.113.7");
      net.connect([A]);
      const id = net.do((mapper, now) => mapper.map(web, now));
      const saved = net.mapper.exportSaved();
      net.silent.add(A.gateway.address);
      net.do((mapper, now) => mapper.revoke(id, now));
      net.connect([]);
      net.run(2000);
      assertEquals(told(net.events[1], "unmapped").failure, { kind: "no-answer" });
      assertEquals(net.mapper.exportSaved(), saved);
      assert(net.mapper.isIdle);
    });
  }

  it("is told with the refusal of one gateway, though another had nothing to delete", () => {
    for (const refusing of [A, B]) {
      const net = new Net({ protocols: ["pcp"] });
      net.add(A, "203.0.113.7");
      net.add(B, "198.51.100.7");
      net.silent.add(A.gateway.address).add(B.gateway.address);
      net.connect([A, B]);
      const id = net.do((mapper, now) => mapper.map(web, now));
      net.run(1500);
      net.silent.clear();
      net.gateways.get(refusing.gateway.address)!.setRefusal(2, net.now);
      net.do((mapper, now) => mapper.revoke(id, now));
      assertEquals(told(net.events[0], "unmapped").failure?.kind, "refused");
    }
  });
});
