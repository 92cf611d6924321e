/**
 * The contract of core/machine.ts, rule by rule, for every machine.
 *
 * @module
 */
import { describe, it } from "node:test";
import { assert, assertEquals } from "@std/assert";
import { toHex } from "../../core/bytes.ts";
import type { Action, Endpoint, Machine, SendAction } from "../../core/machine.ts";
import { below, type RandomSource, seededRandom } from "../../core/random.ts";
import { StrictMachine } from "../../core/sim/strict.ts";
import { simulatedGatewayCase } from "./gateway/contract_case.ts";
import { courierCase } from "./courier_case.ts";
import { iceAgentCase, tcpPunchCase } from "./ice/contract_case.ts";
import { drain, type MachineCase, type MachineUnderTest } from "./machine_case.ts";
import { natPmpClientCase } from "./natpmp/contract_case.ts";
import { natPmpServerCase } from "./natpmp/server_contract_case.ts";
import { pcpClientCase } from "./pcp/contract_case.ts";
import { pcpServerCase } from "./pcp/server_contract_case.ts";
import { portMapperCase } from "./portmap/contract_case.ts";
import { igdClientCase } from "./upnp/contract_case.ts";
import { controlPointCase } from "./upnp/control_point_contract_case.ts";
import { deviceSearchCase } from "./upnp/search_contract_case.ts";
import {
  natBehaviourCase,
  reflexiveKeeperCase,
  stunClientCase,
  stunServerCase,
  turnClientCase,
} from "./stun/contract_case.ts";
import { gatewayWithUpnpCase, igdServerCase } from "./upnp/server_contract_case.ts";

const CASES: readonly MachineCase[] = [
  natPmpClientCase,
  natPmpServerCase,
  pcpClientCase,
  pcpServerCase,
  portMapperCase,
  igdClientCase,
  simulatedGatewayCase,
  stunClientCase,
  stunServerCase,
  natBehaviourCase,
  reflexiveKeeperCase,
  turnClientCase,
  iceAgentCase,
  tcpPunchCase,
  courierCase,
  deviceSearchCase,
  igdServerCase,
  gatewayWithUpnpCase,
  controlPointCase,
];

/** What one of these machines may say at once after a long silence. */
const BURST = 40;

const sends = (actions: readonly Action<unknown>[]): SendAction[] =>
  actions.filter((action) => action.type === "send");

/** Feeds what comes of the actions 2 ms later; false where nothing does. */
function feed(
  test: MachineUnderTest,
  actions: readonly Action<unknown>[],
  now: number,
  machine = test.machine,
): boolean {
  let isFed = false;
  const replies = sends(actions).map((sent) => ({ sent, reply: test.reply(sent, now) }));
  for (const { sent, reply } of replies) {
    if (reply) machine.handleDatagram(reply.data, reply.from, sent.socket, now + 2);
    isFed ||= reply !== undefined;
  }
  for (const action of actions) {
    if (action.type === "send" || action.type === "event") continue;
    if (test.perform?.(action, machine, now + 2)) isFed = true;
  }
  return isFed;
}

/** Runs the canonical loop: each datagram is answered after 2 ms, deadlines are kept. */
function run(test: MachineUnderTest, from: number, until: number, machine = test.machine): string {
  let transcript = "";
  let now = from;
  for (let steps = 0; steps < 2000; steps++) {
    const actions = drain(machine);
    for (const action of actions) {
      transcript += action.type === "send"
        ? `${now} ${action.socket} ${action.to.address} ${toHex(action.data)}\n`
        : `${now} ${JSON.stringify(action)}\n`;
    }
    if (feed(test, actions, now, machine)) {
      now += 2;
      continue;
    }
    const next = machine.nextTimeout();
    if (next === undefined || next > until) return transcript;
    now = Math.max(now, next);
    machine.handleTimeout(now);
  }
  return transcript;
}

