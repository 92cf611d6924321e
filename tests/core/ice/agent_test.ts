/**
 * The ICE agent between NATs of every kind, in virtual time: who meets, how fast, at what cost; and
 * what it believes.
 *
 * @module
 */
import { describe, it } from "node:test";
import { assert, assertEquals, assertNotEquals, assertThrows } from "@std/assert";
import { IceAgent, type IceEvent, MAX_PROBES_PER_ENDPOINT } from "../../../core/ice/agent.ts";
import { type Candidate, candidatePriority } from "../../../core/ice/candidate.ts";
import {
  createRendezvous,
  formatSdp,
  parseSdp,
  type PublicRendezvous,
  TicketError,
} from "../../../core/ice/ticket.ts";
import type { Endpoint, SendAction } from "../../../core/machine.ts";
import { seededRandom } from "../../../core/random.ts";
import { StrictMachine } from "../../../core/sim/strict.ts";
import { decodeStun, encodeStun, type StunMessage } from "../../../core/stun/codec.ts";
import { shortTermKey } from "../../../core/stun/integrity.ts";
import { drain, timed } from "../machine_case.ts";
import { type NatBehaviour, Rig, STUN } from "./rig.ts";

const EASY: readonly NatBehaviour[] = (["preserving", "random"] as const).flatMap((ports) =>
  (["endpoint-independent", "address-dependent", "address-and-port-dependent"] as const).map(
    (filtering): NatBehaviour => ({ mapping: "endpoint-independent", filtering, ports }),
  )
);
/** What most homes have. */
const HOME: NatBehaviour = { ...EASY[2]! };
/** What lets nothing be foreseen. */
const HARD: NatBehaviour = {
  mapping: "address-and-port-dependent",
  filtering: "address-and-port-dependent",
  ports: "random",
};
const STEPPING: NatBehaviour = { ...HARD, ports: "contiguous" };

/** Both have agreed, on the same path. */
function assertConnected(rig: Rig): void {
  const [a, b] = rig.last("connected");
  if (!a || !b) throw new Error(JSON.stringify(rig.last("failed")));
  assertEquals([a.mapped, b.mapped], [b.remote, a.remote]);
  for (const [i, event] of [a, b].entries()) {
    assertEquals(rig.peers[i]!.process.machine.selected, {
      socket: event.socket,
      remote: event.remote,
    });
  }
}

/** The most packets that a peer sent in any second, of those the world saw on the internet. */
function busiestSecond(rig: Rig, address: string, since: number): number {
  const times = rig.world.trace.entries().filter((entry) =>
    "packet" in entry && entry.onLink && entry.where === "internet" && entry.at >= since &&
    entry.packet.from.address === address
  ).map(({ at }) => at);
  return Math.max(0, ...times.map((at) => times.filter((t) => t >= at && t < at + 1000).length));
}

describe("two natkits meet", () => {
  for (const [i, a] of [undefined, ...EASY].entries()) {
    const name = a ? `${a.ports} ports, ${a.filtering} filter` : "none";
    it(`within two round trips where both NATs are easy: ${name}`, () => {
      for (const b of [undefined, ...EASY].slice(i)) {
        const rig = new Rig({ nats: [a, b], delayMs: 40 });
        const since = rig.world.now;
        rig.exchange();
        rig.settle();
        assertConnected(rig);
        const ms = rig.connectedAfter(since)!;
        assert(ms <= 2 * 80, `${ms} ms with ${JSON.stringify(b)}`);
      }
    });
  }

  it("where one NAT is hard, by chance: within 20 s and 100 packets a second", () => {
    for (const seed of [1, 2, 3, 4, 5]) {
      const rig = new Rig({ nats: [HOME, HARD], seed, loss: 0.05, trace: 20_000 });
      const since = rig.world.now;
      rig.exchange();
      rig.settle();
      assertConnected(rig);
      assert(rig.connectedAfter(since)! <= 20_000);
      for (const address of ["203.0.113.1", "203.0.113.2"]) {
        const most = busiestSecond(rig, address, since);
        assert(most < 100, `${address}: ${most} packets in a second, seed ${seed}`);
      }
    }
  });

  it("where one NAT is hard, by no more packets a second than it may send", () => {
    const agents = [{ budget: { packetsPerSecond: 30 } }, { budget: { packetsPerSecond: 30 } }];
    const rig = new Rig({ nats: [HOME, HARD], agents: [agents[0]!, agents[1]!], trace: 20_000 });
    const since = rig.world.now;
    rig.exchange();
    rig.world.runFor(8000);
    for (const address of ["203.0.113.1", "203.0.113.2"]) {
      const most = busiestSecond(rig, address, since);
      assert(most > 25 && most <= 30, `${address}: ${most} packets in a second`);
    }
  });

  it("where one NAT is hard, without a guess where the other lets its address in", () => {
    for (const delayMs of [20, 100]) {
      const rig = new Rig({ nats: [EASY[1], HARD], delayMs });
      rig.exchange();
      rig.settle();
      assertConnected(rig);
      assertEquals(rig.peers.map(({ process }) => process.machine.stats.probes), [0, 0]);
    }
  });

  it("with the sockets that wait for a guess opened when prediction has had its time", () => {
    const rig = new Rig({ nats: [HOME, STEPPING] });
    const [a, b] = rig.peers.map(({ process }) => process);
    const theirs = a!.machine.rendezvous!;
    b!.do((agent, now) => agent.setRemote(theirs, now));
    rig.world.runFor(1499);
    assertEquals(b!.machine.sockets().length, 1);
    rig.world.runFor(1);
    assertEquals(b!.machine.sockets().length, 1 + 16);
    rig.world.runFor(10_000);
    assertEquals(b!.machine.sockets().length, 1 + 256);
    assertEquals(b!.machine.stats.probes > 256, true, "each once, and then again");
  });

  it("where one NAT is hard and its ports can be foreseen, in no time", () => {
    const rig = new Rig({ nats: [HOME, STEPPING] });
    const since = rig.world.now;
    rig.exchange();
    rig.settle();
    assertConnected(rig);
    assert(rig.connectedAfter(since)! < 1000);
    const { probes } = rig.peers[0].process.machine.stats;
    assert(probes > 0 && probes < 32, `${probes} probes`);
  });

  it("where both are hard and their ports can be foreseen", () => {
    for (const delayMs of [1, 40, 200]) {
      const rig = new Rig({ nats: [STEPPING, { ...STEPPING, ports: "preserving" }], delayMs });
      rig.exchange();
      rig.settle();
      assertConnected(rig);
    }
  });

  it("where both are hard, but one has one port for all of the peer's", () => {
    const opener: NatBehaviour = {
      mapping: "address-dependent",
      filtering: "address-dependent",
      ports: "random",
    };
    for (const seed of [1, 2, 3]) {
      const rig = new Rig({ nats: [HARD, opener], seed });
      rig.exchange();
      rig.settle();
      assertConnected(rig);
      // That one opens ports from the first on, and the other one finds one.
      const sockets = rig.peers.map(({ process }) => process.machine.selected!.socket);
      assertEquals(sockets.map((key) => key.replace(/\d+/, "")), ["ice", "guess"]);
    }
  });

  it("not where both are hard and at random: that is the reason, and the budget is kept", () => {
    const rig = new Rig({ nats: [HARD, HARD], trace: 20_000 });
    const since = rig.world.now;
    rig.exchange();
    rig.settle();
    for (const event of rig.last("failed")) {
      assertEquals(event?.reason, "hard-nat");
      assert(/relay|maps/.test(event!.message));
    }
    for (const address of ["203.0.113.1", "203.0.113.2"]) {
      assert(busiestSecond(rig, address, since) < 100);
    }
    rig.world.runFor(60_000);
    assertEquals(rig.peers.map(({ process }) => process.events.at(-1)?.event.type), [
      "failed",
      "failed",
    ]);
    assertEquals(rig.peers.map(({ process }) => process.machine.sockets()), [[], []]);
  });

  it("behind one NAT by their own addresses, whether it turns packets back or not", () => {
    for (const hairpin of ["none", "internal-source", "external-source"] as const) {
      for (const mapping of [HOME.mapping!, HARD.mapping!]) {
        const rig = new Rig({ shared: { ...HOME, mapping, hairpin } });
        rig.exchange();
        rig.settle();
        assertConnected(rig);
        const [a] = rig.last("connected");
        assertEquals(a!.remote.address, "192.168.0.3", `${hairpin} ${mapping}`);
      }
    }
  });

  it("with a fifth of all packets lost, and one three seconds late", () => {
    for (const seed of [1, 2, 3, 4]) {
      const rig = new Rig({ nats: [HOME, HOME], seed, loss: 0.2 });
      rig.exchange(3000);
      rig.settle();
      assertConnected(rig);
    }
  });

  it("when one gets its ticket twenty seconds late, a moment after that", () => {
    const rig = new Rig({ nats: [HOME, HOME] });
    rig.exchange(20_000);
    const since = rig.world.now;
    rig.settle();
    assertConnected(rig);
    assert(rig.connectedAfter(since)! < 200);
  });

  it("when tickets take ten minutes, though the NATs forget in one", () => {
    const brief = { ...HOME, timeoutMs: 60_000, ports: "random" } as const;
    const rig = new Rig({ nats: [brief, brief] });
    rig.world.runFor(600_000);
    const since = rig.world.now;
    rig.exchange();
    rig.settle();
    assertConnected(rig);
    assert(rig.connectedAfter(since)! < 200);
  });

  it("with the start put off by half a round trip", () => {
    const rig = new Rig({ nats: [HOME, HOME], trace: 1000 });
    const [a, b] = rig.peers.map(({ process }) => process.machine.rendezvous!);
    const since = rig.world.now;
    rig.peers[0].process.do((agent, now) => agent.setRemote(b!, now, { delayMs: 250 }));
    rig.world.runFor(249);
    assertEquals(rig.peers[0].process.machine.stats.checks, 0);
    rig.peers[1].process.do((agent, now) => agent.setRemote(a!, now));
    rig.settle();
    assertConnected(rig);
    assert(rig.connectedAfter(since)! < 250 + 100);
  });

  it("whatever roles they were given", () => {
    for (const roles of [["controlling"], ["controlled"], ["controlling", "controlled"]] as const) {
      const [one, other = one] = roles;
      const agents = [{ role: one }, { role: other }] as const;
      const rig = new Rig({ nats: [HOME, HOME], agents });
      rig.exchange();
      rig.settle();
      assertConnected(rig);
      const have = rig.peers.map(({ process }) => process.machine.role);
      assertEquals([...have].sort(), ["controlled", "controlling"]);
      const conflicts = rig.peers.reduce(
        (sum, { process }) => sum + process.machine.stats.conflicts,
        0,
      );
      assertEquals(conflicts > 0, roles.length === 1);
    }
  });

  it("with one socket of several that cannot be had", () => {
    const rig = new Rig({ agents: [{ hosts: ["203.0.113.11", "203.0.113.99"] }, {}] });
    rig.exchange();
    rig.settle();
    assertConnected(rig);
  });

  it("as strict machines", () => {
    const [a, b] = [1, 2].map((seed) => {
      const agent = new IceAgent({ random: seededRandom(seed), hosts: [`192.0.2.${seed}`] });
      const strict = new StrictMachine<IceEvent, IceAgent>(agent);
      strict.command(() => agent.gather(0), 0);
      const local = { address: `192.0.2.${seed}`, port: 4000 };
      strict.handleSocket("ice0", { ok: true, local }, 0);
      return { agent, strict, local };
    });
    const told = [a!, b!].map(({ agent }) => agent.rendezvous!);
    a!.strict.command(() => a!.agent.setRemote(told[1]!, 0), 0);
    b!.strict.command(() => b!.agent.setRemote(told[0]!, 0), 0);
    for (let now = 0; now < 60_000; now += 5) {
      for (const [one, other] of [[a!, b!], [b!, a!]] as const) {
        one.strict.handleTimeout(now);
        for (const action of drain(one.strict)) {
          if (action.type !== "send") continue;
          other.strict.handleDatagram(action.data, one.local, "ice0", now);
        }
      }
    }
    assert(a!.agent.selected && b!.agent.selected);
  });
});

