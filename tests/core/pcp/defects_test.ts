// Defects seen in other implementations, told in words; each must not happen here.
import { describe, it } from "node:test";
import { assertEquals } from "@std/assert";
import { PCP_RESULT } from "../../../core/pcp/codec.ts";
import { EXTERNAL, Rig, SERVER } from "./harness.ts";
import { claim } from "./support.ts";

const TCP = { protocol: 6, internalPort: 8080 } as const;

describe("defects of others", () => {
  it("renewals that never fire: ten renewal periods are ten renewals", () => {
    const rig = new Rig();
    rig.mapped({ lifetimeSeconds: 600 });
    for (let period = 1; period <= 10; period++) {
      rig.advance(rig.client.nextTimeout()! - rig.now);
      claim(rig.grant());
      assertEquals(rig.sent.length, 1 + period);
    }
  });

  it("renewal timers that double with every cycle: eight cycles are eight requests", () => {
    const rig = new Rig();
    rig.mapped({ lifetimeSeconds: 600 });
    const before = rig.sent.length;
    for (let cycle = 0; cycle < 8; cycle++) {
      rig.advance(400_000);
      rig.grant();
    }
    assertEquals(rig.sent.length - before, 8);
  });

  it("two mappings on one port refreshing each other: the number of requests stays linear", () => {
    const rig = new Rig();
    rig.mapped({ lifetimeSeconds: 600 });
    rig.mapped({ protocol: 17, lifetimeSeconds: 600 });
    for (let cycle = 0; cycle < 6; cycle++) {
      for (const sent of rig.advance(400_000)) rig.grant({}, sent);
    }
    assertEquals(rig.sent.length, 2 + 2 * 6);
  });

  it("one lost answer that fails the request, or every later one", () => {
    const rig = new Rig();
    rig.client.map(TCP, 0);
    rig.drain();
    const again = rig.advance(300);
    assertEquals(again.length, 1);
    rig.grant();
    rig.mapped({ internalPort: 8081 });
    assertEquals(rig.heard(), ["mapped", "mapped"]);
  });

  it("a request sent once with a deadline of 250 ms", () => {
    const rig = new Rig();
    rig.client.map(TCP, 0);
    const sent = rig.advance(3600_000);
    claim(sent.length > 10);
    rig.grant();
    assertEquals(rig.heard(), ["mapped"]);
  });

  it("a lifetime in milliseconds written where seconds belong", () => {
    const rig = new Rig();
    rig.client.map({ ...TCP, lifetimeSeconds: 3600 }, 0);
    rig.drain();
    assertEquals(rig.last.lifetimeSeconds, 3600);
  });

  it("a lifetime asked for by default that is not the one documented", () => {
    const rig = new Rig();
    rig.client.map(TCP, 0);
    rig.drain();
    assertEquals(rig.last.lifetimeSeconds, 7200);
  });

  it("a wished external port that is not sent", () => {
    const rig = new Rig();
    rig.client.map({ ...TCP, suggestedExternal: { port: 5000 } }, 0);
    rig.drain();
    assertEquals(rig.last.suggestedPort, 5000);
  });

  it("the wished external port reported in place of the assigned one", () => {
    const rig = new Rig();
    rig.gateway.addStatic("tcp", 5000, { address: "192.168.1.77", port: 5000 }, 0);
    const id = rig.mapped({ suggestedExternal: { port: 5000 } });
    assertEquals(rig.client.mapping(id)!.external, EXTERNAL);
  });

  it("deleting while renewals run: a handful of packets, not hundreds", () => {
    const rig = new Rig();
    const id = rig.mapped({ lifetimeSeconds: 600 });
    rig.advance(400_000);
    rig.client.revoke(id, rig.now);
    const sent = rig.advance(1_000_000);
    assertEquals(sent.length, 4);
    claim(sent.every(({ request }) => (request as typeof rig.last).lifetimeSeconds === 0));
  });

  it("a deletion that sends nothing, or lifetime 1", () => {
    const rig = new Rig();
    rig.client.revoke(rig.mapped(), 0);
    const [only] = rig.drain();
    claim(only!.request.kind === "map" && only!.request.lifetimeSeconds === 0);
  });

  it("a renewal by deleting and making anew: a running mapping is never deleted by itself", () => {
    const rig = new Rig();
    rig.mapped({ lifetimeSeconds: 600 });
    for (let cycle = 0; cycle < 20; cycle++) {
      rig.advance(400_000);
      rig.grant();
    }
    assertEquals(rig.client.stats.sent.delete, 0);
  });

  it("a new nonce for renewing and deleting, which leaves a mapping nobody can delete", () => {
    const rig = new Rig();
    const id = rig.mapped({ lifetimeSeconds: 600 });
    const { nonce } = rig.last;
    rig.advance(400_000);
    assertEquals(rig.last.nonce, nonce);
    rig.grant();
    rig.announce(0);
    rig.advance(5000);
    assertEquals(rig.last.nonce, nonce);
    rig.client.revoke(id, rig.now);
    rig.drain();
    assertEquals(rig.last.nonce, nonce);
  });

  it("a nonce that cannot be kept over a restart", () => {
    const rig = new Rig();
    rig.mapped();
    const state = JSON.parse(JSON.stringify(rig.client.exportState(0)));
    const next = new Rig({ state }, 2);
    next.advance(0);
    assertEquals(next.last.nonce, rig.last.nonce);
  });

  it("the asked lifetime scheduled by, where less was granted", () => {
    const rig = new Rig({ gateway: { maxLifetimeSeconds: 60 } });
    const id = rig.mapped({ lifetimeSeconds: 7200 });
    assertEquals(rig.client.mapping(id)!.lifetimeSeconds, 60);
    const [renewal] = rig.advance(60_000);
    claim(renewal!.at >= 30_000 && renewal!.at <= 37_500);
  });

  it("renewing only when the mapping has expired", () => {
    const rig = new Rig();
    rig.mapped({ lifetimeSeconds: 120 });
    claim(rig.advance(75_000).length === 1);
    rig.grant();
    assertEquals(rig.heard(), ["mapped", "renewed"]);
  });

  it("noisy repetition of a refused request", () => {
    for (const code of [PCP_RESULT.NOT_AUTHORIZED, PCP_RESULT.ADDRESS_MISMATCH]) {
      const rig = new Rig();
      rig.client.map(TCP, 0);
      rig.drain();
      rig.refuse(code, 1800);
      assertEquals(rig.advance(1_799_000), []);
    }
  });

  it("ignoring the epoch: a restart is noticed in any answer", () => {
    const rig = new Rig();
    rig.mapped({ internalPort: 1 });
    rig.now = 60_000;
    rig.gateway.setEpoch(4, rig.now);
    rig.mapped({ internalPort: 2 });
    claim(rig.heard().includes("gateway-restarted"));
    const ports = rig.advance(5000).map(({ request }) => (request as typeof rig.last).internalPort);
    claim(ports.length > 0 && ports.every((port) => port === 1));
  });

  it("any datagram with the right opcode taken, whoever sent it", () => {
    const rig = new Rig();
    rig.client.map(TCP, 0);
    rig.drain();
    claim(!rig.receive(rig.ask(), { address: "192.168.1.7", port: 5351 }));
    assertEquals(rig.heard(), []);
  });

  it("IPv6 renewals refused for want of resources: the pinhole is kept to its end, then made anew", () => {
    const rig = new Rig({ localAddress: "2001:db8::100", gateway: { profile: "opnsense" } });
    rig.mapped({ internalPort: 22, lifetimeSeconds: 600 });
    rig.advance(400_000);
    rig.grant();
    assertEquals([rig.heard(), rig.client.stats.refused], [["mapped", "renewal-failed"], 1]);
    rig.advance(200_000);
    assertEquals(rig.heard(), ["lost"]);
    rig.advance(10_000);
    rig.grant();
    assertEquals(rig.heard(), ["recovered"]);
  });

  it("an ICMP refusal that nobody listens to", () => {
    const rig = new Rig();
    rig.client.map({ ...TCP, mode: "once" }, 0);
    rig.drain();
    rig.client.handleUnreachable(SERVER, "client", 2);
    assertEquals(rig.heard(), ["failed"]);
  });
});
