/**
 * The TCP punch between NATs of every kind, in virtual time and over the simulation's TCP; and what
 * it believes.
 *
 * @module
 */
import { describe, it } from "node:test";
import { assert, assertEquals, assertNotEquals, assertThrows } from "@std/assert";
import { putU16 } from "../../../core/bytes.ts";
import { type Candidate, candidatePriority } from "../../../core/ice/candidate.ts";
import { TcpPunch, type TcpPunchEvent, type TcpPunchOptions } from "../../../core/ice/tcp.ts";
import {
  createRendezvous,
  formatTicket,
  parseTicket,
  type PublicRendezvous,
  TicketError,
} from "../../../core/ice/ticket.ts";
import type { Action, Endpoint, StreamAction } from "../../../core/machine.ts";
import { seededRandom } from "../../../core/random.ts";
import type { Process } from "../../../core/sim/process.ts";
import { World } from "../../../core/sim/world.ts";
import {
  decodeStun,
  encodeStun,
  type StunAttributes,
  type StunMessage,
} from "../../../core/stun/codec.ts";
import { shortTermKey } from "../../../core/stun/integrity.ts";
import { StunServer } from "../../../core/stun/server.ts";
import { drain, timed } from "../machine_case.ts";
import { type NatBehaviour, SERVER } from "./rig.ts";

const KEEPING: NatBehaviour = {
  mapping: "endpoint-independent",
  filtering: "address-and-port-dependent",
  ports: "preserving",
};
const MOVING: NatBehaviour = { ...KEEPING, ports: "random" };
const RESETTING: NatBehaviour = { ...KEEPING, rejects: true };
const OPEN: NatBehaviour = { ...MOVING, filtering: "endpoint-independent" };
const HARD: NatBehaviour = { ...MOVING, mapping: "address-and-port-dependent" };

const SERVERS: readonly Endpoint[] = [
  { address: SERVER.addresses[0], port: SERVER.ports[0] },
  { address: SERVER.addresses[1], port: SERVER.ports[1] },
];

interface Setting {
  readonly seed?: number;
  readonly nats?: readonly [NatBehaviour | undefined, NatBehaviour | undefined];
  readonly shared?: boolean;
  readonly loss?: number;
  readonly agents?: readonly [Partial<TcpPunchOptions>, Partial<TcpPunchOptions>];
}

/** Two peers, gathered. */
class Scene {
  readonly world: World;
  readonly peers: readonly Process<TcpPunchEvent, TcpPunch>[];

  constructor({ seed = 1, nats = [undefined, undefined], shared, loss = 0, agents }: Setting = {}) {
    this.world = new World({ seed });
    const internet = this.world.segment("internet", { delayMs: 20, loss });
    const stun = this.world.host("stun");
    stun.attach(internet, [...SERVER.addresses]);
    stun.run(new StunServer({ listen: SERVERS[0]!, alternate: SERVERS[1]! }));
    const lan = this.world.segment("lan");
    if (shared) {
      this.world.nat("nat", {
        ...KEEPING,
        hairpin: "none",
        inside: [lan, "192.168.0.1"],
        outside: [internet, "203.0.113.1"],
      });
    }
    this.peers = [0, 1].map((i) => {
      const host = this.world.host("ab"[i]!);
      const behaviour = nats[i];
      let address = `203.0.113.${11 + i}`;
      if (shared) {
        address = `192.168.0.${2 + i}`;
        host.attach(lan, address, { gateway: "192.168.0.1" });
      } else if (behaviour) {
        const own = this.world.segment(`lan ${i}`, { delayMs: 0 });
        address = `192.168.${1 + i}.2`;
        this.world.nat(`nat ${i}`, {
          ...behaviour,
          inside: [own, `192.168.${1 + i}.1`],
          outside: [internet, `203.0.113.${1 + i}`],
        });
        host.attach(own, address, { gateway: `192.168.${1 + i}.1` });
      } else host.attach(internet, address);
      const punch = new TcpPunch({
        random: seededRandom(seed * 1000 + i),
        hosts: [address],
        servers: SERVERS,
        ...agents?.[i],
      });
      return host.run<TcpPunchEvent, TcpPunch>(punch);
    });
    for (const peer of this.peers) peer.do((punch, now) => punch.gather(now));
    this.world.runFor(5000);
  }

  exchange(skewMs = 0): void {
    const tickets = this.peers.map(({ machine }) => formatTicket(machine.rendezvous));
    this.peers[0]!.do((punch, now) => punch.setRemote(parseTicket(tickets[1]!), now));
    this.world.runFor(skewMs);
    this.peers[1]!.do((punch, now) => punch.setRemote(parseTicket(tickets[0]!), now));
  }

  settle(ms = 60_000): void {
    const until = this.world.now + ms;
    const isOver = () =>
      this.peers.every(({ events }) => events.some(({ event }) => event.type !== "gathered"));
    while (!isOver() && this.world.now < until && this.world.step());
  }

  last<T extends TcpPunchEvent["type"]>(type: T): (TcpPunchEvent & { type: T } | undefined)[] {
    return this.peers.map(({ events }) =>
      events.map(({ event }) => event).findLast((event) => event.type === type)
    ) as (TcpPunchEvent & { type: T } | undefined)[];
  }
}

/** One connection, the same at both ends, that carries bytes both ways. */
function assertConnected(scene: Scene, what = ""): void {
  const [a, b] = scene.last("connected");
  if (!a || !b) throw new Error(`${what} ${JSON.stringify(scene.last("failed"))}`);
  assertEquals([a.mapped, b.mapped], [b.remote, a.remote]);
  const [left, right] = [a, b].map(({ stream }, i) => scene.peers[i]!.take(stream)!);
  const text = (n: number) => new TextEncoder().encode(`${"0123456789".repeat(500)}${n}`);
  left!.send(text(1));
  right!.send(text(2));
  scene.world.runFor(10_000);
  assertEquals(left!.received, text(2), what);
  assertEquals(right!.received, text(1), what);
  assertEquals(scene.peers.map(({ machine }) => machine.sockets()), [[], []]);
  assertEquals(scene.peers.map(({ machine }) => machine.nextTimeout()), [undefined, undefined]);
}

