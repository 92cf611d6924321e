/**
 * UPnP devices of any kind, as promises over the machine in `core/upnp/control_point.ts`: which
 * services there are, what they can be asked, and asking it.
 *
 * @module
 */
import { NatError } from "../../core/errors.ts";
import { ControlPoint } from "../../core/upnp/control_point.ts";
import type {
  ControlPointEvent,
  FoundService,
  UpnpFailure,
  UpnpRequestId,
} from "../../core/upnp/control_point.ts";
import type { Device, Scpd, ServiceAction } from "../../core/upnp/description.ts";
import { upnpErrorName } from "../../core/upnp/igd.ts";
import { type SearchFailure, type SearchPlace, searchPlaces } from "../../core/upnp/search.ts";
import { SSDP_ALL, SSDP_ROOT_DEVICE } from "../../core/upnp/ssdp.ts";
import { pickDefined } from "../../core/defined.ts";
import { checkInteger } from "../../core/check.ts";
import { systemRuntime } from "../auto.ts";
import { findGateways } from "../discovery/mod.ts";
import { Driver } from "../driver.ts";
import type { Runtime } from "../runtime.ts";
import { checkOptions, waitFor, type WaitOptions } from "./wait.ts";

/** What is searched for by default: what every device has to answer. */
const EVERYTHING = [SSDP_ROOT_DEVICE, SSDP_ALL];
/** How long `close` waits for devices to confirm that subscriptions ended, milliseconds. */
const CLOSE_MS = 1000;
/** How long a scan takes by default, milliseconds. */
const SCAN_MS = 3000;

/** How to open a {@linkcode UpnpClient}. */
export interface UpnpClientOptions {
  /** The runtime's adapter. Default: the one that is running. */
  readonly runtime?: Runtime;
  /** What is searched for: device or service types. Default: everything. */
  readonly targets?: readonly string[];
  /** Where to search. Default: on each interface but loopback. */
  readonly places?: readonly SearchPlace[];
  /** How long devices may take to answer a search, 1…5 seconds. Default 1. */
  readonly mx?: number;
  /** SSDP's port. Default 1900. */
  readonly port?: number;
}

/** How to scan. */
export interface ScanOptions {
  /** How long to search, 1…600,000 ms. Default 3000. */
  readonly scanMs?: number;
  /** Ends the scan; the iterator rejects with the signal's reason. */
  readonly signal?: AbortSignal;
}

/** A device refused to do what it was asked to. */
export class UpnpError extends Error {
  /** UPnP's error code, 401…899. */
  readonly code: number;
  /** The device's words for it, or the code's name. */
  readonly description: string;
  /** The service that was asked. */
  readonly serviceType: string;
  /** The action that was called. */
  readonly action: string;

  /** Makes the error. */
  constructor(serviceType: string, action: string, code: number, description: string) {
    super(`Cannot call ${action} of ${serviceType}: ${code} ${description}`);
    this.name = "UpnpError";
    this.serviceType = serviceType;
    this.action = action;
    this.code = code;
    this.description = description;
  }
}

/** How to follow a service's changes. */
export interface FollowOptions {
  /** Ends it; the iterator rejects with the signal's reason. */
  readonly signal?: AbortSignal;
}

/** A service's variables by name, with what they are now. */
export type UpnpProperties = Readonly<Record<string, string>>;

/** What {@linkcode UpnpService} asks its client. */
interface Asker {
  follow(found: FoundService, options: FollowOptions): AsyncIterableIterator<UpnpProperties>;
  ask<R>(
    what: string,
    options: WaitOptions,
    start: (point: ControlPoint, now: number) => UpnpRequestId,
    take: (event: ControlPointEvent) => R | undefined,
  ): Promise<R>;
}

/** A service that was found. */
export class UpnpService {
  /** `urn:schemas-upnp-org:service:WANIPConnection:1`. */
  readonly serviceType: string;
  /** `urn:upnp-org:serviceId:WANIPConn1`. */
  readonly serviceId: string;
  /** The device that has it. */
  readonly device: Omit<Device, "services" | "devices">;
  /** The URL of the description that it was found in. */
  readonly location: string;
  /** The host that it is on. */
  readonly address: string;
  readonly #found: FoundService;
  readonly #asker: Asker;
  #scpd: Promise<Scpd> | undefined;

