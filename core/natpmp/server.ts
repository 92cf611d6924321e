/**
 * The NAT-PMP server (RFC 6886), over a mapping table that other servers may share.
 *
 * Theory of operation. A request is answered at once or not at all; what lasts is in the table.
 * The server itself keeps its epoch, which counts from `start` (PMP-S-06, PMP-S-30), and what it
 * is announcing: `start` and `announce` say the external address ten times (PMP-S-07…09).
 *
 * A request goes through: is it from the inside (PMP-S-17), is it a request (PMP-S-02), its
 * version (PMP-S-01), its opcode (PMP-S-03), the policy, is there a WAN; then the address
 * (PMP-S-04, PMP-S-05), a mapping (PMP-S-10…16, PMP-S-18, PMP-S-34), a delete (PMP-S-21…25) or a
 * delete-all (PMP-S-27, PMP-S-28). Errors keep the request's form (PMP-S-29).
 *
 * @module
 */
import { checkInteger } from "../check.ts";
import { familyOf } from "../ip.ts";
import type { Action, DebugTimeout, Endpoint, Instant, Machine } from "../machine.ts";
import { PROTOCOL_NUMBER, type Transport } from "../mapping.ts";
import { Outbox } from "../outbox.ts";
import type { TableEntry, TableFault } from "../table/entry.ts";
import { Repeats } from "../table/repeats.ts";
import {
  type Decision,
  type ServerEvent,
  type ServerRequest,
  snapshotRequest,
} from "../table/server_request.ts";
import type { MappingTable } from "../table/table.ts";
import type { TableWatch } from "../table/watch.ts";
import {
  decodeRequest,
  encodeAddressResponse,
  encodeErrorResponse,
  encodeMapResponse,
  encodeUnsupportedVersionResponse,
  NATPMP_OPCODE,
  NATPMP_RESULT,
  type NatPmpMapFields,
  type NatPmpRequest,
  natPmpResultName,
} from "./codec.ts";
import {
  type NatPmpServerOptions,
  type NatPmpServerSettings,
  readServerOptions,
} from "./server_options.ts";
import { earliest } from "../timers.ts";

export type { NatPmpServerOptions } from "./server_options.ts";

/** Counters of a {@linkcode NatPmpServer}. */
export interface NatPmpServerStats {
  /** Requests by what they ask for. */
  readonly requests: { address: number; map: number; delete: number; unsupported: number };
  /** Responses by result code; the last is for every code from 6 on. */
  readonly results: number[];
  /** Datagrams dropped, by reason. */
  readonly dropped: {
    "too-short": number;
    "not-a-request": number;
    outside: number;
    policy: number;
  };
  /** Announcements sent. */
  announcements: number;
}

/** What a mapping request comes to. */
interface Outcome {
  readonly resultCode: number;
  /** 0 where nothing was made. */
  readonly externalPort: number;
  /** 0 where nothing was made. */
  readonly lifetimeSeconds: number;
}

/** Nothing was made, or what was there is deleted (result 0). */
function nothing(resultCode: number): Outcome {
  return { resultCode, externalPort: 0, lifetimeSeconds: 0 };
}

const NO_ADDRESS = "0.0.0.0";
const NO_ENDPOINT: Endpoint = { address: NO_ADDRESS, port: 0 };
const ANNOUNCEMENT = "announcement";

/**
 * A NAT-PMP server. Feed it what arrives on the inside's UDP port 5351; it sends by the socket
 * role `"server"`.
 *
 * @example
 * ```ts
 * import { encodeAddressRequest } from "@natkit/natkit/nat-pmp";
 * import { MappingTable, NatPmpServer } from "@natkit/natkit/testing";
 * const table = new MappingTable({ externalAddresses: ["203.0.113.7"] });
 * const server = new NatPmpServer({ table, announceTo: [] });
 * server.start(0);
 * server.handleDatagram(encodeAddressRequest(), { address: "192.168.1.2", port: 40000 }, "server", 5);
 * const action = server.poll();
 * console.assert(action?.type === "send" && action.data[11] === 7);
 * ```
 */
