import { describe, it } from "node:test";
import { assert, assertEquals, assertThrows } from "@std/assert";
import { toHex } from "../../../core/bytes.ts";
import {
  encodeStun,
  hasIntegrity,
  STUN_METHOD,
  type StunAttributes,
} from "../../../core/stun/codec.ts";
import { longTermKey, shortTermKey, userhash } from "../../../core/stun/integrity.ts";
import { CLIENT, Rig, SERVER } from "./rig.ts";

const mapped = { xorMappedAddress: CLIENT };
const shortTerm = { type: "short-term", username: "evtj:h6vY", password: "secret" } as const;
const longTerm = { type: "long-term", username: "user", password: "pass" } as const;
const MD5 = { number: 1, parameters: new Uint8Array(0) };
const SHA256 = { number: 2, parameters: new Uint8Array(0) };
/** Nonces with the features of RFC 8489 §18.1: none, password algorithms, and anonymity too. */
const PLAIN = "obMatJos2AAAA-1", ALGORITHMS = "obMatJos2gAAA-1", ANONYMOUS = "obMatJos2wAAA-1";

describe("a Binding request", () => {
  it("tells the address that the server saw, and ends with that", () => {
    const rig = new Rig();
    const id = rig.ask();
    assertEquals(rig.last.attributes, { software: "natkit" });
    assertEquals([rig.sent[0]!.to, rig.sent[0]!.socket], [SERVER, "client"]);
    rig.now = 30;
    assert(rig.answer(mapped));
    assertEquals(rig.events, [{
      type: "answered",
      id,
      from: SERVER,
      server: SERVER,
      socket: "client",
      local: undefined,
      attributes: mapped,
      roundTripMs: 30,
    }]);
    assertEquals(rig.client.nextTimeout(), undefined);
    assert(!rig.answer(mapped), "an answer that comes twice is nobody's");
    assertEquals(rig.events.length, 1);
  });

  it("STUN-07 is sent at 0, 500, 1500, 3500, 7500, 15500, 31500 ms and fails at 39500", () => {
    const rig = new Rig();
    rig.ask();
    rig.runUntil(39_499);
    assertEquals(rig.sent.map(({ at }) => at), [0, 500, 1500, 3500, 7500, 15_500, 31_500]);
    assertEquals(new Set(rig.sent.map(({ message }) => toHex(message.bytes))).size, 1);
    assertEquals(rig.events, []);
    rig.runUntil(39_500);
    assertEquals(rig.failure, { kind: "no-answer" });
    assertEquals(rig.client.nextTimeout(), undefined);
  });

  it("is sent less often where that is asked for", () => {
    const rig = new Rig();
    rig.ask({ maxSends: 2, lastWait: 3 });
    rig.runUntil(2000);
    assertEquals(rig.sent.map(({ at }) => at), [0, 500]);
    assertEquals(rig.events.length, 1);
  });

  it("STUN-07 remembers the server's round trip, of requests that were sent once", () => {
    const rig = new Rig();
    rig.ask();
    rig.now = 200;
    rig.answer(mapped);
    // RFC 6298: 200 + 4 · 100.
    rig.ask();
    rig.runUntil(200 + 599);
    assertEquals(rig.sent.length, 2);
    rig.runUntil(200 + 600);
    assertEquals(rig.sent.length, 3);
    // Karn: this answer may be to either.
    rig.now += 5000;
    rig.answer(mapped);
    assertEquals(rig.events.at(-1)!.type, "answered");
    rig.ask();
    const from = rig.now;
    rig.runUntil(from + 600);
    assertEquals(rig.sent.map(({ at }) => at - from).slice(3), [0, 600]);
    rig.answer(mapped);
    // Another sample moves it: smoothed 190, variance 95.
    rig.ask();
    rig.now += 120;
    rig.answer(mapped);
    const again = rig.now;
    rig.ask();
    rig.runUntil(again + 570);
    assertEquals(rig.sent.at(-1)!.at, again + 570);
  });

  it("STUN-07 forgets the round trip after ten minutes", () => {
    const rig = new Rig();
    rig.ask();
    rig.now = 10;
    rig.answer(mapped);
    rig.now = 599_000;
    rig.ask();
    rig.runUntil(599_100);
    assertEquals(rig.sent.length, 3, "no less than 100 ms");
    rig.answer(mapped);
    rig.now = 600_010;
    rig.ask();
    rig.runUntil(600_509);
    assertEquals(rig.sent.length, 4);
    rig.runUntil(600_510);
    assertEquals(rig.sent.length, 5);
  });

  it("fails at once where ICMP says that nobody is there", () => {
    const rig = new Rig();
    rig.ask();
    rig.client.handleUnreachable({ ...SERVER, port: 1 }, "client", 1);
    rig.client.handleUnreachable(SERVER, "other", 1);
    rig.drain();
    assertEquals(rig.events, []);
    rig.client.handleUnreachable(SERVER, "client", 1);
    rig.drain();
    assertEquals(rig.failure, { kind: "unreachable" });
  });

  it("ends as closed where it is given up, once", () => {
    const rig = new Rig();
    const id = rig.ask();
    rig.ask();
    rig.client.cancel(id, 1);
    rig.client.cancel(id, 1);
    rig.client.close(2);
    rig.drain();
    assertEquals(rig.events.map((event) => event.type), ["failed", "failed"]);
    assertEquals(rig.failure, { kind: "closed" });
    assertEquals(rig.client.nextTimeout(), undefined);
  });

  it("is not sent any more where it was given up before anybody drained", () => {
    const rig = new Rig();
    rig.client.cancel(rig.client.request({ server: SERVER }, 0), 0);
    rig.drain();
    assertEquals(rig.sent, []);
  });

  it("waits where ten are under way to one server, and not for another's", () => {
    const rig = new Rig();
    for (let i = 0; i < 12; i++) rig.ask();
    assertEquals(rig.sent.length, 10);
    rig.ask({ server: { address: "198.51.100.9", port: 3478 } });
    assertEquals(rig.sent.length, 11);
    const first = rig.sent[0]!;
    rig.answer(mapped, { to: first.message, from: SERVER });
    assertEquals(rig.sent.length, 12);
    rig.ask();
    assertEquals(rig.sent.length, 12, "ten are under way again");
    const other = new Rig();
    for (let i = 0; i < 2; i++) other.ask();
    for (const { message } of [...other.sent]) other.answer(mapped, { to: message, from: SERVER });
    for (let i = 0; i < 11; i++) other.ask();
    assertEquals(other.sent.length, 2 + 10);
    rig.client.close(0);
    rig.drain();
    assertEquals(rig.events.length, 14);
    assertEquals(rig.sent.length, 12);
  });

  it("is never sent where it was given up while it waited", () => {
    const rig = new Rig();
    for (let i = 0; i < 11; i++) rig.ask();
    rig.client.cancel(11, 0);
    rig.answer(mapped, { to: rig.sent[0]!.message, from: SERVER });
    assertEquals(rig.events.map(({ id, type }) => [id, type]), [[11, "failed"], [1, "answered"]]);
    assertEquals(rig.sent.length, 10);
  });

  it("takes no other's turn with it where it is given up while it waited", () => {
    const rig = new Rig();
    for (let i = 0; i < 10; i++) rig.ask();
    const waiting = [1, 2, 3].map(() => rig.ask());
    rig.client.cancel(waiting[0]!, rig.now);
    rig.drain();
    assertEquals(rig.sent.length, 10);
    for (const i of [0, 1]) rig.answer(mapped, { to: rig.sent[i]!.message });
    assertEquals(rig.sent.length, 12);
    for (const i of [10, 11]) rig.answer(mapped, { to: rig.sent[i]!.message });
    const answered = rig.events.filter(({ type }) => type === "answered").map(({ id }) => id);
    assertEquals(answered.slice(2), waiting.slice(1));
  });

  it("has an id on the wire that no other has", () => {
    const rig = new Rig();
    for (let i = 0; i < 10; i++) rig.ask();
    assertEquals(new Set(rig.sent.map(({ message }) => toHex(message.transactionId))).size, 10);
  });

  it("carries a fingerprint and its own words where that is asked for", () => {
    const rig = new Rig({ software: "" });
    rig.ask({ fingerprint: true, attributes: { priority: 7 } });
    assert(rig.last.hasFingerprint);
    assertEquals(rig.last.attributes, { priority: 7 });
  });

  it("cannot be made of what is none, and is then not begun", () => {
    const rig = new Rig();
    assertThrows(
      () => rig.ask({ server: { address: "example.org", port: 1 } }),
      TypeError,
      "'server.address' must be an IP address",
    );
    assertThrows(() => rig.ask({ server: { ...SERVER, port: 0 } }), RangeError, "'server.port'");
    assertThrows(() => rig.ask({ maxSends: 0 }), RangeError, "'maxSends'");
    assertThrows(() => rig.ask({ lastWait: 65 }), RangeError, "'lastWait'");
    assertThrows(() => rig.ask({ attributes: { priority: -1 } }), RangeError, "'priority'");
    assertThrows(() => rig.ask({ credentials: { ...longTerm, password: "" } }), TypeError);
    assertThrows(() => new Rig({ initialRtoMs: 0 }), RangeError, "'initialRtoMs'");
    assertThrows(() => new Rig({ initialRtoMs: 60_001 }), RangeError, "'initialRtoMs'");
    for (const initialRtoMs of [1, 60_000]) new Rig({ initialRtoMs });
    assertEquals(rig.client.nextTimeout(), undefined);
    assertEquals(rig.ask(), 1);
  });
});

