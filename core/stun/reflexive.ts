/**
 * The reflexive endpoint of one UDP socket as STUN servers see it, kept: each is asked over and over,
 * which keeps the NAT's binding (RFC 8489 §14.1, RFC 8445 §11), and tells when it has changed.
 *
 * A NAT that shows each server another endpoint would show a peer yet another one: where those of one
 * family differ, none is told. Before that is believed, who answered earlier is asked again, since the
 * endpoint may have changed in between.
 *
 * It lists no sockets: it sends by `"client"`, and takes the servers' answers alone of what comes there.
 *
 * @module
 */
import { checkAddress, checkInteger, checkPort } from "../check.ts";
import { type Family, familyOf, isSameEndpoint } from "../ip.ts";
import type { Action, DebugTimeout, Endpoint, Instant, Machine } from "../machine.ts";
import { Outbox } from "../outbox.ts";
import type { RandomSource } from "../random.ts";
import { earliest, Timers } from "../timers.ts";
import { StunClient, type StunClientEvent } from "./client.ts";

/** How long after an answer a server is asked again, milliseconds (Tr, RFC 8445 §11). */
const KEEPALIVE_MS = 15_000;
/** How long one that failed is left alone, milliseconds. */
const REST_MS = 60_000;
/** How many servers are asked. */
const MAX_SERVERS = 8;
/** How many transactions are known by their answers, of each server the last four. */
const MAX_TRANSACTIONS = 32;

/** How a keeper is made. */
export interface ReflexiveKeeperOptions {
  /** Transaction ids: unguessable on a real network. */
  readonly random: RandomSource;
  /** Whom to ask, eight at most. */
  readonly servers?: readonly Endpoint[];
}

/** What a keeper tells. */
export interface ReflexiveEvent {
  /** Names it. */
  readonly type: "reflexive";
  /** All of them, at most one a family; told at each change. */
  readonly endpoints: readonly Endpoint[];
}

interface Asked {
  readonly server: Endpoint;
  readonly family: Family;
  /** The request under way. */
  request: number | undefined;
  /** What it saw last. */
  seen: Endpoint | undefined;
  /** It may see another one by now. */
  isDoubtful: boolean;
}

/**
 * Keeps the reflexive endpoints of a socket, as a machine (see `core/machine.ts`).
 *
 * @example
 * ```ts
 * import { ReflexiveKeeper } from "@natkit/natkit/stun";
 * import { seededRandom } from "@natkit/natkit/core";
 * const server = { address: "198.51.100.1", port: 3478 };
 * const keeper = new ReflexiveKeeper({ random: seededRandom(1), servers: [server] });
 * keeper.ask(0);
 * const first = keeper.poll();
 * console.assert(first?.type === "send" && first.to === server);
 * ```
 */
export class ReflexiveKeeper implements Machine<ReflexiveEvent> {
  readonly #client: StunClient;
  readonly #outbox: Outbox<ReflexiveEvent> = new Outbox<ReflexiveEvent>();
  readonly #timers: Timers<Asked> = new Timers();
  #asked: readonly Asked[] = [];
  #told: readonly Endpoint[] = [];
  /** The last transactions: an answer to a second sending comes when the first has been answered. */
  readonly #transactions: string[] = [];
  #isClosed = false;

  /**
   * Makes one that has not asked.
   *
   * @throws {TypeError | RangeError} Where a server is no endpoint, or there are too many.
   */
  constructor({ random, servers = [] }: ReflexiveKeeperOptions) {
    this.#client = new StunClient({ random });
    this.#asked = this.#merge(servers);
  }

  /** Counters. */
  get stats(): StunClient["stats"] {
    return this.#client.stats;
  }

  /** What was told last. */
  get endpoints(): readonly Endpoint[] {
    return this.#told;
  }

