/**
 * The simulated gateway: a PCP and a NAT-PMP server over one mapping table, with everything that
 * can go wrong with gateways at command.
 *
 * Theory of operation. A datagram goes through: does anything listen (NAT on, some protocol on),
 * is it from the inside, is the gateway deaf right now; then the version byte chooses the server
 * (PMP-S-37, PCP-S-59, D-19): 0 NAT-PMP, 2 PCP, others PCP's form from version 3 and 24 bytes on,
 * else NAT-PMP's; where one protocol is off, the other one's server says that. Then the policy is
 * asked (denied clients and the `refuse` scenario, the profile's rules, the caller's `decide`),
 * the server answers, and the answer goes through the profile's reply rules and the disturbances
 * (delay, loss, doubling, wrong source), where it may wait in a bounded queue.
 *
 *   on ──setNat(false)──▶ off ──setNat(true)──▶ on, table empty, epoch 0, announced
 *   on ──reboot──▶ on, table empty, epoch 0, announced      on ──forget──▶ on, table empty, silent
 *
 * The gateway drains its servers inside each call. One epoch clock a server: PCP's restarts with
 * a new external address (PCP-S-21), NAT-PMP's runs on, as its mappings move along.
 *
 * @module
 */
import { checkAddress, checkInteger, checkPort } from "../check.ts";
import type { Action, DebugTimeout, Endpoint, Instant, Machine } from "../machine.ts";
import { PROTOCOL_NUMBER, type Transport } from "../mapping.ts";
import { NatPmpServer } from "../natpmp/server.ts";
import { Outbox } from "../outbox.ts";
import { PcpServer, type PcpServerEvent } from "../pcp/server.ts";
import { putU32 } from "../bytes.ts";
import { snapshotEntry, type TableEntry, type TableFault } from "../table/entry.ts";
import { MappingTable } from "../table/table.ts";
import type { TableWatch } from "../table/watch.ts";
import { Admission } from "./admission.ts";
import type { GatewayEvent, GatewayStats } from "./events.ts";
import { forwardInbound, forwardOutbound } from "./forwarding.ts";
import {
  type GatewaySettings,
  readGatewayOptions,
  type SimulatedGatewayOptions,
} from "./options.ts";
import { type Exchange, Outlet } from "./outlet.ts";
import type { GatewayProtocol } from "./profile.ts";
import { withoutOption } from "./question.ts";
import type { Disturbance } from "./reply_queue.ts";

export type { GatewayEvent, GatewayStats } from "./events.ts";
export type { SimulatedGatewayOptions } from "./options.ts";

/**
 * A gateway to test clients against. Feed it what arrives on its inside's UDP port 5351; it sends
 * by the socket roles `"server"` and, where a wrong source is asked for, `"other"`.
 *
 * @example
 * ```ts
 * import { seededRandom } from "@natkit/natkit/core";
 * import { encodeAddressRequest } from "@natkit/natkit/nat-pmp";
 * import { SimulatedGateway } from "@natkit/natkit/testing";
 * const gateway = new SimulatedGateway({
 *   externalAddresses: ["203.0.113.7"],
 *   announceTo: [],
 *   random: seededRandom(1),
 * });
 * gateway.start(0);
 * gateway.handleDatagram(encodeAddressRequest(), { address: "192.168.1.2", port: 40000 }, 5);
 * const action = gateway.poll();
 * console.assert(action?.type === "send" && action.data[11] === 7);
 * ```
 */
export class SimulatedGateway implements Machine<GatewayEvent> {
  /** The mapping table: to read, and to make entries behind the servers' backs. */
  readonly table: MappingTable;
  readonly #settings: GatewaySettings;
  readonly #natPmp: NatPmpServer;
  readonly #pcp: PcpServer;
  readonly #out = new Outbox<GatewayEvent>();
  readonly #outlet: Outlet;
  readonly #admission: Admission;
  readonly #watch: TableWatch | undefined;
  readonly #on: Set<GatewayProtocol>;
  #isNat = true;
  #deaf = 0;
  #verdict: { readonly refuse: number; readonly lifetimeSeconds?: number } | undefined;
  #forgetAt: Instant | undefined;
  #dropped = { off: 0, outside: 0, deaf: 0, silent: 0, policy: 0 };

