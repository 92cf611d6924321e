import { describe, it } from "node:test";
import { assertEquals, assertThrows } from "@std/assert";
import { equalBytes } from "../../../core/bytes.ts";
import { PcpClient } from "../../../core/pcp/client.ts";
import type { PcpMapRequest, PcpPeerRequest } from "../../../core/pcp/client.ts";
import { parseCidr } from "../../../core/cidr.ts";
import { EXTERNAL, LOCAL, Rig, SERVER } from "./harness.ts";
import { claim } from "./support.ts";
import { seededRandom } from "../../../core/random.ts";

const REMOTE = { address: "198.51.100.20", port: 443 };

describe("PcpClient.map()", () => {
  it("takes a refusal for one although its epoch tells of a restart", () => {
    const rig = new Rig();
    rig.client.map({ protocol: 6, internalPort: 80 }, 0);
    rig.drain();
    rig.grant();
    rig.client.map({ protocol: 6, internalPort: 81 }, 0);
    // By now the next retransmission is so far off that a new gateway would be asked before.
    rig.advance(30_000);
    rig.events.length = 0;
    rig.gateway.setEpoch(0, rig.now);
    rig.gateway.setRefusal(2, rig.now);
    rig.grant();
    const failed = rig.events.find(({ type }) => type === "failed");
    assertEquals(failed?.type === "failed" && failed.retryAt, rig.now + 1_800_000);
    const ports = rig.advance(10_000).map(({ request }) =>
      "internalPort" in request && request.internalPort
    );
    assertEquals(ports.filter((port) => port === 81), []);
  });

  it("is mapped in one round trip", () => {
    const rig = new Rig();
    const id = rig.client.map({ protocol: 6, internalPort: 8080, lifetimeSeconds: 3600 }, 0);
    const [first] = rig.drain();
    assertEquals(first!.to, SERVER);
    assertEquals(rig.client.mapping(id)!.state, "starting");

    rig.now = 5;
    rig.grant();

    assertEquals(rig.events, [{
      type: "mapped",
      id,
      mapping: rig.client.mapping(id)!,
      revision: 0,
    }]);
    assertEquals(rig.client.mapping(id), {
      id,
      kind: "map",
      protocol: 6,
      internal: { address: LOCAL, port: 8080 },
      external: EXTERNAL,
      lifetimeSeconds: 3600,
      expiresAt: 3_600_005,
      server: SERVER,
      nonce: rig.last.nonce.slice(),
      state: "running",
      attempt: 0,
    });
  });

  it("holds many mappings at once, of both kinds and of one port", () => {
    const rig = new Rig();
    rig.client.map({ protocol: 6, internalPort: 8080 }, 0);
    rig.client.map({ protocol: 17, internalPort: 8080 }, 0);
    rig.client.map({ protocol: 6, internalPort: 8080, thirdParty: "192.168.1.50" }, 0);
    rig.client.peer({ protocol: 6, internalPort: 8080, remote: REMOTE }, 0);
    rig.client.peer({ protocol: 6, internalPort: 8080, remote: { ...REMOTE, port: 80 } }, 0);
    const requests = rig.drain();
    // The answers come in another order.
    for (const sent of requests.reverse()) claim(rig.grant({}, sent));
    assertEquals(rig.heard(), ["mapped", "mapped", "mapped", "mapped", "mapped"]);
  });

  it('asks with mode "once" for one lifetime and tells its end', () => {
    const rig = new Rig();
    const id = rig.mapped({ mode: "once", lifetimeSeconds: 600 });
    assertEquals(rig.advance(599_999), []);
    assertEquals(rig.heard(), ["mapped"]);
    rig.advance(1);
    assertEquals(rig.events, [{ type: "unmapped", id, reason: "expired" }]);
    assertEquals(rig.client.mapping(id), undefined);
    claim(rig.client.isIdle === true);
  });

  it("holds through N lifetimes", () => {
    const rig = new Rig();
    rig.mapped({ mode: 3, lifetimeSeconds: 600 });
    for (let i = 0; i < 3; i++) {
      assertEquals(rig.advance(400_000).length, 1);
      rig.grant();
    }
    // Of 1800 s 600 are left when the third renewal leaves the gateway: no other follows.
    assertEquals(rig.heard(), ["mapped", "renewed", "renewed", "renewed"]);
    assertEquals(rig.advance(599_999), []);
    assertEquals(rig.heard(), []);
    rig.advance(1);
    assertEquals([rig.now, rig.heard()], [1_800_000, ["unmapped"]]);
  });

  it("ends the last of N lifetimes in peace where no renewal fits in", () => {
    const rig = new Rig({ gateway: { minLifetimeSeconds: 1 } });
    rig.mapped({ mode: 2, lifetimeSeconds: 1 });
    rig.advance(700);
    rig.grant();
    rig.advance(60_000);
    assertEquals(rig.heard(), ["mapped", "renewed", "unmapped"]);
    assertEquals(rig.client.nextTimeout(), undefined);
  });

  it("asks only for what is left of N lifetimes", () => {
    const rig = new Rig();
    rig.mapped({ mode: 2, lifetimeSeconds: 600 });
    rig.advance(rig.client.nextTimeout()! - rig.now);
    rig.grant();
    assertEquals(rig.last.lifetimeSeconds, 600);
    rig.advance(rig.client.nextTimeout()! - rig.now);
    const left = Math.ceil((1_200_000 - rig.now) / 1000);
    assertEquals(rig.last.lifetimeSeconds, left);
  });

  it("tells a new external endpoint as moved, the same as renewed", () => {
    const rig = new Rig();
    rig.mapped({ lifetimeSeconds: 600 });
    rig.advance(400_000);
    rig.grant();
    rig.advance(400_000);
    rig.scenario((gateway, now) => {
      gateway.forget(now);
      gateway.addStatic("tcp", EXTERNAL.port, { address: "192.168.1.77", port: 80 }, now);
    });
    rig.grant();
    assertEquals(rig.heard(), ["mapped", "renewed", "moved"]);
  });

  it("throws at once on what contradicts itself, naming the value", () => {
    const { client } = new Rig();
    const wrong: [Partial<PcpMapRequest>, new (message: string) => Error, string][] = [
      [{ internalPort: 65536 }, RangeError, "65536"],
      [{ internalPort: -1 }, RangeError, "-1"],
      [{ internalPort: "80" as unknown as number }, TypeError, "80"],
      [{ protocol: 256 }, RangeError, "256"],
      [{ protocol: 0, internalPort: 80 }, RangeError, "80"],
      [{ protocol: 47, internalPort: 80 }, RangeError, "80"],
      [{ lifetimeSeconds: 0 }, RangeError, "lifetimeSeconds"],
      [{ lifetimeSeconds: 2 ** 32 }, RangeError, "4294967296"],
      [{ mode: 0 }, RangeError, "mode"],
      [{ mode: "twice" as "once" }, TypeError, "twice"],
      [{ suggestedExternal: { port: 70000 } }, RangeError, "70000"],
      [{ suggestedExternal: { address: "there" } }, TypeError, "there"],
      [{ preferFailure: true }, TypeError, "suggestedExternal.port"],
      [{ thirdParty: LOCAL }, TypeError, LOCAL],
      [{ thirdParty: "nobody" }, TypeError, "nobody"],
      [{ description: "x".repeat(1017) }, RangeError, "1017"],
      [{ description: "x".repeat(1016) }, TypeError, "room"],
      [{ description: "x".repeat(1013) }, TypeError, "room"],
      [{ portSet: { size: 1 } }, RangeError, "portSet.size"],
      [{ portSet: { size: 60000 } }, RangeError, "60000"],
      [
        { portSet: { size: 2 }, preferFailure: true, suggestedExternal: { port: 80 } },
        TypeError,
        "portSet",
      ],
      [{ filters: [{ prefix: parseCidr("::/0")!, port: 0 }] }, RangeError, "prefixLength"],
      [{ filters: [{ prefix: parseCidr("10.0.0.0/8")!, port: 65536 }] }, RangeError, "65536"],
      [{ nonce: new Uint8Array(11) }, TypeError, "11"],
      [
        { filters: new Array(60).fill({ prefix: parseCidr("10.0.0.0/8")!, port: 1 }) },
        TypeError,
        "room",
      ],
    ];
    for (const [request, type, message] of wrong) {
      assertThrows(
        () => client.map({ protocol: 6, internalPort: 8080, ...request }, 0),
        type,
        message,
      );
    }
    assertEquals(client.poll(), undefined);
    assertEquals(client.mappings(), []);
  });

  it("throws at once on a PEER that names no flow", () => {
    const { client } = new Rig();
    const wrong: [Partial<PcpPeerRequest>, new (message: string) => Error, string][] = [
      [{ protocol: 0, internalPort: 0 }, RangeError, "protocol"],
      [{ internalPort: 0 }, RangeError, "internalPort"],
      [{ remote: { ...REMOTE, port: 0 } }, RangeError, "remote.port"],
      [{ remote: { address: "2001:db8::1", port: 1 } }, TypeError, "IPv4"],
      [{ preferFailure: true } as Partial<PcpPeerRequest>, TypeError, "preferFailure"],
    ];
    for (const [request, type, message] of wrong) {
      assertThrows(
        () => client.peer({ protocol: 6, internalPort: 8080, remote: REMOTE, ...request }, 0),
        type,
        message,
      );
    }
  });

  it("refuses a second mapping of the same key, and one after close()", () => {
    const rig = new Rig();
    const id = rig.client.map({ protocol: 6, internalPort: 8080 }, 0);
    assertThrows(() => rig.mapped(), TypeError, "8080");
    rig.client.abandon(id, 0);
    rig.mapped();
    rig.client.close(0);
    assertThrows(() => rig.mapped({ internalPort: 1 }), TypeError, "closed");
  });

  it("refuses sets of ports that overlap", () => {
    const rig = new Rig();
    rig.client.map({ protocol: 17, internalPort: 6000, portSet: { size: 16 } }, 0);
    const same = { protocol: 17, internalPort: 6015 };
    assertThrows(() => rig.client.map(same, 0), TypeError, "overlap");
    assertThrows(
      () => rig.client.map({ protocol: 17, internalPort: 5990, portSet: { size: 11 } }, 0),
      TypeError,
      "overlap",
    );
    rig.client.map({ ...same, protocol: 6 }, 0);
    rig.client.map({ ...same, internalPort: 6016 }, 0);
    rig.client.map({ ...same, thirdParty: "192.168.1.9" }, 0);
    assertEquals(rig.client.mappings().length, 4);
  });
});

