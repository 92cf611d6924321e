/**
 * Events (UPnP Device Architecture §4, GENA): a control point subscribes to a service and is told by
 * HTTP, at the URL that it named, which of the service's variables changed.
 *
 * @module
 */
import { checkInteger } from "../check.ts";
import type { HttpHeaders, HttpRequest, HttpResponse } from "../machine.ts";
import { checkFieldValue, headerValue, readNumber } from "./header.ts";
import { escapeXml, findElement, parseXml } from "./xml.ts";
import type { XmlFault } from "./xml.ts";

/** The longest event that is read, bytes. */
const MAX_BYTES = 65_536;
/** The most callback URLs of a subscription that are looked at. */
const MAX_CALLBACKS = 4;
/** The subscription that is asked for by default, seconds. */
const TIMEOUT_SECONDS = 1800;
const MAX_TIMEOUT_SECONDS = 0x7fff_ffff;
const MAX_SEQUENCE = 0xffff_ffff;

/** What a device is asked about a subscription. */
export type GenaRequest =
  /** A new one. */
  | {
    readonly kind: "subscribe";
    /** Where events are to go, as they were written, in order of preference; at most 4. */
    readonly callbacks: readonly string[];
    /** How long it is to last, seconds; undefined: for good. */
    readonly timeoutSeconds: number | undefined;
  }
  /** One that is to go on. */
  | {
    readonly kind: "renew";
    /** Its id. */
    readonly sid: string;
    /** How long it is to last from now, seconds; undefined: for good. */
    readonly timeoutSeconds: number | undefined;
  }
  /** One that is to end. */
  | {
    readonly kind: "unsubscribe";
    /** Its id. */
    readonly sid: string;
  };

/** Why a message is none; a device answers by {@linkcode genaStatus}. */
export type GenaFault =
  | XmlFault
  /** Another method, or an answer with a status other than 200. */
  | "not-gena"
  /** An id together with a callback or a notification type. */
  | "both"
  /** A subscription without a callback, a notification type other than `upnp:event`. */
  | "precondition"
  /** No subscription's id, or no sequence number. */
  | "no-sid";

/** An event. */
export interface GenaEvent {
  /** The subscription's id. */
  readonly sid: string;
  /** 0 for the first, which tells all; then 1…2³²−1 and 1 again. */
  readonly sequence: number;
  /** The variables that changed, with their values. */
  readonly properties: Readonly<Record<string, string>>;
}

/** A subscription as the device confirms it. */
export interface GenaSubscription {
  /** Its id. */
  readonly sid: string;
  /** How long it lasts, seconds; undefined: for good. */
  readonly timeoutSeconds: number | undefined;
}

function timeoutField(seconds: number): readonly [string, string] {
  checkInteger("timeoutSeconds", seconds, 1, MAX_TIMEOUT_SECONDS);
  return ["TIMEOUT", `Second-${seconds}`];
}

/**
 * The request that subscribes (UDA §4.1.1).
 *
 * @param path Path and query of the service's event URL.
 * @param callback Where events are to go, an absolute URL.
 * @throws {TypeError | RangeError} Where something does not fit in its field.
 */
export function encodeSubscribe(
  path: string,
  callback: string,
  timeoutSeconds: number = TIMEOUT_SECONDS,
): HttpRequest {
  return {
    method: "SUBSCRIBE",
    path,
    headers: [
      ["CALLBACK", `<${checkFieldValue("callback", callback)}>`],
      ["NT", "upnp:event"],
      timeoutField(timeoutSeconds),
    ],
  };
}

/**
 * The request that renews a subscription (UDA §4.1.2).
 *
 * @throws {TypeError | RangeError} Where something does not fit in its field.
 */
export function encodeResubscribe(
  path: string,
  sid: string,
  timeoutSeconds: number = TIMEOUT_SECONDS,
): HttpRequest {
  const headers: HttpHeaders = [["SID", checkFieldValue("sid", sid)], timeoutField(timeoutSeconds)];
  return { method: "SUBSCRIBE", path, headers };
}

/**
 * The request that ends a subscription (UDA §4.1.3).
 *
 * @throws {TypeError} Where `sid` does not fit in its field.
 */
export function encodeUnsubscribe(path: string, sid: string): HttpRequest {
  return { method: "UNSUBSCRIBE", path, headers: [["SID", checkFieldValue("sid", sid)]] };
}