/** The controlling peer, that dials two endpoints of the other's ticket. */
function dialsTwo(): { readonly bench: Bench; readonly one: number; readonly other: number } {
  const bench = new Bench({ role: "controlling" }, [
    candidate(PEER),
    candidate({ ...PEER, port: 9 }),
  ]);
  bench.punch.setRemote(bench.peer, bench.now);
  const [one, other] = bench.take("connect").map(({ id }) => id);
  return { bench, one: one!, other: other! };
}

describe("two natkits meet over TCP", () => {
  const kinds = { none: undefined, keeping: KEEPING, moving: MOVING, open: OPEN };
  for (const [nameA, a] of Object.entries(kinds)) {
    it(`through easy NATs: ${nameA} and each`, () => {
      for (const [nameB, b] of Object.entries(kinds)) {
        for (const skewMs of [0, 700]) {
          const scene = new Scene({ nats: [a, b] });
          scene.exchange(skewMs);
          const since = scene.world.now;
          scene.settle();
          const what = `${nameA} ${nameB} ${skewMs}`;
          assertConnected(scene, what);
          const at = Math.max(...scene.peers.map(({ events }) => events.at(-1)!.at));
          assert(at - since < 2000, `${what}: ${at - since} ms`);
        }
      }
    });
  }

  it("though both NATs reset what is unasked, whoever is late", () => {
    for (const seed of [1, 2, 3, 4, 5, 6]) {
      const scene = new Scene({ seed, nats: [RESETTING, RESETTING] });
      scene.exchange(seed * 300);
      scene.settle();
      assertConnected(scene, `seed ${seed}`);
    }
  });

  it("though one NAT is hard, where the other lets everybody in", () => {
    const scene = new Scene({ nats: [HARD, OPEN] });
    scene.exchange();
    scene.settle();
    assertConnected(scene);
  });

  it("not through two hard NATs, and that is the reason", () => {
    const scene = new Scene({ nats: [HARD, HARD] });
    scene.exchange();
    scene.settle();
    assertEquals(scene.last("failed").map((event) => event?.reason), ["hard-nat", "hard-nat"]);
    assertEquals(scene.peers.map(({ machine }) => machine.sockets()), [[], []]);
  });

  it("not through one hard NAT and one that lets nobody in, which is no fault of both", () => {
    const scene = new Scene({ nats: [HARD, MOVING] });
    scene.exchange();
    scene.settle();
    assertEquals(scene.last("failed").map((event) => event?.reason), ["no-answer", "no-answer"]);
  });

  it("behind one NAT by their own addresses", () => {
    const scene = new Scene({ shared: true });
    scene.exchange();
    scene.settle();
    assertConnected(scene);
    assertEquals(scene.last("connected")[0]?.remote.address, "192.168.0.3");
  });

  it("with a tenth of all packets lost", () => {
    for (const seed of [1, 2, 3, 4]) {
      const scene = new Scene({ seed, nats: [KEEPING, MOVING], loss: 0.1 });
      scene.exchange();
      scene.settle();
      assertConnected(scene, `seed ${seed}`);
    }
  });

  it("when the other one comes fifteen seconds later", () => {
    for (const nats of [[KEEPING, KEEPING], [RESETTING, KEEPING], [KEEPING, RESETTING]] as const) {
      const scene = new Scene({ nats });
      scene.exchange(15_000);
      scene.settle();
      assertConnected(scene, JSON.stringify(nats));
    }
  });

  it("though each was refused at once for as long as it was alone", () => {
    for (const [skewMs, timeoutMs] of [[26_000, 30_000], [590_000, 600_000]] as const) {
      const options = { timeoutMs };
      const scene = new Scene({ nats: [RESETTING, RESETTING], agents: [options, options] });
      scene.exchange(skewMs);
      scene.settle();
      assertConnected(scene, `${skewMs}`);
    }
  });

  it("whatever roles they were given", () => {
    for (const role of ["controlling", "controlled"] as const) {
      const scene = new Scene({ nats: [KEEPING, KEEPING], agents: [{ role }, { role }] });
      scene.exchange();
      scene.settle();
      assertConnected(scene, role);
      const roles = scene.peers.map(({ machine }) => machine.role);
      assertEquals(roles.sort(), ["controlled", "controlling"]);
    }
  });

  it("without servers, where nothing stands between", () => {
    const scene = new Scene({ agents: [{ servers: [] }, { servers: [] }] });
    scene.exchange();
    scene.settle();
    assertConnected(scene);
  });

  it("and a server that is silent is waited for no longer than it was told", () => {
    const servers = [{ address: "198.51.100.77", port: 3478 }];
    const scene = new Scene({ agents: [{ servers, gatherTimeoutMs: 1000 }, {}] });
    const { at } = scene.peers[0]!.events.find(({ event }) => event.type === "gathered")!;
    assert(at >= 1000 && at < 1100, `${at} ms`);
    const patient = new Scene({ agents: [{ servers }, {}] });
    const gathered = patient.peers[0]!.events.find(({ event }) => event.type === "gathered")!;
    assertEquals(gathered.at - at, 2000, "three seconds where nothing is said");
  });
});

// One end alone, its driver and its peer played by hand.

const LOCAL: Endpoint = { address: "192.0.2.7", port: 40_000 };
const PEER: Endpoint = { address: "203.0.113.9", port: 50_000 };

