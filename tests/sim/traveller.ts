/**
 * A program on a host that goes from network to network: a mapper, the application that drives it,
 * and a judge of what it does. The judge knows nothing of schedules (`model.ts` does): it holds the
 * mapper to what every mapper owes, wherever it is.
 *
 * - It deletes only what it asked for, at the gateway where it did, by the nonce that it did it with.
 * - It asks for nothing that nobody wants (any more), and no gateway that it was not told of.
 * - It tells only what a gateway has confirmed, and only of gateways that are this host's.
 * - Each id ends with one final event, and nothing is told of it afterwards.
 * - Of a watched port it tells the whole set, where it has changed, of addresses that are true.
 *
 * @module
 */
import { toHex } from "../../core/bytes.ts";
import { familyOf, formatEndpoint } from "../../core/ip.ts";
import type { Via } from "../../core/errors.ts";
import type { Endpoint, HttpResult, Instant, RequestAction } from "../../core/machine.ts";
import { PROTOCOL_NUMBER } from "../../core/mapping.ts";
import * as natPmp from "../../core/natpmp/codec.ts";
import * as pcp from "../../core/pcp/codec.ts";
import type {
  Assignment,
  GrantedMapping,
  MapperEvent,
  PortRequest,
  SavedPort,
} from "../../core/portmap/managed.ts";
import { PortMapper } from "../../core/portmap/mapper.ts";
import { makeIgdClient } from "../../core/portmap/upnp.ts";
import type { NetworkPath } from "../../core/portmap/path.ts";
import { type Host, type Process, SimulationError, StrictMachine } from "../../core/sim/mod.ts";
import type { World } from "../../core/sim/mod.ts";
import { thirdPartyOf } from "./pcp_fields.ts";
import { Tap } from "./tap.ts";

/** How long an application waits before it asks again, milliseconds, doubling. */
const AGAIN_MS = 30_000, LONGEST_AGAIN_MS = 900_000;
/** The lifetime of a mapping that is made to learn the external address, seconds. */
const LONGEST_QUESTION_SECONDS = 120;

/** How long the program takes to load UPnP's client, milliseconds. */
const LOADING_MS = 5;
/** Questions for external addresses map the port of the socket that they leave by. */
const FIRST_EPHEMERAL_PORT = 49152;

/**
 * Whoever answers UPnP: a device may be at another address than the gateway, and of two routers the one
 * may be taken for the other's.
 */
const DEVICE: Endpoint = { address: "a device", port: 0 };

/** What the application wants. */
export interface Errand {
  readonly request: PortRequest;
  /** `"5000/tcp of 192.168.1.240"` */
  readonly name: string;
  /** The mapper's id for it while it has one. */
  id: number | undefined;
  told: "nothing" | "held" | "lost";
  granted: GrantedMapping | undefined;
  /** The application has taken it back. */
  isRevoked: boolean;
  /** Nothing goes on for it. */
  isOver: boolean;
  /** By gateway: the nonce that it is asked for with there. */
  readonly nonces: Map<string, string>;
  failures: number;
  /** It is watched at every gateway, rather than mapped at one. */
  readonly isWatched: boolean;
  /** The set that was told last, where it is watched. */
  assignments: readonly Assignment[] | undefined;
}

