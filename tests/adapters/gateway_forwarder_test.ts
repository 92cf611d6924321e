import { afterEach, describe, it } from "node:test";
import { connect, createServer, type Server, type Socket } from "node:net";
import { assert, assertEquals } from "@std/assert";
import { Nat } from "../../adapters/api/nat.ts";
import { systemRuntime } from "../../adapters/auto.ts";
import { GatewayForwarder, isOfHost } from "../../adapters/gateway_forwarder.ts";
import {
  type GatewayServer,
  type GatewayServerOptions,
  startGateway,
} from "../../adapters/gateway_server.ts";
import type { Endpoint } from "../../core/machine.ts";
import type { Transport } from "../../core/mapping.ts";
import type { Runtime, UdpSocket } from "../../adapters/runtime.ts";
import type { TableEntry } from "../../core/table/entry.ts";
import { FakeRuntime, type FakeSocket } from "./fake_runtime.ts";

const LOOPBACK = "127.0.0.1";
/** No address of this host. */
const OUTSIDE = "203.0.113.7";

describe("a gateway that forwards", () => {
  const open: { close(): unknown }[] = [];

  afterEach(async () => {
    for (const one of open.splice(0).reverse()) await one.close();
  });

  /** At which no other program listens. */
  const APART = "127.0.0.2";

  /** Opens ports there. */
  async function start(options: GatewayServerOptions = {}): Promise<GatewayServer> {
    const external = APART;
    const server = await startGateway({ announceTo: [], forward: true, external, ...options });
    open.push(server);
    return server;
  }

  /** A program that answers what it gets with the same in capitals, until the other side ends. */
  function echo(address = LOOPBACK): Promise<number> {
    const server: Server = createServer({ allowHalfOpen: true }, (socket) => {
      socket.on("data", (data) => socket.write(String(data).toUpperCase()));
      socket.on("end", () => socket.end("."));
      socket.on("error", () => {});
    });
    open.push({ close: () => void server.close() });
    return new Promise((resolve) =>
      server.listen(0, address, () => resolve((server.address() as { port: number }).port))
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
    const system = systemRuntime();
    const connecting = new Set<unknown>();
    const runtime: Runtime = {
      ...system,
      setTimer: (ms, callback, keepAlive) => {
        const cancel = system.setTimer(ms, callback, keepAlive);
        // How long a connection inwards may take.
        if (ms === 10_000) connecting.add(cancel);
        return () => {
          connecting.delete(cancel);
          cancel();
        };
      },
    };
    const server = await start({ external: OUTSIDE, listen: APART, runtime });
    const port = await echo();
    const { at, mapping } = await map(server, "tcp", port);

    assertEquals(at, { address: APART, port: mapping.external.port });
    assert(at.port !== port);
    assertEquals(await ask(at, "hello"), "HELLO.");
    const answers = await Promise.all(["a", "b", "c"].map((text) => ask(at, text)));
    assertEquals(answers, ["A.", "B.", "C."]);
    while (connecting.size > 0) await new Promise((resolve) => setTimeout(resolve, 1));
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
    const ended = new Promise<void>((resolve) => socket.on("close", () => resolve()));
    await new Promise<void>((resolve, reject) => {
      socket.on("error", reject);
      socket.once("data", () => resolve());
      socket.write("x");
    });

    await mapping.close();
    await server.relayed();

    await ended;
    assertEquals(await ask(at, "hello"), "");
  });

  it("opens the port at the external address where that is this host's", async () => {
    const server = await start();
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
    const taken = await echo(APART), port = await echo();
    const errors: unknown[] = [];
    const server = await start({ onSocketError: (e) => errors.push(e) });
    assertEquals((await server.command(`static tcp ${taken} ${LOOPBACK} ${port}`)).isDone, true);
    await server.relayed();
    const { at } = await map(server, "tcp", await echo());

    assert(errors.length > 0 && String(errors[0]).includes(`${taken}`), `${errors}`);
    assertEquals(await ask(at, "on"), "ON.");
  });
});

