import { describe, it } from "node:test";
import { assertEquals, assertThrows } from "@std/assert";
import { encodeResponse, PCP_RESULT } from "../../../core/pcp/codec.ts";
import { EXTERNAL, forge, Rig, SERVER } from "./harness.ts";
import { claim } from "./support.ts";

const REMOTE = { address: "198.51.100.20", port: 443 };

describe("events", () => {
  it("are coalesced per mapping while nobody drains, and mapping comes first", () => {
    const rig = new Rig();
    const id = rig.client.map({ protocol: 6, internalPort: 8080 }, 0);
    rig.drain();
    const request = rig.last;
    // Updates that nobody asked for, made by hand.
    const feed = (data: Uint8Array) => rig.client.handleDatagram(data, SERVER, "client", rig.now);
    feed(forge(request));
    for (let port = 1; port <= 100; port++) {
      feed(forge(request, { external: { ...EXTERNAL, port } }));
    }
    rig.drain();
    assertEquals(rig.events.length, 1);
    const [event] = rig.events;
    claim(event?.type === "mapped" && event.id === id && event.mapping.external!.port === 100);
  });

  it("tell recovered only to who was told mapped", () => {
    for (const isToldMapped of [false, true]) {
      const rig = new Rig();
      rig.client.map({ protocol: 6, internalPort: 8080, lifetimeSeconds: 600 }, 0);
      rig.drain();
      rig.client.handleDatagram(rig.ask(), SERVER, "client", 0);
      if (isToldMapped) assertEquals(rig.heard(), ["mapped"]);
      // A lazy loop: it comes back when the lifetime is over.
      rig.now = 600_000;
      rig.client.handleTimeout(rig.now);
      assertEquals(rig.heard(), ["lost"]);
      rig.grant();
      assertEquals(rig.heard(), [isToldMapped ? "recovered" : "mapped"]);
    }
  });

  it("are told once for the three copies of a mapping update", () => {
    const rig = new Rig();
    rig.mapped();
    rig.scenario((gateway, now) => gateway.setExternalAddresses(["203.0.113.8"], now));
    const received = rig.client.stats.received;
    rig.advance(800);
    // Three announcements and three updates.
    assertEquals([received, rig.client.stats.received], [3, 7]);
    assertEquals(rig.heard(), ["mapped", "gateway-restarted", "moved"]);
  });
});

describe("an UNSUPP_VERSION answer", () => {
  const natPmp = new Uint8Array([0, 0x81, 0, 1, 0, 0, 0x0e, 0x10]);

  it("ends a first request at once, in NAT-PMP's form as in PCP's", () => {
    const bare = new Uint8Array([0, 0, 0, 1]);
    const odd = new Uint8Array([1, 0x81, 0, 1, 0]);
    for (const [answer, version] of [[natPmp, 0], [bare, 0], [odd, 1]] as const) {
      const rig = new Rig();
      const id = rig.client.map({ protocol: 6, internalPort: 8080, mode: "once" }, 0);
      rig.drain();
      claim(rig.receive(answer));
      const failure = { kind: "unsupported-version", version } as const;
      assertEquals(rig.events, [{ type: "failed", id, failure }]);
      claim(rig.client.isIdle === true);
    }
  });

  it("with opcode 0 answers NAT-PMP's question for the address, not a MAP", () => {
    const rig = new Rig();
    rig.client.map({ protocol: 6, internalPort: 8080 }, 0);
    rig.drain();
    claim(!rig.receive(new Uint8Array([0, 0x80, 0, 1, 0, 0, 0x0e, 0x10])));
    assertEquals(rig.heard(), []);
    rig.client.probe(0);
    claim(rig.receive(new Uint8Array([0, 0x80, 0, 1, 0, 0, 0x0e, 0x10])), "an ANNOUNCE it ends");
    assertEquals(rig.heard(), ["announce-failed"]);
  });

  it("in version 2 and opcode 0 answers a NAT-PMP request, not a MAP (D-02)", () => {
    const rig = new Rig();
    rig.client.map({ protocol: 6, internalPort: 8080 }, 0);
    rig.drain();
    const answer = encodeResponse({
      kind: "unsupported-version",
      version: 2,
      opcode: 0,
      lifetimeSeconds: 1800,
      epochSeconds: 9,
    });
    claim(!rig.receive(answer));
    assertEquals(rig.heard(), []);
  });

  it("does nothing where nothing was asked", () => {
    const rig = new Rig();
    rig.mapped();
    claim(!rig.receive(natPmp));
    assertEquals(rig.heard(), ["mapped"]);
  });

  it("ends a running mapping when it answers its renewal", () => {
    const rig = new Rig();
    rig.mapped({ lifetimeSeconds: 600 });
    rig.advance(400_000);
    rig.receive(natPmp);
    assertEquals(rig.heard(), ["mapped", "lost"]);
  });
});

