/**
 * Faults that were found, in the wire's and the application's words; each is a test here, and its
 * kind is held by the tests beside it.
 *
 * @module
 */
import { describe, it } from "node:test";
import { assert, assertEquals } from "@std/assert";
import { parseCidr } from "../../../core/cidr.ts";
import type { MapperEvent } from "../../../core/portmap/managed.ts";
import { PortMapper } from "../../../core/portmap/mapper.ts";
import { decodeRequest } from "../../../core/pcp/codec.ts";
import { seededRandom } from "../../../core/random.ts";
import { EXTERNAL, GATEWAY, HOST, type Rig, rig, type RigOptions, told } from "./rig.ts";

const web = { protocol: "tcp", internalPort: 8080, suggestedExternal: { port: 8080 } } as const;
const NEW_EXTERNAL = "203.0.113.99";

function held(options: RigOptions = {}, request: object = {}): { lab: Rig; id: number } {
  const lab = rig(options);
  const id = lab.mapper((mapper, now) => mapper.map({ ...web, ...request }, now));
  // A gateway younger than some seconds that restarts looks like one that did not (RFC 6887 §8.5).
  lab.world.runFor(60_000);
  assertEquals(lab.types(), ["mapped"]);
  lab.sent.length = 0;
  return { lab, id };
}

/** PCP requests sent since they were looked at last. */
function pcpSent(lab: Rig) {
  return lab.sent.splice(0).flatMap(({ data }) => {
    const request = data[0] === 2 ? decodeRequest(data) : "not-a-request";
    return typeof request !== "string" && request.kind === "map" ? [request] : [];
  });
}

describe("never delete what one did not make, and delete what one made", () => {
  it("host renumbered: nothing of others is deleted, nor what PCP has just remade", () => {
    const { lab } = held();
    lab.gateway((gateway, now) =>
      gateway.addStatic("tcp", 9000, { address: HOST, port: 9000 }, now)
    );
    lab.host.changeAddress(HOST, "192.168.1.101");
    lab.mapper((mapper, now) =>
      mapper.networkChanged([{ gateway: GATEWAY, localAddress: "192.168.1.101" }], now)
    );
    lab.world.runFor(10_000);
    const deletions = lab.sent.filter(({ data }) => data[0] === 0 && data.length === 12);
    assertEquals(deletions, []);
    assert(lab.ports().includes(9000));
    assertEquals(lab.types().at(-1), "moved");
  });

  it("a deletion refused for want of resources is told, and the mapping stays in the state", () => {
    const { lab, id } = held();
    lab.gateway((gateway, now) => gateway.setRefusal(8, now));
    lab.mapper((mapper, now) => mapper.revoke(id, now));
    lab.world.runFor(1000);
    const unmapped = told(lab.events().at(-1), "unmapped");
    assertEquals(unmapped.failure?.kind === "refused" && unmapped.failure.name, "NO_RESOURCES");
    assertEquals(lab.mapper((mapper) => mapper.exportSaved()).length, 1);
    // Other requests go on.
    lab.gateway((gateway, now) => gateway.setRefusal(undefined, now));
    lab.mapper((mapper, now) => mapper.map({ protocol: "udp", internalPort: 5000 }, now));
    lab.world.runFor(100);
    assertEquals(lab.types(), ["mapped"]);
  });

  it("a first request that PCP refuses: nothing is deleted", () => {
    const lab = rig({ gateway: { protocols: ["pcp"] } });
    lab.gateway((gateway, now) => gateway.setRefusal(10, now));
    lab.mapper((mapper, now) => mapper.map(web, now));
    lab.world.runFor(60_000);
    assertEquals(lab.types(), ["failed"]);
    assertEquals(pcpSent(lab).map(({ lifetimeSeconds }) => lifetimeSeconds), [7200]);
  });

  it("a renewal refused with NOT_AUTHORIZED, then the end: a deletion is sent", () => {
    const { lab, id } = held({ gateway: { protocols: ["pcp"] } }, { lifetimeSeconds: 600 });
    lab.gateway((gateway, now) => gateway.setRefusal(2, now));
    lab.world.runFor(380_000);
    assertEquals(lab.types(), ["renewal-failed"]);
    lab.gateway((gateway, now) => gateway.setRefusal(undefined, now));
    lab.sent.length = 0;
    lab.mapper((mapper, now) => mapper.revoke(id, now));
    lab.world.runFor(1000);
    assertEquals(pcpSent(lab).map(({ lifetimeSeconds }) => lifetimeSeconds), [0]);
    assertEquals([lab.types(), lab.ports()], [["unmapped"], []]);
  });

  it("a mapping revoked in the turn in which it was asked for is deleted", () => {
    for (const protocols of [["pcp"], ["nat-pmp"]] as const) {
      const lab = rig({ gateway: { protocols } });
      lab.mapper((mapper, now) => mapper.revoke(mapper.map(web, now), now));
      lab.world.runFor(30_000);
      assertEquals([lab.ports(), lab.mapper((mapper) => mapper.isIdle)], [[], true]);
    }
  });
});

