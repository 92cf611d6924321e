import { describe, it } from "node:test";
import { assertEquals } from "@std/assert";
import type { Endpoint } from "../../../core/machine.ts";
import { ALICE, BOB, EXTERNAL, natPmpMap, pcpMap, pcpPeer, Rig } from "./rig.ts";

/** Another program on Alice's host. */
const OTHER: Endpoint = { address: ALICE.address, port: 50_000 };

function ends(rig: Rig): number[] {
  return rig.gateway.list(rig.now).map(({ expiresAt }) => expiresAt);
}

describe("one mapping by two protocols, or with an administrator in between", () => {
  it("neither protocol shortens what the other's client counts on", () => {
    const rig = new Rig().start();
    rig.mapNatPmp(80, { lifetime: 7200 });
    assertEquals(rig.mapPcp(80, { lifetime: 600 })?.[2], 600);
    assertEquals(ends(rig), [7_200_000]);
    // It has a PCP client now as well, whose lease NAT-PMP's own renewal leaves alone.
    rig.mapPcp(80, { lifetime: 9000 });
    assertEquals(rig.mapNatPmp(80, { lifetime: 60 })?.[0], 0);
    assertEquals(ends(rig), [9_000_000]);
    rig.mapPcp(81, { lifetime: 7200 });
    rig.mapNatPmp(81, { lifetime: 60 });
    assertEquals(ends(rig), [9_000_000, 7_200_000]);
  });

  it("a mapping's own client alone shortens it", () => {
    const rig = new Rig().start();
    rig.mapNatPmp(80, { lifetime: 7200 });
    rig.mapNatPmp(80, { lifetime: 60 });
    rig.mapPcp(81, { lifetime: 7200 });
    rig.mapPcp(81, { lifetime: 600 });
    assertEquals(ends(rig), [60_000, 600_000]);
  });

  it("PCP's client is told that its mapping moved, whoever asked for it by NAT-PMP meanwhile", () => {
    const rig = new Rig({ announceTo: [] }).start();
    rig.feed(pcpMap(80));
    rig.feed(natPmpMap(80), OTHER);
    rig.gateway.setExternalAddresses(["198.51.100.4"], 0);
    assertEquals(rig.drain().map(({ to }) => to), [ALICE]);
  });

  it("an external endpoint that PCP's client insists on and cannot keep is no loss to NAT-PMP's", () => {
    const rig = new Rig({ announceTo: [] }).start();
    const exactly = { suggested: 8080, suggestedAddress: EXTERNAL };
    rig.mapPcp(80, { ...exactly, options: [{ type: "prefer-failure" }] });
    rig.mapNatPmp(80);
    rig.gateway.setExternalAddresses(["198.51.100.4"], 0);
    const [update] = rig.drain();
    assertEquals([update?.to, update?.data[3]], [ALICE, 11]);
    const left = rig.gateway.list(0).map(({ origin, external }) => [origin, external]);
    assertEquals(left, [["nat-pmp", { address: "198.51.100.4", port: 8080 }]]);
  });

  it("who asks without a filter is let in by everybody, whatever PCP's client filters", () => {
    const rig = new Rig().start();
    const remoteAddress = "198.51.100.20";
    const filter = { type: "filter", prefixLength: 128, remotePort: 0, remoteAddress } as const;
    rig.mapPcp(80, { suggested: 8080, options: [filter] });
    const at = { address: EXTERNAL, port: 8080 };
    const seen = () =>
      [remoteAddress, "198.51.100.21"].map((address) =>
        rig.gateway.lookupInbound(6, at, { address, port: 1 }, rig.now) !== undefined
      );
    assertEquals(seen(), [true, false]);
    rig.mapNatPmp(80, { lifetime: 60 });
    assertEquals(seen(), [true, true]);
    rig.mapPcp(80, { options: [filter] });
    assertEquals(seen(), [true, true]);
    rig.runTo(60_000);
    assertEquals(seen(), [true, false]);
  });

  it("PCP tells of its own lease, however long another protocol's is", () => {
    const rig = new Rig({ profile: "miniupnpd" }).start();
    rig.mapNatPmp(80, { lifetime: 2 ** 32 - 1, suggested: 8080 });
    assertEquals(rig.mapPcp(80, { lifetime: 600 }), [0, 8080, 600]);
    // What is in the way is for 32 bits of seconds at the most.
    const prefer = { suggested: 8080, options: [{ type: "prefer-failure" }] } as const;
    assertEquals(
      rig.ask(pcpMap(1, { from: BOB, ...prefer }), BOB).slice(3, 8),
      Uint8Array.of(11, 255, 255, 255, 255),
    );
  });

  it("a take-over that cannot make anything new keeps what there is", () => {
    const rig = new Rig({ profile: "miniupnpd-2.3.1" }).start();
    rig.mapPcp(80, { suggested: 8080 });
    rig.gateway.setExhausted(true, 0);
    assertEquals(rig.mapNatPmp(80)?.slice(0, 2), [0, 8080]);
    assertEquals(rig.gateway.list(0).map(({ origin, nonce }) => [origin, nonce]), [
      ["nat-pmp", undefined],
    ]);
  });

  it("a static mapping that cannot be made leaves the client's where it is", () => {
    const rig = new Rig().start();
    rig.mapPcp(80, { suggested: 8080 });
    rig.mapPcp(80, { suggested: 9090, from: BOB });
    const inside = { address: ALICE.address, port: 80 };
    assertEquals(rig.gateway.addStatic("tcp", 9090, inside, 0), "external-unavailable");
    rig.gateway.setExhausted(true, 0);
    assertEquals(rig.gateway.addStatic("tcp", 8080, inside, 0), "no-resources");
    assertEquals(rig.gateway.list(0).map(({ external }) => external.port), [8080, 9090]);
    rig.gateway.setExhausted(false, 0);
    for (const port of [8080, 7070]) {
      rig.gateway.addStatic("tcp", port, inside, 0);
      const own = rig.gateway.list(0).filter(({ internal }) => internal.address === ALICE.address);
      assertEquals(own.map(({ kind, external }) => [kind, external.port]), [["static", port]]);
      if (port === 8080) rig.gateway.table.remove(own[0]!, 0);
      if (port === 8080) rig.mapPcp(80);
    }
  });

  it("PCP's client hears no more of a move once another protocol has the mapping, or its flow alone", () => {
    const taken = new Rig({ profile: "miniupnpd-2.3.1", announceTo: [] }).start();
    taken.mapPcp(80);
    taken.gateway.setExternalAddresses(["198.51.100.4"], 0);
    assertEquals(taken.drain().map(({ to }) => to), [ALICE]);
    taken.mapNatPmp(80);
    assertEquals(taken.runTo(2000), []);

    const peer = new Rig({ announceTo: [], minLifetimeSeconds: 10 }).start();
    peer.feed(pcpPeer(80, { lifetime: 10 }));
    const inside = { address: ALICE.address, port: 80 };
    const [outside] = peer.gateway.list(0).map(({ external }) => external);
    const remote = { address: "198.51.100.20", port: 443 };
    peer.now = 9900;
    peer.gateway.noteOutbound(6, inside, outside!, remote, 60_000, peer.now);
    peer.gateway.setExternalAddresses(["198.51.100.4"], peer.now);
    assertEquals(peer.drain().map(({ to }) => to), [ALICE]);
    // Its lease is over, its flow is not.
    assertEquals(peer.runTo(12_000), []);
    assertEquals(peer.gateway.list(peer.now).length, 1);
  });

  it("NAT-PMP promises nothing on an address that its client is not told", () => {
    const second = "203.0.113.8";
    const rig = new Rig({ externalAddresses: [EXTERNAL, second] }).start();
    rig.mapPcp(80);
    rig.mapPcp(81, { suggestedAddress: second });
    const held = rig.gateway.list(0).map(({ external }) => external.address);
    assertEquals([rig.address(), held], [EXTERNAL, [EXTERNAL, second]]);
    assertEquals([rig.mapNatPmp(80)?.[0], rig.mapNatPmp(81)?.[0]], [0, 4]);
  });

  it("NAT-PMP's epoch starts anew where its clients lose a mapping, or its port, with the address", () => {
    const second = "203.0.113.8";
    const rig = new Rig({ externalAddresses: [EXTERNAL, second], announceTo: [] }).start();
    const epochAfter = (addresses: readonly string[]) => {
      rig.now += 100_000;
      rig.gateway.setExternalAddresses(addresses, rig.now);
      rig.drain();
      return rig.gateway.epochSeconds("nat-pmp", rig.now);
    };
    rig.mapNatPmp(80, { suggested: 8080 });
    assertEquals(epochAfter(["198.51.100.4", second]), 100);
    rig.mapPcp(80, { from: BOB, suggested: 8080, suggestedAddress: second });
    assertEquals(epochAfter([second]), 0);
    assertEquals(epochAfter(["198.51.100.4"]), 100);
    assertEquals([epochAfter([]), epochAfter(["198.51.100.4"])], [0, 100]);
  });

  it("a static mapping takes its port out of the set that its own host has, or leaves that whole", () => {
    const rig = new Rig().start();
    const options = [{ type: "port-set", size: 2, firstInternalPort: 80, parity: false }] as const;
    rig.mapPcp(80, { suggested: 8080, options });
    const inside = { address: ALICE.address, port: 80 };
    const held = () =>
      rig.gateway.list(0).map(({ kind, size, external }) => [kind, size, external.port]);
    rig.feed(pcpPeer(81));
    assertEquals(rig.gateway.addStatic("tcp", 8081, inside, 0), "external-unavailable");
    assertEquals(held(), [["explicit", 2, 8080], ["outbound", 1, 8081]]);
    rig.gateway.table.remove([...rig.gateway.table.entries()][1]!, 0);
    rig.gateway.addStatic("tcp", 8081, inside, 0);
    assertEquals(held(), [["static", 1, 8081]]);
  });

  it("NAT-PMP's client keeps the longest that it was promised of a set's ports", () => {
    const rig = new Rig().start();
    const options = [{ type: "port-set", size: 2, firstInternalPort: 80, parity: false }] as const;
    rig.mapPcp(80, { suggested: 8080, options, lifetime: 120 });
    assertEquals(rig.mapNatPmp(80, { lifetime: 600 }), [0, 8080, 600]);
    assertEquals(rig.mapNatPmp(81, { lifetime: 60 }), [0, 8081, 60]);
    rig.runTo(599_000);
    assertEquals(rig.gateway.list(rig.now).length, 1);
  });

  it("a static mapping is there again once the WAN is, and comes before what clients ask for", () => {
    const rig = new Rig({ announceTo: [] }).start();
    const inside = { address: ALICE.address, port: 80 };
    rig.gateway.addStatic("tcp", 8080, inside, 0);
    rig.mapPcp(80, { from: BOB, suggested: 8081 });
    rig.gateway.setExternalAddresses([], 0);
    assertEquals(rig.gateway.list(0), []);
    rig.command("reboot");
    rig.gateway.setExternalAddresses(["198.51.100.4"], 0);
    const held = () =>
      rig.gateway.list(0).map(({ kind, internal, external }) => [kind, internal, external]);
    const back = [["static", inside, { address: "198.51.100.4", port: 8080 }]];
    assertEquals(held(), back);
    rig.gateway.setExternalAddresses(["198.51.100.4"], 0);
    assertEquals(held(), back);
  });

  it("a static mapping is made for an inside whose flows have another port, and they keep it", () => {
    const rig = new Rig().start();
    const inside = { address: ALICE.address, port: 80 },
      remote = { address: "198.51.100.20", port: 443 };
    rig.gateway.noteOutbound(17, inside, { address: EXTERNAL, port: 4444 }, remote, 60_000, 0);
    const made = rig.gateway.addStatic("udp", 8080, inside, 0);
    assertEquals(typeof made === "object" && made.external.port, 8080);
    assertEquals(rig.gateway.list(0).map(({ external }) => external.port), [4444, 8080]);
    assertEquals(rig.gateway.addStatic("udp", 8081, inside, 0), "already-mapped");
  });
});
