/**
 * The last way: by a TURN server, where no hole can be punched; and not where one can.
 *
 * @module
 */
import { describe, it } from "node:test";
import { assert, assertEquals, assertThrows } from "@std/assert";
import { IceAgent, type IceEvent } from "../../../core/ice/agent.ts";
import { candidatePriority } from "../../../core/ice/candidate.ts";
import { createRendezvous } from "../../../core/ice/ticket.ts";
import type { Endpoint } from "../../../core/machine.ts";
import { seededRandom } from "../../../core/random.ts";
import {
  decodeStun,
  encodeStun,
  STUN_METHOD,
  type StunAttributes,
  type StunMessage,
} from "../../../core/stun/codec.ts";
import { longTermKey, shortTermKey } from "../../../core/stun/integrity.ts";
import { drain, timed } from "../machine_case.ts";
import { type NatBehaviour, Rig, type RigOptions } from "./rig.ts";
import { TURN, TURN_USER, TurnServer } from "./turn_server.ts";

const HARD: NatBehaviour = {
  mapping: "address-and-port-dependent",
  filtering: "address-and-port-dependent",
  ports: "random",
};
const HOME: NatBehaviour = { ...HARD, mapping: "endpoint-independent" };
const RELAYS = [{ server: TURN, ...TURN_USER }];

/** Two peers, of whom some know the TURN server. */
function rigWith(
  options: RigOptions,
  knows: readonly [boolean, boolean],
): { rig: Rig; turn: TurnServer } {
  let turn: TurnServer | undefined;
  const agents = knows.map((one) => one ? { relays: RELAYS } : {}) as unknown as NonNullable<
    RigOptions["agents"]
  >;
  const rig = new Rig({ ...options, agents }, (world, internet) => {
    turn = new TurnServer(world, internet);
  });
  return { rig, turn: turn! };
}

