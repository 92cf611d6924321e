/**
 * Calling actions (UPnP Device Architecture §3): SOAP 1.1 envelopes in HTTP.
 *
 * What is written is what the pickiest devices take: the envelope by hand, without white space
 * between elements or before the declaration, prefixes `s` and `u`, arguments in the order given,
 * `Content-Type` and `SOAPAction` to the letter. What is read is told by local names alone, whatever
 * the status, the prefixes, the namespaces and the nesting.
 *
 * @module
 */
import { checkInteger } from "../check.ts";
import type { HttpRequest, HttpResponse } from "../machine.ts";
import { headerValue, readNumber } from "./header.ts";
import { escapeXml, findElement, parseXml } from "./xml.ts";
import type { XmlElement, XmlFault } from "./xml.ts";

/** The longest message that is read, bytes. */
export const SOAP_MAX_BYTES = 65_536;

const ENVELOPE = "http://schemas.xmlsoap.org/soap/envelope/";
const ENCODING = "http://schemas.xmlsoap.org/soap/encoding/";
const CONTENT_TYPE = ["Content-Type", 'text/xml; charset="utf-8"'] as const;
/** A name that can stand in a tag: it comes from the caller, or from a description. */
const NAME = /^[A-Za-z_][\w.-]{0,127}$/;

/** Arguments by name, in their order, which many devices insist on. */
export type SoapArguments = Readonly<Record<string, string>>;

/** The call of an action. */
export interface SoapCall {
  /** The service's type as its description gives it. */
  readonly service: string;
  /** The action's name. */
  readonly action: string;
  /** Its arguments. */
  readonly args: SoapArguments;
}

/** Why a message is none. */
export type SoapFault =
  | XmlFault
  /** A request without SOAPAction, or with one that is none. */
  | "no-action"
  /** An answer with a status of HTTP's own and nothing of SOAP in it. */
  | "http-status"
  /** XML with neither a result nor a fault in it. */
  | "not-soap";

/** What became of a call. */
export type SoapResult =
  /** Done: what was returned. */
  | { readonly ok: true; readonly args: SoapArguments }
  /** The device refused: UPnP's code, 401…899, and its words, `""` where it has none. */
  | { readonly ok: false; readonly code: number; readonly description: string };

function envelope(body: string): Uint8Array {
  return new TextEncoder().encode(
    `<?xml version="1.0"?><s:Envelope xmlns:s="${ENVELOPE}" s:encodingStyle="${ENCODING}">` +
      `<s:Body>${body}</s:Body></s:Envelope>`,
  );
}

function element(name: string, service: string, args: SoapArguments): string {
  const inside = Object.entries(args).map(([key, value]) =>
    `<${checkName("argument", key)}>${escapeXml(value)}</${key}>`
  );
  return `<u:${name} xmlns:u="${escapeXml(service)}">${inside.join("")}</u:${name}>`;
}

function checkName(what: string, name: string): string {
  if (NAME.test(name)) return name;
  throw new TypeError(`'${what}' must be a name of XML: current value is "${name}"`);
}

