import { describe, it } from "node:test";
import { assert, assertEquals, assertThrows } from "@std/assert";
import {
  NatBehaviour,
  type NatBehaviourEvent,
  type NatBehaviourOptions,
  type NatBehaviourResult,
} from "../../../core/stun/behaviour.ts";
import { decodeStun, encodeStun } from "../../../core/stun/codec.ts";
import { StunServer, type StunServerOptions } from "../../../core/stun/server.ts";
import { parseCidr } from "../../../core/cidr.ts";
import type { Endpoint } from "../../../core/machine.ts";
import { seededRandom } from "../../../core/random.ts";
import {
  type NatHairpin,
  type NatPortAssignment,
  type Process,
  World,
} from "../../../core/sim/mod.ts";
import { NAT_DEPENDENCES } from "../../../core/sim/nat_options.ts";
import { drain } from "../machine_case.ts";

const A1 = "198.51.100.1", A2 = "198.51.100.2", PLAIN = "198.51.100.9";
const EXTERNAL = "203.0.113.7", INSIDE = "192.168.1.2";
const server: Endpoint = { address: A1, port: 3478 };
const plain: Endpoint = { address: PLAIN, port: 3478 };
const HAIRPINS: readonly NatHairpin[] = ["none", "internal-source", "external-source"];
const PORTS: readonly NatPortAssignment[] = ["preserving", "random", "contiguous"];

type NatSettings = Omit<Parameters<World["nat"]>[1], "inside" | "outside">;
type Run = Process<NatBehaviourEvent, NatBehaviour>;

interface Scene {
  readonly world: World;
  readonly run: Run;
}

/** A client behind a NAT, a server with two addresses and one with one. */
function scene(
  nat: NatSettings | undefined,
  options: Partial<NatBehaviourOptions> = {},
  { seed = 1, loss = 0, serverOptions = {}, outer }: {
    seed?: number;
    loss?: number;
    serverOptions?: StunServerOptions;
    outer?: NatSettings;
  } = {},
): Scene {
  const world = new World({ seed });
  const link = { delayMs: 10, loss };
  const internet = world.segment("internet", link);
  const lan = world.segment("lan");
  const client = world.host("client");
  const localAddress = nat ? INSIDE : "203.0.113.50";
  if (nat) {
    const middle = outer ? world.segment("middle") : internet;
    if (outer) {
      world.nat("outer", {
        inside: [middle, "100.64.0.1"],
        outside: [internet, EXTERNAL],
        ...outer,
      });
    }
    world.nat("nat", {
      inside: [lan, "192.168.1.1"],
      outside: [middle, outer ? "100.64.0.2" : EXTERNAL],
      ...(outer && { gateway: "100.64.0.1" }),
      ...nat,
    });
    client.attach(lan, INSIDE, { gateway: "192.168.1.1" });
  } else {
    client.attach(internet, localAddress);
  }
  const host = world.host("server");
  host.attach(internet, [A1, A2]);
  host.run(
    new StunServer({ listen: server, alternate: { address: A2, port: 3479 }, ...serverOptions }),
  );
  const single = world.host("plain");
  single.attach(internet, PLAIN);
  single.run(new StunServer({ listen: plain }));
  const machine = new NatBehaviour({
    servers: [server],
    localAddress,
    random: seededRandom(seed),
    ...options,
  });
  const run: Run = client.run(machine, {});
  run.do((it, now) => it.start(now));
  return { world, run };
}

/** Lets it run to its end. */
function find(...from: Parameters<typeof scene>): NatBehaviourResult {
  const { world, run } = scene(...from);
  world.driveBounded(200_000, () => run.events.length > 0);
  const { event } = run.events[0]!;
  if (event.type !== "found") throw new Error(event.message);
  assertEquals(run.machine.sockets(), []);
  assertEquals(run.machine.nextTimeout(), undefined);
  return event.result;
}

const TYPES: Record<string, string> = {
  "endpoint-independent": "full-cone",
  "address-dependent": "restricted-cone",
  "address-and-port-dependent": "port-restricted-cone",
};

