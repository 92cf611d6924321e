/**
 * A gateway to test clients against: on real sockets, in virtual time, and a virtual network with
 * a clock that a test turns. natkit's own tests are made of the same parts.
 *
 * On real sockets {@linkcode startGateway} takes a free port on loopback, so that tests can run
 * side by side; point the client under test at `gateway.endpoint`. `gateway.command` makes things
 * go wrong as `natkit gateway` does from the shell: `reboot`, `external 198.51.100.9`, `deaf 3`,
 * `refuse 2`, `loss 0.3`… (`help` lists them), and `profile` gives it the quirks of a gateway met
 * in the field. Clients in other languages: `npx natkit gateway --listen 127.0.0.1`, which reads
 * the same commands from its standard input.
 *
 * @example On Deno
 * ```ts
 * import { openPort } from "@natkit/natkit";
 * import { startGateway } from "@natkit/natkit/testing";
 *
 * Deno.test("the port is open", async () => {
 *   await using gateway = await startGateway({ external: "198.51.100.1" });
 *   await using port = await openPort(8080, { gateway: gateway.endpoint });
 *   if (port.external.address !== "198.51.100.1") throw new Error("elsewhere");
 * });
 * ```
 *
 * @example On Node
 * ```ts ignore
 * import assert from "node:assert";
 * import test from "node:test";
 * import { Nat } from "natkit";
 * import { startGateway } from "natkit/testing";
 *
 * test("every mapping is gone after close", async () => {
 *   const gateway = await startGateway({ profile: "miniupnpd" });
 *   const nat = await Nat.open({ gateway: gateway.endpoint });
 *   await nat.map(8080);
 *   assert.equal(gateway.entries().length, 1);
 *   await nat.close();
 *   assert.equal(gateway.entries().length, 0);
 *   await gateway.close();
 * });
 * ```
 *
 * @example On Bun
 * ```ts ignore
 * import { expect, test } from "bun:test";
 * import { openPort } from "natkit";
 * import { startGateway } from "natkit/testing";
 *
 * test("a refusal says why", async () => {
 *   const gateway = await startGateway();
 *   await gateway.command("refuse 2");
 *   const failure = await openPort(8080, { gateway: gateway.endpoint }).catch((error) => error);
 *   expect(failure.code).toBe("refused");
 *   await gateway.close();
 * });
 * ```
 *
 * @example In virtual time: no sockets, no waiting
 * ```ts
 * import { PortMapper } from "@natkit/natkit/core";
 * import { seededRandom, SimulatedGateway } from "@natkit/natkit/testing";
 *
 * const client = { address: "192.168.1.2", port: 40000 };
 * const server = { address: "192.168.1.1", port: 5351 };
 * const random = seededRandom(1);
 * const gateway = new SimulatedGateway({ externalAddresses: ["203.0.113.7"], random });
 * const mapper = new PortMapper({ random });
 *
 * gateway.start(0);
 * mapper.networkChanged([{ gateway: server, localAddress: client.address }], 1000);
 * mapper.handleSocket(mapper.sockets()[0]!.key, { ok: true, local: client }, 1000);
 * mapper.map({ protocol: "tcp", internalPort: 8080 }, 1000);
 * for (let action = mapper.poll(); action; action = mapper.poll()) {
 *   if (action.type === "send") gateway.handleDatagram(action.data, client, "server", 1000);
 * }
 * console.assert(gateway.list(1000)[0]?.internal.port === 8080);
 * ```
 *
 * @module
 */
export type * from "./core/machine.ts";
export type { Cidr } from "./core/cidr.ts";
export type { Family } from "./core/ip.ts";
export type { RemoteFilter, Transport } from "./core/mapping.ts";
export type { NatPmpRequest } from "./core/natpmp/codec.ts";
export type { Prefix64 } from "./core/pcp/prefix64.ts";
export * from "./core/natpmp/server.ts";
export * from "./core/pcp/server.ts";
export * from "./core/upnp/server.ts";
export { type RandomSource, seededRandom } from "./core/random.ts";
export * from "./core/sim/mod.ts";
export * from "./core/gateway/mod.ts";
export * from "./core/table/mod.ts";
export type * from "./adapters/runtime.ts";
export {
  RunningStunServer,
  startStunServer,
  type StartStunServerOptions,
} from "./adapters/stun_server.ts";
export type { StunServer, StunServerEvent, StunServerOptions } from "./core/stun/server.ts";
export {
  type GatewayServer,
  type GatewayServerOptions,
  startGateway,
} from "./adapters/gateway_server.ts";
