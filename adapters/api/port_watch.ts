/**
 * A watched port, as the application holds it.
 *
 * @module
 */
import type { MappingId } from "../../core/mapping.ts";
import type { Assignment, MapperEvent, PortRequest } from "../../core/portmap/managed.ts";
import { EventStream } from "./events.ts";
import { withOptionNames } from "./options.ts";
import type { MapperConnection } from "./port_mapping.ts";

/**
 * A port that is mapped at every gateway of this host, with all the addresses by which it can be
 * reached. Iterating it tells them whole: those of now, then the new set at each change. Closing it
 * deletes what was made.
 *
 * @example
 * ```ts
 * import { Nat } from "@natkit/natkit";
 * import { startGateway } from "@natkit/natkit/testing";
 *
 * await using gateway = await startGateway({ listen: "127.0.0.1", port: 0 });
 * await using nat = await Nat.open({ gateway: gateway.endpoint });
 * await using watch = await nat.watch(25565);
 * for await (const assignments of watch) {
 *   const outside = assignments.find(({ via }) => via !== "local");
 *   if (!outside) continue; // the local addresses are known before a gateway has answered
 *   console.assert(outside.port === 25565 && watch.assignments.includes(outside));
 *   break;
 * }
 * ```
 */
export class PortWatch implements AsyncDisposable, AsyncIterable<readonly Assignment[]> {
  readonly #connection: MapperConnection;
  readonly #id: MappingId;
  readonly #sets: EventStream<readonly Assignment[]> = new EventStream((_, newer) => newer);
  #assignments: readonly Assignment[] = [];
  #closing: Promise<void> | undefined;

  /** Made by {@linkcode Nat.watch}. */
  constructor(connection: MapperConnection, request: PortRequest) {
    this.#connection = connection;
    this.#id = connection.follow(
      (mapper, now) => withOptionNames(() => mapper.watch(request, now)),
      {
        onEvent: (told) => {
          const event = told as MapperEvent;
          if (event.type !== "assignments") return;
          this.#assignments = event.assignments;
          this.#sets.push(event.assignments);
        },
        onEnd: () => {
          this.#assignments = [];
          this.#sets.end();
        },
      },
    );
  }

  /** The addresses by which the port can be reached, as they were told last; none once it is closed. */
  get assignments(): readonly Assignment[] {
    return this.#assignments;
  }

  /** Calls back with the whole set at each change from here on. Returns what ends that. */
  onChange(listener: (assignments: readonly Assignment[]) => void): () => void {
    return this.#sets.listen(listener);
  }

  /** Deletes what was made at the gateways. Never rejects: what they do not delete ends by itself. */
  close(): Promise<void> {
    return this.#closing ??= this.#connection.unfollow(this.#id);
  }

  /** {@linkcode PortWatch.close}, for `await using`. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  /** The set as it was told first, or to a later reader as it is; then each new one, to the end. */
  [Symbol.asyncIterator](): AsyncIterableIterator<readonly Assignment[]> {
    return this.#sets.read(this.#assignments);
  }
}