describe("after they have met", () => {
  it("the pair lives on beyond the NATs' timeouts, and other sockets are closed", () => {
    const brief = { ...HOME, timeoutMs: 30_000 };
    const rig = new Rig({ nats: [brief, { ...HARD, timeoutMs: 30_000 }], seed: 3 });
    rig.exchange();
    rig.settle();
    assertConnected(rig);
    // The others are answered for three seconds (RFC 8445 §8.3).
    const { process: hard } = rig.peers[1];
    const { at } = hard.events.find(({ event }) => event.type === "connected")!;
    rig.world.runUntil(at + 2999);
    assert(hard.machine.sockets().length > 1);
    rig.world.runUntil(at + 3000);
    assertEquals(hard.machine.sockets().length, 1);
    rig.world.runFor(1000);
    for (const { process } of rig.peers) {
      const { socket } = process.machine.selected!;
      assertEquals(process.machine.sockets().map(({ key }) => key), [socket]);
    }
    rig.world.runFor(3_600_000);
    assertEquals(rig.last("lost"), [undefined, undefined]);
    const [a, b] = rig.last("connected");
    let heard: Endpoint | undefined;
    rig.peers[1].process.listed(b!.socket)!.onDatagram = (_, from) => heard = from;
    rig.peers[0].process.listed(a!.socket)!.send(a!.remote, new Uint8Array([99]));
    rig.world.runFor(1000);
    assertEquals(heard, b!.remote);
  });

  it("consent ends 30 s after the peer's last word, and nothing is sent then (RFC 7675 §5.1)", () => {
    const rig = new Rig({ nats: [HOME, HOME], trace: 10_000 });
    rig.exchange();
    rig.settle();
    rig.world.runFor(60_000);
    const since = rig.world.now;
    rig.peers[1].process.stop();
    rig.world.runFor(120_000);
    const [lost] = rig.last("lost");
    assertEquals(lost?.remote, rig.last("connected")[0]!.remote);
    const { at } = rig.peers[0].process.events.find(({ event }) => event.type === "lost")!;
    assert(at - since > 20_000 && at - since <= 30_100, `${at - since} ms`);
    const last = rig.world.trace.entries().findLast((entry) =>
      "packet" in entry && entry.packet.from.address === "203.0.113.1"
    );
    assert(last!.at <= at);
    assertEquals(rig.peers[0].process.machine.nextTimeout(), undefined);
  });

  it("consent is asked each 5 s, give or take a fifth, and never in a rhythm", () => {
    const rig = new Rig({ trace: 100_000 });
    rig.exchange();
    rig.settle();
    rig.world.runFor(10_000);
    const since = rig.world.now;
    rig.world.runFor(100_000);
    const times = rig.world.trace.entries().filter((entry) =>
      "packet" in entry && entry.at > since && entry.packet.from.address === "203.0.113.11" &&
      (decodeStun(entry.packet.data) as StunMessage).class === "request"
    ).map(({ at }) => at);
    const gaps = times.slice(1).map((at, i) => at - times[i]!);
    assert(gaps.every((gap) => gap >= 4000 && gap <= 6000), gaps.join(" "));
    assert(new Set(gaps.map(Math.round)).size > 5);
  });

  it("an end is told to the peer once, though packets get lost, and data flows on", () => {
    const rig = new Rig({ nats: [HOME, HOME], loss: 0.3, seed: 4 });
    rig.exchange();
    rig.settle();
    assertConnected(rig);
    rig.peers[0].process.do((agent, now) => {
      agent.end(now);
      agent.end(now);
    });
    rig.world.runFor(20_000);
    const ends = rig.peers.map(({ process }) =>
      process.events.filter(({ event }) => event.type === "ended").length
    );
    assertEquals(ends, [0, 1]);
    const [a, b] = rig.last("connected");
    const data = new Uint8Array([99]);
    let heard = 0;
    rig.peers[0].process.listed(a!.socket)!.onDatagram = () => heard++;
    for (let i = 0; i < 20; i++) {
      assertEquals(rig.peers[1].process.do((agent, now) => agent.send(data, now)), true);
    }
    rig.world.runFor(100);
    assert(heard > 0 && heard <= 20, `${heard} of ${b!.socket}`);
  });

  it("nothing is sent before, and what is sent is what it was at the call", () => {
    const bench = new Bench({ role: "controlling" });
    assertEquals(bench.agent.send(new Uint8Array(1), 0), false);
    bench.agent.setRemote(bench.peer, 0);
    bench.feed(bench.answer(bench.sent(0)[0]!), 10);
    bench.feed(bench.answer(bench.sent(60)[0]!), 70);
    drain(bench.agent);
    const data = new Uint8Array([1, 2]);
    assertEquals(bench.agent.send(data, 80), true);
    data[0] = 9;
    const [action] = drain(bench.agent) as SendAction[];
    assertEquals([...action!.data], [1, 2]);
    assertEquals([action!.socket, action!.to], ["ice0", PEER]);
    bench.agent.close(90);
    assertEquals(bench.agent.send(data, 90), false);
  });

  it("an answer to any question of the last 30 s is consent, from the peer alone", () => {
    const connected = () => {
      const bench = new Bench({ role: "controlling" });
      bench.agent.end(0);
      bench.agent.setRemote(bench.peer, 0);
      bench.feed(bench.answer(bench.sent(0)[0]!), 10);
      bench.feed(bench.answer(bench.sent(60)[0]!), 70);
      return bench;
    };
    const lostAt = (bench: Bench, from: number) => {
      const all = bench.requests(from, 100_000);
      return { last: all.at(-1)!.at, isOver: bench.agent.selected === undefined };
    };
    const silent = connected();
    const { ufrag } = silent.agent.rendezvous!;
    const [first] = silent.requests(71, 6070);
    assert(first!.at >= 4070 && first!.at <= 6070);
    const { username, priority, useCandidate, iceControlled } = first!.attributes;
    assertEquals([username, priority, useCandidate, iceControlled, first!.unknown], [
      `${silent.peer.ufrag}:${ufrag}`,
      candidatePriority(110, 65535),
      undefined,
      undefined,
      [],
    ]);
    assertEquals([first!.to, first!.socket], [PEER, "ice0"]);
    assert(lostAt(silent, 6071).last < 30_070);

    const late = connected();
    const [asked] = late.requests(71, 6070);
    late.requests(6071, 25_000);
    late.feed(late.answer(asked!), 25_001);
    const { last, isOver } = lostAt(late, 25_002);
    assert(last > 45_000 && last < 55_001 && isOver, `${last}`);

    const strange = connected();
    const [question] = strange.requests(71, 6070);
    strange.feed(strange.answer(question!), 6071, OTHER);
    assert(lostAt(strange, 6072).last < 30_070);
  });

  it("a restart begins anew while the old pair serves (RFC 8445 §9)", () => {
    const rig = new Rig({ nats: [HOME, HOME] });
    const old = rig.peers.map(({ process }) => structuredClone(process.machine.rendezvous!));
    rig.exchange();
    rig.settle();
    rig.world.runFor(10_000);
    for (const { process } of rig.peers) process.do((agent, now) => agent.restart(now));
    const fresh = rig.peers.map(({ process }) => process.machine.rendezvous!);
    for (const i of [0, 1]) {
      assertNotEquals(fresh[i]!.ufrag, old[i]!.ufrag);
      assertNotEquals(fresh[i]!.pwd, old[i]!.pwd);
      assertEquals(fresh[i]!.candidates, old[i]!.candidates);
    }
    // The tickets take a minute: consent by the old names goes on, and so does data.
    rig.world.runFor(60_000);
    const data = new Uint8Array([99]);
    assertEquals(rig.peers[0].process.do((agent, now) => agent.send(data, now)), true);
    assertEquals(rig.last("lost"), [undefined, undefined]);
    for (const { process } of rig.peers) process.takeEvents();
    rig.exchange();
    rig.settle();
    assertConnected(rig);
    rig.world.runFor(60_000);
    assertEquals(rig.last("lost"), [undefined, undefined]);
  });

  it("a restart tells what is left: the socket that was chosen", () => {
    const hosts = ["203.0.113.11", "203.0.113.21"];
    const rig = new Rig({ nats: [undefined, HARD], agents: [{}, {}], seed: 2 });
    rig.peers[0].host.attach(rig.world.segment("elsewhere"), hosts[1]!);
    const two = rig.peers[0].host.run<IceEvent, IceAgent>(
      new IceAgent({ random: seededRandom(5), hosts }),
    );
    two.do((agent, now) => agent.gather(now));
    const other = rig.peers[1].process;
    const [mine, theirs] = [two.machine.rendezvous!, other.machine.rendezvous!];
    assertEquals(mine.candidates.length, 2);
    two.do((agent, now) => agent.setRemote(theirs, now));
    other.do((agent, now) => agent.setRemote(mine, now));
    rig.world.runFor(10_000);
    assertEquals(two.machine.selected?.socket, "ice0");
    two.do((agent, now) => agent.restart(now));
    assertEquals(two.machine.rendezvous!.candidates.map(({ address }) => address), [hosts[0]]);

    const guessed = new Rig({ nats: [HOME, HARD], seed: 3 });
    guessed.exchange();
    guessed.settle();
    guessed.world.runFor(4000);
    const { process } = guessed.peers[1];
    const { socket } = process.machine.selected!;
    assert(socket.startsWith("guess"), socket);
    process.do((agent, now) => agent.restart(now));
    const [only, ...more] = process.machine.rendezvous!.candidates;
    assertEquals([only?.port, more.length], [process.listed(socket)!.port, 0]);
  });

  it("a restart finds its way by a socket that was opened for a guess", () => {
    for (const waitMs of [100, 4000]) {
      const rig = new Rig({ nats: [HOME, HARD], seed: 3 });
      rig.exchange();
      rig.settle();
      rig.world.runFor(waitMs);
      assert(rig.peers[1].process.machine.selected!.socket.startsWith("guess"));
      for (let times = 0; times < 2; times++) {
        for (const { process } of rig.peers) {
          process.takeEvents();
          process.do((agent, now) => agent.restart(now));
        }
        const since = rig.world.now;
        rig.exchange();
        rig.settle();
        assertConnected(rig);
        assert(rig.connectedAfter(since)! < 2000, `${waitMs} ${rig.connectedAfter(since)}`);
        rig.world.runFor(waitMs);
      }
    }
  });

  it("a restart whose tickets come one by one agrees on who decides", () => {
    for (let seed = 1; seed <= 16; seed++) {
      const rig = new Rig({ nats: [seed % 2 ? HOME : undefined, HOME], seed });
      rig.exchange(seed % 3 * 700);
      rig.settle();
      assertConnected(rig);
      for (const skewMs of [100, 3000]) {
        for (const { process } of rig.peers) {
          process.takeEvents();
          process.do((agent, now) => agent.restart(now));
        }
        rig.exchange(skewMs);
        const since = rig.world.now;
        rig.settle();
        assertConnected(rig);
        assert(rig.connectedAfter(since)! < 1000, `seed ${seed}: ${rig.connectedAfter(since)}`);
      }
      const roles = rig.peers.map(({ process }) => process.machine.role);
      assertEquals(roles.sort(), ["controlled", "controlling"]);
    }
  });

  it("a restart that nobody answers leaves the old pair", () => {
    const rig = new Rig({ nats: [HOME, HOME] });
    rig.exchange();
    rig.settle();
    const peer = createRendezvous([], seededRandom(9)).public;
    rig.peers[0].process.do((agent, now) => {
      agent.restart(now);
      agent.setRemote(peer, now);
    });
    rig.world.runFor(120_000);
    assertEquals(rig.last("failed")[0]?.reason, "no-answer");
    assertEquals(rig.last("lost"), [undefined, undefined]);
  });

  it("close ends it without a word", () => {
    const rig = new Rig();
    rig.exchange();
    rig.settle();
    const { process } = rig.peers[0];
    process.takeEvents();
    process.do((agent, now) => agent.close(now));
    rig.world.runFor(10_000);
    assertEquals(process.events, []);
    assertEquals(process.machine.sockets(), []);
    assertEquals(process.machine.selected, undefined);
  });
});

// One agent alone, its peer played by hand.

const LOCAL: Endpoint = { address: "192.0.2.7", port: 40_000 };
const PEER: Endpoint = { address: "203.0.113.9", port: 50_000 };
const OTHER: Endpoint = { address: "203.0.113.10", port: 50_001 };
const host = ({ address, port }: Endpoint, more: Partial<Candidate> = {}): Candidate => ({
  foundation: "1",
  transport: "udp",
  priority: candidatePriority(126, 65535),
  address,
  port,
  type: "host",
  ...more,
});

/** An agent with one socket, without servers, and a peer of another make. */
class Bench {
  readonly agent: IceAgent;
  readonly peer: PublicRendezvous;
  #ids = 0;

  constructor(
    options: Partial<ConstructorParameters<typeof IceAgent>[0]> = {},
    candidates: readonly Candidate[] = [host(PEER)],
  ) {
    const hosts = [LOCAL.address];
    this.agent = timed(new IceAgent({ random: seededRandom(1), hosts, ...options }));
    this.peer = createRendezvous(candidates, seededRandom(2)).public;
    this.agent.gather(0);
    this.agent.handleSocket("ice0", { ok: true, local: LOCAL }, 0);
  }

