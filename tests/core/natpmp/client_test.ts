import { describe, it } from "node:test";
import { assert, assertEquals, assertThrows } from "@std/assert";
import { fromHex, toHex } from "../../../core/bytes.ts";
import {
  mergeEvents,
  NatPmpClient,
  type NatPmpClientState,
  type NatPmpEvent,
} from "../../../core/natpmp/mod.ts";
import { encodeAddressResponse, encodeMapResponse } from "../../../core/natpmp/codec.ts";
import { seededRandom } from "../../../core/random.ts";
import {
  EXTERNAL,
  GATEWAY,
  GIVE_UP_AT,
  ObligingGateway,
  Rig,
  rigWithMapping,
  SILENT,
} from "./rig.ts";

const SECOND = 1000, HOUR = 3_600_000;
const UDP_5000 = { protocol: "udp", internalPort: 5000 } as const;
const GRANT = {
  protocol: "udp",
  resultCode: 0,
  epochSeconds: 1000,
  internalPort: 5000,
  externalPort: 40000,
  lifetimeSeconds: 7200,
} as const;
const NEW_ADDRESS = "198.51.100.9";

function failureOf(event: NatPmpEvent | undefined): unknown {
  return event && "failure" in event ? event.failure : undefined;
}

describe("NatPmpClient: what a mapping goes through", () => {
  it("requested, starting, running, updating, running", () => {
    const rig = new Rig();
    rig.do((client, now) => client.externalAddress(now));
    const id = rig.do((client, now) => client.map(UDP_5000, now));
    assertEquals(rig.client.mapping(id)?.state, "requested");
    rig.feed(new ObligingGateway().announcement(0));
    rig.runTo(250);
    const starting = rig.client.mapping(id)!;
    assertEquals([starting.state, starting.attempt, starting.externalPort], ["starting", 2, 0]);
    rig.feed(encodeMapResponse(GRANT));
    assertEquals(rig.client.mapping(id), {
      id,
      protocol: "udp",
      internalPort: 5000,
      externalPort: 40000,
      externalAddress: EXTERNAL,
      lifetimeSeconds: 7200,
      expiresAt: 250 + 7_200_000,
      state: "running",
      attempt: 0,
    });
    rig.runTo(250 + HOUR);
    // The address goes first only after a restart; here the renewal does.
    assertEquals(rig.client.mapping(id)?.state, "updating");
  });

  it("a granted mapping is told once, with what was granted", () => {
    const rig = new Rig();
    const id = rig.do((client, now) => client.map(UDP_5000, now));
    rig.now = 7;
    rig.feed(encodeMapResponse(GRANT));
    const [event, ...others] = rig.takeEvents();
    assert(event?.type === "mapped" && event.id === id && event.mapping.externalPort === 40000);
    assertEquals(others, []);
    rig.feed(encodeMapResponse(GRANT));
    assertEquals(rig.events, []);
    assertEquals(rig.client.stats.dropped.unsolicited, 1);
  });

  it("a renewal that comes back with another port has moved", () => {
    const { rig, gateway, id } = rigWithMapping();
    gateway.port = () => 50_000;
    rig.runTo(HOUR);
    const [event] = rig.takeEvents();
    assert(event?.type === "moved" && event.id === id && event.mapping.externalPort === 50_000);
    rig.runTo(2 * HOUR);
    assertEquals(rig.takeTypes(), ["renewed"]);
  });

  it("a renewal that fails is repeated at 3/4, 7/8… and takes nothing away before the end", () => {
    const { rig, id } = rigWithMapping();
    rig.answerer = SILENT;
    rig.runTo(7200 * SECOND - 1);
    const bursts = rig.takeTimes().filter((at, i, all) => i === 0 || at - all[i - 1]! > 64_000);
    assertEquals(bursts, [3600, 5400, 6300, 6750, 6975, 7143.75].map((s) => s * SECOND));
    assertEquals([rig.events.length, rig.client.mapping(id)?.state], [0, "updating"]);
    rig.runTo(7200 * SECOND);
    assertEquals(rig.takeEvents(), [{ type: "lost", id, failure: { kind: "no-answer" } }]);
  });

  it("an answer lost for ever leads to lost, and the gateway's return to recovered", () => {
    const { rig, gateway, id } = rigWithMapping({ lifetimeSeconds: 60 });
    rig.answerer = SILENT;
    rig.runTo(10 * 60 * SECOND);
    assertEquals(rig.takeTypes().slice(0, 1), ["lost"]);
    assert(rig.client.mapping(id) !== undefined);
    rig.answerer = gateway.answer;
    rig.run(200 * SECOND);
    const [event] = rig.takeEvents().filter(({ type }) => type !== "failed");
    assert(event?.type === "recovered" && event.mapping.externalPort === 8080);
  });

  it("renewals of a short lease that fail are never less than 4 s apart", () => {
    const { rig, gateway } = rigWithMapping({ lifetimeSeconds: 30 });
    gateway.resultCode = 3;
    // Holds of 30 s would hide the series: let the gateway speak another version instead.
    rig.answerer = (request, now) => {
      const bytes = gateway.answer(request, now);
      bytes?.set([0, 130, 0, 1]);
      return bytes;
    };
    rig.runTo(29_999);
    const times = rig.takeTimes();
    assertEquals(times[0], 15_000);
    for (let i = 1; i < times.length; i++) assert(times[i]! - times[i - 1]! >= 4000, `${times}`);
  });

  it("a lifetime beyond a day is renewed after half a day", () => {
    const { rig } = rigWithMapping({ lifetimeSeconds: 0xffff_ffff });
    rig.runTo(36 * HOUR);
    assertEquals(rig.takeTimes(), [12 * HOUR, 24 * HOUR, 36 * HOUR]);
  });

  it("a refused mapping rests for the hold time, then is asked for again", () => {
    const gateway = new ObligingGateway();
    gateway.resultCode = 4;
    const rig = new Rig(gateway.answer);
    const id = rig.do((client, now) => client.map(UDP_5000, now));
    assertEquals(rig.takeEvents(), [{
      type: "failed",
      id,
      failure: { kind: "refused", code: 4, name: "OUT_OF_RESOURCES", retryAt: 30_000 },
    }]);
    assertEquals(rig.client.mapping(id)?.state, "error");
    rig.runTo(30_000);
    assertEquals([rig.takeTimes(), rig.takeTypes()], [[0, 30_000], ["failed"]]);
    gateway.resultCode = 0;
    rig.runTo(60_000);
    assertEquals(rig.takeTypes(), ["mapped"]);
  });

  it("a refusal for good is not repeated noisily: half an hour", () => {
    const gateway = new ObligingGateway();
    gateway.resultCode = 2;
    const rig = new Rig(gateway.answer);
    rig.do((client, now) => client.map(UDP_5000, now));
    rig.runTo(HOUR - 1);
    assertEquals(rig.takeTimes(), [0, HOUR / 2]);
  });

  it("a renewal that is refused keeps the mapping to its end, then it is lost with the reason", () => {
    const { rig, gateway, id } = rigWithMapping({ lifetimeSeconds: 600 });
    gateway.resultCode = 2;
    rig.runTo(600 * SECOND);
    assertEquals(rig.takeTimes(), [300 * SECOND]);
    const [event, ...others] = rig.takeEvents();
    assert(event?.type === "lost" && event.failure.kind === "refused", event?.type);
    assertEquals(others, []);
    // The hold of the refusal goes on.
    rig.runTo(2099 * SECOND);
    assertEquals(rig.takeSent(), []);
    gateway.resultCode = 0;
    rig.runTo(2100 * SECOND);
    assertEquals(rig.takeTypes(), ["recovered"]);
    assertEquals(rig.client.mapping(id)?.state, "running");
  });

  it("D-08: a success with port 0 is a violation and is not published", () => {
    const rig = new Rig();
    const id = rig.do((client, now) => client.map(UDP_5000, now));
    rig.feed(encodeMapResponse({ ...GRANT, externalPort: 0 }));
    assertEquals(rig.takeEvents(), [
      { type: "failed", id, failure: { kind: "protocol-violation", clause: "D-08" } },
    ]);
  });

  it("D-07: a success with lifetime 0 that is no delete means gone, not for ever", () => {
    const { rig, id } = rigWithMapping();
    rig.answerer = SILENT;
    rig.runTo(HOUR);
    const gone = { protocol: "tcp", internalPort: 8080, externalPort: 8080 } as const;
    rig.feed(encodeMapResponse({ ...GRANT, ...gone, epochSeconds: 4600, lifetimeSeconds: 0 }));
    assertEquals(rig.takeEvents(), [{ type: "lost", id, failure: { kind: "expired" } }]);
    assertEquals(rig.client.nextTimeout(), HOUR + 60_000);
  });
});

