import { describe, it } from "node:test";
import { assertEquals } from "@std/assert";
import { refusalMs, versionRefusalMs } from "../../../core/pcp/answers.ts";
import { Retransmission, ServerList } from "../../../core/pcp/transport.ts";
import { seededRandom } from "../../../core/random.ts";
import { claim } from "./support.ts";

const A = { address: "192.0.2.1", port: 5351 }, B = { address: "192.0.2.2", port: 5351 };

describe("Retransmission", () => {
  const random = () => seededRandom(4);

  it("leaves the extra requests of a fast start out where the caller comes late", () => {
    const late = new Retransmission(true), source = random();
    assertEquals(late.next(source, 0), 250);
    const onTime = new Retransmission(false);
    // The RFC's next sending is the one that was drawn at the first.
    assertEquals(late.next(source, 1000), onTime.next(random(), 0));
  });

  it("never names a time that has passed", () => {
    for (const isFast of [true, false]) {
      const request = new Retransmission(isFast), source = random();
      let now = 0;
      for (let i = 0; i < 200; i++) {
        const at = request.next(source, now);
        claim(at > now);
        now = at + (source.u32() % 3 === 0 ? source.u32() % 2_000_000 : 0);
      }
    }
  });
});

describe("ServerList", () => {
  it("goes through all addresses, then starts over", () => {
    const list = new ServerList([A, B]);
    assertEquals([list.current, list.exhaust(), list.current], [A, true, B]);
    assertEquals([list.exhaust(), list.current], [false, A]);
  });

  it("tells once that another address answers, and begins a new round from the first", () => {
    const list = new ServerList([A, B]);
    assertEquals(list.answered(), false);
    list.exhaust();
    assertEquals([list.answered(), list.answered()], [true, false]);
    assertEquals([list.exhaust(), list.current], [true, A]);
  });

  it("knows its own datagrams from strangers'", () => {
    const list = new ServerList([{ address: "fe80::1%eth0", port: 5351 }, B]);
    assertEquals(list.match({ address: "fe80::1%eth0", port: 5351 }), "current");
    assertEquals(list.match({ address: "fe80::1", port: 5351 }), "current");
    assertEquals(list.match({ address: "fe80::1%eth1", port: 5351 }), undefined);
    assertEquals(list.match({ address: "fe80::1%eth0", port: 5350 }), undefined);
    assertEquals(list.match(B), "other");
    assertEquals(list.match(A), undefined);
  });
});

describe("refusalMs()", () => {
  it("is the error's lifetime, from 4 s to a day, and 30 s where it says nothing", () => {
    assertEquals([0, 1, 30, 1800, 86_401, 0xffff_ffff].map(refusalMs), [
      30_000,
      4000,
      30_000,
      1_800_000,
      86_400_000,
      86_400_000,
    ]);
  });
});

describe("versionRefusalMs()", () => {
  it("is half an hour at most, and where it is not said", () => {
    assertEquals([undefined, 0, 60, 86_400].map(versionRefusalMs), [
      1_800_000,
      1_800_000,
      60_000,
      1_800_000,
    ]);
  });
});