class Bench {
  readonly punch: TcpPunch;
  readonly peer: PublicRendezvous;
  readonly actions: Action<unknown>[] = [];
  now = 0;

  constructor(options: Partial<TcpPunchOptions> = {}, candidates = [candidate(PEER)]) {
    const hosts = [LOCAL.address];
    this.punch = timed(new TcpPunch({ random: seededRandom(1), hosts, ...options }));
    this.peer = createRendezvous(candidates, seededRandom(2)).public;
    this.punch.gather(0);
    this.punch.handleSocket("tcp0", { ok: true, local: LOCAL }, 0);
    this.run(10);
  }

  /** Lets time pass, and keeps what is wanted. */
  run(ms: number): void {
    const until = this.now + ms;
    for (;;) {
      this.actions.push(...drain(this.punch));
      const next = this.punch.nextTimeout();
      if (next === undefined || next > until) break;
      this.now = Math.max(this.now, next);
      this.punch.handleTimeout(this.now);
    }
    this.now = until;
  }

  take<D extends StreamAction["do"]>(what: D): (StreamAction & { do: D })[] {
    this.run(0);
    return this.actions.filter((action) => action.type === "stream" && action.do === what)
      .map((action) => {
        this.actions.splice(this.actions.indexOf(action), 1);
        return action as StreamAction & { do: D };
      });
  }

  /** The STUN messages written to a stream. */
  written(id: number): StunMessage[] {
    return this.take("write").filter((action) => action.id === id).map(({ data }) => {
      const length = data[0]! * 256 + data[1]!;
      assertEquals(length, data.length - 2);
      const message = decodeStun(data.slice(2));
      if (typeof message === "string") throw new Error(message);
      return message;
    });
  }

  feed(id: number, ...messages: Uint8Array[]): void {
    const data = new Uint8Array(messages.reduce((sum, { length }) => sum + length, 0));
    let at = 0;
    for (const message of messages) {
      data.set(message, at);
      at += message.length;
    }
    this.punch.handleStream(id, { type: "data", data }, this.now);
  }

  open(id: number): void {
    this.punch.handleStream(id, { type: "open", local: LOCAL, peer: PEER }, this.now);
  }

  request(
    more: {
      use?: boolean;
      key?: string;
      attributes?: StunAttributes;
      unknown?: number;
      sameRole?: bigint;
    } = {},
  ): Uint8Array {
    const { ufrag, pwd } = this.punch.rendezvous;
    const isControlling = (this.punch.role === "controlled") === (more.sameRole === undefined);
    const role = more.sameRole ?? 1n;
    return framed(encodeStun({
      class: "request",
      method: 1,
      transactionId: new Uint8Array(12).fill(more.use ? 2 : 1),
      attributes: {
        username: `${ufrag}:${this.peer.ufrag}`,
        priority: 1,
        ...(isControlling ? { iceControlling: role } : { iceControlled: role }),
        ...(more.use && { useCandidate: true as const }),
        ...more.attributes,
      },
      ...(more.unknown !== undefined && {
        unknown: [{ type: more.unknown, value: new Uint8Array(4) }],
      }),
    }, { key: shortTermKey(more.key ?? pwd), fingerprint: true }));
  }

  /** What it has told, the last of which it is over with. */
  told(): TcpPunchEvent[] {
    this.run(0);
    return this.actions.flatMap((one) => one.type === "event" ? [one.event as TcpPunchEvent] : []);
  }

  answer(check: StunMessage, key: string = this.peer.pwd): Uint8Array {
    return framed(encodeStun({
      class: "success",
      method: 1,
      transactionId: check.transactionId,
      attributes: { xorMappedAddress: LOCAL },
    }, { key: shortTermKey(key), fingerprint: true }));
  }
}

function candidate({ address, port }: Endpoint, more: Partial<Candidate> = {}): Candidate {
  return {
    foundation: "1",
    transport: "tcp",
    priority: candidatePriority(126, 1),
    address,
    port,
    type: "host",
    tcpType: "so",
    ...more,
  };
}

function framed(message: Uint8Array): Uint8Array {
  const frame = new Uint8Array(2 + message.length);
  putU16(frame, 0, message.length);
  frame.set(message, 2);
  return frame;
}

