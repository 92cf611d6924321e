/** What a rendezvous is opened with, before anything is sent. */
import { describe, it } from "node:test";
import { assertEquals, assertRejects } from "@std/assert";
import { prepare, type RendezvousOptions } from "../../../adapters/api/rendezvous.ts";
import { NatError } from "../../../core/errors.ts";
import { TcpRendezvous, UdpRendezvous } from "../../../adapters/api/ice.ts";
import { FakeRuntime } from "../fake_runtime.ts";

function hostWith(...addresses: string[]): FakeRuntime {
  const runtime = new FakeRuntime();
  runtime.addresses = addresses.map((address) => ({
    name: address === "127.0.0.1" || address === "::1" ? "lo" : "eth0",
    address,
    prefixLength: 24,
    internal: address === "127.0.0.1",
  }));
  return runtime;
}

const addressesOf = async (...own: string[]) =>
  (await prepare({ runtime: hostWith(...own) })).addresses;

describe("a rendezvous", () => {
  it("is at the addresses that others may reach, IPv6 first, each once, eight at most", async () => {
    assertEquals(
      await addressesOf("127.0.0.1", "192.168.1.5", "fe80::5%eth0", "2001:db8::5", "192.168.1.5"),
      ["2001:db8::5", "192.168.1.5"],
    );
    const many = Array.from({ length: 9 }, (_, i) => `10.0.0.${i + 1}`);
    assertEquals(await addressesOf(...many), many.slice(0, 8));
  });

  it("is at this host's own where there is no network", async () => {
    assertEquals(await addressesOf("127.0.0.1", "::1", "169.254.7.7"), ["::1", "127.0.0.1"]);
  });

  it("is nowhere where not even loopback is up, and says so", async () => {
    const error = await assertRejects(() => addressesOf(), NatError, "no interface has an address");
    assertEquals(error.code, "network");
  });

  it("is where it is told, with the servers that are named, at STUN's port by default", async () => {
    const runtime = hostWith("192.168.1.5");
    const who = { username: "u", password: "p" };
    const setup = await prepare({
      runtime,
      localAddresses: ["10.0.0.9", "2001:DB8::9"],
      localPort: 65_535,
      stunServers: ["192.0.2.1", "[2001:db8::1]:7", { address: "192.0.2.2", port: 9 }],
      turnServers: [{ server: "192.0.2.3:5", ...who }],
    });
    assertEquals(setup, {
      runtime,
      addresses: ["10.0.0.9", "2001:db8::9"],
      port: 65_535,
      servers: [
        { address: "192.0.2.1", port: 3478 },
        { address: "2001:db8::1", port: 7 },
        { address: "192.0.2.2", port: 9 },
      ],
      relays: [{ server: { address: "192.0.2.3", port: 5 }, ...who }],
    });
    assertEquals((await prepare({ runtime })).port, 0);
  });

  it("does without a server whose name nobody knows, unless it is the only one", async () => {
    const runtime = hostWith("192.168.1.5");
    const lost = "no-such-host.invalid";
    const turn = { username: "u", password: "p" };
    const known = await prepare({ runtime, stunServers: [lost, "192.0.2.1", lost] });
    assertEquals(known.servers, [{ address: "192.0.2.1", port: 3478 }]);
    const relayed = await prepare({
      runtime,
      stunServers: [lost],
      turnServers: [{ server: lost, ...turn }, { server: "192.0.2.3", ...turn }],
    });
    const relay = { server: { address: "192.0.2.3", port: 3478 }, ...turn };
    assertEquals([relayed.servers, relayed.relays], [[], [relay]]);
    for (const options of [{ stunServers: [lost] }, { turnServers: [{ server: lost, ...turn }] }]) {
      await assertRejects(() => prepare({ runtime, ...options }), NatError, lost);
    }
  });

  it("that cannot be opened keeps no process alive", async () => {
    for (const kind of [UdpRendezvous, TcpRendezvous]) {
      const runtime = hostWith("192.168.1.5");
      await assertRejects(() => kind.open({ runtime, timeoutMs: -1 }), RangeError, "timeoutMs");
      assertEquals([...runtime.timers].filter(({ keepAlive }) => keepAlive), []);
    }
  });

  it("names what cannot be", async () => {
    const runtime = hostWith("192.168.1.5");
    const turn = { server: "192.0.2.3", username: "u", password: "p" };
    const cases: readonly (readonly [RendezvousOptions, string])[] = [
      [{ localPort: -1 }, "'localPort'"],
      [{ localPort: 65_536 }, "'localPort'"],
      [{ localAddresses: ["here"] }, "'localAddresses'"],
      [{ stunServers: ["a b"] }, "'stunServers' must be HOST, HOST:PORT"],
      [{ stunServers: [{ address: "x", port: 1 }] }, "'stunServers'"],
      [{ stunServers: [{ address: "192.0.2.1", port: 0 }] }, "'stunServers.port'"],
      [{ turnServers: [{ ...turn, server: "" }] }, "'turnServers'"],
      [{ turnServers: [{ ...turn, username: "" }] }, "'turnServers.username'"],
      [{ turnServers: [{ ...turn, password: "" }] }, "'turnServers.password'"],
      [{ turnServers: [{ ...turn, password: 5 as unknown as string }] }, "'turnServers.password'"],
    ];
    for (const [options, name] of cases) {
      await assertRejects(() => prepare({ runtime, ...options }), Error, name);
    }
    const signal = AbortSignal.abort(new Error("enough"));
    await assertRejects(() => prepare({ runtime, signal }), Error, "enough");
  });

  it("that is given up while its servers are looked up ends with the reason", async () => {
    const controller = new AbortController();
    const preparing = prepare({ runtime: hostWith("10.0.0.1"), signal: controller.signal });
    controller.abort(new Error("enough"));
    await assertRejects(() => preparing, Error, "enough");
  });
});
