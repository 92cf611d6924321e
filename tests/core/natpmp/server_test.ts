import { timed } from "../machine_case.ts";
import { describe, it } from "node:test";
import { assert, assertEquals, assertThrows } from "@std/assert";
import { toHex, u16 } from "../../../core/bytes.ts";
import type { Endpoint, Instant } from "../../../core/machine.ts";
import { encodeAddressRequest, encodeMapRequest } from "../../../core/natpmp/codec.ts";
import { NatPmpServer, type NatPmpServerOptions } from "../../../core/natpmp/server.ts";
import { seededRandom } from "../../../core/random.ts";
import {
  MappingTable,
  type MappingTableOptions,
  type ServerEvent,
} from "../../../core/table/mod.ts";

const ALICE: Endpoint = { address: "192.168.1.100", port: 40001 };
const BOB: Endpoint = { address: "192.168.1.101", port: 40002 };

class Bench {
  readonly table: MappingTable;
  readonly server: NatPmpServer;
  readonly events: ServerEvent[] = [];

  constructor(options: Partial<NatPmpServerOptions> = {}, table: MappingTableOptions = {}) {
    this.table = new MappingTable({ externalAddresses: ["203.0.113.7"], ...table });
    this.server = timed(new NatPmpServer({ announceTo: [], table: this.table, ...options }));
    this.server.start(0);
  }

  drain(): Uint8Array[] {
    const sent: Uint8Array[] = [];
    for (let action = this.server.poll(); action; action = this.server.poll()) {
      if (action.type === "send") {
        assertEquals(action.socket, "server");
        sent.push(action.data);
      } else if (action.type === "event") this.events.push(action.event);
    }
    return sent;
  }

  feed(data: Uint8Array, from: Endpoint = ALICE, now: Instant = 0): Uint8Array[] {
    this.server.handleDatagram(data, from, "server", now);
    return this.drain();
  }

  /** Result code and external port. */
  map(
    internalPort: number,
    { suggested = 0, lifetime = 7200, from = ALICE, now = 0, protocol = "tcp" }: {
      suggested?: number;
      lifetime?: number;
      from?: Endpoint;
      now?: Instant;
      protocol?: "tcp" | "udp";
    } = {},
  ): [number, number] {
    const [reply] = this.feed(
      encodeMapRequest({
        protocol,
        internalPort,
        suggestedExternalPort: suggested,
        lifetimeSeconds: lifetime,
      }),
      from,
      now,
    );
    return [u16(reply!, 2), u16(reply!, 10)];
  }
}

