/**
 * An Internet gateway device (IGD:1 or IGD:2) over a mapping table that other servers may share: what
 * a router at home is to UPnP.
 *
 * Theory of operation. It lists three sockets an interface: SSDP's own, SSDP's group, and HTTP's. SSDP
 * is the responder's part, events are the publisher's, actions are `igd_actions.ts`'s; here is what a
 * request by HTTP goes through: is it from the inside, does it name an address as its host (no other
 * site's script gets here by a name that leads here, DNS rebinding), which URL is it; then a
 * description is handed out, a subscription goes to the publisher, and a call is read: is the service
 * one of that URL (401), does it have the action in that version (401), are its arguments there (402);
 * then the policy is asked and the action is done. What subscribers may see is compared after each
 * input.
 *
 *   silent ──start──▶ on, BOOTID grows, announced ──bye──▶ silent, said goodbye
 *                                                 ──silence──▶ silent, without a word
 *
 * @module
 */
import { familyOf, formatEndpoint, parseEndpoint, withoutZone } from "../ip.ts";
import type {
  Action,
  DebugTimeout,
  Endpoint,
  HttpHeaders,
  HttpRequest,
  HttpResponse,
  HttpResult,
  Instant,
  Machine,
  SocketResult,
  SocketSpec,
} from "../machine.ts";
import { Outbox } from "../outbox.ts";
import type { TableEntry } from "../table/entry.ts";
import { type ServerEvent, type ServerRequest, snapshotRequest } from "../table/server_request.ts";
import type { MappingTable } from "../table/table.ts";
import type { TableWatch } from "../table/watch.ts";
import { type Device, type Service, writeDescription, writeScpd } from "./description.ts";
import { headerValue } from "./header.ts";
import { IGD_DEVICE, IGD_SERVICE, igdService, UPNP_ERROR, upnpErrorName } from "./igd.ts";
import { type ActionCall, type ActionOutcome, IgdActions, isListed } from "./igd_actions.ts";
import { argumentNames, IGD_ACTIONS, igdScpd } from "./igd_scpd.ts";
import { EventPublisher, type EventStats, type EventValues, randomUuid } from "./publisher.ts";
import { isNear, SsdpResponder, type SsdpStats } from "./responder.ts";
import {
  type ConnectionSettings,
  type IgdPlace,
  type IgdServerOptions,
  type IgdSettings,
  readIgdOptions,
} from "./server_options.ts";
import { decodeCall, encodeFault, encodeResult, type SoapCall } from "./soap.ts";
import { SSDP_GROUP_V4, SSDP_GROUP_V6, SSDP_GROUP_V6_SITE } from "./ssdp.ts";
import { escapeXml } from "./xml.ts";
import { earliest } from "../timers.ts";

export type { IgdConnection, IgdHabits, IgdInterface, IgdServerOptions } from "./server_options.ts";
export type { SsdpHabits, SsdpStats } from "./responder.ts";
export type { EventStats } from "./publisher.ts";

/** Counters of an {@linkcode IgdServer}. */
export interface IgdServerStats {
  /** Requests by what they ask for. */
  readonly requests: {
    readonly descriptions: number;
    readonly actions: number;
    readonly subscriptions: number;
    readonly unknown: number;
  };
  /** Actions by what they came to. */
  readonly results: { readonly done: number; readonly faults: number };
  /** Requests that were not looked at, by reason. */
  readonly dropped: {
    readonly outside: number;
    readonly "no-host": number;
    readonly policy: number;
  };
  /** SSDP's. */
  readonly ssdp: SsdpStats;
  /** Those of events. */
  readonly events: EventStats;
}

/** A service with the URL paths under which it is. */
interface Place {
  readonly service: Service;
  readonly connection: ConnectionSettings | undefined;
}

/** The path of the device's description. */
const DESCRIPTION_PATH = "/rootDesc.xml";
const XML = ["Content-Type", 'text/xml; charset="utf-8"'] as const;
/** The product as HTTP and SSDP have it. */
const SERVER = "natkit/1.0 UPnP/1.1 natkit/1.0";
/** BOOTID has 31 bits (UDA 1.1 §1.2.2). */
const MAX_BOOT_IDS = 0x8000_0000;
/** The longest subscription, seconds. */
const MAX_SUBSCRIPTION_SECONDS = 1800;
const EMPTY = new Uint8Array(0);