for (const kind of CASES) {
  describe(`the contract of ${kind.name}`, () => {
    it("rule 1: calls queue output and return none; poll changes no protocol state", () => {
      const { machine, begin } = kind.create(1);
      // A mapper has its way to the gateway from the beginning.
      const { paths = 0 } = machine.stats as { readonly paths?: number };
      assertEquals(countOf(machine.stats), paths, JSON.stringify(machine.stats));
      assertEquals(begin(0), undefined);
      const before = JSON.stringify(machine.stats);
      const actions = drain(machine);
      assert(actions.length > 0);
      assertEquals(JSON.stringify(machine.stats), before);
      assertEquals(machine.handleTimeout(0), undefined);
      assertEquals(
        typeof machine.handleDatagram(new Uint8Array(1), FROM_NOWHERE, "server", 0),
        "boolean",
      );
      assertEquals(machine.handleUnreachable(FROM_NOWHERE, "server", 0), undefined);
    });

    it("rule 2: early, repeated and extra calls do nothing", () => {
      const test = kind.create(2);
      const strict = new StrictMachine(test.machine);
      strict.command(() => test.begin(0), 0);
      run(test, 0, 3_600_000, strict);
    });

    it("rule 2: a call that comes late does what is due once, without a burst", () => {
      const test = kind.create(3);
      test.begin(0);
      run(test, 0, 60_000);
      const month = 30 * 86_400_000;
      test.machine.handleTimeout(60_000 + month);
      const late = drain(test.machine);
      assert(late.length <= BURST, `${late.length} actions`);
      test.machine.handleTimeout(60_000 + month);
      assertEquals(drain(test.machine), []);
    });

    it("rule 3: while output waits, the deadline is the last now", () => {
      const { machine, begin } = kind.create(4);
      begin(1234);
      while (machine.nextTimeout() === 1234 && machine.poll());
      assertEquals(machine.poll(), undefined);
      const next = machine.nextTimeout();
      assert(next === undefined || next > 1234);
      assertEquals(machine.debugTimeout()?.at, next);
    });

    it("rule 4: what was lent is not kept, what was sent does not change", () => {
      const test = kind.create(5);
      const strict = new StrictMachine(test.machine);
      strict.command(() => test.begin(0), 0);
      const first = drain(strict);
      const copies = sends(first).map(({ data }) => toHex(data));
      feed(test, first, 0, strict);
      run(test, 2, 600_000, strict);
      assertEquals(sends(first).map(({ data }) => toHex(data)), copies);
    });

    it("rule 5: a queue that nobody drains stays bounded, and the last word is kept", () => {
      const test = kind.create(6);
      test.begin(0);
      const replies = sends(drain(test.machine)).map((sent) => ({
        ...test.reply(sent, 0),
        socket: sent.socket,
      }));
      let now = 2;
      for (let i = 0; i < 3000; i++) {
        for (const { data, from, socket } of replies) {
          if (data && from) test.machine.handleDatagram(data, from, socket, now);
        }
        now += 60_000;
        test.machine.handleTimeout(now);
      }
      const waiting = drain(test.machine);
      assert(waiting.length <= 10_000, `${waiting.length} actions`);
      const events = waiting.filter((action) => action.type === "event");
      assert(events.length <= 4096, `${events.length} events`);
    });

    it("rule 7: the same seed and the same inputs give the same outputs, byte for byte", () => {
      const transcript = (seed: number) => {
        const test = kind.create(seed);
        test.begin(0);
        return run(test, 0, 24 * 3_600_000);
      };
      const first = transcript(7);
      assert(first.length > 0);
      assertEquals(transcript(7), first);
    });

    it("rule 8: nothing from the network throws, and what is dropped is counted", () => {
      const test = kind.create(8);
      const random = seededRandom(8);
      test.begin(0);
      const seen: Uint8Array[] = [new Uint8Array(0)];
      const peers = [FROM_NOWHERE];
      let now = 0, socket = "client";
      for (let i = 0; i < 20_000; i++) {
        if (i % 500 === 0) {
          for (const sent of sends(drain(test.machine))) {
            const reply = test.reply(sent, now);
            socket = sent.socket;
            peers[1] ??= sent.to;
            seen.push(sent.data.slice());
            if (reply) {
              seen.push(reply.data.slice());
              peers[2] = reply.from;
            }
          }
          if (seen.length > 64) seen.splice(1, seen.length - 64);
        }
        const data = mutate(seen[below(random, seen.length)]!, random);
        const from = peers[below(random, peers.length)]!;
        test.machine.handleDatagram(data, from, socket, now);
        if (i % 10 === 0) strike(test.machine, data, from, random, now);
        now += below(random, 50);
        const next = test.machine.nextTimeout();
        if (next !== undefined && next <= now) test.machine.handleTimeout(now);
      }
      assert(countOf(test.machine.stats) > 1000, JSON.stringify(test.machine.stats));
    });

    if (!kind.create(9).ids) return;
    it("rule 9: an id ends with exactly one final event, and with that nothing goes on", () => {
      for (let seed = 1; seed <= 60; seed++) runScript(kind, seed);
    });
  });
}