describe("what comes", () => {
  it("from another source, or by another socket, is not believed", () => {
    const rig = new Rig();
    rig.ask();
    assert(rig.answer(mapped, { from: { ...SERVER, port: 3479 } }));
    assert(rig.answer(mapped, { from: { ...SERVER, address: "198.51.100.2" } }));
    assert(rig.answer(mapped, { socket: "other" }));
    assertEquals(rig.events, []);
    assertEquals(rig.client.stats.dropped["wrong-source"], 3);
    assert(rig.answer(mapped));
    assertEquals(rig.events.length, 1);
  });

  it("from elsewhere is believed where that was asked for (RFC 5780)", () => {
    const rig = new Rig();
    const attributes = { changeRequest: { address: true, port: true } };
    rig.ask({ attributes });
    const other = { address: "198.51.100.2", port: 3479 };
    rig.answer(mapped, { from: other });
    assertEquals(rig.events.map((event) => event.type === "answered" && event.from), [other]);
    rig.ask({ attributes: { responsePort: 5000 } });
    rig.answer(mapped, { socket: "second" });
    assertEquals(rig.events.map((event) => event.type === "answered" && event.socket), [
      "client",
      "second",
    ]);
  });

  it("without an answer's class, id or method is left to others", () => {
    const rig = new Rig();
    rig.ask();
    const { transactionId } = rig.last;
    const feed = (bytes: Uint8Array) => rig.client.handleDatagram(bytes, SERVER, "client", 0);
    assert(!feed(new Uint8Array(30)));
    assert(!feed(encodeStun({ class: "request", method: 1, transactionId })));
    assert(!feed(encodeStun({ class: "indication", method: 1, transactionId })));
    assert(!feed(encodeStun({ class: "success", method: 1, transactionId: new Uint8Array(12) })));
    feed(encodeStun({ class: "success", method: 3, transactionId, attributes: mapped }));
    assertEquals(rig.events, []);
    assertEquals(rig.client.stats.dropped, {
      malformed: 1,
      "no-answer": 2,
      unknown: 2,
      "wrong-source": 0,
      integrity: 0,
    });
  });

  it("STUN-06 must have a mapped address, be it in clear", () => {
    const rig = new Rig();
    rig.ask();
    rig.answer({ mappedAddress: CLIENT });
    assertEquals(rig.events.at(-1)!.type, "answered");
    rig.ask();
    rig.answer({ software: "x" });
    assertEquals(rig.failure, { kind: "protocol-violation" });
    rig.ask({ method: STUN_METHOD.REFRESH });
    rig.answer({ lifetimeSeconds: 600 });
    assertEquals(rig.events.at(-1)!.type, "answered");
  });

  it("STUN-05 fails with what must be understood and is not, in success and error", () => {
    for (const kind of ["success", "error"] as const) {
      const rig = new Rig();
      rig.ask();
      const { method, transactionId } = rig.last;
      rig.client.handleDatagram(
        encodeStun({
          class: kind,
          method,
          transactionId,
          attributes: { ...mapped, errorCode: { code: 400, reason: "" } },
          unknown: [{ type: 0x7777, value: new Uint8Array(0) }],
        }),
        SERVER,
        "client",
        0,
      );
      rig.drain();
      assertEquals(rig.failure, { kind: "protocol-violation" });
    }
  });

  it("is copied into events", () => {
    const rig = new Rig();
    rig.ask({ method: STUN_METHOD.ALLOCATE });
    const { method, transactionId } = rig.last;
    const bytes = encodeStun({
      class: "success",
      method,
      transactionId,
      attributes: {
        data: Uint8Array.of(1, 2),
        passwordAlgorithms: [{ ...MD5, parameters: Uint8Array.of(3) }],
      },
    });
    rig.client.handleDatagram(bytes, SERVER, "client", 0);
    bytes.fill(0);
    rig.drain();
    assertEquals(rig.answered.attributes, {
      data: Uint8Array.of(1, 2),
      passwordAlgorithms: [{ number: 1, parameters: Uint8Array.of(3) }],
    });
  });
});

