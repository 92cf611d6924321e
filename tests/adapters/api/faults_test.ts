/** What the promises do where something goes wrong, in virtual time. */
import { describe, it } from "node:test";
import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import { NatError, type Via } from "../../../core/errors.ts";
import { Nat } from "../../../adapters/api/nat.ts";
import { NatPmpClient } from "../../../adapters/api/nat_pmp_client.ts";
import { openPort } from "../../../adapters/api/open_port.ts";
import type { NatOptions, NatState } from "../../../adapters/api/options.ts";
import { PcpClient } from "../../../adapters/api/pcp_client.ts";
import type { PortEvent } from "../../../adapters/api/port_mapping.ts";
import { any, FakeNetwork, GATEWAY, routeHex, type Sent, turn } from "./fake_network.ts";

type Options = Omit<NatOptions, "runtime">;

/** A host behind a gateway that speaks these, and a context; closed afterwards. */
async function withNat(
  run: (nat: Nat, net: FakeNetwork) => Promise<void>,
  spoken: readonly Via[] = ["pcp", "nat-pmp"],
  options: Options = {},
): Promise<void> {
  const net = new FakeNetwork(spoken);
  const over = { announcements: false, protocols: VIAS, ...options, runtime: net };
  const nat = await Nat.open({ gateway: GATEWAY, ...over });
  try {
    await run(nat, net);
  } finally {
    const closed = nat.close();
    await net.pass(3000);
    await closed;
  }
}

/** How a promise stands: its error's code, `"resolved"`, or `"pending"`. */
function watch(promise: Promise<unknown>): { how: string; error: NatError | undefined } {
  const seen: { how: string; error: NatError | undefined } = { how: "pending", error: undefined };
  promise.then(
    () => seen.how = "resolved",
    (error) => {
      seen.how = error instanceof NatError ? error.code : String(error);
      if (error instanceof NatError) seen.error = error;
    },
  );
  return seen;
}

const isDeletion = ({ lifetimeSeconds }: Sent) => lifetimeSeconds === 0;
const VIAS: readonly Via[] = ["pcp", "nat-pmp"];

describe("renew()", () => {
  for (const via of VIAS) {
    it(`twice at once is answered each by its own answer (${via})`, async () => {
      await withNat(async (nat, net) => {
        const port = await nat.map(8080);
        await net.pass(10_000);
        net.requests.length = 0;
        const [first, second] = [watch(port.renew(3600)), watch(port.renew(600))];
        await net.pass(20);
        if (first.how === "resolved" && second.how === "pending") {
          assertEquals(port.lifetimeSeconds, 3600);
        }
        await net.pass(9000);
        assertEquals([first.how, second.how], ["resolved", "resolved"]);
        assertEquals(port.lifetimeSeconds, net.requests.at(-1)!.lifetimeSeconds);
        assertEquals(net.requests.at(-1)!.lifetimeSeconds, 600);
      }, [via]);
    });

    it(`that is refused is told at once, with the refusal (${via})`, async () => {
      await withNat(async (nat, net) => {
        const port = await nat.map(8080);
        await net.pass(10_000);
        net.command("refuse 2");
        const renewal = watch(port.renew(3600));
        await net.pass(100);
        assertEquals(renewal.how, "refused");
        const { message, attempts, retryAfterSeconds } = renewal.error!;
        assertEquals(
          message,
          `Cannot renew port 8080/tcp: ${via} at 192.0.2.1: NOT_AUTHORIZED`,
        );
        assertEquals(attempts.map((one) => [one.via, one.gateway, one.outcome]), [
          [via, "192.0.2.1", "NOT_AUTHORIZED"],
        ]);
        assert(retryAfterSeconds! > 0);
        assertEquals(port.state, "open");
        assertEquals(net.ports(), [8080]);
      }, [via]);
    });
  }

  it("that is not answered in time says so, and leaves the mapping", async () => {
    await withNat(async (nat, net) => {
      const port = await nat.map(8080);
      await net.pass(10_000);
      net.silent.add("pcp").add("nat-pmp");
      const renewal = watch(port.renew(undefined, { timeoutMs: 2000 }));
      await net.pass(1900);
      assertEquals(renewal.how, "pending");
      await net.pass(200);
      assertEquals(renewal.how, "no-answer");
      assertEquals(renewal.error!.attempts.map(({ via, outcome }) => `${via} ${outcome}`), [
        "pcp no answer",
      ]);
      assertEquals(port.state, "open");
    });
  });

  it("for a lifetime that is none throws and leaves nothing behind", async () => {
    await withNat(async (nat, net) => {
      const port = await nat.map(8080);
      await assertRejects(() => port.renew(-1), RangeError, "-1");
      const again = watch(port.renew(600));
      await net.pass(5000);
      assertEquals([again.how, port.lifetimeSeconds], ["resolved", 600]);
    });
  });
});

describe("mapBoth()", () => {
  it("follows the gateway to another address, with both", async () => {
    await withNat(async (nat, net) => {
      const port = await nat.mapBoth(8080);
      await net.pass(5000);
      net.command("external 203.0.113.99");
      const renewal = port.renew();
      await net.pass(5000);
      await renewal;
      assertEquals([port.external.address, port.state], ["203.0.113.99", "open"]);
      assertEquals(net.ports(), [8080, 8080]);
    });
  });
});

describe("renew() of a mapping that ends", () => {
  for (const how of ["close", "release"] as const) {
    it(`by ${how}() says that it was closed`, async () => {
      await withNat(async (nat, net) => {
        const port = await nat.map(8080);
        await net.pass(10_000);
        net.silent.add("pcp");
        const renewal = watch(port.renew());
        await turn();
        const ended = watch(port[how]());
        await net.pass(1600);
        assertEquals([renewal.how, ended.how, port.state], ["closed", "resolved", "closed"]);
        const late = watch(port.renew());
        await turn();
        assertEquals([late.how, late.error?.message], [
          "closed",
          "Cannot renew port 8080/tcp: it was closed",
        ]);
      });
    });
  }
});

