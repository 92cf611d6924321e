import { describe, it } from "node:test";
import { assert, assertEquals } from "@std/assert";
import type { SimulatedGateway } from "../../../core/gateway/mod.ts";
import type { NatPmpEvent } from "../../../core/natpmp/mod.ts";
import { encodeAddressResponse } from "../../../core/natpmp/codec.ts";
import {
  choosing,
  EXTERNAL,
  GIVE_UP_AT,
  NEW_EXTERNAL,
  Rig,
  rigWithGateway,
  rigWithMapping,
  takePort,
} from "./rig.ts";

const SECOND = 1000, HOUR = 3_600_000;
const UDP_5000 = { protocol: "udp", internalPort: 5000 } as const;

type Scenario = (gateway: SimulatedGateway, now: number) => void;
const reboot: Scenario = (gateway, now) => gateway.reboot(now);
const announce: Scenario = (gateway, now) => gateway.announce(now);
const move: Scenario = (gateway, now) => gateway.setExternalAddresses([NEW_EXTERNAL], now);

function failureOf(event: NatPmpEvent | undefined): unknown {
  return event && "failure" in event ? event.failure : undefined;
}

describe("NatPmpClient: the gateway restarts", () => {
  it("a loss told by an answer: that mapping is fresh, the others follow after the delay", () => {
    const { rig } = rigWithMapping();
    rig.do((client, now) => client.map(UDP_5000, now));
    rig.takeSent();
    rig.takeEvents();
    rig.runTo(HOUR - 1);
    // A restart whose announcement got lost.
    rig.scenario((gateway, now) => gateway.setEpoch(0, now));
    rig.runTo(HOUR);
    // Both renewals were due together: the first one's answer tells, the second has to wait.
    const ports = () =>
      rig.takeSent().map(({ request }) => request.kind === "map" && request.internalPort);
    assertEquals([ports(), rig.takeTypes()], [[8080], ["gateway-restarted", "renewed"]]);
    rig.run(5000);
    assertEquals([ports(), rig.takeTypes()], [[5000], ["renewed"]]);
  });

  it("ten announcements are one restart and one recreation", () => {
    const { rig } = rigWithMapping();
    rig.runTo(100_000);
    rig.scenario(reboot);
    rig.run(128_000);
    assertEquals([rig.takeSent().length, rig.client.stats.restarts], [1, 1]);
    assertEquals(rig.client.stats.announcements, 10);
  });

  it("a renewal on its way stops with the old table, and comes again after the delay", () => {
    const { rig } = rigWithMapping();
    rig.deafen();
    rig.runTo(HOUR + 40_000);
    rig.takeSent();
    rig.scenario(reboot);
    rig.deafen(false);
    rig.run(5000);
    assertEquals(rig.takeSent().length, 1);
    assertEquals(rig.takeTypes().filter((type) => type !== "external-address"), [
      "gateway-restarted",
      "renewed",
    ]);
  });

  it("what the restarted gateway refuses is lost", () => {
    const { rig, id } = rigWithMapping();
    rig.runTo(100_000);
    rig.scenario((gateway, now) => gateway.setExhausted(true, now));
    rig.scenario(reboot);
    rig.run(5000);
    assertEquals(rig.takeTypes(), ["gateway-restarted", "external-address", "lost"]);
    rig.scenario((gateway, now) => gateway.setExhausted(false, now));
    rig.run(30_000);
    assertEquals([rig.takeTypes(), rig.client.mapping(id)?.state], [["recovered"], "running"]);
  });

  it("a restarted gateway that gives another port is told as moved", () => {
    const { rig, id } = rigWithMapping({}, choosing(50_000));
    rig.runTo(100_000);
    rig.scenario(reboot);
    rig.scenario((gateway, now) => takePort(gateway, 8080, now));
    rig.run(5000);
    assertEquals(rig.takeTypes(), ["gateway-restarted", "external-address", "moved"]);
    assertEquals(rig.client.mapping(id)?.externalPort, 50_000);
  });

  it("a new mapping and a delete do not wait for the recreation delay", () => {
    const { rig, id } = rigWithMapping();
    rig.runTo(100_000);
    rig.scenario(reboot);
    rig.do((client, now) => client.map(UDP_5000, now));
    rig.do((client, now) => client.revoke(id, now));
    assertEquals(rig.takeTimes(), [100_000, 100_000]);
    rig.run(5000);
    assertEquals(rig.takeSent(), []);
  });

  it("an announcement wakes what rested because the gateway was silent", () => {
    const { rig } = rigWithMapping({ lifetimeSeconds: 600 });
    rig.deafen();
    while (rig.now < 600 * SECOND || rig.client.mapping(1)?.state !== "error") rig.run(SECOND);
    rig.takeSent();
    rig.takeEvents();
    rig.deafen(false);
    rig.scenario(announce);
    rig.run(5000);
    assertEquals(rig.takeTypes(), ["external-address", "recovered"]);
  });

  it("an announcement hastens a request that waits for long", () => {
    const { rig } = rigWithGateway();
    rig.deafen();
    rig.do((client, now) => client.map(UDP_5000, now));
    rig.runTo(20_000);
    rig.deafen(false);
    rig.takeSent();
    rig.scenario(announce);
    rig.runTo(25_000);
    assertEquals([rig.takeSent().length, rig.takeTypes()], [1, ["external-address", "mapped"]]);
  });

  it("announcements do not bring a request's end nearer", () => {
    const { rig } = rigWithGateway();
    rig.deafen();
    rig.do((client, now) => client.map(UDP_5000, now));
    rig.runTo(63_750);
    rig.scenario(announce);
    rig.runTo(GIVE_UP_AT - 1);
    assertEquals([rig.sent.length, rig.takeTypes()], [9, ["external-address"]]);
  });

  it("the wish of the mapping being asked for at the restart is not forgotten when it expires", () => {
    const { rig, id } = rigWithMapping({ lifetimeSeconds: 60 });
    rig.runTo(25_000);
    rig.deafen();
    rig.scenario(reboot);
    rig.run(60_000);
    assertEquals(rig.takeTypes().includes("lost"), true);
    rig.deafen(false);
    rig.run(200_000);
    assertEquals(rig.client.mapping(id)?.state, "running");
  });
});

