import { describe, it } from "node:test";
import { assert, assertEquals, assertThrows } from "@std/assert";
import { fromHex, toHex } from "../../../core/bytes.ts";
import {
  decodeStun,
  encodeStun,
  type StunAttributes,
  type StunClass,
  type StunMessage,
  type UnknownAttribute,
} from "../../../core/stun/codec.ts";
import { StunServer, type StunServerOptions } from "../../../core/stun/server.ts";
import type { Action, Endpoint, SocketSpec } from "../../../core/machine.ts";
import { drain, timed } from "../machine_case.ts";
import { CLIENT, read } from "./rig.ts";

const A1 = "198.51.100.1", A2 = "198.51.100.2";
const BOTH = { listen: { address: A1, port: 3478 }, alternate: { address: A2, port: 3479 } };
const id = fromHex("000102030405060708090a0b");

/** Opens all that is listed, as a driver does. */
function start(options: StunServerOptions, failing: readonly string[] = []): StunServer {
  const server = timed(new StunServer(options));
  const done = new Set<string>();
  for (let isNew = true; isNew;) {
    isNew = false;
    for (const { key, local } of server.sockets()) {
      if (done.has(key)) continue;
      done.add(key);
      isNew = true;
      const port = local!.port || 40_000;
      server.handleSocket(
        key,
        failing.includes(key)
          ? { ok: false, code: "network", message: "in use", isOpen: false }
          : { ok: true, local: { ...local!, port } },
        0,
      );
    }
  }
  return server;
}

const at = (server: StunServer, key: string) =>
  server.sockets().find((spec: SocketSpec) => spec.key === key)?.local;

interface Asked {
  readonly attributes?: StunAttributes;
  readonly unknown?: readonly UnknownAttribute[];
  readonly socket?: string;
  readonly from?: Endpoint;
  readonly fingerprint?: boolean;
  readonly transactionId?: Uint8Array;
}

/** What is sent back, with where from and where to. */
function ask(server: StunServer, asked: Asked = {}): {
  message: StunMessage;
  from: Endpoint | undefined;
  to: Endpoint;
} {
  const { attributes = {}, unknown = [], transactionId = id, fingerprint } = asked;
  const data = encodeStun(
    { class: "request", method: 1, transactionId, attributes, unknown },
    { fingerprint },
  );
  assert(server.handleDatagram(data, asked.from ?? CLIENT, asked.socket ?? "server", 0));
  const actions = drain(server).filter((action) => action.type === "send");
  assertEquals(actions.length, 1);
  const { data: answer, socket, to } = actions[0]!;
  const message = decodeStun(answer, { classic: true });
  if (typeof message === "string") throw new Error(message);
  return { message, from: at(server, socket), to };
}

const events = (server: StunServer) =>
  drain(server).flatMap((action: Action<unknown>) => action.type === "event" ? [action.event] : []);

