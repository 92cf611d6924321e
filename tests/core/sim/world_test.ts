import { describe, it } from "node:test";
import { assert, assertEquals, assertThrows } from "@std/assert";
import type {
  Action,
  DebugTimeout,
  Endpoint,
  Instant,
  Machine,
  SocketSpec,
} from "../../../core/machine.ts";
import { type RandomSource, uniform } from "../../../core/random.ts";
import { type LinkOptions, SimulationError, World } from "../../../core/sim/mod.ts";

/** Sends to its peer at random moments and echoes what it hears until it is a hundred hops old. */
class Chatter implements Machine<string> {
  readonly stats: Record<string, number> = { heard: 0, unreachable: 0 };
  calls: [string, Instant][] = [];
  #out: Action<string>[] = [];
  #next: Instant;
  #random: RandomSource;
  #peer: Endpoint;

  constructor(peer: Endpoint, random: RandomSource) {
    this.#peer = peer;
    this.#random = random;
    this.#next = uniform(random, 0, 100);
  }

  handleDatagram(data: Uint8Array, from: Endpoint, _socket: string, now: Instant): boolean {
    this.stats.heard!++;
    if (data[0]! < 100) this.#send(from, Uint8Array.of(data[0]! + 1));
    else this.#out.push({ type: "event", event: `done at ${now.toFixed(3)}` });
    return true;
  }

  handleUnreachable(to: Endpoint): void {
    this.stats.unreachable!++;
    this.#out.push({ type: "event", event: `unreachable ${to.address}` });
  }

