import { describe, it } from "node:test";
import { assertEquals, assertThrows } from "@std/assert";
import { fromHex } from "../../../core/bytes.ts";
import { encodeErrorResponse, PCP_RESULT } from "../../../core/pcp/codec.ts";
import type { SavedState } from "../../../core/lease/saved.ts";
import { EXTERNAL, forge, Rig, SERVER } from "./harness.ts";
import { claim } from "./support.ts";

const TCP = { protocol: 6, internalPort: 8080 } as const;
const SET = { protocol: 17, internalPort: 6000, portSet: { size: 4 } } as const;
const SECOND = { address: "192.168.1.2", port: 5351 };

describe("corners of the client", () => {
  it("what waits to be fetched is due at the moment of the last call (rule 3)", () => {
    const calls: readonly ((rig: Rig, id: number) => unknown)[] = [
      ({ client }) => client.map({ ...TCP, internalPort: 1 }, 7),
      ({ client }, id) => client.renew(id, undefined, 7),
      ({ client }, id) => client.revoke(id, 7),
      ({ client }) => client.unmap({ ...TCP, internalPort: 2 }, 7),
      ({ client }, id) => client.withdraw(id, 7),
      ({ client }) => client.probe(7),
      ({ client }) => client.endProbe(7),
      ({ client }) => client.close(7),
      ({ client }) => client.networkChanged("10.0.0.5", 7),
      ({ client }) => client.handleDatagram(new Uint8Array(1), SERVER, "client", 7),
      ({ client }) => client.handleUnreachable(SECOND, "client", 7),
      ({ client }) => client.handleTimeout(7),
    ];
    for (const [i, call] of calls.entries()) {
      const rig = new Rig();
      const id = rig.client.map(TCP, 5);
      rig.client.map({ ...TCP, internalPort: 9 }, 5);
      call(rig, id);
      assertEquals(rig.client.nextTimeout(), 7, `call ${i}`);
    }
    const rig = new Rig();
    rig.client.map({ ...TCP, internalPort: 9 }, 5);
    rig.client.abandon(rig.client.map(TCP, 5), 7);
    assertEquals(rig.client.nextTimeout(), 7);
  });

  it("a request given up may be granted as long as the lifetime that it asks for", () => {
    const rig = new Rig();
    const id = rig.client.map({ ...TCP, lifetimeSeconds: 60 }, 0);
    rig.drain();
    rig.client.withdraw(id, 0);
    rig.advance(59_999);
    assertEquals(rig.heard(), []);
    rig.advance(1);
    assertEquals(rig.heard(), ["unmapped"]);
  });

  it("a question left unanswered ends no request for a mapping at the only address", () => {
    const rig = new Rig();
    const id = rig.client.map(TCP, 0);
    rig.client.probe(0);
    rig.advance(60_000);
    assertEquals(rig.heard(), ["announce-failed"]);
    assertEquals(rig.client.mapping(id)?.state, "starting");
  });

  it("a server without resources is asked at once from another network", () => {
    const rig = new Rig();
    rig.client.map(TCP, 0);
    rig.drain();
    rig.refuse(PCP_RESULT.NO_RESOURCES, 600);
    rig.client.networkChanged("10.0.0.5", 0);
    assertEquals(rig.drain().length, 1);
  });

  it("a server without resources is asked for more at once after it restarted", () => {
    const rig = new Rig();
    rig.mapped({ internalPort: 1 });
    rig.client.map({ ...TCP, internalPort: 2 }, 0);
    rig.drain();
    rig.refuse(PCP_RESULT.NO_RESOURCES, 600);
    rig.client.map({ ...TCP, internalPort: 3 }, 0);
    assertEquals(rig.drain(), []);
    rig.announce(0);
    rig.drain();
    rig.client.map({ ...TCP, internalPort: 4 }, rig.now);
    assertEquals(rig.drain().length, 1);
  });

  it("an announcement hastens nothing where the server was heard before", () => {
    const rig = new Rig();
    rig.mapped({ internalPort: 1 });
    rig.client.map(TCP, 0);
    const [sent] = rig.drain();
    // A success without a port is none: half a minute's rest.
    rig.receive(forge(sent!.request, { external: { ...EXTERNAL, port: 0 } }));
    rig.announce(1000);
    assertEquals(rig.advance(29_999), []);
    assertEquals(rig.advance(1).length, 1);
  });

  it("its question leaves by the client's own socket", () => {
    const { client } = new Rig();
    client.probe(0);
    const action = client.poll();
    claim(action?.type === "send" && action.socket === "client");
  });

  it("its counters begin at 0", () => {
    const { sent, dropped, ...counts } = new Rig().client.stats;
    const all = [sent, dropped, counts].flatMap((some) => Object.values(some));
    assertEquals([all.filter((count) => count !== 0), all.length], [[], 21]);
  });

  it("the RFC 6886's figure of UNSUPP_VERSION names no opcode: it answers whatever was asked", () => {
    for (const opcode of ["00", "01", "02"]) {
      const rig = new Rig();
      rig.client.probe(0);
      rig.client.map(TCP, 0);
      rig.drain();
      claim(rig.receive(fromHex(`00${opcode}0001 00000000`)));
      assertEquals(rig.client.stats.received, 1);
      assertEquals(rig.heard().sort(), ["announce-failed", "failed"]);
    }
    const rig = new Rig();
    rig.client.probe(0);
    rig.client.map(TCP, 0);
    rig.drain();
    claim(rig.receive(fromHex("00810001 00000000")));
    assertEquals(rig.heard(), ["failed"]);
  });

  it("a set whose deletion cannot be read is deleted without it", () => {
    const rig = new Rig();
    const id = rig.mapped(SET);
    rig.client.revoke(id, 0);
    rig.drain();
    rig.refuse(PCP_RESULT.MALFORMED_OPTION, 1800);
    assertEquals([rig.last.lifetimeSeconds, rig.last.options], [0, []]);
    rig.grant();
    assertEquals(rig.heard(), ["mapped", "unmapped"]);
  });

  it("UNSUPP_VERSION with a copy of the request ends that request alone", () => {
    const rig = new Rig();
    const first = rig.client.map(TCP, 0);
    rig.client.map({ ...TCP, internalPort: 1 }, 0);
    rig.client.peer({ ...TCP, remote: { address: "198.51.100.1", port: 1 } }, 0);
    const [{ data }] = rig.drain() as [ReturnType<Rig["drain"]>[0]];
    // Version 1 is no gateway's: made by hand.
    const fields = { resultCode: 1, lifetimeSeconds: 60, epochSeconds: 0, version: 1 };
    rig.receive(encodeErrorResponse(data, fields));
    const failure = { kind: "unsupported-version", version: 1 } as const;
    assertEquals(rig.events, [{ type: "failed", id: first, failure, retryAt: 60_000 }]);
  });

  it("UNSUPP_VERSION ends a deletion, and says so", () => {
    const rig = new Rig({ gateway: { protocols: ["pcp", "nat-pmp"] } });
    const id = rig.mapped();
    rig.client.revoke(id, 0);
    rig.drain();
    rig.scenario((gateway, now) => gateway.setProtocol("pcp", false, now));
    rig.grant();
    const failure = { kind: "unsupported-version", version: 0 } as const;
    assertEquals(rig.events.at(-1), { type: "unmapped", id, reason: "revoked", failure });
  });

  it("an announcement that is an error means nothing where none was asked for", () => {
    const rig = new Rig();
    claim(!rig.receive(fromHex("02800004 00000708 00000000 00000000 00000000 00000000")));
    assertEquals(rig.client.stats.dropped.unmatched, 1);
  });

  it("a deletion refused for want of resources: what was held stays, what was not is nothing", () => {
    const rig = new Rig();
    const [a, b] = [1, 2].map((internalPort) => rig.mapped({ internalPort }));
    rig.client.revoke(a!, 0);
    rig.drain();
    rig.refuse(PCP_RESULT.NO_RESOURCES, 60);
    const told = rig.events.at(-1);
    claim(told?.type === "unmapped" && told.failure?.kind === "refused");
    const unknown = rig.client.unmap({ ...TCP, internalPort: 9 }, 0);
    rig.drain();
    rig.refuse(PCP_RESULT.NO_RESOURCES, 60);
    assertEquals(rig.events.at(-1), { type: "unmapped", id: unknown, reason: "revoked" });
    // Neither keeps other requests from leaving.
    rig.client.renew(b!, undefined, 0);
    assertEquals(rig.drain().length, 1);
  });

  it("a renewal that is refused past the mapping's end is a loss at its end", () => {
    const rig = new Rig();
    rig.mapped({ lifetimeSeconds: 600 });
    rig.advance(400_000);
    rig.refuse(PCP_RESULT.NO_RESOURCES, 3600);
    rig.sent.length = 0;
    rig.advance(200_000);
    assertEquals(rig.heard(), ["mapped", "renewal-failed", "lost"]);
    assertEquals(rig.advance(3_399_999), []);
    assertEquals(rig.advance(1).length, 1);
    rig.grant();
    assertEquals(rig.heard(), ["recovered"]);
  });

  it("a recreation that outlasts the mapping's lifetime goes on after it", () => {
    const rig = new Rig();
    rig.mapped({ lifetimeSeconds: 120 });
    rig.now = 50_000;
    rig.announce(0);
    rig.advance(70_000);
    assertEquals(rig.heard(), ["mapped", "gateway-restarted", "lost"]);
    const sent = rig.sent.length;
    rig.advance(100_000);
    claim(rig.sent.length > sent);
    rig.grant();
    assertEquals(rig.heard(), ["recovered"]);
  });

  it("a running mapping is lost when a later answer breaks PREFER_FAILURE's promise", () => {
    const rig = new Rig();
    const suggestedExternal = EXTERNAL;
    const id = rig.mapped({ preferFailure: true, suggestedExternal });
    rig.grant({ external: { ...EXTERNAL, port: 1 } });
    const failure = { kind: "protocol-violation", clause: "PCP-C-48" } as const;
    assertEquals(rig.events.at(-1), { type: "lost", id, failure, retryAt: 30_000 });
    assertEquals(rig.last.lifetimeSeconds, 0);
    claim(!rig.receive(forge(rig.sent[0]!.request, { external: { ...EXTERNAL, port: 1 } })));
    assertEquals(rig.advance(29_999), []);
    assertEquals(rig.advance(1).length, 1);
  });

  it("the probe begins again from a new address", () => {
    const rig = new Rig();
    rig.client.probe(0);
    rig.drain();
    rig.client.networkChanged("10.0.0.5", 0);
    const [again] = rig.drain();
    assertEquals(again!.request.clientAddress, "10.0.0.5");
    rig.grant();
    assertEquals(rig.heard(), ["announced"]);
  });

  it("deletions that no address answers are given up", () => {
    const rig = new Rig({ servers: [SERVER, SECOND] });
    const id = rig.mapped();
    rig.mapped({ internalPort: 1 });
    rig.client.revoke(id, 0);
    rig.drain();
    rig.client.handleUnreachable(SERVER, "client", 0);
    assertEquals(rig.drain().map(({ to }) => to), [SECOND]);
    rig.client.handleUnreachable(SECOND, "client", 0);
    assertEquals(rig.heard(), ["mapped", "mapped", "unmapped"]);
    rig.client.handleUnreachable(SERVER, "client", 0);
    assertEquals(rig.drain(), []);
  });

  it("revoking twice is revoking once", () => {
    const rig = new Rig();
    const id = rig.mapped();
    rig.client.revoke(id, 0);
    rig.client.revoke(id, 0);
    rig.client.renew(id, undefined, 0);
    assertEquals(rig.drain().length, 1);
  });

  it("another lifetime is asked for as soon as the first request is answered", () => {
    const rig = new Rig();
    const id = rig.client.map(TCP, 0);
    rig.drain();
    rig.client.renew(id, 60, 0);
    const [again] = rig.advance(250);
    assertEquals(again!.data, rig.sent[0]!.data);
    rig.grant();
    assertEquals(rig.last.lifetimeSeconds, 60);
  });

  it("two renewals at once are asked one after the other, each answered by its own answer", () => {
    const rig = new Rig();
    const id = rig.mapped();
    const revisions = [3600, 600].map((lifetime) => rig.client.renew(id, lifetime, 0));
    const [first] = rig.drain();
    rig.grant({}, first!);
    const [second] = rig.advance(4000);
    claim(second!.at === 4000);
    rig.grant();
    const told = rig.events.slice(1).map((event) =>
      event.type === "renewed" && [event.revision, event.mapping.lifetimeSeconds]
    );
    assertEquals(told, [[revisions[0]!, 3600], [revisions[1]!, 600]]);
  });

  it("a renewal refused to who asked for it is told to him at once, and again while it stands", () => {
    const rig = new Rig();
    const id = rig.mapped();
    const first = rig.client.renew(id, undefined, 0);
    rig.drain();
    rig.refuse(PCP_RESULT.USER_EX_QUOTA, 30);
    const second = rig.client.renew(id, undefined, 0);
    rig.drain();
    assertEquals(rig.sent.length, 2);
    const told = rig.events.slice(1).map((event) =>
      event.type === "renewal-failed" && [event.revision, event.failure.kind]
    );
    assertEquals(told, [[first, "refused"], [second, "refused"]]);
  });

  it("a saved state that is none is refused, with its value", () => {
    const rig = new Rig();
    rig.mapped();
    const { mappings: [saved] } = rig.client.exportState(0);
    const wrong = [
      { ...saved!, via: "both" as "pcp" },
      { ...saved!, gateway: "home" },
      { ...saved!, external: { port: -1 } },
      { ...saved!, mode: 0 },
      null as unknown as typeof saved & object,
      { ...saved!, nonce: "00" },
      { ...saved!, nonce: "zz" },
      { ...saved!, internalPort: 70_000 },
      { ...saved!, description: 5 as unknown as string },
    ];
    for (const mapping of wrong) {
      const state: SavedState = { version: 1, mappings: [mapping] };
      assertThrows(() => new Rig({ state }));
    }
    const twice: SavedState = { version: 1, mappings: [saved!, saved!] };
    assertThrows(() => new Rig({ state: twice }), TypeError, "already");
    const newer = { version: 2, mappings: [] } as unknown as SavedState;
    assertThrows(() => new Rig({ state: newer }), RangeError, "version");
  });
});
