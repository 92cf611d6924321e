/**
 * Reads what is written on the command line, one value at a time. What is no such value is a
 * {@linkcode UsageError} that names where it stood and what stood there.
 *
 * @module
 */
import { classify } from "../../core/cidr.ts";
import { MAX_LIFETIME_SECONDS } from "../../core/check.ts";
import type { Via } from "../../core/errors.ts";
import { canonicalAddress, familyOf, parseEndpoint } from "../../core/ip.ts";
import type { Endpoint } from "../../core/machine.ts";
import type { MappingMode, RemoteFilter, Transport } from "../../core/mapping.ts";
import { PCP_PORT } from "../../core/pcp/constants.ts";
import { MAX_DESCRIPTION_BYTES } from "../../core/pcp/options.ts";
import { parseFilter } from "../api/options.ts";
import { parseServer } from "../host_name.ts";

/** The port of a STUN server where none is written (RFC 8489 §18.6). */
export const STUN_PORT = 3478;
/** The most lifetimes that a mapping can be held through. */
const MAX_LIFETIMES = 0xffff_ffff;

/** The command line is wrong: the message says where and with which value; exit status 2. */
export class UsageError extends Error {
  /** Makes the error. */
  constructor(message: string) {
    super(message);
    this.name = "UsageError";
  }
}

/** Reads one value; `name` is the flag or positional in whose place `text` stands. */
export type Reader<T> = (name: string, text: string) => T;

function fail(name: string, wanted: string, text: string): never {
  throw new UsageError(`${name} must be ${wanted}: current value is "${text}"`);
}

/** A reader of whole numbers in `low`…`high`, written in plain decimal digits. */
export function integerIn(low: number, high: number): Reader<number> {
  return (name, text) => {
    const value = /^[0-9]{1,16}$/.test(text) ? Number(text) : NaN;
    if (value >= low && value <= high) return value;
    return fail(name, `a whole number in ${low}..${high}, in decimal digits`, text);
  };
}

/** A port that something listens on. */
export const readPort: Reader<number> = integerIn(1, 65535);

/** A lifetime, seconds. */
export const readLifetime: Reader<number> = integerIn(1, MAX_LIFETIME_SECONDS);

/** An IP address, in canonical form. */
export const readAddress: Reader<string> = (name, text) =>
  canonicalAddress(text) ?? fail(name, "an IP address", text);

/** An IP address that one host can have. */
export const readHostAddress: Reader<string> = (name, text) => {
  const address = readAddress(name, text);
  return isOneHost(address) ? address : fail(name, "the IP address of one host", text);
};

function isOneHost(address: string): boolean {
  return !["wildcard", "multicast", "broadcast"].includes(classify(address));
}

/** A gateway: `ADDRESS`, `ADDRESS:PORT` or `[IPV6%zone]:PORT`. */
export const readGateway: Reader<Endpoint> = (name, text) => {
  const endpoint = parseEndpoint(text, PCP_PORT);
  if (!endpoint || endpoint.port === 0 || !isOneHost(endpoint.address)) {
    return fail(name, "ADDRESS, ADDRESS:PORT or [IPV6%zone]:PORT", text);
  }
  const { address } = endpoint;
  // Every interface has such a network: the zone says of which one it is (RFC 4007 §6).
  if (address.includes(":") && classify(address) === "link-local" && !address.includes("%")) {
    return fail(name, "a link-local address with its zone, as in fe80::1%eth0", text);
  }
  return endpoint;
};

/** Where to listen: an address, and a port where one is written. */
export interface ListenAddress {
  /** Canonical. */
  readonly address: string;
  /** 0…65535. */
  readonly port?: number;
}

/** `ADDRESS`, `ADDRESS:PORT` or `[IPV6]:PORT`. */
export const readListen: Reader<ListenAddress> = (name, text) => {
  const endpoint = parseEndpoint(text, NO_PORT);
  if (!endpoint) return fail(name, "an IP address, or one with a port", text);
  const { address, port } = endpoint;
  return port === NO_PORT ? { address } : { address, port };
};

/** No port that can be written. */
const NO_PORT = -1;

/** `ADDRESS:PORT` or `[IPV6]:PORT`, of one host. */
export const readEndpoint: Reader<Endpoint> = (name, text) => {
  const endpoint = parseEndpoint(text, 0);
  if (endpoint && endpoint.port > 0 && isOneHost(endpoint.address)) return endpoint;
  return fail(name, "ADDRESS:PORT or [IPV6]:PORT", text);
};

