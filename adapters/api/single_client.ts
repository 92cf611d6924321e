/**
 * A client of one protocol at one gateway, on real sockets: what `PcpClient` and `NatPmpClient` have
 * in common, and how they are opened.
 *
 * @module
 */
import { checkAddress } from "../../core/check.ts";
import { NatError, type Via } from "../../core/errors.ts";
import { familyOf, zoneOf } from "../../core/ip.ts";
import { readState, type SavedState } from "../../core/lease/saved.ts";
import type { Endpoint, Instant } from "../../core/machine.ts";
import {
  codeOf,
  describeFailure,
  type Failure,
  type MappingId,
  retryAfter,
} from "../../core/mapping.ts";
import { announcementSocket, gatewayText } from "../../core/portmap/gateway.ts";
import type { RandomSource } from "../../core/random.ts";
import { systemRuntime } from "../auto.ts";
import { sourceToward } from "../discovery/mod.ts";
import { Driver } from "../driver.ts";
import type { Runtime } from "../runtime.ts";
import { Connection, type MappingMachine } from "./connection.ts";
import { MappingHandle } from "./mapping_handle.ts";
import type { Settle, WaitOptions } from "./wait.ts";

/** A machine of one protocol. */
interface ClientMachine extends MappingMachine {
  exportState(now: Instant): SavedState;
}

/** How a client is opened, whichever its protocol. */
interface OpenOptions {
  readonly internalAddress?: string;
  readonly state?: SavedState;
  readonly announcements?: boolean;
  readonly runtime?: Runtime;
}

/** A client of one protocol at one gateway. `T` is a mapping in its words, `M` its machine. */
export class SingleClient<T, M> implements AsyncDisposable {
  /** @internal */
  protected readonly connection: Connection<T, M & ClientMachine>;
  readonly #runtime: Runtime;

  /** @internal */
  protected constructor(connection: Connection<T, M & ClientMachine>, runtime: Runtime) {
    this.connection = connection;
    this.#runtime = runtime;
  }

  /**
   * @internal
   * Asks for a mapping.
   */
  protected async hold(
    name: string,
    options: WaitOptions,
    start: (machine: M, now: Instant) => MappingId,
  ): Promise<MappingHandle<T>> {
    const since = this.#runtime.now();
    const held = await this.connection.request({ verb: "map", name, since, start }, options);
    return new MappingHandle(this.connection, held);
  }

  /**
   * @internal
   * Asks what is no mapping; `read` settles where an event is the answer, or throws its failure.
   */
  protected ask<R>(
    what: string,
    options: WaitOptions,
    command: (machine: M, now: Instant) => void,
    read: (event: { readonly type: string }, settle: Settle<R>) => void,
  ): Promise<R> {
    const onTimeout = () => failureError(what, { kind: "no-answer" });
    return this.connection.answer<R>(what, options, onTimeout, command, read);
  }

  /** What a later run needs to adopt these mappings. JSON-safe. */
  exportState(): SavedState {
    return this.connection.do((machine, now) => machine.exportState(now));
  }

  /** Deletes all mappings and closes the socket. Never rejects. */
  close(): Promise<void> {
    return this.connection.close();
  }

  /** {@linkcode SingleClient.close}, for `await using`. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}

/**
 * Opens the socket to the gateway, starts the machine and listens for announcements.
 *
 * @param make Makes the machine, for the address from which packets to the gateway leave.
 * @throws {TypeError | RangeError} On options that are none, or a state that is not one.
 * @throws {NatError} `permission`, `network`.
 */
export async function openClient<T, M extends ClientMachine>(
  via: Via,
  gateway: Endpoint,
  options: OpenOptions,
  make: (localAddress: string, random: RandomSource) => M,
): Promise<[Connection<T, M>, Runtime]> {
  const { runtime = systemRuntime(), internalAddress, announcements = true, state } = options;
  if (state !== undefined) readState(state);
  const own = internalAddress === undefined
    ? undefined
    : checkAddress("internalAddress", internalAddress, familyOf(gateway.address));
  const connection = new Connection<T, M>(runtime, (_machine, _id, event, since, now) => {
    const { failure = { kind: "no-answer" } } = (event ?? {}) as { failure?: Failure };
    const outcome = describeFailure(failure);
    const attempts = [{ via, gateway: gatewayText(gateway), outcome, elapsedMs: now - since }];
    return { code: codeOf(failure), attempts, ...retryAfter(failure, now) };
  });
  const driver = new Driver<unknown, M>(
    runtime,
    (event) => connection.onEvent(event as { readonly type: string }),
  );
  try {
    const address = own ?? await bindAddress(runtime, gateway);
    const local = await driver.open({
      key: "client",
      connect: gateway,
      ...(address === undefined ? {} : { local: { address, port: 0 } }),
    });
    connection.attach(driver);
    driver.start(make(local.address, runtime.random));
    if (announcements) {
      const name = zoneOf(gateway.address) ?? interfaceOf(runtime, local.address);
      const spec = announcementSocket("announcements", gateway, local.address, name);
      // Best effort, and nobody waits for it: renewals find a restarted gateway too, only later.
      driver.open(spec).catch(() => undefined);
    }
    return [connection, runtime];
  } catch (error) {
    driver.close();
    throw error;
  }
}

/** The error of a question whose answer was a failure. */
export function failureError(what: string, failure: Failure): NatError {
  return new NatError(codeOf(failure), `Cannot ${what}: ${describeFailure(failure)}`);
}

/** Over IPv6 a mapping is for a global address, though the gateway is link-local (PCP-C-24). */
async function bindAddress(runtime: Runtime, gateway: Endpoint): Promise<string | undefined> {
  return familyOf(gateway.address) === 4 ? undefined : await sourceToward(runtime, gateway.address);
}

/** The name of the interface that has an address. */
function interfaceOf(runtime: Runtime, own: string): string | undefined {
  return familyOf(own) === 6
    ? runtime.interfaces().find(({ address }) => address === own)?.name
    : undefined;
}
