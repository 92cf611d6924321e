/**
 * A mapping of {@linkcode PcpClient} or {@linkcode NatPmpClient}, as the application holds it.
 *
 * @module
 */
import type { Connection, Held, MappingMachine, MappingUpdate } from "./connection.ts";
import type { WaitOptions } from "./wait.ts";

/** What a handle needs of the connection. */
type HandleConnection<T> = Pick<Connection<T, MappingMachine>, "renew" | "abandon" | "revoke">;

/**
 * A mapping at the gateway, with all that its protocol tells. Closing it deletes it there;
 * iterating it tells what happens to it from then on.
 */
export class MappingHandle<T> implements AsyncDisposable, AsyncIterable<MappingUpdate<T>> {
  readonly #connection: HandleConnection<T>;
  readonly #held: Held<T>;

  /** Made by the clients. */
  constructor(connection: HandleConnection<T>, held: Held<T>) {
    this.#connection = connection;
    this.#held = held;
  }

  /** The mapping as the gateway granted it last. */
  get mapping(): T {
    return this.#held.mapping!;
  }

  /**
   * Renews early, for `lifetimeSeconds` where given.
   *
   * @throws {NatError} `refused`, `no-answer`, `closed`. The mapping is not lost by that.
   */
  renew(lifetimeSeconds?: number, options: WaitOptions = {}): Promise<void> {
    return this.#connection.renew(this.#held, lifetimeSeconds, options);
  }

  /** Leaves the mapping at the gateway until its lifetime is over, unrenewed. */
  release(): void {
    this.#connection.abandon(this.#held);
  }

  /** Deletes the mapping. Never rejects: what the gateway does not delete ends by itself. */
  close(): Promise<void> {
    return this.#connection.revoke(this.#held);
  }

  /** {@linkcode MappingHandle.close}, for `await using`. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  /** Calls back with each event from here on. Returns what ends that. */
  onEvent(listener: (event: MappingUpdate<T>) => void): () => void {
    return this.#held.events.listen(listener);
  }

  /** What has happened since it was handed out, and what happens. Ends when the mapping is over. */
  [Symbol.asyncIterator](): AsyncIterableIterator<MappingUpdate<T>> {
    return this.#held.events.read();
  }
}
