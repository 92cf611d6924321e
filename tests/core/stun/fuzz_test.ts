import { describe, it } from "node:test";
import { assert, assertEquals } from "@std/assert";
import { NatBehaviour } from "../../../core/stun/behaviour.ts";
import { StunClient } from "../../../core/stun/client.ts";
import { decodeStun, encodeStun } from "../../../core/stun/codec.ts";
import { StunServer } from "../../../core/stun/server.ts";
import { type RandomSource, seededRandom } from "../../../core/random.ts";
import { drain } from "../machine_case.ts";
import { CLIENT, SERVER } from "./rig.ts";
import { RFC8489_B1, VECTORS } from "./vectors.ts";

const MESSAGES = 1_000_000;

/** Whole messages: those of the RFCs, and some with the attributes of RFC 5780 and TURN. */
const WHOLE: readonly Uint8Array[] = [
  ...VECTORS.map(({ bytes }) => bytes),
  RFC8489_B1.bytes,
  encodeStun({
    class: "success",
    method: 1,
    transactionId: new Uint8Array(12),
    attributes: {
      xorMappedAddress: CLIENT,
      mappedAddress: CLIENT,
      responseOrigin: SERVER,
      otherAddress: { address: "2001:db8::1", port: 3479 },
    },
  }),
  encodeStun({
    class: "request",
    method: 1,
    transactionId: new Uint8Array(12),
    attributes: { changeRequest: { address: true, port: true }, responsePort: 9 },
  }, { fingerprint: true }),
  encodeStun({
    class: "error",
    method: 3,
    transactionId: new Uint8Array(16),
    attributes: {
      errorCode: { code: 438, reason: "Stale Nonce" },
      unknownAttributes: [1, 2, 3],
      nonce: "obMatJos2gAAA",
      realm: "r",
      passwordAlgorithms: [{ number: 2, parameters: Uint8Array.of(1) }],
      xorPeerAddresses: [CLIENT, SERVER],
      data: Uint8Array.of(1, 2, 3),
    },
  }),
];

/** Changes some bytes, and now and then the length with the length field, in `into`. */
function mutate(random: RandomSource, into: Uint8Array): Uint8Array {
  const whole = WHOLE[random.u32() % WHOLE.length]!;
  into.set(whole);
  let { length } = whole;
  const choice = random.u32();
  if ((choice & 3) === 0) {
    length = choice >>> 8 & 0x7f;
    into[2] = 0;
    if ((choice & 4) === 0) into[3] = length - 20;
  }
  const bytes = into.subarray(0, length);
  for (let n = choice >>> 3 & 3; n >= 0 && length > 0; n--) {
    const change = random.u32();
    bytes[(change >>> 8) % length] = change;
  }
  return bytes;
}

describe("1,000,000 mutated STUN messages", () => {
  it("throw nothing in the decoder, and what is read lies in them", () => {
    const random = seededRandom(11);
    const buffer = new Uint8Array(256);
    let read = 0;
    for (let i = 0; i < MESSAGES; i++) {
      const message = decodeStun(mutate(random, buffer), { classic: (i & 1) === 0 });
      if (typeof message === "string") continue;
      read++;
      const { attributes, unknown } = message;
      if (!unknown.every(({ value }) => value.buffer === buffer.buffer)) assert(false, `${i}`);
      const { errorCode, unknownAttributes, username = "" } = attributes;
      if (errorCode && (errorCode.code < 300 || errorCode.code > 699)) assert(false, `${i}`);
      if (unknown.length > 64 || (unknownAttributes?.length ?? 0) > 32) assert(false, `${i}`);
      if (username.length > 763) assert(false, `${i}`);
    }
    assert(read > MESSAGES / 10, `${read}`);
  });

  it("throw nothing in the machines, and end no request", () => {
    const random = seededRandom(12);
    const buffer = new Uint8Array(256);
    const server = new StunServer({ listen: SERVER, maxPerSecond: 1e9 });
    server.handleSocket("server", { ok: true, local: SERVER }, 0);
    const client = new StunClient({ random: seededRandom(13) });
    const credentials = { type: "long-term", username: "user", password: "pass" } as const;
    client.request({ server: SERVER, credentials }, 0);
    client.request({ server: SERVER, attributes: { responsePort: 9 } }, 0);
    const behaviour = new NatBehaviour({
      servers: [SERVER],
      localAddress: "192.168.1.2",
      random: seededRandom(14),
    });
    behaviour.start(0);
    for (const { key, local } of behaviour.sockets()) {
      behaviour.handleSocket(key, { ok: true, local: local! }, 0);
    }
    for (const machine of [server, client, behaviour]) drain(machine);
    const machines = [server, client, behaviour];
    let answered = 0;
    for (let i = 0; i < MESSAGES; i++) {
      const machine = machines[i % 3]!;
      machine.handleDatagram(mutate(random, buffer), SERVER, i % 3 === 0 ? "server" : "client", 0);
      for (let action = machine.poll(); action; action = machine.poll()) {
        // A request that is whole is answered by the server; that is all that may come of them.
        if (action.type !== "send" || machine !== server) assert(false, JSON.stringify(action));
        answered++;
      }
    }
    assertEquals(answered, server.stats.answers + server.stats.errors);
    assert(answered > 10_000, `${answered}`);
    assertEquals([client.stats.answers, client.stats.errors], [0, 0]);
  });
});
