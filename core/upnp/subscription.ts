/**
 * Hearing of a service's changes as they happen (GENA): a subscription that is kept as long as it is
 * wanted, and what the device tells by it.
 *
 * An event is believed from the address that the service is at, at the path that only it was told,
 * with the subscription's id and in its order. What comes otherwise is refused and counted; after a
 * gap in the order the caller looks for itself.
 *
 * @module
 */
import { formatEndpoint, withoutZone } from "../ip.ts";
import type { Endpoint, HttpRequest, HttpResponse, Instant } from "../machine.ts";
import type { RandomSource } from "../random.ts";
import type { CallQueue, Ending, ServiceAt, Steps } from "./calls.ts";
import {
  decodeEvent,
  decodeSubscribed,
  encodeResubscribe,
  encodeSubscribe,
  encodeUnsubscribe,
  genaStatus,
} from "./gena.ts";

/** What a subscription needs of the client. */
export interface SubscriptionHost {
  /** The present. */
  now(): Instant;
  /** Variables have changed. */
  changed(properties: Readonly<Record<string, string>>): void;
  /** Something may have been missed. */
  missed(): void;
  /** The external address may be another one than was told. */
  doubted(): void;
  /** Answers a request. */
  respond(id: number, response: HttpResponse): void;
  /** A request was refused. */
  dropped(): void;
}

/** How long a subscription is asked for, seconds. */
const TIMEOUT_SECONDS = 1800;
/** The most often that it is renewed, milliseconds. */
const MIN_RENEWAL_MS = 30_000;
/**
 * How long after it told an address, or may have, a device is asked whether it has that still,
 * milliseconds. miniupnpd tells nobody what changes while it delivers an event, be it the first one of
 * a subscription: such a change came out with the next event, whenever that is. It is asked once for
 * all events that come until then: however many a device sends, no more than twenty times a minute.
 */
const DOUBT_MS = 3000;
const LIMITS = { maxBytes: 4096, timeoutMs: 5000 } as const;
/** Precondition failed: what a subscriber says to an event that is none of its own (UDA 1.1 §4.3.2). */
const NOT_MINE = 412;
const NOT_FOUND = 404;

/** One subscription at a time, at one service. */
export class Subscription {
  /** Where the device tells events: a path that nobody else knows. */
  readonly path: string;
  readonly #queue: CallQueue;
  readonly #host: SubscriptionHost;
  #service: ServiceAt | undefined;
  /** How many services have been listened to. */
  #services = 0;
  /** Where events can be heard of the present one. */
  #listensAt: Endpoint | undefined;
  /** Being asked for: an event may come before the answer. */
  #isAsking = false;
  #sid: string | undefined;
  #nextSequence = 0;
  #renewAt: Instant | undefined;
  /** When what it told of the address is doubted. */
  #doubtAt: Instant | undefined;
  /** It was refused: it is not asked for again at this service. */
  #isRefused = false;

  constructor(random: RandomSource, queue: CallQueue, host: SubscriptionHost) {
    const hex = () => random.u32().toString(16).padStart(8, "0");
    this.path = `/${hex()}${hex()}`;
    this.#queue = queue;
    this.#host = host;
  }

  /** Whether events have come: the device tells what changes. */
  get works(): boolean {
    return this.#sid !== undefined && this.#nextSequence > 0;
  }

  /** The key of the socket on which to listen for events, where that is wanted. */
  get socketKey(): string | undefined {
    return this.#service && !this.#isRefused ? `events ${this.#services}` : undefined;
  }