describe("NatPmpClient: how long a mapping is wanted", () => {
  it("once: one request, and the end is told when the lifetime is over", () => {
    const { rig, id } = rigWithMapping({ mode: "once", lifetimeSeconds: 600 });
    rig.runTo(600 * SECOND);
    assertEquals(rig.takeSent(), []);
    assertEquals(rig.takeEvents(), [{ type: "unmapped", id, reason: "expired" }]);
    assert(rig.client.isIdle);
  });

  it("N: held through N lifetimes, and not much longer", () => {
    const { rig, id } = rigWithMapping({ mode: 3, lifetimeSeconds: 600 });
    rig.runTo(1800 * SECOND - 1);
    assertEquals(rig.takeTypes().filter((type) => type !== "renewed"), []);
    const asked = rig.takeSent().map(({ request }) =>
      request.kind === "map" && request.lifetimeSeconds
    );
    assertEquals(asked, [600, 600, 600, 600]);
    rig.runTo(1800 * SECOND);
    assertEquals(rig.takeEvents(), [{ type: "unmapped", id, reason: "expired" }]);
  });

  it("N: the last renewal asks only for what is left", () => {
    const { rig, gateway } = rigWithMapping({ mode: 2, lifetimeSeconds: 600 });
    gateway.maxLifetimeSeconds = 500;
    rig.runTo(1200 * SECOND);
    const asked = rig.takeSent().map(({ request }) =>
      request.kind === "map" && request.lifetimeSeconds
    );
    assertEquals(asked, [600, 600, 400]);
    assertEquals(rig.takeTypes().at(-1), "unmapped");
  });

  it("once: a failure ends it", () => {
    const rig = new Rig();
    rig.do((client, now) => client.map({ ...UDP_5000, mode: "once" }, now));
    rig.feed(encodeMapResponse({ ...GRANT, resultCode: 2 }));
    assertEquals([rig.takeTypes(), rig.client.isIdle], [["failed"], true]);
  });

  it("once: a restarted gateway is asked for what is left", () => {
    const { rig, gateway } = rigWithMapping({ mode: "once", lifetimeSeconds: 600 });
    rig.runTo(400 * SECOND);
    gateway.startedAt = rig.now;
    rig.feed(gateway.announcement(rig.now));
    rig.run(5 * SECOND);
    const { request, at } = rig.takeSent()[0]!;
    const left = Math.ceil(600 - at / SECOND);
    assertEquals(request.kind === "map" && request.lifetimeSeconds, left);
  });

  it("renew: at once and for the new lifetime; N counts again", () => {
    const { rig, id } = rigWithMapping({ mode: "once", lifetimeSeconds: 600 });
    rig.runTo(100 * SECOND);
    rig.do((client, now) => client.renew(id, 300, now));
    const [event] = rig.takeEvents();
    assert(event?.type === "renewed" && event.mapping.expiresAt === 400 * SECOND);
    rig.runTo(400 * SECOND);
    assertEquals(rig.takeTypes(), ["unmapped"]);
  });

  it("renew: a mapping on hold is asked for at once", () => {
    const gateway = new ObligingGateway();
    gateway.resultCode = 2;
    const rig = new Rig(gateway.answer);
    const id = rig.do((client, now) => client.map(UDP_5000, now));
    gateway.resultCode = 0;
    rig.do((client, now) => client.renew(id, undefined, now));
    assertEquals(rig.takeTypes(), ["failed", "mapped"]);
  });

  it("renew: replaces a request on its way that asks for another lifetime", () => {
    const rig = new Rig();
    const id = rig.do((client, now) => client.map(UDP_5000, now));
    rig.do((client, now) => client.renew(id, undefined, now));
    assertEquals(rig.sent.length, 1);
    rig.do((client, now) => client.renew(id, 60, now));
    const asked = rig.sent.map(({ request }) => request.kind === "map" && request.lifetimeSeconds);
    assertEquals(asked, [7200, 60]);
  });
});

