/**
 * A search at one place of this host, by one socket: what leaves when, and where to; and who is near
 * enough to be believed. What comes of the answers is the caller's: a list of devices (`search.ts`),
 * or one gateway's (`finder.ts`).
 *
 * What is searched for goes out one target after the other, never two at once: some devices mix up
 * searches that come together (quirk 23). Each goes to the gateway alone first, which also lets its
 * answer through this host's firewall (quirk 26), then to the group, since some hear nothing else
 * (quirk 16).
 *
 * @module
 */
import { classify, contains, isLoopback, parseCidr } from "../cidr.ts";
import { familyOf, withoutZone, zoneOf } from "../ip.ts";
import type { Endpoint, Instant } from "../machine.ts";
import { encodeSearch, SSDP_PORT, ssdpGroup } from "./ssdp.ts";

/** A step of a search. */
export interface SearchStep {
  /** When it leaves, milliseconds from the beginning; in order. */
  readonly atMs: number;
  /** What is searched for. */
  readonly target: string;
}

/** Where a search is made, and how. */
export interface PlaceSearchOptions {
  /** This host's address there, with its zone where it is link-local. */
  readonly local: string;
  /** The gateway there, and where it hears searches: asked before the group. */
  readonly gateway?: Endpoint | undefined;
  /** The port of the group. @default {1900} */
  readonly port?: number;
  /** The name of the interface, by which the group is reached over IPv6. */
  readonly interface?: string | undefined;
  /** The prefixes of the network there; undefined where they are not known. */
  readonly networks?: readonly string[] | undefined;
  /** The steps, one at least. */
  readonly steps: readonly SearchStep[];
  /** How long devices may take to answer the group, seconds. */
  readonly mx: number;
  /** Whether nobody but the gateway is asked. @default {false} */
  readonly isAlone?: boolean;
  /** Sends by the place's socket. */
  readonly send: (to: Endpoint, data: Uint8Array) => void;
}

/** From one step to the next at least, milliseconds. */
export const STEP_GAP_MS = 50;

/** A search at one place. */
export class PlaceSearch {
  /** Whether an address may be a device's there, for all that can be known here. */
  readonly isNear: (address: string) => boolean;
  readonly #options: PlaceSearchOptions;
  readonly #group: Endpoint | undefined;
  #startedAt: Instant = 0;
  /** How many steps have left; undefined where no search has begun. */
  #left: number | undefined;
  #nextAt: Instant | undefined;

  /**
   * Makes one that has not begun.
   *
   * @throws {TypeError} Where a network is no prefix.
   */
  constructor(options: PlaceSearchOptions) {
    const { local, port = SSDP_PORT, interface: name, isAlone } = options;
    const family = familyOf(local);
    const zone = family === 6 ? zoneOf(local) ?? name : undefined;
    const address = ssdpGroup(family);
    this.#options = options;
    this.#group = isAlone ? undefined : { address: zone ? `${address}%${zone}` : address, port };
    this.isNear = nearness(options);
  }

  /** Whether it has begun, and was not ended. */
  get hasBegun(): boolean {
    return this.#left !== undefined;
  }

  /** Begins, or starts over: the first step leaves. */
  start(now: Instant): void {
    this.#startedAt = now;
    this.#left = 0;
    this.#step(now);
  }

  /** Goes on with one whose first step has left already. */
  goOn(startedAt: Instant): void {
    this.#startedAt = startedAt;
    this.#left = 1;
    this.#await(startedAt);
  }

  /** Ends it. */
  stop(): void {
    this.#left = this.#nextAt = undefined;
  }

  /** When the next step is due; undefined where none is to come. */
  nextAt(): Instant | undefined {
    return this.#nextAt;
  }

  /** Lets the step leave that is due. */
  handleTimeout(now: Instant): void {
    if (this.#nextAt !== undefined && this.#nextAt <= now) this.#step(now);
  }

  #step(now: Instant): void {
    const { steps, gateway, mx, send } = this.#options;
    const { target } = steps[this.#left!++]!;
    if (gateway) send(gateway, encodeSearch({ host: gateway, target }));
    const group = this.#group;
    if (group) send(group, encodeSearch({ host: group, target, mx }));
    this.#await(now);
  }

  /** Sets when the next step is due, after one that left at `now`. */
  #await(now: Instant): void {
    const next = this.#options.steps[this.#left!];
    // A loop that woke up late sends no two at once.
    this.#nextAt = next && Math.max(this.#startedAt + next.atMs, now + STEP_GAP_MS);
  }
}

/** Whether addresses are of a place: the gateway and this host always are. */
function nearness({ local, gateway, networks }: PlaceSearchOptions): (address: string) => boolean {
  const family = familyOf(local);
  const prefixes = networks?.map((text) => {
    const prefix = parseCidr(text);
    if (prefix) return prefix;
    throw new TypeError(`'networks' must be prefixes: current value is "${text}"`);
  });
  // Where they are not known, a network is taken for as large as most are.
  const own = parseCidr(`${withoutZone(local)}/${family === 4 ? 24 : 64}`)!;
  const known = [local, gateway?.address ?? local].map(withoutZone);
  return (address) => {
    const bare = withoutZone(address);
    if (known.includes(bare)) return true;
    if (familyOf(bare) !== family) return false;
    if (isLoopback(bare)) return isLoopback(local);
    const kind = classify(bare);
    if (kind === "link-local" && family === 6) return true;
    if (prefixes) return prefixes.some((prefix) => contains(prefix, bare));
    return kind === "private" || kind === "unique-local" || kind === "link-local" ||
      contains(own, bare);
  };
}
