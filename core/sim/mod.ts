/**
 * A virtual network to run machines against each other: virtual time, links that delay and lose,
 * hosts, NATs of every kind, a trace and pcap.
 *
 * @example A machine on a host
 * ```ts
 * import { type Action, type Machine, World } from "@natkit/natkit/testing";
 *
 * // Sends one datagram a second.
 * class Beacon implements Machine<never> {
 *   #next = 0;
 *   #out: Action<never>[] = [];
 *   readonly stats = {};
 *   handleDatagram = () => false;
 *   handleUnreachable() {}
 *   handleTimeout(now: number) {
 *     if (now < this.#next) return;
 *     this.#next = now + 1000;
 *     const to = { address: "192.168.1.1", port: 9 };
 *     this.#out.push({ type: "send", socket: "client", to, data: new Uint8Array(1) });
 *   }
 *   nextTimeout = () => this.#next;
 *   poll = () => this.#out.shift();
 *   debugTimeout = () => ({ at: this.#next, reason: "beacon" });
 * }
 *
 * const world = new World({ seed: 1 });
 * const lan = world.segment("lan", { delayMs: 2, jitterMs: 1, loss: 0.01 });
 * const sink = world.host("sink");
 * sink.attach(lan, "192.168.1.1");
 * let heard = 0;
 * sink.bind({ port: 9 }).onDatagram = () => heard++;
 *
 * const host = world.host("host");
 * host.attach(lan, "192.168.1.2");
 * host.run(new Beacon(), { client: {} });
 * world.runFor(3_600_000); // an hour, in milliseconds
 * console.assert(heard > 3500 && heard <= 3601);
 * ```
 *
 * @module
 */
export {
  type HttpSegment,
  type Packet,
  type PacketProtocol,
  type QuotedPacket,
  type Verdict,
} from "./packet.ts";
export type { HttpHost, TcpPort, TcpReceiver } from "./http.ts";
export { Link, type LinkOptions } from "./link.ts";
export {
  Interface,
  type InterfaceOptions,
  type Receiver,
  Segment,
  type Sleeper,
} from "./segment.ts";
export { Host, type HostOptions, type Router } from "./host.ts";
export { SimSocket, type SocketHost, type SocketOptions } from "./socket.ts";
export {
  Process,
  type ProcessHost,
  type ProcessOptions,
  type ProcessSockets,
  SimulationError,
  type TimedEvent,
} from "./process.ts";
export { Nat } from "./nat.ts";
export { type NatHairpin, type NatOptions, type PortForwarder } from "./nat_options.ts";
export { type NatDependence, type NatMapping, type NatPortAssignment } from "./nat_table.ts";
export { SimStream } from "./streams.ts";
export { StrictMachine } from "./strict.ts";
export {
  type Crossing,
  type NoteEntry,
  type PacketDecoder,
  type PacketEntry,
  Trace,
  type TraceEntry,
  type TraceOptions,
} from "./trace.ts";
export { encodePcap, type PcapRecord } from "./pcap.ts";
export { type NatBoxOptions, World, type WorldOptions } from "./world.ts";