describe("NatPmpClient: ends", () => {
  it("revoke: nothing is sent for what the gateway has never heard of", () => {
    const rig = new Rig();
    rig.do((client, now) => client.externalAddress(now));
    const id = rig.do((client, now) => client.map(UDP_5000, now));
    rig.do((client, now) => client.revoke(id, now));
    assertEquals(rig.takeEvents(), [{ type: "unmapped", id, reason: "revoked" }]);
    assertEquals(rig.sent.length, 1);
  });

  it("revoke: a request on its way ends, and the delete leaves at once", () => {
    const rig = new Rig();
    const id = rig.do((client, now) => client.map(UDP_5000, now));
    rig.do((client, now) => client.revoke(id, now));
    assertEquals(rig.client.mapping(id)?.state, "revoked");
    assertEquals(rig.sent.map(({ data }) => toHex(data).slice(16)), ["00001c20", "00000000"]);
    // The late grant is no answer to the delete.
    rig.feed(encodeMapResponse(GRANT));
    assertEquals([rig.events, rig.client.stats.dropped.stale], [[], 1]);
    rig.feed(encodeMapResponse({ ...GRANT, externalPort: 0, lifetimeSeconds: 0 }));
    assertEquals(rig.takeEvents(), [{ type: "unmapped", id, reason: "revoked" }]);
  });

  it("a second answer to a delete is no answer to the mapping made right after it", () => {
    const { rig, gateway, id } = rigWithMapping();
    rig.do((client, now) => client.revoke(id, now));
    rig.answerer = SILENT;
    rig.do((client, now) => client.map({ protocol: "tcp", internalPort: 8080 }, now));
    const zero = { externalPort: 0, lifetimeSeconds: 0 };
    rig.feed(encodeMapResponse({ ...GRANT, protocol: "tcp", internalPort: 8080, ...zero }));
    assertEquals(rig.client.stats.dropped.stale, 1);
    rig.answerer = gateway.answer;
    rig.run(250);
    assertEquals(rig.takeTypes(), ["unmapped", "mapped"]);
  });

  it("revoke: a refused delete is told, and over", () => {
    const { rig, gateway, id } = rigWithMapping();
    gateway.resultCode = 2;
    rig.do((client, now) => client.revoke(id, now));
    const [event] = rig.takeEvents();
    assert(event?.type === "unmapped" && event.failure?.kind === "refused");
    assert(rig.client.isIdle);
  });

  it("revoke: a port being deleted can be mapped again, after the delete", () => {
    const { rig, id } = rigWithMapping();
    rig.answerer = SILENT;
    rig.do((client, now) => client.revoke(id, now));
    const next = rig.do((client, now) => client.map({ protocol: "tcp", internalPort: 8080 }, now));
    assertEquals(rig.client.mappings().map(({ id, state }) => [id, state]), [
      [id, "revoked"],
      [next, "requested"],
    ]);
    rig.runTo(2000);
    assertEquals(rig.takeTimes(), [0, 250, 750, 1750, 2000]);
  });

  it("revoke and renew and abandon do nothing to what is gone or never was", () => {
    const { rig, id } = rigWithMapping();
    rig.do((client, now) => client.abandon(id, now));
    for (const gone of [id, 77, -1, NaN]) {
      rig.do((client, now) => client.revoke(gone, now));
      rig.do((client, now) => client.renew(gone, 5, now));
      rig.do((client, now) => client.abandon(gone, now));
    }
    assertEquals([rig.sent, rig.events, rig.client.nextTimeout()], [[], [], undefined]);
  });

  it("abandon: a request that nobody has fetched yet is taken back", () => {
    const client = new NatPmpClient({ gateway: GATEWAY, random: seededRandom(1) });
    const id = client.map(UDP_5000, 0);
    client.abandon(id, 0);
    assertEquals([client.poll(), client.nextTimeout(), client.isIdle], [
      undefined,
      undefined,
      true,
    ]);
  });

  it("revokeAll: one packet for all of a protocol, and each of ours is told", () => {
    const { rig, id } = rigWithMapping();
    const other = rig.do((client, now) => client.map({ protocol: "tcp", internalPort: 81 }, now));
    const udp = rig.do((client, now) => client.map(UDP_5000, now));
    rig.takeSent();
    rig.takeEvents();
    rig.do((client, now) => client.revokeAll("tcp", now));
    assertEquals(rig.sent.map(({ data }) => toHex(data)), ["000200000000000000000000"]);
    assertEquals(rig.takeEvents(), [
      { type: "unmapped", id, reason: "revoked" },
      { type: "unmapped", id: other, reason: "revoked" },
      { type: "all-unmapped", protocol: "tcp" },
    ]);
    assertEquals(rig.client.mappings().map((mapping) => mapping.id), [udp]);
  });

  it("revokeAll: a refusal is told", () => {
    const gateway = new ObligingGateway();
    gateway.resultCode = 2;
    const rig = new Rig(gateway.answer);
    rig.do((client, now) => client.revokeAll("udp", now));
    const [event] = rig.takeEvents();
    assert(event?.type === "all-unmapped" && event.failure?.kind === "refused");
  });

  it("unmap: deletes what this client never made", () => {
    const rig = new Rig(new ObligingGateway().answer);
    const id = rig.do((client, now) => client.unmap("tcp", 8080, now));
    assertEquals(rig.sent.map(({ data }) => toHex(data)), ["000200001f90000000000000"]);
    assertEquals(rig.takeEvents(), [{ type: "unmapped", id, reason: "revoked" }]);
  });

  it("unmap: is revoke for what it has made", () => {
    const { rig, id } = rigWithMapping();
    assertEquals(rig.do((client, now) => client.unmap("tcp", 8080, now)), id);
    assertEquals([rig.sent.length, rig.takeTypes(), rig.client.isIdle], [1, ["unmapped"], true]);
  });

  it("close: deletes all, and then nothing is left and nothing can be made", () => {
    const { rig } = rigWithMapping();
    rig.do((client, now) => client.map(UDP_5000, now));
    rig.do((client, now) => client.externalAddress(now));
    rig.takeEvents();
    rig.do((client, now) => client.close(now));
    assertEquals(rig.takeTypes(), ["unmapped", "unmapped"]);
    assertEquals([rig.client.isIdle, rig.client.nextTimeout()], [true, undefined]);
    assertThrows(() => rig.client.map(UDP_5000, rig.now), TypeError, "closed");
  });

  it("close: a silent gateway gets three deletes for the first mapping, one for each other", () => {
    const { rig } = rigWithMapping();
    for (let port = 1; port <= 4; port++) {
      rig.do((client, now) => client.map({ protocol: "udp", internalPort: port }, now));
    }
    rig.takeSent();
    rig.answerer = SILENT;
    rig.do((client, now) => client.close(now));
    rig.run(HOUR);
    assertEquals(rig.takeTimes(), [0, 250, 750, 1750, 2000, 2250, 2500]);
    assert(rig.client.isIdle);
  });
});

