import { describe, it } from "node:test";
import { assert, assertEquals, assertThrows } from "@std/assert";
import { toHex } from "../../../core/bytes.ts";
import { defaultProtocols } from "../../../core/portmap/protocols.ts";
import type { MapperEvent, SavedPort } from "../../../core/portmap/managed.ts";
import { PortMapper } from "../../../core/portmap/mapper.ts";
import { seededRandom } from "../../../core/random.ts";
import {
  BY_DATAGRAM,
  EXTERNAL,
  GATEWAY,
  HOST,
  openMapper,
  rig,
  type RigOptions,
  told,
  versions,
} from "./rig.ts";
import { A, B, Net, SIX } from "./net.ts";

const web = { protocol: "tcp", internalPort: 8080, suggestedExternal: { port: 8080 } } as const;

describe("the race", () => {
  it("ends after one round trip where the gateway speaks PCP", () => {
    const lab = rig();
    lab.mapper((mapper, now) => mapper.map(web, now));
    lab.world.runFor(10);
    const [event, ...more] = lab.events();
    assertEquals(more, []);
    const mapped = told(event, "mapped");
    assertEquals(mapped.mapping.via, "pcp");
    assertEquals(mapped.at, 2);
    assertEquals(mapped.mapping.external, { address: EXTERNAL, port: 8080 });
    assertEquals(mapped.mapping.internal, { address: HOST, port: 8080 });
    assertEquals(versions(lab.sent), "pcp nat-pmp");
    assertEquals(toHex(lab.sent[1]!.data), "0000");
  });

  it("makes the mapping by NAT-PMP in two round trips where PCP is not spoken", () => {
    const lab = rig({ gateway: { protocols: ["nat-pmp"] } });
    lab.mapper((mapper, now) => mapper.map(web, now));
    lab.world.runFor(10);
    const mapped = told(lab.events()[0], "mapped");
    assertEquals(mapped.mapping.via, "nat-pmp");
    assertEquals(mapped.at, 4);
    assertEquals(mapped.mapping.external, { address: EXTERNAL, port: 8080 });
    assertEquals(versions(lab.sent), "pcp nat-pmp nat-pmp");
  });

  it("tells the mapping whole: description and port set as granted, neither where there is none", () => {
    const whole = {
      kind: "map",
      via: "pcp",
      protocol: "tcp",
      gateway: GATEWAY,
      internal: { address: HOST, port: 8080 },
      external: { address: EXTERNAL, port: 8080 },
      lifetimeSeconds: 7200,
    } as const;
    const portSet = { size: 4 };
    for (
      const [wish, granted] of [
        [{}, {}],
        [{ description: "web server" }, { description: "web" }],
        [{ portSet }, { portSetSize: 3 }],
        [{ description: "", portSet }, { description: "", portSetSize: 3 }],
      ] as const
    ) {
      const pcp = { maxDescriptionBytes: 3, maxPortSetSize: 3 };
      const profile = { name: "mine", device: "a box", source: "me", summary: "short", pcp };
      const lab = rig({ gateway: { protocols: ["pcp"], profile } });
      lab.mapper((mapper, now) => mapper.map({ ...web, ...wish }, now));
      lab.world.runFor(10);
      assertEquals(told(lab.events()[0], "mapped").mapping, { ...whole, ...granted });
    }
  });

  it("costs at most 40 ms more where the gateway is silent to PCP", () => {
    const lab = rig({ gateway: { profile: "pcp-silent" } });
    lab.mapper((mapper, now) => mapper.map(web, now));
    lab.world.runFor(100);
    const mapped = told(lab.events()[0], "mapped");
    assertEquals(mapped.mapping.via, "nat-pmp");
    assert(mapped.at <= 4 + 40, `${mapped.at} ms`);
  });

  it("never has two mapping requests for one port on their way", () => {
    for (let seed = 1; seed <= 200; seed++) {
      const lab = rig({ seed });
      lab.lan.link.set({ loss: 0.3, jitterMs: 60, duplicate: 0.2, reorder: 0.2 });
      lab.mapper((mapper, now) => mapper.map(web, now));
      lab.world.runFor(30_000);
      const natPmpMap = lab.sent.findIndex(({ data }) => data[0] === 0 && data.length === 12);
      if (natPmpMap < 0) continue;
      const later = lab.sent.slice(natPmpMap).filter(({ data }) => data[0] === 2);
      assertEquals(later.length, 0, `seed ${seed}`);
    }
  });

  it("loses at most 300 ms to one lost datagram", () => {
    for (const lost of ["pcp", "nat-pmp", "both"]) {
      const lab = rig({ mapper: lost === "nat-pmp" ? { protocols: ["nat-pmp"] } : {} });
      let left = lost === "both" ? 2 : 1;
      lab.filter((data) => !(left > 0 && (lost !== "pcp" || data[0] === 2) && left--));
      lab.mapper((mapper, now) => mapper.map(web, now));
      lab.world.runFor(1000);
      const [mapped] = lab.events();
      assertEquals(mapped?.type, "mapped");
      assert(mapped!.at <= 300, `${lost}: ${mapped!.at} ms`);
    }
  });

  it("fails at once where ICMP says that nobody is there", () => {
    const lab = rig({ isThere: false });
    lab.mapper((mapper, now) => mapper.map(web, now));
    lab.world.runFor(10);
    const failed = told(lab.events()[0], "failed");
    assertEquals([failed.at, failed.code], [2, "unsupported"]);
    assertEquals(failed.attempts.map(({ via, outcome }) => `${via} ${outcome}`), [
      "pcp unreachable",
      "nat-pmp unreachable",
    ]);
    assertEquals(lab.mapper((mapper) => mapper.isIdle), true);
  });

  it("goes on as long as its owner waits where nobody answers, and lists what was tried", () => {
    const lab = rig({ isThere: false, sendsUnreachable: false });
    const id = lab.mapper((mapper, now) => mapper.map(web, now));
    lab.world.runFor(9000);
    assertEquals(lab.types(), []);
    const attempts = lab.mapper((mapper, now) => mapper.attempts(id, now));
    assertEquals(attempts.map(({ via, outcome }) => `${via} ${outcome}`), [
      "pcp no answer",
      "nat-pmp no answer",
    ]);
    assertEquals(attempts[0]!.elapsedMs, 9000);
  });

  it("takes a refusal for what it is, by one protocol alone", () => {
    const lab = rig();
    lab.gateway((gateway, now) => gateway.setRefusal(2, now));
    lab.mapper((mapper, now) => mapper.map(web, now));
    lab.world.runFor(1000);
    const [event, ...more] = lab.events();
    const failed = told(event, "failed");
    assertEquals([failed.code, failed.attempts[0]?.outcome], ["refused", "NOT_AUTHORIZED"]);
    assert(failed.retryAfterSeconds! > 0);
    assertEquals(more, []);
    assertEquals(lab.sent.filter(({ data }) => data[0] === 0 && data.length === 12).length, 0);
  });

  it("does without NAT-PMP from a global address and over IPv6 (PMP-C-02, PMP-C-34)", () => {
    assertEquals(defaultProtocols("2600::7"), ["pcp", "upnp"], "for pinholes");
    for (const localAddress of ["198.18.0.1", "11.0.0.1"]) {
      const mapper = openMapper({ protocols: defaultProtocols(localAddress) }, localAddress);
      mapper.map(web, 0);
      const first = mapper.poll(), second = mapper.poll();
      assert(first?.type === "send" && first.data[0] === 2);
      assertEquals(second?.type, localAddress === "11.0.0.1" ? undefined : "send");
    }
    const protocols = defaultProtocols("2001:db8::7");
    const mapper = openMapper({ protocols }, "2001:db8::7", {
      address: "fe80::1%eth0",
      port: 5351,
    });
    mapper.map(web, 0);
    assert(mapper.poll()?.type === "send");
    assertEquals(mapper.poll(), undefined);
  });

  it("asks PCP again for every new mapping, whatever answered before (PMP-C-33)", () => {
    const lab = rig({ gateway: { protocols: ["nat-pmp"] } });
    lab.mapper((mapper, now) => mapper.map(web, now));
    lab.world.runFor(1000);
    lab.gateway((gateway, now) => gateway.setProtocol("pcp", true, now));
    lab.mapper((mapper, now) => mapper.map({ protocol: "udp", internalPort: 9 }, now));
    lab.world.runFor(1000);
    const vias = lab.events().flatMap((event) => event.type === "mapped" ? event.mapping.via : []);
    assertEquals(vias, ["nat-pmp", "pcp"]);
  });
});

