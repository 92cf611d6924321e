import { createSocket } from "node:dgram";
import { createServer as createHttpServer } from "node:http";
import { connect, createServer } from "node:net";
import { describe, it } from "node:test";
import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import { bindingOf, type BoundSocket } from "../../../adapters/api/bound_socket.ts";
import { Nat } from "../../../adapters/api/nat.ts";
import type { NatOptions } from "../../../adapters/api/options.ts";
import type { PortWatch } from "../../../adapters/api/port_watch.ts";
import { type GatewayServer, startGateway } from "../../../adapters/gateway_server.ts";
import { startStunServer } from "../../../adapters/stun_server.ts";
import { NatError } from "../../../core/errors.ts";

async function withNat(
  run: (nat: Nat, gateway: GatewayServer) => Promise<void>,
  options: Pick<NatOptions, "stunServers"> = {},
): Promise<void> {
  const gateway = await startGateway({ announceTo: [] });
  const nat = await Nat.open({ ...options, gateway: gateway.endpoint, announcements: false });
  try {
    await run(nat, gateway);
  } finally {
    await nat.close();
    await gateway.close();
  }
}

/** Waits until a gateway has given an address. */
async function mapped(watch: PortWatch): Promise<void> {
  for await (const set of watch) if (set.some(({ via }) => via !== "local")) return;
}

const mappings = (gateway: GatewayServer) =>
  gateway.entries().map(({ protocol, internal }) => `${protocol} ${internal.port}`);

/** What a TCP server says at once. */
function read(port: number): Promise<string> {
  return new Promise((resolve, reject) => {
    let text = "";
    connect({ port, host: "127.0.0.1" })
      .on("data", (data: Uint8Array) => text += new TextDecoder().decode(data))
      .on("end", () => resolve(text)).on("error", reject);
  });
}

describe("Nat.listenTcp()", () => {
  it("takes a callback, makes a server, and closes all of it", async () => {
    await withNat(async (nat, gateway) => {
      const listener = await nat.listenTcp((connection) => void connection.end("hello"));
      const { port } = listener.local;
      await mapped(listener);
      assertEquals(mappings(gateway), [`6 ${port}`]);
      assertEquals(await read(port), "hello");
      await listener.close();
      assertEquals(mappings(gateway), []);
      await assertRejects(() => read(port));
    });
  });

  it("makes a server listen that does not, and closes it with its context", async () => {
    await withNat(async (nat, gateway) => {
      const server = createHttpServer((_, response) => void response.end("hi"));
      const listeners = () => ["listening", "error"].map((name) => server.listenerCount(name));
      const before = listeners();
      const listener = await nat.listenTcp(server, { lifetimeSeconds: 600 });
      assertEquals(listeners(), before);
      assert(listener.server === server && listener.local.port > 0);
      await mapped(listener);
      assertEquals(mappings(gateway), [`6 ${listener.local.port}`]);
      await nat.close();
      assertEquals([mappings(gateway), server.listening], [[], false]);
    });
  });

  it("listens at the address that it is told, and at every one otherwise", async () => {
    await withNat(async (nat) => {
      const one = await nat.listenTcp(() => {}, { address: "127.0.0.1" });
      assertEquals(one.local.address, "127.0.0.1");
      const own = one.assignments.filter(({ via }) => via === "local");
      assertEquals(own.map(({ address }) => address), ["127.0.0.1"]);
      const all = await nat.listenTcp(() => {});
      assert(["::", "0.0.0.0"].includes(all.local.address), all.local.address);
      await Promise.all([one.close(), all.close()]);
    });
  });

  it("leaves a server open that listened before", async () => {
    await withNat(async (nat) => {
      const server = createServer();
      await new Promise<void>((resolve) => void server.listen(0, resolve));
      const listener = await nat.listenTcp(server);
      await listener.close();
      assert(server.listening);
      server.close();
    });
  });

  it("says that a port is taken, and leaves nothing open where an option is wrong", async () => {
    await withNat(async (nat) => {
      const taken = createServer();
      await new Promise<void>((resolve) => void taken.listen(0, "127.0.0.1", resolve));
      const { port } = bindingOf(taken);
      const error = await nat.listenTcp(() => {}, { port, address: "127.0.0.1" })
        .then(() => undefined, (error) => error);
      assert(error instanceof NatError && error.code === "network", String(error));
      assert(error.message.includes(`${port}/tcp`), error.message);
      // What is the caller's keeps no listener of ours.
      const other = createServer();
      await assertRejects(() => nat.listenTcp(other, { port, address: "127.0.0.1" }), NatError);
      assertEquals(["listening", "error"].map((name) => other.listenerCount(name)), [0, 0]);
      taken.close();

      const server = createServer();
      for (const port of [65_536, -1, NaN]) {
        await assertRejects(() => nat.listenTcp(server, { port }), Error, "'port'");
        await assertRejects(() => nat.bindUdp({ port }), Error, "'port'");
      }
      await assertRejects(() => nat.listenTcp(server, { address: "here" }), TypeError, "'address'");
      await assertRejects(() => nat.listenTcp(server, { family: 5 as 4 }), TypeError, "'family'");
      assertEquals(server.listening, false);
    });
  });
});

