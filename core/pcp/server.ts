/**
 * A PCP server: RFC 6887 with DESCRIPTION (RFC 7220), PREFIX64 (RFC 7225) and PORT_SET (RFC 7753),
 * over a mapping table that it may share with other protocols' servers. IPv4 behind a NAT, IPv6
 * behind a firewall, as the table is set up.
 *
 * Theory of operation. A request is judged in the order of RFC 6887 §8.2 (PCP-S-01…10, D-05): each
 * step drops it, answers it with an error, or passes it on:
 *
 *   inside? → ≥ 2 bytes → R clear → version 2 → ≥ 24 bytes → length → client address → opcode
 *     → option structure → options in order → policy → MAP, PEER or ANNOUNCE
 *
 * Nothing changes before the last step, and that one changes the table last of all; so an error
 * leaves no trace (PCP-S-15). An error answers with the request itself, a success with the fields
 * of its opcode and the options that were processed (PCP-S-16, 17).
 *
 * MAP and PEER: see server_mapping.ts.
 *
 * Unasked it sends announcements (`reset`, `announce`) and mapping updates
 * (`externalAddressChanged`); see server_notices.ts. Leases end in the table.
 *
 * @module
 */
import { checkInteger } from "../check.ts";
import { withoutZone } from "../ip.ts";
import type { Action, DebugTimeout, Endpoint, Instant, Machine } from "../machine.ts";
import { Outbox } from "../outbox.ts";
import {
  type MappingTable,
  type MovedEntry,
  snapshotEntry,
  type TableEntry,
  type TableWatch,
} from "../table/mod.ts";
import {
  decodeRequest,
  decodeRequestHeader,
  PCP_OPCODE,
  PCP_RESULT,
  PCP_VERSION,
  type PcpMapRequestMessage,
  type PcpPeerRequestMessage,
} from "./codec.ts";
import { describe } from "./server_answer.ts";
import { type Job, MappingService, type Outcome } from "./server_mapping.ts";
import { type MappingUpdate, noticeKey, Notices } from "./server_notices.ts";
import {
  type PcpServerEvent,
  type PcpServerOptions,
  type PcpServerSettings,
  readServerOptions,
} from "./server_options.ts";
import { count, type PcpServerStats, Replies } from "./server_replies.ts";
import { type KnownRequest, planOptions } from "./server_request.ts";

export type { PcpServerStats } from "./server_replies.ts";
export type {
  PcpServerDecision,
  PcpServerEvent,
  PcpServerOptions,
  PcpServerRequest,
} from "./server_options.ts";

const WATCH_LIMIT = 16_384;

/**
 * A PCP server machine. Requests come in by `handleDatagram`, answers leave by role `"server"`.
 *
 * @example
 * ```ts
 * import { MappingTable } from "@natkit/natkit/core";
 * import { encodeRequest, PcpServer } from "@natkit/natkit/pcp";
 * const table = new MappingTable({ externalAddresses: ["203.0.113.7"] });
 * const server = new PcpServer({ table });
 * const request = encodeRequest({
 *   kind: "map", lifetimeSeconds: 3600, clientAddress: "192.168.1.100", nonce: new Uint8Array(12),
 *   protocol: 6, internalPort: 8080, suggestedPort: 0, suggestedAddress: "0.0.0.0", options: [],
 * });
 * server.handleDatagram(request, { address: "192.168.1.100", port: 40000 }, 0);
 * console.assert(server.poll()?.type === "send" && table.size === 1);
 * ```
 */
export class PcpServer implements Machine<PcpServerEvent> {
  /** Counters. */
  readonly stats: PcpServerStats = {
    requests: {},
    responses: {},
    dropped: {},
    announcements: 0,
    updates: 0,
  };
  #settings: PcpServerSettings;
  #table: MappingTable;
  #replies: Replies;
  #outbox = new Outbox<PcpServerEvent>(mergeEvents);
  #notices: Notices;
  #service: MappingService;
  #isTraced: boolean;
  #watch: TableWatch | undefined;

  /**
   * Takes the options and begins in silence; `reset` announces it.
   *
   * @throws {TypeError | RangeError} Where an option is none, with its name and value.
   */
  constructor(options: PcpServerOptions) {
    this.#settings = readServerOptions(options);
    this.#table = options.table;
    this.#service = new MappingService(this.#table, this.#settings);
    this.#notices = new Notices(this.#settings.announceCopies);
    this.#isTraced = options.trace !== undefined && options.trace !== false;
    this.#replies = new Replies(this.#settings, this.stats, this.#outbox, this.#isTraced);
    this.#replies.epochStart = options.startedAt ?? 0;
    this.#watch = options.trace === true ? options.table.watch(WATCH_LIMIT) : undefined;
  }

