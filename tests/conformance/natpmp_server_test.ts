import { describe } from "node:test";
import { fromHex, toHex, u16, u32 } from "../../core/bytes.ts";
import type { Endpoint, Instant } from "../../core/machine.ts";
import { NatPmpServer, type NatPmpServerOptions } from "../../core/natpmp/server.ts";
import { seededRandom } from "../../core/random.ts";
import { type SimSocket, World } from "../../core/sim/mod.ts";
import type { MappingTableOptions } from "../../core/table/options.ts";
import { MappingTable } from "../../core/table/table.ts";
import { SimulatedGateway } from "../../core/gateway/gateway.ts";
import { assertEquals, assertNotEquals, it } from "./clause.ts";

const ALICE: Endpoint = { address: "192.168.1.100", port: 40001 };
const BOB: Endpoint = { address: "192.168.1.101", port: 40002 };
const EXTERNAL = "203.0.113.7";
const UDP = 1, TCP = 2;
const REFUSED = { kind: "refuse", code: 2 } as const;

interface Sent {
  readonly at: Instant;
  readonly to: Endpoint;
  readonly data: Uint8Array;
}

/** A server over a table of its own, driven by hand. */
class Bench {
  readonly table: MappingTable;
  readonly server: NatPmpServer;
  readonly sent: Sent[] = [];
  now: Instant = 0;

  constructor(
    options: Partial<NatPmpServerOptions> = {},
    addresses: readonly string[] = [EXTERNAL],
    table: MappingTableOptions = {},
  ) {
    this.table = options.table ??
      new MappingTable({ externalAddresses: addresses, random: seededRandom(1), ...table });
    this.server = new NatPmpServer({ ...options, table: this.table });
    this.server.start(0);
    this.#drain();
  }

  #drain(): Sent[] {
    const fresh: Sent[] = [];
    for (let action = this.server.poll(); action; action = this.server.poll()) {
      if (action.type === "send") fresh.push({ at: this.now, to: action.to, data: action.data });
    }
    this.sent.push(...fresh);
    return fresh;
  }

  /** Runs the timers up to `until`. */
  runTo(until: Instant): Sent[] {
    const before = this.sent.length;
    for (let at = this.server.nextTimeout(); at !== undefined && at <= until;) {
      this.now = Math.max(this.now, at);
      this.server.handleTimeout(this.now);
      this.#drain();
      at = this.server.nextTimeout();
    }
    this.now = until;
    return this.sent.slice(before);
  }

  /** What the server sends back to a request. */
  feed(request: Uint8Array | string, from: Endpoint = ALICE): Sent[] {
    const data = typeof request === "string" ? fromHex(request) : request;
    this.server.handleDatagram(data, from, "server", this.now);
    return this.#drain();
  }

  /** The one reply to a request. */
  ask(request: Uint8Array | string, from: Endpoint = ALICE): Uint8Array {
    const replies = this.feed(request, from);
    assertEquals(replies.length, 1);
    assertEquals(replies[0]!.to, from);
    return replies[0]!.data;
  }

  /** A mapping request and its reply, taken apart. */
  map(
    opcode: number,
    internalPort: number,
    { suggested = 0, lifetime = 7200, from = ALICE }: {
      suggested?: number;
      lifetime?: number;
      from?: Endpoint;
    } = {},
  ): MapReply {
    return parseMap(this.ask(mapRequest(opcode, internalPort, suggested, lifetime), from));
  }

  /** Whatever a command of the server queued. */
  command(run: (server: NatPmpServer, now: Instant) => void): Sent[] {
    run(this.server, this.now);
    return this.#drain();
  }

  /** The live external ports of an internal endpoint's inbound mappings. */
  externalPorts(protocol: number, internal: Endpoint): number[] {
    return [...this.table.entries()]
      .filter((entry) =>
        entry.protocol === protocol && entry.internal.address === internal.address &&
        entry.internal.port === internal.port
      )
      .map((entry) => entry.external.port);
  }
}

