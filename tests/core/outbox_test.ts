import { describe, it } from "node:test";
import { assertEquals } from "@std/assert";
import type { Action } from "../../core/machine.ts";
import { Outbox } from "../../core/outbox.ts";

const to = { address: "192.0.2.1", port: 5351 };
const drain = (outbox: Outbox<string>) => {
  const out: string[] = [];
  for (let action: Action<string> | undefined; (action = outbox.poll());) {
    if (action.type === "send") out.push(`send ${action.data.join()}`);
    if (action.type === "event") out.push(action.event);
  }
  return out;
};

describe("Outbox", () => {
  it("hands out in order and says when it wants to be drained", () => {
    const outbox = new Outbox<string>();
    outbox.touch(7);
    assertEquals(outbox.wakeAt(), undefined);
    outbox.emit("a");
    outbox.send("client", to, Uint8Array.of(1));
    outbox.emit("b");
    assertEquals(outbox.wakeAt(), 7);
    assertEquals(drain(outbox), ["a", "send 1", "b"]);
    assertEquals(outbox.wakeAt(), undefined);
  });

  it("keeps one datagram and one event a key, in the place of the first", () => {
    const outbox = new Outbox<string>((older, newer) => `${older}+${newer}`);
    outbox.emit("a", 1);
    outbox.send("client", to, Uint8Array.of(1), 1);
    outbox.emit("b", 2);
    outbox.emit("c", 1);
    outbox.send("client", to, Uint8Array.of(2), 1);
    assertEquals(drain(outbox), ["a+c", "send 2", "b"]);
  });

  it("says which event of a key nobody has heard of", () => {
    const outbox = new Outbox<string>((older, newer) => `${older}+${newer}`);
    outbox.send("client", to, Uint8Array.of(1), 1);
    assertEquals(outbox.pendingEvent(1), undefined);
    outbox.emit("a", 1);
    outbox.emit("b", 1);
    assertEquals([outbox.pendingEvent(1), outbox.pendingEvent(2)], ["a+b", undefined]);
    drain(outbox);
    assertEquals(outbox.pendingEvent(1), undefined);
  });

  it("takes a datagram back that has not left", () => {
    const outbox = new Outbox<string>();
    outbox.send("client", to, Uint8Array.of(1), 1);
    outbox.send("client", to, Uint8Array.of(2), 2);
    outbox.send("client", to, Uint8Array.of(3), 3);
    outbox.unsend(2);
    outbox.unsend(9);
    assertEquals(drain(outbox), ["send 1", "send 3"]);
    outbox.send("client", to, Uint8Array.of(4), 4);
    outbox.unsend(4);
    assertEquals(outbox.wakeAt(), undefined);
    assertEquals(outbox.size, 0);
    assertEquals([outbox.unsend(4), outbox.unsend(1)], [false, false]);
    outbox.send("client", to, Uint8Array.of(5), 4);
    outbox.emit("a", 4);
    outbox.unemit(4);
    assertEquals(outbox.pendingEvent(4), undefined);
    outbox.emit("b", 4);
    assertEquals(drain(outbox), ["send 5", "b"]);
  });

  it("bounds what has no key, and counts what it dropped", () => {
    const outbox = new Outbox<string>(undefined, 3);
    for (const event of ["a", "b", "c", "d", "e"]) outbox.emit(event);
    outbox.emit("kept", "key");
    assertEquals(outbox.overflowed, 2);
    assertEquals(drain(outbox), ["a", "b", "c", "kept"]);
  });

  it("stays small while it is filled and drained for long", () => {
    const outbox = new Outbox<string>();
    outbox.emit("first");
    for (let i = 0; i < 10_000; i++) {
      outbox.emit(String(i));
      outbox.poll();
    }
    assertEquals(outbox.size, 1);
    assertEquals(drain(outbox), ["9999"]);
  });
});