  /** Seconds since the table was reset, as answers carry it (PCP-S-21). */
  epochSeconds(now: Instant): number {
    return this.#replies.epochSeconds(now);
  }

  /**
   * The server's state is lost, by a reboot or otherwise: the epoch begins anew, mapping updates
   * under way are forgotten, and clients are told (PCP-S-21, 49). The table is its owner's to
   * clear, since others may share it.
   */
  reset(now: Instant): void {
    this.#outbox.touch(now);
    this.#replies.epochStart = now;
    this.#notices.clear();
    this.#notices.announce(now);
    this.#work(now);
  }

  /** Lets the epoch stand at `seconds` and says nothing: a fault to test clients against. */
  setEpoch(seconds: number, now: Instant): void {
    this.#replies.epochStart = now - 1000 * checkInteger("seconds", seconds, 0, 0xffff_ffff);
  }

  /** Announces, as after a restart, with the epoch as it is. */
  announce(now: Instant): void {
    this.#outbox.touch(now);
    this.#notices.announce(now);
    this.#work(now);
  }

  /** Ends announcements and mapping updates under way: the server is switched off. */
  silence(): void {
    this.#notices.clear();
  }

  /**
   * The external addresses have changed: the epoch begins anew (PCP-S-21), and the clients of the
   * mappings that moved are told, as is everybody (PCP-S-47, 51).
   *
   * @param moved What `MappingTable.setExternalAddresses` returned.
   */
  externalAddressChanged(moved: readonly MovedEntry[], now: Instant): void {
    this.#outbox.touch(now);
    this.#replies.epochStart = now;
    this.#notices.announce(now);
    for (const { entry, previous, isGone } of moved) {
      // A mapping without a nonce is another protocol's, which has its own way to tell.
      if (!entry.nonce || !entry.requester) continue;
      const { CANNOT_PROVIDE_EXTERNAL, NO_RESOURCES, SUCCESS } = PCP_RESULT;
      if (isGone) {
        const resultCode = entry.isExact ? CANNOT_PROVIDE_EXTERNAL : NO_RESOURCES;
        this.#notices.update({ entry, resultCode }, now);
      } else if (entry.isExact) {
        // What was asked for cannot be had any more, and nothing else was wanted.
        const gone = { ...snapshotEntry(entry), external: previous };
        this.#table.remove(entry, now);
        this.#notices.update({ entry: gone, resultCode: CANNOT_PROVIDE_EXTERNAL }, now);
      } else {
        this.#notices.update({ entry, resultCode: SUCCESS }, now);
      }
    }
    this.#work(now);
  }

  /** Serves one request. Always true: what is no request is dropped and counted. */
  handleDatagram(data: Uint8Array, from: Endpoint, now: Instant): boolean {
    this.#outbox.touch(now);
    this.#table.advance(now);
    this.#serve(data, from, now);
    this.#tellChanges();
    return true;
  }

  /** A client that is gone loses its mappings by their leases, not by this. */
  handleUnreachable(_to: Endpoint, now: Instant): void {
    this.#outbox.touch(now);
  }

  handleTimeout(now: Instant): void {
    this.#outbox.touch(now);
    this.#table.advance(now);
    this.#work(now);
  }

  nextTimeout(): Instant | undefined {
    this.#tellChanges();
    return this.#outbox.wakeAt() ?? earlier(this.#notices.nextAt(), this.#table.nextTimeout());
  }

  debugTimeout(): DebugTimeout | undefined {
    this.#tellChanges();
    const waking = this.#outbox.wakeAt();
    if (waking !== undefined) return { at: waking, reason: "output waits" };
    const notice = this.#notices.next(), lease = this.#table.debugTimeout();
    if (notice && lease) return notice.at <= lease.at ? notice : lease;
    return notice ?? lease;
  }

  poll(): Action<PcpServerEvent> | undefined {
    this.#tellChanges();
    return this.#outbox.poll();
  }

