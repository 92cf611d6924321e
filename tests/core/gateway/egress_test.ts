import { describe, it } from "node:test";
import { assert, assertEquals, assertThrows } from "@std/assert";
import { Egress, readDisturbance, UNDISTURBED } from "../../../core/gateway/egress.ts";
import { seededRandom } from "../../../core/random.ts";

const TO = { address: "192.168.1.2", port: 40000 };

class Rig {
  readonly sent: [socket: string, tag: number][] = [];
  readonly egress = new Egress([], seededRandom(1), ({ socket, data }) => {
    this.sent.push([socket, data[0]!]);
  });

  constructor(disturbance: Partial<Egress["disturbance"]> = {}) {
    this.egress.disturbance = { ...this.egress.disturbance, ...disturbance };
  }

  get tags(): number[] {
    return this.sent.map(([, tag]) => tag);
  }

  send(count: number, extraDelayMs: number = 0, now: number = 0): void {
    for (let i = 0; i < count; i++) {
      this.egress.sendAsIs(TO, Uint8Array.of(i), now, extraDelayMs);
    }
  }
}

const upTo = (count: number): number[] => Array.from({ length: count }, (_, i) => i);

describe("Egress", () => {
  it("lets a datagram through at once where nothing disturbs", () => {
    const rig = new Rig();
    rig.send(1, 0, 100);
    assertEquals([rig.tags, rig.egress.next()], [[0], undefined]);
  });

  it("delays by what the disturbance and the caller say, not a millisecond less", () => {
    const rig = new Rig({ delayMs: 40 });
    rig.send(1, 2, 100);
    assertEquals([rig.egress.next()?.at, rig.egress.nextAt()], [142, 142]);
    rig.egress.handleTimeout(141);
    assertEquals(rig.tags, []);
    rig.egress.handleTimeout(142);
    assertEquals(rig.tags, [0]);
  });

  it("keeps the order of equally delayed datagrams", () => {
    const rig = new Rig({ delayMs: 5 });
    rig.send(50);
    rig.egress.handleTimeout(5);
    assertEquals(rig.tags, upTo(50));
  });

  it("lets datagrams overtake each other within the reordering window", () => {
    const rig = new Rig({ reorderMs: 5 });
    rig.send(50);
    rig.egress.handleTimeout(5);
    assertEquals(rig.tags.toSorted((a, b) => a - b), upTo(50));
    assert(rig.tags.some((tag, i) => tag !== i));
  });

  it("loses about as many as the rate says, and all at rate 1", () => {
    const rig = new Rig({ lossRate: 0.3 });
    rig.send(1000);
    const sent = rig.sent.length;
    assert(sent > 630 && sent < 770);
    assertEquals(rig.egress.stats, { sent, lost: 1000 - sent, overflowed: 0, waiting: 0 });
    const all = new Rig({ lossRate: 1 });
    all.send(100);
    assertEquals(all.sent, []);
  });

  it("doubles and changes the source where asked", () => {
    const rig = new Rig({ duplicate: true, wrongSource: true });
    rig.send(1);
    assertEquals(rig.sent, [["other", 0], ["other", 0]]);
  });

  it("drops and counts what goes beyond 4096", () => {
    const rig = new Rig({ delayMs: 1 });
    rig.send(4098);
    assertEquals([rig.egress.stats.waiting, rig.egress.stats.overflowed], [4096, 2]);
    rig.egress.handleTimeout(1);
    assertEquals(rig.sent.length, 4096);
  });

  it("forgets what is on its way when cleared", () => {
    const rig = new Rig({ delayMs: 1 });
    rig.send(1);
    rig.egress.clear();
    rig.egress.handleTimeout(10);
    assertEquals([rig.egress.next(), rig.tags], [undefined, []]);
  });

  it("lets what is due leave by its time, of those due together the first sent first", () => {
    const rig = new Rig();
    for (const [tag, delayMs] of [[0, 30], [1, 10], [2, 30], [3, 20], [4, 40]] as const) {
      rig.egress.sendAsIs(TO, Uint8Array.of(tag), 0, delayMs);
    }
    rig.egress.handleTimeout(35);
    assertEquals([rig.tags, rig.egress.stats], [
      [1, 3, 0, 2],
      { sent: 4, lost: 0, overflowed: 0, waiting: 1 },
    ]);
  });

  it("changes and delays the reply to a request for who asked alone", () => {
    const rig = new Rig();
    const exchange = {
      request: Uint8Array.of(0, 0),
      from: TO,
      delayMs: 9,
      changes: [{ kind: "version", version: 7 }],
    } as const;
    rig.egress.send({ ...TO, port: 1 }, Uint8Array.of(0, 0), exchange, 100);
    assertEquals(rig.tags, [0]);
    rig.egress.send(TO, Uint8Array.of(0, 0), exchange, 100);
    assertEquals([rig.tags, rig.egress.nextAt()], [[0], 109]);
    rig.egress.handleTimeout(109);
    rig.egress.send(TO, Uint8Array.of(0, 0), undefined, 109);
    assertEquals(rig.tags, [0, 7, 0]);
  });

  it("refuses a disturbance that is none, by name and value", () => {
    for (
      const [name, high] of [["delayMs", 86_400_000], ["reorderMs", 86_400_000], [
        "lossRate",
        1,
      ]] as const
    ) {
      for (const value of [0, high]) {
        assertEquals(readDisturbance({ ...UNDISTURBED, [name]: value })[name], value);
      }
      for (const value of [-0.1, high + 0.1, NaN, "1"]) {
        const message = `'${name}' must be a number in 0..${high}: current value is ${value}`;
        const disturbance = { ...UNDISTURBED, [name]: value as number };
        assertThrows(() => readDisturbance(disturbance), RangeError, message);
      }
    }
  });
});