describe("NatPmpClient: the gateway restarts", () => {
  it("a loss told by an answer: that mapping is fresh, the others follow after the delay", () => {
    const { rig, gateway } = rigWithMapping();
    rig.do((client, now) => client.map(UDP_5000, now));
    rig.takeSent();
    rig.takeEvents();
    rig.runTo(HOUR - 1);
    gateway.startedAt = rig.now;
    rig.runTo(HOUR);
    // Both renewals were due together: the first one's answer tells, the second has to wait.
    const ports = () =>
      rig.takeSent().map(({ request }) => request.kind === "map" && request.internalPort);
    assertEquals([ports(), rig.takeTypes()], [[8080], ["gateway-restarted", "renewed"]]);
    rig.run(5000);
    assertEquals([ports(), rig.takeTypes()], [[5000], ["renewed"]]);
  });

  it("ten announcements are one restart and one recreation", () => {
    const { rig, gateway } = rigWithMapping();
    rig.runTo(100_000);
    gateway.startedAt = rig.now;
    for (const gap of [0, 250, 500, 1000, 2000, 4000, 8000, 16000, 32000, 64000]) {
      rig.run(gap);
      rig.feed(gateway.announcement(rig.now));
    }
    assertEquals([rig.takeSent().length, rig.client.stats.restarts], [1, 1]);
  });

  it("a renewal on its way stops with the old table, and comes again after the delay", () => {
    const { rig, gateway } = rigWithMapping();
    rig.answerer = SILENT;
    rig.runTo(HOUR + 40_000);
    gateway.startedAt = rig.now;
    rig.takeSent();
    rig.feed(gateway.announcement(rig.now));
    rig.answerer = gateway.answer;
    rig.run(5000);
    assertEquals(rig.takeSent().length, 1);
    assertEquals(rig.takeTypes().filter((type) => type !== "external-address"), [
      "gateway-restarted",
      "renewed",
    ]);
  });

  it("what the restarted gateway refuses is lost", () => {
    const { rig, gateway, id } = rigWithMapping();
    rig.runTo(100_000);
    gateway.startedAt = rig.now;
    gateway.resultCode = 4;
    rig.feed(gateway.announcement(rig.now));
    rig.run(5000);
    assertEquals(rig.takeTypes(), ["gateway-restarted", "external-address", "lost"]);
    gateway.resultCode = 0;
    rig.run(30_000);
    assertEquals([rig.takeTypes(), rig.client.mapping(id)?.state], [["recovered"], "running"]);
  });

  it("a restarted gateway that gives another port is told as moved", () => {
    const { rig, gateway } = rigWithMapping();
    rig.runTo(100_000);
    gateway.startedAt = rig.now;
    gateway.port = () => 50_000;
    rig.feed(gateway.announcement(rig.now));
    rig.run(5000);
    assertEquals(rig.takeTypes(), ["gateway-restarted", "external-address", "moved"]);
  });

  it("a new mapping and a delete do not wait for the recreation delay", () => {
    const { rig, gateway, id } = rigWithMapping();
    rig.runTo(100_000);
    gateway.startedAt = rig.now;
    rig.feed(gateway.announcement(rig.now));
    rig.do((client, now) => client.map(UDP_5000, now));
    rig.do((client, now) => client.revoke(id, now));
    assertEquals(rig.takeTimes(), [100_000, 100_000]);
    rig.run(5000);
    assertEquals(rig.takeSent(), []);
  });

  it("an announcement wakes what rested because the gateway was silent", () => {
    const { rig, gateway } = rigWithMapping({ lifetimeSeconds: 600 });
    rig.answerer = SILENT;
    while (rig.now < 600 * SECOND || rig.client.mapping(1)?.state !== "error") rig.run(SECOND);
    rig.takeSent();
    rig.takeEvents();
    rig.answerer = gateway.answer;
    rig.feed(gateway.announcement(rig.now));
    rig.run(5000);
    assertEquals(rig.takeTypes(), ["external-address", "recovered"]);
  });

  it("an announcement hastens a request that waits for long", () => {
    const gateway = new ObligingGateway();
    const rig = new Rig();
    rig.do((client, now) => client.map(UDP_5000, now));
    rig.runTo(20_000);
    rig.answerer = gateway.answer;
    rig.takeSent();
    rig.feed(gateway.announcement(rig.now));
    rig.runTo(25_000);
    assertEquals([rig.takeSent().length, rig.takeTypes()], [1, ["external-address", "mapped"]]);
  });

  it("announcements do not bring a request's end nearer", () => {
    const gateway = new ObligingGateway();
    const rig = new Rig();
    rig.do((client, now) => client.map(UDP_5000, now));
    rig.runTo(63_750);
    rig.feed(gateway.announcement(rig.now));
    rig.runTo(GIVE_UP_AT - 1);
    assertEquals([rig.sent.length, rig.takeTypes()], [9, ["external-address"]]);
  });

  it("the wish of the mapping being asked for at the restart is not forgotten when it expires", () => {
    const { rig, gateway, id } = rigWithMapping({ lifetimeSeconds: 60 });
    rig.runTo(25_000);
    gateway.startedAt = rig.now;
    rig.answerer = SILENT;
    rig.feed(gateway.announcement(rig.now));
    rig.run(60_000);
    assertEquals(rig.takeTypes().includes("lost"), true);
    rig.answerer = gateway.answer;
    rig.run(200_000);
    assertEquals(rig.client.mapping(id)?.state, "running");
  });
});

