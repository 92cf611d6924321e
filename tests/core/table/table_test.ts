import { describe, it } from "node:test";
import { assert, assertEquals, assertNotEquals, assertThrows } from "@std/assert";
import { parseCidr } from "../../../core/cidr.ts";
import type { Endpoint } from "../../../core/machine.ts";
import { seededRandom } from "../../../core/random.ts";
import {
  type InboundRequest,
  MappingTable,
  type MappingTableOptions,
  type OutboundRequest,
  type TableEntry,
  type TableFault,
} from "../../../core/table/mod.ts";
import { snapshotEntry } from "../../../core/table/entry.ts";

const WAN = "203.0.113.7";
const WAN2 = "203.0.113.8";
const A = "192.168.1.100";
const B = "192.168.1.101";
const PEER: Endpoint = { address: "198.51.100.20", port: 443 };
const TCP = 6, UDP = 17, SCTP = 132;

const tableWith = (options: MappingTableOptions = {}): MappingTable =>
  new MappingTable({ externalAddresses: [WAN], ...options });

type Wish = Partial<Omit<InboundRequest, "internal">> & { port?: number; address?: string };

function tryMap(table: MappingTable, wish: Wish = {}, now = 0): TableEntry | TableFault {
  const { port = 8080, address = A, ...rest } = wish;
  const internal = { address, port };
  return table.mapInbound(
    { origin: "pcp", protocol: TCP, internal, expiresAt: now + 3_600_000, ...rest },
    now,
  );
}

function map(table: MappingTable, wish: Wish = {}, now = 0): TableEntry {
  const entry = tryMap(table, wish, now);
  if (typeof entry === "string") throw new Error(`not mapped: ${entry}`);
  return entry;
}

function flow(table: MappingTable, wish: Partial<OutboundRequest> = {}, now = 0): TableEntry {
  const entry = table.mapOutbound({
    origin: "traffic",
    protocol: TCP,
    internal: { address: A, port: 8080 },
    remote: PEER,
    expiresAt: now + 100_000,
    ...wish,
  }, now);
  if (typeof entry === "string") throw new Error(`not mapped: ${entry}`);
  return entry;
}

describe("MappingTable, leases", () => {
  it("a lease ends at its time, not before, and its mapping is gone from every index", () => {
    const table = tableWith();
    map(table, { expiresAt: 5000 });

    assertEquals(table.nextTimeout(), 5000);
    assertEquals([table.advance(4999), table.size], [0, 1]);
    assertEquals([table.advance(5000), table.size], [1, 0]);
    assertEquals(table.inbound(TCP, A, 8080), undefined);
    assertEquals(table.external(TCP, WAN, 8080), undefined);
    assertEquals([table.entriesOf(A), table.portsOf(A), table.nextTimeout()], [[], 0, undefined]);
  });

  it("renewal moves the lease and changes what it is told to, nothing else", () => {
    const table = tableWith();
    const entry = map(table, { description: "a", nonce: new Uint8Array(12).fill(1) });

    table.renew(entry, { expiresAt: 9_000_000 });
    assertEquals([entry.description, entry.nonce?.[0]], ["a", 1]);
    table.renew(entry, { expiresAt: 9_000_000, description: "", nonce: new Uint8Array(12) });

    assertEquals([entry.description, entry.nonce?.[0]], [undefined, 0]);
    const nonce = new Uint8Array(12).fill(2), requester = { address: B, port: 9 };
    table.renew(entry, { expiresAt: 9_000_000, nonce, requester, namesAddress: true });
    nonce.fill(3);
    assertEquals([entry.nonce?.[0], entry.requester, entry.namesAddress], [2, requester, true]);
    // It is woken when the first lease would have ended, and then not before the second one does.
    const wakes: (number | undefined)[] = [];
    for (let at = table.nextTimeout(); table.size > 0; at = table.nextTimeout()) {
      wakes.push(at);
      table.advance(at!);
    }
    assertEquals(wakes, [3_600_000, 9_000_000]);
  });

  it("a lease may be shortened, and made one without end", () => {
    const table = tableWith();
    const entry = map(table, { expiresAt: 5000 });
    const other = map(table, { port: 1, expiresAt: 4000 });

    table.renew(entry, { expiresAt: 1000 });
    assertEquals(table.nextTimeout(), 1000);
    table.renew(entry, { expiresAt: Infinity });
    table.advance(1000);
    assertEquals(table.nextTimeout(), 4000);
    table.renew(other, { expiresAt: Infinity });
    table.advance(4000);
    assertEquals([table.nextTimeout(), table.debugTimeout()], [undefined, undefined]);
    assertEquals([table.advance(1e12), table.size], [0, 2]);
  });

  it("a static mapping never ends, takes no quota and survives a reboot", () => {
    const table = tableWith({ maxPortsPerClient: 0 });
    const entry = map(table, { kind: "static", origin: "admin", suggestedPort: 80, size: 4 });

    table.renew(entry, { expiresAt: 1 });
    table.advance(1e12);
    table.clear("dynamic", 1e12);

    assertEquals([table.size, entry.expiresAt, table.nextTimeout()], [1, Infinity, undefined]);
    assertEquals([entry.size, table.portsOf(A)], [4, 0]);
    table.clear("all", 1e12);
    assertEquals(table.size, 0);
  });

  it("an outbound mapping that traffic keeps alive outlives its lease, without its nonce", () => {
    const table = tableWith();
    const nonce = new Uint8Array(12);
    const entry = flow(table, { origin: "pcp", protocol: UDP, nonce, expiresAt: 100_000 });
    table.noteTraffic(UDP, entry.internal, 50_000);

    table.advance(100_000);
    assertEquals([table.size, entry.nonce, table.nextTimeout()], [1, undefined, 170_000]);
    table.advance(170_000);

    assertEquals(table.size, 0);
  });

  it("an outbound mapping without traffic ends with its lease, however short", () => {
    const table = tableWith();
    const entry = flow(table, { origin: "pcp", expiresAt: 50_000 });

    assertEquals([table.idleUntil(entry), table.advance(50_000)], [-Infinity, 1]);
    assertEquals(table.idleUntil(entry), -Infinity, "of one that is gone");
  });

  it("the packet that made an outbound mapping keeps it alive as any other does", () => {
    const table = tableWith({ idleTimeouts: { tcpSeconds: 300 } });
    const entry = flow(table, {}, 1000);

    assertEquals(table.idleUntil(entry), 301_000);
    assertEquals([table.advance(101_000), table.nextTimeout()], [0, 301_000]);
  });

  it("clear loses quarantine along with mappings", () => {
    const table = tableWith();
    map(table, { suggestedPort: 4000 });
    table.remove(map(table, { port: 1, suggestedPort: 4001 }), 0);
    table.clear("dynamic", 1);

    assertEquals([table.size, table.quarantined], [0, 0]);
    assertEquals(map(table, { address: B, suggestedPort: 4000 }).external.port, 4000);
    assertEquals(map(table, { address: B, port: 1, suggestedPort: 4001 }).external.port, 4001);
  });
});

