/**
 * UDP over `node:dgram`: what Node uses, and Deno where it was not given its own UDP API.
 *
 * @module
 */
import { createSocket, type RemoteInfo, type Socket } from "node:dgram";
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

/**
 * Opens a socket of `node:dgram`.
 *
 * @param keepsOrder Whether datagrams leave in the order of the calls by themselves, while the
 *   socket has no peer: Deno's do not.
 * @throws {NatError} `permission` or `network`.
 */
export async function openDgram(
  options: UdpOptions,
  handlers: UdpHandlers,
  keepsOrder: boolean = true,
): Promise<UdpSocket> {
  const { connect: peer, multicast } = options;
  const family = socketFamily(options);
  const socket = createSocket({
    type: family === 4 ? "udp4" : "udp6",
    reuseAddr: options.reuseAddress ?? false,
    // Addresses here are never names, so there is nothing to look up.
    lookup: (host, _, callback) => callback(null, host, family),
  });
  let isOpen = false;
  const onError = (error: unknown, to?: Endpoint) => {
    if (isOpen) reportError(error, peer, handlers, to);
  };
  // It stays for good: an error event without a listener is an uncaught exception.
  socket.on("error", (error) => onError(error));
  try {
    await settled(socket, (done) => {
      const { address, port } = bindEndpoint(options);
      socket.bind({ address, port }, done);
    });
    if (peer) await settled(socket, (done) => socket.connect(peer.port, peer.address, done));
    if (multicast) socket.addMembership(multicast.group, membership(multicast));
  } catch (error) {
    socket.close();
    throw openError(error, options);
  }
  isOpen = true;
  const readSource = sourceReader(options);
  const onMessage = (data: Uint8Array, { address, port }: RemoteInfo) => {
    const from = readSource(address, port);
    if (from && isOpen) handlers.onDatagram(data, from);
  };
  socket.on("message", onMessage);
  const post = (data: Uint8Array, to: Endpoint, done: (error?: unknown) => void) => {
    try {
      if (peer) socket.send(data, done);
      else socket.send(data, to.port, destination(to.address, family), done);
    } catch (error) {
      done(error);
    }
  };
  const sendOne: SendOne = (data, to, done) =>
    post(data, to, (first) => {
      if (first && peer && isBelated(first)) {
        post(data, to, (error) => {
          onError(error ?? first, to);
          done();
        });
        return;
      }
      if (first) onError(first, to);
      done();
    });
  const queue = new SendQueue(
    sendByEach(options, (address) => socket.setMulticastInterface(address), sendOne, onError),
  );
  // The interface that was chosen for one is to stay until that one has left.
  const mayPass = keepsOrder && !peer && !options.multicastBy;
  return {
    local: boundEndpoint(socket.address(), options),
    send(data, to) {
      if (!isOpen) return;
      if (peer && !isSameEndpoint(to, peer)) {
        handlers.onError(wrongPeer(to, peer), to);
      } else if (mayPass) sendOne(data, to, () => {});
      else if (!queue.push(data, to)) handlers.onError(queueFull(to), to);
    },
    close() {
      if (!isOpen) return;
      isOpen = false;
      queue.whenIdle(() => socket.close());
    },
    unref: () => void socket.unref(),
    ref: () => void socket.ref(),
    ...(options.isDetachable && {
      detach() {
        isOpen = false;
        socket.off("message", onMessage);
        return socket;
      },
    }),
  };
}

/** Runs one step that ends with its callback or with an `error` event. */
function settled(socket: Socket, step: (done: (error?: Error) => void) => void): Promise<void> {
  return new Promise((resolve, reject) => {
    socket.once("error", reject);
    step((error) => {
      socket.off("error", reject);
      if (error) reject(error);
      else resolve();
    });
  });
}

/** What `addMembership` takes for the interface: IPv4 its address, IPv6 `::%name`. */
function membership(multicast: { group: string; interface?: string }): string | undefined {
  const name = multicast.interface;
  return name === undefined || familyOf(multicast.group) === 4 ? name : `::%${name}`;
}