describe("a relay", () => {
  it("is the way between two hard NATs, whoever of the two knows one", () => {
    for (const knows of [[true, false], [false, true], [true, true]] as const) {
      const { rig, turn } = rigWith({ nats: [HARD, HARD] }, knows);
      const since = rig.world.now;
      rig.exchange();
      rig.settle();
      const [a, b] = rig.last("connected");
      if (!a || !b) throw new Error(JSON.stringify(rig.last("failed")));
      assert(a.isRelayed || b.isRelayed);
      assert(rig.connectedAfter(since)! < 2000, `${rig.connectedAfter(since)} ms`);
      assert(turn.relayed > 0);
      const asked = [...turn.allocations.values()].flatMap(({ permitted }) => [...permitted]);
      assert(asked.every((address) => !address.startsWith("192.168.")), asked.join());
      rig.world.runFor(5000);
      const heard: string[][] = [[], []];
      for (const [i, { process }] of rig.peers.entries()) {
        const { socket } = [a, b][i]!;
        process.takeEvents();
        const listed = process.listed(socket);
        if (!listed) continue;
        const agentHears = listed.onDatagram;
        listed.onDatagram = (data, from) => {
          if (data.length === 3) heard[i]!.push(data.join());
          agentHears(data, from);
        };
      }
      for (const [i, { process }] of rig.peers.entries()) {
        const data = new Uint8Array([99, 99, i]);
        assertEquals(process.do((agent, now) => agent.send(data, now)), true);
      }
      rig.world.runFor(1000);
      for (const [i, { process }] of rig.peers.entries()) {
        for (const { event } of process.takeEvents()) {
          if (event.type === "relayed") heard[i]!.push(event.data.join());
        }
      }
      assertEquals(heard, [["99,99,1"], ["99,99,0"]]);
    }
  });

  it("lives for an hour, and is given back at the end", () => {
    const { rig, turn } = rigWith({ nats: [HARD, HARD] }, [true, false]);
    rig.exchange();
    rig.settle();
    rig.world.runFor(3_600_000);
    assertEquals(rig.last("lost"), [undefined, undefined]);
    assertEquals(turn.allocations.size, 1);
    const { process } = rig.peers[0];
    const { socket } = process.machine.selected!;
    assertEquals(socket, "relay0");
    assertEquals(process.machine.sockets().length, 1, "the socket that carries it stays");
  });

  it("is not used where a hole can be punched, and is given back then", () => {
    for (const nats of [[HOME, HOME], [HOME, HARD]] as const) {
      const { rig, turn } = rigWith({ nats, seed: 1 }, [true, true]);
      assertEquals(turn.allocations.size, 2);
      rig.exchange();
      rig.settle();
      assertEquals(rig.last("connected").map((event) => event?.isRelayed), [false, false]);
      const selected = rig.peers.map(({ process }) => process.machine.selected!.remote.address);
      assert(!selected.includes(TURN.address), selected.join());
      rig.world.runFor(4000);
      assertEquals(turn.allocations.size, 0);
    }
  });

  it("is told in the ticket as the last candidate", () => {
    const { rig } = rigWith({ nats: [HARD, HOME] }, [true, false]);
    const { candidates } = rig.peers[0].process.machine.rendezvous!;
    assertEquals(candidates.map(({ type }) => type), ["host", "srflx", "relay"]);
    assertEquals(candidates[2]!.address, TURN.address);
    assertEquals(candidates[2]!.related?.address, "203.0.113.1");
  });

  it("that does not let us in, or is not there, costs no more than the servers' time", () => {
    const wrong = [
      { server: TURN, username: "user", password: "wrong" },
      { server: { address: "198.51.100.99", port: 3478 }, ...TURN_USER },
    ];
    const rig = new Rig(
      { nats: [HOME, HOME], agents: [{ relays: wrong, gatherTimeoutMs: 1000 }, {}] },
      (world, internet) => void new TurnServer(world, internet),
    );
    const { at } = rig.peers[0].process.events.find(({ event }) => event.type === "gathered")!;
    assert(at >= 1000 && at < 1100, `${at} ms`);
    rig.exchange();
    rig.settle();
    assert(rig.last("connected").every((event) => event && !event.isRelayed));
    const alone = new Rig({ agents: [{ relays: wrong, servers: [], gatherTimeoutMs: 1000 }, {}] });
    const [gathered] = alone.peers[0].process.events.slice(-1);
    assertEquals([gathered!.event.type, gathered!.at], ["gathered", 1000]);
  });

  it("that is there late is a way yet", () => {
    let start: () => TurnServer;
    const rig = new Rig(
      { nats: [HARD, HARD], agents: [{ relays: RELAYS }, {}] },
      (world, internet) => start = () => new TurnServer(world, internet),
    );
    assertEquals(rig.peers[0].process.machine.rendezvous!.candidates.length, 2);
    rig.exchange();
    start!();
    rig.world.runFor(3000);
    const late = rig.last("candidate")[0]!.candidate;
    assertEquals(late.type, "relay");
    rig.peers[1].process.do((agent, now) => agent.addRemoteCandidate(late, now));
    rig.settle();
    assertEquals(rig.last("connected").map((event) => event?.isRelayed), [true, false]);
  });

  it("that refuses us is not waited for", () => {
    const relays = [{ server: TURN, username: "user", password: "wrong" }];
    const rig = new Rig(
      { nats: [HOME, HOME], agents: [{ relays }, {}] },
      (world, internet) => void new TurnServer(world, internet),
    );
    const { at } = rig.peers[0].process.events.find(({ event }) => event.type === "gathered")!;
    assert(at < 500, `${at} ms`);
    assertEquals(rig.peers[0].process.machine.rendezvous!.candidates.length, 2);
  });

  it("may be another one, to which the server sends us", () => {
    const door: Endpoint = { address: "198.51.100.8", port: 3478 };
    const relays = [{ ...RELAYS[0]!, server: door }];
    let turn: TurnServer | undefined;
    const rig = new Rig({ nats: [HARD, HARD], agents: [{ relays }, {}] }, (world, internet) => {
      turn = new TurnServer(world, internet);
      const host = world.host("door");
      host.attach(internet, door.address);
      const socket = host.bind(door);
      socket.onDatagram = (data, from) => {
        const { method, transactionId } = decodeStun(data) as StunMessage;
        const errorCode = { code: 300, reason: "Try Alternate" };
        const attributes = { errorCode, alternateServer: TURN };
        socket.send(from, encodeStun({ class: "error", method, transactionId, attributes }));
      };
    });
    const { candidates } = rig.peers[0].process.machine.rendezvous!;
    assertEquals(candidates.filter(({ type }) => type === "relay").length, 1);
    rig.exchange();
    rig.settle();
    assertEquals(rig.last("connected").some((event) => event?.isRelayed), true);
    const since = turn!.relayed;
    rig.peers[1].process.do((agent, now) => agent.send(new Uint8Array([99]), now));
    rig.world.runFor(100);
    assertEquals(turn!.relayed, since + 1);
  });

  it("must be one", () => {
    const make = (server: object) =>
      new IceAgent({
        random: seededRandom(1),
        hosts: ["192.0.2.1"],
        relays: [{ server, ...TURN_USER } as never],
      });
    assertThrows(() => make({ address: "x", port: 1 }), TypeError, "relays");
    assertThrows(() => make({ address: "192.0.2.1", port: 0 }), RangeError, "relays");
  });
});

const LOCAL: Endpoint = { address: "192.168.1.2", port: 40_000 };
const RELAYED: Endpoint = { address: TURN.address, port: 50_000 };
const REFLEXIVE: Endpoint = { address: "203.0.113.7", port: 41_000 };
const PEER: Endpoint = { address: "203.0.113.9", port: 50_000 };