describe("MappingTable, external ports", () => {
  it("the internal port's number is preferred, then ports come one after the other", () => {
    const table = tableWith({
      chosenPorts: [{ first: 2000, last: 2002 }, { first: 8080, last: 8080 }],
    });

    const ports = [A, B, "192.168.1.102", "192.168.1.103", "192.168.1.104"]
      .map((address) => tryMap(table, { address }))
      .map((entry) => typeof entry === "string" ? entry : entry.external.port);

    assertEquals(ports, [8080, 2000, 2001, 2002, "no-resources"]);
  });

  it("ports come in turn: from the first range's start on, not again what was just freed", () => {
    const options = { prefersSamePort: false, quarantine: false } as const;
    const next = (table: MappingTable, wish: Wish = {}): number => {
      const entry = map(table, { port: 1, ...wish });
      table.remove(entry, 0);
      return entry.external.port;
    };
    const long = tableWith({ ...options, chosenPorts: [{ first: 2020, last: 2080 }] });
    const ports = Array.from({ length: 61 }, (_, i) => 2020 + i);
    assertEquals(ports.map(() => next(long)), ports);
    assertEquals([next(long), long.quarantined], [2020, 0], "after the last the first");

    const ranges = [{ first: 3000, last: 3007 }, { first: 2999, last: 2999 }];
    const short = tableWith({ ...options, chosenPorts: ranges });
    assertEquals([next(short), next(short, { size: 3 }), next(short)], [3000, 3001, 3004]);

    const held = tableWith({ ...options, chosenPorts: [{ first: 2020, last: 2080 }] });
    map(held, { port: 2, suggestedPort: 2020 });
    assertEquals([next(held), next(held)], [2021, 2022], "the first that is free, not a later one");
  });

  it("a single port keeps its parity when told to, against the one suggested", () => {
    const table = tableWith({ chosenPorts: [{ first: 2000, last: 2001 }] });
    const choose = (port: number, suggestedPort: number): TableEntry | TableFault =>
      tryMap(table, { port, suggestedPort, keepParity: true });
    const portOf = (entry: TableEntry | TableFault): number | TableFault =>
      typeof entry === "string" ? entry : entry.external.port;

    assertEquals([5001, 5002, 5003].map((port) => portOf(choose(port, 0))), [
      2001,
      2000,
      "no-resources",
    ]);
    assertEquals([portOf(choose(5005, 4000)), portOf(choose(5007, 4001))], ["no-resources", 4001]);
  });

  it("the same seed chooses the same ports, another seed others", () => {
    const ports = (seed: number): number[] => {
      const table = tableWith({ random: seededRandom(seed), prefersSamePort: false });
      return [1, 2, 3, 4].map((port) => map(table, { port }).external.port);
    };

    assertEquals(ports(1), ports(1));
    assertNotEquals(ports(1), ports(2));
    assertEquals(ports(1).filter((port) => port < 1024), []);
  });

  it("a full pool says so at once, and a freed port is found again", () => {
    const table = tableWith({
      quarantine: false,
      maxPortsPerClient: 70_000,
      maxEntries: 70_000,
      chosenPorts: [{ first: 1, last: 65535 }],
      prefersSamePort: false,
    });
    for (let port = 1; port <= 65535; port++) map(table, { port });

    assertEquals(tryMap(table, { address: B }), "no-resources");
    table.remove(table.external(TCP, WAN, 33_333)!, 0);
    assertEquals(map(table, { address: B }).external.port, 33_333);
    assertEquals(map(table, { address: B, protocol: UDP }).external.port > 0, true);
  });

  it("the gateway's own ports and those out of range are not given out", () => {
    const table = tableWith({
      ports: [{ first: 80, last: 90 }],
      reservedTcpPorts: [80],
      reservedUdpPorts: [81],
    });
    const exact = (protocol: number, suggestedPort: number): TableEntry | TableFault =>
      tryMap(table, { protocol, port: suggestedPort, suggestedPort, isExact: true });

    assertEquals(exact(TCP, 80), "external-unavailable");
    assertEquals(exact(UDP, 81), "external-unavailable");
    assertEquals(exact(TCP, 91), "external-unavailable");
    const usual = tableWith();
    for (const own of [5350, 5351]) {
      const wish = { port: own, suggestedPort: own, isExact: true };
      assertEquals(tryMap(usual, { ...wish, protocol: UDP }), "external-unavailable");
      assertEquals(typeof tryMap(usual, wish), "object");
    }
    assertEquals(typeof exact(UDP, 80), "object");
    const chosenPorts = [{ first: 79, last: 82 }];
    const few = tableWith({
      ports: [{ first: 80, last: 90 }],
      reservedTcpPorts: [80],
      chosenPorts,
    });
    assertEquals([map(few).external.port, map(few, { port: 1 }).external.port], [81, 82]);
    assertEquals(tryMap(few, { port: 2 }), "no-resources");
  });

  it("a client keeps to one external address until that has no port left", () => {
    const table = tableWith({
      externalAddresses: [WAN, WAN2],
      chosenPorts: [{ first: 2000, last: 2001 }],
      prefersSamePort: false,
    });
    map(table, { address: A, suggestedAddress: WAN2 });

    const second = map(table, { address: A, port: 2 }).external.address;
    const third = map(table, { address: A, port: 3 }).external.address;

    assertEquals([second, third], [WAN2, WAN]);
    assertEquals(table.externalAddressFor(B), WAN);
  });

  it("a client keeps to its external address when others come, and to none that has gone", () => {
    const WAN3 = "203.0.113.9";
    const table = tableWith({ externalAddresses: [WAN, WAN2] });
    map(table, { address: A, suggestedAddress: WAN2 });
    map(table, { address: B });

    table.setExternalAddresses([WAN3, WAN2], 0);

    assertEquals(map(table, { address: A, port: 2 }).external.address, WAN2);
    assertEquals(map(table, { address: B, port: 2 }).external.address, WAN3);
  });

  it("IPv6 is translated like IPv4, to addresses of its own, where it is no firewall", () => {
    const WAN6 = "2001:db8:ffff::1", inside = "2001:db8::1";
    const table = tableWith({ externalAddresses: [WAN, WAN6], firewallFamilies: [] });

    assertEquals(map(table, { address: inside }).external, { address: WAN6, port: 8080 });
    assertEquals(map(table, { address: A }).external, { address: WAN, port: 8080 });
    const own = { address: inside, port: 1, suggestedAddress: WAN, suggestedPort: 1 } as const;
    assertEquals(tryMap(table, { ...own, isExact: true }), "external-unavailable");
  });

  it("the companion port of a reserving lease is kept for the same inside", () => {
    const table = tableWith();
    const entry = map(table, { suggestedPort: 4000, reserveCompanion: true });
    const udp = { protocol: UDP, port: 1, suggestedPort: 4000 } as const;

    assertNotEquals(map(table, { ...udp, address: B }).external.port, 4000);
    const own = map(table, { ...udp, address: A });
    assertEquals(own.external.port, 4000);
    table.remove(own, 0);
    table.remove(entry, 0);
    // What is left is the quarantine.
    assertNotEquals(map(table, { ...udp, address: B, port: 2 }).external.port, 4000);
    assertEquals(map(table, { ...udp, address: B, port: 3 }, 120_000).external.port, 4000);
  });

  it("a reserving lease takes a port whose companion is its own, or was until a short time ago", () => {
    const table = tableWith();
    const udp = { protocol: UDP, port: 1, suggestedPort: 4000 } as const;
    const own = map(table, udp);
    const late = map(table, { suggestedPort: 4000 });
    table.renew(late, { expiresAt: 3_600_000, reserveCompanion: true });
    table.remove(own, 0);
    table.advance(1_000_000);
    assertNotEquals(map(table, { ...udp, address: B }, 1_000_000).external.port, 4000);

    const freed = tableWith();
    freed.remove(map(freed, { ...udp, port: 2, suggestedPort: 4001 }), 0);
    const wish = { suggestedPort: 4001, reserveCompanion: true };
    assertNotEquals(map(freed, { ...wish, address: B }).external.port, 4001);
    assertEquals(map(freed, wish).external.port, 4001);
  });

  it("what moves to another address keeps what was asked of its port, and moves whole or not", () => {
    const externalAddresses = [WAN, WAN2], nonce = new Uint8Array(12).fill(1);
    const move = (table: MappingTable) => {
      const moved = table.setExternalAddresses([WAN2], 0);
      return moved.map(({ entry, isGone }) => [entry.external.port, entry.size, isGone]);
    };
    // Its companion's port is another's there.
    const reserving = tableWith({ externalAddresses, chosenPorts: [{ first: 5000, last: 5000 }] });
    map(reserving, { port: 4000, suggestedPort: 4000, reserveCompanion: true });
    map(reserving, { address: B, protocol: UDP, suggestedAddress: WAN2, suggestedPort: 4000 });
    assertEquals(move(reserving), [[5000, 1, false]]);
    // That port was its own there until a short time ago, or that of another nonce.
    for (const [other, port] of [[nonce, 4000], [new Uint8Array(12).fill(2), 8080]] as const) {
      const back = tableWith({ externalAddresses });
      const wish = { suggestedPort: 4000, nonce };
      back.remove(map(back, { ...wish, nonce: other, suggestedAddress: WAN2 }), 0);
      map(back, { ...wish, suggestedAddress: WAN });
      assertEquals(move(back), [[port, 1, false]]);
    }
    // There is room for a part of it alone.
    const set = tableWith({ externalAddresses, chosenPorts: [{ first: 2001, last: 2004 }] });
    map(set, { port: 5000, size: 4 });
    map(set, { address: B, port: 7, suggestedAddress: WAN2, suggestedPort: 2003 });
    assertEquals(move(set), [[2001, 4, true]]);
    assertEquals([set.size, set.portsOf(A)], [1, 0]);
  });

  it("a reserving lease takes no port whose companion is another's", () => {
    const table = tableWith();
    map(table, { address: B, protocol: UDP, suggestedPort: 4000 });

    const entry = map(table, { suggestedPort: 4000, reserveCompanion: true });

    assertNotEquals(entry.external.port, 4000);
    assertEquals(map(table, { port: 9, suggestedPort: 4000 }).external.port, 4000);
  });

  it("SCTP keeps its port or has no mapping", () => {
    const table = tableWith();

    const first = map(table, { protocol: SCTP, suggestedPort: 99 });
    const second = tryMap(table, { protocol: SCTP, address: B });

    assertEquals([first.external.port, second], [8080, "external-unavailable"]);
  });

  it("behind a firewall the outside is the inside", () => {
    const table = tableWith();
    const wish = { address: "2001:db8::1", port: 22 };

    assertEquals(
      tryMap(table, { ...wish, suggestedPort: 23, isExact: true }),
      "external-unavailable",
    );
    assertEquals(
      tryMap(table, { ...wish, suggestedAddress: "2001:db8::2", isExact: true }),
      "external-unavailable",
    );
    const own = { suggestedAddress: wish.address, suggestedPort: 22 };
    const entry = map(table, { ...wish, ...own, isExact: true });

    assertEquals(entry.external, { address: "2001:db8::1", port: 22 });
    assertEquals(table.external(TCP, "2001:db8::1", 22), entry);
    assertEquals(table.externalAddressFor("2001:db8::1"), "2001:db8::1");
  });

  it("a port set gets adjoining ports of the wanted parity, fewer where there are no more", () => {
    const table = tableWith({ chosenPorts: [{ first: 2001, last: 2009 }] });

    const set = map(table, { port: 5000, size: 4, keepParity: true });
    const rest = map(table, { port: 6001, size: 8 });

    assertEquals([set.external.port, set.size], [2002, 4]);
    assertEquals([rest.external.port, rest.size], [2006, 4]);
    assertEquals(table.inbound(TCP, A, 5003), set);
    assertEquals(table.external(TCP, WAN, 2005), set);
    assertEquals(table.portsOf(A), 8);
    table.remove(set, 0);
    assertEquals([table.inbound(TCP, A, 5000), table.portsOf(A), table.quarantined], [
      undefined,
      4,
      4,
    ]);
  });

  it("every port of a set that is gone waits for its last holder", () => {
    const table = tableWith();
    const set = { port: 5000, suggestedPort: 4000, size: 3, nonce: new Uint8Array(12).fill(1) };
    table.remove(map(table, set), 0);

    for (const i of [0, 1, 2]) {
      const wish = { suggestedPort: 4000 + i, isExact: true };
      assertEquals(tryMap(table, { ...wish, address: B }), "external-unavailable");
      assertEquals(
        tryMap(table, { ...wish, port: 5003, nonce: set.nonce }),
        "external-unavailable",
      );
      const one = map(table, { ...wish, port: 5000 + i, nonce: set.nonce });
      assertEquals(one.external.port, 4000 + i);
    }
    assertEquals(table.quarantined, 0);
    assertEquals(
      map(table, { address: B, suggestedPort: 3999, isExact: true }).external.port,
      3999,
    );
    assertEquals(map(table, { address: B, port: 1, suggestedPort: 4003 }).external.port, 4003);
  });

  it("a port set is where most of it has room: on the first such address, where they are alike", () => {
    const set = (chosenPorts: { first: number; last: number }) => {
      const table = tableWith({ externalAddresses: [WAN, WAN2], chosenPorts: [chosenPorts] });
      map(table, { address: B, port: 2002, suggestedPort: 2002 });
      const { external, size } = map(table, { port: 5000, size: 8 });
      return [external, size];
    };
    assertEquals(set({ first: 2001, last: 2004 }), [{ address: WAN2, port: 2001 }, 4]);
    assertEquals(set({ first: 2002, last: 2002 }), [{ address: WAN2, port: 2002 }, 1]);
    const alike = tableWith({
      externalAddresses: [WAN, WAN2],
      chosenPorts: [{ first: 2001, last: 2004 }],
    });
    const { external, size } = map(alike, { port: 5000, size: 8 });
    assertEquals([external, size], [{ address: WAN, port: 2001 }, 4]);
  });

  it("a port set stops before ports that are mapped already, and at the quota", () => {
    const table = tableWith({ maxPortsPerClient: 6 });
    map(table, { port: 5003 });

    assertEquals(map(table, { port: 5000, size: 8 }).size, 3);
    assertEquals(map(table, { port: 6000, size: 8 }).size, 2);
    assertEquals(tryMap(table, { port: 7000, size: 8 }), "over-quota");
  });

  it("a port wholly given to one host is nobody else's", () => {
    const table = tableWith({ externalAddresses: [WAN, WAN2] });
    map(table, { protocol: 0, port: 0 });

    assertEquals(map(table, { address: B }).external.address, WAN2);
    assertEquals(map(table).external.address, WAN);
    assertEquals(tryMap(table, { address: "192.168.1.102", port: 0 }), "not-entirely-available");
  });
});

