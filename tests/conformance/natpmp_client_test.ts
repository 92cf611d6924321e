/**
 * NAT-PMP's client clauses, PMP-C-01…35 (RFC 6886), one test an id.
 */
import { describe } from "node:test";
import { pickLocalAddress } from "../../adapters/discovery/local_address.ts";
import { fromHex, toHex } from "../../core/bytes.ts";
import type { SimulatedGateway } from "../../core/gateway/mod.ts";
import { classify } from "../../core/cidr.ts";
import {
  decodeResponse,
  encodeMapResponse,
  encodeUnsupportedVersionResponse,
  NATPMP_ANNOUNCE_ENDPOINT,
  NATPMP_LIFETIME_SECONDS,
  NATPMP_PORT,
} from "../../core/natpmp/codec.ts";
import { isNatPmpNetwork, NatPmpClient, type NatPmpEvent } from "../../core/natpmp/mod.ts";
import { seededRandom } from "../../core/random.ts";
import {
  choosing,
  EXTERNAL,
  GATEWAY,
  GIVE_UP_AT,
  NEW_EXTERNAL,
  NINE_ATTEMPTS,
  Rig,
  rigWithGateway,
  rigWithMapping,
  type Sent,
  takePort,
} from "../core/natpmp/rig.ts";
import { openMapper, rig as mapperRig } from "../core/portmap/rig.ts";
import { assert, assertEquals, assertThrows, it } from "./clause.ts";

const TCP_8080 = {
  protocol: "tcp",
  internalPort: 8080,
  suggestedExternal: { port: 8080 },
} as const;

const hexOf = (sent: Sent[]): string[] => sent.map(({ data }) => toHex(data));

type Scenario = (gateway: SimulatedGateway, now: number) => void;
const reboot: Scenario = (gateway, now) => gateway.reboot(now);
const announce: Scenario = (gateway, now) => gateway.announce(now);

/** Two mappings at a gateway, two hours' lifetime granted as asked. */
function rigWithTwo(): Rig {
  const { rig } = rigWithMapping();
  rig.do((client, now) => client.map({ protocol: "udp", internalPort: 5000 }, now));
  rig.takeSent();
  rig.takeEvents();
  return rig;
}