describe("unmap()", () => {
  it("twice at once at a silent gateway fails twice: neither is done", async () => {
    await withNat(async (nat, net) => {
      net.silent.add("pcp").add("nat-pmp");
      const [first, second] = [watch(nat.unmap(8080)), watch(nat.unmap(8080))];
      await net.pass(1000);
      assertEquals([first.how, second.how], ["pending", "pending"]);
      await net.pass(9100);
      assertEquals([first.how, second.how], ["no-answer", "no-answer"]);
    });
  });

  it("that is refused says by whom, and how", async () => {
    await withNat(async (nat, net) => {
      await (await nat.map(8080)).release();
      net.command("refuse 2");
      const unmap = watch(nat.unmap(8080));
      await net.pass(100);
      assertEquals([unmap.how, unmap.error!.attempts], ["refused", [
        { via: "pcp", gateway: "192.0.2.1", outcome: "NOT_AUTHORIZED", elapsedMs: 0 },
      ]]);
    });
  });

  it("twice at once at one that answers is done twice", async () => {
    await withNat(async (nat, net) => {
      await (await nat.map(8080)).release();
      assertEquals(net.ports(), [8080]);
      const [first, second] = [nat.unmap(8080), nat.unmap(8080)];
      assertEquals(await first, await second);
      assertEquals(net.ports(), []);
    });
  });

  it("of all, twice at once, ends both times", async () => {
    await withNat(async (nat, net) => {
      await (await nat.map(8080)).release();
      const both = [watch(nat.unmapAll("tcp")), watch(nat.unmapAll("tcp"))];
      await net.pass(500);
      assertEquals(both.map(({ how }) => how), ["resolved", "resolved"]);
      assertEquals(net.ports(), []);
      net.silent.add("pcp").add("nat-pmp");
      const silent = [watch(nat.unmapAll("udp")), watch(nat.unmapAll("udp"))];
      await net.pass(10_100);
      assertEquals(silent.map(({ how }) => how), ["no-answer", "no-answer"]);
    });
  });
});

describe("close()", () => {
  it("ends every wait at once: map, renew, externalAddresses, unmap", async () => {
    await withNat(async (nat, net) => {
      const port = await nat.map(8080);
      await net.pass(10_000);
      net.silent.add("pcp").add("nat-pmp");
      const waits = [
        watch(nat.map(8081)),
        watch(port.renew()),
        watch(nat.externalAddresses()),
        watch(nat.unmap(8082)),
        watch(nat.unmapAll("udp")),
      ];
      await turn();
      const closing = watch(nat.close());
      await turn();
      assertEquals(waits.map(({ how }) => how), waits.map(() => "closed"));
      for (const { error } of waits) assert(/^Cannot \w/.test(error!.message), error!.message);
      assertEquals(closing.how, "pending");
      await net.pass(1600);
      assertEquals(closing.how, "resolved");
    });
  });

  it("has everything that is asked afterwards say so", async () => {
    await withNat(async (nat, net) => {
      const port = await nat.map(8080);
      const closing = nat.close();
      await net.pass(100);
      await closing;
      const late = [
        watch(nat.map(8082)),
        watch(nat.mapBoth(8082)),
        watch(nat.unmap(8082)),
        watch(nat.externalAddresses()),
        watch(port.renew()),
      ];
      await turn();
      assertEquals(late.map(({ how }) => how), late.map(() => "closed"));
      assertEquals([net.ports(), net.timers.size], [[], 0]);
    });
  });

  it("a second time waits as the first does", async () => {
    await withNat(async (nat, net) => {
      await nat.map(8080);
      net.silent.add("pcp");
      const [first, second] = [watch(nat.close()), watch(nat.close())];
      await net.pass(1400);
      assertEquals([first.how, second.how], ["pending", "pending"]);
      await net.pass(200);
      assertEquals([first.how, second.how], ["resolved", "resolved"]);
    });
  });

  it("of a port while its context closes waits until that is done, and its end is told", async () => {
    await withNat(async (nat, net) => {
      const port = await nat.map(8080);
      const events: PortEvent[] = [];
      port.onEvent((event) => events.push(event));
      const both = [watch(nat.close()), watch(port.close())];
      await net.pass(100);
      assertEquals(both.map(({ how }) => how), ["resolved", "resolved"]);
      assertEquals(events, [{ type: "unmapped", reason: "revoked" }]);
      assertEquals(net.ports(), []);
    });
  });

  it("does not wait for a gateway that never answered", async () => {
    await withNat(async (nat, net) => {
      net.silent.add("pcp").add("nat-pmp");
      const map = watch(nat.map(8080));
      await net.pass(500);
      const closing = watch(nat.close());
      await net.pass(1);
      assertEquals([map.how, closing.how], ["closed", "resolved"]);
      assertEquals(net.timers.size, 0);
    });
  });

  it("is not waited for by the process where that is unref'ed, by the context or a port of it", async () => {
    await withNat(async (nat, net) => {
      const port = await nat.map(8080);
      const isRef = () => net.sockets[0]!.isRef;
      for (const it of [nat, port]) {
        assertEquals([isRef(), it.unref() === it, isRef()], [true, true, false]);
        assertEquals([it.ref() === it, isRef()], [true, true]);
      }
    });
  });

  it("leaves no timer and no socket", async () => {
    await withNat(async (nat, net) => {
      await nat.map(8080);
      await nat.close();
      assertEquals(net.timers.size, 0);
      assertEquals(net.sockets.map(({ isClosed }) => isClosed), [true]);
      assertThrows(() => nat.gateways, NatError, "closed");
      const late = watch(nat.exportState());
      await turn();
      assertEquals(late.how, "closed");
    });
  });
});

