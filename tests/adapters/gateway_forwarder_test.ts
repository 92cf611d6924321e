import { afterEach, describe, it } from "node:test";
import { connect, createServer, type Server, type Socket } from "node:net";
import { assert, assertEquals } from "@std/assert";
import { Nat } from "../../adapters/api/nat.ts";
import { systemRuntime } from "../../adapters/auto.ts";
import {
  type GatewayServer,
  type GatewayServerOptions,
  startGateway,
} from "../../adapters/gateway_server.ts";
import type { Endpoint } from "../../core/machine.ts";
import type { Transport } from "../../core/mapping.ts";
import type { UdpSocket } from "../../adapters/runtime.ts";

const LOOPBACK = "127.0.0.1";

describe("a gateway that forwards", () => {
  const open: { close(): unknown }[] = [];

  afterEach(async () => {
    for (const one of open.splice(0).reverse()) await one.close();
  });

  async function start(options: GatewayServerOptions = {}): Promise<GatewayServer> {
    const server = await startGateway({ announceTo: [], forward: true, ...options });
    open.push(server);
    return server;
  }

  /** A program that answers what it gets with the same in capitals, until the other side ends. */
  function echo(): Promise<number> {
    const server: Server = createServer({ allowHalfOpen: true }, (socket) => {
      socket.on("data", (data) => socket.write(String(data).toUpperCase()));
      socket.on("end", () => socket.end("."));
      socket.on("error", () => {});
    });
    open.push({ close: () => void server.close() });
    return new Promise((resolve) =>
      server.listen(0, LOOPBACK, () => resolve((server.address() as { port: number }).port))
    );
  }

  async function echoUdp(): Promise<number> {
    const socket: UdpSocket = await systemRuntime().openUdp(
      { local: { address: LOOPBACK, port: 0 } },
      {
        onDatagram: (data, from) =>
          socket.send(new TextEncoder().encode(new TextDecoder().decode(data).toUpperCase()), from),
        onUnreachable: () => {},
        onError: () => {},
      },
    );
    open.push(socket);
    return socket.local.port;
  }

  async function map(server: GatewayServer, protocol: Transport, port: number) {
    const nat = await Nat.open({ gateway: server.endpoint, protocols: ["nat-pmp"] });
    open.push(nat);
    const mapping = await nat.map(port, { protocol });
    await server.relayed();
    const at = server.relayOf(server.entries().at(-1)!)!;
    return { mapping, at };
  }

  /** What comes back until the other side ends; `""` where nobody takes the connection. */
  function ask({ address, port }: Endpoint, ...said: string[]): Promise<string> {
    return new Promise((resolve) => {
      let text = "";
      const socket: Socket = connect({ host: address, port, allowHalfOpen: true });
      socket.on("data", (data) => text += String(data));
      socket.on("error", () => {});
      socket.on("close", () => resolve(text));
      socket.on("end", () => socket.destroy());
      for (const one of said) socket.write(one);
      socket.end();
    });
  }

  it("a TCP program behind it is reached at the mapped port, both ways, to the end of each side", async () => {
    const server = await start();
    const port = await echo();
    const { at, mapping } = await map(server, "tcp", port);

    assertEquals(at, { address: LOOPBACK, port: mapping.external.port });
    assert(at.port !== port);
    assertEquals(await ask(at, "hello"), "HELLO.");
    const answers = await Promise.all(["a", "b", "c"].map((text) => ask(at, text)));
    assertEquals(answers, ["A.", "B.", "C."]);
  });

  it("a UDP program behind it answers each that asks", async () => {
    const server = await start();
    const { at } = await map(server, "udp", await echoUdp());

    const heard = await Promise.all(["one", "two"].map(async (text) => {
      let tell = (_: string) => {};
      const answer = new Promise<string>((resolve) => tell = resolve);
      const socket = await systemRuntime().openUdp({}, {
        onDatagram: (data, from) => {
          assertEquals(from, at);
          tell(new TextDecoder().decode(data));
        },
        onUnreachable: () => {},
        onError: () => {},
      });
      open.push(socket);
      socket.send(new TextEncoder().encode(text), at);
      return await answer;
    }));

    assertEquals(heard, ["ONE", "TWO"]);
  });

  it("closes with the mapping, and what goes through it ends", async () => {
    const server = await start();
    const { at, mapping } = await map(server, "tcp", await echo());
    const socket = connect({ host: at.address, port: at.port });
    open.push({ close: () => socket.destroy() });
    socket.on("error", () => {});
    const ended = new Promise<void>((resolve) => socket.on("close", () => resolve()));
    await new Promise<void>((resolve) => {
      socket.once("data", () => resolve());
      socket.write("x");
    });

    await mapping.close();
    await server.relayed();

    await ended;
    assertEquals(await ask(at, "hello"), "");
  });

  it("opens the port at the external address where that is this host's", async () => {
    const server = await start({ external: "127.0.0.2" });
    const { at, mapping } = await map(server, "tcp", await echo());

    assertEquals(at, mapping.external);
    assertEquals(await ask(mapping.external, "hello"), "HELLO.");
  });

  it("takes only whom the mapping's filters admit", async () => {
    const server = await start();
    const port = await echo();
    await server.do((gateway, now) =>
      gateway.table.mapInbound({
        origin: "upnp",
        protocol: 6,
        internal: { address: LOOPBACK, port },
        filters: [{ prefix: { address: "198.51.100.9", prefixLength: 32, family: 4 }, port: 0 }],
        expiresAt: Infinity,
      }, now)
    );
    await server.relayed();

    assertEquals(await ask(server.relayOf(server.entries()[0]!)!, "hello"), "");
  });

  it("tells of a port that it cannot open, and goes on", async () => {
    const taken = await echo(), port = await echo();
    const errors: unknown[] = [];
    const server = await start({ onSocketError: (error) => errors.push(error) });
    assertEquals((await server.command(`static tcp ${taken} ${LOOPBACK} ${port}`)).isDone, true);
    await server.relayed();
    const { at } = await map(server, "tcp", await echo());

    assert(errors.length > 0 && String(errors[0]).includes(`${taken}`), `${errors}`);
    assertEquals(await ask(at, "on"), "ON.");
  });
});
