/**
 * Punching on real sockets of whatever runtime this is, over loopback.
 *
 * @module
 */
import { createSocket, type Socket as UdpSocket } from "node:dgram";
import { connect, createServer, type Server, type Socket } from "node:net";
import { describe, it } from "node:test";
import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import {
  parseTicket,
  punchTcp,
  punchUdp,
  TcpRendezvous,
  TicketError,
  UdpRendezvous,
} from "../../../adapters/api/ice.ts";
import { Nat } from "../../../adapters/api/nat.ts";
import { systemRuntime } from "../../../adapters/auto.ts";
import { startGateway } from "../../../adapters/gateway_server.ts";
import type { Runtime } from "../../../adapters/runtime.ts";
import { NatError } from "../../../core/errors.ts";

const HERE = { localAddresses: ["127.0.0.1"] };
const bytes = (text: string) => new TextEncoder().encode(text);
const text = (data: Uint8Array) => new TextDecoder().decode(data);

/** Two functions that trade tickets. */
function postOffice(): [(ticket: string) => Promise<string>, (ticket: string) => Promise<string>] {
  const resolvers: ((ticket: string) => void)[] = [];
  const boxes = [0, 1].map((i) => new Promise<string>((resolve) => resolvers[i] = resolve));
  return [0, 1].map((i) => (ticket: string) => {
    resolvers[1 - i]!(ticket);
    return boxes[i]!;
  }) as [(ticket: string) => Promise<string>, (ticket: string) => Promise<string>];
}

async function readAll(socket: AsyncIterable<Uint8Array>): Promise<string> {
  let all = "";
  for await (const data of socket) all += new TextDecoder().decode(data);
  return all;
}

