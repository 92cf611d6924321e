/**
 * Freed external ports that nobody but their last holder may have for a while, so that nobody
 * takes over another host's traffic by having its mapping deleted (RFC 6887 §15, PCP-S-54). The
 * last holder is known by internal address, internal port and nonce.
 *
 * @module
 */
import { equalBytes } from "../bytes.ts";
import type { Instant } from "../machine.ts";
import { Timers } from "../timers.ts";

/** A freed port. */
export interface FreedPort<P> {
  /** The pool it belongs to. */
  readonly pool: P;
  /** The external port. */
  readonly port: number;
  /** Its last holder's internal address. */
  readonly internalAddress: string;
  /** Its last holder's internal port. */
  readonly internalPort: number;
  /** Its last holder's nonce, where there was one. */
  readonly nonce: Uint8Array | undefined;
}

/** The freed ports of a table, at most `limit` of them. */
export class Quarantine<P> {
  #byPool = new Map<P, Map<number, FreedPort<P>>>();
  #ends = new Timers<FreedPort<P>>();
  #limit: number;

  /** @param limit Where there are more, those go first whose time is over first. */
  constructor(limit: number) {
    this.#limit = limit;
  }

  /** How many ports are in it. */
  get size(): number {
    return this.#ends.size;
  }

  /** Puts a port in, and returns the one that had to leave for it, if any. */
  add(freed: FreedPort<P>, until: Instant): FreedPort<P> | undefined {
    let ports = this.#byPool.get(freed.pool);
    if (!ports) this.#byPool.set(freed.pool, ports = new Map());
    ports.set(freed.port, freed);
    this.#ends.set(freed, until, "free an external port");
    return this.#ends.size > this.#limit ? this.#pop(Infinity) : undefined;
  }

  /** The port, where it is in quarantine. */
  get(pool: P, port: number): FreedPort<P> | undefined {
    return this.#byPool.get(pool)?.get(port);
  }

  /** Takes a port out. */
  delete(freed: FreedPort<P>): void {
    this.#ends.delete(freed);
    const ports = this.#byPool.get(freed.pool);
    ports?.delete(freed.port);
    if (ports?.size === 0) this.#byPool.delete(freed.pool);
  }

  /** Takes out a port whose time is over at `now`; call until undefined. */
  popDue(now: Instant): FreedPort<P> | undefined {
    return this.#pop(now);
  }

  /** All freed ports. */
  all(): FreedPort<P>[] {
    return [...this.#byPool.values()].flatMap((ports) => [...ports.values()]);
  }

  /** Forgets all. */
  clear(): void {
    this.#byPool.clear();
    this.#ends.clear();
  }

  #pop(now: Instant): FreedPort<P> | undefined {
    const freed = this.#ends.popDue(now);
    if (freed) this.delete(freed);
    return freed;
  }
}

/**
 * Whether whoever asks is the last holder. A protocol without nonces has only the internal
 * endpoint to show.
 */
export function isLastHolder<P>(
  freed: FreedPort<P>,
  internalAddress: string,
  internalPort: number,
  nonce: Uint8Array | undefined,
): boolean {
  return freed.internalAddress === internalAddress && freed.internalPort === internalPort &&
    (nonce === undefined || freed.nonce === undefined || equalBytes(nonce, freed.nonce));
}
