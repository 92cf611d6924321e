/**
 * The simulated gateway: a PCP and a NAT-PMP server and an Internet gateway device (UPnP) over one
 * mapping table, with everything that can go wrong with gateways at command.
 *
 * Theory of operation. A datagram goes through: does anything listen (NAT on, some protocol on),
 * is it from the inside, is the gateway deaf right now; then the version byte chooses the server
 * (PMP-S-37, PCP-S-59): 0 NAT-PMP, 2 PCP, others PCP's form from version 3 and 24 bytes on,
 * else NAT-PMP's; where one protocol is off, the other one's server says that. The server reads the
 * request and asks the gateway's policy (denied clients and the `refuse` scenario, the profile's
 * rules, the caller's `decide`); what it answers goes through the profile's reply rules and the
 * disturbances (delay, loss, doubling, wrong source), where it may wait in a bounded queue. UPnP has
 * sockets of its own; what it says by SSDP goes the same way out, what it answers by HTTP one of its
 * own, where loss is lateness.
 *
 *   on ──setNat(false)──▶ off ──setNat(true)──▶ on, table empty, epoch 0, announced
 *   on ──reboot──▶ on, table empty, epoch 0, announced      on ──forget──▶ on, table empty, silent
 *
 * The gateway drains its servers inside each call. One epoch clock a server: PCP's restarts with
 * a new external address (PCP-S-21), NAT-PMP's runs on where its mappings move along with their ports.
 * UPnP's is a number that grows with each boot.
 *
 * @module
 */
import { checkAddress, checkInteger, checkPort } from "../check.ts";
import type {
  Action,
  DebugTimeout,
  Endpoint,
  HttpRequest,
  HttpResult,
  Instant,
  Machine,
  SocketResult,
  SocketSpec,
} from "../machine.ts";
import { PROTOCOL_NUMBER, type Transport } from "../mapping.ts";
import {
  NatPmpServer,
  type NatPmpServerOptions,
  type NatPmpServerStats,
} from "../natpmp/server.ts";
import { Outbox } from "../outbox.ts";
import { PcpServer, type PcpServerOptions, type PcpServerStats } from "../pcp/server.ts";
import { snapshotEntry, type TableEntry, type TableFault } from "../table/entry.ts";
import type { Decision, Policy, ServerEvent, ServerRequest } from "../table/server_request.ts";
import { MappingTable } from "../table/table.ts";
import type { TableWatch } from "../table/watch.ts";
import { IgdServer, type IgdServerStats } from "../upnp/server.ts";
import { type Disturbance, Egress, type Exchange, readDisturbance } from "./egress.ts";
import { forwardInbound, forwardOutbound, holdsPort } from "./forwarding.ts";
import { HttpEgress, refuseCall, reshapeResponse } from "./http.ts";
import { Ingress } from "./ingress.ts";
import {
  type GatewaySettings,
  readGatewayOptions,
  type SimulatedGatewayOptions,
} from "./options.ts";
import { GatewayPolicy } from "./policy.ts";
import type { GatewayProtocol } from "./profile.ts";
import { earliest } from "../timers.ts";

export type { SimulatedGatewayOptions } from "./options.ts";

/** Counters of a {@linkcode SimulatedGateway}. */
export interface GatewayStats {
  /** Datagrams that no server saw, by reason. */
  readonly dropped: {
    /** Nothing listens. */
    readonly off: number;
    /** Not from the inside. */
    readonly outside: number;
    /** Deaf. */
    readonly deaf: number;
    /** Of a protocol that gets silence. */
    readonly silent: number;
  };
  /** What became of datagrams on their way out. */
  readonly replies: {
    /** Left. */
    readonly sent: number;
    /** Lost on purpose. */
    readonly lost: number;
    /** Lost because too many were on their way. */
    readonly overflowed: number;
    /** On their way. */
    readonly waiting: number;
  };
  /** The NAT-PMP server's. */
  readonly natPmp: NatPmpServerStats;
  /** What became of answers by HTTP, likewise. */
  readonly answers: {
    /** Left. */
    readonly sent: number;
    /** Lost for good. */
    readonly lost: number;
    /** Lost because too many were on their way. */
    readonly overflowed: number;
    /** On their way. */
    readonly waiting: number;
  };
  /** The PCP server's. */
  readonly pcp: PcpServerStats;
  /** The Internet gateway device's, where it has one. */
  readonly upnp?: IgdServerStats;
}

