/**
 * The last way: by a TURN server, where no hole can be punched; and not where one can.
 *
 * @module
 */
import { describe, it } from "node:test";
import { assert, assertEquals, assertThrows } from "@std/assert";
import { IceAgent } from "../../../core/ice/agent.ts";
import { seededRandom } from "../../../core/random.ts";
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
