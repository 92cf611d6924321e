/**
 * Port mapping at one gateway, whatever protocol it speaks.
 *
 * @module
 */
export * from "./events.ts";
export * from "./request.ts";
export type { SavedMapping } from "./saved.ts";
export { GatewaySession, type GatewaySessionOptions, type GatewaySessionStats } from "./session.ts";