describe("the one port", () => {
  it("listens to find one, and is let go before it dials", () => {
    const punch = new TcpPunch({
      random: seededRandom(1),
      hosts: [LOCAL.address],
      servers: [SERVERS[0]!],
    });
    punch.gather(0);
    assertEquals(punch.sockets(), [
      { kind: "tcp", key: "tcp0", local: { address: LOCAL.address, port: 0 } },
    ]);
    punch.handleSocket("tcp0", { ok: true, local: LOCAL }, 0);
    assertEquals(punch.sockets(), []);
    assertEquals(drain(punch), []);
    punch.handleTimeout(punch.nextTimeout()!);
    const [dial] = drain(punch) as (StreamAction & { do: "connect" })[];
    assertEquals([dial!.do, dial!.local, dial!.to], ["connect", LOCAL, SERVERS[0]!]);
  });

  it("is let go for a moment before the servers are asked from it", () => {
    const punch = new TcpPunch({ random: seededRandom(1), hosts: [LOCAL.address] });
    punch.gather(0);
    punch.handleSocket("tcp0", { ok: true, local: LOCAL }, 100);
    drain(punch);
    assertEquals([punch.sockets(), punch.nextTimeout()], [[], 104]);
  });

  it("dials first and then listens, and never both at once", () => {
    const bench = new Bench({ role: "controlling" });
    bench.punch.setRemote(bench.peer, bench.now);
    assertEquals(bench.take("connect").map(({ to, local }) => [to, local]), [[PEER, LOCAL]]);
    assertEquals(bench.punch.sockets(), []);
    bench.run(10);
    assertEquals(bench.punch.sockets(), [{ kind: "tcp", key: "tcp0", local: LOCAL }]);
    for (let i = 0; i < 20; i++) {
      const dialled = bench.take("connect");
      if (dialled.length > 0) {
        assertEquals(bench.punch.sockets(), [], "dialled while listening");
        for (const { id } of dialled) {
          bench.punch.handleStream(id, { type: "closed", reason: "refused" }, bench.now);
        }
      }
      bench.run(5);
    }
  });

  it("dials an endpoint that was told twice once, and every base from its own address", () => {
    const hosts = [LOCAL.address, "192.0.2.8"];
    const bench = new Bench({ role: "controlling", hosts }, [candidate(PEER), candidate(PEER)]);
    const local = { address: hosts[1]!, port: 40_001 };
    bench.punch.handleSocket("tcp1", { ok: true, local }, bench.now);
    bench.run(10);
    bench.punch.setRemote(bench.peer, bench.now);
    const common = { type: "stream", do: "connect", to: PEER, timeoutMs: 4000 } as const;
    assertEquals(bench.take("connect"), [
      { ...common, id: 0, local: LOCAL },
      { ...common, id: 1, local },
    ]);
    bench.run(3);
    assertEquals(bench.punch.sockets(), []);
    bench.run(1);
    assertEquals(bench.punch.sockets(), [
      { kind: "tcp", key: "tcp0", local: LOCAL },
      { kind: "tcp", key: "tcp1", local },
    ]);
  });

  it("dials in one round what is due within the 4 ms in which it does not listen", () => {
    for (const [apartMs, rounds] of [[4, 1], [5, 2]] as const) {
      const random = { u32: () => 0, fill: (bytes: Uint8Array) => void bytes.fill(1) };
      const bench = new Bench({ role: "controlling", random }, [
        candidate(PEER),
        candidate({ ...PEER, port: 9 }),
      ]);
      bench.punch.setRemote(bench.peer, bench.now);
      const [one, other] = bench.take("connect");
      bench.run(100);
      bench.punch.handleStream(one!.id, { type: "closed", reason: "refused" }, bench.now);
      bench.run(apartMs);
      bench.punch.handleStream(other!.id, { type: "closed", reason: "refused" }, bench.now);
      const times: number[] = [];
      for (const until = bench.now + 100; bench.now < until;) {
        bench.run(1);
        times.push(...bench.take("connect").map(() => bench.now));
      }
      assertEquals([times[0], new Set(times).size, times.length], [170, rounds, 2]);
    }
  });

  it("listens first where the other one decides", () => {
    const bench = new Bench({ role: "controlled" });
    bench.punch.setRemote(bench.peer, bench.now);
    assertEquals(bench.take("connect"), []);
    assertEquals(bench.punch.sockets().length, 1);
    bench.run(25);
    assertEquals(bench.punch.sockets().length, 1);
    bench.run(1);
    assertEquals(bench.punch.sockets().length, 0, "4 ms before it dials");
    bench.run(3);
    assertEquals(bench.take("connect"), []);
    bench.run(1);
    assertEquals(bench.take("connect").length, 1);
  });

  it("is dialled by whose names are the larger, where nobody was given a role", () => {
    const [one, other] = [1, 2].map((seed) => {
      const punch = new TcpPunch({ random: seededRandom(seed), hosts: [LOCAL.address] });
      punch.gather(0);
      punch.handleSocket("tcp0", { ok: true, local: LOCAL }, 0);
      punch.handleTimeout(4);
      return punch;
    }) as [TcpPunch, TcpPunch];
    const tickets = [other.rendezvous, one.rendezvous];
    for (const [i, punch] of [one, other].entries()) punch.setRemote(tickets[i]!, 10);
    const isFirst = one.rendezvous.ufrag > other.rendezvous.ufrag;
    assertEquals(
      [one.role, other.role],
      isFirst ? ["controlling", "controlled"] : ["controlled", "controlling"],
    );
    const given = new Bench({ role: isFirst ? "controlled" : "controlling" });
    given.punch.setRemote(given.peer, given.now);
    assertEquals(given.punch.role, isFirst ? "controlled" : "controlling");
  });

  it("dials where the peer waits or opens too, and not where it only dials", () => {
    const types = [
      candidate(PEER, { tcpType: "active" }),
      candidate({ ...PEER, port: 2 }, { tcpType: "passive" }),
      candidate({ ...PEER, port: 3 }),
      candidate({ ...PEER, port: 4 }, { transport: "udp" }),
      candidate({ address: "2001:db8::1", port: 5 }),
    ];
    const bench = new Bench({ role: "controlling" }, types);
    bench.punch.setRemote(bench.peer, bench.now);
    assertEquals(bench.take("connect").map(({ to }) => to.port), [2, 3]);
  });

  it("dials again what refused, and no endpoint without end", () => {
    const timeoutMs = 300_000;
    const bench = new Bench({ role: "controlling", timeoutMs });
    const since = bench.now;
    bench.punch.setRemote(bench.peer, since);
    let dials = 0;
    const times: number[] = [];
    while (bench.now < since + timeoutMs) {
      for (const { id } of bench.take("connect")) {
        dials++;
        times.push(bench.now);
        bench.punch.handleStream(id, { type: "closed", reason: "refused" }, bench.now);
      }
      bench.run(10);
    }
    const gaps = times.slice(1).map((at, i) => at - times[i]!);
    const eager = gaps.slice(0, 59), others = gaps.slice(60);
    assert(Math.min(...eager) >= 50 && Math.min(...eager) < 100, gaps.join(" "));
    assert(Math.max(...eager) <= 260 && Math.max(...eager) > 200, gaps.join(" "));
    assert(Math.min(...others) > 4000 && Math.max(...others) < 5000, gaps.join(" "));
    assertEquals(dials, 120);
    assertEquals(bench.punch.stats.refused, 120);
    assert(times.at(-1)! > since + timeoutMs - 5000, "the last one at the end");
  });
});

