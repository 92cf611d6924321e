/**
 * The simulated gateway on real sockets, for whoever tests a client that uses some of its own.
 *
 * The gateway lists its sockets: the one for requests is closed while nothing listens (NAT off, every
 * protocol off), so that the system says port unreachable as a router would.
 *
 * @module
 */
import { NatError } from "../core/errors.ts";
import { checkAddress, checkCallback, checkList, checkPort } from "../core/check.ts";
import { classify, isLoopback, isWildcard } from "../core/cidr.ts";
import { anyAddress, familyOf, withoutZone } from "../core/ip.ts";
import type { Endpoint, Instant } from "../core/machine.ts";
import type { RandomSource } from "../core/random.ts";
import { SimulatedGateway, type SimulatedGatewayOptions } from "../core/gateway/gateway.ts";
import type { GatewayProtocol } from "../core/gateway/profile.ts";
import { PROFILES } from "../core/gateway/profiles.ts";
import { type CommandOutcome, runCommand } from "../core/gateway/run_command.ts";
import { parseCommand } from "../core/gateway/scenario.ts";
import type { TableEntry } from "../core/table/entry.ts";
import type { ServerEvent } from "../core/table/server_request.ts";
import type { IgdInterface } from "../core/upnp/server.ts";
import { systemRuntime } from "./auto.ts";
import { Driver } from "./driver.ts";
import { GatewayForwarder, isOfHost } from "./gateway_forwarder.ts";
import type { Runtime } from "./runtime.ts";

/** How to start a simulated gateway. */
export interface GatewayServerOptions extends
  Omit<
    SimulatedGatewayOptions,
    "random" | "externalAddresses" | "trace" | "listen" | "announceBy" | "epochSeconds"
  > {
  /**
   * The address to listen on. An IPv6 one makes a firewall without NAT. At `"0.0.0.0"` announcements
   * are made on each link but the one with the external address. Default `"127.0.0.1"`.
   */
  readonly listen?: string;
  /**
   * The port to listen on, 0…65535; 0 takes a free one, for UPnP's searches, too, where
   * `upnp.ssdpPort` does not say otherwise. Default 0.
   */
  readonly port?: number;
  /**
   * The external address, or several with the preferred one first; an empty list is a WAN that is
   * down. Default `"203.0.113.7"`. Not for an IPv6 firewall, which has none.
   */
  readonly external?: string | readonly string[];
  /**
   * Relays what arrives at a mapped port to the mapping's inside, TCP and UDP, in user space: at the
   * external address where that is one of this host's, else at `listen`. A mapping of a program on
   * this host gets another external port than its internal one, which that program has. Not for an
   * IPv6 firewall. Default false.
   */
  readonly forward?: boolean;
  /**
   * How long it claims to be up when it starts, 0…4,294,967,295 seconds. Default 86,400, a day: a
   * client cannot tell by the epoch that a gateway which is only seconds old was restarted (RFC 6887
   * §8.5).
   */
  readonly epochSeconds?: number;
  /** Gets each request, response and change of the table. */
  readonly onEvent?: (event: ServerEvent) => void;
  /** Gets what goes wrong with the sockets, such as an announcement that no route takes. */
  readonly onSocketError?: (error: unknown) => void;
  /** Where its randomness comes from. Default: the runtime's. */
  readonly random?: RandomSource;
  /** The runtime's adapter. Default: the one that is running. */
  readonly runtime?: Runtime;
}

const DEFAULT_EXTERNAL = "203.0.113.7";
const DEFAULT_EPOCH_SECONDS = 86_400;

/** A running simulated gateway. Dispose of it, or `close` it, to free its port. */
export class GatewayServer implements AsyncDisposable {
  readonly #runtime: Runtime;
  readonly #driver: Driver<ServerEvent, SimulatedGateway>;
  readonly #gateway: SimulatedGateway;
  readonly #endpoint: Endpoint;
  readonly #forwarder: GatewayForwarder | undefined;
  #changes: Promise<unknown> = Promise.resolve();

  /** Made by {@linkcode startGateway}. */
  constructor(
    runtime: Runtime,
    driver: Driver<ServerEvent, SimulatedGateway>,
    gateway: SimulatedGateway,
    endpoint: Endpoint,
    forwarder?: GatewayForwarder,
  ) {
    this.#runtime = runtime;
    this.#driver = driver;
    this.#gateway = gateway;
    this.#endpoint = endpoint;
    this.#forwarder = forwarder;
  }

  /** Where it listens. */
  get endpoint(): Endpoint {
    return this.#endpoint;
  }

  /** Its external addresses, the preferred one first; empty for a firewall. */
  get externalAddresses(): readonly string[] {
    return this.#gateway.table.externalAddresses;
  }

  /** The URLs of UPnP's description, one an interface; empty where it does not speak UPnP. */
  get descriptions(): readonly string[] {
    return this.#gateway.locations;
  }