describe("externalAddresses()", () => {
  for (const silent of VIAS) {
    it(`resolves half a second after the first answer at a gateway silent to ${silent}`, async () => {
      await withNat(async (nat, net) => {
        net.silent.add(silent);
        const told: [Via, number][] = [];
        const asked = nat.externalAddresses({
          onAddress: ({ via }) => told.push([via, net.time]),
        });
        const seen = watch(asked);
        const other = silent === "pcp" ? "nat-pmp" : "pcp";
        await net.pass(50);
        assertEquals(told.map(([via]) => via), [other]);
        await net.pass(told[0]![1] + 499 - net.time);
        assertEquals(seen.how, "pending");
        await net.pass(1);
        assertEquals((await asked).map(({ via }) => via), [other]);
        net.silent.clear();
        const again = nat.externalAddresses();
        await net.pass(5000);
        assertEquals((await again).length, 2);
      });
    });
  }

  it("resolves at once where all have answered, and leaves no timer", async () => {
    await withNat(async (nat, net) => {
      const before = net.time;
      const addresses = await nat.externalAddresses();
      assertEquals([addresses.length, net.time], [2, before]);
      assertEquals([...net.timers].filter(({ keepAlive }) => keepAlive), []);
      assertEquals(addresses[0]!.gateway, "192.0.2.1");
    });
  });

  it("asks whom it is told to", async () => {
    await withNat(async (nat) => {
      const addresses = await nat.externalAddresses({ protocols: ["nat-pmp"] });
      assertEquals(addresses.map(({ via, address }) => [via, address]), [
        ["nat-pmp", "203.0.113.7"],
      ]);
      const bad = { protocols: ["pmp" as Via] };
      await assertRejects(() => nat.externalAddresses(bad), TypeError, "'protocols'");
      await assertRejects(() => nat.externalAddresses({ protocols: ["upnp"] }), NatError, "none");
    });
  });

  it("that was given up asks no more", async () => {
    await withNat(async (nat, net) => {
      net.silent.add("pcp").add("nat-pmp");
      const asked = watch(nat.externalAddresses({ timeoutMs: 2000 }));
      await net.pass(2100);
      assertEquals(asked.how, "no-answer");
      net.requests.length = 0;
      await net.pass(120_000, 500);
      assertEquals(net.requests.filter((one) => !isDeletion(one)), []);
    });
  });

  it("waits as long as it takes where the time is Infinity, without a timer", async () => {
    await withNat(async (nat, net) => {
      net.silent.add("pcp").add("nat-pmp");
      const keepAlive = () => [...net.timers].filter((timer) => timer.keepAlive).length;
      const asked = watch(nat.externalAddresses({ timeoutMs: Infinity }));
      await net.pass(60_000, 500);
      assertEquals([asked.how, keepAlive()], ["pending", 0]);
    });
  });

  it("lists who was silent, and who refused", async () => {
    await withNat(async (nat, net) => {
      net.silent.add("pcp").add("nat-pmp");
      const silent = watch(nat.externalAddresses({ timeoutMs: 1000 }));
      await net.pass(1100);
      assertEquals(silent.how, "no-answer");
      assertEquals(silent.error!.attempts.map(({ via, outcome }) => `${via} ${outcome}`), [
        "pcp no answer",
        "nat-pmp no answer",
      ]);
      net.silent.clear();
      net.command("refuse 3");
      const refused = watch(nat.externalAddresses());
      await net.pass(5000);
      assertEquals(refused.how, "refused");
    });
  });

  it("rejects with what onAddress throws", async () => {
    await withNat(async (nat) => {
      const onAddress = () => {
        throw new Error("the application's own");
      };
      await assertRejects(() => nat.externalAddresses({ onAddress }), Error, "own");
      assertEquals((await nat.externalAddresses()).length, 2);
    });
  });
});