describe("a STUN server with one address", () => {
  it("STUN-09 tells each client its source, twice, and itself", () => {
    const server = start({ listen: { address: A1, port: 3478 } });
    assertEquals(events(server), [{
      type: "listening",
      local: { address: A1, port: 3478 },
      alternate: undefined,
      tcp: true,
    }]);
    const { message, from, to } = ask(server);
    assertEquals([from, to], [{ address: A1, port: 3478 }, CLIENT]);
    assertEquals([message.class, message.method, toHex(message.transactionId)], [
      "success",
      1,
      toHex(id),
    ]);
    assertEquals(message.attributes, {
      xorMappedAddress: CLIENT,
      mappedAddress: CLIENT,
      responseOrigin: { address: A1, port: 3478 },
      software: "natkit",
    });
    assert(!message.hasFingerprint);
    assertEquals(server.stats.answers, 1);
  });

  it("answers IPv6, and with a fingerprint where it was asked with one", () => {
    const listen = { address: "2001:db8::1", port: 3478 };
    const from = { address: "2001:db8::99", port: 9 };
    const { message } = ask(start({ listen }), { from, fingerprint: true });
    assertEquals(message.attributes.xorMappedAddress, from);
    assert(message.hasFingerprint);
  });

  it("takes a free port for port 0, and names no origin that it does not know", () => {
    const server = start({ listen: { address: "0.0.0.0", port: 0 }, software: "" });
    assertEquals(server.sockets().map(({ key, kind, local }) => [key, kind, local]), [
      ["server", undefined, { address: "0.0.0.0", port: 40_000 }],
      ["tcp server", "tcp", { address: "0.0.0.0", port: 40_000 }],
    ]);
    assertEquals(ask(server).message.attributes, {
      xorMappedAddress: CLIENT,
      mappedAddress: CLIENT,
    });
  });

  it("does not know CHANGE-REQUEST: 420 (RFC 5780 §6)", () => {
    const server = start({ listen: { address: A1, port: 3478 } });
    const { message } = ask(server, {
      attributes: { changeRequest: { address: false, port: false } },
    });
    assertEquals(message.class, "error");
    assertEquals(message.attributes, {
      errorCode: { code: 420, reason: "Unknown Attribute" },
      unknownAttributes: [3],
      software: "natkit",
    });
  });

  it("STUN-05 answers 420 to what must be understood, and lists it", () => {
    const server = start({ listen: { address: A1, port: 3478 } });
    const value = new Uint8Array(0);
    const { message } = ask(server, {
      unknown: [{ type: 0x7777, value }, { type: 0xc000, value }, { type: 0x0777, value }],
    });
    assertEquals(message.attributes.errorCode?.code, 420);
    assertEquals(message.attributes.unknownAttributes, [0x7777, 0x0777]);
    assertEquals(ask(server, { unknown: [{ type: 0xc000, value }] }).message.class, "success");
    assertEquals([server.stats.errors, server.stats.answers], [1, 1]);
  });

  it("says that it cannot listen, once", () => {
    const server = start({ listen: { address: A1, port: 3478 } }, ["server"]);
    assertEquals(events(server), [{ type: "failed", code: "network", message: "in use" }]);
    assertEquals(server.sockets(), []);
  });

  it("listens by UDP alone where TCP fails or is not wanted", () => {
    const listen = { address: A1, port: 3478 };
    for (const server of [start({ listen }, ["tcp server"]), start({ listen, tcp: false })]) {
      assertEquals(events(server), [
        { type: "listening", local: listen, alternate: undefined, tcp: false },
      ]);
      assertEquals(ask(server).message.class, "success");
    }
  });

  it("lists nothing once it is closed", () => {
    const server = start({ listen: { address: A1, port: 3478 } });
    server.close(0);
    assertEquals(server.sockets(), []);
  });
});

