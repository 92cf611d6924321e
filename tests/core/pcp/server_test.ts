import { describe, it } from "node:test";
import { assert, assertEquals, assertThrows } from "@std/assert";
import { equalBytes, u32 } from "../../../core/bytes.ts";
import { decodeResponse, PCP_RESULT } from "../../../core/pcp/codec.ts";
import type { PcpOption } from "../../../core/pcp/options.ts";
import { prefix64Option } from "../../../core/pcp/prefix64.ts";
import { PcpServer, type PcpServerOptions } from "../../../core/pcp/server.ts";
import { below, seededRandom } from "../../../core/random.ts";
import { MappingTable } from "../../../core/table/mod.ts";
import {
  ALICE,
  announceBytes,
  BOB,
  EVE6,
  mapBytes,
  nonceOf,
  PEER,
  peerBytes,
  Rig,
  TCP,
  UDP,
  WAN,
  WAN2,
} from "./server_support.ts";
import { claim } from "./support.ts";

const R = PCP_RESULT;
const text = (value: string): PcpOption => ({ type: "description", text: value });
const portSet = (size: number, firstInternalPort: number, parity = false): PcpOption => ({
  type: "port-set",
  size,
  firstInternalPort,
  parity,
});

describe("PcpServer, DESCRIPTION (RFC 7220)", () => {
  it("keeps what was sent last, cut to whole characters, and echoes what it keeps", () => {
    const rig = new Rig({ maxDescriptionBytes: 10 });
    const held = () => rig.table.inbound(TCP, ALICE.address, 8080)!.description;

    const cut = rig.map({ options: [text("aaaaaaaaäöü")] });
    assertEquals([cut.options, held()], [[text("aaaaaaaaä")], "aaaaaaaaä"]);
    const silent = rig.map();
    assertEquals([silent.options, held()], [[], "aaaaaaaaä"]);
    const erased = rig.map({ options: [text("")] });
    assertEquals([erased.options, held()], [[text("")], undefined]);
    const peer = rig.peer({ options: [text("flow")] });
    assertEquals(peer.options, [text("flow")]);
    assertEquals(rig.table.outbounds(TCP, ALICE.address, 50_000)[0]!.description, "flow");
  });

  it("ignores what is no UTF-8, and everything where it is switched off", () => {
    const rig = new Rig();
    const broken = Uint8Array.from([...mapBytes(), 128, 0, 0, 2, 0xff, 0xfe, 0, 0]);
    const sent = rig.raw(broken)[0]!.data;

    assertEquals([sent[3], sent.length], [R.SUCCESS, 60]);
    assertEquals(new Rig({ maxDescriptionBytes: 0 }).map({ options: [text("x")] }).options, []);
  });
});

describe("PcpServer, a static mapping", () => {
  it("is answered with what was asked of it but the description, which is the administrator's", () => {
    const rig = new Rig();
    rig.table.mapInbound({
      kind: "static",
      origin: "admin",
      protocol: TCP,
      internal: { address: ALICE.address, port: 8080 },
      suggestedPort: 80,
      description: "web",
      expiresAt: Infinity,
    }, 0);
    const preference: PcpOption = { type: "prefer-failure" };
    const options: PcpOption[] = [{ type: "description", text: "mine" }, preference];
    const answer = rig.map({ suggestedPort: 80, options });
    assertEquals([answer.resultCode, answer.options], [0, [preference]]);
    assertEquals([...rig.table.entries()].map(({ description }) => description), ["web"]);
  });
});