describe("its servers", () => {
  /** What a server says, to what was written to it. */
  function seen(
    { transactionId }: StunMessage,
    port: number,
    more: { class?: "error"; address?: string } = {},
  ): Uint8Array {
    const { class: kind = "success", address = "203.0.113.1" } = more;
    const attributes = { xorMappedAddress: { address, port } };
    return encodeStun({ class: kind, method: 1, transactionId, attributes });
  }

  function asking(): { bench: Bench; asked: StunMessage[] } {
    const bench = new Bench({ servers: [...SERVERS, { address: "2001:db8::1", port: 3478 }] });
    const dials = bench.take("connect");
    const common = { type: "stream", do: "connect", local: LOCAL, timeoutMs: 10_000 } as const;
    assertEquals(dials, SERVERS.map((to, id) => ({ ...common, id, to })));
    const asked = dials.map(({ id }) => {
      bench.open(id);
      const [write] = bench.take("write");
      const message = decodeStun(write!.data) as StunMessage;
      assertEquals([write!.id, message.class, message.attributes], [id, "request", {}]);
      assertEquals([message.integrityAt, message.hasFingerprint], [0, false]);
      return message;
    });
    return { bench, asked };
  }

  it("tell what its NAT made of the port, and are kept as long as it is wanted", () => {
    const { bench, asked } = asking();
    bench.feed(0, seen(asked[0]!, 7000));
    assertEquals(bench.told(), []);
    bench.feed(0, seen(asked[0]!, 7001));
    bench.feed(1, seen(asked[1]!, 7002));
    const { ufrag, pwd } = bench.punch.rendezvous;
    const common = { transport: "tcp", tcpType: "so" } as const;
    const rendezvous: PublicRendezvous = {
      ufrag,
      pwd,
      candidates: [
        {
          ...common,
          foundation: "1",
          priority: candidatePriority(126, 2 * 8192 + 8191),
          ...LOCAL,
          type: "host",
        },
        {
          ...common,
          foundation: "2",
          priority: candidatePriority(100, 6 * 8192 + 8191),
          address: "203.0.113.1",
          port: 7000,
          type: "srflx",
          related: LOCAL,
        },
      ],
      hint: { mapping: "address-and-port-dependent", ports: [7000, 7002] },
    };
    assertEquals(bench.told(), [{ type: "gathered", rendezvous }]);
    assertEquals(bench.punch.nextTimeout(), undefined);
    bench.run(60_000);
    assertEquals(bench.take("close"), [], "the port's mapping lives as long as they do");
  });

  it("are believed in what they were asked, of the family that they were asked in", () => {
    const { bench, asked } = asking();
    const strange = { ...asked[0]!, transactionId: new Uint8Array(12) };
    bench.feed(0, seen(strange, 1), seen(asked[0]!, 2, { class: "error" }));
    bench.feed(0, seen(asked[0]!, 3, { address: "2001:db8::7" }));
    assertEquals(bench.punch.rendezvous.hint?.ports, []);
    bench.feed(0, new Uint8Array(20).fill(255));
    assertEquals(bench.take("close").map(({ id }) => id), [0]);
    bench.punch.handleStream(1, { type: "closed", reason: "failed" }, bench.now);
    assertEquals(bench.told().map(({ type }) => type), ["gathered"], "nobody is left to wait for");
    assertEquals(bench.punch.stats.refused, 0);
  });

  it("may be of RFC 3489, which knows MAPPED-ADDRESS alone", () => {
    const { bench, asked } = asking();
    const mappedAddress = { address: "203.0.113.1", port: 7000 };
    const { transactionId } = asked[0]!;
    const attributes = { mappedAddress };
    bench.feed(0, encodeStun({ class: "success", method: 1, transactionId, attributes }));
    assertEquals(bench.punch.rendezvous.hint?.ports, [7000]);
  });

  it("that are silent are left when their time is over, and others stay", () => {
    const { bench, asked } = asking();
    bench.feed(1, seen(asked[1]!, 7000));
    bench.run(2993);
    assertEquals([bench.told(), bench.take("close")], [[], []]);
    bench.run(1);
    assertEquals(bench.told().map(({ type }) => type), ["gathered"]);
    assertEquals(bench.take("close").map(({ id }) => id), [0]);
  });
});