describe("PcpClient.renew()", () => {
  it("renews at once, with the new lifetime", () => {
    const rig = new Rig();
    const id = rig.mapped();
    rig.now = 10_000;
    rig.client.renew(id, 900, rig.now);
    rig.drain();
    assertEquals(rig.last.lifetimeSeconds, 900);
    assertEquals(rig.last.suggestedPort, EXTERNAL.port);
    assertEquals(rig.client.mapping(id)!.state, "updating");
    rig.grant();
    assertEquals(rig.heard(), ["mapped", "renewed"]);
    assertEquals(rig.client.mapping(id)!.lifetimeSeconds, 900);
  });

  it("keeps 4 s between two renewals", () => {
    const rig = new Rig();
    const id = rig.mapped();
    rig.client.renew(id, undefined, rig.now);
    rig.drain();
    rig.grant();
    rig.client.renew(id, undefined, rig.now);
    assertEquals(rig.advance(3999), []);
    assertEquals(rig.advance(1).length, 1);
  });

  it("sends the same again until it is answered, at the RFC's pace but 4 s apart", () => {
    const firsts: number[] = [];
    for (let seed = 1; seed <= 20; seed++) {
      const rig = new Rig({}, seed);
      const id = rig.mapped();
      rig.client.renew(id, undefined, rig.now);
      const sent = rig.advance(2_000_000);
      const gaps = sent.slice(1).map(({ at }, i) => at - sent[i]!.at);
      claim(sent.length >= 9 && sent.every(({ data }) => equalBytes(data, sent[0]!.data)));
      claim(gaps[0]! >= 4000 && gaps[0]! <= 4400);
      firsts.push(gaps[0]!);
      gaps.slice(1).forEach((gap, i) => {
        const ratio = gap / Math.min(2 * gaps[i]!, 1_024_000);
        claim(ratio >= 0.9 && ratio <= 1.1);
      });
      rig.grant();
      assertEquals(rig.heard(), ["mapped", "renewed"]);
      assertEquals(rig.advance(3_600_000 - 1), []);
    }
    // What would be earlier waits for 4 s; what is later is not cut to that.
    claim(firsts.includes(4000) && firsts.some((gap) => gap > 4200));
  });

  it("starts N lifetimes anew", () => {
    const rig = new Rig();
    const id = rig.mapped({ mode: 2, lifetimeSeconds: 600 });
    rig.advance(100_000);
    rig.client.renew(id, undefined, rig.now);
    rig.drain();
    rig.grant();
    for (let i = 0; i < 2; i++) {
      assertEquals(rig.advance(rig.client.nextTimeout()! - rig.now).length, 1);
      rig.grant();
    }
    rig.advance(1_299_999 - rig.now);
    assertEquals(rig.heard(), ["mapped", "renewed", "renewed", "renewed"]);
    rig.advance(1000);
    assertEquals(rig.heard(), ["unmapped"]);
  });

  it("gives a mapping that was wanted once another lifetime", () => {
    const rig = new Rig();
    const id = rig.mapped({ mode: "once", lifetimeSeconds: 600 });
    rig.advance(100_000);
    rig.client.renew(id, 900, rig.now);
    rig.drain();
    rig.grant();
    assertEquals(rig.advance(899_999), []);
    rig.advance(1);
    assertEquals(rig.heard(), ["mapped", "renewed", "unmapped"]);
  });

  it("ignores a mapping that is gone and throws on an id that never was", () => {
    const rig = new Rig();
    const id = rig.mapped({ mode: "once", lifetimeSeconds: 600 });
    rig.advance(600_000);
    rig.client.renew(id, undefined, rig.now);
    rig.client.revoke(id, rig.now);
    rig.client.abandon(id, rig.now);
    assertThrows(() => rig.client.renew(id + 1, undefined, rig.now), RangeError, "2");
    assertThrows(() => rig.client.revoke(0, rig.now), RangeError, "0");
  });
});

describe("PcpClient constructor", () => {
  it("throws on options that are none", () => {
    const random = seededRandom(1);
    const good = { servers: [SERVER], localAddress: LOCAL, random };
    assertThrows(() => new PcpClient({ ...good, servers: [] }), TypeError, "servers");
    assertThrows(
      () => new PcpClient({ ...good, servers: [{ address: "x", port: 5351 }] }),
      TypeError,
      "x",
    );
    assertThrows(
      () => new PcpClient({ ...good, servers: [{ ...SERVER, port: 0 }] }),
      RangeError,
      "servers.port",
    );
    assertThrows(() => new PcpClient({ ...good, localAddress: "me" }), TypeError, "me");
    assertThrows(() => new PcpClient({ ...good, maxAttempts: -1 }), RangeError, "-1");
  });
});