describe("decisions where the texts leave a hole", () => {
  it("D-06: what an error copies of the request is not taken for assigned", () => {
    const rig = new Rig();
    const id = rig.client.map(
      { protocol: 6, internalPort: 8080, suggestedExternal: { address: "203.0.113.9", port: 80 } },
      0,
    );
    rig.drain();
    rig.refuse(PCP_RESULT.NOT_AUTHORIZED, 1800);
    assertEquals(rig.client.mapping(id)!.external, undefined);
  });

  it("D-07: a success of lifetime 0 that answers no deletion is the mapping's end", () => {
    const rig = new Rig();
    const id = rig.mapped();
    rig.grant({ lifetimeSeconds: 0 });
    assertEquals(rig.events.at(-1), { type: "lost", id, failure: { kind: "expired" } });
    // It is asked for again; a server that goes on like that is left alone for a while.
    assertEquals(rig.sent.length, 2);
    rig.grant({ lifetimeSeconds: 0 });
    const failure = { kind: "protocol-violation", clause: "D-07" } as const;
    assertEquals(rig.events.at(-1), { type: "failed", id, failure, retryAt: 30_000 });
    // Once more, while nothing is asked: no second failure, and no longer wait.
    rig.advance(10_000);
    const told = rig.events.length;
    claim(!rig.grant({ lifetimeSeconds: 0 }));
    assertEquals([rig.events.length, rig.client.stats.dropped.stale], [told, 1]);
    assertEquals(rig.advance(19_999), []);
    assertEquals(rig.advance(1).length, 1);
  });

  it("D-07: lifetime 2³²−1 is a static mapping, renewed within a day", () => {
    const rig = new Rig();
    const id = rig.mapped({}, { lifetimeSeconds: 0xffff_ffff });
    assertEquals(rig.client.mapping(id)!.lifetimeSeconds, 0xffff_ffff);
    assertEquals(rig.advance(86_400_000).length > 0, true);
  });

  it("D-08: a success without port or address is a failure and is not published", () => {
    const nowhere = [
      { address: "0.0.0.0", port: 80 },
      { address: "::", port: 80 },
      { address: "203.0.113.7", port: 0 },
    ];
    for (const external of nowhere) {
      const rig = new Rig();
      const id = rig.mapped({}, { external });
      const failure = { kind: "protocol-violation", clause: "D-08" } as const;
      assertEquals(rig.events, [{ type: "failed", id, failure, retryAt: 30_000 }]);
      assertEquals(rig.client.mapping(id)!.external, undefined);
      const running = new Rig();
      const other = running.mapped();
      claim(!running.grant({ external }));
      assertEquals(running.heard(), ["mapped"]);
      assertEquals(running.client.mapping(other)!.external, EXTERNAL);
    }
  });

  it("D-14: PREFER_FAILURE is not for outbound mappings", () => {
    const { client } = new Rig();
    const peer = { protocol: 6, internalPort: 1, remote: REMOTE, preferFailure: true };
    assertThrows(() => client.peer(peer, 0), TypeError, "preferFailure");
  });

  it("D-17: a lost first packet costs 250 ms, a lost renewal the RFC's pace", () => {
    const rig = new Rig();
    rig.client.map({ protocol: 6, internalPort: 8080 }, 0);
    assertEquals(rig.advance(250).map(({ at }) => at), [0, 250]);
    rig.grant();
    rig.now = 60_000;
    rig.announce(0);
    const [first, second] = rig.advance(10_000);
    claim(second!.at - first!.at >= 2700);
  });
});

