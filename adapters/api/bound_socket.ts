/**
 * Sockets of the application, whichever runtime made them: where they are bound, and how they are
 * made to listen.
 *
 * @module
 */
import { isLoopback, isWildcard } from "../../core/cidr.ts";
import { canonicalAddress, type Family, familyOf } from "../../core/ip.ts";
import { show } from "../../core/check.ts";
import type { Endpoint } from "../../core/machine.ts";
import type { Transport } from "../../core/mapping.ts";
import { callError } from "../udp.ts";

/**
 * A socket that is bound or listens: of `node:dgram`, `node:net` or `node:http`, `Deno.listen`,
 * `Deno.listenDatagram`, `Deno.serve`, `Bun.listen`, `Bun.serve`, `Bun.udpSocket`.
 */
export type BoundSocket =
  | { address(): unknown }
  | { readonly addr: unknown }
  | { readonly hostname?: unknown; readonly port?: unknown };

/** Where a socket is bound. */
export interface Binding extends Endpoint {
  /** The transport protocol. */
  readonly protocol: Transport;
}

/**
 * Where a socket of the application is bound.
 *
 * @throws {TypeError} Where it is no socket, or is not bound.
 */
export function bindingOf(socket: BoundSocket): Binding {
  const given = socket as {
    readonly address?: unknown;
    readonly addr?: unknown;
    readonly send?: unknown;
    readonly hostname?: unknown;
    readonly port?: unknown;
  };
  if (typeof given !== "object" || given === null) {
    throw new TypeError(`'port' must be a port or a socket: current value is ${show(socket)}`);
  }
  let at: { readonly [field: string]: unknown } | undefined;
  try {
    const told = typeof given.address === "function" ? given.address() : given.addr ?? given;
    if (typeof told === "object" && told !== null) at = told as typeof at;
  } catch {
    // Node's sockets throw where they are not bound.
  }
  const port = at?.port;
  if (typeof port !== "number" || port === 0) {
    throw new TypeError("'port' is a socket that is not bound to a port: bind it first");
  }
  const text = at?.transport === undefined && typeof at?.address === "string"
    ? at.address
    : at?.hostname;
  // `localhost` is what Bun tells of a server that listens everywhere.
  const address = canonicalAddress(typeof text === "string" ? text : "") ?? "::";
  const isUdp = at?.transport === "udp" || typeof given.send === "function";
  return { address, port, protocol: isUdp ? "udp" : "tcp" };
}

/**
 * Checks that a gateway can send to where a socket is bound.
 *
 * @throws {TypeError} Where it is bound to loopback, and the gateways are not there.
 */
export function checkBinding({ address, port }: Endpoint, gateways: readonly Endpoint[]): void {
  if (!isLoopback(address) || gateways.some((one) => isLoopback(one.address))) return;
  throw new TypeError(
    `Cannot map port ${port}: its socket is bound to ${address}, which no gateway reaches`,
  );
}

/** The family that a socket hears alone; undefined where it hears both. */
export function onlyFamily({ address }: Endpoint): Family | undefined {
  return isWildcard(address) && familyOf(address) === 6 ? undefined : familyOf(address);
}

/** The one address at which a socket is reached, where it is bound to one. */
export function boundTo({ address }: Endpoint): { readonly boundTo?: string } {
  return isWildcard(address) ? {} : { boundTo: address };
}

/** What is needed of a server of `node:net`, `node:http`, `node:https`, `node:tls`. */
export interface TcpServer {
  /** Where it listens; null where it does not. */
  address(): unknown;
  /** Begins to. */
  listen(options: { readonly port: number; readonly host?: string }): unknown;
  /** Hears an event once. */
  once(event: "listening" | "error", listener: (error?: Error) => void): unknown;
  /** Hears no more. */
  off(event: "listening" | "error", listener: (error?: Error) => void): unknown;
  /** Listens no more. */
  close(): unknown;
}

/**
 * Makes a server listen, where it does not.
 *
 * @returns What closes it again, where it was made to.
 * @throws {TypeError} Where it is none.
 * @throws {NatError} `permission` or `network`.
 */
export async function listen(
  server: TcpServer,
  { port, address }: { readonly port: number; readonly address?: string | undefined },
): Promise<(() => void) | undefined> {
  if (typeof server?.address !== "function" || typeof server.listen !== "function") {
    throw new TypeError(
      `'server' must be a server of node:net or a function: current value is ${show(server)}`,
    );
  }
  if (server.address()) return undefined;
  await new Promise<void>((resolve, reject) => {
    const done = () => end(resolve);
    const fail = (error?: Error) =>
      end(() => reject(callError(`Cannot listen on port ${port}/tcp`, error)));
    const end = (settle: () => void) => {
      server.off("listening", done);
      server.off("error", fail);
      settle();
    };
    server.once("listening", done);
    server.once("error", fail);
    try {
      server.listen({ port, ...(address !== undefined && { host: address }) });
    } catch (error) {
      fail(error as Error);
    }
  });
  return () => void server.close();
}

/** A TCP connection as `node:net` gives it, on all three runtimes. */
export interface TcpConnection extends AsyncIterable<Uint8Array> {
  /** Where the peer is. */
  readonly remoteAddress?: string | undefined;
  /** And its port. */
  readonly remotePort?: number | undefined;
  /** Sends. */
  write(data: Uint8Array | string): boolean;
  /** Sends, and then no more. */
  end(data?: Uint8Array | string): unknown;
  /** Ends it at once. */
  destroy(): unknown;
}