describe("errors", () => {
  it("STUN-08 fail with code and words; 420 with what is not known", () => {
    const rig = new Rig();
    rig.ask();
    rig.refuse(420, { unknownAttributes: [0x7777] });
    assertEquals(rig.failure, {
      kind: "refused",
      code: 420,
      reason: "no",
      unknownAttributes: [0x7777],
    });
    rig.ask();
    rig.answer({}, { of: "error" });
    assertEquals(rig.failure, { kind: "protocol-violation" });
  });

  it("STUN-08 of the server's own are tried again four times, ever later", () => {
    const rig = new Rig();
    rig.ask();
    const times: number[] = [];
    for (let i = 0; i < 5; i++) {
      times.push(rig.sent.at(-1)!.at);
      assertEquals(rig.events, []);
      rig.refuse(500);
      rig.runUntil(rig.client.nextTimeout() ?? rig.now);
    }
    assertEquals(times, [0, 500, 1500, 3500, 7500]);
    assertEquals(rig.failure, { kind: "refused", code: 500, reason: "no", unknownAttributes: [] });
    assertEquals(new Set(rig.sent.map(({ message }) => toHex(message.transactionId))).size, 5);
  });

  it("STUN-08 of the server's own go up to 599, and what comes meanwhile is no answer", () => {
    const rig = new Rig();
    rig.ask();
    rig.refuse(599);
    assertEquals([rig.answer(mapped), rig.events], [false, []]);
    rig.runUntil(500);
    rig.refuse(600);
    assertEquals(rig.failure, { kind: "refused", code: 600, reason: "no", unknownAttributes: [] });
  });

  it("STUN-08 300 sends it elsewhere, with a new id, and tells where it was answered", () => {
    const rig = new Rig();
    rig.ask();
    const other = { address: "198.51.100.2", port: 3500 };
    rig.now = 30;
    rig.refuse(300, { alternateServer: other });
    assertEquals(rig.sent.at(-1)!.to, other);
    assertEquals(rig.client.stats.errors, 1);
    assert(toHex(rig.sent[0]!.message.transactionId) !== toHex(rig.last.transactionId));
    rig.now = 50;
    rig.answer(mapped);
    assertEquals([rig.answered.from, rig.answered.server], [other, other]);
    assertEquals(rig.answered.roundTripMs, 20, "of the server that answered");
  });

  it("STUN-08 300 that comes before a retransmission was drained takes that back", () => {
    const rig = new Rig();
    rig.ask();
    const { transactionId } = rig.last;
    rig.client.handleTimeout(500);
    const attributes = {
      errorCode: { code: 300, reason: "" },
      alternateServer: { address: "198.51.100.2", port: 3500 },
    };
    const bytes = encodeStun({ class: "error", method: 1, transactionId, attributes });
    rig.client.handleDatagram(bytes, SERVER, "client", 501);
    rig.drain();
    assertEquals(rig.sent.map(({ to }) => to.port), [SERVER.port, 3500]);
  });

  it("300 to a server that is asked ten things already waits for its turn", () => {
    const rig = new Rig();
    const other = { address: "198.51.100.2", port: 3500 };
    for (let i = 0; i < 10; i++) rig.ask({ server: other });
    rig.ask();
    rig.refuse(300, { alternateServer: other });
    const askedThere = () =>
      new Set(
        rig.sent.filter(({ to }) => to.address === other.address)
          .map(({ message }) => toHex(message.transactionId)),
      ).size;
    rig.runUntil(5000);
    assertEquals(askedThere(), 10);
    rig.answer(mapped);
    assertEquals(askedThere(), 11);
  });

  it("STUN-08 300 in a circle, without end, to port 0 or without a server fails", () => {
    const refused = { kind: "refused", code: 300, reason: "no", unknownAttributes: [] };
    const circle = new Rig();
    circle.ask();
    circle.refuse(300, { alternateServer: { address: "198.51.100.2", port: 1 } });
    circle.refuse(300, { alternateServer: SERVER });
    assertEquals(circle.failure, refused);

    const chain = new Rig();
    chain.ask();
    for (let port = 1; port < 10; port++) {
      chain.refuse(300, { alternateServer: { address: "198.51.100.2", port } });
    }
    assertEquals(chain.failure, refused);
    assertEquals(chain.sent.length, 5);
    assertEquals(chain.client.nextTimeout(), undefined);

    for (const more of [{}, { alternateServer: { address: "198.51.100.2", port: 0 } }]) {
      const rig = new Rig();
      rig.ask();
      rig.refuse(300, more);
      assertEquals(rig.failure, refused);
    }
    // Our socket has no way there, or nobody can be there.
    for (const address of ["2001:db8::1", "224.0.0.1", "255.255.255.255", "0.0.0.0", "127.0.0.1"]) {
      const rig = new Rig();
      rig.ask();
      rig.refuse(300, { alternateServer: { address, port: 3478 } });
      assertEquals([rig.failure, rig.sent.length], [refused, 1], address);
    }
    const told = new Rig();
    told.ask({ followsRedirects: false });
    told.refuse(300, { alternateServer: { address: "198.51.100.2", port: 1 } });
    assertEquals(told.failure, refused);
  });
});