describe("MappingTable, bindings", () => {
  it("inbound and outbound mappings of one inside share its outside until the last is gone", () => {
    const table = tableWith({ quarantine: false });
    const out = flow(table, { suggestedPort: 4000 });
    const inbound = map(table, { suggestedPort: 5000 });
    const second = flow(table, { remote: { address: PEER.address, port: 444 } });

    assertEquals([inbound, second].map((e) => e.external.port), [4000, 4000]);
    assertEquals(table.external(TCP, WAN, 4000), inbound);
    table.remove(inbound, 0);
    table.remove(out, 0);
    assertEquals(table.external(TCP, WAN, 4000), second);
    table.remove(second, 0);
    assertEquals(map(table, { address: B, suggestedPort: 4000 }).external.port, 4000);
  });

  it("a second mapping of one inside is refused, unless it is an additional port", () => {
    const table = tableWith();
    const first = map(table, { suggestedPort: 4000 });

    assertEquals(tryMap(table, { suggestedPort: 4001 }), "already-mapped");
    const further = map(table, { suggestedPort: 4001, isAdditional: true, kind: "static" });

    assertEquals(further.external.port, 4001);
    assertEquals(table.inbound(TCP, A, 8080), further, "a static one comes first");
    assertEquals(table.entriesOf(A), [first, further]);
    table.remove(first, 0);
    assertEquals(table.inbound(TCP, A, 8080), further);
    table.remove(further, 0);
    assertEquals(table.entriesOf(A), []);
  });

  it("one that must have its port has the one it shares, or none", () => {
    const table = tableWith();
    const remote = { address: PEER.address, port: 444 };
    flow(table, { suggestedPort: 4000 });

    assertEquals(tryMap(table, { suggestedPort: 5000, isExact: true }), "external-unavailable");
    const other = { origin: "pcp", protocol: TCP, expiresAt: 1, remote, isExact: true } as const;
    const internal = { address: A, port: 8080 };
    assertEquals(
      table.mapOutbound({ ...other, internal, suggestedPort: 5000 }, 0),
      "external-unavailable",
    );
    assertEquals(flow(table, { ...other, internal }).external.port, 4000);
    assertEquals(map(table, { isExact: true, suggestedAddress: WAN }).external.port, 4000);
  });

  it("a host's mappings are listed in the order in which they were made", () => {
    const table = tableWith();
    const entries = [map(table, { port: 2 }), map(table, { port: 1 })];
    for (const port of [2, 1]) entries.push(flow(table, { internal: { address: A, port } }));

    assertEquals(table.entriesOf(A), entries);
  });

  it("of three mappings of one inside each may go first, and the others stay", () => {
    for (const gone of [0, 1, 2]) {
      const table = tableWith();
      const entries = [4000, 4001, 4002].map((suggestedPort, i) =>
        map(table, { suggestedPort, isAdditional: i > 0 })
      );
      table.remove(entries[gone]!, 0);

      assertEquals(table.entriesOf(A), entries.filter((_, i) => i !== gone));
      const suggestedPort = 4000 + gone;
      const again = map(table, { suggestedPort, isAdditional: true });
      assertEquals(again.external.port, suggestedPort);
      assertEquals(table.external(TCP, WAN, suggestedPort), again);
    }
  });

  it("packets take the port's own mapping, then the protocol's, then the DMZ's, if filters let", () => {
    const table = tableWith();
    const dmz = map(table, { protocol: 0, port: 0 });
    const all = map(table, { port: 0 });
    const filters = [{ prefix: parseCidr("198.51.100.0/24")!, port: 443 }];
    const own = map(table, { filters });
    const to = (port: number): Endpoint => ({ address: WAN, port });

    assertEquals(table.admit(TCP, to(8080), PEER), own);
    assertEquals(table.admit(TCP, to(8080), { ...PEER, port: 444 }), undefined);
    assertEquals(table.admit(TCP, to(9), PEER), all);
    assertEquals(table.admit(UDP, to(9), PEER), dmz);
    assertEquals(table.admit(UDP, { address: WAN2, port: 9 }, PEER), undefined);
  });

  it("what comes for a port in quarantine does not go to the DMZ host", () => {
    const table = tableWith();
    const entry = map(table, { suggestedPort: 4000 });
    table.remove(entry, 0);
    map(table, { address: B, protocol: 0, port: 0 });

    assertEquals(table.admit(TCP, { address: WAN, port: 4000 }, PEER), undefined);
    assert(table.admit(TCP, { address: WAN, port: 4001 }, PEER));
  });
});