describe("every quirk that answers", () => {
  const expected: readonly (readonly [profile: string, via: string])[] = [
    ["archer-a7", "nat-pmp"],
    ["verizon-cr1000a", "nat-pmp"],
    ["routeros", "nat-pmp"],
    ["miniupnpd", "pcp"],
    ["miniupnpd-2.3.1", "pcp"],
    ["protonvpn", "nat-pmp"],
    ["strict-nonce", "pcp"],
  ];
  for (const [profile, via] of expected) {
    it(`maps through ${profile} within 100 ms`, () => {
      const lab = rig({ gateway: { profile } });
      lab.mapper((mapper, now) => mapper.map(web, now));
      lab.world.runFor(100);
      assertEquals(told(lab.events()[0], "mapped").mapping.via, via);
    });
  }
  for (const profile of ["fritzbox-6360", "two-byte-replies", "huawei-hg8145v5"]) {
    it(`comes to an end with ${profile}`, () => {
      const lab = rig({ gateway: { profile } });
      const id = lab.mapper((mapper, now) => mapper.map(web, now));
      lab.world.runFor(10_000);
      const [event] = lab.events();
      const attempts = lab.mapper((mapper, now) => mapper.attempts(id, now));
      assert(event?.type === "mapped" || event?.type === "failed" || attempts.length > 0);
    });
  }
});

