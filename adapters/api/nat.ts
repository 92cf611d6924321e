/**
 * The long-lived context: this host's gateways, and the mappings held at them.
 *
 * @module
 */
import {
  checkAddress,
  checkCallback,
  checkChoice,
  checkInteger,
  checkList,
  checkPort,
} from "../../core/check.ts";
import { pickDefined } from "../../core/defined.ts";
import type { Via } from "../../core/errors.ts";
import { familyOf } from "../../core/ip.ts";
import type { Endpoint } from "../../core/machine.ts";
import { codeInTime, type Transport } from "../../core/mapping.ts";
import type { Diagnosis } from "../../core/portmap/diagnosis.ts";
import type { MapperEvent } from "../../core/portmap/managed.ts";
import { gatewayText } from "../../core/portmap/gateway.ts";
import type { PortMapper } from "../../core/portmap/mapper.ts";
import type { PortMappingEntry } from "../../core/upnp/client.ts";
import { callBack } from "../callback.ts";
import { readLocalAddresses } from "../discovery/mod.ts";
import { readStunServers, type ServerName } from "../host_name.ts";
import type { UdpHandlers } from "../runtime.ts";
import { attemptsError } from "./attempts_error.ts";
import {
  type Binding,
  bindingOf,
  type BoundSocket,
  boundTo,
  checkBinding,
  listen,
  onlyFamily,
  type TcpConnection,
  type TcpServer,
} from "./bound_socket.ts";
import type { MachineRequest } from "./connection.ts";
import type { DiagnoseOptions } from "./diagnose.ts";
import {
  type BindOptions,
  checkMapBoth,
  checkProtocols,
  type MapBothOptions,
  type MapOptions,
  type NatOptions,
  type PeerOptions,
  toPeerRequest,
  toPortRequest,
  toWatchRequest,
  type UnmapOptions,
  type WatchOptions,
  withOptionNames,
} from "./options.ts";
import { PortContext } from "./port_context.ts";
import type { PortMapping } from "./port_mapping.ts";
import { MappedTcpServer, MappedUdpSocket, PortWatch } from "./port_watch.ts";
import type { UdpChannel } from "./punch.ts";
import type { PunchedTcp } from "./punch_tcp.ts";
import type { PunchOptions, RendezvousOptions } from "./rendezvous.ts";
import { SeenSocket } from "./seen_socket.ts";
import { checkOptions, type WaitOptions } from "./wait.ts";

/** How many STUN servers the sockets ask. */
const MAX_STUN_SERVERS = 8;
/** How long the other protocols are waited for once one has told the external address. */
const MORE_ADDRESSES_MS = 500;

/** Who confirmed a deletion. */
export interface UnmapResult {
  /** The protocol. */
  readonly via: Via;
  /** The gateway, as text that starts with its address. */
  readonly gateway: string;
}

/** The external address, as one protocol tells it. */
export interface ExternalAddress {
  /** The protocol. */
  readonly via: Via;
  /** The address. */
  readonly address: string;
  /** The gateway, as text that starts with its address. */
  readonly gateway: string;
}

/** A gateway's table of port mappings. */
export interface PortMappingTable {
  /** The gateway, as text that starts with its address. */
  readonly gateway: string;
  /** The entries, everybody's. */
  readonly entries: readonly PortMappingEntry[];
  /** Whether it is longer than these: the first 4096 are read. */
  readonly isCut: boolean;
}

/** How to ask for the external addresses. */
export interface AddressOptions extends WaitOptions {
  /** Whom to ask. Default: all that are spoken. */
  readonly protocols?: readonly Via[];
  /** Told each address as it is answered. */
  readonly onAddress?: (address: ExternalAddress) => void;
}

/**
 * This host's gateways and the mappings held at them. Keep one for the program's life: it knows the
 * gateways, listens for their announcements and follows changes of the network.
 *
 * @example
 * ```ts
 * import { Nat } from "@natkit/natkit";
 * import { startGateway } from "@natkit/natkit/testing";
 *
 * await using gateway = await startGateway({ listen: "127.0.0.1", port: 0 });
 * await using nat = await Nat.open({ gateway: gateway.endpoint });
 * const [web, game] = await Promise.all([nat.map(8080), nat.map(27015, { protocol: "udp" })]);
 * console.assert(web.external.address === game.external.address);
 * ```
 */
