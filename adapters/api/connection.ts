/**
 * A mapping machine that a driver runs, with promises for its requests: what `Nat`, `PcpClient` and
 * `NatPmpClient` have in common. It decides nothing: a promise ends by what the machine tells of its
 * request, by the caller's time or by the caller's signal.
 *
 * @module
 */
import { NatError } from "../../core/errors.ts";
import { mergeMappingEvents } from "../../core/lease/events.ts";
import type { Instant, Machine } from "../../core/machine.ts";
import type { Failure, MappingEvent, MappingId } from "../../core/mapping.ts";
import type { Assignment } from "../../core/portmap/managed.ts";
import type { Driver } from "../driver.ts";
import type { Runtime } from "../runtime.ts";
import { attemptsError, type RequestFailure } from "./attempts_error.ts";
import { EventStream } from "./events.ts";
import { type Settle, waitFor, type WaitOptions } from "./wait.ts";

/** How long `close` waits for a gateway to confirm deletions, milliseconds. */
const CLOSE_TIMEOUT_MS = 1500;

/** What every mapping machine tells about one mapping; why one failed each tells in its own way. */
export type MappingUpdate<T> =
  | Exclude<MappingEvent<T>, { readonly type: "failed" }>
  | { readonly type: "failed"; readonly id: MappingId };

/** What a machine must offer to be driven by a {@linkcode Connection}. */
export interface MappingMachine extends Machine<unknown> {
  /** Nothing held, asked for or still to be told. */
  readonly isIdle: boolean;
  renew(id: MappingId, lifetimeSeconds: number | undefined, now: Instant): number;
  revoke(id: MappingId, now: Instant): void;
  abandon(id: MappingId, now: Instant): void;
  /** The caller's time is up: what is granted is told, though more might come. */
  tellNow?(id: MappingId, now: Instant): void;
  close(now: Instant): void;
}

/**
 * What a request that failed came to. `event` is what the machine told of it: absent where the
 * caller's time was up.
 */
export type Explain<M> = (
  machine: M,
  id: MappingId,
  event: unknown,
  since: Instant,
  now: Instant,
) => RequestFailure;

/** A request to a machine. */
export interface MachineRequest<M> {
  /** What is wanted: it is reached by a grant, or by a deletion. */
  readonly verb: "map" | "unmap";
  /** Of what, for the message of an error: `"port 6000/tcp"`. */
  readonly name: string;
  /** When the caller's operation began, which may be before the machine was made. */
  readonly since: Instant;
  /** Makes it. */
  start(machine: M, now: Instant): MappingId;
}

/** A request of the application: first a promise, then a handle that follows the mapping. */
export class Held<T> {
  readonly id: MappingId;
  /** What it is of, for the message of an error. */
  readonly name: string;
  /** The mapping as it was told last. */
  mapping: T | undefined;
  /** Where it stands. */
  state: "asked" | "open" | "lost" | "over" = "asked";
  /** What was told last. */
  last: MappingUpdate<T> | undefined;
  /** Set while the promise is pending. */
  settle: Settle<Held<T>> | undefined;
  /** What follows the grant. */
  readonly events: EventStream<MappingUpdate<T>> = new EventStream<MappingUpdate<T>>(
    mergeMappingEvents,
  );

  constructor(id: MappingId, name: string) {
    this.id = id;
    this.name = name;
  }
}

/** Who hears what a machine tells of one id. */
export interface Follower {
  /** Gets each event but the last. */
  onEvent(event: { readonly type: string }): void;
  /** It is over, or the connection is closed. */
  onEnd(): void;
}

