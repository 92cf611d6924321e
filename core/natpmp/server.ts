/**
 * The NAT-PMP server (RFC 6886), over a mapping table that other servers may share.
 *
 * Theory of operation. A request is answered at once or not at all; what lasts is in the table.
 * The server's own state is small:
 *
 *   idle ──start / setActive(true)──▶ active ──setActive(false)──▶ idle
 *                                     active: announcing (10 times) ──▶ quiet ──event──▶ announcing
 *
 * Events that start the announcements over: start, reset, externalAddressChanged, announce. The
 * epoch counts from start or reset (PMP-S-06, PMP-S-30). While idle it is no NAT: it neither
 * answers nor announces, and nothing should listen on its port (PMP-S-32).
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
import { PROTOCOL_NUMBER } from "../mapping.ts";
import { Outbox } from "../outbox.ts";
import type { TableEntry } from "../table/entry.ts";
import type { MappingTable } from "../table/table.ts";
import type { TableWatch } from "../table/watch.ts";
import { Announcer } from "./announcer.ts";
import {
  decodeRequest,
  encodeAddressResponse,
  encodeErrorResponse,
  encodeMapResponse,
  encodeUnsupportedVersionResponse,
  NATPMP_RESULT,
  type NatPmpRequest,
  natPmpResultName,
} from "./codec.ts";
import { failed, serveMapping } from "./server_mapping.ts";
import {
  type NatPmpReply,
  type NatPmpServerEvent,
  type NatPmpServerOptions,
  type NatPmpServerSettings,
  readServerOptions,
} from "./server_options.ts";
import { type NatPmpVerdict, questionOf, type ServableRequest } from "./server_question.ts";

export type { NatPmpReply, NatPmpServerEvent, NatPmpServerOptions } from "./server_options.ts";
export type { NatPmpQuestion, NatPmpVerdict } from "./server_question.ts";

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
    "from-outside": number;
    "by-policy": number;
    inactive: number;
  };
  /** Announcements sent. */
  announcements: number;
}

/** What a reply says, as its trace tells it. */
type Told = Omit<NatPmpReply, "resultName" | "epochSeconds">;

/** Field by field: spreading costs Node 20 more than all the rest of a request. */
function toldOf({ resultCode, externalAddress }: Told): Told {
  return resultCode === NATPMP_RESULT.SUCCESS && externalAddress !== undefined
    ? { resultCode, externalAddress }
    : { resultCode };
}

/**
 * A NAT-PMP server. Feed it what arrives on the inside's UDP port 5351; it sends by the socket
 * role `"server"`.
 *
 * @example
 * ```ts
 * import { MappingTable } from "@natkit/natkit/core";
 * import { encodeAddressRequest, NatPmpServer } from "@natkit/natkit/nat-pmp";
 * const table = new MappingTable({ externalAddresses: ["203.0.113.7"] });
 * const server = new NatPmpServer({ table, announceTo: [] });
 * server.start(0);
 * server.handleDatagram(encodeAddressRequest(), { address: "192.168.1.2", port: 40000 }, 5);
 * const action = server.poll();
 * console.assert(action?.type === "send" && action.data[11] === 7);
 * ```
 */
export class NatPmpServer implements Machine<NatPmpServerEvent> {
  readonly #settings: NatPmpServerSettings;
  readonly #table: MappingTable;
  readonly #out = new Outbox<NatPmpServerEvent>();
  readonly #announcer = new Announcer();
  readonly #watch: TableWatch | undefined;
  #isActive = true;
  #isAuthorized: boolean;
  #epochStart: Instant | undefined;
  /** Counters. */
  readonly stats: NatPmpServerStats = {
    requests: { address: 0, map: 0, delete: 0, unsupported: 0 },
    results: [0, 0, 0, 0, 0, 0, 0],
    dropped: {
      "too-short": 0,
      "not-a-request": 0,
      "from-outside": 0,
      "by-policy": 0,
      inactive: 0,
    },
    announcements: 0,
  };

  /**
   * Makes a server; `start` boots it.
   *
   * @throws {TypeError | RangeError} Where an option is none, with its name and value.
   */
  constructor(options: NatPmpServerOptions) {
    this.#settings = readServerOptions(options);
    this.#table = this.#settings.table;
    this.#isAuthorized = this.#settings.isAuthorized;
    this.#watch = this.#settings.trace === true ? this.#table.watch() : undefined;
  }