describe("PcpServer, PORT_SET (RFC 7753)", () => {
  it("maps adjoining ports and tells how many, with the parity kept where asked", () => {
    const rig = new Rig();

    const set = rig.map({
      internalPort: 6001,
      suggestedPort: 7002,
      options: [portSet(16, 6001, true)],
    });

    assertEquals(set.resultCode, R.SUCCESS);
    assertEquals(set.externalPort % 2, 1);
    assertEquals(set.options, [portSet(16, 6001, true)]);
    assertEquals(rig.table.portsOf(ALICE.address), 16);
  });

  it("tells which ports a set has where it moves to another address", () => {
    for (const isSame of [true, false]) {
      const rig = new Rig({ announceCopies: 0 });
      const suggestedPort = isSame ? 7000 : 7001;
      rig.map({ internalPort: 6000, suggestedPort, options: [portSet(4, 6000)] });
      rig.server.externalAddressChanged(rig.table.setExternalAddresses([WAN2], 0), 0);
      const [update] = rig.drain().map(({ data }) => decodeResponse(data));
      claim(typeof update === "object" && update.kind === "map", "a mapping update");
      assertEquals([update.externalPort, update.options], [
        suggestedPort,
        [portSet(4, 6000, isSame)],
      ]);
    }
  });

  it("maps as many as the bound, the quota and the port numbers let, and never more than asked", () => {
    const rig = new Rig({ maxPortSetSize: 32 }, { maxPortsPerClient: 40 });

    const all = rig.map({ internalPort: 1000, options: [portSet(0xffff, 1000)] });
    const rest = rig.map({ internalPort: 2000, options: [portSet(20, 2000)] });
    const edge = rig.map({ from: BOB, internalPort: 65_533, options: [portSet(20, 65_533)] });

    assertEquals(all.options, [portSet(32, 1000)]);
    assertEquals(rest.options, [portSet(8, 2000)]);
    assertEquals(edge.options, [portSet(3, 65_533)]);
  });

  it("says nothing of a set where there is one port, by wish, by bound or by need", () => {
    const one = new Rig().map({ options: [portSet(1, 8080)] });
    const off = new Rig({ maxPortSetSize: 1 }).map({ options: [portSet(9, 8080)] });
    const rig = new Rig({}, { maxPortsPerClient: 1 });
    const needy = rig.map({ options: [portSet(9, 8080)] });

    assertEquals([one, off, needy].map(({ resultCode, options }) => [resultCode, options]), [
      [R.SUCCESS, []],
      [R.SUCCESS, []],
      [R.SUCCESS, []],
    ]);
  });

  it("size 0, and PREFER_FAILURE beside it in either order, are MALFORMED_OPTION", () => {
    const rig = new Rig();
    const prefer: PcpOption = { type: "prefer-failure" };
    const set = portSet(4, 8080);

    const codes = [[portSet(0, 8080)], [set, prefer], [prefer, set]]
      .map((options) => rig.map({ suggestedPort: 80, options }).resultCode);

    assertEquals(codes, [R.MALFORMED_OPTION, R.MALFORMED_OPTION, R.MALFORMED_OPTION]);
  });

  it("what overlaps a set renews the whole of it, what deletes deletes the whole of it", () => {
    const rig = new Rig();
    const first = rig.map({
      internalPort: 6000,
      lifetimeSeconds: 600,
      options: [portSet(8, 6000)],
    });

    const overlapping = rig.map({ internalPort: 6004, options: [portSet(8, 6004)] });
    const single = rig.map({ internalPort: 6005, lifetimeSeconds: 900 });

    assertEquals(overlapping.internalPort, 6004);
    assertEquals(overlapping.externalPort, first.externalPort);
    assertEquals(overlapping.options, [portSet(8, 6000)]);
    assertEquals([single.externalPort, single.options], [first.externalPort + 5, []]);
    assertEquals([...rig.table.entries()].map(({ expiresAt }) => expiresAt), [900_000]);
    const gone = rig.map({ internalPort: 6000, lifetimeSeconds: 0, options: [portSet(8, 6000)] });
    assertEquals([gone.resultCode, gone.lifetimeSeconds, gone.options], [0, 0, []]);
    assertEquals(rig.table.size, 0);
  });

  it("a set that meets several mappings renews and tells each of them (RFC 7753 §5.3)", () => {
    const rig = new Rig();
    rig.map({ internalPort: 100 });
    rig.map({ internalPort: 101, options: [portSet(4, 101)] });

    const sent = rig.raw(mapBytes({ internalPort: 100, options: [portSet(5, 100)] }));

    const replies = sent.map(({ data }) => decodeResponse(data));
    const told = replies.map((reply) => {
      claim(typeof reply === "object" && reply.kind === "map", "a MAP response");
      return [reply.internalPort, reply.options];
    });
    assertEquals(told, [[100, []], [101, [portSet(4, 101)]]]);
    const foreign = mapBytes({ internalPort: 99, nonce: nonceOf(7), options: [portSet(5, 99)] });
    const refused = rig.raw(foreign).map(({ data }) => decodeResponse(data));
    assertEquals(
      refused.map((reply) => typeof reply === "object" && reply.kind === "map" && reply.resultCode),
      [
        R.NOT_AUTHORIZED,
        R.NOT_AUTHORIZED,
      ],
    );
  });
});