/** A machine on real sockets, and the application's requests. */
export class Connection<T, M extends MappingMachine> {
  readonly #runtime: Runtime;
  readonly #explain: Explain<M>;
  /** Several may wait for one deletion. */
  readonly #held: Map<MappingId, Set<Held<T>>> = new Map();
  readonly #requests: Map<Held<T>, MachineRequest<M>> = new Map();
  readonly #followed: Map<MappingId, Follower> = new Map();
  readonly #others: Set<(event: { readonly type: string }) => void> = new Set();
  /** How each wait ends where the connection is closed. */
  readonly #waits: Set<() => void> = new Set();
  #driver: Driver<unknown, M> | undefined;
  #closing: Promise<void> | undefined;
  #hasHeard = false;
  #isClosed = false;

  constructor(runtime: Runtime, explain: Explain<M>) {
    this.#runtime = runtime;
    this.#explain = explain;
  }

  /** Whether it is closed: no command is taken any more. */
  get isClosed(): boolean {
    return this.#isClosed;
  }

  /** Takes the driver, whose machine runs or is about to. */
  attach(driver: Driver<unknown, M>): void {
    this.#driver = driver;
  }

  /**
   * Runs a command on the machine and sends what it makes.
   *
   * @throws {NatError} `closed`.
   */
  do<R>(command: (machine: M, now: Instant) => R): R {
    if (this.#isClosed) throw closedError("go on");
    return this.#driver!.do(command);
  }

  /**
   * Makes a request and waits for its goal.
   *
   * @throws {TypeError | RangeError} Where the machine does not take the request.
   * @throws {NatError} Where it fails, or the time is up. Then nothing of it goes on.
   */
  request(request: MachineRequest<M>, options: WaitOptions): Promise<Held<T>> {
    const what = `${request.verb} ${request.name}`;
    let held: Held<T> | undefined;
    const onTimeout = () => {
      this.do((machine, now) => machine.tellNow?.(held!.id, now));
      return this.#toError(held!, request, undefined);
    };
    return this.#wait<Held<T>>(what, options, onTimeout, (settle) => {
      this.do((machine, now) => {
        held = this.#hold(request.start(machine, now), request, settle);
      });
      settle.onEnd((isResolved) => {
        held!.settle = undefined;
        if (isResolved) return;
        this.#forget(held!);
        // The gateway may have granted what we never heard of: tell it that nobody wants it.
        if (!this.#held.has(held!.id)) this.#revokeQuietly(held!.id);
      });
    });
  }

