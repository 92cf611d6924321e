/**
 * js-libp2p behind a NAT: a service that maps every port on which a node listens and tells the node
 * its addresses outside, as `@libp2p/upnp-nat` does by UPnP; by PCP and NAT-PMP too, over IPv4 and
 * IPv6, and following what becomes of each mapping.
 *
 * @example In place of `upnpNAT: uPnPNAT()`
 * ```ts ignore
 * import { createLibp2p } from "libp2p";
 * import { portMapping } from "@natkit/natkit/libp2p";
 *
 * const node = await createLibp2p({
 *   addresses: { listen: ["/ip4/0.0.0.0/tcp/0"] },
 *   services: { portMapping: portMapping() },
 *   // transports, encrypters, muxers, and AutoNAT, which confirms the addresses
 * });
 * ```
 *
 * @module
 */
import { isBehindAnotherNat, isLoopback } from "../core/cidr.ts";
import { canonicalAddress, familyOf } from "../core/ip.ts";
import { checkAddress } from "../core/check.ts";
import type { Endpoint } from "../core/machine.ts";
import type { Transport } from "../core/mapping.ts";
import type { Assignment } from "../core/portmap/managed.ts";
import { Nat } from "./api/nat.ts";
import type { NatOptions } from "./api/options.ts";
import type { PortWatch } from "./api/port_watch.ts";

/** How a node's ports are mapped. */
export interface PortMappingOptions extends Omit<NatOptions, "signal"> {
  /** A text for the gateway's list. Default `"libp2p"`. */
  readonly description?: string;
  /**
   * What peers are told in place of the address that the gateway has: for a gateway that is behind
   * another NAT which forwards to it. Without it, mappings that end behind another NAT are not told.
   */
  readonly externalAddress?: string;
  /**
   * Takes the addresses for reachable without AutoNAT, which the node then need not have.
   * Default false.
   */
  readonly autoConfirmAddress?: boolean;
}

/** A multiaddr, as far as it is read here. */
export interface Multiaddr {
  /** Its text: `/ip4/192.0.2.1/tcp/4001`. */
  toString(): string;
}

/** What the service needs of a libp2p node. */
export interface Libp2pComponents {
  /** Where addresses are told. */
  readonly addressManager: {
    getAddressesWithMetadata(): readonly {
      readonly multiaddr: Multiaddr;
      readonly type: string;
      readonly verified: boolean;
    }[];
    addPublicAddressMapping(...mapping: PublicMapping): void;
    removePublicAddressMapping(...mapping: PublicMapping): void;
    confirmObservedAddr(multiaddr: never, options: { readonly ttl: number }): void;
  };
  /** Tells when the node's addresses have changed. */
  readonly events: {
    addEventListener(type: "self:peer:update", listener: () => void): void;
    removeEventListener(type: "self:peer:update", listener: () => void): void;
  };
  /** Where errors go. */
  readonly logger: { forComponent(name: string): { error(format: string, error: unknown): void } };
}

/** Internal address and port, external address and port, protocol. */
export type PublicMapping = [string, number, string, number, Transport];

/** The last moment that a date can be; libp2p adds times to live to the present. */
const END_OF_TIME = 8.64e15;

/** A port that is mapped, with the addresses of this host on which the node listens there. */
interface MappedPort {
  readonly protocol: Transport;
  readonly port: number;
  hosts: readonly string[];
  readonly watch: Promise<PortWatch | undefined>;
  told: readonly PublicMapping[];
}

/** Maps the ports of one node, between its start and its stop. Made by {@linkcode portMapping}. */
export class PortMappingService {
  readonly #components: Libp2pComponents;
  readonly #options: PortMappingOptions;
  readonly #ports = new Map<string, MappedPort>();
  #nat: Promise<Nat> | undefined;

  /** {@linkcode portMapping} makes it. */
  constructor(components: Libp2pComponents, options: PortMappingOptions) {
    const { externalAddress } = options;
    if (externalAddress !== undefined) checkAddress("externalAddress", externalAddress);
    this.#components = components;
    this.#options = options;
  }

  /** Called by libp2p. */
  start(): void {
    this.#components.events.addEventListener("self:peer:update", this.#follow);
  }

  /** Called by libp2p, once the node listens. */
  afterStart(): void {
    this.#follow();
  }

  /** Called by libp2p: deletes what was mapped. */
  async stop(): Promise<void> {
    this.#components.events.removeEventListener("self:peer:update", this.#follow);
    for (const port of this.#ports.values()) this.#tell(port, []);
    this.#ports.clear();
    // Who starts it again meanwhile opens another one.
    const opened = this.#nat;
    this.#nat = undefined;
    const nat = await opened?.catch(() => undefined);
    await nat?.close();
  }

  /** Maps the ports on which the node listens anew, and unmaps those on which it does no more. */
  readonly #follow = (): void => {
    const listening = new Map<string, { at: Endpoint; protocol: Transport; hosts: string[] }>();
    for (const { multiaddr, type } of this.#components.addressManager.getAddressesWithMetadata()) {
      const read = type === "transport" ? readMultiaddr(String(multiaddr)) : undefined;
      if (!read) continue;
      const { at, protocol } = read;
      const key = `${at.port}/${protocol}`;
      const known = listening.get(key);
      if (!known) listening.set(key, { at, protocol, hosts: [at.address] });
      else if (!known.hosts.includes(at.address)) known.hosts.push(at.address);
    }
    for (const [key, mapped] of this.#ports) {
      if (listening.has(key)) continue;
      this.#ports.delete(key);
      this.#tell(mapped, []);
      void mapped.watch.then((watch) => watch?.close());
    }
    for (const [key, { at, protocol, hosts }] of listening) {
      const mapped = this.#ports.get(key);
      if (mapped) mapped.hosts = hosts;
      else this.#map(key, at.port, protocol, hosts);
    }
  };