describe("a STUN server with two addresses and two ports (RFC 5780)", () => {
  const places: readonly (readonly [string, Endpoint])[] = [
    ["server", { address: A1, port: 3478 }],
    ["other-port", { address: A1, port: 3479 }],
    ["other-address", { address: A2, port: 3478 }],
    ["other-both", { address: A2, port: 3479 }],
  ];

  it("listens at all four pairs, by UDP and TCP", () => {
    const server = start(BOTH);
    assertEquals(events(server), [{
      type: "listening",
      local: BOTH.listen,
      alternate: BOTH.alternate,
      tcp: true,
    }]);
    for (const [key, local] of places) {
      assertEquals(at(server, key), local);
      assertEquals(at(server, `tcp ${key}`), local);
    }
  });

  it("gives the other address the port that was free", () => {
    const server = start({ ...BOTH, listen: { address: A1, port: 0 } });
    assertEquals(at(server, "other-address"), { address: A2, port: 40_000 });
    assertEquals(at(server, "other-both"), { address: A2, port: 3479 });
  });

  for (const [key, own] of places) {
    for (const address of [false, true]) {
      for (const port of [false, true]) {
        it(`at its ${key}, asked to change address ${address}, port ${port} (table 1)`, () => {
          const { message, from, to } = ask(start(BOTH), {
            socket: key,
            attributes: { changeRequest: { address, port } },
          });
          const other = {
            address: own.address === A1 ? A2 : A1,
            port: own.port === 3478 ? 3479 : 3478,
          };
          const wanted = {
            address: address ? other.address : own.address,
            port: port ? other.port : own.port,
          };
          assertEquals(from, wanted);
          assertEquals(to, CLIENT);
          assertEquals(message.attributes.responseOrigin, wanted);
          assertEquals(message.attributes.otherAddress, other);
          assertEquals(message.attributes.xorMappedAddress, CLIENT);
        });
      }
    }
  }

  it("answers from where it was asked without CHANGE-REQUEST", () => {
    for (const [key, own] of places) assertEquals(ask(start(BOTH), { socket: key }).from, own);
  });

  it("answers errors from where it was asked, to who asked", () => {
    const { message, from, to } = ask(start(BOTH), {
      attributes: { changeRequest: { address: true, port: true }, responsePort: 9 },
      unknown: [{ type: 0x7777, value: new Uint8Array(0) }],
    });
    assertEquals(message.class, "error");
    assertEquals([from, to], [BOTH.listen, CLIENT]);
  });

  it("answers to another port of the same address where RESPONSE-PORT says so", () => {
    const { message, to } = ask(start(BOTH), { attributes: { responsePort: 5555 } });
    assertEquals(to, { address: CLIENT.address, port: 5555 });
    assertEquals(message.attributes.xorMappedAddress, CLIENT);
    const server = start(BOTH);
    drain(server);
    const data = encodeStun({
      class: "request",
      method: 1,
      transactionId: id,
      attributes: { responsePort: 0 },
    });
    assert(server.handleDatagram(data, CLIENT, "server", 0));
    assertEquals(drain(server), []);
  });

  it("pads as much as it was padded, up to 1500 bytes", () => {
    const sizeOf = (length: number) =>
      ask(start(BOTH), { attributes: { padding: new Uint8Array(length) } })
        .message.attributes.padding?.length;
    assertEquals([sizeOf(100), sizeOf(1500), sizeOf(9000)], [100, 1500, 1500]);
  });

  it("refuses padding to another port: 400", () => {
    const { message, to } = ask(start(BOTH), {
      attributes: { padding: new Uint8Array(100), responsePort: 9 },
    });
    assertEquals(message.attributes.errorCode?.code, 400);
    assertEquals(to, CLIENT);
  });

  it("is a server with one address where one of the four cannot be had", () => {
    const server = start(BOTH, ["other-address"]);
    assertEquals(events(server), [
      { type: "listening", local: BOTH.listen, alternate: undefined, tcp: true },
    ]);
    assertEquals(ask(server).message.attributes.otherAddress, undefined);
    const { message, from } = ask(server, {
      attributes: { changeRequest: { address: false, port: true } },
    });
    assertEquals(message.attributes.errorCode?.code, 420);
    assertEquals(from, BOTH.listen);
  });
});

describe("a client of RFC 3489", () => {
  it("is answered in its own form, without what it does not know", () => {
    const transactionId = fromHex("000102030405060708090a0b0c0d0e0f");
    const { message, from } = ask(start(BOTH), {
      transactionId,
      attributes: { changeRequest: { address: true, port: true } },
    });
    assertEquals(toHex(message.transactionId), toHex(transactionId));
    assertEquals(from, BOTH.alternate);
    assertEquals(message.attributes, {
      mappedAddress: CLIENT,
      sourceAddress: BOTH.alternate,
      changedAddress: BOTH.alternate,
      software: "natkit",
    });
  });

  it("is not answered to another address: 420", () => {
    const { message, to } = ask(start(BOTH), {
      transactionId: new Uint8Array(16),
      unknown: [{ type: 2, value: fromHex("0001232802000001") }],
    });
    assertEquals(message.attributes.unknownAttributes, [2]);
    assertEquals(to, CLIENT);
  });
});

