/**
 * Two peers meet by tickets: each opens a rendezvous, they trade the tickets by whatever way they
 * have, and each punches with the other's.
 *
 * @module
 */
import { checkAddress, checkPort, show } from "../../core/check.ts";
import { classify, isLoopback } from "../../core/cidr.ts";
import { pickDefined } from "../../core/defined.ts";
import { NatError, type NatErrorCode } from "../../core/errors.ts";
import type { IceFailure, IceRole } from "../../core/ice/agent.ts";
import type { RelayServer } from "../../core/ice/relays.ts";
import {
  formatSdp,
  formatTicket,
  parseSdp,
  parseTicket,
  type PublicRendezvous,
} from "../../core/ice/ticket.ts";
import { familyOf } from "../../core/ip.ts";
import type { Endpoint } from "../../core/machine.ts";
import type { Transport } from "../../core/mapping.ts";
import { systemRuntime } from "../auto.ts";
import type { Runtime } from "../runtime.ts";
import { parseServer, type ServerName } from "../host_name.ts";
import { checkOptions } from "./wait.ts";

/** A port of this host that a gateway sends to from outside. */
export interface MappedPort {
  /** Where others send to. */
  readonly external: Endpoint;
  /** Gives it back. */
  close(): Promise<void>;
}

/** What asks gateways for ports: a `Nat`. */
export interface PortOpener {
  /** Opens one; rejects with a NatError where no gateway does. */
  map(
    port: number,
    options: { readonly protocol: Transport; readonly signal?: AbortSignal },
  ): Promise<MappedPort>;
}

/** A TURN server, and who we are there. */
export interface TurnServer {
  /** `"HOST"`, `"HOST:PORT"`, `"[IPV6]:PORT"` or an endpoint; it is asked over UDP. */
  readonly server: string | Endpoint;
  /** Who we are there. */
  readonly username: string;
  /** The password of that. */
  readonly password: string;
}

/** How to open a rendezvous. */
export interface RendezvousOptions {
  /**
   * STUN servers, `"HOST"`, `"HOST:PORT"`, `"[IPV6]:PORT"` or endpoints: they tell what this host
   * looks like from outside. Without any only peers in this network are met, and others that are
   * not behind a NAT. Two, or one with two addresses (RFC 5780), show what kind of NAT there is.
   */
  readonly stunServers?: readonly (string | Endpoint)[];
  /**
   * TURN servers (UDP only): the last way, which reaches every peer, by a third party. One of the
   * two peers suffices to have one.
   */
  readonly turnServers?: readonly TurnServer[];
  /** A `Nat`, whose gateways are asked to map the port too. */
  readonly nat?: PortOpener;
  /** The port to use, 0…65535; 0 (the default) takes a free one. */
  readonly localPort?: number;
  /** The addresses of this host to use. Default: those of its interfaces. */
  readonly localAddresses?: readonly string[];
  /** The role to begin with; by default the tickets decide. */
  readonly role?: IceRole;
  /** How long the peer is tried, milliseconds. Default 30,000. */
  readonly timeoutMs?: number;
  /** Ends it; what is under way rejects with the signal's reason. */
  readonly signal?: AbortSignal;
  /** The runtime's adapter. Default: the one that is running. */
  readonly runtime?: Runtime;
}

/** How to punch. */
export interface PunchOptions {
  /**
   * How long to wait before the first packet, milliseconds: half a round trip of the way that the
   * tickets take, for whoever gets the peer's ticket before the peer gets this one.
   */
  readonly delayMs?: number;
  /** Ends it; it rejects with the signal's reason. */
  readonly signal?: AbortSignal;
}

/** The most addresses of this host that are tried. */
const MAX_ADDRESSES = 8;
const STUN_PORT = 3478;

/** What both kinds of rendezvous are opened with. */
export interface Setup {
  readonly runtime: Runtime;
  readonly servers: readonly Endpoint[];
  readonly relays: readonly RelayServer[];
  readonly addresses: readonly string[];
  readonly port: number;
}

/**
 * Checks the options and looks up what they name.
 *
 * @throws {TypeError | RangeError} On options that are none.
 * @throws {NatError} `permission` or `network`.
 */
