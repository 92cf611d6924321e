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
import type { PortRequest } from "../../../core/portmap/managed.ts";
import { ScriptedRouter } from "../upnp/scripted_igd.ts";
import { Home } from "./home.ts";
import { A, BETWEEN, Net, OUTER, web } from "./net.ts";
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
): Nested {
  const net = new Net(protocols && { protocols });
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
      assertEquals(takeTold(net), ["unmapped"]);
      assertEquals([net.ports(A), net.ports(OUTER), net.mapper.isIdle], [[], [], true]);
      assertEquals(net.mapper.sockets().length, 1);
      assertEquals(net.mapper.nextTimeout(), undefined);
    });
  }

  it("is told as the inner gateway has it where nobody above answers within a second", () => {
    const { net, id } = nested(null);
    net.openAbove();
    net.run(999);
    assertEquals(net.events, []);
    net.run(1);
    const { mapping } = told(net.events[0], "mapped");
    assertEquals([mapping.external, mapping.gatewayExternal], [
      { address: BETWEEN, port: 8080 },
      undefined,
    ]);
    net.run(3_600_000);
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

  it("follows the inner one out of there", () => {
    const { net } = held();
    net.gateways.get(A.gateway.address)!.setExternalAddresses(["203.0.113.8"], net.now);
    net.run(4 * 3_600_000);
    const types = takeTold(net).filter((text) => !text.startsWith("renewed"));
    assertEquals(types, ["gateway-restarted", "moved 203.0.113.8:8080"]);
    assertEquals([net.ports(A), net.ports(OUTER)], [[8080], []]);
    assertEquals(net.mapper.sockets().length, 1);
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

  it("is over at once for who revokes it while nobody above answers", () => {
    const { net, id } = nested(null);
    net.openAbove();
    net.run(100);
    net.do((mapper, now) => mapper.revoke(id, now));
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
    inner.addStatic("tcp", 9000, { address: "192.168.1.9", port: 9000 }, net.now);
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

  it("that nobody above could make is told at once where that is known", () => {
    const home = new Home({ router: new ScriptedRouter({ external: BETWEEN }) });
    const at = [8080, 9090].map((internalPort) => {
      home.do((mapper, now) => mapper.map({ ...web, internalPort, protocols: ["upnp"] }, now));
      const since = home.now;
      home.run(2000);
      return told(home.take()[0], "mapped").at - since;
    });
    assert(at[0]! >= 1000 && at[1]! < 100, at.join());
  });
});
