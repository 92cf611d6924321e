/**
 * natkit on Bun: UDP over `Bun.udpSocket`.
 *
 * @example
 * ```ts ignore
 * import { bunRuntime } from "natkit/bun";
 * const runtime = bunRuntime();
 * console.assert(runtime.name === "bun");
 * ```
 *
 * @module
 */
import process from "node:process";
import { familyOf } from "../core/ip.ts";
import { startTimer, systemNow } from "./clock.ts";
import { runProgram } from "./program.ts";
import type { Runtime, UdpHandlers, UdpOptions, UdpSocket } from "./runtime.ts";
import { readInterfaces, readTextFile } from "./system.ts";
import {
  bindEndpoint,
  boundEndpoint,
  cryptoRandom,
  destination,
  isRefusal,
  openError,
  reportError,
  socketFamily,
  sourceReader,
  wrongPeer,
} from "./udp.ts";

export type { Endpoint, Instant } from "../core/machine.ts";
export type { RandomSource } from "../core/random.ts";
export type { InterfaceAddress, Runtime, UdpHandlers, UdpOptions, UdpSocket } from "./runtime.ts";

/** What is used of Bun's UDP socket. */
interface BunUdpSocket {
  readonly address: { readonly address: string; readonly port: number };
  send(data: Uint8Array, port?: number, address?: string): boolean;
  addMembership(group: string, interfaceAddress?: string): boolean;
  close(): void;
}

/** What is used of the global `Bun`, which other runtimes' type checkers do not know. */
interface BunNamespace {
  udpSocket(options: {
    hostname: string;
    port: number;
    connect?: { hostname: string; port: number };
    flags?: number;
    socket: {
      data(socket: unknown, data: Uint8Array, port: number, address: string): void;
      error(error: unknown): void;
    };
  }): Promise<BunUdpSocket>;
}

/**
 * Bun's undocumented flags for SO_REUSEPORT and SO_REUSEADDR; its `reuseAddr` option is ignored.
 * Sockets share a port where both have the same one: Linux's others set the second, macOS's the
 * first.
 */
const REUSE_ADDRESS = 4 | 16;

/** How often a datagram is sent again that did not leave because of an earlier one's ICMP error. */
const SEND_ATTEMPTS = 4;

/** Bun as a {@linkcode Runtime}. */
export function bunRuntime(): Runtime {
  return {
    name: "bun",
    platform: process.platform,
    now: systemNow,
    random: cryptoRandom,
    setTimer: startTimer,
    openUdp,
    interfaces: readInterfaces,
    readTextFile,
    run: runProgram,
  };
}

async function openUdp(options: UdpOptions, handlers: UdpHandlers): Promise<UdpSocket> {
  const { Bun } = globalThis as unknown as { Bun: BunNamespace };
  const { connect: peer, multicast } = options;
  const bind = bindEndpoint(options);
  const readSource = sourceReader(options);
  let isClosed = false;
  const onError = (error: unknown) => {
    if (!isClosed) reportError(error, peer, handlers);
  };
  let socket: BunUdpSocket;
  try {
    socket = await Bun.udpSocket({
      hostname: bind.address,
      port: bind.port,
      ...(peer && { connect: { hostname: peer.address, port: peer.port } }),
      ...(options.reuseAddress && { flags: REUSE_ADDRESS }),
      socket: {
        data(_, data, port, address) {
          const from = readSource(address, port);
          if (from && !isClosed) handlers.onDatagram(data, from);
        },
        error: onError,
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
  return {
    local: boundEndpoint(socket.address, options),
    send(data, to) {
      if (isClosed) return;
      if (peer && (to.address !== peer.address || to.port !== peer.port)) {
        return handlers.onError(wrongPeer(to, peer));
      }
      for (let attempt = 1;; attempt++) {
        try {
          if (peer) socket.send(data);
          else socket.send(data, to.port, destination(to.address, family));
          return;
        } catch (error) {
          onError(error);
          // A refusal was an earlier datagram's; this one did not leave.
          if (isClosed || !isRefusal(error) || attempt === SEND_ATTEMPTS) return;
        }
      }
    },
    close() {
      if (isClosed) return;
      isClosed = true;
      socket.close();
    },
  };
}

/** IPv4 takes an address of the interface, IPv6 `::%name`. */
function join(socket: BunUdpSocket, group: string, name: string | undefined): void {
  if (name === undefined) socket.addMembership(group);
  else socket.addMembership(group, familyOf(group) === 4 ? name : `::%${name}`);
}
