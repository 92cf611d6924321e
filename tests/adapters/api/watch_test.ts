import { describe, it } from "node:test";
import { assert, assertEquals, assertRejects } from "@std/assert";
import { Nat } from "../../../adapters/api/nat.ts";
import type { WatchOptions } from "../../../adapters/api/options.ts";
import type { Assignment } from "../../../core/portmap/managed.ts";
import { FakeNetwork, GATEWAY } from "./fake_network.ts";

const words = (assignments: readonly Assignment[]) =>
  assignments.map(({ via, address, port }) => `${via} ${address}:${port}`);

async function withNat(run: (nat: Nat, net: FakeNetwork) => Promise<void>): Promise<void> {
  const net = new FakeNetwork();
  net.addresses = [
    { name: "eth0", address: "192.0.2.5", prefixLength: 24, internal: false },
    { name: "eth0", address: "fe80::5%eth0", prefixLength: 64, internal: false },
    { name: "lo", address: "127.0.0.1", prefixLength: 8, internal: true },
  ];
  const nat = await Nat.open({ gateway: GATEWAY, announcements: false, runtime: net });
  try {
    await run(nat, net);
  } finally {
    const closed = nat.close();
    await net.pass(3000);
    await closed;
  }
}

describe("Nat.watch()", () => {
  it("tells the set to each reader, whole, until it is closed", async () => {
    await withNat(async (nat, net) => {
      const watch = await nat.watch(8080);
      assertEquals(words(watch.assignments), ["local 192.0.2.5:8080"]);
      const early = watch[Symbol.asyncIterator]();
      const heard: string[][] = [];
      const stop = watch.onChange((assignments) => heard.push(words(assignments)));
      await net.pass(1000);
      const whole = ["local 192.0.2.5:8080", "pcp 203.0.113.7:8080"];
      assertEquals(words(watch.assignments), whole);
      assertEquals(heard, [whole]);
      const late = watch[Symbol.asyncIterator]();
      assertEquals(words((await early.next()).value!), ["local 192.0.2.5:8080"]);
      for (const reader of [early, late]) assertEquals(words((await reader.next()).value!), whole);

      stop();
      const closed = watch.close();
      await net.pass(100);
      await closed;
      assertEquals([watch.assignments, net.ports(), heard.length], [[], [], 1]);
      for (const reader of [early, late]) assertEquals((await reader.next()).done, true);
      await watch.close();
    });
  });

  it("follows this host's addresses", async () => {
    await withNat(async (nat, net) => {
      const watch = await nat.watch(8080, { protocol: "udp", externalPort: 9090 });
      await net.pass(1000);
      assertEquals(words(watch.assignments), ["local 192.0.2.5:8080", "pcp 203.0.113.7:9090"]);
      net.addresses = [
        ...net.addresses,
        { name: "eth1", address: "192.0.2.6", prefixLength: 24, internal: false },
      ];
      await net.pass(10_000);
      assertEquals(words(watch.assignments).slice(0, 2), [
        "local 192.0.2.5:8080",
        "local 192.0.2.6:8080",
      ]);
    });
  });

  it("ends with its context", async () => {
    const net = new FakeNetwork();
    const nat = await Nat.open({ gateway: GATEWAY, announcements: false, runtime: net });
    const watch = await nat.watch(8080);
    const reader = watch[Symbol.asyncIterator]();
    await reader.next();
    const closed = nat.close();
    await net.pass(3000);
    await closed;
    assertEquals([(await reader.next()).done, net.ports()], [true, []]);
    await watch.close();
    const error = await nat.watch(8080).then(() => undefined, (error) => error);
    assertEquals(error.code, "closed");
  });

  it("names what is wrong with what it is asked for", async () => {
    await withNat(async (nat) => {
      await assertRejects(() => nat.watch(0), RangeError, "'port'");
      const once = { mode: "once" } as WatchOptions;
      await assertRejects(() => nat.watch(80, once), TypeError, "'mode'");
      await assertRejects(() => nat.watch(80, { filters: ["::/7"] }), TypeError, "'filters");
      const watch = await nat.watch(8080);
      await assertRejects(() => nat.watch(8080), TypeError, "mapped already");
      await assertRejects(() => nat.map(8080), TypeError, "mapped already");
      assert(watch.assignments.length > 0);
    });
  });
});
