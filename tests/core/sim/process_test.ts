/**
 * A machine on a host: which of the sockets that it lists it gets, for how long, and what it hears
 * of them.
 *
 * @module
 */
import { describe, it } from "node:test";
import { assertEquals, assertThrows } from "@std/assert";
import type { Action, Endpoint, Instant, Machine, SocketSpec } from "../../../core/machine.ts";
import { type Host, type Process, SimulationError, World } from "../../../core/sim/mod.ts";

const OWN = "10.0.0.1", PEER = { address: "10.0.0.2", port: 9 };

/** Lists what it is told to, and writes down what it hears. */
class Lister implements Machine<string> {
  readonly stats = {};
  readonly heard: string[] = [];
  list: readonly SocketSpec[] = [];
  due: Instant | undefined;
  readonly out: Action<string>[] = [];

  sockets = () => this.list;
  handleSocket: NonNullable<Machine<string>["handleSocket"]> = (key, result) =>
    void this.heard.push(
      `${key}: ${
        result.ok
          ? `${result.local.address} ${result.local.port}`
          : `${result.code} ${result.message}${result.isOpen ? ", and is open" : ""}`
      }`,
    );
  handleDatagram(data: Uint8Array, { address }: Endpoint, socket: string): boolean {
    return this.heard.push(`${socket} ← ${address} ${data[0]}`) > 0;
  }
  handleUnreachable({ port }: Endpoint, socket: string): void {
    this.heard.push(`${socket} ✗ ${port}`);
  }
  handleTimeout(now: Instant): void {
    this.heard.push(`timeout ${now}`);
    this.due = undefined;
  }
  nextTimeout = () => this.due;
  debugTimeout = () => this.due === undefined ? undefined : { at: this.due, reason: "due" };
  poll = () => this.out.shift();
}

function run(list: readonly SocketSpec[] = []) {
  const world = new World();
  const segment = world.segment("lan");
  const [host, other] = ["one", "two"].map((name, i) => {
    const made = world.host(name);
    made.attach(segment, `10.0.0.${i + 1}`);
    return made;
  }) as [Host, Host];
  const machine = new Lister();
  machine.list = list;
  const process: Process<string, Lister> = host.run<string, Lister>(machine);
  const relist = (next: readonly SocketSpec[]) => process.do((one) => void (one.list = next));
  const heard = () => machine.heard.splice(0);
  return { world, host, other, machine, process, relist, heard };
}

