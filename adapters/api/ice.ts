/**
 * Two peers behind NATs reach each other: each makes a ticket, they trade them by whatever way they
 * have (a chat, a QR code, a server of their own), and punch with each other's.
 *
 * @example UDP, both peers in one program
 * ```ts
 * import { punchUdp, UdpRendezvous } from "@natkit/natkit/ice";
 *
 * const options = { localAddresses: ["127.0.0.1"] }; // In earnest: { stunServers: ["HOST:PORT"] }
 * const other = await UdpRendezvous.open(options);
 * const answering = punchUdp((ticket) => {
 *   // A chat or a server of your own would carry both tickets.
 *   void other.punch(ticket).then((channel) => channel.send(new TextEncoder().encode("hello")));
 *   return other.ticket;
 * }, options);
 * const channel = await answering;
 * for await (const data of channel) {
 *   console.assert(new TextDecoder().decode(data) === "hello");
 *   break;
 * }
 * await channel.close();
 * await other.close();
 * ```
 *
 * {@linkcode UdpRendezvous} and {@linkcode TcpRendezvous} do the same in two steps. Beneath are two
 * machines for event loops of one's own: {@linkcode IceAgent}, with any ICE stack at the other end,
 * and {@linkcode TcpPunch}.
 *
 * @module
 */
export * from "../../core/ice/mod.ts";
export type { TcpConnection } from "./bound_socket.ts";
export { type PunchedTcp, punchTcp, TcpRendezvous } from "./punch_tcp.ts";
export { type DetachedSocket, punchUdp, UdpChannel, UdpRendezvous } from "./punch.ts";
export type {
  MappedPort,
  PortOpener,
  PunchOptions,
  RendezvousOptions,
  RendezvousSide,
  TurnServer,
} from "./rendezvous.ts";