describe("an answer belongs to its request", () => {
  for (const protocols of [["pcp"], ["nat-pmp"]] as const) {
    it(`renew(3600), then renew(600): each has its own answer, by ${protocols[0]}`, () => {
      const { lab, id } = held({ gateway: { protocols } });
      const revisions = [3600, 600].map((lifetime) =>
        lab.mapper((mapper, now) => mapper.renew(id, lifetime, now))
      );
      lab.world.runFor(10_000);
      const answers = lab.events().flatMap((event) =>
        event.type === "renewed" ? [[event.revision, event.mapping.lifetimeSeconds]] : []
      );
      assertEquals(answers, [[revisions[0]!, 3600], [revisions[1]!, 600]]);
    });

    it(`a refused renew() is told with the refusal, by ${protocols[0]}`, () => {
      const { lab, id } = held({ gateway: { protocols } });
      lab.gateway((gateway, now) => gateway.setRefusal(2, now));
      const revision = lab.mapper((mapper, now) => mapper.renew(id, undefined, now));
      lab.world.runFor(100);
      const failed = told(lab.events().at(-1), "renewal-failed");
      assertEquals([failed.revision, failed.failure.kind], [revision, "refused"]);
    });
  }

  it("two unmap()s of one port on a silent gateway are one, and end as one", () => {
    const lab = rig({ isThere: false, sendsUnreachable: false });
    const [a, b] = [1, 2].map(() => lab.mapper((mapper, now) => mapper.unmap(web, now)));
    assertEquals(a, b);
    lab.world.runFor(60_000);
    assertEquals(told(lab.events()[0], "unmapped").failure?.kind, "no-answer");
  });

  it("unmapAll() twice: both end", () => {
    const { lab } = held({ gateway: { protocols: ["nat-pmp"] } });
    const ids = [1, 2].map(() => lab.mapper((mapper, now) => mapper.unmapAll("tcp", now)));
    lab.world.runFor(5000);
    const ended = lab.events().flatMap((event) => event.type === "unmapped" ? [event.id] : []);
    for (const id of ids) assert(ended.includes(id), `${id} of ${ended}`);
    assertEquals(lab.ports(), []);
  });

  /** The filters of the mapping in the gateway's table. */
  const filters = (lab: Rig) =>
    lab.gateway((gateway, now) => gateway.list(now)).flatMap(({ filters = [] }) => filters)
      .map(({ prefix }) => prefix.address);
  const only = (address: string) => ({
    filters: [{ prefix: parseCidr(address)!, port: 0 }],
  });

  for (
    const [what, next, expected] of [
      ["others", only("192.0.2.1"), ["192.0.2.1"]],
      ["none", {}, []],
    ] as const
  ) {
    it(`saved filters, restarted with ${what}: the gateway has those that are wanted`, () => {
      const { lab, id } = held({}, only("198.51.100.0/24"));
      assertEquals(filters(lab), ["198.51.100.0"]);
      const saved = lab.mapper((mapper) => mapper.exportSaved());
      lab.mapper((mapper, now) => mapper.abandon(id, now));
      lab.process.stop();
      const later = lab.host.run<MapperEvent, PortMapper>(
        new PortMapper({ random: seededRandom(9), saved }),
        {},
      );
      later.do((mapper, now) => mapper.networkChanged([{ gateway: GATEWAY }], now));
      later.do((mapper, now) => mapper.map({ ...web, ...next }, now));
      lab.world.runFor(1000);
      assertEquals(later.takeEvents().map(({ event }) => event.type), ["mapped"]);
      assertEquals(filters(lab), expected);
    });
  }

  for (const mode of ["once", 3] as const) {
    it(`mode ${mode}: a refused renewal leaves nothing behind at the end, and the port is free`, () => {
      const { lab, id } = held({}, { mode, lifetimeSeconds: 600 });
      lab.gateway((gateway, now) => gateway.setRefusal(2, now));
      lab.mapper((mapper, now) => mapper.renew(id, undefined, now));
      lab.world.runFor(3 * 600_000 + 1000);
      const types = lab.types();
      assertEquals([types[0], types.at(-1)], ["renewal-failed", "unmapped"]);
      assertEquals(types.filter((type) => type === "unmapped").length, 1);
      assertEquals(lab.mapper((mapper) => mapper.exportSaved()), []);
      lab.gateway((gateway, now) => gateway.setRefusal(undefined, now));
      lab.mapper((mapper, now) => mapper.map(web, now));
      lab.world.runFor(100);
      assertEquals(lab.types(), ["mapped"]);
    });
  }
});

