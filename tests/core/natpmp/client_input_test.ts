import { describe, it } from "node:test";
import { assert, assertEquals, assertThrows } from "@std/assert";
import { fromHex } from "../../../core/bytes.ts";
import type { NatPmpEvent } from "../../../core/natpmp/mod.ts";
import { NatPmpClient } from "../../../core/natpmp/client.ts";
import { encodeMapResponse } from "../../../core/natpmp/codec.ts";
import { seededRandom } from "../../../core/random.ts";
import { GATEWAY, GIVE_UP_AT, Rig, rigWithGateway, rigWithMapping } from "./rig.ts";

const HOUR = 3_600_000;
const UDP_5000 = { protocol: "udp", internalPort: 5000 } as const;
const GRANT = {
  protocol: "udp",
  resultCode: 0,
  epochSeconds: 1000,
  internalPort: 5000,
  externalPort: 40000,
  lifetimeSeconds: 7200,
} as const;

function failureOf(event: NatPmpEvent | undefined): unknown {
  return event && "failure" in event ? event.failure : undefined;
}

it("NatPmpClient: names a gateway that is none, and a protocol that is not its own", () => {
  const random = seededRandom(1);
  for (
    const [gateway, message] of [
      [{ address: "fe80::1", port: 5351 }, "'gateway.address'"],
      [{ address: "192.168.1.1", port: 0 }, "'gateway.port'"],
    ] as const
  ) assertThrows(() => new NatPmpClient({ gateway, random }), Error, message);
  const { client } = new Rig();
  assertThrows(() => client.map({ protocol: 33, internalPort: 1 }, 0), TypeError, "value is 33");
  assertEquals(
    client.unfit({ protocol: 33, internalPort: 1 }),
    "'protocol' must be tcp or udp: current value is 33",
  );
});

it("NatPmpClient: what waits to be fetched is due at the moment of the last call (rule 3)", () => {
  const calls: readonly ((client: NatPmpClient, id: number) => unknown)[] = [
    (client) => client.map(UDP_5000, 7),
    (client, id) => client.renew(id, undefined, 7),
    (client, id) => client.revoke(id, 7),
    (client) => client.unmap(UDP_5000, 7),
    (client) => client.revokeAll("udp", 7),
    (client, id) => client.withdraw(id, 7),
    (client) => client.probe(7),
    (client) => client.endProbe(7),
    (client) => client.close(7),
    (client) => client.networkChanged("192.168.1.3", 7),
    (client) => client.handleDatagram(fromHex("00810001 00000e10"), GATEWAY, "client", 7),
    (client) => client.handleUnreachable(GATEWAY, "client", 7),
    (client) => client.handleTimeout(7),
  ];
  for (const [i, call] of calls.entries()) {
    const { client } = new Rig();
    const id = client.map({ protocol: "tcp", internalPort: 1 }, 5);
    client.map({ protocol: "tcp", internalPort: 2 }, 5);
    call(client, id);
    assertEquals(client.nextTimeout(), 7, `call ${i}`);
  }
});

it("NatPmpClient: counts from 0", () => {
  const { dropped, ...counts } = new Rig().client.stats;
  const all = [...Object.values(dropped), ...Object.values(counts)];
  assert(all.every((count) => count === 0));
  assertEquals(Object.keys(dropped).length, 6);
});

// The bytes here are made by hand: they are what no gateway by the RFC says.
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
      const once = { ...UDP_5000, mode: "once" } as const;
      const id = rig.do((client, now) => client.map(once, now));
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
    rig.do((client, now) => client.probe(now));
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
    const { rig } = rigWithGateway();
    rig.deafen();
    rig.do((client, now) => client.map(UDP_5000, now));
    const from = { address: GATEWAY.address, port: 5350 };
    const announcement = rig.overhear((gateway, now) => gateway.announce(now));
    assertEquals(rig.feed(encodeMapResponse(GRANT), from), false);
    assertEquals(rig.feed(announcement, from), true);
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
    rig.deafen();
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
    const { rig } = rigWithGateway();
    rig.scenario((gateway, now) => gateway.disturb({ delayMs: 64_000 }, now));
    const reason = () => rig.client.debugTimeout()?.reason;
    assertEquals(reason(), undefined);
    rig.client.map(UDP_5000, 0);
    assertEquals(reason(), "output waits");
    rig.drain();
    assertEquals(reason(), "retransmit");
    rig.runTo(63_750);
    assertEquals(reason(), "give up");
    rig.runTo(64_000);
    assertEquals(reason(), "granted, mapping 1");
    rig.scenario((gateway, now) => {
      gateway.disturb({ delayMs: 0 }, now);
      gateway.reboot(now);
    });
    assertEquals(reason(), "recovering, mapping 1");
    assertEquals(rig.client.debugTimeout()?.at, rig.client.nextTimeout());
  });

  it("silence fails what waited through it, not what came later, and no delete", () => {
    const rig = new Rig();
    rig.do((client, now) => client.probe(now));
    rig.do((client, now) => client.map(UDP_5000, now));
    rig.do((client, now) => client.unmap({ protocol: "tcp", internalPort: 99 }, now));
    rig.runTo(1000);
    const later = rig.do((client, now) => client.map({ protocol: "udp", internalPort: 1 }, now));
    rig.runTo(GIVE_UP_AT);
    assertEquals(rig.takeTypes(), ["external-address-failed", "failed"]);
    assertEquals(rig.client.mappings().map(({ id, state }) => [id, state]), [
      [1, "error"],
      [2, "revoked"],
      [later, "requested"],
    ]);
    rig.run(GIVE_UP_AT + 250);
    assertEquals(rig.takeTypes(), ["unmapped", "failed"]);
  });
});