describe("NAT behaviour discovery (RFC 5780) finds what the NAT is", () => {
  for (const mapping of NAT_DEPENDENCES) {
    for (const filtering of NAT_DEPENDENCES) {
      it(`${mapping} mapping, ${filtering} filtering, all ports and hairpins`, () => {
        let seed = 0;
        for (const ports of PORTS) {
          for (const hairpin of HAIRPINS) {
            const found = find({ mapping, filtering, ports, hairpin }, {}, { seed: ++seed });
            const what = `${ports} ports, ${hairpin} hairpin`;
            assertEquals(found.isTranslated, true, what);
            assertEquals(found.external?.address, EXTERNAL, what);
            assertEquals(found.mapping, mapping, what);
            assertEquals(found.filtering, filtering, what);
            assertEquals(found.ports, ports, what);
            assertEquals(found.portDelta, ports === "contiguous" ? 1 : undefined, what);
            assertEquals(found.rewritesAddresses, false, what);
            const isCone = mapping === "endpoint-independent";
            assertEquals(found.type, isCone ? TYPES[filtering]! : "symmetric", what);
            // Through another mapping with a filter nothing can be said.
            if (isCone) assertEquals(found.hairpin, hairpin, what);
            else if (found.hairpin !== undefined) assertEquals(found.hairpin, hairpin, what);
          }
        }
      });
    }
  }

  it("with 10 % of the packets lost, each way", () => {
    for (let seed = 1; seed <= 20; seed++) {
      const filtering = NAT_DEPENDENCES[seed % 3]!;
      const mapping = NAT_DEPENDENCES[Math.floor(seed / 3) % 3]!;
      const found = find({ mapping, filtering }, {}, { seed, loss: 0.1 });
      assertEquals([found.mapping, found.filtering], [mapping, filtering], `seed ${seed}`);
    }
  });

  it("of two NATs one behind the other, the worse of each", () => {
    const found = find(
      { mapping: "endpoint-independent", filtering: "address-and-port-dependent" },
      {},
      { outer: { mapping: "address-dependent", filtering: "endpoint-independent" } },
    );
    assertEquals(found.mapping, "address-dependent");
    assertEquals(found.filtering, "address-and-port-dependent");
    assertEquals(found.type, "symmetric");
  });
});

describe("NAT behaviour discovery without a NAT", () => {
  it("says so, and that anybody may send", () => {
    const found = find(undefined);
    assertEquals(found.isTranslated, false);
    assertEquals(found.external, found.local);
    assertEquals([found.mapping, found.filtering], [
      "endpoint-independent",
      "endpoint-independent",
    ]);
    assertEquals([found.hairpin, found.ports, found.lifetime], [undefined, undefined, undefined]);
    assertEquals(found.type, "open");
    const untested = find(undefined, { servers: [plain] });
    assertEquals([untested.isTranslated, untested.filtering, untested.type], [
      false,
      undefined,
      "unknown",
    ]);
  });

  it("finds a firewall", () => {
    const world = new World({ seed: 2 });
    const internet = world.segment("internet"), lan = world.segment("lan");
    const address = "203.0.113.66";
    world.nat("firewall", {
      inside: [lan, "203.0.113.65"],
      outside: [internet, "198.51.100.77"],
      ports: "untranslated",
      prefix: parseCidr("203.0.113.64/29")!,
      filtering: "address-dependent",
    });
    const client = world.host("client"), host = world.host("server");
    client.attach(lan, address, { gateway: "203.0.113.65" });
    host.attach(internet, [A1, A2]);
    host.run(new StunServer({ listen: server, alternate: { address: A2, port: 3479 } }));
    const machine = new NatBehaviour({
      servers: [server],
      localAddress: address,
      random: seededRandom(1),
    });
    const run: Run = client.run(machine, {});
    run.do((it, now) => it.start(now));
    world.driveBounded(20_000, () => run.events.length > 0);
    const { event } = run.events[0]!;
    if (event.type !== "found") throw new Error(event.message);
    assertEquals([event.result.type, event.result.filtering], ["firewall", "address-dependent"]);
  });
});

