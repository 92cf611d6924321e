/**
 * Mappings behind two NATs: told with the endpoint of the outer one, deleted at both, and held at the
 * inner one whatever becomes of the outer one.
 *
 * @module
 */
import { describe, it } from "node:test";
import { assert, assertEquals } from "@std/assert";
import type { Via } from "../../../core/errors.ts";
import type { SimulatedGateway } from "../../../core/gateway/gateway.ts";
import type { PortMapperOptions } from "../../../core/portmap/mapper.ts";
import type { PortRequest } from "../../../core/portmap/managed.ts";
import { ScriptedRouter } from "../upnp/scripted_igd.ts";
import { Home } from "./home.ts";
import { A, B, BETWEEN, Net, OUTER, web } from "./net.ts";
import { told } from "./rig.ts";

const HERE = "203.0.113.7:8080";
const INSIDE = `${BETWEEN}:8080`;
const refuse = () => ({ kind: "refuse", code: 2 });

interface Nested {
  readonly net: Net;
  readonly id: number;
  readonly outer: SimulatedGateway | undefined;
}

/** A port that is mapped at A, above which another gateway stands, or none; nothing has passed yet. */
function nested(
  options: object | null = {},
  request: Partial<PortRequest> = {},
  protocols?: readonly Via[],
  more: Partial<PortMapperOptions> = {},
): Nested {
  const net = new Net({ ...(protocols && { protocols }), ...more });
  net.add(A, BETWEEN);
  const outer = options === null ? undefined : net.add(OUTER, "203.0.113.7", options);
  net.connect([A]);
  const id = net.do((mapper, now) => mapper.map({ ...web, ...request }, now));
  return { net, id, outer };
}

/** The same, told with the outer endpoint. */
function held(protocols?: readonly Via[]): Nested {
  const made = nested({}, {}, protocols);
  made.net.openAbove();
  assertEquals(takeTold(made.net), [`mapped ${HERE}`]);
  return made;
}

/** To whom the mapper holds sockets, by their addresses. */
function reached({ mapper }: Net): string[] {
  return mapper.sockets().flatMap(({ connect }) => connect ? connect.address : []);
}

/** What those above A were asked to do, one after the other. */
function askedAbove({ sent }: Net, at?: string): string[] {
  return sent.filter(({ to: { address } }) => at ? address === at : address.startsWith("10."))
    .map(({ data }) => {
      if (data.length === 2) return "asks";
      const lifetime = data[0] === 2 ? data.subarray(4, 8) : data.subarray(8, 12);
      return lifetime.some((byte) => byte > 0) ? "maps" : "deletes";
    });
}

/** What was told since the last call, with where others are to send to. */
function takeTold(net: Net): string[] {
  return net.events.splice(0).map((event) => {
    if (!("mapping" in event)) return event.type;
    const { address, port } = event.mapping.external;
    return `${event.type} ${address}:${port}`;
  });
}