describe("short-term credentials (RFC 8489 §9.1)", () => {
  const key = shortTermKey("secret");

  it("STUN-13 go with both integrities, then with the one that the server answered", () => {
    for (const integrity of ["sha1", "sha256"] as const) {
      const rig = new Rig();
      rig.ask({ credentials: shortTerm });
      assertEquals(rig.last.attributes.username, "evtj:h6vY");
      assert(hasIntegrity(rig.last, key, "sha1") && hasIntegrity(rig.last, key, "sha256"));
      rig.answer(mapped, { seal: { key, integrity } });
      assertEquals(rig.events.length, 1);
      rig.ask({ credentials: shortTerm });
      assertEquals(rig.last.integrityAt > 0, integrity === "sha1");
      assertEquals(rig.last.integritySha256At > 0, integrity === "sha256");
      // The other one is no answer to that.
      rig.answer(mapped, { seal: { key, integrity: integrity === "sha1" ? "sha256" : "sha1" } });
      assertEquals(rig.events.length, 1);
      rig.answer(mapped, { seal: { key, integrity } });
      assertEquals(rig.events.length, 2);
    }
  });

  it("STUN-12 drop answers without them or with others', and say so at the end", () => {
    const rig = new Rig();
    rig.ask({ credentials: shortTerm });
    assert(rig.answer(mapped));
    assert(rig.answer(mapped, { seal: { key: shortTermKey("guess"), integrity: "sha256" } }));
    assert(rig.refuse(401));
    assertEquals(rig.events, []);
    assertEquals(rig.client.stats.dropped.integrity, 3);
    rig.runUntil(39_500);
    assertEquals(rig.sent.length, 7);
    assertEquals(rig.failure, { kind: "integrity" });
  });

  it("STUN-12 are believed though a forger came first", () => {
    const rig = new Rig();
    rig.ask({ credentials: shortTerm });
    rig.answer({ xorMappedAddress: { address: "192.0.2.66", port: 1 } });
    rig.answer(mapped, { seal: { key } });
    assertEquals(rig.answered.attributes, mapped);
  });
});

