import { it } from "node:test";
import { assert } from "@std/assert";
import { below, type RandomSource, seededRandom } from "../../../core/random.ts";
import { GATEWAY, rig } from "./rig.ts";

const ELSEWHERE = { address: "192.168.1.66", port: 5351 };
const NONCE_OFFSET = 24;

/**
 * What an attacker can send who does not know the nonces. From the gateway's own address NAT-PMP's
 * announcements and PCP's would be believed, as they must be, so those come from elsewhere.
 */
function forge(seen: readonly Uint8Array[], random: RandomSource) {
  const seed = seen[below(random, seen.length)]!;
  const data = new Uint8Array(below(random, 4) === 0 ? below(random, 1400) : seed.length);
  data.set(seed.subarray(0, data.length));
  for (let flips = below(random, 6); flips > 0 && data.length > 0; flips--) {
    data[below(random, data.length)]! ^= 1 << below(random, 8);
  }
  if (data[0] === 2 && data.length >= NONCE_OFFSET + 12) {
    random.fill(data.subarray(NONCE_OFFSET, NONCE_OFFSET + 12));
  }
  const opcode = data[1]! & 0x7f;
  const isAnnouncement = opcode === 0 && data.length >= 2;
  return { data, from: isAnnouncement || below(random, 2) ? ELSEWHERE : GATEWAY };
}

it("1,000,000 forged packets throw nothing and leave every granted mapping as it was", () => {
  const lab = rig();
  const seen: Uint8Array[] = [];
  lab.filter((data) => {
    seen.push(data);
    return true;
  });
  const { socket } = lab;
  const inbound = socket.onDatagram;
  socket.onDatagram = (data, from) => {
    seen.push(new Uint8Array(data));
    inbound(data, from);
  };
  const ids = Array.from({ length: 40 }, (_, i) =>
    lab.mapper((mapper, now) =>
      mapper.map({
        protocol: i % 2 ? "tcp" : "udp",
        internalPort: 6000 + i,
        protocols: [i < 20 ? "pcp" : "nat-pmp"],
      }, now)
    ));
  lab.world.runFor(60_000);
  assert(lab.types().join() === ids.map(() => "mapped").join());
  const granted = () => lab.mapper((mapper) => ids.map((id) => mapper.mapping(id)));
  const before = JSON.stringify(granted());
  const random = seededRandom(1_000_000);

  const mapper = lab.mapper((machine) => machine);
  const { now } = lab.world;
  const { key } = mapper.sockets()[0]!;
  for (let i = 0; i < 1_000_000; i++) {
    const { data, from } = forge(seen, random);
    mapper.handleDatagram(data, from, key, now);
  }

  assert(lab.types().length === 0);
  assert(JSON.stringify(granted()) === before);
  const { stats } = mapper;
  const dropped = Object.values(stats.clients).flatMap((client) =>
    Object.values((client as { readonly dropped: Record<string, number> }).dropped)
  );
  assert(stats.wrongSource + dropped.reduce((sum, count) => sum + count, 0) >= 1_000_000);
});
