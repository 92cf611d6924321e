import { describe, it } from "node:test";
import { assert, assertEquals, assertThrows } from "@std/assert";
import { toHex, u16, u32 } from "../../../core/bytes.ts";
import { profileNamed, PROFILES } from "../../../core/gateway/profiles.ts";
import { decodeResponse as decodeNatPmp } from "../../../core/natpmp/codec.ts";
import { decodeResponse as decodePcp } from "../../../core/pcp/codec.ts";
import {
  ADDRESS_REQUEST,
  ALICE,
  ALICE6,
  BOB,
  EXTERNAL,
  natPmpMap,
  OTHER_NONCE,
  pcpAnnounce,
  pcpMap,
  pcpPeer,
  Rig,
} from "./rig.ts";

const FIREWALL = true;

function rigOf(profile: string, isFirewall: boolean = false): Rig {
  const rig = new Rig({ profile }, isFirewall).start();
  rig.runTo(3_600_000);
  return rig;
}

/** What a client sees, one test a profile. */
const SEEN: Readonly<Record<string, () => void>> = {
  "fritzbox-6360": () => {
    const rig = rigOf("fritzbox-6360");
    assertEquals(toHex(rig.ask(ADDRESS_REQUEST)), "028000010000070800000e10");
    assertEquals(toHex(rig.ask(natPmpMap(80))), "028200010000070800000e10");
    assertEquals(rig.mapPcp(80)?.[0], 0);
  },

  "archer-a7": () => {
    const rig = rigOf("archer-a7");
    assertEquals(toHex(rig.ask(pcpMap(80))), "0081000100000e10");
    assertEquals([rig.address(), rig.mapNatPmp(80)?.[0]], [EXTERNAL, 0]);
    rig.gateway.setExhausted(true, rig.now);
    assertEquals(toHex(rig.ask(natPmpMap(81))), "0082000400000e10");
  },

  "two-byte-replies": () => {
    const rig = rigOf("two-byte-replies");
    assertEquals(toHex(rig.ask(ADDRESS_REQUEST)), "0080");
    assertEquals(toHex(rig.ask(natPmpMap(80))), "0082");
    assertEquals(toHex(rig.ask(pcpMap(80))), "0000");
    rig.gateway.announce(rig.now);
    assertEquals(rig.drain().map((s) => s.data.length), [12]);
  },

  "verizon-cr1000a": () => {
    const rig = rigOf("verizon-cr1000a");
    assertEquals(toHex(rig.ask(pcpAnnounce())), "0080000100000e10");
    assertEquals(toHex(rig.ask(pcpMap(80))), "0081000100000e10");
    assertEquals(rig.mapNatPmp(80)?.[0], 0);
  },

  "huawei-hg8145v5": () => {
    const rig = new Rig({ profile: "huawei-hg8145v5" });
    rig.gateway.start(0);
    assertEquals([rig.gateway.isListening, rig.drain()], [false, []]);
    assertEquals([rig.feed(ADDRESS_REQUEST), rig.feed(pcpMap(80))], [[], []]);
    assertEquals(rig.gateway.nextTimeout(), undefined);
  },

  "routeros": () => {
    const rig = rigOf("routeros");
    assertEquals(rig.mapNatPmp(80, { suggested: 0 }), [4, 0, 0]);
    assertEquals(rig.mapNatPmp(80, { suggested: 80 }), [0, 80, 7200]);
    assertEquals(rig.mapNatPmp(80, { lifetime: 0 })?.[0], 0);
    assertEquals(toHex(rig.ask(pcpMap(80))), "0000000100000e10");
  },

  "address-mismatch": () => {
    const rig = rigOf("address-mismatch");
    assertEquals([rig.mapPcp(80)?.[0], rig.ask(pcpPeer(80))[3]], [12, 12]);
    assertEquals(u32(rig.ask(pcpMap(80)), 4), 1800);
    assertEquals([rig.mapPcp(80, { lifetime: 0 })?.[0], rig.ask(pcpAnnounce())[3]], [12, 0]);
    assertEquals([rig.address(), rig.mapNatPmp(80)?.[0]], [EXTERNAL, 0]);
  },

  "not-authorized": () => {
    const rig = rigOf("not-authorized");
    assertEquals([rig.mapPcp(80)?.[0], rig.mapNatPmp(80)?.[0]], [2, 2]);
    assertEquals([rig.ask(pcpPeer(80))[3], rig.mapPcp(80, { lifetime: 0 })?.[0]], [2, 2]);
    assertEquals(rig.mapNatPmp(0, { lifetime: 0 })?.[0], 2);
    assertEquals([rig.address(), rig.ask(pcpAnnounce())[3]], [EXTERNAL, 0]);
  },

  "opnsense": () => {
    const rig = rigOf("opnsense", FIREWALL);
    const map = () => rig.mapPcp(80, { from: ALICE6 });
    assertEquals(map(), [0, 80, 7200]);
    assertEquals(map()?.[0], 8);
    assertEquals(rig.mapPcp(80, { from: ALICE6, lifetime: 0 })?.[0], 0);
    assertEquals(map()?.[0], 0);
    const four = rigOf("opnsense");
    assertEquals([four.mapPcp(80)?.[0], four.mapPcp(80)?.[0]], [0, 0]);
  },

  "miniupnpd": () => {
    const rig = rigOf("miniupnpd");
    assertEquals(rig.mapPcp(80, { lifetime: 1 })?.[2], 120);
    assertEquals(rig.mapPcp(81, { lifetime: 0xffffffff })?.[2], 604_800);
    assertEquals(rig.mapNatPmp(82, { lifetime: 1 })?.[2], 1);
    assertEquals(rig.mapNatPmp(83, { lifetime: 0xffffffff })?.[2], 0xffffffff);
    assertEquals(u32(rig.ask(pcpPeer(84, { lifetime: 1 })), 4), 120);
    assertEquals(toHex(rig.ask(Uint8Array.of(1, 1))), "0081000100000e10");
    rig.gateway.announce(rig.now);
    assertEquals(rig.drain().map((s) => [s.data[0], s.to.port]), [[0, 5350], [0, 5351], [2, 5350]]);
  },

  "miniupnpd-2.3.1": () => {
    // A start announces by PCP alone, once.
    const rig = new Rig({ profile: "miniupnpd-2.3.1" });
    rig.gateway.start(0);
    assertEquals(rig.drain().map((s) => s.data[0]), [2]);
    assertEquals(rig.runTo(3_600_000), []);
    // NAT-PMP: 8-byte errors with the opcode echoed, no cap on lifetimes, no wildcard.
    assertEquals(toHex(rig.ask(Uint8Array.of(1, 1))), "0081000100000e10");
    assertEquals(toHex(rig.ask(Uint8Array.of(0, 9, 0, 0, 1, 2, 3, 4, 5, 6))), "0089000500000e10");
    assertEquals(rig.mapNatPmp(4000, { lifetime: 0x7fffffff }), [0, 4000, 0x7fffffff]);
    assertEquals(rig.mapNatPmp(0), [2, 0, 0]);
    // Ports are searched upwards; when there is none, result 3.
    assertEquals(rig.mapNatPmp(4000, { from: BOB }), [0, 4001, 7200]);
    rig.gateway.setExhausted(true, rig.now);
    assertEquals(rig.mapNatPmp(4100), [3, 0, 0]);
    rig.gateway.setExhausted(false, rig.now);
    // Delete-all takes both protocols.
    rig.mapNatPmp(4000, { protocol: "udp" });
    assertEquals(rig.mapNatPmp(0, { lifetime: 0 })?.[0], 0);
    assertEquals(rig.gateway.list(rig.now).map((e) => e.internal.address), [BOB.address]);
    // PCP: limits, padding, deletes of nothing, takeovers by another nonce.
    assertEquals(rig.mapPcp(50, { lifetime: 1, suggested: 50 }), [0, 50, 120]);
    assertEquals(rig.mapPcp(53, { lifetime: 86_401 })?.[2], 86_400);
    assertEquals(u32(rig.ask(pcpPeer(54, { lifetime: 1 })), 4), 120);
    const text = { type: "description", text: "abcde" } as const;
    assertEquals(rig.mapPcp(51, { options: [text] })?.[0], 6);
    assertEquals(rig.mapPcp(51, { options: [{ ...text, text: "abcd" }] })?.[0], 0);
    assertEquals(rig.mapPcp(52, { lifetime: 0 })?.[0], 8);
    assertEquals(rig.ask(pcpPeer(60))[3], 0);
    assertEquals(rig.ask(pcpPeer(60, { lifetime: 0 }))[3], 8);
    assertEquals(rig.mapPcp(50, { lifetime: 0, nonce: OTHER_NONCE })?.[0], 2);
    assertEquals(rig.mapPcp(50, { nonce: OTHER_NONCE })?.slice(0, 2), [0, 50]);
    assertEquals(rig.mapPcp(50, { lifetime: 0 })?.[0], 2);
    assertEquals(rig.mapPcp(50, { lifetime: 0, nonce: OTHER_NONCE })?.[0], 0);
    // PREFER_FAILURE: honoured for a wrong address, ignored for a port in use.
    const exact = { options: [{ type: "prefer-failure" }], suggested: 51 } as const;
    assertEquals(rig.mapPcp(70, { ...exact, from: BOB })?.[0], 0);
    const elsewhere = { ...exact, suggested: 7000, suggestedAddress: "198.51.100.200" };
    assertEquals(rig.mapPcp(71, elsewhere)?.[0], 11);
    // What NAT-PMP takes over is NAT-PMP's; its delete of PCP's mapping does nothing.
    assertEquals(rig.mapPcp(90, { suggested: 90 })?.[0], 0);
    assertEquals(rig.mapNatPmp(90, { lifetime: 0 })?.[0], 0);
    assertEquals(rig.mapPcp(90)?.slice(0, 2), [0, 90]);
    assertEquals(rig.mapNatPmp(90)?.slice(0, 2), [0, 90]);
    assertEquals(rig.mapPcp(90, { lifetime: 0 })?.[0], 2);
    // Versions and sizes.
    const version3 = rig.ask(pcpMap(80).map((byte, i) => i === 0 ? 3 : byte));
    assertEquals([version3[0], version3[3], u32(version3, 4)], [2, 1, 0]);
    for (const length of [2, 20, 61]) {
      const request = new Uint8Array(length);
      request.set(pcpMap(80).subarray(0, length));
      const reply = rig.ask(request);
      assertEquals([toHex(reply.slice(0, 4)), reply.length], [
        "00800003",
        Math.max(24, (length + 3) & ~3),
      ]);
    }
    // A new external address restarts both epochs, and both protocols tell it, once.
    rig.gateway.setExternalAddresses(["198.51.100.4"], rig.now);
    const multicast = rig.drain().filter((s) => s.to.address === "224.0.0.1");
    assertEquals(multicast.map((s) => s.data[0]).sort(), [0, 2]);
    assertEquals(rig.epochs(), [0, 0]);
    // IPv6: no PEER, and a renewal tells external port 0.
    const six = rigOf("miniupnpd-2.3.1", FIREWALL);
    assertEquals(six.mapPcp(80, { from: ALICE6 })?.slice(0, 2), [0, 80]);
    assertEquals(six.mapPcp(80, { from: ALICE6, nonce: OTHER_NONCE })?.slice(0, 2), [0, 0]);
    assertEquals(six.ask(pcpPeer(80, { from: ALICE6 }), ALICE6)[3], 4);
  },

  "miniupnpd-1.8": () => {
    const rig = rigOf("miniupnpd-1.8");
    // The very packet of miniupnp#196.
    const reply = rig.ask(natPmpMap(22002, { suggested: 28174 }));
    assertEquals([u16(reply, 8), u16(reply, 10)], [242, 14]);
    assertEquals(rig.gateway.list(rig.now).map((e) => e.external.port), [28174]);
    assertEquals(rig.mapPcp(22003, { suggested: 28175 })?.[1], 28175);
  },

  "no-external-address": () => {
    const rig = rigOf("no-external-address");
    assertEquals(rig.address(), "0.0.0.0");
    assertEquals(rig.mapNatPmp(80)?.[0], 0);
    rig.gateway.announce(rig.now);
    assertEquals(rig.drain().map((s) => toHex(s.data.slice(8, 12)))[0], "00000000");
  },

  "private-external-address": () => {
    const rig = rigOf("private-external-address");
    assertEquals(rig.address(), "10.64.0.2");
    const reply = decodePcp(rig.ask(pcpMap(80)));
    assertEquals(
      typeof reply === "object" && reply.kind === "map" && reply.externalAddress,
      "10.64.0.2",
    );
  },

  "asus": () => {
    const rig = new Rig({ profile: "asus" }).start();
    for (let port = 1; port <= 20; port++) rig.mapNatPmp(port);
    rig.runTo(600_000);
    assertEquals(rig.gateway.table.size, 20);
    rig.mapNatPmp(21);
    assertEquals(rig.runTo(1_199_999), []);
    assertEquals(rig.gateway.table.size, 21);
    assertEquals(rig.runTo(1_200_000), []);
    assertEquals(rig.gateway.table.size, 0);
    assertEquals(rig.epochs(), [1200, 1200]);
  },

  "protonvpn": () => {
    const rig = rigOf("protonvpn");
    assertEquals(rig.mapNatPmp(80)?.[2], 60);
    assertEquals(toHex(rig.ask(pcpMap(80))), "0000000100000e10");
  },

  "strict-nonce": () => {
    const rig = rigOf("strict-nonce");
    assertEquals(rig.mapPcp(80, { suggested: 80 })?.[0], 0);
    assertEquals(rig.mapPcp(80, { nonce: OTHER_NONCE })?.[0], 2);
    assertEquals(rig.mapPcp(80, { nonce: OTHER_NONCE, lifetime: 0 })?.[0], 2);
    assertEquals(rig.mapPcp(80)?.slice(0, 2), [0, 80]);
    assertEquals(rig.ask(ADDRESS_REQUEST)[0], 2);
  },

  "vpn-tunnel": () => {
    const rig = rigOf("vpn-tunnel");
    assertEquals(toHex(rig.ask(pcpMap(80))), "0000000100000e10");
    assertEquals(rig.mapNatPmp(80)?.[2], 60);
    assertEquals(PROFILES["vpn-tunnel"]!.tunnelAddress, "10.2.0.1");
  },

  "pcp-silent": () => {
    const rig = rigOf("pcp-silent");
    assertEquals([rig.feed(pcpMap(80)), rig.feed(pcpAnnounce())], [[], []]);
    assertEquals(rig.gateway.stats.dropped.silent, 2);
    assertEquals(rig.mapNatPmp(80)?.[0], 0);
  },
};

