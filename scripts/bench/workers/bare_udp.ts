/**
 * UDP as each runtime has it, with nothing of natkit in between: what natkit is compared with.
 *
 * @module
 */
import { createSocket } from "node:dgram";

/** A socket on loopback. */
export interface BareSocket {
  readonly port: number;
  send(data: Uint8Array, port: number, address: string): void;
  close(): void;
}

/** Takes a datagram; `data` is borrowed. */
export type Receive = (data: Uint8Array, port: number, address: string) => void;

interface BunSocket {
  readonly port: number;
  send(data: Uint8Array, port: number, address: string): boolean;
  close(): void;
}

interface BunNamespace {
  udpSocket(options: {
    hostname: string;
    port: number;
    socket: {
      data(socket: unknown, data: Uint8Array, port: number, address: string): void;
      error(error: unknown): void;
    };
  }): Promise<BunSocket>;
}

/** Opens a socket by the API that the runtime's own documentation shows. */
export async function bareSocket(
  receive: Receive,
  hostname = "127.0.0.1",
  port = 0,
): Promise<BareSocket> {
  if ("Bun" in globalThis) {
    const { Bun } = globalThis as unknown as { Bun: BunNamespace };
    const data = (_: unknown, data: Uint8Array, port: number, address: string) =>
      receive(data, port, address);
    const socket = await Bun.udpSocket({ hostname, port, socket: { data, error: () => {} } });
    return { port: socket.port, send: quietly(socket), close: () => socket.close() };
  }
  return "Deno" in globalThis ? denoSocket(receive, hostname, port) : nodeSocket(
    receive,
    hostname,
    port,
  );
}

/** Bun throws an earlier datagram's ICMP error: somebody has gone, which is not the bench's end. */
function quietly(socket: BunSocket): BareSocket["send"] {
  return (data, port, address) => {
    try {
      socket.send(data, port, address);
    } catch {
      // The next one leaves.
    }
  };
}

function denoSocket(receive: Receive, hostname: string, port: number): BareSocket {
  const socket = Deno.listenDatagram({ transport: "udp", hostname, port });
  (async () => {
    for await (const [data, from] of socket) {
      const { hostname, port } = from as Deno.NetAddr;
      receive(data, port, hostname);
    }
  })();
  return {
    port: (socket.addr as Deno.NetAddr).port,
    send(data, port, hostname) {
      socket.send(data, { transport: "udp", hostname, port }).catch(() => {});
    },
    close: () => socket.close(),
  };
}

function nodeSocket(receive: Receive, hostname: string, port: number): Promise<BareSocket> {
  const socket = createSocket("udp4");
  socket.on("message", (data, { port, address }) => receive(data, port, address));
  return new Promise((resolve, reject) => {
    socket.once("error", reject);
    socket.bind(port, hostname, () =>
      resolve({
        port: socket.address().port,
        send: (data, port, address) => socket.send(data, port, address),
        close: () => socket.close(),
      }));
  });
}