describe("MappingTable, changed external addresses", () => {
  it("mappings move with their ports, or to others where those are taken", () => {
    const table = tableWith({ externalAddresses: [WAN, WAN2] });
    const first = map(table, { suggestedPort: 4000, suggestedAddress: WAN });
    const other = map(table, { address: B, suggestedPort: 4000, suggestedAddress: WAN2 });

    const moved = table.setExternalAddresses([WAN2], 0);

    assertEquals(moved.map(({ entry, previous, isGone }) => [entry, previous.address, isGone]), [
      [first, WAN, false],
    ]);
    assertEquals([first.external.address, other.external.port], [WAN2, 4000]);
    assertNotEquals(first.external.port, 4000);
    assertEquals(table.external(TCP, WAN2, first.external.port), first);
    assertEquals(table.external(TCP, WAN, 4000), undefined);
  });

  it("an address that is gone takes its quarantine with it, and comes back without", () => {
    const table = tableWith({ externalAddresses: [WAN, WAN2] });
    for (const suggestedAddress of [WAN, WAN2]) {
      table.remove(map(table, { suggestedAddress, suggestedPort: 4000 }), 0);
    }
    table.setExternalAddresses([WAN2], 0);
    assertEquals(table.quarantined, 1);
    table.setExternalAddresses([WAN, WAN2], 0);

    const wish = { address: B, suggestedPort: 4000, isExact: true };
    assertEquals(map(table, wish).external.address, WAN);
    assertEquals(tryMap(table, { ...wish, port: 1 }), "external-unavailable");
  });

  it("mappings without a place are gone, and are told as they were", () => {
    const table = tableWith();
    map(table);
    flow(table);

    const moved = table.setExternalAddresses([], 0);

    assertEquals(moved.map(({ entry, isGone }) => [entry.kind, entry.external.address, isGone]), [
      ["explicit", WAN, true],
      ["outbound", WAN, true],
    ]);
    assertEquals([table.size, table.entriesOf(A)], [0, []]);
    assertEquals(tryMap(table), "no-resources");
    assertEquals(table.setExternalAddresses([WAN], 0), []);
    assertEquals(map(table).external.address, WAN);
  });
});