describe("refusals", () => {
  it("only a port insisted on, then a new WAN address: the same port there, at once", () => {
    const { lab } = held({}, { preferFailure: true });
    lab.gateway((gateway, now) => gateway.setExternalAddresses([NEW_EXTERNAL], now));
    lab.world.runFor(10_000);
    const moved = told(lab.events().at(-1), "moved");
    assertEquals(moved.mapping.external, { address: NEW_EXTERNAL, port: 8080 });
  });

  it("a PEER, then a restart with a new WAN address: the learnt one is given up at once", () => {
    const { lab } = held({}, { remote: { address: "198.51.100.9", port: 443 } });
    lab.gateway((gateway, now) => {
      gateway.reboot(now);
      gateway.setExternalAddresses([NEW_EXTERNAL], now);
    });
    lab.world.runFor(10_000);
    const moved = told(lab.events().at(-1), "moved");
    assertEquals(moved.mapping.external, { address: NEW_EXTERNAL, port: 8080 });
  });

  it("a PEER of an earlier run, then a new WAN address: the learnt one is given up at once", () => {
    const remote = { address: "198.51.100.9", port: 443 };
    const request = { protocol: "tcp", internalPort: 8080, remote } as const;
    const saved = [{
      protocol: "tcp",
      internalPort: 8080,
      remote,
      via: "pcp",
      gateway: GATEWAY.address,
      nonce: "000102030405060708090a0b",
      external: { address: NEW_EXTERNAL, port: 8080 },
      lifetimeSeconds: 7200,
      mode: "keep-alive",
    }] as const;
    const lab = rig({ mapper: { saved } });
    lab.mapper((mapper, now) => mapper.map(request, now));
    lab.world.runFor(1000);
    assertEquals(told(lab.events().at(-1), "mapped").mapping.external.address, EXTERNAL);
  });

  it("refused for a day, then the gateway restarts: asked again at once", () => {
    const { lab } = held({ gateway: { protocols: ["pcp"] } });
    lab.gateway((gateway, now) => gateway.setRefusal(2, now));
    lab.gateway((gateway, now) => gateway.reboot(now));
    lab.world.runFor(10_000);
    const [restart, event, ...more] = lab.events();
    assertEquals([restart?.type, more], ["gateway-restarted", []]);
    const { failure, retryAt } = told(event, "lost");
    assert(failure.kind === "refused" && failure.retryAt === retryAt && retryAt! > lab.world.now);
    lab.world.runFor(60_000);
    lab.gateway((gateway, now) => gateway.setRefusal(undefined, now));
    lab.gateway((gateway, now) => gateway.reboot(now));
    lab.world.runFor(10_000);
    assertEquals([lab.types().at(-1), lab.ports()], ["recovered", [8080]]);
  });

  for (const protocols of [["pcp"], ["nat-pmp"]] as const) {
    it(`two restarts within 2 s are both found, by ${protocols[0]}`, () => {
      let told = 0;
      for (let seed = 1; seed <= 20; seed++) {
        const { lab } = held({ gateway: { protocols }, seed });
        lab.gateway((gateway, now) => gateway.reboot(now));
        // Ask at once, so that what it held is there again when it restarts once more.
        lab.world.runFor(5500);
        lab.gateway((gateway, now) => gateway.reboot(now));
        lab.world.runFor(1900);
        const grantedAt = lab.events().findLast(({ type }) => type === "renewed")?.at ?? 0;
        // Epochs are whole seconds: of a grant in the last one nobody can tell whose it is.
        if (lab.world.now - grantedAt < 1000) continue;
        told++;
        lab.gateway((gateway, now) => gateway.reboot(now));
        lab.world.runFor(15_000);
        assertEquals(lab.ports(), [8080], `seed ${seed}`);
      }
      assert(told > 5, `${told} told`);
    });
  }

  it("a program that lost its nonce is reachable by the protocol that needs none", () => {
    const { lab } = held({ gateway: { profile: "strict-nonce", protocols: ["pcp", "nat-pmp"] } });
    lab.process.stop();
    const later = lab.host.run<MapperEvent, PortMapper>(
      new PortMapper({ random: seededRandom(77) }),
      {},
    );
    later.do((mapper, now) => mapper.networkChanged([{ gateway: GATEWAY }], now));
    later.do((mapper, now) => mapper.map(web, now));
    lab.world.runFor(1000);
    const mapped = told(later.takeEvents()[0]?.event, "mapped");
    assertEquals(mapped.mapping.via, "nat-pmp");
    assertEquals(mapped.mapping.external, { address: EXTERNAL, port: 8080 });
  });

  it("ADDRESS_MISMATCH: an inner NAT stands between, and nothing is mapped there silently", () => {
    const lab = rig();
    lab.gateway((gateway, now) => gateway.setRefusal(12, now));
    lab.mapper((mapper, now) => mapper.map(web, now));
    lab.world.runFor(5000);
    const failed = told(lab.events()[0], "failed");
    assertEquals([failed.code, failed.attempts[0]?.outcome], ["refused", "ADDRESS_MISMATCH"]);
    assertEquals(lab.sent.filter(({ data }) => data[0] === 0 && data.length === 12), []);
  });
});