/**
 * An Internet gateway device. Its sockets are opened by whoever drives it; it is silent until `start`.
 *
 * @example
 * ```ts
 * import { seededRandom } from "@natkit/natkit/core";
 * import { IgdServer, MappingTable } from "@natkit/natkit/testing";
 * const table = new MappingTable({ externalAddresses: ["203.0.113.7"] });
 * const interfaces = [{ address: "192.168.1.1", prefixLength: 24 }];
 * const server = new IgdServer({ table, interfaces, random: seededRandom(1) });
 * server.start(0);
 * const headers = [["Host", "192.168.1.1:5000"]] as const;
 * const request = { method: "GET", path: "/rootDesc.xml", headers };
 * server.handleRequest(1, request, { address: "192.168.1.2", port: 40000 }, 5);
 * const action = server.poll();
 * console.assert(action?.type === "respond" && action.response.status === 200);
 * ```
 */
export class IgdServer implements Machine<ServerEvent> {
  readonly #settings: IgdSettings;
  readonly #table: MappingTable;
  readonly #out = new Outbox<ServerEvent>();
  readonly #actions: IgdActions;
  readonly #responder: SsdpResponder;
  readonly #publisher: EventPublisher;
  /** Told of each change of the table, to be counted. */
  readonly #changes: TableWatch;
  readonly #watch: TableWatch | undefined;
  readonly #device: Device;
  readonly #counts = {
    requests: { descriptions: 0, actions: 0, subscriptions: 0, unknown: 0 },
    results: { done: 0, faults: 0 },
    dropped: { outside: 0, "no-host": 0, policy: 0 },
  };
  /** Services by the names that their URLs have them under. */
  readonly #places = new Map<string, Place>();
  #listed: readonly TableEntry[] | undefined;
  #updateId = 0;
  #bootAt: Instant = 0;
  #isOn = false;
  #pathKey = "";
  #specs: readonly SocketSpec[] | undefined;

  /**
   * Makes a device; `start` boots it.
   *
   * @throws {TypeError | RangeError} Where an option cannot be, with its name and value.
   */
  constructor(options: IgdServerOptions) {
    const settings = this.#settings = readIgdOptions(options);
    this.#table = settings.table;
    this.#changes = this.#table.watch();
    this.#watch = settings.trace === true ? this.#table.watch() : undefined;
    this.#actions = new IgdActions(settings, {
      entries: () => this.#listed ??= [...this.#table.entries()].filter(isListed),
      uptimeSeconds: (now) => Math.max(0, Math.floor((now - this.#bootAt) / 1000)),
      defaultConnection: this.#defaultConnection(),
    });
    this.#device = this.#describe();
    this.#responder = new SsdpResponder({
      device: this.#device,
      interfaces: settings.places,
      maxAgeSeconds: settings.maxAgeSeconds,
      server: SERVER,
      location: (own) => this.#location(own as IgdPlace),
      random: settings.random,
      send: (socket, to, data) => this.#out.send(socket, to, data),
      habits: settings.habits.ssdp ?? {},
    }, 0);
    this.#publisher = new EventPublisher({
      random: settings.random,
      values: (name) => this.#values(name),
      ask: (id, to, request) =>
        this.#out.act({ type: "request", id, to, request, maxBytes: 4096, timeoutMs: 30_000 }),
      maxTimeoutSeconds: MAX_SUBSCRIPTION_SECONDS,
    });
  }

  /** Counters. */
  get stats(): IgdServerStats {
    const { requests, results, dropped } = this.#counts;
    return {
      requests: { ...requests },
      results: { ...results },
      dropped: { ...dropped },
      ssdp: { ...this.#responder.stats },
      events: { ...this.#publisher.stats },
    };
  }

  /** The description's URLs, one an interface, while it is on and HTTP's ports are known. */
  get locations(): readonly string[] {
    if (!this.#isOn) return [];
    return this.#settings.places.flatMap((place) => this.#location(place) ?? []);
  }

  /** What grows with each boot, as announcements tell it. */
  get bootId(): number {
    return this.#responder.bootId;
  }

  /**
   * Boots, or boots again once the table was lost or cleared, which is its owner's to do: BOOTID
   * grows, subscriptions are lost, it is announced.
   */
  start(now: Instant): void {
    this.#enter(now);
    this.#isOn = true;
    this.#bootAt = now;
    this.#publisher.clear();
    this.#specs = undefined;
    if (this.#settings.habits.hasRandomPaths) this.#pathKey = randomUuid(this.#settings.random);
    this.#responder.bootId = (this.#responder.bootId + 1) % MAX_BOOT_IDS;
    this.#responder.start(now);
    this.#finish();
  }

  /** Announces that it is there, three times. */
  announce(now: Instant): void {
    this.#enter(now);
    this.#responder.announce(now);
    this.#finish();
  }

  /**
   * Lets BOOTID jump, and says so before (`ssdp:update`).
   *
   * @throws {RangeError} Where it does not fit 31 bits.
   */
  setBootId(bootId: number, now: Instant): void {
    this.#enter(now);
    this.#responder.update(bootId % MAX_BOOT_IDS);
    this.#finish();
  }

  /** Says goodbye and is silent; subscriptions are lost. */
  bye(now: Instant): void {
    this.#enter(now);
    this.#responder.bye();
    this.silence();
  }

  /** Is silent without a word, and has no socket. */
  silence(): void {
    this.#isOn = false;
    this.#responder.silence();
    this.#publisher.clear();
    this.#specs = undefined;
  }

  /** The table was lost, in silence: pinholes go with their entries, and no subscriber is told. */
  forget(now: Instant): void {
    this.#enter(now);
    this.#actions.pinholes.prune();
    this.#count();
    this.#publisher.skip();
    this.#finish();
  }

  /** Looks at what others did to the table, and tells who subscribed. */
  notice(now: Instant): void {
    this.#enter(now);
    this.#finish();
  }

  /** Notes that a packet from `remote` came in for an internal endpoint: pinholes count them. */
  notePacket(protocol: number, internal: Endpoint, remote: Endpoint): void {
    this.#actions.pinholes.notePacket(protocol, internal, remote);
  }

  /** Three an interface, while it is on; those whose port is not known yet come later. */
  readonly sockets = (): readonly SocketSpec[] => this.#specs ??= this.#listSockets();

  handleSocket(key: string, result: SocketResult, now: Instant): void {
    this.#enter(now);
    for (const place of this.#settings.places) {
      if (!result.ok) continue;
      if (key === place.httpSocket) {
        place.httpPort = result.local.port;
        this.#responder.announce(now);
      }
      if (key === place.socket) place.port = result.local.port;
      this.#specs = undefined;
    }
    this.#finish();
  }

  handleDatagram(data: Uint8Array, from: Endpoint, socket: string, now: Instant): boolean {
    this.#enter(now);
    if (!this.#isInside(from.address)) {
      this.#counts.dropped.outside++;
      this.#finish();
      return false;
    }
    const heard = this.#responder.hear(data, from, socket, now);
    if (heard.kind === "search" && this.#settings.trace) {
      const request = { operation: "search" as const, action: heard.target };
      this.#out.emit({ type: "request", request: plainRequest(request, from) });
    }
    this.#finish();
    return heard.kind === "search";
  }

  /** Does nothing: who searched may be gone. */
  handleUnreachable(_to: Endpoint, _socket: string, now: Instant): void {
    this.#enter(now);
    this.#finish();
  }

  handleRequest(id: number, request: HttpRequest, from: Endpoint, now: Instant): void {
    this.#enter(now);
    const response = this.#serve(request, from, now);
    if (response) this.#out.act({ type: "respond", id, response });
    this.#finish();
  }

  handleResponse(id: number, result: HttpResult, now: Instant): void {
    this.#enter(now);
    this.#publisher.handleResponse(id, result);
    this.#finish();
  }

  handleTimeout(now: Instant): void {
    this.#enter(now);
    if (this.#isOn) this.#responder.handleTimeout(now);
    this.#publisher.handleTimeout(now);
    this.#finish();
  }

  nextTimeout(): Instant | undefined {
    return this.#out.wakeAt() ?? this.#next()?.at;
  }

  debugTimeout(): DebugTimeout | undefined {
    const wakeAt = this.#out.wakeAt();
    return wakeAt === undefined ? this.#next() : { at: wakeAt, reason: "drain" };
  }

  poll(): Action<ServerEvent> | undefined {
    return this.#out.poll();
  }

  #next(): DebugTimeout | undefined {
    return earliest(
      this.#responder.next(),
      this.#publisher.next(),
      this.#actions.pinholes.next(),
      this.#table.debugTimeout(),
    );
  }

  #enter(now: Instant): void {
    this.#out.touch(now);
    this.#actions.pinholes.handleTimeout(now);
    this.#table.advance(now);
    this.#count();
  }

  /** Counts what has changed in the table, for SystemUpdateID. */
  #count(): void {
    let changes = this.#changes.dropped;
    this.#changes.dropped = 0;
    for (let next = this.#changes.next(); next; next = this.#changes.next()) {
      if (isListed(next.entry)) changes++;
    }
    if (changes > 0) {
      this.#listed = undefined;
      this.#updateId = (this.#updateId + changes) >>> 0;
    }
  }

  /** Sees what has changed, and tells it. */
  #finish(): void {
    this.#count();
    for (let next = this.#watch?.next(); next; next = this.#watch?.next()) {
      this.#out.emit({ type: "mapping", change: next.change, entry: next.entry });
    }
    if (this.#isOn) this.#publisher.refresh();
  }

  #isInside(text: string): boolean {
    const address = withoutZone(text);
    if (this.#table.externalAddresses.includes(address)) return false;
    const { isInside, places } = this.#settings;
    return isInside ? isInside(address) : places.some((place) => isNear(place, address));
  }

  #listSockets(): readonly SocketSpec[] {
    if (!this.#isOn) return [];
    const { places } = this.#settings;
    return places.flatMap((place): SocketSpec[] => {
      const { address, bindTo, socket, groupSocket, httpSocket, httpPort, joinBy, port } = place;
      const groups = familyOf(address) === 6
        ? [[groupSocket, SSDP_GROUP_V6], [`${groupSocket} site`, SSDP_GROUP_V6_SITE]] as const
        : [[groupSocket, SSDP_GROUP_V4]] as const;
      const local = { address: bindTo, port: httpPort ?? this.#settings.httpPort };
      const specs: SocketSpec[] = [
        { key: httpSocket, kind: "http", local },
        { key: socket, local: { address: bindTo, port }, reuse: true },
        ...(port === 0 ? [] : groups.map(([key, group]) => ({
          key,
          local: { address: group, port },
          group,
          interface: joinBy,
          reuse: true,
        }))),
      ];
      // Not every runtime listens at an address with a zone, and there are other places to be found at.
      const isOptional = places.length > 1 && bindTo !== address;
      return isOptional ? specs.map((spec) => ({ ...spec, optional: true })) : specs;
    });
  }

  #location({ address, httpPort }: IgdPlace): string | undefined {
    if (httpPort === undefined) return undefined;
    return `http://${formatEndpoint({ address, port: httpPort })}${this.#path(DESCRIPTION_PATH)}`;
  }

  #path(path: string): string {
    return this.#pathKey === "" ? path : `/${this.#pathKey}${path}`;
  }

  /** The answer; undefined for none. */
  #serve(request: HttpRequest, from: Endpoint, now: Instant): HttpResponse | undefined {
    const { requests, dropped } = this.#counts;
    if (!this.#isInside(from.address)) {
      dropped.outside++;
      return status(403);
    }
    if (!namesAddress(request.headers)) {
      dropped["no-host"]++;
      return status(400);
    }
    const { method } = request;
    const path = this.#ownPath(originForm(request.path));
    const isGet = method === "GET" || method === "HEAD";
    if (path === "/" && isGet) return this.#present();
    if (path === DESCRIPTION_PATH && isGet) {
      return this.#hand(request, from, this.#written(headerValue(request.headers, "Host")!));
    }
    const [, folder, name] = /^\/(scpd|ctl|evt)\/([\w]+)$/.exec(path ?? "") ?? [];
    const place = name === undefined ? undefined : this.#places.get(name);
    if (!place || (folder === "scpd" && this.#settings.habits.lacksScpd)) {
      requests.unknown++;
      return status(404);
    }
    if (folder === "scpd" && isGet) {
      const { kind, version } = igdService(place.service.serviceType)!;
      return this.#hand(request, from, writeScpd(igdScpd(kind, version)));
    }
    if (folder === "ctl" && (method === "POST" || method === "M-POST")) {
      return this.#call(request, place, from, now);
    }
    if (folder === "evt" && (method === "SUBSCRIBE" || method === "UNSUBSCRIBE")) {
      return this.#subscribe(name!, request, from, now);
    }
    requests.unknown++;
    return status(405);
  }

  /** The path as it is without what the habits put before it. */
  #ownPath(path: string): string | undefined {
    const key = this.#path("");
    if (!path.startsWith(key)) return undefined;
    const rest = path.slice(key.length);
    const prefix = absolute(this.#settings.habits.pathPrefix ?? "/");
    if (rest === DESCRIPTION_PATH) return rest;
    return rest.startsWith(prefix) ? `/${rest.slice(prefix.length)}` : undefined;
  }

  /** The page for people. */
  #present(): HttpResponse {
    const { friendlyName } = this.#settings;
    const count = this.#actions.connectionValues(this.#settings.connections[0]!);
    const text =
      `${friendlyName}: ${count["PortMappingNumberOfEntries"]} port mappings, external ` +
      `address ${count["ExternalIPAddress"] || "none"}\n`;
    const headers = [["Content-Type", "text/plain; charset=utf-8"]] as const;
    return { status: 200, headers, body: new TextEncoder().encode(text) };
  }

  #hand(request: HttpRequest, from: Endpoint, body: Uint8Array): HttpResponse {
    this.#counts.requests.descriptions++;
    this.#trace({ operation: "describe", action: request.path }, from);
    // The length of what GET would get (RFC 7230 §3.3.2).
    const length = ["Content-Length", `${body.length}`] as const;
    return request.method === "HEAD"
      ? { status: 200, headers: [XML, length], body: EMPTY }
      : { status: 200, headers: [XML], body };
  }

  #subscribe(name: string, request: HttpRequest, from: Endpoint, now: Instant): HttpResponse {
    this.#counts.requests.subscriptions++;
    const { subscribeFault } = this.#settings.habits;
    const response = subscribeFault === undefined
      ? this.#publisher.serve(name, request, from, now)
      : status(subscribeFault);
    this.#trace({ operation: "subscribe", action: request.method }, from, response.status);
    return response;
  }

  #trace(
    request: Pick<ServerRequest, "operation"> & { readonly action: string },
    from: Endpoint,
    status: number = 200,
  ): void {
    if (!this.#settings.trace) return;
    this.#out.emit({ type: "request", request: plainRequest(request, from) });
    this.#traceResult({ ...plainRequest(request, from) }, status === 200 ? 0 : status, undefined);
  }

  #traceResult(
    request: ServerRequest,
    resultCode: number,
    outcome: ActionOutcome | undefined,
  ): void {
    if (!this.#settings.trace) return;
    const granted = typeof outcome === "object" ? outcome : undefined;
    this.#out.emit({
      type: "response",
      via: "upnp",
      to: request.from,
      operation: request.operation,
      action: request.action ?? "",
      resultCode,
      result: resultCode === 0 ? "SUCCESS" : upnpErrorName(resultCode),
      lifetimeSeconds: granted?.lifetimeSeconds,
      external: granted?.external,
      isUnsolicited: false,
    });
  }

  #call(
    request: HttpRequest,
    place: Place,
    from: Endpoint,
    now: Instant,
  ): HttpResponse | undefined {
    this.#counts.requests.actions++;
    const soap = decodeCall(request);
    if (soap === "no-action" || soap === "not-soap") return this.#fault(UPNP_ERROR.InvalidAction);
    if (typeof soap === "string") return status(400);
    const call = this.#readCall(soap, place, from);
    if (typeof call === "number") {
      this.#trace({ operation: "read", action: soap.action }, from, call);
      return this.#fault(call);
    }
    const described = this.#actions.describe(call);
    if (this.#settings.trace) {
      this.#out.emit({ type: "request", request: snapshotRequest(described) });
    }
    const decision = this.#settings.decide?.(described, now);
    if (decision?.kind === "drop") {
      this.#counts.dropped.policy++;
      return undefined;
    }
    const outcome = decision?.kind === "refuse"
      ? faultCode(decision.code)
      : this.#actions.perform(call, now);
    if (outcome === "drop") {
      this.#counts.dropped.policy++;
      return undefined;
    }
    this.#traceResult(described, typeof outcome === "number" ? outcome : 0, outcome);
    if (typeof outcome === "number") return this.#fault(outcome);
    this.#counts.results.done++;
    const { args } = outcome;
    // As the device spells it: what the client wrote is not to be said back.
    const service = place.service.serviceType.replace(/\d+$/, `${call.version}`);
    const response = encodeResult({ service, action: call.action, args });
    return call.action === "GetListOfPortMappings"
      ? withCdata(response, args["NewPortListing"] ?? "")
      : response;
  }

  #fault(code: number): HttpResponse {
    this.#counts.results.faults++;
    return encodeFault(code, upnpErrorName(code));
  }

  /** The call, or the code of what is wrong with it. */
  #readCall(
    { service, action, args }: SoapCall,
    { service: { serviceType }, connection }: Place,
    from: Endpoint,
  ): ActionCall | number {
    const own = igdService(serviceType)!, asked = igdService(service);
    const { lacks = [], mixesServices } = this.#settings.habits;
    // A service answers for each version up to its own (UDA §2.7).
    const isOwn = asked?.kind === own.kind && asked.version >= 1 && asked.version <= own.version;
    if (!isOwn && !mixesServices) return UPNP_ERROR.InvalidAction;
    const version = isOwn ? asked.version : own.version;
    const known = Object.hasOwn(IGD_ACTIONS[own.kind], action)
      ? IGD_ACTIONS[own.kind][action]
      : undefined;
    if (!known || (known.since ?? 1) > version || lacks.includes(action)) {
      return UPNP_ERROR.InvalidAction;
    }
    const names = argumentNames(known.in);
    if (names.some((name) => args[name] === undefined)) return UPNP_ERROR.InvalidArgs;
    return { kind: own.kind, version, action, args, connection, from };
  }

  /** The evented variables of the service under that name. */
  #values(name: string): EventValues {
    const { service: { serviceType }, connection } = this.#places.get(name)!;
    const { kind, version } = igdService(serviceType)!;
    switch (kind) {
      case "WANIPConnection":
      case "WANPPPConnection": {
        const values = this.#actions.connectionValues(connection!);
        return version >= 2 ? { ...values, SystemUpdateID: `${this.#updateId}` } : values;
      }
      case "WANIPv6FirewallControl":
        return this.#actions.firewallValues();
      case "WANCommonInterfaceConfig":
        return { PhysicalLinkStatus: this.#actions.linkStatus() };
      case "Layer3Forwarding":
        return { DefaultConnectionService: this.#defaultConnection() };
    }
  }

  #defaultConnection(): string {
    const { connections, uuid } = this.#settings;
    const first = Math.max(
      0,
      connections.findIndex(({ status = "Connected" }) => status === "Connected"),
    );
    const { service = "" } = connections[first] ?? {};
    const kind = service.includes("WANPPP") ? "WANPPPConn" : "WANIPConn";
    return `uuid:${uuid}:WANConnectionDevice:1,urn:upnp-org:serviceId:${kind}1`;
  }

  /** The description as it is at present: its URLs may be others after a boot. */
  #written(host: string): Uint8Array {
    const key = this.#path("");
    const moved = (device: Device): Device => ({
      ...device,
      ...device.presentationUrl !== undefined && { presentationUrl: `http://${host}/` },
      services: device.services.map((service) => ({
        ...service,
        controlUrl: key + service.controlUrl,
        eventUrl: key + service.eventUrl,
        scpdUrl: key + service.scpdUrl,
      })),
      devices: device.devices.map(moved),
    });
    return writeDescription({ device: moved(this.#device), urlBase: "" });
  }

  /** The devices in each other: gateway, WAN, a connection device each connection. */
  #describe(): Device {
    const { version, connections, hasFirewall, friendlyName, manufacturer, modelName, uuid } =
      this.#settings;
    const is2 = version === 2;
    const device = (
      deviceType: string,
      number: number,
      services: readonly Service[],
      devices: readonly Device[],
    ): Device => ({
      deviceType,
      friendlyName,
      manufacturer,
      modelName,
      // Each device has its own UUID (UDA §1.1.4): they differ in their last digits.
      ...number === 0 && { presentationUrl: "/" },
      udn: `uuid:${number === 0 ? uuid : uuid.slice(0, -2) + lastDigits(uuid, number)}`,
      services,
      devices,
    });
    const connectionDevices = connections.map((connection, i): Device => {
      const isPpp = connection.service.includes("WANPPP");
      const name = isPpp ? "PPPConn" : "IPConn";
      const services = [
        this.#service(
          connection.service,
          isPpp ? "WANPPPConn1" : "WANIPConn1",
          `${name}${i + 1}`,
          connection,
        ),
        ...(hasFirewall && i === 0
          ? [this.#service(IGD_SERVICE.FIREWALL_1, "WANIPv6Firewall1", "IP6FC")]
          : []),
      ];
      return device(is2 ? IGD_DEVICE.CONNECTION_2 : IGD_DEVICE.CONNECTION_1, 2 + i, services, []);
    });
    const line = this.#service(IGD_SERVICE.COMMON_1, "WANCommonIFC1", "CmnIfCfg");
    const wan = device(is2 ? IGD_DEVICE.WAN_2 : IGD_DEVICE.WAN_1, 1, [line], connectionDevices);
    const forwarding = this.#service(IGD_SERVICE.FORWARDING_1, "L3Forwarding1", "L3F");
    return device(is2 ? IGD_DEVICE.GATEWAY_2 : IGD_DEVICE.GATEWAY_1, 0, [forwarding], [wan]);
  }

  #service(
    serviceType: string,
    id: string,
    name: string,
    connection?: ConnectionSettings,
  ): Service {
    const prefix = this.#settings.habits.pathPrefix ?? "/";
    const service: Service = {
      serviceType,
      serviceId: `urn:upnp-org:serviceId:${id}`,
      controlUrl: `${prefix}ctl/${name}`,
      eventUrl: `${prefix}evt/${name}`,
      scpdUrl: `${prefix}scpd/${name}`,
    };
    this.#places.set(name, { service, connection });
    return service;
  }
}