export async function prepare(options: RendezvousOptions): Promise<Setup> {
  const { stunServers = [], turnServers = [], localAddresses, localPort, signal } = checkOptions(
    options,
  );
  const port = checkPort("localPort", localPort ?? 0, 0);
  const names = stunServers.map((server) => readServer("stunServers", server));
  const turns = turnServers.map(({ server, username, password }) => ({
    name: readServer("turnServers", server),
    username: checkText("turnServers", username),
    password: checkText("turnServers", password),
  }));
  const given = localAddresses?.map((address) => checkAddress("localAddresses", address));
  signal?.throwIfAborted();
  const runtime = options.runtime ?? systemRuntime();
  const { resolveServer } = await import("../names.ts");
  const servers = (await Promise.all(names.map((name) => resolveServer(name)))).flat();
  const relays = await Promise.all(turns.map(async ({ name, ...who }) => {
    const [server] = await resolveServer(name);
    return { server: server!, ...who };
  }));
  const addresses = given ?? ownAddresses(runtime);
  signal?.throwIfAborted();
  return { runtime, servers, relays, addresses, port };
}

function readServer(option: string, server: string | Endpoint): ServerName {
  if (typeof server !== "string") {
    return { host: checkAddress(option, server?.address), port: checkPort(option, server.port) };
  }
  const name = parseServer(server, STUN_PORT);
  if (name) return name;
  throw new TypeError(`'${option}' must name HOST or HOST:PORT: current value is ${show(server)}`);
}

function checkText(option: string, text: unknown): string {
  if (typeof text === "string" && text !== "") return text;
  throw new TypeError(`'${option}' must have a username and a password`);
}

/** The addresses at which this host may be reached; without a network those that it has for itself. */
function ownAddresses(runtime: Runtime): readonly string[] {
  const all = [...new Set(runtime.interfaces().map(({ address }) => address))];
  const outward = all.filter((address) =>
    !isLoopback(address) && classify(address.split("%")[0]!) !== "link-local"
  );
  const chosen = outward.length > 0 ? outward : all.filter(isLoopback);
  // The first one of each family counts most, and IPv6 has no NAT to get through.
  const sorted = chosen.toSorted((a, b) => familyOf(b) - familyOf(a));
  return sorted.slice(0, MAX_ADDRESSES);
}

/**
 * Reads what the peer told: its ticket, its SDP, or the data itself.
 *
 * @throws {TicketError} Where it cannot be used.
 */
export function readPeer(peer: string | PublicRendezvous): PublicRendezvous {
  if (typeof peer !== "string") return peer;
  return /^\s*(?:a|v|m|c|o|s|t)=/.test(peer) ? parseSdp(peer) : parseTicket(peer);
}

/** A rendezvous as it is told to the peer. */
export interface Told {
  /** One line, for a peer that is a natkit. */
  readonly ticket: string;
  /** Lines of SDP, for any ICE stack. */
  readonly sdp: readonly string[];
}

/** How a rendezvous is told. */
export function tell(told: PublicRendezvous): Told {
  return { ticket: formatTicket(told), sdp: formatSdp(told) };
}

const CODES: Readonly<Record<IceFailure, NatErrorCode>> = {
  network: "network",
  "no-answer": "no-answer",
  "one-way": "no-answer",
  "hard-nat": "hard-nat",
};

/** The error of a punch that failed. */
export function punchError(reason: IceFailure, message: string): NatError {
  return new NatError(CODES[reason], `Cannot reach the peer: ${message}`);
}

/** The options that an agent takes as they are. */
export function agentOptions(
  options: RendezvousOptions,
): Pick<RendezvousOptions, "role" | "timeoutMs"> {
  return pickDefined(options, "role", "timeoutMs");
}

/**
 * Has the gateways map a port, where a context was given that knows them; a hole may be punched
 * where no port is mapped, so that they refuse is no failure.
 *
 * @param add Takes what they granted, and the address of this host that it leads to.
 */
export async function mapPort(
  { nat, signal }: RendezvousOptions,
  protocol: Transport,
  told: PublicRendezvous,
  add: (external: Endpoint, local: string) => void,
): Promise<MappedPort | undefined> {
  const own = told.candidates.find(({ type, address }) =>
    type === "host" && familyOf(address) === 4
  );
  if (!nat || !own) return undefined;
  try {
    const mapping = await nat.map(own.port, { protocol, ...(signal && { signal }) });
    add(mapping.external, own.address);
    return mapping;
  } catch (error) {
    if (error instanceof NatError) return undefined;
    throw error;
  }
}