describe("NatPmpClient: the external address", () => {
  it("is told when asked for, each time", () => {
    const { rig } = rigWithGateway();
    rig.do((client, now) => client.probe(now));
    rig.do((client, now) => client.probe(now));
    const told = { type: "external-address", address: EXTERNAL, epochSeconds: 1000 } as const;
    assertEquals(rig.takeEvents(), [told, told]);
  });

  it("two questions at once are one packet", () => {
    const rig = new Rig();
    rig.do((client, now) => client.probe(now));
    rig.do((client, now) => client.probe(now));
    assertEquals([rig.sent.length, rig.client.stats.requests], [1, 1]);
  });

  it("a change moves the mappings told with another one", () => {
    const { rig } = rigWithMapping();
    rig.scenario(announce);
    // It was not known before: nothing that was told has changed.
    assertEquals(rig.takeTypes(), ["external-address"]);
    rig.scenario(move);
    const [address, moved] = rig.takeEvents();
    assertEquals(address?.type, "external-address");
    assert(moved?.type === "moved" && moved.mapping.externalAddress === NEW_EXTERNAL);
  });

  it("is asked for again with renewals, so that a lost announcement is made good", () => {
    const { rig } = rigWithMapping({}, { announceTo: [] });
    rig.do((client, now) => client.probe(now));
    rig.takeEvents();
    rig.scenario(move);
    rig.runTo(HOUR);
    assertEquals(rig.takeTypes(), ["renewed", "external-address", "moved"]);
    rig.takeSent();
    rig.do((client, now) => client.endProbe(now));
    rig.runTo(2 * HOUR);
    assertEquals(rig.takeSent().map(({ request }) => request.kind), ["map"]);
  });

  it("after a restart it is asked for first, so that what is recreated carries it", () => {
    const { rig } = rigWithMapping({}, { announceTo: [] });
    rig.do((client, now) => client.probe(now));
    const other = rig.do((client, now) => client.map({ ...UDP_5000, mode: "once" }, now));
    rig.takeEvents();
    rig.takeSent();
    rig.runTo(HOUR - 1);
    rig.scenario(move);
    rig.scenario(reboot);
    // The answer to this tells of the restart that no announcement told.
    rig.do((client, now) => client.revoke(other, now));
    assertEquals(rig.takeSent().map(({ request }) => request.kind), ["map"]);
    assertEquals(rig.takeTypes(), ["gateway-restarted", "unmapped"]);
    rig.run(5000);
    assertEquals(rig.takeSent().map(({ request }) => request.kind), ["address", "map"]);
    assertEquals(rig.takeTypes(), ["external-address", "moved"]);
  });

  it("cancelling the question lets the next request out", () => {
    const rig = new Rig();
    rig.do((client, now) => client.probe(now));
    rig.do((client, now) => client.map(UDP_5000, now));
    rig.do((client, now) => client.endProbe(now));
    assertEquals(rig.sent.map(({ request }) => request.kind), ["address", "map"]);
  });

  it("0.0.0.0 is no address: a failure when asked for, nothing when announced", () => {
    const rig = new Rig();
    const zero = encodeAddressResponse({
      resultCode: 0,
      epochSeconds: 5,
      externalAddress: "0.0.0.0",
    });
    rig.feed(zero);
    assertEquals(rig.events, []);
    rig.do((client, now) => client.probe(now));
    rig.feed(zero);
    assertEquals(rig.takeEvents().map(failureOf), [{ kind: "protocol-violation", clause: "D-08" }]);
  });
});
