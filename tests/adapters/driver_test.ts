import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import { describe, it } from "node:test";
import { setImmediate } from "node:timers";
import { Driver } from "../../adapters/driver.ts";
import type { HttpHandlers, Passing } from "../../adapters/runtime.ts";
import { NatError } from "../../core/errors.ts";
import type { Action, Endpoint, Machine, SocketResult, SocketSpec } from "../../core/machine.ts";
import { PING_INTERVAL_MS, type PingEvent, PingMachine } from "../runtime/ping_machine.ts";
import { FakeRuntime } from "./fake_runtime.ts";

const PEER = { address: "192.0.2.1", port: 5351 };

async function setUp(maxSent?: number) {
  const runtime = new FakeRuntime();
  const events: PingEvent[] = [];
  const errors: unknown[] = [];
  const machine = new PingMachine(PEER, maxSent);
  const driver = new Driver<PingEvent, PingMachine>(
    runtime,
    (event) => void events.push(event),
    (error) => void errors.push(error),
  );
  await driver.open({ key: "client", connect: PEER });
  return { runtime, events, errors, machine, driver, socket: runtime.sockets[0]! };
}

/** Lets all that is about to happen happen. */
const turn = () => new Promise<void>((resolve) => void setImmediate(resolve));

describe("Driver", () => {
  it("sends what a command queues, and tells the events of what comes back", async () => {
    const { driver, machine, socket, events } = await setUp();
    driver.start(machine);

    driver.do((it, now) => it.ping(7, now));
    socket.handlers.onDatagram(Uint8Array.of(7), PEER);

    assertEquals(socket.sent, [{ to: PEER, data: [7] }]);
    assertEquals(events, [{ type: "pong", id: 7, sent: 1 }]);
  });

  it("tells a tap what passes, and of what was dropped why, before what follows from it", async () => {
    const runtime = new FakeRuntime();
    const told: string[] = [];
    const tap = (passing: Passing) => {
      const end = "peer" in passing ? ` ${passing.peer?.port}` : ` ${passing.message}`;
      const dropped = "dropped" in passing ? `: ${passing.dropped}` : "";
      told.push(`${passing.type}${end}${dropped}`);
    };
    const stats = { pcp: { dropped: { "wrong-nonce": 0, "unmatched": 0 } }, wrongSource: 0 };
    const machine = Object.assign(new PingMachine(PEER), {
      stats: { ...stats, timeouts: 0, foreign: 0 },
    });
    const take = machine.handleDatagram.bind(machine);
    machine.handleDatagram = (data, from, socket, now) => {
      if (data[0] !== 2) return take(data, from, socket, now);
      stats.pcp.dropped["wrong-nonce"]++;
      stats.pcp.dropped.unmatched++;
      return false;
    };
    const driver = new Driver<PingEvent, PingMachine>(
      Object.assign(runtime, { tap }),
      ({ type }) => told.push(type),
    );
    await driver.open({ key: "client", connect: PEER });
    driver.start(machine);
    const { handlers } = runtime.sockets[0]!;

    driver.do((it, now) => it.ping(7, now));
    handlers.onDatagram(Uint8Array.of(2, 0x81), PEER);
    handlers.onDatagram(Uint8Array.of(7), PEER);
    driver.do((it, now) => it.ping(8, now));
    handlers.onUnreachable(PEER);
    handlers.onError(new NatError("network", "gone"));

    assertEquals(told, [
      "sent 5351",
      "received 5351: wrong nonce",
      "received 5351",
      "pong",
      "sent 5351",
      "unreachable 5351",
      "unreachable",
      "failed gone",
    ]);
  });

  it("tells a tap of HTTP asked and taken, each answer with the other end of its own request", async () => {
    const told: unknown[] = [];
    const acts: unknown[] = [];
    let handlers: HttpHandlers | undefined;
    const runtime = Object.assign(new FakeRuntime(), {
      tap: (passing: Passing) => void told.push(passing),
      openHttp: (given: HttpHandlers) => {
        handlers = given;
        const act = (action: unknown) => void acts.push(action);
        const listen = () => Promise.reject(new Error("not asked for"));
        return Promise.resolve({ request: act, respond: act, close() {}, listen });
      },
    });
    const request = { method: "GET", path: "/", headers: [] };
    const response = { status: 200, headers: [], body: new Uint8Array() };
    const limits = { maxBytes: 1, timeoutMs: 1000 };
    const ask = (id: number, to: Endpoint) =>
      ({ type: "request", id, to, request, ...limits }) as const;
    const other = { address: "192.0.2.2", port: 80 };
    const actions: Action<PingEvent>[] = [ask(1, PEER), ask(2, other)];
    const fed: unknown[] = [];
    const machine = Object.assign(new PingMachine(PEER), {
      poll: () => actions.shift(),
      handleResponse: (...args: unknown[]) => void fed.push(args.slice(0, 2)),
      handleRequest: (...args: unknown[]) => void fed.push(args.slice(0, 3)),
    });
    const driver = new Driver<PingEvent, PingMachine>(runtime, () => {});
    driver.start(machine);
    await turn();
    assertEquals(acts, [ask(1, PEER), ask(2, other)]);
    assertEquals(told.splice(0), [
      { type: "asked", request, peer: PEER },
      { type: "asked", request, peer: other },
    ]);

    const late = { ok: false, reason: "timeout" } as const,
      done = { ok: true, ...response } as const;
    handlers!.onResult(2, late);
    handlers!.onResult(1, done);
    assertEquals(told.splice(0), [
      { type: "answered", result: late, peer: other },
      { type: "answered", result: done, peer: PEER },
    ]);
    assertEquals(fed.splice(0), [[2, late], [1, done]]);

    handlers!.onRequest(1, request, other);
    actions.push({ type: "respond", id: 1, response });
    driver.do(() => {});
    await turn();
    assertEquals(fed, [[1, request, other]]);
    assertEquals(told, [
      { type: "was-asked", request, peer: other },
      { type: "responded", response, peer: other },
    ]);
    assertEquals(acts.at(-1), { type: "respond", id: 1, response });
  });

  it("tells a tap what did not leave, as its socket is not open", async () => {
    const told: Passing[] = [];
    const runtime = Object.assign(new FakeRuntime(), {
      tap: (one: Passing) => void told.push(one),
    });
    const machine = new PingMachine(PEER);
    const driver = new Driver<PingEvent, PingMachine>(runtime, () => {}, () => {});
    driver.start(machine);
    driver.do((it, now) => it.ping(7, now));
    await driver.open({ key: "client", connect: PEER });
    driver.do((it, now) => it.ping(8, now));

    const data = (id: number) => Uint8Array.of(id);
    const { local } = runtime.sockets[0]!;
    assertEquals(told, [
      {
        type: "sent",
        data: data(7),
        local: undefined,
        peer: PEER,
        dropped: "its socket is not open",
      },
      { type: "sent", data: data(8), local, peer: PEER },
    ]);
  });

  it("looks at no counter where nobody taps", async () => {
    const { driver, machine, socket, events } = await setUp();
    driver.start(machine);
    machine.handleDatagram = () => false;
    let looks = 0;
    Object.defineProperty(machine, "stats", { get: () => ++looks });

    socket.handlers.onDatagram(Uint8Array.of(99), PEER);

    assertEquals([events, looks], [[], 0]);
  });

  it("wakes the machine at its deadline, and stops when nothing is pending", async () => {
    const { driver, machine, runtime, socket, events } = await setUp(3);
    driver.start(machine);

    driver.do((it, now) => it.ping(1, now));
    runtime.advance(10 * PING_INTERVAL_MS);

    assertEquals(socket.sent.length, 3);
    assertEquals(events, [{ type: "silence", id: 1 }]);
    assertEquals(machine.stats.timeouts, 3);
    assertEquals(runtime.timers.size, 0);
  });

  it("keeps one timer, which keeps no process alive", async () => {
    const { driver, machine, runtime } = await setUp();
    driver.start(machine);

    for (let id = 0; id < 20; id++) driver.do((it, now) => it.ping(id, now));

    assertEquals([...runtime.timers].map(({ keepAlive }) => keepAlive), [false]);
    assertEquals(runtime.delays.length, 1);
  });

  it("looks at the clock every 15 s, so that sleep is noticed", async () => {
    const { driver, machine, runtime } = await setUp();
    machine.nextTimeout = () => 1_000_000_000;
    driver.start(machine);

    runtime.advance(60_000);

    assertEquals(runtime.delays, [15_000, 15_000, 15_000, 15_000, 15_000]);
    assertEquals(machine.stats.timeouts, 0);
  });

  it("wakes the machine earlier where a deadline comes before the one that it waits for", async () => {
    const { driver, machine, runtime } = await setUp();
    let deadline = 11_000;
    const handled: number[] = [];
    machine.nextTimeout = () => deadline;
    machine.handleTimeout = (now) => {
      handled.push(now);
      deadline += 10_000;
    };
    driver.start(machine);

    deadline = 3000;
    driver.do(() => {});

    assertEquals([...runtime.timers].map(({ at }) => at), [3000]);
    runtime.advance(2000);
    assertEquals(handled, [3000]);
  });

  it("handles what became due in sleep once", async () => {
    const { driver, machine, runtime, socket } = await setUp(100);
    driver.start(machine);
    driver.do((it, now) => it.ping(1, now));

    runtime.time += 3_600_000;
    runtime.advance(0);

    assertEquals(machine.stats.timeouts, 1);
    assertEquals(socket.sent.length, 2);
  });

  it("hands ICMP errors to the machine and other socket errors to the handler", async () => {
    const { driver, machine, socket, events, errors } = await setUp();
    driver.start(machine);
    const failure = new NatError("network", "interface gone");

    driver.do((it, now) => it.ping(1, now));
    socket.handlers.onUnreachable(PEER);
    socket.handlers.onError(failure);

    assertEquals(events, [{ type: "unreachable", port: 5351 }]);
    assertEquals(errors, [failure]);
  });

  it("drops datagrams that come before the machine is started", async () => {
    const { driver, machine, socket } = await setUp();

    socket.handlers.onDatagram(Uint8Array.of(1), PEER);
    driver.start(machine);

    assertEquals(machine.stats.foreign, 0);
  });

  it("feeds what a group's socket hears, and never sends by it", async () => {
    const { driver, machine, runtime, socket } = await setUp();
    const group = "224.0.0.1";
    await driver.open({ key: "announcements", local: { address: group, port: 5350 }, group });
    driver.start(machine);

    runtime.sockets[1]!.handlers.onDatagram(Uint8Array.of(9), PEER);
    driver.do((it, now) => it.ping(1, now));

    assertEquals(machine.stats.foreign, 1);
    assertEquals(runtime.sockets[1]!.options.multicast, { group });
    assertEquals([socket.sent.length, runtime.sockets[1]!.sent.length], [1, 0]);
  });

  it("runs a command from within an event handler and keeps events in order", async () => {
    const runtime = new FakeRuntime();
    const seen: string[] = [];
    const driver = new Driver<PingEvent, PingMachine>(runtime, (event) => {
      seen.push(`${event.type} begins`);
      if (event.type === "pong" && event.id === 1) {
        driver.do((machine, now) => {
          machine.ping(2, now);
          machine.handleDatagram(Uint8Array.of(2), PEER, "server", now);
        });
      }
      seen.push(`${event.type} ends`);
    });
    await driver.open({ key: "client", connect: PEER });
    driver.start(new PingMachine(PEER));

    driver.do((machine, now) => machine.ping(1, now));
    runtime.sockets[0]!.handlers.onDatagram(Uint8Array.of(1), PEER);

    assertEquals(seen, ["pong begins", "pong ends", "pong begins", "pong ends"]);
    assertEquals(runtime.sockets[0]!.sent.length, 2);
  });

  it("goes on when an event handler throws, and rethrows outside the loop", async () => {
    const runtime = new FakeRuntime();
    const seen: number[] = [];
    const driver = new Driver<PingEvent, PingMachine>(runtime, (event) => {
      if (event.type === "pong") seen.push(event.id);
      throw new Error("the application's own fault");
    });
    await driver.open({ key: "client", connect: PEER });
    driver.start(new PingMachine(PEER));
    const { handlers } = runtime.sockets[0]!;
    const rethrown: (() => void)[] = [];
    const original = globalThis.queueMicrotask;
    globalThis.queueMicrotask = (callback) => void rethrown.push(callback);

    try {
      driver.do((machine, now) => {
        machine.ping(1, now);
        machine.ping(2, now);
      });
      handlers.onDatagram(Uint8Array.of(1), PEER);
      handlers.onDatagram(Uint8Array.of(2), PEER);
    } finally {
      globalThis.queueMicrotask = original;
    }

    assertEquals(seen, [1, 2]);
    assertEquals(rethrown.length, 2);
    assertThrows(rethrown[0]!, Error, "the application's own fault");
  });

  it("lets a command's exception through and drains all the same", async () => {
    const { driver, machine, socket } = await setUp();
    driver.start(machine);

    assertThrows(
      () =>
        driver.do((it, now) => {
          it.ping(1, now);
          throw new RangeError("a caller's mistake");
        }),
      RangeError,
    );

    assertEquals(socket.sent.length, 1);
  });

  it("tells that there is no socket of that key", () => {
    const runtime = new FakeRuntime();
    const errors: unknown[] = [];
    const driver = new Driver<PingEvent, PingMachine>(
      runtime,
      () => {},
      (error) => void errors.push(error),
    );
    driver.start(new PingMachine(PEER));

    driver.do((machine, now) => machine.ping(1, now));

    const error = errors[0] as NatError;
    assertEquals(
      error.message,
      'Cannot send to 192.0.2.1:5351: there is no socket "client"',
    );
  });

  it("answers requests of a machine with a failure where its runtime makes none", async () => {
    const { driver, machine } = await setUp();
    const results: unknown[] = [];
    const request = { method: "GET", path: "/", headers: [] };
    const limits = { maxBytes: 1, timeoutMs: 1000 };
    const actions = [{ type: "request" as const, id: 3, to: PEER, request, ...limits }];
    const asking = Object.assign(machine, {
      poll: () => actions.pop(),
      handleResponse: (id: number, result: unknown) => void results.push([id, result]),
    });

    driver.start(asking);

    assertEquals(results, [[3, { ok: false, reason: "failed" }]]);
  });

  describe("with a machine that lists its sockets", () => {
    function listing(first: readonly SocketSpec[]) {
      const runtime = new FakeRuntime();
      const told: unknown[] = [];
      let list = first;
      const machine = Object.assign(new PingMachine(PEER), {
        sockets: () => list,
        handleSocket: (key: string, result: SocketResult) => void told.push([key, result]),
      });
      const driver = new Driver<PingEvent, PingMachine>(runtime, () => {});
      driver.start(machine);
      const change = async (next: readonly SocketSpec[]) => {
        list = next;
        driver.do(() => {});
        await driver.opened();
      };
      return { runtime, driver, told, change };
    }
    const free = { key: "client", local: { address: "192.0.2.7", port: 0 } };
    const closed = ({ sockets }: FakeRuntime) => sockets.map(({ isClosed }) => isClosed);

    it("keeps one whose free port the machine has come to name", async () => {
      const { runtime, driver, change } = listing([free]);
      await driver.opened();

      await change([{ ...free, local: { address: "192.0.2.7", port: 40000 } }]);
      assertEquals(closed(runtime), [false]);
      await change([{ ...free, local: { address: "192.0.2.7", port: 40001 } }]);

      assertEquals(closed(runtime), [true, false]);
    });

    it("tells that a runtime without TCP has no socket for streams", async () => {
      const { told, change } = listing([]);

      await assertRejects(() => change([{ key: "peers", kind: "tcp" }]), NatError, "no tcp");

      assertEquals(told.length, 1);
    });
  });

  it("tells each time that the machine was fed and drained", async () => {
    const { driver, machine, socket } = await setUp();
    const sent: number[] = [];
    driver.onSettled = () => void sent.push(socket.sent.length);
    driver.start(machine);
    driver.do((it, now) => it.ping(7, now));
    socket.handlers.onDatagram(Uint8Array.of(7), PEER);

    assertEquals(sent, [0, 1, 1]);
  });

  it("gives what is not the machine's to whoever wants it, with the socket's key", async () => {
    const runtime = new FakeRuntime();
    const strays: unknown[] = [];
    const driver = new Driver<PingEvent, PingMachine>(
      runtime,
      () => {},
      undefined,
      undefined,
      (data, from, socket) => void strays.push([[...data], from, socket]),
    );
    await driver.open({ key: "client", connect: PEER });
    const machine = new PingMachine(PEER);
    driver.start(machine);
    machine.handleDatagram = (data) => data[0] === 1;
    for (const id of [1, 2]) runtime.sockets[0]!.handlers.onDatagram(Uint8Array.of(id), PEER);

    assertEquals(strays, [[[2], PEER, "client"]]);
  });

  it("hands a socket over that was opened for it, and leaves it open when it is closed", async () => {
    const { driver, machine, runtime } = await setUp();
    await driver.open({ key: "other" });
    const detached = { isIt: true };
    runtime.sockets[1]!.detach = () => detached;
    driver.start(machine);

    assertEquals([driver.detach("other"), driver.detach("other")], [detached, undefined]);
    assertEquals([driver.detach("client"), driver.local("client")?.port], [undefined, 40000]);
    driver.close();
    assertEquals(runtime.sockets.map(({ isClosed }) => isClosed), [true, false]);
  });

  it("ends the HTTP that comes to be loaded once it is closed, and asks nothing by it", async () => {
    const did: string[] = [];
    let load = () => {};
    const http = {
      request: () => void did.push("request"),
      respond: () => void did.push("respond"),
      listen: () => Promise.reject(new Error("not asked for")),
      close: () => void did.push("close"),
    };
    const runtime = Object.assign(new FakeRuntime(), {
      openHttp: () => new Promise<typeof http>((resolve) => load = () => resolve(http)),
    });
    const request = { method: "GET", path: "/", headers: [] };
    const actions: Action<PingEvent>[] = [
      { type: "request", id: 1, to: PEER, request, maxBytes: 1, timeoutMs: 1000 },
    ];
    const driver = new Driver<PingEvent, PingMachine>(runtime, () => {});
    assert(!driver.usesHttp);
    driver.start(Object.assign(new PingMachine(PEER), { poll: () => actions.shift() }));
    assert(driver.usesHttp, "before it is there");
    driver.close();
    load();
    await turn();

    assertEquals(did, ["close"]);
  });

  it("tells of what was asked by HTTP or TCP that cannot be loaded, and loads it for the next", async () => {
    const told: unknown[] = [];
    const missing = () => Promise.reject(new Error("Cannot find module"));
    const runtime = Object.assign(new FakeRuntime(), { openHttp: missing, openStreams: missing });
    const request = { method: "GET", path: "/", headers: [] };
    const asked = { type: "request", to: PEER, request, maxBytes: 1, timeoutMs: 1000 } as const;
    const actions: Action<PingEvent>[] = [
      { ...asked, id: 1 },
      { type: "respond", id: 2, response: { status: 200, headers: [], body: new Uint8Array() } },
      { type: "stream", do: "connect", id: 3, to: PEER, timeoutMs: 1000 },
      { type: "stream", do: "close", id: 4 },
    ];
    const machine = Object.assign(new PingMachine(PEER), {
      poll: () => actions.shift(),
      handleResponse: (id: number, result: unknown) => void told.push([id, result]),
      handleStream: (id: number, happened: unknown) => void told.push([id, happened]),
    });
    const driver = new Driver<PingEvent, PingMachine>(runtime, () => {});
    driver.start(machine);
    await turn();
    assertEquals(told.splice(0), [
      [1, { ok: false, reason: "failed" }],
      [3, { type: "closed", reason: "failed" }],
    ]);

    const act = ({ id }: { readonly id: number }) => void told.push(id);
    const listen = () => Promise.reject(new Error("not asked for"));
    Object.assign(runtime, {
      openHttp: () => Promise.resolve({ request: act, respond: act, listen, close() {} }),
    });
    actions.push({ ...asked, id: 5 });
    driver.do(() => {});
    await turn();
    assertEquals(told, [5]);
  });

  it("tells of a stream that a runtime without TCP does not dial, and of nothing else", async () => {
    const { driver, machine } = await setUp();
    const told: unknown[] = [];
    const dial = { type: "stream", do: "connect", id: 3, to: PEER, timeoutMs: 1000 } as const;
    const actions: Action<PingEvent>[] = [dial, { type: "stream", do: "close", id: 4 }];
    driver.start(Object.assign(machine, {
      poll: () => actions.shift(),
      handleStream: (id: number, happened: unknown) => void told.push([id, happened]),
    }));

    assertEquals(told, [[3, { type: "closed", reason: "failed" }]]);
  });

  it("close() closes the sockets and stops the timer, and twice is once", async () => {
    const { driver, machine, runtime, socket, events } = await setUp();
    await driver.open({ key: "other" });
    driver.start(machine);
    driver.do((it, now) => it.ping(1, now));

    driver.close();
    driver.close();
    runtime.advance(10_000);
    socket.handlers.onDatagram(Uint8Array.of(1), PEER);

    assertEquals(runtime.sockets.map(({ isClosed }) => isClosed), [true, true]);
    assertEquals(runtime.timers.size, 0);
    assertEquals(events, []);
  });

  it("close() drops what the machine sends from then on, and says nothing of it", async () => {
    const { driver, machine, socket, errors } = await setUp();
    driver.start(machine);

    driver.close();
    driver.do((it, now) => it.ping(1, now));

    assertEquals([socket.sent, errors], [[], []]);
  });

  it("close() while a socket opens closes that one too and rejects with 'closed'", async () => {
    const { driver, runtime } = await setUp();
    const opening = driver.open({ key: "server" });

    driver.close();

    const error = await assertRejects(() => opening, NatError);
    assertEquals(error.code, "closed");
    assertEquals(runtime.sockets.map(({ isClosed }) => isClosed), [true, true]);
    assertEquals((await assertRejects(() => driver.open({ key: "x" }), NatError)).code, "closed");
    assertEquals(runtime.sockets.length, 2);
  });

  it("lets the process end though sockets are open, those of later among them, and takes it back", async () => {
    const { driver, machine, runtime } = await setUp();
    driver.start(machine);

    const refs = () => runtime.sockets.map(({ isRef }) => isRef);
    assertEquals(refs(), [true]);

    driver.unref();
    await driver.open({ key: "other" });

    assertEquals(refs(), [false, false]);
    driver.ref();
    await driver.open({ key: "third" });
    assertEquals(refs(), [true, true, true]);
  });

  it("throws where there is no machine, or two", async () => {
    const { driver, machine } = await setUp();

    assertThrows(() => driver.do(() => 1), TypeError, "no machine was started");
    driver.start(machine);
    assertThrows(() => driver.start(machine), TypeError, "runs one already");
  });
});

