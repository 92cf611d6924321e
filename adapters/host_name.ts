/**
 * Servers as people name them: by host name or address.
 *
 * @module
 */
import { parseEndpoint } from "../core/ip.ts";

/** A server as it is named: a host name or an address, and a port. */
export interface ServerName {
  /** A name, or an address in canonical text. */
  readonly host: string;
  /** 1…65535. */
  readonly port: number;
}

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
