/**
 * Relayed candidates (RFC 8445 §5.1.1.2): what goes by a TURN server looks to the agent like a socket
 * of its own, under a key of its own.
 *
 * @module
 */
import { checkAddress, checkPort } from "../check.ts";
import type { Action, DebugTimeout, Endpoint, Instant } from "../machine.ts";
import type { RandomSource } from "../random.ts";
import { TurnClient, type TurnEvent } from "../stun/turn.ts";
import { canPair } from "./candidate.ts";
import { earliest } from "../timers.ts";

/** A TURN server, and who we are there. */
export interface RelayServer {
  /** Where it is. */
  readonly server: Endpoint;
  /** Who we are there. */
  readonly username: string;
  /** The password of that. */
  readonly password: string;
}

/** Begins the keys of relays. */
const RELAY = "relay";
/** So many servers are asked at most. */
const MAX_RELAYS = 4;

interface Relay {
  readonly key: string;
  readonly options: RelayServer;
  client: TurnClient | undefined;
  /** The socket by which all goes. */
  carrier: string | undefined;
  state: "new" | "allocating" | "allocated" | "over";
}

/** What became of a relay, or came by it. */
export type RelayHappening =
  | {
    readonly type: "send";
    readonly socket: string;
    readonly to: Endpoint;
    readonly data: Uint8Array;
  }
  | { readonly key: string; readonly event: TurnEvent };

/** Whether a key is a relay's. */
export function isRelayKey(key: string): boolean {
  return key.startsWith(RELAY);
}

/** The relays of one agent. */
export class Relays {
  readonly #random: RandomSource;
  readonly #relays: readonly Relay[];

  /**
   * Makes them; each begins once there is a socket for it.
   *
   * @throws {TypeError | RangeError} On a server that is none.
   */
  constructor(servers: readonly RelayServer[], random: RandomSource) {
    this.#random = random;
    this.#relays = servers.slice(0, MAX_RELAYS).map((options, i) => {
      checkAddress("relays", options.server.address);
      checkPort("relays", options.server.port);
      return { key: `${RELAY}${i}`, options, client: undefined, carrier: undefined, state: "new" };
    });
  }

  /** Whether one may still get its address. */
  get isPending(): boolean {
    return this.#relays.some(({ state }) => state === "allocating");
  }

  /** Asks for an address by this socket, at each server that it reaches and that was not asked. */
  begin(socket: string, local: Endpoint, now: Instant): void {
    for (const relay of this.#relays) {
      const { server, username, password } = relay.options;
      if (relay.state !== "new" || !canPair(local.address, server.address)) continue;
      const random = this.#random;
      relay.client = new TurnClient({ server, username, password, random, socket });
      relay.carrier = socket;
      relay.state = "allocating";
      relay.client.allocate(now);
    }
  }

  /** The socket by which a relay's packets go. */
  carrierOf(key: string): string | undefined {
    return this.#relays.find((relay) => relay.key === key)?.carrier;
  }

  /** Lets what comes from an address in. */
  permit(key: string, address: string, now: Instant): void {
    this.#allocated(key)?.permit(address, now);
  }

  /** Has a peer's data cost less. */
  bind(key: string, peer: Endpoint, now: Instant): void {
    this.#allocated(key)?.bindChannel(peer, now);
  }

  /** Sends to a peer; nothing leaves before its address is let in. */
  send(key: string, to: Endpoint, data: Uint8Array, now: Instant): void {
    this.#allocated(key)?.send(to, data, now);
  }

  /** Takes a datagram; false where it is none of a relay's. */
  handleDatagram(data: Uint8Array, from: Endpoint, socket: string, now: Instant): boolean {
    // Which server it is with in the end the client knows: one may send it to another.
    return this.#relays.some(({ client }) => client?.handleDatagram(data, from, socket, now));
  }

  /** Does what is due. */
  handleTimeout(now: Instant): void {
    for (const { client } of this.#relays) {
      const next = client?.nextTimeout();
      if (next !== undefined && next <= now) client!.handleTimeout(now);
    }
  }

  /** What is due next. */
  debugTimeout(): DebugTimeout | undefined {
    return earliest(...this.#relays.map(({ client }) => client?.debugTimeout()));
  }

  /** Gives addresses back, all but that of `keep`. */
  close(keep: string | undefined, now: Instant): void {
    for (const relay of this.#relays) {
      if (relay.key === keep || relay.state === "over") continue;
      relay.client?.close(now);
      relay.state = "over";
    }
  }

  /** Ends those that a socket has carried which is gone; answers their keys. */
  leave(socket: string, now: Instant): string[] {
    const carried = this.#relays.filter((one) => one.carrier === socket && one.state !== "over");
    for (const relay of carried) {
      relay.client!.close(now);
      while (relay.client!.poll());
      relay.state = "over";
    }
    return carried.map(({ key }) => key);
  }

  /** What waits to be done or told; undefined where there is nothing. */
  poll(): RelayHappening | undefined {
    for (const relay of this.#relays) {
      const action: Action<TurnEvent> | undefined = relay.client?.poll();
      if (action?.type === "send") return action;
      if (action?.type !== "event") continue;
      if (action.event.type === "allocated") relay.state = "allocated";
      if (action.event.type === "failed") relay.state = "over";
      return { key: relay.key, event: action.event };
    }
    return undefined;
  }

  #allocated(key: string): TurnClient | undefined {
    const relay = this.#relays.find((one) => one.key === key);
    return relay?.state === "allocated" ? relay.client : undefined;
  }
}