  #serve(data: Uint8Array, from: Endpoint, now: Instant): void {
    if (this.#settings.isInside?.(from.address) === false) return this.#drop("outside");
    if (data.length < 2) return this.#drop("too-short");
    if (data[1]! & 0x80) return this.#drop("not-a-request");
    if (data[0] !== PCP_VERSION) {
      return this.#replies.refuse(data, from, PCP_RESULT.UNSUPP_VERSION, now, { isParsed: false });
    }
    const request = decodeRequest(data);
    if (typeof request === "string") {
      if (request === "bad-length") {
        return this.#replies.refuse(data, from, PCP_RESULT.MALFORMED_REQUEST, now, {
          isParsed: false,
        });
      }
      if (request !== "bad-options") return this.#drop("too-short");
    }
    const header = request === "bad-options" ? decodeRequestHeader(data) : request;
    if (typeof header === "string") return this.#drop("too-short");
    const { clientAddress } = header;
    if (clientAddress !== from.address && clientAddress !== withoutZone(from.address)) {
      return this.#replies.refuse(data, from, PCP_RESULT.ADDRESS_MISMATCH, now);
    }
    if (!this.#isServed(data[1]!)) {
      return this.#replies.refuse(data, from, PCP_RESULT.UNSUPP_OPCODE, now);
    }
    if (request === "bad-options" || request.kind === "other") {
      return this.#replies.refuse(data, from, PCP_RESULT.MALFORMED_OPTION, now, {
        isParsed: false,
      });
    }
    const plan = planOptions(request, this.#settings);
    if (typeof plan === "number") return this.#replies.refuse(data, from, plan, now);
    // Of the two texts the runtime's: the table looks it up faster, having done so before.
    const own = clientAddress === from.address ? from.address : clientAddress;
    const address = plan.thirdParty ?? own;
    count(this.stats.requests, request.kind);
    if (this.#isStopped(data, from, request, address, now)) return;
    if (request.kind === "map") {
      const job = { request, from, plan, address };
      this.#answer(job, this.#service.map(job, now), data, now);
    } else if (request.kind === "peer") {
      const job = { request, from, plan, address };
      this.#answer(job, this.#service.peer(job, now), data, now);
    } else {
      this.#replies.announced(from, plan.processed, now);
    }
  }

  #isServed(opcode: number): boolean {
    return opcode === PCP_OPCODE.ANNOUNCE ||
      opcode === PCP_OPCODE.MAP && this.#settings.mapEnabled ||
      opcode === PCP_OPCODE.PEER && this.#settings.peerEnabled;
  }

  /** Tells the trace and asks the policy; true where the policy has the last word. */
  #isStopped(
    data: Uint8Array,
    from: Endpoint,
    request: KnownRequest,
    address: string,
    now: Instant,
  ): boolean {
    const { decide } = this.#settings;
    if (!decide && !this.#isTraced) return false;
    const view = describe(request, from, address);
    if (this.#isTraced) this.#outbox.emit({ type: "request", request: view });
    const decision = decide?.(view);
    if (!decision) return false;
    if ("drop" in decision) this.#drop("policy");
    else this.#replies.refuse(data, from, decision.refuse, now, decision);
    return true;
  }

  #answer(
    { request, from }: Job<PcpMapRequestMessage | PcpPeerRequestMessage>,
    outcome: Outcome,
    data: Uint8Array,
    now: Instant,
  ): void {
    if ("resultCode" in outcome) {
      return this.#replies.refuse(data, from, outcome.resultCode, now, outcome);
    }
    for (const grant of outcome) {
      if (grant.entry) this.#settle(grant.entry);
      this.#replies.grant(request, from, grant, now);
    }
  }

  /** Sends the notices that are due. */
  #work(now: Instant): void {
    for (let due = this.#notices.popDue(now); due; due = this.#notices.popDue(now)) {
      if (due === "announce") this.#replies.announce(now);
      else if (this.#isTrue(due)) this.#replies.update(due, now);
    }
    this.#tellChanges();
  }

  /** Whether what an update tells is so: the mapping may have gone by another protocol. */
  #isTrue({ entry, resultCode }: MappingUpdate): boolean {
    return resultCode !== PCP_RESULT.SUCCESS || this.#table.get(entry.id) !== undefined;
  }

  /** The client knows where its mapping stands: no more updates about it. */
  #settle({ protocol, internal, remote }: TableEntry): void {
    if (this.#notices.updates === 0) return;
    const key = noticeKey(protocol, internal.address, internal.port, remote);
    this.#notices.settle(key);
    this.#outbox.unsend(key);
  }

  #tellChanges(): void {
    if (!this.#watch) return;
    for (let next = this.#watch.next(); next; next = this.#watch.next()) {
      const { change, entry } = next;
      this.#outbox.emit({ type: "mapping", change, entry }, entry.id);
    }
  }

  #drop(reason: string): void {
    count(this.stats.dropped, reason);
  }
}

function earlier(a: Instant | undefined, b: Instant | undefined): Instant | undefined {
  return a === undefined ? b : b === undefined ? a : Math.min(a, b);
}

/** Of two changes of one mapping that nobody heard of yet, one: a new one that was renewed is new. */
function mergeEvents(older: PcpServerEvent, newer: PcpServerEvent): PcpServerEvent {
  if (older.type !== "mapping" || newer.type !== "mapping") return newer;
  const isGone = newer.change === "removed" || newer.change === "expired";
  return older.change === "added" && !isGone ? { ...newer, change: "added" } : newer;
}
