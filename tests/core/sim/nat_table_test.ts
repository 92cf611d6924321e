import { describe, it } from "node:test";
import { assert, assertEquals } from "@std/assert";
import type { Endpoint } from "../../../core/machine.ts";
import type { RandomSource } from "../../../core/random.ts";
import { NatTable, type NatTableOptions } from "../../../core/sim/nat_table.ts";

const EXTERNAL = "203.0.113.7";
const A: Endpoint = { address: "192.168.1.2", port: 5000 };
const B: Endpoint = { address: "192.168.1.3", port: 5000 };
const S1: Endpoint = { address: "198.51.100.1", port: 1001 };
const S2: Endpoint = { address: "198.51.100.2", port: 1001 };
const TIMEOUT_MS = 1000;

/** Draws the same share of the range each time. */
function always(u32: number): RandomSource {
  return { u32: () => u32, fill: (bytes) => bytes.fill(0) };
}

function tableOf(options: Partial<NatTableOptions> = {}, u32: number = 0): NatTable {
  return new NatTable({
    mapping: "endpoint-independent",
    filtering: "address-and-port-dependent",
    ports: "preserving",
    timeoutMs: TIMEOUT_MS,
    inboundRefresh: false,
    maxMappings: 65536,
    isReserved: () => false,
    ...options,
  }, always(u32));
}

/** The external port by which it talks to `remote`. */
function portOf(
  table: NatTable,
  internal: Endpoint,
  remote: Endpoint = S1,
  now: number = 0,
): number | undefined {
  return table.outbound("udp", internal, remote, EXTERNAL, now)?.external.port;
}

const at = (port: number): Endpoint => ({ address: EXTERNAL, port });

describe("NatTable: how long a mapping lives", () => {
  it("is there until its time is over, by whichever way it is looked up, and not at that time", () => {
    const table = tableOf();
    table.outbound("udp", A, S1, EXTERNAL, 0);
    const seen = (now: number) => [
      table.mappings(now).length,
      table.find("udp", A, S1, now) !== undefined,
      table.inbound("udp", at(5000), S1, now) !== undefined,
      table.at("udp", at(5000), now) !== undefined,
    ];
    assertEquals(seen(TIMEOUT_MS - 1), [1, true, true, true]);
    assertEquals(seen(TIMEOUT_MS), [0, false, false, false]);
  });

  it("is another one once it died, which lets nobody in to whom the first had talked", () => {
    const table = tableOf();
    const first = table.outbound("udp", A, S1, EXTERNAL, 0)!;
    assert(table.outbound("udp", A, S1, EXTERNAL, TIMEOUT_MS - 1) === first);
    const second = table.outbound("udp", A, S2, EXTERNAL, 2 * TIMEOUT_MS - 1)!;
    assert(second !== first);
    assertEquals(table.inbound("udp", at(5000), S1, 2 * TIMEOUT_MS - 1), "blocked");
    assertEquals(table.size, 1);
  });

  it("lets a remote in for that time after it was talked to, though it lives on by others", () => {
    const table = tableOf();
    const mapping = table.outbound("udp", A, S1, EXTERNAL, 0);
    table.outbound("udp", A, S2, EXTERNAL, 600);
    assertEquals(table.inbound("udp", at(5000), S1, TIMEOUT_MS - 1), mapping);
    assertEquals(table.inbound("udp", at(5000), S1, TIMEOUT_MS), "blocked");
    assertEquals(table.inbound("udp", at(5000), S2, TIMEOUT_MS), mapping);
  });

  it("is prolonged by what comes in, for who sends it, where that counts (REQ-6)", () => {
    for (const inboundRefresh of [false, true]) {
      const table = tableOf({ inboundRefresh });
      table.outbound("udp", A, S1, EXTERNAL, 0);
      table.outbound("udp", A, S2, EXTERNAL, 0);
      table.inbound("udp", at(5000), S1, 600);
      const later = [599, 600].map((ms) =>
        typeof table.inbound("udp", at(5000), S1, TIMEOUT_MS + ms)
      );
      const expected = inboundRefresh ? ["object", "object"] : ["undefined", "undefined"];
      assertEquals(later, expected);
      const other = table.inbound("udp", at(5000), S2, TIMEOUT_MS);
      assertEquals(other, inboundRefresh ? "blocked" : undefined);
    }
  });

  it("lets in 4096 remotes at most: with one more it forgets who was first", () => {
    const table = tableOf();
    const remote = (port: number) => ({ address: "198.51.100.9", port });
    for (let port = 1; port <= 4096; port++) portOf(table, A, remote(port));
    portOf(table, A, remote(4096));
    assertEquals(typeof table.inbound("udp", at(5000), remote(1), 1), "object");
    portOf(table, A, remote(4097));
    assertEquals(table.inbound("udp", at(5000), remote(1), 1), "blocked");
    assertEquals(typeof table.inbound("udp", at(5000), remote(2), 1), "object");
  });
});

