/**
 * Corners of a simulated gateway: the sockets that it lists, why it wakes, which datagrams reach
 * whom, what its options may be.
 */
import { describe, it } from "node:test";
import { assert, assertEquals, assertThrows } from "@std/assert";
import { toHex } from "../../../core/bytes.ts";
import { SimulatedGateway, type SimulatedGatewayOptions } from "../../../core/gateway/gateway.ts";
import type { SocketSpec } from "../../../core/machine.ts";
import { seededRandom } from "../../../core/random.ts";
import { IgdRig } from "../upnp/igd_rig.ts";
import {
  ADDRESS_REQUEST,
  ALICE,
  announcedBy,
  BOB,
  EXTERNAL,
  natPmpMap,
  pcpAnnounce,
  pcpMap,
  pcpPeer,
  Rig,
} from "./rig.ts";

const OWN = "192.168.1.1";
const LISTEN = { address: OWN, port: 5351 };
const FAILURE = { ok: false, code: "network", message: "taken", isOpen: false } as const;

function make(options: Partial<SimulatedGatewayOptions> = {}): SimulatedGateway {
  return new SimulatedGateway({
    externalAddresses: [EXTERNAL],
    random: seededRandom(1),
    ...options,
  });
}

/** A profile of the caller's own. */
function profileOf<T extends object>(more: T) {
  return { name: "mine", device: "a box", source: "me", summary: "its own", ...more };
}

describe("a gateway's sockets", () => {
  const keys = (gateway: SimulatedGateway) => gateway.sockets!().map(({ key }) => key);

  it("are its own where it is to listen, and otherwise its caller's", () => {
    assertEquals(make().sockets, undefined);
    const gateway = make({ listen: { address: OWN, port: 0 } });
    assertEquals(gateway.sockets!() as readonly SocketSpec[], [
      { key: "server", local: { address: OWN, port: 0 } },
    ]);
    gateway.handleSocket("server", { ok: true, local: LISTEN }, 0);
    gateway.start(0);
    gateway.setProtocol("pcp", false, 0);
    assertEquals(gateway.sockets!(), [{ key: "server", local: LISTEN }]);
    assert(gateway.sockets!() === gateway.sockets!(), "the same list says the same");
    gateway.setProtocol("nat-pmp", false, 0);
    assertEquals(keys(gateway), []);
    gateway.setProtocol("pcp", true, 0);
    assertEquals(keys(gateway), ["server"]);
    gateway.setNat(false, 0);
    assertEquals(keys(gateway), []);
  });

  it("are there before it boots, whatever its profile does then", () => {
    const gateway = make({ listen: LISTEN, profile: "huawei-hg8145v5" });
    assertEquals(keys(gateway), ["server"]);
    gateway.start(0);
    assertEquals(keys(gateway), []);
  });

  it("have another one for wrong sources from the first on, at the same address", () => {
    const gateway = make({ listen: LISTEN });
    gateway.disturb({ delayMs: 5 }, 0);
    assertEquals(keys(gateway), ["server"]);
    gateway.disturb({ wrongSource: true }, 0);
    gateway.disturb({ wrongSource: false }, 0);
    assertEquals(gateway.sockets!()[1], { key: "other", local: { address: OWN, port: 0 } });
  });

  it("that cannot be had are wanted again with the next command that needs them, not before", () => {
    const commands: ((gateway: SimulatedGateway) => void)[] = [
      (gateway) => gateway.start(1),
      (gateway) => gateway.setProtocol("pcp", true, 1),
      (gateway) => gateway.disturb({}, 1),
    ];
    for (const command of commands) {
      const gateway = make({ listen: LISTEN });
      gateway.start(0);
      assertEquals(keys(gateway), ["server"]);
      gateway.handleSocket("server", { ...FAILURE, isOpen: true }, 0);
      assertEquals(keys(gateway), ["server"], "an error of one that stays open");
      gateway.handleSocket("server", FAILURE, 0);
      gateway.announce(1);
      assertEquals(keys(gateway), []);
      command(gateway);
      assertEquals(keys(gateway), ["server"]);
    }
  });
});