describe("Nat.bindUdp()", () => {
  it("sends, hears, is mapped, and is closed with the mapping", async () => {
    await withNat(async (nat, gateway) => {
      const socket = await nat.bindUdp({ onDatagram: (data, from) => socket.send(data, from) });
      const { port } = socket.local;
      await mapped(socket);
      assertEquals(mappings(gateway), [`17 ${port}`]);
      let heard: (text: string) => void = () => {};
      const peer = await nat.bindUdp({
        address: "127.0.0.1",
        onDatagram: (data) => heard(new TextDecoder().decode(data)),
      });
      assertEquals(
        await new Promise<string>((resolve) => {
          heard = resolve;
          peer.send(new TextEncoder().encode("hello"), { address: "127.0.0.1", port });
        }),
        "hello",
      );
      const own = peer.assignments.filter(({ via }) => via === "local");
      assertEquals(own.map(({ address, port }) => [address, port]), [[
        "127.0.0.1",
        peer.local.port,
      ]]);
      await Promise.all([socket.close(), peer.close()]);
      assertEquals(mappings(gateway), []);
    });
  });

  it("is told with how STUN servers see it, whose answers the application does not hear", async () => {
    const server = await startStunServer({ listen: { address: "127.0.0.1", port: 0 } });
    /** Waits for both ways in. */
    const told = async (watch: PortWatch) => {
      for await (const set of watch) {
        const outside = set.filter(({ via }) => via !== "local");
        if (outside.length === 2) return outside.map(({ via, port }) => [via, port]);
      }
      return [];
    };
    try {
      await withNat(async (nat, gateway) => {
        const heard: string[] = [];
        let isHeard = () => {};
        const onDatagram = (data: Uint8Array) => {
          heard.push(new TextDecoder().decode(data));
          isHeard();
        };
        const early = await nat.bindUdp({ onDatagram });
        assertEquals(await told(early), [["pcp", early.local.port], ["stun", early.local.port]]);
        const hears = new Promise<void>((resolve) => isHeard = resolve);
        early.send(new TextEncoder().encode("me"), {
          address: "127.0.0.1",
          port: early.local.port,
        });
        await hears;
        assertEquals(heard, ["me"]);
        await early.close();
        assertEquals([early.assignments, mappings(gateway)], [[], []]);
      }, { stunServers: [server.endpoint] });
      await withNat(async (nat) => {
        const late = await nat.bindUdp({});
        nat.addServers([server.endpoint]);
        assertEquals(await told(late), [["pcp", late.local.port], ["stun", late.local.port]]);
        assertThrows(() => nat.addServers(["a b"]), TypeError, "'stunServers' must be HOST");
        assertThrows(() => nat.addServers(Array(8).fill("x")), RangeError, "'stunServers.length'");
      });
    } finally {
      await server.close();
    }
    await assertRejects(() => Nat.open({ stunServers: ["a b"] }), TypeError, "'stunServers'");
  });

  it("is told as before where a STUN server has no address of its family", async () => {
    await withNat(async (nat, gateway) => {
      const socket = await nat.bindUdp({});
      await mapped(socket);
      assertEquals(mappings(gateway), [`17 ${socket.local.port}`]);
    }, { stunServers: ["[2001:db8::1]:3478"] });
  });

  it("binds nothing where an option is wrong", async () => {
    await withNat(async (nat) => {
      await assertRejects(() => nat.bindUdp({ port: -1 }), RangeError, "'port'");
      await assertRejects(() => nat.bindUdp({ address: "x" }), TypeError, "'address'");
      await assertRejects(() => nat.bindUdp({ lifetimeSeconds: 0 }), RangeError, "lifetime");
    });
  });
});