describe("NatTable: which port", () => {
  it("preserving: one below 1024 too, and from 1024 on where that is taken", () => {
    const table = tableOf();
    const low = (address: string) => portOf(table, { address, port: 80 });
    assertEquals(["192.168.1.2", "192.168.1.3", "192.168.1.4"].map(low), [80, 1024, 1025]);
  });

  it("preserving: after the last port comes 1024", () => {
    const table = tableOf({ isReserved: (_, { port }) => port === 1024 });
    const last = (address: string) => portOf(table, { address, port: 65535 });
    assertEquals(["192.168.1.2", "192.168.1.3"].map(last), [65535, 1025]);
  });

  it("random: any from 1024 to 65535, the next one where it is taken", () => {
    assertEquals([portOf(tableOf({ ports: "random" }, 0), A)], [1024]);
    const table = tableOf({ ports: "random" }, 0xffff_ffff);
    assertEquals([portOf(table, A), portOf(table, B)], [65535, 1024]);
  });

  it("contiguous: one after the other, from anywhere, round at the end", () => {
    const table = tableOf({ ports: "contiguous" }, 0xffff_ffff);
    assertEquals([portOf(table, A), portOf(table, B)], [1024, 1025]);
    assertEquals(portOf(tableOf({ ports: "contiguous" }, 0), A), 1025);
  });

  it("each transport has its own", () => {
    const table = tableOf();
    assertEquals(portOf(table, A), 5000);
    assertEquals(table.outbound("tcp", B, S1, EXTERNAL, 0)?.external.port, 5000);
  });

  it("none where all are reserved, however they are chosen", () => {
    for (const ports of ["preserving", "overloading"] as const) {
      const asked = new Set<number>();
      const table = tableOf({ ports, isReserved: (_, { port }) => !!asked.add(port) });
      assertEquals([portOf(table, A), table.size], [undefined, 0], ports);
      assertEquals(asked.size, ports === "overloading" ? 1 : 65536 - 1024, ports);
    }
  });
});

describe("NatTable: overloaded ports", () => {
  const OVERLOADING = { ports: "overloading" } as const;

  it("an answer goes to who talked to its sender last", () => {
    const table = tableOf(OVERLOADING);
    const answered = (now: number) => {
      const mapping = table.inbound("udp", at(5000), S1, now);
      return typeof mapping === "object" ? mapping.internal : mapping;
    };
    table.outbound("udp", A, S1, EXTERNAL, 0);
    table.outbound("udp", B, S1, EXTERNAL, 10);
    assertEquals(answered(20), B);
    table.outbound("udp", A, S1, EXTERNAL, 20);
    assertEquals(answered(30), A);
    // B's died; A's is found behind it.
    assertEquals(answered(TIMEOUT_MS + 10), A);
  });

  it("one of two that share a port may go, and the other is found", () => {
    const table = tableOf(OVERLOADING);
    table.outbound("udp", A, S1, EXTERNAL, 0);
    const other = table.outbound("udp", B, S1, EXTERNAL, 500);
    // A's is made anew, in place of the one that died.
    const again = table.outbound("udp", A, S2, EXTERNAL, TIMEOUT_MS);
    assertEquals(table.inbound("udp", at(5000), S1, TIMEOUT_MS), other);
    assertEquals(table.inbound("udp", at(5000), S2, TIMEOUT_MS), again);
    assertEquals(table.size, 2);
  });
});

describe("NatTable: how many", () => {
  const flows = (from: number, to: number) =>
    Array.from({ length: to - from }, (_, i) => ({ address: A.address, port: from + i }));

  it("no more than there may be, and what died makes room", () => {
    const table = tableOf({ maxMappings: 2 });
    const [a, b, c] = flows(2000, 2003);
    assertEquals([a, b, c].map((flow) => portOf(table, flow!)), [2000, 2001, undefined]);
    assertEquals(portOf(table, c!, S1, TIMEOUT_MS - 1), undefined);
    assertEquals([portOf(table, c!, S1, TIMEOUT_MS), table.size], [2002, 1]);
  });

  it("keeps no more dead ones than a thousand, or than are alive", () => {
    const table = tableOf();
    const sizes = (from: number, to: number, now: number) =>
      flows(from, to).map((flow) => (portOf(table, flow, S1, now), table.size));
    assertEquals(sizes(2000, 3024, 0).at(-1), 1024);
    assertEquals(sizes(9000, 9001, TIMEOUT_MS), [1]);
    assertEquals(sizes(10_000, 11_500, TIMEOUT_MS).at(-1), 1501);
    const later = sizes(20_000, 21_500, 2 * TIMEOUT_MS);
    assertEquals([Math.max(...later), later.at(-1)], [2048, 1500]);
  });

  it("all are forgotten at once", () => {
    const table = tableOf();
    portOf(table, A);
    table.clear();
    assertEquals([table.size, table.at("udp", at(5000), 0)], [0, undefined]);
    assertEquals(portOf(table, B), 5000);
  });
});
