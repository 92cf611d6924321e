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
import { describeFailure, type MappingEvent, type MappingId } from "../../core/mapping.ts";
import { codeOf } from "../../core/portmap/managed.ts";
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
  close(now: Instant): void;
}

/** What a request that failed came to; `event` is absent where the caller's time was up. */
export type Explain<M> = (
  machine: M,
  id: MappingId,
  event: unknown,
  since: Instant,
  now: Instant,
) => RequestFailure;

/** A request to a machine. */
export interface MachineRequest<M> {
  /** What is wanted, for the message of an error: `"map port 6000/tcp"`. */
  readonly what: string;
  /** When the caller's operation began, which may be before the machine was made. */
  readonly since: Instant;
  /** Whether it is granted by a mapping or by the deletion of one. */
  readonly goal: "mapped" | "unmapped";
  /** Makes it. */
  start(machine: M, now: Instant): MappingId;
}

/** A request of the application: first a promise, then a handle that follows the mapping. */
export class Held<T> {
  readonly id: MappingId;
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

  constructor(id: MappingId) {
    this.id = id;
  }
}

/** A machine on real sockets, and the application's requests. */
export class Connection<T, M extends MappingMachine> {
  readonly #runtime: Runtime;
  readonly #explain: Explain<M>;
  /** Several may wait for one deletion. */
  readonly #held: Map<MappingId, Set<Held<T>>> = new Map();
  readonly #requests: Map<Held<T>, MachineRequest<M>> = new Map();
  readonly #others: Set<(event: { readonly type: string }) => void> = new Set();
  /** How each wait that is no request's ends where the connection is closed. */
  readonly #waits: Set<(error: NatError) => void> = new Set();
  #driver: Driver<unknown, M> | undefined;
  #closing: Promise<void> | undefined;
  #onIdle: (() => void) | undefined;
  #hasHeard = false;
  #isClosed = false;