describe("a held mapping", () => {
  const held = (options: RigOptions = {}) => {
    const lab = rig(options);
    const id = lab.mapper((mapper, now) => mapper.map(web, now));
    // A gateway younger than some seconds that restarts looks like one that did not (RFC 6887 §8.5).
    lab.world.runFor(60_000);
    assertEquals(lab.types(), ["mapped"]);
    return Object.assign(lab, { id });
  };

  for (const protocols of [["pcp"], ["nat-pmp"]] as const) {
    const by = protocols[0];
    it(`comes back after a reboot of the gateway, by ${by}`, () => {
      const lab = held({ gateway: { protocols } });
      lab.gateway((gateway, now) => gateway.reboot(now));
      assertEquals(lab.ports(), []);
      lab.world.runFor(15_000);
      assertEquals(lab.ports(), [8080]);
      assertEquals(lab.types(), ["gateway-restarted", "renewed"]);
    });

    it(`tells a new external address as moved, by ${by}`, () => {
      const lab = held({ gateway: { protocols } });
      lab.gateway((gateway, now) => gateway.setExternalAddresses(["203.0.113.99"], now));
      lab.world.runFor(15_000);
      const moved = told(lab.events().find((event) => event.type === "moved"), "moved");
      assertEquals(moved.mapping.external, { address: "203.0.113.99", port: 8080 });
    });

    it(`is deleted at the gateway when it is revoked, by ${by}`, () => {
      const lab = held({ gateway: { protocols } });
      lab.mapper((mapper, now) => mapper.revoke(lab.id, now));
      lab.world.runFor(1000);
      const event = told(lab.events()[0], "unmapped");
      assertEquals([event.reason, event.failure], ["revoked", undefined]);
      assertEquals(lab.ports(), []);
      assertEquals(lab.mapper((mapper) => mapper.isIdle), true);
    });

    it(`is lost to a gateway that stays silent, and recovered when it is back, by ${by}`, () => {
      const lab = held({ gateway: { protocols } });
      lab.lan.link.set({ loss: 1 });
      lab.world.runFor(3 * 3600_000);
      assertEquals(lab.types(), ["lost"]);
      assertEquals(lab.mapper((mapper) => mapper.mapping(lab.id)), undefined);
      lab.lan.link.set({ loss: 0 });
      lab.world.runFor(1_200_000);
      const types = lab.types().filter((type) => type !== "gateway-restarted");
      assertEquals(types[0], "recovered");
      assertEquals(lab.ports(), [8080]);
    });
  }

  it("comes back by NAT-PMP after a restart that is announced by PCP alone", () => {
    const protocols = ["nat-pmp"] as const;
    const lab = held({ mapper: { protocols }, gateway: { profile: "miniupnpd-2.3.1" } });
    lab.gateway((gateway, now) => gateway.reboot(now));
    lab.world.runFor(15_000);
    assertEquals(lab.ports(), [8080]);
  });

  it("comes back by PCP after a restart that is announced by NAT-PMP alone", () => {
    const lab = held();
    lab.filterAnnouncements((data) => data[0] === 0);
    lab.gateway((gateway, now) => gateway.reboot(now));
    lab.world.runFor(15_000);
    assertEquals(lab.ports(), [8080]);
  });

  it("stays with the gateway's new protocol when its old one is gone", () => {
    const lab = held();
    lab.gateway((gateway, now) => {
      gateway.setProtocol("pcp", false, now);
      gateway.reboot(now);
    });
    lab.world.runFor(2 * 3600_000);
    lab.events();
    const now = lab.mapper((mapper) => mapper.mapping(lab.id));
    assertEquals(now?.via, "nat-pmp");
    assertEquals(now?.external, { address: EXTERNAL, port: 8080 });
  });

  it("is asked for with the lifetime for which it was renewed, at the next gateway and later on", () => {
    const net = new Net({ protocols: ["pcp"] });
    net.add(A, "203.0.113.7");
    net.add(B, "198.51.100.7");
    net.connect([A]);
    const seconds = () => net.mapper.mapping(id)?.lifetimeSeconds;
    const id = net.do((mapper, now) => mapper.map(web, now));
    net.do((mapper, now) => mapper.renew(id, 600, now));
    net.run(4000);
    net.do((mapper, now) => mapper.renew(id, undefined, now));
    net.run(4000);
    net.connect([B]);
    assertEquals([seconds(), net.mapper.exportSaved()[0]!.lifetimeSeconds], [600, 600]);
    net.silent.add(B.gateway.address);
    net.run(600_000);
    net.do((mapper, now) => mapper.renew(id, 900, now));
    net.silent.clear();
    net.run(60_000);
    assertEquals([seconds(), net.takeTypes().at(-1)], [900, "recovered"]);
  });

  it("renews for the lifetime that is asked for", () => {
    const lab = held();
    lab.mapper((mapper, now) => mapper.renew(lab.id, 600, now));
    lab.world.runFor(5000);
    assertEquals(told(lab.events()[0], "renewed").mapping.lifetimeSeconds, 600);
  });

  it("is left at the gateway when it is abandoned", () => {
    const lab = held();
    lab.mapper((mapper, now) => mapper.abandon(lab.id, now));
    lab.world.runFor(1000);
    assertEquals(lab.types(), []);
    assertEquals(lab.ports(), [8080]);
  });

  it("is not told any more once it is abandoned", () => {
    const mapper = openMapper();
    const id = mapper.map({ ...web, remote: { address: "::1", port: 9 } }, 0);
    mapper.abandon(id, 0);
    assertEquals(mapper.poll(), undefined);
  });
});

