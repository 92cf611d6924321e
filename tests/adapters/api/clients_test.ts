import { describe, it } from "node:test";
import { assert, assertEquals, assertRejects } from "@std/assert";
import { NatPmpClient } from "../../../adapters/api/nat_pmp_client.ts";
import { PcpClient } from "../../../adapters/api/pcp_client.ts";
import { type GatewayServer, startGateway } from "../../../adapters/gateway_server.ts";
import { parseCidr } from "../../../core/cidr.ts";
import { NatError } from "../../../core/errors.ts";
import { FakeNetwork, GATEWAY, turn } from "./fake_network.ts";

async function withGateway(run: (gateway: GatewayServer) => Promise<void>): Promise<void> {
  const gateway = await startGateway({ announceTo: [] });
  try {
    await run(gateway);
  } finally {
    await gateway.close();
  }
}

/** The code of the NatError that a promise rejects with. */
const codeOf = (promise: Promise<unknown>): Promise<unknown> =>
  promise.then(() => "resolved", (error) => error instanceof NatError ? error.code : error);

describe("PcpClient", () => {
  it("maps with all that the protocol can do", async () => {
    await withGateway(async (gateway) => {
      const client = await PcpClient.open({ server: gateway.endpoint });
      const map = await client.map({
        protocol: 17,
        internalPort: 5000,
        suggestedExternal: { port: 5100 },
        filters: [{ prefix: parseCidr("198.51.100.0/24")!, port: 0 }],
        description: "a game",
      });
      const { state, external, description, nonce } = map.mapping;
      assertEquals([state, external?.port, description], ["running", 5100, "a game"]);
      assertEquals(gateway.entries()[0]?.nonce, nonce);
      const set = await client.map({ protocol: 6, internalPort: 6000, portSet: { size: 4 } });
      assertEquals(set.mapping.portSet?.size, 4);
      const peer = await client.peer({
        protocol: 6,
        internalPort: 7000,
        remote: { address: "198.51.100.9", port: 443 },
      });
      assertEquals(peer.mapping.remote?.port, 443);
      assert(await client.announce() >= 0);
      await map.renew(600);
      assertEquals(map.mapping.lifetimeSeconds, 600);
      await map.close();
      const types: string[] = [];
      for await (const { type } of map) types.push(type);
      assertEquals(types, ["renewed", "unmapped"]);
      await client.close();
      assertEquals(gateway.entries().filter(({ kind }) => kind === "explicit"), []);
    });
  });

  it("adopts the mappings of an earlier run", async () => {
    await withGateway(async (gateway) => {
      const first = await PcpClient.open({ server: gateway.endpoint });
      const handle = await first.map({ protocol: 6, internalPort: 8080 });
      const state = JSON.parse(JSON.stringify(first.exportState()));
      handle.release();
      await first.close();
      const before = gateway.entries()[0]?.expiresAt;
      const second = await PcpClient.open({ server: gateway.endpoint, state });
      const adopted = await second.map({ protocol: 6, internalPort: 8080 });
      assertEquals(adopted.mapping.external, handle.mapping.external);
      assertEquals(gateway.entries().length, 1);
      assert(gateway.entries()[0]!.expiresAt >= before!);
      await second.close();
      assertEquals(gateway.entries(), []);
    });
  });

  it("fails with the reason", async () => {
    await withGateway(async (gateway) => {
      const client = await PcpClient.open({ server: gateway.endpoint });
      await assertRejects(() => client.map({ protocol: 300, internalPort: 1 }), RangeError, "300");
      await gateway.command("refuse 10");
      const error: NatError = await assertRejects(
        () => client.map({ protocol: 6, internalPort: 1 }),
        NatError,
      );
      assertEquals(error.code, "refused");
      const { address, port } = gateway.endpoint;
      assertEquals(error.attempts.map(({ elapsedMs: _, ...attempt }) => attempt), [
        { via: "pcp", gateway: `${address}:${port}`, outcome: "USER_EX_QUOTA" },
      ]);
      await gateway.command("deaf 1000");
      const timeoutMs = 20;
      assertEquals(
        await codeOf(client.map({ protocol: 6, internalPort: 2 }, { timeoutMs })),
        "no-answer",
      );
      assertEquals(await codeOf(client.announce({ timeoutMs })), "no-answer");
      await client.close();
      assertEquals(await codeOf(client.map({ protocol: 6, internalPort: 3 })), "closed");
    });
  });
});

