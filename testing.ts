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
export * from "./core/sim/mod.ts";
export { type GatewayEvent, type GatewayStats, SimulatedGateway } from "./core/gateway/gateway.ts";
export type { SimulatedGatewayOptions } from "./core/gateway/options.ts";
export type { GatewayQuestion, GatewayVerdict, RequestRule } from "./core/gateway/policy.ts";
export type { GatewayProtocol, Profile } from "./core/gateway/profile.ts";
export { profileNamed, PROFILES } from "./core/gateway/profiles.ts";
export { type CommandOutcome, runCommand } from "./core/gateway/run_command.ts";
export {
  type CommandHelp,
  COMMANDS,
  type GatewayCommand,
  parseCommand,
  type ParsedCommand,
} from "./core/gateway/scenario.ts";
export { type RandomSource, seededRandom } from "./core/random.ts";
export {
  GatewayServer,
  type GatewayServerOptions,
  startGateway,
} from "./adapters/gateway_server.ts";