describe("a gateway's deadline", () => {
  it("is what comes next, with its reason", () => {
    const gateway = make({ profile: "asus" });
    const reasons = (): unknown[] => {
      const { at, reason } = gateway.debugTimeout() ?? {};
      assertEquals(gateway.nextTimeout(), at);
      return [at, reason];
    };
    const drain = () => {
      while (gateway.poll());
    };
    assertEquals(reasons(), [undefined, undefined]);
    gateway.start(0);
    assertEquals(reasons(), [0, "drain"]);
    drain();
    assertEquals(gateway.debugTimeout()?.at, 250);
    for (let at = gateway.nextTimeout()!; at < 127_751; at = gateway.nextTimeout()!) {
      gateway.handleTimeout(at);
      drain();
    }
    assertEquals(reasons(), [600_000, "forget the table"]);
    gateway.disturb({ delayMs: 40 }, 200_000);
    gateway.handleDatagram(ADDRESS_REQUEST, ALICE, "server", 200_000);
    assertEquals(reasons(), [200_040, "send a delayed reply"]);
    gateway.handleTimeout(200_040);
    drain();
    gateway.handleTimeout(600_000);
    drain();
    assertEquals(reasons(), [1_200_000, "forget the table"]);
  });
});

describe("a gateway's datagrams", () => {
  const TALL = new Uint8Array(24);

  it("are taken by their version, and answered by the other protocol where theirs is off", () => {
    const answered = (data: Uint8Array, more: Partial<SimulatedGatewayOptions> = {}) => {
      const { natPmp, pcp } = { ...countsOf(new Rig(more).start(), data) };
      return natPmp ? "nat-pmp" : pcp ? "pcp" : "nobody";
    };
    const countsOf = (rig: Rig, data: Uint8Array) => {
      const [reply] = rig.feed(data);
      return { natPmp: reply?.data[0] === 0, pcp: reply?.data[0] === 2 };
    };
    const version = (version: number, length: number) => {
      const data = TALL.slice(0, length);
      data[0] = version;
      return data;
    };
    // NAT-PMP answers a version that it does not know; PCP's header has 24 bytes.
    assertEquals(
      [
        answered(ADDRESS_REQUEST),
        answered(version(1, 2)),
        answered(pcpAnnounce()),
        answered(version(3, 24)),
        answered(version(3, 23)),
      ],
      ["nat-pmp", "nat-pmp", "pcp", "pcp", "nat-pmp"],
    );
    const pcp = { protocols: ["pcp"] } as const, natPmp = { protocols: ["nat-pmp"] } as const;
    assertEquals(
      [answered(ADDRESS_REQUEST, pcp), answered(pcpAnnounce(), natPmp)],
      ["pcp", "nat-pmp"],
    );
  });

  it("are counted by why no server saw them, and taken for its own where it only does not answer", () => {
    const rig = new Rig({ profile: "pcp-silent", internalPrefixes: ["192.168.1.0/24"] }).start();
    const take = (data: Uint8Array, from = ALICE) =>
      rig.gateway.handleDatagram(data, from, "server", 0);
    assertEquals(take(pcpAnnounce()), true);
    assertEquals(take(ADDRESS_REQUEST, { address: "10.0.0.1", port: 9 }), false);
    assertEquals(take(ADDRESS_REQUEST, { address: EXTERNAL, port: 9 }), false);
    rig.gateway.setDeaf(1, 0);
    assertEquals([take(ADDRESS_REQUEST), take(ADDRESS_REQUEST)], [true, true]);
    rig.gateway.setNat(false, 0);
    assertEquals(take(ADDRESS_REQUEST), false);
    assertEquals(rig.gateway.stats.dropped, { off: 1, outside: 2, deaf: 1, silent: 1 });
  });

  it("of an ill size are answered as the profile has it: as long, rounded up, 24 to 1100 bytes", () => {
    const profile = profileOf({ illSizedReply: [1, 2, 3, 4] as const });
    const answer = (length: number, version = 2, opcode = 1) => {
      const rig = new Rig({ profile }).start();
      rig.now = 5000;
      const data = new Uint8Array(length);
      data.set([version, opcode].slice(0, length));
      const text = toHex(rig.ask(data).subarray(0, 12)) + ` ${rig.ask(data).length}`;
      assertEquals(rig.gateway.stats.dropped, { off: 0, outside: 0, deaf: 0, silent: 0 });
      return text;
    };
    const head = "010203040000000000000005";
    assertEquals([2, 23, 25, 1099].map((length) => answer(length)), [
      `${head} 24`,
      `${head} 24`,
      `${head} 28`,
      `${head} 1100`,
    ]);
    assertEquals(answer(1105), `${head} 1100`);
    // Well-sized ones, replies, other versions and what has no opcode are the server's.
    for (const other of [answer(24), answer(25, 2, 128), answer(25, 3), answer(1)]) {
      assert(!other.startsWith("01020304"), other);
    }
    assert(answer(25, 2, 127).startsWith("01020304"));
  });
});