describe("punchUdp", () => {
  it("gives both peers a channel on one path, and data both ways", async () => {
    const [toA, toB] = postOffice();
    const [a, b] = await Promise.all([punchUdp(toA, HERE), punchUdp(toB, HERE)]);
    assertEquals([a.peer, b.peer], [b.local, a.local]);
    assertEquals([a.mapped, b.mapped], [a.local, b.local]);
    assert(a.elapsedMs >= 0 && a.elapsedMs < 10_000);
    for (let i = 0; i < 3; i++) a.send(bytes(`a${i}`));
    // What looks like STUN and is none of ours is the application's.
    b.send(new Uint8Array([0, 1, 0, 0, 33, 18, 164, 66]));
    const heard: string[] = [];
    for await (const data of b) {
      heard.push(text(data));
      if (heard.length === 3) break;
    }
    assertEquals(heard.sort(), ["a0", "a1", "a2"]);
    const got = await new Promise<Uint8Array>((resolve) => a.onDatagram = resolve);
    assertEquals([...got], [0, 1, 0, 0, 33, 18, 164, 66]);
    await Promise.all([a.close(), b.close()]);
    assertEquals(await a.ended, "closed");
    assert(await assertThrowsClosed(() => a.send(bytes("late"))));
  });

  it("hands the sockets over, with what nobody has read, and the hole stays open", async () => {
    const [toA, toB] = postOffice();
    let given = 0;
    const nat = {
      map: () =>
        Promise.resolve({
          external: { address: "203.0.113.7", port: 4000 },
          close: () => Promise.resolve(void given++),
        }),
    };
    const options = { ...HERE, isDetachable: true };
    const [a, b] = await Promise.all([
      punchUdp(toA, { ...options, nat }),
      punchUdp(toB, options),
    ]);
    a.send(bytes("unread"));
    const [left, right] = [a.detach(), b.detach()];
    const [from, to] = [left.socket as UdpSocket, right.socket as UdpSocket];
    assertEquals([left.peer, right.peer], [right.local, left.local]);
    assertEquals([from.address().port, to.address().port], [left.local.port, right.local.port]);
    // Whether it came before or after the socket was handed over.
    const heard = right.waiting.map(text);
    await new Promise<void>((resolve) => {
      to.on("message", (data: Uint8Array) => {
        if (data[0]! >= 4) heard.push(text(data));
        if (heard.length === 2) resolve();
      });
      from.send(bytes("as it is"), left.peer.port, left.peer.address);
    });
    assertEquals(heard, ["unread", "as it is"]);
    assertEquals(await a.ended, "closed");
    assert(await assertThrowsClosed(() => a.send(bytes("late"))));
    assert(await assertThrowsClosed(() => void a.detach()));
    await a.close();
    assertEquals([given, right.mapping], [0, undefined]);
    await left.mapping!.close();
    assertEquals(given, 1);
    from.close();
    to.close();
  });

  it("hands no socket over that was not opened for it", async () => {
    const [toA, toB] = postOffice();
    const [a, b] = await Promise.all([punchUdp(toA, HERE), punchUdp(toB, HERE)]);
    assertThrows(() => a.detach(), TypeError, "isDetachable");
    a.send(bytes("still mine"));
    for await (const data of b) {
      assertEquals(text(data), "still mine");
      break;
    }
    await Promise.all([a.close(), b.close()]);
  });

  it("tells the reader when the peer has no more to send", async () => {
    const [toA, toB] = postOffice();
    const [a, b] = await Promise.all([punchUdp(toA, HERE), punchUdp(toB, HERE)]);
    a.end();
    for await (const data of b) throw new Error(`unasked: ${text(data)}`);
    assertEquals(b.peer, a.local);
    b.send(bytes("still here"));
    for await (const data of a) {
      assertEquals(text(data), "still here");
      break;
    }
    await Promise.all([a.close(), b.close()]);
  });

  it("tells the reader at once when the peer closes", async () => {
    const [toA, toB] = postOffice();
    const [a, b] = await Promise.all([punchUdp(toA, HERE), punchUdp(toB, HERE)]);
    await a.close();
    for await (const data of b) throw new Error(`unasked: ${text(data)}`);
    await b.close();
  });

  it("takes data from the peer alone, whoever else sends to the same port", async () => {
    const [toA, toB] = postOffice();
    const [a, b] = await Promise.all([punchUdp(toA, HERE), punchUdp(toB, HERE)]);
    const stranger = createSocket("udp4");
    await new Promise<void>((resolve) =>
      stranger.send(bytes("stranger"), a.local.port, a.local.address, () => resolve())
    );
    b.send(bytes("peer"));
    for await (const data of a) {
      assertEquals(text(data), "peer");
      break;
    }
    stranger.close();
    await Promise.all([a.close(), b.close()]);
  });

  it("refuses a ticket that is none, and leaves nothing open", async () => {
    await assertRejects(() => punchUdp(() => "hello", HERE), TicketError, "natkit1:");
    const own = await assertRejects(() => punchUdp((ticket) => ticket, HERE), TicketError);
    assertEquals(own.code, "own");
    const tcp = await TcpRendezvous.open(HERE);
    const mixed = await assertRejects(() => punchUdp(() => tcp.ticket, HERE), TicketError);
    await tcp.close();
    assertEquals([mixed.code, /TCP.*UDP/.test(mixed.message)], ["other-transport", true]);
    const other = await UdpRendezvous.open(HERE);
    const { ticket } = other;
    await other.close();
    const error = await assertRejects(
      () => punchUdp(() => ticket, { ...HERE, timeoutMs: 300 }),
      NatError,
    );
    assertEquals(error.code, "no-answer");
  });

  it("does without a mapping where a gateway refuses, and hides no other fault", async () => {
    const nat = (error: Error) => ({ map: () => Promise.reject(error) }) as never;
    const refusing = nat(new NatError("refused", "no"));
    const rendezvous = await UdpRendezvous.open({ ...HERE, nat: refusing });
    assertEquals(rendezvous.told.candidates.map(({ type }) => type), ["host"]);
    await rendezvous.close();
    for (const { open } of [UdpRendezvous, TcpRendezvous]) {
      const opening = open({ ...HERE, nat: nat(new TypeError("a bug of ours")) });
      await assertRejects(() => opening, TypeError, "a bug of ours");
    }
  });

  it("loses nothing that the peer sends before this side knows of the path", async () => {
    const system = systemRuntime();
    let isNominated = false, isThrough = false;
    // What answers the nomination is held back until the first data are here.
    const runtime: Runtime = {
      ...system,
      openUdp: async (options, handlers) => {
        const held: [Uint8Array, { address: string; port: number }][] = [];
        const socket = await system.openUdp(options, {
          ...handlers,
          onDatagram(data, from) {
            if (data[0] === 1 && isNominated && !isThrough) held.push([data.slice(), from]);
            else handlers.onDatagram(data, from);
            if (data[0]! < 4) return;
            isThrough = true;
            for (const [answer, peer] of held.splice(0)) handlers.onDatagram(answer, peer);
          },
        });
        return {
          local: socket.local,
          close: () => socket.close(),
          send(data, to) {
            // USE-CANDIDATE (RFC 8445 §7.1.1), which is empty.
            for (let at = 20; at + 4 <= data.length; at += 4) {
              const [high, type, more, length] = data.subarray(at, at + 4);
              if (high === 0 && type === 0x25 && more === 0 && length === 0) isNominated = true;
            }
            socket.send(data, to);
          },
        };
      },
    };
    const a = await UdpRendezvous.open({ ...HERE, role: "controlled" });
    const b = await UdpRendezvous.open({ ...HERE, role: "controlling", runtime });
    const meeting = b.punch(a.ticket);
    const left = await a.punch(b.ticket);
    left.send(bytes("early"));
    const right = await meeting;
    left.send(bytes("late"));
    const first = await right[Symbol.asyncIterator]().next();
    assertEquals([text(first.value!), isThrough], ["early", true]);
    await Promise.all([left.close(), right.close()]);
  });

  it("ends by the caller's signal", async () => {
    const reason = new Error("enough");
    const signal = AbortSignal.timeout(100);
    const other = await UdpRendezvous.open(HERE);
    const { ticket } = other;
    await other.close();
    await assertRejects(() => punchUdp(() => ticket, { ...HERE, signal }));
    const aborted = AbortSignal.abort(reason);
    await assertRejects(() => UdpRendezvous.open({ ...HERE, signal: aborted }), Error, "enough");
  });

  it("takes the peer's SDP for its ticket", async () => {
    const a = await UdpRendezvous.open(HERE);
    const b = await UdpRendezvous.open({ ...HERE, role: "controlled" });
    const [left, right] = await Promise.all([
      a.punch(b.sdp.join("\r\n")),
      b.punch(a.sdp.join("\n")),
    ]);
    assertEquals(left.peer, right.local);
    await Promise.all([a.close(), b.close()]);
    // Their channels go with them.
    assertEquals(await Promise.all([left.ended, right.ended]), ["closed", "closed"]);
    await assertRejects(() => UdpRendezvous.open({ stunServers: ["a b"] }), TypeError, "a b");
  });

  it("uses the port that it is told, and a gateway's mapping where there is one", async () => {
    const closed: string[] = [];
    const { signal } = new AbortController();
    const nat = {
      map: (port: number, { protocol, ...given }: { protocol: string; signal: AbortSignal }) =>
        Promise.resolve(assertEquals(given.signal, signal)).then(() => ({
          external: { address: "203.0.113.7", port: 1000 },
          close: async () => {
            await new Promise((resolve) => setTimeout(resolve, 1));
            closed.push(`${port}/${protocol}`);
          },
        })),
    } as never;
    const rendezvous = await UdpRendezvous.open({ ...HERE, nat, localPort: 0, signal });
    const [own, mapped] = rendezvous.told.candidates;
    assertEquals([mapped!.type, mapped!.address, mapped!.port], ["srflx", "203.0.113.7", 1000]);
    await rendezvous.close();
    const tcp = await TcpRendezvous.open({ ...HERE, nat, signal });
    const [listening] = tcp.told.candidates;
    await tcp.close();
    assertEquals(closed, [`${own!.port}/udp`, `${listening!.port}/tcp`]);
    const free = await freePort();
    const again = await UdpRendezvous.open({ ...HERE, localPort: free });
    assertEquals(again.told.candidates.map(({ port }) => port), [free]);
    await again.close();
  });
});