describe("PcpServer, PREFIX64 (RFC 7225)", () => {
  const prefix64 = {
    prefix: Uint8Array.of(0, 0x64, 0xff, 0x9b, 0, 0, 0, 0, 0, 0, 0, 0),
    suffix: new Uint8Array(0),
    ipv4Prefixes: [],
  };

  it("tells the prefix it knows to who asks, and nothing where it knows none", () => {
    const asking = prefix64Option({ ...prefix64, prefix: new Uint8Array(12) });
    const told = prefix64Option(prefix64);
    const rig = new Rig({ prefix64 });

    const map = rig.map({ from: EVE6, options: [asking] });
    const announce = rig.ask(announceBytes(ALICE, [asking]));

    assertEquals(map.options, [told]);
    claim(announce.kind === "announce", "an ANNOUNCE response");
    assertEquals(announce.options, [told]);
    assertEquals(new Rig().map({ options: [asking] }).options, []);
    // It is for MAP and ANNOUNCE alone, once, and as the RFC has it.
    const broken = { ...asking, data: asking.data.subarray(1) };
    assertEquals(rig.map({ options: [broken] }).options, []);
    assertEquals(rig.map({ options: [asking, asking] }).resultCode, R.MALFORMED_OPTION);
    const remote = { address: "198.51.100.1", port: 80 };
    assertEquals(rig.peer({ remote, options: [asking] }).options, []);
  });
});

describe("PcpServer beside other protocols' servers", () => {
  it("adopts a mapping without a nonce, and from then on guards it", () => {
    const rig = new Rig();
    rig.table.mapInbound({
      origin: "nat-pmp",
      protocol: TCP,
      internal: { address: ALICE.address, port: 8080 },
      suggestedPort: 4000,
      expiresAt: 7_200_000,
    }, 0);

    const adopted = rig.map({ suggestedPort: 5000 });

    assertEquals([adopted.resultCode, adopted.externalPort], [R.SUCCESS, 4000]);
    assertEquals(rig.map({ nonce: nonceOf(2) }).resultCode, R.NOT_AUTHORIZED);
    assertEquals(rig.table.size, 1);
  });

  it("sends no update for a mapping that is not its own, or is gone meanwhile", () => {
    const rig = new Rig({ announceCopies: 0 });
    rig.table.mapInbound({
      origin: "nat-pmp",
      protocol: UDP,
      internal: { address: ALICE.address, port: 1 },
      requester: ALICE,
      expiresAt: 7_200_000,
    }, 0);
    rig.map();
    rig.server.externalAddressChanged(rig.table.setExternalAddresses([WAN2], 0), 0);
    const first = rig.drain();
    rig.table.remove(rig.table.inbound(TCP, ALICE.address, 8080)!, 100);

    assertEquals(first.length, 1);
    // One port is no set of ports.
    const update = decodeResponse(first[0]!.data);
    claim(typeof update === "object" && update.kind === "map", "a mapping update");
    assertEquals(update.options, []);
    assertEquals(rig.runTo(10_000), []);
    assertEquals(rig.server.stats.updates, 1);
  });

  it("PREFER_FAILURE of the last renewal decides what a new external address does to a mapping", () => {
    const loose = { suggestedPort: 80 };
    const exact = {
      ...loose,
      suggestedAddress: WAN,
      options: [{ type: "prefer-failure" } satisfies PcpOption],
    };
    for (const [renewals, left] of [[[loose, exact], []], [[exact, loose], [WAN2]]] as const) {
      const rig = new Rig();
      for (const asked of renewals) assertEquals(rig.map(asked).resultCode, R.SUCCESS);
      rig.server.externalAddressChanged(rig.table.setExternalAddresses([WAN2], 0), 0);
      assertEquals([...rig.table.entries()].map(({ external }) => external.address), left);
    }
  });

  it("an IPv6 firewall without any external address serves, IPv4 gets NETWORK_FAILURE", () => {
    const rig = new Rig({}, { externalAddresses: [] });

    assertEquals(rig.map({ from: EVE6 }).resultCode, R.SUCCESS);
    assertEquals(rig.map().resultCode, R.NETWORK_FAILURE);
    assertEquals(rig.peer().resultCode, R.NETWORK_FAILURE);
  });

  it("a link-local client is known with its zone and without", () => {
    const rig = new Rig();
    const from = { address: "fe80::1%eth0", port: 5000 };

    const response = rig.map({ from, clientAddress: "fe80::1", suggestedAddress: "::" });

    assertEquals([response.resultCode, response.externalAddress], [R.SUCCESS, "fe80::1"]);
  });
});