describe("a later run", () => {
  const later = (lab: ReturnType<typeof rig>, saved: readonly SavedPort[]) => {
    const mapper = new PortMapper({ random: seededRandom(99), saved, protocols: BY_DATAGRAM });
    const next = lab.host.run<MapperEvent, PortMapper>(mapper, {});
    next.do((machine, now) => machine.networkChanged([{ gateway: GATEWAY }], now));
    return next;
  };
  const earlier = (protocols: readonly ("pcp" | "nat-pmp")[]) => {
    const lab = rig({ gateway: { protocols, profile: "strict-nonce" } });
    const id = lab.mapper((mapper, now) => mapper.map(web, now));
    lab.world.runFor(1000);
    assertEquals(lab.types(), ["mapped"]);
    const saved = JSON.parse(JSON.stringify(lab.mapper((mapper) => mapper.exportSaved())));
    lab.mapper((mapper, now) => mapper.abandon(id, now));
    lab.process.stop();
    return { lab, next: later(lab, saved) };
  };

  it("adopts a PCP mapping by its nonce", () => {
    const { lab, next } = earlier(["pcp"]);
    next.do((mapper, now) => mapper.map(web, now));
    lab.world.runFor(1000);
    assertEquals(next.takeEvents().map(({ event }) => event.type), ["mapped"]);
    assertEquals(lab.ports(), [8080]);
  });

  for (const via of ["pcp", "nat-pmp"] as const) {
    it(`deletes what was made by ${via}`, () => {
      const { lab, next } = earlier([via]);
      next.do((mapper, now) => mapper.unmap(web, now));
      lab.world.runFor(1000);
      const event = told(next.takeEvents()[0]?.event, "unmapped");
      assertEquals(event.failure, undefined);
      assertEquals(event.attempts.map(({ via: by, outcome }) => `${by} ${outcome}`), [
        `${via} unmapped`,
      ]);
      assertEquals(lab.ports(), []);
    });
  }

  it("says so where the gateway keeps what nobody saved", () => {
    const lab = rig({ gateway: { profile: "miniupnpd-2.3.1" } });
    const id = lab.mapper((mapper, now) => mapper.map(web, now));
    lab.world.runFor(1000);
    lab.mapper((mapper, now) => mapper.abandon(id, now));
    lab.process.stop();
    const stranger = later(lab, []);
    stranger.do((mapper, now) => mapper.unmap(web, now));
    lab.world.runFor(1000);
    const event = told(stranger.takeEvents()[0]?.event, "unmapped");
    assertEquals(event.attempts.map(({ via, outcome }) => `${via} ${outcome}`), [
      "nat-pmp unmapped",
      "pcp NOT_AUTHORIZED",
    ]);
    assertEquals(event.failure?.kind, "refused");
    assertEquals(lab.ports(), [8080]);
  });

  it("deletes by every protocol what nobody saved", () => {
    const lab = rig({ gateway: { protocols: ["nat-pmp"] } });
    const id = lab.mapper((mapper, now) => mapper.map(web, now));
    lab.world.runFor(1000);
    lab.mapper((mapper, now) => mapper.abandon(id, now));
    lab.mapper((mapper, now) => mapper.unmap({ ...web, internalPort: 9090 }, now));
    lab.mapper((mapper, now) => mapper.unmapAll("tcp", now));
    lab.world.runFor(1000);
    assertEquals(lab.ports(), []);
    const unmapped = lab.events().filter((event) => event.type === "unmapped");
    assertEquals(unmapped.length, 2);
  });
});