export class Nat extends PortContext {
  /** Whether the mapper is told this host's addresses. */
  #hasWatch = false;
  /** Whom the sockets ask how they are seen. */
  #stunServers: readonly ServerName[];
  readonly #sockets: Set<SeenSocket> = new Set();

  private constructor(options: NatOptions) {
    super(options);
    const { stunServers = [] } = options;
    this.#stunServers = readServers(stunServers);
  }

  /**
   * Finds the gateways of this host, or takes the one that is named.
   *
   * @throws {TypeError | RangeError} On a gateway, an address or a state that is not one.
   * @throws {NatError} `gateway-not-found`, or `permission` with the name of what is missing.
   */
  static async open(options: NatOptions = {}): Promise<Nat> {
    return await new Nat(options).find();
  }

  /**
   * Opens a port: asks the gateway to send what arrives at an external endpoint to `port` of this
   * host.
   *
   * @param port The port that the application listens on, 1…65535; or the socket that does.
   * @throws {TypeError | RangeError} On options that no gateway could grant.
   * @throws {NatError} With a `code`, and what was tried by each protocol at each gateway.
   */
  override async map(port: number | BoundSocket, options: MapOptions = {}): Promise<PortMapping> {
    return await super.map(...this.#withBinding(port, options));
  }

  /**
   * Opens a port for TCP and for UDP on the same external port, both or neither; where one is not to
   * be had for both, another one is tried.
   *
   * @param port The port that the application listens on by both, 1…65535.
   * @returns A mapping that stands for both: what it tells of TCP is true of UDP.
   * @throws {TypeError | RangeError} On options that no gateway could grant.
   * @throws {NatError} As {@linkcode Nat.map}.
   */
  async mapBoth(port: number, options: MapBothOptions = {}): Promise<PortMapping> {
    const { protocol: _, ...request } = toPortRequest(port, checkMapBoth(options));
    return await this.hold(options, {
      name: `port ${port} for TCP and UDP`,
      start: (mapper, now) => withOptionNames(() => mapper.mapBoth(request, now)),
    });
  }

  /**
   * Keeps an outbound mapping for one peer open and tells the external endpoint by which the peer
   * sees us (PCP PEER, RFC 6887 §12).
   *
   * @param port The local port, 1…65535.
   * @throws {TypeError | RangeError} On options that no gateway could grant.
   * @throws {NatError} As {@linkcode Nat.map}.
   */
  async peer(port: number, remote: Endpoint, options: PeerOptions = {}): Promise<PortMapping> {
    const request = toPeerRequest(port, remote, options);
    return await this.hold(options, {
      name: `port ${port}/${request.protocol} to a peer`,
      start: (mapper, now) => withOptionNames(() => mapper.map(request, now)),
    });
  }

  /**
   * Maps a port at every gateway of this host, over IPv4 and IPv6, and tells all the addresses by
   * which it can be reached, local ones included: at once, and as a whole at each change. It does
   * not fail where no gateway maps: it goes on trying.
   *
   * @param port The port that the application listens on, 1…65535; or the socket that does.
   * @throws {TypeError | RangeError} On options that no gateway could grant, or a port that is held.
   * @throws {NatError} `closed`.
   */
  async watch(port: number | BoundSocket, options: WatchOptions = {}): Promise<PortWatch> {
    const request = toWatchRequest(...this.#withBinding(port, options));
    await this.#beginWatching();
    return new PortWatch(this.connection, {
      ...request,
      ...(typeof port !== "number" && boundTo(bindingOf(port))),
    });
  }

  /**
   * Binds a UDP socket, and maps its port as {@linkcode Nat.watch} does.
   *
   * @param options What the socket tells, to whom, and where it is to be bound.
   * @throws {TypeError | RangeError} On options that no gateway could grant.
   * @throws {NatError} `permission` or `network` where it cannot be bound; `closed`.
   *
   * @example
   * ```ts
   * import { Nat } from "@natkit/natkit";
   * import { startGateway } from "@natkit/natkit/testing";
   *
   * await using gateway = await startGateway({ listen: "127.0.0.1", port: 0 });
   * await using nat = await Nat.open({ gateway: gateway.endpoint });
   * await using socket = await nat.bindUdp({
   *   onDatagram: (data, from) => socket.send(data, from), // an echo
   * });
   * console.assert(socket.local.port > 0);
   * ```
   */
  async bindUdp(options: BindOptions & Partial<UdpHandlers>): Promise<MappedUdpSocket> {
    const { port = 0, address, onDatagram, onUnreachable, onError, ...rest } = checkOptions(
      options,
    );
    checkPort("port", port, 0);
    for (const [name, handler] of Object.entries({ onDatagram, onUnreachable, onError })) {
      checkCallback(name, handler);
    }
    const local = { address: checkAddress("address", address ?? "0.0.0.0"), port };
    // Before anything is bound: what is wrong with the rest.
    toWatchRequest(port || 1, { ...rest, protocol: "udp" });
    const socket = await SeenSocket.open(this.runtime, local, {
      onDatagram: (data, from) => void callBack(() => onDatagram?.(data, from)),
      onUnreachable: (to) => void callBack(() => onUnreachable?.(to)),
      onError: (error, to) => void callBack(() => onError?.(error, to)),
    });
    try {
      const binding = { ...socket.local, protocol: "udp" } as const;
      const request = toWatchRequest(binding.port, this.#forBinding(binding, rest));
      await this.#beginWatching();
      const watched = { ...request, ...boundTo(binding) };
      const mapped = new MappedUdpSocket(this.connection, watched, socket, () => {
        this.#sockets.delete(socket);
        socket.close();
      });
      this.#sockets.add(socket);
      void socket.ask(this.#stunServers);
      return mapped;
    } catch (error) {
      socket.close();
      throw error;
    }
  }

  /**
   * Reaches a peer by UDP through the NATs between, with the gateways mapping the port too where they
   * do; as `punchUdp` of `@natkit/natkit/ice` does.
   *
   * @param exchange Gets this side's ticket, takes it to the peer and resolves with the peer's.
   * @throws {TypeError | RangeError} On options that are none.
   * @throws {TicketError} Where the peer's ticket cannot be used.
   * @throws {NatError} `no-answer`; `hard-nat` where no hole can be punched; `closed`.
   */
  async punchUdp(
    exchange: (ticket: string) => string | Promise<string>,
    options: RendezvousOptions & PunchOptions = {},
  ): Promise<UdpChannel> {
    const { punchUdp } = await import("./punch.ts");
    return await punchUdp(exchange, {
      nat: this,
      runtime: this.runtime,
      ...checkOptions(options),
    });
  }

  /**
   * Reaches a peer by TCP, likewise; as `punchTcp` of `@natkit/natkit/ice` does.
   *
   * @param exchange Gets this side's ticket, takes it to the peer and resolves with the peer's.
   * @throws {TypeError | RangeError} On options that are none.
   * @throws {TicketError} Where the peer's ticket cannot be used.
   * @throws {NatError} As {@linkcode Nat.punchUdp}.
   */
  async punchTcp(
    exchange: (ticket: string) => string | Promise<string>,
    options: RendezvousOptions & PunchOptions = {},
  ): Promise<PunchedTcp> {
    const { punchTcp } = await import("./punch_tcp.ts");
    return await punchTcp(exchange, {
      nat: this,
      runtime: this.runtime,
      ...checkOptions(options),
    });
  }

  /**
   * Has the sockets of {@linkcode Nat.bindUdp} ask these STUN servers, too, how they see them: those
   * that are bound and those that will be.
   *
   * @param servers As {@linkcode NatOptions.stunServers}, eight at most with those of before.
   * @throws {TypeError | RangeError} On a server that is none, or too many.
   */
  addServers(servers: readonly (string | Endpoint)[]): void {
    const added = readServers(servers, this.#stunServers.length);
    this.#stunServers = [...this.#stunServers, ...added];
    for (const socket of this.#sockets) void socket.ask(added);
  }

  /**
   * Makes a server listen where it does not, and maps its port as {@linkcode Nat.watch} does.
   *
   * @param server Of `node:net`, `node:http`, `node:https` or `node:tls`, on all three runtimes; or
   *   what is called with each connection. A server of `Deno` or `Bun` listens by itself: hand it to
   *   {@linkcode Nat.watch}.
   * @throws {TypeError | RangeError} On options that no gateway could grant.
   * @throws {NatError} `permission` or `network` where it cannot listen; `closed`.
   *
   * @example
   * ```ts
   * import { createServer } from "node:http";
   * import { Nat } from "@natkit/natkit";
   * import { startGateway } from "@natkit/natkit/testing";
   *
   * await using gateway = await startGateway({ listen: "127.0.0.1", port: 0 });
   * await using nat = await Nat.open({ gateway: gateway.endpoint });
   * const web = createServer((_, response) => void response.end("hello"));
   * await using listener = await nat.listenTcp(web, { port: 0 });
   * console.assert(listener.server === web && listener.local.port > 0);
   * ```
   */
  async listenTcp<S extends TcpServer>(
    server: S | ((connection: TcpConnection) => void),
    options: BindOptions = {},
  ): Promise<MappedTcpServer<S>> {
    const { port = 0, address, ...rest } = checkOptions(options);
    checkPort("port", port, 0);
    if (address !== undefined) checkAddress("address", address);
    toWatchRequest(port || 1, rest);
    const made = typeof server === "function"
      ? (await import("node:net")).createServer(server) as unknown as S
      : server;
    const close = await listen(made, { port, address });
    try {
      const local = bindingOf(made);
      const request = toWatchRequest(local.port, this.#forBinding(local, rest));
      await this.#beginWatching();
      const watched = { ...request, ...boundTo(local) };
      return new MappedTcpServer<S>(this.connection, watched, { server: made, local, close });
    } catch (error) {
      close?.();
      throw error;
    }
  }

  /**
   * Deletes a mapping that this context does not hold: one of an earlier run (hand in its state,
   * PCP wants the nonce), or any of this host's by whatever protocol knows it.
   *
   * @returns Who confirmed it. NAT-PMP confirms also where there was nothing.
   * @throws {TypeError | RangeError} On a port that is not one, or is held by this context.
   * @throws {NatError} Where nobody did.
   */
  async unmap(port: number, options: UnmapOptions = {}): Promise<UnmapResult[]> {
    const request = toPortRequest(port, {
      ...pickDefined(checkOptions(options), "protocol", "thirdParty", "family"),
      externalPort: 0,
    });
    return await this.#remove(options, {
      name: `port ${port}/${request.protocol}`,
      start: (mapper, now) => withOptionNames(() => mapper.unmap(request, now)),
    });
  }

  /**
   * Deletes all of this host's mappings that can be deleted unseen: by NAT-PMP those of the
   * transport protocol, by PCP those in the state handed in.
   *
   * @throws {NatError} Where nobody confirmed anything.
   */
  async unmapAll(protocol: Transport, options: WaitOptions = {}): Promise<UnmapResult[]> {
    checkChoice("protocol", protocol, ["tcp", "udp"]);
    const name = `all ${protocol} ports`;
    const saved = this.connection.do((mapper) => mapper.savedBy(["pcp", "upnp"], protocol));
    const jobs = saved.map((request) =>
      this.#remove(options, { name, start: (mapper, now) => mapper.unmap(request, now) })
    );
    const mayAll = this.options.protocols?.includes("nat-pmp") ?? true;
    const [best] = this.connection.do((mapper) => mapper.gateways);
    if (mayAll && (!best || familyOf(best.address) === 4)) {
      jobs.push(
        this.#remove(options, { name, start: (mapper, now) => mapper.unmapAll(protocol, now) }),
      );
    }
    const outcomes = await Promise.allSettled(jobs);
    const done = outcomes.flatMap((outcome) => outcome.status === "fulfilled" ? outcome.value : []);
    const failed = outcomes.find((outcome) => outcome.status === "rejected");
    if (done.length === 0 && failed) throw failed.reason;
    return done;
  }

  /**
   * The external address, by each protocol that tells it: all that answer, where they do so within
   * half a second of the first.
   *
   * @throws {NatError} Where none does.
   */
  async externalAddresses(options: AddressOptions = {}): Promise<ExternalAddress[]> {
    const onAddress = checkCallback("onAddress", checkOptions(options).onAddress);
    const protocols = checkProtocols(options.protocols);
    const what = "tell the external address";
    const found: ExternalAddress[] = [];
    let id = 0;
    const onTimeout = () => {
      const attempts = this.connection.do((mapper, now) => mapper.attempts(id, now));
      return attemptsError(what, { code: codeInTime(attempts), attempts });
    };
    return await this.connection.answer<ExternalAddress[]>(
      what,
      options,
      onTimeout,
      (mapper, now, settle) => {
        id = mapper.askAddresses(protocols, now);
        settle.onEnd(() => this.connection.do((one, at) => one.endQuestion(id, at)));
      },
      (told, settle) => {
        const event = told as MapperEvent;
        if (!("id" in event) || event.id !== id) return;
        if (event.type === "external-address") {
          const { via, address } = event;
          const answer = { via, address, gateway: gatewayText(event.gateway) };
          if (found.push(answer) === 1) {
            const resolve = () => settle.resolve(found);
            settle.onEnd(this.runtime.setTimer(MORE_ADDRESSES_MS, resolve, true));
          }
          onAddress?.(answer);
        } else if (event.type === "external-addresses-told") {
          if (found.length === 0) throw attemptsError(what, event);
          settle.resolve(found);
        }
      },
    );
  }

  /**
   * Finds out what stands between this host and the internet: asks each gateway by each protocol,
   * and concludes what is in the way and what can be done about it. Takes as long as the slowest
   * answer. PCP tells the external address with a mapping alone: one of two minutes is made of a
   * port that nobody uses, and deleted.
   *
   * @throws {TypeError} On options that are none.
   * @throws {NatError} `closed`.
   */
  async diagnose(options: DiagnoseOptions = {}): Promise<Diagnosis> {
    const { examine } = await import("./diagnose.ts");
    return await examine(this.runtime, this.connection, options);
  }

  /**
   * The gateway's table of port mappings, everybody's, as UPnP tells it: entry by entry, so that a
   * long one takes its time. `timeoutMs` is how long each is waited for.
   *
   * @throws {NatError} Where the gateway does not speak UPnP, or does not tell.
   */
  async list(options: WaitOptions = {}): Promise<PortMappingTable> {
    const what = "list the port mappings";
    const since = this.runtime.now();
    let id = 0;
    const onTimeout = () => {
      const elapsedMs = this.runtime.now() - since;
      const attempts = this.gateways.slice(0, 1).map((gateway) => ({
        via: "upnp" as const,
        gateway,
        outcome: "no answer",
        elapsedMs,
      }));
      return attemptsError(what, { code: "no-answer", attempts });
    };
    return await this.connection.answer<PortMappingTable>(
      what,
      checkOptions(options),
      onTimeout,
      (mapper, now) => {
        id = mapper.list(now);
      },
      (told, settle) => {
        const event = told as MapperEvent;
        if (event.type === "table-read" && event.id === id) return settle.goesOn();
        if (event.type !== "table-told" || event.id !== id) return;
        const { code, entries, gateway, isCut } = event;
        if (code !== undefined) throw attemptsError(what, { ...event, code });
        settle.resolve({ gateway: gateway ? gatewayText(gateway) : "", entries, isCut });
      },
    );
  }

  /** The port of a socket that is handed in, and what follows from how it is bound. */
  #withBinding<O extends WatchOptions>(port: number | BoundSocket, options: O): [number, O] {
    if (typeof port === "number") return [port, options];
    const binding = bindingOf(port);
    return [binding.port, this.#forBinding(binding, checkOptions(options))];
  }

  #forBinding<O extends WatchOptions>(binding: Binding, options: O): O {
    checkBinding(binding, this.connection.do((mapper) => mapper.gateways));
    const family = onlyFamily(binding);
    return { ...(family !== undefined && { family }), ...options, protocol: binding.protocol };
  }

  async #beginWatching(): Promise<void> {
    if (this.#hasWatch) return;
    this.#hasWatch = true;
    await this.#tellLocalAddresses();
  }

  async #tellLocalAddresses(): Promise<void> {
    const { internalAddress } = this.options;
    const addresses = internalAddress === undefined
      ? await readLocalAddresses(this.runtime)
      : [internalAddress];
    if (this.isClosing) return;
    this.connection.do((mapper, now) => mapper.localAddressesChanged(addresses, now));
  }

  /** @internal */
  protected override readMore(): Promise<void> {
    for (const socket of this.#sockets) void socket.networkChanged();
    return this.#hasWatch ? this.#tellLocalAddresses() : super.readMore();
  }

  async #remove(
    options: WaitOptions,
    job: Pick<MachineRequest<PortMapper>, "name" | "start">,
  ): Promise<UnmapResult[]> {
    const since = this.runtime.now();
    const held = await this.connection.request({ ...job, since, verb: "unmap" }, options);
    const { attempts } = held.last as unknown as MapperEvent & { type: "unmapped" };
    return attempts.filter(({ outcome }) => outcome === "unmapped")
      .map(({ via, gateway }) => ({ via, gateway }));
  }
}

function readServers(servers: readonly (string | Endpoint)[], more: number = 0): ServerName[] {
  const { length } = checkList("stunServers", servers);
  checkInteger("stunServers.length", length + more, 0, MAX_STUN_SERVERS);
  return readStunServers("stunServers", servers);
}