  /** The requests that it sends at a time, retransmissions included. */
  sent(now: number): (StunMessage & { to: Endpoint })[] {
    this.agent.handleTimeout(now);
    return drain(this.agent).flatMap((action) => {
      if (action.type !== "send") return [];
      const message = decodeStun((action as SendAction).data);
      if (typeof message === "string") throw new Error(message);
      return [{ ...message, to: (action as SendAction).to }];
    });
  }

  /** A request of the peer. */
  request(more: { key?: string; ufrag?: string; role?: bigint; use?: boolean } = {}): Uint8Array {
    const { ufrag, pwd } = this.agent.rendezvous!;
    const transactionId = new Uint8Array(12);
    transactionId[0] = ++this.#ids;
    const isControlling = this.agent.role === "controlled";
    const role = more.role ?? 1n;
    return encodeStun({
      class: "request",
      method: 1,
      transactionId,
      attributes: {
        username: `${ufrag}:${more.ufrag ?? this.peer.ufrag}`,
        priority: candidatePriority(110, 65535),
        ...(isControlling ? { iceControlling: role } : { iceControlled: role }),
        ...(more.use && { useCandidate: true as const }),
      },
    }, { key: shortTermKey(more.key ?? pwd), fingerprint: true });
  }

  /** The peer's answer to a check. */
  answer(check: StunMessage, more: { key?: string; code?: number } = {}): Uint8Array {
    const { transactionId } = check;
    const key = shortTermKey(more.key ?? this.peer.pwd);
    return more.code === undefined
      ? encodeStun({
        class: "success",
        method: 1,
        transactionId,
        attributes: { xorMappedAddress: LOCAL },
      }, { key, fingerprint: true })
      : encodeStun({
        class: "error",
        method: 1,
        transactionId,
        attributes: { errorCode: { code: more.code, reason: "" } },
      }, { key, fingerprint: true });
  }

  feed(data: Uint8Array, now: number, from = PEER, socket = "ice0"): boolean {
    return this.agent.handleDatagram(data, from, socket, now);
  }

  /** All requests that it sends from `from` on up to `until`, each at its time. */
  requests(from: number, until: number): (StunMessage & Sent)[] {
    const all: (StunMessage & Sent)[] = [];
    for (let now = from; now <= until;) {
      this.agent.handleTimeout(now);
      for (const action of drain(this.agent)) {
        if (action.type !== "send") continue;
        const message = decodeStun(action.data) as StunMessage;
        if (message.class === "request") {
          all.push({ ...message, at: now, to: action.to, socket: action.socket });
        }
      }
      const next = this.agent.nextTimeout();
      if (next === undefined) break;
      now = Math.max(next, now);
    }
    return all;
  }
}

/** Where a request went, and when. */
interface Sent {
  readonly at: number;
  readonly to: Endpoint;
  readonly socket: string;
}

/** What a machine tells; what it sends is passed over. */
function told(agent: IceAgent): IceEvent[] {
  return drain(agent).flatMap((action) =>
    action.type === "event" ? [action.event as IceEvent] : []
  );
}

/** A server's answer to a request. */
function seenAs({ transactionId }: StunMessage, port: number, otherAddress?: Endpoint): Uint8Array {
  const xorMappedAddress = { address: "203.0.113.7", port };
  const attributes = { xorMappedAddress, ...(otherAddress && { otherAddress }) };
  return encodeStun({ class: "success", method: 1, transactionId, attributes });
}

/** An agent that has agreed at 70 on the pair with its peer. */
function agreed(options: ConstructorParameters<typeof Bench>[0] = {}): Bench {
  const bench = new Bench({ role: "controlling", ...options });
  bench.agent.setRemote(bench.peer, 0);
  bench.feed(bench.answer(bench.sent(0)[0]!), 10);
  bench.feed(bench.answer(bench.sent(60)[0]!), 70);
  assertEquals(told(bench.agent).map(({ type }) => type), ["connected"]);
  return bench;
}

/** Whether the agent answers a request of its peer, and with what class. */
function classOfAnswer(bench: Bench, request: Uint8Array, now: number): string | undefined {
  bench.feed(request, now);
  const [answer] = drain(bench.agent).flatMap((action) =>
    action.type === "send" ? [decodeStun(action.data) as StunMessage] : []
  ).filter((message) => message.class !== "request");
  return answer?.class;
}

describe("a pair that is agreed on", () => {
  const hint = { mapping: "address-and-port-dependent", ports: [5000, 5002, 5004] } as const;
  const anew = { ...createRendezvous([host(OTHER)], seededRandom(9)).public, hint };

  it("is all that goes on after a restart that failed", () => {
    const bench = agreed({ timeoutMs: 2000 });
    const consent = bench.request();
    const { ufrag } = bench.agent.rendezvous!;
    bench.agent.restart(1000);
    bench.agent.setRemote(anew, 1000);
    const ofRestart = bench.request({ ufrag: anew.ufrag });
    assert(bench.requests(1000, 2999).some(({ to }) => to.address === OTHER.address));
    bench.agent.handleTimeout(3000);
    assertEquals(told(bench.agent).map(({ type }) => type), ["failed"]);
    assertEquals(bench.agent.rendezvous!.ufrag, ufrag);
    const later = bench.requests(3000, 20_000);
    assertEquals([...new Set(later.map(({ to }) => to.port))], [PEER.port]);
    assertEquals(classOfAnswer(bench, ofRestart, 20_000), undefined, "nobody listens to it");
    assertEquals(classOfAnswer(bench, consent, 20_000), "success");
    assertEquals(bench.agent.selected?.remote, PEER);
    bench.agent.end(20_000);
    assertEquals(drain(bench.agent).length, 1, "it may still be ended");
  });

  it("keeps its names and roles through restarts that fail or are begun anew", () => {
    const bench = agreed({ timeoutMs: 2000 });
    const consent = bench.request();
    const tieBreakers = new Set<bigint | undefined>();
    const asked = (from: number, until: number) => {
      for (const { to, attributes } of bench.requests(from, until)) {
        if (to.port === PEER.port) tieBreakers.add(attributes.iceControlling);
      }
    };
    asked(100, 7000);
    for (const at of [7000, 8000, 12_000, 13_000]) {
      bench.agent.restart(at);
      asked(at, at + 500);
      bench.agent.setRemote(anew, at + 500);
      // The larger of two of the same role takes the other one.
      bench.feed(bench.request({ ufrag: anew.ufrag }), at + 600, OTHER);
      asked(at + 600, at + 900);
      assertEquals(classOfAnswer(bench, consent, at + 900), "success", `${at}`);
    }
    asked(13_900, 20_000);
    assertEquals([tieBreakers.size, tieBreakers.has(undefined)], [1, false]);
    assertEquals(bench.agent.role, "controlling");
    assertEquals(classOfAnswer(bench, consent, 20_000), "success");
  });

  it("is asked for by its names alone: they find no other pair for a restart", () => {
    const bench = agreed();
    const consent = bench.request();
    bench.agent.restart(1000);
    bench.agent.setRemote(bench.peer, 1000);
    bench.requests(1000, 1100);
    bench.feed(consent, 1200, OTHER);
    const to = bench.requests(1200, 3000).map((request) => request.to.port);
    assertEquals([to.length > 0, to.includes(OTHER.port)], [true, false]);
  });

  it("is no less agreed on where a question for consent is refused", () => {
    const bench = agreed();
    const [question] = bench.requests(100, 6000);
    bench.feed(bench.answer(question!, { code: 487 }), 6001);
    bench.feed(bench.answer(question!, { code: 400 }), 6002);
    const { role, stats: { conflicts } } = bench.agent;
    assertEquals([role, conflicts], ["controlling", 0]);
    assertEquals(told(bench.agent), []);
    // It is no consent.
    bench.requests(6002, 30_069);
    assertEquals(bench.agent.selected?.remote, PEER);
    bench.agent.handleTimeout(30_070);
    assertEquals(told(bench.agent).map(({ type }) => type), ["lost"]);
  });

  it("is lost with its socket, at once", () => {
    const gone = { ok: false, isOpen: false, code: "network", message: "gone" } as const;
    const bench = agreed();
    bench.agent.handleSocket("ice0", gone, 100);
    assertEquals(told(bench.agent), [{ type: "lost", remote: PEER }]);
    assertEquals([bench.agent.sockets(), bench.agent.nextTimeout()], [[], undefined]);
  });

  it("is lost 30 s after its peer's last word on a clock of fractions, too", () => {
    let at = 0.1;
    while (at + 30_000 - at >= 30_000) at += 0.1;
    let drawn = 0;
    const random = seededRandom(1);
    const bench = new Bench({
      role: "controlling",
      random: {
        u32: () => random.u32(),
        fill(bytes) {
          if (++drawn > 200) throw new Error("it never ends");
          return random.fill(bytes);
        },
      },
    });
    bench.agent.setRemote(bench.peer, 0);
    bench.feed(bench.answer(bench.sent(0)[0]!), 0);
    bench.feed(bench.answer(bench.sent(at)[0]!), at);
    assertEquals(bench.agent.selected?.remote, PEER);
    for (let next = bench.agent.nextTimeout(); next !== undefined;) {
      bench.agent.handleTimeout(next);
      const events = told(bench.agent);
      if (events.length > 0 && events[0]!.type !== "connected") {
        assertEquals([events[0]!.type, next], ["lost", at + 30_000]);
      }
      next = bench.agent.nextTimeout();
    }
  });

  it("is left where the controlling peer has not heard that and nominates another one", () => {
    const bench = new Bench({ role: "controlled" }, [host(PEER)]);
    bench.agent.setRemote(bench.peer, 0);
    bench.feed(bench.answer(bench.sent(0)[0]!), 10);
    bench.feed(bench.request({ use: true }), 20);
    assertEquals(bench.agent.selected?.remote, PEER);
    drain(bench.agent);
    const ordinary = bench.request();
    bench.feed(ordinary, 1000, OTHER);
    assertEquals(bench.sent(1000).filter(({ class: of }) => of === "request"), []);
    bench.feed(bench.request({ use: true }), 1020, OTHER);
    const [check, ...more] = bench.requests(1020, 1020);
    assertEquals([check!.to, more], [OTHER, []]);
    bench.feed(bench.answer(check!), 1040, OTHER);
    assertEquals(told(bench.agent).map((event) => event.type === "connected" && event.remote), [
      OTHER,
    ]);
    assertEquals(bench.agent.selected?.remote, OTHER);
    // What was in doubt is not asked again.
    assertEquals(bench.requests(1041, 4000), []);
  });
});

