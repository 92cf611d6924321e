/**
 * What the three UDP adapters share: one spelling of addresses, and one of errors.
 *
 * @module
 */
import { classify } from "../core/cidr.ts";
import { NatError } from "../core/errors.ts";
import {
  anyAddress,
  canonicalAddress,
  type Family,
  familyOf,
  formatEndpoint,
  zoneOf,
} from "../core/ip.ts";
import type { Endpoint } from "../core/machine.ts";
import type { RandomSource } from "../core/random.ts";
import type { UdpHandlers, UdpOptions, UdpSocket } from "./runtime.ts";

/** Randomness from Web Crypto, which all three runtimes have. */
export const cryptoRandom: RandomSource = {
  u32: () => crypto.getRandomValues(new Uint32Array(1))[0]!,
  // Web Crypto gives at most 65,536 bytes at a time.
  fill(bytes) {
    for (let i = 0; i < bytes.length; i += 65536) {
      crypto.getRandomValues(bytes.subarray(i, i + 65536) as Uint8Array<ArrayBuffer>);
    }
  },
};

/** The family a socket for these options must have. */
export function socketFamily(options: UdpOptions): Family {
  return familyOf(
    options.connect?.address ?? options.multicast?.group ?? options.local?.address ?? "0.0.0.0",
  );
}

/**
 * Where to bind for these options. A group of IPv6 is bound on its interface: `ff02::1` alone says
 * too little.
 */
export function bindEndpoint(options: UdpOptions): Endpoint {
  const { local, multicast } = options;
  if (!local) return { address: anyAddress(socketFamily(options)), port: 0 };
  const isGroup = familyOf(local.address) === 6 && local.address === multicast?.group;
  return isGroup && multicast.interface !== undefined
    ? { address: `${local.address}%${multicast.interface}`, port: local.port }
    : local;
}

/** The zone that link-local addresses on this socket are in, as far as the options tell. */
function socketZone({ connect, local, multicast }: UdpOptions): string | undefined {
  return zoneOf(connect?.address ?? "") ?? zoneOf(local?.address ?? "") ??
    (multicast && familyOf(multicast.group) === 6 ? multicast.interface : undefined);
}

/** A canonical address of what a runtime reports; some leave the zone out. */
function reportedAddress(raw: string, zone: string | undefined): string | undefined {
  const hasZone = zone === undefined || raw.includes("%") || !raw.includes(":");
  return canonicalAddress(hasZone ? raw : `${raw}%${zone}`);
}

/**
 * Makes canonical endpoints of the sources that a socket reports; undefined for one that is not to
 * be delivered (a connected socket hears its peer only). The last address is remembered: a client
 * hears one gateway.
 */
export function sourceReader(
  options: UdpOptions,
): (address: string, port: number) => Endpoint | undefined {
  const { connect: peer } = options;
  const zone = socketZone(options);
  let raw: string | undefined;
  let canonical: string | undefined;
  return (address, port) => {
    if (address !== raw) {
      raw = address;
      canonical = reportedAddress(address, zone);
    }
    if (canonical === undefined) return undefined;
    if (peer && (canonical !== peer.address || port !== peer.port)) return undefined;
    return { address: canonical, port };
  };
}

/** The discard port (RFC 863): a socket that only asks for its address is connected to it. */
const DISCARD_PORT = 9;

/**
 * The address from which the system would send to another: the local one of a socket connected to
 * it, which sends nothing. Undefined where nothing leads there.
 *
 * @param open Opens a socket that can be connected.
 */
export async function addressToward(
  address: string,
  open: (options: UdpOptions, handlers: UdpHandlers) => Promise<UdpSocket>,
): Promise<string | undefined> {
  const handlers = { onDatagram() {}, onUnreachable() {}, onError() {} };
  try {
    const socket = await open({ connect: { address, port: DISCARD_PORT } }, handlers);
    socket.close();
    return socket.local.address;
  } catch {
    return undefined;
  }
}

/** Where the runtime says that the socket is bound. */
export function boundEndpoint(
  reported: { readonly address: string; readonly port: number },
  options: UdpOptions,
): Endpoint {
  const address = reportedAddress(reported.address, socketZone(options));
  return { address: address ?? bindEndpoint(options).address, port: reported.port };
}

/** The address in the form that a socket of `family` sends to: IPv4 on an IPv6 socket is mapped. */
export function destination(address: string, family: Family): string {
  return family === 6 && familyOf(address) === 4 ? `::ffff:${address}` : address;
}

/** The stable error code of whatever a runtime threw. */
export function errorCode(error: unknown): string {
  const { code, name } = Object(error) as { code?: unknown; name?: unknown };
  return typeof code === "string" ? code : typeof name === "string" ? name : "";
}

/** Whether a socket could not be had since another one has the port. */
export function isInUse(error: unknown): boolean {
  return error instanceof NatError && /^(EADDRINUSE|AddrInUse)$/.test(errorCode(error.cause));
}

/** A {@linkcode NatError} for a call that failed. */
export function callError(what: string, error: unknown): NatError {
  if (error instanceof NatError) return error;
  const code = errorCode(error);
  if (code === "NotCapable" || code === "ERR_ACCESS_DENIED") {
    return new NatError("permission", `${what}: --allow-net is needed`, { cause: error });
  }
  if (/^(EACCES|EPERM|PermissionDenied)$/.test(code)) {
    const text = `${what}: the operating system forbids it (${code})`;
    return new NatError("permission", text, { cause: error });
  }
  const why = error instanceof Error ? error.message : String(error);
  return new NatError("network", `${what}: ${why}`, { cause: error });
}

