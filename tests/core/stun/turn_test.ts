import { describe, it } from "node:test";
import { assert, assertEquals, assertThrows } from "@std/assert";
import { toHex } from "../../../core/bytes.ts";
import { encodeStun, STUN_METHOD } from "../../../core/stun/codec.ts";
import type { TurnClientOptions } from "../../../core/stun/turn.ts";
import { CLIENT, SERVER } from "./rig.ts";
import { PEER, RELAYED, TurnRig } from "./turn_rig.ts";

const { ALLOCATE, REFRESH, SEND, CREATE_PERMISSION, CHANNEL_BIND } = STUN_METHOD;
const hello = new TextEncoder().encode("hello");
const refusal = (code: number) => ({ errorCode: { code, reason: "no" } });
const refused = (code: number) => (
  { kind: "refused", code, reason: "no", unknownAttributes: [] } as const
);

describe("a TURN allocation (RFC 8656 §7, §8)", () => {
  it("is asked for with credentials, and told with both addresses", () => {
    const rig = new TurnRig();
    rig.client.allocate(0);
    rig.client.allocate(0);
    rig.drain();
    assertEquals(rig.events, [
      { type: "allocated", relayed: RELAYED, reflexive: CLIENT, lifetimeSeconds: 600 },
    ]);
    assertEquals(rig.heard.length, 1);
    const { attributes, method } = rig.heard[0]!.message;
    assertEquals([method, attributes.requestedTransport, attributes.lifetimeSeconds], [
      ALLOCATE,
      17,
      600,
    ]);
    assertEquals(attributes.requestedAddressFamily, undefined);
  });

  it("asks for the family and the lifetime that are wished for", () => {
    const rig = new TurnRig({ family: 6, lifetimeSeconds: 3600 });
    rig.client.allocate(0);
    rig.drain();
    const { attributes } = rig.heard[0]!.message;
    assertEquals([attributes.requestedAddressFamily, attributes.lifetimeSeconds], [6, 3600]);
  });

  it("is refreshed a minute before its end, half-way where it is short", () => {
    const rig = TurnRig.allocated();
    rig.runUntil(1_700_000);
    assertEquals(rig.times(REFRESH), [540_000, 1_080_000, 1_620_000]);
    assertEquals(rig.events, []);
    const short = new TurnRig();
    short.lifetimeSeconds = 60;
    short.client.allocate(0);
    short.drain();
    short.runUntil(61_000);
    assertEquals(short.times(REFRESH), [30_000, 60_000]);
  });

  it("fails with what the server says, or with its silence", () => {
    const rig = new TurnRig();
    rig.says = () => refusal(486);
    rig.client.allocate(0);
    rig.drain();
    assertEquals(rig.events, [{ type: "failed", failure: refused(486) }]);
    assertEquals(rig.client.nextTimeout(), undefined);
    assert(!rig.client.permit(PEER.address, 0));

    const silent = new TurnRig();
    silent.says = () => "silence";
    silent.client.allocate(0);
    silent.drain();
    silent.runUntil(60_000);
    assertEquals(silent.events, [{ type: "failed", failure: { kind: "no-answer" } }]);

    const gone = new TurnRig();
    gone.client.allocate(0);
    gone.client.handleUnreachable(SERVER, "other", 0);
    gone.client.handleUnreachable(SERVER, "client", 0);
    gone.drain();
    assertEquals(gone.events, [{ type: "failed", failure: { kind: "unreachable" } }]);

    for (const said of [{ lifetimeSeconds: 600 }, { xorRelayedAddress: RELAYED }]) {
      const odd = new TurnRig();
      odd.says = () => said;
      odd.client.allocate(0);
      odd.drain();
      assertEquals(odd.events, [{ type: "failed", failure: { kind: "protocol-violation" } }]);
    }
  });

  it("is over where the server knows it no more, and where its refreshes are not answered", () => {
    const rig = TurnRig.allocated();
    rig.says = ({ method }) => method === REFRESH ? refusal(437) : undefined;
    rig.runUntil(540_000);
    assertEquals(rig.events, [{ type: "failed", failure: refused(437) }]);

    const silent = TurnRig.allocated();
    silent.says = () => "silence";
    silent.runUntil(539_999);
    assertEquals(silent.events.filter(({ type }) => type === "failed"), []);
    silent.runUntil(700_000);
    assertEquals(silent.events.at(-1), { type: "failed", failure: { kind: "no-answer" } });
    assertEquals(silent.client.nextTimeout(), undefined);
  });

  it("is over where the server that made it sends elsewhere: another one knows nothing of it", () => {
    const rig = TurnRig.allocated();
    const alternateServer = { address: "198.51.100.2", port: 3478 };
    rig.says = ({ method }) =>
      method === REFRESH ? { ...refusal(300), alternateServer } : undefined;
    rig.runUntil(545_000);
    const [failed] = rig.events;
    assertEquals(failed?.type === "failed" && failed.failure.kind === "refused", true);
    assertEquals(rig.times(REFRESH), [540_000]);
  });

  it("outlives one refresh that is lost", () => {
    const rig = TurnRig.allocated();
    rig.says = ({ method }) => method === REFRESH && rig.now < 545_000 ? "silence" : undefined;
    rig.runUntil(700_000);
    assert(rig.events.every(({ type }) => type !== "failed"));
  });

  it("takes up a new nonce", () => {
    const rig = TurnRig.allocated();
    rig.nonce = "n2";
    rig.runUntil(600_000);
    assertEquals(rig.times(REFRESH), [540_000]);
    assertEquals(rig.events, []);
  });

  it("follows a redirection, and stays with that server", () => {
    const other = { address: "198.51.100.2", port: 3478 };
    const rig = new TurnRig();
    let isFirst = true;
    rig.says = ({ method, integrityAt }) => {
      if (method !== ALLOCATE || integrityAt === 0 || !isFirst) return undefined;
      isFirst = false;
      return { ...refusal(300), alternateServer: other };
    };
    rig.client.allocate(0);
    rig.client.permit(PEER.address, 0);
    rig.drain();
    assertEquals(rig.events.map(({ type }) => type), ["allocated", "permitted"]);
    assert(!rig.indicate(PEER, hello));
    assert(rig.indicate(PEER, hello, other));
    assertEquals(rig.events.at(-1), { type: "data", from: PEER, data: hello });
  });

  it("is given back where it is closed, and nothing is told afterwards", () => {
    const rig = TurnRig.allocated();
    rig.client.close(1);
    rig.drain();
    assertEquals(
      rig.heard.map(({ message }) => [
        message.method,
        message.attributes.lifetimeSeconds,
      ]),
      [[REFRESH, 0]],
    );
    assertEquals([rig.events, rig.client.nextTimeout()], [[], undefined]);
    assert(!rig.indicate(PEER, hello));
    assert(!rig.client.send(PEER, hello, 2));
    rig.client.close(3);
    rig.drain();
    assertEquals(rig.heard.length, 1);
  });
});