/** A home network behind a NAT that forwards by the gateway's table, and a host outside. */
function home(): {
  world: World;
  alice: SimSocket;
  bob: SimSocket;
  server: SimSocket;
  map(): void;
} {
  const world = new World({ seed: 1 });
  const lan = world.segment("lan"), internet = world.segment("internet");
  const gateway = new SimulatedGateway({
    externalAddresses: [EXTERNAL],
    random: world.fork(),
    announceTo: [],
  });
  const nat = world.nat("gateway", {
    inside: [lan, "192.168.1.1"],
    outside: [internet, EXTERNAL],
    forwarder: gateway,
  });
  nat.host.run(gateway, { server: { address: "192.168.1.1", port: 5351 } })
    .do((machine, now) => machine.start(now));
  const [alice, bob] = [ALICE, BOB].map(({ address, port }) => {
    const host = world.host(address);
    host.attach(lan, address, { gateway: "192.168.1.1" });
    return host.bind({ port });
  });
  const outside = world.host("server");
  outside.attach(internet, "198.51.100.9");
  const server = outside.bind({ port: 7 });
  const map = (): void => {
    alice!.send({ address: "192.168.1.1", port: 5351 }, mapRequest(UDP, ALICE.port, 6000, 600));
    world.runFor(1000);
    assertEquals(gateway.table.external(17, EXTERNAL, 6000)?.internal, ALICE);
  };
  return { world, alice: alice!, bob: bob!, server, map };
}

interface MapReply {
  readonly length: number;
  readonly version: number;
  readonly opcode: number;
  readonly result: number;
  readonly epoch: number;
  readonly internal: number;
  readonly external: number;
  readonly lifetime: number;
}

function mapRequest(opcode: number, internal: number, suggested: number, lifetime: number) {
  const hex = (value: number, bytes: number): string => value.toString(16).padStart(2 * bytes, "0");
  return fromHex(
    `00${hex(opcode, 1)}0000${hex(internal, 2)}${hex(suggested, 2)}${hex(lifetime, 4)}`,
  );
}

function parseMap(reply: Uint8Array): MapReply {
  return {
    length: reply.length,
    version: reply[0]!,
    opcode: reply[1]!,
    result: u16(reply, 2),
    epoch: u32(reply, 4),
    internal: u16(reply, 8),
    external: u16(reply, 10),
    lifetime: u32(reply, 12),
  };
}

function isAnnouncement(sent: Sent): boolean {
  return sent.to.address === "224.0.0.1" && sent.to.port === 5350;
}