// Their own `name` is another one where a bundler has renamed them.
for (const [name, kind] of Object.entries({ UdpRendezvous, TcpRendezvous })) {
  describe(name, () => {
    /** A side of ours, and the ticket of a peer that is gone. */
    async function alone(timeoutMs?: number) {
      const other = await kind.open(HERE);
      const { ticket } = other;
      await other.close();
      const own = await kind.open({ ...HERE, ...(timeoutMs !== undefined && { timeoutMs }) });
      return { own, ticket };
    }

    it("that is closed in the middle ends the punch", async () => {
      const { own, ticket } = await alone();
      const punching = own.punch(ticket);
      const closing = own.close();
      const error = await assertRejects(() => punching, NatError);
      assertEquals(error.code, "closed");
      await closing;
    });

    it("has one peer, and who asks for another one takes nothing from the first", async () => {
      const { own, ticket } = await alone();
      const controller = new AbortController();
      const first = own.punch(ticket, { signal: controller.signal });
      await assertRejects(() => own.punch(ticket), TypeError, "Cannot punch");
      controller.abort(new Error("enough"));
      await assertRejects(() => first, Error, "enough");
      await own.close();
    });

    it("is over when its punch has failed or was given up", async () => {
      const failing = await alone(50);
      await assertRejects(() => failing.own.punch(failing.ticket), NatError, "Cannot reach");
      const givenUp = await alone();
      const signal = AbortSignal.timeout(5);
      await assertRejects(() => givenUp.own.punch(givenUp.ticket, { signal }));
      for (const { own, ticket } of [failing, givenUp]) {
        const again = await assertRejects(() => own.punch(ticket), NatError);
        assertEquals(again.code, "closed");
        await own.close();
      }
    });

    it("takes another ticket after one that could not be used, or words that could not", async () => {
      const { own, ticket } = await alone(50);
      await assertRejects(() => own.punch(own.ticket), TicketError);
      await assertRejects(() => own.punch(ticket, { delayMs: -1 }), RangeError, "delayMs");
      const aborted = AbortSignal.abort(new Error("enough"));
      await assertRejects(() => own.punch(ticket, { signal: aborted }), Error, "enough");
      await assertRejects(() => own.punch(ticket), NatError, "Cannot reach");
      await own.close();
    });

    it("gives back a port that is mapped to where nobody can be, and does without", async () => {
      let given = 0;
      const nat = {
        map: () =>
          Promise.resolve({
            external: { address: "0.0.0.0", port: 4000 },
            close: () => Promise.resolve(void given++),
          }),
      };
      const own = await kind.open({ ...HERE, nat });
      assertEquals(own.told.candidates.map(({ type }) => type), ["host"]);
      assertEquals(given, 1);
      await own.close();
      assertEquals(given, 1);
    });
  });
}