describe("NatPmpClient: the external address", () => {
  it("is told when asked for, each time", () => {
    const rig = new Rig(new ObligingGateway().answer);
    rig.do((client, now) => client.externalAddress(now));
    rig.do((client, now) => client.externalAddress(now));
    const told = { type: "external-address", address: EXTERNAL, epochSeconds: 1000 } as const;
    assertEquals(rig.takeEvents(), [told, told]);
  });

  it("two questions at once are one packet", () => {
    const rig = new Rig();
    rig.do((client, now) => client.externalAddress(now));
    rig.do((client, now) => client.externalAddress(now));
    assertEquals([rig.sent.length, rig.client.stats.requests], [1, 1]);
  });

  it("a change moves the mappings told with another one", () => {
    const { rig, gateway } = rigWithMapping();
    rig.feed(gateway.announcement(rig.now));
    // It was not known before: nothing that was told has changed.
    assertEquals(rig.takeTypes(), ["external-address"]);
    gateway.externalAddress = NEW_ADDRESS;
    rig.feed(gateway.announcement(rig.now));
    const [address, moved] = rig.takeEvents();
    assertEquals(address?.type, "external-address");
    assert(moved?.type === "moved" && moved.mapping.externalAddress === NEW_ADDRESS);
  });

  it("is asked for again with renewals, so that a lost announcement is made good", () => {
    const { rig, gateway } = rigWithMapping();
    rig.do((client, now) => client.externalAddress(now));
    rig.takeEvents();
    gateway.externalAddress = NEW_ADDRESS;
    rig.runTo(HOUR);
    assertEquals(rig.takeTypes(), ["renewed", "external-address", "moved"]);
    rig.takeSent();
    rig.do((client, now) => client.cancelExternalAddress(now));
    rig.runTo(2 * HOUR);
    assertEquals(rig.takeSent().map(({ request }) => request.kind), ["map"]);
  });

  it("after a restart it is asked for first, so that what is recreated carries it", () => {
    const { rig, gateway } = rigWithMapping();
    rig.do((client, now) => client.externalAddress(now));
    rig.takeEvents();
    rig.takeSent();
    rig.runTo(HOUR - 1);
    gateway.startedAt = rig.now;
    gateway.externalAddress = NEW_ADDRESS;
    rig.feed(encodeMapResponse({ ...GRANT, epochSeconds: 0 }));
    rig.run(5000);
    assertEquals(rig.takeSent().map(({ request }) => request.kind), ["address", "map"]);
    assertEquals(rig.takeTypes(), ["gateway-restarted", "external-address", "moved"]);
  });

  it("cancelling the question lets the next request out", () => {
    const rig = new Rig();
    rig.do((client, now) => client.externalAddress(now));
    rig.do((client, now) => client.map(UDP_5000, now));
    rig.do((client, now) => client.cancelExternalAddress(now));
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
    rig.do((client, now) => client.externalAddress(now));
    rig.feed(zero);
    assertEquals(rig.takeEvents().map(failureOf), [{ kind: "protocol-violation", clause: "D-08" }]);
  });
});

