/**
 * A PCP server: RFC 6887 with DESCRIPTION (RFC 7220), PREFIX64 (RFC 7225) and PORT_SET (RFC 7753),
 * over a mapping table that it may share with other protocols' servers. IPv4 behind a NAT, IPv6
 * behind a firewall, as the table is set up.
 *
 * Theory of operation. A request is judged in the order of RFC 6887 §8.2 (PCP-S-01…10): each
 * step drops it, answers it with an error, or passes it on:
 *
 *   inside? → ≥ 2 bytes → R clear → version 2 → ≥ 24 bytes → length → client address → opcode
 *     → option structure → options in order → policy → MAP, PEER or ANNOUNCE
 *
 * Nothing changes before the last step, and that one changes the table last of all; so an error
 * leaves no trace (PCP-S-15). An error answers with the request itself, a success with the fields
 * of its opcode and the options that were processed (PCP-S-16, 17). What options, MAP and PEER come
 * to: see server_mapping.ts.
 *
 * Unasked it sends announcements (`reset`, `announce`; PCP-S-49, 50) and mapping updates
 * (`externalAddressChanged`; three copies, unless the client refreshes the mapping before,
 * PCP-S-51). Leases end in the table.
 *
 * @module
 */
import { putU16, u16 } from "../bytes.ts";
import { checkInteger } from "../check.ts";
import { type AddressKind, classify } from "../cidr.ts";
import { anyAddress, familyOf, withoutZone } from "../ip.ts";
import type { Action, DebugTimeout, Endpoint, Instant, Machine } from "../machine.ts";
import type { RemoteFilter } from "../mapping.ts";
import { Outbox } from "../outbox.ts";
import { Repeats } from "../table/repeats.ts";
import {
  type Decision,
  type ServerEvent,
  type ServerRequest,
  snapshotRequest,
} from "../table/server_request.ts";
import type { MappingTable, MovedEntry, TableEntry, TableWatch } from "../table/mod.ts";
import { snapshotEntry } from "../table/entry.ts";
import {
  decodeRequest,
  decodeRequestHeader,
  encodeErrorResponse,
  encodeResponse,
  PCP_OPCODE,
  PCP_RESULT,
  PCP_VERSION,
  type PcpMapRequestMessage,
  type PcpPeerRequestMessage,
  pcpResultName,
} from "./codec.ts";
import { NO_OPTIONS, type PcpOption } from "./options.ts";
import {
  type Grant,
  type KnownRequest,
  MappingService,
  type OptionPlan,
  planOptions,
  type Refusal,
  remainingSeconds,
} from "./server_mapping.ts";
import {
  type PcpServerOptions,
  type PcpServerSettings,
  readServerOptions,
} from "./server_options.ts";

export type { PcpServerOptions } from "./server_options.ts";

/** What a {@linkcode PcpServer} counts; names that nothing was counted under are left out. */
export interface PcpServerStats {
  /** Valid requests by kind: `announce`, `map`, `peer`. */
  readonly requests: Record<string, number>;
  /** Answers by the RFC's name of their result: `SUCCESS`, `NOT_AUTHORIZED`… */
  readonly responses: Record<string, number>;
  /** Datagrams that got no answer: `outside`, `too-short`, `not-a-request`, `policy`. */
  readonly dropped: Record<string, number>;
  /** Announcements sent, each copy to each group counted. */
  announcements: number;
  /** Mapping updates sent, each copy counted. */
  updates: number;
}

/** A mapping update under way. */
interface MappingUpdate {
  /** The mapping: live, or a copy where it is gone. */
  readonly entry: TableEntry;
  /** `SUCCESS`, or why the mapping is no more. */
  readonly resultCode: number;
}

/** What the trace tells of an answer beside its bytes. */
interface Told {
  readonly to: Endpoint;
  readonly opcode: number;
  readonly resultCode: number;
  readonly lifetimeSeconds: number;
  readonly epochSeconds: number;
  readonly external?: Endpoint;
}

const WATCH_LIMIT = 16_384;
const ANNOUNCEMENT = "announcement";
const UPDATE_COPIES = 3;
const { SUCCESS } = PCP_RESULT;