  /** Services are made by {@linkcode UpnpClient.services}. */
  constructor(found: FoundService, asker: unknown) {
    this.serviceType = found.serviceType;
    this.serviceId = found.serviceId;
    this.device = found.device;
    this.location = found.root.location;
    this.address = found.root.to.address;
    this.#found = found;
    this.#asker = asker as Asker;
  }

  /**
   * Its description: actions and variables. It is fetched once.
   *
   * @throws {NatError} `no-answer`, `protocol-violation` where there is none or it is none.
   */
  description(options: WaitOptions = {}): Promise<Scpd> {
    const what = `read the description of ${this.serviceType}`;
    this.#scpd ??= this.#asker.ask(
      what,
      options,
      (point, now) => point.describe(this.#found, now),
      (event) => event.type === "described" ? event.scpd : undefined,
    ).catch((error) => {
      this.#scpd = undefined;
      throw error;
    });
    return this.#scpd;
  }

  /**
   * Its actions, with their arguments in the order in which they are to be given.
   *
   * @throws {NatError} As {@linkcode UpnpService.description}.
   */
  async actions(options: WaitOptions = {}): Promise<readonly ServiceAction[]> {
    return (await this.description(options)).actions;
  }

  /**
   * Follows its changes (GENA): at first all variables that it tells of, then those that changed. The
   * device has to reach this host over HTTP for that.
   *
   * A slow reader gets several changes as one; leaving the loop ends the subscription.
   *
   * @throws {NatError} While iterating: `protocol-violation` where it has no events, `no-answer`,
   *   `permission`, `network`, `closed`.
   */
  changes(options: FollowOptions = {}): AsyncIterableIterator<UpnpProperties> {
    return this.#asker.follow(this.#found, options);
  }

  /**
   * Calls an action.
   *
   * @param args By name, in the order of the action's arguments: many devices insist on it.
   * @returns What it returned, by name.
   * @throws {TypeError} Where a name is none.
   * @throws {UpnpError} Where the device refused.
   * @throws {NatError} `no-answer`, `protocol-violation`, `closed`.
   */
  async call(
    action: string,
    args: Readonly<Record<string, string | number | boolean>> = {},
    options: WaitOptions = {},
  ): Promise<Readonly<Record<string, string>>> {
    const texts = Object.entries(args).map(([name, value]) => [name, valueText(value)] as const);
    return await this.#asker.ask(
      `call ${action} of ${this.serviceType}`,
      options,
      (point, now) => point.call(this.#found, action, Object.fromEntries(texts), now),
      (event) => {
        if (event.type === "called") return event.args;
        if (event.type !== "failed" || event.failure.kind !== "error") return undefined;
        const { code, description } = event.failure;
        const words = description || upnpErrorName(code);
        throw new UpnpError(this.serviceType, action, code, words);
      },
    );
  }
}

/** A value as UPnP writes it: true and false are 1 and 0. */
function valueText(value: string | number | boolean): string {
  return typeof value === "boolean" ? (value ? "1" : "0") : String(value);
}

/**
 * A UPnP client for any service of any device.
 *
 * @example
 * ```ts ignore
 * import { UpnpClient } from "@natkit/natkit/upnp";
 *
 * await using client = await UpnpClient.open();
 * for await (const service of client.services({ scanMs: 2000 })) {
 *   console.log(service.device.friendlyName, service.serviceType);
 *   if (service.serviceType.includes("WANIPConnection")) {
 *     console.log(await service.call("GetExternalIPAddress"));
 *   }
 * }
 * ```
 */
export class UpnpClient implements AsyncDisposable {
  readonly #runtime: Runtime;
  readonly #driver: Driver<ControlPointEvent, ControlPoint>;
  readonly #listeners: Set<(event: ControlPointEvent | undefined) => void> = new Set();
  readonly #made: WeakMap<FoundService, UpnpService> = new WeakMap();
  readonly #places: number;
  /** The subscriptions that were not ended. */
  readonly #followed: Set<UpnpRequestId> = new Set();
  #closing: Promise<void> | undefined;
  #isClosed = false;

