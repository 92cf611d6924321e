/**
 * A client of one protocol at one gateway, on real sockets: how `PcpClient` and `NatPmpClient` are
 * opened.
 *
 * @module
 */
import { NatError, type Via } from "../../core/errors.ts";
import { familyOf, zoneOf } from "../../core/ip.ts";
import { readState, type SavedState } from "../../core/lease/saved.ts";
import type { Endpoint } from "../../core/machine.ts";
import { describeFailure, type Failure } from "../../core/mapping.ts";
import { announcementSocket } from "../../core/portmap/path.ts";
import { codeOf, gatewayText, retryAfter } from "../../core/portmap/managed.ts";
import { sourceToward } from "../discovery/mod.ts";
import { Driver } from "../driver.ts";
import type { Runtime } from "../runtime.ts";
import { Connection, type MappingMachine } from "./connection.ts";

/** Where a client goes, and from where. */
export interface SingleClientOptions {
  readonly runtime: Runtime;
  readonly via: Via;
  readonly gateway: Endpoint;
  /** The address to bind. Default: the one that a mapping is best made for. */
  readonly internalAddress?: string | undefined;
  /** What an earlier run saved, checked here before a socket is opened. */
  readonly state: SavedState | undefined;
  /** Whether to listen for the gateway's announcements. */
  readonly announcements: boolean;
}

/**
 * Opens the socket to the gateway, starts the machine and listens for announcements.
 *
 * @param make Makes the machine, for the address from which packets to the gateway leave.
 * @throws {TypeError | RangeError} On a state that is not one.
 * @throws {NatError} `permission`, `network`.
 */
export async function openClient<T, M extends MappingMachine>(
  { runtime, via, gateway, internalAddress, announcements, state }: SingleClientOptions,
  make: (localAddress: string) => M,
): Promise<Connection<T, M>> {
  if (state !== undefined) readState(state);
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
    const address = internalAddress ?? await bindAddress(runtime, gateway);
    const local = await driver.open({
      key: "client",
      connect: gateway,
      ...(address === undefined ? {} : { local: { address, port: 0 } }),
    });
    connection.attach(driver);
    driver.start(make(local.address));
    if (announcements) {
      const name = zoneOf(gateway.address) ?? interfaceOf(runtime, local.address);
      const spec = announcementSocket("announcements", gateway, local.address, name);
      // Best effort, and nobody waits for it: renewals find a restarted gateway too, only later.
      driver.open(spec).catch(() => undefined);
    }
    return connection;
  } catch (error) {
    driver.close();
    throw error;
  }
}

/** The error of a question whose answer was a failure. */
export function failureError(what: string, failure: Failure): NatError {
  return new NatError(codeOf(failure), `Cannot ${what}: ${describeFailure(failure)}`);
}

/** The error of a question that was not answered in time. */
export function noAnswer(what: string): NatError {
  return failureError(what, { kind: "no-answer" });
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