describe("a gateway's commands", () => {
  it("change nothing where it is so already", () => {
    const rig = new Rig().start();
    rig.runTo(1_000_000);
    rig.mapPcp(80);
    rig.gateway.setNat(true, rig.now);
    rig.gateway.setProtocol("pcp", true, rig.now);
    assertEquals([rig.drain(), rig.gateway.table.size], [[], 1]);
    rig.gateway.setProtocol("pcp", false, rig.now);
    rig.gateway.setProtocol("pcp", false, rig.now);
    rig.gateway.setProtocol("pcp", true, rig.now);
    assertEquals(rig.drain().map(({ data }) => data[0]), [2], "what is on again announces itself");
  });

  it("let what they say leave at once", () => {
    const rig = new IgdRig({ protocols: ["pcp", "nat-pmp", "upnp"] });
    rig.drain();
    rig.runTo(200_000);
    const { gateway } = rig;
    const said: Record<string, () => void> = {
      setEpoch: () => gateway.setEpoch(9, rig.now),
      announce: () => gateway.announce(rig.now),
      "setProtocol off": () => gateway.setProtocol("upnp", false, rig.now),
      "setProtocol on": () => gateway.setProtocol("upnp", true, rig.now),
      reboot: () => gateway.reboot(rig.now),
    };
    for (const [name, say] of Object.entries(said)) {
      rig.runTo(rig.now + 200_000);
      say();
      const { sent } = rig.drain();
      assert(sent.length > 0, name);
      assertEquals(gateway.stats.replies.waiting, 0);
    }
  });

  it("that turn UPnP on say so once the gateway acts as a NAT, and has booted", () => {
    const rig = new IgdRig();
    rig.drain();
    const { gateway } = rig;
    gateway.setNat(false, 0);
    gateway.setProtocol("upnp", false, 0);
    gateway.setProtocol("upnp", true, 0);
    assertEquals(rig.drain().sent, []);
    gateway.setNat(true, 0);
    assert(rig.drain().sent.length > 0);

    const fresh = new SimulatedGateway({
      externalAddresses: [EXTERNAL],
      protocols: ["upnp"],
      random: seededRandom(1),
      announceTo: [],
      upnp: { interfaces: [{ address: OWN, prefixLength: 24 }] },
    });
    for (const isOn of [false, true]) fresh.setProtocol("upnp", isOn, 0);
    assertEquals([fresh.poll(), fresh.nextTimeout()], [undefined, undefined]);
  });

  it("that turn UPnP off leave nothing that is heard by its sockets, and each is counted", () => {
    const rig = new IgdRig();
    rig.runTo(200_000);
    rig.gateway.setProtocol("upnp", false, rig.now);
    rig.drain();
    const { upnp: before } = rig.gateway.stats;
    assertEquals([rig.search("upnp:rootdevice"), rig.get("/rootDesc.xml")], [[], undefined]);
    rig.gateway.announce(rig.now);
    rig.gateway.setEpoch(7, rig.now);
    assertEquals(rig.drain().sent, []);
    const { dropped, upnp } = rig.gateway.stats;
    assertEquals(dropped, { off: 2, outside: 0, deaf: 0, silent: 0 });
    assertEquals(upnp, before);
  });

  it("take for a search what begins as one, at the port of all where UPnP hears there", () => {
    const upnp = { interfaces: [{ address: OWN, prefixLength: 24 }], ssdpPort: 0 };
    const rig = new IgdRig({ protocols: ["nat-pmp", "upnp"], announceTo: [], upnp });
    rig.runTo(200_000);
    const { gateway } = rig;
    const ask = (data: Uint8Array) => {
      gateway.handleDatagram(data, ALICE, "server", rig.now);
      return rig.drain().sent.map(({ data }) => data[0]);
    };
    // What is no version of NAT-PMP's gets its "no", of 8 bytes.
    assertEquals(ask(Uint8Array.of(0x4d, 0x2c)), [0]);
    assertEquals(ask(Uint8Array.of(0x4d, 0x2d)), []);
    gateway.setProtocol("nat-pmp", false, rig.now);
    assertEquals([gateway.isListening, ask(ADDRESS_REQUEST)], [true, []]);
    assertEquals(gateway.stats.dropped.off, 1);
    gateway.setProtocol("nat-pmp", true, rig.now);
    gateway.setProtocol("upnp", false, rig.now);
    rig.drain();
    assertEquals(ask(Uint8Array.of(0x4d, 0x2d)), [0]);
  });

  it("that come after a late answer are not late themselves, and a reboot loses that answer", () => {
    const rig = new IgdRig({
      protocols: ["pcp", "nat-pmp", "upnp"],
      announceTo: [ALICE],
      decide: () => ({ kind: "delay", delayMs: 1000 }),
    });
    rig.runTo(200_000);
    const { gateway } = rig;
    const asks = [
      () => assertEquals(rig.add(80), undefined),
      () => gateway.handleDatagram(natPmpMap(80), ALICE, "server", rig.now),
    ];
    for (const ask of asks) {
      ask();
      rig.drain();
      gateway.announce(rig.now);
      const versions = rig.drain().sent.filter(({ to }) => to.port === ALICE.port)
        .map(({ data }) => data[0]);
      assertEquals(versions, [0, 2]);
    }
    assertEquals([gateway.stats.answers.waiting, gateway.stats.replies.waiting], [1, 1]);
    gateway.reboot(rig.now);
    assertEquals([gateway.stats.answers.waiting, gateway.stats.replies.waiting], [0, 0]);
  });

  it("that move mappings to another address tell by no protocol that is off", () => {
    const rig = new Rig().start();
    rig.mapPcp(80);
    rig.gateway.setProtocol("pcp", false, 0);
    rig.runTo(500_000);
    rig.gateway.setExternalAddresses(["198.51.100.4"], rig.now);
    assertEquals(rig.drain().map(announcedBy), ["nat-pmp"]);
    // Who comes by PCP later learns by the epoch.
    assertEquals(rig.gateway.epochSeconds("pcp", rig.now), 0);
    const later = rig.runTo(rig.now + 200_000).map(({ action }) => announcedBy(action));
    assertEquals([...new Set(later)], ["nat-pmp"]);
  });

  it("take the first and the last of what they may", () => {
    const { gateway } = new Rig().start();
    for (const code of [1, 999]) gateway.setRefusal(code, 0);
    gateway.setRefusal(undefined, 0);
    gateway.setDeaf(0, 0);
    for (const seconds of [0, 2 ** 32 - 1]) {
      gateway.setEpoch(seconds, 0);
      assertEquals(gateway.epochSeconds("pcp", 0), seconds);
    }
    for (const port of [1, 65_535]) {
      const entry = gateway.addStatic("tcp", port, { address: BOB.address, port }, 0);
      assertEquals(typeof entry === "object" && entry.external.port, port);
    }
    for (const port of [0, 65_536]) {
      const internal = { address: BOB.address, port };
      assertThrows(() => gateway.addStatic("tcp", 9, internal, 0), RangeError, "'internal.port'");
    }
  });

  it("that lose the table lose what is on its way, and NAT off says nothing more", () => {
    const rig = new Rig().start();
    rig.gateway.disturb({ delayMs: 50 }, 0);
    rig.feed(natPmpMap(80));
    rig.gateway.addStatic("tcp", 22, { address: BOB.address, port: 22 }, 0);
    rig.gateway.setNat(false, 0);
    assertEquals([rig.runTo(1_000_000), rig.gateway.list(rig.now).map(({ kind }) => kind)], [[], [
      "static",
    ]]);
    assertEquals(rig.gateway.stats.replies.waiting, 0);
    const seen = { address: EXTERNAL, port: 22 }, remote = { address: "198.51.100.1", port: 7 };
    assertEquals(rig.gateway.holds(6, seen, rig.now), false);
    const inside = { address: BOB.address, port: 22 };
    assertEquals(rig.gateway.lookupOutbound(6, inside, remote, rig.now), undefined);
    rig.gateway.noteOutbound(17, inside, seen, remote, 60_000, rig.now);
    assertEquals(rig.gateway.table.size, 1);
    rig.gateway.setNat(true, rig.now);
    assertEquals(rig.gateway.holds(6, seen, rig.now), true);
    assertEquals(rig.gateway.lookupInbound(6, seen, remote, rig.now)?.address, BOB.address);
  });
});