describe("a check", () => {
  it("says what RFC 8445 §7.1 wants", () => {
    const bench = new Bench({ role: "controlling" });
    bench.agent.setRemote(bench.peer, 0);
    const [check] = bench.sent(0);
    const { attributes, hasFingerprint, integrityAt } = check!;
    const { ufrag } = bench.agent.rendezvous!;
    assertEquals(attributes.username, `${bench.peer.ufrag}:${ufrag}`);
    assertEquals(attributes.priority, candidatePriority(110, 65534));
    assertEquals(typeof attributes.iceControlling, "bigint");
    assertEquals(attributes.iceControlled, undefined);
    assertEquals(attributes.useCandidate, undefined, "a peer of another make: regular nomination");
    assert(hasFingerprint && integrityAt > 0);
    assertEquals(check!.to, PEER);
  });

  it("is sent seven times as RFC 8489 §6.2.1 has it, the same bytes each time", () => {
    const bench = new Bench({ timeoutMs: 100_000 });
    bench.agent.setRemote(bench.peer, 0);
    const times: number[] = [];
    const bytes = new Set<string>();
    const run = (from: number, until: number) => {
      for (let now = from; now < until; now += 10) {
        for (const { bytes: data } of bench.sent(now)) {
          times.push(now);
          bytes.add(data.join());
        }
      }
    };
    run(0, 39_500);
    assertEquals(times, [0, 500, 1500, 3500, 7500, 15_500, 31_500]);
    assertEquals(bytes.size, 1);
    // It has failed 39.5 s after the first; there is time for another one.
    run(39_500, 39_600);
    assertEquals(times.slice(7), [39_550]);
    assertEquals(bytes.size, 2);
  });

  it("is all that an agent wakes for that has nothing to guess", () => {
    const hint = { mapping: "unknown", ports: [] } as const;
    const bench = new Bench({ timeoutMs: 20_000 });
    bench.agent.setRemote({ ...bench.peer, hint }, 0);
    const wakes: number[] = [];
    for (let now: number | undefined = 0; now !== undefined; now = bench.agent.nextTimeout()) {
      bench.sent(now);
      wakes.push(now);
    }
    assertEquals(wakes, [0, 500, 1500, 3500, 7500, 15_500, 20_000]);
  });

  it("is asked for again where many wait no sooner than all of them have had their turn", () => {
    const many = Array.from({ length: 20 }, (_, i) =>
      host({ ...PEER, port: i + 1 }, {
        foundation: `${i}`,
        priority: 1000 - i,
      }));
    const bench = new Bench({ role: "controlling" }, many);
    bench.agent.setRemote(bench.peer, 0);
    const sent = bench.requests(0, 1600).filter(({ to }) => to.port === 1).map(({ at }) => at);
    assertEquals(sent, [0, 20 * 50]);
  });

  it("waits for the second of two agents' sockets, which is checked from once it is open", () => {
    const agent = new IceAgent({
      random: seededRandom(1),
      hosts: [LOCAL.address, "192.0.2.8"],
      role: "controlling",
    });
    const { public: peer } = createRendezvous([host(PEER)], seededRandom(2));
    agent.gather(0);
    agent.handleSocket("ice0", { ok: true, local: LOCAL }, 0);
    agent.setRemote(peer, 0);
    assertEquals((drain(agent) as SendAction[]).filter(({ type }) => type === "send").length, 1);
    agent.handleSocket("ice1", { ok: true, local: { ...LOCAL, address: "192.0.2.8" } }, 70);
    const sends = drain(agent).filter((action) => action.type === "send");
    assertEquals(sends.map(({ socket, to }) => [socket, to]), [["ice1", PEER]]);
  });

  it("follows another one after the pace that both wish for, and 50 ms where one says nothing", () => {
    for (const [pacingMs, wanted] of [[5, 5], [70, 70], [undefined, 50]] as const) {
      const many = [1, 2, 3].map((i) => host({ ...PEER, port: i }, { foundation: `${i}` }));
      const bench = new Bench({}, many);
      bench.agent.setRemote({ ...bench.peer, ...(pacingMs !== undefined && { pacingMs }) }, 0);
      const times: number[] = [];
      for (let now = 0; now < 400; now++) times.push(...bench.sent(now).map(() => now));
      assertEquals(times, [0, wanted, 2 * wanted]);
    }
  });

  it("that succeeds is followed by one that nominates, and that by the choice (RFC 8445 §8.1)", () => {
    const bench = new Bench({ role: "controlling" });
    bench.agent.setRemote(bench.peer, 0);
    bench.feed(bench.answer(bench.sent(0)[0]!), 10);
    assertEquals(bench.agent.selected, undefined);
    const [nomination] = bench.sent(60);
    assertEquals(nomination!.attributes.useCandidate, true);
    drain(bench.agent);
    bench.feed(bench.answer(nomination!), 70);
    assertEquals(bench.agent.selected, { socket: "ice0", remote: PEER });
    assertEquals(told(bench.agent), [{
      type: "connected",
      socket: "ice0",
      local: LOCAL,
      isRelayed: false,
      remote: PEER,
      mapped: LOCAL,
      elapsedMs: 70,
    }]);
  });

  it("to a better pair is waited for a tenth of a second where both are behind one NAT", () => {
    const shared = { address: "203.0.113.7", port: 7000 };
    const inside = { address: "10.0.0.9", port: 9000 };
    const candidates = [
      host(inside),
      host(shared, { type: "srflx", foundation: "2", priority: candidatePriority(100, 65535) }),
    ];
    const hint = { mapping: "unknown", ports: [] } as const;
    const begun = (isShared: boolean) => {
      const bench = new Bench({ role: "controlling" }, candidates);
      if (isShared) bench.agent.addMapped({ ...shared, port: 1 }, undefined, 0);
      bench.agent.setRemote({ ...bench.peer, hint, pacingMs: 5 }, 0);
      const checks = bench.requests(0, 20);
      assertEquals(checks.map(({ to, at }) => [to, at]), [[inside, 0], [shared, 5]]);
      return { bench, checks };
    };
    const nominated = (bench: Bench, from: number, until: number) =>
      bench.requests(from, until).filter(({ attributes }) => attributes.useCandidate)
        .map(({ to, at }) => [to, at]);
    const alone = begun(true);
    alone.bench.feed(alone.bench.answer(alone.checks[1]!), 20, shared);
    assertEquals(nominated(alone.bench, 20, 119), []);
    assertEquals(nominated(alone.bench, 120, 120), [[shared, 120]]);
    const better = begun(true);
    better.bench.feed(better.bench.answer(better.checks[1]!), 20, shared);
    better.bench.feed(better.bench.answer(better.checks[0]!), 60, inside);
    assertEquals(nominated(better.bench, 60, 200), [[inside, 60]]);
    const failed = begun(true);
    failed.bench.feed(failed.bench.answer(failed.checks[0]!, { code: 400 }), 10, inside);
    failed.bench.feed(failed.bench.answer(failed.checks[1]!), 20, shared);
    assertEquals(nominated(failed.bench, 20, 200), [[shared, 20]]);
    const apart = begun(false);
    apart.bench.feed(apart.bench.answer(apart.checks[1]!), 20, shared);
    assertEquals(nominated(apart.bench, 20, 200), [[shared, 20]]);
  });

  it("of a natkit nominates at once, and another pair where that is not answered in a second", () => {
    const bench = new Bench({ role: "controlling" }, [host(OTHER, { foundation: "2" })]);
    const hint = { mapping: "unknown", ports: [] } as const;
    bench.agent.setRemote({ ...bench.peer, hint, pacingMs: 5 }, 0);
    const [ordinary] = bench.sent(0);
    bench.feed(bench.request(), 20);
    const [, nomination] = bench.sent(20);
    assertEquals([nomination!.to, nomination!.attributes.useCandidate], [PEER, true]);
    bench.feed(bench.answer(ordinary!), 30, OTHER);
    const nominated = (now: number) =>
      bench.sent(now).filter(({ attributes }) => attributes.useCandidate).map(({ to }) => to.port);
    assertEquals(nominated(30), []);
    assertEquals(nominated(1019), [PEER.port], "sent again");
    assertEquals(nominated(1020), [OTHER.port]);
  });

  it("answered with what must be understood and is not has failed (STUN-05)", () => {
    const bench = new Bench({ role: "controlling" });
    bench.agent.setRemote(bench.peer, 0);
    const { transactionId } = bench.sent(0)[0]!;
    const answer = encodeStun({
      class: "success",
      method: 1,
      transactionId,
      attributes: { xorMappedAddress: LOCAL },
      unknown: [{ type: 0x7fff, value: new Uint8Array(4) }],
    }, { key: shortTermKey(bench.peer.pwd), fingerprint: true });
    bench.feed(answer, 10);
    assertEquals(
      bench.requests(10, 10_000),
      [],
      "it is nominated no more than asked again at once",
    );
  });

  it("that nominates the best pair is the only one, whatever else is answered meanwhile", () => {
    const other = host(OTHER, { foundation: "2", priority: candidatePriority(126, 1) });
    const bench = new Bench({ role: "controlling" }, [host(PEER), other]);
    bench.agent.setRemote(bench.peer, 0);
    const [best, worse] = bench.requests(0, 60);
    assertEquals([best!.to, worse!.to], [PEER, OTHER]);
    bench.feed(bench.answer(best!), 60);
    const [nomination] = bench.requests(60, 100);
    bench.feed(bench.answer(worse!), 101, OTHER);
    const later = bench.requests(101, 4000);
    assertEquals(later.map(({ to, attributes }) => [to, attributes.useCandidate]), [
      [PEER, true],
      [PEER, true],
      [PEER, true],
    ]);
    const ids = new Set(later.map(({ transactionId }) => transactionId.join()));
    assertEquals([...ids], [nomination!.transactionId.join()]);
  });

  it("that nominated, and was answered when another one did, chooses nothing", () => {
    const bench = new Bench({ role: "controlling" }, [host(OTHER, { foundation: "2" })]);
    const hint = { mapping: "unknown", ports: [] } as const;
    bench.agent.setRemote({ ...bench.peer, hint, pacingMs: 5 }, 0);
    const [ordinary] = bench.sent(0);
    bench.feed(bench.request(), 20);
    const [, first] = bench.sent(20);
    bench.feed(bench.answer(ordinary!), 30, OTHER);
    const [second] = bench.requests(30, 1020).filter(({ to, at }) =>
      to.port === OTHER.port && at === 1020
    );
    assertEquals(second!.attributes.useCandidate, true);
    bench.feed(bench.answer(first!), 1100);
    // The peer has heard, or will hear, of the second one last.
    assertEquals(bench.agent.selected, undefined);
    assertEquals(bench.requests(1100, 1530).map(({ to, at }) => [to, at]), [[OTHER, 1520]]);
    bench.feed(bench.answer(second!), 1540, OTHER);
    assertEquals(bench.agent.selected?.remote, OTHER);
  });

  it("of a natkit nominates at once again where what it nominated was refused", () => {
    const bench = new Bench({ role: "controlling" }, []);
    const hint = { mapping: "unknown", ports: [] } as const;
    bench.agent.setRemote({ ...bench.peer, hint, pacingMs: 5 }, 0);
    for (const [at, from] of [[10, PEER], [30, OTHER]] as const) {
      bench.feed(bench.request(), at, from);
      const [nomination, ...more] = bench.requests(at, at);
      assertEquals([nomination!.to, nomination!.attributes.useCandidate], [from, true]);
      assertEquals(more, []);
      bench.feed(bench.answer(nomination!, { code: 400 }), at + 5, from);
    }
  });

  it("answered by somebody without the password is not answered", () => {
    const bench = new Bench({ role: "controlling" });
    bench.agent.setRemote(bench.peer, 0);
    const [check] = bench.sent(0);
    assertEquals(bench.feed(bench.answer(check!, { key: "x".repeat(24) }), 10), true);
    assertEquals(bench.agent.stats.forged, 1);
    assertEquals(bench.sent(60), []);
    assertEquals(bench.sent(500).length, 1, "it is asked again");
  });

  it("answered from elsewhere, or by another socket, has found no path (§7.2.5.2.1)", () => {
    const bench = new Bench({ role: "controlling", timeoutMs: 5000 });
    bench.agent.setRemote(bench.peer, 0);
    const [check] = bench.sent(0);
    const answer = bench.answer(check!);
    bench.agent.handleDatagram(answer, PEER, "another", 5);
    assertEquals(bench.agent.stats.confirmed, 0);
    bench.feed(answer, 10, OTHER);
    bench.feed(answer, 11);
    for (let now = 12; now < 5000; now += 10) {
      assert(bench.sent(now).every(({ attributes }) => !attributes.useCandidate));
    }
    assertEquals(bench.agent.selected, undefined);
  });

  it("answered from elsewhere has failed, and is asked anew once nothing else is left", () => {
    const bench = new Bench({ role: "controlling" });
    bench.agent.setRemote(bench.peer, 0);
    bench.feed(bench.answer(bench.sent(0)[0]!), 10, OTHER);
    assertEquals(bench.sent(14_999), []);
    const [again] = bench.sent(15_000);
    assertEquals(again!.to, PEER);
    bench.feed(bench.answer(again!), 15_010);
    assertEquals(bench.sent(15_100)[0]!.attributes.useCandidate, true);
  });

  it("that nominates and is refused leaves the next pair its place", () => {
    const bench = new Bench({ role: "controlling" }, [
      host(PEER),
      host(OTHER, { foundation: "2", priority: 1000 }),
    ]);
    bench.agent.setRemote(bench.peer, 0);
    const [one, other] = bench.requests(0, 50);
    bench.feed(bench.answer(one!), 60);
    bench.feed(bench.answer(other!), 60, OTHER);
    const [nomination] = bench.requests(60, 60);
    assertEquals([nomination!.to, nomination!.attributes.useCandidate], [PEER, true]);
    bench.feed(bench.answer(nomination!, { code: 400 }), 70);
    const [next] = bench.requests(70, 70);
    assertEquals([next!.to, next!.attributes.useCandidate], [OTHER, true]);
  });

  it("refused where another one of the pair has come back takes nothing from it", () => {
    const bench = new Bench({ role: "controlled" });
    bench.agent.setRemote(bench.peer, 0);
    bench.feed(bench.request(), 10);
    const [one, other] = bench.requests(10, 50);
    bench.feed(bench.answer(one!), 60);
    bench.feed(bench.answer(other!, { code: 400 }), 70);
    bench.feed(bench.request({ use: true }), 80);
    assertEquals(bench.agent.selected?.remote, PEER);
  });

  it("goes to no endpoint that speaks TCP", () => {
    const bench = new Bench({}, [
      host(PEER),
      host(OTHER, { foundation: "2", transport: "tcp", tcpType: "so" }),
    ]);
    bench.agent.setRemote(bench.peer, 0);
    assertEquals(bench.requests(0, 1000).map(({ to }) => to), [PEER, PEER]);
  });

  it("refused with 487 comes back in the other role (RFC 8445 §7.2.5.1)", () => {
    const bench = new Bench({ role: "controlling" });
    bench.agent.setRemote(bench.peer, 0);
    const [check] = bench.sent(0);
    bench.feed(bench.answer(check!, { code: 487 }), 10);
    assertEquals(bench.agent.role, "controlled");
    const [again] = bench.sent(60);
    assertEquals(typeof again!.attributes.iceControlled, "bigint");
    assertNotEquals(again!.attributes.iceControlled, check!.attributes.iceControlling);
  });
});

