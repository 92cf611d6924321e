/**
 * One mapping machine on real sockets, with promises for its requests: what `Nat`, `PcpClient` and
 * `NatPmpClient` have in common. Whichever machine it is, its events have the same shape.
 *
 * @module
 */
import { NatError } from "../../core/errors.ts";
import { familyOf } from "../../core/ip.ts";
import type { Endpoint, Instant } from "../../core/machine.ts";
import type { MappingId } from "../../core/mapping.ts";
import { openAnnouncements } from "../announcements.ts";
import { pickLocalAddress } from "../discovery/mod.ts";
import { Driver } from "../driver.ts";
import type { Runtime, UdpSocket } from "../runtime.ts";
import { zoneOf } from "../udp.ts";
import { attemptsError } from "./attempts_error.ts";
import { EventStream } from "./events.ts";
import type {
  LinkMachine,
  LinkOptions,
  LinkRequest,
  MappingMachine,
  MappingUpdate,
} from "./link_types.ts";
import { type Settle, waitFor, type WaitOptions } from "./wait.ts";

/** How long `close` waits for a gateway to confirm deletions, milliseconds. */
const CLOSE_TIMEOUT_MS = 1500;

/** A request of the application: first a promise, then a handle that follows the mapping. */
export class Held<T> {
  /** Its id in the machine; another one after the gateway changed. */
  id: MappingId = 0;
  /** The mapping as it was told last. */
  mapping: T | undefined;
  /** What was told last. */
  last: MappingUpdate<T> | undefined;
  /** Set while the promise is pending. */
  settle: Settle<Held<T>> | undefined;
  /** What follows the grant. */
  readonly events: EventStream<MappingUpdate<T>> = new EventStream<MappingUpdate<T>>(mergeUpdates);
  /** Whether it is over. */
  isEnded = false;
}

/** Updates that a reader has not taken: the newer one, but `renewed` does not hide a change. */
function mergeUpdates<T>(older: MappingUpdate<T>, newer: MappingUpdate<T>): MappingUpdate<T> {
  return newer.type === "renewed" && (older.type === "moved" || older.type === "recovered")
    ? { ...newer, type: older.type }
    : newer;
}

/** The machine, its sockets and the application's requests at one gateway. */
export class Link<T, M extends MappingMachine> {
  /** The port of the socket to the gateway. */
  localPort = 0;
  readonly #runtime: Runtime;
  readonly #options: LinkOptions;
  readonly #kind: LinkMachine<M>;
  readonly #held: Map<MappingId, Held<T>> = new Map();
  readonly #requests: Map<Held<T>, LinkRequest<M>> = new Map();
  readonly #others: Set<(event: { readonly type: string }) => void> = new Set();
  #driver: Driver<unknown, M> | undefined;
  #machine: M | undefined;
  #gateway: Endpoint;
  #localAddress = "";
  #onIdle: (() => void) | undefined;
  #hasHeard = false;
  #isClosed = false;

  private constructor(options: LinkOptions, kind: LinkMachine<M>) {
    this.#runtime = options.runtime;
    this.#options = options;
    this.#gateway = options.gateway;
    this.#kind = kind;
  }

  /** Opens the socket to the gateway, listens for announcements and starts the machine. */
  static async open<T, M extends MappingMachine>(
    options: LinkOptions,
    kind: LinkMachine<M>,
  ): Promise<Link<T, M>> {
    const link = new Link<T, M>(options, kind);
    await link.#connect();
    return link;
  }

  /** The gateway. */
  get gateway(): Endpoint {
    return this.#gateway;
  }

  /** The address from which packets to the gateway leave. */
  get localAddress(): string {
    return this.#localAddress;
  }

  /**
   * Runs a command on the machine and sends what it makes.
   *
   * @throws {NatError} `closed`.
   */
  do<R>(command: (machine: M, now: Instant) => R): R {
    if (!this.#driver || this.#isClosed) {
      throw new NatError("closed", "Cannot use a gateway connection: it is closed");
    }
    return this.#driver.do(command);
  }

