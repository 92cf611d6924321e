/**
 * Port mapping at one gateway, whatever protocol it speaks.
 *
 * @module
 */
export * from "./events.ts";
export * from "./request.ts";
export type { SavedMapping } from "./saved.ts";
export { GatewaySession } from "./session.ts";
export type { GatewaySessionOptions, GatewaySessionStats } from "./session_options.ts";
