/** Whoever opens a port behind two NATs is told the outer endpoint, by whichever promise. */
import { describe, it } from "node:test";
import { assert, assertEquals } from "@std/assert";
import { Nat } from "../../../adapters/api/nat.ts";
import { openPort } from "../../../adapters/api/open_port.ts";
import type { SimulatedGateway } from "../../../core/gateway/gateway.ts";
import type { Endpoint } from "../../../core/machine.ts";
import { FakeNetwork, GATEWAY } from "./fake_network.ts";

const ABOVE = "10.0.0.1";
const BETWEEN = "10.0.0.2";
const OUTSIDE = "203.0.113.9";

/** A host behind two gateways. */
function twoGateways(): { net: FakeNetwork; outer: SimulatedGateway } {
  const net = new FakeNetwork();
  net.command(`external ${BETWEEN}`);
  net.seenAs.set(ABOVE, BETWEEN);
  return { net, outer: net.addGateway(ABOVE, OUTSIDE) };
}

const options = (runtime: FakeNetwork) =>
  ({ runtime, gateway: GATEWAY, announcements: false, protocols: ["pcp", "nat-pmp"] }) as const;

/** What each way to open a port tells of it, and how it is closed. */
const WAYS: Record<
  string,
  (net: FakeNetwork) => Promise<{ outside: () => Endpoint[]; close: () => Promise<void> }>
> = {
  openPort: async (net) => {
    const port = await openPort(8080, options(net));
    return { outside: () => [port.external], close: () => port.close() };
  },
  "Nat.map": async (net) => {
    const nat = await Nat.open(options(net));
    const port = await nat.map(8080);
    assertEquals(port.gatewayExternal, { address: BETWEEN, port: 8080 });
    return {
      outside: () => [port.external],
      close: () => port.close().then(() => nat.close()),
    };
  },
  "Nat.bindUdp": async (net) => {
    const nat = await Nat.open(options(net));
    const socket = await nat.bindUdp({ onDatagram() {} });
    const outside = () =>
      socket.assignments.filter(({ via }) => via !== "local")
        .map(({ address, port }) => ({ address, port }));
    return { outside, close: () => socket.close().then(() => nat.close()) };
  },
};

describe("behind two NATs", () => {
  for (const [name, open] of Object.entries(WAYS)) {
    it(`${name} maps through both, and deletes at both`, async () => {
      const { net, outer } = twoGateways();
      const opening = open(net);
      await net.pass(2000);
      const { outside, close } = await opening;
      assertEquals(outside().at(-1)?.address, OUTSIDE);
      const [entry] = outer.list(net.time);
      assertEquals(entry?.external.port, outside().at(-1)?.port);
      assertEquals([net.ports().length, entry?.internal.address], [1, BETWEEN]);
      const closing = close();
      await net.pass(3000);
      await closing;
      assertEquals([net.ports(), outer.list(net.time)], [[], []]);
    });
  }

  for (const protocols of [["pcp"], ["nat-pmp"]] as const) {
    it(`unmap() deletes at both what an earlier run left, by ${protocols[0]}`, async () => {
      const { net, outer } = twoGateways();
      const first = await Nat.open({ ...options(net), protocols });
      const opening = first.map(8080);
      await net.pass(2000);
      const port = await opening;
      await net.pass(20_000);
      const state = await first.exportState();
      await port.release();
      const closing = first.close();
      await net.pass(3000);
      await closing;
      assertEquals([net.ports().length, outer.list(net.time).length], [1, 1]);
      const nat = await Nat.open({ ...options(net), protocols, state });
      const unmapping = nat.unmap(8080);
      await net.pass(3000);
      assertEquals((await unmapping).map(({ gateway }) => gateway), [GATEWAY.address, ABOVE]);
      assertEquals([net.ports(), outer.list(net.time)], [[], []]);
      await nat.close();
    });
  }

  it("who waits for less than a second has what the gateway granted, and the rest later", async () => {
    const { net, outer } = twoGateways();
    outer.setDeaf(5, net.time);
    const nat = await Nat.open(options(net));
    const opening = nat.map(8080, { timeoutMs: 300 });
    await net.pass(400);
    const port = await opening;
    assertEquals([port.external.address, port.isDoubleNat], [BETWEEN, true]);
    await net.pass(10_000);
    assertEquals([port.external.address, port.isDoubleNat], [OUTSIDE, false]);
    const closing = nat.close();
    await net.pass(3000);
    await closing;
    assertEquals(net.ports(), []);
  });

  it("a gateway above that is silent costs a second, and the port is told as it is", async () => {
    const net = new FakeNetwork();
    net.command(`external ${BETWEEN}`);
    const opening = openPort(8080, options(net));
    await net.pass(1500);
    const port = await opening;
    assert(port.isDoubleNat && port.state === "open" && port.gatewayExternal === undefined);
    assertEquals(port.external, { address: BETWEEN, port: 8080 });
    const closing = port.close();
    await net.pass(3000);
    await closing;
    assertEquals(net.ports(), []);
  });
});