describe("NatPmpClient: replies that are odd", () => {
  const odd: readonly [name: string, hex: string, version: number][] = [
    ["D-01, the RFC's figure", "00000001 00000e10", 0],
    ["D-01, as gateways send it", "00810001 00000e10", 0],
    ["D-01, 4 bytes", "00810001", 0],
    ["D-02, PCP's 24 bytes", "02810001 00000708 00000063 00000000 00000000 00000000", 2],
    ["12 bytes of another version, an echo", "02810002 a2a90000 004f8fd2", 2],
    ["2 bytes of another version", "0281", 2],
  ];
  for (const [name, hex, version] of odd) {
    it(`${name}: unsupported version, at once`, () => {
      const rig = new Rig();
      const id = rig.do((client, now) => client.map(UDP_5000, now));
      rig.feed(fromHex(hex));
      assertEquals(rig.takeEvents(), [
        { type: "failed", id, failure: { kind: "unsupported-version", version } },
      ]);
      assert(rig.client.isIdle);
    });
  }

  it("an 8-byte error answers what is on its way", () => {
    const rig = new Rig();
    rig.do((client, now) => client.map({ ...UDP_5000, mode: "once" }, now));
    rig.feed(fromHex("00810003 00000e10"));
    assertEquals(rig.takeEvents().map(failureOf), [
      { kind: "refused", code: 3, name: "NETWORK_FAILURE", retryAt: 30_000 },
    ]);
  });

  it("a request returned with UNSUPP_OPCODE answers it (D-03)", () => {
    const rig = new Rig();
    rig.do((client, now) => client.map({ ...UDP_5000, mode: "once" }, now));
    rig.feed(fromHex("00810005 00000e10 00001c20"));
    const [failure] = rig.takeEvents().map(failureOf) as { code: number }[];
    assertEquals(failure?.code, 5);
  });

  it("the refusal of a PCP request from the same socket is not taken for ours", () => {
    const rig = new Rig();
    rig.do((client, now) => client.externalAddress(now));
    rig.feed(fromHex("00810001 00000e10"));
    assertEquals([rig.events, rig.client.stats.dropped.unsolicited], [[], 1]);
  });

  it("PCP's messages are not NAT-PMP's: handed back", () => {
    const { rig } = rigWithMapping();
    const announcement = "02800000 00000000 00000000 00000000 00000000 00000000";
    assertEquals(rig.feed(fromHex(announcement)), false);
    assertEquals(rig.feed(fromHex("02800001 00000708 00000000 00000000 00000000 00000000")), false);
    assertEquals(rig.events, []);
  });

  it("another port of the gateway: announcements yes, answers no", () => {
    const rig = new Rig();
    rig.do((client, now) => client.map(UDP_5000, now));
    const from = { address: GATEWAY.address, port: 5350 };
    assertEquals(rig.feed(encodeMapResponse(GRANT), from), false);
    assertEquals(rig.feed(new ObligingGateway().announcement(0), from), true);
    assertEquals(rig.takeTypes(), ["external-address"]);
  });
});

describe("NatPmpClient: time", () => {
  it("a call that comes late does what is due once", () => {
    const { rig } = rigWithMapping();
    for (let port = 1; port <= 3; port++) {
      rig.do((client, now) => client.map({ protocol: "udp", internalPort: port }, now));
    }
    rig.takeSent();
    rig.takeEvents();
    rig.answerer = SILENT;
    rig.now = 30 * HOUR;
    rig.do((client, now) => client.handleTimeout(now));
    // All leases ran out in the sleep; one request leaves, the others wait for it.
    assertEquals(rig.takeSent().length, 1);
    assertEquals(rig.takeTypes(), ["lost", "lost", "lost", "lost"]);
    assertEquals(rig.client.mappings().map(({ state }) => state).sort(), [
      "error",
      "error",
      "error",
      "starting",
    ]);
  });

  it("a late call in the middle of an exchange sends again once, and waits on", () => {
    const rig = new Rig();
    rig.do((client, now) => client.map(UDP_5000, now));
    rig.now = HOUR;
    rig.do((client, now) => client.handleTimeout(now));
    rig.do((client, now) => client.handleTimeout(now));
    assertEquals(rig.takeTimes(), [0, HOUR]);
    assertEquals(rig.client.nextTimeout(), HOUR + 500);
  });

  it("early calls do nothing", () => {
    const { rig } = rigWithMapping();
    for (let now = 0; now < HOUR; now += 60_000) rig.client.handleTimeout(now);
    rig.drain();
    assertEquals([rig.sent, rig.events, rig.client.nextTimeout()], [[], [], HOUR]);
  });

  it("deadlines tell their reason", () => {
    const rig = new Rig();
    const reason = () => rig.client.debugTimeout()?.reason;
    assertEquals(reason(), undefined);
    rig.client.map(UDP_5000, 0);
    assertEquals(reason(), "output waits");
    rig.drain();
    assertEquals(reason(), "retransmit");
    rig.runTo(63_750);
    assertEquals(reason(), "give up");
    rig.feed(encodeMapResponse(GRANT));
    assertEquals(reason(), "renew mapping 1");
    rig.feed(encodeMapResponse({ ...GRANT, epochSeconds: 0 }));
    assertEquals(reason(), "recreate mappings");
    assertEquals(rig.client.debugTimeout()?.at, rig.client.nextTimeout());
  });

  it("silence fails what waited through it, not what came later, and no delete", () => {
    const rig = new Rig();
    rig.do((client, now) => client.externalAddress(now));
    rig.do((client, now) => client.map(UDP_5000, now));
    rig.do((client, now) => client.unmap("tcp", 99, now));
    rig.runTo(1000);
    const later = rig.do((client, now) => client.map({ protocol: "udp", internalPort: 1 }, now));
    rig.runTo(GIVE_UP_AT);
    assertEquals(rig.takeTypes(), ["external-address-failed", "failed"]);
    assertEquals(rig.client.mappings().map(({ id, state }) => [id, state]), [
      [2, "revoked"],
      [later, "requested"],
    ]);
    rig.run(GIVE_UP_AT + 250);
    assertEquals(rig.takeTypes(), ["unmapped", "failed"]);
  });
});

