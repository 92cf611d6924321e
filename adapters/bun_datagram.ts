/**
 * UDP over `Bun.udpSocket`.
 *
 * @module
 */
import { familyOf, isSameEndpoint } from "../core/ip.ts";
import type { Endpoint } from "../core/machine.ts";
import type { UdpHandlers, UdpOptions, UdpSocket } from "./runtime.ts";
import {
  bindEndpoint,
  boundEndpoint,
  destination,
  isBelated,
  openError,
  queueFull,
  reportError,
  sendByEach,
  type SendOne,
  SendQueue,
  socketFamily,
  sourceReader,
  wrongPeer,
} from "./udp.ts";

/** What is used of Bun's UDP socket. */
interface BunUdpSocket {
  readonly address: { readonly address: string; readonly port: number };
  /** False where the system takes nothing at present; `drain` tells when it does. */
  send(data: Uint8Array, port?: number, address?: string): boolean;
  addMembership(group: string, interfaceAddress?: string): boolean;
  setMulticastInterface(interfaceAddress: string): boolean;
  close(): void;
  unref(): void;
  ref(): void;
}

/** `Bun.udpSocket`, which other runtimes' type checkers do not know. */
export type UdpSocketFunction = (options: {
  hostname: string;
  port: number;
  connect?: { hostname: string; port: number };
  flags?: number;
  socket: {
    data(socket: unknown, data: Uint8Array, port: number, address: string): void;
    drain(): void;
    error(error: unknown): void;
  };
}) => Promise<BunUdpSocket>;

/**
 * Bun's undocumented flags for SO_REUSEPORT and SO_REUSEADDR; its `reuseAddr` option is ignored.
 * Sockets share a port where both have the same one: Linux's others set the second, macOS's the
 * first.
 */
const REUSE_ADDRESS = 4 | 16;

/** How often a datagram is sent again that did not leave because of an earlier one's ICMP error. */
const SEND_ATTEMPTS = 4;

/**
 * Opens a socket of `Bun.udpSocket`.
 *
 * @throws {NatError} `permission` or `network`.
 */
export async function openUdpSocket(
  udpSocket: UdpSocketFunction,
  options: UdpOptions,
  handlers: UdpHandlers,
): Promise<UdpSocket> {
  const { connect: peer, multicast } = options;
  const bind = bindEndpoint(options);
  const readSource = sourceReader(options);
  let isClosed = false;
  const onError = (error: unknown, to?: Endpoint) => {
    if (!isClosed) reportError(error, peer, handlers, to);
  };
  let onDrain = () => {};
  let socket: BunUdpSocket;
  try {
    socket = await udpSocket({
      hostname: bind.address,
      port: bind.port,
      ...(peer && { connect: { hostname: peer.address, port: peer.port } }),
      ...(options.reuseAddress && { flags: REUSE_ADDRESS }),
      socket: {
        data(_, data, port, address) {
          const from = readSource(address, port);
          if (from && !isClosed) handlers.onDatagram(data, from);
        },
        drain: () => onDrain(),
        error: (error) => onError(error),
      },
    });
  } catch (error) {
    throw openError(error, options);
  }
  try {
    if (multicast) join(socket, multicast.group, multicast.interface);
  } catch (error) {
    socket.close();
    throw openError(error, options);
  }
  const family = socketFamily(options);
  const sendOne: SendOne = (data, to, done) => {
    let belated: unknown;
    for (let attempt = 1;; attempt++) {
      try {
        const isTaken = peer
          ? socket.send(data)
          : socket.send(data, to.port, destination(to.address, family));
        // Where it was told to an unconnected socket, nobody knows whose answer it was.
        if (belated && peer) onError(belated, to);
        if (isTaken) return done();
        onDrain = () => {
          onDrain = () => {};
          sendOne(data, to, done);
        };
        return;
      } catch (error) {
        if (isBelated(error) && attempt < SEND_ATTEMPTS) belated = error;
        else {
          onError(error, to);
          return done();
        }
      }
    }
  };
  const queue = new SendQueue(
    sendByEach(options, (address) => socket.setMulticastInterface(address), sendOne, onError),
  );
  return {
    local: boundEndpoint(socket.address, options),
    send(data, to) {
      if (isClosed) return;
      if (peer && !isSameEndpoint(to, peer)) {
        handlers.onError(wrongPeer(to, peer), to);
      } else if (!queue.push(data, to)) handlers.onError(queueFull(to), to);
    },
    close() {
      if (isClosed) return;
      isClosed = true;
      queue.whenIdle(() => socket.close());
    },
    unref: () => socket.unref(),
    ref: () => socket.ref(),
  };
}

/** IPv4 takes an address of the interface, IPv6 `::%name`. */
function join(socket: BunUdpSocket, group: string, name: string | undefined): void {
  if (name === undefined) socket.addMembership(group);
  else socket.addMembership(group, familyOf(group) === 4 ? name : `::%${name}`);
}
