import { describe, it } from "node:test";
import { assertEquals, assertThrows } from "@std/assert";
import { PcpClient } from "../../../core/pcp/client.ts";
import { encodeResponse, PCP_RESULT } from "../../../core/pcp/codec.ts";
import type { PcpMapRequest, PcpPeerRequest } from "../../../core/pcp/types.ts";
import { parseCidr } from "../../../core/cidr.ts";
import { EXTERNAL, LOCAL, Rig, SERVER, success } from "./harness.ts";
import { claim } from "./support.ts";
import { seededRandom } from "../../../core/random.ts";

const REMOTE = { address: "198.51.100.20", port: 443 };
const SECOND = { address: "192.168.1.2", port: 5351 };

describe("PcpClient.map()", () => {
  it("is mapped in one round trip", () => {
    const rig = new Rig();
    const id = rig.client.map({ protocol: 6, internalPort: 8080 }, 0);
    const [first] = rig.drain();
    assertEquals(first!.to, SERVER);
    assertEquals(rig.client.mapping(id)!.state, "starting");

    rig.now = 5;
    rig.receive(success(first!.request, { lifetimeSeconds: 3600 }));

    assertEquals(rig.events, [{ type: "mapped", id, mapping: rig.client.mapping(id)! }]);
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
    for (const { request } of requests.reverse()) claim(rig.receive(success(request)));
    assertEquals(rig.heard(), ["mapped", "mapped", "mapped", "mapped", "mapped"]);
  });

  it('asks with mode "once" for one lifetime and tells its end', () => {
    const rig = new Rig();
    const id = rig.mapped({ mode: "once" }, { lifetimeSeconds: 600 });
    assertEquals(rig.advance(599_999), []);
    assertEquals(rig.heard(), ["mapped"]);
    rig.advance(1);
    assertEquals(rig.events, [{ type: "unmapped", id, reason: "expired" }]);
    assertEquals(rig.client.mapping(id), undefined);
    claim(rig.client.isIdle === true);
  });

  it("holds through N lifetimes", () => {
    const rig = new Rig();
    rig.mapped({ mode: 3 }, { lifetimeSeconds: 600 });
    for (let i = 0; i < 2; i++) {
      rig.advance(400_000);
      rig.grant({ lifetimeSeconds: 600, epochSeconds: 1000 + rig.now / 1000 });
    }
    assertEquals(rig.heard(), ["mapped", "renewed", "renewed"]);
    assertEquals(rig.advance(599_000).length, 0);
    rig.advance(601_000);
    assertEquals(rig.heard(), ["unmapped"]);
  });

  it("tells a new external endpoint as moved, the same as renewed", () => {
    const rig = new Rig();
    rig.mapped({}, { lifetimeSeconds: 600 });
    rig.advance(400_000);
    rig.grant({ lifetimeSeconds: 600, epochSeconds: 1400 });
    rig.advance(400_000);
    rig.grant({
      lifetimeSeconds: 600,
      epochSeconds: 1800,
      external: { ...EXTERNAL, port: 40124 },
    });
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
      [{ description: "x".repeat(1016) }, RangeError, "room"],
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
        RangeError,
        "1100",
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
    rig.grant({ epochSeconds: 1010 });
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

  it("does not count against N lifetimes", () => {
    const rig = new Rig();
    const id = rig.mapped({ mode: 2 }, { lifetimeSeconds: 600 });
    rig.client.renew(id, undefined, rig.now);
    rig.drain();
    rig.grant({ lifetimeSeconds: 600 });
    assertEquals(rig.advance(400_000).length, 1);
  });

  it("ignores a mapping that is gone and throws on an id that never was", () => {
    const rig = new Rig();
    const id = rig.mapped({ mode: "once" }, { lifetimeSeconds: 600 });
    rig.advance(600_000);
    rig.client.renew(id, undefined, rig.now);
    rig.client.revoke(id, rig.now);
    rig.client.abandon(id, rig.now);
    assertThrows(() => rig.client.renew(id + 1, undefined, rig.now), RangeError, "2");
    assertThrows(() => rig.client.revoke(0, rig.now), RangeError, "0");
  });
});

describe("PcpClient.revoke()", () => {
  it("deletes, repeats the deletion a few times, and tells when it is answered", () => {
    const rig = new Rig();
    const id = rig.mapped();
    rig.client.revoke(id, rig.now);
    rig.drain();
    assertEquals(rig.client.mapping(id)!.state, "revoked");
    rig.advance(800);
    assertEquals(rig.sent.length, 4);
    assertEquals(rig.sent[3]!.data, rig.sent[1]!.data);
    rig.grant({ lifetimeSeconds: 0 });
    assertEquals(rig.heard(), ["mapped", "unmapped"]);
    claim(rig.client.isIdle === true);
  });

  it("gives up telling a silent server after four attempts", () => {
    const rig = new Rig();
    const id = rig.mapped();
    rig.client.revoke(id, rig.now);
    assertEquals(rig.advance(60_000).length + 0, 4);
    assertEquals(rig.heard(), ["mapped", "unmapped"]);
    assertEquals(rig.client.nextTimeout(), undefined);
  });

  it("is done at the natural end of the mapping", () => {
    const rig = new Rig({ fastStart: false });
    const id = rig.mapped({}, { lifetimeSeconds: 120 });
    rig.now = 119_000;
    rig.client.revoke(id, rig.now);
    assertEquals(rig.advance(999).length, 1);
    rig.advance(1);
    assertEquals(rig.heard(), ["mapped", "unmapped"]);
    assertEquals(rig.advance(60_000), []);
  });

  it("sends nothing for what was refused, and the deletion alone for what was not sent yet", () => {
    const rig = new Rig();
    const id = rig.client.map({ protocol: 6, internalPort: 8080 }, 0);
    rig.drain();
    rig.refuse(PCP_RESULT.NOT_AUTHORIZED, 1800);
    rig.client.revoke(id, rig.now);
    assertEquals(rig.drain(), []);
    const other = rig.client.map({ protocol: 6, internalPort: 8081 }, 0);
    rig.client.revoke(other, rig.now);
    assertEquals(
      rig.drain().map(({ request }) => (request as { lifetimeSeconds: number }).lifetimeSeconds),
      [0],
    );
  });

  it("takes a late grant for no answer to the deletion", () => {
    const rig = new Rig();
    const id = rig.client.map({ protocol: 6, internalPort: 8080 }, 0);
    const [request] = rig.drain();
    rig.client.revoke(id, rig.now);
    rig.drain();
    claim(!rig.receive(success(request!.request)));
    assertEquals(rig.client.stats.dropped.stale, 1);
    assertEquals(rig.client.mapping(id)!.state, "revoked");
  });

  it("lets the same port be mapped again once the deletion is through", () => {
    const rig = new Rig();
    const first = rig.mapped();
    rig.client.revoke(first, rig.now);
    const second = rig.client.map({ protocol: 6, internalPort: 8080 }, rig.now);
    assertEquals(rig.drain().length, 1);
    assertEquals(rig.client.mapping(second)!.state, "requested");
    rig.grant({ lifetimeSeconds: 0 });
    assertEquals(rig.last.lifetimeSeconds, 7200);
    rig.grant();
    assertEquals(rig.heard(), ["mapped", "unmapped", "mapped"]);
  });

  it('takes NO_RESOURCES for "there is nothing", and leaves the server alone meanwhile', () => {
    const rig = new Rig();
    const id = rig.mapped();
    rig.client.revoke(id, rig.now);
    rig.drain();
    rig.refuse(PCP_RESULT.NO_RESOURCES, 30);
    assertEquals(rig.heard(), ["mapped", "unmapped"]);
  });
});

describe("PcpClient.abandon()", () => {
  it("forgets without a packet or an event", () => {
    const rig = new Rig();
    const id = rig.client.map({ protocol: 6, internalPort: 8080 }, 0);
    rig.client.abandon(id, 0);
    assertEquals(rig.drain(), []);
    assertEquals(rig.advance(100_000), []);
    assertEquals(rig.heard(), []);
  });
});

describe("PcpClient.announce()", () => {
  it("tells the server's epoch", () => {
    const rig = new Rig();
    rig.client.announce(0);
    rig.client.announce(0);
    assertEquals(rig.drain().length, 1);
    rig.announce(77);
    assertEquals(rig.events, [{ type: "announced", epochSeconds: 77 }]);
    assertEquals(rig.advance(100_000), []);
  });

  it("ends after four attempts without an answer, at each of the addresses", () => {
    for (const servers of [[SERVER], [SERVER, SECOND]]) {
      const rig = new Rig({ servers });
      rig.client.announce(0);
      rig.advance(200_000);
      assertEquals(rig.sent.length, 4 * servers.length);
      assertEquals(rig.events, [{ type: "announce-failed", failure: { kind: "no-answer" } }]);
    }
  });

  it("tells a refusal, a version and an ICMP error as failures", () => {
    const rig = new Rig();
    rig.client.announce(0);
    rig.drain();
    rig.refuse(PCP_RESULT.UNSUPP_OPCODE, 1800);
    rig.client.announce(0);
    rig.drain();
    rig.receive(new Uint8Array([0, 0x80, 0, 1, 0, 0, 0, 9]));
    rig.client.announce(0);
    rig.drain();
    rig.client.handleUnreachable(SERVER, 0);
    rig.drain();
    assertEquals(
      rig.events.map((event) => event.type === "announce-failed" && event.failure.kind),
      ["refused", "unsupported-version", "unreachable"],
    );
  });
});

describe("PcpClient.close()", () => {
  it("revokes everything and comes to rest", () => {
    const rig = new Rig();
    rig.mapped();
    rig.mapped({ internalPort: 8081 });
    rig.client.peer({ protocol: 6, internalPort: 8080, remote: REMOTE }, 0);
    rig.client.announce(0);
    rig.drain();
    rig.heard();
    rig.client.close(0);
    const deletions = rig.drain();
    assertEquals(deletions.length, 2);
    for (const { request } of deletions) rig.receive(success(request, { lifetimeSeconds: 0 }));
    assertEquals(rig.heard(), ["unmapped", "unmapped", "unmapped"]);
    claim(rig.client.isIdle === true);
    assertEquals(rig.client.nextTimeout(), undefined);
  });
});

describe("several addresses of one server", () => {
  const servers = [SERVER, SECOND];

  it("asks each four times with the same bytes, then waits 15 minutes", () => {
    const rig = new Rig({ servers });
    const id = rig.client.map({ protocol: 6, internalPort: 8080 }, 0);
    const sent = rig.advance(60_000);
    assertEquals(sent.map(({ to }) => to.address), [
      ...new Array(4).fill(SERVER.address),
      ...new Array(4).fill(SECOND.address),
    ]);
    for (const { data } of sent) assertEquals(data, sent[0]!.data);
    assertEquals(rig.events, [{ type: "failed", id, failure: { kind: "no-answer" } }]);
    const before = sent.at(-1)!.at;
    const again = rig.advance(900_000);
    assertEquals(again[0]!.to, SERVER);
    claim(again[0]!.at - before >= 900_000);
    assertEquals(rig.client.mapping(id)!.server, SERVER);
  });

  it("goes to the next at once on an ICMP error, and stays where it was answered", () => {
    const rig = new Rig({ servers });
    rig.client.map({ protocol: 6, internalPort: 8080 }, 0);
    rig.drain();
    rig.client.handleUnreachable(SERVER, 0);
    const [second] = rig.drain();
    assertEquals(second!.to, SECOND);
    claim(!rig.receive(success(second!.request), SERVER));
    assertEquals(rig.client.stats.dropped["other-address"], 1);
    rig.receive(success(second!.request, { lifetimeSeconds: 600 }), SECOND);
    assertEquals(rig.heard(), ["server-changed", "mapped"]);
    assertEquals(rig.advance(400_000)[0]!.to, SECOND);
  });

  it("tells that nothing is there where ICMP says so of all", () => {
    const rig = new Rig({ servers });
    const id = rig.client.map({ protocol: 6, internalPort: 8080, mode: "once" }, 0);
    rig.drain();
    rig.client.handleUnreachable(SERVER, 0);
    rig.drain();
    rig.client.handleUnreachable(SECOND, 0);
    rig.drain();
    assertEquals(rig.events, [{ type: "failed", id, failure: { kind: "unreachable" } }]);
    claim(rig.client.isIdle === true);
  });

  it("leaves an address whose renewals stay without an answer", () => {
    const rig = new Rig({ servers });
    rig.mapped({}, { lifetimeSeconds: 3600 });
    const sent = rig.advance(3_599_000);
    assertEquals(sent.slice(0, 5).map(({ to }) => to.address), [
      ...new Array(4).fill(SERVER.address),
      SECOND.address,
    ]);
    assertEquals(rig.heard(), ["mapped"]);
  });
});

describe("handleUnreachable()", () => {
  it("fails a first request at once; one kept alive goes on at the RFC's pace", () => {
    const rig = new Rig();
    const once = rig.client.map({ protocol: 6, internalPort: 1, mode: "once" }, 0);
    const kept = rig.client.map({ protocol: 6, internalPort: 2 }, 0);
    rig.drain();
    rig.client.handleUnreachable(SERVER, 1);
    rig.drain();
    const failure = { kind: "unreachable" } as const;
    assertEquals(rig.events.splice(0), [
      { type: "failed", id: once, failure },
      { type: "failed", id: kept, failure },
    ]);
    assertEquals(rig.client.mapping(kept)!.state, "error");
    assertEquals(rig.advance(2600), []);
    assertEquals(rig.advance(800).length, 1);
    rig.client.handleUnreachable(SERVER, rig.now);
    assertEquals(rig.heard(), []);
    rig.grant();
    assertEquals(rig.heard(), ["mapped"]);
  });

  it("leaves a running mapping alone, and other addresses", () => {
    const rig = new Rig();
    const id = rig.mapped({}, { lifetimeSeconds: 600 });
    rig.advance(400_000);
    rig.client.handleUnreachable(SERVER, rig.now);
    rig.client.handleUnreachable(SECOND, rig.now);
    assertEquals(rig.heard(), ["mapped"]);
    assertEquals(rig.client.mapping(id)!.state, "updating");
  });
});

describe("networkChanged()", () => {
  it("asks for everything from the new address at once, whatever was refused before", () => {
    const rig = new Rig();
    const held = rig.client.map({ protocol: 17, internalPort: 9 }, 0);
    rig.drain();
    rig.refuse(PCP_RESULT.ADDRESS_MISMATCH, 1800);
    const id = rig.mapped();
    rig.client.networkChanged("10.0.0.9", rig.now);
    const sent = rig.drain();
    assertEquals(sent.length, 2);
    for (const { request } of sent) {
      claim(request.clientAddress === "10.0.0.9");
      rig.receive(success(request, { epochSeconds: 5 }));
    }
    assertEquals(rig.heard(), ["failed", "mapped", "mapped", "renewed"]);
    assertEquals(rig.client.mapping(held)!.internal.address, "10.0.0.9");
    assertEquals(rig.client.mapping(id)!.state, "running");
    assertThrows(() => rig.client.networkChanged("nowhere", 0), TypeError, "nowhere");
  });

  it("gives up deletions, which the old address alone could ask for", () => {
    const rig = new Rig();
    const id = rig.mapped();
    rig.client.revoke(id, rig.now);
    rig.drain();
    rig.client.networkChanged("10.0.0.9", rig.now);
    assertEquals(rig.drain(), []);
    assertEquals(rig.heard(), ["mapped", "unmapped"]);
  });
});

describe("exportState()", () => {
  it("lets another client adopt the mappings, through JSON", () => {
    const rig = new Rig();
    rig.mapped({
      filters: [{ prefix: parseCidr("198.51.100.0/24")!, port: 53 }],
      description: "tell",
      lifetimeSeconds: 3600,
    });
    const first = rig.last;
    rig.client.peer({ protocol: 17, internalPort: 5, remote: REMOTE, mode: 2 }, 0);
    rig.drain();
    rig.now = 60_000;
    const state = JSON.parse(JSON.stringify(rig.client.exportState(rig.now)));

    const next = new Rig({ state }, 99, 1_000_000);
    assertEquals(next.client.mappings().map(({ state }) => state), ["requested", "requested"]);
    assertEquals(next.client.mappings()[0]!.external, undefined);
    const [map, peer] = next.advance(0);
    claim(map!.request.kind === "map" && peer!.request.kind === "peer");
    assertEquals(map!.request.nonce, first.nonce);
    assertEquals(map!.request.suggestedPort, EXTERNAL.port);
    assertEquals(map!.request.suggestedAddress, EXTERNAL.address);
    assertEquals(map!.request.options.map(({ type }) => type), ["filter", "filter", "description"]);
    next.receive(success(map!.request));
    assertEquals(next.heard(), ["mapped"]);
  });

  it("gives what is left of a mapping that is not renewed", () => {
    const rig = new Rig();
    rig.mapped({ mode: "once" }, { lifetimeSeconds: 600 });
    rig.now = 200_000;
    const [saved] = rig.client.exportState(rig.now).mappings;
    assertEquals(saved!.lifetimeSeconds, 400);
    assertEquals(saved!.remainingSeconds, 400);
  });

  it("lets an adopted mapping be deleted without asking for it first", () => {
    const rig = new Rig();
    rig.mapped();
    const next = new Rig({ state: rig.client.exportState(0) });
    next.client.revoke(1, 0);
    const [only] = next.drain();
    claim(only!.request.kind === "map" && only!.request.lifetimeSeconds === 0);
    assertEquals(only!.request.nonce, rig.last.nonce);
    next.grant({ lifetimeSeconds: 0 });
    assertEquals(next.heard(), ["unmapped"]);
  });

  it("leaves out what is being deleted", () => {
    const rig = new Rig();
    rig.client.revoke(rig.mapped(), 0);
    assertEquals(rig.client.exportState(0).mappings, []);
  });
});

describe("DESCRIPTION and PORT_SET", () => {
  it("tells the description as the server stored it, and none where it stored none", () => {
    const rig = new Rig();
    const id = rig.mapped({ description: "a long tale" }, {
      options: [{ type: "description", text: "a long" }],
      lifetimeSeconds: 600,
    });
    assertEquals(rig.client.mapping(id)!.description, "a long");
    rig.advance(400_000);
    rig.grant({ epochSeconds: 1400 });
    assertEquals(rig.client.mapping(id)!.description, undefined);
  });

  it("names the set in refreshes and deletions, and tells what was mapped of it", () => {
    const rig = new Rig();
    const set = { type: "port-set", size: 16, firstInternalPort: 6000, parity: true } as const;
    const id = rig.mapped(
      { protocol: 17, internalPort: 6000, portSet: { size: 16, parity: true } },
      { options: [{ ...set, size: 8 }], lifetimeSeconds: 600 },
    );
    assertEquals(rig.last.options, [set]);
    assertEquals(rig.client.mapping(id)!.portSet, {
      size: 8,
      firstInternalPort: 6000,
      parity: true,
    });
    rig.advance(400_000);
    assertEquals(rig.last.options, [set]);
    rig.grant({ epochSeconds: 1400, lifetimeSeconds: 600 });
    assertEquals(rig.client.mapping(id)!.portSet, undefined);
    rig.client.revoke(id, rig.now);
    rig.drain();
    assertEquals(rig.last.options, [set]);
  });

  it("asks again without what needs padding where the server cannot read it", () => {
    const rig = new Rig();
    rig.client.map({ protocol: 6, internalPort: 8080, description: "Minecraft" }, 0);
    rig.drain();
    rig.refuse(PCP_RESULT.MALFORMED_OPTION, 1800);
    assertEquals(rig.sent.length, 2);
    assertEquals(rig.last.options, []);
    rig.grant();
    assertEquals(rig.heard(), ["mapped"]);
  });

  it("takes MALFORMED_OPTION for a refusal where nothing needs padding", () => {
    const rig = new Rig();
    rig.client.map({ protocol: 6, internalPort: 8080, description: "Mine" }, 0);
    rig.drain();
    rig.refuse(PCP_RESULT.MALFORMED_OPTION, 1800);
    assertEquals(rig.sent.length, 1);
    assertEquals(rig.heard(), ["failed"]);
  });
});

describe("IPv6", () => {
  const servers = [{ address: "fe80::1%eth0", port: 5351 }];
  const rig6 = () => new Rig({ servers, localAddress: "2001:db8::100" });
  const external = { address: "2001:db8::100", port: 22 };

  it("maps from the global address, through a link-local server with or without its zone", () => {
    const rig = rig6();
    rig.client.map({ protocol: 6, internalPort: 22 }, 0);
    rig.drain();
    assertEquals(rig.last.suggestedAddress, "::");
    claim(rig.receive(success(rig.last, { external }), { address: "fe80::1", port: 5351 }));
    assertEquals(rig.heard(), ["mapped"]);
  });

  it("keeps the known port where a renewed pinhole is answered with port 0", () => {
    const rig = rig6();
    const id = rig.mapped({ internalPort: 22 }, { external, lifetimeSeconds: 600 });
    rig.advance(400_000);
    rig.grant({ external: { ...external, port: 0 }, epochSeconds: 1400 });
    assertEquals(rig.heard(), ["mapped", "renewed"]);
    assertEquals(rig.client.mapping(id)!.external, external);
  });

  it("publishes no port 0 of a first answer", () => {
    const rig = rig6();
    rig.mapped({ internalPort: 22 }, { external: { ...external, port: 0 } });
    assertEquals(rig.heard(), ["failed"]);
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

describe("events", () => {
  it("are coalesced per mapping while nobody drains, and mapping comes first", () => {
    const rig = new Rig();
    const id = rig.client.map({ protocol: 6, internalPort: 8080 }, 0);
    rig.drain();
    const request = rig.last;
    const feed = (data: Uint8Array) => rig.client.handleDatagram(data, SERVER, rig.now);
    feed(success(request));
    for (let port = 1; port <= 100; port++) {
      feed(success(request, { external: { ...EXTERNAL, port } }));
    }
    rig.drain();
    assertEquals(rig.events.length, 1);
    const [event] = rig.events;
    claim(event?.type === "mapped" && event.id === id && event.mapping.external!.port === 100);
  });

  it("are told once for the three copies of a mapping update", () => {
    const rig = new Rig();
    rig.mapped();
    const update = success(rig.last, { external: { ...EXTERNAL, address: "203.0.113.8" } });
    for (let i = 0; i < 3; i++) {
      rig.receive(update);
      rig.now += 250;
    }
    assertEquals(rig.heard(), ["mapped", "moved"]);
  });
});

describe("an UNSUPP_VERSION answer", () => {
  const natPmp = new Uint8Array([0, 0x80, 0, 1, 0, 0, 0x0e, 0x10]);

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
    rig.mapped({}, { lifetimeSeconds: 600 });
    rig.advance(400_000);
    rig.receive(natPmp);
    assertEquals(rig.heard(), ["mapped", "lost"]);
  });
});

describe("debugTimeout()", () => {
  it("tells the deadline with its reason", () => {
    const rig = new Rig();
    rig.client.map({ protocol: 6, internalPort: 8080 }, 7);
    assertEquals(rig.client.debugTimeout(), { at: 7, reason: "output is waiting" });
    rig.drain();
    assertEquals(rig.client.debugTimeout(), { at: 257, reason: "asking, mapping 1" });
    assertEquals(new Rig().client.debugTimeout(), undefined);
  });
});