describe("a request of the peer", () => {
  it("is answered with where it came from, and asks for a check there (§7.3.1.4)", () => {
    const bench = new Bench();
    bench.agent.setRemote({ ...bench.peer, candidates: [] }, 0);
    assertEquals(bench.feed(bench.request(), 5, OTHER), true);
    const [answer, check] = bench.sent(5);
    assertEquals(answer!.class, "success");
    assertEquals(answer!.attributes.xorMappedAddress, OTHER);
    assert(answer!.integrityAt > 0 && answer!.hasFingerprint);
    assertEquals([check!.class, check!.to], ["request", OTHER]);
  });

  it("without the password, or of a stranger, is answered with nothing", () => {
    const bench = new Bench();
    bench.agent.setRemote(bench.peer, 0);
    bench.sent(0);
    assertEquals(bench.feed(bench.request({ key: "y".repeat(24) }), 5, OTHER), true);
    assertEquals(bench.feed(bench.request({ ufrag: "strange" }), 6, OTHER), true);
    assertEquals(bench.agent.stats.forged, 2);
    const stranger = encodeStun({
      class: "request",
      method: 1,
      transactionId: new Uint8Array(12),
      attributes: { username: "nobody:us" },
    });
    assertEquals(bench.feed(stranger, 7, OTHER), false);
    assertEquals(bench.agent.stats.strange, 1);
    assertEquals(bench.sent(7), []);
  });

  it("with what must be understood and is not gets 420 (STUN-05)", () => {
    const bench = new Bench();
    const { ufrag, pwd } = bench.agent.rendezvous!;
    const data = encodeStun({
      class: "request",
      method: 1,
      transactionId: new Uint8Array(12),
      attributes: { username: `${ufrag}:${bench.peer.ufrag}`, priority: 1 },
      unknown: [{ type: 0x7abc, value: new Uint8Array(4) }],
    }, { key: shortTermKey(pwd), fingerprint: true });
    bench.feed(data, 1);
    const [answer, ...more] = bench.sent(1);
    assertEquals(more, []);
    assertEquals(answer!.attributes.errorCode?.code, 420);
    assertEquals(answer!.attributes.unknownAttributes, [0x7abc]);
  });

  it("asks for one check in 200 ms, and those before it are answered, but not sent again", () => {
    const bench = new Bench({ role: "controlled" });
    bench.agent.setRemote(bench.peer, 0);
    const [first] = bench.requests(0, 5);
    const sent: number[] = [];
    for (const at of [10, 100, 209, 210, 409, 410]) {
      bench.feed(bench.request(), at);
      sent.push(...bench.requests(at, at === 10 ? 60 : at).map((one) => one.at));
    }
    assertEquals(sent, [50, 210, 410]);
    assertEquals(bench.requests(411, 950).map(({ at }) => at), [910], "the last one alone");
    bench.feed(bench.answer(first!), 960);
    bench.feed(bench.request({ use: true }), 970);
    assertEquals(bench.agent.selected?.remote, PEER);
  });

  it("leaves of the checks that it asked for the last five, whose answers are known", () => {
    for (const [requests, isKnown] of [[4, true], [5, false]] as const) {
      const bench = new Bench({ role: "controlled" });
      bench.agent.setRemote(bench.peer, 0);
      const [first] = bench.requests(0, 5);
      for (let i = 1; i <= requests; i++) {
        bench.feed(bench.request(), i * 250);
        assertEquals(bench.requests(i * 250, i * 250).length, 1);
      }
      bench.feed(bench.answer(first!), 2000);
      assertEquals(bench.agent.stats.confirmed, isKnown ? 1 : 0, `${requests}`);
    }
  });

  it("of more than sixteen, before the ticket is there, is answered and then forgotten", () => {
    const bench = new Bench({ role: "controlled" });
    for (let i = 1; i <= 20; i++) bench.feed(bench.request(), 5, { ...OTHER, port: i });
    assertEquals(bench.sent(5).length, 20);
    bench.agent.setRemote({ ...bench.peer, candidates: [], pacingMs: 5 }, 100);
    const checked = bench.requests(100, 400).map(({ to }) => to.port);
    assertEquals(checked, Array.from({ length: 16 }, (_, i) => i + 1));
  });

  it("from where the peer said it is uses up nothing of what is left for elsewhere", () => {
    const bench = new Bench();
    bench.agent.setRemote(bench.peer, 0);
    for (let i = 0; i < 40; i++) bench.feed(bench.request(), 5 + i);
    bench.sent(50);
    bench.feed(bench.request(), 60, OTHER);
    assert(bench.sent(200).some((one) => one.class === "request" && one.to.port === OTHER.port));
  });

  it("that comes before the peer's ticket is answered, and checked once that is there", () => {
    const bench = new Bench({ role: "controlled" });
    bench.feed(bench.request({ use: true }), 5, OTHER);
    const early = bench.sent(5);
    assertEquals(early.map((message) => message.class), ["success"]);
    bench.agent.setRemote({ ...bench.peer, candidates: [] }, 100);
    const [check] = bench.sent(100);
    assertEquals(check!.to, OTHER);
    bench.feed(bench.answer(check!), 110, OTHER);
    assertEquals(bench.agent.selected?.remote.port, OTHER.port);
  });

  it("nominates where we are controlled, once our own check has come back (§7.3.1.5)", () => {
    const bench = new Bench({ role: "controlled" });
    bench.agent.setRemote(bench.peer, 0);
    const [check] = bench.sent(0);
    bench.feed(bench.request({ use: true }), 5);
    assertEquals(bench.agent.selected, undefined);
    bench.feed(bench.answer(check!), 10);
    assertEquals(bench.agent.selected?.remote.port, PEER.port);
  });

  it("that nominates the same pair once more tells of it no more", () => {
    const bench = new Bench({ role: "controlled" });
    bench.agent.setRemote(bench.peer, 0);
    const [check] = bench.sent(0);
    bench.feed(bench.answer(check!), 5);
    const connected = () =>
      drain(bench.agent).filter((action) =>
        action.type === "event" && (action.event as IceEvent).type === "connected"
      ).length;
    bench.feed(bench.request({ use: true }), 6);
    assertEquals(connected(), 1);
    bench.feed(bench.request({ use: true }), 7);
    assertEquals(connected(), 0);
  });

  it("finds its pair a place, though a hundred are there whose priority is higher", () => {
    const hosts = ["192.0.2.7", "192.0.2.8", "192.0.2.9", "192.0.2.10"];
    const many = Array.from({ length: 32 }, (_, i) => host({ ...PEER, port: 1 + i }));
    const bench = new Bench({ role: "controlling", hosts }, many);
    for (const [i, address] of hosts.entries()) {
      bench.agent.handleSocket(`ice${i}`, { ok: true, local: { address, port: 40_000 } }, 0);
    }
    bench.agent.setRemote(bench.peer, 0);
    bench.feed(bench.request(), 10, OTHER);
    bench.feed(bench.request(), 20, { ...OTHER, port: 9 });
    const [check] = bench.requests(20, 60).filter(({ to }) => to.port === OTHER.port);
    bench.feed(bench.answer(check!), 70, OTHER);
    const nomination = bench.requests(70, 200).find(({ attributes }) => attributes.useCandidate);
    assertEquals(nomination?.to, OTHER);
  });

  it("asks for no check of a pair that is known to work", () => {
    const bench = new Bench({ role: "controlled" });
    bench.agent.setRemote(bench.peer, 0);
    const [check] = bench.requests(0, 0);
    bench.feed(bench.answer(check!), 10);
    bench.feed(bench.request(), 300);
    assertEquals(bench.requests(300, 2000), []);
  });

  it("nominates nothing where we are controlling", () => {
    const bench = new Bench({ role: "controlling" });
    bench.agent.setRemote(bench.peer, 0);
    const [check] = bench.sent(0);
    bench.feed(bench.request({ use: true }), 5);
    bench.feed(bench.answer(check!), 10);
    assertEquals(bench.agent.selected, undefined);
  });

  it("in our role, where what works was left to the peer to choose from, has us choose", () => {
    const bench = new Bench({ role: "controlled" });
    bench.agent.setRemote(bench.peer, 0);
    bench.feed(bench.answer(bench.sent(0)[0]!), 10);
    assertEquals(bench.requests(10, 1000), []);
    const { ufrag, pwd } = bench.agent.rendezvous!;
    const attributes = {
      username: `${ufrag}:${bench.peer.ufrag}`,
      priority: 1,
      iceControlled: 0n,
    };
    const transactionId = new Uint8Array(12).fill(9);
    const fields = { class: "request", method: 1, transactionId, attributes } as const;
    bench.feed(encodeStun(fields, { key: shortTermKey(pwd), fingerprint: true }), 1001);
    assertEquals(bench.agent.role, "controlling");
    assertEquals(bench.requests(1001, 1100).map((request) => request.attributes.useCandidate), [
      true,
    ]);
  });

  it("in our role gets 487, or makes us change it: the larger tie-breaker controls (§7.3.1.1)", () => {
    for (const role of ["controlling", "controlled"] as const) {
      for (const theirs of [0n, 2n ** 64n - 1n]) {
        const bench = new Bench({ role });
        bench.agent.setRemote(bench.peer, 0);
        bench.sent(0);
        const { ufrag, pwd } = bench.agent.rendezvous!;
        const attributes = {
          username: `${ufrag}:${bench.peer.ufrag}`,
          priority: 1,
          ...(role === "controlling" ? { iceControlling: theirs } : { iceControlled: theirs }),
        };
        const fields = { class: "request", method: 1, transactionId: new Uint8Array(12) } as const;
        const key = shortTermKey(pwd);
        bench.feed(encodeStun({ ...fields, attributes }, { key, fingerprint: true }), 5);
        const keeps = role === "controlling" ? theirs === 0n : theirs !== 0n;
        assertEquals(bench.agent.role === role, keeps, `${role} ${theirs}`);
        assertEquals(bench.sent(5)[0]!.attributes.errorCode?.code, keeps ? 487 : undefined);
      }
    }
  });

  it("that changes our role changes what is checked first: the larger end is the controlling one's", () => {
    for (
      const [role, isTurned] of [
        ["controlling", false],
        ["controlling", true],
        ["controlled", false],
      ] as const
    ) {
      const hosts = [LOCAL.address, "192.0.2.8"];
      const agent = new IceAgent({ random: seededRandom(1), hosts, role });
      agent.gather(0);
      for (const [i, address] of hosts.entries()) {
        agent.handleSocket(`ice${i}`, { ok: true, local: { address, port: 40_000 } }, 0);
      }
      const { ufrag, pwd, candidates } = agent.rendezvous!;
      const theirs = candidates.map(({ priority }, i) =>
        host({ ...PEER, port: i + 1 }, { foundation: `${i}`, priority: priority - 256 })
      );
      const { public: peer } = createRendezvous(theirs, seededRandom(2));
      agent.setRemote(peer, 0, { delayMs: 1000 });
      const attributes = {
        username: `${ufrag}:${peer.ufrag}`,
        priority: 1,
        iceControlling: isTurned ? 2n ** 64n - 1n : 0n,
      };
      const fields = { class: "request", method: 1, transactionId: new Uint8Array(12) } as const;
      const of = { key: shortTermKey(pwd), fingerprint: true };
      agent.handleDatagram(encodeStun({ ...fields, attributes }, of), PEER, "ice0", 5);
      assertEquals(agent.role, isTurned ? "controlled" : role);
      const checks: string[] = [];
      for (let now = 1000; now <= 1200; now += 50) {
        agent.handleTimeout(now);
        for (const action of drain(agent)) {
          if (action.type === "send" && action.to.port < 3) {
            checks.push(`${action.socket} ${action.to.port}`);
          }
        }
      }
      const equals = agent.role === "controlled" ? ["ice1 1", "ice0 2"] : ["ice0 2", "ice1 1"];
      assertEquals(checks, ["ice0 1", ...equals, "ice1 2"]);
    }
  });

  it("replayed from elsewhere leads to no choice and to few packets", () => {
    const bench = new Bench({ role: "controlled", timeoutMs: 60_000 });
    bench.agent.setRemote(bench.peer, 0);
    const seen = bench.request({ use: true });
    const perPort = new Map<number, number>();
    for (let i = 0; i < 1000; i++) bench.feed(seen, 5, { address: "203.0.113.66", port: 1000 + i });
    for (let now = 5; now < 60_000; now += 50) {
      for (const { to, class: kind } of bench.sent(now)) {
        if (kind !== "request" || to.address === PEER.address) continue;
        perPort.set(to.port, (perPort.get(to.port) ?? 0) + 1);
      }
    }
    assert(perPort.size <= 32, `${perPort.size} endpoints were checked`);
    assert([...perPort.values()].every((count) => count <= MAX_PROBES_PER_ENDPOINT));
    assertEquals(bench.agent.selected, undefined);
  });
});