/** The application's mistakes: what is called, and what the message must name. */
describe("bad input is a TypeError or RangeError that names it", () => {
  async function assertNamed(call: () => unknown, name: string): Promise<void> {
    let error: unknown;
    try {
      await call();
    } catch (thrown) {
      error = thrown;
    }
    assert(error instanceof TypeError || error instanceof RangeError, `${name}: ${error}`);
    const { message } = error as Error;
    assert(message.includes(name), `${name}: ${message}`);
    assert(message.includes("current value is"), message);
  }

  it("in what a context is asked", async () => {
    await withNat(async (nat, net) => {
      const port = await nat.map(9999);
      await net.pass(5000);
      net.requests.length = 0;
      for (const timeoutMs of [NaN, -1, any("x"), any(null)]) {
        await assertNamed(() => nat.map(80, { timeoutMs }), "'timeoutMs'");
        await assertNamed(() => nat.unmap(80, { timeoutMs }), "'timeoutMs'");
        await assertNamed(() => nat.unmapAll("tcp", { timeoutMs }), "'timeoutMs'");
        await assertNamed(() => nat.externalAddresses({ timeoutMs }), "'timeoutMs'");
        await assertNamed(() => port.renew(60, { timeoutMs }), "'timeoutMs'");
      }
      const cases: readonly (readonly [() => unknown, string])[] = [
        [() => nat.map(80, { signal: any({}) }), "'signal'"],
        [() => nat.map(80, any(null)), "'options'"],
        [() => nat.map(80, any("tcp")), "'options'"],
        [() => nat.map(any(undefined)), "'port'"],
        [() => nat.map(1.5), "'port'"],
        [() => nat.map(any("80")), "'port'"],
        [() => nat.map(-1), "'port'"],
        [() => nat.peer(80, any(undefined)), "'remote'"],
        [() => nat.peer(80, any(null)), "'remote'"],
        [() => nat.peer(80, any("198.51.100.9:443")), "'remote'"],
        [() => nat.peer(80, any({ address: "198.51.100.9" })), "'remote.port'"],
        [() => nat.peer(80, any({ port: 443 })), "'remote.address'"],
        [() => nat.peer(80, { address: "::1", port: 443 }, { family: 4 }), "'remote.address'"],
        [() => nat.peer(0, { address: "198.51.100.9", port: 443 }), "'port'"],
        [() => nat.map(80, { mode: 2 ** 32 }), "'mode'"],
        [() => nat.map(80, { mode: any("forever") }), "'mode'"],
        [() => nat.map(80, { lifetimeSeconds: 0 }), "'lifetimeSeconds'"],
        [() => nat.map(80, { protocol: any("sctp") }), "'protocol'"],
        [() => nat.map(80, { family: any(5) }), "'family'"],
        [() => nat.map(80, { filters: any("10.0.0.0/8") }), "'filters'"],
        [() => nat.map(80, { filters: [any(null)] }), "'filters"],
        [() => nat.map(80, { filters: ["198.51.100.0/24:65536"] }), "'filters'"],
        [() => nat.map(80, { portSetSize: 1 }), "'portSetSize'"],
        [() => nat.map(80, { externalAddress: "home" }), "'externalAddress'"],
        [() => nat.map(80, { thirdParty: "me" }), "'thirdParty'"],
        [() => nat.map(80, { preferFailure: true, externalPort: 0 }), "'preferFailure'"],
        [() => nat.unmap(any(null)), "'port'"],
        [() => nat.unmap(80, any(null)), "'options'"],
        [() => nat.unmapAll(any("icmp")), "'protocol'"],
        [() => nat.externalAddresses(any(null)), "'options'"],
        [() => nat.externalAddresses({ protocols: any("pcp") }), "'protocols'"],
        [() => port.renew(any("x")), "'lifetimeSeconds'"],
        [() => port.renew(2 ** 32), "'lifetimeSeconds'"],
      ];
      for (const [call, name] of cases) await assertNamed(call, name);
      assertEquals(net.requests, []);
    });
  });

  it("in what is opened", async () => {
    const runtime = new FakeNetwork();
    const saved = { via: "pcp", gateway: "192.0.2.1", protocol: "tcp", internalPort: 80 };
    const held = { ...saved, lifetimeSeconds: 60, mode: "keep-alive" };
    const cases: readonly (readonly [unknown, string])[] = [
      [{ gateway: { address: "192.0.2.1" } }, "'gateway.port'"],
      [{ gateway: { port: 5351 } }, "'gateway'"],
      [{ gateway: null }, "'gateway'"],
      [{ gateway: 5 }, "'gateway'"],
      [{ gateway: "192.0.2.1:0" }, "'gateway'"],
      [{ internalAddress: 5 }, "'internalAddress'"],
      [{ protocols: ["pmp"] }, "'protocols'"],
      [{ protocols: 5 }, "'protocols'"],
      [{ protocols: "pcp" }, "'protocols'"],
      [{ state: null }, "'state'"],
      [{ state: 5 }, "'state'"],
      [{ state: {} }, "'state.version'"],
      [{ state: { version: 1 } }, "'state.mappings'"],
      [{ state: { version: 1, mappings: [null] } }, "'state.mappings'"],
      [{ state: { version: 1, mappings: [{}] } }, "'via'"],
      [{ state: { version: 1, mappings: [{ ...held, gateway: 5 }] } }, "'gateway'"],
      [{ state: { version: 1, mappings: [{ ...held, protocol: 6 }] } }, "'protocol'"],
      [{ state: { version: 1, mappings: [{ ...held, internalPort: "x" }] } }, "'internalPort'"],
      [{ state: { version: 1, mappings: [{ ...held, external: 5 }] } }, "'external'"],
      [{ state: { version: 1, mappings: [{ ...held, external: null }] } }, "'external'"],
      [{ state: { version: 1, mappings: [{ ...held, nonce: "xyz" }] } }, "'nonce'"],
      [{ state: { version: 1, mappings: [{ ...held, mode: 0 }] } }, "'mode'"],
      [{ state: { version: 1, mappings: [{ ...held, remote: "x" }] } }, "'remote"],
      [{ state: { version: 1, mappings: [{ ...held, filters: 5 }] } }, "'filters"],
      [{ state: { version: 1, mappings: [{ ...held, portSet: 5 }] } }, "'portSet"],
    ];
    for (const [options, name] of cases) {
      const given = { gateway: GATEWAY, ...options as object, runtime };
      await assertNamed(() => Nat.open(any(given)), name);
      if (name.startsWith("'state") || name === "'nonce'") {
        await assertNamed(() => PcpClient.open(any({ server: GATEWAY, ...given })), name);
        await assertNamed(() => NatPmpClient.open(any({ ...given, gateway: GATEWAY })), name);
      }
    }
    await assertNamed(() => Nat.open(any(null)), "'options'");
    await assertNamed(() => PcpClient.open(any({ runtime })), "'server'");
    await assertNamed(() => PcpClient.open(any(undefined)), "'options'");
    await assertNamed(() => NatPmpClient.open(any({ runtime })), "'gateway'");
    assertEquals(runtime.timers.size, 0);
  });

  it("in what the single clients are asked", async () => {
    const runtime = new FakeNetwork();
    const open = { runtime, announcements: false };
    const pcp = await PcpClient.open({ ...open, server: GATEWAY });
    await assertNamed(() => pcp.map(any(undefined)), "'request'");
    await assertNamed(() => pcp.map({ protocol: 6, internalPort: -1 }), "'internalPort'");
    await assertNamed(() => pcp.peer({ protocol: 6, internalPort: 80, remote: any(1) }), "'remote");
    await assertNamed(() => pcp.peer(any({ protocol: 6, internalPort: 80 })), "'remote");
    await assertNamed(() => pcp.announce({ timeoutMs: NaN }), "'timeoutMs'");
    const pmp = await NatPmpClient.open({ ...open, gateway: GATEWAY });
    await assertNamed(() => pmp.map(any(null)), "'request'");
    await assertNamed(() => pmp.unmapAll(any("all")), "'protocol'");
    await assertNamed(() => pmp.externalAddress({ timeoutMs: NaN }), "'timeoutMs'");
    assertEquals(runtime.requests, []);
    await Promise.all([pcp.close(), pmp.close()]);
  });

  it("also a mode of 2³² at a gateway with NAT-PMP alone", async () => {
    await withNat(async (nat, net) => {
      await assertNamed(() => nat.map(8080, { mode: 2 ** 32 }), "'mode'");
      await net.pass(1000);
      assertEquals(net.ports(), []);
      await nat.map(8080, { mode: 2 ** 32 - 1 });
      assertEquals(net.ports(), [8080]);
    }, ["nat-pmp"]);
  });
});

