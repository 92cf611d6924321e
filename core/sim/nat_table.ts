/**
 * A NAT's mappings along the axes of RFC 4787: how a mapping is found again (§4.1), which port it
 * gets (§4.2), how long it lives (§4.3) and whom it lets in (§5). It knows no packets.
 *
 * A mapping is kept under the part of the remote endpoint that its mapping behaviour looks at, and
 * remembers the part of every remote that its filtering behaviour looks at. Both die of disuse.
 *
 * @module
 */
import type { Endpoint, Instant } from "../machine.ts";
import type { Transport } from "../mapping.ts";
import { below, type RandomSource } from "../random.ts";

/** What part of the remote endpoint counts (RFC 4787 §4.1 for mappings, §5 for filters). */
export type NatDependence =
  /** None: EIM, EIF. */
  | "endpoint-independent"
  /** The address: ADM, ADF. */
  | "address-dependent"
  /** Address and port: APDM, APDF. */
  | "address-and-port-dependent";

/** Which external port a new mapping gets (RFC 4787 §4.2). */
export type NatPortAssignment =
  /** The internal one where it is free, else the next free one. */
  | "preserving"
  /** Any free one from 1024 on. */
  | "random"
  /** The next free one after the last. */
  | "contiguous"
  /** The internal one, even if another mapping has it (a violation of REQ-3). */
  | "overloading"
  /** No translation: a firewall. */
  | "untranslated";

/** What the table needs to know. */
export interface NatTableOptions {
  /** Which remotes share a mapping. */
  readonly mapping: NatDependence;
  /** Which remotes a mapping lets in. */
  readonly filtering: NatDependence;
  /** Which port a mapping gets. */
  readonly ports: NatPortAssignment;
  /** How long an unused mapping lives, milliseconds. */
  readonly timeoutMs: number;
  /** Whether what comes in keeps a mapping alive as what goes out does (REQ-6). */
  readonly inboundRefresh: boolean;
  /** The most mappings there may be. */
  readonly maxMappings: number;
  /** Whether something other than a mapping has the external endpoint. */
  readonly isReserved: (protocol: Transport, external: Endpoint) => boolean;
}

/** One mapping. */
export interface NatMapping {
  /** The transport. */
  readonly protocol: Transport;
  /** Whose it is. */
  readonly internal: Endpoint;
  /** How the outside sees it. */
  readonly external: Endpoint;
  /** When it dies unless used. */
  expiresAt: Instant;
  /** Whom it lets in, by the filter's key, and until when. */
  readonly permitted: Map<string, Instant>;
}

/** A mapping that nobody uses lets in at most so many; the oldest is forgotten. */
const MAX_PERMITTED = 4096;
const FIRST_PORT = 1024;
const PORT_COUNT = 65536 - FIRST_PORT;

function dependentKey(dependence: NatDependence, remote: Endpoint): string {
  switch (dependence) {
    case "endpoint-independent":
      return "";
    case "address-dependent":
      return remote.address;
    case "address-and-port-dependent":
      return `${remote.address} ${remote.port}`;
  }
}

function endpointKey(protocol: Transport, endpoint: Endpoint): string {
  return `${protocol} ${endpoint.address} ${endpoint.port}`;
}

/** The mappings of one NAT; made by `Nat`. */
export class NatTable {
  readonly #options: NatTableOptions;
  readonly #random: RandomSource;
  readonly #byInternal = new Map<string, NatMapping>();
  readonly #byExternal = new Map<string, NatMapping[]>();
  #lastPort: number;
  #sweepAtSize = 1024;

  /** Makes an empty table. */
  constructor(options: NatTableOptions, random: RandomSource) {
    this.#options = options;
    this.#random = random;
    this.#lastPort = FIRST_PORT + below(random, PORT_COUNT);
  }

  /** How many mappings there are, those that have died of disuse and were not asked for included. */
  get size(): number {
    return this.#byInternal.size;
  }