describe("what is the application's", () => {
  it("is never taken: data, other protocols, and STUN that is nobody's", () => {
    const bench = new Bench();
    bench.agent.setRemote(bench.peer, 0);
    const strange = encodeStun({
      class: "success",
      method: 1,
      transactionId: new Uint8Array(12).fill(7),
      attributes: { xorMappedAddress: LOCAL },
    });
    const broken = bench.request();
    broken[30]! ^= 1;
    for (
      const data of [
        new Uint8Array(0),
        new Uint8Array([1, 2, 3]),
        new Uint8Array(100).fill(1),
        new Uint8Array([22, 254, 253, 0, 0]),
        new Uint8Array([128, 96, 0, 1]),
        strange,
        strange.subarray(0, 24),
        broken,
      ]
    ) {
      assertEquals(bench.feed(data, 1), false, data.join());
    }
    const { data, malformed, strange: unknown } = bench.agent.stats;
    assertEquals([data, malformed, unknown], [6, 1, 1]);
    assertEquals(bench.sent(1).filter(({ class: kind }) => kind !== "request"), []);
  });

  it("does not begin with the peer's answers to checks that are over", () => {
    const bench = new Bench({ role: "controlling" });
    bench.agent.setRemote(bench.peer, 0);
    const answer = bench.answer(bench.sent(0)[0]!);
    bench.feed(answer, 10);
    assertEquals(bench.feed(answer, 11), true);
    const forged = bench.answer({ ...bench.sent(60)[0]!, transactionId: new Uint8Array(12) }, {
      key: "x".repeat(24),
    });
    assertEquals(bench.feed(forged, 12), false);
  });

  it("is told from a stranger's by the checks that came back", () => {
    const bench = new Bench();
    bench.agent.setRemote(bench.peer, 0);
    assertEquals(bench.agent.isPeer(PEER, "ice0"), false);
    bench.feed(bench.answer(bench.sent(0)[0]!), 10);
    assertEquals(bench.agent.isPeer(PEER, "ice0"), true);
    assertEquals(bench.agent.isPeer(OTHER, "ice0"), false);
    assertEquals(bench.agent.isPeer(PEER, "ice1"), false);
    const indication = (method: number) =>
      encodeStun({
        class: "indication",
        method,
        transactionId: new Uint8Array(12),
        attributes: {},
      });
    // A keepalive (RFC 8445 §11), and what is none.
    assertEquals(bench.feed(indication(1), 20), true);
    assertEquals([bench.feed(indication(1), 20, OTHER), bench.feed(indication(7), 20)], [
      false,
      false,
    ]);
  });
});

describe("a ticket cannot make an agent a nuisance", () => {
  it("no endpoint gets more than its share, however long the peer is tried", () => {
    const victims = Array.from({ length: 32 }, (_, i) =>
      host({ ...PEER, port: 1 + i }, {
        foundation: `${i}`,
      }));
    const bench = new Bench({ timeoutMs: 86_400_000 }, victims);
    bench.agent.setRemote(bench.peer, 0);
    const perPort = new Map<number, number>();
    let now = 0;
    for (let steps = 0; steps < 100_000; steps++) {
      for (const { to } of bench.sent(now)) perPort.set(to.port, (perPort.get(to.port) ?? 0) + 1);
      const next = bench.agent.nextTimeout();
      if (next === undefined || now > 86_400_000) break;
      now = Math.max(now, next);
    }
    assertEquals(perPort.size, 32);
    const most = Math.max(...perPort.values());
    assert(most <= MAX_PROBES_PER_ENDPOINT && most > 7, `${most} packets to one endpoint`);
    assert(bench.agent.stats.withheld > 0 || most < MAX_PROBES_PER_ENDPOINT);
  });

  it("no endpoint gets more before a restart, which has a share of its own", () => {
    const bench = new Bench({ timeoutMs: 86_400_000 });
    bench.agent.setRemote(bench.peer, 0);
    let now = 0, count = bench.sent(now).length;
    while (bench.agent.stats.withheld === 0) {
      now = Math.max(now, bench.agent.nextTimeout()!);
      count += bench.sent(now).length;
    }
    assertEquals(count, MAX_PROBES_PER_ENDPOINT);
    bench.agent.restart(now);
    bench.agent.setRemote(bench.peer, now);
    assertEquals(bench.sent(now).map(({ to }) => to), [PEER]);
  });

  it("who checks us is checked once for that, though its endpoint has had its share", () => {
    const bench = new Bench({ timeoutMs: 86_400_000, role: "controlling" });
    bench.agent.setRemote(bench.peer, 0);
    let now = 0, wakes = 0;
    const wake = () => {
      now = Math.max(now, bench.agent.nextTimeout()!);
      wakes++;
      return bench.sent(now);
    };
    while (bench.agent.stats.withheld === 0) wake();
    wakes = 0;
    for (const until = now + 60_000; now < until;) assertEquals(wake(), []);
    assert(wakes <= 10, `${wakes} times awake for nothing`);
    for (let i = 0; i < 3; i++) {
      bench.feed(bench.request(), now += 1000);
      assertEquals(bench.requests(now, now + 600).map(({ to }) => to), [PEER], "and no more");
      now += 600;
    }
    bench.feed(bench.request(), now += 1000);
    const [check] = bench.requests(now, now);
    bench.feed(bench.answer(check!), now + 20);
    const [nomination] = bench.requests(now + 20, now + 100);
    bench.feed(bench.answer(nomination!), now + 110);
    assertEquals(bench.agent.selected?.remote, PEER);
  });

  it("nor are more than 32 endpoints checked beyond it, before a restart", () => {
    const bench = new Bench({ role: "controlled" });
    const checked = (from: number) => {
      for (let i = 1; i <= 40; i++) bench.feed(bench.request(), from, { ...OTHER, port: i });
      const ports = bench.requests(from, from + 5000).map(({ to }) => to.port);
      return new Set(ports.filter((port) => port <= 40)).size;
    };
    bench.agent.setRemote(bench.peer, 0);
    assertEquals(checked(0), 32);
    bench.agent.restart(6000);
    bench.agent.setRemote(bench.peer, 6000);
    assertEquals(checked(6000), 32);
  });

  it("one that cannot be used is refused before anything is sent", () => {
    const bench = new Bench();
    const wrong = { ...bench.peer, candidates: [host({ address: "224.0.0.1", port: 5000 })] };
    assertThrows(() => bench.agent.setRemote(wrong, 0), TicketError);
    assertEquals(bench.sent(0), []);
    assertThrows(
      () => bench.agent.setRemote(bench.peer, 0, { delayMs: -1 }),
      RangeError,
      "delayMs",
    );
    bench.agent.setRemote(bench.peer, 0);
    assertThrows(
      () => bench.agent.addRemoteCandidate(host({ address: "0.0.0.0", port: 1 }), 0),
      TicketError,
    );
    assertThrows(() => bench.agent.setRemote(bench.peer, 0), TypeError, "restart()");
  });

  it("a flood of strangers changes nothing and is remembered by nobody", () => {
    const bench = new Bench({ role: "controlling" });
    bench.agent.setRemote(bench.peer, 0);
    const [check] = bench.sent(0);
    for (let i = 0; i < 5000; i++) {
      const from = { address: "198.51.100.66", port: 1 + (i % 60_000) };
      bench.feed(bench.request({ key: "z".repeat(24) }), 5, from);
      bench.feed(new Uint8Array(1200), 5, from);
    }
    assertEquals(drain(bench.agent), []);
    bench.feed(bench.answer(check!), 10);
    const [nomination] = bench.sent(60);
    bench.feed(bench.answer(nomination!), 70);
    assertEquals(bench.agent.selected?.remote.port, PEER.port);
  });
});

describe("a socket", () => {
  const V6: Endpoint = { address: "2001:db8::7", port: 40_006 };
  const PEER_V6: Endpoint = { address: "2001:db8:1::9", port: 50_006 };
  const gone = { ok: false, isOpen: false, code: "network", message: "gone" } as const;

  /** An agent with a socket of each family, and a peer that is told of over IPv6 alone. */
  function both(peer: Partial<PublicRendezvous> = {}): Bench {
    const hosts = [LOCAL.address, V6.address];
    const bench = new Bench({ role: "controlling", hosts }, [host(PEER_V6)]);
    bench.agent.handleSocket("ice1", { ok: true, local: V6 }, 0);
    bench.agent.setRemote({ ...bench.peer, ...peer }, 0);
    return bench;
  }

  it("that cannot be had is no end where another one may be, or is there", () => {
    const hosts = [LOCAL.address, V6.address];
    const opening = new IceAgent({ random: seededRandom(1), hosts });
    opening.gather(0);
    opening.handleSocket("ice0", gone, 1);
    assertEquals(drain(opening), []);
    opening.handleSocket("ice1", { ok: true, local: V6 }, 2);
    const sockets = [{ key: "mine", local: V6 }];
    const own = new IceAgent({ random: seededRandom(1), hosts: [LOCAL.address], sockets });
    own.gather(0);
    own.handleSocket("ice0", gone, 1);
    for (const agent of [opening, own]) {
      assertEquals(told(agent).map(({ type }) => type), ["candidate", "gathered"]);
    }
  });

  it("in a passing trouble is as it was", () => {
    const bench = both();
    const list = bench.agent.sockets();
    bench.agent.handleSocket("ice0", { ...gone, isOpen: true }, 5);
    assertEquals(bench.agent.sockets(), list);
    bench.feed(bench.request(), 10);
    const isChecked = bench.requests(10, 200).some(({ socket }) => socket === "ice0");
    assertEquals(isChecked, true);
  });

  it("that is gone takes its pairs with it, and nothing is sent by it", () => {
    const bench = both();
    bench.feed(bench.request(), 10);
    const [check] = bench.requests(10, 200).filter(({ socket }) => socket === "ice0");
    bench.agent.handleSocket("ice0", gone, 210);
    bench.feed(bench.request(), 220);
    bench.feed(bench.answer(check!), 230);
    const later = bench.requests(230, 5000);
    assertEquals([...new Set(later.map(({ socket }) => socket))], ["ice1"]);
    assertEquals(later.some(({ attributes }) => attributes.useCandidate), false);
    bench.agent.handleSocket("ice1", gone, 5100);
    assertEquals(told(bench.agent).map((event) => event.type === "failed" && event.reason), [
      "network",
    ]);
  });

  it("that is gone is guessed by no longer, whatever was heard there", () => {
    const hint = { mapping: "address-and-port-dependent", ports: [5000, 5002, 5004] } as const;
    const bench = both({ hint, candidates: [] });
    bench.feed(bench.request(), 10);
    assertEquals(bench.requests(10, 15).map(({ to }) => to), [PEER]);
    bench.agent.handleSocket("ice0", gone, 20);
    assertEquals(bench.requests(20, 3000), []);
  });
});