describe("NAT behaviour discovery with other servers", () => {
  it("says blocked where none answers", () => {
    const { world, run } = scene({}, { servers: [{ address: "198.51.100.77", port: 3478 }] });
    world.runFor(60_000);
    const { event, at } = run.events[0]!;
    if (event.type !== "found") throw new Error(event.message);
    assertEquals(event.result.type, "blocked");
    assertEquals(event.result.servers[0]?.failure, { kind: "no-answer" });
    assert(at <= 11_000, `${at} ms`);
  });

  it("says blocked at once where ICMP says that there is none", () => {
    const { world, run } = scene({}, { servers: [{ address: A1, port: 9 }] });
    world.driveBounded(1000, () => run.events.length > 0);
    const { event, at } = run.events[0]!;
    if (event.type !== "found") throw new Error(event.message);
    assertEquals([event.result.type, event.result.servers[0]?.failure, at < 1000], [
      "blocked",
      { kind: "unreachable" },
      true,
    ]);
  });

  it("finds what a server with one address can tell", () => {
    const found = find({ hairpin: "external-source", ports: "random" }, { servers: [plain] });
    assertEquals([found.mapping, found.filtering, found.type], [undefined, undefined, "unknown"]);
    assertEquals(found.external?.address, EXTERNAL);
    assertEquals(found.ports, "random");
    assertEquals(found.servers[0]?.other, undefined);
  });

  it("compares several of those", () => {
    const second = { address: A1, port: 3478 };
    const serverOptions = { alternate: undefined } as unknown as StunServerOptions;
    for (const mapping of NAT_DEPENDENCES) {
      const found = find({ mapping }, { servers: [plain, second] }, { serverOptions });
      const isCone = mapping === "endpoint-independent";
      assertEquals(found.mapping, isCone ? mapping : "address-and-port-dependent");
      assertEquals(found.type, isCone ? "unknown" : "symmetric");
      if (isCone) assertEquals(found.hairpin, "external-source");
    }
  });

  it("asks all, and goes on with the first that has a second address", () => {
    const dead = { address: "198.51.100.77", port: 3478 };
    const found = find({ filtering: "endpoint-independent" }, { servers: [dead, plain, server] });
    assertEquals(found.type, "full-cone");
    assertEquals(
      found.servers.map(({ external, other, failure }) => [
        external?.address,
        other?.address,
        failure?.kind,
      ]),
      [
        [undefined, undefined, "no-answer"],
        [EXTERNAL, undefined, undefined],
        [EXTERNAL, A2, undefined],
      ],
    );
    assertEquals(found.servers[2]?.roundTripMs, 22);
  });

  it("does not wait for a server that is silent once another has told all", () => {
    const dead = { address: "198.51.100.77", port: 3478 };
    const { world, run } = scene({}, { servers: [server, dead] });
    world.driveBounded(20_000, () => run.events.length > 0);
    const [{ event, at }] = run.events as [typeof run.events[0]];
    if (event.type !== "found") throw new Error(event.message);
    assertEquals(event.result.type, "restricted-cone");
    assertEquals(event.result.servers[1], {
      server: dead,
      external: undefined,
      other: undefined,
      roundTripMs: undefined,
      failure: { kind: "no-answer" },
    });
    assert(at >= 1200 && at < 5000, `${at} ms`);
    // A second, and a tenth for each that is asked, is all that it has.
    const open = scene({ filtering: "endpoint-independent" }, { servers: [server, dead] });
    open.world.driveBounded(20_000, () => open.run.events.length > 0);
    assertEquals(open.run.events[0]!.at, 1200);
  });

  it("begins no more than ten transactions in a second", () => {
    const { world, run } = scene({}, { servers: Array(8).fill(server) });
    const begun: number[] = [];
    let before = 0;
    while (run.events.length === 0 && world.step()) {
      const { requests } = run.machine.stats.client;
      for (let i = before; i < requests; i++) begun.push(world.nextAt()!);
      before = requests;
    }
    assert(begun.length > 10);
    for (let i = 10; i < begun.length; i++) assert(begun[i]! - begun[i - 10]! >= 990);
  });
});