describe("events", () => {
  it("lose nothing between openPort() and the first next()", async () => {
    const net = new FakeNetwork();
    const port = await openPort(8080, { gateway: GATEWAY, runtime: net, announcements: false });
    await net.pass(5000);
    const renewal = port.renew();
    await net.pass(10);
    await renewal;
    net.command("external 203.0.113.8");
    const move = port.renew();
    await net.pass(5000);
    await move;
    const events = port[Symbol.asyncIterator]();
    assertEquals((await events.next()).value.type, "renewed");
    assertEquals((await events.next()).value.type, "moved");
    await port.close();
    assertEquals((await events.next()).value, { type: "unmapped", reason: "revoked" });
    assertEquals((await events.next()).done, true);
    const late = port[Symbol.asyncIterator]();
    assertEquals((await late.next()).value, { type: "unmapped", reason: "revoked" });
    assertEquals((await late.next()).done, true);
  });

  it("are told to each reader from where it begins", async () => {
    await withNat(async (nat, net) => {
      const port = await nat.map(8080);
      await net.pass(5000);
      const heard = async (event: Promise<IteratorResult<PortEvent>>) => (await event).value?.type;
      const renewal = port.renew();
      await net.pass(10);
      await renewal;
      const early = port[Symbol.asyncIterator]();
      assertEquals(await heard(early.next()), "renewed");
      const late = port[Symbol.asyncIterator]();
      const both = [heard(early.next()), heard(late.next())];
      net.command("external 203.0.113.99");
      const move = port.renew();
      await net.pass(5000);
      await move;
      assertEquals(await Promise.all(both), ["moved", "moved"]);
      assertEquals([port.external.address, port.state], ["203.0.113.99", "open"]);
      const closing = port.close();
      await net.pass(10);
      await closing;
      assertEquals(port.state, "closed");
      let last = (await late.next()).value;
      while (last?.type !== "unmapped") last = (await late.next()).value;
      assertEquals(last, { type: "unmapped", reason: "revoked" });
      assertEquals((await late.next()).done, true);
    });
  });

  it("end for whoever leaves, also while one is waited for", async () => {
    await withNat(async (nat) => {
      const port = await nat.map(8080);
      const events = port[Symbol.asyncIterator]();
      const [pending, leaving] = [events.next(), events.return!()];
      const outcome = await Promise.race([
        Promise.all([pending, leaving]).then((both) => both.map(({ done }) => done)),
        turn().then(turn),
      ]);
      assertEquals(outcome, [true, true]);
      assertEquals((await events.next()).done, true);
    });
  });

  it("go to callbacks, too, and one that throws keeps nothing from the others", async () => {
    await withNat(async (nat, net) => {
      const port = await nat.map(8080);
      const heard: string[] = [];
      const rethrown: (() => void)[] = [];
      const stopThrowing = port.onEvent(() => {
        throw new Error("the application's own");
      });
      const stop = port.onEvent(({ type }) => heard.push(type));
      const events = port[Symbol.asyncIterator]();
      await net.pass(5000);
      const original = globalThis.queueMicrotask;
      globalThis.queueMicrotask = (callback) =>
        /throw/.test(String(callback)) ? void rethrown.push(callback) : original(callback);
      try {
        const renewal = watch(port.renew());
        await net.pass(50);
        assertEquals(renewal.how, "resolved");
      } finally {
        globalThis.queueMicrotask = original;
        stopThrowing();
      }
      assertEquals([heard, rethrown.length], [["renewed"], 1]);
      assertEquals((await events.next()).value.type, "renewed");
      stop();
    });
  });

  it("tell where it stands: open, lost, open again, closed", async () => {
    await withNat(async (nat, net) => {
      const port = await nat.map(8080, { lifetimeSeconds: 120 });
      const events = port[Symbol.asyncIterator]();
      assertEquals(port.state, "open");
      net.silent.add("pcp").add("nat-pmp");
      await net.pass(130_000, 1000);
      assertEquals(port.state, "lost");
      net.silent.clear();
      await net.pass(120_000, 1000);
      assertEquals(port.state, "open");
      const types: string[] = [];
      await port.close();
      assertEquals(port.state, "closed");
      for await (const { type } of { [Symbol.asyncIterator]: () => events }) types.push(type);
      const told = types.filter((type) => type !== "renewal-failed" && type !== "renewed");
      assertEquals(told, ["lost", "recovered", "unmapped"]);
    });
  });

  it("tell a renewal that failed, with the reason", async () => {
    await withNat(async (nat, net) => {
      const port = await nat.map(8080);
      const heard: PortEvent[] = [];
      port.onEvent((event) => heard.push(event));
      net.command("refuse 8");
      await net.pass(4_600_000, 10_000);
      const failed = heard.find(({ type }) => type === "renewal-failed");
      assertEquals(failed, { type: "renewal-failed", reason: "NO_RESOURCES" });
      assertEquals(port.state, "open");
    });
  });

  it("tell that the gateway keeps what it was to delete", async () => {
    await withNat(async (nat, net) => {
      const port = await nat.map(8080);
      net.command("refuse 2");
      await port.close();
      const last = (await port[Symbol.asyncIterator]().next()).value;
      assertEquals(last, { type: "unmapped", reason: "revoked", failure: "NOT_AUTHORIZED" });
    });
  });
});

