/**
 * A port that is open at the gateway, as the application holds it.
 *
 * @module
 */
import { isBehindAnotherNat } from "../../core/cidr.ts";
import type { Via } from "../../core/errors.ts";
import type { Endpoint } from "../../core/machine.ts";
import { describeFailure, type Transport } from "../../core/mapping.ts";
import type { GrantedMapping } from "../../core/portmap/managed.ts";
import { gatewayText } from "../../core/portmap/gateway.ts";
import type { PortMapper } from "../../core/portmap/mapper.ts";
import type { Connection, Held, MappingUpdate } from "./connection.ts";
import { convertEvents } from "./events.ts";
import type { WaitOptions } from "./wait.ts";

/** What happens to an open port. */
export type PortEvent =
  /** The gateway renewed it, all the same as before. */
  | { readonly type: "renewed"; readonly mapping: GrantedMapping }
  /** Its external endpoint is another one. */
  | { readonly type: "moved"; readonly mapping: GrantedMapping }
  /** It is back after `lost`. */
  | { readonly type: "recovered"; readonly mapping: GrantedMapping }
  /** The gateway did not renew it; it is open to its end, and natkit goes on asking. */
  | { readonly type: "renewal-failed"; readonly reason: string }
  /** The gateway holds it no more; natkit goes on trying. */
  | { readonly type: "lost"; readonly reason: string }
  /** It is over: deleted at our wish, or its wanted time has passed. */
  | {
    readonly type: "unmapped";
    readonly reason: "revoked" | "expired";
    /** Why the gateway keeps it until its lifetime ends, where it did not delete it. */
    readonly failure?: string;
  };

/** A port mapper on real sockets. */
export type MapperConnection = Connection<GrantedMapping, PortMapper>;

/**
 * A mapping at the gateway. Closing it deletes it there; iterating it tells what happens to it from
 * the moment it was handed out. Properties tell the present state.
 *
 * @example
 * ```ts
 * import { Nat } from "@natkit/natkit";
 * import { startGateway } from "@natkit/natkit/testing";
 *
 * await using gateway = await startGateway({ listen: "127.0.0.1", port: 0 });
 * await using nat = await Nat.open({ gateway: gateway.endpoint });
 * await using port = await nat.map(25565);
 * console.assert(port.state === "open" && port.via === "pcp" && port.internal.port === 25565);
 * ```
 */
export class PortMapping implements AsyncDisposable, AsyncIterable<PortEvent> {
  /** How long opening it took, gateway discovery included, milliseconds. */
  readonly elapsedMs: number;
  readonly #connection: MapperConnection;
  readonly #held: Held<GrantedMapping>;
  #owned: AsyncDisposable | undefined;

  /** Made by {@linkcode Nat.map}, {@linkcode Nat.peer} and {@linkcode openPort}. */
  constructor(connection: MapperConnection, held: Held<GrantedMapping>, elapsedMs: number) {
    this.#connection = connection;
    this.#held = held;
    this.elapsedMs = elapsedMs;
  }

  /** Disposes of `owned` too, once the mapping is closed or released. */
  owning(owned: AsyncDisposable): this {
    this.#owned = owned;
    return this;
  }

  /**
   * Whether the gateway holds it: `"open"`; `"lost"` while natkit tries to get it back; `"closed"`
   * for good.
   */
  get state(): "open" | "lost" | "closed" {
    const { state } = this.#held;
    return state === "open" || state === "lost" ? state : "closed";
  }

  /** All of it as plain data, as it was granted last; whether that still holds says `state`. */
  get mapping(): GrantedMapping {
    return this.#held.mapping!;
  }

  /** Inbound (`"map"`) or outbound (`"peer"`). */
  get kind(): "map" | "peer" {
    return this.mapping.kind;
  }

  /** The transport protocol. */
  get protocol(): Transport {
    return this.mapping.protocol;
  }

  /** The protocol by which the gateway was asked. */
  get via(): Via {
    return this.mapping.via;
  }

  /** The gateway, as text that starts with its address. */
  get gateway(): string {
    return gatewayText(this.mapping.gateway);
  }

  /** Where packets arrive on this host. */
  get internal(): Endpoint {
    return this.mapping.internal;
  }

  /**
   * Where others send to, while `state` is `"open"`; after that, where they did. Behind two NATs it is
   * of the outer one, where that maps the port on; else {@linkcode isDoubleNat} says so.
   */
  get external(): Endpoint {
    return this.mapping.external;
  }

  /** What the gateway gave, where the one above it maps that on. */
  get gatewayExternal(): Endpoint | undefined {
    return this.mapping.gatewayExternal;
  }

  /** The peer of an outbound mapping. */
  get remote(): Endpoint | undefined {
    return this.mapping.remote;
  }

  /** Granted lifetime, seconds; renewed long before it ends. */
  get lifetimeSeconds(): number {
    return this.mapping.lifetimeSeconds;
  }

  /**
   * Whether the external address is itself behind another NAT (private, shared…), so that the port
   * cannot be reached from the Internet.
   */
  get isDoubleNat(): boolean {
    return isBehindAnotherNat(this.external.address);
  }

  /**
   * Renews early, for `lifetimeSeconds` where given.
   *
   * @throws {NatError} `refused`, `no-answer`, `closed`. The mapping is not lost by that.
   */
  renew(lifetimeSeconds?: number, options: WaitOptions = {}): Promise<void> {
    return this.#connection.renew(this.#held, lifetimeSeconds, options);
  }

  /**
   * Lets the process end by itself though the port is open: {@linkcode Nat.unref}, for all ports of
   * the same context, which share its sockets.
   */
  unref(): this {
    this.#connection.unref();
    return this;
  }

  /** Keeps the process alive while the context is open: {@linkcode Nat.ref}. */
  ref(): this {
    this.#connection.ref();
    return this;
  }

  /** Leaves the mapping at the gateway until its lifetime is over, unrenewed. */
  async release(): Promise<void> {
    this.#connection.abandon(this.#held);
    await this.#owned?.[Symbol.asyncDispose]();
  }

  /** Deletes the mapping. Never rejects: what the gateway does not delete ends by itself. */
  async close(): Promise<void> {
    await this.#connection.revoke(this.#held);
    await this.#owned?.[Symbol.asyncDispose]();
  }

  /** {@linkcode PortMapping.close}, for `await using`. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  /** Calls back with each event from here on. Returns what ends that. */
  onEvent(listener: (event: PortEvent) => void): () => void {
    return this.#held.events.listen((update) => {
      const event = toPortEvent(update);
      if (event) listener(event);
    });
  }

  /** What has happened since it was handed out, and what happens. Ends when the mapping is over. */
  [Symbol.asyncIterator](): AsyncIterableIterator<PortEvent> {
    return convertEvents(this.#held.events.read(), toPortEvent);
  }
}

function toPortEvent(update: MappingUpdate<GrantedMapping>): PortEvent | undefined {
  switch (update.type) {
    case "renewed":
    case "moved":
    case "recovered":
      return { type: update.type, mapping: update.mapping };
    case "renewal-failed":
    case "lost":
      return { type: update.type, reason: describeFailure(update.failure) };
    case "unmapped":
      return {
        type: "unmapped",
        reason: update.reason,
        ...(update.failure ? { failure: describeFailure(update.failure) } : {}),
      };
    default:
      return undefined;
  }
}