  handleTimeout(now: Instant): void {
    this.calls.push(["timeout", now]);
    if (now < this.#next) return;
    this.#next = now + uniform(this.#random, 0, 1000);
    this.#send(this.#peer, Uint8Array.of(1));
  }

  nextTimeout(): Instant {
    return this.#next;
  }

  poll(): Action<string> | undefined {
    return this.#out.shift();
  }

  debugTimeout(): DebugTimeout {
    return { at: this.#next, reason: "chat" };
  }

  #send(to: Endpoint, data: Uint8Array): void {
    this.#out.push({ type: "send", socket: "client", to, data });
  }
}

const A = { address: "192.168.1.2", port: 7000 };
const B = { address: "192.168.1.3", port: 7000 };

function chat(seed: number, link: LinkOptions = {}) {
  const world = new World({ seed, trace: { size: 5000 } });
  const lan = world.segment("lan", link);
  const [a, b] = [world.host("a"), world.host("b")];
  a.attach(lan, A.address);
  b.attach(lan, B.address);
  const processes = [
    a.run(new Chatter(B, world.fork()), { client: { port: 7000 } }),
    b.run(new Chatter(A, world.fork()), { client: { port: 7000 } }),
  ] as const;
  return { world, lan, a, b, processes };
}

const ROUGH: LinkOptions = { delayMs: 5, jitterMs: 20, loss: 0.05, duplicate: 0.05, reorder: 0.1 };

describe("World", () => {
  it("the same seed gives the same trace, another seed another", () => {
    const run = (seed: number) => {
      const { world } = chat(seed, ROUGH);
      world.runFor(20_000);
      assert(world.stats.packets > 500);
      return world.trace.text();
    };
    assertEquals(run(42), run(42));
    assert(run(42) !== run(43));
  });

  it("runUntil stops at its time, events at that very time included", () => {
    const world = new World({ start: 100 });
    const done: number[] = [];
    for (const at of [150, 200, 201]) world.at(at, () => done.push(world.now));
    world.runUntil(200);
    assertEquals([done, world.now], [[150, 200], 200]);
    world.runFor(10);
    assertEquals([done, world.now], [[150, 200, 201], 210]);
    assertEquals(world.step(), false);
  });

  it("what was set for the past happens in the next step, and time does not go back", () => {
    const world = new World({ start: 100 });
    world.at(50, () => assertEquals(world.now, 100));
    assert(world.step());
  });

  it("the trace tells each packet's way over a link: from whom, to whom, and when it is there", () => {
    const { world, lan, b } = chat(1, { delayMs: 5 });
    const ways = () =>
      world.trace.entries().flatMap((entry) => "packet" in entry ? [entry.crossing] : []);
    const socket = b.bind({ port: 9 });
    const send = () => socket.send({ address: A.address, port: 7000 }, new Uint8Array(1));
    world.runFor(50);
    const before = ways().length;
    for (const change of [{}, { loss: 1 }, { loss: 0, duplicate: 1 }]) {
      lan.link.set(change);
      send();
    }

    const at = world.now + 5;
    assertEquals(ways().slice(before), [
      { from: "b", to: "a", arrivals: [at] },
      { from: "b", to: "a", arrivals: [] },
      { from: "b", to: "a", arrivals: [at, at] },
    ]);
  });

  it("a machine is called at its deadline and not before", () => {
    const { world, processes } = chat(1, { loss: 1 });
    world.runFor(10_000);
    const { calls } = processes[0].machine;
    assert(calls.length > 10);
    const times = calls.map(([, at]) => at);
    assertEquals(new Set(times).size, times.length, "no deadline is handled twice");
  });

  it("events are kept with their time, or handed on", () => {
    const { world, processes } = chat(1);
    world.runFor(5000);
    const events = processes[0].takeEvents().concat(processes[1].takeEvents());
    assert(events.length > 0);
    for (const { at, event } of events) assertEquals(event, `done at ${at.toFixed(3)}`);
    assertEquals(processes[0].events, []);
  });

  it("ICMP port unreachable reaches the machine, unless the host keeps silent", () => {
    for (const sendsUnreachable of [true, false]) {
      const { world, b, processes } = chat(1);
      processes[1].stop();
      b.sendsUnreachable = sendsUnreachable;
      world.runFor(3000);
      assertEquals(processes[0].machine.stats.unreachable! > 0, sendsUnreachable);
    }
  });

  it("a suspended host hears nothing; its timers are due once when it wakes", () => {
    const { world, b, processes } = chat(3, { delayMs: 1 });
    b.suspend();
    world.runFor(60_000);
    assertEquals(processes[1].machine.stats.heard, 0);
    assertEquals(processes[1].machine.calls, []);
    assert(world.trace.text().includes("asleep"));
    b.resume();
    world.step();
    assertEquals(processes[1].machine.calls, [["timeout", 60_000]]);
    world.runFor(1000);
    assert(processes[1].machine.stats.heard! > 0);
  });

  it("a changed address leads to the host, the old one nowhere", () => {
    const { world, lan, b, processes } = chat(3);
    b.changeAddress(B.address, "192.168.1.9");
    assertEquals(lan.lookup(B.address), undefined);
    world.runFor(3000);
    assert(world.trace.text().includes("192.168.1.2:7000 → 192.168.1.3:7000"));
    assert(world.trace.text().includes("no-route"));
    assert(processes[0].machine.stats.heard! > 0, "the socket bound to any address follows");
    assertThrows(() => b.changeAddress(B.address, "192.168.1.10"), TypeError, "192.168.1.3");
    assertThrows(() => b.changeAddress("192.168.1.9", A.address), TypeError, "taken");
  });

  it("a host that leaves a segment is not found there, and may come to another one", () => {
    const world = new World();
    const home = world.segment("home"), cafe = world.segment("cafe");
    const router = world.host("router"), other = world.host("other"), laptop = world.host("laptop");
    router.attach(home, "192.168.1.1");
    other.attach(cafe, "192.168.1.1");
    const heard: string[] = [];
    const socket = laptop.bind({ port: 7 });
    socket.onDatagram = (data) => heard.push(`${data[0]}`);
    const there = laptop.attach(home, "192.168.1.2");
    const to = { address: "192.168.1.2", port: 7 };
    router.bind().send(to, Uint8Array.of(1));
    world.runFor(10);
    // What is on its way when it leaves is lost.
    router.bind().send(to, Uint8Array.of(2));
    laptop.detach(there);
    laptop.detach(there);
    laptop.attach(cafe, "192.168.1.2");
    router.bind().send(to, Uint8Array.of(3));
    other.bind().send(to, Uint8Array.of(4));
    world.runFor(10);
    assertEquals([heard, home.lookup("192.168.1.2")], [["1", "4"], undefined]);
  });

  it("a listed socket that cannot be had is told, with the reason", () => {
    const world = new World();
    const host = world.host("host");
    host.attach(world.segment("lan"), "192.168.1.2");
    const told: string[] = [];
    const run = (spec: Omit<SocketSpec, "key">) =>
      host.run<unknown, Machine<unknown>>({
        stats: {},
        sockets: () => [{ key: "it", ...spec }],
        handleDatagram: () => false,
        handleUnreachable: () => {},
        handleSocket: (_key, result) => {
          told.push(result.ok ? `open at ${result.local.address}` : result.message);
        },
        handleTimeout: () => {},
        nextTimeout: () => undefined,
        debugTimeout: () => undefined,
        poll: () => undefined,
      }, {}).stop();
    const connect = { address: "192.168.1.1", port: 5351 };
    run({ connect });
    run({ connect, local: { address: "192.168.1.3", port: 0 } });
    run({ local: { address: "192.168.1.2", port: 0 } });
    assertEquals(told, [
      "There is no way to 192.168.1.1",
      "Cannot bind to 192.168.1.3",
      "open at 192.168.1.2",
    ]);
  });

  it("sockets that are listed once another one is open are opened in the same turn", () => {
    const world = new World();
    const host = world.host("host");
    const local = { address: "192.168.1.2", port: 0 };
    host.attach(world.segment("lan"), local.address);
    const open: string[] = [];
    const process = host.run<unknown, Machine<unknown>>({
      stats: {},
      sockets: () => ["first", ...open].slice(0, 3).map((key) => ({ key, local })),
      handleDatagram: () => false,
      handleUnreachable: () => {},
      handleSocket: (key) => void open.push(`after ${key}`),
      handleTimeout: () => {},
      nextTimeout: () => undefined,
      debugTimeout: () => undefined,
      poll: () => undefined,
    }, {});
    assertEquals(open, ["after first", "after after first", "after after after first"]);
    assert(process.listed("after after first"));
  });

  it("driveBounded runs until nothing is pending, until it is done, or throws with the trace", () => {
    const world = new World();
    world.after(5, () => {});
    world.driveBounded(10);
    assertEquals(world.now, 5);
    const { world: busy, processes } = chat(1);
    busy.driveBounded(10_000, () => processes[0].machine.stats.heard! >= 10);
    assertEquals(processes[0].machine.stats.heard, 10);
    const error = assertThrows(() => busy.driveBounded(1000), SimulationError);
    assert(error.message.includes("Not done after 1000 steps (seed 1)"));
    assert(error.message.includes("192.168.1.2:7000 → 192.168.1.3:7000"));
    assertThrows(() => new World().driveBounded(5, () => false), SimulationError, "pending");
  });

  it("a livelock is an error, not a hang", () => {
    const world = new World({ maxStepsPerInstant: 50 });
    const again = () => world.after(0, again);
    again();
    assertThrows(() => world.runFor(1), SimulationError, "livelock");
    const other = new World({ maxStepsPerInstant: 50 });
    const host = other.host("h");
    const stuck = new Chatter(A, other.fork());
    stuck.nextTimeout = () => 0;
    stuck.handleTimeout = () => {};
    host.run(stuck, { client: {} });
    assertThrows(() => other.runFor(1), SimulationError, "livelock");
  });

  it("as many steps as it may make in one instant are none of a livelock, one more is", () => {
    for (const [steps, isTooMany] of [[5, false], [6, true]] as const) {
      const world = new World({ maxStepsPerInstant: 5, start: 10 });
      for (let i = 0; i < steps; i++) world.at(10, () => {});
      if (isTooMany) {
        assertThrows(() => world.runFor(0), SimulationError, "from 10 ms");
        continue;
      }
      world.runFor(0);
      world.after(1, () => {});
      world.runFor(1);
      assertEquals(world.now, 11);
    }
    assertThrows(() => new World({ maxStepsPerInstant: 0 }), RangeError, "'maxStepsPerInstant'");
  });

  it("an error shows the last forty lines of the trace, and none where there is none", () => {
    for (const size of [0, 30, 40, 41]) {
      const world = new World({ trace: { size }, seed: 9 });
      for (let i = 1; i <= 50; i++) world.note(`line ${i}`);
      const { message } = assertThrows(() => world.driveBounded(0, () => false), SimulationError);
      const [first, ...lines] = message.split("\n");
      assertEquals(first, "Not done after 0 steps (seed 9)");
      assertEquals(lines.length, Math.min(size, 40));
      if (size > 0) assert(lines.at(-1)!.endsWith("-- line 50"));
    }
  });

  it("what was to arrive comes before what is due at the same time", () => {
    const { world, processes, b } = chat(1, { delayMs: 5 });
    const order: string[] = [];
    const { machine } = processes[0];
    machine.nextTimeout = () => 5;
    machine.debugTimeout = () => ({ at: 5, reason: "chat" });
    machine.handleTimeout = () => (order.push("due"), machine.nextTimeout = () => 50);
    machine.handleDatagram = () => order.push("arrival") > 0;
    processes[0].do(() => {});
    b.bind({ port: 9 }).send(A, Uint8Array.of(100));
    world.runUntil(5);
    assertEquals(order, ["arrival", "due"]);
    assertEquals(world.stats.packets, 1);
  });

  it("forks are other sources each time, the same for the same seed, never the world's own", () => {
    const drawn = (seed: number) => {
      const world = new World({ seed });
      return [world.random, world.fork(), world.fork()].map((source) => source.u32());
    };
    assertEquals(drawn(5), drawn(5));
    assertEquals(new Set([...drawn(5), ...drawn(6)]).size, 6);
  });

  it("a NAT's interfaces show their zones, and its gateway is of its address's family", () => {
    const world = new World();
    const inside = world.segment("in"), outside = world.segment("out");
    const made = (gateway: string, own: string) => {
      const nat = world.nat("nat", { inside: [inside, own], outside: [outside, own], gateway });
      return [nat.inside.zone, nat.outside.zone, nat.inside.gateways, nat.outside.gateways];
    };
    const none = [undefined, undefined];
    assertEquals(made("10.0.0.9", "10.0.0.1"), ["lan0", "wan0", none, ["10.0.0.9", undefined]]);
    assertEquals(made("2001:db8::9", "2001:db8::1"), [
      "lan0",
      "wan0",
      none,
      [undefined, "2001:db8::9"],
    ]);
  });

  it("a machine that sends by a role without a socket is an error", () => {
    const world = new World();
    world.host("h").run(new Chatter(A, world.fork()), {});
    assertThrows(() => world.runFor(1000), SimulationError, 'no socket for role "client"');
  });

  it("a virtual day of a quiet machine passes in no time", () => {
    const world = new World();
    let ticks = 0;
    const tick = () => (ticks++, world.after(1000, tick));
    tick();
    world.runFor(86_400_000);
    assertEquals(ticks, 86_401);
  });
});

describe("Host", () => {
  it("connected sockets take their peer's datagrams alone", () => {
    const world = new World({ trace: { size: 100 } });
    const lan = world.segment("lan");
    const [a, b, c] = ["a", "b", "c"].map((name, i) => {
      const host = world.host(name);
      host.attach(lan, `10.0.0.${i + 1}`);
      return host;
    });
    const heard: string[] = [];
    const socket = a!.bind({ port: 1, connect: { address: "10.0.0.2", port: 5 } });
    socket.onDatagram = (_, from) => heard.push(from.address);
    const to = { address: "10.0.0.1", port: 1 };
    b!.bind({ port: 5 }).send(to, new Uint8Array(1));
    c!.bind({ port: 5 }).send(to, new Uint8Array(1));
    b!.bind({ port: 6 }).send(to, new Uint8Array(1));
    world.runFor(10);
    assertEquals(heard, ["10.0.0.2"]);
    assert(world.trace.text().includes("not-peer"));
  });

  it("a socket bound to the address goes before one bound to any", () => {
    const world = new World();
    const host = world.host("a");
    host.attach(world.segment("lan"), ["10.0.0.1", "10.0.0.2"]);
    const heard: string[] = [];
    host.bind({ port: 1 }).onDatagram = () => heard.push("any");
    host.bind({ port: 1, address: "10.0.0.2" }).onDatagram = () => heard.push("two");
    const sender = host.bind();
    sender.send({ address: "10.0.0.1", port: 1 }, new Uint8Array(1));
    sender.send({ address: "10.0.0.2", port: 1 }, new Uint8Array(1));
    world.runFor(1);
    assertEquals(heard, ["any", "two"]);
  });

  it("IPv6 link-local neighbours appear with the zone, and are reached by it", () => {
    const world = new World();
    const lan = world.segment("lan");
    const [a, b] = [world.host("a"), world.host("b")];
    a.attach(lan, ["2001:db8::1", "fe80::1"], { zone: "en0" });
    b.attach(lan, ["fe80::2", "2001:db8::2"], { zone: "wlan0" });
    const heard: string[] = [];
    const one = a.bind({ port: 1 }), two = b.bind({ port: 2 });
    two.onDatagram = (data, from) => {
      heard.push(`b ${from.address}`);
      if (data.length === 1) two.send(from, new Uint8Array(2));
    };
    one.onDatagram = (_, from) => heard.push(`a ${from.address}`);
    one.send({ address: "fe80::2%en0", port: 2 }, new Uint8Array(1));
    one.send({ address: "2001:db8::2", port: 2 }, new Uint8Array(2));
    one.send({ address: "fe80::2%eth7", port: 2 }, new Uint8Array(1));
    world.runFor(10);
    assertEquals(heard, ["b fe80::1%wlan0", "b 2001:db8::1", "a fe80::2%en0"]);
  });

  it("multicasts reach members on the segment, not their sender", () => {
    const world = new World();
    const lan = world.segment("lan"), other = world.segment("other");
    const heard: string[] = [];
    const hosts = ["a", "b", "c"].map((name, i) => {
      const host = world.host(name);
      host.attach(i === 2 ? other : lan, [`10.0.0.${i + 1}`, `fe80::${i + 1}`]);
      for (const [port, groups] of [[5350, []], [1900, ["239.255.255.250"]]] as const) {
        host.bind({ port, groups }).onDatagram = (_, from) =>
          heard.push(`${name}:${port} ${from.address}`);
      }
      return host;
    });
    const socket = hosts[0]!.bind();
    for (const address of ["224.0.0.1", "ff02::1"]) {
      socket.send({ address, port: 5350 }, new Uint8Array(1));
    }
    socket.send({ address: "239.255.255.250", port: 1900 }, new Uint8Array(1));
    socket.send({ address: "239.255.255.251", port: 1900 }, new Uint8Array(1));
    world.runFor(10);
    assertEquals(heard, ["b:5350 10.0.0.1", "b:5350 fe80::1%eth0", "b:1900 10.0.0.1"]);
  });

  it("multicasts reach nobody who has left the segment, first there or last", () => {
    const world = new World();
    const lan = world.segment("lan");
    const heard: string[] = [];
    const members = ["a", "b", "c"].map((name, i) => {
      const host = world.host(name);
      host.bind({ port: 5350 }).onDatagram = () => heard.push(name);
      return { host, attached: host.attach(lan, `10.0.0.${i + 1}`) };
    });
    const router = world.host("router");
    router.attach(lan, "10.0.0.9");
    const socket = router.bind();
    for (const { host, attached } of members) {
      socket.send({ address: "224.0.0.1", port: 5350 }, new Uint8Array(1));
      world.runFor(10);
      host.detach(attached);
    }
    socket.send({ address: "224.0.0.1", port: 5350 }, new Uint8Array(1));
    world.runFor(10);
    assertEquals(heard.join(" "), "a b c b c c");
  });

  it("TCP to a port where nobody listens is reset, and a reset is answered by nothing", () => {
    const world = new World({ trace: { size: 100 } });
    const lan = world.segment("lan");
    const [a, b] = [world.host("a"), world.host("b")];
    a.attach(lan, "10.0.0.1");
    b.attach(lan, "10.0.0.2");
    for (const [kind, packets] of [["syn", 2], ["rst", 1]] as const) {
      const before = world.trace.pcap("lan").length;
      a.sendPacket({
        protocol: "tcp",
        from: { address: "10.0.0.1", port: 1000 },
        to: { address: "10.0.0.2", port: 80 },
        data: new Uint8Array(0),
        hops: 64,
        segment: { kind, part: 0, parts: 0 },
      });
      world.runFor(100);
      assertEquals(world.trace.pcap("lan").length - before, packets * (16 + 40), kind);
    }
  });

  it("an interface's own link takes the segment's place for what is sent there", () => {
    const world = new World();
    const lan = world.segment("lan", { delayMs: 1 });
    const [a, b] = [world.host("a"), world.host("b")];
    a.attach(lan, "10.0.0.1", { link: { delayMs: 100 } });
    b.attach(lan, "10.0.0.2");
    const times: number[] = [];
    const echo = b.bind({ port: 2 });
    echo.onDatagram = (data, from) => (times.push(world.now), echo.send(from, data));
    const socket = a.bind();
    socket.onDatagram = () => times.push(world.now);
    socket.send({ address: "10.0.0.2", port: 2 }, new Uint8Array(1));
    world.runFor(1000);
    assertEquals(times, [100, 101]);
  });
});
