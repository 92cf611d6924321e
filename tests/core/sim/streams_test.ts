/**
 * TCP in the simulation: ports that dial and listen, simultaneous open, loss, resets.
 *
 * @module
 */
import { describe, it } from "node:test";
import { assert, assertEquals } from "@std/assert";
import type {
  Action,
  Endpoint,
  Machine,
  SocketResult,
  SocketSpec,
  StreamAction,
  StreamResult,
} from "../../../core/machine.ts";
import type { Process } from "../../../core/sim/process.ts";
import { type NatBoxOptions, World } from "../../../core/sim/world.ts";

/** Does what a test says, and writes down what it is told. */
class Station implements Machine<never> {
  readonly stats = {};
  readonly told: (readonly [id: number, happened: StreamResult])[] = [];
  readonly results: SocketResult[] = [];
  #sockets: readonly SocketSpec[] = [];
  readonly #out: Action<never>[] = [];

  listen(local?: Endpoint): void {
    this.#sockets = local ? [{ kind: "tcp", key: "tcp", local }] : [];
  }

  act(action: StreamAction): void {
    this.#out.push(action);
  }

  dial(id: number, to: Endpoint, local: Endpoint, timeoutMs = 60_000): void {
    this.act({ type: "stream", id, do: "connect", to, local, timeoutMs });
  }

  /** What it was told of a stream, in a word each. */
  words(id: number): string[] {
    return this.told.filter(([of]) => of === id).map(([, happened]) =>
      happened.type === "closed" ? happened.reason : happened.type
    );
  }

  bytes(id: number): number[] {
    return this.told.flatMap(([of, happened]) =>
      of === id && happened.type === "data" ? [...happened.data] : []
    );
  }

  sockets = () => this.#sockets;
  handleSocket = (_: string, result: SocketResult) => void this.results.push(result);
  handleStream(id: number, happened: StreamResult): void {
    this.told.push([
      id,
      happened.type === "data" ? { type: "data", data: happened.data.slice() } : happened,
    ]);
  }
  handleDatagram = () => false;
  handleUnreachable() {}
  handleTimeout() {}
  nextTimeout = () => undefined;
  debugTimeout = () => undefined;
  poll = () => this.#out.shift();
}

const AT_A: Endpoint = { address: "192.0.2.1", port: 4000 };
const AT_B: Endpoint = { address: "192.0.2.2", port: 5000 };

function pair(link: { delayMs?: number; loss?: number } = {}, seed = 1) {
  const world = new World({ seed });
  const segment = world.segment("net", { delayMs: 10, ...link });
  const hosts = [AT_A, AT_B].map(({ address }) => {
    const host = world.host(address);
    host.attach(segment, address);
    return host;
  });
  const [a, b] = hosts.map((host) => host.run<never, Station>(new Station())) as [
    Process<never, Station>,
    Process<never, Station>,
  ];
  return { world, segment, hosts, a, b };
}

