/**
 * A router at the other end of an `IgdClient`, by script: it answers searches and HTTP as real ones
 * do, with their quirks as switches, and writes down what it was asked.
 */
import { canonicalAddress } from "../../../core/ip.ts";
import type {
  Action,
  Endpoint,
  HttpRequest,
  HttpResponse,
  HttpResult,
  Instant,
  SendAction,
} from "../../../core/machine.ts";
import { decodeCall, encodeFault, encodeResult } from "../../../core/upnp/soap.ts";
import { type Device, type Service, writeDescription } from "../../../core/upnp/description.ts";
import {
  decodeSubscribe,
  encodeEvent,
  encodeSubscribed,
  type GenaEvent,
} from "../../../core/upnp/gena.ts";
import { IGD_DEVICE, IGD_SERVICE } from "../../../core/upnp/igd.ts";
import { decodeSsdp, encodeSearchResponse } from "../../../core/upnp/ssdp.ts";

export const ROUTER = "192.168.1.1";
export const GATEWAY: Endpoint = { address: ROUTER, port: 1900 };
export const HOST = "192.168.1.100";
export const NEIGHBOUR = "192.168.1.77";
export const EXTERNAL = "203.0.113.7";
export const UUID = "uuid:6e61746b-6974-4c61-b000-000000000001";
/** The router's HTTP port. */
export const PORT = 5000;

/** A row of the router's table. */
export interface Row {
  readonly remoteHost: string;
  readonly externalPort: number;
  readonly protocol: string;
  readonly internalPort: number;
  readonly internalClient: string;
  readonly description: string;
  /** When it ends; Infinity: never. */
  readonly endsAt: Instant;
}

/** A call as it came. */
export interface Called {
  readonly at: Instant;
  readonly path: string;
  readonly service: string;
  readonly action: string;
  readonly args: Readonly<Record<string, string>>;
}

/** What an action does: arguments to answer with, or a code. */
export type Behaviour = (
  args: Readonly<Record<string, string>>,
  now: Instant,
  router: ScriptedRouter,
  path: string,
) =>
  | Readonly<Record<string, string>>
  | number
  | HttpResponse
  | HttpResult
  | undefined;

const service = (serviceType: string, path: string): Service => ({
  serviceType,
  serviceId: "urn:upnp-org:serviceId:X",
  controlUrl: path,
  eventUrl: `${path}/events`,
  scpdUrl: "/scpd.xml",
});

/** A gateway's description, with these services in its connection device. */
export function gatewayDevice(services: readonly Service[], version: 1 | 2 = 1): Device {
  const common = { manufacturer: "natkit", modelName: "script", friendlyName: "Router" };
  const wan: Device = {
    ...common,
    deviceType: version === 1 ? IGD_DEVICE.WAN_1 : IGD_DEVICE.WAN_2,
    udn: UUID,
    services: [service(IGD_SERVICE.COMMON_1, "/ctl/common")],
    devices: [{
      ...common,
      deviceType: version === 1 ? IGD_DEVICE.CONNECTION_1 : IGD_DEVICE.CONNECTION_2,
      udn: UUID,
      services,
      devices: [],
    }],
  };
  return {
    ...common,
    deviceType: version === 1 ? IGD_DEVICE.GATEWAY_1 : IGD_DEVICE.GATEWAY_2,
    udn: UUID,
    services: [service(IGD_SERVICE.FORWARDING_1, "/ctl/l3f")],
    devices: [wan],
  };
}

/** The usual services. */
export const SERVICES: Readonly<Record<"ip1" | "ip2" | "ppp" | "firewall", Service>> = {
  ip1: service(IGD_SERVICE.WAN_IP_1, "/ctl/ip"),
  ip2: service(IGD_SERVICE.WAN_IP_2, "/ctl/ip"),
  ppp: service(IGD_SERVICE.WAN_PPP_1, "/ctl/ppp"),
  firewall: service(IGD_SERVICE.FIREWALL_1, "/ctl/fw"),
};

