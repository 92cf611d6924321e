import { describe, it } from "node:test";
import { assert, assertEquals } from "@std/assert";
import { fromHex, toHex } from "../../../core/bytes.ts";
import { parseIp } from "../../../core/ip.ts";
import { seededRandom } from "../../../core/random.ts";
import { EXTERNAL, GATEWAY, rigWithGateway, rigWithMapping } from "./rig.ts";

const HOUR = 3_600_000;
const UDP_5000 = { protocol: "udp", internalPort: 5000 } as const;

describe("NatPmpClient: many", () => {
  it("10,000 keep-alive mappings are all renewed, in 10,000 packets a period", () => {
    const { rig } = rigWithGateway({ table: { maxPortsPerClient: 10_000 } });
    for (let port = 1; port <= 10_000; port++) {
      rig.client.map({ protocol: "udp", internalPort: port }, 0);
    }
    rig.drain();
    assertEquals(rig.takeSent().length, 10_000);
    rig.runTo(HOUR);
    rig.runTo(2 * HOUR);
    assertEquals(rig.takeSent().length, 20_000);
    assertEquals(rig.client.stats.retransmissions, 0);
  });

  it("100,000 mutated packets throw nothing and leave every mapping as it was", () => {
    const random = seededRandom(6886);
    const { rig, gateway } = rigWithMapping();
    for (let port = 1; port <= 20; port++) {
      rig.do((client, now) => client.map({ protocol: "udp", internalPort: port }, now));
    }
    const grants = rig.heard.splice(0);
    assertEquals(grants.length, 21);
    rig.scenario((gateway, now) => gateway.announce(now));
    gateway.disturb({ lossRate: 1 }, rig.now);
    const [announcement] = rig.heard;
    rig.takeEvents();
    rig.takeSent();
    const before = rig.client.mappings();
    const seeds = [
      ...grants,
      ...grants.map((grant) => Uint8Array.from(grant, (byte, i) => i >= 10 ? 0 : byte)),
      fromHex("00810002 000003e8 00010000 00000000"),
      fromHex("00810001 000003e8"),
      fromHex("02800001 00000708 00000063 00000000 00000000 00000000"),
      announcement!,
    ];
    const pick = (bound: number) => random.u32() % bound;

    for (let i = 0; i < 100_000; i++) {
      let bytes = seeds[pick(seeds.length)]!.slice();
      let from = GATEWAY;
      const isAddress = bytes[1] === 128;
      const mutation = pick(4);
      if (mutation === 0) bytes = bytes.subarray(0, pick(bytes.length));
      if (mutation === 1) from = { address: `192.168.1.${2 + pick(250)}`, port: 5351 };
      if (mutation === 2 && !isAddress) from = { ...from, port: pick(5351) };
      // A genuine announcement's address is the gateway's to choose: any flip there is believed.
      const flippable = isAddress && mutation !== 1 ? 8 : bytes.length;
      const flips = mutation === 3 ? 1 + pick(6) : pick(3);
      for (let k = 0; k < flips && bytes.length > 0; k++) {
        bytes[pick(Math.min(flippable, bytes.length))]! ^= 1 << pick(8);
      }
      // What flips have made an announcement would be believed too.
      const isBelieved = from.address === GATEWAY.address && bytes[0] === 0 && bytes[1] === 128;
      if (isBelieved && bytes.length >= 12) bytes.set(parseIp(EXTERNAL)!, 8);
      rig.feed(bytes, from);
    }

    assertEquals(rig.client.mappings(), before);
    assertEquals([...new Set(rig.takeTypes())], ["gateway-restarted"]);
    assertEquals(rig.sent, []);
    // And the recreation that flipped epochs have set off finds all where it was.
    gateway.setEpoch(0xffff_0000, rig.now);
    gateway.disturb({ lossRate: 0 }, rig.now);
    rig.run(5000);
    assertEquals([...new Set(rig.takeTypes())], ["renewed"]);
    assertEquals(
      rig.client.mappings().map(({ externalPort }) => externalPort),
      before.map(({ externalPort }) => externalPort),
    );
  });

  it("the same seed and inputs give the same bytes and events", () => {
    const story = (seed: number) => {
      const { rig } = rigWithGateway({}, { seed });
      rig.do((client, now) => client.probe(now));
      rig.do((client, now) => client.map(UDP_5000, now));
      rig.runTo(HOUR + 5000);
      rig.scenario((gateway, now) => gateway.reboot(now));
      rig.runTo(3 * HOUR);
      return JSON.stringify([rig.sent.map(({ at, data }) => [at, toHex(data)]), rig.events]);
    };
    assertEquals(story(5), story(5));
    assert(story(5) !== story(6));
  });
});