describe("TCP in the simulation", () => {
  it("connects, carries bytes both ways, and tells the end", () => {
    const { world, a, b } = pair();
    b.do((it) => it.listen(AT_B));
    assertEquals(b.machine.results, [{ ok: true, local: AT_B }]);
    a.do((it) => it.dial(0, AT_B, AT_A));
    world.runFor(100);
    assertEquals(a.machine.told[0], [0, { type: "open", local: AT_A, peer: AT_B }]);
    const opened = { type: "open", local: AT_B, peer: AT_A, socket: "tcp" };
    assertEquals(b.machine.told[0], [-1, opened as StreamResult]);
    const big = Uint8Array.from({ length: 5000 }, (_, i) => i);
    a.do((it) => it.act({ type: "stream", id: 0, do: "write", data: big }));
    b.do((it) => it.act({ type: "stream", id: -1, do: "write", data: big.subarray(0, 3) }));
    world.runFor(100);
    assertEquals(b.machine.bytes(-1), [...big]);
    assertEquals(a.machine.bytes(0), [0, 1, 2]);
    a.do((it) => it.act({ type: "stream", id: 0, do: "close" }));
    world.runFor(100);
    assertEquals(b.machine.words(-1).at(-1), "ended");
    assertEquals(a.machine.words(0).filter((word) => word !== "data"), ["open"]);
    a.do((it) => it.dial(1, AT_B, AT_A));
    world.runFor(100);
    assertEquals(a.machine.words(1), ["open"], "the port is free for that peer again");
  });

  it("carries bytes whole and in order though a third is lost", () => {
    for (const seed of [1, 2, 3]) {
      const { world, a, b } = pair({ loss: 0.3 }, seed);
      b.do((it) => it.listen(AT_B));
      a.do((it) => it.dial(0, AT_B, AT_A));
      world.runFor(30_000);
      const big = Uint8Array.from({ length: 20_000 }, (_, i) => i * 7);
      a.do((it) => it.act({ type: "stream", id: 0, do: "write", data: big }));
      world.runFor(120_000);
      assertEquals(b.machine.bytes(-1), [...big]);
    }
  });

  it("makes one stream of two that meet", () => {
    const { world, a, b } = pair();
    a.do((it) => it.dial(7, AT_B, AT_A));
    b.do((it) => it.dial(8, AT_A, AT_B));
    world.runFor(500);
    assertEquals([a.machine.words(7), b.machine.words(8)], [["open"], ["open"]]);
    a.do((it) => it.act({ type: "stream", id: 7, do: "write", data: new Uint8Array([9]) }));
    world.runFor(100);
    assertEquals(b.machine.bytes(8), [9]);
  });

  it("refuses where nobody listens, and times out where nobody answers", () => {
    const { world, a } = pair();
    a.do((it) => it.dial(0, AT_B, AT_A));
    a.do((it) => it.dial(1, { address: "192.0.2.99", port: 1 }, AT_A, 3000));
    world.runFor(2900);
    assertEquals([a.machine.words(0), a.machine.words(1)], [["refused"], []]);
    world.runFor(200);
    assertEquals(a.machine.words(1), ["timeout"]);
  });

  it("dials from no address that the host has not", () => {
    const { world, a, b } = pair();
    b.do((it) => it.listen(AT_B));
    a.do((it) => it.dial(0, AT_B, { address: "192.0.2.9", port: 4000 }));
    assertEquals(a.machine.told, [[0, { type: "closed", reason: "failed" }]]);
    world.runFor(100);
    assertEquals(b.machine.told, []);
  });

  it("lets nobody dial from a port on which it listens, but listen where it dials", () => {
    const { world, a, b } = pair();
    b.do((it) => it.listen(AT_B));
    a.do((it) => it.listen(AT_A));
    a.do((it) => it.dial(0, AT_B, AT_A));
    assertEquals(a.machine.words(0), ["failed"]);
    a.do((it) => it.listen());
    a.do((it) => it.dial(1, AT_B, AT_A));
    a.do((it) => it.listen(AT_A));
    assertEquals(a.machine.results.at(-1), { ok: true, local: AT_A });
    world.runFor(100);
    assertEquals(a.machine.words(1), ["open"]);
    a.do((it) => it.dial(2, AT_B, { address: AT_A.address, port: 1 }));
    world.runFor(100);
    assertEquals(b.machine.words(-2), ["open"]);
  });

  it("goes through NATs that keep ports, where both dial", () => {
    const world = new World();
    const internet = world.segment("internet", { delayMs: 20 });
    const behaviour: Partial<NatBoxOptions> = { filtering: "address-and-port-dependent" };
    const stations = [1, 2].map((i) => {
      const lan = world.segment(`lan ${i}`);
      world.nat(`nat ${i}`, {
        ...behaviour,
        inside: [lan, `192.168.${i}.1`],
        outside: [internet, `203.0.113.${i}`],
      });
      const host = world.host(`host ${i}`);
      host.attach(lan, `192.168.${i}.2`, { gateway: `192.168.${i}.1` });
      return host.run<never, Station>(new Station());
    });
    const [a, b] = stations as [Process<never, Station>, Process<never, Station>];
    a.do((it) =>
      it.dial(0, { address: "203.0.113.2", port: 5000 }, { address: "192.168.1.2", port: 4000 })
    );
    world.runFor(500);
    assertEquals(a.machine.words(0), [], "its SYN is dropped, not refused");
    b.do((it) =>
      it.dial(0, { address: "203.0.113.1", port: 4000 }, { address: "192.168.2.2", port: 5000 })
    );
    world.runFor(200);
    assertEquals([a.machine.words(0), b.machine.words(0)], [["open"], ["open"]]);
  });

  it("hands a stream over with what is unread, and tells the machine nothing more", () => {
    const { world, a, b } = pair();
    b.do((it) => it.listen(AT_B));
    a.do((it) => it.dial(0, AT_B, AT_A));
    world.runFor(100);
    const unread = new Uint8Array([1, 2]);
    a.do((it) => it.act({ type: "stream", id: 0, do: "hand-over", unread }));
    b.do((it) => it.act({ type: "stream", id: -1, do: "write", data: new Uint8Array([3]) }));
    world.runFor(100);
    const stream = a.take(0)!;
    assertEquals([...stream.received], [1, 2, 3]);
    assertEquals([stream.local, stream.peer], [AT_A, AT_B]);
    stream.send(new Uint8Array([4]));
    b.do((it) => it.act({ type: "stream", id: -1, do: "close" }));
    world.runFor(100);
    assert(stream.hasEnded);
    assertEquals(a.machine.words(0), ["open"]);
    assertEquals(a.take(5), undefined);
  });

  /** Two that are connected, 0 at `a` and −1 at `b`. */
  function connected(): ReturnType<typeof pair> & { readonly setLoss: (loss: number) => void } {
    const net = pair();
    net.b.do((it) => it.listen(AT_B));
    net.a.do((it) => it.dial(0, AT_B, AT_A));
    net.world.runFor(100);
    return { ...net, setLoss: (loss) => net.segment.link.set({ loss }) };
  }

  it("says what got lost again after 1, 2, 4… s, and gives up 127 s after it was said", () => {
    const { world, a, b, segment, setLoss } = connected();
    setLoss(1);
    const from = world.now, before = segment.link.stats.offered;
    a.do((it) => it.act({ type: "stream", id: 0, do: "write", data: new Uint8Array([5]) }));
    const said = [0, 999, 1000, 2999, 3000, 6999, 7000, 14_999, 15_000, 30_999, 31_000, 62_999]
      .map((ms) => {
        world.runUntil(from + ms);
        return segment.link.stats.offered - before;
      });
    assertEquals(said, [1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6]);
    world.runUntil(from + 126_999);
    assertEquals([a.machine.words(0), segment.link.stats.offered - before], [["open"], 7]);
    world.runUntil(from + 127_000);
    assertEquals(a.machine.words(0), ["open", "failed"]);
    setLoss(0);
    // The end that heard nothing of it is told when it speaks.
    b.do((it) => it.act({ type: "stream", id: -1, do: "write", data: new Uint8Array([6]) }));
    world.runFor(100);
    assertEquals(b.machine.words(-1), ["open", "failed"]);
  });

  it("says things again after a second though its dial's time has long been over", () => {
    const { world, a, b, setLoss } = connected();
    const write = (byte: number) =>
      a.do((it) => it.act({ type: "stream", id: 0, do: "write", data: new Uint8Array([byte]) }));
    setLoss(1);
    write(1);
    world.runFor(40_000);
    setLoss(0);
    world.runFor(23_100);
    assertEquals(b.machine.bytes(-1), [1]);
    setLoss(1);
    write(2);
    world.runFor(500);
    setLoss(0);
    world.runFor(520);
    assertEquals([b.machine.bytes(-1), a.machine.words(0)], [[1, 2], ["open"]]);
  });

  it("says a dial that nobody answers again after 1, 2, 4… s", () => {
    const { world, a, segment } = pair({ loss: 1 });
    a.do((it) => it.dial(0, AT_B, AT_A));
    const said = [0, 999, 1000, 2999, 3000, 6999, 7000].map((ms) => {
      world.runUntil(ms);
      return segment.link.stats.offered;
    });
    assertEquals(said, [1, 1, 2, 2, 3, 3, 4]);
  });

  it("gives a dial up at its very time, and a closed one is answered by a reset", () => {
    const { world, a, b } = pair();
    const nobody = { address: "192.0.2.99", port: 1 };
    a.do((it) => it.dial(0, nobody, AT_A, 3500));
    world.runUntil(3499);
    assertEquals(a.machine.words(0), []);
    world.runUntil(3500);
    assertEquals(a.machine.words(0), ["timeout"]);
    b.do((it) => it.listen(AT_B));
    a.do((it) => it.dial(1, AT_B, AT_A));
    a.do((it) => it.act({ type: "stream", id: 1, do: "close" }));
    world.runFor(100);
    assertEquals([a.machine.words(1), b.machine.words(-1)], [[], ["failed"]]);
    assertEquals(world.nextAt(), undefined, "nothing is left to be said");
  });

  it("fails where the other end's program was killed", () => {
    const { world, a, b } = connected();
    b.stop();
    a.do((it) => it.act({ type: "stream", id: 0, do: "write", data: new Uint8Array([1]) }));
    world.runFor(100);
    assertEquals(a.machine.words(0), ["open", "failed"]);
    b.machine.told.length = 0;
    world.runFor(200_000);
    assertEquals(b.machine.told, [], "and the killed one hears nothing");
  });

  it("tells who has taken a stream over that it was reset, and the machine no more", () => {
    const { world, a, b } = connected();
    a.do((it) => it.act({ type: "stream", id: 0, do: "hand-over", unread: new Uint8Array(0) }));
    const stream = a.take(0)!;
    b.stop();
    stream.send(new Uint8Array([1]));
    assertEquals(stream.hasEnded, false);
    world.runFor(100);
    assertEquals([stream.hasEnded, a.machine.words(0)], [true, ["open"]]);
  });

  it("gives a port back once nothing uses it: another program of the host may have it then", () => {
    const { world, a, b, hosts: [host] } = connected();
    const other = host!.run<never, Station>(new Station());
    const takes = (): boolean | undefined => {
      other.do((it) => it.listen(AT_A));
      const { ok } = other.machine.results.at(-1)!;
      other.do((it) => it.listen());
      return ok;
    };
    a.do((it) => it.dial(1, { ...AT_B, port: 1 }, AT_A));
    world.runFor(100);
    assertEquals([a.machine.words(1), takes()], [["refused"], false], "one is still connected");
    for (const [end, id] of [[a, 0], [b, -1]] as const) {
      end.do((it) => it.act({ type: "stream", id, do: "close" }));
    }
    world.runFor(100);
    assertEquals(takes(), true);
  });

  it("keeps what was accepted when it listens no longer, and accepts no more", () => {
    const { world, a, b } = connected();
    b.do((it) => it.listen());
    a.do((it) => it.act({ type: "stream", id: 0, do: "write", data: new Uint8Array([1]) }));
    a.do((it) => it.dial(1, AT_B, { ...AT_A, port: 1 }));
    world.runFor(100);
    assertEquals([b.machine.bytes(-1), a.machine.words(1)], [[1], ["refused"]]);
  });

  it("waits with all that is due while its host sleeps", () => {
    const { world, a, hosts } = pair();
    a.do((it) => it.dial(0, { address: "192.0.2.99", port: 1 }, AT_A, 3000));
    hosts[0]!.suspend();
    world.runFor(10_000);
    assertEquals(a.machine.words(0), []);
    hosts[0]!.resume();
    world.step();
    assertEquals([a.machine.words(0), world.now], [["timeout"], 10_000]);
  });
});
