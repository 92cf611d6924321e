/**
 * A mapping of {@linkcode PcpClient} or {@linkcode NatPmpClient}, as the application holds it.
 *
 * @module
 */
import type { Held, Link } from "./link.ts";
import type { MappingMachine, MappingUpdate } from "./link_types.ts";
import type { WaitOptions } from "./wait.ts";

/**
 * A mapping at the gateway, with all that its protocol tells. Closing it deletes it there;
 * iterating it tells what happens to it from then on.
 */
export class MappingHandle<T> implements AsyncDisposable, AsyncIterable<MappingUpdate<T>> {
  readonly #link: Pick<Link<T, MappingMachine>, "renew" | "abandon" | "revoke">;
  readonly #held: Held<T>;

  /** Made by the clients. */
  constructor(link: Pick<Link<T, MappingMachine>, "renew" | "abandon" | "revoke">, held: Held<T>) {
    this.#link = link;
    this.#held = held;
  }

  /** The mapping as the gateway granted it last. */
  get mapping(): T {
    return this.#held.mapping!;
  }

  /**
   * Renews early, for `lifetimeSeconds` where given.
   *
   * @throws {NatError} `no-answer`, `closed`. The mapping is not lost by that.
   */
  renew(lifetimeSeconds?: number, options: WaitOptions = {}): Promise<void> {
    return this.#link.renew(this.#held, lifetimeSeconds, options);
  }

  /** Leaves the mapping at the gateway until its lifetime is over, unrenewed. */
  release(): void {
    this.#link.abandon(this.#held);
  }

  /** Deletes the mapping. Never rejects: what the gateway does not delete ends by itself. */
  close(): Promise<void> {
    return this.#link.revoke(this.#held);
  }

  /** {@linkcode MappingHandle.close}, for `await using`. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  /** What happens from now on. Ends when the mapping is over. */
  [Symbol.asyncIterator](): AsyncIterator<MappingUpdate<T>> {
    return this.#held.events.read();
  }
}
