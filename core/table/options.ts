/**
 * How a mapping table is set up.
 *
 * @module
 */
import { checkAddress, checkInteger, checkPort } from "../check.ts";
import type { Endpoint } from "../machine.ts";
import type { RandomSource } from "../random.ts";
import { PortSet } from "./port_pool.ts";

/** A range of ports, both ends included. */
export interface PortRange {
  /** The first, 1…65535. */
  readonly first: number;
  /** The last, not below the first. */
  readonly last: number;
}

/** For how long a freed external port stays with its last holder. */
export interface QuarantineTimes {
  /** Seconds for UDP; 120 (RFC 4787's idle time). */
  readonly udpSeconds?: number;
  /** Seconds for TCP; 7440 (RFC 5382's idle time). */
  readonly tcpSeconds?: number;
  /** Seconds for every other protocol; 120 (the maximum segment lifetime). */
  readonly otherSeconds?: number;
}

/** How a mapping table is set up. */
export interface MappingTableOptions {
  /**
   * The external addresses that translated mappings get; the first is preferred. A new client
   * gets the first that has a port for it, and stays with it (paired).
   */
  readonly externalAddresses?: readonly string[];
  /**
   * Families for which the device is a firewall that translates nothing, so that external equals
   * internal; IPv6 where left out.
   */
  readonly firewallFamilies?: readonly (4 | 6)[];
  /** External ports that may be mapped when asked for by number; all where left out. */
  readonly ports?: readonly PortRange[];
  /** External ports to choose from when none is asked for; 1024…65535 where left out. */
  readonly chosenPorts?: readonly PortRange[];
  /** TCP ports that the gateway needs itself; none where left out. */
  readonly reservedTcpPorts?: readonly number[];
  /** UDP ports that the gateway needs itself, beside PCP's 5350 and 5351 (PCP-S-36). */
  readonly reservedUdpPorts?: readonly number[];
  /**
   * Whether an external port may be had for that inside, beside what the ranges say; every one where
   * left out. For a gateway that opens the port on a host where programs listen, too.
   */
  readonly isUsable?: (protocol: number, externalPort: number, internal: Endpoint) => boolean;
  /** Try the internal port's number first when no port is asked for; true where left out. */
  readonly prefersSamePort?: boolean;
  /**
   * Protocols whose ports the gateway cannot change, so that the external port equals the internal
   * one or there is no mapping (RFC 6887 §16.3.3); SCTP where left out.
   */
  readonly samePortProtocols?: readonly number[];
  /** Choose ports at random; one after the other where left out. */
  readonly random?: RandomSource;
  /** Mappings altogether; 65,536 where left out. */
  readonly maxEntries?: number;
  /** Ports that one client may map, static ones not counted; 1024 where left out. */
  readonly maxPortsPerClient?: number;
  /** Freed-port quarantine (PCP-S-54); on where left out, false for none. */
  readonly quarantine?: QuarantineTimes | false;
  /** Freed ports in quarantine; 16,384 where left out. Over that the oldest become free. */
  readonly maxQuarantined?: number;
  /**
   * How long an outbound packet keeps a mapping alive (PCP-S-53); 120 s for UDP and everything but
   * TCP, 7440 s for TCP where left out.
   */
  readonly idleTimeouts?: QuarantineTimes;
}

/** Options checked and filled in. */
export interface TableSettings {
  readonly externalAddresses: readonly string[];
  readonly firewallFamilies: readonly (4 | 6)[];
  readonly allowed: Readonly<Record<"tcp" | "udp" | "other", PortSet>>;
  readonly chosen: Readonly<Record<"tcp" | "udp" | "other", PortSet>>;
  readonly firstChosenPort: number;
  readonly isUsable: MappingTableOptions["isUsable"];
  readonly prefersSamePort: boolean;
  readonly samePortProtocols: ReadonlySet<number>;
  readonly random: RandomSource | undefined;
  readonly maxEntries: number;
  readonly maxPortsPerClient: number;
  readonly maxQuarantined: number;
  readonly quarantineMs: (protocol: number) => number;
  readonly idleTimeoutMs: (protocol: number) => number;
}