/** A program with its mapper. */
export class Traveller {
  readonly name: string;
  readonly host: Host;
  /** The first of its ports: no other program's. */
  readonly firstPort: number;
  readonly protocols: readonly Via[] | undefined;
  readonly errands: Errand[] = [];
  readonly counts: Record<string, number> = {};
  /** What was sent since the judge looked last: datagrams, but for searches; HTTP requests. */
  sent = 0;
  searches = 0;
  calls = 0;
  /** Whether the application has closed the mapper. */
  isClosed = false;
  readonly #world: World;
  #paths: readonly NetworkPath[] = [];
  /** This host's addresses, as it was told them. */
  #local: readonly string[] = [];
  #saved: readonly SavedPort[] | undefined;
  /** Every other run has UPnP's client from the start. */
  #starts = 0;
  #mapper: PortMapper;
  #strict: StrictMachine<MapperEvent, PortMapper>;
  #tap: Tap<MapperEvent>;
  #process: Process<MapperEvent, Tap<MapperEvent>>;
  #nonces = 0;
  #ids = new Map<number, Errand | "question" | "removal">();
  #ended = new Set<number>();
  /** What it was told to delete, whoever made it. */
  readonly #named = new Set<string>();
  /** What was asked for: by gateway, protocol and mapping, with which nonces. */
  readonly #asked = new Map<string, Set<string>>();
  #confirmed = new Set<string>();
  /** A device has refused something, perhaps for its lease. */
  #hasFault = false;
  /** By UPnP: the mappings that it ever asked for, and the calls on their way. */
  readonly #made = new Set<string>();
  readonly #called = new Map<
    number,
    {
      readonly call: string;
      readonly external: string;
      readonly made: string;
    }
  >();

  /** @param protocols What it may speak; all there are, where left out. */
  constructor(
    world: World,
    name: string,
    host: Host,
    firstPort: number,
    protocols?: readonly Via[],
  ) {
    this.#world = world;
    this.protocols = protocols;
    this.name = name;
    this.host = host;
    this.firstPort = firstPort;
    [this.#mapper, this.#strict, this.#tap, this.#process] = this.#start();
  }

  /** The application's errands that hold, but for watches. */
  wanted(): Errand[] {
    return this.errands.filter((one) => isHeld(one) && !one.isWatched);
  }

  /** The ports that it watches. */
  watched(): Errand[] {
    return this.errands.filter((one) => isHeld(one) && one.isWatched);
  }

  get isIdle(): boolean {
    return this.#mapper.isIdle;
  }

  // ---- Commands ----------------------------------------------------------------------------

  /** These are the ways to its host's gateways now. */
  tellNetwork(paths: readonly NetworkPath[]): void {
    this.#paths = paths;
    const addresses = this.host.interfaces.flatMap((one) => one.addresses);
    this.#do((mapper, now) => {
      mapper.networkChanged(paths, now);
      mapper.localAddressesChanged(addresses, now);
    });
    this.#local = addresses;
    for (const { told, granted, name, isOver, isRevoked } of this.errands) {
      if (isOver || isRevoked || told !== "held" || this.#isHere(granted!.gateway)) continue;
      this.#breach(`has left ${granted!.gateway.address} and does not tell that ${name} is lost`);
    }
    // The application tries again where it is now.
    for (const errand of this.errands) this.#askFor(errand);
  }

  /** The application wants a mapping, or to know of all that there are of a port. */
  want(request: PortRequest, isWatched = false): void {
    if (this.isClosed) return;
    const name = nameOf(request);
    if (this.errands.some((one) => one.name === name && !one.isOver)) return;
    const errand: Errand = {
      request,
      name,
      id: undefined,
      told: "nothing",
      granted: undefined,
      isRevoked: false,
      isOver: false,
      nonces: new Map(),
      failures: 0,
      isWatched,
      assignments: undefined,
    };
    this.errands.push(errand);
    this.#askFor(errand);
  }