/** One agent, its TURN server and its peer played by hand. */
class Bench {
  readonly agent: IceAgent;
  readonly peer = createRendezvous([{
    foundation: "1",
    transport: "udp",
    priority: candidatePriority(126, 65535),
    ...PEER,
    type: "host",
  }], seededRandom(2)).public;
  readonly #key = longTermKey(TURN_USER.username, "example.org", TURN_USER.password);

  constructor(hasSocket = false) {
    const where = hasSocket
      ? { sockets: [{ key: "ice0", local: LOCAL }] }
      : { hosts: [LOCAL.address] };
    this.agent = timed(
      new IceAgent({ random: seededRandom(1), relays: RELAYS, role: "controlling", ...where }),
    );
    this.agent.gather(0);
    if (!hasSocket) this.agent.handleSocket("ice0", { ok: true, local: LOCAL }, 0);
  }

  /** What it wants done at once: events, and the messages for the server and for the peer. */
  take(): { events: IceEvent[]; server: StunMessage[]; peer: StunMessage[] } {
    const actions = drain(this.agent);
    const sent = actions.filter((action) => action.type === "send").map(({ to, data }) => ({
      to,
      message: decodeStun(data) as StunMessage,
    }));
    const isServer = ({ to }: { to: Endpoint }) => to.address === TURN.address;
    return {
      events: actions.flatMap((one) => one.type === "event" ? [one.event as IceEvent] : []),
      server: sent.filter(isServer).map(({ message }) => message),
      peer: sent.filter((one) => !isServer(one)).map(({ message }) => message),
    };
  }