export class NatPmpServer implements Machine<ServerEvent> {
  readonly #settings: NatPmpServerSettings;
  readonly #table: MappingTable;
  readonly #out = new Outbox<ServerEvent>();
  readonly #repeats = new Repeats<typeof ANNOUNCEMENT>();
  readonly #watch: TableWatch | undefined;
  #epochStart: Instant | undefined;
  /** Counters. */
  readonly stats: NatPmpServerStats = {
    requests: { address: 0, map: 0, delete: 0, unsupported: 0 },
    results: [0, 0, 0, 0, 0, 0, 0],
    dropped: { "too-short": 0, "not-a-request": 0, outside: 0, policy: 0 },
    announcements: 0,
  };

  /**
   * Makes a server; `start` boots it.
   *
   * @throws {TypeError | RangeError} Where an option cannot be, with its name and value.
   */
  constructor(options: NatPmpServerOptions) {
    this.#settings = readServerOptions(options);
    this.#table = this.#settings.table;
    this.#watch = this.#settings.trace === true ? this.#table.watch() : undefined;
  }

  /** Seconds since the start of the epoch at `now`. */
  epochSeconds(now: Instant): number {
    this.#epochStart ??= now;
    return Math.max(0, Math.floor((now - this.#epochStart) / 1000)) % 0x1_0000_0000;
  }

  /**
   * Boots, or boots again once the table was lost or cleared, which is its owner's to do: epoch 0,
   * announced (PMP-S-07, PMP-S-30).
   */
  start(now: Instant): void {
    this.boot(0, now);
  }

  /**
   * Boots as one whose epoch has run for `seconds`: what it announces says so.
   *
   * @throws {RangeError} Where `seconds` does not fit 32 bits.
   */
  boot(seconds: number, now: Instant): void {
    this.setEpoch(seconds, now);
    if (this.#settings.announcesStart) this.announce(now);
  }

  /**
   * Lets the epoch jump, in silence.
   *
   * @throws {RangeError} Where `seconds` does not fit 32 bits.
   */
  setEpoch(seconds: number, now: Instant): void {
    this.#enter(now);
    this.#epochStart = now - 1000 * checkInteger("seconds", seconds, 0, 0xffff_ffff);
  }

  /**
   * Announces the external address, ten times at doubling intervals: the table's addresses have
   * changed; the epoch runs on (PMP-S-07).
   */
  announce(now: Instant): void {
    this.#enter(now);
    const { announceCopies } = this.#settings;
    this.#repeats.start(ANNOUNCEMENT, ANNOUNCEMENT, announceCopies, "announce", now);
    this.#repeat(now);
  }

  /** Ends the announcements under way. */
  silence(): void {
    this.#repeats.clear();
  }

  handleDatagram(data: Uint8Array, from: Endpoint, _socket: string, now: Instant): boolean {
    this.#enter(now);
    const { dropped } = this.stats;
    if (!this.#isInside(from.address)) {
      dropped.outside++;
      return false;
    }
    const request = decodeRequest(data);
    if (typeof request === "string") {
      dropped[request]++;
      return false;
    }
    this.#serve(data, request, from, now);
    this.#relayChanges();
    return true;
  }

  /** Does nothing: a server keeps nothing about a client that is gone but its mappings. */
  handleUnreachable(_to: Endpoint, _socket: string, now: Instant): void {
    this.#out.touch(now);
  }

  handleTimeout(now: Instant): void {
    this.#enter(now);
    this.#repeat(now);
  }

  nextTimeout(): Instant | undefined {
    const wakeAt = this.#out.wakeAt();
    if (wakeAt !== undefined) return wakeAt;
    const announcement = this.#repeats.nextAt(), lease = this.#table.nextTimeout();
    if (announcement === undefined || lease === undefined) return announcement ?? lease;
    return Math.min(announcement, lease);
  }

  debugTimeout(): DebugTimeout | undefined {
    const wakeAt = this.#out.wakeAt();
    if (wakeAt !== undefined) return { at: wakeAt, reason: "drain" };
    return earliest(this.#repeats.next(), this.#table.debugTimeout());
  }

  poll(): Action<ServerEvent> | undefined {
    return this.#out.poll();
  }

  #enter(now: Instant): void {
    this.#out.touch(now);
    this.#epochStart ??= now;
    this.#table.advance(now);
    this.#relayChanges();
  }

  #relayChanges(): void {
    for (let next = this.#watch?.next(); next; next = this.#watch?.next()) {
      this.#out.emit({ type: "mapping", change: next.change, entry: next.entry });
    }
  }

  #isInside(address: string): boolean {
    if (familyOf(address) !== 4 || this.#table.externalAddresses.includes(address)) return false;
    return this.#settings.isInside?.(address) ?? true;
  }

  #repeat(now: Instant): void {
    if (this.#repeats.popDue(now) === undefined) return;
    const address = this.#table.externalAddresses.find((address) => familyOf(address) === 4);
    const resultCode = addressResult(address);
    const data = this.#encodeAddress(resultCode, address, now);
    for (const to of this.#settings.announceTo) {
      this.stats.announcements++;
      this.#out.send("server", to, data, `${to.address} ${to.port}`);
      const external = address === undefined ? undefined : { address, port: 0 };
      this.#trace(to, NATPMP_OPCODE.ADDRESS, resultCode, now, external, undefined, true);
    }
  }

  #encodeAddress(resultCode: number, address: string | undefined, now: Instant): Uint8Array {
    const externalAddress = address ?? NO_ADDRESS, epochSeconds = this.epochSeconds(now);
    return encodeAddressResponse({ resultCode, externalAddress, epochSeconds });
  }

  #serve(data: Uint8Array, request: NatPmpRequest, from: Endpoint, now: Instant): void {
    const { requests } = this.stats;
    switch (request.kind) {
      case "unsupported-version": {
        requests.unsupported++;
        const bytes = encodeUnsupportedVersionResponse({ epochSeconds: this.epochSeconds(now) });
        return this.#reply(from, request.opcode, NATPMP_RESULT.UNSUPP_VERSION, bytes, now);
      }
      case "unsupported-opcode": {
        requests.unsupported++;
        const resultCode = NATPMP_RESULT.UNSUPP_OPCODE, { opcode } = request;
        const epochSeconds = this.epochSeconds(now);
        const bytes = encodeErrorResponse({ opcode, resultCode, epochSeconds, request: data });
        return this.#reply(from, opcode, resultCode, bytes, now);
      }
      case "address":
        requests.address++;
        return this.#serveAddress(from, now);
      case "map":
        if (request.lifetimeSeconds === 0) requests.delete++;
        else requests.map++;
        return this.#serveMapping(request, from, now);
    }
  }

  /** The address of the client's own mappings: it shall see no other (PMP-S-34). */
  #serveAddress(from: Endpoint, now: Instant): void {
    const decision = this.#decide(undefined, from, undefined, now);
    if (decision?.kind === "drop") return;
    const address = this.#table.externalAddressFor(from.address);
    const resultCode = decision?.kind === "refuse" ? decision.code : addressResult(address);
    const bytes = this.#encodeAddress(resultCode, address, now);
    const isTold = resultCode === NATPMP_RESULT.SUCCESS && address !== undefined;
    const external = isTold ? { address, port: 0 } : undefined;
    this.#reply(from, NATPMP_OPCODE.ADDRESS, resultCode, bytes, now, external);
  }