  /**
   * Gives a command whose answer is told by events that belong to no request.
   *
   * @param what What is wanted, for the message of an error: `"tell the external address"`.
   * @param command Gives it.
   * @param read Settles where an event is the answer; what it throws rejects.
   */
  answer<R>(
    what: string,
    options: WaitOptions,
    timeoutReason: () => unknown,
    command: (machine: M, now: Instant, settle: Settle<R>) => void,
    read: (event: { readonly type: string }, settle: Settle<R>) => void,
  ): Promise<R> {
    return this.#wait<R>(what, options, timeoutReason, (settle) => {
      const hear = (event: { readonly type: string }) => {
        try {
          read(event, settle);
        } catch (error) {
          settle.reject(error);
        }
      };
      this.#others.add(hear);
      settle.onEnd(() => void this.#others.delete(hear));
      this.do((machine, now) => command(machine, now, settle));
    });
  }

  /**
   * Begins something whose events have a follower until `unmapped` tells its end.
   *
   * @throws {TypeError | RangeError} Where the machine does not take it.
   * @throws {NatError} `closed`.
   */
  follow(start: (machine: M, now: Instant) => MappingId, follower: Follower): MappingId {
    if (this.#closing) throw closedError("go on");
    return this.do((machine, now) => {
      const id = start(machine, now);
      this.#followed.set(id, follower);
      return id;
    });
  }

  /** Ends what {@linkcode follow} began, as {@linkcode revoke} does. Never rejects. */
  async unfollow(id: MappingId): Promise<void> {
    const follower = this.#followed.get(id);
    if (!follower) return;
    const options = { timeoutMs: CLOSE_TIMEOUT_MS };
    await waitFor<void>(this.#runtime, options, () => undefined, (settle) => {
      this.#followed.set(id, { onEvent() {}, onEnd: () => settle.resolve() });
      this.do((machine, now) => machine.revoke(id, now));
    }).catch(() => undefined);
    await this.#closing;
    this.#followed.delete(id);
    follower.onEnd();
  }

  /**
   * Renews early and waits for the answer to just that.
   *
   * @throws {NatError} `refused`, `no-answer`, `closed`. The mapping is not lost by that.
   */
  renew(
    held: Held<T>,
    lifetimeSeconds: number | undefined,
    options: WaitOptions,
  ): Promise<void> {
    const what = `renew ${held.name}`;
    if (held.state === "over") return Promise.reject(closedError(what));
    const since = this.#runtime.now();
    const failed = (event: { readonly failure: Failure }) => {
      const failure = this.#explain(
        this.#driver!.machine!,
        held.id,
        { type: "renewal-failed", ...event },
        since,
        this.#runtime.now(),
      );
      return attemptsError(what, failure, "");
    };
    const onTimeout = () => failed({ failure: { kind: "no-answer" } });
    return this.#wait<void>(what, options, onTimeout, (settle) => {
      let revision = Infinity;
      const take = (update: MappingUpdate<T>) => {
        if (!("revision" in update) || update.revision < revision) return;
        if (update.type === "renewal-failed") settle.reject(failed(update));
        else settle.resolve();
      };
      // What is refused at present is told in the same turn: it is looked at once the number is known.
      const early: MappingUpdate<T>[] = [];
      let hear = (update: MappingUpdate<T>): void => void early.push(update);
      const onEnd = () => settle.reject(closedError(what));
      settle.onEnd(held.events.listen((update) => hear(update), onEnd));
      revision = this.do((machine, now) => machine.renew(held.id, lifetimeSeconds, now));
      hear = take;
      early.forEach(take);
    });
  }

  /** Deletes the mapping and waits until the gateway did, or is past asking. Never rejects. */
  async revoke(held: Held<T>): Promise<void> {
    if (held.state === "over") return;
    const options = { timeoutMs: CLOSE_TIMEOUT_MS };
    await waitFor<void>(this.#runtime, options, () => undefined, (settle) => {
      settle.onEnd(held.events.listen(() => {}, () => settle.resolve()));
      this.do((machine, now) => machine.revoke(held.id, now));
    }).catch(() => undefined);
    // What closes everything waits for this deletion, too, and tells how it went.
    await this.#closing;
    this.#forget(held);
  }

  /** Leaves the mapping to its lifetime. */
  abandon(held: Held<T>): void {
    if (held.state === "over") return;
    this.do((machine, now) => machine.abandon(held.id, now));
    this.#forget(held);
  }

  /** Lets the process end though sockets are open. */
  unref(): void {
    this.#driver?.unref();
  }

  /** Keeps the process alive while they are, as at first. */
  ref(): void {
    this.#driver?.ref();
  }

  /**
   * Ends every wait, deletes what is held and closes the sockets. Waits a moment for the answers of
   * a gateway that has ever given one. A second call waits as the first does. Never rejects.
   */
  close(): Promise<void> {
    return this.#closing ??= this.#close();
  }

  async #close(): Promise<void> {
    const driver = this.#driver;
    for (const end of [...this.#waits]) end();
    if (!driver) return;
    const options = { timeoutMs: this.#hasHeard ? CLOSE_TIMEOUT_MS : 0 };
    await waitFor<void>(this.#runtime, options, () => undefined, (settle) => {
      // What is left to do last, such as the end of a subscription, ends without an event.
      driver.onSettled = () => {
        if (driver.machine!.isIdle) settle.resolve();
      };
      driver.do((machine, now) => machine.close(now));
    }).catch(() => undefined);
    this.#isClosed = true;
    for (const held of [...this.#requests.keys()]) this.#forget(held);
    for (const id of [...this.#followed.keys()]) this.#endFollowed(id);
    driver.close();
  }

  /** Takes what the machine tells. */
  onEvent(event: { readonly type: string }): void {
    this.#hasHeard ||= "mapping" in event || "address" in event ||
      ("assignments" in event && hasExternal(event.assignments as readonly Assignment[])) ||
      (event.type === "unmapped" && !("failure" in event));
    if ("id" in event && this.#held.has(event.id as MappingId)) {
      const update = event as MappingUpdate<T>;
      for (const held of [...this.#held.get(update.id)!]) this.#onUpdate(held, update);
    } else if ("id" in event && this.#followed.has(event.id as MappingId)) {
      const id = event.id as MappingId;
      if (event.type === "unmapped") this.#endFollowed(id);
      else this.#followed.get(id)!.onEvent(event);
    } else {
      for (const other of [...this.#others]) other(event);
    }
  }

  #endFollowed(id: MappingId): void {
    const follower = this.#followed.get(id)!;
    this.#followed.delete(id);
    follower.onEnd();
  }

  #hold(id: MappingId, request: MachineRequest<M>, settle: Settle<Held<T>>): Held<T> {
    const held = new Held<T>(id, request.name);
    held.settle = settle;
    const known = this.#held.get(id);
    if (known) known.add(held);
    else this.#held.set(id, new Set([held]));
    this.#requests.set(held, request);
    return held;
  }

  /** Waits for an answer; closing the connection ends that. */
  #wait<R>(
    what: string,
    options: WaitOptions,
    timeoutReason: () => unknown,
    begin: (settle: Settle<R>) => void,
  ): Promise<R> {
    return waitFor<R>(this.#runtime, options, timeoutReason, (settle) => {
      if (this.#closing) throw closedError(what);
      const onClose = () => settle.reject(closedError(what));
      this.#waits.add(onClose);
      settle.onEnd(() => void this.#waits.delete(onClose));
      begin(settle);
    });
  }

  #revokeQuietly(id: MappingId): void {
    if (!this.#isClosed) this.#driver?.do((machine, now) => machine.revoke(id, now));
  }

  #toError(held: Held<T>, request: MachineRequest<M>, event: unknown): NatError {
    const { machine } = this.#driver!;
    const now = this.#runtime.now();
    const failure = this.#explain(machine!, held.id, event, request.since, now);
    return attemptsError(`${request.verb} ${request.name}`, failure);
  }

  #forget(held: Held<T>): void {
    const all = this.#held.get(held.id);
    all?.delete(held);
    if (all?.size === 0) this.#held.delete(held.id);
    this.#requests.delete(held);
    held.state = "over";
    held.events.end();
  }

  #onUpdate(held: Held<T>, update: MappingUpdate<T>): void {
    const { settle } = held;
    const request = this.#requests.get(held)!;
    const isGrant = "mapping" in update;
    if (isGrant) {
      held.mapping = update.mapping;
      held.state = "open";
    } else if (update.type === "lost") held.state = "lost";
    held.last = update;
    const isFinal = update.type === "unmapped" || update.type === "failed";
    if (!settle) {
      held.events.push(update);
      if (isFinal && !("retryAt" in update)) this.#forget(held);
      return;
    }
    const isReached = request.verb === "map"
      ? isGrant
      : update.type === "unmapped" && !update.failure;
    if (isReached) {
      settle.resolve(held);
      if (isFinal) this.#forget(held);
    } else if (isFinal) {
      // Whether the machine would go on or not: whoever is told no has asked for nothing more.
      settle.reject(this.#toError(held, request, update));
    }
  }
}

/** Whether a gateway has given something. */
function hasExternal(assignments: readonly Assignment[]): boolean {
  return assignments.some(({ via }) => via !== "local" && via !== "stun");
}

function closedError(what: string): NatError {
  return new NatError("closed", `Cannot ${what}: it was closed`);
}