describe("what a STUN server does not answer", () => {
  const server = start(BOTH);
  drain(server);
  const feed = (data: Uint8Array, from = CLIENT, now = 0) =>
    server.handleDatagram(data, from, "server", now);
  const message = (of: StunClass, method = 1) =>
    encodeStun({ class: of, method, transactionId: id });

  it("is no request, or not one for an address", () => {
    const { "no-request": before } = server.stats.dropped;
    for (const kind of ["indication", "success", "error"] as const) assert(!feed(message(kind)));
    assert(!feed(message("request", 3)));
    assert(!feed(new TextEncoder().encode("hello, are you there?")));
    assertEquals(drain(server), []);
    assertEquals(server.stats.dropped["no-request"], before + 4);
    assertEquals(server.stats.dropped.malformed, 1);
  });

  it("is more than 200 a second from one address; another one is answered", () => {
    for (let i = 0; i < 300; i++) feed(message("request"), { ...CLIENT, port: 1024 + i }, 5000);
    assertEquals(drain(server).length, 200);
    assertEquals(server.stats.dropped["too-many"], 100);
    feed(message("request"), { address: "203.0.113.8", port: 9 }, 5000);
    assertEquals(drain(server).length, 1);
    feed(message("request"), CLIENT, 5999);
    assertEquals(drain(server).length, 0);
    feed(message("request"), CLIENT, 6000);
    assertEquals(drain(server).length, 1);
  });

  it("is of more than 65,536 addresses in a second", () => {
    const quiet = start(BOTH);
    drain(quiet);
    for (let i = 0; i < 65_540; i++) {
      const address = `10.${i >> 16}.${(i >> 8) & 255}.${i & 255}`;
      quiet.handleDatagram(message("request"), { address, port: 9 }, "server", 0);
      drain(quiet);
    }
    assertEquals(quiet.stats.answers, 65_536);
    assertEquals(quiet.stats.dropped["too-many"], 4);
  });
});