describe("long-term credentials (RFC 8489 §9.2)", () => {
  const challenge = { realm: "example.org", nonce: "old-style" };
  const key = longTermKey("user", "example.org", "pass");

  it("STUN-12 wait for the challenge, then go with MESSAGE-INTEGRITY, as RFC 5389 has it", () => {
    const rig = new Rig();
    rig.ask({ credentials: longTerm });
    assertEquals(rig.last.attributes, { software: "natkit" });
    assertEquals(rig.last.integrityAt, 0);
    const first = toHex(rig.last.transactionId);
    rig.refuse(401, challenge);
    assert(toHex(rig.last.transactionId) !== first);
    assertEquals(rig.last.attributes, { software: "natkit", username: "user", ...challenge });
    assert(hasIntegrity(rig.last, key, "sha1"));
    assertEquals(rig.last.integritySha256At, 0);
    rig.answer(mapped);
    assertEquals(rig.events, [], "without integrity it is nobody's word");
    rig.answer(mapped, { seal: { key } });
    assertEquals(rig.events.length, 1);
    // The next one need not be challenged.
    rig.ask({ credentials: longTerm });
    assertEquals(rig.last.attributes.nonce, "old-style");
    assert(hasIntegrity(rig.last, key));
  });

  it("by SHA-256 where the server lists it, first of those that are known", () => {
    const rig = new Rig();
    rig.ask({ credentials: longTerm });
    const passwordAlgorithms = [{ number: 77, parameters: Uint8Array.of(1) }, SHA256, MD5];
    rig.refuse(401, { realm: "example.org", nonce: ALGORITHMS, passwordAlgorithms });
    const sha256Key = longTermKey("user", "example.org", "pass", "SHA-256");
    assertEquals(rig.last.attributes.passwordAlgorithms, passwordAlgorithms);
    assertEquals(rig.last.attributes.passwordAlgorithm, SHA256);
    assertEquals(rig.last.attributes.username, "user");
    assert(hasIntegrity(rig.last, sha256Key, "sha256"));
    assertEquals(rig.last.integrityAt, 0, "MESSAGE-INTEGRITY-SHA256 only");
    rig.answer(mapped, { seal: { key: sha256Key, integrity: "sha1" } });
    assertEquals(rig.events, []);
    rig.answer(mapped, { seal: { key: sha256Key, integrity: "sha256" } });
    assertEquals(rig.events.length, 1);
  });

  it("keep copies of what the server lists: the datagram is lent", () => {
    const rig = new Rig();
    rig.ask({ credentials: longTerm });
    const passwordAlgorithms = [{ number: 77, parameters: Uint8Array.of(1) }, SHA256];
    const challenge = encodeStun({
      class: "error",
      method: 1,
      transactionId: rig.last.transactionId,
      attributes: {
        errorCode: { code: 401, reason: "" },
        realm: "example.org",
        nonce: ALGORITHMS,
        passwordAlgorithms,
      },
    });
    rig.client.handleDatagram(challenge, SERVER, "client", 0);
    challenge.fill(0);
    rig.ask({ credentials: longTerm });
    assertEquals(rig.last.attributes.passwordAlgorithms, passwordAlgorithms);
  });

  it("by MD5 where the server likes that better", () => {
    const rig = new Rig();
    rig.ask({ credentials: longTerm });
    const passwordAlgorithms = [MD5, SHA256];
    rig.refuse(401, { realm: "example.org", nonce: ALGORITHMS, passwordAlgorithms });
    assertEquals(rig.last.attributes.passwordAlgorithm, MD5);
    assert(hasIntegrity(rig.last, key, "sha256"));
  });

  it("by the hash of the name where the server wants nobody to read it", () => {
    const rig = new Rig();
    rig.ask({ credentials: longTerm });
    rig.refuse(401, {
      realm: "example.org",
      nonce: ANONYMOUS,
      passwordAlgorithms: [SHA256],
    });
    assertEquals(rig.last.attributes.username, undefined);
    assertEquals(rig.last.attributes.userhash, userhash("user", "example.org"));
  });

  it("STUN-11 are not sent to who hides the algorithms that its nonce promises", () => {
    const rig = new Rig();
    rig.ask({ credentials: longTerm });
    rig.refuse(401, { realm: "example.org", nonce: ALGORITHMS });
    assertEquals(rig.failure, { kind: "bid-down" });
    assertEquals(rig.sent.length, 1);
  });

  it("STUN-11 drop another answer that hides them", () => {
    const rig = new Rig();
    rig.ask({ credentials: longTerm });
    rig.answer({ ...mapped, nonce: ALGORITHMS });
    assertEquals(rig.events, []);
    rig.answer({ ...mapped, nonce: PLAIN });
    assertEquals(rig.events.length, 1);
  });

  it("are refused where no algorithm is known, or the challenge lacks its parts", () => {
    for (
      const more of [
        { realm: "example.org", nonce: ALGORITHMS, passwordAlgorithms: [{ ...MD5, number: 9 }] },
        { realm: "example.org" },
        { nonce: PLAIN },
      ]
    ) {
      const rig = new Rig();
      rig.ask({ credentials: longTerm });
      rig.refuse(401, more);
      assertEquals(rig.failure, {
        kind: "refused",
        code: 401,
        reason: "no",
        unknownAttributes: [],
      });
      assertEquals(rig.sent.length, 1);
    }
  });

  it("of a realm that no text can be are not made", () => {
    const rig = new Rig();
    rig.ask({ credentials: longTerm });
    rig.refuse(401, { realm: "\u0001", nonce: PLAIN });
    assertEquals(rig.failure, { kind: "protocol-violation" });
  });

  it("STUN-12 are not tried again unchanged", () => {
    const rig = new Rig();
    rig.ask({ credentials: longTerm });
    rig.refuse(401, challenge);
    rig.refuse(401, challenge);
    assertEquals(rig.failure, { kind: "refused", code: 401, reason: "no", unknownAttributes: [] });
    assertEquals(rig.sent.length, 2);
  });

  it("of an earlier request are taken anew where the server has forgotten them", () => {
    const rig = new Rig();
    rig.ask({ credentials: longTerm });
    rig.refuse(401, challenge);
    rig.answer(mapped, { seal: { key } });
    rig.ask({ credentials: longTerm });
    rig.refuse(401, { realm: "other.org", nonce: "n2" });
    assertEquals(rig.last.attributes.realm, "other.org");
    assert(hasIntegrity(rig.last, longTermKey("user", "other.org", "pass")));
    // Somebody else's are not used, nor those of another password.
    for (const other of [{ username: "eve" }, { password: "changed" }]) {
      rig.ask({ credentials: { ...longTerm, ...other } });
      assertEquals(rig.last.attributes, { software: "natkit" });
    }
  });

  it("STUN-12 438 takes up the new nonce, three times", () => {
    const rig = new Rig();
    rig.ask({ credentials: longTerm });
    rig.refuse(401, challenge);
    for (const nonce of ["n2", "n3", "n4"]) {
      rig.refuse(438, { nonce });
      assertEquals(rig.last.attributes.nonce, nonce);
      assertEquals(rig.last.attributes.realm, "example.org");
    }
    rig.refuse(438, { nonce: "n5" }, { key });
    assertEquals(rig.failure, { kind: "refused", code: 438, reason: "no", unknownAttributes: [] });
    assertEquals(rig.sent.length, 5);
  });

  it("STUN-12 400 without integrity is ignored, with it believed", () => {
    const rig = new Rig();
    rig.ask({ credentials: longTerm });
    rig.refuse(401, challenge);
    rig.refuse(400);
    assertEquals(rig.events, []);
    rig.refuse(400, {}, { key });
    assertEquals(rig.failure, { kind: "refused", code: 400, reason: "no", unknownAttributes: [] });
  });

  it("are made anew for the server to which a 300 sends", () => {
    const rig = new Rig();
    rig.ask({ credentials: longTerm });
    rig.refuse(401, challenge);
    const other = { address: "198.51.100.2", port: 3478 };
    rig.refuse(300, { alternateServer: other }, { key });
    assertEquals(rig.sent.at(-1)!.to, other);
    assertEquals(rig.last.integrityAt, 0);
    rig.refuse(401, challenge);
    assert(hasIntegrity(rig.last, key));
    rig.answer(mapped, { seal: { key } });
    assertEquals(rig.events[0]!.type, "answered");
  });
});