  /** The port on which UPnP's searches are answered; undefined where it does not speak UPnP. */
  get ssdpPort(): number | undefined {
    const key = this.#gateway.sockets?.().find((spec) => spec.key.startsWith("ssdp "))?.key;
    return key === undefined ? undefined : this.#driver.local(key)?.port;
  }

  /** Where what arrives is relayed to a mapping's inside; undefined where nothing is relayed. */
  relayOf(entry: TableEntry): Endpoint | undefined {
    return this.#forwarder?.place(entry.external);
  }

  /** Waits until the ports that are relayed are those that the table says. */
  async relayed(): Promise<void> {
    await this.#forwarder?.sync(this.entries());
  }

  /** The protocols that are on. */
  get protocols(): readonly GatewayProtocol[] {
    return this.#gateway.protocols;
  }

  /** Counters. */
  get stats(): SimulatedGateway["stats"] {
    return this.#gateway.stats;
  }

  /** Copies of what the table holds, the oldest first. */
  entries(): TableEntry[] {
    return this.#driver.do((gateway, now) => gateway.list(now));
  }

  /**
   * Carries out a scenario command as `natkit gateway` takes it: `"reboot"`,
   * `"external 198.51.100.9"`… `"help"` lists them.
   *
   * @returns What was done, or why it was not.
   * @throws {TypeError} On a line that is not a command; the message lists those that are.
   */
  command(line: string): Promise<CommandOutcome> {
    const parsed = parseCommand(line);
    if (!parsed.ok) return Promise.reject(new TypeError(parsed.message));
    return this.do((gateway, now) => runCommand(gateway, parsed.command, now));
  }

  /**
   * Does what no command does: `command` gets the machine and the time.
   *
   * @returns What `command` returns, once the sockets have followed.
   */
  do<T>(command: (gateway: SimulatedGateway, now: Instant) => T): Promise<T> {
    const next = this.#changes.then(async () => {
      const result = this.#driver.do(command);
      await this.#driver.opened();
      if (!this.#gateway.isListening) await this.#turn();
      return result;
    });
    this.#changes = next.catch(() => {});
    return next;
  }

  /** Ends it and frees its port. A second call does nothing. */
  async close(): Promise<void> {
    this.#driver.close();
    await this.#forwarder?.close();
    await this.#turn();
  }

  /** {@linkcode GatewayServer.close}, for `await using`. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  /** A read that waits holds the port of a closed socket until the runtime's next turn (Deno). */
  #turn(): Promise<void> {
    return new Promise((resolve) => void this.#runtime.setTimer(0, resolve, true));
  }
}

/**
 * Starts a simulated gateway.
 *
 * @throws {TypeError | RangeError} Where an option cannot be, with its name and value.
 * @throws {NatError} Where the socket cannot be opened: the port is in use, or a permission is
 *   missing.
 *
 * @example
 * ```ts
 * import { openPort } from "@natkit/natkit";
 * import { startGateway } from "@natkit/natkit/testing";
 *
 * await using gateway = await startGateway();
 * await using port = await openPort(8080, { gateway: gateway.endpoint });
 * console.assert(gateway.entries()[0]?.external.port === port.external.port);
 * ```
 */