describe("what waits to be fetched", () => {
  it("is due at the moment of the last call, whatever that was (rule 3)", () => {
    const { protocol: _, ...both } = web;
    const calls: readonly ((mapper: PortMapper, id: number, now: number) => unknown)[] = [
      (mapper, _, now) => mapper.networkChanged([{ gateway: GATEWAY, localAddress: HOST }], now),
      (mapper, _, now) => mapper.localAddressesChanged([HOST], now),
      (mapper, _, now) =>
        mapper.handleSocket("none", { ok: true, local: { address: HOST, port: 1 } }, now),
      (mapper, _, now) => mapper.map({ ...web, internalPort: 1 }, now),
      (mapper, _, now) => mapper.mapBoth({ ...both, internalPort: 2 }, now),
      (mapper, _, now) => mapper.unmap({ ...web, internalPort: 3 }, now),
      (mapper, _, now) => mapper.unmapAll("udp", now),
      (mapper, _, now) => mapper.watch({ ...web, internalPort: 4 }, now),
      (mapper, id, now) => mapper.renew(id, undefined, now),
      (mapper, _, now) => mapper.revoke(99, now),
      (mapper, _, now) => mapper.abandon(99, now),
      (mapper, _, now) => mapper.askAddresses(undefined, now),
      (mapper, _, now) => mapper.endQuestion(99, now),
      (mapper, _, now) => mapper.list(now),
      (mapper, _, now) => mapper.close(now),
      (mapper, _, now) => mapper.handleDatagram(new Uint8Array(2), GATEWAY, "none", now),
      (mapper, _, now) => mapper.handleUnreachable(GATEWAY, "none", now),
      (mapper, _, now) => mapper.handleTimeout(now),
    ];
    for (const [i, call] of calls.entries()) {
      const mapper = openMapper();
      const id = mapper.map(web, 5);
      assertEquals(mapper.nextTimeout(), 5);
      call(mapper, id, 7);
      assertEquals(mapper.nextTimeout(), 7, `call ${i}`);
    }
  });
});