/**
 * Checks the options and fills in the defaults.
 *
 * @throws {TypeError | RangeError} Where an option cannot be, with its name and value.
 */
export function readTableOptions(options: MappingTableOptions): TableSettings {
  const ports = readRanges("ports", options.ports ?? [{ first: 1, last: 65535 }]);
  const chosen = readRanges("chosenPorts", options.chosenPorts ?? [{ first: 1024, last: 65535 }]);
  const reserved = {
    tcp: readPorts("reservedTcpPorts", options.reservedTcpPorts ?? []),
    udp: [...readPorts("reservedUdpPorts", options.reservedUdpPorts ?? []), 5350, 5351],
    other: [],
  };
  const sets = (ranges: readonly PortRange[], kind: "tcp" | "udp" | "other"): PortSet => {
    const set = new PortSet();
    for (const { first, last } of ranges) set.addRange(first, last);
    for (const port of reserved[kind]) set.delete(port);
    return set;
  };
  const both = (ranges: readonly PortRange[]) => ({
    tcp: sets(ranges, "tcp"),
    udp: sets(ranges, "udp"),
    other: sets(ranges, "other"),
  });
  const allowed = both(ports), choosable = both(chosen);
  for (const kind of ["tcp", "udp", "other"] as const) {
    const words = choosable[kind].words;
    for (let i = 0; i < words.length; i++) words[i]! &= allowed[kind].words[i]!;
  }
  for (const family of options.firewallFamilies ?? []) {
    if (family !== 4 && family !== 6) {
      throw new TypeError(`'firewallFamilies' must hold 4 and 6 only: current value is ${family}`);
    }
  }
  return {
    externalAddresses: readExternalAddresses(options.externalAddresses ?? []),
    firewallFamilies: [...options.firewallFamilies ?? [6 as const]],
    allowed,
    chosen: choosable,
    firstChosenPort: chosen[0]?.first ?? 1024,
    isUsable: options.isUsable,
    prefersSamePort: options.prefersSamePort ?? true,
    samePortProtocols: new Set(
      (options.samePortProtocols ?? [132]).map((p, i) =>
        checkInteger(`samePortProtocols[${i}]`, p, 1, 255)
      ),
    ),
    random: options.random,
    maxEntries: checkInteger("maxEntries", options.maxEntries ?? 65_536, 1, 2 ** 24),
    maxPortsPerClient: checkInteger(
      "maxPortsPerClient",
      options.maxPortsPerClient ?? 1024,
      0,
      2 ** 24,
    ),
    maxQuarantined: checkInteger("maxQuarantined", options.maxQuarantined ?? 16_384, 0, 2 ** 24),
    quarantineMs: options.quarantine === false
      ? () => 0
      : readTimes("quarantine", options.quarantine ?? {}),
    idleTimeoutMs: readTimes("idleTimeouts", options.idleTimeouts ?? {}),
  };
}

/**
 * External addresses in canonical text, each once.
 *
 * @throws {TypeError} Where one is not an IP address.
 */
export function readExternalAddresses(addresses: readonly string[]): readonly string[] {
  return [...new Set(addresses.map((a, i) => checkAddress(`externalAddresses[${i}]`, a)))];
}

function readPorts(name: string, ports: readonly number[]): readonly number[] {
  return ports.map((port) => checkPort(name, port));
}

function readRanges(name: string, ranges: readonly PortRange[]): readonly PortRange[] {
  for (const range of ranges) {
    checkPort(`${name}.first`, range.first);
    checkInteger(`${name}.last`, range.last, range.first, 65535);
  }
  return ranges;
}

function readTimes(name: string, times: QuarantineTimes): (protocol: number) => number {
  const read = (key: keyof QuarantineTimes, fallback: number): number =>
    1000 * checkInteger(`${name}.${key}`, times[key] ?? fallback, 0, 0xffff_ffff);
  const udp = read("udpSeconds", 120);
  const tcp = read("tcpSeconds", 7440);
  const other = read("otherSeconds", 120);
  return (protocol) => protocol === 6 ? tcp : protocol === 17 ? udp : other;
}