/** How a router is set up. */
export interface RouterOptions {
  readonly version?: 1 | 2;
  /** Its description; default: one WANIPConnection of the version. */
  readonly device?: Device;
  /** The description as bytes or text, where it is not to be written by us. */
  readonly description?: string;
  /** What URLs are relative to. */
  readonly urlBase?: string;
  readonly location?: string;
  /** Whether it answers a search for this target, to this address. */
  readonly answers?: (target: string, to: Endpoint) => boolean;
  /** Where its answers come from. */
  readonly from?: Endpoint;
  /** What actions do that do not do what they should. */
  readonly acts?: Readonly<Record<string, Behaviour>>;
  readonly external?: string;
  readonly bootId?: number;
  /** Whether it gives away what another host has. */
  readonly overwrites?: boolean;
  /** Its HTTP port. */
  readonly port?: number;
  /** Whether it takes subscriptions. */
  readonly hasEvents?: boolean;
  /** What it answers to a GET. */
  readonly get?: (path: string) => HttpResult | undefined;
}

/** The router. */
export class ScriptedRouter {
  options: RouterOptions;
  readonly rows: Row[] = [];
  readonly calls: Called[] = [];
  /** HTTP requests as they came. */
  readonly requests: { readonly to: Endpoint; readonly request: HttpRequest }[] = [];
  /** HTTP requests of all kinds: `GET /desc.xml`. */
  readonly asked: string[] = [];
  readonly searches: { readonly target: string; readonly to: Endpoint; readonly mx?: number }[] =
    [];
  readonly pinholes: Map<number, Readonly<Record<string, string>>> = new Map();
  #lastPinhole = 0;
  isDead = false;

  constructor(options: RouterOptions = {}) {
    this.options = options;
  }

  get external(): string {
    return this.options.external ?? EXTERNAL;
  }

  get location(): string {
    return this.options.location ?? `http://${ROUTER}:${PORT}/desc.xml`;
  }

  /** Takes another host's mapping into the table, in the place of what was there. */
  occupy(externalPort: number, protocol = "TCP", internalClient: string = NEIGHBOUR): void {
    const at = this.rows.findIndex((row) =>
      row.externalPort === externalPort && row.protocol === protocol
    );
    if (at >= 0) this.rows.splice(at, 1);
    this.rows.push({
      remoteHost: "",
      externalPort,
      protocol,
      internalPort: externalPort,
      internalClient,
      description: "other",
      endsAt: Infinity,
    });
  }

  /** The table as text: `TCP 8080->192.168.1.100:8080`. */
  table(): string[] {
    return this.rows.map((row) =>
      `${row.protocol} ${row.externalPort}->${row.internalClient}:${row.internalPort}`
    );
  }

  /** The answers to a datagram. */
  datagram({ data, to }: SendAction): { readonly data: Uint8Array; readonly from: Endpoint }[] {
    const message = decodeSsdp(data);
    if (typeof message === "string" || message.kind !== "search") return [];
    const { target, mx } = message;
    this.searches.push({ target, to, ...(mx !== undefined && { mx }) });
    if (this.isDead) return [];
    const answers = this.options.answers ?? ((st) => st === IGD_DEVICE.GATEWAY_1);
    if (!answers(target, to)) return [];
    const answer = encodeSearchResponse({
      target,
      usn: `${UUID}::${target}`,
      location: this.location,
      bootId: this.options.bootId ?? 1,
    });
    return [{ data: answer, from: this.options.from ?? { address: ROUTER, port: 1900 } }];
  }

  /** The answer to an HTTP request. */
  http(to: Endpoint, request: HttpRequest, now: Instant): HttpResult {
    this.asked.push(`${request.method} ${request.path}`);
    this.requests.push({ to, request });
    if (this.isDead || to.port !== (this.options.port ?? PORT)) {
      return { ok: false, reason: "refused" };
    }
    for (let i = this.rows.length - 1; i >= 0; i--) {
      if (this.rows[i]!.endsAt <= now) this.rows.splice(i, 1);
    }
    if (request.method.endsWith("SUBSCRIBE")) return this.#subscribe(request);
    if (request.method === "GET") return this.options.get?.(request.path) ?? this.#describe();
    const call = decodeCall(request);
    if (typeof call === "string") return plain(400);
    this.calls.push({ at: now, path: request.path, ...call });
    const { service, action, args } = call;
    const act = this.options.acts?.[action] ??
      ((this as unknown) as Record<string, Behaviour>)[action]?.bind(this);
    const done = act ? act(args, now, this, request.path) : 401;
    if (done === undefined) return { ok: false, reason: "timeout" };
    if (typeof done === "number") return { ok: true, ...encodeFault(done, "scripted") };
    if ("ok" in done && typeof done.ok === "boolean") return done as HttpResult;
    if ("status" in done) return { ok: true, ...(done as HttpResponse) };
    return {
      ok: true,
      ...encodeResult({ service, action, args: done as Readonly<Record<string, string>> }),
    };
  }