/** Errors that pass soon. */
const SHORT_ERRORS: ReadonlySet<number> = new Set([
  PCP_RESULT.NETWORK_FAILURE,
  PCP_RESULT.NO_RESOURCES,
  PCP_RESULT.USER_EX_QUOTA,
]);

/**
 * A PCP server machine. Requests come in by `handleDatagram`, answers leave by role `"server"`.
 *
 * @example
 * ```ts
 * import { encodeRequest } from "@natkit/natkit/pcp";
 * import { MappingTable, PcpServer } from "@natkit/natkit/testing";
 * const table = new MappingTable({ externalAddresses: ["203.0.113.7"] });
 * const server = new PcpServer({ table });
 * const request = encodeRequest({
 *   kind: "map", lifetimeSeconds: 3600, clientAddress: "192.168.1.100", nonce: new Uint8Array(12),
 *   protocol: 6, internalPort: 8080, suggestedPort: 0, suggestedAddress: "0.0.0.0", options: [],
 * });
 * server.handleDatagram(request, { address: "192.168.1.100", port: 40000 }, "server", 0);
 * console.assert(server.poll()?.type === "send" && table.size === 1);
 * ```
 */
export class PcpServer implements Machine<ServerEvent> {
  /** Counters. */
  readonly stats: PcpServerStats = {
    requests: {},
    responses: {},
    dropped: {},
    announcements: 0,
    updates: 0,
  };
  readonly #settings: PcpServerSettings;
  readonly #table: MappingTable;
  readonly #service: MappingService;
  readonly #out = new Outbox<ServerEvent>(mergeEvents);
  readonly #announcements = new Repeats<typeof ANNOUNCEMENT>();
  readonly #updates = new Repeats<MappingUpdate>();
  readonly #isTraced: boolean;
  readonly #watch: TableWatch | undefined;
  #epochStart: Instant;

  /**
   * Takes the options and begins in silence; `reset` announces it.
   *
   * @throws {TypeError | RangeError} Where an option cannot be, with its name and value.
   */
  constructor(options: PcpServerOptions) {
    this.#settings = readServerOptions(options);
    this.#table = options.table;
    this.#service = new MappingService(this.#table, this.#settings);
    this.#isTraced = options.trace !== undefined && options.trace !== false;
    this.#epochStart = options.startedAt ?? 0;
    this.#watch = options.trace === true ? options.table.watch(WATCH_LIMIT) : undefined;
  }

