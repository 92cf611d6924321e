/**
 * How the requests of a client reach its server: which of several addresses is asked (RFC 7488 §3),
 * and when a request that got no answer leaves again (RFC 6887 §8.1.1, PCP-C-09).
 *
 * One address is in use. It stays in use as long as it answers. When it has been asked often
 * enough in vain, or ICMP tells that nothing is there, it is exhausted and the next address that
 * is not exhausted takes its place. An address that answers makes the others fresh again. When
 * all are exhausted the list starts over, and the requests in flight have failed.
 *
 * @module
 */
import { pcpRetransmissionTimeMs } from "../backoff.ts";
import { withoutZone } from "../ip.ts";
import { EpochRecord } from "../lease/epoch.ts";
import type { Endpoint, Instant } from "../machine.ts";
import type { MappingId } from "../mapping.ts";
import type { RandomSource } from "../random.ts";
import { Deadline } from "../timers.ts";
import { isEpochValid } from "./epoch.ts";

/** How long all addresses are left alone after none answered, milliseconds (RFC 7488 §3(5)). */
export const EXHAUSTED_WAIT_MS = 900_000;

/** When the two extra requests of a fast start leave, milliseconds after the first. */
export const FAST_START_MS: readonly [number, number] = [250, 750];

/**
 * The schedule of one request: the RFC's, drawn from the first sending on: 0, 3, 9, 21, 45 s… each
 * with its jitter. With a fast start two more are put into the first gap, at 250 and 750 ms,
 * so that one lost datagram costs a quarter of a second and not three.
 */
export class Retransmission {
  #sendings = 0;
  #startedAt: Instant | undefined;
  #intervalMs: number | undefined;
  #regularAt: Instant = -Infinity;
  readonly #isFast: boolean;

  /** @param isFast Whether it starts fast. */
  constructor(isFast: boolean) {
    this.#isFast = isFast;
  }

  /** Counts a sending at `now` and returns when the next is due. */
  next(random: RandomSource, now: Instant): Instant {
    const startedAt = this.#startedAt ??= now;
    const early = this.#isFast ? FAST_START_MS[this.#sendings++] : undefined;
    if (now >= this.#regularAt) {
      this.#intervalMs = pcpRetransmissionTimeMs(this.#intervalMs, random);
      this.#regularAt = now + this.#intervalMs;
    }
    // A caller that comes late has missed the extra ones: they are not made up for.
    return early !== undefined && startedAt + early > now ? startedAt + early : this.#regularAt;
  }
}

/** A request in flight, by when it is sent again. */
export class Request extends Deadline {
  /** The mapping that it is for; 0: the ANNOUNCE. */
  readonly owner: MappingId;
  /** Its bytes: a retransmission is the same. */
  readonly packet: Uint8Array;
  /** Its schedule; absent for a renewal, which its lease's schedule sends again. */
  retransmission: Retransmission | undefined;
  /** How many times it was sent to the address in use. */
  sends = 0;
  /** What the server could hold and know of its mapping before it was sent last; not of a deletion. */
  before: { readonly mayExistUntil: Instant; readonly isNonceKnown: boolean } | undefined;

  /** Makes one that has not been sent. */
  constructor(
    owner: MappingId,
    packet: Uint8Array,
    retransmission: Retransmission | undefined,
  ) {
    super();
    this.owner = owner;
    this.packet = packet;
    this.retransmission = retransmission;
  }
}

/** The addresses of one server. */
export class ServerList {
  /** The epoch of the address in use. */
  readonly epoch: EpochRecord = new EpochRecord(isEpochValid);
  /** Whether the address in use has answered since it was taken into use. */
  hasAnswered = false;
  /** Whether it was asked for something, or has let a deletion pass, since then. */
  wasAsked = false;
  readonly #list: readonly Endpoint[];
  #current = 0;
  #reported = 0;
  #exhausted = new Set<number>();

  /** @param list In the order of preference; at least one. */
  constructor(list: readonly Endpoint[]) {
    this.#list = list;
  }

  /** The address in use. */
  get current(): Endpoint {
    return this.#list[this.#current]!;
  }

  /** How many there are. */
  get size(): number {
    return this.#list.length;
  }

  /** Whose datagram it is: the address in use, another one of the list, or a stranger's. */
  match(from: Endpoint): "current" | "other" | undefined {
    if (isSame(this.current, from)) return "current";
    return this.#list.some((server) => isSame(server, from)) ? "other" : undefined;
  }

  /** The address in use has answered. True where another one had been reported before. */
  answered(): boolean {
    this.hasAnswered = true;
    if (this.#exhausted.size > 0) this.#exhausted.clear();
    if (this.#reported === this.#current) return false;
    this.#reported = this.#current;
    return true;
  }

  /** Gives the address in use up. False where none is left; the list starts over then. */
  exhaust(): boolean {
    this.#exhausted.add(this.#current);
    const next = this.#list.findIndex((_, index) => !this.#exhausted.has(index));
    if (next < 0) this.reset();
    else this.#take(next);
    return next >= 0;
  }

  /** Starts over with the first address. */
  reset(): void {
    this.#exhausted.clear();
    this.#take(0);
  }

  #take(index: number): void {
    this.#current = index;
    this.hasAnswered = this.wasAsked = false;
    this.epoch.forget();
  }
}

/** The same address and port; a zone that only one of the two names does not tell them apart. */
function isSame(server: Endpoint, from: Endpoint): boolean {
  if (server.port !== from.port) return false;
  if (server.address === from.address) return true;
  const a = withoutZone(server.address), b = withoutZone(from.address);
  return a === b && (a === server.address || b === from.address);
}