describe("over TCP (RFC 8489 §6.2.2)", () => {
  const local = { address: "192.168.1.2", port: 50_000 };
  const open = { type: "open", local, peer: SERVER } as const;

  function written(rig: Rig): Uint8Array[] {
    return rig.others.flatMap((action) =>
      action.type === "stream" && action.do === "write" ? [action.data] : []
    );
  }

  function answerTo(request: Uint8Array): Uint8Array {
    const transactionId = request.subarray(8, 20);
    return encodeStun({ class: "success", method: 1, transactionId, attributes: mapped });
  }

  /** Refuses what was written first, at 2. */
  function refuse(rig: Rig, code: number, more: StunAttributes): void {
    const data = encodeStun({
      class: "error",
      method: 1,
      transactionId: written(rig)[0]!.subarray(8, 20),
      attributes: { errorCode: { code, reason: "" }, ...more },
    });
    rig.client.handleStream(0, { type: "data", data }, 2);
    rig.drain();
  }

  it("connects, asks once, takes the answer in pieces, and closes", () => {
    const rig = new Rig();
    const id = rig.ask({ transport: "tcp" });
    assertEquals(rig.others, [
      { type: "stream", id: 0, do: "connect", to: SERVER, timeoutMs: 39_500 },
    ]);
    rig.client.handleStream(0, open, 20);
    rig.drain();
    assertEquals(written(rig).length, 1);
    for (const byte of answerTo(written(rig)[0]!)) {
      rig.client.handleStream(0, { type: "data", data: Uint8Array.of(byte) }, 40);
    }
    rig.drain();
    assertEquals(rig.answered.roundTripMs, 40);
    assertEquals([rig.answered.id, rig.answered.from, rig.answered.local, rig.answered.socket], [
      id,
      SERVER,
      local,
      "tcp",
    ]);
    assertEquals(rig.others.at(-1), { type: "stream", id: 0, do: "close" });
    assertEquals([rig.sent, rig.client.nextTimeout()], [[], undefined]);
  });

  it("says nothing of how long to wait over UDP", () => {
    const rig = new Rig();
    rig.ask({ transport: "tcp" });
    rig.client.handleStream(0, open, 20);
    rig.drain();
    rig.client.handleStream(0, { type: "data", data: answerTo(written(rig)[0]!) }, 2000);
    rig.drain();
    rig.now = 2000;
    rig.ask();
    rig.runUntil(3499);
    assertEquals(rig.sent.map(({ at }) => at), [2000, 2500]);
    rig.runUntil(3500);
    assertEquals(rig.sent.map(({ at }) => at), [2000, 2500, 3500]);
  });

  it("asks several over one connection, whose answers may come in any order", () => {
    const rig = new Rig();
    rig.ask({ transport: "tcp" });
    rig.ask({ transport: "tcp" });
    rig.client.handleStream(0, open, 1);
    rig.ask({ transport: "tcp" });
    rig.drain();
    const requests = written(rig);
    assertEquals([requests.length, rig.client.stats.sent], [3, 3]);
    const both = [...answerTo(requests[2]!), ...answerTo(requests[0]!)];
    rig.client.handleStream(0, { type: "data", data: Uint8Array.from(both) }, 2);
    rig.drain();
    assertEquals(rig.events.map(({ id }) => id), [3, 1]);
    assert(rig.others.every((action) => action.type !== "stream" || action.do !== "close"));
  });

  it("fails after 39.5 s, is not sent again, and closes", () => {
    const rig = new Rig();
    rig.ask({ transport: "tcp" });
    rig.client.handleStream(0, open, 1);
    rig.runUntil(39_499);
    assertEquals([written(rig).length, rig.events.length], [1, 0]);
    rig.runUntil(39_500);
    assertEquals(rig.failure, { kind: "no-answer" });
    assertEquals(rig.others.at(-1), { type: "stream", id: 0, do: "close" });
  });

  it("fails with the connection", () => {
    for (const [reason, kind] of [["refused", "unreachable"], ["ended", "network"]] as const) {
      const rig = new Rig();
      rig.ask({ transport: "tcp" });
      rig.ask({ transport: "tcp" });
      rig.client.handleStream(0, { type: "closed", reason }, 1);
      rig.drain();
      assertEquals(rig.events.map((event) => event.type === "failed" && event.failure), [
        { kind },
        { kind },
      ]);
      assertEquals(rig.others.length, 1, "there is nothing to close");
      rig.ask({ transport: "tcp" });
      assertEquals(rig.others.length, 2, "another connection");
    }
  });

  it("fails where what comes is no STUN", () => {
    const rig = new Rig();
    rig.ask({ transport: "tcp" });
    rig.client.handleStream(0, open, 1);
    rig.client.handleStream(0, {
      type: "data",
      data: new TextEncoder().encode("HTTP/1.1 400 Bad Request\r\n"),
    }, 2);
    rig.drain();
    assertEquals(rig.failure, { kind: "protocol-violation" });
    assertEquals(rig.client.stats.dropped.malformed, 1);
    assertEquals(rig.others.at(-1), { type: "stream", id: 0, do: "close" });
  });

  it("STUN-12 ends at once where the answer has another password", () => {
    const rig = new Rig();
    rig.ask({ transport: "tcp", credentials: shortTerm });
    rig.client.handleStream(0, open, 1);
    rig.drain();
    rig.client.handleStream(0, { type: "data", data: answerTo(written(rig)[0]!) }, 2);
    rig.drain();
    assertEquals(rig.failure, { kind: "integrity" });
  });

  it("answers a challenge on the same connection", () => {
    const rig = new Rig();
    rig.ask({ transport: "tcp", credentials: longTerm });
    rig.client.handleStream(0, open, 1);
    rig.drain();
    refuse(rig, 401, { realm: "r", nonce: "n" });
    assertEquals(rig.others.map((action) => action.type === "stream" && action.do), [
      "connect",
      "write",
      "write",
    ]);
  });

  it("leaves a connection whose server sends it elsewhere, or has a fault that may pass", () => {
    const other = { address: "198.51.100.2", port: 3500 };
    for (const [code, to, at] of [[300, other, 2], [500, SERVER, 502]] as const) {
      const rig = new Rig();
      rig.ask({ transport: "tcp" });
      rig.client.handleStream(0, open, 1);
      rig.drain();
      refuse(rig, code, { alternateServer: other });
      rig.runUntil(at);
      assertEquals(rig.others.slice(2), [
        { type: "stream", id: 0, do: "close" },
        { type: "stream", id: 1, do: "connect", to, timeoutMs: 39_500 },
      ]);
    }
  });

  it("takes no answer from a datagram, and no end from ICMP", () => {
    const rig = new Rig();
    rig.ask({ transport: "tcp" });
    rig.client.handleStream(0, open, 1);
    rig.drain();
    assert(!rig.client.handleDatagram(answerTo(written(rig)[0]!), SERVER, "client", 2));
    rig.client.handleUnreachable(SERVER, "client", 3);
    rig.drain();
    assertEquals(rig.events, []);
  });
});