describe("PcpServer, policy and trace", () => {
  it("a policy sees what is asked and refuses with its own code and time", () => {
    const seen: unknown[] = [];
    const rig = new Rig({
      allowThirdParty: true,
      decide: (request) => {
        seen.push(request);
        return { kind: "refuse", code: R.NOT_AUTHORIZED, lifetimeSeconds: 7 };
      },
    });
    const options: PcpOption[] = [{ type: "third-party", internalAddress: "192.168.1.50" }];

    const map = rig.map({ options, suggestedPort: 80, suggestedAddress: WAN });
    const peer = rig.peer();
    const announce = rig.ask(announceBytes());

    for (const response of [map, peer, announce]) {
      assertEquals("resultCode" in response && response.resultCode, R.NOT_AUTHORIZED);
      assertEquals(response.lifetimeSeconds, 7);
    }
    const asked = {
      via: "pcp",
      from: ALICE,
      lifetimeSeconds: 3600,
      protocol: TCP,
      remote: undefined,
      nonce: nonceOf(1),
      existing: undefined,
    };
    const nothing = { address: "0.0.0.0", port: 0 };
    assertEquals(seen, [
      {
        ...asked,
        operation: "map",
        internal: { address: "192.168.1.50", port: 8080 },
        suggested: { address: WAN, port: 80 },
      },
      {
        ...asked,
        operation: "peer",
        internal: { address: ALICE.address, port: 50_000 },
        suggested: nothing,
        remote: PEER,
      },
      {
        ...asked,
        operation: "announce",
        lifetimeSeconds: 0,
        protocol: 0,
        nonce: undefined,
        internal: { address: ALICE.address, port: 0 },
        suggested: nothing,
      },
    ]);
    assertEquals(rig.table.size, 0);
  });

  it("a trace tells requests, answers and mappings; without it nothing is told", () => {
    const rig = new Rig({ trace: true, announceTo: [{ address: "224.0.0.1", port: 5350 }] });
    rig.map({ suggestedPort: 4000 });
    rig.map({ nonce: nonceOf(2) });
    rig.table.advance(3_600_000);
    rig.drain();
    rig.server.announce(3_600_000);
    rig.drain();

    const told = rig.events.map((event) =>
      event.type === "request"
        ? event.request.operation
        : event.type === "mapping"
        ? `${event.change} ${event.entry.external.port}`
        : `${event.result} ${event.lifetimeSeconds} ${event.external?.port} ${event.isUnsolicited}`
    );
    assertEquals(told, [
      "map",
      "SUCCESS 3600 4000 false",
      "added 4000",
      "map",
      "NOT_AUTHORIZED 3600 undefined false",
      "expired 4000",
      "SUCCESS 0 undefined true",
    ]);
    const quiet = new Rig();
    quiet.map();
    assertEquals(quiet.events, []);
    const packets = new Rig({ trace: "packets" });
    packets.map();
    assertEquals(packets.events.map(({ type }) => type), ["request", "response"]);
  });

  it("changes nobody drained come as one event a mapping, the last word first", () => {
    const rig = new Rig({ trace: true });
    for (let i = 0; i < 3; i++) rig.server.handleDatagram(mapBytes(), ALICE, "server", i);
    rig.server.handleDatagram(mapBytes({ internalPort: 1 }), ALICE, "server", 3);
    rig.server.handleDatagram(
      mapBytes({ internalPort: 1, lifetimeSeconds: 0 }),
      ALICE,
      "server",
      3,
    );
    rig.drain();

    const changes = rig.events.flatMap((event) => event.type === "mapping" ? [event.change] : []);
    assertEquals(changes, ["added", "removed"]);
  });

  it("counts whole: requests by kind, answers by result, drops by reason", () => {
    const rig = new Rig();
    rig.map();
    rig.map({ nonce: nonceOf(2) });
    rig.peer();
    rig.ask(announceBytes());
    rig.raw(new Uint8Array(1));
    rig.raw(Uint8Array.of(1, 0));
    rig.server.reset(0);
    rig.drain();

    assertEquals(rig.server.stats, {
      requests: { map: 2, peer: 1, announce: 1 },
      responses: { SUCCESS: 3, NOT_AUTHORIZED: 1, UNSUPP_VERSION: 1 },
      dropped: { "too-short": 1 },
      announcements: 2,
      updates: 0,
    });
  });
});