describe("the life of a binding (RFC 5780 §4.6)", () => {
  for (
    const [seconds, within] of [
      [7, { atLeastSeconds: 6.75, atMostSeconds: 7.5 }],
      [30, { atLeastSeconds: 29.25, atMostSeconds: 30 }],
      [60, { atLeastSeconds: 58.5, atMostSeconds: 60 }],
      [125, { atLeastSeconds: 123, atMostSeconds: 126 }],
      // A tenth of the upper bound is near enough, and exactly that is.
      [290, { atLeastSeconds: 270, atMostSeconds: 300 }],
    ] as const
  ) {
    for (const inboundRefresh of [false, true]) {
      it(`of ${seconds} s is found, inbound refresh ${inboundRefresh}`, () => {
        const found = find(
          { timeoutMs: seconds * 1000, inboundRefresh, ports: "random" },
          { maxLifetimeSeconds: 300 },
        );
        const { atLeastSeconds, atMostSeconds } = found.lifetime!;
        assertEquals(found.lifetime, within);
        // Two or three journeys of 10 ms are in it.
        assert(atLeastSeconds <= seconds + 0.1, `at least ${atLeastSeconds}`);
        assert(atMostSeconds! >= seconds - 0.1, `at most ${atMostSeconds}`);
        assert(atMostSeconds! - atLeastSeconds <= Math.max(1, seconds * 0.2));
      });
    }
  }

  it("longer than was tried has no upper bound", () => {
    const found = find({ timeoutMs: 300_000 }, { maxLifetimeSeconds: 60 });
    assertEquals(found.lifetime, { atLeastSeconds: 60, atMostSeconds: undefined });
  });

  it("is not known of a server that does not answer to another port", () => {
    const refuses = ({ attributes }: Asked) => attributes.responsePort !== undefined;
    const result = byHand(make({ maxLifetimeSeconds: 60 }), refuses);
    assertEquals([result.mapping, result.lifetime], ["endpoint-independent", undefined]);
  });

  it("is not known of a server that answers to where it was asked from", () => {
    const result = byHand(make({ maxLifetimeSeconds: 60 }), () => false);
    assertEquals([result.mapping, result.lifetime], ["endpoint-independent", undefined]);
  });

  it("is found without waiting for those that rest longer than one that is gone", () => {
    const { world, run } = scene({ timeoutMs: 7000 }, { maxLifetimeSeconds: 300 });
    world.driveBounded(200_000, () => run.events.length > 0);
    const { at } = run.events[0]!;
    assert(at < 60_000, `${at} ms`);
  });

  it("is not looked for where there is no NAT", () => {
    const found = find(undefined, { maxLifetimeSeconds: 60 });
    assertEquals(found.lifetime, undefined);
  });
});

interface Asked {
  readonly attributes: { readonly responsePort?: number };
}

/** Plays a full cone that keeps ports, and a server that refuses what `refuses` picks. */
function byHand(
  machine: NatBehaviour,
  refuses: (asked: Asked) => boolean,
  { mapped, from: other, moved = 0, gives, isOld, echo, lacks, times }: {
    mapped?: Endpoint;
    from?: Endpoint;
    moved?: number;
    /** The external port of the n-th socket; its own where left out. */
    gives?: (n: number) => number;
    /** The sockets that cannot be opened. */
    lacks?: (key: string) => boolean;
    /** When packets went to the outside, and when it was over. */
    times?: number[];
    /** The server speaks as RFC 3489 has it. */
    isOld?: boolean;
    /** What comes back of a packet to the outside, and where. */
    echo?: (sent: Uint8Array) => readonly [data: Uint8Array, from: Endpoint, socket: string];
  } = {},
): NatBehaviourResult {
  const open = new Map<string, number>();
  let now = 0;
  machine.start(now);
  for (let i = 0; i < 1000; i++) {
    for (;;) {
      const spec = machine.sockets().find(({ key }) => !open.has(key));
      if (!spec) break;
      const { key, local } = spec;
      if (lacks?.(key)) {
        const failure = {
          ok: false,
          code: "network",
          message: "none left",
          isOpen: false,
        } as const;
        machine.handleSocket(key, failure, now);
        continue;
      }
      const port = local!.port + moved;
      open.set(key, port);
      machine.handleSocket(key, { ok: true, local: { ...local!, port } }, now);
    }
    for (const action of drain(machine)) {
      if (action.type === "event") {
        const event = action.event as NatBehaviourEvent;
        if (event.type !== "found") throw new Error(event.message);
        times?.push(now);
        return event.result;
      }
      if (action.type !== "send") continue;
      const asked = decodeStun(action.data);
      if (typeof asked === "string" || asked.class !== "request") continue;
      if (action.to.address === EXTERNAL) {
        times?.push(now);
        if (echo) machine.handleDatagram(...echo(action.data), now + 1);
        continue;
      }
      const own = open.get(action.socket)!;
      const port = gives?.([...open.keys()].indexOf(action.socket)) ?? own;
      const { method, transactionId, attributes } = asked;
      const isRefused = refuses({ attributes });
      const external = { address: EXTERNAL, port };
      const data = encodeStun({
        class: isRefused ? "error" : "success",
        method,
        transactionId,
        attributes: isRefused
          ? { errorCode: { code: 420, reason: "" } }
          : isOld
          ? { mappedAddress: external, changedAddress: { address: A2, port: 3479 } }
          : {
            xorMappedAddress: external,
            mappedAddress: mapped ?? external,
            otherAddress: other ?? { address: A2, port: 3479 },
          },
      });
      machine.handleDatagram(data, action.to, action.socket, now + 1);
    }
    const next = machine.nextTimeout();
    if (next === undefined) break;
    now = Math.max(now + 1, next);
    machine.handleTimeout(now);
  }
  throw new Error("It has no end");
}

