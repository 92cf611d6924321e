import { describe, it } from "node:test";
import { assert, assertEquals, assertThrows } from "@std/assert";
import { toHex } from "../../../core/bytes.ts";
import type { SavedState } from "../../../core/lease/saved.ts";
import { NatPmpClient } from "../../../core/natpmp/mod.ts";
import { encodeMapRequest } from "../../../core/natpmp/codec.ts";
import { seededRandom } from "../../../core/random.ts";
import { choosing, GATEWAY, HOST, newGateway, Rig, rigWithMapping } from "./rig.ts";

const SECOND = 1000, HOUR = 3_600_000;
const UDP_5000 = { protocol: "udp", internalPort: 5000 } as const;

describe("NatPmpClient: over a restart of the application", () => {
  it("a new client adopts the mappings and renews them with their ports", () => {
    const { rig, gateway } = rigWithMapping({}, choosing(41_000));
    rig.do((client, now) => client.map({ ...UDP_5000, lifetimeSeconds: 900 }, now));
    const state = JSON.parse(JSON.stringify(rig.client.exportState(rig.now)));
    assertEquals(state, {
      version: 1,
      mappings: [
        {
          via: "nat-pmp",
          gateway: GATEWAY.address,
          protocol: "tcp",
          internalPort: 8080,
          suggestedExternal: { port: 8080 },
          external: { port: 8080 },
          mode: "keep-alive",
          lifetimeSeconds: 7200,
        },
        {
          via: "nat-pmp",
          gateway: GATEWAY.address,
          protocol: "udp",
          internalPort: 5000,
          external: { port: 41_000 },
          mode: "keep-alive",
          lifetimeSeconds: 900,
        },
      ],
    });

    const next = new Rig({ gateway, seed: 2, state });
    assert(next.client.nextTimeout()! <= 0);
    next.runTo(123_456);
    assertEquals(next.sent.map(({ data }) => toHex(data)), [
      "000200001f901f9000001c20",
      "000100001388a02800000384",
    ]);
    assertEquals(next.takeTypes(), ["mapped", "mapped"]);
  });

  it("map() claims an adopted mapping, with its id and port", () => {
    const { rig } = rigWithMapping();
    const next = new Rig({ seed: 2, state: rig.client.exportState(0) });
    const [adopted] = next.client.mappings();
    const id = next.do((client, now) => client.map({ protocol: "tcp", internalPort: 8080 }, now));
    assertEquals(id, adopted?.id);
    assertEquals(next.sent.map(({ data }) => toHex(data)), ["000200001f901f9000001c20"]);
    assertThrows(() => next.client.map({ protocol: "tcp", internalPort: 8080 }, 0), TypeError);
  });

  it("map() of an adopted mapping that is granted already tells it again", () => {
    const { rig, gateway } = rigWithMapping();
    const next = new Rig({ gateway, seed: 2, state: rig.client.exportState(0) });
    next.runTo(10);
    assertEquals(next.takeTypes(), ["mapped"]);
    next.do((client, now) => client.map({ protocol: "tcp", internalPort: 8080 }, now));
    assertEquals([next.takeTypes(), next.sent.length], [["mapped"], 1]);
  });

  it("map() of a granted mapping that was wanted for a time keeps it alive from there on", () => {
    const { rig, gateway } = rigWithMapping({ mode: "once", lifetimeSeconds: 600 });
    const next = new Rig({ gateway, seed: 2, state: rig.client.exportState(0) });
    next.runTo(1);
    next.takeSent();
    next.do((client, now) =>
      client.map({ protocol: "tcp", internalPort: 8080, lifetimeSeconds: 600 }, now)
    );
    next.runTo(700 * SECOND);
    assertEquals(next.takeTimes(), [300 * SECOND, 600 * SECOND]);
    assertEquals(next.takeTypes(), ["mapped", "mapped", "renewed", "renewed"]);
  });

  it("map() of a granted mapping for N lifetimes counts the one under way", () => {
    const { rig, gateway } = rigWithMapping({ lifetimeSeconds: 600 });
    const next = new Rig({ gateway, seed: 2, state: rig.client.exportState(0) });
    next.runTo(1);
    const request = { protocol: "tcp", internalPort: 8080, lifetimeSeconds: 600, mode: 2 } as const;
    next.do((client, now) => client.map(request, now));
    next.runTo(1200 * SECOND - 1);
    assertEquals([...new Set(next.takeTypes())], ["mapped", "renewed"]);
    next.runTo(1200 * SECOND);
    assertEquals(next.takeTypes(), ["unmapped"]);
  });

  it("an adopted mapping can be deleted without being asked for first", () => {
    const { rig, gateway } = rigWithMapping();
    const next = new Rig({ gateway, seed: 2, state: rig.client.exportState(0) });
    next.do((client, now) => client.revoke(client.mappings()[0]!.id, now));
    assertEquals(next.sent.map(({ data }) => toHex(data)), ["000200001f90000000000000"]);
  });

  it("a mapping wanted for a time is wanted for what is left of it", () => {
    const { rig } = rigWithMapping({ mode: 2, lifetimeSeconds: 600 });
    rig.runTo(900 * SECOND);
    const state = rig.client.exportState(rig.now);
    assertEquals([state.mappings[0]?.mode, state.mappings[0]?.lifetimeSeconds], ["once", 300]);
    const next = new Rig({ gateway: newGateway(), seed: 2, state });
    next.runTo(400 * SECOND);
    const [only, ...others] = next.takeSent().map(({ request }) => request);
    assertEquals([only?.kind === "map" && only.lifetimeSeconds, others], [300, []]);
    assertEquals(next.takeTypes(), ["mapped", "unmapped"]);
  });

  it("a state that is none is refused", () => {
    const mapping = {
      via: "nat-pmp",
      gateway: GATEWAY.address,
      protocol: "tcp",
      internalPort: 1,
      external: { port: 1 },
      lifetimeSeconds: 1,
      mode: "keep-alive",
    };
    const make = (state: unknown) => () => new Rig({ state: state as SavedState });
    assertThrows(make({ version: 2, mappings: [] }), RangeError, "version");
    assertThrows(make({ version: 1, mappings: [{ ...mapping, protocol: "x" }] }), TypeError);
    assertThrows(make({ version: 1, mappings: [{ ...mapping, internalPort: 0 }] }), TypeError);
    assertThrows(make({ version: 1, mappings: [mapping, mapping] }), TypeError, "already");
    assertThrows(make({ version: 1, mappings: [{ ...mapping, lifetimeSeconds: -1 }] }), RangeError);
  });
});

