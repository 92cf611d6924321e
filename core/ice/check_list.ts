/**
 * The check list (RFC 8445 §6.1.2): pairs of a socket of ours and an endpoint of the peer, in what
 * state each is, and which one is checked next.
 *
 * A reflexive candidate of ours is checked from its base, so a pair knows the base alone; pairs that
 * differ in nothing else are one (§6.1.2.4).
 *
 * @module
 */
import type { Endpoint, Instant } from "../machine.ts";
import { type Candidate, pairPriority } from "./candidate.ts";

/** RFC 8445 §6.1.2.6. */
export type PairState = "frozen" | "waiting" | "in-progress" | "succeeded" | "failed";

/** A socket of ours from which checks leave. */
export interface Base {
  /** The socket's key. */
  readonly socket: string;
  /** Where it is bound. */
  readonly local: Endpoint;
  /** The priority of its host candidate. */
  readonly priority: number;
  /** The foundation of its host candidate. */
  readonly foundation: string;
}

/** One pair. */
export interface Pair {
  /** Our end. */
  readonly base: Base;
  /** The peer's end. */
  readonly remote: Candidate;
  /** Set by the list. */
  priority: bigint;
  /** What is known of it. */
  state: PairState;
  /** Whether the controlling peer wants it, be it checked already or not. */
  isNominated: boolean;
  /** Our endpoint as the peer sees it, once a check has told. */
  mapped: Endpoint | undefined;
  /** When a check of the peer has asked for one of ours last. */
  triggeredAt: Instant;
}

/** How many pairs there may be (RFC 8445 §6.1.2.5). */
const MAX_PAIRS = 100;

function keyOf(socket: string, remote: Endpoint): string {
  return `${socket} ${remote.address} ${remote.port}`;
}

/** The pairs of one session. */
export class CheckList {
  readonly #pairs = new Map<string, Pair>();
  /** Those that a check of the peer has asked for; first come, first served (§6.1.4.1). */
  readonly #triggered: Pair[] = [];
  #isControlling = true;

  /** The pairs, best first. */
  get pairs(): readonly Pair[] {
    return [...this.#pairs.values()].sort((a, b) => Number(b.priority - a.priority));
  }

  /** How many there are in a state. */
  count(state: PairState): number {
    let count = 0;
    for (const pair of this.#pairs.values()) if (pair.state === state) count++;
    return count;
  }

  /** Whether a check waits to be sent. */
  get hasWork(): boolean {
    return this.#triggered.length > 0 || this.count("waiting") > 0 || this.count("frozen") > 0;
  }

  /** The role decides the priorities. */
  setRole(isControlling: boolean): void {
    this.#isControlling = isControlling;
    for (const pair of this.#pairs.values()) pair.priority = this.#priority(pair);
  }

  /** The pair of a socket and an endpoint. */
  find(socket: string, remote: Endpoint): Pair | undefined {
    return this.#pairs.get(keyOf(socket, remote));
  }

  /**
   * Adds a pair, or finds it. One for which there is no room takes the place of the worst that was
   * not checked yet, if that is worse; else it is not added.
   *
   * @param isHeard Whether the peer was heard there: it then takes that of one where it was not, even
   *   if that is better.
   */
  add(base: Base, remote: Candidate, isHeard = false): Pair | undefined {
    const known = this.find(base.socket, remote);
    if (known) return known;
    const pair: Pair = {
      base,
      remote,
      priority: this.#priority({ base, remote }),
      state: "frozen",
      isNominated: false,
      mapped: undefined,
      triggeredAt: -Infinity,
    };
    const isFull = this.#pairs.size >= MAX_PAIRS;
    if (isFull && !this.#makeRoom(isHeard ? undefined : pair.priority)) return undefined;
    // A new foundation is looked at at once, one of which a pair has succeeded too (RFC 8838 §12).
    const foundation = foundationOf(pair);
    const alike = [...this.#pairs.values()].filter((other) => foundationOf(other) === foundation);
    if (alike.length === 0 || alike.some(({ state }) => state === "succeeded")) {
      pair.state = "waiting";
    }
    this.#pairs.set(keyOf(base.socket, remote), pair);
    return pair;
  }

  /** Queues a check before all others; one that is queued already stays where it is. */
  trigger(pair: Pair): void {
    if (pair.state !== "succeeded") pair.state = "waiting";
    if (!this.#triggered.includes(pair)) this.#triggered.push(pair);
  }

  /** Takes what is to be checked next, and whether the peer asked for it. */
  next(): { readonly pair: Pair; readonly isTriggered: boolean } | undefined {
    const triggered = this.#triggered.shift();
    if (triggered) return { pair: triggered, isTriggered: true };
    const pairs = this.pairs;
    const waiting = pairs.find(({ state }) => state === "waiting");
    const pair = waiting ?? pairs.find((one) =>
      one.state === "frozen" &&
      !pairs.some((other) => other.state === "in-progress" && isAlike(one, other))
    ) ?? pairs.find(({ state }) => state === "frozen");
    return pair && { pair, isTriggered: false };
  }

  /** Notes that a check succeeded: those of the same foundation are looked at too (§7.2.5.3.3). */
  succeed(pair: Pair): void {
    pair.state = "succeeded";
    for (const other of this.#pairs.values()) {
      if (other.state === "frozen" && isAlike(other, pair)) other.state = "waiting";
    }
  }

  /** Tries those that have failed once more. */
  retry(): void {
    for (const pair of this.#pairs.values()) if (pair.state === "failed") pair.state = "waiting";
  }

  /** Forgets the pairs of a socket that is gone. */
  leave(socket: string): void {
    for (const pair of [...this.#pairs.values()]) {
      if (pair.base.socket === socket) this.#forget(pair);
    }
  }

  /** Forgets all pairs. */
  clear(): void {
    this.#pairs.clear();
    this.#triggered.length = 0;
  }

  /** Makes room for a pair of this priority, or for any. */
  #makeRoom(priority: bigint | undefined): boolean {
    const isHeard = priority === undefined;
    const worst = this.pairs.findLast(({ state, triggeredAt }) =>
      state !== "succeeded" && !(isHeard && triggeredAt > -Infinity)
    );
    if (!worst || (!isHeard && worst.priority >= priority)) return false;
    this.#forget(worst);
    return true;
  }

  #forget(pair: Pair): void {
    this.#pairs.delete(keyOf(pair.base.socket, pair.remote));
    const place = this.#triggered.indexOf(pair);
    if (place >= 0) this.#triggered.splice(place, 1);
  }

  #priority({ base, remote }: Pick<Pair, "base" | "remote">): bigint {
    return this.#isControlling
      ? pairPriority(base.priority, remote.priority)
      : pairPriority(remote.priority, base.priority);
  }
}

function foundationOf({ base, remote }: Pair): string {
  return `${base.foundation} ${remote.foundation}`;
}

function isAlike(a: Pair, b: Pair): boolean {
  return foundationOf(a) === foundationOf(b);
}