  private constructor(runtime: Runtime, places: number, point: ControlPoint) {
    this.#runtime = runtime;
    this.#places = places;
    this.#driver = new Driver<ControlPointEvent, ControlPoint>(
      runtime,
      (event) => this.#tell(event),
    );
    this.#driver.start(point);
  }

  /**
   * Opens the sockets to search by.
   *
   * @throws {TypeError | RangeError} On an option that is none.
   */
  static async open(options: UpnpClientOptions = {}): Promise<UpnpClient> {
    const { runtime = systemRuntime(), targets = EVERYTHING } = checkOptions(options);
    const places = options.places ?? await defaultPlaces(runtime);
    const point = new ControlPoint({
      places,
      targets,
      listen: false,
      ...pickDefined(options, "mx", "port"),
    });
    return new UpnpClient(runtime, places.length, point);
  }

  /**
   * Searches, and hands each service out as it is found; those that are known already at once.
   * Services of a device that is found on several ways are handed out once.
   *
   * @throws {RangeError} On a time that is none.
   * @throws {NatError} While iterating: `permission` or `network`, where this host lets us search
   *   nowhere; `closed`.
   */
  services(options: ScanOptions = {}): AsyncIterableIterator<UpnpService> {
    const { scanMs = SCAN_MS, signal } = checkOptions(options);
    checkInteger("scanMs", scanMs, 1, 600_000);
    const scan = new Feed<UpnpService>(() => {
      this.#listeners.delete(onEvent);
      signal?.removeEventListener("abort", onAbort);
      if (this.#listeners.size === 0 && !this.#isClosed) {
        this.#driver.do((point, now) => point.endSearch(now));
      }
    });
    const onAbort = () => scan.fail(signal!.reason);
    const seen = new Map<string, string>();
    let isEmpty = true;
    const add = (found: FoundService): void => {
      const { device, serviceType, serviceId, root } = found;
      // By another way, IPv6 or a second interface, it is the same one.
      const name = device.udn === "" ? "" : `${device.udn} ${serviceType} ${serviceId}`;
      const local = seen.get(name);
      if (name !== "" && local !== undefined && local !== root.local) return;
      seen.set(name, root.local);
      isEmpty = false;
      scan.push(this.#serviceOf(found));
    };
    const onEvent = (event: ControlPointEvent | undefined): void => {
      if (!event) scan.fail(closedError("search"));
      else if (event.type === "service") add(event.service);
      else if (event.type === "searched") {
        scan.end(isEmpty ? searchError(event.failures, this.#places) : undefined);
      }
    };
    if (this.#isClosed) scan.fail(closedError("search"));
    else if (signal?.aborted) scan.fail(signal.reason);
    else {
      signal?.addEventListener("abort", onAbort);
      this.#listeners.add(onEvent);
      for (const found of this.#driver.machine!.services) add(found);
      this.#driver.do((point, now) => point.search(now, scanMs));
    }
    return scan;
  }

  /** Ends subscriptions at their devices, closes everything; what is under way rejects. */
  close(): Promise<void> {
    return this.#closing ??= this.#close();
  }

  /** {@linkcode UpnpClient.close}, for `await using`. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  async #close(): Promise<void> {
    const followed = new Set(this.#followed);
    this.#isClosed = true;
    for (const listener of [...this.#listeners]) listener(undefined);
    if (followed.size > 0) await this.#leave(followed).catch(() => {});
    this.#driver.do((point, now) => point.close(now));
    this.#driver.close();
  }

  /** Ends subscriptions; rejects where devices take their time. */
  #leave(followed: Set<UpnpRequestId>): Promise<void> {
    const late = () => closedError("end subscriptions");
    return waitFor<void>(this.#runtime, { timeoutMs: CLOSE_MS }, late, (settle) => {
      this.#listeners.add((event) => {
        if (event?.type === "unsubscribed" || event?.type === "failed") followed.delete(event.id);
        if (followed.size === 0) settle.resolve();
      });
      for (const id of [...followed]) this.#driver.do((point, now) => point.unsubscribe(id, now));
    });
  }

  #serviceOf(found: FoundService): UpnpService {
    const made = this.#made.get(found) ?? new UpnpService(found, this.#asker);
    this.#made.set(found, made);
    return made;
  }

  readonly #asker: Asker = {
    ask: (what, options, start, take) => this.#ask(what, options, start, take),
    follow: (found, options) => this.#follow(found, options),
  };

  #follow(found: FoundService, options: FollowOptions): AsyncIterableIterator<UpnpProperties> {
    const { signal } = checkOptions(options);
    const what = `follow ${found.serviceType}`;
    let id: UpnpRequestId | undefined = undefined;
    const onAbort = () => changes.fail(signal!.reason);
    const changes = new Feed<UpnpProperties>(() => {
      this.#listeners.delete(onEvent);
      signal?.removeEventListener("abort", onAbort);
      if (id === undefined || this.#isClosed) return;
      this.#followed.delete(id);
      this.#driver.do((point, now) => point.unsubscribe(id!, now));
    }, (older, newer) => ({ ...older, ...newer }));
    const onEvent = (event: ControlPointEvent | undefined): void => {
      if (!event) return changes.fail(closedError(what));
      if (!("id" in event) || event.id !== id) return;
      if (event.type === "changed") changes.push(event.properties);
      else if (event.type === "failed") changes.fail(failureError(what, event.failure));
    };
    if (this.#isClosed) changes.fail(closedError(what));
    else if (signal?.aborted) changes.fail(signal.reason);
    else {
      signal?.addEventListener("abort", onAbort);
      this.#listeners.add(onEvent);
      // What it tells at once is told within.
      this.#driver.do((point, now) => this.#followed.add(id = point.subscribe(found, now)));
    }
    return changes;
  }

  #ask<R>(
    what: string,
    options: WaitOptions,
    start: (point: ControlPoint, now: number) => UpnpRequestId,
    take: (event: ControlPointEvent) => R | undefined,
  ): Promise<R> {
    const late = () => new NatError("no-answer", `Cannot ${what}: no answer`);
    return waitFor<R>(this.#runtime, options, late, (settle) => {
      if (this.#isClosed) throw closedError(what);
      let id: UpnpRequestId | undefined = undefined;
      const early: ControlPointEvent[] = [];
      const onEvent = (event: ControlPointEvent | undefined): void => {
        if (!event) return settle.reject(closedError(what));
        if (id === undefined) return void early.push(event);
        if (!("id" in event) || event.id !== id) return;
        try {
          const taken = take(event);
          if (taken !== undefined) settle.resolve(taken);
          else if (event.type === "failed") settle.reject(failureError(what, event.failure));
        } catch (error) {
          settle.reject(error);
        }
      };
      this.#listeners.add(onEvent);
      settle.onEnd((isResolved) => {
        this.#listeners.delete(onEvent);
        if (!isResolved && id !== undefined && !this.#isClosed) {
          this.#driver.do((point, now) => point.cancel(id!, now));
        }
      });
      id = this.#driver.do(start);
      for (const event of early) onEvent(event);
    });
  }

  #tell(event: ControlPointEvent): void {
    for (const listener of [...this.#listeners]) listener(event);
  }
}