  /**
   * These are asked, and no others; what is known of those that stay is kept.
   *
   * @throws {TypeError | RangeError} Where one is no endpoint, or there are too many.
   */
  setServers(servers: readonly Endpoint[], now: Instant): void {
    const next = this.#merge(servers);
    this.#outbox.touch(now);
    const left = this.#asked.filter((asked) => !next.includes(asked));
    this.#asked = next;
    for (const asked of left) {
      this.#timers.delete(asked);
      if (asked.request !== undefined) this.#client.cancel(asked.request, now);
    }
    for (const asked of next) if (!this.#isWaiting(asked)) this.#ask(asked, now);
    this.#drain(now);
    this.#tell();
  }

  /** Asks all at once: it begins, or the network is another one. */
  ask(now: Instant): void {
    this.#outbox.touch(now);
    for (const asked of this.#asked) this.#askAnew(asked, now);
    this.#drain(now);
  }

  /** Asks no more. */
  close(now: Instant): void {
    this.#outbox.touch(now);
    this.#isClosed = true;
    this.#timers.clear();
    this.#client.close(now);
    this.#drain(now);
  }

  /** {@inheritDoc Machine.handleDatagram} */
  handleDatagram(data: Uint8Array, from: Endpoint, socket: string, now: Instant): boolean {
    this.#outbox.touch(now);
    const isTaken = this.#client.handleDatagram(data, from, socket, now);
    this.#drain(now);
    const isLate = this.#asked.some(({ server }) => isSameEndpoint(server, from)) &&
      this.#transactions.includes(transactionOf(data));
    return isTaken || isLate;
  }

  /** {@inheritDoc Machine.handleUnreachable} */
  handleUnreachable(to: Endpoint, socket: string, now: Instant): void {
    this.#outbox.touch(now);
    this.#client.handleUnreachable(to, socket, now);
    this.#drain(now);
  }

  /** {@inheritDoc Machine.handleTimeout} */
  handleTimeout(now: Instant): void {
    this.#outbox.touch(now);
    for (const asked of this.#timers.takeDue(now)) this.#ask(asked, now);
    this.#client.handleTimeout(now);
    this.#drain(now);
  }

  /** {@inheritDoc Machine.nextTimeout} */
  nextTimeout(): Instant | undefined {
    return this.debugTimeout()?.at;
  }

  /** {@inheritDoc Machine.debugTimeout} */
  debugTimeout(): DebugTimeout | undefined {
    const at = this.#outbox.wakeAt();
    if (at !== undefined) return { at, reason: "output waits" };
    return earliest(this.#timers.next(), this.#client.debugTimeout());
  }

  /** {@inheritDoc Machine.poll} */
  poll(): Action<ReflexiveEvent> | undefined {
    return this.#outbox.poll();
  }

  /** These servers, each once, with what is known of them. */
  #merge(servers: readonly Endpoint[]): Asked[] {
    const merged: Asked[] = [];
    for (const { address, port } of servers) {
      const server = {
        address: checkAddress("servers", address),
        port: checkPort("servers", port),
      };
      const isSame = (one: Asked) => isSameEndpoint(one.server, server);
      if (merged.some(isSame)) continue;
      const family = familyOf(server.address);
      merged.push(
        this.#asked.find(isSame) ??
          { server, family, request: undefined, seen: undefined, isDoubtful: false },
      );
    }
    checkInteger("servers.length", merged.length, 0, MAX_SERVERS);
    return merged;
  }

  /** Whether it is being asked, or will be. */
  #isWaiting(asked: Asked): boolean {
    return asked.request !== undefined || this.#timers.at(asked) !== undefined;
  }

  /** What is under way may have passed the NAT of before. */
  #askAnew(asked: Asked, now: Instant): void {
    const { request } = asked;
    this.#ask(asked, now);
    if (request !== undefined) this.#client.cancel(request, now);
  }

  #ask(asked: Asked, now: Instant): void {
    if (this.#isClosed) return;
    this.#timers.delete(asked);
    asked.request = this.#client.request({ server: asked.server }, now);
  }

  #drain(now: Instant): void {
    for (let action = this.#client.poll(); action; action = this.#client.poll()) {
      if (action.type === "event") this.#answered(action.event, now);
      else if (action.type === "send") {
        const { address, port } = action.to;
        this.#note(transactionOf(action.data));
        this.#outbox.send(action.socket, action.to, action.data, `${address} ${port}`);
      }
    }
  }

  #note(transaction: string): void {
    if (this.#transactions.includes(transaction)) return;
    this.#transactions.push(transaction);
    if (this.#transactions.length > MAX_TRANSACTIONS) this.#transactions.shift();
  }

  #answered(event: StunClientEvent, now: Instant): void {
    const asked = this.#asked.find(({ request }) => request === event.id);
    if (!asked || this.#isClosed) return;
    asked.request = undefined;
    asked.isDoubtful = false;
    const before = asked.seen;
    const seen = seenBy(event, asked.family);
    asked.seen = seen;
    this.#timers.set(asked, now + (seen ? KEEPALIVE_MS : REST_MS), "ask again");
    const isOther = seen !== undefined && !(before && isSameEndpoint(before, seen));
    if (isOther) this.#doubtOthers(asked, seen, now);
    this.#tell();
  }

  /** Who has seen another endpoint before is asked whether it does yet. */
  #doubtOthers({ family }: Asked, seen: Endpoint, now: Instant): void {
    for (const other of this.#asked) {
      if (other.family !== family || !other.seen || isSameEndpoint(other.seen, seen)) continue;
      other.isDoubtful = true;
      this.#askAnew(other, now);
    }
  }

  #tell(): void {
    const endpoints = ([4, 6] as const).flatMap((family) => {
      const seen = this.#asked.flatMap((one) =>
        one.family === family && one.seen && !one.isDoubtful ? one.seen : []
      );
      const [first, ...others] = seen;
      return first && others.every((one) => isSameEndpoint(one, first)) ? first : [];
    });
    const isSame = endpoints.length === this.#told.length &&
      endpoints.every((one, i) => isSameEndpoint(one, this.#told[i]!));
    if (isSame) return;
    this.#told = endpoints;
    this.#outbox.emit({ type: "reflexive", endpoints }, "reflexive");
  }
}

/** What a server has seen of the socket; undefined where that can be no endpoint of it. */
function seenBy(event: StunClientEvent, family: Family): Endpoint | undefined {
  if (event.type === "failed") return undefined;
  const { xorMappedAddress, mappedAddress } = event.attributes;
  const { address, port } = (xorMappedAddress ?? mappedAddress)!;
  return port !== 0 && familyOf(address) === family ? { address, port } : undefined;
}

/** The transaction ID, octets 8 to 20 (RFC 8489 §5). */
function transactionOf(data: Uint8Array): string {
  return data.subarray(8, 20).join();
}
