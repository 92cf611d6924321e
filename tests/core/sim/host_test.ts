/**
 * A host's ports and addresses: what it gives out, who gets what comes, by which way it sends.
 *
 * @module
 */
import { describe, it } from "node:test";
import { assert, assertEquals, assertThrows } from "@std/assert";
import { formatEndpoint } from "../../../core/ip.ts";
import { type Host, type SimSocket, World } from "../../../core/sim/mod.ts";

const RECEIVER = { receive: () => {}, unreachable: () => {} };

function lan(names: readonly string[]): { readonly world: World; readonly hosts: readonly Host[] } {
  const world = new World({ trace: { size: 100 } });
  const segment = world.segment("lan");
  const hosts = names.map((name, i) => {
    const host = world.host(name);
    host.attach(segment, [`10.0.0.${i + 1}`, `10.0.1.${i + 1}`]);
    return host;
  });
  return { world, hosts };
}

/** What a socket hears, as `sender byte`. */
function heardBy(...sockets: readonly SimSocket[]): string[] {
  const heard: string[] = [];
  for (const [i, socket] of sockets.entries()) {
    socket.onDatagram = (data, from) => heard.push(`${i} ${formatEndpoint(from)} ${data[0]}`);
  }
  return heard;
}

describe("a host's ports", () => {
  it("that nobody names are given out from 49152 on, one after the other, to the last", () => {
    const { hosts: [host] } = lan(["a"]);
    host!.bind({ port: 49_153 });
    assertEquals([host!.bind().port, host!.bind({ port: 0 }).port], [49_152, 49_154]);
    for (let port = 49_155; port <= 65_535; port++) host!.bind();
    assertThrows(() => host!.bind(), RangeError, "No ephemeral port is free on a");
    assertEquals(host!.bind({ port: 7 }).port, 7);
  });

  it("of TCP are given out in turn: after the last comes the first again", () => {
    const { hosts: [host] } = lan(["a"]);
    const take = () => {
      const taken = host!.bindTcp(undefined, 0, RECEIVER)!;
      taken.close();
      return taken.port;
    };
    const kept = host!.bindTcp(undefined, 49_153, RECEIVER);
    assertEquals([take(), take()], [49_152, 49_154]);
    for (let port = 49_155; port < 65_535; port++) take();
    assertEquals([take(), take()], [65_535, 49_152]);
    kept!.close();
    assertEquals(take(), 49_153);
  });

  it("of TCP are one's at an address, all addresses' where none is named, and free once closed", () => {
    const { hosts: [host] } = lan(["a"]);
    const bind = (address: string | undefined) => host!.bindTcp(address, 80, RECEIVER);
    const one = bind("10.0.0.1")!;
    assertEquals([one.port, bind("10.0.0.1"), bind(undefined)], [80, undefined, undefined]);
    const other = bind("10.0.1.1")!;
    assertEquals([host!.isBound("10.0.0.1", 80), host!.isBound("10.0.1.1", 80)], [true, true]);
    one.close();
    assertEquals([host!.isBound("10.0.0.1", 80), host!.isBound("10.0.1.1", 80)], [false, true]);
    other.close();
    const all = bind(undefined)!;
    assertEquals([bind("10.0.0.1"), host!.isBound("10.0.1.1", 80)], [undefined, true]);
    all.close();
    assertEquals(host!.isBound("10.0.1.1", 80), false);
  });

  it("are bound at the socket's address alone, or at all, until it is closed", () => {
    const { world, hosts: [a, b] } = lan(["a", "b"]);
    const one = b!.bind({ address: "10.0.0.2", port: 5 }), any = b!.bind({ port: 6 });
    const second = b!.bind({ address: "10.0.1.2", port: 5 });
    assertEquals(
      [["10.0.0.2", 5], ["10.0.1.2", 6], ["10.0.0.2", 7]].map(([address, port]) =>
        b!.isBound(address as string, port as number)
      ),
      [true, true, false],
    );
    const heard = heardBy(one, any, second);
    const socket = a!.bind({ port: 9 });
    const say = (address: string, port: number, byte: number) =>
      socket.send({ address, port }, Uint8Array.of(byte));
    say("10.0.0.2", 5, 1);
    say("10.0.1.2", 5, 2);
    say("10.0.1.2", 6, 3);
    world.runFor(10);
    one.close();
    say("10.0.0.2", 5, 4);
    say("10.0.1.2", 5, 5);
    one.send({ address: "10.0.0.1", port: 9 }, new Uint8Array(1));
    world.runFor(10);
    assertEquals(heard, [
      "0 10.0.0.1:9 1",
      "2 10.0.0.1:9 2",
      "1 10.0.0.1:9 3",
      "2 10.0.0.1:9 5",
    ]);
    assertEquals(b!.isBound("10.0.0.2", 5), false);
  });
});