/** The places of this host; where the gateway is not told, none is asked by itself. */
async function defaultPlaces(runtime: Runtime): Promise<SearchPlace[]> {
  const gateways = await findGateways(runtime).catch(() => []);
  return searchPlaces(runtime.interfaces(), gateways.map(({ address }) => address));
}

function closedError(what: string): NatError {
  return new NatError("closed", `Cannot ${what}: closed`);
}

/** The error of a search that this host did not let us begin anywhere. */
function searchError(failures: readonly SearchFailure[], places: number): NatError | undefined {
  if (places === 0) {
    return new NatError("network", "Cannot search for UPnP devices: no interface has an address");
  }
  const [first] = failures;
  if (!first || failures.length < places) return undefined;
  return new NatError(first.code, `Cannot search for UPnP devices: ${first.message}`);
}

function failureError(what: string, failure: UpnpFailure): Error {
  const text = `Cannot ${what}`;
  switch (failure.kind) {
    case "error":
      return new NatError("refused", `${text}: ${failure.code} ${failure.description}`);
    case "http-status":
      return new NatError("protocol-violation", `${text}: HTTP status ${failure.status}`);
    case "malformed":
      return new NatError("protocol-violation", `${text}: the answer is none (${failure.fault})`);
    case "bad-url":
      return new NatError(
        "protocol-violation",
        `${text}: its URL is none, or leads off the device (${failure.fault})`,
      );
    case "cannot-listen":
      return new NatError(failure.code, `${text}: ${failure.message}`);
    case "gone":
      return new NatError("no-answer", `${text}: the device is gone, or has started anew`);
    case "closed":
      return closedError(what);
    case "no-answer":
      switch (failure.reason) {
        case "permission":
          return new NatError("permission", `${text}: the runtime or the system does not let us`);
        case "too-large":
          return new NatError("protocol-violation", `${text}: the answer is too large`);
        default:
          return new NatError("no-answer", `${text}: ${failure.reason}`);
      }
  }
}

