/**
 * Two peers meet by tickets: each opens a rendezvous, they trade the tickets by whatever way they
 * have, and each punches with the other's.
 *
 * @module
 */
import { checkAddress, checkChoice, checkList, checkPort, show } from "../../core/check.ts";
import { classify, isLoopback } from "../../core/cidr.ts";
import { pickDefined } from "../../core/defined.ts";
import { NatError, type NatErrorCode } from "../../core/errors.ts";
import type { IceFailure, IceRole } from "../../core/ice/agent.ts";
import { whyUnreachable } from "../../core/ice/candidate.ts";
import type { RelayServer } from "../../core/ice/relays.ts";
import {
  checkPublic,
  formatSdp,
  formatTicket,
  parseSdp,
  parseTicket,
  type PublicRendezvous,
  TicketError,
} from "../../core/ice/ticket.ts";
import { familyOf, withoutZone } from "../../core/ip.ts";
import type { Endpoint, Instant, Machine } from "../../core/machine.ts";
import type { Transport } from "../../core/mapping.ts";
import { systemRuntime } from "../auto.ts";
import type { Driver } from "../driver.ts";
import type { Runtime } from "../runtime.ts";
import { readStunServer, readStunServers } from "../host_name.ts";
import { checkOptions, checkSignal, waitFor } from "./wait.ts";

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
   * One whose name cannot be looked up is done without, where another server can.
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
  /**
   * UDP: opens sockets of `node:dgram` on every runtime, so that the one that was punched can be
   * handed over (`UdpChannel.detach`). TCP's always are handed over.
   */
  readonly isDetachable?: boolean;
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

const ROLES: readonly IceRole[] = ["controlling", "controlled"];
/** The most addresses of this host that are tried. */
const MAX_ADDRESSES = 8;

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
 * @throws {NatError} `permission` or `network`, where none of the servers could be looked up, or
 *   this host has no address.
 */
export async function prepare(options: RendezvousOptions): Promise<Setup> {
  const { stunServers = [], turnServers = [], localAddresses, localPort, nat, role, signal } =
    checkOptions(options);
  const port = checkPort("localPort", localPort ?? 0, 0);
  const names = readStunServers("stunServers", stunServers);
  const turns = checkList("turnServers", turnServers).map((turn) => ({
    name: readStunServer("turnServers", turn?.server),
    username: checkName("turnServers.username", turn.username),
    password: checkName("turnServers.password", turn.password),
  }));
  const given = localAddresses === undefined
    ? undefined
    : checkList("localAddresses", localAddresses)
      .map((address) => checkAddress("localAddresses", address));
  if (given?.length === 0) {
    throw new TypeError("'localAddresses' must name an address of this host: current value is []");
  }
  if (role !== undefined) checkChoice("role", role, ROLES);
  if (nat !== undefined && typeof nat?.map !== "function") {
    throw new TypeError(`'nat' must be a Nat: current value is ${show(nat)}`);
  }
  checkSignal(signal)?.throwIfAborted();
  const runtime = options.runtime ?? systemRuntime();
  const { resolveServer } = await import("../names.ts");
  const looked = await Promise.allSettled(names.map((name) => resolveServer(name)));
  const lookedTurn = await Promise.allSettled(turns.map(async ({ name, ...who }) => {
    const [server] = await resolveServer(name);
    return { server: server!, ...who };
  }));
  checkLooked([...looked, ...lookedTurn]);
  const servers = looked.flatMap((one) => one.status === "fulfilled" ? one.value : []);
  const relays = lookedTurn.flatMap((one) => one.status === "fulfilled" ? one.value : []);
  const addresses = given ?? ownAddresses(runtime);
  if (addresses.length === 0) {
    throw new NatError("network", "Cannot listen for the peer: no interface has an address");
  }
  signal?.throwIfAborted();
  return { runtime, servers, relays, addresses, port };
}

