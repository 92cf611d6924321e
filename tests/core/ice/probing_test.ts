/**
 * Guessing ports: who does what by both hints, which ports are tried, and what servers show.
 *
 * @module
 */
import { describe, it } from "node:test";
import { assert, assertEquals } from "@std/assert";
import {
  AHEAD,
  behaviourOf,
  isHard,
  planProbing,
  PortSequence,
  stepOf,
  wrap,
} from "../../../core/ice/probing.ts";
import type { MappingBehaviour, NatHint } from "../../../core/ice/ticket.ts";
import { seededRandom } from "../../../core/random.ts";

const hint = (mapping: MappingBehaviour, ...ports: number[]): NatHint => ({ mapping, ports });
const EASY = hint("endpoint-independent", 5000);
const RANDOM = hint("address-and-port-dependent", 5000, 40_000, 20_000);
const STEPS = hint("address-and-port-dependent", 5000, 5002, 5004);
const BY_ADDRESS = hint("address-dependent", 5000, 40_000);
const BY_ADDRESS_IN_STEPS = hint("address-dependent", 7000, 7001);

describe("the step of ports", () => {
  it("is what each is further than the one before, up to 16, up or down", () => {
    assertEquals(stepOf([10, 11, 12]), 1);
    assertEquals(stepOf([10, 26]), 16);
    assertEquals(stepOf([100, 98, 96]), -2);
  });

  it("is none where there is one port, where they leap, and where they stay", () => {
    for (const ports of [[], [10], [10, 27], [10, 11, 13], [10, 11, 12, 12], [27, 10], [9, 9]]) {
      assertEquals(stepOf(ports), 0, ports.join());
    }
  });
});

describe("a plan", () => {
  it("has halves that fit: one side's is the other's counterpart", () => {
    const hints = [
      undefined,
      hint("unknown"),
      EASY,
      RANDOM,
      STEPS,
      BY_ADDRESS,
      BY_ADDRESS_IN_STEPS,
    ];
    const counterpart = { none: "none", meet: "meet", probe: "open", open: "probe" } as const;
    for (const a of hints) {
      for (const b of hints) {
        const [one, other] = [planProbing(a, b, true), planProbing(b, a, false)];
        assertEquals(other.role, counterpart[one.role], JSON.stringify([a, b]));
        assertEquals(other.then, counterpart[one.then], JSON.stringify([a, b]));
        assertEquals(other.isInTurn, one.isInTurn);
      }
    }
  });

  it("lets the hard side open and the easy one probe, along its steps", () => {
    const { role, then, step, lastPort } = planProbing(EASY, STEPS, false);
    assertEquals([role, then, step, lastPort], ["probe", "probe", 2, 5004]);
    assertEquals(planProbing(STEPS, EASY, true).role, "open");
    assertEquals(planProbing(hint("unknown"), RANDOM, true).step, 0);
    assertEquals(planProbing(hint("unknown"), RANDOM, true).role, "probe");
  });

  it("lets two that step meet: port by port, unless one has a port for all of an address", () => {
    assertEquals(planProbing(STEPS, STEPS, true).role, "meet");
    assertEquals(planProbing(STEPS, STEPS, true).isInTurn, true);
    assertEquals(planProbing(STEPS, BY_ADDRESS_IN_STEPS, true).isInTurn, false);
  });

  it("of two hard ones lets first one and then the other open, where one may", () => {
    const first = planProbing(BY_ADDRESS, RANDOM, false);
    assertEquals([first.role, first.then], ["open", "probe"]);
    const both = planProbing(BY_ADDRESS, BY_ADDRESS, true);
    assertEquals([both.role, both.then], ["open", "probe"]);
    assertEquals(planProbing(BY_ADDRESS, BY_ADDRESS, false).role, "probe");
  });

  it("is none where checks suffice, nothing is known, or nothing helps", () => {
    for (
      const [own, peer] of [
        [EASY, EASY],
        [undefined, RANDOM],
        [RANDOM, undefined],
        [RANDOM, RANDOM],
        [RANDOM, STEPS],
      ]
    ) assertEquals(planProbing(own, peer, true).role, "none");
  });

  it("takes a NAT for hard where its mappings depend on whom they lead to", () => {
    assertEquals([EASY, RANDOM, BY_ADDRESS, hint("unknown"), undefined].map(isHard), [
      false,
      true,
      true,
      false,
      false,
    ]);
  });
});

describe("the ports that are tried", () => {
  it("begin with those that follow the last one, and come to every one once", () => {
    const plan = planProbing(EASY, STEPS, true);
    const ports = new PortSequence(plan, seededRandom(1));
    const first = Array.from({ length: AHEAD }, () => ports.next());
    assertEquals(first, Array.from({ length: AHEAD }, (_, i) => 5004 + 2 * (i + 1)));
    const all = new Set(first);
    let count = first.length;
    for (let port = ports.next(); port !== undefined; port = ports.next()) {
      assert(port >= 1024 && port <= 65535, `${port}`);
      all.add(port);
      count++;
    }
    assertEquals([count, all.size], [65536 - 1024, 65536 - 1024]);
    assertEquals(ports.next(), undefined);
  });

  it("are in another order for another seed, and spread from the start", () => {
    const plan = planProbing(EASY, RANDOM, true);
    const take = (seed: number) => {
      const ports = new PortSequence(plan, seededRandom(seed));
      return Array.from({ length: 64 }, () => ports.next()!);
    };
    const [one, other] = [take(1), take(2)];
    assert(one.join() !== other.join());
    for (const ports of [one, other]) {
      assert(Math.max(...ports) - Math.min(...ports) > 30_000, ports.join());
    }
  });

  it("go on at the first after the last, and the other way round", () => {
    assertEquals([65_535, 65_536, 65_540, 1024, 1023, 1020].map(wrap), [
      65_535,
      1024,
      1028,
      1024,
      65_535,
      65_532,
    ]);
  });
});

describe("what servers show of a NAT", () => {
  const at = (address: string, port: number) => ({ address, port });
  const [s1, s1b, s2] = [at("192.0.2.1", 1), at("192.0.2.1", 2), at("192.0.2.2", 1)];
  const seen = (...pairs: [{ address: string; port: number }, number][]) =>
    pairs.map(([server, port]) => ({ server, mapped: at("203.0.113.7", port) }));
  const local = at("192.168.1.2", 5);

  it("is what its mappings depend on", () => {
    assertEquals(behaviourOf(seen([s1, 7], [s2, 7]), local), "endpoint-independent");
    assertEquals(behaviourOf(seen([s1, 7], [s1b, 7], [s2, 8]), local), "address-dependent");
    assertEquals(
      behaviourOf(seen([s1, 7], [s1b, 8], [s2, 9]), local),
      "address-and-port-dependent",
    );
    // Two addresses alone do not tell the two apart: the worse is taken.
    assertEquals(behaviourOf(seen([s1, 7], [s2, 8]), local), "address-and-port-dependent");
  });

  it("is nothing by none or one, unless there is no NAT", () => {
    assertEquals(behaviourOf([], local), "unknown");
    assertEquals(behaviourOf(seen([s1, 7]), local), "unknown");
    assertEquals(behaviourOf([{ server: s1, mapped: local }], local), "endpoint-independent");
  });
});