describe("guessing ports", () => {
  const hint = { mapping: "address-and-port-dependent", ports: [5000, 5002, 5004] } as const;

  it("goes from the last one that is known in its steps, as fast as it may and as often", () => {
    const budget = { packetsPerSecond: 10, probes: 5 };
    const bench = new Bench({ role: "controlling", budget, timeoutMs: 10_000 });
    bench.agent.setRemote({ ...bench.peer, hint }, 0);
    const sent = bench.requests(0, 2000);
    assertEquals(sent.map(({ at, to }) => [at, to.port]), [
      [0, PEER.port],
      [500, PEER.port],
      [500, 5006],
      [600, 5008],
      [700, 5010],
      [800, 5012],
      [900, 5014],
      [1500, PEER.port],
    ]);
    assert(sent.every(({ to, socket }) => to.address === PEER.address && socket === "ice0"));
    assertEquals([bench.agent.stats.probes, bench.agent.stats.checks], [5, 3]);
  });

  it("has nowhere to begin with a peer that has told of no endpoint", () => {
    const bench = new Bench({ role: "controlling" }, []);
    bench.agent.setRemote({ ...bench.peer, hint }, 0);
    assertEquals(bench.requests(0, 5000), []);
    assertEquals(bench.agent.nextTimeout(), 30_000);
  });

  it("begins anew with a restart, and not before there is a ticket again", () => {
    const bench = new Bench({ role: "controlling", budget: { packetsPerSecond: 10 } });
    bench.agent.setRemote({ ...bench.peer, hint }, 0);
    const guesses = (from: number, until: number) =>
      bench.requests(from, until).map(({ to }) => to.port).filter((port) => port !== PEER.port);
    assertEquals(guesses(0, 700), [5006, 5008, 5010]);
    bench.agent.restart(800);
    assertEquals(bench.requests(800, 20_000), []);
    bench.agent.setRemote({ ...bench.peer, hint }, 20_000);
    assertEquals(guesses(20_000, 20_600), [5006, 5008]);
  });

  it("is over once a guess was right: its pair is nominated, and is the way", () => {
    const bench = new Bench({ role: "controlling", budget: { packetsPerSecond: 10 } });
    bench.agent.setRemote({ ...bench.peer, hint }, 0);
    const { attributes, ...right } = bench.requests(0, 700).find(({ to }) => to.port === 5008)!;
    assertEquals(attributes.useCandidate, undefined);
    bench.feed(bench.answer({ ...right, attributes }), 720, right.to);
    const [nomination, ...more] = bench.requests(720, 720);
    assertEquals([nomination!.to, nomination!.attributes.useCandidate], [right.to, true]);
    assertEquals(more, []);
    const later = bench.requests(721, 1700).map(({ at, to }) => [at, to.port]);
    assertEquals(later.filter(([, port]) => port !== PEER.port), [[1220, 5008]], "sent again");
    bench.feed(bench.answer(nomination!), 1710, right.to);
    assertEquals(bench.agent.selected, { socket: "ice0", remote: right.to });
  });

  it("goes on a second after a pair that worked and led nowhere", () => {
    const bench = new Bench({ role: "controlled", budget: { packetsPerSecond: 10 } });
    bench.agent.setRemote({ ...bench.peer, hint }, 0);
    const [check] = bench.requests(0, 0);
    bench.feed(bench.answer(check!), 450);
    assertEquals(bench.requests(450, 5000), [], "it may still be nominated");
  });

  /** An agent behind a hard NAT, with a peer behind an easy one. */
  function opening(
    options: ConstructorParameters<typeof Bench>[0] = {},
    candidates?: readonly Candidate[],
  ): Bench {
    const other = { ...STUN, port: 3479 };
    const servers = [STUN, other];
    const bench = new Bench({ role: "controlling", servers, ...options }, candidates);
    const [one, two] = bench.requests(0, 0);
    bench.feed(seenAs(one!, 1111), 5, STUN);
    bench.feed(seenAs(two!, 40_000), 5, other);
    const easy = { mapping: "endpoint-independent", ports: [PEER.port] } as const;
    bench.agent.setRemote({ ...bench.peer, hint: easy, pacingMs: 5 }, 100);
    return bench;
  }

  it("from many sockets opens sixteen at once, then one for each that was used, and no more", () => {
    const bench = opening({ budget: { packetsPerSecond: 100, sockets: 18 } });
    assertEquals(bench.requests(100, 599).map(({ to }) => to), [PEER]);
    assertEquals(bench.agent.sockets().length, 1);
    bench.requests(600, 600);
    const guests = bench.agent.sockets().slice(1);
    const spec = (i: number) => ({ key: `guess${i}`, local: { address: LOCAL.address, port: 0 } });
    assertEquals(guests, Array.from({ length: 16 }, (_, i) => spec(i)));
    for (const i of [0, 1]) {
      const local = { address: LOCAL.address, port: 41_000 + i };
      bench.agent.handleSocket(`guess${i}`, { ok: true, local }, 601);
    }
    assertEquals(drain(bench.agent), [], "it is no candidate");
    const sent = bench.requests(610, 650).map(({ at, to, socket }) => [at, socket, to.port]);
    assertEquals(sent, [
      [610, "guess0", PEER.port],
      [620, "guess1", PEER.port],
      [630, "guess0", PEER.port],
      [640, "guess1", PEER.port],
      [650, "guess0", PEER.port],
    ]);
    assertEquals(bench.agent.sockets().slice(17), [spec(16), spec(17)]);
    // The same list says that nothing has changed.
    const list = bench.agent.sockets();
    assert(bench.requests(660, 700).length > 0);
    assert(bench.agent.sockets() === list);
  });

  it("from many sockets becomes one to many ports in the second half, of the time or the budget", () => {
    /** Both NATs are hard, and ours has one port for all of the peer's. */
    const both = (options: ConstructorParameters<typeof Bench>[0]) => {
      const servers = [STUN, { ...STUN, port: 3479 }, { ...STUN, address: "198.51.100.2" }];
      const bench = new Bench({ role: "controlling", servers, ...options });
      const asked = bench.requests(0, 0);
      for (const [i, port] of [1111, 1111, 50_000].entries()) {
        bench.feed(seenAs(asked[i]!, port), 5, servers[i]);
      }
      const hard = { mapping: "address-and-port-dependent", ports: [5000, 9000, 123] } as const;
      bench.agent.setRemote({ ...bench.peer, hint: hard, pacingMs: 5 }, 0);
      bench.requests(0, 500);
      const local = { address: LOCAL.address, port: 41_000 };
      bench.agent.handleSocket("guess0", { ok: true, local }, 500);
      return bench;
    };
    const ways = (bench: Bench, until: number) =>
      bench.requests(501, until).filter(({ to, socket }) =>
        socket === "guess0" || to.port !== PEER.port
      );
    const byBudget = both({ budget: { packetsPerSecond: 50, probes: 10 } });
    assertEquals(ways(byBudget, 10_000).map(({ socket }) => socket), [
      ...Array.from({ length: 5 }, () => "guess0"),
      ...Array.from({ length: 5 }, () => "ice0"),
    ]);
    const byTime = both({ timeoutMs: 2000, budget: { packetsPerSecond: 50 } });
    const times = ways(byTime, 1500);
    const last = times.findLast(({ socket }) => socket === "guess0")!;
    const first = times.find(({ socket }) => socket === "ice0")!;
    assertEquals([last.at, first.at], [1000, 1020]);
  });

  it("goes where the peer was heard, if that is where servers see it", () => {
    const seen = { address: "203.0.113.20", port: 50_000 };
    const reflexive = host(seen, { type: "srflx", foundation: "2" });
    for (const [from, to] of [[{ ...seen, port: 777 }, 777], [OTHER, seen.port]] as const) {
      const bench = opening({}, [host({ address: "10.0.0.9", port: 9 }), reflexive]);
      bench.feed(bench.request(), 200, from);
      bench.requests(200, 600);
      const local = { address: LOCAL.address, port: 41_000 };
      bench.agent.handleSocket("guess0", { ok: true, local }, 601);
      const guesses = bench.requests(601, 700).filter(({ socket }) => socket === "guess0");
      assertEquals(guesses.map((one) => one.to), guesses.map(() => ({ ...seen, port: to })));
      assert(guesses.length > 1);
    }
  });

  it("hears as many ways through its sockets as by the main one, whatever came there", () => {
    const bench = opening();
    bench.requests(100, 600);
    const local = { address: LOCAL.address, port: 41_003 };
    bench.agent.handleSocket("guess3", { ok: true, local }, 601);
    const checked = new Set<string>();
    const run = (from: number, until: number) => {
      for (const { to, socket, attributes } of bench.requests(from, until)) {
        // A guess goes to where the peer was heard.
        if (to.port < 2 && socket !== "ice0") continue;
        if (to.port < 100) checked.add(`${socket} ${to.port} ${attributes.priority}`);
      }
    };
    for (let port = 1; port <= 40; port++) {
      bench.feed(bench.request(), 601, { ...OTHER, port });
      run(601, 601);
    }
    for (let port = 41; port <= 80; port++) {
      bench.feed(bench.request(), 602, { ...OTHER, port }, "guess3");
      run(602, 602);
    }
    run(603, 5000);
    const of = (socket: string, first: number, preference: number) =>
      Array.from(
        { length: 32 },
        (_, i) => `${socket} ${first + i} ${candidatePriority(110, preference)}`,
      );
    assertEquals(
      [...checked].sort(),
      [
        ...of("guess3", 41, 65535 - 1024),
        ...of("ice0", 1, 65534),
      ].sort(),
    );
  });
});

describe("the end without a peer", () => {
  it("comes with the reason when the time is over", () => {
    const bench = new Bench({ timeoutMs: 12_000 });
    bench.agent.setRemote(bench.peer, 1000);
    let failed: IceEvent | undefined;
    let at = 0;
    for (let now = 1000; now < 60_000 && !failed; now += 100) {
      bench.agent.handleTimeout(now);
      failed = drain(bench.agent).flatMap((action) =>
        action.type === "event" ? [action.event as IceEvent] : []
      ).find(({ type }) => type === "failed");
      at = now;
    }
    assertEquals(failed?.type === "failed" && failed.reason, "no-answer");
    assertEquals(at, 13_000);
    assertEquals(bench.agent.nextTimeout(), undefined);
  });

  it("does not come before that where there is nobody to try: candidates may come later", () => {
    const bench = new Bench({ timeoutMs: 5000 }, []);
    bench.agent.setRemote(bench.peer, 0);
    assertEquals(bench.sent(2000), []);
    bench.agent.addRemoteCandidate(host(PEER), 2010);
    const [check] = bench.sent(2010);
    assertEquals(check!.to, PEER);
    bench.feed(bench.answer(check!), 2020);
    bench.feed(bench.answer(bench.sent(2070)[0]!), 2080);
    assertEquals(bench.agent.selected?.remote, PEER);
  });

  it("tells of a peer whose answer alone was heard, though it refused", () => {
    const bench = new Bench({ timeoutMs: 5000 });
    bench.agent.setRemote(bench.peer, 0);
    bench.feed(bench.answer(bench.sent(0)[0]!, { code: 400 }), 10);
    bench.agent.handleTimeout(5000);
    assertEquals(told(bench.agent).map((event) => event.type === "failed" && event.reason), [
      "one-way",
    ]);
  });

  it("tells where the peer was heard, and heard nothing", () => {
    const bench = new Bench({ timeoutMs: 5000 });
    bench.agent.setRemote(bench.peer, 0);
    bench.sent(0);
    bench.feed(bench.request(), 10);
    drain(bench.agent);
    bench.agent.handleTimeout(5000);
    assertEquals(told(bench.agent).map((event) => event.type === "failed" && event.reason), [
      "one-way",
    ]);
    assertEquals([bench.agent.sockets(), bench.agent.nextTimeout()], [[], undefined]);
    assertEquals(bench.agent.isPeer(PEER, "ice0"), false);
    assertEquals(bench.feed(bench.request(), 5010), false);
  });

  it("is no moment for commands: nothing is sent before `gather` and after `close`", () => {
    const agent = new IceAgent({ random: seededRandom(1), hosts: [LOCAL.address] });
    const { public: peer } = createRendezvous([host(PEER)], seededRandom(2));
    agent.setRemote(peer, 0);
    agent.restart(0);
    assertEquals([drain(agent), agent.rendezvous], [[], undefined]);

    const bench = new Bench({ role: "controlling" });
    bench.agent.setRemote(bench.peer, 0);
    bench.feed(bench.answer(bench.sent(0)[0]!), 10);
    bench.feed(bench.answer(bench.sent(60)[0]!), 70);
    assertEquals(bench.agent.isPeer(PEER, "ice0"), true);
    drain(bench.agent);
    const { rendezvous } = bench.agent;
    bench.agent.close(80);
    bench.agent.end(81);
    bench.agent.restart(82);
    bench.agent.gather(83);
    bench.agent.addRemoteCandidate(host(OTHER), 84);
    bench.agent.handleSocket("ice0", { ok: true, local: LOCAL }, 85);
    assertEquals([drain(bench.agent), bench.agent.nextTimeout()], [[], undefined]);
    assertEquals(bench.agent.rendezvous, rendezvous);
    assertEquals(bench.feed(bench.request(), 90), false);
  });

  it("comes with the socket's own reason where none can be opened", () => {
    const agent = new IceAgent({ random: seededRandom(1), hosts: ["192.0.2.7"] });
    agent.gather(0);
    const message = "Cannot open a socket";
    agent.handleSocket("ice0", { ok: false, code: "permission", message, isOpen: false }, 1);
    const [action] = drain(agent);
    assertEquals(action, {
      type: "event",
      event: { type: "failed", reason: "permission", message },
    });
  });
});

