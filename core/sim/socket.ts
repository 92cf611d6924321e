/**
 * A host's UDP socket.
 *
 * @module
 */
import { checkAddress, checkPort } from "../check.ts";
import { isSameEndpoint, withoutZone } from "../ip.ts";
import type { Endpoint } from "../machine.ts";

/** What a socket needs of its host. */
export interface SocketHost {
  /** Sends a datagram; without a source address it leaves from the outgoing interface's. */
  send(source: string | undefined, port: number, to: Endpoint, data: Uint8Array): void;
  /** Forgets a socket that was closed. */
  unbind(socket: SimSocket): void;
}

/** How to open a socket. */
export interface SocketOptions {
  /** The address to bind to. Default: any. */
  readonly address?: string;
  /** The port to bind to; 0 takes a free one. Default 0. */
  readonly port?: number;
  /** The one peer to talk to; datagrams from others are not delivered. */
  readonly connect?: Endpoint;
  /** Multicast groups to join. */
  readonly groups?: readonly string[];
  /** Whether ICMP errors are told, as on a connected socket. Default true. */
  readonly reportsUnreachable?: boolean;
}

/** Made by `Host.bind`. */
export class SimSocket {
  /** The port it is bound to. */
  readonly port: number;
  /** The address it is bound to, undefined for any. */
  readonly local: string | undefined;
  /** The multicast groups it has joined. */
  readonly groups: ReadonlySet<string>;
  /** Gets every datagram. `data` belongs to the sender: do not change it. */
  onDatagram: (data: Uint8Array, from: Endpoint) => void = () => {};
  /** Told where ICMP says that nothing listens at `to`. */
  onUnreachable: (to: Endpoint) => void = () => {};
  readonly #host: SocketHost;
  readonly #peer: Endpoint | undefined;
  readonly #reportsUnreachable: boolean;
  #isClosed = false;

  /** Made by `Host.bind`. */
  constructor(host: SocketHost, port: number, options: SocketOptions) {
    this.#host = host;
    this.port = checkPort("port", port);
    this.local = options.address === undefined
      ? undefined
      : withoutZone(checkAddress("address", options.address));
    this.groups = new Set((options.groups ?? []).map((group) => checkAddress("group", group)));
    this.#peer = options.connect &&
      { address: withoutZone(options.connect.address), port: options.connect.port };
    this.#reportsUnreachable = options.reportsUnreachable ?? true;
  }

  /** Sends a datagram. */
  send(to: Endpoint, data: Uint8Array): void {
    if (!this.#isClosed) this.#host.send(this.local, this.port, to, data);
  }

  /** Closes it; nothing is delivered afterwards. */
  close(): void {
    this.#isClosed = true;
    this.#host.unbind(this);
  }

  /** Whether it takes datagrams from there. */
  accepts(from: Endpoint): boolean {
    const peer = this.#peer;
    return peer === undefined || isSameEndpoint(peer, from);
  }

  /** Whether it takes what is sent to that multicast group; every host is in all-hosts. */
  hears(group: string): boolean {
    if (this.local === group || this.groups.has(group)) return true;
    return this.local === undefined && (group === "224.0.0.1" || group === "ff02::1");
  }

  /** Takes a datagram; called by the host. */
  receive(data: Uint8Array, from: Endpoint): void {
    if (!this.#isClosed) this.onDatagram(data, from);
  }

  /** Takes an ICMP error; called by the host. */
  unreachable(to: Endpoint): void {
    if (!this.#isClosed && this.#reportsUnreachable) this.onUnreachable(to);
  }
}