/**
 * A random script: requests, commands, time, a loop that drains late, datagrams that get lost, and
 * all that goes wrong around the machine; at the end it is closed.
 */
function runScript(kind: MachineCase, seed: number): void {
  const test = kind.create(seed);
  const { machine } = test;
  const ids = test.ids!;
  const random = seededRandom(1000 + seed);
  const known = new Map<number, "open" | "over" | "given up">();
  let now = 0;
  const what = (id: number) => `seed ${seed}, at ${now} ms, id ${id}`;

  const settle = (): void => {
    const actions = drain(machine);
    for (const action of actions) {
      const event = action.type === "event" ? action.event as { readonly id?: number } : {};
      const { id } = event;
      const state = id === undefined ? undefined : known.get(id);
      if (id === undefined || state === undefined) continue;
      assert(state === "open", `${what(id)} is ${state}, told ${JSON.stringify(event)}`);
      if (ids.isFinal(event)) known.set(id, "over");
    }
    const arriving = actions.filter((action) => action.type !== "send" || below(random, 5) > 0);
    feed(test, arriving, now);
    now += 2;
  };
  const advance = (): void => {
    const next = machine.nextTimeout();
    now = Math.max(now, below(random, 3) || next === undefined ? now + below(random, 5000) : next);
    if (below(random, 40) === 0) now += 3 * 3_600_000;
    machine.handleTimeout(now);
  };

  for (let step = 0; step < 200; step++) {
    switch (below(random, 8)) {
      case 0:
      case 1: {
        const id = ids.begin(random, now);
        if (id === undefined) break;
        assert((known.get(id) ?? "open") === "open", `${what(id)} is handed out twice`);
        known.set(id, "open");
        break;
      }
      case 2: {
        const all = [...known.keys()];
        const id = all[below(random, all.length)];
        if (id === undefined) break;
        settle();
        const isGivenUp = ids.turn(random, id, now) === "given up";
        if (isGivenUp && known.get(id) === "open") known.set(id, "given up");
        break;
      }
      case 3:
        ids.disturb(random, now, [...known.keys()]);
        break;
      default:
        advance();
    }
    if (below(random, 3)) settle();
  }
  ids.close(now);
  for (let step = 0; step < 2000; step++) {
    settle();
    const next = machine.nextTimeout();
    if (next === undefined) break;
    now = Math.max(now, next);
    machine.handleTimeout(now);
  }
  for (const [id, state] of known) assert(state !== "open", `${what(id)} has no end`);
  assertEquals(machine.debugTimeout(), undefined, `seed ${seed}`);
}

const FROM_NOWHERE = { address: "198.51.100.66", port: 6666 };

/** HTTP and streams that nobody asked for, with any bytes. */
function strike(
  machine: Machine<unknown>,
  data: Uint8Array,
  from: Endpoint,
  random: RandomSource,
  now: number,
): void {
  const id = below(random, 8) - 4;
  const name = String.fromCharCode(...data.subarray(0, 40));
  const headers = [[name, name]] as const;
  const status = below(random, 1000);
  machine.handleResponse?.(id, { ok: true, status, headers, body: data }, now);
  machine.handleRequest?.(id, { method: name, path: name, headers, body: data }, from, now);
  const isOpening = below(random, 4) === 0;
  const open = { type: "open", local: from, peer: from, socket: name } as const;
  machine.handleStream?.(id, isOpening ? open : { type: "data", data }, now);
}

function mutate(data: Uint8Array, random: RandomSource): Uint8Array {
  const out = new Uint8Array(below(random, 4) === 0 ? below(random, 1400) : data.length);
  out.set(data.subarray(0, out.length));
  for (let flips = below(random, 5); flips > 0 && out.length > 0; flips--) {
    out[below(random, out.length)]! ^= 1 << below(random, 8);
  }
  return out;
}

/** The sum of all counters. */
function countOf(value: unknown): number {
  if (typeof value === "number") return value;
  if (typeof value !== "object" || value === null) return 0;
  return Object.values(value).reduce((sum: number, part) => sum + countOf(part), 0);
}