  /**
   * Makes a gateway that has not booted yet.
   *
   * @throws {TypeError | RangeError} Where an option is none, with its name and value.
   */
  constructor(options: SimulatedGatewayOptions) {
    const settings = this.#settings = readGatewayOptions(options);
    const { random, profile, maxLifetimeSeconds, minLifetimeSeconds, announceTo } = settings;
    this.table = new MappingTable({
      ...settings.table,
      externalAddresses: settings.externalAddresses,
      random,
    });
    const trace = settings.trace ? "packets" : false;
    const longest = maxLifetimeSeconds === undefined ? {} : { maxLifetimeSeconds };
    const shortest = minLifetimeSeconds === undefined
      ? {}
      : { minLifetimeSeconds, minPeerLifetimeSeconds: minLifetimeSeconds };
    this.#natPmp = new NatPmpServer({
      ...profile?.natPmp,
      ...longest,
      table: this.table,
      announceTo: settings.family === 4 ? [...announceTo, ...settings.extraAnnounceTo] : [],
      decide: () => this.#verdict,
      trace,
    });
    this.#pcp = new PcpServer({
      ...profile?.pcp,
      ...longest,
      ...shortest,
      table: this.table,
      announceTo,
      allowThirdParty: settings.allowThirdParty,
      decide: () => this.#verdict,
      trace,
    });
    this.#admission = new Admission(this.table, profile?.requests, settings.decide);
    this.#outlet = new Outlet(profile?.replies ?? [], random, ({ socket, to, data }) => {
      this.#out.send(socket, to, data);
    });
    this.#watch = settings.trace ? this.table.watch() : undefined;
    this.#on = new Set(settings.protocols);
  }

  /** Counters. */
  get stats(): GatewayStats {
    return {
      dropped: { ...this.#dropped },
      replies: this.#outlet.stats,
      natPmp: this.#natPmp.stats,
      pcp: this.#pcp.stats,
    };
  }

  /**
   * Whether anything listens on the port. Where not, ICMP says port unreachable: whoever runs the
   * gateway closes its socket (PMP-S-32).
   */
  get isListening(): boolean {
    return this.#isNat && this.#on.size > 0 && !this.#settings.profile?.isUnreachable;
  }

  /** The protocols that are on. */
  get protocols(): readonly GatewayProtocol[] {
    return [...this.#on];
  }

  /** What happens to its datagrams. */
  get disturbance(): Disturbance {
    return this.#outlet.disturbance;
  }

  /** Copies of the table's entries, the oldest first. */
  list(now: Instant): TableEntry[] {
    this.#enter(now);
    return [...this.table.entries()].map(snapshotEntry);
  }

  /** Seconds since the start of a protocol's epoch. */
  epochSeconds(protocol: GatewayProtocol, now: Instant): number {
    return protocol === "pcp" ? this.#pcp.epochSeconds(now) : this.#natPmp.epochSeconds(now);
  }

  /** Boots: epochs 0, announced. */
  start(now: Instant): void {
    this.#enter(now);
    const every = this.#settings.profile?.forgets?.everySeconds;
    this.#forgetAt = every === undefined ? undefined : now + 1000 * every;
    this.#natPmp.setEpoch(0, now);
    this.#pcp.setEpoch(0, now);
    if (this.isListening && this.#on.has("nat-pmp")) this.#natPmp.start(now);
    if (this.isListening && this.#on.has("pcp")) this.#pcp.reset(now);
    this.#drain(now);
  }

  /** Loses all mappings but the static ones, and what is on its way; boots. */
  reboot(now: Instant): void {
    this.#enter(now);
    this.table.clear("dynamic", now);
    this.#outlet.clear();
    this.start(now);
  }

  /** Loses all mappings but the static ones and says nothing: the epochs run on. */
  forget(now: Instant): void {
    this.#enter(now);
    this.table.clear("dynamic", now);
    this.#drain(now);
  }

  /**
   * Lets both epochs jump, in silence.
   *
   * @throws {RangeError} Where `seconds` does not fit 32 bits.
   */
  setEpoch(seconds: number, now: Instant): void {
    this.#enter(now);
    this.#natPmp.setEpoch(seconds, now);
    this.#pcp.setEpoch(seconds, now);
    this.#drain(now);
  }

  /**
   * New external addresses, none for a WAN that is down. Mappings move along, with the same port
   * where it is free, and the clients are told.
   *
   * @throws {TypeError} Where one is no IPv4 address, or the gateway does not translate.
   */
  setExternalAddresses(addresses: readonly string[], now: Instant): void {
    if (this.#settings.family === 6) {
      throw new TypeError("Cannot set external addresses: this gateway does not translate");
    }
    const checked = addresses.map((a, i) => checkAddress(`addresses[${i}]`, a, 4));
    this.#enter(now);
    const moved = this.table.setExternalAddresses(checked, now);
    if (this.#settings.profile?.resetsEpochOnNewAddress) this.#natPmp.setEpoch(0, now);
    if (!this.isListening) this.#pcp.setEpoch(0, now);
    else {
      if (this.#on.has("pcp")) this.#pcp.externalAddressChanged(moved, now);
      if (this.#on.has("nat-pmp")) this.#natPmp.externalAddressChanged(now);
    }
    this.#drain(now);
  }

  /**
   * Adds a static mapping, in place of a client's own mapping of that internal endpoint.
   *
   * @returns The entry, or why there is none.
   * @throws {TypeError | RangeError} Where a port or the address is none.
   */
  addStatic(
    protocol: Transport,
    externalPort: number,
    internal: Endpoint,
    now: Instant,
  ): TableEntry | TableFault {
    checkPort("externalPort", externalPort);
    checkPort("internal.port", internal.port);
    const address = checkAddress("internal.address", internal.address, this.#settings.family);
    this.#enter(now);
    const number = PROTOCOL_NUMBER[protocol];
    const existing = this.table.inbound(number, address, internal.port);
    if (existing?.kind === "explicit") this.table.remove(existing, now);
    const entry = this.table.mapInbound({
      kind: "static",
      origin: "admin",
      protocol: number,
      internal: { address, port: internal.port },
      suggestedPort: externalPort,
      isExact: true,
      expiresAt: Infinity,
    }, now);
    this.#drain(now);
    return typeof entry === "string" ? entry : snapshotEntry(entry);
  }

  /** Acts as a NAT or does not (PMP-S-32). To act as one again is a boot. */
  setNat(isNat: boolean, now: Instant): void {
    this.#enter(now);
    if (this.#isNat === isNat) return;
    this.#isNat = isNat;
    if (isNat) return this.start(now);
    this.table.clear("dynamic", now);
    this.#natPmp.silence();
    this.#pcp.silence();
    this.#outlet.clear();
    this.#drain(now);
  }

  /**
   * Switches a protocol. The other one's server answers its requests with UNSUPP_VERSION then.
   *
   * @throws {TypeError} Where NAT-PMP is switched on at a gateway that does not translate.
   */
  setProtocol(protocol: GatewayProtocol, isOn: boolean, now: Instant): void {
    if (isOn && protocol === "nat-pmp" && this.#settings.family === 6) {
      throw new TypeError("Cannot switch nat-pmp on: this gateway does not translate");
    }
    this.#enter(now);
    const server = protocol === "pcp" ? this.#pcp : this.#natPmp;
    if (!isOn && this.#on.delete(protocol)) server.silence();
    if (isOn && !this.#on.has(protocol)) {
      this.#on.add(protocol);
      if (this.isListening) server.announce(now);
    }
    this.#drain(now);
  }

  /** Has no port left for new mappings, or has again; what is there can be renewed. */
  setExhausted(isExhausted: boolean, now: Instant): void {
    this.#enter(now);
    this.table.isExhausted = isExhausted;
  }

  /**
   * Answers every request but ANNOUNCE with this result code, the same in both protocols;
   * undefined serves them again.
   *
   * @throws {RangeError} Where it is not in 1…255.
   */
  setRefusal(code: number | undefined, now: Instant): void {
    if (code !== undefined) checkInteger("code", code, 1, 255);
    this.#enter(now);
    this.#admission.refusal = code;
  }

  /**
   * Whether a client may have mappings; where not, NOT_AUTHORIZED is the answer.
   *
   * @throws {TypeError} Where the address is none.
   */
  setPermission(client: string, isAllowed: boolean, now: Instant): void {
    const address = checkAddress("client", client);
    this.#enter(now);
    this.#admission.setPermission(address, isAllowed);
  }

  /** A client's address lease is over: its mappings go (PMP-S-20, PCP-S-57). */
  forgetClient(client: string, now: Instant): void {
    this.#enter(now);
    this.table.removeAllOf(checkAddress("client", client), now);
    this.#drain(now);
  }

  /**
   * Does not hear the next datagrams.
   *
   * @throws {RangeError} Where `packets` is no integer from 0 on.
   */
  setDeaf(packets: number, now: Instant): void {
    this.#enter(now);
    this.#deaf = checkInteger("packets", packets, 0, Number.MAX_SAFE_INTEGER);
  }

  /**
   * Changes what happens to its datagrams from now on; what is left out stays as it is.
   *
   * @throws {TypeError | RangeError} Where a time is negative, or the loss rate not in 0…1.
   */
  disturb(change: Partial<Disturbance>, now: Instant): void {
    const next = { ...this.#outlet.disturbance, ...change };
    checkRange("delayMs", next.delayMs, 86_400_000);
    checkRange("reorderMs", next.reorderMs, 86_400_000);
    checkRange("lossRate", next.lossRate, 1);
    this.#enter(now);
    this.#outlet.disturbance = next;
  }

  /** Announces by both protocols, ten times at doubling intervals. */
  announce(now: Instant): void {
    this.#enter(now);
    if (!this.isListening) return;
    if (this.#on.has("nat-pmp")) this.#natPmp.announce(now);
    if (this.#on.has("pcp")) this.#pcp.announce(now);
    this.#drain(now);
  }

  /** Where a packet from `remote` to `external` goes, for the NAT that forwards by the table. */
  lookupInbound(
    protocol: number,
    external: Endpoint,
    remote: Endpoint,
    now: Instant,
  ): Endpoint | undefined {
    return this.#isNat ? forwardInbound(this.table, protocol, external, remote, now) : undefined;
  }

  /** As whom `internal` talks to `remote`, for the NAT that forwards by the table. */
  lookupOutbound(
    protocol: number,
    internal: Endpoint,
    remote: Endpoint,
    now: Instant,
  ): Endpoint | undefined {
    return this.#isNat ? forwardOutbound(this.table, protocol, internal, remote, now) : undefined;
  }

  handleDatagram(data: Uint8Array, from: Endpoint, now: Instant): boolean {
    this.#enter(now);
    const server = this.#receive(data, from, now);
    if (typeof server !== "object") {
      this.#drain(now);
      return server;
    }
    const verdict = this.#admission.judge(data, from, now);
    if (verdict?.kind === "drop") {
      this.#dropped.policy++;
      this.#drain(now);
      return true;
    }
    this.#verdict = verdict?.kind === "refuse" ? { ...verdict, refuse: verdict.code } : undefined;
    const reshape = verdict?.kind === "reshape" ? verdict : undefined;
    const request = reshape?.withoutOption === undefined
      ? data
      : withoutOption(data, reshape.withoutOption);
    const wasHandled = server.handleDatagram(request, from, now);
    this.#verdict = undefined;
    this.#drain(now, {
      request: data,
      from,
      delayMs: verdict?.kind === "delay" ? verdict.delayMs : 0,
      changes: reshape?.changes ?? [],
    });
    return wasHandled;
  }

  handleUnreachable(to: Endpoint, now: Instant): void {
    this.#enter(now);
    this.#natPmp.handleUnreachable(to, now);
    this.#pcp.handleUnreachable(to, now);
    this.#drain(now);
  }

  handleTimeout(now: Instant): void {
    this.#enter(now);
    this.#natPmp.handleTimeout(now);
    this.#pcp.handleTimeout(now);
    this.#outlet.handleTimeout(now);
    const { forgets } = this.#settings.profile ?? {};
    if (forgets && this.#forgetAt !== undefined && this.#forgetAt <= now) {
      this.#forgetAt = now + 1000 * forgets.everySeconds;
      if (this.table.size > forgets.above) this.table.clear("dynamic", now);
    }
    this.#drain(now);
  }

  nextTimeout(): Instant | undefined {
    return this.debugTimeout()?.at;
  }

  debugTimeout(): DebugTimeout | undefined {
    const wakeAt = this.#out.wakeAt();
    if (wakeAt !== undefined) return { at: wakeAt, reason: "drain" };
    let first: DebugTimeout | undefined;
    const candidates = [
      this.#natPmp.debugTimeout(),
      this.#pcp.debugTimeout(),
      this.#outlet.next(),
      this.#forgetAt === undefined ? undefined : { at: this.#forgetAt, reason: "forget the table" },
    ];
    for (const next of candidates) if (next && (!first || next.at < first.at)) first = next;
    return first;
  }

  poll(): Action<GatewayEvent> | undefined {
    return this.#out.poll();
  }

  #enter(now: Instant): void {
    this.#out.touch(now);
    this.table.advance(now);
  }

  /** The server that is to answer, or whether the datagram was the gateway's. */
  #receive(data: Uint8Array, from: Endpoint, now: Instant): NatPmpServer | PcpServer | boolean {
    if (!this.isListening) {
      this.#dropped.off++;
      return false;
    }
    const { isInside, profile } = this.#settings;
    if (!isInside(from.address) || this.table.externalAddresses.includes(from.address)) {
      this.#dropped.outside++;
      return false;
    }
    if (this.#deaf > 0) {
      this.#deaf--;
      this.#dropped.deaf++;
      return true;
    }
    const server = this.#serverFor(data);
    if (!server) {
      this.#dropped.silent++;
      return true;
    }
    const isIllSized = data.length >= 2 && (data.length < 24 || data.length % 4 !== 0);
    if (profile?.illSizedReply && server === this.#pcp && data[0] === 2 && isIllSized) {
      this.#answerIllSized(data, from, profile.illSizedReply, now);
      return true;
    }
    return server;
  }

  #serverFor(data: Uint8Array): NatPmpServer | PcpServer | undefined {
    const hasPcp = this.#on.has("pcp"), hasNatPmp = this.#on.has("nat-pmp");
    const version = data[0] ?? 0;
    if (version === 2 && !hasPcp && this.#settings.profile?.isDeafToPcp) return undefined;
    const prefersPcp = version === 2 || (version >= 3 && data.length >= 24);
    return hasPcp && (prefersPcp || !hasNatPmp) ? this.#pcp : hasNatPmp ? this.#natPmp : undefined;
  }

  #answerIllSized(
    data: Uint8Array,
    from: Endpoint,
    head: readonly number[],
    now: Instant,
  ): void {
    if (data[1]! & 0x80) return;
    const reply = new Uint8Array(Math.min(1100, Math.max(24, (data.length + 3) & ~3)));
    reply.set(head);
    putU32(reply, 8, this.#pcp.epochSeconds(now));
    this.#outlet.sendAsIs(from, reply, now);
  }

  /** Takes what the servers and the table have to say. */
  #drain(now: Instant, exchange?: Exchange): void {
    for (let action = this.#natPmp.poll(); action; action = this.#natPmp.poll()) {
      if (action.type === "send") this.#outlet.send(action.to, action.data, exchange, now);
      else if (action.type === "event") this.#out.emit(action.event);
    }
    for (let action = this.#pcp.poll(); action; action = this.#pcp.poll()) {
      if (action.type === "send") this.#outlet.send(action.to, action.data, exchange, now);
      else if (action.type === "event") this.#tellPcp(action.event);
    }
    for (let next = this.#watch?.next(); next; next = this.#watch?.next()) {
      this.#out.emit({ type: "mapping", change: next.change, entry: next.entry });
    }
  }

  #tellPcp(event: PcpServerEvent): void {
    if (event.type === "request") {
      this.#out.emit({ ...event, via: "pcp", from: event.request.from });
    } else if (event.type === "response") {
      this.#out.emit({ ...event, via: "pcp" });
    }
  }
}

function checkRange(name: string, value: number, high: number): void {
  if (typeof value !== "number" || !(value >= 0 && value <= high)) {
    throw new RangeError(`'${name}' must be a number in 0..${high}: current value is ${value}`);
  }
}