describe("what the system refuses", () => {
  const refusals = [
    new NatError("permission", "Cannot send: the operating system forbids it (EPERM)"),
    new NatError("network", "Cannot send: network unreachable"),
  ];
  for (const refusal of refusals) {
    it(`is told at once: ${refusal.code} at sending`, async () => {
      await withNat(async (nat, net) => {
        await nat.map(8079); // The socket is open.
        net.sendError = refusal;
        const waits = [
          watch(nat.map(8080)),
          watch(nat.unmap(8081)),
          watch(nat.unmapAll("udp")),
          watch(nat.externalAddresses()),
        ];
        await net.pass(100);
        assertEquals(waits.map(({ how }) => how), waits.map(() => refusal.code));
        for (const { error } of waits) {
          assert(error!.message.includes(refusal.message), error!.message);
        }
      });
    });

    it(`is told at once: ${refusal.code} at opening`, async () => {
      const net = new FakeNetwork();
      net.openError = refusal;
      const nat = await Nat.open({ gateway: GATEWAY, runtime: net, announcements: false });
      const waits = [
        watch(nat.map(8080)),
        watch(nat.unmap(8081)),
        watch(nat.unmapAll("udp")),
        watch(nat.externalAddresses()),
      ];
      await net.pass(100);
      assertEquals(waits.map(({ how }) => how), waits.map(() => refusal.code));
      await nat.close();
    });
  }

  it("holds up nothing once it is over: a socket that failed is opened again", async () => {
    const net = new FakeNetwork();
    net.openError = refusals[0];
    const nat = await Nat.open({ gateway: GATEWAY, runtime: net, announcements: false });
    const first = watch(nat.map(8080));
    await net.pass(100);
    assertEquals(first.how, "permission");
    net.openError = undefined;
    await net.pass(6000);
    assertEquals((await nat.map(8080)).state, "open");
    await nat.close();
  });

  it("holds up nothing once it is over: what could not be sent is sent", async () => {
    await withNat(async (nat, net) => {
      net.sendError = refusals[0];
      const first = watch(nat.map(8080));
      await net.pass(100);
      assertEquals(first.how, "permission");
      net.sendError = undefined;
      const again = [
        watch(nat.map(8080)),
        watch(nat.externalAddresses()),
        watch(nat.unmap(8081)),
      ];
      await net.pass(2000);
      assertEquals(again.map(({ how }) => how), ["resolved", "resolved", "resolved"]);
    });
  });

  it("is thrown by what opens a single client", async () => {
    const runtime = new FakeNetwork();
    runtime.openError = refusals[0];
    const open = { runtime, announcements: false };
    await assertRejects(() => PcpClient.open({ ...open, server: GATEWAY }), NatError, "EPERM");
    await assertRejects(() => NatPmpClient.open({ ...open, gateway: GATEWAY }), NatError, "EPERM");
  });
});