const NO_SOCKETS: readonly SocketSpec[] = [];
const NO_CHANGES: Exchange["changes"] = [];
const EMPTY = new Uint8Array(0);

/**
 * A gateway to test clients against. Feed it what arrives on its inside's UDP port 5351; it sends
 * by the socket roles `"server"` and, where a wrong source is asked for, `"other"`. UPnP's sockets it
 * lists itself.
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
 * gateway.handleDatagram(encodeAddressRequest(), { address: "192.168.1.2", port: 40000 }, "server", 5);
 * const action = gateway.poll();
 * console.assert(action?.type === "send" && action.data[11] === 7);
 * ```
 */
export class SimulatedGateway implements Machine<ServerEvent> {
  /** The mapping table: to read, and to make entries behind the servers' backs. */
  readonly table: MappingTable;
  /**
   * Where it was told where to listen: the socket for requests, while anything listens (PMP-S-32),
   * and the one for replies from a wrong source, once those were asked for. Where it speaks UPnP:
   * that one's.
   */
  readonly sockets: (() => readonly SocketSpec[]) | undefined;
  readonly #settings: GatewaySettings;
  readonly #natPmp: NatPmpServer;
  readonly #pcp: PcpServer;
  readonly #igd: IgdServer | undefined;
  readonly #out = new Outbox<ServerEvent>();
  readonly #ingress: Ingress;
  readonly #policy: GatewayPolicy;
  readonly #egress: Egress;
  readonly #httpEgress: HttpEgress;
  readonly #watch: TableWatch | undefined;
  /** The request that is being served. */
  #exchange: Exchange | undefined;
  /** It, where it came by HTTP. */
  #asked: HttpRequest | undefined;
  #forgetAt: Instant | undefined;
  /** Static mappings that wait for an external address. */
  #parked: { readonly protocol: number; readonly port: number; readonly internal: Endpoint }[] = [];
  /** Where it listens; with its port once that is known. */
  #listen: Endpoint | undefined;
  #hasBooted = false;
  #wasWrongSource = false;
  /** The sockets that could not be had: wanted again at the next command that needs them. */
  readonly #failed = new Set<string>();
  /** The list as it was made last, and whether it was listening then. */
  #listed: {
    readonly isListening: boolean;
    readonly upnp: readonly SocketSpec[];
    readonly specs: readonly SocketSpec[];
  } | undefined;

  /**
   * Makes a gateway that has not booted yet.
   *
   * @throws {TypeError | RangeError} Where an option cannot be, with its name and value.
   */
  constructor(options: SimulatedGatewayOptions) {
    const settings = this.#settings = readGatewayOptions(options);
    const { random, profile, externalAddresses } = settings;
    this.table = new MappingTable({ ...settings.table, externalAddresses, random });
    this.#ingress = new Ingress(settings, this.table);
    const { decide: decideMore, upnp } = settings;
    const rules = profile?.requests ?? [];
    this.#policy = new GatewayPolicy(this.table, rules, decideMore, upnp?.version);
    this.#egress = new Egress(profile?.replies ?? [], random, ({ socket, to, data }) => {
      this.#out.send(socket, to, data);
    });
    const decide = (request: ServerRequest, now: Instant) => this.#decide(request, now);
    this.#natPmp = new NatPmpServer(natPmpOptions(settings, this.table, decide));
    this.#pcp = new PcpServer(pcpOptions(settings, this.table, decide));
    this.#igd = upnp && new IgdServer({
      ...upnp,
      table: this.table,
      random,
      decide,
      trace: settings.trace ? "packets" : false,
      ...settings.maxLifetimeSeconds !== undefined &&
        { maxLeaseSeconds: settings.maxLifetimeSeconds },
      ...settings.knowsInside && { isInside: settings.isInside },
    });
    this.#httpEgress = new HttpEgress(random, (id, response) => {
      this.#out.act({ type: "respond", id, response });
    });
    this.#watch = settings.trace ? this.table.watch() : undefined;
    this.#listen = settings.listen;
    this.#wasWrongSource = upnp?.habits?.ssdp?.answersElsewhere ?? false;
    this.sockets = this.#listen || this.#igd ? () => this.#listSockets() : undefined;
  }

  /** Counters. */
  get stats(): GatewayStats {
    return {
      dropped: { ...this.#ingress.dropped },
      replies: this.#egress.stats,
      answers: { ...this.#httpEgress.stats, waiting: this.#httpEgress.waiting },
      natPmp: this.#natPmp.stats,
      pcp: this.#pcp.stats,
      ...this.#igd && { upnp: this.#igd.stats },
    };
  }

  /**
   * Whether anything listens on the port. Where not, ICMP says port unreachable: its socket is
   * closed (PMP-S-32).
   */
  get isListening(): boolean {
    return this.#ingress.isListening;
  }

  /** The protocols that are on. */
  get protocols(): readonly GatewayProtocol[] {
    return [...this.#ingress.on];
  }

  /** What happens to its datagrams. */
  get disturbance(): Disturbance {
    return this.#egress.disturbance;
  }

  /** The URLs of the Internet gateway device's description, one an interface, once they are known. */
  get locations(): readonly string[] {
    return this.#igd?.locations ?? [];
  }

  /** Copies of the table's entries, the oldest first. */
  list(now: Instant): TableEntry[] {
    this.#enter(now);
    return [...this.table.entries()].map(snapshotEntry);
  }

  /** Seconds since the start of a protocol's epoch. */
  epochSeconds(protocol: Exclude<GatewayProtocol, "upnp">, now: Instant): number {
    return (protocol === "pcp" ? this.#pcp : this.#natPmp).epochSeconds(now);
  }

  /** Boots: epochs 0, or the first time those that it was to start with, announced. */
  start(now: Instant): void {
    this.#enter(now);
    const { forgets } = this.#settings.profile ?? {};
    this.#forgetAt = forgets && now + 1000 * forgets.everySeconds;
    const epoch = this.#hasBooted ? 0 : this.#settings.epochSeconds;
    this.#hasBooted = true;
    this.#wantAgain();
    this.#natPmp.setEpoch(epoch, now);
    this.#pcp.setEpoch(epoch, now);
    if (this.#speaks("nat-pmp")) this.#natPmp.boot(epoch, now);
    if (this.#speaks("pcp")) this.#pcp.boot(epoch, now);
    this.#igd?.forget(now);
    if (this.#ingress.hasUpnp) this.#igd?.start(now);
    this.#drain(now);
  }

  /** Loses all mappings but the static ones, and what is on its way; boots. */
  reboot(now: Instant): void {
    this.#enter(now);
    this.table.clear("dynamic", now);
    this.#egress.clear();
    this.#httpEgress.clear();
    this.start(now);
  }

  /** Loses all mappings but the static ones and says nothing: the epochs run on. */
  forget(now: Instant): void {
    this.#enter(now);
    this.table.clear("dynamic", now);
    this.#igd?.forget(now);
    this.#drain(now);
  }

  /**
   * Lets the epochs of PCP and NAT-PMP jump, in silence; UPnP's BOOTID, after `ssdp:update`.
   *
   * @throws {RangeError} Where `seconds` does not fit 32 bits.
   */
  setEpoch(seconds: number, now: Instant): void {
    this.#enter(now);
    this.#natPmp.setEpoch(seconds, now);
    this.#pcp.setEpoch(seconds, now);
    if (this.#ingress.hasUpnp) this.#igd?.setBootId(seconds, now);
    this.#drain(now);
  }

  /**
   * New external addresses, none for a WAN that is down. Mappings move along, with the same port
   * where it is free, and the clients are told. Static ones come back with the next address.
   *
   * @throws {TypeError} Where one is not an IPv4 address, or the gateway does not translate.
   */
  setExternalAddresses(addresses: readonly string[], now: Instant): void {
    const { family, profile } = this.#settings;
    if (family === 6) throw new TypeError("Cannot set external addresses: it does not translate");
    const checked = addresses.map((a, i) => checkAddress(`addresses[${i}]`, a, 4));
    this.#enter(now);
    const moved = this.table.setExternalAddresses(checked, now);
    for (const { entry, previous, isGone } of moved) {
      if (!isGone || entry.kind !== "static") continue;
      this.#parked.push({
        protocol: entry.protocol,
        port: previous.port,
        internal: entry.internal,
      });
    }
    if (checked.length > 0) {
      this.#parked = this.#parked.filter(({ protocol, port, internal }) =>
        typeof this.#mapStatic(protocol, port, internal, undefined, undefined, now) === "string"
      );
    }
    // NAT-PMP's clients know their ports and ask for the address alone: what became of other ports,
    // or of none, is state that was lost (PMP-S-30).
    const isLost = moved.some(({ entry, previous, isGone }) =>
      entry.kind === "explicit" && (isGone || entry.external.port !== previous.port)
    );
    if (isLost || profile?.resetsEpochOnNewAddress) this.#natPmp.setEpoch(0, now);
    if (this.#speaks("pcp")) this.#pcp.externalAddressChanged(moved, now);
    else this.#pcp.setEpoch(0, now);
    if (this.#speaks("nat-pmp")) this.#natPmp.announce(now);
    this.#drain(now);
  }

  /**
   * Adds a static mapping, in place of a client's own mapping of that internal endpoint.
   *
   * @returns The entry, or why there is none.
   * @throws {TypeError | RangeError} Where a port is not one, or the address not an IP address.
   */
  addStatic(
    protocol: Transport,
    externalPort: number,
    internal: Endpoint,
    now: Instant,
  ): TableEntry | TableFault {
    const suggestedPort = checkPort("externalPort", externalPort);
    const address = checkAddress("internal.address", internal.address, this.#settings.family);
    const port = checkPort("internal.port", internal.port);
    this.#enter(now);
    const number = PROTOCOL_NUMBER[protocol];
    const existing = this.table.inbound(number, address, port);
    const own = existing?.kind === "explicit" ? existing : undefined;
    const external = this.table.externalAddressFor(address);
    const holder = external === undefined
      ? undefined
      : this.table.external(number, external, suggestedPort);
    if (this.table.isExhausted) return "no-resources";
    const entry = this.#mapStatic(number, suggestedPort, { address, port }, own, holder, now);
    if (own && typeof entry !== "string") this.table.remove(own, now);
    this.#drain(now);
    return typeof entry === "string" ? entry : snapshotEntry(entry);
  }

  /** Acts as a NAT or does not (PMP-S-32). To act as one again is a boot. */
  setNat(isNat: boolean, now: Instant): void {
    this.#enter(now);
    if (this.#ingress.isNat === isNat) return;
    this.#ingress.isNat = isNat;
    if (isNat) return this.start(now);
    this.table.clear("dynamic", now);
    this.#natPmp.silence();
    this.#pcp.silence();
    this.#igd?.silence();
    this.#egress.clear();
    this.#httpEgress.clear();
    this.#drain(now);
  }

  /**
   * Switches a protocol. The other one's server answers requests of PCP or NAT-PMP with
   * UNSUPP_VERSION then; UPnP says goodbye.
   *
   * @throws {TypeError} Where NAT-PMP is switched on at a gateway that does not translate, or UPnP at
   *   one that was made without.
   */
  setProtocol(protocol: GatewayProtocol, isOn: boolean, now: Instant): void {
    if (isOn && protocol === "nat-pmp" && this.#settings.family === 6) {
      throw new TypeError("Cannot switch nat-pmp on: this gateway does not translate");
    }
    if (isOn && protocol === "upnp" && !this.#igd) {
      throw new TypeError("Cannot switch upnp on: this gateway was made without it");
    }
    this.#enter(now);
    this.#wantAgain();
    const { on } = this.#ingress;
    if (protocol === "upnp") {
      if (!isOn && on.delete(protocol)) this.#igd!.bye(now);
      if (isOn && !on.has(protocol)) {
        on.add(protocol);
        if (this.#ingress.hasUpnp && this.#hasBooted) this.#igd!.start(now);
      }
      return this.#drain(now);
    }
    const server = protocol === "pcp" ? this.#pcp : this.#natPmp;
    if (!isOn && on.delete(protocol)) server.silence();
    if (isOn && !on.has(protocol)) {
      on.add(protocol);
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
   * Answers every request but ANNOUNCE with this result code, the same in PCP and NAT-PMP; UPnP has
   * RFC 6970's translation. A code from 256 on is for UPnP's actions alone. Undefined serves them
   * again.
   *
   * @throws {RangeError} Where it is not in 1…999.
   */
  setRefusal(code: number | undefined, now: Instant): void {
    if (code !== undefined) checkInteger("code", code, 1, 999);
    this.#enter(now);
    this.#policy.refusal = code;
  }

  /**
   * Whether a client may have mappings; where not, NOT_AUTHORIZED is the answer.
   *
   * @throws {TypeError} Where `client` is not an IP address.
   */
  setPermission(client: string, isAllowed: boolean, now: Instant): void {
    const address = checkAddress("client", client);
    this.#enter(now);
    this.#policy.setPermission(address, isAllowed);
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
   * @throws {RangeError} Where `packets` is not an integer from 0 on.
   */
  setDeaf(packets: number, now: Instant): void {
    this.#enter(now);
    this.#ingress.deaf = checkInteger("packets", packets, 0, Number.MAX_SAFE_INTEGER);
  }

  /**
   * Changes what happens to its datagrams from now on; what is left out stays as it is.
   *
   * @throws {TypeError | RangeError} Where a time is negative, or the loss rate not in 0…1.
   */
  disturb(change: Partial<Disturbance>, now: Instant): void {
    const next = readDisturbance({ ...this.#egress.disturbance, ...change });
    this.#enter(now);
    this.#egress.disturbance = next;
    this.#wasWrongSource ||= next.wrongSource;
    this.#wantAgain();
  }

  /** Announces by each protocol, PCP and NAT-PMP ten times at doubling intervals. */
  announce(now: Instant): void {
    this.#enter(now);
    if (this.#speaks("nat-pmp")) this.#natPmp.announce(now);
    if (this.#speaks("pcp")) this.#pcp.announce(now);
    if (this.#ingress.hasUpnp) this.#igd?.announce(now);
    this.#drain(now);
  }

  /** Where a packet from `remote` to `external` goes, for the NAT that forwards by the table. */
  lookupInbound(
    protocol: number,
    external: Endpoint,
    remote: Endpoint,
    now: Instant,
  ): Endpoint | undefined {
    if (!this.#ingress.isNat) return undefined;
    const internal = forwardInbound(this.table, protocol, external, remote, now);
    if (internal) this.#igd?.notePacket(protocol, internal, remote);
    return internal;
  }

  /** As whom `internal` talks to `remote`, for the NAT that forwards by the table. */
  lookupOutbound(
    protocol: number,
    internal: Endpoint,
    remote: Endpoint,
    now: Instant,
  ): Endpoint | undefined {
    if (!this.#ingress.isNat) return undefined;
    return forwardOutbound(this.table, protocol, internal, remote, now);
  }

  /** Whether a mapping has that external port, for the NAT that looks for a free one. */
  holds(protocol: number, external: Endpoint, now: Instant): boolean {
    return this.#ingress.isNat && holdsPort(this.table, protocol, external, now);
  }

  /** Notes a packet that its NAT sent out, so that its port is not given to another. */
  noteOutbound(
    protocol: number,
    internal: Endpoint,
    external: Endpoint,
    remote: Endpoint,
    idleMs: number,
    now: Instant,
  ): void {
    if (this.#ingress.isNat) this.table.noteFlow(protocol, internal, external, remote, idleMs, now);
  }

  /** Learns its port, or that a socket could not be had. */
  handleSocket(key: string, result: SocketResult, now: Instant): void {
    this.#enter(now);
    if (result.ok) {
      if (key === "server") this.#listen = result.local;
      else if (key !== "other") this.#igd?.handleSocket(key, result, now);
    } else if (!result.isOpen) {
      this.#failed.add(key);
      this.#listed = undefined;
    }
    this.#drain(now);
  }

  handleDatagram(data: Uint8Array, from: Endpoint, socket: string, now: Instant): boolean {
    this.#enter(now);
    if (socket.startsWith("ssdp") || this.#ingress.isSearch(data)) {
      return this.#hearSsdp(data, from, socket, now);
    }
    const way = this.#ingress.route(data, from);
    if (way === "pcp" || way === "nat-pmp") {
      this.#exchange = { request: data, from, delayMs: 0, changes: NO_CHANGES };
      const server = way === "pcp" ? this.#pcp : this.#natPmp;
      const wasHandled = server.handleDatagram(data, from, socket, now);
      this.#drainServer(server, now);
      if (this.#igd) this.#drainIgd(this.#igd, now);
      this.#tellChanges();
      this.#exchange = undefined;
      return wasHandled;
    }
    if (way === "ill-sized") {
      const reply = this.#ingress.answerIllSized(data, this.#pcp.epochSeconds(now));
      this.#egress.sendAsIs(from, reply, now);
    }
    this.#drain(now);
    return way !== "off" && way !== "outside";
  }

  handleRequest(id: number, request: HttpRequest, from: Endpoint, now: Instant): void {
    this.#enter(now);
    // Who is not heard gets no answer.
    if (!this.#igd || !this.#ingress.hearsUpnp()) return this.#drain(now);
    this.#asked = request;
    this.#exchange = { request: EMPTY, from, delayMs: 0, changes: NO_CHANGES };
    const refusal = refuseCall(request, this.#settings.profile?.strictness ?? []);
    if (refusal) this.#httpEgress.send(id, refusal, this.#egress.disturbance, 0, now);
    else this.#igd.handleRequest(id, request, from, now);
    this.#drain(now);
    this.#asked = undefined;
    this.#exchange = undefined;
  }

  handleResponse(id: number, result: HttpResult, now: Instant): void {
    this.#enter(now);
    this.#igd?.handleResponse(id, result, now);
    this.#drain(now);
  }

  /** Does nothing: a gateway keeps nothing about a client that is gone but its mappings. */
  handleUnreachable(_to: Endpoint, _socket: string, now: Instant): void {
    this.#enter(now);
    this.#drain(now);
  }

  handleTimeout(now: Instant): void {
    this.#enter(now);
    this.#natPmp.handleTimeout(now);
    this.#pcp.handleTimeout(now);
    this.#igd?.handleTimeout(now);
    this.#egress.handleTimeout(now);
    this.#httpEgress.handleTimeout(now);
    const { forgets } = this.#settings.profile ?? {};
    if (forgets && this.#forgetAt !== undefined && this.#forgetAt <= now) {
      this.#forgetAt = now + 1000 * forgets.everySeconds;
      if (this.table.size > forgets.above) {
        this.table.clear("dynamic", now);
        this.#igd?.forget(now);
      }
    }
    this.#drain(now);
  }

  /** Asked after each datagram, so it puts no reasons into words. */
  nextTimeout(): Instant | undefined {
    const wakeAt = this.#out.wakeAt();
    if (wakeAt !== undefined) return wakeAt;
    const at = Math.min(
      this.#natPmp.nextTimeout() ?? Infinity,
      this.#pcp.nextTimeout() ?? Infinity,
      this.#igd?.nextTimeout() ?? Infinity,
      this.#egress.nextAt() ?? Infinity,
      this.#httpEgress.nextAt() ?? Infinity,
      this.#forgetAt ?? Infinity,
    );
    return at === Infinity ? undefined : at;
  }

  debugTimeout(): DebugTimeout | undefined {
    const wakeAt = this.#out.wakeAt();
    if (wakeAt !== undefined) return { at: wakeAt, reason: "drain" };
    const forget = this.#forgetAt === undefined
      ? undefined
      : { at: this.#forgetAt, reason: "forget the table" };
    return earliest(
      this.#natPmp.debugTimeout(),
      this.#pcp.debugTimeout(),
      this.#igd?.debugTimeout(),
      this.#egress.next(),
      this.#httpEgress.next(),
      forget,
    );
  }

  poll(): Action<ServerEvent> | undefined {
    return this.#out.poll();
  }

  /** The same list as before where nothing has changed: it is asked for after each datagram. */
  #listSockets(): readonly SocketSpec[] {
    // Before it boots it has its port, whatever its profile: where it will be is known from then on.
    const isListening = this.isListening || !this.#hasBooted;
    const upnp = this.#igd?.sockets() ?? NO_SOCKETS;
    if (this.#listed?.isListening !== isListening || this.#listed.upnp !== upnp) {
      const listen = this.#listen;
      const multicastBy = this.#settings.announceBy;
      const server = isListening && listen
        ? [{ key: "server", local: listen, ...multicastBy && { multicastBy } }]
        : [];
      const address = listen?.address ?? this.#settings.upnp?.interfaces[0]?.address ?? "0.0.0.0";
      const other = this.#wasWrongSource ? [{ key: "other", local: { address, port: 0 } }] : [];
      const wanted: readonly SocketSpec[] = [...server, ...other, ...upnp];
      const specs = wanted.filter(({ key }) => !this.#failed.has(key));
      this.#listed = { isListening, upnp, specs };
    }
    return this.#listed.specs;
  }

  /**
   * @param own The client's own mapping of that inside.
   * @param holder What has the external port.
   */
  #mapStatic(
    protocol: number,
    suggestedPort: number,
    internal: Endpoint,
    own: TableEntry | undefined,
    holder: TableEntry | undefined,
    now: Instant,
  ): TableEntry | TableFault {
    const { address, port } = internal;
    // Flows of that inside keep the port that they have.
    const hasFlows = this.table.inbound(protocol, address, port) === undefined &&
      this.table.outbounds(protocol, address, port).length > 0;
    const request = {
      kind: "static",
      origin: "admin",
      protocol,
      internal,
      suggestedPort,
      isExact: true,
      isAdditional: own !== undefined || hasFlows,
      expiresAt: Infinity,
    } as const;
    return own && holder === own
      ? this.table.replaceInbound(own, request, now)
      : this.table.mapInbound(request, now);
  }

  #wantAgain(): void {
    this.#failed.clear();
    this.#listed = undefined;
  }

  #enter(now: Instant): void {
    this.#out.touch(now);
    this.table.advance(now);
  }

  /** Whether a protocol is on, and anything listens. */
  #speaks(protocol: GatewayProtocol): boolean {
    return this.isListening && this.#ingress.on.has(protocol);
  }

  /** Is asked by the servers; what is to happen to the answer is kept until it comes. */
  #decide(request: ServerRequest, now: Instant): Decision {
    const exchange = this.#exchange!;
    const decision = this.#policy.decide(request, exchange.request, now);
    switch (decision?.kind) {
      case "delay":
        exchange.delayMs = decision.delayMs;
        return undefined;
      case "reshape":
        exchange.changes = decision.changes;
        return undefined;
      default:
        return decision;
    }
  }

  /** Takes what the servers and the table have to say. */
  #drain(now: Instant): void {
    this.#drainServer(this.#natPmp, now);
    this.#drainServer(this.#pcp, now);
    if (this.#igd) this.#drainIgd(this.#igd, now);
    this.#tellChanges();
  }

  #hearSsdp(data: Uint8Array, from: Endpoint, socket: string, now: Instant): boolean {
    const isHeard = this.#igd !== undefined && this.#ingress.hearsUpnp() &&
      this.#igd.handleDatagram(data, from, socket, now);
    this.#drain(now);
    return isHeard;
  }

  /** SSDP goes the way of datagrams, HTTP's answers one of their own. */
  #drainIgd(igd: IgdServer, now: Instant): void {
    const { profile } = this.#settings;
    igd.notice(now);
    for (let action = igd.poll(); action; action = igd.poll()) {
      if (action.type === "event") {
        this.#out.emit(action.event);
      } else if (action.type === "send") {
        const data = reshapeText(action.data, profile?.ssdpTexts ?? []);
        this.#egress.sendAsIs(action.to, data, now, 0, action.socket);
      } else if (action.type === "respond") {
        const response = this.#asked
          ? reshapeResponse(this.#asked, action.response, profile?.answers ?? [])
          : action.response;
        const { disturbance } = this.#egress;
        const lateMs = this.#exchange?.delayMs ?? 0;
        this.#httpEgress.send(action.id, response, disturbance, lateMs, now);
      } else if (action.type === "request") {
        this.#out.act(action);
      }
    }
  }

  #tellChanges(): void {
    for (let next = this.#watch?.next(); next; next = this.#watch?.next()) {
      this.#out.emit({ type: "mapping", change: next.change, entry: next.entry });
    }
  }

  #drainServer(server: Machine<ServerEvent>, now: Instant): void {
    for (let action = server.poll(); action; action = server.poll()) {
      if (action.type === "send") this.#egress.send(action.to, action.data, this.#exchange, now);
      else if (action.type === "event") this.#out.emit(action.event);
    }
  }
}

/** A datagram of text with each first text replaced by the second. */
function reshapeText(
  data: Uint8Array,
  texts: readonly (readonly [from: string, to: string])[],
): Uint8Array {
  if (texts.length === 0) return data;
  const text = texts.reduce(
    (all, [from, to]) => all.replaceAll(from, to),
    new TextDecoder().decode(data),
  );
  return new TextEncoder().encode(text);
}

/** The NAT-PMP server's options: the gateway's go before the profile's. */
function natPmpOptions(
  { profile, maxLifetimeSeconds, announceTo, extraAnnounceTo, family, trace }: GatewaySettings,
  table: MappingTable,
  decide: Policy,
): NatPmpServerOptions {
  return {
    ...profile?.natPmp,
    ...maxLifetimeSeconds === undefined ? {} : { maxLifetimeSeconds },
    table,
    decide,
    trace: trace ? "packets" : false,
    announceTo: family === 4 ? [...announceTo, ...extraAnnounceTo] : [],
  };
}

/** The PCP server's options, likewise. */
function pcpOptions(
  settings: GatewaySettings,
  table: MappingTable,
  decide: Policy,
): PcpServerOptions {
  const { profile, maxLifetimeSeconds, minLifetimeSeconds, announceTo, allowThirdParty, trace } =
    settings;
  return {
    ...profile?.pcp,
    ...maxLifetimeSeconds === undefined ? {} : { maxLifetimeSeconds },
    ...minLifetimeSeconds === undefined
      ? {}
      : { minLifetimeSeconds, minPeerLifetimeSeconds: minLifetimeSeconds },
    table,
    decide,
    trace: trace ? "packets" : false,
    announceTo,
    allowThirdParty,
    ...settings.knowsInside && { isInside: settings.isInside },
  };
}