describe("a STUN server over TCP", () => {
  const open = (server: StunServer, stream: number, peer: Endpoint = CLIENT) =>
    server.handleStream(stream, {
      type: "open",
      local: BOTH.listen,
      peer,
      socket: "tcp server",
    }, 0);
  const request = (attributes: StunAttributes = {}) =>
    encodeStun({ class: "request", method: 1, transactionId: id, attributes });
  const streamsOf = (server: StunServer) =>
    drain(server).filter((action) => action.type === "stream");

  it("answers what comes in pieces and what comes together, on the same connection", () => {
    const server = start(BOTH);
    drain(server);
    open(server, -1);
    for (const byte of request()) {
      server.handleStream(-1, { type: "data", data: Uint8Array.of(byte) }, 1);
    }
    const two = Uint8Array.from([...request(), ...request({ software: "x" })]);
    server.handleStream(-1, { type: "data", data: two }, 2);
    const answers = streamsOf(server);
    assertEquals(answers.length, 3);
    for (const action of answers) {
      if (action.do !== "write") throw new Error(action.do);
      assertEquals(action.id, -1);
      assertEquals(read(action.data).attributes, {
        xorMappedAddress: CLIENT,
        mappedAddress: CLIENT,
        responseOrigin: BOTH.listen,
        otherAddress: BOTH.alternate,
        software: "natkit",
      });
    }
  });

  it("answers no more than 200 a second to one address there either, and counts the others", () => {
    const server = start(BOTH);
    drain(server);
    open(server, -1);
    const many = Uint8Array.from(Array.from({ length: 203 }, () => [...request()]).flat());
    server.handleStream(-1, { type: "data", data: many }, 1);
    assertEquals(streamsOf(server).length, 200);
    assertEquals([server.stats.answers, server.stats.dropped["too-many"]], [200, 3]);
  });

  it("answers from nowhere else: CHANGE-REQUEST and RESPONSE-PORT get 420", () => {
    const server = start(BOTH);
    drain(server);
    open(server, -1);
    const attributes = { changeRequest: { address: true, port: false }, responsePort: 9 };
    server.handleStream(-1, { type: "data", data: request(attributes) }, 1);
    const [action] = streamsOf(server);
    if (action?.do !== "write") throw new Error("no answer");
    assertEquals(read(action.data).attributes.unknownAttributes, [3, 0x27]);
  });

  it("closes what is no STUN, and forgets it", () => {
    const server = start(BOTH);
    drain(server);
    open(server, -1);
    const data = new TextEncoder().encode("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    server.handleStream(-1, { type: "data", data }, 1);
    assertEquals(streamsOf(server), [{ type: "stream", id: -1, do: "close" }]);
    server.handleStream(-1, { type: "data", data: request() }, 1);
    assertEquals([streamsOf(server), server.nextTimeout()], [[], undefined]);
  });

  it("closes a connection on which nothing came for ten minutes", () => {
    const server = start(BOTH);
    drain(server);
    open(server, -1);
    assertEquals(server.nextTimeout(), 600_000);
    server.handleStream(-1, { type: "data", data: request() }, 1000);
    drain(server);
    server.handleTimeout(600_000);
    assertEquals(streamsOf(server), []);
    assertEquals(server.nextTimeout(), 601_000);
    server.handleTimeout(601_000);
    assertEquals(streamsOf(server), [{ type: "stream", id: -1, do: "close" }]);
  });

  it("has 256 connections at most, of its own listeners", () => {
    const server = start(BOTH);
    drain(server);
    for (let stream = 1; stream <= 257; stream++) {
      open(server, -stream, { ...CLIENT, address: `203.0.113.${stream % 16}` });
    }
    assertEquals(streamsOf(server), [{ type: "stream", id: -257, do: "close" }]);
    server.handleStream(-1, { type: "closed", reason: "ended" }, 0);
    open(server, -258);
    assertEquals(streamsOf(server), []);
    server.handleStream(-300, { type: "open", local: CLIENT, peer: CLIENT, socket: "x" }, 0);
    server.handleStream(-300, { type: "data", data: request() }, 0);
    assertEquals(streamsOf(server), []);
    server.close(0);
    assertEquals(streamsOf(server).length, 256);
  });

  it("has 32 connections of one host at most, so that others have theirs", () => {
    const server = start(BOTH);
    drain(server);
    for (let stream = 1; stream <= 33; stream++) open(server, -stream);
    assertEquals(streamsOf(server), [{ type: "stream", id: -33, do: "close" }]);
    open(server, -34, { address: "203.0.113.99", port: 9 });
    server.handleStream(-1, { type: "closed", reason: "ended" }, 0);
    open(server, -35);
    assertEquals(streamsOf(server), []);
  });
});

describe("a STUN server cannot be made", () => {
  it("with options that cannot be, and names them", () => {
    const cases: [StunServerOptions, string][] = [
      [{ listen: { address: "x", port: 1 } }, "'listen.address' must be an IP address"],
      [{ listen: { address: A1, port: 65536 } }, "'listen.port'"],
      [{ maxPerSecond: 0 }, "'maxPerSecond'"],
      [{ ...BOTH, alternate: { address: A1, port: 3479 } }, "another address and another port"],
      [{ ...BOTH, alternate: { address: A2, port: 3478 } }, "another address and another port"],
      [{ ...BOTH, alternate: { address: A2, port: 0 } }, "'alternate.port'"],
      [{ ...BOTH, alternate: { address: "x", port: 1 } }, "'alternate.address' must be an IP"],
      [{ ...BOTH, alternate: { address: "::1", port: 1 } }, "must be an IPv4 address"],
      [{ ...BOTH, listen: { address: "0.0.0.0", port: 1 } }, "'listen.address' must be one"],
      [{ ...BOTH, alternate: { address: "0.0.0.0", port: 1 } }, "'alternate.address' must be"],
    ];
    for (const [options, message] of cases) {
      assertThrows(() => new StunServer(options), Error, message);
    }
  });
});
