/**
 * What the three UDP adapters share: one spelling of addresses, and one of errors.
 *
 * @module
 */
import { NatError } from "../core/errors.ts";
import {
  anyAddress,
  canonicalAddress,
  type Family,
  familyOf,
  formatEndpoint,
  withoutZone,
} from "../core/ip.ts";
import type { Endpoint } from "../core/machine.ts";
import type { RandomSource } from "../core/random.ts";
import type { UdpHandlers, UdpOptions } from "./runtime.ts";

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

/** Where to bind for these options. */
export function bindEndpoint(options: UdpOptions): Endpoint {
  return options.local ?? { address: anyAddress(socketFamily(options)), port: 0 };
}

/**
 * Makes canonical endpoints of what a socket reports. The last address is remembered: a client
 * hears one gateway. Where a connected peer has a zone and the runtime leaves it out, the peer's
 * own spelling is given back.
 */
export function sourceReader(
  peer: Endpoint | undefined,
): (address: string, port: number) => Endpoint | undefined {
  let raw: string | undefined;
  let canonical: string | undefined;
  return (address, port) => {
    if (address !== raw) {
      raw = address;
      canonical = canonicalAddress(address);
      if (peer && canonical === withoutZone(peer.address)) canonical = peer.address;
    }
    if (canonical === undefined) return undefined;
    if (peer && (canonical !== peer.address || port !== peer.port)) return undefined;
    return { address: canonical, port };
  };
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

/** A {@linkcode NatError} for a socket that could not be opened. */
export function openError(error: unknown, options: UdpOptions): NatError {
  if (error instanceof NatError) return error;
  const { connect } = options;
  const what = `Cannot open a UDP socket on ${formatEndpoint(bindEndpoint(options))}` +
    (connect ? ` to ${formatEndpoint(connect)}` : "");
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

/**
 * Tells the right handler what a socket reported. Nobody listens at the peer: the runtimes say
 * ECONNREFUSED (Windows: ECONNRESET), which answers the datagram sent before.
 */
export function reportError(
  error: unknown,
  peer: Endpoint | undefined,
  handlers: UdpHandlers,
): void {
  const code = errorCode(error);
  if (peer && (code === "ECONNREFUSED" || code === "ECONNRESET")) handlers.onUnreachable(peer);
  else handlers.onError(error);
}

/** The error of a send on a connected socket to somebody else. */
export function wrongPeer(to: Endpoint, peer: Endpoint): NatError {
  return new NatError(
    "network",
    `Cannot send to ${formatEndpoint(to)}: the socket is connected to ${formatEndpoint(peer)}`,
  );
}
