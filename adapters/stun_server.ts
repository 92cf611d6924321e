/**
 * The STUN server on real sockets.
 *
 * @module
 */
import { NatError } from "../core/errors.ts";
import type { Endpoint } from "../core/machine.ts";
import { StunServer, type StunServerEvent, type StunServerOptions } from "../core/stun/server.ts";
import { systemRuntime } from "./auto.ts";
import { Driver } from "./driver.ts";
import type { Runtime } from "./runtime.ts";

/** How many free ports are tried for all, and again for TCP: one may be free for UDP alone. */
const PORTS = 5;

/** How to start a STUN server. */
export interface StartStunServerOptions extends StunServerOptions {
  /** Gets what goes wrong with the sockets. */
  readonly onSocketError?: (error: unknown) => void;
  /** The runtime's adapter. Default: the one that is running. */
  readonly runtime?: Runtime;
}

/** A running STUN server. Dispose of it, or `close` it, to free its ports. */
export class RunningStunServer implements AsyncDisposable {
  /** Where it listens. */
  readonly endpoint: Endpoint;
  /** Its other address and port; undefined where they are not wanted or could not be had. */
  readonly alternate: Endpoint | undefined;
  /** Whether it takes TCP connections. */
  readonly tcp: boolean;
  readonly #runtime: Runtime;
  readonly #driver: Driver<StunServerEvent, StunServer>;

  /** Made by {@linkcode startStunServer}. */
  constructor(
    runtime: Runtime,
    driver: Driver<StunServerEvent, StunServer>,
    { local, alternate, tcp }: Extract<StunServerEvent, { type: "listening" }>,
  ) {
    this.#runtime = runtime;
    this.#driver = driver;
    this.endpoint = local;
    this.alternate = alternate;
    this.tcp = tcp;
  }

  /** Where it can be asked: one address, or two with two ports each. */
  addresses(): readonly Endpoint[] {
    const { endpoint, alternate } = this;
    if (!alternate) return [endpoint];
    return [endpoint, alternate].flatMap(({ address }) =>
      [endpoint, alternate].map(({ port }) => ({ address, port }))
    );
  }

  /** Counters. */
  get stats(): StunServer["stats"] {
    return this.#driver.machine!.stats;
  }

  /** Ends it and frees its ports. A second call does nothing. */
  async close(): Promise<void> {
    this.#driver.do((server, now) => server.close(now));
    this.#driver.close();
    // A read that waits holds the port of a closed socket until the runtime's next turn (Deno).
    await new Promise<void>((resolve) => void this.#runtime.setTimer(0, resolve, true));
  }

  /** {@linkcode RunningStunServer.close}, for `await using`. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}

/**
 * Starts a STUN server: Binding over UDP and TCP, and with an alternate address NAT behaviour
 * discovery (RFC 5780).
 *
 * @throws {TypeError | RangeError} Where an option cannot be, with its name and value.
 * @throws {NatError} Where its first socket cannot be opened: the port is in use, or a permission is
 *   missing.
 *
 * @example
 * ```ts
 * import { startStunServer } from "@natkit/natkit/testing";
 * await using server = await startStunServer({ listen: { address: "127.0.0.1", port: 0 } });
 * console.log(server.addresses());
 * ```
 */
export async function startStunServer(
  options: StartStunServerOptions = {},
): Promise<RunningStunServer> {
  const { onSocketError, runtime = systemRuntime(), ...rest } = options;
  const most = rest.listen?.port === 0 ? 2 * PORTS : 1;
  for (let tries = 1;; tries++) {
    const server = await startOnce(rest, runtime, onSocketError);
    const hasTcp = server.tcp || rest.tcp === false;
    const hasAlternate = server.alternate || !rest.alternate;
    // That an alternate address cannot be had is no reason to do without TCP.
    if (hasTcp && (hasAlternate || tries >= PORTS) || tries === most) return server;
    await server.close();
  }
}

async function startOnce(
  options: StunServerOptions,
  runtime: Runtime,
  onSocketError?: (error: unknown) => void,
): Promise<RunningStunServer> {
  const server = new StunServer(options);
  let settle: (event: StunServerEvent) => void;
  const told = new Promise<StunServerEvent>((resolve) => settle = resolve);
  const driver = new Driver<StunServerEvent, StunServer>(
    runtime,
    (event) => settle(event),
    onSocketError,
  );
  try {
    driver.start(server);
    await driver.opened();
    const event = await told;
    if (event.type === "listening") return new RunningStunServer(runtime, driver, event);
    throw new NatError(event.code, event.message);
  } catch (error) {
    driver.close();
    throw error;
  }
}