/** A machine that wants these sockets, and notes what becomes of them. */
class Listing implements Machine<never> {
  readonly stats = {};
  specs: SocketSpec[] = [];
  readonly told: (readonly [key: string, result: SocketResult])[] = [];
  readonly out: Action<never>[] = [];
  readonly heard: number[] = [];
  readonly unreachable: string[] = [];

  sockets(): readonly SocketSpec[] {
    return this.specs;
  }
  handleSocket(key: string, result: SocketResult): void {
    this.told.push([key, result]);
  }
  /** The keys by which it heard. */
  readonly by: string[] = [];
  handleDatagram(data: Uint8Array, _from: Endpoint, socket: string): boolean {
    this.heard.push(data[0]!);
    this.by.push(socket);
    return true;
  }
  handleUnreachable(_to: Endpoint, socket: string): void {
    this.unreachable.push(socket);
  }
  handleTimeout(): void {}
  nextTimeout(): undefined {}
  debugTimeout(): undefined {}
  poll(): Action<never> | undefined {
    return this.out.shift();
  }
}

describe("Driver, of the sockets that a machine lists,", () => {
  const GATEWAY: SocketSpec = { key: "gateway", connect: PEER };

  /** A driver whose runtime opens sockets when, and as, the test says. */
  function listing() {
    const runtime = new FakeRuntime();
    const machine = new Listing();
    const errors: unknown[] = [];
    const driver = new Driver<never, Listing>(runtime, () => {}, (error) => errors.push(error));
    driver.start(machine);
    const list = async (...specs: SocketSpec[]) => {
      driver.do(() => void (machine.specs = specs));
      await turn();
    };
    const send = (id: number, socket = "gateway") =>
      driver.do(() => {
        machine.out.push({ type: "send", socket, to: PEER, data: Uint8Array.of(id) });
      });
    return { runtime, machine, driver, errors, list, send };
  }

  it("tells by which socket something came, and of which ICMP speaks", async () => {
    const { runtime, machine, list } = listing();
    await list(GATEWAY, { key: "other" });
    const [gateway, other] = runtime.sockets;
    other!.handlers.onDatagram(Uint8Array.of(1), PEER);
    gateway!.handlers.onDatagram(Uint8Array.of(2), PEER);
    other!.handlers.onUnreachable(PEER);
    assertEquals([machine.heard, machine.by, machine.unreachable], [[1, 2], [
      "other",
      "gateway",
    ], ["other"]]);
  });

  it("opens what is new, once, and tells where it is bound", async () => {
    const { runtime, machine, list } = listing();
    const local = { address: "192.0.2.7", port: 0 };
    await list({ ...GATEWAY, local }, { key: "other", reuse: true });
    await list({ ...GATEWAY, local: { ...local } }, { key: "other", reuse: true });

    assertEquals(runtime.sockets.map(({ options }) => options), [
      { connect: PEER, local },
      { reuseAddress: true },
    ]);
    assertEquals(
      machine.told,
      runtime.sockets.map((socket, i) =>
        [["gateway", "other"][i]!, { ok: true, local: socket.local }] as const
      ),
    );
  });

  it("sends by the one that is named, and feeds what any hears", async () => {
    const { runtime, machine, list, send } = listing();
    await list(GATEWAY, { key: "other", connect: PEER });
    send(1);
    send(2, "other");
    send(3, "neither");
    runtime.sockets[1]!.handlers.onDatagram(Uint8Array.of(9), PEER);

    assertEquals(runtime.sockets.map(({ sent }) => sent.map(({ data }) => data)), [[[1]], [[2]]]);
    assertEquals(machine.heard, [9]);
  });

  it("drops what is sent by one that is not open yet", async () => {
    const { runtime, machine, driver, errors, list, send } = listing();
    driver.do(() => void (machine.specs = [GATEWAY]));
    send(1);
    await list(GATEWAY);
    send(2);

    assertEquals(runtime.sockets[0]!.sent.map(({ data }) => data), [[2]]);
    assertEquals(errors, []);
  });

  it("drops what is sent in the turn in which its socket comes to be wanted, and warns of no such key", async () => {
    const { machine, driver, errors } = listing();
    driver.do(() => {
      machine.specs = [GATEWAY];
      machine.out.push({ type: "send", socket: "gateway", to: PEER, data: Uint8Array.of(1) });
      machine.out.push({ type: "send", socket: "other", to: PEER, data: Uint8Array.of(2) });
    });
    await turn();
    assertEquals(errors.map((error) => (error as Error).message.split(": ")[1]), [
      'there is no socket "other"',
    ]);
  });

  it("closes what is listed no more, and opens anew what is listed otherwise", async () => {
    const changes: readonly Partial<SocketSpec>[] = [
      { local: { address: "192.0.2.8", port: 0 } },
      { local: { address: "192.0.2.8", port: 1 } },
      { connect: { ...PEER, port: 1 } },
      { connect: { address: "192.0.2.2", port: 1 } },
      { reuse: true },
      { group: "224.0.0.1", local: { address: "224.0.0.1", port: 5350 } },
      { interface: "192.0.2.8" },
    ];
    const { runtime, list } = listing();
    let spec: SocketSpec = GATEWAY;
    await list(spec);
    for (const change of changes) {
      spec = { ...spec, ...change };
      await list(spec);
      const { length } = runtime.sockets;
      assertEquals(runtime.sockets.filter(({ isClosed }) => !isClosed).length, 1);
      assertEquals(runtime.sockets[length - 1]!.isClosed, false);
    }
    assertEquals(runtime.sockets.length, 1 + changes.length);
    await list();
    assertEquals(runtime.sockets.every(({ isClosed }) => isClosed), true);
  });

  it("joins the group of one that has one", async () => {
    const { runtime, list } = listing();
    const local = { address: "224.0.0.1", port: 5399 };
    await list({ key: "group", group: "224.0.0.1", interface: "192.0.2.7", local, reuse: true });

    assertEquals(runtime.sockets[0]!.options, {
      local,
      reuseAddress: true,
      multicast: { group: "224.0.0.1", interface: "192.0.2.7" },
    });
  });

  it("tells why one could not be opened, and opens it again once it was taken off the list", async () => {
    const { runtime, machine, list } = listing();
    const { openUdp } = FakeRuntime.prototype;
    for (const code of ["permission", "network", "closed"] as const) {
      runtime.openUdp = () => Promise.reject(new NatError(code, `no: ${code}`));
      machine.told.length = 0;
      await list(GATEWAY);
      const told = code === "permission" ? code : "network";
      assertEquals(machine.told, [
        ["gateway", { ok: false, code: told, message: `no: ${code}`, isOpen: false }],
      ]);
      await list(GATEWAY);
      assertEquals(machine.told.length, 1);
      await list();
    }
    runtime.openUdp = openUdp;
    await list(GATEWAY);
    assertEquals(machine.told.at(-1)![1].ok, true);
  });

  it("tells what an open one reports, and the handler as well", async () => {
    const { runtime, machine, errors, list } = listing();
    await list(GATEWAY);
    machine.told.length = 0;
    const failure = new NatError("permission", "EPERM");
    runtime.sockets[0]!.handlers.onError(failure, PEER);

    assertEquals(machine.told, [
      ["gateway", { ok: false, code: "permission", message: "EPERM", isOpen: true }],
    ]);
    assertEquals(errors, [failure]);
    await list();
    runtime.sockets[0]!.handlers.onError(failure, PEER);
    assertEquals(machine.told.length, 1);
  });

  it("closes one that opens too late: it is another one that is wanted, or none", async () => {
    const { runtime, machine, driver, list } = listing();
    driver.do(() => void (machine.specs = [GATEWAY]));
    driver.do(() => void (machine.specs = [{ ...GATEWAY, reuse: true }]));
    await list({ ...GATEWAY, reuse: true });

    assertEquals(runtime.sockets.map(({ isClosed }) => isClosed), [true, false]);
    assertEquals(machine.told.length, 1);

    driver.do(() => void (machine.specs = [{ key: "late" }]));
    driver.close();
    await turn();
    assertEquals(runtime.sockets.map(({ isClosed }) => isClosed), [true, true, true]);
    assertEquals(machine.told.length, 1);
  });

  it("says nothing of one that could not be opened and is not wanted any more", async () => {
    const { runtime, machine, driver, list } = listing();
    runtime.openUdp = () => Promise.reject(new NatError("network", "no"));
    driver.do(() => void (machine.specs = [GATEWAY]));
    await list();
    driver.do(() => void (machine.specs = [GATEWAY]));
    driver.close();
    await turn();

    assertEquals(machine.told, []);
  });

  it("keeps one that lets the process end so", async () => {
    const { runtime, driver, list } = listing();
    await list(GATEWAY);
    driver.unref();
    await list(GATEWAY, { key: "later" });

    assertEquals(runtime.sockets.map(({ isRef }) => isRef), [false, false]);
    driver.ref();
    assertEquals(runtime.sockets.map(({ isRef }) => isRef), [true, true]);
  });
});

