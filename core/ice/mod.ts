/**
 * ICE (RFC 8445): two peers behind NATs meet. Each makes a ticket, they trade them by whatever way
 * they have (a chat, a QR code, a server of their own), and then they talk to each other directly.
 *
 * {@linkcode IceAgent} is the machine for UDP; any ICE stack can be at the other end.
 * {@linkcode TcpPunch} is the one for TCP.
 *
 * @module
 */
export * from "./agent.ts";
export {
  type Candidate,
  candidatePriority,
  type CandidateType,
  formatCandidate,
  pairPriority,
  parseCandidate,
  type TcpType,
} from "./candidate.ts";
export type { RelayServer } from "./relays.ts";
export * from "./tcp.ts";
export * from "./ticket.ts";
export type * from "../machine.ts";
export type { Transport } from "../mapping.ts";
export type { RandomSource } from "../random.ts";