describe("NatPmpServer", () => {
  it("tells where a datagram is not its own, and counts why", () => {
    const { server } = new Bench();
    assertEquals(server.handleDatagram(new Uint8Array(), ALICE, "server", 0), false);
    assertEquals(server.handleDatagram(Uint8Array.of(0, 1, 0, 0), ALICE, "server", 0), false);
    assertEquals(server.handleDatagram(Uint8Array.of(0, 128), ALICE, "server", 0), false);
    assertEquals(
      server.handleDatagram(encodeAddressRequest(), { address: "::1", port: 1 }, "server", 0),
      false,
    );
    assertEquals(server.handleDatagram(encodeAddressRequest(), ALICE, "server", 0), true);
    assertEquals(server.stats, {
      requests: { address: 1, map: 0, delete: 0, unsupported: 0 },
      results: [1, 0, 0, 0, 0, 0, 0],
      dropped: { "too-short": 2, "not-a-request": 1, outside: 1, policy: 0 },
      announcements: 0,
    });
  });

  it("announces to every destination, and replaces what nobody has taken yet", () => {
    const { server, ...bench } = new Bench({
      announceTo: [{ address: "224.0.0.1", port: 5350 }, { address: "224.0.0.1", port: 5351 }],
    });
    for (const now of [250, 750, 1750]) server.handleTimeout(now);
    const sent: string[] = [];
    for (let action = server.poll(); action; action = server.poll()) {
      if (action.type === "send") sent.push(`${action.to.port} ${toHex(action.data)}`);
    }
    assertEquals(sent, [
      "5350 0080000000000001cb007107",
      "5351 0080000000000001cb007107",
    ]);
    assertEquals([server.stats.announcements, bench.events.length], [8, 0]);
  });

  it("a late call announces once, not in a burst", () => {
    const { server } = new Bench({ announceTo: [{ address: "224.0.0.1", port: 5350 }] });
    server.poll();
    server.handleTimeout(60_000);
    assertEquals(server.poll()?.type, "send");
    server.handleTimeout(60_000);
    assertEquals(server.poll(), undefined);
    assertEquals(server.debugTimeout(), { at: 60_500, reason: "announce" });
  });

  it("announces a wanted number of times, and a start only where wanted", () => {
    const to = [{ address: "224.0.0.1", port: 5350 }];
    const { server } = new Bench({ announceTo: to, announceCopies: 1, announcesStart: false });
    assertEquals(server.poll(), undefined);
    server.announce(5);
    assertEquals(server.poll()?.type, "send");
    assertEquals(server.nextTimeout(), undefined);
  });

  it("asks the policy before it serves, and does what it says", () => {
    const asked: unknown[] = [];
    const bench = new Bench({
      decide: ({ operation, internal: { port }, existing }, now) => {
        asked.push([operation, port, existing?.external.port, now]);
        return port === 1 ? { kind: "drop" } : port === 2 ? { kind: "refuse", code: 9 } : undefined;
      },
    });
    bench.feed(encodeAddressRequest(), ALICE, 1);
    const fields = { protocol: "tcp", suggestedExternalPort: 0, lifetimeSeconds: 9 } as const;
    assertEquals(bench.feed(encodeMapRequest({ ...fields, internalPort: 1 }), ALICE, 2), []);
    assertEquals(bench.map(2), [9, 0]);
    assertEquals(bench.map(3, { suggested: 33 }), [0, 33]);
    assertEquals(bench.map(3, { lifetime: 0 }), [0, 0]);
    assertEquals(bench.map(0, { lifetime: 0 }), [0, 0]);
    assertEquals(asked, [
      ["address", 0, undefined, 1],
      ["map", 1, undefined, 2],
      ["map", 2, undefined, 0],
      ["map", 3, undefined, 0],
      ["delete", 3, 33, 0],
      ["delete-all", 0, undefined, 0],
    ]);
    assertEquals(bench.server.stats.dropped.policy, 1);
    assertEquals(bench.server.stats.results, [4, 0, 0, 0, 0, 0, 1]);
  });

  it("refuses internal port 0: NAT-PMP cannot ask for all ports", () => {
    const bench = new Bench();
    assertEquals(bench.map(0), [2, 0]);
    assertEquals(bench.table.size, 0);
  });

  it("does not shorten, nor tear a port out of, what another protocol made", () => {
    const bench = new Bench();
    const made = bench.table.mapInbound({
      origin: "pcp",
      protocol: 6,
      internal: { address: ALICE.address, port: 6000 },
      suggestedPort: 7000,
      size: 4,
      expiresAt: 1_000_000,
    }, 0);
    assertEquals(bench.map(6002, { lifetime: 60 }), [0, 7002]);
    assertEquals(typeof made === "object" && made.expiresAt, 1_000_000);
    assertEquals(bench.map(6002, { lifetime: 2000 }), [0, 7002]);
    assertEquals(typeof made === "object" && made.expiresAt, 2_000_000);
    assertEquals(bench.map(6002, { lifetime: 0 }), [2, 0]);
    assertEquals(bench.map(0, { lifetime: 0 }), [0, 0]);
    assertEquals(bench.table.size, 0);
  });

  it("shortens its own mapping where a renewal asks for less", () => {
    const bench = new Bench();
    bench.map(80);
    bench.map(80, { lifetime: 60 });
    assertEquals([...bench.table.entries()].map((e) => e.expiresAt), [60_000]);
  });

  it("where told so searches ports upwards from the wish, or from the internal port", () => {
    const bench = new Bench({ portChoice: "upwards" });
    assertEquals(bench.map(80), [0, 80]);
    assertEquals(bench.map(80, { from: BOB }), [0, 81]);
    assertEquals(bench.map(1, { from: BOB, suggested: 80 }), [0, 82]);
    assertEquals(bench.map(65535, { suggested: 65535 }), [0, 65535]);
    assertEquals(bench.map(65535, { from: BOB }), [0, 1]);
  });

  it("where told so deletes its own mappings only, and says that it worked", () => {
    const bench = new Bench({ deletes: "own" });
    bench.table.mapInbound({
      origin: "pcp",
      protocol: 6,
      internal: { address: ALICE.address, port: 80 },
      expiresAt: 1000,
    }, 0);
    bench.map(81);
    assertEquals(bench.map(80, { lifetime: 0 }), [0, 0]);
    assertEquals(bench.map(0, { lifetime: 0 }), [0, 0]);
    assertEquals([...bench.table.entries()].map((e) => e.internal.port), [80]);
  });

  it("a client over its quota, and a table that is full, get result 4", () => {
    const bench = new Bench({}, { maxPortsPerClient: 2, maxEntries: 3 });
    assertEquals([bench.map(1)[0], bench.map(2)[0], bench.map(3)[0]], [0, 0, 4]);
    assertEquals([bench.map(1, { from: BOB })[0], bench.map(2, { from: BOB })[0]], [0, 4]);
    assertEquals(bench.map(1)[0], 0);
    const upwards = new Bench({ portChoice: "upwards" }, { maxPortsPerClient: 1 });
    assertEquals([upwards.map(1)[0], upwards.map(2)[0]], [0, 4]);
  });

  it("keeps a client on one external address even where another has the port", () => {
    const bench = new Bench({}, {
      externalAddresses: ["203.0.113.7", "203.0.113.8"],
      chosenPorts: [{ first: 5000, last: 5000 }],
    });
    assertEquals(bench.map(1, { suggested: 5000 }), [0, 5000]);
    // The second address has the port, but the client would be told the first.
    assertEquals(bench.map(2, { from: BOB, suggested: 5000 }), [4, 0]);
  });

  it("tells what it does as events where it traces", () => {
    const bench = new Bench({ trace: true });
    bench.map(80, { suggested: 80 });
    const [asked, answered, changed] = bench.events;
    const request = {
      via: "nat-pmp",
      operation: "map",
      from: ALICE,
      protocol: 6,
      internal: { address: ALICE.address, port: 80 },
      suggested: { address: "0.0.0.0", port: 80 },
      remote: undefined,
      lifetimeSeconds: 7200,
      nonce: undefined,
      existing: undefined,
    };
    assertEquals(asked, { type: "request", request });
    assertEquals(answered, {
      type: "response",
      via: "nat-pmp",
      to: ALICE,
      opcode: 2,
      resultCode: 0,
      result: "SUCCESS",
      epochSeconds: 0,
      lifetimeSeconds: 7200,
      external: { address: "203.0.113.7", port: 80 },
      isUnsolicited: false,
    });
    assertEquals(changed?.type === "mapping" && [changed.change, changed.entry.origin], [
      "added",
      "nat-pmp",
    ]);
    bench.server.handleTimeout(7_200_000);
    bench.drain();
    const last = bench.events.at(-1);
    assertEquals(last?.type === "mapping" && last.change, "expired");
    const announceTo = [{ address: "224.0.0.1", port: 5350 }];
    const packets = new Bench({ trace: "packets", announceTo, announcesStart: false });
    packets.map(80);
    assertEquals(packets.events.map((e) => e.type), ["request", "response"]);
    packets.events.length = 0;
    packets.server.announce(7_300_000);
    packets.drain();
    assertEquals(packets.events.map((e) => e.type === "response" && e.isUnsolicited), [true]);
  });

  it("tells of a question for the address what is asked and answered, or that it is refused", () => {
    const decisions = [undefined, { kind: "refuse", code: 2 } as const];
    const bench = new Bench({ trace: true, decide: () => decisions.shift() });
    bench.feed(encodeAddressRequest());
    bench.feed(encodeAddressRequest());
    const nobody = { address: "0.0.0.0", port: 0 };
    const request = {
      via: "nat-pmp",
      operation: "address",
      from: ALICE,
      protocol: 0,
      internal: { address: ALICE.address, port: 0 },
      suggested: nobody,
      remote: undefined,
      lifetimeSeconds: 0,
      nonce: undefined,
      existing: undefined,
    };
    assertEquals(bench.events[0], { type: "request", request });
    const answers = bench.events.filter((event) => event.type === "response");
    assertEquals(answers.map(({ result, external }) => [result, external]), [
      ["SUCCESS", { address: "203.0.113.7", port: 0 }],
      ["NOT_AUTHORIZED", undefined],
    ]);
  });

  it("throws the caller's mistakes at once, with the name and the value", () => {
    const table = new MappingTable();
    const make = (options: object) => () => new NatPmpServer({ table, ...options });
    assertThrows(make({ table: undefined }), TypeError, "'table'");
    assertThrows(make({ maxLifetimeSeconds: 0 }), RangeError, "'maxLifetimeSeconds'");
    assertThrows(make({ announceCopies: 11 }), RangeError, "'announceCopies'");
    assertThrows(make({ announceTo: [{ address: "ff02::1", port: 1 }] }), TypeError, "ff02::1");
    assertThrows(make({ portChoice: "down" }), TypeError, '"down"');
    assertThrows(make({ deletes: "some" }), TypeError, '"some"');
    assertThrows(() => new NatPmpServer({ table }).setEpoch(-1, 0), RangeError, "'seconds'");
  });

  it("200,000 random and mutated packets from 10,000 sources: nothing thrown, all bounded", () => {
    const random = seededRandom(20);
    const bench = new Bench({ trace: true }, { maxEntries: 5000, maxPortsPerClient: 8, random });
    const seeds = [
      encodeAddressRequest(),
      encodeMapRequest({
        protocol: "tcp",
        internalPort: 80,
        suggestedExternalPort: 80,
        lifetimeSeconds: 7200,
      }),
      encodeMapRequest({
        protocol: "udp",
        internalPort: 0,
        suggestedExternalPort: 0,
        lifetimeSeconds: 0,
      }),
    ];
    let now = 0, waiting = 0;
    for (let i = 0; i < 200_000; i++) {
      const data = mutate(seeds, random);
      const source = random.u32() % 10_000;
      const from = { address: `10.0.${source >>> 8}.${source & 255}`, port: 1 + source % 65535 };
      bench.server.handleDatagram(data, from, "server", now);
      // Nobody drains for long stretches.
      if (i % 20_000 === 0) {
        for (waiting = 0; bench.server.poll(); waiting++);
        assert(waiting <= 4096 + 10);
        now += 10_000;
        bench.server.handleTimeout(now);
      }
    }
    assert(bench.table.size <= 5000);
    const { requests, dropped } = bench.server.stats;
    const total = requests.address + requests.map + requests.delete + requests.unsupported +
      dropped["too-short"] + dropped["not-a-request"] + dropped.outside;
    assertEquals(total, 200_000);
  });
});

/** Random bytes, or a known message with bytes changed, cut or added. */
function mutate(
  seeds: readonly Uint8Array[],
  random: { u32(): number; fill(b: Uint8Array): void },
) {
  if (random.u32() % 4 === 0) {
    const bytes = new Uint8Array(random.u32() % 64);
    random.fill(bytes);
    return bytes;
  }
  const seed = seeds[random.u32() % seeds.length]!;
  const bytes = new Uint8Array(Math.max(0, seed.length + random.u32() % 5 - 2));
  bytes.set(seed.subarray(0, bytes.length));
  for (let changes = random.u32() % 4; changes > 0 && bytes.length > 0; changes--) {
    bytes[random.u32() % bytes.length] = random.u32();
  }
  return bytes;
}