/** A UDP port that nobody has. */
async function freePort(): Promise<number> {
  const socket = createSocket("udp4");
  await new Promise<void>((resolve) => socket.bind(0, "127.0.0.1", resolve));
  const { port } = socket.address();
  await new Promise<void>((resolve) => socket.close(() => resolve()));
  return port;
}

describe("Nat", () => {
  it("punches too, and its gateways map the ports meanwhile", async () => {
    const gateway = await startGateway({ listen: "127.0.0.1", port: 0, external: ["203.0.113.7"] });
    const system = systemRuntime();
    const used: string[] = [];
    const runtime: Runtime = {
      ...system,
      openUdp: (options, handlers) => {
        if (options.local?.address === "127.0.0.1" && !options.connect) used.push("udp");
        return system.openUdp(options, handlers);
      },
      openStreams: (tell) => {
        used.push("tcp");
        return system.openStreams!(tell);
      },
    };
    const nat = await Nat.open({ gateway: gateway.endpoint, runtime });
    for (const protocol of ["udp", "tcp"] as const) {
      const [toA, toB] = postOffice();
      const tickets: string[] = [];
      const watched = (ticket: string) => {
        tickets.push(ticket);
        return toA(ticket);
      };
      if (protocol === "udp") {
        const [a, b] = await Promise.all([nat.punchUdp(watched, HERE), punchUdp(toB, HERE)]);
        assertEquals(a.peer, b.local);
        await Promise.all([a.close(), b.close()]);
      } else {
        const [a, b] = await Promise.all([nat.punchTcp(watched, HERE), punchTcp(toB, HERE)]);
        assertEquals(a.peer, b.local);
        for (const { socket } of [a, b]) socket.destroy();
      }
      const { candidates } = parseTicket(tickets[0]!);
      assertEquals(candidates.map(({ type, address }) => `${type} ${address}`), [
        "host 127.0.0.1",
        "srflx 203.0.113.7",
      ]);
      assertEquals(used.splice(0).includes(protocol), true, "by the context's own runtime");
    }
    await nat.close();
    await gateway.close();
  });
});