describe("MappingTable, after a port's quarantine", () => {
  it("what comes for it is the DMZ host's", () => {
    const table = tableWith();
    for (const protocol of [TCP, UDP]) {
      const freed = map(table, { address: B, protocol, suggestedPort: 4000 });
      table.remove(freed, 0);
    }
    const request = { protocol: 0, internal: { address: A, port: 0 }, expiresAt: Infinity };
    const dmz = table.mapInbound({ kind: "static", origin: "admin", ...request }, 0);
    assert(typeof dmz === "object");
    const at = { address: WAN, port: 4000 };
    const host = () => table.admit(UDP, at, PEER)?.internal.address;
    table.advance(119_999);
    assertEquals(host(), undefined);
    table.advance(120_000);
    assertEquals(host(), A);
  });
});

describe("MappingTable, a mapping in the place of another", () => {
  const at = (port: number, more: Wish = {}) => {
    const { port: inside = 1, address = A, ...rest } = more;
    return {
      origin: "upnp" as const,
      protocol: TCP,
      internal: { address, port: inside },
      suggestedAddress: WAN,
      suggestedPort: port,
      isExact: true,
      isAdditional: true,
      expiresAt: 9000,
      ...rest,
    };
  };
  const held = (table: MappingTable) =>
    [...table.entries()].map((
      { kind, internal: { address, port }, external },
    ) => [kind, address, port, external.port]);

  it("has its port, whoever's it was and whatever would protect it otherwise", () => {
    const table = tableWith();
    const entry = map(table, { suggestedPort: 4000, nonce: new Uint8Array(12) });
    table.replaceInbound(entry, at(4000), 0);
    assertEquals(held(table), [["explicit", A, 1, 4000]]);
    table.replaceInbound([...table.entries()][0]!, at(4000, { address: B }), 0);
    assertEquals(held(table), [["explicit", B, 1, 4000]]);
    assertEquals([table.portsOf(A), table.portsOf(B), table.quarantined], [0, 1, 0]);
  });

  it("is not made where the other would be lost for nothing", () => {
    const table = tableWith({ maxPortsPerClient: 1, isUsable: (_, port, to) => port !== to.port });
    const entry = map(table, { suggestedPort: 4000 });
    map(table, { address: B });
    const before = held(table);
    assertEquals(table.replaceInbound(entry, at(4000, { port: 4000 }), 0), "external-unavailable");
    assertEquals(table.replaceInbound(entry, at(4000, { address: B }), 0), "over-quota");
    table.isExhausted = true;
    assertEquals(table.replaceInbound(entry, at(4000), 0), "no-resources");
    table.isExhausted = false;
    assertEquals(held(table), before);
    // With room for one more of that host's it is made.
    const roomy = tableWith({ maxPortsPerClient: 2 });
    const first = map(roomy, { suggestedPort: 4000 });
    map(roomy, { address: B });
    roomy.replaceInbound(first, at(4000, { address: B }), 0);
    assertEquals(held(roomy), [["explicit", B, 8080, 8080], ["explicit", B, 1, 4000]]);
    flow(table, { internal: entry.internal });
    assertEquals(table.replaceInbound(entry, at(4000), 0), "external-unavailable");
    assertEquals(held(table).length, 3);
  });
});