describe("GatewayForwarder", () => {
  const LISTEN = "192.0.2.1";
  const INSIDE: Endpoint = { address: "192.168.1.5", port: 6000 };
  const ENTRY: TableEntry = {
    id: 1,
    kind: "explicit",
    origin: "pcp",
    protocol: 17,
    internal: INSIDE,
    external: { address: OUTSIDE, port: 7000 },
    size: 1,
    remote: undefined,
    requester: undefined,
    isExact: false,
    namesAddress: false,
    nonce: undefined,
    description: undefined,
    filters: [],
    expiresAt: Infinity,
  };

  function open(runtime = new FakeRuntime()) {
    const errors: unknown[] = [];
    const forwarder = new GatewayForwarder(runtime, LISTEN, (error) => errors.push(error));
    /** Where ports are open, of those that nothing came through. */
    const ports = () =>
      runtime.sockets.filter(({ options, isClosed }) => options.local && !isClosed)
        .map(({ options }) => options.local);
    return { runtime, forwarder, errors, ports };
  }

  /** What is relayed is sent a few turns later. */
  async function hear(socket: FakeSocket, from: Endpoint, ...data: number[]): Promise<void> {
    socket.handlers.onDatagram(new Uint8Array(data), from);
    for (let i = 0; i < 5; i++) await Promise.resolve();
  }

  const remote = (port: number): Endpoint => ({ address: "198.51.100.9", port });

  it("opens what leads inwards to a port of UDP or TCP, and each port of a set", async () => {
    const { forwarder, ports } = open();
    await forwarder.sync([
      ENTRY,
      { ...ENTRY, external: { address: OUTSIDE, port: 7100 }, size: 3, kind: "static" },
      { ...ENTRY, external: { address: OUTSIDE, port: 7200 }, kind: "outbound" },
      { ...ENTRY, external: { address: OUTSIDE, port: 7300 }, protocol: 50 },
      { ...ENTRY, external: { address: OUTSIDE, port: 7400 }, internal: { ...INSIDE, port: 0 } },
    ]);

    assertEquals(ports(), [7000, 7100, 7101, 7102].map((port) => ({ address: LISTEN, port })));
  });

  it("relays each port of a set to its own inside", async () => {
    const { forwarder, runtime } = open();
    await forwarder.sync([{ ...ENTRY, size: 2 }]);
    await hear(runtime.sockets[1]!, remote(1), 1);

    assertEquals(runtime.sockets[2]!.sent, [{ to: { ...INSIDE, port: 6001 }, data: [1] }]);
  });

  it("opens 1024 ports at most", async () => {
    const { forwarder, ports } = open();
    await forwarder.sync([{ ...ENTRY, size: 1000 }, {
      ...ENTRY,
      external: { address: OUTSIDE, port: 20_000 },
      size: 100,
    }]);

    assertEquals(ports().length, 1024);
  });

  it("keeps a port open that leads elsewhere from now on, and closes what the table lost", async () => {
    const { forwarder, runtime } = open();
    await forwarder.sync([ENTRY]);
    await forwarder.sync([{ ...ENTRY, internal: { ...INSIDE, port: 6009 } }]);
    const [outside] = runtime.sockets;
    await hear(outside!, remote(1), 1);
    assertEquals(runtime.sockets[1]!.sent[0]!.to.port, 6009);

    await forwarder.sync([]);
    for (let i = 0; i < 5; i++) await Promise.resolve();
    assertEquals(runtime.sockets.map(({ isClosed }) => isClosed), [true, true]);
  });

  it("has a remote endpoint answered by whoever is inside now, not by who was before", async () => {
    const { forwarder, runtime } = open();
    await forwarder.sync([ENTRY]);
    const [outside] = runtime.sockets;
    await hear(outside!, remote(1), 1);
    await forwarder.sync([{ ...ENTRY, filters: [] }]);
    for (let i = 0; i < 5; i++) await Promise.resolve();
    assertEquals(runtime.sockets[1]!.isClosed, false);

    const next = { ...INSIDE, port: 6009 };
    await forwarder.sync([{ ...ENTRY, internal: next }]);
    await hear(outside!, remote(1), 2);
    const [, before, after] = runtime.sockets;
    assertEquals([before!.isClosed, after?.sent], [true, [{ to: next, data: [2] }]]);
    await hear(after!, next, 3);
    await hear(after!, INSIDE, 4);
    assertEquals(outside!.sent, [{ to: remote(1), data: [3] }]);
  });

  it("is closed for good", async () => {
    const { forwarder, runtime, ports } = open();
    await forwarder.sync([ENTRY]);
    await forwarder.close();
    await forwarder.sync([ENTRY]);

    assertEquals([ports(), runtime.sockets.length], [[], 1]);
  });

  it("gives each remote endpoint a way of its own, by which the program inside alone answers", async () => {
    const { forwarder, runtime } = open();
    await forwarder.sync([ENTRY]);
    const [outside] = runtime.sockets;
    await hear(outside!, remote(1), 1);
    await hear(outside!, remote(2), 2);
    await hear(outside!, remote(1), 3);
    const [, first, second] = runtime.sockets;
    assertEquals([first!.sent, second!.sent, runtime.sockets.length], [
      [{ to: INSIDE, data: [1] }, { to: INSIDE, data: [3] }],
      [{ to: INSIDE, data: [2] }],
      3,
    ]);

    await hear(second!, INSIDE, 4);
    await hear(second!, { ...INSIDE, port: 6001 }, 5);
    assertEquals(outside!.sent, [{ to: remote(2), data: [4] }]);
  });

  it("takes datagrams only from whom the filters admit", async () => {
    const { forwarder, runtime } = open();
    const prefix = { address: "198.51.100.0", prefixLength: 24, family: 4 } as const;
    await forwarder.sync([{ ...ENTRY, filters: [{ prefix, port: 0 }] }]);
    await hear(runtime.sockets[0]!, { address: "198.51.101.9", port: 1 }, 1);
    assertEquals(runtime.sockets.length, 1);
    await hear(runtime.sockets[0]!, remote(1), 1);
    assertEquals(runtime.sockets.length, 2);
  });

  it("tells 256 remote endpoints of a port apart: the one used least lately goes", async () => {
    const { forwarder, runtime } = open();
    await forwarder.sync([ENTRY]);
    const [outside] = runtime.sockets;
    for (let port = 1; port <= 256; port++) await hear(outside!, remote(port), 1);
    const flows = runtime.sockets.slice(1);
    const closed = () => flows.flatMap(({ isClosed }, i) => isClosed ? i + 1 : []);
    await hear(outside!, remote(1), 1);
    assertEquals([flows.length, closed()], [256, []]);

    await hear(outside!, remote(257), 1);
    assertEquals(closed(), [2]);
  });

  it("tells why a datagram could not be relayed, and tries anew at the next", async () => {
    class Poor extends FakeRuntime {
      isFull = false;
      override openUdp(...args: Parameters<FakeRuntime["openUdp"]>): Promise<UdpSocket> {
        return this.isFull ? Promise.reject(new Error("EMFILE")) : super.openUdp(...args);
      }
    }
    const runtime = new Poor();
    const { forwarder, errors } = open(runtime);
    await forwarder.sync([ENTRY]);
    runtime.isFull = true;
    await hear(runtime.sockets[0]!, remote(1), 1);
    assertEquals(errors.map(String), ["Error: EMFILE"]);

    runtime.isFull = false;
    await hear(runtime.sockets[0]!, remote(1), 2);
    assertEquals(runtime.sockets[1]!.sent, [{ to: INSIDE, data: [2] }]);
  });

  it("opens at the external address only where that is this host's: loopback, an interface's", () => {
    const { forwarder, runtime } = open();
    runtime.addresses = [
      { name: "eth0", address: "fe80::1%eth0", prefixLength: 64, internal: false },
      { name: "eth0", address: "198.51.100.1", prefixLength: 24, internal: false },
    ];
    const places = ["127.0.0.9", "198.51.100.1", "198.51.100.2"].map((address) =>
      forwarder.place({ address, port: 80 })
    );
    assertEquals(
      places,
      ["127.0.0.9", "198.51.100.1", LISTEN].map((address) => (
        { address, port: 80 }
      )),
    );
    assertEquals(isOfHost(runtime, "fe80::1"), true);
  });
});
