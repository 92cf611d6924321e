/**
 * When the external address is asked for, and what the queue makes of silence; the counters.
 *
 * @module
 */
import { describe, it } from "node:test";
import { assert, assertEquals } from "@std/assert";
import { EXTERNAL, GIVE_UP_AT, Rig, rigWithGateway, rigWithMapping } from "./rig.ts";

const web = { protocol: "tcp", internalPort: 8080 } as const;
const kinds = (rig: Rig) => rig.takeSent().map(({ request }) => request.kind);

describe("the external address", () => {
  it("is asked for again with a renewal where it was asked for once, and not else", () => {
    const { rig } = rigWithMapping();
    rig.runTo(3_600_000);
    assertEquals(kinds(rig), ["map"]);
    const { rig: other } = rigWithGateway();
    other.do((client, now) => client.probe(now));
    other.do((client, now) => client.map(web, now));
    assertEquals(kinds(other), ["address", "map"]);
    other.runTo(3_600_000);
    assertEquals(kinds(other), ["map", "address"]);
    assertEquals(other.takeTypes(), ["external-address", "mapped", "renewed"]);
  });

  it("is not asked for again once the question is taken back", () => {
    const { rig } = rigWithGateway();
    rig.do((client, now) => client.probe(now));
    rig.do((client, now) => client.map(web, now));
    rig.do((client, now) => client.endProbe(now));
    rig.takeSent();
    rig.runTo(3_600_000);
    assertEquals(kinds(rig), ["map"]);
  });

  it("is told with what is not granted yet, and with what was lost, as it is known", () => {
    const { rig } = rigWithGateway();
    rig.do((client, now) => client.probe(now));
    rig.deafen();
    const id = rig.do((client, now) => client.map(web, now));
    const { externalAddress, external } = rig.client.mapping(id)!;
    assertEquals([externalAddress, external], [EXTERNAL, undefined]);
  });

  it("is not asked for again where the gateway announces the one that is known", () => {
    const { rig } = rigWithGateway();
    rig.do((client, now) => client.probe(now));
    rig.do((client, now) => client.map(web, now));
    rig.do((client, now) => client.endProbe(now));
    rig.scenario((gateway, now) => gateway.announce(now));
    assertEquals(rig.client.stats.announcements, 1);
    rig.takeSent();
    rig.runTo(3_600_000);
    assertEquals(kinds(rig), ["map"]);
  });

  it("is asked for again at the application's wish, and told though it is the same", () => {
    const { rig } = rigWithGateway();
    for (let i = 0; i < 2; i++) {
      rig.do((client, now) => client.probe(now));
      assertEquals(rig.takeTypes(), ["external-address"]);
    }
    assertEquals(rig.takeSent().length, 2);
  });

  it("asked for twice at once is one question, also where it waits behind a request", () => {
    const rig = new Rig();
    rig.do((client, now) => client.map(web, now));
    rig.do((client, now) => client.probe(now));
    rig.do((client, now) => client.probe(now));
    rig.do((client, now) => client.abandon(1, now));
    assertEquals(kinds(rig), ["map", "address"]);
    rig.do((client, now) => client.endProbe(now));
    assertEquals(rig.client.isIdle, true);
    assertEquals(kinds(rig), []);
  });

  it("taken back while it waits behind a request is not asked for", () => {
    const { rig } = rigWithGateway();
    rig.deafen();
    rig.do((client, now) => client.map(web, now));
    rig.do((client, now) => client.probe(now));
    rig.do((client, now) => client.endProbe(now));
    rig.deafen(false);
    rig.run(1000);
    assertEquals(rig.takeTypes(), ["mapped"]);
    assert(kinds(rig).every((kind) => kind === "map"));
  });
});

describe("silence", () => {
  it("to a deletion is no verdict on what waited behind it", () => {
    const { rig } = rigWithMapping();
    rig.deafen();
    rig.do((client, now) => client.revoke(1, now));
    rig.do((client, now) => client.map({ ...web, internalPort: 9 }, now));
    const end = 250 + 500 + 1000;
    rig.run(end);
    assertEquals(rig.takeTypes(), ["unmapped"]);
    assertEquals(rig.client.mapping(2)?.state, "starting");
    rig.deafen(false);
    rig.run(1000);
    assertEquals(rig.takeTypes(), ["mapped"]);
  });

  it("is one for all that waited through it, and not for what came later or deletes", () => {
    const rig = new Rig();
    rig.do((client, now) => client.map(web, now));
    rig.do((client, now) => client.map({ ...web, internalPort: 9 }, now));
    rig.run(1);
    rig.do((client, now) => client.map({ ...web, internalPort: 10 }, now));
    rig.do((client, now) => client.unmap({ ...web, internalPort: 11 }, now));
    rig.runTo(GIVE_UP_AT);
    const ids = rig.takeEvents().map((event) => `${event.type} ${"id" in event && event.id}`);
    assertEquals(ids, ["failed 1", "failed 2"]);
    assertEquals(rig.client.mapping(3)?.state, "starting");
  });

  it("counts what was sent once, and again", () => {
    const rig = new Rig();
    rig.do((client, now) => client.map(web, now));
    rig.run(750);
    assertEquals([rig.client.stats.requests, rig.client.stats.retransmissions], [1, 2]);
    assertEquals(rig.client.mapping(1)?.attempt, 3);
  });
});
