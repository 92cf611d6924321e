/**
 * A NAT between two segments, along the axes of RFC 4787, or a firewall that translates nothing.
 * It forwards what its mapping table (PCP, NAT-PMP, UPnP) says before it looks at the mappings that
 * outgoing traffic made. ICMP is translated and never ends a mapping (REQ-12).
 *
 * Cascades are made by attaching a NAT's outside to another NAT's inside.
 *
 * @module
 */
import { checkAddress, checkChoice, checkInteger } from "../check.ts";
import { type Cidr, contains } from "../cidr.ts";
import type { Endpoint } from "../machine.ts";
import { PROTOCOL_NUMBER, type Transport } from "../mapping.ts";
import { below } from "../random.ts";
import type { Host, Router } from "./host.ts";
import { type NatMapping, NatTable } from "./nat_table.ts";
import { isLinkLocal6, isMulticast, type Packet } from "./packet.ts";
import {
  NAT_DEPENDENCES,
  NAT_PORT_ASSIGNMENTS,
  type NatHairpin,
  type NatOptions,
  type PortForwarder,
} from "./nat_options.ts";
import type { Interface, SimContext } from "./segment.ts";

/** Made by `World.nat` and `World.natOn`. */
export class Nat implements Router {
  /** The host on which it runs; the gateway's own machines run there too. */
  readonly host: Host;
  /** The interface to its clients. */
  readonly inside: Interface;
  /** The interface to the world. */
  readonly outside: Interface;
  /** The table that says what else is forwarded. */
  forwarder: PortForwarder | undefined;
  /** Packets by what became of them. */
  readonly stats = { out: 0, in: 0, hairpinned: 0, blocked: 0, icmp: 0 };
  readonly #context: SimContext;
  readonly #hairpin: NatHairpin;
  readonly #pooling: "paired" | "arbitrary";
  readonly #rejects: boolean;
  readonly #prefix: Cidr | undefined;
  readonly #isIPv6: boolean;
  readonly #timeoutMs: number;
  readonly #table: NatTable;
  readonly #pairs = new Map<string, string>();
  #external: string[];

