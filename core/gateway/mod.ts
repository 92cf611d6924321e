/**
 * The simulated gateway: PCP and NAT-PMP servers and an Internet gateway device over one mapping
 * table, scenarios, and the peculiarities of gateways met in the field.
 *
 * @module
 */
export { type GatewayStats, SimulatedGateway, type SimulatedGatewayOptions } from "./gateway.ts";
export type { GatewayDecision, RequestMatch, RequestRule } from "./policy.ts";
export type { GatewayProtocol, Profile } from "./profile.ts";
export { profileNamed, PROFILES } from "./profiles.ts";
export { type Disturbance } from "./egress.ts";
export type { HttpChange, HttpMatch, HttpRule, HttpStrictness, HttpWish } from "./http.ts";
export type { UpnpOptions } from "./options.ts";
export type { ReplyChange, ReplyMatch, ReplyRule } from "./reshape.ts";
export { type CommandOutcome, runCommand } from "./run_command.ts";
export {
  type CommandHelp,
  COMMANDS,
  type GatewayCommand,
  listCommands,
  parseCommand,
  type ParsedCommand,
} from "./scenario.ts";