describe("a socket that is handed in", () => {
  it("is mapped by its port and protocol", async () => {
    await withNat(async (nat, gateway) => {
      const udp = createSocket("udp4");
      await new Promise<void>((resolve) => udp.bind(0, resolve));
      const tcp = createServer();
      await new Promise<void>((resolve) => void tcp.listen(0, resolve));
      const { port } = await nat.map(udp).then(({ internal }) => internal);
      const watch = await nat.watch(tcp);
      await mapped(watch);
      assertEquals(port, bindingOf(udp).port);
      assertEquals(mappings(gateway).sort(), [`17 ${port}`, `6 ${bindingOf(tcp).port}`].sort());
      udp.close();
      tcp.close();
    });
  });

  it("of a runtime's own kind is known for what it is", () => {
    const kinds: readonly (readonly [BoundSocket, string])[] = [
      [{ addr: { transport: "tcp", hostname: "0.0.0.0", port: 80 } }, "0.0.0.0 80 tcp"],
      [{ addr: { transport: "udp", hostname: "::", port: 81 } }, ":: 81 udp"],
      [{ hostname: "192.0.2.5", port: 82 }, "192.0.2.5 82 tcp"],
      [{ hostname: "localhost", port: 83 }, ":: 83 tcp"],
      [{ hostname: "0.0.0.0", port: 84, send() {} } as BoundSocket, "0.0.0.0 84 udp"],
      [{ address: () => ({ address: "::", family: "IPv6", port: 85 }) }, ":: 85 tcp"],
    ];
    for (const [socket, expected] of kinds) {
      const { address, port, protocol } = bindingOf(socket);
      assertEquals(`${address} ${port} ${protocol}`, expected);
    }
    const { Deno, Bun } = globalThis as {
      // deno-lint-ignore no-explicit-any
      Deno?: any;
      // deno-lint-ignore no-explicit-any
      Bun?: any;
    };
    const own = Deno
      ? Deno.listen({ port: 0 })
      : Bun?.listen({ hostname: "0.0.0.0", port: 0, socket: { data() {} } });
    if (!own) return;
    assertEquals(bindingOf(own), {
      address: "0.0.0.0",
      port: own.addr?.port ?? own.port,
      protocol: "tcp",
    });
    if (Deno) own.close();
    else own.stop();
  });

  it("must be bound, and where a gateway reaches it", async () => {
    const udp = createSocket("udp4");
    for (const wrong of [createServer(), udp, {}, { addr: { path: "/x" } }]) {
      assertThrows(() => bindingOf(wrong as BoundSocket), TypeError, "not bound");
    }
    udp.close();
    await withNat(async (nat) => {
      await assertRejects(() => nat.map("80" as unknown as number), TypeError, '"80"');
    });
    const away = await Nat.open({ gateway: "192.0.2.1", internalAddress: "192.0.2.5" });
    const inner = { hostname: "127.0.0.1", port: 80 };
    await assertRejects(() => away.map(inner), TypeError, "no gateway reaches");
    await away.close();
  });
});