  /** The mappings alive. */
  mappings(now: Instant): NatMapping[] {
    return [...this.#byInternal.values()].filter(({ expiresAt }) => expiresAt > now);
  }

  /**
   * The mapping by which `internal` talks to `remote`: found or made, refreshed, and open to the
   * remote from then on. Undefined where no port is left.
   */
  outbound(
    protocol: Transport,
    internal: Endpoint,
    remote: Endpoint,
    externalAddress: string,
    now: Instant,
  ): NatMapping | undefined {
    const { mapping: dependence, filtering, timeoutMs } = this.#options;
    const key = `${endpointKey(protocol, internal)} ${dependentKey(dependence, remote)}`;
    let mapping = this.#byInternal.get(key);
    if (mapping && mapping.expiresAt <= now) {
      this.#remove(key, mapping);
      mapping = undefined;
    }
    mapping ??= this.#make(key, protocol, internal, externalAddress, now);
    if (!mapping) return undefined;
    mapping.expiresAt = now + timeoutMs;
    const permitted = dependentKey(filtering, remote);
    if (mapping.permitted.size >= MAX_PERMITTED && !mapping.permitted.has(permitted)) {
      mapping.permitted.delete(mapping.permitted.keys().next().value!);
    }
    mapping.permitted.set(permitted, mapping.expiresAt);
    return mapping;
  }

  /** The mapping by which `internal` talks to `remote`, if there is one; nothing is refreshed. */
  find(
    protocol: Transport,
    internal: Endpoint,
    remote: Endpoint,
    now: Instant,
  ): NatMapping | undefined {
    const dependent = dependentKey(this.#options.mapping, remote);
    const mapping = this.#byInternal.get(`${endpointKey(protocol, internal)} ${dependent}`);
    return mapping && mapping.expiresAt > now ? mapping : undefined;
  }

  /**
   * The mapping that lets `remote` in at `external`; `"blocked"` where there are mappings but none
   * that does, undefined where there is none.
   */
  inbound(
    protocol: Transport,
    external: Endpoint,
    remote: Endpoint,
    now: Instant,
  ): NatMapping | "blocked" | undefined {
    const { filtering, inboundRefresh, timeoutMs } = this.#options;
    const key = dependentKey(filtering, remote);
    let isBlocked = false;
    let best: NatMapping | undefined;
    for (const mapping of this.#byExternal.get(endpointKey(protocol, external)) ?? []) {
      if (mapping.expiresAt <= now) continue;
      if ((mapping.permitted.get(key) ?? -Infinity) <= now) isBlocked = true;
      // Overloaded ports: whoever talked to this remote last gets its answer.
      else if (!best || mapping.permitted.get(key)! > best.permitted.get(key)!) best = mapping;
    }
    if (!best) return isBlocked ? "blocked" : undefined;
    if (inboundRefresh) {
      best.expiresAt = now + timeoutMs;
      best.permitted.set(key, best.expiresAt);
    }
    return best;
  }

  /** Any mapping at `external`, whomever it lets in (for ICMP). */
  at(protocol: Transport, external: Endpoint, now: Instant): NatMapping | undefined {
    const there = this.#byExternal.get(endpointKey(protocol, external));
    return there?.find(({ expiresAt }) => expiresAt > now);
  }

  /** Forgets all. */
  clear(): void {
    this.#byInternal.clear();
    this.#byExternal.clear();
  }

  #make(
    key: string,
    protocol: Transport,
    internal: Endpoint,
    externalAddress: string,
    now: Instant,
  ): NatMapping | undefined {
    this.#sweep(now);
    if (this.#byInternal.size >= this.#options.maxMappings) return undefined;
    const external = this.#assign(protocol, internal, externalAddress, now);
    if (!external) return undefined;
    const mapping: NatMapping = {
      protocol,
      internal,
      external,
      expiresAt: now,
      permitted: new Map(),
    };
    this.#byInternal.set(key, mapping);
    const externalKey = endpointKey(protocol, external);
    const there = this.#byExternal.get(externalKey);
    if (there) there.push(mapping);
    else this.#byExternal.set(externalKey, [mapping]);
    return mapping;
  }

  #assign(
    protocol: Transport,
    internal: Endpoint,
    address: string,
    now: Instant,
  ): Endpoint | undefined {
    const { ports, isReserved } = this.#options;
    if (ports === "untranslated") return internal;
    const wanted = { address, port: internal.port };
    if (ports === "overloading") return isReserved(protocol, wanted) ? undefined : wanted;
    const isFree = (port: number): boolean => {
      const external = { address, port };
      return !this.at(protocol, external, now) && !isReserved(protocol, external);
    };
    if (ports === "preserving" && isFree(internal.port)) return wanted;
    let port = ports === "random"
      ? FIRST_PORT + below(this.#random, PORT_COUNT)
      : ports === "contiguous"
      ? nextPort(this.#lastPort)
      : nextPort(internal.port);
    for (let tries = 0; tries < PORT_COUNT; tries++) {
      if (isFree(port)) {
        this.#lastPort = port;
        return { address, port };
      }
      port = nextPort(port);
    }
    return undefined;
  }

  /** Removes the dead ones now and then, so that memory follows what is alive. */
  #sweep(now: Instant): void {
    if (this.#byInternal.size < Math.min(this.#sweepAtSize, this.#options.maxMappings)) return;
    for (const [key, mapping] of this.#byInternal) {
      if (mapping.expiresAt <= now) this.#remove(key, mapping);
    }
    this.#sweepAtSize = Math.max(1024, 2 * this.#byInternal.size);
  }

  #remove(key: string, mapping: NatMapping): void {
    this.#byInternal.delete(key);
    const externalKey = endpointKey(mapping.protocol, mapping.external);
    const left = this.#byExternal.get(externalKey)!.filter((other) => other !== mapping);
    if (left.length > 0) this.#byExternal.set(externalKey, left);
    else this.#byExternal.delete(externalKey);
  }
}

function nextPort(port: number): number {
  return port < FIRST_PORT || port >= 65535 ? FIRST_PORT : port + 1;
}
