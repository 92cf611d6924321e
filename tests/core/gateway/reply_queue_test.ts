import { describe, it } from "node:test";
import { assert, assertEquals } from "@std/assert";
import { type Outgoing, ReplyQueue, UNDISTURBED } from "../../../core/gateway/reply_queue.ts";
import { seededRandom } from "../../../core/random.ts";

const TO = { address: "192.168.1.2", port: 40000 };

function datagram(tag: number): Outgoing {
  return { socket: "server", to: TO, data: Uint8Array.of(tag) };
}

function make(limit?: number): { queue: ReplyQueue; sent: Outgoing[]; tags(): number[] } {
  const sent: Outgoing[] = [];
  const queue = new ReplyQueue(seededRandom(1), (d) => sent.push(d), limit);
  return { queue, sent, tags: () => sent.map((d) => d.data[0]!) };
}

describe("ReplyQueue", () => {
  it("lets a datagram through at once where nothing disturbs", () => {
    const { queue, tags } = make();
    queue.push(datagram(1), UNDISTURBED, 0, 100);
    assertEquals(tags(), [1]);
    assertEquals(queue.next(), undefined);
  });

  it("delays by what the disturbance and the caller say, not a millisecond less", () => {
    const { queue, tags } = make();
    queue.push(datagram(1), { ...UNDISTURBED, delayMs: 40 }, 2, 100);
    assertEquals(queue.next()?.at, 142);
    queue.handleTimeout(141);
    assertEquals(tags(), []);
    queue.handleTimeout(142);
    assertEquals(tags(), [1]);
  });

  it("keeps the order of equally delayed datagrams", () => {
    const { queue, tags } = make();
    for (let i = 0; i < 50; i++) queue.push(datagram(i), { ...UNDISTURBED, delayMs: 5 }, 0, 0);
    queue.handleTimeout(5);
    assertEquals(tags(), Array.from({ length: 50 }, (_, i) => i));
  });

  it("lets datagrams overtake each other within the reordering window", () => {
    const { queue, tags } = make();
    for (let i = 0; i < 50; i++) queue.push(datagram(i), { ...UNDISTURBED, reorderMs: 5 }, 0, 0);
    queue.handleTimeout(5);
    assertEquals(tags().toSorted((a, b) => a - b), Array.from({ length: 50 }, (_, i) => i));
    assert(tags().some((tag, i) => tag !== i));
  });

  it("loses about as many as the rate says, and all at rate 1", () => {
    const { queue, sent } = make();
    for (let i = 0; i < 1000; i++) queue.push(datagram(1), { ...UNDISTURBED, lossRate: 0.3 }, 0, 0);
    assert(sent.length > 630 && sent.length < 770);
    assertEquals(queue.lost, 1000 - sent.length);
    const before = sent.length;
    for (let i = 0; i < 100; i++) queue.push(datagram(1), { ...UNDISTURBED, lossRate: 1 }, 0, 0);
    assertEquals(sent.length, before);
  });

  it("doubles and changes the source where asked", () => {
    const { queue, sent } = make();
    queue.push(datagram(7), { ...UNDISTURBED, duplicate: true, wrongSource: true }, 0, 0);
    assertEquals(sent.map((d) => [d.socket, d.data[0]]), [["other", 7], ["other", 7]]);
  });

  it("drops and counts what goes beyond its limit", () => {
    const { queue, tags } = make(3);
    for (let i = 0; i < 5; i++) queue.push(datagram(i), { ...UNDISTURBED, delayMs: 1 }, 0, 0);
    assertEquals([queue.size, queue.overflowed], [3, 2]);
    queue.handleTimeout(1);
    assertEquals(tags(), [0, 1, 2]);
  });

  it("forgets what is on its way when cleared", () => {
    const { queue, tags } = make();
    queue.push(datagram(1), { ...UNDISTURBED, delayMs: 1 }, 0, 0);
    queue.clear();
    queue.handleTimeout(10);
    assertEquals([queue.next(), tags()], [undefined, []]);
  });
});