/** Who waits for the next one. */
interface Taker<T> {
  resolve(result: IteratorResult<T>): void;
  reject(reason: unknown): void;
}

/** So many values may wait for a reader, where they may be merged. */
const MAX_WAITING = 64;

/**
 * What was found, or what changed, for one reader. Unlike an event stream it can fail, and merges
 * nothing where it is not told how.
 */
class Feed<T> implements AsyncIterableIterator<T> {
  readonly #onEnd: () => void;
  readonly #merge: ((older: T, newer: T) => T) | undefined;
  readonly #waiting: T[] = [];
  readonly #takers: Taker<T>[] = [];
  #error: { readonly reason: unknown } | undefined;
  #isOver = false;

  /**
   * @param onEnd Is called once nothing more is wanted.
   * @param merge Makes one value of two, where too many wait.
   */
  constructor(onEnd: () => void, merge?: (older: T, newer: T) => T) {
    this.#onEnd = onEnd;
    this.#merge = merge;
  }

  push(value: T): void {
    const taker = this.#takers.shift();
    if (taker) taker.resolve({ done: false, value });
    else if (!this.#merge || this.#waiting.length < MAX_WAITING) this.#waiting.push(value);
    else this.#waiting.push(this.#merge(this.#waiting.pop()!, value));
  }

  end(error: Error | undefined): void {
    if (error) return this.fail(error);
    this.#finish();
    for (const taker of this.#takers.splice(0)) taker.resolve({ done: true, value: undefined });
  }

  fail(reason: unknown): void {
    this.#error = { reason };
    this.#finish();
    const [first, ...rest] = this.#takers.splice(0);
    if (!first) return;
    this.#error = undefined;
    first.reject(reason);
    for (const taker of rest) taker.resolve({ done: true, value: undefined });
  }

  next(): Promise<IteratorResult<T>> {
    if (this.#waiting.length > 0) {
      return Promise.resolve({ done: false, value: this.#waiting.shift()! });
    }
    if (this.#error) {
      const { reason } = this.#error;
      this.#error = undefined;
      return Promise.reject(reason);
    }
    if (this.#isOver) return Promise.resolve({ done: true, value: undefined });
    return new Promise((resolve, reject) => this.#takers.push({ resolve, reject }));
  }

  return(): Promise<IteratorResult<T>> {
    this.#waiting.length = 0;
    this.#error = undefined;
    this.end(undefined);
    return Promise.resolve({ done: true, value: undefined });
  }

  [Symbol.asyncIterator](): AsyncIterableIterator<T> {
    return this;
  }

  #finish(): void {
    if (this.#isOver) return;
    this.#isOver = true;
    this.#onEnd();
  }
}
