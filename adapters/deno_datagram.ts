/**
 * What natkit uses of the global `Deno`, as a structural type (other runtimes' type checkers do
 * not know that global), and UDP over its `listenDatagram`.
 *
 * @module
 */
import {
  boundEndpoint,
  destination,
  openError,
  queueFull,
  reportError,
  SendQueue,
  socketFamily,
  sourceReader,
} from "./udp.ts";
import type { DenoCommand } from "./program.ts";
import type { UdpHandlers, UdpOptions, UdpSocket } from "./runtime.ts";

interface DenoAddress {
  readonly transport: "udp";
  readonly hostname: string;
  readonly port: number;
}

interface DenoDatagram {
  readonly addr: DenoAddress;
  receive(buffer: Uint8Array): Promise<[Uint8Array, DenoAddress]>;
  send(data: Uint8Array, to: DenoAddress): Promise<number>;
  joinMulticastV4(group: string, interfaceAddress: string): Promise<unknown>;
  close(): void;
  unref(): void;
  ref(): void;
}

/** `Deno.listenDatagram`. */
export type ListenDatagram = (
  options: DenoAddress & { reuseAddress: boolean; loopback: boolean },
) => DenoDatagram;

type Permission =
  | { readonly name: "net"; readonly host?: string }
  | { readonly name: "read"; readonly path: string };

/** What is used of `Deno`. */
export interface DenoNamespace {
  /** Only there with `--unstable-net`. */
  readonly listenDatagram?: ListenDatagram;
  /** Asking for permissions. */
  readonly permissions: {
    request(permission: Permission): Promise<{ readonly state: string }>;
    querySync(permission: Permission): { readonly state: string };
  };
  /** Running programs. */
  readonly Command: DenoCommand;
}

/** After so many failures in a row to receive, a socket is given up. */
const MAX_FAILURES = 8;

/**
 * Opens a socket without a peer.
 *
 * @throws {NatError} `permission` or `network`.
 */
export async function listenNative(
  listen: ListenDatagram,
  options: UdpOptions,
  handlers: UdpHandlers,
): Promise<UdpSocket> {
  const { local, multicast, reuseAddress = false } = options;
  const { address: hostname, port } = local!;
  let socket: DenoDatagram;
  try {
    // A sender's `loopback` decides whether this host hears its multicast; systems say yes.
    socket = listen({ transport: "udp", hostname, port, reuseAddress, loopback: true });
  } catch (error) {
    throw openError(error, options);
  }
  try {
    if (multicast) await socket.joinMulticastV4(multicast.group, multicast.interface ?? "0.0.0.0");
  } catch (error) {
    socket.close();
    throw openError(error, options);
  }
  const family = socketFamily(options);
  const readSource = sourceReader(options);
  let isClosed = false;
  const receive = async () => {
    // Without a buffer of ours Deno makes a new one of 64 KiB for each datagram.
    const buffer = new Uint8Array(65536);
    for (let failures = 0; !isClosed && failures < MAX_FAILURES;) {
      try {
        const [data, source] = await socket.receive(buffer);
        failures = 0;
        const from = readSource(source.hostname, source.port);
        if (from && !isClosed) handlers.onDatagram(data, from);
      } catch (error) {
        failures++;
        if (!isClosed) reportError(error, undefined, handlers);
      }
    }
  };
  receive();
  const queue = new SendQueue((data, to, done) => {
    const hostname = destination(to.address, family);
    socket.send(data, { transport: "udp", hostname, port: to.port })
      .catch((error) => {
        if (!isClosed) reportError(error, undefined, handlers, to);
      })
      .then(done);
  });
  return {
    local: boundEndpoint({ address: socket.addr.hostname, port: socket.addr.port }, options),
    send(data, to) {
      if (!isClosed && !queue.push(data, to)) handlers.onError(queueFull(to), to);
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
