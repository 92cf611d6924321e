import { describe, it } from "node:test";
import { assert, assertEquals, assertRejects } from "@std/assert";
import { NatError } from "../../../core/errors.ts";
import type { Via } from "../../../core/errors.ts";
import { systemRuntime } from "../../../adapters/auto.ts";
import type { Runtime } from "../../../adapters/runtime.ts";
import { Nat } from "../../../adapters/api/nat.ts";
import type { MapBothOptions } from "../../../adapters/api/options.ts";
import { openPort } from "../../../adapters/api/open_port.ts";
import type { PortMapping } from "../../../adapters/api/port_mapping.ts";
import {
  type GatewayServer,
  type GatewayServerOptions,
  startGateway,
} from "../../../adapters/gateway_server.ts";
import { FakeNetwork } from "./fake_network.ts";

/**
 * A gateway and a context for it; both are closed afterwards. Nobody announces anything: what is told
 * unasked would count for one protocol's answer, whose turn it were as soon as another one is slow.
 */
async function withNat(
  run: (nat: Nat, gateway: GatewayServer) => Promise<void>,
  options: GatewayServerOptions = {},
  protocols?: readonly Via[],
): Promise<void> {
  const gateway = await startGateway({ announceTo: [], ...options });
  const nat = await Nat.open({
    gateway: gateway.endpoint,
    announcements: false,
    ...(protocols === undefined ? {} : { protocols }),
  });
  try {
    await run(nat, gateway);
  } finally {
    await nat.close();
    await gateway.close();
  }
}

/** The error that a promise rejects with; fails where it does not reject with a NatError. */
async function natError(promise: Promise<unknown>): Promise<NatError> {
  const outcome = await promise.then(() => undefined, (error) => error);
  if (!(outcome instanceof NatError)) throw new Error(`Expected a NatError: ${outcome}`);
  return outcome;
}