/** A STUN server as it is written: `HOST`, `HOST:PORT` or `[IPV6]:PORT`. */
export const readStunServer: Reader<string> = (name, text) =>
  parseServer(text, STUN_PORT) ? text : fail(name, "HOST, HOST:PORT or [IPV6]:PORT", text);

/** A TURN server, and who we are there. */
export interface TurnServer {
  readonly server: string;
  readonly username: string;
  readonly password: string;
}

/** A TURN server as it is written: `USER:PASSWORD@HOST:PORT`; the password may hold `:` and `@`. */
export const readTurnServer: Reader<TurnServer> = (name, text) => {
  const match = /^([^:]+):(.+)@([^@]+)$/.exec(text);
  const server = match?.[3] ?? "";
  // Not shown: there is a password in it.
  if (!match || !parseServer(server, STUN_PORT)) {
    throw new UsageError(`${name} must be USER:PASSWORD@HOST:PORT`);
  }
  return { username: match[1]!, password: match[2]!, server };
};

/** `ADDRESS/PREFIX`, `ADDRESS/PREFIX:PORT` or `[IPV6/PREFIX]:PORT`. */
export const readFilter: Reader<RemoteFilter> = (name, text) => {
  try {
    return parseFilter(text);
  } catch {
    return fail(name, "ADDRESS/PREFIX, ADDRESS/PREFIX:PORT or [IPV6/PREFIX]:PORT", text);
  }
};

/** The protocols of gateways, as they are written. */
export const PROTOCOLS: readonly Via[] = ["pcp", "nat-pmp", "upnp"];

/** Protocols separated by commas, each once. */
export const readVia: Reader<readonly Via[]> = (name, text) => {
  const words = text.split(",");
  const isVia = (word: string): word is Via => (PROTOCOLS as readonly string[]).includes(word);
  if (words.every(isVia) && new Set(words).size === words.length) return words;
  return fail(name, "of pcp, nat-pmp and upnp, separated by commas", text);
};

/** `keep-alive`, `once` or a number of lifetimes. */
export const readMode: Reader<MappingMode> = (name, text) => {
  if (text === "keep-alive" || text === "once") return text;
  const lifetimes = /^[0-9]{1,16}$/.test(text) ? Number(text) : 0;
  if (lifetimes >= 1 && lifetimes <= MAX_LIFETIMES) return lifetimes;
  return fail(name, `keep-alive, once or a whole number in 1..${MAX_LIFETIMES}`, text);
};

/** A description for the gateway's list. */
export const readDescription: Reader<string> = (name, text) => {
  const bytes = new TextEncoder().encode(text).length;
  if (bytes <= MAX_DESCRIPTION_BYTES) return text;
  throw new UsageError(
    `${name} must be at most ${MAX_DESCRIPTION_BYTES} bytes of UTF-8: current value has ${bytes}`,
  );
};

/** Text that is not empty. */
export const readText: Reader<string> = (name, text) =>
  text === "" ? fail(name, "a text that is not empty", text) : text;

/** The most ports that a command line names. */
export const MAX_PORTS = 64;

/** What `PORT/proto` means. */
export interface PortAndProtocol {
  /** 1…65535. */
  readonly port: number;
  /** The transport protocol. */
  readonly protocol: Transport;
}

/** `PORT`, `PORT/tcp` or `PORT/udp`; without a protocol it is `fallback`, where there is one. */
export function readPortAndProtocol(
  name: string,
  text: string,
  fallback: Transport | undefined,
): PortAndProtocol {
  const slash = text.indexOf("/");
  const port = readPort(name, slash < 0 ? text : text.slice(0, slash));
  const protocol = slash < 0 ? fallback : text.slice(slash + 1);
  if (protocol === "tcp" || protocol === "udp") return { port, protocol };
  return fail(name, "PORT/tcp or PORT/udp", text);
}

/** Throws unless all addresses that are given belong to one family. */
export function checkOneFamily(given: readonly (readonly [name: string, address: string])[]): void {
  const [first] = given;
  const other = given.find(([, address]) => familyOf(address) !== familyOf(first![1]));
  if (!first || !other) return;
  throw new UsageError(
    `${first[0]} and ${other[0]} must be addresses of one family: current values are ` +
      `"${first[1]}" and "${other[1]}"`,
  );
}