const make = (options: Partial<NatBehaviourOptions> = {}) =>
  new NatBehaviour({
    servers: [server],
    localAddress: INSIDE,
    random: seededRandom(4),
    ...options,
  });

describe("NAT behaviour discovery with odd servers", () => {
  it("does not take an answer from where it asked for one from elsewhere", () => {
    const result = byHand(make(), () => false);
    assertEquals([result.mapping, result.filtering], ["endpoint-independent", undefined]);
    assertEquals(result.type, "unknown");
  });

  it("finds an ALG where the two addresses differ", () => {
    assertEquals(byHand(make(), () => false).rewritesAddresses, false);
    const mapped = { address: INSIDE, port: 9 };
    assertEquals(byHand(make(), () => false, { mapped }).rewritesAddresses, true);
  });

  it("takes the words of RFC 3489 for the same", () => {
    const old = byHand(make(), () => false, { isOld: true }), usual = byHand(make(), () => false);
    assertEquals(old, usual);
    assertEquals(old.servers[0]?.other, { address: A2, port: 3479 });
  });

  it("takes nothing for its own packet but that, where it was sent to", () => {
    const from = { address: EXTERNAL, port: 40_000 }, inside = { address: INSIDE, port: 40_000 };
    const hairpin = (
      socket: string,
      by: Endpoint,
      change: (sent: Uint8Array) => Uint8Array = (sent) => sent,
    ) => byHand(make(), () => false, { echo: (sent) => [change(sent), by, socket] }).hairpin;
    assertEquals(hairpin("mapping", from), "external-source");
    assertEquals(hairpin("mapping", inside), "internal-source");
    assertEquals(hairpin("filtering", from), "none");
    assertEquals(hairpin("mapping", from, (sent) => sent.with(19, sent[19]! ^ 1)), "none");
  });

  it("sends to its own outside three times, and waits a second after the last", () => {
    const times: number[] = [];
    assertEquals(byHand(make(), () => false, { times }).hairpin, "none");
    assertEquals(times.map((at) => at - times[0]!), [0, 250, 750, 1750]);
  });

  it("finds ports in a row that go up by 16 at most", () => {
    const ports = (step: number) => {
      const gives = (n: number) => 40_000 + n * step;
      const { ports, portDelta } = byHand(make(), () => false, { gives });
      return [ports, portDelta];
    };
    assertEquals(ports(16), ["contiguous", 16]);
    assertEquals([ports(17), ports(-1)], [["random", undefined], ["random", undefined]]);
  });

  it("asks nobody at an address that is none, or not another one", () => {
    for (
      const from of [
        { address: "255.255.255.255", port: 1 },
        { address: "224.0.0.1", port: 1 },
        { address: "0.0.0.0", port: 1 },
        { address: "127.0.0.1", port: 1 },
        { address: A2, port: 0 },
        { address: A2, port: 3478 },
        { address: A1, port: 3479 },
        { address: "2001:db8::1", port: 1 },
      ]
    ) {
      const result = byHand(make(), () => false, { from });
      assertEquals([result.servers[0]?.other, result.mapping], [undefined, undefined]);
    }
  });
});

