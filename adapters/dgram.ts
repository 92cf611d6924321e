/**
 * UDP over `node:dgram`: what Node uses, and Deno where it was not given its own UDP API.
 *
 * @module
 */
import { createSocket, type RemoteInfo, type Socket } from "node:dgram";
import { familyOf } from "../core/ip.ts";
import type { UdpHandlers, UdpOptions, UdpSocket } from "./runtime.ts";
import {
  bindEndpoint,
  boundEndpoint,
  destination,
  isRefusal,
  openError,
  reportError,
  socketFamily,
  sourceReader,
  wrongPeer,
} from "./udp.ts";

/**
 * Opens a socket of `node:dgram`.
 *
 * @throws {NatError} `permission` or `network`.
 */
export async function openDgram(options: UdpOptions, handlers: UdpHandlers): Promise<UdpSocket> {
  const { connect: peer, multicast } = options;
  const family = socketFamily(options);
  const socket = createSocket({
    type: family === 4 ? "udp4" : "udp6",
    reuseAddr: options.reuseAddress ?? false,
    // Addresses here are never names, so there is nothing to look up.
    lookup: (host, _, callback) => callback(null, host, family),
  });
  let isOpen = false;
  const onError = (error: unknown) => {
    if (error && isOpen) reportError(error, peer, handlers);
  };
  socket.on("error", onError);
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
  socket.on("message", (data: Uint8Array, { address, port }: RemoteInfo) => {
    const from = readSource(address, port);
    if (from && isOpen) handlers.onDatagram(data, from);
  });
  const transmit = (data: Uint8Array, isAgain: boolean) => {
    if (!isOpen) return;
    socket.send(data, (error) => {
      onError(error);
      // The refusal was an earlier datagram's; this one did not leave.
      if (error && !isAgain && isRefusal(error)) transmit(data, true);
    });
  };
  return {
    local: boundEndpoint(socket.address(), options),
    send(data, to) {
      if (!isOpen) return;
      try {
        if (!peer) socket.send(data, to.port, destination(to.address, family), onError);
        else if (to.address === peer.address && to.port === peer.port) transmit(data, false);
        else handlers.onError(wrongPeer(to, peer));
      } catch (error) {
        onError(error);
      }
    },
    close() {
      if (!isOpen) return;
      isOpen = false;
      socket.close();
    },
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