  /** Made by `World.nat` and `World.natOn`. */
  constructor(context: SimContext, host: Host, options: NatOptions) {
    this.#context = context;
    this.host = host;
    this.inside = options.inside;
    this.outside = options.outside;
    this.forwarder = options.forwarder;
    this.#hairpin = checkChoice("hairpin", options.hairpin ?? "external-source", [
      "none",
      "internal-source",
      "external-source",
    ]);
    this.#pooling = checkChoice("pooling", options.pooling ?? "paired", ["paired", "arbitrary"]);
    this.#rejects = options.rejects ?? false;
    this.#prefix = options.prefix;
    const ports = checkChoice("ports", options.ports ?? "preserving", NAT_PORT_ASSIGNMENTS);
    if ((ports === "untranslated") !== (this.#prefix !== undefined)) {
      throw new TypeError(`'prefix' must be given for ports "untranslated", and only there`);
    }
    const first = this.outside.addresses.find((address) => !isLinkLocal6(address)) ?? "";
    this.#isIPv6 = (options.external?.[0] ?? this.#prefix?.address ?? first).includes(":");
    this.#external = (options.external ?? this.outside.addresses)
      .map((address) => checkAddress("external", address))
      .filter((address) => address.includes(":") === this.#isIPv6);
    const timeoutMs = checkInteger("timeoutMs", options.timeoutMs ?? 300_000, 1, 2 ** 40);
    this.#timeoutMs = timeoutMs;
    this.#table = new NatTable({
      mapping: checkChoice("mapping", options.mapping ?? NAT_DEPENDENCES[0]!, NAT_DEPENDENCES),
      filtering: checkChoice(
        "filtering",
        options.filtering ?? NAT_DEPENDENCES[1]!,
        NAT_DEPENDENCES,
      ),
      ports,
      timeoutMs,
      inboundRefresh: options.inboundRefresh ?? false,
      maxMappings: checkInteger("maxMappings", options.maxMappings ?? 65536, 1, 2 ** 24),
      isReserved: (protocol, external) => this.#isReserved(protocol, external),
    }, context.random);
    if (this.#prefix) this.outside.segment.route(this.#prefix, this.outside);
    host.routers.push(this);
  }

  /** The external addresses. */
  get external(): readonly string[] {
    return this.#external;
  }

  /** The mappings that outgoing traffic made, those alive. */
  mappings(): NatMapping[] {
    return this.#table.mappings(this.#context.now);
  }

  /** Forgets all mappings, as a restart would; what runs on the host is restarted by the caller. */
  reboot(): void {
    this.#table.clear();
    this.#pairs.clear();
  }

  /**
   * Gets a new external address for an old one: mappings are gone, the old address leads nowhere.
   *
   * @throws {TypeError} Where `from` is no address of the outside interface, or `to` is taken.
   */
  changeExternal(from: string, to: string): void {
    this.host.changeAddress(from, to);
    this.#external = this.#external.map((address) => address === from ? to : address);
    this.reboot();
  }

  /** Deals with a packet; false where it is not for a NAT. */
  handle(by: Interface, packet: Packet): boolean {
    const { address } = packet.to;
    if (address.includes(":") !== this.#isIPv6 || isMulticast(address)) return false;
    if (by === this.inside) return this.#fromInside(packet);
    return by === this.outside && this.#fromOutside(packet);
  }

  #fromInside(packet: Packet): boolean {
    const { address } = packet.to;
    if (this.#external.includes(address)) return this.#turnBack(packet);
    if (isLinkLocal6(address) || this.host.hasAddress(address)) return false;
    if (packet.hops <= 1) return this.#refuse(packet, "hops-exceeded");
    const { quoted } = packet;
    if (quoted) {
      const external = this.#externalOf(quoted.protocol, quoted.to, quoted.from);
      if (!external) return this.#refuse(packet, "blocked");
      this.stats.icmp++;
      this.host.forward(this.outside, {
        ...packet,
        from: { address: external.address, port: 0 },
        hops: packet.hops - 1,
        quoted: { ...quoted, to: external },
      });
      return true;
    }
    const external = this.#openOut(packet.protocol as Transport, packet.from, packet.to);
    if (!external) return this.#refuse(packet, "no-ports");
    this.stats.out++;
    this.host.forward(this.outside, { ...packet, from: external, hops: packet.hops - 1 });
    return true;
  }

  #fromOutside(packet: Packet): boolean {
    const { to, from, quoted } = packet;
    const isMine = this.#prefix
      ? contains(this.#prefix, to.address)
      : this.#external.includes(to.address);
    if (!isMine) return false;
    if (packet.hops <= 1) return this.#refuse(packet, "hops-exceeded");
    if (quoted) {
      const internal = this.#internalOf(quoted.protocol, quoted.from, quoted.to);
      if (!internal) return this.#prefix !== undefined && this.#refuse(packet, "blocked");
      this.stats.icmp++;
      this.host.forward(this.inside, {
        ...packet,
        to: { address: internal.address, port: 0 },
        hops: packet.hops - 1,
        quoted: { ...quoted, from: internal },
      });
      return true;
    }
    const internal = this.#openIn(packet.protocol as Transport, to, from);
    if (internal === "blocked") return this.#block(packet);
    if (!internal) {
      if (this.host.hasAddress(to.address) && this.host.isBound(to.address, to.port)) return false;
      return this.#block(packet);
    }
    this.stats.in++;
    this.host.forward(this.inside, { ...packet, to: internal, hops: packet.hops - 1 });
    return true;
  }

  /** A packet from inside to an external address: to a client, or to the NAT's own sockets. */
  #turnBack(packet: Packet): boolean {
    const { from, to } = packet;
    if (packet.protocol === "icmp") return this.#refuse(packet, "blocked");
    const { now } = this.#context;
    const number = PROTOCOL_NUMBER[packet.protocol];
    const isMapped = this.forwarder?.lookupInbound(number, to, from, now) !== undefined ||
      this.#table.at(packet.protocol, to, now) !== undefined;
    if (!isMapped && this.host.hasAddress(to.address) && this.host.isBound(to.address, to.port)) {
      return false;
    }
    if (this.#hairpin === "none") return this.#refuse(packet, "no-hairpin");
    const external = this.#openOut(packet.protocol, from, to);
    if (!external) return this.#refuse(packet, "no-ports");
    const internal = this.#openIn(packet.protocol, to, external);
    if (!internal || internal === "blocked") return this.#block(packet);
    this.stats.hairpinned++;
    this.host.forward(this.inside, {
      ...packet,
      from: this.#hairpin === "external-source" ? external : from,
      to: internal,
      hops: packet.hops - 1,
    });
    return true;
  }

  #openOut(protocol: Transport, internal: Endpoint, remote: Endpoint): Endpoint | undefined {
    const { now } = this.#context;
    const number = PROTOCOL_NUMBER[protocol];
    const address = this.#addressFor(internal.address);
    const external = this.forwarder?.lookupOutbound(number, internal, remote, now) ??
      this.#table.outbound(protocol, internal, remote, address, now)?.external;
    if (external) {
      this.forwarder?.noteOutbound?.(number, internal, external, remote, this.#timeoutMs, now);
    }
    return external;
  }

  #openIn(
    protocol: Transport,
    external: Endpoint,
    remote: Endpoint,
  ): Endpoint | "blocked" | undefined {
    const { now } = this.#context;
    const number = PROTOCOL_NUMBER[protocol];
    const told = this.forwarder?.lookupInbound(number, external, remote, now);
    if (told) return told;
    const mapping = this.#table.inbound(protocol, external, remote, now);
    return typeof mapping === "object" ? mapping.internal : mapping;
  }

  #externalOf(protocol: Transport, internal: Endpoint, remote: Endpoint): Endpoint | undefined {
    const { now } = this.#context;
    const number = PROTOCOL_NUMBER[protocol];
    return this.forwarder?.lookupOutbound(number, internal, remote, now) ??
      this.#table.find(protocol, internal, remote, now)?.external;
  }

  #internalOf(protocol: Transport, external: Endpoint, remote: Endpoint): Endpoint | undefined {
    const { now } = this.#context;
    const number = PROTOCOL_NUMBER[protocol];
    return this.forwarder?.lookupInbound(number, external, remote, now) ??
      this.#table.at(protocol, external, now)?.internal;
  }

  #addressFor(internal: string): string {
    const pool = this.#external;
    if (pool.length <= 1) return pool[0] ?? internal;
    if (this.#pooling === "arbitrary") return pool[below(this.#context.random, pool.length)]!;
    let address = this.#pairs.get(internal);
    if (address === undefined) {
      address = pool[this.#pairs.size % pool.length]!;
      this.#pairs.set(internal, address);
    }
    return address;
  }

  #isReserved(protocol: Transport, external: Endpoint): boolean {
    if (protocol === "udp" && this.host.isBound(external.address, external.port)) return true;
    return this.forwarder?.holds(PROTOCOL_NUMBER[protocol], external, this.#context.now) ?? false;
  }

  #block(packet: Packet): true {
    this.stats.blocked++;
    this.#refuse(packet, "blocked");
    if (this.#rejects) this.host.reject(packet);
    return true;
  }

  #refuse(packet: Packet, verdict: "blocked" | "no-hairpin" | "no-ports" | "hops-exceeded"): true {
    this.host.drop(packet, verdict);
    return true;
  }
}