describe("networks", () => {
  const open = (runtime: FakeNetwork, options: Options = {}) =>
    Nat.open({ announcements: false, protocols: VIAS, ...options, runtime });

  /** Opens where looking for the gateway takes so long. */
  async function openAfter(net: FakeNetwork, ms: number): Promise<Nat> {
    let go = () => {};
    net.reading = new Promise((resolve) => go = resolve);
    const opening = open(net);
    await net.pass(ms);
    go();
    return opening;
  }

  it("takes the best of several gateways that answers", async () => {
    const net = new FakeNetwork();
    net.defaultRoutes = ["192.0.2.99", GATEWAY.address];
    const nat = await open(net);
    assertEquals(nat.gateways, ["192.0.2.99", "192.0.2.1"]);
    const mapping = nat.map(8080);
    await net.pass(2000);
    assertEquals((await mapping).gateway, "192.0.2.1");
    const closing = nat.close();
    await net.pass(2000);
    await closing;
    assertEquals(net.ports(), []);
  });

  it("lists when each that was tried said no, and how long it was waited for one that is silent", async () => {
    const net = new FakeNetwork(["nat-pmp"]);
    net.silent.add("nat-pmp");
    const nat = await openAfter(net, 300);
    const map = watch(nat.map(8080, { timeoutMs: 1200 }));
    await net.pass(1300, 10);
    assertEquals(
      map.error!.attempts.map(({ via, outcome, elapsedMs }) => [via, outcome, elapsedMs > 100]),
      [["pcp", "unsupported version (speaks 0)", false], ["nat-pmp", "no answer", true]],
    );
    // Looking for the gateway is part of it.
    assertEquals(map.error!.attempts[1]!.elapsedMs, 1500);
    const closing = nat.close();
    await net.pass(100);
    await closing;
  });

  it("lists what was tried at every gateway where none answers", async () => {
    const net = new FakeNetwork();
    net.defaultRoutes = ["192.0.2.98", "192.0.2.99"];
    const nat = await open(net);
    const map = watch(nat.map(8080, { timeoutMs: 1200 }));
    await net.pass(1300);
    assertEquals(map.error!.attempts.map(({ via, gateway }) => `${via} ${gateway}`), [
      "pcp 192.0.2.98",
      "nat-pmp 192.0.2.98",
      "pcp 192.0.2.99",
      "nat-pmp 192.0.2.99",
    ]);
    const closing = nat.close();
    await net.pass(100);
    await closing;
  });

  it("follows the default route to another gateway, and takes the mappings along", async () => {
    const net = new FakeNetwork();
    const second = net.addGateway("192.0.2.3", "198.51.100.3");
    const nat = await open(net);
    const port = await nat.map(8080);
    assertEquals(port.external.address, "203.0.113.7");
    const types: string[] = [];
    port.onEvent(({ type }) => types.push(type));
    net.defaultRoutes = ["192.0.2.3"];
    await net.pass(10_000);
    assertEquals(types, ["lost", "recovered"]);
    assertEquals(port.external, { address: "198.51.100.3", port: 8080 });
    assertEquals([net.ports(), second.list(net.time).length], [[], 1]);
    await assertRejects(() => nat.map(8080), TypeError, "8080/tcp");
    await nat.close();
    assertEquals(second.list(net.time), []);
  });

  it("a close() in the middle of a move does not hang, and what comes after it does nothing", async () => {
    const net = new FakeNetwork();
    const nat = await open(net);
    await nat.map(8080);
    await net.pass(100);
    net.defaultRoutes = ["192.0.2.99"];
    let go = () => {};
    await net.pass(1800);
    net.advance(200); // The watch reads, and finds that it has changed…
    net.reading = new Promise((resolve) => go = resolve);
    await turn(); // …and this is where it looks for the new gateway.
    const closing = watch(nat.close());
    await net.pass(100);
    assertEquals([closing.how, net.ports()], ["resolved", []]);
    const { length } = net.sockets;
    go();
    await net.pass(20_000);
    assertEquals([net.sockets.length, net.timers.size], [length, 0]);
  });

  it("a move is followed where the first reading of it fails", async () => {
    const net = new FakeNetwork();
    net.defaultRoutes = [];
    net.moreRoutes = "";
    await assertRejects(() => open(net), NatError, "no default route");
    net.defaultRoutes = [GATEWAY.address];
    const nat = await open(net);
    const port = await nat.map(8080);
    net.defaultRoutes = []; // Between two networks.
    await net.pass(10_000);
    assertEquals(nat.gateways, ["192.0.2.1"]);
    net.defaultRoutes = ["192.0.2.99", GATEWAY.address];
    await net.pass(10_000);
    assertEquals(nat.gateways, ["192.0.2.99", "192.0.2.1"]);
    assertEquals(port.state, "open");
    const closing = nat.close();
    await net.pass(2000);
    await closing;
    assertEquals(net.timers.size, 0);
  });

  it("a move is followed where the new routes could not be read at once", async () => {
    const net = new FakeNetwork();
    net.addGateway("192.0.2.3", "198.51.100.3");
    const nat = await open(net);
    const port = await nat.map(8080);
    await net.pass(1000);
    const read = net.readTextFile.bind(net);
    let reads = 0;
    // The first reading says that something has changed, the second what.
    net.readTextFile = (path) =>
      path === "/proc/net/route" && ++reads === 2
        ? Promise.reject(new Error("EMFILE"))
        : read(path);
    net.defaultRoutes = ["192.0.2.3"];
    await net.pass(10_000);
    assertEquals([nat.gateways, port.external.address], [["192.0.2.3"], "198.51.100.3"]);
    await nat.close();
  });

  it("asks a gateway of IPv6 that is named from a global address, at first and later (PCP-C-24)", async () => {
    const net = new FakeNetwork();
    const at = (address: string) => ({ name: "eth0", address, prefixLength: 64, internal: false });
    net.addresses = [at("fd00::7"), at("2001:db8::7")];
    const nat = await open(net, { gateway: "fd00::1" });
    void nat.map(8080).catch(() => {});
    await net.pass(100);
    const [socket] = net.sockets;
    assertEquals(socket!.options, {
      local: { address: "2001:db8::7", port: 0 },
      connect: { address: "fd00::1", port: 5351 },
    });
    const closing = nat.close();
    await net.pass(2000);
    await closing;
  });

  it("says what takes the traffic past the gateway", async () => {
    const net = new FakeNetwork();
    const half = (destination: string) =>
      `tun0 ${destination} ${routeHex("10.8.0.1")} 0003 0 0 0 00000080 0 0 0\n`;
    net.moreRoutes = half("00000000") + half("00000080");
    const nat = await open(net);
    assertEquals(nat.warnings.length, 1);
    assert(nat.warnings[0]!.includes("tun0"), nat.warnings[0]);
    await nat.close();
    const named = await open(net, { gateway: GATEWAY });
    assertEquals(named.warnings, []);
    await named.close();
  });

  it("opening ends with the signal's reason, at once or on the way", async () => {
    const net = new FakeNetwork();
    net.reading = new Promise(() => {});
    const controller = new AbortController();
    const opening = watch(open(net, { signal: controller.signal }));
    await turn();
    assertEquals(opening.how, "pending");
    controller.abort(new Error("enough"));
    await turn();
    assertEquals(opening.how, "Error: enough");
    await assertRejects(() => open(net, { signal: controller.signal }), Error, "enough");
    assertEquals([net.timers.size, net.sockets.length], [0, 0]);
  });

  it("counts what looking for the gateway took in the time of the first mapping", async () => {
    const net = new FakeNetwork();
    const nat = await openAfter(net, 300);
    assertEquals((await nat.map(8080)).elapsedMs, 300);
    assertEquals((await nat.map(8081)).elapsedMs, 0);
    net.silent.add("pcp").add("nat-pmp");
    const closing = nat.close();
    await net.pass(2000);
    await closing;
  });

  it("takes the gateways of the family of the address that is named, and no other", async () => {
    const net = new FakeNetwork();
    await assertRejects(() => open(net, { internalAddress: "2001:db8::7" }), NatError, "IPv6");
    await assertRejects(
      () => open(net, { gateway: GATEWAY, internalAddress: "2001:db8::7" }),
      NatError,
      "family",
    );
    const nat = await open(net, { internalAddress: "192.0.2.7" });
    await nat.map(8080);
    assertEquals(net.sockets[0]!.options.local, { address: "192.0.2.7", port: 0 });
    await nat.close();
  });
});

