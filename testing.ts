/**
 * What natkit's own tests are made of, for yours: the simulated gateway, on sockets or in virtual
 * time, and a virtual network with a clock that a test turns.
 *
 * @example A gateway on loopback, for a client under test
 * ```ts
 * import { openPort } from "@natkit/natkit";
 * import { startGateway } from "@natkit/natkit/testing";
 *
 * await using gateway = await startGateway({ external: "198.51.100.1" });
 * await using port = await openPort(8080, { gateway: gateway.endpoint });
 * console.assert(port.external.address === "198.51.100.1");
 *
 * await gateway.command("reboot"); // the client gets its mapping back by itself
 * ```
 *
 * @module
 */
export type * from "./core/machine.ts";
export type { Cidr } from "./core/cidr.ts";
export type { Transport } from "./core/mapping.ts";
export { type RandomSource, seededRandom } from "./core/random.ts";
export * from "./core/sim/mod.ts";
export * from "./core/gateway/mod.ts";
export * from "./core/table/mod.ts";
export type * from "./adapters/runtime.ts";
export {
  type GatewayServer,
  type GatewayServerOptions,
  startGateway,
} from "./adapters/gateway_server.ts";
