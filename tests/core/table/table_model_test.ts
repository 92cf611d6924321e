/**
 * The table against a naive model: an array of mappings that is searched from end to end. The same
 * random commands go to both; after each, both have to hold the same.
 */
import { describe, it } from "node:test";
import { assert, assertEquals } from "@std/assert";
import { below, type RandomSource, seededRandom } from "../../../core/random.ts";
import {
  MappingTable,
  type MappingTableOptions,
  type TableEntry,
  type TableFault,
} from "../../../core/table/mod.ts";

const WAN = ["203.0.113.7", "203.0.113.8", "203.0.113.9"];
const TCP = 6, UDP = 17;
const FIRST = 2000, LAST = 2011;
const MAX_ENTRIES = 20, MAX_PORTS = 6;
const QUARANTINE_MS = 30_000;

interface Row {
  protocol: number;
  inside: string;
  insidePort: number;
  outside: string;
  outsidePort: number;
  expiresAt: number;
  nonce: number;
}

interface Freed extends Omit<Row, "expiresAt"> {
  until: number;
}

class Model {
  rows: Row[] = [];
  freed: Freed[] = [];
  addresses: string[] = WAN.slice(0, 2);
  readonly prefersSamePort: boolean;

  constructor(prefersSamePort: boolean) {
    this.prefersSamePort = prefersSamePort;
  }

  advance(now: number): void {
    for (const row of this.rows.filter(({ expiresAt }) => expiresAt <= now)) this.remove(row, now);
  }

  remove(row: Row, now: number): void {
    this.rows = this.rows.filter((other) => other !== row);
    if (!this.addresses.includes(row.outside)) return;
    this.freed.push({ ...row, until: now + QUARANTINE_MS });
  }

  find(protocol: number, inside: string, insidePort: number): Row | undefined {
    return this.rows.find((row) =>
      row.protocol === protocol && row.inside === inside && row.insidePort === insidePort
    );
  }

  isFree(wish: Omit<Row, "expiresAt">, now: number): boolean {
    const { protocol, outside, outsidePort, inside, insidePort, nonce } = wish;
    const isAt = (other: { protocol: number; outside: string; outsidePort: number }): boolean =>
      other.protocol === protocol && other.outside === outside && other.outsidePort === outsidePort;
    if (outsidePort < FIRST || outsidePort > LAST || this.rows.some(isAt)) return false;
    return !this.freed.some((other) =>
      isAt(other) && other.until > now &&
      (other.inside !== inside || other.insidePort !== insidePort || other.nonce !== nonce)
    );
  }

  /** What the table must not answer; what it may is checked by {@linkcode isFree}. */
  judge(wish: Omit<Row, "expiresAt">, now: number): TableFault | "made" {
    if (this.find(wish.protocol, wish.inside, wish.insidePort)) return "already-mapped";
    if (this.rows.length >= MAX_ENTRIES) return "no-resources";
    const own = this.rows.filter(({ inside }) => inside === wish.inside).length;
    if (own >= MAX_PORTS) return "over-quota";
    for (const outside of this.addresses) {
      for (let outsidePort = FIRST; outsidePort <= LAST; outsidePort++) {
        const place = { ...wish, outside, outsidePort };
        // A port that one may have back is found by asking for it only.
        const isUsual = !this.freed.some((other) =>
          other.until > now && other.protocol === wish.protocol && other.outside === outside &&
          other.outsidePort === outsidePort
        );
        const isNamed = wish.outsidePort === 0
          ? this.prefersSamePort && outsidePort === wish.insidePort
          : outsidePort === wish.outsidePort;
        if (this.isFree(place, now) && (isUsual || isNamed)) return "made";
      }
    }
    return "no-resources";
  }
}

function rowOf(entry: TableEntry): Row {
  return {
    protocol: entry.protocol,
    inside: entry.internal.address,
    insidePort: entry.internal.port,
    outside: entry.external.address,
    outsidePort: entry.external.port,
    expiresAt: entry.expiresAt,
    nonce: entry.nonce![0]!,
  };
}

const sorted = (rows: readonly Row[]): string[] => rows.map((row) => JSON.stringify(row)).sort();