describe("a host's addresses", () => {
  it("are the source of what it sends: the socket's, else the first one of the way's", () => {
    const { world, hosts: [a, b] } = lan(["a", "b"]);
    const heard = heardBy(b!.bind({ port: 5 }));
    const to = { address: "10.0.0.2", port: 5 };
    a!.bind({ port: 1 }).send(to, new Uint8Array(1));
    a!.bind({ address: "10.0.1.1", port: 2 }).send(to, new Uint8Array(1));
    world.runFor(10);
    assertEquals(heard, ["0 10.0.0.1:1 0", "0 10.0.1.1:2 0"]);
    assertEquals(a!.addressToward("10.0.0.2"), "10.0.0.1");
    assertEquals(a!.addressToward("198.51.100.1"), undefined);
  });

  it("reach itself without a link", () => {
    const { world, hosts: [a] } = lan(["a"]);
    const heard = heardBy(a!.bind({ port: 5 }));
    a!.bind({ port: 6 }).send({ address: "10.0.1.1", port: 5 }, Uint8Array.of(1));
    world.runFor(0);
    assertEquals(heard, ["0 10.0.0.1:6 1"]);
  });

  it("are found again where they have changed, by who had sent there before, too", () => {
    const { world, hosts: [a, b] } = lan(["a", "b"]);
    const heard = heardBy(b!.bind({ port: 5 }));
    const socket = a!.bind({ port: 6 });
    const say = (address: string) => {
      socket.send({ address, port: 5 }, new Uint8Array(1));
      world.runFor(10);
    };
    say("10.0.0.2");
    say("10.0.0.9");
    b!.changeAddress("10.0.0.2", "10.0.0.9");
    say("10.0.0.9");
    say("10.0.0.2");
    assertEquals(heard.length, 2);
    assert(world.trace.text().includes("no-route"));
  });

  it("by several interfaces lead out by the first that has a way, to the family's gateway", () => {
    const world = new World();
    const [left, right] = [world.segment("left"), world.segment("right")];
    const host = world.host("host"), gateways = [world.host("g1"), world.host("g2")];
    gateways[0]!.attach(left, ["10.0.0.254", "fe80::1"]);
    gateways[1]!.attach(right, ["10.1.0.254", "2001:db8::1"]);
    host.attach(left, ["10.0.0.1"]);
    host.attach(right, ["10.1.0.1", "2001:db8::2"], {
      gateway: "10.1.0.254",
      gateway6: "2001:db8::1",
    });
    assertEquals(
      ["198.51.100.1", "2001:db8:1::1", "10.0.0.254"].map((to) => host.addressToward(to)),
      ["10.1.0.1", "2001:db8::2", "10.0.0.1"],
    );
  });
});

describe("a host asleep", () => {
  it("wakes once, and has no more to do for a second wake", () => {
    const { world, hosts: [a, b] } = lan(["a", "b"]);
    const heard = heardBy(b!.bind({ port: 5 }));
    b!.resume();
    b!.suspend();
    assertEquals(b!.isSuspended, true);
    const socket = a!.bind({ port: 6 });
    socket.send({ address: "10.0.0.2", port: 5 }, Uint8Array.of(1));
    world.runFor(10);
    b!.resume();
    socket.send({ address: "10.0.0.2", port: 5 }, Uint8Array.of(2));
    world.runFor(10);
    assertEquals([heard, b!.isSuspended], [["0 10.0.0.1:6 2"], false]);
  });
});
