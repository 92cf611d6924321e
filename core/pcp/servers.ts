/**
 * Which of a server's several addresses is asked (RFC 7488 §3).
 *
 * One address is in use. It stays in use as long as it answers. When it has been asked often
 * enough in vain, or ICMP tells that nothing is there, it is exhausted and the next address that
 * is not exhausted takes its place. An address that answers makes the others fresh again. When
 * all are exhausted the list starts over, and the caller waits before it asks again.
 *
 * @module
 */
import { withoutZone } from "../ip.ts";
import type { Endpoint } from "../machine.ts";
import { EpochRecord } from "./epoch.ts";

/** How long all addresses are left alone after none answered, milliseconds (RFC 7488 §3(5)). */
export const EXHAUSTED_WAIT_MS = 900_000;

/** The addresses of one server. */
export class ServerList {
  readonly #list: readonly Endpoint[];
  #current = 0;
  #told = 0;
  #exhausted = new Set<number>();
  /** The epoch of the address in use. */
  readonly epoch: EpochRecord = new EpochRecord();

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

  /** The address in use has answered. True where another one had been told before. */
  answered(): boolean {
    if (this.#exhausted.size > 0) this.#exhausted.clear();
    if (this.#told === this.#current) return false;
    this.#told = this.#current;
    return true;
  }

  /** Gives the address in use up. False where none is left; the list starts over then. */
  exhaust(): boolean {
    this.#exhausted.add(this.#current);
    this.epoch.forget();
    const next = this.#list.findIndex((_, index) => !this.#exhausted.has(index));
    if (next >= 0) {
      this.#current = next;
      return true;
    }
    this.reset();
    return false;
  }

  /** Starts over with the first address. */
  reset(): void {
    this.#exhausted.clear();
    this.#current = 0;
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