  /** The server's answer to what it was asked. */
  answer({ method, transactionId }: StunMessage, attributes: StunAttributes, now: number): void {
    const of = attributes.errorCode ? "error" : "success";
    const data = encodeStun({ class: of, method, transactionId, attributes }, {
      ...(attributes.realm === undefined && { key: this.#key }),
    });
    assertEquals(this.agent.handleDatagram(data, TURN, "ice0", now), true);
  }

  /** What the peer sends to the relayed address. */
  relay(data: Uint8Array, now: number): void {
    const attributes = { xorPeerAddresses: [PEER], data };
    const { DATA: method } = STUN_METHOD;
    const transactionId = new Uint8Array(12);
    const bytes = encodeStun({ class: "indication", method, transactionId, attributes });
    assertEquals(this.agent.handleDatagram(bytes, TURN, "ice0", now), true);
  }

  /** The peer's answer to a check. */
  confirm({ method, transactionId }: StunMessage): Uint8Array {
    const attributes = { xorMappedAddress: RELAYED };
    return encodeStun({ class: "success", method, transactionId, attributes }, {
      key: shortTermKey(this.peer.pwd),
      fingerprint: true,
    });
  }

  /** Gets its address. */
  allocate(): void {
    const [first] = this.take().server;
    const errorCode = { code: 401, reason: "Unauthorized" };
    this.answer(first!, { errorCode, realm: "example.org", nonce: "nonce" }, 10);
    const [second] = this.take().server;
    this.answer(second!, {
      xorRelayedAddress: RELAYED,
      xorMappedAddress: REFLEXIVE,
      lifetimeSeconds: 600,
    }, 20);
  }
}

describe("what an agent says of its relay and to it is said at once", () => {
  it("from the first question to the last candidate", () => {
    for (const hasSocket of [false, true]) {
      const bench = new Bench(hasSocket);
      bench.allocate();
      const { ufrag, pwd, candidates } = bench.agent.rendezvous!;
      const relayed = {
        foundation: "2",
        transport: "udp",
        priority: candidatePriority(0, 65534),
        ...RELAYED,
        type: "relay",
        related: REFLEXIVE,
      } as const;
      assertEquals(candidates.map(({ type }) => type), ["host", "relay"]);
      const hint = { mapping: "unknown", ports: [] } as const;
      assertEquals(bench.take(), {
        events: [
          { type: "candidate", candidate: relayed },
          { type: "gathered", rendezvous: { ufrag, pwd, candidates, hint, pacingMs: 5 } },
        ],
        server: [],
        peer: [],
      });
    }
  });

  it("from the permission to what the peer sends, and the address given back at the end", () => {
    const bench = new Bench();
    bench.allocate();
    bench.take();
    bench.agent.setRemote(bench.peer, 100);
    const { server: [asked], peer: [direct] } = bench.take();
    assertEquals([asked!.method, asked!.attributes.xorPeerAddresses], [
      STUN_METHOD.CREATE_PERMISSION,
      [{ address: PEER.address, port: 0 }],
    ]);
    assertEquals(direct!.method, STUN_METHOD.BINDING);
    // The check by the relay comes to nothing before the peer's address is let in, and again then.
    bench.agent.handleTimeout(150);
    assertEquals(bench.take().server, []);
    bench.answer(asked!, {}, 160);
    bench.agent.handleTimeout(200);
    const { server: [sent] } = bench.take();
    assertEquals([sent!.method, sent!.attributes.xorPeerAddresses], [STUN_METHOD.SEND, [PEER]]);
    const check = decodeStun(sent!.attributes.data!) as StunMessage;
    bench.relay(bench.confirm(check), 210);
    assertEquals(bench.take().events, []);
    // A direct path is waited for, for a second from the ticket on.
    const nominations: { readonly at: number; readonly message: StunMessage }[] = [];
    for (let now = 210; now <= 1100; now = Math.max(now, bench.agent.nextTimeout()!)) {
      bench.agent.handleTimeout(now);
      for (const { attributes } of bench.take().server) {
        const message = decodeStun(attributes.data!) as StunMessage;
        if (message.attributes.useCandidate) nominations.push({ at: now, message });
      }
    }
    assertEquals(nominations.map(({ at }) => at), [1100]);
    bench.relay(bench.confirm(nominations[0]!.message), 1120);
    const { events, server } = bench.take();
    assertEquals(events, [{
      type: "connected",
      socket: "relay0",
      local: RELAYED,
      isRelayed: true,
      remote: PEER,
      mapped: RELAYED,
      elapsedMs: 1020,
    }]);
    assertEquals(server.map(({ method }) => method), [STUN_METHOD.CHANNEL_BIND]);
    assertEquals(server[0]!.attributes.xorPeerAddresses, [PEER]);
    bench.relay(new Uint8Array([1, 2, 3]), 1130);
    assertEquals(bench.take().events, [
      { type: "relayed", socket: "relay0", from: PEER, data: new Uint8Array([1, 2, 3]) },
    ]);
    assertEquals(bench.agent.send(new Uint8Array([4]), 1140), true);
    assertEquals(bench.take().server.map(({ attributes }) => attributes.data), [
      new Uint8Array([4]),
    ]);
    bench.agent.close(1200);
    assertEquals(
      bench.take().server.map(({ method, attributes }) => [method, attributes.lifetimeSeconds]),
      [
        [STUN_METHOD.REFRESH, 0],
      ],
    );
  });

  it("and that a way by it is none once the server has let it go", () => {
    const bench = new Bench();
    bench.allocate();
    bench.take();
    bench.agent.setRemote(bench.peer, 100);
    const { server: [asked], peer: [direct] } = bench.take();
    bench.answer(asked!, {}, 110);
    bench.agent.handleTimeout(150);
    const [sent] = bench.take().server;
    bench.relay(bench.confirm(decodeStun(sent!.attributes.data!) as StunMessage), 160);
    const more = { ...bench.peer.candidates[0]!, address: "203.0.113.10", foundation: "2" };
    bench.agent.addRemoteCandidate(more, 300);
    const refusal = { errorCode: { code: 437, reason: "Allocation Mismatch" } };
    const [permission] = bench.take().server.filter(({ method }) =>
      method === STUN_METHOD.CREATE_PERMISSION
    );
    bench.answer(permission!, refusal, 310);
    bench.agent.handleTimeout(1100);
    bench.take();
    bench.agent.handleDatagram(bench.confirm(direct!), PEER, "ice0", 1110);
    const isNomination = ({ attributes }: StunMessage) => attributes.useCandidate === true;
    assertEquals(bench.take().peer.filter(isNomination).length, 1, "nothing else was nominated");
  });

  it("and that it goes with the socket that carries it", () => {
    const gone = { ok: false, isOpen: false, code: "network", message: "gone" } as const;
    for (const isAllocated of [false, true]) {
      const bench = new Bench();
      if (isAllocated) bench.allocate();
      bench.take();
      bench.agent.setRemote(bench.peer, 100);
      bench.agent.handleSocket("ice0", gone, 200);
      const { events } = bench.take();
      assertEquals(events, [{ type: "failed", reason: "network", message: "gone" }]);
      assertEquals(bench.agent.nextTimeout(), undefined);
    }
  });

  it("and nothing more once the server has let it go", () => {
    const bench = new Bench();
    bench.allocate();
    bench.take();
    bench.agent.handleTimeout(540_020);
    const [refresh] = bench.take().server.filter(({ method }) => method === STUN_METHOD.REFRESH);
    bench.answer(refresh!, { errorCode: { code: 437, reason: "Allocation Mismatch" } }, 540_030);
    bench.agent.setRemote(bench.peer, 540_040);
    const { server, peer } = bench.take();
    assertEquals([server, peer.length], [[], 1], "nothing is asked of it");
  });
});
