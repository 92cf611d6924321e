/** TCP streams at their bounds, on the runtime that the tests run on. */
import { assert, assertEquals } from "@std/assert";
import { connect, createServer, type Socket } from "node:net";
import process from "node:process";
import { afterEach, describe, it } from "node:test";
import { openStreams } from "../../adapters/net.ts";
import { failureReason, socketEndpoint } from "../../adapters/streams.ts";
import type { Streams } from "../../adapters/runtime.ts";
import type { Endpoint, StreamResult } from "../../core/machine.ts";
import { closedAfterEach, guarded } from "./support.ts";

const HERE: Endpoint = { address: "127.0.0.1", port: 0 };
const MIB = 1 << 20;

describe("TCP streams on this runtime", () => {
  const { open, handTimers } = closedAfterEach(afterEach);

  /** The streams of a machine, and what it is told. */
  async function machine() {
    const told: (readonly [id: number, happened: StreamResult])[] = [];
    let wake = () => {};
    const streams: Streams = await openStreams((id, happened) => {
      told.push([id, happened]);
      wake();
    });
    open.push(() => streams.close());
    const next = async <T extends StreamResult["type"]>(type: T) => {
      for (;;) {
        const at = told.findIndex(([, happened]) => happened.type === type);
        if (at >= 0) {
          const [id, happened] = told.splice(at, 1)[0]!;
          return { id, ...happened as Extract<StreamResult, { readonly type: T }> };
        }
        await guarded(new Promise<void>((resolve) => wake = resolve));
      }
    };
    const dial = (id: number, to: Endpoint, timeoutMs = 5000) =>
      streams.act({ type: "stream", do: "connect", id, to, timeoutMs });
    return { streams, told, next, dial };
  }

  /** Somebody who takes connections and does with each what a test says. */
  async function peer(): Promise<{ at: Endpoint; accepted: () => Promise<Socket> }> {
    const sockets: Socket[] = [];
    let wake = () => {};
    const server = createServer({ allowHalfOpen: true, pauseOnConnect: true }, (socket) => {
      socket.on("error", () => {});
      sockets.push(socket);
      open.push(() => socket.destroy());
      wake();
    });
    open.push(() => server.close());
    await new Promise<void>((resolve) => server.listen(0, HERE.address, resolve));
    const { port } = server.address() as { port: number };
    const accepted = async () => {
      while (sockets.length === 0) {
        await guarded(new Promise<void>((resolve) => wake = resolve));
      }
      return sockets.shift()!;
    };
    return { at: { ...HERE, port }, accepted };
  }

  it("takes a mebibyte that waits to be sent, and not one byte more", async () => {
    const { at } = await peer();
    const { streams, told, dial } = await machine();
    const write = (id: number, length: number) =>
      streams.act({ type: "stream", do: "write", id, data: new Uint8Array(length) });
    // Until it is connected all of it waits.
    dial(1, at);
    dial(2, at);
    write(1, MIB);
    assertEquals(told, []);
    write(1, 1);
    write(2, MIB + 1);
    assertEquals(told, [1, 2].map((id) => [id, { type: "closed", reason: "failed" }] as const));
  });

  it("lets 256 connect, and turns the next one away", async () => {
    const { streams, told, next } = await machine();
    const { local } = await streams.listen("peers", HERE);
    const knock = () => {
      const socket = connect(local.port, local.address);
      open.push(() => socket.destroy());
      socket.on("error", () => {});
      return socket;
    };
    const all = Array.from({ length: 256 }, knock);
    for (let i = 0; i < 256; i++) assertEquals((await next("open")).socket, "peers");
    await guarded(new Promise<void>((resolve) => knock().on("close", () => resolve())));
    assertEquals(told, []);

    all[0]!.destroy();
    await next("closed");
    // What has ended here may take the system a moment longer.
    const isTaken = () =>
      new Promise<boolean>((resolve) => {
        const socket = knock();
        socket.on("close", () => resolve(false));
        void next("open").then(() => resolve(true));
      });
    while (!await guarded(isTaken()));
  });

  it("waits ten seconds for the other side's end once it has closed, and no longer", async () => {
    const { at, accepted } = await peer();
    const { streams, next, dial } = await machine();
    const timers = handTimers(10_000);
    dial(1, at);
    dial(2, at);
    await next("open");
    await next("open");
    streams.act({ type: "stream", do: "write", id: 1, data: new TextEncoder().encode("last") });
    streams.act({ type: "stream", do: "close", id: 1 });
    streams.act({ type: "stream", do: "close", id: 2 });
    assertEquals([timers.waiting, timers.keepAlive], [2, 0]);

    const [first, second] = [await accepted(), await accepted()];
    const heard = ["", ""];
    const ends = [first, second].map((socket, i) => {
      socket.on("data", (data: Uint8Array) => heard[i] += new TextDecoder().decode(data));
      return guarded(new Promise<void>((resolve) => socket.on("end", () => resolve())));
    });
    for (const socket of [first, second]) socket.resume();
    await Promise.all(ends);
    assertEquals(heard.sort(), ["", "last"]);
    // The one ends, too; the other one does not, and is broken off.
    first.end();
    const noticed = async () => {
      while (timers.waiting > 1) await new Promise((resolve) => setTimeout(resolve, 1));
    };
    await guarded(noticed());
    timers.fire();
    const broken = guarded(new Promise<void>((resolve) => second.on("close", () => resolve())));
    const knock = setInterval(() => second.write("x"), 1);
    await broken.finally(() => clearInterval(knock));
  });

  it("gives a connection up in its time, and minds the time no more once it stands", async () => {
    const { at } = await peer();
    const { told, next, dial } = await machine();
    const timers = handTimers(4321);
    dial(1, at, 4321);
    assertEquals([timers.waiting, timers.keepAlive], [1, 0]);
    timers.fire();
    assertEquals(told.splice(0), [[1, { type: "closed", reason: "timeout" }]]);

    dial(2, at, 4321);
    assertEquals((await next("open")).id, 2);
    assertEquals([timers.waiting, told], [0, []]);

    // Nor where nobody takes it.
    const gone = await (await machine()).streams.listen("x", HERE);
    gone.close();
    dial(3, gone.local, 4321);
    assertEquals((await next("closed")).reason, "refused");
    while (timers.waiting > 0) await new Promise((resolve) => setTimeout(resolve, 1));
  });

  it("connects to the address that it is told, of several that this host has", {
    skip: process.platform === "darwin" && "it has one",
  }, async () => {
    const { streams, next, dial } = await machine();
    const { local } = await streams.listen("x", { address: "127.0.0.2", port: 0 });
    dial(1, local);
    const both = [await next("open"), await next("open")];
    assertEquals(both.find(({ id }) => id === 1)!.peer, local);
  });

  it("refuses a name, a number that is in use and what is not connected yet; what is unknown is nothing", async () => {
    const { at } = await peer();
    const { streams, told, next, dial } = await machine();
    const failed = { type: "closed", reason: "failed" } as const;
    dial(1, { address: "localhost", port: at.port });
    assertEquals(told.splice(0), [[1, failed]]);
    dial(2, at);
    dial(2, at);
    assertEquals(told.splice(0), [[2, failed]]);
    assertEquals((await next("open")).peer, at);
    dial(3, at);
    streams.act({ type: "stream", do: "hand-over", id: 3 });
    assertEquals(told.splice(0), [[3, failed]]);

    for (const what of ["close", "hand-over"] as const) {
      streams.act({ type: "stream", do: what, id: 9 });
    }
    assertEquals([told, streams.take(9)], [[], undefined]);
  });

  it("tells once how a stream has ended, and why", async () => {
    const { at, accepted } = await peer();
    const { told, next, dial } = await machine();
    dial(1, at);
    const { local } = await next("open");
    const socket = await accepted();
    assertEquals(socket.remotePort, local.port);
    socket.end();
    socket.resume();
    assertEquals(await next("closed"), { id: 1, type: "closed", reason: "ended" });

    const gone = await (await machine()).streams.listen("x", HERE);
    gone.close();
    dial(2, gone.local);
    assertEquals(await next("closed"), { id: 2, type: "closed", reason: "refused" });
    assertEquals(told, []);
  });

  it("ends a stream that it gives up on both sides", async () => {
    const { at, accepted } = await peer();
    const { streams, next, dial } = await machine();
    dial(1, at);
    await next("open");
    streams.act({ type: "stream", do: "write", id: 1, data: new Uint8Array(MIB + 1) });
    const given = await accepted();
    given.resume();
    await guarded(new Promise<void>((resolve) => given.on("end", resolve).on("close", resolve)));
  });

  it("ends all when it is closed but what was taken, and says nothing of it", async () => {
    const { at, accepted } = await peer();
    const { streams, told, next, dial } = await machine();
    const listener = await streams.listen("peers", HERE);
    for (const id of [1, 2, 3]) dial(id, at);
    const ports = new Map<number, number>();
    for (let i = 0; i < 3; i++) {
      const { id, local } = await next("open");
      ports.set(id, local.port);
    }
    for (const id of [2, 3]) streams.act({ type: "stream", do: "hand-over", id });
    const taken = streams.take(3)!;
    open.push(() => (taken.socket as Socket).destroy());
    assertEquals([taken.peer, taken.local.port, streams.take(3)], [at, ports.get(3), undefined]);

    streams.close();
    const others = new Map<number, Socket>();
    for (let i = 0; i < 3; i++) {
      const socket = await accepted();
      others.set(socket.remotePort!, socket);
    }
    for (const id of [1, 2]) {
      const socket = others.get(ports.get(id)!)!;
      const end = guarded(new Promise<void>((resolve) => socket.on("close", () => resolve())));
      socket.on("end", () => socket.end());
      socket.resume();
      await end;
    }
    const heard = new Promise<string>((resolve) =>
      others.get(ports.get(3)!)!.on(
        "data",
        (data: Uint8Array) => resolve(new TextDecoder().decode(data)),
      )
    );
    others.get(ports.get(3)!)!.resume();
    (taken.socket as Socket).write("mine");
    assertEquals(await guarded(heard), "mine");
    const other = await machine();
    other.dial(1, listener.local);
    assertEquals((await other.next("closed")).reason, "refused");
    assertEquals([told, streams.take(2)], [[], undefined]);
  });
});

describe("failureReason()", () => {
  it("goes by the code of each runtime", () => {
    const reasons = ["ECONNREFUSED", "ETIMEDOUT", "EACCES", "EHOSTUNREACH"]
      .map((code) => failureReason(Object.assign(new Error("x"), { code })));
    assertEquals(reasons, ["refused", "timeout", "permission", "failed"]);
    const deno = Object.assign(new Error("x"), { name: "ConnectionRefused" });
    assertEquals([failureReason(deno), failureReason(undefined)], ["refused", "failed"]);
  });
});

describe("socketEndpoint()", () => {
  it("is canonical, and undefined where a socket is not connected any more", () => {
    assertEquals(socketEndpoint("::ffff:192.0.2.1", 5), { address: "192.0.2.1", port: 5 });
    assertEquals(socketEndpoint(undefined, 5), undefined);
    assertEquals(socketEndpoint("192.0.2.1", undefined), undefined);
    assert(socketEndpoint("192.0.2.1", 0));
  });
});
