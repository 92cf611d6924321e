/**
 * The device's side of events (UDA §4): who has subscribed to which service, until when, and what
 * each has been told.
 *
 * Theory of operation. A subscriber is told everything at first and then what differs from what it
 * was told last. One event at a time is on its way to each; what changes meanwhile is in the next,
 * as it is then. So there is nothing to queue. Events go to the subscriber's own address alone:
 * else a device could be made to call others. How many subscriptions there are is bounded.
 *
 *   (none) ──SUBSCRIBE──▶ live ──renew──▶ live ──UNSUBSCRIBE / its time is over / nobody there──▶ gone
 *
 * @module
 */
import type {
  DebugTimeout,
  Endpoint,
  HttpRequest,
  HttpResponse,
  HttpResult,
  Instant,
} from "../machine.ts";
import { toHex } from "../bytes.ts";
import type { RandomSource } from "../random.ts";
import { Timers } from "../timers.ts";
import {
  decodeSubscribe,
  encodeEvent,
  encodeSubscribed,
  type GenaEvent,
  genaStatus,
} from "./gena.ts";
import { type LocalUrl, resolveLocal } from "./url.ts";

/** A service's evented variables with their values. */
export type EventValues = Readonly<Record<string, string>>;

/** What a publisher needs. */
export interface PublisherOptions {
  /** Makes the ids of subscriptions. */
  readonly random: RandomSource;
  /** The values of a service's evented variables at present. */
  readonly values: (service: string) => EventValues;
  /** Asks; the result comes back by the id. */
  readonly ask: (id: number, to: Endpoint, request: HttpRequest) => void;
  /** The longest subscription, seconds. */
  readonly maxTimeoutSeconds: number;
}

/** What a publisher has done. */
export interface EventStats {
  /** Subscriptions made. */
  subscribed: number;
  /** Subscriptions renewed. */
  renewed: number;
  /** Subscriptions ended by their subscriber. */
  unsubscribed: number;
  /** Requests that were refused. */
  refused: number;
  /** Subscriptions whose time was over. */
  expired: number;
  /** Events sent. */
  events: number;
  /** Events that nobody took. */
  failed: number;
}

interface Subscription {
  readonly sid: string;
  readonly service: string;
  /** Where it may be told, the subscriber's favourite first. */
  readonly callbacks: readonly LocalUrl[];
  /** What it was told last. */
  told: EventValues;
  sequence: number;
  /** What it is told at present, and by which of the callbacks. */
  event: GenaEvent | undefined;
  at: number;
  /** The request that is on its way. */
  asked: number | undefined;
  failures: number;
}

/** How many subscriptions there may be. */
const MAX_SUBSCRIPTIONS = 64;
/** How many a host may have. */
const MAX_OF_HOST = 8;
/** A subscription that is to last less lasts so long, seconds. */
const MIN_TIMEOUT_SECONDS = 60;
/** So many events in a row that nobody took end a subscription. */
const MAX_FAILURES = 3;
const MAX_SEQUENCE = 0xffff_ffff;

/** The device's side of events. */
export class EventPublisher {
  readonly #options: PublisherOptions;
  readonly #subscriptions = new Map<string, Subscription>();
  readonly #ends = new Timers<string>();
  readonly #asked = new Map<number, Subscription>();
  #lastId = 0;
  /** What happened. */
  readonly stats: EventStats = {
    subscribed: 0,
    renewed: 0,
    unsubscribed: 0,
    refused: 0,
    expired: 0,
    events: 0,
    failed: 0,
  };

  /** Makes one that nobody has subscribed to. */
  constructor(options: PublisherOptions) {
    this.#options = options;
  }

  /** How many subscriptions there are. */
  get size(): number {
    return this.#subscriptions.size;
  }

  /** Answers a request about a subscription to `service`. */
  serve(service: string, request: HttpRequest, from: Endpoint, now: Instant): HttpResponse {
    const asked = decodeSubscribe(request);
    if (typeof asked === "string") return this.#refuse(genaStatus(asked));
    if (asked.kind === "subscribe") {
      const { callbacks, timeoutSeconds } = asked;
      return this.#subscribe(service, callbacks, timeoutSeconds, from, now);
    }
    const known = this.#subscriptions.get(asked.sid);
    if (!known || known.service !== service || hostOf(known) !== from.address) {
      return this.#refuse(412);
    }
    if (asked.kind === "unsubscribe") {
      this.stats.unsubscribed++;
      this.#forget(known);
      return status(200);
    }
    this.stats.renewed++;
    return this.#confirm(known, asked.timeoutSeconds, now);
  }