describe("MappingTable, bounds", () => {
  it("entries, ports a client and quarantine are bounded", () => {
    const table = tableWith({ maxEntries: 5, maxPortsPerClient: 3, maxQuarantined: 2 });

    for (let port = 1; port <= 3; port++) map(table, { port, suggestedPort: 4000 + port });
    assertEquals(tryMap(table, { port: 4 }), "over-quota");
    map(table, { address: B, port: 1 });
    map(table, { address: B, port: 2 });
    assertEquals(tryMap(table, { address: B, port: 3 }), "no-resources");
    for (const entry of table.entriesOf(A)) table.remove(entry, 0);

    assertEquals(table.quarantined, 2);
    // The oldest had to leave it, and is free.
    assertEquals(map(table, { address: B, port: 9, suggestedPort: 4001 }).external.port, 4001);
  });

  it("an exhausted table makes nothing new and renews what it has", () => {
    const table = tableWith();
    const entry = map(table);
    table.isExhausted = true;

    assertEquals(tryMap(table, { port: 1 }), "no-resources");
    table.renew(entry, { expiresAt: 7_200_000 });
    assertEquals(entry.expiresAt, 7_200_000);
  });

  it("a watch hears of every change in order, as copies, and keeps the newest", () => {
    const table = tableWith();
    const watch = table.watch();
    const short = table.watch(2);
    const entry = map(table, { expiresAt: 1000 });
    table.renew(entry, { expiresAt: 2000 });
    table.setExternalAddresses([WAN2], 0);
    table.advance(2000);
    table.remove(map(table, {}, 2000), 2000);

    const heard: string[] = [];
    for (let next = watch.next(); next; next = watch.next()) {
      heard.push(`${next.change} ${next.entry.external.address} ${next.entry.expiresAt}`);
    }

    assertEquals(heard, [
      `added ${WAN} 1000`,
      `renewed ${WAN} 2000`,
      `moved ${WAN2} 2000`,
      `expired ${WAN2} 2000`,
      `added ${WAN2} 3602000`,
      `removed ${WAN2} 3602000`,
    ]);
    assertEquals([short.size, short.dropped, short.next()?.change], [2, 4, "added"]);
    table.unwatch(watch);
    map(table);
    assertEquals(watch.size, 0);
  });

  it("a watch alone, however much it hears, hears each change once", () => {
    const table = tableWith();
    const watch = table.watch();
    const heard: number[] = [];
    const hear = (most: number): void => {
      for (let i = 0; i < most; i++) heard.push(watch.next()?.entry.expiresAt ?? NaN);
    };
    const entry = map(table, { expiresAt: 1 });
    const renew = (from: number, to: number): void => {
      for (let expiresAt = from; expiresAt <= to; expiresAt++) table.renew(entry, { expiresAt });
    };
    renew(2, 200);
    hear(150);
    renew(201, 300);
    hear(150);

    assertEquals(heard, Array.from({ length: 300 }, (_, i) => i + 1));
    table.remove(entry, 0);
    assertEquals([watch.next()?.change, watch.next(), watch.dropped], ["removed", undefined, 0]);
  });

  it("what is handed out is live, a snapshot is not, and neither shares the caller's objects", () => {
    const table = tableWith();
    const internal = { address: A, port: 8080 };
    const nonce = new Uint8Array(12);
    const entry = table.mapInbound(
      { origin: "pcp", protocol: TCP, internal, expiresAt: 1, nonce },
      0,
    );
    internal.port = 1;
    nonce[0] = 9;
    const live = table.inbound(TCP, A, 8080)!;
    const copy = snapshotEntry(live);
    table.renew(live, { expiresAt: 5 });

    assertEquals(entry, live);
    assertEquals([live.internal.port, live.nonce![0]], [8080, 0]);
    assertEquals([live.expiresAt, copy.expiresAt], [5, 1]);
    assertEquals(structuredClone(copy), copy);
  });
});

