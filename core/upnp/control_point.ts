/**
 * A UPnP control point: finds devices of any kind, reads what services they have, and calls their
 * actions. The gateway's own client is another machine, which knows what its actions mean.
 *
 * Descriptions are fetched as devices are found and kept; what is asked of one device is asked one
 * thing at a time, since some break otherwise.
 *
 * @module
 */
import { checkInteger } from "../check.ts";
import type {
  Action,
  DebugTimeout,
  Endpoint,
  HttpRequest,
  HttpResponse,
  HttpResult,
  Instant,
  Machine,
  SocketResult,
  SocketSpec,
} from "../machine.ts";
import { Outbox } from "../outbox.ts";
import {
  type Description,
  type DescriptionFault,
  type Device,
  readDescription,
  readScpd,
  type Scpd,
  type Service,
} from "./description.ts";
import {
  type DeviceEvent,
  DeviceSearch,
  type DeviceSearchOptions,
  type DeviceSearchStats,
  type FoundDevice,
  type SearchFailure,
} from "./search.ts";
import {
  asMPost,
  decodeResult,
  encodeCall,
  SOAP_MAX_BYTES,
  type SoapArguments,
  type SoapFault,
} from "./soap.ts";
import { type LocalUrl, resolveInDescription, type UrlFault } from "./url.ts";

/** Options of a {@linkcode ControlPoint}. */
export interface ControlPointOptions extends DeviceSearchOptions {
  /** How long a device may take to answer, milliseconds; default 30,000 (UDA §3.2.1). */
  readonly timeoutMs?: number;
}

/** A service that was found, and where it is to be asked. */
export interface FoundService extends Service {
  /** The device that has it, without what is in that. */
  readonly device: Omit<Device, "services" | "devices">;
  /** The root device. */
  readonly root: FoundDevice;
  /** Where its actions are called, or why they are not. */
  readonly control: LocalUrl | UrlFault;
  /** Where its description is, or why it is not read. */
  readonly scpd: LocalUrl | UrlFault;
}

/** Names what was asked, in the event that ends it. */
export type UpnpRequestId = number;

/** Why something came to nothing. */
export type UpnpFailure =
  /** The device refused: UPnP's code, 401…899, and its words. */
  | { readonly kind: "error"; readonly code: number; readonly description: string }
  /** HTTP refused. */
  | { readonly kind: "http-status"; readonly status: number }
  /** An answer that is none. */
  | { readonly kind: "malformed"; readonly fault: SoapFault | DescriptionFault }
  /** A URL that leads elsewhere. */
  | { readonly kind: "bad-url"; readonly fault: UrlFault }
  /** No answer. */
  | {
    readonly kind: "no-answer";
    readonly reason: (HttpResult & { readonly ok: false })["reason"];
  }
  /** The machine was closed. */
  | { readonly kind: "closed" };

/** What a control point tells. */
export type ControlPointEvent =
  /** A service that is new, or to be found elsewhere than before. */
  | { readonly type: "service"; readonly service: FoundService }
  /** A device whose description is not to be had. */
  | {
    readonly type: "unreadable";
    readonly root: FoundDevice;
    readonly failure: UpnpFailure;
  }
  /** A device went, and its services with it. */
  | { readonly type: "gone"; readonly root: FoundDevice }
  /** The search is over, and the descriptions that it led to are read. */
  | { readonly type: "searched"; readonly failures: readonly SearchFailure[] }
  /** A service's description. */
  | { readonly type: "described"; readonly id: UpnpRequestId; readonly scpd: Scpd }
  /** What an action returned. */
  | { readonly type: "called"; readonly id: UpnpRequestId; readonly args: SoapArguments }
  /** It came to nothing. */
  | { readonly type: "failed"; readonly id: UpnpRequestId; readonly failure: UpnpFailure };

/** Counters of a {@linkcode ControlPoint}. */
export interface ControlPointStats {
  /** Requests made. */
  requests: number;
  /** Answers that were read. */
  answers: number;
  /** Requests that were answered by nothing that could be read. */
  failures: number;
  /** Answers to what was not asked. */
  stray: number;
  /** Devices past the limit. */
  overLimit: number;
  /** Of the search. */
  readonly search: DeviceSearchStats;
}

/** How long a description may take, milliseconds. */
const DESCRIPTION_MS = 10_000;
const DESCRIPTION_MAX_BYTES = 262_144;
const TIMEOUT_MS = 30_000;
/** Of one device so many services are told. */
const MAX_SERVICES = 256;
/** A search leads to so many descriptions: who announces ever new ones does not keep us busy. */
const MAX_DESCRIPTIONS = 256;