  /** Seconds since the table was reset, in 32 bits, as answers carry it (PCP-S-21). */
  epochSeconds(now: Instant): number {
    return Math.max(0, Math.floor((now - this.#epochStart) / 1000)) % 0x1_0000_0000;
  }

  /**
   * The server's state is lost, by a reboot or otherwise: the epoch begins anew, mapping updates
   * under way are forgotten, and clients are told (PCP-S-21, 49). The table is its owner's to
   * clear, since others may share it.
   */
  reset(now: Instant): void {
    this.boot(0, now);
  }

  /**
   * Resets as one whose epoch has run for `seconds`: what it announces says so.
   *
   * @throws {RangeError} Where `seconds` does not fit 32 bits.
   */
  boot(seconds: number, now: Instant): void {
    this.setEpoch(seconds, now);
    this.silence();
    this.announce(now);
  }

  /** Lets the epoch stand at `seconds` and says nothing: a fault to test clients against. */
  setEpoch(seconds: number, now: Instant): void {
    this.#epochStart = now - 1000 * checkInteger("seconds", seconds, 0, 0xffff_ffff);
  }

  /** Announces, as after a restart, with the epoch as it is. */
  announce(now: Instant): void {
    this.#out.touch(now);
    const { announceCopies } = this.#settings;
    this.#announcements.start(ANNOUNCEMENT, ANNOUNCEMENT, announceCopies, "announce", now);
    this.#repeat(now);
  }

  /** Ends announcements and mapping updates under way: the server is switched off. */
  silence(): void {
    this.#announcements.clear();
    this.#updates.clear();
  }

  /**
   * The external addresses have changed: the epoch begins anew (PCP-S-21), and the clients of the
   * mappings that moved are told, as is everybody (PCP-S-47, 51).
   *
   * @param moved What `MappingTable.setExternalAddresses` returned.
   */
  externalAddressChanged(moved: readonly MovedEntry[], now: Instant): void {
    this.#epochStart = now;
    for (const { entry, previous, isGone } of moved) {
      // A mapping without a nonce is another protocol's, which has its own way to tell.
      if (!entry.nonce || !entry.requester) continue;
      const { CANNOT_PROVIDE_EXTERNAL, NO_RESOURCES } = PCP_RESULT;
      if (isGone) {
        const resultCode = entry.isExact ? CANNOT_PROVIDE_EXTERNAL : NO_RESOURCES;
        this.#startUpdate({ entry, resultCode }, now);
      } else if (
        entry.isExact && (entry.namesAddress || entry.external.port !== previous.port)
      ) {
        // What was asked for cannot be had any more, and nothing else was wanted.
        const gone = { ...snapshotEntry(entry), external: previous };
        this.#table.release(entry, "pcp", now);
        this.#startUpdate({ entry: gone, resultCode: CANNOT_PROVIDE_EXTERNAL }, now);
      } else {
        this.#startUpdate({ entry, resultCode: SUCCESS }, now);
      }
    }
    this.announce(now);
  }

  /** Serves one request. Always true: what is no request is dropped and counted. */
  handleDatagram(data: Uint8Array, from: Endpoint, _socket: string, now: Instant): boolean {
    this.#out.touch(now);
    this.#table.advance(now);
    this.#serve(data, from, now);
    this.#tellChanges();
    return true;
  }

  /** A client that is gone loses its mappings by their leases, not by this. */
  handleUnreachable(_to: Endpoint, _socket: string, now: Instant): void {
    this.#out.touch(now);
  }

  handleTimeout(now: Instant): void {
    this.#out.touch(now);
    this.#table.advance(now);
    this.#repeat(now);
  }

  nextTimeout(): Instant | undefined {
    this.#tellChanges();
    const waking = this.#out.wakeAt();
    if (waking !== undefined) return waking;
    const noticeAt = earlier(this.#announcements.nextAt(), this.#updates.nextAt());
    return earlier(noticeAt, this.#table.nextTimeout());
  }

  debugTimeout(): DebugTimeout | undefined {
    this.#tellChanges();
    const waking = this.#out.wakeAt();
    if (waking !== undefined) return { at: waking, reason: "output waits" };
    return [this.#announcements.next(), this.#updates.next(), this.#table.debugTimeout()]
      .reduce((a, b) => a && b ? (b.at < a.at ? b : a) : a ?? b);
  }

  poll(): Action<ServerEvent> | undefined {
    this.#tellChanges();
    return this.#out.poll();
  }

  #serve(data: Uint8Array, from: Endpoint, now: Instant): void {
    if (this.#settings.isInside?.(from.address) === false) return this.#drop("outside");
    if (data.length < 2) return this.#drop("too-short");
    if (data[1]! & 0x80) return this.#drop("not-a-request");
    if (data[0] !== PCP_VERSION) {
      return this.#refuse(data, from, PCP_RESULT.UNSUPP_VERSION, now, { isParsed: false });
    }
    const request = decodeRequest(data);
    if (typeof request === "string") {
      if (request === "bad-length") {
        return this.#refuse(data, from, PCP_RESULT.MALFORMED_REQUEST, now, { isParsed: false });
      }
      if (request !== "bad-options") return this.#drop("too-short");
    }
    const header = request === "bad-options" ? decodeRequestHeader(data) : request;
    if (typeof header === "string") return this.#drop("too-short");
    const { clientAddress } = header;
    if (clientAddress !== from.address && clientAddress !== withoutZone(from.address)) {
      return this.#refuse(data, from, PCP_RESULT.ADDRESS_MISMATCH, now);
    }
    if (!this.#isServed(data[1]!)) return this.#refuse(data, from, PCP_RESULT.UNSUPP_OPCODE, now);
    if (request === "bad-options" || request.kind === "other") {
      return this.#refuse(data, from, PCP_RESULT.MALFORMED_OPTION, now, { isParsed: false });
    }
    this.#serveRequest(data, request, from, now);
  }

  #isServed(opcode: number): boolean {
    return opcode === PCP_OPCODE.ANNOUNCE ||
      opcode === PCP_OPCODE.MAP && this.#settings.mapEnabled ||
      opcode === PCP_OPCODE.PEER && this.#settings.peerEnabled;
  }

  /** From the options on. */
  #serveRequest(data: Uint8Array, request: KnownRequest, from: Endpoint, now: Instant): void {
    const plan = planOptions(request, this.#settings);
    if (typeof plan === "number") return this.#refuse(data, from, plan, now);
    if (plan.thirdParty !== undefined && !this.#canBeInside(plan.thirdParty, from.address)) {
      return this.#refuse(data, from, PCP_RESULT.NOT_AUTHORIZED, now);
    }
    // Of two equal texts the runtime's: the table looks it up faster, having done so before.
    const own = request.clientAddress === from.address ? from.address : request.clientAddress;
    const address = plan.thirdParty ?? own;
    const existing = this.#service.existing(request, address);
    count(this.stats.requests, request.kind);
    const decision = this.#decide(request, from, address, existing, now);
    switch (decision?.kind) {
      case "drop":
        return this.#drop("policy");
      case "refuse":
        return this.#refuse(data, from, decision.code, now, decision);
    }
    if (request.kind === "announce") return this.#answerAnnounce(from, plan.processed, now);
    const options = decision?.kind === "ignore-prefer-failure" ? withoutPreference(plan) : plan;
    const outcome = request.kind === "map"
      ? this.#service.map({ request, from, plan: options, address, existing }, now)
      : this.#service.peer({ request, from, plan: options, address, existing }, now);
    for (const answer of outcome) {
      if ("resultCode" in answer) {
        this.#refuse(aboutPort(data, answer), from, answer.resultCode, now, answer);
      } else {
        if (answer.entry) this.#endUpdate(answer.entry);
        this.#grant(request, from, answer, now);
      }
    }
  }

  /**
   * Whether an address that a client names can be one of the inside. Over IPv4 the inside is
   * private where nothing else is said, as it is behind every NAT.
   */
  #canBeInside(address: string, client: string): boolean {
    const { isInside } = this.#settings;
    const kind = classify(address), family = familyOf(address);
    if (family !== familyOf(client) || NEVER_INSIDE.has(kind)) return false;
    if (this.#table.externalAddresses.includes(address)) return false;
    return isInside?.(address) ?? (family === 6 || kind === "private" || kind === "shared");
  }

  /** Tells the trace and asks the policy. */
  #decide(
    request: KnownRequest,
    from: Endpoint,
    address: string,
    existing: TableEntry | undefined,
    now: Instant,
  ): Decision {
    const { decide } = this.#settings;
    if (!decide && !this.#isTraced) return undefined;
    const asked = describe(request, from, address, existing);
    if (this.#isTraced) this.#out.emit({ type: "request", request: snapshotRequest(asked) });
    return decide?.(asked, now);
  }

  #answerAnnounce(to: Endpoint, options: readonly PcpOption[], now: Instant): void {
    const epochSeconds = this.epochSeconds(now);
    const told = { resultCode: SUCCESS, lifetimeSeconds: 0, epochSeconds };
    const bytes = encodeResponse({ kind: "announce", ...told, options });
    this.#send(bytes, { to, opcode: PCP_OPCODE.ANNOUNCE, ...told });
  }

  /** Answers a MAP or PEER request with a success. */
  #grant(
    request: PcpMapRequestMessage | PcpPeerRequestMessage,
    to: Endpoint,
    { internalPort, external, lifetimeSeconds, options }: Grant,
    now: Instant,
  ): void {
    const epochSeconds = this.epochSeconds(now);
    const { nonce, protocol } = request;
    const { address: externalAddress, port: externalPort } = external;
    // Written out twice: copying the fields costs as much as the rest of the answer.
    const bytes = request.kind === "map"
      ? encodeResponse({
        kind: "map",
        resultCode: SUCCESS,
        lifetimeSeconds,
        epochSeconds,
        nonce,
        protocol,
        internalPort,
        externalPort,
        externalAddress,
        options,
      })
      : encodeResponse({
        kind: "peer",
        resultCode: SUCCESS,
        lifetimeSeconds,
        epochSeconds,
        nonce,
        protocol,
        internalPort,
        externalPort,
        externalAddress,
        remotePort: request.remotePort,
        remoteAddress: request.remoteAddress,
        options,
      });
    const opcode = request.kind === "map" ? PCP_OPCODE.MAP : PCP_OPCODE.PEER;
    this.#send(bytes, { to, opcode, resultCode: SUCCESS, lifetimeSeconds, epochSeconds, external });
  }

  /** Answers with an error, by a copy of the request (PCP-S-16). */
  #refuse(
    data: Uint8Array,
    to: Endpoint,
    resultCode: number,
    now: Instant,
    options: { lifetimeSeconds?: number | undefined; isParsed?: boolean } = {},
  ): void {
    const lifetimeSeconds = options.lifetimeSeconds ?? this.#usualSeconds(resultCode);
    const epochSeconds = this.epochSeconds(now);
    const parsed = options.isParsed ?? true;
    const bytes = encodeErrorResponse(data, { resultCode, lifetimeSeconds, epochSeconds, parsed });
    this.#send(bytes, { to, opcode: data[1]!, resultCode, lifetimeSeconds, epochSeconds });
  }

  /** How long clients are to heed an error. */
  #usualSeconds(resultCode: number): number {
    const { shortErrorSeconds, longErrorSeconds } = this.#settings;
    return SHORT_ERRORS.has(resultCode) ? shortErrorSeconds : longErrorSeconds;
  }

  /** Starts to tell a client, unasked, where its mapping is; the newest update counts. */
  #startUpdate(update: MappingUpdate, now: Instant): void {
    this.#updates.start(updateKey(update.entry), update, UPDATE_COPIES, "mapping update", now);
  }

  /** The client knows where its mapping stands: no more updates about it. */
  #endUpdate(entry: TableEntry): void {
    if (this.#updates.size === 0) return;
    const key = updateKey(entry);
    this.#updates.stop(key);
    this.#out.unsend(key);
  }

  /** Says unasked what is due. */
  #repeat(now: Instant): void {
    if (this.#announcements.popDue(now)) this.#sendAnnouncement(now);
    for (let due = this.#updates.popDue(now); due; due = this.#updates.popDue(now)) {
      // The mapping may have gone by another protocol, or to another one, or be the flow's alone.
      const entry = this.#table.get(due.entry.id);
      const isTrue = due.resultCode !== SUCCESS || entry?.nonce !== undefined;
      if (isTrue) this.#sendUpdate(due, now);
    }
    this.#tellChanges();
  }

  #sendAnnouncement(now: Instant): void {
    const told = { resultCode: SUCCESS, lifetimeSeconds: 0, epochSeconds: this.epochSeconds(now) };
    const bytes = encodeResponse({ kind: "announce", ...told, options: NO_OPTIONS });
    for (const to of this.#settings.announceTo) {
      const key = `announce ${to.address} ${to.port}`;
      this.#send(bytes, { to, opcode: PCP_OPCODE.ANNOUNCE, ...told }, key);
      this.stats.announcements++;
    }
  }

  #sendUpdate({ entry, resultCode }: MappingUpdate, now: Instant): void {
    const { internal, external, remote, protocol, nonce } = entry;
    const lifetimeSeconds = resultCode === SUCCESS
      ? remainingSeconds(this.#table, entry, now)
      : this.#usualSeconds(resultCode);
    const told = { resultCode, lifetimeSeconds, epochSeconds: this.epochSeconds(now) };
    const fields = {
      ...told,
      nonce: nonce!,
      protocol,
      internalPort: internal.port,
      externalPort: external.port,
      externalAddress: external.address,
      options: updateOptions(entry, (this.#table.leaseOf(entry, "pcp") ?? entry).filters),
    };
    const bytes = encodeResponse(
      remote
        ? { kind: "peer", ...fields, remotePort: remote.port, remoteAddress: remote.address }
        : { kind: "map", ...fields },
    );
    const opcode = remote ? PCP_OPCODE.PEER : PCP_OPCODE.MAP;
    this.#send(bytes, { to: entry.requester!, opcode, ...told, external }, updateKey(entry));
    this.stats.updates++;
  }

  /** Sends and traces; what has a key is unsolicited. */
  #send(bytes: Uint8Array, told: Told, key?: string): void {
    this.#out.send("server", told.to, bytes, key);
    const isUnsolicited = key !== undefined;
    const result = pcpResultName(told.resultCode);
    if (!isUnsolicited) count(this.stats.responses, result);
    if (!this.#isTraced) return;
    const { external } = told;
    this.#out.emit({ type: "response", via: "pcp", ...told, external, result, isUnsolicited });
  }

  #tellChanges(): void {
    if (!this.#watch) return;
    for (let next = this.#watch.next(); next; next = this.#watch.next()) {
      const { change, entry } = next;
      this.#out.emit({ type: "mapping", change, entry }, entry.id);
    }
  }

  #drop(reason: string): void {
    count(this.stats.dropped, reason);
  }
}

/** What no host behind a gateway has for an address that it could be reached at. */
const NEVER_INSIDE: ReadonlySet<AddressKind> = new Set([
  "wildcard",
  "loopback",
  "link-local",
  "multicast",
  "broadcast",
  "reserved",
]);

/** Where MAP's internal port is (RFC 6887 §11.1). */
const INTERNAL_PORT_OFFSET = 40;

/** The request as if it had been about that port's mapping. */
function aboutPort(data: Uint8Array, { internalPort }: Refusal): Uint8Array {
  if (internalPort === undefined || u16(data, INTERNAL_PORT_OFFSET) === internalPort) return data;
  const copy = data.slice();
  putU16(copy, INTERNAL_PORT_OFFSET, internalPort);
  return copy;
}

/** Adds one under a name. */
function count(counters: Record<string, number>, name: string): void {
  counters[name] = (counters[name] ?? 0) + 1;
}

function withoutPreference(plan: OptionPlan): OptionPlan {
  const processed = plan.processed.filter(({ type }) => type !== "prefer-failure");
  return { ...plan, prefersFailure: false, processed };
}

/** The request as a policy sees it. */
function describe(
  request: KnownRequest,
  from: Endpoint,
  address: string,
  existing: TableEntry | undefined,
): ServerRequest {
  const { kind, lifetimeSeconds } = request;
  if (kind === "announce") {
    return {
      via: "pcp",
      operation: kind,
      from,
      protocol: 0,
      internal: { address, port: 0 },
      suggested: { address: anyAddress(familyOf(address)), port: 0 },
      remote: undefined,
      lifetimeSeconds,
      nonce: undefined,
      existing,
    };
  }
  return {
    via: "pcp",
    operation: lifetimeSeconds === 0 ? "delete" : kind,
    from,
    protocol: request.protocol,
    internal: { address, port: request.internalPort },
    suggested: { address: request.suggestedAddress, port: request.suggestedPort },
    remote: kind === "peer"
      ? { address: request.remoteAddress, port: request.remotePort }
      : undefined,
    lifetimeSeconds,
    nonce: request.nonce,
    existing,
  };
}

/** Which mapping an update is about. */
function updateKey({ protocol, internal, remote }: TableEntry): string {
  const key = `${protocol} ${internal.address} ${internal.port}`;
  return remote ? `${key} ${remote.address} ${remote.port}` : key;
}

/** The options that a mapping update has to carry. */
function updateOptions(entry: TableEntry, filters: readonly RemoteFilter[]): PcpOption[] {
  const { internal, requester, size } = entry;
  const options: PcpOption[] = [];
  if (withoutZone(requester!.address) !== internal.address) {
    options.push({ type: "third-party", internalAddress: internal.address });
  }
  for (const { prefix, port } of filters) {
    options.push({
      type: "filter",
      prefixLength: prefix.family === 4 ? prefix.prefixLength + 96 : prefix.prefixLength,
      remotePort: port,
      remoteAddress: prefix.address,
    });
  }
  // Without it nobody could tell which ports the set has.
  if (size > 1) {
    const parity = (internal.port & 1) === (entry.external.port & 1);
    options.push({ type: "port-set", size, firstInternalPort: internal.port, parity });
  }
  return options;
}

function earlier(a: Instant | undefined, b: Instant | undefined): Instant | undefined {
  return a === undefined ? b : b === undefined ? a : Math.min(a, b);
}

/** Of two changes of one mapping that nobody heard of yet, one: a new one that was renewed is new. */
function mergeEvents(older: ServerEvent, newer: ServerEvent): ServerEvent {
  if (older.type !== "mapping" || newer.type !== "mapping") return newer;
  const isGone = newer.change === "removed" || newer.change === "expired";
  return older.change === "added" && !isGone ? { ...newer, change: "added" } : newer;
}