describe("MappingTable, what several share", () => {
  const udp = { protocol: UDP } as const;

  it("a port is not chosen for who keeps its companion, where that is another inside's", () => {
    const table = tableWith({ chosenPorts: [{ first: 5000, last: 5001 }] });
    map(table, { ...udp, address: B, suggestedPort: 5000 });
    assertEquals(map(table, { port: 80, reserveCompanion: true }).external.port, 5001);
    assertEquals(tryMap(table, { port: 81, reserveCompanion: true }), "no-resources");
  });

  it("a lease that is renewed may begin to keep the companion, unless another has it", () => {
    const table = tableWith();
    const mine = map(table, { suggestedPort: 8080 }), late = map(table, { port: 9090 });
    const theirs = map(table, { ...udp, address: B, port: 9090 });
    for (const entry of [mine, late]) {
      table.renew(entry, { expiresAt: 1_000_000, reserveCompanion: true });
    }
    assertNotEquals(map(table, { ...udp, address: B, suggestedPort: 8080 }).external.port, 8080);
    assertEquals(map(table, { ...udp, port: 8080 }).external.port, 8080);
    table.remove(theirs, 0);
    assertEquals(map(table, { ...udp, address: B, port: 9090 }).external.port, 9090);
    // What could not be kept is not freed with it either.
    table.remove(late, 0);
    assertEquals(table.external(UDP, WAN, 9090)?.internal.address, B);
    table.remove(mine, 0);
    assertEquals(table.portsOf(B), 2);
  });

  it("each protocol's lease is its own, and the last of them is the mapping's", () => {
    const table = tableWith();
    const entry = map(table, { expiresAt: 3000 });
    table.renew(entry, { by: "nat-pmp", expiresAt: 7000 });
    table.renew(entry, { by: "pcp", expiresAt: 1000 });
    assertEquals(entry.expiresAt, 7000);
    table.renew(entry, { by: "nat-pmp", expiresAt: 500 });
    assertEquals([entry.expiresAt, table.nextTimeout()], [1000, 500]);
    assertEquals([table.advance(999), table.size, table.advance(1000)], [0, 1, 1]);
    const other = map(table, { port: 1, expiresAt: 3000 }, 1000);
    table.renew(other, { by: "nat-pmp", expiresAt: 9000 });
    table.renew(other, { origin: "nat-pmp", expiresAt: 2000 });
    assertEquals([other.expiresAt, other.origin], [2000, "nat-pmp"]);
  });

  it("lets in whom any lease lets in, for as long as that one lasts", () => {
    const table = tableWith();
    const watch = table.watch();
    const filter = (text: string) => [{ prefix: parseCidr(text)!, port: 0 }];
    const entry = map(table, { expiresAt: 9000, filters: filter("198.51.100.1/32") });
    const seen = () =>
      ["198.51.100.1", "198.51.100.2", "198.51.100.3"].map((address) =>
        table.admit(TCP, entry.external, { address, port: 1 }) !== undefined
      );
    table.renew(entry, { by: "upnp", expiresAt: 5000, filters: filter("198.51.100.2/32") });
    assertEquals(seen(), [true, true, false]);
    table.renew(entry, { by: "nat-pmp", expiresAt: 3000 });
    assertEquals(seen(), [true, true, true]);
    // PCP's own renewal says nothing of the others' filters.
    table.renew(entry, { by: "pcp", expiresAt: 9000 });
    table.advance(2999);
    assertEquals(seen(), [true, true, true]);
    while (watch.next());
    table.advance(3000);
    assertEquals([seen(), watch.next()?.change, watch.size], [[true, true, false], "renewed", 0]);
    assertEquals(table.leaseOf(entry, "upnp"), {
      expiresAt: 5000,
      filters: filter("198.51.100.2/32"),
    });
    assertEquals(table.leaseOf(entry, "nat-pmp"), undefined);
    table.advance(5000);
    assertEquals([seen(), entry.expiresAt], [[true, false, false], 9000]);
    assertEquals([table.advance(8999), table.advance(9000)], [0, 1]);
  });

  it("a lease that is ended leaves the mapping to the others, and takes it along where it is the last", () => {
    const table = tableWith();
    const entry = map(table, { expiresAt: 9000, nonce: new Uint8Array(12), isExact: true });
    table.release(entry, "nat-pmp", 0);
    assertEquals([table.size, table.isSharedBeside(entry, "pcp")], [1, false]);
    table.renew(entry, { by: "nat-pmp", expiresAt: 3000 });
    assertEquals(table.isSharedBeside(entry, "pcp"), true);
    table.release(entry, "pcp", 0);
    const { origin, nonce, isExact, expiresAt } = entry;
    assertEquals([origin, nonce, isExact, expiresAt], ["nat-pmp", undefined, false, 3000]);
    table.release(entry, "pcp", 0);
    assertEquals([table.size, table.portsOf(A)], [1, 1]);
    table.release(entry, "nat-pmp", 0);
    assertEquals([table.size, table.portsOf(A)], [0, 0]);
  });

  it("a flow that PEER has asked for stays the flow's, whichever lease ends first", () => {
    const table = tableWith();
    const entry = flow(table, { expiresAt: 1000 });
    table.renew(entry, { by: "pcp", expiresAt: 9000, nonce: new Uint8Array(12) });
    assertEquals([table.advance(5000), entry.origin, table.portsOf(A)], [0, "traffic", 0]);
    table.advance(9_000_000);
    assertEquals([table.size, table.portsOf(A)], [0, 0]);
  });

  it("a set of ports comes back whole to its last holder, to no other", () => {
    const table = tableWith();
    const set = { port: 6000, suggestedPort: 7000, size: 4 };
    table.remove(map(table, set), 0);
    assertNotEquals(map(table, { ...set, address: B }).external.port, 7000);
    const again = map(table, set);
    assertEquals([again.external.port, again.size], [7000, 4]);
  });

  it("a further mapping of one of a set's ports is that port's alone, and stays when the set goes", () => {
    const table = tableWith();
    const set = map(table, { port: 6000, suggestedPort: 7000, size: 3, expiresAt: 1000 });
    const more = { port: 6001, suggestedPort: 8000, isAdditional: true, expiresAt: 2000 };
    const single = map(table, more);
    assertEquals([table.inbound(TCP, A, 6000), table.inbound(TCP, A, 6001)], [set, set]);
    assertEquals(table.entriesOf(A), [set, single]);
    table.advance(1000);
    const seen = () => [6000, 6001, 6002].map((port) => table.inbound(TCP, A, port)?.external.port);
    assertEquals(seen(), [undefined, 8000, undefined]);
    table.advance(2000);
    assertEquals([seen(), table.entriesOf(A)], [[undefined, undefined, undefined], []]);
    // The port is to be had as if nothing had been there.
    const again = map(table, { port: 6000 }, 2000);
    assertEquals(table.external(TCP, WAN, again.external.port), again);
  });

  it("of a set that is gone the ports stay that flows use, and no more", () => {
    const table = tableWith();
    const nonce = new Uint8Array(12).fill(1);
    const set = map(table, { port: 6000, suggestedPort: 7000, size: 4, nonce });
    const flows = [6001, 6003].map((port) => flow(table, { internal: { address: A, port } }));
    assertEquals([flows[0]!.size, flows[0]!.external.port], [1, 7001]);
    table.remove(set, 0);
    const ports = flows.map(({ internal, external, size }) => [internal.port, external.port, size]);
    assertEquals(ports, [[6001, 7001, 1], [6003, 7003, 1]]);
    const ended = [6000, 6001, 6003].map((port) => table.hasEnded(TCP, A, port, nonce));
    assertEquals(ended, [false, true, true]);
    assertEquals([table.size, table.portsOf(A)], [2, 0]);
    assertEquals(table.external(TCP, WAN, 7000), undefined);
    assertEquals(table.external(TCP, WAN, 7003), flows[1]);
    // Each can be mapped again where it is, and goes alone.
    assertEquals(map(table, { port: 6003 }).external.port, 7003);
    table.remove(flows[0]!, 0);
    assertEquals(map(table, { address: B, suggestedPort: 7001 }).external.port, 7001);
  });

  it("what the administrator or traffic made waits for nobody once it is gone", () => {
    const table = tableWith();
    table.remove(map(table, { kind: "static", origin: "admin", suggestedPort: 80 }), 0);
    assertEquals(table.quarantined, 0);
    table.remove(flow(table), 0);
    assertEquals(table.quarantined, 0);
    table.remove(map(table), 0);
    assertEquals(table.quarantined, 1);
  });

  it("a host stays with the external address that it had first", () => {
    const table = tableWith({ externalAddresses: [WAN, WAN2] });
    map(table);
    assertEquals(map(table, { port: 81, suggestedAddress: WAN2 }).external.address, WAN2);
    assertEquals(table.externalAddressFor(A), WAN);
    assertEquals(map(table, { port: 82 }).external.address, WAN);
  });

  it("flows of the NAT are where it put them, kept as long, up to half of the table", () => {
    const table = tableWith({ maxEntries: 4 });
    const note = (port: number, outside = port, now = 0) =>
      table.noteFlow(UDP, { address: A, port }, { address: WAN, port: outside }, PEER, 1000, now);
    note(5000);
    note(5000, 5000, 400);
    note(5001, 6001);
    note(5002);
    const told = [...table.entries()].map(({ kind, external }) => [kind, external.port]);
    assertEquals(told, [["outbound", 5000], ["outbound", 6001]]);
    assertEquals([table.advance(1000), table.advance(1399)], [1, 0]);
    assertEquals(table.idleUntil(table.entriesOf(A)[0]!), 1400);
    note(5002, 5002, 1399);
    assertEquals([table.advance(1400), table.size], [1, 1]);
    // A port that is mapped inbound needs no flow of its own.
    map(table, { protocol: UDP, port: 5003 }, 1400);
    note(5003, 5003, 1400);
    assertEquals(table.outbounds(UDP, A, 5003), []);
    assertEquals(table.idleUntil(table.inbound(UDP, A, 5003)!), 2400);
  });

  it("a flow's port admits no DMZ, and takes its place from one", () => {
    const table = tableWith();
    map(table, { address: B, protocol: 0, port: 0 });
    const outside = { address: WAN, port: 5000 };
    assertEquals(table.admit(UDP, outside, PEER)?.internal.address, B);
    table.noteFlow(UDP, { address: A, port: 5000 }, outside, PEER, 1000, 0);
    assertEquals(table.admit(UDP, outside, PEER), undefined);
    assertEquals(tryMap(table, { port: 5001 }), "no-resources");
  });

  it("all ports that are given up are free at once: nobody's traffic could be taken over", () => {
    const table = tableWith();
    table.remove(map(table, { port: 0 }), 0);
    assertEquals([table.quarantined, map(table, { port: 0, address: B }).external.port], [0, 0]);
  });

  it("the flows of a port are those of no other port of its set", () => {
    const table = tableWith();
    map(table, { port: 6000, size: 4 });
    const one = flow(table, { internal: { address: A, port: 6001 } });
    const two = flow(table, { internal: { address: A, port: 6001 }, remote: { ...PEER, port: 1 } });
    const other = flow(table, { internal: { address: A, port: 6002 } });
    const ids = (port: number) => table.outbounds(TCP, A, port).map(({ id }) => id);
    assertEquals([ids(6000), ids(6001), ids(6002)], [[], [one.id, two.id], [other.id]]);
    assertEquals(table.outbound(TCP, A, 6002, PEER), other);
  });

  it("SCTP that insists on another port than its own is told no", () => {
    const table = tableWith({ samePortProtocols: [1, SCTP] });
    const wish = { protocol: SCTP, port: 80, isExact: true };
    assertEquals(tryMap(table, { ...wish, suggestedPort: 81 }), "external-unavailable");
    assertEquals(map(table, { ...wish, suggestedPort: 80 }).external.port, 80);
    assertEquals(map(table, { protocol: 1, port: 80, suggestedPort: 81 }).external.port, 80);
    assertEquals([map(table, { port: 5 }).isExact, table.debugTimeout()?.reason], [
      false,
      "lease of mapping 1",
    ]);
  });

  it("who insists on a port for all ports is told no", () => {
    const table = tableWith();
    const all = { port: 0, suggestedPort: 8080 };
    assertEquals(tryMap(table, { ...all, isExact: true }), "external-unavailable");
    assertEquals(map(table, all).external.port, 0);
  });

  it("all ports of a protocol are not had over a port kept for another's companion", () => {
    const table = tableWith();
    map(table, { ...udp, reserveCompanion: true });
    assertEquals(tryMap(table, { port: 0, address: B }), "not-entirely-available");
    assertEquals(map(table, { port: 0 }).external.port, 0);
    const free = tableWith();
    map(free, udp);
    assertEquals(map(free, { port: 0, address: B }).external.port, 0);
  });

  it("the last ports that are left are those kept for, or lately had by, who asks", () => {
    const table = tableWith({ chosenPorts: [{ first: 5000, last: 5001 }] });
    map(table, { ...udp, port: 1, reserveCompanion: true });
    table.remove(map(table, { port: 2, suggestedPort: 5001 }), 0);
    assertEquals(tryMap(table, { port: 3, address: B }), "no-resources");
    assertEquals(map(table, { port: 4 }).external.port, 5000);
    assertEquals(tryMap(table, { port: 5 }), "no-resources", "another port's quarantine");
    map(table, { address: B, port: 6, suggestedPort: 80 });
    assertEquals(map(table, { port: 2, suggestedPort: 80 }).external.port, 5001);
  });
});