describe("a stream", () => {
  /** An end with one stream that is up. */
  function up(role: "controlling" | "controlled"): { bench: Bench; id: number } {
    const bench = new Bench({ role });
    bench.punch.setRemote(bench.peer, bench.now);
    bench.run(60);
    const { id } = bench.take("connect")[0]!;
    bench.open(id);
    return { bench, id };
  }

  it("begins with a check, framed as RFC 4571 has it", () => {
    const { bench, id } = up("controlling");
    const [check] = bench.written(id);
    const { attributes, integrityAt, hasFingerprint } = check!;
    assertEquals(attributes.username, `${bench.peer.ufrag}:${bench.punch.rendezvous.ufrag}`);
    assert(attributes.iceControlling !== undefined && attributes.useCandidate === undefined);
    assert(integrityAt > 0 && hasFingerprint);
  });

  it("is nominated by the controlling one, and handed over after the answer, what follows unread", () => {
    const { bench, id } = up("controlling");
    const [check] = bench.written(id);
    bench.feed(id, bench.answer(check!));
    const [nomination] = bench.written(id);
    assertEquals(nomination!.attributes.useCandidate, true);
    assertEquals(bench.take("hand-over"), []);
    const rest = new TextEncoder().encode("GET / HTTP/1.1");
    bench.feed(id, bench.answer(nomination!), rest);
    const [handed] = bench.take("hand-over");
    assertEquals([handed!.id, handed!.unread], [id, rest]);
    assertEquals(bench.told().at(-1), {
      type: "connected",
      stream: id,
      local: LOCAL,
      remote: PEER,
      mapped: LOCAL,
      elapsedMs: 60,
    });
  });

  it("is asked with what must be understood and is not: that gets 420, and it goes on", () => {
    const { bench, id } = up("controlled");
    bench.written(id);
    bench.feed(id, bench.request({ use: true, unknown: 0x7abc }));
    const [answer] = bench.written(id);
    const { errorCode, unknownAttributes } = answer!.attributes;
    assertEquals([errorCode?.code, unknownAttributes], [420, [0x7abc]]);
    assertEquals([bench.take("close"), bench.punch.stats.forged], [[], 0]);
    bench.run(6000);
    assertEquals(bench.take("close"), [], "the peer has shown who it is");
    bench.feed(id, bench.request({ unknown: 0x8abc }));
    assertEquals(bench.written(id)[0]!.attributes, { xorMappedAddress: PEER });
  });

  it("whose check names others, or no priority, is closed unanswered", () => {
    for (
      const attributes of [
        { username: "somebody:else" },
        { username: undefined },
        { priority: undefined },
      ] as StunAttributes[]
    ) {
      const { bench, id } = up("controlled");
      bench.written(id);
      bench.feed(id, bench.request({ use: true, attributes }));
      assertEquals(bench.written(id), []);
      assertEquals(bench.take("close").map((action) => action.id), [id]);
    }
  });

  it("on which both want one role goes on in two: the larger tie-breaker controls (§7.3.1.1)", () => {
    for (const role of ["controlling", "controlled"] as const) {
      for (const theirs of [0n, 2n ** 64n - 1n]) {
        const { bench, id } = up(role);
        bench.written(id);
        bench.feed(id, bench.request({ sameRole: theirs }));
        const keeps = (role === "controlling") === (theirs === 0n);
        assertEquals(bench.punch.role === role, keeps, `${role} ${theirs}`);
        assertEquals(bench.written(id)[0]!.attributes.errorCode?.code, keeps ? 487 : undefined);
      }
    }
  });

  it("that says nothing for five seconds is closed, and one that says more than a check at once", () => {
    const { bench } = up("controlled");
    bench.run(4999);
    assertEquals(bench.take("close"), []);
    bench.run(1);
    assertEquals(bench.take("close").length, 1);
    for (const [length, isTooLong] of [[1024, false], [1025, true]] as const) {
      const one = up("controlled");
      one.bench.feed(one.id, new Uint8Array([length >> 8, length & 255]));
      assertEquals(one.bench.take("close").length, isTooLong ? 1 : 0);
    }
  });

  it("on which the peer speaks and does not agree is why it failed", () => {
    const { bench, id } = up("controlled");
    bench.feed(id, bench.request());
    bench.run(30_000);
    const last = bench.told().at(-1)!;
    assertEquals(last.type === "failed" && last.reason, "one-way");
    assertEquals(bench.take("close").map((action) => action.id), [id]);
    assertEquals([bench.punch.sockets(), bench.punch.nextTimeout()], [[], undefined]);
  });

  it("is handed over by the controlled one once it has nothing more to hear", () => {
    const { bench, id } = up("controlled");
    const [check] = bench.written(id);
    bench.feed(id, bench.request({ use: true }));
    assertEquals(bench.written(id).map((message) => message.class), ["success"]);
    assertEquals(bench.take("hand-over"), [], "its own check is not answered yet");
    const rest = new Uint8Array([0, 1, 2]);
    bench.feed(id, bench.answer(check!), rest);
    assertEquals(bench.take("hand-over").map(({ unread }) => unread), [rest]);
  });

  it("cut anywhere is put together again", () => {
    const { bench, id } = up("controlling");
    const answer = bench.answer(bench.written(id)[0]!);
    for (const byte of answer) bench.feed(id, new Uint8Array([byte]));
    assertEquals(bench.written(id)[0]?.attributes.useCandidate, true);
  });

  it("that says something else, too much or nothing is closed, and the peer dialled again", () => {
    const random = new Uint8Array(50).fill(7);
    random[0] = 0;
    random[1] = 40;
    for (
      const words of [
        random,
        new Uint8Array([255, 255, 1]),
        framed(new Uint8Array(20)),
        undefined,
      ]
    ) {
      const { bench, id } = up("controlling");
      if (words) bench.feed(id, words);
      else bench.run(5100);
      assertEquals(bench.take("close").map((action) => action.id), [id]);
      bench.run(1000);
      assert(bench.take("connect").length >= 1);
    }
  });

  it("that was closed is read no further, whatever came with what closed it", () => {
    const { bench, id } = up("controlling");
    bench.feed(id, framed(new Uint8Array(20)), framed(new Uint8Array(20)));
    assertEquals(bench.punch.stats.forged, 1);
    assertEquals(bench.take("close").map((action) => action.id), [id]);
  });

  it("refused with 487 is checked in the other role, whichever that is", () => {
    for (const role of ["controlling", "controlled"] as const) {
      const { bench, id } = up(role);
      const [{ transactionId, attributes }] = bench.written(id) as [StunMessage];
      const { iceControlling = attributes.iceControlled } = attributes;
      bench.feed(
        id,
        framed(encodeStun({
          class: "error",
          method: 1,
          transactionId,
          attributes: { errorCode: { code: 487, reason: "" } },
        }, { key: shortTermKey(bench.peer.pwd), fingerprint: true })),
      );
      const [again] = bench.written(id);
      const other = role === "controlling" ? "iceControlled" : "iceControlling";
      assertEquals(typeof again!.attributes[other], "bigint");
      assertNotEquals(again!.attributes[other], iceControlling);
      assertEquals(bench.punch.role, role === "controlling" ? "controlled" : "controlling");
    }
  });

  it("of somebody without the password is closed unanswered", () => {
    const { bench, id } = up("controlled");
    bench.written(id);
    bench.feed(id, bench.request({ use: true, key: "x".repeat(24) }));
    assertEquals(bench.written(id), []);
    assertEquals(bench.take("close").length, 1);
    assertEquals(bench.punch.stats.forged, 1);
    const other = up("controlling");
    const [check] = other.bench.written(other.id);
    other.bench.feed(other.id, other.bench.answer(check!, "x".repeat(24)));
    assertEquals(other.bench.take("close").length, 1);
  });

  it("that is chosen leaves the others closed", () => {
    const { bench, one, other } = dialsTwo();
    bench.open(one);
    bench.open(other);
    const writes = bench.take("write");
    const checks = [one, other].map((id) =>
      decodeStun(writes.find((write) => write.id === id)!.data.slice(2)) as StunMessage
    );
    bench.feed(other, bench.answer(checks[1]!));
    bench.feed(one, bench.answer(checks[0]!));
    const nominations = bench.written(other);
    assertEquals(nominations.length, 1, "the first that works");
    bench.feed(other, bench.answer(nominations[0]!));
    assertEquals(bench.take("hand-over").map(({ id }) => id), [other]);
    assertEquals(bench.take("close").map(({ id }) => id), [one]);
  });

  it("that is chosen ends the dialling, but not the listening", () => {
    const { bench, one, other } = dialsTwo();
    bench.open(one);
    bench.feed(one, bench.answer(bench.written(one)[0]!));
    assertEquals(bench.written(one).length, 1);
    bench.punch.handleStream(other, { type: "closed", reason: "refused" }, bench.now);
    bench.run(3000);
    assertEquals(bench.take("connect"), []);
    assertEquals(bench.punch.sockets().length, 1);
    const { dials, refused, opened } = bench.punch.stats;
    assertEquals([dials, refused, opened], [2, 1, 1]);
    assertEquals(bench.punch.nextTimeout(), 10 + 5000, "it is waited for, and nothing else");
  });

  it("that is chosen and refused in our role is not the one: others are dialled again", () => {
    const { bench, one, other } = dialsTwo();
    bench.open(one);
    bench.feed(one, bench.answer(bench.written(one)[0]!));
    const [{ transactionId }] = bench.written(one) as [StunMessage];
    const attributes = { errorCode: { code: 487, reason: "" } };
    const key = shortTermKey(bench.peer.pwd);
    bench.feed(
      one,
      framed(encodeStun({ class: "error", method: 1, transactionId, attributes }, { key })),
    );
    bench.punch.handleStream(other, { type: "closed", reason: "refused" }, bench.now);
    bench.run(500);
    assertEquals(bench.take("connect").map(({ to }) => to.port), [9]);
  });

  it("that breaks after it was chosen leaves another one its place", () => {
    const { bench, one, other } = dialsTwo();
    for (const id of [one, other]) {
      bench.open(id);
      bench.feed(id, bench.answer(bench.written(id)[0]!));
    }
    bench.punch.handleStream(one, { type: "closed", reason: "failed" }, bench.now);
    const [nomination] = bench.written(other);
    assertEquals(nomination?.attributes.useCandidate, true);
  });

  it("that was chosen and answers no more for five seconds leaves another one its place", () => {
    const { bench, one, other } = dialsTwo();
    for (const id of [one, other]) {
      bench.open(id);
      bench.feed(id, bench.answer(bench.written(id)[0]!));
    }
    bench.feed(one, bench.request());
    bench.run(4999);
    assertEquals([bench.take("close"), bench.written(other)], [[], []]);
    bench.run(1);
    assertEquals(bench.take("close").map(({ id }) => id), [one]);
    const [nomination] = bench.written(other);
    assertEquals(nomination?.attributes.useCandidate, true);
    bench.feed(other, bench.answer(nomination!));
    assertEquals(bench.take("hand-over").map(({ id }) => id), [other]);
  });

  it("that breaks leaves its place to one that was answered, not to one that is only up", () => {
    const candidates = [1, 2, 3].map((port) => candidate({ ...PEER, port }));
    const bench = new Bench({ role: "controlling", servers: [SERVERS[0]!] }, candidates);
    const [server] = bench.take("connect");
    bench.open(server!.id);
    const { transactionId } = decodeStun(bench.take("write")[0]!.data) as StunMessage;
    const attributes = { xorMappedAddress: { address: "203.0.113.1", port: 7 } };
    bench.feed(server!.id, encodeStun({ class: "success", method: 1, transactionId, attributes }));
    bench.punch.setRemote(bench.peer, bench.now);
    const ids = bench.take("connect").map(({ id }) => id);
    const asked = ids.map((id) => {
      bench.open(id);
      return bench.written(id)[0]!;
    });
    bench.feed(ids[0]!, bench.answer(asked[0]!));
    bench.feed(ids[2]!, bench.answer(asked[2]!));
    bench.take("write");
    bench.punch.handleStream(ids[0]!, { type: "closed", reason: "failed" }, bench.now);
    const writes = bench.take("write");
    assertEquals(writes.map(({ id }) => id), [ids[2]]);
    bench.feed(99, new Uint8Array(1));
    assertEquals(bench.take("close"), [], "of a stream that nobody knows nothing is heard");
  });

  it("of strangers are few at once", () => {
    const bench = new Bench({ role: "controlled" });
    bench.punch.setRemote(bench.peer, bench.now);
    for (let i = 1; i <= 100; i++) {
      bench.punch.handleStream(
        -i,
        { type: "open", local: LOCAL, peer: PEER, socket: "tcp0" },
        bench.now,
      );
    }
    assertEquals(bench.take("close").length, 100 - 32);
    assertEquals(bench.punch.stats.turnedAway, 100 - 32);
    bench.run(6000);
    assertEquals(bench.take("close").length, 32, "they said nothing");
  });

  it("of strangers is none once it has shown that it is the peer, and before there is a ticket", () => {
    const bench = new Bench({ role: "controlled" });
    const come = (id: number) => {
      const at = { local: LOCAL, peer: PEER, socket: "tcp0" };
      bench.punch.handleStream(id, { type: "open", ...at }, bench.now);
    };
    come(-1);
    assertEquals(bench.take("close").map(({ id }) => id), [-1]);
    bench.punch.setRemote(bench.peer, bench.now);
    come(-2);
    bench.feed(-2, bench.request());
    for (let id = -3; id >= -35; id--) come(id);
    assertEquals(bench.take("close").map(({ id }) => id), [-35]);
    assertEquals(bench.punch.stats.turnedAway, 2);
  });
});