  /** When it is to be called next. */
  nextAt(): Instant | undefined {
    const at = Math.min(this.#renewAt ?? Infinity, this.#doubtAt ?? Infinity);
    return at === Infinity ? undefined : at;
  }

  /** Wants the events of a service, or of none. */
  want(service: ServiceAt | undefined): void {
    const wanted = service?.eventPath === undefined ? undefined : service;
    if (wanted === this.#service) return;
    if (!wanted && this.#sid !== undefined) this.#unsubscribe(this.#service!, this.#sid);
    this.lost();
    if (!wanted) return;
    this.#service = wanted;
    this.#services++;
  }

  /** The service is not where it was: nothing is left there. */
  lost(): void {
    this.#forget();
    this.#service = this.#listensAt = undefined;
    this.#isRefused = false;
  }

  /** Events can be heard at this address; undefined: they cannot. */
  listens(local: Endpoint | undefined): void {
    const wasListening = this.#listensAt !== undefined;
    this.#listensAt = local;
    if (!local) this.#isRefused = true;
    else if (!wasListening) this.#subscribe();
  }

  /** Does what is due. */
  handleTimeout(): void {
    const now = this.#host.now();
    if ((this.#doubtAt ?? Infinity) <= now) {
      this.#doubtAt = undefined;
      this.#host.doubted();
    }
    if ((this.#renewAt ?? Infinity) > now) return;
    this.#renewAt = undefined;
    this.#subscribe();
  }

  /** The device may have forgotten it: it is renewed, and asked for anew where it is not known. */
  verify(): void {
    if (this.#sid !== undefined) this.#subscribe();
  }

  /** Takes a request that came to the path. */
  handleRequest(id: number, request: HttpRequest, from: Endpoint): void {
    const status = this.#take(request, from);
    if (status !== 200) this.#host.dropped();
    this.#host.respond(id, { status, headers: [], body: new Uint8Array(0) });
  }

  #take(request: HttpRequest, from: Endpoint): number {
    const { address } = this.#service?.to ?? { address: undefined };
    if (request.path !== this.path || address === undefined) return NOT_FOUND;
    if (withoutZone(from.address) !== withoutZone(address)) return NOT_FOUND;
    const event = decodeEvent(request);
    if (typeof event === "string") return genaStatus(event);
    const { sid, sequence, properties } = event;
    if (this.#sid === undefined && this.#isAsking) this.#sid = sid;
    if (sid !== this.#sid) return NOT_MINE;
    if (sequence < this.#nextSequence) return NOT_MINE;
    const isNext = sequence === this.#nextSequence;
    this.#nextSequence = sequence + 1;
    if (!isNext) this.#host.missed();
    this.#host.changed(properties);
    const mayTell = sequence === 0 || !isNext || "ExternalIPAddress" in properties;
    if (mayTell) this.#doubtAt ??= this.#host.now() + DOUBT_MS;
    return 200;
  }

  #subscribe(): void {
    this.#queue.add({
      name: "subscribe",
      isOptional: true,
      run: () => this.#ask(),
      fail: () => this.#forget(),
    });
  }

  *#ask(): Steps<Ending> {
    const service = this.#service, listensAt = this.#listensAt;
    if (!service || !listensAt) return "done";
    const { to, eventPath = "/" } = service;
    const before = this.#sid;
    const callback = `http://${formatEndpoint(listensAt)}${this.path}`;
    this.#isAsking = true;
    const request = before === undefined
      ? encodeSubscribe(eventPath, callback, TIMEOUT_SECONDS)
      : encodeResubscribe(eventPath, before, TIMEOUT_SECONDS);
    const result = yield { to, request, ...LIMITS };
    this.#isAsking = false;
    const subscribed = result.ok ? decodeSubscribed(result) : "not-gena";
    if (service !== this.#service) {
      // Nobody wants it any more, and it would last.
      if (typeof subscribed === "object") this.#unsubscribe(service, subscribed.sid);
      return "done";
    }
    if (typeof subscribed === "string") {
      this.#forget();
      // One that has run out there is asked for anew.
      if (before === undefined) this.#isRefused = true;
      else this.#subscribe();
      return "done";
    }
    const { sid, timeoutSeconds = TIMEOUT_SECONDS } = subscribed;
    if (sid !== this.#sid) this.#nextSequence = 0;
    this.#sid = sid;
    this.#renewAt = this.#host.now() + Math.max(MIN_RENEWAL_MS, timeoutSeconds * 500);
    return "done";
  }

  #unsubscribe({ to, eventPath = "/" }: ServiceAt, sid: string): void {
    this.#queue.add({
      name: "unsubscribe",
      needsNoDevice: true,
      *run(): Steps<Ending> {
        yield { to, request: encodeUnsubscribe(eventPath, sid), ...LIMITS };
        return "done";
      },
      fail: () => {},
    });
  }

  #forget(): void {
    this.#sid = undefined;
    this.#nextSequence = 0;
    this.#renewAt = this.#doubtAt = undefined;
    this.#isAsking = false;
  }
}