  /**
   * Makes a request and waits for its goal.
   *
   * @throws {TypeError | RangeError} Where the machine does not take the request.
   * @throws {NatError} Where it fails, or the time is up.
   */
  request(request: LinkRequest<M>, options: WaitOptions): Promise<Held<T>> {
    const held = new Held<T>();
    const onTimeout = () => this.#toError(held, request, undefined);
    return waitFor<Held<T>>(this.#runtime, options, onTimeout, (settle) => {
      held.settle = settle;
      this.#requests.set(held, request);
      try {
        this.#start(held, request);
      } catch (error) {
        this.#forget(held);
        throw error;
      }
      return (outcome) => {
        held.settle = undefined;
        if (outcome === "settled") return;
        this.#forget(held);
        // The gateway may have granted what we never heard of: tell it that nobody wants it.
        this.#driver?.do((machine, now) => machine.revoke(held.id, now));
      };
    });
  }

  /**
   * Gives a command whose answer is an event that belongs to no mapping.
   *
   * @param read The answer in an event, or undefined; it throws where the event is a failure.
   */
  answer<R>(
    options: WaitOptions,
    timeoutReason: () => unknown,
    command: (machine: M, now: Instant) => void,
    read: (event: { readonly type: string }) => R | undefined,
  ): Promise<R> {
    return waitFor<R>(this.#runtime, options, timeoutReason, (settle) => {
      const other = (event: { readonly type: string }) => {
        try {
          const answer = read(event);
          if (answer !== undefined) settle.resolve(answer);
        } catch (error) {
          settle.reject(error);
        }
      };
      this.#others.add(other);
      this.do(command);
      return () => this.#others.delete(other);
    });
  }

  /**
   * Renews early and waits for the answer.
   *
   * @throws {NatError} `no-answer`, `closed`.
   */
  async renew(
    held: Held<T>,
    lifetimeSeconds: number | undefined,
    options: WaitOptions,
  ): Promise<void> {
    const outcome = await this.#next(
      held,
      options,
      ["renewed", "moved", "recovered", "lost", "unmapped", "failed"],
      (machine, now) => machine.renew(held.id, lifetimeSeconds, now),
    );
    if (outcome === "lost") throw new NatError("no-answer", "Cannot renew a mapping: it is lost");
    if (outcome === "unmapped" || outcome === "failed") {
      throw new NatError("closed", "Cannot renew a mapping: it is over");
    }
  }

  /** Deletes the mapping and waits until the gateway did, or is past asking. Never rejects. */
  async revoke(held: Held<T>): Promise<void> {
    if (held.isEnded) return;
    const options = { timeoutMs: CLOSE_TIMEOUT_MS };
    const command = (machine: M, now: Instant) => machine.revoke(held.id, now);
    await this.#next(held, options, ["unmapped", "failed"], command).catch(() => undefined);
    this.#forget(held);
  }

  /** Leaves the mapping to its lifetime. */
  abandon(held: Held<T>): void {
    if (held.isEnded) return;
    this.do((machine, now) => machine.abandon(held.id, now));
    this.#forget(held);
  }

  /**
   * The host's network changed. From another address of this host the same gateway is asked for
   * everything again; at another gateway everything is asked for anew.
   */
  async moveTo(gateway: Endpoint): Promise<void> {
    if (this.#isClosed) return;
    const isSameGateway = gateway.address === this.#gateway.address;
    this.#gateway = gateway;
    if (isSameGateway) {
      const socket = await this.#openSocket(this.#driver!);
      const { address } = socket.local;
      if (address === this.#localAddress) return;
      this.#localAddress = address;
      this.do((machine, now) => this.#kind.networkChanged(machine, address, now));
      return;
    }
    await this.#connect();
    this.#held.clear();
    for (const [held, request] of this.#requests) {
      if (!held.settle) {
        held.events.push({ type: "lost", id: held.id, failure: { kind: "unreachable" } });
      }
      this.#start(held, request);
    }
  }

  /**
   * Deletes what is held and closes the sockets. Waits a moment for the answers of a gateway that
   * has ever given one.
   */
  async close(): Promise<void> {
    const driver = this.#driver;
    if (this.#isClosed || this.#onIdle || !driver) return;
    const options = { timeoutMs: this.#hasHeard ? CLOSE_TIMEOUT_MS : 0 };
    await waitFor<void>(this.#runtime, options, () => undefined, (settle) => {
      this.#onIdle = () => settle.resolve();
      if (driver.do((machine, now) => (machine.close(now), machine.isIdle))) settle.resolve();
      return () => {};
    }).catch(() => undefined);
    this.#isClosed = true;
    for (const held of [...this.#requests.keys()]) {
      const { settle } = held;
      this.#forget(held);
      settle?.reject(new NatError("closed", "Cannot wait for a mapping: the context was closed"));
    }
    driver.close();
  }

  async #connect(): Promise<void> {
    const driver: Driver<unknown, M> = new Driver<unknown, M>(this.#runtime, (event) => {
      if (this.#driver === driver) this.#onEvent(event as { readonly type: string });
    });
    try {
      const socket = await this.#openSocket(driver);
      const machine = this.#kind.create(socket.local.address, this.#gateway);
      this.#localAddress = socket.local.address;
      this.localPort = socket.local.port;
      this.#machine = machine;
    } catch (error) {
      driver.close();
      throw error;
    }
    this.#driver?.close();
    this.#driver = driver;
    driver.start(this.#machine);
    if (this.#options.announcements ?? true) await this.#listen(driver);
  }

  /** Over IPv6 a mapping is for a global address, though the gateway is link-local (PCP-C-24). */
  #addressToBind(): string | undefined {
    const { bindAddress } = this.#options;
    const { address } = this.#gateway;
    if (bindAddress !== undefined || familyOf(address) === 4) return bindAddress;
    const zone = zoneOf(address);
    return zone === undefined
      ? undefined
      : pickLocalAddress(this.#runtime.interfaces(), 6, { interface: zone });
  }

  #openSocket(driver: Driver<unknown, M>): Promise<UdpSocket> {
    const bindAddress = this.#addressToBind();
    return driver.open("client", {
      connect: this.#gateway,
      ...(bindAddress === undefined ? {} : { local: { address: bindAddress, port: 0 } }),
    });
  }

  /** Best effort: renewals find a restarted gateway too, only later. */
  async #listen(driver: Driver<unknown, M>): Promise<void> {
    const family = familyOf(this.#gateway.address);
    const own = this.#localAddress;
    const via = family === 4 ? own : zoneOf(this.#gateway.address) ??
      this.#runtime.interfaces().find((entry) => entry.address === own)?.name;
    await openAnnouncements((options) => driver.listen(options), {
      family,
      ...(via === undefined ? {} : { interface: via }),
    });
  }

  #start(held: Held<T>, request: LinkRequest<M>): void {
    this.do((machine, now) => {
      held.id = request.start(machine, now);
      this.#held.set(held.id, held);
    });
  }

  #toError(held: Held<T>, request: LinkRequest<M>, event: unknown): NatError {
    if (this.#onIdle) return new NatError("closed", `Cannot ${request.what}: it was closed`);
    const now = this.#runtime.now();
    const failure = this.#kind.explain(this.#machine!, held.id, event, request.since, now);
    return attemptsError(request.what, failure);
  }

  #forget(held: Held<T>): void {
    this.#held.delete(held.id);
    this.#requests.delete(held);
    held.isEnded = true;
    held.events.end();
  }

  #onEvent(event: { readonly type: string }): void {
    this.#hasHeard ||= !("failure" in event) && event.type !== "failed";
    if ("id" in event) {
      const held = this.#held.get(event.id as MappingId);
      if (held) this.#onUpdate(held, event as MappingUpdate<T>);
    } else {
      for (const other of [...this.#others]) other(event);
    }
    if (this.#machine?.isIdle) this.#onIdle?.();
  }

  #onUpdate(held: Held<T>, update: MappingUpdate<T>): void {
    const { settle } = held;
    const request = this.#requests.get(held)!;
    const isGrant = "mapping" in update;
    const isOver = update.type === "failed" || update.type === "unmapped";
    if (isGrant) held.mapping = update.mapping;
    held.last = update;
    // A grant by another gateway ends what the loss of the old one began.
    if (!settle) {
      held.events.push(update.type === "mapped" ? { ...update, type: "recovered" } : update);
    }
    if (isOver) this.#forget(held);
    if (!settle) return;
    const isReached = request.goal === "mapped"
      ? isGrant
      : update.type === "unmapped" && !update.failure;
    if (isReached) settle.resolve(held);
    else if (isOver) settle.reject(this.#toError(held, request, update));
  }

  /** Gives a command and waits for one of some updates of a mapping. */
  #next(
    held: Held<T>,
    options: WaitOptions,
    types: readonly MappingUpdate<T>["type"][],
    command: (machine: M, now: Instant) => void,
  ): Promise<MappingUpdate<T>["type"]> {
    const timeoutReason = () => new NatError("no-answer", "The gateway did not answer in time");
    return waitFor(this.#runtime, options, timeoutReason, (settle) => {
      if (held.isEnded) throw new NatError("closed", "Cannot use a mapping: it is over");
      const reader = held.events.read();
      const take = async () => {
        for await (const { type } of reader) if (types.includes(type)) return settle.resolve(type);
        settle.reject(new NatError("closed", "Cannot use a mapping: it is over"));
      };
      void take();
      this.do(command);
      return () => void reader.return?.();
    });
  }
}