/** A request that waits or is under way. */
interface Asked {
  readonly http: number;
  readonly host: string;
  readonly to: Endpoint;
  readonly request: HttpRequest;
  readonly maxBytes: number;
  readonly timeoutMs: number;
  /** The id that was handed out for it; undefined for a device's description. */
  readonly id: UpnpRequestId | undefined;
  readonly done: (response: HttpResponse) => void;
  readonly fail: (failure: UpnpFailure) => void;
  isSent: boolean;
}

/**
 * A control point.
 *
 * @example
 * ```ts
 * import { ControlPoint } from "@natkit/natkit/upnp";
 * const point = new ControlPoint({ places: [{ local: "192.168.1.7" }], targets: ["ssdp:all"] });
 * point.search(0);
 * console.assert(point.sockets().length === 2 && point.services.length === 0);
 * ```
 */
export class ControlPoint implements Machine<ControlPointEvent> {
  readonly #search: DeviceSearch;
  readonly #timeoutMs: number;
  readonly #out = new Outbox<ControlPointEvent>();
  readonly #asked = new Map<number, Asked>();
  readonly #byId = new Map<UpnpRequestId, Asked>();
  /** The services of each device whose description was read, by its URL. */
  readonly #services = new Map<string, readonly FoundService[]>();
  /** The failures of the search, while descriptions are still awaited that it led to. */
  #searched: readonly SearchFailure[] | undefined;
  /** Descriptions asked for since the last search began. */
  #descriptions = 0;
  #lastHttp = 0;
  #lastId = 0;
  #isClosed = false;
  /** {@inheritDoc Machine.stats} */
  readonly stats: ControlPointStats;

  /**
   * Makes one that has not searched.
   *
   * @throws {TypeError | RangeError} Where an option is none.
   */
  constructor(options: ControlPointOptions) {
    this.#timeoutMs = checkInteger("timeoutMs", options.timeoutMs ?? TIMEOUT_MS, 1, 600_000);
    this.#search = new DeviceSearch(options);
    const { stats: search } = this.#search;
    this.stats = { requests: 0, answers: 0, failures: 0, stray: 0, overLimit: 0, search };
  }