  #askFor(errand: Errand): void {
    if (this.isClosed || errand.isRevoked || errand.isOver || errand.id !== undefined) return;
    if (this.host.isSuspended) return this.#world.after(1000, () => this.#askFor(errand));
    this.#do((mapper, now) => {
      const { request, isWatched } = errand;
      errand.id = isWatched ? mapper.watch(request, now) : mapper.map(request, now);
      errand.told = "nothing";
      errand.assignments = undefined;
      this.#ids.set(errand.id, errand);
    });
  }

  revoke(errand: Errand): void {
    errand.isRevoked = true;
    const { id } = errand;
    if (id === undefined) errand.isOver = true;
    else this.#do((mapper, now) => mapper.revoke(id, now));
  }

  renew(errand: Errand): void {
    const { id } = errand;
    if (id !== undefined) this.#do((mapper, now) => mapper.renew(id, undefined, now));
  }

  /** Leaves a mapping to its end: nothing is told of it any more. */
  abandon(errand: Errand): void {
    const { id } = errand;
    errand.isRevoked = errand.isOver = true;
    if (id === undefined) return;
    this.#do((mapper, now) => mapper.abandon(id, now));
    this.#ended.add(id);
    errand.id = undefined;
  }

  /** Deletes whatever a gateway holds of a port. */
  unmap(request: PortRequest): void {
    const name = nameOf(request);
    if (this.isClosed || this.wanted().some((one) => one.name === name)) return;
    this.#named.add(`${request.internalPort} ${PROTOCOL_NUMBER[request.protocol]}`);
    this.#do((mapper, now) => {
      const id = mapper.unmap(request, now);
      if (!this.#ids.has(id)) this.#ids.set(id, "removal");
    });
  }

  askAddresses(): void {
    if (this.isClosed) return;
    this.#do((mapper, now) => {
      const id = mapper.askAddresses(undefined, now);
      this.#ids.set(id, "question");
    });
  }

  close(): void {
    this.isClosed = true;
    for (const errand of this.errands) errand.isRevoked = true;
    this.#do((mapper, now) => mapper.close(now));
    // Nobody is told of questions that are taken back.
    for (const [id, what] of this.#ids) if (what === "question") this.#ended.add(id);
  }

  /** Kills the program and starts it again, with what it saved last or without anything. */
  restart(hasState: boolean): void {
    this.#process.stop();
    const wanted = this.isClosed ? [] : this.errands.filter(isHeld);
    if (!hasState) {
      this.#saved = undefined;
      this.#asked.clear();
      this.#named.clear();
      this.#made.clear();
    }
    this.isClosed = false;
    this.#ids = new Map();
    this.#ended = new Set();
    this.#confirmed = new Set();
    for (const errand of this.errands) {
      errand.id = errand.granted = undefined;
      errand.told = "nothing";
      if (!wanted.includes(errand)) errand.isOver = true;
      errand.nonces.clear();
    }
    [this.#mapper, this.#strict, this.#tap, this.#process] = this.#start();
    this.tellNetwork(this.#paths);
    for (const errand of wanted) this.#askFor(errand);
  }

  #do<T>(command: (mapper: PortMapper, now: Instant) => T): T {
    const { now } = this.#world;
    this.#tap.touch(now);
    return this.#process.do(() => this.#strict.command((mapper) => command(mapper, now), now));
  }

  #start(): [
    PortMapper,
    StrictMachine<MapperEvent, PortMapper>,
    Tap<MapperEvent>,
    Process<MapperEvent, Tap<MapperEvent>>,
  ] {
    const saved = this.#saved;
    const mapper = new PortMapper({
      random: this.#world.fork(),
      upnp: this.#starts++ % 2 === 0 ? "late" : makeIgdClient,
      ...(this.protocols && { protocols: this.protocols }),
      ...(saved && { saved }),
    });
    this.#nonces = 0;
    const strict = new StrictMachine<MapperEvent, PortMapper>(mapper);
    const tap = new Tap<MapperEvent>(strict, {
      onReceive: (data, from) => this.#receives(data, from),
      onSend: (data, to) => this.#sends(data, to),
      onUnreachable: () => {},
      onRequest: (action) => this.#calls(action),
      onResult: (id, result) => this.#isAnswered(id, result),
      onAsked: ({ body }) => this.#isNotified(body),
    });
    const process = this.host.run<MapperEvent, Tap<MapperEvent>>(tap, {}, {
      name: this.name,
      onEvent: (event) => this.#hears(event),
      onDrained: () => {
        if (mapper === this.#mapper) this.#compare();
      },
    });
    return [mapper, strict, tap, process];
  }

  /** What the mapper shows is what it told. */
  #compare(): void {
    for (const [id, what] of this.#ids) {
      if (typeof what === "string" || what.id !== id || this.#ended.has(id)) continue;
      if (what.isWatched) continue;
      const shown = this.#mapper.mapping(id);
      const told = what.told === "held" ? what.granted : undefined;
      const isSame = shown === told ||
        (shown && told && formatEndpoint(shown.external) === formatEndpoint(told.external) &&
          shown.via === told.via && shown.gateway.address === told.gateway.address);
      if (isSame || what.isRevoked) continue;
      this.#breach(`shows ${show(shown)} for ${what.name} and told ${show(told)}`);
    }
  }

  // ---- Packets -----------------------------------------------------------------------------

  #sends(data: Uint8Array, to: Endpoint): void {
    this.sent++;
    this.#keep();
    if (data[0] === 2) return this.#sendsPcp(data, to);
    if (data[0] === 0) return this.#sendsNatPmp(data, to);
    // UPnP's search.
    if (data[0] === 0x4d && this.#speaks("upnp")) {
      this.sent--;
      this.searches++;
      return;
    }
    this.#breach(`sends version ${data[0]}, which it does not speak`);
  }

  #sendsPcp(data: Uint8Array, to: Endpoint): void {
    const request = pcp.decodeRequest(data);
    if (typeof request === "string") this.#breach(`sends PCP that is ${request}`);
    if (request.kind === "announce") return;
    if (request.kind === "other") this.#breach(`sends PCP opcode ${request.opcode}`);
    const { protocol, internalPort, lifetimeSeconds } = request;
    const nonce = toHex(request.nonce);
    const thirdParty = thirdPartyOf(request.options);
    const remote = request.kind === "peer"
      ? { address: request.remoteAddress, port: request.remotePort }
      : undefined;
    const what = `${protocol}/${internalPort} of ${thirdParty} to ${remote?.address}`;
    const key = `${to.address} pcp ${what}`;
    if (lifetimeSeconds === 0) {
      if (this.#asked.get(key)?.has(nonce) || this.#isNamed(internalPort, protocol)) return;
      this.#breach(`deletes ${what} at ${to.address}, which it never made with that nonce`);
    }
    this.#asks(key, nonce);
    const errand = this.#errandFor(
      to,
      ({ request: wanted }) =>
        PROTOCOL_NUMBER[wanted.protocol] === protocol && wanted.internalPort === internalPort &&
        wanted.thirdParty === thirdParty && wanted.remote?.address === remote?.address,
    );
    if (!errand) {
      const isQuestion = lifetimeSeconds <= LONGEST_QUESTION_SECONDS &&
        internalPort >= FIRST_EPHEMERAL_PORT;
      if (!isQuestion) this.#breach(`asks ${to.address} for ${what}, which nobody wants`);
      return;
    }
    const known = errand.nonces.get(to.address);
    if (known !== undefined && known !== nonce && !errand.isWatched) {
      this.#breach(`asks ${to.address} for ${what} with another nonce than before`);
    }
    errand.nonces.set(to.address, nonce);
  }

  #sendsNatPmp(data: Uint8Array, to: Endpoint): void {
    const request = natPmp.decodeRequest(data);
    if (typeof request === "string") this.#breach(`sends NAT-PMP that is ${request}`);
    if (request.kind === "address") return;
    if (request.kind !== "map") this.#breach(`sends NAT-PMP's ${request.kind}`);
    const { protocol, internalPort, lifetimeSeconds } = request;
    const what = `${PROTOCOL_NUMBER[protocol]}/${internalPort}`;
    const key = `${to.address} nat-pmp ${what}`;
    if (lifetimeSeconds === 0) {
      if (this.#asked.has(key) || this.#isNamed(internalPort, PROTOCOL_NUMBER[protocol])) return;
      this.#breach(`deletes ${what} at ${to.address} by NAT-PMP, where it never asked for it`);
    }
    this.#asks(key, "");
    const errand = this.#errandFor(
      to,
      ({ request: wanted }) =>
        wanted.protocol === protocol && wanted.internalPort === internalPort &&
        wanted.thirdParty === undefined && wanted.remote === undefined,
    );
    if (!errand) this.#breach(`asks ${to.address} for ${what} by NAT-PMP, which nobody wants`);
  }

  /** By UPnP: what is asked of a gateway over HTTP. */
  #calls({ id, to, request }: RequestAction): void {
    this.calls++;
    this.#keep();
    const body = request.body === undefined ? "" : new TextDecoder().decode(request.body);
    const call = /<(?:\w+:)?Body>\s*<(?:\w+:)?(\w+)/.exec(body)?.[1];
    if (call === undefined) return;
    const value = (name: string) => new RegExp(`<${name}>([^<]*)<`).exec(body)?.[1] ?? "";
    const external = value("NewExternalPort");
    const protocol = value("NewProtocol").toLowerCase();
    const made = `${to.address} ${protocol} ${external}`;
    this.#world.note(`${this.name} asks ${call} ${protocol} ${external} of ${to.address}`);
    this.#called.set(id, { call, external, made });
    if (call === "DeletePortMapping") {
      if (this.#made.has(made) || this.#named.size > 0) return;
      this.#breach(`deletes ${protocol}/${external} at ${to.address}, which it never made`);
    }
    if (call.endsWith("Pinhole")) return this.#callsForPinhole(id, call, to, value);
    if (call !== "AddPortMapping" && call !== "AddAnyPortMapping") return;
    this.#made.add(made);
    const client = value("NewInternalClient"), port = Number(value("NewInternalPort"));
    const errand = this.#errandFor(
      to,
      ({ request: wanted }) => wanted.protocol === protocol && wanted.internalPort === port,
      true,
    );
    if (!errand) this.#breach(`asks ${to.address} for ${port}/${protocol}, which nobody wants`);
    const { lifetimeSeconds, mode = "keep-alive" } = errand.request;
    const seconds = Number(value("NewLeaseDuration"));
    const isPermanent = seconds === 0 && this.#hasFault;
    if (mode === "keep-alive" && seconds !== lifetimeSeconds && !isPermanent) {
      this.#breach(`asks for ${seconds} s of ${port}/${protocol}, wanted are ${lifetimeSeconds}`);
    }
    const isKnown = this.#paths.some((path) => (path.localAddress ?? path.way) === client);
    if (isKnown || this.host.hasAddress(client)) return;
    this.#breach(`asks ${to.address} to send ${port}/${protocol} to ${client}, another's address`);
  }

  /** In an IPv6 firewall: a pinhole is for this host, and is changed and closed by its id alone. */
  #callsForPinhole(
    id: number,
    call: string,
    to: Endpoint,
    value: (name: string) => string,
  ): void {
    const name = value("UniqueID"), pinhole = `${to.address} pinhole ${name}`;
    if (call === "DeletePinhole" || call === "UpdatePinhole") {
      if (this.#made.has(pinhole)) return;
      this.#breach(`asks ${call} of ${to.address} for ${name}, which it never opened`);
    }
    if (call !== "AddPinhole") return;
    const address = value("InternalClient"), port = Number(value("InternalPort"));
    const number = Number(value("Protocol"));
    this.#called.set(id, { call, external: formatEndpoint({ address, port }), made: pinhole });
    const isIt = ({ request }: Errand) =>
      PROTOCOL_NUMBER[request.protocol] === number && request.internalPort === port;
    // One whose id is not known is closed by the id that asking for it again tells.
    const key = `${to.address} upnp ${number}/${port}`;
    const mayClose = this.#asked.has(key) || this.#isNamed(port, number);
    if (!this.#errandFor(to, isIt, true) && !mayClose) {
      this.#breach(`asks ${to.address} for a pinhole to ${port}, which nobody wants`);
    }
    this.#asks(key, "");
    const isKnown = this.#paths.some((path) => (path.localAddress ?? path.way) === address);
    if (isKnown || this.host.hasAddress(address)) return;
    this.#breach(`asks ${to.address} for a pinhole to ${address}, another's address`);
  }

  #isAnswered(id: number, result: HttpResult): void {
    const called = this.#called.get(id);
    this.#called.delete(id);
    if (result.ok && result.status === 500) this.#hasFault = true;
    this.#world.note(`${this.name} is answered ${result.ok ? result.status : result.reason}`);
    if (!called || !result.ok || result.status !== 200) return;
    const { call, external, made } = called;
    const body = new TextDecoder().decode(result.body);
    const value = (name: string) => new RegExp(`<${name}>([^<]*)<`).exec(body)?.[1];
    if (call === "GetExternalIPAddress") {
      this.#confirm(DEVICE, "upnp", value("NewExternalIPAddress"));
    } else if (call === "AddPinhole") {
      this.#made.add(`${made}${value("UniqueID")}`);
      this.#confirm(DEVICE, "upnp", external);
    } else if (call === "AddAnyPortMapping") {
      const reserved = value("NewReservedPort");
      this.#made.add(`${made.slice(0, made.lastIndexOf(" "))} ${reserved}`);
      this.#confirm(DEVICE, "upnp", reserved);
    } else this.#confirm(DEVICE, "upnp", external);
  }

  /** A device tells by an event that it has another external address. */
  #isNotified(body: Uint8Array | undefined): void {
    const text = body === undefined ? "" : new TextDecoder().decode(body);
    const address = /<ExternalIPAddress>([^<]*)</.exec(text)?.[1];
    if (address !== undefined) this.#confirm(DEVICE, "upnp", address);
  }

  #speaks(via: Via): boolean {
    return this.protocols?.includes(via) ?? true;
  }

  #asks(key: string, nonce: string): void {
    const known = this.#asked.get(key);
    if (known) known.add(nonce);
    else this.#asked.set(key, new Set([nonce]));
  }

  #isNamed(port: number, protocol: number): boolean {
    return this.#named.has(`${port} ${protocol}`);
  }

  /**
   * The errand that a request is for; breaks off where its gateway is none of this host's. A device
   * may be at another address than the gateway.
   */
  #errandFor(
    to: Endpoint,
    isIt: (errand: Errand) => boolean,
    isDevice = false,
  ): Errand | undefined {
    if (!isDevice && !this.#isHere(to)) {
      this.#breach(`asks ${to.address}, which is no gateway of this host, for a mapping`);
    }
    return this.errands.find((errand) => {
      const { isRevoked, isOver, id, request } = errand;
      if (isRevoked || isOver || id === undefined || !isIt(errand)) return false;
      return request.family === undefined || request.family === familyOf(to.address);
    });
  }

  #receives(data: Uint8Array, from: Endpoint): void {
    if (data[0] === 2) {
      const response = pcp.decodeResponse(data);
      if (typeof response === "string") return;
      if (response.kind !== "map" && response.kind !== "peer") return;
      const { resultCode, externalAddress: address, externalPort: port } = response;
      if (resultCode !== 0 || response.lifetimeSeconds === 0) return;
      this.#confirm(from, "pcp", formatEndpoint({ address, port }));
    } else if (data[0] === 0) {
      const response = natPmp.decodeResponse(data);
      if (typeof response === "string" || response.kind === "unsupported-version") return;
      if (response.resultCode !== 0) return;
      if (response.kind === "address") this.#confirm(from, "nat-pmp", response.externalAddress);
      if (response.kind === "map") this.#confirm(from, "nat-pmp", `${response.externalPort}`);
    }
  }

  #confirm({ address }: Endpoint, via: string, what: string | undefined): void {
    this.#confirmed.add(`${address} ${via} ${what}`);
  }

  /** Whether an address of a watched port is this host's, or a gateway of it has confirmed it. */
  #isTrue({ via, address, port }: Assignment): boolean {
    if (via === "local") return this.#local.includes(address);
    // Nobody asks a server.
    if (via === "stun") return false;
    const external = { address, port };
    return this.#paths.some(({ gateway }) => this.#isConfirmed({ via, gateway, external }));
  }

  #isConfirmed(
    { via, gateway, external }: Pick<GrantedMapping, "via" | "gateway" | "external">,
  ): boolean {
    const { address } = via === "upnp" ? DEVICE : gateway;
    const has = (what: string) => this.#confirmed.has(`${address} ${via} ${what}`);
    const isPinhole = via === "upnp" && familyOf(external.address) === 6;
    return via === "pcp" || isPinhole
      ? has(formatEndpoint(external))
      : has(`${external.port}`) && has(external.address);
  }

  // ---- Events ------------------------------------------------------------------------------

  #loadUpnp(mapper: PortMapper): void {
    this.#world.after(LOADING_MS, () => {
      if (mapper !== this.#mapper) return;
      if (this.host.isSuspended) return this.#loadUpnp(mapper);
      this.#do((one, now) => one.takeUpnp(makeIgdClient, now));
    });
  }

  #hears(event: MapperEvent): void {
    this.counts[event.type] = (this.counts[event.type] ?? 0) + 1;
    if (event.type === "gateway-restarted") return;
    if (event.type === "upnp-needed") return this.#loadUpnp(this.#mapper);
    const what = this.#ids.get(event.id);
    const told = JSON.stringify(event);
    if (what === undefined) this.#breach(`tells ${told}: nobody knows this id`);
    if (this.#ended.has(event.id)) this.#breach(`tells ${told} after the end of it`);
    if (what === "question") {
      if (event.type === "external-addresses-told") this.#ended.add(event.id);
      else if (event.type !== "external-address") this.#breach(`tells ${told} of a question`);
      else {
        // Where nothing translates the address outside is the one inside.
        const isOwn = event.via === "upnp" && this.#local.includes(event.address);
        const isHeard = event.via === "pcp" || isOwn || this.#confirmed.has(
          `${
            (event.via === "upnp" ? DEVICE : event.gateway).address
          } ${event.via} ${event.address}`,
        );
        if (!isHeard) this.#breach(`tells ${told}: nobody confirmed it`);
      }
      return;
    }
    if (what === "removal") {
      if (event.type === "unmapped" || event.type === "failed") this.#ended.add(event.id);
      else this.#breach(`tells ${told} of a removal`);
      return;
    }
    this.#hearsOf(what, event, told);
  }

  #hearsOf(errand: Errand, event: MapperEvent, words: string): void {
    const { told } = errand;
    const require = (holds: boolean, why: string) => {
      if (!holds) this.#breach(`tells ${words}: ${why}`);
    };
    require(
      !errand.isWatched || event.type === "assignments" || event.type === "unmapped",
      "of it",
    );
    switch (event.type) {
      case "assignments": {
        const { assignments } = event;
        require(errand.isWatched && !errand.isRevoked, "it is not watched");
        for (const one of assignments) require(this.#isTrue(one), `of ${one.address} nobody told`);
        const before = errand.assignments;
        require(!before || setText(before) !== setText(assignments), "that is known");
        errand.assignments = assignments;
        return;
      }
      case "mapped":
      case "renewed":
      case "moved":
      case "recovered": {
        const { mapping } = event;
        const before = { mapped: "nothing", renewed: "held", moved: "held", recovered: "lost" };
        require(told === before[event.type], `it is ${told}`);
        require(!errand.isRevoked, "it was revoked");
        require(this.#isConfirmed(mapping), "nobody confirmed it");
        require(this.#isHere(mapping.gateway), "that is no gateway of this host");
        const isThere = errand.granted &&
          formatEndpoint(errand.granted.external) === formatEndpoint(mapping.external);
        if (event.type === "renewed") require(isThere === true, "it moved");
        if (event.type === "moved") require(isThere === false, "it did not");
        errand.told = "held";
        errand.granted = mapping;
        errand.failures = 0;
        break;
      }
      case "renewal-failed":
        require(told === "held", `it is ${told}`);
        break;
      case "lost":
        require(told === "held", `it is ${told}`);
        errand.told = "lost";
        break;
      case "failed":
        require(told === "nothing", `it is ${told}`);
        this.#ended.add(event.id);
        errand.id = undefined;
        errand.nonces.clear();
        if (errand.isRevoked) errand.isOver = true;
        else {
          const ms = Math.min(LONGEST_AGAIN_MS, AGAIN_MS * 2 ** errand.failures++);
          this.#world.after(ms, () => this.#askFor(errand));
        }
        break;
      case "unmapped":
        require(
          errand.isRevoked || (errand.request.mode ?? "keep-alive") !== "keep-alive",
          "nobody wished it",
        );
        this.#ended.add(event.id);
        errand.id = errand.granted = undefined;
        errand.told = "nothing";
        errand.isOver = true;
        break;
      default:
        this.#breach(`tells ${words} of a mapping`);
    }
    this.#keep(true);
  }

  /** What the application writes down: at each new nonce, before the request leaves, and event. */
  #keep(isTold = false): void {
    const mapper = this.#mapper;
    if (mapper === undefined || (!isTold && mapper.nonces === this.#nonces)) return;
    this.#nonces = mapper.nonces;
    this.#saved = JSON.parse(JSON.stringify(mapper.exportSaved())) as SavedPort[];
  }

  // ---- Judgement ---------------------------------------------------------------------------

  /** Breaks off where the set that a watched port has is another one than was told. */
  judgeWatched(errand: Errand): readonly Assignment[] {
    const shown = this.#mapper.assignments(errand.id!) ?? [];
    if (errand.assignments && setText(shown) === setText(errand.assignments)) return shown;
    this.#breach(
      `shows ${setText(shown)} for ${errand.name}, told ${setText(errand.assignments ?? [])}`,
    );
  }

  /** Breaks off where an id has not ended, although all is over. */
  judgeEnded(): void {
    if (!this.isIdle) this.#breach("is not idle long after its close");
    for (const [id, what] of this.#ids) {
      if (this.#ended.has(id)) continue;
      const name = typeof what === "string" ? what : what.name;
      this.#breach(`was closed and has never told the end of ${name}`);
    }
  }

  #isHere(gateway: Endpoint): boolean {
    return this.#paths.some((path) => path.gateway.address === gateway.address);
  }

  #breach(what: string): never {
    const at = (this.#world.now / 1000).toFixed(3);
    throw new SimulationError(`${this.name} ${what} (at ${at} s)`);
  }
}

function isHeld({ isRevoked, isOver }: Errand): boolean {
  return !isRevoked && !isOver;
}

/** A set of addresses in an order of its own. */
function setText(assignments: readonly Assignment[]): string {
  return assignments.map((one) => `${one.via} ${formatEndpoint(one)}`).sort().join();
}

/** What makes an errand of a program another one. */
function nameOf({ protocol, internalPort, thirdParty, remote, family }: PortRequest): string {
  const owner = thirdParty === undefined ? "" : ` of ${thirdParty}`;
  const peer = remote === undefined ? "" : ` to ${remote.address}`;
  return `${internalPort}/${protocol}${family === 6 ? " over IPv6" : ""}${owner}${peer}`;
}

function show(granted: GrantedMapping | undefined): string {
  return granted ? `${formatEndpoint(granted.external)} at ${granted.gateway.address}` : "nothing";
}