describe("gathering", () => {
  it("tells host and reflexive candidates, and what the NAT does", () => {
    const rig = new Rig({ nats: [HOME, HARD] });
    const [a, b] = rig.peers.map(({ process }) => process.machine.rendezvous!);
    assertEquals(a!.candidates.map(({ type, address }) => `${type} ${address}`), [
      "host 192.168.1.2",
      "srflx 203.0.113.1",
    ]);
    assertEquals(a!.hint?.mapping, "endpoint-independent");
    assertEquals(b!.hint?.mapping, "address-and-port-dependent");
    assertEquals(b!.hint?.ports.length, 4);
    assertEquals(b!.candidates.length, 2, "one reflexive candidate is as good as four");
    rig.world.runFor(60_000);
    for (const { process } of rig.peers) {
      const told = process.events.filter(({ event }) => event.type === "gathered");
      assertEquals(told.length, 1, "told once, though servers are asked on");
    }
    const related = a!.candidates[1]!.related;
    assertEquals(related?.address, "192.168.1.2");
    assert(formatSdp(a!).some((line) => line.includes("typ srflx raddr 192.168.1.2")));
  });

  it("tells an address-dependent mapping from one of address and port", () => {
    const mapping = "address-dependent";
    const rig = new Rig({ nats: [{ ...HARD, mapping }, undefined] });
    const [a, b] = rig.peers.map(({ process }) => process.machine.rendezvous!);
    assertEquals(a!.hint?.mapping, mapping);
    assertEquals(b!.hint?.mapping, "endpoint-independent");
    assertEquals(b!.candidates.length, 1);
  });

  it("knows nothing of a NAT by one server alone, and asks several", () => {
    const one = new Rig({ nats: [HARD, HARD], tellsOther: false });
    assertEquals(one.peers[0].process.machine.rendezvous!.hint?.mapping, "unknown");
    const servers = [STUN, { address: "198.51.100.2", port: 3478 }];
    const two = new Rig({ nats: [HARD, HOME], tellsOther: false, servers });
    const [a, b] = two.peers.map(({ process }) => process.machine.rendezvous!.hint?.mapping);
    assertEquals([a, b], ["address-and-port-dependent", "endpoint-independent"]);
  });

  it("waits for silent servers no longer than it was told", () => {
    const agent = new IceAgent({
      random: seededRandom(1),
      hosts: [LOCAL.address],
      servers: [STUN],
      gatherTimeoutMs: 1200,
    });
    agent.gather(100);
    agent.handleSocket("ice0", { ok: true, local: LOCAL }, 100);
    const isGathered = () =>
      drain(agent).some((action) =>
        action.type === "event" && (action.event as IceEvent).type === "gathered"
      );
    assert(!isGathered());
    agent.handleTimeout(1299);
    assert(!isGathered());
    agent.handleTimeout(1300);
    assert(isGathered());
  });

  it("takes an answer from the server alone, and servers that are added later", () => {
    const agent = timed(
      new IceAgent({ random: seededRandom(1), hosts: [LOCAL.address], servers: [STUN] }),
    );
    agent.gather(0);
    agent.handleSocket("ice0", { ok: true, local: LOCAL }, 0);
    const requests = drain(agent).filter((action) => action.type === "send");
    assertEquals(requests.map(({ to }) => to), [STUN]);
    const { transactionId } = decodeStun(requests[0]!.data) as StunMessage;
    // By RFC 3489, which knows no other attribute.
    const attributes = { mappedAddress: { address: "203.0.113.7", port: 7 } };
    const data = encodeStun({ class: "success", method: 1, transactionId, attributes });
    agent.handleDatagram(data, OTHER, "ice0", 10);
    assertEquals(agent.rendezvous!.candidates.length, 1);
    assertEquals(agent.stats.forged, 1);
    agent.handleDatagram(data, STUN, "ice0", 10);
    assertEquals(agent.rendezvous!.candidates.length, 2);
    agent.addServers([{ address: "198.51.100.9", port: 3478 }, STUN], 20);
    const more = drain(agent).filter((action) => action.type === "send");
    assertEquals(more.map(({ to }) => to.address), ["198.51.100.9"]);
  });

  it("tells each candidate as it is found, and the whole once nothing is awaited", () => {
    const hosts = [LOCAL.address, "192.0.2.8"];
    const agent = new IceAgent({ random: seededRandom(1), hosts, servers: [STUN], port: 7000 });
    agent.gather(0);
    assertEquals(agent.sockets(), [
      { key: "ice0", local: { address: hosts[0]!, port: 7000 } },
      { key: "ice1", local: { address: hosts[1]!, port: 7000 } },
    ]);
    agent.handleSocket("ice0", { ok: true, local: LOCAL }, 1);
    const [told, asked, ...more] = drain(agent);
    const own: Candidate = {
      foundation: "1",
      transport: "udp",
      priority: candidatePriority(126, 65535),
      ...LOCAL,
      type: "host",
    };
    assertEquals(told, { type: "event", event: { type: "candidate", candidate: own } });
    assertEquals(more, []);
    const request = decodeStun((asked as SendAction).data) as StunMessage;
    const other = { address: "198.51.100.2", port: 3479 };
    agent.handleDatagram(seenAs(request, 7, other), STUN, "ice0", 10);
    const seen: Candidate = {
      foundation: "2",
      transport: "udp",
      priority: candidatePriority(100, 65535),
      address: "203.0.113.7",
      port: 7,
      type: "srflx",
      related: LOCAL,
    };
    const [found, ...asks] = drain(agent);
    assertEquals(found, { type: "event", event: { type: "candidate", candidate: seen } });
    assertEquals((asks as SendAction[]).map(({ to }) => to), [
      other,
      { ...STUN, port: other.port },
    ]);
    const [first, second] = asks.map((one) => decodeStun((one as SendAction).data) as StunMessage);
    agent.handleDatagram(seenAs(first!, 8), other, "ice0", 20);
    agent.handleDatagram(seenAs(second!, 9), { ...STUN, port: other.port }, "ice0", 20);
    assertEquals(drain(agent), [], "the other socket is not open yet");
    const message = "Cannot assign requested address";
    agent.handleSocket("ice1", { ok: false, code: "network", message, isOpen: false }, 30);
    const { ufrag, pwd } = agent.rendezvous!;
    const hint = { mapping: "address-and-port-dependent", ports: [7, 8, 9] } as const;
    const rendezvous = { ufrag, pwd, candidates: [own, seen], hint, pacingMs: 5 };
    assertEquals(drain(agent), [{ type: "event", event: { type: "gathered", rendezvous } }]);
  });

  it("asks its servers again each 15 s until a pair is agreed on, and hears that a NAT has moved", () => {
    const bench = new Bench({ role: "controlling", servers: [STUN] });
    const [request] = bench.requests(0, 10);
    bench.feed(seenAs(request!, 7), 10, STUN);
    const asked = bench.requests(10, 30_000).map(({ at, to }) => ({ at, to }));
    const again = (at: number) =>
      [0, 500, 1500, 3500, 7500].map((ms) => ({ at: at + ms, to: STUN }));
    assertEquals(asked, [...again(15_000), { at: 30_000, to: STUN }]);
    drain(bench.agent);
    bench.agent.handleTimeout(45_000);
    const [latest] = bench.requests(45_000, 45_000).slice(-1);
    bench.feed(seenAs(latest!, 8), 45_010, STUN);
    assertEquals(
      told(bench.agent).map((event) => event.type === "candidate" && event.candidate.port),
      [8],
    );
    // What it was before leads nowhere any more.
    assertEquals(bench.agent.rendezvous!.candidates.map(({ port }) => port), [LOCAL.port, 8]);
    bench.agent.setRemote(bench.peer, 45_020);
    const [check] = bench.requests(45_020, 45_020);
    bench.feed(bench.answer(check!), 45_030);
    const [nomination] = bench.requests(45_030, 45_080);
    bench.feed(bench.answer(nomination!), 45_090);
    const later = bench.requests(45_090, 70_000);
    assert(later.length > 3 && later.every(({ to }) => to.port === PEER.port));
  });

  it("asks no server that an answer names and that no host can be", () => {
    for (const address of ["0.0.0.0", "224.0.0.1", "2001:db8::1"]) {
      const bench = new Bench({ servers: [STUN] });
      const [request] = bench.requests(0, 10);
      bench.feed(seenAs(request!, 7, { address, port: 3479 }), 10, STUN);
      const asked = bench.requests(10, 10).map(({ to }) => to);
      // The server's own other port is asked where its other address is of the other family.
      assertEquals(asked, address.includes(":") ? [{ ...STUN, port: 3479 }] : []);
    }
  });

  it("asks a server by the sockets that reach it, and tells what it saw of those", () => {
    const hosts = ["2001:db8::7", LOCAL.address];
    const agent = new IceAgent({ random: seededRandom(1), hosts, servers: [STUN] });
    agent.gather(0);
    for (const [i, address] of hosts.entries()) {
      agent.handleSocket(`ice${i}`, { ok: true, local: { address, port: 40_000 } }, 0);
    }
    const sends = drain(agent).filter((action) => action.type === "send");
    assertEquals(sends.map(({ socket, to }) => [socket, to]), [["ice1", STUN]]);
    agent.handleDatagram(seenAs(decodeStun(sends[0]!.data) as StunMessage, 7), STUN, "ice1", 10);
    assertEquals(agent.rendezvous!.hint, { mapping: "unknown", ports: [7] });
  });

  it("is over when a server has been silent to all seven requests, too", () => {
    const bench = new Bench({ servers: [STUN], gatherTimeoutMs: 120_000 });
    const sent = bench.requests(0, 39_499).map(({ at }) => at);
    assertEquals(sent, [0, 500, 1500, 3500, 7500, 15_500, 31_500]);
    bench.agent.handleTimeout(39_500);
    assertEquals(told(bench.agent).map(({ type }) => type), ["gathered"]);
  });

  it("has nothing to wait for without servers", () => {
    const agent = new IceAgent({ random: seededRandom(1), hosts: [LOCAL.address] });
    agent.gather(0);
    agent.handleSocket("ice0", { ok: true, local: LOCAL }, 0);
    assertEquals(told(agent).map(({ type }) => type), ["candidate", "gathered"]);
    assertEquals(agent.nextTimeout(), undefined);
  });

  it("takes what a gateway maps as a candidate that beats a reflexive one", () => {
    const bench = new Bench({ servers: [STUN] });
    bench.feed(seenAs(bench.requests(0, 0)[0]!, 7), 10, STUN);
    bench.agent.addMapped({ address: "203.0.113.7", port: 40_123 }, undefined, 0);
    bench.agent.addMapped({ address: "203.0.113.7", port: 40_123 }, LOCAL.address, 0);
    bench.agent.addMapped({ address: "203.0.113.7", port: 40_124 }, "192.0.2.99", 0);
    bench.agent.addMapped({ address: "2001:db8::7", port: 40_125 }, undefined, 0);
    const { candidates } = bench.agent.rendezvous!;
    assertEquals(candidates.map(({ type, port }) => [type, port]), [
      ["host", LOCAL.port],
      ["srflx", 40_123],
      ["srflx", 7],
    ]);
    assertEquals(candidates[1]!.priority, candidatePriority(105, 65534));
    assertEquals(new Set(candidates.map(({ foundation }) => foundation)).size, 3);
    assertThrows(
      () => bench.agent.addMapped({ address: "0.0.0.0", port: 1 }, undefined, 0),
      TypeError,
      "external",
    );
  });

  it("lets a socket be handed in, and lists it no more", () => {
    const agent = new IceAgent({
      random: seededRandom(1),
      sockets: [{ key: "mine", local: LOCAL }],
    });
    agent.gather(0);
    assertEquals(agent.sockets(), []);
    assertEquals(agent.rendezvous!.candidates.map(({ port }) => port), [LOCAL.port]);
    assertEquals(told(agent).map(({ type }) => type), ["candidate", "gathered"]);
  });

  it("refuses options that are none", () => {
    const random = seededRandom(1);
    const make = (options: object) => new IceAgent({ random, hosts: ["192.0.2.1"], ...options });
    assertThrows(() => new IceAgent({ random }), TypeError, "'hosts' or 'sockets'");
    assertThrows(() => make({ hosts: ["home"] }), TypeError, "'hosts'");
    assertThrows(() => make({ pacingMs: 4 }), RangeError, "'pacingMs'");
    assertThrows(() => make({ port: 65536 }), RangeError, "'port'");
    assertThrows(() => make({ timeoutMs: 0 }), RangeError, "'timeoutMs'");
    assertThrows(() => make({ gatherTimeoutMs: 0 }), RangeError, "'gatherTimeoutMs'");
    make({ pacingMs: 5, timeoutMs: 1, gatherTimeoutMs: 1 });
    make({ sockets: [{ key: "mine", local: LOCAL }] });
    assertThrows(() => make({ budget: { sockets: -1 } }), RangeError, "'sockets'");
    assertThrows(() => make({ servers: [{ address: "x", port: 1 }] }), TypeError, "'servers'");
  });
});

describe("with an ICE stack of another make", () => {
  it("whose ticket was SDP, it nominates as RFC 8445 has it and guesses nothing", () => {
    const rig = new Rig({ nats: [HOME, HARD], trace: 5000 });
    const told = rig.peers.map(({ process }) =>
      parseSdp(formatSdp(process.machine.rendezvous!).join("\n"))
    );
    rig.peers[0].process.do((agent, now) => agent.setRemote(told[1]!, now));
    rig.peers[1].process.do((agent, now) => agent.setRemote(told[0]!, now));
    rig.settle();
    assertEquals(rig.peers.map(({ process }) => process.machine.stats.probes), [0, 0]);
    assertEquals(rig.last("failed").map((event) => event?.reason), ["no-answer", "no-answer"]);
  });
});