  constructor(runtime: Runtime, explain: Explain<M>) {
    this.#runtime = runtime;
    this.#explain = explain;
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
    if (this.#isClosed) throw closedError("use a gateway connection");
    return this.#driver!.do(command);
  }

  /**
   * Makes a request and waits for its goal.
   *
   * @throws {TypeError | RangeError} Where the machine does not take the request.
   * @throws {NatError} Where it fails, or the time is up. Then nothing of it goes on.
   */
  request(request: MachineRequest<M>, options: WaitOptions): Promise<Held<T>> {
    if (this.#closing) return Promise.reject(closedError(request.what));
    let held: Held<T> | undefined;
    const onTimeout = () => this.#toError(held!, request, undefined);
    return waitFor<Held<T>>(this.#runtime, options, onTimeout, (settle) => {
      this.do((machine, now) => {
        held = this.#hold(request.start(machine, now), request, settle);
      });
      return (outcome) => {
        held!.settle = undefined;
        if (outcome === "done") return;
        this.#forget(held!);
        // The gateway may have granted what we never heard of: tell it that nobody wants it.
        if (!this.#held.has(held!.id)) this.#revokeQuietly(held!.id);
      };
    });
  }

  /**
   * Gives a command whose answer is an event that belongs to no mapping.
   *
   * @param command Returns what cleans up where the caller gives up.
   * @param read The answer in an event, or undefined; it throws where the event is a failure.
   */
  answer<R>(
    what: string,
    options: WaitOptions,
    timeoutReason: () => unknown,
    command: (machine: M, now: Instant) => (() => void) | void,
    read: (event: { readonly type: string }) => R | undefined,
  ): Promise<R> {
    if (this.#closing) return Promise.reject(closedError(what));
    return waitFor<R>(this.#runtime, options, timeoutReason, (settle) => {
      const other = (event: { readonly type: string }) => {
        try {
          const answer = read(event);
          if (answer !== undefined) settle.resolve(answer);
        } catch (error) {
          settle.reject(error);
        }
      };
      const onClose = () => settle.reject(closedError(what));
      this.#others.add(other);
      this.#waits.add(onClose);
      const cleanUp = this.do(command);
      return (outcome) => {
        this.#others.delete(other);
        this.#waits.delete(onClose);
        if (outcome === "given up") cleanUp?.();
      };
    });
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
    const what = "renew a mapping";
    if (held.state === "over" || this.#closing) return Promise.reject(closedError(what));
    const timeoutReason = () =>
      new NatError("no-answer", `Cannot ${what}: the gateway did not answer in time`);
    return waitFor<void>(this.#runtime, options, timeoutReason, (settle) => {
      let revision = Infinity;
      const take = (update: MappingUpdate<T>) => {
        if (update.type === "failed" || update.type === "unmapped") {
          settle.reject(closedError(what));
        } else if (update.type === "renewal-failed" && update.revision >= revision) {
          const { failure } = update;
          const text = `Cannot ${what}: ${describeFailure(failure)}`;
          settle.reject(new NatError(codeOf(failure), text));
        } else if ("mapping" in update && update.revision >= revision) settle.resolve();
      };
      const onClose = () => settle.reject(closedError(what));
      // What is refused at present is told in the same turn: it is looked at once the number is known.
      const early: MappingUpdate<T>[] = [];
      let hear = (update: MappingUpdate<T>): void => void early.push(update);
      const stop = held.events.listen((update) => hear(update));
      this.#waits.add(onClose);
      revision = this.do((machine, now) => machine.renew(held.id, lifetimeSeconds, now));
      hear = take;
      early.forEach(take);
      return () => {
        stop();
        this.#waits.delete(onClose);
      };
    });
  }

  /** Deletes the mapping and waits until the gateway did, or is past asking. Never rejects. */
  async revoke(held: Held<T>): Promise<void> {
    if (held.state === "over") return;
    const options = { timeoutMs: CLOSE_TIMEOUT_MS };
    await waitFor<void>(this.#runtime, options, () => undefined, (settle) => {
      const stop = held.events.listen(({ type }) => {
        if (type === "unmapped" || type === "failed") settle.resolve();
      });
      const onClose = () => settle.resolve();
      this.#waits.add(onClose);
      this.do((machine, now) => machine.revoke(held.id, now));
      return () => {
        stop();
        this.#waits.delete(onClose);
      };
    }).catch(() => undefined);
    this.#forget(held);
  }

  /** Leaves the mapping to its lifetime. */
  abandon(held: Held<T>): void {
    if (held.state === "over") return;
    this.do((machine, now) => machine.abandon(held.id, now));
    this.#forget(held);
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
    for (const [held, { what }] of [...this.#requests]) {
      const { settle } = held;
      if (settle) settle.reject(closedError(what));
    }
    for (const end of [...this.#waits]) end(closedError("wait"));
    if (!driver) return;
    const options = { timeoutMs: this.#hasHeard ? CLOSE_TIMEOUT_MS : 0 };
    await waitFor<void>(this.#runtime, options, () => undefined, (settle) => {
      this.#onIdle = () => settle.resolve();
      if (driver.do((machine, now) => (machine.close(now), machine.isIdle))) settle.resolve();
      return () => {};
    }).catch(() => undefined);
    this.#isClosed = true;
    for (const held of [...this.#requests.keys()]) this.#forget(held);
    driver.close();
  }

  /** Takes what the machine tells. */
  onEvent(event: { readonly type: string }): void {
    this.#hasHeard ||= !("failure" in event) && event.type !== "failed";
    if ("id" in event && this.#held.has(event.id as MappingId)) {
      const update = event as MappingUpdate<T>;
      for (const held of [...this.#held.get(update.id)!]) this.#onUpdate(held, update);
    } else {
      for (const other of [...this.#others]) other(event);
    }
    if (this.#onIdle && this.#driver?.machine?.isIdle) this.#onIdle();
  }

  #hold(id: MappingId, request: MachineRequest<M>, settle: Settle<Held<T>>): Held<T> {
    const held = new Held<T>(id);
    held.settle = settle;
    const known = this.#held.get(id);
    if (known) known.add(held);
    else this.#held.set(id, new Set([held]));
    this.#requests.set(held, request);
    return held;
  }

  #revokeQuietly(id: MappingId): void {
    if (!this.#isClosed) this.#driver?.do((machine, now) => machine.revoke(id, now));
  }

  #toError(held: Held<T>, request: MachineRequest<M>, event: unknown): NatError {
    const { machine } = this.#driver!;
    const now = this.#runtime.now();
    const failure = this.#explain(machine!, held.id, event, request.since, now);
    return attemptsError(request.what, failure);
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
    if (!settle) held.events.push(update);
    const isFinal = update.type === "unmapped" || update.type === "failed";
    if (!settle) {
      if (isFinal && !("retryAt" in update)) this.#forget(held);
      return;
    }
    const isReached = request.goal === "mapped"
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

function closedError(what: string): NatError {
  return new NatError("closed", `Cannot ${what}: it was closed`);
}