  /** Who is told of changes; undefined: nobody. */
  subscription: { readonly sid: string; readonly callback: URL; sequence: number } | undefined;
  #lastSid = 0;

  #subscribe(request: HttpRequest): HttpResult {
    const asked = decodeSubscribe(request);
    if (typeof asked === "string" || !(this.options.hasEvents ?? true)) return plain(412);
    if (asked.kind === "unsubscribe") {
      this.subscription = undefined;
      return plain(200);
    }
    if (asked.kind === "renew") {
      if (asked.sid !== this.subscription?.sid) return plain(412);
      return { ok: true, ...encodeSubscribed({ sid: asked.sid, timeoutSeconds: 1800 }) };
    }
    const sid = `uuid:sub-${++this.#lastSid}`;
    this.subscription = { sid, callback: new URL(asked.callbacks[0]!), sequence: 0 };
    return { ok: true, ...encodeSubscribed({ sid, timeoutSeconds: 1800 }) };
  }

  /** The next event with these changes. */
  event(properties: Readonly<Record<string, string>>, over: Partial<GenaEvent> = {}): HttpRequest {
    const subscription = this.subscription!;
    const { sid, callback } = subscription;
    const sequence = subscription.sequence++;
    return encodeEvent(callback.pathname, { sid, sequence, properties, ...over });
  }

  /** What has been called, by name. */
  takeActions(): string[] {
    return this.calls.splice(0).map(({ action }) => action);
  }

  #describe(): HttpResult {
    const { version = 1, device, description, urlBase = "" } = this.options;
    const body = description !== undefined
      ? new TextEncoder().encode(description)
      : writeDescription({
        device: device ??
          gatewayDevice([version === 1 ? SERVICES.ip1 : SERVICES.ip2], version),
        urlBase,
      });
    return { ok: true, status: 200, headers: [["Content-Type", "text/xml"]], body };
  }

  // What a router does that does what it should.

  GetExternalIPAddress(): Readonly<Record<string, string>> {
    return { NewExternalIPAddress: this.external };
  }

  GetStatusInfo(): Readonly<Record<string, string>> {
    return { NewConnectionStatus: "Connected", NewLastConnectionError: "", NewUptime: "1" };
  }

  find(args: Readonly<Record<string, string>>): Row | undefined {
    return this.rows.find((row) =>
      row.externalPort === Number(args["NewExternalPort"]) &&
      row.protocol === args["NewProtocol"] && row.remoteHost === args["NewRemoteHost"]
    );
  }

  AddPortMapping(
    args: Readonly<Record<string, string>>,
    now: Instant,
  ): Readonly<Record<string, string>> | number {
    const known = this.find(args);
    const client = args["NewInternalClient"]!;
    const isOurs = known?.internalClient === client &&
      known.internalPort === Number(args["NewInternalPort"]);
    if (known && !isOurs && !this.options.overwrites) return 718;
    if (known) this.rows.splice(this.rows.indexOf(known), 1);
    const seconds = Number(args["NewLeaseDuration"]);
    const longest = this.options.version === 2 ? 604_800 : Infinity;
    this.rows.push({
      remoteHost: args["NewRemoteHost"]!,
      externalPort: Number(args["NewExternalPort"]),
      protocol: args["NewProtocol"]!,
      internalPort: Number(args["NewInternalPort"]),
      internalClient: canonicalAddress(client) ?? client,
      description: args["NewPortMappingDescription"]!,
      endsAt: seconds === 0 ? now + longest * 1000 : now + seconds * 1000,
    });
    return {};
  }

  AddAnyPortMapping(
    args: Readonly<Record<string, string>>,
    now: Instant,
  ): Readonly<Record<string, string>> | number {
    if (this.options.version !== 2) return 401;
    for (let port = Number(args["NewExternalPort"]); port < 65_536; port++) {
      const known = this.find({ ...args, NewExternalPort: String(port) });
      if (known && known.internalClient !== args["NewInternalClient"]) continue;
      const done = this.AddPortMapping({ ...args, NewExternalPort: String(port) }, now);
      if (typeof done !== "number") return { NewReservedPort: String(port) };
    }
    return 728;
  }

  DeletePortMapping(
    args: Readonly<Record<string, string>>,
  ): Readonly<Record<string, string>> | number {
    const known = this.find(args);
    if (!known) return 714;
    this.rows.splice(this.rows.indexOf(known), 1);
    return {};
  }

  GetSpecificPortMappingEntry(
    args: Readonly<Record<string, string>>,
    now: Instant,
  ): Readonly<Record<string, string>> | number {
    const known = this.find(args);
    return known ? target(known, now) : 714;
  }

  GetListOfPortMappings(
    args: Readonly<Record<string, string>>,
    now: Instant,
  ): Readonly<Record<string, string>> | number {
    if (this.options.version !== 2) return 401;
    if (Number(args["NewStartPort"]) < 1) return 733;
    const rows = this.rows.filter(({ protocol }) => protocol === args["NewProtocol"]);
    if (rows.length === 0) return 730;
    const entries = rows.map((row) => {
      const { NewLeaseDuration, NewPortMappingDescription, ...rest } = target(row, now);
      const fields = {
        NewRemoteHost: row.remoteHost,
        NewExternalPort: String(row.externalPort),
        NewProtocol: row.protocol,
        ...rest,
        NewDescription: NewPortMappingDescription!,
        NewLeaseTime: NewLeaseDuration!,
      };
      const inside = Object.entries(fields).map(([name, text]) => `<p:${name}>${text}</p:${name}>`);
      return `<p:PortMappingEntry>${inside.join("")}</p:PortMappingEntry>`;
    });
    return {
      NewPortListing: '<p:PortMappingList xmlns:p="urn:schemas-upnp-org:gw:WANIPConnection">' +
        `${entries.join("")}</p:PortMappingList>`,
    };
  }

  GetGenericPortMappingEntry(
    args: Readonly<Record<string, string>>,
    now: Instant,
  ): Readonly<Record<string, string>> | number {
    const row = this.rows[Number(args["NewPortMappingIndex"])];
    if (!row) return 713;
    return {
      NewRemoteHost: row.remoteHost,
      NewExternalPort: String(row.externalPort),
      NewProtocol: row.protocol,
      ...target(row, now),
    };
  }

  // The IPv6 firewall.

  AddPinhole(args: Readonly<Record<string, string>>): Readonly<Record<string, string>> {
    const { LeaseTime: _, ...subject } = args;
    const text = JSON.stringify(subject);
    for (const [id, known] of this.pinholes) {
      const { LeaseTime: __, ...other } = known;
      if (JSON.stringify(other) === text) {
        this.pinholes.set(id, args);
        return { UniqueID: String(id) };
      }
    }
    this.pinholes.set(++this.#lastPinhole, args);
    return { UniqueID: String(this.#lastPinhole) };
  }

  UpdatePinhole(args: Readonly<Record<string, string>>): Readonly<Record<string, string>> | number {
    const known = this.pinholes.get(Number(args["UniqueID"]));
    if (!known) return 704;
    this.pinholes.set(Number(args["UniqueID"]), { ...known, LeaseTime: args["NewLeaseTime"]! });
    return {};
  }

  GetPinholePackets(
    args: Readonly<Record<string, string>>,
  ): Readonly<Record<string, string>> | number {
    return this.pinholes.has(Number(args["UniqueID"])) ? { PinholePackets: "0" } : 704;
  }

  DeletePinhole(args: Readonly<Record<string, string>>): Readonly<Record<string, string>> | number {
    return this.pinholes.delete(Number(args["UniqueID"])) ? {} : 704;
  }
}

function target(row: Row, now: Instant): Readonly<Record<string, string>> {
  const left = row.endsAt === Infinity ? 0 : Math.round((row.endsAt - now) / 1000);
  return {
    NewInternalPort: String(row.internalPort),
    NewInternalClient: row.internalClient,
    NewEnabled: "1",
    NewPortMappingDescription: row.description,
    NewLeaseDuration: String(left),
  };
}

/** An HTTP answer without UPnP in it. */
export function plain(status: number, body = ""): HttpResult & HttpResponse {
  return { ok: true, status, headers: [], body: new TextEncoder().encode(body) };
}

/** A machine's actions that a rig carries out. */
export type ToDo = Exclude<Action<unknown>, { readonly type: "event" }>;