/** Those of UPnP have tests of their own. */
const NAMES = Object.keys(PROFILES).filter((name) => !PROFILES[name]!.protocols?.includes("upnp"));

describe("profiles", () => {
  for (const name of NAMES) {
    it(`${name}: ${PROFILES[name]!.summary}`, () => {
      assert(SEEN[name], "every profile has a test");
      SEEN[name]!();
    });
  }

  it("each names its device and who told of it", () => {
    for (const [name, profile] of Object.entries(PROFILES)) {
      assertEquals(profile.name, name);
      assert(profile.device !== "" && profile.source !== "" && profile.summary !== "");
    }
  });

  it("are plain data", () => {
    for (const profile of Object.values(PROFILES)) assertEquals(structuredClone(profile), profile);
  });

  it("an unknown name throws and lists the names", () => {
    assertThrows(() => profileNamed("netgear"), TypeError, "fritzbox-6360, archer-a7");
    assertThrows(() => profileNamed("__proto__"), TypeError, '"__proto__"');
  });

  it("a profile of the caller's own works like a named one", () => {
    const profile = {
      name: "mine",
      device: "a box",
      source: "me",
      summary: "short leases",
      replies: [{ when: { opcodes: [2] }, then: [{ kind: "lifetime", seconds: 7 }] }],
    } as const;
    assertEquals(new Rig({ profile }).start().mapNatPmp(80)?.[2], 7);
  });

  it("replies that are no NAT-PMP still read as a fault or a value, never as a throw", () => {
    for (const name of NAMES) {
      const rig = new Rig({ profile: name }).start();
      for (const request of [ADDRESS_REQUEST, natPmpMap(80), pcpMap(80), pcpAnnounce()]) {
        for (const { data } of rig.feed(request, ALICE)) {
          assert(decodeNatPmp(data) !== undefined && decodePcp(data) !== undefined);
        }
      }
    }
  });
});