  /** Tells each subscriber what it has not been told; call it when something may have changed. */
  refresh(): void {
    for (const subscription of this.#subscriptions.values()) this.#tell(subscription);
  }

  /** Takes everything for told. */
  skip(): void {
    for (const subscription of this.#subscriptions.values()) {
      subscription.told = this.#options.values(subscription.service);
    }
  }

  /** Takes the result of a request; what changed meanwhile is told by the next `refresh`. */
  handleResponse(id: number, result: HttpResult): void {
    const subscription = this.#asked.get(id);
    if (!subscription) return;
    this.#asked.delete(id);
    subscription.asked = undefined;
    if (this.#subscriptions.get(subscription.sid) !== subscription) return;
    if (result.ok && result.status < 300) {
      subscription.failures = 0;
    } else {
      // There is someone who knows of no such subscription.
      const isUnknown = result.ok && result.status === 412;
      if (!isUnknown && ++subscription.at < subscription.callbacks.length) {
        return this.#send(subscription);
      }
      this.stats.failed++;
      const isOver = ++subscription.failures >= MAX_FAILURES || isUnknown;
      if (isOver) this.#forget(subscription);
    }
  }

  /** Ends what is over. */
  handleTimeout(now: Instant): void {
    for (let sid = this.#ends.popDue(now); sid !== undefined; sid = this.#ends.popDue(now)) {
      this.stats.expired++;
      this.#subscriptions.delete(sid);
    }
  }

  /** When a subscription ends next. */
  nextAt(): Instant | undefined {
    return this.#ends.nextAt();
  }

  /** {@linkcode EventPublisher.nextAt} with its reason. */
  next(): DebugTimeout | undefined {
    const next = this.#ends.next();
    return next && { at: next.at, reason: next.reason };
  }

  /** Forgets all subscriptions, as a boot does. */
  clear(): void {
    this.#subscriptions.clear();
    this.#ends.clear();
    this.#asked.clear();
  }

  #subscribe(
    service: string,
    callbacks: readonly string[],
    timeoutSeconds: number | undefined,
    from: Endpoint,
    now: Instant,
  ): HttpResponse {
    const own = callbacks.map((url) => resolveLocal(url, "", { address: from.address }))
      .filter((url) => typeof url !== "string");
    if (own.length === 0) return this.#refuse(412);
    const ofHost = [...this.#subscriptions.values()]
      .filter((other) => hostOf(other) === from.address).length;
    if (this.size >= MAX_SUBSCRIPTIONS || ofHost >= MAX_OF_HOST) return this.#refuse(503);
    const subscription: Subscription = {
      sid: `uuid:${randomUuid(this.#options.random)}`,
      service,
      callbacks: own,
      told: {},
      sequence: 0,
      event: undefined,
      at: 0,
      asked: undefined,
      failures: 0,
    };
    this.#subscriptions.set(subscription.sid, subscription);
    this.stats.subscribed++;
    return this.#confirm(subscription, timeoutSeconds, now);
  }

  #confirm(
    { sid }: Subscription,
    wanted: number | undefined,
    now: Instant,
  ): HttpResponse {
    const { maxTimeoutSeconds } = this.#options;
    const shortest = Math.min(MIN_TIMEOUT_SECONDS, maxTimeoutSeconds);
    const timeoutSeconds = Math.min(
      maxTimeoutSeconds,
      Math.max(shortest, wanted ?? maxTimeoutSeconds),
    );
    this.#ends.set(sid, now + 1000 * timeoutSeconds, "end a subscription");
    return encodeSubscribed({ sid, timeoutSeconds });
  }

  #tell(subscription: Subscription): void {
    if (subscription.asked !== undefined) return;
    const { sid, service, told, sequence } = subscription;
    const values = this.#options.values(service);
    const changed = Object.entries(values)
      .filter(([name, value]) => sequence === 0 || told[name] !== value);
    if (changed.length === 0) return;
    subscription.told = values;
    // UDA §4.2: after the largest comes 1, since 0 is the first of all.
    subscription.sequence = sequence >= MAX_SEQUENCE ? 1 : sequence + 1;
    this.stats.events++;
    subscription.event = { sid, sequence, properties: Object.fromEntries(changed) };
    subscription.at = 0;
    this.#send(subscription);
  }

  /** Says what there is to say by the callback whose turn it is (UDA §4.1.1). */
  #send(subscription: Subscription): void {
    const { callbacks, at, event } = subscription;
    const { to, path } = callbacks[at]!;
    const id = ++this.#lastId;
    subscription.asked = id;
    this.#asked.set(id, subscription);
    this.#options.ask(id, to, encodeEvent(path, event!));
  }

  #forget({ sid }: Subscription): void {
    this.#subscriptions.delete(sid);
    this.#ends.delete(sid);
  }

  #refuse(code: number): HttpResponse {
    this.stats.refused++;
    return status(code);
  }
}

/** The subscriber's address, as all its callbacks have it. */
function hostOf({ callbacks: [first] }: Subscription): string {
  return first!.to.address;
}

function status(code: number): HttpResponse {
  return { status: code, headers: [], body: new Uint8Array(0) };
}

/** A random UUID (RFC 9562 §5.4). */
export function randomUuid(random: RandomSource): string {
  const bytes = new Uint8Array(16);
  random.fill(bytes);
  bytes[6] = (bytes[6]! & 0x0f) | 0x40;
  bytes[8] = (bytes[8]! & 0x3f) | 0x80;
  const digits = toHex(bytes);
  return [[0, 8], [8, 12], [12, 16], [16, 20], [20, 32]]
    .map(([from, to]) => digits.slice(from, to)).join("-");
}