describe("its limits", () => {
  it("are checked before anything is dialled", () => {
    const random = seededRandom(1);
    assertThrows(() => new TcpPunch({ random, hosts: [] }), TypeError, "'hosts'");
    assertThrows(() => new TcpPunch({ random, hosts: ["x"] }), TypeError, "'hosts'");
    const make = (options: object) => new TcpPunch({ random, hosts: ["192.0.2.1"], ...options });
    assertThrows(() => make({ port: 65536 }), RangeError, "'port'");
    assertThrows(() => make({ timeoutMs: 0 }), RangeError, "'timeoutMs'");
    assertThrows(() => make({ servers: [{ address: "y", port: 1 }] }), TypeError, "'servers'");
    const servers = [{ address: "198.51.100.1", port: 0 }];
    assertThrows(() => make({ servers }), RangeError, "'servers'");
    make({ servers: [{ ...servers[0]!, port: 1 }], port: 65535, timeoutMs: 1, gatherTimeoutMs: 1 });
    assertThrows(() => make({ gatherTimeoutMs: 0 }), RangeError, "'gatherTimeoutMs'");
    const bench = new Bench();
    const wrong = { ...bench.peer, candidates: [candidate({ address: "224.0.0.1", port: 1 })] };
    assertThrows(() => bench.punch.setRemote(wrong, 0), TicketError);
    assertThrows(() => bench.punch.addMapped({ address: "0.0.0.0", port: 1 }, LOCAL.address, 0));
    assertEquals(bench.take("connect"), []);
  });

  it("a port that cannot be had is told", () => {
    const punch = new TcpPunch({ random: seededRandom(1), hosts: [LOCAL.address] });
    punch.gather(0);
    const message = "Address already in use";
    punch.handleSocket("tcp0", { ok: false, code: "permission", message, isOpen: false }, 0);
    assertEquals(drain(punch), [
      { type: "event", event: { type: "failed", reason: "permission", message } },
    ]);
  });

  it("a port that cannot be had leaves the other addresses", () => {
    const hosts = ["192.0.2.7", "192.0.2.8", "192.0.2.9"];
    const punch = new TcpPunch({ random: seededRandom(1), hosts });
    punch.gather(0);
    const message = "Cannot assign requested address";
    punch.handleSocket("tcp0", { ok: false, code: "network", message, isOpen: false }, 0);
    for (const i of [1, 2]) {
      punch.handleSocket(`tcp${i}`, { ok: true, local: { address: hosts[i]!, port: 4000 } }, 0);
    }
    const { candidates } = punch.rendezvous;
    assertEquals(candidates.map(({ address }) => address), hosts.slice(1));
  });

  it("the addresses that come first are preferred", () => {
    const hosts = ["192.0.2.7", "192.0.2.8"];
    const punch = new TcpPunch({ random: seededRandom(1), hosts });
    punch.gather(0);
    for (const [i, address] of hosts.entries()) {
      punch.handleSocket(`tcp${i}`, { ok: true, local: { address, port: 4000 + i } }, 0);
    }
    const { candidates } = punch.rendezvous;
    assertEquals(candidates.map(({ address, port }) => [address, port]), [
      ["192.0.2.7", 4000],
      ["192.0.2.8", 4001],
    ]);
    assertEquals(candidates[0]!.priority - candidates[1]!.priority, 256);
    assertEquals(candidates[0]!.priority, candidatePriority(126, 2 * 8192 + 8191));
  });

  it("what a gateway maps beats what a server saw", () => {
    const bench = new Bench();
    bench.punch.addMapped({ address: "203.0.113.1", port: 7 }, LOCAL.address, bench.now);
    bench.punch.addMapped({ address: "203.0.113.1", port: 7 }, LOCAL.address, bench.now);
    bench.punch.addMapped({ address: "203.0.113.1", port: 8 }, "192.0.2.99", bench.now);
    assertEquals(bench.punch.rendezvous.candidates.length, 2);
    const [host, mapped] = bench.punch.rendezvous.candidates;
    assertEquals([host!.type, mapped!.type, mapped!.port], ["host", "srflx", 7]);
    assert(mapped!.priority > candidatePriority(100, 65535));
  });

  it("close ends it without a word", () => {
    const bench = new Bench({ role: "controlling" });
    bench.punch.setRemote(bench.peer, bench.now);
    const { id } = bench.take("connect")[0]!;
    bench.punch.close(bench.now);
    assertEquals(bench.take("close").map((action) => action.id), [id]);
    bench.punch.handleStream(id, { type: "open", local: LOCAL, peer: PEER }, bench.now);
    assertEquals(drain(bench.punch), []);
    assertEquals(bench.punch.nextTimeout(), undefined);
  });
});