describe("the sockets of NAT behaviour discovery", () => {
  it("are where they were opened, at whichever port that was", () => {
    for (const moved of [0, -1]) {
      const { local, external, ports } = byHand(make(), () => false, { moved });
      assertEquals([local.port, ports], [external!.port, "preserving"]);
    }
  });

  it("are at three random ports of the upper half, and others where those are taken", () => {
    const machine = make();
    machine.start(0);
    machine.start(0);
    const specs = machine.sockets();
    assertEquals(specs.map(({ key }) => key), ["mapping", "filtering", "hairpin"]);
    for (const { local } of specs) {
      assertEquals(local?.address, INSIDE);
      assert(local!.port >= 32_768 && local!.port <= 65_535);
    }
    const failure = { ok: false, code: "network", message: "in use", isOpen: false } as const;
    machine.handleSocket("mapping", failure, 0);
    const again = machine.sockets()[0]!;
    assertEquals(again.key, "mapping 2");
    assert(again.local!.port !== specs[0]!.local!.port);
    assertEquals(drain(machine), []);
  });

  it("that cannot be had are told of, once", () => {
    const machine = make();
    machine.start(0);
    const keys = new Set<string>();
    for (let i = 0; i < 10; i++) {
      const [first] = machine.sockets();
      if (!first) break;
      keys.add(first.key);
      machine.handleSocket(
        first.key,
        { ok: false, code: "permission", message: "not allowed", isOpen: false },
        0,
      );
    }
    assertEquals(keys.size, 5);
    assertEquals(drain(machine), [
      { type: "event", event: { type: "failed", code: "permission", message: "not allowed" } },
    ]);
    assertEquals(machine.sockets(), []);
  });

  it("that are told of twice, or have a passing trouble, are as they were; one that is lost ends it", () => {
    const machine = make();
    machine.start(0);
    const trouble = { ok: false, code: "network", message: "down", isOpen: true } as const;
    const specs = machine.sockets();
    for (let i = 0; i < 2; i++) {
      for (const { key, local } of specs) machine.handleSocket(key, { ok: true, local: local! }, 0);
      for (const { key } of specs) machine.handleSocket(key, trouble, 0);
    }
    machine.handleTimeout(400);
    assertEquals([machine.stats.client.requests, machine.sockets()], [1, specs]);
    assertEquals(machine.handleDatagram(Uint8Array.of(1), server, "mapping", 400), false);
    assertEquals(machine.stats.dropped.unknown, 1);
    drain(machine);
    machine.handleSocket("hairpin", { ...trouble, isOpen: false }, 400);
    assertEquals(drain(machine), [
      { type: "event", event: { type: "failed", code: "network", message: "down" } },
    ]);
  });

  it("that are wanted for the life of a binding alone take nothing else with them", () => {
    const unbounded = byHand(make({ maxLifetimeSeconds: 60 }), () => false, {
      lacks: (key) => key.startsWith("asker") || key.startsWith("rest"),
    });
    const { type, mapping, filtering, lifetime } = unbounded;
    const found = byHand(make(), () => false);
    assertEquals({ type, mapping, filtering, lifetime }, {
      type: found.type,
      mapping: found.mapping,
      filtering: found.filtering,
      lifetime: undefined,
    });
    let rests = 0;
    const bounded = byHand(make({ maxLifetimeSeconds: 60 }), () => false, {
      lacks: (key) => key.startsWith("rest") && ++rests > 1,
    });
    assertEquals([bounded.mapping, bounded.lifetime?.atMostSeconds], [found.mapping, undefined]);
  });

  it("are gone where it is closed, and nothing is told", () => {
    const machine = make();
    machine.start(0);
    for (const { key, local } of machine.sockets()) {
      machine.handleSocket(key, { ok: true, local: local! }, 0);
    }
    assert(drain(machine).length > 0);
    machine.close(1);
    assertEquals([machine.sockets(), drain(machine), machine.nextTimeout()], [[], [], undefined]);
  });
});

describe("NAT behaviour discovery cannot be made", () => {
  it("with options that cannot be, and names them", () => {
    const cases: [Partial<NatBehaviourOptions>, string][] = [
      [{ servers: [] }, "'servers.length' must be an integer in 1..8"],
      [{ servers: Array(9).fill(server) }, "'servers.length'"],
      [{ servers: [{ address: "2001:db8::1", port: 1 }] }, "'servers.address' must be an IPv4"],
      [{ servers: [{ address: A1, port: 0 }] }, "'servers.port'"],
      [{ localAddress: "here" }, "'localAddress' must be an IP address"],
      [{ maxLifetimeSeconds: 3 }, "'maxLifetimeSeconds' must be an integer in 4..3600"],
    ];
    for (const [options, message] of cases) assertThrows(() => make(options), Error, message);
  });
});
