/**
 * Servers as people name them: by host name or address.
 *
 * @module
 */
import { checkList, checkPort, show } from "../core/check.ts";
import { canonicalAddress, parseEndpoint } from "../core/ip.ts";
import type { Endpoint } from "../core/machine.ts";

/** A server as it is named: a host name or an address, and a port. */
export interface ServerName {
  /** A name, or an address in canonical text. */
  readonly host: string;
  /** 1…65535. */
  readonly port: number;
}

/** The port where a STUN server's name says none (RFC 8489 §18.6), and a TURN server's. */
const STUN_PORT = 3478;

/** What RFC 1123 lets a part of a name be, an underscore here and there included. */
const LABEL = "[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?";
const NAME = new RegExp(`^(?=.{1,253}$)${LABEL}(?:\\.${LABEL})*\\.?$`, "i");

/**
 * Reads `HOST`, `HOST:PORT`, `ADDRESS`, `ADDRESS:PORT` or `[IPV6]:PORT`; undefined where it is none
 * of them.
 */
export function parseServer(text: string, defaultPort: number): ServerName | undefined {
  const endpoint = parseEndpoint(text, defaultPort);
  if (endpoint) {
    return endpoint.port === 0 ? undefined : { host: endpoint.address, port: endpoint.port };
  }
  const match = /^([^:]+)(?::([0-9]{1,5}))?$/.exec(text);
  const host = match?.[1] ?? "";
  const port = match?.[2] === undefined ? defaultPort : Number(match[2]);
  // All digits and dots is an address that was mistyped.
  if (!NAME.test(host) || /^[0-9.]+$/.test(host) || port < 1 || port > 65535) return undefined;
  return { host, port };
}

/**
 * A STUN or TURN server as an option names it: by text or by endpoint.
 *
 * @throws {TypeError | RangeError} Where it does not, with the option's name and the value.
 */
export function readStunServer(option: string, server: string | Endpoint): ServerName {
  const read = typeof server === "string"
    ? parseServer(server, STUN_PORT)
    : byEndpoint(`${option}.port`, server);
  if (read) return read;
  const shown = typeof server === "object" ? JSON.stringify(server) : show(server);
  throw new TypeError(
    `'${option}' must be HOST, HOST:PORT, [IPV6]:PORT or an endpoint: current value is ${shown}`,
  );
}

/**
 * A list of them.
 *
 * @throws {TypeError | RangeError} As {@linkcode readStunServer}.
 */
export function readStunServers(
  option: string,
  servers: readonly (string | Endpoint)[],
): ServerName[] {
  return checkList(option, servers).map((server) => readStunServer(option, server));
}

function byEndpoint(portName: string, server: Endpoint): ServerName | undefined {
  const host = typeof server?.address === "string" ? canonicalAddress(server.address) : undefined;
  return host === undefined ? undefined : { host, port: checkPort(portName, server.port) };
}