describe("PcpServer, time", () => {
  it("wakes for leases, says why, and sleeps when there is nothing to do", () => {
    const rig = new Rig();
    assertEquals([rig.server.nextTimeout(), rig.server.debugTimeout()], [undefined, undefined]);
    rig.map({ lifetimeSeconds: 200 });

    assertEquals(rig.server.debugTimeout(), { at: 200_000, reason: "lease of mapping 1" });
    rig.runTo(200_000);
    assertEquals([rig.table.size, rig.server.nextTimeout()], [0, undefined]);
    rig.server.announce(200_000);
    assertEquals(rig.server.debugTimeout(), { at: 200_000, reason: "output waits" });
    rig.drain();
    assertEquals(rig.server.debugTimeout(), { at: 200_250, reason: "announce" });
    rig.server.silence();
    assertEquals(rig.server.nextTimeout(), undefined);
  });

  it("after a long sleep one announcement goes out, not all that were missed", () => {
    const rig = new Rig({ announceTo: [{ address: "224.0.0.1", port: 5350 }] });
    rig.server.reset(0);
    rig.drain();

    rig.server.handleTimeout(3_600_000);
    const late = rig.drain();

    assertEquals(late.map(({ data }) => u32(data, 8)), [3600]);
    assertEquals(rig.server.nextTimeout(), 3_600_500);
  });

  it("an epoch can be set for a test, and wraps where its 32 bits do", () => {
    const rig = new Rig({ startedAt: 5000 });
    assertEquals([rig.server.epochSeconds(4000), rig.server.epochSeconds(6999)], [0, 1]);
    rig.server.setEpoch(0xffff_ffff, 0);
    assertEquals([rig.server.epochSeconds(0), rig.server.epochSeconds(1000)], [0xffff_ffff, 0]);
  });
});