describe("Nat", () => {
  it("waits for the end of UPnP's subscription when it is closed, and not for longer", async () => {
    const gateway = await startGateway({ protocols: ["upnp"], announceTo: [] });
    const runtime = systemRuntime();
    let isLate = false;
    const watched: Runtime = {
      ...runtime,
      setTimer: (ms, due, isRef) =>
        runtime.setTimer(ms, () => {
          // What `close()` waits for a gateway that does not answer.
          isLate ||= ms === 1500;
          due();
        }, isRef),
    };
    const nat = await Nat.open({ gateway: gateway.endpoint, runtime: watched });
    try {
      await nat.map(8080);
      while (gateway.stats.upnp!.events.subscribed === 0) await nat.list();
    } finally {
      await nat.close();
    }
    assertEquals([isLate, gateway.stats.upnp!.events.unsubscribed], [false, 1]);
    await gateway.close();
  });

  it("opens ports by the protocol that the gateway speaks, and deletes them when it is closed", async () => {
    for (const via of ["pcp", "nat-pmp"] as const) {
      await withNat(async (nat, gateway) => {
        const web = await nat.map(8080);
        const game = await nat.map(27015, { protocol: "udp", externalPort: 27016 });
        assertEquals([web.via, game.via], [via, via]);
        assertEquals(web.internal, { address: "127.0.0.1", port: 8080 });
        assertEquals(web.external, { address: "203.0.113.7", port: 8080 });
        assertEquals(game.external.port, 27016);
        assertEquals([web.kind, web.protocol, web.lifetimeSeconds], ["map", "tcp", 7200]);
        assert(web.gateway.startsWith("127.0.0.1"));
        assert(!web.isDoubleNat && web.elapsedMs >= 0);
        assertEquals(gateway.entries().length, 2);
        await nat.close();
        assertEquals(gateway.entries().length, 0);
      }, { protocols: [via] });
    }
  });

  it("opens many ports at once", async () => {
    await withNat(async (nat, gateway) => {
      const ports = Array.from({ length: 100 }, (_, i) => 20_000 + i);
      const mappings = await Promise.all(ports.map((port) => nat.map(port)));
      assertEquals(mappings.map(({ external }) => external.port), ports);
      assertEquals(gateway.entries().length, 100);
      await Promise.all(mappings.slice(50).map((mapping) => mapping.close()));
      assertEquals(gateway.entries().length, 50);
    });
  });

  it("refuses a port that it holds already, and keeps it", async () => {
    await withNat(async (nat, gateway) => {
      const port = await nat.map(8080);
      await assertRejects(() => nat.map(8080), TypeError, "8080/tcp");
      await assertRejects(() => nat.unmap(8080), TypeError, "8080/tcp");
      await port.renew();
      assertEquals(gateway.entries().length, 1);
      await port.close();
      await nat.map(8080);
    });
  });

  it("keeps an outbound mapping", async () => {
    await withNat(async (nat) => {
      const peer = await nat.peer(40_000, { address: "198.51.100.9", port: 443 });
      assertEquals([peer.kind, peer.via], ["peer", "pcp"]);
      assertEquals(peer.remote, { address: "198.51.100.9", port: 443 });
    });
  });

  it("tells the external address by each protocol, and leaves nothing behind", async () => {
    await withNat(
      async (nat, gateway) => {
        const [addresses, again] = await Promise.all([
          nat.externalAddresses(),
          nat.externalAddresses(),
        ]);
        assertEquals(addresses, again);
        assertEquals(addresses.map(({ via, address }) => `${via} ${address}`).sort(), [
          "nat-pmp 203.0.113.7",
          "pcp 203.0.113.7",
        ]);
        await nat.close();
        assertEquals(gateway.entries().length, 0);
      },
      {},
      ["pcp", "nat-pmp"],
    );
  });

  it("says so where the external address is behind another NAT (D-15)", async () => {
    await withNat(async (nat) => {
      assert((await nat.map(8080)).isDoubleNat);
    }, { external: "100.64.0.7" });
  });

  it("adopts and deletes in a later run what an earlier one made", async () => {
    const gateway = await startGateway({ profile: "strict-nonce" });
    const first = await Nat.open({ gateway: gateway.endpoint });
    await (await first.map(8080)).release();
    await (await first.map(9090, { protocol: "udp" })).release();
    const state = JSON.parse(JSON.stringify(await first.exportState()));
    await first.close();
    assertEquals(gateway.entries().length, 2);

    const second = await Nat.open({ gateway: gateway.endpoint, state });
    const adopted = await second.map(8080);
    assertEquals(adopted.external.port, 8080);
    assertEquals(gateway.entries().length, 2);
    const done = await second.unmap(9090, { protocol: "udp" });
    const { address, port } = gateway.endpoint;
    assertEquals(done, [{ via: "pcp", gateway: `${address}:${port}` }]);
    await second.close();
    assertEquals(gateway.entries().length, 0);
    await gateway.close();
  });

  it("opens one port for TCP and UDP, both or neither", async () => {
    await withNat(
      async (nat, gateway) => {
        const port = await nat.mapBoth(8080, { lifetimeSeconds: 600 });
        const table = () =>
          gateway.entries().map(({ protocol, external }) => `${protocol} ${external.port}`).sort();
        assertEquals(table(), ["17 8080", "6 8080"]);
        assertEquals([port.external.port, port.lifetimeSeconds, port.state], [8080, 600, "open"]);
        await port.renew();
        await port.close();
        assertEquals(table(), []);
        await gateway.command("refuse 8");
        assertEquals((await natError(nat.mapBoth(8081))).code, "refused");
        const both = { protocol: "tcp" } as MapBothOptions;
        await assertRejects(() => nat.mapBoth(80, both), TypeError, "'protocol'");
        await assertRejects(() => nat.mapBoth(0), RangeError, "'port'");
      },
      {},
      ["pcp", "nat-pmp"],
    );
  });

  it("deletes for other hosts, too, what an earlier run made for them", async () => {
    const gateway = await startGateway({ allowThirdParty: true });
    const first = await Nat.open({ gateway: gateway.endpoint });
    await (await first.map(8080, { thirdParty: "10.0.0.9" })).release();
    const state = await first.exportState();
    await first.close();
    const second = await Nat.open({ gateway: gateway.endpoint, state, protocols: ["pcp"] });
    await second.unmapAll("tcp");
    await second.close();
    assertEquals(gateway.entries(), []);
    await gateway.close();
  });

  it("deletes what nobody remembers, as far as the gateway lets it", async () => {
    await withNat(async (nat, gateway) => {
      await (await nat.map(8080)).release();
      await (await nat.map(9090)).release();
      await nat.unmap(8080);
      assertEquals(gateway.entries().map(({ internal }) => internal.port), [9090]);
      await nat.unmapAll("tcp");
      assertEquals(gateway.entries().length, 0);
    }, { protocols: ["nat-pmp"] });
  });

  it("tells a refusal with its name and for how long", async () => {
    await withNat(async (nat, gateway) => {
      await gateway.command("refuse 2");
      const error = await natError(nat.map(8080));
      assertEquals(error.code, "refused");
      assertEquals(
        error.attempts.map(({ via, outcome }) => `${via} ${outcome}`)[0],
        [
          "pcp NOT_AUTHORIZED",
        ][0],
      );
      assert(error.retryAfterSeconds! > 0);
      assert(error.message.includes("8080/tcp") && error.message.includes("NOT_AUTHORIZED"));
      await gateway.command("refuse off");
      await nat.map(8081);
    });
  });

  it("ends at the caller's timeout with what was tried, and again works afterwards", async () => {
    await withNat(
      async (nat, gateway) => {
        await gateway.command("deaf 1000");
        const error = await natError(nat.map(8080, { timeoutMs: 30 }));
        assertEquals(error.code, "no-answer");
        assertEquals(error.attempts.map(({ outcome }) => outcome), ["no answer", "no answer"]);
        await gateway.command("deaf 0");
        await nat.map(8080);
      },
      {},
      ["pcp", "nat-pmp"],
    );
  });

  it("ends with the signal's reason, at once or on the way", async () => {
    await withNat(async (nat, gateway) => {
      const early = AbortSignal.abort(new Error("too early"));
      await assertRejects(() => nat.map(8080, { signal: early }), Error, "too early");
      await gateway.command("deaf 1000");
      const controller = new AbortController();
      const pending = nat.map(8080, { signal: controller.signal });
      controller.abort(new Error("changed my mind"));
      await assertRejects(() => pending, Error, "changed my mind");
      await gateway.command("deaf 0");
      assertEquals(gateway.entries().length, 0);
    });
  });

  it("throws on bad input before a packet leaves", async () => {
    await withNat(async (nat, gateway) => {
      const cases: readonly (readonly [() => Promise<unknown>, string])[] = [
        [() => nat.map(0), "'port'"],
        [() => nat.map(65_536), "65536"],
        [() => nat.map(80, { externalPort: -1 }), "'externalPort'"],
        [() => nat.map(80, { preferFailure: true, externalPort: 0 }), "'preferFailure'"],
        [() => nat.map(80, { filters: ["10.0.0.0/33"] }), "'filters'"],
        [() => nat.map(80, { filters: ["2001:db8::/32"] }), "IPv4"],
        [() => nat.peer(80, { address: "198.51.100.9", port: 0 }), "'remote.port'"],
        [() => nat.unmap(0), "'port'"],
        [() => nat.unmapAll("sctp" as "tcp"), "'protocol'"],
      ];
      for (const [call, message] of cases) {
        const error = await call().then(() => undefined, (error) => error);
        assert(error instanceof TypeError || error instanceof RangeError, String(error));
        assert(error.message.includes(message), error.message);
      }
      assertEquals(gateway.entries().length, 0);
    });
    const open = (options: Parameters<typeof Nat.open>[0]) => () => Nat.open(options);
    await assertRejects(open({ gateway: "router" }), TypeError, "'gateway'");
    await assertRejects(open({ gateway: "10.0.0.1:99999" }), TypeError, "'gateway'");
    await assertRejects(open({ gateway: "::1", internalAddress: "x" }), TypeError, '"x"');
    const state = { version: 2, mappings: [] } as unknown as { version: 1; mappings: [] };
    await assertRejects(open({ gateway: "10.0.0.1", state }), RangeError, "'state.version'");
  });
});

describe("openPort()", () => {
  it("closes everything with the mapping", async () => {
    const gateway = await startGateway();
    const port: PortMapping = await openPort(8080, { gateway: gateway.endpoint });
    await port[Symbol.asyncDispose]();
    assertEquals(gateway.entries().length, 0);
    await assertRejects(() => port.renew(), NatError);
    await gateway.close();
  });

  it("leaves the port at the gateway where it is released, and nothing open here", async () => {
    const net = new FakeNetwork();
    const port = await openPort(8080, { runtime: net, announcements: false });
    await port.release();
    assertEquals(net.ports(), [8080]);
    assertEquals(net.sockets.filter(({ isClosed }) => !isClosed), []);
    assertEquals([...net.timers], []);
  });

  it("leaves nothing open where it fails", async () => {
    const gateway = await startGateway();
    await gateway.command("refuse 8");
    const error = await natError(openPort(8080, { gateway: gateway.endpoint }));
    assertEquals(error.code, "refused");
    await gateway.close();
  });
});