describe("NatPmpClient", () => {
  it("tells the address, maps, renews and deletes", async () => {
    await withGateway(async (gateway) => {
      const client = await NatPmpClient.open({ gateway: gateway.endpoint });
      assertEquals(await client.externalAddress(), "203.0.113.7");
      const handle = await client.map({ protocol: "tcp", internalPort: 8080 });
      assertEquals(handle.mapping.externalAddress, "203.0.113.7");
      await handle.renew(600);
      assertEquals(handle.mapping.lifetimeSeconds, 600);
      await client.map({ protocol: "tcp", internalPort: 8081 });
      await client.map({ protocol: "udp", internalPort: 8082 });
      await client.unmapAll("tcp");
      assertEquals(gateway.entries().map(({ internal }) => internal.port), [8082]);
      await client.close();
      assertEquals(gateway.entries(), []);
    });
  });

  it("fails with the reason", async () => {
    await withGateway(async (gateway) => {
      await assertRejects(() => NatPmpClient.open({ gateway: "::1" }), TypeError, "IPv4");
      // The announcements of the gateway's start would answer, too.
      const client = await NatPmpClient.open({ gateway: gateway.endpoint, announcements: false });
      await gateway.command("protocol nat-pmp off");
      assertEquals(await codeOf(client.externalAddress()), "unsupported");
      await gateway.command("protocol nat-pmp on");
      await gateway.command("external none");
      assertEquals(await codeOf(client.externalAddress()), "refused");
      await client.close();
    });
  });
});

describe("a single client's sockets", () => {
  const opened = async (options: object, address = GATEWAY) => {
    const runtime = new FakeNetwork();
    runtime.interfaces = () => [
      { name: "lo", address: "::1", prefixLength: 128, internal: true },
      { name: "eth0", address: "192.0.2.7", prefixLength: 24, internal: false },
      { name: "eth0", address: "2001:db8::7", prefixLength: 64, internal: false },
    ];
    const openUdp = runtime.openUdp.bind(runtime);
    // Where it was bound is where it is.
    runtime.openUdp = async (options, handlers) => ({
      ...await openUdp(options, handlers),
      ...options.local?.port === 0 && { local: { ...options.local, port: 40_000 } },
    });
    const client = await PcpClient.open({ server: address, runtime, ...options });
    await turn();
    await client.close();
    assertEquals(runtime.sockets.map(({ isClosed }) => isClosed), runtime.sockets.map(() => true));
    return runtime.sockets.map(({ options }) => options);
  };

  it("lead to the gateway, and listen for it on the same way", async () => {
    const multicast = { group: "224.0.0.1", interface: "192.0.2.7" };
    const listening = {
      local: { address: "224.0.0.1", port: 5350 },
      reuseAddress: true,
      multicast,
    };
    assertEquals(await opened({}), [{ connect: GATEWAY }, listening]);
    assertEquals(await opened({ announcements: false }), [{ connect: GATEWAY }]);
  });

  it("are bound to the address that is named", async () => {
    const local = { address: "192.0.2.7", port: 0 };
    assertEquals(await opened({ internalAddress: "192.0.2.7", announcements: false }), [
      { connect: GATEWAY, local },
    ]);
  });

  it("over IPv6 listen on the interface of their address where the gateway names none", async () => {
    const gateway = { address: "2001:db8::1", port: 5351 };
    const [, second] = await opened({}, gateway);
    assertEquals(second?.multicast, { group: "ff02::1", interface: "eth0" });
  });

  it("over IPv6 leave from a global address, though the gateway is link-local (PCP-C-24)", async () => {
    const gateway = { address: "fe80::1%eth0", port: 5351 };
    const [first, second] = await opened({}, gateway);
    assertEquals(first, { connect: gateway, local: { address: "2001:db8::7", port: 0 } });
    assertEquals(second?.multicast, { group: "ff02::1", interface: "eth0" });
  });
});
