/**
 * The leases of a client by id and by key. Under one key there is at most one that is wanted and
 * one that is being deleted: who revokes a mapping and asks for it again has both for a while.
 *
 * @module
 */
import { equalBytes } from "../bytes.ts";
import type { MappingId } from "../mapping.ts";
import { PCP_NONCE_LENGTH, PCP_NONCE_OFFSET } from "./codec.ts";
import { internalOf, keyOf, overlaps } from "./key.ts";
import type { Lease } from "./lease.ts";
import type { Wish } from "./request.ts";

/** The leases of one client. */
export class LeaseBook {
  readonly #byId = new Map<MappingId, Lease>();
  readonly #wanted = new Map<string, Lease>();
  readonly #leaving = new Map<string, Lease>();
  /** Those of the wanted ones that are for several ports. */
  readonly #sets = new Set<Lease>();

  /** How many there are. */
  get size(): number {
    return this.#byId.size;
  }

  /** The lease of an id. */
  get(id: MappingId): Lease | undefined {
    return this.#byId.get(id);
  }

  /** All, in the order of their ids. */
  all(): Iterable<Lease> {
    return this.#byId.values();
  }

  /** Those that are wanted. */
  wanted(): Iterable<Lease> {
    return this.#wanted.values();
  }

  /** Those that are being deleted. */
  leaving(): Iterable<Lease> {
    return this.#leaving.values();
  }

  /** The lease that is wanted under a key. */
  find(key: string): Lease | undefined {
    return this.#wanted.get(key);
  }

  /** Whether a key has a lease that is being deleted. */
  isLeaving(key: string): boolean {
    return this.#leaving.has(key);
  }

  /**
   * What a mapping stands for has one owner (PCP-C-34, RFC 7753 §6).
   *
   * @throws {TypeError} Where the wish, or one of its ports, has a lease that is wanted.
   */
  refuseTwice(wish: Wish): void {
    if (this.find(keyOf(wish))) {
      throw new TypeError(`Cannot request a mapping twice: ${internalOf(wish)} has one`);
    }
    if (wish.kind !== "map") return;
    // A single port can overlap with a set only.
    for (const { wish: other } of wish.portSet ? this.#wanted.values() : this.#sets) {
      if (!overlaps(wish, other)) continue;
      throw new TypeError(
        `Cannot request ${internalOf(wish)} as the ports overlap those of ${internalOf(other)}`,
      );
    }
  }

  /** The lease of that key whose nonce stands in the packet, compared in place. */
  match(key: string, data: Uint8Array): Lease | "unmatched" | "wrong-nonce" {
    const wanted = this.#wanted.get(key), leaving = this.#leaving.get(key);
    // One that waits for its predecessor's deletion has asked for nothing, nonce or not.
    if (leaving && hasNonce(leaving, data)) return leaving;
    if (wanted && hasNonce(wanted, data)) return wanted;
    return wanted || leaving ? "wrong-nonce" : "unmatched";
  }

  /** Takes a lease in as wanted. */
  add(lease: Lease): void {
    this.#byId.set(lease.id, lease);
    this.#wanted.set(lease.key, lease);
    if (lease.wish.portSet) this.#sets.add(lease);
  }

  /** From wanted to being deleted. */
  retire(lease: Lease): void {
    this.#wanted.delete(lease.key);
    this.#sets.delete(lease);
    this.#leaving.set(lease.key, lease);
  }

  /** Takes a lease out; returns the one that waits for it to be gone. */
  remove(lease: Lease): Lease | undefined {
    this.#byId.delete(lease.id);
    this.#sets.delete(lease);
    if (this.#wanted.get(lease.key) === lease) this.#wanted.delete(lease.key);
    if (this.#leaving.get(lease.key) !== lease) return undefined;
    this.#leaving.delete(lease.key);
    const successor = this.#wanted.get(lease.key);
    return successor?.phase === "waiting" ? successor : undefined;
  }
}

function hasNonce(lease: Lease, data: Uint8Array): boolean {
  return equalBytes(lease.nonce, data, 0, PCP_NONCE_OFFSET, PCP_NONCE_LENGTH);
}