/** Reads the answer to one of the two that subscribe. */
export function decodeSubscribed({ status, headers }: HttpResponse): GenaSubscription | GenaFault {
  if (status !== 200) return "not-gena";
  const sid = headerValue(headers, "SID");
  if (!sid) return "no-sid";
  return { sid, timeoutSeconds: readTimeout(headers, TIMEOUT_SECONDS) };
}

/** The answer that confirms a subscription. */
export function encodeSubscribed({ sid, timeoutSeconds }: GenaSubscription): HttpResponse {
  return {
    status: 200,
    headers: [
      ["SID", checkFieldValue("sid", sid)],
      timeoutSeconds === undefined ? ["TIMEOUT", "Second-infinite"] : timeoutField(timeoutSeconds),
    ],
    body: new Uint8Array(0),
  };
}

/** What a device answers to a request that it cannot read (UDA §4.1.1). */
export function genaStatus(fault: GenaFault): number {
  if (fault === "both") return 400;
  return fault === "precondition" || fault === "no-sid" ? 412 : 405;
}

/** Reads a request about a subscription, as a device gets it. */
export function decodeSubscribe({ method, headers }: HttpRequest): GenaRequest | GenaFault {
  const sid = headerValue(headers, "SID") ?? "";
  const callback = headerValue(headers, "CALLBACK");
  const type = headerValue(headers, "NT");
  if (method !== "SUBSCRIBE" && method !== "UNSUBSCRIBE") return "not-gena";
  if (sid !== "" && (callback !== undefined || type !== undefined)) return "both";
  if (method === "UNSUBSCRIBE") return sid === "" ? "no-sid" : { kind: "unsubscribe", sid };
  const timeoutSeconds = readTimeout(headers, TIMEOUT_SECONDS);
  if (sid !== "") return { kind: "renew", sid, timeoutSeconds };
  const callbacks = [...(callback ?? "").matchAll(/<([^<>]*)>/g)].map(([, url]) => url!.trim())
    .filter((url) => url !== "").slice(0, MAX_CALLBACKS);
  if (type !== "upnp:event" || callbacks.length === 0) return "precondition";
  return { kind: "subscribe", callbacks, timeoutSeconds };
}

function readTimeout(headers: HttpHeaders, otherwise: number): number | undefined {
  const text = /^Second-\s*(\w+)$/i.exec(headerValue(headers, "TIMEOUT") ?? "")?.[1];
  if (text?.toLowerCase() === "infinite") return undefined;
  return readNumber(text, MAX_TIMEOUT_SECONDS) ?? otherwise;
}

/**
 * The request that tells of an event (UDA §4.2).
 *
 * @param path Path and query of the callback URL.
 * @throws {TypeError | RangeError} Where something does not fit in its field.
 */
export function encodeEvent(path: string, event: GenaEvent): HttpRequest {
  const { sid, sequence, properties } = event;
  checkInteger("sequence", sequence, 0, MAX_SEQUENCE);
  const inside = Object.entries(properties).map(([name, value]) =>
    `<e:property><${name}>${escapeXml(value)}</${name}></e:property>`
  );
  const text = '<?xml version="1.0"?><e:propertyset xmlns:e="urn:schemas-upnp-org:event-1-0">' +
    `${inside.join("")}</e:propertyset>`;
  return {
    method: "NOTIFY",
    path,
    headers: [
      ["Content-Type", 'text/xml; charset="utf-8"'],
      ["NT", "upnp:event"],
      ["NTS", "upnp:propchange"],
      ["SID", checkFieldValue("sid", sid)],
      ["SEQ", `${sequence}`],
    ],
    body: new TextEncoder().encode(text),
  };
}

/** Reads an event, as a control point gets it. */
export function decodeEvent(request: HttpRequest): GenaEvent | GenaFault {
  const { method, headers, body = new Uint8Array(0) } = request;
  if (method !== "NOTIFY") return "not-gena";
  const isEvent = headerValue(headers, "NT") === "upnp:event" &&
    headerValue(headers, "NTS") === "upnp:propchange";
  if (!isEvent) return "precondition";
  const sid = headerValue(headers, "SID");
  const sequence = readNumber(headerValue(headers, "SEQ"), MAX_SEQUENCE);
  if (!sid || sequence === undefined) return "no-sid";
  const root = parseXml(body, { maxBytes: MAX_BYTES });
  if (typeof root === "string") return root;
  const set = findElement(root, "propertyset");
  const entries = (set?.children ?? []).filter(({ name }) => name === "property")
    .flatMap(({ children }) => children.map(({ name, text }) => [name, text] as const));
  return { sid, sequence, properties: Object.fromEntries(entries) };
}
