import { afterEach, describe, it } from "node:test";
import { assert, assertEquals, assertRejects } from "@std/assert";
import { Nat } from "../../../adapters/api/nat.ts";
import { natBehaviour, reflexiveAddress } from "../../../adapters/api/stun.ts";
import { startGateway } from "../../../adapters/gateway_server.ts";
import { systemRuntime } from "../../../adapters/auto.ts";
import type { Runtime } from "../../../adapters/runtime.ts";
import { startStunServer, type StartStunServerOptions } from "../../../adapters/stun_server.ts";
import { NatError } from "../../../core/errors.ts";
import { formatEndpoint } from "../../../core/ip.ts";
import type { Endpoint } from "../../../core/machine.ts";
import { decodeStun, encodeStun, type StunAttributes } from "../../../core/stun/codec.ts";

const LOCAL = "127.0.0.1", OTHER = "127.0.0.2";
const open: { close(): unknown }[] = [];
afterEach(async () => {
  for (const one of open.splice(0).reverse()) await one.close();
});

async function start(options: StartStunServerOptions = {}) {
  const server = await startStunServer({ listen: { address: LOCAL, port: 0 }, ...options });
  open.push(server);
  return server;
}

/** A port that was free a moment ago on both addresses. */
async function freePort(): Promise<number> {
  const server = await startStunServer({ listen: { address: OTHER, port: 0 } });
  await server.close();
  return server.endpoint.port;
}

/** A server that says what `answer` makes of each request, or nothing. */
async function oddServer(
  answer: (times: number) => StunAttributes | undefined,
): Promise<Endpoint> {
  let times = 0;
  const socket = await systemRuntime().openUdp({ local: { address: LOCAL, port: 0 } }, {
    onDatagram: (data, from) => {
      const request = decodeStun(data);
      const attributes = answer(++times);
      if (typeof request === "string" || !attributes) return;
      const { method, transactionId } = request;
      const kind = attributes.errorCode ? "error" : "success";
      socket.send(encodeStun({ class: kind, method, transactionId, attributes }), from);
    },
    onUnreachable() {},
    onError() {},
  });
  open.push(socket);
  return socket.local;
}

describe("reflexiveAddress()", () => {
  it("tells how a server sees this host, over UDP and TCP, by address and by name", async () => {
    const { endpoint } = await start();
    for (const transport of ["udp", "tcp"] as const) {
      for (const server of [endpoint, formatEndpoint(endpoint), `localhost:${endpoint.port}`]) {
        const seen = await reflexiveAddress(server, { transport, family: 4 });
        assertEquals([seen.address, seen.port], [seen.local.address, seen.local.port]);
        assertEquals([seen.address, seen.server], [LOCAL, endpoint]);
        assert(seen.port > 0);
      }
    }
  });

  it("asks from the port that is wished for", async () => {
    const { endpoint } = await start();
    const localPort = await freePort();
    const { port } = await reflexiveAddress(endpoint, { localPort });
    assertEquals(port, localPort);
  });

  it("rejects with what went wrong, and names the server", async () => {
    const silent = await oddServer(() => undefined);
    const rejection = async (server: Endpoint, options = {}) => {
      const error = await assertRejects(() => reflexiveAddress(server, options), NatError);
      assert(error.message.includes(formatEndpoint(server)), error.message);
      return [error.code, error.message.split(": ").at(-1)];
    };
    assertEquals(await rejection(silent, { timeoutMs: 50 }), ["no-answer", "no answer"]);
    assertEquals(await rejection(silent, { transport: "tcp" }), [
      "no-answer",
      "nobody listens there",
    ]);
    const refusing = await oddServer(() => ({ errorCode: { code: 403, reason: "Forbidden" } }));
    assertEquals(await rejection(refusing), ["refused", "refused with 403 Forbidden"]);
    const empty = await oddServer(() => ({ software: "x" }));
    assertEquals(await rejection(empty), [
      "protocol-violation",
      "the answer breaks the protocol's rules",
    ]);
  });

  it("ends where it is given up, with the reason, and leaves nothing open", async () => {
    const silent = await oddServer(() => undefined);
    const controller = new AbortController();
    const asking = reflexiveAddress(silent, { signal: controller.signal });
    controller.abort(new Error("enough"));
    await assertRejects(() => asking, Error, "enough");
  });

  it("asks from any address where it may not find out which one leads there", async () => {
    const bound: (Endpoint | undefined)[] = [];
    const runtime = new Proxy(systemRuntime(), {
      get(target, name, receiver) {
        if (name === "interfaces") {
          return () => {
            throw new NatError("permission", "Cannot read interfaces: --allow-sys is needed");
          };
        }
        // As on Deno, which can ask no socket.
        if (name === "addressToward") return undefined;
        if (name === "openUdp") {
          return (options: { local?: Endpoint }) => {
            bound.push(options.local);
            return Promise.reject(new NatError("network", "no more of this"));
          };
        }
        return Reflect.get(target, name, receiver);
      },
    });
    const asking = () => reflexiveAddress("192.0.2.1", { runtime, localPort: 40_000 });
    await assertRejects(asking, NatError, "no more of this");
    assertEquals(bound, [{ address: "0.0.0.0", port: 40_000 }]);
    const error = await assertRejects(() => natBehaviour(["192.0.2.1"], { runtime }), NatError);
    assertEquals(error.code, "permission");
  });

  it("asks nobody of a family that this host has not, and waits for no answer of it", async () => {
    const refusing = await oddServer(() => ({ errorCode: { code: 403, reason: "Forbidden" } }));
    const system = systemRuntime();
    const runtime: Runtime = {
      ...system,
      openUdp: (options, handlers) =>
        options.local?.address.includes(":")
          ? Promise.reject(new NatError("network", "no IPv6 here"))
          : system.openUdp(options, handlers),
    };
    const error = await assertRejects(
      () => reflexiveAddress(`localhost:${refusing.port}`, { runtime, timeoutMs: 600_000 }),
      NatError,
    );
    assertEquals(error.code, "refused");
  });

  it("names what cannot be", async () => {
    const rejects = (message: string, ...args: Parameters<typeof reflexiveAddress>) =>
      assertRejects(() => reflexiveAddress(...args), Error, message);
    await rejects("'server' must be HOST, HOST:PORT", "host:x");
    await rejects('current value is {"address":"x","port":1}', { address: "x", port: 1 });
    await rejects("'server.port'", { address: LOCAL, port: 0 });
    await rejects("'transport' must be one of udp, tcp", "host", { transport: "sctp" as "udp" });
    await rejects("'localPort'", "host", { localPort: -1 });
    await rejects("no-such-host.invalid", "no-such-host.invalid");
    await rejects("it is no IPv6 address", LOCAL, { family: 6 });
  });
});