  #map(key: string, port: number, protocol: Transport, hosts: readonly string[]): void {
    const { description = "libp2p" } = this.#options;
    const watch = this.#open().then(async (nat) => {
      if (this.#ports.get(key) !== mapped) return undefined;
      const watch = await nat.watch(port, { protocol, description });
      const hear = (set: readonly Assignment[]) => {
        if (this.#ports.get(key) === mapped) this.#tell(mapped, this.#outside(mapped, set));
      };
      hear(watch.assignments);
      watch.onChange(hear);
      return watch;
    }).catch((error) => {
      this.#log(error);
      if (this.#ports.get(key) === mapped) this.#ports.delete(key);
      return undefined;
    });
    const mapped: MappedPort = { protocol, port, hosts, watch, told: [] };
    this.#ports.set(key, mapped);
  }

  /** The gateways; where none is to be had, the next change of the node's addresses tries again. */
  #open(): Promise<Nat> {
    const { description: _, externalAddress: _1, autoConfirmAddress: _2, ...natOptions } =
      this.#options;
    if (this.#nat) return this.#nat;
    const opening = Nat.open(natOptions).catch((error) => {
      if (this.#nat === opening) this.#nat = undefined;
      throw error;
    });
    return this.#nat = opening;
  }

  /** The addresses outside that lead to the port from anywhere. */
  #outside({ protocol, port, hosts }: MappedPort, set: readonly Assignment[]): PublicMapping[] {
    const { externalAddress } = this.#options;
    return set.flatMap((one): PublicMapping[] => {
      const host = hosts.find((address) => familyOf(address) === one.family);
      if (one.via === "local" || host === undefined) return [];
      const forwards = externalAddress !== undefined && familyOf(externalAddress) === one.family;
      const address = forwards ? externalAddress : one.address;
      return isBehindAnotherNat(address) ? [] : [[host, port, address, one.port, protocol]];
    });
  }

  /** Tells the node what is another one than was told before. */
  #tell(mapped: MappedPort, outside: readonly PublicMapping[]): void {
    const { addressManager } = this.#components;
    const before = new Map(mapped.told.map((one) => [one.join(), one]));
    const after = new Map(outside.map((one) => [one.join(), one]));
    mapped.told = outside;
    for (const [key, one] of before) {
      if (!after.has(key)) addressManager.removePublicAddressMapping(...one);
    }
    for (const [key, one] of after) {
      if (before.has(key)) continue;
      addressManager.addPublicAddressMapping(...one);
      if (this.#options.autoConfirmAddress) this.#confirm(one);
    }
  }

  #confirm([, , address, port, protocol]: PublicMapping): void {
    const { addressManager } = this.#components;
    for (const { multiaddr, type, verified } of addressManager.getAddressesWithMetadata()) {
      const read = readMultiaddr(String(multiaddr));
      const isIt = type === "ip-mapping" && read?.protocol === protocol &&
        read.at.address === address && read.at.port === port;
      if (!isIt || verified) continue;
      const ttl = END_OF_TIME - Date.now();
      addressManager.confirmObservedAddr(multiaddr as never, { ttl });
    }
  }

  #log(error: unknown): void {
    this.#components.logger.forComponent("natkit:port-mapping")
      .error("cannot map a port - %e", error);
  }
}

/** Where a multiaddr listens itself; undefined where it goes by a relay, a name or loopback. */
function readMultiaddr(
  text: string,
): { readonly at: Endpoint; readonly protocol: Transport } | undefined {
  const match = /^\/ip[46]\/([^/]+)\/(tcp|udp)\/(\d+)(?:\/|$)/.exec(text);
  const address = match && canonicalAddress(match[1]!);
  if (!address || isLoopback(address) || text.includes("/p2p-circuit")) return undefined;
  return { at: { address, port: Number(match[3]) }, protocol: match[2] as Transport };
}

/**
 * The service for `services` of `createLibp2p`.
 *
 * @throws {TypeError} When the node is made, on an `externalAddress` that is no IP address.
 */
export function portMapping(
  options: PortMappingOptions = {},
): (components: Libp2pComponents) => PortMappingService {
  return (components) =>
    Object.assign(new PortMappingService(components, options), {
      // libp2p refuses to make a node that lacks what a service depends on.
      [Symbol.for("@libp2p/service-capabilities")]: ["@libp2p/nat-traversal"],
      [Symbol.for("@libp2p/service-dependencies")]: options.autoConfirmAddress
        ? []
        : ["@libp2p/autonat"],
    });
}