export async function startGateway(options: GatewayServerOptions = {}): Promise<GatewayServer> {
  const {
    listen = "127.0.0.1",
    port = 0,
    external,
    onEvent,
    onSocketError,
    upnp,
    forward,
    ...rest
  } = options;
  const address = checkAddress("listen", listen);
  checkPort("port", port, 0);
  checkCallback("onEvent", onEvent);
  checkCallback("onSocketError", onSocketError);
  if (rest.protocols) checkList("protocols", rest.protocols);
  const runtime = options.runtime ?? systemRuntime();
  if (familyOf(address) === 6 && external !== undefined) {
    throw new TypeError(
      `'external' must be absent where 'listen' is an IPv6 address: current value is ${external}`,
    );
  }
  if (forward && familyOf(address) === 6) {
    throw new TypeError("'forward' must be absent where 'listen' is an IPv6 address");
  }
  const forwarder = forward
    ? new GatewayForwarder(runtime, address, (error) => onSocketError?.(error))
    : undefined;
  const outside = external === undefined
    ? [DEFAULT_EXTERNAL]
    : checkList("external", typeof external === "string" ? [external] : external)
      .map((one) => checkAddress("external", one, 4));
  const isNamed = upnp !== undefined || rest.protocols !== undefined;
  let protocols = rest.protocols ?? defaultProtocols(rest.profile, familyOf(address));
  let interfaces: readonly IgdInterface[] = [];
  try {
    const mayBeOn = upnp || !rest.protocols || rest.protocols.includes("upnp");
    if (mayBeOn) interfaces = interfacesAt(runtime, address, outside);
  } catch (error) {
    if (isNamed) throw error;
    protocols = protocols?.filter((one) => one !== "upnp");
    onSocketError?.(withoutUpnp(error));
  }
  const announceBy = address === anyAddress(4) ? insideAddresses(runtime, outside) : [];
  const gateway = new SimulatedGateway({
    epochSeconds: DEFAULT_EPOCH_SECONDS,
    ...rest,
    ...protocols && { protocols },
    ...(familyOf(address) === 4 ? { externalAddresses: outside } : {}),
    listen: { address, port },
    ...announceBy.length > 0 && { announceBy },
    ...interfaces.length > 0 && {
      upnp: {
        interfaces,
        ...(port === 0 && { ssdpPort: 0 }),
        ...upnp,
      },
    },
    random: options.random ?? runtime.random,
    ...forward && {
      table: {
        ...rest.table,
        isUsable: (_, externalPort, internal) =>
          externalPort !== internal.port || !isOfHost(runtime, internal.address),
      },
    },
    trace: onEvent !== undefined || forward === true,
  });
  // Where UPnP turns out not to be spoken, what went wrong with its sockets is one thing.
  let early: unknown[] | undefined = isNamed ? undefined : [];
  const driver = new Driver<ServerEvent, SimulatedGateway>(
    runtime,
    (event) => {
      onEvent?.(event);
      if (event.type === "mapping") void forwarder?.sync(gateway.list(runtime.now()));
    },
    (error) => {
      if (early) early.push(error);
      else onSocketError?.(error);
    },
  );
  driver.start(gateway);
  await driver.opened();
  const endpoint = driver.local("server") ?? { address, port };
  const server = new GatewayServer(runtime, driver, gateway, endpoint, forwarder);
  try {
    await server.do((machine, now) => machine.start(now)).catch((error) => {
      // Nobody asked for UPnP: the others do without it.
      if (isNamed || !gateway.protocols.includes("upnp")) throw error;
      driver.do((machine, now) => machine.setProtocol("upnp", false, now));
      early = [];
      onSocketError?.(withoutUpnp(error));
    });
    // UPnP's sockets come with the start, that of its group once the port is known.
    await driver.opened();
  } catch (error) {
    await server.close();
    throw error;
  }
  const told = early ?? [];
  early = undefined;
  for (const error of told) onSocketError?.(error);
  return server;
}

/** Tells that UPnP is not spoken, and why. */
function withoutUpnp(error: unknown): NatError {
  const reason = error instanceof Error ? error.message : String(error);
  const code = error instanceof NatError ? error.code : "network";
  return new NatError(code, `UPnP is not spoken: ${reason}`, { cause: error });
}

/** What a gateway speaks where nobody says: all that its family has, unless its profile knows. */
function defaultProtocols(
  profile: GatewayServerOptions["profile"],
  family: 4 | 6,
): readonly GatewayProtocol[] | undefined {
  const known = typeof profile === "string" ? PROFILES[profile] : profile;
  if (known?.protocols) return undefined;
  return family === 4 ? ["pcp", "nat-pmp", "upnp"] : ["pcp", "upnp"];
}

/** This host's IPv4 addresses on the links inside; none where the runtime forbids to look. */
function insideAddresses(runtime: Runtime, outside: readonly string[]): string[] {
  try {
    return interfacesAt(runtime, anyAddress(4), outside)
      .flatMap(({ address }) => familyOf(address) === 4 ? address : []);
  } catch {
    return [];
  }
}

/**
 * Where a device that listens at an address is: there; or, at any IPv4 address, on each interface but
 * the one with the external address, over IPv6 as well, so that its firewall can be asked.
 */
function interfacesAt(
  runtime: Runtime,
  address: string,
  outside: readonly string[],
): readonly IgdInterface[] {
  const family = familyOf(address);
  const all = runtime.interfaces().map((one) => ({ ...one, plain: withoutZone(one.address) }));
  if (!isWildcard(address)) {
    const own = all.find(({ plain }) => plain === withoutZone(address));
    if (own) return [{ address, prefixLength: own.prefixLength, name: own.name }];
    // Of 127.0.0.0/8 a system lists one address and has them all.
    return [{ address, ...isLoopback(address) && family === 4 && { prefixLength: 8 } }];
  }
  const wan = all.find(({ plain }) => outside.includes(plain))?.name;
  return all.filter(({ name, plain, address }) => {
    if (name === wan || (family === 6 && familyOf(address) === 4)) return false;
    // One address of a link is enough.
    return classify(plain) !== "link-local" ||
      !all.some((other) =>
        other.name === name &&
        familyOf(other.address) === familyOf(address) && classify(other.plain) !== "link-local"
      );
  }).map(({ address, prefixLength, name }) => ({ address, prefixLength, name }));
}