describe("a map() that rejected leaves nothing that goes on", () => {
  it("after its timeout: deletions alone, and those end", async () => {
    await withNat(async (nat, net) => {
      net.silent.add("pcp").add("nat-pmp");
      const map = watch(nat.map(8080, { timeoutMs: 2000 }));
      await net.pass(2100);
      assertEquals(map.how, "no-answer");
      const { message, attempts } = map.error!;
      assertEquals(attempts.map(({ via, elapsedMs }) => [via, elapsedMs]), [
        ["pcp", 2000],
        ["nat-pmp", 2000],
      ]);
      assert(message.startsWith("Cannot map port 8080/tcp: pcp at 192.0.2.1: no answer"), message);
      net.requests.length = 0;
      await net.pass(600_000, 500);
      const before = net.requests.length;
      assert(net.requests.every(isDeletion));
      await net.pass(7_200_000, 60_000);
      assertEquals(net.requests.length, before);
    });
  });

  it("after its signal: what the gateway granted meanwhile is deleted", async () => {
    await withNat(async (nat, net) => {
      const controller = new AbortController();
      net.silent.add("nat-pmp");
      const map = watch(nat.map(8080, { signal: controller.signal }));
      controller.abort(new Error("enough"));
      await net.pass(1000);
      assertEquals([map.how, net.ports()], ["Error: enough", []]);
    });
  });

  it("after a refusal: no packet", async () => {
    await withNat(async (nat, net) => {
      net.command("refuse 8");
      const map = watch(nat.map(8080));
      await net.pass(100);
      assertEquals(map.how, "refused");
      net.requests.length = 0;
      net.command("refuse off");
      await net.pass(7_200_000, 60_000);
      assertEquals([net.requests.filter((one) => !isDeletion(one)), net.ports()], [[], []]);
      await nat.map(8080);
    });
  });
});

describe("onState", () => {
  it("is called with what a later run needs, before the first request leaves", async () => {
    const net = new FakeNetwork();
    net.silent.add("pcp").add("nat-pmp");
    const states: { readonly state: NatState; readonly sent: number }[] = [];
    const nat = await Nat.open({
      gateway: GATEWAY,
      runtime: net,
      announcements: false,
      onState: (state) => states.push({ state, sent: net.requests.length }),
    });
    void nat.map(8080).catch(() => {});
    await net.pass(50);
    const map = net.requests.find(({ via, opcode }) => via === "pcp" && opcode === 1)!;
    const nonce = [...map.data.subarray(24, 36)].map((b) => b.toString(16).padStart(2, "0"))
      .join("");
    const { state, sent } = states[0]!;
    assertEquals([sent, state.mappings.map((one) => one.nonce)], [0, [nonce]]);
    // This run ends without notice; the gateway has granted what it asked.
    net.silent.clear();
    await net.pass(1000);
    assertEquals(net.ports(), [8080]);
    const next = await Nat.open({
      gateway: GATEWAY,
      runtime: net,
      announcements: false,
      protocols: ["pcp"],
      state: JSON.parse(JSON.stringify(state)),
    });
    assertEquals((await next.unmap(8080)).map(({ via }) => via), ["pcp"]);
    await next.close();
  });

  it("is called for nonces alone: what has none leaves at once", async () => {
    const net = new FakeNetwork();
    const options = { gateway: GATEWAY, runtime: net, announcements: false };
    const nat = await Nat.open({ ...options, onState: () => Promise.resolve() });
    await nat.map(8080);
    net.requests.length = 0;
    const asking = nat.externalAddresses({ protocols: ["nat-pmp"] });
    assertEquals(net.requests.map(({ via, opcode }) => [via, opcode]), [["nat-pmp", 0]]);
    await asking;
    await nat.close();
  });

  it("is waited for before a request leaves, also where an event had it called", async () => {
    const net = new FakeNetwork();
    const waiting: (() => void)[] = [];
    const nat = await Nat.open({
      gateway: GATEWAY,
      runtime: net,
      announcements: false,
      onState: () => new Promise<void>((resolve) => waiting.push(resolve)),
    });
    // Watching tells the local addresses at once, before anything was asked of the gateway.
    const port = await nat.watch(8080);
    await net.pass(200);
    assertEquals(net.requests.filter(({ opcode }) => opcode === 1).length, 0);
    for (const done of waiting.splice(0)) done();
    await net.pass(10);
    assertEquals(net.ports(), [8080]);
    const closing = Promise.all([port.close(), nat.close()]);
    for (let i = 0; i < 50; i++) {
      for (const done of waiting.splice(0)) done();
      await net.pass(100);
    }
    await closing;
  });

  it("is called when a mapping is granted and when it is over, and not for nothing", async () => {
    const states: NatState[] = [];
    await withNat(
      async (nat, net) => {
        const port = await nat.map(8080);
        const granted = states.at(-1)!.mappings;
        assertEquals(granted.map(({ via, external }) => [via, external?.port]), [["pcp", 8080]]);
        await net.pass(5000);
        const count = states.length;
        const renewal = port.renew();
        await net.pass(10);
        await renewal;
        assertEquals(states.length, count);
        assertEquals(await nat.exportState(), states.at(-1));
        await port.close();
        assertEquals(states.at(-1)!.mappings, []);
      },
      ["pcp", "nat-pmp"],
      { onState: (state) => states.push(state) },
    );
  });
});
