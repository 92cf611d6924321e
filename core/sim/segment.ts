/**
 * A segment: a LAN, or the Internet seen as one. Interfaces are attached to it by their addresses;
 * a packet sent on it crosses one link and reaches the interface that has the next hop's address,
 * or every other interface where it is a multicast.
 *
 * @module
 */
import { checkAddress } from "../check.ts";
import { type Cidr, contains } from "../cidr.ts";
import type { Instant } from "../machine.ts";
import type { RandomSource } from "../random.ts";
import { Link, type LinkOptions } from "./link.ts";
import { type Packet, packetSize } from "./packet.ts";
import type { Trace } from "./trace.ts";

/** Who gets the packets that come by an interface: a host. */
export interface Receiver {
  /** How the trace names it. */
  readonly name: string;
  /** Takes a packet from the wire. */
  receive(by: Interface, packet: Packet): void;
}

/** What has a deadline: a machine that runs. */
export interface Sleeper {
  /** The deadline is there. */
  wake(): void;
}

/** What the parts of a simulation need of the world. */
export interface SimContext {
  /** Virtual time. */
  readonly now: Instant;
  /** Decides what links and NATs leave to chance. */
  readonly random: RandomSource;
  /** The record. */
  readonly trace: Trace;
  /** Counts changes of addresses and attachments, so that routes can be cached. */
  topology: number;
  /** Hands `packet` to `to` at `at`. */
  deliver(at: Instant, to: Interface, packet: Packet): void;
  /** Wakes `sleeper` at `at`, or at no time. */
  wake(sleeper: Sleeper, at: Instant | undefined): void;
}

/** How an interface is attached. */
export interface InterfaceOptions {
  /** Where packets go that are for nobody on a segment of the host: a router's address. */
  readonly gateway?: string;
  /** The same for IPv6. */
  readonly gateway6?: string;
  /** The zone that link-local addresses show at this host. Default `"eth0"`. */
  readonly zone?: string;
  /** What this host sends crosses this link instead of the segment's. */
  readonly link?: LinkOptions;
}

/** A host's attachment to a segment. */
export class Interface {
  /** The host. */
  readonly host: Receiver;
  /** The segment. */
  readonly segment: Segment;
  /** The zone that link-local addresses show here. */
  readonly zone: string;
  /** The way out, by family. */
  readonly gateways: readonly [v4: string | undefined, v6: string | undefined];
  /** The link that what is sent here crosses, where it is not the segment's. */
  readonly link: Link | undefined;
  #addresses: string[] = [];

  /** Made by `Host.attach`. */
  constructor(
    host: Receiver,
    segment: Segment,
    addresses: readonly string[],
    options: InterfaceOptions,
  ) {
    this.host = host;
    this.segment = segment;
    this.zone = options.zone ?? "eth0";
    this.gateways = [
      options.gateway && checkAddress("gateway", options.gateway, 4),
      options.gateway6 && checkAddress("gateway6", options.gateway6, 6),
    ];
    this.link = options.link && new Link(options.link);
    for (const address of addresses) this.addAddress(address);
  }

  /** Canonical, without zone; the first of a family is the source of what is sent. */
  get addresses(): readonly string[] {
    return this.#addresses;
  }

  /**
   * Gives the interface one more address.
   *
   * @throws {TypeError} Where it is not an IP address, or somebody on the segment has it.
   */
  addAddress(address: string): void {
    const canonical = checkAddress("address", address);
    this.segment.claim(canonical, this);
    this.#addresses.push(canonical);
  }

  /** Takes an address from the interface. */
  removeAddress(address: string): void {
    const place = this.#addresses.indexOf(address);
    if (place < 0) return;
    this.#addresses.splice(place, 1);
    this.segment.release(address);
  }
}

/** Made by `World.segment`. */
export class Segment {
  /** How the trace names it. */
  readonly name: string;
  /** What is sent here crosses it, unless the sender has its own. */
  readonly link: Link;
  readonly #context: SimContext;
  readonly #owners = new Map<string, Interface>();
  readonly #routes: { readonly prefix: Cidr; readonly via: Interface }[] = [];
  readonly #interfaces: Interface[] = [];
  readonly #arrivals: Instant[] = [0, 0];

  /** Made by `World.segment`. */
  constructor(context: SimContext, name: string, link: LinkOptions) {
    this.#context = context;
    this.name = name;
    this.link = new Link(link);
  }

  /** Adds an interface that will get multicasts; called by `Host.attach`. */
  join(member: Interface): void {
    this.#interfaces.push(member);
    this.#context.topology++;
  }

  /** Forgets an interface and its addresses; called by `Host.detach`. */
  leave(member: Interface): void {
    for (const address of [...member.addresses]) member.removeAddress(address);
    const place = this.#interfaces.indexOf(member);
    if (place >= 0) this.#interfaces.splice(place, 1);
    this.#context.topology++;
  }

  /**
   * Makes `address` lead to `owner`.
   *
   * @throws {TypeError} Where another interface has it.
   */
  claim(address: string, owner: Interface): void {
    if (this.#owners.has(address)) {
      throw new TypeError(`'address' must be free on segment ${this.name}: ${address} is taken`);
    }
    this.#owners.set(address, owner);
    this.#context.topology++;
  }

  /** Makes `address` lead nowhere. */
  release(address: string): void {
    this.#owners.delete(address);
    this.#context.topology++;
  }

  /** Makes all addresses of `prefix` lead to `via` that nobody here has (a router's inside). */
  route(prefix: Cidr, via: Interface): void {
    this.#routes.push({ prefix, via });
    this.#context.topology++;
  }

  /** Who gets what is sent to `address`, or undefined. */
  lookup(address: string): Interface | undefined {
    const owner = this.#owners.get(address);
    if (owner || this.#routes.length === 0) return owner;
    return this.#routes.find(({ prefix }) => contains(prefix, address))?.via;
  }

  /** Sends a packet to one neighbour. */
  unicast(from: Interface, packet: Packet, to: Interface): void {
    this.#cross(from, packet, to);
  }

  /** Sends a packet to every other interface. */
  multicast(from: Interface, packet: Packet): void {
    for (const member of this.#interfaces) {
      if (member !== from) this.#cross(from, packet, member);
    }
  }

  #cross(from: Interface, packet: Packet, to: Interface): void {
    const { now, random, trace } = this.#context;
    const link = from.link ?? this.link;
    const copies = link.cross(packetSize(packet), now, random, this.#arrivals);
    for (let i = 0; i < copies; i++) this.#context.deliver(this.#arrivals[i]!, to, packet);
    if (!trace.isOn) return;
    const verdict = copies < 0
      ? "too-big"
      : copies === 0
      ? "lost"
      : copies === 1
      ? "delivered"
      : "duplicated";
    trace.crossing(now, this.name, packet, verdict, {
      from: from.host.name,
      to: to.host.name,
      arrivals: this.#arrivals.slice(0, Math.max(0, copies)),
    });
  }
}
