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
import { checkAddress, checkInteger } from "../check.ts";
import type { Action, DebugTimeout, Endpoint, Instant, Machine } from "../machine.ts";
import type { Transport } from "../mapping.ts";
import { Outbox } from "../outbox.ts";
import { snapshotEntry, type TableEntry, type TableFault } from "../table/entry.ts";
import { MappingTable } from "../table/table.ts";
import { Admission } from "./admission.ts";
import { Door } from "./door.ts";
import type { GatewayEvent, GatewayStats } from "./events.ts";
import { forwardInbound, forwardOutbound } from "./forwarding.ts";
import {
  type GatewaySettings,
  readGatewayOptions,
  type SimulatedGatewayOptions,
} from "./options.ts";
import { type Exchange, Outlet } from "./outlet.ts";
import type { GatewayProtocol } from "./profile.ts";
import { type Disturbance, readDisturbance } from "./reply_queue.ts";
import { Servers } from "./servers.ts";
import { placeStatic } from "./static_mapping.ts";

export type { GatewayEvent, GatewayStats } from "./events.ts";
export type { SimulatedGatewayOptions } from "./options.ts";

const NOBODY: ReadonlySet<GatewayProtocol> = new Set();

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
  readonly #servers: Servers;
  readonly #out = new Outbox<GatewayEvent>();
  readonly #outlet: Outlet;
  readonly #admission: Admission;
  readonly #door: Door;
  #forgetAt: Instant | undefined;

  /**
   * Makes a gateway that has not booted yet.
   *
   * @throws {TypeError | RangeError} Where an option is none, with its name and value.
   */
  constructor(options: SimulatedGatewayOptions) {
    const settings = this.#settings = readGatewayOptions(options);
    const { random, profile, externalAddresses } = settings;
    this.table = new MappingTable({ ...settings.table, externalAddresses, random });
    this.#servers = new Servers(settings, this.table);
    this.#admission = new Admission(this.table, profile?.requests, settings.decide);
    this.#outlet = new Outlet(profile?.replies ?? [], random, ({ socket, to, data }) => {
      this.#out.send(socket, to, data);
    });
    this.#door = new Door(settings, this.table);
  }

  /** Counters. */
  get stats(): GatewayStats {
    return {
      dropped: { ...this.#door.dropped },
      replies: this.#outlet.stats,
      natPmp: this.#servers.natPmp.stats,
      pcp: this.#servers.pcp.stats,
    };
  }

  /**
   * Whether anything listens on the port. Where not, ICMP says port unreachable: whoever runs the
   * gateway closes its socket (PMP-S-32).
   */
  get isListening(): boolean {
    return this.#door.isListening;
  }

  /** The protocols that are on. */
  get protocols(): readonly GatewayProtocol[] {
    return [...this.#door.on];
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
    const { pcp, natPmp } = this.#servers;
    return (protocol === "pcp" ? pcp : natPmp).epochSeconds(now);
  }

  /** Boots: epochs 0, announced. */
  start(now: Instant): void {
    this.#enter(now);
    const { forgets } = this.#settings.profile ?? {};
    this.#forgetAt = forgets && now + 1000 * forgets.everySeconds;
    this.#servers.boot(this.isListening ? this.#door.on : NOBODY, now);
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
    this.#servers.setEpoch(seconds, now);
    this.#drain(now);
  }

  /**
   * New external addresses, none for a WAN that is down. Mappings move along, with the same port
   * where it is free, and the clients are told.
   *
   * @throws {TypeError} Where one is no IPv4 address, or the gateway does not translate.
   */
  setExternalAddresses(addresses: readonly string[], now: Instant): void {
    const { family, profile } = this.#settings;
    if (family === 6) throw new TypeError("Cannot set external addresses: it does not translate");
    const checked = addresses.map((a, i) => checkAddress(`addresses[${i}]`, a, 4));
    this.#enter(now);
    const moved = this.table.setExternalAddresses(checked, now);
    if (profile?.resetsEpochOnNewAddress) this.#servers.natPmp.setEpoch(0, now);
    this.#servers.externalAddressChanged(this.isListening ? this.#door.on : NOBODY, moved, now);
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
    const { family } = this.#settings;
    this.#enter(now);
    const entry = placeStatic(this.table, family, protocol, externalPort, internal, now);
    this.#drain(now);
    return entry;
  }

  /** Acts as a NAT or does not (PMP-S-32). To act as one again is a boot. */
  setNat(isNat: boolean, now: Instant): void {
    this.#enter(now);
    if (this.#door.isNat === isNat) return;
    this.#door.isNat = isNat;
    if (isNat) return this.start(now);
    this.table.clear("dynamic", now);
    this.#servers.silence();
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
    const { on } = this.#door;
    if (!isOn && on.delete(protocol)) this.#servers.silence(protocol);
    if (isOn && !on.has(protocol)) {
      on.add(protocol);
      if (this.isListening) this.#servers.announce(new Set([protocol]), now);
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
    this.#door.deaf = checkInteger("packets", packets, 0, Number.MAX_SAFE_INTEGER);
  }

  /**
   * Changes what happens to its datagrams from now on; what is left out stays as it is.
   *
   * @throws {TypeError | RangeError} Where a time is negative, or the loss rate not in 0…1.
   */
  disturb(change: Partial<Disturbance>, now: Instant): void {
    const next = readDisturbance({ ...this.#outlet.disturbance, ...change });
    this.#enter(now);
    this.#outlet.disturbance = next;
  }

  /** Announces by both protocols, ten times at doubling intervals. */
  announce(now: Instant): void {
    this.#enter(now);
    if (!this.isListening) return;
    this.#servers.announce(this.#door.on, now);
    this.#drain(now);
  }

  /** Where a packet from `remote` to `external` goes, for the NAT that forwards by the table. */
  lookupInbound(
    protocol: number,
    external: Endpoint,
    remote: Endpoint,
    now: Instant,
  ): Endpoint | undefined {
    if (!this.#door.isNat) return undefined;
    return forwardInbound(this.table, protocol, external, remote, now);
  }

  /** As whom `internal` talks to `remote`, for the NAT that forwards by the table. */
  lookupOutbound(
    protocol: number,
    internal: Endpoint,
    remote: Endpoint,
    now: Instant,
  ): Endpoint | undefined {
    if (!this.#door.isNat) return undefined;
    return forwardOutbound(this.table, protocol, internal, remote, now);
  }

  handleDatagram(data: Uint8Array, from: Endpoint, now: Instant): boolean {
    this.#enter(now);
    const entrance = this.#door.enter(data, from);
    if (entrance !== "pcp" && entrance !== "nat-pmp") {
      if (entrance === "ill-sized") {
        const reply = this.#door.answerIllSized(data, this.#servers.pcp.epochSeconds(now));
        this.#outlet.sendAsIs(from, reply, now);
      }
      this.#drain(now);
      return entrance !== "off" && entrance !== "outside";
    }
    const judgement = this.#admission.judge(data, from, now);
    if (judgement === "drop") {
      this.#door.dropped.policy++;
      this.#drain(now);
      return true;
    }
    const { request, refusal, delayMs, changes } = judgement;
    const wasHandled = this.#servers.serve(entrance, request, from, refusal, now);
    this.#drain(now, { request: data, from, delayMs, changes });
    return wasHandled;
  }

  handleUnreachable(to: Endpoint, now: Instant): void {
    this.#enter(now);
    this.#servers.handleUnreachable(to, now);
    this.#drain(now);
  }

  handleTimeout(now: Instant): void {
    this.#enter(now);
    this.#servers.handleTimeout(now);
    this.#outlet.handleTimeout(now);
    const { forgets } = this.#settings.profile ?? {};
    if (forgets && this.#forgetAt !== undefined && this.#forgetAt <= now) {
      this.#forgetAt = now + 1000 * forgets.everySeconds;
      if (this.table.size > forgets.above) this.table.clear("dynamic", now);
    }
    this.#drain(now);
  }

  /** Asked after each datagram, so it puts no reasons into words. */
  nextTimeout(): Instant | undefined {
    const wakeAt = this.#out.wakeAt();
    if (wakeAt !== undefined) return wakeAt;
    const outletAt = this.#outlet.next()?.at ?? Infinity;
    const at = Math.min(outletAt, this.#forgetAt ?? Infinity, this.#servers.nextAt());
    return at === Infinity ? undefined : at;
  }

  debugTimeout(): DebugTimeout | undefined {
    const wakeAt = this.#out.wakeAt();
    if (wakeAt !== undefined) return { at: wakeAt, reason: "drain" };
    const forget = this.#forgetAt === undefined
      ? undefined
      : { at: this.#forgetAt, reason: "forget the table" };
    return [...this.#servers.deadlines(), this.#outlet.next(), forget]
      .reduce((a, b) => a && b ? (b.at < a.at ? b : a) : a ?? b);
  }

  poll(): Action<GatewayEvent> | undefined {
    return this.#out.poll();
  }

  #enter(now: Instant): void {
    this.#out.touch(now);
    this.table.advance(now);
  }

  /** Takes what the servers and the table have to say. */
  #drain(now: Instant, exchange?: Exchange): void {
    this.#servers.drain(
      (to, data) => this.#outlet.send(to, data, exchange, now),
      (event) => this.#out.emit(event),
    );
  }
}
