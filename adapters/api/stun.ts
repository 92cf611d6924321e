/**
 * What STUN servers tell of this host: its reflexive address, and what kind of NAT it is behind. The
 * machines are loaded when they are needed.
 *
 * @module
 */
import { checkChoice, checkFamily, checkPort, show } from "../../core/check.ts";
import { NatError, type NatErrorCode } from "../../core/errors.ts";
import { anyAddress, type Family, familyOf } from "../../core/ip.ts";
import type { Endpoint } from "../../core/machine.ts";
import type { Transport } from "../../core/mapping.ts";
import type {
  NatBehaviour,
  NatBehaviourEvent,
  NatBehaviourResult,
} from "../../core/stun/behaviour.ts";
import type {
  StunClient,
  StunClientEvent,
  StunCredentials,
  StunFailure,
} from "../../core/stun/client.ts";
import { systemRuntime } from "../auto.ts";
import { sourceToward } from "../discovery/mod.ts";
import { Driver } from "../driver.ts";
import { readStunServer, readStunServers, type ServerName } from "../host_name.ts";
import type { Runtime } from "../runtime.ts";
import { describeStunFailure } from "../stun_failure.ts";
import { checkOptions, checkSignal, checkWait, waitFor, type WaitOptions } from "./wait.ts";

/** Of a name with more addresses so many are asked. */
const MAX_ADDRESSES = 4;

/** How to ask for the reflexive address. */
export interface ReflexiveAddressOptions extends WaitOptions {
  /** Default `"udp"`. */
  readonly transport?: Transport;
  /** The port to ask from, 0…65535; 0 takes a free one. UDP only. Default 0. */
  readonly localPort?: number;
  /** Over which family to ask. Default: each that the server's name has; the first answer counts. */
  readonly family?: Family;
  /** Whom the server is to know us as, where it asks. */
  readonly credentials?: StunCredentials;
  /** The runtime's adapter. Default: the one that is running. */
  readonly runtime?: Runtime;
}

/** How a server outside sees this host. */
export interface ReflexiveAddress {
  /** The address that it sees. */
  readonly address: string;
  /** The port that it sees. */
  readonly port: number;
  /** What was asked from. */
  readonly local: Endpoint;
  /** Who answered. */
  readonly server: Endpoint;
  /** Milliseconds; undefined where a datagram was sent twice. */
  readonly roundTripMs: number | undefined;
}

/** How to find out what kind of NAT there is. */
export interface NatBehaviourSearch {
  /**
   * Looks for the life of a binding that is not used, up to this, 4…3600 seconds; it takes about as
   * long. Default: it is not looked for.
   */
  readonly maxLifetimeSeconds?: number;
  /** The address of this host to ask from. Default: the one that leads to the first server. */
  readonly localAddress?: string;
  /** Over which family to ask. Default: that of the first server's first address. */
  readonly family?: Family;
  /** Ends it; it rejects with the signal's reason. */
  readonly signal?: AbortSignal;
  /** The runtime's adapter. Default: the one that is running. */
  readonly runtime?: Runtime;
}

/**
 * Asks a STUN server (RFC 8489) how it sees this host.
 *
 * @param server `"HOST"`, `"HOST:PORT"`, `"[IPV6]:PORT"` or an endpoint.
 * @throws {TypeError | RangeError} On an option that cannot be.
 * @throws {NatError} `no-answer`, `refused`, `protocol-violation`, `network`, `permission`.
 *
 * @example
 * ```ts
 * import { reflexiveAddress } from "@natkit/natkit";
 * import { startStunServer } from "@natkit/natkit/testing";
 *
 * // A server of our own stands in for one on the internet.
 * await using server = await startStunServer({ listen: { address: "127.0.0.1", port: 0 } });
 * const seen = await reflexiveAddress(server.endpoint);
 * console.assert(seen.address === "127.0.0.1" && seen.port === seen.local.port);
 * ```
 */
export async function reflexiveAddress(
  server: string | Endpoint,
  options: ReflexiveAddressOptions = {},
): Promise<ReflexiveAddress> {
  const { localPort = 0, family, credentials } = checkOptions(options);
  checkWait(options);
  const transport = checkChoice("transport", options.transport ?? "udp", ["udp", "tcp"]);
  checkPort("localPort", localPort, 0);
  if (family !== undefined) checkFamily("family", family);
  const name = readStunServer("server", server);
  const runtime = options.runtime ?? systemRuntime();
  const endpoints = (await resolve(name, family)).slice(0, MAX_ADDRESSES);
  const what = `ask the STUN server ${textOf(name)}`;
  let onEvent = (_event: StunClientEvent): void => {};
  const driver = new Driver<StunClientEvent, StunClient>(runtime, (event) => onEvent(event));
  try {
    const { StunClient } = await import("../../core/stun/client.ts");
    const locals = new Map<Family, Endpoint>();
    let last: unknown;
    for (const endpoint of transport === "udp" ? endpoints : []) {
      const of = familyOf(endpoint.address);
      if (locals.has(of)) continue;
      try {
        const address = await leaveFrom(runtime, endpoint).catch((error) => {
          // Which address it is tells only what was asked from.
          if (error instanceof NatError && error.code === "permission") return anyAddress(of);
          throw error;
        });
        const local = { address, port: localPort };
        locals.set(of, await driver.open({ key: `client ${of}`, local }));
      } catch (error) {
        // Of a host without IPv6 the other addresses are asked.
        last = error;
      }
    }
    if (transport === "udp" && locals.size === 0) throw last;
    driver.start(new StunClient({ random: runtime.random }));
    const wait = {
      ...options.timeoutMs !== undefined && { timeoutMs: options.timeoutMs },
      ...options.signal && { signal: options.signal },
    };
    const late = () => stunError(what, { kind: "no-answer" });
    return await waitFor<ReflexiveAddress>(runtime, wait, late, (settle) => {
      const asked = new Set<number>();
      onEvent = (event) => {
        asked.delete(event.id);
        if (event.type === "failed") {
          if (asked.size === 0) settle.reject(stunError(what, event.failure));
          return;
        }
        const { attributes, server, roundTripMs } = event;
        const { address, port } = (attributes.xorMappedAddress ?? attributes.mappedAddress)!;
        const local = event.local ?? locals.get(familyOf(server.address))!;
        settle.resolve({ address, port, local, server, roundTripMs });
      };
      for (const endpoint of endpoints) {
        const of = familyOf(endpoint.address);
        if (transport === "udp" && !locals.has(of)) continue;
        asked.add(driver.do((client, now) =>
          client.request({
            server: endpoint,
            transport,
            socket: `client ${of}`,
            ...(credentials !== undefined && { credentials }),
          }, now)
        ));
      }
    });
  } finally {
    driver.close();
  }
}