async function assertThrowsClosed(act: () => void): Promise<boolean> {
  const error = await assertRejects(() => Promise.resolve().then(act), NatError);
  return error.code === "closed";
}

describe("punchTcp", () => {
  it("gives both peers one plain connection, at the byte after the agreement", async () => {
    const [toA, toB] = postOffice();
    const punched = [toA, toB].map(async (exchange) => {
      const one = await punchTcp(exchange, HERE);
      // At once: the other side may not have got the last answer yet.
      one.socket.write(`from ${one.local.port}`);
      one.socket.end();
      return one;
    });
    const [a, b] = await Promise.all(punched);
    assertEquals([a!.peer, b!.peer], [b!.local, a!.local]);
    const [atA, atB] = await Promise.all([readAll(a!.socket), readAll(b!.socket)]);
    assertEquals(atA, `from ${b!.local.port}`);
    assertEquals(atB, `from ${a!.local.port}`);
  });

  it("carries a megabyte whole, both ways at once", async () => {
    const [toA, toB] = postOffice();
    const [a, b] = await Promise.all([punchTcp(toA, HERE), punchTcp(toB, HERE)]);
    const big = "0123456789abcdef".repeat(65_536);
    a.socket.end(big);
    b.socket.end(big.toUpperCase());
    const [atA, atB] = await Promise.all([readAll(a.socket), readAll(b.socket)]);
    assert(atA === big.toUpperCase() && atB === big);
  });

  it("is not taken in by who connects without the password", async () => {
    const a = await TcpRendezvous.open(HERE);
    const b = await TcpRendezvous.open(HERE);
    const { port } = a.told.candidates[0]!;
    const punching = a.punch(b.ticket);
    const strangers: Socket[] = [];
    let isOver = false;
    const knock = () => {
      if (isOver) return;
      const socket = connect({ host: "127.0.0.1", port });
      socket.on("connect", () => socket.write(new Uint8Array([0, 4, 1, 2, 3, 4])));
      socket.on("error", () => {});
      strangers.push(socket);
      setTimeout(knock, 5);
    };
    knock();
    await new Promise((resolve) => setTimeout(resolve, 150));
    const [left, right] = await Promise.all([punching, b.punch(a.ticket)]);
    isOver = true;
    assertEquals([left.peer, right.peer], [right.local, left.local]);
    for (const socket of [...strangers, left.socket, right.socket]) socket.destroy();
    await Promise.all([a.close(), b.close()]);
  });

  it("fails with the reason where nobody comes", async () => {
    const other = await TcpRendezvous.open(HERE);
    const { ticket } = other;
    await other.close();
    const error = await assertRejects(
      () => punchTcp(() => ticket, { ...HERE, timeoutMs: 400 }),
      NatError,
    );
    assertEquals(error.code, "no-answer");
    const udp = await UdpRendezvous.open(HERE);
    const foreign = udp.ticket;
    await udp.close();
    await assertRejects(() => punchTcp(() => foreign, HERE), TicketError, "for UDP");
  });

  it("asks a STUN server from the port that it will use", async () => {
    const asked: number[] = [];
    const server: Server = createServer((socket) => {
      asked.push(socket.remotePort!);
      socket.resume();
      socket.on("error", () => {});
      socket.end();
    });
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    const { port } = server.address() as { port: number };
    const rendezvous = await TcpRendezvous.open({
      ...HERE,
      stunServers: [{ address: "127.0.0.1", port }],
      runtime: systemRuntime(),
    });
    assertEquals(asked, [rendezvous.told.candidates[0]!.port]);
    await rendezvous.close();
    await new Promise((resolve) => server.close(resolve));
  });
});