describe("MappingTable, the caller's mistakes", () => {
  it("bad options are thrown with their names", () => {
    const bad: [MappingTableOptions, string][] = [
      [{ externalAddresses: ["nowhere"] }, "externalAddresses[0]"],
      [{ ports: [{ first: 0, last: 5 }] }, "ports.first"],
      [{ chosenPorts: [{ first: 9, last: 5 }] }, "chosenPorts.last"],
      [{ ports: [{ first: 9, last: 65_536 }] }, "ports.last"],
      [{ maxEntries: 0 }, "maxEntries"],
      [{ maxPortsPerClient: -1 }, "maxPortsPerClient"],
      [{ reservedTcpPorts: [70_000] }, "reservedTcpPorts"],
      [{ quarantine: { tcpSeconds: 0.5 } }, "quarantine.tcpSeconds"],
      [{ samePortProtocols: [256] }, "samePortProtocols[0]"],
      [{ firewallFamilies: [5 as 4] }, "firewallFamilies"],
      [{ reservedUdpPorts: [0] }, "reservedUdpPorts"],
      [{ maxEntries: 2 ** 24 + 1 }, "maxEntries"],
      [{ maxPortsPerClient: 2 ** 24 + 1 }, "maxPortsPerClient"],
      [{ maxQuarantined: 2 ** 24 + 1 }, "maxQuarantined"],
      [{ idleTimeouts: { udpSeconds: -1 } }, "idleTimeouts.udpSeconds"],
      [{ idleTimeouts: { otherSeconds: 2 ** 32 } }, "idleTimeouts.otherSeconds"],
    ];
    for (const [options, name] of bad) {
      assertThrows(() => new MappingTable(options), Error, `'${name}'`);
    }
  });

  it("the most that may be is taken", () => {
    const most = 2 ** 24, seconds = 2 ** 32 - 1;
    const table = tableWith({
      maxEntries: most,
      maxPortsPerClient: most,
      maxQuarantined: most,
      quarantine: { udpSeconds: 0, tcpSeconds: seconds },
      idleTimeouts: { udpSeconds: seconds, otherSeconds: 0 },
    });
    const entry = map(table, { protocol: UDP });
    table.noteTraffic(UDP, entry.internal, 0);
    assertEquals(table.idleUntil(entry), 1000 * seconds);
  });

  it("the least that may be is taken", () => {
    const table = tableWith({ maxEntries: 1, maxPortsPerClient: 1, maxQuarantined: 0 });
    const watch = table.watch(1);
    table.remove(map(table, { port: 65_535, suggestedPort: 65_535 }), 0);

    assertEquals([watch.size, watch.dropped, table.quarantined], [1, 1, 0]);
    assertEquals(map(table, { address: B, suggestedPort: 65_535 }).external.port, 65_535);
  });

  it("bad requests are thrown with their names and change nothing", () => {
    const table = tableWith();
    const bad: [Wish, string][] = [
      [{ protocol: 256 }, "protocol"],
      [{ protocol: 0, port: 1 }, "internal.port"],
      [{ port: 65_536 }, "internal.port"],
      [{ address: "host" }, "internal.address"],
      [{ address: "::ffff:192.168.1.1" }, "internal.address"],
      [{ suggestedPort: -1 }, "suggestedPort"],
      [{ expiresAt: NaN }, "expiresAt"],
      [{ size: 0 }, "size"],
      [{ port: 65_000, size: 1000 }, "size"],
    ];
    for (const [wish, name] of bad) {
      assertThrows(() => tryMap(table, wish), Error, `'${name}'`);
    }
    const outbound: [Partial<OutboundRequest>, string][] = [
      [{ remote: { address: PEER.address, port: 0 } }, "remote.port"],
      [{ internal: { address: A, port: 0 } }, "internal.port"],
      [{ internal: { address: "host", port: 1 } }, "internal.address"],
      [{ protocol: 256 }, "protocol"],
      [{ suggestedPort: 65_536 }, "suggestedPort"],
      [{ expiresAt: NaN }, "expiresAt"],
    ];
    for (const [wish, name] of outbound) {
      assertThrows(() => flow(table, wish), Error, `'${name}'`);
    }
    assertThrows(() => table.watch(0), RangeError);
    assertEquals([table.size, table.entriesOf(A)], [0, []]);
  });
});