describe("bad input", () => {
  const cases: readonly (readonly [string, Record<string, unknown>, string])[] = [
    ["a port of 0", { internalPort: 0 }, "'internalPort'"],
    ["a port beyond 65535", { internalPort: 65536 }, "65536"],
    ["an unknown protocol", { protocol: "icmp" }, "'protocol'"],
    ["a protocol by its number", { protocol: 6 }, "'protocol'"],
    ["a lifetime of 0", { lifetimeSeconds: 0 }, "'lifetimeSeconds'"],
    ["a mode of 0 lifetimes", { mode: 0 }, "'mode'"],
    [
      "PREFER_FAILURE without a port",
      { preferFailure: true, suggestedExternal: { port: 0 } },
      "'preferFailure'",
    ],
    [
      "an external address of IPv6",
      { suggestedExternal: { address: "::1" } },
      "'suggestedExternal.address'",
    ],
    ["a port set of one", { portSet: { size: 1 } }, "'portSet"],
    ["a port set that insists", { portSet: { size: 4 }, preferFailure: true }, "'portSet"],
    ["a third party that is none", { thirdParty: "host" }, "'thirdParty'"],
    ["a protocol that is none of ours", { protocols: ["pcp", "stun"] }, "'protocols'"],
    [
      "protocols that cannot do it",
      { protocols: ["nat-pmp"], thirdParty: "10.0.0.1" },
      "'protocols'",
    ],
  ];
  for (const [what, fields, message] of cases) {
    it(`throws on ${what}, and nothing is sent`, () => {
      const machine = openMapper();
      const request = { ...web, ...fields } as unknown as Parameters<PortMapper["map"]>[0];
      assertThrows(() => machine.map(request, 0), Error, message);
      assertEquals(machine.poll(), undefined);
      assertEquals(machine.isIdle, true);
    });
  }
  it("throws on filters, a peer or another host of the other family", () => {
    const prefix = { family: 6, address: "2001:db8::", prefixLength: 32 } as const;
    for (
      const [fields, message] of [
        [
          { filters: [{ prefix, port: 0 }] },
          "must be an IPv4 prefix: current value is 2001:db8::/32",
        ],
        [{ thirdParty: "2001:db8::9" }, "'thirdParty'"],
        [{ remote: { address: "2001:db8::9", port: 9 }, family: 4 }, "'remote.address'"],
      ] as const
    ) {
      const machine = openMapper();
      assertThrows(() => machine.map({ ...web, ...fields }, 0), TypeError, message);
    }
    const own = { family: 4, address: "192.0.2.0", prefixLength: 24 } as const;
    openMapper().map({ ...web, filters: [{ prefix: own, port: 0 }] }, 0);
  });

  it("throws once it is closed, whatever is to be mapped, and has told no request's nonce", () => {
    const machine = openMapper();
    assertEquals(machine.nonces, 0);
    machine.close(0);
    const { protocol: _, ...both } = web;
    for (
      const ask of [
        () => machine.map(web, 0),
        () => machine.mapBoth(both, 0),
        () => machine.watch(web, 0),
      ]
    ) assertThrows(ask, TypeError, "closed");
    assertEquals([machine.poll(), machine.nonces], [undefined, 0]);
  });

  it("throws on what a pair or a watch cannot be", () => {
    const machine = openMapper();
    const { protocol: _, ...both } = web, remote = { address: "198.51.100.1", port: 9 };
    for (
      const [ask, message] of [
        [() => machine.mapBoth({ ...both, remote }, 0), "'remote' cannot be for TCP and UDP"],
        [() => machine.mapBoth({ ...both, portSet: { size: 2 } }, 0), "'portSet' cannot be for"],
        [() => machine.watch({ ...web, remote }, 0), "'remote' cannot be watched"],
        [() => machine.watch({ ...web, portSet: { size: 2 } }, 0), "'portSet' cannot be watched"],
        [() => machine.watch({ ...web, mode: "once" }, 0), "'mode' cannot be watched"],
        [() => machine.watch({ ...web, boundTo: "here" }, 0), "'boundTo'"],
      ] as const
    ) assertThrows(ask, TypeError, message);
    assert(machine.isIdle);
  });

  for (const protocols of [["pcp"], ["nat-pmp"]] as const) {
    it(`throws on a port that is held already, by ${protocols[0]}, and leaves it as it is`, () => {
      const lab = rig({ gateway: { protocols } });
      const id = lab.mapper((mapper, now) => mapper.map(web, now));
      const again = () => lab.mapper((mapper, now) => mapper.map(web, now));
      const unmap = () => lab.mapper((mapper, now) => mapper.unmap(web, now));
      assertThrows(again, TypeError, "8080/tcp");
      lab.world.runFor(1000);
      assertThrows(again, TypeError, "8080/tcp");
      assertThrows(unmap, TypeError, "8080/tcp");
      lab.world.runFor(1000);
      assertEquals(lab.types(), ["mapped"]);
      lab.mapper((mapper, now) => mapper.revoke(id, now));
      const next = again();
      lab.world.runFor(1000);
      assertEquals(lab.types(), ["unmapped", "mapped"]);
      lab.mapper((mapper, now) => mapper.revoke(next, now));
      lab.world.runFor(1000);
      assertEquals(lab.mapper((mapper) => mapper.isIdle), true);
    });
  }

  it("throws on port sets that overlap, and forgets the second", () => {
    const lab = rig();
    lab.mapper((mapper, now) => mapper.map({ ...web, portSet: { size: 10 } }, now));
    const overlapping = { protocol: "tcp", internalPort: 8085 } as const;
    assertThrows(() => lab.mapper((mapper, now) => mapper.map(overlapping, now)), TypeError);
    assertThrows(() => lab.mapper((mapper, now) => mapper.unmap(overlapping, now)), TypeError);
    lab.mapper((mapper, now) => mapper.close(now));
    lab.world.runFor(1000);
    assertEquals(lab.mapper((mapper) => mapper.isIdle), true);
  });

  it("throws on a port set that overlaps with what waits for a gateway, whatever that is", () => {
    const { protocol: _, ...both } = web;
    for (
      const wish of [
        (mapper: PortMapper) => mapper.map({ ...web, internalPort: 8081 }, 0),
        (mapper: PortMapper) => mapper.map({ ...web, internalPort: 8083, portSet: { size: 9 } }, 0),
        (mapper: PortMapper) => mapper.watch({ ...web, internalPort: 8081 }, 0),
        (mapper: PortMapper) => mapper.mapBoth({ ...both, internalPort: 8081 }, 0),
      ]
    ) {
      const net = new Net({ protocols: ["pcp"] });
      net.add(A, "203.0.113.7");
      net.do(wish);
      const set = { ...web, portSet: { size: 4 } };
      assertThrows(() => net.mapper.map(set, 0), TypeError, "Cannot map 8080/tcp");
      net.connect([A]);
      assert(net.ports(A).length > 0);
    }
  });

  it("knows another host, and a peer, however its address is spelt", () => {
    const spelt = ["2001:DB8:0::9", "2001:db8::9"] as const;
    const of = (address: string) => [
      { ...web, family: 6, thirdParty: address } as const,
      { ...web, family: 6, remote: { address, port: 9 } } as const,
    ];
    const net = new Net({ protocols: ["pcp"] });
    net.add(SIX, "", { allowThirdParty: true });
    for (const request of of(spelt[0])) net.do((mapper, now) => mapper.map(request, now));
    for (const request of of(spelt[1])) {
      assertThrows(() => net.mapper.map(request, 0), TypeError, "it is mapped already");
    }
    net.connect([SIX]);
    assertEquals(net.takeTypes(), ["mapped", "mapped"]);
    const [saved] = net.mapper.exportSaved();
    const later = new Net({ protocols: ["pcp"], saved: [{ ...saved!, thirdParty: spelt[0] }] });
    later.add(SIX, "", { allowThirdParty: true });
    later.connect([SIX]);
    later.do((mapper, now) => mapper.unmap(of(spelt[1])[0]!, now));
    assertEquals(toHex(later.sent[0]!.data.subarray(24, 36)), saved!.nonce);
  });

  it("lets a set have beside it what is another host's, for a peer, or over the other family", () => {
    const net = new Net({ protocols: ["pcp"] });
    net.add(A, "203.0.113.7", { allowThirdParty: true });
    net.add(SIX, "");
    net.connect([A, SIX]);
    const one = { ...web, internalPort: 8081 }, remote = { address: "198.51.100.9", port: 9 };
    net.do((mapper, now) => {
      mapper.map({ ...web, portSet: { size: 4 } }, now);
      mapper.map({ ...one, remote }, now);
      mapper.map({ ...one, thirdParty: "192.168.1.9" }, now);
      mapper.map({ ...one, family: 6 }, now);
    });
    assertEquals(net.takeTypes(), ["mapped", "mapped", "mapped", "mapped"]);
  });

  it("tells at once that nobody can do what was asked for before the gateway was open", () => {
    for (
      const [protocol, request, message] of [
        [
          "nat-pmp",
          { suggestedExternal: { port: 8080 }, preferFailure: true },
          "'preferFailure' is PCP's alone",
        ],
        [
          "pcp",
          { thirdParty: A.localAddress! },
          "'thirdParty' must be another host's address: current value is 192.168.1.100",
        ],
      ] as const
    ) {
      const net = new Net({ protocols: [protocol] });
      net.add(A, "203.0.113.7");
      net.do((mapper, now) => mapper.map({ ...web, ...request }, now));
      net.connect([A]);
      const failed = told(net.events[0], "failed");
      assertEquals([failed.code, failed.message, failed.attempts], ["unsupported", message, []]);
      assertEquals([net.sent, net.mapper.isIdle], [[], true]);
    }
  });

  it("says that there is no gateway of a peer's family", () => {
    const mapper = openMapper();
    mapper.map({ ...web, remote: { address: "::1", port: 9 } }, 0);
    const action = mapper.poll();
    const event = action?.type === "event" ? action.event : undefined;
    assertEquals(told(event, "failed").code, "gateway-not-found");
    const mixed = { ...web, family: 4, remote: { address: "::1", port: 9 } } as const;
    assertThrows(() => mapper.map(mixed, 0), TypeError, "'remote.address'");
  });
  it("throws on options that are wrong, by their names", () => {
    const saved = [{ via: "pcp", gateway: "home" }] as unknown as SavedPort[];
    assertThrows(() => openMapper({ saved }), TypeError, "'gateway'");
    const protocols = ["stun"] as unknown as ["pcp"];
    assertThrows(() => openMapper({ protocols }), TypeError, "'protocols'");
  });
  it("throws on a way that is none, by the name of what is wrong", () => {
    const mapper = openMapper();
    for (
      const [path, Kind, message] of [
        [{ gateway: { address: "router", port: 5351 } }, TypeError, "'gateway.address'"],
        [{ gateway: { ...GATEWAY, port: 0 } }, RangeError, "'gateway.port'"],
        [{ gateway: GATEWAY, localAddress: "::1" }, TypeError, "'localAddress'"],
      ] as const
    ) {
      assertThrows(() => mapper.networkChanged([path], 0), Kind, message);
      assertEquals(mapper.gateways, [GATEWAY]);
    }
    assertThrows(() => mapper.localAddressesChanged(["here"], 0), TypeError, "'addresses'");
  });
  it("drops and counts what comes from elsewhere", () => {
    const machine = openMapper();
    machine.map(web, 0);
    while (machine.poll());
    const { key } = machine.sockets()[0]!;
    const from = { address: "192.168.1.66", port: 5351 };
    assertEquals(machine.handleDatagram(new Uint8Array(60), from, key, 1), false);
    assertEquals(machine.stats.wrongSource, 1);
    assertEquals(machine.poll(), undefined);
  });
  it("believes a gateway only by a socket that leads to it", () => {
    const net = new Net({ protocols: ["nat-pmp"] });
    net.add(A, "203.0.113.7");
    net.add(B, "198.51.100.7");
    net.connect([A, B]);
    net.do((mapper, now) => mapper.askAddresses(undefined, now));
    const [a, b] = net.mapper.sockets().map(({ key }) => key);
    const announced = Uint8Array.of(0, 128, 0, 0, 0, 0, 0, 9, 203, 0, 113, 9);
    const by = (socket: string) => net.mapper.handleDatagram(announced, A.gateway, socket, net.now);
    assertEquals([by(b!), by("client"), by(a!)], [false, false, true]);
    assertEquals(net.mapper.stats.wrongSource, 2);
  });
});
