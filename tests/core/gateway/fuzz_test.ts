import { describe, it } from "node:test";
import { assert, assertEquals } from "@std/assert";
import type { Endpoint } from "../../../core/machine.ts";
import { SimulatedGateway } from "../../../core/gateway/gateway.ts";
import { PROFILES } from "../../../core/gateway/profiles.ts";
import { type RandomSource, seededRandom } from "../../../core/random.ts";
import {
  ADDRESS_REQUEST,
  ALICE,
  EXTERNAL,
  natPmpMap,
  pcpAnnounce,
  pcpMap,
  pcpPeer,
} from "./rig.ts";
import { heapAfterCollection } from "../heap.ts";

const SEEDS: readonly Uint8Array[] = [
  ADDRESS_REQUEST,
  natPmpMap(80, { suggested: 80 }),
  natPmpMap(0, { lifetime: 0 }),
  pcpAnnounce(),
  pcpMap(80),
  pcpMap(0),
  pcpMap(80, { lifetime: 0 }),
  pcpMap(80, {
    suggested: 8080,
    options: [
      { type: "prefer-failure" },
      { type: "filter", prefixLength: 120, remotePort: 0, remoteAddress: "198.51.100.0" },
      { type: "description", text: "fuzz" },
    ],
  }),
  pcpMap(6000, {
    options: [{ type: "port-set", size: 16, firstInternalPort: 6000, parity: true }],
  }),
  pcpPeer(49152),
];

function mutate(random: RandomSource): Uint8Array {
  if (random.u32() % 5 === 0) {
    const bytes = new Uint8Array(random.u32() % 200);
    random.fill(bytes);
    bytes[0]! &= random.u32() % 2 ? 0x02 : 0xff;
    return bytes;
  }
  const seed = SEEDS[random.u32() % SEEDS.length]!;
  const isResized = random.u32() % 8 === 0;
  const bytes = new Uint8Array(isResized ? random.u32() % 1200 : seed.length);
  bytes.set(seed.subarray(0, bytes.length));
  for (let changes = random.u32() % 4; changes > 0 && bytes.length > 0; changes--) {
    bytes[random.u32() % bytes.length] = random.u32();
  }
  return bytes;
}

/** The source's own address goes into a PCP header, so that most get past ADDRESS_MISMATCH. */
function address(data: Uint8Array, { address }: Endpoint): void {
  if (data[0] === 2 && data.length >= 24) data.set(address.split(".").map(Number), 20);
}

describe("SimulatedGateway under fire", () => {
  it("1,000,000 random and mutated packets from 10,000 sources: nothing thrown, memory flat", () => {
    const random = seededRandom(30);
    const gateway = new SimulatedGateway({
      externalAddresses: [EXTERNAL],
      random: seededRandom(31),
      trace: true,
      table: { maxEntries: 5000, maxPortsPerClient: 40, maxQuarantined: 1000 },
    });
    gateway.start(0);
    gateway.disturb({ delayMs: 30, reorderMs: 30, duplicate: true, lossRate: 0.05 }, 0);
    let now = 0, served = 0, heapBytes = 0;
    for (let i = 0; i < 1_000_000; i++) {
      if (i === 200_000) heapBytes = heapAfterCollection();
      const source = random.u32() % 10_000;
      const from = { address: `10.0.${source >>> 8}.${source & 255}`, port: 1 + source };
      const data = mutate(random);
      address(data, from);
      if (gateway.handleDatagram(data, from, "server", now)) served++;
      if (i % 10 === 0) gateway.handleTimeout(++now);
      // Nobody drains for long stretches, and every so often the gateway lives through something.
      if (i % 20_000 === 19_999) {
        let waiting = 0;
        while (gateway.poll()) waiting++;
        assert(waiting <= 4096);
        if (i % 40_000 === 39_999) gateway.setExternalAddresses([`203.0.113.${i % 200}`], now);
        else gateway.forget(now);
      }
    }
    const grownMiB = (heapAfterCollection() - heapBytes) / 2 ** 20;
    assert(grownMiB < 16, `${grownMiB} MiB more after 800,000 packets more`);
    const { replies } = gateway.stats;
    assert(served > 500_000 && gateway.table.size <= 5000 && gateway.table.quarantined <= 1000);
    assert(replies.waiting <= 4096);
  });

  it("every profile survives 3,000 of them", () => {
    const random = seededRandom(40);
    for (const profile of Object.keys(PROFILES)) {
      const gateway = new SimulatedGateway({
        externalAddresses: [EXTERNAL],
        random: seededRandom(41),
        profile,
        listen: { address: "192.168.1.1", port: 5351 },
      });
      gateway.start(0);
      for (let i = 0; i < 3000; i++) {
        const data = mutate(random), copy = data.slice();
        gateway.handleDatagram(data, ALICE, "server", i);
        while (gateway.poll());
        assertEquals(data, copy);
      }
    }
  });
});
