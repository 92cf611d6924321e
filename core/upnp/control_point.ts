/**
 * A UPnP control point: finds devices of any kind, reads what services they have, calls their actions
 * and hears of their changes. The gateway's own client is another machine, which knows what its
 * actions mean.
 *
 * Descriptions are fetched as devices are found and kept; what is asked of one device is asked one
 * thing at a time, since some break otherwise.
 *
 * Events come to an HTTP socket that is listed while somebody wants them, at this host's address
 * towards the device. One counts from the device's own host, with the subscription's id and the number
 * that is next; one that is missing makes the subscription anew, which tells everything. The first
 * may come before the id that it bears is known: it waits for that.
 *
 * @module
 */
import { checkInteger } from "../check.ts";
import { classify } from "../cidr.ts";
import { anyAddress, familyOf, formatEndpoint, isSameEndpoint, withoutZone } from "../ip.ts";
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
import { earliest, Timers } from "../timers.ts";
import {
  type Description,
  DESCRIPTION_MAX_BYTES,
  type DescriptionFault,
  type Device,
  readDescription,
  readScpd,
  type Scpd,
  type Service,
} from "./description.ts";
import {
  decodeEvent,
  decodeSubscribed,
  encodeResubscribe,
  encodeSubscribe,
  encodeUnsubscribe,
  type GenaEvent,
  genaStatus,
  type GenaSubscription,
} from "./gena.ts";
import {
  type DeviceEvent,
  DeviceSearch,
  type DeviceSearchOptions,
  type DeviceSearchStats,
  type FoundDevice,
  type SearchFailure,
  type SearchPlace,
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
  /** Where its events are subscribed to, or why they are not. */
  readonly events: LocalUrl | UrlFault;
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
  /** This host could not listen for events. */
  | {
    readonly kind: "cannot-listen";
    readonly code: "permission" | "network";
    readonly message: string;
  }
  /** The device went, or started anew. */
  | { readonly kind: "gone" }
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
  /** What changed at a service, with what it is now; at first, all that it tells of. */
  | {
    readonly type: "changed";
    readonly id: UpnpRequestId;
    readonly properties: Readonly<Record<string, string>>;
  }
  /** Nothing is told of its changes any more, as it was wished. */
  | { readonly type: "unsubscribed"; readonly id: UpnpRequestId }
  /** It came to nothing, or to an end. */
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
  /** Events that were believed. */
  events: number;
  /** Events of another host, with another subscription's id, or that are none: dropped. */
  badEvents: number;
  /** Events after one that is missing. */
  gaps: number;
  /** Of the search. */
  readonly search: DeviceSearchStats;
}

/** How long a description may take, milliseconds. */
const DESCRIPTION_MS = 10_000;
const TIMEOUT_MS = 30_000;
/** Of one device so many services are told. */
const MAX_SERVICES = 256;
/** A search leads to so many descriptions: who announces ever new ones does not keep us busy. */
const MAX_DESCRIPTIONS = 256;

/** What a subscription is asked to last, seconds; devices decide. */
const SUBSCRIPTION_SECONDS = 1800;
/** One that a device lets last shorter is renewed no more often than this, milliseconds. */
const MIN_RENEWAL_MS = 1000;

