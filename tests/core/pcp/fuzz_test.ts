import { describe, it } from "node:test";
import { assertEquals } from "@std/assert";
import { PCP_NONCE_OFFSET } from "../../../core/pcp/codec.ts";
import { seededRandom } from "../../../core/random.ts";
import { forge, LOCAL, Rig } from "./harness.ts";
import { claim } from "./support.ts";
import { VECTORS } from "./vectors.ts";

describe("a client that holds mappings", () => {
  it("is not moved by 100,000 mutated packets from its server's address, and throws nothing", () => {
    const random = seededRandom(20), rig = new Rig();
    const genuine: Uint8Array[] = VECTORS.map(({ bytes }) => bytes);
    for (let port = 1; port <= 4; port++) {
      rig.mapped({ internalPort: port, lifetimeSeconds: 86_400 });
      genuine.push(rig.ask());
    }
    askForPeer(rig);
    rig.grant({ lifetimeSeconds: 86_400 });
    genuine.push(rig.ask());
    const before = held(rig);

    for (let i = 0; i < 100_000; i++) {
      const original = genuine[random.u32() % genuine.length]!;
      const bytes = mutate(original, random.u32);
      // Who knows the nonce is the server: what is mutated about an answer is its sender's guess.
      if (bytes.length > PCP_NONCE_OFFSET) bytes[PCP_NONCE_OFFSET]! ^= 1 + (random.u32() % 255);
      rig.client.handleDatagram(bytes, rig.server, "client", rig.now);
      while (rig.client.poll());
    }

    assertEquals(held(rig), before);
  });

  it("believes no answer of a length that none can have, and counts each that it drops", () => {
    const rig = new Rig();
    rig.mapped();
    askForPeer(rig);
    const answer = rig.ask(), before = held(rig);
    for (let length = 0; length <= 1104; length++) {
      // Zeros that fill it up to another multiple of 4 are options, and ignored (PCP-C-30).
      if (length >= answer.length && length % 4 === 0 && length <= 1100) continue;
      const dropped = droppedOf(rig), other = new Uint8Array(length);
      other.set(answer.subarray(0, length));
      claim(!rig.receive(other), `length ${length}`);
      assertEquals(droppedOf(rig), dropped + 1, `length ${length}`);
    }
    assertEquals(held(rig), before);
    claim(rig.receive(answer));
  });

  it("believes no answer with one bit of its names, ports, nonce or peer flipped", () => {
    const PEER_FIELDS = [[24, 37], [40, 42], [60, 62], [64, 80]] as const;
    const rig = new Rig();
    askForPeer(rig);
    const answer = rig.ask(), before = held(rig);
    for (const [from, to] of PEER_FIELDS) {
      for (let bit = 8 * from; bit < 8 * to; bit++) {
        const dropped = droppedOf(rig), flipped = answer.slice();
        flipped[bit >> 3]! ^= 1 << (bit & 7);
        claim(!rig.receive(flipped), `bit ${bit}`);
        assertEquals(droppedOf(rig), dropped + 1, `bit ${bit}`);
      }
    }
    assertEquals(held(rig), before);
    claim(rig.receive(answer));
  });

  it("is not moved by 20,000 packets from elsewhere, whatever they say", () => {
    const random = seededRandom(21), rig = new Rig();
    rig.mapped();
    const before = held(rig), answer = forge(rig.last, { external: { address: LOCAL, port: 1 } });
    for (let i = 0; i < 20_000; i++) {
      const address = `192.168.${random.u32() % 256}.${2 + (random.u32() % 250)}`;
      claim(!rig.client.handleDatagram(answer, { address, port: 5351 }, "client", rig.now));
    }
    assertEquals(held(rig), before);
    assertEquals(rig.client.stats.dropped["wrong-source"], 20_000);
  });
});

/** Asks for a mapping towards a peer; the harness has the request. */
function askForPeer(rig: Rig): void {
  rig.client.peer({
    protocol: 17,
    internalPort: 9,
    remote: { address: "198.51.100.20", port: 443 },
  }, 0);
  rig.drain();
}

function held(rig: Rig): unknown {
  return rig.client.mappings().map(({ external, expiresAt, nonce, lifetimeSeconds }) => ({
    external,
    expiresAt,
    nonce,
    lifetimeSeconds,
  }));
}

function droppedOf(rig: Rig): number {
  return Object.values(rig.client.stats.dropped).reduce((sum, count) => sum + count, 0);
}

/** Flips, overwrites, cuts, lengthens: one to four times. */
function mutate(original: Uint8Array, u32: () => number): Uint8Array {
  let bytes = original.slice();
  for (let n = 1 + (u32() % 4); n > 0; n--) {
    const at = u32() % Math.max(1, bytes.length);
    switch (u32() % 4) {
      case 0:
        bytes[at]! ^= 1 << (u32() & 7);
        break;
      case 1:
        bytes[at] = u32();
        break;
      case 2:
        bytes = bytes.slice(0, at);
        break;
      default: {
        const longer = new Uint8Array(bytes.length + 1 + (u32() % 40));
        longer.set(bytes);
        bytes = longer;
      }
    }
  }
  return bytes;
}