  /** The services that are known, in the order in which they were found. */
  get services(): readonly FoundService[] {
    return [...this.#services.values()].flat();
  }

  /** Whether a search is under way, or a description that it led to. */
  get isSearching(): boolean {
    return this.#search.isSearching || this.#searched !== undefined;
  }

  /**
   * Searches, or starts over. What is known already is not told again.
   *
   * @param durationMs How long; default as at the beginning.
   * @throws {RangeError} Where that is no duration.
   */
  search(now: Instant, durationMs?: number): void {
    this.#search.search(now, durationMs);
    this.#out.touch(now);
    this.#descriptions = 0;
    this.#searched = undefined;
    this.#drain();
  }

  /** Ends a search early; what it led to is still read. */
  endSearch(now: Instant): void {
    this.#out.touch(now);
    this.#search.endSearch(now);
    this.#drain();
  }

  /** Asks for a service's description. */
  describe(service: FoundService, now: Instant): UpnpRequestId {
    this.#out.touch(now);
    const { scpd } = service;
    const id = ++this.#lastId;
    if (typeof scpd === "string") this.#refuse(id, { kind: "bad-url", fault: scpd });
    else {
      this.#get(scpd, id, (response) => {
        const read = readScpd(response.body);
        if (typeof read === "object") this.#finish(id, { type: "described", id, scpd: read });
        else this.#refuse(id, unreadable(response, read));
      });
    }
    return id;
  }

  /**
   * Calls an action.
   *
   * @param args By name, in the order in which the service's description has them.
   * @throws {TypeError} Where a name is none.
   */
  call(
    service: FoundService,
    action: string,
    args: SoapArguments,
    now: Instant,
  ): UpnpRequestId {
    const { control, serviceType } = service;
    const path = typeof control === "string" ? "/" : control.path;
    const request = encodeCall({ service: serviceType, action, args }, path);
    this.#out.touch(now);
    const id = ++this.#lastId;
    if (typeof control === "string") this.#refuse(id, { kind: "bad-url", fault: control });
    else this.#post(control.to, request, id, true);
    return id;
  }

  /** Gives up what was asked: nothing is told of it any more. Does nothing where it is over. */
  cancel(id: UpnpRequestId, now: Instant): void {
    this.#out.touch(now);
    const asked = this.#byId.get(id);
    this.#byId.delete(id);
    this.#out.unemit(id);
    // Its answer is still awaited: the device is asked nothing else until then.
    if (asked && !asked.isSent) this.#asked.delete(asked.http);
  }

  /** Ends everything: what was asked fails, and no socket is listed any more. */
  close(now: Instant): void {
    this.#out.touch(now);
    this.#isClosed = true;
    this.#search.close(now);
    for (const id of [...this.#byId.keys()]) this.#refuse(id, { kind: "closed" });
    this.#asked.clear();
    this.#services.clear();
    this.#searched = undefined;
  }

  /** {@inheritDoc Machine.sockets} */
  readonly sockets = (): readonly SocketSpec[] => this.#search.sockets();

  /** {@inheritDoc Machine.handleSocket} */
  handleSocket(key: string, result: SocketResult, now: Instant): void {
    this.#out.touch(now);
    this.#search.handleSocket(key, result, now);
    this.#drain();
  }

  /** {@inheritDoc Machine.handleDatagram} */
  handleDatagram(data: Uint8Array, from: Endpoint, socket: string, now: Instant): boolean {
    this.#out.touch(now);
    const isOurs = this.#search.handleDatagram(data, from, socket, now);
    this.#drain();
    return isOurs;
  }

  /** {@inheritDoc Machine.handleUnreachable} */
  handleUnreachable(to: Endpoint, socket: string, now: Instant): void {
    this.#out.touch(now);
    this.#search.handleUnreachable(to, socket, now);
  }

  /** {@inheritDoc Machine.handleResponse} */
  handleResponse(http: number, result: HttpResult, now: Instant): void {
    this.#out.touch(now);
    const asked = this.#asked.get(http);
    if (!asked?.isSent) {
      this.stats.stray++;
      return;
    }
    this.#asked.delete(http);
    const isAwaited = asked.id === undefined || this.#byId.get(asked.id) === asked;
    if (isAwaited) {
      if (result.ok) asked.done(result);
      else asked.fail({ kind: "no-answer", reason: result.reason });
    }
    this.#sendNext(asked.host);
    this.#endIfRead();
  }

  /** {@inheritDoc Machine.handleTimeout} */
  handleTimeout(now: Instant): void {
    this.#out.touch(now);
    this.#search.handleTimeout(now);
    this.#drain();
  }

  /** {@inheritDoc Machine.nextTimeout} */
  nextTimeout(): Instant | undefined {
    return this.#out.wakeAt() ?? this.#search.nextTimeout();
  }

  /** {@inheritDoc Machine.debugTimeout} */
  debugTimeout(): DebugTimeout | undefined {
    const at = this.#out.wakeAt();
    return at === undefined ? this.#search.debugTimeout() : { at, reason: "output waits" };
  }

  /** {@inheritDoc Machine.poll} */
  poll(): Action<ControlPointEvent> | undefined {
    return this.#out.poll();
  }

  #drain(): void {
    for (let action = this.#search.poll(); action; action = this.#search.poll()) {
      if (action.type === "send") {
        const { socket, to, data } = action;
        this.#out.send(socket, to, data, `${socket} ${to.address}`);
      } else if (action.type === "event") this.#hear(action.event);
    }
    this.#endIfRead();
  }

  #hear(event: DeviceEvent): void {
    switch (event.type) {
      case "found":
        this.#read(event.device);
        break;
      case "rebooted":
        // It may have other URLs than before.
        this.#forget(event.device);
        this.#read(event.device);
        break;
      case "gone":
        this.#forget(event.device);
        this.#out.emit({ type: "gone", root: event.device }, keyOf(event.device));
        break;
      case "searched":
        this.#searched = event.failures;
    }
  }

  #forget(root: FoundDevice): void {
    this.#services.delete(keyOf(root));
    // Its description, where that was asked for, is of no use any more.
    for (const [http, { isSent, id, to, request }] of this.#asked) {
      const isIts = id === undefined && to.address === root.to.address &&
        to.port === root.to.port && request.path === root.path;
      if (isIts && !isSent) this.#asked.delete(http);
    }
  }

  #read(root: FoundDevice): void {
    if (++this.#descriptions > MAX_DESCRIPTIONS) {
      this.stats.overLimit++;
      return;
    }
    const fail = (failure: UpnpFailure): void => {
      this.stats.failures++;
      this.#out.emit({ type: "unreadable", root, failure }, keyOf(root));
    };
    const { to, path } = root;
    const request: HttpRequest = { method: "GET", path, headers: [] };
    this.#ask(
      { to, request, maxBytes: DESCRIPTION_MAX_BYTES, timeoutMs: DESCRIPTION_MS, fail },
      (response) => {
        const read = readDescription(response.body);
        // It went meanwhile.
        const isKnown = this.#search.devices.some((device) => keyOf(device) === keyOf(root));
        if (!isKnown) return;
        if (typeof read === "string") return fail(unreadable(response, read));
        const services = servicesOf(read.device, read, root).slice(0, MAX_SERVICES);
        this.stats.answers++;
        this.#services.set(keyOf(root), services);
        for (const [i, service] of services.entries()) {
          this.#out.emit({ type: "service", service }, `${keyOf(root)} ${i}`);
        }
      },
    );
  }

  #get(url: LocalUrl, id: UpnpRequestId, done: (response: HttpResponse) => void): void {
    const request: HttpRequest = { method: "GET", path: url.path, headers: [] };
    const fail = (failure: UpnpFailure) => this.#refuse(id, failure);
    const limits = { maxBytes: DESCRIPTION_MAX_BYTES, timeoutMs: DESCRIPTION_MS };
    this.#ask({ to: url.to, request, ...limits, id, fail }, done);
  }

  #post(to: Endpoint, request: HttpRequest, id: UpnpRequestId, mayRepeat: boolean): void {
    const fail = (failure: UpnpFailure) => this.#refuse(id, failure);
    const limits = { maxBytes: SOAP_MAX_BYTES, timeoutMs: this.#timeoutMs };
    this.#ask({ to, request, ...limits, id, fail }, (response) => {
      const result = decodeResult(response);
      if (result === "http-status") {
        if (response.status === 405 && mayRepeat) {
          return this.#post(to, asMPost(request), id, false);
        }
        this.#refuse(id, { kind: "http-status", status: response.status });
      } else if (typeof result === "string") {
        this.#refuse(id, { kind: "malformed", fault: result });
      } else if (!result.ok) {
        const { code, description } = result;
        this.stats.answers++;
        this.#finish(id, { type: "failed", id, failure: { kind: "error", code, description } });
      } else this.#finish(id, { type: "called", id, args: result.args });
    });
  }

  #ask(
    what:
      & Pick<Asked, "to" | "request" | "maxBytes" | "timeoutMs" | "fail">
      & { readonly id?: UpnpRequestId },
    done: (response: HttpResponse) => void,
  ): void {
    const { id } = what;
    if (this.#isClosed) return what.fail({ kind: "closed" });
    const host = what.to.address;
    const asked: Asked = { ...what, http: ++this.#lastHttp, host, id, done, isSent: false };
    this.#asked.set(asked.http, asked);
    if (id !== undefined) this.#byId.set(id, asked);
    this.#sendNext(host);
  }

  /** Sends what waits longest for a device that nothing is asked of. */
  #sendNext(host: string): void {
    const here = [...this.#asked.values()].filter((asked) => asked.host === host);
    const [next] = here;
    if (!next || here.some(({ isSent }) => isSent)) return;
    next.isSent = true;
    this.stats.requests++;
    const { http: id, to, request, maxBytes, timeoutMs } = next;
    this.#out.act({ type: "request", id, to, request, maxBytes, timeoutMs });
  }

  #refuse(id: UpnpRequestId, failure: UpnpFailure): void {
    this.stats.failures++;
    this.#byId.delete(id);
    this.#out.emit({ type: "failed", id, failure }, id);
  }

  #finish(id: UpnpRequestId, event: ControlPointEvent): void {
    if (event.type !== "failed") this.stats.answers++;
    this.#byId.delete(id);
    this.#out.emit(event, id);
  }

  /** Tells that the search is over once nothing more will come of it. */
  #endIfRead(): void {
    if (!this.#searched || [...this.#asked.values()].some(({ id }) => id === undefined)) return;
    this.#out.emit({ type: "searched", failures: this.#searched }, "searched");
    this.#searched = undefined;
  }
}

function keyOf({ local, location }: FoundDevice): string {
  return `${local} ${location}`;
}

function unreadable({ status }: HttpResponse, fault: DescriptionFault): UpnpFailure {
  return status >= 200 && status <= 299
    ? { kind: "malformed", fault }
    : { kind: "http-status", status };
}

function servicesOf(device: Device, description: Description, root: FoundDevice): FoundService[] {
  const { services, devices, ...rest } = device;
  const owner = { address: root.to.address };
  const resolve = (url: string) =>
    resolveInDescription(url, description.urlBase, root.location, owner);
  const own = services.map((service): FoundService => ({
    ...service,
    device: rest,
    root,
    control: resolve(service.controlUrl),
    scpd: service.scpdUrl === "" ? "bad-url" : resolve(service.scpdUrl),
  }));
  return [...own, ...devices.flatMap((inner) => servicesOf(inner, description, root))];
}
