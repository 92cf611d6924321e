import { describe, it } from "node:test";
import { assert, assertEquals, assertThrows } from "@std/assert";
import { toHex } from "../../../core/bytes.ts";
import { SimulatedGateway } from "../../../core/gateway/gateway.ts";
import { decodeResponse as decodePcp } from "../../../core/pcp/codec.ts";
import { seededRandom } from "../../../core/random.ts";
import {
  ADDRESS_REQUEST,
  ALICE,
  ALICE6,
  announcedBy,
  BOB,
  EXTERNAL,
  natPmpMap,
  OTHER_NONCE,
  pcpAnnounce,
  pcpMap,
  Rig,
} from "./rig.ts";

describe("SimulatedGateway", () => {
  it("serves both protocols over one table", () => {
    const rig = new Rig().start();
    assertEquals(rig.mapNatPmp(80, { suggested: 8000 }), [0, 8000, 7200]);
    assertEquals(rig.mapPcp(80, { suggested: 9000 }), [0, 8000, 7200]);
    assertEquals(rig.mapPcp(81, { suggested: 8001, protocol: "udp" }), [0, 8001, 7200]);
    assertEquals(rig.mapNatPmp(81, { protocol: "udp" }), [0, 8001, 7200]);
    assertEquals(rig.gateway.table.size, 2);
    // D-18: who deletes one deletes the other.
    assertEquals(rig.mapNatPmp(81, { protocol: "udp", lifetime: 0 })?.[0], 0);
    assertEquals(rig.gateway.table.size, 1);
  });

  it("announces a boot by both protocols, ten times at doubling intervals", () => {
    const rig = new Rig();
    rig.gateway.start(0);
    const first = rig.drain().map(announcedBy);
    assertEquals(first, ["nat-pmp", "pcp"]);
    const later = rig.runTo(1_000_000);
    for (const via of ["nat-pmp", "pcp"] as const) {
      const times = later.filter(({ action }) => announcedBy(action) === via).map(({ at }) => at);
      assertEquals(times, [250, 750, 1750, 3750, 7750, 15750, 31750, 63750, 127750]);
    }
    assertEquals(rig.gateway.nextTimeout(), undefined);
  });

  it("boots first with the epoch that it is to start with, then with 0, and announces each", () => {
    const epochSeconds = 86_400;
    const rig = new Rig({ epochSeconds });
    /** What the announcements say: NAT-PMP's epoch in bytes 4 to 7, PCP's in 8 to 11. */
    const announced = () =>
      rig.drain().map((sent) => {
        const at = announcedBy(sent) === "pcp" ? 8 : 4;
        return parseInt(toHex(sent.data.subarray(at, at + 4)), 16);
      });
    rig.gateway.start(0);
    assertEquals(announced(), [epochSeconds, epochSeconds]);
    rig.now = 7000;
    assertEquals(rig.epochs(), [epochSeconds + 7, epochSeconds + 7]);
    rig.gateway.reboot(rig.now);
    assertEquals(announced(), [0, 0]);
    assertEquals(rig.epochs(), [0, 0]);
    for (const bad of [-1, 0.5, 2 ** 32]) {
      assertThrows(() => new Rig({ epochSeconds: bad }), RangeError, "'epochSeconds'");
    }
  });

  it("with one protocol off answers that one's requests in the other one's form", () => {
    const pmpOnly = new Rig({ protocols: ["nat-pmp"] }).start();
    assertEquals(toHex(pmpOnly.ask(pcpMap(80))), "0000000100000000");
    const pcpOnly = new Rig({ protocols: ["pcp"] }).start();
    // V-PCP-15 but for its epoch.
    assertEquals(
      toHex(pcpOnly.ask(ADDRESS_REQUEST)),
      "028000010000070800000000" + "00".repeat(12),
    );
    const none = new Rig({ protocols: [] }).start();
    assertEquals([none.gateway.isListening, none.feed(ADDRESS_REQUEST)], [false, []]);
  });

  it("is an IPv6 firewall where it has no external addresses", () => {
    const rig = new Rig({}, true), { gateway } = rig;
    gateway.start(0);
    assertEquals(rig.drain().map((s) => s.to), [{ address: "ff02::1", port: 5350 }]);
    const reply = decodePcp(rig.ask(pcpMap(22, { from: ALICE6, suggested: 2222 }), ALICE6));
    assert(typeof reply === "object" && reply.kind === "map");
    assertEquals(
      typeof reply === "object" && reply.kind === "map" &&
        [reply.resultCode, reply.externalAddress, reply.externalPort],
      [0, ALICE6.address, 22],
    );
    assertEquals(rig.feed(ADDRESS_REQUEST, ALICE), []);
    assertEquals(toHex(rig.ask(ADDRESS_REQUEST, ALICE6)).slice(0, 8), "02800001");
    assertThrows(() => gateway.setProtocol("nat-pmp", true, 0), TypeError, "does not translate");
    assertThrows(() => gateway.setExternalAddresses([EXTERNAL], 0), TypeError, "not translate");
  });

  it("takes requests from its inside only", () => {
    const rig = new Rig({ internalPrefixes: ["192.168.1.0/24"] }).start();
    for (const address of [EXTERNAL, "10.0.0.1", "2001:db8::1"]) {
      assertEquals(rig.feed(ADDRESS_REQUEST, { address, port: 9 }), []);
    }
    assertEquals(rig.gateway.stats.dropped.outside, 3);
    assertEquals(rig.address(), EXTERNAL);
    // Wherever its inside is, it is not where it is itself on the outside.
    const open = new Rig().start();
    assertEquals(open.feed(ADDRESS_REQUEST, { address: EXTERNAL, port: 9 }), []);
    assertEquals(open.gateway.stats.dropped, { off: 0, outside: 1, deaf: 0, silent: 0 });
    assertEquals(open.ask(ADDRESS_REQUEST, { address: "203.0.113.8", port: 9 }).length, 12);
  });

  it("asks the policy about every request it can read, and does as it says", () => {
    const seen: string[] = [];
    const rig = new Rig({
      decide: ({ via, operation, internal: { port } }) => {
        seen.push(`${via} ${operation} ${port}`);
        switch (port) {
          case 1:
            return { kind: "refuse", code: 4 };
          case 2:
            return { kind: "drop" };
          case 3:
            return { kind: "delay", delayMs: 100 };
          default:
            return undefined;
        }
      },
    }).start();
    assertEquals(rig.mapNatPmp(1)?.[0], 4);
    assertEquals(rig.mapPcp(1)?.[0], 4);
    assertEquals([rig.feed(natPmpMap(2)), rig.feed(pcpMap(2))], [[], []]);
    assertEquals(rig.feed(natPmpMap(3)), []);
    const delayed = rig.runTo(100).filter(({ action }) => action.to.address === ALICE.address);
    assertEquals(delayed.map(({ at }) => at), [100]);
    assertEquals(rig.mapPcp(4)?.[0], 0);
    rig.ask(ADDRESS_REQUEST);
    rig.ask(pcpAnnounce());
    rig.feed(natPmpMap(0, { lifetime: 0 }));
    assertEquals(seen, [
      "nat-pmp map 1",
      "pcp map 1",
      "nat-pmp map 2",
      "pcp map 2",
      "nat-pmp map 3",
      "pcp map 4",
      "nat-pmp address 0",
      "pcp announce 0",
      "nat-pmp delete-all 0",
    ]);
    const { natPmp, pcp } = rig.gateway.stats;
    assertEquals([natPmp.dropped.policy, pcp.dropped.policy], [1, 1]);
  });

  it("tells requests, responses and mappings where it traces, and nothing else", () => {
    const rig = new Rig({ trace: true }).start();
    rig.events.length = 0;
    rig.feed(natPmpMap(80, { suggested: 80 }));
    rig.feed(pcpMap(80));
    rig.feed(ADDRESS_REQUEST);
    const words = rig.events.map((event) => {
      if (event.type === "mapping") return event.change;
      return `${event.type} ${event.type === "request" ? event.request.via : event.via}`;
    });
    assertEquals(words, [
      "request nat-pmp",
      "response nat-pmp",
      "added",
      "request pcp",
      "response pcp",
      "renewed",
      "request nat-pmp",
      "response nat-pmp",
    ]);
    rig.events.length = 0;
    rig.runTo(7_200_000);
    const mappings = rig.events.filter((e) => e.type === "mapping");
    assertEquals(mappings.map((e) => e.change), ["expired"]);
    const silent = new Rig().start();
    silent.feed(natPmpMap(80));
    assertEquals(silent.events, []);
  });

  it("lists its table as copies", () => {
    const rig = new Rig().start();
    rig.mapPcp(80, { suggested: 80 });
    const [entry] = rig.gateway.list(0);
    rig.runTo(3_600_000);
    rig.mapPcp(80);
    assertEquals([entry!.external, entry!.expiresAt], [
      { address: EXTERNAL, port: 80 },
      7_200_000,
    ]);
  });

  it("forgets a client whose address lease is over", () => {
    const rig = new Rig({ trace: true }).start();
    rig.mapPcp(80);
    rig.mapNatPmp(81, { from: BOB });
    rig.events.length = 0;
    rig.gateway.forgetClient(ALICE.address, 0);
    rig.drain();
    const told = rig.events.map((e) => e.type === "mapping" && [e.change, e.entry.internal]);
    assertEquals(told, [["removed", { address: ALICE.address, port: 80 }]]);
    assertEquals(rig.gateway.list(0).map((e) => e.internal.address), [BOB.address]);
  });

  it("forwards both ways by its table, for as long as it is a NAT", () => {
    const rig = new Rig().start();
    rig.mapPcp(80, { suggested: 8080 });
    const { gateway } = rig;
    const inside = { address: ALICE.address, port: 80 };
    const outside = { address: EXTERNAL, port: 8080 };
    const remote = { address: "198.51.100.1", port: 7 };
    assertEquals(gateway.lookupInbound(6, outside, remote, 1), inside);
    assertEquals(gateway.lookupOutbound(6, inside, remote, 1), outside);
    assertEquals(gateway.lookupInbound(17, outside, remote, 1), undefined);
    assertEquals(gateway.lookupOutbound(6, { ...inside, port: 81 }, remote, 1), undefined);
    assertEquals(gateway.lookupInbound(6, outside, remote, 7_200_000), undefined);
    gateway.setNat(false, 2);
    assertEquals(gateway.lookupInbound(6, outside, remote, 3), undefined);
  });

  it("keeps the distance within a port set, and the port of an all-ports mapping", () => {
    const rig = new Rig().start();
    const set = { type: "port-set", size: 4, firstInternalPort: 6000, parity: false } as const;
    rig.feed(pcpMap(6000, { suggested: 7000, options: [set] }));
    const remote = { address: "198.51.100.1", port: 7 };
    assertEquals(
      rig.gateway.lookupInbound(6, { address: EXTERNAL, port: 7003 }, remote, 0),
      { address: ALICE.address, port: 6003 },
    );
    assertEquals(
      rig.gateway.lookupOutbound(6, { address: ALICE.address, port: 6002 }, remote, 0),
      { address: EXTERNAL, port: 7002 },
    );
    rig.feed(pcpMap(0, { protocol: "udp", nonce: OTHER_NONCE }));
    assertEquals(
      rig.gateway.lookupInbound(17, { address: EXTERNAL, port: 1234 }, remote, 0),
      { address: ALICE.address, port: 1234 },
    );
  });

  it("does everything it does again where the seed and the inputs are the same", () => {
    const run = (seed: number): string[] => {
      const rig = new Rig({ random: seededRandom(seed) }).start();
      rig.gateway.disturb({ lossRate: 0.3, reorderMs: 20, duplicate: true }, 0);
      for (let port = 1; port <= 40; port++) rig.feed(natPmpMap(port));
      return rig.runTo(1000).map(({ at, action }) => `${at} ${toHex(action.data)}`);
    };
    assertEquals(run(7), run(7));
    assert(run(7).join() !== run(8).join());
  });

  it("throws the caller's mistakes at once, with the name and the value", () => {
    const make = (options: object) => () =>
      new SimulatedGateway({ externalAddresses: [EXTERNAL], random: seededRandom(1), ...options });
    assertThrows(make({ random: undefined }), TypeError, "'random'");
    assertThrows(make({ externalAddresses: ["203.0.113"] }), TypeError, '"203.0.113"');
    assertThrows(make({ externalAddresses: ["::1"] }), TypeError, "IPv4");
    assertThrows(make({ protocols: ["stun"] }), TypeError, '"stun"');
    assertThrows(make({ protocols: ["upnp"] }), TypeError, "'upnp.interfaces'");
    assertThrows(make({ profile: "nonesuch" }), TypeError, "fritzbox-6360");
    assertThrows(make({ internalPrefixes: ["lan"] }), TypeError, '"lan"');
    assertThrows(make({ maxLifetimeSeconds: 0 }), RangeError, "'maxLifetimeSeconds'");
    assertThrows(make({ announcePort: 0 }), RangeError, "'announcePort'");
    assertThrows(
      () => new SimulatedGateway({ random: seededRandom(1), protocols: ["nat-pmp"] }),
      TypeError,
      "nat-pmp",
    );
    const { gateway } = new Rig().start();
    assertThrows(() => gateway.setRefusal(0, 0), RangeError, "'code'");
    assertThrows(() => gateway.setRefusal(1000, 0), RangeError, "'code'");
    assertThrows(() => gateway.disturb({ lossRate: 1.5 }, 0), RangeError, "'lossRate'");
    assertThrows(() => gateway.disturb({ delayMs: -1 }, 0), RangeError, "'delayMs'");
    assertThrows(() => gateway.setDeaf(-1, 0), RangeError, "'packets'");
    assertThrows(() => gateway.setEpoch(2 ** 32, 0), RangeError, "'seconds'");
    assertThrows(() => gateway.setExternalAddresses(["nowhere"], 0), TypeError, "nowhere");
    assertThrows(() => gateway.addStatic("tcp", 0, ALICE, 0), RangeError, "'externalPort'");
    assertThrows(() => gateway.setPermission("somebody", false, 0), TypeError, "somebody");
  });
});