describe("TURN permissions (RFC 8656 §9)", () => {
  it("are asked for, told, and renewed every four minutes", () => {
    const rig = TurnRig.allocated();
    rig.now = 10_000;
    assert(rig.client.permit("192.0.2.10", rig.now));
    assert(rig.client.permit("192.0.2.10", rig.now));
    rig.drain();
    assertEquals(rig.events, [{ type: "permitted", address: "192.0.2.10" }]);
    rig.runUntil(500_000);
    const asked = rig.heard.filter(({ message }) => message.method === CREATE_PERMISSION)
      .map(({ at, message }) => [
        at,
        message.attributes.xorPeerAddresses!.map(({ address }) => address).join(" "),
      ]);
    assertEquals(asked, [
      [10_000, "192.0.2.10"],
      [240_000, "192.0.2.9 192.0.2.10"],
      [480_000, "192.0.2.9 192.0.2.10"],
    ]);
    assertEquals(rig.events.length, 1);
  });

  it("are remembered before there is an allocation", () => {
    const rig = new TurnRig();
    rig.client.permit("192.0.2.10", 0);
    rig.client.allocate(0);
    rig.drain();
    assertEquals(rig.events.map(({ type }) => type), ["allocated", "permitted"]);
  });

  it("that are refused are told of, one by one", () => {
    const rig = TurnRig.allocated();
    rig.client.permit("192.0.2.10", 0);
    rig.drain();
    rig.events = [];
    rig.says = ({ method, attributes }) =>
      method === CREATE_PERMISSION &&
        attributes.xorPeerAddresses!.some(({ address }) => address === "192.0.2.10")
        ? refusal(403)
        : undefined;
    rig.runUntil(241_000);
    assertEquals(rig.events, [
      { type: "refused", address: "192.0.2.10", failure: refused(403) },
    ]);
    assert(rig.client.send(PEER, hello, rig.now));
    assert(!rig.client.send({ address: "192.0.2.10", port: 1 }, hello, rig.now));
  });

  it("that are not renewed run out after five minutes", () => {
    const rig = TurnRig.allocated();
    rig.says = ({ method }) => method === CREATE_PERMISSION ? "silence" : undefined;
    rig.runUntil(299_999);
    assertEquals(rig.events, []);
    assert(rig.indicate(PEER, hello));
    assertEquals(rig.events.length, 1);
    rig.now = 300_000;
    rig.indicate(PEER, hello);
    assertEquals(rig.events.length, 1);
    // Ten seconds after each silence it is asked anew.
    const asked = [...new Set(rig.heard.map(({ message }) => toHex(message.transactionId)))];
    assert(asked.length >= 3 && asked.length <= 6, `${asked.length}`);
    rig.runUntil(400_000);
    assertEquals(rig.events.at(-1), {
      type: "refused",
      address: PEER.address,
      failure: { kind: "no-answer" },
    });
    rig.indicate(PEER, hello);
    assertEquals(rig.client.stats.dropped["not-permitted"], 2);
  });

  it("are no more than 256", () => {
    const rig = new TurnRig();
    for (let i = 0; i < 256; i++) assert(rig.client.permit(`10.0.${i >> 4}.${i & 15}`, 0));
    assert(!rig.client.permit("10.1.0.0", 0));
    rig.client.allocate(0);
    rig.drain();
    assertEquals(rig.events.filter(({ type }) => type === "permitted").length, 256);
    assertEquals(rig.times(CREATE_PERMISSION).length, 32);
  });
});