describe("NatPmpClient: over a restart of the application", () => {
  it("a new client adopts the mappings and renews them with their ports", () => {
    const { rig, gateway } = rigWithMapping();
    gateway.port = () => 41_000;
    rig.do((client, now) => client.map({ ...UDP_5000, lifetimeSeconds: 900 }, now));
    const state = JSON.parse(JSON.stringify(rig.client.exportState(rig.now)));
    assertEquals(state, {
      version: 1,
      mappings: [
        {
          protocol: "tcp",
          internalPort: 8080,
          externalPort: 8080,
          lifetimeSeconds: 7200,
          wantedSeconds: null,
        },
        {
          protocol: "udp",
          internalPort: 5000,
          externalPort: 41_000,
          lifetimeSeconds: 900,
          wantedSeconds: null,
        },
      ],
    });

    const next = new Rig(new ObligingGateway().answer, 2, state);
    assert(next.client.nextTimeout()! <= 0);
    next.runTo(123_456);
    assertEquals(next.sent.map(({ data }) => toHex(data)), [
      "000200001f901f9000001c20",
      "000100001388a02800000384",
    ]);
    assertEquals(next.takeTypes(), ["mapped", "mapped"]);
  });

  it("map() claims an adopted mapping, with its id and port", () => {
    const { rig } = rigWithMapping();
    const next = new Rig(SILENT, 2, rig.client.exportState(0));
    const [adopted] = next.client.mappings();
    const id = next.do((client, now) => client.map({ protocol: "tcp", internalPort: 8080 }, now));
    assertEquals(id, adopted?.id);
    assertEquals(next.sent.map(({ data }) => toHex(data)), ["000200001f901f9000001c20"]);
    assertThrows(() => next.client.map({ protocol: "tcp", internalPort: 8080 }, 0), TypeError);
  });

  it("map() of an adopted mapping that is granted already tells it again", () => {
    const { rig, gateway } = rigWithMapping();
    const next = new Rig(gateway.answer, 2, rig.client.exportState(0));
    next.runTo(10);
    assertEquals(next.takeTypes(), ["mapped"]);
    next.do((client, now) => client.map({ protocol: "tcp", internalPort: 8080 }, now));
    assertEquals([next.takeTypes(), next.sent.length], [["mapped"], 1]);
  });

  it("an adopted mapping can be deleted without being asked for first", () => {
    const { rig } = rigWithMapping();
    const next = new Rig(new ObligingGateway().answer, 2, rig.client.exportState(0));
    next.do((client, now) => client.revoke(client.mappings()[0]!.id, now));
    assertEquals(next.sent.map(({ data }) => toHex(data)), ["000200001f90000000000000"]);
  });

  it("a mapping wanted for a time is wanted for what is left of it", () => {
    const { rig } = rigWithMapping({ mode: 2, lifetimeSeconds: 600 });
    rig.runTo(900 * SECOND);
    const state = rig.client.exportState(rig.now);
    assertEquals(state.mappings[0]?.wantedSeconds, 300);
    const next = new Rig(new ObligingGateway().answer, 2, state);
    next.runTo(400 * SECOND);
    const [only, ...others] = next.takeSent().map(({ request }) => request);
    assertEquals([only?.kind === "map" && only.lifetimeSeconds, others], [300, []]);
    assertEquals(next.takeTypes(), ["mapped", "unmapped"]);
  });

  it("a state that is none is refused", () => {
    const mapping = {
      protocol: "tcp",
      internalPort: 1,
      externalPort: 1,
      lifetimeSeconds: 1,
      wantedSeconds: null,
    };
    const make = (state: unknown) => () => new Rig(SILENT, 1, state as NatPmpClientState);
    assertThrows(make({ version: 2, mappings: [] }), RangeError, "version");
    assertThrows(make({ version: 1, mappings: [{ ...mapping, protocol: "x" }] }), TypeError);
    assertThrows(make({ version: 1, mappings: [{ ...mapping, internalPort: 0 }] }), RangeError);
    assertThrows(make({ version: 1, mappings: [{ ...mapping, lifetimeSeconds: -1 }] }), RangeError);
  });
});

describe("NatPmpClient: the caller's mistakes", () => {
  const base = { protocol: "tcp", internalPort: 80 } as const;
  const wrong: readonly [name: string, request: object, text: string][] = [
    ["protocol", { ...base, protocol: "sctp" }, "sctp"],
    ["internal port 0", { ...base, internalPort: 0 }, "internalPort"],
    ["internal port 65536", { ...base, internalPort: 65536 }, "65536"],
    ["a port that is text", { ...base, internalPort: "80" }, '"80"'],
    ["external port -1", { ...base, suggestedExternalPort: -1 }, "suggestedExternalPort"],
    ["lifetime 0", { ...base, lifetimeSeconds: 0 }, "lifetimeSeconds"],
    ["lifetime 2^32", { ...base, lifetimeSeconds: 2 ** 32 }, "4294967296"],
    ["lifetime 1.5", { ...base, lifetimeSeconds: 1.5 }, "1.5"],
    ["mode 0", { ...base, mode: 0 }, "mode"],
    ["mode", { ...base, mode: "always" }, "always"],
  ];
  for (const [name, request, text] of wrong) {
    it(`${name}: thrown, by name or value, and nothing has happened`, () => {
      const rig = new Rig();
      assertThrows(() => rig.client.map(request as typeof base, 0), Error, text);
      assertEquals([rig.client.isIdle, rig.client.poll()], [true, undefined]);
    });
  }

  it("a gateway that is none", () => {
    const random = seededRandom(1);
    for (const gateway of [{ address: "nowhere", port: 1 }, { address: "10.0.0.1", port: 0 }]) {
      assertThrows(() => new NatPmpClient({ gateway, random }));
    }
  });
});