function run(seed: number, steps: number): void {
  const random: RandomSource = seededRandom(seed);
  const range = [{ first: FIRST, last: LAST }];
  const options: MappingTableOptions = {
    externalAddresses: WAN.slice(0, 2),
    ports: range,
    chosenPorts: range,
    maxEntries: MAX_ENTRIES,
    maxPortsPerClient: MAX_PORTS,
    maxQuarantined: 1000,
    quarantine: { tcpSeconds: QUARANTINE_MS / 1000, udpSeconds: QUARANTINE_MS / 1000 },
    ...seed % 2 ? { random } : {},
    prefersSamePort: seed % 3 === 0,
  };
  const table = new MappingTable(options);
  const model = new Model(seed % 3 === 0);
  let now = 0;
  for (let step = 0; step < steps; step++) {
    const where = `seed ${seed}, step ${step}`;
    now += below(random, 4) === 0 ? below(random, 20_000) : 0;
    table.advance(now);
    model.advance(now);
    const protocol = below(random, 2) === 0 ? TCP : UDP;
    const inside = `192.168.1.${1 + below(random, 5)}`;
    const insidePort = FIRST + below(random, 8);
    const command = below(random, 20);
    const entry = table.inbound(protocol, inside, insidePort);
    const row = model.find(protocol, inside, insidePort);
    assertEquals(entry && rowOf(entry), row, where);
    if (command < 12) {
      const nonce = below(random, 2);
      const outsidePort = below(random, 2) === 0 ? 0 : FIRST + below(random, LAST - FIRST + 1);
      const outside = WAN[below(random, 3)]!;
      const expiresAt = now + 1 + below(random, 60_000);
      const wish = { protocol, inside, insidePort, outside, outsidePort, nonce };
      const verdict = model.judge(wish, now);
      const made = table.mapInbound({
        origin: "pcp",
        protocol,
        internal: { address: inside, port: insidePort },
        suggestedAddress: outside,
        suggestedPort: outsidePort,
        expiresAt,
        nonce: new Uint8Array(12).fill(nonce),
      }, now);
      if (typeof made === "string") {
        assertEquals(made, verdict, where);
      } else {
        assertEquals(verdict, "made", where);
        const place = rowOf(made);
        assertEquals(model.isFree(place, now), true, `${where}: ${JSON.stringify(place)}`);
        assertEquals(model.addresses.includes(place.outside), true, where);
        if (outsidePort !== 0 && model.addresses.includes(outside) && model.isFree(wish, now)) {
          assertEquals([place.outside, place.outsidePort], [outside, outsidePort], where);
        }
        model.rows.push(place);
        model.freed = model.freed.filter((other) =>
          other.protocol !== place.protocol || other.outside !== place.outside ||
          other.outsidePort !== place.outsidePort
        );
      }
    } else if (command < 15) {
      if (!entry || !row) continue;
      row.expiresAt = now + 1 + below(random, 60_000);
      table.renew(entry, { expiresAt: row.expiresAt });
    } else if (command < 18) {
      if (!entry || !row) continue;
      table.remove(entry, now);
      model.remove(row, now);
    } else if (command === 18 && below(random, 4) === 0) {
      const start = below(random, 3);
      model.addresses = [0, 1].map((i) => WAN[(start + i) % 3]!);
      const stays = model.rows.filter(({ outside }) => model.addresses.includes(outside));
      model.freed = model.freed.filter(({ outside }) => model.addresses.includes(outside));
      const moved = table.setExternalAddresses(model.addresses, now);
      assertEquals(moved.length, model.rows.length - stays.length, where);
      model.rows = [...table.entries()].map(rowOf);
      for (const row of stays) assertEquals(sorted(model.rows).includes(JSON.stringify(row)), true);
      for (const { outside } of model.rows) {
        assertEquals(model.addresses.includes(outside), true, where);
      }
      const places = new Set(model.rows.map((r) => `${r.protocol} ${r.outside} ${r.outsidePort}`));
      assertEquals(places.size, model.rows.length, `${where}: an outside is one mapping's alone`);
      model.freed = model.freed.filter((f) =>
        !places.has(`${f.protocol} ${f.outside} ${f.outsidePort}`)
      );
    } else if (command === 19 && below(random, 8) === 0) {
      table.clear("dynamic", now);
      model.rows = [];
      model.freed = [];
    }
    assertEquals(sorted([...table.entries()].map(rowOf)), sorted(model.rows), where);
    assertEquals(table.size, model.rows.length, where);
    const end = Math.min(...model.rows.map(({ expiresAt }) => expiresAt));
    // Never late; early only where a lease would have ended had it not been renewed.
    assertEquals(table.nextTimeout() === undefined, end === Infinity, where);
    assert((table.nextTimeout() ?? end) <= end, where);
    for (const r of model.rows) {
      assertEquals(
        table.external(r.protocol, r.outside, r.outsidePort)?.internal.port,
        r.insidePort,
      );
    }
  }
}

describe("MappingTable against a naive model", () => {
  for (let block = 0; block < 4; block++) {
    it(`holds the same after every one of random commands, seeds ${10 * block} to ${10 * block + 9}`, () => {
      for (let seed = 10 * block; seed < 10 * block + 10; seed++) run(seed, 400);
    });
  }
});