describe("data by a TURN relay", () => {
  it("goes in indications, and comes so", () => {
    const rig = TurnRig.allocated();
    assert(rig.client.send(PEER, hello, 0));
    rig.drain();
    const { message } = rig.heard[0]!;
    assertEquals([message.class, message.method], ["indication", SEND]);
    assertEquals(message.attributes, { xorPeerAddresses: [PEER], data: hello });
    assert(rig.indicate({ ...PEER, port: 1 }, hello));
    assertEquals(rig.events, [{ type: "data", from: { ...PEER, port: 1 }, data: hello }]);
    assertEquals(rig.client.stats.relayed, { sent: 1, received: 1 });
  });

  it("goes by a channel that is bound, and comes so (RFC 8656 §12)", () => {
    const rig = TurnRig.allocated();
    assert(rig.client.bindChannel(PEER, 0));
    assert(rig.client.bindChannel(PEER, 0));
    rig.drain();
    const { message } = rig.heard[0]!;
    assertEquals([message.method, message.attributes.channelNumber], [CHANNEL_BIND, 0x4000]);
    assertEquals(message.attributes.xorPeerAddresses, [PEER]);
    rig.client.send(PEER, hello, 0);
    rig.client.send({ ...PEER, port: 1 }, hello, 0);
    rig.drain();
    assertEquals(rig.channelled, [{ number: 0x4000, data: hello }]);
    assertEquals(rig.times(SEND).length, 1);
    // Over UDP it may be padded.
    assert(rig.channel(0x4000, Uint8Array.of(1, 2, 3, 0), 3));
    assertEquals(rig.events, [{ type: "data", from: PEER, data: Uint8Array.of(1, 2, 3) }]);
  });

  it("goes by its own channel to each peer, which is renewed before ten minutes are over", () => {
    const rig = TurnRig.allocated();
    rig.client.bindChannel(PEER, 0);
    rig.client.bindChannel({ address: "192.0.2.10", port: 1 }, 0);
    rig.drain();
    assertEquals(rig.events, [{ type: "permitted", address: "192.0.2.10" }]);
    rig.runUntil(600_000);
    const bound = rig.heard.filter(({ message }) => message.method === CHANNEL_BIND)
      .map(({ at, message }) => `${at} ${message.attributes.channelNumber}`);
    assertEquals(bound.sort(), ["0 16384", "0 16385", "540000 16384", "540000 16385"]);
  });

  it("goes in indications where a channel is refused or not renewed", () => {
    const rig = TurnRig.allocated();
    rig.says = ({ method }) => method === CHANNEL_BIND ? refusal(400) : undefined;
    rig.client.bindChannel(PEER, 0);
    rig.drain();
    rig.client.send(PEER, hello, 0);
    rig.drain();
    assertEquals([rig.channelled, rig.times(SEND).length, rig.events], [[], 1, []]);
  });

  it("goes nowhere where the server knows nothing of the allocation that a channel is for", () => {
    const rig = TurnRig.allocated();
    rig.says = ({ method }) => method === CHANNEL_BIND ? refusal(437) : undefined;
    rig.client.bindChannel(PEER, 0);
    rig.drain();
    assertEquals(rig.events, [{ type: "failed", failure: refused(437) }]);
    assertEquals([rig.client.send(PEER, hello, 0), rig.client.nextTimeout()], [false, undefined]);
    assertEquals([rig.client.permit(PEER.address, 0), rig.client.bindChannel(PEER, 0)], [
      false,
      false,
    ]);
  });

  it("has as many channels as there are numbers for, 4096", () => {
    const rig = TurnRig.allocated();
    const bound = Array.from(
      { length: 4097 },
      (_, i) => rig.client.bindChannel({ ...PEER, port: i + 1 }, 0),
    );
    assertEquals([bound.indexOf(false), bound.lastIndexOf(true)], [4096, 4095]);
  });

  it("is taken from permitted addresses of the server's alone, and whole", () => {
    const rig = TurnRig.allocated();
    rig.client.bindChannel(PEER, 0);
    rig.drain();
    assert(!rig.indicate(PEER, hello, { ...SERVER, port: 9 }));
    assert(!rig.client.handleDatagram(hello, SERVER, "other", 0));
    assert(!rig.feed(hello));
    assert(rig.indicate({ address: "192.0.2.77", port: 1 }, hello));
    assert(rig.channel(0x4001, hello));
    assert(rig.channel(0x4000, hello, 6));
    assertEquals(rig.events, []);
    assertEquals(rig.client.stats.dropped, { "not-permitted": 1, malformed: 2 });
    for (const attributes of [{ xorPeerAddresses: [PEER] }, { data: hello }]) {
      const transactionId = new Uint8Array(12);
      const class_ = { class: "indication", method: STUN_METHOD.DATA, transactionId } as const;
      assert(rig.feed(encodeStun({ ...class_, attributes })));
    }
    assertEquals([rig.events, rig.client.stats.dropped.malformed], [[], 4]);
  });

  it("is a copy", () => {
    const rig = TurnRig.allocated();
    rig.client.bindChannel(PEER, 0);
    rig.drain();
    const bytes = Uint8Array.of(0x40, 0, 0, 2, 8, 9);
    rig.feed(bytes);
    bytes.fill(0);
    rig.drain();
    assertEquals(rig.events, [{ type: "data", from: PEER, data: Uint8Array.of(8, 9) }]);
  });

  it("goes by the socket that is named, as all else does", () => {
    const rig = TurnRig.allocated({ socket: "ice0" });
    rig.client.bindChannel(PEER, 0);
    rig.drain();
    rig.client.send(PEER, hello, 0);
    rig.drain();
    assertEquals([...rig.sockets], ["ice0"]);
  });

  it("goes by a channel again once that is renewed after a silence", () => {
    const rig = TurnRig.allocated();
    rig.client.bindChannel(PEER, 0);
    rig.drain();
    rig.says = ({ method }) => method === CHANNEL_BIND ? "silence" : undefined;
    rig.runUntil(560_000);
    rig.client.send(PEER, hello, rig.now);
    rig.drain();
    assertEquals([rig.channelled.length, rig.times(SEND).length], [0, 1]);
    rig.says = () => undefined;
    rig.runUntil(580_000);
    rig.client.send(PEER, hello, rig.now);
    rig.drain();
    assertEquals(rig.channelled.length, 1);
    assert(rig.times(CHANNEL_BIND).at(-1)! > 560_000);
  });

  it("asks for its channel again ten seconds after seven requests in vain", () => {
    const rig = TurnRig.allocated();
    rig.client.bindChannel(PEER, 0);
    rig.drain();
    rig.says = ({ method }) => method === CHANNEL_BIND ? "silence" : undefined;
    // At 100 ms a round trip the last one leaves after 6.3 s, and has its 1.6 s.
    rig.runUntil(557_899);
    assertEquals(rig.times(CHANNEL_BIND).at(-1), 546_300);
    rig.runUntil(557_900);
    assertEquals(rig.times(CHANNEL_BIND).at(-1), 557_900);
  });

  it("is not sent where it may not be", () => {
    const rig = new TurnRig();
    assert(!rig.client.send(PEER, hello, 0));
    assert(!rig.client.bindChannel(PEER, 0));
    const allocated = TurnRig.allocated();
    assert(!allocated.client.send({ address: "192.0.2.77", port: 1 }, hello, 0));
    allocated.drain();
    assertEquals(allocated.heard, []);
  });
});

describe("a TURN client cannot be made or used", () => {
  it("with what cannot be, and names it", () => {
    const cases: [Partial<TurnClientOptions>, string][] = [
      [{ server: { address: "x", port: 1 } }, "'server.address' must be an IP address"],
      [{ server: { ...SERVER, port: 0 } }, "'server.port'"],
      [{ lifetimeSeconds: 59 }, "'lifetimeSeconds' must be an integer in 60..3600"],
    ];
    for (const [options, message] of cases) {
      assertThrows(() => new TurnRig(options), Error, message);
    }
    const { client } = TurnRig.allocated();
    assertThrows(() => client.permit("x", 0), TypeError, "'address'");
    assertThrows(() => client.send({ ...PEER, port: 0 }, hello, 0), RangeError, "'peer.port'");
    assertThrows(() => client.send(PEER, new Uint8Array(65_001), 0), RangeError, "'data.length'");
    assertThrows(
      () => client.bindChannel({ address: "x", port: 1 }, 0),
      TypeError,
      "'peer.address'",
    );
  });
});
