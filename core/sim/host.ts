/**
 * Hosts: interfaces, sockets, and the machines that run on them. A host that has routers (NATs,
 * firewalls) asks them about every packet before it looks at its own sockets.
 *
 * Addresses follow the weak host model: a packet for any address of the host is its own, whichever
 * interface it came by.
 *
 * @module
 */
import { checkAddress } from "../check.ts";
import { withoutZone } from "../ip.ts";
import type { Endpoint, Machine } from "../machine.ts";
import {
  INITIAL_HOPS,
  isLinkLocal6,
  isMulticast,
  type Packet,
  portUnreachable,
  resetOf,
  type Verdict,
} from "./packet.ts";
import type { TcpPort, TcpReceiver } from "./http.ts";
import { Process, type ProcessHost, type ProcessOptions, type ProcessSockets } from "./process.ts";
import { findRoute, gatewayOf, type Route } from "./route.ts";
import {
  Interface,
  type InterfaceOptions,
  type Receiver,
  type Segment,
  type SimContext,
  type Sleeper,
} from "./segment.ts";
import { SimSocket, type SocketHost, type SocketOptions } from "./socket.ts";

/** Something on a host that forwards packets: a NAT or a firewall. */
export interface Router {
  /** Deals with a packet that came by `by`; false where it is the host's own or nobody's. */
  handle(by: Interface, packet: Packet): boolean;
}

/** How a host behaves. */
export interface HostOptions {
  /** Whether it answers packets to closed ports with ICMP port unreachable. Default true. */
  readonly sendsUnreachable?: boolean;
}

/** Who listens on a TCP port. */
interface TcpListener {
  readonly address: string | undefined;
  readonly receiver: TcpReceiver;
}

const FIRST_EPHEMERAL_PORT = 49152;

/** Made by `World.host`. */
export class Host implements Receiver, SocketHost, ProcessHost {
  /** How the trace names it. */
  readonly name: string;
  /** Whether it answers packets to closed ports with ICMP port unreachable. */
  sendsUnreachable: boolean;
  /** The interfaces, in the order of attachment. */
  readonly interfaces: Interface[] = [];
  /** Asked in this order about every packet. */
  readonly routers: Router[] = [];
  /** The machines that run here. */
  readonly processes: Process<unknown>[] = [];
  readonly #context: SimContext;
  readonly #sockets = new Map<number, SimSocket[]>();
  readonly #tcp = new Map<number, TcpListener[]>();
  readonly #routes = new Map<string, Route>();
  #routesMadeAt = -1;
  #isSuspended = false;
  #nextPort = FIRST_EPHEMERAL_PORT;
  #nextTcpPort = FIRST_EPHEMERAL_PORT;

  /** Made by `World.host`. */
  constructor(context: SimContext, name: string, options: HostOptions = {}) {
    this.#context = context;
    this.name = name;
    this.sendsUnreachable = options.sendsUnreachable ?? true;
  }

  /** Attaches the host to a segment with one address or several. */
  attach(
    segment: Segment,
    addresses: string | readonly string[],
    options: InterfaceOptions = {},
  ): Interface {
    const list = typeof addresses === "string" ? [addresses] : addresses;
    const attached = new Interface(this, segment, list, options);
    this.interfaces.push(attached);
    segment.join(attached);
    return attached;
  }

  /**
   * Takes the host off a segment, as a laptop that is carried away: the addresses it had there are
   * free, and what is still on its way to it there is lost.
   */
  detach(attached: Interface): void {
    const place = this.interfaces.indexOf(attached);
    if (place < 0) return;
    this.interfaces.splice(place, 1);
    attached.segment.leave(attached);
  }

  /** Whether a canonical address is one of this host's. */
  hasAddress(address: string): boolean {
    return this.interfaces.some((attached) => attached.addresses.includes(address));
  }

  /**
   * Replaces an address, as a new DHCP lease or a moved laptop would. Sockets bound to no address
   * follow; those bound to the old one hear nothing more.
   *
   * @throws {TypeError} Where `from` is no address of this host, or `to` is taken.
   */
  changeAddress(from: string, to: string): void {
    const attached = this.interfaces.find(({ addresses }) => addresses.includes(from));
    if (!attached) throw new TypeError(`'from' must be an address of ${this.name}: ${from} is not`);
    checkAddress("to", to);
    attached.removeAddress(from);
    attached.addAddress(to);
  }