describe("a gateway's forwarding", () => {
  it("ends with the lease, at its very time, and is the peer's alone where PEER made it", () => {
    const rig = new Rig().start();
    const { gateway } = rig;
    rig.feed(pcpPeer(80, { lifetime: 600 }));
    const [{ external, remote, expiresAt }] = gateway.list(0) as [
      ReturnType<typeof gateway.list>[0],
    ];
    const inside = { address: ALICE.address, port: 80 };
    const other = { ...remote!, port: 444 };
    const seen = (now: number) => [
      gateway.lookupInbound(6, external, remote!, now),
      gateway.lookupInbound(6, external, other, now),
      gateway.lookupOutbound(6, inside, remote!, now),
      gateway.lookupOutbound(6, inside, other, now),
      gateway.holds(6, external, now),
    ];
    assertEquals(seen(expiresAt - 1), [inside, undefined, external, undefined, true]);
    assertEquals(seen(expiresAt), [undefined, undefined, undefined, undefined, false]);
  });

  it("takes the port's own mapping before the protocol's, and that before all protocols'", () => {
    const rig = new Rig().start();
    const { table } = rig.gateway;
    const map = (address: string, protocol: number, port: number) =>
      table.mapInbound({
        origin: "admin",
        kind: "static",
        protocol,
        internal: { address, port },
        expiresAt: Infinity,
      }, 0);
    map(ALICE.address, 0, 0);
    map(ALICE.address, 6, 0);
    map(ALICE.address, 6, 80);
    const remote = { address: "198.51.100.1", port: 7 };
    const out = (protocol: number, port: number) =>
      rig.gateway.lookupOutbound(protocol, { address: ALICE.address, port }, remote, 0)?.port;
    const [, , own] = rig.gateway.list(0);
    assertEquals([out(6, 80), out(6, 81), out(17, 82)], [own!.external.port, 81, 82]);
    assertEquals(rig.gateway.holds(6, { address: EXTERNAL, port: 81 }, 0), false);
  });
});