describe("Driver's beforeSend", () => {
  it("is called before each datagram is handed to its socket", async () => {
    const runtime = new FakeRuntime();
    const counts: number[] = [];
    const driver = new Driver<PingEvent, PingMachine>(
      runtime,
      () => {},
      undefined,
      () => counts.push(runtime.sockets[0]!.sent.length),
    );
    await driver.open({ key: "client", connect: PEER });
    driver.start(new PingMachine(PEER));
    driver.do((machine, now) => {
      machine.ping(1, now);
      machine.ping(2, now);
    });

    assertEquals(counts, [0, 1]);
  });

  it("is waited for where it returns a promise, by what comes after, too", async () => {
    const runtime = new FakeRuntime();
    const waits: (() => void)[] = [];
    const driver = new Driver<PingEvent, PingMachine>(
      runtime,
      () => {},
      undefined,
      () => waits.length === 0 && new Promise<void>((resolve) => waits.push(resolve)),
    );
    await driver.open({ key: "client", connect: PEER });
    driver.start(new PingMachine(PEER));
    driver.do((machine, now) => {
      machine.ping(1, now);
      machine.ping(2, now);
    });
    await turn();
    assertEquals(runtime.sockets[0]!.sent.length, 0);

    waits[0]!();
    await turn();
    driver.do((machine, now) => machine.ping(3, now));
    assertEquals(runtime.sockets[0]!.sent.map(({ data }) => data[0]), [1, 2, 3]);
  });

  it("lets 4096 datagrams wait, and drops what is more", async () => {
    const runtime = new FakeRuntime();
    let go = () => {};
    const gate = new Promise<void>((resolve) => go = resolve);
    const driver = new Driver<PingEvent, PingMachine>(runtime, () => {}, undefined, () => gate);
    await driver.open({ key: "client", connect: PEER });
    driver.start(new PingMachine(PEER));
    driver.do((machine, now) => {
      for (let i = 0; i < 4100; i++) machine.ping(i % 256, now);
    });
    go();
    const { sent } = runtime.sockets[0]!;
    for (let before = -1; before !== sent.length;) {
      before = sent.length;
      await turn();
    }
    assertEquals(sent.length, 4096);
  });

  it("lets nothing leave that waited when the driver was closed", async () => {
    const runtime = new FakeRuntime();
    let go = () => {};
    const driver = new Driver<PingEvent, PingMachine>(
      runtime,
      () => {},
      undefined,
      () => new Promise<void>((resolve) => go = resolve),
    );
    await driver.open({ key: "client", connect: PEER });
    driver.start(new PingMachine(PEER));
    driver.do((machine, now) => machine.ping(1, now));
    driver.close();
    go();
    await turn();
    assertEquals(runtime.sockets[0]!.sent.length, 0);
  });
});
