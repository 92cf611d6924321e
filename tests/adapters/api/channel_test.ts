/** A punched UDP path as its reader and writer see it, without a network. */
import { describe, it } from "node:test";
import { assertEquals, assertThrows } from "@std/assert";
import { UdpChannel } from "../../../adapters/api/punch.ts";
import { NatError } from "../../../core/errors.ts";

const LOCAL = { address: "10.0.0.5", port: 5 }, MAPPED = { address: "203.0.113.7", port: 6 };
const PEER = { address: "198.51.100.9", port: 7 }, OTHER = { address: "198.51.100.9", port: 8 };

/** A channel, and what it did to its link. */
function open(isRelayed: boolean = false) {
  const did: unknown[] = [];
  const link = {
    isOpen: true,
    send(data: Uint8Array) {
      if (this.isOpen) did.push(...data);
      return this.isOpen;
    },
    end: () => void did.push("end"),
    close: () => void did.push("close"),
    detach: () => {
      did.push("detach");
      return { socket: "its socket" };
    },
  };
  const channel = new UdpChannel(
    link,
    {
      type: "connected",
      local: LOCAL,
      mapped: MAPPED,
      remote: PEER,
      isRelayed,
      elapsedMs: 9,
    } as ConstructorParameters<typeof UdpChannel>[1],
  );
  return { channel, did, link };
}

const data = (...bytes: number[]) => new Uint8Array(bytes);

/** All that a reader gets up to the end. */
async function readAll(channel: UdpChannel): Promise<number[]> {
  const all: number[] = [];
  for await (const [first] of channel) all.push(first!);
  return all;
}

describe("a UDP channel", () => {
  it("tells where it is, and where the peer has moved to", () => {
    const { channel } = open();
    const { local, mapped, isRelayed, elapsedMs } = channel;
    assertEquals([local, mapped, isRelayed, elapsedMs], [LOCAL, MAPPED, false, 9]);
    assertEquals(channel.peer, PEER);
    channel.move(OTHER);
    assertEquals(channel.peer, OTHER);
  });

  it("keeps 1024 datagrams for a reader that is late: of more the oldest are lost", async () => {
    const { channel } = open();
    for (let i = 0; i < 1024; i++) channel.receive(data(i % 256));
    assertEquals(channel.dropped, 0);
    channel.receive(data(77));
    channel.receive(data(78));
    assertEquals(channel.dropped, 2);
    channel.finishReading();
    const all = await readAll(channel);
    assertEquals([all.length, all[0], ...all.slice(-2)], [1024, 2, 77, 78]);
  });

  it("wakes who waits: with a datagram, at the peer's end, and at its own", async () => {
    const { channel } = open();
    const reader = channel[Symbol.asyncIterator]();
    const first = reader.next();
    await Promise.resolve();
    channel.receive(data(1));
    assertEquals((await first).value, data(1));
    const last = reader.next();
    await Promise.resolve();
    channel.finishReading();
    assertEquals((await last).done, true);

    const other = open().channel;
    const waiting = readAll(other);
    await Promise.resolve();
    other.finish("lost");
    assertEquals([await waiting, await other.ended], [[], "lost"]);
  });

  it("wakes all who wait: one gets a datagram, and all hear of the end", async () => {
    const { channel } = open();
    const both = [readAll(channel), readAll(channel)];
    await Promise.resolve();
    channel.receive(data(1));
    await Promise.resolve();
    channel.receive(data(2));
    await Promise.resolve();
    channel.finish("lost");
    assertEquals((await Promise.all(both)).flat().sort(), [1, 2]);
  });

  it("gives a callback what waits, and then what comes, and a reader none of it", async () => {
    const { channel } = open();
    const heard: number[] = [];
    channel.receive(data(1));
    channel.onDatagram = ([first]) => heard.push(first!);
    channel.receive(data(2));
    channel.onDatagram = undefined;
    channel.receive(data(3));
    channel.finishReading();
    assertEquals([heard, await readAll(channel)], [[1, 2], [3]]);
  });

  it("keeps what waits for a reader where a callback is taken away", async () => {
    const { channel } = open();
    channel.receive(data(1));
    channel.onDatagram = undefined;
    channel.finishReading();
    assertEquals(await readAll(channel), [1]);
  });

  it("sends and ends by its link, until it has ended", async () => {
    const { channel, did } = open();
    channel.send(data(1, 2));
    channel.end();
    await channel.close();
    assertEquals(did, [1, 2, "end", "close"]);
    assertEquals(await channel.ended, "closed");
    channel.end();
    for (const late of [() => channel.send(data(3)), () => channel.detach()]) {
      assertEquals(assertThrows(late, NatError).code, "closed");
    }
    assertEquals(did.length, 4);
    const broken = open();
    broken.link.isOpen = false;
    assertEquals(assertThrows(() => broken.channel.send(data(1)), NatError).code, "closed");
  });

  it("hands its socket over with what nobody has read, and is over", async () => {
    const { channel, did } = open();
    channel.receive(data(1));
    channel.move(OTHER);
    const waiting = readAll(channel);
    channel.receive(data(2));
    const detached = channel.detach();
    assertEquals(detached, {
      socket: "its socket",
      local: LOCAL,
      peer: OTHER,
      waiting: [data(2)],
    });
    assertEquals([did, await channel.ended, await waiting], [["detach"], "closed", [1]]);
    const relayed = open(true);
    assertThrows(() => relayed.channel.detach(), TypeError, "'isRelayed'");
    assertEquals(relayed.did, []);
  });
});