describe("a mapping behind two gateways", () => {
  for (const via of ["pcp", "nat-pmp"] as const) {
    it(`is made at both by ${via}, told with the outer endpoint, and deleted at both`, () => {
      const { net, id, outer } = nested({}, {}, [via]);
      assertEquals(net.events, []);
      net.openAbove();
      const { mapping } = told(net.events[0], "mapped");
      // Where one answers, the other host is none: NAT-PMP's question there asks for nothing yet.
      const asked = askedAbove(net, "10.0.0.254");
      assertEquals(asked, via === "pcp" ? ["maps", "deletes"] : ["asks"]);
      assertEquals(mapping.external, { address: "203.0.113.7", port: 8080 });
      assertEquals(mapping.gatewayExternal, { address: BETWEEN, port: 8080 });
      assertEquals([mapping.gateway, mapping.internal.address], [A.gateway, A.localAddress]);
      assertEquals(net.mapper.mapping(id), mapping);
      assertEquals(outer!.list(net.now).map(({ internal }) => internal), [
        { address: BETWEEN, port: 8080 },
      ]);
      takeTold(net);
      net.run(86_400_000);
      assertEquals([...new Set(takeTold(net))], [`renewed ${HERE}`]);
      assertEquals([net.ports(A), net.ports(OUTER)], [[8080], [8080]]);
      net.do((mapper, now) => mapper.revoke(id, now));
      net.run(5000);
      const { attempts, ...over } = told(net.events[0], "unmapped");
      assertEquals(over, { type: "unmapped", id, reason: "revoked" });
      assert(!("failure" in over));
      assertEquals(attempts.map((one) => [one.via, one.gateway, one.outcome]), [
        [via, "192.168.1.1", "unmapped"],
        [via, "10.0.0.1", "unmapped"],
      ]);
      assertEquals(takeTold(net), ["unmapped"]);
      assertEquals([net.ports(A), net.ports(OUTER), net.mapper.isIdle], [[], [], true]);
      assertEquals(net.mapper.sockets().length, 1);
      assertEquals(net.mapper.nextTimeout(), undefined);
    });
  }

  /** What the mapper waited for, in this time. */
  const reasons = (net: Net, ms: number): Set<string> => {
    const found = new Set<string>();
    const end = net.now + ms;
    for (let next = net.mapper.debugTimeout(); next && next.at <= end;) {
      found.add(next.reason);
      net.run(Math.max(0, next.at - net.now));
      next = net.mapper.debugTimeout();
    }
    net.run(end - net.now);
    return found;
  };

  it("waits for nobody above any more once it is revoked, lost or abandoned", () => {
    for (
      const end of [
        (net: Net, id: number) => net.do((mapper, now) => mapper.revoke(id, now)),
        (net: Net, id: number) => net.do((mapper, now) => mapper.abandon(id, now)),
      ]
    ) {
      const { net, id } = nested(null);
      net.openAbove();
      net.run(100);
      assertEquals(net.mapper.debugTimeout()?.reason === "output waits", false);
      net.silent.add(A.gateway.address);
      end(net, id);
      assert(!reasons(net, 20_000).has("outer gateway"));
      assert(!takeTold(net).some((text) => text.startsWith("mapped")));
    }
    const { net } = nested(null);
    net.openAbove();
    assert(reasons(net, 2000).has("outer gateway"));
  });

  it("gives up those above fifteen seconds after they were asked", () => {
    const net = new Net();
    net.add(A, BETWEEN);
    net.connect([A]);
    net.run(20_000);
    net.do((mapper, now) => mapper.map(web, now));
    net.openAbove();
    net.run(14_999);
    assertEquals(reached(net), ["192.168.1.1", "10.0.0.1", "10.0.0.254"]);
    net.run(1);
    net.run(5000);
    assertEquals(reached(net), ["192.168.1.1"]);
  });

  it("listens for no announcements of those above", () => {
    const { net } = nested({}, {}, undefined, { announcements: true });
    net.openAbove();
    assertEquals(net.mapper.sockets().flatMap(({ group }) => group ? [group] : []), ["224.0.0.1"]);
  });

  it("is not mapped on at a gateway that is this host's own", () => {
    const net = new Net();
    net.add(A, "192.168.2.50");
    net.add(B, "198.51.100.7");
    net.connect([A, B]);
    net.do((mapper, now) => mapper.map(web, now));
    net.run(5000);
    assertEquals(takeTold(net), ["mapped 192.168.2.50:8080"]);
    assertEquals(net.ports(B), []);
    assertEquals(reached(net).sort(), ["192.168.1.1", "192.168.2.1", "192.168.2.254"]);
  });

  it("names in what is saved of the one above for which host it is", () => {
    const net = new Net({ protocols: ["pcp"] });
    net.add(A, BETWEEN, { allowThirdParty: true });
    net.add(OUTER, "203.0.113.7");
    net.connect([A]);
    const thirdParty = "192.168.1.9";
    for (const [internalPort, request] of [[1, {}], [2, { thirdParty }]] as const) {
      net.do((mapper, now) => mapper.map({ ...web, ...request, internalPort }, now));
    }
    net.openAbove();
    const above = net.mapper.exportSaved().filter(({ gateway }) => gateway === "10.0.0.1");
    const inner = { gateway: A.gateway.address, address: BETWEEN };
    assertEquals(above.map((saved) => saved.inner), [
      { ...inner, internalPort: 1 },
      { ...inner, internalPort: 2, thirdParty },
    ]);
    assertEquals(above.map(({ thirdParty }) => thirdParty), [undefined, undefined]);
  });

  it("is told as the inner gateway has it where nobody above answers within a second", () => {
    const { net, id } = nested(null);
    assertEquals(reached(net), ["192.168.1.1", "10.0.0.1", "10.0.0.254"]);
    net.openAbove();
    net.run(999);
    assertEquals(net.events, []);
    net.run(1);
    const { mapping } = told(net.events[0], "mapped");
    assertEquals([mapping.external, mapping.gatewayExternal], [
      { address: BETWEEN, port: 8080 },
      undefined,
    ]);
    net.run(13_999);
    assertEquals(askedAbove(net).includes("deletes"), false);
    net.sent.length = 0;
    net.run(1);
    assertEquals(askedAbove(net), ["deletes", "deletes"], "most likely nobody is there");
    net.run(3_600_000);
    assertEquals(reached(net), ["192.168.1.1"]);
    net.sent.length = 0;
    takeTold(net);
    net.run(86_400_000);
    // Nobody is asked there any more.
    assertEquals(net.sent.filter(({ to }) => to.address !== A.gateway.address), []);
    assertEquals([...new Set(takeTold(net))], [`renewed ${INSIDE}`]);
    net.do((mapper, now) => mapper.revoke(id, now));
    assertEquals([takeTold(net), net.mapper.isIdle], [["unmapped"], true]);
  });

  it("is told at once where all above refuse", () => {
    const { net } = nested({ protocols: ["pcp"], decide: refuse });
    const silent = net.mapper.sockets().find(({ connect }) => connect?.address === "10.0.0.254")!;
    net.openAbove();
    const refused = { ok: false, isOpen: false, code: "network", message: "no way" } as const;
    assertEquals(net.events, []);
    net.do((mapper, now) => mapper.handleSocket(silent.key, refused, now));
    net.run(500);
    assertEquals(takeTold(net), [`mapped ${INSIDE}`]);
    assertEquals([net.ports(A), net.ports(OUTER)], [[8080], []]);
    net.sent.length = 0;
    net.run(3_600_000);
    assertEquals(net.sent.filter(({ to }) => to.address !== A.gateway.address), []);
    assertEquals(reached(net), ["192.168.1.1"]);
  });

  it("is told once, as it was renewed while the gateway above was waited for", () => {
    const { net, id } = nested(null);
    net.openAbove();
    net.run(400);
    const revision = net.do((mapper, now) => mapper.renew(id, 600, now));
    net.run(599);
    assertEquals(net.events, []);
    net.run(1);
    const mapped = told(net.events[0], "mapped");
    assertEquals([mapped.revision, mapped.mapping.lifetimeSeconds], [revision, 600]);
    assertEquals(takeTold(net).length, 1);
    net.run(5000);
    net.do((mapper, now) => mapper.renew(id, 600, now));
    assertEquals(takeTold(net), [`renewed ${INSIDE}`], "at once: nothing new is waited for");
  });

  it("waits a second in all, whatever the inner gateway gives meanwhile", () => {
    const { net, id } = nested(null);
    net.run(600);
    net.gateways.get(A.gateway.address)!.setExternalAddresses(["10.0.1.3"], net.now);
    net.do((mapper, now) => mapper.renew(id, 600, now));
    net.run(399);
    assertEquals(takeTold(net), ["gateway-restarted"]);
    net.run(1);
    assertEquals(takeTold(net), ["mapped 10.0.1.3:8080"]);
  });

  it("is told as it is to who does not wait", () => {
    const { net, id } = nested(null);
    net.openAbove();
    net.do((mapper, now) => mapper.tellNow(id + 1, now));
    assertEquals(takeTold(net), []);
    net.run(50);
    net.mapper.tellNow(id, net.now);
    assertEquals(net.mapper.nextTimeout(), net.now);
    net.settle();
    assertEquals(takeTold(net), [`mapped ${INSIDE}`]);
    net.do((mapper, now) => mapper.tellNow(id, now));
    net.run(2000);
    assertEquals(takeTold(net), []);
  });

  it("looks for the gateway above at both ends of its network, and never at its own address", () => {
    for (
      const [external, above] of [
        ["10.0.0.1", ["10.0.0.254"]],
        ["172.16.5.254", ["172.16.5.1"]],
        ["192.168.7.7", ["192.168.7.1", "192.168.7.254"]],
        ["100.64.0.2", []],
        ["203.0.113.7", []],
      ] as const
    ) {
      const net = new Net();
      net.add(A, external);
      net.connect([A]);
      net.do((mapper, now) => mapper.map(web, now));
      assertEquals(reached(net), ["192.168.1.1", ...above], external);
      assert(net.mapper.sockets().every(({ connect }) => connect?.port === 5351));
    }
  });

  it("is kept at the outer gateway as long as it lives, however short its lifetimes there are", () => {
    const net = new Net({ protocols: ["pcp"] });
    net.add(A, BETWEEN);
    const outer = net.add(OUTER, "203.0.113.7", { maxLifetimeSeconds: 120 });
    net.connect([A]);
    const wish = { ...web, mode: "once", lifetimeSeconds: 600, description: "web" } as const;
    net.do((mapper, now) => mapper.map(wish, now));
    net.openAbove();
    assertEquals(takeTold(net), [`mapped ${HERE}`]);
    net.run(599_000);
    assertEquals(takeTold(net), []);
    assertEquals(outer.list(net.now).map(({ external }) => external.port), [8080]);
    net.run(2000);
    assertEquals(takeTold(net), ["unmapped"]);
    assertEquals(outer.list(net.now), []);
  });

  it("of another host is the inner gateway's at the outer one", () => {
    const net = new Net({ protocols: ["pcp"] });
    net.add(A, BETWEEN, { allowThirdParty: true });
    const outer = net.add(OUTER, "203.0.113.7");
    net.connect([A]);
    const id = net.do((mapper, now) => mapper.map({ ...web, thirdParty: "192.168.1.50" }, now));
    net.openAbove();
    const { mapping } = told(net.events[0], "mapped");
    assertEquals([mapping.internal, mapping.external.address, mapping.gatewayExternal], [
      { address: "192.168.1.50", port: 8080 },
      "203.0.113.7",
      { address: BETWEEN, port: 8080 },
    ]);
    assertEquals(net.mapper.mapping(id), mapping);
    assertEquals(outer.list(net.now).map(({ internal }) => internal), [mapping.gatewayExternal]);
  });

  it("moves to the outer endpoint where that is granted later, and back where it is gone", () => {
    const { net, outer } = nested({});
    net.silent.add(OUTER.gateway.address);
    net.openAbove();
    net.run(2000);
    assertEquals(takeTold(net), [`mapped ${INSIDE}`]);
    net.silent.clear();
    net.run(8000);
    assertEquals(takeTold(net), [`moved ${HERE}`]);
    for (const via of ["pcp", "nat-pmp"] as const) outer!.setProtocol(via, false, net.now);
    outer!.forget(net.now);
    net.run(3 * 3_600_000);
    const types = takeTold(net);
    assert(types.includes(`moved ${INSIDE}`) && !types.includes("lost"), types.join());
    assertEquals(net.ports(A), [8080]);
    for (const via of ["pcp", "nat-pmp"] as const) outer!.setProtocol(via, true, net.now);
    net.run(3_600_000);
    assert(takeTold(net).includes(`moved ${HERE}`));
    assertEquals([net.ports(A), net.ports(OUTER)], [[8080], [8080]]);
  });

  it("is lost with the inner one alone, and recovered with both", () => {
    const { net } = held();
    net.silent.add(A.gateway.address).add(OUTER.gateway.address);
    net.run(3 * 3_600_000);
    assertEquals(takeTold(net).at(-1), "lost");
    net.silent.clear();
    for (let ms = 0; ms < 1_200_000 && net.mapper.sockets().length === 1; ms += 100) net.run(100);
    net.open(OUTER.gateway, BETWEEN);
    net.run(5000);
    assertEquals(takeTold(net).at(-1), `recovered ${HERE}`);
    assertEquals([net.ports(A), net.ports(OUTER)], [[8080], [8080]]);
  });

  it("is mapped on again once the outer one's deletion is over, where it is back before that", () => {
    const { net } = nested({}, { lifetimeSeconds: 600 }, ["pcp"]);
    net.openAbove();
    net.run(20_000);
    net.silent.add(A.gateway.address).add(OUTER.gateway.address);
    net.run(580_000);
    assertEquals(takeTold(net).at(-1), "lost");
    net.silent.delete(A.gateway.address);
    // The outer one is silent to its deletion until that is given up.
    net.run(2000);
    assertEquals(takeTold(net), [`recovered ${INSIDE}`]);
    net.silent.clear();
    for (let s = 0; s < 60; s++) {
      if (net.mapper.sockets().length > 1) net.open(OUTER.gateway, BETWEEN);
      net.run(1000);
    }
    assertEquals([takeTold(net).length, net.ports(OUTER).length], [1, 1]);
  });

  it("is mapped on again by a gateway that begins minutes after the inner one", () => {
    const { net } = nested({}, { lifetimeSeconds: 600 }, ["pcp"]);
    net.openAbove();
    net.run(20_000);
    net.silent.add(A.gateway.address).add(OUTER.gateway.address);
    net.run(580_000);
    net.silent.delete(A.gateway.address);
    takeTold(net);
    for (let s = 0; s < 180; s++) {
      if (s === 120) net.silent.clear();
      if (net.mapper.sockets().some(({ connect }) => connect?.address === OUTER.gateway.address)) {
        net.open(OUTER.gateway, BETWEEN);
      }
      net.run(1000);
    }
    assertEquals(takeTold(net), [`recovered ${INSIDE}`, `moved ${HERE}`]);
  });

  it("leaves the outer one to who has the inner one's port by now, where nobody has been told so", () => {
    const { net } = held(["pcp"]);
    net.run(20_000);
    net.gateways.get(A.gateway.address)!.forget(net.now);
    const other = { ...web, internalPort: 9090, suggestedExternal: { port: 8080 } };
    net.do((mapper, now) => mapper.map(other, now));
    net.run(2000);
    assertEquals(takeTold(net), [`mapped ${INSIDE}`]);
    assertEquals(net.ports(OUTER), [8080]);
    net.run(3 * 3_600_000);
    assertEquals([net.ports(A).length, net.ports(OUTER).length], [2, 2]);
  });

  it("follows the inner one out of there", () => {
    const { net } = held();
    net.gateways.get(A.gateway.address)!.setExternalAddresses(["203.0.113.8"], net.now);
    net.run(4 * 3_600_000);
    const types = takeTold(net).filter((text) => !text.startsWith("renewed"));
    assertEquals(types, ["gateway-restarted", "moved 203.0.113.8:8080"]);
    assertEquals([net.ports(A), net.ports(OUTER)], [[8080], []]);
    assertEquals(net.mapper.sockets().length, 1);
  });

  it("that is lost before it was told is told as mapped, once it is back", () => {
    const { net } = nested(null);
    net.openAbove();
    net.run(500);
    net.connect([]);
    net.run(5000);
    net.connect([A]);
    net.run(5000);
    assertEquals(takeTold(net), ["lost", `mapped ${INSIDE}`]);
  });

  it("is left with its network", () => {
    const { net } = held();
    net.connect([]);
    net.run(10_000);
    assertEquals([takeTold(net), net.ports(A), net.ports(OUTER)], [["lost"], [], []]);
    assertEquals(net.mapper.sockets(), []);
  });

  it("is deleted at both where the mapper is closed, and by who revokes it while it waits", () => {
    for (const end of ["close", "revoke"] as const) {
      const { net, id } = held();
      // Nobody is at the last host: nothing has to be waited for there.
      net.run(20_000);
      net.do((mapper, now) => end === "close" ? mapper.close(now) : mapper.revoke(id, now));
      assertEquals([takeTold(net), net.ports(A), net.ports(OUTER)], [["unmapped"], [], []]);
      assert(net.mapper.isIdle);
    }
    const { net, id } = nested({});
    net.do((mapper, now) => mapper.revoke(id, now));
    net.run(20_000);
    assertEquals([takeTold(net), net.ports(A), net.mapper.isIdle], [["unmapped"], [], true]);
  });

  it("says at the end which gateway keeps it, and waits for that one's word", () => {
    const { net, id, outer } = held(["pcp"]);
    outer!.setRefusal(8, net.now);
    net.silent.add(OUTER.gateway.address);
    net.do((mapper, now) => mapper.revoke(id, now));
    assertEquals([takeTold(net), net.ports(A)], [[], []]);
    net.silent.clear();
    net.run(60_000);
    const over = told(net.events[0], "unmapped");
    assertEquals(over.failure?.kind, "refused");
    assertEquals(over.attempts.map(({ gateway, outcome }) => `${gateway} ${outcome}`), [
      "192.168.1.1 unmapped",
      "10.0.0.1 NO_RESOURCES",
    ]);
    assertEquals(net.mapper.exportSaved().map(({ gateway }) => gateway), ["10.0.0.1"]);
  });

  it("says at the end what the inner gateway said, where both keep it", () => {
    const { net, id, outer } = held(["pcp"]);
    outer!.setRefusal(8, net.now);
    net.gateways.get(A.gateway.address)!.setRefusal(2, net.now);
    net.do((mapper, now) => mapper.revoke(id, now));
    net.run(60_000);
    const { failure, attempts } = told(net.events[0], "unmapped");
    assertEquals(failure?.kind === "refused" && failure.name, "NOT_AUTHORIZED");
    assertEquals(attempts.map(({ outcome }) => outcome), ["NOT_AUTHORIZED", "NO_RESOURCES"]);
  });

  it("is over in one word where its lifetimes are", () => {
    const { net, outer } = nested({}, { mode: "once", lifetimeSeconds: 600 });
    net.openAbove();
    takeTold(net);
    net.run(700_000);
    assertEquals(takeTold(net), ["unmapped"]);
    assertEquals([outer!.list(net.now), net.mapper.isIdle], [[], true]);
  });

  it("is left at both by who abandons it, and is there again for a later run", () => {
    const { net, id } = held();
    net.do((mapper, now) => mapper.abandon(id, now));
    net.run(5000);
    assertEquals([takeTold(net), net.ports(A), net.ports(OUTER)], [[], [8080], [8080]]);
    assertEquals([net.mapper.isIdle, net.mapper.sockets().length], [true, 1]);
    const saved = net.mapper.exportSaved();
    assertEquals(saved.map(({ gateway }) => gateway), ["192.168.1.1", "10.0.0.1"]);
    const later = new Net({ saved });
    for (const [address, gateway] of net.gateways) later.gateways.set(address, gateway);
    later.now = net.now;
    later.connect([A]);
    later.do((mapper, now) => mapper.map(web, now));
    later.openAbove();
    assertEquals(takeTold(later), [`mapped ${HERE}`]);
    // By the nonces of the earlier run: nothing is there twice.
    assertEquals([later.ports(A), later.ports(OUTER)], [[8080], [8080]]);
  });

  describe("that a run left which crashed", () => {
    /** A later run of what crashed, which is told to delete the mapping; nothing above has been asked. */
    const afterCrash = (request: Partial<PortRequest> = {}, protocols?: readonly Via[]) => {
      const { net: crashed, outer } = nested({}, request, protocols);
      crashed.openAbove();
      // Until then it waits for who may be at the last host.
      crashed.run(20_000);
      const later = new Net({
        ...(protocols && { protocols }),
        saved: JSON.parse(JSON.stringify(crashed.mapper.exportSaved())),
      });
      for (const [address, gateway] of crashed.gateways) later.gateways.set(address, gateway);
      later.now = crashed.now;
      later.connect([A]);
      later.do((mapper, now) => mapper.unmap(web, now));
      return { net: later, outer: outer! };
    };
    const attempts = (net: Net) =>
      told(net.events[0], "unmapped").attempts
        .map(({ gateway, outcome }) => `${gateway} ${outcome}`);

    for (const via of ["pcp", "nat-pmp"] as const) {
      it(`is deleted at both by a later one, by ${via}, whatever port each has`, () => {
        for (const port of [8080, 18_080]) {
          const { net } = afterCrash({ suggestedExternal: { port } }, [via]);
          assertEquals([net.events, net.ports(A), net.ports(OUTER)], [[], [], [port]]);
          net.open(OUTER.gateway, BETWEEN);
          assertEquals(attempts(net), ["192.168.1.1 unmapped", "10.0.0.1 unmapped"]);
          assertEquals([net.ports(OUTER), net.mapper.exportSaved()], [[], []]);
          net.run(10_000);
          assertEquals([net.events.length, net.mapper.sockets().length], [1, 1]);
          assertEquals([net.mapper.isIdle, net.mapper.nextTimeout()], [true, undefined]);
        }
      });
    }

    it("is told as deleted where nobody above answers, and its key is kept", () => {
      const { net } = afterCrash({}, ["pcp"]);
      net.silent.add(OUTER.gateway.address);
      net.open(OUTER.gateway, BETWEEN);
      net.run(5000);
      assertEquals(attempts(net), ["192.168.1.1 unmapped", "10.0.0.1 no answer"]);
      assertEquals(told(net.events[0], "unmapped").failure, undefined);
      assertEquals(net.mapper.exportSaved().map(({ gateway }) => gateway), ["10.0.0.1"]);
    });

    it("is told with the refusal of the one above", () => {
      const { net, outer } = afterCrash({}, ["pcp"]);
      outer.setRefusal(2, net.now);
      net.open(OUTER.gateway, BETWEEN);
      assertEquals(told(net.events[0], "unmapped").failure?.kind, "refused");
    });

    it("is told with the refusal of the one below, and deleted above", () => {
      const { net: crashed } = held(["pcp"]);
      crashed.run(20_000);
      const net = new Net({ protocols: ["pcp"], saved: crashed.mapper.exportSaved() });
      for (const [address, gateway] of crashed.gateways) net.gateways.set(address, gateway);
      crashed.gateways.get(A.gateway.address)!.setRefusal(2, 0);
      net.now = crashed.now;
      net.connect([A]);
      net.do((mapper, now) => mapper.unmap(web, now));
      net.open(OUTER.gateway, BETWEEN);
      assertEquals(told(net.events[0], "unmapped").failure?.kind, "refused");
      assertEquals([net.ports(A), net.ports(OUTER)], [[8080], []]);
    });

    it("is deleted above, and what other ports have there is not", () => {
      const { net: crashed } = nested({}, {}, ["pcp"]);
      crashed.do((mapper, now) => mapper.map({ ...web, internalPort: 9090 }, now));
      crashed.do((mapper, now) => mapper.map({ ...web, protocol: "udp" }, now));
      crashed.openAbove();
      crashed.run(20_000);
      assertEquals(crashed.ports(OUTER).sort(), [8080, 8080, 9090]);
      const net = new Net({ protocols: ["pcp"], saved: crashed.mapper.exportSaved() });
      for (const [address, gateway] of crashed.gateways) net.gateways.set(address, gateway);
      net.now = crashed.now;
      net.connect([A]);
      net.do((mapper, now) => mapper.unmap(web, now));
      net.open(OUTER.gateway, BETWEEN);
      net.run(5000);
      const left = net.gateways.get(OUTER.gateway.address)!.list(net.now);
      assertEquals(left.map(({ protocol, external: { port } }) => [protocol, port]).sort(), [
        [17, 8080],
        [6, 9090],
      ]);
    });

    it("is told where the network is another one before the way above is open", () => {
      const { net } = afterCrash();
      net.connect([]);
      net.run(5000);
      assertEquals(attempts(net), ["192.168.1.1 unmapped"]);
      assertEquals([net.mapper.sockets(), net.mapper.isIdle], [[], true]);
    });

    it("is told where the way above cannot be had, and where the mapper closes meanwhile", () => {
      const { net } = afterCrash();
      const { key } = net.mapper.sockets()[1]!;
      const refused = { ok: false, isOpen: false, code: "network", message: "no way" } as const;
      net.do((mapper, now) => mapper.handleSocket(key, refused, now));
      assertEquals(attempts(net)[0], "192.168.1.1 unmapped");
      const { net: closed } = afterCrash();
      closed.do((mapper, now) => mapper.close(now));
      assertEquals(attempts(closed), ["192.168.1.1 unmapped"]);
      for (const one of [net, closed]) {
        one.run(10_000);
        assertEquals([one.events.length, one.mapper.isIdle], [1, true]);
      }
    });

    it("is deleted above also where the port is wanted meanwhile, and told before that", () => {
      const { net } = afterCrash();
      net.do((mapper, now) => mapper.map(web, now));
      assertEquals([takeTold(net), net.ports(OUTER)], [["unmapped"], [8080]]);
      net.open(OUTER.gateway, BETWEEN);
      net.run(5000);
      const [event, ...more] = net.events.splice(0);
      const { external, gatewayExternal } = told(event, "mapped").mapping;
      assertEquals([[external.port], [gatewayExternal?.port]], [net.ports(OUTER), net.ports(A)]);
      assertEquals(more, []);
    });
  });

  it("is over at once for who revokes it while nobody above answers", () => {
    const { net, id } = nested(null);
    net.openAbove();
    net.run(100);
    net.silent.add(A.gateway.address);
    net.do((mapper, now) => mapper.revoke(id, now));
    // Nothing that was to be told is waited for.
    net.run(2000);
    assertEquals(net.events, []);
    net.silent.clear();
    net.run(10_000);
    assertEquals([takeTold(net), net.ports(A)], [["unmapped"], []]);
    net.run(60_000);
    assertEquals([net.mapper.isIdle, net.mapper.sockets().length], [true, 1]);
  });

  it("answers a renewal by its number", () => {
    const { net, id } = held();
    net.run(10_000);
    const revision = net.do((mapper, now) => mapper.renew(id, undefined, now));
    const renewed = told(net.events[0], "renewed");
    assertEquals([renewed.revision, renewed.mapping.external.address], [revision, "203.0.113.7"]);
  });

  it("has the wished port at the outer gateway, though the inner one gave another, and this host", () => {
    const net = new Net();
    const inner = net.add(A, BETWEEN);
    for (const port of [9000, 8080]) {
      inner.addStatic("tcp", port, { address: "192.168.1.9", port }, net.now);
    }
    const outer = net.add(OUTER, "203.0.113.7");
    net.connect([A]);
    const wish = { ...web, suggestedExternal: { port: 9000 }, nonce: new Uint8Array(12).fill(7) };
    const id = net.do((mapper, now) => mapper.map(wish, now));
    net.openAbove();
    assertEquals(takeTold(net), ["mapped 203.0.113.7:9000"]);
    const { gatewayExternal } = net.mapper.mapping(id)!;
    assert(gatewayExternal!.port !== 9000);
    assertEquals(outer.list(net.now).map(({ internal }) => internal), [gatewayExternal]);
    const nonces = net.mapper.exportSaved().map(({ nonce }) => nonce);
    assert(nonces[0] !== nonces[1], nonces.join());
  });

  it("of a set of ports, or for a peer, is the inner gateway's alone", () => {
    for (
      const request of [
        { portSet: { size: 4 } },
        { remote: { address: "198.51.100.9", port: 9 } },
      ]
    ) {
      const { net } = nested({}, request);
      assertEquals(takeTold(net), [`mapped ${INSIDE}`]);
      assertEquals(net.mapper.sockets().length, 1);
    }
  });

  it("that nobody above could make is told at once", () => {
    const home = new Home({ router: new ScriptedRouter({ external: BETWEEN }) });
    const at = [8080, 9090].map((internalPort) => {
      home.do((mapper, now) => mapper.map({ ...web, internalPort, protocols: ["upnp"] }, now));
      const since = home.now;
      home.run(2000);
      return told(home.take()[0], "mapped").at - since;
    });
    assert(Math.max(...at) < 100, at.join());
    // Another address below is told as one change.
    const router = home.router as { options: { external?: string } };
    router.options.external = "10.9.0.2";
    home.run(2 * 3_600_000);
    assertEquals(home.take().filter(({ type }) => type !== "renewed").map(({ type }) => type), [
      "moved",
      "moved",
    ]);
    const { paths, left } = home.mapper.stats;
    assertEquals([paths - left, home.mapper.sockets().length], [1, 1], "nobody is kept for that");
  });
});