describe("a machine's sockets", () => {
  it("of UDP are told where they are: where the way out begins, unless they name an address", () => {
    const { heard } = run([
      { key: "any" },
      { key: "zeros", local: { address: "0.0.0.0", port: 7 } },
      { key: "own", local: { address: OWN, port: 8 } },
      { key: "to", connect: PEER },
      { key: "group", local: { address: "224.0.0.1", port: 5350 }, group: "224.0.0.1" },
      { key: "foreign", local: { address: "10.0.0.7", port: 0 } },
      { key: "nowhere", connect: { address: "192.0.2.1", port: 1 } },
    ]);
    // Without a way out there is no address to tell of for those that lead anywhere.
    assertEquals(heard(), [
      `own: ${OWN} 8`,
      `to: ${OWN} 49153`,
      "group: 224.0.0.1 5350",
      "foreign: network Cannot bind to 10.0.0.7",
      "nowhere: network There is no way to 192.0.2.1",
    ]);
  });

  it("of HTTP and TCP are where they are listed, at a free port, or are told why not", () => {
    for (const kind of ["http", "tcp"] as const) {
      const on = kind === "http" ? "for HTTP " : "";
      const { heard, relist } = run([
        { key: "a", kind, local: { address: OWN, port: 80 } },
        { key: "b", kind, local: { address: OWN, port: 80 } },
        { key: "c", kind, local: { address: OWN, port: 0 } },
        { key: "d", kind, local: { address: "10.0.0.7", port: 81 } },
      ]);
      assertEquals(heard(), [
        `a: ${OWN} 80`,
        `b: network Cannot listen ${on}on ${OWN}, port 80`,
        `c: ${OWN} 49152`,
        `d: network Cannot listen ${on}on 10.0.0.7, port 81`,
      ]);
      relist([]);
      relist([{ key: "e", kind, local: { address: OWN, port: 80 } }]);
      assertEquals(heard(), [`e: ${OWN} 80`]);
    }
  });

  it("stay while they are listed, and are others where they are listed otherwise", () => {
    const spec = { key: "a", local: { address: OWN, port: 7 } };
    const { process, relist, heard } = run([spec]);
    const first = process.listed("a");
    relist([{ ...spec }]);
    assertEquals([process.listed("a") === first, heard()], [true, [`a: ${OWN} 7`]]);
    relist([{ ...spec, local: { address: OWN, port: 8 } }, { key: "b", local: spec.local }]);
    assertEquals(heard(), [`a: ${OWN} 8`, `b: ${OWN} 7`]);
    relist([{ key: "b", local: spec.local }]);
    assertEquals([process.listed("a"), process.listed("b")?.port, heard()], [undefined, 7, []]);
  });

  it("hear what comes to their address or their group, and nothing that is for another", () => {
    const group = "239.255.255.250";
    const { world, other, host, process, heard } = run([
      { key: "own", local: { address: OWN, port: 7 } },
      { key: "group", local: { address: group, port: 8 }, group },
      { key: "elsewhere", local: { address: "224.0.0.251", port: 9 }, group: "224.0.0.251" },
      { key: "to", connect: { ...PEER, port: 10 } },
      { key: "both", local: { address: "0.0.0.0", port: 11 }, group },
    ]);
    const to = process.listed("to")!.port;
    const second = "10.0.0.11";
    host.interfaces[0]!.addAddress(second);
    const socket = other.bind({ port: PEER.port });
    heard();
    const others = { own: [OWN, second], group: [group, OWN], two: [group, OWN, "224.0.0.251"] };
    const say = (addresses: readonly string[], port: number) => {
      for (const address of addresses) socket.send({ address, port }, Uint8Array.of(port));
    };
    say(others.own, 7);
    say(others.group, 8);
    say([group], 9);
    say([OWN], to);
    say(others.two, 11);
    world.runFor(10);
    const from = `← ${PEER.address}`;
    assertEquals(heard(), [
      `own ${from} 7`,
      `group ${from} 8`,
      `both ${from} 11`,
      `both ${from} 11`,
    ]);
  });

  it("hear by their key, and send by it, until they are closed", () => {
    const local = { address: OWN, port: 7 };
    const { world, other, machine, process, relist, heard } = run([{ key: "a", local }]);
    const socket = other.bind({ port: PEER.port });
    const got: string[] = [];
    socket.onDatagram = (data, from) => got.push(`${from.port} ${data[0]}`);
    const send = (to: Endpoint, byte: number) =>
      process.do((one) =>
        void one.out.push({ type: "send", socket: "a", to, data: Uint8Array.of(byte) })
      );
    heard();
    socket.send(local, Uint8Array.of(1));
    send(PEER, 2);
    send({ ...PEER, port: 10 }, 3);
    world.runFor(10);
    assertEquals([heard(), got], [[`a ← ${PEER.address} 1`, "a ✗ 10"], ["7 2"]]);
    // What it says in the very turn in which it lists it no more still leaves.
    machine.out.push({ type: "send", socket: "a", to: PEER, data: Uint8Array.of(4) });
    relist([]);
    send(PEER, 5);
    socket.send(local, Uint8Array.of(6));
    world.runFor(10);
    assertEquals([heard(), got], [[], ["7 2", "7 4"]]);
  });
});

describe("a machine that is stopped", () => {
  it("hears nothing more, neither datagrams nor its deadline, and its ports are free", () => {
    const local = { address: OWN, port: 7 };
    const specs = [{ key: "a", local }, { key: "b", kind: "tcp", local }] as const;
    const { world, host, other, machine, process, heard } = run(specs);
    machine.due = 50;
    process.do(() => {});
    heard();
    assertEquals([host.processes.length, host.isBound(OWN, 7)], [1, true]);
    process.stop();
    process.stop();
    assertEquals(world.nextAt(), undefined);
    other.bind().send(local, new Uint8Array(1));
    // A command is one of its caller's, and moves it no more.
    process.do((one) => void (one.due = 60));
    world.runFor(100);
    assertEquals([heard(), host.processes.length, host.isBound(OWN, 7)], [[], 0, false]);
  });
});

describe("a machine's deadline", () => {
  it("is kept to the millisecond, moved as it moves, and at once where it is past", () => {
    const { world, process, machine, heard } = run();
    const due = (at: Instant | undefined) => process.do((one) => void (one.due = at));
    due(50);
    due(70);
    world.runUntil(69);
    assertEquals(heard(), []);
    world.runUntil(70);
    assertEquals(heard(), ["timeout 70"]);
    due(20);
    world.runFor(0);
    assertEquals(heard(), ["timeout 70"]);
    due(80);
    due(undefined);
    world.runUntil(100);
    assertEquals([heard(), machine.due, world.nextAt()], [[], undefined, undefined]);
  });
});

it("a machine's owner is told each time that all it had to say has left", () => {
  const { world, host } = run();
  const machine = new Lister(), told: [at: Instant, left: number][] = [];
  machine.due = 5;
  machine.out.push({ type: "send", socket: "other", to: PEER, data: new Uint8Array(1) });
  host.run<string, Lister>(machine, {}, {
    onDrained: (at) => void told.push([at, machine.out.length]),
  });
  world.runFor(10);
  assertEquals(told, [[0, 0], [5, 0]]);
});

it("a machine whose output does not end is an error, with its name", () => {
  const { process, machine } = run();
  // To a role that has no socket: nothing is kept of it.
  machine.poll = () => ({ type: "send", socket: "other", to: PEER, data: new Uint8Array(1) });
  assertThrows(() => process.do(() => {}), SimulationError, "one: poll() does not come to an end");
});