  /** Opens a socket. */
  bind(options: SocketOptions = {}): SimSocket {
    const socket = new SimSocket(this, this.#port(options.port), options);
    const bound = this.#sockets.get(socket.port);
    if (bound) bound.push(socket);
    else this.#sockets.set(socket.port, [socket]);
    return socket;
  }

  /** Forgets a socket; called by `SimSocket.close`. */
  unbind(socket: SimSocket): void {
    const bound = this.#sockets.get(socket.port) ?? [];
    const left = bound.filter((other) => other !== socket);
    if (left.length > 0) this.#sockets.set(socket.port, left);
    else this.#sockets.delete(socket.port);
  }

  /** Takes a TCP port at an address, or at all; 0 for a free one. Undefined where it is taken. */
  bindTcp(address: string | undefined, port: number, receiver: TcpReceiver): TcpPort | undefined {
    const taken = port === 0 ? this.#freeTcpPort() : port;
    const others = this.#tcp.get(taken) ?? [];
    if (others.some((other) => !address || !other.address || other.address === address)) {
      return undefined;
    }
    const listener = { address, receiver };
    this.#tcp.set(taken, [...others, listener]);
    const close = () => {
      const left = (this.#tcp.get(taken) ?? []).filter((other) => other !== listener);
      if (left.length > 0) this.#tcp.set(taken, left);
      else this.#tcp.delete(taken);
    };
    return { port: taken, close };
  }

  /** Whether a socket is bound to the port at that address. */
  isBound(address: string, port: number): boolean {
    const bound = this.#sockets.get(port);
    return (bound?.some(({ local }) => local === undefined || local === address) ?? false) ||
      this.#tcpAt({ address, port }) !== undefined;
  }

  /** Runs a machine: the canonical loop, over sockets of this host. */
  run<E, M extends Machine<E>>(
    machine: M,
    sockets: ProcessSockets = {},
    options: ProcessOptions<E> = {},
  ): Process<E, M> {
    const process = new Process<E, M>(this.#context, this, machine, sockets, options);
    this.processes.push(process as unknown as Process<unknown>);
    return process;
  }

  /** Forgets a process; called by `Process.stop`. */
  forget(process: Sleeper): void {
    const place = this.processes.findIndex((other) => other === process);
    if (place >= 0) this.processes.splice(place, 1);
  }

  /** Puts the host to sleep: packets to it are lost, its machines' timers wait. */
  suspend(): void {
    this.#isSuspended = true;
  }

  /** Wakes the host; what became due meanwhile is due at once. */
  resume(): void {
    if (!this.#isSuspended) return;
    this.#isSuspended = false;
    for (const process of this.processes) process.schedule();
  }

  /** Whether it sleeps. */
  get isSuspended(): boolean {
    return this.#isSuspended;
  }

  /** The address from which packets to there leave: `local`, or the way's; where it has it. */
  addressToward(address: string, local?: string): string | undefined {
    if (local !== undefined) return this.hasAddress(local) ? local : undefined;
    return this.#route(address, undefined)?.source;
  }

  /** Sends a datagram; without a source address it leaves from the outgoing interface's. */
  send(source: string | undefined, port: number, to: Endpoint, data: Uint8Array): void {
    const address = withoutZone(to.address);
    const route = this.#route(to.address, source);
    const fallback = this.interfaces[0]?.addresses[0] ?? address;
    const from = { address: source ?? route?.source ?? fallback, port };
    const target = address === to.address ? to : { address, port: to.port };
    const packet: Packet = { protocol: "udp", from, to: target, data, hops: INITIAL_HOPS };
    this.#sendBy(route, packet);
  }

  /** Sends a packet that is complete. */
  sendPacket(packet: Packet): void {
    this.#sendBy(this.#route(packet.to.address, undefined), packet);
  }

  /** Sends a packet by one interface: to the neighbour that has the address, or to its gateway. */
  forward(by: Interface, packet: Packet): void {
    const neighbour = by.segment.lookup(packet.to.address) ?? gatewayOf(by, packet.to.address);
    this.#sendBy(neighbour && { by, to: neighbour, source: undefined }, packet);
  }

  /** Takes a packet from the wire; called by the world. */
  receive(by: Interface, packet: Packet): void {
    if (this.#isSuspended) return this.drop(packet, "asleep");
    if (!this.interfaces.includes(by)) return this.drop(packet, "not-mine");
    for (const router of this.routers) if (router.handle(by, packet)) return;
    const { address } = packet.to;
    if (!isMulticast(address)) {
      if (!this.hasAddress(address)) return this.drop(packet, "not-mine");
      return this.#deliver(by, packet);
    }
    const bound = this.#sockets.get(packet.to.port);
    if (packet.protocol !== "udp" || !bound) return;
    for (const socket of [...bound]) {
      if (socket.hears(address)) socket.receive(packet.data, shown(by, packet.from));
    }
  }

  /** Answers a packet with ICMP port unreachable. */
  reject(packet: Packet): void {
    const message = portUnreachable(packet);
    if (message) this.sendPacket(message);
  }

  /** Records that a packet ended here. */
  drop(packet: Packet, verdict: Verdict): void {
    this.#context.trace.dropped(this.#context.now, this.name, packet, verdict);
  }

  #deliver(by: Interface, packet: Packet): void {
    const { quoted } = packet;
    if (quoted) {
      const hit = quoted.protocol === "tcp"
        ? this.#tcpAt(quoted.from)
        : this.#socketAt(quoted.from);
      hit?.unreachable(shown(by, quoted.to));
      return;
    }
    if (packet.segment) {
      const port = this.#tcpAt(packet.to);
      if (port) return port.receive({ ...packet, from: shown(by, packet.from) });
      this.drop(packet, "closed");
      const reset = this.sendsUnreachable ? resetOf(packet) : undefined;
      if (reset) this.sendPacket(reset);
      return;
    }
    const socket = packet.protocol === "udp" ? this.#socketAt(packet.to, packet.from) : undefined;
    if (socket) return socket.receive(packet.data, shown(by, packet.from));
    this.drop(packet, this.#socketAt(packet.to) ? "not-peer" : "closed");
    if (this.sendsUnreachable) this.reject(packet);
  }

  #tcpAt({ address, port }: Endpoint): TcpReceiver | undefined {
    return this.#tcp.get(port)?.find((at) => at.address === undefined || at.address === address)
      ?.receiver;
  }

  #freeTcpPort(): number {
    while (this.#tcp.has(this.#nextTcpPort)) this.#nextTcpPort++;
    const port = this.#nextTcpPort;
    // Ports are used again in turn: an exchange takes one for each request.
    this.#nextTcpPort = port >= 65535 ? FIRST_EPHEMERAL_PORT : port + 1;
    return port;
  }

  /** The socket that takes a datagram: one bound to the address before one bound to any. */
  #socketAt(local: Endpoint, from?: Endpoint): SimSocket | undefined {
    const bound = this.#sockets.get(local.port);
    if (!bound) return undefined;
    let best: SimSocket | undefined;
    for (const socket of bound) {
      if (socket.local !== undefined && socket.local !== local.address) continue;
      if (from && !socket.accepts(from)) continue;
      if (!best || (best.local === undefined && socket.local !== undefined)) best = socket;
    }
    return best;
  }

  #sendBy(route: Route | undefined, packet: Packet): void {
    if (!route) return this.drop(packet, "no-route");
    const { by, to } = route;
    if (isMulticast(packet.to.address)) by.segment.multicast(by, packet);
    else if (!to) this.#context.deliver(this.#context.now, by, packet);
    else by.segment.unicast(by, packet, to);
  }

  #route(address: string, source: string | undefined): Route | undefined {
    if (this.#routesMadeAt !== this.#context.topology || this.#routes.size > 4096) {
      this.#routes.clear();
      this.#routesMadeAt = this.#context.topology;
    }
    const key = source === undefined ? address : `${address} ${source}`;
    let route = this.#routes.get(key);
    if (!route) {
      route = findRoute(this.interfaces, address, source);
      if (route) this.#routes.set(key, route);
    }
    return route;
  }

  #port(wanted: number | undefined): number {
    if (wanted) return wanted;
    while (this.#sockets.has(this.#nextPort)) this.#nextPort++;
    if (this.#nextPort > 65535) throw new RangeError(`No ephemeral port is free on ${this.name}`);
    return this.#nextPort++;
  }
}

/** A remote endpoint as this host's programs see it: a link-local address with its zone. */
function shown(by: Interface, from: Endpoint): Endpoint {
  return from.address.startsWith("fe") && isLinkLocal6(from.address)
    ? { address: `${from.address}%${by.zone}`, port: from.port }
    : from;
}