/** A request that is about no mapping. */
function plainRequest(
  { operation, action }: Pick<ServerRequest, "operation"> & { readonly action: string },
  from: Endpoint,
): ServerRequest {
  return {
    via: "upnp",
    operation,
    action,
    from,
    protocol: 0,
    internal: { address: withoutZone(from.address), port: 0 },
    suggested: { address: "0.0.0.0", port: 0 },
    remote: undefined,
    lifetimeSeconds: 0,
    nonce: undefined,
    existing: undefined,
  };
}

/** A policy's code where UPnP has such codes. */
function faultCode(code: number): number {
  return Number.isInteger(code) && code >= 256 && code <= 999 ? code : UPNP_ERROR.ActionFailed;
}

/** A list is a document in the document: miniupnpc does not decode what is escaped twice. */
function withCdata(response: HttpResponse, text: string): HttpResponse {
  const body = new TextDecoder().decode(response.body);
  const [before = "", after = ""] = body.split(escapeXml(text));
  return { ...response, body: new TextEncoder().encode(`${before}<![CDATA[${text}]]>${after}`) };
}

/** A request's target without scheme and host, which a server has to take too (RFC 7230 §5.3.2). */
function originForm(target: string): string {
  return target.replace(/^http:\/\/[^/?#]*/i, "") || "/";
}

function status(code: number): HttpResponse {
  return { status: code, headers: [], body: EMPTY };
}

function absolute(prefix: string): string {
  return prefix.startsWith("/") ? prefix : `/${prefix}`;
}

/** Whether there is one Host field (RFC 7230 §5.4), and holds an address. */
function namesAddress(headers: HttpHeaders): boolean {
  const hosts = headers.filter(([name]) => name.toLowerCase() === "host");
  return hosts.length === 1 && parseEndpoint(hosts[0]![1].trim(), 80) !== undefined;
}

function lastDigits(uuid: string, number: number): string {
  const last = ((Number.parseInt(uuid.slice(-2), 16) || 0) + number) & 0xff;
  return last.toString(16).padStart(2, "0");
}