describe("NAT-PMP client clauses (RFC 6886)", () => {
  it("PMP-C-01: requests carry version 0 and big-endian numbers, addresses are read in natural order", () => {
    const rig = new Rig();
    rig.do((client, now) => client.map({ ...TCP_8080, lifetimeSeconds: 0x01020304 }, now));
    assertEquals(hexOf(rig.sent), ["000200001f901f9001020304"]);

    assertEquals<unknown>(decodeResponse(fromHex("00800000 00000e10 cb007107")), {
      kind: "address",
      resultCode: 0,
      epochSeconds: 3600,
      externalAddress: "203.0.113.7",
    });
  });

  it("PMP-C-02: only a host whose IPv4 address is RFC 1918's is told to use NAT-PMP", () => {
    const inside = ["10.0.0.1", "10.255.255.255", "172.16.0.1", "172.31.255.255", "192.168.1.2"];
    const outside = ["172.15.0.1", "172.32.0.1", "192.169.0.1", "100.64.0.1", "8.8.8.8", "fd00::1"];
    for (const address of inside) assert(isNatPmpNetwork(address), address);
    for (const address of outside) assert(!isNatPmpNetwork(address), address);
  });

  it("PMP-C-03: every request goes to the gateway's port 5351, nothing else", () => {
    assertEquals(NATPMP_PORT, 5351);
    const client = new NatPmpClient({ gateway: GATEWAY, random: seededRandom(1) });
    client.probe(0);
    client.map(TCP_8080, 0);
    client.revokeAll("udp", 0);
    for (let step = 0; step < 40; step++) {
      for (let action = client.poll(); action; action = client.poll()) {
        if (action.type === "send") assertEquals([action.to, action.socket], [GATEWAY, "client"]);
      }
      client.handleTimeout(client.nextTimeout() ?? 1e9);
    }
  });

  it("PMP-C-04: no more than one request is outstanding, the others wait their turn", () => {
    const rig = new Rig();
    rig.do((client, now) => {
      client.probe(now);
      for (let port = 1; port <= 20; port++) {
        client.map({ protocol: "udp", internalPort: port }, now);
      }
      client.revokeAll("tcp", now);
    });
    rig.runTo(NINE_ATTEMPTS.at(-1)!);
    assertEquals([...new Set(hexOf(rig.sent))], ["0000"]);
  });

  it("PMP-C-05: the next request leaves when the one before was answered, at the gateway's pace", () => {
    const { rig } = rigWithGateway();
    rig.scenario((gateway, now) => gateway.disturb({ delayMs: 200 }, now));
    rig.do((client, now) => {
      for (let port = 1; port <= 5; port++) {
        client.map({ protocol: "udp", internalPort: port }, now);
      }
    });
    rig.runTo(10_000);
    assertEquals(rig.takeTimes(), [0, 200, 400, 600, 800]);
  });

  it("PMP-C-06: the first retransmission comes after 250 ms, each wait is twice the one before", () => {
    const rig = new Rig();
    rig.do((client, now) => client.map({ ...TCP_8080, mode: "once" }, now));
    rig.runTo(1e9);
    assertEquals(new Set(hexOf(rig.sent)).size, 1);
    assertEquals(rig.takeTimes(), [...NINE_ATTEMPTS]);
  });

  it("PMP-C-07: 64 s after the ninth attempt the gateway is taken not to speak NAT-PMP", () => {
    const rig = new Rig();
    rig.do((client, now) => client.map({ ...TCP_8080, mode: "once" }, now));
    rig.runTo(GIVE_UP_AT - 1);
    assertEquals(rig.events, []);
    rig.runTo(GIVE_UP_AT);
    assertEquals(rig.events, [{ type: "failed", id: 1, failure: { kind: "no-answer" } }]);
    assert(rig.client.isIdle);
  });

  it("PMP-C-08: ICMP port unreachable ends all that waits at once", () => {
    const rig = new Rig();
    rig.do((client, now) => {
      client.probe(now);
      client.map({ ...TCP_8080, mode: "once" }, now);
    });
    rig.now = 5;
    rig.do((client, now) => client.handleUnreachable(GATEWAY, "client", now));
    assertEquals(rig.events, [
      { type: "external-address-failed", failure: { kind: "unreachable" } },
      { type: "failed", id: 1, failure: { kind: "unreachable" } },
    ]);
    assertEquals(rig.client.nextTimeout(), undefined);
    assertEquals(rig.sent.length, 1);
  });

  it("PMP-C-09: that the gateway was silent is not held against it, the next request leaves normally", () => {
    const { rig } = rigWithGateway();
    rig.deafen();
    rig.do((client, now) => client.map({ ...TCP_8080, mode: "once" }, now));
    rig.runTo(GIVE_UP_AT);
    rig.takeSent();
    rig.deafen(false);
    rig.do((client, now) => client.map(TCP_8080, now));
    assertEquals(rig.takeTimes(), [GIVE_UP_AT]);
    assertEquals(rig.takeTypes(), ["failed", "mapped"]);
  });

  it("PMP-C-10: a mapping no longer needed is deleted by at least one request, at most three", () => {
    const { rig, id } = rigWithMapping();
    rig.deafen();
    rig.do((client, now) => client.revoke(id, now));
    rig.runTo(1e6);
    assertEquals(rig.takeTimes(), [0, 250, 750]);
    assertEquals(rig.events, [
      { type: "unmapped", id, reason: "revoked", failure: { kind: "no-answer" } },
    ]);
  });

  it("PMP-C-11: nothing is deleted past the mapping's natural expiry", () => {
    const { rig, id } = rigWithMapping({ lifetimeSeconds: 1, mode: "once" });
    rig.deafen();
    rig.runTo(500);
    rig.do((client, now) => client.revoke(id, now));
    rig.runTo(1e6);
    // 500 and 750; the third, at 1250, would come after the end at 1000.
    assertEquals(rig.takeTimes(), [500, 750]);
    assertEquals(rig.takeTypes(), ["unmapped"]);
  });

  it("PMP-C-12: the request for the external address is exactly 00 00", () => {
    const rig = new Rig();
    rig.do((client, now) => client.probe(now));
    assertEquals(hexOf(rig.sent), ["0000"]);
  });

  it("PMP-C-13: the address field of an error is ignored", () => {
    const rig = new Rig();
    rig.do((client, now) => client.probe(now));
    rig.feed(fromHex("00800003 00000e10 cb007107"));
    assertEquals(rig.events.map((event) => event.type), ["external-address-failed"]);
    rig.feed(fromHex("00800003 00000e10 cb007107"));
    assertEquals(rig.events.length, 1);
  });

  it("PMP-C-14: an answer from another address or port than the gateway's is silently discarded", () => {
    const rig = new Rig();
    rig.do((client, now) => client.map(TCP_8080, now));
    // Forged, so made by hand.
    const answer = fromHex("00820000 00000e11 1f909cbb 00000e10");
    assert(!rig.feed(answer, { address: "192.168.1.9", port: 5351 }));
    assert(!rig.feed(answer, { address: GATEWAY.address, port: 5350 }));
    assertEquals([rig.events.length, rig.client.stats.dropped["wrong-source"]], [0, 2]);
    assert(rig.feed(answer));
    assertEquals(rig.takeTypes(), ["mapped"]);
  });

  it("PMP-C-15: an announcement from an address that is not the gateway's is silently discarded", () => {
    const { rig } = rigWithMapping();
    const restart = rig.overhear((gateway, now) => {
      gateway.setExternalAddresses([NEW_EXTERNAL], now);
      while (gateway.poll());
      gateway.reboot(now);
    });
    assert(!rig.feed(restart, { address: "192.168.1.254", port: 5351 }));
    assertEquals(rig.events, []);
    assertEquals(rig.client.stats.dropped["wrong-source"], 1);
  });

  it("PMP-C-16: an announcement feeds the epoch check and may carry a changed address", () => {
    const { rig } = rigWithMapping();
    rig.run(1000);
    const announcement = rig.overhear((gateway, now) => {
      gateway.setExternalAddresses([NEW_EXTERNAL], now);
    });
    rig.feed(announcement, { address: GATEWAY.address, port: 5350 });
    const [event] = rig.takeEvents();
    assert(event?.type === "external-address" && event.address === NEW_EXTERNAL);

    rig.scenario(reboot);
    assertEquals(rig.takeTypes(), ["gateway-restarted"]);
  });

  it("PMP-C-17: announcements are listened for on 224.0.0.1:5350, and taken without a question", () => {
    assertEquals(NATPMP_ANNOUNCE_ENDPOINT, { address: "224.0.0.1", port: 5350 });
    const [, socket] = openMapper({ announcements: true, protocols: ["nat-pmp"] }).sockets();
    assertEquals([socket?.group, socket?.local, socket?.reuse], [
      NATPMP_ANNOUNCE_ENDPOINT.address,
      NATPMP_ANNOUNCE_ENDPOINT,
      true,
    ]);
    const { rig } = rigWithGateway();
    assert(rig.feed(rig.overhear(announce)));
    assertEquals(rig.events, [{ type: "external-address", address: EXTERNAL, epochSeconds: 1000 }]);
    assertEquals(rig.sent, []);
  });

  it("PMP-C-18: the reserved field is zero in requests; what responses have more is ignored", () => {
    const rig = new Rig();
    rig.do((client, now) => client.map(TCP_8080, now));
    assertEquals([...rig.sent[0]!.data.subarray(2, 4)], [0, 0]);
    // Longer than a gateway's, so made by hand.
    const answer = fromHex("00820000 00000e11 1f909cbb 00000e10 ffffffff");
    rig.feed(answer);
    assertEquals(rig.client.mapping(1)?.externalPort, 40123);
  });

  it("PMP-C-19: the internal port is the listening one, the suggested one is the wish or 0 for any", () => {
    const { rig } = rigWithGateway();
    rig.do((client, now) => {
      client.map({ protocol: "udp", internalPort: 5000 }, now);
      client.map({ protocol: "udp", internalPort: 5001, suggestedExternal: { port: 80 } }, now);
    });
    const ports = rig.sent.map(({ request }) =>
      request.kind === "map" && [request.internalPort, request.suggestedExternalPort]
    );
    assertEquals(ports, [[5000, 0], [5001, 80]]);
  });

  it("PMP-C-20: the lifetime asked for is 7200 s unless the application says otherwise", () => {
    assertEquals(NATPMP_LIFETIME_SECONDS, 7200);
    const { rig } = rigWithGateway();
    rig.do((client, now) => {
      client.map({ protocol: "udp", internalPort: 1 }, now);
      client.map({ protocol: "udp", internalPort: 2, lifetimeSeconds: 60 }, now);
    });
    const lifetimes = rig.sent.map(({ request }) =>
      request.kind === "map" && request.lifetimeSeconds
    );
    assertEquals(lifetimes, [7200, 60]);
  });

  it("PMP-C-21: the granted port and lifetime count, whatever was asked for", () => {
    const { rig } = rigWithGateway({ ...choosing(40123), maxLifetimeSeconds: 100 });
    rig.scenario((gateway, now) => takePort(gateway, 8080, now));
    rig.do((client, now) => client.map(TCP_8080, now));
    const mapping = rig.client.mapping(1)!;
    assertEquals([mapping.externalPort, mapping.lifetimeSeconds], [40123, 100]);
    assertEquals([mapping.expiresAt, rig.client.nextTimeout()], [100_000, 50_000]);
  });

  it("PMP-C-22: renewing starts at half the granted lifetime", () => {
    const { rig } = rigWithMapping({ lifetimeSeconds: 100 }, { maxLifetimeSeconds: 80 });
    rig.runTo(200_000);
    assertEquals(rig.takeTimes(), [40_000, 80_000, 120_000, 160_000, 200_000]);
  });

  it("PMP-C-23: a renewal is the same packet, but for the suggested port: the one granted before", () => {
    const { rig } = rigWithGateway(choosing(40123));
    rig.scenario((gateway, now) => takePort(gateway, 8080, now));
    rig.do((client, now) => client.map(TCP_8080, now));
    rig.runTo(3_600_000);
    assertEquals(hexOf(rig.sent), ["000200001f901f9000001c20", "000200001f909cbb00001c20"]);
    assertEquals(rig.takeTypes(), ["mapped", "renewed"]);
  });

  it("PMP-C-24: a delete has lifetime 0 and suggested external port 0", () => {
    const { rig, id } = rigWithMapping();
    rig.do((client, now) => client.revoke(id, now));
    assertEquals(hexOf(rig.sent), ["000200001f90000000000000"]);
    assertEquals(rig.events, [{ type: "unmapped", id, reason: "revoked" }]);
  });

  it("PMP-C-25: the lifetime in the answer to a failed delete is ignored", () => {
    const { rig, id } = rigWithMapping();
    rig.deafen();
    rig.do((client, now) => client.revoke(id, now));
    // A lifetime beside an error, which no gateway by the RFC tells: made by hand.
    rig.feed(fromHex("00820002 00000e11 1f901f90 00001c20"));
    const [event] = rig.takeEvents();
    assert(event?.type === "unmapped" && event.failure?.kind === "refused");
    assertEquals([rig.client.isIdle, rig.client.nextTimeout()], [true, undefined]);
  });

  it("PMP-C-26: on a new address of its own the client maps again, and deletes nothing of others", () => {
    const { rig } = rigWithMapping();
    rig.do((client, now) => client.networkChanged("192.168.1.3", now));
    // What stands at this address may be another program's, or PCP's: the RFC's MAY is not used.
    assertEquals(hexOf(rig.sent), ["000200001f901f9000001c20"]);
    assertEquals(rig.takeTypes(), ["renewed"]);
  });

  it("PMP-C-27: a result code nobody knows is fatal for its request and for nothing else", () => {
    const { rig, id } = rigWithMapping({}, {
      decide: ({ internal }) => internal.port === 5000 ? { kind: "refuse", code: 4711 } : undefined,
    });
    rig.do((client, now) => client.map({ protocol: "udp", internalPort: 5000, mode: "once" }, now));
    assertEquals(rig.takeEvents(), [{
      type: "failed",
      id: 2,
      failure: { kind: "refused", code: 4711, name: "RESULT_4711", retryAt: 1_800_000 },
    }]);
    rig.do((client, now) => client.map({ protocol: "udp", internalPort: 5001 }, now));
    assertEquals(rig.takeTypes(), ["mapped"]);
    assertEquals(rig.client.mapping(id)?.state, "running");
  });

  it("PMP-C-28: a packet whose epoch fell behind makes the client renew all its leases", () => {
    const rig = rigWithTwo();
    rig.runTo(600_000);
    rig.scenario(reboot);
    rig.run(5000);
    const ports = rig.sent.map(({ request }) => request.kind === "map" && request.internalPort);
    assertEquals(ports, [8080, 5000]);
    assertEquals(rig.takeTypes(), ["gateway-restarted", "external-address", "renewed", "renewed"]);
  });

  it("PMP-C-29: the first recreation waits for a uniform time of 0…5 s", () => {
    const delays: number[] = [];
    for (let seed = 1; seed <= 400; seed++) {
      const { rig } = rigWithGateway({}, { seed });
      rig.do((client, now) => client.map(TCP_8080, now));
      rig.takeSent();
      rig.runTo(10_000);
      rig.scenario(reboot);
      assertEquals(rig.sent, []);
      rig.run(6000);
      delays.push(...rig.takeTimes().map((at) => at - 10_000));
    }
    assertEquals(delays.length, 400);
    const mean = delays.reduce((sum, delay) => sum + delay) / delays.length;
    assert(Math.min(...delays) < 100 && Math.max(...delays) > 4900 && Math.max(...delays) <= 5000);
    assert(mean > 2200 && mean < 2800, `mean ${mean}`);
  });

  it("PMP-C-30: mappings are recreated one by one, each when the one before was acknowledged", () => {
    const rig = rigWithTwo();
    rig.do((client, now) => client.map({ protocol: "udp", internalPort: 5001 }, now));
    rig.takeSent();
    rig.scenario((gateway, now) => gateway.disturb({ delayMs: 120 }, now));
    rig.runTo(600_000);
    rig.scenario(reboot);
    rig.run(6000);
    const [first, second, third] = rig.takeTimes();
    assertEquals([second! - first!, third! - first!], [120, 240]);
  });

  it("PMP-C-31: where there is no NAT-PMP the client says so and stays usable, it never throws", () => {
    const rig = new Rig();
    rig.do((client, now) => {
      client.probe(now);
      client.map({ ...TCP_8080, mode: "once" }, now);
    });
    rig.runTo(1e9);
    assertEquals(rig.takeTypes(), ["external-address-failed", "failed"]);
    assertEquals(rig.client.isIdle, true);
    rig.do((client, now) => client.close(now));
  });

  it("PMP-C-32: PCP first for each new request and renewal, NAT-PMP at once after its no", () => {
    for (const opcode of [undefined, 0, 1, 2]) {
      const bytes = encodeUnsupportedVersionResponse(
        opcode === undefined ? { epochSeconds: 9 } : { epochSeconds: 9, opcode },
      );
      assertEquals<unknown>(decodeResponse(bytes), {
        kind: "unsupported-version",
        version: 0,
        opcode,
        epochSeconds: 9,
      });
    }
    const request = { protocol: "tcp", internalPort: 8080, lifetimeSeconds: 600 } as const;
    /** What maps, by version: a question for the address changes nothing. */
    const mapsOf = (sent: readonly { at: number; data: Uint8Array }[]) =>
      sent.filter(({ data }) => data.length > 2).map(({ data }) => data[0]);
    const dual = mapperRig();
    dual.mapper((mapper, now) => mapper.map(request, now));
    dual.world.runFor(599_000);
    const maps = mapsOf(dual.sent);
    assert(maps.length >= 2 && maps.every((version) => version === 2), `versions ${maps}`);
    const old = mapperRig({ gateway: { protocols: ["nat-pmp"] } });
    for (const internalPort of [8080, 8081]) {
      old.sent.length = 0;
      const startedAt = old.world.now;
      old.mapper((mapper, now) => mapper.map({ ...request, internalPort }, now));
      old.world.runFor(1000);
      assertEquals(mapsOf(old.sent), [2, 0]);
      assertEquals(old.sent.find(({ data }) => data.length === 12)!.at, startedAt + 2);
    }
  });

  it("PMP-C-33: what version the gateway speaks is not remembered, in no state either", () => {
    const rig = new Rig();
    rig.do((client, now) => client.map({ ...TCP_8080, mode: "once" }, now));
    rig.feed(fromHex("02800001 00000708 00000063 00000000 00000000 00000000"));
    assertEquals(rig.takeEvents(), [
      { type: "failed", id: 1, failure: { kind: "unsupported-version", version: 2 } },
    ]);
    assertEquals(rig.client.exportState(rig.now), { version: 1, mappings: [] });
    rig.do((client, now) => client.map(TCP_8080, now));
    assertEquals(rig.sent.length, 2);
  });

  it("PMP-C-34: at an IPv6 gateway PCP is spoken, and a global IPv6 address is preferred", () => {
    assertEquals(classify("2001:4860::1"), "global");
    const random = seededRandom(1);
    assertThrows(
      () => new NatPmpClient({ gateway: { address: "2001:4860::1", port: 5351 }, random }),
      TypeError,
      "IPv4",
    );
    const gateway = { address: "fe80::1%eth0", port: 5351 };
    const mapper = openMapper({}, "2001:db8::100", gateway);
    mapper.map({ protocol: "tcp", internalPort: 8080 }, 0);
    const versions: (number | undefined)[] = [];
    for (let action = mapper.poll(); action; action = mapper.poll()) {
      if (action.type === "send") versions.push(action.data[0]);
    }
    assertEquals(versions, [2]);
    const nic = { name: "eth0", prefixLength: 64, internal: false };
    const addresses = ["fd00::1", "2001:db8::100"].map((address) => ({ ...nic, address }));
    assertEquals(pickLocalAddress(addresses, 6), "2001:db8::100");
  });

  it("PMP-C-35: an answer has to match opcode and internal port; anything else feeds the epoch only", () => {
    const rig = new Rig();
    rig.do((client, now) => client.map(TCP_8080, now));
    const fields = {
      resultCode: 0,
      externalPort: 7,
      lifetimeSeconds: 60,
      epochSeconds: 1000,
    } as const;
    // What no gateway answers to that request: made by hand.
    const strangers = [
      encodeMapResponse({ ...fields, protocol: "udp", internalPort: 8080 }),
      encodeMapResponse({ ...fields, protocol: "tcp", internalPort: 8081 }),
      encodeMapResponse({ ...fields, protocol: "tcp", internalPort: 0, externalPort: 0 }),
      fromHex("00ff0000 000003e8"),
    ];
    for (const stranger of strangers) assert(rig.feed(stranger));
    assertEquals(rig.events, []);
    assertEquals(rig.client.stats.dropped.unsolicited, strangers.length);

    const restarted: NatPmpEvent = { type: "gateway-restarted" };
    rig.feed(encodeMapResponse({ ...fields, protocol: "udp", internalPort: 1, epochSeconds: 3 }));
    assertEquals(rig.events, [restarted]);
  });
});