describe("PcpServer, bad input", () => {
  it("bad options are thrown with their names", () => {
    const bad: [Partial<PcpServerOptions>, string][] = [
      [{ minLifetimeSeconds: 0 }, "minLifetimeSeconds"],
      [{ minLifetimeSeconds: 500, maxLifetimeSeconds: 400 }, "minLifetimeSeconds"],
      [{ maxLifetimeSeconds: 2 ** 32 }, "maxLifetimeSeconds"],
      [{ maxFilters: 0 }, "maxFilters"],
      [{ maxDescriptionBytes: 1017 }, "maxDescriptionBytes"],
      [{ maxPortSetSize: 0 }, "maxPortSetSize"],
      [{ announceCopies: 11 }, "announceCopies"],
      [{ protocols: [0] }, "protocols[0]"],
      [{ announceTo: [{ address: "all", port: 1 }] }, "announceTo[0].address"],
      [{ announceTo: [{ address: "224.0.0.1", port: 0 }] }, "announceTo[0].port"],
    ];
    for (const [options, name] of bad) {
      assertThrows(() => new Rig(options), Error, `'${name}'`);
    }
    assertThrows(() => new Rig().server.setEpoch(-1, 0), RangeError, "'seconds'");
  });

  it("200,000 random and mutated requests from 10,000 sources throw nothing and fill nothing", () => {
    const random = seededRandom(20_250_101);
    const limits = { maxEntries: 2000, maxPortsPerClient: 20, maxQuarantined: 500 };
    const table = new MappingTable({ externalAddresses: [WAN, WAN2], ...limits });
    const server = new PcpServer({ table, allowThirdParty: true, trace: true });
    const fields = { options: [portSet(3, 8080), text("x")] };
    let now = 0, answers = 0, made = 0;
    for (let i = 0; i < 200_000; i++) {
      const source = below(random, 10_000);
      const from = {
        address: `10.0.${source >> 8}.${source & 255}`,
        port: 1024 + below(random, 9),
      };
      const wish = {
        from,
        protocol: [0, TCP, UDP, 132, 99][below(random, 5)]!,
        internalPort: below(random, 40) === 0 ? 0 : 8000 + below(random, 100),
        suggestedPort: below(random, 3) === 0 ? 0 : 2000 + below(random, 3000),
        lifetimeSeconds: below(random, 4) === 0 ? 0 : below(random, 100_000),
        nonce: nonceOf(below(random, 2)),
        ...below(random, 4) === 0 ? fields : {},
      };
      const kind = below(random, 4);
      let data = kind === 0 ? peerBytes(wish) : kind === 1 ? announceBytes(from) : mapBytes(wish);
      const mutation = below(random, 6);
      if (mutation === 0) random.fill(data);
      else if (mutation === 1) data = data.slice(0, below(random, data.length + 1));
      else if (mutation === 2) data[below(random, data.length)] = below(random, 256);
      else if (mutation === 3) {
        const tail = new Uint8Array(4 * below(random, 20));
        random.fill(tail);
        data = Uint8Array.from([...data, ...tail]);
      }
      now += below(random, 500);
      const before = data.slice();

      server.handleDatagram(data, from, "server", now);

      assert(equalBytes(data, before), "what is handed in is not written to");
      for (let action = server.poll(); action; action = server.poll()) {
        if (action.type === "event") {
          if (action.event.type === "mapping" && action.event.change === "added") made++;
          continue;
        }
        claim(action.type === "send", "a datagram");
        answers++;
        assert(action.data.length <= 1100 && action.data.length % 4 === 0);
        // The copy of a request that was too short is too short for an answer, too.
        const isCopyOfShort = action.data[3] === R.MALFORMED_REQUEST && action.data.length < 80;
        assert(isCopyOfShort || typeof decodeResponse(action.data) === "object", "can be read");
      }
      if (i % 1000 === 0) {
        assert(table.size <= 2000 && table.quarantined <= 500);
        if (below(random, 20) === 0) {
          const moved = table.setExternalAddresses([[WAN, WAN2][below(random, 2)]!], now);
          server.externalAddressChanged(moved, now);
        }
      }
    }
    assert(answers > 100_000 && made > 1000, `${answers} answers, ${made} mappings`);
    let ports = 0;
    for (const entry of table.entries()) ports += entry.size;
    assert(ports <= 2000 * 64);
    table.clear("all", now);
    assertEquals([table.size, table.quarantined, table.nextTimeout()], [0, 0, undefined]);
  });

  it("a flood that nobody drains is dropped past a bound", () => {
    const rig = new Rig();
    for (let i = 0; i < 20_000; i++) rig.server.handleDatagram(announceBytes(), ALICE, "server", i);

    assertEquals(rig.drain().length, 4096);
  });
});