describe("NAT-PMP server clauses (RFC 6886)", () => {
  it("PMP-S-01: another version gets result 1 in the 8-byte form, version 0", () => {
    const bench = new Bench();
    bench.runTo(3_600_000);
    for (const request of ["0100", "0101", "0300", "ff02000000000000", "02010000 00001c20"]) {
      assertEquals(toHex(bench.ask(request)), "0000000100000e10");
    }
  });

  it("PMP-S-02: opcodes from 128 on are ignored in silence", () => {
    const bench = new Bench();
    for (const request of ["0080", "0081", "00820000 1f901f90 00001c20", "00ff", "02810000"]) {
      assertEquals(bench.feed(request), []);
    }
  });

  it("PMP-S-03: an unknown opcode gets the whole request back, top bit set, result 5", () => {
    const bench = new Bench();
    bench.runTo(3_600_000);
    // D-03: at least 8 bytes, with the seconds since the epoch.
    assertEquals(toHex(bench.ask("0003")), "0083000500000e10");
    assertEquals(toHex(bench.ask("007f0000 00000000 aabbccdd ee")), "00ff000500000e10aabbccddee");
  });

  it("PMP-S-04: the external-address request gets its 12 bytes", () => {
    const bench = new Bench();
    bench.runTo(3_600_000);
    assertEquals(toHex(bench.ask("0000")), "0080000000000e10cb007107"); // V-PMP-2
  });

  it("PMP-S-05: the address is zero where the result is not", () => {
    const noWan = new Bench({}, []);
    assertEquals(toHex(noWan.ask("0000")), "008000030000000000000000");
    const refusing = new Bench({ decide: () => REFUSED });
    assertEquals(toHex(refusing.ask("0000")), "008000020000000000000000");
  });

  it("PMP-S-06: every packet carries the seconds since the table was made or reset", () => {
    const bench = new Bench({
      decide: ({ internal }) => internal.port === 9 ? { kind: "refuse", code: 4 } : undefined,
    });
    bench.runTo(1_234_999);
    const replies = ["0000", "0101", "0007", mapRequest(TCP, 80, 0, 60), mapRequest(UDP, 9, 0, 60)]
      .map((request) => bench.ask(request));
    assertEquals(replies.map((reply) => u32(reply, 4)), [1234, 1234, 1234, 1234, 1234]);
    bench.command((server, now) => server.start(now));
    bench.runTo(bench.now + 5_000);
    assertEquals(u32(bench.ask("0000"), 4), 5);
  });

  it("PMP-S-07: boot, a new external address and loss of state are announced", () => {
    const bench = new Bench();
    assertEquals(bench.sent.map((s) => [s.to, toHex(s.data)]), [
      [{ address: "224.0.0.1", port: 5350 }, "0080000000000000cb007107"],
    ]);
    bench.runTo(200_000);
    bench.table.setExternalAddresses(["198.51.100.4"], bench.now);
    const moved = bench.command((server, now) => server.announce(now));
    assertEquals(moved.map((s) => [isAnnouncement(s), toHex(s.data.slice(8))]), [
      [true, "c6336404"],
    ]);
    bench.runTo(400_000);
    const lost = bench.command((server, now) => server.start(now));
    assertEquals(lost.map((s) => [isAnnouncement(s), u32(s.data, 4)]), [[true, 0]]);
  });

  it("PMP-S-08: ten announcements, the first gap 250 ms, each next gap doubled", () => {
    const bench = new Bench();
    bench.runTo(1_000_000);
    const times = bench.sent.filter(isAnnouncement).map((s) => s.at);
    assertEquals(times, [0, 250, 750, 1750, 3750, 7750, 15750, 31750, 63750, 127750]);
  });

  it("PMP-S-09: each announcement carries the seconds as they are when it leaves", () => {
    const bench = new Bench();
    bench.runTo(1_000_000);
    const epochs = bench.sent.filter(isAnnouncement).map((s) => u32(s.data, 4));
    assertEquals(epochs, [0, 0, 0, 1, 3, 7, 15, 31, 63, 127]);
  });

  it("PMP-S-10: the reserved field is ignored", () => {
    const bench = new Bench();
    const reply = parseMap(bench.ask("0002ffff 1f901f90 00001c20"));
    assertEquals([reply.result, reply.external], [0, 8080]);
  });

  it("PMP-S-11: the reply's opcode is the request's plus 128", () => {
    const bench = new Bench();
    assertEquals(bench.ask("0000")[1], 128);
    assertEquals(bench.map(UDP, 5000).opcode, 129);
    assertEquals(bench.map(TCP, 5000).opcode, 130);
    const refusing = new Bench({ decide: () => REFUSED });
    assertEquals(refusing.map(UDP, 5001).opcode, 129);
  });

  it("PMP-S-12: mapping TCP makes no UDP mapping, and the other way round", () => {
    const bench = new Bench();
    bench.map(TCP, 80, { suggested: 80 });
    bench.map(UDP, 53, { suggested: 53 });
    assertEquals([...bench.table.entries()].map((e) => [e.protocol, e.external.port]), [[6, 80], [
      17,
      53,
    ]]);
    assertEquals(bench.table.external(17, EXTERNAL, 80), undefined);
  });

  it("PMP-S-13: the companion port is kept for the same internal address while the lease lasts", () => {
    const bench = new Bench({}, [EXTERNAL], { quarantine: false });
    const bobGets = () => {
      const { result, external } = bench.map(UDP, 80, { suggested: 80, lifetime: 1, from: BOB });
      assertEquals(result, 0);
      bench.map(UDP, 80, { lifetime: 0, from: BOB });
      return external;
    };
    assertEquals(bench.map(TCP, 80, { suggested: 80, lifetime: 100 }).external, 80);
    assertNotEquals(bobGets(), 80);
    assertEquals(bench.map(UDP, 81, { suggested: 80, lifetime: 1 }).external, 80);
    bench.map(UDP, 81, { lifetime: 0 });
    bench.runTo(99_999);
    assertNotEquals(bobGets(), 80);
    bench.runTo(100_000);
    assertEquals(bobGets(), 80);
    // And the other way round, chosen ports too.
    assertEquals(bench.map(UDP, 90, { suggested: 90 }).external, 90);
    assertNotEquals(bench.map(TCP, 90, { from: BOB }).external, 90);
  });

  it("PMP-S-14: another port where the wish is taken, an error where none is left", () => {
    const table = new MappingTable({
      externalAddresses: [EXTERNAL],
      random: seededRandom(1),
      chosenPorts: [{ first: 5000, last: 5001 }],
    });
    const bench = new Bench({ table });
    assertEquals(bench.map(TCP, 1, { suggested: 5000 }).external, 5000);
    const second = bench.map(TCP, 2, { suggested: 5000, from: BOB });
    assertEquals([second.result, second.external], [0, 5001]);
    const third = bench.map(TCP, 3, { suggested: 5000, from: BOB });
    assertEquals([third.result, third.internal, third.external, third.lifetime], [4, 3, 0, 0]);
  });

  it("PMP-S-15: the internal address is where the request came from", () => {
    const bench = new Bench();
    bench.map(TCP, 22, { from: BOB });
    assertEquals([...bench.table.entries()].map((e) => e.internal), [{
      address: BOB.address,
      port: 22,
    }]);
  });

  it("PMP-S-16: what is mapped already, by whatever means, gets its external port again", () => {
    const bench = new Bench();
    const first = bench.map(TCP, 80, { suggested: 8000 });
    assertEquals(bench.map(TCP, 80, { suggested: 9000 }).external, first.external);
    bench.table.mapInbound({
      kind: "static",
      origin: "admin",
      protocol: 6,
      internal: { address: ALICE.address, port: 22 },
      suggestedPort: 2222,
      expiresAt: Infinity,
    }, bench.now);
    assertEquals(bench.map(TCP, 22, { suggested: 22 }).external, 2222);
    bench.table.mapOutbound({
      origin: "traffic",
      protocol: 17,
      internal: { address: ALICE.address, port: 7000 },
      suggestedPort: 61234,
      remote: { address: "198.51.100.1", port: 53 },
      expiresAt: bench.now + 120_000,
    }, bench.now);
    const outbound = bench.table.outbounds(17, ALICE.address, 7000)[0];
    assertEquals(bench.map(UDP, 7000, { suggested: 1234 }).external, outbound!.external.port);
  });

  it("PMP-S-17: nothing from outside: neither the external address nor other prefixes", () => {
    const bench = new Bench({ isInside: (address) => address.startsWith("192.168.1.") });
    for (const address of [EXTERNAL, "198.51.100.77", "10.0.0.1"]) {
      assertEquals(bench.feed(mapRequest(TCP, 80, 80, 7200), { address, port: 5000 }), []);
      assertEquals(bench.feed("0000", { address, port: 5000 }), []);
    }
    assertEquals(bench.table.size, 0);
    const anywhere = new Bench();
    assertEquals(anywhere.feed("0000", { address: EXTERNAL, port: 5000 }), []);
    // By the external interface, and from the inside to the external address.
    const { world, alice, server } = home();
    const heard: string[] = [];
    for (const socket of [alice, server]) {
      socket.onDatagram = (data, { address }) => heard.push(`${address} ${toHex(data)}`);
      socket.send({ address: EXTERNAL, port: 5351 }, fromHex("0000"));
      socket.send({ address: EXTERNAL, port: 5351 }, mapRequest(UDP, 80, 80, 7200));
    }
    world.runFor(1000);
    assertEquals(heard, []);
    alice.send({ address: "192.168.1.1", port: 5351 }, fromHex("0000"));
    world.runFor(1000);
    assertEquals(heard.length, 1);
  });

  it("PMP-S-18: the lifetime may be cut, and is never longer than asked", () => {
    const bench = new Bench({ maxLifetimeSeconds: 3600 });
    assertEquals(bench.map(TCP, 1, { lifetime: 7200 }).lifetime, 3600);
    assertEquals(bench.map(TCP, 2, { lifetime: 1 }).lifetime, 1);
    assertEquals(bench.map(TCP, 3, { lifetime: 0xffffffff }).lifetime, 3600);
  });

  it("PMP-S-19: a mapping that is not renewed is deleted when its lifetime is over", () => {
    const bench = new Bench();
    bench.map(TCP, 80, { lifetime: 60 });
    bench.runTo(59_999);
    assertEquals(bench.table.size, 1);
    bench.runTo(60_000);
    assertEquals(bench.table.size, 0);
  });

  it("PMP-S-20: a client whose address lease ended loses its mappings", () => {
    const bench = new Bench();
    bench.map(TCP, 80);
    bench.map(UDP, 53);
    bench.map(TCP, 80, { from: BOB });
    bench.table.removeAllOf(ALICE.address, bench.now);
    assertEquals([...bench.table.entries()].map((e) => e.internal.address), [BOB.address]);
  });

  it("PMP-S-21: the suggested port of a delete is ignored", () => {
    const bench = new Bench();
    bench.map(TCP, 80, { suggested: 80 });
    bench.map(TCP, 81, { suggested: 81 });
    assertEquals(bench.map(TCP, 80, { suggested: 81, lifetime: 0 }).result, 0);
    assertEquals(bench.externalPorts(6, { ...ALICE, port: 80 }), []);
    assertEquals(bench.externalPorts(6, { ...ALICE, port: 81 }), [81]);
  });

  it("PMP-S-22: a delete is answered with result 0, the internal port, port 0 and lifetime 0", () => {
    const bench = new Bench();
    bench.runTo(3_700_000);
    bench.map(TCP, 8080, { suggested: 8080 });
    assertEquals(
      toHex(bench.ask("00020000 1f900000 00000000")),
      "0082000000000e741f90000000000000",
    );
  });

  it("PMP-S-23: deleting what is not there is answered as if it had been", () => {
    const bench = new Bench();
    bench.map(TCP, 8080);
    const first = bench.ask("00020000 1f900000 00000000");
    assertEquals(toHex(bench.ask("00020000 1f900000 00000000")), toHex(first));
  });

  it("PMP-S-24: a failed delete has its result, the mapping asked about, and lifetime 0", () => {
    const bench = new Bench({
      decide: ({ operation }) => operation === "delete" ? REFUSED : undefined,
    });
    bench.map(TCP, 8080, { suggested: 8080 });
    const reply = bench.map(TCP, 8080, { lifetime: 0 });
    assertEquals([reply.result, reply.internal, reply.lifetime], [2, 8080, 0]);
    assertEquals(bench.externalPorts(6, { ...ALICE, port: 8080 }), [8080]);
  });

  it("PMP-S-25: deleting a static mapping gets result 2", () => {
    const bench = new Bench();
    bench.table.mapInbound({
      kind: "static",
      origin: "admin",
      protocol: 6,
      internal: { address: ALICE.address, port: 80 },
      suggestedPort: 80,
      expiresAt: Infinity,
    }, 0);
    const reply = bench.map(TCP, 80, { lifetime: 0 });
    assertEquals([reply.result, reply.internal, reply.lifetime], [2, 80, 0]);
    assertEquals(bench.table.size, 1);
  });

  it("PMP-S-27: delete-all removes all of that client's mappings of that protocol", () => {
    const bench = new Bench();
    for (const port of [1, 2, 3]) bench.map(TCP, port);
    bench.map(UDP, 1);
    bench.map(TCP, 1, { from: BOB });
    const reply = bench.map(TCP, 0, { lifetime: 0 });
    assertEquals([reply.result, reply.internal, reply.external, reply.lifetime], [0, 0, 0, 0]);
    assertEquals([...bench.table.entries()].map((e) => [e.protocol, e.internal.address]), [
      [17, ALICE.address],
      [6, BOB.address],
    ]);
  });

  it("PMP-S-28: delete-all deletes what it can, and says so where that was not all", () => {
    const bench = new Bench();
    bench.map(TCP, 1);
    bench.table.mapInbound({
      kind: "static",
      origin: "admin",
      protocol: 6,
      internal: { address: ALICE.address, port: 80 },
      suggestedPort: 80,
      expiresAt: Infinity,
    }, 0);
    bench.map(TCP, 2);
    assertEquals(bench.map(TCP, 0, { lifetime: 0 }).result, 2);
    assertEquals([...bench.table.entries()].map((e) => e.kind), ["static"]);
    assertEquals(bench.map(UDP, 0, { lifetime: 0 }).result, 0);
  });

  it("PMP-S-29: a failure is a valid reply: seconds, internal port, port and lifetime zero", () => {
    const bench = new Bench({ decide: () => REFUSED });
    bench.runTo(3_601_000);
    // V-PMP-9
    assertEquals(
      toHex(bench.ask("00010000 13881388 00001c20")),
      "0081000200000e111388000000000000",
    );
    const noWan = new Bench({}, []);
    const reply = noWan.map(TCP, 80);
    assertEquals([reply.result, reply.internal, reply.external, reply.lifetime], [3, 80, 0, 0]);
  });

  it("PMP-S-30: loss of state restarts the seconds at 0 and is announced anew", () => {
    const bench = new Bench();
    bench.map(TCP, 80);
    bench.runTo(500_000);
    bench.sent.length = 0;
    bench.command((server, now) => {
      bench.table.clear("all", now);
      server.start(now);
    });
    bench.runTo(1_000_000);
    const announced = bench.sent.filter(isAnnouncement);
    assertEquals(announced.length, 10);
    assertEquals(announced.slice(0, 4).map((s) => u32(s.data, 4)), [0, 0, 0, 1]);
  });

  it("PMP-S-31: a table that outlives its server is served by the next one", () => {
    const bench = new Bench();
    const port = bench.map(TCP, 80, { suggested: 8000 }).external;
    const next = new Bench({ table: bench.table });
    assertEquals(next.map(TCP, 80, { suggested: 9 }).external, port);
  });

  it("PMP-S-32: what is no NAT neither answers nor announces, and does not listen", () => {
    const gateway = new SimulatedGateway({
      externalAddresses: [EXTERNAL],
      protocols: ["nat-pmp"],
      random: seededRandom(1),
    });
    const drain = (at: Instant): Sent[] => {
      const sent: Sent[] = [];
      for (let action = gateway.poll(); action; action = gateway.poll()) {
        if (action.type === "send") sent.push({ at, to: action.to, data: action.data });
      }
      return sent;
    };
    gateway.start(0);
    assertEquals(drain(0).length, 1);
    gateway.setNat(false, 0);
    assertEquals(gateway.isListening, false);
    for (const request of ["0000", "0101", "0007"]) {
      gateway.handleDatagram(fromHex(request), ALICE, "server", 0);
    }
    gateway.handleDatagram(mapRequest(TCP, 80, 80, 7200), ALICE, "server", 0);
    gateway.announce(0);
    assertEquals([drain(0), gateway.nextTimeout()], [[], undefined]);
    // Acting as a NAT again is a start.
    gateway.setNat(true, 1_000_000);
    const again = drain(1_000_000);
    assertEquals(again.map((s) => [isAnnouncement(s), u32(s.data, 4)]), [[true, 0]]);
  });

  it("PMP-S-33: what comes in by a mapping is answered by it", () => {
    const { world, alice, server, map } = home();
    map();
    const heard: Endpoint[] = [];
    server.onDatagram = (_, from) => heard.push(from);
    alice.onDatagram = (data, from) => alice.send(from, data);
    server.send({ address: EXTERNAL, port: 6000 }, Uint8Array.of(1));
    world.runFor(1000);
    // The same holds for what nobody asked for.
    alice.send({ address: "198.51.100.9", port: 7 }, Uint8Array.of(2));
    world.runFor(1000);
    assertEquals(heard, Array(2).fill({ address: EXTERNAL, port: 6000 }));
  });

  it("PMP-S-34: of several external addresses one is used as if there were no other", () => {
    const second = "203.0.113.8";
    const bench = new Bench({}, [EXTERNAL, second, "203.0.113.9"], {
      ports: [{ first: 1, last: 60 }],
      chosenPorts: [{ first: 1, last: 60 }],
      quarantine: false,
    });
    const told = () => bench.ask("0000").slice(8).join(".");
    for (let port = 1; port <= 50; port++) bench.map(TCP, port, { from: port % 2 ? ALICE : BOB });
    const used = () => new Set([...bench.table.entries()].map((e) => e.external.address));
    assertEquals([[...used()], told()], [[EXTERNAL], EXTERNAL]);
    // Where it has no port left, no other is used: the client was told that one.
    for (let port = 51; port <= 60; port++) bench.map(TCP, port);
    assertEquals([bench.map(TCP, 61).result, [...used()]], [4, [EXTERNAL]]);
    // A client whose mappings are on another one is told that one.
    bench.table.setExternalAddresses([second, EXTERNAL], 0);
    assertEquals(told(), EXTERNAL);
    bench.table.setExternalAddresses([second], 0);
    assertEquals([[...used()], told()], [[second], second]);
  });

  it("PMP-S-35: a host inside reaches a mapping at the external address", () => {
    const { world, alice, bob, map } = home();
    map();
    const heard: Endpoint[] = [];
    alice.onDatagram = (_, from) => heard.push(from);
    bob.send({ address: EXTERNAL, port: 6000 }, Uint8Array.of(1));
    world.runFor(1000);
    assertEquals(heard.map((from) => from.address), [EXTERNAL]);
  });

  it("PMP-S-36: the administrator's switch turns every request into result 2", () => {
    let isOn = false;
    const bench = new Bench({ decide: () => isOn ? undefined : REFUSED });
    assertEquals(u16(bench.ask("0000"), 2), 2);
    assertEquals(bench.map(TCP, 80).result, 2);
    assertEquals(bench.table.size, 0);
    isOn = true;
    assertEquals(bench.map(TCP, 80).result, 0);
  });

  it("PMP-S-37: a dual server tells the protocols apart by the version byte", () => {
    const gateway = new SimulatedGateway({
      externalAddresses: [EXTERNAL],
      random: seededRandom(1),
    });
    gateway.start(0);
    const ask = (hex: string): string => {
      while (gateway.poll());
      gateway.handleDatagram(fromHex(hex), ALICE, "server", 0);
      const action = gateway.poll();
      return action?.type === "send" ? toHex(action.data.slice(0, 4)) : "";
    };
    assertEquals(ask("0000"), "00800000");
    assertEquals(ask("02000000 00000000 00000000 00000000 0000ffff c0a80164"), "02800000");
    assertEquals(ask("0100"), "00000001");
    // D-19: from version 3 on, 24 bytes or more are answered in PCP's form.
    assertEquals(ask("03000000 00000000 00000000 00000000 0000ffff c0a80164"), "02800001");
    assertEquals(ask("0900"), "00000001");
  });
});