/** Throws where none of the servers could be looked up, or something else went wrong. */
function checkLooked(results: readonly PromiseSettledResult<unknown>[]): void {
  const reasons = results.flatMap((one): unknown[] =>
    one.status === "rejected" ? [one.reason] : []
  );
  const fault = reasons.find((reason) => !(reason instanceof NatError));
  if (fault !== undefined) throw fault;
  if (reasons.length > 0 && reasons.length === results.length) throw reasons[0];
}

/** The value is not shown: it may be a password. */
function checkName(option: string, text: unknown): string {
  if (typeof text === "string" && text !== "") return text;
  throw new TypeError(`'${option}' must be a text that is not empty`);
}

/** The addresses at which this host may be reached; without a network those that it has for itself. */
function ownAddresses(runtime: Runtime): readonly string[] {
  const all = [...new Set(runtime.interfaces().map(({ address }) => address))];
  const outward = all.filter((address) =>
    !isLoopback(address) && classify(withoutZone(address)) !== "link-local"
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
function readPeer(peer: string | PublicRendezvous): PublicRendezvous {
  if (typeof peer !== "string") {
    checkPublic(peer);
    return peer;
  }
  return /^\s*(?:a|v|m|c|o|s|t)=/.test(peer) ? parseSdp(peer) : parseTicket(peer);
}

/** One peer's side of a rendezvous, over whichever transport: how it is told to the other. */
export abstract class RendezvousSide implements AsyncDisposable {
  /** What goes to the peer, as data. */
  abstract get told(): PublicRendezvous;

  /** Ends it. */
  abstract close(): Promise<void>;

  /** The same as one line, for a peer that is a natkit. */
  get ticket(): string {
    return formatTicket(this.told);
  }

  /** The same as the lines of SDP that are about ICE, for any other ICE stack. */
  get sdp(): readonly string[] {
    return formatSdp(this.told);
  }

  /** {@linkcode RendezvousSide.close}, for `await using`. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}

const CODES: Readonly<Record<IceFailure, NatErrorCode>> = {
  network: "network",
  permission: "permission",
  "no-answer": "no-answer",
  "one-way": "no-answer",
  "hard-nat": "hard-nat",
};

/** The error of a punch that failed. */
function punchError(reason: IceFailure, message: string): NatError {
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
async function mapPort(
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
    if (whyUnreachable(mapping.external) === undefined) {
      add(mapping.external, own.address);
      return mapping;
    }
    // What a gateway says of itself is no more than that.
    await mapping.close();
  } catch (error) {
    if (!(error instanceof NatError)) throw error;
  }
  return undefined;
}

/** Throws where this is no peer of ours, so that nobody waits for one in vain. */
function checkPeer({ ufrag, pwd, candidates }: PublicRendezvous, own: PublicRendezvous): void {
  if (ufrag === own.ufrag && pwd === own.pwd) throw new TicketError("own", "it is this side's own");
  const ours = own.candidates[0]?.transport, theirs = candidates[0]?.transport;
  if (!ours || !theirs || candidates.some(({ transport }) => transport === ours)) return;
  const message = `it is for ${theirs.toUpperCase()}, and this side's for ${ours.toUpperCase()}`;
  throw new TicketError("other-transport", message);
}

/** What the machines of both transports tell before the two peers have met. */
type MeetingEvent =
  | { readonly type: "gathered" }
  | { readonly type: "failed"; readonly reason: IceFailure; readonly message: string }
  | { readonly type: string };

/** What the machines of both transports are asked for. */
interface MeetingMachine<E> extends Machine<E> {
  readonly rendezvous: PublicRendezvous | undefined;
  gather(now: Instant): void;
  addMapped(external: Endpoint, local: string, now: Instant): void;
  setRemote(peer: PublicRendezvous, now: Instant, options: { readonly delayMs: number }): void;
  close(now: Instant): void;
}

/** One peer's side: its machine on real sockets, up to where the two have met. */
export class Side<E extends MeetingEvent, M extends MeetingMachine<E>> {
  readonly #runtime: Runtime;
  readonly #driver: Driver<E, M>;
  #hear: (event: MeetingEvent) => void = () => {};
  #abandon: () => void = () => {};
  #mapping: MappedPort | undefined;
  #hasPeer = false;
  #isClosed = false;
  #closing: Promise<void> | undefined;

  /** @param driver Its events are to come to {@linkcode onEvent}. */
  constructor(runtime: Runtime, driver: Driver<E, M>) {
    this.#runtime = runtime;
    this.#driver = driver;
  }

  /** Whether it was closed. */
  get isClosed(): boolean {
    return this.#isClosed;
  }

  /** What goes to the peer, as data. */
  get told(): PublicRendezvous {
    return this.#driver.do((machine) => machine.rendezvous!);
  }

  /** Takes an event of the machine. */
  onEvent(event: E): void {
    this.#hear(event);
  }

  /** Starts the machine, and waits until it knows where it may be reached. */
  async open(machine: M, protocol: Transport, options: RendezvousOptions): Promise<void> {
    await this.#until(
      "gathered",
      options.signal,
      (reason, message) => new NatError(CODES[reason], message),
      () => {
        this.#driver.start(machine);
        this.#driver.do((it, now) => it.gather(now));
      },
    );
    this.#mapping = await mapPort(options, protocol, this.told, (external, own) => {
      this.#driver.do((it, now) => it.addMapped(external, own, now));
    });
  }

  /** Hands the peer's ticket to the machine, and waits until the two have met. */
  async meet(
    peer: string | PublicRendezvous,
    options: PunchOptions,
  ): Promise<Extract<E, { readonly type: "connected" }>> {
    const { signal, delayMs = 0 } = checkOptions(options);
    const told = readPeer(peer);
    if (this.#isClosed) throw new NatError("closed", "Cannot punch: the rendezvous is closed");
    if (this.#hasPeer) throw new TypeError("Cannot punch: this rendezvous has its peer already");
    checkPeer(told, this.told);
    try {
      const event = await this.#until("connected", signal, punchError, () => {
        this.#driver.do((machine, now) => machine.setRemote(told, now, { delayMs }));
        this.#hasPeer = true;
      });
      return event as Extract<E, { readonly type: "connected" }>;
    } catch (error) {
      // Given up or failed, it is over for the peer, too; its close() tells how that went.
      if (this.#hasPeer) this.close().catch(() => {});
      throw error;
    }
  }

  /** Ends it, once; `before` is done to the machine first. */
  close(before: (machine: M, now: Instant) => void = () => {}): Promise<void> {
    return this.#closing ??= Promise.resolve(this.leave(before)?.close());
  }

  /** Ends it likewise, but for the port that a gateway has mapped, which is the caller's then. */
  leave(before: (machine: M, now: Instant) => void = () => {}): MappedPort | undefined {
    if (this.#isClosed) return undefined;
    this.#isClosed = true;
    if (this.#driver.machine) {
      this.#driver.do((machine, now) => {
        before(machine, now);
        machine.close(now);
      });
    }
    this.#driver.close();
    this.#abandon();
    return this.#mapping;
  }

  /** Waits for an event of a type; how long is the machine's to say. */
  #until(
    type: string,
    signal: AbortSignal | undefined,
    errorOf: (reason: IceFailure, message: string) => NatError,
    start: () => void,
  ): Promise<MeetingEvent> {
    const options = { timeoutMs: Infinity, ...(signal && { signal }) };
    return waitFor<MeetingEvent>(this.#runtime, options, () => undefined, (settle) => {
      this.#abandon = () =>
        settle.reject(new NatError("closed", "Cannot go on: the rendezvous was closed"));
      this.#hear = (event) => {
        if (event.type === type) settle.resolve(event);
        else if (isFailure(event)) settle.reject(errorOf(event.reason, event.message));
      };
      start();
    });
  }
}

function isFailure(
  event: MeetingEvent,
): event is MeetingEvent & {
  readonly type: "failed";
  readonly reason: IceFailure;
  readonly message: string;
} {
  return event.type === "failed";
}