describe("mergeEvents()", () => {
  const mapping = {} as Extract<NatPmpEvent, { type: "mapped" }>["mapping"];
  const failure = { kind: "expired" } as const;
  const make = (type: string): NatPmpEvent => {
    if (type === "unmapped") return { type, id: 1, reason: "revoked" };
    if (type === "lost" || type === "failed") return { type, id: 1, failure };
    return { type: type as "mapped", id: 1, mapping };
  };
  const table: readonly [older: string, newer: string, merged: string][] = [
    ["mapped", "renewed", "mapped"],
    ["mapped", "moved", "mapped"],
    ["mapped", "lost", "lost"],
    ["mapped", "unmapped", "unmapped"],
    ["renewed", "renewed", "renewed"],
    ["renewed", "moved", "moved"],
    ["renewed", "lost", "lost"],
    ["moved", "renewed", "moved"],
    ["moved", "moved", "moved"],
    ["moved", "recovered", "moved"],
    ["moved", "lost", "lost"],
    ["recovered", "renewed", "recovered"],
    ["recovered", "moved", "recovered"],
    ["recovered", "lost", "lost"],
    ["lost", "recovered", "recovered"],
    ["lost", "failed", "lost"],
    ["lost", "unmapped", "unmapped"],
    ["failed", "mapped", "mapped"],
    ["failed", "failed", "failed"],
    ["failed", "recovered", "recovered"],
    ["failed", "unmapped", "unmapped"],
  ];
  for (const [older, newer, merged] of table) {
    it(`${older} + ${newer} = ${merged}`, () => {
      assertEquals(mergeEvents(make(older), make(newer)), make(merged));
    });
  }

  it("keeps the queue of a mapping that nobody looks at to one event and one datagram", () => {
    const gateway = new ObligingGateway();
    const client = new NatPmpClient({ gateway: GATEWAY, random: seededRandom(1) });
    client.map(UDP_5000, 0);
    for (let k = 0; k < 500; k++) {
      client.handleDatagram(
        encodeMapResponse({ ...GRANT, epochSeconds: k * HOUR }),
        GATEWAY,
        k * HOUR,
      );
      gateway.externalAddress = `198.51.100.${k % 200 + 1}`;
      client.handleDatagram(gateway.announcement(k * HOUR), GATEWAY, k * HOUR);
      client.handleTimeout((k + 1) * HOUR);
    }
    let actions = 0;
    while (client.poll()) actions++;
    assert(actions <= 4, `${actions} actions`);
  });
});

describe("NatPmpClient: many", () => {
  it("10,000 keep-alive mappings are all renewed, in 10,000 packets a period", () => {
    const gateway = new ObligingGateway();
    const rig = new Rig(gateway.answer);
    for (let port = 1; port <= 10_000; port++) {
      rig.client.map({ protocol: "udp", internalPort: port }, 0);
    }
    rig.drain();
    assertEquals(rig.takeSent().length, 10_000);
    rig.runTo(HOUR);
    rig.runTo(2 * HOUR);
    assertEquals(rig.takeSent().length, 20_000);
    assertEquals(rig.client.stats.retransmissions, 0);
  });

  it("100,000 mutated packets throw nothing and leave every mapping as it was", () => {
    const random = seededRandom(6886);
    const { rig, gateway } = rigWithMapping();
    for (let port = 1; port <= 20; port++) {
      rig.do((client, now) => client.map({ protocol: "udp", internalPort: port }, now));
    }
    rig.feed(gateway.announcement(rig.now));
    rig.takeEvents();
    rig.takeSent();
    const before = rig.client.mappings();
    const grants = before.map((mapping) => encodeMapResponse({ ...GRANT, ...mapping }));
    const seeds = [
      ...grants,
      ...grants.map((grant) => Uint8Array.from(grant, (byte, i) => i >= 10 ? 0 : byte)),
      fromHex("00810002 000003e8 00010000 00000000"),
      fromHex("00810001 000003e8"),
      fromHex("02800001 00000708 00000063 00000000 00000000 00000000"),
      gateway.announcement(0),
    ];
    const pick = (bound: number) => random.u32() % bound;

    for (let i = 0; i < 100_000; i++) {
      let bytes = seeds[pick(seeds.length)]!.slice();
      let from = GATEWAY;
      const isAddress = bytes[1] === 128;
      const mutation = pick(4);
      if (mutation === 0) bytes = bytes.subarray(0, pick(bytes.length));
      if (mutation === 1) from = { address: `192.168.1.${2 + pick(250)}`, port: 5351 };
      if (mutation === 2 && !isAddress) from = { ...from, port: pick(5351) };
      // A genuine announcement's address is the gateway's to choose: any flip there is believed.
      const flippable = isAddress && mutation !== 1 ? 8 : bytes.length;
      const flips = mutation === 3 ? 1 + pick(6) : pick(3);
      for (let k = 0; k < flips && bytes.length > 0; k++) {
        bytes[pick(Math.min(flippable, bytes.length))]! ^= 1 << pick(8);
      }
      // What flips have made an announcement would be believed too.
      const isBelieved = from.address === GATEWAY.address && bytes[0] === 0 && bytes[1] === 128;
      if (isBelieved && bytes.length >= 12) bytes.set([203, 0, 113, 7], 8);
      rig.feed(bytes, from);
    }

    assertEquals(rig.client.mappings(), before);
    assertEquals(new Set(rig.takeTypes()), new Set(["gateway-restarted"]));
    assertEquals(rig.sent, []);
    // And the recreation that flipped epochs have set off finds all where it was.
    gateway.startedAt = -1e12;
    rig.run(5000);
    assertEquals(new Set(rig.takeTypes()), new Set(["renewed"]));
    assertEquals(
      rig.client.mappings().map(({ externalPort }) => externalPort),
      before.map(({ externalPort }) => externalPort),
    );
  });

  it("the same seed and inputs give the same bytes and events", () => {
    const story = (seed: number) => {
      const gateway = new ObligingGateway();
      const rig = new Rig(gateway.answer, seed);
      rig.do((client, now) => client.externalAddress(now));
      rig.do((client, now) => client.map(UDP_5000, now));
      rig.runTo(HOUR + 5);
      gateway.startedAt = rig.now;
      rig.feed(gateway.announcement(rig.now));
      rig.runTo(3 * HOUR);
      return JSON.stringify([rig.sent.map(({ at, data }) => [at, toHex(data)]), rig.events]);
    };
    assertEquals(story(5), story(5));
    assert(story(5) !== story(6));
  });
});