describe("NatPmpClient: the caller's mistakes", () => {
  const base = { protocol: "tcp", internalPort: 80 } as const;
  const wrong: readonly [name: string, request: object, text: string][] = [
    ["protocol", { ...base, protocol: "sctp" }, "sctp"],
    ["internal port 0", { ...base, internalPort: 0 }, "internalPort"],
    ["internal port 65536", { ...base, internalPort: 65536 }, "65536"],
    ["a port that is text", { ...base, internalPort: "80" }, '"80"'],
    ["external port -1", { ...base, suggestedExternal: { port: -1 } }, "suggestedExternal.port"],
    ["lifetime 0", { ...base, lifetimeSeconds: 0 }, "lifetimeSeconds"],
    ["lifetime 2^32", { ...base, lifetimeSeconds: 2 ** 32 }, "4294967296"],
    ["lifetime 1.5", { ...base, lifetimeSeconds: 1.5 }, "1.5"],
    ["mode 0", { ...base, mode: 0 }, "mode"],
    ["mode", { ...base, mode: "always" }, "always"],
  ];
  for (const [name, request, text] of wrong) {
    it(`${name}: thrown, by name or value, and nothing has happened`, () => {
      const rig = new Rig();
      assertThrows(() => rig.client.map(request as typeof base, 0), Error, text);
      assertEquals([rig.client.isIdle, rig.client.poll()], [true, undefined]);
    });
  }

  it("a gateway that is none", () => {
    const random = seededRandom(1);
    for (const gateway of [{ address: "nowhere", port: 1 }, { address: "10.0.0.1", port: 0 }]) {
      assertThrows(() => new NatPmpClient({ gateway, random }));
    }
  });
});

describe("NatPmpClient: events that nobody fetches", () => {
  it("recovered is told only to who was told mapped", () => {
    for (const isToldMapped of [false, true]) {
      const gateway = newGateway();
      const client = new NatPmpClient({ gateway: GATEWAY, random: seededRandom(1) });
      const request = encodeMapRequest({
        ...UDP_5000,
        suggestedExternalPort: 0,
        lifetimeSeconds: 600,
      });
      const drain = (): string[] => {
        const types: string[] = [];
        for (let action = client.poll(); action; action = client.poll()) {
          if (action.type === "event") types.push(action.event.type);
        }
        return types;
      };
      const answer = (now: number) => {
        gateway.handleDatagram(request, HOST, "server", now);
        const reply = gateway.poll();
        if (reply?.type === "send") client.handleDatagram(reply.data, GATEWAY, "client", now);
      };
      client.map({ ...UDP_5000, lifetimeSeconds: 600 }, 0);
      drain();
      answer(0);
      if (isToldMapped) assertEquals(drain(), ["mapped"]);
      client.handleTimeout(600 * SECOND);
      assertEquals(client.mappings()[0]?.state, "starting");
      const lost = drain();
      answer(601 * SECOND);
      assertEquals([lost, drain()], [["lost"], [isToldMapped ? "recovered" : "mapped"]]);
    }
  });

  it("keeps the queue of a mapping that nobody looks at to one event and one datagram", () => {
    const gateway = newGateway();
    const client = new NatPmpClient({ gateway: GATEWAY, random: seededRandom(1) });
    // The client's requests stay in its queue: this is what they say.
    const fields = { suggestedExternalPort: 0, lifetimeSeconds: 7200 } as const;
    const request = encodeMapRequest({ ...UDP_5000, ...fields });
    client.map(UDP_5000, 0);
    for (let k = 0; k < 500; k++) {
      const now = k * HOUR;
      gateway.handleDatagram(request, HOST, "server", now);
      gateway.setExternalAddresses([`198.51.100.${k % 200 + 1}`], now);
      for (let reply = gateway.poll(); reply; reply = gateway.poll()) {
        if (reply.type === "send") client.handleDatagram(reply.data, GATEWAY, "client", now);
      }
      client.handleTimeout(now + HOUR);
    }
    assert(client.stats.answers >= 500);
    let actions = 0;
    while (client.poll()) actions++;
    assert(actions <= 4, `${actions} actions`);
  });
});
