/**
 * A watched port, as the application holds it, alone or with the socket that is bound to it.
 *
 * @module
 */
import type { Endpoint } from "../../core/machine.ts";
import type { MappingId } from "../../core/mapping.ts";
import type { Assignment, MapperEvent, WatchRequest } from "../../core/portmap/managed.ts";
import { EventStream } from "./events.ts";
import { withOptionNames } from "./options.ts";
import type { SeenSocket } from "./seen_socket.ts";
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
  readonly #onClose: (() => void) | undefined;

  /**
   * Made by {@linkcode Nat.watch}, {@linkcode Nat.bindUdp} and {@linkcode Nat.listenTcp}.
   *
   * @param onClose Is called when it is closed, whoever closes it.
   */
  constructor(connection: MapperConnection, request: WatchRequest, onClose?: () => void) {
    this.#onClose = onClose;
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
          this.#onClose?.();
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

  /**
   * @internal
   * STUN servers see the socket by these.
   */
  protected seen(endpoints: readonly Endpoint[]): void {
    this.#connection.do((mapper, now) => mapper.reflexiveChanged(this.#id, endpoints, now));
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

/**
 * A UDP socket whose port is mapped at every gateway: a {@linkcode PortWatch} that sends, too. Where
 * STUN servers are named, how they see it belongs to the set. Closing it closes the socket.
 */
export class MappedUdpSocket extends PortWatch {
  readonly #socket: SeenSocket;

  /**
   * Made by {@linkcode Nat.bindUdp}.
   *
   * @param onClose Is called when it is closed, whoever closes it.
   */
  constructor(
    connection: MapperConnection,
    request: WatchRequest,
    socket: SeenSocket,
    onClose: () => void,
  ) {
    super(connection, request, onClose);
    this.#socket = socket;
    socket.onSeen = (endpoints) => this.seen(endpoints);
  }

  /** Where it is bound. */
  get local(): Endpoint {
    return this.#socket.local;
  }

  /**
   * Sends one datagram, after those of the calls before; what fails is told to `onError`. `data`
   * must not change afterwards.
   */
  send(data: Uint8Array, to: Endpoint): void {
    this.#socket.send(data, to);
  }
}

/**
 * A TCP server whose port is mapped at every gateway: a {@linkcode PortWatch} with the server.
 * Closing it closes the server where natkit made it listen.
 */
export class MappedTcpServer<S> extends PortWatch {
  /** The server. */
  readonly server: S;
  /** Where it listens. */
  readonly local: Endpoint;

  /** Made by {@linkcode Nat.listenTcp}. */
  constructor(
    connection: MapperConnection,
    request: WatchRequest,
    { server, local, close }: {
      readonly server: S;
      readonly local: Endpoint;
      readonly close: (() => void) | undefined;
    },
  ) {
    super(connection, request, close);
    this.server = server;
    this.local = local;
  }
}
