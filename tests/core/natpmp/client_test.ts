import { describe, it } from "node:test";
import { assert, assertEquals, assertThrows } from "@std/assert";
import { toHex } from "../../../core/bytes.ts";
import type { ReplyChange } from "../../../core/gateway/mod.ts";
import { NatPmpClient } from "../../../core/natpmp/mod.ts";
import { seededRandom } from "../../../core/random.ts";
import {
  choosing,
  EXTERNAL,
  GATEWAY,
  HOST,
  Rig,
  rigWithGateway,
  rigWithMapping,
  takePort,
} from "./rig.ts";

const SECOND = 1000, HOUR = 3_600_000;
const UDP_5000 = { protocol: "udp", internalPort: 5000 } as const;

describe("NatPmpClient: what a mapping goes through", () => {
  it("requested, starting, running, updating, running", () => {
    const { rig } = rigWithGateway(choosing(40000));
    rig.scenario((gateway, now) => gateway.disturb({ delayMs: 300 }, now));
    rig.do((client, now) => client.probe(now));
    const id = rig.do((client, now) => client.map(UDP_5000, now));
    assertEquals(rig.client.mapping(id)?.state, "requested");
    rig.runTo(550);
    const starting = rig.client.mapping(id)!;
    assertEquals([starting.state, starting.attempt, starting.externalPort], ["starting", 2, 0]);
    rig.runTo(600);
    assertEquals(rig.client.mapping(id), {
      id,
      protocol: "udp",
      internalPort: 5000,
      externalPort: 40000,
      externalAddress: EXTERNAL,
      external: { address: EXTERNAL, port: 40000 },
      lifetimeSeconds: 7200,
      expiresAt: 600 + 7_200_000,
      state: "running",
      attempt: 0,
    });
    rig.runTo(600 + HOUR);
    // The address goes first only after a restart; here the renewal does.
    assertEquals(rig.client.mapping(id)?.state, "updating");
  });

  it("a granted mapping is told once, with what was granted", () => {
    const { rig } = rigWithGateway(choosing(40000));
    rig.scenario((gateway, now) => gateway.disturb({ duplicate: true }, now));
    const id = rig.do((client, now) => client.map(UDP_5000, now));
    const [event, ...others] = rig.takeEvents();
    assert(event?.type === "mapped" && event.id === id && event.mapping.externalPort === 40000);
    assertEquals(others, []);
    assertEquals(rig.client.stats.dropped.unsolicited, 1);
  });

  it("of gateways on loopback, which share its address, the port tells whose an announcement is", () => {
    const gateway = { address: "127.0.0.1", port: 40_000 };
    const client = new NatPmpClient({ gateway, random: seededRandom(1) });
    const word = Uint8Array.of(0, 128, 0, 0, 0, 0, 0, 1, 203, 0, 113, 9);
    assert(!client.handleDatagram(word, { ...gateway, port: 40_001 }, "announcements", 0));
    assertEquals([client.stats.announcements, client.stats.dropped["wrong-source"]], [0, 1]);
    assert(client.handleDatagram(word, gateway, "announcements", 0));
    assertEquals(client.stats.announcements, 1);
  });

  it("a renewal that comes back with another port has moved", () => {
    const { rig, id } = rigWithMapping({}, choosing(50_000));
    rig.scenario((gateway, now) => {
      gateway.forget(now);
      takePort(gateway, 8080, now);
    });
    rig.runTo(HOUR);
    const [event] = rig.takeEvents();
    assert(event?.type === "moved" && event.id === id && event.mapping.externalPort === 50_000);
    rig.runTo(2 * HOUR);
    assertEquals(rig.takeTypes(), ["renewed"]);
  });

  it("a renewal that fails is repeated at 3/4, 7/8… and takes nothing away before the end", () => {
    const { rig, id } = rigWithMapping();
    rig.deafen();
    rig.runTo(7200 * SECOND - 1);
    const bursts = rig.takeTimes().filter((at, i, all) => i === 0 || at - all[i - 1]! > 64_000);
    assertEquals(bursts, [3600, 5400, 6300, 6750, 6975, 7143.75].map((s) => s * SECOND));
    assertEquals([rig.events.length, rig.client.mapping(id)?.state], [0, "updating"]);
    rig.runTo(7200 * SECOND);
    assertEquals(rig.takeEvents(), [{ type: "lost", id, failure: { kind: "no-answer" } }]);
  });

  it("an answer lost for ever leads to lost, and the gateway's return to recovered", () => {
    const { rig, id } = rigWithMapping({ lifetimeSeconds: 60 });
    rig.deafen();
    rig.runTo(10 * 60 * SECOND);
    assertEquals(rig.takeTypes().slice(0, 1), ["lost"]);
    assert(rig.client.mapping(id) !== undefined);
    rig.deafen(false);
    rig.run(200 * SECOND);
    const [event] = rig.takeEvents().filter(({ type }) => type !== "failed");
    assert(event?.type === "recovered" && event.mapping.externalPort === 8080);
  });

  it("renewals of a short lease that fail are never less than 4 s apart", () => {
    const { rig } = rigWithMapping({ lifetimeSeconds: 30 });
    rig.deafen();
    // ICMP ends each renewal at once: what is left of the series is its own pace.
    for (let at = 15_000; at < 30_000; at += 100) {
      rig.runTo(at);
      rig.do((client, now) => client.handleUnreachable(GATEWAY, "client", now));
    }
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
    const { rig } = rigWithGateway();
    rig.scenario((gateway, now) => gateway.setExhausted(true, now));
    const id = rig.do((client, now) => client.map(UDP_5000, now));
    assertEquals(rig.takeEvents(), [{
      type: "failed",
      id,
      failure: { kind: "refused", code: 4, name: "OUT_OF_RESOURCES", retryAt: 30_000 },
      retryAt: 30_000,
    }]);
    assertEquals(rig.client.mapping(id)?.state, "error");
    rig.runTo(30_000);
    assertEquals([rig.takeTimes(), rig.takeTypes()], [[0, 30_000], ["failed"]]);
    rig.scenario((gateway, now) => gateway.setExhausted(false, now));
    rig.runTo(60_000);
    assertEquals(rig.takeTypes(), ["mapped"]);
  });

  it("a refusal for good is not repeated noisily: half an hour", () => {
    const { rig } = rigWithGateway({ profile: "not-authorized", protocols: ["nat-pmp"] });
    rig.do((client, now) => client.map(UDP_5000, now));
    rig.runTo(HOUR - 1);
    assertEquals(rig.takeTimes(), [0, HOUR / 2]);
  });

  it("a renewal that is refused keeps the mapping to its end, then it is lost with the reason", () => {
    const { rig, id } = rigWithMapping({ lifetimeSeconds: 600 });
    rig.scenario((gateway, now) => gateway.setPermission(HOST.address, false, now));
    rig.runTo(600 * SECOND);
    assertEquals(rig.takeTimes(), [300 * SECOND]);
    const [refused, event, ...others] = rig.takeEvents();
    assert(refused?.type === "renewal-failed" && refused.failure.kind === "refused");
    assert(event?.type === "lost" && event.failure.kind === "refused", event?.type);
    assertEquals(others, []);
    // The time of the refusal goes on: half an hour.
    rig.runTo(2099 * SECOND);
    assertEquals(rig.takeSent(), []);
    rig.scenario((gateway, now) => gateway.setPermission(HOST.address, true, now));
    rig.runTo(2100 * SECOND);
    assertEquals(rig.takeTypes(), ["recovered"]);
    assertEquals(rig.client.mapping(id)?.state, "running");
  });

  it("a refused renewal that tells of a restart has lost the mapping", () => {
    const { rig } = rigWithMapping();
    rig.run(3_599_000);
    rig.scenario((gateway, now) => {
      gateway.forget(now);
      gateway.setEpoch(3, now);
      gateway.setRefusal(4, now);
    });
    rig.run(1000);
    assertEquals(rig.takeTypes(), ["gateway-restarted", "lost"]);
  });

  it("D-08: a success with port 0 is a violation and is not published", () => {
    const decide =
      () => ({ kind: "reshape", changes: [{ kind: "external-port", port: 0 }] } as const);
    const { rig } = rigWithGateway({ decide });
    const id = rig.do((client, now) => client.map(UDP_5000, now));
    assertEquals(rig.takeEvents(), [
      {
        type: "failed",
        id,
        failure: { kind: "protocol-violation", clause: "D-08" },
        retryAt: 3000,
      },
    ]);
  });

  it("D-07: a success with lifetime 0 that is no delete means gone, not for ever", () => {
    let changes: readonly ReplyChange[] = [];
    const { rig, id } = rigWithMapping({}, { decide: () => ({ kind: "reshape", changes }) });
    changes = [{ kind: "lifetime", seconds: 0 }];
    rig.runTo(HOUR);
    assertEquals(rig.takeEvents(), [
      { type: "lost", id, failure: { kind: "expired" } },
    ]);
    assertEquals(rig.client.nextTimeout(), HOUR + 4000);
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
    let longest = 600;
    const { rig } = rigWithMapping({ mode: 2, lifetimeSeconds: 600 }, {
      decide: ({ lifetimeSeconds }) => ({
        kind: "reshape",
        changes: [{ kind: "lifetime", seconds: Math.min(lifetimeSeconds, longest) }],
      }),
    });
    longest = 500;
    rig.runTo(1200 * SECOND);
    const asked = rig.takeSent().map(({ request }) =>
      request.kind === "map" && request.lifetimeSeconds
    );
    assertEquals(asked, [600, 600, 400]);
    assertEquals(rig.takeTypes().at(-1), "unmapped");
  });

  it("once: a failure ends it", () => {
    const { rig } = rigWithGateway({ profile: "not-authorized", protocols: ["nat-pmp"] });
    rig.do((client, now) => client.map({ ...UDP_5000, mode: "once" }, now));
    assertEquals([rig.takeTypes(), rig.client.isIdle], [["failed"], true]);
  });

  it("once: a restarted gateway is asked for what is left", () => {
    const { rig } = rigWithMapping({ mode: "once", lifetimeSeconds: 600 });
    rig.runTo(400 * SECOND);
    rig.scenario((gateway, now) => gateway.reboot(now));
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

  it("renew: of a mapping that is refused at present the refusal is told at once", () => {
    const { rig } = rigWithGateway();
    rig.scenario((gateway, now) => gateway.setPermission(HOST.address, false, now));
    const id = rig.do((client, now) => client.map(UDP_5000, now));
    rig.scenario((gateway, now) => gateway.setPermission(HOST.address, true, now));
    rig.takeTypes();
    const revision = rig.do((client, now) => client.renew(id, undefined, now));
    const [event, ...others] = rig.takeEvents();
    const failure = {
      kind: "refused",
      code: 2,
      name: "NOT_AUTHORIZED",
      retryAt: HOUR / 2,
    } as const;
    assertEquals(event, { type: "renewal-failed", id, failure, revision, retryAt: HOUR / 2 });
    assertEquals(others, []);
    assertEquals(rig.takeTimes(), [0]);
  });

  it("renew: two at once are asked one after the other, each answered by its own answer", () => {
    const { rig, id } = rigWithMapping();
    rig.scenario((gateway, now) => gateway.disturb({ delayMs: 100 }, now));
    const revisions = [3600, 60].map((lifetime) =>
      rig.do((client, now) => client.renew(id, lifetime, now))
    );
    rig.runTo(10_000);
    const asked = rig.sent.map(({ request }) => request.kind === "map" && request.lifetimeSeconds);
    assertEquals(asked, [3600, 60]);
    const told = rig.takeEvents().map((event) =>
      event.type === "renewed" && [event.revision, event.mapping.lifetimeSeconds]
    );
    assertEquals(told, [[revisions[0]!, 3600], [revisions[1]!, 60]]);
    assertEquals(rig.client.mapping(id)?.lifetimeSeconds, 60);
  });
});

describe("NatPmpClient: ends", () => {
  it("revoke: what came next in line is not deleted where its request has not left yet", () => {
    const rig = new Rig();
    const ids = [80, 81].map((internalPort) =>
      rig.do((client, now) => client.map({ protocol: "tcp", internalPort }, now))
    );
    rig.sent.length = 0;
    // As the first is taken back, the second is about to leave.
    rig.do((client, now) => {
      for (const id of ids) client.revoke(id, now);
    });
    const deleted = rig.sent.map(({ request }) => request.kind === "map" && request.internalPort);
    assertEquals(deleted, [80]);
    assertEquals(rig.takeEvents().map(({ type }) => type), ["unmapped"]);
  });

  it("revoke: nothing is sent for what the gateway has never heard of", () => {
    const rig = new Rig();
    rig.do((client, now) => client.probe(now));
    const id = rig.do((client, now) => client.map(UDP_5000, now));
    rig.do((client, now) => client.revoke(id, now));
    assertEquals(rig.takeEvents(), [{ type: "unmapped", id, reason: "revoked" }]);
    assertEquals(rig.sent.length, 1);
  });

  it("revoke: a request on its way ends, and the delete leaves at once", () => {
    const { rig } = rigWithGateway();
    rig.scenario((gateway, now) => gateway.disturb({ delayMs: 100 }, now));
    const id = rig.do((client, now) => client.map(UDP_5000, now));
    rig.run(50);
    rig.do((client, now) => client.revoke(id, now));
    assertEquals(rig.client.mapping(id)?.state, "revoked");
    assertEquals(rig.sent.map(({ data }) => toHex(data).slice(16)), ["00001c20", "00000000"]);
    // The late grant is no answer to the delete.
    rig.run(50);
    assertEquals([rig.events, rig.client.stats.dropped.stale], [[], 1]);
    rig.run(50);
    assertEquals(rig.takeEvents(), [{ type: "unmapped", id, reason: "revoked" }]);
  });

  it("a second answer to a delete is no answer to the mapping made right after it", () => {
    const { rig, id } = rigWithMapping();
    rig.scenario((gateway, now) => gateway.disturb({ duplicate: true, reorderMs: 200 }, now));
    rig.do((client, now) => client.revoke(id, now));
    while (rig.events.length === 0) rig.run(1);
    const calm = { duplicate: false, reorderMs: 0, delayMs: 240 };
    rig.scenario((gateway, now) => gateway.disturb(calm, now));
    rig.do((client, now) => client.map({ protocol: "tcp", internalPort: 8080 }, now));
    rig.run(239);
    assertEquals(rig.client.stats.dropped.stale, 1);
    rig.run(1);
    assertEquals(rig.takeTypes(), ["unmapped", "mapped"]);
  });

  it("revoke: a refused delete is told, and over", () => {
    const { rig, id } = rigWithMapping();
    rig.scenario((gateway, now) => gateway.setPermission(HOST.address, false, now));
    rig.do((client, now) => client.revoke(id, now));
    const [event] = rig.takeEvents();
    assert(event?.type === "unmapped" && event.failure?.kind === "refused");
    assert(rig.client.isIdle);
  });

  it("revoke: a port being deleted can be mapped again, after the delete", () => {
    const { rig, id } = rigWithMapping();
    rig.deafen();
    rig.do((client, now) => client.revoke(id, now));
    const next = rig.do((client, now) => client.map({ protocol: "tcp", internalPort: 8080 }, now));
    assertEquals(rig.client.mappings().map(({ id, state }) => [id, state]), [
      [id, "revoked"],
      [next, "requested"],
    ]);
    rig.runTo(2000);
    assertEquals(rig.takeTimes(), [0, 250, 750, 1750, 2000]);
  });

  it("revoke and renew and abandon do nothing to what is gone, and refuse what never was", () => {
    const { rig, id } = rigWithMapping();
    rig.do((client, now) => client.abandon(id, now));
    rig.do((client, now) => client.revoke(id, now));
    rig.do((client, now) => client.renew(id, 5, now));
    rig.do((client, now) => client.abandon(id, now));
    for (const never of [77, -1, NaN]) {
      assertThrows(() => rig.client.revoke(never, 0), RangeError, "'id' must be");
      assertThrows(() => rig.client.renew(never, 5, 0), RangeError, "'id' must be");
      assertThrows(() => rig.client.abandon(never, 0), RangeError, "'id' must be");
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
    rig.takeSent();
    // The other protocol's mapping is still one of its own.
    rig.do((client, now) => client.revoke(udp, now));
    assertEquals(rig.sent.map(({ data }) => toHex(data)), ["000100001388000000000000"]);
  });

  it("revokeAll: of both protocols each is told by its own answer", () => {
    const { rig, id } = rigWithMapping();
    const udp = rig.do((client, now) => client.map(UDP_5000, now));
    rig.takeEvents();
    rig.do((client, now) => {
      client.revokeAll("tcp", now);
      client.revokeAll("udp", now);
    });
    assertEquals(rig.takeEvents(), [
      { type: "unmapped", id, reason: "revoked" },
      { type: "all-unmapped", protocol: "tcp" },
      { type: "unmapped", id: udp, reason: "revoked" },
      { type: "all-unmapped", protocol: "udp" },
    ]);
  });

  it("revokeAll: a refusal is told", () => {
    const { rig } = rigWithGateway({ profile: "not-authorized", protocols: ["nat-pmp"] });
    rig.do((client, now) => client.revokeAll("udp", now));
    const [event] = rig.takeEvents();
    assert(event?.type === "all-unmapped" && event.failure?.kind === "refused");
  });

  it("unmap: deletes what this client never made", () => {
    const { rig } = rigWithGateway();
    const id = rig.do((client, now) => client.unmap({ protocol: "tcp", internalPort: 8080 }, now));
    assertEquals(rig.sent.map(({ data }) => toHex(data)), ["000200001f90000000000000"]);
    assertEquals(rig.takeEvents(), [{ type: "unmapped", id, reason: "revoked" }]);
  });

  it("unmap: is revoke for what it has made", () => {
    const { rig, id } = rigWithMapping();
    assertEquals(
      rig.do((client, now) => client.unmap({ protocol: "tcp", internalPort: 8080 }, now)),
      id,
    );
    assertEquals([rig.sent.length, rig.takeTypes(), rig.client.isIdle], [1, ["unmapped"], true]);
  });

  it("close: deletes all, and then nothing is left and nothing can be made", () => {
    const { rig } = rigWithMapping();
    rig.do((client, now) => client.map(UDP_5000, now));
    rig.do((client, now) => client.probe(now));
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
    rig.deafen();
    rig.do((client, now) => client.close(now));
    rig.run(HOUR);
    assertEquals(rig.takeTimes(), [0, 250, 750, 1750, 2000, 2250, 2500]);
    assert(rig.client.isIdle);
  });
});
