/**
 * What other clients were seen to get wrong with NAT-PMP, each as a claim about this one.
 */
import { describe, it } from "node:test";
import { assertEquals, assertThrows } from "@std/assert";
import { encodeMapResponse } from "../../../core/natpmp/codec.ts";
import { GATEWAY, Rig, rigWithGateway, rigWithMapping } from "./rig.ts";

const HOUR = 3_600_000;

describe("defects seen in other clients", () => {
  it("a renewal that never fires: here ten renewal periods bring ten renewals", () => {
    const { rig } = rigWithMapping();
    rig.runTo(10 * HOUR);
    assertEquals(rig.takeTimes(), Array.from({ length: 10 }, (_, k) => (k + 1) * HOUR));
  });

  it("one lost reply fails the mapping and all later ones: here it costs 250 ms", () => {
    const { rig } = rigWithGateway();
    rig.scenario((gateway, now) => gateway.disturb({ lossRate: 1 }, now));
    rig.do((client, now) => client.map({ protocol: "tcp", internalPort: 8080 }, now));
    rig.scenario((gateway, now) => gateway.disturb({ lossRate: 0 }, now));
    rig.runTo(250);
    assertEquals(rig.takeTypes(), ["mapped"]);
    rig.do((client, now) => client.map({ protocol: "tcp", internalPort: 8081 }, now));
    assertEquals(rig.takeTypes(), ["mapped"]);
    assertEquals(rig.takeTimes(), [0, 250, 250]);
  });

  it("milliseconds written as seconds: here 3600 s are 3600 on the wire", () => {
    const rig = rigWithGateway().rig;
    rig.do((client, now) =>
      client.map({ protocol: "tcp", internalPort: 8080, lifetimeSeconds: 3600 }, now)
    );
    const { request } = rig.sent[0]!;
    assertEquals(request.kind === "map" && request.lifetimeSeconds, 3600);
  });

  it("the wished external port is ignored: here 5000 is asked for, not the internal 4000", () => {
    const rig = rigWithGateway().rig;
    rig.do((client, now) =>
      client.map({ protocol: "tcp", internalPort: 4000, suggestedExternal: { port: 5000 } }, now)
    );
    const { request } = rig.sent[0]!;
    assertEquals(request.kind === "map" && request.suggestedExternalPort, 5000);
    assertEquals(rig.client.mapping(1)?.externalPort, 5000);
  });

  it("one lost reply blocks the queue for good: here the next call is served", () => {
    const { rig } = rigWithGateway();
    rig.scenario((gateway, now) => gateway.disturb({ lossRate: 1 }, now));
    rig.do((client, now) => client.probe(now));
    rig.do((client, now) => client.map({ protocol: "tcp", internalPort: 8080 }, now));
    rig.runTo(100);
    rig.scenario((gateway, now) => gateway.disturb({ lossRate: 0 }, now));
    rig.runTo(250);
    assertEquals(rig.takeTypes(), ["external-address", "mapped"]);
  });

  it("a request given up stays in the queue: here abandoning one lets the next out at once", () => {
    const rig = new Rig();
    const first = rig.do((client, now) => client.map({ protocol: "tcp", internalPort: 1 }, now));
    const second = rig.do((client, now) => client.map({ protocol: "tcp", internalPort: 2 }, now));
    rig.do((client, now) => client.map({ protocol: "tcp", internalPort: 3 }, now));
    rig.do((client, now) => client.abandon(second, now));
    rig.do((client, now) => client.abandon(first, now));
    const ports = rig.sent.map(({ request }) => request.kind === "map" && request.internalPort);
    assertEquals(ports, [1, 3]);
  });

  it("unmapping a kept mapping floods the gateway: here it takes one packet, and then silence", () => {
    const { rig, id } = rigWithMapping();
    rig.do((client, now) => client.revoke(id, now));
    rig.runTo(24 * HOUR);
    assertEquals(rig.takeTimes(), [0]);
    assertEquals(rig.client.nextTimeout(), undefined);
  });

  it("two mappings of one port multiply the timers: here the second is refused by name", () => {
    const { rig, id } = rigWithMapping();
    assertThrows(
      () => rig.client.map({ protocol: "tcp", internalPort: 8080 }, rig.now),
      TypeError,
      `8080/tcp: it is mapped already (id ${id})`,
    );
    rig.do((client, now) => client.map({ protocol: "udp", internalPort: 8080 }, now));
    rig.takeSent();
    rig.runTo(6 * HOUR);
    assertEquals(rig.takeSent().length, 12);
  });

  it("no timeout and no retransmission: here nine attempts, and a told end", () => {
    const rig = new Rig();
    rig.do((client, now) => client.map({ protocol: "tcp", internalPort: 8080, mode: "once" }, now));
    rig.runTo(HOUR);
    assertEquals(rig.sent.length, 9);
    assertEquals(rig.takeTypes(), ["failed"]);
  });

  it("any datagram with the right opcode counts, from whomever: here only the gateway's", () => {
    const rig = new Rig();
    rig.do((client, now) => client.map({ protocol: "tcp", internalPort: 8080 }, now));
    // Forged, so made by hand.
    const answer = (internalPort: number) =>
      encodeMapResponse({
        protocol: "tcp",
        resultCode: 0,
        epochSeconds: 1,
        internalPort,
        externalPort: 666,
        lifetimeSeconds: 7200,
      });
    rig.feed(answer(8080), { address: "192.168.1.66", port: 5351 });
    rig.feed(answer(8080), { address: GATEWAY.address, port: 40000 });
    rig.feed(answer(8081));
    assertEquals(rig.events, []);
    rig.feed(answer(8080));
    assertEquals(rig.takeTypes(), ["mapped"]);
  });

  it("clients fight over port 5350: here announcements are input like any other, no socket is owned", () => {
    const { rig } = rigWithMapping();
    const other = new Rig();
    const announcement = rig.overhear((gateway, now) => gateway.announce(now));
    for (const each of [rig, other]) each.feed(announcement);
    assertEquals([rig, other].map((each) => each.client.stats.announcements), [1, 1]);
  });
});