function checkService(service: string): string {
  if (/^[\x21-\x7e]+$/.test(service) && !/["<>&#]/.test(service)) return service;
  throw new TypeError(`'service' must be a service type: current value is "${service}"`);
}

/**
 * The request that calls an action.
 *
 * @param path Path and query of the service's control URL.
 * @throws {TypeError} Where a name or the service's type cannot stand in it.
 *
 * @example
 * ```ts
 * import { decodeCall, encodeCall } from "@natkit/natkit/upnp";
 * const request = encodeCall({
 *   service: "urn:schemas-upnp-org:service:WANIPConnection:1",
 *   action: "DeletePortMapping",
 *   args: { NewRemoteHost: "", NewExternalPort: "6000", NewProtocol: "TCP" },
 * }, "/ctl/IPConn");
 * const call = decodeCall(request);
 * console.assert(typeof call === "object" && call.args["NewExternalPort"] === "6000");
 * ```
 */
export function encodeCall({ service, action, args }: SoapCall, path: string): HttpRequest {
  checkService(service);
  checkName("action", action);
  return {
    method: "POST",
    path,
    headers: [CONTENT_TYPE, ["SOAPAction", `"${service}#${action}"`]],
    body: envelope(element(action, service, args)),
  };
}

/**
 * The same call as UPnP 1.0 has it for devices that answer POST with 405: M-POST with a namespace
 * for its field.
 */
export function asMPost(request: HttpRequest): HttpRequest {
  return {
    ...request,
    method: "M-POST",
    headers: [
      ["MAN", `"${ENVELOPE}"; ns=01`],
      ...request.headers.map(([name, value]): readonly [string, string] => [
        name === "SOAPAction" ? `01-${name}` : name,
        value,
      ]),
    ],
  };
}

/** Reads the call of an action, as a device gets it. */
export function decodeCall(request: HttpRequest): SoapCall | SoapFault {
  const { headers, body = new Uint8Array(0) } = request;
  const field = headerValue(headers, "SOAPAction") ?? headerValue(headers, "01-SOAPAction");
  const [, service, action] = /^"?([^"#]+)#([^"#]+)"?$/.exec(field ?? "") ?? [];
  if (service === undefined || action === undefined) return "no-action";
  const root = parseXml(body, { maxBytes: SOAP_MAX_BYTES });
  if (typeof root === "string") return root;
  const called = findElement(root, "Body")?.children.find(({ name }) => name === action);
  return called ? { service, action, args: argumentsOf(called) } : "not-soap";
}

function argumentsOf({ children }: XmlElement): SoapArguments {
  const entries = new Map<string, string>();
  for (const { name, text } of children) if (!entries.has(name)) entries.set(name, text);
  return Object.fromEntries(entries);
}

/**
 * The answer to a call that succeeded.
 *
 * @throws {TypeError} As {@linkcode encodeCall}.
 */
export function encodeResult({ service, action, args }: SoapCall): HttpResponse {
  checkService(service);
  checkName("action", action);
  return {
    status: 200,
    headers: [CONTENT_TYPE, ["EXT", ""]],
    body: envelope(element(`${action}Response`, service, args)),
  };
}

/**
 * The answer to a call that failed.
 *
 * @param code 401…899.
 * @param description The code's name.
 * @throws {TypeError | RangeError} Where the code is none.
 */
export function encodeFault(code: number, description: string): HttpResponse {
  checkInteger("code", code, 100, 999);
  const detail = '<UPnPError xmlns="urn:schemas-upnp-org:control-1-0">' +
    `<errorCode>${code}</errorCode>` +
    `<errorDescription>${escapeXml(description)}</errorDescription></UPnPError>`;
  return {
    status: 500,
    headers: [CONTENT_TYPE, ["EXT", ""]],
    body: envelope(
      "<s:Fault><faultcode>s:Client</faultcode><faultstring>UPnPError</faultstring>" +
        `<detail>${detail}</detail></s:Fault>`,
    ),
  };
}

/** Action Failed: what a fault without a code comes to. */
const ACTION_FAILED = 501;

/**
 * Reads the answer to a call. A fault counts whatever its status and place, a result whatever its
 * name and status; where there is neither, the status tells whether HTTP refused or SOAP is broken.
 */
export function decodeResult({ status, body }: HttpResponse): SoapResult | SoapFault {
  const isRefused = status < 200 || status > 299;
  const root = parseXml(body, { maxBytes: SOAP_MAX_BYTES });
  if (typeof root === "string") return isRefused && root !== "too-long" ? "http-status" : root;
  const { children = [] } = findElement(root, "Body") ?? {};
  const response = children.find(({ name }) => name.endsWith("Response"));
  const fault = findElement(root, "Fault") ?? findElement(root, "UPnPError") ??
    // A result may return something of that name.
    (response ? undefined : findElement(root, "errorCode") && root);
  if (fault) return readFault(fault);
  const result = response ?? (isRefused ? undefined : children[0]);
  if (result) return { ok: true, args: argumentsOf(result) };
  return isRefused ? "http-status" : "not-soap";
}

function readFault(fault: XmlElement): SoapResult {
  const text = (name: string) => findElement(fault, name)?.text;
  return {
    ok: false,
    code: readNumber(text("errorCode"), 999) ?? ACTION_FAILED,
    // "UPnPError" is what UPnP has every fault say here.
    description: text("errorDescription") || text("faultstring")?.replace(/^UPnPError$/, "") || "",
  };
}
