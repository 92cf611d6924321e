/**
 * Which URLs of a device are followed. What a device announces is a request to a place that it
 * chooses, made from inside the network: so only addresses are taken, never names, which may lead
 * anywhere tomorrow; only plain HTTP; and only the host that announced the URL, or another one that
 * the caller knows to be of the local network.
 *
 * @module
 */
import { classify } from "../cidr.ts";
import { parseEndpoint, withoutZone } from "../ip.ts";
import type { Endpoint } from "../machine.ts";

/** Why a URL is not followed. */
export type UrlFault =
  /** No URL, or one with a user's name, control characters or no end. */
  | "bad-url"
  /** Another scheme than `http`. */
  | "bad-scheme"
  /** A host that is no address. */
  | "host-name"
  /** An address other than the one that announced it. */
  | "off-host";

/** Where a URL leads. */
export interface LocalUrl {
  /** The host, whose address is the announcer's or is allowed. */
  readonly to: Endpoint;
  /** Path and query, from the `/` on, as they go into a request. */
  readonly path: string;
}

/** Whose URL it is. */
export interface UrlOwner {
  /** Canonical address of who announced it, with its zone where it is link-local. */
  readonly address: string;
  /** Whether another address may be meant: gateways that share an address answer from their own. */
  readonly isAllowed?: (address: string) => boolean;
}

/** There are devices with URLs of hundreds of characters (BT Voyager 210). */
const MAX_LENGTH = 2048;
const HTTP_PORT = 80;

/**
 * Resolves a URL, absolute or not, as far as it leads to the owner.
 *
 * @param url As the device wrote it.
 * @param base Where it was found, or what the description gives as its base; absolute.
 *
 * @example
 * ```ts
 * import { resolveLocal } from "@natkit/natkit/upnp";
 * const owner = { address: "192.168.1.1" };
 * const url = resolveLocal("ctl?WANIPConn1", "http://192.168.1.1:5000/desc.xml", owner);
 * console.assert(typeof url === "object" && url.path === "/ctl?WANIPConn1" && url.to.port === 5000);
 * console.assert(resolveLocal("http://203.0.113.1/", "", owner) === "off-host");
 * ```
 */
export function resolveLocal(url: string, base: string, owner: UrlOwner): LocalUrl | UrlFault {
  const wanted = split(url);
  if (typeof wanted === "string") return wanted;
  if (wanted.authority !== undefined) return local(wanted.authority, wanted.path, owner);
  const from = split(base);
  if (typeof from === "string") return from;
  if (from.authority === undefined) return "bad-url";
  return local(from.authority, join(from.path, wanted.path), owner);
}

/**
 * Resolves a URL of a description: against the base that it gives, and where that leads nowhere
 * (there are devices with a base from their factory) against where the description was found.
 */
export function resolveInDescription(
  url: string,
  urlBase: string,
  location: string,
  owner: UrlOwner,
): LocalUrl | UrlFault {
  const based = resolveLocal(url, urlBase, owner);
  return typeof based === "string" ? resolveLocal(url, location, owner) : based;
}

/**
 * A URL in its parts, without a fragment; the authority is undefined where the URL is relative.
 */
function split(text: string): { authority: string | undefined; path: string } | UrlFault {
  const url = text.trim();
  // deno-lint-ignore no-control-regex
  if (url.length > MAX_LENGTH || /[\0-\x1f\x7f\\]/.test(url)) return "bad-url";
  const scheme = /^([a-z][a-z0-9+.-]*):/i.exec(url)?.[1];
  if (scheme !== undefined && scheme.toLowerCase() !== "http") return "bad-scheme";
  const rest = url.slice(scheme === undefined ? 0 : scheme.length + 1).replace(/#.*$/, "");
  if (!rest.startsWith("//")) {
    return scheme === undefined ? { authority: undefined, path: rest } : "bad-url";
  }
  const [, authority = "", path = ""] = /^\/\/([^/?]*)(.*)$/.exec(rest) ?? [];
  return { authority, path };
}

/** A relative reference put in the place of what follows the last `/` of the base (RFC 3986 §5.2). */
function join(base: string, path: string): string {
  if (path.startsWith("/")) return path;
  const [folder = ""] = base.split("?");
  if (path === "") return base;
  if (path.startsWith("?")) return folder + path;
  return `${folder.slice(0, folder.lastIndexOf("/"))}/${path}`;
}

function local(authority: string, path: string, owner: UrlOwner): LocalUrl | UrlFault {
  if (authority.includes("@")) return "bad-url";
  const host = parseEndpoint(authority.replace(/:$/, "").replace("%25", "%"), HTTP_PORT);
  if (!host) {
    const name = /^([\w.-]+)(:\d*)?$/.exec(authority)?.[1];
    return name === undefined || parseEndpoint(name, HTTP_PORT) ? "bad-url" : "host-name";
  }
  if (host.port === 0) return "bad-url";
  const isOwner = withoutZone(host.address) === withoutZone(owner.address);
  if (!isOwner && !(mayBeMeant(host.address) && owner.isAllowed?.(host.address))) {
    return "off-host";
  }
  // A link-local address means nothing without the owner's zone, and the device knows none of ours.
  const address = isOwner ? owner.address : host.address;
  return { to: { address, port: host.port }, path: requestPath(path) };
}

/** Nobody but a host itself means this host, and no host is a group. */
function mayBeMeant(address: string): boolean {
  return !["wildcard", "loopback", "multicast", "broadcast"].includes(classify(address));
}

/** As it goes into a request line: from `/` on, without dot segments, what HTTP cannot carry encoded. */
function requestPath(text: string): string {
  const query = text.includes("?") ? text.slice(text.indexOf("?")) : "";
  const segments: string[] = [];
  const parts = text.slice(0, text.length - query.length).split("/");
  for (const [i, part] of parts.entries()) {
    const isLast = i === parts.length - 1;
    if (part === "..") segments.pop();
    if (part === ".." || part === ".") isLast && segments.push("");
    else if (i > 0) segments.push(part);
  }
  const path = `/${segments.join("/")}${query}`;
  return path.replace(/[^\x21-\x7e]+/g, (part) => encodeURI(part.toWellFormed()));
}
