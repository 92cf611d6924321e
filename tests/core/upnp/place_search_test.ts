import { describe, it } from "node:test";
import { assertEquals, assertThrows } from "@std/assert";
import { PlaceSearch, type PlaceSearchOptions } from "../../../core/upnp/place_search.ts";
import { decodeSsdp } from "../../../core/upnp/ssdp.ts";

const STEPS = [0, 200, 300].map((atMs, i) => ({ atMs, target: `t${i}` }));

/** A search that writes down what it sends. */
function searchOf(options: Partial<PlaceSearchOptions> = {}) {
  const sent: string[] = [];
  const search = new PlaceSearch({
    local: "192.168.1.5",
    gateway: { address: "192.168.1.1", port: 1901 },
    steps: STEPS,
    mx: 2,
    send: ({ address, port }, data) => {
      const message = decodeSsdp(data);
      if (typeof message === "string") throw new Error(message);
      sent.push(`${address} ${port} ${message.target} ${message.mx}`);
    },
    ...options,
  });
  return { search, take: () => sent.splice(0) };
}

const step = (target: string) => [
  `192.168.1.1 1901 ${target} undefined`,
  `239.255.255.250 1900 ${target} 2`,
];

describe("PlaceSearch", () => {
  it("sends each step in its time, to the gateway first, then to the group", () => {
    const { search, take } = searchOf();
    assertEquals([search.hasBegun, search.nextAt()], [false, undefined]);
    search.start(1000);
    assertEquals([take(), search.nextAt()], [step("t0"), 1200]);
    search.handleTimeout(1199);
    assertEquals(take(), []);
    search.handleTimeout(1200);
    search.handleTimeout(1200);
    assertEquals([take(), search.nextAt()], [step("t1"), 1300]);
    search.handleTimeout(1300);
    assertEquals([take(), search.nextAt(), search.hasBegun], [step("t2"), undefined, true]);
  });

  it("sends no two at once where it was woken late", () => {
    const { search, take } = searchOf();
    search.start(0);
    take();
    search.handleTimeout(5000);
    assertEquals([take(), search.nextAt()], [step("t1"), 5050]);
  });

  it("starts over, and ends", () => {
    const { search, take } = searchOf();
    search.start(0);
    search.handleTimeout(200);
    take();
    search.start(250);
    assertEquals([take(), search.nextAt()], [step("t0"), 450]);
    search.stop();
    search.handleTimeout(10_000);
    assertEquals([take(), search.nextAt(), search.hasBegun], [[], undefined, false]);
  });

  it("asks nobody but the gateway where it is alone", () => {
    const { search, take } = searchOf({ isAlone: true });
    search.start(0);
    assertEquals(take(), [step("t0")[0]!]);
  });

  it("asks over IPv6 by the zone, be it the address's or the interface's", () => {
    const gateway = undefined;
    for (
      const options of [
        { local: "fe80::5%eth1", interface: "eth9" },
        { local: "2001:db8::5", interface: "eth1" },
      ]
    ) {
      const { search, take } = searchOf({ ...options, gateway });
      search.start(0);
      assertEquals(take(), ["ff02::c%eth1 1900 t0 2"]);
    }
  });

  it("knows who is near: by the networks, or where they are not known by what is private", () => {
    const near = (options: Partial<PlaceSearchOptions>, addresses: readonly string[]) =>
      addresses.filter(searchOf({ gateway: undefined, ...options }).search.isNear);
    const all = ["192.168.1.9", "10.0.0.1", "11.0.0.9", "169.254.0.9", "127.0.0.1", "fe80::1%x"];
    const networks = ["11.0.0.0/24"];
    assertEquals(near({ networks }, all), ["11.0.0.9"]);
    assertEquals(near({}, all), ["192.168.1.9", "10.0.0.1", "169.254.0.9"]);
    assertEquals(near({ local: "11.0.0.5" }, [...all, "11.0.0.5", "11.0.1.9"]), [
      "192.168.1.9",
      "10.0.0.1",
      "11.0.0.9",
      "169.254.0.9",
      "11.0.0.5",
    ]);
    assertEquals(near({ local: "127.0.0.1", networks: ["127.0.0.0/8"] }, all), ["127.0.0.1"]);
    assertEquals(
      near({ local: "2001:db8::5", networks: [] }, ["fe80::1%x", "2001:db8::5", "2001:db8::6"]),
      ["fe80::1%x", "2001:db8::5"],
    );
    const gateway = { address: "203.0.113.1", port: 1900 };
    assertEquals(near({ networks, gateway }, ["203.0.113.1", "203.0.113.2"]), ["203.0.113.1"]);
    assertThrows(() => searchOf({ networks: ["near"] }), TypeError, '"near"');
  });
});