describe("a gateway's options", () => {
  it("are taken from the least to the most, and are refused beyond, by name", () => {
    for (const seconds of [1, 2 ** 32 - 2]) {
      make({ maxLifetimeSeconds: seconds, minLifetimeSeconds: 1 });
    }
    for (const epochSeconds of [0, 2 ** 32 - 1]) make({ epochSeconds });
    for (const port of [1, 65_535]) make({ announcePort: port });
    for (
      const [name, value, word] of [
        ["maxLifetimeSeconds", 2 ** 32, "'maxLifetimeSeconds'"],
        ["minLifetimeSeconds", 0, "'minLifetimeSeconds'"],
        ["announcePort", 65_536, "'announcePort'"],
        ["announceTo", [{ address: "ff02::1", port: 1 }], "'announceTo[0].address'"],
        ["announceTo", [{ address: "224.0.0.1", port: 0 }], "'announceTo[0].port'"],
        ["externalAddresses", [EXTERNAL, "x"], "'externalAddresses[1]'"],
        ["internalPrefixes", ["192.168.1.0/24", "x"], "'internalPrefixes[1]'"],
        ["protocols", ["pcp", "stun"], "'protocols' must hold pcp, nat-pmp, upnp"],
      ] as const
    ) {
      assertThrows(() => make({ [name]: value }), Error, word);
    }
    assertThrows(
      () => new SimulatedGateway({ random: seededRandom(1), protocols: ["nat-pmp"] }),
      TypeError,
      "'protocols' must be pcp, upnp without 'externalAddresses'",
    );
  });

  it("that are left out are NAT-PMP and PCP, announced at port 5350, and no third parties", () => {
    const gateway = make();
    assertEquals(gateway.protocols, ["pcp", "nat-pmp"]);
    gateway.start(0);
    const to: unknown[] = [];
    for (let action = gateway.poll(); action; action = gateway.poll()) {
      if (action.type === "send") to.push(action.to);
    }
    assertEquals(to, new Array(2).fill({ address: "224.0.0.1", port: 5350 }));
    const rig = new Rig().start();
    const other = pcpMap(80, { options: [{ type: "third-party", internalAddress: BOB.address }] });
    assertEquals(rig.ask(other)[3], 5);
    assertEquals(rig.gateway.stats.replies, { sent: 3, lost: 0, overflowed: 0, waiting: 0 });
  });

  it("of the caller's go before the profile's", () => {
    const extra = profileOf({ extraAnnouncePorts: [5351], pcp: { maxLifetimeSeconds: 100 } });
    const announced = (more: Partial<SimulatedGatewayOptions>) => {
      const rig = new Rig({ profile: extra, protocols: ["nat-pmp"], ...more });
      rig.gateway.start(0);
      return rig.drain().map(({ to }) => to.port);
    };
    assertEquals(announced({}), [5350, 5351]);
    assertEquals(announced({ announceTo: [{ address: "224.0.0.1", port: 7 }] }), [7]);
    const lifetime = (more: Partial<SimulatedGatewayOptions>) =>
      new Rig({ profile: extra, ...more }).start().mapPcp(80, { lifetime: 5000 })?.[2];
    assertEquals([lifetime({}), lifetime({ maxLifetimeSeconds: 200 })], [100, 200]);
  });
});