describe("answers out of the ordinary", () => {
  it("a refused renewal leaves the mapping running, and is made again in its time", () => {
    const { NETWORK_FAILURE, USER_EX_QUOTA, NOT_AUTHORIZED } = PCP_RESULT;
    for (const code of [NETWORK_FAILURE, USER_EX_QUOTA, NOT_AUTHORIZED]) {
      const rig = new Rig();
      const id = rig.mapped({ lifetimeSeconds: 600 });
      rig.advance(400_000);
      rig.refuse(code, 30);
      claim(!rig.refuse(code, 30), "a copy");
      assertEquals(rig.client.mapping(id)!.state, "running");
      const [again] = rig.advance(100_000);
      claim(again!.at >= 450_000 && again!.at <= 487_500);
      rig.grant();
      assertEquals(rig.heard(), ["mapped", "renewal-failed", "renewed"]);
    }
  });

  it("a refusal after a success takes nothing away, and is told once", () => {
    const rig = new Rig();
    const id = rig.mapped();
    rig.refuse(PCP_RESULT.NOT_AUTHORIZED, 60);
    rig.refuse(PCP_RESULT.NOT_AUTHORIZED, 60);
    assertEquals(rig.heard(), ["mapped", "renewal-failed"]);
    assertEquals(rig.client.mapping(id)!.state, "running");
  });

  it("a deletion is sent for what was refused a renewal and runs still", () => {
    const rig = new Rig();
    const id = rig.mapped({ lifetimeSeconds: 600 });
    rig.advance(400_000);
    rig.refuse(PCP_RESULT.NOT_AUTHORIZED, 1800);
    rig.client.revoke(id, rig.now);
    assertEquals(rig.drain().length, 1);
    assertEquals(rig.last.lifetimeSeconds, 0);
    rig.grant();
    assertEquals(rig.events.at(-1), { type: "unmapped", id, reason: "revoked" });
  });

  it("what the restarted server refuses is lost at once", () => {
    const rig = new Rig();
    const id = rig.mapped();
    rig.now = 60_000;
    rig.announce(0);
    rig.advance(5000);
    rig.refuse(PCP_RESULT.NOT_AUTHORIZED, 60);
    assertEquals(rig.heard(), ["mapped", "gateway-restarted", "lost"]);
    assertEquals(rig.client.mapping(id)!.state, "error");
    assertEquals(rig.advance(60_000).length, 1);
    rig.grant();
    assertEquals(rig.heard(), ["recovered"]);
  });

  it("a mapping that is not kept alive ends when it is lost", () => {
    const rig = new Rig();
    const id = rig.mapped({ mode: 3, lifetimeSeconds: 600 });
    rig.advance(600_000);
    const failure = { kind: "expired" } as const;
    assertEquals(rig.events.at(-1), { type: "unmapped", id, reason: "expired", failure });
    assertEquals(rig.client.mapping(id), undefined);
  });

  it("what the restarted server refuses is lost, also where the refusal is what tells of it", () => {
    const rig = new Rig();
    rig.mapped();
    rig.advance(4_500_000);
    rig.scenario((gateway, now) => {
      gateway.forget(now);
      gateway.setEpoch(3, now);
    });
    rig.refuse(8, 30);
    assertEquals(rig.heard(), ["mapped", "gateway-restarted", "lost"]);
  });

  it("a restart recreates what is not renewed for the rest of its time", () => {
    const rig = new Rig();
    rig.mapped({ mode: "once", lifetimeSeconds: 600 });
    rig.now = 100_000;
    rig.announce(0);
    rig.advance(5000);
    claim(rig.last.lifetimeSeconds >= 495 && rig.last.lifetimeSeconds <= 500);
  });

  it("an announcement wakes a request that would wait for long", () => {
    const rig = new Rig();
    rig.client.map({ protocol: 6, internalPort: 8080 }, 0);
    rig.advance(3_000_000);
    rig.announce(0);
    assertEquals(rig.advance(5000).length >= 1, true);
    rig.grant();
    assertEquals(rig.heard(), ["mapped"]);
  });

  it("an announcement wakes what was given up for silence", () => {
    const rig = new Rig({ maxAttempts: 2 });
    const id = rig.client.map({ protocol: 6, internalPort: 8080 }, 0);
    rig.advance(60_000);
    assertEquals(rig.heard(), ["failed"]);
    claim(rig.client.mapping(id)?.state === "error");
    rig.announce(0);
    assertEquals(rig.advance(5000).length >= 1, true);
  });
});