  #serveMapping(request: NatPmpMapFields, from: Endpoint, now: Instant): void {
    const { protocol, internalPort } = request;
    const existing = this.#table.inbound(PROTOCOL_NUMBER[protocol], from.address, internalPort);
    const decision = this.#decide(request, from, existing, now);
    if (decision?.kind === "drop") return;
    const { resultCode, externalPort, lifetimeSeconds } = decision?.kind === "refuse"
      ? nothing(decision.code)
      : this.#change(request, from, existing, now);
    const bytes = encodeMapResponse({
      protocol,
      resultCode,
      epochSeconds: this.epochSeconds(now),
      internalPort,
      externalPort,
      lifetimeSeconds,
    });
    const opcode = protocol === "udp" ? NATPMP_OPCODE.MAP_UDP : NATPMP_OPCODE.MAP_TCP;
    const external = this.#settings.trace && externalPort !== 0
      ? { address: this.#table.externalAddressFor(from.address) ?? NO_ADDRESS, port: externalPort }
      : undefined;
    this.#reply(from, opcode, resultCode, bytes, now, external, lifetimeSeconds);
  }

  /** Tells the trace and asks the policy about a mapping, or about the address. */
  #decide(
    mapping: NatPmpMapFields | undefined,
    from: Endpoint,
    existing: TableEntry | undefined,
    now: Instant,
  ): Decision {
    const { decide, trace } = this.#settings;
    if (!decide && !trace) return undefined;
    const request = describe(mapping, from, existing);
    if (trace) this.#out.emit({ type: "request", request: snapshotRequest(request) });
    const decision = decide?.(request, now);
    if (decision?.kind === "drop") this.stats.dropped.policy++;
    return decision;
  }

  /** Makes, renews or deletes; `existing` is the inbound mapping of the internal endpoint. */
  #change(
    request: NatPmpMapFields,
    from: Endpoint,
    existing: TableEntry | undefined,
    now: Instant,
  ): Outcome {
    if (request.lifetimeSeconds > 0) return this.#map(request, from, existing, now);
    return nothing(
      request.internalPort > 0
        ? this.#deleteOne(existing, now)
        : this.#deleteAll(request.protocol, from.address, now),
    );
  }

  #map(
    request: NatPmpMapFields,
    from: Endpoint,
    existing: TableEntry | undefined,
    now: Instant,
  ): Outcome {
    const { internalPort } = request;
    // Internal port 0 would be a mapping of all ports, which NAT-PMP cannot ask for.
    if (internalPort === 0) return nothing(NATPMP_RESULT.NOT_AUTHORIZED);
    const address = this.#table.externalAddressFor(from.address);
    if (address === undefined) return nothing(NATPMP_RESULT.NETWORK_FAILURE);
    const lifetimeSeconds = Math.min(request.lifetimeSeconds, this.#settings.maxLifetimeSeconds);
    const expiresAt = now + 1000 * lifetimeSeconds;
    // The client knows one external address, and the mapping is on another (PMP-S-34).
    if (existing && existing.external.address !== address) {
      return nothing(NATPMP_RESULT.OUT_OF_RESOURCES);
    }
    if (existing) this.#renew(existing, from, expiresAt);
    const entry = existing ?? this.#create(request, from, address, expiresAt, now);
    if (typeof entry === "string") return nothing(NATPMP_RESULT.OUT_OF_RESOURCES);
    // The port may be one of a set of adjoining ports.
    const externalPort = entry.external.port + internalPort - entry.internal.port;
    return { resultCode: NATPMP_RESULT.SUCCESS, externalPort, lifetimeSeconds };
  }

  #renew(existing: TableEntry, from: Endpoint, expiresAt: Instant): void {
    const { kind, origin, nonce, size } = existing;
    if (this.#settings.takesOver && kind === "explicit" && origin !== "nat-pmp" && size === 1) {
      const isExact = false;
      this.#table.renew(existing, { origin: "nat-pmp", expiresAt, requester: from, isExact });
    } else {
      // A PCP client wants to be told of a move where that client is.
      const requester = nonce === undefined ? from : undefined;
      // Another port of a set was promised as well, and maybe for longer.
      const promised = size > 1 ? this.#table.leaseOf(existing, "nat-pmp")?.expiresAt : undefined;
      this.#table.renew(existing, {
        by: "nat-pmp",
        expiresAt: Math.max(expiresAt, promised ?? expiresAt),
        requester,
        reserveCompanion: true,
      });
    }
  }

  #create(
    { protocol, internalPort, suggestedExternalPort: suggested }: NatPmpMapFields,
    from: Endpoint,
    suggestedAddress: string,
    expiresAt: Instant,
    now: Instant,
  ): TableEntry | TableFault {
    const number = PROTOCOL_NUMBER[protocol];
    const attempt = (suggestedPort: number, isExact: boolean): TableEntry | TableFault =>
      this.#table.mapInbound({
        origin: "nat-pmp",
        protocol: number,
        internal: { address: from.address, port: internalPort },
        suggestedAddress,
        suggestedPort,
        isExact,
        requester: from,
        reserveCompanion: true,
        expiresAt,
      }, now);
    // A flow that went out already has its external endpoint, wherever that is (PMP-S-16).
    const [flow] = this.#table.outbounds(number, from.address, internalPort);
    if (flow) {
      // The client knows one external address, and the mapping would be on another (PMP-S-34).
      return flow.external.address === suggestedAddress
        ? attempt(suggested, false)
        : "no-resources";
    }
    // "Exactly this address" is what keeps the mapping on the one address that the client knows.
    if (this.#settings.portChoice === "any") {
      const entry = suggested === 0 ? "external-unavailable" : attempt(suggested, true);
      return entry === "external-unavailable" ? attempt(0, true) : entry;
    }
    const first = suggested || internalPort;
    for (let i = 0; i < 65535; i++) {
      const entry = attempt((first - 1 + i) % 65535 + 1, true);
      if (entry !== "external-unavailable") return entry;
    }
    return "no-resources";
  }

  /** The result code. */
  #deleteOne(existing: TableEntry | undefined, now: Instant): number {
    if (!existing) return NATPMP_RESULT.SUCCESS;
    if (existing.kind === "static") return NATPMP_RESULT.NOT_AUTHORIZED;
    if (this.#settings.deletes === "own" && existing.origin !== "nat-pmp") {
      return NATPMP_RESULT.SUCCESS;
    }
    // One port of a set cannot go alone, and NAT-PMP did not make the set.
    if (existing.size > 1) return NATPMP_RESULT.NOT_AUTHORIZED;
    this.#table.remove(existing, now);
    return NATPMP_RESULT.SUCCESS;
  }

  /** The result code. */
  #deleteAll(protocol: Transport, client: string, now: Instant): number {
    const { deleteAll, deletes } = this.#settings;
    let isComplete = true;
    for (const entry of this.#table.entriesOf(client)) {
      const isAsked = deleteAll === "both" || entry.protocol === PROTOCOL_NUMBER[protocol];
      if (!isAsked || entry.kind === "outbound") continue;
      if (entry.kind === "static") isComplete = false;
      else if (deletes === "all" || entry.origin === "nat-pmp") this.#table.remove(entry, now);
    }
    return isComplete ? NATPMP_RESULT.SUCCESS : NATPMP_RESULT.NOT_AUTHORIZED;
  }

  #reply(
    to: Endpoint,
    opcode: number,
    resultCode: number,
    data: Uint8Array,
    now: Instant,
    external?: Endpoint,
    lifetimeSeconds?: number,
  ): void {
    this.stats.results[Math.min(resultCode, 6)]!++;
    this.#out.send("server", to, data);
    this.#trace(to, opcode, resultCode, now, external, lifetimeSeconds, false);
  }

  #trace(
    to: Endpoint,
    opcode: number,
    resultCode: number,
    now: Instant,
    external: Endpoint | undefined,
    lifetimeSeconds: number | undefined,
    isUnsolicited: boolean,
  ): void {
    if (!this.#settings.trace) return;
    this.#out.emit({
      type: "response",
      via: "nat-pmp",
      to,
      opcode,
      resultCode,
      result: natPmpResultName(resultCode),
      epochSeconds: this.epochSeconds(now),
      lifetimeSeconds,
      external,
      isUnsolicited,
    });
  }
}

function addressResult(address: string | undefined): number {
  return address === undefined ? NATPMP_RESULT.NETWORK_FAILURE : NATPMP_RESULT.SUCCESS;
}

/** The request as a policy sees it. */
function describe(
  mapping: NatPmpMapFields | undefined,
  from: Endpoint,
  existing: TableEntry | undefined,
): ServerRequest {
  const { internalPort = 0, suggestedExternalPort = 0, lifetimeSeconds = 0 } = mapping ?? {};
  return {
    via: "nat-pmp",
    operation: !mapping
      ? "address"
      : lifetimeSeconds > 0
      ? "map"
      : internalPort > 0
      ? "delete"
      : "delete-all",
    from,
    protocol: mapping ? PROTOCOL_NUMBER[mapping.protocol] : 0,
    internal: { address: from.address, port: internalPort },
    suggested: suggestedExternalPort === 0
      ? NO_ENDPOINT
      : { address: NO_ADDRESS, port: suggestedExternalPort },
    remote: undefined,
    lifetimeSeconds,
    nonce: undefined,
    existing,
  };
}