/** A subscription to a service's changes. */
interface Subscription {
  readonly id: UpnpRequestId;
  readonly service: FoundService;
  readonly events: LocalUrl;
  /** The key of the socket that its events come to. */
  readonly socket: string;
  /** Its id at the device; undefined while it is being made. */
  sid: string | undefined;
  /** The number of the next event. */
  sequence: number;
  /** The first event, where it came before the id. */
  early: GenaEvent | undefined;
  /** Whether a request about it waits or is under way. */
  isAsked: boolean;
  /** Whether it is to end. */
  isOver: boolean;
}

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
  /** The subscription that it is about, which knows itself whether it is awaited. */
  readonly subscription?: UpnpRequestId;
  readonly done: (response: HttpResponse, now: Instant) => void;
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
  readonly #places: readonly SearchPlace[];
  readonly #timeoutMs: number;
  readonly #out = new Outbox<ControlPointEvent>(mergeEvents);
  readonly #subscriptions = new Map<UpnpRequestId, Subscription>();
  /** When subscriptions are to be renewed. */
  readonly #renewals = new Timers<UpnpRequestId>();
  /** Where the sockets for events are bound, by key; why not, where they cannot be. */
  readonly #callbacks = new Map<string, Endpoint | UpnpFailure>();
  readonly #asked = new Map<number, Asked>();
  readonly #byId = new Map<UpnpRequestId, Asked>();
  /** The services of each device whose description was read, by its URL. */
  readonly #services = new Map<string, readonly FoundService[]>();
  /** The failures of the search, while descriptions are still awaited that it led to. */
  #searched: readonly SearchFailure[] | undefined;
  /** Descriptions asked for since the last search began. */
  #descriptions = 0;
  /** What the search lists, and what is listed with the sockets for events. */
  #searching: readonly SocketSpec[] = [];
  #listedSearching: readonly SocketSpec[] | undefined;
  #eventKeys = "";
  #sockets: readonly SocketSpec[] = [];
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
    this.#places = options.places;
    const { stats: search } = this.#search;
    this.stats = {
      requests: 0,
      answers: 0,
      failures: 0,
      stray: 0,
      overLimit: 0,
      events: 0,
      badEvents: 0,
      gaps: 0,
      search,
    };
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

  /**
   * Asks to be told of a service's changes, until {@linkcode unsubscribe}: `changed` events, the first
   * with all that the service tells of.
   */
  subscribe(service: FoundService, now: Instant): UpnpRequestId {
    this.#out.touch(now);
    const id = ++this.#lastId;
    const { events, root } = service;
    if (typeof events === "string") this.#refuse(id, { kind: "bad-url", fault: events });
    else if (this.#isClosed) this.#refuse(id, { kind: "closed" });
    else {
      const socket = `events ${root.local}`;
      const subscription: Subscription = {
        ...{ id, service, events, socket, sid: undefined, sequence: 0, early: undefined },
        ...{ isAsked: false, isOver: false },
      };
      this.#subscriptions.set(id, subscription);
      this.#listSockets();
      this.#subscribe(subscription);
    }
    return id;
  }

  /** Ends a subscription: `unsubscribed` is its last event. Does nothing where it is over. */
  unsubscribe(id: UpnpRequestId, now: Instant): void {
    this.#out.touch(now);
    const subscription = this.#subscriptions.get(id);
    if (!subscription || subscription.isOver) return;
    subscription.isOver = true;
    this.#renewals.delete(id);
    // What is asked about it at present ends it, once that is answered.
    if (!subscription.isAsked) this.#leave(subscription, () => this.#endSubscription(subscription));
  }

  /** Gives up what was asked: nothing is told of it any more. Does nothing where it is over. */
  cancel(id: UpnpRequestId, now: Instant): void {
    this.#out.touch(now);
    const asked = this.#byId.get(id);
    this.#byId.delete(id);
    this.#out.unemit(id);
    // Its answer is still awaited: the device is asked nothing else until then.
    if (asked && !asked.isSent) this.#asked.delete(asked.http);
    const subscription = this.#subscriptions.get(id);
    if (!subscription) return;
    const { sid, events: { to, path } } = subscription;
    this.#dropSubscription(id);
    if (sid === undefined) return;
    const limits = { maxBytes: SOAP_MAX_BYTES, timeoutMs: DESCRIPTION_MS };
    const request = encodeUnsubscribe(path, sid);
    this.#ask({ to, request, ...limits, fail: () => {}, subscription: id }, () => {});
  }

  /** Ends everything: what was asked fails, and no socket is listed any more. */
  close(now: Instant): void {
    this.#out.touch(now);
    this.#isClosed = true;
    this.#search.close(now);
    for (const id of [...this.#byId.keys(), ...this.#subscriptions.keys()]) {
      this.#refuse(id, { kind: "closed" });
    }
    this.#asked.clear();
    this.#subscriptions.clear();
    this.#renewals.clear();
    this.#callbacks.clear();
    this.#services.clear();
    this.#searched = undefined;
  }

  /** {@inheritDoc Machine.sockets} */
  readonly sockets = (): readonly SocketSpec[] => {
    const searching = this.#search.sockets();
    if (searching !== this.#searching) {
      this.#searching = searching;
      this.#listSockets();
    }
    return this.#sockets;
  };

  /** {@inheritDoc Machine.handleSocket} */
  handleSocket(key: string, result: SocketResult, now: Instant): void {
    this.#out.touch(now);
    this.#search.handleSocket(key, result, now);
    if (this.#eventSockets().some((spec) => spec.key === key)) this.#hearSocket(key, result);
    this.#drain();
  }

  /** {@inheritDoc Machine.handleRequest} */
  handleRequest(http: number, request: HttpRequest, from: Endpoint, now: Instant): void {
    this.#out.touch(now);
    const status = this.#takeEvent(request, from);
    const response: HttpResponse = { status, headers: [], body: new Uint8Array(0) };
    this.#out.act({ type: "respond", id: http, response });
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
      if (result.ok) asked.done(result, now);
      else asked.fail({ kind: "no-answer", reason: result.reason });
    }
    this.#sendNext(asked.host);
    this.#endIfRead();
  }

  /** {@inheritDoc Machine.handleTimeout} */
  handleTimeout(now: Instant): void {
    this.#out.touch(now);
    this.#search.handleTimeout(now);
    for (let id = this.#renewals.popDue(now); id !== undefined; id = this.#renewals.popDue(now)) {
      this.#renew(this.#subscriptions.get(id)!);
    }
    this.#drain();
  }

  /** {@inheritDoc Machine.nextTimeout} */
  nextTimeout(): Instant | undefined {
    return this.debugTimeout()?.at;
  }

  /** {@inheritDoc Machine.debugTimeout} */
  debugTimeout(): DebugTimeout | undefined {
    const at = this.#out.wakeAt();
    if (at !== undefined) return { at, reason: "output waits" };
    return earliest(this.#search.debugTimeout(), this.#renewals.next());
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
    for (const subscription of this.#subscriptions.values()) {
      const isIts = keyOf(subscription.service.root) === keyOf(root);
      if (isIts) this.#failSubscription(subscription, { kind: "gone" });
    }
    // Its description, where that was asked for, is of no use any more.
    for (const [http, asked] of this.#asked) {
      const { isSent, to, request } = asked;
      const isIts = isSameEndpoint(to, root.to) && request.path === root.path;
      if (isDescription(asked) && isIts && !isSent) this.#asked.delete(http);
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
      & { readonly id?: UpnpRequestId; readonly subscription?: UpnpRequestId },
    done: (response: HttpResponse, now: Instant) => void,
  ): void {
    const { id } = what;
    if (this.#isClosed) return what.fail({ kind: "closed" });
    const host = what.to.address;
    const asked: Asked = { ...what, http: ++this.#lastHttp, host, id, done, isSent: false };
    this.#asked.set(asked.http, asked);
    if (id !== undefined) this.#byId.set(id, asked);
    this.#sendNext(host);
  }

  #hearSocket(key: string, result: SocketResult): void {
    const callback = result.ok
      ? result.local
      : { kind: "cannot-listen", code: result.code, message: result.message } as const;
    this.#callbacks.set(key, callback);
    for (const subscription of [...this.#subscriptions.values()]) {
      if (subscription.socket !== key) continue;
      if ("kind" in callback) this.#failSubscription(subscription, callback);
      else this.#subscribe(subscription);
    }
  }

  /** Makes a subscription, or makes it anew, once there is a socket for its events. */
  #subscribe(subscription: Subscription): void {
    const { id, socket, events, service, isAsked } = subscription;
    const callback = this.#callbacks.get(socket);
    if (!callback || isAsked) return;
    if ("kind" in callback) return this.#failSubscription(subscription, callback);
    Object.assign(subscription, { sid: undefined, sequence: 0, early: undefined });
    const address = this.#callbackAddress(service, events.to.address);
    const url = `http://${formatEndpoint({ address, port: callback.port })}/${id}`;
    const request = encodeSubscribe(events.path, url, SUBSCRIPTION_SECONDS);
    const fail = (failure: UpnpFailure) => this.#failSubscription(subscription, failure);
    this.#askAbout(subscription, request, (response, now) => {
      const made = decodeSubscribed(response);
      if (typeof made === "string") return fail({ kind: "http-status", status: response.status });
      this.stats.answers++;
      this.#confirm(subscription, made, now);
      const { early, sid } = subscription;
      if (early?.sid === sid) this.#tellChange(subscription, early!);
      else if (early) this.stats.badEvents++;
      subscription.early = undefined;
    }, fail);
  }

  /** Where a device reaches this host: no link-local address, whose zone is another one there. */
  #callbackAddress({ root }: FoundService, device: string): string {
    const isFar = (address: string) =>
      familyOf(address) === familyOf(device) && classify(withoutZone(address)) !== "link-local";
    const { addresses = [] } = this.#places.find(({ local }) => local === root.local) ?? {};
    const own = isFar(root.local) ? root.local : addresses.find(isFar);
    return withoutZone(own ?? root.local);
  }

  #renew(subscription: Subscription): void {
    const { events, sid, isAsked } = subscription;
    if (isAsked || sid === undefined) return;
    const request = encodeResubscribe(events.path, sid, SUBSCRIPTION_SECONDS);
    // A device that does not know it any more is asked for another one.
    const anew = () => this.#subscribe(subscription);
    this.#askAbout(subscription, request, (response, now) => {
      const made = decodeSubscribed(response);
      if (typeof made === "string" || made.sid !== sid) return anew();
      this.stats.answers++;
      this.#confirm(subscription, made, now);
    }, anew);
  }

  #confirm(subscription: Subscription, made: GenaSubscription, now: Instant): void {
    subscription.sid = made.sid;
    const { timeoutSeconds } = made;
    if (timeoutSeconds === undefined) return;
    const renewAt = now + Math.max(MIN_RENEWAL_MS, 500 * timeoutSeconds);
    this.#renewals.set(subscription.id, renewAt, "renew a subscription");
  }

  /** Ends it at the device, where that has it. */
  #leave(subscription: Subscription, then: () => void): void {
    const { sid, events } = subscription;
    if (sid === undefined) return then();
    subscription.sid = undefined;
    this.#askAbout(subscription, encodeUnsubscribe(events.path, sid), then, then);
  }

  /** Asks about a subscription; where it is to end by the time of the answer, it ends. */
  #askAbout(
    subscription: Subscription,
    request: HttpRequest,
    done: (response: HttpResponse, now: Instant) => void,
    fail: (failure: UpnpFailure) => void,
  ): void {
    const { id, events: { to } } = subscription;
    const wasOver = subscription.isOver;
    subscription.isAsked = true;
    const go = (response: HttpResponse | undefined, then: () => void): void => {
      if (this.#subscriptions.get(id) !== subscription) return;
      subscription.isAsked = false;
      if (wasOver || !subscription.isOver) return then();
      const made = response && decodeSubscribed(response);
      if (typeof made === "object") subscription.sid = made.sid;
      this.#leave(subscription, () => this.#endSubscription(subscription));
    };
    const limits = { maxBytes: SOAP_MAX_BYTES, timeoutMs: DESCRIPTION_MS };
    const failing = (failure: UpnpFailure) => go(undefined, () => fail(failure));
    this.#ask(
      { to, request, ...limits, fail: failing, subscription: id },
      (response, now) => go(response, () => done(response, now)),
    );
  }

  #endSubscription({ id }: Subscription): void {
    if (!this.#dropSubscription(id)) return;
    this.#out.emit({ type: "unsubscribed", id }, id);
  }

  #failSubscription({ id, isOver }: Subscription, failure: UpnpFailure): void {
    if (!this.#dropSubscription(id)) return;
    if (isOver) this.#out.emit({ type: "unsubscribed", id }, id);
    else this.#refuse(id, failure);
  }

  #dropSubscription(id: UpnpRequestId): boolean {
    if (!this.#subscriptions.delete(id)) return false;
    this.#renewals.delete(id);
    for (const [http, { isSent, subscription }] of this.#asked) {
      if (subscription === id && !isSent) this.#asked.delete(http);
    }
    this.#listSockets();
    return true;
  }

  /** Takes an event; answers with its status. */
  #takeEvent(request: HttpRequest, from: Endpoint): number {
    const event = decodeEvent(request);
    const subscription = this.#subscriptions.get(Number(request.path.slice(1)));
    const isFromDevice =
      withoutZone(from.address) === withoutZone(subscription?.events.to.address ?? "");
    if (typeof event === "string" || !subscription || !isFromDevice || subscription.isOver) {
      this.stats.badEvents++;
      return typeof event === "string" ? genaStatus(event) : 412;
    }
    const { sid } = subscription;
    if (sid === undefined && subscription.isAsked && event.sequence === 0) {
      subscription.early ??= event;
      return 200;
    }
    if (event.sid !== sid) {
      this.stats.badEvents++;
      return 412;
    }
    this.#tellChange(subscription, event);
    return 200;
  }

  #tellChange(subscription: Subscription, { sequence, properties }: GenaEvent): void {
    const { id, sequence: wanted } = subscription;
    if (sequence !== wanted) {
      this.stats.gaps++;
      this.#leave(subscription, () => this.#subscribe(subscription));
      return;
    }
    this.stats.events++;
    // After 2³²−1 comes 1: one gap in a lifetime.
    subscription.sequence = sequence + 1;
    this.#out.emit({ type: "changed", id, properties }, id);
  }

  #eventSockets(): readonly SocketSpec[] {
    const locals = new Map([...this.#subscriptions.values()].map(({ socket, service }) => [
      socket,
      service.root.local,
    ]));
    return [...locals].map(([key, local]): SocketSpec => {
      // Not each runtime listens at an address with a zone.
      const address = familyOf(local) === 6 ? anyAddress(6) : local;
      return { kind: "http", key, local: { address, port: 0 } };
    });
  }

  #listSockets(): void {
    const events = this.#eventSockets();
    const keys = events.map(({ key }) => key).join();
    for (const key of this.#callbacks.keys()) {
      if (!events.some((spec) => spec.key === key)) this.#callbacks.delete(key);
    }
    if (keys === this.#eventKeys && this.#listedSearching === this.#searching) return;
    this.#eventKeys = keys;
    this.#listedSearching = this.#searching;
    this.#sockets = [...this.#searching, ...events];
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
    if (!this.#searched || [...this.#asked.values()].some(isDescription)) return;
    this.#out.emit({ type: "searched", failures: this.#searched }, "searched");
    this.#searched = undefined;
  }
}

/** Whether it asks for a device's description. */
function isDescription({ id, subscription }: Asked): boolean {
  return id === undefined && subscription === undefined;
}

/** Two events of one id that nobody has heard of yet: changes add up, an end is the end. */
function mergeEvents(older: ControlPointEvent, newer: ControlPointEvent): ControlPointEvent {
  if (older.type !== "changed" || newer.type !== "changed") return newer;
  return { ...newer, properties: { ...older.properties, ...newer.properties } };
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
    events: service.eventUrl === "" ? "bad-url" : resolve(service.eventUrl),
  }));
  return [...own, ...devices.flatMap((inner) => servicesOf(inner, description, root))];
}