/**
 * Finds out by STUN servers what kind of NAT stands between this host and them (RFC 5780). One of
 * them must have a second address for mapping and filtering to be found.
 *
 * @param servers `"HOST"`, `"HOST:PORT"`, `"[IPV6]:PORT"` or endpoints; one to eight.
 * @throws {TypeError | RangeError} On an option that cannot be.
 * @throws {NatError} `network`, `permission`. That nobody answers is a result: `"blocked"`.
 *
 * @example
 * ```ts
 * import { natBehaviour } from "@natkit/natkit";
 * import { startStunServer } from "@natkit/natkit/testing";
 *
 * await using server = await startStunServer({
 *   listen: { address: "127.0.0.1", port: 0 },
 *   alternate: { address: "127.0.0.2", port: 34790 },
 * });
 * const { type, mapping } = await natBehaviour([server.endpoint]);
 * console.assert(type === "open" && mapping === "endpoint-independent");
 * ```
 */
export async function natBehaviour(
  servers: readonly (string | Endpoint)[],
  options: NatBehaviourSearch = {},
): Promise<NatBehaviourResult> {
  const { maxLifetimeSeconds, family: wanted } = checkOptions(options);
  const signal = checkSignal(options.signal);
  if (wanted !== undefined) checkFamily("family", wanted);
  if (!Array.isArray(servers) || servers.length < 1 || servers.length > 8) {
    throw new TypeError(
      `'servers' must be one to eight servers: current value is ${show(servers)}`,
    );
  }
  const names = readStunServers("servers", servers);
  signal?.throwIfAborted();
  const runtime = options.runtime ?? systemRuntime();
  const [first] = await resolve(names[0]!, wanted);
  const family = familyOf(first!.address);
  const endpoints = await Promise.all(names.map(async (name) => (await resolve(name, family))[0]!));
  const localAddress = options.localAddress ?? await leaveFrom(runtime, first!);
  const { NatBehaviour } = await import("../../core/stun/behaviour.ts");
  const machine = new NatBehaviour({
    servers: endpoints,
    localAddress,
    random: runtime.random,
    ...(maxLifetimeSeconds !== undefined && { maxLifetimeSeconds }),
  });
  let onEvent = (_event: NatBehaviourEvent): void => {};
  const driver = new Driver<NatBehaviourEvent, NatBehaviour>(runtime, (event) => onEvent(event));
  try {
    const wait = { timeoutMs: Infinity, ...(signal && { signal }) };
    return await waitFor<NatBehaviourResult>(runtime, wait, () => undefined, (settle) => {
      onEvent = (event) => {
        if (event.type === "found") settle.resolve(event.result);
        else settle.reject(new NatError(event.code, `Cannot find out the NAT: ${event.message}`));
      };
      driver.start(machine);
      driver.do((it, now) => it.start(now));
    });
  } finally {
    driver.close();
  }
}

function stunError(what: string, failure: StunFailure): NatError {
  const codes: Record<StunFailure["kind"], NatErrorCode> = {
    "no-answer": "no-answer",
    "unreachable": "no-answer",
    "network": "network",
    "refused": "refused",
    "integrity": "protocol-violation",
    "bid-down": "protocol-violation",
    "protocol-violation": "protocol-violation",
    "closed": "closed",
  };
  return new NatError(codes[failure.kind], `Cannot ${what}: ${describeStunFailure(failure)}`);
}

async function resolve(name: ServerName, family: Family | undefined): Promise<readonly Endpoint[]> {
  const { resolveServer } = await import("../names.ts");
  return await resolveServer(name, family);
}

/**
 * The address of this host that leads to a server.
 *
 * @throws {NatError} `network` where none does, `permission` where that may not be found out.
 */
async function leaveFrom(runtime: Runtime, { address }: Endpoint): Promise<string> {
  const source = await sourceToward(runtime, address);
  if (source !== undefined) return source;
  throw new NatError("network", `Cannot reach ${address}: no address of this host leads there`);
}

function textOf({ host, port }: ServerName): string {
  return host.includes(":") ? `[${host}]:${port}` : `${host}:${port}`;
}