describe("natBehaviour()", () => {
  it("finds no NAT on loopback, by a server with two addresses", async () => {
    const alternate = { address: OTHER, port: await freePort() };
    const server = await start({ alternate });
    assertEquals(server.addresses(), [
      server.endpoint,
      { address: LOCAL, port: alternate.port },
      { address: OTHER, port: server.endpoint.port },
      alternate,
    ]);
    const found = await natBehaviour([server.endpoint]);
    assertEquals(found.type, "open");
    assertEquals(found.external, found.local);
    assertEquals(found.local.address, LOCAL);
    assertEquals(found.servers[0]?.other, alternate);
    assert(server.stats.answers >= 4);
  });

  it("ends where it is given up, with the reason", async () => {
    const silent = await oddServer(() => undefined);
    const controller = new AbortController();
    const asking = natBehaviour([silent], { signal: controller.signal });
    setTimeout(() => controller.abort(new Error("enough")), 20);
    await assertRejects(() => asking, Error, "enough");
    await assertRejects(
      () => natBehaviour([silent], { signal: controller.signal }),
      Error,
      "enough",
    );
  });

  it("names what cannot be", async () => {
    const rejects = (message: string, ...args: Parameters<typeof natBehaviour>) =>
      assertRejects(() => natBehaviour(...args), Error, message);
    await rejects("'servers' must be one to eight servers", []);
    await rejects("'servers' must be one to eight servers", Array(9).fill(LOCAL));
    await rejects("'servers' must be one to eight servers", LOCAL as never);
    await rejects("'servers' must be HOST", ["a b"]);
    await rejects("'maxLifetimeSeconds'", [LOCAL], { maxLifetimeSeconds: 1 });
  });
});