  /** Whether anything should listen on the port; where not, ICMP says so to clients (PMP-S-32). */
  get isListening(): boolean {
    return this.#isActive;
  }

  /** Seconds since the start of the epoch at `now`. */
  epochSeconds(now: Instant): number {
    this.#epochStart ??= now;
    return Math.max(0, Math.floor((now - this.#epochStart) / 1000)) % 0x1_0000_0000;
  }

  /** Boots: epoch 0, announced (PMP-S-07). */
  start(now: Instant): void {
    this.#enter(now);
    this.#epochStart = now;
    if (this.#settings.announcesStart) this.#startAnnouncing(now);
  }

  /** The table was lost or cleared: epoch 0, announced (PMP-S-30). The table is not touched. */
  reset(now: Instant): void {
    this.start(now);
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

  /** The table's external addresses changed: announced, the epoch runs on (PMP-S-07). */
  externalAddressChanged(now: Instant): void {
    this.announce(now);
  }

  /** Announces, ten times at doubling intervals. */
  announce(now: Instant): void {
    this.#enter(now);
    this.#startAnnouncing(now);
  }

  /** Ends the announcements under way. */
  silence(): void {
    this.#announcer.stop();
  }

  /** Acts as a NAT or does not (PMP-S-32). To act as one again is a start. */
  setActive(isActive: boolean, now: Instant): void {
    this.#enter(now);
    if (this.#isActive === isActive) return;
    this.#isActive = isActive;
    if (isActive) this.reset(now);
    else this.#announcer.stop();
  }

  /** Serves requests, or answers each NOT_AUTHORIZED: the administrator's switch (PMP-S-36). */
  setAuthorized(isAuthorized: boolean, now: Instant): void {
    this.#enter(now);
    this.#isAuthorized = isAuthorized;
  }

  /** A client's address lease is over: its mappings go (PMP-S-20). */
  forgetClient(address: string, now: Instant): void {
    this.#enter(now);
    this.#table.removeAllOf(address, now);
    this.#relayChanges();
  }

  handleDatagram(data: Uint8Array, from: Endpoint, now: Instant): boolean {
    this.#enter(now);
    const { dropped } = this.stats;
    if (!this.#isActive) {
      dropped.inactive++;
      return false;
    }
    if (!this.#isInside(from.address)) {
      dropped["from-outside"]++;
      return false;
    }
    const request = decodeRequest(data);
    if (typeof request === "string") {
      dropped[request === "too-short" ? "too-short" : "not-a-request"]++;
      return false;
    }
    if (this.#settings.trace) {
      this.#out.emit({ type: "request", via: "nat-pmp", from, request });
    }
    this.#serve(data, request, from, now);
    this.#relayChanges();
    return true;
  }

  /** Does nothing: a server keeps nothing about a client that is gone but its mappings. */
  handleUnreachable(_to: Endpoint, now: Instant): void {
    this.#out.touch(now);
  }

  handleTimeout(now: Instant): void {
    this.#enter(now);
    if (this.#announcer.isDue(now)) this.#announceOnce(now);
  }

  nextTimeout(): Instant | undefined {
    const wakeAt = this.#out.wakeAt();
    if (wakeAt !== undefined) return wakeAt;
    const announcement = this.#announcer.next()?.at, lease = this.#table.nextTimeout();
    if (announcement === undefined || lease === undefined) return announcement ?? lease;
    return Math.min(announcement, lease);
  }

  debugTimeout(): DebugTimeout | undefined {
    const wakeAt = this.#out.wakeAt();
    if (wakeAt !== undefined) return { at: wakeAt, reason: "drain" };
    const announcement = this.#announcer.next(), lease = this.#table.debugTimeout();
    if (!announcement || !lease) return announcement ?? lease;
    return announcement.at <= lease.at ? announcement : lease;
  }

  poll(): Action<NatPmpServerEvent> | undefined {
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

  #startAnnouncing(now: Instant): void {
    if (!this.#isActive) return;
    this.#announcer.start(now, this.#settings.announceCopies);
    if (this.#announcer.isDue(now)) this.#announceOnce(now);
  }

  #announceOnce(now: Instant): void {
    const answer = this.#addressResponse(this.#addressFor(undefined), now);
    for (const to of this.#settings.announceTo) {
      this.stats.announcements++;
      this.#out.send("server", to, answer.data, `${to.address} ${to.port}`);
      this.#trace(to, { kind: "address" }, toldOf(answer), true, now);
    }
  }

  /** The external address of a client's mappings: it shall see no other (PMP-S-34). */
  #addressFor(client: string | undefined): string | undefined {
    return client === undefined
      ? this.#table.externalAddresses.find((address) => familyOf(address) === 4)
      : this.#table.externalAddressFor(client);
  }

  #addressResponse(
    externalAddress: string | undefined,
    now: Instant,
    refused?: number,
  ): { data: Uint8Array; resultCode: number; externalAddress: string } {
    const resultCode = refused ??
      (!this.#isAuthorized
        ? NATPMP_RESULT.NOT_AUTHORIZED
        : externalAddress === undefined
        ? NATPMP_RESULT.NETWORK_FAILURE
        : NATPMP_RESULT.SUCCESS);
    const told = externalAddress ?? "0.0.0.0", epochSeconds = this.epochSeconds(now);
    const data = encodeAddressResponse({ resultCode, externalAddress: told, epochSeconds });
    return { data, resultCode, externalAddress: told };
  }

  #serve(data: Uint8Array, request: NatPmpRequest, from: Endpoint, now: Instant): void {
    const { requests } = this.stats, epochSeconds = this.epochSeconds(now);
    switch (request.kind) {
      case "unsupported-version":
        requests.unsupported++;
        return this.#reply(from, request, encodeUnsupportedVersionResponse({ epochSeconds }), {
          resultCode: NATPMP_RESULT.UNSUPP_VERSION,
        }, now);
      case "unsupported-opcode": {
        requests.unsupported++;
        const resultCode = NATPMP_RESULT.UNSUPP_OPCODE, { opcode } = request;
        const bytes = encodeErrorResponse({ opcode, resultCode, epochSeconds, request: data });
        return this.#reply(from, request, bytes, { resultCode }, now);
      }
      case "address": {
        requests.address++;
        const verdict = this.#decide(request, from, undefined, now);
        if (verdict === "drop") return;
        const answer = this.#addressResponse(this.#addressFor(from.address), now, verdict?.refuse);
        return this.#reply(from, request, answer.data, toldOf(answer), now);
      }
      case "map": {
        const { protocol, internalPort } = request;
        if (request.lifetimeSeconds === 0) requests.delete++;
        else requests.map++;
        const number = PROTOCOL_NUMBER[protocol];
        const existing = this.#table.inbound(number, from.address, internalPort);
        const verdict = this.#decide(request, from, existing, now);
        if (verdict === "drop") return;
        const outcome = verdict
          ? failed(verdict.refuse)
          : !this.#isAuthorized
          ? failed(NATPMP_RESULT.NOT_AUTHORIZED)
          : serveMapping(this.#settings, request, from, existing, now);
        const { resultCode, externalPort, lifetimeSeconds } = outcome;
        const bytes = encodeMapResponse({
          protocol,
          resultCode,
          epochSeconds,
          internalPort,
          externalPort,
          lifetimeSeconds,
        });
        return this.#reply(from, request, bytes, outcome, now);
      }
    }
  }

  #decide(
    request: ServableRequest,
    from: Endpoint,
    existing: TableEntry | undefined,
    now: Instant,
  ): NatPmpVerdict {
    const verdict = this.#settings.decide?.(questionOf(request, from, existing), now);
    if (verdict === "drop") this.stats.dropped["by-policy"]++;
    return verdict;
  }

  #reply(to: Endpoint, request: NatPmpRequest, data: Uint8Array, told: Told, now: Instant): void {
    this.stats.results[Math.min(told.resultCode, 6)]!++;
    this.#out.send("server", to, data);
    this.#trace(to, request, told, false, now);
  }

  #trace(
    to: Endpoint,
    request: NatPmpRequest,
    told: Told,
    isUnsolicited: boolean,
    now: Instant,
  ): void {
    if (!this.#settings.trace) return;
    const resultName = natPmpResultName(told.resultCode);
    const response = { ...told, resultName, epochSeconds: this.epochSeconds(now) };
    this.#out.emit({ type: "response", via: "nat-pmp", to, request, response, isUnsolicited });
  }
}