/** A {@linkcode NatError} for a socket that could not be opened. */
export function openError(error: unknown, options: UdpOptions): NatError {
  const { connect } = options;
  const what = `Cannot open a UDP socket on ${formatEndpoint(bindEndpoint(options))}` +
    (connect ? ` to ${formatEndpoint(connect)}` : "");
  return callError(what, error);
}

/** A {@linkcode NatError} for a datagram that did not leave, or that the network gave back. */
export function sendError(error: unknown, to: Endpoint): NatError {
  return callError(`Cannot send to ${formatEndpoint(to)}`, error);
}

/** Whether ICMP says that nobody listens: ECONNREFUSED (Windows: ECONNRESET). */
export function isRefusal(error: unknown): boolean {
  return /^ECONN(REFUSED|RESET)$/.test(errorCode(error));
}

/**
 * Whether the error of a send may be ICMP's answer to an earlier datagram, which the system hands
 * over at the next call; that call's own datagram then did not leave.
 */
export function isBelated(error: unknown): boolean {
  return isRefusal(error) || /^E(HOST|NET)UNREACH$/.test(errorCode(error));
}

/**
 * Tells the right handler what a socket reported. A refusal answers the datagram sent before; on a
 * socket without a peer nobody knows which one that was, so it is dropped.
 *
 * @param to Where the datagram was to go that was refused to be sent.
 */
export function reportError(
  error: unknown,
  peer: Endpoint | undefined,
  handlers: UdpHandlers,
  to: Endpoint | undefined = peer,
): void {
  if (isRefusal(error)) {
    if (peer) handlers.onUnreachable(peer);
  } else if (to) handlers.onError(sendError(error, to), to);
  else handlers.onError(callError("Cannot use a UDP socket", error));
}

/** The error of a send on a connected socket to somebody else. */
export function wrongPeer(to: Endpoint, peer: Endpoint): NatError {
  return new NatError(
    "network",
    `Cannot send to ${formatEndpoint(to)}: the socket is connected to ${formatEndpoint(peer)}`,
  );
}

/** Sends one datagram and calls `done` once it has left or failed. Never throws. */
export type SendOne = (data: Uint8Array, to: Endpoint, done: () => void) => void;

/**
 * Sends to a group by each of these interfaces in turn, and to one host once.
 *
 * @param choose Sets by which interface the socket sends to groups from then on.
 * @param onError Is told what choosing threw: the interface may be gone.
 */
export function sendByEach(
  { multicastBy }: UdpOptions,
  choose: (address: string) => void,
  send: SendOne,
  onError: (error: unknown, to: Endpoint) => void,
): SendOne {
  if (!multicastBy) return send;
  return (data, to, done) => {
    if (classify(to.address) !== "multicast") return send(data, to, done);
    const sendFrom = (i: number): void => {
      const address = multicastBy[i];
      if (address === undefined) return done();
      try {
        choose(address);
      } catch (error) {
        onError(error, to);
        return sendFrom(i + 1);
      }
      send(data, to, () => sendFrom(i + 1));
    };
    sendFrom(0);
  };
}

/** How many datagrams wait at most for those before them: then the system takes none any more. */
const MAX_WAITING = 4096;

/**
 * Sends datagrams one after the other, so that they leave in the order of the calls. Without it
 * Deno sends those of a socket's first turn last to first, and one that is sent again after ICMP's
 * answer to an earlier one is overtaken by the next.
 */
export class SendQueue {
  readonly #send: SendOne;
  readonly #waiting: { readonly data: Uint8Array; readonly to: Endpoint }[] = [];
  #isSending = false;
  #isEmptying = false;
  #onIdle: (() => void) | undefined;

  /** Sends with `send`. */
  constructor(send: SendOne) {
    this.#send = send;
  }

  /** Sends it when its turn comes, at once where nothing waits; false where too much waits. */
  push(data: Uint8Array, to: Endpoint): boolean {
    if (!this.#isSending && this.#waiting.length === 0) {
      this.#isSending = true;
      this.#send(data, to, this.#onSent);
      return true;
    }
    if (this.#waiting.length >= MAX_WAITING) return false;
    this.#waiting.push({ data, to });
    return true;
  }

  /** Calls back once everything has left, at once where nothing waits. */
  whenIdle(callback: () => void): void {
    if (this.#isSending) this.#onIdle = callback;
    else callback();
  }

  readonly #onSent = (): void => {
    this.#isSending = false;
    // What is sent at once calls back from within the loop below.
    if (this.#isEmptying) return;
    this.#isEmptying = true;
    for (let next; !this.#isSending && (next = this.#waiting.shift());) {
      this.#isSending = true;
      this.#send(next.data, next.to, this.#onSent);
    }
    this.#isEmptying = false;
    if (!this.#isSending) this.#onIdle?.();
  };
}

/** The error of a datagram that found a {@linkcode SendQueue} full. */
export function queueFull(to: Endpoint): NatError {
  return new NatError(
    "network",
    `Cannot send to ${formatEndpoint(to)}: ${MAX_WAITING} datagrams wait to be sent`,
  );
}