describe("Nat.diagnose() with STUN servers", () => {
  /** Patience of a second and more is over when `fire` says so; what paces the questions runs. */
  function patient(): {
    runtime: Runtime;
    fire: (delayMs: number) => void;
    timers: ReadonlySet<unknown>;
  } {
    const real = systemRuntime();
    const timers = new Set<{ delayMs: number; callback: () => void }>();
    const setTimer = (delayMs: number, callback: () => void, keepAlive: boolean) => {
      if (delayMs < 1000) return real.setTimer(delayMs, callback, keepAlive);
      const timer = { delayMs, callback };
      timers.add(timer);
      return () => void timers.delete(timer);
    };
    const fire = (delayMs: number) => {
      for (const timer of [...timers].filter((one) => one.delayMs === delayMs)) {
        timers.delete(timer);
        timer.callback();
      }
    };
    // Of two instants the difference counts, not the sum.
    const now = () => 1e9 + real.now();
    return { runtime: { ...real, now, setTimer }, fire, timers };
  }

  async function openNat(runtime: Runtime): Promise<Nat> {
    const gateway = await startGateway({ announceTo: [] });
    const nat = await Nat.open({
      gateway: gateway.endpoint,
      protocols: ["pcp"],
      announcements: false,
      runtime,
    });
    open.push(gateway, nat);
    return nat;
  }

  it("tells how each sees this host, and what NAT there is", async () => {
    const alternate = { address: OTHER, port: await freePort() };
    const { endpoint } = await start({ alternate });
    const { runtime, fire } = patient();
    const nat = await openNat(runtime);
    const name = formatEndpoint(endpoint);
    const { gateways, reflexive, nat: found, findings } = await nat.diagnose({
      stunServers: [name],
    });
    assertEquals(gateways.map(({ protocols }) => protocols[0]?.outcome), ["answered"]);
    assertEquals(reflexive.map(({ server, address, outcome }) => [server, address, outcome]), [
      [name, LOCAL, "answered"],
    ]);
    assert(reflexive[0]!.elapsedMs >= 0 && reflexive[0]!.elapsedMs < 1e9);
    assertEquals(found, {
      type: "open",
      mapping: "endpoint-independent",
      filtering: "endpoint-independent",
    });
    assert(findings.some(({ code }) => code === "punchable"));
    const closing = nat.close();
    fire(1500);
    await closing;
  });

  it("ends with what it knows where the time is up, and where it is given up", async () => {
    let asked = 0;
    const silent = formatEndpoint(await oddServer(() => void asked++));
    const { runtime, fire, timers } = patient();
    const nat = await openNat(runtime);
    const asking = nat.diagnose({ stunServers: [silent], timeoutMs: 5000 });
    // By the one question and the other.
    while (asked < 2) await new Promise((resolve) => setTimeout(resolve, 1));
    fire(5000);
    const told = await asking;
    assertEquals([told.reflexive[0]?.outcome, told.nat], ["no answer", undefined]);
    const controller = new AbortController();
    const again = nat.diagnose({ stunServers: [silent], signal: controller.signal });
    controller.abort(new Error("enough"));
    await assertRejects(() => again, Error, "enough");
    const closing = nat.close();
    fire(1500);
    await closing;
    // What is loaded at need notices as soon as it is there.
    for (let turns = 0; timers.size > 0 && turns < 1000; turns++) {
      await new Promise((resolve) => setTimeout(resolve, 1));
    }
    assertEquals(timers.size, 0);
  });
});

describe("startStunServer()", () => {
  it("rejects where the port is taken, and frees what it had where it is closed", async () => {
    const { endpoint } = await start();
    await assertRejects(() => startStunServer({ listen: endpoint }), NatError);
    await open.pop()!.close();
    await start({ listen: endpoint });
  });

  it("takes another port where the free one is taken for TCP, unless it is to be that one", async () => {
    const runtime = systemRuntime();
    const alternate = { address: "192.0.2.1", port: 34_999 };
    let isTaken = (place: number): boolean => place === 1;
    const tried: number[] = [];
    const openStreams: Runtime["openStreams"] = async (tell) => {
      const streams = await runtime.openStreams!(tell);
      const listen = async (key: string, local: Endpoint) => {
        const isFirst = local.address === LOCAL && local.port !== alternate.port;
        if (isFirst) tried.push(local.port);
        if (isFirst && isTaken(tried.length)) throw new NatError("network", "address in use");
        return await streams.listen(key, local);
      };
      return {
        listen,
        act: (action) => streams.act(action),
        take: (id) => streams.take(id),
        close: () => streams.close(),
      };
    };
    const server = await start({ runtime: { ...runtime, openStreams } });
    assertEquals([server.tcp, tried.length, tried[1]], [true, 2, server.endpoint.port]);
    await open.pop()!.close();

    isTaken = (place) => place === 3;
    const fixed = await start({ runtime: { ...runtime, openStreams }, listen: server.endpoint });
    assertEquals([fixed.tcp, tried.length], [false, 3]);

    // The fifth is the last for an alternate address that is not this host's, but not for TCP.
    isTaken = (place) => place === 3 + 5;
    const alone = await start({ runtime: { ...runtime, openStreams }, alternate });
    assertEquals([alone.tcp, tried.length], [true, 3 + 6]);
  });

  it("serves one address where the other one is not this host's", async () => {
    const server = await start({ alternate: { address: "192.0.2.1", port: 34_999 } });
    assertEquals([server.alternate, server.addresses()], [undefined, [server.endpoint]]);
    assertEquals((await reflexiveAddress(server.endpoint)).address, LOCAL);
  });
});
